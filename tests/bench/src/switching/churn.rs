//! Rules that come and go under the whole datapath, against a search through all rules.

use std::sync::Arc;
use std::time::Instant;

use flow::PipelineKey;
use openflow::FlowMod;

use super::SwitchingError;
use super::bed::Bed;
use super::directory::Directory;
use super::queues::Source;
use super::stream::{Stream, forwarded};
use crate::rulesets::{Kind, deletion, generate};
use crate::workload::Random;

/// Packets between two changes.
const PACKETS: usize = 96;
/// Rules that stay, whatever is drawn.
const LEAST: usize = 20;

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Kind of rules.
    pub kind: Kind,
    /// How many at first.
    pub rules: usize,
    /// Changes of the tables.
    pub steps: usize,
    /// Without the exact-match cache.
    pub no_emc: bool,
    /// Seed of rules, packets and changes.
    pub seed: u64,
}

/// What was done.
#[derive(Clone, Copy, Default, Debug)]
pub struct Report {
    /// Changes of the tables.
    pub changes: u64,
    /// Packets whose verdict was right.
    pub packets: u64,
    /// Of these, those that took shortcuts.
    pub shortcuts: u64,
}

/// Why it ended early.
#[derive(thiserror::Error, Debug)]
pub enum ChurnError {
    /// The bed was not to be had.
    #[error(transparent)]
    Bed(#[from] SwitchingError),
    /// A verdict was wrong.
    #[error("{what}: {have} packets forwarded, {want} are to be ({options:?})")]
    Wrong {
        /// When.
        what: String,
        /// Packets that came out.
        have: u64,
        /// Packets that were to.
        want: u64,
        /// What to run again.
        options: Options,
    },
}

/// Rules come and go, a few at a time; after each change packets of few flows, which caches know from before, get what the tables
/// say now, all of them. Ends early at `until`.
///
/// # Errors
/// [`ChurnError`].
pub fn run(o: &Options, until: Instant) -> Result<Report, ChurnError> {
    let text: String = generate(o.kind, o.rules, o.seed).iter().map(|r| format!("{r}\n")).collect();
    // What the rules send to several ports all leaves by the bed's one.
    let text = text.replace("output:2", "output:1").replace("output:3", "output:1");
    let flows = openflow::text::parse_file(&text, &|_| None).map_err(SwitchingError::from)?;
    let d = Directory::of_flows(flows);
    // As many packets as are sent between two changes: every round has the same flows.
    let stream = Arc::new(Stream::new(&d.flows, PACKETS, o.seed));
    let keys: Vec<PipelineKey> = (0..PACKETS).map(|i| stream.key(i)).collect();
    let bed_options = super::Options { no_emc: o.no_emc, stream: None, repeats: 1, packets: 1 };
    let mut bed = Bed::new(&d, Source::Stream(stream), &bed_options)?;
    let mut r = Random::new(o.seed);
    let (mut there, mut gone) = (d.flows.clone(), Vec::new());
    let mut report = Report::default();
    for step in 0..o.steps {
        if Instant::now() >= until {
            break;
        }
        let mut mods = Vec::new();
        for _ in 0..=r.below(3) {
            let add = there.len() < LEAST || !gone.is_empty() && r.below(2) == 0;
            if add && !gone.is_empty() {
                let f: FlowMod = gone.swap_remove(r.below(gone.len() as u32) as usize);
                mods.push(f.clone());
                there.push(f);
            } else {
                let f: FlowMod = there.swap_remove(r.below(there.len() as u32) as usize);
                mods.push(deletion(&f));
                gone.push(f);
            }
        }
        bed.change(&mods)?;
        report.changes += 1;
        // Twice: what the first round has remembered must be as right.
        for round in 0..2 {
            let before = bed.sent();
            bed.run(PACKETS as u64, |_| true);
            let (have, want) = (bed.sent() - before, forwarded(&there, keys.iter().copied()));
            if have != want {
                let what = format!("change {step}, round {round}");
                return Err(ChurnError::Wrong { what, have, want, options: *o });
            }
            report.packets += PACKETS as u64;
        }
    }
    report.shortcuts = bed.stats().shortcuts;
    Ok(report)
}
