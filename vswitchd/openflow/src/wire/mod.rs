//! OpenFlow 1.3 on the wire (wire version 0x04): [`decode`] and [`encode`].
//!
//! ```text
//!  0        8       16               32               64
//! +--------+--------+----------------+----------------+----
//! | version|  type  |     length     |      xid       | body
//! +--------+--------+----------------+----------------+----
//! ```
//! Decoding is given one whole frame (see [`crate::framing`]). Encoding appends to a buffer; a multipart reply that would
//! exceed 65,535 bytes becomes several messages.

mod actions;
mod async_config;
mod cursor;
mod groups;
mod instructions;
mod matches;
mod messages;
mod meters;
mod multipart;
mod nicira;
mod oxm;
mod ports;
mod table_features;

use flow::FieldId;

pub(crate) use actions::TYPES as ACTION_TYPES;
pub(crate) use instructions::TYPES as INSTRUCTION_TYPES;
pub use nicira::NICIRA;
pub use oxm::has_number;

use crate::error::{BadRequest, ErrorCode};
use crate::message::{Body, ErrorMessage, Message};
use crate::number::{PortNo, Xid};
use crate::version::{Version, VersionSet};
use cursor::{Put, Reader};

/// Bytes of the header every message has.
pub const HEADER_BYTES: usize = 8;
/// Bytes of the longest message.
pub const MAX_MESSAGE_BYTES: usize = 65_535;
/// How much of an offending message an error carries.
const ERROR_DATA_BYTES: usize = 128;

/// A header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Wire version; may be one we do not know.
    pub version: u8,
    /// Message type.
    pub kind: u8,
    /// Length of the whole message in bytes.
    pub len: u16,
    /// Transaction id.
    pub xid: Xid,
}

impl Header {
    /// Reads the first eight bytes of a message; `None` when there are fewer.
    pub fn parse(b: &[u8]) -> Option<Header> {
        let [version, kind, l0, l1, x0, x1, x2, x3] = *b.first_chunk::<8>()?;
        Some(Header {
            version,
            kind,
            len: u16::from_be_bytes([l0, l1]),
            xid: Xid::from_be_bytes([x0, x1, x2, x3]),
        })
    }
}

/// A message that could not be decoded: what to tell the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed OpenFlow message (xid {xid:#x}, type {kind}): {code}")]
pub struct Malformed {
    /// Transaction id of the message, 0 when it had none.
    pub xid: Xid,
    /// Its type.
    pub kind: u8,
    /// What was wrong.
    pub code: ErrorCode,
}

/// A message that has no encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EncodeError {
    /// This version is not encoded here.
    #[error("{0} is not encoded here")]
    Version(Version),
    /// No OXM field carries the field, or not with its mask.
    #[error("no OXM field carries {0} as it is given")]
    Field(FieldId),
    /// The port has no number in a 16-bit field.
    #[error("port {0} does not fit in 16 bits")]
    Port(PortNo),
    /// An action has no encoding in this version.
    #[error("an action has no encoding in this version")]
    Action,
    /// It would exceed 65,535 bytes, or one part of it would.
    #[error("the message exceeds 65535 bytes")]
    TooLong,
}

/// Decodes one whole message.
///
/// A hello is understood in any version; everything else must be in version 1.3.
///
/// # Errors
/// What to tell the peer: `OFPBRC_BAD_VERSION`, `OFPBRC_BAD_LEN` and so on down to the match field or action.
pub fn decode(frame: &[u8]) -> Result<Message, Malformed> {
    let Some(h) = Header::parse(frame) else {
        return Err(Malformed { xid: 0, kind: 0, code: BadRequest::BadLen.into() });
    };
    let fail = |code: ErrorCode| Malformed { xid: h.xid, kind: h.kind, code };
    if usize::from(h.len) != frame.len() {
        return Err(fail(BadRequest::BadLen.into()));
    }
    let mut r = Reader::new(&frame[HEADER_BYTES..], BadRequest::BadLen);
    let body = if h.kind == messages::HELLO {
        messages::read_hello(h.version, &mut r)
    } else if h.version != Version::V13 as u8 {
        Err(BadRequest::BadVersion.into())
    } else {
        messages::read_body(h.kind, &mut r)
    };
    body.map(|body| Message { xid: h.xid, body }).map_err(fail)
}

/// Appends a message to `out`, as several messages when it is a multipart reply too long for one.
///
/// Data of packet-in, echo and error that would not fit is cut.
///
/// # Errors
/// The message has no encoding; `out` is then as it was.
pub fn encode(version: Version, msg: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let r = if version == Version::V13 || matches!(msg.body, Body::Hello(_)) {
        messages::put_message(version, msg, out)
    } else {
        Err(EncodeError::Version(version))
    };
    if r.is_err() {
        out.truncate(start);
    }
    r
}

/// The hello of a switch or controller that speaks `versions`.
pub fn hello(xid: Xid, versions: VersionSet) -> Message {
    Message { xid, body: Body::Hello(versions) }
}

/// The error that answers `frame`: code, and the first bytes of what was wrong.
pub fn error_reply(frame: &[u8], code: ErrorCode) -> Message {
    let xid = Header::parse(frame).map_or(0, |h| h.xid);
    let data = frame[..frame.len().min(ERROR_DATA_BYTES)].to_vec();
    Message { xid, body: Body::Error(ErrorMessage { code, data }) }
}

/// Begins a message of type `kind` at the end of `out`.
fn put_header(out: &mut Vec<u8>, version: Version, kind: u8, xid: Xid) {
    out.put_u8(version as u8);
    out.put_u8(kind);
    out.put_u16(0);
    out.put_u32(xid);
}

/// Ends the message that began at `start`.
fn finish(out: &mut Vec<u8>, start: usize) -> Result<(), EncodeError> {
    let len = out.len() - start;
    if len > MAX_MESSAGE_BYTES {
        return Err(EncodeError::TooLong);
    }
    out.patch_u16(start + 2, len);
    Ok(())
}
