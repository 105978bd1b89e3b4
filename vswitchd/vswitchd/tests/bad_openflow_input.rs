//! What a peer can do wrong, and that it neither takes the switch down nor takes its memory.
#![allow(clippy::unwrap_used)]

mod peer;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openflow::error::*;
use openflow::message::Body;
use openflow::multipart::MultipartRequest;
use openflow::number::{MacAddr, PortNo};
use openflow::port::*;
use openflow::switch::ControllerSink;
use openflow::version::VersionSet;
use openflow::{Message, Version, encode};
use peer::{Client, Rig, ToySwitch};
use tokio::io::AsyncWriteExt;
use vswitchd::controller::{Disconnect, HubCounters, Limits};

fn count(c: &HubCounters, why: Disconnect) -> u64 {
    c.disconnects[Disconnect::ALL.iter().position(|d| *d == why).unwrap()]
}

async fn rig() -> Rig {
    Rig::new(Limits::default(), Arc::new(ToySwitch::default())).await
}

fn frame(kind: u8, xid: u8, body: &[u8]) -> Vec<u8> {
    let len = (8 + body.len()) as u16;
    [&[4, kind][..], &len.to_be_bytes(), &[0, 0, 0, xid], body].concat()
}

#[tokio::test]
async fn malformed_messages_get_the_right_error_and_the_connection_goes_on() {
    let rig = rig().await;
    let mut c = rig.client().await;
    let flow_mod = |tail: &[u8]| {
        let mut b = vec![0; 40];
        b[22] = 0x80;
        b[24..36].fill(0xff);
        b.extend_from_slice(tail);
        frame(14, 9, &b)
    };
    let cases: Vec<(&str, Vec<u8>, ErrorCode)> = vec![
        ("unknown type", frame(77, 1, &[]), BadRequest::BadType.into()),
        ("another version", [&[5u8][..], &frame(5, 1, &[])[1..]].concat(), BadRequest::BadVersion.into()),
        ("features request with a body", frame(5, 1, &[0; 4]), BadRequest::BadLen.into()),
        ("short flow-mod", frame(14, 1, &[0; 20]), BadRequest::BadLen.into()),
        (
            "unknown command",
            {
                let mut m = flow_mod(&[0, 1, 0, 4, 0, 0, 0, 0]);
                m[25] = 9;
                m
            },
            FlowModFailed::BadCommand.into(),
        ),
        ("standard match", flow_mod(&[0, 0, 0, 4, 0, 0, 0, 0]), BadMatch::BadType.into()),
        ("match longer than its message", flow_mod(&[0, 1, 0xff, 0, 0, 0, 0, 0]), BadMatch::BadLen.into()),
        ("match shorter than its header", flow_mod(&[0, 1, 0, 1, 0, 0, 0, 0]), BadMatch::BadLen.into()),
        (
            "unknown field",
            flow_mod(&[0, 1, 0, 9, 0x80, 0, 0xfe, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            BadMatch::BadField.into(),
        ),
        (
            "wrong length of a field",
            flow_mod(&[0, 1, 0, 9, 0x80, 0, 0x0a, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
            BadMatch::BadLen.into(),
        ),
        (
            "tcp port without a protocol",
            flow_mod(&[0, 1, 0, 10, 0x80, 0, 0x1a, 2, 0, 80, 0, 0, 0, 0, 0, 0]),
            BadMatch::BadPrereq.into(),
        ),
        (
            "field twice",
            flow_mod(&[0, 1, 0, 16, 0x80, 0, 0x0a, 2, 8, 0, 0x80, 0, 0x0a, 2, 8, 0]),
            BadMatch::DupField.into(),
        ),
        (
            "unknown instruction",
            flow_mod(&[0, 1, 0, 4, 0, 0, 0, 0, 0, 77, 0, 8, 0, 0, 0, 0]),
            BadInstruction::UnknownInst.into(),
        ),
        (
            "instruction twice",
            flow_mod(&[0, 1, 0, 4, 0, 0, 0, 0, 0, 1, 0, 8, 1, 0, 0, 0, 0, 1, 0, 8, 1, 0, 0, 0]),
            BadInstruction::DupInst.into(),
        ),
        (
            "instruction of length 0",
            flow_mod(&[0, 1, 0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0]),
            BadInstruction::BadLen.into(),
        ),
        (
            "unknown action",
            flow_mod(&[0, 1, 0, 4, 0, 0, 0, 0, 0, 4, 0, 16, 0, 0, 0, 0, 0, 77, 0, 8, 0, 0, 0, 0]),
            BadAction::BadType.into(),
        ),
        (
            "action of length 0",
            flow_mod(&[0, 1, 0, 4, 0, 0, 0, 0, 0, 4, 0, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            BadAction::BadLen.into(),
        ),
        (
            "output to a number that no port can have",
            flow_mod(&[
                0, 1, 0, 4, 0, 0, 0, 0, 0, 4, 0, 24, 0, 0, 0, 0, 0, 0, 0, 16, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
                0, 0,
            ]),
            BadAction::BadOutPort.into(),
        ),
        (
            "packet-out with more actions than message",
            frame(13, 1, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0xff, 0xf8, 0, 0, 0, 0, 0, 0]),
            BadRequest::BadLen.into(),
        ),
        (
            "unknown statistics",
            frame(18, 1, &[0x12, 0x34, 0, 0, 0, 0, 0, 0]),
            BadRequest::BadMultipart.into(),
        ),
        ("unknown experimenter", frame(4, 1, &[0, 1, 2, 3, 0, 0, 0, 0]), BadRequest::BadExperimenter.into()),
        (
            "unknown Nicira message",
            frame(4, 1, &[0, 0, 0x23, 0x20, 0, 0, 0, 99]),
            BadRequest::BadExpType.into(),
        ),
        (
            "bad role",
            frame(24, 1, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            RoleRequestFailed::BadRole.into(),
        ),
        ("a switch's message", frame(21, 1, &[]), BadRequest::BadType.into()),
    ];
    for (what, bytes, code) in cases {
        c.raw(&bytes).await;
        let Message { xid, body: Body::Error(e) } = c.receive().await else { panic!("{what}: no error") };
        assert_eq!(e.code, code, "{what}");
        assert_eq!(xid, u32::from(bytes[7]), "{what}");
        let echoed = e.data.len().min(64);
        assert_eq!(e.data[..echoed], bytes[..echoed], "{what}: the error carries the message");
        assert!(c.is_alive().await, "{what}");
    }
}

#[tokio::test]
async fn messages_may_come_in_any_pieces() {
    let rig = rig().await;
    let mut c = rig.client().await;
    for b in frame(2, 5, b"piecemeal") {
        c.raw(&[b]).await;
        c.stream.flush().await.unwrap();
    }
    assert_eq!(c.receive().await.body, Body::EchoReply(b"piecemeal".to_vec()));
    let many: Vec<u8> = (0..200).flat_map(|i| frame(2, i as u8, &[i as u8])).collect();
    c.raw(&many).await;
    for i in 0..200u32 {
        let m = c.receive().await;
        assert_eq!((m.xid, m.body), (i, Body::EchoReply(vec![i as u8])));
    }
}

#[tokio::test]
async fn a_length_below_the_header_is_answered_and_ends_the_connection() {
    let rig = rig().await;
    for len in 0..8u8 {
        let mut c = rig.client().await;
        c.raw(&[4, 2, 0, len, 0, 0, 0, 1]).await;
        assert_eq!(c.error().await, BadRequest::BadLen.into());
        assert!(c.next().await.is_none());
    }
    rig.until("ends counted", |h| count(&h.counters(), Disconnect::Framing) == 8).await;
}

#[tokio::test]
async fn garbage_and_half_messages_leave_other_connections_alone() {
    let rig = rig().await;
    let mut good = rig.client().await;
    for seed in 0..50u64 {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let garbage: Vec<u8> = std::iter::repeat_with(|| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .take(3000)
        .collect();
        // Without a hello, with one, and in the middle of a message.
        let mut c = Client::open(&rig.socket).await;
        let _ = c.stream.write_all(&garbage).await;
        let mut c = rig.client().await;
        let _ = c.stream.write_all(&garbage).await;
        let mut c = rig.client().await;
        let _ = c.stream.write_all(&frame(14, 1, &garbage[..1000])[..700]).await;
    }
    assert!(good.is_alive().await);
}

#[tokio::test]
async fn another_version_is_refused_with_a_text() {
    let rig = rig().await;
    rig.hub.set_versions(VersionSet::only(Version::V13));
    for (hello, version) in [
        (vec![1, 0, 0, 8, 0, 0, 0, 3], 1),
        (vec![6, 0, 0, 16, 0, 0, 0, 3, 0, 1, 0, 8, 0, 0, 0, 0b110_0000], 4),
    ] {
        let mut c = Client::open(&rig.socket).await;
        c.raw(&hello).await;
        assert!(matches!(c.receive().await.body, Body::Hello(_)));
        let Body::Error(e) = c.receive().await.body else { panic!("no error") };
        assert_eq!(e.code, HelloFailed::Incompatible.into(), "{version}");
        assert!(String::from_utf8(e.data).unwrap().contains("versions"));
        assert!(c.next().await.is_none());
    }
    assert_eq!(count(&rig.hub.counters(), Disconnect::Version), 2);
}

#[tokio::test]
async fn a_peer_without_hello_is_dropped_in_time() {
    let limits = Limits { handshake: Duration::from_millis(50), ..Limits::default() };
    let rig = Rig::new(limits, Arc::new(ToySwitch::default())).await;
    let mut silent = Client::open(&rig.socket).await;
    assert!(matches!(silent.receive().await.body, Body::Hello(_)));
    assert!(silent.next().await.is_none());
    let mut rude = Client::open(&rig.socket).await;
    rude.raw(&frame(5, 1, &[])).await;
    assert!(matches!(rude.receive().await.body, Body::Hello(_)));
    assert_eq!(rude.error().await, BadRequest::BadType.into());
    assert!(rude.next().await.is_none());
    rig.until("both counted", |h| count(&h.counters(), Disconnect::NoHello) == 2).await;
}

#[tokio::test]
async fn a_reply_without_end_is_made_only_as_it_is_read_and_its_reader_given_up() {
    let toy = Arc::new(ToySwitch::default());
    let limits = Limits { output_bytes: 64 << 10, local_stall: Limits::default().stall, ..Limits::default() };
    let rig = Rig::new(limits, Arc::clone(&toy) as _).await;
    let mut c = rig.client().await;
    c.send(Message {
        xid: 2,
        body: Body::MultipartRequest { more: false, request: MultipartRequest::Table },
    })
    .await;
    let first = c.receive().await;
    assert_eq!(first.xid, 2);
    // Parts of 24 kB: what fits the socket and the output, not more, however long we wait.
    let mut other = rig.client().await;
    for _ in 0..100 {
        assert!(other.is_alive().await);
    }
    let made = toy.parts_made.load(Ordering::Relaxed);
    assert!((1..100).contains(&made), "{made} parts");
    // Time passes; the peer still does not read.
    let mut ended = false;
    for _ in 0..40 {
        rig.clock.advance(Duration::from_secs(1));
        assert!(other.is_alive().await);
        let c = rig.hub.counters();
        ended = count(&c, Disconnect::Stalled) + count(&c, Disconnect::Inactive) == 1;
        if ended {
            break;
        }
        // The connection looks at the clock once a second.
        tokio::time::timeout(Duration::from_millis(300), std::future::pending::<()>()).await.unwrap_err();
    }
    assert!(ended, "{:?}", rig.hub.counters());
    assert!(toy.parts_made.load(Ordering::Relaxed) < 100);
}

#[tokio::test]
async fn requests_of_a_peer_that_does_not_read_stay_in_its_socket() {
    let limits = Limits { output_bytes: 64 << 10, local_stall: Limits::default().stall, ..Limits::default() };
    let rig = Rig::new(limits, Arc::new(ToySwitch::default())).await;
    let c = rig.client().await;
    // 60 kB of echo each: after socket buffers and output are full, writing blocks.
    let big = frame(2, 1, &vec![0x55; 60_000]);
    let mut accepted = 0;
    for _ in 0..1000 {
        match c.stream.try_write(&big) {
            Ok(n) => accepted += n,
            Err(_) => {
                let writable = tokio::time::timeout(Duration::from_millis(200), c.stream.writable()).await;
                if writable.is_err() {
                    break;
                }
            }
        }
    }
    assert!(accepted < 8 << 20, "{accepted} bytes taken from a peer that does not read");
    assert!(rig.client().await.is_alive().await);
}

#[tokio::test]
async fn a_peer_that_does_not_read_events_is_disconnected_at_the_bound() {
    let toy = Arc::new(ToySwitch::default());
    let limits = Limits { output_bytes: 16 << 10, pending_bytes: 64 << 10, ..Limits::default() };
    let rig = Rig::new(limits, Arc::clone(&toy) as _).await;
    let mut c = rig.client().await;
    c.ask(
        3,
        Body::RoleRequest(openflow::message::RoleMessage {
            role: openflow::message::Role::NoChange,
            generation_id: Some(0),
        }),
    )
    .await;
    c.send(Message {
        xid: 4,
        body: Body::SetConfig(openflow::message::SwitchConfig { frag: 0, miss_send_len: 100 }),
    })
    .await;
    assert!(c.is_alive().await);
    let status = PortStatus {
        reason: PortReason::Modify,
        desc: PortDesc {
            port: PortNo(1),
            hw_addr: MacAddr([2; 6]),
            name: "p1".into(),
            config: PortConfig::NONE,
            state: PortState::NONE,
            current: PortFeatures::NONE,
            advertised: PortFeatures::NONE,
            supported: PortFeatures::NONE,
            peer: PortFeatures::NONE,
            current_speed_kbps: 0,
            max_speed_kbps: 0,
        },
    };
    let mut sent = 0;
    while count(&rig.hub.counters(), Disconnect::QueueFull) == 0 {
        for _ in 0..100 {
            rig.hub.port_status(status.clone());
        }
        sent += 100;
        assert!(sent < 100_000, "not disconnected: {:?}", rig.hub.counters());
        tokio::task::yield_now().await;
    }
    assert_eq!(toy.disconnected.load(Ordering::Relaxed), 1);
    assert!(rig.client().await.is_alive().await);
}

#[tokio::test]
async fn a_flooding_peer_does_not_starve_others() {
    let rig = rig().await;
    let mut flood = rig.client().await;
    let mut burst = Vec::new();
    for i in 0..2000 {
        encode(Version::V13, &Message { xid: i, body: Body::BarrierRequest }, &mut burst).unwrap();
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let flooder = tokio::spawn(async move {
        let mut n = 0u64;
        while !stopped.load(Ordering::Relaxed) {
            flood.raw(&burst).await;
            for _ in 0..2000 {
                flood.receive().await;
                n += 1;
            }
        }
        n
    });
    let mut polite = rig.client().await;
    for _ in 0..200 {
        assert!(polite.is_alive().await);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(flooder.await.unwrap() >= 2000);
}

#[tokio::test]
async fn connections_beyond_the_bound_are_refused() {
    let limits = Limits { accepted: 2, reserved: 0, ..Limits::default() };
    let rig = Rig::new(limits, Arc::new(ToySwitch::default())).await;
    let mut a = rig.client().await;
    let b = rig.client().await;
    let mut refused = Client::open(&rig.socket).await;
    assert!(refused.next().await.is_none());
    assert!(a.is_alive().await);
    assert_eq!(rig.hub.counters().refused, 1);
    drop(b);
    rig.until("the end noticed", |h| h.connections().len() == 1).await;
    rig.until("room again", |h| h.accepted_free() == 1).await;
    assert!(rig.client().await.is_alive().await);
}

#[tokio::test]
async fn remote_connections_leave_room_for_local_ones() {
    let limits = Limits { accepted: 2, reserved: 1, ..Limits::default() };
    let switch = Arc::new(ToySwitch::default());
    let rig = Rig::new(limits, switch.clone()).await;
    let remote = daemon::Passive::Tcp { host: Some("127.0.0.1".into()), port: Some(0) };
    let remote = daemon::Listener::bind(&remote, 0).await.unwrap();
    let port = remote.tcp_port().unwrap();
    let (_stop, stopped) = daemon::signals::stop_channel();
    tokio::spawn(vswitchd::controller::listen(
        Arc::clone(&rig.hub),
        switch,
        remote,
        Default::default(),
        stopped,
    ));
    let connect = || tokio::net::TcpStream::connect(("127.0.0.1", port));
    let _held = [connect().await.unwrap(), connect().await.unwrap()];
    rig.until("both places are taken", |h| h.accepted_free() == 0).await;
    let _third = connect().await.unwrap();
    rig.until("a third is refused", |h| h.counters().refused == 1).await;
    let mut local = rig.client().await;
    assert!(local.is_alive().await);
    let mut refused = Client::open(&rig.socket).await;
    assert!(refused.next().await.is_none(), "that was the one reserved place");
}
