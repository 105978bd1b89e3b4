//! What the switch does not do, or cannot do with a flow's packets, is refused when the flow is added.
//!
//! A flow is accepted only if every action can be carried out on every packet it matches: the match must imply the
//! fields that actions write (OpenFlow 1.3.5 6.4, `OFPBAC_MATCH_INCONSISTENT`). The check follows the action list, since
//! a push or pop changes what is there.

use flow::headers::eth_type;
use flow::{FieldId, PipelineMatch, Prereq, packet_type};
use openflow::error::{BadAction, BadInstruction, Nicira};
use openflow::extension::{Ct, CtFlags, CtZone, Learn, LearnSource, LearnTarget};
use openflow::{Action, ErrorCode, GroupId, Instructions, PortNo, Subfield};

use crate::tables::N_TABLES;

/// Checks instructions of a flow in `table` that matches `m`. `lenient`: as OpenFlow 1.0 has it.
///
/// # Errors
/// `BadInstruction`, `BadAction` or `MeterModFailed` with OpenFlow's code for what is wrong.
pub fn check_instructions(
    ins: &Instructions,
    m: &PipelineMatch,
    table: u8,
    lenient: bool,
) -> Result<(), ErrorCode> {
    let mut known = Known { lenient, ..Known::of(m) };
    for a in &ins.apply {
        check_action(a, &mut known, false)?;
    }
    // A dimension of a conjunctive match does nothing else.
    let dimension = |a: &Action| matches!(a, Action::Conjunction { .. });
    let silent = |a: &Action| dimension(a) || matches!(a, Action::Note(_));
    if ins.apply.iter().any(dimension)
        && (!ins.apply.iter().all(silent) || !ins.write.is_empty() || ins.goto_table.is_some())
    {
        return Err(Nicira::BadConjunction.into());
    }
    known.lenient = true;
    for a in &ins.write {
        if !allowed_in_set(a) {
            return Err(BadAction::BadType.into());
        }
        // In what state the packet is when the set is executed is not known here.
        check_action(a, &mut known.clone(), false)?;
        let mut after = known.clone();
        after.apply(a);
        known = after;
    }
    if let Some(next) = ins.goto_table
        && (next.0 <= table || next.0 >= N_TABLES)
    {
        return Err(BadInstruction::BadTableId.into());
    }
    Ok(())
}

/// Checks the actions of a packet-out of a packet that is `m`.
///
/// # Errors
/// As for [`check_instructions`].
pub fn check_packet_out(actions: &[Action], m: &PipelineMatch) -> Result<(), ErrorCode> {
    let mut known = Known::of(m);
    actions.iter().try_for_each(|a| check_action(a, &mut known, true))
}

/// What is known of the packet at a point of the action list.
#[derive(Clone)]
struct Known {
    eth_type: Option<u64>,
    proto: Option<u64>,
    icmp_type: Option<u64>,
    tagged: bool,
    /// What it begins with; `None` when only the packet can tell.
    packet_type: Option<u32>,
    /// Actions that are fixed to a kind of packet may meet others.
    lenient: bool,
}

impl Known {
    fn of(m: &PipelineMatch) -> Self {
        let exact = |f: FieldId| {
            let (v, mask) = m.get(f);
            (mask == f.info().max()).then_some(v as u64)
        };
        let (tci, tci_mask) = m.get(FieldId::VlanTci);
        Known {
            eth_type: match flow::prereq::ether_type(m.key()) {
                0 => exact(FieldId::EthType),
                t => Some(t.into()),
            },
            proto: exact(FieldId::NwProto),
            icmp_type: exact(FieldId::TpSrc).or_else(|| {
                (m.get(FieldId::Icmp6Type).1 == 0xff).then(|| m.get(FieldId::Icmp6Type).0 as u64)
            }),
            tagged: tci & tci_mask & 0x1000 != 0,
            packet_type: Some(m.key().get64(FieldId::PacketType) as u32),
            lenient: false,
        }
    }

    fn has(&self, p: Prereq) -> bool {
        let (v4, v6) = (self.eth_type == Some(0x0800), self.eth_type == Some(0x86dd));
        let ip = |proto: u64| (v4 || v6) && self.proto == Some(proto);
        match p {
            Prereq::None => true,
            Prereq::Vlan => self.tagged,
            Prereq::Ipv4 => v4,
            Prereq::Ipv6 => v6,
            Prereq::Ip => v4 || v6,
            Prereq::Arp => matches!(self.eth_type, Some(0x0806 | 0x8035)),
            Prereq::Mpls => self.eth_type.is_some_and(|t| eth_type::is_mpls(t as u16)),
            Prereq::Nsh => self.eth_type == Some(0x894f),
            Prereq::Tcp => ip(6),
            Prereq::Udp => ip(17),
            Prereq::Sctp => ip(132),
            Prereq::Ports => ip(6) || ip(17) || ip(132),
            Prereq::Icmp4 => v4 && ip(1),
            Prereq::Icmp6 => v6 && ip(58),
            Prereq::Nd => v6 && ip(58) && matches!(self.icmp_type, Some(135 | 136)),
            Prereq::NdSolicit => v6 && ip(58) && self.icmp_type == Some(135),
            Prereq::NdAdvert => v6 && ip(58) && self.icmp_type == Some(136),
        }
    }

    /// What the action changes about this.
    fn apply(&mut self, a: &Action) {
        match a {
            Action::PushVlan(_)
            | Action::SetVlanVid { push: true, .. }
            | Action::SetVlanPcp { push: true, .. } => self.tagged = true,
            Action::PopVlan | Action::StripVlan => self.tagged = false,
            Action::PushMpls(t) | Action::PopMpls(t) => {
                self.eth_type = Some((*t).into());
                self.proto = None;
                self.icmp_type = None;
            }
            Action::Encap(e) => {
                self.packet_type = Some(e.packet_type);
                if let Some(t) = packet_type::eth_type(e.packet_type) {
                    (self.eth_type, self.tagged) = (Some(t.into()), false);
                }
                if !matches!(self.eth_type, Some(0x0800 | 0x86dd)) {
                    (self.proto, self.icmp_type) = (None, None);
                }
            }
            Action::Decap { .. } if self.packet_type == Some(packet_type::ETHERNET) => {
                self.packet_type = self.eth_type.map(|t| packet_type::of_type(t as u16));
            }
            // Only the packet can tell.
            Action::Decap { .. } => {
                (self.packet_type, self.eth_type, self.proto, self.icmp_type) = (None, None, None, None);
            }
            Action::SetField { field: FieldId::VlanTci, value, mask } if mask & 0x1000 != 0 => {
                self.tagged = value & 0x1000 != 0;
            }
            _ => {}
        }
    }

    /// As [`Known::need`], of an action that leaves other packets alone.
    fn want(&self, p: Prereq) -> Result<(), ErrorCode> {
        if self.lenient { Ok(()) } else { self.need(p) }
    }

    fn need(&self, p: Prereq) -> Result<(), ErrorCode> {
        if self.has(p) { Ok(()) } else { Err(BadAction::MatchInconsistent.into()) }
    }
}

fn check_action(a: &Action, known: &mut Known, packet_out: bool) -> Result<(), ErrorCode> {
    match a {
        Action::Output { port, .. } => check_port(*port, packet_out)?,
        Action::OutputTrunc { port, max_len } => {
            // Controllers have a length of their own; several ports at once make no sense of one cut (ovs-actions(7)).
            let one = port.is_port() || *port == PortNo::IN_PORT;
            if !one || *max_len < 14 {
                return Err(BadAction::BadArgument.into());
            }
        }
        Action::OutputReg { src, .. } => check_read(*src, known)?,
        // Values have 128 bits.
        Action::SetField { field, .. } if field.option().is_some() && field.width() > 128 => {
            return Err(BadAction::BadSetLen.into());
        }
        Action::SetField { field, .. } => check_set(*field, known)?,
        Action::RegLoad { dst, .. } => check_set(dst.field, known)?,
        Action::RegMove { src, dst } => {
            check_read(*src, known)?;
            check_set(dst.field, known)?;
        }
        Action::SetNwTtl(_) | Action::DecNwTtl { .. } => known.want(Prereq::Ip)?,
        Action::SetMplsTtl(_) | Action::DecMplsTtl => known.want(Prereq::Mpls)?,
        Action::PushVlan(t) if !matches!(t, 0x8100 | 0x88a8) => return Err(BadAction::BadArgument.into()),
        Action::PushMpls(t) if !eth_type::is_mpls(*t) => return Err(BadAction::BadArgument.into()),
        Action::PopVlan => known.want(Prereq::Vlan)?,
        Action::PopMpls(_) => known.want(Prereq::Mpls)?,
        Action::DecNshTtl => known.want(Prereq::Nsh)?,
        Action::Resubmit { table, .. } if table.is_some_and(|t| t.0 >= N_TABLES) => {
            return Err(BadAction::BadArgument.into());
        }
        Action::Group(g) if *g > GroupId::MAX => return Err(BadAction::BadOutGroup.into()),
        Action::StackPush(s) => check_read(*s, known)?,
        Action::StackPop(s) => check_write(s.field, known)?,
        Action::CheckPktLarger(c) => check_write(c.dst.field, known)?,
        Action::Multipath(m) => {
            if m.fields > 6 || m.algorithm > 3 {
                return Err(BadAction::BadArgument.into());
            }
            check_write(m.dst.field, known)?;
        }
        Action::Bundle(b) => {
            if b.fields > 6 || b.algorithm > 1 {
                return Err(BadAction::BadArgument.into());
            }
            b.dst.iter().try_for_each(|d| check_write(d.field, known))?;
        }
        Action::Learn(l) => check_learn(l, known)?,
        Action::Clone(inner) => {
            let mut copy = known.clone();
            inner.iter().try_for_each(|a| check_action(a, &mut copy, packet_out))?;
        }
        Action::FinTimeout { .. } => known.want(Prereq::Tcp)?,
        Action::Conjunction { clause, n_clauses, .. }
            if clause >= n_clauses || !(2..=64).contains(n_clauses) =>
        {
            return Err(Nicira::BadConjunction.into());
        }
        Action::Enqueue { port, .. } => {
            // Of the reserved ports only those that are one port each (OpenFlow 1.0.1 5.2.4).
            if !(port.is_port() || matches!(*port, PortNo::IN_PORT | PortNo::LOCAL)) {
                return Err(BadAction::BadOutPort.into());
            }
        }
        Action::Ct(c) => check_ct(c, known)?,
        // Only within a `ct`.
        Action::Nat(_) => return Err(BadAction::BadSetArgument.into()),
        Action::CopyTtlOut | Action::CopyTtlIn | Action::PushPbb(_) | Action::PopPbb => {
            return Err(BadAction::BadType.into());
        }
        // Of what a packet has only tunnel options can go.
        Action::DeleteField(f) if f.option().is_none() => return Err(BadAction::BadArgument.into()),
        // A packet without the field or tag stays as it is.
        Action::Group(_)
        | Action::Sample(_)
        | Action::Meter(_)
        | Action::SetQueue(_)
        | Action::Conjunction { .. }
        | Action::WriteMetadata { .. }
        | Action::SetVlanVid { .. }
        | Action::SetVlanPcp { .. }
        | Action::StripVlan
        | Action::SetLegacy { .. }
        | Action::PushVlan(_)
        | Action::PushMpls(_)
        | Action::Resubmit { .. }
        | Action::Controller { .. }
        | Action::SetTunnel { .. }
        | Action::PopQueue
        | Action::Exit
        | Action::DebugRecirc
        | Action::DebugSlow
        | Action::CtClear
        | Action::DeleteField(_)
        | Action::Encap(_)
        | Action::Decap { .. }
        | Action::Note(_) => {}
    }
    known.apply(a);
    Ok(())
}

/// Checks a `ct`: of IP packets only, and what it does to a connection are its mark, its label, and one translation.
fn check_ct(c: &Ct, known: &Known) -> Result<(), ErrorCode> {
    known.need(Prereq::Ip)?;
    if let CtZone::Field(s) = &c.zone {
        check_read(*s, known)?;
        if s.bits != 16 {
            return Err(BadAction::BadSetLen.into());
        }
    }
    if c.table.is_some_and(|t| t.0 >= N_TABLES)
        || c.flags.has(CtFlags::FORCE) && !c.flags.has(CtFlags::COMMIT)
    {
        return Err(BadAction::BadArgument.into());
    }
    let of_connection = |f: FieldId| matches!(f, FieldId::CtMark | FieldId::CtLabel);
    let mut translations = 0;
    for a in &c.actions {
        match a {
            Action::Nat(_) => translations += 1,
            Action::SetField { field, .. } if of_connection(*field) => {}
            Action::RegLoad { dst, .. } if of_connection(dst.field) => {}
            Action::RegMove { src, dst } if of_connection(dst.field) => check_read(*src, known)?,
            _ => return Err(BadAction::BadSetArgument.into()),
        }
    }
    if translations > 1 || translations == 0 && !c.actions.is_empty() && !c.flags.has(CtFlags::COMMIT) {
        return Err(BadAction::BadArgument.into());
    }
    Ok(())
}

/// Checks a write outside of a `ct`, where a connection's mark and label cannot be written.
fn check_set(field: FieldId, known: &Known) -> Result<(), ErrorCode> {
    match field {
        FieldId::CtMark | FieldId::CtLabel => Err(BadAction::BadSetArgument.into()),
        f => check_write(f, known),
    }
}

/// Checks a flow that packets would make: what it is made of must be there, and the tables must have room for it.
fn check_learn(l: &Learn, known: &Known) -> Result<(), ErrorCode> {
    if l.table.0 >= N_TABLES {
        return Err(BadAction::BadArgument.into());
    }
    for s in &l.specs {
        if let LearnSource::Field(f) = &s.src {
            check_read(*f, known)?;
        }
        if let LearnTarget::Load(f) = &s.dst
            && !f.field.info().writable
        {
            return Err(BadAction::BadSetArgument.into());
        }
    }
    Ok(())
}

/// Checks the actions of a bucket. Which packets it will meet is not known: writes to fields that one lacks have no effect.
///
/// # Errors
/// As for [`check_instructions`].
pub fn check_bucket(actions: &[Action]) -> Result<(), ErrorCode> {
    for a in actions {
        let group = matches!(a, Action::Group(_));
        if !allowed_in_set(a) && !matches!(a, Action::Resubmit { .. }) {
            return Err(BadAction::BadType.into());
        }
        match check_action(a, &mut Known::of(&PipelineMatch::ANY), false) {
            Err(e) if e == BadAction::MatchInconsistent.into() && !group => {}
            other => other?,
        }
    }
    Ok(())
}

/// Output to the tables makes sense in a packet-out only (OpenFlow 1.3.5 7.2.1).
fn check_port(port: PortNo, packet_out: bool) -> Result<(), ErrorCode> {
    match port {
        PortNo::TABLE if packet_out => Ok(()),
        PortNo::IN_PORT | PortNo::NORMAL | PortNo::FLOOD | PortNo::ALL | PortNo::CONTROLLER => Ok(()),
        // Nothing has the number 0, and yet Open vSwitch takes it.
        p if p.is_port() || p == PortNo(0) => Ok(()),
        _ => Err(BadAction::BadOutPort.into()),
    }
}

fn check_read(s: Subfield, known: &Known) -> Result<(), ErrorCode> {
    known.need(s.field.info().prereq)
}

fn check_write(field: FieldId, known: &Known) -> Result<(), ErrorCode> {
    if !field.info().writable {
        return Err(BadAction::BadSetType.into());
    }
    known.need(field.info().prereq)?;
    let of_ethernet = matches!(field, FieldId::EthSrc | FieldId::EthDst);
    if of_ethernet && known.packet_type.is_some_and(|t| t != packet_type::ETHERNET) {
        return Err(BadAction::MatchInconsistent.into());
    }
    if field == FieldId::VlanVid { known.need(Prereq::Vlan) } else { Ok(()) }
}

/// Whether an action can be in an action set (OpenFlow 1.3.5 5.10).
fn allowed_in_set(a: &Action) -> bool {
    !matches!(
        a,
        Action::Resubmit { .. }
            | Action::Exit
            | Action::PopQueue
            | Action::Learn(_)
            | Action::Conjunction { .. }
            | Action::StackPush(_)
            | Action::StackPop(_)
            | Action::Multipath(_)
            | Action::FinTimeout { .. }
            | Action::Clone(_)
            | Action::CheckPktLarger(_)
            | Action::DebugRecirc
            | Action::Ct(_)
            | Action::CtClear
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use openflow::TableId;

    fn ip() -> PipelineMatch {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::EthType, 0x800);
        m
    }

    fn set(field: FieldId, value: u128) -> Action {
        Action::SetField { field, value, mask: field.info().max() }
    }

    #[test]
    fn writes_need_a_match_that_implies_the_field() {
        let check = |m: &PipelineMatch, a: &[Action]| {
            check_instructions(&Instructions::apply(a.to_vec()), m, 0, false)
        };
        let inconsistent = Err(BadAction::MatchInconsistent.into());
        assert_eq!(check(&ip(), &[set(FieldId::NwSrc, 1)]), Ok(()));
        assert_eq!(check(&PipelineMatch::ANY, &[set(FieldId::NwSrc, 1)]), inconsistent);
        assert_eq!(check(&ip(), &[set(FieldId::TcpSrc, 1)]), inconsistent);
        assert_eq!(check(&ip(), &[set(FieldId::VlanVid, 0x1001)]), inconsistent);
        assert_eq!(check(&ip(), &[Action::PushVlan(0x8100), set(FieldId::VlanVid, 0x1001)]), Ok(()));
        assert_eq!(check(&ip(), &[Action::PushMpls(0x8847), set(FieldId::NwSrc, 1)]), inconsistent);
        assert_eq!(check(&ip(), &[set(FieldId::NwFrag, 1)]), Err(BadAction::BadSetType.into()));
    }

    #[test]
    fn openflow_10_and_action_sets_have_actions_of_a_kind_of_packet_for_all() {
        let dec = || Action::DecNwTtl { controllers: Vec::new() };
        let any = PipelineMatch::ANY;
        let apply = Instructions::apply(vec![dec()]);
        let write = Instructions { write: vec![dec()], ..Instructions::default() };
        assert_eq!(check_instructions(&apply, &any, 0, false), Err(BadAction::MatchInconsistent.into()));
        assert_eq!(check_instructions(&apply, &any, 0, true), Ok(()));
        assert_eq!(check_instructions(&write, &any, 0, false), Ok(()));
        let named = Instructions::apply(vec![set(FieldId::NwSrc, 1)]);
        assert_eq!(check_instructions(&named, &any, 0, true), Err(BadAction::MatchInconsistent.into()));
    }

    #[test]
    fn what_the_switch_lacks_is_refused_by_name() {
        let check = |a: Action| check_instructions(&Instructions::apply(vec![a]), &ip(), 0, false);
        assert_eq!(check(Action::CopyTtlIn), Err(BadAction::BadType.into()));
        assert_eq!(check(Action::PushVlan(0x9999)), Err(BadAction::BadArgument.into()));
        let out = |port| check(Action::Output { port, max_len: 0 });
        assert_eq!(out(PortNo(0)), Ok(()));
        assert_eq!(out(PortNo::ANY), Err(BadAction::BadOutPort.into()));
        assert_eq!(out(PortNo::TABLE), Err(BadAction::BadOutPort.into()));
        assert_eq!(out(PortNo(77)), Ok(()));
    }

    #[test]
    fn goto_leads_onward_only() {
        let goto = |from, to| {
            let ins = Instructions { goto_table: Some(TableId(to)), ..Default::default() };
            check_instructions(&ins, &ip(), from, false)
        };
        assert_eq!(goto(0, 1), Ok(()));
        assert_eq!(goto(1, 1), Err(BadInstruction::BadTableId.into()));
        assert_eq!(goto(1, 254), Err(BadInstruction::BadTableId.into()));
    }
}
