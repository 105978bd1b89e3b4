//! A simulated SmartNIC served at a socket, by a thread or by another process.
#![allow(dead_code)] // each test uses a part

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use device::PacketIo;
use netio::memory::{MemoryConfig, cable};
use nic::{Config, SimNic};
use vfio_user::{Served, Server};

/// Vectors of the device that is served.
pub const VECTORS: u16 = 16;

/// Serves devices at `path` until `stop`: what leaves by port 0 comes in by port 1, and the other way round.
pub fn serve(path: &Path, stop: &AtomicBool) {
    let sim = SimNic::new(Config::default(), 1).unwrap();
    let live = sim.start_live().unwrap();
    let config = MemoryConfig { capacity: 4096, ..MemoryConfig::default() };
    let (mut a, mut b) = cable(&config).unwrap();
    for (port, end) in [(0, &mut a), (1, &mut b)] {
        let (rx, tx) = end.take_queues(device::QueueId(0)).unwrap();
        sim.attach(port, rx, tx);
        sim.set_carrier(port, true);
    }
    let server = Server::bind(path).unwrap();
    let mut make = || Served::new(sim.backing(), VECTORS);
    server.run(&mut make, &|| stop.load(Ordering::Relaxed)).unwrap();
    drop(live);
}

/// A server on a thread.
pub struct Thread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    pub path: PathBuf,
    _dir: tempfile::TempDir,
}

impl Thread {
    pub fn start() -> Thread {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nic.sock");
        let stop = Arc::new(AtomicBool::new(false));
        let (at, until) = (path.clone(), stop.clone());
        let thread = Some(std::thread::spawn(move || serve(&at, &until)));
        wait(|| path.exists());
        Thread { stop, thread, path, _dir: dir }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(t) = self.thread.take() {
            let r = t.join();
            assert!(r.is_ok() || std::thread::panicking(), "the server survives its clients");
        }
    }
}

/// Waits for `done`, half a minute at most.
pub fn wait(mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "it does not come");
        std::thread::sleep(Duration::from_millis(2));
    }
}
