//! Established connections that are handed over to the device.

use std::time::Duration;

use flow::ct_state::{ESTABLISHED, REPLY, TRACKED};
use flow::frame::FrameBuilder;
use flow::{Action, CtAction, FieldId, FlowId, PacketKey, PacketMatch};
use nic::Config;
use offload::{FlowRule, ObjectError, ObjectId, ObjectKind, ObjectSpec, OffloadProvider, Reject};

use crate::bed::{Bench, dp};

const ID: ObjectId = ObjectId { kind: ObjectKind::Connection, number: 70_000 };

fn bench() -> Bench {
    Bench::with(Config::default(), |c| c.connections = true)
}

/// From device port 0: connections of zone 5 are looked up.
fn lookup(change: impl FnOnce(&mut CtAction)) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, dp(0).0.into());
    m.set(FieldId::RecircId, 0);
    m.set(FieldId::CtState, 0);
    m.set(FieldId::EthType, 0x0800);
    m.set(FieldId::NwFrag, 0);
    let mut ct = CtAction { zone: 5, nat: Some(None), ..CtAction::default() };
    change(&mut ct);
    let actions = [Action::Ct(Box::new(ct)), Action::Recirc(33)];
    FlowRule { id: FlowId(1), matches: m, actions: actions.into(), provenance: [].into() }
}

/// What was looked up and found in this state goes to device port `port`.
fn found(id: u64, state: u16, port: u8) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, dp(0).0.into());
    m.set(FieldId::RecircId, 33);
    m.set_masked(FieldId::CtState, state.into(), (TRACKED | ESTABLISHED | REPLY).into());
    m.set(FieldId::CtZone, 5);
    m.set(FieldId::CtMark, 0x1234);
    m.set(FieldId::CtLabel, 0);
    m.set(FieldId::EthType, 0x0800);
    FlowRule { id: FlowId(id), matches: m, actions: [Action::Output(dp(port))].into(), provenance: [].into() }
}

fn key() -> PacketKey {
    let mut k = PacketKey::ZERO;
    k.set(FieldId::EthType, 0x0800);
    k.set(FieldId::NwProto, 17);
    k.set(FieldId::NwSrc, 0x0a00_0001);
    k.set(FieldId::NwDst, 0x0a00_0002);
    k.set(FieldId::TpSrc, 1000);
    k.set(FieldId::TpDst, 53);
    k.set(FieldId::CtZone, 5);
    k.set(FieldId::CtMark, 0x1234);
    k
}

fn spec(k: PacketKey, ms: u64) -> ObjectSpec {
    ObjectSpec::Connection { key: Box::new(k), timeout: Duration::from_millis(ms) }
}

fn there() -> Vec<u8> {
    FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1000, 53).payload(&[1; 30]).build()
}

fn back() -> Vec<u8> {
    FrameBuilder::new().ipv4([10, 0, 0, 2], [10, 0, 0, 1]).udp(53, 1000).payload(&[2; 30]).build()
}

#[test]
fn a_connection_that_is_handed_over_is_forwarded_both_ways_until_it_is_idle() {
    let mut b = bench();
    let (looks, _) = b.install(&lookup(|_| {}));
    let (to, _) = b.install(&found(2, TRACKED | ESTABLISHED, 2));
    let (fro, _) = b.install(&found(3, TRACKED | ESTABLISHED | REPLY, 1));
    b.sim.inject(0, &there());
    b.settle();
    assert_eq!(b.received(0), [there()], "software has it");
    b.nic.provider.objects().put(ID, &spec(key(), 10)).unwrap();
    for f in [there(), back(), there()] {
        b.sim.inject(0, &f);
    }
    b.settle();
    assert_eq!((b.sim.collect(2), b.sim.collect(1)), (vec![there(); 2], vec![back()]));
    assert_eq!([looks, to, fro].map(|h| b.counters(h).0), [3, 2, 1]);
    let s = b.nic.provider.objects().stats(ID).unwrap();
    assert_eq!((s.packets, s.bytes, s.over), (3, 3 * there().len() as u64, false));
    let dump = b.nic.provider.dump().unwrap();
    for r in [lookup(|_| {}), found(2, TRACKED | ESTABLISHED, 2)] {
        assert!(dump.iter().any(|i| i.rule.matches == r.matches && i.rule.actions == r.actions), "{r:?}");
    }
    // Another connection of the zone is software's.
    let other = FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1001, 53).build();
    b.sim.inject(0, &other);
    b.step(Duration::from_millis(12));
    b.settle();
    assert_eq!(b.received(0), [other]);
    b.sim.inject(0, &there());
    b.settle();
    assert_eq!(b.received(0), [there()], "nothing came for its time");
    let s = b.nic.provider.objects().stats(ID).unwrap();
    assert!(s.over && s.packets == 3 && s.idle >= Duration::from_millis(12), "{s:?}");
    // Software saw a packet of it: it lives on.
    b.nic.provider.objects().put(ID, &spec(key(), 10)).unwrap();
    b.sim.inject(0, &back());
    b.settle();
    assert_eq!(b.sim.collect(1), [back()]);
    assert_eq!(b.nic.provider.objects().remove(ID).unwrap().packets, 4);
    assert_eq!(b.nic.provider.objects().stats(ID), Err(ObjectError::Missing(ID)));
    b.sim.inject(0, &there());
    b.settle();
    assert_eq!(b.received(0), [there()]);
    b.assert_clean();
}

#[test]
fn what_the_device_cannot_track_is_refused() {
    let mut b = bench();
    let caps = b.nic.provider.capabilities();
    let software = |r: &FlowRule| matches!(caps.validate(r), Err(Reject::NeedsSoftware { .. }));
    assert!(caps.validate(&lookup(|_| {})).is_ok());
    assert!(software(&lookup(|c| c.commit = true)));
    assert!(software(&lookup(|c| c.mark = (1, 1))));
    assert!(software(&lookup(|c| c.helper = Some(flow::CtHelper::Ftp))));
    let mut more = lookup(|_| {});
    more.actions = more.actions.iter().cloned().chain([Action::Output(dp(1))]).collect();
    assert!(matches!(caps.validate(&more), Err(Reject::NotAlone { .. })));
    let off = Bench::new(Config::default());
    let caps = off.nic.provider.capabilities();
    assert!(matches!(caps.validate(&lookup(|_| {})), Err(Reject::NeedsSoftware { .. })));
    assert!(caps.validate(&found(2, TRACKED, 1)).is_err());
    let mut k = key();
    k.set(FieldId::NwProto, 1);
    let objects = b.nic.provider.objects();
    assert!(matches!(objects.put(ID, &spec(k, 1)), Err(ObjectError::Device(_))));
    let mut k = key();
    k.set(FieldId::CtLabel, 1);
    assert!(matches!(objects.put(ID, &spec(k, 1)), Err(ObjectError::Device(_))));
    objects.put(ID, &spec(key(), 1)).unwrap();
    let twin = ObjectId { number: 1, ..ID };
    assert!(matches!(objects.put(twin, &spec(key(), 1)), Err(ObjectError::Device(_))), "the tuple is taken");
    assert_eq!(objects.list(), [ID]);
}
