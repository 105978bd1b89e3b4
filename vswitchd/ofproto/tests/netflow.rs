//! What collectors of NetFlow are told of flow records.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::Duration;

use exporters::NetflowSettings;
use flow::FieldId;
use ofproto::BridgeSettings;
use rig::*;

/// A collector, and a bridge that tells it of its flows.
fn collected() -> (Rig, UdpSocket) {
    let collector = UdpSocket::bind("127.0.0.1:0").unwrap();
    collector.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let r = Rig::new();
    r.bridge.set_settings(telling(&[collector.local_addr().unwrap().to_string()]));
    (r, collector)
}

fn telling(targets: &[String]) -> BridgeSettings {
    let netflow = NetflowSettings { targets: targets.to_vec(), ..NetflowSettings::default() };
    BridgeSettings { netflow: Some(netflow), ..BridgeSettings::default() }
}

/// Ports in and out, packets and bytes of each record of the next datagram.
fn records(c: &UdpSocket) -> Vec<[u64; 4]> {
    let mut d = [0; 1500];
    let n = c.recv(&mut d).unwrap();
    let be = |r: &[u8], at: usize, n: usize| r[at..at + n].iter().fold(0, |v, b| v << 8 | u64::from(*b));
    let fields = [(12, 2), (14, 2), (16, 4), (20, 4)];
    d[24..n].chunks(48).map(|r| fields.map(|(at, n)| be(r, at, n))).collect()
}

fn wait(r: &Rig, time: Duration) {
    r.clock.advance(time);
    r.switch.run(r.now());
    r.switch.revalidate(r.now());
    r.switch.run(r.now());
}

#[test]
fn a_flow_is_told_of_when_its_record_goes_and_when_it_leaves_by_another_port() {
    let (r, c) = collected();
    r.add(0, 1, matching(&[]), to(2));
    let f = udp([10, 0, 0, 1], [10, 0, 0, 2], 5, 6).build();
    for _ in 0..3 {
        r.packet(&f, 1);
    }
    wait(&r, Duration::from_millis(100));
    r.add(0, 1, matching(&[]), to(3));
    wait(&r, Duration::from_millis(100));
    r.packet(&f, 1);
    wait(&r, Duration::from_millis(100));
    let bytes = f.len() as u64;
    assert_eq!(records(&c), [[1, 2, 3, 3 * bytes]]);
    wait(&r, Duration::from_secs(20));
    assert_eq!(records(&c), [[1, 3, 1, bytes]]);
    assert!(r.dp.flows.lock().unwrap().is_empty());
    let sent: BTreeMap<_, _> = r.switch.take_coverage().collect();
    assert_eq!((sent["exporter_datagrams_sent"], sent["exporter_datagrams_failed"]), (2, 0));
}

#[test]
fn records_tell_flows_apart_only_where_netflow_does() {
    let (r, c) = collected();
    r.add(0, 1, matching(&[]), to(2));
    let frames = [5, 6].map(|port| udp([10, 0, 0, 1], [10, 0, 0, 2], port, 7).build());
    frames.iter().for_each(|f| drop(r.packet(f, 1)));
    assert_eq!(r.dp.flows.lock().unwrap().len(), 2);
    let mask = r.packet_by(&frames[0], 1).matches.mask();
    assert_eq!(mask.get(FieldId::NwTos), 0xfc);
    assert_eq!((mask.get(FieldId::NwDst), mask.get(FieldId::TpDst)), (0xffff_ffff, 0xffff));
    // Without it they are one, and what was not told yet is told.
    wait(&r, Duration::from_millis(100));
    r.bridge.set_settings(BridgeSettings::default());
    assert_eq!(records(&c).len(), 2);
    wait(&r, Duration::from_secs(20));
    frames.iter().for_each(|f| drop(r.packet(f, 1)));
    let flows = r.dp.flows.lock().unwrap();
    assert_eq!(flows.len(), 1);
    assert!(flows.values().all(|r| r.matches.mask().get(FieldId::NwDst) == 0));
}

#[test]
fn a_bridge_that_tells_of_its_flows_takes_no_shortcuts() {
    use datapath_api::MissHandler;
    let (r, _c) = collected();
    r.add(0, 1, matching(&[]), to(2));
    let k = [key(&udp([10, 0, 0, 1], [10, 0, 0, 2], 5, 6).build(), 1)];
    let name = || {
        let mut names = [0];
        r.switch.classify(&k, 1, &mut names);
        names[0]
    };
    assert_eq!(name(), 0);
    r.bridge.set_settings(BridgeSettings::default());
    assert_ne!(name(), 0);
}
