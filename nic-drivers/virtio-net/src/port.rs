//! The device as packet I/O.

use std::sync::Arc;

use device::driver::Lifeline;
use device::{
    DeviceBacking, IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair, Registers, RxQueue,
    TxQueue,
};
use virtio_net_defs::feature;
use virtio_net_defs::regs::{net, status};

use crate::bring_up::Agreed;
use crate::provider::VirtioProvider;
use crate::ring::Ring;
use crate::rx_ring::RxRing;
use crate::transport::Transport;
use crate::tx_ring::TxRing;

/// A virtio-net device; its queue pairs can be taken once each. Its counters are what the driver has counted: the device has none.
pub struct VirtioPort<R: Registers + Clone + 'static> {
    transport: Transport<R>,
    life: Arc<Lifeline>,
    agreed: Agreed,
    queues: Vec<Option<QueuePair>>,
}

impl<R: Registers + Clone + 'static> VirtioPort<R> {
    /// Of a device that is up, with rings of layout `Q`.
    pub(crate) fn open<Q: Ring>(p: &VirtioProvider<impl DeviceBacking<Regs = R>>) -> Self {
        let (life, agreed) = (&p.life, p.agreed);
        let event_idx = agreed.has(feature::EVENT_IDX);
        let longest = agreed.max_frame_bytes.min(life.pool().data_bytes());
        let pair = |s: &[Arc<crate::queue::Slot<R>>]| -> Option<QueuePair> {
            let [rx, tx] = s else { return None };
            let mergeable = agreed.has(feature::MRG_RXBUF);
            let rx = RxRing::<R, Q>::new(rx.clone(), life.clone(), event_idx, mergeable)?;
            let tx = TxRing::<R, Q>::new(tx.clone(), life.clone(), event_idx, longest)?;
            Some((Box::new(rx) as Box<dyn RxQueue>, Box::new(tx) as Box<dyn TxQueue>))
        };
        let queues = p.slots.chunks(2).map(pair).collect();
        VirtioPort { transport: p.transport.clone(), life: life.clone(), agreed, queues }
    }

    /// What driver and device have agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }
}

impl<R: Registers + Clone + 'static> PacketIo for VirtioPort<R> {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        self.queues.get_mut(usize::from(q.0)).and_then(Option::take).ok_or(IoError::Gone)
    }

    fn queue_pairs(&self) -> u16 {
        self.queues.len() as u16
    }

    fn mac(&self) -> [u8; 6] {
        self.agreed.mac
    }

    fn mtu_frame_bytes(&self) -> usize {
        self.agreed.max_frame_bytes.min(self.life.pool().data_bytes())
    }

    fn link(&self) -> LinkState {
        let on = self.transport.status();
        if self.life.epoch().is_none() || on == u8::MAX || on & status::DRIVER_OK == 0 {
            return LinkState::default();
        }
        let up = !self.agreed.has(feature::STATUS) || self.transport.net16(net::STATUS) & net::LINK_UP != 0;
        let speed = if self.agreed.has(feature::SPEED_DUPLEX) { self.transport.net32(net::SPEED) } else { 0 };
        LinkState { admin_up: true, link_up: up, speed_mbps: if speed > i32::MAX as u32 { 0 } else { speed } }
    }

    fn counters(&self) -> PortCounters {
        self.life.counts(0).read()
    }
}
