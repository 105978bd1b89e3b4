//! Datapath actions to hardware actions, and back.
//!
//! A set-field is lowered only when the match makes sure that the packet has the header the hardware's field stands for:
//! `nw_src` is an ARP address in ARP packets, `tp_src` an ICMP type in ICMP packets, and the hardware writes neither.

use std::ops::Range;

use flow::tunnel::{TunnelKind, TunnelPush};
use flow::{Action, ActionKind, FieldId, PacketMatch, PortId};
use offload::{Needs, ObjectKind, Reject};
use simnic_defs::entry::key::VLAN_PRESENT;
use simnic_defs::object::{HEADER_CSUM, HEADER_UDP, HEADER_V6};
use simnic_defs::regs::MAX_PORTS;
use simnic_defs::{Encap, HeaderSpec, HwAction, HwField, MAX_ACTIONS, MAX_OUTPUTS, SetField};

use crate::lower_match::meets;

/// How much a device lets an entry do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionLimits {
    /// Action slots.
    pub actions: usize,
    /// Outputs.
    pub outputs: usize,
    /// Headers that the device can put in front of packets.
    pub headers: usize,
    /// Whether it takes packets out of tunnels.
    pub opens: bool,
    /// Replication groups that the device has.
    pub groups: usize,
    /// Whether connections are handed over to it.
    pub tracks: bool,
}

impl Default for ActionLimits {
    fn default() -> Self {
        ActionLimits {
            actions: MAX_ACTIONS,
            outputs: MAX_OUTPUTS,
            headers: 0,
            opens: false,
            groups: 0,
            tracks: false,
        }
    }
}

/// Fields of at most 64 bits that a SET writes, beside the headers that must be there.
pub(crate) static SET_FIELDS: [(FieldId, HwField); 9] = [
    (FieldId::EthDst, HwField::EthDst),
    (FieldId::EthSrc, HwField::EthSrc),
    (FieldId::VlanTci, HwField::VlanTci),
    (FieldId::NwSrc, HwField::Ip4Src),
    (FieldId::NwDst, HwField::Ip4Dst),
    (FieldId::NwTos, HwField::Tos),
    (FieldId::NwTtl, HwField::Ttl),
    (FieldId::TpSrc, HwField::L4Src),
    (FieldId::TpDst, HwField::L4Dst),
];

/// 128-bit fields, written in halves.
pub(crate) static SET_WIDE: [(FieldId, HwField, HwField); 2] = [
    (FieldId::Ipv6Src, HwField::Ip6SrcHi, HwField::Ip6SrcLo),
    (FieldId::Ipv6Dst, HwField::Ip6DstHi, HwField::Ip6DstLo),
];

/// The header of a tunnel, as the device puts it on.
pub(crate) fn header_of(push: &TunnelPush) -> Option<HeaderSpec> {
    let flag = |is: bool, f: u8| if is { f } else { 0 };
    let udp = push.kind.is_udp();
    let flags = flag(push.v6, HEADER_V6) | flag(udp, HEADER_UDP) | flag(push.csum, HEADER_CSUM);
    HeaderSpec::new(push.bytes(), 14, push.l4(), flags)
}

/// An encapsulation in the hardware's terms; `None` for one that it does not know.
const fn encap(kind: TunnelKind) -> Option<Encap> {
    match kind {
        TunnelKind::Vxlan => Some(Encap::Vxlan),
        TunnelKind::Geneve => Some(Encap::Geneve),
        TunnelKind::Gre => Some(Encap::Gre),
        // Its device writes no numbers, times or lengths of theirs, and does not read them.
        TunnelKind::VxlanGpe | TunnelKind::Erspan | TunnelKind::Gtpu | TunnelKind::Lisp | TunnelKind::Stt => {
            None
        }
    }
}

/// The hardware's actions for those of a rule that matches `m`. `ports` has those that tunnels share too; no packet is sent there. `meters` is which meter each of the device's is. A header for a tunnel
/// has number 0 until one of the device's is found for it; see [`header_of`].
///
/// # Errors
/// The reject that names the action, field or number that does not fit `table`.
pub fn lower_actions(
    actions: &[Action],
    m: &PacketMatch,
    ports: &[(PortId, u8)],
    limits: ActionLimits,
    meters: &[Option<u32>],
    table: &'static str,
) -> Result<Vec<HwAction>, Reject> {
    if let [Action::Ct(c), Action::Recirc(recirc)] = actions
        && limits.tracks
        && c.only_looks_up()
    {
        return Ok(vec![HwAction::Track { zone: c.zone, recirc: *recirc }]);
    }
    let mut pushed = false;
    let mut out = Vec::with_capacity(actions.len());
    let (mut outputs, mut slots) = (0, 0);
    for a in actions {
        slots += slots_of(a);
        let unsupported = Reject::Action { table, action: a.kind() };
        if pushed && !matches!(a, Action::Output(_) | Action::Meter(_)) {
            // What it means is known from the match for the inner packet alone.
            return Err(Reject::ActionOrder { table, action: a.kind(), before: ActionKind::TunnelPush });
        }
        match a {
            Action::Output(p) => {
                let there = ports.iter().find(|(id, port)| id == p && u32::from(*port) < MAX_PORTS);
                let (_, port) = there.ok_or(Reject::EgressNotOnDevice { port: *p })?;
                outputs += 1;
                out.push(HwAction::Output { port: *port });
            }
            Action::SetField { field, value, mask } => {
                if !meets(m, set_needs(*field)) {
                    return Err(unsupported);
                }
                lower_set(*field, *value, *mask, table, &mut out)?;
            }
            Action::DecTtl => out.push(HwAction::DecTtl),
            Action::PushVlan { tpid, tci } if *tpid == 0x8100 || *tpid == 0x88a8 => {
                out.push(HwAction::PushVlan { tpid: *tpid, tci: tci & !VLAN_PRESENT })
            }
            Action::PopVlan => out.push(HwAction::PopVlan),
            Action::Controller(_)
            | Action::Recirc(_)
            | Action::Hash { .. }
            | Action::LbOutput(_)
            | Action::Ct(_)
            | Action::CtClear
            | Action::CheckLength(_)
            | Action::Sample(_)
            | Action::Export(_) => {
                return Err(Reject::NeedsSoftware { action: a.kind() });
            }
            Action::TunnelPop { port, kind } => {
                if !limits.opens {
                    return Err(Reject::NeedsSoftware { action: a.kind() });
                }
                if actions.len() > 1 {
                    return Err(Reject::NotAlone { table, action: a.kind() });
                }
                let (_, port) = ports
                    .iter()
                    .find(|(id, _)| id == port)
                    .ok_or(Reject::EgressNotOnDevice { port: *port })?;
                let kind = encap(*kind).ok_or(unsupported)?;
                out.push(HwAction::PopHeader { kind, port: *port });
            }
            Action::TunnelPush(push) => {
                if limits.headers == 0 {
                    return Err(Reject::NeedsSoftware { action: a.kind() });
                }
                // Its device writes the same header for every packet, but for lengths of IP and UDP.
                if push.number_at().is_some() || push.gtpu_length_at().is_some() {
                    return Err(unsupported);
                }
                header_of(push).ok_or(unsupported)?;
                pushed = true;
                out.push(HwAction::PushHeader { header: 0 });
            }
            Action::Meter(_) if meters.is_empty() => {
                return Err(Reject::ObjectUnsupported { kind: ObjectKind::Meter });
            }
            Action::Meter(id) => {
                let known = meters.iter().position(|m| *m == Some(id.0));
                let meter =
                    known.ok_or(Reject::ObjectOwnedElsewhere { kind: ObjectKind::Meter, id: id.0 })?;
                out.push(HwAction::Meter { meter: meter as u16 });
            }
            Action::PushVlan { .. }
            | Action::PushMpls { .. }
            | Action::PopMpls { .. }
            | Action::AddMpls { .. }
            | Action::PushEth { .. }
            | Action::PopEth
            | Action::PushNsh(_)
            | Action::PopNsh
            | Action::Trunc(_)
            | Action::Clone(_) => return Err(unsupported),
        }
    }
    if let Some((run, _)) = group_of(&out).filter(|_| limits.groups > 0) {
        outputs -= run.len() - 1;
    }
    if outputs > limits.outputs {
        return Err(Reject::TooManyOutputs { table, wanted: outputs, offered: limits.outputs });
    }
    if slots > limits.actions {
        return Err(Reject::TooManyActions { table, wanted: slots, offered: limits.actions });
    }
    Ok(out)
}

/// The longest run of outputs to different ports, when it is of two or more, and the ports, a bit for each: what a replication group
/// can do.
pub(crate) fn group_of(actions: &[HwAction]) -> Option<(Range<usize>, u16)> {
    let mut best: Option<(Range<usize>, u16)> = None;
    let (mut from, mut ports) = (0, 0u16);
    for (i, a) in actions.iter().enumerate() {
        let bit = match a {
            HwAction::Output { port } => 1u16.checked_shl((*port).into()).unwrap_or(0),
            _ => 0,
        };
        if bit == 0 {
            (from, ports) = (i + 1, 0);
        } else if ports & bit != 0 {
            (from, ports) = (i, bit);
        } else {
            ports |= bit;
        }
        let run = from..i + 1;
        if run.len() >= 2 && best.as_ref().is_none_or(|(b, _)| run.len() > b.len()) {
            best = Some((run, ports));
        }
    }
    best
}

/// What a rule must match for its packets to have the header that the hardware writes for `field`.
pub(crate) const fn set_needs(field: FieldId) -> Needs {
    const IP: &[u128] = &[0x0800, 0x86dd];
    match field {
        FieldId::NwSrc | FieldId::NwDst => &[(FieldId::EthType, &[0x0800])],
        FieldId::Ipv6Src | FieldId::Ipv6Dst => &[(FieldId::EthType, &[0x86dd])],
        FieldId::NwTos | FieldId::NwTtl => &[(FieldId::EthType, IP)],
        FieldId::TpSrc | FieldId::TpDst => &[(FieldId::EthType, IP), (FieldId::NwProto, &[6, 17])],
        _ => &[],
    }
}

/// Slots that an action is given, whether it needs them all or not.
fn slots_of(a: &Action) -> usize {
    match a {
        Action::SetField { field, .. } if SET_WIDE.iter().any(|(f, ..)| f == field) => 2,
        _ => 1,
    }
}

fn lower_set(
    field: FieldId,
    value: u128,
    mask: u128,
    table: &'static str,
    out: &mut Vec<HwAction>,
) -> Result<(), Reject> {
    if let Some((_, hi, lo)) = SET_WIDE.iter().find(|(f, ..)| *f == field) {
        for (field, value, mask) in [(*hi, value >> 64, mask >> 64), (*lo, value, mask)] {
            if mask as u64 != 0 {
                let (value, mask) = (value as u64 & mask as u64, mask as u64);
                out.push(HwAction::Set(SetField { field, value, mask }));
            }
        }
        return Ok(());
    }
    let Some((_, hw)) = SET_FIELDS.iter().find(|(f, _)| *f == field) else {
        return Err(Reject::Action { table, action: flow::ActionKind::SetField(field) });
    };
    let mut left = mask;
    if *hw == HwField::VlanTci && mask & u128::from(VLAN_PRESENT) != 0 {
        // Setting the present bit of a tag that is there changes nothing; clearing it is a pop in disguise.
        if value & u128::from(VLAN_PRESENT) == 0 {
            let offered = hw.max().into();
            return Err(Reject::SetMask { table, field, wanted: mask, offered });
        }
        left &= !u128::from(VLAN_PRESENT);
    }
    if left & !u128::from(hw.max()) != 0 {
        return Err(Reject::SetMask { table, field, wanted: mask, offered: hw.max().into() });
    }
    if left != 0 {
        let mask = left as u64;
        out.push(HwAction::Set(SetField { field: *hw, value: value as u64 & mask, mask }));
    }
    Ok(())
}

/// The datapath actions that hardware actions found in the device stand for; `None` when one has no counterpart.
pub fn raise_actions(hw: &[HwAction], ports: &[(PortId, u8)]) -> Option<Vec<Action>> {
    hw.iter()
        .map(|a| {
            Some(match *a {
                HwAction::Output { port } => {
                    Action::Output(ports.iter().find(|(_, p)| *p == port).map(|(id, _)| *id)?)
                }
                HwAction::DecTtl => Action::DecTtl,
                HwAction::PushVlan { tpid, tci } => Action::PushVlan { tpid, tci },
                HwAction::PopVlan => Action::PopVlan,
                HwAction::PopHeader { kind, port } => {
                    let kinds = [TunnelKind::Vxlan, TunnelKind::Geneve, TunnelKind::Gre];
                    let kind = kinds.into_iter().find(|k| encap(*k) == Some(kind))?;
                    Action::TunnelPop {
                        port: ports.iter().find(|(_, p)| *p == port).map(|(id, _)| *id)?,
                        kind,
                    }
                }
                // Which header that was is not known here.
                HwAction::ToHost
                | HwAction::Meter { .. }
                | HwAction::Replicate { .. }
                // It stands for two.
                | HwAction::Track { .. }
                | HwAction::PushHeader { .. } => return None,
                HwAction::Set(SetField { field, value, mask }) => {
                    let (value, mask) = (u128::from(value), u128::from(mask));
                    if let Some((f, hi, _)) = SET_WIDE.iter().find(|(_, h, l)| *h == field || *l == field) {
                        let up = if *hi == field { 64 } else { 0 };
                        Action::SetField { field: *f, value: value << up, mask: mask << up }
                    } else {
                        let (f, _) = SET_FIELDS.iter().find(|(_, h)| *h == field)?;
                        Action::SetField { field: *f, value, mask }
                    }
                }
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::ActionKind;

    const PORTS: [(PortId, u8); 2] = [(PortId(7), 0), (PortId(9), 3)];

    fn lower(actions: &[Action], eth_type: u128, proto: u128) -> Result<Vec<HwAction>, Reject> {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::EthType, eth_type);
        m.set(FieldId::NwProto, proto);
        lower_actions(actions, &m, &PORTS, ActionLimits::default(), &[], "exact")
    }

    fn set(field: FieldId, value: u128) -> Action {
        Action::SetField { field, value, mask: field.info().max() }
    }

    #[test]
    fn a_routed_flow_becomes_five_actions() {
        let a = [
            set(FieldId::EthDst, 2),
            set(FieldId::EthSrc, 4),
            Action::DecTtl,
            Action::PushVlan { tpid: 0x8100, tci: 0x1064 },
            Action::Output(PortId(9)),
        ];
        let hw = lower(&a, 0x800, 6).unwrap();
        assert_eq!(hw.len(), 5);
        assert_eq!(hw[3], HwAction::PushVlan { tpid: 0x8100, tci: 0x64 });
        assert_eq!(hw[4], HwAction::Output { port: 3 });
        let back = raise_actions(&hw, &PORTS).unwrap();
        assert_eq!(back[..3], a[..3]);
    }

    #[test]
    fn ipv6_addresses_take_a_slot_for_each_half() {
        let hw = lower(&[set(FieldId::Ipv6Dst, 1 << 100 | 9)], 0x86dd, 6).unwrap();
        assert_eq!(hw.len(), 2);
        let low = Action::SetField { field: FieldId::Ipv6Dst, value: 9, mask: 0xff };
        assert_eq!(lower(&[low], 0x86dd, 6).unwrap().len(), 1);
    }

    #[test]
    fn what_hardware_would_write_elsewhere_is_rejected() {
        let reject = |f| Err(Reject::Action { table: "exact", action: ActionKind::SetField(f) });
        assert_eq!(lower(&[set(FieldId::NwSrc, 1)], 0x806, 1), reject(FieldId::NwSrc));
        assert_eq!(lower(&[set(FieldId::TpSrc, 1)], 0x800, 1), reject(FieldId::TpSrc));
        assert_eq!(lower(&[set(FieldId::TpDst, 1)], 0x800, 132), reject(FieldId::TpDst));
        assert_eq!(lower(&[set(FieldId::ArpSha, 1)], 0x806, 1), reject(FieldId::ArpSha));
    }

    #[test]
    fn the_present_bit_of_a_tag_can_be_set_but_not_cleared() {
        let keep = Action::SetField { field: FieldId::VlanTci, value: 0x1005, mask: 0x1fff };
        let want = HwAction::Set(SetField { field: HwField::VlanTci, value: 5, mask: 0xfff });
        assert_eq!(lower(&[keep], 0x800, 6), Ok(vec![want]));
        let clear = Action::SetField { field: FieldId::VlanTci, value: 5, mask: 0x1fff };
        assert!(matches!(lower(&[clear], 0x800, 6), Err(Reject::SetMask { .. })));
    }

    #[test]
    fn the_longest_run_of_different_ports_is_a_group() {
        let out = |p: &[u8]| p.iter().map(|port| HwAction::Output { port: *port }).collect::<Vec<_>>();
        assert_eq!(group_of(&out(&[3])), None);
        assert_eq!(group_of(&out(&[3, 3])), None);
        assert_eq!(group_of(&out(&[1, 2, 0, 2])), Some((0..3, 7)));
        let mut all = out(&[1, 2]);
        all.push(HwAction::DecTtl);
        all.extend(out(&[0, 3, 4]));
        assert_eq!(group_of(&all), Some((3..6, 0b11001)));
        // As many as the device has ports are one output of an entry.
        let ports: Vec<(PortId, u8)> = (0..16).map(|p| (PortId(p), p as u8)).collect();
        let flood: Vec<Action> = (0..12).map(|p| Action::Output(PortId(p))).collect();
        let limits = ActionLimits { groups: 1, ..ActionLimits::default() };
        assert!(lower_actions(&flood, &PacketMatch::ANY, &ports, limits, &[], "exact").is_ok());
        let none = ActionLimits::default();
        assert!(lower_actions(&flood, &PacketMatch::ANY, &ports, none, &[], "exact").is_err());
    }

    #[test]
    fn taking_a_packet_out_of_a_tunnel_is_all_that_an_entry_does() {
        let ports = [PORTS[0], (PortId(4789), 16)];
        let limits = ActionLimits { opens: true, ..ActionLimits::default() };
        let lower = |a: &[Action]| lower_actions(a, &PacketMatch::ANY, &ports, limits, &[], "exact");
        let pop = Action::TunnelPop { port: PortId(4789), kind: TunnelKind::Gre };
        let hw = lower(std::slice::from_ref(&pop)).unwrap();
        assert_eq!(hw, [HwAction::PopHeader { kind: Encap::Gre, port: 16 }]);
        assert_eq!(raise_actions(&hw, &ports), Some(vec![pop.clone()]));
        let want = Reject::NotAlone { table: "exact", action: ActionKind::TunnelPop };
        assert_eq!(lower(&[Action::DecTtl, pop]), Err(want));
        let want = Reject::EgressNotOnDevice { port: PortId(4789) };
        assert_eq!(lower(&[Action::Output(PortId(4789))]), Err(want), "no packet leaves by it");
    }

    #[test]
    fn headers_that_are_not_the_same_for_every_packet_stay_in_software() {
        use flow::tunnel::{Special, TunnelHeader};
        let ports = [PORTS[0], (PortId(99), 16)];
        let limits = ActionLimits { opens: true, headers: 4, ..ActionLimits::default() };
        let lower = |a: &[Action]| lower_actions(a, &PacketMatch::ANY, &ports, limits, &[], "exact");
        for (kind, special, fits) in [
            (TunnelKind::Gre, Special::None, true),
            (TunnelKind::Gre, Special::Numbered, false),
            (TunnelKind::Erspan, Special::Erspan1 { index: 1 }, false),
            (TunnelKind::Gtpu, Special::None, false),
        ] {
            let header = TunnelHeader {
                kind,
                eth_src: flow::MacAddr([2, 0, 0, 0, 0, 1]),
                eth_dst: flow::MacAddr([2, 0, 0, 0, 0, 2]),
                src: std::net::IpAddr::from([10, 0, 0, 1]),
                dst: std::net::IpAddr::from([10, 0, 0, 2]),
                tos: 0,
                ttl: 64,
                dont_fragment: true,
                csum: false,
                key: Some(7),
                tp_dst: kind.default_port(),
                gbp: None,
                oam: false,
                packet_type: 0,
                special,
            };
            let push = Action::TunnelPush(Box::new(TunnelPush::new(&header, PortId(99), PortId(7))));
            let want = Reject::Action { table: "exact", action: ActionKind::TunnelPush };
            assert_eq!(lower(&[push, Action::Output(PORTS[0].0)]).err(), (!fits).then_some(want), "{kind:?}");
            let pop = Action::TunnelPop { port: PortId(99), kind };
            let want = Reject::Action { table: "exact", action: ActionKind::TunnelPop };
            let known = kind == TunnelKind::Gre;
            assert_eq!(lower(&[pop]).err(), (!known).then_some(want), "{kind:?}");
        }
    }

    #[test]
    fn too_much_for_an_entry_is_rejected_with_its_number() {
        let outs = vec![Action::Output(PortId(7)); 9];
        let want = Reject::TooManyOutputs { table: "exact", wanted: 9, offered: 8 };
        assert_eq!(lower(&outs, 0x800, 6), Err(want));
        let sets = vec![set(FieldId::Ipv6Src, u128::MAX); 9];
        let want = Reject::TooManyActions { table: "exact", wanted: 18, offered: 16 };
        assert_eq!(lower(&sets, 0x86dd, 6), Err(want));
    }

    #[test]
    fn actions_of_other_layers_are_rejected_by_kind() {
        let want = Err(Reject::NeedsSoftware { action: ActionKind::Recirc });
        assert_eq!(lower(&[Action::Recirc(1)], 0x800, 6), want);
        let want = Err(Reject::ObjectUnsupported { kind: offload::ObjectKind::Meter });
        assert_eq!(lower(&[Action::Meter(flow::MeterId(1))], 0x800, 6), want);
        let want = Err(Reject::EgressNotOnDevice { port: PortId(1) });
        assert_eq!(lower(&[Action::Output(PortId(1))], 0x800, 6), want);
        let want = Err(Reject::Action { table: "exact", action: ActionKind::PushVlan });
        assert_eq!(lower(&[Action::PushVlan { tpid: 0x9100, tci: 1 }], 0x800, 6), want);
    }
}
