//! Rules that change while packets are looked up: how many a second, and whether every verdict is one of the tables before or after
//! a change.
//!
//! One thread applies flow-mods to a bridge, some in each change of the tables, at a given rate. Another looks bursts of packets
//! up as a forwarding core does that no cache helps. Around each burst it notes which changes were begun and which were done. Afterwards
//! a search through all rules that there ever were says what each packet's verdict was under each state of the tables;
//! one state in the noted range must explain all verdicts of the burst at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant as HostInstant};

use clock::Instant;
use flow::PipelineKey;
use ofproto::Bridge;
use openflow::FlowMod;
use serde::Serialize;

use super::deletion;
use super::generate::{Kind, Rule, Tuple, generate, verdict};
use crate::cycles::{now, processor_time};
use crate::openflow::{load, switch};
use crate::part::BenchError;
use crate::workload::Random;

/// Packets of a burst.
const BURST: usize = 32;
/// One burst in so many is kept to be checked.
const KEEP_EVERY: u64 = 16;
/// Bursts that are checked at most, spread over the run by keeping ever fewer.
const KEEP_MOST: usize = 128;
/// Rules that are not in the table at first, as a part of all.
const SPARE: usize = 50;
/// Flow-mods in one change while the rules are loaded.
const LOADED_TOGETHER: usize = 1000;

/// How it is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Kind of rules.
    pub kind: Kind,
    /// Rules in the table.
    pub rules: usize,
    /// Flow-mods a second that are asked for.
    pub rate: u64,
    /// Flow-mods in one change of the tables.
    pub batch: usize,
    /// How long.
    pub time: Duration,
    /// Seed of rules, packets and changes.
    pub seed: u64,
    /// Memory is not counted any more once rules are loaded, for changes are timed.
    pub uncounted: bool,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Kind of rules.
    pub kind: Kind,
    /// Rules in the table.
    pub rules: usize,
    /// Distinct masks of theirs.
    pub masks: usize,
    /// Flow-mods in one change of the tables.
    pub batch: usize,
    /// Flow-mods a second to load the rules.
    pub loaded_per_second: f64,
    /// Heap bytes of a rule; zero unless the program counts.
    pub bytes_per_rule: f64,
    /// Flow-mods that were applied.
    pub updates: u64,
    /// Of these, a second of elapsed time.
    pub updates_per_second: f64,
    /// Of these, a second of the processor's time: what the thread would do on a processor of its own.
    pub updates_per_processor_second: f64,
    /// Packets looked up meanwhile.
    pub lookups: u64,
    /// Cycles of a lookup: median burst.
    pub cycles_per_lookup: f64,
    /// Packets whose verdict was held against the search through all rules.
    pub checked: u64,
    /// Bursts of them during which the tables changed.
    pub across_changes: u64,
    /// Packets of bursts that no state of the tables explains.
    pub wrong: u64,
}

/// A rule's life in the table: from the change that brought it to the one that took it away.
#[derive(Clone, Copy)]
struct Life {
    rule: Rule,
    from: u64,
    to: u64,
}

/// A burst that was kept.
struct Kept {
    /// The last change that was done when it began, and the last that was begun when it ended.
    states: (u64, u64),
    packets: Vec<Tuple>,
    verdicts: Vec<u8>,
}

/// What both threads know of the changes.
#[derive(Default)]
struct Progress {
    begun: AtomicU64,
    done: AtomicU64,
    stop: AtomicBool,
}

struct Changes {
    lives: Vec<Life>,
    updates: u64,
    elapsed: Duration,
    processor: Duration,
}

/// Applies changes until told to stop.
fn change(
    bridge: &Bridge,
    rules: &[Rule],
    mods: &[FlowMod],
    o: &Options,
    p: &Progress,
) -> Result<Changes, BenchError> {
    let mut r = Random::new(o.seed ^ 0x00c0_ffee);
    let mut lives: Vec<Life> =
        rules.iter().take(o.rules).map(|r| Life { rule: *r, from: 0, to: u64::MAX }).collect();
    // Which life each rule that is in the table has; which rules are not in it.
    let mut there: Vec<(usize, usize)> = (0..o.rules).map(|i| (i, i)).collect();
    let mut gone: Vec<usize> = (o.rules..rules.len()).collect();
    let (started, mine) = (HostInstant::now(), processor_time());
    let (mut updates, mut state) = (0u64, 0u64);
    let mut some = Vec::with_capacity(o.batch);
    while !p.stop.load(Ordering::Relaxed) {
        let due = started.elapsed().as_secs_f64() * o.rate as f64;
        if updates as f64 > due {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        }
        some.clear();
        state += 1;
        let mut coming = Vec::new();
        for _ in 0..o.batch {
            // As many as were there at first, a few more or less.
            let room = there.len() < o.rules + SPARE;
            let add = there.len() < o.rules || room && r.below(2) == 0;
            if add && !gone.is_empty() {
                let i = gone.swap_remove(r.below(gone.len() as u32) as usize);
                some.push(mods[i].clone());
                coming.push((i, lives.len()));
                lives.push(Life { rule: rules[i], from: state, to: u64::MAX });
            } else {
                let (i, life) = there.swap_remove(r.below(there.len() as u32) as usize);
                some.push(deletion(&mods[i]));
                lives[life].to = state;
                // Not to come again within the same change.
                coming.push((i, usize::MAX));
            }
        }
        for (i, life) in coming {
            if life == usize::MAX { gone.push(i) } else { there.push((i, life)) }
        }
        p.begun.store(state, Ordering::SeqCst);
        bridge
            .apply(&some, Instant::ZERO)
            .map_err(|(at, e)| BenchError::FlowMod { at, why: format!("{e:?}") })?;
        p.done.store(state, Ordering::SeqCst);
        updates += some.len() as u64;
    }
    Ok(Changes {
        lives,
        updates,
        elapsed: started.elapsed(),
        processor: processor_time().saturating_sub(mine),
    })
}

struct Lookups {
    kept: Vec<Kept>,
    packets: u64,
    cycles: f64,
}

/// Looks packets up until told to stop.
fn look_up(bridge: &Bridge, packets: &[Tuple], p: &Progress) -> Lookups {
    let keys: Vec<PipelineKey> = packets.iter().map(Tuple::key).collect();
    let (mut kept, mut keep_every, mut bursts, mut at) = (Vec::new(), KEEP_EVERY, 0u64, 0);
    let mut cycles = Vec::new();
    while !p.stop.load(Ordering::Relaxed) {
        let burst = at..at + BURST;
        at = (at + BURST) % (keys.len() - BURST);
        let done = p.done.load(Ordering::SeqCst);
        let mut found = [None; BURST];
        let start = now();
        {
            let pipeline = bridge.pipeline();
            if let Some(table) = pipeline.table(0) {
                for (to, k) in found.iter_mut().zip(&keys[burst.clone()]) {
                    *to = table.rules.find(k).map(|f| f.priority);
                }
            }
        }
        if bursts.is_multiple_of(8) && cycles.len() < 1 << 20 {
            cycles.push(now().wrapping_sub(start));
        }
        let begun = p.begun.load(Ordering::SeqCst);
        bursts += 1;
        if bursts.is_multiple_of(keep_every) {
            if kept.len() >= KEEP_MOST {
                // Every other one goes; those that come are kept half as often.
                let mut i = 0;
                kept.retain(|_: &Kept| {
                    i += 1;
                    i % 2 == 0
                });
                keep_every *= 2;
            }
            let verdicts = found.iter().map(|f| f.map_or(0, |p| verdict(p as u16))).collect();
            kept.push(Kept { states: (done, begun), packets: packets[burst].to_vec(), verdicts });
        }
    }
    cycles.sort_unstable();
    let median = cycles.get(cycles.len() / 2).map_or(0.0, |c| *c as f64 / BURST as f64);
    Lookups { kept, packets: bursts * BURST as u64, cycles: median }
}

/// Whether one state of the tables explains a burst.
fn explained(k: &Kept, lives: &[Life]) -> bool {
    // For each packet the rules that match it and were there at some time in question.
    let matching: Vec<Vec<&Life>> = k
        .packets
        .iter()
        .map(|t| {
            let relevant = |l: &&Life| l.from <= k.states.1 && l.to > k.states.0 && l.rule.matches(t);
            lives.iter().filter(relevant).collect()
        })
        .collect();
    (k.states.0..=k.states.1).any(|state| {
        matching.iter().zip(&k.verdicts).all(|(lives, have)| {
            let there = lives.iter().filter(|l| l.from <= state && l.to > state);
            there.map(|l| l.rule.priority).max().map_or(0, verdict) == *have
        })
    })
}

/// Runs it.
///
/// # Errors
/// When the bridge does not take a rule.
pub fn run(o: &Options) -> Result<Report, BenchError> {
    let rules = generate(o.kind, o.rules + o.rules / SPARE + 2 * o.batch, o.seed);
    let mut text = String::with_capacity(rules.len() * 90);
    rules.iter().for_each(|r| text += &format!("{r}\n"));
    let mods = openflow::text::parse_file(&text, &|_| None)?;
    drop(text);
    let (_switch, bridge) = switch();
    let (held, started) = (crate::heap::Held::now(), HostInstant::now());
    load(&bridge, &mods[..o.rules], LOADED_TOGETHER)?;
    let loaded_per_second = o.rules as f64 / started.elapsed().as_secs_f64();
    let bytes_per_rule = crate::heap::Held::now().since(held, o.rules as u32).0;
    if o.uncounted {
        crate::heap::stop();
    }
    let masks = bridge.pipeline().table(0).map_or(0, |t| t.rules.masks());
    let mut r = Random::new(o.seed ^ 0xbeef);
    let packets: Vec<Tuple> = (0..1 << 16).map(|_| r.choice(&rules).packet(&mut r)).collect();
    let p = Progress::default();
    let (changes, lookups) = std::thread::scope(|s| {
        let bridge: &Arc<Bridge> = &bridge;
        let (p, rules, mods, packets) = (&p, &rules, &mods, &packets);
        let changer = s.spawn(move || change(bridge, rules, mods, o, p));
        let looker = s.spawn(move || look_up(bridge, packets, p));
        let until = HostInstant::now() + o.time;
        while HostInstant::now() < until && !changer.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
        }
        p.stop.store(true, Ordering::Relaxed);
        (changer.join(), looker.join())
    });
    let changes = changes.map_err(|_| BenchError::NoHit)??;
    let lookups = lookups.map_err(|_| BenchError::NoHit)?;
    let wrong = lookups.kept.iter().filter(|k| !explained(k, &changes.lives)).count() * BURST;
    let n = changes.updates as f64;
    Ok(Report {
        kind: o.kind,
        rules: o.rules,
        masks,
        batch: o.batch,
        loaded_per_second,
        bytes_per_rule,
        updates: changes.updates,
        updates_per_second: n / changes.elapsed.as_secs_f64(),
        updates_per_processor_second: n / changes.processor.as_secs_f64().max(1e-9),
        lookups: lookups.packets,
        cycles_per_lookup: lookups.cycles,
        checked: (lookups.kept.len() * BURST) as u64,
        across_changes: lookups.kept.iter().filter(|k| k.states.0 != k.states.1).count() as u64,
        wrong: wrong as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verdict_is_of_the_tables_before_or_after_a_change() {
        let o = Options {
            kind: Kind::Fw,
            rules: 600,
            rate: 1_000_000,
            batch: 7,
            time: Duration::from_millis(500),
            seed: 9,
            uncounted: false,
        };
        let report = run(&o).unwrap();
        println!("{report:?}");
        assert_eq!(report.wrong, 0, "{report:?}");
        assert!(report.updates > 100 && report.checked >= 32, "{report:?}");
    }

    #[test]
    fn a_verdict_of_no_state_is_seen() {
        let rules = generate(Kind::Acl, 50, 3);
        let mut r = Random::new(1);
        let lives: Vec<_> = rules.iter().map(|r| Life { rule: *r, from: 0, to: u64::MAX }).collect();
        let packets: Vec<_> = (0..BURST).map(|_| r.choice(&rules).packet(&mut r)).collect();
        let best = |t: &Tuple| rules.iter().find(|r| r.matches(t)).map_or(0, Rule::verdict);
        let verdicts: Vec<u8> = packets.iter().map(best).collect();
        let mut k = Kept { states: (3, 5), packets, verdicts };
        assert!(explained(&k, &lives));
        k.verdicts[7] ^= 1;
        assert!(!explained(&k, &lives));
    }
}
