//! What a queue asks of its ring, whichever of the two layouts it has. Every buffer is one descriptor: header and frame lie
//! together.
//!
//! ```text
//!   post ─► id, taken from those that are free ─► publish ─► doorbell, if the device wants one
//!   next ◄─ id and length, as the device says them: nothing is believed; the caller frees what was really its
//! ```

use device::{DmaMemory, Iova};

/// Who writes a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Writer {
    /// The driver did: the device reads.
    Driver,
    /// The device does.
    Device,
}

/// A used buffer, as the device tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Used {
    /// Which one; may be any number.
    pub id: u32,
    /// Bytes that the device says it has written.
    pub len: u32,
}

/// A ring of one queue.
pub(crate) trait Ring: Send + 'static {
    /// Bytes of memory for `size` entries.
    fn bytes(size: u16) -> usize;

    /// A ring in `mem`, of at least [`Ring::bytes`], not yet to be used. With `event_idx` both sides say at which position they
    /// want to hear of the other.
    fn new(mem: (DmaMemory, Iova), size: u16, event_idx: bool) -> Self;

    /// Empties it. The device must not know of it.
    fn clear(&mut self);

    /// Its three areas, for the queue's registers: descriptors, the driver's, the device's.
    fn areas(&self) -> [u64; 3];

    /// Entries.
    fn size(&self) -> u16;

    /// Buffers that can be posted.
    fn room(&self) -> u16;

    /// Posts a buffer, for which there is room; the device sees it at the next [`Ring::publish`] at the latest. Its id, less than
    /// the ring's size.
    fn post(&mut self, addr: u64, len: u32, writer: Writer) -> u16;

    /// Shows the device what was posted; whether it wants to be told.
    fn publish(&mut self) -> bool;

    /// The next used buffer.
    fn next(&mut self) -> Option<Used>;

    /// Whether there is a next one.
    fn has_used(&mut self) -> bool;

    /// Where the next used buffer will be.
    fn mark(&self) -> u32;

    /// Whether, in the memory of a ring of `size` entries, the buffer at `mark` has been used.
    fn is_used_at(mem: &DmaMemory, size: u16, mark: u32) -> bool;

    /// An id that was posted and used is free again.
    fn free(&mut self, id: u16);

    /// Asks for an interrupt at the next used buffer. One that was used before may not raise it: look again.
    fn arm(&mut self);

    /// Asks for none.
    fn disarm(&mut self);
}

/// Ids that are not posted. The one that came back last is taken first: what belongs to it is still in the cache.
#[derive(Debug)]
pub(crate) struct Ids {
    free: Box<[u16]>,
    len: u16,
}

impl Ids {
    pub(crate) fn new(size: u16) -> Ids {
        Ids { free: (0..size).rev().collect(), len: size }
    }

    pub(crate) fn reset(&mut self, size: u16) {
        *self = Ids::new(size);
    }

    #[inline]
    pub(crate) fn len(&self) -> u16 {
        self.len
    }

    /// One of them; the caller has seen that there is one.
    #[inline]
    pub(crate) fn take(&mut self) -> u16 {
        self.len = self.len.saturating_sub(1);
        self.free.get(usize::from(self.len)).copied().unwrap_or_default()
    }

    /// One that was taken comes back.
    #[inline]
    pub(crate) fn give(&mut self, id: u16) {
        if let Some(at) = self.free.get_mut(usize::from(self.len)) {
            *at = id;
            self.len += 1;
        }
    }
}
