//! Replication groups: a frame to many ports by an engine that works while the action engine goes on.

use simnic_defs::cmd::TABLE_EXACT;
use simnic_defs::{CmdDesc, CmdStatus, HwAction, Opcode};

use super::{device, settle, to_dst};
use crate::raw_host::RawHost;
use crate::{Config, DropReason, frames};

fn set(h: &mut RawHost, group: u32, ports: u64) -> u8 {
    let mut d = CmdDesc::new(Opcode::GroupSet, 0);
    (d.entry, d.arg) = (group.into(), ports.into());
    h.command(d).unwrap().status
}

fn frame(n: u8) -> Vec<u8> {
    frames::udp4([10, 0, 0, n], [10, 0, 0, 2], 1, 2)
}

#[test]
fn every_port_of_a_group_gets_the_frame_as_it_was_then() {
    let (sim, mut h) = device(Config::default());
    assert_eq!(set(&mut h, 3, 0b1101), 0);
    let tag = HwAction::PushVlan { tpid: 0x8100, tci: 7 };
    let actions = [HwAction::Replicate { group: 3 }, tag, HwAction::Output { port: 1 }];
    let c = h.install_exact(0, &to_dst([10, 0, 0, 2], &actions)).unwrap();
    assert_eq!(c.status, CmdStatus::Ok as u8);
    sim.inject(0, &frame(1));
    settle(&sim);
    for port in [0, 2, 3] {
        assert_eq!(sim.collect(port), [frame(1)], "port {port}");
    }
    assert_eq!(sim.collect(1), [frames::tagged(&[(0x8100, 7)], &frame(1))]);
    let a = sim.account();
    assert_eq!((a.injected, a.copies), (1, 3));
    assert_eq!(sim.fault_count(), 0, "{:?}", sim.faults());
}

#[test]
fn groups_that_entries_use_stay_and_those_that_make_no_sense_are_refused() {
    let (sim, mut h) = device(Config::default());
    let replicate = |group| to_dst([10, 0, 0, 2], &[HwAction::Replicate { group }]);
    assert_eq!(h.install_exact(0, &replicate(0)).unwrap().status, CmdStatus::BadObject as u8);
    assert_eq!(set(&mut h, 64, 1), CmdStatus::BadObject as u8);
    assert_eq!(set(&mut h, 0, 0), CmdStatus::BadPort as u8);
    assert_eq!(set(&mut h, 0, 0x10), CmdStatus::BadPort as u8, "the device has four ports");
    assert_eq!(set(&mut h, 0, 0b0110), 0);
    let c = h.install_exact(0, &replicate(0)).unwrap();
    assert_eq!(set(&mut h, 0, 0b1000), CmdStatus::ProfileBusy as u8);
    let mut d = CmdDesc::new(Opcode::Remove, 0);
    (d.table, d.entry) = (TABLE_EXACT, c.entry);
    assert_eq!(h.command(d).unwrap().status, 0);
    assert_eq!(set(&mut h, 0, 0b1000), 0);
    h.install_exact(0, &replicate(0)).unwrap();
    // A port that is down loses its copy and no other.
    assert_eq!(h.port_set(3, false).unwrap().status, 0);
    sim.inject(0, &frame(1));
    settle(&sim);
    assert_eq!(sim.drops(), [(3, DropReason::EgressDown, 1)]);
}

#[test]
fn the_action_engine_goes_on_while_copies_are_made() {
    // Twelve copies of each frame of one flow, and frames of another that go to one port.
    let run = |grouped: bool| {
        let mut c = Config::default();
        (c.device.ports, c.port.ingress_queue_frames, c.port.egress_queue_frames) = (16, 4096, 4096);
        (c.port.speed_mbps, c.ternary.interval_cycles) = (400_000, 1);
        (c.groups.buffer_frames, c.groups.interval_cycles) = (1024, 1);
        let (sim, mut h) = device(c);
        assert_eq!(set(&mut h, 0, 0x00ff), 0);
        let flood: Vec<HwAction> = match grouped {
            true => vec![HwAction::Replicate { group: 0 }],
            false => (0..8).map(|port| HwAction::Output { port }).collect(),
        };
        h.install_exact(0, &to_dst([10, 0, 0, 2], &flood)).unwrap();
        h.install_exact(0, &to_dst([10, 0, 0, 3], &[HwAction::Output { port: 15 }])).unwrap();
        let start = sim.cycle().0;
        for i in 0..500 {
            sim.inject(0, &frame(i as u8));
            sim.inject(1, &frames::udp4([10, 0, 0, 1], [10, 0, 0, 3], 1, 2));
        }
        settle(&sim);
        for port in 0..8 {
            let out = sim.collect(port);
            let numbers: Vec<u8> = out.iter().map(|f| f[29]).collect();
            assert_eq!(numbers, (0..500).map(|i| i as u8).collect::<Vec<_>>(), "port {port}");
        }
        assert_eq!(sim.collect(15).len(), 500);
        assert_eq!(sim.drops(), []);
        let busy = |name: &str| {
            let s = sim.stats();
            s.stages.iter().find(|s| s.name == name).map(|s| (s.accepted, s.busy_cycles)).unwrap()
        };
        (sim.cycle().0 - start, busy("action"), busy("groups"))
    };
    let ((alone, action, none), (shared, freed, groups)) = (run(false), run(true));
    assert_eq!((action.0, none.0), (500 * 8 + 500, 0));
    assert_eq!((freed.0, groups.0), (1000, 500 * 8), "one slot of the action engine for each frame");
    assert!(shared < alone, "{shared} cycles, {alone} without groups");
}

#[test]
fn a_full_replication_engine_makes_the_action_engine_wait_and_loses_nothing() {
    let mut c = Config::default();
    (c.groups.buffer_frames, c.groups.interval_cycles, c.port.ingress_queue_frames) = (1, 50, 512);
    let (sim, mut h) = device(c);
    set(&mut h, 0, 0b1110);
    h.install_exact(0, &to_dst([10, 0, 0, 2], &[HwAction::Replicate { group: 0 }])).unwrap();
    for i in 0..200 {
        sim.inject(0, &frame(i as u8));
    }
    settle(&sim);
    assert_eq!([1, 2, 3].map(|p| sim.collect(p).len()), [200; 3]);
    let s = sim.stats();
    assert!(s.stages.iter().any(|s| s.name == "action" && s.stalled_output_cycles > 0), "{:?}", s.stages);
}
