//! What large tables and many records cost. The figures are printed; the bounds are loose on purpose.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::time::{Duration, Instant};

use datapath_api::{Miss, MissHandler};
use flow::{FieldId, PortId};
use openflow::multipart::FlowStatsRequest;
use rig::*;

const FLOWS: u32 = 100_000;

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

#[test]
fn a_hundred_thousand_flow_mods_and_a_record_for_each_fifth_take_seconds() {
    let r = Rig::new();
    let before = resident_bytes();
    let begin = Instant::now();
    let start = spent(begin);
    for i in 0..FLOWS {
        let m = matching(&[(FieldId::EthType, 0x800), (FieldId::NwDst, (0x0a00_0000 + i).into())]);
        r.flow_mod(add(0, 10, m, to(i % 3 + 2))).unwrap();
    }
    let loaded = spent(begin) - start;
    let bytes = resident_bytes().saturating_sub(before);
    let misses: Vec<Miss> = (0..FLOWS / 5)
        .map(|i| {
            let [a, b, c, d] = (0x0a00_0000 + i).to_be_bytes();
            let f = udp([10, 9, 9, 9], [a, b, c, d], 1, 2).build();
            let key = flow::parse(&f, PortId(11)).unwrap().key;
            Miss { key, len_bytes: f.len() as u32, tcp_flags: 0 }
        })
        .collect();
    let start = spent(begin);
    let mut out = Vec::new();
    r.switch.translate(&misses, r.now(), &mut out);
    let translated = spent(begin) - start;
    {
        let mut flows = r.dp.flows.lock().unwrap();
        flows.extend(out.iter().filter_map(|t| t.record()).map(|r| (r.id, r.clone())));
    }
    let start = spent(begin);
    let done = r.switch.revalidate(r.now());
    let unchanged = spent(begin) - start;
    assert_eq!((done.records, done.translated), (misses.len(), 0));
    r.add(0, 1, matching(&[]), to(2));
    let start = spent(begin);
    let done = r.switch.revalidate(r.now());
    let changed = spent(begin) - start;
    assert_eq!((done.translated, done.deleted), (misses.len(), 0));
    assert_eq!(r.flows(FlowStatsRequest::ALL).len(), FLOWS as usize + 1);
    let per = |d: Duration, n: usize| d.as_secs_f64() * 1e6 / n as f64;
    println!(
        "{FLOWS} flows: {:.2} us per flow-mod, {} bytes per flow; {:.2} us per miss; revalidation {:.2} us per record at rest, {:.2} us after a change",
        per(loaded, FLOWS as usize),
        bytes / u64::from(FLOWS),
        per(translated, misses.len()),
        per(unchanged, misses.len()),
        per(changed, misses.len()),
    );
    assert!(loaded < Duration::from_secs(30), "{loaded:?}");
}
