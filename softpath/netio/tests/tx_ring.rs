//! Sending from a ring that the kernel shares, against the kernel, each test in a network namespace of its own.
//!
//! They need what [`support`] needs; where that is missing they say so and do nothing.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use device::{BATCH, BufferPool, IoError, PacketBatch, PacketIo, QueueId, RxQueue, TxQueue};
use netio::af_packet::{AfPacketPort, Sending};
use netio::netdev::Netdev;
use support::{PATIENCE, batch, in_namespace, ip, receive, udp, veth};

fn queues(port: &mut AfPacketPort) -> (Box<dyn RxQueue>, Box<dyn TxQueue>) {
    port.take_queues(QueueId(0)).unwrap()
}

#[test]
fn frames_leave_the_ring_in_order_and_whole_and_it_goes_round() {
    in_namespace(|| {
        veth();
        let pool = BufferPool::new(256).unwrap();
        let mut a = AfPacketPort::open_with("v0", &pool, 1, Sending::Ring).unwrap();
        let mut b = AfPacketPort::open("v1", &pool).unwrap();
        let (_a_rx, mut a_tx) = queues(&mut a);
        let (mut b_rx, _b_tx) = queues(&mut b);
        // More than three times the ring's slots.
        for round in 0..26u16 {
            let frames: Vec<_> = (0..BATCH as u16)
                .map(|i| {
                    let n = round * BATCH as u16 + i;
                    udp().payload(&n.to_be_bytes()).pad_to(60 + usize::from(n) % 1400).build()
                })
                .collect();
            let all: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let mut out = batch(&pool, &all);
            assert_eq!(a_tx.tx_burst(&mut out).unwrap(), BATCH, "round {round}");
            // `receive` throws away what comes with the frame that it wants: the last of a burst says that all went.
            let last = &frames[BATCH - 1];
            assert!(
                receive(&mut *b_rx, |p| p == last).is_some(),
                "round {round} did not come as it was sent"
            );
        }
        assert_eq!((a.counters().tx_packets, a.counters().tx_errors), (26 * BATCH as u64, 0));
    });
}

#[test]
fn a_frame_that_the_interface_does_not_take_is_counted_and_those_behind_it_go() {
    in_namespace(|| {
        veth();
        let big = BufferPool::with_cell_bytes(64, 32_768).unwrap();
        let mut a = AfPacketPort::open_with("v0", &big, 1, Sending::Ring).unwrap();
        let mut b = AfPacketPort::open("v1", &big).unwrap();
        let (_a_rx, mut a_tx) = queues(&mut a);
        let (mut b_rx, _b_tx) = queues(&mut b);
        // One that has room in a slot, and one that has not.
        let (long, longer, fine) = (udp().pad_to(1700).build(), udp().pad_to(20_000).build(), udp().build());
        let mut out = batch(&big, &[&long, &longer, &fine]);
        assert_eq!(a_tx.tx_burst(&mut out).unwrap(), 3);
        assert!(out.is_empty());
        assert_eq!(receive(&mut *b_rx, |p| p == fine), Some(fine));
        assert_eq!((a.counters().tx_packets, a.counters().tx_errors), (1, 2));
    });
}

#[test]
fn what_an_interface_that_is_down_did_not_take_stays_with_the_caller_and_is_not_sent_later() {
    in_namespace(|| {
        veth();
        let pool = BufferPool::new(64).unwrap();
        let mut a = AfPacketPort::open_with("v0", &pool, 1, Sending::Ring).unwrap();
        let mut b = AfPacketPort::open("v1", &pool).unwrap();
        let (_a_rx, mut a_tx) = queues(&mut a);
        let (mut b_rx, _b_tx) = queues(&mut b);
        let (stale, fresh) = (udp().payload(b"stale").build(), udp().payload(b"fresh").build());
        ip("link set v0 down");
        let mut out = batch(&pool, &[&stale, &stale]);
        assert!(matches!(a_tx.tx_burst(&mut out), Err(IoError::Down)));
        assert_eq!(out.len(), 2, "dropped without a word");
        ip("link set v0 up");
        assert_eq!(a_tx.tx_burst(&mut batch(&pool, &[&fresh])).unwrap(), 1);
        let first = receive(&mut *b_rx, |p| p == stale || p == fresh);
        assert_eq!(first, Some(fresh));
        assert_eq!(a.counters().tx_packets, 1);
        ip("link del v0");
        assert!(matches!(a_tx.tx_burst(&mut out), Err(IoError::Gone)));
        assert_eq!(out.len(), 2);
    });
}

/// Datagrams that are read late.
const LATE: u32 = 600;

/// Sends datagrams that a program of this host reads only when all are there; how many of them are what was sent.
fn read_late(sending: Sending) -> (u32, u32) {
    veth();
    ip("addr add 192.0.2.2/24 dev v1");
    let pool = BufferPool::new(64).unwrap();
    let mut a = AfPacketPort::open_with("v0", &pool, 1, sending).unwrap();
    let (_rx, mut tx) = queues(&mut a);
    let host = UdpSocket::bind("192.0.2.2:7").unwrap();
    host.set_read_timeout(Some(PATIENCE)).unwrap();
    let room: libc::c_int = 16 << 20;
    // SAFETY: passes a live integer and its size.
    let rc = unsafe {
        let (fd, len) = (host.as_raw_fd(), size_of_val(&room) as libc::socklen_t);
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, (&raw const room).cast(), len)
    };
    assert_eq!(rc, 0);
    let mac = Netdev::open("v1").unwrap().mac().unwrap();
    // More than twice the ring's slots.
    let n = LATE;
    let text = |i: u32| format!("{i:08}").repeat(150).into_bytes();
    let mut out = PacketBatch::new();
    for i in 0..n {
        let f = udp().eth(mac, [2, 0, 0, 0, 0, 1]).ipv4([192, 0, 2, 1], [192, 0, 2, 2]);
        let f = f.udp(9, 7).payload(&text(i)).build();
        let _ = out.push(pool.copy_from(&f).unwrap());
        tx.tx_burst(&mut out).unwrap();
        assert!(out.is_empty(), "{i}");
    }
    let mut b = [0; 2000];
    let (mut came, mut whole) = (0, 0);
    for i in 0..n {
        let Ok(len) = host.recv(&mut b) else { break };
        came += 1;
        whole += u32::from(b[..len] == text(i)[..]);
    }
    (came, whole)
}

#[test]
fn datagrams_that_a_program_of_this_host_reads_late_are_what_was_sent() {
    in_namespace(|| {
        assert_eq!(read_late(Sending::Fit), (LATE, LATE));
        assert!(!Netdev::open("v0").unwrap().is_hardware());
    });
    // From a ring too: the kernel has them to itself before it says that their slots are free.
    in_namespace(|| assert_eq!(read_late(Sending::Ring), (LATE, LATE)));
}
