//! Determinism, conservation of frames, throughput, and survival of anything a host may write.

use device::{DeviceBacking, RegOffset, Registers};
use kernel::Rng;
use simnic_defs::entry::key;
use simnic_defs::object::HEADER_UDP;
use simnic_defs::regs::{PortReg, QueueReg, Reg};
use simnic_defs::{
    CmdDesc, CmdStatus, DumpRecord, Encap, FlowEntry, HeaderSpec, HwAction, HwField, KEY_BYTES, Opcode,
    SetField,
};
use zerocopy::IntoBytes;

use super::connections::{RECIRC, ZONE, back, set as set_connection, spec, ternary, there, with_flags};
use super::counters::Ring;
use super::tunnels::vxlan;
use super::{device, settle, to_dst};
use crate::raw_host::{HostRing, RawHost, key_of};
use crate::{Config, DropReason, PROFILES, SimHandle, SimStats, frames};

const DSTS: u64 = 8;
/// The VXLAN network identifier of the header that the device puts on.
pub(super) const PUSHED_VNI: u8 = 5;

/// A device with rules of every kind, receive rings on all ports, and a transmit ring.
pub(super) fn busy_device(config: Config) -> (SimHandle, RawHost, Vec<HostRing>, HostRing) {
    let tunnels = config.tunnels.headers > 0;
    let (sim, mut h) = device(config);
    let out = |port| HwAction::Output { port };
    let push = HwAction::PushVlan { tpid: 0x8100, tci: 5 };
    let set = HwAction::Set(SetField { field: HwField::L4Dst, value: 9, mask: 0xffff });
    let mut group = CmdDesc::new(Opcode::GroupSet, 0);
    group.arg = 0b1111.into();
    assert_eq!(h.command(group).unwrap().status, 0);
    let replicate = HwAction::Replicate { group: 0 };
    let lists: [&[HwAction]; 6] = [
        &[out(1)],
        &[HwAction::DecTtl, out(2), push, out(3), set, HwAction::ToHost],
        &[],
        &[out(0), out(1), out(2), out(3)],
        &[set, push, HwAction::PopVlan, out(3)],
        &[replicate, set, out(1), replicate],
    ];
    for (i, actions) in lists.iter().enumerate() {
        let c = h.install_exact(0, &to_dst([10, 0, 0, i as u8], actions)).unwrap();
        assert_eq!(c.status, 0);
    }
    if tunnels {
        let mut outer = vxlan(PUSHED_VNI, &[]);
        // Lengths, checksum and source port are the device's.
        [16..18, 24..26, 34..36, 38..40].into_iter().for_each(|r| outer[r].fill(0));
        let header = HeaderSpec::new(&outer, 14, 34, HEADER_UDP).unwrap();
        let c = h.command_with(CmdDesc::new(Opcode::HeaderSet, 0), header.as_bytes()).unwrap();
        assert_eq!(c.status, 0);
        let actions = [HwAction::DecTtl, HwAction::PushHeader { header: 0 }, out(3)];
        assert_eq!(h.install_exact(0, &to_dst([10, 0, 0, 7], &actions)).unwrap().status, 0);
    }
    let (k, m) = key_of(&[(key::ETH_TYPE, &[0x08, 0x06])]);
    let e = FlowEntry::new(k, m, 0, &[out(0), HwAction::ToHost]).unwrap();
    let mut d = CmdDesc::new(Opcode::Install, 0);
    (d.table, d.priority) = (1, 5.into());
    assert_eq!(h.command_with(d, e.as_bytes()).unwrap().status, 0);
    // A tunnel and what comes out of it, connections and what goes through.
    let pop = HwAction::PopHeader { kind: Encap::Vxlan, port: 40 };
    ternary(&mut h, &[(key::PROTO, &[17]), (key::L4_DST, &4789u16.to_be_bytes())], &[pop]);
    ternary(&mut h, &[(key::PORT, &[40]), (key::PROTO, &[17])], &[HwAction::DecTtl, replicate]);
    let track = HwAction::Track { zone: ZONE, recirc: RECIRC };
    ternary(&mut h, &[(key::PROTO, &[6]), (key::RECIRC_ID, &[0; 4])], &[track]);
    ternary(&mut h, &[(key::PROTO, &[6]), (key::RECIRC_ID, &RECIRC.to_be_bytes())], &[out(2)]);
    for n in 0..3 {
        assert_eq!(set_connection(&mut h, n, &spec(6, 1000 + n as u16, 15_000)), 0);
    }
    let mut rx = Vec::new();
    for p in 0..4 {
        let mut r = h.receive_ring(p, 0).unwrap();
        for _ in 0..20 {
            r.post_receive();
        }
        h.write(QueueReg::RX_TAIL.of(p, 0), r.tail);
        rx.push(r);
    }
    let tx = h.transmit_ring(2, 0).unwrap();
    (sim, h, rx, tx)
}

pub(super) fn random_frame(r: &mut Rng) -> Vec<u8> {
    if r.chance(1, 40) {
        let mut pause = vec![0; 60];
        pause[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 1]);
        pause[12..18].copy_from_slice(&[0x88, 0x08, 0, 1, 0, r.below(30) as u8]);
        return pause;
    }
    let f = match r.below(8) {
        6 => vxlan(1, &frames::udp4([1, 1, 1, 1], [10, 7, 0, 1], 5, 6)),
        7 => {
            let n = r.below(4) as u16;
            let f = if r.chance(1, 2) { there(1000 + n) } else { back(1000 + n) };
            if r.chance(1, 20) { with_flags(f, 0x11) } else { f }
        }
        0 => frames::arp(1, [10, 0, 0, 1], [10, 0, 0, 2]),
        1 => frames::udp6(1, 2, 3, 4),
        2 => frames::tcp4([10, 9, 9, 9], [10, 0, 0, r.below(DSTS) as u8], 5, 6),
        3 => {
            let tag = (0x8100, (r.below(8) << 13) as u16 | 5);
            frames::tagged(&[tag], &frames::udp4([1, 1, 1, 1], [10, 0, 0, r.below(DSTS) as u8], 5, 6))
        }
        _ => frames::udp4([1, 1, 1, 1], [10, 0, 0, r.below(DSTS) as u8], r.below(50) as u16, 6),
    };
    let mut f = f;
    if r.chance(1, 20) {
        let n = r.below(f.len() as u64) as usize;
        f.truncate(n);
    }
    if r.chance(1, 10) {
        f.resize(f.len() + r.below(1700) as usize, 0);
    }
    f
}

/// Small queues, so that everything overflows.
pub(super) fn tight() -> Config {
    let mut c = Config::default();
    c.port.ingress_queue_frames = 4;
    c.port.egress_queue_frames = 3;
    c.host.queue_frames = 5;
    c.parser.buffer_frames = 2;
    c.exact.buffer_frames = 3;
    c.ternary.interval_cycles = 9;
    c.action.interval_cycles = 4;
    (c.counters.packet_bits, c.counters.byte_bits) = (3, 12);
    (c.groups.buffer_frames, c.groups.interval_cycles, c.again.buffer_frames) = (2, 3, 2);
    c.pcie.read_tags = 2;
    c.pcie.requests_per_client = 3;
    c
}

type Outcome = (Vec<Vec<Vec<u8>>>, SimStats, Vec<crate::DriverFault>);

fn workload(config: Config, seed: u64, skipping: bool, reversed: bool, each_cycle: bool) -> (Outcome, u64) {
    let (sim, mut h, mut rx, mut tx) = busy_device(config);
    let mut counters = Ring::new(&mut h, 4);
    sim.set_skipping(skipping);
    sim.set_reversed(reversed);
    let mut r = Rng::new(seed);
    let start = sim.evaluated_cycles();
    for _ in 0..60 {
        for _ in 0..r.below(12) {
            sim.inject(r.below(4) as u8, &random_frame(&mut r));
        }
        if r.chance(1, 2) {
            tx.post_transmit(&random_frame(&mut r));
            h.write(QueueReg::TX_TAIL.of(2, 0), tx.tail);
        }
        if r.chance(1, 3) {
            let mut d = CmdDesc::new(Opcode::ReadStats, 0);
            d.addr = h.cmd.buffers.iova.offset(8192).0.into();
            (d.count, d.len) = (100.into(), 3200.into());
            h.submit(d);
        }
        while h.cmd.take_command().is_some() {}
        if r.chance(1, 4) {
            counters.take();
            h.write(Reg::CTR_TAIL, counters.head);
        }
        while tx.take_transmitted().is_some() {}
        for (p, ring) in rx.iter_mut().enumerate() {
            while ring.take_received().is_some() {
                ring.post_receive();
            }
            h.write(QueueReg::RX_TAIL.of(p as u8, 0), ring.tail);
        }
        let cycles = r.below(300);
        if each_cycle {
            for _ in 0..cycles {
                sim.step(1);
                assert!(sim.account().balances(), "seed {seed}: {:?}", sim.account());
            }
        } else {
            sim.step(cycles);
        }
    }
    sim.step(120_000);
    assert!(sim.run_until_idle(1000), "seed {seed}");
    assert!(sim.account().balances(), "seed {seed}: {:?}", sim.account());
    let frames = (0..4).map(|p| sim.collect(p)).collect();
    let evaluated = sim.evaluated_cycles() - start;
    // Cycles moved until idle differ by design; everything before is compared at the same cycle.
    ((frames, sim.stats(), sim.faults()), evaluated)
}

#[test]
fn frames_are_conserved_at_every_cycle() {
    let profiles = PROFILES.iter().map(|p| Config::profile(p.name).unwrap());
    for (seed, config) in (0..).zip([tight(), tight()].into_iter().chain(profiles)) {
        let ((frames, stats, _), _) = workload(config, seed, true, false, true);
        assert!(frames.iter().any(|f| !f.is_empty()));
        assert!(stats.frames.to_host > 0 && stats.frames.dropped > 0, "seed {seed}: {:?}", stats.frames);
    }
}

#[test]
fn skipping_and_the_order_of_evaluation_change_nothing_and_runs_repeat() {
    for seed in 10..19 {
        let config = || match seed % 9 {
            1 | 5 => tight(),
            2 => Config::profile("flow-engine").unwrap(),
            3 => Config::profile("match-action").unwrap(),
            4 => Config::profile("small-nic").unwrap(),
            6 => Config::profile("tcam-poor-asic").unwrap(),
            7 => {
                // A cache of buckets that is too small, and tables that are busy with being written.
                let mut c = tight();
                (c.exact.cached_buckets, c.exact.miss_cycles, c.exact.misses) = (4, 37, 2);
                (c.exact.write_cycles, c.ternary.write_cycles) = (13, 17);
                c
            }
            8 => {
                let mut c = tight();
                (c.port.egress_queues, c.port.strict_queues, c.port.weights) = (4, 1, vec![1, 5]);
                (c.port.shared_frames, c.port.threshold_16ths) = (14, 20);
                (c.port.obey_pause, c.port.pause_at_frames, c.port.resume_at_frames) = (true, 3, 1);
                c
            }
            _ => Config::default(),
        };
        let (plain, evaluated) = workload(config(), seed, true, false, false);
        let (again, _) = workload(config(), seed, true, false, false);
        assert!(plain == again, "seed {seed}: two runs differ");
        let (whole, all) = workload(config(), seed, false, false, false);
        assert!(evaluated < all, "seed {seed}: nothing was skipped");
        compare(seed, "skipping", &plain, &whole);
        let (reversed, _) = workload(config(), seed, false, true, false);
        compare(seed, "order", &plain, &reversed);
    }
}

fn compare(seed: u64, what: &str, a: &Outcome, b: &Outcome) {
    assert!(a.0 == b.0, "seed {seed}: {what} changes frames");
    assert_eq!(a.2, b.2, "seed {seed}: {what} changes faults");
    assert_eq!(a.1, b.1, "seed {seed}: {what} changes statistics");
}

/// Frames per cycle of a saturated device whose slowest stage is as given.
fn cycles_per_frame(change: impl Fn(&mut Config)) -> f64 {
    let mut c = Config::default();
    c.port.speed_mbps = 400_000;
    c.port.ingress_queue_frames = 4096;
    c.port.egress_queue_frames = 4096;
    change(&mut c);
    let (sim, mut h) = device(c);
    for i in 0..4 {
        h.install_exact(0, &to_dst([10, 0, 0, i], &[HwAction::Output { port: i }])).unwrap();
    }
    for i in 0..4000u32 {
        let f = frames::udp4([1, 1, 1, 1], [10, 0, 0, (i % 4) as u8], 5, 6);
        assert!(sim.inject((i % 4) as u8, &f));
    }
    let start = sim.cycle().0;
    settle(&sim);
    assert_eq!((0..4).map(|p| sim.collect(p).len()).sum::<usize>(), 4000, "{:?}", sim.drops());
    (sim.cycle().0 - start) as f64 / 4000.0
}

#[test]
fn throughput_is_that_of_the_slowest_stage() {
    let near = |got: f64, want: f64| assert!((got - want).abs() < 0.1 * want, "{got} instead of {want}");
    near(cycles_per_frame(|_| ()), 2.0); // the ternary stage
    near(cycles_per_frame(|c| c.parser.interval_cycles = 7), 7.0);
    // Ethernet, IPv4 and UDP end after 42 bytes: three steps of 16.
    near(cycles_per_frame(|c| (c.parser.interval_cycles, c.parser.step_bytes) = (3, 16)), 9.0);
    near(cycles_per_frame(|c| (c.parser.interval_cycles, c.parser.step_bytes) = (3, 42)), 3.0);
    near(cycles_per_frame(|c| c.exact.interval_cycles = 5), 5.0);
    near(cycles_per_frame(|c| c.ternary.interval_cycles = 11), 11.0);
    near(cycles_per_frame(|c| c.action.interval_cycles = 6), 6.0);
    // Too small a buffer for its latency: one slot gives one frame in latency plus one cycles.
    near(cycles_per_frame(|c| c.exact.buffer_frames = 1), 9.0);
    // 84 bytes (60 and overhead) at 1 Gb/s are 168 cycles at 250 MHz; four ports.
    near(cycles_per_frame(|c| c.port.speed_mbps = 1000), 168.0 / 4.0);
}

#[test]
fn full_queues_drop_and_count() {
    let mut c = Config::default();
    c.port.ingress_queue_frames = 8;
    c.parser.interval_cycles = 50;
    let (sim, h) = device(c);
    let f = frames::udp4([1, 1, 1, 1], [10, 0, 0, 1], 5, 6);
    for _ in 0..100 {
        sim.inject(0, &f);
    }
    settle(&sim);
    let drops = sim.drops();
    let of = |why| drops.iter().find(|(p, r, _)| (*p, *r) == (0, why)).map_or(0, |(_, _, n)| *n);
    let (ingress, no_desc) = (of(DropReason::IngressQueue), of(DropReason::NoDescriptor));
    assert!(ingress > 10 && no_desc > 8, "{drops:?}");
    assert_eq!(ingress + no_desc, 100);
    assert_eq!(h.counter(PortReg::RX_DROPS, 0), 100);
    // Four copies of every frame to one slow port.
    let mut c = Config::default();
    c.port.egress_queue_frames = 16;
    let (sim, mut h) = device(c);
    let rule = to_dst([10, 0, 0, 1], &[HwAction::Output { port: 1 }; 4]);
    h.install_exact(0, &rule).unwrap();
    for _ in 0..200 {
        sim.inject(0, &f);
    }
    settle(&sim);
    let out = sim.collect(1).len() as u64;
    let dropped = h.counter(PortReg::TX_DROPS, 1);
    assert!(dropped > 0);
    assert_eq!(out + dropped, 800);
    assert_eq!(sim.drops(), [(1, DropReason::EgressQueue, dropped)]);
}

#[test]
fn a_full_bucket_refuses_while_the_table_has_room() {
    let mut c = Config::default();
    (c.exact.log2_entries, c.exact.ways) = (6, 2);
    let (sim, mut h) = device(c);
    let mut refused = 0;
    let mut random = Rng::new(1);
    for _ in 0..48 {
        let dst = (random.next_u64() as u32).to_be_bytes();
        let r = h.install_exact(0, &to_dst(dst, &[HwAction::Output { port: 1 }])).unwrap();
        refused += u32::from(r.status == CmdStatus::BucketFull as u8);
        assert!(r.status == 0 || r.status == CmdStatus::BucketFull as u8);
    }
    let entries = sim.stats().tables[0].entries;
    assert!(refused > 0 && entries < 64, "{refused} refused, {entries} entries");
    assert_eq!(entries as u32 + refused, 48);
}

#[test]
fn narrow_counters_wrap() {
    let mut c = Config::default();
    (c.counters.packet_bits, c.counters.byte_bits) = (4, 9);
    let (sim, mut h) = device(c);
    let name = h.install_exact(0, &to_dst([10, 0, 0, 1], &[HwAction::Output { port: 1 }])).unwrap().entry;
    let f = frames::udp4([1, 1, 1, 1], [10, 0, 0, 1], 5, 6);
    for _ in 0..19 {
        sim.inject(0, &f);
    }
    settle(&sim);
    let mut d = CmdDesc::new(Opcode::Remove, 0);
    d.entry = name;
    let gone = h.command(d).unwrap();
    assert_eq!((gone.packets.get(), gone.bytes.get()), (19 % 16, 19 * f.len() as u64 % 512));
}

/// Random registers, descriptors, commands and frames: nothing panics, nothing is lost, and a reset gives a good device.
#[test]
fn anything_a_host_writes_is_survived() {
    for seed in 0..30 {
        let (sim, mut h, mut rx, mut tx) = busy_device(tight());
        let mut r = Rng::new(seed);
        let memory = [&rx[0].desc, &rx[1].buffers, &tx.desc, &tx.buffers, &h.cmd.desc, &h.cmd.buffers];
        let spans: Vec<_> = memory.iter().map(|m| (m.memory.clone(), m.iova)).collect();
        for _ in 0..400 {
            match r.below(8) {
                0 => {
                    // A register, any value, mostly near something real.
                    let offset =
                        if r.chance(1, 2) { r.below(0x200) } else { 0x4000 + r.below(0x600) } as u32 & !3;
                    let v = if r.chance(1, 2) { r.below(70) as u32 } else { r.next_u64() as u32 };
                    // CTRL and RESET end the fun too soon.
                    if offset != 8 {
                        h.regs.write32(RegOffset(offset), v);
                    }
                }
                1 => {
                    // Any bytes in any memory.
                    let (m, _) = &spans[r.below(spans.len() as u64) as usize];
                    let mut b = [0; 16];
                    r.fill(&mut b);
                    m.write(r.below(m.len_bytes() as u64 - 16) as usize, &b);
                }
                2 => {
                    let mut d = CmdDesc::new(Opcode::Nop, 0);
                    d.opcode = r.below(11) as u8;
                    (d.table, d.profile, d.port) = (r.below(3) as u8, r.below(9) as u8, r.below(5) as u8);
                    d.entry = (r.next_u64() as u32 >> r.below(32)).into();
                    (d.count, d.len) = ((r.below(130) as u32).into(), (r.below(5000) as u32).into());
                    if let Ok(Opcode::Install | Opcode::Replace) = Opcode::try_from(d.opcode) {
                        d.len = (FlowEntry::BYTES as u32).into();
                    }
                    d.addr = h.cmd.buffers.iova.offset(r.below(200_000) as usize).0.into();
                    d.priority = (r.next_u64() as u32).into();
                    h.submit(d);
                    h.cmd.consumed = h.cmd.tail.saturating_sub(3);
                }
                3 => {
                    let p = r.below(4) as usize;
                    rx[p].post_receive();
                    h.write(QueueReg::RX_TAIL.of(p as u8, 0), rx[p].tail);
                }
                4 => {
                    tx.post_transmit(&random_frame(&mut r));
                    h.write(QueueReg::TX_TAIL.of(2, 0), tx.tail);
                }
                5 => {
                    let mut f = random_frame(&mut r);
                    for _ in 0..r.below(4) {
                        if !f.is_empty() {
                            let at = r.below(f.len() as u64) as usize;
                            f[at] = r.next_u64() as u8;
                        }
                    }
                    sim.inject(r.below(4) as u8, &f);
                }
                6 => {
                    let _ = h.regs.read32(RegOffset(r.below(0x1_0010) as u32));
                }
                _ => sim.step(r.below(200)),
            }
        }
        sim.step(20_000);
        assert!(sim.account().balances(), "seed {seed}: {:?}", sim.account());
        drop((rx, tx, h));
        let mut h = RawHost::bring_up(sim.backing()).unwrap();
        assert_eq!(sim.stats().tables[0].entries, 0, "seed {seed}");
        for p in [0, 1] {
            h.port_set(p, true).unwrap();
        }
        let (_, mask) = key_of(&[(key::ETH_TYPE, &[0; 2]), (key::IP4_DST, &[0; 4])]);
        assert_eq!(h.profile(0, &mask).unwrap().status, 0);
        h.install_exact(0, &to_dst([10, 0, 0, 1], &[HwAction::Output { port: 1 }])).unwrap();
        sim.run_until_idle(1_000_000);
        sim.collect(1);
        sim.inject(0, &frames::udp4([1, 1, 1, 1], [10, 0, 0, 1], 5, 6));
        settle(&sim);
        assert_eq!(sim.collect(1).len(), 1, "seed {seed}");
    }
}

#[test]
fn dump_and_statistics_walk_the_tables() {
    let (sim, mut h) = device(Config::default());
    let out = HwAction::Output { port: 1 };
    for i in 0..10 {
        h.install_exact(0, &to_dst([10, 0, 0, i], &[out])).unwrap();
    }
    let (mut slot, mut seen, mut rounds) = (0u32, vec![], 0);
    while slot != simnic_defs::cmd::NEXT_END {
        let mut d = CmdDesc::new(Opcode::Dump, 0);
        d.entry = slot.into();
        d.addr = h.cmd.buffers.iova.0.into();
        (d.count, d.len) = (4.into(), (4 * DumpRecord::BYTES as u32).into());
        let c = h.command(d).unwrap();
        for i in 0..c.count.get() as usize {
            let mut b = [0; DumpRecord::BYTES];
            h.cmd.buffers.memory.read(i * DumpRecord::BYTES, &mut b);
            let r = simnic_defs::DumpRecord::decode(&b).unwrap();
            assert_eq!(r.entry, to_dst([10, 0, 0, r.entry.key[key::IP4_DST.end - 1]], &[out]));
            seen.push((r.entry.key[key::IP4_DST.end - 1], r.stats.entry.get()));
        }
        slot = c.next.get();
        rounds += 1;
    }
    seen.sort_unstable();
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert!(rounds >= 3);
    let mut d = CmdDesc::new(Opcode::Flush, 0);
    d.table = 0xff;
    assert_eq!(h.command(d).unwrap().count.get(), 10);
    assert_eq!(sim.stats().tables[0].entries, 0);
    assert_eq!(
        h.install_exact(0, &FlowEntry::new([0; KEY_BYTES], [0; KEY_BYTES], 0, &[]).unwrap()).unwrap().status,
        3
    );
}

#[test]
fn a_run_from_a_checkpoint_is_identical_to_the_bit() {
    for seed in 30..36 {
        let config = if seed % 2 == 0 { tight() } else { Config::profile("flow-engine").unwrap() };
        let (sim, mut h, mut rx, mut tx) = busy_device(config);
        let mut r = Rng::new(seed);
        let some = |r: &mut Rng| -> Vec<(u8, Vec<u8>, u64)> {
            (0..40).map(|_| (r.below(4) as u8, random_frame(r), r.below(60))).collect()
        };
        let first = some(&mut r);
        tx.post_transmit(&random_frame(&mut r));
        h.write(QueueReg::TX_TAIL.of(2, 0), tx.tail);
        let play = |all: &[(u8, Vec<u8>, u64)]| {
            for (port, f, cycles) in all {
                sim.inject(*port, f);
                sim.step(*cycles);
            }
        };
        play(&first);
        let saved = sim.checkpoint().unwrap();
        assert_eq!(saved.cycle(), sim.cycle().0);
        let cursor = (rx[0].consumed, rx[0].tail, h.cmd.consumed, h.cmd.tail);
        let rest = some(&mut r);
        let go_on = |h: &mut RawHost, rx: &mut [HostRing]| {
            (rx[0].consumed, rx[0].tail, h.cmd.consumed, h.cmd.tail) = cursor;
            play(&rest);
            h.submit(CmdDesc::new(Opcode::Nop, 0));
            sim.step(30_000);
            let received: Vec<_> =
                std::iter::from_fn(|| rx[0].take_received()).map(|(c, f)| (c.len.get(), f)).collect();
            let out: Vec<_> = (0..4).map(|p| sim.collect(p)).collect();
            (received, out, sim.stats(), sim.faults(), sim.cycle())
        };
        let once = go_on(&mut h, &mut rx);
        sim.restore(&saved).unwrap();
        // What the host had in mind goes back by hand; tags of commands do not matter to a NOP.
        let again = go_on(&mut h, &mut rx);
        assert!(once == again, "seed {seed}: a restored run differs");
        assert!(once.1.iter().any(|f| !f.is_empty()));
        let other = crate::SimNic::new(Config::profile("small-nic").unwrap(), 1).unwrap();
        assert_eq!(other.restore(&saved), Err(crate::RestoreError::OtherDevice));
        h.backing.dma_unmap(rx[3].buffers.iova).unwrap();
        assert_eq!(sim.restore(&saved), Err(crate::RestoreError::Memory(rx[3].buffers.iova.0)));
    }
}
