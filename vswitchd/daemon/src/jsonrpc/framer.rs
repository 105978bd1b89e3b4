//! Cuts a stream of bytes into JSON messages, within bounds of length and depth.
//!
//! Knows brackets, strings and escapes, nothing else; whether a message is JSON is the parser's business. Depth and
//! length are bounded here, so that neither this nor the parser can be made to use much memory or stack. A message is
//! handed out where it lies, without a copy.

/// Why the stream cannot be followed any further. The connection must be closed: where the next message begins is
/// unknown.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The message is longer than allowed.
    #[error("message longer than {0} bytes")]
    TooLong(usize),
    /// Brackets nest deeper than allowed.
    #[error("message nested deeper than {0}")]
    TooDeep(usize),
    /// A message begins with this byte, which is neither `{` nor `[`.
    #[error("not a JSON message: it begins with byte {0:#04x}")]
    NotJson(u8),
}

/// Room that is kept when nothing is under way, in bytes; a longer message's memory is given back.
const KEEP_BYTES: usize = 64 << 10;

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Framer {
    buf: Vec<u8>,
    /// Where the message under way begins; what is before it was handed out.
    start: usize,
    /// How far `buf` was looked at.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    max_bytes: usize,
    max_depth: usize,
    /// A whole message that was found and not handed out.
    found: Option<(usize, usize)>,
    failed: Option<FrameError>,
}

impl Framer {
    /// A framer for messages of at most `max_bytes` whose brackets nest at most `max_depth` deep. Keep `max_depth`
    /// below 128, where the parser (`serde_json`) stops.
    pub fn new(max_bytes: usize, max_depth: usize) -> Self {
        Framer {
            buf: Vec::new(),
            start: 0,
            scanned: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            max_bytes,
            max_depth,
            found: None,
            failed: None,
        }
    }

    /// Takes bytes off the stream. Call [`Framer::next_message`] until it gives none before the next push: then what is
    /// kept is the unfinished message and these bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.buf.len() {
            self.buf.clear();
            self.buf.shrink_to(KEEP_BYTES);
        } else {
            self.buf.drain(..self.start);
        }
        self.scanned -= self.start;
        self.found = self.found.map(|(from, to)| (from - self.start, to - self.start));
        self.start = 0;
        self.buf.extend_from_slice(bytes);
    }

    /// Whether a message has begun that was not handed out.
    pub fn is_inside(&self) -> bool {
        self.buf[self.start..].iter().any(|b| !b.is_ascii_whitespace())
    }

    /// The next whole message, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]; every call from then on fails alike.
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, FrameError> {
        if !self.has_message()? {
            return Ok(None);
        }
        Ok(self.found.take().map(|(from, to)| {
            self.start = to;
            &self.buf[from..to]
        }))
    }

    /// Whether [`Framer::next_message`] has one to give.
    ///
    /// # Errors
    /// [`FrameError`]; every call from then on fails alike.
    pub fn has_message(&mut self) -> Result<bool, FrameError> {
        if self.found.is_none() {
            if let Some(e) = self.failed {
                return Err(e);
            }
            self.found = self.find_end().inspect_err(|&e| self.failed = Some(e))?;
        }
        Ok(self.found.is_some())
    }

    /// Bounds in `buf` of the next whole message.
    fn find_end(&mut self) -> Result<Option<(usize, usize)>, FrameError> {
        if self.depth == 0 {
            let rest = &self.buf[self.start..];
            self.start += rest.iter().take_while(|b| b.is_ascii_whitespace()).count();
            self.scanned = self.start;
        }
        while let Some(&b) = self.buf.get(self.scanned) {
            self.scanned += 1;
            if self.in_string {
                match b {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match b {
                b'{' | b'[' if self.depth == self.max_depth => {
                    return Err(FrameError::TooDeep(self.max_depth));
                }
                b'{' | b'[' => self.depth += 1,
                _ if self.depth == 0 => return Err(FrameError::NotJson(b)),
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        if self.scanned - self.start > self.max_bytes {
                            return Err(FrameError::TooLong(self.max_bytes));
                        }
                        return Ok(Some((self.start, self.scanned)));
                    }
                }
                b'"' => self.in_string = true,
                _ => {}
            }
        }
        if self.scanned - self.start >= self.max_bytes {
            return Err(FrameError::TooLong(self.max_bytes));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(f: &mut Framer) -> Vec<String> {
        let mut out = Vec::new();
        while let Some(m) = f.next_message().unwrap() {
            out.push(String::from_utf8(m.to_vec()).unwrap());
        }
        out
    }

    #[test]
    fn messages_are_cut_at_their_last_bracket() {
        let mut f = Framer::new(100, 32);
        f.push(b" {\"a\":[1,{}]}\n[]{\"x\":\"}]\\\"}\"} {\"y\"");
        assert_eq!(all(&mut f), [r#"{"a":[1,{}]}"#, "[]", r#"{"x":"}]\"}"}"#]);
        assert!(f.is_inside());
        f.push(b":1}\n");
        assert_eq!(all(&mut f), [r#"{"y":1}"#]);
        assert!(!f.is_inside());
    }

    #[test]
    fn length_and_depth_are_bounded() {
        for text in ["{\"12345678901234567890", "{\"12345678", "{\"1234567\"}"] {
            let mut f = Framer::new(10, 32);
            f.push(text.as_bytes());
            assert_eq!(f.next_message(), Err(FrameError::TooLong(10)), "{text}");
        }
        let mut f = Framer::new(10, 32);
        f.push(b"{\"123456\"}");
        assert_eq!(f.next_message().unwrap().unwrap().len(), 10);
        let mut f = Framer::new(1000, 3);
        f.push(b"[[[]]][[[[");
        assert_eq!(f.next_message(), Ok(Some(&b"[[[]]]"[..])));
        assert_eq!(f.next_message(), Err(FrameError::TooDeep(3)));
    }

    #[test]
    fn what_is_not_json_is_refused_at_once() {
        for s in ["GET / HTTP/1.0", "}", "\"a\"", "1"] {
            let mut f = Framer::new(100, 32);
            f.push(s.as_bytes());
            let refused = Err(FrameError::NotJson(s.as_bytes()[0]));
            assert_eq!(f.next_message(), refused, "{s}");
            f.push(b"{}");
            assert_eq!(f.next_message(), refused, "{s}: still");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_depend_on_how_bytes_arrive(
            names in prop::collection::vec("[a-z\\\\\"{}\\[\\]]{0,12}", 1..6), step in 1usize..7)
        {
            let whole: Vec<String> =
                names.iter().map(|n| serde_json::json!({ "m": n, "p": [n, {}] }).to_string()).collect();
            let mut f = Framer::new(1000, 32);
            let mut got = Vec::new();
            for part in whole.concat().as_bytes().chunks(step) {
                f.push(part);
                got.extend(all(&mut f));
            }
            prop_assert_eq!(got, whole);
        }

        #[test]
        fn no_bytes_crash_it_or_make_it_keep_more_than_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut f = Framer::new(64, 8);
            for part in bytes.chunks(16) {
                f.push(part);
                loop {
                    match f.next_message() {
                        Ok(Some(m)) => prop_assert!(m.len() <= 64),
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(f.buf.len() - f.start <= 64);
            }
        }
    }
}
