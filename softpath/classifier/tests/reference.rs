//! The classifier against a list of rules, and against its promise about the bits it looked at.

use std::sync::Arc;

use classifier::{Classifier, MiniMatch, Version};
use flow::{FieldId, PipelineKey, PipelineMask, PipelineMatch};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const FIELDS: &[(FieldId, &[u128])] = &[
    (FieldId::InPort, &[1, 2, 3]),
    (FieldId::Metadata, &[0, 1, 0xff00]),
    (FieldId::Reg0, &[0, 7]),
    (FieldId::EthSrc, &[0x0200_0000_0001, 0x0200_0000_0002]),
    (FieldId::EthDst, &[0x0200_0000_0001, 0x0200_0000_0002, 0xffff_ffff_ffff]),
    (FieldId::EthType, &[0x0800, 0x0800, 0x86dd, 0x0806]),
    (FieldId::VlanTci, &[0, 0x1001, 0x1002]),
    (FieldId::NwSrc, &[0x0a00_0001, 0x0a00_0002, 0x0a01_0001, 0xc0a8_0001]),
    (FieldId::NwDst, &[0x0a00_0001, 0x0a00_0002, 0x0a01_0001, 0xc0a8_0001]),
    (FieldId::Ipv6Dst, &[0xfd00 << 112 | 1, 0xfd00 << 112 | 2, 0xfe80 << 112 | 1]),
    (FieldId::NwProto, &[6, 17]),
    (FieldId::TcpFlags, &[2, 0x10]),
    (FieldId::TpSrc, &[80, 81, 1024]),
    (FieldId::TpDst, &[80, 81, 443, 1024]),
];

fn random_key(rng: &mut SmallRng) -> PipelineKey {
    let mut k = PipelineKey::ZERO;
    for (f, values) in FIELDS {
        let v = values[rng.random_range(0..values.len())];
        k.set(*f, if rng.random_bool(0.1) { v ^ 1 << rng.random_range(0..f.info().bits) } else { v });
    }
    k
}

fn random_match(rng: &mut SmallRng) -> PipelineMatch {
    let k = random_key(rng);
    let mut m = PipelineMatch::ANY;
    for (f, _) in FIELDS {
        if rng.random_bool(0.25) {
            let bits = u32::from(f.info().bits);
            let mask = match f {
                FieldId::NwSrc | FieldId::NwDst | FieldId::Ipv6Dst if rng.random_bool(0.9) => {
                    (u128::MAX << (rng.random_range(0..bits / 4) * 4)) & f.info().max()
                }
                FieldId::TpSrc | FieldId::TpDst if rng.random_bool(0.2) => 0xfff0,
                _ if rng.random_bool(0.1) => rng.random::<u128>(),
                _ => u128::MAX,
            };
            if mask & f.info().max() != 0 {
                m.set_masked(*f, k.get(*f), mask & f.info().max());
            }
        }
    }
    m
}

/// Rules in a list, searched from end to end.
#[derive(Default, Clone)]
struct Linear(Vec<(PipelineMatch, u32, Arc<u32>)>);

impl Linear {
    fn lookup(&self, k: &PipelineKey) -> Option<(u32, u32)> {
        self.0.iter().filter(|r| r.0.matches(k)).max_by_key(|r| r.1).map(|r| (r.1, *r.2))
    }
}

fn answer(v: &Version<u32>, k: &PipelineKey, wc: &mut PipelineMask) -> Option<(u32, u32)> {
    v.lookup(k, wc).map(|f| (f.priority, **f.rule))
}

fn check(seed: u64, steps: usize, most: usize) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let (mut c, mut list) = (Classifier::<u32>::default(), Linear::default());
    // One priority each, so that overlapping rules have one answer; but now and then a match comes twice.
    let mut priorities: Vec<u32> = (0..most as u32 * 2).collect();
    for step in 0..steps {
        let before = list.clone();
        let snapshot = c.snapshot();
        if list.0.len() >= most || (!list.0.is_empty() && rng.random_bool(0.35)) {
            let (m, p, r) = list.0.swap_remove(rng.random_range(0..list.0.len()));
            assert_eq!(c.remove(&MiniMatch::new(&m), p), Some(r), "seed {seed} step {step}");
            priorities.push(p);
        } else {
            let m = match list.0.first() {
                Some(r) if rng.random_bool(0.1) => r.0,
                _ => random_match(&mut rng),
            };
            let p = priorities.swap_remove(rng.random_range(0..priorities.len()));
            let mini = c.compact(&m);
            assert!(c.insert(&mini, p, Arc::new(step as u32)).is_none());
            list.0.push((m, p, Arc::new(step as u32)));
            assert!(c.find_exact(&mini, p).is_some_and(|r| **r == step as u32));
        }
        assert_eq!(c.len(), list.0.len());
        for _ in 0..8 {
            let k = random_key(&mut rng);
            let mut wc = PipelineMask::ZERO;
            let got = answer(&c, &k, &mut wc);
            assert_eq!(got, list.lookup(&k), "seed {seed} step {step} {k:?}");
            let fast = c.find(&k).map(|f| (f.priority, **f.rule));
            assert_eq!(fast, got, "seed {seed} step {step}: the fast way {k:?}");
            assert_eq!(
                answer(&snapshot, &k, &mut PipelineMask::default()),
                before.lookup(&k),
                "seed {seed} step {step}: a reader saw an update that was not published"
            );
            for _ in 0..8 {
                let other = mixed(&k, &random_key(&mut rng), &wc);
                assert_eq!(
                    list.lookup(&other),
                    got,
                    "seed {seed} step {step}\n{k:?}\n{other:?}\nlooked at {wc:?}"
                );
            }
        }
        c.publish();
    }
}

/// `b`, but equal to `a` under `mask`.
fn mixed(a: &PipelineKey, b: &PipelineKey, mask: &PipelineMask) -> PipelineKey {
    let mut k = PipelineKey::ZERO;
    for i in 0..flow::PIPELINE_WORDS {
        k.set_word(i, a.word(i) & mask.word(i) | b.word(i) & !mask.word(i));
    }
    k
}

#[test]
fn lookups_agree_with_a_list_and_depend_on_nothing_but_the_bits_they_report() {
    for seed in 0..6 {
        check(seed, 400, 6 + 12 * seed as usize);
    }
}

#[test]
fn criteria_and_overlap_agree_with_a_list() {
    let seed = 11;
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut v = Version::<u32>::new();
    let mut list = Vec::new();
    for i in 0..300u32 {
        let (m, p) = (random_match(&mut rng), i % 4);
        if v.insert(&MiniMatch::new(&m), p, Arc::new(i)).is_some() {
            list.retain(|(lm, lp, _)| (*lm, *lp) != (m, p));
        }
        list.push((m, p, i));
    }
    let sorted = |mut l: Vec<u32>| {
        l.sort_unstable();
        l
    };
    for _ in 0..300 {
        let (m, p) = (random_match(&mut rng), rng.random_range(0..4));
        let within = sorted(v.within(&m).map(|f| **f.rule).collect());
        let want = sorted(list.iter().filter(|r| r.0.is_subset_of(&m)).map(|r| r.2).collect());
        assert_eq!(within, want, "seed {seed} {m:?}");
        let over = sorted(v.overlapping(&m, p).map(|f| **f.rule).collect());
        let want = sorted(list.iter().filter(|r| r.1 == p && r.0.overlaps(&m)).map(|r| r.2).collect());
        assert_eq!(over, want, "seed {seed} {m:?}");
    }
    for _ in 0..2000 {
        let k = random_key(&mut rng);
        let of = |f: classifier::Found<'_, u32>| **f.rule;
        let slow = v.lookup(&k, &mut PipelineMask::default()).map(of);
        assert_eq!(v.find(&k).map(of), slow, "seed {seed}: rules of one priority {k:?}");
    }
    assert_eq!(v.iter().count(), v.len());
    for (m, f) in v.iter() {
        assert!(list.contains(&(m.expand(), f.priority, **f.rule)));
    }
}

#[test]
fn a_reverted_batch_leaves_no_trace() {
    let mut rng = SmallRng::seed_from_u64(3);
    let mut c = Classifier::<u32>::default();
    let m = MiniMatch::new(&random_match(&mut rng));
    c.insert(&m, 1, Arc::new(1));
    c.publish();
    c.insert(&m, 1, Arc::new(2));
    c.insert(&m, 2, Arc::new(3));
    c.revert();
    assert_eq!((c.len(), c.find_exact(&m, 1).map(|r| **r)), (1, Some(1)));
}

#[test]
fn a_subtable_that_fails_in_its_first_stage_costs_only_that_stage() {
    let mut v = Version::<u32>::new();
    let mut m = PipelineMatch::ANY;
    m.set(FieldId::InPort, 1);
    m.set(FieldId::EthType, 0x800);
    m.set(FieldId::NwDst, 0x0a00_0001);
    m.set(FieldId::NwProto, 6);
    m.set(FieldId::TpDst, 80);
    v.insert(&MiniMatch::new(&m), 10, Arc::new(1));
    let mut k = *m.key();
    k.set(FieldId::InPort, 2);
    let mut wc = PipelineMask::ZERO;
    assert!(v.lookup(&k, &mut wc).is_none());
    assert_eq!(wc.fields().collect::<Vec<_>>(), [FieldId::InPort]);
    // The right port and the wrong address: L4 stays out, and the address only as far as the trie needs it.
    let mut k = *m.key();
    k.set(FieldId::NwDst, 0x8a00_0001);
    let mut wc = PipelineMask::ZERO;
    assert!(v.lookup(&k, &mut wc).is_none());
    assert_eq!(wc.get(FieldId::TpDst), 0);
    assert_eq!(wc.get(FieldId::NwDst), 0x8000_0000);
    // Everything right but the port: the ports trie names the bits that differ.
    let mut k = *m.key();
    k.set(FieldId::TpDst, 80 | 0x8000);
    let mut wc = PipelineMask::ZERO;
    assert!(v.lookup(&k, &mut wc).is_none());
    assert_eq!(wc.get(FieldId::TpDst), 0x8000);
}
