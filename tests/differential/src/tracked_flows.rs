//! Random flow tables that track connections: each table hands packets on by `ct`, matches what is known of their connections, or
//! does what other flows do.

use std::net::{Ipv4Addr, Ipv6Addr};

use flow::{FieldId, PipelineMatch};
use openflow::action::Action;
use openflow::extension::{Ct, CtFlags, CtZone, Nat, NatAddresses, NatFlags};
use openflow::flow_mod::{FlowMod, FlowModCommand, Instructions};
use openflow::number::{PortNo, TableId};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::generate::{
    ADDRS, PORTS, Stack, TABLES, pick, priority, random_instructions, random_match, stack_of,
};

/// Zones in use.
pub const ZONES: [u16; 3] = [0, 5, 6];

/// New, established, reply, invalid, related, translated, tracked; value and mask.
const STATES: [(u16, u16); 12] = [
    (0x21, 0x21),
    (0x22, 0x22),
    (0x2a, 0x2a),
    (0x22, 0x2a),
    (0x30, 0x30),
    (0x24, 0x24),
    (0x20, 0x30),
    (0x20, 0x20),
    (0x00, 0x20),
    (0x60, 0x60),
    (0xa0, 0xa0),
    (0x20, 0x21),
];

fn nat(r: &mut SmallRng, v6: bool) -> Action {
    let end = match r.random_range(0..5) {
        0 | 1 => return Action::Nat(Box::new(Nat { flags: NatFlags(0), addresses: None, ports: None })),
        2 | 3 => 1,
        _ => 2,
    };
    let addresses = if v6 {
        let a = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
        let b = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x102);
        NatAddresses::V6(a, r.random_bool(0.5).then_some(b))
    } else {
        let a = pick(r, &[0xc633_6401, 0xc633_6401, ADDRS[0]]);
        NatAddresses::V4(Ipv4Addr::from(a), r.random_bool(0.5).then(|| Ipv4Addr::from(a + 2)))
    };
    let ports = match r.random_range(0..3) {
        0 => Some((2000, Some(2999))),
        1 => Some((700, Some(990))),
        _ => None,
    };
    let how = pick(r, &[0, 0, 4, 8, 16]);
    let addresses = (ports.is_none() || r.random_bool(0.8)).then_some(addresses);
    Action::Nat(Box::new(Nat {
        flags: NatFlags(end | if addresses.is_some() || how != 4 { how } else { 0 }),
        addresses,
        ports,
    }))
}

/// A `ct` for packets of IPv4 or IPv6 in `table`; a copy may go on in another one if `forks`.
fn ct(r: &mut SmallRng, table: u8, v6: bool, commits: f64, forks: bool) -> Action {
    let commit = r.random_bool(commits);
    let mut actions = Vec::new();
    if commit && r.random_bool(0.4) {
        let mask = pick(r, &[u32::MAX, 0xff, 0xf0]);
        let value = u128::from((r.random_range(0..4u32) * 0x11) & mask);
        actions.push(Action::SetField { field: FieldId::CtMark, value, mask: mask.into() });
    }
    if commit && r.random_bool(0.25) {
        let mask = pick(r, &[u128::MAX, 0xff << 64, 0xf]);
        let value = (u128::from(r.random_range(1..4u32)) << 64 | 5) & mask;
        actions.push(Action::SetField { field: FieldId::CtLabel, value, mask });
    }
    if r.random_bool(0.5) {
        let n = nat(r, v6);
        let makes = matches!(&n, Action::Nat(n) if n.flags != NatFlags(0));
        if commit || !makes {
            actions.push(n);
        }
    }
    let flags = if commit { 1 | if r.random_bool(0.1) { 2 } else { 0 } } else { 0 };
    let next = (forks && table + 1 < TABLES && r.random_bool(if commit { 0.3 } else { 0.95 }))
        .then(|| TableId(r.random_range(table + 1..TABLES)));
    Action::Ct(Box::new(Ct {
        flags: CtFlags(flags),
        zone: CtZone::Value(pick(r, &ZONES)),
        table: next,
        alg: 0,
        actions,
    }))
}

/// What is done with packets that are tracked.
pub fn tracked_instructions(r: &mut SmallRng, table: u8, m: &PipelineMatch) -> Instructions {
    let stack = stack_of(m);
    let v6 = stack == Stack::Ipv6;
    if matches!(stack, Stack::Ipv4 | Stack::Ipv6) && r.random_bool(0.55) {
        let mut list = Vec::new();
        if r.random_bool(0.2) {
            list.push(Action::DecNwTtl { controllers: Vec::new() });
        }
        if r.random_bool(0.1) {
            list.push(Action::Output { port: PortNo(r.random_range(1..=PORTS)), max_len: 0 });
        }
        let commits = if table == 0 { 0.2 } else { 0.7 };
        list.push(ct(r, table, v6, commits, true));
        // The packet may have been translated: nothing that depends on what it was comes after. There is one copy at most: which
        // of two goes on first depends on what caches know of them.
        match r.random_range(0..6) {
            0..3 => list.push(Action::Output { port: PortNo::ALL, max_len: 0 }),
            3 => list.push(Action::Output { port: PortNo(r.random_range(1..=PORTS)), max_len: 0 }),
            4 => list.extend([Action::CtClear, ct(r, table, v6, 0.5, false)]),
            _ => list.push(ct(r, table, v6, 0.5, false)),
        }
        return Instructions::apply(list);
    }
    let mut i = random_instructions(r, table, stack, m);
    let odd = |a: &Action| {
        matches!(
            a,
            Action::PushMpls(_) | Action::DecMplsTtl | Action::SetField { field: FieldId::MplsLabel, .. }
        )
    };
    i.apply.retain(|a| !odd(a));
    i.write.retain(|a| !odd(a) && matches!(a, Action::Output { .. }));
    if i.apply.is_empty() || r.random_bool(0.3) {
        i.apply.push(Action::Output { port: PortNo::ALL, max_len: 0 });
    }
    i
}

/// A flow to be added; see [`crate::generate::random_flow`].
pub fn tracked_flow(r: &mut SmallRng, serial: u16) -> FlowMod {
    let table = pick(r, &[0, 0, 1, 1, 1, 2, 2, 3]);
    let m = loop {
        let (stack, mut m) = random_match(r, table);
        if stack == Stack::Arp || stack == Stack::Any && r.random_bool(0.7) {
            continue;
        }
        if table > 0 && r.random_bool(0.8) {
            let (value, mask) = pick(r, &STATES);
            m.set_masked(FieldId::CtState, value.into(), mask.into());
            if r.random_bool(0.2) {
                let mask = pick(r, &[u32::MAX, 0xf]);
                m.set_masked(FieldId::CtMark, ((r.random_range(0..4u32) * 0x11) & mask).into(), mask.into());
            }
            if r.random_bool(0.15) {
                m.set_masked(FieldId::CtLabel, r.random_range(0..6), 0xf);
            }
            if r.random_bool(0.15) {
                m.set(FieldId::CtZone, pick(r, &ZONES).into());
            }
            if stack == Stack::Ipv4 && mask & value & 0x20 != 0 && r.random_bool(0.25) {
                m.set_masked(FieldId::CtNwDst, (pick(r, &ADDRS) & 0xffff_0000).into(), 0xffff_0000);
            }
        }
        break m;
    };
    let instructions = tracked_instructions(r, table, &m);
    flow_of(table, priority(serial), m, instructions)
}

/// Priorities from which on flows are not changed.
pub const FIXED: u16 = 65_000;

/// The flows of lowest priority, a firewall: what is unknown is tracked, what is new is remembered, what is known goes everywhere. With
/// half of the tables, what is established does so before anything else is asked.
pub fn base_flows(r: &mut SmallRng) -> Vec<FlowMod> {
    let mut all = Vec::new();
    let lets_pass = r.random_bool(0.5);
    let translates = r.random_bool(if lets_pass { 0.3 } else { 0.7 });
    let zone = CtZone::Value(pick(r, &ZONES));
    for (v6, eth_type, low) in [(false, 0x0800u128, 1), (true, 0x86dd, 0)] {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::EthType, eth_type);
        let any = Action::Nat(Box::new(Nat { flags: NatFlags(0), addresses: None, ports: None }));
        let track = Ct {
            flags: CtFlags(0),
            zone,
            table: Some(TableId(1)),
            alg: 0,
            actions: if translates { vec![any] } else { Vec::new() },
        };
        let mut commit = Ct { flags: CtFlags(1), table: None, ..track.clone() };
        commit.actions = if translates { vec![nat(r, v6)] } else { Vec::new() };
        let everywhere = Action::Output { port: PortNo::ALL, max_len: 0 };
        all.push(flow_of(0, low, m, Instructions::apply(vec![Action::Ct(Box::new(track))])));
        let list = vec![Action::Ct(Box::new(commit)), everywhere];
        all.push(flow_of(1, low, m, Instructions::apply(list.clone())));
        all.push(flow_of(2, low, m, Instructions::apply(list)));
        if lets_pass {
            let everywhere = Action::Output { port: PortNo::ALL, max_len: 0 };
            m.set_masked(FieldId::CtState, 0x22, 0x22);
            all.push(flow_of(1, FIXED + low, m, Instructions::apply(vec![everywhere])));
        }
    }
    all
}

fn flow_of(table: u8, priority: u16, matches: PipelineMatch, instructions: Instructions) -> FlowMod {
    FlowMod {
        table: TableId(table),
        priority,
        cookie: priority.into(),
        matches,
        instructions,
        ..FlowMod::new(FlowModCommand::Add)
    }
}
