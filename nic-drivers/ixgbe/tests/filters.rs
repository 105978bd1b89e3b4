//! The filters, verified by frames: what is installed drops what it should and nothing else, what does not fit is refused by table and
//! field, tables fill up and empty, and every failure of the flow director ends with software doing the work.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use device::PacketIo;
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId, parse};
use ixgbe::IxgbeConfig;
use ixgbe_model::Outside;
use offload::conformance::rules::{SHAPES, packet, random_rule};
use offload::seed::Seed;
use offload::{FlowOp, FlowRule, HwHandle, OffloadError, OffloadProvider, OpResult, Origin, Reject};

use support::{Bench, config};

/// What a record of an IPv4 frame without a tag always matches on.
fn base() -> PacketMatch {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 7);
    m.set(FieldId::RecircId, 0);
    m.set(FieldId::EthType, 0x0800);
    m.set_masked(FieldId::VlanTci, 0, 0x1fff);
    m.set_masked(FieldId::NwFrag, 0, 3);
    m
}

fn udp_to(port: u16) -> PacketMatch {
    let mut m = base();
    m.set(FieldId::NwProto, 17);
    m.set(FieldId::TpDst, port.into());
    m
}

fn drop_rule(id: u64, matches: PacketMatch) -> FlowRule {
    FlowRule { id: FlowId(id), matches, actions: [].into(), provenance: [].into() }
}

fn udp(dst: u16) -> FrameBuilder {
    FrameBuilder::new().eth([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(999, dst).payload(&[0; 40])
}

impl Bench {
    fn installed(&mut self, r: &FlowRule) -> HwHandle {
        match self.install(r) {
            OpResult::Installed(h, _) => h,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, r: &FlowRule) -> Reject {
        match self.install(r) {
            OpResult::Rejected(why, None) => why,
            other => panic!("{other:?}"),
        }
    }

    /// Whether a frame gets to software.
    fn passes(&mut self, f: &[u8]) -> bool {
        self.model.inject(f);
        (0..self.queues.len()).any(|q| !self.received(q).is_empty())
    }
}

#[test]
fn a_filter_drops_what_its_rule_matches_and_nothing_else() {
    let mut b = Bench::new(config());
    assert!(b.passes(&udp(53).build()));
    let h = b.installed(&drop_rule(1, udp_to(53)));
    assert!(!b.passes(&udp(53).build()));
    assert!(b.passes(&udp(54).build()));
    // Fragments have no port; a tag makes it another frame, even one of VLAN 0; neither is TCP to that port meant.
    assert!(b.passes(&udp(53).fragment(0, true).build()));
    assert!(b.passes(&udp(53).tag(0x8100, 0).build()));
    assert!(b.passes(
        &FrameBuilder::new().eth([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tcp(999, 53).build()
    ));
    assert_eq!((b.nic.provider.filters(), b.nic.provider.filtered()), ((1, 0), 1));
    assert_eq!(b.nic.port.counters().rx_packets, 6, "what is dropped was received");
    assert!(matches!(b.remove(h), OpResult::Removed(..)));
    assert!(b.passes(&udp(53).build()));
    b.assert_clean();
    b.end();
}

#[test]
fn sctp_is_dropped_by_protocol_and_by_ports_where_no_tag_is_looked_at() {
    let mut b = Bench::new(config());
    let sctp =
        |dst| FrameBuilder::new().eth([2; 6], [4; 6]).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).sctp(999, dst);
    let mut m = base();
    m.set(FieldId::NwProto, 132);
    let mut to_port = m;
    to_port.set(FieldId::TpDst, 38412);
    // The flow director compares no ports of SCTP, and says so.
    let needs = Reject::FieldNeeds {
        table: "flow-director",
        field: FieldId::TpDst,
        needs: FieldId::NwProto,
        values: &[6, 17],
    };
    assert_eq!(b.refused(&drop_rule(1, to_port)), needs);
    let h = b.installed(&drop_rule(2, m));
    assert!(!b.passes(&sctp(38412).build()) && !b.passes(&sctp(1).build()));
    assert!(b.passes(&udp(38412).build()) && b.passes(&sctp(1).fragment(0, true).build()));
    assert_eq!(b.nic.provider.filters(), (1, 0));
    b.remove(h);
    // A rule that says nothing of tags.
    let mut to_port = PacketMatch::ANY;
    for (f, v) in
        [(FieldId::DpPort, 7), (FieldId::EthType, 0x0800), (FieldId::NwProto, 132), (FieldId::TpDst, 38412)]
    {
        to_port.set(f, v);
    }
    b.installed(&drop_rule(3, to_port));
    assert_eq!(b.nic.provider.filters(), (0, 1));
    assert!(!b.passes(&sctp(38412).build()) && b.passes(&sctp(1).build()) && b.passes(&udp(38412).build()));
    b.assert_clean();
    b.end();
}

#[test]
fn addresses_have_masks_and_tags_their_parts() {
    let mut b = Bench::new(config());
    let mut m = base();
    m.set_masked(FieldId::NwSrc, 0x0a00_0000, 0xffff_ff00);
    let r = FlowRule { provenance: [Origin::Fragments].into(), ..drop_rule(1, m) };
    let h = b.installed(&r);
    let from =
        |a: u8, c: u8| FrameBuilder::new().eth([2; 6], [4; 6]).ipv4([a, 0, c, 9], [1, 2, 3, 4]).udp(1, 2);
    assert!(
        !b.passes(&from(10, 0).build()) && b.passes(&from(10, 1).build()) && b.passes(&from(11, 0).build())
    );
    assert!(!b.passes(&from(10, 0).fragment(8, false).build()), "fragments are alike");
    b.remove(h);
    // A tag of VLAN 5, whatever its priority; the empty table takes the new mask.
    let mut m = udp_to(53);
    m.set_masked(FieldId::VlanTci, 0x1005, 0x1fff);
    m.set(FieldId::VlanTpid, 0x8100);
    b.installed(&drop_rule(2, m));
    assert!(!b.passes(&udp(53).tag(0x8100, 0x6005).build()) && !b.passes(&udp(53).tag(0x8100, 5).build()));
    assert!(b.passes(&udp(53).tag(0x8100, 6).build()) && b.passes(&udp(53).build()));
    assert!(b.passes(&udp(53).tag(0x8100, 5).tag(0x8100, 5).build()), "two tags are too many for it");
    b.assert_clean();
    b.end();
}

#[test]
fn what_does_not_fit_is_refused_with_table_and_field() {
    let mut b = Bench::new(config());
    let mut m = udp_to(53);
    m.set(FieldId::EthDst, 5);
    assert_eq!(b.refused(&drop_rule(1, m)), Reject::Field { table: "flow-director", field: FieldId::EthDst });
    let out = FlowRule { actions: [Action::Output(PortId(7))].into(), ..drop_rule(1, udp_to(53)) };
    assert!(matches!(
        b.refused(&out),
        Reject::Action { table: "flow-director", .. } | Reject::EgressNotOnDevice { .. }
    ));
    let mut m = base();
    m.set(FieldId::NwProto, 1);
    let value = b.refused(&drop_rule(1, m));
    assert_eq!(value, Reject::Value { table: "flow-director", field: FieldId::NwProto, value: 1 });
    // Fragments are not the same, and without a transport protocol the filter would meet them.
    assert_eq!(
        b.refused(&drop_rule(1, base())),
        Reject::Field { table: "flow-director", field: FieldId::NwFrag }
    );
    let mut m = udp_to(53);
    m.set(FieldId::DpPort, 8);
    assert_eq!(b.refused(&drop_rule(1, m)), Reject::IngressNotOnDevice { port: PortId(8) });
    b.assert_clean();
    b.end();
}

#[test]
fn the_flow_director_has_one_mask_until_it_is_empty() {
    let mut b = Bench::new(config());
    let h = b.installed(&drop_rule(1, udp_to(53)));
    // The same mask for the other protocol.
    let mut tcp = udp_to(80);
    tcp.set(FieldId::NwProto, 6);
    let t = b.installed(&drop_rule(2, tcp));
    let mut other = base();
    other.set(FieldId::NwProto, 17);
    other.set(FieldId::NwSrc, 0x0a00_0001);
    assert_eq!(b.refused(&drop_rule(3, other)), Reject::MasksFull { table: "flow-director", masks: 1 });
    b.remove(h);
    b.remove(t);
    b.installed(&drop_rule(3, other));
    assert!(!b.passes(&udp(1).build()));
    b.assert_clean();
    b.end();
}

#[test]
fn rules_that_say_nothing_of_tags_go_to_the_five_tuple_filters_until_they_are_full() {
    let mut b = Bench::new(config());
    let rule = |n: u64| {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 7);
        m.set(FieldId::EthType, 0x0800);
        m.set(FieldId::NwProto, 17);
        m.set(FieldId::TpDst, n.into());
        drop_rule(n, m)
    };
    let handles: Vec<_> = (1..=128).map(|n| b.installed(&rule(n))).collect();
    assert_eq!(b.nic.provider.filters(), (0, 128));
    assert_eq!(b.refused(&rule(129)), Reject::TableFull { table: "five-tuple", entries: 128 });
    assert!(
        !b.passes(&udp(77).build())
            && !b.passes(&udp(77).tag(0x8100, 5).build())
            && b.passes(&udp(129).build())
    );
    assert!(matches!(b.remove(handles[76]), OpResult::Removed(..)));
    assert!(b.passes(&udp(77).build()));
    b.installed(&rule(129));
    assert_eq!(b.nic.provider.filtered(), 2);
    b.nic.provider.flush().unwrap();
    assert!(b.passes(&udp(129).build()));
    assert!(matches!(b.remove(handles[0]), OpResult::Failed { error: OffloadError::NoSuchEntry(_), .. }));
    b.assert_clean();
    b.end();
}

#[test]
fn thousands_of_filters_fit_and_a_bucket_is_never_too_long() {
    let mut b = Bench::new(config());
    let rule = |n: u32| {
        let mut m = base();
        m.set(FieldId::NwProto, 17);
        m.set(FieldId::NwSrc, (0x0a00_0000 + n).into());
        m.set(FieldId::TpDst, 53);
        drop_rule(n.into(), m)
    };
    let ops: Vec<_> = (0..4000).map(|n| FlowOp::Install(b.op(), rule(n))).collect();
    let done = b.run(&ops);
    let took = done.iter().filter(|c| matches!(c.result, OpResult::Installed(..))).count();
    assert!(took > 3950, "{took} of 4000");
    for c in &done {
        match &c.result {
            OpResult::Installed(..) => {}
            OpResult::Rejected(Reject::TableFull { table: "flow-director", .. }, None) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(b.model.lock().0.filters(), took);
    let longest = b.model.lock().0.peek(ixgbe_defs::regs::FDIRLEN) & 0x3f;
    assert!(longest < 10, "{longest}");
    for (n, c) in (0..).zip(&done) {
        let f = FrameBuilder::new()
            .eth([2; 6], [4; 6])
            .ipv4((0x0a00_0000u32 + n).to_be_bytes(), [1, 2, 3, 4])
            .udp(5, 53);
        assert_eq!(b.passes(&f.build()), !matches!(c.result, OpResult::Installed(..)), "{n}");
    }
    let dump = b.nic.provider.dump().unwrap();
    assert_eq!(dump.len(), took);
    b.nic.provider.flush().unwrap();
    assert_eq!(b.model.lock().0.filters(), 0);
    b.assert_clean();
    b.end();
}

/// Software alone against hardware and software: a frame that a filter keeps from software is one that an installed rule drops.
#[test]
fn random_rules_take_no_frame_that_is_not_theirs() {
    let (mut took, mut refused, mut dropped) = (0, 0, 0);
    for seed in 0..600u64 {
        let mut s = Seed::new(seed);
        let mut b = Bench::new(config());
        let caps = b.nic.provider.capabilities();
        let shape = SHAPES[2 * s.below(2) as usize];
        let k = packet(shape, s.below(1000) as u32, PortId(7));
        let mut r = random_rule(&mut s, &caps, seed + 1, &k, shape);
        if s.percent(80) {
            r.actions = [].into();
        }
        if s.percent(50) {
            r.provenance = [Origin::Fragments].into();
        }
        let said = caps.validate(&r);
        let is_in = match b.install(&r) {
            OpResult::Installed(..) => {
                took += 1;
                assert!(said.is_ok(), "seed {seed}");
                true
            }
            OpResult::Rejected(why, None) => {
                refused += 1;
                assert!(said.is_ok() || said.is_err_and(|e| e.kind() == why.kind()), "seed {seed}: {why}");
                false
            }
            other => panic!("seed {seed}: {other:?}"),
        };
        for n in 0..12 {
            let key = packet(
                SHAPES[s.below(4) as usize],
                s.below(3) as u32 + k.get64(FieldId::NwSrc) as u32 % 1000,
                PortId(7),
            );
            let f = if n == 0 {
                offload::conformance::frame(&k, 200)
            } else {
                offload::conformance::frame(&key, 200)
            };
            let seen = parse(&f, PortId(7)).unwrap().key;
            let passes = b.passes(&f);
            if !passes {
                dropped += 1;
                assert!(is_in && r.matches.matches(&seen), "seed {seed}: {r:?} took {seen:?}");
            } else if n == 0 {
                assert!(!is_in, "seed {seed}: {r:?} does not take its own packet");
            }
        }
        b.assert_clean();
        b.end();
    }
    println!("FIGURE ixgbe filters: {took} rules taken, {refused} refused, {dropped} frames dropped");
    assert!(took > 60 && refused > 60 && dropped > 60, "{took} taken, {refused} refused, {dropped} dropped");
}

#[test]
fn flows_are_steered_to_a_queue() {
    let mut b = Bench::new(IxgbeConfig { queue_pairs: 4, ..config() });
    let mut m = PacketMatch::ANY;
    m.set(FieldId::EthType, 0x0800);
    m.set(FieldId::NwProto, 17);
    m.set(FieldId::TpDst, 53);
    m.set(FieldId::DpPort, 7);
    assert!(b.nic.provider.steer(&m, 4).is_err(), "there is no such queue");
    for q in [3u16, 1] {
        let h = b.nic.provider.steer(&m, q).unwrap();
        for n in 0..20 {
            let f = FrameBuilder::new()
                .eth([2; 6], [4; 6])
                .ipv4([10, 0, 0, n], [10, 0, 0, 2])
                .udp(999, 53)
                .build();
            b.model.inject(&f);
        }
        assert_eq!(b.received(q.into()).len(), 20);
        assert!(b.nic.provider.stop_steering(h) && !b.nic.provider.stop_steering(h));
    }
    // One that looks at the tag goes to the flow director.
    b.nic.provider.steer(&udp_to(53), 2).unwrap();
    b.model.inject(&udp(53).build());
    assert_eq!(b.received(2).len(), 1);
    assert_eq!(b.nic.provider.filters(), (1, 0));
    b.assert_clean();
    b.end();
}

#[test]
fn a_replacement_keeps_the_filter_or_takes_it_out() {
    let mut b = Bench::new(config());
    let r = drop_rule(1, udp_to(53));
    let h = b.installed(&r);
    let op = FlowOp::Replace(b.op(), h, FlowRule { id: FlowId(2), ..r.clone() });
    let done = b.run(&[op]).remove(0);
    assert!(matches!(done.result, OpResult::Replaced(same, _) if same == h));
    assert!(!b.passes(&udp(53).build()));
    let out = FlowRule { actions: [Action::Output(PortId(9))].into(), ..r };
    let op = FlowOp::Replace(b.op(), h, out);
    assert!(matches!(b.run(&[op]).remove(0).result, OpResult::Rejected(_, Some(_))));
    assert!(b.passes(&udp(53).build()), "a filter that is wrong is gone");
    b.assert_clean();
    b.end();
}

#[test]
fn a_command_that_is_never_done_costs_a_reset_and_the_filters() {
    let mut b = Bench::new(config());
    let h = b.installed(&drop_rule(1, udp_to(53)));
    b.model.lock().0.mishaps.fdir_hangs = true;
    let ops = [FlowOp::Install(b.op(), drop_rule(2, udp_to(54))), FlowOp::Remove(b.op(), h)];
    assert_eq!(b.nic.provider.submit(&ops), 2);
    let mut done = Vec::new();
    b.nic.provider.poll(&mut done, 8);
    assert!(done.is_empty());
    b.model.clock.advance(150 * support::MS);
    b.nic.provider.poll(&mut done, 8);
    b.model.lock().0.mishaps.fdir_hangs = false;
    assert_eq!(done.len(), 2);
    assert!(done.iter().all(|c| matches!(c.result, OpResult::Failed { left: None, .. })), "{done:?}");
    assert_eq!((b.nic.provider.generation(), b.nic.provider.health()), (1, Ok(())));
    b.assert_alive();
    assert!(b.passes(&udp(53).build()), "the tables are empty");
    b.installed(&drop_rule(2, udp_to(53)));
    assert!(!b.passes(&udp(53).build()));
    b.end();
}

#[test]
fn a_filter_that_is_not_there_is_found_out_and_counted() {
    let mut b = Bench::new(config());
    b.model.lock().0.mishaps.fdir_forgets = true;
    let h = b.installed(&drop_rule(1, udp_to(53)));
    b.model.lock().0.mishaps.fdir_forgets = false;
    assert!(b.passes(&udp(53).build()), "software does it");
    assert!(matches!(b.remove(h), OpResult::Removed(..)));
    assert_eq!(b.nic.provider.violations().lost_filter, 1);
    b.installed(&drop_rule(2, udp_to(53)));
    assert!(!b.passes(&udp(53).build()));
    b.end();
}

#[test]
fn filters_are_lost_with_the_port_they_are_of_and_with_the_device() {
    let mut b = Bench::new(config());
    b.installed(&drop_rule(1, udp_to(53)));
    b.nic.provider.set_ports(&[]).unwrap();
    assert_eq!((b.nic.provider.generation(), b.model.lock().0.filters()), (1, 0));
    b.nic.provider.set_ports(&[(PortId(7), 0)]).unwrap();
    b.installed(&drop_rule(2, udp_to(53)));
    b.model.lock().1.gone = true;
    b.poll();
    let op = FlowOp::Install(b.op(), drop_rule(3, udp_to(54)));
    let done = b.run(&[op]).remove(0);
    assert!(matches!(done.result, OpResult::Failed { error: OffloadError::DeviceDown(_), left: None, .. }));
    b.model.lock().1.gone = false;
    for _ in 0..20 {
        b.poll();
    }
    assert_eq!((b.nic.provider.health(), b.nic.provider.filters()), (Ok(()), (0, 0)));
    b.assert_alive();
    b.end();
}

#[test]
fn the_description_is_sound() {
    let b = Bench::new(config());
    let caps = b.nic.provider.capabilities();
    assert_eq!(caps.inconsistencies(), [""; 0]);
    assert_eq!(
        caps.tables.iter().map(|t| (t.name, t.entries)).collect::<Vec<_>>(),
        [("flow-director", 8191), ("five-tuple", 128)]
    );
    b.end();
}
