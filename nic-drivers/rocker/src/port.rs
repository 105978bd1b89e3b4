//! A front-panel port as packet I/O.

use std::sync::Arc;

use device::driver::Lifeline;
use device::{IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair, RegOffset, Registers};
use rocker_defs::regs::PORT_PHYS_LINK_STATUS;

use crate::life::enabled;
use crate::rx_ring::RxRing;
use crate::tx_ring::TxRing;

/// What the device says of a port when it is brought up (guide, section 7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortSettings {
    /// Its address.
    pub mac: [u8; 6],
    /// Its speed, Mbit/s; 0 when it does not say.
    pub speed_mbps: u32,
    /// The name on the front panel.
    pub name: String,
}

/// A front-panel port. Its counters are of what went through the CPU; the device's own are
/// [`crate::RockerProvider::port_counters`], where it has any.
pub struct RockerPort<R: Registers> {
    regs: R,
    life: Arc<Lifeline>,
    port: u16,
    settings: PortSettings,
    queues: Option<(RxRing<R>, TxRing<R>)>,
}

impl<R: Registers> RockerPort<R> {
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        port: u16,
        settings: PortSettings,
        queues: (RxRing<R>, TxRing<R>),
    ) -> Self {
        let mut port = RockerPort { regs, life, port, settings, queues: Some(queues) };
        if let (Some((rx, tx)), Some(epoch)) = (&mut port.queues, port.life.epoch()) {
            rx.start(epoch);
            tx.start(epoch);
        }
        port
    }

    /// What the device said of it.
    pub fn settings(&self) -> &PortSettings {
        &self.settings
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
        self.settings.mac
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
        LinkState {
            admin_up: bit(enabled(&self.life)),
            link_up: bit(links),
            speed_mbps: self.settings.speed_mbps,
        }
    }

    fn counters(&self) -> PortCounters {
        self.life.counts(self.port).read()
    }
}
