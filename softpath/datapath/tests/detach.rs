//! Ports that leave and come back while packets flow: queues come back whole, every packet is sent or counted.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clock::{Clock, HostClock};
use datapath::{DatapathConfig, PortConfig, SoftDatapath};
use datapath_api::{Datapath, DropReason, FlowCounters, FlowRecord};
use device::BufferPool;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use netio::memory::{MemoryConfig, cable};

use rig::Rig;

const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn what_a_detached_port_had_received_waits_in_its_queue() {
    let mut rig = Rig::new(2);
    rig.handler.set_actions(rig::output(2));
    let left = rig.dp.detach(PortId(1)).unwrap();
    assert!(!left.is_done(), "no core has come round");
    rig.send(1, &[0x55; 60]);
    assert_eq!(rig.poll(), 0, "nothing is received from it any more");
    assert!(left.is_done());
    let (rx, tx) = left.wait(Duration::ZERO).unwrap().pop().unwrap();
    rig.dp.attach(PortConfig::new(PortId(1), "again"), rx, tx).unwrap();
    assert_eq!(rig.poll(), 1);
    assert_eq!(rig.received(2).len(), 1);
}

#[test]
fn nobody_waits_for_ever_for_a_core_that_does_not_run() {
    let rig = Rig::new(1);
    assert!(rig.dp.detach(PortId(1)).unwrap().wait(Duration::from_millis(1)).is_none());
}

struct Nobody;

impl datapath_api::MissHandler for Nobody {
    fn translate(&self, _: &[datapath_api::Miss], _: clock::Instant, _: &mut datapath_api::Translations) {}
}

impl datapath_api::PuntSink for Nobody {
    fn punt(&self, _: datapath_api::Punt) -> bool {
        false
    }
}

/// Two cores; port 1 floods port 2, which is on the other core, while port 2 leaves and comes back.
#[test]
fn under_traffic_every_packet_is_sent_or_counted() {
    let clock: Arc<dyn Clock> = Arc::new(HostClock::new());
    let config = DatapathConfig { cores: 2, ..DatapathConfig::default() };
    let dp = SoftDatapath::new(config, clock.clone(), Arc::new(Nobody), Arc::new(Nobody)).unwrap();
    let pool = BufferPool::new(4096).unwrap();
    let memory = MemoryConfig { capacity: 1024, wakeups: true, ..MemoryConfig::default() };
    let mut ends = Vec::new();
    for p in [1u32, 2] {
        let (mut ours, mut far) = cable(&memory).unwrap();
        let (rx, tx) = ours.split().unwrap();
        let config = PortConfig { core: Some(p as usize - 1), ..PortConfig::new(PortId(p), format!("p{p}")) };
        dp.attach(config, Box::new(rx), Box::new(tx)).unwrap();
        ends.push(far.split().unwrap());
    }
    let mut matches = PacketMatch::ANY;
    matches.set(FieldId::DpPort, 1);
    matches.set(FieldId::RecircId, 0);
    dp.flow_put(Arc::new(FlowRecord {
        id: FlowId(1),
        matches: matches.into(),
        actions: vec![Action::Output(PortId(2))].into(),
        counters: Arc::new(FlowCounters::default()),
        owner: Arc::new(()),
        created: clock.now(),
    }))
    .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let cores: Vec<_> = (0..2)
        .map(|i| {
            let (mut core, stop) = (dp.take_core(i).unwrap(), stop.clone());
            std::thread::spawn(move || core.run(&stop))
        })
        .collect();
    let (mut far2_rx, _far2_tx) = ends.pop().unwrap();
    let (_far1_rx, mut far1_tx) = ends.pop().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let sent = Arc::new(AtomicU64::new(0));
    let sender = {
        let (pool, done, sent) = (pool.clone(), done.clone(), sent.clone());
        std::thread::spawn(move || {
            while !done.load(Ordering::Relaxed) {
                match pool.copy_from(&[0x55; 60]).map(|p| far1_tx.send(p)) {
                    Some(Ok(())) => {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => std::thread::yield_now(),
                }
            }
            far1_tx
        })
    };
    let got = Arc::new(AtomicU64::new(0));
    let receiver = {
        let (stop, got) = (stop.clone(), got.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match far2_rx.receive() {
                    Some(_) => {
                        got.fetch_add(1, Ordering::Relaxed);
                    }
                    None => std::thread::yield_now(),
                }
            }
            while far2_rx.receive().is_some() {
                got.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let mut on = 1;
    for round in 0..50 {
        // Some packets get through between two rounds.
        let before = got.load(Ordering::Relaxed);
        let until = std::time::Instant::now() + PATIENCE;
        while got.load(Ordering::Relaxed) == before {
            assert!(std::time::Instant::now() < until, "round {round}: nothing arrives");
            std::thread::yield_now();
        }
        let mut queues = dp.detach(PortId(2)).unwrap().wait(PATIENCE).expect("both cores run");
        let (rx, tx) = queues.pop().unwrap();
        // It may come back on the other core.
        on = 1 - on;
        dp.attach(PortConfig { core: Some(on), ..PortConfig::new(PortId(2), "p2") }, rx, tx).unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let _far1_tx = sender.join().unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let accounted = || {
        let s = dp.stats();
        let lost: u64 =
            [DropReason::NoSuchPort, DropReason::TxFull].iter().map(|r| s.drops[*r as usize]).sum();
        (lost, got.load(Ordering::Relaxed) + lost)
    };
    while accounted().1 != sent.load(Ordering::Relaxed) {
        assert!(
            std::time::Instant::now() < until,
            "sent {}, received and lost {:?}, drops {:?}",
            sent.load(Ordering::Relaxed),
            accounted(),
            dp.stats().drops
        );
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Relaxed);
    dp.wake();
    for c in cores {
        c.join().unwrap();
    }
    receiver.join().unwrap();
    assert_eq!(pool.free_cells(), 4096, "every buffer is back");
}
