//! A front-panel port as packet I/O.

use std::sync::Arc;

use device::driver::Lifeline;
use device::{IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair, RegOffset, Registers};
use rocker_defs::regs::PORT_PHYS_LINK_STATUS;

use crate::life::enabled;
use crate::rx_ring::RxRing;
use crate::tx_ring::TxRing;

/// What QEMU's ports say of their speed, and all of them alike.
const SPEED_MBPS: u32 = 10_000;

/// A front-panel port. Its counters are of what went through the CPU: the device has none of its own ([`crate::quirks`]).
pub struct RockerPort<R: Registers> {
    regs: R,
    life: Arc<Lifeline>,
    port: u16,
    mac: [u8; 6],
    queues: Option<(RxRing<R>, TxRing<R>)>,
}

impl<R: Registers> RockerPort<R> {
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        port: u16,
        mac: [u8; 6],
        queues: (RxRing<R>, TxRing<R>),
    ) -> Self {
        let mut port = RockerPort { regs, life, port, mac, queues: Some(queues) };
        if let (Some((rx, tx)), Some(epoch)) = (&mut port.queues, port.life.epoch()) {
            rx.start(epoch);
            tx.start(epoch);
        }
        port
    }

    /// Its number, from 0.
    pub fn device_port(&self) -> u16 {
        self.port
    }
}

impl<R: Registers + 'static> PacketIo for RockerPort<R> {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        let taken = if q == QueueId(0) { self.queues.take() } else { None };
        let (rx, tx) = taken.ok_or(IoError::Gone)?;
        Ok((Box::new(rx), Box::new(tx)))
    }

    fn queue_pairs(&self) -> u16 {
        1
    }

    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn mtu_frame_bytes(&self) -> usize {
        self.life.pool().data_bytes()
    }

    fn link(&self) -> LinkState {
        let links = self.regs.read64(RegOffset(PORT_PHYS_LINK_STATUS));
        if self.life.epoch().is_none() || links == u64::MAX {
            return LinkState::default();
        }
        let bit = |m: u64| m >> (self.port + 1) & 1 != 0;
        LinkState { admin_up: bit(enabled(&self.life)), link_up: bit(links), speed_mbps: SPEED_MBPS }
    }

    fn counters(&self) -> PortCounters {
        self.life.counts(self.port).read()
    }
}
