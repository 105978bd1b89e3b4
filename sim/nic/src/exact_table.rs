//! The exact-match table: a hash table of buckets with a few ways each, searched under every programmed key profile
//! (datasheet 6.3).
//!
//! ```text
//!   bucket = low bits of CRC-32C(profile, key & mask)
//!   slots: [bucket 0: way 0 | way 1 | ...][bucket 1: ...]
//! ```
//!
//! A key whose bucket is full is refused, however empty the rest of the table is. There is no moving of entries.

use simnic_defs::entry::key_defect;
use simnic_defs::{CmdStatus, KEY_BYTES, KeyBytes};

use crate::crc;
use crate::tables::{Entry, Refusal, bad_key, entry_name, slot_of_name};

struct Slot {
    entry: Entry,
    key: KeyBytes,
    profile: u8,
}

struct Profile {
    mask: KeyBytes,
    entries: u32,
}

pub(crate) struct ExactTable {
    slots: Vec<Option<Box<Slot>>>,
    /// Hash of the entry in each slot, 0 when empty: spares the lookup most comparisons.
    tags: Vec<u32>,
    uses: Vec<u16>,
    ways: usize,
    bucket_mask: u32,
    profiles: Vec<Option<Profile>>,
    entries: usize,
}

fn masked(k: &KeyBytes, mask: &KeyBytes) -> KeyBytes {
    let mut o = [0; KEY_BYTES];
    for ((o, k), m) in o.iter_mut().zip(k).zip(mask) {
        *o = k & m;
    }
    o
}

impl ExactTable {
    pub fn new(log2_entries: u8, ways: u8, profiles: u8) -> Self {
        let n = 1usize << log2_entries;
        let ways = usize::from(ways);
        ExactTable {
            slots: (0..n).map(|_| None).collect(),
            tags: vec![0; n],
            uses: vec![0; n],
            ways,
            bucket_mask: (n / ways - 1) as u32,
            profiles: (0..profiles).map(|_| None).collect(),
            entries: 0,
        }
    }

    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn entries(&self) -> usize {
        self.entries
    }

    fn find(&self, profile: u8, key: &KeyBytes, hash: u32) -> Option<usize> {
        let first = (hash & self.bucket_mask) as usize * self.ways;
        (first..first + self.ways).find(|i| {
            self.tags[*i] == hash | 1
                && self.slots[*i].as_ref().is_some_and(|s| s.profile == profile && s.key == *key)
        })
    }

    /// The slot of the first entry that matches, and how many profiles were probed.
    pub fn lookup(&self, key: &KeyBytes) -> (Option<usize>, u32) {
        let mut probes = 0;
        for (i, p) in self.profiles.iter().enumerate() {
            let Some(p) = p else { continue };
            probes += 1;
            if p.entries == 0 {
                continue;
            }
            let k = masked(key, &p.mask);
            let hash = crc::bucket_hash(i as u8, &k);
            if let Some(slot) = self.find(i as u8, &k, hash) {
                return (Some(slot), probes);
            }
        }
        (None, probes)
    }

    pub fn entry_at_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        self.slots.get_mut(slot)?.as_mut().map(|s| &mut s.entry)
    }

    pub fn set_profile(&mut self, profile: u8, mask: &KeyBytes) -> Result<(), Refusal> {
        let p = self.profiles.get_mut(usize::from(profile)).ok_or(CmdStatus::BadProfile)?;
        if p.as_ref().is_some_and(|p| p.entries > 0) {
            return Err(CmdStatus::ProfileBusy.into());
        }
        bad_key(key_defect(&[0; KEY_BYTES], mask))?;
        if mask.iter().all(|b| *b == 0) {
            return Err(CmdStatus::BadKey.into());
        }
        *p = Some(Profile { mask: *mask, entries: 0 });
        Ok(())
    }

    pub fn clear_profile(&mut self, profile: u8) -> Result<(), Refusal> {
        let p = self.profiles.get_mut(usize::from(profile)).ok_or(CmdStatus::BadProfile)?;
        match p {
            None => Err(CmdStatus::BadProfile.into()),
            Some(x) if x.entries > 0 => Err(CmdStatus::ProfileBusy.into()),
            Some(_) => {
                *p = None;
                Ok(())
            }
        }
    }

    pub fn clear_profiles(&mut self) {
        self.profiles.iter_mut().for_each(|p| *p = None);
    }

    pub fn install(&mut self, profile: u8, key: &KeyBytes, mut entry: Entry) -> Result<u32, Refusal> {
        let p = self.profiles.get(usize::from(profile)).and_then(Option::as_ref);
        let p = p.ok_or(CmdStatus::BadProfile)?;
        bad_key(key_defect(key, &p.mask))?;
        let hash = crc::bucket_hash(profile, key);
        if let Some(i) = self.find(profile, key, hash) {
            let entry = self.slots[i].as_ref().map_or(0, |s| s.entry.name);
            return Err(Refusal { status: CmdStatus::Exists, detail: 0, entry });
        }
        let first = (hash & self.bucket_mask) as usize * self.ways;
        let free = (first..first + self.ways).find(|i| self.slots[*i].is_none());
        let slot = free.ok_or(CmdStatus::BucketFull)?;
        self.uses[slot] = self.uses[slot].wrapping_add(1);
        entry.name = entry_name(slot, self.uses[slot].into());
        let name = entry.name;
        self.slots[slot] = Some(Box::new(Slot { entry, key: *key, profile }));
        // Tag and hash agree in all bits but the lowest, which says that the slot is taken.
        self.tags[slot] = hash | 1;
        self.entries += 1;
        if let Some(p) = self.profiles[usize::from(profile)].as_mut() {
            p.entries += 1;
        }
        Ok(name)
    }

    fn named(&self, name: u32) -> Option<usize> {
        let slot = slot_of_name(name);
        self.slots.get(slot)?.as_ref().filter(|s| s.entry.name == name).map(|_| slot)
    }

    pub fn key_of(&self, name: u32) -> Option<&KeyBytes> {
        let slot = self.named(name)?;
        self.slots[slot].as_ref().map(|s| &s.key)
    }

    pub fn get_mut(&mut self, name: u32) -> Option<&mut Entry> {
        let slot = self.named(name)?;
        self.entry_at_mut(slot)
    }

    pub fn remove(&mut self, name: u32) -> Option<Entry> {
        let slot = self.named(name)?;
        self.take(slot)
    }

    fn take(&mut self, slot: usize) -> Option<Entry> {
        let s = self.slots[slot].take()?;
        self.tags[slot] = 0;
        self.entries -= 1;
        if let Some(p) = self.profiles[usize::from(s.profile)].as_mut() {
            p.entries -= 1;
        }
        Some(s.entry)
    }

    pub fn flush(&mut self) -> usize {
        let n = self.entries;
        if n > 0 {
            for i in 0..self.slots.len() {
                self.take(i);
            }
        }
        n
    }

    /// Entry, key and profile in `slot`.
    pub fn at(&self, slot: usize) -> Option<(&Entry, &KeyBytes, u8)> {
        self.slots.get(slot)?.as_ref().map(|s| (&s.entry, &s.key, s.profile))
    }
}
