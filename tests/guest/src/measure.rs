//! How fast filters come, go and are counted on a real kernel, against a stock `tc -batch` with the same filters.
//!
//! Rounds are interleaved and medians told. Nothing is read back while time is taken; both wait for every acknowledgement.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clock::HostClock;
use flow::{Action, FieldId, FlowId, PortId};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult, StatsCursor};
use offload_tc::{Kernel, TcConfig, TcPolicy, TcProvider};

use crate::net;
use crate::switch::untagged;

/// Rounds of each side: one where each takes minutes.
fn rounds(n: u32) -> usize {
    if n > 50_000 { 1 } else { 3 }
}

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
    let at = format!("filter {command} dev va ingress protocol ip prio 100 handle {handle} flower");
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
    p.set_interfaces(&[(PortId(1), net::index("va")?), (PortId(2), net::index("vb")?)])?;
    Ok(p)
}

/// Runs every operation; the handles of what was installed.
fn run(p: &mut TcProvider<Kernel>, ops: &[FlowOp]) -> Result<(Duration, Vec<HwHandle>)> {
    let began = Instant::now();
    let (mut sent, mut done) = (0, Vec::with_capacity(ops.len()));
    while done.len() < ops.len() {
        sent += p.submit(&ops[sent..]);
        p.poll(&mut done, usize::MAX);
        ensure!(began.elapsed() < Duration::from_secs(900), "{} of {} done", done.len(), ops.len());
    }
    let took = began.elapsed();
    let mut handles = Vec::new();
    for c in &done {
        match &c.result {
            OpResult::Installed(h, _) => handles.push(*h),
            OpResult::Removed(..) => {}
            other => bail!("{other:?}"),
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

fn median(mut all: Vec<Duration>) -> f64 {
    all.sort_unstable();
    all.get(all.len() / 2).map_or(0.0, Duration::as_secs_f64)
}

fn figure(what: &str, n: u32, ours: &[Duration], theirs: &[Duration]) {
    let (a, b) = (median(ours.to_vec()), median(theirs.to_vec()));
    let per = |t: f64| f64::from(n) / t;
    println!("MEASURED tc {what} {n} {:.0} {:.0} {:.2}", per(a), per(b), b / a);
}

/// Measures with `n` filters.
fn run_with(n: u32) -> Result<()> {
    let text = |command| {
        (0..n).fold(String::new(), |mut s, i| {
            let _ = write!(s, "{}", words(i, command));
            s
        })
    };
    let (adds, dels) = (text("add"), text("del"));
    let installs: Vec<FlowOp> = (0..n).map(|i| FlowOp::Install(OpId(i.into()), rule(i))).collect();
    let mut t: [Vec<Duration>; 6] = Default::default();
    for _ in 0..rounds(n) {
        t[1].push(tc(&adds)?);
        let began = Instant::now();
        net::output(&["tc", "-s", "-j", "filter", "show", "dev", "va", "ingress"])?;
        t[5].push(began.elapsed());
        t[3].push(tc(&dels)?);
        let mut p = provider()?;
        let (took, handles) = run(&mut p, &installs)?;
        t[0].push(took);
        let began = Instant::now();
        let b = p.poll_stats(&mut StatsCursor::default(), usize::MAX)?;
        t[4].push(began.elapsed());
        ensure!(b.stats.len() == n as usize, "{} counters", b.stats.len());
        let removes: Vec<FlowOp> =
            handles.iter().zip(0..).map(|(h, i)| FlowOp::Remove(OpId(i), *h)).collect();
        t[2].push(run(&mut p, &removes)?.0);
        p.flush()?;
    }
    figure("install", n, &t[0], &t[1]);
    figure("delete", n, &t[2], &t[3]);
    figure("statistics", n, &t[4], &t[5]);
    Ok(())
}

/// Makes the interfaces and measures.
pub fn run_all(n: u32) -> Result<()> {
    net::make()?;
    let mut p = provider()?;
    p.flush()?;
    run_with(n)
}
