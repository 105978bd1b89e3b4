//! A learning controller of the wild, os-ken, drives the switch: four hosts in network namespaces, the real vswitchd between
//! them, with its ports on the simulated NIC and on packet sockets. Needs root, and os-ken from `cargo xtask setup`; says so
//! and is skipped otherwise.

#![allow(clippy::unwrap_used)]

mod controller;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use controller::{Controller, PORT};
use lab::lan::{Lan, mac, unique, wire};
use lab::{Vswitchd, eventually};
use serde_json::{Value, json};

const HOSTS: u8 = 4;
/// Bytes of a ping's frame with ping's default payload.
const PING_BYTES: u64 = 98;
/// Longer than counters of hardware take to be seen: polled and credited every 100 ms.
const BETWEEN_POLLS: Duration = Duration::from_millis(600);
/// Longer than the test.
const LONG_S: u32 = 60;
/// Long enough for a few pings.
const SHORT_S: u32 = 3;

/// What the ports of the switch are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// On the simulated NIC.
    Nic,
    /// Packet sockets: nothing to hoist flows into.
    PacketSockets,
}

/// A flow entry of a dump: table, priority, match and actions.
type Entry = (u8, String, String);

/// Packets and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Count {
    packets: u64,
    bytes: u64,
}

/// Everything that runs. Says what happened when a test fails.
struct Scene {
    manager: PathBuf,
    ports: Ports,
    lan: Lan,
    switch: Vswitchd,
    controller: Option<Controller>,
}

fn configuration(ports: Ports) -> String {
    let mut c = String::new();
    if ports == Ports::Nic {
        let wires: Vec<_> = (1..=HOSTS).map(|n| format!("'af_packet:{}'", wire(n))).collect();
        c += &format!("[[device]]\nname = 'sim0'\ntype = 'sim'\nwires = [{}]\n", wires.join(", "));
    }
    c += &format!(
        "[[bridge]]\nname = 'br0'\ndatapath_id = '00000000000000e2'\ncontrollers = ['tcp:127.0.0.1:{PORT}']\n"
    );
    for n in 1..=HOSTS {
        let behind = match ports {
            Ports::Nic => format!("type = 'sim'\ndevice = 'sim0'\nport = {}", n - 1),
            Ports::PacketSockets => format!("type = 'af_packet'\ninterface = '{}'", wire(n)),
        };
        c += &format!("[[bridge.port]]\nname = 'p{n}'\nofport = {n}\n{behind}\n");
    }
    c
}

impl Scene {
    /// `None`, and a line that says why, where it cannot play.
    fn set(ports: Ports) -> Option<Scene> {
        let Some(manager) = lab::command::controller("HOIST_OSKEN_MANAGER", "osken-manager") else {
            println!("SKIP learning controller: os-ken is not installed; run `cargo xtask setup`");
            return None;
        };
        if let Err(e) = lab::lan::possible() {
            println!("SKIP learning controller: network namespaces cannot be made: {e:#}");
            return None;
        }
        let name = unique("hoist-learn");
        let lan = Lan::create(&name, HOSTS).unwrap();
        let programs = lab::vswitchd::built_programs().unwrap();
        let run_dir = std::env::temp_dir().join(&name);
        let switch = Vswitchd::start(&programs, &run_dir, &lan.switch(), &configuration(ports)).unwrap();
        let mut s = Scene { manager, ports, lan, switch, controller: None };
        s.start_controller(LONG_S);
        Some(s)
    }

    fn start_controller(&mut self, idle_s: u32) {
        let log = self.switch.run_dir().join(format!("controller-{idle_s}.log"));
        self.controller = Some(Controller::start(&self.manager, &self.lan.switch(), &log, idle_s));
    }

    fn controller(&self) -> &Controller {
        self.controller.as_ref().unwrap()
    }

    fn ping(&self, from: u8, to: u8, count: u32) {
        let got = self.lan.ping(from, to, count, Duration::from_millis(5)).unwrap();
        assert_eq!(got, count, "answers to pings from host {from} to host {to}");
    }

    /// Flow entries by `ovs-ofctl dump-flows`, with what they have counted.
    fn flows(&self) -> BTreeMap<Entry, Count> {
        let dump = self.switch.ofctl(&["dump-flows", "br0"]).unwrap();
        dump.lines().filter(|l| l.contains("actions=")).map(entry).collect()
    }

    /// The same once everything that was forwarded has been counted: hardware is polled now and then.
    fn flows_at_rest(&self) -> BTreeMap<Entry, Count> {
        let mut last = self.flows();
        let same = eventually(|| {
            std::thread::park_timeout(BETWEEN_POLLS);
            let now = self.flows();
            (now == std::mem::replace(&mut last, now.clone())).then_some(now)
        });
        same.unwrap_or_else(|| panic!("counters do not come to rest: {last:#?}"))
    }

    fn is_connected(&self) -> bool {
        let status = self.switch.hoist_json(&["status"]).unwrap();
        status.pointer("/bridges/0/controllers/0/connected").and_then(Value::as_bool).unwrap()
    }

    /// Flow records that hardware has of pings between two hosts: how many, and the packets it forwarded.
    fn in_hardware(&self, a: u8, b: u8) -> (usize, u64) {
        let mut sum = (0, 0);
        for (from, to) in [(a, b), (b, a)] {
            let filter = format!("icmp,dl_src={},dl_dst={}", mac(from), mac(to));
            let flows = self.switch.hoist_json(&["flows", "--hw", &filter]).unwrap();
            for f in flows.as_array().unwrap() {
                assert_eq!(f["placement"], "hardware", "{f}");
                sum = (sum.0 + 1, sum.1 + f["hardware_packets"].as_u64().unwrap());
            }
        }
        sum
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("-- vswitchd:\n{}", self.switch.log_tail());
            println!("-- flow entries:\n{}", self.switch.ofctl(&["dump-flows", "br0"]).unwrap_or_default());
            println!("-- flow records:\n{}", self.switch.hoist(&["flows"]).unwrap_or_default());
            println!("-- status:\n{}", self.switch.hoist(&["status"]).unwrap_or_default());
            let story = self.controller.as_ref().map(Controller::story).unwrap_or_default();
            println!("-- controller:\n{story}");
        }
    }
}

/// A line of ovs-ofctl's dump.
fn entry(line: &str) -> (Entry, Count) {
    // " cookie=0x0, duration=3.2s, table=0, n_packets=5, n_bytes=490, idle_timeout=60, send_flow_rem priority=10,in_port=1
    // actions=goto_table:1"
    let member = |name: &str| {
        let at = line.find(&format!("{name}=")).unwrap_or_else(|| panic!("no {name}: {line}"));
        line[at + name.len() + 1..].split([',', ' ']).next().unwrap()
    };
    let (before, actions) = line.split_once(" actions=").unwrap();
    let matches = before.rsplit_once(' ').unwrap().1;
    let entry = (member("table").parse().unwrap(), matches.to_owned(), actions.to_owned());
    let count =
        Count { packets: member("n_packets").parse().unwrap(), bytes: member("n_bytes").parse().unwrap() };
    (entry, count)
}

/// The entry that the controller makes when it has learned host `n`: its packets are no news.
fn source_entry(n: u8) -> Entry {
    (0, format!("priority=10,in_port={n},dl_src={}", mac(n)), "goto_table:1".to_owned())
}

/// The entry that forwards to host `n`.
fn destination_entry(n: u8) -> Entry {
    (1, format!("priority=10,dl_dst={}", mac(n)), format!("output:{n}"))
}

fn handshake(s: &Scene) {
    let features = s.controller().wait_for("features", |_| true);
    assert_eq!(features["dpid"], "00000000000000e2");
    assert_eq!(features["tables"], 254);
    let ports = s.controller().wait_for("ports", |_| true);
    // The bridge's own port comes last: OFPP_LOCAL.
    let local = json!([0xffff_fffe_u32, "br0"]);
    let expected: Vec<_> = (1..=HOSTS).map(|n| json!([n, format!("p{n}")])).chain([local]).collect();
    assert_eq!(ports["ports"], Value::from(expected));
    s.controller().wait_for("barrier", |_| true);
    assert!(eventually(|| s.is_connected().then_some(())).is_some(), "hoist status says so");
    assert_eq!(s.controller().events("error"), [] as [Value; 0]);
}

fn everybody_is_learned(s: &Scene) {
    for a in 1..=HOSTS {
        for b in (1..=HOSTS).filter(|b| *b != a) {
            s.ping(a, b, 1);
        }
    }
    let hosts: BTreeSet<_> = (1..=HOSTS).map(|n| (mac(n), u64::from(n))).collect();
    let learned = || -> BTreeSet<_> {
        let events = s.controller().events("learned");
        events.iter().map(|e| (e["mac"].as_str().unwrap().to_owned(), e["port"].as_u64().unwrap())).collect()
    };
    assert!(eventually(|| (learned() == hosts).then_some(())).is_some(), "{:?}", learned());
    let mut expected: BTreeSet<Entry> =
        (1..=HOSTS).flat_map(|n| [source_entry(n), destination_entry(n)]).collect();
    expected.insert((0, "priority=0".into(), "CONTROLLER:65535,goto_table:1".into()));
    expected.insert((1, "priority=0".into(), "FLOOD".into()));
    let there = || s.flows().into_keys().collect::<BTreeSet<_>>();
    assert!(eventually(|| (there() == expected).then_some(())).is_some(), "{:#?}", there());
}

/// What is known is forwarded without the controller, by the NIC where there is one, and counted to the packet.
fn known_hosts_need_no_controller(s: &Scene) {
    // From here on each packet is counted: no address resolution in between.
    s.lan.fix_neighbours().unwrap();
    s.ping(1, 2, 3);
    if s.ports == Ports::Nic {
        let placed = eventually(|| (s.in_hardware(1, 2).0 == 2).then_some(()));
        assert!(placed.is_some(), "both directions are in hardware:\n{}", s.switch.hoist(&["why"]).unwrap());
    }
    let before = s.flows_at_rest();
    let (hardware, learned) = (s.in_hardware(1, 2).1, s.controller().events("learned").len());

    s.ping(1, 2, 50);

    let mut expected = before.clone();
    for e in [source_entry(1), destination_entry(2), source_entry(2), destination_entry(1)] {
        let c = expected.get_mut(&e).unwrap();
        *c = Count { packets: c.packets + 50, bytes: c.bytes + 50 * PING_BYTES };
    }
    let counted = eventually(|| (s.flows() == expected).then_some(()));
    assert!(counted.is_some(), "expected {expected:#?}\ncounted {:#?}", s.flows());
    if s.ports == Ports::Nic {
        let by_nic = eventually(|| (s.in_hardware(1, 2).1 == hardware + 100).then_some(()));
        assert!(by_nic.is_some(), "the NIC forwarded {:?}, {hardware} before", s.in_hardware(1, 2));
    }
    let bytes = 1 << 20;
    let moved = lab::transfer::tcp(&s.lan, 3, 4, bytes).unwrap();
    assert!(moved.is_whole(bytes), "{moved:?}");
    assert_eq!(s.controller().events("learned").len(), learned, "nothing went to the controller");
}

fn ports_are_reported(s: &Scene) {
    // Bits of ofp_port_config and ofp_port_state (OpenFlow 1.3.5 7.2.1).
    let (port_down, link_down) = (1, 1);
    let bit = |e: &Value, member: &str, bit: u64| e[member].as_u64().unwrap() & bit != 0;
    let of_port = |n: u64| move |e: &Value| e["port"] == n && e["reason"] == 2;
    s.switch.ofctl(&["mod-port", "br0", "3", "down"]).unwrap();
    s.controller().wait_for("port-status", |e| of_port(3)(e) && bit(e, "config", port_down));
    assert_eq!(s.lan.ping(1, 3, 1, Duration::ZERO).unwrap(), 0, "a port that is down carries nothing");
    s.switch.ofctl(&["mod-port", "br0", "3", "up"]).unwrap();
    s.controller().wait_for("port-status", |e| of_port(3)(e) && !bit(e, "config", port_down));
    s.ping(1, 3, 2);

    s.lan.set_link(4, false).unwrap();
    s.controller().wait_for("port-status", |e| of_port(4)(e) && bit(e, "state", link_down));
    s.lan.set_link(4, true).unwrap();
    let last = || s.controller().events("port-status").into_iter().rfind(of_port(4));
    let up = eventually(|| last().filter(|e| !bit(e, "state", link_down)));
    assert!(up.is_some(), "{:?}", last());
    // The kernel forgets what it knew of neighbours when a link goes.
    s.lan.fix_neighbours().unwrap();
    s.ping(1, 4, 2);
}

/// Fail mode secure: what is known goes on without the controller, and the switch finds it again.
fn the_controller_may_die(s: &mut Scene) {
    s.controller.take().unwrap().kill();
    assert!(eventually(|| (!s.is_connected()).then_some(())).is_some(), "hoist status says that it is gone");
    let before = s.flows();
    s.ping(1, 2, 20);
    assert!(s.flows().keys().eq(before.keys()), "{:#?}", s.flows());
    s.start_controller(SHORT_S);
    handshake(s);
    s.ping(1, 2, 5);
    assert!(s.flows().keys().eq(before.keys()), "{:#?}", s.flows());
    assert_eq!(s.controller().events("learned"), [] as [Value; 0], "nothing has to be learned again");
}

/// Entries that go are reported with what they have counted.
fn removal_is_reported(s: &Scene) {
    let before = s.flows_at_rest();
    for n in 1..=HOSTS {
        s.switch.ofctl(&["del-flows", "br0", &format!("table=0,in_port={n},dl_src={}", mac(n))]).unwrap();
        s.switch.ofctl(&["del-flows", "br0", &format!("table=1,dl_dst={}", mac(n))]).unwrap();
        let told = s.controller().wait_for("flow-removed", |e| e["reason"] == 2 && e["port"] == n);
        assert_eq!((&told["mac"], &told["table"]), (&json!(mac(n)), &json!(0)));
        assert_eq!(told["packets"], before[&source_entry(n)].packets, "host {n}: {told}");
    }
    // Learned again, by the controller whose memory is short.
    s.ping(1, 2, 1);
    let there = eventually(|| {
        let f = s.flows();
        [1, 2]
            .iter()
            .all(|n| f.contains_key(&source_entry(*n)) && f.contains_key(&destination_entry(*n)))
            .then_some(())
    });
    assert!(there.is_some(), "{:#?}", s.flows());
    s.ping(1, 2, 10);
    let told = s.controller().wait_for("flow-removed", |e| e["reason"] == 0 && e["port"] == 1);
    assert_eq!((&told["mac"], &told["idle_s"]), (&json!(mac(1)), &json!(SHORT_S)));
    // The ping that was learned from may have been counted by the entry or been before it.
    let packets = told["packets"].as_u64().unwrap();
    assert!((10..=11).contains(&packets) && told["bytes"] == packets * PING_BYTES, "{told}");
    assert!(told["duration_s"].as_u64().unwrap() >= u64::from(SHORT_S), "{told}");
    assert!(!s.flows().contains_key(&source_entry(1)));
}

fn learns(ports: Ports) {
    let Some(mut s) = Scene::set(ports) else { return };
    handshake(&s);
    everybody_is_learned(&s);
    known_hosts_need_no_controller(&s);
    ports_are_reported(&s);
    the_controller_may_die(&mut s);
    removal_is_reported(&s);
    assert_eq!(s.controller().events("error"), [] as [Value; 0]);
}

#[test]
fn a_learning_controller_drives_the_nic() {
    learns(Ports::Nic);
}

#[test]
fn a_learning_controller_drives_packet_sockets() {
    learns(Ports::PacketSockets);
}
