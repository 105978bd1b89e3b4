//! Against recorded and live `ovs-ofctl`, round trips, errors.

use super::golden::GOLDEN;
use super::*;
use crate::field::{FIELDS, FieldId as F, Maskable, Prereq};
use crate::key::PipelineMatch;
use crate::prereq;
use crate::text::Reason;
use proptest::prelude::*;
use std::io::Write as _;
use std::process::Command;

#[track_caller]
fn normal_form(text: &str) -> String {
    let m = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    format(&prereq::normalize(&m).0)
}

#[test]
fn golden_texts_of_ovs_ofctl() {
    for (input, want) in GOLDEN {
        assert_eq!(normal_form(input), *want, "{input}");
    }
}

#[test]
fn live_ovs_ofctl_prints_the_same() {
    if Command::new("ovs-ofctl").arg("--version").output().is_err() {
        println!("not run: ovs-ofctl is not installed (Debian package openvswitch-switch)");
        return;
    }
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for (input, _) in GOLDEN {
        writeln!(file, "{input}{}actions=1", if input.is_empty() { "" } else { "," }).unwrap();
    }
    let out = Command::new("ovs-ofctl")
        .args(["--no-names", "-F", "NXM+table_id", "parse-flows"])
        .arg(file.path())
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<&str> = text.lines().filter(|l| l.contains("FLOW_MOD")).collect();
    assert_eq!(lines.len(), GOLDEN.len(), "{}", String::from_utf8_lossy(&out.stderr));
    for ((input, _), line) in GOLDEN.iter().zip(lines) {
        let theirs = line.split_once("ADD table:255").unwrap().1.rsplit_once("actions=").unwrap().0.trim();
        assert_eq!(normal_form(input), theirs, "{input}");
    }
}

#[test]
fn a_megaflow_names_its_packet_type() {
    // ofproto/trace, Open vSwitch 3.1.0: "Megaflow: recirc_id=0,eth,tcp,in_port=1,nw_src=10.0.0.1,nw_frag=no".
    let m = parse("recirc_id=0,eth,tcp,in_port=1,nw_src=10.0.0.1,nw_frag=no").unwrap();
    assert_eq!(format(&m), "recirc_id=0,eth,tcp,in_port=1,nw_src=10.0.0.1,nw_frag=no");
    let mut exact = m;
    exact.set(F::NwFrag, 0);
    exact.set_masked(F::VlanTci, 0, 0x1fff);
    assert_eq!(
        format(&exact),
        "recirc_id=0,eth,tcp,in_port=1,vlan_tci=0x0000/0x1fff,nw_src=10.0.0.1,nw_frag=no"
    );
}

#[test]
fn second_tags_are_numbered() {
    let mut m = PipelineMatch::ANY;
    m.set_masked(F::VlanTci, 0x1005, 0x1fff);
    m.set_masked(F::VlanTci2, 0x1006, 0x1fff);
    assert_eq!(format(&m), "dl_vlan=5,dl_vlan1=6");
}

#[test]
fn ports_by_name() {
    let by_name = |n: &str| (n == "p1").then_some(3).or((n == "odd name").then_some(4));
    let name =
        |p: u32| [(3, "p1"), (4, "odd name")].iter().find(|(n, _)| *n == p).map(|(_, s)| (*s).to_owned());
    let m = parse_with("in_port=p1", &by_name).unwrap();
    assert_eq!(m.get(F::InPort), (3, 0xffff_ffff));
    assert_eq!(format_with(&m, &name), "in_port=p1");
    let m = parse_with("in_port=\"odd name\",tcp", &by_name).unwrap();
    assert_eq!(format_with(&m, &name), "tcp,in_port=\"odd name\"");
    assert_eq!(parse("in_port=65534").unwrap().get(F::InPort).0, 0xffff_fffe);
    assert_eq!(parse_with("in_port=p2", &by_name).unwrap_err().reason, Reason::UnknownPort);
}

#[test]
fn icmp_type_is_eight_bits_however_it_is_given() {
    assert_eq!(parse("icmp,icmp_type=8").unwrap(), parse("tp_src=8,icmp").unwrap());
    assert_eq!(parse("icmp6,icmpv6_code=3").unwrap().get(F::TpDst), (3, 0xff));
}

#[test]
fn errors_say_where() {
    for (text, at, reason) in [
        ("foo", 0, Reason::UnknownKeyword),
        ("tcp,foo=1", 4, Reason::UnknownKeyword),
        ("TCP", 0, Reason::UnknownKeyword),
        ("tcp, tp_dst=80000", 12, Reason::TooLarge(16)),
        ("tcp,tp_dst=", 4, Reason::MissingValue),
        ("tcp,tp_dst", 4, Reason::MissingValue),
        ("dl_src=1", 7, Reason::Expected("an Ethernet address")),
        ("dl_src=00:01:02:03:04:05:06", 7, Reason::Expected("an Ethernet address")),
        ("ip,nw_src=1.2.3", 10, Reason::Expected("an IPv4 address")),
        ("ip,nw_src=1.2.3.4/33", 10, Reason::BadMask("an IPv4 address")),
        ("ip,nw_src=1.2.3.4/", 10, Reason::BadMask("an IPv4 address")),
        ("ip,nw_src=1.2.3.4/1.2", 10, Reason::BadMask("an IPv4 address")),
        ("ipv6,ipv6_src=1:2", 14, Reason::Expected("an IPv6 address")),
        ("ipv6,ipv6_src=1::2/129", 14, Reason::BadMask("an IPv6 address")),
        ("ip,nw_tos=300", 10, Reason::TooLarge(8)),
        ("ip,nw_ttl=256", 10, Reason::TooLarge(8)),
        ("reg0=0x1ffffffff", 5, Reason::TooLarge(32)),
        ("in_port=foo", 8, Reason::UnknownPort),
        ("in_port=100000", 8, Reason::UnknownPort),
        ("dl_vlan=4096", 8, Reason::TooLarge(12)),
        ("dl_vlan_pcp=8", 12, Reason::TooLarge(3)),
        ("ct_state=foo", 9, Reason::BadFlag),
        ("ct_state=+trk-trk", 9, Reason::BadFlag),
        ("ct_zone=5/0xff", 8, Reason::BadMask("ct_zone")),
        ("tcp,tcp_flags=+foo", 14, Reason::BadFlag),
        ("tcp,tcp_flags=0x1000", 14, Reason::TooLarge(12)),
        ("metadata=1/2/3", 9, Reason::Expected("a number")),
        ("metadata=-1", 9, Reason::Expected("a number")),
        ("packet_type=(1", 12, Reason::Expected("a closing parenthesis or quote")),
        ("packet_type=1", 12, Reason::Expected("(namespace,type)")),
    ] {
        let e = parse(text).unwrap_err();
        assert_eq!((e.at, &e.reason), (at, &reason), "{text}");
    }
    let e = parse("tcp,tp_dst=80000").unwrap_err();
    assert_eq!(e.to_string(), "value does not fit in 16 bits at byte 11, near \"80000\"");
}

/// Matches that have a text: fields whose prerequisites hold, masks that OpenFlow allows.
fn matches() -> impl Strategy<Value = PipelineMatch> {
    let base = prop::sample::select(vec![
        "",
        "ip",
        "ipv6",
        "arp",
        "mpls",
        "tcp",
        "tcp6",
        "udp",
        "udp6",
        "sctp",
        "icmp",
        "icmp6,icmp_type=135,icmp_code=0",
        "icmp6,icmp_type=136,icmp_code=0",
        "dl_type=0x88cc",
        "ip,nw_proto=47",
        "rarp,arp_op=3",
    ]);
    let field = (any::<prop::sample::Index>(), any::<u128>(), any::<u128>(), any::<bool>());
    (base, prop::collection::vec(field, 0..12)).prop_map(|(base, fields)| {
        let mut m = parse(base).unwrap();
        for (i, v, mask, exact) in fields {
            let row = &FIELDS[i.index(FIELDS.len())];
            let skip = matches!(
                row.id,
                // No OpenFlow name, or fixed by the base.
                F::DpPort
                    | F::EthType
                    | F::NwProto
                    | F::ArpOp
                    | F::PacketType
                    | F::NwFrag
                    | F::VlanTpid
                    | F::VlanTci2
                    | F::VlanTpid2
                    | F::MplsLse0
                    | F::InPort
                    | F::ActsetOutput
                    | F::Icmp4Type
                    | F::Icmp4Code
                    | F::Icmp6Type
                    | F::Icmp6Code
                    | F::TunGbpFlags
                    | F::TunTos
                    | F::TunTpSrc
                    | F::TunTpDst
                    | F::CtState
            ) || matches!(row.prereq, Prereq::Vlan)
                // Have a text only where they are mapped.
                || row.canon >= F::TunOptions && row.canon <= F::TunOption15
                || !prereq::satisfied(&m, row.id);
            if skip {
                continue;
            }
            // Of these masks are not told, nor what the other version has.
            let rare = crate::tunnel::HEADER_FIELDS.contains(&row.id);
            let erspan = &crate::tunnel::HEADER_FIELDS[..4];
            if erspan.contains(&row.id) && erspan.iter().any(|f| m.mask().get(*f) != 0) {
                continue;
            }
            let exact = exact || rare || row.mask == Maskable::Exact;
            let mask = if exact { row.max() } else { mask & row.max() };
            let mask = if row.id == F::TunFlags { 1 } else { mask };
            m.set_masked(row.id, v, mask);
        }
        m
    })
}

proptest! {
    #[test]
    fn a_match_survives_its_text(m in matches()) {
        let text = format(&m);
        let back = parse(&text);
        prop_assert_eq!(back.as_ref(), Ok(&m), "{}", text);
        prop_assert_eq!(format(&back.unwrap()), text);
    }

    #[test]
    fn no_text_makes_the_parser_panic(s in "[a-z_0-9=,/.:+()\" -]{0,60}") {
        let _ = parse(&s);
    }

    #[test]
    fn no_value_makes_a_known_keyword_panic(i in any::<prop::sample::Index>(), s in "[a-f0-9x/.:+|(),-]{0,40}") {
        let row = &FIELDS[i.index(FIELDS.len())];
        let _ = parse(&format!("{}={s}", row.name));
    }
}

#[test]
fn a_whole_key_is_the_flow_line_of_a_trace() {
    // ofproto/trace br0 'in_port=1,tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80,...', Open vSwitch 3.1.0.
    let text = "tcp,in_port=1,vlan_tci=0x0000,dl_src=00:00:00:00:00:01,dl_dst=00:00:00:00:00:02,nw_src=10.0.0.1,\
                nw_dst=10.0.0.2,nw_tos=0,nw_ecn=0,nw_ttl=64,nw_frag=no,tp_src=0,tp_dst=80,tcp_flags=0";
    let key = *parse(text).unwrap().key();
    assert_eq!(format_key(&key, &|_| None), text);
    let mut key = key;
    key.set(F::RecircId, 1);
    key.set(F::CtState, 0x21);
    key.set(F::Reg0, 5);
    let start = "recirc_id=0x1,ct_state=new|trk,eth,tcp,reg0=0x5,in_port=1,vlan_tci=0x0000,";
    assert!(format_key(&key, &|_| None).starts_with(start), "{}", format_key(&key, &|_| None));
}
