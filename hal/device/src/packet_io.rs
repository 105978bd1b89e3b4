//! Packet I/O: queues that give and take bursts of packet buffers.
//!
//! Drivers' rings, AF_PACKET and TAP sockets, pcap files and memory queues all look like this to a datapath, and a
//! simulated device uses the same traits for what its wires are attached to.

use std::os::fd::BorrowedFd;

use crate::buffer::PacketBatch;

/// Index of a queue of a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueId(pub u16);

/// Why packet I/O failed. A failed call leaves the queue usable unless it says `Gone`.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum IoError {
    #[error("device or interface is gone")]
    Gone,
    #[error("interface is down")]
    Down,
    #[error("device misbehaved: {what}")]
    Device { what: &'static str },
    #[error("{op}: {source}")]
    Os { op: &'static str, source: std::io::Error },
}

/// Link state of a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkState {
    /// Administratively up.
    pub admin_up: bool,
    /// Carrier present.
    pub link_up: bool,
    /// Megabits per second; 0 when unknown.
    pub speed_mbps: u32,
}

/// Counters of a port since it was opened. Never go back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct PortCounters {
    pub rx_packets: u64,
    pub tx_packets: u64,
    pub rx_bytes: u64,
    pub tx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_dropped: u64,
    pub rx_errors: u64,
    pub tx_errors: u64,
}

/// A receive queue, owned by one core.
pub trait RxQueue: Send {
    /// Appends received packets to `out` until it is full or nothing is left, and returns how many. Never blocks.
    ///
    /// # Errors
    /// [`IoError`]; packets appended before the error stay in `out`.
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError>;

    /// A descriptor that becomes readable when packets may be waiting; `None` when the queue must be polled.
    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Packets lost for want of room since the queue was made.
    fn dropped(&self) -> u64 {
        0
    }
}

/// A transmit queue, owned by one core.
pub trait TxQueue: Send {
    /// Takes packets from the front of `pkts` and sends them; those it has no room for stay in `pkts`, in order. Returns
    /// how many it took. Never blocks.
    ///
    /// # Errors
    /// [`IoError`]; packets not sent stay in `pkts`.
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError>;

    /// Hands over what is buffered, where sending is deferred to make bursts cheap.
    ///
    /// # Errors
    /// [`IoError`].
    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// A receive and a transmit queue that belong together.
pub type QueuePair = (Box<dyn RxQueue>, Box<dyn TxQueue>);

/// A port that can be opened for packet I/O.
pub trait PacketIo: Send {
    /// Takes the queue pair `q`, once.
    ///
    /// # Errors
    /// [`IoError::Gone`] when `q` does not exist or was taken.
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError>;
    /// How many queue pairs there are.
    fn queue_pairs(&self) -> u16;
    /// Ethernet address.
    fn mac(&self) -> [u8; 6];
    /// Largest frame without FCS that it carries, in bytes.
    fn mtu_frame_bytes(&self) -> usize;
    /// Link state now.
    fn link(&self) -> LinkState;
    /// Counters now.
    fn counters(&self) -> PortCounters;
    /// Whether what is behind the port is gone for good, so that only opening it anew can help.
    fn is_gone(&self) -> bool {
        false
    }
    /// Index of the host's network interface that the port is, if it is one.
    fn interface_index(&self) -> Option<u32> {
        None
    }
}
