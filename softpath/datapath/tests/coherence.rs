//! The caches always agree with the table: records are put, replaced, removed and flushed while packets flow.

mod rig;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use datapath_api::{Datapath, FlowCounters, FlowRecord, Miss, MissHandler, Translation, Translations};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use proptest::prelude::*;
use rig::{Rig, output};

/// Port to which a miss sends everything.
const MISS_PORT: u32 = 4;

/// One of the matches of the test: they do not overlap, and lie in three subtables.
fn matches(i: u32) -> PacketMatch {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 1);
    m.set(FieldId::RecircId, 0);
    m.set(FieldId::EthType, 0x800);
    match i % 3 {
        0 => m.set(FieldId::NwDst, u128::from(0x0a00_0000 | i)),
        1 => m.set_masked(FieldId::NwDst, u128::from(0x0a01_0000 | i << 4), 0xffff_fff0),
        _ => {
            m.set_masked(FieldId::NwDst, 0x0a02_0000, 0xffff_0000);
            m.set(FieldId::TpDst, i.into());
        }
    }
    m
}

/// A frame that match `i` matches; `low` varies what the match leaves open.
fn frame(i: u32, low: u8) -> Vec<u8> {
    let dst: u32 = match i % 3 {
        0 => 0x0a00_0000 | i,
        1 => 0x0a01_0000 | i << 4 | u32::from(low & 15),
        _ => 0x0a02_0000 | u32::from(low),
    };
    FrameBuilder::new().ipv4([1, 1, 1, low], dst.to_be_bytes()).udp(7, i as u16).build()
}

fn record(id: u64, i: u32, port: u32) -> Arc<FlowRecord> {
    Arc::new(FlowRecord {
        id: FlowId(id),
        matches: matches(i).into(),
        actions: output(port).into(),
        counters: Arc::new(FlowCounters::default()),
        owner: Arc::new(()),
        created: clock::Instant::ZERO,
    })
}

/// Makes the record of the match that a packet falls under, to [`MISS_PORT`].
#[derive(Default)]
struct Maker {
    next: AtomicU64,
    install: AtomicBool,
}

fn index_of(k: &flow::PacketKey) -> u32 {
    let dst = k.get64(FieldId::NwDst) as u32;
    match dst >> 16 & 0xff {
        0 => dst & 0xff,
        1 => (dst & 0xffff) >> 4,
        _ => k.get64(FieldId::TpDst) as u32,
    }
}

impl MissHandler for Maker {
    fn translate(&self, misses: &[Miss], _: clock::Instant, out: &mut Translations) {
        for m in misses {
            let id = 1_000_000 + self.next.fetch_add(1, Ordering::Relaxed);
            let r = record(id, index_of(&m.key), MISS_PORT);
            let keep = self.install.load(Ordering::Relaxed);
            out.push(if keep { Translation::Keep(r) } else { Translation::Once(r.actions.to_vec()) });
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Put { i: u32, port: u32 },
    Del { i: u32 },
    Flush,
    Packets(Vec<(u32, u8)>),
    Install(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..12u32, 2..4u32).prop_map(|(i, port)| Op::Put { i, port }),
        2 => (0..12u32).prop_map(|i| Op::Del { i }),
        1 => Just(Op::Flush),
        6 => prop::collection::vec((0..12u32, any::<u8>()), 1..40).prop_map(Op::Packets),
        1 => any::<bool>().prop_map(Op::Install),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn packets_follow_the_table_through_every_change(ops in prop::collection::vec(op(), 1..60)) {
        let maker = Arc::new(Maker::default());
        maker.install.store(true, Ordering::Relaxed);
        let mut rig = Rig::with_handler(4, maker.clone(), |c| c.exact_slots = 16);
        // What the table should hold: match -> (name if ours, port).
        let mut table: BTreeMap<u32, u32> = BTreeMap::new();
        let mut id = 0;
        let mut counted: BTreeMap<u32, u64> = BTreeMap::new();
        for o in ops {
            match o {
                Op::Put { i, port } => {
                    id += 1;
                    rig.dp.flow_put(record(id, i, port)).unwrap();
                    table.insert(i, port);
                    counted.insert(i, 0);
                }
                Op::Del { i } => {
                    let found = rig.flows().into_iter().find(|r| r.matches == matches(i));
                    prop_assert_eq!(found.is_some(), table.remove(&i).is_some());
                    counted.remove(&i);
                    if let Some(r) = found {
                        rig.dp.flow_del(r.id).unwrap();
                    }
                }
                Op::Flush => {
                    rig.dp.flow_flush();
                    table.clear();
                    counted.clear();
                }
                Op::Install(on) => maker.install.store(on, Ordering::Relaxed),
                Op::Packets(v) => {
                    let mut expected: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
                    for (i, low) in v {
                        rig.send(1, &frame(i, low));
                        let port = table.get(&i).copied().unwrap_or(MISS_PORT);
                        expected.entry(port).or_default().push(frame(i, low));
                        if maker.install.load(Ordering::Relaxed) {
                            table.entry(i).or_insert(MISS_PORT);
                        }
                        if table.contains_key(&i) {
                            *counted.entry(i).or_default() += 1;
                        }
                    }
                    while rig.poll() > 0 {}
                    for port in 2..=4 {
                        prop_assert_eq!(rig.received(port), expected.remove(&port).unwrap_or_default());
                    }
                }
            }
            let flows = rig.flows();
            prop_assert_eq!(flows.len(), table.len());
            for r in flows {
                let i = (0..12).find(|i| r.matches == matches(*i)).unwrap();
                prop_assert_eq!(&*r.actions, &output(table[&i])[..]);
                prop_assert_eq!(r.counters.read().packets, counted.get(&i).copied().unwrap_or(0), "match {}", i);
            }
            prop_assert_eq!(rig.dp.stats().flows, table.len());
        }
        rig.poll();
        prop_assert_eq!(rig.core.megaflows(), table.len());
    }
}

#[test]
fn a_name_put_again_with_another_match_takes_the_old_record_from_the_cores() {
    let mut rig = Rig::with_handler(5, Arc::new(Maker::default()), |_| ());
    rig.dp.flow_put(record(1000, 0, 2)).unwrap();
    rig.send(1, &frame(0, 1));
    rig.poll();
    assert_eq!(rig.received(2).len(), 1);
    rig.dp.flow_put(record(1000, 1, 3)).unwrap();
    rig.send(1, &frame(0, 1));
    rig.send(1, &frame(1, 1));
    rig.poll();
    assert_eq!([2, 3, MISS_PORT].map(|p| rig.received(p).len()), [0, 1, 1]);
}

#[test]
fn records_change_under_a_running_core_and_no_packet_is_lost_or_sent_by_a_removed_one() {
    const PACKETS: u64 = 20_000;
    let maker = Arc::new(Maker::default());
    maker.install.store(true, Ordering::Relaxed);
    let rig = Rig::with_handler(4, maker, |c| c.busy_poll = Duration::from_secs(3600));
    let Rig { dp, mut core, mut ends, pool, .. } = rig;
    let stop = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let stop = stop.clone();
        move || {
            core.run(&stop);
            core
        }
    });
    let far = || clock::Deadline(clock::Instant::FAR_FUTURE);
    let (_, mut tx) = ends.remove(&1).unwrap();
    let mut out: Vec<_> = [2, 3, 4].map(|p| ends.remove(&p).unwrap().0).into();
    let mut got = [0u64; 3];
    let mut drain = |got: &mut [u64; 3]| {
        for (n, rx) in got.iter_mut().zip(&mut out) {
            while rx.receive().is_some() {
                *n += 1;
            }
        }
    };
    let mut sent = 0;
    let mut id = 0u64;
    let mut rng = 12345u32;
    while sent < PACKETS {
        // No more on the way than a port's queue holds, whoever runs when: what is lost then is not the core's fault.
        if sent - got.iter().sum::<u64>() > rig::QUEUE as u64 / 2 {
            drain(&mut got);
            std::thread::yield_now();
            continue;
        }
        rng = rng.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let i = rng >> 8 & 7;
        for k in 0..20u8 {
            let Some(p) = pool.copy_from(&frame((i + u32::from(k)) % 12, k)) else { break };
            if tx.send(p).is_err() {
                break;
            }
            sent += 1;
        }
        drain(&mut got);
        match rng >> 16 & 3 {
            0 | 1 => {
                id += 1;
                dp.flow_put(record(id, i, 2 + (rng >> 20 & 1))).unwrap();
            }
            2 => {
                let _ = dp.flow_del(FlowId(id));
            }
            _ if rng >> 24 & 7 == 0 => dp.flow_flush(),
            _ => {}
        }
    }
    // At rest: everything that went in has come out.
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while got.iter().sum::<u64>() < sent && std::time::Instant::now() < deadline {
        drain(&mut got);
        std::thread::yield_now();
    }
    assert_eq!(got.iter().sum::<u64>(), sent, "{got:?} {:?}", dp.stats());
    // A removed record is not used once the cores have passed by, and a replaced one neither.
    for round in 0..200u32 {
        id += 1;
        let port = 2 + round % 2;
        dp.flow_put(record(id, 0, port)).unwrap();
        assert!(dp.synchronize(far()));
        tx.send(pool.copy_from(&frame(0, 0)).unwrap()).unwrap();
        let before = got;
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while got == before {
            drain(&mut got);
            assert!(std::time::Instant::now() < deadline, "round {round}");
            std::thread::yield_now();
        }
        assert_eq!(got[port as usize - 2], before[port as usize - 2] + 1, "round {round}");
    }
    stop.store(true, Ordering::Release);
    dp.wake();
    let core = thread.join().unwrap();
    let s = dp.stats();
    assert_eq!(s.rx_packets, s.tx_packets);
    assert_eq!(s.drops.iter().sum::<u64>(), 0);
    drop(core);
    assert_eq!(pool.free_cells(), pool.cells() as usize);
}

#[test]
fn a_controller_action_takes_the_packet_as_it_is_and_counts_when_there_is_no_room() {
    let mut rig = Rig::new(2);
    let c = flow::ControllerAction {
        reason: flow::PuntReason::NoMatch,
        cookie: 0,
        table: 3,
        in_port: 1,
        ..flow::ControllerAction::default()
    };
    rig.handler.set_actions(vec![
        Action::SetField { field: FieldId::NwTtl, value: 9, mask: 0xff },
        Action::Controller(c),
        Action::Output(PortId(2)),
    ]);
    rig.fill_sink(1);
    rig.send(1, &frame(0, 0));
    rig.send(1, &frame(0, 0));
    rig.poll();
    let punts = rig.sink.punts.lock().unwrap();
    let last = punts.last().unwrap();
    assert_eq!((last.action, last.key.get64(FieldId::NwTtl), last.packet[22]), (c, 9, 9));
    drop(punts);
    assert_eq!(rig.dp.stats().punts, 1);
    assert_eq!(rig::drops(&rig), [(datapath_api::DropReason::PuntFull, 1)]);
    assert_eq!(rig.received(2).len(), 2);
}
