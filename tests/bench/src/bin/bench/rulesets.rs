//! `cargo xtask bench rulesets`, `bench updates` and `bench churn`: large rule sets, and rules that change under packets.

use std::io::{self, Write};
use std::time::Duration;

use bench::figure::number;
use bench::machine::Machine;
use bench::rulesets::{Kind, SIZES, measure, table, updates};
use bench::switching::churn;
use clap::Parser;

/// Measures ways to search rule sets in the manner of ClassBench: cycles of a lookup, changes a second, memory.
///
/// Packets are of random rules, each of a flow of its own; there is no cache in front. "changes/s" publishes each change.
#[derive(Parser)]
#[command(name = "cargo xtask bench rulesets", bin_name = "cargo xtask bench rulesets")]
pub struct Sets {
    /// Kinds of sets [default: all].
    #[arg(long, value_delimiter = ',')]
    kinds: Vec<Kind>,
    /// Numbers of rules [default: 100 to 500000].
    #[arg(long, value_delimiter = ',')]
    sizes: Vec<usize>,
    /// Seed of the rules.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Prints one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// Changes rules while packets are looked up, and holds the verdicts against a search through all rules.
#[derive(Parser)]
#[command(name = "cargo xtask bench updates", bin_name = "cargo xtask bench updates")]
pub struct Updates {
    /// Kind of rules.
    #[arg(long, default_value = "acl")]
    kind: Kind,
    /// Rules in the table.
    #[arg(long, default_value_t = 500_000)]
    rules: usize,
    /// Flow-mods a second that are asked for.
    #[arg(long, default_value_t = 60_000)]
    rate: u64,
    /// Flow-mods in one change of the tables.
    #[arg(long, default_value_t = 20)]
    batch: usize,
    /// Seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seed of rules, packets and changes.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Fails when fewer flow-mods a second of the processor's time were applied than asked for.
    #[arg(long)]
    check: bool,
    /// Prints one JSON document instead of text.
    #[arg(long)]
    json: bool,
}

/// Changes rules in random order under the whole datapath, caches and all; after each change every packet's verdict must be
/// that of a search through all rules.
#[derive(Parser)]
#[command(name = "cargo xtask bench churn", bin_name = "cargo xtask bench churn")]
pub struct Churn {
    /// Seconds, at most an hour.
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Rules of each round.
    #[arg(long, default_value_t = 300)]
    rules: usize,
    /// Seed of the first round; the others count up from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn seconds(s: f64) -> Duration {
    Duration::from_secs_f64(s.clamp(0.1, 3600.0))
}

/// Does what `a` says; whether every candidate was right.
pub fn sets(a: &Sets, out: &mut dyn Write) -> io::Result<bool> {
    let kinds = if a.kinds.is_empty() { Kind::ALL.to_vec() } else { a.kinds.clone() };
    let sizes = if a.sizes.is_empty() { SIZES.to_vec() } else { a.sizes.clone() };
    if !a.json {
        write!(out, "{}", Machine::here())?;
    }
    let mut all = Vec::new();
    for kind in kinds {
        for n in &sizes {
            let rows = measure(kind, (*n).clamp(1, 2_000_000), a.seed);
            if !a.json {
                write!(out, "{}", table(&rows, all.is_empty()))?;
                out.flush()?;
            }
            all.extend(rows);
        }
    }
    if a.json {
        let all = serde_json::json!({ "machine": Machine::here(), "rows": all });
        writeln!(out, "{all:#}")?;
    }
    Ok(all.iter().all(|r| r.wrong == 0))
}

/// Does what `a` says; whether every verdict was right.
pub fn update(a: &Updates, out: &mut dyn Write) -> io::Result<bool> {
    let o = updates::Options {
        kind: a.kind,
        rules: a.rules.clamp(10, 5_000_000),
        rate: a.rate,
        batch: a.batch.clamp(1, 1000),
        time: seconds(a.seconds),
        seed: a.seed,
        uncounted: true,
    };
    let r = updates::run(&o).map_err(io::Error::other)?;
    if a.json {
        writeln!(out, "{:#}", serde_json::json!({ "machine": Machine::here(), "updates": r }))?;
    } else {
        write!(out, "{}", Machine::here())?;
        writeln!(
            out,
            "{} rules ({}, {} masks, {} bytes each) loaded at {} a second",
            number(r.rules as f64),
            r.kind.name(),
            r.masks,
            number(r.bytes_per_rule.round()),
            number(r.loaded_per_second.round())
        )?;
        writeln!(
            out,
            "{} flow-mods, {} in each change: {} a second elapsed, {} a second of processor time",
            number(r.updates as f64),
            r.batch,
            number(r.updates_per_second.round()),
            number(r.updates_per_processor_second.round())
        )?;
        writeln!(
            out,
            "{} lookups meanwhile, {} cycles each; {} verdicts held against the search through all rules, {} bursts across \
             changes, {} wrong",
            number(r.lookups as f64),
            number(r.cycles_per_lookup),
            r.checked,
            r.across_changes,
            r.wrong
        )?;
    }
    Ok(r.wrong == 0 && !(a.check && r.updates_per_processor_second < a.rate as f64))
}

/// Does what `a` says; whether every verdict was right.
pub fn churn_for(a: &Churn, out: &mut dyn Write) -> io::Result<bool> {
    let until = std::time::Instant::now() + seconds(a.seconds);
    let (mut seed, mut packets, mut changes) = (a.seed, 0u64, 0u64);
    while std::time::Instant::now() < until {
        // Kinds, and the exact-match cache on and off, by turns.
        let kind = Kind::ALL[seed as usize % Kind::ALL.len()];
        let o = churn::Options {
            kind,
            rules: a.rules.clamp(40, 20_000),
            steps: 200,
            no_emc: seed.is_multiple_of(2),
            seed,
        };
        match churn::run(&o, until) {
            Ok(r) => {
                packets += r.packets;
                changes += r.changes;
            }
            Err(e) => {
                writeln!(out, "WRONG: {e}")?;
                return Ok(false);
            }
        }
        seed += 1;
    }
    writeln!(
        out,
        "{} rounds, {} changes, {} packets, each as the search through all rules has it",
        seed - a.seed,
        number(changes as f64),
        number(packets as f64)
    )?;
    Ok(true)
}
