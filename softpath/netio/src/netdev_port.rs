//! A port that is an interface of the kernel, however its frames are carried: what packet sockets and TAP interfaces have
//! in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device::{IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair, RxQueue, TxQueue};

use crate::netdev::{Netdev, OpenError};

/// Counters that both queues and the port share.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) rx_packets: AtomicU64,
    pub(crate) rx_bytes: AtomicU64,
    /// No room in the ring or no buffer.
    pub(crate) rx_dropped: AtomicU64,
    /// Longer than a buffer.
    pub(crate) rx_errors: AtomicU64,
    pub(crate) tx_packets: AtomicU64,
    pub(crate) tx_bytes: AtomicU64,
    /// Refused by the kernel.
    pub(crate) tx_errors: AtomicU64,
}

pub(crate) fn add(c: &AtomicU64, n: u64) {
    c.fetch_add(n, Ordering::Relaxed);
}

/// An interface of the kernel: [`crate::af_packet::AfPacketPort`], [`crate::tap::TapPort`], which have one pair of queues, and
/// [`crate::af_xdp::AfXdpPort`].
pub struct NetdevPort<Rx, Tx> {
    netdev: Netdev,
    mac: [u8; 6],
    mtu: usize,
    /// Those not taken yet, by number.
    queues: Vec<Option<(Rx, Tx)>>,
    counters: Arc<Counters>,
}

impl<Rx, Tx> NetdevPort<Rx, Tx> {
    pub(crate) fn new(netdev: Netdev, queues: (Rx, Tx), counters: Arc<Counters>) -> Result<Self, OpenError> {
        Self::with_queues(netdev, vec![queues], counters)
    }

    pub(crate) fn with_queues(
        netdev: Netdev,
        queues: Vec<(Rx, Tx)>,
        counters: Arc<Counters>,
    ) -> Result<Self, OpenError> {
        let (mac, mtu) = (netdev.mac()?, netdev.mtu()?);
        Ok(NetdevPort { netdev, mac, mtu, queues: queues.into_iter().map(Some).collect(), counters })
    }

    /// The interface.
    pub fn netdev(&self) -> &Netdev {
        &self.netdev
    }
}

impl<Rx: RxQueue + 'static, Tx: TxQueue + 'static> PacketIo for NetdevPort<Rx, Tx> {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        let pair = self.queues.get_mut(usize::from(q.0)).and_then(Option::take);
        let (rx, tx) = pair.ok_or(IoError::Gone)?;
        Ok((Box::new(rx), Box::new(tx)))
    }

    fn queue_pairs(&self) -> u16 {
        self.queues.len() as u16
    }

    fn mac(&self) -> [u8; 6] {
        self.netdev.mac().unwrap_or(self.mac)
    }

    /// The MTU, as it was when opened once the interface is gone, and the Ethernet header.
    fn mtu_frame_bytes(&self) -> usize {
        self.netdev.mtu().unwrap_or(self.mtu) + 14
    }

    fn link(&self) -> LinkState {
        self.netdev.link()
    }

    fn counters(&self) -> PortCounters {
        let c = &*self.counters;
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        PortCounters {
            rx_packets: get(&c.rx_packets),
            tx_packets: get(&c.tx_packets),
            rx_bytes: get(&c.rx_bytes),
            tx_bytes: get(&c.tx_bytes),
            rx_dropped: get(&c.rx_dropped),
            tx_dropped: 0,
            rx_errors: get(&c.rx_errors),
            tx_errors: get(&c.tx_errors),
        }
    }

    fn is_gone(&self) -> bool {
        !self.netdev.is_present()
    }

    fn interface_index(&self) -> Option<u32> {
        u32::try_from(self.netdev.index()).ok()
    }
}
