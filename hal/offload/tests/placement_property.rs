//! Whatever happens, in any order and with any fault: hardware and the engine's belief agree at rest, a record is in
//! hardware at most once, no packet is counted twice or lost but those the device lost, and nothing outdated is done once a
//! record is settled.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clock::Instant;
use flow::{Action, FieldId, FlowId, PacketKey, PacketMatch, PortId};
use offload::faults::{FaultProvider, FaultRates};
use offload::memory::{MemoryProvider, test_capabilities};
use offload::seed::Seed;
use offload::{FlowRule, OffloadProvider, PlacementConfig, PlacementEngine, Status};

/// Worlds per test.
const SEEDS: u64 = 100;

type Engine = PlacementEngine<FaultProvider<MemoryProvider>>;

struct Soft {
    rule: FlowRule,
    packets: Arc<AtomicU64>,
}

struct World {
    seed: Seed,
    now: Instant,
    engine: Engine,
    /// What software does, by match number.
    soft: BTreeMap<u64, Soft>,
    /// Ids that were withdrawn or superseded, with their match number.
    past: Vec<(FlowId, u64)>,
    next_id: u64,
    by_software: u64,
    by_hardware: u64,
    drained: u64,
}

fn key(n: u64) -> PacketKey {
    let mut k = PacketKey::ZERO;
    k.set(FieldId::DpPort, u128::from(1 + n % 4));
    k.set(FieldId::EthType, 0x0800);
    k.set(FieldId::EthDst, u128::from(0x0200_0000_0000 + n));
    k.set(FieldId::NwDst, u128::from(0x0a00_0000 + n));
    k
}

/// Every third record matches under a mask of its own, so that the exact table's masks run out.
fn matching(n: u64) -> PacketMatch {
    let mut m = PacketMatch::ANY;
    let k = key(n);
    for f in [FieldId::DpPort, FieldId::EthType, FieldId::EthDst] {
        m.set(f, k.get(f));
    }
    if n.is_multiple_of(3) {
        let mask = 0xffff_ffff << (n % 8);
        m.set_masked(FieldId::NwDst, k.get(FieldId::NwDst), mask);
    }
    m
}

impl World {
    fn new(seed: u64, rates: FaultRates) -> Self {
        let mut s = Seed::new(seed);
        let mut caps = test_capabilities(1 + s.below(8) as usize, s.below(5) as usize);
        caps.atomic_replace = s.percent(50);
        caps.queue_depth = 1 + s.below(20) as usize;
        let memory = MemoryProvider::with_latency(caps, s.below(3));
        let config = PlacementConfig {
            ops_per_tick: 1 + s.below(20) as usize,
            completions_per_tick: 1 + s.below(50) as usize,
            rates_per_tick: 1 + s.below(30) as usize,
            stats_per_tick: 1 + s.below(10) as usize,
            min_residence: Duration::from_millis(s.below(500)),
            retry_max: Duration::from_secs(1),
            removals_before_flush: 2 + s.below(5) as u32,
            ..PlacementConfig::default()
        };
        let provider = FaultProvider::new(memory, rates, s.next_u64());
        World {
            seed: s,
            now: Instant::from_nanos(1),
            engine: Engine::new(config, vec![provider]),
            soft: BTreeMap::new(),
            past: Vec::new(),
            next_id: 1,
            by_software: 0,
            by_hardware: 0,
            drained: 0,
        }
    }

    fn faults(&mut self) -> &mut FaultProvider<MemoryProvider> {
        self.engine.provider_mut(offload::DeviceId(0)).expect("one device")
    }

    fn rule(&mut self, n: u64, id: Option<FlowId>) -> FlowRule {
        let id = id.unwrap_or_else(|| {
            self.next_id += 1;
            FlowId(self.next_id)
        });
        // One in eight does not fit: it repeats an output.
        let out = PortId(1 + self.seed.below(4) as u32);
        let mut actions = vec![Action::Output(out)];
        if self.seed.percent(12) {
            actions.push(Action::Output(out));
        } else if self.seed.percent(50) {
            let value = u128::from(self.seed.below(1 << 40));
            actions.insert(0, Action::SetField { field: FieldId::EthSrc, value, mask: (1 << 48) - 1 });
        }
        FlowRule { id, matches: matching(n), actions: actions.into(), provenance: Arc::new([]) }
    }

    fn packet(&mut self, n: u64) {
        let now = self.now;
        let hit = self.faults().inner().hit(&key(n), 100, now);
        let Some(hit) = hit else {
            self.by_software += 1;
            if let Some(s) = self.soft.get(&n) {
                s.packets.fetch_add(1, Ordering::Relaxed);
            }
            return;
        };
        self.by_hardware += 1;
        let past_settled = self.past.iter().all(|(id, m)| *m != n || self.engine.settled(*id));
        match self.soft.get(&n) {
            Some(s) if past_settled && self.engine.settled(s.rule.id) => {
                assert_eq!(hit.actions, s.rule.actions, "a settled record is executed as software would");
                assert_eq!(hit.flow, s.rule.id);
            }
            Some(_) => {}
            None => assert!(!past_settled, "nothing is done for a record that is withdrawn and settled"),
        }
    }

    fn step(&mut self) {
        let n = self.seed.below(24);
        match self.seed.below(20) {
            0..=2 => {
                if !self.soft.contains_key(&n) {
                    let rule = self.rule(n, None);
                    let packets = Arc::new(AtomicU64::new(0));
                    let p = packets.clone();
                    self.soft.insert(n, Soft { rule: rule.clone(), packets });
                    let source = Arc::new(move || p.load(Ordering::Relaxed));
                    self.engine.offer(rule, source, self.now).expect("few records");
                }
            }
            3 => {
                if let Some(s) = self.soft.remove(&n) {
                    self.past.push((s.rule.id, n));
                    self.engine.withdraw(s.rule.id, self.now);
                }
            }
            4 | 5 => {
                if let Some(old) = self.soft.get(&n).map(|s| s.rule.id) {
                    let same = self.seed.percent(50);
                    let rule = self.rule(n, same.then_some(old));
                    if let Some(s) = self.soft.get_mut(&n) {
                        s.rule = rule.clone();
                    }
                    if !same {
                        self.past.push((old, n));
                    }
                    self.engine.update(old, rule, self.now);
                }
            }
            6 if self.seed.percent(5) => {
                let on = !self.engine.config().enabled;
                self.engine.set_enabled(on, self.now);
            }
            7 => self.drain(),
            8..=13 => {
                // Some flows are elephants.
                for _ in 0..1 + n * n / 8 {
                    self.packet(n);
                }
            }
            _ => self.tick(),
        }
        self.at_most_once();
    }

    fn tick(&mut self) {
        let ms = self.seed.below(120);
        self.now = self.now + Duration::from_millis(ms);
        self.engine.tick(self.now);
    }

    fn drain(&mut self) {
        let mut sum = 0;
        self.engine.drain_stats(|_, packets, bytes, _| {
            assert_eq!(bytes, packets * 100);
            sum += packets;
        });
        self.drained += sum;
    }

    fn at_most_once(&mut self) {
        let mut seen = BTreeSet::new();
        for (h, r) in self.faults().inner().installed() {
            assert!(seen.insert(r.id), "record {:?} is in hardware twice, again as {h:?}", r.id);
        }
    }

    fn rest(&mut self) {
        self.faults().set_rates(FaultRates::NONE);
        self.engine.set_enabled(true, self.now);
        for _ in 0..400 {
            self.tick();
        }
        // Records refused for want of room are asked again now and then: catch a moment between.
        for _ in 0..100 {
            if !self.engine.is_quiet() {
                self.tick();
            }
        }
        let summary = self.engine.summary();
        assert!(self.engine.is_quiet() && self.engine.pending() == 0, "comes to rest: {summary:?}");
        for (id, _) in &self.past {
            assert!(self.engine.settled(*id));
        }
        let there: BTreeMap<_, _> = {
            let dump = self.faults().dump().expect("no faults any more");
            dump.into_iter().map(|f| (f.rule.id, (f.handle, f.rule, f.table))).collect()
        };
        let mut believed = 0;
        for s in self.soft.values() {
            match self.engine.status(s.rule.id).expect("followed") {
                Status::Hardware { handle, table, .. } => {
                    believed += 1;
                    let (h, rule, t) = there.get(&s.rule.id).expect("believed to be in hardware");
                    assert_eq!((*h, *t), (handle, table));
                    assert_eq!(rule.actions, s.rule.actions);
                    assert_eq!(rule.matches, s.rule.matches);
                }
                Status::Software(_) | Status::Pending => assert!(!there.contains_key(&s.rule.id)),
            }
        }
        assert_eq!(believed, there.len(), "nothing in hardware but what the engine believes");
        for u in self.engine.occupancy() {
            let n = there.values().filter(|(_, _, t)| *t == u.table).count();
            assert_eq!(u.used, n, "occupancy of {}", u.name);
        }
        assert_eq!(self.engine.len(), self.soft.len());
        self.drain();
        let lost = self.faults().lost_packets();
        assert_eq!(self.faults().inner().hits(), self.by_hardware);
        assert_eq!(self.drained + lost, self.by_hardware, "{lost} lost by faults");
        assert_eq!(self.engine.counters().strays, 0);
    }
}

fn run(seeds: std::ops::Range<u64>, steps: usize, rates: FaultRates) {
    for seed in seeds {
        let result = std::panic::catch_unwind(|| {
            let mut w = World::new(seed, rates);
            for _ in 0..4 {
                for _ in 0..steps {
                    w.step();
                }
                w.rest();
                w.faults().set_rates(rates);
            }
            (w.engine.counters().clone(), w.by_hardware)
        });
        let (counters, hits) = match result {
            Ok(x) => x,
            Err(e) => {
                eprintln!("seed {seed}, faults {rates:?}");
                std::panic::resume_unwind(e);
            }
        };
        assert!(counters.installed > 0 && hits > 0, "seed {seed} tests nothing: {counters:?}");
    }
}

#[test]
fn belief_and_hardware_agree_without_faults() {
    run(0..SEEDS / 2, 300, FaultRates::NONE);
}

#[test]
fn belief_and_hardware_agree_under_every_fault() {
    run(1000..1000 + SEEDS, 300, FaultRates::ALL);
}

#[test]
fn belief_and_hardware_agree_when_most_removals_fail() {
    let rates = FaultRates { fail_left: 60, ..FaultRates::NONE };
    run(2000..2000 + SEEDS / 2, 300, rates);
}

#[test]
fn belief_and_hardware_agree_when_the_device_goes_down_often() {
    let rates = FaultRates { down: 15, partial: 30, delay: 30, ..FaultRates::NONE };
    run(3000..3000 + SEEDS / 2, 300, rates);
}
