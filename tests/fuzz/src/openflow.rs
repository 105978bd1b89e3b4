//! OpenFlow messages and flows as text.

use flow::PipelineMatch;
use openflow::flow_mod::{FlowMod, FlowModCommand};
use openflow::text::{format_actions, parse_flow};
use openflow::{Body, Message, Version, decode, encode};

/// See the table of targets.
pub fn message(data: &[u8]) {
    let Ok(m) = decode(data) else { return };
    // A hello tells of versions and is of none.
    let Some(version) = data.first().and_then(|v| Version::from_wire(*v)) else { return };
    let mut bytes = Vec::new();
    if encode(version, &m, &mut bytes).is_err() {
        return;
    }
    // A reply that is long goes out in parts: the first is enough to be right.
    let first = bytes.get(2..4).map_or(0, |l| usize::from(u16::from_be_bytes([l[0], l[1]])));
    if first != bytes.len() {
        return;
    }
    let again = decode(&bytes);
    if again.as_ref() == Ok(&m) {
        return;
    }
    // Actions of OpenFlow 1.1 are understood in later versions, which have other ways to say the same: from then on it stays.
    let mut second = Vec::new();
    let said = again.as_ref().is_ok_and(|a| encode(version, a, &mut second).is_ok());
    assert!(said && second == bytes, "{version}: {m:?} is {bytes:02x?} is {again:?} is {second:02x?}");
}

/// Messages of each version.
pub fn message_seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let flows = [
        "table=1,priority=10,tcp,nw_dst=192.0.2.0/24,tp_dst=80,actions=output:2",
        "in_port=1,dl_vlan=5,actions=strip_vlan,set_field:02:00:00:00:00:01->eth_dst,NORMAL",
        "ipv6,actions=push_vlan:0x8100,resubmit(,2),load:7->NXM_NX_REG0[],controller",
    ];
    for v in Version::ALL {
        let bodies = [Body::EchoRequest(b"data".to_vec()), Body::FeaturesRequest, Body::BarrierRequest];
        let mods = flows.iter().filter_map(|f| flow(f)).map(|f| Body::FlowMod(Box::new(f)));
        for body in bodies.into_iter().chain(mods) {
            let mut b = Vec::new();
            if encode(v, &Message { xid: 7, body }, &mut b).is_ok() {
                all.push(b);
            }
        }
    }
    all
}

fn flow(text: &str) -> Option<FlowMod> {
    parse_flow(FlowModCommand::Add, text, &|_| None).ok()
}

/// See the table of targets.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(f) = flow(text) else { return };
    let matches = flow::text::ofctl::format(&f.matches);
    let again = flow::text::ofctl::parse(&matches);
    assert_eq!(again.as_ref(), Ok(&f.matches), "{matches}");
    let actions = format_actions(&f.instructions, &|_| None);
    let any = PipelineMatch::ANY;
    let context = if f.matches == any { String::new() } else { matches };
    let whole = format!("{context},actions={actions}");
    match parse_flow(FlowModCommand::Add, &whole, &|_| None) {
        Ok(g) => assert_eq!(format_actions(&g.instructions, &|_| None), actions, "{whole}"),
        Err(e) => panic!("{whole}: {e}"),
    }
}

/// Flows.
pub fn text_seeds() -> Vec<Vec<u8>> {
    [
        "priority=7,tcp,tp_src=80,actions=output:1,2,FLOOD",
        "arp,arp_op=1,actions=move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],IN_PORT",
        "table=3,ip,nw_src=10.0.0.0/8,actions=dec_ttl,group:5,goto_table:4",
        "ipv6,ipv6_dst=2001:db8::/32,actions=learn(table=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])",
        "actions=clone(push_vlan:0x88a8,set_field:4097->vlan_vid,2),write_metadata:0x5/0xff",
        "icmp6,icmp_type=135,nd_target=::1,actions=controller(max_len=64,id=3),note:01.02",
    ]
    .iter()
    .map(|s| s.as_bytes().to_vec())
    .collect()
}
