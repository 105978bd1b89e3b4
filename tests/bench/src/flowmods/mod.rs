//! Flow-mods through stock `ovs-ofctl`: our daemon and Debian's in turn on the same machine, and a switch that only
//! acknowledges.
//!
//! Processor time is what the kernel accounts to the daemon's threads, memory its anonymous resident pages. `add-flows` sends
//! a barrier behind every flow-mod and waits for it; with `--bundle` all are one change. Each repeat asks all, one after the
//! other. Dumps go to a file that nobody reads; what grows meanwhile is the peak of what is resident.

mod null_switch;

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use lab::OvsSwitch;
use lab::ovs::STOCK_SWITCH;
use lab::process;
use null_switch::NullSwitch;

use crate::contender::{Contender, OURS, Values, contenders, figures, in_scratch};
use crate::figure::{Figure, Unit};
use crate::openflow::{Masks, flow_text};
use crate::part::BenchError;
use crate::target::Target;

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Repeats.
    pub repeats: usize,
    /// Flows of a run.
    pub flows: u32,
    /// Flows of the table that is dumped.
    pub dumped: u32,
}

impl Sizes {
    /// Those of the targets.
    pub const FULL: Sizes = Sizes { repeats: 3, flows: 100_000, dumped: 1_000_000 };
}

/// A switch that does not answer ends the run.
const TIMEOUT: &str = "--timeout=600";

/// What one run of `ovs-ofctl` took.
struct Run {
    wall_us: f64,
    cpu_us: f64,
}

/// Adds the flows of `file`, `n` of them, to the switch at `target`.
fn add(s: Option<&OvsSwitch>, target: &str, file: &Path, bundle: bool, n: u32) -> Result<Run, BenchError> {
    let file = file.to_string_lossy();
    // Without names, or it would ask for those of ports and tables, which not every switch here has.
    let mut args = vec![TIMEOUT, "--no-names", "-O", "OpenFlow14", "add-flows", target, &file];
    if bundle {
        args.insert(1, "--bundle");
    }
    let cpu = |s: Option<&OvsSwitch>| s.map_or(Ok(0.0), |s| process::cpu(s.pid()).map(|d| d.as_secs_f64()));
    let mut c = match s {
        Some(s) => s.ofctl_command(&args),
        None => {
            let mut c = std::process::Command::new("ovs-ofctl");
            c.args(&args);
            c
        }
    };
    let (before, start) = (cpu(s)?, Instant::now());
    lab::command::done(&mut c)?;
    let per_flow = |seconds: f64| seconds * 1e6 / f64::from(n);
    Ok(Run { wall_us: per_flow(start.elapsed().as_secs_f64()), cpu_us: per_flow(cpu(s)? - before) })
}

/// How much a dump of `n` flows adds to what is resident at most, in bytes, and how long it takes, in milliseconds.
fn dump(s: &OvsSwitch, dir: &Path, n: u32) -> Result<(f64, f64), BenchError> {
    let out = dir.join("dump");
    let before = process::forget_peak(s.pid())?;
    let start = Instant::now();
    let status = s
        .ofctl_command(&[TIMEOUT, "-O", "OpenFlow14", "dump-flows", "br0"])
        .stdout(Stdio::from(File::create(&out)?))
        .status()?;
    let took_ms = start.elapsed().as_secs_f64() * 1e3;
    let grown = process::peak_bytes(s.pid())?.saturating_sub(before);
    let lines = std::io::BufRead::lines(std::io::BufReader::new(File::open(&out)?)).count();
    if !status.success() || lines < n as usize {
        return Err(anyhow::anyhow!("a dump gave {lines} lines of {n} flows ({status})").into());
    }
    std::fs::remove_file(&out)?;
    Ok((grown as f64, took_ms))
}

/// As [`figures`], with so many flows in the table.
fn of_flows(
    all: &[Contender],
    what: &str,
    unit: Unit,
    values: &Values,
    flows: u32,
    ratio: Option<Target>,
) -> Vec<Figure> {
    let with = |f: Figure| if f.unit == Unit::Ratio { f } else { f.rules(flows.into()) };
    figures(all, what, unit, values, ratio).into_iter().map(with).collect()
}

/// Measures all of it.
///
/// # Errors
/// When a daemon cannot be started, or does not do what it is asked.
pub fn run(sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    measure(&contenders("flowmods", ("vswitchd", "vswitchd"), STOCK_SWITCH)?, sizes)
}

fn measure(all: &[Contender], sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    in_scratch(|dir| measure_in(all, sizes, dir))
}

fn measure_in(all: &[Contender], sizes: &Sizes, dir: &Path) -> Result<Vec<Figure>, BenchError> {
    let n = sizes.flows;
    let text = flow_text(sizes.dumped.max(n), Masks::One);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let mut files = Vec::new();
    for (i, part) in lines.chunks(n as usize).enumerate() {
        let file = dir.join(format!("flows{i}"));
        std::fs::write(&file, part.concat())?;
        files.push((file, part.len() as u32));
    }
    let Some((first, _)) = files.first().cloned() else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    let empty = || vec![Vec::new(); all.len()];
    let (mut memory, mut grown, mut took) = (empty(), empty(), empty());
    let mut cpu = [empty(), empty()];
    let mut wall = [empty(), empty()];
    let mut null = [Vec::new(), Vec::new()];
    let switches = all
        .iter()
        .map(|c| {
            OvsSwitch::start(&c.program, &dir.join(c.name.replace(' ', "-")), ovsdb::vswitch::SCHEMA_TEXT)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let socket = dir.join("null");
    let _null = NullSwitch::start(&socket)?;
    let null_target = format!("unix:{}", socket.display());
    for repeat in 0..sizes.repeats {
        for (way, bundle) in [(0, false), (1, true)] {
            for (i, s) in switches.iter().enumerate() {
                let before = process::resident_bytes(s.pid())?;
                let r = add(Some(s), "br0", &first, bundle, n)?;
                if repeat == 0 && !bundle {
                    let more = process::resident_bytes(s.pid())?.saturating_sub(before);
                    memory[i].push(more as f64 / f64::from(n));
                }
                cpu[way][i].push(r.cpu_us);
                wall[way][i].push(r.wall_us);
                let count = s.ofctl(&["-O", "OpenFlow14", "dump-aggregate", "br0"])?;
                if !count.contains(&format!("flow_count={n}")) {
                    return Err(anyhow::anyhow!("flows are missing: {count}").into());
                }
                s.ofctl(&["-O", "OpenFlow14", "del-flows", "br0"])?;
            }
            null[way].push(add(None, &null_target, &first, bundle, n)?.wall_us);
        }
    }
    for (i, s) in switches.iter().enumerate() {
        for (file, n) in &files {
            add(Some(s), "br0", file, true, *n)?;
        }
        let (bytes, ms) = dump(s, dir, sizes.dumped)?;
        grown[i].push(bytes / f64::from(sizes.dumped));
        took[i].push(ms);
    }
    for (way, what) in ["add-flows", "add-flows --bundle"].into_iter().enumerate() {
        let name = format!("daemon's processor time, {what}");
        out.extend(of_flows(all, &name, Unit::MicrosPerFlowMod, &cpu[way], n, Some(Target::FlowModCpu)));
        out.extend(of_flows(all, &format!("wall time, {what}"), Unit::MicrosPerFlowMod, &wall[way], n, None));
        let only = "a switch that only acknowledges";
        let name = format!("wall time, {what}: {only}");
        out.push(Figure::of(name, Unit::MicrosPerFlowMod, null[way].clone()).rules(n.into()));
        for (c, took) in all.iter().zip(&wall[way]) {
            let paired = took.iter().zip(&null[way]).map(|(a, b)| a / b.max(f64::MIN_POSITIVE)).collect();
            let mut f = Figure::of(format!("wall time, {what}: {} / {only}", c.name), Unit::Ratio, paired);
            f.target = (c.name == OURS).then_some(Target::FlowModWall);
            out.push(f);
        }
    }
    out.extend(of_flows(all, "memory", Unit::BytesPerFlow, &memory, n, Some(Target::FlowMemory)));
    out.extend(of_flows(all, "growth during a dump", Unit::BytesPerFlow, &grown, sizes.dumped, None));
    out.extend(of_flows(all, "dump", Unit::Milliseconds, &took, sizes.dumped, None));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::stock_twice;

    #[test]
    fn everything_is_measured_of_both() {
        let Some(both) = stock_twice(STOCK_SWITCH) else { return };
        let sizes = Sizes { repeats: 1, flows: 2000, dumped: 4000 };
        let figures = measure(&both, &sizes).unwrap();
        for t in [Target::FlowModCpu, Target::FlowModWall, Target::FlowMemory] {
            assert!(figures.iter().any(|f| f.target == Some(t)), "{t:?}: {figures:#?}");
        }
        let wall = |what: &str| figures.iter().find(|f| f.name == what).unwrap().value;
        assert!(wall("wall time, add-flows: ours") > 0.0);
        assert!(wall("wall time, add-flows --bundle: a switch that only acknowledges") > 0.0);
    }
}
