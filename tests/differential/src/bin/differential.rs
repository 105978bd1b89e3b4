//! `cargo xtask differential`: the differential test for as long as told.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use differential::run::{Options, run};
use differential::tracked;

/// Compares the reference interpreter, the software path, and the software path with a simulated NIC, on random flow tables and
/// frames.
#[derive(Parser)]
#[command(name = "cargo xtask differential")]
struct Args {
    /// Frames to send for each seed.
    #[arg(long, default_value_t = 100_000)]
    packets: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Flows in the tables, about.
    #[arg(long, default_value_t = 60)]
    flows: usize,
    /// With VLAN ports, mirrors and a bridge in between, other ones for every seed.
    #[arg(long)]
    switched: bool,
    /// With connection tracking, by hosts that talk: out of order, in fragments, hostile
    #[arg(long, conflicts_with_all = ["switched", "profile"])]
    tracked: bool,
    /// Profile of the simulated NIC: a name (`hoist sim profiles`) or a file
    #[arg(long, default_value = "default")]
    profile: String,
}

fn run_tracked(a: &Args) -> ExitCode {
    for seed in a.seed..a.seed.saturating_add(a.seeds) {
        let begin = Instant::now();
        // One in four has zones that are full.
        let limited = seed % 4 == 3;
        let flows = a.flows.max(1);
        let o = tracked::Options { seed, packets: a.packets, flows, limited, ..tracked::Options::default() };
        match tracked::run(&o) {
            Ok(r) => println!("seed {seed}: the same in {:.1} s: {r:?}", begin.elapsed().as_secs_f64()),
            Err(e) => {
                eprintln!(
                    "{e:#}\nrepeat with: cargo xtask differential --tracked --seed {seed} --packets {} --flows {}",
                    a.packets, a.flows
                );
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let a = Args::parse();
    if a.tracked {
        return run_tracked(&a);
    }
    // For as long as the program runs.
    let profile: &'static str = a.profile.clone().leak();
    for seed in a.seed..a.seed.saturating_add(a.seeds) {
        let begin = Instant::now();
        let o = Options {
            seed,
            packets: a.packets,
            flows: a.flows.max(1),
            switched: a.switched,
            profile,
            ..Options::default()
        };
        match run(&o) {
            Ok(r) => println!("seed {seed}: the same in {:.1} s: {r:?}", begin.elapsed().as_secs_f64()),
            Err(e) => {
                eprintln!(
                    "{e:#}\nrepeat with: cargo xtask differential --seed {seed} --packets {} --flows {} --profile {profile}{}",
                    a.packets,
                    a.flows,
                    if a.switched { " --switched" } else { "" }
                );
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
