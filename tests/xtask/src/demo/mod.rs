//! `cargo xtask demo`: four hosts, a simulated NIC, real traffic; what is in hardware, and why the rest is not.
//!
//! ```text
//!   ns hoist-h1      ns hoist-h2      ns hoist-h3      ns hoist-h4          10.77.0.1 to .4
//!     eth0             eth0             eth0             eth0
//!   ───┼────────────────┼────────────────┼────────────────┼─── veth
//!     w1               w2               w3               w4
//!      └──── wire 0 ────┴──── wire 1 ────┴──── wire 2 ────┴── the NIC's ports, ns hoist-sw
//!                          vswitchd: simulated NIC, driver, software path
//! ```
//!
//! Every claim that is printed is checked; a check that fails makes the exit status non-zero. Nothing outside the
//! namespaces is touched.

mod checks;
mod traffic;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use lab::{Lan, Vswitchd};

use crate::{setup, step};
use checks::Checks;
use traffic::Scene;

/// What to show.
#[derive(clap::Args)]
pub struct Options {
    /// A pcap file (not pcapng) whose frames host 3 sends.
    pcap: Option<PathBuf>,
    /// Leave everything running and say how to talk to it.
    #[arg(long)]
    keep: bool,
    /// Hosts in memory, as when not root.
    #[arg(long)]
    memory: bool,
    /// Build with optimisation.
    #[arg(long)]
    release: bool,
}

/// Hosts of the demo.
const HOSTS: u8 = 4;

/// How ovs-vsctl is called: one command a line.
fn configuration() -> Vec<String> {
    let mut lines = vec![
        "add-br br0 -- set-fail-mode br0 secure -- set Bridge br0 other-config:datapath-id=0000000000000077"
            .to_owned(),
    ];
    lines.extend((1..=HOSTS).map(|n| {
        let (port, wire) = (n - 1, lab::lan::wire(n));
        format!(
            "--may-exist add-port br0 p{n} -- set Interface p{n} type=hoist options:device=sim:0 \
             options:port={port} options:wire=af_packet:{wire} ofport_request={n}"
        )
    }));
    lines
}

/// Configures the switch as an operator would.
fn configure(s: &Vswitchd, c: &mut Checks) -> Result<()> {
    println!("\n== stock ovs-vsctl configures the switch, which serves its database itself");
    for line in configuration() {
        println!("  ovs-vsctl {line}");
        s.vsctl(&line.split_whitespace().collect::<Vec<_>>())?;
    }
    print!("{}", s.vsctl(&["show"])?);
    let has = |n: u8| {
        s.vsctl(&["get", "Interface", &format!("p{n}"), "ofport"]).is_ok_and(|o| o.trim() == n.to_string())
    };
    c.check("each ovs-vsctl returned when the port was there", (1..=HOSTS).all(has), || {
        s.vsctl(&["--columns=name,ofport,error", "list", "Interface"]).unwrap_or_default()
    });
    let wrong = s.vsctl(&["add-port", "br0", "nosuch0"]);
    let error = s.vsctl(&["get", "Interface", "nosuch0", "error"])?;
    c.check("a port that cannot be had is told of", error.contains("No such device"), || {
        format!("{wrong:?} {error}")
    });
    s.vsctl(&["del-port", "nosuch0"]).map(drop)
}

/// The flows of the demo, in ovs-ofctl's syntax.
const FLOWS: &str = "\
# Addresses are resolved by flooding: each host hears every question.
table=0,priority=100,arp,actions=FLOOD
# IPv4 goes to the routing table, whose rules send it to the host's port.
table=0,priority=50,ip,actions=goto_table:1
table=1,priority=10,ip,nw_dst=10.77.0.1,actions=output:1
table=1,priority=10,ip,nw_dst=10.77.0.2,actions=output:2
table=1,priority=10,ip,nw_dst=10.77.0.3,actions=output:3
table=1,priority=10,ip,nw_dst=10.77.0.4,actions=output:4
# Pings from host 1 to host 4 are shown to the controller as well: only software can do that.
table=1,cookie=0xbad,priority=20,icmp,nw_src=10.77.0.1,nw_dst=10.77.0.4,actions=controller,output:4
# Whatever else host 3 sends (a replayed file) goes to host 4.
table=0,priority=1,in_port=3,actions=output:4
table=1,priority=1,in_port=3,actions=output:4
";

/// Runs the demo.
///
/// # Errors
/// When something cannot be set up, or a check fails.
pub fn run(o: &Options) -> Result<()> {
    if let Some(p) = &o.pcap
        && !p.is_file()
    {
        bail!("{}: no such file", p.display());
    }
    setup::packages()?;
    if o.memory || !setup::is_root() {
        println!("not root (or --memory): the hosts live in memory, and no network interface is used");
        return in_memory(o);
    }
    if let Err(e) = lab::lan::possible() {
        println!("network namespaces cannot be made here ({e:#}): the hosts live in memory");
        return in_memory(o);
    }
    let programs = build(o)?;
    let mut checks = Checks::default();
    println!("== four hosts in network namespaces, their cables in the simulated NIC");
    let hosts = Lan::create("hoist", HOSTS)?;
    let switch = Vswitchd::start_with_database(&programs, Path::new("/run/hoist-demo"), &hosts.switch())?;
    println!("{}, run directory {}", switch.appctl(&["version"])?.trim(), switch.run_dir().display());
    let result = show(&Scene { lan: &hosts, switch: &switch }, &mut checks, o.pcap.as_deref());
    if let Err(e) = &result {
        println!("{e:#}\nthe log's end:\n{}", switch.log_tail());
    }
    if o.keep {
        println!("\nstill running; look around with");
        println!("  export OVS_RUNDIR={}", switch.run_dir().display());
        println!("  {} status", programs.join("hoist").display());
        println!("  ovs-vsctl show");
        println!("  ovs-ofctl -O OpenFlow13 dump-flows br0");
        println!("  ip netns exec hoist-h1 ping 10.77.0.2");
        println!("and end it with\n  ovs-appctl -t vswitchd exit");
        println!("  for n in h1 h2 h3 h4 sw; do ip netns del hoist-$n; done");
        switch.leave_running();
        hosts.leave();
    } else {
        let clean = switch.stop();
        checks.check("vswitchd ended cleanly", clean.is_ok(), || format!("{clean:?}"));
        drop(hosts);
    }
    result?;
    checks.verdict()
}

/// The hosts and the switch of the unprivileged demo are one process, a program of the end-to-end tests.
fn in_memory(o: &Options) -> Result<()> {
    let mut args = vec!["run", "--quiet", "-p", "e2e", "--bin", "memory-demo"];
    if o.release {
        args.push("--release");
    }
    args.push("--");
    if o.keep {
        args.push("--keep");
    }
    let pcap = o.pcap.as_ref().map(std::path::absolute).transpose()?;
    args.extend(pcap.as_ref().and_then(|p| p.to_str()));
    step::run("demo in memory", &mut step::cargo(&args), &mut |line| println!("{line}"))
}

/// Builds the programs and returns their folder.
fn build(o: &Options) -> Result<PathBuf> {
    let mut args = vec!["build", "--quiet", "-p", "vswitchd", "-p", "hoist"];
    if o.release {
        args.push("--release");
    }
    step::run("build", &mut step::cargo(&args), &mut |line| println!("{line}"))?;
    let target = step::scratch()?;
    let target = target.parent().context("the target folder has no parent")?;
    Ok(target.join(if o.release { "release" } else { "debug" }))
}

/// The story.
fn show(scene: &Scene<'_>, c: &mut Checks, pcap: Option<&Path>) -> Result<()> {
    configure(scene.switch, c)?;
    println!("\n== stock ovs-ofctl loads {} flows", FLOWS.lines().filter(|l| !l.starts_with('#')).count());
    let s = scene.switch;
    s.add_flows("br0", FLOWS)?;
    let dump = s.ofctl(&["dump-flows", "br0"])?;
    print!("{dump}");
    let rules = FLOWS.lines().filter(|l| l.contains("actions=")).count();
    c.check("ovs-ofctl shows the flows it loaded", dump.matches("actions=").count() == rules, || {
        dump.clone()
    });

    traffic::pings(scene, c)?;
    traffic::tcp(scene, c)?;
    traffic::why(scene, c)?;
    match pcap {
        Some(p) => traffic::replay(scene, c, p)?,
        None => println!("\n== no pcap file given: `cargo xtask demo FILE.pcap` replays one"),
    }

    println!("\n== the simulated device (cycles are simulated time)");
    print!("{}", s.hoist(&["sim"])?);
    println!("\n== hoist status");
    print!("{}", s.hoist(&["status"])?);
    Ok(())
}
