//! A descriptor ring and its completion ring, as the device sees them (datasheet 2.2, 2.4, 3.3, 4).
//!
//! ```text
//!   positions, free-running:  completed <= started <= fetched <= requested <= tail (doorbell)
//! ```
//!
//! An engine fetches descriptors in batches, starts work on them in order, and writes completions. A ring that is
//! disabled or stopped keeps `in_flight` until its last transfer is back; `epoch` tells those transfers from later ones.
//!
//! Behavioural: positions and rules of a ring; the engines around it have the timing.

use simnic_defs::{gen_of, slot_of};

/// Registers and positions of a ring.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ring {
    pub desc_base: u64,
    pub cpl_base: u64,
    pub log2: u32,
    pub vector: u32,
    pub enabled: bool,
    pub error: bool,
    /// Changes whenever positions are discarded.
    pub epoch: u16,
    pub tail: u32,
    /// Descriptors asked for.
    pub requested: u32,
    /// Completions handed to the DMA engine.
    pub completed: u32,
    /// Transfers under way.
    pub in_flight: u32,
    /// Completions the host had consumed when it armed the vector.
    pub armed: Option<u32>,
    /// The vector is to be raised.
    pub raise: bool,
    /// It takes nothing up: a failure that somebody injected; a reset ends it.
    pub stuck: bool,
}

kernel::state!(struct Ring {
    desc_base, cpl_base, log2, vector, enabled, error, epoch, tail, requested, completed,
    in_flight, armed, raise, stuck,
});

/// What a doorbell was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Doorbell {
    Accepted,
    /// The ring is not enabled.
    Ignored,
    /// Backwards or beyond the ring; the ring has stopped.
    Bad,
}

impl Ring {
    pub fn size(&self) -> u32 {
        1 << self.log2
    }

    /// Whether work may be started.
    #[inline]
    pub fn runs(&self) -> bool {
        self.is_on() && !self.stuck
    }

    /// Whether it should run.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.enabled && !self.error
    }

    /// ENABLED of the status register: set until the last transfer is back.
    pub fn shows_enabled(&self) -> bool {
        self.is_on() || self.in_flight > 0
    }

    /// Whether base addresses and size are possible.
    pub fn geometry_is_good(&self, min_log2: u8, max_log2: u8) -> bool {
        (u32::from(min_log2)..=u32::from(max_log2)).contains(&self.log2)
            && self.desc_base.is_multiple_of(64)
            && self.cpl_base.is_multiple_of(64)
            && self.desc_base.checked_add(64 << self.log2).is_some()
            && self.cpl_base.checked_add(64 << self.log2).is_some()
    }

    /// Starts from zero.
    pub fn enable(&mut self) {
        self.discard();
        self.enabled = true;
        self.error = false;
    }

    /// Stops and forgets the positions.
    pub fn disable(&mut self) {
        self.discard();
        self.enabled = false;
        self.error = false;
    }

    /// Stops with an error; positions stay readable in diagnosis only.
    pub fn fail(&mut self) {
        self.error = true;
        self.epoch = self.epoch.wrapping_add(1);
        (self.armed, self.raise) = (None, false);
    }

    fn discard(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        (self.tail, self.requested, self.completed) = (0, 0, 0);
        (self.armed, self.raise) = (None, false);
    }

    /// The host has written descriptors up to `tail`.
    pub fn doorbell(&mut self, tail: u32) -> Doorbell {
        if !self.runs() {
            return Doorbell::Ignored;
        }
        let ahead = tail.wrapping_sub(self.completed);
        let known = self.tail.wrapping_sub(self.completed);
        if ahead > self.size() || ahead < known {
            self.fail();
            return Doorbell::Bad;
        }
        self.tail = tail;
        Doorbell::Accepted
    }

    /// The host has consumed `consumed` completions and wants to know of the next.
    pub fn arm(&mut self, consumed: u32) {
        if self.runs() {
            self.armed = Some(consumed);
            self.check_armed();
        }
    }

    fn check_armed(&mut self) {
        if let Some(consumed) = self.armed
            && self.completed.wrapping_sub(consumed).cast_signed() > 0
        {
            self.armed = None;
            self.raise = true;
        }
    }

    /// Takes the address and generation for the next completion of `bytes` bytes.
    pub fn next_completion(&mut self, bytes: usize) -> (u64, bool) {
        let log2 = self.log2 as u8;
        let at = self.cpl_base + u64::from(slot_of(self.completed, log2)) * bytes as u64;
        let generation = gen_of(self.completed, log2);
        self.completed = self.completed.wrapping_add(1);
        self.check_armed();
        (at, generation)
    }

    /// How many descriptors to fetch now, at most `room`: up to the tail, the end of the ring and the batch.
    pub fn fetchable(&self, batch: u32, room: u32) -> u32 {
        if !self.runs() {
            return 0;
        }
        let wanted = self.tail.wrapping_sub(self.requested);
        let to_end = self.size() - slot_of(self.requested, self.log2 as u8);
        wanted.min(to_end).min(batch).min(room)
    }

    /// Takes the address of the next `n` descriptors of `bytes` bytes.
    pub fn fetch(&mut self, n: u32, bytes: usize) -> u64 {
        let at = self.desc_base + u64::from(slot_of(self.requested, self.log2 as u8)) * bytes as u64;
        self.requested = self.requested.wrapping_add(n);
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> Ring {
        let mut r = Ring { desc_base: 0x1000, cpl_base: 0x2000, log2: 3, ..Ring::default() };
        r.enable();
        r
    }

    #[test]
    fn doorbells_move_forward_and_stay_within_the_ring() {
        let mut r = ring();
        assert_eq!(r.doorbell(8), Doorbell::Accepted);
        assert_eq!(r.doorbell(8), Doorbell::Accepted);
        assert_eq!(r.fetchable(16, 16), 8);
        assert_eq!(r.doorbell(9), Doorbell::Bad);
        assert!(r.error && !r.shows_enabled());
        assert_eq!(r.doorbell(8), Doorbell::Ignored);
        let mut r = ring();
        r.doorbell(3);
        assert_eq!(r.doorbell(2), Doorbell::Bad);
    }

    #[test]
    fn positions_wrap_with_slot_and_generation() {
        let mut r = ring();
        (r.tail, r.requested, r.completed) = (u32::MAX, u32::MAX, u32::MAX);
        assert_eq!(r.doorbell(4), Doorbell::Accepted);
        assert_eq!(r.fetchable(16, 16), 1, "to the end of the ring");
        assert_eq!(r.fetch(1, 16), 0x1000 + 7 * 16);
        assert_eq!(r.fetchable(16, 3), 3);
        assert_eq!(r.next_completion(32), (0x2000 + 7 * 32, true));
        assert_eq!(r.next_completion(32), (0x2000, false));
    }

    #[test]
    fn an_armed_ring_raises_once_at_the_next_or_a_past_completion() {
        let mut r = ring();
        r.arm(0);
        assert!(!r.raise);
        r.next_completion(16);
        assert!(std::mem::take(&mut r.raise));
        r.next_completion(16);
        assert!(!r.raise, "not armed");
        r.arm(1);
        assert!(std::mem::take(&mut r.raise), "already written");
        r.arm(2);
        assert!(!r.raise);
    }

    #[test]
    fn geometry_is_checked() {
        let good = ring();
        assert!(good.geometry_is_good(3, 12));
        for bad in [
            Ring { log2: 2, ..good },
            Ring { log2: 13, ..good },
            Ring { log2: 99, ..good },
            Ring { desc_base: 0x1010, ..good },
            Ring { cpl_base: u64::MAX - 63, ..good },
        ] {
            assert!(!bad.geometry_is_good(3, 12), "{bad:?}");
        }
    }
}
