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
use flow::{Action, FieldId, FlowId, PacketMask, PacketMatch, PortId};
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, cable};

/// Sends everything to port 2, by records whose mask is of the packet: as many leading bits of source and destination as the
/// packet's ports say.
#[derive(Default)]
struct MaskOfPorts(AtomicU64);

impl MissHandler for MaskOfPorts {
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
            out.push(Translation::Keep(Arc::new(FlowRecord {
                id: FlowId(self.0.fetch_add(1, Ordering::Relaxed) + 1),
                matches,
                actions: Arc::new([Action::Output(PortId(2))]),
                counters: Arc::new(FlowCounters::default()),
                owner: Arc::new(()),
                created: now,
            })));
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
        let handler = Arc::new(MaskOfPorts::default());
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
    let asked = b.handler.0.load(Ordering::Relaxed);
    assert_eq!(asked, s.misses);
    assert!(s.misses < 4096 && s.misses >= 1024, "{}", s.misses);
}
