//! Meters on the wire (OpenFlow 1.3.5 7.3.4.4, 7.3.5.9 to 7.3.5.11).

use super::EncodeError;
use super::cursor::{Put, Reader};
use crate::error::{ErrorCode, MeterModFailed};
use crate::message::Body;
use crate::meter::{
    BandCounter, MeterBand, MeterBandKind, MeterConfig, MeterFeatures, MeterFlags, MeterMod, MeterModCommand,
    MeterStats,
};
use crate::number::MeterNo;
use crate::version::Version;

const DROP: u16 = 1;
const DSCP_REMARK: u16 = 2;
const EXPERIMENTER: u16 = 0xffff;
/// Every band is this long.
const BAND_BYTES: u16 = 16;

/// Reads bands to the end of `r`.
fn read_bands(r: &mut Reader<'_>) -> Result<Vec<MeterBand>, ErrorCode> {
    let mut bands = Vec::new();
    while !r.is_empty() {
        let (kind, len, rate, burst_size) = (r.u16()?, r.u16()?, r.u32()?, r.u32()?);
        if len != BAND_BYTES {
            return Err(r.short());
        }
        let kind = match kind {
            DROP => {
                r.skip(4)?;
                MeterBandKind::Drop
            }
            DSCP_REMARK => {
                let prec_level = r.u8()?;
                r.skip(3)?;
                MeterBandKind::DscpRemark { prec_level }
            }
            EXPERIMENTER => MeterBandKind::Experimenter { experimenter: r.u32()? },
            _ => return Err(MeterModFailed::BadBand.into()),
        };
        bands.push(MeterBand { kind, rate, burst_size });
    }
    Ok(bands)
}

fn put_bands(out: &mut Vec<u8>, bands: &[MeterBand]) {
    for b in bands {
        let (kind, last) = match b.kind {
            MeterBandKind::Drop => (DROP, 0),
            MeterBandKind::DscpRemark { prec_level } => (DSCP_REMARK, u32::from(prec_level) << 24),
            MeterBandKind::Experimenter { experimenter } => (EXPERIMENTER, experimenter),
        };
        out.put_u16(kind);
        out.put_u16(BAND_BYTES);
        out.put_u32(b.rate);
        out.put_u32(b.burst_size);
        out.put_u32(last);
    }
}

pub(super) fn read_mod(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let command = match r.u16()? {
        0 => MeterModCommand::Add,
        1 => MeterModCommand::Modify,
        2 => MeterModCommand::Delete,
        _ => return Err(MeterModFailed::BadCommand.into()),
    };
    let (flags, meter) = (MeterFlags(r.u16()?), MeterNo(r.u32()?));
    if flags.0 & !MeterFlags::KNOWN.0 != 0 {
        return Err(MeterModFailed::BadFlags.into());
    }
    Ok(Body::MeterMod(MeterMod { command, flags, meter, bands: read_bands(r)? }))
}

pub(super) fn put_mod(out: &mut Vec<u8>, m: &MeterMod) {
    out.put_u16(m.command as u16);
    out.put_u16(m.flags.0);
    out.put_u32(m.meter.0);
    put_bands(out, &m.bands);
}

pub(super) fn read_config(r: &mut Reader<'_>) -> Result<MeterConfig, ErrorCode> {
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    let (flags, meter) = (MeterFlags(e.u16()?), MeterNo(e.u32()?));
    Ok(MeterConfig { flags, meter, bands: read_bands(&mut e)? })
}

pub(super) fn put_config(out: &mut Vec<u8>, c: &MeterConfig) -> Result<(), EncodeError> {
    out.put_u16(u16::try_from(8 + 16 * c.bands.len()).map_err(|_| EncodeError::TooLong)?);
    out.put_u16(c.flags.0);
    out.put_u32(c.meter.0);
    put_bands(out, &c.bands);
    Ok(())
}

pub(super) fn read_stats(r: &mut Reader<'_>) -> Result<MeterStats, ErrorCode> {
    let (meter, len) = (MeterNo(r.u32()?), usize::from(r.u16()?));
    let mut e = r.sub(len.checked_sub(6).ok_or(r.short())?, r.short())?;
    e.skip(6)?;
    let (flow_count, packets_in, bytes_in) = (e.u32()?, e.u64()?, e.u64()?);
    let (duration_sec, duration_nsec) = (e.u32()?, e.u32()?);
    let mut bands = Vec::with_capacity(e.left() / 16);
    while !e.is_empty() {
        bands.push(BandCounter { packets: e.u64()?, bytes: e.u64()? });
    }
    Ok(MeterStats { meter, flow_count, packets_in, bytes_in, duration_sec, duration_nsec, bands })
}

pub(super) fn put_stats(out: &mut Vec<u8>, s: &MeterStats) -> Result<(), EncodeError> {
    out.put_u32(s.meter.0);
    out.put_u16(u16::try_from(40 + 16 * s.bands.len()).map_err(|_| EncodeError::TooLong)?);
    out.put_zeros(6);
    out.put_u32(s.flow_count);
    out.put_u64(s.packets_in);
    out.put_u64(s.bytes_in);
    out.put_u32(s.duration_sec);
    out.put_u32(s.duration_nsec);
    for b in &s.bands {
        out.put_u64(b.packets);
        out.put_u64(b.bytes);
    }
    Ok(())
}

/// OpenFlow 1.5 has eight bytes more, which stock switches and tools do not send and refuse; they are understood.
pub(super) fn read_features(v: Version, r: &mut Reader<'_>) -> Result<MeterFeatures, ErrorCode> {
    let f = MeterFeatures {
        max_meters: r.u32()?,
        band_types: r.u32()?,
        capabilities: r.u32()?,
        max_bands: r.u8()?,
        max_color: r.u8()?,
    };
    r.skip(2)?;
    if v == Version::V15 && !r.is_empty() {
        r.skip(8)?;
    }
    Ok(f)
}

pub(super) fn put_features(out: &mut Vec<u8>, f: &MeterFeatures) {
    out.put_u32(f.max_meters);
    out.put_u32(f.band_types);
    out.put_u32(f.capabilities);
    out.put_u8(f.max_bands);
    out.put_u8(f.max_color);
    out.put_zeros(2);
}
