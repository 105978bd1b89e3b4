//! Packets that leave by a bond of the datapath: by which port, when the bond changes, and what is counted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::collections::BTreeMap;

use datapath_api::{BOND_BUCKETS, BondConfig, Datapath, DatapathError, DropReason};
use flow::frame::FrameBuilder;
use flow::{Action, BondId, FieldId, HashAlg, PortId};
use rig::{Rig, drops};

const BOND: BondId = BondId(7);

/// Buckets by turns to ports 2 and 3.
fn by_turns(basis: u32) -> BondConfig {
    let port = |i: usize| Some(PortId(2 + i as u32 % 2));
    BondConfig { basis, members: Box::new(std::array::from_fn(port)) }
}

fn frame(n: u16) -> Vec<u8> {
    FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1000 + n, 80).payload(&n.to_be_bytes()).build()
}

fn rig() -> Rig {
    let rig = Rig::new(4);
    // One megaflow for all: which port a packet takes is not for flows to say.
    rig.handler.match_fields(&[FieldId::DpPort, FieldId::RecircId]);
    rig.handler.set_actions(vec![Action::LbOutput(BOND)]);
    rig
}

/// Which of ports 2 and 3 each of 200 connections leaves by.
fn ways(rig: &mut Rig) -> BTreeMap<Vec<u8>, u32> {
    (0..200).for_each(|n| rig.send(1, &frame(n)));
    while rig.poll() > 0 {}
    let by = |rig: &mut Rig, p| rig.received(p).into_iter().map(move |f| (f, p)).collect::<Vec<_>>();
    by(rig, 2).into_iter().chain(by(rig, 3)).collect()
}

#[test]
fn a_connection_leaves_by_the_port_of_its_bucket_under_one_flow() {
    let mut rig = rig();
    rig.dp.bond_put(BOND, by_turns(0)).unwrap();
    let first = ways(&mut rig);
    let by = |w: &BTreeMap<_, u32>, p| w.values().filter(|q| **q == p).count();
    assert_eq!(first.len(), 200);
    assert!(by(&first, 2) > 60 && by(&first, 3) > 60, "{} and {}", by(&first, 2), by(&first, 3));
    assert_eq!(ways(&mut rig), first, "a connection keeps its port");
    let asked = rig.handler.asked();
    assert_eq!(rig.flows().len(), 1);
    // A load is moved: the flow stays, and so do the others' ports.
    let swapped = rig.dp.bond_stats(BOND).unwrap().iter().position(|c| c.packets > 0).unwrap();
    let mut config = by_turns(0);
    let now = PortId(5 - config.members[swapped].unwrap().0);
    config.members[swapped] = Some(now);
    rig.dp.bond_put(BOND, config.clone()).unwrap();
    let moved = ways(&mut rig);
    let differ: Vec<_> = first.iter().filter(|(f, p)| moved[*f] != **p).collect();
    let in_bucket = rig.dp.bond_stats(BOND).unwrap()[swapped];
    assert!(!differ.is_empty() && in_bucket.packets == 3 * differ.len() as u64, "{differ:?} {in_bucket:?}");
    assert!(differ.iter().all(|(f, _)| moved[*f] == now.0));
    assert_eq!((rig.handler.asked(), rig.dp.bonds()), (asked, vec![(BOND, config)]), "nobody is asked again");
    let sum = rig.dp.bond_stats(BOND).unwrap().iter().fold((0, 0), |s, c| (s.0 + c.packets, s.1 + c.bytes));
    assert_eq!(sum, (600, 600 * frame(0).len() as u64), "what was counted carries on");
}

#[test]
fn the_bucket_is_that_of_the_hash_that_a_packet_goes_round_with() {
    let mut rig = rig();
    for basis in [0, 9] {
        rig.dp.bond_put(BOND, by_turns(basis)).unwrap();
        let ways = ways(&mut rig);
        rig.handler.set_actions(vec![Action::Hash { alg: HashAlg::L4, basis }, Action::Recirc(3)]);
        rig.dp.flow_flush();
        for (frame, port) in &ways {
            rig.handler.set_install(false);
            rig.send(1, frame);
            rig.poll();
            let hash = rig.handler.last_miss().unwrap().key.get(FieldId::DpHash);
            assert_eq!(2 + hash as u32 % BOND_BUCKETS as u32 % 2, *port, "basis {basis}");
        }
        rig.handler.set_actions(vec![Action::LbOutput(BOND)]);
    }
}

#[test]
fn what_falls_on_no_port_is_dropped_and_counted() {
    let mut rig = rig();
    rig.send(1, &frame(1));
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::NoBondMember, 1)]);
    rig.dp.bond_put(BOND, BondConfig { basis: 0, members: Box::new([None; BOND_BUCKETS]) }).unwrap();
    rig.send(1, &frame(1));
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::NoBondMember, 2)]);
    assert!(rig.dp.bond_stats(BOND).unwrap().iter().all(|c| c.packets == 0));
    rig.dp.bond_del(BOND).unwrap();
    assert!(matches!(rig.dp.bond_del(BOND), Err(DatapathError::NoSuchBond(BOND))));
    assert!(matches!(rig.dp.bond_stats(BOND), Err(DatapathError::NoSuchBond(BOND))));
    assert_eq!(rig.dp.bonds(), []);
}

#[test]
fn a_copy_by_a_bond_is_cut_and_the_packet_is_what_it_was_changed_to() {
    let mut rig = rig();
    let whole = |p| BondConfig { basis: 0, members: Box::new([Some(PortId(p)); BOND_BUCKETS]) };
    rig.dp.bond_put(BOND, whole(2)).unwrap();
    rig.dp.bond_put(BondId(8), whole(3)).unwrap();
    let port = Action::SetField { field: FieldId::TpDst, value: 99, mask: 0xffff };
    rig.handler.set_actions(vec![
        port,
        Action::Trunc(30),
        Action::LbOutput(BOND),
        Action::LbOutput(BondId(8)),
    ]);
    rig.send(1, &frame(1));
    rig.poll();
    let (cut, rest) = (rig.received(2), rig.received(3));
    assert_eq!((cut.len(), rest.len()), (1, 1));
    assert_eq!((cut[0].len(), &cut[0][..]), (30, &rest[0][..30]));
    assert_eq!((rest[0].len(), &rest[0][36..38]), (frame(1).len(), &[0, 99][..]));
    let sent: u64 = rig.dp.bond_stats(BOND).unwrap().iter().map(|c| c.bytes).sum();
    assert_eq!(sent, 30);
}
