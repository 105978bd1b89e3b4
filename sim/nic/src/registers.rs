//! BAR0 and BAR2 as the host reads and writes them (datasheet 2). Accesses take effect between two cycles.
//!
//! Behavioural: an access takes effect between two cycles; its way over the link takes none.

use kernel::Cycles;
use pcie::ConfigEffect;
use simnic_defs::regs::{
    ALL_ONES, BAR_MSIX, BAR_MSIX_BYTES, BAR_REGS, BAR_REGS_BYTES, ID_VALUE, MAX_QUEUE_PAIRS, MSIX_PBA_OFFSET,
    PORT_BASE, PORT_STRIDE, PortReg, QUEUE_BASE, QUEUE_STRIDE, QueueReg, Reg, VERSION_MAJOR, ctrl,
    port_status, queue_ctrl, queue_status, status,
};

use crate::chip::{Chip, shared};
use crate::faults::FaultKind;
use crate::ring::{Doorbell, Ring};

/// Which ring a register belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RingRef {
    Command,
    Rx(usize),
    Tx(usize),
}

/// A register of a ring, by its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RingReg {
    DescLo,
    DescHi,
    CplLo,
    CplHi,
    Log2,
    Vector,
    Ctrl,
    Status,
    Tail,
    Arm,
    Drops,
}

impl RingReg {
    /// By its offset in a queue block's half.
    fn at(offset: u32) -> Option<RingReg> {
        Some(match offset {
            0x00 => RingReg::DescLo,
            0x04 => RingReg::DescHi,
            0x08 => RingReg::CplLo,
            0x0c => RingReg::CplHi,
            0x10 => RingReg::Log2,
            0x14 => RingReg::Vector,
            0x18 => RingReg::Ctrl,
            0x1c => RingReg::Status,
            0x20 => RingReg::Tail,
            0x24 => RingReg::Arm,
            0x28 => RingReg::Drops,
            _ => return None,
        })
    }
}

fn lo(v: u64) -> u32 {
    v as u32
}

fn hi(v: u64) -> u32 {
    (v >> 32) as u32
}

fn with_lo(v: u64, x: u32) -> u64 {
    v & !0xffff_ffff | u64::from(x)
}

fn with_hi(v: u64, x: u32) -> u64 {
    v & 0xffff_ffff | u64::from(x) << 32
}

impl Chip {
    /// Whether the device answers memory accesses at all.
    fn answers(&self) -> bool {
        !self.removed() && self.pci.memory_enabled()
    }

    /// Reads 32 bits of a BAR.
    pub fn read_bar(&mut self, now: Cycles, bar: u8, offset: u32) -> u32 {
        if !self.answers() || !offset.is_multiple_of(4) {
            return ALL_ONES;
        }
        match bar {
            BAR_REGS if u64::from(offset) < BAR_REGS_BYTES => self.read_reg(now, offset),
            BAR_MSIX if u64::from(offset) < BAR_MSIX_BYTES => {
                if offset >= MSIX_PBA_OFFSET {
                    self.msix.read_pending(offset - MSIX_PBA_OFFSET)
                } else {
                    self.msix.read_table(offset)
                }
            }
            _ => ALL_ONES,
        }
    }

    /// Writes 32 bits of a BAR.
    pub fn write_bar(&mut self, now: Cycles, bar: u8, offset: u32, v: u32) {
        if !self.answers() || !offset.is_multiple_of(4) {
            return;
        }
        match bar {
            BAR_REGS if u64::from(offset) < BAR_REGS_BYTES => {
                let taken = self.write_reg(now, offset, v);
                if !taken {
                    self.faults.stage(now, FaultKind::IgnoredWrite, offset, v.into());
                }
            }
            BAR_MSIX if offset < MSIX_PBA_OFFSET => {
                self.msix.write_table(offset, v);
            }
            _ => {}
        }
        self.faults.commit();
        if std::mem::take(&mut self.faults.event) {
            self.raise_event();
        }
    }

    /// Reads configuration space.
    pub fn read_config(&self, offset: u16) -> u8 {
        if self.removed() { 0xff } else { self.pci.read8(offset) }
    }

    /// Writes configuration space.
    pub fn write_config(&mut self, now: Cycles, offset: u16, bytes: &[u8]) {
        if self.removed() {
            return;
        }
        match self.pci.write(offset, bytes) {
            ConfigEffect::None => {}
            ConfigEffect::FunctionLevelReset => self.function_level_reset(now),
            ConfigEffect::MsixControl => {
                let (enabled, masked) = self.pci.msix();
                self.msix.set_control(enabled, masked);
            }
        }
    }

    /// A 64-bit counter in two halves: reading the low one keeps the high one for the next read.
    fn wide(&mut self, offset: u32, v: u64) -> u32 {
        if offset.is_multiple_of(8) {
            self.latch = Some((offset + 4, hi(v)));
            return lo(v);
        }
        match self.latch.take_if(|(at, _)| *at == offset) {
            Some((_, v)) => v,
            None => hi(v),
        }
    }

    fn status(&self) -> u32 {
        let resetting = self.reset_until.is_some();
        let mut s = if resetting { status::RESETTING } else { status::READY };
        if self.enabled {
            s |= status::ENABLED;
        }
        if self.fatal {
            s |= status::FATAL;
        }
        s
    }

    fn read_reg(&mut self, now: Cycles, offset: u32) -> u32 {
        if let Some((ring, reg)) = self.ring_of(offset) {
            return self.read_ring(ring, reg);
        }
        if (PORT_BASE..QUEUE_BASE).contains(&offset) {
            return self.read_port(offset);
        }
        match Reg(offset) {
            Reg::ID => ID_VALUE,
            Reg::VERSION => VERSION_MAJOR << 16,
            Reg::CTRL => {
                if self.enabled {
                    ctrl::ENABLE
                } else {
                    0
                }
            }
            Reg::STATUS => self.status(),
            Reg::FAULT => self.faults.bits,
            Reg(o) if o == Reg::CTR_BASE.0 => lo(self.evictor.base),
            Reg(o) if o == Reg::CTR_BASE.0 + 4 => hi(self.evictor.base),
            Reg::CTR_LOG2 => self.evictor.log2,
            Reg::PARSE_DEPTH => self.pipeline.depth().into(),
            Reg::CTR_CTRL if self.evictor.enabled => queue_ctrl::ENABLE,
            Reg::CTR_STATUS => {
                let enabled = if self.evictor.is_locked() { queue_status::ENABLED } else { 0 };
                enabled | if self.evictor.error { queue_status::ERROR } else { 0 }
            }
            Reg::FAULT_INFO => self.faults.info,
            Reg(o) if o & !4 == Reg::FAULT_ADDR.0 => {
                let v = self.faults.addr;
                self.wide(o, v)
            }
            Reg(o) if o & !4 == Reg::TIME.0 => {
                let v = self.now_ns(now);
                self.wide(o, v)
            }
            r => self.caps.register(r).unwrap_or(0),
        }
    }

    fn read_port(&mut self, offset: u32) -> u32 {
        let (index, at) = ((offset - PORT_BASE) / PORT_STRIDE, (offset - PORT_BASE) % PORT_STRIDE);
        let Some(p) = self.ports.get(index as usize) else { return 0 };
        let c = &p.counts;
        let mac = self.mac;
        let v = match PortReg(at & !4) {
            _ if at == PortReg::STATUS.0 => {
                let bit = |on: bool, bit| if on { bit } else { 0 };
                return bit(p.up, port_status::ADMIN_UP) | bit(p.link_up(), port_status::LINK_UP);
            }
            _ if at == PortReg::SPEED_MBPS.0 => return self.config.port.speed_mbps,
            _ if at == PortReg::MAC_LO.0 => return u32::from_le_bytes([mac[0], mac[1], mac[2], mac[3]]),
            _ if at == PortReg::MAC_HI.0 => return u32::from_le_bytes([mac[4], index as u8, 0, 0]),
            PortReg::RX_PACKETS => c.rx_packets,
            PortReg::RX_BYTES => c.rx_bytes,
            PortReg::RX_DROPS => c.rx_drops,
            PortReg::RX_ERRORS => c.rx_errors,
            PortReg::TX_PACKETS => c.tx_packets,
            PortReg::TX_BYTES => c.tx_bytes,
            PortReg::TX_DROPS => c.tx_drops,
            PortReg::TX_ERRORS => c.tx_errors,
            _ => return 0,
        };
        self.wide(offset, v)
    }

    /// The ring and its register at an offset of BAR0, if there is one.
    fn ring_of(&self, offset: u32) -> Option<(RingRef, RingReg)> {
        if (Reg::CMD_SQ_BASE.0..=Reg::CMD_ARM.0).contains(&offset) {
            let reg = RingReg::at(offset - Reg::CMD_SQ_BASE.0)?;
            return Some((RingRef::Command, reg));
        }
        let at = offset.checked_sub(QUEUE_BASE)?;
        let (block, at) = (at / QUEUE_STRIDE, at % QUEUE_STRIDE);
        let (port, pair) = (block / MAX_QUEUE_PAIRS, block % MAX_QUEUE_PAIRS);
        let d = &self.config.device;
        if port >= d.ports.into() || pair >= d.queue_pairs.into() {
            return None;
        }
        let index = (port * u32::from(d.queue_pairs) + pair) as usize;
        if at < QueueReg::TX_DESC_BASE.0 {
            Some((RingRef::Rx(index), RingReg::at(at)?))
        } else {
            let reg = RingReg::at(at - QueueReg::TX_DESC_BASE.0).filter(|r| *r != RingReg::Drops)?;
            Some((RingRef::Tx(index), reg))
        }
    }

    fn ring(&mut self, r: RingRef) -> &mut Ring {
        match r {
            RingRef::Command => &mut self.cmd.ring,
            RingRef::Rx(i) => &mut self.rx.host.rings[i].ring,
            RingRef::Tx(i) => &mut self.tx.host.rings[i].ring,
        }
    }

    fn read_ring(&mut self, r: RingRef, reg: RingReg) -> u32 {
        if let (RingRef::Rx(i), RingReg::Drops) = (r, reg) {
            return self.rx.host.rings[i].drops as u32;
        }
        let ring = self.ring(r);
        match reg {
            RingReg::DescLo => lo(ring.desc_base),
            RingReg::DescHi => hi(ring.desc_base),
            RingReg::CplLo => lo(ring.cpl_base),
            RingReg::CplHi => hi(ring.cpl_base),
            RingReg::Log2 => ring.log2,
            RingReg::Vector => ring.vector,
            RingReg::Ctrl => {
                if ring.enabled {
                    queue_ctrl::ENABLE
                } else {
                    0
                }
            }
            RingReg::Status => {
                let mut s = 0;
                if ring.shows_enabled() {
                    s |= queue_status::ENABLED;
                }
                if ring.error {
                    s |= queue_status::ERROR;
                }
                s
            }
            RingReg::Tail | RingReg::Arm | RingReg::Drops => 0,
        }
    }

    /// Writes a register; false when the write is ignored.
    fn write_reg(&mut self, now: Cycles, offset: u32, v: u32) -> bool {
        if self.reset_until.is_some() {
            // A reset during a reset is the same reset.
            return offset == Reg::CTRL.0 && v & ctrl::RESET != 0;
        }
        if let Some((ring, reg)) = self.ring_of(offset) {
            let taken = self.write_ring(now, ring, reg, v);
            match ring {
                RingRef::Command => {}
                RingRef::Rx(i) => self.rx.host.touch(i),
                RingRef::Tx(i) => self.tx.host.touch(i),
            }
            return taken;
        }
        match Reg(offset) {
            Reg::CTRL => {
                if v & ctrl::RESET != 0 {
                    self.reset(now);
                } else {
                    self.enabled = v & ctrl::ENABLE != 0;
                }
            }
            Reg::FAULT => self.faults.bits &= !v,
            Reg::PARSE_DEPTH => return self.pipeline.set_depth(v),
            r if (Reg::CTR_BASE..=Reg::CTR_TAIL).contains(&r) => return self.write_counter_ring(now, r, v),
            _ => return false,
        }
        true
    }

    /// Writes a register of the counter ring.
    fn write_counter_ring(&mut self, now: Cycles, r: Reg, v: u32) -> bool {
        let most = self.caps.counter_log2_max;
        let e = &mut self.evictor;
        if most == 0 {
            return false;
        }
        match r {
            Reg::CTR_CTRL if v & queue_ctrl::ENABLE == 0 => e.disable(false, &mut self.tables),
            Reg::CTR_CTRL => {
                if !e.enable(self.caps.ring_log2_min, most, &mut self.tables) {
                    self.faults.stage(now, FaultKind::BadRing, r.0, e.log2.into());
                }
            }
            Reg::CTR_TAIL => {
                if !e.doorbell(v) {
                    self.faults.stage(now, FaultKind::BadDoorbell, Reg::CTR_CTRL.0, v.into());
                    e.disable(true, &mut self.tables);
                }
            }
            Reg::CTR_STATUS => return false,
            _ if e.is_locked() => return false,
            Reg::CTR_LOG2 => e.log2 = v,
            Reg::CTR_BASE => e.base = with_lo(e.base, v),
            _ => e.base = with_hi(e.base, v),
        }
        true
    }

    fn write_ring(&mut self, now: Cycles, r: RingRef, reg: RingReg, v: u32) -> bool {
        let ring = self.ring(r);
        match reg {
            RingReg::Tail => {
                if ring.doorbell(v) == Doorbell::Bad {
                    let register = self.ctrl_of(r);
                    self.faults.stage(now, FaultKind::BadDoorbell, register, v.into());
                    self.stop_ring(r, true);
                }
                return true;
            }
            RingReg::Arm => {
                ring.arm(v);
                return true;
            }
            RingReg::Ctrl => {
                self.control_ring(now, r, v & queue_ctrl::ENABLE != 0);
                return true;
            }
            RingReg::Status | RingReg::Drops => return false,
            _ => {}
        }
        if ring.enabled || ring.in_flight > 0 {
            return false;
        }
        match reg {
            RingReg::DescLo => ring.desc_base = with_lo(ring.desc_base, v),
            RingReg::DescHi => ring.desc_base = with_hi(ring.desc_base, v),
            RingReg::CplLo => ring.cpl_base = with_lo(ring.cpl_base, v),
            RingReg::CplHi => ring.cpl_base = with_hi(ring.cpl_base, v),
            RingReg::Log2 => ring.log2 = v,
            RingReg::Vector => ring.vector = v,
            _ => {}
        }
        true
    }

    /// Enables or disables a ring.
    fn control_ring(&mut self, now: Cycles, r: RingRef, on: bool) {
        if !on {
            return self.stop_ring(r, false);
        }
        let h = &self.config.host;
        let (least, most) = match r {
            RingRef::Command => (h.ring_log2_min, h.command_log2_max),
            RingRef::Rx(_) | RingRef::Tx(_) => (h.ring_log2_min, h.ring_log2_max),
        };
        let ring = self.ring(r);
        if ring.enabled {
            return;
        }
        if ring.geometry_is_good(least, most) {
            return ring.enable();
        }
        ring.error = true;
        let log2 = ring.log2;
        let register = self.ctrl_of(r);
        self.faults.stage(now, FaultKind::BadRing, register, log2.into());
    }

    fn stop_ring(&mut self, r: RingRef, error: bool) {
        let mut s = shared!(self);
        match r {
            RingRef::Command => self.cmd.stop(error),
            RingRef::Rx(i) => self.rx.host.stop(i, error, &mut self.ports, &mut s),
            RingRef::Tx(i) => self.tx.host.stop(i, error, &mut self.ports, &mut s),
        }
    }

    fn ctrl_of(&self, r: RingRef) -> u32 {
        let pairs = usize::from(self.config.device.queue_pairs);
        let of = |reg: QueueReg, i: usize| reg.of((i / pairs) as u8, (i % pairs) as u8).0;
        match r {
            RingRef::Command => Reg::CMD_CTRL.0,
            RingRef::Rx(i) => of(QueueReg::RX_CTRL, i),
            RingRef::Tx(i) => of(QueueReg::TX_CTRL, i),
        }
    }
}
