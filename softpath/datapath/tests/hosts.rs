//! Two hosts of the kernel, each in a network namespace of its own, talk TCP through the datapath on packet sockets.
//!
//! Needs root and `ip`; where they are missing it says so and does nothing.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use clock::HostClock;
use datapath::{DatapathConfig, PortConfig, SoftDatapath};
use datapath_api::{
    Datapath, DropReason, FlowCounters, FlowRecord, Miss, MissHandler, Punt, PuntSink, Translation,
    Translations,
};
use device::{BufferPool, PacketIo, QueueId};
use flow::{Action, FieldId, FlowId, PacketMask, PacketMatch, PortId};
use netio::af_packet::AfPacketPort;
use netio::netdev::disable_offloads;

const BYTES: usize = 4 << 20;

/// A cable between ports 1 and 2: a record for each Ethernet type.
struct Patch(AtomicU64);

impl MissHandler for Patch {
    fn translate(&self, misses: &[Miss], now: clock::Instant, out: &mut Translations) {
        let mut mask = PacketMask::ZERO;
        for f in [FieldId::DpPort, FieldId::RecircId, FieldId::EthType] {
            mask.set_exact(f);
        }
        for m in misses {
            let to = 3 - m.key.get64(FieldId::DpPort) as u32;
            out.push(Translation::Keep(Arc::new(FlowRecord {
                id: FlowId(self.0.fetch_add(1, Ordering::Relaxed)),
                matches: PacketMatch::new(&m.key, &mask).into(),
                actions: [Action::Output(PortId(to))].into(),
                counters: Arc::new(FlowCounters::default()),
                owner: Arc::new(()),
                created: now,
            })));
        }
    }
}

impl PuntSink for Patch {
    fn punt(&self, _: Punt) -> bool {
        false
    }
}

/// `ip` in the calling thread's namespace.
fn ip(args: &str) {
    let out = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

fn enter_namespace() -> bool {
    // SAFETY: affects the calling thread only.
    unsafe { libc::unshare(libc::CLONE_NEWNET) == 0 }
}

/// A host in its own namespace: tells its thread id, waits for its interface, runs.
fn host<T: Send + 'static>(
    interface: &'static str,
    address: &'static str,
    id: Sender<i32>,
    go: Receiver<()>,
    run: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        assert!(enter_namespace());
        // SAFETY: takes no arguments and cannot fail.
        id.send(unsafe { libc::gettid() }).unwrap();
        go.recv().unwrap();
        ip(&format!("addr add {address}/24 dev {interface}"));
        ip(&format!("link set {interface} up"));
        run()
    })
}

fn switch() {
    if !enter_namespace() {
        eprintln!("skipped: no network namespace: {}", std::io::Error::last_os_error());
        return;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        eprintln!("skipped: there is no ip command");
        return;
    }
    let (id, ids) = channel();
    let (go_a, wait_a) = channel();
    let (go_b, wait_b) = channel();
    let (listening, ready) = channel();
    let server = host("h2", "192.0.2.2", id.clone(), wait_b, move || {
        let l = TcpListener::bind("192.0.2.2:7000").unwrap();
        listening.send(()).unwrap();
        let (mut s, _) = l.accept().unwrap();
        s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut sum = 0u64;
        let mut n = 0;
        let mut b = vec![0; 65536];
        while n < BYTES {
            let k = match s.read(&mut b) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.unwrap(),
            };
            assert!(k > 0, "the connection ended after {n} bytes");
            sum += b[..k].iter().map(|x| u64::from(*x)).sum::<u64>();
            n += k;
        }
        s.write_all(&sum.to_be_bytes()).unwrap();
    });
    let server_id = ids.recv().unwrap();
    let client = host("h1", "192.0.2.1", id, wait_a, || {
        let mut s =
            TcpStream::connect_timeout(&"192.0.2.2:7000".parse().unwrap(), Duration::from_secs(20)).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let data: Vec<u8> = (0..BYTES).map(|i| (i * 7) as u8).collect();
        s.write_all(&data).unwrap();
        let mut sum = [0; 8];
        s.read_exact(&mut sum).unwrap();
        assert_eq!(u64::from_be_bytes(sum), data.iter().map(|x| u64::from(*x)).sum::<u64>());
    });
    let client_id = ids.recv().unwrap();

    let patch = Arc::new(Patch(AtomicU64::new(1)));
    let dp = SoftDatapath::new(DatapathConfig::default(), Arc::new(HostClock::new()), patch.clone(), patch)
        .unwrap();
    let pool = BufferPool::new(4096).unwrap();
    for (i, host) in [(1, client_id), (2, server_id)] {
        ip(&format!("link add s{i} type veth peer name h{i}"));
        disable_offloads(&format!("h{i}")).unwrap();
        disable_offloads(&format!("s{i}")).unwrap();
        ip(&format!("link set h{i} netns {host}"));
        ip(&format!("link set s{i} up"));
        let (rx, tx) = AfPacketPort::open(&format!("s{i}"), &pool).unwrap().take_queues(QueueId(0)).unwrap();
        dp.attach(PortConfig::new(PortId(i), format!("s{i}")), rx, tx).unwrap();
    }
    let mut core = dp.take_core(0).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let running = stop.clone();
    let forwarding = std::thread::spawn(move || core.run(&running));
    go_b.send(()).unwrap();
    ready.recv().unwrap();
    go_a.send(()).unwrap();
    let results = [client.join(), server.join()];
    stop.store(true, Ordering::Release);
    dp.wake();
    forwarding.join().unwrap();
    let s = dp.stats();
    for r in results {
        r.unwrap_or_else(|e| {
            eprintln!("{s:?}");
            std::panic::resume_unwind(e)
        });
    }
    assert!(s.rx_packets as usize > BYTES / 1500, "{s:?}");
    assert!(s.exact_hits > s.misses * 10, "{s:?}");
    let lost: u64 = [DropReason::TxFull, DropReason::TxError].iter().map(|r| s.drops[*r as usize]).sum();
    assert_eq!(s.rx_packets, s.tx_packets + lost, "{s:?}");
}

#[test]
fn tcp_data_arrives_whole_through_packet_sockets() {
    if let Err(e) = std::thread::spawn(switch).join() {
        std::panic::resume_unwind(e);
    }
}
