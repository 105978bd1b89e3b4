//! `learn`: a flow described by where its bits come from.
//!
//! ```text
//!   15 14   13     12 11    10        0
//! +-------+-----+---------+------------+   src 0: header(32) offset(16)   dst 0: match, 1: load: header(32) offset(16)
//! | zero  | src |   dst   |    bits    |       1: constant, whole 16 bits      2: output: nothing
//! +-------+-----+---------+------------+   A list ends with the action or with a zero header.
//! ```

use super::super::EncodeError;
use super::super::cursor::{Put, Reader};
use super::registers::{put_subfield, subfield};
use crate::action::Subfield;
use crate::error::{BadAction, ErrorCode};
use crate::extension::{Learn, LearnFlags, LearnSource, LearnSpec, LearnTarget};
use crate::number::TableId;

const SRC_VALUE: u16 = 1 << 13;
const DST_LOAD: u16 = 1 << 11;
const DST_OUTPUT: u16 = 2 << 11;
const DST_MASK: u16 = 3 << 11;
const BITS: u16 = 0x3ff;

pub(super) fn read(r: &mut Reader<'_>, second: bool) -> Result<Learn, ErrorCode> {
    let (idle_timeout, hard_timeout, priority) = (r.u16()?, r.u16()?, r.u16()?);
    let (cookie, flags, table) = (r.u64()?, LearnFlags(r.u16()?), TableId(r.u8()?));
    if r.u8()? != 0 {
        return Err(BadAction::BadArgument.into());
    }
    let (fin_idle_timeout, fin_hard_timeout) = (r.u16()?, r.u16()?);
    let known = if second { LearnFlags::KNOWN.0 } else { LearnFlags::KNOWN.0 & !LearnFlags::WRITE_RESULT.0 };
    if flags.0 & !known != 0 || table == TableId::ALL {
        return Err(BadAction::BadArgument.into());
    }
    let (mut limit, mut result) = (0, None);
    if second {
        limit = r.u32()?;
        let offset = r.u16()?;
        if r.u16()? != 0 {
            return Err(BadAction::BadArgument.into());
        }
        if flags.has(LearnFlags::WRITE_RESULT) {
            result = Some(subfield(r, offset, 1)?);
        } else if offset != 0 {
            return Err(BadAction::BadArgument.into());
        }
    }
    let mut specs = Vec::new();
    while r.left() >= 2 {
        let header = r.u16()?;
        if header == 0 {
            break;
        }
        specs.push(read_spec(header, r)?);
    }
    let rest = r.left();
    super::zeros(r, rest)?;
    Ok(Learn {
        idle_timeout,
        hard_timeout,
        priority,
        cookie,
        flags,
        table,
        fin_idle_timeout,
        fin_hard_timeout,
        limit,
        result,
        specs,
    })
}

fn field(r: &mut Reader<'_>, bits: u16) -> Result<Subfield, ErrorCode> {
    // The offset is after the header.
    let mut ahead = *r;
    let experimenter = ahead.u32()? >> 16 == 0xffff;
    if experimenter {
        return Err(BadAction::BadArgument.into());
    }
    let offset = ahead.u16()?;
    let s = subfield(r, offset, bits)?;
    r.skip(2)?;
    Ok(s)
}

fn read_spec(header: u16, r: &mut Reader<'_>) -> Result<LearnSpec, ErrorCode> {
    let bits = header & BITS;
    let value = header & SRC_VALUE != 0;
    let dst = header & DST_MASK;
    let known = dst == 0 || dst == DST_LOAD || dst == DST_OUTPUT && !value;
    if header & !(BITS | SRC_VALUE | DST_MASK) != 0 || !known || bits == 0 {
        return Err(BadAction::BadArgument.into());
    }
    let src = if value {
        let bytes = 2 * usize::from(bits.div_ceil(16));
        if bytes > 16 {
            // No field has more than 128 bits.
            return Err(BadAction::BadArgument.into());
        }
        let v = r.number(bytes)?;
        LearnSource::Value(if bits < 128 { v & ((1 << bits) - 1) } else { v })
    } else {
        LearnSource::Field(field(r, bits)?)
    };
    let dst = match dst {
        0 => LearnTarget::Match(field(r, bits)?),
        DST_LOAD => {
            let s = field(r, bits)?;
            super::super::actions::check_set(s.field)?;
            LearnTarget::Load(s)
        }
        _ => LearnTarget::Output,
    };
    Ok(LearnSpec { bits, src, dst })
}

/// Whether the first form of the action cannot say it.
pub(super) fn needs_second_form(l: &Learn) -> bool {
    l.limit != 0 || l.flags.has(LearnFlags::WRITE_RESULT)
}

pub(super) fn put(out: &mut Vec<u8>, l: &Learn, second: bool) -> Result<(), EncodeError> {
    out.put_u16(l.idle_timeout);
    out.put_u16(l.hard_timeout);
    out.put_u16(l.priority);
    out.put_u64(l.cookie);
    out.put_u16(l.flags.0);
    out.put_u8(l.table.0);
    out.put_u8(0);
    out.put_u16(l.fin_idle_timeout);
    out.put_u16(l.fin_hard_timeout);
    if second {
        out.put_u32(l.limit);
        out.put_u16(l.result.map_or(0, |s| s.offset));
        out.put_u16(0);
        if let (Some(s), true) = (&l.result, l.flags.has(LearnFlags::WRITE_RESULT)) {
            put_subfield(out, s)?;
        }
    }
    for spec in &l.specs {
        put_spec(out, spec)?;
    }
    Ok(())
}

fn put_field(out: &mut Vec<u8>, s: &Subfield) -> Result<(), EncodeError> {
    put_subfield(out, s)?;
    out.put_u16(s.offset);
    Ok(())
}

fn put_spec(out: &mut Vec<u8>, spec: &LearnSpec) -> Result<(), EncodeError> {
    let src = if matches!(spec.src, LearnSource::Value(_)) { SRC_VALUE } else { 0 };
    let dst = match spec.dst {
        LearnTarget::Match(_) => 0,
        LearnTarget::Load(_) => DST_LOAD,
        LearnTarget::Output => DST_OUTPUT,
    };
    out.put_u16(src | dst | spec.bits & BITS);
    match &spec.src {
        LearnSource::Field(s) => put_field(out, s)?,
        LearnSource::Value(v) => out.put_number(*v, 2 * usize::from(spec.bits.div_ceil(16))),
    }
    match &spec.dst {
        LearnTarget::Match(s) | LearnTarget::Load(s) => put_field(out, s),
        LearnTarget::Output => Ok(()),
    }
}
