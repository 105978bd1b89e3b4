//! Streams of JSON-RPC messages.

use daemon::jsonrpc::Framer;

/// Limits small enough to be met.
const MAX_BYTES: usize = 1 << 12;
const MAX_DEPTH: usize = 16;

/// The messages in a stream that arrives in pieces, and whether it ended in an error.
fn messages<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut framer, mut all) = (Framer::new(MAX_BYTES, MAX_DEPTH), Vec::new());
    for piece in pieces {
        framer.push(piece);
        loop {
            match framer.next_message() {
                Ok(Some(m)) => all.push(m.to_vec()),
                Ok(None) => break,
                Err(_) => return (all, true),
            }
        }
    }
    (all, false)
}

/// See the table of targets. The first byte says how long the pieces are.
pub fn run(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let whole = messages(std::iter::once(stream));
    let pieces = messages(stream.chunks(usize::from(*cut) + 1));
    assert_eq!(whole, pieces, "in pieces of {} bytes", usize::from(*cut) + 1);
    assert!(whole.0.iter().all(|m| m.len() <= MAX_BYTES), "longer than the limit");
}

/// Streams.
pub fn seeds() -> Vec<Vec<u8>> {
    let one = br#"{"id":1,"method":"echo","params":["a\"}{",[],{"x":1.5e3}]}"#;
    let two = br#"{"id":null,"result":[true,false,null],"error":null}"#;
    vec![[b"\x03".as_slice(), one].concat(), [b"\xff".as_slice(), one, b" \n", two].concat()]
}
