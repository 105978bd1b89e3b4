//! Ports on real interfaces, in network namespaces of this test's own: packet sockets and a TAP, the kernel's own IP at
//! both ends, the simulated NIC between them. Needs root; says so and is skipped otherwise.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::net::{Net, ip};
use support::{DEADLINE, eventually, program};

/// A vswitchd in namespace 0. Killed when dropped.
struct Switch {
    child: std::process::Child,
    dir: tempfile::TempDir,
}

impl Switch {
    fn start(ns: &Net, config: &str) -> Switch {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("switch.toml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &ns.names[0]])
            .arg(program("vswitchd"))
            .arg("--config")
            .arg(&file)
            .arg("--run-dir")
            .arg(dir.path())
            .stderr(std::fs::File::create(dir.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let s = Switch { child, dir };
        eventually("the switch answers", || s.tool("ovs-appctl", &["-t", "vswitchd", "version"]).ok());
        s
    }

    fn tool(&self, program: &str, args: &[&str]) -> Result<String, String> {
        let o = Command::new(program).args(args).env("OVS_RUNDIR", self.dir.path()).output().unwrap();
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        if o.status.success() { Ok(text(&o.stdout)) } else { Err(text(&o.stderr)) }
    }

    fn add_flow(&self, flow: &str) {
        self.tool("ovs-ofctl", &["-O", "OpenFlow13", "add-flow", "br0", flow]).unwrap();
    }

    fn child_pid(&self) -> String {
        // What was started is `ip netns exec`, which has become the switch.
        self.child.id().to_string()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn packet_sockets_and_a_tap_carry_pings() {
    let Some(ns) = Net::create("io", 2) else { return };
    ns.host(1);
    ns.host(2);
    let s = Switch::start(
        &ns,
        "[[bridge]]\nname = 'br0'\nfail_mode = 'standalone'\n\
         [[bridge.port]]\nname = 'w1'\ntype = 'af_packet'\ninterface = 'w1'\n\
         [[bridge.port]]\nname = 'w2'\ntype = 'af_packet'\ninterface = 'w2'\n\
         [[bridge.port]]\nname = 'tap9'\ntype = 'tap'\n",
    );
    eventually("hosts ping through packet sockets", || ns.ping(1, "10.99.0.2").then_some(()));
    ns.ip(&["addr", "add", "10.99.0.9/24", "dev", "tap9"]);
    eventually("the switch's own host pings through its TAP", || ns.ping(0, "10.99.0.2").then_some(()));
    let macs = s.tool("ovs-appctl", &["-t", "vswitchd", "fdb/show", "br0"]).unwrap();
    assert!(macs.lines().count() >= 4, "three stations are learned: {macs}\n{}", s.log());
}

#[test]
fn af_xdp_carries_pings_between_ports_and_from_a_wire_of_the_nic() {
    let Some(ns) = Net::create("xdp", 3) else { return };
    for n in 1..=3 {
        ns.host(n);
        // A frame taken by AF_XDP says nothing of what the sender left to be done.
        let o = ns
            .inside(n, &["ethtool", "-K", "eth0", "tx", "off", "tso", "off", "gso", "off", "txvlan", "off"]);
        assert!(o.status.success(), "ethtool: {}", String::from_utf8_lossy(&o.stderr));
    }
    let s = Switch::start(
        &ns,
        "[[device]]\nname = 'sim0'\ntype = 'sim'\nwires = ['af_xdp:w3']\n\
         [[bridge]]\nname = 'br0'\nfail_mode = 'standalone'\n\
         [[bridge.port]]\nname = 'w1'\ntype = 'af_xdp'\ninterface = 'w1'\n\
         [[bridge.port]]\nname = 'w2'\ntype = 'af_xdp'\ninterface = 'w2'\nmode = 'generic'\n\
         [[bridge.port]]\nname = 'p3'\ntype = 'sim'\ndevice = 'sim0'\nport = 0\n",
    );
    eventually("hosts ping through AF_XDP", || ns.ping(1, "10.99.0.2").then_some(()));
    eventually("a host pings one behind the NIC", || ns.ping(1, "10.99.0.3").then_some(()));
    let status = s.tool("ovs-appctl", &["-t", "vswitchd", "hoist/status"]).unwrap();
    assert!(!status.contains("PROBLEM"), "{status}\n{}", s.log());
}

#[test]
fn tcp_between_kernels_goes_through_the_nic() {
    let Some(ns) = Net::create("nic", 2) else { return };
    ns.host(1);
    ns.host(2);
    let s = Switch::start(
        &ns,
        "[[device]]\nname = 'sim0'\ntype = 'sim'\nwires = ['af_packet:w1', 'af_packet:w2']\n\
         [[bridge]]\nname = 'br0'\n\
         [[bridge.port]]\nname = 'p1'\ntype = 'sim'\ndevice = 'sim0'\nport = 0\n\
         [[bridge.port]]\nname = 'p2'\ntype = 'sim'\ndevice = 'sim0'\nport = 1\n",
    );
    s.add_flow("in_port=1,actions=2");
    s.add_flow("in_port=2,actions=1");
    eventually("hosts ping through the NIC", || ns.ping(1, "10.99.0.2").then_some(()));
    // The hosts' kernels leave checksums to the hardware, as they do by default, but not segmentation: a wire carries frames.
    for n in [1, 2] {
        let o = ns.inside(n, &["ethtool", "-K", "eth0", "tso", "off", "gso", "off"]);
        assert!(o.status.success(), "ethtool: {}", String::from_utf8_lossy(&o.stderr));
    }
    let server = "import socket\nl=socket.create_server(('10.99.0.2',5001));a,_=l.accept();n=0\n\
                  while b:=a.recv(65536): n+=len(b)\nprint(n)";
    let client = "import socket,time\n\
                  for i in range(100):\n\
                  \x20 try: s=socket.create_connection(('10.99.0.2',5001),5);break\n\
                  \x20 except ConnectionRefusedError: time.sleep(0.05)\n\
                  s.sendall(bytes(300000));s.shutdown(1);s.recv(1)";
    let listening = Command::new("ip")
        .args(["netns", "exec", &ns.names[2], "timeout", "20", "python3", "-c", server])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let sent = ns.inside(1, &["timeout", &DEADLINE.as_secs().to_string(), "python3", "-c", client]);
    assert!(sent.status.success(), "{}\n{}", String::from_utf8_lossy(&sent.stderr), s.log());
    let got = listening.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&got.stdout).trim(), "300000");
    eventually("the flows are in the NIC", || {
        let dump = s.tool("ovs-appctl", &["-t", "vswitchd", "dpctl/dump-flows", "type=offloaded"]).ok()?;
        dump.contains("offloaded:yes, dp:sim0").then_some(())
    });
}

#[test]
fn an_interface_that_is_missing_is_named_and_attached_when_it_comes_again_and_again() {
    let Some(ns) = Net::create("miss", 2) else { return };
    ns.host(1);
    let port = |n: &str| format!("[[bridge.port]]\nname = '{n}'\ntype = 'af_packet'\ninterface = '{n}'\n");
    let s = Switch::start(
        &ns,
        &format!("[[bridge]]\nname = 'br0'\nfail_mode = 'standalone'\n{}{}", port("w1"), port("w2")),
    );
    let words = "bridge br0: port w2: could not open network device w2 (No such device)";
    assert!(s.log().contains(words), "{}", s.log());
    let status = s.tool("ovs-appctl", &["-t", "vswitchd", "hoist/status"]).unwrap();
    assert!(status.contains("could not open network device w2 (No such device)"), "{status}");
    for _ in 0..2 {
        ns.host(2);
        // It has another address than last time.
        ip(&["-n", &ns.names[1], "neigh", "flush", "all"]);
        eventually("hosts ping", || ns.ping(1, "10.99.0.2").then_some(()));
        let ports = s.tool("ovs-ofctl", &["-O", "OpenFlow13", "show", "br0"]).unwrap();
        assert!(ports.contains(" 2(w2): "), "the number stays: {ports}");
        ns.ip(&["link", "del", "w2"]);
        eventually("the port goes", || {
            let ports = s.tool("ovs-ofctl", &["-O", "OpenFlow13", "show", "br0"]).ok()?;
            (!ports.contains("(w2)")).then_some(())
        });
    }
    assert!(!s.log().contains("|ERR|"), "{}", s.log());
}

#[test]
fn a_file_read_again_changes_bridges_ports_and_sockets_of_a_switch_that_forwards() {
    let Some(ns) = Net::create("reload", 3) else { return };
    for n in 1..=3 {
        ns.host(n);
    }
    let port = |n: &str, more: &str| {
        format!("[[bridge.port]]\nname = '{n}'\ntype = 'af_packet'\ninterface = '{n}'\n{more}")
    };
    let device = "[[device]]\nname = 'sim0'\ntype = 'sim'\nwires = ['af_packet:w3']\n";
    let nic = "[[bridge.port]]\nname = 'nic3'\ntype = 'sim'\ndevice = 'sim0'\nport = 0\n";
    let bridge = |settings: &str| format!("[[bridge]]\nname = 'br0'\n{settings}");
    let first =
        format!("{}{}{}", bridge("fail_mode = 'standalone'\n"), port("w1", ""), port("w2", "ofport = 7\n"));
    let s = Switch::start(&ns, &first);
    let show = || s.tool("ovs-ofctl", &["-O", "OpenFlow13", "show", "br0"]).unwrap_or_default();
    let reload = |text: &str| {
        std::fs::write(s.dir.path().join("switch.toml"), text).unwrap();
        s.tool("ovs-appctl", &["-t", "vswitchd", "hoist/reload"]).map(|_| ())
    };
    eventually("hosts 1 and 2 ping", || ns.ping(1, "10.99.0.2").then_some(()));
    s.add_flow("table=5,priority=3,actions=drop");

    // A device starts, its port and a TAP join, a second bridge with a socket of its own comes.
    let more = format!(
        "{device}{first}{nic}[[bridge.port]]\nname = 'int0'\ntype = 'internal'\n\
         [[bridge]]\nname = 'br1'\nlocal = 'tap'\nlisten = ['punix:other.sock']\n"
    );
    reload(&more).unwrap();
    eventually("hosts 1 and 3 ping through the NIC's wire", || ns.ping(1, "10.99.0.3").then_some(()));
    assert!(show().contains(" 7(w2): ") && show().contains(" 1(w1): "), "numbers stay: {}", show());
    let flows = s.tool("ovs-ofctl", &["-O", "OpenFlow13", "dump-flows", "br0", "table=5"]).unwrap();
    assert!(flows.contains("priority=3 actions=drop"), "flows stay: {flows}");
    let taps = ns.ip(&["-br", "link"]);
    for tap in ["int0", "br1"] {
        assert!(
            taps.lines().any(|l| l.starts_with(tap) && l.contains("DOWN")),
            "{tap} is the host's to bring up: {taps}"
        );
    }
    let other = format!("unix:{}", s.dir.path().join("other.sock").display());
    eventually("the second bridge listens", || {
        s.tool("ovs-ofctl", &["-O", "OpenFlow13", "show", &other]).ok()
    });
    // LOCAL is the host's.
    let up = |n: &str| ns.ip(&["link", "set", n, "up"]);
    up("int0");
    ns.ip(&["addr", "add", "10.99.0.100/24", "dev", "int0"]);
    eventually("the host pings through its internal port", || ns.ping(0, "10.99.0.1").then_some(()));
    up("br1");
    eventually("OpenFlow sees LOCAL up", || {
        let ports = s.tool("ovs-ofctl", &["-O", "OpenFlow13", "show", "br1"]).ok()?;
        (ports.contains("LOCAL(br1)") && !ports.contains("PORT_DOWN")).then_some(())
    });

    // A wrong file changes nothing.
    let wrong = reload("[[bridge]]\nname = 'br0'\nports = 3\n").unwrap_err();
    assert!(wrong.contains("switch.toml:3:") && show().contains("(w2)"), "{wrong}");

    // The device, a port and the second bridge go; by signal this time. What was in the NIC is forwarded by nobody else.
    std::fs::write(
        s.dir.path().join("switch.toml"),
        format!("{}{}", bridge("fail_mode = 'secure'\n"), port("w1", "")),
    )
    .unwrap();
    assert!(Command::new("kill").args(["-HUP", &s.child_pid()]).status().unwrap().success());
    eventually("the second bridge's sockets are closed", || {
        (!s.dir.path().join("br1.mgmt").exists()).then_some(())
    });
    eventually("ports have gone", || {
        let all = show();
        (all.contains("(w1)") && !all.contains("(w2)") && !all.contains("(nic3)")).then_some(())
    });
    eventually("the flow of fail mode standalone goes, others stay", || {
        let flows = s.tool("ovs-ofctl", &["-O", "OpenFlow13", "dump-flows", "br0"]).ok()?;
        (!flows.contains("NORMAL") && flows.contains("table=5")).then_some(())
    });
    eventually("no record is left that sends to what has gone", || {
        let dump = s.tool("ovs-appctl", &["-t", "vswitchd", "dpctl/dump-flows"]).ok()?;
        dump.lines().filter(|l| l.contains("in_port(")).all(|l| l.ends_with("actions:drop")).then_some(())
    });
    let left = ns.ip(&["-br", "link"]);
    assert!(!left.contains("int0") && !left.contains("br1"), "{left}");
    let devices = s.tool("ovs-appctl", &["-t", "vswitchd", "hoist/devices"]).unwrap();
    assert_eq!(devices.trim(), "[]");

    // And back.
    reload(&more).unwrap();
    ip(&["-n", &ns.names[1], "neigh", "flush", "all"]);
    eventually("hosts 1 and 3 ping again", || ns.ping(1, "10.99.0.3").then_some(()));
    assert!(show().contains(" 7(w2): "), "{}", show());
    assert!(!s.log().contains("|ERR|"), "{}", s.log());
}
