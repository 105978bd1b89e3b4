//! Packet sockets and TAP interfaces against the kernel, each test in a network namespace of its own.
//!
//! They need what [`support`] needs and, for TAP, /dev/net/tun; where that is missing they say so and do nothing.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::UdpSocket;
use std::process::Command;
use std::time::Instant;

use device::{BufferPool, IoError, PacketBatch, PacketIo, QueueId, RxQueue};
use flow::checksum::Sum;
use netio::af_packet::AfPacketPort;
use netio::netdev::{Netdev, disable_offloads};
use netio::tap::TapPort;
use support::{PATIENCE, batch, in_namespace, ip, receive, udp, veth};

#[test]
fn frames_cross_a_veth_pair_whole_and_are_not_heard_by_their_sender() {
    in_namespace(|| {
        veth();
        let pool = BufferPool::new(256).unwrap();
        let mut a = AfPacketPort::open("v0", &pool).unwrap();
        let mut b = AfPacketPort::open("v1", &pool).unwrap();
        assert!(a.link().admin_up && a.link().link_up);
        assert_eq!(a.mtu_frame_bytes(), 1514);
        assert_ne!(a.mac(), b.mac());
        let (mut a_rx, mut a_tx) = a.take_queues(QueueId(0)).unwrap();
        let (mut b_rx, mut b_tx) = b.take_queues(QueueId(0)).unwrap();
        let plain = udp().build();
        let tagged = udp().vlan(5, 3).build();
        let twice = udp().qinq(6, 7).build();
        // One at a time: `receive` throws away what comes with the packet it wants.
        for f in [&plain, &tagged, &twice] {
            assert_eq!(a_tx.tx_burst(&mut batch(&pool, &[f])).unwrap(), 1);
            assert_eq!(receive(&mut *b_rx, |p| p == f).as_ref(), Some(f), "VLAN tags must be put back");
        }
        // What comes back is the first that a hears: not its own.
        let answer = udp().payload(b"answer").build();
        b_tx.tx_burst(&mut batch(&pool, &[&answer])).unwrap();
        let heard = receive(&mut *a_rx, |p| p == answer || p == plain);
        assert_eq!(heard, Some(answer));
        assert_eq!(a.counters().tx_packets, 3);
        assert!(b.counters().rx_packets >= 3);
    });
}

#[test]
fn a_checksum_that_the_host_left_unfinished_is_finished() {
    in_namespace(|| {
        veth();
        ip("addr add 192.0.2.1/24 dev v0");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev v0");
        let pool = BufferPool::new(256).unwrap();
        let (mut rx, _tx) = AfPacketPort::open("v1", &pool).unwrap().take_queues(QueueId(0)).unwrap();
        let s = UdpSocket::bind("192.0.2.1:5000").unwrap();
        let check = |payload: &[u8], rx: &mut dyn RxQueue| {
            s.send_to(payload, "192.0.2.2:6000").unwrap();
            let f = receive(rx, |p| p.ends_with(payload)).expect("nothing came");
            let udp = &f[34..42 + payload.len()];
            let sum = Sum::ZERO.pseudo_v4(0xc000_0201, 0xc000_0202, 17, udp.len() as u16).bytes(udp);
            assert_eq!(sum.fold(), 0xffff, "checksum of {:02x?} is wrong", &f[..42]);
        };
        check(b"with checksum offload", &mut *rx);
        disable_offloads("v0").unwrap();
        disable_offloads("v1").unwrap();
        check(b"without it", &mut *rx);
    });
}

#[test]
fn offloads_are_off_after_disable_offloads() {
    in_namespace(|| {
        veth();
        disable_offloads("v0").unwrap();
        let Ok(out) = Command::new("ethtool").args(["-k", "v0"]).output() else {
            eprintln!("skipped: there is no ethtool command to ask");
            return;
        };
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        for f in [
            "tx-checksumming",
            "scatter-gather",
            "tx-tcp-segmentation",
            "tx-tcp6-segmentation",
            "generic-segmentation-offload",
        ] {
            assert!(text.contains(&format!("{f}: off")), "{f} in:\n{text}");
        }
    });
}

#[test]
fn an_interface_that_goes_down_or_away_is_reported() {
    in_namespace(|| {
        veth();
        let pool = BufferPool::new(64).unwrap();
        let mut port = AfPacketPort::open("v0", &pool).unwrap();
        let (mut rx, mut tx) = port.take_queues(QueueId(0)).unwrap();
        ip("link set v0 down");
        assert!(!port.link().admin_up);
        let frame = udp().build();
        assert!(matches!(tx.tx_burst(&mut batch(&pool, &[&frame])), Err(IoError::Down)));
        let mut b = PacketBatch::new();
        let mut poll = |b: &mut PacketBatch| (0..200).find_map(|_| rx.rx_burst(b).err());
        assert!(matches!(poll(&mut b), Some(IoError::Down)));
        ip("link set v0 up");
        tx.tx_burst(&mut batch(&pool, &[&frame])).unwrap();
        ip("link del v0");
        assert!(matches!(poll(&mut b), Some(IoError::Gone)));
        assert!(matches!(tx.tx_burst(&mut batch(&pool, &[&frame])), Err(IoError::Gone)));
        assert_eq!(port.link(), device::LinkState::default());
        // Another interface of that name is not the one that the port is on.
        veth();
        assert_eq!(port.link(), device::LinkState::default());
    });
}

#[test]
fn frames_that_do_not_fit_are_counted_and_do_not_block_the_rest() {
    in_namespace(|| {
        veth();
        ip("link set v0 mtu 4000");
        ip("link set v1 mtu 4000");
        let pool = BufferPool::new(64).unwrap();
        let big = BufferPool::with_cell_bytes(64, 8192).unwrap();
        let mut a = AfPacketPort::open("v0", &big).unwrap();
        let mut b = AfPacketPort::open("v1", &pool).unwrap();
        let (_a_rx, mut a_tx) = a.take_queues(QueueId(0)).unwrap();
        let (mut b_rx, _b_tx) = b.take_queues(QueueId(0)).unwrap();
        let (long, too_long, fine) = (udp().pad_to(3000).build(), udp().pad_to(6000).build(), udp().build());
        let mut out = batch(&big, &[&long, &too_long, &fine]);
        assert_eq!(a_tx.tx_burst(&mut out).unwrap(), 3);
        assert_eq!(receive(&mut *b_rx, |p| p == fine), Some(fine));
        assert_eq!((a.counters().tx_packets, a.counters().tx_errors), (2, 1));
        assert_eq!(b.counters().rx_errors, 1);
    });
}

#[test]
fn a_tap_interface_carries_frames_both_ways() {
    in_namespace(|| {
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: there is no /dev/net/tun");
            return;
        }
        let pool = BufferPool::new(64).unwrap();
        let mut port = TapPort::open("tap7", &pool).unwrap();
        let (mut rx, mut tx) = port.take_queues(QueueId(0)).unwrap();
        assert!(port.link().admin_up);
        ip("addr add 192.0.2.2/24 dev tap7");
        ip("neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev tap7");
        let s = UdpSocket::bind("192.0.2.2:7").unwrap();
        s.set_read_timeout(Some(PATIENCE)).unwrap();
        s.send_to(b"to the switch", "192.0.2.1:9").unwrap();
        let f = receive(&mut *rx, |p| p.ends_with(b"to the switch")).expect("nothing came");
        assert_eq!(f[..6], [2, 0, 0, 0, 0, 1]);
        let mac = port.mac();
        let to_host = udp().eth(mac, [2, 0, 0, 0, 0, 1]).build();
        assert_eq!(tx.tx_burst(&mut batch(&pool, &[&to_host])).unwrap(), 1);
        let mut b = [0; 100];
        let n = s.recv(&mut b).unwrap();
        assert_eq!(&b[..n], b"across the cable");
        assert_eq!(port.counters().tx_packets, 1);
        drop((port, rx, tx));
        // A child that another test is just starting may hold the descriptor for a moment.
        let deadline = Instant::now() + PATIENCE;
        while Netdev::open("tap7").is_ok() {
            assert!(Instant::now() < deadline, "it lasts longer than the port");
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_burst_of_frames_that_do_not_fit_ends_like_any_other() {
    in_namespace(|| {
        if !std::path::Path::new("/dev/net/tun").exists() {
            eprintln!("skipped: there is no /dev/net/tun");
            return;
        }
        let pool = BufferPool::new(64).unwrap();
        let mut port = TapPort::open("t0", &pool).unwrap();
        ip("link set t0 mtu 9000");
        ip("addr add 192.0.2.1/24 dev t0");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev t0");
        let (mut rx, _tx) = port.take_queues(QueueId(0)).unwrap();
        let host = UdpSocket::bind("192.0.2.1:7").unwrap();
        for _ in 0..100 {
            host.send_to(&[0; 5000], "192.0.2.2:7").unwrap();
        }
        let mut b = PacketBatch::new();
        rx.rx_burst(&mut b).unwrap();
        let refused = port.counters().rx_errors;
        assert!((1..=32).contains(&refused), "{refused} in one burst");
        for _ in 0..20 {
            rx.rx_burst(&mut b).unwrap();
            b.clear();
        }
        assert_eq!(port.counters().rx_errors, 100);
    });
}
