//! The same flow as Open vSwitch makes of it: `golden/ovs.txt` has datapath flows and the requests that a stock ovs-vswitchd with
//! `hw-offload=true tc-policy=skip_hw` sent for them. Ours have the same keys and actions, or the file says why not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use flow::PortId;
use flow::text::odp::{parse_actions, parse_match};
use offload::Reject;
use offload_tc::lower_action::lower_actions;
use offload_tc::lower_match::{Can, lower_match};
use offload_tc::message::messages;
use offload_tc::{ActionSpec, Flower, Head, TcAction, Terms};

const FILE: &str = include_str!("golden/ovs.txt");

struct Case {
    name: String,
    flow: String,
    actions: String,
    request: Vec<u8>,
}

/// The flows, and which interface each name is.
fn cases() -> (Vec<Case>, BTreeMap<String, u32>) {
    let (mut all, mut ports) = (Vec::new(), BTreeMap::new());
    let those = |l: &&str| !l.starts_with('#') && !l.starts_with("differs ") && !l.is_empty();
    for line in FILE.lines().filter(those).filter(|l| !l.ends_with(" | lab")) {
        if let Some(p) = line.strip_prefix("interfaces ") {
            for (name, n) in p.split(' ').filter_map(|w| w.split_once('=')) {
                ports.insert(name.to_owned(), n.parse().unwrap());
            }
            continue;
        }
        let [name, flow, actions, hex] = line.splitn(4, " | ").collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let request = (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap());
        let (name, flow, actions) = (name.to_owned(), flow.to_owned(), actions.to_owned());
        all.push(Case { name, flow, actions, request: request.collect() });
    }
    (all, ports)
}

/// An action without what is neither match nor effect: cookies, numbers that the kernel chooses, statistics that are wanted.
fn plain(a: &TcAction) -> TcAction {
    let mut a = TcAction { cookie: None, hw_stats: None, flags: 0, index: 0, ..a.clone() };
    if let ActionSpec::Pedit(keys) = &mut a.spec {
        keys.sort_by_key(|k| (format!("{:?}", k.header), k.offset));
    }
    a
}

fn text(protocol: u16, f: &Flower) -> String {
    let keys: Vec<String> =
        f.keys.iter().map(|k| format!("{}={:#x}/{:#x}", k.key.row().name, k.value, k.mask)).collect();
    let actions: Vec<String> = f.actions.iter().map(|a| format!("{:?}", plain(a))).collect();
    format!("{protocol:#06x} {}\n  {:?} {:?}\n  {}", keys.join(" "), f.mpls, f.enc_opts, actions.join("\n  "))
}

#[test]
fn the_same_flow_is_the_same_filter_or_there_is_a_reason() {
    let (all, interfaces) = cases();
    let reasons: BTreeMap<_, _> =
        FILE.lines().filter_map(|l| l.strip_prefix("differs ")?.split_once(": ")).collect();
    assert!(all.len() >= 30, "{} flows", all.len());
    let ports: Vec<(PortId, u32)> = interfaces.values().map(|i| (PortId(*i + 100), *i)).collect();
    let by_name = |name: &str| interfaces.get(name).map(|i| *i + 100);
    let tunnels: Vec<u32> = interfaces.get("VX").copied().into_iter().collect();
    let none = |_| Err(Reject::NoTables);
    let terms = Terms {
        ports: &ports,
        tunnels: &tunnels,
        internals: &[],
        meter: &|_| None,
        chain: &none,
        can: Can::default(),
    };
    let mut wrong = Vec::new();
    for c in &all {
        let m = messages(&c.request).next().unwrap().unwrap();
        let head = Head::read(m.body).unwrap().unwrap();
        let theirs = text(head.at.protocol, &head.flower().unwrap().0);
        let ours = parse_match(&c.flow, &by_name).map_err(|e| e.to_string()).and_then(|m| {
            let actions = match c.actions.as_str() {
                "drop" => Vec::new(),
                a => parse_actions(a, &by_name).map_err(|e| e.to_string())?,
            };
            let lower = |m| {
                let mut l = lower_match(m, &terms)?;
                lower_actions(&actions, m, &mut l, &terms).map(|()| text(l.protocol, &l.flower))
            };
            lower(&m).map_err(|r| r.to_string())
        });
        let reason = reasons.get(c.name.as_str());
        match (ours.as_ref() == Ok(&theirs), reason) {
            (true, None) | (false, Some(_)) => {}
            (true, Some(_)) => wrong.push(format!("{} has no need of a reason", c.name)),
            (false, None) => {
                let ours = ours.unwrap_or_else(|e| e);
                wrong
                    .push(format!("{}: {} -> {}\nours   {ours}\ntheirs {theirs}", c.name, c.flow, c.actions));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    for (name, why) in reasons {
        assert!(all.iter().any(|c| c.name == name) && !why.is_empty(), "{name}");
    }
}
