//! Frames that entries send round again: what they bring along, and the way back when nothing comes of it (datasheet 6.8).
//!
//! ```text
//!   ports ──► parser ─► lookups ─► action engine ──► ports, host
//!               ▲                       │
//!               └────── [again] ◄───────┘   the parser takes these first
//! ```
//!
//! A frame on its second way round is not changed yet: its beginning and end are moved, and what entries would count is noted.
//! Only an entry that decides makes it so ([`Walk::settle`]); otherwise [`Packet::as_received`] gives it back as it came in.
//!
//! Cycle-level: the way back is a pipe of finite size, and the parser takes from it before it takes new frames, so that what
//! is in the pipeline always drains. Behavioural: what is read from the frame ([`crate::tunnel`]) and of its connection
//! ([`crate::connections`]).

use std::sync::Arc;

use simnic_defs::entry::key;
use simnic_defs::{HwAction, RxCpl, RxReason};

use crate::connections::{Connections, Tracked};
use crate::packet::Packet;
use crate::parser;
use crate::tables::{ActionList, Tables};
use crate::tunnel::{self, Brought};

/// Times that a frame is looked up at most.
pub(crate) const PASSES: u8 = 4;

/// An entry that sent a frame round again, and will have counted it.
#[derive(Clone, Debug)]
struct Step {
    table: u8,
    entry: u32,
    list: Arc<ActionList>,
    bytes: usize,
    /// The connection by which it did.
    tracked: Option<Tracked>,
}

kernel::state!(struct Step { table, entry, list, bytes, tracked });

/// Where a frame has been before this time round.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    steps: Vec<Step>,
    /// Where the frame began, and its hash, when it was received.
    head: usize,
    hash: u32,
    /// What it has as its ingress port, and in the second part of its key.
    port: u8,
    brought: Brought,
}

kernel::state!(struct Walk { steps, head, hash, port, brought });

impl Default for Walk {
    fn default() -> Self {
        Walk { steps: Vec::new(), head: 0, hash: 0, port: 0, brought: [0; size_of::<Brought>()] }
    }
}

impl Walk {
    /// Whether the frame is on its first way.
    #[inline]
    pub fn is_first(&self) -> bool {
        self.steps.is_empty()
    }

    /// Nothing of it is left.
    #[inline]
    pub fn clear(&mut self) {
        self.steps.clear();
    }

    /// Whether the entries that sent it here are what they were.
    pub fn holds(&self, tables: &Tables) -> bool {
        self.steps.iter().all(|s| {
            let entry = tables.entry(s.table, s.entry);
            entry.is_some_and(|e| e.actions == s.list)
                && s.tracked.as_ref().is_none_or(|t| tables.objects.connections.holds(t))
        })
    }

    /// An entry has decided: those that sent the frame there count it.
    pub fn settle(&mut self, tables: &mut Tables, now_ns: u64) {
        for s in self.steps.drain(..) {
            tables.count(s.table, s.entry, s.bytes, now_ns);
            if let Some(t) = s.tracked {
                tables.objects.connections.count(&t, s.bytes, now_ns);
            }
        }
    }
}

impl Packet {
    /// Parses the first `depth` bytes of the frame, received by `port`, anew when it was sent round again. Returns how far the parser went.
    pub fn look(&mut self, port: u8, depth: u16) -> u16 {
        let at = if self.walk.is_first() { port } else { self.walk.port };
        let end = self.data.len().min(self.end);
        let Packet { data, head, key, .. } = &mut *self;
        match parser::parse(data.get(*head..end).unwrap_or(&[]), at, depth, key) {
            Ok(layout) => {
                self.hash = parser::flow_hash(&self.key, &layout);
                self.layout = layout;
                self.parsed = true;
            }
            Err(parser::Unparsed) => {
                self.as_received();
                self.parsed = false;
                self.reason = RxReason::Unparsed;
            }
        }
        if !self.walk.is_first() {
            self.key[key::BROUGHT].copy_from_slice(&self.walk.brought);
        }
        if self.parsed { self.layout.end } else { depth }
    }

    /// Makes the frame what an entry that sends it round again makes of it; false when it is not for that entry.
    pub fn go_on(&mut self, list: Arc<ActionList>, connections: &mut Connections, now_ns: u64) -> bool {
        if self.walk.steps.len() + 1 >= usize::from(PASSES) {
            return false;
        }
        let bytes = self.len();
        let mut tracked = None;
        let (inner, port, brought) = match *list.actions {
            [HwAction::PopHeader { kind, port }] => {
                let Some(o) = tunnel::open(self.bytes(), &self.layout, kind) else { return false };
                (o.inner, port, o.says)
            }
            [HwAction::Track { zone, recirc }] => {
                let found = connections.look(self.bytes(), &self.key, &self.layout, zone, now_ns);
                let Some(t) = found else { return false };
                tracked = found;
                let mut brought: Brought = [0; size_of::<Brought>()];
                brought.copy_from_slice(&self.key[key::BROUGHT]);
                let mut put = |at: std::ops::Range<usize>, v: &[u8]| {
                    let from = at.start - key::BROUGHT.start;
                    brought[from..from + v.len()].copy_from_slice(v);
                };
                put(key::CT_ZONE, &zone.to_be_bytes());
                put(key::CT_STATE, &[t.state]);
                put(key::CT_MARK, &t.mark.to_be_bytes());
                put(key::RECIRC_ID, &recirc.to_be_bytes());
                (0..bytes, self.key[key::PORT.start], brought)
            }
            _ => return false,
        };
        let w = &mut self.walk;
        if w.is_first() {
            (w.head, w.hash) = (self.head, self.hash);
        }
        w.steps.push(Step { table: self.table, entry: self.entry, list, bytes, tracked });
        (w.port, w.brought) = (port, brought);
        self.end = self.head + inner.end;
        self.head += inner.start;
        (self.table, self.entry) = (RxCpl::NO_TABLE, RxCpl::NO_ENTRY);
        (self.parsed, self.reason) = (false, RxReason::Miss);
        true
    }

    /// The frame is as it was received, if it was sent round again since.
    pub fn as_received(&mut self) {
        if self.walk.is_first() {
            return;
        }
        (self.head, self.hash, self.end) = (self.walk.head, self.walk.hash, usize::MAX);
        (self.table, self.entry) = (RxCpl::NO_TABLE, RxCpl::NO_ENTRY);
        self.walk.clear();
    }

    /// The frame is what it has become, for good.
    pub fn as_is(&mut self) {
        self.data.truncate(self.end);
        self.end = usize::MAX;
    }
}
