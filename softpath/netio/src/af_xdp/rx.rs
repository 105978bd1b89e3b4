//! Receiving.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;

use device::{BATCH, BufferPool, IoError, PacketBatch, PacketBuf, RxQueue};

use super::CellTable;
use super::ring::{Consumer, Producer};
use super::socket::{ENTRIES, Socket};
use crate::netdev_port::{Counters, add};

/// Empty polls between two looks at the socket's state and its drops.
const CHECK_EVERY: u32 = 64;

/// Receives from one queue of an interface.
pub struct AfXdpRx {
    socket: Arc<Socket>,
    fill: Producer<u64>,
    rx: Consumer<libc::xdp_desc>,
    /// Cells that wait for frames.
    posted: CellTable,
    pool: BufferPool,
    spare: PacketBatch,
    empty_polls: u32,
    /// Drops and invalid descriptors that were counted already.
    seen: (u64, u64),
    counters: Arc<Counters>,
}

impl AfXdpRx {
    pub(super) fn new(
        socket: Arc<Socket>,
        fill: Producer<u64>,
        rx: Consumer<libc::xdp_desc>,
        pool: BufferPool,
        counters: Arc<Counters>,
    ) -> Self {
        let posted = CellTable::new(&pool);
        let spare = PacketBatch::new();
        let mut q = AfXdpRx { socket, fill, rx, posted, pool, spare, empty_polls: 0, seen: (0, 0), counters };
        q.refill();
        q
    }

    /// Posts empty cells, as many as there are and fit.
    fn refill(&mut self) {
        let mut room = self.fill.room().min(ENTRIES.saturating_sub(self.posted.held as u32)) as usize;
        // A burst at a time is cheaper; what is missing less than that waits.
        if room < BATCH {
            return;
        }
        while room > 0 && self.pool.alloc_burst(room.min(BATCH), &mut self.spare) > 0 {
            for p in self.spare.drain_all() {
                // The kernel rounds down to the cell's beginning.
                self.fill.push(self.posted.give(p));
                room -= 1;
            }
        }
        self.fill.publish();
    }

    /// The packet that a descriptor tells of; none when the kernel tells of a cell that it does not have.
    fn accept(&mut self, d: libc::xdp_desc) -> Option<PacketBuf> {
        let (cell, at) = self.posted.take(d.addr)?;
        self.pool.reclaim(cell, at, d.len as usize)
    }

    /// Looks whether the interface is still there and what was dropped; also wakes a driver that sleeps.
    fn check(&mut self) -> Result<(), IoError> {
        self.count_drops();
        // SAFETY: asks for nothing to be written.
        let rc = unsafe {
            libc::recvfrom(
                self.socket.fd().as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        if rc >= 0 {
            return Ok(());
        }
        let e = io::Error::last_os_error();
        match e.raw_os_error() {
            Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR | libc::EOPNOTSUPP) => Ok(()),
            Some(libc::ENETDOWN) if self.socket.has_interface() => Err(IoError::Down),
            Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => Err(IoError::Gone),
            _ => Err(IoError::Os { op: "AF_XDP receive", source: e }),
        }
    }

    fn count_drops(&mut self) {
        let Some(s) = self.socket.statistics() else { return };
        // Frames that came when the receive ring was full are in both.
        let now = (s.rx_dropped.max(s.rx_ring_full), s.rx_invalid_descs);
        add(&self.counters.rx_dropped, now.0.saturating_sub(self.seen.0));
        add(&self.counters.rx_errors, now.1.saturating_sub(self.seen.1));
        self.seen = now;
    }
}

impl RxQueue for AfXdpRx {
    /// # Errors
    /// [`IoError::Down`] while the interface is down, [`IoError::Gone`] when it was removed.
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        let waiting = (self.rx.available() as usize).min(out.room());
        let (mut n, mut bytes) = (0, 0);
        for _ in 0..waiting {
            let d = self.rx.pop();
            match self.accept(d) {
                Some(p) => {
                    n += 1;
                    bytes += p.len() as u64;
                    // There is room.
                    let _ = out.push(p);
                }
                None => add(&self.counters.rx_errors, 1),
            }
        }
        if waiting > 0 {
            self.rx.release();
            self.empty_polls = 0;
            add(&self.counters.rx_packets, n as u64);
            add(&self.counters.rx_bytes, bytes);
        }
        self.refill();
        if waiting == 0 {
            self.empty_polls += 1;
            // A driver without cells, or one that sleeps, is woken by the same call that tells of its state.
            if self.empty_polls >= CHECK_EVERY || self.fill.needs_wakeup() {
                self.empty_polls = 0;
                self.check()?;
            }
        }
        Ok(n)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.fd().as_fd())
    }

    /// Frames that found no cell or no room in the ring, or did not fit.
    fn dropped(&self) -> u64 {
        self.seen.0
    }
}

impl Drop for AfXdpRx {
    fn drop(&mut self) {
        self.socket.leave(self.posted.drain());
    }
}
