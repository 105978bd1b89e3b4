//! The demonstration without privileges: hosts in memory, the simulated NIC, the whole switch, in one process. Started by
//! `cargo xtask demo`, which tells the same story with network namespaces when it may.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use e2e::host::Host;
use e2e::lan::{DEADLINE, FLOWS, Lan, address, eventually};
use netio::pcap::PcapReader;

/// Bytes that the TCP transfer moves.
const TCP_BYTES: usize = 1 << 20;

#[derive(Default)]
struct Checks {
    passed: usize,
    failed: usize,
}

impl Checks {
    fn check(&mut self, claim: &str, holds: bool, details: impl FnOnce() -> String) {
        if holds {
            println!("  ok    {claim}");
            self.passed += 1;
        } else {
            println!("  FAIL  {claim}\n{}", details());
            self.failed += 1;
        }
    }
}

fn main() -> ExitCode {
    let (mut keep, mut pcap) = (false, None);
    for a in std::env::args_os().skip(1) {
        if a == "--keep" {
            keep = true;
        } else {
            pcap = Some(PathBuf::from(a));
        }
    }
    match demo(pcap, keep) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("demo: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn host(lan: &Lan, n: u8) -> Result<&Host> {
    lan.hosts.get(usize::from(n) - 1).with_context(|| format!("no host {n}"))
}

fn demo(pcap: Option<PathBuf>, keep: bool) -> Result<usize> {
    let dir = run_dir()?;
    let lan = Lan::start(&dir, "")?;
    println!("four hosts in memory behind the simulated NIC; run directory {}", dir.display());
    let mut c = Checks::default();
    println!("\n== stock ovs-ofctl loads {} flows", FLOWS.len());
    lan.add_flows(FLOWS)?;
    let dump = lan.ofctl(&["dump-flows", "br0"])?;
    print!("{dump}");
    c.check("ovs-ofctl shows the flows it loaded", dump.matches("actions=").count() == FLOWS.len(), || {
        dump.clone()
    });

    pings(&lan, &mut c)?;
    tcp(&lan, &mut c)?;
    why(&lan, &mut c)?;
    match pcap {
        Some(p) => replay(&lan, &mut c, &p)?,
        None => println!("\n== no pcap file given: `cargo xtask demo FILE.pcap` replays one"),
    }
    let damaged: u64 = lan.hosts.iter().map(Host::damaged).sum();
    c.check("no host received a frame with a wrong checksum", damaged == 0, || format!("{damaged} did"));
    println!("\n{} checks passed, {} failed", c.passed, c.failed);
    if keep {
        println!("\nstill running; look around with\n  export OVS_RUNDIR={}", dir.display());
        println!(
            "  hoist status\n  ovs-ofctl -O OpenFlow13 dump-flows br0\nand end it with\n  ovs-appctl -t vswitchd exit"
        );
        let mut asked = lan.switch.stop_request().waiter();
        let mut lan = lan;
        lan.switch.block_on(async {
            asked.wait().await;
            Ok(())
        })?;
        lan.switch.shutdown();
    } else {
        lan.switch.shutdown();
    }
    std::fs::remove_dir_all(&dir)?;
    Ok(c.failed)
}

/// A directory of our own; short, for a unix socket's name has room for 107 bytes.
fn run_dir() -> Result<PathBuf> {
    let o =
        Command::new("mktemp").args(["-d", "-t", "hoist.XXXXXX"]).output().context("cannot start mktemp")?;
    let name = String::from_utf8(o.stdout)?;
    anyhow::ensure!(o.status.success() && !name.trim().is_empty(), "mktemp failed");
    Ok(PathBuf::from(name.trim()))
}

fn pings(lan: &Lan, c: &mut Checks) -> Result<()> {
    println!("\n== host 1 pings host 2");
    let got = host(lan, 1)?.ping(address(2), 3, Duration::from_millis(100))?;
    c.check("3 pings are answered", got == 3, || format!("{got} were"));
    let placed =
        eventually(|| lan.share("icmp").ok().filter(|s| (s.flows, s.in_hardware, s.packets) == (2, 2, 6)));
    let before = lan.share("icmp")?;
    c.check("both directions are in the NIC now", placed.is_some(), || format!("{before:?}"));
    c.check("the first packets went through software", before.packets > before.hardware, || {
        format!("{before:?}")
    });
    let got = host(lan, 1)?.ping(address(2), 50, Duration::ZERO)?;
    c.check("50 more pings are answered", got == 50, || format!("{got} were"));
    let after = eventually(|| lan.share("icmp").ok().filter(|s| s.packets >= before.packets + 100));
    let after = after.unwrap_or(lan.share("icmp")?);
    let (all, hw) = (after.packets - before.packets, after.hardware - before.hardware);
    println!("  {all} packets more: {hw} by the NIC, {} by software", all - hw);
    c.check("the NIC forwarded all of them, and counted each once", (all, hw) == (100, 100), || {
        format!("{after:?}")
    });
    Ok(())
}

fn tcp(lan: &Lan, c: &mut Checks) -> Result<()> {
    println!("\n== host 3 sends {TCP_BYTES} bytes to host 4 over TCP");
    let data: Vec<u8> = (0..TCP_BYTES).map(|i| (i * 31 + i / 257) as u8).collect();
    host(lan, 3)?.transfer(address(4), 5001, &data, DEADLINE)?;
    let got = host(lan, 4)?.accepted(5001, DEADLINE);
    c.check("every byte arrived as it was sent", got.as_deref() == Some(&data), || {
        format!("{:?} bytes arrived", got.as_ref().map(Vec::len))
    });
    let segments = (TCP_BYTES / 1500) as u64;
    let most =
        eventually(|| lan.share("tcp").ok().filter(|s| s.packets >= segments && s.hardware * 2 > s.packets));
    let s = lan.share("tcp")?;
    println!("  {} packets: {} by the NIC, {} by software", s.packets, s.hardware, s.packets - s.hardware);
    c.check("most of them were forwarded by the NIC", most.is_some(), || format!("{s:?}"));
    Ok(())
}

fn why(lan: &Lan, c: &mut Checks) -> Result<()> {
    println!("\n== pings from host 1 to host 4 are copied to the controller: the NIC cannot do that");
    let got = host(lan, 1)?.ping(address(4), 5, Duration::from_millis(50))?;
    c.check("5 pings are answered, by software", got == 5, || format!("{got} were"));
    let filter = "icmp,nw_src=10.77.0.1,nw_dst=10.77.0.4";
    let report = lan.why(filter)?;
    for w in report.flows.iter().filter_map(|f| f.why.as_ref()) {
        println!("  stopped by {}: {}\n  to fit: {}", w.layer, w.text, w.remedy);
    }
    let named =
        report.flows.iter().filter_map(|f| f.why.as_ref()).any(|w| w.action.as_deref() == Some("controller"));
    c.check("hoist why names the action that stopped it", named, || format!("{report:?}"));
    let s = lan.share(filter)?;
    c.check("no packet of it was forwarded by the NIC", s.hardware == 0 && s.packets >= 4, || {
        format!("{s:?}")
    });
    Ok(())
}

fn replay(lan: &Lan, c: &mut Checks, pcap: &std::path::Path) -> Result<()> {
    println!("\n== host 3 replays {}", pcap.display());
    let before = accounted(lan)?;
    let mut reader = PcapReader::open(pcap)?;
    let (mut sent, mut left_out) = (0u64, 0u64);
    while let Some(f) = reader.next_frame()? {
        if !(14..=1514).contains(&f.data.len()) {
            left_out += 1;
            continue;
        }
        host(lan, 3)?.send(f.data);
        sent += 1;
        // The cable holds a thousand frames.
        if sent % 64 == 0 {
            eventually(|| accounted(lan).ok().filter(|n| n.in_all() - before.in_all() + 256 >= sent));
        }
    }
    let arrived = eventually(|| accounted(lan).ok().filter(|n| n.in_all() - before.in_all() >= sent));
    let now = arrived.map_or_else(|| accounted(lan), Ok)?;
    let (out, dropped) = (now.sent - before.sent, now.dropped - before.dropped);
    println!("  {sent} frames sent, {left_out} left out (shorter than 14 or longer than 1514 bytes)");
    println!(
        "  {out} left by port 4, {dropped} dropped and counted: no buffer was free while flows were new"
    );
    c.check("every frame that was sent left the switch or is in a drop counter", arrived.is_some(), || {
        let ask = |command| lan.command(command, &[]).unwrap_or_else(|e| e.to_string());
        format!("{}\n{}\n{}", ask("hoist/ports"), ask("hoist/sim"), ask("hoist/status"))
    });
    c.check("nine of ten left", out * 10 >= sent * 9, || format!("{out} of {sent}"));
    let s = lan.share("in_port=3")?;
    println!(
        "  flows from host 3: {} of {} in the NIC, {} packets by it",
        s.in_hardware, s.flows, s.hardware
    );
    Ok(())
}

/// What became of frames from port 3: sent by port 4, or dropped on arrival.
#[derive(Clone, Copy)]
struct Accounted {
    sent: u64,
    dropped: u64,
}

impl Accounted {
    fn in_all(self) -> u64 {
        self.sent + self.dropped
    }
}

fn accounted(lan: &Lan) -> Result<Accounted> {
    let ports: Vec<daemon::report::Port> = serde_json::from_str(&lan.command("hoist/ports", &[])?)?;
    let port = |n| ports.iter().find(|p| p.ofport == n).with_context(|| format!("no port {n}"));
    Ok(Accounted { sent: port(4)?.tx_packets, dropped: port(3)?.rx_dropped })
}
