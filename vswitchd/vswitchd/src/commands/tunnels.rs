//! `ovs/route/*`, `tnl/*` and `ofproto/tnl-push-pop`: the networks below tunnels, in the texts of Open vSwitch 3.1.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use daemon::unixctl::Commands;
use flow::MacAddr;
use ofproto::tunnel::{End, Route, TunnelKey};
use ofproto::{Switch, TunnelSettings};
use parking_lot::Mutex;

use crate::report::Parts;

const OK: &str = "OK\n";

/// Every tunnel port, a line each.
fn tunnels(s: &Switch) -> String {
    let mut out = String::new();
    for b in s.bridges() {
        for p in b.pipeline().ports.iter() {
            let Some(t) = &p.tunnel else { continue };
            let kind = t.description.split(':').next().unwrap_or_default();
            let _ = writeln!(out, "port {}: {} ({kind}: {})", p.dp.0, p.name, words_of(&t.settings, p.dp.0));
        }
    }
    out
}

/// What a tunnel is told by, and what it does to packets where that is not the usual.
fn words_of(t: &TunnelSettings, dp: u32) -> String {
    let number = |n: u64| if n == 0 { "0".to_owned() } else { format!("{n:#x}") };
    let end = |e: &End| match e {
        End::Any => "::".to_owned(),
        End::Flow => "flow".to_owned(),
        End::Address(a) => a.to_string(),
    };
    let key = |k: &TunnelKey, none: &str| match k {
        TunnelKey::None => none.to_owned(),
        TunnelKey::Flow => "flow".to_owned(),
        TunnelKey::Value(n) => number(*n),
    };
    let mut words =
        vec![format!("{}->{}", end(&t.local), end(&t.remote)), format!("key={}", key(&t.in_key, "0"))];
    words.extend([t.packets.name().to_owned(), format!("dp port={dp}")]);
    if t.in_key != t.out_key {
        words.push(format!("out_key={}", key(&t.out_key, "none")));
    }
    words.push(t.ttl.map_or("ttl=inherit".to_owned(), |n| format!("ttl={n}")));
    match t.tos {
        None => words.push("tos=inherit".to_owned()),
        Some(0) => {}
        Some(n) => words.push(format!("tos={n:#x}")),
    }
    words.extend((!t.dont_fragment).then(|| "df=false".to_owned()));
    words.extend(t.csum.then(|| "csum=true".to_owned()));
    words.join(", ")
}

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>) {
    let layer = || Arc::clone(&parts.layer);
    let s = layer();
    let usage = "ip/plen output_bridge [gw] [pkt_mark=mark]";
    commands.register("ovs/route/add", usage, 2..=5, move |a| add_route(&s, a));
    let s = layer();
    commands.register("ovs/route/del", "ip/plen [pkt_mark=mark]", 1..=2, move |a| {
        let (network, prefix) = network_of(&a[0])?;
        let mark = mark_of(a.get(1))?;
        match s.with_tunnels(|t| t.routing.remove(network, prefix, mark)) {
            true => Ok(OK.into()),
            false => Err("Not found".into()),
        }
    });
    let s = layer();
    commands.register("ovs/route/show", "", 0..=0, move |_| Ok(routes(&s)));
    let s = layer();
    commands.register("ovs/route/lookup", "ip_addr [pkt_mark=mark]", 1..=2, move |a| {
        let to = address_of(&a[0])?;
        let mark = mark_of(a.get(1))?;
        let hop = s.tunnels().routing.lookup(to, mark).ok_or("Not found")?;
        let mut out = String::new();
        if let Some(src) = hop.source {
            let _ = writeln!(out, "src {src}");
        }
        let none: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let _ = writeln!(out, "gateway {}\ndev {}", hop.gateway.unwrap_or(none), hop.device);
        Ok(out)
    });
    let s = layer();
    commands.register("ofproto/list-tunnels", "", 0..=0, move |_| Ok(tunnels(&s)));
    let s = layer();
    commands.register("ovs/route/flush", "", 0..=0, move |_| {
        s.with_tunnels(|t| t.routing.clear());
        Ok(OK.into())
    });
    // The older names say what there was before IPv6.
    for [show, set, flush, aging] in [
        ["tnl/neigh/show", "tnl/neigh/set", "tnl/neigh/flush", "tnl/neigh/aging"],
        ["tnl/arp/show", "tnl/arp/set", "tnl/arp/flush", "tnl/arp/aging"],
    ] {
        let s = layer();
        commands.register(show, "", 0..=0, move |_| Ok(neighbours(&s)));
        let (s, clock) = (layer(), Arc::clone(&parts.clock));
        commands.register(set, "BRIDGE IP MAC", 3..=3, move |a| {
            let ip = address_of(&a[1])?;
            let mac: MacAddr = a[2].parse().map_err(|_| "bad MAC address")?;
            s.with_tunnels(|t| t.neighbours.set(&a[0], ip, mac, clock.now()));
            Ok(OK.into())
        });
        let s = layer();
        commands.register(flush, "", 0..=0, move |_| {
            s.with_tunnels(|t| t.neighbours.flush(None));
            Ok(OK.into())
        });
        let s = layer();
        commands.register(aging, "[SECS]", 0..=1, move |a| match a.first() {
            None => Ok(format!("{}\n", s.tunnels().neighbours.life().as_secs())),
            Some(n) => {
                let n = n.parse::<u64>().ok().filter(|n| (1..=3600).contains(n));
                let life = Duration::from_secs(n.ok_or("bad aging value")?);
                s.with_tunnels(|t| t.neighbours.set_life(life));
                Ok(OK.into())
            }
        });
    }
    let s = layer();
    commands.register("tnl/ports/show", "-v", 0..=1, move |a| {
        Ok(ports(&s, a.first().is_some_and(|o| o == "-v")))
    });
    let range = Mutex::new((32_768u16, 61_000u16));
    let soft = Arc::clone(&parts.soft);
    commands.register("tnl/egress_port_range", "min max", 0..=2, move |a| {
        let mut range = range.lock();
        match a {
            [min, max] => {
                let port = |t: &String| t.parse::<u16>().ok().filter(|p| *p != 0);
                let (Some(min), Some(max)) = (port(min), port(max)) else {
                    return Err("Invalid range".into());
                };
                *range = (min.min(max), min.max(max));
                soft.set_tunnel_source_ports(range.0..=range.1);
                Ok(OK.into())
            }
            [] => Ok(format!("Tunnel UDP source port range: {}-{}\n", range.0, range.1)),
            _ => Err("Invalid range".into()),
        }
    });
    let s = layer();
    commands.register("ofproto/tnl-push-pop", "[on]|[off]", 1..=1, move |a| {
        let on = match a[0].as_str() {
            "on" => true,
            "off" => false,
            _ => return Err("Invalid argument".into()),
        };
        s.with_tunnels(|t| t.foreign = !on);
        Ok(format!("Tunnel push-pop {}\n", if on { "on" } else { "off" }))
    });
}

fn address_of(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "Invalid parameters".to_owned())
}

fn network_of(text: &str) -> Result<(IpAddr, u8), String> {
    let (ip, prefix) = text.split_once('/').ok_or("Invalid parameters")?;
    let ip = address_of(ip)?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.parse::<u8>().ok().filter(|p| *p <= most).ok_or("Invalid parameters")?;
    Ok((ip, prefix))
}

fn mark_of(text: Option<&String>) -> Result<u32, String> {
    match text {
        None => Ok(0),
        Some(t) => {
            let n = t.strip_prefix("pkt_mark=").ok_or("Invalid parameters")?;
            let parsed = match n.strip_prefix("0x") {
                Some(hex) => u32::from_str_radix(hex, 16).ok(),
                None => n.parse().ok(),
            };
            parsed.ok_or_else(|| "Invalid pkt_mark".to_owned())
        }
    }
}

fn add_route(s: &Switch, a: &[String]) -> Result<String, String> {
    let (network, prefix) = network_of(&a[0])?;
    let (mut gateway, mut source, mut mark) = (None, None, 0);
    for word in &a[2..] {
        if word.starts_with("pkt_mark=") {
            mark = mark_of(Some(word))?;
        } else if let Some(src) = word.strip_prefix("src=") {
            source = Some(address_of(src)?);
        } else {
            let g = address_of(word)?;
            gateway = Some(g).filter(|g| g.is_ipv4() == network.is_ipv4());
            gateway.ok_or("Invalid pkt_mark or gateway")?;
        }
    }
    let route = Route { network, prefix, mark, device: a[1].clone(), gateway, source, by_user: true };
    s.with_tunnels(|t| t.routing.add(route)).map_err(|e| e.to_string())?;
    Ok(OK.into())
}

fn routes(s: &Switch) -> String {
    let mut out = "Route Table:\n".to_owned();
    for r in s.tunnels().routing.routes() {
        let origin = if r.by_user { "User" } else { "Cached" };
        let _ = write!(out, "{origin}: {}/{}", r.network, r.prefix);
        if r.mark != 0 {
            let _ = write!(out, " MARK {}", r.mark);
        }
        let _ = write!(out, " dev {}", r.device);
        if let Some(g) = r.gateway {
            let _ = write!(out, " GW {g}");
        }
        if let Some(src) = r.source {
            let _ = write!(out, " SRC {src}");
        }
        out.push('\n');
    }
    out
}

fn neighbours(s: &Switch) -> String {
    let mut out = format!("{:<45} {:<19} {}\n{}\n", "IP", "MAC", "Bridge", "=".repeat(74));
    for (bridge, ip, n) in s.tunnels().neighbours.sorted() {
        let _ = writeln!(out, "{:<45} {:<19} {bridge}", ip.to_string(), n.mac.to_string());
    }
    out
}

fn ports(s: &Switch, verbose: bool) -> String {
    let t = s.tunnels();
    let mut out = "Listening ports:\n".to_owned();
    for (dp, l) in t.listening().filter(|(_, l)| l.native) {
        let _ = writeln!(out, "{} ({}) ref_cnt={}", l.name, dp.0, l.tunnels);
    }
    if verbose {
        for a in t.routing.addresses() {
            let _ = writeln!(out, "{} {}/{}", a.device, a.ip, a.prefix);
        }
    }
    out
}
