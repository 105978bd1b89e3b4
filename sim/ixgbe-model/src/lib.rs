//! A register-level model of an Intel 82599, so that its driver is exercised where there is no silicon. It shares only
//! `ixgbe-defs` with the driver.
//!
//! ```text
//!   registers ── class and reset value of each ([`registers`])
//!      │ TDT ─► transmit: descriptors by DMA ─► frames for the wire
//!      │ RDT ◄─ receive: address filter ─► 5-tuple filters ─► flow director ─► RSS ─► queue ─► descriptor, interrupt
//!      │ FDIRCMD ─► tables in buckets, with real insertion, limits and status
//!      └ statistics, cleared when read; masks, auto-mask, pending causes; reset
//! ```
//!
//! What a driver does against the datasheet is a [`Fault`], kept and counted, never a panic. What the device does wrong on demand is in
//! [`Mishaps`]. *Not modelled*: time within the device (a register access does what it causes, but for bits that the datasheet has
//! polled, which take a few reads; interrupt moderation is stored, not applied), offloads of checksums, segments and VLAN tags
//! (faults when asked for), virtualization, traffic classes, FCoE, security, wake-up, the EEPROM's contents.
#![forbid(unsafe_code)]

mod filters;
mod interrupts;
pub mod live;
mod parse;
mod receive;
pub mod registers;
mod transmit;

use std::collections::VecDeque;

use device::Interrupt;
use ixgbe_defs::bits::{ctrl, dctl, eec, eicr, links, rdrxctl, rxctrl, status};
use ixgbe_defs::fdir::ctrl as fctl;
use ixgbe_defs::{BAR_BYTES, MSIX_VECTORS, RX_QUEUES, TX_QUEUES, regs};
use model_bus::{Bus, Chip, Model};

use crate::filters::FlowDirector;
use crate::registers::{Class, class_of, reset_value};

/// Address that its EEPROM has.
pub const MAC: [u8; 6] = [0x90, 0xe2, 0xba, 0x00, 0x00, 0x01];
/// Vendor and device id: an 82599 with SFP+.
pub const PCI_ID: (u16, u16) = (0x8086, 0x10fb);
/// Faults that are kept; more are counted.
const MAX_FAULTS: usize = 64;
/// Frames that wait to be collected; more are lost and counted.
const MAX_SENT: usize = 65_536;
/// Reads before a bit that is to be polled says so.
const SETTLE_READS: u8 = 2;

/// What a driver did that the datasheet rules out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Fault {
    /// A register that is only read was written.
    ReadOnly { register: u32 },
    /// There is no such register in the model.
    Unknown { register: u32 },
    /// A register was accessed other than whole.
    Width { register: u32, bytes: u8 },
    /// A ring was changed while its queue was enabled.
    RingInUse { register: u32 },
    /// A ring's address, length or tail cannot be.
    BadRing { rx: bool, queue: u16, what: &'static str },
    /// A queue was enabled before what it depends on.
    TooEarly { rx: bool, queue: u16, what: &'static str },
    /// A descriptor that makes no sense.
    BadDescriptor { rx: bool, queue: u16, index: u32, what: &'static str },
    /// The flow director was told something while it was not ready for it.
    FlowDirector { what: &'static str },
}

/// What goes wrong with one received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RxFault {
    /// Its descriptor is never written back.
    Missing,
    /// It is said to be longer than its buffer.
    TooLong,
    /// It is said to have no bytes.
    Empty,
    /// It is said to go on in the next buffer, and does not.
    NoEnd,
    /// It is said to be damaged.
    Damaged,
    /// The descriptor after it is written back as well.
    Twice,
    /// It is written to the descriptor after the one that is next.
    OutOfOrder,
    /// The device resets itself instead.
    ResetsItself,
}

/// What goes wrong with one frame sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxFault {
    /// Its descriptor is never written back.
    Never,
    /// The device resets itself after it.
    ResetsItself,
}

/// What the device does wrong on demand.
#[derive(Clone, Default, Debug)]
pub struct Mishaps {
    /// With the next received frames.
    pub rx: VecDeque<Option<RxFault>>,
    /// With the next frames sent.
    pub tx: VecDeque<Option<TxFault>>,
    /// A reset never ends.
    pub reset_hangs: bool,
    /// The EEPROM is never read.
    pub no_eeprom: bool,
    /// DMA is never initialized.
    pub no_dma: bool,
    /// Queues are never enabled.
    pub no_enable: bool,
    /// The flow director's tables are never initialized.
    pub fdir_no_init: bool,
    /// The flow director never finishes a command.
    pub fdir_hangs: bool,
    /// The flow director loses what it is told to add.
    pub fdir_forgets: bool,
    /// The flow director has no room for what it is told to add.
    pub fdir_full: bool,
    /// Nothing is sent.
    pub tx_hangs: bool,
    /// Requests to the bus never end.
    pub master_hangs: bool,
}

/// Bits that say so only after a few reads.
#[derive(Clone, Copy, Default)]
struct Settling {
    eeprom: u8,
    dma: u8,
    fdir_init: u8,
    fdir_cmd: u8,
}

/// See the crate's text.
pub struct Ixgbe {
    r: Vec<u32>,
    settling: Settling,
    /// Enabled queues, by what their control register reads.
    rx_on: Vec<u8>,
    tx_on: Vec<u8>,
    fdir: FlowDirector,
    vector_mask: u64,
    misc_mask: u32,
    carrier: bool,
    /// What it does wrong.
    pub mishaps: Mishaps,
    faults: Vec<Fault>,
    fault_count: u64,
    sent: VecDeque<(u16, Vec<u8>)>,
    /// Frames that were not collected in time.
    pub sent_lost: u64,
    /// Rung when a frame is sent.
    wake: Option<Interrupt>,
    /// Resets by the driver or by itself.
    pub resets: u64,
}

/// How far a queue is from being enabled: disabled, about to be, enabled.
const OFF: u8 = 0;
const SOON: u8 = 1;
const ON: u8 = 2;

impl Default for Ixgbe {
    fn default() -> Self {
        Ixgbe::new()
    }
}

impl Ixgbe {
    /// A device after power-up, with its link up.
    pub fn new() -> Self {
        let mut d = Ixgbe {
            r: vec![0; BAR_BYTES / 4],
            settling: Settling::default(),
            rx_on: vec![OFF; RX_QUEUES.into()],
            tx_on: vec![OFF; TX_QUEUES.into()],
            fdir: FlowDirector::default(),
            vector_mask: 0,
            misc_mask: 0,
            carrier: true,
            mishaps: Mishaps::default(),
            faults: Vec::new(),
            fault_count: 0,
            sent: VecDeque::new(),
            sent_lost: 0,
            wake: None,
            resets: 0,
        };
        d.restart();
        d
    }

    fn restart(&mut self) {
        for (i, v) in self.r.iter_mut().enumerate() {
            *v = reset_value(4 * i as u32);
        }
        let m = MAC.map(u32::from);
        self.put(regs::ral(0), m[0] | m[1] << 8 | m[2] << 16 | m[3] << 24);
        self.put(regs::rah(0), m[4] | m[5] << 8 | ixgbe_defs::bits::rah::AV);
        let s = SETTLE_READS;
        self.settling = Settling { eeprom: s, dma: s, fdir_init: 0, fdir_cmd: 0 };
        self.rx_on.fill(OFF);
        self.tx_on.fill(OFF);
        self.fdir = FlowDirector::default();
        (self.vector_mask, self.misc_mask) = (0, 0);
        self.resets += 1;
    }

    fn get(&self, r: u32) -> u32 {
        self.r.get(r as usize / 4).copied().unwrap_or(u32::MAX)
    }

    fn put(&mut self, r: u32, v: u32) {
        if let Some(x) = self.r.get_mut(r as usize / 4) {
            *x = v;
        }
    }

    fn count(&mut self, r: u32, n: u32) {
        self.put(r, self.get(r).saturating_add(n));
    }

    /// Adds to a counter of 36 bits.
    fn count_wide(&mut self, low: u32, high: u32, n: u64) {
        let v = (u64::from(self.get(low)) | u64::from(self.get(high)) << 32).wrapping_add(n) & 0xf_ffff_ffff;
        self.put(low, v as u32);
        self.put(high, (v >> 32) as u32);
    }

    fn fault(&mut self, f: Fault) {
        self.fault_count += 1;
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(f);
        }
    }

    /// What the driver did wrong, the first of it.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// How much of it there was.
    pub fn fault_count(&self) -> u64 {
        self.fault_count
    }

    /// Perfect filters that are in.
    pub fn filters(&self) -> usize {
        self.fdir.len()
    }

    /// The register at `r` as it is, without what reading does.
    pub fn peek(&self, r: u32) -> u32 {
        self.get(r)
    }

    fn link_up(&self) -> bool {
        self.carrier
    }

    /// The cable is plugged in or pulled out.
    pub fn set_carrier(&mut self, bus: &mut Bus, up: bool) {
        if self.carrier != up {
            self.carrier = up;
            self.misc_cause(bus, eicr::LSC);
        }
    }

    /// Memory of the device is damaged.
    pub fn damage(&mut self, bus: &mut Bus) {
        self.misc_cause(bus, eicr::ECC);
    }

    /// One of `n` reads has passed; whether they all have.
    fn settle(n: &mut u8) -> bool {
        *n = n.saturating_sub(1);
        *n == 0
    }

    /// A queue's control register reads whether it is enabled: at the second look.
    fn enabled(on: &mut u8, never: bool) -> u32 {
        let was = *on;
        if was == SOON && !never {
            *on = ON;
        }
        if was == ON { dctl::ENABLE } else { 0 }
    }

    fn read_whole(&mut self, bus: &mut Bus, r: u32) -> u32 {
        let v = self.get(r);
        match r {
            regs::CTRL => {
                // A reset that ends does so at once, as far as anybody can see: within a microsecond.
                v
            }
            regs::STATUS => {
                let quiet =
                    self.get(regs::CTRL) & ctrl::PCIE_MASTER_DISABLE != 0 && !self.mishaps.master_hangs;
                let up = if self.link_up() { status::LINK_UP } else { 0 };
                v | up | if quiet { 0 } else { status::PCIE_MASTER_ENABLE }
            }
            regs::EEC if !self.mishaps.no_eeprom && Self::settle(&mut self.settling.eeprom) => {
                v | eec::PRES | eec::ARD
            }
            regs::RDRXCTL if !self.mishaps.no_dma && Self::settle(&mut self.settling.dma) => {
                v | rdrxctl::DMAIDONE
            }
            regs::LINKS => {
                if self.link_up() {
                    links::UP | links::SPEED_10G
                } else {
                    0
                }
            }
            regs::FDIRCTRL if v & fctl::PBALLOC_256K != 0 => {
                let done = !self.mishaps.fdir_no_init && Self::settle(&mut self.settling.fdir_init);
                self.fdir.ready |= done;
                if self.fdir.ready { v | fctl::INIT_DONE } else { v }
            }
            regs::FDIRCMD => self.read_fdircmd(v),
            regs::FDIRFREE => self.fdir.free(),
            regs::EICR => self.read_causes(v),
            regs::EIMS => self.misc_mask | self.vector_mask as u32 & eicr::RTXQ,
            _ if r == regs::eims_ex(0) => self.vector_mask as u32,
            _ if r == regs::eims_ex(1) => (self.vector_mask >> 32) as u32,
            _ => match registers::queue_of(r) {
                Some((true, q, 0x28)) => {
                    let on = Self::enabled(&mut self.rx_on[usize::from(q)], self.mishaps.no_enable);
                    v & !dctl::ENABLE | on
                }
                Some((false, q, 0x28)) => {
                    let on = Self::enabled(&mut self.tx_on[usize::from(q)], self.mishaps.no_enable);
                    v & !dctl::ENABLE | on
                }
                _ => {
                    let _ = bus;
                    v
                }
            },
        }
    }

    fn write_whole(&mut self, bus: &mut Bus, r: u32, v: u32) {
        match r {
            regs::CTRL => self.write_ctrl(bus, v),
            regs::EICR => self.put(r, self.get(r) & !v),
            regs::EICS => self.set_causes(bus, v),
            regs::EIMS => self.unmask(bus, v, u64::from(v & eicr::RTXQ)),
            regs::EIMC => self.mask(v, u64::from(v & eicr::RTXQ)),
            regs::FDIRCTRL => self.write_fdirctrl(v),
            regs::FDIRCMD => self.write_fdircmd(v),
            regs::FDIRM | regs::FDIRTCPM | regs::FDIRUDPM | regs::FDIRSIP4M | regs::FDIRDIP4M => {
                if self.fdir.len() > 0 {
                    self.fault(Fault::FlowDirector { what: "masks changed under filters" });
                }
                self.put(r, v);
            }
            _ if r == regs::eims_ex(0) => self.unmask(bus, 0, u64::from(v)),
            _ if r == regs::eims_ex(1) => self.unmask(bus, 0, u64::from(v) << 32),
            _ if r == regs::eimc_ex(0) => self.mask(0, u64::from(v)),
            _ if r == regs::eimc_ex(1) => self.mask(0, u64::from(v) << 32),
            _ => match registers::queue_of(r) {
                Some((rx, q, at)) => self.write_queue(bus, rx, q, at, r, v),
                None => self.put(r, v),
            },
        }
    }

    fn write_ctrl(&mut self, _: &mut Bus, v: u32) {
        if v & (ctrl::RST | ctrl::LRST) != 0 {
            if self.mishaps.reset_hangs {
                return self.put(regs::CTRL, v);
            }
            return self.restart();
        }
        self.put(regs::CTRL, v);
    }

    fn write_queue(&mut self, bus: &mut Bus, rx: bool, q: u16, at: u32, r: u32, v: u32) {
        let state = if rx { &mut self.rx_on[usize::from(q)] } else { &mut self.tx_on[usize::from(q)] };
        let on = *state != OFF;
        match at {
            0x28 => {
                let wanted = v & dctl::ENABLE != 0;
                *state = match (wanted, on) {
                    (true, false) => SOON,
                    (false, _) => OFF,
                    (true, true) => *state,
                };
                self.put(r, v);
                if wanted && !on {
                    self.check_ring(rx, q);
                }
            }
            0x18 => {
                // The tail of a queue that is not enabled does nothing; it is set to zero before it is.
                let entries = self.ring(rx, q).1;
                if on && v >= entries {
                    return self.fault(Fault::BadRing { rx, queue: q, what: "tail beyond the ring" });
                }
                self.put(r, v);
                if on && !rx {
                    self.transmit(bus, q);
                }
            }
            0x00 | 0x04 | 0x08 | 0x10 if on => self.fault(Fault::RingInUse { register: r }),
            _ => self.put(r, v),
        }
    }

    /// Address and entries of a ring.
    fn ring(&self, rx: bool, q: u16) -> (u64, u32) {
        let base = if rx { regs::rdbal(q.into()) } else { regs::tdbal(q.into()) };
        let addr = u64::from(self.get(base)) | u64::from(self.get(base + 4)) << 32;
        (addr, self.get(base + 8) / ixgbe_defs::desc::BYTES as u32)
    }

    fn check_ring(&mut self, rx: bool, q: u16) {
        let (addr, entries) = self.ring(rx, q);
        let base = if rx { regs::rdbal(q.into()) } else { regs::tdbal(q.into()) };
        let bad = |what| Fault::BadRing { rx, queue: q, what };
        if !addr.is_multiple_of(128) {
            self.fault(bad("address is not a multiple of 128"));
        }
        if entries < 8 || !self.get(base + 8).is_multiple_of(128) {
            self.fault(bad("length is not a multiple of 128"));
        }
        if self.get(base + 0x10) != 0 || self.get(base + 0x18) != 0 {
            self.fault(bad("head and tail are not zero"));
        }
        let early = |what| Fault::TooEarly { rx, queue: q, what };
        if !rx && self.get(regs::DMATXCTL) & ixgbe_defs::bits::dmatxctl::TE == 0 {
            self.fault(early("DMATXCTL.TE is not set"));
        }
        if rx
            && self.get(regs::srrctl(q.into())) & ixgbe_defs::bits::srrctl::DESCTYPE
                != ixgbe_defs::bits::srrctl::DESCTYPE_ADV_ONE
        {
            self.fault(early("descriptors are not advanced ones of one buffer"));
        }
    }

    fn receives(&self) -> bool {
        self.get(regs::RXCTRL) & rxctrl::RXEN != 0 && self.link_up()
    }
}

impl Chip for Ixgbe {
    const BAR_BYTES: usize = BAR_BYTES;

    fn vectors(&self) -> u16 {
        MSIX_VECTORS
    }

    fn config(&self) -> Vec<u8> {
        let mut c = vec![0; 256];
        c[..2].copy_from_slice(&PCI_ID.0.to_le_bytes());
        c[2..4].copy_from_slice(&PCI_ID.1.to_le_bytes());
        c[0x0b] = 0x02;
        c
    }

    fn read(&mut self, bus: &mut Bus, r: u32, bytes: u8) -> u64 {
        if bytes != 4 {
            self.fault(Fault::Width { register: r, bytes });
            return u64::MAX;
        }
        let class = class_of(r);
        if class == Class::Unknown {
            self.fault(Fault::Unknown { register: r });
            return 0;
        }
        let v = self.read_whole(bus, r);
        match class {
            Class::WriteOnly => return 0,
            Class::ReadClear => self.put(r, 0),
            _ => {}
        }
        v.into()
    }

    fn write(&mut self, bus: &mut Bus, r: u32, v: u64, bytes: u8) {
        if bytes != 4 {
            return self.fault(Fault::Width { register: r, bytes });
        }
        match class_of(r) {
            Class::Unknown => self.fault(Fault::Unknown { register: r }),
            Class::ReadOnly | Class::ReadClear => self.fault(Fault::ReadOnly { register: r }),
            Class::ReadWrite | Class::WriteOnly => self.write_whole(bus, r, v as u32),
        }
    }

    fn reset(&mut self, _: &mut Bus) -> bool {
        self.restart();
        true
    }
}

/// What the wire's side of the device and a test do to it.
pub trait Outside {
    /// A frame comes in, without its check sequence.
    fn inject(&self, frame: &[u8]);
    /// Takes what was sent, by transmit queue, with what the device has filled up.
    fn collect(&self) -> Vec<(u16, Vec<u8>)>;
    /// The cable is plugged in or pulled out.
    fn set_carrier(&self, up: bool);
}

impl Outside for Model<Ixgbe> {
    fn inject(&self, frame: &[u8]) {
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        chip.receive(bus, frame);
    }

    fn collect(&self) -> Vec<(u16, Vec<u8>)> {
        self.lock().0.sent.drain(..).collect()
    }

    fn set_carrier(&self, up: bool) {
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        chip.set_carrier(bus, up);
    }
}
