//! How a queue gets its ring in every life of the device.
//!
//! All queues are programmed by the device's owner, before it tells the device to go: they share registers (`queue_select`), and a
//! device need not look at them later. Their threads may be in the middle of a burst then. So every life has ring memory of its own:
//! what a late burst writes into that of the life before goes nowhere, as it is no longer mapped.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use device::{DmaMemory, Interrupt, Iova, Registers};

use crate::transport::Doorbell;

/// A queue of the device in its present life.
#[derive(Clone)]
pub(crate) struct Programmed<R: Registers> {
    pub mem: DmaMemory,
    pub iova: Iova,
    pub doorbell: Doorbell<R>,
    pub interrupt: Option<Interrupt>,
}

/// A queue, as its owner and its thread both know it.
pub(crate) struct Slot<R: Registers> {
    /// Its number.
    pub index: u16,
    /// Its vector.
    pub vector: u16,
    /// Its entries.
    pub size: u16,
    now: Mutex<Option<Programmed<R>>>,
    /// Of a transmit queue: buffers that the device has, in the upper half, and below where its thread waits for the next used one
    /// ([`crate::ring::Ring::mark`]).
    waiting: AtomicU64,
}

impl<R: Registers + Clone> Slot<R> {
    pub(crate) fn new(index: u16, vector: u16, size: u16) -> Self {
        Slot { index, vector, size, now: Mutex::new(None), waiting: AtomicU64::new(0) }
    }

    /// What the queue's thread waits for.
    #[inline]
    pub(crate) fn waits(&self, outstanding: u16, mark: u32) {
        self.waiting.store(u64::from(outstanding) << 32 | u64::from(mark), Ordering::Relaxed);
    }

    /// Where it waits for a buffer that the device has not used yet; `None` when it has nothing to wait for. What is looked at may
    /// change at any time.
    pub(crate) fn stuck_at(&self, is_used: impl Fn(&DmaMemory, u16, u32) -> bool) -> Option<u32> {
        let w = self.waiting.load(Ordering::Relaxed);
        let now = self.get()?;
        (w >> 32 != 0 && !is_used(&now.mem, self.size, w as u32)).then_some(w as u32)
    }

    /// The queue was programmed; what it had before comes back.
    pub(crate) fn set(&self, p: Option<Programmed<R>>) -> Option<Programmed<R>> {
        self.waiting.store(0, Ordering::Relaxed);
        std::mem::replace(&mut *self.now.lock().unwrap_or_else(PoisonError::into_inner), p)
    }

    /// What it has now.
    pub(crate) fn get(&self) -> Option<Programmed<R>> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
