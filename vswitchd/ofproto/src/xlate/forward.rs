//! Where packets go: ports, real and reserved.

use exporters::netflow::{DROPPED, FLOODED};
use flow::{Action, BondId, FieldId};
use openflow::PortNo;
use openflow::port::PortConfig;

use super::export::joined;
use super::{Misses, Xlate};
use crate::port::Port;

impl Xlate<'_> {
    /// Executes an output action.
    pub(super) fn output_action(&mut self, port: PortNo, max_len: u16) {
        let before = std::mem::replace(&mut self.exporting.leaves_by, DROPPED);
        self.output_to(port, max_len);
        self.exporting.leaves_by = joined(before, self.exporting.leaves_by);
    }

    fn output_to(&mut self, port: PortNo, max_len: u16) {
        let in_port = PortNo(self.key.get64(FieldId::InPort) as u32);
        match port {
            PortNo::IN_PORT => self.send(in_port),
            PortNo::TABLE => self.resubmit(PortNo::IN_PORT, 0, Misses::GoOn),
            PortNo::NORMAL => self.normal(in_port),
            PortNo::FLOOD => self.flood(in_port, false),
            PortNo::ALL => self.flood(in_port, true),
            PortNo::CONTROLLER => self.controller(self.output_reason(), max_len),
            PortNo::ANY | PortNo::UNSET => self.note("no port"),
            p if p == in_port => self.warn("skipping output to input port"),
            p => self.send(p),
        }
    }

    /// Sends at most `max_len` bytes of the packet to a port.
    pub(super) fn output_cut(&mut self, port: PortNo, max_len: u32) {
        let in_port = PortNo(self.key.get64(FieldId::InPort) as u32);
        match port {
            PortNo::IN_PORT => self.send_cut(in_port, Some(max_len)),
            p if p == in_port => self.warn("skipping output to input port"),
            p if self.env.pipeline.ports.get(p).is_none_or(|p| p.patch.is_some()) => {
                // What is cut is the next output, and nobody knows which that would be.
                self.wrong(|| format!("output_trunc does not support patch port {p}"));
            }
            p => self.send_cut(p, Some(max_len)),
        }
    }

    /// Sends the packet to a real port.
    pub(super) fn send(&mut self, port: PortNo) {
        self.send_cut(port, None);
    }

    fn send_cut(&mut self, port: PortNo, max_len: Option<u32>) {
        let env = self.env;
        let Some(p) = env.pipeline.ports.get(port) else {
            self.warn("Nonexistent output port");
            return;
        };
        if !p.forwards() {
            self.detail("OFPPC_NO_FWD set, skipping output");
            return;
        }
        if let Some(state) = p.tree_state(&env.pipeline.settings) {
            let rapid = env.pipeline.settings.tree.is_some_and(|t| t.rapid);
            let is_bpdu = self.is_bpdu();
            let why = match (is_bpdu, rapid) {
                (true, _) if state.sends_bpdus() => None,
                // A link that is checked is so whether or not it is a part of the tree.
                (false, _) if state.forwards() || self.of_link(&p.settings).is_some() => None,
                (true, false) => Some("STP not in listening state, skipping bpdu output"),
                (true, true) => Some("RSTP not managing BPDU in this state, skipping bpdu output"),
                (false, false) => Some("STP not in forwarding state, skipping output"),
                (false, true) => Some("RSTP not in forwarding state, skipping output"),
            };
            if let Some(why) = why {
                return self.warn(why);
            }
        }
        if p.settings.protected && self.came_protected() {
            self.warn("Flow is between protected ports, skipping output.");
            return;
        }
        if p.patch.is_some() {
            if max_len.is_some() {
                self.wrong(|| "Cannot truncate output to patch port".into());
            }
            if self.snaplen.is_some() {
                self.warn("Mirror truncate to ODPP_NONE, skipping output");
            } else if let Some((peer, other)) = env.peer(p) {
                self.through_patch(p, peer, other);
            }
            return;
        }
        let kind = self.key.get(FieldId::PacketType);
        if !self.suit(p.packets()) {
            return;
        }
        if let Some(t) = &p.tunnel {
            self.send_through_tunnel(p, t, max_len.or(self.snaplen.map(u32::from)));
            self.key.set(FieldId::PacketType, kind);
            self.exporting.left_by(p.no);
            return self.mirror_departure(p);
        }
        if p.no == PortNo::LOCAL && self.out_of_tunnel() {
            return self.mirror_departure(p);
        }
        let tos = self.mark_for_queue(p);
        self.commit_packet();
        if let Some(tos) = tos {
            // Only this copy has the queue's.
            self.key.set(FieldId::NwTos, tos);
            self.written.set_masked(FieldId::NwTos, u128::MAX, 0xfc);
        }
        if let Some(n) = max_len {
            self.emit(Action::Trunc(n));
        }
        self.sample_departure(p);
        if let Some(n) = self.snaplen.filter(|_| max_len.is_none()) {
            self.emit(Action::Trunc(n.into()));
        }
        self.emit(Action::Output(p.dp));
        self.exporting.left_by(p.no);
        self.mirror_departure(p);
    }

    /// Sends the packet by a bond, of which the datapath has table `number`. Who counts or mirrors what leaves by it sees it leave by
    /// `port`, its first member.
    pub(super) fn leave_by_table(&mut self, port: PortNo, number: u32) {
        let env = self.env;
        let Some(p) = env.pipeline.ports.get(port) else {
            return self.warn("Nonexistent output port");
        };
        if p.settings.protected && self.came_protected() {
            return self.warn("Flow is between protected ports, skipping output.");
        }
        if !self.suit(p.packets()) {
            return;
        }
        self.commit_packet();
        self.sample_departure(p);
        if let Some(n) = self.snaplen {
            self.emit(Action::Trunc(n.into()));
        }
        self.emit(Action::LbOutput(BondId(number)));
        self.exporting.left_by(p.no);
        self.mirror_departure(p);
    }

    /// Gives the packet the DSCP of the queue of `p` that it takes, if that has one; what it had before.
    fn mark_for_queue(&mut self, p: &Port) -> Option<u128> {
        let queues = &p.settings.queues;
        if !queues.values().any(|q| q.dscp.is_some()) || !self.has(FieldId::NwTos) {
            return None;
        }
        self.wc.set_exact(FieldId::SkbPriority);
        let taken = self.key.get64(FieldId::SkbPriority) as u32;
        let dscp = queues.get(&taken).and_then(|q| q.dscp)?;
        self.wc.set_masked(FieldId::NwTos, u128::MAX, 0xfc);
        let before = self.key.get(FieldId::NwTos);
        self.key.set_masked(FieldId::NwTos, u128::from(dscp) << 2, 0xfc);
        self.written.set_masked(FieldId::NwTos, u128::MAX, 0xfc);
        self.ever_written.set_masked(FieldId::NwTos, u128::MAX, 0xfc);
        Some(before)
    }

    /// Whether the port that the packet counts as having come in on is protected.
    pub(super) fn came_protected(&self) -> bool {
        let in_port = PortNo(self.key.get64(FieldId::InPort) as u32);
        self.env.pipeline.ports.get(in_port).is_some_and(|p| p.settings.protected)
    }

    /// Sends the packet to every port but `in_port`; unless `all`, not to those that are not to be flooded.
    fn flood(&mut self, in_port: PortNo, all: bool) {
        let env = self.env;
        for p in env.pipeline.ports.iter().filter(|p| p.no != in_port) {
            if all || !p.config.has(PortConfig::NO_FLOOD) {
                self.send(p.no);
            }
        }
        self.exporting.leaves_by = FLOODED;
    }
}
