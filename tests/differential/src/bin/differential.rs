//! `cargo xtask differential`: the differential test for as long as told.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use differential::run::{Options, run};
use differential::{tracked, tunnelled};

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
    /// With tunnels, in and out
    #[arg(long, conflicts_with_all = ["switched", "profile", "tracked"])]
    tunnelled: bool,
    /// Profile of the simulated NIC: a name (`hoist sim profiles`) or a file
    #[arg(long, default_value = "default")]
    profile: String,
}

/// Runs seed after seed until one differs.
fn each_seed<R: std::fmt::Debug>(a: &Args, how: &str, run: impl Fn(u64) -> anyhow::Result<R>) -> ExitCode {
    for seed in a.seed..a.seed.saturating_add(a.seeds) {
        let begin = Instant::now();
        match run(seed) {
            Ok(r) => println!("seed {seed}: the same in {:.1} s: {r:?}", begin.elapsed().as_secs_f64()),
            Err(e) => {
                eprintln!(
                    "{e:#}\nrepeat with: cargo xtask differential --seed {seed} --packets {} --flows {}{how}",
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
    let (packets, flows) = (a.packets, a.flows.max(1));
    if a.tracked {
        return each_seed(&a, " --tracked", |seed| {
            // One in four has zones that are full.
            let limited = seed % 4 == 3;
            // Of the others half check windows, and keep TCP in software.
            let windows = seed % 2 == 1;
            let o =
                tracked::Options { seed, packets, flows, limited, windows, ..tracked::Options::default() };
            tracked::run(&o)
        });
    }
    if a.tunnelled {
        return each_seed(&a, " --tunnelled", |seed| {
            tunnelled::run(&tunnelled::Options { seed, packets, flows, ..tunnelled::Options::default() })
        });
    }
    // For as long as the program runs.
    let profile: &'static str = a.profile.clone().leak();
    let how = format!(" --profile {profile}{}", if a.switched { " --switched" } else { "" });
    each_seed(&a, &how, |seed| {
        run(&Options { seed, packets, flows, switched: a.switched, profile, ..Options::default() })
    })
}
