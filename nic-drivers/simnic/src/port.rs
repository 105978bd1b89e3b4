//! A port of the device as packet I/O.

use std::cell::Cell;
use std::sync::Arc;

use device::driver::Lifeline;
use device::{IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair, RegOffset, Registers};
use flow::PortId;
use simnic_defs::PortReg;
use simnic_defs::regs::{ALL_ONES, port_status};

use crate::rx_ring::RxRing;
use crate::tx_ring::TxRing;

/// A port; its queues can be taken once each.
pub struct SimnicPort<R: Registers> {
    regs: R,
    life: Arc<Lifeline>,
    port: u8,
    mac: [u8; 6],
    max_frame_bytes: usize,
    queues: Vec<Option<(RxRing<R>, TxRing<R>)>>,
    /// Counters of earlier lives of the device, and the last reading of this one.
    before: Cell<PortCounters>,
    last: Cell<(Option<u32>, PortCounters)>,
}

impl<R: Registers> SimnicPort<R> {
    pub(crate) fn new(
        regs: R,
        life: Arc<Lifeline>,
        port: u8,
        max_frame_bytes: usize,
        queues: Vec<(RxRing<R>, TxRing<R>)>,
    ) -> Self {
        let read = |r: PortReg| regs.read32(RegOffset(r.of(port).0)).to_le_bytes();
        let (lo, hi) = (read(PortReg::MAC_LO), read(PortReg::MAC_HI));
        SimnicPort {
            mac: [lo[0], lo[1], lo[2], lo[3], hi[0], hi[1]],
            regs,
            life,
            port,
            max_frame_bytes,
            queues: queues.into_iter().map(Some).collect(),
            before: Cell::default(),
            last: Cell::default(),
        }
    }

    /// Its number on the device.
    pub fn device_port(&self) -> u8 {
        self.port
    }

    /// The datapath port it is now.
    pub fn port_id(&self) -> Option<PortId> {
        self.life.port_id(self.port.into()).map(PortId)
    }

    fn read32(&self, r: PortReg) -> u32 {
        self.regs.read32(RegOffset(r.of(self.port).0))
    }

    fn read64(&self, r: PortReg) -> u64 {
        self.regs.read64(RegOffset(r.of(self.port).0))
    }

    fn registers(&self) -> PortCounters {
        PortCounters {
            rx_packets: self.read64(PortReg::RX_PACKETS),
            tx_packets: self.read64(PortReg::TX_PACKETS),
            rx_bytes: self.read64(PortReg::RX_BYTES),
            tx_bytes: self.read64(PortReg::TX_BYTES),
            rx_dropped: self.read64(PortReg::RX_DROPS),
            tx_dropped: self.read64(PortReg::TX_DROPS),
            rx_errors: self.read64(PortReg::RX_ERRORS),
            tx_errors: self.read64(PortReg::TX_ERRORS),
        }
    }
}

/// Sums, which no device reaches the end of.
fn add(a: PortCounters, b: PortCounters) -> PortCounters {
    PortCounters {
        rx_packets: a.rx_packets.saturating_add(b.rx_packets),
        tx_packets: a.tx_packets.saturating_add(b.tx_packets),
        rx_bytes: a.rx_bytes.saturating_add(b.rx_bytes),
        tx_bytes: a.tx_bytes.saturating_add(b.tx_bytes),
        rx_dropped: a.rx_dropped.saturating_add(b.rx_dropped),
        tx_dropped: a.tx_dropped.saturating_add(b.tx_dropped),
        rx_errors: a.rx_errors.saturating_add(b.rx_errors),
        tx_errors: a.tx_errors.saturating_add(b.tx_errors),
    }
}

impl<R: Registers + 'static> PacketIo for SimnicPort<R> {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        let (mut rx, tx) =
            self.queues.get_mut(usize::from(q.0)).and_then(Option::take).ok_or(IoError::Gone)?;
        rx.open();
        Ok((Box::new(rx), Box::new(tx)))
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
        let s = self.read32(PortReg::STATUS);
        if self.life.epoch().is_none() || s == ALL_ONES {
            return LinkState::default();
        }
        LinkState {
            admin_up: s & port_status::ADMIN_UP != 0,
            link_up: s & port_status::LINK_UP != 0,
            speed_mbps: self.read32(PortReg::SPEED_MBPS),
        }
    }

    fn counters(&self) -> PortCounters {
        let epoch = self.life.epoch();
        let (last_epoch, last) = self.last.get();
        if epoch.is_some() {
            let read = self.registers();
            // Asked afterwards: a device that goes in the middle says all ones from then on.
            if self.read32(PortReg::STATUS) != ALL_ONES {
                if epoch != last_epoch {
                    self.before.set(add(self.before.get(), last));
                }
                self.last.set((epoch, read));
            }
        }
        // The driver counts errors alone itself.
        add(add(self.before.get(), self.last.get().1), self.life.counts(self.port.into()).read())
    }
}
