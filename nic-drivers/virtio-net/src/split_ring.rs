//! A split ring (VIRTIO 1.2, 2.7).

use std::sync::atomic::{Ordering, fence};

use device::{DmaMemory, Iova};
use virtio_net_defs::split::{
    AVAIL_NO_INTERRUPT, DESC_BYTES, DESC_WRITE, Layout, USED_NO_NOTIFY, descriptor_words, passes,
};

use crate::ring::{Ids, Ring, Used, Writer};

/// See the module's text. Indexes are 16 bits and free-running.
pub(crate) struct SplitRing {
    mem: DmaMemory,
    iova: Iova,
    size: u16,
    event_idx: bool,
    at: Layout,
    ids: Ids,
    /// Next entry of the available ring, and the first that the device has not been shown.
    posted: u16,
    shown: u16,
    /// Next entry of the used ring, and the last index of the device's that was read.
    consumed: u16,
    used_seen: u16,
    /// Flags of the available ring.
    flags: u16,
}

impl SplitRing {
    #[inline(always)]
    fn slot(&self, index: u16) -> usize {
        usize::from(index & (self.size - 1))
    }

    /// Flags and index are one word: what was written before is seen before.
    #[inline]
    fn write_index(&self) {
        self.mem.store32(self.at.avail, u32::from(self.flags) | u32::from(self.posted) << 16);
    }
}

impl Ring for SplitRing {
    fn bytes(size: u16) -> usize {
        Layout::of(size).bytes
    }

    fn new((mem, iova): (DmaMemory, Iova), size: u16, event_idx: bool) -> Self {
        SplitRing {
            mem,
            iova,
            size,
            event_idx,
            at: Layout::of(size),
            ids: Ids::new(size),
            posted: 0,
            shown: 0,
            consumed: 0,
            used_seen: 0,
            flags: 0,
        }
    }

    fn clear(&mut self) {
        self.mem.fill(0, self.at.bytes, 0);
        self.ids.reset(self.size);
        (self.posted, self.shown, self.consumed, self.used_seen) = (0, 0, 0, 0);
        self.disarm();
    }

    fn areas(&self) -> [u64; 3] {
        [0, self.at.avail, self.at.used].map(|at| self.iova.offset(at).0)
    }

    fn size(&self) -> u16 {
        self.size
    }

    #[inline]
    fn room(&self) -> u16 {
        self.ids.len()
    }

    #[inline(always)]
    fn post(&mut self, addr: u64, len: u32, writer: Writer) -> u16 {
        let id = self.ids.take();
        let flags = if writer == Writer::Device { DESC_WRITE } else { 0 };
        let (low, high) = descriptor_words(addr, len, flags, 0);
        let d = usize::from(id) * DESC_BYTES;
        self.mem.store64(d, low.to_le());
        self.mem.store64(d + 8, high.to_le());
        self.mem.store16(self.at.avail + 4 + 2 * self.slot(self.posted), id.to_le());
        self.posted = self.posted.wrapping_add(1);
        id
    }

    #[inline]
    fn publish(&mut self) -> bool {
        let (old, new) = (self.shown, self.posted);
        if old == new {
            return false;
        }
        self.write_index();
        self.shown = new;
        // Whether the device waits is read after it can see what there is.
        fence(Ordering::SeqCst);
        if self.event_idx {
            passes(self.mem.load32(self.at.avail_event) as u16, new, old)
        } else {
            self.mem.load32(self.at.used) as u16 & USED_NO_NOTIFY == 0
        }
    }

    #[inline]
    fn has_used(&mut self) -> bool {
        if self.consumed == self.used_seen {
            // Acquire: entries and frames are read after the index.
            self.used_seen = (self.mem.load32(self.at.used) >> 16) as u16;
        }
        // What is not outstanding cannot have been used, whatever the index says.
        self.consumed != self.used_seen && self.ids.len() < self.size
    }

    #[inline(always)]
    fn next(&mut self) -> Option<Used> {
        if !self.has_used() {
            return None;
        }
        let at = self.at.used + 4 + 8 * self.slot(self.consumed);
        self.consumed = self.consumed.wrapping_add(1);
        let mut entry = [0; 8];
        self.mem.read(at, &mut entry);
        let entry = u64::from_le_bytes(entry);
        Some(Used { id: entry as u32, len: (entry >> 32) as u32 })
    }

    #[inline]
    fn mark(&self) -> u32 {
        self.consumed.into()
    }

    fn is_used_at(mem: &DmaMemory, size: u16, mark: u32) -> bool {
        mem.load32(Layout::of(size).used) >> 16 != mark
    }

    #[inline]
    fn free(&mut self, id: u16) {
        self.ids.give(id);
    }

    fn arm(&mut self) {
        if self.event_idx {
            self.mem.store32(self.at.used_event, self.consumed.into());
        } else {
            self.flags = 0;
            self.write_index();
        }
        fence(Ordering::SeqCst);
    }

    fn disarm(&mut self) {
        if self.event_idx {
            // The one that was passed last is not passed again for a whole round.
            self.mem.store32(self.at.used_event, self.consumed.wrapping_sub(1).into());
        } else {
            self.flags = AVAIL_NO_INTERRUPT;
            self.write_index();
        }
    }
}
