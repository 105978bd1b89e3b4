//! Columns that say how the switch is to be, beside which ports it has, and those that tell how it is: an embedded database,
//! stock ovs-vsctl, a controller that is this test. Needs root; says so and is skipped otherwise.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use support::by_database::{Rig, Way};
use support::eventually;
use support::net::Net;

/// The other end of a connection of the switch to a controller, which has said its hello.
fn accept(listener: &UnixListener) -> UnixStream {
    let (mut s, _) = eventually("the switch connects", || listener.accept().ok());
    s.set_nonblocking(false).unwrap();
    s.set_read_timeout(Some(support::DEADLINE)).unwrap();
    s.write_all(&[4, 0, 0, 8, 0, 0, 0, 1]).unwrap();
    s
}

/// The type of the next message (OpenFlow 1.3.5 7.1); `None` at the end of the stream.
fn next_type(s: &mut UnixStream) -> Option<u8> {
    let mut header = [0; 8];
    s.read_exact(&mut header).ok()?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let mut rest = vec![0; length - 8];
    s.read_exact(&mut rest).ok()?;
    Some(header[1])
}

#[test]
fn a_controller_is_treated_as_its_row_says_while_it_is_connected() {
    let Some(net) = Net::create("ctl", 0) else { return };
    let r = Rig::start(&net, Way::Embedded);
    let socket = r.path("controller");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    r.vsctl(&format!("add-br br0 -- set-controller br0 unix:{}", socket.display()));
    let mut s = accept(&listener);
    let get = |column: &str| r.vsctl(&format!("get Controller br0 {column}")).trim().to_owned();
    eventually("the row tells that it is connected", || (get("is_connected") == "true").then_some(()));
    eventually("and how", || {
        let status = get("status");
        (status.contains("state=ACTIVE") && status.contains("sec_since_connect=")).then_some(())
    });
    assert_eq!(get("role"), "other");

    // Probed after the time that is configured now, on the connection that is there, and given up after as long again.
    r.vsctl("set Controller br0 inactivity_probe=1000 max_backoff=1000");
    let began = Instant::now();
    let mut types = Vec::new();
    while let Some(t) = next_type(&mut s) {
        types.push(t);
    }
    let lasted = began.elapsed();
    assert_eq!(types, [0, 2], "a hello, and an echo request");
    assert!(Duration::from_millis(900) < lasted && lasted < Duration::from_secs(8), "{lasted:?}");

    // Without a probe it may be as silent as it likes.
    r.vsctl("set Controller br0 inactivity_probe=0");
    let mut s = accept(&listener);
    assert_eq!(next_type(&mut s), Some(0));
    s.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    assert!(s.read_exact(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));

    // One that is gone is looked for each second at least; why it is not there stays in the row.
    drop((s, listener));
    std::fs::remove_file(&socket).unwrap();
    eventually("the row tells why", || {
        let status = get("status");
        let all = ["state=BACKOFF", "sec_since_disconnect=", "last_error=\"No such file or directory\""];
        all.iter().all(|w| status.contains(w)).then_some(())
    });
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let began = Instant::now();
    accept(&listener);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn packet_ins_come_no_faster_than_a_controllers_row_allows() {
    let Some(net) = Net::with_hosts("rate", 2) else { return };
    let r = Rig::start(&net, Way::Embedded);
    let socket = r.path("controller");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    r.vsctl(&format!(
        "add-br br0 -- set-fail-mode br0 secure -- add-port br0 w1 -- set-controller br0 unix:{} \
         -- set Controller br0 controller_rate_limit=100 controller_burst_limit=25",
        socket.display()
    ));
    let mut s = accept(&listener);
    r.ok("ovs-ofctl", &["add-flow", "br0", "in_port=w1,icmp,actions=controller"]);
    // More at once than the burst.
    net.inside(1, &["ip", "neigh", "add", "10.99.0.77", "lladdr", "02:00:00:00:00:77", "dev", "eth0"]);
    net.inside(1, &["ping", "-n", "-q", "-l", "90", "-c", "90", "-W", "1", "10.99.0.77"]);
    s.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut packets = 0;
    while let Some(t) = next_type(&mut s) {
        packets += usize::from(t == 10);
    }
    assert!((20..80).contains(&packets), "{packets} packet-ins of 90 packets");
}

#[test]
fn interfaces_get_the_mtu_and_the_address_that_their_rows_ask_for() {
    let Some(net) = Net::with_hosts("mtu", 1) else { return };
    let r = Rig::start(&net, Way::Embedded);
    r.vsctl(
        "add-br br0 -- add-port br0 w1 -- add-port br0 in0 \
         -- set Interface in0 type=internal mac=\"02:00:00:00:0a:01\" mtu_request=1300",
    );
    let link = |name: &str| net.ip(&["link", "show", name]);
    assert!(link("in0").contains("mtu 1300") && link("in0").contains("02:00:00:00:0a:01"), "{}", link("in0"));
    let get = |what: &str| r.vsctl(&format!("get Interface {what}")).trim().to_owned();
    assert_eq!((get("in0 mtu"), get("in0 mac_in_use")), ("1300".into(), "\"02:00:00:00:0a:01\"".into()));
    r.vsctl("set Interface w1 mtu_request=1400 -- set Interface br0 mtu_request=1450");
    for (name, mtu) in [("w1", "1400"), ("br0", "1450")] {
        assert!(link(name).contains(&format!("mtu {mtu}")), "{}", link(name));
        assert_eq!(get(&format!("{name} mtu")), mtu);
    }
    // What cannot be is said, and the port is there.
    r.vsctl("set Interface w1 mtu_request=9000");
    assert_eq!(get("w1 ofport"), "2");
    eventually("the log says so", || r.log().contains("interface w1: cannot set MTU 9000").then_some(()));
    let status = get("w1 status");
    for key in ["driver_name=veth", "driver_version=", "firmware_version="] {
        assert!(status.contains(key), "{status}");
    }
    r.vsctl("set Interface br0 mac=\"02:00:00:00:0a:02\"");
    assert!(r.log().contains("use Bridge record to set local port's mac"), "{}", r.log());
}

#[test]
fn what_is_not_implemented_is_said_once_and_the_rest_goes_on() {
    let Some(net) = Net::with_hosts("not", 1) else { return };
    let r = Rig::start(&net, Way::Embedded);
    r.vsctl("add-br br0 -- add-port br0 w1");
    r.vsctl("set Port w1 qos=@q -- --id=@q create QoS type=linux-htb");
    r.vsctl("set Interface w1 ingress_policing_rate=1000");
    let mut line = "--".to_owned();
    let names: Vec<String> = (0..40).map(|n| format!("@m{n}")).collect();
    for (n, id) in names.iter().enumerate() {
        line += &format!(" --id={id} create Mirror name=m{n} output_vlan=7 --");
    }
    r.vsctl(&format!("{line} set Bridge br0 mirrors={}", names.join(",")));
    r.vsctl("set Bridge br0 other-config:forward-bpdu=true");
    let log = r.log();
    for words in [
        "port w1: QoS type linux-htb is not implemented",
        "interface w1: ingress policing is not implemented",
        "bridge br0: 40 mirrors are configured, and 32 is the most that there can be",
    ] {
        assert_eq!(log.matches(words).count(), 1, "{words}\n{log}");
    }
    assert_eq!(r.vsctl("get Interface w1 ofport").trim(), "1");
}

#[test]
fn a_row_of_a_datapath_gets_its_capabilities_and_version() {
    let Some(net) = Net::create("dp", 0) else { return };
    let r = Rig::start(&net, Way::Embedded);
    r.vsctl("add-br br0");
    r.vsctl("-- --id=@d create Datapath datapath_version=0 -- set Open_vSwitch . datapaths:netdev=@d");
    let caps = r.vsctl("list-dp-cap netdev");
    for cap in ["recirc=true", "max_vlan_headers=2", "lb_output_action=true"] {
        assert!(caps.contains(cap), "{caps}");
    }
    let version = r.vsctl("get Bridge br0 datapath_version");
    assert!(version.contains("Hoist"), "{version}");
    assert!(r.vsctl("list Datapath").contains(version.trim()));
    for (column, word) in [("iface_types", "internal"), ("datapath_types", "netdev"), ("db_version", "8.")] {
        let got = r.vsctl(&format!("get Open_vSwitch . {column}"));
        assert!(got.contains(word), "{column}: {got}");
    }
}
