//! The kernel's own datapath over a fake one.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use flow::text::odp::{parse_actions, parse_match};
use flow::tunnel::options::{self, Mapping};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use nix::errno::Errno;
use offload_tc::kdp::fake::FakeDatapath;
use offload_tc::kdp::{KdpError, KernelDatapath, Upcalls, VportKind};
use offload_tc::wire::{Writer, attrs, find};

fn open(kernel: &FakeDatapath) -> KernelDatapath<FakeDatapath> {
    KernelDatapath::open(kernel.clone(), "br0").unwrap()
}

fn put(d: &mut KernelDatapath<FakeDatapath>, id: u64, flow: &str, actions: &str) -> Result<(), KdpError> {
    let m = parse_match(flow, &|_| None).unwrap();
    let actions = if actions == "drop" { Vec::new() } else { parse_actions(actions, &|_| None).unwrap() };
    d.put(FlowId(id), (&m, &[]), &actions, &|_| Vec::new())
}

/// The attributes of a nest of the only flow there is.
fn nest(kernel: &FakeDatapath, which: u16) -> Vec<(u16, Vec<u8>)> {
    let all = kernel.flows();
    let body = all.values().next().unwrap();
    let nest = find(body, which).unwrap().unwrap();
    attrs(nest).map(|a| a.unwrap()).map(|(k, v)| (k, v.to_vec())).collect()
}

#[test]
fn ports_and_flows_come_and_go() {
    let kernel = FakeDatapath::new();
    let mut d = open(&kernel);
    d.dispatch(&[4001, 4002]).unwrap();
    assert_eq!(kernel.sockets(), [4001, 4002]);
    assert_eq!(d.add_port("eth0", &VportKind::Netdev, None).unwrap(), PortId(1));
    assert_eq!(d.add_port("vx", &VportKind::Vxlan(4789), Some(PortId(9))).unwrap(), PortId(9));
    assert!(matches!(
        d.add_port("eth0", &VportKind::Netdev, None),
        Err(KdpError::Refused { errno, .. }) if errno == Errno::EBUSY as i32
    ));
    assert_eq!(d.ports().unwrap().len(), 3);
    d.remove_port(PortId(9)).unwrap();
    put(&mut d, 5, "in_port(1),eth_type(0x0800),ipv4(frag=no)", "2").unwrap();
    put(&mut d, 6, "in_port(2),eth_type(0x0806)", "drop").unwrap();
    let flows = d.flows().unwrap();
    assert_eq!(flows.iter().map(|f| f.id).collect::<Vec<_>>(), [Some(FlowId(5)), Some(FlowId(6))]);
    assert_eq!(d.remove(FlowId(5)).unwrap().packets, 7);
    assert!(d.remove(FlowId(5)).is_err());
    assert_eq!(d.stats().unwrap().flows, 1);
    d.flush().unwrap();
    assert!(d.flows().unwrap().is_empty());
    // One that is there is opened.
    let mut again = open(&kernel);
    again.destroy().unwrap();
    assert!(d.flows().is_err(), "the datapath is gone");
}

#[test]
fn a_key_has_every_header_that_the_match_says_is_there() {
    let kernel = FakeDatapath::new();
    let mut d = open(&kernel);
    let flow = "recirc_id(0x5),in_port(3),eth(dst=02:00:00:00:00:01),eth_type(0x0800),\
                ipv4(src=10.0.0.0/255.0.0.0,proto=6,frag=no),tcp(dst=80)";
    put(&mut d, 1, flow, "2").unwrap();
    let key = nest(&kernel, 1);
    // IN_PORT, RECIRC_ID, ETHERNET, ETHERTYPE, IPV4, TCP, TCP_FLAGS.
    assert_eq!(key.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [3, 20, 4, 6, 7, 9, 18]);
    assert_eq!(key[0].1, 3u32.to_ne_bytes());
    assert_eq!(key[1].1, 5u32.to_ne_bytes());
    assert_eq!(key[2].1, [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1]);
    assert_eq!(key[4].1, [10, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0]);
    assert_eq!(key[5].1, [0, 0, 0, 80]);
    let mask = nest(&kernel, 7);
    assert_eq!(mask[4].1, [255, 0, 0, 0, 0, 0, 0, 0, 255, 0, 0, 255]);
    assert_eq!((mask[0].1.as_slice(), mask[5].1.as_slice()), (&[255u8; 4][..], &[0, 0, 255, 255][..]));
}

#[test]
fn tags_enclose_what_is_behind_them() {
    let kernel = FakeDatapath::new();
    let mut d = open(&kernel);
    let flow =
        "in_port(3),eth_type(0x8100),vlan(vid=5,pcp=1),encap(eth_type(0x86dd),ipv6(proto=17,frag=no),udp())";
    put(&mut d, 1, flow, "pop_vlan,2").unwrap();
    let key = nest(&kernel, 1);
    assert_eq!(key.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [3, 20, 4, 6, 5, 1]);
    assert_eq!((key[3].1.as_slice(), key[4].1.as_slice()), (&[0x81, 0][..], &[0x30, 5][..]));
    let inner: Vec<u16> = attrs(&key[5].1).map(|a| a.unwrap().0).collect();
    assert_eq!(inner, [6, 8, 10]);
    assert_eq!(nest(&kernel, 2).iter().map(|(k, _)| *k).collect::<Vec<_>>(), [5, 1]);
}

#[test]
fn actions_are_those_of_the_kernel() {
    let kernel = FakeDatapath::new();
    let mut d = open(&kernel);
    let flow = "in_port(3),eth_type(0x0800),ipv4(proto=17,frag=no),udp()";
    let actions = "set(ipv4(ttl=9)),set(udp(dst=7)),push_vlan(vid=5,pcp=2),ct(commit,zone=4,nat(src=10.0.0.1-10.0.0.9)),\
                   trunc(100),4,recirc(0x6)";
    put(&mut d, 1, flow, actions).unwrap();
    let all = nest(&kernel, 2);
    // SET_MASKED twice, PUSH_VLAN, CT, TRUNC, OUTPUT, RECIRC.
    assert_eq!(all.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [11, 11, 4, 12, 13, 1, 7]);
    let ttl = find(&all[0].1, 7).unwrap().unwrap();
    assert_eq!((ttl[10], ttl[22], ttl.len()), (9, 255, 24), "value, then mask");
    let udp = find(&all[1].1, 10).unwrap().unwrap();
    assert_eq!(udp, [0, 0, 0, 7, 0, 0, 255, 255]);
    assert_eq!(all[2].1, [0x81, 0, 0x50, 5]);
    let ct: Vec<u16> = attrs(&all[3].1).map(|a| a.unwrap().0).collect();
    assert_eq!(ct, [1, 2, 6], "commit, zone, translation");
    let nat = find(&all[3].1, 6).unwrap().unwrap();
    assert_eq!(find(nat, 4).unwrap(), Some(&[10, 0, 0, 9][..]));
    let m = PacketMatch::ANY;
    let refused = d.put(FlowId(2), (&m, &[]), &[Action::DecTtl], &|_| Vec::new());
    assert!(matches!(refused, Err(KdpError::Unsupported(_))), "{refused:?}");
    assert_eq!(kernel.flows().len(), 1);
}

#[test]
fn refusals_have_numbers_and_lost_answers_an_end() {
    let kernel = FakeDatapath::new();
    let mut d = open(&kernel);
    kernel.refuse_next(Errno::ENOMEM);
    let r = put(&mut d, 1, "in_port(1),eth_type(0x0806)", "2");
    assert!(matches!(r, Err(KdpError::Refused { errno: 12, what: "flow", .. })), "{r:?}");
    kernel.lose_next(1);
    assert!(matches!(put(&mut d, 1, "in_port(1),eth_type(0x0806)", "2"), Err(KdpError::Io(_))));
    put(&mut d, 1, "in_port(1),eth_type(0x0806)", "2").unwrap();
    assert_eq!(kernel.flows().len(), 1, "the same flow, whether the first came through or not");
}

#[test]
fn packets_that_no_flow_knows_are_told_with_what_is_known_of_them() {
    let kernel = FakeDatapath::new();
    let mut d = open(&kernel);
    let mut up = Upcalls::new(kernel.clone(), d.families());
    let frame: Vec<u8> = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[0; 46]].concat();
    let mut w = Writer::new();
    w.attr(1, &frame);
    let n = w.nest(2);
    w.u32(3, 4);
    w.u32(20, 9);
    w.u32(22, 0x21);
    w.end(n);
    kernel.miss(w.bytes());
    kernel.overrun();
    kernel.miss(&[9, 0, 1, 0, 0]);
    let mut out = Vec::new();
    for _ in 0..4 {
        up.receive(Duration::ZERO, &mut out).unwrap();
    }
    assert_eq!((out.len(), up.overruns, up.unreadable), (1, 1, 1));
    let k = &out[0].key;
    assert_eq!(out[0].packet, frame);
    assert_eq!((k.get(FieldId::DpPort), k.get(FieldId::RecircId), k.get(FieldId::CtState)), (4, 9, 0x21));
    assert_eq!((k.get(FieldId::EthType), out[0].userdata.is_none()), (0x88b5, true));
    d.execute(&frame, k, &out[0].beside, &[Action::Output(PortId(1))], &|_| Vec::new()).unwrap();
    let did = kernel.executed();
    assert_eq!(find(&did[0], 1).unwrap(), Some(frame.as_slice()));
    assert_eq!(find(&did[0], 3).unwrap(), Some(&[8, 0, 1, 0, 1, 0, 0, 0][..]));
    let told = find(&did[0], 2).unwrap().unwrap();
    let told: Vec<u16> = attrs(told).map(|a| a.unwrap().0).collect();
    assert_eq!(told, [3, 20, 22], "port, recirculation id, state of the connection");
}

#[test]
fn options_of_a_tunnel_are_matched_where_the_packet_has_them() {
    let known = Mapping { index: 11, class: 0x102, kind: 1, bytes: 4 };
    options::map(known).unwrap();
    let kernel = FakeDatapath::new();
    let mut d = open(&kernel);
    let mut up = Upcalls::new(kernel.clone(), d.families());
    let frame: Vec<u8> = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 1], &[0x88, 0xb5], &[0; 46]].concat();
    // One that nobody has mapped, then ours.
    let raw = [0x0f, 0xff, 0x81, 1, 9, 9, 9, 9, 0x01, 0x02, 0x01, 1, 0xab, 0xcd, 0xef, 0x01];
    let mut w = Writer::new();
    w.attr(1, &frame);
    let n = w.nest(2);
    w.u32(3, 4);
    let t = w.nest(16);
    w.attr(0, &7u64.to_be_bytes());
    w.attr(2, &[10, 0, 0, 1]);
    w.attr(8, &raw);
    w.end(t);
    w.end(n);
    kernel.miss(w.bytes());
    let mut out = Vec::new();
    up.receive(Duration::ZERO, &mut out).unwrap();
    let u = &out[0];
    assert_eq!(u.key.get(FieldId::TunMetadata11), 0xabcd_ef01);
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 4);
    m.set(FieldId::TunDst, u.key.get(FieldId::TunDst));
    m.set(FieldId::EthType, 0x88b5);
    let put_it = |d: &mut KernelDatapath<FakeDatapath>, m: &PacketMatch, raw: &[u8]| {
        d.put(FlowId(1), (m, raw), &[Action::Output(PortId(1))], &|_| Vec::new()).unwrap();
    };
    let tunnel = |which| {
        let all = nest(&kernel, which);
        let t = all.into_iter().find(|(k, _)| *k == 16).unwrap().1;
        find(&t, 8).unwrap().map(<[u8]>::to_vec)
    };
    put_it(&mut d, &m, u.beside.options());
    assert_eq!((tunnel(1), tunnel(7)), (None, None), "nobody looked at them");
    options::require(&mut m, 11, &[0xab, 0xcd, 0xef, 1], &[0xff, 0, 0, 0xff]);
    put_it(&mut d, &m, u.beside.options());
    assert_eq!(tunnel(1).unwrap(), raw);
    let head = [0xff, 0xff, 0xff, 0x1f];
    let mask = [&head[..], &[0; 4], &head, &[0xff, 0, 0, 0xff]].concat();
    assert_eq!(tunnel(7).unwrap(), mask, "which there are as a whole, of ours the bytes that matter");
    let mut none = PacketMatch::ANY;
    for f in [FieldId::DpPort, FieldId::TunDst, FieldId::EthType] {
        none.set(f, m.get(f).0);
    }
    options::require_absent(&mut none, 11);
    put_it(&mut d, &none, &[]);
    assert_eq!((tunnel(1), tunnel(7)), (None, Some(Vec::new())), "that there is none is in the mask alone");
    // Back into the kernel with all of them, and into a tunnel with those that were written.
    d.execute(&frame, &u.key, &u.beside, &[Action::Output(PortId(1))], &|_| Vec::new()).unwrap();
    let told = kernel.executed();
    let key = find(&told[0], 2).unwrap().unwrap();
    assert_eq!(find(find(key, 16).unwrap().unwrap(), 8).unwrap(), Some(&raw[..]));
    let mut into = flow::PacketKey::ZERO;
    into.set(FieldId::TunMetadata11, 0x55);
    let set = |field: FieldId, value| Action::SetField { field, value, mask: field.info().max() };
    let mut actions = vec![set(FieldId::TunDst, 0x0a00_0002)];
    actions.extend(options::words().filter(|f| into.get(*f) != 0).map(|f| set(f, into.get(f))));
    actions.push(Action::Output(PortId(2)));
    d.put(FlowId(1), (&none, &[]), &actions, &|_| Vec::new()).unwrap();
    let all = nest(&kernel, 2);
    let t = find(&all[0].1, 16).unwrap().unwrap();
    assert_eq!(find(t, 8).unwrap(), Some(&[1, 2, 1, 1, 0, 0, 0, 0x55][..]));
    options::unmap(known);
}
