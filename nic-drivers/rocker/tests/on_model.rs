//! The driver on a model of the device: rules forward as the conformance suite wants it, packets go both ways, and every
//! failure ends in a typed error, with software taking the traffic and the device coming back.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::time::Duration;

use clock::{Clock, Instant};
use device::{BufferPool, IoError, PacketBatch, PacketIo};
use flow::{Action, FieldId, PacketKey, PortId, parse};
use models::rocker::{CmdFault, Outside, RxFault};
use offload::conformance::{Harness, Sent, frame};
use offload::{FlowOp, FlowRule, OffloadError, OffloadProvider, OpId, OpResult, Origin, Reject, StatsCursor};
use rocker::events::Event;
use rocker::quirks::{QUIRKS, Quirks};
use rocker::{Fault, RockerConfig, RockerDriver, Step};
use rocker_defs::cmd::{command, errno, group, table};
use support::*;

struct Conforming(Bench);

impl Harness for Conforming {
    fn provider(&mut self) -> &mut dyn OffloadProvider {
        &mut self.0.nic.provider
    }
    fn send(&mut self, key: &PacketKey, len_bytes: u32) -> Sent {
        let b = &mut self.0;
        let port = (key.get64(FieldId::DpPort) as u32 - dp(0).0) as u16;
        b.model.inject(port, &frame(key, len_bytes));
        if !b.received(port.into()).is_empty() {
            return Sent::Missed;
        }
        let key = |f: &[u8]| parse::parse(f, PortId(0)).unwrap().key;
        Sent::Forwarded(b.model.collect().iter().map(|(p, f)| (dp(*p), key(f))).collect())
    }
    fn advance(&mut self, d: Duration) {
        self.0.model.clock.advance(d);
    }
    fn now(&self) -> Instant {
        self.0.model.clock.now()
    }
}

impl Drop for Conforming {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.0.assert_clean();
        }
    }
}

#[test]
fn the_provider_conforms_with_qemus_quirks_and_without() {
    offload::conformance::run(&mut || Box::new(Conforming(Bench::new(config()))));
    let counting = || RockerConfig { quirks: Quirks::NONE, ..config() };
    offload::conformance::run(&mut || Box::new(Conforming(Bench::new(counting()))));
    assert!(QUIRKS.iter().all(|q| q.seen_in.starts_with("QEMU ")));
}

#[test]
fn what_no_record_matches_comes_to_the_cpu_as_it_was_and_goes_out_again() {
    let mut b = Bench::new(config());
    for f in [untagged(), tagged(5), tagged(0)] {
        b.model.inject(1, &f);
        assert_eq!(b.received(1), std::slice::from_ref(&f));
        assert_eq!(b.send(2, &[&f, &f]).unwrap(), 2);
        assert_eq!(b.model.collect(), [(2, f.clone()), (2, f)]);
    }
    b.model.inject(1, &tagged(0xfff));
    assert!(b.received(1).is_empty(), "no wire has frames of the internal VLAN");
    let c = b.nic.ports[1].counters();
    assert_eq!((c.rx_packets, c.rx_bytes), (3, 42 + 46 + 46));
    assert_eq!(b.nic.ports[2].counters().tx_packets, 6);
    assert!(b.nic.ports[2].link().link_up);
    assert_eq!(b.nic.ports[2].mac(), [0x52, 0x54, 0, 0, 0, 3]);
    let s = b.nic.ports[2].settings();
    assert_eq!((s.speed_mbps, s.name.as_str()), (10_000, "sw1p"));
    assert_eq!(b.nic.provider.port_counters(1), Ok(None), "the emulated device has none");
    // Many more than a ring holds.
    for _ in 0..100 {
        b.model.inject(1, &untagged());
        assert_eq!(b.received(1).len(), 1);
        assert_eq!(b.send(0, &[&untagged()]).unwrap(), 1);
    }
    assert_eq!(b.model.collect().len(), 100);
    b.assert_clean();
}

#[test]
fn tags_are_pushed_popped_and_kept_by_groups_that_go_with_their_last_user() {
    let mut b = Bench::new(config());
    let before = b.model.groups();
    let push = Action::PushVlan { tpid: 0x8100, tci: 0x6005 };
    let set = |f, v| Action::SetField { field: f, value: v, mask: 0xffff_ffff_ffff };
    let flood = vec![output(1), push, set(FieldId::EthSrc, 0x0a00_0000_0009), output(2)];
    let h = b.install(&rule(NO_TAG, flood));
    b.model.inject(0, &untagged());
    let sent = b.model.collect();
    assert_eq!(sent[0], (1, untagged()));
    assert_eq!((sent[1].0, &sent[1].1[6..18]), (2, &[0x0a, 0, 0, 0, 0, 9, 0x81, 0, 0x60, 5, 8, 0][..]));
    let k = b.install(&rule((0x1007, 0x1fff), vec![output(1), Action::PopVlan, output(2)]));
    b.model.inject(0, &tagged(7));
    assert_eq!(b.model.collect(), [(1, tagged(7)), (2, untagged())]);
    for h in [h, k] {
        assert!(matches!(b.run(FlowOp::Remove(OpId(1), h)), OpResult::Removed(..)));
    }
    assert_eq!((b.model.groups(), b.model.records(), b.nic.provider.groups()), (before, 0, 0));
    // A rule without actions drops.
    b.install(&rule(NO_TAG, vec![]));
    b.model.inject(0, &untagged());
    assert!(b.model.collect().is_empty() && b.received(0).is_empty());
    b.assert_clean();
}

#[test]
fn refusals_name_the_table_and_the_field() {
    let mut b = Bench::new(config());
    let refuse = |b: &mut Bench, r: FlowRule| match b.run(FlowOp::Install(OpId(1), r)) {
        OpResult::Rejected(r, None) => r,
        other => panic!("{other:?}"),
    };
    let mut r = rule(NO_TAG, vec![output(1)]);
    r.matches.set(FieldId::TpDst, 53);
    let why = refuse(&mut b, r);
    assert_eq!(why, Reject::Field { table: "acl-policy", field: FieldId::TpDst });
    assert_eq!(why.to_string(), "table acl-policy cannot match on tp_dst");
    let why = refuse(&mut b, rule(NO_TAG, vec![output(0)]));
    assert_eq!(why, Reject::Hairpin { table: "acl-policy", port: dp(0) });
    let why = refuse(&mut b, rule(NO_TAG, vec![Action::DecTtl, output(1)]));
    assert!(why.to_string().contains("acl-policy"), "{why}");
    // What the device itself refuses comes with its errno, and leaves nothing behind.
    let groups = b.model.groups();
    for (cmd, code) in [(command::GROUP_ADD, errno::ENOMEM), (command::FLOW_ADD, errno::EINVAL)] {
        b.model.lock().0.cmd_faults.push_back((cmd, CmdFault::Refuse(code)));
        let why = refuse(&mut b, rule(NO_TAG, vec![output(1), output(2)]));
        assert!(matches!(why, Reject::Device { errno, .. } if errno == i32::from(code)), "{why:?}");
    }
    let here = b.model.lock().0.flows.len();
    b.model.lock().0.flow_limit = here;
    assert!(refuse(&mut b, rule(NO_TAG, vec![output(1)])).is_out_of_room());
    assert_eq!((b.model.groups(), b.model.records(), b.nic.provider.groups()), (groups, 0, 0));
    b.assert_clean();
}

#[test]
fn a_device_that_does_not_complete_its_commands_is_reset_and_comes_back_empty() {
    for fault in [CmdFault::Swallow, CmdFault::WrongCookie, CmdFault::HugeAnswer, CmdFault::ResetsItself] {
        let mut b = Bench::new(config());
        b.install(&rule((0x1005, 0x1fff), vec![output(1)]));
        let resets = b.model.lock().0.resets;
        b.model.lock().0.cmd_faults.push_back((command::FLOW_ADD, fault));
        match b.run(FlowOp::Install(OpId(2), rule(NO_TAG, vec![output(1)]))) {
            OpResult::Failed { error: OffloadError::DeviceDown(_), left: None, .. } => {}
            other => panic!("{fault:?}: {other:?}"),
        }
        let p = &mut b.nic.provider;
        assert_eq!((p.generation(), p.health().is_ok(), p.entries()), (1, true, 0), "{fault:?}");
        assert!(b.model.lock().0.resets > resets);
        assert_eq!(b.model.records(), 0);
        // Everything works again; queues start anew by themselves.
        b.model.inject(0, &untagged());
        assert!(b.received(0).len() <= 1);
        b.model.inject(0, &untagged());
        assert_eq!(b.received(0), [untagged()], "{fault:?}");
        b.install(&rule(NO_TAG, vec![output(1)]));
        b.model.inject(0, &untagged());
        assert_eq!(b.model.collect(), [(1, untagged())]);
        assert_eq!(b.send(1, &[&untagged()]).unwrap(), 1);
        assert_eq!(b.model.lock().1.dma_faults, 0);
    }
}

#[test]
fn a_device_that_is_pulled_out_is_noticed_by_everybody_and_taken_back() {
    let mut b = Bench::new(config());
    let h = b.install(&rule(NO_TAG, vec![output(1)]));
    b.model.lock().1.gone = true;
    b.model.clock.advance(Duration::from_secs(1));
    b.nic.provider.poll(&mut Vec::new(), 1);
    assert!(matches!(b.nic.provider.health(), Err(OffloadError::DeviceDown(_))));
    let mut batch = PacketBatch::new();
    assert!(matches!(b.queues[0].0.rx_burst(&mut batch), Err(IoError::Down)));
    assert!(matches!(b.send(0, &[&untagged()]), Err(IoError::Down)));
    assert!(!b.nic.ports[0].link().link_up);
    assert!(b.nic.provider.poll_stats(&mut StatsCursor::default(), 9).is_err());
    assert!(matches!(b.run(FlowOp::Remove(OpId(3), h)), OpResult::Failed { left: None, .. }));
    {
        let mut m = b.model.lock();
        m.1.gone = false;
        m.0.flows.clear();
    }
    b.model.clock.advance(Duration::from_secs(10));
    b.nic.provider.poll(&mut Vec::new(), 1);
    assert!(b.nic.provider.health().is_ok());
    assert!(b.received(0).is_empty());
    b.model.inject(0, &untagged());
    assert_eq!(b.received(0), [untagged()]);
}

#[test]
fn received_frames_that_make_no_sense_are_counted_and_cost_nothing_else() {
    let mut b = Bench::new(config());
    let cells = b.pool.free_cells();
    let faults = [
        RxFault::TooLong,
        RxFault::Empty,
        RxFault::WrongCookie,
        RxFault::HugeTlvs,
        RxFault::Error(errno::ENXIO),
        RxFault::Missing,
    ];
    for fault in faults {
        b.model.lock().0.rx_faults.push_back(fault);
        b.model.inject(0, &untagged());
        assert!(b.received(0).is_empty(), "{fault:?}");
        b.model.inject(0, &untagged());
        assert_eq!(b.received(0), [untagged()], "{fault:?}");
    }
    assert_eq!(b.nic.ports[0].counters().rx_errors, 5);
    let v = b.nic.provider.violations();
    assert_eq!((v.rx_cookie, v.rx_shape), (1, 3));
    for (wrong, code) in [(true, 0), (false, errno::ENXIO)] {
        b.model.lock().0.tx_faults.push_back((wrong, code));
        assert_eq!(b.send(1, &[&untagged()]).unwrap(), 1);
        assert_eq!(b.send(1, &[&untagged()]).unwrap(), 1);
    }
    assert_eq!((b.nic.provider.violations().tx, b.nic.ports[1].counters().tx_errors), (1, 1));
    b.queues[1].1.flush().unwrap();
    assert!(b.pool.free_cells() + 32 >= cells, "no buffer is lost");
    // Too many of them, and the device is reset.
    for _ in 0..80 {
        b.model.lock().0.rx_faults.push_back(RxFault::TooLong);
        b.model.inject(0, &untagged());
        b.received(0);
    }
    b.nic.provider.poll(&mut Vec::new(), 1);
    assert_eq!(b.nic.provider.generation(), 1);
    assert!(b.nic.provider.health().is_ok());
}

#[test]
fn a_lost_interrupt_delays_and_loses_nothing() {
    let mut b = Bench::new(config());
    b.model.lock().1.deaf = true;
    b.model.inject(0, &untagged());
    assert!(b.queues[0].0.poll_fd().is_some());
    assert_eq!(b.received(0).len(), 1);
    b.install(&rule(NO_TAG, vec![output(1)]));
    b.model.lock().1.deaf = false;
    b.model.inject(0, &tagged(9));
    assert_eq!(b.received(0).len(), 1);
    let raised = b.model.lock().1.raised[&5];
    assert!(raised >= 2, "one for each time that the ring was empty: {raised}");
    b.assert_clean();
}

#[test]
fn links_and_addresses_are_told() {
    let mut b = Bench::new(RockerConfig { learning: true, ..config() });
    b.model.link_event(1, false);
    b.model.inject(2, &untagged());
    let mac = [2, 0, 0, 0, 0, 1];
    let want = [Event::Link { port: 1, up: false }, Event::MacSeen { port: 2, mac, vlan: 0xfff }];
    assert_eq!(b.nic.provider.take_events(), want);
    // More than are kept; the newest are.
    for _ in 0..400 {
        b.model.link_event(0, true);
        b.nic.provider.poll(&mut Vec::new(), 1);
    }
    assert_eq!(b.nic.provider.take_events().len(), 256);
    let mut b = Bench::new(config());
    b.model.inject(2, &untagged());
    assert_eq!(b.nic.provider.take_events(), [], "nothing is learned unless asked for");
}

#[test]
fn ports_come_and_go_and_take_their_entries_along() {
    let mut b = Bench::new(RockerConfig { ports: Vec::new(), ..config() });
    let p = &mut b.nic.provider;
    assert!(p.set_ports(&[(dp(0), 9)]).is_err());
    p.set_ports(&[(dp(0), 0), (dp(1), 1)]).unwrap();
    assert_eq!(p.generation(), 0);
    b.install(&rule(NO_TAG, vec![output(1)]));
    b.model.inject(2, &untagged());
    assert!(b.received(2).is_empty(), "not enabled");
    b.nic.provider.set_ports(&[(dp(0), 0), (dp(2), 2)]).unwrap();
    assert_eq!((b.nic.provider.generation(), b.model.records()), (1, 0));
    b.model.inject(0, &untagged());
    assert_eq!(b.received(0).len(), 1);
}

#[test]
fn bring_up_names_the_step_that_failed() {
    let pool = BufferPool::new(512).unwrap();
    let fails = |m: &Model, c: RockerConfig| match RockerDriver::bring_up(m.backing(), pool.clone(), c) {
        Err(e) => e,
        Ok(_) => panic!("it came up"),
    };
    let m = model(N);
    m.lock().1.gone = true;
    let e = fails(&m, config());
    assert!(matches!((e.step, e.fault), (Step::Identify, Fault::Gone)));
    let m = model(N);
    m.lock().1.lies.insert(0, 7);
    assert_eq!(
        fails(&m, config()).to_string(),
        "bring-up failed at step identify: BOGUS_REG0 reads 0x7, not 0xdeadbabe"
    );
    let m = model(N);
    m.lock().1.lies.insert(0x100c, 9);
    assert!(matches!(fails(&m, config()).fault, Fault::TimedOut { .. }));
    let m = model(1);
    assert_eq!(fails(&m, config()).step, Step::Configuration);
    for (cmd, fault, step) in [
        (command::GET_PORT_SETTINGS, CmdFault::Swallow, Step::PortSettings),
        (command::GET_PORT_SETTINGS, CmdFault::BadTlvs, Step::PortSettings),
        (command::SET_PORT_SETTINGS, CmdFault::Refuse(22), Step::PortSettings),
        (command::GROUP_ADD, CmdFault::Refuse(12), Step::Tables),
        (command::FLOW_ADD, CmdFault::WrongCookie, Step::Tables),
    ] {
        let m = model(N);
        m.lock().0.cmd_faults.push_back((cmd, fault));
        assert_eq!(fails(&m, config()).step, step, "{fault:?}");
    }
    assert_eq!(pool.free_cells(), 512, "every buffer is home");
}

/// What NORMAL makes of a frame from `src` to `dst`, in VLAN `vlan`.
fn bridged(port: u16, tci: u128, (dst, src): (u8, u8), vlan: u16, actions: Vec<Action>) -> FlowRule {
    let mut r = rule((tci, 0x1fff), actions);
    r.matches.set(FieldId::DpPort, dp(port).0.into());
    r.matches.set(FieldId::EthDst, station(dst));
    r.matches.set(FieldId::EthSrc, station(src));
    r.matches.set_masked(FieldId::NwFrag, 0, 3);
    r.provenance = [Origin::Bridged { vlan }, Origin::Fragments].into();
    r
}

#[test]
fn stations_are_bridging_entries_that_all_who_may_send_use() {
    let mut b = Bench::new(config());
    let before = b.model.groups();
    let (h, t) = table_of(&mut b, &bridged(0, 0, (2, 1), 0, vec![output(1)]));
    let (k, u) = table_of(&mut b, &bridged(2, 0, (1, 3), 0, vec![output(0)]));
    assert_eq!((t, u), (table::BRIDGING, table::BRIDGING));
    assert_eq!(
        (b.model.shared_in(table::BRIDGING), b.model.records()),
        (3, 0),
        "two stations, and what is unknown"
    );
    for (from, dst, src, to) in [(0, 2, 1, 1), (2, 1, 3, 0), (2, 2, 3, 1)] {
        let f = frame_of(dst, src, None);
        b.model.inject(from, &f);
        assert_eq!(b.model.collect(), [(to, f)], "{src} to {dst}");
    }
    // A destination that nobody has been sent to, a source that nobody has seen, a station at another port than it was at.
    for (from, dst, src) in [(0, 9, 1), (0, 2, 9), (1, 1, 3)] {
        let f = frame_of(dst, src, None);
        b.model.inject(from, &f);
        assert_eq!((b.received(from.into()), b.model.collect()), (vec![f], vec![]), "{src} to {dst}");
    }
    // One that contradicts: in a table of its own, before the others.
    let (m, t) = table_of(&mut b, &bridged(2, 0, (2, 4), 0, vec![output(0)]));
    assert_eq!(t, table::ACL_POLICY);
    let f = frame_of(2, 4, None);
    b.model.inject(2, &f);
    assert_eq!(b.model.collect(), [(0, f)]);
    // A record that drops is stronger than bridging.
    let mut drop = rule(NO_TAG, vec![]);
    drop.matches.set(FieldId::EthSrc, station(1));
    let d = b.install(&drop);
    b.model.inject(0, &frame_of(2, 1, None));
    assert!(b.model.collect().is_empty() && b.received(0).is_empty());
    // The station moves: another verdict for the same record.
    remove(&mut b, d);
    let moved = bridged(0, 0, (2, 1), 0, vec![output(2)]);
    assert!(matches!(b.run(FlowOp::Replace(OpId(3), h, moved)), OpResult::Replaced(..)));
    let f = frame_of(2, 1, None);
    b.model.inject(0, &f);
    assert_eq!(b.model.collect(), [(2, f)]);
    for h in [h, k, m] {
        remove(&mut b, h);
    }
    assert_eq!((b.nic.provider.shared_entries(None), b.nic.provider.groups()), (0, 0));
    assert_eq!(b.model.groups(), before);
    b.assert_clean();
}

#[test]
fn access_and_trunk_vlans_are_in_the_vlan_table() {
    let mut b = Bench::new(config());
    let flows = b.model.lock().0.flows.len();
    // Port 2 is an access port of VLAN 10; a record of its own is there before that is known.
    let mut unwanted = rule(NO_TAG, vec![]);
    unwanted.matches.set(FieldId::DpPort, dp(2).0.into());
    unwanted.matches.set(FieldId::EthSrc, station(6));
    let d = b.install(&unwanted);
    let push = Action::PushVlan { tpid: 0x8100, tci: 10 };
    let (h, t) = table_of(&mut b, &bridged(2, 0, (2, 1), 10, vec![push, output(0)]));
    let (k, u) = table_of(&mut b, &bridged(0, 0x100a, (1, 2), 10, vec![Action::PopVlan, output(2)]));
    assert_eq!((t, u), (table::BRIDGING, table::BRIDGING));
    b.model.inject(2, &frame_of(2, 1, None));
    b.model.inject(0, &frame_of(1, 2, Some(10)));
    assert_eq!(b.model.collect(), [(0, frame_of(2, 1, Some(10))), (2, frame_of(1, 2, None))]);
    assert!(b.model.hits(table::VLAN, 3) > 0, "the trunk's VLAN");
    // What goes to the CPU comes as it was on the wire.
    for (from, f) in [(2, frame_of(9, 1, None)), (2, frame_of(2, 9, None)), (0, frame_of(9, 2, Some(10)))] {
        b.model.inject(from, &f);
        assert_eq!(b.received(from.into()), [f]);
    }
    b.model.inject(2, &frame_of(9, 6, None));
    assert!(b.received(2).is_empty() && b.model.collect().is_empty(), "the record followed into the VLAN");
    b.model.inject(2, &frame_of(2, 1, Some(10)));
    assert!(b.received(2).is_empty() && b.model.collect().is_empty(), "an access port takes no tags");
    // One of frames that come tagged with it would meet untagged ones.
    let mut tagged = rule((0x100a, 0x1fff), vec![output(1)]);
    tagged.matches.set(FieldId::DpPort, dp(2).0.into());
    assert!(
        matches!(b.run(FlowOp::Install(OpId(1), tagged)), OpResult::Rejected(r, None) if r.is_transient())
    );
    for h in [h, k, d] {
        remove(&mut b, h);
    }
    b.model.inject(2, &frame_of(2, 1, Some(10)));
    assert_eq!(b.received(2), [frame_of(2, 1, Some(10))]);
    b.model.inject(2, &frame_of(9, 6, None));
    assert_eq!(b.received(2), [frame_of(9, 6, None)]);
    assert_eq!(b.model.lock().0.flows.len(), flows);
    b.assert_clean();
}

#[test]
fn copies_for_a_group_of_stations_are_made_by_a_multicast_group() {
    let mut b = Bench::new(config());
    let mut r = rule(NO_TAG, vec![output(1), output(2)]);
    r.matches.set(FieldId::EthDst, 0x0180_c200_00aa);
    let h = b.install(&r);
    let kinds = b.model.group_kinds();
    assert!(kinds.contains(&group::L2_MULTICAST) && !kinds.contains(&group::L2_FLOOD), "{kinds:?}");
    let mut f = untagged();
    f[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0xaa]);
    b.model.inject(0, &f);
    assert_eq!(b.model.collect(), [(1, f.clone()), (2, f)]);
    remove(&mut b, h);
    r.matches.set(FieldId::EthDst, 0xffff_ffff_ffff);
    b.install(&r);
    assert!(b.model.group_kinds().contains(&group::L2_FLOOD), "for everybody");
    b.assert_clean();
}

#[test]
fn a_refusal_in_the_middle_of_shared_entries_leaves_nothing_behind() {
    for nth in 0..6 {
        let mut b = Bench::new(config());
        let flows = b.model.lock().0.flows.len();
        let groups = b.model.groups();
        b.model.lock().0.flow_limit = flows + nth;
        let push = Action::PushVlan { tpid: 0x8100, tci: 10 };
        let r = bridged(2, 0, (2, 1), 10, vec![push, output(0)]);
        match b.run(FlowOp::Install(OpId(1), r)) {
            OpResult::Rejected(r, None) => assert!(r.is_out_of_room(), "{r}"),
            OpResult::Installed(..) => assert!(nth >= 5, "{nth}"),
            other => panic!("{other:?}"),
        }
        if nth < 5 {
            assert_eq!((b.nic.provider.shared_entries(None), b.nic.provider.groups()), (0, 0));
            assert_eq!(b.model.groups(), groups);
            assert_eq!(b.model.lock().0.flows.len(), flows);
        }
    }
}
