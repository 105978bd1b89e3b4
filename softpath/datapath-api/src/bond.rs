//! Bonds: ports among which [`flow::Action::LbOutput`] chooses by a hash.

use flow::PortId;

/// Buckets that hashes fall into; the low bits of a hash are the number of its bucket.
pub const BOND_BUCKETS: usize = 256;

/// How a bond is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BondConfig {
    /// Mixed into hashes.
    pub basis: u32,
    /// The port of each of [`BOND_BUCKETS`] buckets; `None` drops what falls into it.
    pub members: Box<[Option<PortId>; BOND_BUCKETS]>,
}

/// What has been sent by a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct BucketCounts {
    pub packets: u64,
    /// Frames without FCS.
    pub bytes: u64,
}
