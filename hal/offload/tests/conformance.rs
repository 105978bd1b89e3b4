//! The reference provider and the failing provider against the conformance suite.

use std::time::Duration;

use clock::Instant;
use flow::PacketKey;
use offload::OffloadProvider;
use offload::apply::apply;
use offload::conformance::{Harness, Sent, run, run_robustness};
use offload::faults::{FaultProvider, FaultRates};
use offload::memory::{MemoryProvider, test_capabilities};

/// A memory device, with or without faults on top.
struct Memory<P> {
    provider: P,
    inner: fn(&mut P) -> &mut MemoryProvider,
    now: Instant,
}

impl<P: OffloadProvider> Harness for Memory<P> {
    fn provider(&mut self) -> &mut dyn OffloadProvider {
        &mut self.provider
    }

    fn send(&mut self, key: &PacketKey, len_bytes: u32) -> Sent {
        let hit = (self.inner)(&mut self.provider).hit(key, len_bytes, self.now);
        hit.map_or(Sent::Missed, |h| Sent::Forwarded(apply(key, &h.actions).unwrap_or_default()))
    }

    fn advance(&mut self, d: Duration) {
        self.now = self.now + d;
    }

    fn now(&self) -> Instant {
        self.now
    }
}

fn memory(exact: usize, ternary: usize, latency: u64, atomic: bool) -> MemoryProvider {
    let mut caps = test_capabilities(exact, ternary);
    caps.atomic_replace = atomic;
    MemoryProvider::with_latency(caps, latency)
}

fn plain(provider: MemoryProvider) -> Box<dyn Harness> {
    Box::new(Memory { provider, inner: |p| p, now: Instant::ZERO })
}

fn faulty(inner: MemoryProvider, rates: FaultRates, seed: u64) -> Box<dyn Harness> {
    let provider = FaultProvider::new(inner, rates, seed);
    Box::new(Memory { provider, inner: FaultProvider::inner, now: Instant::ZERO })
}

#[test]
fn the_reference_provider_conforms() {
    run(&mut || plain(memory(40, 20, 0, true)));
}

#[test]
fn the_reference_provider_conforms_when_slow_and_not_atomic() {
    run(&mut || plain(memory(40, 20, 3, false)));
}

#[test]
fn the_reference_provider_conforms_with_narrow_counters_and_a_short_queue() {
    run(&mut || {
        let mut caps = test_capabilities(40, 20);
        caps.queue_depth = 1;
        caps.objects.clear();
        for t in &mut caps.tables {
            (t.counters.packet_bits, t.counters.byte_bits) = (4, 10);
        }
        plain(MemoryProvider::new(caps))
    });
}

#[test]
fn the_failing_provider_conforms_while_it_does_not_fail() {
    run(&mut || faulty(memory(40, 20, 1, true), FaultRates::NONE, 1));
}

#[test]
fn the_failing_provider_keeps_the_contract_of_completions() {
    run_robustness(
        &mut |seed| faulty(memory(20, 10, seed % 3, seed % 2 == 0), FaultRates::ALL, seed),
        0..100,
        400,
    );
}

#[test]
fn the_reference_provider_keeps_the_contract_of_completions() {
    run_robustness(&mut |seed| plain(memory(20, 10, seed % 3, seed % 2 == 0)), 0..50, 400);
}
