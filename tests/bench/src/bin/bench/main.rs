//! `cargo xtask bench [PART...]`: measures the parts of the forwarding path and holds the figures against the targets.

mod peer;
mod rulesets;
mod sim_peer;
mod softpath;

use std::io::{self, Write};
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
    format!(
        "Parts:\n{}\nsoftpath DIR...  the whole datapath on workload directories; `bench softpath --help` says more\n\
         peer DIR...      the same beside Open vSwitch with DPDK, by turns; `bench peer --help` says more\n\
         rulesets         ways to search large rule sets\n\
         updates          flow-mods at a rate, while packets are looked up and verdicts checked\n\
         churn            rules that come and go under the whole datapath, for as long as told\n",
        lines.collect::<String>()
    )
}

/// The figures of a part, by its name.
type Measured = (&'static str, Vec<Figure>);

/// Measures `parts`, printing each as it is done unless `quiet`. A part that cannot be measured is said on standard error
/// and does not keep the others from it; false when there was one.
fn measure(parts: &[&'static Part], quiet: bool, out: &mut dyn Write) -> io::Result<(Vec<Measured>, bool)> {
    let (mut all, mut whole) = (Vec::new(), true);
    for p in parts {
        match (p.run)() {
            Ok(figures) => {
                if !quiet {
                    writeln!(out, "\n{}: {}", p.name, p.about)?;
                    figures.iter().try_for_each(|f| writeln!(out, "  {f}"))?;
                }
                all.push((p.name, figures));
            }
            Err(e) => {
                eprintln!("bench: {}: {e}", p.name);
                whole = false;
            }
        }
    }
    Ok((all, whole))
}

/// Whether the program succeeds: every part was measured, and no target is missed where that counts.
fn succeeds(whole: bool, check: bool, verdicts: &[Verdict]) -> bool {
    whole && !(check && verdicts.iter().any(|v| !v.met))
}

/// Does what `args` says; whether it succeeded.
fn run(args: &Args, out: &mut dyn Write) -> io::Result<bool> {
    if args.list {
        PARTS.iter().try_for_each(|p| writeln!(out, "{:<10} {}", p.name, p.about))?;
        return Ok(true);
    }
    let wanted = |p: &&Part| args.parts.is_empty() || args.parts.iter().any(|n| n == p.name);
    let parts: Vec<&'static Part> = PARTS.iter().filter(wanted).collect();
    let machine = Machine::here();
    if !args.json {
        write!(out, "{machine}")?;
    }
    let (all, whole) = measure(&parts, args.json, out)?;
    let verdicts: Vec<_> = {
        let figures = || all.iter().flat_map(|(_, f)| f);
        Target::ALL.into_iter().filter_map(|t| t.judge(figures())).collect()
    };
    if args.json {
        let figures = all.iter().flat_map(|(part, f)| f.iter().map(|figure| Told { part, figure })).collect();
        let report = Report { machine: &machine, figures, targets: &verdicts };
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
    } else if !verdicts.is_empty() {
        writeln!(out, "\ntargets")?;
        verdicts.iter().try_for_each(|v| writeln!(out, "  {v}"))?;
    }
    Ok(succeeds(whole, args.check, &verdicts))
}

/// Workload directories and rule sets have command lines of their own.
fn dispatch(out: &mut dyn Write) -> io::Result<bool> {
    let mut words = std::env::args_os();
    let word = words.nth(1).and_then(|w| w.into_string().ok()).unwrap_or_default();
    let name = std::ffi::OsString::from(format!("cargo xtask bench {word}"));
    let words = std::iter::once(name).chain(words);
    if matches!(word.as_str(), "softpath" | "peer" | "churn") {
        // They tell cycles, of which a counting allocator would be a good part where packets make records.
        bench::heap::stop();
    }
    match word.as_str() {
        "softpath" => softpath::main(&softpath::Args::parse_from(words), out),
        "peer" => peer::main(&peer::Args::parse_from(words), out),
        "rulesets" => rulesets::sets(&rulesets::Sets::parse_from(words), out),
        "updates" => rulesets::update(&rulesets::Updates::parse_from(words), out),
        "churn" => rulesets::churn_for(&rulesets::Churn::parse_from(words), out),
        "sim" if std::env::args_os().any(|a| a == "--peer") => {
            sim_peer::main(&sim_peer::Args::parse_from(words), out)
        }
        _ => run(&Args::parse(), out),
    }
}

fn main() -> ExitCode {
    match dispatch(&mut io::stdout()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever reads has read enough.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use bench::figure::Unit;

    use super::*;

    #[test]
    fn a_missed_target_fails_only_where_it_is_checked() {
        let slow = Figure::of("x", Unit::CyclesPerPacket, vec![1000.0]).target(Target::WholePath);
        let missed: Vec<_> = Target::WholePath.judge([&slow]).into_iter().collect();
        assert!(succeeds(true, false, &missed) && !succeeds(true, true, &missed));
        assert!(succeeds(true, true, &[]) && !succeeds(false, false, &[]));
    }

    #[test]
    fn a_part_is_measured_and_told_as_text_and_as_json() {
        let told = |json| {
            let args = Args { parts: vec!["parse".into()], list: false, json, check: true };
            let mut out = Vec::new();
            assert!(run(&args, &mut out).unwrap());
            String::from_utf8(out).unwrap()
        };
        let text = told(false);
        assert!(text.starts_with("machine: ") && text.contains("ipv4 udp, 60 bytes"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&told(true)).unwrap();
        assert_eq!(json["figures"][0]["part"], "parse");
        assert!(json["machine"]["counter_hz"].as_f64().unwrap() > 1e6);
    }
}
