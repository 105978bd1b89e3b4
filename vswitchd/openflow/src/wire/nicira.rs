//! Nicira extension actions on the wire: `ffff len 00002320 subtype ...`, as stock `ovs-ofctl` sends them in 1.3.

use flow::FieldId;

use super::EncodeError;
use super::actions::{EXPERIMENTER, check_set, finish, output_port};
use super::cursor::{Put, Reader};
use super::oxm::{self, OxmHeader};
use crate::action::{Action, Subfield};
use crate::error::{BadAction, ErrorCode};
use crate::number::{PortNo, TableId};

/// Nicira's experimenter id.
pub const NICIRA: u32 = 0x0000_2320;

const RESUBMIT: u16 = 1;
const SET_TUNNEL: u16 = 2;
const POP_QUEUE: u16 = 5;
const REG_MOVE: u16 = 6;
const REG_LOAD: u16 = 7;
const NOTE: u16 = 8;
const SET_TUNNEL64: u16 = 9;
const RESUBMIT_TABLE: u16 = 14;
const OUTPUT_REG: u16 = 15;
const EXIT: u16 = 17;
const CONTROLLER: u16 = 20;
const DEC_TTL_IDS: u16 = 21;
const REG_LOAD2: u16 = 33;
const OUTPUT_TRUNC: u16 = 39;

/// Reads an experimenter action from its experimenter id on. Unless it is variable, all of it must be used.
pub(super) fn read_action(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    if r.u32()? != NICIRA {
        return Err(BadAction::BadExperimenter.into());
    }
    Ok(match r.u16()? {
        RESUBMIT => {
            let port = port16(r.u16()?);
            r.skip(4)?;
            Action::Resubmit { port, table: None }
        }
        RESUBMIT_TABLE => {
            let port = port16(r.u16()?);
            let table = r.u8()?;
            r.skip(3)?;
            Action::Resubmit { port, table: (table != 0xff).then_some(TableId(table)) }
        }
        SET_TUNNEL => {
            r.skip(2)?;
            Action::SetTunnel { id: r.u32()?.into(), wide: false }
        }
        SET_TUNNEL64 => {
            r.skip(6)?;
            Action::SetTunnel { id: r.u64()?, wide: true }
        }
        POP_QUEUE => {
            r.skip(6)?;
            Action::PopQueue
        }
        EXIT => {
            r.skip(6)?;
            Action::Exit
        }
        REG_MOVE => read_move(r)?,
        REG_LOAD => {
            let (offset, bits) = offset_and_bits(r.u16()?);
            let dst = load_target(r, offset, bits)?;
            let value = r.u64()?;
            check_set(dst.field)?;
            if dst.bits < 64 && value >> dst.bits != 0 {
                return Err(BadAction::BadArgument.into());
            }
            Action::RegLoad { dst, value }
        }
        REG_LOAD2 => read_load2(r)?,
        NOTE => Action::Note(r.rest().to_vec()),
        OUTPUT_REG => {
            let (offset, bits) = offset_and_bits(r.u16()?);
            let src = subfield(r, offset, bits)?;
            let max_len = r.u16()?;
            r.skip(6)?;
            Action::OutputReg { src, max_len }
        }
        OUTPUT_TRUNC => {
            let port = output_port(port16(r.u16()?))?;
            Action::OutputTrunc { port, max_len: r.u32()? }
        }
        CONTROLLER => {
            let (max_len, controller_id, reason) = (r.u16()?, r.u16()?, r.u8()?);
            r.skip(1)?;
            Action::Controller { max_len, controller_id, reason }
        }
        DEC_TTL_IDS => {
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
            Action::DecNwTtl { controllers }
        }
        _ => return Err(BadAction::BadExpType.into()),
    })
}

/// A port in the 16 bits of OpenFlow 1.0, where reserved ones begin at 0xff00.
fn port16(p: u16) -> PortNo {
    PortNo(if p >= 0xff00 { u32::from(p) | 0xffff_0000 } else { p.into() })
}

fn port_to_16(p: PortNo) -> Result<u16, EncodeError> {
    match p.0 {
        p if !(0xff00..0xffff_ff00).contains(&p) => Ok(p as u16),
        _ => Err(EncodeError::Port(p)),
    }
}

fn offset_and_bits(v: u16) -> (u16, u16) {
    (v >> 6, (v & 0x3f) + 1)
}

/// What `load` writes. An ARP operation has 16 bits on the wire and 8 in a key: the upper ones must be loaded with zero.
fn load_target(r: &mut Reader<'_>, offset: u16, bits: u16) -> Result<Subfield, ErrorCode> {
    let mut ahead = *r;
    let field = OxmHeader::read(&mut ahead)?.resolve().map(|w| w.field);
    let bits = if field == Some(FieldId::ArpOp) && offset == 0 && bits == 16 { 8 } else { bits };
    subfield(r, offset, bits)
}

fn subfield(r: &mut Reader<'_>, offset: u16, bits: u16) -> Result<Subfield, ErrorCode> {
    let w = OxmHeader::read(r)?.resolve().ok_or(BadAction::BadArgument)?;
    let end = u32::from(offset) + u32::from(bits);
    if bits == 0 || end > u32::from(w.field.info().bits) {
        return Err(BadAction::BadArgument.into());
    }
    Ok(Subfield { field: w.field, offset, bits })
}

fn read_move(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let (bits, src_offset, dst_offset) = (r.u16()?, r.u16()?, r.u16()?);
    let src = subfield(r, src_offset, bits)?;
    let dst = subfield(r, dst_offset, bits)?;
    check_set(dst.field)?;
    // Experimenter headers are eight bytes long, so there may be padding.
    let padding = r.left();
    if padding >= 8 {
        return Err(BadAction::BadLen.into());
    }
    r.skip(padding)?;
    Ok(Action::RegMove { src, dst })
}

/// A set-field with a mask, which 1.3 itself does not have.
fn read_load2(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    r.skip(6)?;
    let h = OxmHeader::read(r)?;
    let w = h.resolve().ok_or(BadAction::BadSetType)?;
    if usize::from(h.payload_bytes) != w.bytes * if h.has_mask { 2 } else { 1 } {
        return Err(BadAction::BadSetLen.into());
    }
    check_set(w.field)?;
    let raw = r.number(w.bytes)?;
    let value = w.value_in(raw).ok_or(BadAction::BadSetArgument)?;
    let mask = if h.has_mask { w.mask_in(r.number(w.bytes)?) } else { w.field.info().max() };
    if mask == 0 || value & !mask != 0 {
        return Err(BadAction::BadSetArgument.into());
    }
    let padding = r.left();
    if padding >= 8 {
        return Err(BadAction::BadLen.into());
    }
    r.skip(padding)?;
    Ok(Action::SetField { field: w.field, value, mask })
}

/// Appends an action that OpenFlow 1.3 itself does not have.
pub(super) fn put_action(out: &mut Vec<u8>, a: &Action) -> Result<(), EncodeError> {
    let start = out.len();
    let begin = |out: &mut Vec<u8>, subtype: u16| {
        out.put_u16(EXPERIMENTER);
        out.put_u16(0);
        out.put_u32(NICIRA);
        out.put_u16(subtype);
    };
    match a {
        Action::Resubmit { port, table } => {
            begin(out, RESUBMIT_TABLE);
            out.put_u16(port_to_16(*port)?);
            out.put_u8(table.map_or(0xff, |t| t.0));
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
        Action::Note(bytes) => {
            begin(out, NOTE);
            out.extend_from_slice(bytes);
        }
        Action::RegMove { src, dst } => {
            begin(out, REG_MOVE);
            out.put_u16(src.bits);
            out.put_u16(src.offset);
            out.put_u16(dst.offset);
            put_subfield(out, src)?;
            put_subfield(out, dst)?;
        }
        Action::RegLoad { dst, value } => {
            begin(out, REG_LOAD);
            let widen = dst.field == FieldId::ArpOp && (dst.offset, dst.bits) == (0, 8);
            put_offset_and_bits(out, &Subfield { bits: if widen { 16 } else { dst.bits }, ..*dst })?;
            put_subfield(out, dst)?;
            out.put_u64(*value);
        }
        Action::SetField { field, value, mask } => {
            begin(out, REG_LOAD2);
            out.put_zeros(6);
            let values = if *mask == field.info().max() { 1 } else { 2 };
            let bytes = oxm::put_header(out, *field, values).ok_or(EncodeError::Field(*field))?;
            out.put_number(*value, bytes);
            if values == 2 {
                out.put_number(*mask, bytes);
            }
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
            out.put_u16(port_to_16(*port)?);
            out.put_u32(*max_len);
        }
        Action::Controller { max_len, controller_id, reason } => {
            begin(out, CONTROLLER);
            out.put_u16(*max_len);
            out.put_u16(*controller_id);
            out.put_u8(*reason);
        }
        Action::DecNwTtl { controllers } => {
            begin(out, DEC_TTL_IDS);
            out.put_u16(u16::try_from(controllers.len()).map_err(|_| EncodeError::TooLong)?);
            out.put_zeros(4);
            controllers.iter().for_each(|c| out.put_u16(*c));
        }
        _ => return Err(EncodeError::Action),
    }
    finish(out, start);
    Ok(())
}

fn put_offset_and_bits(out: &mut Vec<u8>, s: &Subfield) -> Result<(), EncodeError> {
    if s.bits == 0 || s.bits > 64 || s.offset > 0x3ff {
        return Err(EncodeError::Field(s.field));
    }
    out.put_u16(s.offset << 6 | (s.bits - 1));
    Ok(())
}

fn put_subfield(out: &mut Vec<u8>, s: &Subfield) -> Result<(), EncodeError> {
    oxm::put_short_header(out, s.field).ok_or(EncodeError::Field(s.field))
}
