//! A bounded ring of packets with one producer and one consumer, and an optional descriptor to wake the consumer.
//!
//! ```text
//!   consumer ─► head          tail ◄─ producer        head <= tail <= head + capacity, both only grow
//!   slots:   .. │ full ... full │ ..                  slot of position p is p & mask
//! ```
//!
//! A slot between head and tail belongs to the consumer, any other to the producer; ownership passes by a release store
//! and an acquire load of `tail` (filled) or `head` (emptied), once per burst.
//!
//! The descriptor is written when a burst arrives in an empty ring. The producer publishes `tail`, then reads `head`; the
//! consumer publishes `head`, then reads `tail`; a sequentially consistent fence on both sides makes sure that a consumer
//! that saw the ring empty is woken.
#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use device::{IoError, PacketBatch, PacketBuf};

/// Keeps what two cores write on different cache lines.
#[repr(align(128))]
#[derive(Default)]
struct Padded<T>(T);

/// Counters of one side, written by it alone.
#[derive(Default)]
struct Side {
    position: AtomicUsize,
    packets: AtomicU64,
    bytes: AtomicU64,
    closed: AtomicBool,
}

struct Ring {
    slots: Box<[UnsafeCell<MaybeUninit<PacketBuf>>]>,
    mask: usize,
    head: Padded<Side>,
    tail: Padded<Side>,
    event: Option<OwnedFd>,
    /// Whether the descriptor has been written since it was last read.
    signalled: AtomicBool,
}

// SAFETY: slots are accessed by the one producer and the one consumer, never the same slot at the same time (see the
// module's text); PacketBuf is Send.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        let (head, tail) = (*self.head.0.position.get_mut(), *self.tail.0.position.get_mut());
        for p in head..tail {
            // SAFETY: slots between head and tail are filled; nobody else holds the ring any more.
            unsafe { self.slots[p & self.mask].get_mut().assume_init_drop() };
        }
    }
}

/// The filling end.
pub(crate) struct Producer {
    ring: Arc<Ring>,
    tail: usize,
    head_seen: usize,
}

/// The emptying end.
pub(crate) struct Consumer {
    ring: Arc<Ring>,
    head: usize,
    tail_seen: usize,
}

/// A view of both counters, for whoever shows statistics.
#[derive(Clone)]
pub(crate) struct Gauge(Arc<Ring>);

/// A ring for at least `capacity` packets (rounded up to a power of two, at least 2); with a wake-up descriptor if
/// `wakeups`.
pub(crate) fn ring(capacity: usize, wakeups: bool) -> Result<(Producer, Consumer, Gauge), IoError> {
    let capacity = capacity.clamp(2, 1 << 20).next_power_of_two();
    let event = if wakeups {
        // SAFETY: plain system call; the result is checked.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(IoError::Os { op: "eventfd", source: std::io::Error::last_os_error() });
        }
        // SAFETY: the descriptor was just made and is owned by nobody else.
        Some(unsafe { OwnedFd::from_raw_fd(fd) })
    } else {
        None
    };
    let ring = Arc::new(Ring {
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        mask: capacity - 1,
        head: Padded::default(),
        tail: Padded::default(),
        event,
        signalled: AtomicBool::new(false),
    });
    Ok((
        Producer { ring: ring.clone(), tail: 0, head_seen: 0 },
        Consumer { ring: ring.clone(), head: 0, tail_seen: 0 },
        Gauge(ring),
    ))
}

impl Producer {
    /// Moves packets from the front of `pkts` into the ring and returns how many.
    pub(crate) fn push(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let ring = &*self.ring;
        if ring.head.0.closed.load(Ordering::Relaxed) {
            return Err(IoError::Gone);
        }
        let capacity = ring.mask + 1;
        if capacity - (self.tail - self.head_seen) < pkts.len() {
            self.head_seen = ring.head.0.position.load(Ordering::Acquire);
        }
        let n = pkts.len().min(capacity - (self.tail - self.head_seen));
        if n == 0 {
            return Ok(0);
        }
        let old = self.tail;
        let mut bytes = 0;
        let mut put = |p: PacketBuf| {
            bytes += p.len() as u64;
            // SAFETY: fewer than `capacity` slots are filled, so this one was emptied by the consumer, whose release of
            // `head` was acquired above or in an earlier call; only this producer writes it.
            unsafe { (*ring.slots[self.tail & ring.mask].get()).write(p) };
            self.tail += 1;
        };
        if n == pkts.len() {
            let mut all = pkts.take_each();
            (0..n).for_each(|_| put(all.take()));
        } else {
            pkts.drain_front(n).for_each(put);
        }
        let side = &ring.tail.0;
        side.packets.store(side.packets.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
        side.bytes.store(side.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        side.position.store(self.tail, Ordering::Release);
        if let Some(fd) = &ring.event {
            fence(Ordering::SeqCst);
            if ring.head.0.position.load(Ordering::Relaxed) == old {
                let one = 1u64.to_ne_bytes();
                // SAFETY: writes 8 bytes from a live array to a descriptor we own. The counter cannot overflow: it is
                // reset each time the consumer finds the ring empty. A failure leaves it readable, which is what we want.
                unsafe { libc::write(fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
                ring.signalled.store(true, Ordering::Release);
            }
        }
        Ok(n)
    }
}

impl Consumer {
    /// Moves packets from the ring to `out` until it is full or the ring is empty, and returns how many.
    pub(crate) fn pop(&mut self, out: &mut PacketBatch) -> usize {
        let ring = &*self.ring;
        if self.tail_seen == self.head {
            self.tail_seen = ring.tail.0.position.load(Ordering::Acquire);
            if self.tail_seen == self.head && !self.acknowledge_wakeup() {
                return 0;
            }
        }
        let n = out.room().min(self.tail_seen - self.head);
        self.take(n, |p| {
            // There is room for n.
            let _ = out.push(p);
        });
        n
    }

    /// Takes one packet.
    pub(crate) fn pop_one(&mut self) -> Option<PacketBuf> {
        if self.head == self.tail_seen {
            self.tail_seen = self.ring.tail.0.position.load(Ordering::Acquire);
            if self.tail_seen == self.head && !self.acknowledge_wakeup() {
                return None;
            }
        }
        let mut one = None;
        self.take(1, |p| one = Some(p));
        one
    }

    /// Hands the next `n` packets, which are there, to `give`.
    #[inline]
    fn take(&mut self, n: usize, mut give: impl FnMut(PacketBuf)) {
        debug_assert!(n <= self.tail_seen - self.head);
        let ring = &*self.ring;
        let mut bytes = 0;
        for _ in 0..n {
            // SAFETY: the slot lies between head and tail, so it is filled, and the producer's release of `tail` was
            // acquired; it is read out once because head moves past it.
            let p = unsafe { (*ring.slots[self.head & ring.mask].get()).assume_init_read() };
            bytes += p.len() as u64;
            self.head += 1;
            give(p);
        }
        let side = &ring.head.0;
        side.packets.store(side.packets.load(Ordering::Relaxed) + n as u64, Ordering::Relaxed);
        side.bytes.store(side.bytes.load(Ordering::Relaxed) + bytes, Ordering::Relaxed);
        side.position.store(self.head, Ordering::Release);
    }

    /// The ring looked empty: takes the wake-up back, if there was one, and looks again. Whether there is something now.
    fn acknowledge_wakeup(&mut self) -> bool {
        let ring = &*self.ring;
        let Some(fd) = &ring.event else { return false };
        // The swap reads what it overwrites: a mark that a later write has set is not lost before that write is read.
        if ring.signalled.load(Ordering::Relaxed) && ring.signalled.swap(false, Ordering::AcqRel) {
            let mut count = [0u8; 8];
            // SAFETY: reads 8 bytes into a live array from a descriptor we own; it does not block.
            unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        }
        fence(Ordering::SeqCst);
        self.tail_seen = ring.tail.0.position.load(Ordering::Acquire);
        self.tail_seen != self.head
    }

    pub(crate) fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        self.ring.event.as_ref().map(|fd| fd.as_fd())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.ring.tail.0.closed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.ring.head.0.closed.store(true, Ordering::Relaxed);
    }
}

impl Gauge {
    /// Packets and bytes put in.
    pub(crate) fn filled(&self) -> (u64, u64) {
        let s = &self.0.tail.0;
        (s.packets.load(Ordering::Relaxed), s.bytes.load(Ordering::Relaxed))
    }

    /// Packets and bytes taken out.
    pub(crate) fn emptied(&self) -> (u64, u64) {
        let s = &self.0.head.0;
        (s.packets.load(Ordering::Relaxed), s.bytes.load(Ordering::Relaxed))
    }

    /// Whether both ends still exist.
    pub(crate) fn is_open(&self) -> bool {
        !self.0.head.0.closed.load(Ordering::Relaxed) && !self.0.tail.0.closed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::BufferPool;

    fn batch(pool: &BufferPool, range: std::ops::Range<u8>) -> PacketBatch {
        let mut b = PacketBatch::new();
        for i in range {
            b.push(pool.copy_from(&[i; 20]).unwrap()).unwrap();
        }
        b
    }

    #[test]
    fn packets_come_out_in_order_and_the_ring_is_bounded() {
        let pool = BufferPool::new(64).unwrap();
        let (mut tx, mut rx, gauge) = ring(4, false).unwrap();
        let mut b = batch(&pool, 0..6);
        assert_eq!(tx.push(&mut b).unwrap(), 4);
        assert_eq!(b.len(), 2, "what has no room stays with the caller");
        let mut out = PacketBatch::new();
        assert_eq!(rx.pop(&mut out), 4);
        assert_eq!(tx.push(&mut b).unwrap(), 2);
        assert_eq!(rx.pop(&mut out), 2);
        assert_eq!(rx.pop(&mut out), 0);
        assert_eq!(out.iter().map(|p| p[0]).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
        assert_eq!((gauge.filled(), gauge.emptied()), ((6, 120), (6, 120)));
    }

    #[test]
    fn packets_left_in_a_dropped_ring_return_to_their_pool() {
        let pool = BufferPool::new(8).unwrap();
        let (mut tx, rx, gauge) = ring(8, false).unwrap();
        tx.push(&mut batch(&pool, 0..5)).unwrap();
        assert_eq!(pool.free_cells(), 3);
        drop((tx, rx, gauge));
        assert_eq!(pool.free_cells(), 8);
    }

    #[test]
    fn every_packet_crosses_threads_once_and_the_descriptor_wakes_the_reader() {
        const N: u32 = 20_000;
        let pool = BufferPool::new(256).unwrap();
        let (mut tx, mut rx, _gauge) = ring(16, true).unwrap();
        let producer = std::thread::spawn(move || {
            let mut next = 0u32;
            let mut b = PacketBatch::new();
            while next < N || !b.is_empty() {
                while next < N && b.room() > 0 {
                    let Some(p) = pool.copy_from(&next.to_be_bytes()) else { break };
                    b.push(p).unwrap();
                    next += 1;
                }
                if tx.push(&mut b).unwrap() == 0 {
                    std::thread::yield_now();
                }
            }
            tx
        });
        let mut seen = 0u32;
        let mut out = PacketBatch::new();
        while seen < N {
            if rx.pop(&mut out) == 0 {
                let mut p =
                    libc::pollfd { fd: rx.poll_fd().unwrap().as_raw_fd(), events: libc::POLLIN, revents: 0 };
                // SAFETY: one live pollfd.
                let n = unsafe { libc::poll(&mut p, 1, 10_000) };
                assert!(n > 0, "not woken within 10 s, after {seen} packets");
            }
            for p in out.drain_all() {
                assert_eq!(&p[..], seen.to_be_bytes());
                seen += 1;
            }
        }
        producer.join().unwrap();
    }
}
