//! Sending.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use device::{BufferPool, IoError, PacketBatch, PacketBuf, TxQueue};

use super::CellTable;
use super::ring::{Consumer, Producer};
use super::socket::Socket;
use crate::netdev_port::{Counters, add};

/// Most system calls for one burst: each takes the kernel 32 packets on.
const KICKS: u32 = 4;

/// Sends to one queue of an interface.
pub struct AfXdpTx {
    socket: Arc<Socket>,
    tx: Producer<libc::xdp_desc>,
    completion: Consumer<u64>,
    /// Cells that are being sent.
    sent: CellTable,
    pool: BufferPool,
    /// The kernel has not been told of all that is in the ring.
    unsaid: bool,
    counters: Arc<Counters>,
}

impl AfXdpTx {
    pub(super) fn new(
        socket: Arc<Socket>,
        tx: Producer<libc::xdp_desc>,
        completion: Consumer<u64>,
        pool: BufferPool,
        counters: Arc<Counters>,
    ) -> Self {
        let sent = CellTable::new(&pool);
        AfXdpTx { socket, tx, completion, sent, pool, unsaid: false, counters }
    }

    /// Takes back the cells that were sent.
    fn complete(&mut self) {
        let n = self.completion.available();
        let mut home = PacketBatch::new();
        for _ in 0..n {
            let at = self.completion.pop();
            // One of which we know nothing is none of ours to take.
            if let Some(p) = self.sent.take(at).and_then(|(cell, _)| self.pool.reclaim(cell, 0, 0)) {
                if home.room() == 0 {
                    home.clear();
                }
                // There is room.
                let _ = home.push(p);
            }
        }
        if n > 0 {
            self.completion.release();
        }
    }

    /// The packet in a cell of our pool; none when it is another's and there is no cell to copy it to, or it does not fit one.
    fn ours(&self, p: PacketBuf) -> Option<PacketBuf> {
        if p.pool().memory().same(self.pool.memory()) { Some(p) } else { self.pool.copy_from(&p) }
    }

    /// Tells the kernel that there is something to send, if it wants to be told.
    fn kick(&mut self) -> Result<(), IoError> {
        for _ in 0..KICKS {
            if !self.unsaid || !self.tx.needs_wakeup() {
                self.unsaid = false;
                return Ok(());
            }
            // SAFETY: sends nothing beside what is in the ring.
            let rc = unsafe {
                libc::sendto(
                    self.socket.fd().as_raw_fd(),
                    std::ptr::null(),
                    0,
                    libc::MSG_DONTWAIT,
                    std::ptr::null(),
                    0,
                )
            };
            if rc >= 0 {
                self.unsaid = !self.tx.is_empty();
                continue;
            }
            let e = io::Error::last_os_error();
            match e.raw_os_error() {
                // It has sent a part, or waits for room in the completion ring or below.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS | libc::EINTR) => self.complete(),
                Some(libc::ENETDOWN) if self.socket.has_interface() => return Err(IoError::Down),
                Some(libc::ENETDOWN | libc::ENXIO | libc::ENODEV) => return Err(IoError::Gone),
                _ => return Err(IoError::Os { op: "AF_XDP send", source: e }),
            }
        }
        Ok(())
    }
}

impl TxQueue for AfXdpTx {
    /// A packet of another pool is copied; one that cannot be is dropped and counted.
    ///
    /// # Errors
    /// [`IoError::Down`] while the interface is down, [`IoError::Gone`] when it was removed: both show when the kernel is told of
    /// a packet, which then stays in the ring until the interface is up.
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        self.complete();
        // What was left over goes first, and says whether the interface is there at all.
        self.kick()?;
        let n = (self.tx.room() as usize).min(pkts.len());
        for p in pkts.drain_front(n) {
            let Some(p) = self.ours(p) else {
                add(&self.counters.tx_errors, 1);
                continue;
            };
            let len = p.len() as u32;
            add(&self.counters.tx_packets, 1);
            add(&self.counters.tx_bytes, u64::from(len));
            self.tx.push(libc::xdp_desc { addr: self.sent.give(p), len, options: 0 });
        }
        if n > 0 {
            self.tx.publish();
            self.unsaid = true;
            self.kick()?;
        }
        Ok(n)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.complete();
        self.kick()
    }
}

impl Drop for AfXdpTx {
    fn drop(&mut self) {
        self.socket.leave(self.sent.drain());
    }
}
