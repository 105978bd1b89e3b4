//! `cargo xtask bench softpath DIR...`: the whole datapath on workload directories.
//!
//! One core, packets in memory: a frame is copied into a buffer of the pool, parsed, looked up (caches, and the OpenFlow
//! tables by way of the translation when no cache knows it), executed, and given back by the port it leaves by. The figure is
//! cycles of the time-stamp counter from poll to poll, divided by packets received: what Open vSwitch reports for its
//! forwarding threads. Three things must be right or the run fails: the share of packets that leave by `n1`, that every packet is
//! counted by a rule, and over a stream the verdicts of a sample against a search through all rules.

mod bed;
mod directory;
mod queues;
mod report;
mod stream;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bed::{Bed, Chunk};
use directory::Directory;
use queues::Source;
pub use report::{Published, Row, table};
use stream::{Stream, forwarded};

/// Packets of a stream that are held against the search through all rules.
const SAMPLE: usize = 20_480;
/// Longest that one repeat takes, of the host's time.
const REPEAT_LIMIT: Duration = Duration::from_secs(3);
/// Rounds of a workload before it is measured, as far as time allows.
const WARM_LOOPS: u64 = 10;
/// Chunks that took more than this times the median are of a machine that did something else.
const OUTLIER: f64 = 6.0;

/// What keeps a workload from being run, or its result from counting.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum SwitchingError {
    #[error("{}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{}: in.pcap has no frames", .0.display())]
    NoFrames(PathBuf),
    #[error(transparent)]
    Capture(#[from] netio::pcap::CaptureError),
    #[error("rules.flows: {0}")]
    Flows(#[from] openflow::text::FileError),
    #[error("a rule or station was not taken: {0}")]
    FlowMod(String),
    #[error(transparent)]
    Datapath(#[from] datapath_api::DatapathError),
    #[error(transparent)]
    Memory(#[from] device::DmaError),
}

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Without the exact-match cache.
    pub no_emc: bool,
    /// Instead of the workload's packets, so many of its rules', each of a flow of its own.
    pub stream: Option<usize>,
    /// Repeats.
    pub repeats: usize,
    /// Fewest packets in a repeat.
    pub packets: u64,
}

/// Runs the workload in `dir`.
///
/// # Errors
/// [`SwitchingError`]; a wrong result is in the row.
pub fn run(dir: &Path, o: &Options) -> Result<Row, SwitchingError> {
    let d = Directory::read(dir)?;
    if !matches!(d.topo.as_str(), "plain" | "l2") {
        return Ok(Row::unsupported(&d.name, o, &d.topo));
    }
    let stream = o.stream.map(|n| Arc::new(Stream::new(&d.flows, n, 1)));
    let source = || match &stream {
        Some(s) => Source::Stream(s.clone()),
        None => Source::Frames(d.frames.clone()),
    };
    let loop_packets = source().len() as u64;
    let mut bed = Bed::new(&d, source(), o)?;
    let mut wrong = Vec::new();
    // The first packets of a stream are held against the reference, every packet of a workload against its meta.
    let checked = if stream.is_some() { SAMPLE.min(loop_packets as usize) as u64 } else { loop_packets };
    bed.run(checked, |_| true);
    let cold = bed.sent();
    let mut received = checked;
    let fwd = |sent: u64, n: u64| format!("{:.2}", sent as f64 * 100.0 / n as f64);
    let expect = match &stream {
        Some(s) => fwd(forwarded(&d.flows, (0..checked as usize).map(|i| s.key(i))), checked),
        None => d.expect_fwd.clone(),
    };
    if fwd(cold, checked) != expect {
        wrong.push(format!("forwarded {} % at first, {expect} % are to be", fwd(cold, checked)));
    }
    // Warm: caches know what they will know.
    let warm = loop_packets * (WARM_LOOPS * o.packets).div_ceil(loop_packets).min(WARM_LOOPS);
    let started = Instant::now();
    bed.run(warm, |c| {
        received += c.packets;
        started.elapsed() < REPEAT_LIMIT || stream.is_none() && received < 2 * loop_packets
    });
    let before = bed.stats();
    let mut repeats = Vec::new();
    let mut discarded = (0, 0);
    for _ in 0..o.repeats.max(1) {
        let (r0, s0) = (received, bed.sent());
        let n = if stream.is_some() {
            o.packets.max(1)
        } else {
            loop_packets * o.packets.max(1).div_ceil(loop_packets)
        };
        let started = Instant::now();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut whole = true;
        bed.run(n, |c| {
            received += c.packets;
            if c.packets > 0 {
                chunks.push(c);
            }
            let go_on = started.elapsed() < REPEAT_LIMIT
                || received - r0 < loop_packets.min(n)
                || received % loop_packets != 0;
            whole &= go_on;
            go_on
        });
        if stream.is_none() && whole {
            let share = fwd(bed.sent() - s0, received - r0);
            if share != expect {
                wrong.push(format!("forwarded {share} %, {expect} % are to be"));
            }
        }
        let (value, out, all) = cycles_per_packet(&chunks);
        repeats.push(value);
        discarded = (discarded.0 + out, discarded.1 + all);
    }
    let after = bed.stats();
    let by_rules = bed.counted_by_rules();
    if by_rules != received {
        wrong.push(format!("rules counted {by_rules} packets, {received} were received"));
    }
    Ok(Row::new(&d, o, repeats, &before, &after, &expect, wrong, discarded))
}

/// Cycles per packet of all chunks but those that something else disturbed; how many those are, and of how many.
fn cycles_per_packet(chunks: &[Chunk]) -> (f64, usize, usize) {
    let of = |c: &Chunk| c.cycles as f64 / c.packets as f64;
    let mut each: Vec<f64> = chunks.iter().map(of).collect();
    each.sort_by(f64::total_cmp);
    let bound = each.get(each.len() / 2).map_or(0.0, |m| m * OUTLIER);
    let kept = || chunks.iter().filter(|c| of(c) <= bound);
    let (cycles, packets) = kept().fold((0, 0), |(c, p), k| (c + k.cycles, p + k.packets));
    let n = kept().count();
    (cycles as f64 / packets.max(1) as f64, chunks.len() - n, chunks.len())
}
