//! The datapath as a whole, on memory ports: forwarding, misses, changes of the table, drops and counters.

mod rig;

use std::sync::Arc;
use std::time::Duration;

use datapath_api::{Datapath, DatapathError, DropReason, MeterBand, MeterBandKind, MeterConfig, MeterUnit};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, MeterId, PortId};
use rig::{Rig, drops, output};

fn udp(port: u16) -> Vec<u8> {
    FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1000, port).build()
}

#[test]
fn the_first_packet_misses_and_the_rest_hit_the_exact_match_cache() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    rig.send(1, &udp(5));
    assert_eq!(rig.poll(), 1);
    for _ in 0..3 {
        rig.send(1, &udp(5));
    }
    rig.poll();
    assert_eq!(rig.received(2), vec![udp(5); 4]);
    let s = rig.dp.stats();
    assert_eq!((s.misses, s.megaflow_hits, s.exact_hits, s.flows), (1, 1, 2, 1));
    assert_eq!(rig.handler.asked(), 1);
    let flows = rig.flows();
    assert_eq!(flows[0].counters.read().packets, 4);
    assert_eq!(flows[0].counters.read().bytes, 4 * udp(5).len() as u64);
    assert_eq!(flows[0].counters.read().used, Some(rig.now));
}

#[test]
fn a_record_made_by_a_miss_serves_the_packets_behind_it_in_the_same_burst() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    for _ in 0..10 {
        rig.send(1, &udp(7));
    }
    rig.poll();
    assert_eq!(rig.handler.asked(), 1);
    assert_eq!(rig.received(2).len(), 10);
    assert_eq!(rig.flows()[0].counters.read().packets, 10);
}

#[test]
fn a_packet_whose_record_is_not_to_be_kept_is_forwarded_all_the_same() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    rig.handler.set_install(false);
    for _ in 0..3 {
        rig.send(1, &udp(7));
    }
    rig.poll();
    assert_eq!(rig.handler.asked(), 3);
    assert_eq!(rig.received(2).len(), 3);
    assert_eq!(rig.dp.stats().flows, 0);
}

#[test]
fn a_full_table_forwards_and_reports_the_record_it_could_not_keep() {
    let mut rig = Rig::with(2, |c| c.max_flows = 1);
    rig.handler.set_actions(output(2));
    rig.handler.match_fields(&[FieldId::DpPort, FieldId::RecircId, FieldId::TpDst]);
    rig.send(1, &udp(1));
    rig.send(1, &udp(2));
    rig.poll();
    assert_eq!(rig.received(2).len(), 2);
    assert_eq!(rig.dp.stats().flows, 1);
    let refused = rig.handler.refused();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].counters.read().packets, 1);
    assert!(matches!(rig.dp.flow_put(rig.record(99, 9, output(1))), Err(DatapathError::Full { limit: 1 })));
}

#[test]
fn a_removed_record_is_not_used_again_and_a_replaced_one_gives_way() {
    let mut rig = Rig::new(3);
    rig.handler.set_actions(vec![]);
    rig.dp.flow_put(rig.record(1, 1, output(2))).unwrap();
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!((rig.received(2).len(), rig.handler.asked()), (1, 0));
    rig.dp.flow_put(rig.record(2, 1, output(3))).unwrap();
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!((rig.received(2).len(), rig.received(3).len(), rig.handler.asked()), (0, 1, 0));
    assert!(matches!(rig.dp.flow_del(FlowId(1)), Err(DatapathError::NoSuchFlow(FlowId(1)))));
    assert_eq!(rig.dp.flow_del(FlowId(2)).unwrap().counters.read().packets, 1);
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!(rig.handler.asked(), 1);
    assert_eq!(drops(&rig), [(DropReason::Action, 1)]);
}

#[test]
fn changes_beyond_the_command_queue_reach_the_core_all_the_same() {
    let mut rig = Rig::new(2);
    for i in 0..6000u64 {
        rig.dp.flow_put(rig.record(i, 10_000 + i as u32, output(2))).unwrap();
    }
    rig.dp.flow_put(rig.record(7000, 1, output(2))).unwrap();
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!((rig.received(2).len(), rig.handler.asked()), (1, 0));
    assert_eq!(rig.core.megaflows(), 6001);
    rig.dp.flow_flush();
    rig.poll();
    assert_eq!((rig.core.megaflows(), rig.dp.stats().flows), (0, 0));
}

#[test]
fn packets_to_execute_go_out_and_recirculate() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    rig.dp.execute(&udp(1), PortId(1), output(2).into()).unwrap();
    rig.dp.execute(&udp(2), PortId(1), vec![Action::Recirc(5)].into()).unwrap();
    rig.poll();
    assert_eq!(rig.received(2), [udp(1), udp(2)]);
    let asked = rig.handler.last_miss().unwrap();
    assert_eq!((asked.key.get64(FieldId::RecircId), asked.key.get64(FieldId::DpPort)), (5, 1));
    assert_eq!((rig.dp.stats().executed, rig.dp.stats().recirculations), (2, 1));
    assert!(matches!(rig.dp.execute(&[0; 9000], PortId(1), output(2).into()), Err(DatapathError::Io(_))));
}

#[test]
fn a_packet_that_recirculates_for_ever_is_dropped_at_the_limit() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(vec![Action::Recirc(1)]);
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::RecircLimit, 1)]);
    assert_eq!(rig.dp.stats().recirculations, 5);
}

#[test]
fn every_drop_has_its_reason() {
    let mut rig = Rig::with(2, |_| ());
    rig.handler.set_actions(output(9));
    rig.send(1, &udp(1));
    rig.send(1, &[1, 2, 3]);
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::Runt, 1), (DropReason::NoSuchPort, 1)]);

    let mut rig = Rig::new(2);
    rig.handler.set_actions(vec![Action::DecTtl, Action::Output(PortId(2))]);
    rig.send(1, &FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).ttl(1).udp(1, 2).build());
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::TtlExceeded, 1)]);

    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    rig.limit_frame(2, 100);
    rig.send(1, &FrameBuilder::new().ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1, 2).pad_to(101).build());
    rig.send(
        1,
        &FrameBuilder::new().vlan(5, 0).ipv4([1, 1, 1, 1], [2, 2, 2, 2]).udp(1, 2).pad_to(104).build(),
    );
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::TooBig, 1)]);
    assert_eq!(rig.received(2).len(), 1);

    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    rig.cut_cable(2);
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::TxError, 1)]);
    assert_eq!(rig.dp.port_stats(PortId(2)).unwrap().tx_errors, 1);
}

#[test]
fn a_meter_drops_what_exceeds_it() {
    let mut rig = Rig::new(2);
    let band = MeterBand { rate: 10, burst: 2, kind: MeterBandKind::Drop };
    rig.dp.meter_put(MeterId(3), MeterConfig { unit: MeterUnit::Pps, bands: vec![band] }).unwrap();
    rig.handler.set_actions(vec![Action::Meter(MeterId(3)), Action::Output(PortId(2))]);
    for _ in 0..5 {
        rig.send(1, &udp(1));
    }
    rig.poll();
    assert_eq!((rig.received(2).len(), drops(&rig)), (2, vec![(DropReason::Meter, 3)]));
    rig.advance(Duration::from_millis(100));
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!(rig.received(2).len(), 1);
    let s = rig.dp.meter_stats(MeterId(3)).unwrap();
    assert_eq!((s.input.packets, s.bands[0].packets), (6, 3));
    rig.dp.meter_del(MeterId(3)).unwrap();
    assert!(matches!(rig.dp.meter_del(MeterId(3)), Err(DatapathError::NoSuchMeter(_))));
}

#[test]
fn a_full_output_queue_drops_the_rest_and_counts_it() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    for _ in 0..rig::QUEUE {
        rig.send(1, &udp(1));
    }
    while rig.poll() > 0 {}
    for _ in 0..3 {
        rig.send(1, &udp(1));
    }
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::TxFull, 3)]);
    let s = rig.dp.port_stats(PortId(2)).unwrap();
    assert_eq!((s.tx_packets, s.tx_dropped), (rig::QUEUE as u64, 3));
    assert_eq!(s.tx_bytes, rig::QUEUE as u64 * udp(1).len() as u64);
    assert_eq!(rig.dp.port_stats(PortId(1)).unwrap().rx_packets, rig::QUEUE as u64 + 3);
}

/// A receive queue whose device has gone away, with a descriptor that stays readable.
struct Vanished(std::fs::File, Arc<std::sync::atomic::AtomicU64>);

impl device::RxQueue for Vanished {
    fn rx_burst(&mut self, _: &mut device::PacketBatch) -> Result<usize, device::IoError> {
        self.1.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Err(device::IoError::Gone)
    }

    fn poll_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        Some(std::os::fd::AsFd::as_fd(&self.0))
    }
}

#[test]
fn a_queue_whose_device_is_gone_is_left_alone_and_the_others_go_on() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    let polls = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (reader, _writer) = std::io::pipe().unwrap();
    let gone = Vanished(std::os::fd::OwnedFd::from(reader).into(), polls.clone());
    let (tx, _rx) = netio::memory::queue(&netio::memory::MemoryConfig::default()).unwrap();
    rig.dp.attach(datapath::PortConfig::new(PortId(7), "gone"), Box::new(gone), Box::new(tx)).unwrap();
    for _ in 0..5 {
        rig.send(1, &udp(1));
        rig.poll();
    }
    assert_eq!(polls.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(rig.dp.port_stats(PortId(7)).unwrap().rx_errors, 1);
    assert_eq!(rig.received(2).len(), 5);
    drop(rig.dp.detach(PortId(7)).unwrap());
    rig.poll();
}

#[test]
fn truncated_inner_headers_are_counted_and_forwarded_by_the_outer_ones() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    let mut f = udp(1);
    f.truncate(30);
    rig.send(1, &f);
    rig.poll();
    assert_eq!(rig.received(2), [f]);
    assert_eq!(rig.dp.stats().faults[flow::Fault::Ipv4 as usize], 1);
}

#[test]
fn ports_come_and_go() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    assert_eq!(rig.dp.ports(), [PortId(1), PortId(2)]);
    drop(rig.dp.detach(PortId(2)).unwrap());
    assert!(matches!(rig.dp.detach(PortId(2)), Err(DatapathError::NoSuchPort(_))));
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!(drops(&rig), [(DropReason::NoSuchPort, 1)]);
    rig.add_port(2);
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!(rig.received(2).len(), 1);
}

#[test]
fn what_hardware_left_with_a_packet_is_in_its_key() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(output(2));
    let mut p = rig.pool.copy_from(&udp(1)).unwrap();
    p.meta.mark = 0x77;
    p.meta.resume = 4;
    rig.send_buf(1, p);
    rig.poll();
    let key = rig.handler.last_miss().unwrap().key;
    assert_eq!((key.get64(FieldId::PktMark), key.get64(FieldId::RecircId)), (0x77, 4));
}

#[test]
fn buffers_all_return_to_the_pool() {
    let mut rig = Rig::new(3);
    let both = vec![
        Action::Output(PortId(2)),
        Action::Clone(vec![Action::Recirc(1)].into()),
        Action::Output(PortId(3)),
    ];
    rig.handler.set_actions(both);
    for i in 0..100 {
        rig.send(1, &udp(i));
    }
    while rig.poll() > 0 {}
    rig.received(2);
    rig.received(3);
    let pool = rig.pool.clone();
    drop(rig);
    assert_eq!(pool.free_cells(), pool.cells() as usize);
}

#[test]
fn two_cores_hand_packets_over() {
    let mut rig = Rig::with(2, |c| c.cores = 2);
    // Ports are spread: 1 on core 0, 2 on core 1.
    rig.handler.set_actions(output(2));
    rig.send(1, &udp(1));
    rig.poll();
    assert_eq!(rig.received(2).len(), 0);
    let mut other = rig.dp.take_core(1).unwrap();
    assert_eq!(other.poll_once(rig.now), 1);
    assert_eq!(rig.received(2).len(), 1);
    assert_eq!(rig.dp.stats().tx_packets, 1);
    assert!(rig.dp.take_core(1).is_err() && rig.dp.take_core(2).is_err());
}

#[test]
fn a_core_that_runs_sleeps_wakes_forwards_and_stops() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let rig = Rig::with_wakeups(2, |c| c.busy_poll = Duration::ZERO);
    rig.handler.set_actions(output(2));
    let Rig { dp, mut core, mut ends, pool, .. } = rig;
    let stop = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let stop = stop.clone();
        move || {
            core.run(&stop);
            core
        }
    });
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    for i in 0..20 {
        ends.get_mut(&1).unwrap().1.send(pool.copy_from(&udp(i)).unwrap()).unwrap();
        let out = &mut ends.get_mut(&2).unwrap().0;
        let got = loop {
            if let Some(p) = out.receive() {
                break p;
            }
            assert!(std::time::Instant::now() < deadline, "packet {i} did not come");
            std::thread::yield_now();
        };
        assert_eq!(&got[..], udp(i));
    }
    assert!(dp.synchronize(clock::Deadline::after(dp.now(), Duration::from_secs(10))));
    stop.store(true, Ordering::Release);
    dp.wake();
    thread.join().unwrap();
}
