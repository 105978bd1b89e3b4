//! Frames inside the device.
//!
//! A frame is a box that moves from stage to stage; its bytes stay where they are. Boxes are recycled, so in steady state
//! nothing is allocated; how many exist is bounded by the stages' buffers.

use std::sync::Arc;

use simnic_defs::{KEY_BYTES, KeyBytes, RxCpl, RxReason};

use crate::parser::Layout;
use crate::tables::ActionList;

/// Bytes in front of a received frame: room for sixteen pushed tags.
const HEADROOM: usize = 64;

/// A frame and what the stages found out about it.
#[derive(Debug)]
pub(crate) struct Packet {
    /// Frame bytes from `head` on; taken out while a DMA transfer has them.
    pub data: Vec<u8>,
    pub head: usize,
    pub ingress: u8,
    pub key: KeyBytes,
    pub layout: Layout,
    /// Whether the parser covers it.
    pub parsed: bool,
    pub hash: u32,
    pub mark: u32,
    pub reason: RxReason,
    pub table: u8,
    pub entry: u32,
    /// What to do with it; none: to the host.
    pub actions: Option<Arc<ActionList>>,
}

pub(crate) type PacketBox = Box<Packet>;

impl Packet {
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.data.get(self.head..).unwrap_or(&[])
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.data.get_mut(self.head..).unwrap_or(&mut [])
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.data.len().saturating_sub(self.head)
    }

    /// Grows the frame by `n` bytes in front; false without headroom.
    pub fn push_front(&mut self, n: usize) -> bool {
        if n > self.head {
            return false;
        }
        self.head -= n;
        true
    }

    /// Cuts `n` bytes in front; false when there are fewer.
    pub fn pull_front(&mut self, n: usize) -> bool {
        if n > self.len() {
            return false;
        }
        self.head += n;
        true
    }
}

/// Recycled frames.
#[derive(Debug)]
pub(crate) struct PacketPool {
    #[allow(clippy::vec_box)] // the boxes are what is recycled
    free: Vec<PacketBox>,
    room: usize,
}

impl PacketPool {
    pub fn new(max_frame_bytes: usize) -> Self {
        PacketPool { free: Vec::new(), room: HEADROOM + max_frame_bytes + 64 }
    }

    fn take(&mut self) -> PacketBox {
        let mut p = self.free.pop().unwrap_or_else(|| {
            Box::new(Packet {
                data: Vec::new(),
                head: HEADROOM,
                ingress: 0,
                key: [0; KEY_BYTES],
                layout: Layout::default(),
                parsed: false,
                hash: 0,
                mark: 0,
                reason: RxReason::Miss,
                table: RxCpl::NO_TABLE,
                entry: RxCpl::NO_ENTRY,
                actions: None,
            })
        });
        if p.data.capacity() < self.room {
            p.data = Vec::with_capacity(self.room);
        }
        p.data.clear();
        p.head = HEADROOM;
        p
    }

    /// A frame with a copy of `bytes`.
    pub fn with_bytes(&mut self, bytes: &[u8], ingress: u8) -> PacketBox {
        let mut p = self.zeroed(0, ingress);
        p.data.extend_from_slice(bytes);
        p
    }

    /// A frame of `len` zero bytes.
    pub fn zeroed(&mut self, len: usize, ingress: u8) -> PacketBox {
        let mut p = self.take();
        p.data.resize(HEADROOM + len, 0);
        p.ingress = ingress;
        p.parsed = false;
        (p.hash, p.mark, p.reason) = (0, 0, RxReason::Miss);
        (p.table, p.entry) = (RxCpl::NO_TABLE, RxCpl::NO_ENTRY);
        p
    }

    /// A copy of a frame as it is now, without its actions.
    pub fn copy(&mut self, o: &Packet) -> PacketBox {
        let mut p = self.take();
        p.data.extend_from_slice(&o.data);
        p.head = o.head;
        p.ingress = o.ingress;
        p.layout = o.layout;
        (p.parsed, p.hash, p.mark, p.reason) = (o.parsed, o.hash, o.mark, o.reason);
        (p.table, p.entry) = (o.table, o.entry);
        p
    }

    /// Takes a frame back.
    pub fn put(&mut self, mut p: PacketBox) {
        p.actions = None;
        self.free.push(p);
    }
}
