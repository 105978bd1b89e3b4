//! What happens at the bounds: memory used up, masks beyond counting. Packets are forwarded all the same, and counters say so.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::{Instant, ManualClock};
use datapath::{Core, DatapathConfig, PortConfig, SoftDatapath};
use datapath_api::{
    Datapath, FlowCounters, FlowRecord, Miss, MissHandler, Punt, PuntSink, Translation, Translations,
};
use device::BufferPool;
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketKey, PacketMask, PacketMatch, PortId};
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, cable};

/// Sends everything to port 2, by records whose mask is of the packet: as many leading bits of source and destination as the
/// packet's ports say; or has packets that no cache knows take one shortcut.
#[derive(Default)]
struct MaskOfPorts {
    /// Records made so far.
    made: AtomicU64,
    /// Packets classified so far, where shortcuts are there to be taken.
    classified: Option<AtomicU64>,
}

/// The name of the one shortcut.
const SHORTCUT: u64 = 7;

fn record(id: u64, matches: PacketMatch, now: Instant) -> Arc<FlowRecord> {
    Arc::new(FlowRecord {
        id: FlowId(id),
        matches: matches.into(),
        actions: Arc::new([Action::Output(PortId(2))]),
        counters: Arc::new(FlowCounters::default()),
        owner: Arc::new(()),
        created: now,
    })
}

impl MissHandler for MaskOfPorts {
    fn epoch(&self) -> u64 {
        u64::from(self.classified.is_some())
    }

    fn relevant(&self) -> PacketMask {
        [FieldId::NwSrc, FieldId::NwDst].into_iter().collect()
    }

    fn classify(&self, _: &[PacketKey], wanted: u32, names: &mut [u64]) {
        let Some(n) = &self.classified else { return };
        n.fetch_add(u64::from(wanted.count_ones()), Ordering::Relaxed);
        names.iter_mut().enumerate().filter(|(i, _)| wanted >> i & 1 != 0).for_each(|(_, n)| *n = SHORTCUT);
    }

    fn shortcut(&self, name: u64, _: &Miss, now: Instant) -> Option<Arc<FlowRecord>> {
        (name == SHORTCUT).then(|| record(u64::MAX, PacketMatch::ANY, now))
    }

    fn translate(&self, misses: &[Miss], now: Instant, out: &mut Translations) {
        for m in misses {
            let mut mask = PacketMask::ZERO;
            mask.set_exact(FieldId::RecircId);
            mask.set_exact(FieldId::TpSrc);
            mask.set_exact(FieldId::TpDst);
            let lead = |f| u128::from(u32::MAX.checked_shl(32 - m.key.get64(f) as u32).unwrap_or(0));
            let mut matches = PacketMatch::new(&m.key, &mask);
            for (f, bits) in [(FieldId::NwSrc, FieldId::TpSrc), (FieldId::NwDst, FieldId::TpDst)] {
                matches.set_masked(f, m.key.get(f), lead(bits));
            }
            let id = self.made.fetch_add(1, Ordering::Relaxed) + 1;
            out.push(Translation::Keep(record(id, matches, now)));
        }
    }
}

impl PuntSink for MaskOfPorts {
    fn punt(&self, _: Punt) -> bool {
        false
    }
}

struct Bed {
    dp: Arc<SoftDatapath>,
    handler: Arc<MaskOfPorts>,
    core: Core,
    feed: MemoryTx,
    drain: MemoryRx,
    pool: BufferPool,
    _others: (MemoryRx, MemoryTx),
}

impl Bed {
    fn new(config: DatapathConfig) -> Bed {
        Bed::with(config, MaskOfPorts::default())
    }

    fn with(config: DatapathConfig, handler: MaskOfPorts) -> Bed {
        let handler = Arc::new(handler);
        let dp = SoftDatapath::new(config, Arc::new(ManualClock::new()), handler.clone(), handler.clone())
            .unwrap();
        let mut ends = Vec::new();
        for p in [1, 2] {
            let (mut ours, mut far) = cable(&MemoryConfig::default()).unwrap();
            let (rx, tx) = ours.split().unwrap();
            dp.attach(PortConfig::new(PortId(p), "p"), Box::new(rx), Box::new(tx)).unwrap();
            ends.push(far.split().unwrap());
        }
        let (drain, tx) = ends.pop().unwrap();
        let (rx, feed) = ends.pop().unwrap();
        let core = dp.take_core(0).unwrap();
        Bed { dp, handler, core, feed, drain, pool: BufferPool::new(64).unwrap(), _others: (rx, tx) }
    }

    /// Forwards a packet of mask `(src, dst)`; whether it came out.
    fn forward(&mut self, flow: u32, src: u16, dst: u16) -> bool {
        let frame = FrameBuilder::new().ipv4(flow, !flow).udp(src, dst).pad_to(60).build();
        self.feed.send(self.pool.copy_from(&frame).unwrap()).unwrap();
        self.core.poll_once(Instant::from_nanos(1));
        self.drain.receive().is_some()
    }
}

#[test]
fn a_full_table_refuses_records_and_forwards_their_packets() {
    let config = DatapathConfig { max_flows: 2, exact_slots: 4, seed: Some(1), ..DatapathConfig::default() };
    let mut b = Bed::new(config);
    for round in 0..3 {
        for flow in 0..20u32 {
            assert!(b.forward(flow << 8, 32, 32), "round {round} flow {flow}");
        }
    }
    let s = b.dp.stats();
    assert_eq!((s.flows, s.rx_packets, s.tx_packets), (2, 60, 60));
    assert_eq!(s.drops.iter().sum::<u64>(), 0);
    // Two of twenty found room.
    assert_eq!(b.dp.core_stats()[0].refused, 3 * 18);
}

/// Tuple space explosion: a thousand masks, one packet each, over and over, and nobody to classify.
#[test]
fn masks_that_a_packet_probes_are_bounded_however_many_there_are() {
    // Without the exact-match cache: every packet is looked up among the megaflows.
    let config = DatapathConfig { exact_slots: 0, seed: Some(1), ..DatapathConfig::default() };
    let mut b = Bed::new(config);
    for round in 0..4 {
        for src in 1..=32u16 {
            for dst in 1..=32u16 {
                assert!(b.forward(0x5a5a_0000 + u32::from(src) * 77, src, dst), "round {round} {src} {dst}");
            }
        }
    }
    let s = b.dp.stats();
    assert_eq!((s.rx_packets, s.tx_packets, s.masks), (4096, 4096, 1024));
    let c = &b.dp.core_stats()[0];
    let most = c.probes as f64 / c.packets.megaflow_hits.max(1) as f64;
    assert!(most <= 256.0, "{most} masks probed for a packet");
    // Those beyond the bound are translated again, and used as if new.
    let asked = b.handler.made.load(Ordering::Relaxed);
    assert_eq!(asked, s.misses);
    assert!(s.misses < 4096 && s.misses >= 1024, "{}", s.misses);
}

/// The cache's memory holds some of the flows: the oldest give way, which is counted, and every packet is forwarded.
#[test]
fn flows_that_the_cache_has_no_memory_for_give_way_and_are_forwarded() {
    const FLOWS: u32 = 3000;
    for (flow_bytes, held) in [(64 * 1024, 1024), (64, 1), (0, 0)] {
        let config = DatapathConfig {
            flow_bytes,
            shortcuts_beyond_masks: 0,
            seed: Some(1),
            ..DatapathConfig::default()
        };
        let handler = MaskOfPorts { classified: Some(AtomicU64::new(0)), ..MaskOfPorts::default() };
        let mut b = Bed::with(config, handler);
        // Shortcuts are asked for once there is a record.
        assert!(b.forward(1, 32, 32));
        let mut forward =
            |flow: u32| assert!(b.forward(0x0a00_0000 + flow, 8, 8), "{flow_bytes} bytes, flow {flow}");
        (0..2).for_each(|_| (0..FLOWS).for_each(&mut forward));
        // The last that came are remembered still.
        (FLOWS - held / 2..FLOWS).for_each(&mut forward);
        let s = b.dp.stats();
        let sent = u64::from(1 + 2 * FLOWS + held / 2);
        assert_eq!((s.rx_packets, s.tx_packets, s.drops.iter().sum::<u64>()), (sent, sent, 0));
        let c = &b.dp.core_stats()[0];
        let gave_way = u64::from(if held == 0 { 0 } else { 2 * FLOWS - held });
        assert_eq!(
            (c.evicted, s.shortcuts, s.flows),
            (gave_way, 2 * u64::from(FLOWS), 1),
            "{flow_bytes} bytes"
        );
        assert_eq!(c.packets.exact_hits, u64::from(held / 2), "{flow_bytes} bytes");
        let asked = b.handler.classified.as_ref().unwrap().load(Ordering::Relaxed);
        assert_eq!(asked, 2 * u64::from(FLOWS));
    }
}
