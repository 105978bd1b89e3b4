//! Packet queues in memory: a cable between two ports of the same process.
//!
//! Used by tests, by the differential harness, by in-memory hosts and by benches. A cable is two bounded
//! rings; nothing is copied, packets keep their buffers. What finds the ring full stays with the sender.

use std::os::fd::BorrowedFd;

use device::{IoError, LinkState, PacketBatch, PacketIo, PortCounters, QueueId, QueuePair, RxQueue, TxQueue};

use crate::spsc::{Consumer, Gauge, Producer, ring};

/// How a memory queue or cable is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryConfig {
    /// Packets that each direction holds; rounded up to a power of two.
    pub capacity: usize,
    /// Whether receivers get a descriptor to sleep on. Costs a system call for each burst that arrives in an empty queue.
    pub wakeups: bool,
    /// Largest frame without FCS, in bytes, that the ports report.
    pub mtu_frame_bytes: usize,
}

impl Default for MemoryConfig {
    fn default() -> Self {
        MemoryConfig { capacity: 1024, wakeups: false, mtu_frame_bytes: 1518 }
    }
}

/// Sends into a memory queue.
pub struct MemoryTx(Producer);

/// Receives from a memory queue.
pub struct MemoryRx(Consumer);

/// A queue in one direction.
///
/// # Errors
/// [`IoError::Os`] when a wake-up descriptor is asked for and there is none left.
pub fn queue(config: &MemoryConfig) -> Result<(MemoryTx, MemoryRx), IoError> {
    let (tx, rx, _) = ring(config.capacity, config.wakeups)?;
    Ok((MemoryTx(tx), MemoryRx(rx)))
}

/// A cable: what one port sends, the other receives. Their Ethernet addresses are 02:00:00:00:00:01 and :02.
///
/// # Errors
/// [`IoError::Os`] when a wake-up descriptor is asked for and there is none left.
pub fn cable(config: &MemoryConfig) -> Result<(MemoryPort, MemoryPort), IoError> {
    let (a_tx, b_rx, ab) = ring(config.capacity, config.wakeups)?;
    let (b_tx, a_rx, ba) = ring(config.capacity, config.wakeups)?;
    let port = |tx, rx, sent: Gauge, received: Gauge, last| MemoryPort {
        queues: Some((MemoryRx(rx), MemoryTx(tx))),
        sent,
        received,
        mac: [2, 0, 0, 0, 0, last],
        mtu_frame_bytes: config.mtu_frame_bytes,
    };
    Ok((port(a_tx, a_rx, ab.clone(), ba.clone(), 1), port(b_tx, b_rx, ba, ab, 2)))
}

impl MemoryTx {
    /// Sends one packet; gives it back when the queue is full or the receiver is gone.
    ///
    /// # Errors
    /// The packet.
    pub fn send(&mut self, p: device::PacketBuf) -> Result<(), device::PacketBuf> {
        let mut b = PacketBatch::new();
        b.push(p)?;
        let _ = self.0.push(&mut b);
        match b.drain_all().next() {
            None => Ok(()),
            Some(p) => Err(p),
        }
    }
}

impl MemoryRx {
    /// Receives one packet; `None` when there is none. Meant for tests: a burst costs hardly more.
    pub fn receive(&mut self) -> Option<device::PacketBuf> {
        self.0.pop_one()
    }
}

impl RxQueue for MemoryRx {
    #[inline]
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        Ok(self.0.pop(out))
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.poll_fd()
    }
}

impl TxQueue for MemoryTx {
    /// # Errors
    /// [`IoError::Gone`] when the receiver was dropped.
    #[inline]
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        self.0.push(pkts)
    }
}

/// One end of a [`cable`].
pub struct MemoryPort {
    queues: Option<(MemoryRx, MemoryTx)>,
    sent: Gauge,
    received: Gauge,
    mac: [u8; 6],
    mtu_frame_bytes: usize,
}

impl MemoryPort {
    /// Takes the queues with their own types, once.
    pub fn split(&mut self) -> Option<(MemoryRx, MemoryTx)> {
        self.queues.take()
    }
}

impl PacketIo for MemoryPort {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        if q != QueueId(0) {
            return Err(IoError::Gone);
        }
        let (rx, tx) = self.queues.take().ok_or(IoError::Gone)?;
        Ok((Box::new(rx), Box::new(tx)))
    }

    fn queue_pairs(&self) -> u16 {
        1
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu_frame_bytes(&self) -> usize {
        self.mtu_frame_bytes
    }

    /// Up as long as both ends exist.
    fn link(&self) -> LinkState {
        LinkState { admin_up: true, link_up: self.sent.is_open() && self.received.is_open(), speed_mbps: 0 }
    }

    /// Counts as received what was taken from the queue.
    fn counters(&self) -> PortCounters {
        let (tx_packets, tx_bytes) = self.sent.filled();
        let (rx_packets, rx_bytes) = self.received.emptied();
        PortCounters { rx_packets, tx_packets, rx_bytes, tx_bytes, ..PortCounters::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::BufferPool;

    #[test]
    fn what_one_end_sends_the_other_receives() {
        let pool = BufferPool::new(8).unwrap();
        let (mut a, mut b) = cable(&MemoryConfig::default()).unwrap();
        let (_, mut a_tx) = a.split().unwrap();
        let (mut b_rx, _b_tx) = b.take_queues(QueueId(0)).unwrap();
        assert!(matches!(b.take_queues(QueueId(0)), Err(IoError::Gone)));
        a_tx.send(pool.copy_from(&[1, 2, 3]).unwrap()).unwrap();
        let mut out = PacketBatch::new();
        assert_eq!(b_rx.rx_burst(&mut out).unwrap(), 1);
        assert_eq!(&out[0][..], &[1, 2, 3]);
        assert_eq!(a.counters().tx_packets, 1);
        assert_eq!(b.counters().rx_bytes, 3);
    }

    #[test]
    fn the_link_goes_down_with_the_other_end() {
        let pool = BufferPool::new(8).unwrap();
        let (mut a, b) = cable(&MemoryConfig::default()).unwrap();
        assert!(a.link().link_up);
        drop(b);
        assert!(!a.link().link_up);
        let (_, mut tx) = a.split().unwrap();
        assert!(tx.send(pool.copy_from(&[1]).unwrap()).is_err());
    }
}
