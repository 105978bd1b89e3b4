//! TAP interfaces: a network interface of the host whose other end is this process.
//!
//! The interface is made when it does not exist (and then lasts as long as the port), attached to when it does. It carries
//! whole frames: no packet information, no offloads, so the host's stack finishes checksums and segments itself.
//!
//! Source: Documentation/networking/tuntap.rst.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::{BufferPool, IoError, PacketBatch, RxQueue, TxQueue};

use crate::netdev::{IfName, Netdev, OpenError};
use crate::netdev_port::{Counters, NetdevPort, add};

/// A TAP interface. What the host sends to it is received here.
pub type TapPort = NetdevPort<TapRx, TapTx>;

/// Receives what the host sends.
pub struct TapRx {
    file: Arc<File>,
    pool: BufferPool,
    counters: Arc<Counters>,
}

/// Sends to the host.
pub struct TapTx {
    file: Arc<File>,
    counters: Arc<Counters>,
}

impl TapPort {
    /// Makes or opens the TAP interface called `name` in the calling thread's network namespace and brings it up. Received
    /// packets lie in buffers of `pool`.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(name: &str, pool: &BufferPool) -> Result<Self, OpenError> {
        let port = Self::create(name, pool)?;
        port.netdev().set_up()?;
        Ok(port)
    }

    /// Makes or opens the TAP interface called `name` as it is: one that is made is down until somebody brings it up.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(name: &str, pool: &BufferPool) -> Result<Self, OpenError> {
        let mut request = IfName::new(name)?.request();
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")
            .map_err(|e| match e.raw_os_error() {
                Some(libc::EPERM | libc::EACCES) => OpenError::from_io(name, "open /dev/net/tun", e),
                _ => OpenError::Os { name: name.to_owned(), op: "open /dev/net/tun", source: e },
            })?;
        // SAFETY: TUNSETIFF reads and writes a live ifreq.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) } < 0 {
            return Err(OpenError::last(name, "TUNSETIFF"));
        }
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, 0 as libc::c_ulong) } < 0 {
            return Err(OpenError::last(name, "TUNSETOFFLOAD"));
        }
        let netdev = Netdev::open(name)?;
        let (file, counters) = (Arc::new(file), Arc::new(Counters::default()));
        let rx = TapRx { file: file.clone(), pool: pool.clone(), counters: counters.clone() };
        let tx = TapTx { file, counters: counters.clone() };
        NetdevPort::new(netdev, (rx, tx), counters)
    }
}

/// What a failed read or write means; `None` when it would have blocked.
fn failure(e: io::Error, op: &'static str) -> Option<IoError> {
    match e.raw_os_error() {
        Some(libc::EAGAIN | libc::EINTR) => None,
        Some(libc::EBADFD | libc::ENODEV) => Some(IoError::Gone),
        Some(libc::EIO) => Some(IoError::Down),
        _ => Some(IoError::Os { op, source: e }),
    }
}

impl RxQueue for TapRx {
    /// # Errors
    /// [`IoError::Gone`] when the interface was removed.
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        let had = out.len();
        // A frame that is dropped counts too: a host that sends nothing else does not keep the core here.
        for _ in 0..out.room() {
            let Some(mut p) = self.pool.alloc() else { break };
            let tail = p.tail_mut();
            let room = tail.len();
            // One byte more tells a frame that was cut from one that fits.
            let mut beyond = [0u8; 1];
            let iov = [
                libc::iovec { iov_base: tail.as_mut_ptr().cast(), iov_len: room },
                libc::iovec { iov_base: beyond.as_mut_ptr().cast(), iov_len: 1 },
            ];
            // SAFETY: both vectors point to live, exclusively borrowed memory of the given lengths.
            let n = unsafe { libc::readv(self.file.as_raw_fd(), iov.as_ptr(), 2) };
            let Ok(n) = usize::try_from(n) else {
                match failure(io::Error::last_os_error(), "read from TAP") {
                    Some(e) if out.len() == had => return Err(e),
                    _ => break,
                }
            };
            if n == 0 {
                break;
            }
            if p.commit(n).is_none() || n > room {
                add(&self.counters.rx_errors, 1);
                continue;
            }
            add(&self.counters.rx_packets, 1);
            add(&self.counters.rx_bytes, n as u64);
            // There is room.
            let _ = out.push(p);
        }
        Ok(out.len() - had)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    /// Frames longer than a buffer.
    fn dropped(&self) -> u64 {
        self.counters.rx_errors.load(Ordering::Relaxed)
    }
}

impl TxQueue for TapTx {
    /// # Errors
    /// [`IoError::Down`] while the interface is down, [`IoError::Gone`] when it was removed. A frame that the kernel does not
    /// accept is dropped and counted.
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let (mut taken, mut result) = (0, Ok(()));
        for p in pkts.iter() {
            // SAFETY: writes from the packet's live bytes.
            let n = unsafe { libc::write(self.file.as_raw_fd(), p.as_ptr().cast(), p.len()) };
            if n < 0 {
                let e = io::Error::last_os_error();
                if e.raw_os_error() == Some(libc::EINVAL) {
                    add(&self.counters.tx_errors, 1);
                    taken += 1;
                    continue;
                }
                result = failure(e, "write to TAP").map_or(Ok(()), Err);
                break;
            }
            add(&self.counters.tx_packets, 1);
            add(&self.counters.tx_bytes, p.len() as u64);
            taken += 1;
        }
        drop(pkts.drain_front(taken));
        result.map(|()| taken)
    }
}
