//! Tunnels, by the options of their interfaces (ovs-vswitchd.conf.db(5), "Tunnel Options"), and how they are told of: in the words of
//! Open vSwitch 3.1.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flow::tunnel::TunnelKind;
use ofproto::tunnel::{End, Mirroring, TunnelKey};
use ofproto::{PacketTypes, TunnelSettings};
use ovsdb::Datum;
use ovsdb::client::Row;

use crate::config::PortKind;

/// Options that change nothing that this switch does.
const WITHOUT_EFFECT: &[&str] = &["ipsec_local_cert", "remote_cert", "remote_name", "psk"];
/// Index and hardware of ERSPAN have so many bits.
const INDEX_BITS: u32 = 20;
const HARDWARE_BITS: u32 = 6;

/// A type of interface that is a tunnel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    name: &'static str,
    kind: TunnelKind,
    own_v6: bool,
}

const CLASSES: [Class; 9] = {
    const fn class(name: &'static str, kind: TunnelKind, own_v6: bool) -> Class {
        Class { name, kind, own_v6 }
    }
    [
        class("vxlan", TunnelKind::Vxlan, false),
        class("geneve", TunnelKind::Geneve, false),
        class("gre", TunnelKind::Gre, false),
        class("ip6gre", TunnelKind::Gre, true),
        class("erspan", TunnelKind::Erspan, false),
        class("ip6erspan", TunnelKind::Erspan, true),
        class("gtpu", TunnelKind::Gtpu, false),
        class("lisp", TunnelKind::Lisp, false),
        class("stt", TunnelKind::Stt, false),
    ]
};

/// Whether interfaces of this type are tunnels.
pub(in crate::db) fn is_tunnel(interface_type: &str) -> bool {
    Class::by_name(interface_type).is_some()
}

impl Class {
    /// The type of tunnel with this name.
    pub(super) fn by_name(name: &str) -> Option<Class> {
        CLASSES.into_iter().find(|c| c.name == name)
    }

    fn has_port(self) -> bool {
        self.kind.default_port() != 0
    }

    fn has_csum(self) -> bool {
        use TunnelKind::{Geneve, Gre, Stt, Vxlan};
        matches!(self.kind, Vxlan | Geneve | Gre | Stt)
    }

    /// What it is called where it matters what it carries.
    fn full_name(self, gpe: bool) -> &'static str {
        match self.kind {
            TunnelKind::Vxlan if gpe => "VXLAN-GPE",
            TunnelKind::Vxlan => "VXLAN (without GPE)",
            _ => self.name,
        }
    }
}

/// The tunnel port of an interface; with `foreign`, on a datapath that carries tunnels out by itself.
pub(super) fn port(row: Row<'_>, name: &str, class: Class, foreign: bool) -> PortKind {
    let text = |a: &ovsdb::Atom| a.as_str().unwrap_or_default().to_owned();
    let options: Vec<(String, String)> = match row.datum("options") {
        Datum::Map(pairs) => pairs.iter().map(|(k, v)| (text(k), text(v))).collect(),
        _ => Vec::new(),
    };
    let mut complaints = Vec::new();
    let settings = settings(class, &options, &mut complaints);
    let lines: Vec<String> = complaints.iter().map(|c| format!("{name}: {c}")).collect();
    let text = lines.join("\n");
    match settings {
        Some(mut settings) => {
            if !text.is_empty() {
                tracing::warn!(target: "netdev_vport", "{text}");
            }
            settings.foreign = foreign;
            let options = told(class, &settings);
            PortKind::Tunnel { class: class.name, settings: Box::new(settings), options }
        }
        None => PortKind::Wrong { why: text },
    }
}

/// The settings of a tunnel; `None` when there can be none like this. What is wrong is added to `complaints`, the last of which is then
/// why.
fn settings(
    class: Class,
    options: &[(String, String)],
    complaints: &mut Vec<String>,
) -> Option<TunnelSettings> {
    let mut s = TunnelSettings { own_v6: class.own_v6, ..TunnelSettings::new(class.kind) };
    let said = read(class, options, &mut s, complaints).and_then(|()| check(class, options, &mut s));
    match said {
        Ok(()) => Some(s),
        Err(why) => {
            complaints.push(why);
            None
        }
    }
}

/// Reads the options one by one.
fn read(
    class: Class,
    options: &[(String, String)],
    s: &mut TunnelSettings,
    complaints: &mut Vec<String>,
) -> Result<(), String> {
    let wrong = |name: &str, v: &str| format!("bad {} '{name}' value '{v}'", class.name);
    for (name, v) in options {
        match name.as_str() {
            "remote_ip" => match end(v) {
                Some(End::Address(a)) if a.is_multicast() => {
                    return Err(format!("multicast remote_ip={v} not allowed"));
                }
                Some(end) => s.remote = end,
                None => complaints.push(format!("bad {} 'remote_ip'", class.name)),
            },
            "local_ip" => match end(v) {
                Some(end) => s.local = end,
                None => complaints.push(format!("bad {} 'local_ip'", class.name)),
            },
            // These are looked at together with others.
            "key" | "in_key" | "out_key" | "packet_type" => {}
            "dst_port" if class.has_port() => {
                s.dst_port = v.parse().ok().filter(|p| *p != 0).ok_or_else(|| wrong(name, v))?;
            }
            "tos" if v == "inherit" => s.tos = None,
            // What is said of congestion is the packet's affair (RFC 3168).
            "tos" => match number(v).and_then(|n| u8::try_from(n).ok()).filter(|n| n & 3 == 0) {
                Some(n) => s.tos = Some(n),
                None => complaints.push(format!("invalid TOS {v}")),
            },
            "ttl" if v == "inherit" => s.ttl = None,
            "ttl" => s.ttl = Some(leading(v, 10) as u8).filter(|n| *n != 0).or(s.ttl),
            "csum" if class.has_csum() => s.csum = v == "true",
            "seq" if class.kind == TunnelKind::Gre => s.numbered = v == "true",
            "df_default" => s.dont_fragment = v != "false",
            "egress_pkt_mark" => {
                let n = number(v).and_then(|n| u32::try_from(n).ok());
                s.egress_mark = Some(n.ok_or_else(|| wrong(name, v))?);
            }
            "exts" if class.kind == TunnelKind::Vxlan => {
                for x in v.split(',').filter(|x| !x.is_empty()) {
                    match x {
                        "gbp" => s.gbp = true,
                        "gpe" => s.kind = TunnelKind::VxlanGpe,
                        other => return Err(format!("vxlan extension '{other}' is not implemented")),
                    }
                }
            }
            "erspan_idx" => {
                s.mirroring.index = by_flow_or(v, leading(v, 16), INDEX_BITS)
                    .ok_or_else(|| format!("invalid erspan index: {v}"))?;
            }
            "erspan_ver" => {
                let n = by_flow_or(v, leading(v, 10), 2).filter(|n| n.is_none_or(|n| n == 1 || n == 2));
                let n = n.ok_or_else(|| format!("invalid erspan version: {v}"))?;
                s.mirroring.version = n.map(|n| n as u8);
            }
            "erspan_dir" => {
                let n = by_flow_or(v, leading(v, 10), 1);
                let n = n.ok_or_else(|| format!("invalid erspan direction: {v}"))?;
                s.mirroring.dir = n.map(|n| n as u8);
            }
            "erspan_hwid" => {
                let n = by_flow_or(v, leading(v, 16), HARDWARE_BITS);
                let n = n.ok_or_else(|| format!("invalid erspan hardware ID: {v}"))?;
                s.mirroring.hwid = n.map(|n| n as u8);
            }
            other if WITHOUT_EFFECT.contains(&other) => {}
            other => complaints.push(format!("unknown {} argument '{other}'", class.name)),
        }
    }
    if s.mirroring.version.is_none() {
        // It is not known which of the others matter.
        s.mirroring = Mirroring::default();
    }
    Ok(())
}

/// What options say together, and whether they can be had together.
fn check(class: Class, options: &[(String, String)], s: &mut TunnelSettings) -> Result<(), String> {
    let get = |name: &str| options.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
    let key = |own: &str| match get(own).or(get("key")) {
        None => Ok(TunnelKey::None),
        Some("flow") => Ok(TunnelKey::Flow),
        Some(v) => {
            number(v).map(TunnelKey::Value).ok_or_else(|| format!("bad {} '{own}' value '{v}'", class.name))
        }
    };
    (s.in_key, s.out_key) = (key("in_key")?, key("out_key")?);
    if s.gbp && s.kind == TunnelKind::VxlanGpe {
        return Err("vxlan extensions 'gbp' and 'gpe' exclude each other".to_owned());
    }
    if let Some(name) = get("packet_type") {
        s.packets = PacketTypes::by_name(name).ok_or_else(|| format!("unknown packet_type '{name}'"))?;
        let lacks = match s.packets {
            PacketTypes::Ethernet => (!s.kind.carries_frames()).then_some("L2"),
            PacketTypes::Others => (!s.kind.carries_others() || s.own_v6).then_some("L3"),
            PacketTypes::Any => None,
        };
        if let Some(layer) = lacks {
            let tunnel = class.full_name(s.kind == TunnelKind::VxlanGpe);
            return Err(format!("{name} configured on {tunnel} tunnel that cannot carry {layer} traffic"));
        }
    }
    if s.remote == End::Any {
        return Err(format!("{} type requires valid 'remote_ip' argument", class.name));
    }
    if s.local == End::Flow && s.remote != End::Flow {
        return Err(format!("{} type requires 'remote_ip=flow' with 'local_ip=flow'", class.name));
    }
    if let (End::Address(a), End::Address(b)) = (s.local, s.remote)
        && a.is_ipv4() != b.is_ipv4()
    {
        return Err("'remote_ip' and 'local_ip' has to be of the same address family".to_owned());
    }
    Ok(())
}

/// What a tunnel is told of by: what goes without saying is not said.
fn told(class: Class, s: &TunnelSettings) -> String {
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    for (name, end) in [("remote_ip", s.remote), ("local_ip", s.local)] {
        match end {
            End::Any => {}
            End::Flow => drop(all.insert(name, "flow".to_owned())),
            End::Address(a) => drop(all.insert(name, a.to_string())),
        }
    }
    let key = |k: TunnelKey| match k {
        TunnelKey::None => None,
        TunnelKey::Flow => Some("flow".to_owned()),
        TunnelKey::Value(n) => Some(n.to_string()),
    };
    let own = [("in_key", s.in_key), ("out_key", s.out_key)];
    let keys = if s.in_key == s.out_key { &[("key", s.in_key)][..] } else { &own };
    all.extend(keys.iter().filter_map(|(name, k)| Some((*name, key(*k)?))));
    let number = |v: Option<u8>, usual: u8, otherwise: &str| match v {
        None => Some(otherwise.to_owned()),
        Some(n) => (n != usual).then(|| n.to_string()),
    };
    all.extend(number(s.ttl, 64, "inherit").map(|v| ("ttl", v)));
    match s.tos {
        Some(0) => {}
        Some(n) => drop(all.insert("tos", format!("{n:#x}"))),
        None => drop(all.insert("tos", "inherit".to_owned())),
    }
    if s.dst_port != class.kind.default_port() {
        all.insert("dst_port", s.dst_port.to_string());
    }
    all.extend(
        [("csum", s.csum), ("seq", s.numbered)].into_iter().filter(|o| o.1).map(|o| (o.0, o.1.to_string())),
    );
    if s.packets != TunnelSettings::new(class.kind).packets {
        all.insert("packet_type", s.packets.name().to_owned());
    }
    if !s.dont_fragment {
        all.insert("df_default", "false".to_owned());
    }
    all.extend(s.egress_mark.map(|m| ("egress_pkt_mark", m.to_string())));
    if class.kind == TunnelKind::Erspan {
        let m = &s.mirroring;
        let flow = |n: Option<String>| n.unwrap_or_else(|| "flow".to_owned());
        let of = |version| m.version.is_none_or(|v| v == version);
        all.insert("erspan_ver", flow(m.version.map(|n| n.to_string())));
        if of(1) {
            all.insert("erspan_idx", flow(m.index.map(|n| format!("{n:#x}"))));
        }
        if of(2) {
            all.insert("erspan_dir", flow(m.dir.map(|n| n.to_string())));
            all.insert("erspan_hwid", flow(m.hwid.map(|n| format!("{n:#x}"))));
        }
    }
    let words: Vec<_> = all.iter().map(|(k, v)| format!("{k}={v}")).collect();
    words.join(", ")
}

fn end(text: &str) -> Option<End> {
    match text {
        "flow" => Some(End::Flow),
        address => {
            let a: IpAddr = address.parse().ok()?;
            Some(if a.is_unspecified() { End::Any } else { End::Address(a) })
        }
    }
}

/// `flow`, or a number of so many bits; `None` when it is neither.
fn by_flow_or(text: &str, n: u64, bits: u32) -> Option<Option<u32>> {
    if text == "flow" {
        return Some(None);
    }
    (n >> bits == 0).then_some(Some(n as u32))
}

/// The number that a text begins with, 0 without one, as C reads it; more than there are bits where it is negative or too large.
fn leading(text: &str, radix: u32) -> u64 {
    let text = text.trim_start();
    if text.starts_with('-') {
        return u64::MAX;
    }
    let text = text.strip_prefix('+').unwrap_or(text);
    let text = if radix == 16 { text.trim_start_matches("0x").trim_start_matches("0X") } else { text };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_digit(radix)).len();
    match &text[..digits] {
        "" => 0,
        digits => u64::from_str_radix(digits, radix).unwrap_or(u64::MAX),
    }
}

/// A number, decimal or hexadecimal.
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(class: &str, options: &str) -> (Result<TunnelSettings, String>, Vec<String>) {
        let class = Class::by_name(class).expect("a tunnel");
        let pair = |o: &str| o.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let options: Vec<_> = options.split(' ').filter_map(pair).collect();
        let mut complaints = Vec::new();
        let s = settings(class, &options, &mut complaints);
        (s.ok_or_else(|| complaints.last().cloned().unwrap_or_default()), complaints)
    }

    fn of(kind: TunnelKind, options: &str) -> Result<TunnelSettings, String> {
        named(kind.name(), options).0
    }

    /// How it is told of.
    fn shown(class: &str, options: &str) -> String {
        let class_of = Class::by_name(class).expect("a tunnel");
        named(class, &format!("remote_ip=1.1.1.1 {options}")).0.map(|s| told(class_of, &s)).expect("settings")
    }

    #[test]
    fn tunnels_are_told_of_as_open_vswitch_tells_of_them() {
        let all = [
            ("gre", "key=0x1c8 seq=true", "key=456, remote_ip=1.1.1.1, seq=true"),
            (
                "gre",
                "in_key=flow out_key=0x7 tos=0x28",
                "in_key=flow, out_key=7, remote_ip=1.1.1.1, tos=0x28",
            ),
            ("erspan", "erspan_ver=1 key=1", "erspan_idx=0x0, erspan_ver=1, key=1, remote_ip=1.1.1.1"),
            (
                "erspan",
                "erspan_ver=2 erspan_hwid=3f erspan_dir=flow erspan_idx=7",
                "erspan_dir=flow, erspan_hwid=0x3f, erspan_ver=2, remote_ip=1.1.1.1",
            ),
            (
                "ip6erspan",
                "erspan_ver=flow erspan_idx=3",
                "erspan_dir=flow, erspan_hwid=flow, erspan_idx=flow, erspan_ver=flow, remote_ip=1.1.1.1",
            ),
            ("erspan", "", "erspan_ver=0, remote_ip=1.1.1.1"),
            ("gtpu", "packet_type=legacy_l3 dst_port=2152", "remote_ip=1.1.1.1"),
            ("gtpu", "packet_type=ptap dst_port=2153", "dst_port=2153, packet_type=ptap, remote_ip=1.1.1.1"),
            ("lisp", "ttl=0", "remote_ip=1.1.1.1"),
            ("stt", "csum=true df_default=false", "csum=true, df_default=false, remote_ip=1.1.1.1"),
            ("ip6gre", "packet_type=legacy_l2 ttl=inherit", "remote_ip=1.1.1.1, ttl=inherit"),
        ];
        for (class, options, want) in all {
            assert_eq!(shown(class, options), want, "{class} {options}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_open_vswitchs_words() {
        let why = |class, o: &str| named(class, &format!("remote_ip=1.1.1.1 {o}")).0.expect_err("wrong");
        assert_eq!(why("erspan", "erspan_idx=0x100000"), "invalid erspan index: 0x100000");
        assert_eq!(why("erspan", "erspan_ver=3"), "invalid erspan version: 3");
        assert_eq!(why("erspan", "erspan_ver=0"), "invalid erspan version: 0");
        assert_eq!(why("erspan", "erspan_dir=2"), "invalid erspan direction: 2");
        assert_eq!(why("ip6erspan", "erspan_hwid=40"), "invalid erspan hardware ID: 40");
        assert_eq!(
            why("gtpu", "packet_type=legacy_l2"),
            "legacy_l2 configured on gtpu tunnel that cannot carry L2 traffic"
        );
        assert_eq!(
            why("erspan", "packet_type=legacy_l3"),
            "legacy_l3 configured on erspan tunnel that cannot carry L3 traffic"
        );
        assert_eq!(named("stt", "remote_ip=224.0.0.1").1, ["multicast remote_ip=224.0.0.1 not allowed"]);
        assert_eq!(
            named("lisp", "remote_ip=x").1,
            ["bad lisp 'remote_ip'", "lisp type requires valid 'remote_ip' argument"]
        );
        // These are passed over.
        let (s, complaints) = named("gtpu", "remote_ip=1.1.1.1 local_ip=x seq=true csum=true tos=0x3 psk=x");
        let s = s.expect("settings");
        assert!(!s.numbered && !s.csum && s.tos == Some(0));
        assert_eq!(
            complaints,
            [
                "bad gtpu 'local_ip'",
                "unknown gtpu argument 'seq'",
                "unknown gtpu argument 'csum'",
                "invalid TOS 0x3"
            ]
        );
    }

    #[test]
    fn options_say_what_a_tunnel_is() {
        let s = of(
            TunnelKind::Vxlan,
            "remote_ip=10.0.0.2 key=flow in_key=0x7 tos=inherit ttl=9 exts=gbp dst_port=8472",
        );
        let s = s.expect("settings");
        assert_eq!((s.in_key, s.out_key), (TunnelKey::Value(7), TunnelKey::Flow));
        assert_eq!((s.tos, s.ttl, s.gbp, s.dst_port), (None, Some(9), true, 8472));
        assert_eq!(s.datapath_name(), "vxlan_sys_8472");
        let s =
            of(TunnelKind::Gre, "remote_ip=flow local_ip=flow csum=true df_default=false").expect("settings");
        assert_eq!((s.remote, s.local, s.csum, s.dont_fragment), (End::Flow, End::Flow, true, false));
    }

    #[test]
    fn packet_types_are_those_of_the_tunnel() {
        let packets =
            |kind, o: &str| of(kind, &format!("remote_ip=10.0.0.2 {o}")).map(|s| (s.kind, s.packets));
        assert_eq!(packets(TunnelKind::Gre, ""), Ok((TunnelKind::Gre, PacketTypes::Ethernet)));
        assert_eq!(
            packets(TunnelKind::Gre, "packet_type=legacy_l3"),
            Ok((TunnelKind::Gre, PacketTypes::Others))
        );
        assert_eq!(
            packets(TunnelKind::Vxlan, "packet_type=ptap exts=gpe"),
            Ok((TunnelKind::VxlanGpe, PacketTypes::Any))
        );
    }

    #[test]
    fn what_cannot_be_carried_out_is_said() {
        for bad in [
            "",
            "remote_ip=x",
            "remote_ip=10.0.0.2 local_ip=flow",
            "remote_ip=10.0.0.2 local_ip=::1",
            "remote_ip=10.0.0.2 key=x",
        ] {
            assert!(of(TunnelKind::Vxlan, bad).is_err(), "{bad}");
        }
        assert!(of(TunnelKind::Vxlan, "remote_ip=10.0.0.2 exts=gpe,gbp").is_err());
        assert!(of(TunnelKind::Vxlan, "remote_ip=10.0.0.2 exts=x").is_err());
        let l3 = "remote_ip=10.0.0.2 packet_type=legacy_l3";
        assert_eq!(
            of(TunnelKind::Vxlan, l3).expect_err("no such tunnel"),
            "legacy_l3 configured on VXLAN (without GPE) tunnel that cannot carry L3 traffic"
        );
        assert!(of(TunnelKind::Geneve, l3).is_err() && of(TunnelKind::Gre, &l3.replace("3", "4")).is_err());
    }
}
