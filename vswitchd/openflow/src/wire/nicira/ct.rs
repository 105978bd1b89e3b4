//! `ct` and `nat`: connection tracking.

use std::net::{Ipv4Addr, Ipv6Addr};

use flow::FieldId;

use super::super::EncodeError;
use super::super::actions::{put_known, read_nested};
use super::super::cursor::{Put, Reader};
use super::registers::{offset_and_bits, put_offset_and_bits, put_subfield, subfield};
use crate::action::Action;
use crate::error::{BadAction, ErrorCode};
use crate::extension::{Ct, CtFlags, CtZone, Nat, NatAddresses, NatFlags};
use crate::number::TableId;
use crate::version::Version;

/// No recirculation.
const NO_TABLE: u8 = 0xff;

// Which parts of a range are there.
const V4_MIN: u16 = 1;
const V4_MAX: u16 = 2;
const V6_MIN: u16 = 4;
const V6_MAX: u16 = 8;
const PORT_MIN: u16 = 16;
const PORT_MAX: u16 = 32;

pub(super) fn read(v: Version, r: &mut Reader<'_>, depth: usize) -> Result<Ct, ErrorCode> {
    let flags = CtFlags(r.u16()?);
    let mut ahead = *r;
    let zone = if ahead.u32()? == 0 {
        r.skip(4)?;
        CtZone::Value(r.u16()?)
    } else {
        // The range comes after the header it is about.
        let (offset, bits) = offset_and_bits(ahead.u16()?);
        if bits != 16 {
            return Err(BadAction::BadArgument.into());
        }
        let s = subfield(r, offset, bits)?;
        r.skip(2)?;
        CtZone::Field(s)
    };
    let table = r.u8()?;
    r.skip(3)?;
    let alg = r.u16()?;
    let actions = read_nested(v, &mut Reader::new(r.rest(), BadAction::BadLen), depth + 1)?;
    let commit = flags.has(CtFlags::COMMIT);
    if flags.0 & !CtFlags::KNOWN.0 != 0 || flags.has(CtFlags::FORCE) && !commit {
        return Err(BadAction::BadArgument.into());
    }
    check_nested(&actions, commit)?;
    Ok(Ct { flags, zone, table: (table != NO_TABLE).then_some(TableId(table)), alg, actions })
}

/// What a `ct` executes may only set the connection's mark and label, and translate addresses once. The sets and a
/// translation that says source or destination need a commit.
fn check_nested(actions: &[Action], commit: bool) -> Result<(), ErrorCode> {
    let mut translated = false;
    for a in actions {
        let field = match a {
            Action::Nat(n) => {
                let directed = n.flags.0 & (NatFlags::SRC.0 | NatFlags::DST.0) != 0;
                if std::mem::replace(&mut translated, true) || directed && !commit {
                    return Err(BadAction::BadArgument.into());
                }
                continue;
            }
            Action::SetField { field, .. } => *field,
            Action::RegLoad { dst, .. } | Action::RegMove { dst, .. } => dst.field,
            _ => return Err(BadAction::BadArgument.into()),
        };
        if !matches!(field, FieldId::CtMark | FieldId::CtLabel) || !commit {
            return Err(BadAction::BadArgument.into());
        }
    }
    Ok(())
}

pub(super) fn put(out: &mut Vec<u8>, v: Version, c: &Ct, depth: usize) -> Result<(), EncodeError> {
    out.put_u16(c.flags.0);
    match &c.zone {
        CtZone::Value(z) => {
            out.put_u32(0);
            out.put_u16(*z);
        }
        CtZone::Field(s) => {
            put_subfield(out, s)?;
            put_offset_and_bits(out, s)?;
        }
    }
    out.put_u8(c.table.map_or(NO_TABLE, |t| t.0));
    out.put_zeros(3);
    out.put_u16(c.alg);
    put_known(out, v, &c.actions, Default::default(), depth + 1)
}

pub(super) fn read_nat(r: &mut Reader<'_>) -> Result<Nat, ErrorCode> {
    let bad = || ErrorCode::from(BadAction::BadArgument);
    r.skip(2)?;
    let (flags, present) = (NatFlags(r.u16()?), r.u16()?);
    let both = |a: NatFlags, b: NatFlags| flags.has(a) && flags.has(b);
    if flags.0 & !NatFlags::KNOWN.0 != 0
        || both(NatFlags::SRC, NatFlags::DST)
        || both(NatFlags::HASH, NatFlags::RANDOM)
    {
        return Err(bad());
    }
    // What is missing is a bad argument, not a bad length, here.
    let mut o = Reader::new(r.rest(), BadAction::BadArgument);
    let has = |bit: u16| present & bit != 0;
    let addresses = if has(V4_MIN) {
        if has(V6_MIN | V6_MAX) {
            return Err(bad());
        }
        let low = o.u32()?;
        let high = if has(V4_MAX) { Some(o.u32()?) } else { None };
        if low == 0 || high.is_some_and(|h| h < low) {
            return Err(bad());
        }
        Some(NatAddresses::V4(Ipv4Addr::from(low), high.map(Ipv4Addr::from)))
    } else if has(V6_MIN) {
        let low = o.number(16)?;
        let high = if has(V6_MAX) { Some(o.number(16)?) } else { None };
        if has(V4_MAX) || low == 0 || high.is_some_and(|h| h < low) {
            return Err(bad());
        }
        Some(NatAddresses::V6(Ipv6Addr::from(low), high.map(Ipv6Addr::from)))
    } else if has(V4_MAX | V6_MAX) {
        return Err(bad());
    } else {
        None
    };
    let ports = if has(PORT_MIN) {
        let low = o.u16()?;
        let high = if has(PORT_MAX) { Some(o.u16()?) } else { None };
        if addresses.is_none() || low == 0 || high.is_some_and(|h| h < low) {
            return Err(bad());
        }
        Some((low, high))
    } else if has(PORT_MAX) {
        return Err(bad());
    } else {
        None
    };
    if o.left() >= 8 {
        return Err(BadAction::BadLen.into());
    }
    Ok(Nat { flags, addresses, ports })
}

pub(super) fn put_nat(out: &mut Vec<u8>, n: &Nat) {
    out.put_zeros(2);
    out.put_u16(n.flags.0);
    let mut present = 0;
    let at = out.len();
    out.put_u16(0);
    match n.addresses {
        Some(NatAddresses::V4(low, high)) => {
            present |= V4_MIN;
            out.extend_from_slice(&low.octets());
            if let Some(high) = high {
                present |= V4_MAX;
                out.extend_from_slice(&high.octets());
            }
        }
        Some(NatAddresses::V6(low, high)) => {
            present |= V6_MIN;
            out.extend_from_slice(&low.octets());
            if let Some(high) = high {
                present |= V6_MAX;
                out.extend_from_slice(&high.octets());
            }
        }
        None => {}
    }
    if let Some((low, high)) = n.ports {
        present |= PORT_MIN;
        out.put_u16(low);
        if let Some(high) = high {
            present |= PORT_MAX;
            out.put_u16(high);
        }
    }
    out.patch_u16(at, present.into());
}
