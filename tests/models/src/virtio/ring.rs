//! A queue from the device's side, split or packed.

use virtio_net_defs::packed::{self, EVENT_DESC, EVENT_DISABLE};
use virtio_net_defs::split::{self, AVAIL_NO_INTERRUPT, passes};

use model_bus::Bus;

/// Longest chain that is followed.
const MAX_CHAIN: usize = 16;

/// A piece of memory in a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where.
    pub addr: u64,
    /// How long, in bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub write: bool,
}

/// Buffers that the driver has made available.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain {
    /// What it is called by when used.
    pub id: u16,
    /// Its memory.
    pub pieces: Vec<Piece>,
}

/// A queue's registers and positions.
#[derive(Clone, Default, Debug)]
pub struct Queue {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    pub(super) desc: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
    /// Next that is available: an index (split), a place and its wrap counter (packed).
    avail: u16,
    avail_wrap: bool,
    /// Next that is used, likewise.
    used: u16,
    used_wrap: bool,
    /// Used since the driver was last told.
    untold: u16,
}

impl Queue {
    pub(super) fn after_reset(size: u16) -> Queue {
        Queue { size, vector: 0xffff, avail_wrap: true, used_wrap: true, ..Queue::default() }
    }

    /// Whether rings are there, in their own words: memory that is not mapped has no buffers.
    fn descriptor(&self, bus: &mut Bus, at: u16) -> ([u8; 16], u64) {
        let iova = self.desc + 16 * u64::from(at);
        (bus.read(iova, 16).try_into().unwrap(), iova)
    }

    /// The next chain that is available.
    pub(super) fn pop(&mut self, bus: &mut Bus, packed: bool, event_idx: bool) -> Option<Chain> {
        if !self.enabled || self.size == 0 {
            return None;
        }
        if packed { self.pop_packed(bus) } else { self.pop_split(bus, event_idx) }
    }

    fn pop_split(&mut self, bus: &mut Bus, event_idx: bool) -> Option<Chain> {
        let index = (bus.read32(self.driver) >> 16) as u16;
        if event_idx {
            // Tell me of the next one.
            bus.write32(self.device + 4 + 8 * u64::from(self.size), self.avail.into());
        }
        if index == self.avail {
            return None;
        }
        let slot = u64::from(self.avail % self.size);
        let head = bus.read(self.driver + 4 + 2 * slot, 2);
        let head = u16::from_le_bytes([head[0], head[1]]);
        self.avail = self.avail.wrapping_add(1);
        if event_idx {
            bus.write32(self.device + 4 + 8 * u64::from(self.size), self.avail.into());
        }
        let (mut pieces, mut at) = (Vec::new(), head);
        for _ in 0..MAX_CHAIN {
            let (d, _) = self.descriptor(bus, at % self.size);
            let flags = u16::from_le_bytes([d[12], d[13]]);
            pieces.push(piece(&d, flags & split::DESC_WRITE != 0));
            if flags & split::DESC_NEXT == 0 {
                break;
            }
            at = u16::from_le_bytes([d[14], d[15]]);
        }
        Some(Chain { id: head, pieces })
    }

    fn pop_packed(&mut self, bus: &mut Bus) -> Option<Chain> {
        let mut pieces = Vec::new();
        loop {
            let (d, _) = self.descriptor(bus, self.avail);
            let (id, flags) = (u16::from_le_bytes([d[12], d[13]]), u16::from_le_bytes([d[14], d[15]]));
            let available = (flags & packed::AVAIL != 0) == self.avail_wrap
                && (flags & packed::USED != 0) != self.avail_wrap;
            if !available || pieces.len() == MAX_CHAIN {
                return None;
            }
            pieces.push(piece(&d, flags & packed::WRITE != 0));
            self.avail += 1;
            if self.avail == self.size {
                (self.avail, self.avail_wrap) = (0, !self.avail_wrap);
            }
            if flags & packed::NEXT == 0 {
                return Some(Chain { id, pieces });
            }
        }
    }

    /// Says that buffers were used: `id`, `len` bytes written, of a chain of `pieces`.
    pub(super) fn push(&mut self, bus: &mut Bus, packed: bool, (id, len): (u32, u32), pieces: u16) {
        self.untold += if packed { pieces } else { 1 };
        if !packed {
            let at = self.device + 4 + 8 * u64::from(self.used % self.size);
            bus.write(at, &(u64::from(id) | u64::from(len) << 32).to_le_bytes());
            self.used = self.used.wrapping_add(1);
            bus.write32(self.device, u32::from(self.used) << 16);
            return;
        }
        let (_, at) = self.descriptor(bus, self.used);
        bus.write32(at + 8, len);
        bus.write32(at + 12, id & 0xffff | u32::from(packed::used(self.used_wrap)) << 16);
        self.used += pieces;
        if self.used >= self.size {
            (self.used, self.used_wrap) = (self.used - self.size, !self.used_wrap);
        }
    }

    /// Raises the queue's vector, if the driver wants to hear of what was used since the last time.
    pub(super) fn tell(&mut self, bus: &mut Bus, packed: bool, event_idx: bool) {
        let fresh = std::mem::take(&mut self.untold);
        if fresh == 0 {
            return;
        }
        let wanted = if packed {
            let word = bus.read32(self.driver);
            match (word >> 16) as u16 & 3 {
                EVENT_DISABLE => false,
                EVENT_DESC if event_idx => {
                    let (mut at, wrap) = (word as u16 & 0x7fff, word & 0x8000 != 0);
                    if wrap != self.used_wrap {
                        at = at.wrapping_sub(self.size);
                    }
                    passes(at, self.used, self.used.wrapping_sub(fresh))
                }
                _ => true,
            }
        } else if event_idx {
            let event = bus.read32(self.driver + 4 + 2 * u64::from(self.size)) as u16;
            passes(event, self.used, self.used.wrapping_sub(fresh))
        } else {
            bus.read32(self.driver) as u16 & AVAIL_NO_INTERRUPT == 0
        };
        if wanted && self.vector != 0xffff {
            bus.raise(self.vector);
        }
    }
}

fn piece(d: &[u8; 16], write: bool) -> Piece {
    let addr = u64::from_le_bytes(std::array::from_fn(|i| d[i]));
    let len = u32::from_le_bytes(std::array::from_fn(|i| d[8 + i]));
    Piece { addr, len, write }
}
