//! A packed ring (VIRTIO 1.2, 2.8).

use std::sync::atomic::{Ordering, fence};

use device::{DmaMemory, Iova};
use virtio_net_defs::packed::{
    DESC_BYTES, DESC_LEN, DESC_WORD, EVENT_DESC, EVENT_DISABLE, EVENT_ENABLE, Layout, WRITE, available,
    event, is_used,
};
use virtio_net_defs::split::passes;

use crate::ring::{Ids, Ring, Used, Writer};

/// A place in the ring: the descriptor, and the wrap counter of this round.
#[derive(Clone, Copy)]
struct Place {
    at: u16,
    wrap: bool,
}

impl Place {
    const START: Place = Place { at: 0, wrap: true };

    #[inline]
    fn advance(&mut self, size: u16) {
        self.at += 1;
        if self.at == size {
            (self.at, self.wrap) = (0, !self.wrap);
        }
    }
}

/// See the module's text.
pub(crate) struct PackedRing {
    mem: DmaMemory,
    iova: Iova,
    size: u16,
    event_idx: bool,
    at: Layout,
    ids: Ids,
    posted: Place,
    consumed: Place,
    /// Posted since the last [`Ring::publish`].
    fresh: u16,
}

/// Length, id and flags as the second word of a descriptor.
#[inline]
const fn second_word(len: u32, id: u16, flags: u16) -> u64 {
    len as u64 | (id as u64) << 32 | (flags as u64) << 48
}

impl PackedRing {
    /// The second word of the next descriptor, when the device has used it.
    #[inline(always)]
    fn used(&self) -> Option<u64> {
        // One load: length and id were written before the flags that it sees (2.8.6). Acquire: the frame is read after them.
        let word = u64::from_le(self.mem.load64(usize::from(self.consumed.at) * DESC_BYTES + DESC_LEN));
        // What is not outstanding cannot have been used.
        (is_used((word >> 48) as u16, self.consumed.wrap) && self.ids.len() < self.size).then_some(word)
    }
}

impl Ring for PackedRing {
    fn bytes(size: u16) -> usize {
        Layout::of(size).bytes
    }

    fn new((mem, iova): (DmaMemory, Iova), size: u16, event_idx: bool) -> Self {
        PackedRing {
            mem,
            iova,
            size,
            event_idx,
            at: Layout::of(size),
            ids: Ids::new(size),
            posted: Place::START,
            consumed: Place::START,
            fresh: 0,
        }
    }

    fn clear(&mut self) {
        self.mem.fill(0, self.at.bytes, 0);
        self.ids.reset(self.size);
        (self.posted, self.consumed, self.fresh) = (Place::START, Place::START, 0);
        self.disarm();
    }

    fn areas(&self) -> [u64; 3] {
        [0, self.at.driver_event, self.at.device_event].map(|at| self.iova.offset(at).0)
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
        let d = usize::from(self.posted.at) * DESC_BYTES;
        let flags = available(self.posted.wrap) | if writer == Writer::Device { WRITE } else { 0 };
        self.mem.store64(d, addr.to_le());
        // Release: the device may take it from here on.
        self.mem.store64(d + DESC_LEN, second_word(len, id, flags).to_le());
        self.posted.advance(self.size);
        self.fresh += 1;
        id
    }

    #[inline]
    fn publish(&mut self) -> bool {
        let fresh = std::mem::take(&mut self.fresh);
        if fresh == 0 {
            return false;
        }
        // Whether the device waits is read after it can see what there is.
        fence(Ordering::SeqCst);
        let word = self.mem.load32(self.at.device_event);
        match (word >> 16) as u16 & 3 {
            EVENT_DISABLE => false,
            EVENT_DESC if self.event_idx => {
                let (mut at, wrap) = (word as u16 & 0x7fff, word & 0x8000 != 0);
                if wrap != self.posted.wrap {
                    at = at.wrapping_sub(self.size);
                }
                passes(at, self.posted.at, self.posted.at.wrapping_sub(fresh))
            }
            _ => true,
        }
    }

    #[inline]
    fn has_used(&mut self) -> bool {
        self.used().is_some()
    }

    #[inline(always)]
    fn next(&mut self) -> Option<Used> {
        let word = self.used()?;
        self.consumed.advance(self.size);
        Some(Used { id: (word >> 32) as u32 & 0xffff, len: word as u32 })
    }

    #[inline]
    fn mark(&self) -> u32 {
        u32::from(self.consumed.at) | u32::from(self.consumed.wrap) << 16
    }

    fn is_used_at(mem: &DmaMemory, size: u16, mark: u32) -> bool {
        let at = usize::from(mark as u16 & (size - 1)) * DESC_BYTES + DESC_WORD;
        is_used((mem.load32(at) >> 16) as u16, mark >> 16 != 0)
    }

    #[inline]
    fn free(&mut self, id: u16) {
        self.ids.give(id);
    }

    fn arm(&mut self) {
        let flags = if self.event_idx { EVENT_DESC } else { EVENT_ENABLE };
        self.mem.store32(self.at.driver_event, event(self.consumed.at, self.consumed.wrap, flags));
        fence(Ordering::SeqCst);
    }

    fn disarm(&mut self) {
        self.mem.store32(self.at.driver_event, event(0, false, EVENT_DISABLE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(size: u16) -> PackedRing {
        let mem = DmaMemory::new(PackedRing::bytes(size)).unwrap();
        let mut r = PackedRing::new((mem, Iova(0x1000)), size, true);
        r.clear();
        r
    }

    #[test]
    fn the_device_is_told_when_its_position_is_passed_also_round_the_end() {
        let mut r = ring(4);
        r.mem.store32(r.at.device_event, event(1, true, EVENT_DESC));
        let post = |r: &mut PackedRing| r.post(0, 64, Writer::Driver);
        post(&mut r);
        assert!(!r.publish(), "position 0");
        post(&mut r);
        assert!(r.publish(), "position 1");
        // 3 and, in the next round, 0.
        post(&mut r);
        r.mem.store32(r.at.device_event, event(0, false, EVENT_DESC));
        post(&mut r);
        assert!(!r.publish());
        for id in 0..4 {
            r.free(id);
        }
        post(&mut r);
        assert!(r.publish());
        r.mem.store32(r.at.device_event, event(0, false, EVENT_DISABLE));
        post(&mut r);
        assert!(!r.publish() && !r.publish());
    }
}
