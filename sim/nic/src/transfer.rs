//! What the three DMA engines of the device share: tags, small buffers, interrupt messages.
//!
//! Cycle-level: finite numbers of tags and buffers. Behavioural: taking one takes no cycle.

use device::Iova;
use kernel::Cycles;
use pcie::{DmaClient, DmaError, DmaKind, DmaRequest, Message};

use crate::chip::Shared;

/// What a transfer is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Vector,
    Fetch,
    Frame,
    Completion,
    /// What a command's address points to.
    Payload,
    /// What a command writes.
    Records,
}

/// What the engine gets back with a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tag {
    pub kind: Kind,
    pub ring: u8,
    pub epoch: u16,
    pub position: u32,
}

impl Tag {
    pub fn pack(self) -> u64 {
        (self.kind as u64) << 56
            | u64::from(self.ring) << 48
            | u64::from(self.epoch) << 32
            | u64::from(self.position)
    }

    pub fn unpack(v: u64) -> Tag {
        let kind = match v >> 56 {
            0 => Kind::Vector,
            1 => Kind::Fetch,
            2 => Kind::Frame,
            3 => Kind::Completion,
            4 => Kind::Payload,
            _ => Kind::Records,
        };
        Tag { kind, ring: (v >> 48) as u8, epoch: (v >> 32) as u16, position: v as u32 }
    }
}

/// Recycled buffers for descriptors and completions.
#[derive(Clone, Default)]
pub(crate) struct SmallBuffers(Vec<Vec<u8>>);

kernel::state!(struct SmallBuffers(all: spare));

/// Larger buffers are given back to the allocator.
const SMALL_BYTES: usize = 4096;

impl SmallBuffers {
    pub fn with(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut b = self.0.pop().unwrap_or_default();
        b.clear();
        b.extend_from_slice(bytes);
        b
    }

    pub fn zeroed(&mut self, len: usize) -> Vec<u8> {
        let mut b = self.0.pop().unwrap_or_default();
        b.clear();
        b.resize(len, 0);
        b
    }

    pub fn put(&mut self, b: Vec<u8>) {
        if b.capacity() <= SMALL_BYTES {
            self.0.push(b);
        }
    }
}

/// The first set bit of `work`, which is not zero, from bit `from` on and around.
pub(crate) fn next_of(work: u128, from: usize) -> usize {
    let above = work >> from << from;
    (if above != 0 { above } else { work }).trailing_zeros() as usize
}

/// Where a transfer failed: the faulting address, or the request's when it was never sent.
pub(crate) fn dma_address(e: DmaError, requested: Iova) -> u64 {
    match e {
        DmaError::Fault(at) => at.0,
        DmaError::NoBusMaster => requested.0,
    }
}

/// Raises an MSI-X vector as client `c`, behind the client's earlier writes. The client can make a request.
pub(crate) fn raise_vector(
    now: Cycles,
    c: DmaClient,
    vector: u32,
    s: &mut Shared<'_>,
    small: &mut SmallBuffers,
) {
    let message = u16::try_from(vector).ok().and_then(|v| s.msix.raise(v));
    if let Some(m) = message {
        send_message(now, c, m, s, small);
    }
}

/// Sends an interrupt message as client `c`.
pub(crate) fn send_message(
    now: Cycles,
    c: DmaClient,
    m: Message,
    s: &mut Shared<'_>,
    small: &mut SmallBuffers,
) {
    let tag = Tag { kind: Kind::Vector, ring: 0, epoch: 0, position: 0 }.pack();
    let buf = small.with(&m.data.to_le_bytes());
    let request = DmaRequest { tag, kind: DmaKind::Write, iova: Iova(m.address), buf, start: 0 };
    if let Err(r) = s.dma.request(now, c, request) {
        small.put(r.buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arbitration_goes_around() {
        let work = 1 | 1 << 5 | 1 << 127;
        assert_eq!([0, 1, 5, 6, 127].map(|from| next_of(work, from)), [0, 5, 5, 127, 127]);
        assert_eq!(next_of(1 << 3, 4), 3);
    }

    #[test]
    fn tags_survive_packing() {
        for kind in [Kind::Vector, Kind::Fetch, Kind::Frame, Kind::Completion, Kind::Payload, Kind::Records] {
            let t = Tag { kind, ring: 0xab, epoch: 0xcdef, position: 0x1234_5678 };
            assert_eq!(Tag::unpack(t.pack()), t);
        }
    }
}
