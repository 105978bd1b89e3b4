//! Tunnels, by the options of their interfaces (ovs-vswitchd.conf.db(5), "Tunnel Options").

use std::net::IpAddr;

use flow::tunnel::TunnelKind;
use ofproto::tunnel::{End, TunnelKey};
use ofproto::{PacketTypes, TunnelSettings};
use ovsdb::Datum;
use ovsdb::client::Row;

use crate::config::PortKind;

/// Options that change nothing that this switch does.
const WITHOUT_EFFECT: &[&str] = &["ipsec_local_cert"];
/// Options that are not told of.
const UNTOLD: &[&str] = &["exts"];

/// The tunnel port of an interface; with `foreign`, on a datapath that carries tunnels out by itself.
pub(super) fn port(
    row: Row<'_>,
    name: &str,
    interface_type: &'static str,
    kind: TunnelKind,
    foreign: bool,
) -> PortKind {
    let text = |a: &ovsdb::Atom| a.as_str().unwrap_or_default().to_owned();
    let options: Vec<(String, String)> = match row.datum("options") {
        Datum::Map(pairs) => pairs.iter().map(|(k, v)| (text(k), text(v))).collect(),
        _ => Vec::new(),
    };
    match settings(kind, &options) {
        Ok(mut settings) => {
            settings.foreign = foreign;
            // What goes without saying is not said.
            let usual = |(k, v): &&(String, String)| {
                k == "dst_port" && v.parse() == Ok(kind.default_port())
                    || k == "packet_type" && v == "legacy_l2"
                    || WITHOUT_EFFECT.contains(&k.as_str())
                    || UNTOLD.contains(&k.as_str())
            };
            let words: Vec<_> =
                options.iter().filter(|o| !usual(o)).map(|(k, v)| format!("{k}={v}")).collect();
            PortKind::Tunnel {
                class: interface_type,
                settings: Box::new(settings),
                options: words.join(", "),
            }
        }
        Err(why) => PortKind::Wrong { why: format!("{name}: {why}") },
    }
}

fn settings(kind: TunnelKind, options: &[(String, String)]) -> Result<TunnelSettings, String> {
    let get = |name: &str| options.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
    let mut s = TunnelSettings::new(kind);
    let wrong = |name: &str, v: &str| format!("bad {} '{name}' value '{v}'", kind.name());
    for (name, v) in options {
        match name.as_str() {
            "remote_ip" => s.remote = end(v).ok_or_else(|| wrong(name, v))?,
            "local_ip" => s.local = end(v).ok_or_else(|| wrong(name, v))?,
            // Keys are told apart by direction below.
            "key" | "in_key" | "out_key" => {}
            "dst_port" if kind != TunnelKind::Gre => {
                s.dst_port = v.parse().ok().filter(|p| *p != 0).ok_or_else(|| wrong(name, v))?;
            }
            "tos" if v == "inherit" => s.tos = None,
            "tos" => {
                // What is said of congestion is the packet's affair (RFC 3168).
                let n = number(v).and_then(|n| u8::try_from(n).ok()).filter(|n| n & 3 == 0);
                s.tos = Some(n.ok_or_else(|| wrong(name, v))?);
            }
            "ttl" if v == "inherit" => s.ttl = None,
            "ttl" => s.ttl = Some(v.parse().map_err(|_| wrong(name, v))?),
            "csum" => s.csum = v == "true",
            "df_default" => s.dont_fragment = v != "false",
            "egress_pkt_mark" => {
                let n = number(v).and_then(|n| u32::try_from(n).ok());
                s.egress_mark = Some(n.ok_or_else(|| wrong(name, v))?);
            }
            "packet_type" => {
                s.packets = match v.as_str() {
                    "legacy_l2" => PacketTypes::Ethernet,
                    "legacy_l3" => PacketTypes::Others,
                    "ptap" => PacketTypes::Any,
                    other => return Err(format!("unknown packet_type '{other}'")),
                }
            }
            "exts" if kind == TunnelKind::Vxlan => {
                for x in v.split(',').filter(|x| !x.is_empty()) {
                    match x {
                        "gbp" => s.gbp = true,
                        "gpe" => s.kind = TunnelKind::VxlanGpe,
                        other => return Err(format!("vxlan extension '{other}' is not implemented")),
                    }
                }
            }
            other if WITHOUT_EFFECT.contains(&other) => {}
            other => tracing::warn!(target: "netdev_vport", "unknown {} argument '{other}'", kind.name()),
        }
    }
    let key = |own: &str| match get(own).or(get("key")) {
        None => Ok(TunnelKey::None),
        Some("flow") => Ok(TunnelKey::Flow),
        Some(v) => number(v).map(TunnelKey::Value).ok_or_else(|| wrong(own, v)),
    };
    (s.in_key, s.out_key) = (key("in_key")?, key("out_key")?);
    if s.gbp && s.kind == TunnelKind::VxlanGpe {
        return Err("vxlan extensions 'gbp' and 'gpe' exclude each other".to_owned());
    }
    if s.packets == PacketTypes::Others && !s.kind.carries_others() {
        let full = if kind == TunnelKind::Vxlan { "VXLAN (without GPE)" } else { kind.name() };
        return Err(format!("legacy_l3 configured on {full} tunnel that cannot carry L3 traffic"));
    }
    if s.remote == End::Any {
        return Err(format!("{} type requires valid 'remote_ip' argument", kind.name()));
    }
    if s.local == End::Flow && s.remote != End::Flow {
        return Err(format!("{} type requires 'remote_ip=flow' with 'local_ip=flow'", kind.name()));
    }
    if let (End::Address(a), End::Address(b)) = (s.local, s.remote)
        && a.is_ipv4() != b.is_ipv4()
    {
        return Err("'remote_ip' and 'local_ip' have to be of the same address family".to_owned());
    }
    Ok(s)
}

fn end(text: &str) -> Option<End> {
    match text {
        "flow" => Some(End::Flow),
        address => {
            let a: IpAddr = address.parse().ok()?;
            (!a.is_multicast() && !a.is_unspecified()).then_some(End::Address(a))
        }
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

    fn of(kind: TunnelKind, options: &str) -> Result<TunnelSettings, String> {
        let pair = |o: &str| o.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        let options: Vec<_> = options.split(' ').filter_map(pair).collect();
        settings(kind, &options)
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
        assert!(of(TunnelKind::Gre, "remote_ip=10.0.0.2 tos=0x3").is_err());
    }
}
