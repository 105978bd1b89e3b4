//! I/O virtual addresses: the ranges an IOMMU translates, and which parts of them are taken.

use device::Iova;

/// An inclusive range of addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IovaRange {
    /// First address.
    pub start: u64,
    /// Last address.
    pub last: u64,
}

/// Lowest address that is given out: zero stays invalid, so that a descriptor that was never written faults.
const LOWEST: u64 = 0x1_0000;

/// Hands out addresses within the ranges of an IOMMU.
#[derive(Clone, Debug)]
pub struct IovaSpace {
    ranges: Vec<IovaRange>,
    page_bytes: u64,
    /// What is taken, by address: start and length.
    taken: Vec<(u64, u64)>,
}

impl IovaSpace {
    /// All of `ranges`, in pages of `page_bytes` (a power of two; anything else counts as 4096).
    pub fn new(mut ranges: Vec<IovaRange>, page_bytes: u64) -> Self {
        ranges.retain(|r| r.last >= r.start);
        ranges.sort_unstable();
        let page_bytes = if page_bytes.is_power_of_two() { page_bytes.max(4096) } else { 4096 };
        IovaSpace { ranges, page_bytes, taken: Vec::new() }
    }

    /// The ranges.
    pub fn ranges(&self) -> &[IovaRange] {
        &self.ranges
    }

    /// The lowest free run of `len_bytes`, rounded up to pages and aligned to huge pages when it holds one; `None` when there
    /// is none.
    pub fn take(&mut self, len_bytes: u64) -> Option<Iova> {
        let len = len_bytes.max(1).checked_next_multiple_of(self.page_bytes)?;
        let align = if len >= 2 << 20 { 2 << 20 } else { self.page_bytes };
        for r in &self.ranges {
            let mut at = r.start.max(LOWEST).checked_next_multiple_of(align)?;
            loop {
                let last = at.checked_add(len - 1)?;
                if last > r.last {
                    break;
                }
                match self.taken.iter().find(|(s, l)| *s <= last && s + (l - 1) >= at) {
                    None => {
                        let i = self.taken.partition_point(|(s, _)| *s < at);
                        self.taken.insert(i, (at, len));
                        return Some(Iova(at));
                    }
                    Some((s, l)) => at = (s + l).checked_next_multiple_of(align)?,
                }
            }
        }
        None
    }

    /// Gives back what [`IovaSpace::take`] gave; whether it was taken.
    pub fn give_back(&mut self, iova: Iova) -> bool {
        let found = self.taken.binary_search_by_key(&iova.0, |(s, _)| *s);
        found.map(|i| self.taken.remove(i)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> IovaSpace {
        // What an Intel IOMMU reports: all but the window of interrupt messages.
        let low = IovaRange { start: 0, last: 0xfedf_ffff };
        let high = IovaRange { start: 0xfef0_0000, last: (1 << 39) - 1 };
        IovaSpace::new(vec![high, low], 4096)
    }

    #[test]
    fn addresses_are_in_the_ranges_and_do_not_overlap() {
        let mut s = space();
        let a = s.take(100).unwrap();
        let b = s.take(8192).unwrap();
        let c = s.take(4 << 20).unwrap();
        assert_eq!((a, b, c), (Iova(0x1_0000), Iova(0x1_1000), Iova(0x20_0000)));
        assert!(s.give_back(b));
        assert!(!s.give_back(b), "twice");
        assert_eq!(s.take(4096), Some(b));
        assert_eq!(s.take(4096), Some(Iova(0x1_2000)));
    }

    #[test]
    fn a_run_never_crosses_a_hole() {
        let mut s = space();
        let big = s.take(0xfee0_0000).unwrap();
        assert_eq!(big, Iova(0xff00_0000), "behind the hole, on a huge page");
        assert_eq!(s.take(1 << 40), None);
        let mut tiny = IovaSpace::new(vec![IovaRange { start: 0x1_0000, last: 0x1_1fff }], 4096);
        assert_eq!(tiny.take(4096), Some(Iova(0x1_0000)));
        assert_eq!(tiny.take(8192), None);
        assert_eq!(tiny.take(4096), Some(Iova(0x1_1000)));
        assert_eq!(tiny.take(1), None);
        assert_eq!(IovaSpace::new(vec![IovaRange { start: 5, last: 1 }], 0).take(1), None);
        assert_eq!(space().take(u64::MAX), None);
    }
}
