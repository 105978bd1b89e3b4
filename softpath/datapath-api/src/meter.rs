//! Meters, as a switch configures them in a datapath (OpenFlow 1.3.5 5.7).

/// What rates and bursts are counted in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MeterUnit {
    /// Rate in kilobits (1000 bits) per second, burst in kilobits. Frames count without FCS.
    Kbps,
    /// Rate in packets per second, burst in packets.
    Pps,
}

/// What happens to a packet above a band's rate.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum MeterBandKind {
    /// It is dropped.
    Drop,
    /// The drop precedence in its DSCP is raised by this much, within its assured forwarding class (RFC 2597 6); other
    /// code points and packets that are not IP stay as they are.
    DscpRemark {
        /// Precedence levels to add.
        levels: u8,
    },
}

/// One band. Of the bands whose rate is exceeded the one with the highest rate applies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MeterBand {
    /// Rate above which it applies, in [`MeterConfig::unit`]. Zero: to every packet.
    pub rate: u32,
    /// Burst, in [`MeterConfig::unit`]; zero means what comes in a second at `rate`, as in Open vSwitch.
    pub burst: u32,
    /// What it does.
    pub kind: MeterBandKind,
}

/// A meter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MeterConfig {
    /// Unit of rates and bursts.
    pub unit: MeterUnit,
    /// Its bands; empty passes everything.
    pub bands: Vec<MeterBand>,
}

/// How much a datapath has of meters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MeterLimits {
    /// Most meters; ids are below it.
    pub max_meters: u32,
    /// Most bands of one.
    pub max_bands: u8,
}

/// Packets and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct MeterCounts {
    pub packets: u64,
    pub bytes: u64,
}

/// Counters of a meter.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MeterStats {
    /// What came in.
    pub input: MeterCounts,
    /// What each band applied to, in the order of the configuration.
    pub bands: Vec<MeterCounts>,
}
