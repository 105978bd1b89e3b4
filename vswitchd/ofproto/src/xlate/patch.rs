//! Going on in another bridge.
//!
//! The other bridge starts with the packet as it is, and without what only a pipeline has: registers, metadata, tunnel, the
//! state of a connection. When it is done the packet is again what it was.

use flow::FieldId;
use flow::field::METADATA;
use flow::tunnel::{HEADER_FIELDS, options};
use openflow::PortNo;

use super::{Admission, Environment, MAX_DEPTH, Misses, Problem, Xlate};
use crate::port::Port;
use crate::trace::StepKind;

/// What of a tunnel is said in the word of what the packet begins with.
fn beside_kind() -> impl Iterator<Item = FieldId> {
    HEADER_FIELDS.into_iter().filter(|f| f.info().word == FieldId::PacketType.info().word)
}

/// Words of a packet key with connection state and tunnel: what a packet does not take to another bridge, with [`beside_kind`].
fn left_behind() -> impl Iterator<Item = usize> {
    let (marks, kind) = (FieldId::PktMark.first_word(), FieldId::PacketType.first_word());
    METADATA
        .filter(move |i| *i != marks && *i != kind)
        .chain(options::words().map(|f| usize::from(f.info().word)))
}

impl<'a> Xlate<'a> {
    /// Sends the packet out of `port`, so that it comes in on `other`, a port of the bridge that `peer` is.
    pub(super) fn through_patch(&mut self, port: &Port, peer: Environment<'a>, other: &'a Port) {
        for (end, counters) in [(port, false), (other, true)] {
            if let Some(p) = &end.patch {
                self.out.credited.push(if counters { p.received.clone() } else { p.sent.clone() });
            }
        }
        let was = (
            (self.env, self.in_port, self.table, self.rule.take()),
            (std::mem::take(&mut self.action_set), std::mem::take(&mut self.in_action_set)),
            (self.packet_out, self.nest, self.mirrored, std::mem::take(&mut self.stack), self.tracked),
            std::mem::take(&mut self.in_group),
        );
        let kept = self.keep();
        let looked = left_behind().map(|i| self.wc.word(i)).collect::<Vec<_>>();
        if peer.index != self.env.index {
            self.mirrored = 0;
        }
        let configs = &mut self.out.deps.configs;
        if !configs.iter().any(|(b, _)| *b == peer.index) {
            configs.push((peer.index, peer.pipeline.config_generation));
        }
        self.step(|| StepKind::Bridge(peer.name.into()));
        self.env = peer;
        self.in_port = other.no;
        self.packet_out = false;
        self.tracked = false;
        self.nest += 1;
        self.start_over(other.no);
        self.look_at_what_moved_up();
        let (from, mut discarded) = (self.out.actions.len(), false);
        if self.depth >= MAX_DEPTH {
            self.fail(Problem::TooDeep);
        } else {
            self.depth += 1;
            let found = if self.headers.reparse_needed { None } else { Some(self.lookup(0, Misses::Told)) };
            if self.taken_by_port() {
                // Not for the tables.
            } else if other.receives() && self.admission() != Admission::Nothing {
                let admission = self.admission();
                match found {
                    Some(found) => self.follow(0, found),
                    None => self.table_chain(0, None, Misses::Told),
                }
                self.execute_action_set();
                if admission == Admission::Learning {
                    self.discard_from(from);
                    discarded = true;
                } else {
                    self.finish_freezing();
                }
            }
            self.depth -= 1;
        }

        let (bridge, set, rest, in_group) = was;
        self.in_group = in_group;
        (self.env, self.in_port, self.table, self.rule) = bridge;
        (self.action_set, self.in_action_set) = set;
        (self.packet_out, self.nest, self.mirrored, self.stack, self.tracked) = rest;
        for (i, w) in left_behind().zip(looked) {
            self.wc.set_word(i, w);
        }
        if discarded {
            // Nothing was done to the datapath's packet.
            self.take_back(kept);
        } else {
            self.give_back(kept);
        }
        // What goes wrong there is no concern of this bridge, unless nothing may be added any more.
        if self.out.problem != Some(Problem::TooManyActions) {
            self.out.problem = None;
            self.halted = false;
        }
    }

    /// What only a pipeline has begins anew.
    fn start_over(&mut self, in_port: PortNo) {
        let queue = self.key.get(FieldId::SkbPriority);
        for i in left_behind().chain(usize::from(FieldId::InPort.info().word)..flow::PIPELINE_WORDS) {
            self.key.set_word(i, 0);
            if i < flow::PACKET_WORDS {
                self.written.set_word(i, 0);
            }
        }
        for f in beside_kind() {
            self.key.set(f, 0);
            self.written.set_masked(f, 0, u128::MAX);
        }
        self.written.set_exact(FieldId::SkbPriority);
        // Which queue it takes stays.
        self.key.set(FieldId::SkbPriority, queue);
        self.key.set(FieldId::InPort, in_port.0.into());
        self.key.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
    }
}
