//! Stock `ovs-ofctl` in every version of OpenFlow against the real process: the commands that do not depend on what one
//! version alone has. Without `-O` the tool speaks OpenFlow 1.0 with Nicira's extensions.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use support::{Daemon, eventually, require};

/// A bridge with three ports.
const BRIDGE: &str = "\
[[bridge]]
name = \"br0\"
datapath_id = \"00000000000000aa\"
[[bridge.port]]
name = \"one\"
ofport = 1
type = \"memory\"
[[bridge.port]]
name = \"two\"
ofport = 2
type = \"memory\"
[[bridge.port]]
name = \"seven\"
ofport = 7
type = \"memory\"
";

/// What `-O` takes, and none.
const VERSIONS: [&str; 7] =
    ["", "OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"];

/// The stock tool in one version.
struct Ofctl<'a> {
    d: &'a mut Daemon,
    version: &'static str,
}

impl Ofctl<'_> {
    fn output(&mut self, args: &[&str]) -> std::process::Output {
        let mut all = Vec::new();
        if !self.version.is_empty() {
            all.extend(["-O", self.version]);
        }
        all.extend(args);
        self.d.tool("ovs-ofctl".as_ref(), &all)
    }

    fn run(&mut self, args: &[&str]) -> String {
        let o = self.output(args);
        let err = String::from_utf8_lossy(&o.stderr);
        assert!(o.status.success() && !err.contains("WARN"), "{} {args:?}: {err}", self.version);
        String::from_utf8(o.stdout).unwrap()
    }

    fn is_old(&self) -> bool {
        matches!(self.version, "" | "OpenFlow10")
    }

    /// The flows of a dump, without what changes from run to run.
    fn flows(&mut self, args: &[&str]) -> Vec<String> {
        let dump = self.run(&[&["--no-stats", "dump-flows", "br0"], args].concat());
        let mut v: Vec<_> =
            dump.lines().filter(|l| l.contains("actions=")).map(|l| l.trim().to_owned()).collect();
        v.sort();
        v
    }
}

/// Runs a check in every version, each against a daemon of its own.
fn in_every_version(check: impl Fn(&mut Ofctl<'_>)) {
    require("ovs-ofctl");
    for version in VERSIONS {
        let mut d = Daemon::start(BRIDGE);
        check(&mut Ofctl { d: &mut d, version });
    }
}

#[test]
fn switch_and_ports_are_described() {
    in_every_version(|o| {
        let show = o.run(&["show", "br0"]);
        assert!(show.contains("dpid:00000000000000aa"), "{show}");
        for port in ["1(one): addr:", "2(two): addr:", "7(seven): addr:"] {
            assert!(show.contains(port), "{}: {show}", o.version);
        }
        assert!(show.contains("OFPT_GET_CONFIG_REPLY"), "{show}");
        if o.is_old() {
            assert!(
                show.contains("actions: output enqueue set_vlan_vid set_vlan_pcp strip_vlan mod_dl_src"),
                "{show}"
            );
        }
        assert_eq!(o.run(&["dump-ports-desc", "br0"]).matches("addr:").count(), 3 + 1, "{}", o.version);
        let ports = o.run(&["dump-ports", "br0"]);
        assert!(ports.contains("port  7: rx pkts=0") || ports.contains("port  seven: rx pkts=0"), "{ports}");
        assert!(o.run(&["dump-ports", "br0", "2"]).contains("1 ports"));
        assert!(o.run(&["dump-desc", "br0"]).contains("Manufacturer:"));
        let tables = o.run(&["dump-tables", "br0"]);
        assert!(tables.contains("table 0:") && tables.contains("active=0"), "{}: {tables}", o.version);
        assert!(o.run(&["queue-stats", "br0"]).contains("0 queues"));
    });
}

#[test]
fn flows_are_added_modified_dumped_and_deleted() {
    in_every_version(|o| {
        o.run(&["add-flow", "br0", "table=0,priority=10,ip,nw_dst=10.0.0.0/8,actions=resubmit(,1)"]);
        let file = o.d.path("flows.txt");
        let lines = "# two flows\n\
             table=1,cookie=0x5,tcp,tp_dst=80,actions=output:2\n\
             table=1,cookie=0x6,idle_timeout=60,udp,actions=mod_nw_tos:32,output:7\n";
        std::fs::write(&file, lines).unwrap();
        o.run(&["add-flows", "br0", file.to_str().unwrap()]);
        let tos = if matches!(o.version, "" | "OpenFlow10" | "OpenFlow11") {
            "mod_nw_tos:32"
        } else {
            "set_field:8->ip_dscp"
        };
        assert_eq!(
            o.flows(&[]),
            [
                "cookie=0x5, table=1, tcp,tp_dst=80 actions=output:2".to_owned(),
                format!("cookie=0x6, table=1, idle_timeout=60, udp actions={tos},output:7"),
                "priority=10,ip,nw_dst=10.0.0.0/8 actions=resubmit(,1)".to_owned(),
            ],
            "{}",
            o.version
        );
        let full = o.run(&["dump-flows", "br0", "table=1,udp"]);
        assert!(full.contains("n_packets=0, n_bytes=0"), "{full}");
        if o.is_old() {
            assert!(full.contains("idle_age="), "{full}");
        }
        o.run(&["mod-flows", "br0", "table=1,tcp,actions=drop"]);
        let one = o.flows(&["table=1,tcp"]);
        assert_eq!(one.len(), 1, "{}: {one:?}", o.version);
        assert!(one[0].ends_with("tcp,tp_dst=80 actions=drop"), "{one:?}");
        o.run(&["del-flows", "br0", "table=1,cookie=0x6/-1"]);
        assert_eq!(o.flows(&[]).len(), 2, "{}", o.version);
        let aggregate = o.run(&["dump-aggregate", "br0"]);
        assert!(aggregate.contains("flow_count=2"), "{aggregate}");
        o.run(&["--strict", "del-flows", "br0", "table=1,tcp,tp_dst=80"]);
        assert_eq!(o.flows(&[]).len(), 1, "{}", o.version);
        o.run(&["del-flows", "br0"]);
        assert!(o.flows(&[]).is_empty());
        // Only OpenFlow 1.0 and 1.1 add what is not there to be changed.
        o.run(&["mod-flows", "br0", "udp,actions=output:1"]);
        let adds = matches!(o.version, "" | "OpenFlow10" | "OpenFlow11");
        assert_eq!(o.flows(&[]).len(), usize::from(adds), "{}", o.version);
    });
}

#[test]
fn matches_and_actions_come_back_as_they_were_given() {
    in_every_version(|o| {
        let flows = [
            "in_port=1,dl_vlan=5,dl_vlan_pcp=3 actions=strip_vlan,output:2",
            "dl_src=02:00:00:00:00:01,vlan_tci=0x0000/0x1fff actions=NORMAL",
            "arp,arp_spa=10.0.0.1,arp_op=2 actions=LOCAL",
            "icmp6,icmp_type=135,nd_target=fe80::1 actions=FLOOD",
            "tcp6,ipv6_dst=2001:db8::/32,tp_src=0x1000/0xf000 actions=ALL",
            "ip,reg3=0x7,metadata=0x5 actions=load:0x9->NXM_NX_REG5[0..7],move:NXM_NX_REG3[]->NXM_NX_REG4[]",
            "sctp,nw_src=10.1.0.0/16,tp_dst=9 actions=IN_PORT",
            "dl_type=0x88cc actions=CONTROLLER:128",
        ];
        for f in flows {
            if o.version == "OpenFlow11"
                && !f.starts_with("arp,arp_spa=10.0.0.1")
                && !f.starts_with("dl_type")
            {
                // The fixed match of OpenFlow 1.1 says less; the tool refuses the others itself.
                continue;
            }
            o.run(&["add-flow", "br0", f]);
            let dump = o.flows(&[]);
            let said = dump[0].clone();
            let (head, actions) = f.split_once(" actions=").unwrap();
            for word in head.split(',').filter(|w| !w.contains("vlan_tci")) {
                assert!(said.contains(word), "{}: {f}: {said}", o.version);
            }
            let last = actions.rsplit(',').next().unwrap();
            assert!(said.contains(last), "{}: {f}: {said}", o.version);
            o.run(&["del-flows", "br0"]);
        }
    });
}

#[test]
fn ports_are_modified_and_fragments_handled() {
    in_every_version(|o| {
        o.run(&["mod-port", "br0", "2", "no-forward"]);
        let desc = o.run(&["dump-ports-desc", "br0"]);
        assert!(desc.contains("NO_FWD"), "{}: {desc}", o.version);
        o.run(&["mod-port", "br0", "2", "forward"]);
        if o.is_old() {
            o.run(&["mod-port", "br0", "two", "noflood"]);
            assert!(o.run(&["dump-ports-desc", "br0"]).contains("NO_FLOOD"));
        }
        assert_eq!(o.run(&["get-frags", "br0"]).trim(), "normal");
        o.run(&["set-frags", "br0", "drop"]);
        assert_eq!(o.run(&["get-frags", "br0"]).trim(), "drop");
    });
}

#[test]
fn packets_go_out_and_come_in() {
    in_every_version(|o| {
        let frame = format!("{:0<120}", "0200000000020200000000010800");
        o.run(&["add-flow", "br0", "actions=controller"]);
        let mut command = Command::new("ovs-ofctl");
        if !o.version.is_empty() {
            command.args(["-O", o.version]);
        }
        let mut monitor = command
            .args(["monitor", "br0", "65534"])
            .env("OVS_RUNDIR", o.d.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = BufReader::new(monitor.stderr.take().unwrap());
        let (tx, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || err.lines().map_while(Result::ok).for_each(|l| drop(tx.send(l))));
        // The monitor may not have asked yet: packets are sent until one is heard.
        let packet = format!("in_port=7 packet={frame} actions=TABLE");
        let heard = eventually("a packet-in", || {
            o.run(&["packet-out", "br0", &packet]);
            lines.try_iter().find(|l| l.contains("PACKET_IN"))
        });
        let _ = monitor.kill();
        let _ = monitor.wait();
        let port = heard.contains("in_port=7") || heard.contains("in_port=seven");
        assert!(port && heard.contains("total_len=60"), "{}: {heard}", o.version);
    });
}

#[test]
fn a_refused_change_is_told_in_the_version_that_asked() {
    in_every_version(|o| {
        let refused = o.output(&["add-flow", "br0", "table=254,actions=drop"]);
        let words = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && words.contains("OFPBRC_EPERM"), "{}: {words}", o.version);
        assert!(o.flows(&[]).is_empty());
        o.run(&["add-flow", "br0", "ip,actions=drop"]);
        let overlap = o.output(&["add-flow", "br0", "check_overlap,in_port=1,actions=drop"]);
        let words = String::from_utf8_lossy(&overlap.stderr).into_owned();
        assert!(words.contains("OFPFMFC_OVERLAP"), "{}: {words}", o.version);
    });
}

#[test]
fn versions_that_a_bridge_does_not_allow_are_refused() {
    require("ovs-ofctl");
    let config = BRIDGE.replacen("datapath_id", "protocols = ['OpenFlow10', 'OpenFlow13']\ndatapath_id", 1);
    let mut d = Daemon::start(&config);
    for version in VERSIONS {
        let mut o = Ofctl { d: &mut d, version };
        let allowed = matches!(version, "" | "OpenFlow10" | "OpenFlow13");
        let out = o.output(&["show", "br0"]);
        assert_eq!(out.status.success(), allowed, "{version}: {}", String::from_utf8_lossy(&out.stderr));
    }
}

#[test]
fn tables_say_what_they_can_and_get_names_in_every_version_that_has_table_features() {
    require("ovs-ofctl");
    for version in ["OpenFlow13", "OpenFlow14", "OpenFlow15"] {
        let mut d = Daemon::start("[[bridge]]\nname = 'br0'\n");
        let mut ofctl = |args: &[&str]| d.ok("ovs-ofctl", &[&["-O", version], args].concat());
        let features = ofctl(&["dump-table-features", "br0"]);
        let first = features.split("\n\n").next().unwrap();
        let line = |start: &str| {
            first.lines().find_map(|l| l.trim().strip_prefix(start)).unwrap_or_default().to_owned()
        };
        assert_eq!(
            line("actions: "),
            "output group set_field strip_vlan push_vlan mod_nw_ttl dec_ttl set_mpls_ttl dec_mpls_ttl push_mpls pop_mpls \
             set_queue",
            "{version}: {first}"
        );
        assert!(first.contains(
            "instructions: meter apply_actions clear_actions write_actions write_metadata goto_table"
        ));
        for field in [
            "ct_{state,mark,label",
            "reg0...reg15 xreg0...xreg7 xxreg0...xxreg3",
            "ip_frag",
            "tun_{id,src,dst",
        ] {
            assert!(line("arbitrary mask: ").contains(field), "{version}: {field}: {first}");
        }
        assert!(line("exact match or wildcard: ").contains("recirc_id"), "{version}: {first}");
        assert!(features.contains("tables 1...252: ditto"), "{version}: {features}");
        // The command sends back what it read of every table, in parts.
        ofctl(&["mod-table", "br0", "0", "name:xyzzy"]);
        assert!(ofctl(&["dump-table-features", "br0"]).contains("table 0 (\"xyzzy\"):"), "{version}");
    }
}
