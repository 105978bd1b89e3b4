//! Spanning trees: with a stock switch at the other end, in either part, and as the database tells of them.

#![allow(clippy::unwrap_used)]

mod support;

use support::dummy::Rig;
use support::eventually;

/// The line of a port in `stp/show`: role, state, cost and number.
fn port(r: &Rig, name: &str) -> Vec<String> {
    port_by(r, "stp/show br0", name)
}

fn port_by(r: &Rig, command: &str, name: &str) -> Vec<String> {
    let shown = r.appctl(command);
    let line = shown.lines().find(|l| l.split_whitespace().next() == Some(name)).unwrap_or_default();
    line.split_whitespace().skip(1).map(str::to_owned).collect()
}

fn wait(r: &Rig, name: &str, role: &str, state: &str) {
    let what = format!("{name} is {role} and {state}");
    eventually(&what, || (port(r, name)[..2] == [role.to_owned(), state.to_owned()]).then_some(()));
}

#[test]
fn with_a_stock_switch_one_link_of_two_is_blocked_whoever_is_the_root() {
    support::require("ovs-vswitchd");
    let (ours, stock) = (Rig::start(), Rig::start_stock());
    // Two cables between them; one end listens, the other connects.
    let cable = |n: u8| ours.dir.path().join(format!("cable{n}"));
    for (r, word, system, priority) in [
        (&ours, "pstream=punix", "02:00:00:00:00:01", 0x8000),
        (&stock, "stream=unix", "02:00:00:00:00:02", 0x1000),
    ] {
        let times =
            "other_config:stp-hello-time=1 other_config:stp-max-age=6 other_config:stp-forward-delay=4";
        let id = format!("other_config:stp-system-id=\"{system}\" other_config:stp-priority={priority}");
        r.run(&format!(
            "ovs-vsctl set Bridge br0 stp_enable=true {id} {times} \
             -- set Port p1 other_config:stp-port-num=1 -- set Port p7 other_config:stp-port-num=7 \
             -- set Interface p1 options:{word}:{} -- set Interface p7 options:{word}:{}",
            cable(1).display(),
            cable(7).display()
        ));
        r.appctl("netdev-dummy/set-admin-state up");
    }
    wait(&ours, "p1", "root", "forwarding");
    wait(&ours, "p7", "alternate", "blocking");
    wait(&stock, "p1", "designated", "forwarding");
    wait(&stock, "p7", "designated", "forwarding");
    let shown = ours.appctl("stp/show");
    assert!(
        shown.contains("  stp-system-id   02:00:00:00:00:02\n") && shown.contains("root-port       p1\n")
    );
    assert_eq!(port(&ours, "p1")[2..], ["2", "128.1"]);

    // Now ours is the better one, and the stock switch blocks.
    ours.run("ovs-vsctl set Bridge br0 other_config:stp-priority=0");
    wait(&stock, "p1", "root", "forwarding");
    wait(&stock, "p7", "alternate", "blocking");
    wait(&ours, "p7", "designated", "forwarding");
    assert!(ours.appctl("stp/show").contains("  This bridge is the root\n"));
    assert!(stock.appctl("stp/show").contains("  stp-system-id   02:00:00:00:00:01\n"));
    // What ours tells of itself is what the stock one would.
    eventually("the rows tell of it", || {
        let of_port = ours.run("ovs-vsctl get Port p7 status");
        let of_bridge = ours.run("ovs-vsctl get Bridge br0 status");
        let words =
            ["stp_port_id=\"32775\"", "stp_role=designated", "stp_state=forwarding", "stp_sec_in_state="];
        let root = "stp_bridge_id=\"0000.020000000001\", stp_designated_root=\"0000.020000000001\"";
        (words.iter().all(|w| of_port.contains(w)) && of_bridge.contains(root)).then_some(())
    });
    let counted = ours.run("ovs-vsctl get Port p7 statistics:stp_error_count");
    assert_eq!(counted.trim(), "0");
    assert_eq!(ours.appctl("stp/tcn br0"), "OK\n");
    assert!(ours.tool("ovs-appctl stp/tcn odd").unwrap_err().contains("no such stp object"));
    // The cable that forwards is cut: the other takes over.
    stock.appctl("netdev-dummy/set-admin-state p1 down");
    wait(&stock, "p7", "root", "forwarding");
    ours.run("ovs-vsctl set Bridge br0 stp_enable=false");
    assert_eq!(ours.appctl("stp/show"), "");
    eventually("the rows tell no more of it", || {
        (ours.run("ovs-vsctl get Port p7 status").trim() == "{}").then_some(())
    });
}

#[test]
fn with_a_rapid_stock_switch_links_are_agreed_on_and_one_that_goes_is_replaced_at_once() {
    support::require("ovs-vswitchd");
    let (ours, stock) = (Rig::start(), Rig::start_stock());
    let cable = |n: u8| ours.dir.path().join(format!("cable{n}"));
    for (r, word, address, priority) in [
        (&ours, "pstream=punix", "02:00:00:00:00:01", 0x8000),
        (&stock, "stream=unix", "02:00:00:00:00:02", 0x1000),
    ] {
        let id = format!("other_config:rstp-address=\"{address}\" other_config:rstp-priority={priority}");
        r.run(&format!(
            "ovs-vsctl set Bridge br0 rstp_enable=true {id} \
             -- set Port p1 other_config:rstp-port-num=1 -- set Port p7 other_config:rstp-port-num=7 \
             -- set Interface p1 options:{word}:{} -- set Interface p7 options:{word}:{}",
            cable(1).display(),
            cable(7).display()
        ));
        r.appctl("netdev-dummy/set-admin-state up");
    }
    let wait = |r: &Rig, name: &str, role: &str, state: &str| {
        eventually(&format!("{name} is {role} and {state}"), || {
            (port_by(r, "rstp/show br0", name)[..2] == [role.to_owned(), state.to_owned()]).then_some(())
        });
    };
    wait(&ours, "p1", "Root", "Forwarding");
    wait(&ours, "p7", "Alternate", "Discarding");
    wait(&stock, "p1", "Designated", "Forwarding");
    wait(&stock, "p7", "Designated", "Forwarding");
    assert_eq!(port_by(&ours, "rstp/show br0", "p1")[2..], ["2000", "128.1"]);
    // The rows say of each bridge what the other would of it.
    let words = "rstp_designated_id=\"1.000.020000000002\", rstp_designated_port_id=\"8001\", \
                 rstp_root_id=\"1.000.020000000002\", rstp_root_path_cost=\"2000\"";
    eventually("the rows tell of it", || {
        let of_port = ours.run("ovs-vsctl get Port p7 rstp_status");
        let there = of_port.contains("rstp_port_role=Alternate, rstp_port_state=Discarding");
        (there && ours.run("ovs-vsctl get Bridge br0 rstp_status").contains(words)).then_some(())
    });
    stock.appctl("netdev-dummy/set-admin-state p1 down");
    ours.appctl("netdev-dummy/set-admin-state p1 down");
    wait(&ours, "p7", "Root", "Forwarding");
    ours.run("ovs-vsctl set Bridge br0 other_config:rstp-priority=0");
    wait(&stock, "p7", "Root", "Forwarding");
    assert!(ours.appctl("rstp/show").contains("  This bridge is the root\n"));
    assert_eq!(ours.appctl("rstp/tcn br0"), "OK\n");
    assert!(ours.tool("ovs-appctl rstp/show odd").unwrap_err().contains("No such RSTP object"));
}

#[test]
fn ports_listen_learn_and_forward_as_time_goes_on_and_packets_go_by_it() {
    let r = Rig::start();
    r.appctl("vlog/set ofproto_dpif:dbg");
    r.appctl("time/stop");
    r.run("ovs-vsctl set Bridge br0 stp_enable=true -- set Port p7 other_config:stp-enable=false");
    r.run("ovs-ofctl add-flow br0 actions=1");
    let trace = || r.appctl("ofproto/trace br0 in_port=2,dl_src=10:20:30:40:50:60");
    assert!(trace().contains("     >> STP not in forwarding state, skipping output\n"), "{}", trace());
    assert_eq!(port(&r, "p1"), ["designated", "listening", "2", "128.1"]);
    assert!(port(&r, "p7").is_empty());
    r.appctl("time/warp 16000 1000");
    assert_eq!(port(&r, "p1")[1], "learning");
    r.appctl("time/warp 16000 1000");
    assert_eq!(port(&r, "p1")[1], "forwarding");
    assert!(trace().ends_with("Datapath actions: 1\n"), "{}", trace());
    let log = r.log();
    let changes: Vec<&str> = log.lines().filter_map(|l| l.split("STP state changed ").nth(1)).collect();
    assert_eq!(
        changes,
        ["from disabled to listening", "from listening to learning", "from learning to forwarding"]
    );
    let bpdu = r.appctl("ofproto/trace br0 in_port=1,dl_dst=01:80:c2:00:00:00,dl_type=0x05ff");
    assert!(
        bpdu.contains("Datapath actions: drop\n") && bpdu.ends_with("  - Consists of STP packets.\n"),
        "{bpdu}"
    );
    let ports = r.run("ovs-ofctl dump-ports-desc br0");
    assert!(ports.contains("state:      STP_FORWARD"), "{ports}");
}
