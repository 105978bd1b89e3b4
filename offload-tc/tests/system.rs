//! The kernel's datapath as one that a switch stands on, over a fake kernel: what becomes of misses, records, counters and faults.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as HostInstant};

use clock::{Clock, HostClock, Instant};
use datapath_api::{
    Datapath, FlowCounters, FlowRecord, MeterBand, MeterBandKind, MeterConfig, MeterUnit, Miss, MissHandler,
    Punt, PuntSink, Translation, Translations,
};
use flow::text::odp::{parse_actions, parse_match};
use flow::{Action, ControllerAction, FieldId, FlowId, MeterId, PacketKey, PacketMatch, PortId};
use nix::errno::Errno;
use offload_tc::fake::FakeKernel;
use offload_tc::kdp::fake::FakeDatapath;
use offload_tc::kdp::{Sockets, SystemDatapath, SystemParts, VportKind};
use offload_tc::wire::{Writer, attrs, find};

/// Answers every miss with the same actions, for the port and the Ethernet type.
struct Answers {
    actions: Mutex<Vec<Action>>,
    refused: Mutex<Vec<FlowId>>,
    next: Mutex<u64>,
    punts: Mutex<Vec<Punt>>,
    software: Mutex<Vec<Vec<Action>>>,
}

impl MissHandler for Answers {
    fn translate(&self, misses: &[Miss], now: Instant, out: &mut Translations) {
        for m in misses {
            let mut matches = PacketMatch::ANY;
            for f in [FieldId::DpPort, FieldId::RecircId, FieldId::EthType] {
                matches.set(f, m.key.get(f));
            }
            let mut next = self.next.lock().unwrap();
            *next += 1;
            let actions = self.actions.lock().unwrap().clone();
            let record = Arc::new(record(*next, matches, actions, now));
            out.push(Translation::Keep(record));
        }
    }
    fn refused(&self, r: &Arc<FlowRecord>) {
        self.refused.lock().unwrap().push(r.id);
    }
}

impl PuntSink for Answers {
    fn punt(&self, p: Punt) -> bool {
        self.punts.lock().unwrap().push(p);
        true
    }
}

fn record(id: u64, matches: PacketMatch, actions: Vec<Action>, now: Instant) -> FlowRecord {
    let counters = Arc::new(FlowCounters::default());
    FlowRecord {
        id: FlowId(id),
        matches: matches.into(),
        actions: actions.into(),
        counters,
        owner: Arc::new(()),
        created: now,
    }
}

struct Rig {
    kernel: FakeDatapath,
    answers: Arc<Answers>,
    dp: Arc<SystemDatapath>,
    clock: Arc<HostClock>,
}

impl Rig {
    fn new(actions: &str, limit: usize) -> Rig {
        Rig::with(actions, limit, |s| s)
    }

    fn with(actions: &str, limit: usize, more: impl FnOnce(Sockets) -> Sockets) -> Rig {
        let kernel = FakeDatapath::new();
        let actions = parse_actions(actions, &|_| None).unwrap();
        let answers = Arc::new(Answers {
            actions: Mutex::new(actions),
            refused: Mutex::default(),
            next: Mutex::new(100),
            punts: Mutex::default(),
            software: Mutex::default(),
        });
        let clock = Arc::new(HostClock::new());
        let (from, did) = (kernel.clone(), answers.clone());
        let sockets = Sockets::new(move || {
            let (s, n) = from.socket();
            Ok((Box::new(s) as Box<dyn offload_tc::transport::Transport>, n))
        });
        let sockets = more(sockets);
        let parts = SystemParts {
            miss: answers.clone(),
            punts: answers.clone(),
            software: Box::new(move |_, _, actions| {
                did.software.lock().unwrap().push(actions.to_vec());
                true
            }),
            clock: clock.clone(),
            limit,
            cpus: 2,
        };
        let dp = SystemDatapath::open("ovs-system", &sockets, parts).unwrap();
        for (n, name) in [(1, "p1"), (2, "p2")] {
            dp.add_port(name, &VportKind::Netdev, PortId(n)).unwrap();
        }
        Rig { kernel, answers, dp, clock }
    }

    /// A frame of type `eth_type` comes in by `port` that no flow knows, or by an action that says `userdata`.
    fn miss(&self, port: u32, eth_type: u16, userdata: Option<&[u8]>) {
        let head = [[0xff; 6].as_slice(), &[2, 0, 0, 0, 0, 1], &eth_type.to_be_bytes()].concat();
        let mut w = Writer::new();
        w.attr(1, &[head, vec![0; 46]].concat());
        let n = w.nest(2);
        w.u32(3, port);
        w.end(n);
        if let Some(u) = userdata {
            w.attr(4, u);
            return self.kernel.hand_over(w.bytes());
        }
        self.kernel.miss(w.bytes());
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let began = HostInstant::now();
        while !holds() {
            assert!(began.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn records(&self) -> Vec<Arc<FlowRecord>> {
        let mut all = Vec::new();
        self.dp.flow_dump(&mut |r| {
            all.push(r.clone());
            true
        });
        all
    }

    fn put(&self, id: u64, flow: &str, actions: &str) -> Result<(), datapath_api::DatapathError> {
        let actions = if actions == "drop" { Vec::new() } else { parse_actions(actions, &|_| None).unwrap() };
        let m = parse_match(flow, &|_| None).unwrap();
        self.dp.flow_put(Arc::new(record(id, m, actions, self.clock.now())))
    }
}

/// The name of a flow in the kernel.
fn name(id: u64) -> Vec<u8> {
    [b"HoiS\0\0\0\0".as_slice(), &id.to_be_bytes()].concat()
}

#[test]
fn a_miss_is_translated_put_and_executed_once() {
    let r = Rig::new("2", 100);
    r.miss(1, 0x88b5, None);
    r.wait("it is executed", || !r.kernel.executed().is_empty());
    r.wait("it is put", || r.kernel.flows().len() == 1);
    let all = r.records();
    // The packet itself, and what the kernel says of the flow.
    assert_eq!((all.len(), all[0].counters.read().packets), (1, 1 + 7));
    assert_eq!(r.records()[0].counters.read().packets, 8, "a reading is counted once");
    r.kernel.count(&name(all[0].id.0), 20, 2000);
    assert_eq!(r.records()[0].counters.read().packets, 21);
    // The last reading comes with the removal.
    r.kernel.count(&name(all[0].id.0), 25, 2500);
    let last = r.dp.flow_del(all[0].id).unwrap();
    assert_eq!((last.counters.read().packets, r.kernel.flows().len()), (26, 0));
}

#[test]
fn two_packets_of_one_flow_make_one_record() {
    let r = Rig::new("2", 100);
    for _ in 0..4 {
        r.miss(1, 0x88b5, None);
    }
    r.wait("all are executed", || r.kernel.executed().len() == 4);
    let all = r.records();
    assert_eq!((all.len(), r.kernel.flows().len()), (1, 1));
    assert_eq!(all[0].counters.read().packets, 4 + 7);
}

#[test]
fn a_table_that_is_full_forwards_all_the_same() {
    let r = Rig::new("2", 1);
    r.miss(1, 0x88b5, None);
    r.wait("the first is put", || r.kernel.flows().len() == 1);
    r.miss(1, 0x88b6, None);
    r.wait("the second is executed", || r.kernel.executed().len() == 2);
    assert_eq!((r.records().len(), r.answers.refused.lock().unwrap().len()), (1, 1));
    let full = r.put(5, "in_port(2),eth_type(0x0806)", "1");
    assert!(matches!(full, Err(datapath_api::DatapathError::Full { limit: 1 })), "{full:?}");
}

#[test]
fn a_flow_that_the_kernel_refuses_leaves_nothing_and_a_later_one_comes_through() {
    let r = Rig::new("2", 100);
    r.kernel.refuse_next(Errno::ENOMEM);
    r.miss(1, 0x88b5, None);
    r.wait("it is executed", || r.kernel.executed().len() == 1);
    assert_eq!((r.records().len(), r.answers.refused.lock().unwrap().len()), (0, 1));
    r.miss(1, 0x88b5, None);
    r.wait("it is put", || r.kernel.flows().len() == 1);
    assert_eq!(r.records().len(), 1);
    // A change that is refused leaves what was there.
    r.put(7, "in_port(2),eth_type(0x0806)", "1").unwrap();
    r.kernel.refuse_next(Errno::ENOMEM);
    assert!(r.put(7, "in_port(2),eth_type(0x0806)", "drop").is_err());
    let seven = r.records().into_iter().find(|x| x.id == FlowId(7)).unwrap();
    assert_eq!(*seven.actions, [Action::Output(PortId(1))]);
}

#[test]
fn what_the_kernel_cannot_do_it_hands_over_and_software_does_it() {
    let r = Rig::new("2", 100);
    *r.answers.actions.lock().unwrap() = vec![Action::DecTtl, Action::Output(PortId(2))];
    r.miss(1, 0x88b5, None);
    r.wait("software does it", || r.answers.software.lock().unwrap().len() == 1);
    let flows = r.kernel.flows();
    let body = flows.values().next().unwrap();
    let action = attrs(find(body, 2).unwrap().unwrap()).next().unwrap().unwrap();
    assert_eq!(action.0, 2, "userspace");
    let userdata = find(action.1, 2).unwrap().unwrap();
    // The next packets of the flow come with that.
    r.miss(1, 0x88b5, Some(userdata));
    r.wait("software does it again", || r.answers.software.lock().unwrap().len() == 2);
    assert_eq!(r.kernel.flows().len(), 1);
    // A port that is not the kernel's is software's as well.
    r.put(9, "in_port(2),eth_type(0x0806)", "77").unwrap();
    let body = &r.kernel.flows()[&name(9)];
    assert_eq!(attrs(find(body, 2).unwrap().unwrap()).next().unwrap().unwrap().0, 2);
}

#[test]
fn packets_for_controllers_bring_along_what_the_flow_says() {
    let r = Rig::new("2", 100);
    let c = ControllerAction { cookie: 77, table: 3, ..ControllerAction::default() };
    *r.answers.actions.lock().unwrap() = vec![Action::Controller(c)];
    r.miss(1, 0x88b5, None);
    r.wait("it is put", || r.kernel.flows().len() == 1);
    let flows = r.kernel.flows();
    let action = attrs(find(flows.values().next().unwrap(), 2).unwrap().unwrap()).next().unwrap().unwrap();
    let userdata = find(action.1, 2).unwrap().unwrap();
    r.miss(1, 0x88b5, Some(userdata));
    r.wait("the controller gets it", || r.answers.punts.lock().unwrap().len() == 1);
    let p = r.answers.punts.lock().unwrap()[0].clone();
    assert_eq!((p.action, p.packet.len(), p.key.get(FieldId::DpPort)), (c, 60, 1));
    r.miss(1, 0x88b5, Some(b"nonsense"));
    r.wait("nonsense is counted", || r.dp.counters().unreadable == 1);
}

#[test]
fn flows_that_somebody_else_removed_leave_and_those_that_nobody_knows_are_swept() {
    let r = Rig::new("2", 100);
    r.put(1, "in_port(1),eth_type(0x0806)", "2").unwrap();
    r.put(2, "in_port(2),eth_type(0x0806)", "1").unwrap();
    assert_eq!(r.records().len(), 2);
    r.kernel.lose_flow(&name(1));
    assert_eq!(r.records().iter().map(|x| x.id).collect::<Vec<_>>(), [FlowId(2)]);
    assert_eq!(r.dp.counters().removed, 1);
    // A flow whose put was answered by nobody may be there.
    r.kernel.lose_next(1);
    assert!(r.put(3, "in_port(1),eth_type(0x0800)", "2").is_err());
    assert_eq!(r.kernel.flows().len(), 2);
    assert_eq!(r.records().len(), 1);
    r.records();
    assert_eq!((r.kernel.flows().len(), r.dp.counters().swept), (1, 1));
}

#[test]
fn a_record_takes_the_place_of_one_with_the_same_match() {
    let r = Rig::new("2", 100);
    r.put(1, "in_port(1),eth_type(0x0806)", "2").unwrap();
    r.put(2, "in_port(1),eth_type(0x0806)", "drop").unwrap();
    assert_eq!(r.records().iter().map(|x| x.id).collect::<Vec<_>>(), [FlowId(2)]);
    assert_eq!(r.kernel.flows().into_keys().collect::<Vec<_>>(), [name(2)]);
    r.put(2, "in_port(1),eth_type(0x0800)", "drop").unwrap();
    assert_eq!((r.records().len(), r.kernel.flows().len()), (1, 1));
    r.dp.flow_flush();
    assert!(r.records().is_empty() && r.kernel.flows().is_empty());
}

#[test]
fn meters_are_the_kernels_when_a_record_uses_them() {
    let r = Rig::new("2", 100);
    let band = |rate, kind| MeterBand { rate, burst: 0, kind };
    let config = |kind| MeterConfig { unit: MeterUnit::Pps, bands: vec![band(10, kind)] };
    r.dp.meter_put(MeterId(4), config(MeterBandKind::Drop)).unwrap();
    assert!(r.kernel.meters().is_empty());
    let used = vec![Action::Meter(MeterId(4)), Action::Output(PortId(2))];
    let m = parse_match("in_port(1),eth_type(0x0800)", &|_| None).unwrap();
    r.dp.flow_put(Arc::new(record(1, m, used, r.clock.now()))).unwrap();
    assert_eq!(r.kernel.meters().len(), 1);
    assert_eq!(r.dp.meter_stats(MeterId(4)).unwrap().input.packets, 5);
    // Its band is there: type, rate, burst.
    let body = &r.kernel.meters()[&4];
    let band = attrs(find(body, 4).unwrap().unwrap()).next().unwrap().unwrap().1;
    assert_eq!(find(band, 2).unwrap(), Some(&10u32.to_ne_bytes()[..]));
    // The kernel's counts anew when it is changed, ours counts on.
    r.dp.meter_put(MeterId(4), config(MeterBandKind::Drop)).unwrap();
    assert_eq!(r.dp.meter_stats(MeterId(4)).unwrap().input.packets, 10);
    r.dp.meter_del(MeterId(4)).unwrap();
    assert!(r.kernel.meters().is_empty());
    // One that remarks is software's.
    r.dp.meter_put(MeterId(5), config(MeterBandKind::DscpRemark { levels: 1 })).unwrap();
    let used = vec![Action::Meter(MeterId(5)), Action::Output(PortId(2))];
    let m = parse_match("in_port(2),eth_type(0x0800)", &|_| None).unwrap();
    r.dp.flow_put(Arc::new(record(2, m, used, r.clock.now()))).unwrap();
    let flows = r.kernel.flows();
    assert_eq!(attrs(find(&flows[&name(2)], 2).unwrap().unwrap()).next().unwrap().unwrap().0, 2);
}

#[test]
fn packets_of_controllers_are_executed_and_lost_ones_counted() {
    let r = Rig::new("2", 100);
    let frame = [0xff; 60];
    r.dp.execute(&frame, PortId(u32::MAX), Arc::new([Action::Output(PortId(2))])).unwrap();
    let told = r.kernel.executed();
    let key = find(&told[0], 2).unwrap().unwrap();
    assert!(key.is_empty(), "a packet from nowhere has no port: {key:?}");
    r.dp.execute(&frame, PortId(1), Arc::new([Action::DecTtl, Action::Output(PortId(2))])).unwrap();
    assert_eq!(r.answers.software.lock().unwrap().len(), 1);
    r.kernel.overrun();
    r.wait("the loss is counted", || r.dp.counters().lost == 1);
    assert_eq!(PacketKey::ZERO.get(FieldId::DpPort), 0);
    r.dp.remove_port(PortId(2)).unwrap();
    r.dp.remove_port(PortId(2)).unwrap();
    assert!(!r.dp.has_port(PortId(2)));
    r.dp.destroy().unwrap();
    assert!(r.kernel.ports().is_empty());
}

#[test]
fn where_the_kernel_makes_no_devices_for_tunnels_we_do_and_take_them_away() {
    let host = FakeKernel::new(&[]);
    let of = host.clone();
    let r = Rig::with("2", 100, move |s| s.with_route(move || Ok(Box::new(of.socket()))));
    let vxlan = |n| r.dp.add_port("vxlan_sys_4789", &VportKind::Vxlan(4789), PortId(n));
    vxlan(7).unwrap();
    assert_eq!(r.kernel.ports()[&7].1, 4, "a kernel that makes them is left to it");
    assert!(host.links().is_empty());
    r.dp.remove_port(PortId(7)).unwrap();
    r.kernel.without_tunnels();
    for (name, kind, of_kind) in [
        ("vxlan_sys_4789", VportKind::VxlanGbp(4789), "vxlan"),
        ("genev_sys_6081", VportKind::Geneve(6081), "geneve"),
        ("gre_sys", VportKind::Gre, "gretap"),
    ] {
        r.dp.add_port(name, &kind, PortId(8)).unwrap();
        assert_eq!(r.kernel.ports()[&8], (name.to_owned(), 1));
        assert_eq!(host.links(), [(name.to_owned(), of_kind.to_owned())]);
        r.dp.remove_port(PortId(8)).unwrap();
        assert!(host.links().is_empty() && !r.kernel.ports().contains_key(&8), "{name}");
    }
    vxlan(8).unwrap();
    r.dp.remove_port(PortId(99)).unwrap();
    assert_eq!(host.links().len(), 1);
    assert!(vxlan(9).is_err(), "its name is taken in the datapath");
    host.refuse_next(Errno::EADDRINUSE as i32, "");
    let e = r.dp.add_port("genev_sys_6081", &VportKind::Geneve(6081), PortId(10)).unwrap_err();
    assert!(e.to_string().contains("tunnel device"), "{e}");
    r.dp.destroy().unwrap();
    assert!(host.links().is_empty(), "{:?}", host.links());
}
