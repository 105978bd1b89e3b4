//! How many VLAN tags rules see, and what records say of the others.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use flow::FieldId::{EthType, VlanTci, VlanTci2, VlanTpid2};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId};
use ofproto::BridgeSettings;
use openflow::{Action as OfAction, Instructions};
use rig::*;

fn seeing_one(r: &Rig) {
    r.bridge.set_settings(BridgeSettings { one_tag: true, ..BridgeSettings::default() });
}

fn tagged() -> FrameBuilder {
    FrameBuilder::new().qinq(16, 17)
}

/// Rules by the Ethernet type that they see.
fn by_type(r: &Rig) {
    r.add(0, 1, matching(&[(EthType, 0x8100)]), to(2));
    r.add(0, 1, matching(&[(EthType, 0x0800)]), to(3));
}

#[test]
fn a_second_tag_is_payload_where_rules_see_one() {
    let r = Rig::new();
    by_type(&r);
    let (two, one) = (
        tagged().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2).build(),
        FrameBuilder::new().vlan(16, 0).ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2).build(),
    );
    assert_eq!((r.packet(&two, 1), r.packet(&one, 1)), (vec![out(3)], vec![out(3)]));
    seeing_one(&r);
    r.switch.run(r.now());
    let (two, one) = (r.packet_by(&two, 1), r.packet_by(&one, 1));
    assert_eq!((&two.actions[..], &one.actions[..]), (&[out(2)][..], &[out(3)][..]));
    // Each says whether there is a second tag: no record is for packets of both kinds, whoever matches them.
    let second = |f: FieldId| [&two, &one].map(|rec| (rec.matches.key().get(f), rec.matches.mask().get(f)));
    assert!(matches!(second(VlanTci2), [(0x1000, 0x1000), (0, 0x1000)]), "{:x?}", second(VlanTci2));
    assert_eq!(second(VlanTpid2)[0], (0x8100, 0xffff));
    assert!(
        !flow::PacketMatch::new(&two.matches.key(), &two.matches.mask())
            .overlaps(&flow::PacketMatch::new(&one.matches.key(), &one.matches.mask()))
    );
}

#[test]
fn rules_that_see_one_tag_change_that_one_and_none_of_what_they_do_not_see() {
    let r = Rig::new();
    seeing_one(&r);
    r.add(
        0,
        1,
        matching(&[(EthType, 0x8100), (FieldId::VlanVid, 0x1010)]),
        Instructions::apply(vec![OfAction::PopVlan, output(2)]),
    );
    r.add(0, 2, matching(&[(FieldId::NwDst, 0x0a00_0002), (EthType, 0x800)]), to(4));
    let did = r.packet(&tagged().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).build(), 1);
    assert_eq!(did, [Action::PopVlan, out(2)]);
    // What NORMAL learns is the outer VLAN, either way.
    let r = Rig::new();
    for one in [true, false] {
        r.bridge.set_settings(BridgeSettings { one_tag: one, ..BridgeSettings::default() });
        let rec = r.packet_by(&tagged().build(), 1);
        assert_eq!(rec.matches.key().get(VlanTci) & 0xfff, 16 & rec.matches.mask().get(VlanTci));
    }
}

#[test]
fn a_trace_tells_what_rules_see() {
    let r = Rig::new();
    by_type(&r);
    seeing_one(&r);
    let k = key(&tagged().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).build(), 1);
    let t = r.bridge.trace(&k, openflow::PortNo(1));
    let text = t.text(ofproto::trace::Names::NONE);
    assert!(text.starts_with("Flow: in_port=1,dl_vlan=16,dl_vlan_pcp=0,vlan_tci1=0x0000,"), "{text}");
    assert!(text.lines().next().unwrap().ends_with("dl_type=0x8100"), "{text}");
    assert!(text.ends_with("Datapath actions: 12"), "{text}");
}
