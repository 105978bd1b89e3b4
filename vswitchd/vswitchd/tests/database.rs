//! The switch by its database, in the ways it can be run: an embedded server, a stock ovsdb-server with the switch under the
//! name `ovs-vswitchd`, and our own server beside it. Stock ovs-vsctl, ovs-ofctl and ovs-appctl do the talking, hosts in network
//! namespaces the traffic. Needs root; says so and is skipped otherwise.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::by_database::{Rig, Way};
use support::net::Net;
use support::{eventually, program, require};

fn tour(name: &str, way: Way) {
    let Some(net) = Net::with_hosts(name, 3) else { return };
    let mut r = Rig::start(&net, way);

    // As libvirt does it, and each command returns when the switch has done it.
    r.vsctl("add-br br0");
    for n in [1, 2] {
        r.vsctl(&format!(
            "-- --may-exist add-port br0 w{n} -- set Interface w{n} external-ids:attached-mac=52:54:00:00:00:0{n}"
        ));
        assert_eq!(r.vsctl(&format!("get Interface w{n} ofport")).trim(), n.to_string());
    }
    let show = r.ok("ovs-ofctl", &["-O", "OpenFlow13", "show", "br0"]);
    for port in ["1(w1)", "2(w2)", "LOCAL(br0)"] {
        assert!(show.contains(port), "{show}");
    }
    eventually("hosts ping: the bridge is a learning switch", || net.ping(1, "10.99.0.2").then_some(()));

    // An interface that is not there: ovs-vsctl tells, the row keeps the reason, everything else goes on.
    let told = r.tool("ovs-vsctl", &["--timeout=10", "add-port", "br0", "nosuch0"]);
    let words = "could not open network device nosuch0 (No such device)";
    assert!(
        format!("{told:?}").contains(words) || r.vsctl("get Interface nosuch0 error").contains(words),
        "{told:?}"
    );
    assert_eq!(r.vsctl("get Interface nosuch0 ofport").trim(), "-1");
    r.vsctl("del-port nosuch0");

    // VLANs: host 3 is in VLAN 7 with host 1, which host 2 is not.
    r.vsctl("add-port br0 w3 tag=7 -- set Interface w3 ofport_request=33");
    assert_eq!(r.vsctl("get Interface w3 ofport").trim(), "33");
    r.vsctl("set Port w1 tag=7");
    eventually("hosts of one VLAN ping", || net.ping(1, "10.99.0.3").then_some(()));
    assert!(!net.ping(2, "10.99.0.3"), "hosts of two do not");
    r.vsctl("clear Port w1 tag -- clear Port w3 tag");

    // Versions of OpenFlow, and a mirror of everything to host 3.
    r.vsctl("set Bridge br0 protocols=OpenFlow13,OpenFlow15");
    let versions = |v| r.tool("ovs-ofctl", &["-O", v, "show", "br0"]);
    assert!(versions("OpenFlow10").is_err() && versions("OpenFlow13").is_ok());
    r.vsctl("clear Bridge br0 protocols");
    assert!(versions("OpenFlow10").is_ok() && versions("OpenFlow14").is_ok());
    r.vsctl(
        "-- --id=@p get Port w3 -- --id=@m create Mirror name=m0 select-all=true output-port=@p \
         -- set Bridge br0 mirrors=@m",
    );
    assert!(net.ping(1, "10.99.0.2"));
    eventually("the mirror counts", || {
        let s = r.vsctl("get Mirror m0 statistics");
        (s.contains("tx_bytes=") && !s.contains("tx_packets=0}")).then_some(())
    });
    r.vsctl("clear Bridge br0 mirrors");

    // The host itself, by its internal port.
    net.ip(&["addr", "add", "10.99.0.100/24", "dev", "br0"]);
    net.ip(&["link", "set", "br0", "up"]);
    eventually("the host pings", || net.ping(0, "10.99.0.1").then_some(()));

    // What people read.
    let text = |column: &str| r.vsctl(&format!("get Interface w1 {column}")).trim().to_owned();
    assert_eq!((text("admin_state"), text("error")), ("up".into(), "[]".into()));
    assert_ne!((text("mac_in_use"), text("ifindex")), ("[]".into(), "[]".into()));
    assert_eq!(text("mtu"), "1500");
    assert!(text("status").contains("driver_name=veth"));
    eventually("statistics come", || {
        (!text("statistics").starts_with("{}") && !text("statistics").contains("rx_packets=0")).then_some(())
    });
    let id = r.vsctl("get Bridge br0 datapath_id");
    assert!(id.trim().trim_matches('"').len() == 16, "{id}");
    let cfg = r.vsctl("get Open_vSwitch . cur_cfg next_cfg");
    let mut both = cfg.lines();
    assert_eq!(both.next(), both.next(), "{cfg}");
    assert!(r.vsctl("get Open_vSwitch . iface_types").contains("internal"));
    assert!(
        r.ok("ovs-appctl", &["-t", r.target(), "hoist/status"]).contains("\"configuration\":\"database ")
    );

    // Bridges: settings at run time, a patch between two, the end of one.
    r.vsctl("set-fail-mode br0 secure");
    let flows = || r.ok("ovs-ofctl", &["-O", "OpenFlow13", "dump-flows", "br0"]);
    assert!(!flows().contains("NORMAL"), "{}", flows());
    r.vsctl("del-fail-mode br0");
    assert!(flows().contains("NORMAL"), "{}", flows());
    // An id that changes leaves the flows; OpenFlow tells it to whoever connects.
    r.ok("ovs-ofctl", &["add-flow", "br0", "priority=77,in_port=99,actions=drop"]);
    r.vsctl("set Bridge br0 other-config:datapath-id=00000000000000bb");
    assert_eq!(r.vsctl("get Bridge br0 datapath_id").trim(), "\"00000000000000bb\"");
    assert!(r.ok("ovs-ofctl", &["show", "br0"]).contains("dpid:00000000000000bb"));
    assert!(flows().contains("priority=77"), "{}", flows());
    let memory = r.ok("ovs-appctl", &["-t", r.target(), "memory/show"]);
    assert!(memory.contains("ports:4 rules:") && memory.contains("ofconns:"), "{memory}");
    assert_eq!(memory.contains("cells:"), way == Way::Embedded, "{memory}");
    r.vsctl("add-br br1 -- set Bridge br1 other-config:datapath-id=00000000000000aa");
    assert_eq!(r.vsctl("get Bridge br1 datapath_id").trim(), "\"00000000000000aa\"");
    r.vsctl("set Bridge br1 other-config:hwaddr=aa:55:aa:55:00:01");
    assert_eq!(r.vsctl("get Interface br1 mac_in_use").trim(), "\"aa:55:aa:55:00:01\"");
    r.vsctl(
        "-- del-port w3 -- add-port br1 w3 \
         -- add-port br0 to1 -- set Interface to1 type=patch options:peer=to0 \
         -- add-port br1 to0 -- set Interface to0 type=patch options:peer=to1",
    );
    eventually("hosts ping across the patch", || net.ping(1, "10.99.0.3").then_some(()));
    assert_eq!(r.vsctl("get Interface to1 admin_state link_state"), "up\nup\n");
    r.vsctl("set-controller br1 tcp:127.0.0.1:1 -- set-fail-mode br1 secure");
    let status = || r.vsctl("get Controller br1 is_connected");
    assert_eq!(status().trim(), "false");
    eventually("the controller's status", || {
        r.vsctl("get Controller br1 status").contains("state=BACKOFF").then_some(())
    });
    let times = r.ok("ovs-appctl", &["-t", r.target(), "coverage/read-counter", "bridge_reconfigure"]);
    assert!(times.trim().parse::<u64>().unwrap() > 5, "{times}");
    r.vsctl("del-br br1");
    assert!(!r.path("br1.mgmt").exists());
    assert_eq!(r.vsctl("list-br").trim(), "br0");

    // The server goes and comes; the switch forwards on, and takes up what came meanwhile.
    if let Some(mut server) = r.server.take() {
        let _ = server.kill();
        let _ = server.wait();
        let _ = std::fs::remove_file(r.path("db.sock"));
        assert!(net.ping(1, "10.99.0.2"), "it forwards without its database");
        r.start_server();
    }
    r.vsctl("add-port br0 tap1 -- set Interface tap1 type=tap");
    assert!(r.vsctl("list-ports br0").contains("tap1"));

    // The switch goes and comes: the configuration is the database's.
    r.stop_switch();
    r.start_switch();
    eventually("hosts ping again", || net.ping(1, "10.99.0.2").then_some(()));
    assert!(!r.log().contains("|ERR|"), "{}", r.log());
    r.stop_switch();
}

#[test]
fn an_embedded_database_configures_the_switch() {
    tour("emb", Way::Embedded);
}

#[test]
fn a_stock_server_configures_the_switch_under_its_stock_name() {
    require("ovsdb-tool");
    tour("stk", Way::Stock);
}

#[test]
fn our_server_configures_the_switch() {
    require("ovsdb-tool");
    tour("our", Way::Ours);
}

#[test]
fn a_file_and_a_database_exclude_each_other() {
    let o = Command::new(program("vswitchd"))
        .args(["--config", "x.toml", "--db", "unix:db.sock"])
        .output()
        .unwrap();
    assert_eq!(o.status.code(), Some(2));
    let words = String::from_utf8_lossy(&o.stderr).into_owned();
    assert!(words.contains("--config") && words.contains("cannot be used with"), "{words}");
}
