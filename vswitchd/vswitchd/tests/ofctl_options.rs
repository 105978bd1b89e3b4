//! Stock `ovs-ofctl` maps tunnel options to fields and has flows match and write them.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::{Daemon, require};

const BRIDGES: &str = "\
[[bridge]]
name = \"br0\"
[[bridge.port]]
name = \"mem\"
ofport = 1
type = \"memory\"
[[bridge]]
name = \"br1\"
";

/// The lines of mappings in what `dump-tlv-map` prints.
fn mappings(dump: &str) -> Vec<String> {
    let words = |l: &str| l.split_whitespace().collect::<Vec<_>>().join(" ");
    dump.lines().filter(|l| l.contains("tun_metadata")).map(words).collect()
}

#[test]
fn options_are_mapped_used_by_flows_and_given_back() {
    require("ovs-ofctl");
    let mut d = Daemon::start(BRIDGES);
    d.ofctl(&[
        "add-tlv-map",
        "br0",
        "{class=0x102,type=0x80,len=4}->tun_metadata0,{class=0xffff,type=1,len=8}->tun_metadata5",
    ]);
    let dump = d.ofctl(&["dump-tlv-map", "br0"]);
    assert!(dump.contains("max option space=128 max fields=64"), "{dump}");
    assert_eq!(mappings(&dump), ["0x102 0x80 4 tun_metadata0", "0xffff 0x1 8 tun_metadata5"]);
    assert!(mappings(&d.ofctl(&["dump-tlv-map", "br1"])).is_empty(), "a table is a bridge's");

    let refused = |d: &Daemon, args: &[&str], name: &str| {
        let args = [&["-O", "OpenFlow13"], args].concat();
        let o = d.tool(Path::new("ovs-ofctl"), &args);
        let said = String::from_utf8_lossy(&o.stderr);
        assert!(!o.status.success(), "{args:?}");
        assert!(said.contains(name), "{args:?}: {said}");
    };
    refused(
        &mut d,
        &["add-tlv-map", "br0", "{class=1,type=2,len=4}->tun_metadata0"],
        "NXTTMFC_ALREADY_MAPPED",
    );
    refused(
        &mut d,
        &["add-tlv-map", "br0", "{class=0x102,type=0x80,len=4}->tun_metadata1"],
        "NXTTMFC_DUP_ENTRY",
    );
    let both = "{class=1,type=2,len=4}->tun_metadata1,{class=1,type=3,len=124}->tun_metadata2";
    refused(&d, &["add-tlv-map", "br0", both], "NXTTMFC_TABLE_FULL");
    assert_eq!(mappings(&d.ofctl(&["dump-tlv-map", "br0"])).len(), 2, "all or none");
    refused(&d, &["add-flow", "br0", "tun_metadata1=5,actions=drop"], "NXFMFC_INVALID_TLV_FIELD");
    refused(&d, &["add-flow", "br1", "tun_metadata0=5,actions=drop"], "NXFMFC_INVALID_TLV_FIELD");
    refused(&d, &["add-flow", "br0", "actions=move:tun_metadata0[32..63]->reg0[]"], "OFPBAC_BAD_SET_LEN");
    refused(&d, &["add-flow", "br0", "actions=push:tun_metadata7[0..31]"], "NXFMFC_INVALID_TLV_FIELD");

    for (version, flow) in [
        ("OpenFlow10", "priority=1,tun_metadata0=0xb/0xf actions=drop"),
        ("OpenFlow13", "priority=2,tun_metadata0 actions=drop"),
        ("OpenFlow15", "priority=3,tun_metadata0=0x1,tun_metadata5=0x1234567890abcdef actions=drop"),
        ("OpenFlow13", "priority=4,in_port=1 actions=set_field:0xa->tun_metadata0,output:1"),
        (
            "OpenFlow13",
            "priority=5,in_port=1 actions=move:NXM_NX_TUN_METADATA0[0..15]->NXM_NX_REG0[0..15],delete_field:tun_metadata0",
        ),
    ] {
        let (head, actions) = flow.split_once(" actions=").unwrap();
        d.ofctl(&["-O", version, "add-flow", "br0", &format!("{head},actions={actions}")]);
    }
    let dump =
        d.ofctl(&["-O", "OpenFlow15", "--no-stats", "--no-names", "--sort=priority", "dump-flows", "br0"]);
    let lines: Vec<_> = dump.lines().map(str::trim).collect();
    // Flows of OpenFlow 1.0 have their counters reset by whoever adds them again, which later versions tell.
    assert_eq!(lines[0], "reset_counts priority=1,tun_metadata0=0xb/0xf actions=drop", "{dump}");
    assert_eq!(lines[1], "priority=2,tun_metadata0 actions=drop");
    assert_eq!(lines[2], "priority=3,tun_metadata0=0x1,tun_metadata5=0x1234567890abcdef actions=drop");
    assert_eq!(lines[3], "priority=4,in_port=1 actions=set_field:0xa->tun_metadata0,output:1");
    assert_eq!(
        lines[4],
        "priority=5,in_port=1 actions=move:NXM_NX_TUN_METADATA0[0..15]->NXM_NX_REG0[0..15],delete_field:tun_metadata0"
    );

    refused(&d, &["del-tlv-map", "br0"], "NXTTMFC_INVALID_TLV_DEL");
    d.ofctl(&["del-flows", "br0"]);
    d.ofctl(&["del-tlv-map", "br0", "{class=0xffff,type=1,len=8}->tun_metadata5"]);
    assert_eq!(mappings(&d.ofctl(&["dump-tlv-map", "br0"])), ["0x102 0x80 4 tun_metadata0"]);
    d.ofctl(&["del-tlv-map", "br0"]);
    // The field is free for another option, on whatever bridge.
    d.ofctl(&["add-tlv-map", "br1", "{class=0x3,type=4,len=8}->tun_metadata0"]);
    assert_eq!(mappings(&d.ofctl(&["dump-tlv-map", "br1"])), ["0x3 0x4 8 tun_metadata0"]);
}
