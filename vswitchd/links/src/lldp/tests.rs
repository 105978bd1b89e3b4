//! Units as they are on the wire, and what a port makes of those of others.

use super::pdu::{MAX_MAPPINGS, Malformed};
use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn at(s: u64) -> Instant {
    Instant::from_nanos(s * 1_000_000_000)
}

fn asking() -> LldpSettings {
    let mappings = [(100, 10), (0xabcdef, 4095)].into();
    LldpSettings { system_name: "edge".into(), mappings, ..LldpSettings::default() }
}

fn server(port: &str, ttl_s: u16, mappings: Vec<Mapping>) -> Unit {
    Unit {
        chassis: Id::of_chassis([6; 6]),
        port: Id::of_interface(port),
        ttl_s,
        port_description: b"uplink".to_vec(),
        system_name: Vec::new(),
        system_description: b"a\x1bserver".to_vec(),
        element: Some(Element {
            kind: 2,
            tagged: true,
            provisioning: 2,
            management_vlan: 0x123,
            system: [7; 10],
        }),
        mappings,
        unrecognized: 0,
    }
}

#[test]
fn a_unit_comes_back_as_it_was_sent_and_no_part_of_it_is_one() {
    let unit = server("p1", 120, vec![Mapping { isid: 0xabcdef, vlan: 4095, status: 2 }]);
    let f = unit.frame(MAC);
    assert_eq!(f[..14], [1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xcc]);
    assert_eq!(f[14..23], [0x02, 7, 4, 6, 6, 6, 6, 6, 6], "chassis by address");
    assert_eq!(f[23..28], [0x04, 3, 5, b'p', b'1'], "port by name");
    assert_eq!(f[28..32], [0x06, 2, 0, 120]);
    assert_eq!(Unit::read(&f), Ok(unit.clone()));
    // The end may be left out, and nothing else may be cut off but at the end of a TLV.
    assert_eq!(Unit::read(&f[..f.len() - 2]), Ok(unit));
    for n in 0..f.len() - 2 {
        match Unit::read(&f[..n]) {
            Ok(u) => assert!(u.mappings.is_empty()),
            Err(e) => assert!(matches!(e, Malformed::Frame | Malformed::Truncated), "{n}: {e}"),
        }
    }
}

#[test]
fn a_short_unit_is_a_whole_frame() {
    let short = Unit { element: None, system_description: Vec::new(), ..server("p", 1, Vec::new()) };
    assert_eq!(short.frame(MAC).len(), 60);
    assert_eq!(Unit::read(&short.frame(MAC)), Ok(short));
}

#[test]
fn what_is_wrong_with_a_unit_is_told() {
    let good = server("p1", 120, Vec::new()).frame(MAC);
    let with = |tlvs: &[u8]| Unit::read(&[&good[..32], tlvs].concat());
    let order = Err(Malformed::Order);
    assert_eq!(with(&[0x06, 2, 0, 1]), order, "a second time to live");
    assert_eq!(with(&[0, 1, 0]), Err(Malformed::End));
    assert_eq!(with(&[0x0e, 3, 0, 0, 0]), Err(Malformed::Short("System capabilities")));
    assert_eq!(with(&[0x10, 6, 5, 1, 1, 2, 3, 4]), Err(Malformed::Short("Management address")));
    assert_eq!(with(&[0xfe, 3, 0, 4, 13]), Err(Malformed::Short("Organisational")));
    assert_eq!(with(&[0xfe, 5, 0, 4, 13, 11, 1]), Err(Malformed::Short("ELEMENT")));
    let short = with(&[0xfe, 5, 0, 4, 13, 12, 1]);
    assert_eq!(short, Err(Malformed::Short("ISID_VLAN_ASGNS")));
    assert_eq!(short.unwrap_err().to_string(), "ISID_VLAN_ASGNS TLV too short");
    let cut_off = [&[0xfe, 37, 0, 4, 13, 12][..], &[0; 33]].concat();
    assert_eq!(with(&cut_off), Err(Malformed::Assignments));
    // TLVs that nobody knows are passed over.
    let unknown = with(&[0x14, 1, 9, 0xfe, 4, 0, 0x80, 0xc2, 1, 0, 0]).unwrap();
    assert_eq!(unknown.unrecognized, 2);
    let mut subtype = good.clone();
    subtype[16] = 8;
    assert_eq!(Unit::read(&subtype), Err(Malformed::Id));
    let mut elsewhere = good;
    elsewhere[5] = 0;
    assert_eq!(Unit::read(&elsewhere), Err(Malformed::Frame));
}

#[test]
fn a_port_says_who_it_is_and_what_it_asks_for_every_five_seconds() {
    let mut l = Lldp::new("p1", asking(), at(1));
    assert!(!l.due(at(5)) && l.due(at(6)));
    let said = Unit::read(&l.emit(at(6), MAC)).unwrap();
    assert!(!l.due(at(10)) && l.due(at(11)));
    assert_eq!((said.chassis, said.port, said.ttl_s), (Id::of_chassis(MAC), Id::of_interface("p1"), 120));
    assert_eq!(said.system_name, b"edge");
    assert!(said.system_description.starts_with(b"Hoist "));
    assert_eq!(said.element, Some(Element::of_switch(MAC)));
    let asked: Vec<_> = said.mappings.iter().map(|m| (m.isid, m.vlan, m.status)).collect();
    assert_eq!(asked, [(100, 10, 0), (0xabcdef, 4095, 0)]);
    // What is new is said at once.
    l.configure(asking(), at(7));
    assert!(!l.due(at(7)));
    let many = LldpSettings { mappings: (0..500).map(|n| (n, 1)).collect(), ..asking() };
    l.configure(many, at(7));
    assert!(l.due(at(7)));
    assert_eq!(Unit::read(&l.emit(at(7), MAC)).unwrap().mappings.len(), MAX_MAPPINGS);
}

#[test]
fn servers_are_known_until_they_are_not_heard_any_more() {
    let mut l = Lldp::new("p1", asking(), at(1));
    let answers = vec![Mapping { isid: 100, vlan: 10, status: 2 }, Mapping { isid: 7, vlan: 7, status: 3 }];
    l.receive(&server("u1", 10, answers).frame([6; 6]), at(2));
    assert_eq!(
        [100, 0xabcdef, 7].map(|i| l.status(i)),
        [Some(Status::Answered(2)), Some(Status::Pending), None]
    );
    let want = "LLDP: p1\n  Auto Attach Primary Server Id: 06:06:06:06:06:06\n  Auto Attach Primary Server Descr: a.server\n  \
                Auto Attach Primary Server System Id: 07:07:07:07:07:07:07:07:07:07\n";
    assert_eq!(l.servers_text(), want);
    let want = "LLDP: p1\nI-SID    VLAN Source      Status  \n-------- ---- ----------- --------\n\
                100      10   Switch      Active     \n11259375 4095 Switch      Pending    \n";
    assert_eq!(l.services_text(), want);
    l.run(at(11));
    l.receive(&server("u1", 10, Vec::new()).frame([6; 6]), at(11));
    l.run(at(20));
    assert_ne!(l.servers_text(), "LLDP: p1\n");
    l.run(at(21));
    assert_eq!(l.servers_text(), "LLDP: p1\n");
    // One that says that it goes is gone.
    l.receive(&server("u2", 10, Vec::new()).frame([6; 6]), at(22));
    l.receive(&server("u2", 0, Vec::new()).frame([6; 6]), at(23));
    let c = l.counters();
    assert_eq!((c.received, c.inserted, c.aged_out, c.deleted), (4, 2, 1, 2));
    assert!(
        l.counters_text().starts_with("Statistics: p1\n  tx cnt: 0\n  rx cnt: 4\n  rx discarded cnt: 0\n")
    );
}

#[test]
fn no_more_neighbours_are_remembered_than_there_is_room_for() {
    let mut l = Lldp::new("p1", asking(), at(1));
    for n in 0..100 {
        l.receive(&server(&format!("u{n}"), 100, Vec::new()).frame([6; 6]), at(2));
        l.receive(&[0; 14], at(2));
    }
    let c = l.counters();
    assert_eq!((c.inserted, c.dropped, c.discarded), (32, 68, 100));
}
