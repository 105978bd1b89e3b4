//! Packet-ins of several controllers: what one does not take, or may not have, is bounded and counted, and the others get theirs.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use support::dummy::Rig;
use support::eventually;

/// Packets of the flood.
const FLOOD: usize = 300;
const PACKET_IN: u8 = 10;

fn controller(r: &Rig, name: &str) -> (UnixListener, String) {
    let path = r.dir.path().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    listener.set_nonblocking(true).unwrap();
    (listener, format!("unix:{}", path.display()))
}

fn accept(listener: &UnixListener) -> UnixStream {
    let (mut s, _) = eventually("the switch connects", || listener.accept().ok());
    s.set_nonblocking(false).unwrap();
    // A hello of OpenFlow 1.0.
    s.write_all(&[1, 0, 0, 8, 0, 0, 0, 1]).unwrap();
    s
}

/// Ingress ports of the packet-ins that come until nothing has come for as long (OpenFlow 1.0.0 5.4.1), or until so many have.
fn packet_ins(s: &mut UnixStream, quiet: Duration, most: usize) -> Vec<u16> {
    s.set_read_timeout(Some(quiet)).unwrap();
    let mut ports = Vec::new();
    let mut header = [0; 8];
    while ports.len() < most && s.read_exact(&mut header).is_ok() {
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let mut rest = vec![0; length - header.len()];
        s.read_exact(&mut rest).unwrap();
        if header[1] == PACKET_IN {
            ports.push(u16::from_be_bytes([rest[6], rest[7]]));
        }
    }
    ports
}

#[test]
fn a_flood_to_a_slow_controller_is_bounded_and_counted_and_the_other_gets_all_of_it() {
    let r = Rig::start();
    let ((slow, at_slow), (fast, at_fast)) = (controller(&r, "slow"), controller(&r, "fast"));
    r.run(&format!("ovs-vsctl set-controller br0 {at_slow} {at_fast}"));
    let row = |target: &str| {
        let found = r.run(&format!("ovs-vsctl --bare --columns=_uuid find Controller 'target=\"{target}\"'"));
        found.trim().to_owned()
    };
    let (slow_row, fast_row) = (row(&at_slow), row(&at_fast));
    r.run(&format!(
        "ovs-vsctl set Controller {slow_row} controller_rate_limit=100 controller_burst_limit=25 \
         -- set Controller {fast_row} controller_queue_size=512"
    ));
    let (mut slow, mut fast) = (accept(&slow), accept(&fast));
    eventually("both are connected", || {
        let is = |row: &str| r.run(&format!("ovs-vsctl get Controller {row} is_connected")).trim() == "true";
        (is(&slow_row) && is(&fast_row)).then_some(())
    });
    // Nobody knows these packets; the slow controller reads nothing meanwhile.
    let frame = format!("ffffffffffff0200000000011234{}", "00".repeat(46));
    let flood = vec![frame.as_str(); FLOOD].join(" ");
    r.appctl(&format!("netdev-dummy/receive p1 {flood}"));
    assert_eq!(packet_ins(&mut fast, support::DEADLINE, FLOOD), [1; FLOOD]);

    // What a flow sends is another matter than misses, and finds its way.
    r.run("ovs-ofctl add-flow br0 in_port=2,actions=controller");
    for _ in 0..3 {
        r.appctl(&format!("netdev-dummy/receive p7 {frame}"));
    }
    let got = packet_ins(&mut slow, Duration::from_secs(2), usize::MAX);
    let of = |port: u16| got.iter().filter(|p| **p == port).count();
    assert_eq!(of(2), 3);
    assert!((25..FLOOD).contains(&of(1)), "{} of {FLOOD}", of(1));
    let counted = |key: &str| {
        let text = r.tool(&format!("ovs-vsctl get Controller {slow_row} status:packet-in-{key}")).ok()?;
        text.trim().trim_matches('"').parse::<usize>().ok()
    };
    eventually("the row has counted them", || {
        let all = counted("miss-bypassed")? + counted("miss-queued")?;
        let dropped = counted("miss-dropped")?;
        (counted("miss-backlog")? == 0 && all == of(1) && all + dropped == FLOOD).then_some(())
    });
    eventually("and those of flows apart", || (counted("action-bypassed")? == 3).then_some(()));
    let other = r.run(&format!("ovs-vsctl get Controller {fast_row} status"));
    assert!(!other.contains("packet-in"), "{other}");
}
