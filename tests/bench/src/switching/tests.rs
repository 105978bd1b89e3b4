//! Verdicts while rules change under the packets, against a search through all rules.

use std::sync::Arc;

use flow::PipelineKey;
use openflow::FlowMod;
use openflow::flow_mod::FlowModCommand;

use super::Options;
use super::bed::Bed;
use super::directory::Directory;
use super::queues::Source;
use super::stream::{Stream, forwarded};
use crate::workload::Random;

/// Packets between two changes.
const PACKETS: usize = 96;

fn deletion(f: &FlowMod) -> FlowMod {
    FlowMod {
        command: FlowModCommand::DeleteStrict,
        priority: f.priority,
        matches: f.matches,
        table: f.table,
        ..FlowMod::new(FlowModCommand::DeleteStrict)
    }
}

/// Rules come and go, a few at a time; after each change packets of few flows, which caches know from before, get what the
/// tables say now, all of them.
fn churn(no_emc: bool, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    crate::workload::generate("acl100", dir.path(), seed).unwrap();
    let d = Directory::read(&dir.path().join("acl100")).unwrap();
    // As many packets as are sent between two changes: every round has the same flows.
    let stream = Arc::new(Stream::new(&d.flows, PACKETS, seed));
    let keys: Vec<PipelineKey> = (0..PACKETS).map(|i| stream.key(i)).collect();
    let o = Options { no_emc, stream: None, repeats: 1, packets: 1 };
    let mut bed = Bed::new(&d, Source::Stream(stream), &o).unwrap();
    let mut r = Random::new(seed);
    let (mut there, mut gone) = (d.flows.clone(), Vec::new());
    for step in 0..400 {
        let mut mods = Vec::new();
        for _ in 0..=r.below(3) {
            let add = there.len() < 20 || !gone.is_empty() && r.below(2) == 0;
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
        bed.change(&mods);
        // Twice: what the first round has remembered must be as right.
        for round in 0..2 {
            let before = bed.sent();
            bed.run(PACKETS as u64, |_| true);
            let want = forwarded(&there, keys.iter().copied());
            assert_eq!(bed.sent() - before, want, "seed {seed} step {step} round {round}");
        }
    }
    let s = bed.stats();
    assert!(s.shortcuts > 0, "no packet took a shortcut: {s:?}");
    assert_eq!(s.rx_packets, 800 * PACKETS as u64);
}

#[test]
fn verdicts_follow_rules_that_come_and_go_with_and_without_the_cache() {
    churn(false, 3);
    churn(true, 4);
}
