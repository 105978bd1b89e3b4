//! `netdev-dummy/*`, `time/stop` and `time/warp` (ovs-vswitchd(8) has no word of them; the texts are those of Open vSwitch 3.1).

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant as HostInstant};

use clock::{Clock as _, Deadline, WarpClock};
use daemon::unixctl::Commands;
use datapath_api::Datapath as _;
use flow::compose::{MIN_ASKED_BYTES, complete, compose, compose_sized};
use flow::text::odp::parse_key;
use tokio::runtime::Handle;

use super::port::DummyPort;
use crate::control::tell_links;
use crate::report::Parts;

/// Longest wait, in host time, for what has been asked for to be done.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between looks at whether a packet has been taken.
const LOOK: Duration = Duration::from_micros(50);
/// Answers to answers at most, in one step.
const MOST_EXCHANGES: usize = 16;
/// Most steps of one `time/warp`.
const MAX_STEPS: u64 = 1_000_000;

/// Registers them. `clock` is the one that everything tells the time by.
pub fn register(commands: &Commands, parts: &Arc<Parts>, clock: &Arc<WarpClock>, runtime: &Handle) {
    let p = Arc::clone(parts);
    commands.register(
        "netdev-dummy/receive",
        "name [--qid queue_id] packet|flow [--len packet_len]",
        2..=usize::MAX,
        move |a| receive(&p, a),
    );
    let p = Arc::clone(parts);
    commands
        .register("netdev-dummy/set-admin-state", "[netdev] up|down", 1..=2, move |a| set_admin_state(&p, a));
    let p = Arc::clone(parts);
    commands.register("netdev-dummy/conn-state", "[netdev]", 0..=1, move |a| Ok(conn_state(&p, a.first())));
    for name in ["netdev-dummy/ip4addr", "netdev-dummy/ip6addr"] {
        let p = Arc::clone(parts);
        commands.register(name, "[netdev] ipaddr/mask-prefix-len", 2..=2, move |a| {
            let (ip, prefix) = a[1].split_once('/').ok_or("bad parameters")?;
            let (ip, prefix) = ip.parse().ok().zip(prefix.parse().ok()).ok_or("bad parameters")?;
            if p.dummies.get(&a[0]).is_none() {
                return Err("Unknown Dummy Interface".into());
            }
            let address = ofproto::tunnel::Address { device: a[0].clone(), ip, prefix };
            p.layer.with_tunnels(|t| t.routing.add_address(address));
            Ok("OK\n".into())
        });
    }
    let c = Arc::clone(clock);
    commands.register("time/stop", "", 0..=0, move |_| {
        c.stop();
        Ok(String::new())
    });
    let (p, c, runtime) = (Arc::clone(parts), Arc::clone(clock), runtime.clone());
    commands.register("time/warp", "[large_msecs] msecs", 1..=2, move |a| {
        let number = |s: &String| s.parse::<u64>().ok();
        let (total, step) = match a {
            [step] => (number(step), number(step)),
            [total, step] => (number(total), number(step)),
            _ => (None, None),
        };
        let (Some(total), Some(step)) = (total, step.filter(|s| *s > 0)) else {
            return Err("invalid MSECS".into());
        };
        warp(&p, &c, total, step);
        p.looks.look(&runtime, PATIENCE);
        Ok("warped\n".into())
    });
}

/// Moves the time on by `total` milliseconds in steps of `step`; everything that has become due is done after each.
fn warp(parts: &Parts, clock: &WarpClock, total: u64, step: u64) {
    // What has happened so far has happened now.
    parts.rounds.go_round(PATIENCE);
    for n in 0..total.div_ceil(step).min(MAX_STEPS) {
        clock.warp(Duration::from_millis(step.min(total - n * step)));
        parts.rounds.go_round(PATIENCE);
        exchange(parts);
        let hubs: Vec<_> = parts.endpoints.lock().iter().map(|e| Arc::clone(&e.hub)).collect();
        hubs.iter().for_each(|h| h.look_around(PATIENCE));
        if parts.stopping() {
            return;
        }
    }
}

/// Has frames arrive that have been sent to the other ends of cables, and what they give to say be said, until nobody says anything.
fn exchange(parts: &Parts) {
    for _ in 0..MOST_EXCHANGES {
        let before = parts.dummies.traffic().arrivals();
        settle(parts);
        if parts.dummies.traffic().arrivals() == before {
            return;
        }
        parts.rounds.go_round(PATIENCE);
    }
}

/// Waits until what the switch itself sends has left, has arrived where it goes, and is forwarded.
fn settle(parts: &Parts) {
    let until = HostInstant::now() + PATIENCE;
    while parts.soft.stats().executed < parts.datapath().given_to_execute() && HostInstant::now() < until {
        std::thread::sleep(LOOK);
    }
    let deadline = || Deadline::after(parts.clock.now(), PATIENCE);
    parts.soft.synchronize(deadline());
    parts.dummies.traffic().settle();
    parts.soft.synchronize(deadline());
}

/// Frames of the arguments: hexadecimal, or a flow in the datapath's syntax, of which `--len` says how long its packet is.
fn frames(args: &[String]) -> Result<Vec<Vec<u8>>, String> {
    let mut out = Vec::new();
    let mut rest = args;
    while let [text, after @ ..] = rest {
        rest = after;
        if let Some(frame) = hex(text) {
            out.push(frame);
            continue;
        }
        let len = match after {
            [flag, len, after @ ..] if flag == "--len" => {
                rest = after;
                let len: usize = len.parse().unwrap_or(0);
                if len < MIN_ASKED_BYTES {
                    return Err("too small packet len".into());
                }
                Some(len)
            }
            _ => None,
        };
        let mut key = parse_key(text, &|_| None).map_err(|e| format!("{text}: {e}"))?;
        complete(&mut key);
        out.push(match len {
            None => compose(&key),
            Some(n) => compose_sized(&key, n).ok_or("packet_len does not fit the flow's headers")?,
        });
    }
    Ok(out)
}

/// A frame in hexadecimal, with or without blanks between bytes; at least an Ethernet header.
pub(crate) fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let frame: Option<Vec<u8>> = digits
        .chunks(2)
        .map(|c| match c {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect();
    frame.filter(|f| f.len() >= 14)
}

fn receive(parts: &Parts, args: &[String]) -> Result<String, String> {
    let [name, rest @ ..] = args else { return Err("no such dummy netdev".into()) };
    let port = parts.dummies.get(name).ok_or("no such dummy netdev")?;
    let (queue, rest) = match rest {
        [flag, qid, rest @ ..] if flag == "--qid" && !rest.is_empty() => {
            let queues = port.options().n_rxq.max(1);
            let queue = qid.parse::<u16>().ok().filter(|q| *q < queues);
            (queue.ok_or("bad rx queue id.")?, rest)
        }
        rest => (0, rest),
    };
    for frame in frames(rest)? {
        deliver(parts, &port, queue, &frame)?;
    }
    Ok(String::new())
}

/// Has a packet come in and waits until the datapath has done with it, and what it gave to learn has been learned.
fn deliver(parts: &Parts, port: &DummyPort, queue: u16, frame: &[u8]) -> Result<(), String> {
    let before = port.taken();
    port.receive_by(queue, frame).map_err(|e| e.to_string())?;
    let until = HostInstant::now() + PATIENCE;
    while port.taken() == before {
        if HostInstant::now() >= until {
            tracing::debug!(target: "netdev_dummy", "{}: a packet was not taken in time", port.name());
            return Ok(());
        }
        std::thread::sleep(LOOK);
    }
    let deadline = Deadline::after(parts.clock.now(), PATIENCE);
    parts.soft.synchronize(deadline);
    parts.spares.synchronize(deadline);
    parts.rounds.go_round(PATIENCE);
    Ok(())
}

fn set_admin_state(parts: &Parts, args: &[String]) -> Result<String, String> {
    let (ports, word) = match args {
        [word] => (parts.dummies.all(), word),
        [name, word] => (parts.dummies.get(name).into_iter().collect(), word),
        _ => return Err("Invalid Admin State".into()),
    };
    let up = match word.to_ascii_lowercase().as_str() {
        "up" => true,
        "down" => false,
        _ => return Err("Invalid Admin State".into()),
    };
    if ports.is_empty() && args.len() == 2 {
        return Err("Unknown Dummy Interface".into());
    }
    ports.iter().for_each(|p| p.set_admin(up));
    tell_links(parts);
    parts.rounds.go_round(PATIENCE);
    Ok("OK\n".into())
}

fn conn_state(parts: &Parts, name: Option<&String>) -> String {
    let mut out = String::new();
    match name {
        Some(name) => {
            let state = parts.dummies.get(name).map_or("unknown", |p| p.streams().state());
            let _ = writeln!(out, "{name}: {state}");
        }
        None => {
            for p in parts.dummies.all().iter().filter(|p| p.streams().state() != "unknown") {
                let _ = writeln!(out, "{}: {}", p.name(), p.streams().state());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> Vec<String> {
        text.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn packets_are_hexadecimal_or_flows() {
        let flow = "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),ipv4(src=1.1.1.1,dst=2.2.2.2,proto=17,tos=0,ttl=64,frag=no),udp(src=1,dst=2)";
        let got = frames(&words(&["0102030405060708090a0b0c0800", flow, "--len", "100", flow])).unwrap();
        assert_eq!(got.iter().map(Vec::len).collect::<Vec<_>>(), [14, 100, 14 + 20 + 8 + 64]);
        assert_eq!(hex("50 54 00 00 00 07 50 54 00 00 00 05 08 06 ff").map(|f| f.len()), Some(15));
        assert_eq!(hex("505400"), None, "no Ethernet header");
        assert!(frames(&words(&[flow, "--len", "59"])).unwrap_err().contains("too small"));
        assert!(frames(&words(&["in_port(x"])).is_err());
    }
}
