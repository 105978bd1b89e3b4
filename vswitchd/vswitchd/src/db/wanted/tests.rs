use serde_json::{Value, json};

use netio::af_xdp::XdpMode;
use ovsdb::Uuid;

use super::*;
use crate::config::{DeviceKind, PortConfig, PortKind, Wire};
use ofproto::VlanMode;

use crate::dummy::DummyOptions;

const HOST: Host = Host { taps: true, dummies: Dummies::None, no_system: false, tc: false, confined: false };

/// A name's UUID: the name itself, filled up.
fn id(name: &str) -> Uuid {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Uuid(bytes)
}

fn uuid(name: &str) -> Value {
    json!(["uuid", id(name).to_text()])
}

/// Rows by table and name.
#[derive(Default)]
struct Rows(serde_json::Map<String, Value>);

impl Rows {
    fn put(&mut self, table: &str, name: &str, row: Value) {
        self.0.entry(table).or_insert_with(|| json!({}))[id(name).to_text()] = json!({ "new": row });
    }

    fn wanted(&self, host: Host) -> Option<Wanted> {
        let schema = ovsdb::vswitch::schema().unwrap();
        let updates = Value::Object(self.0.clone());
        let s = Snapshot::of_updates(&schema, &columns(&[]), &updates);
        wanted(&s.unwrap_or_else(|e| panic!("{e}: {updates}")), host)
    }
}

/// A bridge br0 with its own port and the interfaces given: name and columns.
fn rows(bridge: Value, interfaces: &[(&str, Value, Value)]) -> Rows {
    let mut r = Rows::default();
    r.put("Open_vSwitch", "o", json!({"bridges": uuid("b"), "next_cfg": 7}));
    let mut ports = vec![uuid("p-br0")];
    r.put("Interface", "i-br0", json!({"name": "br0", "type": "internal"}));
    r.put("Port", "p-br0", json!({"name": "br0", "interfaces": uuid("i-br0")}));
    for (name, port, columns) in interfaces {
        let (mut p, mut i) = (port.clone(), columns.clone());
        p["name"] = json!(name);
        p["interfaces"] = uuid(&format!("i-{name}"));
        i["name"] = json!(name);
        r.put("Port", &format!("p-{name}"), p);
        r.put("Interface", &format!("i-{name}"), i);
        ports.push(uuid(&format!("p-{name}")));
    }
    let mut b = bridge;
    b["name"] = json!("br0");
    b["ports"] = json!(["set", ports]);
    r.put("Bridge", "b", b);
    r
}

#[test]
fn a_bridge_as_ovs_vsctl_makes_it() {
    let w = rows(json!({}), &[("eth1", json!({}), json!({"type": ""}))]).wanted(HOST).unwrap();
    assert_eq!((w.next_cfg, w.desired.bridges.len()), (7, 1));
    let b = &w.desired.bridges[0];
    assert_eq!((b.name.as_str(), b.local, b.fail_mode), ("br0", LocalPort::Tap, FailMode::Standalone));
    assert_eq!(b.ports, [PortConfig::new("eth1", PortKind::AfPacket { interface: "eth1".into() })]);
    assert!(w.ignored.is_empty(), "{:?}", w.ignored);
    assert!(Rows::default().wanted(HOST).is_none(), "there is no row to go by");
}

#[test]
fn settings_of_bridges_and_ports() {
    let bridge = json!({
        "fail_mode": "secure", "other_config": ["map", [["datapath-id", "fedcba9876543210"],
        ["hwaddr", "aa:55:aa:55:00:00"], ["mac-aging-time", "60"], ["forward-bpdu", "true"]]],
        "controller": ["set", [uuid("c1"), uuid("c2"), uuid("c3")]], "mirrors": uuid("m")
    });
    let ports = [
        ("p1", json!({"tag": 5}), json!({"type": "internal", "ofport_request": 9})),
        ("p2", json!({"trunks": ["set", [1, 2]]}), json!({"type": "tap"})),
        (
            "p3",
            json!({"tag": 5, "vlan_mode": "native-tagged"}),
            json!({"type": "patch", "options": ["map", [["peer", "q"]]]}),
        ),
    ];
    let mut r = rows(bridge, &ports);
    for (c, target) in [("c1", "tcp:127.0.0.1:6653"), ("c2", "ptcp:6654"), ("c3", "carrier:pigeon")] {
        r.put("Controller", c, json!({"target": target}));
    }
    let w = r.wanted(HOST).unwrap();
    let b = &w.desired.bridges[0];
    assert_eq!(
        (b.datapath_id, b.hwaddr),
        (Some(0xfedc_ba98_7654_3210), Some([0xaa, 0x55, 0xaa, 0x55, 0, 0]))
    );
    assert_eq!(
        (b.fail_mode, b.settings.forward_bpdu, b.settings.mac_ageing.as_secs()),
        (FailMode::Secure, true, 60)
    );
    assert_eq!(b.controllers[0].to_string(), "tcp:127.0.0.1:6653");
    assert_eq!(b.listen.len(), 1);
    assert_eq!((b.ports[0].ofport, b.ports[1].ofport), (Some(9), None));
    let vlan = |i: usize| b.ports[i].settings.vlan.clone();
    assert_eq!(vlan(0), VlanMode::Access { vlan: 5 });
    assert_eq!(vlan(1), VlanMode::Trunk { trunks: Some(VlanSet::new([1, 2])) });
    assert_eq!(vlan(2), VlanMode::NativeTagged { native: 5, trunks: None });
    assert_eq!(b.ports[2].kind, PortKind::Patch { peer: "q".into() });
    assert_eq!(w.ignored.len(), 1, "{:?}", w.ignored);
}

#[test]
fn connections_of_controllers_and_managers_are_in_band_unless_they_say_otherwise() {
    let in_band = |bridge: Value| {
        let mut b = bridge;
        b["controller"] = json!(["set", [uuid("c1"), uuid("c2"), uuid("c3"), uuid("c4")]]);
        let mut r = rows(b, &[]);
        let out = json!("out-of-band");
        r.put("Controller", "c1", json!({"target": "tcp:192.0.2.1"}));
        r.put("Controller", "c2", json!({"target": "ssl:192.0.2.2:6000", "connection_mode": "in-band"}));
        r.put("Controller", "c3", json!({"target": "tcp:192.0.2.3:6000", "connection_mode": out}));
        r.put("Controller", "c4", json!({"target": "tcp:127.0.0.1:6653"}));
        r.put("Manager", "m1", json!({"target": "tcp:192.0.2.4"}));
        r.put("Manager", "m2", json!({"target": "ptcp:6640"}));
        let w = r.wanted(HOST).unwrap();
        w.desired.bridges[0].settings.in_band.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(in_band(json!({})), ["192.0.2.1:6653", "192.0.2.2:6000", "192.0.2.4:6640"]);
    let off = json!({"other_config": ["map", [["disable-in-band", "true"]]]});
    assert!(in_band(off).is_empty());
}

#[test]
fn versions_and_mirrors() {
    let bridge = json!({
        "protocols": ["set", ["OpenFlow10", "OpenFlow13"]],
        "mirrors": ["set", [uuid("m1"), uuid("m2"), uuid("m3")]]
    });
    let ports = [("a", json!({}), json!({})), ("b", json!({}), json!({}))];
    let mut r = rows(bridge, &ports);
    r.put(
        "Mirror",
        "m1",
        json!({"name": "x", "select_src_port": uuid("p-a"), "select_vlan": ["set", [3, 4]],
            "output_port": uuid("p-b"), "output_vlan": 7, "snaplen": 100}),
    );
    r.put("Mirror", "m2", json!({"name": "y", "select_all": true, "output_vlan": 7}));
    r.put("Mirror", "m3", json!({"name": "z", "select_all": true}));
    let w = r.wanted(HOST).unwrap();
    let b = &w.desired.bridges[0];
    assert_eq!(b.protocols, [openflow::Version::V10, openflow::Version::V13]);
    let usual = MirrorConfig {
        id: id("m2").to_text(),
        select_all: true,
        select_src: vec![],
        select_dst: vec![],
        select_vlans: None,
        output: MirrorTo::Vlan(7),
        snaplen: None,
    };
    let first = MirrorConfig {
        id: id("m1").to_text(),
        select_all: false,
        select_src: vec!["a".into()],
        select_vlans: Some(VlanSet::new([3, 4])),
        output: MirrorTo::Port("b".into()),
        snaplen: Some(100),
        ..usual.clone()
    };
    assert_eq!(b.mirrors, [first, usual]);
    assert_eq!(w.ignored.len(), 1, "a mirror to nowhere: {:?}", w.ignored);
}

#[test]
fn device_ports_make_their_device() {
    let on = |options: Value| json!({"type": "hoist", "options": ["map", options]});
    let ports = [
        ("a", json!({}), on(json!([["device", "sim:0"], ["port", "1"], ["wire", "af_packet:w1"]]))),
        ("b", json!({}), json!({"type": "dpdk", "options": ["map", [["dpdk-devargs", "sim:0"]]]})),
        ("c", json!({}), on(json!([["device", "sim:0"], ["port", "4"]]))),
        ("d", json!({}), on(json!([["device", "eth0"]]))),
        ("e", json!({}), on(json!([]))),
        ("f", json!({}), on(json!([["device", "06:00.0"], ["port", "1"]]))),
        ("g", json!({}), json!({"type": "dpdk", "options": ["map", [["dpdk-devargs", "0000:06:00.0"]]]})),
        ("h", json!({}), on(json!([["device", "ixgbe-sim:3"], ["wire", "tap:w2"]]))),
        ("i", json!({}), on(json!([["device", "ixgbe-sim:3"], ["port", "1"]]))),
        ("j", json!({}), on(json!([["device", "vfio-user:/run/nic.sock"], ["port", "2"]]))),
        ("k", json!({}), on(json!([["device", "vfio-user:nic.sock"]]))),
    ];
    let w = rows(json!({}), &ports).wanted(HOST).unwrap();
    let kinds: Vec<_> = w.desired.bridges[0].ports.iter().map(|p| p.kind.clone()).collect();
    assert_eq!(kinds[9], PortKind::Sim { device: "vfio-user:/run/nic.sock".into(), port: 2 });
    assert!(matches!(&kinds[10], PortKind::Wrong { why } if why.contains("whole path")), "{:?}", kinds[10]);
    assert_eq!(kinds[0], PortKind::Sim { device: "sim:0".into(), port: 1 });
    assert_eq!(kinds[1], PortKind::Sim { device: "sim:0".into(), port: 0 });
    for (i, words) in [(2, "has 0 to 3"), (3, "no driver"), (4, "options:device is missing")] {
        assert!(matches!(&kinds[i], PortKind::Wrong { why } if why.contains(words)), "{:?}", kinds[i]);
    }
    let pci = |port| PortKind::Sim { device: "0000:06:00.0".into(), port };
    assert_eq!(kinds[7], PortKind::Sim { device: "ixgbe-sim:3".into(), port: 0 });
    assert!(matches!(&kinds[8], PortKind::Wrong { why } if why.contains("0 to 0")), "{:?}", kinds[8]);
    assert_eq!(kinds[5..7], [pci(1), pci(0)], "one device, however its address is written");
    let devices: Vec<_> = w.desired.devices.iter().map(|d| (d.name.as_str(), &d.kind)).collect();
    let [
        ("0000:06:00.0", DeviceKind::Pci { address }),
        ("ixgbe-sim:3", DeviceKind::Ixgbe { wire: Wire::Tap(tap) }),
        ("sim:0", DeviceKind::Sim { wires, .. }),
        ("vfio-user:/run/nic.sock", DeviceKind::VfioUser { .. }),
    ] = devices[..]
    else {
        panic!("{devices:?}");
    };
    assert_eq!(tap, "w2");
    assert_eq!((address.bus, &wires[1]), (6, &Wire::AfPacket("w1".into())));
}

#[test]
fn af_xdp_is_a_type_with_a_mode() {
    let with = |mode: &str| json!({"type": "afxdp", "options": ["map", [["xdp-mode", mode]]]});
    let ports = [
        ("a", json!({}), json!({"type": "afxdp"})),
        ("b", json!({}), with("native")),
        ("c", json!({}), with("quick")),
    ];
    let w = rows(json!({}), &ports).wanted(HOST).unwrap();
    let kinds: Vec<_> = w.desired.bridges[0].ports.iter().map(|p| p.kind.clone()).collect();
    let kind = |interface: &str, mode| PortKind::AfXdp { interface: interface.into(), mode };
    assert_eq!(kinds[..2], [kind("a", XdpMode::BestEffort), kind("b", XdpMode::Native)]);
    assert!(matches!(&kinds[2], PortKind::Wrong { why } if why.contains("best-effort")), "{:?}", kinds[2]);
}

#[test]
fn dummies_are_what_the_command_line_says() {
    let options = json!(["map", [["tx_pcap", "out.pcap"], ["ifindex", "7"], ["n_rxq", "2"]]]);
    let ports = [
        ("a", json!({}), json!({"type": "dummy", "options": options, "mac": "aa:55:00:00:00:07"})),
        ("b", json!({}), json!({"type": "internal"})),
        ("c", json!({}), json!({"type": ""})),
    ];
    let kinds = |datapath: &str, dummies| {
        let w = rows(json!({"datapath_type": datapath}), &ports).wanted(Host { dummies, ..HOST }).unwrap();
        let b = w.desired.bridges[0].clone();
        assert_eq!(b.settings.stock_megaflows, dummies != Dummies::None);
        let class = |k: &PortKind| match k {
            PortKind::Dummy { class, .. } => class.name(),
            _ => "-",
        };
        let all = b.ports.iter().map(|p| class(&p.kind)).collect::<Vec<_>>().join(" ");
        (b.local == LocalPort::Dummy, all, b.ports[0].kind.clone())
    };
    let (local, classes, first) = kinds("dummy", Dummies::ByType);
    assert_eq!((local, classes.as_str()), (true, "dummy dummy-internal -"));
    let PortKind::Dummy { options, .. } = first else { panic!("{first:?}") };
    let want = DummyOptions {
        mac: Some([0xaa, 0x55, 0, 0, 0, 7]),
        tx_pcap: Some("out.pcap".into()),
        ifindex: Some(7),
        n_rxq: 2,
        ..DummyOptions::default()
    };
    assert_eq!(options, want);
    assert_eq!(kinds("", Dummies::ByType).1, "dummy - -");
    assert_eq!(kinds("", Dummies::System).1, "dummy dummy-internal system");
    assert!(kinds("netdev", Dummies::Override).0);
    assert_eq!(kinds("dummy", Dummies::None).1, "- - -");
}

#[test]
fn what_cannot_be_had_says_so_in_open_vswitchs_words() {
    let ports = [
        ("x", json!({}), json!({"type": "bareudp"})),
        ("y", json!({}), json!({"type": "patch"})),
        ("z", json!({}), json!({"type": "gre"})),
    ];
    let w = rows(json!({}), &ports).wanted(HOST).unwrap();
    let why = |i: usize| match &w.desired.bridges[0].ports[i].kind {
        PortKind::Wrong { why } => why.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(why(0), "could not open network device x (tunnels of type bareudp are not implemented)");
    assert_eq!(why(1), "y: patch ports require a 'peer' argument");
    assert_eq!(why(2), "z: gre type requires valid 'remote_ip' argument");
}

#[test]
fn interfaces_of_the_host_are_the_kernels_where_hardware_is_asked_for() {
    let kind = |config: &[(&str, &str)]| {
        let mut r = rows(json!({}), &[("eth1", json!({}), json!({}))]);
        let other: Vec<_> = config.iter().map(|(k, v)| json!([k, v])).collect();
        let root = json!({"bridges": uuid("b"), "next_cfg": 7, "other_config": ["map", other]});
        r.put("Open_vSwitch", "o", root);
        let w = r.wanted(HOST).unwrap();
        (w.desired.bridges[0].ports[0].kind.clone(), w.desired.offload.tc)
    };
    let (af_packet, tc) =
        (PortKind::AfPacket { interface: "eth1".into() }, PortKind::Tc { interface: "eth1".into() });
    assert_eq!(kind(&[]), (af_packet.clone(), None));
    assert_eq!(kind(&[("hw-offload", "false")]), (af_packet, None));
    assert_eq!(kind(&[("hw-offload", "true")]), (tc.clone(), Some(TcPolicy::None)));
    let with = |policy| kind(&[("hw-offload", "true"), ("tc-policy", policy)]);
    assert_eq!(with("skip_hw"), (tc.clone(), Some(TcPolicy::SkipHw)));
    assert_eq!(with("sometimes"), (tc, Some(TcPolicy::None)));
}

#[test]
fn rules_see_one_tag_unless_there_is_to_be_another_limit_or_none() {
    let sees_one = |limit: Option<&str>| {
        let mut r = rows(json!({}), &[]);
        let other = limit.map_or(json!(["map", []]), |l| json!(["map", [["vlan-limit", l]]]));
        r.put("Open_vSwitch", "o", json!({"bridges": uuid("b"), "next_cfg": 7, "other_config": other}));
        r.wanted(HOST).unwrap().desired.bridges[0].settings.one_tag
    };
    let got = [None, Some("1"), Some("0"), Some("2"), Some("-1"), Some("many")].map(sees_one);
    assert_eq!(got, [true, true, false, false, false, true]);
}

#[test]
fn a_port_with_lldp_says_what_auto_attach_has_of_its_bridge() {
    let on = json!({"type": "internal", "lldp": ["map", [["enable", "true"]]]});
    let off = json!({"type": "internal", "lldp": ["map", [["enable", "false"]]]});
    let attached = json!({"auto_attach": uuid("a")});
    let mut r = rows(attached, &[("p1", json!({}), on.clone()), ("p2", json!({}), off)]);
    let maps = json!(["map", [[100, 10], [16777215, 4095]]]);
    r.put("AutoAttach", "a", json!({"system_name": "s", "system_description": "d", "mappings": maps}));
    let w = r.wanted(HOST).unwrap();
    let said = |w: &Wanted, n: usize| w.desired.bridges[0].ports[n].settings.lldp.clone();
    let want = links::LldpSettings {
        system_name: "s".into(),
        system_description: "d".into(),
        mappings: [(100, 10), (16777215, 4095)].into(),
    };
    assert_eq!((said(&w, 0), said(&w, 1)), (Some(want), None));
    assert!(w.ignored.is_empty(), "{:?}", w.ignored);
    let w = rows(json!({}), &[("p1", json!({}), on)]).wanted(HOST).unwrap();
    assert_eq!(said(&w, 0), Some(links::LldpSettings::default()));
}
