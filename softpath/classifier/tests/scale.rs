//! What a large table costs. The figures are printed; the bounds are loose on purpose.

use std::sync::Arc;
use std::time::{Duration, Instant};

use classifier::Classifier;
use flow::{FieldId, PipelineKey, PipelineMask, PipelineMatch};

const RULES: u32 = 100_000;

#[test]
fn a_hundred_thousand_published_inserts_take_seconds_at_most() {
    let mut c = Classifier::<u32>::default();
    let begin = Instant::now();
    let start = spent(begin);
    for i in 0..RULES {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::EthType, 0x800);
        m.set(FieldId::NwDst, (0x0a00_0000 + i).into());
        if i % 2 == 0 {
            m.set(FieldId::NwProto, 6);
            m.set(FieldId::TpDst, (i % 5000).into());
        }
        let mini = c.compact(&m);
        c.insert(&mini, 100, Arc::new(i));
        c.publish();
    }
    let took = spent(begin) - start;
    let rss = resident_bytes();
    let start = spent(begin);
    let mut hits = 0;
    for i in 0..RULES {
        let mut k = PipelineKey::ZERO;
        k.set(FieldId::EthType, 0x800);
        k.set(FieldId::NwDst, (0x0a00_0000 + i).into());
        k.set(FieldId::NwProto, 6);
        k.set(FieldId::TpDst, (i % 5000).into());
        hits += usize::from(c.lookup(&k, &mut PipelineMask::default()).is_some());
    }
    println!(
        "{RULES} rules: {:.2} us per published insert, {:.0} ns per lookup, {} bytes resident per rule",
        took.as_secs_f64() * 1e6 / f64::from(RULES),
        (spent(begin) - start).as_secs_f64() * 1e9 / f64::from(RULES),
        rss / u64::from(RULES)
    );
    assert_eq!(hits, RULES as usize);
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// Resident memory of this process; zero where it cannot be read.
fn resident_bytes() -> u64 {
    let s = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    s.split_whitespace().nth(1).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0) * 4096
}

/// Processor time of this thread, so that a busy machine does not count; time since `start` where that cannot be read.
fn spent(start: Instant) -> Duration {
    let s = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = s.split_whitespace().next().and_then(|v| v.parse().ok());
    ns.map_or_else(|| start.elapsed(), Duration::from_nanos)
}
