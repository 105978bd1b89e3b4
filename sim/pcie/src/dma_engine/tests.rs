//! Latencies, splitting, tags, faults, skipping.

use super::*;
use device::DmaMemory;
use kernel::Rng;

fn config() -> LinkConfig {
    LinkConfig {
        bytes_per_kcycle: 16 * 1024,
        dllp_interval_bytes: [0; 2],
        latency_cycles: 50,
        request_header_bytes: 24,
        completion_header_bytes: 24,
        max_payload_bytes: 256,
        max_read_request_bytes: 512,
        read_tags: 4,
        host_latency_cycles: 20,
        requests_per_client: 8,
        ..LinkConfig::default()
    }
}

fn run(e: &mut DmaEngine, h: &mut Host, from: u64, cycles: u64, c: DmaClient) -> Vec<(u64, DmaCompletion)> {
    let mut out = vec![];
    for t in from..from + cycles {
        e.evaluate(Cycles(t), h, true);
        while let Some(done) = e.completion(Cycles(t), c) {
            out.push((t, done));
        }
    }
    out
}

fn read(tag: u64, iova: Iova, len: usize) -> DmaRequest {
    DmaRequest { tag, kind: DmaKind::Read, iova, buf: vec![0; len], start: 0 }
}

#[test]
fn a_read_takes_both_flights_and_the_memory_latency() {
    let (mut e, mut h) = (DmaEngine::new(config(), 1).unwrap(), Host::new());
    let m = DmaMemory::new(4096).unwrap();
    m.write(100, b"hello");
    let base = h.iommu.map(&m).unwrap();
    e.request(Cycles(0), DmaClient(0), read(7, base.offset(100), 5)).unwrap();
    let done = run(&mut e, &mut h, 0, 500, DmaClient(0));
    let (t, c) = &done[0];
    assert_eq!((c.request.tag, c.result), (7, Ok(())));
    assert_eq!(c.request.buf, b"hello");
    // 1 queue + 2 header + 50 flight + 20 memory + 2 header and payload + 50 flight + 1 queue
    assert_eq!(*t, 126);
}

#[test]
fn long_transfers_are_split_and_arrive_whole() {
    for (len, offset) in [(1, 0), (256, 0), (256, 1), (1500, 3), (4000, 96)] {
        let (mut e, mut h) = (DmaEngine::new(config(), 1).unwrap(), Host::new());
        let m = DmaMemory::new(8192).unwrap();
        let base = h.iommu.map(&m).unwrap().offset(offset);
        let data: Vec<u8> = (0..len).map(|i| (i * 31) as u8).collect();
        let w = DmaRequest { tag: 1, kind: DmaKind::Write, iova: base, buf: data.clone(), start: 0 };
        e.request(Cycles(0), DmaClient(0), w).unwrap();
        assert_eq!(run(&mut e, &mut h, 0, 3000, DmaClient(0)).len(), 1);
        let tlps = (offset + len).div_ceil(256) as u64;
        assert_eq!(e.stats(Cycles(1 << 40)).upstream.tlps, tlps, "{len} bytes at {offset}");
        e.request(Cycles(3000), DmaClient(0), read(2, base, len)).unwrap();
        let done = run(&mut e, &mut h, 3000, 3000, DmaClient(0));
        assert_eq!(done[0].1.request.buf, data);
        assert_eq!(e.stats(Cycles(1 << 40)).in_flight, 0);
    }
}

#[test]
fn an_unmapped_access_completes_with_a_fault_and_the_engine_goes_on() {
    let (mut e, mut h) = (DmaEngine::new(config(), 1).unwrap(), Host::new());
    let m = DmaMemory::new(4096).unwrap();
    let base = h.iommu.map(&m).unwrap();
    e.request(Cycles(0), DmaClient(0), read(1, Iova(0x1000), 64)).unwrap();
    let w = DmaRequest { tag: 2, kind: DmaKind::Write, iova: base.offset(4000), buf: vec![1; 500], start: 0 };
    e.request(Cycles(1), DmaClient(0), w).unwrap();
    e.request(Cycles(2), DmaClient(0), read(3, base, 64)).unwrap();
    let mut done = run(&mut e, &mut h, 0, 2000, DmaClient(0));
    done.sort_by_key(|(_, c)| c.request.tag);
    let results: Vec<_> = done.iter().map(|(_, c)| c.result).collect();
    let second = DmaError::Fault(base.offset(4096));
    assert_eq!(results, [Err(DmaError::Fault(Iova(0x1000))), Err(second), Ok(())]);
    assert_eq!(e.stats(Cycles(1 << 40)).failed, 2);
    assert!(h.iommu.fault_count() >= 2);
}

#[test]
fn without_bus_mastering_nothing_is_sent() {
    let (mut e, mut h) = (DmaEngine::new(config(), 1).unwrap(), Host::new());
    e.request(Cycles(0), DmaClient(0), read(1, Iova(0), 64)).unwrap();
    for t in 0..100 {
        e.evaluate(Cycles(t), &mut h, false);
    }
    let c = e.completion(Cycles(100), DmaClient(0)).unwrap();
    assert_eq!(c.result, Err(DmaError::NoBusMaster));
    assert_eq!((e.stats(Cycles(1 << 40)).upstream.tlps, h.iommu.fault_count()), (0, 0));
}

#[test]
fn reads_wait_for_tags_and_throughput_is_that_of_the_tags() {
    let (mut e, mut h) = (DmaEngine::new(config(), 1).unwrap(), Host::new());
    let m = DmaMemory::new(1 << 16).unwrap();
    let base = h.iommu.map(&m).unwrap();
    e.request(Cycles(0), DmaClient(0), read(1, base, 8192)).unwrap();
    let done = run(&mut e, &mut h, 0, 5000, DmaClient(0));
    // 16 requests of 512 bytes, 4 at a time: at least 4 round trips.
    assert!(done[0].0 > 4 * 120, "{}", done[0].0);
    assert!(e.stats(Cycles(1 << 40)).tag_stall_cycles > 0);
}

/// Random requests on three clients, with and without jumping over cycles in which nothing can happen.
#[test]
fn skipping_to_the_next_event_changes_nothing() {
    for seed in 0..20 {
        let outcome = |skip: bool| {
            let mut r = Rng::new(seed);
            let (mut e, mut h) = (DmaEngine::new(config(), 3).unwrap(), Host::new());
            let m = DmaMemory::new(1 << 16).unwrap();
            let base = h.iommu.map(&m).unwrap();
            let mut plan: Vec<(u64, u8, DmaRequest)> = (0..60)
                .map(|i| {
                    let kind = if r.chance(1, 2) { DmaKind::Read } else { DmaKind::Write };
                    let iova = base.offset(r.below(70_000) as usize);
                    let buf = vec![i as u8; r.below(2000) as usize];
                    (i * r.below(60), (r.below(3)) as u8, DmaRequest { tag: i, kind, iova, buf, start: 0 })
                })
                .collect();
            plan.sort_by_key(|(t, _, q)| (std::cmp::Reverse(*t), q.tag));
            let (mut log, mut t) = (vec![], 0);
            while t < 20_000 {
                let now = Cycles(t);
                let mut happened = e.evaluate(now, &mut h, true);
                for c in 0..3 {
                    if let Some(d) = e.completion(now, DmaClient(c)) {
                        log.push((t, c, d.request.tag, d.result));
                        happened = true;
                    }
                }
                if plan.last().is_some_and(|(at, c, _)| *at <= t && e.can_request(now, DmaClient(*c))) {
                    let (_, c, q) = plan.pop().unwrap();
                    e.request(now, DmaClient(c), q).unwrap();
                    happened = true;
                }
                let next = e.next_event(now).cycle().map_or(20_000, |c| c.0);
                let planned = plan.last().map_or(20_000, |(at, _, _)| (*at).max(t + 1));
                t = if skip && !happened { next.min(planned) } else { t + 1 };
            }
            (log, e.stats(Cycles(1 << 40)))
        };
        let (log, stats) = outcome(false);
        assert_eq!(log.len(), 60, "seed {seed}");
        assert_eq!((log, stats), outcome(true), "seed {seed}");
    }
}

#[test]
fn reads_outstanding_are_bounded_by_the_buffer_for_their_completions() {
    // Room for two reads of 256 bytes beside 64 each, or for one of 512.
    let c = LinkConfig { read_tags: 64, read_buffer_bytes: 640, read_reserve_bytes: 64, ..config() };
    assert!(LinkConfig { read_buffer_bytes: 500, ..c }.check().is_err(), "does not hold one request of 512");
    let finished = |len: usize, buffer: u32| {
        let c = LinkConfig { read_buffer_bytes: buffer, ..c };
        let (mut e, mut h) = (DmaEngine::new(c, 1).unwrap(), Host::new());
        let m = DmaMemory::new(65536).unwrap();
        let at = h.iommu.map(&m).unwrap();
        for i in 0..8 {
            let r = read(i, at.offset(i as usize * 4096), len);
            e.request(Cycles(i), DmaClient(0), r).unwrap();
            e.evaluate(Cycles(i), &mut h, true);
        }
        let done = run(&mut e, &mut h, 8, 5000, DmaClient(0));
        assert_eq!(done.len(), 8);
        assert_eq!(e.stats(Cycles(5008)).in_flight, 0);
        done.last().unwrap().0
    };
    // A round trip is 120 cycles and more: four, eight, or all at once.
    let (pairs, single, free) = (finished(256, 640), finished(512, 640), finished(256, 0));
    assert!(pairs > 4 * 120 && pairs < 5 * 200, "{pairs}");
    assert!(single > 8 * 120, "{single}");
    assert!(free < 2 * 200, "{free}");
}
