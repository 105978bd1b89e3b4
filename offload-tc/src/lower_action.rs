//! Datapath actions to actions of TC.
//!
//! Header writes that follow each other become one pedit, and one csum behind it for the checksums that they break. All outputs
//! but the last mirror, the last redirects; nothing that follows it can have an effect. A rule without output drops. A rule that
//! recirculates mirrors to all outputs and goes on in another chain; nothing may follow that.
//!
//! *Not lowered*: writes to IP and transport headers of packets with two tags, because pedit then looks for the header where
//! the second tag is; writes to addresses and ports of fragments, because csum would take a part for the whole (a rule that
//! says nothing of fragments becomes a filter for packets that are none).

use flow::{Action, ActionKind, FieldId, PacketMatch};
use offload::{ActionCap, Needs, ObjectKind, Reject};

use crate::action::packet::{CSUM_ICMP, CSUM_IP4, CSUM_TCP, CSUM_UDP};
use crate::action::{
    ActionSpec, MAX_ACTIONS, MirredMode, PeditCmd, PeditHeader, PeditKey, Police, Skbedit, TcAction, Verdict,
    VlanAction,
};
use crate::keys::{FLAG_IS_FRAGMENT, FlowerKey};
use crate::lower_ct::{lower_ct, lower_ct_clear};
use crate::lower_match::{Can, LoweredMatch, TABLE, Terms, VLAN_PRESENT, exactly};
use crate::lower_tunnel::{self, Wanted, is_tunnel};

/// Masks of a tag that the vlan action can write: the id, with or without the priority and the bit that says it is there.
const SET_TAG: &[u128] = &[0x0fff, 0x1fff, 0xefff, 0xffff];
const IP: &[u128] = &[0x0800, 0x86dd];
const L4: Needs = &[(FieldId::EthType, IP), (FieldId::NwProto, &[6, 17])];

/// Actions of the table, as capabilities have them.
pub(crate) fn action_caps(can: Can) -> Vec<ActionCap> {
    use FieldId::*;
    let set = |f, needs| ActionCap::anywhere(ActionKind::SetField(f)).needing(needs);
    let v4: Needs = &[(EthType, &[0x0800])];
    let v6: Needs = &[(EthType, &[0x86dd])];
    let ip: Needs = &[(EthType, IP)];
    let mut all = vec![
        ActionCap::anywhere(ActionKind::Output),
        ActionCap::anywhere(ActionKind::PushVlan),
        ActionCap::anywhere(ActionKind::PopVlan),
        // Each may need a pedit and a csum of its own.
        ActionCap::anywhere(ActionKind::DecTtl).needing(ip).taking(2),
        ActionCap::anywhere(ActionKind::Meter),
        ActionCap::anywhere(ActionKind::PopMpls).needing(&[(EthType, &[0x8847, 0x8848])]),
        ActionCap::anywhere(ActionKind::PushMpls),
        set(VlanTci, &[]).one_of(SET_TAG),
        set(EthDst, &[]).taking(2),
        set(EthSrc, &[]).taking(2),
        set(NwSrc, v4).taking(2),
        set(NwDst, v4).taking(2),
        set(Ipv6Src, v6).taking(2),
        set(Ipv6Dst, v6).taking(2),
        set(NwTos, ip).taking(2),
        set(NwTtl, ip).taking(2),
        set(TpSrc, L4).taking(2),
        set(TpDst, L4).taking(2),
    ];
    all.extend(lower_tunnel::action_caps());
    if can.chains {
        all.push(ActionCap::anywhere(ActionKind::Recirc).at_most(1));
    }
    if can.conntrack {
        all.push(ActionCap::anywhere(ActionKind::Ct));
        all.push(ActionCap::anywhere(ActionKind::CtClear));
    }
    all
}

struct Lower<'a> {
    m: &'a PacketMatch,
    out: &'a mut LoweredMatch,
    /// Types of the tags that the packet has now, outermost first.
    tags: Vec<u16>,
    /// Header writes not yet turned into an action.
    pedit: Vec<PeditKey>,
    csum: u32,
    /// Whether there is a label stack before the network header that was not there.
    labelled: bool,
    /// Whether connection tracking has been asked.
    tracked: bool,
    /// Metadata of the tunnel that packets are to go into.
    tunnel: Wanted,
}

/// Adds the actions of a rule that matches `m`, which has been lowered to `out`.
///
/// # Errors
/// The [`Reject`] that names the action, field or number that does not fit.
pub fn lower_actions(
    actions: &[Action],
    m: &PacketMatch,
    out: &mut LoweredMatch,
    terms: &Terms<'_>,
) -> Result<(), Reject> {
    let tags = out.tags.clone();
    let (pedit, tunnel) = (Vec::new(), Wanted::default());
    let mut l = Lower { m, out, tags, pedit, csum: 0, labelled: false, tracked: false, tunnel };
    if l.out.by_tunnel {
        // It has come out of that tunnel, and is not to go into it again.
        l.push(TcAction::pipe(ActionSpec::TunnelUnset));
    }
    if let Some((Action::Recirc(id), before)) = actions.split_last() {
        for a in before {
            match a {
                Action::Output(port) => {
                    let ifindex = terms.ifindex(*port).ok_or(Reject::EgressNotOnDevice { port: *port })?;
                    l.leave_by(ifindex, MirredMode::EgressMirror, terms)?;
                }
                _ => l.action(a, terms)?,
            }
        }
        l.flush();
        let chain = (terms.chain)(*id)?;
        l.out.goes_to = Some((chain, l.tracked));
        l.push(TcAction::verdict(Verdict::Goto(chain)));
        return l.out.fits();
    }
    let last = actions.iter().rposition(|a| matches!(a, Action::Output(_)));
    // What is remembered of a packet after it was sent needs the packet for a little longer.
    let tracked_after = last.is_some_and(|i| actions[i..].iter().any(|a| matches!(a, Action::Ct(_))));
    for (i, a) in actions.iter().enumerate() {
        if let Action::Output(port) = a {
            let ifindex = terms.ifindex(*port).ok_or(Reject::EgressNotOnDevice { port: *port })?;
            let takes = Some(i) == last && !tracked_after;
            let mode = if takes { MirredMode::EgressRedirect } else { MirredMode::EgressMirror };
            l.leave_by(ifindex, mode, terms)?;
        } else {
            l.action(a, terms)?;
            if last.is_some_and(|last| i > last) && !tracked_after {
                // Nobody sees it, but it has to be one that could be done.
                l.pedit.clear();
                l.csum = 0;
                while l.out.flower.actions.last().is_some_and(|a| !is_redirect(a)) {
                    l.out.flower.actions.pop();
                }
            }
        }
    }
    if tracked_after {
        l.pedit.clear();
        l.csum = 0;
        l.push(TcAction::verdict(Verdict::Drop));
    } else if last.is_none() {
        // Meters count and connections are kept all the same; the rest has no effect on a packet that is dropped.
        l.out.flower.actions.retain(|a| matches!(a.spec, ActionSpec::Police(_) | ActionSpec::Ct(_)));
        l.push(TcAction::verdict(Verdict::Drop));
    }
    l.out.fits()
}

impl LoweredMatch {
    /// Not more actions than a filter has room for.
    pub(crate) fn fits(&self) -> Result<(), Reject> {
        let n = self.flower.actions.len();
        match n > MAX_ACTIONS {
            true => Err(Reject::TooManyActions { table: TABLE, wanted: n, offered: MAX_ACTIONS }),
            false => Ok(()),
        }
    }
}

fn is_redirect(a: &TcAction) -> bool {
    matches!(a.spec, ActionSpec::Mirred { mode, .. } if mode.takes_packet())
}

impl Lower<'_> {
    fn push(&mut self, a: TcAction) {
        self.out.flower.actions.push(a);
    }

    /// Sends the packet as it is now, into a tunnel when the interface is one.
    fn leave_by(&mut self, ifindex: u32, mode: MirredMode, terms: &Terms<'_>) -> Result<(), Reject> {
        self.flush();
        if terms.tunnels.contains(&ifindex) && std::mem::take(&mut self.tunnel.changed) {
            let action = ActionKind::SetField(FieldId::TunDst);
            let set = self.tunnel.action().ok_or(Reject::Action { table: TABLE, action })?;
            self.push(TcAction::pipe(ActionSpec::TunnelSet(Box::new(set))));
        }
        let mode = match mode {
            MirredMode::EgressRedirect if terms.internals.contains(&ifindex) => MirredMode::IngressRedirect,
            MirredMode::EgressMirror if terms.internals.contains(&ifindex) => MirredMode::IngressMirror,
            mode => mode,
        };
        if terms.internals.contains(&ifindex) {
            // To the interface that it came in by the frame was somebody else's, and the host's stack would not have it.
            let host = Skbedit { ptype: Some(0), ..Skbedit::default() };
            self.push(TcAction::pipe(ActionSpec::Skbedit(host)));
        }
        self.push(TcAction::mirred(mode, ifindex));
        Ok(())
    }

    /// Turns the header writes so far into actions.
    fn flush(&mut self) {
        if !self.pedit.is_empty() {
            let keys = std::mem::take(&mut self.pedit);
            self.push(TcAction::pipe(ActionSpec::Pedit(keys)));
        }
        let csum = std::mem::take(&mut self.csum);
        if csum != 0 {
            self.push(TcAction::pipe(ActionSpec::Csum(csum)));
        }
    }

    fn action(&mut self, a: &Action, terms: &Terms<'_>) -> Result<(), Reject> {
        let unsupported = Reject::Action { table: TABLE, action: a.kind() };
        match a {
            Action::SetField { field, value, mask } => return self.set_field(*field, *value, *mask),
            Action::DecTtl => return self.dec_ttl(),
            Action::PushVlan { tpid, tci } if matches!(tpid, 0x8100 | 0x88a8) => {
                self.flush();
                self.tags.insert(0, *tpid);
                let (vid, prio) = (tci & 0xfff, (tci >> 13) as u8);
                self.push(TcAction::pipe(ActionSpec::Vlan(VlanAction::Push { proto: *tpid, vid, prio })));
            }
            Action::PopVlan if !self.tags.is_empty() => {
                self.flush();
                self.tags.remove(0);
                self.push(TcAction::pipe(ActionSpec::Vlan(VlanAction::Pop)));
            }
            // There is no tag, and so nothing to take off.
            Action::PopVlan => {}
            Action::PushMpls { eth_type, lse }
                if matches!(eth_type, 0x8847 | 0x8848) && self.tags.is_empty() =>
            {
                self.flush();
                self.labelled = true;
                self.push(TcAction::pipe(ActionSpec::MplsPush {
                    proto: *eth_type,
                    label: lse >> 12,
                    tc: Some((lse >> 9) as u8 & 7),
                    ttl: Some(*lse as u8),
                    bos: Some((lse >> 8) as u8 & 1),
                }));
            }
            Action::PopMpls { eth_type } if self.tags.is_empty() => {
                self.flush();
                self.labelled = false;
                self.push(TcAction::pipe(ActionSpec::MplsPop { proto: *eth_type }));
            }
            Action::Meter(id) => {
                let kind = ObjectKind::Meter;
                let index = (terms.meter)(id.0).ok_or(Reject::ObjectOwnedElsewhere { kind, id: id.0 })?;
                self.flush();
                let verdict = Verdict::Drop;
                // Should there be no policer of that number any more, the kernel makes this one: nothing passes unmetered.
                let a = TcAction::pipe(ActionSpec::Police(Police::closed()));
                self.push(TcAction { index, verdict, ..a });
            }
            Action::Ct(c) if terms.can.conntrack => {
                self.flush();
                self.tracked = true;
                self.push(TcAction::pipe(lower_ct(c)?));
            }
            Action::CtClear if terms.can.conntrack => {
                self.flush();
                self.tracked = false;
                self.push(TcAction::pipe(lower_ct_clear()));
            }
            Action::Controller(_)
            | Action::Recirc(_)
            | Action::LbOutput(_)
            | Action::Ct(_)
            | Action::CtClear
            | Action::Sample(_)
            | Action::Export(_) => {
                return Err(Reject::NeedsSoftware { action: a.kind() });
            }
            _ => return Err(unsupported),
        }
        Ok(())
    }

    /// The network header, if it can be written to.
    fn network(&self, action: ActionKind) -> Result<PeditHeader, Reject> {
        let reachable = self.tags.len() < 2 && !self.labelled;
        match exactly(self.m, FieldId::EthType) {
            Some(0x0800) if reachable => Ok(PeditHeader::Ip4),
            Some(0x86dd) if reachable => Ok(PeditHeader::Ip6),
            _ => Err(Reject::Action { table: TABLE, action }),
        }
    }

    fn dec_ttl(&mut self) -> Result<(), Reject> {
        let header = self.network(ActionKind::DecTtl)?;
        // Adding 255 takes one off: what would be carried is beyond the mask.
        if header == PeditHeader::Ip4 {
            self.csum |= CSUM_IP4;
        }
        let at = ttl_at(header);
        self.write(header, PeditCmd::Add, at, &[0xff], &[0xff]);
        Ok(())
    }

    fn set_field(&mut self, field: FieldId, value: u128, mask: u128) -> Result<(), Reject> {
        use FieldId::{EthDst, EthSrc, Ipv6Dst, Ipv6Src, NwDst, NwSrc, NwTos, NwTtl, TpDst, TpSrc, VlanTci};
        let action = ActionKind::SetField(field);
        let be = |n: usize| (value.to_be_bytes()[16 - n..].to_vec(), mask.to_be_bytes()[16 - n..].to_vec());
        let (header, at, n) = match field {
            VlanTci => return self.set_tag(value, mask),
            f if is_tunnel(f) => return self.tunnel.write(f, value, mask),
            EthDst => (PeditHeader::Eth, 0, 6),
            EthSrc => (PeditHeader::Eth, 6, 6),
            NwSrc => (PeditHeader::Ip4, 12, 4),
            NwDst => (PeditHeader::Ip4, 16, 4),
            Ipv6Src => (PeditHeader::Ip6, 8, 16),
            Ipv6Dst => (PeditHeader::Ip6, 24, 16),
            NwTos | NwTtl => {
                let header = self.network(action)?;
                let (v, m) = (value as u8, mask as u8);
                match (field, header) {
                    (NwTos, PeditHeader::Ip6) => {
                        // Four bits of version before it, the flow label behind it.
                        self.write(header, PeditCmd::Set, 0, &[v >> 4, v << 4], &[m >> 4, m << 4]);
                    }
                    (NwTos, _) => self.write(header, PeditCmd::Set, 1, &[v], &[m]),
                    _ => self.write(header, PeditCmd::Set, ttl_at(header), &[v], &[m]),
                }
                if header == PeditHeader::Ip4 {
                    self.csum |= CSUM_IP4;
                }
                return Ok(());
            }
            TpSrc | TpDst => {
                self.network(action)?;
                let at = if field == TpSrc { 0 } else { 2 };
                let (header, csum) = match exactly(self.m, FieldId::NwProto) {
                    Some(6) => (PeditHeader::Tcp, CSUM_TCP),
                    Some(17) => (PeditHeader::Udp, CSUM_UDP),
                    _ => return Err(Reject::Action { table: TABLE, action }),
                };
                self.whole_packets_only(action)?;
                self.csum |= csum;
                (header, at, 2)
            }
            _ => return Err(Reject::Action { table: TABLE, action }),
        };
        if matches!(field, NwSrc | NwDst | Ipv6Src | Ipv6Dst) {
            if self.network(action)? != header {
                return Err(Reject::Action { table: TABLE, action });
            }
            self.whole_packets_only(action)?;
            // The addresses are in the pseudo header of what is above.
            self.csum |= match exactly(self.m, FieldId::NwProto) {
                Some(6) => CSUM_TCP,
                Some(17) => CSUM_UDP,
                Some(58) => CSUM_ICMP,
                Some(_) => 0,
                None => CSUM_TCP | CSUM_UDP | if header == PeditHeader::Ip6 { CSUM_ICMP } else { 0 },
            };
            if header == PeditHeader::Ip4 {
                self.csum |= CSUM_IP4;
            }
        }
        let (v, m) = be(n);
        self.write(header, PeditCmd::Set, at, &v, &m);
        Ok(())
    }

    /// Keeps fragments out of the filter: the checksum of a part is not that of the whole.
    fn whole_packets_only(&mut self, action: ActionKind) -> Result<(), Reject> {
        match self.out.flower.get(FlowerKey::Flags) {
            Some((v, mask)) if mask & FLAG_IS_FRAGMENT != 0 && v & FLAG_IS_FRAGMENT != 0 => {
                Err(Reject::Action { table: TABLE, action })
            }
            Some((_, mask)) if mask & FLAG_IS_FRAGMENT != 0 => Ok(()),
            _ => {
                self.out.flower.set_masked(FlowerKey::Flags, 0, FLAG_IS_FRAGMENT);
                Ok(())
            }
        }
    }

    fn set_tag(&mut self, value: u128, mask: u128) -> Result<(), Reject> {
        let field = FieldId::VlanTci;
        let Some(proto) = self.tags.first().copied() else {
            return Err(Reject::Action { table: TABLE, action: ActionKind::SetField(field) });
        };
        // Clearing the bit that says that a tag is there is a pop in disguise.
        if !SET_TAG.contains(&mask) || mask & VLAN_PRESENT != 0 && value & VLAN_PRESENT == 0 {
            return Err(Reject::SetMask { table: TABLE, field, wanted: mask, offered: 0xffff });
        }
        self.flush();
        let prio = (mask & 0xe000 != 0).then_some((value >> 13) as u8);
        let vid = value as u16 & 0xfff;
        self.push(TcAction::pipe(ActionSpec::Vlan(VlanAction::Modify { proto, vid, prio })));
        Ok(())
    }

    /// Adds a write of `value` under `mask` at `at` of `header`, word by word; words already written take it in.
    fn write(&mut self, header: PeditHeader, cmd: PeditCmd, at: u32, value: &[u8], mask: &[u8]) {
        for (i, (v, m)) in value.iter().zip(mask).enumerate() {
            if *m == 0 {
                continue;
            }
            let byte = at + i as u32;
            let (offset, in_word) = (byte / 4 * 4, (byte % 4) as usize);
            // Only the last write of a word: an addition must not be reordered with what is written to its byte.
            let same = |k: &&mut PeditKey| k.header == header && k.cmd == cmd && k.offset == offset;
            let key = match self.pedit.last_mut().filter(same) {
                Some(k) if cmd == PeditCmd::Set => k,
                _ => {
                    self.pedit.push(PeditKey { header, cmd, offset, keep: [0xff; 4], value: [0; 4] });
                    match self.pedit.last_mut() {
                        Some(k) => k,
                        None => return,
                    }
                }
            };
            key.value[in_word] = key.value[in_word] & !m | v & m;
            key.keep[in_word] &= !m;
        }
    }
}

/// Where the time to live, or the hop limit, is.
fn ttl_at(header: PeditHeader) -> u32 {
    if header == PeditHeader::Ip4 { 8 } else { 7 }
}
