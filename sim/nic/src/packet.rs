//! Frames inside the device.
//!
//! A frame is a box that moves from stage to stage; its bytes stay where they are. Boxes are recycled, so in steady state
//! nothing is allocated; how many exist is bounded by the stages' buffers.
//!
//! Neither cycle-level nor behavioural: what the stages hand on.

use std::sync::Arc;

use simnic_defs::{KEY_BYTES, KeyBytes, RxCpl, RxReason};

use crate::again::Walk;
use crate::capture::Capture;
use crate::checkpoint::Wire;
use crate::parser::Layout;
use crate::scheduler::SharedBuffer;
use crate::tables::ActionList;
use crate::trail::{Place, Recorder, Stamp, Trail};

/// Bytes in front of a received frame: room for sixteen pushed tags, or for two headers of tunnels.
const HEADROOM: usize = 2 * simnic_defs::MAX_HEADER_BYTES;

/// A frame and what the stages found out about it.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Frame bytes from `head` on; taken out while a DMA transfer has them.
    pub data: Vec<u8>,
    pub head: usize,
    /// Where the frame ends, when that is before the end of `data`.
    pub end: usize,
    pub ingress: u8,
    /// Cycle in which it arrives by the wire, then the cycle in which it left by one.
    pub at: u64,
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
    /// How it came to be looked up again.
    pub walk: Walk,
    /// Where it was, when somebody watches.
    pub trail: Option<Box<Trail>>,
}

kernel::state!(struct Packet {
    data, head, end, ingress, at, key, layout, parsed, hash, mark, reason: via Wire, table, entry,
    actions, walk, trail,
});

pub(crate) type PacketBox = Box<Packet>;

impl Packet {
    /// It comes to `place` in cycle `cycle`, which keeps it until `ready` at least.
    #[inline]
    pub fn stamp(&mut self, place: Place, cycle: u64, ready: u64) {
        if let Some(t) = &mut self.trail {
            t.stamps.push(Stamp { place, cycle, ready });
        }
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.data.get(self.head..self.data.len().min(self.end)).unwrap_or(&[])
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let end = self.data.len().min(self.end);
        self.data.get_mut(self.head..end).unwrap_or(&mut [])
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.data.len().min(self.end).saturating_sub(self.head)
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
#[derive(Clone, Debug)]
pub(crate) struct PacketPool {
    #[allow(clippy::vec_box)] // the boxes are what is recycled
    free: Vec<PacketBox>,
    room: usize,
    /// Frames that came to be.
    born: u64,
    recorder: Option<Box<Recorder>>,
    /// A tap on every wire.
    pub tap: Option<Box<Capture>>,
    /// The egress queues' buffer.
    pub shared: SharedBuffer,
}

kernel::state!(struct PacketPool { free: spare, room: fixed, born, recorder, tap, shared });

impl PacketPool {
    pub fn new(max_frame_bytes: usize) -> Self {
        PacketPool {
            free: Vec::new(),
            room: HEADROOM + max_frame_bytes + 64,
            born: 0,
            recorder: None,
            tap: None,
            shared: SharedBuffer::default(),
        }
    }

    fn take(&mut self) -> PacketBox {
        let mut p = self.free.pop().unwrap_or_else(|| {
            Box::new(Packet {
                data: Vec::new(),
                head: HEADROOM,
                end: usize::MAX,
                ingress: 0,
                at: 0,
                key: [0; KEY_BYTES],
                layout: Layout::default(),
                parsed: false,
                hash: 0,
                mark: 0,
                reason: RxReason::Miss,
                table: RxCpl::NO_TABLE,
                entry: RxCpl::NO_ENTRY,
                actions: None,
                walk: Walk::default(),
                trail: None,
            })
        });
        if p.data.capacity() < self.room {
            p.data = Vec::with_capacity(self.room);
        }
        p.data.clear();
        (p.head, p.end) = (HEADROOM, usize::MAX);
        self.born += 1;
        p.at = 0;
        if self.recorder.is_some() {
            let trail =
                Trail { frame: self.born, copy_of: None, len_bytes: 0, flow_hash: 0, stamps: Vec::new() };
            p.trail = Some(Box::new(trail));
        }
        p
    }

    /// A frame passes the MAC of `port`.
    #[inline]
    pub fn seen(&mut self, cycle: u64, port: u8, received: bool, p: &Packet) {
        if let Some(t) = &mut self.tap {
            t.see(cycle, port, received, p.bytes());
        }
    }

    /// Watches the frames that come to be from now on, and keeps at most `limit` trails; `None` stops it.
    pub fn watch(&mut self, limit: Option<usize>) {
        self.recorder = limit.map(|l| Box::new(Recorder::new(l)));
    }

    /// See [`Recorder::take`].
    pub fn take_trails(&mut self) -> (Vec<Trail>, u64) {
        self.recorder.as_mut().map(|r| r.take()).unwrap_or_default()
    }

    /// A frame with a copy of `bytes`.
    pub fn with_bytes(&mut self, bytes: &[u8], ingress: u8) -> PacketBox {
        let mut p = self.zeroed(0, ingress);
        p.data.extend_from_slice(bytes);
        if let Some(t) = &mut p.trail {
            t.len_bytes = bytes.len() as u32;
        }
        p
    }

    /// A frame of `len` zero bytes.
    pub fn zeroed(&mut self, len: usize, ingress: u8) -> PacketBox {
        let mut p = self.take();
        p.data.resize(HEADROOM + len, 0);
        p.ingress = ingress;
        if let Some(t) = &mut p.trail {
            t.len_bytes = len as u32;
        }
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
        (p.key, p.layout) = (o.key, o.layout);
        (p.parsed, p.hash, p.mark, p.reason) = (o.parsed, o.hash, o.mark, o.reason);
        (p.table, p.entry) = (o.table, o.entry);
        if let (Some(t), Some(original)) = (&mut p.trail, &o.trail) {
            let frame = t.frame;
            **t = Trail { frame, copy_of: Some(original.frame), ..(**original).clone() };
        }
        p
    }

    /// Takes a frame back.
    pub fn put(&mut self, mut p: PacketBox) {
        p.actions = None;
        p.walk.clear();
        if let Some(mut t) = p.trail.take()
            && let Some(r) = &mut self.recorder
        {
            t.flow_hash = p.hash;
            r.keep(*t);
        }
        self.free.push(p);
    }
}
