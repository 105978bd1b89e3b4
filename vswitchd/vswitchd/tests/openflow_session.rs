//! Connections as they should be: roles, asynchronous messages, reconnecting, and stock `ovs-ofctl` against the real
//! OpenFlow layer.
#![allow(clippy::unwrap_used)]

mod peer;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, HostClock, ManualClock};
use daemon::signals::stop_channel;
use daemon::{Listener, Passive};
use flow::{FieldId, PipelineMatch, PortId};
use ofproto::{Bridge, BridgeConfig, Port};
use openflow::error::*;
use openflow::message::*;
use openflow::number::*;
use openflow::switch::ControllerSink;
use openflow::version::VersionSet;
use openflow::wire::hello;
use openflow::{FlowMod, FlowModCommand, Message, Version};
use peer::{Client, DEADLINE, Rig, ToySwitch};
use tokio::net::UnixListener;
use vswitchd::controller::{Hub, Limits, PeerKind, connect_to, listen_in};

fn packet_in(reason: PacketInReason, len: usize) -> PacketIn {
    let mut matches = PipelineMatch::ANY;
    matches.set(FieldId::InPort, 3);
    PacketIn {
        buffer: None,
        total_len: len as u16,
        reason,
        table: TableId(0),
        cookie: 9,
        matches,
        data: vec![0xab; len],
        controller_id: 0,
        userdata: Vec::new(),
        continuation: None,
    }
}

async fn toy() -> Rig {
    Rig::new(Limits::default(), Arc::new(ToySwitch::default())).await
}

async fn set_miss_len(c: &mut Client, miss_send_len: u16) {
    c.send(Message { xid: 1, body: Body::SetConfig(SwitchConfig { frag: 0, miss_send_len }) }).await;
    assert!(c.is_alive().await);
}

#[tokio::test]
async fn a_visitor_gets_packet_ins_once_it_sets_a_miss_length_and_cut_to_it() {
    let rig = toy().await;
    let mut c = rig.client().await;
    rig.hub.packet_in(packet_in(PacketInReason::NoMatch, 500));
    assert!(c.is_alive().await, "no packet-in comes first");
    set_miss_len(&mut c, 64).await;
    rig.hub.packet_in(packet_in(PacketInReason::NoMatch, 500));
    rig.hub.packet_in(packet_in(PacketInReason::Action, 500));
    rig.hub.packet_in(packet_in(PacketInReason::InvalidTtl, 500));
    for (reason, len) in [(PacketInReason::NoMatch, 64), (PacketInReason::Action, 500)] {
        let Message { xid: 0, body: Body::PacketIn(p) } = c.receive().await else { panic!("no packet-in") };
        assert_eq!((p.reason, p.data.len(), p.total_len), (reason, len, 500));
        assert_eq!(p.matches.get(FieldId::InPort).0, 3);
    }
    assert!(c.is_alive().await, "invalid TTL is not wanted");
    let counters = rig.hub.counters();
    assert_eq!((counters.packet_ins, counters.packet_ins_unwanted), (2, 2));
}

#[tokio::test]
async fn asynchronous_messages_follow_the_configuration_of_each_connection() {
    let rig = toy().await;
    let (mut a, mut b) = (rig.client().await, rig.client().await);
    set_miss_len(&mut a, 100).await;
    set_miss_len(&mut b, 100).await;
    let only_ttl = AsyncConfig {
        packet_in: [0b100, 0],
        port_status: [0, 0],
        flow_removed: [0, 0],
        ..AsyncConfig::default()
    };
    a.send(Message { xid: 1, body: Body::SetAsync(only_ttl) }).await;
    assert_eq!(a.ask(2, Body::GetAsyncRequest).await, Body::GetAsyncReply(only_ttl));
    assert_eq!(b.ask(2, Body::GetAsyncRequest).await, Body::GetAsyncReply(AsyncConfig::of(Version::V13)));
    rig.hub.packet_in(packet_in(PacketInReason::Action, 10));
    rig.hub.packet_in(packet_in(PacketInReason::InvalidTtl, 20));
    let Body::PacketIn(p) = a.receive().await.body else { panic!("no packet-in") };
    assert_eq!(p.reason, PacketInReason::InvalidTtl);
    let Body::PacketIn(p) = b.receive().await.body else { panic!("no packet-in") };
    assert_eq!(p.reason, PacketInReason::Action);
    assert!(a.is_alive().await && b.is_alive().await);
}

#[tokio::test]
async fn a_slave_may_look_but_not_touch() {
    let rig = toy().await;
    let (mut a, mut b) = (rig.client().await, rig.client().await);
    let role =
        |role, generation_id| Body::RoleRequest(RoleMessage { role, generation_id: Some(generation_id) });
    assert_eq!(
        a.ask(1, role(Role::Master, 1)).await,
        Body::RoleReply(RoleMessage { role: Role::Master, generation_id: Some(1) })
    );
    assert_eq!(
        b.ask(1, role(Role::Master, 2)).await,
        Body::RoleReply(RoleMessage { role: Role::Master, generation_id: Some(2) })
    );
    // The older master is a slave now, and told so.
    assert!(matches!(a.receive().await.body, Body::RoleStatus { role: Role::Slave, .. }));
    let Body::Error(e) = a.ask(5, Body::FlowMod(Box::new(FlowMod::new(FlowModCommand::Add)))).await else {
        panic!("a slave changed the switch")
    };
    assert_eq!(e.code, BadRequest::IsSlave.into());
    assert!(matches!(a.ask(6, Body::FeaturesRequest).await, Body::FeaturesReply(_)));
    let Body::Error(e) = a.ask(7, role(Role::Master, 1)).await else { panic!("a stale master") };
    assert_eq!(e.code, RoleRequestFailed::Stale.into());
}

#[tokio::test]
async fn a_silent_peer_is_probed_and_stays_while_it_answers() {
    let limits = Limits { local_probe: Limits::default().probe, ..Limits::default() };
    let rig = Rig::new(limits, Arc::new(ToySwitch::default())).await;
    let mut c = rig.client().await;
    // Our hello has been heard, too: silence is counted from there.
    assert!(c.is_alive().await);
    for _ in 0..3 {
        rig.clock.advance(Duration::from_secs(5));
        let probe = c.receive().await;
        assert_eq!(probe.body, Body::EchoRequest(Vec::new()));
        c.send(Message { xid: probe.xid, body: Body::EchoReply(Vec::new()) }).await;
        assert!(c.is_alive().await);
    }
    rig.clock.advance(Duration::from_secs(5));
    assert_eq!(c.receive().await.body, Body::EchoRequest(Vec::new()));
    rig.clock.advance(Duration::from_secs(5));
    assert!(c.next().await.is_none(), "no answer to the probe ends the connection");
    rig.until("the end counted", |h| h.counters().disconnects.iter().sum::<u64>() == 1).await;
}

#[tokio::test]
async fn a_controller_is_connected_to_again_after_it_goes() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("controller");
    let clock: Arc<dyn Clock> = Arc::new(HostClock::new());
    let limits =
        Limits { backoff: (Duration::from_millis(1), Duration::from_millis(8)), ..Limits::default() };
    let hub = Hub::new("br0", limits, clock);
    let (stop, stopped) = stop_channel();
    let mut connected = hub.connected_controllers();
    let target = format!("unix:{}", socket.display());
    // Nobody listens yet.
    let task = tokio::spawn(connect_to(
        Arc::clone(&hub),
        Arc::new(ToySwitch::default()),
        target.parse().unwrap(),
        daemon::Tls::new(daemon::TlsFiles::default()),
        Default::default(),
        stopped,
    ));
    let listener = UnixListener::bind(&socket).unwrap();
    for _ in 0..3 {
        let (stream, _) = tokio::time::timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
        let mut c = Client::of(stream);
        assert!(matches!(c.receive().await.body, Body::Hello(_)));
        c.send(hello(1, VersionSet::up_to(4))).await;
        assert!(c.is_alive().await);
        connected.wait_for(|n| *n == 1).await.unwrap();
        assert_eq!(hub.connections()[0].1, PeerKind::Controller);
        assert!(hub.targets()[&target].connected);
        // A controller hears of misses without asking, 128 bytes of them.
        hub.packet_in(packet_in(PacketInReason::NoMatch, 500));
        let Body::PacketIn(p) = c.receive().await.body else { panic!("no packet-in") };
        assert_eq!(p.data.len(), 128);
        drop(c);
        connected.wait_for(|n| *n == 0).await.unwrap();
    }
    stop.stop();
    tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
    assert!(hub.targets().is_empty());
}

#[tokio::test]
async fn who_listens_in_is_shown_both_ways_of_the_connection_to_the_controller() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, snoop) = (dir.path().join("controller"), dir.path().join("br0.snoop"));
    let hub = Hub::new("br0", Limits::default(), Arc::new(HostClock::new()));
    let (stop, stopped) = stop_channel();
    let listener = UnixListener::bind(&socket).unwrap();
    let ears = Listener::bind(&Passive::Unix(snoop.clone()), 0).await.unwrap();
    tokio::spawn(listen_in(Arc::clone(&hub), ears, stopped.clone()));
    // Without a controller there is nothing to hear.
    assert!(Client::open(&snoop).await.next().await.is_none());
    let task = tokio::spawn(connect_to(
        Arc::clone(&hub),
        Arc::new(ToySwitch::default()),
        format!("unix:{}", socket.display()).parse().unwrap(),
        daemon::Tls::new(daemon::TlsFiles::default()),
        Default::default(),
        stopped,
    ));
    let (stream, _) = tokio::time::timeout(DEADLINE, listener.accept()).await.unwrap().unwrap();
    let mut controller = Client::of(stream);
    assert!(matches!(controller.receive().await.body, Body::Hello(_)));
    // It may come before the two have agreed on a version.
    let mut ear = Client::open(&snoop).await;
    ear.send(hello(1, VersionSet::up_to(4))).await;
    assert!(matches!(ear.receive().await.body, Body::Hello(_)));
    controller.send(hello(1, VersionSet::up_to(4))).await;
    assert!(matches!(controller.ask(7, Body::FeaturesRequest).await, Body::FeaturesReply(_)));
    let (asked, told) = (ear.receive().await, ear.receive().await);
    assert!(matches!((asked.xid, asked.body), (7, Body::FeaturesRequest)));
    assert!(matches!((told.xid, told.body), (7, Body::FeaturesReply(_))));
    hub.packet_in(packet_in(PacketInReason::Action, 60));
    assert!(matches!(ear.receive().await.body, Body::PacketIn(_)));
    // What it says itself is heard by nobody.
    assert!(matches!(controller.receive().await.body, Body::PacketIn(_)));
    ear.send(Message { xid: 9, body: Body::BarrierRequest }).await;
    assert!(controller.is_alive().await);
    assert!(matches!(ear.receive().await.body, Body::EchoRequest(_)));
    stop.stop();
    tokio::time::timeout(DEADLINE, task).await.unwrap().unwrap();
}

/// A real bridge with two ports behind a socket.
async fn bridge() -> (Rig, Arc<Bridge>, Arc<ofproto::Switch>) {
    let clock = Arc::new(ManualClock::new());
    let switch = ofproto::Switch::new(Arc::clone(&clock) as _, ofproto::SwitchConfig::default());
    let bridge = switch.add_bridge(BridgeConfig::new("br0", 0x0000_0200_0000_0001));
    for n in 1..=2u8 {
        let mac = MacAddr([2, 0, 0, 0, 0, n]);
        bridge.put_port(Port::new(PortNo(n.into()), PortId(n.into()), &format!("p{n}"), mac));
    }
    let hub = Hub::new("br0", Limits::default(), Arc::clone(&clock) as Arc<dyn Clock>);
    bridge.set_controllers(Arc::clone(&hub) as _);
    let rig = Rig::with(hub, clock, Arc::clone(&bridge) as _).await;
    (rig, bridge, switch)
}

/// Output of stock `ovs-ofctl -O OpenFlow13`: whether it succeeded, stdout and stderr. `None` when it is missing.
async fn ofctl(
    socket: &Path,
    command: &str,
    args: &[&str],
    input: Option<String>,
) -> Option<(bool, String, String)> {
    let mut c = Command::new("timeout");
    c.args(["-k", "1", "60", "ovs-ofctl", "-O", "OpenFlow13"]);
    c.args(command.split(' ')).arg(format!("unix:{}", socket.display())).args(args);
    let run = move || -> Option<(bool, String, String)> {
        if Command::new("ovs-ofctl").arg("--version").output().is_err() {
            eprintln!("SKIPPED: stock ovs-ofctl is not installed");
            return None;
        }
        let mut file = tempfile::tempfile().unwrap();
        if let Some(text) = input {
            use std::io::{Seek, Write};
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
        }
        let out = c.stdin(file).output().unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Some((out.status.success(), text(&out.stdout), text(&out.stderr)))
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

macro_rules! ok {
    ($rig:expr, $command:expr, $args:expr) => {
        ok!($rig, $command, $args, None)
    };
    ($rig:expr, $command:expr, $args:expr, $input:expr) => {
        match ofctl(&$rig.socket, $command, $args as &[&str], $input).await {
            None => return,
            Some((true, out, _)) => out,
            Some((false, out, err)) => panic!("{}: {out}{err}", $command),
        }
    };
}

#[tokio::test]
async fn stock_ovs_ofctl_adds_changes_dumps_and_deletes_flows() {
    let (rig, _bridge, _switch) = bridge().await;
    ok!(
        rig,
        "add-flow",
        &["table=0,priority=10,cookie=0x5,tcp,nw_dst=10.0.0.0/8,tp_dst=80,actions=dec_ttl,output:2"]
    );
    ok!(
        rig,
        "add-flow",
        &[
            "priority=5,in_port=1,dl_vlan=7,idle_timeout=60,actions=strip_vlan,set_field:00:00:00:00:00:09->eth_dst,goto_table:3"
        ]
    );
    ok!(rig, "add-flow", &["table=3,actions=write_actions(output:1),write_metadata:0x5/0xf"]);
    ok!(
        rig,
        "add-flow",
        &["table=4,ipv6,actions=load:0x7->NXM_NX_REG0[0..7],resubmit(,5),controller(max_len=128)"]
    );
    let dump = ok!(rig, "--no-stats dump-flows", &[]);
    for want in [
        "cookie=0x5, priority=10,tcp,nw_dst=10.0.0.0/8,tp_dst=80 actions=dec_ttl,output:2",
        "idle_timeout=60, priority=5,in_port=1,dl_vlan=7 actions=pop_vlan,set_field:00:00:00:00:00:09->eth_dst,goto_table:3",
        "table=3, actions=write_actions(output:1),write_metadata:0x5/0xf",
        "table=4, ipv6 actions=load:0x7->NXM_NX_REG0[0..7],resubmit(,5),CONTROLLER:128",
    ] {
        let plain = dump.replace("\"p1\"", "1").replace("\"p2\"", "2").replace("p1", "1").replace("p2", "2");
        assert!(plain.contains(want), "want {want}\nin {plain}");
    }
    let one = ok!(rig, "--no-stats dump-flows", &["tcp,tp_dst=80"]);
    assert_eq!(one.lines().filter(|l| l.contains("actions=")).count(), 1, "{one}");
    ok!(rig, "mod-flows", &["tcp,actions=drop"]);
    assert!(ok!(rig, "--no-stats dump-flows", &["tcp"]).contains("actions=drop"));
    let sum = ok!(rig, "dump-aggregate", &[]);
    assert!(sum.contains("flow_count=4"), "{sum}");
    ok!(rig, "del-flows", &["cookie=0x5/-1"]);
    assert!(ok!(rig, "dump-aggregate", &[]).contains("flow_count=3"));
    ok!(rig, "--strict del-flows", &["priority=5,in_port=1,dl_vlan=7"]);
    assert!(ok!(rig, "dump-aggregate", &[]).contains("flow_count=2"));
    ok!(rig, "del-flows", &[]);
    assert!(ok!(rig, "dump-aggregate", &[]).contains("flow_count=0"));
}

#[tokio::test]
async fn stock_ovs_ofctl_shows_the_switch() {
    let (rig, _bridge, _switch) = bridge().await;
    let show = ok!(rig, "show", &[]);
    for want in
        ["dpid:0000020000000001", "n_tables:254", "1(p1): addr:02:00:00:00:00:01", "2(p2)", "frags=normal"]
    {
        assert!(show.contains(want), "want {want} in {show}");
    }
    assert!(ok!(rig, "dump-ports-desc", &[]).contains("2(p2): addr:02:00:00:00:00:02"));
    let ports = ok!(rig, "dump-ports", &[]);
    assert!(ports.contains("2 ports") && ports.contains("rx pkts=?"), "{ports}");
    assert!(ok!(rig, "dump-tables", &[]).contains("table 0"));
    assert!(ok!(rig, "dump-desc", &[]).contains("Hoist"));
    ok!(rig, "mod-port", &["p1", "down"]);
    assert!(ok!(rig, "dump-ports-desc", &[]).contains("PORT_DOWN"));
    ok!(rig, "dump-table-features", &[]);
    ok!(rig, "get-frags", &[]);
    let (good, _, err) = match ofctl(&rig.socket, "add-flow", &["table=3,actions=goto_table:2"], None).await {
        None => return,
        Some(v) => v,
    };
    assert!(!good && err.contains("OFPBIC_BAD_TABLE_ID"), "{err}");
}

#[tokio::test]
async fn ten_thousand_flows_from_a_file_come_back_in_parts() {
    let (rig, _bridge, _switch) = bridge().await;
    let flows: String = (0..10_000u32)
        .map(|i| {
            format!(
                "priority={},ip,nw_dst=10.{}.{}.1,actions=output:{}\n",
                i % 7 + 1,
                i >> 8,
                i & 255,
                i % 2 + 1
            )
        })
        .collect();
    ok!(rig, "add-flows", &["-"], Some(flows));
    let dump = ok!(rig, "--no-stats dump-flows", &[]);
    assert_eq!(dump.lines().filter(|l| l.contains("actions=")).count(), 10_000);
    assert!(ok!(rig, "dump-aggregate", &[]).contains("flow_count=10000"));
}

#[tokio::test]
async fn stock_ovs_ofctl_is_told_the_version_it_should_speak() {
    let (rig, _bridge, _switch) = bridge().await;
    rig.hub.set_versions(VersionSet::only(Version::V13));
    let run = {
        let socket = rig.socket.clone();
        move || {
            Command::new("timeout")
                .args(["20", "ovs-ofctl", "-O", "OpenFlow10", "show", &format!("unix:{}", socket.display())])
                .output()
                .ok()
        }
    };
    if Command::new("ovs-ofctl").arg("--version").output().is_err() {
        eprintln!("SKIPPED: stock ovs-ofctl is not installed");
        return;
    }
    let out = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let err = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && err.contains("version negotiation failed"), "{err}");
}

#[tokio::test]
async fn stock_ovs_ofctl_monitor_sees_packets_ports_and_flows_go() {
    let (rig, bridge, _switch) = bridge().await;
    let socket = rig.socket.clone();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("monitor.log");
    let Ok(file) = std::fs::File::create(&log) else { return };
    let spawned = Command::new("timeout")
        .args(["-k", "1", "20", "ovs-ofctl", "-O", "OpenFlow13", "monitor"])
        .arg(format!("unix:{}", socket.display()))
        .args(["65535"])
        .env("OVS_RUNDIR", dir.path())
        .stdin(std::process::Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn();
    let mut monitor = match spawned {
        Ok(m) if Command::new("ovs-ofctl").arg("--version").output().is_ok() => m,
        _ => {
            eprintln!("SKIPPED: stock ovs-ofctl is not installed");
            return;
        }
    };
    // Ready once a packet-in finds somebody who wants it.
    rig.until("the monitor asks", |h| {
        h.packet_in(packet_in(PacketInReason::Action, 60));
        h.counters().packet_ins > 0
    })
    .await;
    let seen = |what: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(what);
    // One that comes while it still waits for the answer to its settings is thrown away by it.
    rig.until("PACKET_IN", |h| {
        h.packet_in(packet_in(PacketInReason::Action, 60));
        seen("PACKET_IN")
    })
    .await;
    ok!(rig, "add-flow", &["ip,send_flow_rem,actions=drop"]);
    ok!(rig, "del-flows", &[]);
    bridge.remove_port(PortNo(2));
    for what in ["OFPT_FLOW_REMOVED (OF1.3)", "reason=delete", "OFPT_PORT_STATUS", "DEL: 2(p2)"] {
        rig.until(what, |_| seen(what)).await;
    }
    monitor.kill().unwrap();
    monitor.wait().unwrap();
}
