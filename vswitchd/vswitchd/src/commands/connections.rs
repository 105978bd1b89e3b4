//! `dpctl/dump-conntrack` and the other commands about connections, with Open vSwitch's texts.

use std::fmt::Write;
use std::net::IpAddr;
use std::sync::Arc;

use clock::Clock;
use conntrack::{Entry, Protocol, TcpState, Tracker, Tuple};
use daemon::unixctl::Commands;
use flow::{CtEnds, CtFilter, CtHelper};
use offload_tc::kdp::{Connection, Direction, SystemDatapath};

use crate::report::Parts;

/// Most arguments of commands that take lists.
const MANY: usize = 1024;

/// Whose connections.
enum Source<'a> {
    /// Those of the switch's own datapath.
    Own(&'a Tracker),
    /// Those of the kernel's.
    Kernel(Arc<SystemDatapath>),
}

impl Source<'_> {
    /// Calls `each` for every connection of a zone, or of all.
    fn each(&self, clock: &dyn Clock, zone: Option<u16>, mut each: impl FnMut(Entry)) -> Result<(), String> {
        match self {
            Source::Own(t) => t.dump(clock.now(), zone, &mut |e| {
                each(e);
                true
            }),
            Source::Kernel(k) => {
                k.connections(zone).map_err(|e| e.to_string())?.iter().map(of_kernel).for_each(each);
            }
        }
        Ok(())
    }
}

/// The kernel's datapath when an argument names it, or when no bridge stands on another and none is named.
fn kernels(p: &Parts, a: &[String]) -> Result<Option<Arc<SystemDatapath>>, String> {
    let is_named = |name: &str| a.iter().any(|a| a == name);
    if is_named(crate::system::DATAPATH) || is_named(crate::system::NAME) {
        let none = || format!("opening datapath {} failed (No such device)", crate::system::DATAPATH);
        return p.system.get().map(Some).ok_or_else(none);
    }
    let all_there = || {
        let all = p.endpoints.lock();
        !all.is_empty() && all.iter().all(|e| p.system.has_bridge(e.bridge.index()))
    };
    Ok(p.system.get().filter(|_| !is_named(super::dpif::DATAPATH) && all_there()))
}

/// What the kernel says of one, in the terms of ours.
fn of_kernel(c: &Connection) -> Entry {
    let tuple = |d: &Direction| Tuple {
        src: Tuple::bits(d.src),
        dst: Tuple::bits(d.dst),
        sport: d.sport,
        dport: d.dport,
        zone: c.zone,
        proto: d.proto,
        icmp_type: d.icmp.map_or(0, |i| i.0),
        v6: d.src.is_ipv6(),
    };
    // `enum tcp_conntrack`; it has one state for both ends.
    let state = |s| match s {
        1 | 9 => TcpState::SynSent,
        2 => TcpState::SynRecv,
        3 => TcpState::Established,
        4 => TcpState::FinWait1,
        5 => TcpState::CloseWait,
        6 => TcpState::LastAck,
        7 => TcpState::TimeWait,
        8 => TcpState::Closing,
        _ => TcpState::Closed,
    };
    let helper = c.helper.as_deref();
    Entry {
        original: tuple(&c.original),
        reply: tuple(&c.reply),
        mark: c.mark,
        label: c.label,
        protocol: c.tcp_state.map_or(Protocol::Other, |s| Protocol::Tcp(state(s), state(s))),
        left: c.left,
        helper: [CtHelper::Ftp, CtHelper::Tftp].into_iter().find(|h| Some(h.name()) == helper),
    }
}

/// Registers them.
pub fn register(commands: &Commands, parts: &Arc<Parts>) {
    let (tracker, clock) = (parts.soft.connections(), &parts.clock);
    let source = |parts: &Arc<Parts>| {
        let (t, p) = (tracker.clone(), parts.clone());
        move |a: &[String], with: &dyn Fn(&Source<'_>) -> Result<String, String>| {
            with(&kernels(&p, a)?.map_or(Source::Own(&t), Source::Kernel))
        }
    };
    let (s, c) = (source(parts), clock.clone());
    let usage = "[-m] [-s] [dp] [zone=N]";
    commands.register("dpctl/dump-conntrack", usage, 0..=4, move |a| s(a, &|s| dump(s, &*c, a)));
    let s = source(parts);
    let usage = "[dp] [zone=N] [ct-orig-tuple] [ct-reply-tuple]";
    commands.register("dpctl/flush-conntrack", usage, 0..=4, move |a| s(a, &|s| flush(s, a)));
    let (s, c) = (source(parts), clock.clone());
    commands.register("dpctl/ct-stats-show", "[dp] [zone=N]", 0..=3, move |a| s(a, &|s| stats(s, &*c, a)));
    let (s, c) = (source(parts), clock.clone());
    commands.register("dpctl/ct-get-nconns", "[dp]", 0..=1, move |a| {
        s(a, &|s| {
            let mut n = 0u64;
            s.each(&*c, None, |_| n += 1)?;
            Ok(format!("{n}\n"))
        })
    });
    let t = tracker.clone();
    commands.register("dpctl/ct-set-maxconns", "[dp] maxconns", 1..=2, move |a| {
        let n = a
            .last()
            .and_then(|n| n.parse::<u32>().ok())
            .ok_or_else(|| invalid("maxconns missing or malformed"))?;
        t.set_max(n as usize);
        Ok("setting maxconns successful\n".to_owned())
    });
    let t = tracker.clone();
    commands.register("dpctl/ct-get-maxconns", "[dp]", 0..=1, move |_| Ok(format!("{}\n", t.max())));
    for (name, on, done) in [
        ("dpctl/ct-enable-tcp-seq-chk", true, "enabling"),
        ("dpctl/ct-disable-tcp-seq-chk", false, "disabling"),
    ] {
        let t = tracker.clone();
        commands.register(name, "[dp]", 0..=1, move |_| {
            t.set_tcp_window_check(on);
            Ok(format!("{done} TCP sequence checking successful\n"))
        });
    }
    let t = tracker.clone();
    commands.register("dpctl/ct-get-tcp-seq-chk", "[dp]", 0..=1, move |_| {
        let state = if t.checks_tcp_windows() { "enabled" } else { "disabled" };
        Ok(format!("TCP sequence checking: {state}\n"))
    });
    let t = tracker.clone();
    let usage = "[dp] [default=L] [zone=N,limit=L]...";
    commands.register("dpctl/ct-set-limits", usage, 1..=MANY, move |a| set_limits(&t, a));
    let t = tracker.clone();
    commands.register("dpctl/ct-del-limits", "[dp] zone=N1[,N2]...", 1..=2, move |a| {
        for z in zones(a.last().map_or("", String::as_str))? {
            t.set_zone_limit(Some(z), None);
        }
        Ok(String::new())
    });
    let t = tracker.clone();
    commands.register("dpctl/ct-get-limits", "[dp] [zone=N1[,N2]...]", 0..=2, move |a| get_limits(&t, a));
}

fn invalid(text: &str) -> String {
    format!("{text} (Invalid argument)")
}

/// The arguments behind options and the name of a datapath, of which there is one.
fn behind_datapath(a: &[String]) -> &[String] {
    let options = a.iter().take_while(|a| a.starts_with('-')).count();
    let a = &a[options..];
    match a.first() {
        Some(dp) if !dp.contains('=') && !dp.is_empty() && *dp != "verbose" => &a[1..],
        _ => a,
    }
}

fn zone_of(a: &str) -> Result<Option<u16>, String> {
    let Some(z) = a.strip_prefix("zone=") else { return Ok(None) };
    z.parse().map(Some).map_err(|_| invalid("failed to parse zone"))
}

fn dump(s: &Source<'_>, clock: &dyn Clock, a: &[String]) -> Result<String, String> {
    let zone = a.last().map_or(Ok(None), |z| zone_of(z))?;
    let with =
        |letter: char| a.iter().any(|o| o.starts_with('-') && !o.starts_with("--") && o.contains(letter));
    let statistics = with('s') || a.iter().any(|o| o == "--statistics");
    let mut out = String::new();
    s.each(clock, zone, |e| {
        let text = e.to_string();
        // How long it is remembered yet comes behind the zone.
        let zone = if e.original.zone == 0 { String::new() } else { format!(",zone={}", e.original.zone) };
        match text.split_once(&format!("){zone}")).filter(|_| statistics) {
            Some(_) => {
                let at = text.rfind(&format!("){zone}")).map_or(text.len(), |i| i + 1 + zone.len());
                let _ = writeln!(out, "{},timeout={}{}", &text[..at], e.left.as_secs(), &text[at..]);
            }
            None => {
                let _ = writeln!(out, "{text}");
            }
        }
    })?;
    Ok(out)
}

/// Reads what a connection must be to be forgotten, in one direction: its protocol, and its ends.
fn ends_of(text: &str) -> Result<(Option<u8>, CtEnds), String> {
    let (mut proto, mut w) = (None, CtEnds::default());
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (name, value) =
            part.split_once('=').ok_or_else(|| invalid(&format!("field {part} missing value")))?;
        let wrong = |what: &str| invalid(&format!("failed to parse {what}"));
        let address = || value.parse::<IpAddr>().map_err(|_| wrong(name));
        let number = || value.parse::<u16>().map_err(|_| wrong(name));
        let byte = || value.parse::<u8>().map_err(|_| wrong(name));
        match name {
            "ct_nw_src" | "ct_ipv6_src" => w.src = Some(address()?),
            "ct_nw_dst" | "ct_ipv6_dst" => w.dst = Some(address()?),
            "ct_nw_proto" => proto = Some(byte()?),
            "ct_tp_src" => w.src_port = Some(number()?),
            "ct_tp_dst" => w.dst_port = Some(number()?),
            "icmp_id" => w.icmp_id = Some(number()?),
            "icmp_type" => w.icmp_type = Some(byte()?),
            // Nothing but 0 is tracked.
            "icmp_code" => {}
            _ => return Err(invalid(&format!("invalid conntrack tuple field: {name}"))),
        }
    }
    Ok((proto, w))
}

fn flush(s: &Source<'_>, a: &[String]) -> Result<String, String> {
    let mut a = behind_datapath(a);
    let zone = a.first().map_or(Ok(None), |z| zone_of(z))?;
    if zone.is_some() {
        a = &a[1..];
    }
    if a.len() > 2 {
        return Err(invalid("invalid arguments"));
    }
    let ends = |i: usize| a.get(i).map_or(Ok(Default::default()), |t| ends_of(t));
    let ((proto, original), (again, reply)) = (ends(0)?, ends(1)?);
    let which = CtFilter { proto: proto.or(again), original, reply };
    let _forgotten = match s {
        Source::Own(t) => t.flush_like(zone, &which),
        Source::Kernel(k) => k.forget_connections(zone, &|c| c.is_like(&which)).map_err(|e| e.to_string())?,
    };
    Ok(String::new())
}

fn stats(s: &Source<'_>, clock: &dyn Clock, a: &[String]) -> Result<String, String> {
    let verbose = a.iter().any(|o| o.starts_with("verbose") || o == "-m" || o == "--more");
    let zone = a.iter().find(|z| z.starts_with("zone=")).map_or(Ok(None), |z| zone_of(z))?;
    const NAMES: [(&str, u8); 7] =
        [("UDP", 17), ("UDPLITE", 136), ("SCTP", 132), ("ICMP", 1), ("DCCP", 33), ("IGMP", 2), ("Other", 0)];
    let mut total = 0;
    let mut counts = [0; NAMES.len()];
    let mut tcp = std::collections::BTreeMap::<TcpState, u32>::new();
    s.each(clock, zone, |Entry { original, protocol, .. }| {
        total += 1;
        match protocol {
            Protocol::Tcp(a, b) => {
                let s = a.max(b);
                *tcp.entry(if s == TcpState::FinWait2 { TcpState::TimeWait } else { s }).or_default() += 1;
            }
            // Open vSwitch counts ICMPv6 and shows nothing of it.
            Protocol::Other if original.proto == 58 => {}
            Protocol::Other => {
                let at = NAMES.iter().position(|(_, p)| *p == original.proto).unwrap_or(NAMES.len() - 1);
                counts[at] += 1;
            }
        }
    })?;
    let mut out = format!("Connections Stats:\n    Total: {total}\n");
    if !tcp.is_empty() {
        let _ = writeln!(out, "  TCP: {}", tcp.values().sum::<u32>());
        if verbose {
            out.push_str("    Conn per TCP states:\n");
            for (s, n) in &tcp {
                let _ = writeln!(out, "\t  [{}]={n}", s.name());
            }
        }
    }
    for ((name, _), n) in NAMES.iter().zip(counts).filter(|(_, n)| *n > 0) {
        let _ = writeln!(out, "  {name}: {n}");
    }
    Ok(out)
}

fn zones(a: &str) -> Result<Vec<u16>, String> {
    let list = a.strip_prefix("zone=").ok_or_else(|| invalid(&format!("invalid argument {a}")))?;
    list.split(',').map(|z| z.parse().map_err(|_| invalid("invalid zone"))).collect()
}

fn set_limits(t: &Tracker, a: &[String]) -> Result<String, String> {
    let mut default = None;
    let mut limits = Vec::new();
    for (i, x) in behind_datapath(a).iter().enumerate() {
        if let Some(d) = x.strip_prefix("default=").filter(|_| i == 0) {
            default = Some(d.parse::<u32>().map_err(|_| invalid("invalid default limit"))?);
            continue;
        }
        let (mut zone, mut limit) = (None, None);
        for part in x.split(',') {
            match part.split_once('=') {
                Some(("zone", z)) => {
                    zone = Some(z.parse::<u16>().map_err(|_| invalid("failed to parse zone"))?);
                }
                Some(("limit", l)) => {
                    limit = Some(l.parse::<u32>().map_err(|_| invalid("failed to parse limit"))?);
                }
                Some((field, _)) => return Err(invalid(&format!("invalid zone limit field: {field}"))),
                None => return Err(invalid(&format!("field {part} missing value"))),
            }
        }
        let (Some(z), Some(l)) = (zone, limit) else {
            return Err(invalid("failed to parse zone limit"));
        };
        limits.push((z, l));
    }
    // Nothing is set unless all can be.
    if let Some(d) = default {
        t.set_zone_limit(None, Some(d));
    }
    for (z, l) in limits {
        t.set_zone_limit(Some(z), Some(l));
    }
    Ok(String::new())
}

fn get_limits(t: &Tracker, a: &[String]) -> Result<String, String> {
    let limits = match behind_datapath(a) {
        [list, ..] => zones(list)?.into_iter().map(|z| t.zone_limit(z)).collect(),
        [] => t.zone_limits(),
    };
    let mut out = format!("default limit={}\n", t.default_zone_limit());
    for l in limits {
        let _ = writeln!(out, "zone={},limit={},count={}", l.zone, l.limit, l.count);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clock::ManualClock;
    use conntrack::{Headers, Meta};
    use flow::frame::FrameBuilder;
    use flow::{CtAction, FieldId, PortId};

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// A connection of zone 3 from 10.0.0.1 port 1000 and one of zone 0 from port 1001.
    fn tracker() -> Tracker {
        let t = Tracker::new(Some(1));
        for (port, zone) in [(1000, 3), (1001, 0)] {
            let mut f =
                FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(port, 53).payload(b"?").build();
            let p = flow::parse(&f, PortId(1)).expect("a frame");
            let h = Headers {
                eth_type: 0x800,
                proto: p.key.get64(FieldId::NwProto) as u8,
                is_fragment: false,
                l3: 14,
                l4: 34,
                end: p.layout.l3_end as usize,
            };
            let a = CtAction { commit: true, zone, ..CtAction::default() };
            t.track(&mut f, Some(&h), &mut Meta::default(), &a, clock::Instant::ZERO);
        }
        t
    }

    const ZONE3: &str = "udp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1000,dport=53),\
                         reply=(src=10.0.0.2,dst=10.0.0.1,sport=53,dport=1000),zone=3\n";

    #[test]
    fn dumps_are_of_one_zone_or_of_all() {
        let (t, c) = (tracker(), ManualClock::new());
        assert_eq!(dump(&Source::Own(&t), &c, &words("zone=3")).expect("a dump"), ZONE3);
        assert_eq!(dump(&Source::Own(&t), &c, &words("ovs-dummy")).expect("a dump").lines().count(), 2);
        assert!(
            dump(&Source::Own(&t), &c, &words("-s zone=3")).expect("a dump").ends_with("zone=3,timeout=60\n")
        );
        assert!(dump(&Source::Own(&t), &c, &words("zone=x")).is_err());
    }

    #[test]
    fn connections_are_forgotten_by_zone_and_by_tuple() {
        let (t, c) = (tracker(), ManualClock::new());
        flush(&Source::Own(&t), &words("ct_nw_src=10.0.0.1,ct_nw_proto=17,ct_tp_src=1001")).expect("flushed");
        assert_eq!(dump(&Source::Own(&t), &c, &[]).expect("a dump"), ZONE3);
        flush(&Source::Own(&t), &words("zone=4")).expect("flushed");
        assert_eq!(dump(&Source::Own(&t), &c, &[]).expect("a dump"), ZONE3);
        flush(&Source::Own(&t), &words("ovs-dummy zone=3")).expect("flushed");
        assert_eq!(dump(&Source::Own(&t), &c, &[]).expect("a dump"), "");
        assert!(flush(&Source::Own(&t), &words("what=1")).is_err());
    }

    #[test]
    fn the_kernels_connections_are_told_in_the_same_words() {
        let end = |src: &str, dst: &str, sport, dport| Direction {
            src: src.parse().expect("an address"),
            dst: dst.parse().expect("an address"),
            proto: 6,
            sport,
            dport,
            icmp: None,
        };
        let c = Connection {
            original: end("10.0.0.1", "10.0.0.2", 1000, 80),
            reply: end("10.0.0.2", "10.0.0.88", 80, 1000),
            mark: 5,
            tcp_state: Some(4),
            ..Connection::default()
        };
        let text = "tcp,orig=(src=10.0.0.1,dst=10.0.0.2,sport=1000,dport=80),\
                    reply=(src=10.0.0.2,dst=10.0.0.88,sport=80,dport=1000),mark=5,protoinfo=(state=FIN_WAIT_1)";
        assert_eq!(of_kernel(&c).to_string(), text);
    }

    #[test]
    fn limits_are_set_shown_and_removed() {
        let t = tracker();
        set_limits(&t, &words("default=10 zone=3,limit=5 zone=0,limit=3")).expect("set");
        let all = "default limit=10\nzone=0,limit=3,count=1\nzone=3,limit=5,count=1\n";
        assert_eq!(get_limits(&t, &[]).expect("limits"), all);
        let one = "default limit=10\nzone=4,limit=10,count=0\n";
        assert_eq!(get_limits(&t, &words("zone=4")).expect("limits"), one);
        assert!(set_limits(&t, &words("zone=3")).is_err());
    }

    #[test]
    fn statistics_count_by_protocol() {
        let (t, c) = (tracker(), ManualClock::new());
        assert_eq!(
            stats(&Source::Own(&t), &c, &[]).expect("statistics"),
            "Connections Stats:\n    Total: 2\n  UDP: 2\n"
        );
    }
}
