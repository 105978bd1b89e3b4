//! Translations that go on when the packet comes back from the datapath.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::time::Duration;

use flow::{Action, FieldId, HashAlg, PacketKey, PipelineMatch, PortId};
use ofproto::{BridgeConfig, BridgeSettings, SwitchConfig};
use openflow::group::{Bucket, BucketId, GroupMod, GroupModCommand, GroupType, Selection};
use openflow::{Action as OfAction, Body, GroupId, Instructions, PortNo, TableId};
use rig::*;

/// `key` as it comes back.
fn back(key: &PacketKey, id: u32) -> PacketKey {
    let mut k = *key;
    k.set(FieldId::RecircId, id.into());
    k
}

fn mpls() -> PipelineMatch {
    matching(&[(FieldId::EthType, 0x8847)])
}

/// A labelled frame of a packet, and the packet.
fn labelled() -> (Vec<u8>, Vec<u8>) {
    let inner = udp([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53).build();
    let mut outer = inner[..12].to_vec();
    outer.extend([0x88, 0x47, 0, 0x01, 0x41, 64]);
    outer.extend(&inner[14..]);
    (outer, inner)
}

fn resubmit(table: u8) -> OfAction {
    OfAction::Resubmit { port: PortNo::IN_PORT, table: Some(TableId(table)), with_ct: false }
}

#[test]
fn what_is_below_a_popped_label_is_matched_when_the_packet_comes_back() {
    let r = Rig::new();
    r.add(
        0,
        1,
        mpls(),
        Instructions::apply(vec![OfAction::PopMpls(0x800), set(FieldId::Reg1, 7), resubmit(1), output(4)]),
    );
    r.add(
        1,
        1,
        matching(&[(FieldId::Reg1, 7), (FieldId::EthType, 0x800), (FieldId::NwDst, 0x0a00_0002)]),
        to(2),
    );
    let (outer, inner) = labelled();
    let first = answer(&r, key(&outer, 1));
    let id = recirc_id(&first.actions);
    assert_eq!(*first.actions, [Action::PopMpls { eth_type: 0x800 }, Action::Recirc(id)]);
    // What was after the resubmit is done after it, and the register is what it was.
    let second = answer(&r, back(&key(&inner, 1), id));
    assert_eq!(*second.actions, [out(2), out(4)]);
    assert_eq!(second.matches.get(FieldId::NwDst), (0x0a00_0002, u128::from(u32::MAX)));
    assert_eq!(second.matches.get(FieldId::RecircId).0, id.into());
}

#[test]
fn each_list_leaves_what_it_has_not_executed() {
    let r = Rig::new();
    let goto = |t| Some(TableId(t));
    let write = Instructions {
        apply: vec![resubmit(1), output(1)],
        write: vec![output(4)],
        metadata: Some((9, 0xff)),
        goto_table: goto(5),
        ..Instructions::default()
    };
    r.add(0, 1, PipelineMatch::ANY, write);
    r.add(1, 1, PipelineMatch::ANY, Instructions::apply(vec![OfAction::DebugRecirc, output(2)]));
    r.add(5, 1, matching(&[(FieldId::Metadata, 9)]), to(3));
    let k = key(&udp([1, 1, 1, 1], [2, 2, 2, 2], 1, 2).build(), 4);
    let first = answer(&r, k);
    let id = recirc_id(&first.actions);
    assert_eq!(first.actions.len(), 1);
    let second = answer(&r, back(&k, id));
    // Port 4 is where it came in.
    assert_eq!(*second.actions, [out(2), out(1), out(3)]);
}

fn group(selection: Selection, weights: &[u16]) -> GroupMod {
    let bucket = |(i, w): (usize, &u16)| Bucket {
        id: BucketId(i as u32),
        weight: *w,
        watch_port: PortNo::ANY,
        watch_group: GroupId::ANY,
        actions: vec![output(i as u32 + 2)],
    };
    GroupMod {
        command: GroupModCommand::Add,
        group_type: GroupType::Select,
        group: GroupId(1),
        bucket: BucketId::ALL,
        buckets: weights.iter().enumerate().map(bucket).collect(),
        selection,
    }
}

#[test]
fn a_select_group_by_dp_hash_takes_a_record_for_each_value_and_not_for_each_connection() {
    let r = Rig::new();
    let by = Selection { method: "dp_hash".into(), param: 1 << 32 | 5, fields: Vec::new() };
    r.request(Body::GroupMod(group(by, &[1, 3]))).unwrap();
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![OfAction::Group(GroupId(1)), output(4)]));
    let k = key(&udp([1, 1, 1, 1], [2, 2, 2, 2], 1, 2).build(), 1);
    let first = answer(&r, k);
    let id = recirc_id(&first.actions);
    let hash = Action::Hash { alg: HashAlg::SymmetricL4, basis: 5 };
    assert_eq!(*first.actions, [hash, Action::Recirc(id)]);
    let mut to_port = [0; 5];
    for h in 1..=16u128 {
        let mut again = back(&k, id);
        again.set(FieldId::DpHash, h | 0xabc0);
        let t = answer(&r, again);
        assert_eq!(t.matches.get(FieldId::DpHash), (h & 15, 15));
        let [Action::Output(PortId(p)), rest] = &t.actions[..] else { panic!("{:?}", t) };
        assert_eq!(*rest, out(4));
        to_port[(*p - 10) as usize] += 1;
    }
    assert_eq!(to_port, [0, 0, 4, 12, 0]);
}

#[test]
fn open_vswitch_chooses_by_dp_hash_unless_told_otherwise() {
    let settings = BridgeSettings { stock_megaflows: true, ..BridgeSettings::default() };
    for (stock, hashed) in [(true, true), (false, false)] {
        let mut bc = BridgeConfig::new("br0", 1);
        if stock {
            bc.settings = settings.clone();
        }
        let r = Rig::with(SwitchConfig::default(), bc);
        r.request(Body::GroupMod(group(Selection::default(), &[1, 1]))).unwrap();
        r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![OfAction::Group(GroupId(1))]));
        let t = answer(&r, key(&udp([1, 1, 1, 1], [2, 2, 2, 2], 1, 2).build(), 1));
        assert_eq!(t.actions.iter().any(|a| matches!(a, Action::Hash { .. })), hashed);
    }
}

#[test]
fn a_record_that_is_translated_again_keeps_its_id_until_its_rules_say_something_else() {
    let r = Rig::new();
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![OfAction::DebugRecirc, resubmit(1)]));
    r.add(1, 1, PipelineMatch::ANY, to(2));
    let k = key(&udp([1, 1, 1, 1], [2, 2, 2, 2], 1, 2).build(), 1);
    let first = answer(&r, k);
    let id = recirc_id(&first.actions);
    let second = answer(&r, back(&k, id));
    // A rule elsewhere in table 0 has both looked at.
    r.add(0, 2, matching(&[(FieldId::InPort, 3)]), to(4));
    r.add(1, 2, matching(&[(FieldId::InPort, 1)]), to(3));
    let now = |id| r.dp.flows.lock().unwrap()[&id].actions.to_vec();
    r.switch.revalidate(r.now());
    assert_eq!(recirc_id(&now(first.id)), id);
    assert_eq!(now(second.id), [out(3)]);
}

#[test]
fn an_id_that_no_record_uses_any_more_is_forgotten_and_what_comes_back_with_it_is_dropped() {
    let r = Rig::new();
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![OfAction::DebugRecirc, output(2)]));
    let k = key(&udp([1, 1, 1, 1], [2, 2, 2, 2], 1, 2).build(), 1);
    let id = recirc_id(&answer(&r, k).actions);
    let second = answer(&r, back(&k, id));
    assert_eq!(*second.actions, [out(2)]);
    for _ in 0..30 {
        r.clock.advance(Duration::from_secs(1));
        r.switch.run(r.now());
        r.switch.revalidate(r.now());
    }
    assert!(r.dp.flows.lock().unwrap().is_empty(), "idle");
    let lost = answer(&r, back(&k, id));
    assert!(lost.actions.is_empty());
    assert_eq!(r.switch.counters().problems[ofproto::Problem::NoRecircContext as usize], 1);
}
