//! From a match or key to text.

use std::fmt::Write;

use super::attr::{self, Form, Group};
use crate::field::FieldId as F;
use crate::headers::{eth_type, ip_proto};
use crate::key::{PacketKey, PacketMask, PacketMatch};
use crate::parse::VLAN_PRESENT;
use crate::prereq::ether_type;
use crate::text::flags;
use crate::text::value::{PortName, hex, quote_name};
use crate::tunnel::options;

/// Writes a megaflow as `dpctl/dump-flows` does: only what matters, masks where they are partial.
pub fn format_match(m: &PacketMatch, ports: PortName<'_>) -> String {
    format_flow(m.key(), m.mask(), ports)
}

/// As [`format_match`], with values as they are in `key`, bits that do not matter included: what Open vSwitch prints,
/// whose flows keep the key of the packet they were made for (`ipv4(src=10.0.0.1/255.255.0.0)`).
pub fn format_flow(key: &PacketKey, mask: &PacketMask, ports: PortName<'_>) -> String {
    let mut w = Writer { key, mask, shown: mask, ports, out: String::with_capacity(96), style: Style::Brief };
    w.write_all();
    w.out
}

/// As [`format_flow`], with every field that the packet has, those that do not matter with an empty mask: what Open vSwitch
/// prints when asked for more (`ipv4(src=10.0.0.1/0.0.0.0)`).
pub fn format_flow_whole(key: &PacketKey, mask: &PacketMask, ports: PortName<'_>) -> String {
    let mut shown = *whole(key).mask();
    shown.union(mask);
    let mut w =
        Writer { key, mask, shown: &shown, ports, out: String::with_capacity(256), style: Style::More };
    w.write_all();
    w.out
}

/// Writes a whole packet key as upcall logs do: every field the packet has, zero or not.
pub fn format_key(key: &PacketKey, ports: PortName<'_>) -> String {
    let m = whole(key);
    let mask = m.mask();
    let out = String::with_capacity(256);
    let mut w = Writer { key: m.key(), mask, shown: mask, ports, out, style: Style::Key };
    w.out.push_str("skb_priority(0)");
    w.write_all();
    w.out
}

/// Every field that a packet with this key has.
fn whole(key: &PacketKey) -> PacketMatch {
    let mut m = PacketMatch::ANY;
    let mut take = |fields: &[F]| fields.iter().for_each(|f| m.set(*f, key.get(*f)));
    take(&[F::PktMark, F::CtState, F::CtZone, F::CtMark, F::CtLabel, F::RecircId, F::DpHash, F::DpPort]);
    take(&[F::PacketType, F::EthType]);
    if key.get(F::PacketType) == 0 {
        take(&[F::EthSrc, F::EthDst]);
    }
    if key.get(F::TunDst) != 0 || key.get(F::TunIpv6Dst) != 0 || key.get(F::TunSrc) != 0 {
        let v6 = key.get(F::TunIpv6Dst) != 0;
        take(if v6 { &[F::TunIpv6Src, F::TunIpv6Dst] } else { &[F::TunSrc, F::TunDst] });
        take(&[F::TunId, F::TunTtl, F::TunFlags]);
        let rare = [F::TunTos, F::TunTpSrc, F::TunTpDst, F::TunGbpId, F::TunGbpFlags];
        let headers = [&attr::ERSPAN, &attr::GTPU].into_iter().flat_map(|g| g.subs).map(|s| s.field);
        for f in rare.into_iter().chain(headers) {
            if key.get(f) != 0 {
                take(&[f]);
            }
        }
    }
    let all_ones = [0xff; options::MAX_OPTION_BYTES as usize];
    for o in options::mappings().filter(|o| options::is_there(key, o.index)) {
        options::require(&mut m, o.index, &options::bytes(key, o.index), &all_ones);
    }
    let mut take = |fields: &[F]| fields.iter().for_each(|f| m.set(*f, key.get(*f)));
    if key.get(F::CtNwProto) != 0 {
        let v6 = key.get(F::CtIpv6Src) != 0 || key.get(F::CtIpv6Dst) != 0;
        take(if v6 { &[F::CtIpv6Src, F::CtIpv6Dst] } else { &[F::CtNwSrc, F::CtNwDst] });
        take(&[F::CtNwProto, F::CtTpSrc, F::CtTpDst]);
    }
    for (tci, tpid) in [(F::VlanTci, F::VlanTpid), (F::VlanTci2, F::VlanTpid2)] {
        if key.get64(tci) as u16 & VLAN_PRESENT != 0 {
            take(&[tci, tpid]);
        }
    }
    let proto = key.get64(F::NwProto) as u8;
    let l3: &[F] = match ether_type(key) {
        eth_type::IPV4 => &[F::NwSrc, F::NwDst, F::NwProto, F::NwTos, F::NwTtl, F::NwFrag],
        eth_type::IPV6 => &[F::Ipv6Src, F::Ipv6Dst, F::Ipv6Label, F::NwProto, F::NwTos, F::NwTtl, F::NwFrag],
        eth_type::ARP | eth_type::RARP => &[F::ArpSpa, F::ArpTpa, F::ArpOp, F::ArpSha, F::ArpTha],
        eth_type::NSH => {
            take(&[F::NshFlags, F::NshTtl, F::NshMdtype, F::NshNp, F::NshSpi, F::NshSi]);
            if key.get(F::NshMdtype) == 1 { &[F::NshC1, F::NshC2, F::NshC3, F::NshC4] } else { &[] }
        }
        t if eth_type::is_mpls(t) => {
            let lses = [F::MplsLse0, F::MplsLse1, F::MplsLse2];
            let bottom = lses.iter().position(|f| key.get(*f) & 0x100 != 0);
            let last = bottom.or_else(|| lses.iter().rposition(|f| key.get(*f) != 0));
            let n = last.map_or(1, |i| i + 1);
            take(&lses[..n]);
            &[]
        }
        _ => &[],
    };
    take(l3);
    if matches!(ether_type(key), eth_type::IPV4 | eth_type::IPV6) && key.get64(F::NwFrag) & 2 == 0 {
        take(match proto {
            ip_proto::TCP => &[F::TpSrc, F::TpDst, F::TcpFlags],
            ip_proto::UDP | ip_proto::SCTP | ip_proto::ICMP | ip_proto::ICMPV6 => &[F::TpSrc, F::TpDst],
            _ => &[],
        });
        if crate::prereq::holds(key, crate::Prereq::Nd) {
            take(&[F::NdTarget, F::NdSll, F::NdTll]);
        }
    }
    m
}

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// A match: what matters.
    Brief,
    /// A match, with what does not matter.
    More,
    /// A whole key.
    Key,
}

struct Writer<'a> {
    key: &'a PacketKey,
    mask: &'a PacketMask,
    /// The fields that are written.
    shown: &'a PacketMask,
    ports: PortName<'a>,
    out: String,
    style: Style,
}

impl Writer<'_> {
    fn get(&self, f: F) -> (u128, u128) {
        (self.key.get(f), self.mask.get(f))
    }

    fn shows(&self, f: F) -> bool {
        self.shown.get(f) != 0
    }

    fn open(&mut self, name: &str) {
        if !self.out.is_empty() && !self.out.ends_with('(') {
            self.out.push(',');
        }
        self.out.push_str(name);
        self.out.push('(');
    }

    fn write_all(&mut self) {
        // The priority, which is zero for packets that come in, is among the bits of a flow that matches on all there is.
        let everything =
            [F::PktMark, F::DpHash, F::CtState].iter().all(|f| self.mask.get(*f) == f.info().max());
        match self.style {
            Style::Key => {}
            _ if everything => self.out.push_str("skb_priority(0)"),
            _ if self.mask.get(F::SkbPriority) != 0 => self.hex_attr("skb_priority", F::SkbPriority),
            Style::More => self.out.push_str("skb_priority(0/0)"),
            Style::Brief => {}
        }
        self.tunnel();
        self.hex_attr("skb_mark", F::PktMark);
        let (v, mask) = self.get(F::CtState);
        if self.shows(F::CtState) {
            self.open("ct_state");
            let list = flags::CT_STATE;
            let text = match self.style {
                Style::Key => list.list(v as u16, '|'),
                Style::Brief => list.signed(v as u16, mask as u16 & list.all),
                Style::More => format!("{}/{}", hex(v), hex(mask & u128::from(list.all))),
            };
            self.out.push_str(&text);
            self.out.push(')');
        }
        self.hex_attr("ct_zone", F::CtZone);
        self.hex_attr("ct_mark", F::CtMark);
        self.hex_attr("ct_label", F::CtLabel);
        let v6_tuple = self.shows(F::CtIpv6Src) || self.shows(F::CtIpv6Dst);
        self.group(if v6_tuple { &attr::CT_TUPLE6 } else { &attr::CT_TUPLE4 });
        self.hex_attr("recirc_id", F::RecircId);
        self.hex_attr("dp_hash", F::DpHash);
        let (port, _) = self.get(F::DpPort);
        if self.shows(F::DpPort) {
            self.open("in_port");
            let text = (self.ports)(port as u32).map_or_else(|| port.to_string(), |n| quote_name(&n));
            self.out.push_str(&text);
            self.out.push(')');
        }
        let (v, _) = self.get(F::PacketType);
        if self.shows(F::PacketType) {
            self.open("packet_type");
            let _ = write!(self.out, "ns={},id={})", v >> 16, hex(v & 0xffff));
        }
        self.group(&attr::ETH);
        let mut closing = 0;
        for (tci, tpid) in [(F::VlanTci, F::VlanTpid), (F::VlanTci2, F::VlanTpid2)] {
            let (v, mask) = self.get(tci);
            let (v, mask) = (v as u16, mask as u16);
            if !self.shows(tci) || v == 0 && (mask & VLAN_PRESENT != 0 || self.style == Style::More) {
                break;
            }
            // That there is a tag is never told without its kind.
            let kind = self.key.get(tpid);
            if kind != 0 && self.mask.get(tpid) == 0 {
                self.open("eth_type");
                let _ = write!(self.out, "0x{kind:04x})");
            } else {
                self.type_attr(tpid);
            }
            self.open("vlan");
            attr::write_vlan(&mut self.out, v, mask, self.style == Style::More);
            self.out.push(')');
            self.open("encap");
            closing += 1;
        }
        self.type_attr(F::EthType);
        self.headers();
        self.out.extend(std::iter::repeat_n(')', closing));
    }

    fn hex_attr(&mut self, name: &str, f: F) {
        let (v, mask) = self.get(f);
        if self.shows(f) {
            self.open(name);
            attr::write_value(&mut self.out, f, Form::Hex, v, mask);
            self.out.push(')');
        }
    }

    fn type_attr(&mut self, f: F) {
        let (v, mask) = self.get(f);
        if self.shows(f) {
            self.open("eth_type");
            let _ = write!(self.out, "0x{v:04x}");
            if mask != 0xffff {
                let _ = write!(self.out, "/0x{mask:04x}");
            }
            self.out.push(')');
        }
    }

    fn subs(&mut self, g: &Group) -> bool {
        let mut any = false;
        for sub in g.subs {
            let (v, mask) = self.get(sub.field);
            if self.shows(sub.field) {
                if any {
                    self.out.push(',');
                }
                any = true;
                let _ = write!(self.out, "{}=", sub.name);
                attr::write_value(&mut self.out, sub.field, sub.form, v, mask);
            }
        }
        any
    }

    fn group(&mut self, g: &Group) {
        if g.subs.iter().any(|sub| self.shows(sub.field)) {
            self.open(g.name);
            self.subs(g);
            self.out.push(')');
        }
    }

    fn tunnel(&mut self) {
        let gbp = attr::GBP.subs.iter().any(|s| self.shows(s.field));
        let (flags, flag_mask) = self.get(F::TunFlags);
        let flagged = self.shows(F::TunFlags);
        let optioned = options::mappings()
            .any(|m| options::is_there(self.shown, m.index) && options::is_there(self.key, m.index));
        let headers = [&attr::ERSPAN, &attr::GTPU]
            .into_iter()
            .filter(|g| g.subs.iter().any(|s| self.shows(s.field)))
            .collect::<Vec<_>>();
        if !gbp
            && !flagged
            && !optioned
            && headers.is_empty()
            && !attr::TUNNEL.subs.iter().any(|s| self.shows(s.field))
        {
            return;
        }
        self.open("tunnel");
        let mut any = self.subs(&attr::TUNNEL);
        if gbp {
            self.out.push_str(if any { ",vxlan(gbp(" } else { "vxlan(gbp(" });
            self.subs(&attr::GBP);
            self.out.push_str("))");
            any = true;
        }
        if optioned {
            self.out.push_str(if any { ",geneve(" } else { "geneve(" });
            options::write_match(&mut self.out, self.key, self.mask);
            self.out.push(')');
            any = true;
        }
        for g in headers {
            let _ = write!(self.out, "{}{}(", if any { "," } else { "" }, g.name);
            self.subs(g);
            self.out.push(')');
            any = true;
        }
        if flagged {
            let text = match flag_mask {
                0 => "0/0".to_owned(),
                m => tunnel_flags(flags as u16, m as u16, self.style == Style::Key),
            };
            let _ = write!(self.out, "{}flags({text})", if any { "," } else { "" });
        }
        self.out.push(')');
    }

    /// Everything after the Ethernet type.
    fn headers(&mut self) {
        let key = self.key;
        let dl_type = ether_type(key);
        let proto = key.get64(F::NwProto) as u8;
        match dl_type {
            eth_type::IPV6 => self.group(&attr::IPV6),
            eth_type::ARP | eth_type::RARP => return self.group(&attr::ARP),
            eth_type::NSH => return self.group(&attr::NSH),
            t if eth_type::is_mpls(t) => return self.mpls(),
            _ => self.group(&attr::IPV4),
        }
        let l4 = match (proto, dl_type) {
            (ip_proto::TCP, _) => &attr::TCP,
            (ip_proto::UDP, _) => &attr::UDP,
            (ip_proto::SCTP, _) => &attr::SCTP,
            (ip_proto::ICMP, eth_type::IPV4) => &attr::ICMP,
            (ip_proto::ICMPV6, eth_type::IPV6) => &attr::ICMPV6,
            _ => return,
        };
        self.group(l4);
        if proto == ip_proto::ICMPV6 {
            self.group(&attr::ND);
        }
        let (v, mask) = self.get(F::TcpFlags);
        if proto == ip_proto::TCP && self.shows(F::TcpFlags) {
            self.open("tcp_flags");
            let text = if mask == 0 { "0/0".to_owned() } else { flags::TCP.masked(v as u16, mask as u16) };
            self.out.push_str(&text);
            self.out.push(')');
        }
    }

    fn mpls(&mut self) {
        let lses = [F::MplsLse0, F::MplsLse1, F::MplsLse2].map(|f| self.get(f));
        let shown = [F::MplsLse0, F::MplsLse1, F::MplsLse2].map(|f| self.shows(f));
        let Some(last) = shown.iter().rposition(|s| *s) else { return };
        self.open("mpls");
        let exact = lses[..=last].iter().all(|(_, mask)| *mask == 0xffff_ffff);
        for (i, (lse, mask)) in lses[..=last].iter().enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            if exact {
                attr::write_lse(&mut self.out, *lse as u32);
            } else {
                attr::write_lse_masked(&mut self.out, *lse as u32, *mask as u32);
            }
        }
        self.out.push(')');
    }
}

/// Tunnel flags: a list when all matter, else signed.
pub(super) fn tunnel_flags(v: u16, mask: u16, whole: bool) -> String {
    // Text order of the flags is Open vSwitch's: df, csum, key, oam.
    let order = [flags::TUN_DF, flags::TUN_CSUM, flags::TUN_KEY, flags::TUN_OAM];
    let all = mask & flags::TUNNEL.all == flags::TUNNEL.all;
    if whole || all {
        let names: Vec<_> =
            order.iter().filter(|b| v & **b != 0).map(|b| flags::TUNNEL.list(*b, '|')).collect();
        return if names.is_empty() { "0".to_owned() } else { names.join("|") };
    }
    order.iter().filter(|b| mask & **b != 0).map(|b| flags::TUNNEL.signed(v, *b)).collect()
}
