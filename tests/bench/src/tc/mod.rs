//! TC flower: what a rule costs to turn into a request, and how fast filters come, go and are counted on a kernel of its own
//! against a stock `tc -batch` with the same filters.
//!
//! The kernel is User Mode Linux, a process: its rates are its own, but both sides have them. The guest's program interleaves the
//! two and tells medians.

mod replay;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clock::HostClock;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use lab::kernel::{KernelLab, MapLimit};
use offload::{FlowOp, FlowRule, OffloadProvider, OpId, Reject, StatsCursor};
use offload_tc::fake::FakeKernel;
use offload_tc::lower_action::lower_actions;
use offload_tc::lower_match::{Can, LoweredMatch, Terms, lower_match};
use offload_tc::message::{Add, add_filter};
use offload_tc::wire::Writer;
use offload_tc::{FilterAt, Hook, TcConfig, TcProvider};

use crate::cycles::{counter_hz, measure};
use crate::figure::{Figure, Unit};
use crate::part::BenchError;
use crate::target::Target;
use replay::Replay;

const PORTS: [(PortId, u32); 2] = [(PortId(1), 11), (PortId(2), 12)];
/// Times that every counter is read.
const POLLS: usize = 21;
/// Longest that a run in the guest may take.
const LIMIT: Duration = Duration::from_secs(2700);
/// The guest's memory: 100,000 filters of each side, and what tells of them.
const GUEST_MIB: u32 = 4096;

/// A rule: name, match, actions.
type Rule = (&'static str, PacketMatch, Vec<Action>);

/// Rules of the shapes that are measured.
fn rules() -> Vec<Rule> {
    let mut five = PacketMatch::ANY;
    for (f, v) in [
        (FieldId::DpPort, 1),
        (FieldId::EthType, 0x0800),
        (FieldId::EthDst, 0x0200_0000_0002),
        (FieldId::NwProto, 6),
        (FieldId::NwSrc, 0x0a00_0001),
        (FieldId::NwDst, 0x0a00_0002),
        (FieldId::TpSrc, 40_000),
        (FieldId::TpDst, 80),
    ] {
        five.set(f, v);
    }
    five.set_masked(FieldId::VlanTci, 0, 0x1fff);
    five.set_masked(FieldId::NwFrag, 0, 3);
    let set = |field: FieldId, value| Action::SetField { field, value, mask: field.info().max() };
    let out = Action::Output(PortId(2));
    let nat = vec![
        set(FieldId::EthDst, 0x0200_0000_0003),
        set(FieldId::NwDst, 0x0a00_0003),
        Action::DecTtl,
        set(FieldId::TpDst, 8080),
        out.clone(),
    ];
    vec![("five-tuple, redirect", five, vec![out]), ("five-tuple, NAT, TTL, redirect", five, nat)]
}

fn lower(m: &PacketMatch, actions: &[Action]) -> Option<LoweredMatch> {
    let none = |_| Err(Reject::NoTables);
    let terms = Terms {
        ports: &PORTS,
        tunnels: &[],
        internals: &[],
        meter: &|_| None,
        chain: &none,
        can: Can::default(),
    };
    let mut l = lower_match(m, &terms).ok()?;
    lower_actions(actions, m, &mut l, &terms).ok()?;
    Some(l)
}

/// Encoding alone, and lowering with it.
fn encoding() -> Result<Vec<Figure>, BenchError> {
    let mut out = Vec::new();
    for (name, m, actions) in rules() {
        let refused = || BenchError::Rule(format!("{name} is not lowered"));
        let l = lower(&m, &actions).ok_or_else(refused)?;
        let at = FilterAt { hook: Hook::Ingress(11), chain: 0, prio: 100, protocol: 0x0800, handle: 1 };
        let mut w = Writer::new();
        let encode = measure(name, 20_000, || {
            w.clear();
            add_filter(&mut w, 1, black_box(&at), black_box(&l.flower), Add::New);
            w.len()
        });
        let bytes = w.len();
        let micros = |cycles: f64| cycles / counter_hz() * 1e6;
        let us = vec![micros(encode.median_cycles)];
        let f = Figure::of(format!("encoding, {name} ({bytes} bytes)"), Unit::Microseconds, us);
        out.push(f.target(Target::TcEncoding));
        let whole = measure(name, 20_000, || {
            w.clear();
            if let Some(l) = lower(black_box(&m), black_box(&actions)) {
                add_filter(&mut w, 1, &at, &l.flower, Add::New);
            }
            w.len()
        });
        let us = vec![micros(whole.median_cycles)];
        out.push(Figure::of(format!("lowering and encoding, {name}"), Unit::Microseconds, us));
        out.push(Figure::cycles(encode, Unit::CyclesPerRule));
    }
    Ok(out)
}

/// What the provider itself takes to read a counter out of a dump and to put it in its books; the kernel's part is not in it.
fn polling(n: u32) -> Result<Figure, BenchError> {
    let wrong = |e: offload::OffloadError| BenchError::Rule(e.to_string());
    let kernel = FakeKernel::new(&[11, 12]);
    let config = TcConfig { read_back: false, ..TcConfig::new("bench") };
    let mut p = TcProvider::new(Replay::new(kernel.socket()), config, Arc::new(HostClock::new()));
    p.set_interfaces(&PORTS).map_err(wrong)?;
    let Some((_, m, actions)) = rules().into_iter().next() else {
        return Err(BenchError::Rule("there is none".into()));
    };
    let ops: Vec<FlowOp> = (0..n)
        .map(|i| {
            let mut matches = m;
            matches.set(FieldId::NwDst, u128::from(0x0b00_0000 + i));
            let (id, actions) = (FlowId(i.into()), actions.as_slice().into());
            let rule = FlowRule { id, matches, actions, provenance: [].into() };
            FlowOp::Install(OpId(i.into()), rule)
        })
        .collect();
    let (mut sent, mut done) = (0, Vec::new());
    while done.len() < ops.len() {
        sent += p.submit(&ops[sent..]);
        p.poll(&mut done, usize::MAX);
    }
    let mut us = Vec::new();
    // The first time, dumps are still made.
    for i in 0..=POLLS {
        let began = Instant::now();
        let b = p.poll_stats(&mut StatsCursor::default(), usize::MAX).map_err(wrong)?;
        let took = began.elapsed();
        if b.stats.len() != ops.len() {
            return Err(BenchError::Rule(format!("{} of {n} counters", b.stats.len())));
        }
        if i > 0 {
            us.push(took.as_secs_f64() * 1e6 / f64::from(n));
        }
    }
    let name = format!("a counter polled, of {n} filters, host time of the provider");
    Ok(Figure::of(name, Unit::Microseconds, us).rules(n.into()))
}

/// Where the guest's program and the unpacked kernel are: beside this program, and where `cargo xtask lab` keeps it.
fn places() -> Result<(PathBuf, PathBuf), BenchError> {
    let own = std::env::current_exe()?;
    let dir = own.parent().context("no folder")?;
    let scratch = dir.parent().context("no target folder")?.join("xtask");
    let guest = dir.join("tc-guest");
    if !guest.is_file() {
        return Err(BenchError::Tool(anyhow::anyhow!("{} is not built", guest.display())));
    }
    Ok((guest, scratch))
}

/// Figures from the guest's lines `MEASURED tc WHAT N OURS THEIRS RATIO`.
fn figures_of(console: &str) -> Vec<Figure> {
    let mut out = Vec::new();
    for line in console.lines().filter_map(|l| l.trim().strip_prefix("MEASURED tc ")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, n, ours, theirs, ratio] = words[..] else { continue };
        let (Ok(n), Ok(ours), Ok(theirs), Ok(ratio)) =
            (n.parse(), ours.parse(), theirs.parse(), ratio.parse())
        else {
            continue;
        };
        let rate = |whose: &str, v| {
            Figure::of(format!("{what} of {n} filters, {whose}"), Unit::RulesPerSecond, vec![v]).rules(n)
        };
        out.push(rate("the provider", ours));
        out.push(rate("tc", theirs));
        let f = Figure::of(format!("{what} of {n} filters, against tc"), Unit::Ratio, vec![ratio]).rules(n);
        out.push(f.target(Target::TcRate));
    }
    out
}

fn in_guest(n: u32, guest: &Path, scratch: &Path) -> Result<Vec<Figure>, BenchError> {
    let lab = KernelLab::prepare(&scratch.join("kernel-lab"))?.with_memory(GUEST_MIB);
    let results = scratch.join("kernel-lab-measure");
    let (_raised, said) = MapLimit::raise(GUEST_MIB);
    eprintln!("bench: tc: a guest with {GUEST_MIB} MiB for {n} filters; {said}");
    let ended = lab.run(guest, &["measure", &n.to_string()], &results, LIMIT, &mut |_| {})?;
    let figures = figures_of(&ended.console);
    if ended.status != Some(0) || figures.is_empty() {
        let last: Vec<&str> = ended.console.lines().rev().take(3).collect();
        return Err(BenchError::Tool(anyhow::anyhow!("the guest: {:?}, {last:?}", ended.status)));
    }
    Ok(figures)
}

/// Measures with as many filters as `counts` says, one after the other.
///
/// # Errors
/// When the guest cannot be had or does not end well.
pub fn run(counts: &[u32]) -> Result<Vec<Figure>, BenchError> {
    let mut out = encoding()?;
    for n in counts {
        out.push(polling(*n)?);
    }
    let (guest, scratch) = places()?;
    for n in counts {
        out.extend(in_guest(*n, &guest, &scratch)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_lowered() {
        assert!(rules().iter().all(|(_, m, a)| lower(m, a).is_some()));
    }

    #[test]
    fn every_counter_of_a_replayed_dump_is_read() {
        assert!(polling(100).unwrap().value > 0.0);
    }

    #[test]
    fn the_guests_lines_become_figures() {
        let f = figures_of("x\nMEASURED tc install 10 300 100 3.00\r\nMEASURED tc nonsense\n");
        assert_eq!(f.len(), 3);
        assert_eq!((f[2].value, f[2].target), (3.0, Some(Target::TcRate)));
    }
}
