//! Meters (OpenFlow 1.3.5 7.3.4.4, 7.3.5.9 to 7.3.5.11).

use crate::number::{MeterNo, flag_set};

/// What to do with a meter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum MeterModCommand {
    Add = 0,
    Modify = 1,
    Delete = 2,
}

flag_set! {
    /// Flags of a meter (`OFPMF_*`).
    MeterFlags: u16 {
        /// Rates are in kilobits per second.
        KBPS = 1;
        /// Rates are in packets per second.
        PKTPS = 2;
        /// Burst sizes are given.
        BURST = 4;
        /// Collect statistics.
        STATS = 8;
    }
}

/// What happens beyond a band's rate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MeterBandKind {
    /// The packet is dropped.
    Drop,
    /// The drop precedence in the DSCP field rises by this much.
    DscpRemark {
        /// Levels.
        prec_level: u8,
    },
    /// Somebody's own.
    Experimenter {
        /// Who.
        experimenter: u32,
    },
}

/// One band of a meter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MeterBand {
    /// What happens beyond the rate.
    pub kind: MeterBandKind,
    /// Kilobits or packets per second.
    pub rate: u32,
    /// Kilobits or packets.
    pub burst_size: u32,
}

/// A change to the meter table.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MeterMod {
    /// What to do.
    pub command: MeterModCommand,
    /// Flags.
    pub flags: MeterFlags,
    /// Which meter.
    pub meter: MeterNo,
    /// Its bands.
    pub bands: Vec<MeterBand>,
}

/// What a meter is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MeterConfig {
    /// Flags.
    pub flags: MeterFlags,
    /// Which meter.
    pub meter: MeterNo,
    /// Its bands.
    pub bands: Vec<MeterBand>,
}

/// Counters of one band.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[allow(missing_docs)]
pub struct BandCounter {
    pub packets: u64,
    pub bytes: u64,
}

/// Counters of one meter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MeterStats {
    /// Which meter.
    pub meter: MeterNo,
    /// Flows that use it.
    pub flow_count: u32,
    /// Packets that came in.
    pub packets_in: u64,
    /// Bytes that came in.
    pub bytes_in: u64,
    /// Whole seconds alive.
    pub duration_sec: u32,
    /// Nanoseconds beyond them.
    pub duration_nsec: u32,
    /// One per band.
    pub bands: Vec<BandCounter>,
}

/// What the switch can do with meters.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct MeterFeatures {
    /// Most meters.
    pub max_meters: u32,
    /// Bitmap of band types.
    pub band_types: u32,
    /// Bitmap of [`MeterFlags`].
    pub capabilities: u32,
    /// Most bands of a meter.
    pub max_bands: u8,
    /// Most colours.
    pub max_color: u8,
}
