//! `cargo xtask bench [PART...]`: measures the parts of the forwarding path and holds the figures against the targets.

use std::process::ExitCode;

use bench::figure::Figure;
use bench::heap::Counting;
use bench::machine::Machine;
use bench::part::{PARTS, Part};
use bench::target::{Target, Verdict};
use clap::Parser;
use serde::Serialize;

#[global_allocator]
static COUNTING: Counting = Counting;

/// Measures the parts of the forwarding path and holds the figures against the targets.
///
/// Cycles are those of the time-stamp counter, which ticks at a constant rate whatever the core's clock does. A figure is
/// the median of several repeats, with the least and the greatest of them. Figures are of the host's time unless they say
/// "simulated time".
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench", after_help = parts_help())]
struct Args {
    /// What to measure; everything when nothing is named.
    #[arg(value_name = "PART", value_parser = PARTS.each_ref().map(|p| p.name), hide_possible_values = true)]
    parts: Vec<String>,
    /// Lists what can be measured.
    #[arg(long)]
    list: bool,
    /// Prints one JSON document instead of text.
    #[arg(long)]
    json: bool,
    /// Fails when a target of what was measured is missed.
    #[arg(long)]
    check: bool,
}

/// Everything that is told with `--json`.
#[derive(Serialize)]
struct Report<'a> {
    machine: &'a Machine,
    figures: Vec<Told<'a>>,
    targets: &'a [Verdict],
}

#[derive(Serialize)]
struct Told<'a> {
    part: &'static str,
    #[serde(flatten)]
    figure: &'a Figure,
}

fn parts_help() -> String {
    let lines = PARTS.iter().map(|p| format!("  {:<10} {}\n", p.name, p.about));
    format!("Parts:\n{}", lines.collect::<String>())
}

/// The figures of a part, by its name.
type Measured = (&'static str, Vec<Figure>);

/// Measures `parts`, printing each as it is done unless `quiet`. A part that cannot be measured is said on standard error
/// and does not keep the others from it; false when there was one.
fn measure(parts: &[&'static Part], quiet: bool) -> (Vec<Measured>, bool) {
    let (mut all, mut whole) = (Vec::new(), true);
    for p in parts {
        match (p.run)() {
            Ok(figures) => {
                if !quiet {
                    println!("\n{}: {}", p.name, p.about);
                    figures.iter().for_each(|f| println!("  {f}"));
                }
                all.push((p.name, figures));
            }
            Err(e) => {
                eprintln!("bench: {}: {e}", p.name);
                whole = false;
            }
        }
    }
    (all, whole)
}

fn print_verdicts(verdicts: &[Verdict]) {
    if !verdicts.is_empty() {
        println!("\ntargets");
        verdicts.iter().for_each(|v| println!("  {v}"));
    }
}

fn print_json(machine: &Machine, all: &[Measured], targets: &[Verdict]) -> serde_json::Result<()> {
    let figures = all.iter().flat_map(|(part, f)| f.iter().map(|figure| Told { part, figure })).collect();
    println!("{}", serde_json::to_string_pretty(&Report { machine, figures, targets })?);
    Ok(())
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        PARTS.iter().for_each(|p| println!("{:<10} {}", p.name, p.about));
        return ExitCode::SUCCESS;
    }
    let wanted = |p: &&Part| args.parts.is_empty() || args.parts.iter().any(|n| n == p.name);
    let parts: Vec<&'static Part> = PARTS.iter().filter(wanted).collect();
    let machine = Machine::here();
    if !args.json {
        print!("{machine}");
    }
    let (all, whole) = measure(&parts, args.json);
    let figures = || all.iter().flat_map(|(_, f)| f);
    let verdicts: Vec<_> = Target::ALL.into_iter().filter_map(|t| t.judge(figures())).collect();
    if args.json {
        if let Err(e) = print_json(&machine, &all, &verdicts) {
            eprintln!("bench: {e}");
            return ExitCode::FAILURE;
        }
    } else {
        print_verdicts(&verdicts);
    }
    if args.check && verdicts.iter().any(|v| !v.met) {
        eprintln!("bench: a target is missed");
        return ExitCode::FAILURE;
    }
    if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
