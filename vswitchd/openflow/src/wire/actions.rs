//! Actions on the wire since OpenFlow 1.1 (OpenFlow 1.3.5 7.2.5, OpenFlow 1.5.1 7.2.6). The fixed sets of OpenFlow 1.0
//! and 1.1 are in [`super::legacy`], Nicira's and ONF's actions in [`super::nicira`].

use flow::{FieldId, PipelineMatch};

use super::cursor::{Put, Reader};
use super::oxm::{self, OxmHeader};
use super::{EncodeError, MAX_NESTING, legacy, nicira};
use crate::action::{Action, Subfield};
use crate::error::{BadAction, ErrorCode};
use crate::number::{GroupId, MeterNo, PortNo, QueueNo};
use crate::version::Version;

pub(super) const OUTPUT: u16 = 0;
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
const COPY_FIELD: u16 = 28;
const METER: u16 = 29;
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

/// What is known of the packets where a list of actions is written: how an action of an earlier version is said in a later
/// one depends on it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Known {
    /// They have a VLAN tag.
    pub(crate) tagged: bool,
    /// Their IP protocol; 0 when it is not known.
    pub(crate) proto: u8,
}

impl Known {
    /// What a match says.
    pub(crate) fn of(m: &PipelineMatch) -> Known {
        let (tci, mask) = m.get(FieldId::VlanTci);
        let (proto, exact) = m.get(FieldId::NwProto);
        Known { tagged: tci & mask & 0x1000 != 0, proto: if exact == 0xff { proto as u8 } else { 0 } }
    }
}

/// Reads actions to the end of `r`.
pub(crate) fn read_actions(v: Version, r: &mut Reader<'_>) -> Result<Vec<Action>, ErrorCode> {
    read_nested(v, r, 0)
}

/// Reads actions that are `depth` lists deep.
pub(super) fn read_nested(v: Version, r: &mut Reader<'_>, depth: usize) -> Result<Vec<Action>, ErrorCode> {
    if depth > MAX_NESTING {
        return Err(BadAction::TooMany.into());
    }
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
        let action = match kind {
            EXPERIMENTER => nicira::read_action(v, &mut body, depth)?,
            _ if v == Version::V10 => legacy::read10(kind, &mut body)?,
            _ => read_action(v, kind, &mut body)?,
        };
        body.finish()?;
        if matches!(action, Action::WriteMetadata { .. }) && (v != Version::V10 || depth > 0) {
            // Since OpenFlow 1.1 this is an instruction.
            return Err(BadAction::UnsupportedOrder.into());
        }
        actions.push(action);
    }
    Ok(actions)
}

fn read_action(v: Version, kind: u16, r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    Ok(match kind {
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
        SET_FIELD if v >= Version::V12 => read_set_field(v, r)?,
        PUSH_PBB if v >= Version::V13 => Action::PushPbb(push_type(r, &[0x88e7])?),
        POP_PBB if v >= Version::V13 => no_argument(r, Action::PopPbb)?,
        COPY_FIELD if v >= Version::V15 => {
            let (bits, src, dst) = (r.u16()?, r.u16()?, r.u16()?);
            r.skip(2)?;
            nicira::read_copy(r, bits, src, dst)?
        }
        METER if v >= Version::V15 => Action::Meter(MeterNo(r.u32()?)),
        // Deprecated by set-field, but understood by stock switches still.
        _ => legacy::read11(kind, r)?,
    })
}

fn no_argument(r: &mut Reader<'_>, a: Action) -> Result<Action, ErrorCode> {
    r.skip(4)?;
    Ok(a)
}

pub(super) fn byte_argument(r: &mut Reader<'_>) -> Result<u8, ErrorCode> {
    let v = r.u8()?;
    r.skip(3)?;
    Ok(v)
}

pub(super) fn short_argument(r: &mut Reader<'_>) -> Result<u16, ErrorCode> {
    let v = r.u16()?;
    r.skip(2)?;
    Ok(v)
}

/// The Ethernet type of a push, which must be one of `allowed`.
pub(super) fn push_type(r: &mut Reader<'_>, allowed: &[u16]) -> Result<u16, ErrorCode> {
    let t = short_argument(r)?;
    if allowed.contains(&t) { Ok(t) } else { Err(BadAction::BadArgument.into()) }
}

/// A port an action may output to: a port, or a reserved one that means something there. Nothing has the number 0, and yet
/// Open vSwitch takes it.
pub(crate) fn output_port(p: PortNo) -> Result<PortNo, ErrorCode> {
    let reserved = p >= PortNo::IN_PORT && p != PortNo::ANY;
    if p.is_port() || p == PortNo(0) || reserved { Ok(p) } else { Err(BadAction::BadOutPort.into()) }
}

/// Checks that an action may write `value` to `f`.
pub(crate) fn check_set(f: FieldId) -> Result<(), ErrorCode> {
    if f.info().writable { Ok(()) } else { Err(BadAction::BadSetArgument.into()) }
}

/// Reads `set_field`: one OXM entry padded to 8, since OpenFlow 1.5 with a mask.
fn read_set_field(v: Version, r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let mut e = Reader::new(r.rest(), BadAction::BadSetLen);
    let whole = e.left();
    let h = OxmHeader::read(&mut e)?;
    let w = h.field(BadAction::BadSetType)?;
    if h.has_mask && v < Version::V15 {
        return Err(BadAction::BadSetArgument.into());
    }
    if usize::from(h.payload_bytes) != w.bytes * if h.has_mask { 2 } else { 1 } {
        return Err(BadAction::BadSetLen.into());
    }
    let raw = e.number(w.bytes)?;
    let max = w.field.ones();
    let mask = if h.has_mask { w.mask_in(e.number(w.bytes)?) } else { max };
    // The action is as long as its entry, rounded up (4 bytes of action header before it).
    let used = whole - e.left();
    if (used + 4).next_multiple_of(8) != whole + 4 {
        return Err(BadAction::BadSetLen.into());
    }
    check_set(w.field)?;
    let value = w.value_in(raw).ok_or(BadAction::BadSetArgument)?;
    if value & !mask != 0 || mask == 0 {
        return Err(BadAction::BadSetMask.into());
    }
    Ok(Action::SetField { field: w.field, value, mask })
}

/// Appends a list of actions.
pub(crate) fn put_actions(out: &mut Vec<u8>, v: Version, actions: &[Action]) -> Result<(), EncodeError> {
    put_known(out, v, actions, Known::default(), 0)
}

/// Appends a list of actions for packets of which something is known.
pub(crate) fn put_known(
    out: &mut Vec<u8>,
    v: Version,
    actions: &[Action],
    mut known: Known,
    depth: usize,
) -> Result<(), EncodeError> {
    if depth > MAX_NESTING {
        return Err(EncodeError::Action);
    }
    for a in actions {
        put_action(out, v, a, known, depth)?;
        match a {
            Action::PushVlan(_)
            | Action::SetVlanVid { push: true, .. }
            | Action::SetVlanPcp { push: true, .. } => known.tagged = true,
            Action::PopVlan | Action::StripVlan => known.tagged = false,
            _ => {}
        }
    }
    Ok(())
}

fn put_action(
    out: &mut Vec<u8>,
    v: Version,
    a: &Action,
    known: Known,
    depth: usize,
) -> Result<(), EncodeError> {
    if v == Version::V10 {
        return legacy::put10(out, a, depth);
    }
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
        Action::PopVlan | Action::StripVlan => word(out, POP_VLAN, 0),
        Action::PushMpls(t) => word(out, PUSH_MPLS, u32::from(*t) << 16),
        Action::PopMpls(t) => word(out, POP_MPLS, u32::from(*t) << 16),
        Action::PushPbb(t) if v >= Version::V13 => word(out, PUSH_PBB, u32::from(*t) << 16),
        Action::PopPbb if v >= Version::V13 => word(out, POP_PBB, 0),
        Action::SetQueue(q) => word(out, SET_QUEUE, q.0),
        Action::Group(g) => word(out, GROUP, g.0),
        Action::SetNwTtl(t) => word(out, SET_NW_TTL, u32::from(*t) << 24),
        Action::DecNwTtl { controllers } if controllers.is_empty() => word(out, DEC_NW_TTL, 0),
        Action::Enqueue { port, queue } => {
            word(out, SET_QUEUE, queue.0);
            put_action(out, v, &Action::Output { port: *port, max_len: u16::MAX }, known, depth)?;
            nicira::put_action(out, v, &Action::PopQueue, depth)?;
        }
        Action::SetVlanVid { push, .. } | Action::SetVlanPcp { push, .. } => {
            if *push && !known.tagged {
                word(out, PUSH_VLAN, 0x8100 << 16);
            }
            match (a, v) {
                (_, Version::V11) => legacy::put11(out, a)?,
                (Action::SetVlanVid { vid, .. }, _) => {
                    put_set_field(out, v, FieldId::VlanVid, u128::from(*vid) | 0x1000)?
                }
                (Action::SetVlanPcp { pcp, .. }, _) => {
                    put_set_field(out, v, FieldId::VlanPcp, u128::from(*pcp))?
                }
                _ => {}
            }
        }
        Action::SetLegacy { .. } if v == Version::V11 => legacy::put11(out, a)?,
        Action::SetLegacy { field, value } => {
            // Without a protocol there is no port to set.
            if let Some(field) = legacy::set_field_of(*field, known.proto) {
                put_set_field(out, v, field, u128::from(*value))?;
            }
        }
        Action::SetField { field, value, mask } => {
            let exact = *mask == field.ones();
            match v {
                Version::V11 if exact && legacy::has(v, *field) => {
                    legacy::put11(out, &legacy::of_set_field(*field, *value))?
                }
                Version::V12 | Version::V13 | Version::V14 if exact => put_set_field(out, v, *field, *value)?,
                Version::V15 => put_masked(out, v, *field, *value, *mask)?,
                _ => nicira::put_loads(out, v, *field, *value, *mask)?,
            }
        }
        Action::SetTunnel { id, .. } if v >= Version::V12 => {
            put_set_field(out, v, FieldId::TunId, u128::from(*id))?;
        }
        // OpenFlow 1.5 says these two by actions of its own.
        Action::RegLoad { dst, value } if v == Version::V15 => {
            let shifted = u128::from(*value) << dst.offset.min(127);
            put_masked(out, v, dst.field, shifted & dst.mask(), dst.mask() & dst.field.ones())?;
        }
        Action::RegMove { src, dst } if v == Version::V15 => put_copy(out, v, src, dst)?,
        Action::Meter(m) if v == Version::V15 => word(out, METER, m.0),
        // A meter in the middle of a list cannot be said earlier.
        Action::Meter(_) => {}
        _ => nicira::put_action(out, v, a, depth)?,
    }
    Ok(())
}

fn put_copy(out: &mut Vec<u8>, v: Version, src: &Subfield, dst: &Subfield) -> Result<(), EncodeError> {
    let start = out.len();
    header(out, COPY_FIELD, 0);
    out.put_u16(src.bits);
    out.put_u16(src.offset);
    out.put_u16(dst.offset);
    out.put_zeros(2);
    for s in [src, dst] {
        oxm::put_header(out, v, s.field, 1).ok_or(EncodeError::Field(s.field))?;
    }
    finish(out, start);
    Ok(())
}

fn put_set_field(out: &mut Vec<u8>, v: Version, field: FieldId, value: u128) -> Result<(), EncodeError> {
    put_masked(out, v, field, value, field.ones())
}

/// Appends a set-field, with a mask unless the mask is all ones.
fn put_masked(
    out: &mut Vec<u8>,
    v: Version,
    field: FieldId,
    value: u128,
    mask: u128,
) -> Result<(), EncodeError> {
    let start = out.len();
    header(out, SET_FIELD, 0);
    let values = if mask == field.ones() { 1 } else { 2 };
    let bytes = oxm::put_header(out, v, field, values).ok_or(EncodeError::Field(field))?;
    out.put_number(value, bytes);
    if values == 2 {
        out.put_number(mask, bytes);
    }
    finish(out, start);
    Ok(())
}

pub(super) fn header(out: &mut Vec<u8>, kind: u16, len: u16) {
    out.put_u16(kind);
    out.put_u16(len);
}

pub(super) fn word(out: &mut Vec<u8>, kind: u16, v: u32) {
    header(out, kind, 8);
    out.put_u32(v);
}

/// Pads an action that began at `start` and sets its length.
pub(crate) fn finish(out: &mut Vec<u8>, start: usize) {
    out.pad8(start);
    out.patch_u16(start + 2, out.len() - start);
}
