//! Options. Mappings are the process's, so every test has fields and options of its own.

use super::options::{self, MapError, Mapping};
use super::{OpenError, Opened, Special, TunnelHeader, TunnelKind, TunnelPush};
use crate::action::{Action, PortId};
use crate::field::FieldId;
use crate::headers::MacAddr;
use crate::key::{PacketKey, PacketMatch, PipelineKey, PipelineMask, PipelineMatch};
use crate::text::{odp, ofctl};

fn mapped(index: u8, kind: u8, bytes: u8) -> Mapping {
    let m = Mapping { index, class: 0xff00, kind, bytes };
    options::map(m).unwrap();
    m
}

fn geneve() -> TunnelHeader {
    TunnelHeader {
        kind: TunnelKind::Geneve,
        eth_src: MacAddr([2, 0, 0, 0, 0, 1]),
        eth_dst: MacAddr([2, 0, 0, 0, 0, 2]),
        src: "10.0.0.1".parse().unwrap(),
        dst: "10.0.0.2".parse().unwrap(),
        tos: 0,
        ttl: 64,
        dont_fragment: true,
        csum: false,
        key: Some(5),
        tp_dst: 6081,
        gbp: None,
        oam: false,
        packet_type: 0,
        special: Special::None,
    }
}

/// A frame with these options around an empty frame.
fn frame(raw: &[u8]) -> Vec<u8> {
    let mut f = TunnelPush::with_options(&geneve(), raw, PortId(1), PortId(2)).bytes().to_vec();
    f.extend([0; 14]);
    let len = f.len() as u16;
    f[16..18].copy_from_slice(&(len - 14).to_be_bytes());
    f[38..40].copy_from_slice(&(len - 34).to_be_bytes());
    let sum = crate::checksum::checksum(&f[14..34]);
    f[24..26].copy_from_slice(&sum.to_be_bytes());
    f
}

fn key_of(raw: &[u8]) -> Result<PacketKey, OpenError> {
    let mut k = PacketKey::ZERO;
    Opened::read(TunnelKind::Geneve, &frame(raw), 14)?.write(&mut k);
    Ok(k)
}

#[test]
fn a_value_reads_back_and_leaves_other_options_alone() {
    let (a, b) = (mapped(10, 10, 4), mapped(11, 11, 12));
    let (fa, fb) = (FieldId::TunMetadata10, FieldId::TunMetadata11);
    let mut k = PipelineKey::ZERO;
    k.set(fa, u128::MAX);
    k.set_masked(fb, 0x1122_3344_5566_7788_99aa_bbcc, u128::MAX);
    assert_eq!(k.get(fa), 0xffff_ffff);
    assert_eq!(k.get(fb), 0x1122_3344_5566_7788_99aa_bbcc);
    k.set_masked(fb, 0xf0, 0xf0);
    assert_eq!(k.get64(fb), 0x5566_7788_99aa_bbfc);
    assert_eq!(options::bytes(&k, 11)[..4], [0x11, 0x22, 0x33, 0x44]);
    options::remove(&mut k, 11);
    assert!(!options::is_there(&k, 11) && options::is_there(&k, 10));
    options::remove(&mut k, 10);
    assert!(k.is_zero());
    options::unmap(a);
    options::unmap(b);
    assert_eq!((fa.width(), k.get(fa)), (0, 0));
}

#[test]
fn a_field_is_mapped_to_one_option_at_a_time_as_often_as_it_is_asked_for() {
    let m = mapped(12, 12, 8);
    options::map(m).unwrap();
    assert_eq!(options::map(Mapping { kind: 13, ..m }), Err(MapError::Taken));
    options::unmap(m);
    assert_eq!(options::mapping(12), Some(m));
    options::unmap(m);
    assert_eq!(options::mapping(12), None);
    // More than there is room for leaves nothing behind.
    let big = Mapping { index: 13, bytes: 124, ..m };
    let more = Mapping { index: 14, kind: 14, ..big };
    let first = options::map(big);
    assert_eq!(options::map(more).and(first), Err(MapError::Full));
    if first.is_ok() {
        options::unmap(big);
    }
}

#[test]
fn packets_have_the_options_that_are_mapped_and_no_others() {
    let (a, b) = (mapped(20, 20, 4), mapped(21, 0x95, 0));
    // Ours, one of nobody, a critical one of ours without bytes, ours in another length.
    let raw = [
        [0xff, 0, 20, 1].as_slice(),
        &[1, 2, 3, 4],
        &[0xff, 0, 99, 1, 9, 9, 9, 9],
        &[0xff, 0, 0x95, 0],
        &[0xff, 0, 20, 2, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let k = key_of(&raw).unwrap();
    assert_eq!(k.get(FieldId::TunMetadata20), 0x0102_0304);
    assert!(options::is_there(&k, 20) && options::is_there(&k, 21));
    // A critical one that is not known, or cut short.
    assert_eq!(key_of(&[0xff, 0, 0x99, 0]), Err(OpenError::Unknown));
    assert_eq!(key_of(&[0xff, 0, 20, 2, 0, 0, 0, 0]), Err(OpenError::Malformed));
    // What goes out is what came in, in the order of fields.
    let out = options::header(&k);
    assert_eq!(out, [0xff, 0, 20, 1, 1, 2, 3, 4, 0xff, 0, 0x95, 0]);
    assert_eq!(key_of(&out).unwrap(), k);
    let push = TunnelPush::with_options(&geneve(), &out, PortId(1), PortId(2));
    assert_eq!(push.bytes()[42..44], [3, 0x40], "length, and that one is critical");
    // As Open vSwitch 3.1.0 writes it.
    let mut text = String::new();
    super::write_push(&mut text, &push, &|_| None);
    let want = "geneve(crit,vni=0x5,options({class=0xff00,type=0x14,len=4,0x1020304}{class=0xff00,type=0x95,len=0}))";
    assert!(text.contains(want), "{text}");
    options::unmap(a);
    options::unmap(b);
    assert!(!options::any(&key_of(&raw[..8]).unwrap()), "nothing is left of what is not mapped");
}

#[test]
fn texts_name_options_as_open_vswitch_does() {
    let (a, b) = (mapped(30, 30, 4), mapped(31, 31, 8));
    let text = "tunnel(tun_id=0x1,geneve({class=0xff00,type=0x1e,len=4,0xb/0xf}{class=0xff00,type=0x1f,len=8,0x1234567890abcdef}))";
    let m: PacketMatch = odp::parse_match(text, &|_| None).unwrap();
    assert_eq!(m.get(FieldId::TunMetadata30), (0xb, 0xf));
    assert_eq!(odp::format_match(&m, &|_| None), text);
    // Of a header, one that is not mapped leaves no trace.
    let other = odp::parse_match("tunnel(geneve({class=0x1,type=0x1,len=4,0xb}))", &|_| None).unwrap();
    assert_eq!(other, PacketMatch::ANY);
    for bad in
        ["{class=0xff00", "{class=0xff00,type=1,len=3}", "{class=1,type=2,len=4,0x123456789}", "{cla=1}", "x"]
    {
        assert!(odp::parse_match(&format!("tunnel(geneve({bad}))"), &|_| None).is_err(), "{bad}");
    }
    let flow = "tun_metadata30=0xb/0xf,tun_metadata31=NP";
    let m: PipelineMatch = ofctl::parse(flow).unwrap();
    assert_eq!(ofctl::format(&m), flow);
    let there = ofctl::parse("tun_metadata30,tun_metadata31=0x12").unwrap();
    assert_eq!(ofctl::format(&there), "tun_metadata30,tun_metadata31=0x12");
    let fields: Vec<_> = there.mask().fields().collect();
    assert_eq!(fields, [FieldId::TunMetadata30, FieldId::TunMetadata31], "and not the words they are in");
    let actions = odp::parse_actions(
        "set(tunnel(dst=1.1.1.1,geneve({class=0xff00,type=0x1e,len=4,0xa}),flags(df))),1",
        &|_| None,
    )
    .unwrap();
    let whole = odp::format_actions(&actions, odp::Context::default(), &|_| None);
    assert_eq!(whole, "set(tunnel(dst=1.1.1.1,geneve({class=0xff00,type=0x1e,len=4,0xa}),flags(df))),1");
    assert!(actions.iter().any(|a| matches!(a, Action::SetField { field: FieldId::TunOptions, .. })));
    let mut whole = PipelineMask::ZERO;
    options::cover(&mut whole, 31);
    assert_eq!(whole.count_ones(), 65, "its bits, and that it is there");
    options::unmap(a);
    options::unmap(b);
    assert!(ofctl::parse("tun_metadata30=1").is_err());
}
