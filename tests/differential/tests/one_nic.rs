//! The differential property with an Intel 82599 at each port: what comes out of the switch is what comes out of software alone, also while
//! its filters drop.
#![allow(clippy::unwrap_used)]

use differential::frames::{Kind, random_frame};
use differential::generate::{ADDRS, PORT_NUMBERS, PORTS, TABLES, pick, random_flow, random_miss_flow};
use differential::rig::{Outcome, Rig};
use differential::setup::Setup;
use flow::frame::FrameBuilder;
use flow::{FieldId, PipelineMatch};
use openflow::FlowMod;
use openflow::flow_mod::FlowModCommand;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// A flow that drops: UDP or TCP, by address, by port, by tag.
fn dropping(r: &mut SmallRng, serial: u16) -> FlowMod {
    let mut m = PipelineMatch::ANY;
    m.set(FieldId::EthType, 0x0800);
    m.set(FieldId::NwProto, pick(r, &[6, 17]));
    if r.random_bool(0.5) {
        m.set(FieldId::NwDst, pick(r, &ADDRS).into());
    }
    if r.random_bool(0.7) {
        m.set(FieldId::TpDst, pick(r, &PORT_NUMBERS).into());
    }
    if r.random_bool(0.2) {
        m.set_masked(FieldId::VlanTci, 0x1000, 0x1000);
    }
    let priority = 60_001 + serial;
    FlowMod { matches: m, priority, cookie: u64::from(serial), ..FlowMod::new(FlowModCommand::Add) }
}

/// Frames as a wire carries them: no shorter than 60 bytes.
fn on_a_wire(mut o: Outcome) -> Outcome {
    for (_, f) in &mut o.out {
        f.resize(f.len().max(60), 0);
    }
    for (.., f) in &mut o.punts {
        f.resize(f.len().max(60), 0);
    }
    o.sorted()
}

fn frame(r: &mut SmallRng) -> Vec<u8> {
    let mut f = if r.random_bool(0.5) {
        let f = FrameBuilder::new().eth([2; 6], [4; 6]);
        let f = if r.random_bool(0.2) { f.vlan(5, 0) } else { f };
        let f = f.ipv4(pick(r, &ADDRS), pick(r, &ADDRS));
        let (s, d) = (pick(r, &PORT_NUMBERS), pick(r, &PORT_NUMBERS));
        if r.random_bool(0.5) { f.udp(s, d).build() } else { f.tcp(s, d).build() }
    } else {
        loop {
            // What is malformed is malformed in ways that no filter looks at.
            let (kind, f) = random_frame(r);
            if kind != Kind::Malformed {
                break f;
            }
        }
    };
    f.resize(f.len().max(60), 0);
    f
}

#[test]
fn software_alone_and_filters_with_software_agree() {
    let (mut dropped, mut most, mut outputs) = (0, 0, 0);
    for seed in 0..8u64 {
        let mut r = SmallRng::seed_from_u64(seed);
        let mut soft = Rig::software(seed, &Setup::plain()).unwrap();
        let mut hard = Rig::with_ixgbe(seed, &Setup::plain()).unwrap();
        let mut flows: Vec<_> = (0..TABLES).map(|t| random_miss_flow(&mut r, t)).collect();
        flows.extend((1..20).map(|i| random_flow(&mut r, i)));
        flows.extend((0..6).map(|i| dropping(&mut r, i)));
        for round in 0..12 {
            for fm in flows.drain(..) {
                let one = std::slice::from_ref(&fm);
                assert_eq!(soft.apply(one), hard.apply(one), "seed {seed}");
            }
            let favourites: Vec<_> = (0..16).map(|_| (r.random_range(1..=PORTS), frame(&mut r))).collect();
            for burst in 0..60 {
                let some: Vec<_> = (0..r.random_range(1..8)).map(|_| pick_of(&mut r, &favourites)).collect();
                for (port, f) in &some {
                    soft.send(*port, f).unwrap();
                    hard.send(*port, f).unwrap();
                }
                soft.pump();
                hard.pump();
                let (a, b) = (on_a_wire(soft.collect()), on_a_wire(hard.collect()));
                outputs += a.out.len();
                if a != b {
                    let why: String = some.iter().map(|(p, f)| hard.explain(*p, f)).collect();
                    panic!("seed {seed} round {round} burst {burst}: {a:?}\nwith filters {b:?}\n{why}");
                }
                if burst % 10 == 5 {
                    soft.settle().unwrap();
                    hard.settle().unwrap();
                    most = most.max(hard.placed().0);
                }
            }
            let n = 100 + 10 * round;
            flows.push(random_flow(&mut r, n));
            flows.push(dropping(&mut r, n));
        }
        let (filtered, faults) = hard.filtered();
        dropped += filtered;
        assert_eq!(faults, 0, "seed {seed}");
    }
    println!(
        "FIGURE differential ixgbe: {outputs} outputs, {dropped} frames dropped by filters, {most} records placed"
    );
    assert!(
        dropped > 200 && most > 3 && outputs > 1000,
        "{outputs} outputs, {dropped} dropped, {most} placed"
    );
}

fn pick_of(r: &mut SmallRng, all: &[(u32, Vec<u8>)]) -> (u32, Vec<u8>) {
    all[r.random_range(0..all.len())].clone()
}
