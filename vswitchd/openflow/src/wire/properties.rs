//! Properties: the type-length-value lists of OpenFlow 1.4 and later (OpenFlow 1.4.0 7.1.2), also in Nicira's newer
//! messages.
//!
//! ```text
//!  0                16               32
//! +----------------+----------------+-------------------+---------------------------+
//! |      type      |     length     | value             | zeros to a multiple of 8, |
//! +----------------+----------------+-------------------+ not in the length         |
//! ```
//! Type 0xffff is somebody's own: a vendor and its type follow.

use super::cursor::{Put, Reader};
use crate::error::{BadProperty, ErrorCode};

pub(super) const EXPERIMENTER: u16 = 0xffff;

/// Takes the next property and its padding; `None` at the end.
pub(super) fn next<'a>(r: &mut Reader<'a>) -> Result<Option<(u16, Reader<'a>)>, ErrorCode> {
    if r.is_empty() {
        return Ok(None);
    }
    let bad = |_| ErrorCode::from(BadProperty::BadLen);
    let kind = r.u16().map_err(bad)?;
    let len = usize::from(r.u16().map_err(bad)?);
    let body = len.checked_sub(4).ok_or(BadProperty::BadLen)?;
    let value = r.sub(body, BadProperty::BadLen).map_err(bad)?;
    // The last one may lack its padding.
    let padding = (len.next_multiple_of(8) - len).min(r.left());
    r.skip(padding)?;
    Ok(Some((kind, value)))
}

/// What to say of a property that is not known where all must be.
pub(super) fn unknown(kind: u16) -> ErrorCode {
    if kind == EXPERIMENTER { BadProperty::BadExperimenter.into() } else { BadProperty::BadType.into() }
}

/// A value of 32 bits and nothing else.
pub(super) fn only_u32(mut value: Reader<'_>) -> Result<u32, ErrorCode> {
    let v = value.u32()?;
    value.finish()?;
    Ok(v)
}

/// A value of 64 bits, before it four bytes of padding.
pub(super) fn only_u64(mut value: Reader<'_>) -> Result<u64, ErrorCode> {
    value.skip(4)?;
    let v = value.u64()?;
    value.finish()?;
    Ok(v)
}

/// Appends a property; `put` appends its value.
pub(super) fn put<E>(
    out: &mut Vec<u8>,
    kind: u16,
    value: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.put_u16(kind);
    out.put_u16(0);
    value(out)?;
    out.patch_u16(start + 2, out.len() - start);
    out.pad8(start);
    Ok(())
}

/// As [`put`], of a value that always can be put.
pub(super) fn put_plain(out: &mut Vec<u8>, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
    let r = put(out, kind, |out| {
        value(out);
        Ok::<(), std::convert::Infallible>(())
    });
    match r {
        Ok(()) => {}
        Err(never) => match never {},
    }
}
