//! Stock `ovs-ofctl -O OpenFlow13` against the real process: every command it offers for OpenFlow 1.3 flows and ports.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::{Daemon, eventually, require};

/// A bridge with two ports that lead between files and one in memory.
const BRIDGE: &str = "\
[[bridge]]
name = \"br0\"
datapath_id = \"00000000000000aa\"
[[bridge.port]]
name = \"in\"
ofport = 1
type = \"pcap\"
out = \"{dir}/in.pcap\"
[[bridge.port]]
name = \"out\"
ofport = 2
type = \"pcap\"
out = \"{dir}/out.pcap\"
[[bridge.port]]
name = \"mem\"
ofport = 7
type = \"memory\"
";

fn start() -> Daemon {
    require("ovs-ofctl");
    Daemon::start(BRIDGE)
}

/// The flows of a dump, without what changes from run to run.
fn flows(dump: &str) -> Vec<String> {
    let lines = dump.lines().filter(|l| l.contains("actions="));
    let mut v: Vec<_> = lines
        .map(|l| {
            let parts =
                l.trim().split(", ").filter(|p| !p.starts_with("duration=") && !p.starts_with("cookie=0x0"));
            parts.collect::<Vec<_>>().join(", ")
        })
        .collect();
    v.sort();
    v
}

#[test]
fn show_describes_switch_and_ports() {
    let mut d = start();
    let show = d.ofctl(&["show", "br0"]);
    assert!(show.contains("dpid:00000000000000aa"), "{show}");
    for port in ["1(in): addr:", "2(out): addr:", "7(mem): addr:"] {
        assert!(show.contains(port), "{show}");
    }
    let desc = d.ofctl(&["dump-ports-desc", "br0"]);
    assert_eq!(desc.matches("addr:").count(), 4, "the ports and LOCAL: {desc}");
    // By path as well as by name.
    let path = format!("unix:{}", d.path("br0.mgmt").display());
    assert!(d.ofctl(&["show", &path]).contains("dpid:00000000000000aa"));
    let ports = d.ofctl(&["dump-ports", "br0"]);
    assert!(ports.contains("4 ports") && ports.contains("port  7: rx pkts=0"), "{ports}");
    assert!(d.ofctl(&["dump-ports", "br0", "2"]).contains("1 ports"));
}

#[test]
fn flows_are_added_modified_dumped_and_deleted() {
    let mut d = start();
    d.ofctl(&["add-flow", "br0", "table=0,priority=10,ip,nw_dst=10.0.0.0/8,actions=goto_table:1"]);
    let file = d.path("flows.txt");
    std::fs::write(
        &file,
        "# two flows\ntable=1,cookie=0x5,tcp,tp_dst=80,actions=output:2\ntable=1,cookie=0x6,udp,actions=mod_nw_tos:32,output:7\n",
    )
    .unwrap();
    d.ofctl(&["add-flows", "br0", file.to_str().unwrap()]);
    assert_eq!(
        flows(&d.ofctl(&["dump-flows", "br0"])),
        [
            "cookie=0x5, table=1, n_packets=0, n_bytes=0, tcp,tp_dst=80 actions=output:2",
            "cookie=0x6, table=1, n_packets=0, n_bytes=0, udp actions=set_field:8->ip_dscp,output:7",
            "table=0, n_packets=0, n_bytes=0, priority=10,ip,nw_dst=10.0.0.0/8 actions=goto_table:1",
        ]
    );
    d.ofctl(&["mod-flows", "br0", "table=1,tcp,actions=drop"]);
    let one = d.ofctl(&["dump-flows", "br0", "table=1,tcp"]);
    assert_eq!(flows(&one), ["cookie=0x5, table=1, n_packets=0, n_bytes=0, tcp,tp_dst=80 actions=drop"]);
    d.ofctl(&["del-flows", "br0", "cookie=0x6/-1"]);
    assert_eq!(flows(&d.ofctl(&["dump-flows", "br0"])).len(), 2);
    let aggregate = d.ofctl(&["dump-aggregate", "br0"]);
    assert!(aggregate.contains("flow_count=2"), "{aggregate}");
    d.ofctl(&["--strict", "del-flows", "br0", "table=1,tcp,tp_dst=80"]);
    d.ofctl(&["del-flows", "br0"]);
    assert!(flows(&d.ofctl(&["dump-flows", "br0"])).is_empty());
}

#[test]
fn tables_count_their_flows() {
    let mut d = start();
    d.ofctl(&["add-flow", "br0", "table=3,in_port=1,actions=output:2"]);
    let tables = d.ofctl(&["dump-tables", "br0"]);
    let at = tables.find("table 3").unwrap_or_else(|| panic!("{tables}"));
    assert!(tables[at..].lines().nth(1).unwrap().contains("active=1"), "{tables}");
    let features = d.ofctl(&["dump-table-features", "br0"]);
    // The tool says once what tables have in common.
    assert!(features.contains("tables 1...252: ditto") && features.contains("table 253:"), "{features}");
}

#[test]
fn a_refused_change_names_the_error_and_changes_nothing() {
    let mut d = start();
    let o = d.tool("ovs-ofctl".as_ref(), &["-O", "OpenFlow13", "add-flow", "br0", "actions=group:7"]);
    assert!(!o.status.success());
    let words = String::from_utf8_lossy(&o.stderr).into_owned();
    assert!(words.contains("OFPT_ERROR") && words.contains("OFPB"), "{words}");
    assert!(flows(&d.ofctl(&["dump-flows", "br0"])).is_empty());
}

#[test]
fn packet_out_leaves_through_the_ports_it_names_and_by_the_tables() {
    let mut d = start();
    let frame = format!("{:0<120}", "0200000000020200000000010800");
    d.ofctl(&["packet-out", "br0", &format!("in_port=LOCAL packet={frame} actions=output:2")]);
    d.ofctl(&["add-flow", "br0", "dl_type=0x0800,actions=output:1"]);
    d.ofctl(&["packet-out", "br0", &format!("in_port=7 packet={frame} actions=TABLE")]);
    let sent = |d: &mut Daemon, port: &str| {
        let line = d.ofctl(&["dump-ports", "br0", port]);
        let tx = line.split("tx pkts=").nth(1).unwrap().split(',').next().unwrap().to_owned();
        tx.parse::<u64>().unwrap()
    };
    eventually("both packets have left", || (sent(&mut d, "2") == 1 && sent(&mut d, "1") == 1).then_some(()));
    let counted = eventually("the flow has counted it", || {
        let dump = d.ofctl(&["dump-flows", "br0"]);
        dump.contains("n_packets=1, n_bytes=60").then_some(dump)
    });
    assert_eq!(flows(&counted).len(), 1);
}

#[test]
fn a_monitor_hears_packet_ins() {
    let mut d = start();
    d.ofctl(&["add-flow", "br0", "actions=controller"]);
    let mut monitor = Command::new("ovs-ofctl")
        .args(["-O", "OpenFlow13", "monitor", "br0", "65534"])
        .env("OVS_RUNDIR", d.dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let err = BufReader::new(monitor.stderr.take().unwrap());
    let (tx, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || err.lines().map_while(Result::ok).for_each(|l| drop(tx.send(l))));
    let frame = format!("{:0<120}", "0200000000020200000000010800");
    // The monitor may not have asked yet: packets are sent until one is heard.
    let heard = eventually("a packet-in", || {
        d.ofctl(&["packet-out", "br0", &format!("in_port=7 packet={frame} actions=TABLE")]);
        lines.try_iter().find(|l| l.contains("PACKET_IN2"))
    });
    let _ = monitor.kill();
    let _ = monitor.wait();
    assert!(heard.contains("in_port=7") && heard.contains("total_len=60"), "{heard}");
}

#[test]
fn datapath_flows_are_dumped_in_open_vswitchs_form() {
    let mut d = start();
    d.ofctl(&["add-flow", "br0", "in_port=7,ip,actions=output:2"]);
    let trace = d.appctl(&["ofproto/trace", "br0", "in_port=7,tcp,nw_dst=10.0.0.1"]);
    assert!(trace.contains(" 0. ip,in_port=7, priority 32768"), "{trace}");
    assert!(trace.trim_end().ends_with("Datapath actions: 2"), "{trace}");
    assert!(trace.contains("\n    output:") && !trace.contains("PortNo"), "{trace}");
    assert!(trace.contains("Hardware: software: "), "{trace}");
    let unknown = d.tool(
        "ovs-appctl".as_ref(),
        &["-t", d.control_socket().to_str().unwrap(), "ofproto/trace", "nobr", "in_port=1"],
    );
    assert!(!unknown.status.success(), "there is no such bridge");
    let dump = d.appctl(&["dpctl/dump-flows"]);
    assert_eq!(dump, "", "no packet has come in yet");
}

#[test]
fn standalone_bridges_without_controllers_switch_by_learning() {
    require("ovs-ofctl");
    let mut d = Daemon::start("[[bridge]]\nname = 'br0'\nfail_mode = 'standalone'\n");
    let dump = d.ofctl(&["dump-flows", "br0"]);
    assert!(flows(&dump)[0].ends_with("priority=0 actions=NORMAL"), "{dump}");
}

#[test]
fn a_passive_tcp_listener_serves_openflow() {
    require("ovs-ofctl");
    let mut d = Daemon::start("[[bridge]]\nname = 'br0'\nlisten = ['ptcp:0:127.0.0.1']\n");
    let status: serde_json::Value = serde_json::from_str(&d.appctl(&["hoist/status"])).unwrap();
    let listen = status["bridges"][0]["listen"][1].as_str().unwrap();
    let port = listen.split(':').nth(1).unwrap();
    assert_ne!(port, "0", "{listen}");
    assert!(d.ofctl(&["show", &format!("tcp:127.0.0.1:{port}")]).contains("OFPT_FEATURES_REPLY"));
}
