//! Matches to flower keys, and back.
//!
//! Lowering clears each mask bit that it has turned into a key, and rejects the rule if any bit is left. A filter may be
//! *narrower* than the record it stands for, never wider: what it does not catch goes to software, which forwards it the same.
//! So a record that matches a tag but not its type becomes a filter for 0x8100, and one that says nothing of a second tag a
//! filter for packets without one.
//!
//! ```text
//!   record                     filter's protocol   eth_type   vlan_ethtype   cvlan_ethtype
//!   no tag, dl_type T          T                   T
//!   one tag of type V          V                   V          T
//!   two tags of types V, W     V                   V          W              T
//! ```

use flow::parse::{FRAG_ANY, FRAG_LATER};
use flow::{FieldId, PacketMatch, PortId};
use offload::capability::MaskForm;
use offload::{KeyField, Needs, Reject};

use crate::filter::Flower;
use crate::keys::{FLAG_FIRST_FRAGMENT, FLAG_IS_FRAGMENT, FlowerKey};
use crate::lower_tunnel;
use crate::tunnel_opts::LseMatch;

/// The table's name, as shown to people.
pub const TABLE: &str = "flower";

pub(crate) const VLAN_PRESENT: u128 = 0x1000;
const VID: u128 = 0x0fff;
const PCP: u128 = 0xe000;
/// Masks of a tag that flower's keys can say: whether it is there, its id, its priority.
const TAG_MASKS: &[u128] = &[0x1000, 0x1fff, 0xf000, 0xffff];
const FRAG_MASKS: &[u128] = &[FRAG_ANY as u128, (FRAG_ANY | FRAG_LATER) as u128];
/// Masks of a label stack entry: label, traffic class, bottom of stack, TTL, each whole or not at all.
const LSE_MASKS: &[u128] = &[
    0xffff_f000,
    0xffff_fe00,
    0xffff_f100,
    0xffff_ff00,
    0xffff_f0ff,
    0xffff_feff,
    0xffff_f1ff,
    0xffff_ffff,
    0xe00,
    0xf00,
    0xeff,
    0xfff,
    0x100,
    0x1ff,
    0xff,
];

const IP: &[u128] = &[0x0800, 0x86dd];
const V4: Needs = &[(FieldId::EthType, &[0x0800, 0x0806, 0x8035])];
const V6: Needs = &[(FieldId::EthType, &[0x86dd])];
const ANY_IP: Needs = &[(FieldId::EthType, IP)];
const PROTO: Needs = &[(FieldId::EthType, &[0x0800, 0x86dd, 0x0806, 0x8035])];
const ARP: Needs = &[(FieldId::EthType, &[0x0806, 0x8035])];
const MPLS: Needs = &[(FieldId::EthType, &[0x8847, 0x8848])];
const L4: Needs = &[(FieldId::EthType, IP), (FieldId::NwProto, &[1, 6, 17, 58, 132])];
const TCP: Needs = &[(FieldId::EthType, IP), (FieldId::NwProto, &[6])];

/// The key of the table, as capabilities have it.
pub(crate) fn key_fields(can: Can) -> Vec<KeyField> {
    use FieldId::*;
    let whole = |f, needs| KeyField::whole(f).needing(needs);
    let any = |f, needs| KeyField::any(f).needing(needs);
    let mut all = vec![
        KeyField::whole(DpPort).required(),
        KeyField::whole(EthType).required(),
        KeyField::one_of(VlanTci, TAG_MASKS).required(),
        KeyField::whole(VlanTpid).only(&[0, 0x8100, 0x88a8]),
        KeyField::one_of(VlanTci2, TAG_MASKS),
        KeyField::whole(VlanTpid2).only(&[0, 0x8100, 0x88a8]),
        any(EthDst, &[]),
        any(EthSrc, &[]),
        any(NwSrc, V4),
        any(NwDst, V4),
        any(Ipv6Src, V6),
        any(Ipv6Dst, V6),
        whole(NwProto, PROTO),
        any(NwTos, ANY_IP),
        any(NwTtl, ANY_IP),
        KeyField::one_of(NwFrag, FRAG_MASKS).needing(ANY_IP),
        any(TpSrc, L4),
        any(TpDst, L4),
        any(TcpFlags, TCP),
        any(ArpSha, ARP),
        any(ArpTha, ARP),
        KeyField::one_of(MplsLse0, LSE_MASKS).needing(MPLS),
        KeyField::one_of(MplsLse1, LSE_MASKS).needing(MPLS),
        KeyField::one_of(MplsLse2, LSE_MASKS).needing(MPLS),
    ];
    if can.chains {
        all.push(KeyField::whole(RecircId));
    }
    if can.conntrack {
        all.extend(crate::lower_ct::key_fields());
    }
    all.extend(lower_tunnel::key_fields());
    all
}

/// What there is beside plain filters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Can {
    /// Records that go on elsewhere become filters of chains.
    pub chains: bool,
    /// Connections are the kernel's.
    pub conntrack: bool,
}

/// What the numbers in a rule are to the kernel.
pub struct Terms<'a> {
    /// Interfaces by datapath port.
    pub ports: &'a [(PortId, u32)],
    /// Interfaces that are tunnels.
    pub tunnels: &'a [u32],
    /// Interfaces by which the host is on the kernel's own datapath.
    pub internals: &'a [u32],
    /// The number of the policer that is a meter.
    pub meter: &'a dyn Fn(u32) -> Option<u32>,
    /// The number of the chain for a recirculation id, or why there is none.
    pub chain: &'a dyn Fn(u32) -> Result<u32, Reject>,
    /// What may be used.
    pub can: Can,
}

impl Terms<'_> {
    /// The interface that a port is.
    pub(crate) fn ifindex(&self, port: PortId) -> Option<u32> {
        self.ports.iter().find(|(p, _)| *p == port).map(|(_, i)| *i)
    }
}

/// A match in flower's terms.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoweredMatch {
    /// Interface that packets come in by.
    pub ifindex: u32,
    /// Chain that the filter belongs to.
    pub chain: u32,
    /// Chain that packets go on in, and whether connection tracking sends them there.
    pub goes_to: Option<(u32, bool)>,
    /// Whether packets came by a tunnel, and have its metadata.
    pub by_tunnel: bool,
    /// Protocol that the filter is for.
    pub protocol: u16,
    /// Types of the tags that packets have, outermost first.
    pub tags: Vec<u16>,
    /// The keys; no actions yet.
    pub flower: Flower,
}

struct Lower<'a> {
    m: &'a PacketMatch,
    left: flow::PacketMask,
    out: LoweredMatch,
}

/// Whether `m` matches all of `f`.
pub(crate) fn exactly(m: &PacketMatch, f: FieldId) -> Option<u128> {
    let (v, mask) = m.get(f);
    (mask == f.info().max()).then_some(v)
}

/// The flower keys for `m`.
///
/// # Errors
/// The [`Reject`] that names the field, mask or value that flower cannot match.
pub fn lower_match(m: &PacketMatch, terms: &Terms<'_>) -> Result<LoweredMatch, Reject> {
    let port = exactly(m, FieldId::DpPort).ok_or(Reject::NoIngress)?;
    let port = PortId(port as u32);
    let ifindex = terms.ifindex(port).ok_or(Reject::IngressNotOnDevice { port })?;
    let mut l = Lower { m, left: *m.mask(), out: LoweredMatch { ifindex, ..Default::default() } };
    l.left.set(FieldId::DpPort, 0);
    let eth_type = exactly(m, FieldId::EthType)
        .ok_or(Reject::FieldRequired { table: TABLE, field: FieldId::EthType })? as u16;
    l.tags(eth_type)?;
    l.ethernet();
    let may_be = terms.tunnels.contains(&ifindex);
    l.out.by_tunnel = lower_tunnel::lower_tunnel(m, may_be, &mut l.left, &mut l.out.flower)?;
    match eth_type {
        0x0800 | 0x86dd => l.ip(eth_type)?,
        0x0806 | 0x8035 => l.arp(),
        0x8847 | 0x8848 => l.mpls()?,
        _ => {}
    }
    l.later(terms)?;
    offload::capability::spend_zeros(m, &[], &mut l.left);
    match l.left.fields().next() {
        Some(field) if offload::capability::FIRST_PASS_FIELDS.contains(&field) => {
            let wanted = l.left.get(field);
            Err(Reject::Mask { table: TABLE, field, wanted, offered: 0, form: MaskForm::Any })
        }
        Some(field) => Err(Reject::Field { table: TABLE, field }),
        None => Ok(l.out),
    }
}

impl Lower<'_> {
    fn set(&mut self, key: FlowerKey, v: u128) {
        self.out.flower.set(key, v);
    }

    /// Takes field `f` as `key`, whatever its mask.
    fn take(&mut self, f: FieldId, key: FlowerKey) {
        let (v, mask) = self.m.get(f);
        // What the key has no bits for is zero in every packet.
        let mask = mask & key.row().max;
        if mask != 0 {
            self.out.flower.set_masked(key, v, mask);
        }
        self.left.set(f, 0);
    }

    fn value(&self, field: FieldId) -> Reject {
        Reject::Value { table: TABLE, field, value: self.m.get(field).0 }
    }

    fn mask(&self, field: FieldId, form: MaskForm) -> Reject {
        let (_, wanted) = self.m.get(field);
        Reject::Mask { table: TABLE, field, wanted, offered: field.info().max(), form }
    }

    /// Protocol, Ethernet types and tags.
    fn tags(&mut self, eth_type: u16) -> Result<(), Reject> {
        use FieldId::{EthType, VlanTci, VlanTci2, VlanTpid, VlanTpid2};
        self.left.set(EthType, 0);
        if eth_type < 0x600 || matches!(eth_type, 0x8100 | 0x88a8) {
            // A length field, or more tags than are parsed.
            return Err(self.value(EthType));
        }
        let (tci, mask) = self.m.get(VlanTci);
        if mask == 0 {
            return Err(Reject::FieldRequired { table: TABLE, field: VlanTci });
        }
        if !TAG_MASKS.contains(&mask) {
            return Err(self.mask(VlanTci, MaskForm::OneOf(TAG_MASKS)));
        }
        self.left.set(VlanTci, 0);
        if tci & VLAN_PRESENT == 0 {
            for f in [VlanTci, VlanTpid, VlanTci2, VlanTpid2] {
                if self.m.get(f).0 != 0 {
                    return Err(self.value(f));
                }
                self.left.set(f, 0);
            }
            self.out.protocol = eth_type;
            self.set(FlowerKey::EthType, eth_type.into());
            return Ok(());
        }
        let outer = self.tag_type(VlanTpid)?;
        self.out.protocol = outer;
        self.out.tags.push(outer);
        self.set(FlowerKey::EthType, outer.into());
        self.tag(tci, mask, FlowerKey::VlanId, FlowerKey::VlanPrio);
        let (tci2, mask2) = self.m.get(VlanTci2);
        if mask2 != 0 && !TAG_MASKS.contains(&mask2) {
            return Err(self.mask(VlanTci2, MaskForm::OneOf(TAG_MASKS)));
        }
        self.left.set(VlanTci2, 0);
        if mask2 & VLAN_PRESENT != 0 && tci2 & VLAN_PRESENT != 0 {
            let inner = self.tag_type(VlanTpid2)?;
            self.out.tags.push(inner);
            self.set(FlowerKey::VlanEthType, inner.into());
            self.tag(tci2, mask2, FlowerKey::CvlanId, FlowerKey::CvlanPrio);
            self.set(FlowerKey::CvlanEthType, eth_type.into());
            return Ok(());
        }
        // No second tag, or nothing said of it.
        if self.m.get(VlanTpid2).0 != 0 || tci2 != 0 {
            return Err(self.value(VlanTpid2));
        }
        self.left.set(VlanTpid2, 0);
        self.set(FlowerKey::VlanEthType, eth_type.into());
        Ok(())
    }

    fn tag_type(&mut self, f: FieldId) -> Result<u16, Reject> {
        let (v, mask) = self.m.get(f);
        self.left.set(f, 0);
        match (mask, v) {
            (0, _) => Ok(0x8100),
            (0xffff, 0x8100 | 0x88a8) => Ok(v as u16),
            (0xffff, _) => Err(self.value(f)),
            _ => Err(self.mask(f, MaskForm::Whole)),
        }
    }

    fn tag(&mut self, tci: u128, mask: u128, id: FlowerKey, prio: FlowerKey) {
        if mask & VID != 0 {
            self.set(id, tci & VID);
        }
        if mask & PCP != 0 {
            self.set(prio, tci >> 13);
        }
    }

    /// What only packets have that have been in the tables before.
    fn later(&mut self, terms: &Terms<'_>) -> Result<(), Reject> {
        let (recirc, _) = self.m.get(FieldId::RecircId);
        if recirc == 0 || !terms.can.chains {
            return Ok(());
        }
        self.out.chain = (terms.chain)(recirc as u32)?;
        self.left.set(FieldId::RecircId, 0);
        // Where connections are not the kernel's, no filter with ct leads to a chain, and packets there have none.
        if terms.can.conntrack {
            crate::lower_ct::lower_connection(self.m, &mut self.out.flower)?;
            for f in [FieldId::CtState, FieldId::CtZone, FieldId::CtMark, FieldId::CtLabel] {
                self.left.set(f, 0);
            }
        }
        Ok(())
    }

    fn ethernet(&mut self) {
        self.take(FieldId::EthDst, FlowerKey::EthDst);
        self.take(FieldId::EthSrc, FlowerKey::EthSrc);
    }

    fn ip(&mut self, eth_type: u16) -> Result<(), Reject> {
        use FieldId::{Ipv6Dst, Ipv6Src, NwDst, NwProto, NwSrc, NwTos, NwTtl, TcpFlags, TpDst, TpSrc};
        if eth_type == 0x0800 {
            self.take(NwSrc, FlowerKey::Ip4Src);
            self.take(NwDst, FlowerKey::Ip4Dst);
        } else {
            self.take(Ipv6Src, FlowerKey::Ip6Src);
            self.take(Ipv6Dst, FlowerKey::Ip6Dst);
        }
        if !matches!(self.m.get(NwProto).1, 0 | 0xff) {
            return Err(self.mask(NwProto, MaskForm::Whole));
        }
        self.take(NwProto, FlowerKey::IpProto);
        self.take(NwTos, FlowerKey::IpTos);
        self.take(NwTtl, FlowerKey::IpTtl);
        self.fragment()?;
        let ports = match exactly(self.m, NwProto) {
            Some(6) => Some((FlowerKey::TcpSrc, FlowerKey::TcpDst)),
            Some(17) => Some((FlowerKey::UdpSrc, FlowerKey::UdpDst)),
            Some(132) => Some((FlowerKey::SctpSrc, FlowerKey::SctpDst)),
            Some(1) if eth_type == 0x0800 => Some((FlowerKey::Icmp4Type, FlowerKey::Icmp4Code)),
            Some(58) if eth_type == 0x86dd => Some((FlowerKey::Icmp6Type, FlowerKey::Icmp6Code)),
            _ => None,
        };
        if let Some((src, dst)) = ports {
            for (f, key) in [(TpSrc, src), (TpDst, dst)] {
                if self.m.get(f).0 > key.row().max {
                    return Err(self.value(f));
                }
                self.take(f, key);
            }
        }
        if exactly(self.m, NwProto) == Some(6) {
            self.take(TcpFlags, FlowerKey::TcpFlags);
        }
        Ok(())
    }

    fn fragment(&mut self) -> Result<(), Reject> {
        let (v, mask) = self.m.get(FieldId::NwFrag);
        let (any, later) = (u128::from(FRAG_ANY), u128::from(FRAG_LATER));
        self.left.set(FieldId::NwFrag, 0);
        let (flags, bits) = match mask {
            0 => return Ok(()),
            m if m == any => (if v & any != 0 { FLAG_IS_FRAGMENT } else { 0 }, FLAG_IS_FRAGMENT),
            m if m == any | later && v & any == 0 => (0, FLAG_IS_FRAGMENT),
            m if m == any | later => {
                let first = if v & later == 0 { FLAG_FIRST_FRAGMENT } else { 0 };
                (FLAG_IS_FRAGMENT | first, FLAG_IS_FRAGMENT | FLAG_FIRST_FRAGMENT)
            }
            _ => return Err(self.mask(FieldId::NwFrag, MaskForm::OneOf(FRAG_MASKS))),
        };
        self.out.flower.set_masked(FlowerKey::Flags, flags, bits);
        Ok(())
    }

    fn arp(&mut self) {
        self.take(FieldId::NwSrc, FlowerKey::ArpSip);
        self.take(FieldId::NwDst, FlowerKey::ArpTip);
        self.take(FieldId::NwProto, FlowerKey::ArpOp);
        self.take(FieldId::ArpSha, FlowerKey::ArpSha);
        self.take(FieldId::ArpTha, FlowerKey::ArpTha);
    }

    fn mpls(&mut self) -> Result<(), Reject> {
        let fields = [FieldId::MplsLse0, FieldId::MplsLse1, FieldId::MplsLse2];
        let mut stack = Vec::new();
        for (i, f) in fields.into_iter().enumerate() {
            let (v, mask) = self.m.get(f);
            self.left.set(f, 0);
            if mask == 0 {
                continue;
            }
            if !LSE_MASKS.contains(&mask) {
                return Err(self.mask(f, MaskForm::OneOf(LSE_MASKS)));
            }
            let part = |bits: u128, shift: u32| (mask & bits != 0).then_some(v >> shift);
            stack.push(LseMatch {
                depth: i as u8 + 1,
                label: part(0xffff_f000, 12).map(|v| v as u32),
                tc: part(0xe00, 9).map(|v| v as u8 & 7),
                bos: part(0x100, 8).map(|v| v as u8 & 1),
                ttl: part(0xff, 0).map(|v| v as u8),
            });
        }
        match stack.as_slice() {
            // The plain keys, which every kernel and driver has; and as the kernel tells it back.
            [l] if l.depth == 1 => {
                let keys = [
                    (FlowerKey::MplsLabel, l.label.map(u128::from)),
                    (FlowerKey::MplsTc, l.tc.map(u128::from)),
                    (FlowerKey::MplsBos, l.bos.map(u128::from)),
                    (FlowerKey::MplsTtl, l.ttl.map(u128::from)),
                ];
                for (k, v) in keys {
                    if let Some(v) = v {
                        self.set(k, v);
                    }
                }
            }
            _ => self.out.flower.mpls = stack,
        }
        Ok(())
    }
}

/// The match that a filter stands for, as far as it can be told: keys that have no field are left out.
pub fn raise_match(f: &Flower, port: PortId) -> PacketMatch {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, port.0.into());
    let get = |k| f.get(k).map(|(v, _)| v);
    // Of tagged packets the kernel tells the innermost type as the Ethernet type.
    let tagged = f.get(FlowerKey::VlanEthType).is_some();
    let two = f.get(FlowerKey::CvlanEthType).is_some();
    let eth_type = match (tagged, two) {
        (false, _) => get(FlowerKey::EthType),
        (true, false) => get(FlowerKey::VlanEthType),
        (true, true) => get(FlowerKey::CvlanEthType),
    };
    if let Some(t) = eth_type {
        m.set(FieldId::EthType, t);
    }
    let tci = if tagged { VLAN_PRESENT } else { 0 };
    m.set_masked(FieldId::VlanTci, tci, VLAN_PRESENT);
    for k in &f.keys {
        let Some(field) = field_of(k.key) else { continue };
        match k.key {
            FlowerKey::VlanId => m.set_masked(FieldId::VlanTci, k.value, VID),
            FlowerKey::VlanPrio => m.set_masked(FieldId::VlanTci, k.value << 13, PCP),
            _ => m.set_masked(field, k.value, k.mask),
        }
    }
    m
}

fn field_of(k: FlowerKey) -> Option<FieldId> {
    use FlowerKey as K;
    Some(match k {
        K::EthDst => FieldId::EthDst,
        K::EthSrc => FieldId::EthSrc,
        K::Ip4Src | K::ArpSip => FieldId::NwSrc,
        K::Ip4Dst | K::ArpTip => FieldId::NwDst,
        K::Ip6Src => FieldId::Ipv6Src,
        K::Ip6Dst => FieldId::Ipv6Dst,
        K::IpProto | K::ArpOp => FieldId::NwProto,
        K::TcpSrc | K::UdpSrc | K::SctpSrc | K::Icmp4Type | K::Icmp6Type => FieldId::TpSrc,
        K::TcpDst | K::UdpDst | K::SctpDst | K::Icmp4Code | K::Icmp6Code => FieldId::TpDst,
        K::TcpFlags => FieldId::TcpFlags,
        K::IpTos => FieldId::NwTos,
        K::IpTtl => FieldId::NwTtl,
        K::ArpSha => FieldId::ArpSha,
        K::ArpTha => FieldId::ArpTha,
        K::VlanId | K::VlanPrio => FieldId::VlanTci,
        _ => return None,
    })
}
