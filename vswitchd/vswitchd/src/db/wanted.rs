//! What the database wants of the switch: tables Open_vSwitch, Bridge, Port, Interface and Controller as a [`Desired`]
//! (ovs-vswitchd.conf.db(5)).
//!
//! A value that makes no sense is treated as absent, as Open vSwitch does; an interface that cannot be had as it is
//! configured becomes a port with the reason in its column `error`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use daemon::{TlsFiles, Trust};
use ofproto::{BridgeSettings, PortSettings, PriorityTags, Snooping, VlanMode, VlanSet};

use super::rows::{Row, Rows, boolean, count, elements, integer, integers, key, string};
use crate::config::{
    BridgeConfig, DeviceConfig, DeviceKind, FailMode, LocalPort, MAX_OFPORT, MirrorConfig, MirrorTo,
    OffloadConfig, PortConfig, PortKind, Wire,
};
use crate::desired::Desired;

/// Ports of a simulated device.
const SIM_PORTS: usize = 4;

/// What this process may and should do beside what the database says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// TAP interfaces can be made.
    pub taps: bool,
    /// Interfaces of type `dummy` are ports in memory.
    pub dummies: bool,
    /// Interfaces of the host are not touched.
    pub no_system: bool,
}

/// The wanted state, and what there was to say about it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Wanted {
    /// For the switch.
    pub desired: Desired,
    /// `next_cfg`: what the switch is to acknowledge once it is like this.
    pub next_cfg: i64,
    /// Keys and certificates; `None` leaves those of the command line.
    pub tls: Option<TlsFiles>,
    /// Rows and settings that are not implemented, each a sentence.
    pub ignored: Vec<String>,
}

/// Columns that are looked at, by table.
pub const COLUMNS: &[(&str, &[&str])] = &[
    (
        "Open_vSwitch",
        &["bridges", "ssl", "next_cfg", "cur_cfg", "other_config", "system_type", "system_version"],
    ),
    (
        "Bridge",
        &[
            "name",
            "ports",
            "controller",
            "fail_mode",
            "protocols",
            "other_config",
            "datapath_type",
            "flood_vlans",
            "mirrors",
            "netflow",
            "sflow",
            "ipfix",
            "stp_enable",
            "rstp_enable",
            "mcast_snooping_enable",
        ],
    ),
    (
        "Port",
        &["name", "interfaces", "tag", "trunks", "cvlans", "vlan_mode", "protected", "qos", "other_config"],
    ),
    ("Interface", &["name", "type", "options", "ofport_request", "ofport", "error", "mac", "mtu_request"]),
    ("Controller", &["target"]),
    (
        "Mirror",
        &[
            "name",
            "select_all",
            "select_src_port",
            "select_dst_port",
            "select_vlan",
            "output_port",
            "output_vlan",
            "snaplen",
        ],
    ),
    ("SSL", &["private_key", "certificate", "ca_cert", "bootstrap_ca_cert"]),
];

/// The state that the rows want; `None` while there is no row of Open_vSwitch.
pub fn wanted(rows: &Rows, host: Host) -> Option<Wanted> {
    let (_, root) = rows.table("Open_vSwitch").next()?;
    let mut w = Wanted { next_cfg: integer(root, "next_cfg").unwrap_or(0), ..Wanted::default() };
    w.desired.offload = OffloadConfig {
        // On unless switched off: it is what this switch is for.
        enabled: key(root, "other_config", "hw-offload") != Some("false"),
        min_pps: key(root, "other_config", "hoist-min-pps").and_then(|v| v.parse().ok()).unwrap_or(0),
    };
    w.tls = rows.referred(root, "ssl", "SSL").first().map(|(_, row)| tls(row));
    let mut devices = BTreeMap::new();
    let mut bridges: Vec<_> = rows.referred(root, "bridges", "Bridge");
    bridges.sort_by_key(|(_, b)| string(b, "name"));
    for (_, row) in bridges {
        if let Some(b) = bridge(rows, row, host, &mut devices, &mut w.ignored) {
            w.desired.bridges.push(b);
        }
    }
    w.desired.devices = devices.into_values().collect();
    Some(w)
}

/// Table SSL: where keys and certificates are.
fn tls(row: &Row) -> TlsFiles {
    let path = |c| string(row, c).map(PathBuf::from);
    TlsFiles {
        private_key: path("private_key"),
        certificate: path("certificate"),
        trust: match path("ca_cert") {
            Some(file) if boolean(row, "bootstrap_ca_cert") => Trust::Bootstrap(file),
            Some(file) => Trust::File(file),
            None => Trust::default(),
        },
        peer_ca: None,
    }
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    (!digits.is_empty() && digits.len() <= 16)
        .then(|| u64::from_str_radix(digits, 16).ok())?
        .filter(|id| *id != 0)
}

/// An Ethernet address, unicast and not zero.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut out = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut out {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    (parts.next().is_none() && out[0] & 1 == 0 && out != [0; 6]).then_some(out)
}

fn vlans(row: &Row, column: &str) -> Option<VlanSet> {
    let v: Vec<u16> = integers(row, column).into_iter().filter_map(|v| u16::try_from(v).ok()).collect();
    (!v.is_empty()).then(|| VlanSet::new(v))
}

fn bridge(
    rows: &Rows,
    row: &Row,
    host: Host,
    devices: &mut BTreeMap<String, DeviceConfig>,
    ignored: &mut Vec<String>,
) -> Option<BridgeConfig> {
    let name = string(row, "name")?.to_owned();
    let other = |k: &str| key(row, "other_config", k);
    let mut b = BridgeConfig {
        datapath_id: other("datapath-id").and_then(hex),
        hwaddr: other("hwaddr").and_then(mac),
        fail_mode: if string(row, "fail_mode") == Some("secure") {
            FailMode::Secure
        } else {
            FailMode::Standalone
        },
        offload: other("hoist-offload") != Some("false"),
        ..BridgeConfig::default()
    };
    let usual = BridgeSettings::default();
    let number = |k: &'static str| other(k).and_then(|v| v.parse::<u64>().ok());
    b.settings = BridgeSettings {
        forward_bpdu: other("forward-bpdu") == Some("true"),
        flood_vlans: vlans(row, "flood_vlans"),
        mac_ageing: number("mac-aging-time").map_or(usual.mac_ageing, Duration::from_secs),
        mac_limit: number("mac-table-size")
            .map_or(usual.mac_limit, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        snooping: boolean(row, "mcast_snooping_enable").then(|| {
            let usual = Snooping::default();
            Snooping {
                flood_unregistered: other("mcast-snooping-disable-flood-unregistered") != Some("true"),
                ageing: number("mcast-snooping-aging-time")
                    .map_or(usual.ageing, |n| Duration::from_secs(n.clamp(15, 3600))),
                table_size: number("mcast-snooping-table-size")
                    .map_or(usual.table_size, |n| n.clamp(1, 1_000_000) as usize),
            }
        }),
        ..usual
    };
    for (_, c) in rows.referred(row, "controller", "Controller") {
        let Some(target) = string(c, "target") else { continue };
        match (target.parse(), target.parse()) {
            (Ok(active), _) => b.controllers.push(active),
            (_, Ok(passive)) => b.listen.push(passive),
            (Err(e), _) => ignored.push(format!("bridge {name}: controller \"{target}\": {e}")),
        }
    }
    for p in elements(row.get("protocols")).into_iter().filter_map(|p| p.as_str()) {
        match p.parse() {
            Ok(v) => b.protocols.push(v),
            Err(e) => ignored.push(format!("bridge {name}: protocols: {e}")),
        }
    }
    for (uuid, m) in rows.referred(row, "mirrors", "Mirror") {
        match mirror(rows, uuid, m) {
            Some(m) => b.mirrors.push(m),
            None => {
                let called = string(m, "name").unwrap_or(uuid);
                ignored.push(format!("bridge {name}: mirror {called} does not specify output; ignoring"));
            }
        }
    }
    for (column, what) in [("netflow", "NetFlow"), ("sflow", "sFlow"), ("ipfix", "IPFIX")] {
        if count(row, column) > 0 {
            ignored.push(format!("bridge {name}: {what} are not implemented"));
        }
    }
    for (column, what) in [("stp_enable", "STP"), ("rstp_enable", "RSTP")] {
        if boolean(row, column) {
            ignored.push(format!("bridge {name}: {what} is not implemented"));
        }
    }
    let mut ports: Vec<_> = rows.referred(row, "ports", "Port");
    ports.sort_by_key(|(_, p)| string(p, "name"));
    for (_, p) in ports {
        if count(p, "qos") > 0 {
            ignored.push(format!("port {}: QoS is not implemented", string(p, "name").unwrap_or_default()));
        }
        let settings = port_settings(p);
        let interfaces = rows.referred(p, "interfaces", "Interface");
        let bond = interfaces.len() > 1;
        for (_, i) in interfaces {
            let Some(iface) = string(i, "name") else { continue };
            if iface == name {
                // The bridge's own port: the host is on the bridge through it, where it may be.
                b.local = if host.taps && !host.no_system && string(row, "datapath_type") != Some("dummy") {
                    LocalPort::Tap
                } else {
                    LocalPort::None
                };
                b.local_settings = settings.clone();
                continue;
            }
            let kind = if bond {
                wrong(iface, "bonds are not implemented")
            } else {
                interface(i, iface, host, devices)
            };
            let ofport = integer(i, "ofport_request").and_then(|n| u32::try_from(n).ok());
            // The number in a dummy's name is its number: what tests are written by.
            let ofport = ofport.or_else(|| if kind == PortKind::Memory { first_number(iface) } else { None });
            b.ports.push(PortConfig {
                ofport: ofport.filter(|n| (1..=MAX_OFPORT).contains(n)),
                settings: settings.clone(),
                ..PortConfig::new(iface, kind)
            });
        }
    }
    b.name = name;
    Some(b)
}

/// A mirror; `None` when it has no output.
fn mirror(rows: &Rows, uuid: &str, row: &Row) -> Option<MirrorConfig> {
    let names = |column: &str| -> Vec<String> {
        let ports = rows.referred(row, column, "Port");
        ports.into_iter().filter_map(|(_, p)| string(p, "name")).map(str::to_owned).collect()
    };
    let port = names("output_port").pop().map(MirrorTo::Port);
    let vlan = || integer(row, "output_vlan").and_then(|v| u16::try_from(v).ok()).map(MirrorTo::Vlan);
    Some(MirrorConfig {
        id: uuid.to_owned(),
        select_all: boolean(row, "select_all"),
        select_src: names("select_src_port"),
        select_dst: names("select_dst_port"),
        select_vlans: vlans(row, "select_vlan"),
        output: port.or_else(vlan)?,
        snaplen: integer(row, "snaplen").and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0),
    })
}

/// The first number in a name.
fn first_number(name: &str) -> Option<u32> {
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// An interface that cannot be had, in the words that stock tools show.
fn wrong(name: &str, why: &str) -> PortKind {
    PortKind::Wrong { why: format!("could not open network device {name} ({why})") }
}

fn interface(row: &Row, name: &str, host: Host, devices: &mut BTreeMap<String, DeviceConfig>) -> PortKind {
    let interface = name.to_owned();
    match string(row, "type").unwrap_or("system") {
        "system" if host.no_system => wrong(name, "Address family not supported by protocol"),
        "system" => PortKind::AfPacket { interface },
        "internal" if !host.taps || host.no_system => PortKind::Null,
        "internal" => PortKind::Internal { interface },
        "tap" => PortKind::Tap { interface },
        "patch" => match key(row, "options", "peer") {
            Some(peer) if peer != name => PortKind::Patch { peer: peer.to_owned() },
            Some(_) => {
                PortKind::Wrong { why: format!("{name}: patch port must have a peer other than itself") }
            }
            None => PortKind::Wrong { why: format!("{name}: patch ports require a 'peer' argument") },
        },
        "dummy" | "dummy-internal" | "dummy-pmd" if host.dummies => PortKind::Memory,
        "hoist" | "dpdk" => device_port(row, name, devices),
        _ => wrong(name, "Address family not supported by protocol"),
    }
}

/// `options:device=sim:0 options:port=1`, and `options:dpdk-devargs=` for the same.
fn device_port(row: &Row, name: &str, devices: &mut BTreeMap<String, DeviceConfig>) -> PortKind {
    let option = |k| key(row, "options", k);
    let Some(device) = option("device").or(option("dpdk-devargs")) else {
        return PortKind::Wrong {
            why: format!("{name}: options:device is missing: want options:device=sim:0 options:port=0"),
        };
    };
    if device.strip_prefix("sim:").is_none_or(|n| n.parse::<u8>().is_err()) {
        return PortKind::Wrong {
            why: format!("{name}: there is no driver for device {device}, only for sim:0 to sim:255"),
        };
    }
    let port =
        option("port").map_or(Some(0), |p| p.parse::<u16>().ok()).filter(|p| usize::from(*p) < SIM_PORTS);
    let Some(port) = port else {
        let last = SIM_PORTS - 1;
        return PortKind::Wrong {
            why: format!("{name}: options:port is not a port of device {device}, which has 0 to {last}"),
        };
    };
    let wire = match option("wire").map(|w| w.split_once(':').map_or((w, ""), |(k, i)| (k, i))) {
        None | Some(("none", "")) => Wire::None,
        Some(("af_packet", i)) if !i.is_empty() => Wire::AfPacket(i.to_owned()),
        Some(("tap", i)) if !i.is_empty() => Wire::Tap(i.to_owned()),
        Some(_) => {
            return PortKind::Wrong {
                why: format!("{name}: options:wire is none of none, af_packet:INTERFACE and tap:INTERFACE"),
            };
        }
    };
    let d = devices.entry(device.to_owned()).or_insert_with(|| DeviceConfig {
        name: device.to_owned(),
        kind: DeviceKind::Sim { profile: None, wires: vec![Wire::None; SIM_PORTS] },
    });
    let DeviceKind::Sim { profile, wires } = &mut d.kind;
    if let Some(file) = option("profile") {
        *profile = Some(PathBuf::from(file));
    }
    wires[usize::from(port)] = wire;
    PortKind::Sim { device: device.to_owned(), port }
}

fn port_settings(row: &Row) -> PortSettings {
    let tag = integer(row, "tag").and_then(|t| u16::try_from(t).ok()).filter(|t| *t < 4096);
    let trunks = vlans(row, "trunks");
    // Without a mode: access with a tag, else a trunk.
    let vlan = match (string(row, "vlan_mode"), tag) {
        (Some("access"), t) => VlanMode::Access { vlan: t.unwrap_or(0) },
        (Some("native-tagged"), t) => VlanMode::NativeTagged { native: t.unwrap_or(0), trunks },
        (Some("native-untagged"), t) => VlanMode::NativeUntagged { native: t.unwrap_or(0), trunks },
        (Some("dot1q-tunnel"), t) => VlanMode::Dot1qTunnel {
            vlan: t.unwrap_or(0),
            cvlans: vlans(row, "cvlans"),
            tpid: if key(row, "other_config", "qinq-ethtype") == Some("802.1q") { 0x8100 } else { 0x88a8 },
        },
        (None, Some(vlan)) => VlanMode::Access { vlan },
        _ => VlanMode::Trunk { trunks },
    };
    let priority_tags = match key(row, "other_config", "priority-tags") {
        Some("always") => PriorityTags::Always,
        Some("true" | "if-nonzero") => PriorityTags::IfNonzero,
        _ => PriorityTags::default(),
    };
    let on = |k| key(row, "other_config", k) == Some("true");
    PortSettings {
        vlan,
        priority_tags,
        protected: boolean(row, "protected"),
        mcast_flood: on("mcast-snooping-flood"),
        mcast_reports: on("mcast-snooping-flood-reports"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const HOST: Host = Host { taps: true, dummies: false, no_system: false };

    fn uuid(n: &str) -> Value {
        json!(["uuid", n])
    }

    /// A bridge br0 with its own port and the interfaces given: name and columns.
    fn rows(bridge: Value, interfaces: &[(&str, Value, Value)]) -> Rows {
        let mut r = Rows::default();
        r.update(&json!({"Open_vSwitch": {"o": {"new": {"bridges": uuid("b"), "next_cfg": 7, "other_config": ["map", []]}}}}));
        let mut ports = vec![uuid("p-br0")];
        let own = json!({"name": "br0", "type": "internal", "options": ["map", []]});
        r.update(&json!({"Interface": {"i-br0": {"new": own}}, "Port": {"p-br0": {"new": {"name": "br0", "interfaces": uuid("i-br0")}}}}));
        for (name, port, columns) in interfaces {
            let (mut p, mut i) = (port.clone(), columns.clone());
            p["name"] = json!(name);
            p["interfaces"] = uuid(&format!("i-{name}"));
            i["name"] = json!(name);
            r.update(&json!({"Port": {format!("p-{name}"): {"new": p}}, "Interface": {format!("i-{name}"): {"new": i}}}));
            ports.push(uuid(&format!("p-{name}")));
        }
        let mut b = bridge;
        b["name"] = json!("br0");
        b["ports"] = json!(["set", ports]);
        r.update(&json!({"Bridge": {"b": {"new": b}}}));
        r
    }

    #[test]
    fn a_bridge_as_ovs_vsctl_makes_it() {
        let w = wanted(&rows(json!({}), &[("eth1", json!({}), json!({"type": ""}))]), HOST).unwrap();
        assert_eq!((w.next_cfg, w.desired.bridges.len()), (7, 1));
        let b = &w.desired.bridges[0];
        assert_eq!((b.name.as_str(), b.local, b.fail_mode), ("br0", LocalPort::Tap, FailMode::Standalone));
        assert_eq!(b.ports, [PortConfig::new("eth1", PortKind::AfPacket { interface: "eth1".into() })]);
        assert!(w.ignored.is_empty(), "{:?}", w.ignored);
        assert!(wanted(&Rows::default(), HOST).is_none(), "there is no row to go by");
    }

    #[test]
    fn settings_of_bridges_and_ports() {
        let bridge = json!({
            "fail_mode": "secure", "other_config": ["map", [["datapath-id", "fedcba9876543210"],
            ["hwaddr", "aa:55:aa:55:00:00"], ["mac-aging-time", "60"], ["forward-bpdu", "true"]]],
            "controller": ["set", [["uuid", "c1"], ["uuid", "c2"], ["uuid", "c3"]]], "mirrors": ["uuid", "m"]
        });
        let ports = [
            ("p1", json!({"tag": 5}), json!({"type": "internal", "ofport_request": 9})),
            ("p2", json!({"trunks": ["set", [1, 2]]}), json!({"type": "tap", "ofport_request": 0})),
            (
                "p3",
                json!({"tag": 5, "vlan_mode": "native-tagged"}),
                json!({"type": "patch", "options": ["map", [["peer", "q"]]]}),
            ),
        ];
        let mut r = rows(bridge, &ports);
        r.update(&json!({"Controller": {
            "c1": {"new": {"target": "tcp:127.0.0.1:6653"}}, "c2": {"new": {"target": "ptcp:6654"}},
            "c3": {"new": {"target": "carrier:pigeon"}}}}));
        let w = wanted(&r, HOST).unwrap();
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
    fn versions_and_mirrors() {
        let bridge = json!({
            "protocols": ["set", ["OpenFlow10", "OpenFlow13", "OpenFlow99"]],
            "mirrors": ["set", [["uuid", "m1"], ["uuid", "m2"], ["uuid", "m3"]]]
        });
        let ports = [("a", json!({}), json!({})), ("b", json!({}), json!({}))];
        let mut r = rows(bridge, &ports);
        r.update(&json!({"Mirror": {
            "m1": {"new": {"name": "x", "select_src_port": uuid("p-a"), "select_dst_port": ["set", []],
                "select_vlan": ["set", [3, 4]], "output_port": uuid("p-b"), "output_vlan": 7, "snaplen": 100}},
            "m2": {"new": {"name": "y", "select_all": true, "output_port": ["set", []], "output_vlan": 7}},
            "m3": {"new": {"name": "z", "select_all": true}}}}));
        let w = wanted(&r, HOST).unwrap();
        let b = &w.desired.bridges[0];
        assert_eq!(b.protocols, [openflow::Version::V10, openflow::Version::V13]);
        let usual = MirrorConfig {
            id: "m2".into(),
            select_all: true,
            select_src: vec![],
            select_dst: vec![],
            select_vlans: None,
            output: MirrorTo::Vlan(7),
            snaplen: None,
        };
        let first = MirrorConfig {
            id: "m1".into(),
            select_all: false,
            select_src: vec!["a".into()],
            select_vlans: Some(VlanSet::new([3, 4])),
            output: MirrorTo::Port("b".into()),
            snaplen: Some(100),
            ..usual.clone()
        };
        assert_eq!(b.mirrors, [first, usual]);
        assert_eq!(w.ignored.len(), 2, "a version that is not known, a mirror to nowhere: {:?}", w.ignored);
    }

    #[test]
    fn device_ports_make_their_device() {
        let on = |options: Value| json!({"type": "hoist", "options": ["map", options]});
        let ports = [
            ("a", json!({}), on(json!([["device", "sim:0"], ["port", "1"], ["wire", "af_packet:w1"]]))),
            ("b", json!({}), json!({"type": "dpdk", "options": ["map", [["dpdk-devargs", "sim:0"]]]})),
            ("c", json!({}), on(json!([["device", "sim:0"], ["port", "4"]]))),
            ("d", json!({}), on(json!([["device", "0000:06:00.0"]]))),
            ("e", json!({}), on(json!([]))),
        ];
        let w = wanted(&rows(json!({}), &ports), HOST).unwrap();
        let kinds: Vec<_> = w.desired.bridges[0].ports.iter().map(|p| p.kind.clone()).collect();
        assert_eq!(kinds[0], PortKind::Sim { device: "sim:0".into(), port: 1 });
        assert_eq!(kinds[1], PortKind::Sim { device: "sim:0".into(), port: 0 });
        for (i, words) in [(2, "has 0 to 3"), (3, "no driver"), (4, "options:device is missing")] {
            assert!(matches!(&kinds[i], PortKind::Wrong { why } if why.contains(words)), "{:?}", kinds[i]);
        }
        let DeviceKind::Sim { wires, .. } = &w.desired.devices[0].kind;
        assert_eq!((w.desired.devices.len(), &wires[1]), (1, &Wire::AfPacket("w1".into())));
    }

    #[test]
    fn dummies_are_numbered_by_their_names() {
        let ports = [
            ("p17", json!({}), json!({"type": "dummy"})),
            ("tap2x3", json!({}), json!({"type": "dummy", "ofport_request": 9})),
            ("none", json!({}), json!({"type": "dummy"})),
        ];
        let w = wanted(&rows(json!({}), &ports), Host { dummies: true, ..HOST }).unwrap();
        let numbers: Vec<_> =
            w.desired.bridges[0].ports.iter().map(|p| (p.name.as_str(), p.ofport)).collect();
        assert_eq!(numbers, [("none", None), ("p17", Some(17)), ("tap2x3", Some(9))]);
    }

    #[test]
    fn what_cannot_be_had_says_so_in_open_vswitchs_words() {
        let ports = [("x", json!({}), json!({"type": "gre"})), ("y", json!({}), json!({"type": "patch"}))];
        let w = wanted(&rows(json!({}), &ports), HOST).unwrap();
        let why = |i: usize| match &w.desired.bridges[0].ports[i].kind {
            PortKind::Wrong { why } => why.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(why(0), "could not open network device x (Address family not supported by protocol)");
        assert_eq!(why(1), "y: patch ports require a 'peer' argument");
    }
}
