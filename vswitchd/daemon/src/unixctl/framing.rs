//! Finds where a JSON message ends in a stream of bytes.
//!
//! Knows brackets, strings and escapes, nothing else; whether the message is JSON is the parser's business. Depth and
//! length are bounded here, so that neither this nor the parser can be made to use much memory or stack.

/// Deepest nesting of a message.
pub const MAX_DEPTH: usize = 32;

/// Why the stream cannot be followed any further. The connection must be closed: where the next message begins is
/// unknown.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The message is longer than allowed.
    #[error("message longer than {0} bytes")]
    TooLong(usize),
    /// Brackets nest deeper than [`MAX_DEPTH`].
    #[error("message nested deeper than {MAX_DEPTH}")]
    TooDeep,
    /// A message begins with something that is neither `{` nor `[`, or a bracket closes that was not open.
    #[error("not a JSON message")]
    NotJson,
}

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Framer {
    buf: Vec<u8>,
    /// Bytes of `buf` looked at so far.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    limit_bytes: usize,
}

impl Framer {
    /// A framer for messages of at most `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        Framer { buf: Vec::new(), scanned: 0, depth: 0, in_string: false, escaped: false, limit_bytes }
    }

    /// Takes bytes off the stream. Call [`Framer::next_message`] until it gives none before the next push: what is kept is
    /// the unfinished message and what was pushed behind it.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    /// Whether a message has begun and not ended.
    pub fn is_inside(&self) -> bool {
        !self.buf.is_empty()
    }

    /// The next whole message, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`]; every call from then on fails alike.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        if self.depth == 0 && self.scanned == 0 {
            let blank = self.buf.iter().take_while(|b| b.is_ascii_whitespace()).count();
            self.buf.drain(..blank);
        }
        while let Some(&b) = self.buf.get(self.scanned) {
            if self.scanned >= self.limit_bytes {
                return Err(FrameError::TooLong(self.limit_bytes));
            }
            if self.in_string {
                match b {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
            } else {
                match b {
                    b'{' | b'[' if self.depth == MAX_DEPTH => return Err(FrameError::TooDeep),
                    b'{' | b'[' => self.depth += 1,
                    _ if self.depth == 0 => return Err(FrameError::NotJson),
                    b'}' | b']' => {
                        self.depth -= 1;
                        if self.depth == 0 {
                            let rest = self.buf.split_off(self.scanned + 1);
                            self.scanned = 0;
                            return Ok(Some(std::mem::replace(&mut self.buf, rest)));
                        }
                    }
                    b'"' => self.in_string = true,
                    _ => {}
                }
            }
            self.scanned += 1;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(f: &mut Framer) -> Vec<String> {
        std::iter::from_fn(|| f.next_message().unwrap()).map(|m| String::from_utf8(m).unwrap()).collect()
    }

    #[test]
    fn messages_are_cut_at_their_last_bracket() {
        let mut f = Framer::new(100);
        f.push(b" {\"a\":[1,{}]}\n[]{\"x\":\"}]\\\"}\"} {\"y\"");
        assert_eq!(all(&mut f), [r#"{"a":[1,{}]}"#, "[]", r#"{"x":"}]\"}"}"#]);
        assert!(f.is_inside());
        f.push(b":1}");
        assert_eq!(all(&mut f), [r#"{"y":1}"#]);
        assert!(!f.is_inside());
    }

    #[test]
    fn length_and_depth_are_bounded() {
        let mut f = Framer::new(10);
        f.push(b"{\"12345678901234567890");
        assert_eq!(f.next_message(), Err(FrameError::TooLong(10)));
        let mut f = Framer::new(10);
        f.push(b"{\"123456\"}");
        assert_eq!(f.next_message().unwrap().unwrap().len(), 10);
        let mut f = Framer::new(1000);
        f.push(&[b'['; MAX_DEPTH + 1]);
        assert_eq!(f.next_message(), Err(FrameError::TooDeep));
    }

    #[test]
    fn what_is_not_json_is_refused_at_once() {
        for s in ["GET / HTTP/1.0", "}", "\"a\"", "1"] {
            let mut f = Framer::new(100);
            f.push(s.as_bytes());
            assert_eq!(f.next_message(), Err(FrameError::NotJson), "{s}");
            assert_eq!(f.next_message(), Err(FrameError::NotJson), "{s}: still");
        }
    }

    proptest! {
        #[test]
        fn cuts_do_not_depend_on_how_bytes_arrive(
            names in prop::collection::vec("[a-z\\\\\"{}\\[\\]]{0,12}", 1..6), step in 1usize..7)
        {
            let whole: Vec<String> =
                names.iter().map(|n| serde_json::json!({ "m": n, "p": [n, {}] }).to_string()).collect();
            let mut f = Framer::new(1000);
            let mut got = Vec::new();
            for part in whole.concat().as_bytes().chunks(step) {
                f.push(part);
                got.extend(all(&mut f));
            }
            prop_assert_eq!(got, whole);
        }

        #[test]
        fn no_bytes_crash_it_or_make_it_keep_more_than_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut f = Framer::new(64);
            for part in bytes.chunks(16) {
                f.push(part);
                loop {
                    match f.next_message() {
                        Ok(Some(m)) => prop_assert!(m.len() <= 64),
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
                prop_assert!(f.buf.len() <= 64);
            }
        }
    }
}
