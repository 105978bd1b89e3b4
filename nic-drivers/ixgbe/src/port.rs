//! The device as packet I/O.

use std::sync::Arc;

use device::driver::Lifeline;
use device::{IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair, RegOffset, Registers};
use ixgbe_defs::bits::links;
use ixgbe_defs::{ALL_ONES, regs};

use crate::stats::Totals;

/// The device's port; its queue pairs can be taken once each. Its counters are the device's own, and so include what filters drop.
pub struct IxgbePort<R: Registers> {
    pub(crate) regs: R,
    pub(crate) life: Arc<Lifeline>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) mac: [u8; 6],
    pub(crate) max_frame_bytes: usize,
    pub(crate) queues: Vec<Option<QueuePair>>,
}

impl<R: Registers> PacketIo for IxgbePort<R> {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        self.queues.get_mut(usize::from(q.0)).and_then(Option::take).ok_or(IoError::Gone)
    }

    fn queue_pairs(&self) -> u16 {
        self.queues.len() as u16
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu_frame_bytes(&self) -> usize {
        self.max_frame_bytes
    }

    fn link(&self) -> LinkState {
        let v = self.regs.read32(RegOffset(regs::LINKS));
        if self.life.epoch().is_none() || v == ALL_ONES {
            return LinkState::default();
        }
        let link_up = v & links::UP != 0;
        LinkState { admin_up: true, link_up, speed_mbps: if link_up { links::speed_mbps(v) } else { 0 } }
    }

    fn counters(&self) -> PortCounters {
        self.totals.read(&self.regs, &self.life)
    }
}
