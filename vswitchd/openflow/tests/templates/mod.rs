//! What a template says of a message is what decoding says of it.

use super::random::{self, Source};
use openflow::flow_mod::{FlowMod, FlowModCommand, Instructions};
use openflow::message::BundleFlags;
use openflow::wire::Template;
use openflow::{Action, Body, Dialect, Message, PortNo, Version, decode_as, encode};
use rand::Rng;

/// A message that adds a random flow to a bundle.
fn addition(r: &mut Source) -> Option<(Vec<u8>, Message)> {
    let mut fm = FlowMod::new(FlowModCommand::Add);
    fm.matches = random::matches(r);
    (fm.cookie, fm.priority) = (r.random(), r.random());
    fm.instructions = Instructions::apply(vec![Action::Output { port: PortNo(2), max_len: 0 }]);
    let xid = r.random();
    let message = Message { xid, body: Body::FlowMod(Box::new(fm)) };
    let body = Body::BundleAdd { bundle: 7, flags: BundleFlags::ATOMIC, message: Box::new(message.clone()) };
    let mut frame = Vec::new();
    encode(r.v, &Message { xid, body }, &mut frame).ok()?;
    Some((frame, message))
}

/// What decoding says of a bundle-add message; `None` when it is none, or wrong.
fn decoded(v: Version, frame: &[u8]) -> Option<(u32, BundleFlags, Message)> {
    match decode_as(Dialect::new(v), frame) {
        Ok(Message { body: Body::BundleAdd { bundle, flags, message }, .. }) => {
            Some((bundle, flags, *message))
        }
        _ => None,
    }
}

#[test]
fn filling_a_template_is_decoding() {
    for v in [Version::V13, Version::V14, Version::V15] {
        let (mut made, mut filled, mut refused) = (0, 0, 0);
        for seed in 0..3000 {
            let mut r = Source::new(seed, v);
            let Some((frame, _)) = addition(&mut r) else { continue };
            // Not every match that has an encoding is in order.
            let Some((bundle, flags, message)) = decoded(v, &frame) else { continue };
            let d = Dialect::new(v);
            let Some(mut t) = Template::new(d, &frame, (bundle, flags), message.clone()) else { continue };
            made += 1;
            assert_eq!(*t.fill(d, &frame).unwrap().message, message, "{v} seed {seed}");
            for _ in 0..40 {
                let mut other = frame.clone();
                for _ in 0..r.random_range(1..4) {
                    let at = r.random_range(0..other.len());
                    other[at] = match r.random_range(0..3) {
                        0 => r.random(),
                        1 => other[at] ^ 1 << r.random_range(0..8),
                        _ => 0,
                    };
                }
                // Transactions agree, or neither would take any.
                let inner = if v == Version::V13 { 24 } else { 16 };
                let xid = other[4..8].to_owned();
                if r.random() {
                    other[inner + 4..inner + 8].copy_from_slice(&xid);
                }
                match t.fill(d, &other) {
                    Some(f) => {
                        let got = (f.bundle, f.flags, f.message.clone());
                        assert_eq!(Some(got), decoded(v, &other), "{v} seed {seed}");
                        filled += 1;
                    }
                    None => refused += 1,
                }
            }
        }
        assert!(made > 1000 && filled > 10_000 && refused > 10_000, "{v}: {made}, {filled}, {refused}");
    }
}

#[test]
fn another_dialect_another_length_and_another_kind_are_not_filled_in() {
    let v = Version::V14;
    let d = Dialect::new(v);
    let mut r = Source::new(1, v);
    let (frame, message) = std::iter::from_fn(|| Some(addition(&mut r))).flatten().next().unwrap();
    let mut t = Template::new(d, &frame, (7, BundleFlags::ATOMIC), message.clone()).unwrap();
    assert!(t.fill(Dialect::new(Version::V15), &frame).is_none());
    assert!(t.fill(d, &frame[..frame.len() - 8]).is_none());
    assert!(t.fill(d, &[]).is_none());
    let mut deletion = message;
    if let Body::FlowMod(fm) = &mut deletion.body {
        fm.command = FlowModCommand::DeleteStrict;
    }
    assert!(Template::new(d, &frame, (7, BundleFlags::ATOMIC), deletion).is_none());
}
