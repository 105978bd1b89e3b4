//! Bonds by connection whose members the datapath chooses: what the table says, what flows say, and what happens when load moves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::time::Duration;

use bonds::{BondMode, BondSettings, Lacp, LacpPort, LacpSettings};
use datapath_api::{BucketCounts, FlowRecord};
use flow::{Action, BondId, FieldId, PortId};
use ofproto::{Aggregation, Port, PortSettings};
use openflow::number::MacAddr;
use openflow::port::PortState;
use openflow::{Action as OfAction, Instructions, PortNo};
use rig::{Rig, answer, matching, recirc_id, udp};

const LACP: LacpSettings =
    LacpSettings { active: true, system: None, priority: 65534, fast: true, fallback_ab: false };

/// A bridge that only switches, with ports 1 to 4, of which 2 and 3 are members of a bond, and the other end of that.
struct Bonded {
    r: Rig,
    peer: Lacp,
}

impl Bonded {
    fn new(lb_output: bool) -> Bonded {
        let r = Rig::new();
        let normal = OfAction::Output { port: PortNo::NORMAL, max_len: 0 };
        r.add(0, 1, matching(&[]), Instructions::apply(vec![normal]));
        r.bridge.put_port(Port::new(PortNo::LOCAL, PortId(100), "br0", MacAddr([2, 0, 0, 0, 9, 1])));
        let mut peer = Lacp::new("peer", LACP, [2, 0, 0, 0, 9, 2]);
        for no in [2, 3] {
            peer.put_member(no, &format!("q{no}"), LacpPort::default(), [2, 0, 0, 0, 8, no as u8], r.now());
            peer.set_carrier(no, true, r.now());
        }
        let mut b = Bonded { r, peer };
        b.set(lb_output);
        b.go(2000);
        b
    }

    fn set(&self, lb_output: bool) {
        let bond = BondSettings { mode: BondMode::BalanceTcp, lb_output, ..BondSettings::default() };
        for no in [2, 3] {
            let aggregation = Aggregation {
                name: "bond0".into(),
                bond: Some(bond.clone()),
                lacp: Some(LACP),
                port: LacpPort::default(),
            };
            let settings = PortSettings { aggregation: Some(aggregation), ..PortSettings::default() };
            assert!(self.r.bridge.set_port_settings(PortNo(no), settings));
        }
    }

    fn go(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.r.clock.advance(Duration::from_millis(100));
            self.r.switch.run(self.r.now());
            for (frame, _, actions) in std::mem::take(&mut *self.r.dp.executed.lock().unwrap()) {
                if let [Action::Output(PortId(p @ (12 | 13)))] = actions[..] {
                    self.peer.receive(p - 10, &frame, self.r.now());
                }
            }
            self.peer.run(self.r.now());
            for (member, frame) in self.peer.emit(self.r.now()) {
                // Each is to be a miss: only those are handed to the switch here.
                let is_unit = |r: &FlowRecord| matches!(r.actions[..], [Action::Controller(_)]);
                self.r.dp.flows.lock().unwrap().retain(|_, r| !is_unit(r));
                self.r.packet(&frame, member);
            }
        }
    }

    fn text(&self) -> String {
        self.r.switch.bond_text(Some("bond0")).unwrap()
    }

    /// The only table that the datapath has.
    fn table(&self) -> (BondId, Vec<u32>) {
        let bonds = self.r.dp.bonds.lock().unwrap();
        let [(id, (config, _))] = &bonds.iter().collect::<Vec<_>>()[..] else { panic!("{bonds:?}") };
        (**id, config.members.iter().map(|p| p.unwrap().0).collect())
    }

    /// What a packet from port 1 to a station behind the bond meets.
    fn packet(&self, port: u16) -> Vec<Action> {
        self.r.packet(&frame(1, 9, port), 1)
    }
}

fn frame(from: u8, to: u8, port: u16) -> Vec<u8> {
    udp([10, 0, 0, from], [10, 0, 0, to], port, 2).eth([2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]).build()
}

#[test]
fn a_table_says_what_going_round_with_a_hash_comes_to() {
    let mut plain = Bonded::new(false);
    plain.r.packet(&frame(9, 1, 5), 2);
    plain.r.switch.run(plain.r.now());
    let round = plain.packet(7);
    assert!(matches!(round[..], [Action::Hash { .. }, Action::Recirc(_)]), "{round:?}");
    assert!(plain.text().contains("\nlb_output action: disabled, bond-id: -1\n"));
    assert!(plain.r.dp.bonds.lock().unwrap().is_empty());
    let by_hash = |b: &Bonded, id: u32, hash: u32| {
        let mut key = flow::parse(&frame(1, 9, 7), PortId(11)).unwrap().key;
        key.set(FieldId::RecircId, id.into());
        key.set(FieldId::DpHash, u128::from(hash | 0x100));
        let [Action::Output(p)] = answer(&b.r, key).actions[..] else { panic!("not one output") };
        p.0
    };
    let ways: Vec<u32> = (0..256).map(|h| by_hash(&plain, recirc_id(&round), h)).collect();
    // The same bond, changed while flows are there.
    plain.set(true);
    plain.go(300);
    let (id, table) = plain.table();
    assert_eq!(table, ways);
    assert_eq!(plain.packet(7), [Action::LbOutput(id)]);
    let enabled = format!("\nlb_output action: enabled, bond-id: {}\n", id.0);
    assert!(plain.text().contains(&enabled), "{}", plain.text());
    assert!(!plain.r.bridge.dump_flows().contains("dp_hash"));
    // And back: the table goes when no flow names it.
    plain.set(false);
    plain.go(300);
    assert!(plain.r.dp.bonds.lock().unwrap().is_empty());
    assert!(matches!(plain.packet(7)[..], [Action::Hash { .. }, Action::Recirc(_)]));
}

#[test]
fn load_that_moves_changes_the_table_and_no_flow() {
    let mut b = Bonded::new(true);
    b.r.packet(&frame(9, 1, 5), 2);
    b.r.switch.run(b.r.now());
    let (id, before) = b.table();
    assert_eq!(b.packet(7), [Action::LbOutput(id)]);
    b.go(300);
    b.r.told.records.lock().unwrap().clear();
    let published = b.r.bridge.pipeline();
    let busy: Vec<usize> = (0..256).filter(|i| before[*i] == 12).take(3).collect();
    for _ in 0..22 {
        for i in &busy {
            let mut bonds = b.r.dp.bonds.lock().unwrap();
            let c: &mut BucketCounts = &mut bonds.get_mut(&id).unwrap().1[*i];
            (c.packets, c.bytes) = (c.packets + 1000, c.bytes + 1_000_000);
        }
        b.go(500);
    }
    let (_, after) = b.table();
    let moved: Vec<usize> = (0..256).filter(|i| before[*i] != after[*i]).collect();
    assert!(!moved.is_empty() && moved.iter().all(|i| busy.contains(i)), "{moved:?} of {busy:?}");
    assert!(b.text().contains("  hash "), "{}", b.text());
    let told = b.r.told.records.lock().unwrap().clone();
    assert!(told.iter().all(|t| t.starts_with('+')), "{told:?}");
    assert!(std::ptr::eq(&*b.r.bridge.pipeline(), &*published), "nothing was published");
    assert_eq!(b.packet(7), [Action::LbOutput(id)]);
}

#[test]
fn a_member_that_goes_down_leaves_the_table_at_once() {
    let mut b = Bonded::new(true);
    b.r.packet(&frame(9, 1, 5), 2);
    b.r.switch.run(b.r.now());
    let (id, before) = b.table();
    assert!(before.contains(&12) && before.contains(&13));
    let p = b.r.bridge.pipeline().ports.get(PortNo(2)).unwrap().clone();
    b.r.bridge.put_port(Port { state: PortState::LINK_DOWN, ..p });
    b.go(100);
    assert_eq!(b.table(), (id, vec![13; 256]));
    // Without any member there is no bond, and no table.
    for no in [2, 3] {
        b.r.bridge.remove_port(PortNo(no));
    }
    b.go(300);
    assert!(b.r.dp.bonds.lock().unwrap().is_empty());
}
