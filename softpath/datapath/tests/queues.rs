//! Ports with several queues, on several cores, and what the cores say of themselves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use clock::{Instant, ManualClock};
use datapath::{Core, DatapathConfig, PortConfig, Queue, SoftDatapath, Stage};
use datapath_api::{
    Datapath, FlowCounters, FlowRecord, Miss, MissHandler, Punt, PuntSink, Translation, Translations,
};
use device::BufferPool;
use flow::{Action, FieldId, FlowId, PacketMask, PacketMatch, PortId};
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, cable};

/// Sends everything to port 2.
struct ToTwo;

impl MissHandler for ToTwo {
    fn translate(&self, misses: &[Miss], now: Instant, out: &mut Translations) {
        let mut mask = PacketMask::ZERO;
        mask.set_exact(FieldId::DpPort);
        for m in misses {
            out.push(Translation::Keep(Arc::new(FlowRecord {
                id: FlowId(m.key.get64(FieldId::DpPort)),
                matches: PacketMatch::new(&m.key, &mask).into(),
                actions: Arc::new([Action::Output(PortId(2))]),
                counters: Arc::new(FlowCounters::default()),
                owner: Arc::new(()),
                created: now,
            })));
        }
    }
}

impl PuntSink for ToTwo {
    fn punt(&self, _: Punt) -> bool {
        false
    }
}

type Far = (MemoryRx, MemoryTx);

/// Two cores; port 1 has a queue on each, port 2 one queue on the first.
fn switch() -> (Arc<SoftDatapath>, Vec<Core>, Vec<Far>, Far) {
    let config = DatapathConfig { cores: 2, seed: Some(1), ..DatapathConfig::default() };
    let dp =
        SoftDatapath::new(config, Arc::new(ManualClock::new()), Arc::new(ToTwo), Arc::new(ToTwo)).unwrap();
    let memory = MemoryConfig { capacity: 1024, ..MemoryConfig::default() };
    let end = |ends: &mut Vec<Far>| {
        let (mut ours, mut far) = cable(&memory).unwrap();
        ends.push(far.split().unwrap());
        let (rx, tx) = ours.split().unwrap();
        (Box::new(rx) as _, Box::new(tx) as _)
    };
    let mut ends = Vec::new();
    let queues =
        [0u16, 1].map(|number| Queue { number, core: Some(number.into()), pair: end(&mut ends) }).into();
    dp.attach_queues(PortConfig::new(PortId(1), "in"), queues).unwrap();
    let mut out = Vec::new();
    let (rx, tx) = end(&mut out);
    dp.attach(PortConfig { core: Some(0), ..PortConfig::new(PortId(2), "out") }, rx, tx).unwrap();
    let cores = vec![dp.take_core(0).unwrap(), dp.take_core(1).unwrap()];
    (dp, cores, ends, out.pop().unwrap())
}

fn poll(cores: &mut [Core]) {
    // The second hands packets for port 2 to the first.
    for _ in 0..2 {
        for c in cores.iter_mut().rev() {
            c.poll_once(Instant::from_nanos(1));
        }
    }
}

fn received(out: &mut Far) -> usize {
    std::iter::from_fn(|| out.0.receive()).count()
}

#[test]
fn queues_of_a_port_are_served_by_their_cores_and_counted_together() {
    let (dp, mut cores, mut ends, mut out) = switch();
    let pool = BufferPool::new(256).unwrap();
    for (queue, n) in [(0, 3), (1, 5)] {
        for _ in 0..n {
            ends[queue].1.send(pool.copy_from(&[0x55; 60]).unwrap()).unwrap();
        }
    }
    poll(&mut cores);
    assert_eq!(received(&mut out), 8);
    let s = dp.port_stats(PortId(1)).unwrap();
    assert_eq!((s.rx_packets, s.rx_bytes), (8, 480));
    assert_eq!(dp.port_stats(PortId(2)).unwrap().tx_packets, 8);
    let stats = dp.core_stats();
    let of = |core: usize| {
        let s = &stats[core];
        let queues: Vec<_> = s.queues.iter().map(|q| (q.name.as_str(), q.queue, q.packets)).collect();
        (s.packets.rx_packets, s.passes, queues)
    };
    assert_eq!(of(0), (3, 3, vec![("in", 0, 3), ("out", 0, 0)]));
    assert_eq!(of(1), (5, 5, vec![("in", 1, 5)]));
    let first = &stats[0];
    assert!(first.busy_cycles > 0 && first.busy_polls > 0 && first.queues[0].cycles > 0, "{first:?}");
    // The first poll with packets is timed by stages.
    assert!(first.sampled_packets > 0 && first.stage_cycles[Stage::Receive as usize] > 0, "{first:?}");
    assert_eq!(pool.free_cells(), 256);
}

#[test]
fn queues_change_cores_and_counters_go_on() {
    let (dp, mut cores, mut ends, mut out) = switch();
    let pool = BufferPool::new(256).unwrap();
    let send = |ends: &mut Vec<Far>| {
        for e in ends.iter_mut() {
            e.1.send(pool.copy_from(&[0x55; 60]).unwrap()).unwrap();
        }
    };
    send(&mut ends);
    poll(&mut cores);
    assert_eq!(dp.cores_of(PortId(1)), [0, 1]);
    // Cores let go while somebody else polls them.
    let moved = std::thread::scope(|s| {
        let mover = s.spawn(|| dp.reassign(PortId(1), &[1, 1], Duration::from_secs(20)));
        while !mover.is_finished() {
            poll(&mut cores);
        }
        mover.join().unwrap()
    });
    moved.unwrap();
    send(&mut ends);
    poll(&mut cores);
    assert_eq!(received(&mut out), 4);
    assert_eq!(dp.cores_of(PortId(1)), [1, 1]);
    assert_eq!(dp.port_stats(PortId(1)).unwrap().rx_packets, 4);
    let queues = &dp.core_stats()[1].queues;
    assert_eq!(queues.iter().map(|q| (q.queue, q.packets)).collect::<Vec<_>>(), [(0, 1), (1, 1)]);
    assert!(dp.reassign(PortId(1), &[0], Duration::ZERO).is_err(), "a core for each queue");
    assert!(dp.reassign(PortId(1), &[0, 2], Duration::ZERO).is_err(), "there is no third core");
    // Both halves of each queue come back when the port goes.
    let left = dp.detach(PortId(1)).unwrap();
    poll(&mut cores);
    assert_eq!(left.wait(Duration::ZERO).unwrap().len(), 2);
}

#[test]
fn a_spare_core_serves_queues_from_when_it_is_activated_until_it_is_not_active_any_more() {
    let config = DatapathConfig { cores: 1, spare_cores: 1, seed: Some(1), ..DatapathConfig::default() };
    let dp =
        SoftDatapath::new(config, Arc::new(ManualClock::new()), Arc::new(ToTwo), Arc::new(ToTwo)).unwrap();
    let mut cores = vec![dp.take_core(0).unwrap(), dp.take_core(1).unwrap()];
    let memory = MemoryConfig { capacity: 1024, ..MemoryConfig::default() };
    let mut far = Vec::new();
    for id in [1, 2] {
        let (mut ours, mut theirs) = cable(&memory).unwrap();
        let (rx, tx) = ours.split().unwrap();
        far.push(theirs.split().unwrap());
        dp.attach(PortConfig::new(PortId(id), format!("p{id}")), Box::new(rx), Box::new(tx)).unwrap();
    }
    let pool = BufferPool::new(256).unwrap();
    let mut through = |cores: &mut [Core]| {
        far[0].1.send(pool.copy_from(&[0x55; 60]).unwrap()).unwrap();
        poll(cores);
        received(&mut far[1])
    };
    let within = Duration::from_secs(20);
    let polled = |cores: &mut [Core], f: &(dyn Fn() + Sync)| {
        std::thread::scope(|s| {
            let other = s.spawn(f);
            while !other.is_finished() {
                poll(cores);
            }
            other.join().unwrap();
        });
    };
    assert_eq!((through(&mut cores), dp.core_stats().len()), (1, 1));
    assert!(dp.reassign(PortId(1), &[1], Duration::ZERO).is_err(), "it is not active");
    // Ports and records that were there before it.
    dp.activate(1).unwrap();
    polled(&mut cores, &|| dp.reassign(PortId(1), &[1], within).unwrap());
    assert_eq!(through(&mut cores), 1);
    let s = dp.core_stats();
    assert_eq!((s.len(), s[1].packets.rx_packets, s[1].packets.misses), (2, 1, 0), "{s:?}");
    assert!(dp.deactivate(1, within).is_err(), "it serves a queue");
    assert!(dp.deactivate(0, within).is_err(), "the first stays");
    polled(&mut cores, &|| dp.reassign(PortId(1), &[0], within).unwrap());
    polled(&mut cores, &|| dp.deactivate(1, within).unwrap());
    assert_eq!((through(&mut cores), dp.core_stats().len()), (1, 1));
    // What changes meanwhile it learns when it is activated again.
    dp.flow_flush();
    polled(&mut cores, &|| drop(dp.detach(PortId(2)).unwrap().wait(within).unwrap()));
    dp.activate(1).unwrap();
    polled(&mut cores, &|| dp.reassign(PortId(1), &[1], within).unwrap());
    assert_eq!(through(&mut cores), 0, "port 2 has gone");
    assert_eq!(pool.free_cells(), 256);
}
