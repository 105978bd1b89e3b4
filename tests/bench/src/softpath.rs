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
    Datapath, DatapathStats, FlowCounters, FlowRecord, Miss, MissHandler, Punt, PuntSink, Translation,
    Translations,
};
use device::{BATCH, BufferPool, PacketBatch, RxQueue, TxQueue};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketKey, PacketMask, PacketMatch, PortId};
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, cable};

use crate::cycles::{Measurement, REPEATS, measure, now};
use crate::drivers::median;
use crate::figure::{Figure, Unit, counted};
use crate::part::BenchError;
use crate::target::Target;

/// Drops what it is asked about and what it is given: benches measure hits.
struct Nothing;

impl MissHandler for Nothing {
    fn translate(&self, misses: &[Miss], _: Instant, out: &mut Translations) {
        out.extend(misses.iter().map(|_| Translation::Once(Vec::new())));
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
        matches: PacketMatch::new(key, mask).into(),
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
    /// [`BenchError`].
    pub fn new(flows: u32, actions: &[Action], exact_slots: usize) -> Result<Self, BenchError> {
        Self::with_frames((0..flows).map(frame).collect(), actions, exact_slots)
    }

    /// With these frames, each of its own flow, one record each, that do `actions`.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn with_frames(
        frames: Vec<Vec<u8>>,
        actions: &[Action],
        exact_slots: usize,
    ) -> Result<Self, BenchError> {
        let nothing = Arc::new(Nothing);
        let config = DatapathConfig { exact_slots, max_flows: 2_000_000, ..DatapathConfig::default() };
        let dp = SoftDatapath::new(config, Arc::new(ManualClock::new()), nothing.clone(), nothing)?;
        let core = dp.take_core(0)?;
        let (mut p1, mut far1) = cable(&MemoryConfig::default())?;
        let (mut p2, mut far2) = cable(&MemoryConfig::default())?;
        for (i, p) in [(1, &mut p1), (2, &mut p2)] {
            let (rx, tx) = p.split().ok_or(BenchError::TooSmall)?;
            dp.attach(PortConfig::new(PortId(i), "p"), Box::new(rx), Box::new(tx))?;
        }
        let (other_rx, feed) = far1.split().ok_or(BenchError::TooSmall)?;
        let (drain, other_tx) = far2.split().ok_or(BenchError::TooSmall)?;
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

    fn refill(&mut self, batch: &mut PacketBatch) -> Result<(), BenchError> {
        self.drain.rx_burst(batch)?;
        batch.clear();
        for _ in 0..BATCH {
            let p = self.pool.copy_from(&self.frames[self.next]).ok_or(BenchError::TooSmall)?;
            self.next = (self.next + 1) % self.frames.len();
            batch.push(p).map_err(|_| BenchError::TooSmall)?;
        }
        self.feed.tx_burst(batch)?;
        Ok(())
    }

    /// Cycles per packet of the median burst of `bursts`: the median, so that a burst in which the machine did something
    /// else does not count.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn median_burst(&mut self, bursts: u64) -> Result<f64, BenchError> {
        let mut batch = PacketBatch::new();
        let mut cycles = Vec::with_capacity(bursts as usize);
        for _ in 0..bursts.max(1) {
            self.refill(&mut batch)?;
            let start = now();
            black_box(self.core.poll_once(self.now));
            cycles.push(now().wrapping_sub(start));
        }
        Ok(median(&mut cycles) / BATCH as f64)
    }

    /// [`Bed::median_burst`] several times over.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn measure(&mut self, name: &str, bursts: u64) -> Result<Measurement, BenchError> {
        self.median_burst(bursts)?;
        let mut runs = [0f64; REPEATS];
        for r in &mut runs {
            *r = self.median_burst(bursts)?;
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
pub fn caches() -> Vec<Figure> {
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
        let mut figures = Vec::new();
        if flows == 1 {
            figures.push(measure("hash of a key", 50_000, || c.hash(black_box(next()))));
        }
        figures.push(measure(&format!("exact-match hit, {}", counted(flows, "flow")), 50_000, || {
            c.exact(black_box(next()))
        }));
        figures.push(measure(&format!("megaflow hit, 1 mask, {}", counted(flows, "flow")), 50_000, || {
            c.megaflow(black_box(next()))
        }));
        out.extend(figures.into_iter().map(|m| Figure::cycles(m, Unit::CyclesPerLookup).flows(flows.into())));
    }
    out
}

/// The whole path in memory.
///
/// # Errors
/// [`BenchError`].
pub fn whole_path() -> Result<Vec<Figure>, BenchError> {
    let mut out = Vec::new();
    for (flows, slots) in [(1, 65_536), (1_000, 65_536), (10_000, 65_536), (100_000, 1 << 20)] {
        // Where one mask serves nearly all packets the datapath learns to ask it first, and the exact-match cache after it.
        let name = format!("cache hit, {}", counted(flows, "flow"));
        let served = |s: &DatapathStats| s.exact_hits + s.megaflow_hits;
        out.push(path(&name, flows, slots, 5_000, served)?.target(Target::WholePath));
    }
    // Four slots hold none of them: every packet goes to the megaflows.
    let name = "megaflow hit, 1 mask, 1,000 flows";
    out.push(path(name, 1_000, 4, 5_000, |s| s.megaflow_hits)?);
    Ok(out)
}

/// The whole path with `flows` flows, and `slots` slots in the exact-match cache. Packets are to be counted by `hits`, which
/// is checked: a figure under the wrong name is worse than none.
fn path(
    name: &str,
    flows: u32,
    slots: usize,
    bursts: u64,
    hits: fn(&DatapathStats) -> u64,
) -> Result<Figure, BenchError> {
    let mut bed = Bed::new(flows, &[Action::Output(PortId(2))], slots)?;
    // Every flow is seen once, so that the caches know it.
    bed.median_burst(bursts.max(u64::from(flows).div_ceil(BATCH as u64)))?;
    let before = bed.dp.stats();
    let m = bed.measure(name, bursts)?;
    let after = bed.dp.stats();
    let (hit, all) = (hits(&after) - hits(&before), after.tx_packets - before.tx_packets);
    // Flows that share a slot of a cache push each other out of it.
    if all != (REPEATS as u64 + 1) * m.iters || hit < all - all / 20 {
        return Err(BenchError::NoHit);
    }
    Ok(Figure::cycles(m, Unit::CyclesPerPacket).frame_bytes(60).flows(flows.into()))
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

    #[test]
    fn a_figure_is_of_the_cache_that_it_names_or_is_refused() {
        path("x", 10, 1024, 2, |s| s.exact_hits).unwrap();
        path("x", 1_000, 4, 2, |s| s.megaflow_hits).unwrap();
        for (slots, hits) in
            [(4, (|s| s.exact_hits) as fn(&DatapathStats) -> u64), (65_536, |s| s.megaflow_hits)]
        {
            assert!(matches!(path("x", 1_000, slots, 2, hits), Err(BenchError::NoHit)));
        }
    }
}
