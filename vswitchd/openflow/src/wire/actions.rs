//! Actions on the wire (OpenFlow 1.3.5 7.2.5); Nicira's are in [`super::nicira`].

use flow::FieldId;

use super::cursor::{Put, Reader};
use super::oxm::{self, OxmHeader};
use super::{EncodeError, nicira};
use crate::action::Action;
use crate::error::{BadAction, ErrorCode};
use crate::number::{GroupId, PortNo, QueueNo};

const OUTPUT: u16 = 0;
const COPY_TTL_OUT: u16 = 11;
const COPY_TTL_IN: u16 = 12;
const SET_MPLS_TTL: u16 = 15;
const DEC_MPLS_TTL: u16 = 16;
const PUSH_VLAN: u16 = 17;
const POP_VLAN: u16 = 18;
const PUSH_MPLS: u16 = 19;
const POP_MPLS: u16 = 20;
const SET_QUEUE: u16 = 21;
const GROUP: u16 = 22;
const SET_NW_TTL: u16 = 23;
const DEC_NW_TTL: u16 = 24;
const SET_FIELD: u16 = 25;
const PUSH_PBB: u16 = 26;
const POP_PBB: u16 = 27;
pub(crate) const EXPERIMENTER: u16 = 0xffff;

/// Every plain action type decoded here, for table features.
pub(crate) const TYPES: &[u16] = &[
    OUTPUT,
    COPY_TTL_OUT,
    COPY_TTL_IN,
    SET_MPLS_TTL,
    DEC_MPLS_TTL,
    PUSH_VLAN,
    POP_VLAN,
    PUSH_MPLS,
    POP_MPLS,
    SET_QUEUE,
    GROUP,
    SET_NW_TTL,
    DEC_NW_TTL,
    SET_FIELD,
];

/// Reads actions to the end of `r`.
pub(crate) fn read_actions(r: &mut Reader<'_>) -> Result<Vec<Action>, ErrorCode> {
    let mut actions = Vec::new();
    while !r.is_empty() {
        let mut header = *r;
        let kind = header.u16().map_err(|_| BadAction::BadLen)?;
        let len = usize::from(header.u16().map_err(|_| BadAction::BadLen)?);
        if len < 8 || !len.is_multiple_of(8) || len > r.left() {
            return Err(BadAction::BadLen.into());
        }
        let mut body = r.sub(len, BadAction::BadLen)?;
        body.skip(4)?;
        actions.push(read_action(kind, &mut body)?);
    }
    Ok(actions)
}

fn read_action(kind: u16, r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let action = match kind {
        OUTPUT => {
            let port = output_port(PortNo(r.u32()?))?;
            let max_len = r.u16()?;
            r.skip(6)?;
            Action::Output { port, max_len }
        }
        COPY_TTL_OUT => no_argument(r, Action::CopyTtlOut)?,
        COPY_TTL_IN => no_argument(r, Action::CopyTtlIn)?,
        SET_MPLS_TTL => Action::SetMplsTtl(byte_argument(r)?),
        DEC_MPLS_TTL => no_argument(r, Action::DecMplsTtl)?,
        PUSH_VLAN => Action::PushVlan(push_type(r, &[0x8100, 0x88a8])?),
        POP_VLAN => no_argument(r, Action::PopVlan)?,
        PUSH_MPLS => Action::PushMpls(push_type(r, &[0x8847, 0x8848])?),
        POP_MPLS => Action::PopMpls(short_argument(r)?),
        SET_QUEUE => Action::SetQueue(QueueNo(r.u32()?)),
        GROUP => Action::Group(GroupId(r.u32()?)),
        SET_NW_TTL => Action::SetNwTtl(byte_argument(r)?),
        DEC_NW_TTL => no_argument(r, Action::DecNwTtl { controllers: Vec::new() })?,
        SET_FIELD => read_set_field(r)?,
        PUSH_PBB => Action::PushPbb(push_type(r, &[0x88e7])?),
        POP_PBB => no_argument(r, Action::PopPbb)?,
        EXPERIMENTER => nicira::read_action(r)?,
        _ => return Err(BadAction::BadType.into()),
    };
    r.finish()?;
    Ok(action)
}

fn no_argument(r: &mut Reader<'_>, a: Action) -> Result<Action, ErrorCode> {
    r.skip(4)?;
    Ok(a)
}

fn byte_argument(r: &mut Reader<'_>) -> Result<u8, ErrorCode> {
    let v = r.u8()?;
    r.skip(3)?;
    Ok(v)
}

fn short_argument(r: &mut Reader<'_>) -> Result<u16, ErrorCode> {
    let v = r.u16()?;
    r.skip(2)?;
    Ok(v)
}

/// The Ethernet type of a push, which must be one of `allowed`.
fn push_type(r: &mut Reader<'_>, allowed: &[u16]) -> Result<u16, ErrorCode> {
    let t = short_argument(r)?;
    if allowed.contains(&t) { Ok(t) } else { Err(BadAction::BadArgument.into()) }
}

/// A port an action may output to: a port, or a reserved one that means something there.
pub(crate) fn output_port(p: PortNo) -> Result<PortNo, ErrorCode> {
    let reserved = p >= PortNo::IN_PORT && p != PortNo::ANY;
    if p.is_port() || reserved { Ok(p) } else { Err(BadAction::BadOutPort.into()) }
}

/// Checks that an action may write `value` to `f`.
pub(crate) fn check_set(f: FieldId) -> Result<(), ErrorCode> {
    if f.info().writable { Ok(()) } else { Err(BadAction::BadSetArgument.into()) }
}

/// Reads `set_field`: one OXM entry without mask, padded to 8.
fn read_set_field(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let mut e = Reader::new(r.rest(), BadAction::BadSetLen);
    let whole = e.left();
    let h = OxmHeader::read(&mut e)?;
    let w = h.resolve().ok_or(BadAction::BadSetType)?;
    if h.has_mask {
        return Err(BadAction::BadSetArgument.into());
    }
    if usize::from(h.payload_bytes) != w.bytes {
        return Err(BadAction::BadSetLen.into());
    }
    let raw = e.number(w.bytes)?;
    // The action is as long as its entry, rounded up (4 bytes of action header before it).
    let used = whole - e.left();
    if (used + 4).next_multiple_of(8) != whole + 4 {
        return Err(BadAction::BadSetLen.into());
    }
    check_set(w.field)?;
    let value = w.value_in(raw).ok_or(BadAction::BadSetArgument)?;
    Ok(Action::SetField { field: w.field, value, mask: w.field.info().max() })
}

/// Appends a list of actions.
pub(crate) fn put_actions(out: &mut Vec<u8>, actions: &[Action]) -> Result<(), EncodeError> {
    actions.iter().try_for_each(|a| put_action(out, a))
}

fn put_action(out: &mut Vec<u8>, a: &Action) -> Result<(), EncodeError> {
    match a {
        Action::Output { port, max_len } => {
            header(out, OUTPUT, 16);
            out.put_u32(port.0);
            out.put_u16(*max_len);
            out.put_zeros(6);
        }
        Action::CopyTtlOut => word(out, COPY_TTL_OUT, 0),
        Action::CopyTtlIn => word(out, COPY_TTL_IN, 0),
        Action::SetMplsTtl(t) => word(out, SET_MPLS_TTL, u32::from(*t) << 24),
        Action::DecMplsTtl => word(out, DEC_MPLS_TTL, 0),
        Action::PushVlan(t) => word(out, PUSH_VLAN, u32::from(*t) << 16),
        Action::PopVlan => word(out, POP_VLAN, 0),
        Action::PushMpls(t) => word(out, PUSH_MPLS, u32::from(*t) << 16),
        Action::PopMpls(t) => word(out, POP_MPLS, u32::from(*t) << 16),
        Action::PushPbb(t) => word(out, PUSH_PBB, u32::from(*t) << 16),
        Action::PopPbb => word(out, POP_PBB, 0),
        Action::SetQueue(q) => word(out, SET_QUEUE, q.0),
        Action::Group(g) => word(out, GROUP, g.0),
        Action::SetNwTtl(t) => word(out, SET_NW_TTL, u32::from(*t) << 24),
        Action::DecNwTtl { controllers } if controllers.is_empty() => word(out, DEC_NW_TTL, 0),
        Action::SetField { field, value, mask } if *mask == field.info().max() => {
            let start = out.len();
            header(out, SET_FIELD, 0);
            let bytes = oxm::put_header(out, *field, 1).ok_or(EncodeError::Field(*field))?;
            out.put_number(*value, bytes);
            finish(out, start);
        }
        _ => nicira::put_action(out, a)?,
    }
    Ok(())
}

fn header(out: &mut Vec<u8>, kind: u16, len: u16) {
    out.put_u16(kind);
    out.put_u16(len);
}

fn word(out: &mut Vec<u8>, kind: u16, v: u32) {
    header(out, kind, 8);
    out.put_u32(v);
}

/// Pads an action that began at `start` and sets its length.
pub(crate) fn finish(out: &mut Vec<u8>, start: usize) {
    out.pad8(start);
    out.patch_u16(start + 2, out.len() - start);
}
