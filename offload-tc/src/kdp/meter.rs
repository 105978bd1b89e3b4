//! Meters of the kernel's datapath (OVS_METER_*). It has one band each, which drops.

use datapath_api::{MeterBandKind, MeterConfig, MeterCounts, MeterStats, MeterUnit};
use flow::MeterId;

use super::{KdpError, KernelDatapath, genl};
use crate::error::CodecError;
use crate::transport::Transport;
use crate::wire::{NESTED, attrs, find, read_u64};

const SET: u8 = 2;
const DEL: u8 = 3;
const GET: u8 = 4;
const ID: u16 = 1;
const KBPS: u16 = 2;
const STATS: u16 = 3;
const BANDS: u16 = 4;
const BAND_TYPE: u16 = 1;
const BAND_RATE: u16 = 2;
const BAND_BURST: u16 = 3;
const BAND_STATS: u16 = 4;
const DROP: u32 = 1;

impl<T: Transport> KernelDatapath<T> {
    fn meters(&mut self) -> Result<u16, KdpError> {
        self.seq = self.seq.wrapping_add(1);
        genl::number_of(&mut self.link, "ovs_meter", self.seq)
    }

    /// Makes a meter, or makes it like this; it counts anew then, and what it has counted before is the answer.
    ///
    /// # Errors
    /// [`KdpError::Unsupported`] for bands that do something else than to drop; others.
    pub fn put_meter(&mut self, id: MeterId, config: &MeterConfig) -> Result<MeterStats, KdpError> {
        if config.bands.iter().any(|b| b.kind != MeterBandKind::Drop) {
            return Err(KdpError::Unsupported("band of a meter that remarks"));
        }
        let family = self.meters()?;
        let ask = self.ask(SET, "meter", family, 1);
        let told = self.request(ask, |w| {
            w.u32(ID, id.0);
            if config.unit == MeterUnit::Kbps {
                w.attr(KBPS, &[]);
            }
            let all = w.nest(BANDS | NESTED);
            for b in &config.bands {
                let n = w.nest(NESTED);
                w.u32(BAND_TYPE, DROP);
                w.u32(BAND_RATE, b.rate);
                w.u32(BAND_BURST, if b.burst == 0 { b.rate } else { b.burst });
                w.end(n);
            }
            w.end(all);
        })?;
        read_stats(told.first().map(|t| t.attrs.as_slice()).unwrap_or_default())
    }

    /// Removes a meter.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn remove_meter(&mut self, id: MeterId) -> Result<(), KdpError> {
        let family = self.meters()?;
        let ask = self.ask(DEL, "meter", family, 1);
        self.request(ask, |w| w.u32(ID, id.0)).map(drop)
    }

    /// Counters of a meter.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn meter(&mut self, id: MeterId) -> Result<MeterStats, KdpError> {
        let family = self.meters()?;
        let ask = self.ask(GET, "meter", family, 1);
        let told = self.request(ask, |w| w.u32(ID, id.0))?;
        read_stats(told.first().map(|t| t.attrs.as_slice()).unwrap_or_default())
    }
}

fn read_stats(body: &[u8]) -> Result<MeterStats, KdpError> {
    let counts = |b: &[u8]| -> Result<MeterCounts, CodecError> {
        let n = |at: usize| read_u64("meter", b.get(at..at + 8).unwrap_or_default());
        Ok(MeterCounts { packets: n(0)?, bytes: n(8)? })
    };
    let mut out = MeterStats::default();
    if let Some(b) = find(body, STATS)? {
        out.input = counts(b)?;
    }
    for band in attrs(find(body, BANDS)?.unwrap_or_default()) {
        let b = find(band?.1, BAND_STATS)?;
        out.bands.push(b.map_or(Ok(MeterCounts::default()), counts)?);
    }
    Ok(out)
}
