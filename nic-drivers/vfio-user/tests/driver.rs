//! The SmartNIC's driver on a device in another process: frames and rules through shared memory and a socket; the process killed under
//! load and started again.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use clock::HostClock;
use device::{BufferPool, DeviceBacking, PacketBatch, PacketIo, QueueId, QueuePair};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use offload::{FlowOp, FlowRule, OffloadError, OffloadProvider, OpId, OpResult};
use simnic::{Simnic, SimnicConfig, SimnicDriver};
use vfio_user::UserBacking;

use support::{Thread, serve, wait};

const CELLS: u32 = 2048;
/// Where a process of this test's serves a device, when it is one that does.
const SOCKET: &str = "HOIST_TEST_SERVE_AT";

struct Bench {
    nic: Simnic<UserBacking>,
    queues: Vec<QueuePair>,
    pool: BufferPool,
}

impl Bench {
    fn new(path: &Path) -> Bench {
        let pool = BufferPool::new(CELLS).unwrap();
        let backing = UserBacking::connect(path, "vfio-user:test").unwrap();
        let mut config = SimnicConfig::new(vec![(PortId(1), 0), (PortId(2), 1)]);
        (config.ring_log2, config.step_timeout, config.cmd_timeout) =
            (8, Duration::from_secs(5), Duration::from_secs(5));
        let mut nic =
            SimnicDriver::bring_up(backing, pool.clone(), config, Arc::new(HostClock::new())).unwrap();
        let queues = nic.ports.iter_mut().take(2).map(|p| p.take_queues(QueueId(0)).unwrap()).collect();
        Bench { nic, queues, pool }
    }

    /// Sends a frame by port `from`; whether the queue took it.
    fn send(&mut self, from: usize, frame: &[u8]) -> bool {
        let mut b = PacketBatch::new();
        let Some(p) = self.pool.copy_from(frame) else { return false };
        b.push(p).unwrap();
        matches!(self.queues[from].1.tx_burst(&mut b), Ok(1))
    }

    fn received(&mut self, by: usize) -> Vec<Vec<u8>> {
        let mut b = PacketBatch::new();
        match self.queues[by].0.rx_burst(&mut b) {
            Ok(_) => b.drain_all().map(|p| p.to_vec()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Frames get from one port to the other again, after a device came back: what was sent before its receive ring was
    /// filled is lost, as on any wire, and sent again.
    fn passes_again(&mut self, n: u8) {
        let f = frame(n);
        let mut next = Instant::now();
        wait(|| {
            self.nic.provider.poll(&mut Vec::new(), 8);
            if Instant::now() >= next && self.send(0, &f) {
                next = Instant::now() + Duration::from_millis(50);
            }
            self.received(1).contains(&f)
        });
    }

    /// A frame gets from one port to the other.
    fn passes(&mut self, n: u8) {
        let f = frame(n);
        let mut sent = false;
        wait(|| {
            self.nic.provider.poll(&mut Vec::new(), 8);
            sent = sent || self.send(0, &f);
            self.received(1).contains(&f)
        });
    }
}

fn frame(n: u8) -> Vec<u8> {
    let mut f = vec![n; 80];
    f[0] = 2;
    f[12..14].copy_from_slice(&[0x88, 0xb5]);
    f
}

fn run(b: &mut Bench, op: FlowOp) -> OpResult {
    assert_eq!(b.nic.provider.submit(&[op]), 1);
    let mut out = Vec::new();
    wait(|| b.nic.provider.poll(&mut out, 1) == 1);
    out.remove(0).result
}

#[test]
fn frames_rules_and_interrupts_go_through_the_socket() {
    let server = Thread::start();
    let mut b = Bench::new(&server.path);
    for n in 0..40 {
        b.passes(n);
    }
    // Port 1 sends what comes from its wire back to port 0's: by hardware, without software seeing it.
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 2);
    m.set(FieldId::EthType, 0x88b5);
    let actions = [Action::Output(PortId(2))].into();
    let rule = FlowRule { id: FlowId(1), matches: m, actions, provenance: [].into() };
    if let OpResult::Installed(h, _) = run(&mut b, FlowOp::Install(OpId(1), rule)) {
        assert!(b.send(0, &frame(77)));
        wait(|| b.received(0).contains(&frame(77)));
        assert!(b.received(1).is_empty());
        assert!(matches!(run(&mut b, FlowOp::Remove(OpId(2), h)), OpResult::Removed(_, s) if s.packets == 1));
    } else {
        panic!("not installed");
    }
    // Somebody sleeps on the queue, and is woken by an eventfd that the other process raises.
    assert!(b.received(1).is_empty());
    let fd = b.queues[1].0.poll_fd().map(|f| f.as_raw_fd());
    assert!(fd.is_some());
    assert!(b.received(1).is_empty());
    assert!(b.send(0, &frame(78)));
    let mut got = Vec::new();
    wait(|| {
        got.extend(b.received(1));
        !got.is_empty()
    });
    assert_eq!(b.nic.provider.violations(), Default::default());
    drop(b);
}

#[test]
fn buffers_come_home_and_the_next_client_finds_a_fresh_device() {
    let server = Thread::start();
    for _ in 0..3 {
        let mut b = Bench::new(&server.path);
        b.passes(1);
        let pool = b.pool.clone();
        drop(b);
        assert_eq!(pool.free_cells(), CELLS as usize);
    }
}

/// The other process.
struct Process(Child);

impl Process {
    fn start(path: &Path) -> Process {
        let exe = std::env::current_exe().unwrap();
        let child =
            Command::new(exe).args(["--exact", "serves_in_a_process_of_its_own"]).env(SOCKET, path).spawn();
        let p = Process(child.unwrap());
        wait(|| std::os::unix::net::UnixStream::connect(path).is_ok());
        p
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Nothing in a run of the tests; the device in a process that a test has started.
#[test]
fn serves_in_a_process_of_its_own() {
    if let Some(path) = std::env::var_os(SOCKET) {
        serve(Path::new(&path), &AtomicBool::new(false));
    }
}

#[test]
fn a_device_that_is_killed_under_load_is_noticed_and_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nic.sock");
    let mut process = Process::start(&path);
    let mut b = Bench::new(&path);
    b.passes(1);
    for life in 1..=3u64 {
        let mut n = 0u32;
        // Under load: frames are under way in both directions when it dies.
        for _ in 0..200 {
            n += u32::from(b.send(0, &frame(5)));
            b.received(1);
        }
        assert!(n > 100, "{n} sent");
        drop(process);
        wait(|| {
            b.send(0, &frame(6));
            b.received(1);
            b.nic.provider.poll(&mut Vec::new(), 8);
            b.nic.provider.health().is_err()
        });
        assert!(matches!(b.nic.provider.health(), Err(OffloadError::DeviceDown(_))));
        assert!(!b.nic.ports[0].link().link_up);
        // Software has every buffer it needs while the device is away.
        assert!(b.pool.free_cells() > 256);
        process = Process::start(&path);
        wait(|| {
            b.nic.provider.poll(&mut Vec::new(), 8);
            b.nic.provider.health().is_ok()
        });
        assert!(b.nic.provider.generation() >= life);
        b.passes_again(10 + life as u8);
    }
    let pool = b.pool.clone();
    drop(b);
    assert_eq!(pool.free_cells(), CELLS as usize);
    drop(process);
}

#[test]
fn a_device_that_hangs_reads_all_ones_within_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nic.sock");
    let process = Process::start(&path);
    let mut backing = UserBacking::connect(&path, "vfio-user:test").unwrap();
    let regs = backing.map_bar(0).unwrap();
    let read = || device::Registers::read32(&regs, device::RegOffset(0));
    assert_ne!(read(), u32::MAX);
    let pid = process.0.id() as i32;
    let signal = |s| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), s).unwrap();
    signal(nix::sys::signal::Signal::SIGSTOP);
    // It stops when it is next on a processor; then an answer takes longer than it may.
    wait(|| read() == u32::MAX);
    assert_eq!(read(), u32::MAX, "at once");
    assert!(backing.reset().is_err());
    signal(nix::sys::signal::Signal::SIGCONT);
    wait(|| backing.reset().is_ok());
    assert_ne!(read(), u32::MAX);
}
