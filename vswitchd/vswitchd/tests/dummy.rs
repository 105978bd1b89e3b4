//! The switch as `ovs-vswitchd --enable-dummy`, with a stock ovsdb-server: what tests written for Open vSwitch do to it, by stock
//! ovs-vsctl, ovs-ofctl and ovs-appctl. Needs neither root nor interfaces.

#![allow(clippy::unwrap_used)]

mod support;

use support::dummy::Rig;
use support::eventually;

const ICMP: &str = "in_port(1),eth(src=50:54:00:00:00:05,dst=50:54:00:00:00:07),eth_type(0x0800),\
                    ipv4(src=192.168.0.1,dst=192.168.0.2,proto=1,tos=0,ttl=64,frag=no),icmp(type=8,code=0)";

#[test]
fn packets_that_are_said_come_in_and_are_told_of() {
    let r = Rig::start();
    let shown = r.appctl("dpif/show");
    let want = "dummy@ovs-dummy: hit:0 missed:0\n  br0:\n    br0 65534/100: (dummy-internal)\n    \
                p1 1/1: (dummy)\n    p7 2/7: (dummy)\n";
    assert_eq!(shown, want);

    r.appctl("vlog/set dpif_netdev:dbg");
    let pcap = r.dir.path().join("p7.pcap");
    r.run(&format!("ovs-vsctl set Interface p7 options:tx_pcap={}", pcap.display()));
    r.run("ovs-ofctl add-flow br0 in_port=1,actions=mod_nw_dst:10.0.0.9,2");
    r.appctl(&format!("netdev-dummy/receive p1 '{ICMP}'"));
    // The packet that made a flow is not among those that the flow has served; its rule counts it.
    let flow = "recirc_id(0),in_port(1),packet_type(ns=0,id=0),eth_type(0x0800),ipv4(dst=192.168.0.2,proto=1,frag=no), \
                packets:0, bytes:0, used:never, actions:set(ipv4(dst=10.0.0.9)),7\n";
    assert_eq!(r.appctl("dpif/dump-flows br0"), flow);
    assert_eq!(r.appctl("dpctl/dump-flows"), format!("flow-dump from the main thread:\n{flow}"));
    assert!(r.run("ovs-ofctl dump-flows br0").contains("n_packets=1, n_bytes=106"));
    let log = r.log();
    let (_, upcall) =
        log.split_once("|dpif_netdev|DBG|ovs-dummy: miss upcall:\n").expect("an upcall is told");
    let key = format!(
        "skb_priority(0),skb_mark(0),ct_state(0),ct_zone(0),ct_mark(0),ct_label(0),recirc_id(0),dp_hash(0),{}",
        ICMP.replace("in_port(1),", "in_port(1),packet_type(ns=0,id=0),")
    );
    assert_eq!(upcall.lines().next(), Some(key.as_str()));
    assert!(log.contains("|dpif_netdev|DBG|flow_add: ufid:"), "{log}");

    // Hexadecimal, and a length; each is in the capture at once.
    r.appctl(&format!("netdev-dummy/receive p1 '{ICMP}' --len 200"));
    r.appctl("netdev-dummy/receive p1 50540000000750540000000508060001080006040001505400000005c0a80001000000000000c0a80002");
    let frames = netio::pcap::PcapReader::open(&pcap).unwrap().map(|f| f.unwrap().data.len());
    assert_eq!(frames.collect::<Vec<_>>(), [106, 200, 42]);
    assert!(r.tool(&format!("ovs-appctl netdev-dummy/receive p9 '{ICMP}'")).is_err());

    r.appctl("revalidator/purge");
    assert_eq!(r.appctl("dpif/dump-flows br0"), "");
    r.appctl("netdev-dummy/set-admin-state p1 down");
    assert!(r.run("ovs-ofctl show br0").contains("LINK_DOWN"));
}

#[test]
fn time_stands_still_and_is_warped() {
    let r = Rig::start();
    r.appctl("time/stop");
    r.run("ovs-ofctl add-flow br0 hard_timeout=60,actions=drop");
    let age = || r.run("ovs-ofctl dump-flows br0");
    assert!(age().contains("duration=0s"), "{}", age());
    assert_eq!(r.appctl("time/warp 20000 1000"), "warped\n");
    assert!(age().contains("duration=20s"), "{}", age());
    r.appctl("time/warp 41000 1000");
    assert!(!age().contains("duration"), "{}", age());
    assert!(r.tool("ovs-appctl time/warp 0").is_err());
}

#[test]
fn a_trace_takes_every_form_and_a_generated_packet_teaches() {
    let r = Rig::start();
    r.run("ovs-ofctl add-flow br0 actions=normal");
    let last = |line: &str| r.appctl(line).lines().last().unwrap_or_default().to_owned();
    let flood = "Datapath actions: 7,100";
    for form in [
        format!("ofproto/trace '{ICMP}'"),
        format!("ofproto/trace ovs-dummy '{ICMP}'"),
        "ofproto/trace br0 in_port=1,icmp,dl_src=50:54:00:00:00:05,dl_dst=50:54:00:00:00:07".into(),
    ] {
        let got = last(&form);
        let mut ports: Vec<_> = got.trim_start_matches("Datapath actions: ").split(',').collect();
        ports.sort_by_key(|p| p.parse::<u32>().unwrap_or(0));
        assert_eq!(format!("Datapath actions: {}", ports.join(",")), flood, "{form}");
    }
    assert!(!r.appctl("fdb/show br0").contains("50:54:00:00:00:05"), "a trace changes nothing");
    r.appctl(&format!("ofproto/trace ovs-dummy '{ICMP}' -generate"));
    assert!(
        r.appctl("fdb/show br0").contains("50:54:00:00:00:05"),
        "unless the packet is to be as one that came"
    );
    let out = last("ofproto/trace-packet-out br0 in_port=2,dl_dst=50:54:00:00:00:05 mod_vlan_vid:9,output:1");
    assert_eq!(out, "Datapath actions: push_vlan(vid=9,pcp=0),1");
    for (wrong, words) in [
        ("ofproto/trace in_port=1", "(or the bridge name was omitted)"),
        ("ofproto/trace br9 in_port=1", "br9: unknown bridge"),
        ("ofproto/trace nowhere in_port(1)", "Cannot find the datapath"),
        ("ofproto/trace in_port(42)", "no OpenFlow port for datapath port 42"),
    ] {
        let e = r.tool(&format!("ovs-appctl {wrong}")).unwrap_err();
        assert!(e.contains(words), "{wrong}: {e}");
    }
}

#[test]
fn flows_are_put_by_file_and_a_port_that_was_taken_out_comes_back() {
    let r = Rig::start();
    let file = r.dir.path().join("flows");
    let by_file = |command: &str, text: &str| {
        std::fs::write(&file, text).unwrap();
        r.appctl(&format!("dpctl/{command} {}", file.display()))
    };
    by_file(
        "add-flows",
        "in_port(1),eth_type(0x1234) 7\nadd in_port(7),eth_type(0x1234) 1 # and back\n\nmodify in_port(1),eth_type(0x1234) 100\n",
    );
    let dump = r.appctl("dpctl/dump-flows");
    assert_eq!(dump.lines().count(), 3, "{dump}");
    let flow = "in_port(1),eth_type(0x1234), packets:0, bytes:0, used:never, actions:100\n";
    assert!(dump.contains(flow), "{dump}");
    let more = r.appctl("dpctl/dump-flows -m");
    assert!(more.contains("skb_priority(0/0),skb_mark(0/0),") && more.contains("in_port(p1)"), "{more}");
    by_file("del-flows", "in_port(1),eth_type(0x1234)\n");
    assert_eq!(r.appctl("dpctl/dump-flows").lines().count(), 2);
    assert!(r.tool("ovs-appctl dpctl/mod-flows /nonexistent").unwrap_err().contains("open failed"));

    let e = r.tool("ovs-appctl dpctl/del-if dummy@ovs-dummy p9").unwrap_err();
    assert!(e.contains("ovs-vswitchd: no port named p9"), "{e}");
    r.appctl("dpctl/del-if dummy@ovs-dummy p1");
    let shown = r.appctl("dpif/show");
    assert!(!shown.contains("p1 1/1") && shown.contains("p7 2/7"), "{shown}");
    r.run("ovs-vsctl del-port p7");
    assert!(r.appctl("dpif/show").contains("p1 1/1: (dummy)"));
}

#[test]
fn who_moves_the_time_on_finds_statistics_in_the_database_and_drops_counted() {
    let r = Rig::start();
    r.appctl("time/stop");
    r.run("ovs-ofctl add-flow br0 actions=drop");
    r.appctl(&format!("netdev-dummy/receive p1 '{ICMP}'"));
    r.appctl("time/warp 6000 1000");
    let counted = r.run("ovs-vsctl get Interface p1 statistics:rx_packets");
    assert_eq!(counted.trim(), "1");
    assert_eq!(r.appctl("coverage/read-counter drop_action_of_pipeline"), "1\n");
    assert_eq!(r.appctl("coverage/read-counter drop_action_recursion_too_deep"), "0\n");
    assert!(r.tool("ovs-appctl coverage/read-counter no_such_thing").is_err());
}

/// `CORE ISOLATED: PORT/QUEUE ...` for each thread that `dpif-netdev/pmd-rxq-show` tells of.
fn queues_by_core(r: &Rig) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for l in r.appctl("dpif-netdev/pmd-rxq-show").lines().map(str::trim) {
        if let Some(core) = l.strip_prefix("pmd thread numa_id 0 core_id ") {
            all.push(core.trim_end_matches(':').to_owned());
        } else if let (Some(isolated), Some(last)) = (l.strip_prefix("isolated : "), all.last_mut()) {
            *last += &format!(" {isolated}:");
        } else if let (Some(queue), Some(last)) = (l.strip_prefix("port: "), all.last_mut()) {
            let w: Vec<_> = queue.split_whitespace().collect();
            *last += &format!(" {}/{}", w[0], w[2]);
        }
    }
    all
}

#[test]
fn threads_run_on_the_processors_that_are_asked_for_and_serve_the_queues_that_they_are_given() {
    if std::thread::available_parallelism().is_ok_and(|n| n.get() < 2) {
        eprintln!("skipped: there is one processor only");
        return;
    }
    let r = Rig::start();
    let set = |what: &str| drop(r.run(&format!("ovs-vsctl set Open_vSwitch . {what}")));
    r.run("ovs-vsctl add-port br0 p9 -- set Interface p9 type=dummy-pmd options:n_rxq=4");
    assert_eq!(queues_by_core(&r), ["0 false: p9/0 p9/1 p9/2 p9/3"]);
    set("other_config:pmd-cpu-mask=3 other_config:pmd-rxq-assign=roundrobin");
    assert_eq!(queues_by_core(&r), ["0 false: p9/0 p9/2", "1 false: p9/1 p9/3"]);
    set("other_config:pmd-rxq-assign=cycles");
    assert_eq!(queues_by_core(&r), ["0 false: p9/0 p9/3", "1 false: p9/1 p9/2"]);

    r.run("ovs-vsctl set Interface p9 other_config:pmd-rxq-affinity=\"0:1\"");
    assert_eq!(queues_by_core(&r), ["0 false: p9/1 p9/2 p9/3", "1 true: p9/0"]);
    r.run("ovs-ofctl add-flow br0 actions=1");
    for (queue, n) in [(0, 3), (2, 1)] {
        for _ in 0..n {
            r.appctl(&format!("netdev-dummy/receive p9 --qid {queue} '{ICMP}'"));
        }
    }
    let received = |core: u32, n: u32| {
        support::eventually("the thread counts what came by its queue", || {
            let told = r.appctl(&format!("dpif-netdev/pmd-stats-show -pmd {core}"));
            told.contains(&format!("core_id {core}:\n  packets received: {n}\n")).then_some(())
        });
    };
    received(1, 3);
    received(0, 1);

    set("other_config:pmd-rxq-isolate=false other_config:pmd-rxq-assign=group");
    let shared = queues_by_core(&r);
    assert!(shared[1].starts_with("1 false: p9/0"), "{shared:?}");
    assert_eq!(r.appctl("dpif-netdev/pmd-rxq-rebalance"), "pmd rxq rebalance requested.\n");
    // A processor that nobody is to run on has none.
    r.run("ovs-vsctl set Interface p9 other_config:pmd-rxq-affinity=\"0:9\" options:n_rxq=2");
    assert!(r.log().contains("Core  9 cannot be pinned with port 'p9' rx queue 0."), "{}", r.log());
    r.run("ovs-vsctl remove Open_vSwitch . other_config pmd-cpu-mask");
    assert_eq!(queues_by_core(&r), ["0 false: p9/0 p9/1"]);
    r.appctl(&format!("netdev-dummy/receive p9 --qid 1 '{ICMP}'"));
    assert!(r.run("ovs-ofctl dump-flows br0").contains("n_packets=5,"));
}

#[test]
fn connections_of_a_zone_are_remembered_as_long_as_its_policy_says() {
    let r = Rig::start();
    r.run(
        "ovs-vsctl -- --id=@dp create Datapath datapath_version=0 -- set Open_vSwitch . datapaths:netdev=@dp",
    );
    r.run("ovs-vsctl add-zone-tp netdev zone=3 icmp_first=1 icmp_reply=1");
    r.run("ovs-ofctl add-flow br0 icmp,actions=ct(commit,zone=3),ct(commit,zone=4),2");
    r.appctl(&format!("netdev-dummy/receive p1 '{ICMP}'"));
    eventually("the connection of the zone with a policy ends before the other", || {
        let all = r.appctl("dpctl/dump-conntrack");
        (!all.contains("zone=3") && all.contains("zone=4")).then_some(())
    });
}

#[test]
fn a_bridge_whose_controllers_come_or_go_is_emptied_and_one_whose_controllers_change_is_not() {
    let r = Rig::start();
    let put = || {
        r.run("ovs-ofctl add-flow br0 in_port=1,actions=2");
        r.run("ovs-ofctl -O OpenFlow13 add-group br0 group_id=7,type=all,bucket=output:1");
        r.run("ovs-ofctl -O OpenFlow13 add-meter br0 meter=1,pktps,bands=type=drop,rate=1");
    };
    let there = || {
        let dump = |what: &str| r.run(&format!("ovs-ofctl -O OpenFlow13 {what} br0"));
        [
            dump("dump-flows").contains("in_port=1"),
            dump("dump-groups").contains("group_id=7"),
            dump("dump-meters").contains("meter=1"),
        ]
    };
    put();
    assert_eq!(there(), [true; 3]);
    r.run("ovs-vsctl set-controller br0 unix:nowhere");
    assert_eq!(there(), [false; 3], "a controller has come");
    put();
    r.run("ovs-vsctl set-controller br0 unix:elsewhere");
    assert_eq!(there(), [true; 3], "another one in its place");
    r.run("ovs-vsctl del-controller br0");
    assert_eq!(there(), [false; 3], "the controller has gone");
}

#[test]
fn what_connections_have_due_is_done_before_a_warp_ends() {
    let r = Rig::start();
    let log = r.dir.path().join("monitor.log");
    let monitor = "-O OpenFlow14 monitor br0 --detach --no-chdir --pidfile";
    r.run(&format!("sh -c 'ovs-ofctl {monitor} >{} 2>&1'", log.display()));
    r.appctl("time/stop");
    let send = |bytes: &str| r.appctl(&format!("-t ovs-ofctl ofctl/send '{bytes}'"));
    // A bundle is opened, and committed when it is gone: OFPT_BUNDLE_CONTROL (OpenFlow 1.4.0 7.3.9).
    send("05 21 00 10 00 00 00 01 00 00 00 01 00 00 00 03");
    r.appctl("-t ovs-ofctl ofctl/barrier");
    r.appctl("time/warp 11000");
    send("05 21 00 10 00 00 00 02 00 00 00 01 00 04 00 03");
    r.appctl("-t ovs-ofctl ofctl/barrier");
    r.appctl("-t ovs-ofctl exit");
    let said = std::fs::read_to_string(&log).unwrap();
    let at = |what: &str| said.find(what).unwrap_or_else(|| panic!("no {what}: {said}"));
    assert!(
        at("OFPBFC_TIMEOUT") < at("COMMIT_REQUEST") && at("COMMIT_REQUEST") < at("OFPBFC_BAD_ID"),
        "{said}"
    );
}

#[test]
fn lldp_tells_who_is_there_and_tables_see_one_tag_unless_asked() {
    let r = Rig::start();
    r.run(
        "ovs-vsctl set Interface p1 lldp:enable=true -- set Bridge br0 auto_attach=@a \
           -- --id=@a create AutoAttach system_name=edge mappings=100=10",
    );
    // A unit of IEEE 802.1AB with an assignment that Auto Attach has no room for: wrong, said once, and harmless.
    let begin = "0180c200000e0200000000aa88cc0207040200000000aa0403057031060200780a046e616d65";
    for _ in 0..3 {
        r.appctl(&format!("netdev-dummy/receive p1 {begin}fe0500040d0c010000"));
    }
    assert_eq!(
        r.log().matches("|lldp|WARN|ISID_VLAN_ASGNS TLV too short received on p1").count(),
        1,
        "{}",
        r.log()
    );
    r.appctl(&format!("netdev-dummy/receive p1 {begin}0000"));
    let counts = r.appctl("autoattach/statistics br0");
    assert!(
        counts.contains("  rx cnt: 4\n  rx discarded cnt: 3\n") && counts.contains("  insert cnt: 1\n"),
        "{counts}"
    );
    assert!(r.appctl("autoattach/show-isid").contains("100      10   Switch      Pending"));
    assert!(r.appctl("dpctl/dump-flows").contains("actions:userspace(pid=0,slow_path(lldp))"));
    assert!(r.tool("ovs-appctl autoattach/status br9").is_err());

    r.run("ovs-ofctl add-flow br0 in_port=2,dl_type=0x8100,actions=1");
    let two = "in_port(7),eth(),eth_type(0x8100),vlan(vid=16,pcp=0),encap(eth_type(0x8100),vlan(vid=17,pcp=0),encap(eth_type(0xabcd)))";
    let last = || r.appctl(&format!("ofproto/trace '{two}'")).lines().last().unwrap_or_default().to_owned();
    assert_eq!(last(), "Datapath actions: 1");
    r.run("ovs-vsctl set Open_vSwitch . other_config:vlan-limit=0");
    assert_eq!(last(), "Datapath actions: drop");
}
