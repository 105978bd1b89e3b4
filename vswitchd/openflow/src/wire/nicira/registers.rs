//! Nicira's actions on registers and fields: load, move, push and pop.

use flow::FieldId;

use super::super::EncodeError;
use super::super::actions::{check_set, finish};
use super::super::cursor::{Put, Reader};
use super::super::oxm::{self, OxmHeader};
use super::{REG_LOAD, REG_LOAD2, begin};
use crate::action::{Action, Subfield};
use crate::error::{BadAction, ErrorCode};
use crate::version::Version;

pub(super) fn offset_and_bits(v: u16) -> (u16, u16) {
    (v >> 6, (v & 0x3f) + 1)
}

pub(super) fn put_offset_and_bits(out: &mut Vec<u8>, s: &Subfield) -> Result<(), EncodeError> {
    if s.bits == 0 || s.bits > 64 || s.offset > 0x3ff {
        return Err(EncodeError::Field(s.field));
    }
    out.put_u16(s.offset << 6 | (s.bits - 1));
    Ok(())
}

/// Reads a header and makes a subfield of it. An ARP operation has 16 bits on the wire and 8 in a key: all of it is all of
/// the 8.
pub(super) fn subfield(r: &mut Reader<'_>, offset: u16, bits: u16) -> Result<Subfield, ErrorCode> {
    let w = OxmHeader::read(r)?.field(BadAction::BadArgument)?;
    let bits = if w.field == FieldId::ArpOp && (offset, bits) == (0, 16) { 8 } else { bits };
    let end = u32::from(offset) + u32::from(bits);
    // Values have 128 bits, and all of those would be the whole of a longer option.
    let option_bits = u32::from(w.field.width());
    if w.field.option().is_some() && end > if option_bits > 128 { 127 } else { option_bits } {
        return Err(BadAction::BadSetLen.into());
    }
    if bits == 0 || end > u32::from(w.field.info().bits) {
        return Err(BadAction::BadArgument.into());
    }
    Ok(Subfield { field: w.field, offset, bits })
}

/// As [`put_subfield`], where there is room for the eight bytes of an experimenter's header.
pub(super) fn put_any_subfield(out: &mut Vec<u8>, s: &Subfield) -> Result<(), EncodeError> {
    if !oxm::is_experimenters(s.field) {
        return put_subfield(out, s);
    }
    oxm::put_header(out, Version::V10, s.field, 1).map(|_| ()).ok_or(EncodeError::Field(s.field))
}

pub(super) fn put_subfield(out: &mut Vec<u8>, s: &Subfield) -> Result<(), EncodeError> {
    oxm::put_short_header(out, s.field, s.offset + s.bits).ok_or(EncodeError::Field(s.field))
}

/// The bits a subfield has on the wire.
fn wire_bits(s: &Subfield) -> u16 {
    if s.field == FieldId::ArpOp && (s.offset, s.bits) == (0, 8) { 16 } else { s.bits }
}

pub(super) fn read_load(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let (offset, bits) = offset_and_bits(r.u16()?);
    let dst = subfield(r, offset, bits)?;
    let value = r.u64()?;
    check_set(dst.field)?;
    if dst.bits < 64 && value >> dst.bits != 0 {
        return Err(BadAction::BadArgument.into());
    }
    Ok(Action::RegLoad { dst, value })
}

/// The body of a load after its subtype.
pub(super) fn put_load_body(out: &mut Vec<u8>, dst: &Subfield, value: u64) -> Result<(), EncodeError> {
    put_offset_and_bits(out, &Subfield { bits: wire_bits(dst), ..*dst })?;
    put_subfield(out, dst)?;
    out.put_u64(value);
    Ok(())
}

/// Appends loads that do what a set-field does: one for each run of bits of the mask, of at most 64 bits.
pub(in super::super) fn put_loads(
    out: &mut Vec<u8>,
    _v: Version,
    field: FieldId,
    value: u128,
    mask: u128,
) -> Result<(), EncodeError> {
    if oxm::is_experimenters(field) {
        return put_load2(out, field, value, mask);
    }
    let mut left = mask & field.ones();
    // A VLAN id that is set as a whole says that there is a tag, which a load does not.
    if field == FieldId::VlanVid && left == 0x1fff {
        left = 0xfff;
    }
    while left != 0 {
        let offset = left.trailing_zeros() as u16;
        let run = (left >> offset).trailing_ones().min(64) as u16;
        let dst = Subfield { field, offset, bits: run };
        left &= !dst.mask();
        let start = out.len();
        begin(out, REG_LOAD);
        put_load_body(out, &dst, ((value & dst.mask()) >> offset) as u64)?;
        finish(out, start);
    }
    Ok(())
}

/// Appends a set-field with a mask, of a field whose header is too long for a load.
pub(super) fn put_load2(
    out: &mut Vec<u8>,
    field: FieldId,
    value: u128,
    mask: u128,
) -> Result<(), EncodeError> {
    let (mask, start) = (mask & field.ones(), out.len());
    begin(out, REG_LOAD2);
    let values = if mask == field.ones() { 1 } else { 2 };
    let bytes = oxm::put_header(out, Version::V10, field, values).ok_or(EncodeError::Field(field))?;
    out.put_number(value & mask, bytes);
    if values == 2 {
        out.put_number(mask, bytes);
    }
    finish(out, start);
    Ok(())
}

/// Reads the two headers of a move, and the padding after them.
pub(in super::super) fn read_copy(
    r: &mut Reader<'_>,
    bits: u16,
    src_offset: u16,
    dst_offset: u16,
) -> Result<Action, ErrorCode> {
    let src = subfield(r, src_offset, bits)?;
    let dst = subfield(r, dst_offset, bits)?;
    check_set(dst.field)?;
    if src.bits != dst.bits {
        return Err(BadAction::BadArgument.into());
    }
    // Experimenter headers are eight bytes long, so there may be padding.
    let padding = r.left();
    if padding >= 8 {
        return Err(BadAction::BadLen.into());
    }
    r.skip(padding)?;
    Ok(Action::RegMove { src, dst })
}

/// A set-field with a mask, which versions before 1.5 do not have themselves. The entry follows the subtype at once.
pub(super) fn read_load2(r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let h = OxmHeader::read(r)?;
    let w = h.field(BadAction::BadSetType)?;
    if usize::from(h.payload_bytes) != w.bytes * if h.has_mask { 2 } else { 1 } {
        return Err(BadAction::BadSetLen.into());
    }
    check_set(w.field)?;
    let raw = r.number(w.bytes)?;
    let value = w.value_in(raw).ok_or(BadAction::BadSetArgument)?;
    let mask = if h.has_mask { w.mask_in(r.number(w.bytes)?) } else { w.field.ones() };
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

pub(super) fn read_stack(r: &mut Reader<'_>, push: bool) -> Result<Action, ErrorCode> {
    let offset = r.u16()?;
    // The number of bits is after the header.
    let mut header = *r;
    let experimenter = header.u32()? >> 16 == 0xffff;
    let mut ahead = *r;
    ahead.skip(if experimenter { 8 } else { 4 })?;
    let bits = ahead.u16()?;
    let s = subfield(r, offset, bits)?;
    r.skip(2)?;
    let rest = r.left();
    super::zeros(r, rest)?;
    if !push {
        check_set(s.field)?;
    }
    Ok(if push { Action::StackPush(s) } else { Action::StackPop(s) })
}

/// The body of a push or pop after its subtype.
pub(super) fn put_stack(out: &mut Vec<u8>, s: &Subfield) -> Result<(), EncodeError> {
    out.put_u16(s.offset);
    let at = out.len();
    put_any_subfield(out, s)?;
    out.put_u16(wire_bits(s));
    out.put_zeros(12 - (out.len() - at));
    Ok(())
}
