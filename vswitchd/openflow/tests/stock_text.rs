//! Flows as text against stock `ovs-ofctl`: what it makes of a text in each version (`parse-flow`), and what it reads of
//! our encoding of the same text (`ofp-print`).
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use openflow::text::{format_actions, parse_flow};
use openflow::{Body, FlowModCommand, Message, Version, decode, encode};
use support::ofp_print;

/// Flows that mean something in every version they are tried in; the number is the first such version.
const FLOWS: &[(Version, &str)] = {
    use Version::{V10, V12, V13, V15};
    &[
        (V10, "actions=output:3,NORMAL,IN_PORT,CONTROLLER:128"),
        (V10, "dl_vlan=5,actions=mod_vlan_vid:7,mod_vlan_pcp:2,strip_vlan,output:1"),
        (V10, "actions=mod_dl_src:00:00:00:00:00:01,mod_dl_dst:00:00:00:00:00:02,output:1"),
        (
            V10,
            "tcp,actions=mod_nw_src:10.0.0.1,mod_nw_dst:10.0.0.2,mod_nw_tos:32,mod_tp_src:80,mod_tp_dst:81",
        ),
        (V10, "ip,actions=mod_nw_ecn:2,mod_nw_ttl:9,dec_ttl,dec_ttl(1,2)"),
        (V10, "actions=enqueue:1:2,set_queue:3,pop_queue"),
        (V10, "actions=set_tunnel:0x5,set_tunnel64:0x123456789ab"),
        (V10, "ct_state=+trk+est,ip,actions=resubmit:3,resubmit(,2),resubmit(4,5),resubmit(,6,ct)"),
        (V10, "actions=load:0x5->NXM_NX_REG0[],load:0x1->NXM_NX_REG1[3],move:NXM_NX_REG0[]->NXM_NX_REG1[]"),
        (V10, "ip,actions=set_field:10.0.0.9->ip_dst,set_field:0x1/0x3->reg3,set_field:5->metadata"),
        (V10, "actions=push:NXM_NX_REG2[],pop:NXM_NX_REG3[],push:NXM_NX_REG5[0..15],pop:NXM_NX_REG6[0..15]"),
        (V10, "actions=output:NXM_NX_REG0[0..15],output(port=2,max_len=100)"),
        (V10, "actions=learn(table=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])"),
        (
            V10,
            "tcp,actions=learn(table=2,idle_timeout=10,hard_timeout=20,fin_idle_timeout=1,fin_hard_timeout=2,\
             priority=7,send_flow_rem,delete_learned,cookie=0x1,eth_type=0x800,nw_proto=6,\
             NXM_OF_IP_SRC[]=NXM_OF_IP_DST[],load:0x5->NXM_NX_REG1[],load:NXM_NX_REG2[]->NXM_NX_REG3[])",
        ),
        (V10, "actions=learn(table=3,limit=5,result_dst=NXM_NX_REG0[8],NXM_OF_VLAN_TCI[0..11])"),
        (V10, "actions=bundle(eth_src,0,hrw,ofport,members:4,8)"),
        (V10, "actions=bundle_load(symmetric_l4,60,active_backup,ofport,NXM_NX_REG0[],members:2,3)"),
        (V10, "actions=multipath(eth_src,50,modulo_n,1,0,NXM_NX_REG0[])"),
        (V10, "actions=multipath(symmetric_l3l4+udp,1024,iter_hash,5000,5050,NXM_NX_REG0[0..12])"),
        (V10, "actions=conjunction(1234,1/3)"),
        (V10, "tcp,actions=fin_timeout(idle_timeout=5,hard_timeout=15)"),
        (V10, "actions=sample(probability=12345,collector_set_id=1,obs_domain_id=2,obs_point_id=3)"),
        (
            V10,
            "actions=sample(probability=1,collector_set_id=1,obs_domain_id=2,obs_point_id=3,sampling_port=8,egress)",
        ),
        (V10, "ip,actions=ct(),ct(commit,force,zone=5),ct(table=3,zone=NXM_NX_REG0[0..15])"),
        (V10, "tcp,actions=ct(commit,table=1,alg=ftp,nat(src=10.0.0.1-10.0.0.9:1000-2000,random))"),
        (V10, "ipv6,actions=ct(commit,nat(dst=fe80::1-fe80::9,hash)),ct(nat)"),
        (V10, "ip,actions=ct(commit,exec(load:0x1->NXM_NX_CT_MARK[])),ct_clear"),
        (V10, "actions=clone(output:1,clone(output:2)),output:3"),
        (V10, "actions=check_pkt_larger(1500)->NXM_NX_REG0[0]"),
        (V10, "actions=controller(reason=invalid_ttl,max_len=100,id=3)"),
        (V10, "actions=controller(userdata=01.02.03,pause,meter_id=7)"),
        (V10, "actions=note:01.02.03,exit"),
        (V10, "actions=group:5"),
        (V10, "mpls,actions=set_mpls_label:5,set_mpls_tc:3,set_mpls_ttl:9,dec_mpls_ttl"),
        (V10, "ip,actions=push_mpls:0x8847"),
        (V12, "actions=push_vlan:0x88a8,set_field:4103->vlan_vid"),
        (V12, "actions=write_metadata:0x12/0xff,goto_table:7"),
        (V13, "actions=meter:3,output:1,clear_actions,write_actions(output:4,group:2),goto_table:7"),
        (V13, "actions=encap(nsh(md_type=1)),encap(ethernet),decap()"),
        (V13, "actions=encap(nsh(md_type=2,tlv(0x1000,10,0x12345678)))"),
        (
            V13,
            "dl_type=0x894f,nsh_ttl=63,nsh_mdtype=1,nsh_np=3,nsh_spi=0x123456,nsh_si=255,nsh_c1=0x11223344,nsh_c3=0x10/0x70,\
             actions=set_field:0x2->nsh_flags,set_field:254->nsh_si,set_field:0x44332211->nsh_c1,\
             set_field:0x10/0xf0->nsh_c2,dec_nsh_ttl,output:2",
        ),
        (
            V13,
            "packet_type=(1,0x894f),nsh_mdtype=1,actions=load:0x1->NXOXM_NSH_C1[0..3],move:NXOXM_NSH_C2[]->NXM_NX_REG0[],\
             push:NXOXM_NSH_SI[],pop:NXOXM_NSH_C4[0..7]",
        ),
        (
            V13,
            "tun_erspan_ver=1,tun_erspan_idx=0x7/0xf,actions=set_field:0x5->tun_erspan_idx,set_field:2->tun_erspan_ver,\
             set_field:1->tun_erspan_dir,set_field:0x3/0x7->tun_erspan_hwid",
        ),
        (
            V13,
            "tun_gtpu_flags=0x30/0xf0,tun_gtpu_msgtype=255,actions=move:NXOXM_ET_GTPU_FLAGS[]->NXM_NX_REG0[0..7],\
             load:0x1->NXOXM_ET_ERSPAN_HWID[0..1]",
        ),
        (V13, "packet_type=(0,0),actions=decap(packet_type(ns=1,type=0x800))"),
        (V15, "actions=set_field:0xff/0xff->reg0,move:NXM_NX_REG0[0..7]->NXM_NX_REG1[0..7]"),
    ]
};

/// What stock `ovs-ofctl` says of a text in a version, after `actions=`; `None` when it does not say it in that version.
fn stock(v: Version, flow: &str) -> Option<String> {
    let out = Command::new("ovs-ofctl").args(["-O", &v.to_string(), "parse-flow", flow]).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let err = String::from_utf8_lossy(&out.stderr);
    if err.contains("no usable protocol") {
        return None;
    }
    assert!(out.status.success(), "{v} {flow}: {err}");
    Some(text.split_once("actions=").unwrap_or_else(|| panic!("{v} {flow}: {text}")).1.trim_end().to_owned())
}

#[test]
fn that_packets_begin_with_ethernet_is_no_part_of_a_match_on_their_headers() {
    let back = |flow: &str| {
        let ours = parse_flow(FlowModCommand::Add, flow, &|_| None).unwrap();
        let mut bytes = Vec::new();
        encode(Version::V15, &Message { xid: 0, body: Body::FlowMod(Box::new(ours)) }, &mut bytes).unwrap();
        match decode(&bytes).unwrap().body {
            Body::FlowMod(f) => f.matches,
            other => panic!("{other:?}"),
        }
    };
    let rest = "ip,nw_dst=10.0.0.1,actions=drop";
    assert_eq!(back(&format!("packet_type=(0,0),{rest}")), back(rest));
    assert_ne!(back("packet_type=(0,0),in_port=1,actions=drop"), back("in_port=1,actions=drop"));
}

#[test]
fn text_means_in_each_version_what_stock_ovs_ofctl_makes_of_it() {
    let mut compared = 0;
    for (since, flow) in FLOWS {
        let ours = parse_flow(FlowModCommand::Add, flow, &|_| None).unwrap_or_else(|e| panic!("{flow}: {e}"));
        for v in Version::ALL.into_iter().filter(|v| v >= since) {
            // The fixed match of OpenFlow 1.1 has no place for what some flows match.
            let mut bytes = Vec::new();
            let msg = Message { xid: 0, body: Body::FlowMod(Box::new(ours.clone())) };
            match encode(v, &msg, &mut bytes) {
                Err(_) if v == Version::V11 => continue,
                r => r.unwrap_or_else(|e| panic!("{v} {flow}: {e}")),
            }
            let Body::FlowMod(back) = decode(&bytes).unwrap_or_else(|e| panic!("{v} {flow}: {e}")).body
            else {
                panic!("{v} {flow}")
            };
            let said = format_actions(&back.instructions, &|_| None);
            let Some(theirs) = stock(v, flow) else { continue };
            let print = ofp_print(&bytes).unwrap();
            assert!(!print.contains("***"), "{v} {flow}: {print}");
            assert_eq!(said, theirs, "{v} {flow}: our text");
            assert_eq!(print.split_once("actions=").unwrap().1, theirs, "{v} {flow}: our bytes");
            compared += 1;
        }
    }
    assert!(compared > 150, "{compared}");
}
