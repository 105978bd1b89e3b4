//! The checker: loss, latency, order.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::frame::{Signature, signature};
use crate::histogram::Histogram;

/// What became of the frames of a run.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Outcome {
    /// Frames sent.
    pub sent: u64,
    /// Frames of the generator that came back.
    pub received: u64,
    /// Of them on another wire than theirs.
    pub misdirected: u64,
    /// Frames that came more than once.
    pub duplicates: u64,
    /// Frames overtaken by a later one of their flow (RFC 4737: type P reordered).
    pub reordered: u64,
    /// The farthest that a frame was behind, in frames of its flow.
    pub reordering_extent: u32,
    /// Frames that came out and are none of ours.
    pub foreign: u64,
    /// From the last bit in to the first bit out (RFC 1242 3.8), in cycles.
    pub latency_cycles: Histogram,
    /// Cycles from the first frame in to the last frame out.
    pub cycles: u64,
    /// Cycles from the first frame out to the last.
    pub receiving_cycles: u64,
    /// Frames received on each port.
    pub by_port: BTreeMap<u8, u64>,
}

kernel::state!(struct Outcome {
    sent, received, misdirected, duplicates, reordered, reordering_extent, foreign, latency_cycles, cycles,
    receiving_cycles, by_port,
});

impl Outcome {
    /// Frames that did not come back.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received - self.duplicates)
    }

    /// The share that did not, 0 to 1.
    pub fn loss(&self) -> f64 {
        if self.sent == 0 { 0.0 } else { self.lost() as f64 / self.sent as f64 }
    }
}

/// Follows the flows.
#[derive(Default)]
pub(crate) struct Checker {
    /// Next serial number expected of each flow, and which of the last 64 were seen.
    flows: BTreeMap<u32, (u32, u64)>,
    first_out: Option<u64>,
    last_out: u64,
    pub outcome: Outcome,
}

kernel::state!(struct Checker { flows, first_out, last_out, outcome });

impl Checker {
    /// A frame came out of `port` in `cycle`; its lane's port should be `wanted`, and from its first bit in to its last bit out
    /// it takes `wires` cycles at least.
    pub fn see(&mut self, port: u8, cycle: u64, f: &[u8], expect: impl Fn(&Signature) -> (bool, u64)) {
        let o = &mut self.outcome;
        let Some(s) = signature(f) else {
            o.foreign += 1;
            return;
        };
        o.received += 1;
        *o.by_port.entry(port).or_insert(0) += 1;
        let (right, wires) = expect(&s);
        o.misdirected += u64::from(!right);
        o.latency_cycles.add(cycle.saturating_sub(s.departed).saturating_sub(wires));
        self.first_out.get_or_insert(cycle);
        self.last_out = self.last_out.max(cycle);
        let (next, seen) = self.flows.entry(s.flow).or_insert((0, 0));
        if s.serial >= *next {
            let ahead = s.serial - *next + 1;
            *seen = if ahead >= 64 { 1 } else { *seen << ahead | 1 };
            *next = s.serial + 1;
            return;
        }
        let behind = *next - 1 - s.serial;
        let bit = if behind < 64 { 1u64 << behind } else { 0 };
        if *seen & bit != 0 {
            o.duplicates += 1;
        } else {
            o.reordered += 1;
            o.reordering_extent = o.reordering_extent.max(behind);
            *seen |= bit;
        }
    }

    pub fn finish(mut self, sent: u64, first_in: u64) -> Outcome {
        self.outcome.sent = sent;
        self.outcome.cycles = self.last_out.saturating_sub(first_in);
        self.outcome.receiving_cycles = self.last_out.saturating_sub(self.first_out.unwrap_or(0));
        self.outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{frame, sign};

    #[test]
    fn loss_order_and_duplicates_are_told_apart() {
        let mut c = Checker::default();
        for (serial, cycle) in [(0, 100), (2, 110), (1, 120), (1, 130), (5, 140)] {
            let mut f = frame(3, 0, 60);
            sign(&mut f, Signature { flow: 3, serial, departed: cycle - 50 });
            c.see(1, cycle, &f, |s| (s.flow == 3, 10));
        }
        c.see(1, 150, &[0; 60], |_| (true, 0));
        let o = c.finish(6, 50);
        assert_eq!((o.received, o.reordered, o.duplicates, o.foreign), (5, 1, 1, 1));
        assert_eq!((o.lost(), o.reordering_extent, o.cycles), (2, 1, 90));
        assert_eq!(o.latency_cycles.range(), (40, 40));
    }
}
