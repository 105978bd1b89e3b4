//! The longest-prefix table: IPv4 destinations by prefix, the rest of the key whole or not at all (datasheet 6.3).
//!
//! ```text
//!   key profile ─► template over all but the destination ─► one hash table for each prefix length in use, longest first
//! ```
//!
//! Behavioural: one hash table for each length (Waldvogel et al., "Scalable High Speed IP Routing Lookups", SIGCOMM 1997, without the
//! binary search over lengths). The stage around it has the timing.

use std::collections::HashMap;

use simnic_defs::entry::{key, key_defect};
use simnic_defs::{CmdStatus, KEY_BYTES, KeyBytes};

use crate::slots::{Slots, masked};
use crate::tables::{Entry, Refusal, bad_key};

#[derive(Clone)]
struct What {
    key: KeyBytes,
    mask: KeyBytes,
    profile: u8,
}

kernel::state!(struct What { key, mask, profile });

#[derive(Clone)]
struct Profile {
    template: KeyBytes,
    entries: usize,
    /// Slots by key, for each mask; longest prefix first.
    lengths: Vec<(KeyBytes, HashMap<KeyBytes, u32>)>,
}

kernel::state!(struct Profile { template, entries, lengths });

#[derive(Clone)]
pub(crate) struct LpmTable {
    slots: Slots<What>,
    profiles: Vec<Option<Profile>>,
}

kernel::state!(struct LpmTable { slots, profiles: sized });

/// The destination's bits of a mask.
fn prefix_of(mask: &KeyBytes) -> u32 {
    mask[key::IP4_DST].iter().fold(0, |v, b| v << 8 | u32::from(*b))
}

impl LpmTable {
    pub fn new(entries: u16, profiles: u8) -> Self {
        LpmTable { slots: Slots::new(usize::from(entries)), profiles: (0..profiles).map(|_| None).collect() }
    }

    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn entries(&self) -> usize {
        self.slots.held()
    }

    /// Profiles that are programmed.
    pub fn programmed(&self) -> u64 {
        self.profiles.iter().flatten().count() as u64
    }

    /// The slot of the first profile's longest prefix that covers `k`.
    pub fn lookup(&self, k: &KeyBytes) -> Option<usize> {
        let profiles = self.profiles.iter().flatten().filter(|p| p.entries > 0);
        let mut lengths = profiles.flat_map(|p| p.lengths.iter());
        lengths.find_map(|(mask, slots)| slots.get(&masked(k, mask)).map(|s| *s as usize))
    }

    pub fn entry_at_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        self.slots.entry_mut(slot)
    }

    /// Programs the template of a profile: which bits of all but the destination its entries match.
    pub fn set_profile(&mut self, profile: u8, template: &KeyBytes) -> Result<(), Refusal> {
        let p = self.profiles.get_mut(usize::from(profile)).ok_or(CmdStatus::BadProfile)?;
        if p.as_ref().is_some_and(|p| p.entries > 0) {
            return Err(CmdStatus::ProfileBusy.into());
        }
        bad_key(key_defect(&[0; KEY_BYTES], template))?;
        bad_key(key::IP4_DST.into_iter().find(|i| template[*i] != 0))?;
        *p = Some(Profile { template: *template, entries: 0, lengths: Vec::new() });
        Ok(())
    }

    pub fn clear_profile(&mut self, profile: u8) -> Result<(), Refusal> {
        let p = self.profiles.get_mut(usize::from(profile)).ok_or(CmdStatus::BadProfile)?;
        match p {
            Some(x) if x.entries > 0 => Err(CmdStatus::ProfileBusy.into()),
            Some(_) => {
                *p = None;
                Ok(())
            }
            None => Err(CmdStatus::BadProfile.into()),
        }
    }

    pub fn clear_profiles(&mut self) {
        self.profiles.iter_mut().for_each(|p| *p = None);
    }

    pub fn install(
        &mut self,
        profile: u8,
        k: &KeyBytes,
        mask: &KeyBytes,
        entry: Entry,
    ) -> Result<u32, Refusal> {
        let p = self.profiles.get_mut(usize::from(profile)).and_then(Option::as_mut);
        let p = p.ok_or(CmdStatus::BadProfile)?;
        bad_key(key_defect(k, mask))?;
        let other = |i: &usize| !key::IP4_DST.contains(i) && mask[*i] != p.template[*i];
        bad_key((0..KEY_BYTES).find(other))?;
        let prefix = prefix_of(mask);
        if prefix.leading_ones() != prefix.count_ones() {
            return Err(Refusal { status: CmdStatus::BadKey, detail: key::IP4_DST.start as u32, entry: 0 });
        }
        let at = match p.lengths.iter().position(|(m, _)| m == mask) {
            Some(at) => at,
            None => {
                let at = p.lengths.partition_point(|(m, _)| prefix_of(m) > prefix);
                p.lengths.insert(at, (*mask, HashMap::new()));
                at
            }
        };
        if let Some(slot) = p.lengths[at].1.get(k) {
            return Err(self.slots.exists(*slot as usize));
        }
        let slot = self.slots.free()?;
        p.lengths[at].1.insert(*k, slot as u32);
        p.entries += 1;
        Ok(self.slots.put(slot, entry, What { key: *k, mask: *mask, profile }))
    }

    pub fn key_of(&self, name: u32) -> Option<(KeyBytes, KeyBytes)> {
        self.slots.get(name).map(|h| (h.what.key, h.what.mask))
    }

    pub fn get(&self, name: u32) -> Option<&Entry> {
        self.slots.get(name).map(|h| &h.entry)
    }

    pub fn get_mut(&mut self, name: u32) -> Option<&mut Entry> {
        self.slots.get_mut(name)
    }

    /// No lookup finds the entry in `slot` any more; false when there is none.
    pub fn spoil(&mut self, slot: usize) -> bool {
        let Some(h) = self.slots.at(slot) else { return false };
        if let Some(Some(p)) = self.profiles.get_mut(usize::from(h.what.profile))
            && let Some((_, keys)) = p.lengths.iter_mut().find(|(m, _)| *m == h.what.mask)
        {
            keys.remove(&h.what.key);
        }
        true
    }

    /// Writes an entry again, so that lookups find it.
    pub fn heal(&mut self, name: u32) {
        if let Some(slot) = self.slots.named(name)
            && let Some(h) = self.slots.at(slot)
            && let Some(Some(p)) = self.profiles.get_mut(usize::from(h.what.profile))
            && let Some((_, keys)) = p.lengths.iter_mut().find(|(m, _)| *m == h.what.mask)
        {
            keys.insert(h.what.key, slot as u32);
        }
    }

    pub fn remove(&mut self, name: u32) -> Option<Entry> {
        let slot = self.slots.named(name)?;
        self.spoil(slot);
        let h = self.slots.take(slot)?;
        if let Some(Some(p)) = self.profiles.get_mut(usize::from(h.what.profile)) {
            p.entries -= 1;
            if p.entries == 0 {
                p.lengths.clear();
            }
        }
        Some(h.entry)
    }

    pub fn flush(&mut self) -> usize {
        for p in self.profiles.iter_mut().flatten() {
            (p.entries, p.lengths) = (0, Vec::new());
        }
        self.slots.clear()
    }

    /// Entry, key, mask and profile in `slot`.
    pub fn at(&self, slot: usize) -> Option<(&Entry, KeyBytes, KeyBytes, u8)> {
        self.slots.at(slot).map(|h| (&h.entry, h.what.key, h.what.mask, h.what.profile))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernel::Rng;

    fn rule(dst: u32, bits: u32) -> (KeyBytes, KeyBytes) {
        let prefix = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
        let (mut k, mut m) = crate::raw_host::key_of(&[(key::ETH_TYPE, &[8, 0])]);
        k[key::IP4_DST].copy_from_slice(&(dst & prefix).to_be_bytes());
        m[key::IP4_DST].copy_from_slice(&prefix.to_be_bytes());
        (k, m)
    }

    fn table() -> LpmTable {
        let mut t = LpmTable::new(512, 2);
        t.set_profile(1, &crate::raw_host::key_of(&[(key::ETH_TYPE, &[0; 2])]).1).unwrap();
        t
    }

    #[test]
    fn the_longest_prefix_wins_as_a_search_through_all_says_it_does() {
        let (mut t, mut r) = (table(), Rng::new(5));
        let mut all: Vec<(u32, u32, u32)> = Vec::new();
        for _ in 0..3000 {
            // Few addresses, so that prefixes nest.
            let (dst, bits) = ((r.below(1 << 12) as u32).wrapping_mul(0x0010_0101), r.below(33) as u32);
            let (k, m) = rule(dst, bits);
            let value = u32::from_be_bytes(*k[key::IP4_DST].first_chunk().unwrap());
            match (t.install(1, &k, &m, Entry::empty()), all.iter().find(|e| (e.0, e.1) == (value, bits))) {
                (Ok(name), None) => all.push((value, bits, name)),
                (Err(x), Some(e)) => assert_eq!((x.status, x.entry), (CmdStatus::Exists, e.2)),
                (Err(x), None) => assert_eq!((x.status, all.len()), (CmdStatus::TableFull, 512)),
                (Ok(_), Some(_)) => panic!("a key twice"),
            }
            if all.len() == 512 || r.below(4) == 0 && !all.is_empty() {
                let (_, _, name) = all.swap_remove(r.below(all.len() as u64) as usize);
                assert!(t.remove(name).is_some() && t.remove(name).is_none());
            }
            let probe = (r.below(1 << 12) as u32).wrapping_mul(0x0010_0101) ^ r.below(3) as u32;
            let want = all.iter().filter(|(v, b, _)| rule(probe, *b).0 == rule(*v, *b).0);
            let want = want.max_by_key(|(_, b, _)| *b).map(|e| e.2);
            let found = t.lookup(&rule(probe, 32).0).map(|s| t.at(s).unwrap().0.name);
            assert_eq!(found, want, "{probe:#x} of {all:?}");
            assert_eq!(t.entries(), all.len());
        }
    }

    #[test]
    fn what_is_no_prefix_or_not_of_the_profile_is_refused_at_its_byte() {
        let mut t = table();
        let (k, mut m) = rule(0, 8);
        m[key::IP4_DST.start + 1] = 1;
        let e = t.install(1, &k, &m, Entry::empty()).unwrap_err();
        assert_eq!((e.status, e.detail), (CmdStatus::BadKey, 40));
        let (k, mut m) = rule(0, 8);
        m[key::ETH_DST.start] = 1;
        let e = t.install(1, &k, &m, Entry::empty()).unwrap_err();
        assert_eq!((e.status, e.detail), (CmdStatus::BadKey, 4));
        assert_eq!(t.install(0, &k, &m, Entry::empty()).unwrap_err().status, CmdStatus::BadProfile);
        let e = t.set_profile(0, &m).unwrap_err();
        assert_eq!((e.status, e.detail), (CmdStatus::BadKey, 40), "the destination is not the template's");
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_found_again_once_it_is_written() {
        let mut t = table();
        let (k, m) = rule(0x0a00_0000, 8);
        let name = t.install(1, &k, &m, Entry::empty()).unwrap();
        assert!(t.spoil(0) && !t.spoil(1));
        assert_eq!(t.lookup(&k), None);
        t.heal(name);
        assert_eq!(t.lookup(&k), Some(0));
    }
}
