//! `cargo xtask bench softpath DIR...`: the datapath on workload directories.

use std::io::{self, Write};
use std::path::PathBuf;

use bench::machine::Machine;
use bench::switching::{Options, Row, run, stages, table};
use clap::Parser;
use serde::Serialize;

/// Runs our whole datapath on workload directories as `cargo xtask workload` writes them, and checks what comes out.
///
/// One core, packets in memory; cycles of the time-stamp counter per packet received. "published" is Open vSwitch 3.1 with
/// DPDK on another machine: only ratios of `cargo xtask bench peer`, which runs both here, say how the two compare.
#[derive(Parser)]
#[command(name = "cargo xtask bench softpath", bin_name = "cargo xtask bench softpath")]
pub struct Args {
    /// Directories of workloads.
    #[arg(required = true, value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// Switches the exact-match cache off.
    #[arg(long)]
    no_emc: bool,
    /// Receives N packets for the workload's rules, each of a flow of its own, in place of the workload's. 16M is 16 million.
    #[arg(long, value_name = "N", value_parser = count)]
    stream: Option<usize>,
    /// Repeats; the figure is their median.
    #[arg(long, default_value_t = 3)]
    repeats: usize,
    /// Fewest packets in a repeat; whole rounds of the workload's.
    #[arg(long, default_value_t = 1_000_000)]
    packets: u64,
    /// The processor to run on; wherever the system puts it when not given.
    #[arg(long)]
    core: Option<usize>,
    /// Prints where the cycles go, too.
    #[arg(long)]
    stages: bool,
    /// Prints one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// "100k", "16M", "1234".
fn count(s: &str) -> Result<usize, String> {
    let (digits, unit) = match s.char_indices().last() {
        Some((i, 'k')) => (&s[..i], 1_000),
        Some((i, 'M')) => (&s[..i], 1_000_000),
        _ => (s, 1),
    };
    let n: usize = digits.parse().map_err(|_| format!("{s} is not a number"))?;
    n.checked_mul(unit).filter(|n| (1..=1 << 28).contains(n)).ok_or_else(|| "1 to 268435456".into())
}

#[derive(Serialize)]
struct Report {
    machine: Machine,
    workloads: Vec<Row>,
}

/// Does what `args` says; whether everything was run and right.
pub fn main(args: &Args, out: &mut dyn Write) -> io::Result<bool> {
    let (repeats, packets) = (args.repeats, args.packets);
    let o = Options { no_emc: args.no_emc, stream: args.stream, repeats, packets };
    if let Some(core) = args.core {
        let mut set = nix::sched::CpuSet::new();
        let pinned =
            set.set(core).and_then(|()| nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
        pinned.map_err(io::Error::from)?;
    }
    let machine = Machine::here();
    if !args.json {
        write!(out, "{machine}")?;
    }
    let (mut rows, mut whole) = (Vec::new(), true);
    for dir in &args.dirs {
        match run(dir, &o) {
            Ok(row) => {
                whole &= row.wrong.is_empty();
                if !args.json {
                    let text = table(std::slice::from_ref(&row));
                    let lines =
                        if rows.is_empty() { &text[..] } else { text.split_once('\n').map_or("", |l| l.1) };
                    write!(out, "{lines}")?;
                    if args.stages && row.unsupported.is_none() {
                        write!(out, "{}", stages(&row))?;
                    }
                    out.flush()?;
                }
                rows.push(row);
            }
            Err(e) => {
                eprintln!("bench: {}: {e}", dir.display());
                whole = false;
            }
        }
    }
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&Report { machine, workloads: rows })?)?;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_units() {
        assert_eq!((count("16M"), count("100k"), count("7")), (Ok(16_000_000), Ok(100_000), Ok(7)));
        assert!(count("").is_err() && count("M").is_err() && count("-1").is_err() && count("9999M").is_err());
    }

    #[test]
    fn a_workload_is_run_and_its_verdicts_hold() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["p2p1", "acl100", "setfield"] {
            bench::workload::generate(name, dir.path(), 7).unwrap();
            let at = dir.path().join(name);
            for extra in [vec![], vec!["--no-emc"], vec!["--stream", "30k"]] {
                let args = ["x", "--json", "--repeats", "1", "--packets", "20000"]
                    .into_iter()
                    .chain(extra)
                    .map(str::to_owned);
                let args = Args::parse_from(args.chain([at.display().to_string()]));
                let mut out = Vec::new();
                assert!(main(&args, &mut out).unwrap(), "{name}: {}", String::from_utf8_lossy(&out));
                let json: serde_json::Value = serde_json::from_slice(&out).unwrap();
                assert!(json["workloads"][0]["cycles"].as_f64().unwrap() > 0.0);
            }
        }
    }
}
