//! How fast filters come, go and are counted on a real kernel, against a stock `tc -batch` with the same filters.
//!
//! Each side has an interface of its own. Parts of the filters are added, and at the end deleted, by the two in turn, and of the parts'
//! ratios the median is told: the machine may be busier during one part than during the next, but hardly ever for half of a pair.
//! Nothing is read back while time is taken; both wait for every acknowledgement. Rules are made outside the time, and not all at once: each page that a process of this guest touches first costs as much as several
//! filters, and a stock `tc` has few.

use std::io::Write as _;
use std::ops::Range;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clock::HostClock;
use flow::{Action, FieldId, FlowId, PortId};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult, StatsCursor};
use offload_tc::{Kernel, TcConfig, TcPolicy, TcProvider};

use crate::net::{self, sh};
use crate::switch::untagged;

/// Interfaces that the two sides put their filters on.
const OURS: &str = "vc";
const THEIRS: &str = "va";
/// Parts that filters come and go in.
const PARTS: u32 = 10;
/// Filters of a part at least: `tc` is a program that has to be started.
const PART_AT_LEAST: u32 = 2000;
/// Times that all counters are read.
const DUMPS: usize = 3;

fn rule(n: u32) -> FlowRule {
    let mut m = untagged(PortId(1), 0x0800);
    m.set(FieldId::EthDst, 0x0200_0000_0002);
    m.set(FieldId::NwProto, 6);
    m.set(FieldId::NwDst, u128::from(0x0a01_0000 + n));
    m.set(FieldId::TpDst, 80);
    let actions = [Action::Output(PortId(2))].into();
    FlowRule { id: FlowId(n.into()), matches: m, actions, provenance: [].into() }
}

/// The same filter in `tc`'s words.
fn words(n: u32, command: &str) -> String {
    let a = std::net::Ipv4Addr::from(0x0a01_0000 + n);
    let handle = n + 1;
    let at = format!("filter {command} dev {THEIRS} ingress protocol ip prio 100 handle {handle} flower");
    match command {
        "add" => format!(
            "{at} skip_hw dst_mac 02:00:00:00:00:02 ip_proto tcp dst_ip {a} dst_port 80 ip_flags nofrag \
             action mirred egress redirect dev vb\n"
        ),
        _ => format!("{at}\n"),
    }
}

fn provider() -> Result<TcProvider<Kernel>> {
    let mut c = TcConfig::new("measure");
    (c.policy, c.read_back, c.entries) = (TcPolicy::SkipHw, false, 2_000_000);
    let mut p = TcProvider::new(Kernel::open()?, c, Arc::new(HostClock::new()));
    p.set_interfaces(&[(PortId(1), net::index(OURS)?), (PortId(2), net::index("vb")?)])?;
    Ok(p)
}

/// Operations that are made at a time.
const PART: usize = 1024;

/// Runs every operation; the handles of what was installed.
fn run(p: &mut TcProvider<Kernel>, ops: impl Iterator<Item = FlowOp>) -> Result<(Duration, Vec<HwHandle>)> {
    let (mut took, mut handles) = (Duration::ZERO, Vec::new());
    let (mut part, mut done, mut ops) = (Vec::with_capacity(PART), Vec::with_capacity(PART), ops.peekable());
    while ops.peek().is_some() {
        part.clear();
        part.extend(ops.by_ref().take(PART));
        let began = Instant::now();
        let mut sent = 0;
        while done.len() < part.len() {
            sent += p.submit(&part[sent..]);
            p.poll(&mut done, usize::MAX);
            ensure!(began.elapsed() < Duration::from_secs(300), "{} of {} done", done.len(), part.len());
        }
        took += began.elapsed();
        for c in done.drain(..) {
            match c.result {
                OpResult::Installed(h, _) => handles.push(h),
                OpResult::Removed(..) => {}
                other => bail!("{other:?}"),
            }
        }
    }
    Ok((took, handles))
}

fn tc(batch: &str) -> Result<Duration> {
    let began = Instant::now();
    let mut c = Command::new("tc")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("tc")?;
    c.stdin.take().context("no input")?.write_all(batch.as_bytes())?;
    let o = c.wait_with_output()?;
    ensure!(o.status.success(), "tc -batch: {}", String::from_utf8_lossy(&o.stderr));
    Ok(began.elapsed())
}

/// Times of the two sides for the same filters.
#[derive(Default)]
struct Pairs(Vec<(Duration, Duration)>);

impl Pairs {
    /// Runs both sides, now the one first and now the other.
    fn take(
        &mut self,
        ours: impl FnOnce() -> Result<Duration>,
        theirs: impl FnOnce() -> Result<Duration>,
    ) -> Result<()> {
        let pair = if self.0.len().is_multiple_of(2) {
            let a = ours()?;
            (a, theirs()?)
        } else {
            let b = theirs()?;
            (ours()?, b)
        };
        self.0.push(pair);
        Ok(())
    }

    /// Says medians: rates of each side for parts of `part` filters, and what the one is of the other within a pair.
    fn tell(&self, what: &str, n: u32, part: u32) {
        let of = |f: fn(&(Duration, Duration)) -> f64| {
            let mut all: Vec<f64> = self.0.iter().map(f).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let (a, b) = (of(|p| p.0.as_secs_f64()), of(|p| p.1.as_secs_f64()));
        let ratio = of(|p| p.1.as_secs_f64() / p.0.as_secs_f64());
        println!("MEASURED tc {what} {n} {:.0} {:.0} {ratio:.2}", f64::from(part) / a, f64::from(part) / b);
    }
}

/// Measures with `n` filters of each side.
fn run_with(n: u32) -> Result<()> {
    let text = |command, of: Range<u32>| of.map(|i| words(i, command)).collect::<String>();
    let part = (n / PARTS).max(PART_AT_LEAST).min(n);
    let parts = || (0..n).step_by(part as usize).map(|from| from..n.min(from + part));
    let (mut p, mut handles) = (provider()?, Vec::new());
    let mut pairs = Pairs::default();
    for of in parts() {
        let adds = text("add", of.clone());
        let ours = || {
            let (took, new) = run(&mut p, of.map(|i| FlowOp::Install(OpId(i.into()), rule(i))))?;
            handles.extend(new);
            Ok(took)
        };
        pairs.take(ours, || tc(&adds))?;
    }
    pairs.tell("install", n, part);
    let mut pairs = Pairs::default();
    for _ in 0..DUMPS {
        let ours = || {
            let began = Instant::now();
            let b = p.poll_stats(&mut StatsCursor::default(), usize::MAX)?;
            ensure!(b.stats.len() == n as usize, "{} counters", b.stats.len());
            Ok(began.elapsed())
        };
        let theirs = || {
            let began = Instant::now();
            net::output(&["tc", "-s", "-j", "filter", "show", "dev", THEIRS, "ingress"])?;
            Ok(began.elapsed())
        };
        pairs.take(ours, theirs)?;
    }
    pairs.tell("statistics", n, n);
    let mut pairs = Pairs::default();
    for of in parts() {
        let dels = text("del", of.clone());
        let which = of.start as usize..of.end as usize;
        let ours = || {
            let removes = handles.get(which).unwrap_or_default().iter().zip(0..);
            Ok(run(&mut p, removes.map(|(h, i)| FlowOp::Remove(OpId(i), *h)))?.0)
        };
        pairs.take(ours, || tc(&dels))?;
    }
    pairs.tell("delete", n, part);
    p.flush()?;
    Ok(())
}

/// Makes the interfaces and measures.
pub fn run_all(n: u32) -> Result<()> {
    net::make()?;
    sh(&format!("tc qdisc add dev {THEIRS} clsact"))?;
    provider()?.flush()?;
    run_with(n)
}
