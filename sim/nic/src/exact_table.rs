//! The exact-match table: a hash table of buckets with a few ways each, searched under every programmed key profile
//! (datasheet 6.3).
//!
//! ```text
//!   bucket = low bits of CRC-32C(profile, those 8-byte words of key & mask where mask is not zero)
//!   slots: [table 0: [bucket 0: way 0 | way 1 | ...][bucket 1: ...]][table 1: ...]
//! ```
//!
//! With two choices a second bucket follows from other bits of the same CRC, and the emptier of the two takes the entry. A key whose
//! buckets are full is refused, however empty the rest of the table is. There is no moving of entries. Key profile p lies
//! in table p mod banks; each table is a stage of its own.
//!
//! Behavioural: search and insertion are done at once, by the hash and buckets of real hardware, so that what fits is what would fit; the
//! stage around the table ([`crate::pipeline`]) and the command engine have the timing.

use simnic_defs::entry::key_defect;
use simnic_defs::{CmdStatus, KEY_BYTES, KeyBytes};

use crate::config::ExactConfig;
use crate::crc;
use crate::slots::Slots;
use crate::tables::{Entry, Refusal, bad_key};

#[derive(Clone)]
struct What {
    key: KeyBytes,
    profile: u8,
}

kernel::state!(struct What { key, profile });

#[derive(Clone)]
struct Profile {
    mask: KeyBytes,
    /// Which groups of eight bytes it does not leave out.
    words: Vec<u8>,
    entries: u32,
}

kernel::state!(struct Profile { mask, words, entries });

#[derive(Clone)]
pub(crate) struct ExactTable {
    slots: Slots<What>,
    /// Hash of the entry in each slot, 0 when empty: spares the lookup most comparisons.
    tags: Vec<u32>,
    ways: usize,
    /// Of the buckets of one table.
    bucket_mask: u32,
    /// Entries of one table.
    per_bank: usize,
    banks: usize,
    two_choices: bool,
    profiles: Vec<Option<Profile>>,
}

kernel::state!(struct ExactTable {
    slots, tags: sized, ways: fixed, bucket_mask: fixed, per_bank: fixed, banks: fixed,
    two_choices: fixed, profiles: sized,
});

/// The buckets that a lookup reads, by their numbers in the whole table.
pub(crate) type Probed = [u32; 16];

/// What a lookup in one table found.
pub(crate) struct Found {
    /// Slot of the first entry that matches.
    pub slot: Option<usize>,
    /// Profiles probed.
    pub probes: u32,
    /// Buckets read, and how many of them there are.
    pub buckets: Probed,
    pub read: usize,
}

/// The hash that says which bucket a key lies in.
#[inline]
fn bucket_hash(profile: u8, key: &KeyBytes, words: &[u8]) -> u32 {
    let mut c = crc::update(!0, &[profile]);
    for w in words {
        let at = usize::from(*w) * 8;
        c = crc::update(c, key.get(at..at + 8).unwrap_or(&[]));
    }
    !c
}

/// The bits of a key that a mask leaves, which has none but in these words.
#[inline]
fn masked_words(key: &KeyBytes, mask: &KeyBytes, words: &[u8]) -> KeyBytes {
    let mut out = [0; KEY_BYTES];
    for w in words {
        let at = usize::from(*w) * 8;
        for i in at..(at + 8).min(KEY_BYTES) {
            out[i] = key[i] & mask[i];
        }
    }
    out
}

/// Another hash from the bits of the first.
fn second(hash: u32) -> u32 {
    let x = (hash ^ hash >> 15).wrapping_mul(0x85eb_ca6b);
    let x = (x ^ x >> 13).wrapping_mul(0xc2b2_ae35);
    x ^ x >> 16
}

impl ExactTable {
    pub fn new(c: &ExactConfig) -> Self {
        let n = 1usize << c.log2_entries;
        let (ways, banks) = (usize::from(c.ways), usize::from(c.banks));
        let per_bank = n / banks;
        ExactTable {
            slots: Slots::new(n),
            tags: vec![0; n],
            ways,
            bucket_mask: (per_bank / ways - 1) as u32,
            per_bank,
            banks,
            two_choices: c.choices == 2,
            profiles: (0..c.profiles).map(|_| None).collect(),
        }
    }

    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    pub fn entries(&self) -> usize {
        self.slots.held()
    }

    /// First slots of the buckets that a key with `hash` may be in.
    fn buckets(&self, profile: u8, hash: u32) -> impl Iterator<Item = usize> + use<> {
        let base = usize::from(profile) % self.banks * self.per_bank;
        let (mask, ways) = (self.bucket_mask, self.ways);
        let at = move |h: u32| base + (h & mask) as usize * ways;
        let other = self.two_choices.then(|| at(second(hash)));
        std::iter::once(at(hash)).chain(other.filter(move |o| *o != at(hash)))
    }

    fn find(&self, profile: u8, key: &KeyBytes, hash: u32) -> Option<usize> {
        let is_it = |i: &usize| {
            self.tags[*i] == hash | 1
                && self.slots.at(*i).is_some_and(|h| h.what.profile == profile && h.what.key == *key)
        };
        self.buckets(profile, hash).find_map(|first| (first..first + self.ways).find(is_it))
    }

    /// Searches table `bank` under its programmed profiles, in order of their numbers.
    pub fn lookup(&self, bank: usize, key: &KeyBytes) -> Found {
        let mut f = Found { slot: None, probes: 0, buckets: [0; 16], read: 0 };
        for (i, p) in self.profiles.iter().enumerate().skip(bank).step_by(self.banks) {
            let Some(p) = p else { continue };
            f.probes += 1;
            if p.entries == 0 {
                continue;
            }
            let k = masked_words(key, &p.mask, &p.words);
            let hash = bucket_hash(i as u8, &k, &p.words);
            for first in self.buckets(i as u8, hash) {
                if let Some(b) = f.buckets.get_mut(f.read) {
                    *b = (first / self.ways) as u32;
                    f.read += 1;
                }
            }
            f.slot = self.find(i as u8, &k, hash);
            if f.slot.is_some() {
                break;
            }
        }
        f
    }

    pub fn entry_at_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        self.slots.entry_mut(slot)
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
        let words = (0..KEY_BYTES / 8).filter(|w| mask[w * 8..w * 8 + 8].iter().any(|b| *b != 0));
        *p = Some(Profile { mask: *mask, words: words.map(|w| w as u8).collect(), entries: 0 });
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

    pub fn install(&mut self, profile: u8, key: &KeyBytes, entry: Entry) -> Result<u32, Refusal> {
        let p = self.profiles.get(usize::from(profile)).and_then(Option::as_ref);
        let p = p.ok_or(CmdStatus::BadProfile)?;
        bad_key(key_defect(key, &p.mask))?;
        let hash = bucket_hash(profile, key, &p.words);
        if let Some(i) = self.find(profile, key, hash) {
            return Err(self.slots.exists(i));
        }
        let held = |first: &usize| (*first..*first + self.ways).filter(|i| self.slots.is_held(*i)).count();
        // The first of equals: min_by_key says so.
        let first = self.buckets(profile, hash).min_by_key(held).ok_or(CmdStatus::BucketFull)?;
        let free = (first..first + self.ways).find(|i| !self.slots.is_held(*i));
        let slot = free.ok_or(CmdStatus::BucketFull)?;
        let name = self.slots.put(slot, entry, What { key: *key, profile });
        // Tag and hash agree in all bits but the lowest, which says that the slot is taken.
        self.tags[slot] = hash | 1;
        if let Some(p) = self.profiles[usize::from(profile)].as_mut() {
            p.entries += 1;
        }
        Ok(name)
    }

    pub fn key_of(&self, name: u32) -> Option<&KeyBytes> {
        self.slots.get(name).map(|h| &h.what.key)
    }

    /// No lookup finds the entry in `slot` any more; false when there is none.
    pub fn spoil(&mut self, slot: usize) -> bool {
        let there = self.slots.is_held(slot);
        if there {
            // No tag is zero.
            self.tags[slot] = 0;
        }
        there
    }

    /// Writes an entry again, so that lookups find it.
    pub fn heal(&mut self, name: u32) {
        if let Some(slot) = self.slots.named(name)
            && let Some(h) = self.slots.at(slot)
            && let Some(Some(p)) = self.profiles.get(usize::from(h.what.profile))
        {
            self.tags[slot] = bucket_hash(h.what.profile, &h.what.key, &p.words) | 1;
        }
    }

    /// Key profile of an entry.
    pub fn profile_of(&self, name: u32) -> Option<u8> {
        self.slots.get(name).map(|h| h.what.profile)
    }

    pub fn get(&self, name: u32) -> Option<&Entry> {
        self.slots.get(name).map(|h| &h.entry)
    }

    pub fn get_mut(&mut self, name: u32) -> Option<&mut Entry> {
        self.slots.get_mut(name)
    }

    pub fn remove(&mut self, name: u32) -> Option<Entry> {
        let slot = self.slots.named(name)?;
        self.take(slot)
    }

    fn take(&mut self, slot: usize) -> Option<Entry> {
        let h = self.slots.take(slot)?;
        self.tags[slot] = 0;
        if let Some(p) = self.profiles[usize::from(h.what.profile)].as_mut() {
            p.entries -= 1;
        }
        Some(h.entry)
    }

    pub fn flush(&mut self) -> usize {
        let n = self.slots.held();
        if n > 0 {
            for i in 0..self.slots.len() {
                self.take(i);
            }
        }
        n
    }

    /// Entry, key and profile in `slot`.
    pub fn at(&self, slot: usize) -> Option<(&Entry, &KeyBytes, u8)> {
        self.slots.at(slot).map(|h| (&h.entry, &h.what.key, h.what.profile))
    }
}
