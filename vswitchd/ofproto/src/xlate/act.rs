//! Executing OpenFlow actions.

use flow::headers::eth_type;
use flow::tunnel::options;
use flow::{ControllerAction, FieldId, Prereq, PuntReason, Scope};
use openflow::{Action as OfAction, MeterNo, PortNo, Subfield};

use super::{MAX_STACK, Misses, Problem, Xlate};
use crate::rule::Rule;
use crate::trace::StepKind;

impl Xlate<'_> {
    /// Executes a list of actions in order. Whether what follows the list is to be done too: not when a TTL has ended it.
    pub(super) fn execute(&mut self, actions: &[OfAction]) -> bool {
        for (i, a) in actions.iter().enumerate() {
            if !self.halted && self.headers.reparse_needed && self.needs_fresh_look(a) {
                self.freeze();
            }
            if self.halted {
                self.leave(&actions[i..]);
                return true;
            }
            self.step(|| StepKind::Action(a.clone()));
            if let OfAction::CheckPktLarger(c) = a {
                self.check_length(c, &actions[i + 1..]);
                return false;
            }
            if let OfAction::Clone(inner) = a
                && self.stock()
                && i + 1 < actions.len()
                && !inner.iter().all(can_be_undone)
            {
                // Open vSwitch brings the packet up to date before it makes such a copy.
                self.commit_packet();
            }
            self.execute_one(a);
            if self.frozen.takes_again() {
                self.leave(&actions[i..]);
                return true;
            }
            if std::mem::take(&mut self.list_ends) {
                return false;
            }
        }
        true
    }

    fn execute_one(&mut self, a: &OfAction) {
        match a {
            OfAction::Output { port, max_len } => self.output_action(*port, *max_len),
            OfAction::OutputTrunc { port, max_len } => self.output_cut(*port, *max_len),
            OfAction::OutputReg { src, max_len } => {
                let port = self.read(*src) as u32;
                self.output_action(PortNo(port), *max_len);
            }
            OfAction::Controller { max_len, reason, controller_id, userdata, pause, meter } => {
                let reason = PuntReason::from_number((*reason).into()).unwrap_or(PuntReason::Action);
                if *pause {
                    self.pause(reason, *max_len, *controller_id, userdata);
                } else {
                    self.controller_with(reason, *max_len, *controller_id, userdata, *meter);
                }
            }
            OfAction::SetField { field, value, mask } => self.set_field(*field, *value, *mask),
            OfAction::RegLoad { dst, value } => {
                self.set_field(dst.field, shift_up(u128::from(*value), dst), dst.mask());
            }
            OfAction::RegMove { src, dst } => {
                let v = self.read(*src);
                let proto = self.wc.get(FieldId::NwProto);
                self.set_field(dst.field, shift_up(v, dst), dst.mask());
                // Open vSwitch looks at the protocol where a rule writes an address, not where it moves one.
                self.wc.set_masked(FieldId::NwProto, proto, u128::MAX);
                self.tell(*dst);
            }
            OfAction::SetTunnel { id, .. } => self.set_field(FieldId::TunId, (*id).into(), u128::MAX),
            OfAction::SetNwTtl(ttl) => self.set_field(FieldId::NwTtl, (*ttl).into(), u128::MAX),
            OfAction::DecNwTtl { controllers } => self.dec_nw_ttl(controllers),
            OfAction::SetMplsTtl(ttl) => self.set_field(FieldId::MplsTtl, (*ttl).into(), u128::MAX),
            OfAction::DecMplsTtl => self.dec_mpls_ttl(),
            OfAction::PushVlan(tpid) => self.push_vlan(*tpid),
            OfAction::PopVlan => self.pop_vlan(),
            OfAction::StripVlan => {
                if self.key.get(FieldId::VlanTci) & 0x1000 != 0 {
                    self.pop_vlan();
                }
            }
            OfAction::SetVlanVid { vid, push } => self.set_tag(u128::from(*vid) | 0x1000, 0x1fff, *push),
            OfAction::SetVlanPcp { pcp, push } => {
                self.set_tag(u128::from(*pcp) << 13 | 0x1000, 0xf000, *push);
            }
            OfAction::SetLegacy { field, value } => self.set_field(*field, (*value).into(), u128::MAX),
            OfAction::PushMpls(eth_type) => self.push_mpls(*eth_type),
            OfAction::PopMpls(eth_type) => self.pop_mpls(*eth_type),
            OfAction::Resubmit { port, table, with_ct } => {
                let table = table.map_or(self.table, |t| t.0);
                if !*with_ct {
                    self.resubmit(*port, table, Misses::Quiet);
                } else if self.has_tuple() {
                    self.with_tuple = true;
                    self.resubmit(*port, table, Misses::Quiet);
                }
            }
            OfAction::Exit => self.halted = true,
            // There is no slow path that the packet could be sent by.
            OfAction::Note(_) | OfAction::Conjunction { .. } => {}
            OfAction::DebugSlow => self.out.as_if_slow = true,
            OfAction::Group(id) => self.group(*id),
            OfAction::StackPush(src) => {
                let v = self.read(*src);
                if self.stack.len() >= MAX_STACK {
                    self.fail(Problem::StackTooDeep);
                } else {
                    self.stack.push((v, src.bits));
                }
            }
            OfAction::StackPop(dst) => match self.stack.pop() {
                Some((v, _)) => {
                    let proto = self.wc.get(FieldId::NwProto);
                    self.set_field(dst.field, shift_up(v, dst), dst.mask());
                    // As where it is moved.
                    self.wc.set_masked(FieldId::NwProto, proto, u128::MAX);
                    self.tell(*dst);
                }
                None => {
                    self.wrong(|| "stack underflow".into());
                    self.complain("stack underflow");
                }
            },
            OfAction::Learn(l) => self.learn(l),
            OfAction::Multipath(m) => self.multipath(m),
            OfAction::Bundle(b) => self.bundle(b, 0),
            OfAction::DebugRecirc => self.freeze(),
            OfAction::Ct(c) => self.ct(c),
            OfAction::CtClear => self.ct_clear(),
            OfAction::Clone(actions) => {
                if self.may_go_deeper() {
                    self.depth += 1;
                    self.execute_aside(actions);
                    self.depth -= 1;
                }
            }
            OfAction::FinTimeout { idle, hard } => {
                if let Some(r) = self.rule.clone() {
                    self.out.fin_timeouts.push((r, *idle, *hard));
                }
            }
            OfAction::WriteMetadata { value, mask } => {
                self.key.set_masked(FieldId::Metadata, (*value).into(), (*mask).into());
            }
            OfAction::Meter(m) => self.meter(*m),
            OfAction::SetQueue(q) => self.set_queue(q.0),
            OfAction::PopQueue => self.set_queue(0),
            OfAction::Enqueue { port, queue } => {
                let before = self.key.get64(FieldId::SkbPriority) as u32;
                self.set_queue(queue.0);
                self.output_action(*port, 0);
                self.set_queue(before);
            }
            // Done where what follows it is known.
            OfAction::CheckPktLarger(_) => {}
            // Refused when the flow was added, see `check`.
            OfAction::CopyTtlOut
            | OfAction::CopyTtlIn
            | OfAction::PushPbb(_)
            | OfAction::PopPbb
            | OfAction::Nat(_) => self.note("not supported, skipped"),
            OfAction::Encap(e) => self.encap(e),
            OfAction::Decap { packet_type } => self.decap(*packet_type),
            OfAction::DecNshTtl => self.list_ends |= !self.dec_nsh_ttl(),
            OfAction::Sample(s) => self.sample(s),
            OfAction::DeleteField(f) => {
                if let Some(n) = f.option() {
                    options::remove(&mut self.key, n);
                    options::cover(&mut self.written, n);
                    options::cover(&mut self.ever_written, n);
                }
            }
        }
    }

    /// Sets bits of the outermost VLAN tag as OpenFlow 1.0 and 1.1 do: a packet without a tag gets one or stays as it is.
    fn set_tag(&mut self, value: u128, mask: u128, push: bool) {
        if self.key.get(FieldId::VlanTci) & 0x1000 == 0 {
            if !push {
                return;
            }
            self.push_vlan(0x8100);
        }
        self.set_field(FieldId::VlanTci, value, mask);
    }

    /// Searches `table` again, as if the packet had come in on `port`, and executes what is found there.
    pub(super) fn resubmit(&mut self, port: PortNo, table: u8, misses: Misses) {
        if !self.may_go_deeper() {
            return;
        }
        // Going on in a later table ends by itself.
        let deeper = u32::from(table <= self.table);
        self.depth += deeper;
        self.nesting += 1;
        let (was_table, was_rule) = (self.table, self.rule.clone());
        self.table_chain(table, (port != PortNo::IN_PORT).then_some(port), misses);
        (self.table, self.rule) = (was_table, was_rule);
        self.nesting -= 1;
        self.depth -= deeper;
    }

    /// Executes the action set in the order of OpenFlow 1.3.5 5.10.
    pub(super) fn execute_action_set(&mut self) {
        if self.halted || self.action_set.is_empty() {
            return;
        }
        let set = std::mem::take(&mut self.action_set);
        self.step(|| StepKind::ActionSet);
        self.in_action_set = true;
        let ordered = order_action_set(&set);
        self.nest += 1;
        self.execute(&ordered);
        self.nest -= 1;
        self.in_action_set = false;
        self.key.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
    }

    /// Notes what a subfield has become.
    pub(super) fn tell(&mut self, s: Subfield) {
        if self.record {
            let value = (self.key.get(s.field) & s.mask()) >> s.offset.min(127);
            let name = openflow::text::format_subfield(&s);
            self.step(|| StepKind::Note(format!("-> {name} is now {value:#x}")));
        }
    }

    /// The value of a subfield, right-aligned. Its bits are looked at.
    pub(super) fn read(&mut self, s: Subfield) -> u128 {
        self.look_at(s.field, s.mask());
        (self.key.get(s.field) & s.mask()) >> s.offset.min(127)
    }

    fn look_at(&mut self, field: FieldId, mask: u128) {
        self.wc.set_masked(field, u128::MAX, mask);
        self.sharing.looked(field.info().canon == FieldId::EthSrc);
        if self.headers.ttl_decrements_in_all > 0 && field.info().canon == FieldId::NwTtl {
            self.wc.set_exact(FieldId::NwTtl);
        }
    }

    /// Whether the packet, as it is by now, has `field`. Looks at what decides that.
    pub(super) fn has(&mut self, field: FieldId) -> bool {
        prereq_holds(field.info().prereq, self, |x, f| {
            x.wc.set_exact(f);
            x.key.get64(f)
        })
    }

    /// Writes the bits of `field` that `mask` has, if the packet has the field.
    pub(super) fn set_field(&mut self, field: FieldId, value: u128, mask: u128) {
        let info = field.info();
        let mask = mask & info.max();
        if info.scope == Scope::Pipeline {
            self.key.set_masked(field, value, mask);
            return;
        }
        if matches!(info.canon, FieldId::VlanTci) {
            self.set_vlan(field, value, mask);
            return;
        }
        let of_ethernet = matches!(info.canon, FieldId::EthSrc | FieldId::EthDst);
        if !self.has(field) || of_ethernet && !self.is_ethernet() {
            self.note("the packet does not have the field");
            return;
        }
        if self.headers.reparse_needed && below_l2(field) {
            self.fail(Problem::NeedsReparse);
            return;
        }
        if info.canon == FieldId::EthSrc {
            self.sharing.source_is_written(self.wc.get(FieldId::EthSrc) != 0);
        }
        self.wc.set_masked(field, u128::MAX, mask);
        let network = matches!(
            info.canon,
            FieldId::NwSrc
                | FieldId::NwDst
                | FieldId::NwTos
                | FieldId::NwTtl
                | FieldId::Ipv6Src
                | FieldId::Ipv6Dst
                | FieldId::Ipv6Label
                | FieldId::NwProto
                | FieldId::ArpSha
                | FieldId::ArpTha
        );
        if network && self.stock() && matches!(self.key.get64(FieldId::EthType), 0x0800 | 0x86dd | 0x0806) {
            self.wc.set_exact(FieldId::NwProto);
        }
        if info.canon == FieldId::NwTtl {
            self.wc.set_exact(FieldId::NwTtl);
            // What was decremented so far is as good as a written value from here on.
            self.headers.ttl_decrements = 0;
            self.written.set_exact(FieldId::NwTtl);
        }
        self.key.set_masked(field, value, mask);
        self.written.set_masked(field, u128::MAX, mask);
        self.ever_written.set_masked(field, u128::MAX, mask);
    }

    fn dec_nw_ttl(&mut self, controllers: &[u16]) {
        if !self.has(FieldId::NwTtl) {
            self.note("not an IP packet");
            return;
        }
        if self.headers.reparse_needed {
            self.fail(Problem::NeedsReparse);
            return;
        }
        if self.stock() {
            self.wc.set_exact(FieldId::NwTtl);
            self.wc.set_exact(FieldId::NwProto);
        }
        let ttl = self.key.get64(FieldId::NwTtl) as u8;
        let by_action = self.written.get(FieldId::NwTtl) == 0;
        if ttl <= 1 {
            self.wc.set_exact(FieldId::NwTtl);
            let v6 = self.key.get64(FieldId::EthType) == 0x86dd;
            self.warn(&format!("IPv{} decrement TTL exception", if v6 { 6 } else { 4 }));
            for id in if controllers.is_empty() { &[0] } else { controllers } {
                self.controller_with(PuntReason::InvalidTtl, u16::MAX, *id, &[], None);
            }
            self.list_ends = true;
            return;
        }
        self.key.set(FieldId::NwTtl, u128::from(ttl - 1));
        if self.stock() {
            self.written.set_exact(FieldId::NwTtl);
            self.ever_written.set_exact(FieldId::NwTtl);
        } else if by_action {
            self.headers.ttl_decrements += 1;
            self.headers.ttl_decrements_in_all += 1;
            let orig = self.orig.get64(FieldId::NwTtl) as u8;
            let proof = prove_at_least(orig, self.headers.ttl_decrements_in_all.saturating_add(1));
            self.wc.set_masked(FieldId::NwTtl, u128::MAX, proof.into());
        }
    }

    fn dec_mpls_ttl(&mut self) {
        if !self.has(FieldId::MplsTtl) {
            self.note("not an MPLS packet");
            return;
        }
        self.look_at(FieldId::MplsTtl, u128::MAX);
        let ttl = self.key.get64(FieldId::MplsTtl);
        if ttl <= 1 {
            self.note("TTL too small");
            self.controller(PuntReason::InvalidTtl, u16::MAX);
            self.list_ends = true;
        } else {
            self.set_field(FieldId::MplsTtl, u128::from(ttl - 1), u128::MAX);
        }
    }

    /// Sends the packet, as it is, to the controllers.
    pub(super) fn controller(&mut self, reason: PuntReason, max_len: u16) {
        self.controller_with(reason, max_len, 0, &[], None);
    }

    /// Sends the packet, as it is, to the controllers with an id, by way of a meter: the one named, or that of all packets to
    /// controllers.
    pub(super) fn controller_with(
        &mut self,
        reason: PuntReason,
        max_len: u16,
        controller_id: u16,
        userdata: &[u8],
        meter: Option<MeterNo>,
    ) {
        // What a table-miss flow sends is a miss (OpenFlow 1.3.5 7.4.1).
        let is_miss = |r: &Rule| r.priority == 0 && r.matches.mask().is_zero();
        let reason = match &self.rule {
            Some(r) if reason == PuntReason::Action && is_miss(r) => PuntReason::ExplicitMiss,
            _ => reason,
        };
        let port = self.env.pipeline.ports.get(self.in_port);
        if matches!(reason, PuntReason::ExplicitMiss | PuntReason::ImplicitMiss)
            && port.is_some_and(|p| p.config.has(openflow::port::PortConfig::NO_PACKET_IN))
        {
            self.note("the ingress port sends no misses to controllers");
            return;
        }
        self.commit();
        let recirc_id = self.note_for_controller(userdata);
        let meter = meter.unwrap_or(MeterNo::CONTROLLER);
        let mark = self.out.actions.len();
        if self.env.pipeline.meters.contains_key(&meter.0) {
            self.meter(meter);
        }
        self.punt(ControllerAction {
            reason,
            max_len,
            controller_id,
            recirc_id,
            ..ControllerAction::default()
        });
        if self.out.actions.len() > mark + 1 {
            // What the meter drops is this copy alone.
            let metered = self.out.actions.split_off(mark);
            self.emit(flow::Action::Clone(metered.into()));
        }
    }

    /// Adds a packet to controllers to what the datapath does.
    pub(super) fn punt(&mut self, a: ControllerAction) {
        self.emit(flow::Action::Controller(ControllerAction {
            cookie: self.rule_cookie(),
            table: self.table,
            metadata: self.key.get64(FieldId::Metadata),
            in_port: self.key.get64(FieldId::InPort) as u32,
            bridge: self.env.index,
            tracked: self.tracked,
            ..a
        }));
    }

    /// The cookie of the rule under execution; all ones when there is none.
    pub(super) fn rule_cookie(&self) -> u64 {
        self.rule.as_ref().map_or(self.cookie, |r| r.cookie)
    }

    /// Why a plain output to the controllers is one.
    pub(super) fn output_reason(&self) -> PuntReason {
        match () {
            () if self.packet_out => PuntReason::PacketOut,
            () if self.in_group => PuntReason::Group,
            () if self.in_action_set => PuntReason::ActionSet,
            () => PuntReason::Action,
        }
    }

    /// Has the packet take a queue of the ports that it leaves by. No rule and no record sees which one.
    fn set_queue(&mut self, queue: u32) {
        self.key.set(FieldId::SkbPriority, queue.into());
        self.written.set_exact(FieldId::SkbPriority);
        self.ever_written.set_exact(FieldId::SkbPriority);
    }

    /// Passes the packet through a meter.
    pub(super) fn meter(&mut self, no: MeterNo) {
        let env = self.env;
        let meter = env.pipeline.meters.get(&no.0);
        self.out.deps.meters.push((env.index, no.0, meter.map(|m| m.dp)));
        let Some(meter) = meter else {
            self.note("the meter does not exist");
            return;
        };
        if meter.remarks() {
            // Remarking is of the packet as it is by now.
            self.commit();
        }
        // Whoever is over the rate goes no further: a copy that goes elsewhere is not to suffer from it.
        self.for_good += 1;
        self.emit(flow::Action::Meter(meter.dp));
    }
}

/// Whether writing fields back undoes what an action of a `clone` does to the packet, as Open vSwitch sees it.
fn can_be_undone(a: &OfAction) -> bool {
    use OfAction::{Ct, DecNshTtl, Decap, Encap, Meter, Nat, OutputTrunc};
    !matches!(a, Ct(_) | Meter(_) | Nat(_) | OutputTrunc { .. } | Encap(_) | Decap { .. } | DecNshTtl)
}

/// The mask of the fewest leading bits of `ttl` that prove that it is at least `n`; all bits when it is not.
fn prove_at_least(ttl: u8, n: u8) -> u8 {
    (0..8).rev().map(|k| 0xffu8 << k).find(|m| ttl & m >= n).unwrap_or(0xff)
}

pub(super) fn shift_up(v: u128, s: &Subfield) -> u128 {
    v << s.offset.min(127)
}

pub(super) fn below_l2(f: FieldId) -> bool {
    f.info().scope == Scope::Packet
        && !matches!(
            f.info().canon,
            FieldId::EthSrc
                | FieldId::EthDst
                | FieldId::VlanTci
                | FieldId::PktMark
                | FieldId::TunId
                | FieldId::TunOptions
        )
        && !matches!(f.info().canon, FieldId::MplsLse0)
}

/// Whether a field with this prerequisite is there. `get` reads a field and notes that it did; the Ethernet type is always
/// looked at anyway.
fn prereq_holds(p: Prereq, x: &mut Xlate<'_>, get: impl Fn(&mut Xlate<'_>, FieldId) -> u64) -> bool {
    let t = x.key.get64(FieldId::EthType);
    let ip = t == 0x0800 || t == 0x86dd;
    // A later fragment has no transport header.
    let l4 = ip && x.key.get(FieldId::NwFrag) & u128::from(flow::parse::FRAG_LATER) == 0;
    match p {
        Prereq::None => true,
        Prereq::Vlan => x.key.get(FieldId::VlanTci) & 0x1000 != 0,
        Prereq::Ipv4 => t == 0x0800,
        Prereq::Ipv6 => t == 0x86dd,
        Prereq::Ip => ip,
        Prereq::Arp => t == 0x0806 || t == 0x8035,
        Prereq::Mpls => eth_type::is_mpls(t as u16),
        Prereq::Nsh => t == 0x894f,
        Prereq::Tcp => l4 && get(x, FieldId::NwProto) == 6,
        Prereq::Udp => l4 && get(x, FieldId::NwProto) == 17,
        Prereq::Sctp => l4 && get(x, FieldId::NwProto) == 132,
        Prereq::Ports => l4 && matches!(get(x, FieldId::NwProto), 1 | 6 | 17 | 58 | 132),
        Prereq::Icmp4 => l4 && t == 0x0800 && get(x, FieldId::NwProto) == 1,
        Prereq::Icmp6 => l4 && t == 0x86dd && get(x, FieldId::NwProto) == 58,
        Prereq::Nd | Prereq::NdSolicit | Prereq::NdAdvert => {
            l4 && t == 0x86dd && get(x, FieldId::NwProto) == 58 && {
                let icmp = get(x, FieldId::TpSrc);
                match p {
                    Prereq::NdSolicit => icmp == 135,
                    Prereq::NdAdvert => icmp == 136,
                    _ => icmp == 135 || icmp == 136,
                }
            }
        }
    }
}

/// The actions of a set in the order in which they are executed: of each kind the last that was written, of set-fields
/// all, in the order of writing. A group leaves an output out.
pub(super) fn order_action_set(set: &[OfAction]) -> Vec<OfAction> {
    let last = |f: fn(&OfAction) -> bool| set.iter().rev().find(|a| f(a)).cloned();
    let mut out = Vec::new();
    out.extend(last(|a| matches!(a, OfAction::PopVlan | OfAction::StripVlan)));
    out.extend(last(|a| matches!(a, OfAction::PopMpls(_))));
    out.extend(last(|a| matches!(a, OfAction::Decap { .. })));
    out.extend(last(|a| matches!(a, OfAction::Encap(_))));
    out.extend(last(|a| matches!(a, OfAction::PushMpls(_))));
    out.extend(last(|a| matches!(a, OfAction::PushVlan(_))));
    out.extend(last(|a| matches!(a, OfAction::DecNwTtl { .. })));
    out.extend(last(|a| matches!(a, OfAction::DecMplsTtl)));
    out.extend(last(|a| matches!(a, OfAction::DecNshTtl)));
    out.extend(set.iter().filter(|a| is_set(a)).cloned());
    let group = last(|a| matches!(a, OfAction::Group(_)));
    let outputs = group.is_none();
    out.extend(group);
    let output = last(|a| {
        use OfAction::{Bundle, Controller, Output, OutputReg, OutputTrunc, Resubmit};
        matches!(
            a,
            Output { .. }
                | OutputReg { .. }
                | OutputTrunc { .. }
                | Controller { .. }
                | Resubmit { .. }
                | Bundle(_)
        )
    });
    out.extend(output.filter(|_| outputs));
    out
}

fn is_set(a: &OfAction) -> bool {
    matches!(
        a,
        OfAction::SetField { .. }
            | OfAction::RegLoad { .. }
            | OfAction::RegMove { .. }
            | OfAction::SetTunnel { .. }
            | OfAction::SetNwTtl(_)
            | OfAction::SetMplsTtl(_)
            | OfAction::SetLegacy { .. }
            | OfAction::SetVlanVid { .. }
            | OfAction::SetVlanPcp { .. }
    )
}

#[cfg(test)]
mod proofs {
    use super::prove_at_least;

    #[test]
    fn a_ttl_is_proved_by_its_leading_bits() {
        assert_eq!(prove_at_least(64, 2), 0xc0);
        assert_eq!(prove_at_least(255, 2), 0x80);
        assert_eq!(prove_at_least(2, 2), 0xfe);
        assert_eq!(prove_at_least(3, 2), 0xfe);
        assert_eq!(prove_at_least(3, 3), 0xff);
        for ttl in 0..=255u8 {
            for n in 2..10u8 {
                let m = prove_at_least(ttl, n);
                if ttl >= n {
                    assert!((0..=255u8).filter(|v| v & m == ttl & m).all(|v| v >= n), "{ttl} {n}");
                }
            }
        }
    }
}
