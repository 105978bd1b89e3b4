//! `cargo xtask bench peer DIR...`: Open vSwitch with DPDK and ours on the same workloads, the same processor and the same hour,
//! by turns.
//!
//! Both receive by copying each frame into a buffer of a pool, forward on one processor and free what they send. While one is
//! measured the other does not run: Open vSwitch's threads are stopped. On a machine that does other things too, a thread's
//! wait for its processor is part of elapsed cycles and says nothing of the switch: it is taken out of both figures, of the
//! peer's by what the kernel says that its thread waited, of ours by the thread's own clock. What only Open vSwitch does on other
//! threads (revalidation) is in neither. Told to end by a signal it stops what it has started and gives huge pages back.

mod daemon;
mod meta;
mod perf;
mod report;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use daemon::Daemon;
pub use daemon::missing;
use meta::Meta;
pub use report::{Row, Spread, table};

use crate::stop;
use crate::switching::{self, Opened, Session};

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Turns of each.
    pub repeats: usize,
    /// How long the peer runs before each of its turns is measured.
    pub settle: Duration,
    /// How long a turn of the peer's is.
    pub period: Duration,
    /// The processor to forward on.
    pub core: usize,
    /// Fewest packets in a turn of ours.
    pub packets: u64,
}

/// Percent by which shares of forwarded packets may differ: the peer's counters are read while packets are under way.
const SHARE_TOLERANCE: f64 = 0.5;

/// Has this thread, and those that it starts, run on these processors.
///
/// # Errors
/// When there is none of them.
fn run_on(mut processors: impl Iterator<Item = usize>) -> Result<()> {
    let mut set = CpuSet::new();
    processors.try_for_each(|p| set.set(p))?;
    sched_setaffinity(Pid::from_raw(0), &set).context("these processors cannot be had")
}

/// Runs the workload in `dir` under both; what went wrong is in the row.
pub fn run(dir: &Path, o: &Options) -> Row {
    let name = dir.file_name().map_or("?".into(), |n| n.to_string_lossy().into_owned());
    compare(dir, o).unwrap_or_else(|e| Row::failed(&name, format!("{e:#}")))
}

fn compare(dir: &Path, o: &Options) -> Result<Row> {
    let dir = dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))?;
    let meta = Meta::read(&dir)?;
    let processors = std::thread::available_parallelism().map_or(1, usize::from).max(o.core + 1);
    run_on(std::iter::once(o.core))?;
    let ours = switching::Options { no_emc: false, stream: None, repeats: o.repeats, packets: o.packets };
    let mut session: Box<Session> = match Session::open(&dir, &ours)? {
        Opened::Ready(s) => s,
        Opened::Unsupported(row) => {
            return Ok(Row::failed(meta.name(), row.unsupported.unwrap_or_default()));
        }
    };
    let scratch = tempfile::Builder::new().prefix("peer").tempdir()?;
    // Its other threads inherit where they may run; the forwarding thread chooses by itself.
    run_on((0..processors).filter(|p| *p != o.core))?;
    // Huge pages that another program has just given back are not always to be had at once.
    let start = |dir: &str| Daemon::start(&scratch.path().join(dir), o.core, meta.packets());
    let peer = start("a").or_else(|e| {
        stop::check()?;
        eprintln!("bench: once more: {e:#}");
        start("b")
    })?;
    stop::check()?;
    peer.load(&dir, &meta)?;
    run_on(std::iter::once(o.core))?;
    let (mut theirs, mut mine, mut says, mut waits, mut upcalls) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut wrong = Vec::new();
    for _ in 0..o.repeats.max(1) {
        peer.pause(false)?;
        stop::pause(o.settle)?;
        let (p, wait) = peer.measure(o.period)?;
        peer.pause(true)?;
        let fwd = p.tx as f64 * 100.0 / p.rx.max(1) as f64;
        let expect: f64 = meta.get("expect_fwd").and_then(|v| v.parse().ok()).unwrap_or(100.0);
        if (fwd - expect).abs() > SHARE_TOLERANCE {
            wrong.push(format!("Open vSwitch forwarded {fwd:.2} %, {expect} % are to be"));
        }
        theirs.push(p.cycles * (1.0 - wait));
        says.push(p.cycles);
        waits.push(wait * 100.0);
        upcalls.push(p.upcalls as f64 * 100.0 / p.passes.max(1) as f64);
        stop::check()?;
        session.warm();
        mine.push(session.repeat().on_processor);
    }
    drop(peer);
    let row = session.finish();
    wrong.extend(row.wrong);
    let median = |v| Spread::of(v).map_or(0.0, |s| s.median);
    let (peer, ours) = (Spread::of(theirs), Spread::of(mine));
    Ok(Row {
        name: meta.name().into(),
        peer,
        peer_says: median(says),
        peer_waited_percent: median(waits),
        peer_upcall_percent: median(upcalls),
        ours,
        ratio: peer.zip(ours).map(|(p, o)| p.median / o.median.max(f64::MIN_POSITIVE)),
        target: report::target(meta.name()),
        expect_fwd: meta.get("expect_fwd").unwrap_or_default().into(),
        wrong,
    })
}
