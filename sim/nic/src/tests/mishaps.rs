//! Failures by script: each has its effect, at its cycle, with skipping and without.

use simnic_defs::cmd::TABLE_EXACT;
use simnic_defs::regs::{ALL_ONES, QueueReg, Reg, fault, port_status};
use simnic_defs::{CmdDesc, CmdStatus, HwAction, Opcode, PortReg};

use super::{device, interrupting_ring, settle, to_dst};
use crate::{Config, DropReason, Mishap, Scripted, frames};

fn at(cycle: u64, what: Mishap) -> Scripted {
    Scripted { cycle, what }
}

fn to_one() -> Vec<u8> {
    frames::udp4([1, 1, 1, 1], [10, 0, 0, 1], 5, 6)
}

/// What a device did under a script of everything that does not end it.
fn run(skipping: bool) -> (crate::SimStats, Vec<Vec<Vec<u8>>>, Vec<crate::DriverFault>) {
    let (sim, mut h) = device(Config::default());
    h.install_exact(0, &to_dst([10, 0, 0, 1], &[HwAction::DecTtl, HwAction::Output { port: 1 }])).unwrap();
    let tx = h.transmit_ring(2, 0).unwrap();
    sim.set_skipping(skipping);
    let base = sim.cycle().0;
    sim.play(&[
        at(base + 5000, Mishap::Carrier { port: 1, up: false }),
        at(base + 5500, Mishap::Carrier { port: 1, up: true }),
        at(base + 500, Mishap::SlowCommands(3)),
        at(base + 600, Mishap::FailCommands(1)),
        at(base + 700, Mishap::LoseInterrupts(1)),
        at(base + 1000, Mishap::BitErrors { port: 0, frames: 3 }),
        at(base + 2000, Mishap::Stuck { receive: false, port: 2, queue: 0, stuck: true }),
        at(base + 7000, Mishap::Stuck { receive: false, port: 2, queue: 0, stuck: false }),
        at(base + 8000, Mishap::Parity { table: TABLE_EXACT, slot: 1 << 14 }),
        at(base + 9000, Mishap::Reset),
    ]);
    let _ = tx;
    for _ in 0..100 {
        sim.inject(0, &to_one());
        sim.step(97);
    }
    let stats = sim.stats();
    (stats, (0..4).map(|p| sim.collect(p)).collect(), sim.faults())
}

#[test]
fn a_script_takes_effect_at_its_cycles_whether_empty_cycles_are_jumped_over_or_not() {
    let (a, b) = (run(true), run(false));
    assert!(a == b, "skipping changes what a script does: {:#?} {:#?}", a.0, b.0);
    assert!(!a.1[1].is_empty());
    let lost =
        |r| a.0.ports.iter().flat_map(|p| &p.drops).filter(|d| d.reason == r).map(|d| d.frames).sum::<u64>();
    assert_eq!(lost(DropReason::Fcs), 3);
    // 500 cycles without carrier at one frame in 97.
    assert!((4..=7).contains(&lost(DropReason::EgressDown)), "{:?}", a.0.ports[1]);
    // The reset at 9000 is not over yet.
    assert!(!a.0.ports[0].up && a.0.frames.inside > 0, "{:?}", a.0);
}

#[test]
fn a_link_flap_is_seen_by_the_driver_and_ends() {
    let (sim, h) = device(Config::default());
    let now = sim.cycle().0;
    sim.play(&[
        at(now + 100, Mishap::Carrier { port: 3, up: false }),
        at(now + 300, Mishap::Carrier { port: 3, up: true }),
    ]);
    let link = |h: &crate::raw_host::RawHost| h.read(PortReg::STATUS.of(3)) & port_status::LINK_UP != 0;
    sim.step(100);
    assert!(link(&h), "not a cycle too early");
    sim.step(1);
    assert!(!link(&h));
    sim.step(200);
    assert!(link(&h));
}

#[test]
fn a_stuck_receive_queue_holds_its_frames_until_it_is_released() {
    let (sim, mut h) = device(Config::default());
    let mut rx = h.receive_ring(0, 0).unwrap();
    for _ in 0..8 {
        rx.post_receive();
    }
    h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
    sim.step(2000);
    sim.play(&[at(0, Mishap::Stuck { receive: true, port: 0, queue: 0, stuck: true })]);
    sim.step(1);
    sim.inject(0, &to_one());
    sim.step(5000);
    assert!(rx.take_received().is_none());
    sim.play(&[at(0, Mishap::Stuck { receive: true, port: 0, queue: 0, stuck: false })]);
    settle(&sim);
    assert_eq!(rx.take_received().unwrap().1, to_one());
}

/// Three frames, a message each; the second message is lost, and nothing else is.
#[test]
fn an_interrupt_that_is_lost_by_script_is_the_next_from_its_cycle_on_and_no_other() {
    for skipping in [true, false] {
        let (sim, mut h) = device(Config::default());
        sim.set_skipping(skipping);
        let (irq, mut rx) = interrupting_ring(&mut h);
        settle(&sim);
        let base = sim.cycle().0;
        // The first message is long sent at this cycle, the second is not.
        sim.play(&[at(base + 10_000, Mishap::LoseInterrupts(1))]);
        let mut seen = Vec::new();
        for n in 0..3u64 {
            h.write(QueueReg::RX_ARM.of(0, 0), n as u32);
            sim.inject(0, &to_one());
            sim.step(base + 12_000 * (n + 1) - sim.cycle().0);
            assert!(rx.take_received().is_some(), "frame {n}");
            seen.push(irq[2].take());
        }
        assert_eq!(seen, [1, 0, 1], "skipping: {skipping}");
    }
}

#[test]
fn slow_and_failing_commands_take_their_time_and_end_as_aborted() {
    let (sim, mut h) = device(Config::default());
    let time = |h: &mut crate::raw_host::RawHost| {
        let before = sim.cycle().0;
        let c = h.command(CmdDesc::new(Opcode::Nop, 0)).unwrap();
        (c.status, sim.cycle().0 - before)
    };
    let (_, usual) = time(&mut h);
    sim.play(&[at(0, Mishap::SlowCommands(1000)), at(0, Mishap::FailCommands(1))]);
    let (status, slow) = time(&mut h);
    assert_eq!(status, CmdStatus::Aborted as u8);
    assert!(slow > usual + 7000, "{usual} {slow}");
    sim.play(&[at(0, Mishap::SlowCommands(1))]);
    assert_eq!(time(&mut h).0, CmdStatus::Ok as u8);
}

#[test]
fn an_entry_with_a_parity_error_is_found_by_no_frame_until_it_is_written_again() {
    let (sim, mut h) = device(Config::default());
    let rule = to_dst([10, 0, 0, 1], &[HwAction::Output { port: 1 }]);
    let name = h.install_exact(0, &rule).unwrap().entry.get();
    let slot = name & 0xf_ffff;
    sim.inject(0, &to_one());
    settle(&sim);
    assert_eq!(sim.collect(1).len(), 1);
    sim.play(&[at(0, Mishap::Parity { table: TABLE_EXACT, slot })]);
    sim.inject(0, &to_one());
    settle(&sim);
    assert_eq!((sim.collect(1).len(), h.read(Reg::FAULT)), (0, fault::PARITY));
    assert_eq!((h.read(Reg::FAULT_INFO), h.read(Reg::FAULT_ADDR)), (0, slot));
    let said = sim.faults().last().unwrap().to_string();
    assert!(said.ends_with(&format!("table 0: parity error in table entry, slot {slot:#x}")), "{said}");
    let mut d = CmdDesc::new(Opcode::Replace, 0);
    d.entry = name.into();
    let c = h.command_with(d, zerocopy::IntoBytes::as_bytes(&rule)).unwrap();
    assert_eq!((c.status, c.packets.get()), (0, 1), "counters go on");
    sim.inject(0, &to_one());
    settle(&sim);
    assert_eq!(sim.collect(1).len(), 1);
}

#[test]
fn a_device_that_is_removed_by_script_reads_all_ones_and_comes_back() {
    let (sim, h) = device(Config::default());
    let now = sim.cycle().0;
    sim.play(&[at(now + 50, Mishap::Remove), at(now + 90, Mishap::Repair)]);
    sim.step(60);
    assert_eq!(h.read(Reg::ID), ALL_ONES);
    sim.step(60);
    assert_ne!(h.read(Reg::ID), ALL_ONES);
    assert!(sim.account().balances());
}
