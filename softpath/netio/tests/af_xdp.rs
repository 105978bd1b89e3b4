//! AF_XDP sockets against the kernel, each test in a network namespace of its own. They need what [`support`] needs, and the
//! capability BPF; where that, or AF_XDP, is missing they say so and do nothing.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::Instant;

use device::{BufferPool, IoError, PacketBatch, PacketIo, QueueId};
use netio::OpenError;
use netio::af_xdp::{AfXdpPort, XdpMode};
use netio::merged;
use netio::netdev::disable_offloads;
use support::{PATIENCE, batch, in_namespace, ip, receive, udp, veth};

/// More than the cells that two ports have waiting.
const CELLS: u32 = 4096;

/// Opens `v0`, or says why AF_XDP cannot be had here.
fn open(pool: &BufferPool, mode: XdpMode) -> Option<AfXdpPort> {
    for end in ["v0", "v1"] {
        disable_offloads(end).unwrap();
    }
    match AfXdpPort::open("v0", pool, mode) {
        Ok(p) => Some(p),
        Err(OpenError::Os { op: "AF_XDP socket", source, .. })
            if source.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
        {
            eprintln!("skipped: the kernel has no AF_XDP");
            None
        }
        Err(e @ OpenError::NoPermission { .. }) => {
            eprintln!("skipped: {e}");
            None
        }
        Err(e) => panic!("{e}"),
    }
}

/// Waits until every cell is home.
fn all_come_home(pool: &BufferPool) {
    let deadline = Instant::now() + PATIENCE;
    while pool.free_cells() < CELLS as usize {
        assert!(Instant::now() < deadline, "{pool:?}");
        std::thread::yield_now();
    }
}

fn crosses(mode: XdpMode) {
    veth();
    let pool = BufferPool::new(CELLS).unwrap();
    let Some(mut a) = open(&pool, mode) else { return };
    let mut b = AfXdpPort::open("v1", &pool, mode).unwrap();
    assert!(a.link().link_up && a.queue_pairs() == 1);
    let (mut a_rx, mut a_tx) = a.take_queues(QueueId(0)).unwrap();
    let (mut b_rx, mut b_tx) = b.take_queues(QueueId(0)).unwrap();
    assert!(a.take_queues(QueueId(0)).is_err() && a.take_queues(QueueId(1)).is_err());
    for f in [udp().build(), udp().vlan(5, 3).build(), udp().qinq(6, 7).build(), udp().pad_to(1514).build()] {
        assert_eq!(a_tx.tx_burst(&mut batch(&pool, &[&f])).unwrap(), 1);
        assert_eq!(receive(&mut *b_rx, |p| p == f), Some(f), "{mode:?}");
    }
    // What comes back is the first that a hears: not its own.
    let answer = udp().payload(b"answer").build();
    b_tx.tx_burst(&mut batch(&pool, &[&answer])).unwrap();
    assert_eq!(receive(&mut *a_rx, |p| p.ends_with(b"answer") || p == udp().build()), Some(answer));
    assert_eq!(a.counters().tx_packets, 4);
    assert!(b.counters().rx_packets >= 4 && b.counters().rx_errors == 0);
    drop((a, a_rx, a_tx, b, b_rx, b_tx));
    all_come_home(&pool);
}

#[test]
fn frames_cross_a_veth_pair_in_the_driver() {
    in_namespace(|| crosses(XdpMode::Native));
}

#[test]
fn frames_cross_a_veth_pair_in_the_stack() {
    in_namespace(|| crosses(XdpMode::Generic));
}

#[test]
fn the_best_mode_that_there_is_is_found() {
    in_namespace(|| crosses(XdpMode::BestEffort));
}

#[test]
fn the_host_talks_to_the_port_and_hears_it() {
    in_namespace(|| {
        veth();
        let pool = BufferPool::new(CELLS).unwrap();
        let Some(mut port) = open(&pool, XdpMode::BestEffort) else { return };
        ip("addr add 192.0.2.2/24 dev v1");
        ip("neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev v1");
        let (mut rx, mut tx) = port.take_queues(QueueId(0)).unwrap();
        let s = UdpSocket::bind("192.0.2.2:7").unwrap();
        s.set_read_timeout(Some(PATIENCE)).unwrap();
        s.send_to(b"to the switch", "192.0.2.1:9").unwrap();
        let f = receive(&mut *rx, |p| p.ends_with(b"to the switch")).expect("nothing came");
        assert_eq!(f[..6], [2, 0, 0, 0, 0, 1]);
        let mac = netio::netdev::Netdev::open("v1").unwrap().mac().unwrap();
        let to_host = udp().eth(mac, [2, 0, 0, 0, 0, 1]).build();
        assert_eq!(tx.tx_burst(&mut batch(&pool, &[&to_host])).unwrap(), 1);
        let mut b = [0; 100];
        let n = s.recv(&mut b).unwrap();
        assert_eq!(&b[..n], b"across the cable");
    });
}

#[test]
fn packets_move_from_port_to_port_in_their_cells_and_thousands_lose_none() {
    in_namespace(|| {
        veth();
        ip("link add u0 type veth peer name u1");
        ip("link set u0 up");
        ip("link set u1 up");
        let pool = BufferPool::new(CELLS).unwrap();
        let Some(mut a) = open(&pool, XdpMode::BestEffort) else { return };
        let mut b = AfXdpPort::open("u0", &pool, XdpMode::BestEffort).unwrap();
        let mut source = netio::af_packet::AfPacketPort::open("v1", &pool).unwrap();
        let mut sink = netio::af_packet::AfPacketPort::open("u1", &pool).unwrap();
        let (mut a_rx, a_tx) = a.take_queues(QueueId(0)).unwrap();
        let (b_rx, mut b_tx) = b.take_queues(QueueId(0)).unwrap();
        let (_, mut send) = source.take_queues(QueueId(0)).unwrap();
        let (mut hear, _) = sink.take_queues(QueueId(0)).unwrap();
        let (mut moved, mut heard) = (PacketBatch::new(), PacketBatch::new());
        // Three times the cells of the pool.
        let wanted = 3 * CELLS as usize;
        let (mut sent, mut forwarded, mut arrived) = (0, 0, 0);
        let deadline = Instant::now() + PATIENCE;
        while arrived < wanted {
            assert!(Instant::now() < deadline, "{sent} sent, {forwarded} forwarded, {arrived} arrived");
            if sent < wanted && sent - arrived < 256 {
                let number = (sent as u32).to_be_bytes();
                sent += send.tx_burst(&mut batch(&pool, &[&udp().payload(&number).build()])).unwrap();
            }
            a_rx.rx_burst(&mut moved).unwrap();
            let ours = moved.iter().filter(|p| p[12..14] == [8, 0]).count();
            let before: Vec<_> = moved.iter().map(|p| p.dma_offset()).collect();
            assert!(before.iter().all(|at| at % 2048 >= 192), "room for headers in front");
            if !moved.is_empty() {
                b_tx.tx_burst(&mut moved).unwrap();
                b_tx.flush().unwrap();
                forwarded += ours;
            }
            hear.rx_burst(&mut heard).unwrap();
            for p in heard.drain_all().filter(|p| p[12..14] == [8, 0]) {
                assert_eq!(p[42..46], (arrived as u32).to_be_bytes(), "in order");
                arrived += 1;
            }
        }
        assert_eq!((sent, forwarded), (wanted, wanted));
        assert_eq!(a.counters().rx_dropped + b.counters().tx_errors, 0);
        drop((a_rx, a_tx, b_rx, b_tx, a, b, send, hear, source, sink, moved, heard));
        all_come_home(&pool);
    });
}

#[test]
fn an_interface_that_goes_down_or_away_is_reported() {
    in_namespace(|| {
        veth();
        let pool = BufferPool::new(CELLS).unwrap();
        let Some(mut port) = open(&pool, XdpMode::BestEffort) else { return };
        let (mut rx, mut tx) = port.take_queues(QueueId(0)).unwrap();
        ip("link set v0 down");
        let frame = udp().build();
        let mut b = PacketBatch::new();
        let mut poll = |b: &mut PacketBatch| (0..500).find_map(|_| rx.rx_burst(b).err());
        assert!(matches!(poll(&mut b), Some(IoError::Down)));
        assert!(matches!(tx.tx_burst(&mut batch(&pool, &[&frame])), Err(IoError::Down)));
        ip("link set v0 up");
        tx.tx_burst(&mut batch(&pool, &[&frame])).unwrap();
        ip("link del v0");
        assert!(matches!(poll(&mut b), Some(IoError::Gone)));
        assert!(matches!(tx.tx_burst(&mut batch(&pool, &[&frame])), Err(IoError::Gone)));
        assert!(port.is_gone());
        drop((rx, tx, port, b));
        all_come_home(&pool);
    });
}

#[test]
fn a_port_is_opened_again_after_it_was_dropped_and_not_twice_at_once() {
    in_namespace(|| {
        veth();
        let pool = BufferPool::new(CELLS).unwrap();
        let Some(first) = open(&pool, XdpMode::BestEffort) else { return };
        let e = AfXdpPort::open("v0", &pool, XdpMode::BestEffort).map(drop).unwrap_err();
        assert!(e.to_string().starts_with("interface v0: attach an XDP program"), "{e}");
        drop(first);
        for _ in 0..3 {
            drop(AfXdpPort::open("v0", &pool, XdpMode::BestEffort).unwrap());
        }
        all_come_home(&pool);
        let odd = BufferPool::with_cell_bytes(64, 3008).unwrap();
        let e = AfXdpPort::open("v0", &odd, XdpMode::BestEffort).map(drop).unwrap_err();
        assert!(e.to_string().contains("AF_XDP takes 2048 or 4096"), "{e}");
    });
}

#[test]
fn frames_that_do_not_fit_a_cell_are_counted_and_do_not_block_the_rest() {
    in_namespace(|| {
        veth();
        ip("link set v0 mtu 3000");
        ip("link set v1 mtu 3000");
        let pool = BufferPool::new(CELLS).unwrap();
        let Some(mut port) = open(&pool, XdpMode::BestEffort) else { return };
        let big = BufferPool::with_cell_bytes(64, 8192).unwrap();
        let mut far = netio::af_packet::AfPacketPort::open("v1", &big).unwrap();
        let (mut rx, _tx) = port.take_queues(QueueId(0)).unwrap();
        let (_, mut send) = far.take_queues(QueueId(0)).unwrap();
        let (long, fine) = (udp().pad_to(2500).build(), udp().build());
        assert_eq!(send.tx_burst(&mut batch(&big, &[&long, &fine])).unwrap(), 2);
        assert_eq!(receive(&mut *rx, |p| p == fine), Some(fine));
        let mut b = PacketBatch::new();
        let counted = (0..1000).any(|_| {
            rx.rx_burst(&mut b).unwrap();
            port.counters().rx_dropped == 1
        });
        assert!(counted, "{:?}", port.counters());
    });
}

#[test]
fn every_queue_of_an_interface_is_heard() {
    in_namespace(|| {
        ip("link add v0 numrxqueues 4 numtxqueues 4 type veth peer name v1 numrxqueues 4 numtxqueues 4");
        ip("link set v0 up");
        ip("link set v1 up");
        let pool = BufferPool::new(3 * CELLS).unwrap();
        let Some(mut port) = open(&pool, XdpMode::BestEffort) else { return };
        assert_eq!(port.queue_pairs(), 4);
        ip("addr add 192.0.2.2/24 dev v1");
        ip("neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev v1");
        let (mut rx, _tx) = merged::take_all(&mut port).unwrap();
        // Sent by whichever queue the kernel picks for a flow: of many flows, several.
        let missing: RefCell<BTreeSet<_>> = RefCell::new((3000..3064).collect());
        for to in missing.borrow().iter() {
            UdpSocket::bind("192.0.2.2:0").unwrap().send_to(b"flow", ("192.0.2.1", *to)).unwrap();
        }
        let last = receive(&mut *rx, |p| {
            let to = p.get(36..38).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
            let news = p.ends_with(b"flow") && missing.borrow_mut().remove(&to);
            news && missing.borrow().is_empty()
        });
        assert!(last.is_some(), "not heard: {missing:?}");
    });
}
