//! Properties of the codec over random messages and bytes. The seed of each case is in the failure's text.
#![allow(clippy::unwrap_used)]

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

#[test]
fn a_long_reply_becomes_parts_that_add_up() {
    use openflow::framing::Decoder;
    use openflow::{Body, Message, MultipartReply};
    let mut rng = StdRng::seed_from_u64(1);
    for (n, more) in [(0usize, false), (1, true), (3000, false), (3000, true)] {
        let flows: Vec<_> = (0..n).map(|_| random::flow_stats(&mut rng)).collect();
        let body = Body::MultipartReply { more, reply: MultipartReply::Flow(flows.clone()) };
        let mut bytes = Vec::new();
        encode(Version::V13, &Message { xid: 5, body }, &mut bytes).unwrap();
        let mut decoder = Decoder::new();
        decoder.push(&bytes);
        let (mut back, mut flags) = (Vec::new(), Vec::new());
        while let Some(frame) = decoder.next_frame().unwrap() {
            let m = decode(frame).unwrap();
            assert_eq!(m.xid, 5);
            let Body::MultipartReply { more, reply: MultipartReply::Flow(part) } = m.body else { panic!() };
            back.extend(part);
            flags.push(more);
        }
        assert_eq!(decoder.buffered_bytes(), 0);
        assert_eq!(back, flows);
        assert_eq!(flags.pop(), Some(more), "the last part");
        assert!(flags.iter().all(|f| *f), "all parts before it");
        assert_eq!(flags.is_empty(), n < 3000, "{n} flows");
    }
}

#[test]
fn what_cannot_be_said_is_an_error_and_leaves_the_output_alone() {
    use openflow::{Action, Body, EncodeError, FlowMod, FlowModCommand, Message};
    let mut out = vec![1, 2, 3];
    let mut f = FlowMod::new(FlowModCommand::Add);
    f.matches.set(flow::FieldId::TunTos, 1);
    let msg = |f: &FlowMod| Message { xid: 0, body: Body::FlowMod(Box::new(f.clone())) };
    let e = encode(Version::V13, &msg(&f), &mut out);
    assert_eq!(e, Err(EncodeError::Field(flow::FieldId::TunTos)));
    let mut f = FlowMod::new(FlowModCommand::Add);
    f.instructions.apply = vec![Action::PopVlan; 9000];
    assert_eq!(encode(Version::V13, &msg(&f), &mut out), Err(EncodeError::TooLong));
    assert_eq!(encode(Version::V15, &msg(&f), &mut out), Err(EncodeError::Version(Version::V15)));
    assert_eq!(out, [1, 2, 3]);
}
