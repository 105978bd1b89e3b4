//! Tables so large that versions share what helps a search to look at fewer bits.

use std::sync::Arc;

use classifier::{MiniMatch, Version};
use flow::{FieldId, PipelineKey, PipelineMask, PipelineMatch};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const RULES: usize = 20_000;

type Rule = (PipelineMatch, u32);

/// Of one of some masks, so that many keys meet a rule.
fn rule(rng: &mut SmallRng, priority: u32) -> Rule {
    let mut m = PipelineMatch::ANY;
    m.set(FieldId::EthType, 0x800);
    let len = [32, 28, 24][rng.random_range(0..3)];
    let mask = u128::from(u32::MAX << (32 - len));
    m.set_masked(FieldId::NwDst, u128::from(rng.random::<u32>() & 0x0303_ffff), mask);
    if rng.random_bool(0.5) {
        m.set_masked(FieldId::NwSrc, u128::from(rng.random::<u32>() & 0x0f00_0000), 0xff00_0000);
    }
    if rng.random_bool(0.5) {
        m.set(FieldId::NwProto, 6);
        m.set_masked(FieldId::TpDst, rng.random_range(0..64), 0xfffe);
    }
    (m, priority)
}

fn key(rng: &mut SmallRng) -> PipelineKey {
    let mut k = *rule(rng, 0).0.key();
    k.set(FieldId::NwProto, 6);
    k.set(FieldId::TpDst, rng.random_range(0..64));
    k.set(FieldId::NwSrc, u128::from(rng.random::<u32>() & 0x0f00_00ff));
    k
}

fn best(rules: &[Rule], k: &PipelineKey) -> Option<u32> {
    rules.iter().filter(|r| r.0.matches(k)).map(|r| r.1).max()
}

/// Holds a version against its rules: verdicts, and the promise about the bits that were looked at.
fn holds(v: &Version<u32>, rules: &[Rule], rng: &mut SmallRng, what: &str) {
    assert_eq!(v.len(), rules.len(), "{what}");
    for _ in 0..40 {
        let (k, mut looked) = (key(rng), PipelineMask::ZERO);
        let want = best(rules, &k);
        assert_eq!(v.lookup(&k, &mut looked).map(|f| f.priority), want, "{what}: {k:?}");
        assert_eq!(v.find(&k).map(|f| f.priority), want, "{what}: the fast way, {k:?}");
        for _ in 0..3 {
            let mut other = key(rng);
            for i in 0..flow::PIPELINE_WORDS {
                other.set_word(i, k.word(i) & looked.word(i) | other.word(i) & !looked.word(i));
            }
            assert_eq!(best(rules, &other), want, "{what}: {k:?} {other:?} looked at {looked:?}");
        }
    }
}

/// Bits that lookups of some keys look at, in all.
fn looked_at(v: &Version<u32>, seed: u64) -> u32 {
    let mut rng = SmallRng::seed_from_u64(seed);
    let bits = |k: PipelineKey| {
        let mut looked = PipelineMask::ZERO;
        v.lookup(&k, &mut looked);
        looked.count_ones()
    };
    (0..200).map(|_| bits(key(&mut rng))).sum()
}

fn add(v: &mut Version<u32>, r: &Rule) {
    let m = v.compact(&r.0);
    v.insert(&m, r.1, Arc::new(r.1));
}

#[test]
fn versions_that_share_their_aids_are_right_whatever_changes() {
    let seed = 17;
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut v = Version::<u32>::new();
    let mut rules: Vec<Rule> = (0..RULES as u32).map(|p| rule(&mut rng, p)).collect();
    rules.iter().for_each(|r| add(&mut v, r));
    holds(&v, &rules, &mut rng, "loaded");
    let mut kept = vec![(v.clone(), rules.clone())];
    for round in 0..3 {
        // More go than may be left behind: what is shared is made anew on the way.
        for i in 0..RULES / 2 {
            let (m, p) = rules.swap_remove(rng.random_range(0..rules.len()));
            assert_eq!(v.remove(&MiniMatch::new(&m), p).as_deref(), Some(&p));
            let r = rule(&mut rng, (RULES * (round + 1) + i) as u32);
            add(&mut v, &r);
            rules.push(r);
        }
        holds(&v, &rules, &mut rng, "changed");
        // A change that is given up leaves no more than bits that are looked at in vain.
        let mut given_up = v.clone();
        (0..500).for_each(|i| add(&mut given_up, &rule(&mut rng, u32::MAX - i)));
        kept.push((v.clone(), rules.clone()));
    }
    for (v, rules) in &kept {
        holds(v, rules, &mut rng, "a version that was kept");
    }
}

#[test]
fn a_table_that_has_become_small_looks_at_no_more_bits_than_one_that_always_was() {
    let mut rng = SmallRng::seed_from_u64(23);
    let rules: Vec<Rule> = (0..RULES as u32).map(|p| rule(&mut rng, p)).collect();
    let (mut exact, mut v) = (Version::<u32>::new(), Version::<u32>::new());
    exact.set_exact(true);
    rules.iter().for_each(|r| add(&mut v, r));
    rules.iter().for_each(|r| add(&mut exact, r));
    // As long as nothing has gone, there is no difference.
    assert_eq!(looked_at(&v, 1), looked_at(&exact, 1));
    let (stay, go) = rules.split_at(300);
    for (m, p) in go {
        v.remove(&MiniMatch::new(m), *p);
        exact.remove(&MiniMatch::new(m), *p);
    }
    assert_eq!((v.len(), looked_at(&v, 2)), (stay.len(), looked_at(&exact, 2)));
    holds(&v, stay, &mut rng, "small again");
}
