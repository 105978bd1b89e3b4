//! Host time of the 82599's driver alone, on a device that is nothing but memory: receiving, sending, and putting filters in.
//!
//! Registers are words behind a lock, which takes some tens of cycles; on silicon a write is posted and a read takes about a microsecond.
#![allow(clippy::unwrap_used)] // what the driver under measurement wrote is taken to be right; a bench may panic

use std::sync::Arc;

use device::{BATCH, BufferPool, DmaMemory, PacketIo, QueueId};
use flow::{FieldId, FlowId, PacketMatch, PortId};
use ixgbe::{Ixgbe, IxgbeConfig, IxgbeDriver};
use ixgbe_defs::bits::{ctrl, eec, rah, rdrxctl};
use ixgbe_defs::desc::{self, RxWriteBack, rx, tx};
use ixgbe_defs::fdir::{cmd, ctrl as fdirctrl};
use ixgbe_defs::{BAR_BYTES, MSIX_VECTORS, pci, regs};
use model_bus::{Backing, Bus, Chip, Model};
use offload::{FlowOp, FlowRule, OffloadProvider, OpId, OpResult};

use crate::cycles::{REPEATS, now};
use crate::drivers::{echo, median};
use crate::figure::{Figure, Unit};
use crate::part::BenchError;
use crate::target::Target;

/// Filters in a repeat.
const FILTERS: u64 = 2_048;

/// An 82599 that does nothing: what it should have done is written between the measurements.
struct Still {
    r: Vec<u32>,
    head: u32,
    sent: u32,
}

impl Still {
    fn new() -> Still {
        Still { r: vec![0; BAR_BYTES / 4], head: 0, sent: 0 }
    }

    fn get(&self, r: u32) -> u32 {
        self.r[r as usize / 4]
    }
}

/// The memory of a ring, where it begins, and its entries.
fn ring(inner: &mut (Still, Bus), base: u32) -> (DmaMemory, usize, u32) {
    let (chip, bus) = inner;
    let addr = u64::from(chip.get(base)) | u64::from(chip.get(base + 4)) << 32;
    let len = chip.get(base + 8);
    let (m, at) = bus.at(addr, len as usize).unwrap();
    (m, at, len / desc::BYTES as u32)
}

/// Receives `n` frames of 64 bytes.
fn receive(dev: &Model<Still>, n: u32) {
    let inner = &mut *dev.lock();
    let (m, at, entries) = ring(inner, regs::rdbal(0));
    for _ in 0..n {
        let slot = at + inner.0.head as usize * desc::BYTES;
        let w = RxWriteBack { info: 0, status: rx::DD | rx::EOP }.with_len(64);
        m.write(slot, &w.encode());
        inner.0.head = (inner.0.head + 1) % entries;
    }
}

/// Sends what was posted.
fn send(dev: &Model<Still>) {
    let inner = &mut *dev.lock();
    let (m, at, entries) = ring(inner, regs::tdbal(0));
    let tail = inner.0.get(regs::tdt(0));
    while inner.0.sent != tail {
        let word = at + inner.0.sent as usize * desc::BYTES + desc::STATUS_AT;
        let v = m.load64(word);
        if v & tx::RS != 0 {
            m.store64(word, v | tx::DD);
        }
        inner.0.sent = (inner.0.sent + 1) % entries;
    }
}

impl Chip for Still {
    const BAR_BYTES: usize = BAR_BYTES;

    fn vectors(&self) -> u16 {
        MSIX_VECTORS
    }

    fn config(&self) -> Vec<u8> {
        let mut c = vec![0; 256];
        c[..2].copy_from_slice(&pci::VENDOR.to_le_bytes());
        c[2..4].copy_from_slice(&pci::DEVICES[3].0.to_le_bytes());
        c
    }

    fn read(&mut self, _: &mut Bus, r: u32, _: u8) -> u64 {
        let v = self.get(r);
        let v = match r {
            regs::CTRL => v & !(ctrl::RST | ctrl::LRST),
            regs::EEC => eec::ARD,
            regs::RDRXCTL => v | rdrxctl::DMAIDONE,
            regs::FDIRCTRL => v | fdirctrl::INIT_DONE,
            regs::FDIRCMD => v & !cmd::CMD | cmd::FILTER_VALID,
            _ if r == regs::rah(0) => rah::AV,
            _ => v,
        };
        v.into()
    }

    fn write(&mut self, _: &mut Bus, r: u32, v: u64, _: u8) {
        self.r[r as usize / 4] = v as u32;
    }

    fn reset(&mut self, _: &mut Bus) -> bool {
        true
    }
}

fn up(dev: &Model<Still>) -> Result<Ixgbe<Backing<Still>>, BenchError> {
    let config = IxgbeConfig { port: Some(PortId(1)), ..IxgbeConfig::new() };
    let pool = BufferPool::new(4096)?;
    IxgbeDriver::bring_up(dev.backing(), pool, config).map_err(|e| BenchError::Rule(e.to_string()))
}

/// Cycles per packet received and sent.
fn packets() -> Result<Vec<Figure>, BenchError> {
    let dev = Model::of(Still::new());
    let mut nic = up(&dev)?;
    let pair = nic.port.take_queues(QueueId(0))?;
    echo("ixgbe", pair, || receive(&dev, BATCH as u32), || send(&dev), Some(Target::DriverPackets))
}

/// A rule that drops: UDP from an address to a port.
fn rule(n: u64) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 1);
    m.set(FieldId::EthType, 0x0800);
    m.set_masked(FieldId::VlanTci, 0, 0x1fff);
    m.set(FieldId::NwProto, 17);
    m.set(FieldId::NwSrc, (0x0a00_0000 + n).into());
    m.set(FieldId::TpDst, 53);
    FlowRule { id: FlowId(n), matches: m, actions: Arc::from([]), provenance: Arc::from([]) }
}

/// Cycles to put a filter in, of the median of each repeat, in batches of 64.
fn filters() -> Result<Figure, BenchError> {
    const AT_A_TIME: u64 = 64;
    let dev = Model::of(Still::new());
    let mut nic = up(&dev)?;
    let mut medians = Vec::new();
    for repeat in 0..=REPEATS {
        let mut cycles = Vec::new();
        for from in (0..FILTERS).step_by(AT_A_TIME as usize) {
            let ops: Vec<_> = (from..from + AT_A_TIME).map(|n| FlowOp::Install(OpId(n), rule(n))).collect();
            let mut done = Vec::with_capacity(ops.len());
            let t0 = now();
            nic.provider.submit(&ops);
            while done.len() < ops.len() {
                nic.provider.poll(&mut done, ops.len());
            }
            cycles.push(now() - t0);
            // A bucket may be full; that takes as long to find out.
            if let Some(c) =
                done.iter().find(|c| !matches!(c.result, OpResult::Installed(..) | OpResult::Rejected(..)))
            {
                return Err(BenchError::Rule(format!("{c:?}")));
            }
        }
        if nic.provider.flush().is_err() {
            return Err(BenchError::TooSmall);
        }
        if repeat > 0 {
            medians.push(median(&mut cycles) / AT_A_TIME as f64);
        }
    }
    Ok(Figure::of("ixgbe puts a flow director filter in, 64 at a time", Unit::CyclesPerRule, medians)
        .rules(FILTERS))
}

/// Both.
///
/// # Errors
/// When the driver does not come up, or a burst is not received or sent whole.
pub fn run() -> Result<Vec<Figure>, BenchError> {
    let mut all = packets()?;
    all.push(filters()?);
    Ok(all)
}
