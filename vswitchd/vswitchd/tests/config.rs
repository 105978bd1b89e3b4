//! Wrong configurations name file, line and key; right ones mean what they say.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use vswitchd::config::{BridgeConfig, Config, ConfigError, DeviceKind, FailMode, PortKind, Wire};

const FILE: &str = "/etc/hoist/switch.toml";

fn problems(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new(FILE)) {
        Err(ConfigError::Wrong(p)) => p.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

/// The one problem of `text`, without the file's name.
fn problem(text: &str) -> String {
    let p = problems(text);
    assert_eq!(p.len(), 1, "{p:#?}");
    p[0].strip_prefix(FILE).and_then(|s| s.strip_prefix(':')).unwrap_or_else(|| panic!("{p:?}")).to_owned()
}

fn bridge(text: &str) -> BridgeConfig {
    let c = Config::parse(&format!("[[bridge]]\nname = 'br0'\n{text}"), Path::new(FILE)).unwrap();
    c.bridges.into_iter().next().unwrap()
}

#[test]
fn the_documented_example_is_right() {
    let text = include_str!("../example.toml");
    let c = Config::parse(text, Path::new("/x/example.toml")).unwrap();
    let DeviceKind::Sim { wires, profile } = &c.devices[0].kind else { panic!("{:?}", c.devices[0]) };
    assert_eq!(*profile, None);
    let wire = |s: &str| Wire::AfPacket(s.to_owned());
    assert_eq!(*wires, [wire("wire0"), wire("wire1"), Wire::Tap("wire2".into()), Wire::None]);
    let b = &c.bridges[0];
    assert_eq!((b.datapath_id, b.fail_mode, b.offload), (Some(1), FailMode::Secure, true));
    assert_eq!(b.controllers[0].to_string(), "tcp:127.0.0.1:6653");
    assert_eq!(b.ports.len(), 8);
    assert_eq!(b.ports[4].kind, PortKind::Tap { interface: "vm0".into() });
    assert_eq!(b.ports[6].kind, PortKind::Pcap { path: None, out: Some("/x/sniffer.pcap".into()) });
}

#[test]
fn an_empty_file_is_a_switch_without_bridges() {
    let c = Config::parse("", Path::new(FILE)).unwrap();
    assert!(c.bridges.is_empty() && c.devices.is_empty());
    assert_eq!(c.datapath.buffers, 8192);
    assert_eq!(bridge("").fail_mode, FailMode::Secure);
}

#[test]
fn syntax_and_types_are_located() {
    assert_eq!(
        problem("[offload]\nenabled = 3\n"),
        "2:11: offload.enabled: invalid type: integer `3`, expected a boolean"
    );
    let unknown = problem("[[bridge]]\nname = 'br0'\nfail_mod = 'secure'\n");
    assert!(
        unknown.starts_with("3:1: bridge.fail_mod: unknown field `fail_mod`, expected one of `name`"),
        "{unknown}"
    );
    let missing = problem("# a\n\n[[bridge]]\nfail_mode = 'secure'\n");
    assert!(missing.starts_with("3:1: bridge: missing field `name`"), "{missing}");
    let mode = problem("[[bridge]]\nname = 'br0'\nfail_mode = 'open'\n");
    assert!(
        mode.starts_with("3:13: bridge.fail_mode: unknown variant `open`, expected `secure` or `standalone`"),
        "{mode}"
    );
    let broken = problem("[daemon\n");
    assert!(broken.starts_with("1:"), "{broken}");
    let negative =
        problem("[[bridge]]\nname = 'b'\n[[bridge.port]]\nname = 'p'\ntype = 'memory'\nofport = -1\n");
    assert!(negative.starts_with("6:10: bridge.port.ofport: invalid value"), "{negative}");
}

#[test]
fn names_are_unique_and_well_formed() {
    assert_eq!(
        problem("[[bridge]]\nname = 'a'\n[[bridge]]\nname = 'a'\n"),
        "4:8: bridge.name: there is a bridge \"a\" already"
    );
    assert_eq!(
        problem("[[bridge]]\nname = '../x'\n"),
        "2:8: bridge.name: \"../x\" is not a name: 1 to 63 letters, digits, '-', '_', '.'"
    );
    let port = "[[bridge.port]]\nname = 'p'\ntype = 'memory'\n";
    assert_eq!(
        problem(&format!("[[bridge]]\nname = 'a'\n{port}{port}")),
        "7:8: bridge.port.name: bridge \"a\" has a port \"p\" already"
    );
    assert_eq!(
        problem(&format!("[[bridge]]\nname = 'a'\n{port}[[bridge]]\nname = 'b'\n{port}")),
        "9:8: bridge.port.name: bridge \"a\" has a port \"p\" already"
    );
    assert_eq!(
        problem("[[device]]\nname = 's'\ntype = 'sim'\n[[device]]\nname = 's'\ntype = 'sim'\n"),
        "5:8: device.name: there is a device \"s\" already"
    );
}

#[test]
fn addresses_and_ids_are_checked() {
    let b = |line: &str| problem(&format!("[[bridge]]\nname = 'a'\n{line}\n"));
    assert!(
        b("controllers = ['ptcp:1']")
            .starts_with("3:16: bridge.controllers: \"ptcp:1\" is not a stream name")
    );
    assert!(
        b("listen = [\n  'ptcp:',\n  'ptcp:x',\n]").starts_with("5:3: bridge.listen: "),
        "{}",
        b("listen = [\n  'ptcp:',\n  'ptcp:x',\n]")
    );
    assert!(b("datapath_id = '0'").starts_with("3:15: bridge.datapath_id: \"0\" is not a datapath id"));
    assert!(b("datapath_id = 'xyz'").contains("is not a datapath id"));
    assert_eq!(bridge("datapath_id = '00000000000000ff'").datapath_id, Some(255));
    assert!(
        problem("[[bridge]]\nname='a'\ndatapath_id='1'\n[[bridge]]\nname='b'\ndatapath_id='0x1'\n")
            .contains("bridge \"a\" has this datapath id already")
    );
}

#[test]
fn ports_have_the_keys_of_their_type() {
    let p = |lines: &str| problem(&format!("[[bridge]]\nname = 'a'\n[[bridge.port]]\nname = 'p'\n{lines}\n"));
    assert!(p("type = 'veth'").starts_with("5:8: bridge.port.type: unknown port type \"veth\""));
    assert!(
        p("type = 'af_packet'")
            .starts_with("3:1: bridge.port: port \"p\" of type \"af_packet\" needs an interface")
    );
    assert!(
        p("type = 'memory'\ninterface = 'x'")
            .starts_with("6:13: bridge.port.interface: a port of type \"memory\" has no key")
    );
    assert!(p("type = 'pcap'").contains("needs path, out or both"));
    assert!(
        p("type = 'pcap'\npath = 'no.pcap'")
            .starts_with("6:8: bridge.port.path: no such file: /etc/hoist/no.pcap")
    );
    assert!(p("type = 'tap'\ninterface = 'far-too-long-a-name'").contains("is not an interface name"));
    assert!(
        p("type = 'memory'\nofport = 0")
            .starts_with("6:10: bridge.port.ofport: 0 is not an OpenFlow port number")
    );
    assert!(p("type = 'sim'\ndevice = 'x'").contains("needs device and port"));
    assert!(
        p("type = 'sim'\ndevice = 'x'\nport = 0")
            .starts_with("6:10: bridge.port.device: unknown device \"x\" (known: none)")
    );
}

#[test]
fn nothing_is_given_out_twice() {
    let two = |a: &str, b: &str| {
        problem(&format!(
            "[[device]]\nname = 's'\ntype = 'sim'\n[[bridge]]\nname = 'a'\n[[bridge.port]]\nname = 'p'\n{a}\n[[bridge.port]]\nname = 'q'\n{b}\n"
        ))
    };
    assert!(
        two("type='memory'\nofport=3", "type='memory'\nofport=3").contains("port \"p\" has number 3 already")
    );
    assert!(
        two("type='af_packet'\ninterface='e'", "type='tap'\ninterface='e'")
            .contains("interface \"e\" is taken by port \"p\" already")
    );
    assert!(
        two("type='sim'\ndevice='s'\nport=1", "type='sim'\ndevice='s'\nport=1")
            .contains("port 1 of device \"s\" belongs to port \"p\" already")
    );
    assert!(
        two("type='memory'", "type='sim'\ndevice='s'\nport=4")
            .contains("port 4 is out of range: device \"s\" has ports 0 to 3")
    );
}

#[test]
fn devices_are_checked() {
    let d = |lines: &str| problem(&format!("[[device]]\nname = 's'\n{lines}\n"));
    assert!(d("type = 'asic'").starts_with("3:8: device.type: unknown device type \"asic\""));
    assert!(
        d("type = 'sim'\nwires = ['veth:x']").starts_with("4:10: device.wires: \"veth:x\" is not a wire")
    );
    assert!(
        d("type = 'sim'\nwires = ['none', 'none', 'none', 'none', 'none']")
            .contains("the device has 4 ports")
    );
    assert!(d("type = 'sim'\nprofile = 'nowhere.toml'").contains("no such file: /etc/hoist/nowhere.toml"));
    assert!(d("type = 'sim'\nwires = ['tap:a', 'af_packet:a']").contains("taken by wire 0 of device \"s\""));
}

#[test]
fn all_problems_are_reported_at_once() {
    let p = problems("[datapath]\nbuffers = 1\n[[bridge]]\nname = ''\ncontrollers = ['x']\n");
    assert_eq!(p.len(), 3, "{p:#?}");
    assert!(p[0].starts_with("/etc/hoist/switch.toml:2:11: datapath.buffers: want 256 to"), "{}", p[0]);
}

#[test]
fn a_missing_file_is_named() {
    let e = Config::load(Path::new("/nonexistent/x.toml")).unwrap_err().to_string();
    assert!(e.starts_with("/nonexistent/x.toml: No such file"), "{e}");
}
