//! `cargo xtask bench peer DIR...`: ours beside Open vSwitch with DPDK.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use bench::machine::Machine;
use bench::peer::{Options, Row, missing, run, table};
use bench::stop;
use clap::Parser;
use serde::Serialize;

/// Runs Open vSwitch with DPDK and our datapath by turns on workload directories as `cargo xtask workload` writes them.
///
/// Needs root, two processors, 1 GiB of memory for huge pages (5 GiB for the workloads of a million frames), and Debian's packages of
/// Open vSwitch with DPDK; `cargo xtask bench peer` installs them when they are missing. Cycles are those of the
/// time-stamp counter per packet received, without what a thread waited for its processor.
#[derive(Parser)]
#[command(name = "cargo xtask bench peer", bin_name = "cargo xtask bench peer")]
pub struct Args {
    /// Directories of workloads.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Turns of each; the figures are medians.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Seconds that Open vSwitch runs before each of its turns is measured.
    #[arg(long, default_value_t = 3.0, value_name = "S")]
    settle: f64,
    /// Seconds of a turn of Open vSwitch's.
    #[arg(long, default_value_t = 5.0, value_name = "S")]
    period: f64,
    /// The processor to forward on.
    #[arg(long, default_value_t = 1)]
    core: usize,
    /// Fewest packets in a turn of ours.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// Fails when a ratio is not met.
    #[arg(long)]
    check: bool,
    /// Prints one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    workloads: Vec<Row>,
}

/// Does what `args` says; whether everything was run and right.
pub fn main(args: &Args, out: &mut dyn Write) -> io::Result<bool> {
    let lack = missing();
    if !lack.is_empty() {
        eprintln!("bench: these packages are missing, install them: {}", lack.join(" "));
        return Ok(false);
    }
    let seconds = |s: f64| Duration::from_secs_f64(s.clamp(0.1, 600.0));
    let o = Options {
        repeats: args.repeats,
        settle: seconds(args.settle),
        period: seconds(args.period),
        core: args.core,
        packets: args.packets,
    };
    let machine = Machine::here();
    if !args.json {
        write!(out, "{machine}")?;
    }
    let mut rows = Vec::new();
    stop::watch()?;
    for dir in &args.dirs {
        let row = run(dir, &o);
        if stop::check().is_err() {
            return Ok(false);
        }
        if !args.json {
            write!(out, "{}", table(std::slice::from_ref(&row), rows.is_empty()))?;
            out.flush()?;
        }
        rows.push(row);
    }
    let met = |r: &Row| r.target.is_none_or(|t| r.ratio.is_some_and(|have| have >= t));
    let whole = rows.iter().all(|r| r.wrong.is_empty() && (!args.check || met(r)));
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&Report { machine, workloads: rows })?)?;
    }
    Ok(whole)
}
