//! Faucet, a controller that networks run on, takes the switch through what Open vSwitch's tutorial of it shows: switching in two
//! VLANs, routing between them, access control. Four hosts in network namespaces, the real vswitchd between them, configured by
//! ovs-vsctl, with its ports on the simulated NIC and on packet sockets. Needs root, and Faucet from `cargo xtask setup`; says
//! so and is skipped otherwise.

#![allow(clippy::unwrap_used)]

mod controller;

use std::time::Duration;

use controller::{Faucet, PORT};
use lab::lan::{Lan, mac, unique, wire};
use lab::transfer::{Listener, reaches};
use lab::{Vswitchd, eventually};
use serde_json::Value;

/// Hosts 1 and 2 are in VLAN 100, hosts 3 and 4 in VLAN 200.
const HOSTS: u8 = 4;
const OFFICE: [u8; 2] = [1, 2];
const GUESTS: [u8; 2] = [3, 4];
/// Router's addresses in the two VLANs.
const GATEWAYS: [&str; 2] = ["10.100.0.254", "10.200.0.254"];
/// How long a ping that must fail is tried: three times.
const REFUSED: u32 = 3;
const PACE: Duration = Duration::from_millis(50);

/// What the ports of the switch are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// On the simulated NIC.
    Nic,
    /// Packet sockets: nothing to hoist flows into.
    PacketSockets,
}

/// Everything that runs. Says what happened when a test fails.
struct Scene {
    ports: Ports,
    lan: Lan,
    switch: Vswitchd,
    faucet: Faucet,
}

fn address(n: u8) -> String {
    format!("10.{}.0.{n}", if OFFICE.contains(&n) { 100 } else { 200 })
}

fn gateway(n: u8) -> &'static str {
    GATEWAYS[usize::from(!OFFICE.contains(&n))]
}

/// Faucet's configuration: two VLANs; with a router between them, and with access control on port 1.
fn configuration(routed: bool, filtered: bool) -> String {
    let mut c = "dps:\n  switch-1:\n    dp_id: 0x1\n    hardware: 'Open vSwitch'\n    timeout: 3600\n    interfaces:\n"
        .to_owned();
    for n in 1..=HOSTS {
        let vlan = if OFFICE.contains(&n) { 100 } else { 200 };
        c += &format!("      {n}:\n        native_vlan: {vlan}\n");
        if filtered && n == 1 {
            c += "        acl_in: no-web\n";
        }
    }
    c += "vlans:\n";
    for (vlan, gateway) in [100, 200].iter().zip(GATEWAYS) {
        c += &format!("  {vlan}:\n    vid: {vlan}\n");
        if routed {
            c += &format!("    faucet_vips: ['{gateway}/24']\n");
        }
    }
    if routed {
        c += "routers:\n  router-1:\n    vlans: [100, 200]\n";
    }
    if filtered {
        c += "acls:\n  no-web:\n    - rule:\n        dl_type: 0x800\n        nw_proto: 6\n        tcp_dst: 8080\n        \
              actions:\n          allow: 0\n    - rule:\n        actions:\n          allow: 1\n";
    }
    c
}

impl Scene {
    /// `None`, and a line that says why, where it cannot play.
    fn set(ports: Ports) -> Option<Scene> {
        let Some(program) = lab::command::controller("HOIST_FAUCET", "faucet") else {
            println!("SKIP Faucet: it is not installed; run `cargo xtask setup`");
            return None;
        };
        if let Err(e) = lab::lan::possible() {
            println!("SKIP Faucet: network namespaces cannot be made: {e:#}");
            return None;
        }
        let name = unique("hoist-faucet");
        let lan = Lan::create(&name, HOSTS).unwrap();
        for n in 1..=HOSTS {
            lan.set_address(n, &format!("{}/24", address(n)), gateway(n)).unwrap();
        }
        let programs = lab::vswitchd::built_programs().unwrap();
        let run_dir = std::env::temp_dir().join(&name);
        let switch = Vswitchd::start_with_database(&programs, &run_dir, &lan.switch()).unwrap();
        configure(&switch, ports);
        let faucet = Faucet::start(&program, &lan.switch(), &run_dir, &configuration(false, false));
        Some(Scene { ports, lan, switch, faucet })
    }

    /// Waits until host `from` gets an answer from `to`.
    fn reaches(&self, from: u8, to: &str) {
        let answered = || self.lan.ping_address(from, to, 1, PACE).is_ok_and(|n| n == 1);
        assert!(eventually(|| answered().then_some(())).is_some(), "host {from} does not reach {to}");
    }

    /// Whether packets to port `tcp_dst` from host 1 get to host `to`.
    fn connects(&self, to: u8, port: u16) -> bool {
        let _listener = Listener::start(&self.lan, to, port).unwrap();
        reaches(&self.lan, 1, &address(to), port)
    }

    /// Flow entries by `ovs-ofctl dump-flows`.
    fn flows(&self) -> Vec<String> {
        let dump = self.switch.ofctl(&["dump-flows", "br0"]).unwrap();
        dump.lines().filter(|l| l.contains("actions=")).map(str::to_owned).collect()
    }

    /// On the NIC, waits until the device has forwarded packets of flows that `filter` matches; pings go on meanwhile.
    fn forwarded_by_device(&self, from: u8, to: &str, filter: &str) {
        if self.ports != Ports::Nic {
            return;
        }
        let hoisted = || {
            self.lan.ping_address(from, to, 5, PACE).unwrap();
            let flows = self.switch.hoist_json(&["flows", "--hw", filter]).unwrap();
            let packets = |f: &Value| f["hardware_packets"].as_u64().unwrap();
            flows.as_array().unwrap().iter().any(|f| packets(f) > 0).then_some(())
        };
        assert!(eventually(hoisted).is_some(), "the device forwards nothing of {filter}");
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("-- vswitchd:\n{}", self.switch.log_tail());
            println!("-- flow entries:\n{}", self.switch.ofctl(&["dump-flows", "br0"]).unwrap_or_default());
            println!("-- flow records:\n{}", self.switch.hoist(&["flows"]).unwrap_or_default());
            println!("-- status:\n{}", self.switch.hoist(&["status"]).unwrap_or_default());
            println!("-- Faucet:\n{}", self.faucet.log());
        }
    }
}

fn configure(switch: &Vswitchd, ports: Ports) {
    let vsctl = |line: &str| switch.vsctl(&line.split_whitespace().collect::<Vec<_>>()).unwrap();
    vsctl("add-br br0 -- set Bridge br0 other_config:datapath-id=0000000000000001 fail_mode=secure");
    for n in 1..=HOSTS {
        let (name, options) = match ports {
            Ports::Nic => {
                let (port, wire) = (n - 1, wire(n));
                let options = format!(
                    "type=hoist options:device=sim:0 options:port={port} options:wire=af_packet:{wire}"
                );
                (format!("p{n}"), options)
            }
            Ports::PacketSockets => (wire(n), String::new()),
        };
        vsctl(&format!("add-port br0 {name} -- set Interface {name} ofport_request={n} {options}"));
    }
    vsctl(&format!("set-controller br0 tcp:127.0.0.1:{PORT}"));
}

/// Switching: hosts of a VLAN reach each other and nobody else.
fn vlans_are_apart(s: &Scene) {
    for (a, b) in [(1, 2), (3, 4)] {
        s.reaches(a, &address(b));
        s.reaches(b, &address(a));
    }
    // In the office's own subnet, so that only the switch is in the way.
    s.lan.set_address(4, "10.100.0.4/24", GATEWAYS[0]).unwrap();
    assert_eq!(s.lan.ping_address(1, "10.100.0.4", REFUSED, PACE).unwrap(), 0, "VLANs leak");
    s.lan.set_address(4, &format!("{}/24", address(4)), gateway(4)).unwrap();
    s.reaches(3, &address(4));
    for n in 1..=HOSTS {
        let known = |f: &String| f.contains(&format!("dl_dst={}", mac(n)));
        assert!(s.flows().iter().any(known), "Faucet has not learned host {n}: {:#?}", s.flows());
    }
    s.forwarded_by_device(1, &address(2), &format!("icmp,dl_src={},dl_dst={}", mac(1), mac(2)));
    let flow = format!("in_port=1,dl_src={},dl_dst={},icmp", mac(1), mac(2));
    let trace = s.switch.appctl(&["ofproto/trace", "br0", &flow]).unwrap();
    assert!(trace.contains("Datapath actions: "), "{trace}");
    assert!(trace.contains("push_vlan:0x8100") && trace.contains("pop_vlan"), "{trace}");
}

/// Routing: the router answers, and packets go from VLAN to VLAN through it.
fn the_router_routes(s: &Scene) {
    for n in 1..=HOSTS {
        s.reaches(n, gateway(n));
    }
    for (a, b) in OFFICE.iter().flat_map(|a| GUESTS.map(|b| (*a, b))) {
        s.reaches(a, &address(b));
        s.reaches(b, &address(a));
    }
    s.forwarded_by_device(1, &address(4), &format!("icmp,dl_src={},nw_dst={}", mac(1), address(4)));
    // What arrives has been through a router: its time to live is one less than ping's 64.
    let out = lab::command::done(lab::command::inside(&s.lan.host(1), "ping").args([
        "-n",
        "-c",
        "1",
        "-W",
        "2",
        &address(4),
    ]));
    let text = String::from_utf8_lossy(&out.unwrap().stdout).into_owned();
    assert!(text.contains("ttl=63"), "{text}");
}

/// Access control: what the list denies does not pass, everything else does.
fn the_list_denies(s: &Scene) {
    let denied = || s.flows().iter().any(|f| f.contains("tp_dst=8080") && f.ends_with("actions=drop"));
    assert!(eventually(|| denied().then_some(())).is_some(), "Faucet installs no denial: {:#?}", s.flows());
    for to in [2, 4] {
        s.reaches(1, &address(to));
        assert!(s.connects(to, 8000), "port 8000 of host {to} is open");
        assert!(!s.connects(to, 8080), "port 8080 of host {to} is denied");
    }
    let counted = || {
        let f = s.flows();
        let denial = f.iter().find(|f| f.contains("tp_dst=8080"))?;
        (!denial.contains("n_packets=0,")).then_some(())
    };
    assert!(eventually(counted).is_some(), "the denial counts nothing: {:#?}", s.flows());
}

fn tutorial(ports: Ports) {
    let Some(s) = Scene::set(ports) else { return };
    vlans_are_apart(&s);
    assert!(s.connects(2, 8080), "nothing is denied yet");
    s.faucet.reload(&configuration(true, false));
    the_router_routes(&s);
    s.faucet.reload(&configuration(true, true));
    the_list_denies(&s);
    let log = s.faucet.log();
    // How it tells of an error message of the switch, and of its own mistakes.
    for bad in ["OFError", "Traceback"] {
        assert!(!log.contains(bad), "Faucet complains: {log}");
    }
}

#[test]
fn faucet_runs_the_nic() {
    tutorial(Ports::Nic);
}

#[test]
fn faucet_runs_packet_sockets() {
    tutorial(Ports::PacketSockets);
}
