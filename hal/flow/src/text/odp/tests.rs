//! Against recorded texts, round trips, errors.

use super::golden::{ADDED, FLOWS, HEADERS};
use super::*;
use crate::action::{Action, BondId, ControllerAction, HashAlg, LengthCheck, MeterId, PortId, PuntReason};
use crate::field::{FIELDS, FieldId as F, Scope};
use crate::frame::FrameBuilder;
use crate::headers::MacAddr;
use crate::key::{PacketMask, PacketMatch};
use crate::parse;
use crate::prereq;
use crate::text::Reason;
use std::sync::Arc;

use crate::export::{Export, ExportTo, FlowSample, SampleAction};
use proptest::prelude::*;

fn no_name(_: u32) -> Option<String> {
    None
}
fn no_port(_: &str) -> Option<u32> {
    None
}

#[track_caller]
fn matched(text: &str) -> PacketMatch {
    parse_match(text, &no_port).unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[track_caller]
fn acted(text: &str) -> Vec<Action> {
    parse_actions(text, &no_port).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// The same text with the bits of values that no mask has cleared, as a match holds them.
fn without_unmatched_bits(text: &str) -> String {
    [
        ("10.0.0.1/255.255.0.0", "10.0.0.0/255.255.0.0"),
        ("fe80::1/ffff::", "fe80::/ffff::"),
        ("src=5/0xfffc", "src=4/0xfffc"),
        ("label=20/0x0,tc=0/0,ttl=32/0x0", "label=0/0x0,tc=0/0,ttl=0/0x0"),
        ("50:54:00:00:00:05/00:00:ff:ff:ff:ff", "00:00:00:00:00:05/00:00:ff:ff:ff:ff"),
    ]
    .iter()
    .fold(text.to_owned(), |t, (a, b)| t.replace(a, b))
}

#[test]
fn dumped_flows_are_read_and_written_as_they_were() {
    for (m, a) in FLOWS.iter().chain(ADDED).chain(HEADERS) {
        let parsed = matched(m);
        assert_eq!(format_match(&parsed, &no_name), without_unmatched_bits(m));
        let actions = acted(a);
        assert_eq!(format_actions(&actions, Context::of(parsed.key()), &no_name), *a, "for {m}");
    }
}

#[test]
fn a_flow_with_its_packet_prints_the_packet_s_values() {
    let f = FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(5, 6).build();
    let key = parse(&f, PortId(1)).unwrap().key;
    let mut mask = PacketMask::ZERO;
    for f in [F::RecircId, F::DpPort, F::PacketType, F::EthType, F::NwFrag] {
        mask.set_exact(f);
    }
    mask.set_masked(F::VlanTci, 0x1fff, 0x1fff);
    mask.set_masked(F::NwSrc, 0xffff_0000, 0xffff_0000);
    assert_eq!(format_flow(&key, &mask, &no_name), FLOWS[12].0);
}

#[test]
fn a_whole_key_prints_every_field_the_packet_has() {
    let f = FrameBuilder::new()
        .eth([0x50, 0x54, 0, 0, 0, 7], [0x50, 0x54, 0, 0, 0, 5])
        .vlan(99, 7)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
        .tos(4)
        .tcp(5, 6)
        .tcp_flags(0x12)
        .build();
    let key = parse(&f, PortId(1)).unwrap().key;
    let text = format_key(&key, &no_name);
    assert_eq!(
        text,
        "skb_priority(0),skb_mark(0),ct_state(0),ct_zone(0),ct_mark(0),ct_label(0),recirc_id(0),dp_hash(0),\
         in_port(1),packet_type(ns=0,id=0),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x8100),\
         vlan(vid=99,pcp=7),encap(eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=6,tos=0x4,ttl=64,frag=no),\
         tcp(src=5,dst=6),tcp_flags(syn|ack))"
    );
    assert_eq!(parse_key(&text, &no_port).unwrap(), key);
}

#[test]
fn keys_of_all_shapes_survive_their_text() {
    let b = FrameBuilder::new;
    let m = MacAddr([2, 0, 0, 0, 0, 9]);
    for f in [
        b().qinq(5, 6).ipv6([1; 16], [2; 16]).flow_label(5).fragment(0, true).udp(1, 2).build(),
        b().mpls(5, 1, 2).mpls(6, 2, 3).build(),
        b().mpls(5, 1, 2).mpls(6, 2, 3).mpls(7, 0, 0).mpls(8, 0, 0).build(),
        b().arp_request([1, 2, 3, 4], [5, 6, 7, 8]).build(),
        b().ipv6([1; 16], [2; 16]).neighbour(135, [3; 16], &[(1, m)]).build(),
        b().ipv4([1, 2, 3, 4], [4, 3, 2, 1]).icmp(8, 1, 0).build(),
        b().ipv4([1, 2, 3, 4], [4, 3, 2, 1]).fragment(5, false).ip_proto(17).build(),
        b().ipv4([1, 2, 3, 4], [4, 3, 2, 1]).sctp(8, 1).build(),
        b().llc().payload(&[1; 30]).build(),
        b().eth_type(0x1234).build(),
    ] {
        let mut key = parse(&f, PortId(9)).unwrap().key;
        for (field, v) in [(F::TunSrc, 1), (F::TunDst, 2), (F::TunId, 3), (F::TunFlags, 8), (F::RecircId, 7)]
        {
            key.set(field, v);
        }
        let text = format_key(&key, &no_name);
        assert_eq!(parse_key(&text, &no_port).unwrap(), key, "{text}");
    }
}

#[test]
fn names_stand_for_ports() {
    let by_name = |n: &str| (n == "p1").then_some(1).or((n == "odd name").then_some(2));
    let name =
        |p: u32| [(1, "p1"), (2, "odd name")].iter().find(|(n, _)| *n == p).map(|(_, s)| (*s).to_owned());
    let m = parse_match("in_port(p1),eth_type(0x1234)", &by_name).unwrap();
    assert_eq!(m.get(F::DpPort).0, 1);
    assert_eq!(format_match(&m, &name), "in_port(p1),eth_type(0x1234)");
    let a = parse_actions("p1,\"odd name\",3", &by_name).unwrap();
    assert_eq!(a, [1, 2, 3].map(|p| Action::Output(PortId(p))));
    assert_eq!(format_actions(&a, Context::default(), &name), "p1,\"odd name\",3");
}

#[test]
fn a_type_without_a_tag_means_untagged() {
    assert_eq!(matched("eth_type(0x0800)").get(F::VlanTci), (0, 0x1fff));
    let m = matched("eth_type(0x8100),vlan(vid=5),encap(eth_type(0x0800))");
    assert_eq!(m.get(F::VlanTci), (0x1005, 0x1fff));
    assert_eq!((m.get(F::VlanTpid), m.get(F::VlanTci2)), ((0x8100, 0xffff), (0, 0x1fff)));
    let m = matched(
        "eth_type(0x88a8),vlan(vid=5),encap(eth_type(0x8100),vlan(vid=6,pcp=1),encap(eth_type(0x0800)))",
    );
    assert_eq!((m.get(F::VlanTci2), m.get(F::VlanTpid2)), ((0x3006, 0xffff), (0x8100, 0xffff)));
}

#[test]
fn sets_of_one_header_are_joined_and_a_repeated_field_starts_anew() {
    let set = |field, value: u128| Action::SetField { field, value, mask: field.info().max() };
    let a = [set(F::NwTtl, 3), set(F::NwSrc, 1), set(F::EthSrc, 1), set(F::NwSrc, 2), Action::DecTtl];
    let text = "set(ipv4(src=0.0.0.1,ttl=3)),set(eth(src=00:00:00:00:00:01)),set(ipv4(src=0.0.0.2)),dec_ttl";
    assert_eq!(format_actions(&a, Context::default(), &no_name), text);
    let a = [set(F::NwTtl, 3), set(F::NwTtl, 4)];
    assert_eq!(format_actions(&a, Context::default(), &no_name), "set(ipv4(ttl=3)),set(ipv4(ttl=4))");
    let v6 = Context { eth_type: 0x86dd, proto: 17 };
    assert_eq!(
        format_actions(&[set(F::NwTtl, 3), set(F::TpDst, 4)], v6, &no_name),
        "set(ipv6(hlimit=3)),set(udp(dst=4))"
    );
}

#[test]
fn controller_actions_keep_reason_length_and_cookie() {
    let c = ControllerAction {
        reason: PuntReason::NoMatch,
        max_len: 128,
        cookie: 0x12,
        controller_id: 7,
        recirc_id: 9,
        continuation: true,
        ..ControllerAction::default()
    };
    let text = format_actions(&[Action::Controller(c)], Context::default(), &no_name);
    assert_eq!(
        text,
        "userspace(pid=0,controller(reason=0,dont_send=0,continuation=1,recirc_id=9,rule_cookie=0x12,\
         controller_id=7,max_len=128))"
    );
    assert_eq!(acted(&text), [Action::Controller(c)]);
}

#[test]
fn errors_say_where() {
    for (text, at, reason) in [
        ("foo(1)", 0, Reason::UnknownKeyword),
        ("in_port(1),foo(1)", 11, Reason::UnknownKeyword),
        ("in_port", 7, Reason::Expected("an attribute with parentheses")),
        ("in_port(x)", 8, Reason::UnknownPort),
        ("in_port()", 8, Reason::UnknownPort),
        ("ipv4(src=1.2.3)", 9, Reason::Expected("an IPv4 address")),
        ("ipv4(src)", 8, Reason::Expected("name=value")),
        ("ipv4(sauce=1)", 11, Reason::UnknownKeyword),
        ("ipv4(frag=maybe)", 10, Reason::Expected("\"no\", \"first\" or \"later\"")),
        ("tcp(src=70000)", 8, Reason::TooLarge(16)),
        ("tcp(src=)", 8, Reason::MissingValue),
        ("ipv4(src=1.2.3.4", 4, Reason::Expected("a closing parenthesis or quote")),
        ("eth_type(0x0800)x", 16, Reason::Expected("a comma")),
        ("ct_state(+foo)", 9, Reason::BadFlag),
        ("tunnel(geneve({cls=1}))", 15, Reason::UnknownKeyword),
        ("tunnel(erspan(ver=1,id=1))", 23, Reason::UnknownKeyword),
        ("tunnel(erspan(ver=16))", 18, Reason::TooLarge(4)),
        ("encap(encap(encap()))", 12, Reason::UnknownKeyword),
    ] {
        let e = parse_match(text, &no_port).unwrap_err();
        assert_eq!((e.at, &e.reason), (at, &reason), "{text}: {e}");
    }
    for (text, at, reason) in [
        ("1,foo", 2, Reason::UnknownKeyword),
        ("1,foo(1)", 2, Reason::UnknownKeyword),
        ("5000000000", 0, Reason::UnknownPort),
        ("2,sample(sample=50%)", 19, Reason::MissingValue),
        ("tnl_push(1),recirc(0x4)", 0, Reason::Unsupported("this action")),
        ("push_nsh(ttl=64)", 13, Reason::TooLarge(6)),
        ("push_nsh(mdtype=2,md2=0x1)", 22, Reason::Expected("hexadecimal digits of whole words")),
        ("set(nsh(mdtype=2))", 8, Reason::Expected("a field that can be set")),
        ("set(ipv4(proto=6))", 9, Reason::Expected("a field that can be set")),
        ("set(eth_type(0x800))", 13, Reason::Expected("a field that can be set")),
        ("set(recirc_id(1))", 14, Reason::Expected("a field that can be set")),
        ("set()", 4, Reason::MissingValue),
        ("userspace(pid=0,slow_path(cfm))", 26, Reason::Unsupported("slow_path")),
        ("clone(1", 5, Reason::Expected("a closing parenthesis or quote")),
    ] {
        let e = parse_actions(text, &no_port).unwrap_err();
        assert_eq!((e.at, &e.reason), (at, &reason), "{text}: {e}");
    }
    let deep = "clone(".repeat(40) + &")".repeat(40);
    assert_eq!(parse_actions(&deep, &no_port).unwrap_err().reason, Reason::TooDeep);
}

/// Matches that have a text: an Ethernet type that is matched, no tag or matched tags, fields that exist.
fn matches() -> impl Strategy<Value = PacketMatch> {
    let base = prop::sample::select(vec![
        "eth_type(0x0800),ipv4(frag=no)",
        "eth_type(0x0800),ipv4(proto=6,frag=no)",
        "eth_type(0x0800),ipv4(proto=17,frag=first)",
        "eth_type(0x0800),ipv4(proto=1,frag=no)",
        "eth_type(0x86dd),ipv6(proto=132,frag=no)",
        "eth_type(0x86dd),ipv6(proto=58,frag=no),icmpv6(type=135,code=0)",
        "eth_type(0x0806)",
        "eth_type(0x8847),mpls(bos=0)",
        "eth_type(0x1234)",
        "eth_type(0x8100),vlan(vid=5,pcp=3),encap(eth_type(0x0800),ipv4(proto=17,frag=no))",
        "eth_type(0x88a8),vlan(vid=5),encap(eth_type(0x8100),vlan(pcp=1),encap(eth_type(0x86dd)))",
    ]);
    let field = (any::<prop::sample::Index>(), any::<u128>(), any::<u128>(), any::<bool>());
    (base, prop::collection::vec(field, 0..12)).prop_map(|(base, fields)| {
        let mut m = matched(base);
        for (i, v, mask, exact) in fields {
            let f = &FIELDS[i.index(FIELDS.len())];
            let skip = matches!(
                f.id,
                F::EthType
                    | F::VlanTci
                    | F::VlanTpid
                    | F::VlanTci2
                    | F::VlanTpid2
                    | F::VlanVid
                    | F::VlanPcp
                    | F::NwProto
                    | F::ArpOp
                    | F::NwFrag
                    | F::PacketType
                    | F::DpPort
                    | F::MplsLse1
                    | F::MplsLse2
                    | F::Icmp6Type
                    | F::Icmp6Code
                    | F::TunFlags
                    | F::CtState
            );
            let tuple6 = matches!(f.id, F::CtIpv6Src | F::CtIpv6Dst);
            // Have a text only where they are mapped.
            let option = f.canon >= F::TunOptions && f.canon <= F::TunOption15;
            if skip || option || tuple6 || f.scope != Scope::Packet || !prereq::satisfied(&m, f.id) {
                continue;
            }
            m.set_masked(f.id, v, if exact { f.max() } else { mask });
        }
        m
    })
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let writable: Vec<F> = FIELDS
        .iter()
        .filter(|f| f.scope == Scope::Packet && f.id.is_canonical() && (f.writable || f.id == F::MplsLse0))
        // ARP's and neighbour discovery's fields need another context than the one used here.
        .filter(|f| !matches!(f.id, F::NdTarget | F::TunFlags | F::VlanTci))
        .map(|f| f.id)
        .collect();
    let leaf = prop_oneof![
        any::<u32>().prop_map(|p| Action::Output(PortId(p))),
        (prop::sample::select(writable), any::<u128>(), 1u128..).prop_filter_map("mask", |(field, v, m)| {
            let mask = m & field.info().max();
            (mask != 0).then_some(Action::SetField { field, value: v & mask, mask })
        }),
        Just(Action::DecTtl),
        (any::<u16>(), any::<u16>()).prop_map(|(tpid, t)| Action::PushVlan { tpid, tci: t | 0x1000 }),
        Just(Action::PopVlan),
        any::<u32>().prop_map(|lse| Action::PushMpls { eth_type: 0x8848, lse }),
        Just(Action::PopMpls { eth_type: 0x800 }),
        any::<u32>().prop_map(Action::Recirc),
        any::<u32>().prop_map(|b| Action::LbOutput(BondId(b))),
        (any::<bool>(), any::<u32>()).prop_map(|(sym, basis)| Action::Hash {
            alg: if sym { HashAlg::SymmetricL4 } else { HashAlg::L4 },
            basis,
        }),
        any::<u32>().prop_map(|m| Action::Meter(MeterId(m))),
        any::<u32>().prop_map(Action::Trunc),
    ];
    let port = || proptest::option::of((0..u32::MAX).prop_map(PortId));
    let told = prop_oneof![
        (any::<u16>(), any::<u32>()).prop_map(|(t, output)| ExportTo::Sflow { tci: t & 0xefff, output }),
        port().prop_map(|output| ExportTo::Ipfix { output }),
        (any::<(u16, u32, u32, u32)>(), port(), 0..3u8).prop_map(
            |((probability, set, domain, point), output, direction)| {
                ExportTo::FlowSample(FlowSample {
                    probability,
                    collector_set: set,
                    domain,
                    point,
                    output,
                    direction,
                })
            }
        ),
    ];
    let export = (told, port())
        .prop_map(|(to, tunnel_out)| Action::Export(Arc::new(Export { tunnel_out, ..Export::of_text(to) })));
    let leaf = prop_oneof![11 => leaf, 2 => export];
    let sample = (0..=1000u32, prop::collection::vec(leaf.clone(), 0..3)).prop_map(|(permille, v)| {
        let probability = (f64::from(permille) / 1000.0 * f64::from(u32::MAX)).round() as u32;
        Action::Sample(Box::new(SampleAction { probability, actions: v.into() }))
    });
    let clone = prop::collection::vec(leaf.clone(), 0..4).prop_map(|v| Action::Clone(v.into()));
    let list = || prop::collection::vec(leaf.clone(), 0..3).prop_map(Vec::into_boxed_slice);
    let check = (any::<u16>(), list(), list()).prop_map(|(bytes, longer, others)| {
        Action::CheckLength(Box::new(LengthCheck { bytes, longer, others }))
    });
    prop::collection::vec(prop_oneof![8 => leaf, 1 => clone, 1 => check, 1 => sample], 0..8)
}

/// Actions with each run of set-field actions in table order, which is how text may order them.
fn sorted(mut a: Vec<Action>) -> Vec<Action> {
    for x in &mut a {
        match x {
            Action::Clone(inner) => *inner = sorted(inner.to_vec()).into(),
            Action::Sample(s) => s.actions = sorted(s.actions.to_vec()).into(),
            Action::CheckLength(c) => {
                c.longer = sorted(c.longer.to_vec()).into();
                c.others = sorted(c.others.to_vec()).into();
            }
            _ => {}
        }
    }
    for run in a.split_mut(|x| !matches!(x, Action::SetField { .. })) {
        run.sort_by_key(|x| match x {
            Action::SetField { field, .. } => *field as usize,
            _ => 0,
        });
    }
    a
}

proptest! {
    #[test]
    fn a_match_survives_its_text(m in matches()) {
        let text = format_match(&m, &no_name);
        let back = parse_match(&text, &no_port);
        prop_assert_eq!(back.as_ref(), Ok(&m), "{}", text);
        prop_assert_eq!(format_match(&back.unwrap(), &no_name), text);
    }

    #[test]
    fn actions_survive_their_text(a in actions()) {
        let text = format_actions(&a, Context::default(), &no_name);
        let back = parse_actions(&text, &no_port);
        prop_assert_eq!(back.map(sorted), Ok(sorted(a)), "{}", text);
    }

    #[test]
    fn no_text_makes_the_parsers_panic(s in "[a-z_0-9=,/.:+()\" -]{0,60}") {
        let _ = parse_match(&s, &no_port);
        let _ = parse_actions(&s, &no_port);
    }

    #[test]
    fn no_inside_makes_an_attribute_panic(
        name in prop::sample::select(vec!["ipv4", "ipv6", "arp", "tunnel", "vlan", "mpls", "eth", "tcp_flags", "ct_state",
            "set", "push_vlan", "push_mpls", "userspace", "clone", "encap", "packet_type", "nsh", "push_nsh", "push_eth"]),
        s in "(src|dst|ttl|vid|label|flags|vxlan|gbp|controller|eth_type|ipv4|tci|md2|mdtype|c1|np)?[a-f0-9x/.:+|(),=-]{0,40}",
    ) {
        let _ = parse_match(&format!("{name}({s})"), &no_port);
        let _ = parse_actions(&format!("{name}({s})"), &no_port);
    }
}

#[test]
fn a_keys_values_count_whole_whatever_their_masks_are() {
    let text = "in_port(1),skb_mark(0/0),eth(src=02:00:00:00:00:01/0:0:0:0:0:0,dst=02:00:00:00:00:02),eth_type(0x0800),\
                ipv4(src=10.0.0.1/255.0.0.0,dst=10.0.0.2/0.0.0.0,proto=17/0xff,tos=0/0,ttl=255/0,frag=no),\
                udp(src=49152/0,dst=3784/0xffff)";
    let k = super::parse_key(text, &|_| None).unwrap();
    assert_eq!((k.get(F::NwSrc), k.get(F::NwDst)), (0x0a00_0001, 0x0a00_0002));
    assert_eq!((k.get(F::TpSrc), k.get(F::NwTtl), k.get(F::EthSrc)), (49152, 255, 0x0200_0000_0001));
    assert!(super::parse_key(&text.replace("0xff)", "0xfff)"), &|_| None).is_ok());
    assert!(super::parse_key(&text.replace("255.0.0.0", "255.0.0"), &|_| None).is_err());
}

/// The texts are those of Open vSwitch's own tests of network service headers.
#[test]
fn network_service_headers_read_as_those_of_open_vswitch() {
    for (m, a) in [
        (
            "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth(dst=1e:2c:e9:2a:66:9e),eth_type(0x0800),ipv4(frag=no)",
            "push_nsh(flags=0,ttl=63,mdtype=1,np=3,spi=0x1234,si=255,c1=0x11223344,c2=0x0,c3=0x0,c4=0x0),\
             push_eth(src=00:00:00:00:00:00,dst=11:22:33:44:55:66),pop_eth,pop_nsh(),recirc(0x3)",
        ),
        (
            "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(frag=no)",
            "push_nsh(flags=0,ttl=63,mdtype=2,np=3,spi=0x1234,si=255,md2=0x10000a041234567820001408fedcba9876543210),\
             push_eth(src=00:00:00:00:00:00,dst=11:22:33:44:55:66),2",
        ),
        (
            "recirc_id(0),in_port(4789),packet_type(ns=1,id=0x894f),eth_type(0x894f),nsh(np=1,spi=0x3020,si=255)",
            "push_eth(src=00:00:00:00:00:00,dst=11:22:33:44:55:66),set(nsh(spi=0x3020,si=254)),pop_eth,2",
        ),
        (
            "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x894f),\
             nsh(flags=0,ttl=63,mdtype=1,np=3,spi=0x123456,si=255,c1=0x11223344)",
            "set(nsh(flags=2,ttl=63,spi=0x123456,si=254,c1=0x44332211)),2",
        ),
        (
            "recirc_id(0),in_port(1),eth_type(0x0800)",
            "add_mpls(label=20,tc=0,ttl=64,bos=1,eth_type=0x8847),2",
        ),
    ] {
        let parsed = matched(m);
        assert_eq!(format_match(&parsed, &no_name), m);
        assert_eq!(format_actions(&acted(a), Context::of(parsed.key()), &no_name), a);
    }
    assert_eq!(acted("push_nsh()"), [Action::PushNsh(Box::default())]);
}

#[test]
fn samples_and_exports_read_as_those_of_open_vswitch() {
    for text in [
        "userspace(pid=0,sFlow(vid=5,pcp=3,output=2147483650),actions)",
        "userspace(pid=0,ipfix(output_port=4294967295))",
        "userspace(pid=0,ipfix(output_port=2)),2",
        "sample(sample=50.0%,actions(meter(0),userspace(pid=0,ipfix(output_port=4294967295))))",
        "userspace(pid=0,flow_sample(probability=65535,collector_set_id=1,obs_domain_id=0,obs_point_id=0,output_port=1,egress),\
         tunnel_out_port=1),1",
    ] {
        let a = parse_actions(text, &no_port).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(format_actions(&a, Context::default(), &no_name), text);
    }
    for bad in [
        "sample(sample=101%,actions(1))",
        "sample(actions(1))",
        "userspace(pid=0)",
        "userspace(pid=0,ipfix(x=1))",
    ] {
        assert!(parse_actions(bad, &no_port).is_err(), "{bad}");
    }
}
