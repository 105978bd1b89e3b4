use super::*;
use crate::action::Action;
use crate::flow_mod::{FlowMod, FlowModCommand};
use crate::number::{PortNo, TableId};
use flow::FieldId;

fn add(text: &str) -> FlowMod {
    parse_flow(FlowModCommand::Add, text, &|n| (n == "n1").then_some(7))
        .unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn actions(text: &str) -> String {
    format_actions(&add(text).instructions, &|_| None)
}

#[test]
fn a_flow_has_its_keywords_match_and_actions() {
    let f = add(
        "table=3, priority=10 cookie=0x12,idle_timeout=5,tcp,nw_dst=10.0.0.0/8,send_flow_rem,actions=output:n1",
    );
    assert_eq!((f.table, f.priority, f.cookie, f.cookie_mask, f.idle_timeout), (TableId(3), 10, 0x12, 0, 5));
    assert_eq!(f.matches.get(FieldId::NwDst), (0x0a00_0000, 0xff00_0000));
    assert_eq!(f.instructions.apply, [Action::Output { port: PortNo(7), max_len: 0 }]);
    let d = parse_flow(FlowModCommand::Delete, "cookie=1/-1,ip", &|_| None).unwrap();
    assert_eq!((d.cookie, d.cookie_mask, d.table), (1, u64::MAX, TableId::ALL));
}

#[test]
fn actions_print_as_they_are_read() {
    for text in [
        "drop",
        "output:3",
        "NORMAL",
        "IN_PORT",
        "CONTROLLER:128",
        "controller(reason=invalid_ttl,max_len=100,id=3)",
        "set_field:00:00:00:00:00:01->eth_src,set_field:10.0.0.1->ip_dst,output:LOCAL",
        "push_vlan:0x8100,set_field:4103->vlan_vid,pop_vlan",
        "dec_ttl,dec_ttl(1,2),mod_nw_ttl:9",
        "push_mpls:0x8847,set_field:5->mpls_label,set_mpls_ttl(3),dec_mpls_ttl,pop_mpls:0x0800",
        "load:0x5->NXM_NX_REG0[],load:0x1->NXM_NX_REG1[3],load:0x1->NXM_OF_IP_TOS[2..7]",
        "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],output:NXM_NX_REG0[0..15]",
        "resubmit:3,resubmit(,2),resubmit(4,5)",
        "output(port=2,max_len=100),group:5,set_queue:3,pop_queue,exit",
        "set_field:0x1/0x3->reg3,note:01.02.03.00.00.00",
        "meter:3,output:1,clear_actions,write_actions(output:4,group:2),write_metadata:0x12/0xff,goto_table:7",
    ] {
        // Reserved ports print bare.
        let want = text.replace("output:LOCAL", "LOCAL");
        assert_eq!(
            actions(&format!("ip,actions={}", text.replace("set_mpls_ttl(3)", "set_mpls_ttl:3"))),
            want
        );
    }
}

#[test]
fn old_names_stay_what_they_say() {
    for (text, want) in [
        ("actions=mod_vlan_vid:7,mod_vlan_pcp:2", "mod_vlan_vid:7,mod_vlan_pcp:2"),
        ("udp,actions=mod_tp_dst:80", "mod_tp_dst:80"),
        ("ip,actions=mod_nw_tos:8", "mod_nw_tos:8"),
        ("actions=enqueue:1:2", "enqueue:1:2"),
        ("actions=2,n1,LOCAL", "output:2,output:7,LOCAL"),
        ("actions=controller", "CONTROLLER:65535"),
        ("actions=set_tunnel:0x5", "set_tunnel:0x5"),
    ] {
        assert_eq!(actions(text), want, "{text}");
    }
}

#[test]
fn what_is_wrong_is_said() {
    let bad = |t: &str| parse_flow(FlowModCommand::Add, t, &|_| None).unwrap_err();
    assert_eq!(bad("tcp"), FlowTextError::NoActions);
    assert_eq!(bad("actions=frobnicate"), FlowTextError::UnknownAction("frobnicate".into()));
    assert_eq!(bad("actions=write_actions(output:1"), FlowTextError::Parentheses);
    assert!(matches!(bad("priority=70000,actions=drop"), FlowTextError::Keyword { .. }));
    assert!(matches!(bad("nonsense=1,actions=drop"), FlowTextError::Match(_)));
    for action in [
        "mod_tp_dst:70000",
        "load:4->NXM_NX_REG0[0..1]",
        "load:1->NXM_NX_REG0[30..32]",
        "set_field:5->eth_type",
        "push_vlan:0x800",
        "move:NXM_NX_REG0[]->NXM_OF_ETH_SRC[]",
        "ct(force)",
        "learn(table=255)",
        "conjunction(1,4/3)",
        "bundle(eth_src,0,hrw,ofport)",
        "multipath(eth_src,50,modulo_n,5,0,NXM_NX_REG0[0..1])",
        "nat(src=10.0.0.1)",
        "encap(gre)",
        "note:1",
        "group:",
    ] {
        let e = bad(&format!("actions={action}"));
        assert!(
            matches!(e, FlowTextError::Argument { .. } | FlowTextError::UnknownAction(_)),
            "{action}: {e}"
        );
    }
    let e = parse_file("# flows\n\ntcp,actions=1 # one\nudp,actions=oops\n", &|_| None).unwrap_err();
    assert_eq!(e.line, 4);
}

#[test]
fn a_file_may_change_and_delete() {
    let all = parse_file(
        "add ip,actions=1\nmodify ip,actions=2\ndelete_strict priority=5,ip\nudp actions=3",
        &|_| None,
    )
    .unwrap();
    let commands: Vec<_> = all.iter().map(|f| f.command).collect();
    use FlowModCommand::*;
    assert_eq!(commands, [Add, Modify, DeleteStrict, Add]);
}
