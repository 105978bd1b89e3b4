//! All queues of a port as one pair, for a core that serves the port alone.
//!
//! Receiving takes the queues in turn, beginning after the one that came last, so that a busy queue does not starve the others.
//! Everything is sent by the first. The descriptor to wait on is an epoll(7) set of theirs.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use device::{IoError, PacketBatch, PacketIo, QueueId, QueuePair, RxQueue};

use crate::netdev::owned;

struct MergedRx {
    queues: Vec<Box<dyn RxQueue>>,
    next: usize,
    /// None when one of the queues must be polled.
    readable: Option<OwnedFd>,
}

/// Takes all queues of a port as one pair.
///
/// # Errors
/// [`IoError::Gone`] when one was taken already; [`IoError::Os`].
pub fn take_all(port: &mut dyn PacketIo) -> Result<QueuePair, IoError> {
    take_some(port, 0, 1)
}

/// Takes all queues of a port as `n` pairs, or as many as there are when those are fewer; at least one.
///
/// # Errors
/// As [`take_all`].
pub fn take_as(port: &mut dyn PacketIo, n: u16) -> Result<Vec<QueuePair>, IoError> {
    let n = n.clamp(1, port.queue_pairs().max(1));
    (0..n).map(|i| take_some(port, i, n)).collect()
}

/// Takes every `step`th queue from `first` on as one.
fn take_some(port: &mut dyn PacketIo, first: u16, step: u16) -> Result<QueuePair, IoError> {
    let (rx, tx) = port.take_queues(QueueId(first))?;
    let mut queues = vec![rx];
    for q in (first..port.queue_pairs()).step_by(step.into()).skip(1) {
        // Its sending half is not needed; what it keeps alive the receiving half does, too.
        queues.push(port.take_queues(QueueId(q))?.0);
    }
    if queues.len() == 1
        && let Some(rx) = queues.pop()
    {
        return Ok((rx, tx));
    }
    let readable = match queues.iter().map(|q| q.poll_fd()).collect::<Option<Vec<_>>>() {
        Some(fds) => Some(epoll(&fds).map_err(|source| IoError::Os { op: "epoll", source })?),
        None => None,
    };
    Ok((Box::new(MergedRx { queues, next: 0, readable }), tx))
}

/// A descriptor that is readable when one of `fds` is.
fn epoll(fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    // SAFETY: plain system call; the result is checked.
    let set = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    for fd in fds {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: passes a live event and two open descriptors.
        let rc =
            unsafe { libc::epoll_ctl(set.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &raw mut event) };
        if rc < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

impl RxQueue for MergedRx {
    /// # Errors
    /// Those of the queues; the others are looked at all the same, the next time.
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        let mut n = 0;
        for _ in 0..self.queues.len() {
            let q = self.next;
            self.next = (q + 1) % self.queues.len();
            n += self.queues[q].rx_burst(out)?;
            if out.room() == 0 {
                break;
            }
        }
        Ok(n)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.readable.as_ref().map(AsFd::as_fd)
    }

    fn dropped(&self) -> u64 {
        self.queues.iter().map(|q| q.dropped()).sum()
    }
}
