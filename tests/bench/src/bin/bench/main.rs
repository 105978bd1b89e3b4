//! `cargo xtask bench [PART...]`: measures the parts of the forwarding path, in cycles, and what a flow takes in memory.

mod memory;

use std::process::ExitCode;

use bench::cycles::{Measurement, counter_hz};
use bench::softpath::{SetupError, caches, whole_path};
use clap::Parser;

/// Measures the parts of the forwarding path. Cycles are those of the time-stamp counter; figures are the median (and
/// the range) of several repeats.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Args {
    /// What to measure; everything when nothing is named.
    #[arg(value_parser = PARTS.map(|(name, _)| name))]
    parts: Vec<String>,
}

/// Measures one part and prints it.
type Run = fn() -> Result<(), SetupError>;

/// What can be measured.
const PARTS: [(&str, Run); 4] = [
    ("parse", || print(Ok(bench::parse::run()))),
    ("caches", || print(Ok(caches()))),
    ("path", || print(whole_path())),
    ("memory", || memory::bytes_per_megaflow(100_000)),
];

fn print(figures: Result<Vec<Measurement>, SetupError>) -> Result<(), SetupError> {
    figures.map(|f| f.iter().for_each(|m| println!("{m}")))
}

fn main() -> ExitCode {
    let args = Args::parse();
    println!("time-stamp counter: {:.0} MHz", counter_hz() / 1e6);
    for (name, run) in PARTS {
        let wanted = args.parts.is_empty() || args.parts.iter().any(|p| p == name);
        if wanted && let Err(e) = run() {
            eprintln!("bench: {name}: {e}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
