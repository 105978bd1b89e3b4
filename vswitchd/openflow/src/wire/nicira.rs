//! Nicira's and ONF's actions on the wire: `ffff len vendor subtype ...`, as stock `ovs-ofctl` sends them.
//!
//! What OpenFlow 1.0 says by Nicira's actions and later versions by their own (groups, queues, MPLS) is understood in
//! OpenFlow 1.0 only.

mod ct;
mod encap;
mod learn;
mod registers;

pub(super) use registers::{put_loads, read_copy};

use flow::FieldId;

use super::EncodeError;
use super::actions::{EXPERIMENTER, finish, output_port, push_type};
use super::cursor::{Put, Reader};
use super::ports::{from16, to16};
use super::properties;
use crate::action::Action;
use crate::error::{BadAction, ErrorCode, Nicira};
use crate::extension::{Bundle, CheckPktLarger, Multipath, Sample};
use crate::message::PacketInReason;
use crate::number::{GroupId, MeterNo, PortNo, QueueNo, TableId};
use crate::version::Version;
use registers::{offset_and_bits, put_offset_and_bits, put_subfield, subfield};

/// Nicira's experimenter id.
pub const NICIRA: u32 = 0x0000_2320;
/// ONF's experimenter id.
pub const ONF: u32 = 0x4f4e_4600;

const RESUBMIT: u16 = 1;
const SET_TUNNEL: u16 = 2;
const SET_QUEUE: u16 = 4;
const POP_QUEUE: u16 = 5;
const REG_MOVE: u16 = 6;
const REG_LOAD: u16 = 7;
const NOTE: u16 = 8;
const SET_TUNNEL64: u16 = 9;
const MULTIPATH: u16 = 10;
const BUNDLE: u16 = 12;
const BUNDLE_LOAD: u16 = 13;
const RESUBMIT_TABLE: u16 = 14;
const OUTPUT_REG: u16 = 15;
const LEARN: u16 = 16;
const EXIT: u16 = 17;
const DEC_TTL: u16 = 18;
const FIN_TIMEOUT: u16 = 19;
const CONTROLLER: u16 = 20;
const DEC_TTL_IDS: u16 = 21;
const WRITE_METADATA: u16 = 22;
const PUSH_MPLS: u16 = 23;
const POP_MPLS: u16 = 24;
const SET_MPLS_TTL: u16 = 25;
const DEC_MPLS_TTL: u16 = 26;
const STACK_PUSH: u16 = 27;
const STACK_POP: u16 = 28;
const SAMPLE: u16 = 29;
const SET_MPLS_LABEL: u16 = 30;
const SET_MPLS_TC: u16 = 31;
const OUTPUT_REG2: u16 = 32;
const REG_LOAD2: u16 = 33;
const CONJUNCTION: u16 = 34;
const CT: u16 = 35;
const NAT: u16 = 36;
const CONTROLLER2: u16 = 37;
const SAMPLE2: u16 = 38;
const OUTPUT_TRUNC: u16 = 39;
const GROUP: u16 = 40;
const SAMPLE3: u16 = 41;
const CLONE: u16 = 42;
const CT_CLEAR: u16 = 43;
const RESUBMIT_TABLE_CT: u16 = 44;
const LEARN2: u16 = 45;
const ENCAP: u16 = 46;
const DECAP: u16 = 47;
const DEC_NSH_TTL: u16 = 48;
const CHECK_PKT_LARGER: u16 = 49;
const DELETE_FIELD: u16 = 50;
const DEBUG_SLOW: u16 = 254;
const DEBUG_RECIRC: u16 = 255;

const ONF_COPY_FIELD: u16 = 3200;

// Properties of the second controller action.
const C2_MAX_LEN: u16 = 0;
const C2_CONTROLLER_ID: u16 = 1;
const C2_REASON: u16 = 2;
const C2_USERDATA: u16 = 3;
const C2_PAUSE: u16 = 4;
const C2_METER: u16 = 5;

/// `NXM_OF_IN_PORT`, the only type a bundle's members have.
const NXM_IN_PORT: u32 = 0x0000_0002;
/// A table that is the current one.
const THIS_TABLE: u8 = 0xff;

/// Reads an experimenter action from its experimenter id on. The caller checks that all of it was used.
pub(super) fn read_action(v: Version, r: &mut Reader<'_>, depth: usize) -> Result<Action, ErrorCode> {
    match r.u32()? {
        NICIRA => {}
        ONF => {
            if !matches!(v, Version::V13 | Version::V14) || r.u16()? != ONF_COPY_FIELD {
                return Err(BadAction::BadExpType.into());
            }
            r.skip(2)?;
            let (bits, src, dst) = (r.u16()?, r.u16()?, r.u16()?);
            r.skip(2)?;
            return read_copy(r, bits, src, dst);
        }
        _ => return Err(BadAction::BadExperimenter.into()),
    }
    let subtype = r.u16()?;
    if v == Version::V10
        && let Some(a) = read_v10(subtype, r)?
    {
        return Ok(a);
    }
    Ok(match subtype {
        RESUBMIT => {
            let port = from16(r.u16()?);
            r.skip(4)?;
            Action::Resubmit { port, table: None, with_ct: false }
        }
        RESUBMIT_TABLE | RESUBMIT_TABLE_CT => {
            let port = from16(r.u16()?);
            let table = r.u8()?;
            zeros(r, 3)?;
            let table = (table != THIS_TABLE).then_some(TableId(table));
            Action::Resubmit { port, table, with_ct: subtype == RESUBMIT_TABLE_CT }
        }
        SET_TUNNEL => {
            r.skip(2)?;
            Action::SetTunnel { id: r.u32()?.into(), wide: false }
        }
        SET_TUNNEL64 => {
            r.skip(6)?;
            Action::SetTunnel { id: r.u64()?, wide: true }
        }
        POP_QUEUE => nothing(r, Action::PopQueue)?,
        EXIT => nothing(r, Action::Exit)?,
        CT_CLEAR => nothing(r, Action::CtClear)?,
        DEC_NSH_TTL if v >= Version::V13 => nothing(r, Action::DecNshTtl)?,
        DEBUG_SLOW => nothing(r, Action::DebugSlow)?,
        DEBUG_RECIRC => nothing(r, Action::DebugRecirc)?,
        REG_MOVE if v < Version::V15 => {
            let (bits, src, dst) = (r.u16()?, r.u16()?, r.u16()?);
            read_copy(r, bits, src, dst)?
        }
        REG_LOAD if v < Version::V15 => registers::read_load(r)?,
        REG_LOAD2 if v < Version::V15 => registers::read_load2(r)?,
        NOTE => Action::Note(r.rest().to_vec()),
        OUTPUT_REG => {
            let (offset, bits) = offset_and_bits(r.u16()?);
            let src = subfield(r, offset, bits)?;
            let max_len = r.u16()?;
            zeros(r, 6)?;
            Action::OutputReg { src, max_len }
        }
        OUTPUT_REG2 => {
            let (offset, bits) = offset_and_bits(r.u16()?);
            let max_len = r.u16()?;
            let src = subfield(r, offset, bits)?;
            let rest = r.left();
            zeros(r, rest)?;
            Action::OutputReg { src, max_len }
        }
        OUTPUT_TRUNC => {
            let port = output_port(from16(r.u16()?))?;
            match r.u32()? {
                max_len if max_len >= 14 => Action::OutputTrunc { port, max_len },
                _ => return Err(BadAction::BadArgument.into()),
            }
        }
        CONTROLLER => {
            let (max_len, controller_id, reason) = (r.u16()?, r.u16()?, r.u8()?);
            r.skip(1)?;
            Action::Controller {
                max_len,
                controller_id,
                reason,
                userdata: Vec::new(),
                pause: false,
                meter: None,
            }
        }
        CONTROLLER2 => read_controller2(r)?,
        DEC_TTL_IDS => read_ids(r)?,
        FIN_TIMEOUT => {
            let (idle, hard) = (r.u16()?, r.u16()?);
            r.skip(2)?;
            Action::FinTimeout { idle, hard }
        }
        WRITE_METADATA => {
            zeros(r, 6)?;
            let (value, mask) = (r.u64()?, r.u64()?);
            Action::WriteMetadata { value, mask }
        }
        MULTIPATH => read_multipath(r)?,
        BUNDLE | BUNDLE_LOAD => read_bundle(r, subtype == BUNDLE_LOAD)?,
        LEARN | LEARN2 => Action::Learn(Box::new(learn::read(r, subtype == LEARN2)?)),
        STACK_PUSH | STACK_POP => registers::read_stack(r, subtype == STACK_PUSH)?,
        SAMPLE | SAMPLE2 | SAMPLE3 => read_sample(r, subtype)?,
        CONJUNCTION => {
            let (clause, n_clauses, id) = (r.u8()?, r.u8()?, r.u32()?);
            if !(2..=64).contains(&n_clauses) || clause >= n_clauses {
                return Err(Nicira::BadConjunction.into());
            }
            Action::Conjunction { id, clause, n_clauses }
        }
        CT => Action::Ct(Box::new(ct::read(v, r, depth)?)),
        NAT => Action::Nat(Box::new(ct::read_nat(r)?)),
        CLONE => {
            r.skip(6)?;
            let mut inner = Reader::new(r.rest(), BadAction::BadLen);
            Action::Clone(super::actions::read_nested(v, &mut inner, depth + 1)?)
        }
        ENCAP if v >= Version::V13 => Action::Encap(Box::new(encap::read(r)?)),
        DECAP if v >= Version::V13 => {
            r.skip(2)?;
            let packet_type = r.u32()?;
            if !r.is_empty() {
                return Err(Nicira::UnknownEncapProperty.into());
            }
            Action::Decap { packet_type }
        }
        CHECK_PKT_LARGER => {
            let bytes = r.u16()?;
            let offset = r.u16()?;
            let dst = subfield(r, offset, 1)?;
            super::actions::check_set(dst.field)?;
            let rest = r.left();
            zeros(r, rest)?;
            Action::CheckPktLarger(Box::new(CheckPktLarger { bytes, dst }))
        }
        DELETE_FIELD => {
            let field = super::oxm::OxmHeader::read(r)?.field(BadAction::BadArgument)?.field;
            let rest = r.left();
            zeros(r, rest)?;
            Action::DeleteField(field)
        }
        _ => return Err(BadAction::BadExpType.into()),
    })
}

/// What Nicira's actions say in OpenFlow 1.0 because it has nothing of its own for it.
fn read_v10(subtype: u16, r: &mut Reader<'_>) -> Result<Option<Action>, ErrorCode> {
    let word = |r: &mut Reader<'_>| -> Result<u32, ErrorCode> {
        r.skip(2)?;
        r.u32()
    };
    // A value of 16 or 8 bits comes first, and padding after it.
    let first = |r: &mut Reader<'_>, bytes: usize| -> Result<u16, ErrorCode> {
        let v = r.number(bytes)? as u16;
        r.skip(6 - bytes)?;
        Ok(v)
    };
    Ok(Some(match subtype {
        SET_QUEUE => Action::SetQueue(QueueNo(word(r)?)),
        GROUP => Action::Group(GroupId(word(r)?)),
        DEC_TTL => nothing(r, Action::DecNwTtl { controllers: Vec::new() })?,
        PUSH_MPLS => {
            let t = push_type(r, &[0x8847, 0x8848])?;
            r.skip(2)?;
            Action::PushMpls(t)
        }
        POP_MPLS => Action::PopMpls(first(r, 2)?),
        SET_MPLS_TTL => Action::SetMplsTtl(first(r, 1)? as u8),
        DEC_MPLS_TTL => nothing(r, Action::DecMplsTtl)?,
        SET_MPLS_LABEL => match word(r)? {
            v if v <= 0xf_ffff => Action::SetLegacy { field: FieldId::MplsLabel, value: v.into() },
            _ => return Err(BadAction::BadArgument.into()),
        },
        SET_MPLS_TC => match first(r, 1)? {
            v if v <= 7 => Action::SetLegacy { field: FieldId::MplsTc, value: v.into() },
            _ => return Err(BadAction::BadArgument.into()),
        },
        _ => return Ok(None),
    }))
}

/// Padding that must be zero.
fn zeros(r: &mut Reader<'_>, n: usize) -> Result<(), ErrorCode> {
    if r.bytes(n)?.iter().any(|b| *b != 0) { Err(BadAction::BadArgument.into()) } else { Ok(()) }
}

/// An action without arguments.
fn nothing(r: &mut Reader<'_>, a: Action) -> Result<Action, ErrorCode> {
    r.skip(6)?;
    Ok(a)
}

fn read_controller2(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    zeros(r, 6)?;
    let (mut max_len, mut controller_id, mut reason) = (u16::MAX, 0, PacketInReason::Action as u8);
    let (mut userdata, mut pause, mut meter) = (Vec::new(), false, None);
    while let Some((kind, mut value)) = properties::next(r)? {
        match kind {
            C2_MAX_LEN => max_len = value.u16()?,
            C2_CONTROLLER_ID => controller_id = value.u16()?,
            C2_REASON => reason = value.u8()?,
            C2_USERDATA => userdata = value.rest().to_vec(),
            C2_PAUSE => pause = true,
            C2_METER => meter = Some(MeterNo(properties::only_u32(value)?)),
            kind => return Err(properties::unknown(kind)),
        }
    }
    Ok(Action::Controller { max_len, controller_id, reason, userdata, pause, meter })
}

fn read_ids(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let n = usize::from(r.u16()?);
    r.skip(4)?;
    if n == 0 {
        return Err(BadAction::BadArgument.into());
    }
    let mut ids = r.sub(n * 2, BadAction::BadLen)?;
    let mut controllers = Vec::with_capacity(n);
    while !ids.is_empty() {
        controllers.push(ids.u16()?);
    }
    r.skip((n * 2).next_multiple_of(8) - n * 2)?;
    Ok(Action::DecNwTtl { controllers })
}

fn read_multipath(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let (fields, basis) = (r.u16()?, r.u16()?);
    r.skip(2)?;
    let (algorithm, max_link, arg) = (r.u16()?, r.u16()?, r.u32()?);
    r.skip(2)?;
    let (offset, bits) = offset_and_bits(r.u16()?);
    let dst = subfield(r, offset, bits)?;
    super::actions::check_set(dst.field)?;
    // The destination has room for the highest link.
    let needed = 16 - max_link.leading_zeros() as u16;
    if fields > 6 || algorithm > 3 || bits < needed {
        return Err(BadAction::BadArgument.into());
    }
    Ok(Action::Multipath(Box::new(Multipath { fields, basis, algorithm, max_link, arg, dst })))
}

fn read_bundle(r: &mut Reader<'_>, load: bool) -> Result<Action, ErrorCode> {
    let (algorithm, fields, basis) = (r.u16()?, r.u16()?, r.u16()?);
    let (member_type, n) = (r.u32()?, usize::from(r.u16()?));
    let (offset, bits) = offset_and_bits(r.u16()?);
    let dst = if load {
        let dst = subfield(r, offset, bits)?;
        super::actions::check_set(dst.field)?;
        if bits < 16 {
            return Err(BadAction::BadArgument.into());
        }
        Some(dst)
    } else {
        if offset != 0 || bits != 1 || r.u32()? != 0 {
            return Err(BadAction::BadArgument.into());
        }
        None
    };
    zeros(r, 4)?;
    if algorithm > 1 || fields > 6 || member_type != NXM_IN_PORT || n > 2048 {
        return Err(BadAction::BadArgument.into());
    }
    let mut list = r.sub(2 * n, BadAction::BadLen)?;
    let mut members = Vec::with_capacity(n);
    while !list.is_empty() {
        members.push(output_port(from16(list.u16()?))?);
    }
    let rest = r.left();
    if rest >= 8 {
        return Err(BadAction::BadLen.into());
    }
    zeros(r, rest)?;
    Ok(Action::Bundle(Box::new(Bundle { fields, basis, algorithm, members, dst })))
}

fn read_sample(r: &mut Reader<'_>, subtype: u16) -> Result<Action, ErrorCode> {
    let probability = r.u16()?;
    let (collector_set, domain, point) = (r.u32()?, r.u32()?, r.u32()?);
    let (mut port, mut direction) = (PortNo::ANY, 0);
    if subtype != SAMPLE {
        port = from16(r.u16()?);
        direction = r.u8()?;
        zeros(r, 5)?;
    }
    let known = direction <= if subtype == SAMPLE3 { 2 } else { 0 };
    if probability == 0 || !known {
        return Err(BadAction::BadArgument.into());
    }
    Ok(Action::Sample(Box::new(Sample { probability, collector_set, domain, point, port, direction })))
}

/// Begins an action.
fn begin(out: &mut Vec<u8>, subtype: u16) {
    out.put_u16(EXPERIMENTER);
    out.put_u16(0);
    out.put_u32(NICIRA);
    out.put_u16(subtype);
}

/// Appends a fixed set of OpenFlow 1.1 that OpenFlow 1.0 does not have.
pub(super) fn put_legacy10(out: &mut Vec<u8>, field: FieldId, value: u64) -> Result<(), EncodeError> {
    let start = out.len();
    match field {
        FieldId::MplsLabel => {
            begin(out, SET_MPLS_LABEL);
            out.put_zeros(2);
            out.put_u32(value as u32);
        }
        FieldId::MplsTc => {
            begin(out, SET_MPLS_TC);
            out.put_u8(value as u8);
        }
        f => return put_loads(out, Version::V10, f, value.into(), f.info().max()),
    }
    finish(out, start);
    Ok(())
}

/// Appends an action that the version itself does not have.
pub(super) fn put_action(out: &mut Vec<u8>, v: Version, a: &Action, depth: usize) -> Result<(), EncodeError> {
    let start = out.len();
    match a {
        Action::Resubmit { port, table: None, with_ct: false } if v == Version::V10 => {
            begin(out, RESUBMIT);
            out.put_u16(to16(*port)?);
        }
        Action::Resubmit { port, table, with_ct } => {
            begin(out, if *with_ct { RESUBMIT_TABLE_CT } else { RESUBMIT_TABLE });
            out.put_u16(to16(*port)?);
            out.put_u8(table.map_or(THIS_TABLE, |t| t.0));
        }
        Action::SetTunnel { id, wide: false } => {
            begin(out, SET_TUNNEL);
            out.put_u16(0);
            out.put_u32(u32::try_from(*id).map_err(|_| EncodeError::Action)?);
        }
        Action::SetTunnel { id, wide: true } => {
            begin(out, SET_TUNNEL64);
            out.put_zeros(6);
            out.put_u64(*id);
        }
        Action::PopQueue => begin(out, POP_QUEUE),
        Action::Exit => begin(out, EXIT),
        Action::CtClear => begin(out, CT_CLEAR),
        Action::DecNshTtl if v >= Version::V13 => begin(out, DEC_NSH_TTL),
        Action::DebugSlow => begin(out, DEBUG_SLOW),
        Action::DebugRecirc => begin(out, DEBUG_RECIRC),
        Action::Note(bytes) => {
            begin(out, NOTE);
            out.extend_from_slice(bytes);
        }
        Action::RegMove { src, dst } => {
            begin(out, REG_MOVE);
            out.put_u16(src.bits);
            out.put_u16(src.offset);
            out.put_u16(dst.offset);
            registers::put_any_subfield(out, src)?;
            registers::put_any_subfield(out, dst)?;
        }
        Action::RegLoad { dst, value } if super::oxm::is_experimenters(dst.field) => {
            let value = u128::from(*value) << dst.offset & dst.mask();
            return registers::put_load2(out, dst.field, value, dst.mask());
        }
        Action::RegLoad { dst, value } => {
            begin(out, REG_LOAD);
            registers::put_load_body(out, dst, *value)?;
        }
        Action::OutputReg { src, max_len } => {
            begin(out, OUTPUT_REG);
            put_offset_and_bits(out, src)?;
            put_subfield(out, src)?;
            out.put_u16(*max_len);
            out.put_zeros(6);
        }
        Action::OutputTrunc { port, max_len } => {
            begin(out, OUTPUT_TRUNC);
            out.put_u16(to16(*port)?);
            out.put_u32(*max_len);
        }
        Action::Controller { max_len, controller_id, reason, userdata, pause: false, meter: None }
            if userdata.is_empty() =>
        {
            begin(out, CONTROLLER);
            out.put_u16(*max_len);
            out.put_u16(*controller_id);
            out.put_u8(*reason);
        }
        Action::Controller { max_len, controller_id, reason, userdata, pause, meter } => {
            begin(out, CONTROLLER2);
            out.put_zeros(6);
            let short = |out: &mut Vec<u8>, kind: u16, v: u32| {
                properties::put_plain(out, kind, |out| out.put_u32(v));
            };
            if *max_len != u16::MAX {
                short(out, C2_MAX_LEN, u32::from(*max_len) << 16);
            }
            if *controller_id != 0 {
                short(out, C2_CONTROLLER_ID, u32::from(*controller_id) << 16);
            }
            if *reason != PacketInReason::Action as u8 {
                short(out, C2_REASON, u32::from(*reason) << 24);
            }
            if !userdata.is_empty() {
                properties::put_plain(out, C2_USERDATA, |out| out.extend_from_slice(userdata));
            }
            if *pause {
                properties::put_plain(out, C2_PAUSE, |_| {});
            }
            if let Some(m) = meter {
                short(out, C2_METER, m.0);
            }
        }
        Action::DecNwTtl { controllers } if controllers.is_empty() => begin(out, DEC_TTL),
        Action::DecNwTtl { controllers } => {
            begin(out, DEC_TTL_IDS);
            out.put_u16(u16::try_from(controllers.len()).map_err(|_| EncodeError::TooLong)?);
            out.put_zeros(4);
            controllers.iter().for_each(|c| out.put_u16(*c));
        }
        Action::FinTimeout { idle, hard } => {
            begin(out, FIN_TIMEOUT);
            out.put_u16(*idle);
            out.put_u16(*hard);
        }
        Action::WriteMetadata { value, mask } => {
            begin(out, WRITE_METADATA);
            out.put_zeros(6);
            out.put_u64(*value);
            out.put_u64(*mask);
        }
        Action::Multipath(m) => {
            begin(out, MULTIPATH);
            out.put_u16(m.fields);
            out.put_u16(m.basis);
            out.put_zeros(2);
            out.put_u16(m.algorithm);
            out.put_u16(m.max_link);
            out.put_u32(m.arg);
            out.put_zeros(2);
            put_offset_and_bits(out, &m.dst)?;
            put_subfield(out, &m.dst)?;
        }
        Action::Bundle(b) => put_bundle(out, b)?,
        Action::Learn(l) => {
            let second = learn::needs_second_form(l);
            begin(out, if second { LEARN2 } else { LEARN });
            learn::put(out, l, second)?;
        }
        Action::StackPush(s) | Action::StackPop(s) => {
            begin(out, if matches!(a, Action::StackPush(_)) { STACK_PUSH } else { STACK_POP });
            registers::put_stack(out, s)?;
        }
        Action::Sample(s) => put_sample(out, s)?,
        Action::Conjunction { id, clause, n_clauses } => {
            begin(out, CONJUNCTION);
            out.put_u8(*clause);
            out.put_u8(*n_clauses);
            out.put_u32(*id);
        }
        Action::Ct(c) => {
            begin(out, CT);
            ct::put(out, v, c, depth)?;
        }
        Action::Nat(n) => {
            begin(out, NAT);
            ct::put_nat(out, n);
        }
        Action::Clone(actions) => {
            begin(out, CLONE);
            out.put_zeros(6);
            super::actions::put_known(out, v, actions, Default::default(), depth + 1)?;
        }
        Action::Encap(e) if v >= Version::V13 => {
            begin(out, ENCAP);
            encap::put(out, e)?;
        }
        Action::Decap { packet_type } if v >= Version::V13 => {
            begin(out, DECAP);
            out.put_zeros(2);
            out.put_u32(*packet_type);
        }
        Action::CheckPktLarger(c) => {
            begin(out, CHECK_PKT_LARGER);
            out.put_u16(c.bytes);
            out.put_u16(c.dst.offset);
            put_subfield(out, &c.dst)?;
            fill(out, start, 24);
        }
        Action::DeleteField(f) => {
            begin(out, DELETE_FIELD);
            super::oxm::put_short_header(out, *f, f.width()).ok_or(EncodeError::Field(*f))?;
            fill(out, start, 24);
        }
        _ => put_v10(out, v, a)?,
    }
    finish(out, start);
    Ok(())
}

/// Zeros until an action that began at `start` is `len` bytes long.
fn fill(out: &mut Vec<u8>, start: usize, len: usize) {
    out.put_zeros(len.saturating_sub(out.len() - start));
}

/// What only OpenFlow 1.0 says by Nicira's actions.
fn put_v10(out: &mut Vec<u8>, v: Version, a: &Action) -> Result<(), EncodeError> {
    if v != Version::V10 {
        return Err(EncodeError::Action);
    }
    let word = |out: &mut Vec<u8>, subtype: u16, v: u32| {
        begin(out, subtype);
        out.put_zeros(2);
        out.put_u32(v);
    };
    match a {
        Action::SetQueue(q) => word(out, SET_QUEUE, q.0),
        Action::Group(g) => word(out, GROUP, g.0),
        Action::PushMpls(t) | Action::PopMpls(t) => {
            begin(out, if matches!(a, Action::PushMpls(_)) { PUSH_MPLS } else { POP_MPLS });
            out.put_u16(*t);
        }
        Action::SetMplsTtl(t) => {
            begin(out, SET_MPLS_TTL);
            out.put_u8(*t);
        }
        Action::DecMplsTtl => begin(out, DEC_MPLS_TTL),
        _ => return Err(EncodeError::Action),
    }
    Ok(())
}

fn put_bundle(out: &mut Vec<u8>, b: &Bundle) -> Result<(), EncodeError> {
    begin(out, if b.dst.is_some() { BUNDLE_LOAD } else { BUNDLE });
    out.put_u16(b.algorithm);
    out.put_u16(b.fields);
    out.put_u16(b.basis);
    out.put_u32(NXM_IN_PORT);
    out.put_u16(u16::try_from(b.members.len()).map_err(|_| EncodeError::TooLong)?);
    match &b.dst {
        Some(dst) => {
            put_offset_and_bits(out, dst)?;
            put_subfield(out, dst)?;
        }
        None => out.put_zeros(6),
    }
    out.put_zeros(4);
    for m in &b.members {
        out.put_u16(to16(*m)?);
    }
    Ok(())
}

fn put_sample(out: &mut Vec<u8>, s: &Sample) -> Result<(), EncodeError> {
    let first = s.port == PortNo::ANY && s.direction == 0;
    begin(
        out,
        match s.direction {
            _ if first => SAMPLE,
            0 => SAMPLE2,
            _ => SAMPLE3,
        },
    );
    out.put_u16(s.probability);
    out.put_u32(s.collector_set);
    out.put_u32(s.domain);
    out.put_u32(s.point);
    if !first {
        out.put_u16(to16(s.port)?);
        out.put_u8(s.direction);
        out.put_zeros(5);
    }
    Ok(())
}
