//! Properties of the codec over random messages and bytes. The seed of each case is in the failure's text.

mod random;
mod support;

use openflow::{Version, decode, encode};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

fn cases() -> u64 {
    std::env::var("OPENFLOW_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(20_000)
}

#[test]
fn every_message_survives_encoding() {
    let mut kinds = std::collections::HashSet::new();
    for seed in 0..cases() {
        let msg = random::message(&mut StdRng::seed_from_u64(seed));
        let mut bytes = Vec::new();
        encode(Version::V13, &msg, &mut bytes).unwrap_or_else(|e| panic!("seed {seed}: {e}: {msg:#?}"));
        let back = decode(&bytes).unwrap_or_else(|e| panic!("seed {seed}: {e}: {msg:#?}"));
        assert_eq!(back, msg, "seed {seed}");
        kinds.insert(bytes[1]);
    }
    assert_eq!(kinds.len(), 30, "not every message type was made: {kinds:?}");
}

#[test]
fn a_message_cut_anywhere_is_an_error() {
    for seed in 0..cases() / 20 {
        let msg = random::message(&mut StdRng::seed_from_u64(seed));
        let mut bytes = Vec::new();
        encode(Version::V13, &msg, &mut bytes).unwrap();
        for n in 0..bytes.len() {
            assert!(decode(&bytes[..n]).is_err(), "seed {seed} cut at {n} of {}", bytes.len());
        }
    }
}

#[test]
fn a_message_cut_with_its_length_corrected_never_panics() {
    for seed in 0..cases() / 20 {
        let msg = random::message(&mut StdRng::seed_from_u64(seed));
        let mut bytes = Vec::new();
        encode(Version::V13, &msg, &mut bytes).unwrap();
        for n in 8..bytes.len() {
            let mut cut = bytes[..n].to_vec();
            cut[2..4].copy_from_slice(&(n as u16).to_be_bytes());
            if let Ok(m) = decode(&cut) {
                // Text at the end may be shorter; what was understood can be said again.
                encode(Version::V13, &m, &mut Vec::new())
                    .unwrap_or_else(|e| panic!("seed {seed} cut {n}: {e}"));
            }
        }
    }
}

#[test]
fn arbitrary_and_damaged_bytes_never_panic() {
    for seed in 0..cases() {
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let mut bytes = if rng.random() {
            let n = rng.random_range(8..200);
            (0..n).map(|_| rng.random()).collect()
        } else {
            let mut b = Vec::new();
            encode(Version::V13, &random::message(&mut rng), &mut b).unwrap();
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..b.len());
                b[at] = rng.random();
            }
            b
        };
        bytes[0] = 4;
        bytes[1] %= 30;
        let n = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&n.to_be_bytes());
        if let Ok(m) = decode(&bytes) {
            // What was understood has an encoding, and is understood the same way.
            let mut again = Vec::new();
            match encode(Version::V13, &m, &mut again) {
                Ok(()) => {
                    assert_eq!(random::normal(decode(&again).unwrap()), random::normal(m), "seed {seed}")
                }
                Err(e) => panic!("seed {seed}: {e}: {m:#?}"),
            }
        }
    }
}
