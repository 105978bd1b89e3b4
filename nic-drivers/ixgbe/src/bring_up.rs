//! Bring-up in the datasheet's order (4.6.3), and the same again after a failure.
//!
//! ```text
//!   identify ─ reset ─ EEPROM ─ DMA ─ memory ─ interrupts ─ link ─ filters ─ receive ─ transmit ─ queues
//!                                     once                                                        by their threads
//! ```

use std::sync::Arc;
use std::time::Duration;

use clock::Deadline;
use device::driver::{AtStep, Fault, Lifeline, dma_alloc, wait_for};
use device::{BufferPool, DeviceBacking, DeviceError, QueuePair, RegOffset, Registers, RxQueue, TxQueue};
use ixgbe_defs::bits::*;
use ixgbe_defs::desc::BYTES;
use ixgbe_defs::pci::{Mac, mac_of};
use ixgbe_defs::{ALL_ONES, BAR_REGS, FCS_BYTES, RING_MAX_LOG2, RSS_QUEUES, regs, rss, stats};

use crate::config::IxgbeConfig;
use crate::filters::DROP_QUEUE;
use crate::port::IxgbePort;
use crate::provider::{Ixgbe, IxgbeProvider};
use crate::rx_ring::RxRing;
use crate::stats::{SET_DROPPED, SET_QUEUES, Totals};
use crate::tx_ring::TxRing;

/// A step of bring-up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Step {
    Configuration,
    Identify,
    Reset,
    Eeprom,
    Dma,
    Memory,
    Interrupts,
    Link,
    Filters,
    Queues,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Configuration => "configuration",
            Step::Identify => "identify",
            Step::Reset => "reset",
            Step::Eeprom => "EEPROM",
            Step::Dma => "DMA",
            Step::Memory => "memory",
            Step::Interrupts => "interrupts",
            Step::Link => "link",
            Step::Filters => "filters",
            Step::Queues => "queues",
        })
    }
}

/// Bring-up failed; the device is reset and released.
pub type BringUpError = device::driver::BringUpError<Step>;

/// How long the device is left alone after a reset (4.6.3.2).
const AFTER_RESET: Duration = Duration::from_millis(10);
/// How long requests under way may take to end before a reset is done twice instead (5.2.5.3.2).
const MASTER_DISABLE: Duration = Duration::from_millis(100);
/// Longest frame without its check sequence that the driver takes, in bytes, where a cell has the room (7.1.1: 15.5 KB).
const MAX_FRAME_BYTES: usize = 9_724;
/// KiB of the receive packet buffer that are left of it when filters have theirs.
const RX_PACKET_KIB: u32 = pbsize::RX_KIB - 256;

fn get<R: Registers>(r: &R, at: u32) -> u32 {
    r.read32(RegOffset(at))
}

fn put<R: Registers>(r: &R, at: u32, v: u32) {
    r.write32(RegOffset(at), v);
}

/// Sets some bits and clears others.
fn change<R: Registers>(r: &R, at: u32, set: u32, clear: u32) {
    put(r, at, get(r, at) & !clear | set);
}

fn interrupts_off<R: Registers>(r: &R) {
    put(r, regs::EIMC, u32::MAX >> 1);
    put(r, regs::eimc_ex(0), u32::MAX);
    put(r, regs::eimc_ex(1), u32::MAX);
}

/// Step *reset* (4.6.3.1, 4.6.3.2): no more requests to the bus, then everything as after power-up.
fn reset<B: DeviceBacking>(backing: &B, r: &B::Regs, timeout: Duration) -> Result<(), Fault> {
    interrupts_off(r);
    put(r, regs::RXCTRL, 0);
    change(r, regs::CTRL, ctrl::PCIE_MASTER_DISABLE, 0);
    let status = RegOffset(regs::STATUS);
    let quiet = wait_for(backing, r, status, MASTER_DISABLE, "requests under way", |v| {
        v & status::PCIE_MASTER_ENABLE == 0
    });
    let times = match quiet {
        Err(Fault::Gone) => return Err(Fault::Gone),
        // A flow control or link event holds requests up: two resets get rid of them.
        Err(_) => 2,
        Ok(()) => 1,
    };
    for _ in 0..times {
        put(r, regs::CTRL, ctrl::RST | ctrl::LRST);
        let what = "device was not reset";
        wait_for(backing, r, RegOffset(regs::CTRL), timeout, what, |v| v & (ctrl::RST | ctrl::LRST) == 0)?;
    }
    let deadline = Deadline::after(backing.now(), AFTER_RESET);
    // Nothing is waited for but the time.
    let _ = backing.wait_until(&mut || false, deadline);
    interrupts_off(r);
    Ok(())
}

/// The address in the EEPROM.
fn address<R: Registers>(r: &R) -> Result<[u8; 6], Fault> {
    let (low, high) = (get(r, regs::ral(0)), get(r, regs::rah(0)));
    if high & rah::AV == 0 {
        let expected = "a valid address";
        return Err(Fault::Wrong { register: "RAH[0]", value: high, expected });
    }
    let ([a, b, c, d], [e, f, ..]) = (low.to_le_bytes(), high.to_le_bytes());
    Ok([a, b, c, d, e, f])
}

/// The way in.
pub struct IxgbeDriver;

impl IxgbeDriver {
    /// Brings the device up and hands out its owner and its port. `pool` is mapped into it; packets of other pools are copied when
    /// sent.
    ///
    /// # Errors
    /// [`BringUpError`] names the step; the device is then reset and released.
    pub fn bring_up<B: DeviceBacking>(
        mut backing: B,
        pool: BufferPool,
        config: IxgbeConfig,
    ) -> Result<Ixgbe<B>, BringUpError> {
        if !(3..=RING_MAX_LOG2).contains(&config.ring_log2) || !(1..=RSS_QUEUES).contains(&config.queue_pairs)
        {
            let what = format!("ring_log2 must be 3 to {RING_MAX_LOG2}, queue_pairs 1 to {RSS_QUEUES}");
            return Err(Fault::Unfit(what)).at(Step::Configuration);
        }
        let id = backing.config().read32(0);
        let mac = match mac_of(id as u16, (id >> 16) as u16) {
            Some(m) => m,
            None if id == ALL_ONES => return Err(Fault::Gone).at(Step::Identify),
            None => {
                return Err(Fault::Unfit(format!("device id {id:#010x} is none of this driver's")))
                    .at(Step::Identify);
            }
        };
        let r = backing.map_bar(BAR_REGS).at(Step::Identify)?;
        if r.len_bytes() < ixgbe_defs::BAR_BYTES {
            return Err(Fault::Unfit(format!("registers of {} bytes", r.len_bytes()))).at(Step::Identify);
        }
        let max_frame_bytes = pool.data_bytes().min(MAX_FRAME_BYTES);
        let iova = backing.dma_map(pool.memory()).at(Step::Memory)?;
        let life = Arc::new(Lifeline::new(pool, iova, 1));
        life.set_ports(config.port.iter().map(|p| (p.0, 0)));
        let mut provider = IxgbeProvider::new(backing, r.clone(), mac, life.clone(), max_frame_bytes, config);
        let address = provider.program()?;
        life.up();
        let queues = provider.open_queues()?;
        let totals = provider.totals.clone();
        let port = IxgbePort { regs: r, life, totals, mac: address, max_frame_bytes, queues };
        Ok(Ixgbe { provider, port })
    }
}

impl<B: DeviceBacking> IxgbeProvider<B> {
    /// The steps from *reset* on; the device's address.
    fn program(&mut self) -> Result<[u8; 6], BringUpError> {
        let (r, timeout) = (self.regs.clone(), self.config.step_timeout);
        reset(&self.backing, &r, timeout).at(Step::Reset)?;
        // 4.6.3: the EEPROM has been read, and DMA is initialized.
        let what = "EEPROM was not read";
        wait_for(&self.backing, &r, RegOffset(regs::EEC), timeout, what, |v| v & eec::ARD != 0)
            .at(Step::Eeprom)?;
        let address = address(&r).at(Step::Eeprom)?;
        let what = "DMA was not initialized";
        let dma = |v: u32| v & rdrxctl::DMAIDONE != 0;
        wait_for(&self.backing, &r, RegOffset(regs::RDRXCTL), timeout, what, dma).at(Step::Dma)?;
        self.interrupts(&r)?;
        self.backing.set_bus_master(true).at(Step::Dma)?;
        // 4.6.4: a PHY of 10GBASE-T has firmware that does it.
        if self.mac == Mac::I82599 {
            change(&r, regs::AUTOC, autoc::RESTART_AN, 0);
        }
        // 4.6.5.
        Totals::clear_device(&r);
        self.receive(&r);
        self.fdir.initialize(&r, Default::default());
        let what = "the flow director's tables were not initialized";
        let done = |v: u32| v & ixgbe_defs::fdir::ctrl::INIT_DONE != 0;
        wait_for(&self.backing, &r, RegOffset(regs::FDIRCTRL), timeout, what, done).at(Step::Filters)?;
        self.transmit(&r);
        put(&r, regs::RXCTRL, rxctrl::RXEN);
        change(&r, regs::CTRL_EXT, ctrl_ext::NS_DIS | ctrl_ext::DRV_LOAD, 0);
        Ok(address)
    }

    /// Step *interrupts* (4.6.6): vector `q` for queue pair `q`, the one behind them for the rest, and no vector unmasked.
    fn interrupts(&mut self, r: &B::Regs) -> Result<(), BringUpError> {
        let pairs = self.config.queue_pairs;
        let v = self.backing.enable_interrupts(pairs + 1).at(Step::Interrupts)?;
        self.life.set_interrupts(v);
        put(r, regs::GPIE, gpie::MULTIPLE_MSIX | gpie::OCD | gpie::EIAME | gpie::PBA_SUPPORT);
        let valid = u32::from(ivar::VALID);
        for q in 0..u32::from(pairs) {
            // Sent frames are reaped, never slept on.
            change(r, regs::ivar(q / 2), (q | valid) << ivar::shift(q, false), 0xff << ivar::shift(q, false));
            put(r, regs::eitr(q), eitr::interval(self.config.moderation_ns) | eitr::CNT_WDIS);
        }
        let others = u32::from(pairs) | valid;
        put(r, regs::IVAR_MISC, others << 8);
        let mask = (1u32 << pairs) - 1;
        put(r, regs::EIAC, mask & eicr::RTXQ);
        put(r, regs::eiam_ex(0), mask);
        put(r, regs::EIMS, eicr::LSC | eicr::ECC);
        Ok(())
    }

    /// Receive, but for the queues and the enable bit (4.6.7).
    fn receive(&self, r: &B::Regs) {
        let pairs = self.config.queue_pairs;
        put(r, regs::rxpbsize(0), RX_PACKET_KIB << pbsize::SHIFT);
        for i in 1..regs::PACKET_BUFFERS {
            put(r, regs::rxpbsize(i), 0);
        }
        // Whatever comes is taken, with its tag and without its check sequence.
        put(r, regs::FCTRL, fctrl::BAM | fctrl::MPE | fctrl::UPE);
        change(r, regs::VLNCTRL, 0, vlnctrl::VFE);
        change(
            r,
            regs::HLREG0,
            hlreg0::TXCRCEN | hlreg0::RXCRCSTRP | hlreg0::TXPADEN | hlreg0::JUMBOEN,
            hlreg0::LPBK,
        );
        let longest = self.max_frame_bytes as u32 + FCS_BYTES;
        put(r, regs::MAXFRS, longest << maxfrs::MFS_SHIFT);
        let dma = rdrxctl::CRC_STRIP | rdrxctl::RSCACKC | rdrxctl::FCOE_WRFIX;
        change(r, regs::RDRXCTL, dma, rdrxctl::RSCFRSTSIZE);
        change(r, regs::RFCTL, rfctl::RSC_DIS, 0);
        let buffers =
            srrctl::DESCTYPE_ADV_ONE | srrctl::DROP_EN | srrctl::bsizepacket(self.max_frame_bytes as u32);
        for q in (0..pairs).chain([DROP_QUEUE]).map(u32::from) {
            put(r, regs::srrctl(q), buffers);
            change(r, regs::dca_rxctrl(q), 0, dca_rxctrl::RX_WB_RO_EN);
        }
        for i in 0..stats::RQSMRS {
            let last = i == u32::from(DROP_QUEUE) / 4;
            put(r, stats::rqsmr(i), (SET_QUEUES * 0x0101_0101) | if last { SET_DROPPED << 24 } else { 0 });
        }
        // The hash takes the place of a checksum that nobody looks at.
        put(r, regs::RXCSUM, rxcsum::PCSD);
        if pairs > 1 {
            for (i, k) in (0..).zip(rss::KEY.chunks_exact(4)) {
                put(r, regs::rssrk(i), u32::from_le_bytes([k[0], k[1], k[2], k[3]]));
            }
            for i in 0..regs::RETAS {
                put(r, regs::reta(i), rss::reta(i, pairs));
            }
            let v4 = mrqc::TCP_IPV4 | mrqc::IPV4 | mrqc::UDP_IPV4;
            put(r, regs::MRQC, mrqc::RSS | v4 | mrqc::IPV6 | mrqc::TCP_IPV6 | mrqc::UDP_IPV6);
        }
    }

    /// Transmit, but for the queues (4.6.8, 4.6.11.3.4: neither classes nor pools).
    fn transmit(&self, r: &B::Regs) {
        put(r, regs::RTTDCS, rttdcs::ARBDIS);
        put(r, regs::MTQC, 0);
        put(r, regs::txpbsize(0), pbsize::TX_KIB << pbsize::SHIFT);
        put(r, regs::txpbthresh(0), pbsize::TX_KIB - self.max_frame_bytes.div_ceil(1024) as u32);
        for i in 1..regs::PACKET_BUFFERS {
            put(r, regs::txpbsize(i), 0);
            put(r, regs::txpbthresh(i), 0);
        }
        put(r, regs::DTXMXSZRQ, 0xfff);
        put(r, regs::RTTDCS, 0);
        change(r, regs::DMATXCTL, dmatxctl::TE, 0);
    }

    /// The queues, started.
    fn open_queues(&mut self) -> Result<Vec<Option<QueuePair>>, BringUpError> {
        let (log2, longest) = (self.config.ring_log2, self.max_frame_bytes);
        let mut pairs = Vec::new();
        for q in 0..self.config.queue_pairs {
            let (rx_state, tx_state) = self.states[usize::from(q)].clone();
            let mem = dma_alloc(&mut self.backing, BYTES << log2).at(Step::Memory)?;
            let (regs, life) = (self.regs.clone(), self.life.clone());
            let mut rx = RxRing::new(regs.clone(), life.clone(), rx_state, q, mem, log2, longest);
            let mem = dma_alloc(&mut self.backing, BYTES << log2).at(Step::Memory)?;
            let mut tx = TxRing::new(regs, life, tx_state, q, mem, log2, longest);
            let timeout = self.config.step_timeout;
            let due = Deadline::after(self.backing.now(), timeout);
            let runs = &mut || matches!((rx.check(), tx.check()), (Ok(true), Ok(true)));
            if self.backing.wait_until(runs, due).is_err() {
                let what = "queue was not enabled";
                return Err(Fault::TimedOut { what, timeout }).at(Step::Queues);
            }
            pairs.push(Some((Box::new(rx) as Box<dyn RxQueue>, Box::new(tx) as Box<dyn TxQueue>)));
        }
        Ok(pairs)
    }

    /// Resets the device and brings it up again; its filters are empty afterwards.
    pub(crate) fn reset_and_restart(&mut self) -> Result<(), BringUpError> {
        let _ = self.backing.set_bus_master(false);
        // A device without a reset of its own says so; its register does it then.
        match self.backing.reset() {
            Err(e @ DeviceError::Gone { .. }) => return Err(Fault::from(e)).at(Step::Reset),
            other => drop(other),
        }
        if get(&self.regs, regs::STATUS) == ALL_ONES {
            return Err(Fault::Gone).at(Step::Reset);
        }
        self.life.reclaim_parked();
        self.forget_filters();
        self.program().map(|_| ())
    }
}
