//! Protocol versions and their negotiation (OpenFlow 1.3.5 6.3.1).

use std::fmt;

/// A version of the protocol by its wire number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Version {
    V10 = 1,
    V11 = 2,
    V12 = 3,
    V13 = 4,
    V14 = 5,
    V15 = 6,
}

impl Version {
    /// All versions, lowest first.
    pub const ALL: [Version; 6] =
        [Version::V10, Version::V11, Version::V12, Version::V13, Version::V14, Version::V15];

    /// The version with that wire number.
    pub fn from_wire(v: u8) -> Option<Version> {
        Version::ALL.into_iter().find(|x| *x as u8 == v)
    }
}

impl std::str::FromStr for Version {
    type Err = UnknownVersion;

    /// `OpenFlow10` to `OpenFlow15`, as in the `protocols` column of a bridge and `ovs-ofctl -O`; in any case.
    fn from_str(s: &str) -> Result<Version, UnknownVersion> {
        Version::ALL
            .into_iter()
            .find(|v| v.to_string().eq_ignore_ascii_case(s))
            .ok_or_else(|| UnknownVersion(s.to_owned()))
    }
}

/// No version of OpenFlow has that name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}: unknown OpenFlow protocol")]
pub struct UnknownVersion(pub String);

impl fmt::Display for Version {
    /// The name `ovs-ofctl -O` takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenFlow1{}", *self as u8 - 1)
    }
}

/// A set of wire versions: bit `n` is version `n`, as in the hello message's bitmap. Unknown versions are kept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct VersionSet(pub u32);

impl VersionSet {
    /// The versions this crate encodes.
    pub const SUPPORTED: VersionSet = VersionSet(0x7e);

    /// One version.
    pub const fn only(v: Version) -> VersionSet {
        VersionSet(1 << v as u32)
    }

    /// Every version up to and including wire number `v`; what a hello without a bitmap says.
    pub const fn up_to(v: u8) -> VersionSet {
        let n = if v > 31 { 31 } else { v as u32 };
        VersionSet(((1u64 << (n + 1)) - 2) as u32)
    }

    /// The set of these versions.
    pub fn of(versions: impl IntoIterator<Item = Version>) -> VersionSet {
        VersionSet(versions.into_iter().fold(0, |set, v| set | 1 << v as u32))
    }

    /// Whether `v` is in the set.
    pub const fn has(self, v: Version) -> bool {
        self.0 & 1 << v as u32 != 0
    }

    /// The highest wire number in the set; 0 when empty.
    pub const fn highest(self) -> u8 {
        if self.0 == 0 { 0 } else { (31 - self.0.leading_zeros()) as u8 }
    }
}

/// The version two peers speak: the highest both have, `None` when there is none.
pub fn negotiate(ours: VersionSet, theirs: VersionSet) -> Option<Version> {
    Version::from_wire(VersionSet(ours.0 & theirs.0).highest())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_version_in_both_sets_is_chosen() {
        let ours = VersionSet::SUPPORTED;
        assert_eq!(ours, VersionSet::of(Version::ALL));
        assert_eq!(negotiate(ours, VersionSet::up_to(6)), Some(Version::V15));
        assert_eq!(negotiate(ours, VersionSet::up_to(4)), Some(Version::V13));
        assert_eq!(negotiate(ours, VersionSet::only(Version::V14)), Some(Version::V14));
        assert_eq!(negotiate(ours, VersionSet(1 << 7)), None);
        let gaps = VersionSet::of([Version::V10, Version::V13]);
        assert_eq!(negotiate(gaps, VersionSet::up_to(3)), Some(Version::V10));
        assert_eq!("openflow14".parse(), Ok(Version::V14));
        assert!("OpenFlow16".parse::<Version>().is_err());
        assert_eq!(VersionSet::up_to(255).highest(), 31);
        assert_eq!(VersionSet::up_to(0), VersionSet(0));
    }
}
