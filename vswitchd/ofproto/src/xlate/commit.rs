//! Bringing the datapath's packet up to date.
//!
//! Writes are lazy: an action changes the current key only, and before the packet leaves, what differs from the
//! datapath's packet is written. Headers are pushed late too, so that a pushed tag carries the value set after it, and a
//! push that is popped again costs nothing. Tags are popped late as well; labels at once: nothing can undo that.

use flow::headers::eth_type;
use flow::{Action, FieldId, Key, PacketKey, canonical_in};

use super::encap::{Own, Pending};
use super::tunnel::tunnel_fields;
use super::{MAX_ACTIONS, Problem, Xlate};
use crate::vlan::{PRESENT, Source, Tag, Tags};

const VLAN_PRESENT: u128 = PRESENT as u128;

/// Fields from the MPLS labels up, which an MPLS push hides. The Ethernet type goes with them.
const ABOVE_L2: std::ops::Range<usize> = FieldId::NwSrc.first_word()..FieldId::NdTarget.first_word() + 2;

/// What is pending, and what the key does not say.
#[derive(Clone, Default)]
pub(super) struct Headers {
    /// The tags of the packet by now; the key shows the two outermost.
    pub(super) tags: Tags,
    /// The tags of the datapath's packet.
    pub(super) base_tags: Tags,
    /// A tag has been pushed or popped since the two were last the same.
    pub(super) tags_changed: bool,
    /// The key's outermost label is not on the datapath's packet yet; what it hides.
    pub(super) mpls_pushed: Option<Box<Hidden>>,
    /// What labels hide that were pushed, innermost first: of the packet by now, and of the datapath's.
    pub(super) labels: Vec<Hidden>,
    pub(super) base_labels: Vec<Hidden>,
    /// TTL decrements not executed yet.
    pub(super) ttl_decrements: u8,
    /// TTL decrements so far.
    pub(super) ttl_decrements_in_all: u8,
    /// A header was removed or added such that the key no longer covers what is below.
    pub(super) reparse_needed: bool,
    /// What the datapath's packet is to begin with.
    pub(super) pending: Option<Pending>,
    /// Headers that the packet did not come with.
    pub(super) own: Option<Own>,
}

impl Headers {
    /// Of a packet as it came in.
    pub(super) fn of(key: &PacketKey) -> Self {
        let at = |i: u8, p, t| Tag {
            tpid: key.get64(p) as u16,
            tci: key.get64(t) as u16,
            source: Source::Packet(i),
        };
        let seen = [at(0, FieldId::VlanTpid, FieldId::VlanTci), at(1, FieldId::VlanTpid2, FieldId::VlanTci2)];
        let tags: Tags = seen.into_iter().take_while(|t| t.tci & PRESENT != 0).collect();
        Headers { base_tags: tags.clone(), tags, ..Headers::default() }
    }
}

/// What a pushed label hides.
#[derive(Clone, PartialEq)]
pub(super) struct Hidden {
    words: [u64; ABOVE_L2.end - ABOVE_L2.start],
    eth_type: u128,
}

/// Whether a packet with this key has labels.
pub(super) fn has_labels<const N: usize>(key: &Key<N>) -> bool {
    eth_type::is_mpls(key.get64(FieldId::EthType) as u16)
}

impl Xlate<'_> {
    /// Adds an action.
    pub(super) fn emit(&mut self, a: Action) {
        if self.out.actions.len() >= MAX_ACTIONS {
            self.fail(Problem::TooManyActions);
        } else {
            self.out.actions.push(a);
        }
    }

    /// As [`Xlate::commit`], but for what only matters in a tunnel: no other port has a use for it.
    pub(super) fn commit_packet(&mut self) {
        if tunnel_fields().all(|f| self.written.present() >> f.info().word & 1 == 0) {
            return self.commit();
        }
        let written = self.written;
        tunnel_fields().for_each(|f| self.written.set_masked(f, 0, u128::MAX));
        self.commit();
        for f in tunnel_fields() {
            let w = written.get(f);
            self.written.set_masked(f, w, w);
        }
    }

    /// Makes the datapath's packet what the key says.
    pub(super) fn commit(&mut self) {
        self.commit_packet_type();
        self.commit_fields(|f| matches!(f.canon, FieldId::EthSrc | FieldId::EthDst));
        self.commit_nsh();
        self.commit_above_l2();
        self.commit_mpls();
        self.commit_vlan();
        self.commit_fields(|f| !ABOVE_L2.contains(&usize::from(f.word)));
    }

    /// Brings the network header and what follows up to date.
    fn commit_above_l2(&mut self) {
        self.keep_label();
        self.uncover();
        self.leave_nameless();
        for _ in 0..self.headers.ttl_decrements {
            self.for_good += 1;
            self.emit(Action::DecTtl);
        }
        if self.headers.ttl_decrements > 0 {
            self.headers.ttl_decrements = 0;
            self.base.set(FieldId::NwTtl, self.key.get(FieldId::NwTtl));
        }
        // Below a label that is still to be pushed everything was brought up to date, and the key does not show it.
        if self.headers.mpls_pushed.is_none() {
            self.commit_fields(|f| ABOVE_L2.contains(&usize::from(f.word)));
        }
    }

    /// The label that is still to be pushed is on the datapath's packet already, put there for somebody else.
    fn keep_label(&mut self) {
        let h = &self.headers;
        let there = h.base_labels.len() == h.labels.len() + 1
            && h.base_labels.last() == h.mpls_pushed.as_deref()
            && self.base.get(FieldId::EthType) == self.key.get(FieldId::EthType);
        if there && let Some(hidden) = self.headers.mpls_pushed.take() {
            self.headers.labels.push(*hidden);
            self.written.set_exact(FieldId::MplsLse0);
        }
    }

    /// Open vSwitch changes nothing in the network headers of packets of protocol 0, and in ARP of operation 0.
    fn leave_nameless(&mut self) {
        let network = matches!(self.key.get64(FieldId::EthType), 0x0800 | 0x86dd | 0x0806);
        if network && self.stock() && self.key.get(FieldId::NwProto) == 0 {
            self.headers.ttl_decrements = 0;
            for i in ABOVE_L2 {
                self.written.set_word(i, 0);
            }
        }
    }

    /// Takes labels off the datapath's packet that were pushed onto it for somebody else.
    fn uncover(&mut self) {
        while self.headers.base_labels.len() > self.headers.labels.len() {
            let Some(h) = self.headers.base_labels.pop() else { return };
            self.emit(Action::PopMpls { eth_type: h.eth_type as u16 });
            for (i, w) in ABOVE_L2.zip(h.words) {
                self.base.set_word(i, w);
            }
            self.base.set(FieldId::EthType, h.eth_type);
        }
    }

    /// Puts a tag on the datapath's packet. Values taken from the packet are looked at.
    fn emit_push(&mut self, t: &Tag) {
        if let Some(i) = t.source.tag() {
            self.look_at_tag(i);
        }
        self.emit(Action::PushVlan { tpid: t.tpid, tci: t.tci & !PRESENT });
    }

    /// The whole tag that the packet came in with is looked at.
    pub(super) fn look_at_tag(&mut self, i: u8) {
        let (tpid, tci) = match i {
            0 => (FieldId::VlanTpid, FieldId::VlanTci),
            _ => (FieldId::VlanTpid2, FieldId::VlanTci2),
        };
        self.wc.set_exact(tpid);
        self.wc.set_exact(tci);
    }

    /// Writes the changed fields of one group.
    fn commit_fields(&mut self, group: fn(&flow::Field) -> bool) {
        for f in canonical_in(self.written.present()).filter(|f| group(f)) {
            if matches!(f.id, FieldId::VlanTci | FieldId::MplsLse0 | FieldId::PacketType) {
                continue;
            }
            let mask = self.written.get(f.id);
            if mask == 0 {
                continue;
            }
            let value = self.key.get(f.id) & mask;
            if value != self.base.get(f.id) & mask {
                self.emit(Action::SetField { field: f.id, value, mask });
                self.base.set_masked(f.id, value, mask);
            }
            self.written.set_masked(f.id, 0, u128::MAX);
        }
    }

    fn commit_vlan(&mut self) {
        let mask = self.written.get(FieldId::VlanTci) & !VLAN_PRESENT;
        self.written.set(FieldId::VlanTci, 0);
        if !std::mem::take(&mut self.headers.tags_changed) && mask == 0 {
            return;
        }
        let (tags, base) = (self.headers.tags.clone(), self.headers.base_tags.clone());
        if self.stock() {
            // Compared by value, and looked at whole when anything differs.
            if !tags.equal(&base) {
                let common = tags.common_values(&base);
                for i in 0..2 {
                    self.look_at_tag(i);
                }
                self.emit_tags(&tags, &base, common);
            }
            self.headers.base_tags = tags;
            return;
        }
        let common = tags.common(&base);
        self.emit_tags(&tags, &base, common);
        if common == tags.len() {
            // The outermost tag is one that was there; bits of it may have been written.
            let tci = |t: Option<&Tag>| u128::from(t.map_or(0, |t| t.tci)) & mask;
            let value = tci(tags.get(0));
            if value != tci(base.get(base.len() - common)) {
                self.emit(Action::SetField { field: FieldId::VlanTci, value, mask });
            }
        }
        self.headers.base_tags = tags;
    }

    /// Makes one stack of tags of the other; the innermost `common` stay.
    fn emit_tags(&mut self, tags: &Tags, base: &Tags, common: usize) {
        for _ in common..base.len() {
            self.emit(Action::PopVlan);
        }
        for t in (0..tags.len() - common).rev().filter_map(|i| tags.get(i)) {
            self.emit_push(t);
        }
    }

    fn commit_mpls(&mut self) {
        let mask = self.written.get(FieldId::MplsLse0);
        self.written.set(FieldId::MplsLse0, 0);
        let lse = self.key.get(FieldId::MplsLse0);
        let changed = (lse ^ self.base.get(FieldId::MplsLse0)) & mask != 0;
        if let Some(hidden) = self.headers.mpls_pushed.take() {
            let eth_type = self.key.get(FieldId::EthType) as u16;
            self.headers.labels.push((*hidden).clone());
            self.headers.base_labels.push(*hidden);
            self.emit(Action::PushMpls { eth_type, lse: lse as u32 });
            for i in ABOVE_L2 {
                self.base.set_word(i, self.key.word(i));
            }
            self.base.set(FieldId::EthType, eth_type.into());
        } else if changed {
            self.emit(Action::SetField { field: FieldId::MplsLse0, value: lse & mask, mask });
            self.base.set_masked(FieldId::MplsLse0, lse, mask);
        }
    }

    /// Whether the packet, as it is by now, has a VLAN tag.
    fn tagged(&self) -> bool {
        self.headers.tags.len() > 0
    }

    /// Writes bits of the VLAN tag. Clearing the present bit pops the tag, setting it pushes one (Nicira's `vlan_tci`).
    pub(super) fn set_vlan(&mut self, field: FieldId, value: u128, mask: u128) {
        let mut as_tci = flow::PipelineMask::ZERO;
        as_tci.set_masked(field, u128::MAX, mask);
        let tci_mask = as_tci.get(FieldId::VlanTci);
        if field == FieldId::VlanTci && tci_mask & VLAN_PRESENT != 0 {
            match (self.tagged(), value & VLAN_PRESENT != 0) {
                (true, false) => return self.pop_vlan(),
                (false, true) => self.push_vlan(0x8100),
                (false, false) => return,
                (true, true) => {}
            }
        } else if !self.tagged() {
            self.note("the packet has no VLAN tag");
            return;
        }
        let mask = tci_mask & !VLAN_PRESENT;
        let mut v = flow::PipelineKey::ZERO;
        v.set(field, value);
        self.wc.set_masked(FieldId::VlanTci, u128::MAX, mask);
        let value = v.get(FieldId::VlanTci);
        if let Some(t) = self.headers.tags.outer() {
            t.tci = t.tci & !(mask as u16) | (value & mask) as u16;
        }
        self.written.set_masked(FieldId::VlanTci, u128::MAX, mask);
        self.show_tags();
    }

    /// Puts the two outermost tags into the key.
    pub(super) fn show_tags(&mut self) {
        for (i, p, t) in
            [(0, FieldId::VlanTpid, FieldId::VlanTci), (1, FieldId::VlanTpid2, FieldId::VlanTci2)]
        {
            let (tpid, tci) = self.headers.tags.get(i).map_or((0, 0), |t| (t.tpid, t.tci));
            self.key.set(p, tpid.into());
            self.key.set(t, tci.into());
        }
    }

    pub(super) fn push_vlan(&mut self, tpid: u16) {
        if !self.is_ethernet() {
            self.note("not an Ethernet packet");
            return;
        }
        self.settle_outer_tag();
        // The new tag starts with VLAN 0, as in Open vSwitch; OpenFlow 1.3.5 5.11.1 would copy that of the old one.
        self.headers.tags.push(Tag::new(tpid, 0));
        self.headers.tags_changed = true;
        self.show_tags();
    }

    /// The outermost tag gets below another, or is one of those that NORMAL chooses from: bits of it that were written are
    /// written now, so that it stays the packet's own, with what the key does not carry. Where stock megaflows are wanted it
    /// is a new tag from here on.
    pub(super) fn settle_outer_tag(&mut self) {
        let written = self.written.get(FieldId::VlanTci) & !VLAN_PRESENT != 0;
        let stock = self.stock();
        let own = self.headers.tags.outer().filter(|t| written && matches!(t.source, Source::Packet(_)));
        if own.is_some() && !stock {
            self.commit_vlan();
            return;
        }
        if let Some(t) = own
            && let Source::Packet(i) = t.source
        {
            t.source = Source::Constant;
            self.look_at_tag(i);
            self.headers.tags_changed = true;
        }
        self.written.set(FieldId::VlanTci, 0);
    }

    pub(super) fn pop_vlan(&mut self) {
        if !self.tagged() {
            self.note("the packet has no VLAN tag");
            return;
        }
        self.written.set(FieldId::VlanTci, 0);
        self.headers.tags.pop();
        self.headers.tags_changed = true;
        self.look_at_what_moved_up();
        self.show_tags();
    }

    /// When the packet's first tag is gone, what was below it is now where everybody looks: it is looked at where it was, or
    /// that there is none.
    pub(super) fn look_at_what_moved_up(&mut self) {
        match self.headers.tags.get(0).map(|t| t.source) {
            Some(Source::Packet(i)) if i > 0 => self.look_at_tag(i),
            Some(_) => {}
            None => self.wc.set_masked(FieldId::VlanTci2, u128::MAX, VLAN_PRESENT),
        }
    }

    /// Whether the packet has three labels, as many as are known, or with `more` one below them. Looks at what tells the last.
    pub(super) fn has_three_labels(&mut self, more: bool) -> bool {
        if !has_labels(&self.key) {
            return false;
        }
        for f in [FieldId::MplsLse0, FieldId::MplsLse1, FieldId::MplsLse2] {
            self.wc.set_masked(f, u128::MAX, 0x100);
            if self.key.get(f) & 0x100 != 0 {
                return !more && f == FieldId::MplsLse2;
            }
        }
        true
    }

    pub(super) fn push_mpls(&mut self, eth_type: u16) {
        if self.stock() && self.has_three_labels(false) {
            return self.fail(Problem::MplsPush);
        }
        if self.headers.pending.is_some() {
            self.commit_packet();
        }
        // The network header is out of reach below a label: bring it up to date first.
        self.commit_nsh();
        self.commit_above_l2();
        self.commit_mpls();
        let t = self.key.get64(FieldId::EthType);
        let old = self.key.get(FieldId::MplsLse0);
        let mut hidden = Hidden { words: [0; ABOVE_L2.end - ABOVE_L2.start], eth_type: t.into() };
        for i in ABOVE_L2 {
            hidden.words[i - ABOVE_L2.start] = self.key.word(i);
        }
        let lse = if has_labels(&self.key) {
            for f in [FieldId::MplsLse0, FieldId::MplsLse1] {
                self.wc.set_exact(f);
            }
            self.key.set(FieldId::MplsLse2, self.key.get(FieldId::MplsLse1));
            self.key.set(FieldId::MplsLse1, old);
            old & !0x100
        } else {
            let (label, ttl) = match t {
                0x0800 | 0x86dd => {
                    self.wc.set_exact(FieldId::NwTtl);
                    // Explicit null (RFC 3032 2.1).
                    (if t == 0x86dd { 2 } else { 0 }, self.key.get(FieldId::NwTtl))
                }
                _ => (0, 64),
            };
            for i in ABOVE_L2 {
                self.key.set_word(i, 0);
            }
            label << 12 | 0x100 | ttl
        };
        self.key.set(FieldId::MplsLse0, lse);
        self.key.set(FieldId::EthType, eth_type.into());
        self.begins_with(eth_type);
        self.headers.mpls_pushed = Some(Box::new(hidden));
    }

    pub(super) fn pop_mpls(&mut self, eth_type: u16) {
        if !has_labels(&self.key) {
            self.note("not an MPLS packet");
            return;
        }
        if self.stock() && self.has_three_labels(true) {
            return self.fail(Problem::MplsPop);
        }
        if self.headers.pending.is_some() {
            self.commit_packet();
        }
        self.begins_with(eth_type);
        self.written.set(FieldId::MplsLse0, 0);
        if let Some(h) = self.headers.mpls_pushed.take() {
            for (i, w) in ABOVE_L2.zip(h.words) {
                self.key.set_word(i, w);
            }
            self.key.set(FieldId::EthType, h.eth_type);
            if h.eth_type != u128::from(eth_type) {
                // The rules call it something else than it was: only a fresh look could tell.
                self.key.set(FieldId::EthType, eth_type.into());
                self.headers.reparse_needed = true;
                self.commit_pushed_and_popped(eth_type);
            }
            return;
        }
        self.for_good += 1;
        self.uncover();
        self.emit(Action::PopMpls { eth_type });
        self.headers.labels.pop();
        self.headers.base_labels.pop();
        let bottom = self.key.get(FieldId::MplsLse0) & 0x100 != 0;
        self.wc.set_masked(FieldId::MplsLse0, u128::MAX, 0x100);
        self.wc.set_exact(FieldId::MplsLse1);
        self.wc.set_exact(FieldId::MplsLse2);
        let third = self.key.get(FieldId::MplsLse2);
        // Below the last label, and below the third, is what the parser has not looked at.
        self.headers.reparse_needed |=
            bottom || !eth_type::is_mpls(eth_type) || third != 0 && third & 0x100 == 0;
        self.key.set(FieldId::MplsLse0, self.key.get(FieldId::MplsLse1));
        self.key.set(FieldId::MplsLse1, third);
        self.key.set(FieldId::MplsLse2, 0);
        self.key.set(FieldId::EthType, eth_type.into());
        for i in ABOVE_L2 {
            self.base.set_word(i, self.key.word(i));
        }
        self.base.set(FieldId::EthType, eth_type.into());
    }

    /// A packet without an Ethernet header begins with what its Ethernet type stands for.
    fn begins_with(&mut self, eth_type: u16) {
        if !self.is_ethernet() {
            self.key.set(FieldId::PacketType, flow::packet_type::of_type(eth_type).into());
        }
    }

    /// A push and a pop that together change the Ethernet type only.
    fn commit_pushed_and_popped(&mut self, eth_type: u16) {
        self.for_good += 1;
        self.emit(Action::PushMpls { eth_type: 0x8847, lse: 0x100 });
        self.emit(Action::PopMpls { eth_type });
        self.base.set(FieldId::EthType, eth_type.into());
    }
}
