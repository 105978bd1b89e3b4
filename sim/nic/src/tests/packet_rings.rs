//! Packet rings of the raw host.

use device::{RegOffset, Registers};
use simnic_defs::regs::{PortReg, QueueReg, Reg, queue_ctrl};
use simnic_defs::{BufDesc, RxCpl, TxCpl, slot_of};
use zerocopy::IntoBytes;

use crate::raw_host::{BUFFER, ENTRIES, HostRing, LOG2, RawError, RawHost};

impl HostRing {
    /// Posts an empty buffer with the slot as its tag.
    pub fn post_receive(&mut self) {
        let slot = slot_of(self.tail, LOG2);
        let at = self.buffers.iova.offset(slot as usize * BUFFER);
        self.write(BufDesc::new(at.0, BUFFER as u16, slot as u16, false).as_bytes());
    }

    /// Posts a frame with the slot as its tag.
    pub fn post_transmit(&mut self, frame: &[u8]) {
        let slot = slot_of(self.tail, LOG2);
        self.buffers.memory.write(slot as usize * BUFFER, frame);
        let at = self.buffers.iova.offset(slot as usize * BUFFER);
        self.write(BufDesc::new(at.0, frame.len() as u16, slot as u16, false).as_bytes());
    }

    pub fn post(&mut self, d: &BufDesc) {
        self.write(d.as_bytes());
    }

    /// The next received frame's completion and bytes.
    pub fn take_received(&mut self) -> Option<(RxCpl, Vec<u8>)> {
        let c = RxCpl::decode(&self.take::<{ RxCpl::BYTES }>()?).ok()?;
        let mut frame = vec![0; c.len.get().into()];
        self.buffers.memory.read(usize::from(c.tag.get()) % ENTRIES * BUFFER, &mut frame);
        Some((c, frame))
    }

    pub fn take_transmitted(&mut self) -> Option<TxCpl> {
        TxCpl::decode(&self.take::<{ TxCpl::BYTES }>()?).ok()
    }
}

impl RawHost {
    pub fn counter(&self, r: PortReg, port: u8) -> u64 {
        self.regs.read64(RegOffset(r.of(port).0))
    }

    /// Starts the receive ring of queue pair `q` of `port`, with nothing posted.
    pub fn receive_ring(&mut self, port: u8, q: u8) -> Result<HostRing, RawError> {
        let r = HostRing::new(&mut self.backing, BufDesc::BYTES, RxCpl::BYTES)?;
        let regs = [QueueReg::RX_DESC_BASE, QueueReg::RX_CPL_BASE, QueueReg::RX_LOG2, QueueReg::RX_CTRL];
        self.start(&r, regs.map(|x| x.of(port, q)));
        Ok(r)
    }

    /// Starts the transmit ring of queue pair `q` of `port`.
    pub fn transmit_ring(&mut self, port: u8, q: u8) -> Result<HostRing, RawError> {
        let r = HostRing::new(&mut self.backing, BufDesc::BYTES, TxCpl::BYTES)?;
        let regs = [QueueReg::TX_DESC_BASE, QueueReg::TX_CPL_BASE, QueueReg::TX_LOG2, QueueReg::TX_CTRL];
        self.start(&r, regs.map(|x| x.of(port, q)));
        Ok(r)
    }

    fn start(&self, r: &HostRing, [desc, cpl, log2, ctrl]: [Reg; 4]) {
        self.regs.write64(RegOffset(desc.0), r.desc.iova.0);
        self.regs.write64(RegOffset(cpl.0), r.cpl.iova.0);
        self.write(log2, LOG2.into());
        self.write(ctrl, queue_ctrl::ENABLE);
    }
}
