//! What a template says of a message is what decoding says of it.

use super::random::{self, Source};
use flow::FieldId;
use openflow::flow_mod::{FlowMod, FlowModCommand, Instructions};
use openflow::message::BundleFlags;
use openflow::wire::Templates;
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
            let mut t = Templates::new(d);
            t.learn(&frame, (bundle, flags), message.clone());
            let Some(f) = t.fill(d, &frame) else { continue };
            assert_eq!(*f.message, message, "{v} seed {seed}");
            made += 1;
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
    let mut t = Templates::new(d);
    t.learn(&frame, (7, BundleFlags::ATOMIC), message.clone());
    assert!(t.fill(d, &frame).is_some());
    assert!(t.fill(Dialect::new(Version::V15), &frame).is_none());
    assert!(t.fill(d, &frame[..frame.len() - 8]).is_none());
    assert!(t.fill(d, &[]).is_none());
    let mut deletion = message;
    if let Body::FlowMod(fm) = &mut deletion.body {
        fm.command = FlowModCommand::DeleteStrict;
    }
    let mut t = Templates::new(d);
    t.learn(&frame, (7, BundleFlags::ATOMIC), deletion);
    assert!(t.fill(d, &frame).is_none());
}

/// A bundle of flows of a few kinds with actions of a few kinds, in any order.
#[test]
fn a_bundle_of_a_few_kinds_is_filled_in_once_they_are_known() {
    let v = Version::V14;
    let d = Dialect::new(v);
    let mut r = Source::new(5, v);
    let mut t = Templates::new(d);
    let mut decoded_in_full = 0;
    for i in 0..2000u32 {
        let mut fm = FlowMod::new(FlowModCommand::Add);
        fm.matches.set(FieldId::EthType, 0x800);
        fm.matches.set(FieldId::NwSrc, i.into());
        match r.random_range(0..4) {
            0 => fm.matches.set_masked(FieldId::NwDst, u128::from(i) << 8, 0xffff_ff00),
            1 => fm.matches.set(FieldId::NwProto, 6),
            2 => fm.matches.set(FieldId::NwProto, 17),
            _ => {}
        }
        let actions =
            (0..r.random_range(0..4u32)).map(|n| Action::Output { port: PortNo(2 + n), max_len: 0 });
        fm.instructions = Instructions::apply(actions.collect());
        let message = Message { xid: i, body: Body::FlowMod(Box::new(fm)) };
        let body =
            Body::BundleAdd { bundle: 7, flags: BundleFlags::ATOMIC, message: Box::new(message.clone()) };
        let mut frame = Vec::new();
        encode(v, &Message { xid: i, body }, &mut frame).unwrap();
        if let Some(f) = t.fill(d, &frame) {
            assert_eq!(*f.message, message);
            continue;
        }
        decoded_in_full += 1;
        t.learn(&frame, (7, BundleFlags::ATOMIC), decoded(v, &frame).unwrap().2);
    }
    assert!(decoded_in_full <= 4, "{decoded_in_full}");
}

/// When nothing is like anything before, little is spent on finding that out; when it is again, it is found out.
#[test]
fn what_is_never_alike_is_hardly_looked_at() {
    let v = Version::V14;
    let d = Dialect::new(v);
    let mut t = Templates::new(d);
    let frame_of = |i: u32, bundle: u32| {
        let mut fm = FlowMod::new(FlowModCommand::Add);
        fm.idle_timeout = i as u16;
        let message = Message { xid: i, body: Body::FlowMod(Box::new(fm)) };
        let body = Body::BundleAdd { bundle, flags: BundleFlags::ATOMIC, message: Box::new(message.clone()) };
        let mut frame = Vec::new();
        encode(v, &Message { xid: i, body }, &mut frame).unwrap();
        (frame, message)
    };
    for i in 0..500 {
        let (frame, message) = frame_of(i, 7);
        assert!(t.fill(d, &frame).is_none(), "{i}");
        t.learn(&frame, (7, BundleFlags::ATOMIC), message);
    }
    let mut until = 0;
    while t.fill(d, &frame_of(7, 8).0).is_none() {
        let (frame, message) = frame_of(7, 8);
        t.learn(&frame, (8, BundleFlags::ATOMIC), message);
        until += 1;
        assert!(until < 200);
    }
}
