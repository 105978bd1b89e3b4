//! `cargo xtask validate`: simulates what was measured and says how far it is off.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use pcie::Systems;
use pcie::experiment::{Bench, Effort};
use pcie::fit::{fit, is_in_half};
use pcie::targets::{known_of_itself, targets, targets_text};
use pcie::validate::{Answer, Row, parse, report, report_of, simulate, to_csv};

#[derive(Parser)]
#[command(name = "cargo xtask validate", bin_name = "cargo xtask validate")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Simulates every row of a file of pcie-bench measurements, and prints the error by experiment and system.
    Pcie(Pcie),
}

#[derive(clap::Args)]
struct Pcie {
    /// The measurements: comma-separated, with the columns system, bench, size_bytes, window_bytes, cache, numa, iommu, pattern, host_off,
    /// dev_off, and median_ns or gbps.
    truth: PathBuf,
    /// Where the simulated rows go: the key columns, and ours in median_ns, p99_ns and others, or gbps.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Descriptions of machines in place of the built-in ones (sim/pcie/data/systems.toml).
    #[arg(long)]
    systems: Option<PathBuf>,
    /// Takes each machine as if nothing had been fitted to its microarchitecture: the constants of the others, averaged.
    #[arg(long)]
    unseen: bool,
    /// Prints both, apart: each machine as fitted, and held out, as `--unseen` takes it. What is written to --out is as fitted.
    #[arg(long, conflicts_with = "unseen")]
    held_out: bool,
    /// Fits the times anew, to half of the sizes, and answers the rows of the other half with them, and the other way round; machines seen and
    /// held out. Rows without IOMMU, of one socket and a window of 8 KiB alone. Takes minutes.
    #[arg(long, conflicts_with_all = ["unseen", "held_out"])]
    half_sizes: bool,
    /// Samples of each latency experiment.
    #[arg(long, default_value_t = Effort::default().samples)]
    samples: u32,
    /// Transfers of each bandwidth experiment.
    #[arg(long, default_value_t = Effort::default().transfers)]
    transfers: u32,
    /// Threads of this host.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    let What::Pcie(p) = Args::parse().what;
    match run(&p) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("validate: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(p: &Pcie) -> Result<()> {
    let start = Instant::now();
    let text = std::fs::read_to_string(&p.truth).with_context(|| p.truth.display().to_string())?;
    let rows = parse(&text).with_context(|| p.truth.display().to_string())?;
    let (described, from) = match &p.systems {
        Some(path) => {
            let from = path.display().to_string();
            (std::fs::read_to_string(path).with_context(|| from.clone())?, from)
        }
        None => (Systems::PUBLISHED.to_string(), "built in".to_string()),
    };
    let systems = Systems::from_toml(&described).with_context(|| from.clone())?;
    let mut guessed: Vec<&str> = rows.iter().map(|r| r.system.as_str()).collect();
    guessed.sort_unstable();
    guessed.dedup();
    for name in guessed {
        if systems.get(name).is_ok_and(|s| s.is_guess) {
            eprintln!("validate: system {name} is not described; taken as usual for its microarchitecture");
        }
    }
    let describe = |name: &str| if p.unseen { systems.get_unseen(name) } else { systems.get(name) };
    let effort = Effort { samples: p.samples, transfers: p.transfers };
    let threads = p.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let threads = threads.unwrap_or(1);
    if p.half_sizes {
        return half_sizes(p, &rows, &described, effort, threads);
    }
    let answers =
        simulate(&rows, describe, effort, threads).with_context(|| p.truth.display().to_string())?;
    let is_fitted =
        |r: &Row| systems.is_fitted(&r.system, r.experiment.size_bytes, r.experiment.window_bytes);
    let print = |answers: &[Answer], seen: bool| {
        print!("{}", report(&rows, answers));
        match rows.iter().filter(|r| !is_fitted(r)).count() {
            0 => println!("no row of a machine, size or window that nothing was fitted to"),
            n => println!(
                "of these {n} rows of machines, sizes and windows that nothing was fitted to\n{}",
                report_of(&rows, answers, |r| !is_fitted(r))
            ),
        }
        println!("{}", targets_text(&targets(&rows, answers, seen)));
    };
    if p.held_out {
        let others = simulate(&rows, |name| systems.get_unseen(name), effort, threads)
            .with_context(|| p.truth.display().to_string())?;
        println!("held out: each machine by the constants of the other microarchitectures");
        print(&others, false);
        print!("{}", known_of_itself(&targets(&rows, &others, false), &targets(&rows, &answers, true)));
        println!("as fitted");
    }
    print(&answers, !p.unseen);
    if let Some(out) = &p.out {
        std::fs::write(out, to_csv(&rows, &answers)).with_context(|| out.display().to_string())?;
    }
    println!("{} rows in {:.1} s", rows.len(), start.elapsed().as_secs_f64());
    Ok(())
}

/// Each row answered by times that were fitted without its size.
fn half_sizes(p: &Pcie, rows: &[Row], described: &str, effort: Effort, threads: usize) -> Result<()> {
    let start = Instant::now();
    let plain = |r: &&Row| {
        let x = &r.experiment;
        let one_socket = x.sockets[0] == x.sockets[1] && x.sockets[1] == x.sockets[2];
        let command = matches!(x.bench, Bench::LatCmdRd | Bench::LatCmdWrRd);
        x.page_bytes.is_none() && x.window_bytes == 8192 && one_socket && !command
    };
    let rows: Vec<Row> = rows.iter().filter(plain).cloned().collect();
    let mut sizes: Vec<u32> = rows.iter().map(|r| r.experiment.size_bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let (mut held, mut seen, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
    for half in [0, 1] {
        let (fitting, other): (Vec<Row>, Vec<Row>) =
            rows.iter().cloned().partition(|r| is_in_half(&sizes, r.experiment.size_bytes, half));
        let brief = Effort { samples: 150, transfers: 900 };
        let systems = fit(described, &fitting, brief, threads)?;
        println!(
            "fitted to {} rows of half of {} sizes in {:.0} s",
            fitting.len(),
            sizes.len(),
            start.elapsed().as_secs_f64()
        );
        seen.extend(simulate(&other, |n| systems.get(n), effort, threads)?);
        unseen.extend(simulate(&other, |n| systems.get_unseen(n), effort, threads)?);
        held.extend(other);
    }
    for (name, answers, is_seen) in [("seen", &seen, true), ("held out", &unseen, false)] {
        println!("sizes that the times were not fitted to, machines {name}\n{}", report(&held, answers));
        println!("{}", targets_text(&targets(&held, answers, is_seen)));
    }
    if let Some(out) = &p.out {
        std::fs::write(out, to_csv(&held, &seen)).with_context(|| out.display().to_string())?;
    }
    Ok(())
}
