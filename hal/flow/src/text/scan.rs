//! A cursor over text that knows where it is.

use super::{Reason, TextError};

/// Most levels of parentheses a parser follows.
pub(super) const MAX_DEPTH: usize = 16;

/// A cursor over a text.
#[derive(Clone, Copy)]
pub(super) struct Scan<'a> {
    pub text: &'a str,
    pub at: usize,
}

impl<'a> Scan<'a> {
    pub fn new(text: &'a str) -> Self {
        Scan { text, at: 0 }
    }

    pub fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub fn fail<T>(&self, reason: Reason) -> Result<T, TextError> {
        Err(TextError::new(self.text, self.at, reason))
    }

    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space and commas.
    pub fn skip_separators(&mut self) {
        let r = self.rest();
        self.at += r.len() - r.trim_start_matches(|c: char| c == ',' || c.is_ascii_whitespace()).len();
    }

    /// Takes `s` if it is next.
    pub fn eat(&mut self, s: &str) -> bool {
        let found = self.rest().starts_with(s);
        if found {
            self.at += s.len();
        }
        found
    }

    /// Takes the longest run of characters for which `f` holds.
    pub fn take_while(&mut self, f: impl Fn(char) -> bool) -> &'a str {
        let r = self.rest();
        let n = r.find(|c| !f(c)).unwrap_or(r.len());
        self.at += n;
        &r[..n]
    }

    /// Takes up to (not including) a character of `stop` outside of parentheses and double quotes.
    pub fn take_value(&mut self, stop: &str) -> Result<&'a str, TextError> {
        let r = self.rest();
        let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
        let mut end = r.len();
        for (i, c) in r.char_indices() {
            if quoted {
                (quoted, escaped) = (escaped || c != '"', !escaped && c == '\\');
                continue;
            }
            if depth == 0 && stop.contains(c) {
                end = i;
                break;
            }
            match c {
                '"' => quoted = true,
                '(' => depth += 1,
                ')' if depth == 0 => return self.fail(Reason::Expected("no closing parenthesis")),
                ')' => depth -= 1,
                _ => {}
            }
        }
        if depth > 0 || quoted {
            return self.fail(Reason::Expected("a closing parenthesis or quote"));
        }
        self.at += end;
        Ok(&r[..end])
    }
}
