//! From a match to text, in the order and form of `ovs-ofctl dump-flows`.

use std::fmt::Write;

use super::parse::PROTOCOLS;
use crate::field::{FieldId as F, TextForm};
use crate::headers::{eth_type, ip_proto};
use crate::key::PipelineMatch;
use crate::prereq::ether_type;
use crate::text::value::{PortName, format_value, frag, hex};
use crate::tunnel::options;

/// Writes `m` with port numbers. The empty string for a match of everything.
pub fn format(m: &PipelineMatch) -> String {
    format_with(m, &|_| None)
}

/// Writes `m`; ports that `ports` knows by name.
///
/// A match on `recirc_id` (or with one, as a megaflow has) names the packet type too: `recirc_id=0,eth,tcp,...`.
pub fn format_with(m: &PipelineMatch, ports: PortName<'_>) -> String {
    let mut w = Writer { m, ports, out: String::with_capacity(64) };
    w.write_all();
    w.out
}

struct Writer<'a> {
    m: &'a PipelineMatch,
    ports: PortName<'a>,
    out: String,
}

impl Writer<'_> {
    fn comma(&mut self) {
        if !self.out.is_empty() {
            self.out.push(',');
        }
    }

    fn word(&mut self, w: &str) {
        self.comma();
        self.out.push_str(w);
    }

    /// `name=value/mask` if any bit matters.
    fn named(&mut self, name: &str, f: F) {
        let (v, mask) = self.m.get(f);
        if mask != 0 {
            self.comma();
            let _ = write!(self.out, "{name}={}", format_value(f, v, mask, self.ports));
        }
    }

    fn field(&mut self, f: F) {
        self.named(f.info().name, f);
    }

    fn write_all(&mut self) {
        let dl_type = ether_type(self.m.key());
        let has_type = self.m.mask().get(F::EthType) != 0;
        for f in [F::PktMark, F::RecircId, F::DpHash, F::SkbPriority, F::ConjId, F::ActsetOutput] {
            self.field(f);
        }
        self.connection();
        self.packet_type();
        let (type_done, proto_done) = self.protocol(has_type.then_some(dl_type));
        for n in 0..16 {
            if let Some(r) = F::reg(n) {
                self.field(r);
            }
        }
        self.tunnel();
        self.field(F::Metadata);
        self.field(F::InPort);
        self.vlan("", F::VlanTci);
        if self.m.mask().get(F::VlanTci) != 0 {
            self.vlan("1", F::VlanTci2);
        }
        self.field(F::EthSrc);
        self.field(F::EthDst);
        if has_type && !type_done {
            self.word(&format!("dl_type=0x{dl_type:04x}"));
        }
        self.network(dl_type, proto_done);
        self.transport(dl_type);
    }

    fn connection(&mut self) {
        for f in
            [F::CtState, F::CtZone, F::CtMark, F::CtLabel, F::CtNwSrc, F::CtIpv6Src, F::CtNwDst, F::CtIpv6Dst]
        {
            self.field(f);
        }
        for f in [F::CtNwProto, F::CtTpSrc, F::CtTpDst] {
            self.field(f);
        }
    }

    fn packet_type(&mut self) {
        let (v, mask) = self.m.get(F::PacketType);
        if mask == 0 {
            return;
        }
        if v != 0 {
            self.field(F::PacketType);
        } else if self.m.mask().get(F::RecircId) != 0 {
            self.word("eth");
        }
    }

    /// The protocol keyword. Says whether it stands for `dl_type` and for `nw_proto`.
    fn protocol(&mut self, dl_type: Option<u16>) -> (bool, bool) {
        let Some(t) = dl_type else { return (false, false) };
        let (proto, mask) = self.m.get(F::NwProto);
        let whole = PROTOCOLS
            .iter()
            .find(|(_, dl, p)| *dl == t && p.is_some() && mask != 0 && *p == Some(proto as u8));
        let found = whole.or_else(|| PROTOCOLS.iter().find(|(_, dl, p)| *dl == t && p.is_none()));
        if let Some((name, ..)) = found {
            self.word(name);
        }
        (found.is_some(), whole.is_some())
    }

    fn tunnel(&mut self) {
        for f in [F::TunId, F::TunSrc, F::TunDst, F::TunIpv6Src, F::TunIpv6Dst, F::TunGbpId] {
            self.field(f);
        }
        let (v, mask) = self.m.get(F::TunGbpFlags);
        if mask != 0 {
            self.word(&format!("tun_gbp_flags={}", hex(v)));
        }
        let (v, mask) = self.m.get(F::TunTos);
        if mask != 0 {
            self.word(&format!("tun_tos={v:x}"));
        }
        self.field(F::TunTtl);
        // Of these masks are not told.
        for f in crate::tunnel::HEADER_FIELDS_AS_TOLD {
            let (v, mask) = self.m.get(f);
            let info = f.info();
            let name = if info.alt_name.is_empty() { info.name } else { info.alt_name };
            let (version, of) = self.m.get(F::TunErspanVer);
            let other = match f {
                F::TunErspanIdx => 2,
                F::TunErspanDir | F::TunErspanHwid => 1,
                _ => 0,
            };
            if of != 0 && other != 0 && version == other {
                // The version has no such field.
            } else if mask != 0 && info.text == TextForm::Hex {
                self.word(&format!("{name}={}", hex(v)));
            } else if mask != 0 {
                self.word(&format!("{name}={v}"));
            }
        }
        self.field(F::TunFlags);
        for w in options::words_of_match(self.m) {
            self.word(&w);
        }
    }

    fn vlan(&mut self, nth: &str, f: F) {
        let (tci, mask) = self.m.get(f);
        let (vid, pcp) = (mask & 0xfff, mask & 0xe000);
        let plain = mask & tci & 0x1000 != 0
            && matches!(vid, 0 | 0xfff)
            && matches!(pcp, 0 | 0xe000)
            && vid | pcp != 0;
        if plain {
            if vid != 0 {
                self.word(&format!("dl_vlan{nth}={}", tci & 0xfff));
            }
            if pcp != 0 {
                self.word(&format!("dl_vlan_pcp{nth}={}", tci >> 13));
            }
        } else if mask == 0xffff {
            self.word(&format!("vlan_tci{nth}=0x{tci:04x}"));
        } else if mask != 0 {
            self.word(&format!("vlan_tci{nth}=0x{tci:04x}/0x{mask:04x}"));
        }
    }

    fn network(&mut self, dl_type: u16, proto_done: bool) {
        let arp = matches!(dl_type, eth_type::ARP | eth_type::RARP);
        if dl_type == eth_type::NSH {
            self.service();
        } else if dl_type == eth_type::IPV6 {
            self.field(F::Ipv6Src);
            self.field(F::Ipv6Dst);
            let (v, mask) = self.m.get(F::Ipv6Label);
            if mask == 0xf_ffff {
                self.word(&format!("ipv6_label=0x{v:05x}"));
            } else if mask != 0 {
                self.word(&format!("ipv6_label=0x{v:05x}/0x{mask:05x}"));
            }
        } else if arp {
            self.field(F::ArpSpa);
            self.field(F::ArpTpa);
        } else {
            self.field(F::NwSrc);
            self.field(F::NwDst);
        }
        if !proto_done {
            self.named(if arp { "arp_op" } else { "nw_proto" }, F::NwProto);
        }
        if arp {
            self.field(F::ArpSha);
            self.field(F::ArpTha);
        }
        let (tos, mask) = self.m.get(F::NwTos);
        if mask & 0xfc != 0 {
            self.word(&format!("nw_tos={}", tos & 0xfc));
        }
        if mask & 3 != 0 {
            self.word(&format!("nw_ecn={}", tos & 3));
        }
        self.field(F::NwTtl);
        let labels: &[F] = if dl_type == eth_type::NSH { &[] } else { &[F::MplsLse1, F::MplsLse2] };
        if !labels.is_empty() {
            for f in [F::MplsLabel, F::MplsTc, F::MplsTtl, F::MplsBos] {
                self.field(f);
            }
        }
        for f in labels.iter().copied() {
            let (v, mask) = self.m.get(f);
            if mask == 0xffff_ffff {
                // In decimal, unlike every other field that is a bit pattern.
                self.word(&format!("{f}={v}"));
            } else {
                self.field(f);
            }
        }
        let (v, mask) = self.m.get(F::NwFrag);
        if mask & 3 != 0 {
            self.word(&format!("nw_frag={}", frag(v as u8, mask as u8)));
        }
    }

    /// A network service header. Its context words are there when it says so.
    fn service(&mut self) {
        for f in [F::NshFlags, F::NshTtl, F::NshMdtype, F::NshNp] {
            self.small(f);
        }
        self.pattern(F::NshSpi);
        self.small(F::NshSi);
        if self.m.get(F::NshMdtype) == (1, 0xff) {
            for f in [F::NshC1, F::NshC2, F::NshC3, F::NshC4] {
                self.pattern(f);
            }
        }
    }

    /// Eight bits: in decimal, masked in hexadecimal.
    fn small(&mut self, f: F) {
        let (v, mask) = self.m.get(f);
        match mask {
            0 => {}
            0xff => self.word(&format!("{f}={v}")),
            _ => self.word(&format!("{f}={v:#04x}/{mask:#04x}")),
        }
    }

    /// In hexadecimal, zero too.
    fn pattern(&mut self, f: F) {
        let (v, mask) = self.m.get(f);
        match mask {
            0 => {}
            m if m == f.info().max() => self.word(&format!("{f}={v:#x}")),
            _ => self.word(&format!("{f}={v:#x}/{mask:#x}")),
        }
    }

    fn transport(&mut self, dl_type: u16) {
        let proto = self.m.key().get64(F::NwProto) as u8;
        let v4 = dl_type == eth_type::IPV4;
        let v6 = dl_type == eth_type::IPV6;
        if v4 && proto == ip_proto::ICMP || v6 && proto == ip_proto::ICMPV6 {
            self.icmp("icmp_type", F::TpSrc);
            self.icmp("icmp_code", F::TpDst);
        } else {
            self.field(F::TpSrc);
            self.field(F::TpDst);
        }
        if v6 && proto == ip_proto::ICMPV6 {
            for f in [F::NdTarget, F::NdSll, F::NdTll] {
                self.field(f);
            }
        }
        if (v4 || v6) && proto == ip_proto::TCP {
            self.field(F::TcpFlags);
        }
    }

    /// Type and code have 8 bits; the upper half of their place is zero in every packet.
    fn icmp(&mut self, name: &str, f: F) {
        let (v, mask) = self.m.get(f);
        if mask & 0xff == 0xff {
            self.word(&format!("{name}={v}"));
        } else if mask != 0 {
            self.word(&format!("{name}={v:#x}/{mask:#x}"));
        }
    }
}
