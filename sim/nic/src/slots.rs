//! What every flow table keeps its entries in: slots, and names by which commands speak of them.
//!
//! Behavioural: bookkeeping that takes no cycles.

use simnic_defs::{CmdStatus, KEY_BYTES, KeyBytes};

use crate::tables::{Entry, Refusal};

/// An entry, and what its table has to know of it.
#[derive(Clone)]
pub(crate) struct Held<T> {
    pub entry: Entry,
    pub what: T,
}

kernel::state!(struct Held<T: kernel::State> { entry, what });

#[derive(Clone)]
pub(crate) struct Slots<T> {
    slots: Vec<Option<Box<Held<T>>>>,
    /// How often each was used.
    uses: Vec<u16>,
    held: usize,
}

kernel::state!(struct Slots<T: kernel::State> { slots: sized, uses: sized, held });

impl<T: Clone> Slots<T> {
    pub fn new(n: usize) -> Self {
        Slots { slots: (0..n).map(|_| None).collect(), uses: vec![0; n], held: 0 }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Slots that hold an entry.
    pub fn held(&self) -> usize {
        self.held
    }

    pub fn is_held(&self, slot: usize) -> bool {
        self.at(slot).is_some()
    }

    #[inline]
    pub fn at(&self, slot: usize) -> Option<&Held<T>> {
        self.slots.get(slot)?.as_deref()
    }

    pub fn entry_mut(&mut self, slot: usize) -> Option<&mut Entry> {
        self.slots.get_mut(slot)?.as_mut().map(|h| &mut h.entry)
    }

    /// The first that holds none.
    ///
    /// # Errors
    /// The table is full.
    pub fn free(&self) -> Result<usize, Refusal> {
        self.slots.iter().position(Option::is_none).ok_or(CmdStatus::TableFull.into())
    }

    /// Puts an entry into a slot, whose name it gets: the slot in the low 20 bits, how often it was used in the upper 12.
    pub fn put(&mut self, slot: usize, mut entry: Entry, what: T) -> u32 {
        self.uses[slot] = self.uses[slot].wrapping_add(1);
        let name = (u32::from(self.uses[slot]) & 0xfff) << 20 | slot as u32 & 0xf_ffff;
        entry.name = name;
        if self.slots[slot].replace(Box::new(Held { entry, what })).is_none() {
            self.held += 1;
        }
        name
    }

    pub fn take(&mut self, slot: usize) -> Option<Held<T>> {
        let h = self.slots.get_mut(slot)?.take()?;
        self.held -= 1;
        Some(*h)
    }

    /// Takes all; how many there were.
    pub fn clear(&mut self) -> usize {
        self.slots.iter_mut().for_each(|s| *s = None);
        std::mem::take(&mut self.held)
    }

    /// The slot of an entry that is still the one of that name.
    pub fn named(&self, name: u32) -> Option<usize> {
        let slot = (name & 0xf_ffff) as usize;
        self.at(slot).filter(|h| h.entry.name == name).map(|_| slot)
    }

    /// An entry by its name.
    pub fn get(&self, name: u32) -> Option<&Held<T>> {
        self.at(self.named(name)?)
    }

    pub fn get_mut(&mut self, name: u32) -> Option<&mut Entry> {
        let slot = self.named(name)?;
        self.entry_mut(slot)
    }

    /// Why there can be none like the one in `slot`.
    pub fn exists(&self, slot: usize) -> Refusal {
        let entry = self.at(slot).map_or(0, |h| h.entry.name);
        Refusal { status: CmdStatus::Exists, detail: 0, entry }
    }
}

/// The bits of a key that a mask leaves.
pub(crate) fn masked(k: &KeyBytes, mask: &KeyBytes) -> KeyBytes {
    let mut o = [0; KEY_BYTES];
    for ((o, k), m) in o.iter_mut().zip(k).zip(mask) {
        *o = k & m;
    }
    o
}
