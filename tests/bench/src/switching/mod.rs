//! `cargo xtask bench softpath DIR...`: the whole datapath on workload directories.
//!
//! One core, packets in memory: a frame is copied into a buffer of the pool, parsed, looked up (caches, and the OpenFlow
//! tables by way of the translation when no cache knows it), executed, and given back by the port it leaves by. The figure is
//! cycles of the time-stamp counter from poll to poll, divided by packets received: what Open vSwitch reports for its
//! forwarding threads. Three things must be right or the run fails: the share of packets that leave by `n1`, that every packet is
//! counted by a rule, and over a stream the verdicts of a sample against a search through all rules.

mod bed;
pub mod churn;
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
use datapath_api::DatapathStats;
use directory::Directory;
use queues::Source;
pub use report::{Published, Row, stages, table};
use stream::{Stream, forwarded};

use crate::cycles::counter_hz;

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
    let mut s = match Session::open(dir, o)? {
        Opened::Ready(s) => s,
        Opened::Unsupported(row) => return Ok(*row),
    };
    for _ in 0..o.repeats.max(1) {
        s.repeat();
    }
    Ok(s.finish())
}

/// Whether a workload can be run.
pub enum Opened {
    /// Loaded, checked once and warm.
    Ready(Box<Session>),
    /// The row that says what is missing.
    Unsupported(Box<Row>),
}

/// One repeat.
#[derive(Clone, Copy, Debug)]
pub struct Repeat {
    /// Cycles per packet of the stretches that nothing else disturbed.
    pub undisturbed: f64,
    /// Cycles per packet of all of it, as long as the processor was the thread's: what it had to wait for its processor is left
    /// out.
    pub on_processor: f64,
}

/// A workload while it runs.
pub struct Session {
    d: Directory,
    o: Options,
    bed: Bed,
    stream: Option<Arc<Stream>>,
    loop_packets: u64,
    received: u64,
    expect: String,
    before: DatapathStats,
    repeats: Vec<f64>,
    discarded: (usize, usize),
    wrong: Vec<String>,
}

fn share(sent: u64, n: u64) -> String {
    format!("{:.2}", sent as f64 * 100.0 / n as f64)
}

impl Session {
    /// Loads the workload in `dir`, holds the first packets' verdicts against what they are to be, and warms the caches.
    ///
    /// # Errors
    /// [`SwitchingError`].
    pub fn open(dir: &Path, o: &Options) -> Result<Opened, SwitchingError> {
        let d = Directory::read(dir)?;
        if !d.is_supported() {
            return Ok(Opened::Unsupported(Box::new(Row::unsupported(&d.name, o, &d.topo))));
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
        let expect = match &stream {
            Some(s) => share(forwarded(&d.flows, (0..checked as usize).map(|i| s.key(i))), checked),
            None => d.expect_fwd.clone(),
        };
        if share(cold, checked) != expect {
            wrong.push(format!("forwarded {} % at first, {expect} % are to be", share(cold, checked)));
        }
        let mut s = Session {
            o: *o,
            before: bed.stats(),
            d,
            bed,
            stream,
            loop_packets,
            received: checked,
            expect,
            repeats: Vec::new(),
            discarded: (0, 0),
            wrong,
        };
        s.warm();
        Ok(Opened::Ready(Box::new(s)))
    }

    /// Has caches know what they will know.
    pub fn warm(&mut self) {
        let whole = self.loop_packets;
        let warm = whole * (WARM_LOOPS * self.o.packets).div_ceil(whole).min(WARM_LOOPS);
        let (started, streams) = (Instant::now(), self.stream.is_some());
        let received = &mut self.received;
        self.bed.run(warm, |c| {
            *received += c.packets;
            started.elapsed() < REPEAT_LIMIT || !streams && *received < 2 * whole
        });
        if self.repeats.is_empty() {
            self.before = self.bed.stats();
        }
    }

    /// Measures once.
    pub fn repeat(&mut self) -> Repeat {
        let (r0, s0, whole_loop) = (self.received, self.bed.sent(), self.loop_packets);
        let least = self.o.packets.max(1);
        let n = if self.stream.is_some() { least } else { whole_loop * least.div_ceil(whole_loop) };
        let started = Instant::now();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut whole = true;
        let received = &mut self.received;
        self.bed.run(n, |c| {
            *received += c.packets;
            if c.packets > 0 {
                chunks.push(c);
            }
            let go_on = started.elapsed() < REPEAT_LIMIT
                || *received - r0 < whole_loop.min(n)
                || !(*received).is_multiple_of(whole_loop);
            whole &= go_on;
            go_on
        });
        if self.stream.is_none() && whole {
            let now = share(self.bed.sent() - s0, self.received - r0);
            if now != self.expect {
                self.wrong.push(format!("forwarded {now} %, {} % are to be", self.expect));
            }
        }
        let (undisturbed, out, all) = cycles_per_packet(&chunks);
        self.repeats.push(undisturbed);
        self.discarded = (self.discarded.0 + out, self.discarded.1 + all);
        let (ns, packets) = chunks.iter().fold((0, 0), |(t, p), c| (t + c.on_processor_ns, p + c.packets));
        let on_processor = ns as f64 * counter_hz() / 1e9 / packets.max(1) as f64;
        Repeat { undisturbed, on_processor }
    }

    /// The row of what was measured.
    pub fn finish(mut self) -> Row {
        let after = self.bed.stats();
        let by_rules = self.bed.counted_by_rules();
        // Packets that are tracked go through two tables, and each counts them.
        let passes = if self.d.prime.is_some() { 2 } else { 1 };
        let counted = (self.received + self.bed.primed()) * passes;
        if by_rules != counted {
            self.wrong.push(format!("rules counted {by_rules} packets, {counted} are to be"));
        }
        if self.repeats.is_empty() {
            self.repeats.push(0.0);
        }
        let stages = self.bed.stages();
        let row = Row::new(
            &self.d,
            &self.o,
            self.repeats,
            &self.before,
            &after,
            &self.expect,
            self.wrong,
            self.discarded,
        );
        Row { stages, ..row }
    }
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
