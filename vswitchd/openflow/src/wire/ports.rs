//! Ports on the wire (OpenFlow 1.0.1 5.2.1, OpenFlow 1.3.5 7.2.1, 7.3.4.3, 7.3.5.3, 7.4.3, OpenFlow 1.4.0 7.2.1).
//!
//! OpenFlow 1.0 has port numbers of 16 bits: those from 0xff00 are the reserved ones, which later versions have at the
//! end of 32 bits. OpenFlow 1.4 moves what is Ethernet's own into a property.

use super::cursor::{Put, Reader};
use super::{EncodeError, properties};
use crate::error::{BadRequest, ErrorCode, PortModFailed};
use crate::message::Body;
use crate::number::PortNo;
use crate::port::{
    PortConfig, PortDesc, PortFeatures, PortMod, PortReason, PortState, PortStats, PortStatus,
};
use crate::version::Version;

const NAME_BYTES: usize = 16;
/// The property of Ethernet ports in descriptions, modifications and statistics.
const ETHERNET: u16 = 0;
/// What OpenFlow 1.0 alone has.
const CONFIG10: u32 = PortConfig::NO_STP.0 | PortConfig::NO_RECV_STP.0 | PortConfig::NO_FLOOD.0;
const CONFIG11: u32 = PortConfig::KNOWN.0 & !CONFIG10;
const STATE10: u32 = PortState::LINK_DOWN.0 | PortState::STP_MASK.0;
const STATE11: u32 = PortState::KNOWN.0 & !PortState::STP_MASK.0;

/// A port in the 16 bits of OpenFlow 1.0 and of Nicira's actions.
pub(super) fn from16(p: u16) -> PortNo {
    PortNo(if p >= 0xff00 { u32::from(p) | 0xffff_0000 } else { p.into() })
}

/// A port in 16 bits.
pub(super) fn to16(p: PortNo) -> Result<u16, EncodeError> {
    match p.0 {
        p if !(0xff00..0xffff_ff00).contains(&p) => Ok(p as u16),
        _ => Err(EncodeError::Port(p)),
    }
}

/// A port in the width of the version.
pub(super) fn read_port(v: Version, r: &mut Reader<'_>) -> Result<PortNo, ErrorCode> {
    Ok(if v == Version::V10 { from16(r.u16()?) } else { PortNo(r.u32()?) })
}

/// Appends a port in the width of the version.
pub(super) fn put_port(out: &mut Vec<u8>, v: Version, p: PortNo) -> Result<(), EncodeError> {
    if v == Version::V10 {
        out.put_u16(to16(p)?);
    } else {
        out.put_u32(p.0);
    }
    Ok(())
}

/// OpenFlow 1.0 has no rates beyond 10 Gb/s, and media and the rest follow at once.
fn features10(f: PortFeatures) -> u32 {
    f.0 & 0x7f | (f.0 & 0xf800) >> 4
}

fn from_features10(f: u32) -> PortFeatures {
    PortFeatures(f & 0x7f | (f & 0xf80) << 4)
}

pub(super) fn read_desc(v: Version, r: &mut Reader<'_>) -> Result<PortDesc, ErrorCode> {
    let port = read_port(v, r)?;
    let mut properties = match v {
        Version::V10 => None,
        _ if v < Version::V14 => {
            r.skip(4)?;
            None
        }
        _ => {
            let len = usize::from(r.u16()?);
            r.skip(2)?;
            Some(r.sub(len.checked_sub(8).ok_or(r.short())?, r.short())?)
        }
    };
    let e = properties.as_mut().unwrap_or(r);
    let hw_addr = e.mac()?;
    if v != Version::V10 {
        e.skip(2)?;
    }
    let mut p = PortDesc {
        port,
        hw_addr,
        name: e.text(NAME_BYTES)?,
        config: PortConfig(e.u32()? & PortConfig::KNOWN.0),
        state: PortState(e.u32()? & if v == Version::V10 { STATE10 } else { STATE11 }),
        current: PortFeatures::NONE,
        advertised: PortFeatures::NONE,
        supported: PortFeatures::NONE,
        peer: PortFeatures::NONE,
        current_speed_kbps: 0,
        max_speed_kbps: 0,
    };
    if v < Version::V14 {
        read_ethernet(v, e, &mut p)?;
        return Ok(p);
    }
    while let Some((kind, mut value)) = properties::next(e)? {
        if kind == ETHERNET {
            value.skip(4)?;
            read_ethernet(v, &mut value, &mut p)?;
        }
    }
    Ok(p)
}

fn read_ethernet(v: Version, r: &mut Reader<'_>, p: &mut PortDesc) -> Result<(), ErrorCode> {
    for f in [&mut p.current, &mut p.advertised, &mut p.supported, &mut p.peer] {
        let raw = r.u32()?;
        *f = if v == Version::V10 { from_features10(raw) } else { PortFeatures(raw) };
    }
    if v != Version::V10 {
        (p.current_speed_kbps, p.max_speed_kbps) = (r.u32()?, r.u32()?);
    }
    Ok(())
}

fn put_ethernet(out: &mut Vec<u8>, v: Version, p: &PortDesc) {
    for f in [p.current, p.advertised, p.supported, p.peer] {
        out.put_u32(if v == Version::V10 { features10(f) } else { f.0 });
    }
    if v != Version::V10 {
        out.put_u32(p.current_speed_kbps);
        out.put_u32(p.max_speed_kbps);
    }
}

pub(super) fn put_desc(out: &mut Vec<u8>, v: Version, p: &PortDesc) -> Result<(), EncodeError> {
    let start = out.len();
    put_port(out, v, p.port)?;
    if v != Version::V10 {
        out.put_zeros(4);
    }
    out.put_mac(p.hw_addr);
    if v != Version::V10 {
        out.put_zeros(2);
    }
    out.put_text(&p.name, NAME_BYTES);
    out.put_u32(p.config.0 & if v == Version::V10 { PortConfig::KNOWN.0 } else { CONFIG11 });
    out.put_u32(p.state.0 & if v == Version::V10 { STATE10 } else { STATE11 });
    if v >= Version::V14 {
        properties::put_plain(out, ETHERNET, |out| {
            out.put_zeros(4);
            put_ethernet(out, v, p);
        });
        out.patch_u16(start + 4, out.len() - start);
    } else {
        put_ethernet(out, v, p);
    }
    Ok(())
}

pub(super) fn read_status(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let reason = match r.u8()? {
        0 => PortReason::Add,
        1 => PortReason::Delete,
        2 => PortReason::Modify,
        _ => return Err(BadRequest::BadType.into()),
    };
    r.skip(7)?;
    Ok(Body::PortStatus(PortStatus { reason, desc: read_desc(v, r)? }))
}

pub(super) fn put_status(out: &mut Vec<u8>, v: Version, s: &PortStatus) -> Result<(), EncodeError> {
    out.put_u8(s.reason as u8);
    out.put_zeros(7);
    put_desc(out, v, &s.desc)
}

pub(super) fn read_mod(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let port = read_port(v, r)?;
    if v != Version::V10 {
        r.skip(4)?;
    }
    let hw_addr = r.mac()?;
    if v != Version::V10 {
        r.skip(2)?;
    }
    let (config, mask) = (r.u32()?, r.u32()?);
    let known = if v == Version::V10 { PortConfig::KNOWN.0 } else { CONFIG11 };
    if mask & !known != 0 && v != Version::V10 {
        return Err(PortModFailed::BadConfig.into());
    }
    let mut advertise = PortFeatures::NONE;
    if v < Version::V14 {
        let raw = r.u32()?;
        advertise = if v == Version::V10 { from_features10(raw) } else { PortFeatures(raw) };
        r.skip(4)?;
    } else {
        while let Some((kind, value)) = properties::next(r)? {
            match kind {
                ETHERNET => advertise = PortFeatures(properties::only_u32(value)?),
                kind => return Err(properties::unknown(kind)),
            }
        }
    }
    let (config, mask) = (PortConfig(config & known), PortConfig(mask & known));
    Ok(Body::PortMod(PortMod { port, hw_addr, config, mask, advertise }))
}

pub(super) fn put_mod(out: &mut Vec<u8>, v: Version, p: &PortMod) -> Result<(), EncodeError> {
    let known = if v == Version::V10 { PortConfig::KNOWN.0 } else { CONFIG11 };
    put_port(out, v, p.port)?;
    if v != Version::V10 {
        out.put_zeros(4);
    }
    out.put_mac(p.hw_addr);
    if v != Version::V10 {
        out.put_zeros(2);
    }
    out.put_u32(p.config.0 & known);
    out.put_u32(p.mask.0 & known);
    match v {
        Version::V10 => out.put_u32(features10(p.advertise)),
        _ if v < Version::V14 => out.put_u32(p.advertise.0),
        _ => {
            if p.advertise != PortFeatures::NONE {
                properties::put_plain(out, ETHERNET, |out| out.put_u32(p.advertise.0));
            }
            return Ok(());
        }
    }
    out.put_zeros(4);
    Ok(())
}

/// Counters before what is Ethernet's own.
fn basic(s: &mut PortStats) -> [&mut u64; 8] {
    [
        &mut s.rx_packets,
        &mut s.tx_packets,
        &mut s.rx_bytes,
        &mut s.tx_bytes,
        &mut s.rx_dropped,
        &mut s.tx_dropped,
        &mut s.rx_errors,
        &mut s.tx_errors,
    ]
}

fn ethernet(s: &mut PortStats) -> [&mut u64; 4] {
    [&mut s.rx_frame_err, &mut s.rx_over_err, &mut s.rx_crc_err, &mut s.collisions]
}

/// Counters of a port of which nothing is known.
fn unknown_stats(port: PortNo) -> PortStats {
    const UNKNOWN: u64 = u64::MAX;
    PortStats {
        port,
        rx_packets: UNKNOWN,
        tx_packets: UNKNOWN,
        rx_bytes: UNKNOWN,
        tx_bytes: UNKNOWN,
        rx_dropped: UNKNOWN,
        tx_dropped: UNKNOWN,
        rx_errors: UNKNOWN,
        tx_errors: UNKNOWN,
        rx_frame_err: UNKNOWN,
        rx_over_err: UNKNOWN,
        rx_crc_err: UNKNOWN,
        collisions: UNKNOWN,
        duration_sec: u32::MAX,
        duration_nsec: u32::MAX,
    }
}

pub(super) fn read_stats(v: Version, r: &mut Reader<'_>) -> Result<PortStats, ErrorCode> {
    if v >= Version::V14 {
        let len = usize::from(r.u16()?);
        let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
        e.skip(2)?;
        let mut s = unknown_stats(PortNo(e.u32()?));
        (s.duration_sec, s.duration_nsec) = (e.u32()?, e.u32()?);
        for c in basic(&mut s) {
            *c = e.u64()?;
        }
        while let Some((kind, mut value)) = properties::next(&mut e)? {
            if kind == ETHERNET {
                value.skip(4)?;
                for c in ethernet(&mut s) {
                    *c = value.u64()?;
                }
            }
        }
        return Ok(s);
    }
    let mut s = unknown_stats(read_port(v, r)?);
    r.skip(if v == Version::V10 { 6 } else { 4 })?;
    for c in basic(&mut s) {
        *c = r.u64()?;
    }
    for c in ethernet(&mut s) {
        *c = r.u64()?;
    }
    if v == Version::V13 {
        (s.duration_sec, s.duration_nsec) = (r.u32()?, r.u32()?);
    }
    Ok(s)
}

pub(super) fn put_stats(out: &mut Vec<u8>, v: Version, s: &PortStats) -> Result<(), EncodeError> {
    let start = out.len();
    let mut s = *s;
    if v >= Version::V14 {
        out.put_u16(0);
        out.put_zeros(2);
        out.put_u32(s.port.0);
        out.put_u32(s.duration_sec);
        out.put_u32(s.duration_nsec);
        basic(&mut s).into_iter().for_each(|c| out.put_u64(*c));
        properties::put_plain(out, ETHERNET, |out| {
            out.put_zeros(4);
            ethernet(&mut s).into_iter().for_each(|c| out.put_u64(*c));
        });
        let len = out.len() - start;
        out.patch_u16(start, len);
        return Ok(());
    }
    put_port(out, v, s.port)?;
    out.put_zeros(if v == Version::V10 { 6 } else { 4 });
    basic(&mut s).into_iter().for_each(|c| out.put_u64(*c));
    ethernet(&mut s).into_iter().for_each(|c| out.put_u64(*c));
    if v == Version::V13 {
        out.put_u32(s.duration_sec);
        out.put_u32(s.duration_nsec);
    }
    Ok(())
}
