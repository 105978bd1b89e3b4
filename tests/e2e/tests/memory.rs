//! The whole switch in one process, hosts in memory behind the simulated NIC, flows loaded by stock ovs-ofctl.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use daemon::report::Status;
use e2e::lan::{DEADLINE, FLOWS, Lan, Share, address, eventually};

struct Running {
    lan: Lan,
    _dir: tempfile::TempDir,
}

fn start(more: &str, flows: &[&str]) -> Running {
    let dir = tempfile::tempdir().unwrap();
    let lan = Lan::start(dir.path(), more).unwrap();
    lan.add_flows(flows).unwrap();
    Running { lan, _dir: dir }
}

impl Running {
    fn status(&self) -> Status {
        serde_json::from_str(&self.lan.command("hoist/status", &[]).unwrap()).unwrap()
    }

    /// Waits until `f` holds of the flows' share.
    fn share(&self, filter: &str, what: &str, f: impl Fn(&Share) -> bool) -> Share {
        let got = eventually(|| self.lan.share(filter).ok().filter(|s| f(s)));
        got.unwrap_or_else(|| {
            panic!(
                "{what}: {:?}\n{:#?}\n{}",
                self.lan.share(filter),
                self.lan.flows(filter),
                self.lan.command("hoist/sim", &[]).unwrap()
            )
        })
    }
}

#[test]
fn first_packets_go_through_software_and_the_rest_through_the_nic() {
    let r = start("", FLOWS);
    assert_eq!(r.lan.hosts[0].ping(address(2), 3, Duration::from_millis(50)).unwrap(), 3);
    let before = r.share("icmp", "both directions are placed", |s| {
        // All six counted, those of hardware too: they come a little later.
        (s.flows, s.in_hardware, s.packets) == (2, 2, 6)
    });
    assert!(before.packets > before.hardware, "{before:?}");
    let soft = r.status().datapath.rx_packets;
    assert_eq!(r.lan.hosts[0].ping(address(2), 100, Duration::ZERO).unwrap(), 100);
    let after = r.share("icmp", "all are counted", |s| s.packets >= before.packets + 200);
    assert_eq!(after.packets - before.packets, 200);
    assert_eq!(after.hardware - before.hardware, 200);
    assert_eq!(r.status().datapath.rx_packets, soft, "software saw none of them");
    // OpenFlow's counters, where a controller looks: 103 requests and 103 replies in each table.
    let dump = r.lan.ofctl(&["dump-flows", "br0", "table=0,ip"]).unwrap();
    assert!(dump.contains("n_packets=206, "), "{dump}");
}

#[test]
fn a_flow_removed_right_after_traffic_reports_what_hardware_forwarded() {
    let r = start("", FLOWS);
    let flow = "table=1,priority=900,icmp,nw_dst=10.77.0.2,cookie=0x5e,actions=output:2";
    r.lan.ofctl(&["add-flow", "br0", &format!("send_flow_rem,{flow}")]).unwrap();
    assert_eq!(r.lan.hosts[0].ping(address(2), 3, Duration::ZERO).unwrap(), 3);
    r.share("icmp", "both directions are placed", |s| s.in_hardware == 2);
    let mut monitor = std::process::Command::new("ovs-ofctl")
        .args(["-O", "OpenFlow13", "monitor", "br0", "65534"])
        .env("OVS_RUNDIR", r._dir.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // A visitor that wants asynchronous messages says so with a miss length.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(r.lan.hosts[0].ping(address(2), 1000, Duration::ZERO).unwrap(), 1000);
    r.lan.ofctl(&["--strict", "del-flows", "br0", "table=1,priority=900,icmp,nw_dst=10.77.0.2"]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    monitor.kill().unwrap();
    let out = monitor.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("cookie:0x5e"), "{said}");
    assert!(said.contains("pkts1003"), "{said}");
}

#[test]
fn a_flow_that_only_software_can_do_says_why_and_works() {
    let r = start("", FLOWS);
    assert_eq!(r.lan.hosts[0].ping(address(4), 5, Duration::from_millis(50)).unwrap(), 5);
    let report = r.lan.why("icmp,nw_src=10.77.0.1,nw_dst=10.77.0.4").unwrap();
    let why = report.flows.iter().find_map(|f| f.why.as_ref()).unwrap();
    assert_eq!((why.layer.as_str(), why.kind.as_str()), ("capabilities", "needs_software"));
    assert_eq!(why.action.as_deref(), Some("controller"));
    assert!(!why.remedy.is_empty());
    assert_eq!(report.flows[0].rules.last().unwrap().cookie, "0xbad");
    let all = r.lan.command("hoist/why", &[]).unwrap();
    assert!(all.contains("needs_software"), "{all}");
}

#[test]
fn a_changed_flow_takes_effect_before_the_barrier_reply() {
    let r = start("", FLOWS);
    assert_eq!(r.lan.hosts[0].ping(address(2), 3, Duration::ZERO).unwrap(), 3);
    r.share("icmp", "placed", |s| s.in_hardware == 2);
    // ovs-ofctl ends its changes with a barrier.
    r.lan.ofctl(&["mod-flows", "br0", "table=1,ip,nw_dst=10.77.0.2,actions=drop"]).unwrap();
    let seen = r.lan.hosts[1].received();
    assert!(r.lan.hosts[0].ping(address(2), 1, Duration::ZERO).unwrap() == 0);
    assert_eq!(r.lan.hosts[1].received(), seen, "not one packet more");
    r.lan.ofctl(&["mod-flows", "br0", "table=1,ip,nw_dst=10.77.0.2,actions=output:2"]).unwrap();
    assert_eq!(r.lan.hosts[0].ping(address(2), 3, Duration::ZERO).unwrap(), 3);
}

#[test]
fn a_device_that_stops_answering_is_reset_and_its_flows_come_back() {
    let r = start("", FLOWS);
    assert_eq!(r.lan.hosts[0].ping(address(2), 3, Duration::ZERO).unwrap(), 3);
    r.share("icmp", "placed", |s| s.in_hardware == 2);
    let nic = r.lan.switch.simulated("sim0").unwrap();
    nic.inject_failure(nic::Failure::SurpriseRemoval);
    let down = eventually(|| r.status().devices.iter().find(|d| !d.up).cloned());
    let down = down.expect("hoist status says that the device is down");
    assert!(!down.why_down.is_empty());
    r.share("icmp", "nothing is in hardware", |s| s.in_hardware == 0);
    let why = r.lan.why("icmp").unwrap();
    assert!(why.flows.iter().all(|f| f.why.as_ref().unwrap().kind == "device_down"), "{why:#?}");

    nic.repair();
    let up = eventually(|| r.status().devices.iter().find(|d| d.up && d.resets > 0).cloned());
    assert!(up.is_some(), "{:?}", r.status().devices);
    let again = eventually(|| (r.lan.hosts[0].ping(address(2), 1, Duration::ZERO).ok()? == 1).then_some(()));
    assert!(again.is_some(), "packets flow again");
    r.share("icmp", "placed again", |s| s.in_hardware == 2);
}

/// Makes the device fail in a way that a reset ends; packets and placement must be back by themselves.
fn recovers_from(failure: nic::Failure) {
    let r = start("", FLOWS);
    assert_eq!(r.lan.hosts[0].ping(address(2), 3, Duration::ZERO).unwrap(), 3);
    r.share("icmp", "placed", |s| s.in_hardware == 2);
    r.lan.switch.simulated("sim0").unwrap().inject_failure(failure);
    let back = eventually(|| r.status().devices.iter().find(|d| d.up && d.resets > 0).cloned());
    assert!(back.is_some(), "{failure:?}: {:?}", r.status().devices);
    let again = eventually(|| (r.lan.hosts[0].ping(address(2), 1, Duration::ZERO).ok()? == 1).then_some(()));
    assert!(again.is_some(), "{failure:?}: packets flow again");
    let before = r.share("icmp", "placed again", |s| s.in_hardware == 2);
    assert_eq!(r.lan.hosts[0].ping(address(2), 10, Duration::ZERO).unwrap(), 10);
    r.share("icmp", "hardware forwards again", |s| s.hardware >= before.hardware + 20);
}

#[test]
fn a_hanging_device_is_reset_by_itself() {
    recovers_from(nic::Failure::Hang);
}

#[test]
fn a_device_with_an_internal_error_is_reset_by_itself() {
    recovers_from(nic::Failure::Internal);
}

#[test]
fn an_operator_can_rehearse_a_failure_of_a_device() {
    let r = start("", FLOWS);
    assert_eq!(r.lan.hosts[0].ping(address(2), 3, Duration::ZERO).unwrap(), 3);
    let before = r.share("icmp", "placed", |s| s.in_hardware == 2);
    assert!(r.lan.command("hoist/sim-fail", &["sim9", "hang"]).unwrap_err().to_string().contains("sim0"));
    assert!(r.lan.command("hoist/sim-fail", &["sim0", "x"]).unwrap_err().to_string().contains("repair"));
    r.lan.command("hoist/sim-fail", &["sim0", "hang-for-good"]).unwrap();
    let down = eventually(|| r.status().devices.iter().find(|d| !d.up).cloned());
    assert!(down.is_some_and(|d| !d.why_down.is_empty()), "{:?}", r.status().devices);
    // While it is down, nothing is said to be in its tables.
    let offload = r.status().bridges[0].offload.clone();
    assert_eq!(offload.hardware_flows, 0, "{offload:?}");
    r.lan.command("hoist/sim-fail", &["sim0", "repair"]).unwrap();
    let again = eventually(|| (r.lan.hosts[0].ping(address(2), 1, Duration::ZERO).ok()? == 1).then_some(()));
    assert!(again.is_some(), "packets flow again");
    let after = r.share("icmp", "placed again", |s| s.in_hardware == 2);
    assert!(after.hardware >= before.hardware, "counters do not go back");
}

#[test]
fn reports_do_not_wait_for_a_device_that_hangs() {
    let r = start("", FLOWS);
    assert_eq!(r.lan.hosts[0].ping(address(2), 3, Duration::ZERO).unwrap(), 3);
    r.share("icmp", "placed", |s| s.in_hardware == 2);
    r.lan.command("hoist/sim-fail", &["sim0", "hang-for-good"]).unwrap();
    let mut slowest = [Duration::ZERO; 3];
    let mut down = 0;
    let began = Instant::now();
    let looking = || began.elapsed() < Duration::from_secs(3);
    std::thread::scope(|s| {
        // Barriers that wait, as many as there are threads for sockets, and one more.
        for n in 0..3 {
            let lan = &r.lan;
            s.spawn(move || {
                while looking() {
                    lan.ofctl(&["add-flow", "br0", &format!("priority=9,udp,tp_dst={n},actions=drop")])
                        .unwrap();
                }
            });
        }
        while looking() {
            let t = Instant::now();
            let status = r.status();
            slowest[0] = slowest[0].max(t.elapsed());
            down += usize::from(!status.devices[0].up);
            let t = Instant::now();
            r.lan.flows("icmp").unwrap();
            slowest[1] = slowest[1].max(t.elapsed());
            let t = Instant::now();
            r.lan.ofctl(&["dump-flows", "br0"]).unwrap();
            slowest[2] = slowest[2].max(t.elapsed());
        }
    });
    println!("slowest of status, flows, dump-flows: {slowest:?}, {down} times down");
    assert!(down > 0, "it is known by then");
    // What waits for the device takes more than 600 ms; the rest is room for a machine with other work to do.
    assert!(slowest.iter().all(|t| *t < Duration::from_millis(400)), "{slowest:?}");
    r.lan.command("hoist/sim-fail", &["sim0", "repair"]).unwrap();
    let again = eventually(|| (r.lan.hosts[0].ping(address(2), 1, Duration::ZERO).ok()? == 1).then_some(()));
    assert!(again.is_some(), "packets flow again");
    r.share("icmp", "placed again", |s| s.in_hardware == 2);
}

#[test]
fn a_bridge_without_offload_stays_in_software() {
    let r = start("[offload]\nenabled = false\n", FLOWS);
    assert_eq!(r.lan.hosts[0].ping(address(2), 20, Duration::ZERO).unwrap(), 20);
    let s = r.lan.share("icmp").unwrap();
    assert_eq!((s.flows, s.in_hardware, s.hardware), (2, 0, 0));
    let why = r.lan.why("icmp").unwrap();
    assert!(why.flows.iter().all(|f| f.why.as_ref().unwrap().kind == "disabled"), "{why:#?}");
}

#[test]
fn a_transfer_survives_flows_being_replaced_under_it() {
    let r = start("", FLOWS);
    let data: Vec<u8> = (0..200_000u32).map(|i| (i * 13 + i / 300) as u8).collect();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        let changing = s.spawn(|| {
            let mut changes = 0;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // Between two equivalent actions: with and without a rewrite to the same address.
                let rewrite = if changes % 2 == 0 { "mod_nw_dst:10.77.0.4," } else { "" };
                let flow = format!("table=1,ip,nw_dst=10.77.0.4,actions={rewrite}output:4");
                r.lan.ofctl(&["mod-flows", "br0", &flow]).unwrap();
                changes += 1;
            }
            changes
        });
        r.lan.hosts[2].transfer(address(4), 5001, &data, DEADLINE).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(changing.join().unwrap() > 0);
    });
    assert_eq!(r.lan.hosts[3].accepted(5001, DEADLINE), Some(data));
    assert!(r.lan.hosts.iter().all(|h| h.damaged() == 0));
}

#[test]
fn a_switch_can_be_started_again_where_one_was_shut_down() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let lan = Lan::start(dir.path(), "").unwrap();
        lan.add_flows(FLOWS).unwrap();
        assert_eq!(lan.hosts[0].ping(address(2), 1, Duration::ZERO).unwrap(), 1);
        lan.switch.shutdown();
        assert!(!dir.path().join("br0.mgmt").exists() && !dir.path().join("vswitchd.pid").exists());
    }
}

#[test]
fn malformed_frames_are_counted_by_reason() {
    let r = start("", FLOWS);
    let mut bad_length =
        flow::frame::FrameBuilder::new().ipv4([10, 77, 0, 3], [10, 77, 0, 4]).udp(1, 2).build();
    // IPv4 total length beyond the frame.
    bad_length[16..18].copy_from_slice(&[0xff, 0xff]);
    let mut cut = flow::frame::FrameBuilder::new().ipv4([10, 77, 0, 3], [10, 77, 0, 4]).tcp(1, 2).build();
    cut.truncate(14 + 20 + 7);
    cut[16..18].copy_from_slice(&27u16.to_be_bytes());
    r.lan.hosts[2].send(bad_length);
    r.lan.hosts[2].send(cut);
    let seen = eventually(|| {
        let m = r.status().datapath.malformed;
        (m.get("ipv4_malformed") == Some(&1) && m.get("transport_malformed") == Some(&1)).then_some(())
    });
    assert!(seen.is_some(), "{:?}", r.status().datapath);
}

/// A firewall: host 3 may open connections to host 4, and only what is established is forwarded.
const FIREWALL: &[&str] = &[
    "table=0,priority=100,arp,actions=FLOOD",
    "table=0,priority=50,ip,ct_state=-trk,actions=ct(table=1,zone=7)",
    "table=1,cookie=0x1,priority=10,ip,ct_state=+trk+new,nw_dst=10.77.0.4,actions=ct(commit,zone=7),output:4",
    "table=1,cookie=0x2,priority=10,ip,ct_state=+trk+est,nw_dst=10.77.0.4,actions=output:4",
    "table=1,cookie=0x3,priority=10,ip,ct_state=+trk+est,nw_dst=10.77.0.3,actions=output:3",
];

#[test]
fn established_connections_of_stock_ct_rules_are_the_nics() {
    let r = start("", FIREWALL);
    let data: Vec<u8> = (0..2_000_000u32).map(|i| (i * 13 + i / 1009) as u8).collect();
    let send = |port: u16| {
        r.lan.hosts[2].transfer(address(4), port, &data, DEADLINE).unwrap();
        assert!(r.lan.hosts[3].accepted(port, DEADLINE).is_some_and(|d| d == data));
    };
    // The device does not look at sequence numbers, so that software, which does, keeps TCP.
    send(5001);
    assert_eq!(r.share("tcp", "software keeps it", |s| s.packets > 2000).hardware, 0);
    let why = r.lan.why("tcp").unwrap().flows.into_iter().filter_map(|f| f.why);
    let why: Vec<_> = why.filter(|w| w.kind == "no_connections").collect();
    assert!(
        !why.is_empty() && why.iter().all(|w| w.text.contains("dpctl/ct-disable-tcp-seq-chk")),
        "{why:?}"
    );
    assert_eq!(r.status().datapath.connections.stayed.values().sum::<u64>(), 1);

    r.lan.command("dpctl/ct-disable-tcp-seq-chk", &[]).unwrap();
    // Records about connections go to the device once it has one; until then and for the connection's begin they are software's.
    let many = eventually(|| {
        let port = 5002 + (r.status().datapath.connections.handed_over as u16).min(1000);
        send(port);
        (r.share("tcp", "counted", |_| true).hardware > 3000).then_some(())
    });
    assert!(many.is_some(), "{:#?} {:#?}", r.status().datapath, r.lan.flows("tcp"));
    let c = eventually(|| Some(r.status().datapath.connections).filter(|c| c.in_hardware == 0)).unwrap();
    assert!(c.handed_over >= 1 && c.taken_back == c.handed_over && c.packets > 1500, "{c:?}");
    // Each packet passed the rule that looks up and the one behind, whoever forwarded it.
    let counted = |match_: &str| {
        let dump = r.lan.ofctl(&["dump-flows", "br0", match_]).unwrap();
        let n = |l: &str| l.split("n_packets=").nth(1)?.split(',').next()?.parse::<u64>().ok();
        dump.lines().filter_map(n).sum::<u64>()
    };
    let equal =
        eventually(|| (counted("table=0,ip") == counted("table=1,ip")).then(|| counted("table=1,ip")));
    let all = r.share("tcp", "all are counted", |s| s.packets == 2 * equal.unwrap_or(0));
    assert!(all.hardware > 3000, "{all:?}");
    let text = r.lan.command("dpctl/dump-conntrack", &["zone=7"]).unwrap();
    assert!(text.contains("protoinfo=(state="), "{text}");
}
