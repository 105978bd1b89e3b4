//! What a queue's thread and the device's owner know of each other, and how a queue is started.
//!
//! ```text
//!   new life ─► disabled? ─► program the ring, enable ─► enabled? ─► tail may move
//!                │ no: disable, look again                │ no: look again
//! ```
//!
//! Enabling takes the device a while (4.6.7, 4.6.8), and a forwarding thread does not wait: it looks once a burst. The owner gives the
//! device up when that takes too long. The ring is programmed only when the device says that the queue is off, so that no buffer of an
//! earlier life is taken back while it might be written.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use device::driver::Cells;
use device::{IoError, Iova, RegOffset, Registers};
use ixgbe_defs::ALL_ONES;
use ixgbe_defs::bits::dctl::ENABLE;

/// Slot of a position in a ring of `1 << log2`.
#[inline]
pub(crate) fn slot_of(position: u32, log2: u8) -> usize {
    (position & ((1 << log2) - 1)) as usize
}

/// A queue's state, as its owner looks at it.
#[derive(Default)]
pub(crate) struct QueueState {
    /// The queue was enabled, and the device has not said so yet.
    starting: AtomicBool,
    /// Of a transmit queue: descriptors that the device has, in the upper half, and below the position of the oldest.
    waiting: AtomicU64,
}

impl QueueState {
    /// What the queue's thread waits for.
    #[inline]
    pub(crate) fn waits(&self, outstanding: u32, oldest: u32) {
        self.waiting.store(u64::from(outstanding) << 32 | u64::from(oldest), Ordering::Relaxed);
    }

    /// The position of the oldest descriptor that the device has; `None` when it has none.
    pub(crate) fn oldest(&self) -> Option<u32> {
        let w = self.waiting.load(Ordering::Relaxed);
        (w >> 32 != 0).then_some(w as u32)
    }

    /// Whether the device has still to say that the queue is enabled.
    pub(crate) fn is_starting(&self) -> bool {
        self.starting.load(Ordering::Relaxed)
    }
}

/// The registers of one queue, receive or transmit: both have the ring's in the same places.
#[derive(Clone, Copy)]
pub(crate) struct RingRegs {
    /// Low half of the ring's address; the high half, the length, the head and the tail lie behind it.
    pub base: u32,
    /// Control.
    pub control: u32,
    /// What control has beside the enable bit.
    pub control_bits: u32,
}

impl RingRegs {
    /// The tail.
    pub(crate) fn tail(self) -> RegOffset {
        RegOffset(self.base + 0x18)
    }

    fn program<R: Registers>(self, regs: &R, iova: Iova, len_bytes: usize) {
        let put = |at: u32, v: u32| regs.write32(RegOffset(self.base + at), v);
        put(0x00, iova.0 as u32);
        put(0x04, (iova.0 >> 32) as u32);
        put(0x08, len_bytes as u32);
        put(0x10, 0);
        put(0x18, 0);
        regs.write32(RegOffset(self.control), self.control_bits | ENABLE);
    }
}

/// How far a queue has got in this life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Off,
    Enabling,
    Running,
}

/// What [`Starter::check`] found.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    /// The queue runs.
    Runs,
    /// It has just begun to: everything is to start anew.
    Begins,
    /// Not yet.
    NotYet,
}

/// Starts a queue in every life of the device.
pub(crate) struct Starter {
    ring: RingRegs,
    iova: Iova,
    len_bytes: usize,
    phase: Phase,
}

impl Starter {
    /// For a ring of `len_bytes` bytes at `iova`.
    pub(crate) fn new(ring: RingRegs, iova: Iova, len_bytes: usize) -> Self {
        Starter { ring, iova, len_bytes, phase: Phase::Off }
    }

    /// Whether the queue may be used.
    ///
    /// # Errors
    /// [`IoError::Down`] while the device does not run.
    #[inline(always)]
    pub(crate) fn check<R: Registers>(
        &mut self,
        regs: &R,
        cells: &mut Cells,
        state: &QueueState,
    ) -> Result<Ready, IoError> {
        match cells.check()? {
            None if self.phase == Phase::Running => Ok(Ready::Runs),
            epoch => Ok(self.go_on(regs, cells, state, epoch)),
        }
    }

    #[cold]
    fn go_on<R: Registers>(
        &mut self,
        regs: &R,
        cells: &mut Cells,
        state: &QueueState,
        epoch: Option<u32>,
    ) -> Ready {
        let control = RegOffset(self.ring.control);
        if let Some(epoch) = epoch {
            if regs.read32(control) & ENABLE != 0 {
                regs.write32(control, 0);
                return Ready::NotYet;
            }
            cells.begin(epoch);
            state.waits(0, 0);
            state.starting.store(true, Ordering::Relaxed);
            self.ring.program(regs, self.iova, self.len_bytes);
            self.phase = Phase::Enabling;
        }
        let v = regs.read32(control);
        if v & ENABLE == 0 || v == ALL_ONES {
            return Ready::NotYet;
        }
        state.starting.store(false, Ordering::Relaxed);
        self.phase = Phase::Running;
        Ready::Begins
    }

    /// Turns the queue off, as far as the device listens.
    pub(crate) fn stop<R: Registers>(&self, regs: &R) {
        regs.write32(RegOffset(self.ring.control), 0);
    }
}
