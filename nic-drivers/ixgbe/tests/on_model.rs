//! The driver on the register-level model of an 82599: frames both ways, statistics, interrupts, scaling over queues, and every failure
//! ending in a typed error with the device coming back. The model finds nothing to complain of.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use device::{BufferPool, IoError, PacketBatch, PacketIo};
use flow::PortId;
use flow::frame::FrameBuilder;
use ixgbe::{Fault, IxgbeConfig, IxgbeDriver, Step};
use ixgbe_defs::{regs, stats};
use ixgbe_model::{Ixgbe, MAC, Outside, RxFault, TxFault};
use model_bus::Model;
use offload::{OffloadError, OffloadProvider};

use support::{Bench, config, frame};

#[test]
fn frames_come_and_go_whole_and_round_the_rings() {
    let mut b = Bench::new(config());
    assert_eq!((b.nic.port.mac(), b.nic.port.mtu_frame_bytes()), (MAC, 1856));
    assert_eq!(b.nic.port.link().speed_mbps, 10_000);
    let (mut n, mut bytes) = (0, 0);
    for round in 0..40u8 {
        let frames: Vec<_> =
            (0..5 + round % 9).map(|i| frame(round ^ i, 60 + 137 * usize::from(i))).collect();
        frames.iter().for_each(|f| b.model.inject(f));
        assert_eq!(b.received(0), frames, "round {round}");
        assert_eq!(b.send(0, &frames).unwrap(), frames.len());
        assert_eq!(b.model.collect(), frames.iter().map(|f| (0, f.clone())).collect::<Vec<_>>());
        n += frames.len() as u64;
        bytes += frames.iter().map(|f| f.len() as u64).sum::<u64>();
    }
    let c = b.nic.port.counters();
    assert_eq!((c.rx_packets, c.tx_packets, c.rx_bytes, c.tx_bytes), (n, n, bytes, bytes));
    assert_eq!((c.rx_errors, c.tx_errors, c.rx_dropped), (0, 0, 0));
    assert_eq!(b.nic.port.counters(), c, "what was read is added up");
    b.assert_clean();
    b.end();
}

#[test]
fn tags_stay_and_checksums_are_left_alone() {
    let mut b = Bench::new(config());
    let tagged =
        FrameBuilder::new().eth([2; 6], [4; 6]).vlan(5, 3).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2);
    let mut wrong = tagged.payload(&[7; 40]).build();
    // A UDP checksum that is wrong stays wrong.
    let at = wrong.len() - 42;
    wrong[at] ^= 0x55;
    b.model.inject(&wrong);
    assert_eq!(b.received(0), std::slice::from_ref(&wrong));
    b.send(0, std::slice::from_ref(&wrong)).unwrap();
    assert_eq!(b.model.collect(), [(0, wrong)]);
    // Whatever its address; short ones are filled up on their way out.
    b.model.inject(&frame(0x33, 80));
    assert_eq!(b.received(0).len(), 1);
    let short = frame(1, 20);
    b.send(0, std::slice::from_ref(&short)).unwrap();
    let [(0, sent)] = &b.model.collect()[..] else { panic!("one frame") };
    assert_eq!((&sent[..20], sent.len()), (&short[..], 60));
    b.assert_clean();
    b.end();
}

#[test]
fn frames_that_are_too_long_are_the_macs_to_drop_and_are_counted() {
    let mut b = Bench::new(config());
    b.model.inject(&frame(1, 1856));
    b.model.inject(&frame(2, 1857));
    assert_eq!(b.received(0), [frame(1, 1856)]);
    assert_eq!(b.nic.port.counters().rx_errors, 1);
    assert_eq!(b.send(0, &[frame(3, 13), frame(4, 60)]).unwrap(), 2);
    assert_eq!(b.model.collect(), [(0, frame(4, 60))]);
    assert_eq!(b.nic.port.counters().tx_errors, 1);
    b.assert_clean();
    b.end();
}

#[test]
fn what_finds_no_descriptor_is_dropped_and_counted() {
    let mut b = Bench::new(config());
    for i in 0..40 {
        b.model.inject(&frame(i, 60));
    }
    assert_eq!(b.received(0).len(), 31, "a ring of 32 has 31");
    assert_eq!(b.nic.port.counters().rx_dropped, 9);
    b.assert_clean();
    b.end();
}

#[test]
fn a_full_transmit_ring_leaves_frames_with_the_caller() {
    let mut b = Bench::new(config());
    b.model.lock().0.mishaps.tx_hangs = true;
    let frames: Vec<_> = (0..20).map(|i| frame(i, 60)).collect();
    assert_eq!(b.send(0, &frames).unwrap(), 20);
    assert_eq!(b.send(0, &frames).unwrap(), 11);
    b.end();
}

#[test]
fn interrupts_come_when_somebody_sleeps_and_are_moderated() {
    let mut b = Bench::new(IxgbeConfig { queue_pairs: 2, ..config() });
    assert_eq!(b.model.lock().0.peek(regs::eitr(0)) & 0xff8, 10 << 3, "20 us in units of 2.048 us");
    let raised = |b: &Bench| b.model.lock().1.raised(0);
    // Not IP: the first queue.
    for _ in 0..3 {
        b.model.inject(&frame(1, 60));
        b.received(0);
    }
    assert_eq!(raised(&b), 0, "a queue that is polled wants none");
    assert!(b.queues[0].0.poll_fd().is_some());
    assert!(b.received(0).is_empty());
    for n in 1..4 {
        b.model.inject(&frame(2, 60));
        b.model.inject(&frame(3, 60));
        assert_eq!(raised(&b), n, "masked by itself after the first");
        assert_eq!(b.received(0).len(), 2);
        assert!(b.received(0).is_empty());
    }
    // One that came while the vector was masked is not slept through.
    b.model.inject(&frame(2, 60));
    b.received(0);
    b.model.inject(&frame(3, 60));
    assert_eq!(b.received(0).len(), 1);
    // A lost one delays and loses nothing.
    b.model.lock().1.deaf = true;
    assert!(b.received(0).is_empty());
    b.model.inject(&frame(1, 60));
    assert_eq!(b.received(0).len(), 1);
    // The link's vector is the one behind the queues'.
    b.model.set_carrier(false);
    assert_eq!(b.model.lock().1.raised(2), 1);
    assert!(!b.nic.port.link().link_up);
    b.assert_clean();
    b.end();
}

#[test]
fn flows_are_spread_over_queues_and_each_stays_in_its_own() {
    let mut b = Bench::new(IxgbeConfig { queue_pairs: 4, ring_log2: 8, ..config() });
    let flow = |n: u16| {
        FrameBuilder::new()
            .eth([2; 6], [4; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 1, (n >> 8) as u8])
            .udp(1000 + n, 53)
            .payload(&[0; 30])
            .build()
    };
    let mut of: Vec<Option<usize>> = vec![None; 200];
    for _ in 0..3 {
        for n in 0..200u16 {
            b.model.inject(&flow(n));
        }
        for q in 0..4 {
            for f in b.received(q) {
                let n = usize::from(u16::from_be_bytes([f[34], f[35]]) - 1000);
                assert_eq!(*of[n].get_or_insert(q), q);
            }
        }
    }
    let share = |q| of.iter().filter(|x| **x == Some(q)).count();
    assert!((0..4).all(|q| share(q) > 20), "{:?}", [0, 1, 2, 3].map(share));
    for q in 0..4u16 {
        b.send(q.into(), &[frame(q as u8, 60)]).unwrap();
        assert_eq!(b.model.collect(), [(q, frame(q as u8, 60))]);
    }
    b.assert_clean();
    b.end();
}

#[test]
fn received_descriptors_that_make_no_sense_are_counted_and_cost_nothing_else() {
    let faults = [
        (RxFault::TooLong, (1, 0), 1),
        (RxFault::Empty, (1, 0), 1),
        // Its end is taken for the next frame's, which is lost with it.
        (RxFault::NoEnd, (0, 1), 1),
        (RxFault::Damaged, (0, 0), 1),
    ];
    for (fault, (length, end), errors) in faults {
        let mut b = Bench::new(config());
        b.model.lock().0.mishaps.rx.push_back(Some(fault));
        b.model.inject(&frame(1, 60));
        assert!(b.received(0).is_empty(), "{fault:?}");
        b.model.inject(&frame(2, 60));
        assert_eq!(b.received(0).len(), usize::from(fault != RxFault::NoEnd), "{fault:?}");
        let v = b.nic.provider.violations();
        assert_eq!((v.rx_length, v.rx_end, v.lost_filter), (length, end, 0), "{fault:?}");
        assert_eq!(b.nic.port.counters().rx_errors, errors, "{fault:?}");
        b.assert_alive();
        b.end();
    }
}

#[test]
fn a_descriptor_that_is_written_twice_or_too_early_gives_no_buffer_twice() {
    for fault in [RxFault::Missing, RxFault::Twice, RxFault::OutOfOrder] {
        let mut b = Bench::new(config());
        b.model.lock().0.mishaps.rx.push_back(Some(fault));
        for i in 0..100 {
            b.model.inject(&frame(i, 60));
            // What the device does from here on is its own affair; buffers are neither lost nor doubled, as the end shows.
            b.received(0);
        }
        b.end();
    }
}

#[test]
fn a_device_that_does_not_send_is_reset_and_sends_again() {
    let mut b = Bench::new(config());
    b.model.lock().0.mishaps.tx_hangs = true;
    assert_eq!(b.send(0, &[frame(1, 60), frame(2, 60)]).unwrap(), 2);
    for _ in 0..48 {
        b.poll();
    }
    assert_eq!(b.nic.provider.generation(), 0, "within its time");
    b.model.lock().0.mishaps.tx_hangs = false;
    for _ in 0..6 {
        b.poll();
    }
    assert_eq!((b.nic.provider.generation(), b.nic.provider.health()), (1, Ok(())));
    b.assert_alive();
    // Without a link nothing is sent and nothing is wrong; nor is a queue stuck that nobody looks at.
    b.model.set_carrier(false);
    b.model.lock().0.mishaps.tx_hangs = true;
    b.send(0, &[frame(1, 60)]).unwrap();
    for _ in 0..80 {
        b.poll();
    }
    assert_eq!(b.nic.provider.generation(), 1);
    b.end();
}

#[test]
fn a_completion_that_never_comes_costs_a_reset_unless_a_later_one_tells_of_it() {
    let mut b = Bench::new(config());
    b.model.lock().0.mishaps.tx.push_back(Some(TxFault::Never));
    b.send(0, &[frame(1, 60)]).unwrap();
    b.send(0, &[frame(2, 60)]).unwrap();
    assert_eq!(b.model.collect().len(), 2);
    for _ in 0..60 {
        b.poll();
    }
    assert_eq!(b.nic.provider.generation(), 1);
    b.assert_alive();
    b.end();
}

#[test]
fn a_device_that_is_pulled_out_is_noticed_and_taken_back() {
    let mut b = Bench::new(config());
    b.assert_alive();
    let mappings = b.model.lock().1.mappings();
    b.send(0, &[frame(1, 60), frame(2, 60)]).unwrap();
    b.model.lock().1.gone = true;
    b.poll();
    let down = b.nic.provider.health();
    assert!(matches!(&down, Err(OffloadError::DeviceDown(why)) if why.contains("all ones")), "{down:?}");
    assert!(!b.nic.port.link().link_up);
    let before = b.nic.port.counters();
    let mut batch = PacketBatch::new();
    assert!(matches!(b.queues[0].0.rx_burst(&mut batch), Err(IoError::Down)));
    assert!(matches!(b.send(0, &[frame(1, 60)]), Err(IoError::Down)));
    {
        let mut inner = b.model.lock();
        inner.1.gone = false;
        // It has forgotten everything.
        inner.0 = Ixgbe::new();
    }
    for _ in 0..20 {
        b.poll();
    }
    assert_eq!((b.nic.provider.health(), b.nic.provider.generation()), (Ok(()), 1));
    assert!(b.nic.port.counters().rx_packets >= before.rx_packets, "counters never go back");
    b.assert_alive();
    assert_eq!(b.model.lock().1.mappings(), mappings, "rings stay where they are");
    b.assert_clean();
    b.end();
}

#[test]
fn a_device_that_goes_while_its_counters_are_read_has_counted_what_there_was_at_most() {
    for reads in 0..=20 {
        let mut b = Bench::new(config());
        b.model.inject(&frame(1, 60));
        b.received(0);
        b.model.lock().1.reads_left = Some(reads);
        let c = b.nic.port.counters();
        assert!(c.rx_packets <= 1 && c.rx_bytes <= 60, "gone after {reads} reads: {c:?}");
        assert_eq!(
            (c.tx_packets, c.tx_bytes, c.rx_dropped, c.rx_errors),
            (0, 0, 0, 0),
            "{reads} reads: {c:?}"
        );
        b.end();
    }
}

#[test]
fn a_device_that_resets_itself_in_the_middle_of_a_burst_is_brought_up_again() {
    for rx in [true, false] {
        let mut b = Bench::new(config());
        if rx {
            b.model.lock().0.mishaps.rx.extend([None, Some(RxFault::ResetsItself)]);
            b.model.inject(&frame(1, 60));
            b.model.inject(&frame(2, 60));
            assert_eq!(b.received(0), [frame(1, 60)]);
        } else {
            b.model.lock().0.mishaps.tx.extend([None, Some(TxFault::ResetsItself)]);
            b.send(0, &[frame(1, 60), frame(2, 60), frame(3, 60)]).unwrap();
            assert_eq!(b.model.collect().len(), 2);
        }
        b.poll();
        assert_eq!((b.nic.provider.generation(), b.nic.provider.health()), (1, Ok(())));
        b.assert_alive();
        b.assert_clean();
        b.end();
    }
}

#[test]
fn damaged_memory_fatal_errors_and_too_many_violations_cost_the_device_a_reset() {
    let mut b = Bench::new(config());
    {
        let mut inner = b.model.lock();
        let (chip, bus) = &mut *inner;
        chip.damage(bus);
    }
    b.poll();
    assert_eq!((b.nic.provider.generation(), b.nic.provider.health()), (1, Ok(())));
    b.assert_alive();
    b.nic.provider.backing().errors.report_fatal();
    b.poll();
    assert_eq!(b.nic.provider.generation(), 2);
    b.assert_alive();
    for _ in 0..=64 {
        b.model.lock().0.mishaps.rx.push_back(Some(RxFault::Empty));
        b.model.inject(&frame(1, 60));
        b.received(0);
    }
    b.poll();
    assert_eq!((b.nic.provider.generation(), b.nic.provider.health()), (3, Ok(())));
    b.assert_alive();
    b.end();
}

#[test]
fn a_queue_that_does_not_come_up_again_is_noticed() {
    let mut b = Bench::new(config());
    b.nic.provider.backing().errors.report_fatal();
    b.model.lock().0.mishaps.no_enable = true;
    b.poll();
    assert_eq!(b.nic.provider.health(), Ok(()), "the device is; its queues are their threads' affair");
    assert!(b.received(0).is_empty());
    assert_eq!(b.send(0, &[frame(1, 60)]).unwrap(), 0);
    for _ in 0..12 {
        b.poll();
    }
    assert_eq!(b.nic.provider.generation(), 2);
    b.model.lock().0.mishaps.no_enable = false;
    b.assert_alive();
    b.end();
}

#[test]
fn bring_up_names_the_step_that_failed_and_gives_everything_back() {
    let fails = |spoil: fn(&mut Ixgbe), config: IxgbeConfig| {
        let model = Model::of(Ixgbe::new());
        spoil(&mut model.lock().0);
        let pool = BufferPool::new(64).unwrap();
        let e = IxgbeDriver::bring_up(model.backing(), pool.clone(), config).err().unwrap();
        assert_eq!(pool.free_cells(), 64, "{e}");
        (e.step, e.fault)
    };
    let timed_out = |(step, fault): (Step, Fault), want| {
        assert!(step == want && matches!(fault, Fault::TimedOut { .. }), "{step}: {fault}");
    };
    assert_eq!(fails(|_| (), IxgbeConfig { queue_pairs: 17, ..config() }).0, Step::Configuration);
    timed_out(fails(|d| d.mishaps.reset_hangs = true, config()), Step::Reset);
    timed_out(fails(|d| d.mishaps.no_eeprom = true, config()), Step::Eeprom);
    timed_out(fails(|d| d.mishaps.no_dma = true, config()), Step::Dma);
    timed_out(fails(|d| d.mishaps.fdir_no_init = true, config()), Step::Filters);
    timed_out(fails(|d| d.mishaps.no_enable = true, config()), Step::Queues);
    let model = Model::of(Ixgbe::new());
    model.lock().1.gone = true;
    let e = IxgbeDriver::bring_up(model.backing(), BufferPool::new(64).unwrap(), config()).err().unwrap();
    assert!(e.step == Step::Identify && matches!(e.fault, Fault::Gone), "{e}");
    // Requests that never end are got rid of by two resets.
    let model = Model::of(Ixgbe::new());
    model.lock().0.mishaps.master_hangs = true;
    let resets = model.lock().0.resets;
    let nic = IxgbeDriver::bring_up(model.backing(), BufferPool::new(64).unwrap(), config());
    assert!(nic.is_ok());
    assert_eq!(model.lock().0.resets, resets + 2);
}

#[test]
fn the_model_reports_what_a_driver_does_wrong() {
    use device::{DeviceBacking, RegOffset, Registers};
    let model = Model::of(Ixgbe::new());
    let mut b = model.backing();
    let r = b.map_bar(0).unwrap();
    for (at, v) in [(regs::STATUS, 1), (stats::GPRC, 1), (0x1_fffc, 1)] {
        r.write32(RegOffset(at), v);
    }
    r.write32(RegOffset(regs::rxdctl(0)), 1 << 25);
    r.write32(RegOffset(regs::rdbal(0)), 128);
    r.write32(RegOffset(regs::FDIRCMD), 1);
    let all = format!("{:?}", model.lock().0.faults().to_vec());
    for part in [
        "ReadOnly { register: 8 }",
        "ReadOnly { register: 16500 }",
        "Unknown",
        "BadRing",
        "TooEarly",
        "RingInUse",
        "FlowDirector",
    ] {
        assert!(all.contains(part), "{part} in {all}");
    }
    let inner = model.lock();
    assert_eq!(inner.0.faults().len() as u64, inner.0.fault_count());
}

#[test]
fn a_pool_that_runs_dry_gives_nothing_away() {
    let mut b = Bench::new(config());
    let mut held = Vec::new();
    while let Some(p) = b.pool.alloc() {
        held.push(p);
    }
    for i in 0..40 {
        b.model.inject(&frame(i, 60));
    }
    assert_eq!(b.received(0).len(), 31);
    assert!(b.received(0).len() <= 31);
    held.clear();
    b.assert_alive();
    b.end();
}

#[test]
fn its_port_comes_and_goes() {
    let mut b = Bench::new(config());
    assert_eq!(b.nic.provider.capabilities().ports, [PortId(7)]);
    assert!(b.nic.provider.set_ports(&[(PortId(8), 1)]).is_err());
    b.nic.provider.set_ports(&[(PortId(8), 0)]).unwrap();
    assert_eq!(b.nic.provider.capabilities().ports, [PortId(8)]);
    b.model.inject(&frame(1, 60));
    let mut batch = PacketBatch::new();
    assert_eq!(b.queues[0].0.rx_burst(&mut batch).unwrap(), 1);
    assert_eq!(batch[0].meta.in_port, 8);
    drop(batch);
    b.end();
}
