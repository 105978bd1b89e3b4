//! The end of a translation: what is left over goes, and the mask becomes one a packet can have.

use std::sync::LazyLock;

use flow::headers::eth_type;
use flow::{Action, FieldId, PacketMask, PipelineMask};

use offload::Origin;

use super::commit::has_labels;
use super::{Outcome, Xlate};

/// Fields that only some packets have, as masks.
struct Fields {
    of_tunnel: PacketMask,
    of_ip: PacketMask,
    protocol: PacketMask,
    addresses: PacketMask,
    of_ipv6: PacketMask,
    hardware: PacketMask,
    labels: PacketMask,
    tags: PacketMask,
    link: PacketMask,
}

static FIELDS_OF: LazyLock<Fields> = LazyLock::new(|| {
    use FieldId::*;
    let all = |fields: &[FieldId]| fields.iter().copied().collect();
    Fields {
        of_tunnel: super::tunnel::tunnel_fields().collect(),
        of_ip: all(&[Ipv6Label, NwTos, NwTtl, NwFrag, TpSrc, TpDst, TcpFlags]),
        protocol: all(&[NwProto]),
        addresses: all(&[NwSrc, NwDst]),
        of_ipv6: all(&[Ipv6Src, Ipv6Dst, Ipv6Label, NdTarget]),
        hardware: all(&[ArpSha, ArpTha]),
        labels: all(&[MplsLse0, MplsLse1, MplsLse2]),
        tags: all(&[VlanTci, VlanTpid, VlanTci2, VlanTpid2]),
        link: all(&[EthSrc, EthDst, VlanTci, VlanTpid, VlanTci2, VlanTpid2]),
    }
});

/// Those of `actions` that a packet shows: changes after the last time that it went anywhere are nobody's.
pub(super) fn that_matter(mut actions: Vec<Action>) -> Vec<Action> {
    let gone = |a: &Action| {
        matches!(
            a,
            Action::Output(_)
                | Action::LbOutput(_)
                | Action::Controller(_)
                | Action::Recirc(_)
                | Action::Ct(_)
                | Action::Clone(_)
                | Action::Sample(_)
                | Action::Export(_)
                | Action::CheckLength(_)
                | Action::Meter(_)
                | Action::TunnelPush(_)
                | Action::TunnelPop { .. }
        )
    };
    let keep = actions.iter().rposition(gone).map_or(0, |i| i + 1);
    actions.truncate(keep);
    // What is done last to a copy is as well done to the packet.
    while let Some(Action::Clone(_)) = actions.last() {
        if let Some(Action::Clone(list)) = actions.pop() {
            actions.extend(list);
        }
    }
    actions
}

impl Xlate<'_> {
    /// The outcome, which is taken.
    pub(super) fn finish(&mut self) -> Outcome {
        if self.out.problem.is_some() {
            self.out.actions.clear();
        }
        self.out.actions = that_matter(std::mem::take(&mut self.out.actions));
        let own = self.headers.own.take();
        self.forget_what_is_not_the_packets(own);
        self.out.mask = self.packet_mask();
        if self.stock() {
            self.forget_labels_below_the_last();
        }
        if let Some(origin) = self.shared_origin() {
            self.out.provenance.push(origin);
        }
        if self.is_alike_for_fragments() {
            self.out.provenance.push(Origin::Fragments);
        }
        if self.record {
            self.out.seen = Some(Box::new((self.looked_mask(), self.key)));
        }
        std::mem::take(&mut self.out)
    }

    /// Below the last label there is none to match on.
    fn forget_labels_below_the_last(&mut self) {
        use FieldId::{MplsLse0, MplsLse1, MplsLse2};
        if !has_labels(&self.orig) {
            return;
        }
        let mut below = false;
        for f in [MplsLse0, MplsLse1, MplsLse2] {
            if below {
                self.out.mask.set_masked(f, 0, u128::MAX);
            }
            below |= self.orig.get(f) & self.out.mask.get(f) & 0x100 != 0;
        }
    }

    /// Whether the verdict on this IP packet, which is not a fragment, holds for fragments that are like it otherwise.
    fn is_alike_for_fragments(&self) -> bool {
        use FieldId::{EthType, NwFrag, TcpFlags, TpDst, TpSrc};
        let ip = matches!(self.orig.get64(EthType), 0x0800 | 0x86dd);
        let unseen = [NwFrag, TpSrc, TpDst, TcpFlags].iter().all(|f| self.wc.get(*f) == 0);
        ip && self.orig.get(NwFrag) == 0 && unseen
    }

    /// The bits looked at, as Open vSwitch shows them: with the OpenFlow port in place of the datapath's, and without a tag
    /// that nobody looked at.
    fn looked_mask(&self) -> PipelineMask {
        use FieldId::*;
        let mut m: PipelineMask = self.packet_mask().resize();
        m.set(DpPort, 0);
        for f in [InPort, PacketType] {
            m.set_exact(f);
        }
        if self.out.problem.is_some() {
            // Of a translation that was given up, Open vSwitch tells of registers too.
            let registers = (0..16).filter_map(FieldId::reg);
            registers.chain([Metadata]).for_each(|f| m.set_masked(f, u128::MAX, self.wc.get(f)));
        }
        let tags = [(VlanTci, VlanTpid), (VlanTci2, VlanTpid2)];
        for (tci, tpid) in tags {
            m.set(tpid, 0);
            let present = self.orig.get(tci) & 0x1000 != 0;
            if !present || self.wc.get(tci) == 0 {
                m.set(tci, 0);
            }
        }
        m
    }

    /// The bits looked at, as a mask over what a datapath sees: with what is always looked at, and without fields that no
    /// packet of this Ethernet type has.
    fn packet_mask(&self) -> PacketMask {
        use FieldId::*;
        let mut m: PacketMask = self.wc.resize();
        let (k, of) = (&self.orig, &*FIELDS_OF);
        for f in [DpPort, RecircId, EthType] {
            m.set_exact(f);
        }
        // Only what came out of a tunnel, or went round, has any of it.
        let of_tunnel = k.get(TunDst) | k.get(TunIpv6Dst) | k.get(RecircId) != 0;
        if !of_tunnel {
            m.subtract(&of.of_tunnel);
        }
        let t = u64::from(flow::prereq::ether_type(k));
        let (v4, v6) = (t == 0x0800, t == 0x86dd);
        let ip = v4 || v6;
        let arp = t == 0x0806 || t == 0x8035;
        if !ip {
            m.subtract(&of.of_ip);
            if !arp {
                m.subtract(&of.protocol);
            }
        }
        if !v4 && !arp {
            m.subtract(&of.addresses);
        }
        let service = t == 0x894f;
        let looked = m;
        if !v6 {
            m.subtract(&of.of_ipv6);
        }
        if ip {
            m.set_masked(NwFrag, u128::MAX, 0x3);
            self.mask_transport(&mut m);
        }
        let neighbour = v6 && k.get64(NwProto) == 58;
        if !arp && !neighbour {
            m.subtract(&of.hardware);
        }
        if !eth_type::is_mpls(t as u16) {
            m.subtract(&of.labels);
        }
        if service {
            self.mask_service(&looked, &mut m);
        }
        if k.get(PacketType) != 0 {
            m.set_exact(PacketType);
            m.subtract(&of.link);
        } else if k.get(VlanTci) & 0x1000 == 0 {
            m.subtract(&of.tags);
            m.set_masked(VlanTci, u128::MAX, 0x1fff);
        } else {
            let unseen = m.get(VlanTci) == 0 && self.stock();
            m.set_masked(VlanTci, u128::MAX, if unseen { 0x1fff } else { 0x1000 });
            if k.get(VlanTci2) & 0x1000 == 0 {
                if m.get(VlanTci2) | m.get(VlanTpid2) != 0 {
                    [VlanTci2, VlanTpid2].iter().for_each(|f| m.set_masked(*f, 0, u128::MAX));
                    m.set_masked(VlanTci2, u128::MAX, 0x1000);
                }
            } else if m.get(VlanTci2) | m.get(VlanTpid2) != 0 {
                m.set_masked(VlanTci2, u128::MAX, 0x1000);
            }
        }
        m
    }

    /// The fields of a network service header that were looked at; context words of one that has some.
    fn mask_service(&self, looked: &PacketMask, m: &mut PacketMask) {
        let context = self.orig.get(FieldId::NshMdtype) == 1;
        let has = |f: &flow::Field| {
            flow::nsh::is_field(f.id) && (context || f.canon != FieldId::NdTarget) && looked.get(f.id) != 0
        };
        for f in flow::FIELDS.iter().filter(|f| has(f)) {
            m.set_masked(f.id, u128::MAX, looked.get(f.id));
        }
    }

    /// Transport fields mean something only together with the protocol, and only where it has them.
    fn mask_transport(&self, m: &mut PacketMask) {
        use FieldId::*;
        let k = &self.orig;
        let nd = m.get(ArpSha) | m.get(ArpTha) | m.get(NdTarget) != 0;
        if m.get(TpSrc) | m.get(TpDst) | m.get(TcpFlags) == 0 && !nd {
            return;
        }
        m.set_exact(NwProto);
        let proto = k.get64(NwProto);
        if k.get(NwFrag) & u128::from(flow::parse::FRAG_LATER) != 0
            || !matches!(proto, 1 | 2 | 6 | 17 | 58 | 132)
        {
            for f in [TpSrc, TpDst, TcpFlags] {
                m.set_masked(f, 0, u128::MAX);
            }
        }
        if proto != 6 {
            m.set_masked(TcpFlags, 0, u128::MAX);
        }
        if matches!(proto, 1 | 2 | 58) {
            // Type and code are eight bits.
            for f in [TpSrc, TpDst] {
                m.set_masked(f, 0, 0xff00);
            }
        }
        if nd && proto == 58 {
            m.set_masked(TpSrc, 0xff, 0xff);
        } else if nd {
            for f in [ArpSha, ArpTha, NdTarget] {
                m.set_masked(f, 0, u128::MAX);
            }
        }
    }
}
