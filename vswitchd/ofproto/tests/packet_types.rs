//! Headers before everything: `encap`, `decap`, packets that begin with something else than Ethernet, and what is looked at for them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use flow::nsh::next_protocol;
use flow::{Action, FieldId, MacAddr, NshHeader, NshMetadata, PacketKey, PipelineMatch, packet_type};
use openflow::error::BadAction;
use openflow::extension::{Encap, EncapProperty};
use openflow::{Action as OfAction, Instructions, PortNo, TableId};
use rig::*;

fn encap(packet_type: u32) -> OfAction {
    OfAction::Encap(Box::new(Encap { packet_type, header_bytes: 0, properties: Vec::new() }))
}

fn decap() -> OfAction {
    OfAction::Decap { packet_type: packet_type::NEXT }
}

fn ip() -> PipelineMatch {
    matching(&[(FieldId::EthType, 0x0800)])
}

fn plain() -> PacketKey {
    key(&udp([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53).build(), 1)
}

/// The same packet without its Ethernet header, after `id` sent it round.
fn bare(id: u32) -> PacketKey {
    let mut k = plain();
    for f in [FieldId::EthSrc, FieldId::EthDst] {
        k.set(f, 0);
    }
    k.set(FieldId::PacketType, packet_type::of_type(0x0800).into());
    k.set(FieldId::RecircId, id.into());
    k
}

#[test]
fn headers_are_pushed_with_what_is_written_into_them_afterwards_and_nothing_of_that_is_looked_at() {
    let r = Rig::new();
    let actions = vec![
        encap(packet_type::NSH),
        set(FieldId::NshSpi, 0x1234),
        encap(packet_type::ETHERNET),
        set(FieldId::EthDst, 0x1122_3344_5566),
        output(2),
    ];
    r.add(0, 1, ip(), Instructions::apply(actions));
    let record = answer(&r, plain());
    let header = NshHeader { spi: 0x1234, ..NshHeader::default() };
    let push =
        Action::PushEth { src: MacAddr::default(), dst: MacAddr([0x11, 0x22, 0x33, 0x44, 0x55, 0x66]) };
    assert_eq!(*record.actions, [Action::PushNsh(Box::new(header)), push, out(2)]);
    // The address written is the new header's, and says nothing of the packet's.
    assert_eq!(record.matches.get(FieldId::EthDst).1, 0);
    assert_eq!(record.matches.get(FieldId::EthType), (0x0800, 0xffff));
}

#[test]
fn options_go_into_a_header_of_type_2_padded_to_whole_words() {
    let r = Rig::new();
    let tlv = EncapProperty::NshTlv { class: 0x1000, kind: 10, data: vec![1, 2, 3, 4, 5] };
    let properties = vec![EncapProperty::NshMdType(2), tlv];
    let e = OfAction::Encap(Box::new(Encap { packet_type: packet_type::NSH, header_bytes: 0, properties }));
    r.add(0, 1, ip(), Instructions::apply(vec![e, encap(0), output(2)]));
    let record = answer(&r, plain());
    let Action::PushNsh(h) = &record.actions[0] else { panic!("{:?}", record.actions) };
    let options = [0x10, 0, 10, 5, 1, 2, 3, 4, 5, 0, 0, 0];
    assert_eq!(h.metadata, NshMetadata::Options(options.into()));
    assert_eq!(h.bytes().len(), 8 + options.len());
}

#[test]
fn what_is_below_a_service_header_is_matched_when_the_packet_comes_back() {
    let r = Rig::new();
    let nsh = matching(&[(FieldId::EthType, 0x894f), (FieldId::NshSpi, 0x1234)]);
    let goto = Some(TableId(1));
    r.add(
        0,
        1,
        nsh,
        Instructions { apply: vec![decap(), decap()], goto_table: goto, ..Instructions::default() },
    );
    r.add(
        1,
        1,
        matching(&[(FieldId::PacketType, 0x1_0800), (FieldId::NwDst, 0x0a00_0002)]),
        Instructions::apply(vec![encap(0), output(3)]),
    );
    // A flow that names the Ethernet type is for Ethernet packets alone.
    r.add(1, 9, matching(&[(FieldId::EthType, 0x0800)]), to(4));
    let header = NshHeader { spi: 0x1234, next: next_protocol::IPV4, ..NshHeader::default() };
    let mut frame = udp([1, 1, 1, 1], [2, 2, 2, 2], 1, 2).build();
    frame.truncate(12);
    frame.extend(0x894fu16.to_be_bytes());
    frame.extend(header.bytes());
    let first = answer(&r, key(&frame, 1));
    let id = recirc_id(&first.actions);
    assert_eq!(*first.actions, [Action::PopEth, Action::PopNsh, Action::Recirc(id)]);
    assert_eq!(first.matches.get(FieldId::NshNp), (1, 0xff), "what comes next depends on it");
    assert_eq!(first.matches.get(FieldId::NshSi).1, 0);
    let second = answer(&r, bare(id));
    let push = Action::PushEth { src: MacAddr::default(), dst: MacAddr::default() };
    assert_eq!(*second.actions, [push, out(3)]);
    assert_eq!(second.matches.get(FieldId::PacketType), (0x1_0800, 0xffff_ffff));
    assert_eq!(second.matches.get(FieldId::EthDst).1, 0, "it has no such header");
}

#[test]
fn a_bare_packet_reaches_no_port_of_ethernet_and_those_after_it_have_the_packet_as_it_was() {
    let r = Rig::new();
    let copy = OfAction::Clone(vec![decap(), output(2)]);
    r.add(0, 1, ip(), Instructions::apply(vec![copy, output(3), decap(), output(4)]));
    let record = answer(&r, plain());
    assert_eq!(*record.actions, [out(3)]);
}

#[test]
fn a_header_that_a_copy_lost_is_put_back_from_what_is_then_looked_at() {
    let r = Rig::new();
    // The copy is sampled by the controllers without its Ethernet header.
    let tell = OfAction::Controller {
        max_len: 64,
        controller_id: 0,
        reason: 1,
        userdata: vec![],
        pause: false,
        meter: None,
    };
    r.add(0, 1, ip(), Instructions::apply(vec![OfAction::Clone(vec![decap(), tell]), output(3)]));
    let k = plain();
    let record = answer(&r, k);
    let mac = |f| MacAddr::from_u64(k.get64(f));
    let push = Action::PushEth { src: mac(FieldId::EthSrc), dst: mac(FieldId::EthDst) };
    assert_eq!((&record.actions[0], &record.actions[2..]), (&Action::PopEth, &[push, out(3)][..]));
    assert_eq!(record.matches.get(FieldId::EthSrc).1, 0xffff_ffff_ffff);
}

#[test]
fn a_header_on_a_packet_that_has_one_drops_it_with_the_reason() {
    let r = Rig::new();
    r.add(0, 1, ip(), Instructions::apply(vec![output(2), encap(0), output(3)]));
    let record = answer(&r, plain());
    assert!(record.actions.is_empty(), "{:?}", record.actions);
    let text = r.bridge.trace(&plain(), PortNo(1)).text(ofproto::trace::Names::NONE);
    assert!(
        text.contains("Dropping packet as encap(ethernet) is not supported for packet type ethernet."),
        "{text}"
    );
}

#[test]
fn flows_that_write_what_the_packet_will_not_have_are_refused() {
    let r = Rig::new();
    let refused =
        |m: PipelineMatch, actions: Vec<OfAction>| r.flow_mod(add(0, 5, m, Instructions::apply(actions)));
    let inconsistent = Err(BadAction::MatchInconsistent.into());
    assert_eq!(refused(ip(), vec![decap(), set(FieldId::NwDst, 1)]), Ok(()), "the type is known");
    assert_eq!(refused(ip(), vec![decap(), decap(), set(FieldId::NwDst, 1)]), inconsistent, "nobody knows");
    assert_eq!(refused(ip(), vec![decap(), set(FieldId::EthDst, 1)]), inconsistent);
    assert_eq!(refused(ip(), vec![encap(packet_type::NSH), set(FieldId::NwDst, 1)]), inconsistent);
    assert_eq!(refused(ip(), vec![encap(packet_type::NSH), set(FieldId::NshSi, 1)]), Ok(()));
    assert_eq!(refused(ip(), vec![OfAction::DecNshTtl]), inconsistent);
}

/// An Ethernet frame behind one label, with this byte at the label's end of the stack.
fn labelled(bottom: u8) -> PacketKey {
    let inner = udp([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53).build();
    let mut f = inner[..12].to_vec();
    f.extend([0x88, 0x47, 0, 0x01, 0x40 | bottom, 64]);
    f.extend(&inner);
    key(&f, 1)
}

#[test]
fn a_label_before_a_frame_comes_off_at_the_bottom_of_its_stack_only() {
    let r = Rig::new();
    let off = OfAction::Decap { packet_type: packet_type::ETHERNET };
    let m = matching(&[(FieldId::EthType, 0x8847)]);
    r.add(0, 1, m, Instructions::apply(vec![decap(), off, output(2)]));
    let record = answer(&r, labelled(1));
    let id = recirc_id(&record.actions);
    assert_eq!(*record.actions, [Action::PopEth, Action::PopMpls { eth_type: 0x6558 }, Action::Recirc(id)]);
    assert_eq!(record.matches.get(FieldId::MplsLse0).1, 0x100, "that it is the bottom");
    assert_eq!(
        *answer(&r, {
            let mut k = plain();
            k.set(FieldId::RecircId, id.into());
            k
        })
        .actions,
        [out(2)]
    );
    assert!(answer(&r, labelled(0)).actions.is_empty(), "another label is below");
}

#[test]
fn a_label_goes_before_a_frame_but_onto_a_stack_that_begins_the_packet() {
    let r = Rig::new();
    let mpls = encap(packet_type::of_type(0x8847));
    r.add(
        0,
        1,
        ip(),
        Instructions::apply(vec![mpls.clone(), set(FieldId::MplsLabel, 5), encap(0), output(2)]),
    );
    let eth = Action::PushEth { src: MacAddr::default(), dst: MacAddr::default() };
    let record = answer(&r, plain());
    assert_eq!(
        *record.actions,
        [Action::AddMpls { eth_type: 0x8847, lse: 5 << 12 | 0x100 | 64 }, eth.clone(), out(2)]
    );
    let stack = matching(&[(FieldId::EthType, 0x8847)]);
    r.add(
        0,
        1,
        stack,
        Instructions::apply(vec![decap(), mpls, set(FieldId::MplsLabel, 5), encap(0), output(2)]),
    );
    let record = answer(&r, labelled(1));
    let push = Action::PushMpls { eth_type: 0x8847, lse: 5 << 12 | 64 };
    assert_eq!(*record.actions, [Action::PopEth, push, eth, out(2)]);
}

#[test]
fn a_controller_sends_a_packet_that_begins_with_ip() {
    let r = Rig::new();
    let bare = &udp([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53).build()[14..];
    let matches = matching(&[(FieldId::PacketType, 0x1_0800)]);
    let po = openflow::message::PacketOut {
        buffer: None,
        in_port: PortNo::CONTROLLER,
        matches,
        actions: vec![set(FieldId::NwTtl, 9), encap(0), output(2)],
        data: bare.to_vec(),
    };
    assert_eq!(r.request(openflow::Body::PacketOut(Box::new(po))), Ok(vec![]));
    let done = r.dp.executed.lock().unwrap();
    let (data, actions) = done.last().map(|(d, _, a)| (d.clone(), a.clone())).expect("executed");
    assert_eq!((&data[..12], &data[12..14], &data[14..]), (&[0; 12][..], &[8, 0][..], bare));
    let kind = Action::SetField { field: FieldId::PacketType, value: 0x1_0800, mask: 0xffff_ffff };
    assert_eq!((&actions[0], actions.last()), (&kind, Some(&out(2))));
}
