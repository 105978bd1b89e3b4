//! Where each frame was, and when: the stamps that stages put on frames while somebody watches.
//!
//! A frame carries its own trail from stage to stage, so no stage needs to know who watches, and a device that nobody
//! watches pays one comparison per stage. When a frame ends, its trail goes to the [`Recorder`], which keeps a bounded
//! number of them. Watching changes nothing that the device does.
//!
//! Neither cycle-level nor behavioural: it looks on.

use serde::Serialize;

use crate::drops::DropReason;

/// A place in the device where a frame can be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// On the wire towards a port.
    WireIn(u8),
    /// In the receive MAC and PHY of a port, then in its ingress queue.
    Receive(u8),
    /// In the parser.
    Parser,
    /// In a table of the exact stage.
    Exact(u8),
    /// In the longest-prefix stage.
    Lpm,
    /// In the range stage.
    Range,
    /// In the ternary stage.
    Ternary,
    /// In the action engine: waiting for it, or being edited.
    Action,
    /// Waiting for the replication engine.
    Replicate,
    /// On the way back to the parser.
    Again,
    /// In the egress queue of a port.
    Egress(u8),
    /// In the queue of a port to the host.
    ToHost(u8),
    /// Being written to the host's memory.
    HostWrite(u8),
    /// Being read from the host's memory.
    HostRead(u8),
    /// In the egress queue of a port for frames of the host.
    HostEgress(u8),
    /// In the transmit MAC and PHY of a port.
    Transmit(u8),
    /// Left the device by the wire of a port.
    WireOut(u8),
    /// Left the device into a receive buffer of a port.
    Host(u8),
    /// Lost.
    Dropped(DropReason),
}

kernel::state!(enum Place {
    0 => WireIn(a),
    1 => Receive(a),
    2 => Parser,
    3 => Exact(a),
    4 => Lpm,
    5 => Range,
    6 => Ternary,
    7 => Action,
    8 => Replicate,
    9 => Again,
    10 => Egress(a),
    11 => ToHost(a),
    12 => HostWrite(a),
    13 => HostRead(a),
    14 => HostEgress(a),
    15 => Transmit(a),
    16 => WireOut(a),
    17 => Host(a),
    18 => Dropped(a),
});

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::WireIn(p) => write!(f, "wire to port {p}"),
            Place::Receive(p) => write!(f, "port {p} receive"),
            Place::Parser => f.write_str("parser"),
            Place::Exact(t) => write!(f, "exact table {t}"),
            Place::Lpm => f.write_str("longest-prefix table"),
            Place::Range => f.write_str("range table"),
            Place::Ternary => f.write_str("ternary table"),
            Place::Action => f.write_str("action engine"),
            Place::Replicate => f.write_str("replication engine"),
            Place::Again => f.write_str("round again"),
            Place::Egress(p) => write!(f, "port {p} egress queue"),
            Place::ToHost(p) => write!(f, "port {p} queue to host"),
            Place::HostWrite(p) => write!(f, "port {p} DMA write"),
            Place::HostRead(p) => write!(f, "port {p} DMA read"),
            Place::HostEgress(p) => write!(f, "port {p} egress queue of the host"),
            Place::Transmit(p) => write!(f, "port {p} transmit"),
            Place::WireOut(p) => write!(f, "wire from port {p}"),
            Place::Host(p) => write!(f, "host, port {p}"),
            Place::Dropped(r) => write!(f, "dropped: {}", r.name()),
        }
    }
}

/// A frame came to a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Stamp {
    /// The place.
    pub place: Place,
    /// Cycle in which it came there.
    pub cycle: u64,
    /// Cycle from which the place would have let it go; it left in the cycle of the next stamp, and waited in between.
    pub ready: u64,
}

kernel::state!(struct Stamp { place, cycle, ready });

/// The way of one frame through the device.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Trail {
    /// The frame's number, from 1 in order of their appearance.
    pub frame: u64,
    /// The frame it is a copy of; its stamps until then are in this trail, too.
    pub copy_of: Option<u64>,
    /// Its length in bytes when it came to be, without FCS.
    pub len_bytes: u32,
    /// The hash over its flow; zero when it was not parsed.
    pub flow_hash: u32,
    /// Where it was, in order.
    pub stamps: Vec<Stamp>,
}

kernel::state!(struct Trail { frame, copy_of, len_bytes, flow_hash, stamps });

impl Trail {
    /// Cycles from the first stamp to the last.
    pub fn cycles(&self) -> u64 {
        match (self.stamps.first(), self.stamps.last()) {
            (Some(a), Some(b)) => b.cycle.saturating_sub(a.cycle),
            _ => 0,
        }
    }

    /// How it ended.
    pub fn end(&self) -> Option<Place> {
        self.stamps.last().map(|s| s.place)
    }

    /// Place, first cycle, cycles until it could have left, cycles it waited beyond that; for each place but the last.
    pub fn stays(&self) -> impl Iterator<Item = (Place, u64, u64, u64)> + '_ {
        self.stamps.windows(2).map(|w| {
            let ready = w[0].ready.clamp(w[0].cycle, w[1].cycle.max(w[0].cycle));
            (w[0].place, w[0].cycle, ready - w[0].cycle, w[1].cycle.saturating_sub(ready))
        })
    }
}

/// Keeps the trails of frames that have ended.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    finished: Vec<Trail>,
    limit: usize,
    lost: u64,
}

kernel::state!(struct Recorder { finished, limit, lost });

impl Recorder {
    pub fn new(limit: usize) -> Self {
        Recorder { finished: Vec::new(), limit, lost: 0 }
    }

    pub fn keep(&mut self, t: Trail) {
        if self.finished.len() < self.limit {
            self.finished.push(t);
        } else {
            self.lost += 1;
        }
    }

    /// The trails so far, in order of the frames' numbers, and how many more there were than are kept.
    pub fn take(&mut self) -> (Vec<Trail>, u64) {
        let mut all = std::mem::take(&mut self.finished);
        all.sort_by_key(|t| t.frame);
        (all, std::mem::take(&mut self.lost))
    }
}
