//! OpenFlow on the wire (wire versions 0x01 to 0x06): [`decode`] and [`encode`].
//!
//! ```text
//!  0        8       16               32               64
//! +--------+--------+----------------+----------------+----
//! | version|  type  |     length     |      xid       | body
//! +--------+--------+----------------+----------------+----
//! ```
//! Decoding is given one whole frame (see [`crate::framing`]). Encoding appends to a buffer; a multipart reply that would
//! exceed 65,535 bytes becomes several messages.
//!
//! Message types are named in `kind`, whose table gives their numbers by version; a body's reader and writer are given the
//! version where its layout depends on it. Matches have three layouts (`match_fixed`: OpenFlow 1.0 and 1.1; `matches`: OXM
//! and NXM), actions one for each generation (`legacy`, `actions`, `nicira`).

mod actions;
mod async_config;
mod continuation;
mod controllers;
mod ct_flush;
mod cursor;
mod experimenter;
mod flow_messages;
mod flow_monitor;
mod flow_stats;
mod groups;
mod instructions;
mod kind;
mod legacy;
mod match_fixed;
mod matches;
mod messages;
mod meters;
mod multipart;
mod nicira;
mod oxm;
mod packet_in;
mod ports;
mod properties;
mod queues;
mod table_features;
mod tables;
mod template;

use flow::FieldId;

pub(crate) use actions::TYPES as ACTION_TYPES;
pub use controllers::bundled;
pub(crate) use instructions::TYPES as INSTRUCTION_TYPES;
pub use nicira::{NICIRA, ONF};
pub use oxm::has_number;
pub use template::{Filled, Templates};

use crate::error::{BadRequest, ErrorCode};
use crate::message::{Body, ErrorMessage, FlowFormat, Message, PacketInFormat};
use crate::number::{PortNo, Xid};
use crate::version::{Version, VersionSet};
use cursor::{Put, Reader};

/// Bytes of the header every message has.
pub const HEADER_BYTES: usize = 8;
/// Bytes of the longest message.
pub const MAX_MESSAGE_BYTES: usize = 65_535;
/// How deep action lists may nest: an action list in a `clone` in a `ct` in a bucket, and so on.
pub const MAX_NESTING: usize = 16;
/// How much of an offending message an error carries.
const ERROR_DATA_BYTES: usize = MAX_MESSAGE_BYTES - 32;

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
    /// The version has no such message.
    #[error("{0} has no such message")]
    Version(Version),
    /// No OXM field carries the field, or not with its mask.
    #[error("no OXM field carries {0} as it is given")]
    Field(FieldId),
    /// The port has no number in a 16-bit field.
    #[error("port {0} does not fit in 16 bits")]
    Port(PortNo),
    /// An action has no encoding in this version, or nests too deep.
    #[error("an action has no encoding in this version")]
    Action,
    /// A match has no encoding in this version.
    #[error("a match has no encoding in this version")]
    Match,
    /// It would exceed 65,535 bytes, or one part of it would.
    #[error("the message exceeds 65535 bytes")]
    TooLong,
}

/// What the two ends of a connection have agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dialect {
    /// The version.
    pub version: Version,
    /// OpenFlow 1.0: commands of flow-mods carry a table (Nicira's flow_mod_table_id).
    pub table_in_command: bool,
    /// OpenFlow 1.0: form of flow-removed messages.
    pub flow_format: FlowFormat,
    /// OpenFlow 1.0: flow statistics go out in Nicira's form.
    pub nicira_stats: bool,
    /// Form of packet-ins.
    pub packet_in: PacketInFormat,
}

impl Dialect {
    /// What holds when a connection has agreed on a version and nothing else.
    pub const fn new(version: Version) -> Self {
        Dialect {
            version,
            table_in_command: false,
            flow_format: FlowFormat::OpenFlow10,
            nicira_stats: false,
            packet_in: PacketInFormat::Standard,
        }
    }

    /// As [`Dialect::new`], with the extensions on that lose nothing: how tools speak.
    pub const fn extended(version: Version) -> Self {
        Dialect {
            table_in_command: true,
            flow_format: FlowFormat::Nxm,
            nicira_stats: true,
            ..Dialect::new(version)
        }
    }
}

/// Decodes one whole message of any version, as [`Dialect::extended`] has it.
///
/// # Errors
/// What to tell the peer: `OFPBRC_BAD_VERSION`, `OFPBRC_BAD_LEN` and so on down to the match field or action.
pub fn decode(frame: &[u8]) -> Result<Message, Malformed> {
    let version = Header::parse(frame).and_then(|h| Version::from_wire(h.version));
    decode_as(Dialect::extended(version.unwrap_or(Version::V13)), frame)
}

/// Decodes one whole message of a connection. Hello, error and echo are understood in any version, as Open vSwitch does.
///
/// # Errors
/// As [`decode`].
pub fn decode_as(d: Dialect, frame: &[u8]) -> Result<Message, Malformed> {
    let Some(h) = Header::parse(frame) else {
        return Err(Malformed { xid: 0, kind: 0, code: BadRequest::BadLen.into() });
    };
    let fail = |code: ErrorCode| Malformed { xid: h.xid, kind: h.kind, code };
    if usize::from(h.len) != frame.len() {
        return Err(fail(BadRequest::BadLen.into()));
    }
    let mut r = Reader::new(&frame[HEADER_BYTES..], BadRequest::BadLen);
    if h.kind == kind::HELLO {
        let body = messages::read_hello(h.version, &mut r).map_err(fail)?;
        return Ok(Message { xid: h.xid, body });
    }
    let same = h.version == d.version as u8;
    let version = match Version::from_wire(h.version) {
        Some(v) if same || h.kind <= kind::ECHO_REPLY => v,
        _ => return Err(fail(BadRequest::BadVersion.into())),
    };
    let d = Dialect { version, ..d };
    messages::read_body(d, h.kind, h.xid, &mut r).map(|body| Message { xid: h.xid, body }).map_err(fail)
}

/// As [`decode_as`], of what a switch is sent: messages that only switches send are `OFPBRC_BAD_TYPE`, whatever is in them.
///
/// # Errors
/// As [`decode`].
pub fn decode_request(d: Dialect, frame: &[u8]) -> Result<Message, Malformed> {
    match Header::parse(frame) {
        Some(h)
            if h.version == d.version as u8
                && kind::Kind::from_wire(d.version, h.kind).is_some_and(kind::Kind::is_a_switchs) =>
        {
            Err(Malformed { xid: h.xid, kind: h.kind, code: BadRequest::BadType.into() })
        }
        _ => decode_as(d, frame),
    }
}

/// Appends a message to `out`, as [`Dialect::extended`] has it; as several messages when it is a multipart reply too
/// long for one.
///
/// Data of packet-in, echo and error that would not fit is cut.
///
/// # Errors
/// The message has no encoding; `out` is then as it was.
pub fn encode(version: Version, msg: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    encode_as(Dialect::extended(version), msg, out)
}

/// As [`encode`], in the form a connection has agreed on.
///
/// # Errors
/// As [`encode`].
pub fn encode_as(d: Dialect, msg: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let r = messages::put_message(d, msg, out);
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
