//! Bringing the datapath's packet up to date.
//!
//! Writes are lazy: an action changes the current key only, and before the packet leaves, what differs from the
//! datapath's packet is written. Headers are pushed late too, so that a pushed tag carries the value set after it, and a
//! push that is popped again costs nothing. Pops happen at once: nothing can undo them.

use flow::{Action, FIELDS, FieldId, Scope};

use smallvec::SmallVec;

use super::{MAX_ACTIONS, Problem, Xlate};

const VLAN_PRESENT: u128 = 0x1000;

/// Fields from the MPLS labels up, which an MPLS push hides. The Ethernet type goes with them.
const ABOVE_L2: std::ops::Range<usize> = 23..36;

/// What is pending, and what the key does not say.
#[derive(Default)]
pub(super) struct Headers {
    /// The key's outermost VLAN tag is not on the datapath's packet yet.
    vlan_pushed: bool,
    /// Tags below the two that the key shows, lowest first: type and control.
    lower_tags: SmallVec<[(u16, u16); 2]>,
    /// The key's outermost label is not on the datapath's packet yet; what it hides.
    mpls_pushed: Option<Box<Hidden>>,
    /// TTL decrements not executed yet.
    pub(super) ttl_decrements: u8,
    /// TTL decrements so far.
    pub(super) ttl_decrements_in_all: u8,
    /// A header was removed or added such that the key no longer covers what is below.
    pub(super) reparse_needed: bool,
}

/// What a pushed label hides.
struct Hidden {
    words: [u64; ABOVE_L2.end - ABOVE_L2.start],
    eth_type: u128,
}

fn is_mpls(eth_type: u64) -> bool {
    matches!(eth_type, 0x8847 | 0x8848)
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

    /// Makes the datapath's packet what the key says.
    pub(super) fn commit(&mut self) {
        self.commit_above_l2();
        self.commit_mpls();
        self.commit_vlan();
        self.commit_fields(|f| f.word < ABOVE_L2.start as u8);
    }

    /// Brings the network header and what follows up to date.
    fn commit_above_l2(&mut self) {
        for _ in 0..self.headers.ttl_decrements {
            self.emit(Action::DecTtl);
        }
        if self.headers.ttl_decrements > 0 {
            self.headers.ttl_decrements = 0;
            self.base.set(FieldId::NwTtl, self.key.get(FieldId::NwTtl));
        }
        self.commit_fields(|f| ABOVE_L2.contains(&usize::from(f.word)));
    }

    /// Writes the changed fields of one group.
    fn commit_fields(&mut self, group: fn(&flow::Field) -> bool) {
        if self.written.is_zero() {
            return;
        }
        for f in FIELDS.iter().filter(|f| f.id.is_canonical() && f.scope == Scope::Packet && group(f)) {
            if matches!(f.id, FieldId::VlanTci | FieldId::MplsLse0) {
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
        let mask = self.written.get(FieldId::VlanTci);
        self.written.set(FieldId::VlanTci, 0);
        if self.headers.vlan_pushed {
            self.headers.vlan_pushed = false;
            let (tpid, tci) = (self.key.get(FieldId::VlanTpid) as u16, self.key.get(FieldId::VlanTci) as u16);
            self.emit(Action::PushVlan { tpid, tci: tci & !0x1000 });
            self.base.set_word(21, self.key.word(21));
            return;
        }
        let mask = mask & !VLAN_PRESENT;
        let value = self.key.get(FieldId::VlanTci) & mask;
        if mask != 0 && value != self.base.get(FieldId::VlanTci) & mask {
            self.emit(Action::SetField { field: FieldId::VlanTci, value, mask });
            self.base.set_masked(FieldId::VlanTci, value, mask);
        }
    }

    fn commit_mpls(&mut self) {
        let mask = self.written.get(FieldId::MplsLse0);
        self.written.set(FieldId::MplsLse0, 0);
        let lse = self.key.get(FieldId::MplsLse0);
        let changed = (lse ^ self.base.get(FieldId::MplsLse0)) & mask != 0;
        if self.headers.mpls_pushed.take().is_some() {
            let eth_type = self.key.get(FieldId::EthType) as u16;
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
        self.key.get(FieldId::VlanTci) & VLAN_PRESENT != 0
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
        self.key.set_masked(FieldId::VlanTci, v.get(FieldId::VlanTci), mask);
        self.written.set_masked(FieldId::VlanTci, u128::MAX, mask);
    }

    pub(super) fn push_vlan(&mut self, tpid: u16) {
        // A tag that is pending, or written to, is below the new one.
        self.commit_vlan();
        // The new tag starts with VLAN 0, as in Open vSwitch; OpenFlow 1.3.5 5.11.1 would copy that of the old one.
        let (tci, old_tpid) = (self.key.get(FieldId::VlanTci), self.key.get(FieldId::VlanTpid));
        let (tci2, tpid2) = (self.key.get(FieldId::VlanTci2), self.key.get(FieldId::VlanTpid2));
        if tci2 & VLAN_PRESENT != 0 {
            // It may be pushed again, and is then a value like any other.
            self.wc.set_exact(FieldId::VlanTci2);
            self.wc.set_exact(FieldId::VlanTpid2);
            self.headers.lower_tags.push((tpid2 as u16, tci2 as u16));
        }
        self.key.set(FieldId::VlanTci2, tci);
        self.key.set(FieldId::VlanTpid2, old_tpid);
        self.key.set(FieldId::VlanTci, VLAN_PRESENT);
        self.key.set(FieldId::VlanTpid, tpid.into());
        self.headers.vlan_pushed = true;
    }

    pub(super) fn pop_vlan(&mut self) {
        if !self.tagged() {
            self.note("the packet has no VLAN tag");
            return;
        }
        self.written.set(FieldId::VlanTci, 0);
        if self.headers.vlan_pushed {
            self.headers.vlan_pushed = false;
            self.uncover_tag();
            return;
        }
        self.emit(Action::PopVlan);
        self.uncover_tag();
        self.base.set_word(21, self.key.word(21));
    }

    /// What was below the outermost tag moves up. Whoever looks at it then looked at where it was. A third tag that the
    /// packet came in with is payload, and stays it.
    fn uncover_tag(&mut self) {
        if self.key.get(FieldId::VlanTci2) & VLAN_PRESENT != 0 {
            self.wc.set_exact(FieldId::VlanTci2);
            self.wc.set_exact(FieldId::VlanTpid2);
        } else {
            self.wc.set_masked(FieldId::VlanTci2, u128::MAX, VLAN_PRESENT);
        }
        for (to, from) in [(FieldId::VlanTci, FieldId::VlanTci2), (FieldId::VlanTpid, FieldId::VlanTpid2)] {
            self.key.set(to, self.key.get(from));
            self.key.set(from, 0);
        }
        if let Some((tpid, tci)) = self.headers.lower_tags.pop() {
            self.key.set(FieldId::VlanTci2, tci.into());
            self.key.set(FieldId::VlanTpid2, tpid.into());
        }
    }

    pub(super) fn push_mpls(&mut self, eth_type: u16) {
        // The network header is out of reach below a label: bring it up to date first.
        self.commit_above_l2();
        self.commit_mpls();
        let t = self.key.get64(FieldId::EthType);
        let old = self.key.get(FieldId::MplsLse0);
        let mut hidden = Hidden { words: [0; ABOVE_L2.end - ABOVE_L2.start], eth_type: t.into() };
        for i in ABOVE_L2 {
            hidden.words[i - ABOVE_L2.start] = self.key.word(i);
        }
        let lse = if is_mpls(t) {
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
        self.headers.mpls_pushed = Some(Box::new(hidden));
    }

    pub(super) fn pop_mpls(&mut self, eth_type: u16) {
        if !is_mpls(self.key.get64(FieldId::EthType)) {
            self.note("not an MPLS packet");
            return;
        }
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
        self.emit(Action::PopMpls { eth_type });
        let bottom = self.key.get(FieldId::MplsLse0) & 0x100 != 0;
        self.wc.set_masked(FieldId::MplsLse0, u128::MAX, 0x100);
        self.wc.set_exact(FieldId::MplsLse1);
        self.wc.set_exact(FieldId::MplsLse2);
        let third = self.key.get(FieldId::MplsLse2);
        // Below the last label, and below the third, is what the parser has not looked at.
        self.headers.reparse_needed |=
            bottom || !is_mpls(eth_type.into()) || third != 0 && third & 0x100 == 0;
        self.key.set(FieldId::MplsLse0, self.key.get(FieldId::MplsLse1));
        self.key.set(FieldId::MplsLse1, third);
        self.key.set(FieldId::MplsLse2, 0);
        self.key.set(FieldId::EthType, eth_type.into());
        for i in ABOVE_L2 {
            self.base.set_word(i, self.key.word(i));
        }
        self.base.set(FieldId::EthType, eth_type.into());
    }

    /// A push and a pop that together change the Ethernet type only.
    fn commit_pushed_and_popped(&mut self, eth_type: u16) {
        self.emit(Action::PushMpls { eth_type: 0x8847, lse: 0x100 });
        self.emit(Action::PopMpls { eth_type });
        self.base.set(FieldId::EthType, eth_type.into());
    }
}
