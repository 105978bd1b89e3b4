//! A device on the conformance bench: a harness with what every check needs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use flow::{Action, PacketKey, PortId};

use crate::apply::apply;
use crate::capability::{CounterCaps, OffloadCapabilities, TableId};
use crate::provider::{Completion, FlowOp, HwHandle, OpId, OpResult, RawStats, StatsCursor};
use crate::rule::FlowRule;

use super::rules::{Template, VISIBLE, packet, rule, templates};
use super::{Harness, Sent};

/// Polls before a check gives up on a completion.
const PATIENCE_POLLS: usize = 20_000;
/// Device time that passes between two polls.
const BETWEEN_POLLS: Duration = Duration::from_micros(5);
/// Length of the suite's packets.
pub(crate) const LEN_BYTES: u32 = 200;

/// See the module's text.
pub(crate) struct Bench {
    pub h: Box<dyn Harness>,
    pub caps: Arc<OffloadCapabilities>,
    pub templates: Vec<Template>,
    next_op: u64,
}

impl Bench {
    pub fn new(mut h: Box<dyn Harness>) -> Self {
        let caps = h.provider().capabilities();
        let templates = templates(&caps);
        assert!(!templates.is_empty(), "no table takes a rule that the suite can make: {caps:#?}");
        assert!(caps.ports.len() >= 2, "the suite needs two ports");
        Bench { h, caps, templates, next_op: 1 }
    }

    pub fn op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    /// The `n`th rule of the first template, sending to port `out` (an index).
    pub fn rule(&self, n: u32, out: usize) -> FlowRule {
        let m = self.templates[0].matches(n, self.in_port(n));
        rule(u64::from(n) + 1, m, vec![Action::Output(self.out_port(n, out))])
    }

    /// A packet that the `n`th rule matches.
    pub fn key(&self, n: u32) -> PacketKey {
        packet(self.templates[0].shape, n, self.in_port(n))
    }

    fn in_port(&self, n: u32) -> PortId {
        self.caps.ports[n as usize % self.caps.ports.len()]
    }

    /// The `i`th port but the one by which the `n`th packet comes in.
    fn out_port(&self, n: u32, i: usize) -> PortId {
        let others = self.caps.ports.len() - 1;
        self.caps.ports[(n as usize + 1 + i % others) % self.caps.ports.len()]
    }

    /// Submits all of `ops`, waiting where the device pushes back, and returns all completions.
    pub fn run(&mut self, ops: &[FlowOp]) -> Vec<Completion> {
        let mut done = Vec::new();
        let mut sent = 0;
        let mut patience = PATIENCE_POLLS;
        while done.len() < ops.len() {
            if sent < ops.len() {
                sent += self.h.provider().submit(&ops[sent..]);
            }
            let before = done.len();
            self.h.provider().poll(&mut done, ops.len() * 2);
            if done.len() == before {
                self.h.advance(BETWEEN_POLLS);
                patience -= 1;
                assert!(patience > 0, "{} of {} operations completed", done.len(), ops.len());
            }
        }
        assert_eq!(done.len(), ops.len(), "one completion for each operation");
        done
    }

    /// Runs one operation.
    pub fn run_one(&mut self, op: FlowOp) -> OpResult {
        let id = op.id();
        let mut done = self.run(&[op]);
        let Some(c) = done.pop() else {
            panic!("an operation did not complete");
        };
        assert_eq!(c.op, id);
        c.result
    }

    /// Installs a rule that must be taken.
    pub fn install(&mut self, r: &FlowRule) -> (HwHandle, TableId) {
        let op = FlowOp::Install(self.op(), r.clone());
        match self.run_one(op) {
            OpResult::Installed(h, t) => (h, t),
            other => panic!("{r:?} was not installed: {other:?}"),
        }
    }

    pub fn remove(&mut self, h: HwHandle) -> RawStats {
        let op = FlowOp::Remove(self.op(), h);
        match self.run_one(op) {
            OpResult::Removed(gone, raw) => {
                assert_eq!(gone, h);
                raw
            }
            other => panic!("{h:?} was not removed: {other:?}"),
        }
    }

    pub fn send(&mut self, n: u32) -> Sent {
        let k = self.key(n);
        visible(self.h.send(&k, LEN_BYTES))
    }

    /// Asserts that packet `n` is forwarded as `r` says.
    pub fn forwarded(&mut self, n: u32, r: &FlowRule) {
        assert_eq!(self.send(n), expected(&self.key(n), r), "packet {n} by {r:?}");
    }

    pub fn widths(&self, t: TableId) -> CounterCaps {
        self.caps.table(t).map_or(CounterCaps { packet_bits: 0, byte_bits: 0 }, |t| t.counters)
    }

    /// Asserts that counters say `packets` packets.
    pub fn counted(&self, t: TableId, raw: &RawStats, packets: u64) {
        let w = self.widths(t);
        let cut = |v: u64, bits: u8| match bits {
            0 => 0,
            1..=63 => v & ((1 << bits) - 1),
            _ => v,
        };
        let bytes = packets * u64::from(LEN_BYTES);
        if w.packet_bits > 0 {
            assert_eq!(cut(raw.packets, w.packet_bits), cut(packets, w.packet_bits), "packets");
        }
        if w.byte_bits > 0 {
            assert_eq!(cut(raw.bytes, w.byte_bits), cut(bytes, w.byte_bits), "bytes");
        }
    }

    /// One whole round of counters, `budget` at a time.
    pub fn stats(&mut self, cursor: &mut StatsCursor, budget: usize) -> BTreeMap<HwHandle, RawStats> {
        let mut all = BTreeMap::new();
        for _ in 0..PATIENCE_POLLS {
            let b = match self.h.provider().poll_stats(cursor, budget) {
                Ok(b) => b,
                Err(e) => panic!("counters cannot be read: {e}"),
            };
            assert!(b.stats.len() <= budget, "more counters than asked for");
            for (h, _, raw) in b.stats {
                assert!(all.insert(h, raw).is_none(), "{h:?} comes twice in a round");
            }
            if b.wrapped {
                return all;
            }
        }
        panic!("a round of counters has no end");
    }

    /// How many rules of the first template the suite installs together: no more than there is room for.
    pub fn some(&self, most: usize) -> u32 {
        let r = self.rule(0, 0);
        let room = self
            .caps
            .placements(&r)
            .map(|p| p.iter().filter_map(|p| self.caps.table(p.table)).map(|t| t.entries).max().unwrap_or(0));
        // Half, because a hash table need not take all it could.
        (room.unwrap_or(0) / 2).clamp(1, most) as u32
    }
}

/// What a rule does to a packet, as far as frames show it, in no particular order of ports.
pub(crate) fn expected(key: &PacketKey, r: &FlowRule) -> Sent {
    let Some(out) = apply(key, &r.actions) else {
        panic!("the suite does not know what {:?} does", r.actions);
    };
    visible(Sent::Forwarded(out))
}

/// Drops what frames do not show, and the order between outputs.
pub(crate) fn visible(s: Sent) -> Sent {
    let Sent::Forwarded(out) = s else {
        return s;
    };
    let mut out: Vec<_> = out
        .into_iter()
        .map(|(p, k)| {
            let mut v = PacketKey::ZERO;
            for f in VISIBLE {
                v.set(*f, k.get(*f));
            }
            (p, v)
        })
        .collect();
    out.sort_by_key(|(p, k)| (*p, *k.words()));
    Sent::Forwarded(out)
}
