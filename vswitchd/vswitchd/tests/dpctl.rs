//! Datapaths, their ports and what they are done with, by the words of stock ovs-appctl; the texts are those that Open vSwitch 3.1.0
//! prints for the same commands.

#![allow(clippy::unwrap_used)]

mod support;

use support::dummy::Rig;
use support::eventually;

const FLOW: &str = "in_port(5),eth(src=00:00:00:00:00:01,dst=00:00:00:00:00:02),eth_type(0x1234)";

/// What a command that fails says, without what ovs-appctl adds.
fn refused(r: &Rig, line: &str) -> String {
    let e = r.tool(&format!("ovs-appctl {line}")).unwrap_err();
    e.lines().filter(|l| !l.ends_with("server returned an error")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_datapath_of_no_bridge_is_made_forwards_by_its_flows_and_is_taken_away() {
    let r = Rig::start();
    r.appctl("dpctl/add-dp dummy@dp0");
    assert_eq!(refused(&r, "dpctl/add-dp dummy@dp0"), "ovs-vswitchd: add_dp (File exists)");
    let odd = "ovs-vswitchd: add_dp (Address family not supported by protocol)";
    assert_eq!(refused(&r, "dpctl/add-dp odd@dp0"), odd);
    r.appctl("dpctl/add-if dummy@dp0 vif1.0,type=dummy,port_no=5 v6,type=dummy");
    let again = refused(&r, "dpctl/add-if dummy@dp0 vif1.0,type=dummy");
    assert_eq!(again, "ovs-vswitchd: adding vif1.0 to dummy@dp0 failed (File exists)");
    let odd = refused(&r, "dpctl/add-if dummy@dp0 vif2.0,type=odd");
    let words =
        "ovs-vswitchd: vif2.0: failed to open network device (Address family not supported by protocol)";
    assert_eq!(odd, words);
    let ports = "  port 0: dp0 (dummy-internal)\n  port 5: vif1.0 (dummy)\n  port 6: v6 (dummy)\n".to_owned();
    let shown = |hit: u32, missed: u32, flows: u32| {
        format!("dummy@dp0:\n  lookups: hit:{hit} missed:{missed} lost:{missed}\n  flows: {flows}\n{ports}")
    };
    assert_eq!(r.appctl("dpctl/show dummy@dp0"), shown(0, 0, 0));
    assert_eq!(r.appctl("dpctl/dump-dps"), "dummy@dp0\ndummy@ovs-dummy\n");

    let frame = "000000000002000000000001 1234".replace(' ', "") + &"00".repeat(46);
    r.appctl(&format!("netdev-dummy/receive vif1.0 {frame}"));
    eventually("what no flow is for is lost", || {
        (r.appctl("dpctl/show dummy@dp0") == shown(0, 1, 0)).then_some(())
    });
    r.appctl(&format!("dpctl/add-flow dummy@dp0 {FLOW} 6"));
    let exists = refused(&r, &format!("dpctl/add-flow dummy@dp0 {FLOW} 6"));
    assert_eq!(exists, "ovs-vswitchd: updating flow table (File exists)");
    r.appctl(&format!("netdev-dummy/receive vif1.0 {frame}"));
    eventually("the flow forwards", || {
        let s = r.appctl("dpctl/show -s dummy@dp0");
        let out = s.split("port 6: ").nth(1)?;
        out.contains("TX packets:1 errors:? dropped:? aborted:? carrier:?").then_some(())
    });
    let dump = r.appctl("dpctl/dump-flows dummy@dp0");
    let line = format!("flow-dump from the main thread:\nrecirc_id(0),{FLOW}, packets:1, bytes:60, used:");
    assert!(dump.starts_with(&line) && dump.ends_with("actions:6\n"), "{dump}");
    assert!(!r.appctl("dpctl/dump-flows").contains("0x1234"), "the bridges' own has none of it");
    r.appctl(&format!("dpctl/mod-flow dummy@dp0 {FLOW} 0"));
    assert!(r.appctl("dpctl/dump-flows dummy@dp0").contains("actions:0\n"));
    r.appctl("dpctl/del-flows dummy@dp0");
    assert_eq!(r.appctl("dpctl/dump-flows dummy@dp0"), "");

    let own = refused(&r, "dpctl/del-if dummy@dp0 dp0");
    assert_eq!(own, "ovs-vswitchd: deleting port dp0 from dummy@dp0 failed (Invalid argument)");
    r.appctl("dpctl/del-if dummy@dp0 vif1.0");
    assert_eq!(refused(&r, "dpctl/del-if dummy@dp0 vif1.0"), "ovs-vswitchd: no port named vif1.0");
    r.appctl("dpctl/del-dp dummy@dp0");
    let gone = "ovs-vswitchd: opening datapath (No such device)";
    assert_eq!(refused(&r, "dpctl/del-dp dummy@dp0"), gone);
    assert_eq!(refused(&r, "dpctl/del-dp dummy@ovs-dummy"), "ovs-vswitchd: del_dp (Device or resource busy)");
    assert!(refused(&r, &format!("netdev-dummy/receive vif1.0 {frame}")).contains("no such dummy netdev"));
}

#[test]
fn an_interface_keeps_its_type_and_number_and_takes_options() {
    let r = Rig::start();
    r.appctl("dpctl/add-dp dummy@dp0 v1,type=dummy v2,type=dummy-pmd");
    r.appctl("dpctl/set-if dummy@dp0 v1,port_no=1,type=dummy");
    let refused = |line: &str| refused(&r, line);
    let kind = "ovs-vswitchd: v1: can't change type from dummy to system";
    assert_eq!(refused("dpctl/set-if dummy@dp0 v1,type=system"), kind);
    let number = "ovs-vswitchd: v1: can't change port number from 1 to 6";
    assert_eq!(refused("dpctl/set-if dummy@dp0 v1,port_no=6"), number);
    let unknown = "ovs-vswitchd: v9: failed to query port in dummy@dp0 (No such device)";
    assert_eq!(refused("dpctl/set-if dummy@dp0 v9,port_no=6"), unknown);
    let file = r.dir.path().join("v1.pcap");
    r.appctl(&format!("dpctl/set-if dummy@dp0 v1,pcap={}", file.display()));
    assert!(file.exists(), "what it receives and sends is captured");
    // One that polls is told of with its thread.
    let queues = r.appctl("dpif-netdev/pmd-rxq-show dp0");
    assert!(queues.contains("  port: v2                queue-id:  0 (enabled)   pmd usage: NOT AVAIL\n"));
    r.appctl("dpctl/add-flow dummy@dp0 in_port(1),eth_type(0x1234) 2");
    let of = |what: &str| r.appctl(&format!("dpctl/dump-flows dummy@dp0 {what}")).lines().count();
    assert_eq!([of(""), of("pmd=-1"), of("pmd=0"), of("pmd=1")], [4, 1, 1, 0]);
    // What the bridges' own has is the bridges' to say.
    let e = refused("dpctl/add-if dummy@ovs-dummy x3,type=dummy");
    assert_eq!(e, "ovs-vswitchd: adding x3 to dummy@ovs-dummy failed (Operation not permitted)");
}

#[test]
fn actions_are_read_and_written_and_commands_listed() {
    let r = Rig::start();
    assert_eq!(
        r.appctl("dpctl/parse-actions push_vlan(vid=1,pcp=0),2 drop"),
        "push_vlan(vid=1,pcp=0),2\ndrop\n"
    );
    let e = refused(&r, "dpctl/parse-actions odd");
    assert_eq!(e, "ovs-vswitchd: odp_actions_from_string (Invalid argument)");
    let all = r.appctl("dpctl/list-commands");
    assert!(all.lines().skip(1).all(|l| l.starts_with("  dpctl/")) && all.contains("dpctl/set-if"), "{all}");
}

#[test]
fn a_dummy_gets_another_number_and_packets_follow() {
    let r = Rig::start();
    r.run("ovs-ofctl add-flow br0 in_port=LOCAL,actions=1");
    let trace = || {
        let t = r.appctl("ofproto/trace br0 in_port=LOCAL,dl_src=10:20:30:40:50:60");
        t.lines().last().unwrap_or_default().to_owned()
    };
    assert_eq!(trace(), "Datapath actions: 1");
    let refused = |args: &str| refused(&r, &format!("dpif-dummy/change-port-number {args}"));
    assert_eq!(refused("odd p1 5"), "unknown datapath or not a dummy");
    assert_eq!(refused("ovs-dummy p1 x"), "bad port number");
    assert_eq!(refused("ovs-dummy p1 7"), "port number already in use");
    assert_eq!(refused("ovs-dummy p9 5"), "unknown port");
    r.appctl("dpif-dummy/change-port-number ovs-dummy p1 5");
    assert_eq!(trace(), "Datapath actions: 5");
    assert!(r.appctl("dpif/show").contains("    p1 1/5: (dummy)\n"));
    // It keeps it while it is configured, and not longer.
    r.run("ovs-vsctl set Interface p1 options:n_rxq=1 -- set Bridge br0 other_config:x=y");
    assert_eq!(trace(), "Datapath actions: 5");
    r.run("ovs-vsctl del-port p1 -- add-port br0 p3 -- set Interface p3 type=dummy");
    r.run("ovs-vsctl add-port br0 p1 -- set Interface p1 type=dummy");
    let shown = r.appctl("dpif/show");
    assert!(shown.contains("/1: (dummy)") && !shown.contains("/5:"), "{shown}");
}

#[test]
fn implementations_limits_and_what_interfaces_lack_are_told_as_by_a_stock_switch() {
    let r = Rig::start();
    let want = "Available DPIF implementations:\n  dpif_scalar (pmds: none)\n";
    assert_eq!(r.appctl("dpif-netdev/dpif-impl-get"), want);
    r.run("ovs-vsctl add-port br0 p9 -- set Interface p9 type=dummy-pmd");
    assert!(r.appctl("dpif-netdev/dpif-impl-get").contains("  dpif_scalar (pmds: 0)\n"));
    let set = r.appctl("dpif-netdev/dpif-impl-set dpif_scalar");
    assert_eq!(set, "DPIF implementation set to dpif_scalar.\n");
    let e = refused(&r, "dpif-netdev/dpif-impl-set odd");
    assert_eq!(e, "DPIF implementation not available: Unknown DPIF implementation odd.");
    let set = r.appctl("dpif-netdev/subtable-lookup-prio-set generic 8");
    assert_eq!(set, "Lookup priority change affected 0 dpcls ports and 0 subtables.\n");
    let told = r.appctl("dpif-netdev/subtable-lookup-info-get");
    assert!(told.contains("  generic (Use count: 0, Priority: 8)\n"), "{told}");
    assert_eq!(r.appctl("dpif-netdev/bond-show"), "");
    assert_eq!(refused(&r, "dpif-netdev/bond-show odd"), "please specify an existing datapath");
    assert_eq!(r.appctl("qos/show p1"), "QoS not configured on p1\n");
    assert_eq!(refused(&r, "qos/show odd"), "no such interface");
    assert_eq!(refused(&r, "bridge/reconnect odd"), "Unknown bridge");

    let limit = |words: &str| {
        eventually("the limit is so", || r.appctl("upcall/show").contains(words).then_some(()));
    };
    limit("(limit 200000)");
    assert_eq!(r.appctl("upcall/set-flow-limit 1500"), "set flow_limit to 1500\n");
    limit("(limit 1500)");
    r.run("ovs-vsctl set Open_vSwitch . other_config:flow-limit=20 other_config:max-idle=600");
    limit("(limit 20)");
    r.run("ovs-ofctl add-flow br0 actions=drop");
    r.appctl("time/stop");
    r.appctl(&format!("netdev-dummy/receive p1 '{FLOW}'"));
    assert_eq!(r.appctl("dpctl/dump-flows").lines().count(), 2);
    r.appctl("revalidator/wait");
    let told = r.appctl("upcall/show");
    assert!(told.contains("(current 1)") && !told.contains("offloaded flows"), "in software: {told}");
    r.appctl("time/warp 500 100");
    assert_eq!(r.appctl("dpctl/dump-flows").lines().count(), 2);
    r.appctl("time/warp 300 100");
    assert_eq!(r.appctl("dpctl/dump-flows"), "", "idle for longer than that");
}
