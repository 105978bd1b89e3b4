//! The differential property with a meter: below its rate hardware and software give what software alone gives, above it what comes
//! out is within a burst of it for each time the meter has changed hands, and no packet is counted twice or not at all. Where a part of
//! its flows finds no room in the device, both sides together keep the rate.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use differential::rig::Rig;
use differential::setup::Setup;
use flow::frame::FrameBuilder;
use flow::{FieldId, MeterId, PipelineMatch};
use openflow::flow_mod::{FlowMod, FlowModCommand};
use openflow::meter::{MeterBand, MeterBandKind, MeterFlags, MeterMod, MeterModCommand};
use openflow::{Action, MeterNo, PortNo};

const METER: MeterNo = MeterNo(5);
/// The datapath's number of the only meter there is.
const IN_DATAPATH: MeterId = MeterId(0);
const BURST: u32 = 64;

/// Packets per second so few that none come while the test runs: only the burst passes.
fn meter(command: MeterModCommand, burst_size: u32, kind: MeterBandKind) -> MeterMod {
    at_rate(command, 1, burst_size, kind)
}

fn at_rate(command: MeterModCommand, rate: u32, burst_size: u32, kind: MeterBandKind) -> MeterMod {
    let bands = vec![MeterBand { kind, rate, burst_size }];
    MeterMod { command, flags: MeterFlags(MeterFlags::PKTPS.0 | MeterFlags::BURST.0), meter: METER, bands }
}

fn metered(dport: u16, out: u32) -> FlowMod {
    let mut m = PipelineMatch::ANY;
    m.set(FieldId::EthType, 0x0800);
    m.set(FieldId::NwProto, 17);
    m.set(FieldId::TpDst, dport.into());
    let mut f = FlowMod { matches: m, priority: dport, ..FlowMod::new(FlowModCommand::Add) };
    f.instructions.meter = Some(METER);
    f.instructions.apply = vec![Action::Output { port: PortNo(out), max_len: 0 }];
    f
}

fn frame(dport: u16) -> Vec<u8> {
    let mut f =
        FrameBuilder::new().eth([2; 6], [4; 6]).ipv4(0x0a00_0001, 0x0a00_0002).udp(1000, dport).build();
    f.resize(f.len().max(60), 0);
    f
}

/// Sends `count` frames of the two flows and says how many came out.
fn send(rig: &mut Rig, count: u32) -> u64 {
    let mut out = 0;
    for i in 0..count {
        rig.send(1, &frame(7 + (i % 2) as u16)).unwrap();
        rig.pump();
        out += rig.collect().out.len() as u64;
    }
    out
}

fn rigs(burst: u32) -> (Rig, Rig) {
    let setup = Setup::plain();
    let mut soft = Rig::software(1, &setup).unwrap();
    let mut hard = Rig::with_nic(1, &setup, nic::Config::default()).unwrap();
    for r in [&mut soft, &mut hard] {
        r.apply_meter(&meter(MeterModCommand::Add, burst, MeterBandKind::Drop)).unwrap();
        r.apply(&[metered(7, 2), metered(8, 3)]).unwrap();
    }
    (soft, hard)
}

#[test]
fn a_meter_below_its_rate_passes_in_hardware_what_software_passes_and_counts_all() {
    let (mut soft, mut hard) = rigs(100_000);
    for round in 0..20 {
        assert_eq!(send(&mut soft, 10), 10, "round {round}");
        assert_eq!(send(&mut hard, 10), 10, "round {round}");
        soft.settle().unwrap();
        hard.settle().unwrap();
    }
    assert!(hard.is_lent(IN_DATAPATH), "all flows of the meter fit the device");
    assert_eq!(hard.placed(), (2, 2));
    assert!(hard.forwarded_by_device() >= 180, "{}", hard.forwarded_by_device());
    assert_eq!(hard.meter(METER), soft.meter(METER));
    assert_eq!(hard.meter(METER), ((200, 200 * 60), (0, 0)));
    assert_eq!(hard.counts(), soft.counts());
}

#[test]
fn a_meter_above_its_rate_drops_in_hardware_what_is_beyond_a_burst_and_counts_it() {
    let (mut soft, mut hard) = rigs(BURST);
    let (mut by_soft, mut by_hard) = (0, 0);
    for _ in 0..20 {
        by_soft += send(&mut soft, 20);
        by_hard += send(&mut hard, 20);
        soft.settle().unwrap();
        hard.settle().unwrap();
    }
    assert!(hard.is_lent(IN_DATAPATH));
    let burst = u64::from(BURST);
    assert!((burst..burst + 8).contains(&by_soft), "{by_soft}");
    // Software's bucket before, the device's after.
    assert!((burst..2 * burst + 8).contains(&by_hard), "{by_hard} passed, software alone {by_soft}");
    let ((packets, bytes), (dropped, dropped_bytes)) = hard.meter(METER);
    assert_eq!((packets, bytes), (400, 400 * 60), "each packet met the meter once");
    assert_eq!(dropped, 400 - by_hard);
    assert_eq!(dropped_bytes, dropped * 60);
    println!("FIGURE differential meter: {by_soft} of 400 passed by software, {by_hard} with hardware");
}

#[test]
fn a_meter_that_hardware_cannot_have_comes_back_with_its_counts_and_goes_again() {
    let (mut soft, mut hard) = rigs(100_000);
    let mut sent = 0;
    let mut round = |soft: &mut Rig, hard: &mut Rig| {
        for _ in 0..4 {
            assert_eq!((send(soft, 10), send(hard, 10)), (10, 10));
            soft.settle().unwrap();
            hard.settle().unwrap();
            sent += 10;
        }
        assert_eq!(hard.meter(METER), soft.meter(METER));
        assert_eq!(hard.meter(METER).0.0, sent);
    };
    round(&mut soft, &mut hard);
    assert!(hard.is_lent(IN_DATAPATH));
    // The device drops only: what remarks is software's.
    for (kind, lent) in [(MeterBandKind::DscpRemark { prec_level: 1 }, false), (MeterBandKind::Drop, true)] {
        for r in [&mut soft, &mut hard] {
            r.apply_meter(&meter(MeterModCommand::Modify, 100_000, kind)).unwrap();
            r.settle().unwrap();
        }
        round(&mut soft, &mut hard);
        assert_eq!(hard.is_lent(IN_DATAPATH), lent, "{kind:?}");
        assert_eq!(hard.placed().0, if lent { 2 } else { 0 }, "{kind:?}");
    }
    // Without its flows it is software's; without the meter nothing is left of it.
    for r in [&mut soft, &mut hard] {
        r.apply_meter(&meter(MeterModCommand::Delete, 1, MeterBandKind::Drop)).unwrap();
        r.settle().unwrap();
    }
    assert!(!hard.is_lent(IN_DATAPATH));
    assert_eq!(hard.meter(METER), ((0, 0), (0, 0)));
}

/// Eight flows through a meter, and room for five of them in the device. Each side has a bucket: if both kept the rate, twice the rate
/// would pass.
#[test]
fn a_meter_whose_flows_are_partly_in_hardware_keeps_its_rate_all_the_same() {
    const RATE: u32 = 1000;
    const BURST: u32 = 50;
    let mut c = nic::Config::default();
    (c.exact.log2_entries, c.exact.ways, c.ternary.entries) = (2, 4, 1);
    let mut rig = Rig::with_nic(1, &Setup::plain(), c).unwrap();
    rig.apply_meter(&at_rate(MeterModCommand::Add, RATE, BURST, MeterBandKind::Drop)).unwrap();
    rig.apply(&(7..15).map(|n| metered(n, 2)).collect::<Vec<_>>()).unwrap();
    let (mut sent, mut passed, mut by_device) = (0, 0, 0);
    let (mut lent, mut changes, mut split) = (false, 0u32, false);
    const SECONDS: u32 = 8;
    for ms in 0..SECONDS * 1000 {
        // Each flow at half the meter's rate: four times the rate in all.
        for n in 0..4 {
            rig.send(1, &frame(7 + (ms % 2 * 4 + n) as u16)).unwrap();
            sent += 1;
        }
        rig.pass(Duration::from_millis(1));
        passed += rig.collect().out.len() as u64;
        if ms % 5 == 0 {
            rig.control(ms % 100 == 0);
            let there = rig.is_lent(IN_DATAPATH);
            changes += u32::from(there != lent);
            lent = there;
            let (hw, all) = rig.placed();
            split |= there && hw > 0 && hw < all;
            by_device = rig.forwarded_by_device();
        }
    }
    let (rate, burst) = (u64::from(RATE * SECONDS), u64::from(BURST));
    println!(
        "FIGURE split meter: {passed} of {sent} passed in {SECONDS} s at {RATE} packets/s, {by_device} by the device, {changes} changes of hands"
    );
    assert!(split, "some of the flows are in the device and some are not");
    assert!(by_device > rate / 10, "{by_device}");
    // A tenth of a second, until software hears of it, and a burst for each change of hands.
    let most = rate + rate / 20 + (2 + u64::from(changes)) * (2 * burst);
    assert!(passed <= most, "{passed} of {sent} passed, at most {most} may");
    assert!(passed >= rate * 9 / 10, "{passed} of {sent} passed, {rate} may");
}
