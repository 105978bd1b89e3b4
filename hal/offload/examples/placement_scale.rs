//! Prints what placement costs with many records: host time per offer, per tick while tables fill, per tick at rest.
//!
//! `cargo run --release -p offload --example placement_scale [RECORDS]`. Host time; the device is the reference provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as HostInstant};

use clock::Instant;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use offload::memory::{MemoryProvider, test_capabilities};
use offload::{FlowRule, PlacementConfig, PlacementEngine};

fn main() {
    let n: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(100_000);
    let room = n as usize / 2;
    let config = PlacementConfig { max_records: n as usize, max_events: 0, ..PlacementConfig::default() };
    let mut caps = test_capabilities(room, 0);
    caps.queue_depth = 1024;
    let mut e = PlacementEngine::new(config, vec![MemoryProvider::new(caps)]);
    let actions: Arc<[Action]> = [Action::Output(PortId(2))].into();
    let packets = Arc::new(AtomicU64::new(0));
    let start = HostInstant::now();
    for id in 0..n {
        let mut matches = PacketMatch::ANY;
        matches.set(FieldId::DpPort, 1);
        matches.set(FieldId::EthType, 0x0800);
        matches.set(FieldId::NwDst, u128::from(id));
        let rule = FlowRule { id: FlowId(id), matches, actions: actions.clone(), provenance: Arc::new([]) };
        let p = packets.clone();
        if e.offer(rule, Arc::new(move || p.load(Ordering::Relaxed)), Instant::ZERO).is_err() {
            break;
        }
    }
    let took = start.elapsed();
    println!("offer: {} ns each, {n} records", took.as_nanos() / u128::from(n.max(1)));

    let (mut now, mut ticks, start) = (Instant::ZERO, 0u32, HostInstant::now());
    while e.summary().hardware < room && ticks < 100_000 {
        for _ in 0..100 {
            now = now + Duration::from_micros(100);
            e.tick(now);
            ticks += 1;
        }
    }
    let took = start.elapsed();
    println!(
        "fill: {room} entries in {ticks} ticks, {} installs/s, {} us per tick",
        room as u128 * 1_000_000 / took.as_micros().max(1),
        took.as_micros() / u128::from(ticks.max(1))
    );

    let (mut worst, mut sum) = (Duration::ZERO, Duration::ZERO);
    let rounds = 2000;
    for i in 0..rounds {
        packets.fetch_add(i % 7, Ordering::Relaxed);
        now = now + Duration::from_millis(1);
        let start = HostInstant::now();
        e.tick(now);
        worst = worst.max(start.elapsed());
        sum += start.elapsed();
    }
    println!("rest: {} us per tick, worst {} us", sum.as_micros() / u128::from(rounds), worst.as_micros());
}
