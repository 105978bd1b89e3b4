//! A rule in the device's terms: the match of an ACL policy entry, and what each output does to the frame.
//!
//! Every frame has a tag by the time it gets to the ACL table: untagged ones were given VLAN [`INTERNAL_VLAN`], which no
//! frame on a wire may have (IEEE 802.1Q 9.6; the VLAN table drops those that do). So an entry for untagged frames matches
//! that tag, and sending one untagged means popping it.

use flow::{Action, ActionKind, FieldId, PacketMatch, PortId};
use offload::capability::spend_zeros;
use offload::{FlowRule, Origin, Reject};
use rocker_defs::Tlvs;
use rocker_defs::cmd::of_dpa as t;

use crate::capability::ACL_NAME;

/// The VLAN of untagged frames within the device.
pub const INTERNAL_VLAN: u16 = 0xfff;
/// Where groups are put that send tagged frames as they are, whatever their VLAN.
pub const KEEP_VLAN: u16 = 0xffe;

/// Bit of `vlan_tci` that says a tag is there; on the wire it is the drop eligible indicator.
const VLAN_PRESENT: u128 = 0x1000;
/// Bits of a tag that records know: priority and VLAN id.
const TAG_BITS: u128 = 0xefff;

/// The match of an entry, front-panel ports counted from 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AclMatch {
    /// Ingress port.
    pub pport: u32,
    /// Destination address and mask.
    pub dst: (u64, u64),
    /// Source address and mask.
    pub src: (u64, u64),
    /// Ethernet type; 0 matches all.
    pub eth_type: u16,
    /// Tag and mask, not zero as the device takes it.
    pub tag: (u16, u16),
    /// IP protocol and mask.
    pub proto: (u8, u8),
    /// TOS and mask.
    pub tos: (u8, u8),
}

/// What an output does to the frame before it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Leg {
    /// Front-panel port, counted from 1.
    pub pport: u16,
    /// Whether the tag that it has within the device is taken off.
    pub pop: bool,
    /// The tag it leaves with instead of the internal one.
    pub push: Option<u16>,
    /// New source address.
    pub src: Option<[u8; 6]>,
    /// New destination address.
    pub dst: Option<[u8; 6]>,
}

/// A rule in the device's terms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lowered {
    /// What is matched.
    pub matches: AclMatch,
    /// Outputs; none drops.
    pub legs: Vec<Leg>,
}

pub(crate) fn pport_of(ports: &[(PortId, u16)], port: PortId) -> Option<u16> {
    ports.iter().find(|(id, _)| *id == port).map(|(_, p)| p + 1)
}

/// `rule` for the device whose ports are `ports`.
///
/// # Errors
/// The reject that names what does not fit the table.
pub fn lower(rule: &FlowRule, ports: &[(PortId, u16)]) -> Result<Lowered, Reject> {
    let any_fragment = rule.provenance.contains(&Origin::Fragments);
    let matches = lower_match(&rule.matches, any_fragment, ports)?;
    let tagged = rule.matches.get(FieldId::VlanTci).0 & VLAN_PRESENT != 0;
    Ok(Lowered { matches, legs: lower_actions(&rule.actions, tagged, ports)? })
}

fn lower_match(m: &PacketMatch, any_fragment: bool, ports: &[(PortId, u16)]) -> Result<AclMatch, Reject> {
    let table = ACL_NAME;
    let mut left = *m.mask();
    let mut take = |f: FieldId| {
        left.set(f, 0);
        m.get(f)
    };
    let (port, mask) = take(FieldId::DpPort);
    if mask != FieldId::DpPort.info().max() {
        return Err(Reject::NoIngress);
    }
    let port = PortId(port as u32);
    let pport = pport_of(ports, port).ok_or(Reject::IngressNotOnDevice { port })?;

    let (eth_type, mask) = take(FieldId::EthType);
    if mask != 0xffff {
        return Err(Reject::FieldRequired { table, field: FieldId::EthType });
    }
    if eth_type == 0 {
        return Err(Reject::Value { table, field: FieldId::EthType, value: 0 });
    }
    let (tci, tci_mask) = take(FieldId::VlanTci);
    if tci_mask & 0x1fff != 0x1fff {
        return Err(Reject::FieldRequired { table, field: FieldId::VlanTci });
    }
    if tci & 0x1fff == VLAN_PRESENT | u128::from(INTERNAL_VLAN) {
        return Err(Reject::Value { table, field: FieldId::VlanTci, value: tci });
    }
    let tag = if tci & VLAN_PRESENT == 0 {
        (INTERNAL_VLAN, u16::MAX)
    } else {
        let (v, m) = ((tci & TAG_BITS) as u16, (tci_mask & TAG_BITS) as u16);
        // The device refuses 0, even as far as it is not compared: the bit that records do not know is not.
        (if v == 0 { VLAN_PRESENT as u16 } else { v }, m)
    };
    let (tpid, mask) = take(FieldId::VlanTpid);
    if mask != 0 && tpid & mask != 0x8100 & mask {
        return Err(Reject::Value { table, field: FieldId::VlanTpid, value: tpid });
    }
    let (frag, mask) = take(FieldId::NwFrag);
    if mask != 0 && (frag != 0 || !any_fragment) {
        // The table does not see fragments: an entry meets them as well, and for this rule that would be wrong.
        return Err(Reject::Field { table, field: FieldId::NwFrag });
    }
    let mac = |(v, m): (u128, u128)| (v as u64, m as u64);
    let byte = |(v, m): (u128, u128)| (v as u8, m as u8);
    let lowered = AclMatch {
        pport: pport.into(),
        dst: mac(take(FieldId::EthDst)),
        src: mac(take(FieldId::EthSrc)),
        eth_type: eth_type as u16,
        tag,
        proto: byte(take(FieldId::NwProto)),
        tos: byte(take(FieldId::NwTos)),
    };
    spend_zeros(m, &[FieldId::VlanTci2, FieldId::VlanTpid2], &mut left);
    match left.fields().next() {
        Some(field) => Err(Reject::Field { table, field }),
        None => Ok(lowered),
    }
}

fn lower_actions(actions: &[Action], tagged: bool, ports: &[(PortId, u16)]) -> Result<Vec<Leg>, Reject> {
    let table = ACL_NAME;
    let mut legs = Vec::new();
    // Untagged frames have the internal tag until they leave.
    let mut now = Leg { pport: 0, pop: !tagged, push: None, src: None, dst: None };
    for a in actions {
        let unsupported = Reject::Action { table, action: a.kind() };
        match a {
            Action::Output(port) => {
                let pport = pport_of(ports, *port).ok_or(Reject::EgressNotOnDevice { port: *port })?;
                legs.push(Leg { pport, ..now });
            }
            Action::SetField { field: f @ (FieldId::EthSrc | FieldId::EthDst), value, mask } => {
                let b = value.to_be_bytes();
                let mac: [u8; 6] = std::array::from_fn(|i| b[10 + i]);
                // A rewrite group takes an address of zeroes for none.
                if *mask != f.info().max() || mac == [0; 6] {
                    return Err(unsupported);
                }
                if *f == FieldId::EthSrc { now.src = Some(mac) } else { now.dst = Some(mac) }
            }
            Action::PushVlan { tpid: 0x8100, tci } if !tagged && now.push.is_none() => {
                let tag = tci & TAG_BITS as u16;
                if tag == 0 || tag & 0xfff == INTERNAL_VLAN {
                    return Err(unsupported);
                }
                (now.pop, now.push) = (false, Some(tag));
            }
            Action::PopVlan => (now.pop, now.push) = (true, None),
            Action::Controller(_) | Action::Recirc(_) | Action::Sample(_) | Action::Export(_) => {
                return Err(Reject::NeedsSoftware { action: a.kind() });
            }
            _ => return Err(unsupported),
        }
    }
    Ok(legs)
}

/// Whether a kind of action ever fits; what the capabilities list.
pub fn knows(kind: ActionKind) -> bool {
    matches!(
        kind,
        ActionKind::Output
            | ActionKind::PushVlan
            | ActionKind::PopVlan
            | ActionKind::SetField(FieldId::EthSrc | FieldId::EthDst)
    )
}

/// An address as it is on the wire.
pub(crate) fn mac_bytes(v: u64) -> [u8; 6] {
    let b = v.to_be_bytes();
    std::array::from_fn(|i| b[2 + i])
}

impl AclMatch {
    /// Whether it is of frames that came without a tag.
    pub fn is_untagged(&self) -> bool {
        self.tag == (INTERNAL_VLAN, u16::MAX)
    }

    /// As TLVs of a flow command, behind `tlvs`; untagged frames are in `untagged_vlan`.
    pub fn encode(&self, tlvs: Tlvs, untagged_vlan: u16) -> Tlvs {
        let tag = if self.is_untagged() { untagged_vlan } else { self.tag.0 };
        let ip = matches!(self.eth_type, 0x0800 | 0x86dd);
        let tlvs = tlvs
            .u32(t::IN_PPORT, self.pport)
            .u32(t::IN_PPORT_MASK, u32::MAX)
            .put(t::SRC_MAC, &mac_bytes(self.src.0))
            .put(t::SRC_MAC_MASK, &mac_bytes(self.src.1))
            .put(t::DST_MAC, &mac_bytes(self.dst.0))
            .put(t::DST_MAC_MASK, &mac_bytes(self.dst.1))
            .be16(t::ETHERTYPE, self.eth_type)
            .be16(t::VLAN_ID, tag)
            .be16(t::VLAN_ID_MASK, self.tag.1);
        if !ip {
            return tlvs;
        }
        // The whole TOS as DSCP: see the quirks.
        tlvs.u8(t::IP_PROTO, self.proto.0)
            .u8(t::IP_PROTO_MASK, self.proto.1)
            .u8(t::IP_DSCP, self.tos.0)
            .u8(t::IP_DSCP_MASK, self.tos.1)
            .u8(t::IP_ECN, 0)
            .u8(t::IP_ECN_MASK, 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use offload::FlowId;

    const PORTS: [(PortId, u16); 3] = [(PortId(7), 0), (PortId(9), 1), (PortId(11), 2)];

    fn rule(tci: (u128, u128), actions: Vec<Action>) -> FlowRule {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 7);
        m.set(FieldId::EthType, 0x0800);
        m.set_masked(FieldId::VlanTci, tci.0, tci.1);
        m.set(FieldId::RecircId, 0);
        FlowRule { id: FlowId(1), matches: m, actions: actions.into(), provenance: [].into() }
    }

    const UNTAGGED: (u128, u128) = (0, 0x1fff);
    const VLAN_5: (u128, u128) = (0x1005, 0x1fff);

    #[test]
    fn untagged_frames_are_in_the_internal_vlan_and_leave_it_when_sent() {
        let l = lower(&rule(UNTAGGED, vec![Action::Output(PortId(9))]), &PORTS).unwrap();
        assert_eq!((l.matches.pport, l.matches.tag), (1, (0xfff, 0xffff)));
        assert_eq!(l.legs, [Leg { pport: 2, pop: true, push: None, src: None, dst: None }]);
        let push = Action::PushVlan { tpid: 0x8100, tci: 0x2005 };
        let actions = vec![Action::Output(PortId(9)), push, Action::Output(PortId(11))];
        let l = lower(&rule(UNTAGGED, actions), &PORTS).unwrap();
        assert_eq!((l.legs[0].pop, l.legs[1].pop, l.legs[1].push), (true, false, Some(0x2005)));
    }

    #[test]
    fn tagged_frames_keep_their_tag_or_lose_it() {
        let actions = vec![Action::Output(PortId(9)), Action::PopVlan, Action::Output(PortId(11))];
        let l = lower(&rule(VLAN_5, actions), &PORTS).unwrap();
        assert_eq!(l.matches.tag, (5, 0x0fff));
        assert_eq!((l.legs[0].pop, l.legs[1].pop), (false, true));
        // VLAN 0, which is a priority tag, is given with a bit that is not compared.
        let l = lower(&rule((0x1000, 0x1fff), vec![]), &PORTS).unwrap();
        assert_eq!(l.matches.tag, (0x1000, 0x0fff));
    }

    #[test]
    fn what_does_not_fit_is_named_with_the_table() {
        let reject = |tci, actions| lower(&rule(tci, actions), &PORTS).unwrap_err();
        let push = |tpid| Action::PushVlan { tpid, tci: 6 };
        let unsupported = |action| Reject::Action { table: "acl-policy", action };
        assert_eq!(reject(VLAN_5, vec![push(0x8100)]), unsupported(ActionKind::PushVlan));
        assert_eq!(reject(VLAN_5, vec![Action::PopVlan, push(0x8100)]), unsupported(ActionKind::PushVlan));
        assert_eq!(reject(UNTAGGED, vec![push(0x88a8)]), unsupported(ActionKind::PushVlan));
        assert_eq!(reject(UNTAGGED, vec![Action::DecTtl]), unsupported(ActionKind::DecTtl));
        assert!(!knows(ActionKind::DecTtl));
        let want = Reject::Value { table: "acl-policy", field: FieldId::VlanTci, value: 0x1fff };
        assert_eq!(reject((0x1fff, 0x1fff), vec![]), want);
        let mut r = rule(UNTAGGED, vec![]);
        r.matches.set(FieldId::NwDst, 1);
        let want = Reject::Field { table: "acl-policy", field: FieldId::NwDst };
        assert_eq!(lower(&r, &PORTS), Err(want));
        let mut r = rule(UNTAGGED, vec![]);
        r.matches.set_masked(FieldId::NwFrag, 0, 3);
        let want = Reject::Field { table: "acl-policy", field: FieldId::NwFrag };
        assert_eq!(lower(&r, &PORTS), Err(want));
        r.provenance = [Origin::Fragments].into();
        assert!(lower(&r, &PORTS).is_ok(), "what holds for fragments too");
    }
}
