//! Bundles: what a bundle leaves is what its messages would leave one by one, whatever order they are carried out in.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::time::Duration;

use clock::Clock;
use flow::tunnel::options;
use flow::{FieldId, PipelineMatch};
use ofproto::Bridge;
use openflow::error::{BadAction, FlowModFailed, Nicira};
use openflow::flow_mod::{FlowModCommand, FlowModFlags};
use openflow::switch::{Bundled, ConnId, OpenFlowSwitch};
use openflow::{Action, Body, ErrorCode, FlowMod, GroupId, Instructions, Message, PortNo, TableId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rig::{CONN, Rig};

/// Admits and commits flow-mods, as a connection does.
fn commit(b: &Bridge, conn: ConnId, mods: &[FlowMod]) -> Result<(), (usize, ErrorCode)> {
    let mut all = Vec::new();
    for (i, fm) in mods.iter().enumerate() {
        let m = Message { xid: i as u32, body: Body::FlowMod(Box::new(fm.clone())) };
        all.push(match b.admit(conn, &m).map_err(|e| (i, e))? {
            Some(ready) => Bundled::Ready(m.xid, ready),
            None => Bundled::Message(m),
        });
    }
    b.commit(conn, &mut all.into_iter())
}

fn output(port: u32) -> Instructions {
    Instructions::apply(vec![Action::Output { port: PortNo(port), max_len: 0 }])
}

fn random_mod(rng: &mut SmallRng) -> FlowMod {
    let mut m = PipelineMatch::ANY;
    m.set(FieldId::EthType, 0x800);
    match rng.random_range(0..3) {
        0 => m.set(FieldId::NwDst, rng.random_range(0..200)),
        1 => m.set_masked(FieldId::NwDst, rng.random_range(0..20u128) << 8, 0xffff_ff00),
        _ => m.set(FieldId::NwSrc, rng.random_range(0..50)),
    }
    let command = match rng.random_range(0..200) {
        0 => FlowModCommand::Delete,
        1 => FlowModCommand::ModifyStrict,
        2 => FlowModCommand::DeleteStrict,
        _ => FlowModCommand::Add,
    };
    let flags = [FlowModFlags::NONE, FlowModFlags::RESET_COUNTS, FlowModFlags::SEND_FLOW_REM];
    FlowMod {
        cookie: rng.random_range(0..4),
        table: TableId(rng.random_range(0..2)),
        priority: rng.random_range(1..4),
        hard_timeout: rng.random_range(0..2) * 100,
        flags: flags[rng.random_range(0..3)],
        matches: m,
        instructions: output(rng.random_range(1..4)),
        ..FlowMod::new(command)
    }
}

/// Every flow and what it has counted.
fn flows(b: &Bridge) -> Vec<String> {
    let mut all: Vec<String> = b
        .pipeline()
        .tables()
        .flat_map(|(_, t)| t.rules.rules().map(|f| f.rule.clone()))
        .map(|r| {
            let m = flow::text::ofctl::format(&r.matches.expand());
            let times = (r.created, r.last_used(), r.idle_timeout, r.hard_timeout);
            format!(
                "{} {} {m} {} {:?} {times:?} {} {:?}",
                r.table,
                r.priority,
                r.cookie,
                r.flags,
                r.packets(),
                r.instructions
            )
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_bundle_leaves_what_its_messages_would_leave_one_by_one() {
    for seed in 0..20 {
        let mut rng = SmallRng::seed_from_u64(seed);
        let (one, many) = (Rig::new(), Rig::new());
        for round in 0..4 {
            let mods: Vec<FlowMod> = (0..400).map(|_| random_mod(&mut rng)).collect();
            for fm in &mods {
                one.flow_mod(fm.clone()).unwrap();
            }
            commit(&many.bridge, CONN, &mods).unwrap();
            assert_eq!(flows(&one.bridge), flows(&many.bridge), "seed {seed} round {round}");
            for r in [&one, &many] {
                r.clock.advance(Duration::from_secs(1));
                for (_, t) in r.bridge.pipeline().tables() {
                    t.rules.rules().for_each(|f| f.rule.credit(1, 60, Some(r.clock.now())));
                }
            }
        }
    }
}

#[test]
fn a_bundle_that_fails_names_its_message_and_changes_nothing() {
    let r = Rig::new();
    let add = |n: u128, flags| {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::EthType, 0x800);
        m.set(FieldId::NwDst, n);
        FlowMod { matches: m, instructions: output(1), flags, ..FlowMod::new(FlowModCommand::Add) }
    };
    let plain: Vec<FlowMod> = (0..100).map(|n| add(n, FlowModFlags::NONE)).collect();
    commit(&r.bridge, CONN, &plain).unwrap();
    let before = flows(&r.bridge);
    let fails = |fm: FlowMod, code: ErrorCode| {
        let mut mods: Vec<FlowMod> = (200..300).map(|n| add(n, FlowModFlags::NONE)).collect();
        mods.insert(60, fm);
        assert_eq!(commit(&r.bridge, CONN, &mods), Err((60, code)));
        assert_eq!(flows(&r.bridge), before);
    };
    // It overlaps one that came before it in the bundle, with another mask.
    let mut wide = add(0, FlowModFlags::CHECK_OVERLAP);
    wide.matches = PipelineMatch::ANY;
    wide.matches.set(FieldId::EthType, 0x800);
    wide.matches.set_masked(FieldId::NwDst, 208, 0xffff_fff8);
    fails(wide, FlowModFailed::Overlap.into());
    // An option that only another bridge has mapped.
    let option = options::Mapping { index: 40, class: 0xfff2, kind: 3, bytes: 4 };
    options::map(option).unwrap();
    let mut with_option = add(401, FlowModFlags::NONE);
    options::require(&mut with_option.matches, 40, &[0, 0, 0, 1], &[0xff; 4]);
    fails(with_option, Nicira::InvalidTlvField.into());
    options::unmap(option);
    let to_group = Instructions::apply(vec![Action::Group(GroupId(7))]);
    fails(FlowMod { instructions: to_group, ..add(400, FlowModFlags::NONE) }, BadAction::BadOutGroup.into());
}
