//! Network namespaces, cables and frames for tests against the kernel.
//!
//! They need root (or the capabilities SYS_ADMIN, NET_ADMIN, NET_RAW) and `ip`; where that is missing they say so and do
//! nothing.

use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use device::{BufferPool, PacketBatch, RxQueue};
use flow::frame::FrameBuilder;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `test` on a thread that has a network namespace of its own; says why when there is none to be had.
pub fn in_namespace(test: fn()) {
    let thread = std::thread::spawn(move || {
        // SAFETY: affects the calling thread only.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } < 0 {
            eprintln!("skipped: no network namespace: {}", std::io::Error::last_os_error());
            return;
        }
        if Command::new("ip").arg("-V").output().is_err() {
            eprintln!("skipped: there is no ip command");
            return;
        }
        test();
    });
    if let Err(e) = thread.join() {
        std::panic::resume_unwind(e);
    }
}

/// `ip` in the calling thread's namespace.
pub fn ip(args: &str) {
    let out = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// A cable between `v0` and `v1`.
pub fn veth() {
    ip("link add v0 type veth peer name v1");
    ip("link set v0 up");
    ip("link set v1 up");
}

/// The next packet that `wanted` accepts; others (the kernel's own chatter) are thrown away.
pub fn receive(rx: &mut dyn RxQueue, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut b = PacketBatch::new();
    loop {
        rx.rx_burst(&mut b).unwrap();
        if let Some(p) = b.drain_all().find(|p| wanted(p)) {
            return Some(p.to_vec());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        let mut p = libc::pollfd { fd: rx.poll_fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd.
        unsafe { libc::poll(&mut p, 1, left.as_millis() as i32 + 1) };
    }
}

/// Frames as a burst.
pub fn batch(pool: &BufferPool, frames: &[&[u8]]) -> PacketBatch {
    let mut b = PacketBatch::new();
    for f in frames {
        b.push(pool.copy_from(f).unwrap()).unwrap();
    }
    b
}

/// A small frame.
pub fn udp() -> FrameBuilder {
    FrameBuilder::new().ipv4([192, 0, 2, 1], [192, 0, 2, 2]).udp(7, 7).payload(b"across the cable")
}
