//! `check_pkt_larger`: one record for packets of any length.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use flow::{Action, FieldId, LengthCheck, PipelineMatch};
use openflow::extension::CheckPktLarger;
use openflow::{Action as OfAction, Instructions, Subfield, TableId};
use rig::*;

const FRAME: [u8; 14] = [0, 1, 2, 3, 4, 5, 2, 0, 0, 0, 0, 9, 0x12, 0x34];
const BIT: Subfield = Subfield { field: FieldId::Reg0, offset: 0, bits: 1 };

fn check(bytes: u16) -> OfAction {
    OfAction::CheckPktLarger(Box::new(CheckPktLarger { bytes, dst: BIT }))
}

fn longer() -> PipelineMatch {
    let mut m = PipelineMatch::ANY;
    m.set_masked(FieldId::Reg0, 1, 1);
    m
}

fn by_length(bytes: u16, longer: Vec<Action>, others: Vec<Action>) -> Action {
    let (longer, others) = (longer.into(), others.into());
    Action::CheckLength(Box::new(LengthCheck { bytes, longer, others }))
}

fn resubmit(table: u8) -> OfAction {
    let port = openflow::PortNo::IN_PORT;
    OfAction::Resubmit { port, table: Some(TableId(table)), with_ct: false }
}

#[test]
fn what_follows_the_check_is_done_by_length() {
    let r = Rig::new();
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![check(200), resubmit(1)]));
    r.add(1, 2, longer(), to(2));
    r.add(1, 1, PipelineMatch::ANY, to(3));
    assert_eq!(r.packet(&FRAME, 1), [by_length(200, vec![out(2)], vec![out(3)])]);
}

#[test]
fn the_table_that_the_rule_goes_on_to_is_among_what_follows() {
    let r = Rig::new();
    let goto_table = Some(TableId(1));
    r.add(0, 1, PipelineMatch::ANY, Instructions { goto_table, ..Instructions::apply(vec![check(100)]) });
    r.add(1, 2, longer(), to(2));
    assert_eq!(r.packet(&FRAME, 1), [by_length(100, vec![out(2)], vec![])]);
}

#[test]
fn what_comes_after_the_table_of_the_check_knows_nothing_of_it() {
    let r = Rig::new();
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![resubmit(1), resubmit(2)]));
    let set = OfAction::SetField { field: FieldId::EthSrc, value: 7, mask: u128::from(u64::MAX >> 16) };
    r.add(1, 1, PipelineMatch::ANY, Instructions::apply(vec![check(100), set, output(2)]));
    r.add(2, 2, longer(), to(2));
    r.add(2, 1, PipelineMatch::ANY, to(3));
    let actions = r.packet(&FRAME, 1);
    let [Action::CheckLength(c), last] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((c.longer.len(), c.longer == c.others), (2, true));
    assert_eq!(*last, out(3));
}

#[test]
fn checks_that_multiply_end() {
    let r = Rig::new();
    let mut actions = vec![check(100); 60];
    actions.push(output(2));
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(actions));
    assert_eq!(r.packet(&FRAME, 1), []);
}
