//! `cargo xtask workload NAME DIR [--seed N]`: writes benchmark inputs.

use std::path::PathBuf;
use std::process::ExitCode;

use bench::workload::{DEFAULT_SEED, generate, list};
use clap::{CommandFactory, FromArgMatches, Parser};

/// Writes benchmark inputs into DIR/NAME: in.pcap, rules.flows, meta and what else the workload needs.
#[derive(Parser)]
#[command(name = "cargo xtask workload", bin_name = "cargo xtask workload")]
struct Args {
    /// A workload, several with commas between, or `all`.
    name: String,
    /// The folder that holds a folder for each workload.
    dir: PathBuf,
    /// Seed of all random choices; the same seed gives the same bytes.
    #[arg(long, default_value_t = DEFAULT_SEED)]
    seed: u64,
}

/// The workloads with a line on each, to go below the help.
fn about() -> String {
    let lines: String = list().map(|(name, about)| format!("  {name:<12} {about}\n")).collect();
    format!("Workloads:\n{lines}")
}

fn main() -> ExitCode {
    let matches = Args::command().after_help(about()).get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let names: Vec<&str> = match args.name.as_str() {
        "all" => list().map(|(name, _)| name).collect(),
        some => some.split(',').collect(),
    };
    for name in names {
        if let Err(e) = generate(name, &args.dir, args.seed) {
            eprintln!("workload: {e}");
            return ExitCode::FAILURE;
        }
        println!("{}", args.dir.join(name).display());
    }
    ExitCode::SUCCESS
}
