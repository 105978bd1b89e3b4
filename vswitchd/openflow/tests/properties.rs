//! Properties of the codec over random messages and bytes. The seed of each case is in the failure's text.
#![allow(clippy::unwrap_used)]

mod random;
mod support;
mod templates;

use openflow::{Body, EncodeError, Message, Version, decode, encode};
use rand::Rng;
use random::Source;

fn cases() -> u64 {
    std::env::var("OPENFLOW_CASES").ok().and_then(|v| v.parse().ok()).unwrap_or(20_000)
}

/// The transaction of a message in a bundle is that of the message around it.
fn with_inner_xid(mut m: Message) -> Message {
    if let Body::BundleAdd { message, .. } = &mut m.body {
        message.xid = m.xid;
    }
    m
}

/// How many numbers of message types a version has. OpenFlow 1.0's own flow-removed is not sent when NXM is agreed on.
fn types(v: Version) -> usize {
    [21, 24, 26, 30, 33, 34][v as usize - 1]
}

#[test]
fn every_message_survives_encoding() {
    for v in [Version::V13, Version::V14, Version::V15] {
        let (mut kinds, mut unsaid) = (std::collections::HashSet::new(), 0);
        for seed in 0..cases() {
            let msg = with_inner_xid(random::message(&mut Source::new(seed, v)));
            let mut bytes = Vec::new();
            match encode(v, &msg, &mut bytes) {
                Ok(()) => {}
                // What is another version's, and packet types, which no OXM field before 1.5 carries.
                Err(EncodeError::Version(_) | EncodeError::Field(_)) => {
                    unsaid += 1;
                    continue;
                }
                Err(e) => panic!("{v} seed {seed}: {e}: {msg:#?}"),
            }
            let back = decode(&bytes).unwrap_or_else(|e| panic!("{v} seed {seed}: {e}: {msg:#?}"));
            assert_eq!(back, msg, "{v} seed {seed}");
            kinds.insert(bytes[1]);
        }
        assert_eq!(kinds.len(), types(v), "{v}: not every message type was made: {kinds:?}");
        assert!(unsaid < cases() / 3, "{v}: {unsaid} messages were not encoded");
    }
}

#[test]
fn what_an_early_version_says_of_a_message_is_said_the_same_again() {
    for v in Version::ALL {
        let mut kinds = std::collections::HashSet::new();
        for seed in 0..cases() {
            let msg = random::message(&mut Source::new(seed, v));
            let Some(once) = random::normal(v, &msg) else { continue };
            let mut bytes = Vec::new();
            encode(v, &once, &mut bytes).unwrap_or_else(|e| panic!("{v} seed {seed}: {e}: {once:#?}"));
            assert_eq!(decode(&bytes).unwrap(), once, "{v} seed {seed}");
            kinds.insert(bytes[1]);
        }
        assert_eq!(kinds.len(), types(v), "{v}: not every message type was made: {kinds:?}");
    }
}

#[test]
fn a_message_cut_anywhere_is_an_error() {
    for v in Version::ALL {
        for seed in 0..cases() / 40 {
            let msg = random::message(&mut Source::new(seed, v));
            let mut bytes = Vec::new();
            if encode(v, &msg, &mut bytes).is_err() {
                continue;
            }
            for n in 0..bytes.len() {
                assert!(decode(&bytes[..n]).is_err(), "{v} seed {seed} cut at {n} of {}", bytes.len());
            }
        }
    }
}

#[test]
fn a_message_cut_with_its_length_corrected_never_panics() {
    for v in Version::ALL {
        for seed in 0..cases() / 40 {
            let msg = random::message(&mut Source::new(seed, v));
            let mut bytes = Vec::new();
            if encode(v, &msg, &mut bytes).is_err() {
                continue;
            }
            for n in 8..bytes.len() {
                let mut cut = bytes[..n].to_vec();
                cut[2..4].copy_from_slice(&(n as u16).to_be_bytes());
                if let Ok(m) = decode(&cut) {
                    // Text at the end may be shorter; what was understood can be said again.
                    encode(v, &m, &mut Vec::new())
                        .unwrap_or_else(|e| panic!("{v} seed {seed} cut {n}: {e}: {m:#?}"));
                }
            }
        }
    }
}

#[test]
fn arbitrary_and_damaged_bytes_never_panic() {
    for seed in 0..2 * cases() {
        let v = Version::ALL[seed as usize % 6];
        let mut rng = Source::new(seed ^ 0x5eed, v);
        let mut bytes = Vec::new();
        if rng.random() || encode(v, &random::message(&mut rng), &mut bytes).is_err() {
            let n = rng.random_range(8..200);
            bytes = (0..n).map(|_| rng.random()).collect();
        } else {
            for _ in 0..rng.random_range(1..6) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = rng.random();
            }
        }
        bytes[0] = v as u8;
        bytes[1] %= 36;
        let n = bytes.len() as u16;
        bytes[2..4].copy_from_slice(&n.to_be_bytes());
        if let Ok(m) = decode(&bytes) {
            // What was understood has an encoding, and is understood the same way.
            let once = random::normal(v, &m).unwrap_or_else(|| panic!("{v} seed {seed}: {m:#?}"));
            assert_eq!(random::normal(v, &once).as_ref(), Some(&once), "{v} seed {seed}");
        }
    }
}

#[test]
fn a_long_reply_becomes_parts_that_add_up() {
    use openflow::MultipartReply;
    use openflow::framing::Decoder;
    let mut rng = Source::new(1, Version::V13);
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
    use openflow::{Action, FlowMod, FlowModCommand};
    let mut out = vec![1, 2, 3];
    let mut f = FlowMod::new(FlowModCommand::Add);
    f.matches.set(flow::FieldId::TunTos, 1);
    let msg = |f: &FlowMod| Message { xid: 0, body: Body::FlowMod(Box::new(f.clone())) };
    let e = encode(Version::V13, &msg(&f), &mut out);
    assert_eq!(e, Err(EncodeError::Field(flow::FieldId::TunTos)));
    let mut f = FlowMod::new(FlowModCommand::Add);
    f.instructions.apply = vec![Action::PopVlan; 9000];
    assert_eq!(encode(Version::V13, &msg(&f), &mut out), Err(EncodeError::TooLong));
    let meters = Message { xid: 0, body: Body::TlvTableRequest };
    assert_eq!(encode(Version::V10, &meters, &mut Vec::new()), Ok(()));
    let bundle = openflow::message::BundleControl {
        bundle: 1,
        step: openflow::message::BundleStep::OpenRequest,
        flags: openflow::message::BundleFlags::ATOMIC,
    };
    let bundle = Message { xid: 0, body: Body::BundleControl(bundle) };
    assert_eq!(encode(Version::V12, &bundle, &mut out), Err(EncodeError::Version(Version::V12)));
    assert_eq!(out, [1, 2, 3]);
}
