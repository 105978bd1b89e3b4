//! Cycles per packet of the userspace datapath: caches, actions, and the whole path between memory queues.
//!
//! The whole path is receive, parse, look up, execute, send: a poll of a core on a full burst of 32 packets of 60 bytes
//! (64 with FCS). Putting the packets into the queue again is not in the figure. A warning for readers: a virtual
//! machine's cycles are those of the counter, not of the core.

use std::hint::black_box;
use std::sync::Arc;

use clock::{Instant, ManualClock};
use datapath::bench::Caches;
use datapath::{Core, DatapathConfig, PortConfig, SoftDatapath};
use datapath_api::{
    Datapath, DatapathError, FlowCounters, FlowRecord, Miss, MissHandler, Punt, PuntSink, Translation,
    Translations,
};
use device::{BATCH, BufferPool, IoError, PacketBatch, RxQueue, TxQueue};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketKey, PacketMask, PacketMatch, PortId};
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, cable};

use crate::cycles::{Measurement, REPEATS, measure, now};

/// What keeps a benchmark from being set up.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum SetupError {
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    #[error(transparent)]
    Memory(#[from] device::DmaError),
    #[error(transparent)]
    Io(#[from] IoError),
    #[error("a queue or pool is too small for the benchmark")]
    TooSmall,
}

/// Drops what it is asked about and what it is given: benches measure hits.
struct Nothing;

impl MissHandler for Nothing {
    fn translate(&self, misses: &[Miss], _: Instant, out: &mut Translations) {
        for (i, m) in misses.iter().enumerate() {
            let record = record(u64::MAX - i as u64, &m.key, &exact_mask(), Arc::new([]));
            out.push(Translation { record, install: false });
        }
    }
}

impl PuntSink for Nothing {
    fn punt(&self, _: Punt) -> bool {
        false
    }
}

/// A UDP frame of 60 bytes; `i` numbers the flow.
pub fn frame(i: u32) -> Vec<u8> {
    let (src, dst) = (0x0a00_0000 + i, 0x0b00_0001u32);
    FrameBuilder::new().ipv4(src.to_be_bytes(), dst.to_be_bytes()).udp(1000, 53).pad_to(60).build()
}

/// The mask that a switch forwarding by addresses and ports would make.
pub fn exact_mask() -> PacketMask {
    let mut m = PacketMask::ZERO;
    for f in [
        FieldId::DpPort,
        FieldId::RecircId,
        FieldId::EthDst,
        FieldId::EthSrc,
        FieldId::EthType,
        FieldId::VlanTci,
        FieldId::NwSrc,
        FieldId::NwDst,
        FieldId::NwProto,
        FieldId::NwFrag,
        FieldId::TpSrc,
        FieldId::TpDst,
    ] {
        m.set_exact(f);
    }
    m
}

/// A record for packets like `key`.
pub fn record(id: u64, key: &PacketKey, mask: &PacketMask, actions: Arc<[Action]>) -> Arc<FlowRecord> {
    Arc::new(FlowRecord {
        id: FlowId(id),
        matches: PacketMatch::new(key, mask),
        actions,
        counters: Arc::new(FlowCounters::default()),
        owner: Arc::new(()),
        created: Instant::ZERO,
    })
}

fn key(frame: &[u8]) -> PacketKey {
    flow::parse(frame, PortId(1)).map(|p| p.key).unwrap_or_default()
}

/// A datapath between two memory cables.
pub struct Bed {
    /// The datapath.
    pub dp: Arc<SoftDatapath>,
    core: Core,
    feed: MemoryTx,
    drain: MemoryRx,
    _other: (MemoryRx, MemoryTx),
    pool: BufferPool,
    frames: Vec<Vec<u8>>,
    next: usize,
    now: Instant,
}

impl Bed {
    /// With `flows` flows, one record each, that do `actions`.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(flows: u32, actions: &[Action], exact_slots: usize) -> Result<Self, SetupError> {
        let nothing = Arc::new(Nothing);
        let config = DatapathConfig { exact_slots, max_flows: 2_000_000, ..DatapathConfig::default() };
        let dp = SoftDatapath::new(config, Arc::new(ManualClock::new()), nothing.clone(), nothing)?;
        let core = dp.take_core(0)?;
        let (mut p1, mut far1) = cable(&MemoryConfig::default())?;
        let (mut p2, mut far2) = cable(&MemoryConfig::default())?;
        for (i, p) in [(1, &mut p1), (2, &mut p2)] {
            let (rx, tx) = p.split().ok_or(SetupError::TooSmall)?;
            dp.attach(PortConfig::new(PortId(i), "p"), Box::new(rx), Box::new(tx))?;
        }
        let (other_rx, feed) = far1.split().ok_or(SetupError::TooSmall)?;
        let (drain, other_tx) = far2.split().ok_or(SetupError::TooSmall)?;
        let frames: Vec<_> = (0..flows).map(frame).collect();
        let actions: Arc<[Action]> = actions.into();
        for (i, f) in frames.iter().enumerate() {
            dp.flow_put(record(i as u64, &key(f), &exact_mask(), actions.clone()))?;
        }
        let mut bed = Bed {
            dp,
            core,
            feed,
            drain,
            _other: (other_rx, other_tx),
            pool: BufferPool::new(256)?,
            frames,
            next: 0,
            now: Instant::from_nanos(1),
        };
        bed.core.poll_once(bed.now);
        Ok(bed)
    }

    fn refill(&mut self, batch: &mut PacketBatch) -> Result<(), SetupError> {
        self.drain.rx_burst(batch)?;
        batch.clear();
        for _ in 0..BATCH {
            let p = self.pool.copy_from(&self.frames[self.next]).ok_or(SetupError::TooSmall)?;
            self.next = (self.next + 1) % self.frames.len();
            batch.push(p).map_err(|_| SetupError::TooSmall)?;
        }
        self.feed.tx_burst(batch)?;
        Ok(())
    }

    /// Cycles per packet of the median burst of `bursts`, several times over: the median, so that a burst in which the
    /// machine did something else does not count.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn measure(&mut self, name: &str, bursts: u64) -> Result<Measurement, SetupError> {
        let mut batch = PacketBatch::new();
        let mut runs = [0f64; REPEATS];
        let mut cycles = Vec::with_capacity(bursts as usize);
        for repeat in 0..=REPEATS {
            cycles.clear();
            for _ in 0..bursts.max(1) {
                self.refill(&mut batch)?;
                let start = now();
                black_box(self.core.poll_once(self.now));
                cycles.push(now().wrapping_sub(start));
            }
            cycles.sort_unstable();
            if repeat > 0 {
                runs[repeat - 1] = cycles[cycles.len() / 2] as f64 / BATCH as f64;
            }
        }
        runs.sort_by(f64::total_cmp);
        Ok(Measurement {
            name: name.to_owned(),
            iters: bursts * BATCH as u64,
            median_cycles: runs[REPEATS / 2],
            min_cycles: runs[0],
            max_cycles: runs[REPEATS - 1],
        })
    }
}

/// The caches by themselves, keys in cache.
pub fn caches() -> Vec<Measurement> {
    let mut out = Vec::new();
    for flows in [1u32, 1000] {
        let keys: Vec<_> = (0..flows).map(|i| key(&frame(i))).collect();
        let records: Vec<_> =
            keys.iter().enumerate().map(|(i, k)| record(i as u64, k, &exact_mask(), Arc::new([]))).collect();
        let mut c = Caches::new(&records, 65_536);
        for k in &keys {
            black_box(c.megaflow(k));
        }
        let mut i = 0;
        let mut next = || {
            i = (i + 1) % keys.len();
            &keys[i]
        };
        if flows == 1 {
            out.push(measure("hash of a key", 50_000, || c.hash(black_box(next()))));
        }
        out.push(measure(&format!("exact-match hit, {flows} flows"), 50_000, || c.exact(black_box(next()))));
        out.push(measure(&format!("megaflow hit, 1 mask, {flows} flows"), 50_000, || {
            c.megaflow(black_box(next()))
        }));
    }
    out
}

/// The whole path in memory.
///
/// # Errors
/// [`SetupError`].
pub fn whole_path() -> Result<Vec<Measurement>, SetupError> {
    let output = [Action::Output(PortId(2))];
    let vlan = [Action::PushVlan { tpid: 0x8100, tci: 5 }, Action::Output(PortId(2))];
    let nat = [
        Action::SetField { field: FieldId::EthDst, value: 0x0200_0000_0009, mask: 0xffff_ffff_ffff },
        Action::SetField { field: FieldId::NwDst, value: 0x0909_0909, mask: 0xffff_ffff },
        Action::SetField { field: FieldId::TpDst, value: 99, mask: 0xffff },
        Action::DecTtl,
        Action::Output(PortId(2)),
    ];
    let path =
        |name: &str, flows, actions: &[Action], slots| Bed::new(flows, actions, slots)?.measure(name, 5_000);
    Ok(vec![
        path("whole path, exact-match hit, 1 flow", 1, &output, 65_536)?,
        path("whole path, exact-match hit, 1k flows", 1_000, &output, 65_536)?,
        path("whole path, exact-match hit, 10k flows", 10_000, &output, 65_536)?,
        path("whole path, exact-match hit, 100k flows", 100_000, &output, 1 << 20)?,
        path("whole path, megaflow hit, 1k flows", 1_000, &output, 4)?,
        path("whole path, push VLAN, 1k flows", 1_000, &vlan, 65_536)?,
        path("whole path, MAC, NAT, TTL, 1k flows", 1_000, &nat, 65_536)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_measured_packets_hit_and_go_out() {
        let mut bed = Bed::new(10, &[Action::Output(PortId(2))], 1024).unwrap();
        let m = bed.measure("x", 4).unwrap();
        assert_eq!(m.iters, 128);
        let s = bed.dp.stats();
        assert_eq!((s.misses, s.tx_packets), (0, (REPEATS as u64 + 1) * 128));
    }
}
