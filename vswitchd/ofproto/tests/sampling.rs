//! What translations have exporters sample, and what collectors are told of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use datapath_api::{Exported, PuntSink};
use exporters::ipfix::CacheSettings;
use exporters::{IpfixSettings, SflowSettings};
use flow::text::odp::{Context, format_actions};
use flow::{Action, FieldId, PortId};
use ofproto::{BridgeSettings, Port, Tunnel, TunnelSettings};
use openflow::multipart::IpfixStats;
use openflow::{Body, MultipartReply, MultipartRequest, PortNo};
use rig::*;

fn collector() -> (UdpSocket, String) {
    let c = UdpSocket::bind("127.0.0.1:0").unwrap();
    c.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let at = c.local_addr().unwrap().to_string();
    (c, at)
}

fn next(c: &UdpSocket) -> Vec<u8> {
    let mut d = [0; 2000];
    let n = c.recv(&mut d).unwrap();
    d[..n].to_vec()
}

fn sflow(at: &str, sampling: u32) -> BridgeSettings {
    let s =
        SflowSettings { targets: vec![at.to_owned()], sampling, polling_s: 0, ..SflowSettings::default() };
    BridgeSettings { sflow: Some(s), ..BridgeSettings::default() }
}

fn ipfix(at: &str, input: bool, output: bool) -> BridgeSettings {
    let cache = CacheSettings { targets: vec![at.to_owned()], tunnels: true, ..CacheSettings::default() };
    let s = IpfixSettings { cache, sampling: 1, input, output, ..IpfixSettings::default() };
    BridgeSettings { ipfix: Some(s), ..BridgeSettings::default() }
}

fn flows(r: &Rig, text: &str) {
    for fm in openflow::text::parse_file(text, &|_| None).unwrap() {
        r.flow_mod(fm).unwrap();
    }
}

fn with_index(r: &Rig, no: u32, ifindex: u32) {
    let p = r.bridge.pipeline().ports.get(PortNo(no)).cloned().unwrap();
    r.bridge.put_port(Port { ifindex, ..p });
}

fn text(actions: &[Action]) -> String {
    format_actions(actions, Context::default(), &|_| None)
}

fn frame() -> Vec<u8> {
    udp([10, 0, 0, 1], [10, 0, 0, 2], 5, 6).build()
}

/// Does what a datapath does with the actions that sample: all of them take the packet.
fn sample(r: &Rig, actions: &[Action], frame: &[u8], port: u32) {
    for a in actions {
        match a {
            Action::Export(e) => {
                let packet = frame[..frame.len().min(e.snap_bytes.into())].to_vec();
                let e = Exported {
                    packet,
                    len_bytes: frame.len() as u32,
                    key: key(frame, port),
                    export: e.clone(),
                };
                assert!(r.switch.export(e));
            }
            Action::Sample(s) => sample(r, &s.actions, frame, port),
            _ => {}
        }
    }
}

fn stats(r: &Rig, of_bridge: bool) -> Option<IpfixStats> {
    let request = if of_bridge { MultipartRequest::IpfixBridge } else { MultipartRequest::IpfixFlow };
    match r.request(Body::MultipartRequest { more: false, request }).ok()?.pop()? {
        Body::MultipartReply { reply: MultipartReply::IpfixBridge(s), .. } => Some(s),
        Body::MultipartReply { reply: MultipartReply::IpfixFlow(s), .. } => s.first().copied(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn sflow_samples_what_comes_in_and_is_told_where_it_goes() {
    let r = Rig::new();
    let (_c, at) = collector();
    flows(
        &r,
        "in_port=1,actions=2\nin_port=2,actions=1,3\nin_port=3,actions=drop\nin_port=4,actions=mod_vlan_vid:7,2\n",
    );
    let plain = r.packet(&frame(), 1);
    assert_eq!(text(&plain), "12", "nothing is sampled");
    r.bridge.set_settings(sflow(&at, 1));
    with_index(&r, 2, 1002);
    r.switch.revalidate(r.now());
    let of = |port| text(&r.packet(&frame(), port));
    assert_eq!(of(1), "userspace(pid=0,sFlow(vid=0,pcp=0,output=1002),actions),12");
    assert_eq!(of(2), "userspace(pid=0,sFlow(vid=0,pcp=0,output=2147483650),actions),11,13");
    assert_eq!(of(3), "userspace(pid=0,sFlow(vid=0,pcp=0,output=1073742080),actions)");
    assert_eq!(of(4), "userspace(pid=0,sFlow(vid=7,pcp=0,output=1002),actions),push_vlan(vid=7,pcp=0),12");
    r.bridge.set_settings(sflow(&at, 2));
    r.switch.revalidate(r.now());
    assert_eq!(
        of(1),
        "sample(sample=50.0%,actions(userspace(pid=0,sFlow(vid=0,pcp=0,output=1002),actions))),12"
    );
}

#[test]
fn a_collector_of_sflow_is_told_of_packets_labels_and_ports() {
    let r = Rig::new();
    let (c, at) = collector();
    flows(&r, "actions=push_mpls:0x8847,set_mpls_label:789,set_mpls_ttl:32,2\n");
    r.bridge.set_settings(sflow(&at, 1));
    with_index(&r, 1, 1001);
    let f = frame();
    sample(&r, &r.packet(&f, 1), &f, 1);
    r.switch.run(r.now());
    r.clock.advance(Duration::from_secs(2));
    r.switch.run(r.now());
    let d = next(&c);
    let word = |i: usize| u32::from_be_bytes(d[4 * i..4 * i + 4].try_into().unwrap());
    assert_eq!((word(0), word(2), word(4), word(6)), (5, 0x7f00_0001, 1, 1));
    // One flow sample of the bridge, in by port 1, out by one without a number, of three records.
    let at = |i: usize| word(7 + i);
    assert_eq!((at(0), at(3), at(4), at(7), at(8), at(9)), (1, 2 << 24 | 1000, 1, 1001, 0x8000_0001, 3));
    assert_eq!((at(10), at(14), at(15)), (1006, 0, 1), "labels when it leaves");
    assert_eq!(at(16), 789 << 12 | 0x100 | 32);
    assert_eq!((at(17), at(20)), (1, f.len() as u32 + 4));
    assert_eq!(&d[4 * (7 + 23)..4 * (7 + 23) + f.len()], &f[..]);
}

#[test]
fn ipfix_samples_what_comes_in_and_what_goes_out() {
    let r = Rig::new();
    let (_c, at) = collector();
    flows(&r, "in_port=1,actions=2,3\nin_port=2,actions=output(port=3,max_len=100)\n");
    r.bridge.set_settings(ipfix(&at, true, true));
    let sampled = |n: u32| format!("userspace(pid=0,ipfix(output_port={n}))");
    let (none, two, three) = (sampled(u32::MAX), sampled(12), sampled(13));
    assert_eq!(text(&r.packet(&frame(), 1)), format!("{none},{two},12,{three},13"));
    assert_eq!(text(&r.packet(&frame(), 2)), format!("{none},trunc(100),{three},13"));
    r.bridge.set_settings(ipfix(&at, true, false));
    r.switch.revalidate(r.now());
    assert_eq!(text(&r.packet(&frame(), 1)), format!("{none},12,13"));
    r.bridge.set_settings(ipfix(&at, false, true));
    r.switch.revalidate(r.now());
    assert_eq!(text(&r.packet(&frame(), 1)), format!("{two},12,{three},13"));
    assert_eq!(text(&r.packet(&frame(), 4)), "drop");
}

#[test]
fn a_bridges_ipfix_counts_what_it_tells() {
    let r = Rig::new();
    let (c, at) = collector();
    assert_eq!(stats(&r, true), None);
    flows(&r, "actions=2\n");
    r.bridge.set_settings(ipfix(&at, true, false));
    let f = frame();
    for _ in 0..3 {
        sample(&r, &r.packet(&f, 1), &f, 1);
    }
    let s = stats(&r, true).unwrap();
    assert_eq!((s.total_flows, s.current_flows, s.packets, s.ipv4_packets, s.error_packets), (3, 0, 3, 3, 0));
    assert_eq!(s.tx_errors, 0);
    let messages = (0..s.tx_packets).map(|_| next(&c)).filter(|m| m[..2] == [0, 10]).count();
    assert_eq!(messages as u64, s.tx_packets);
    assert_eq!(stats(&r, false), None);
}

#[test]
fn a_rule_samples_for_a_set_of_collectors() {
    let r = Rig::new();
    let (c, at) = collector();
    let sets = [(1, CacheSettings { targets: vec![at], ..CacheSettings::default() })].into();
    let sampling = "sample(probability=65535,collector_set_id=1,obs_domain_id=5,obs_point_id=6)";
    flows(
        &r,
        &format!(
            "in_port=1,actions={sampling},2\nin_port=2,actions=sample(probability=32768,collector_set_id=9),3\n"
        ),
    );
    assert_eq!(text(&r.packet(&frame(), 1)), "12", "there is no exporter");
    r.bridge.set_settings(BridgeSettings { flow_ipfix: sets, ..BridgeSettings::default() });
    r.switch.revalidate(r.now());
    let f = frame();
    let actions = r.packet(&f, 1);
    assert_eq!(
        text(&actions),
        "userspace(pid=0,flow_sample(probability=65535,collector_set_id=1,obs_domain_id=5,obs_point_id=6,\
         output_port=4294967295)),12"
    );
    assert!(text(&r.packet(&f, 2)).starts_with("sample(sample=50.0%,actions(userspace(pid=0,flow_sample("));
    sample(&r, &actions, &f, 1);
    let s = stats(&r, false).unwrap();
    assert_eq!((s.collector_set, s.packets, s.total_flows), (1, 1, 1));
    // Its last message is of the rule's domain.
    let last = (0..s.tx_packets).map(|_| next(&c)).fold(Vec::new(), |_, m| m);
    assert_eq!(last[12..16], [0, 0, 0, 5]);
}

#[test]
fn samples_of_a_tunnels_end_have_its_header() {
    let r = Rig::new();
    let (_c, at) = collector();
    let s = TunnelSettings {
        foreign: true,
        remote: ofproto::tunnel::End::Address("1.1.1.1".parse().unwrap()),
        ..TunnelSettings::new(flow::tunnel::TunnelKind::Gre)
    };
    let mac = openflow::MacAddr([2, 0, 0, 0, 0, 9]);
    r.bridge.put_port(Port::tunnel(PortNo(9), PortId(99), "gre0", mac, Tunnel::new(s, "gre".into())));
    let set = CacheSettings { targets: vec![at], tunnels: true, ..CacheSettings::default() };
    r.bridge.set_settings(BridgeSettings { flow_ipfix: [(1, set)].into(), ..BridgeSettings::default() });
    flows(&r, "actions=sample(probability=65535,collector_set_id=1,sampling_port=9),output:9\n");
    let actions = r.packet(&frame(), 1);
    let at = actions.iter().position(|a| matches!(a, Action::Export(_))).unwrap();
    let Action::Export(e) = &actions[at] else { panic!() };
    assert_eq!((e.tunnel_out, e.out_port), (Some(PortId(99)), 9));
    let dst = |a: &Action| matches!(a, Action::SetField { field: FieldId::TunDst, value: 0x0101_0101, .. });
    assert!(actions[..at].iter().any(dst), "{}", text(&actions));
    assert_eq!(actions[at + 1..], [Action::Output(PortId(99))], "the header is there already");
}

#[test]
fn the_meter_of_the_slow_path_holds_back_samples() {
    use openflow::meter::{MeterBand, MeterBandKind, MeterFlags, MeterMod, MeterModCommand};
    let r = Rig::new();
    let (_c, at) = collector();
    r.bridge.set_settings(ipfix(&at, true, false));
    flows(&r, "actions=2\n");
    let meter = MeterMod {
        command: MeterModCommand::Add,
        flags: MeterFlags::PKTPS,
        meter: openflow::MeterNo::SLOWPATH,
        bands: vec![MeterBand { rate: 3, burst_size: 1, kind: MeterBandKind::Drop }],
    };
    r.request(Body::MeterMod(meter)).unwrap();
    let text = text(&r.packet(&frame(), 1));
    assert_eq!(
        text,
        "sample(sample=100.0%,actions(meter(0),userspace(pid=0,ipfix(output_port=4294967295)))),12"
    );
}

#[test]
fn traces_make_copies_of_what_the_datapath_is_said_to_have() {
    let r = Rig::new();
    flows(&r, "ip,actions=clone(ct(commit),output:3),output:4\n");
    let trace = || {
        text(&r.bridge.translate(&key(&frame(), 1), PortNo(1), ofproto::xlate::Start::Tables, true).actions)
    };
    assert_eq!(trace(), "clone(ct(commit),13),14");
    // Where it is to be done as Open vSwitch does it, what was written is written before the copy is made.
    r.bridge.set_settings(BridgeSettings { stock_megaflows: true, ..BridgeSettings::default() });
    flows(
        &r,
        "priority=40000,ip,in_port=2,actions=mod_nw_dst:10.9.9.9,1,mod_nw_dst:10.0.0.2,clone(ct(commit),output:3),output:4\n",
    );
    let written =
        text(&r.bridge.translate(&key(&frame(), 2), PortNo(2), ofproto::xlate::Start::Tables, true).actions);
    assert_eq!(written, "set(ipv4(dst=10.9.9.9)),11,set(ipv4(dst=10.0.0.2)),clone(ct(commit),13),14");
    r.switch.change_copies(|c| c.clone = false);
    assert_eq!(trace(), "sample(sample=100.0%,actions(ct(commit),13)),14");
    assert_eq!(text(&r.packet(&frame(), 1)), "clone(ct(commit),13),14", "what is forwarded has them always");
    r.switch.change_copies(|c| c.sample_nesting = 2);
    assert_eq!(trace(), "14");
}

#[test]
fn samples_that_find_no_room_are_counted() {
    let r = Rig::new();
    let (_c, at) = collector();
    r.bridge.set_settings(ipfix(&at, true, false));
    let e = flow::export::Export::of_text(flow::export::ExportTo::Ipfix { output: None });
    let e = Exported { packet: Vec::new(), len_bytes: 60, key: key(&frame(), 1), export: Arc::new(e) };
    let refused = (0..5000).filter(|_| !r.switch.export(e.clone())).count() as u64;
    assert!(refused > 0);
    let counted = r.switch.take_coverage().find(|(n, _)| *n == "exporter_queue_full").unwrap().1;
    assert_eq!(counted, refused);
}
