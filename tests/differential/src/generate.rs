//! Random flow tables and random frames that meet them.
//!
//! Values come from small pools, so that rules overlap, packets hit, and one bit too few in a megaflow's mask shows at once. Each
//! generator is a pure function of its random source.

use flow::{FieldId, PipelineMatch};
use openflow::action::Action;
use openflow::flow_mod::{FlowMod, FlowModCommand, FlowModFlags, Instructions};
use openflow::number::{PortNo, TableId};
use rand::Rng;
use rand::rngs::SmallRng;

/// Tables in use.
pub const TABLES: u8 = 4;
/// Ports of the switch under test: OpenFlow numbers 1 to this.
pub const PORTS: u32 = 4;

pub(crate) const MACS: [u64; 6] = [
    0x0200_0000_0001,
    0x0200_0000_0002,
    0x0200_0000_0003,
    0x0201_0000_0001,
    0xffff_ffff_ffff,
    0x0100_5e00_0001,
];
/// IPv4 addresses of flows and frames.
pub const ADDRS: [u32; 8] =
    [0x0a00_0001, 0x0a00_0002, 0x0a00_0103, 0x0a01_0001, 0x0b00_0001, 0x0b00_8001, 0xc0a8_0101, 0xe000_0001];
const PREFIXES: [u32; 6] = [0xffff_ffff, 0xffff_ff00, 0xffff_0000, 0xff00_0000, 0xf000_0000, 0x8000_0000];
/// Transport ports of flows and frames.
pub const PORT_NUMBERS: [u16; 8] = [22, 53, 80, 81, 443, 1024, 8080, 40000];
const PORT_MASKS: [u16; 4] = [0xffff, 0xfffe, 0xff00, 0x8000];
pub(crate) const VIDS: [u16; 4] = [0, 10, 11, 20];

/// The first four addresses under an IPv6 documentation prefix (RFC 3849), differing high and low.
pub(crate) const ADDRS6: [u128; 4] = [
    0x2001_0db8_0000_0000_0000_0000_0000_0001,
    0x2001_0db8_0000_0000_0000_0000_0000_0002,
    0x2001_0db8_0001_0000_0000_0000_0000_0001,
    0xfe80_0000_0000_0000_0000_0000_0000_0001,
];
const PREFIXES6: [u128; 4] = [u128::MAX, u128::MAX << 64, u128::MAX << 80, u128::MAX << 96];

/// One of `all`.
pub fn pick<T: Copy>(r: &mut SmallRng, all: &[T]) -> T {
    all[r.random_range(0..all.len())]
}

/// What the rest of a match or frame is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stack {
    /// Ethernet only.
    Any,
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// ARP.
    Arp,
}

/// What a match is about.
pub fn stack_of(m: &PipelineMatch) -> Stack {
    match m.get(FieldId::EthType) {
        (0x0800, _) => Stack::Ipv4,
        (0x86dd, _) => Stack::Ipv6,
        (0x0806, _) => Stack::Arp,
        _ => Stack::Any,
    }
}

fn set_eth(r: &mut SmallRng, m: &mut PipelineMatch) {
    if r.random_bool(0.5) {
        m.set(FieldId::InPort, r.random_range(1..=PORTS).into());
    }
    if r.random_bool(0.15) {
        m.set(FieldId::EthSrc, pick(r, &MACS).into());
    }
    if r.random_bool(0.2) {
        match r.random_range(0..4) {
            0 => m.set_masked(FieldId::EthDst, 1 << 40, 1 << 40),
            1 => m.set_masked(FieldId::EthDst, pick(r, &MACS).into(), 0xffff_ff00_0000),
            _ => m.set(FieldId::EthDst, pick(r, &MACS).into()),
        }
    }
    match r.random_range(0..10) {
        0 => m.set(FieldId::VlanVid, 0),
        1 => m.set_masked(FieldId::VlanVid, 0x1000, 0x1000),
        2 => m.set(FieldId::VlanVid, (0x1000 | pick(r, &VIDS)).into()),
        3 => {
            m.set(FieldId::VlanVid, (0x1000 | pick(r, &VIDS)).into());
            m.set(FieldId::VlanPcp, r.random_range(0..8));
        }
        _ => {}
    }
}

fn set_l4(r: &mut SmallRng, m: &mut PipelineMatch, v6: bool) {
    let proto = pick(r, &[6u8, 17, if v6 { 58 } else { 1 }]);
    m.set(FieldId::NwProto, proto.into());
    let port = |r: &mut SmallRng, m: &mut PipelineMatch, f| {
        let mask = pick(r, &PORT_MASKS);
        m.set_masked(f, (pick(r, &PORT_NUMBERS) & mask).into(), mask.into());
    };
    match proto {
        6 => {
            if r.random_bool(0.4) {
                port(r, m, FieldId::TcpDst);
            }
            if r.random_bool(0.2) {
                port(r, m, FieldId::TcpSrc);
            }
            if r.random_bool(0.15) {
                let mask = pick(r, &[0x002u16, 0x012, 0x004]);
                m.set_masked(FieldId::TcpFlags, (mask & r.random::<u16>()).into(), mask.into());
            }
        }
        17 => {
            if r.random_bool(0.4) {
                port(r, m, FieldId::UdpDst);
            }
            if r.random_bool(0.2) {
                port(r, m, FieldId::UdpSrc);
            }
        }
        _ if r.random_bool(0.5) => {
            let (f, types) =
                if v6 { (FieldId::Icmp6Type, [128u8, 129, 135]) } else { (FieldId::Icmp4Type, [8, 0, 3]) };
            m.set(f, pick(r, &types).into());
        }
        _ => {}
    }
}

/// A match about some protocol stack, its prerequisites included.
pub fn random_match(r: &mut SmallRng, table: u8) -> (Stack, PipelineMatch) {
    let mut m = PipelineMatch::ANY;
    set_eth(r, &mut m);
    if table > 0 && r.random_bool(0.3) {
        let mask = pick(r, &[u64::MAX, 0xff, 0x3]);
        m.set_masked(FieldId::Metadata, (r.random_range(0..4u64) & mask).into(), mask.into());
    }
    let stack = pick(r, &[Stack::Any, Stack::Ipv4, Stack::Ipv4, Stack::Ipv4, Stack::Ipv6, Stack::Arp]);
    match stack {
        Stack::Any => {}
        Stack::Ipv4 => {
            m.set(FieldId::EthType, 0x0800);
            for f in [FieldId::NwSrc, FieldId::NwDst] {
                if r.random_bool(0.4) {
                    let mask = pick(r, &PREFIXES);
                    m.set_masked(f, (pick(r, &ADDRS) & mask).into(), mask.into());
                }
            }
            if r.random_bool(0.1) {
                m.set(FieldId::IpDscp, pick(r, &[0u8, 10, 46]).into());
            }
            if r.random_bool(0.4) {
                set_l4(r, &mut m, false);
            }
        }
        Stack::Ipv6 => {
            m.set(FieldId::EthType, 0x86dd);
            for f in [FieldId::Ipv6Src, FieldId::Ipv6Dst] {
                if r.random_bool(0.3) {
                    let mask = pick(r, &PREFIXES6);
                    m.set_masked(f, pick(r, &ADDRS6) & mask, mask);
                }
            }
            if r.random_bool(0.4) {
                set_l4(r, &mut m, true);
            }
        }
        Stack::Arp => {
            m.set(FieldId::EthType, 0x0806);
            if r.random_bool(0.4) {
                m.set(FieldId::ArpOp, r.random_range(1..3));
            }
            if r.random_bool(0.3) {
                m.set(FieldId::ArpTpa, pick(r, &ADDRS).into());
            }
        }
    }
    (stack, m)
}

fn set_field(field: FieldId, value: u128) -> Action {
    Action::SetField { field, value, mask: field.info().max() }
}

fn random_action(r: &mut SmallRng, stack: Stack, m: &PipelineMatch) -> Action {
    let tagged = m.get(FieldId::VlanVid).0 & 0x1000 != 0;
    let proto = m.get(FieldId::NwProto);
    loop {
        return match r.random_range(0..17) {
            0..6 => Action::Output { port: PortNo(r.random_range(1..=PORTS)), max_len: 0 },
            6 => Action::Output { port: pick(r, &[PortNo::IN_PORT, PortNo::ALL, PortNo::FLOOD]), max_len: 0 },
            7 if r.random_bool(0.3) => Action::Output { port: PortNo::CONTROLLER, max_len: 0xffff },
            8 => set_field(pick(r, &[FieldId::EthSrc, FieldId::EthDst]), pick(r, &MACS).into()),
            9 => Action::PushVlan(pick(r, &[0x8100, 0x8100, 0x88a8])),
            16 if r.random_bool(0.3) => pick_mpls(r),
            10 if tagged => Action::PopVlan,
            11 if tagged => set_field(FieldId::VlanVid, (0x1000 | pick(r, &VIDS)).into()),
            12 if stack == Stack::Ipv4 => {
                set_field(pick(r, &[FieldId::NwSrc, FieldId::NwDst]), pick(r, &ADDRS).into())
            }
            12 if stack == Stack::Ipv6 => {
                set_field(pick(r, &[FieldId::Ipv6Src, FieldId::Ipv6Dst]), pick(r, &ADDRS6))
            }
            13 if matches!(stack, Stack::Ipv4 | Stack::Ipv6) => Action::DecNwTtl { controllers: Vec::new() },
            14 if proto.1 != 0 && proto.0 == 6 => {
                set_field(pick(r, &[FieldId::TcpSrc, FieldId::TcpDst]), pick(r, &PORT_NUMBERS).into())
            }
            14 if proto.1 != 0 && proto.0 == 17 => {
                set_field(pick(r, &[FieldId::UdpSrc, FieldId::UdpDst]), pick(r, &PORT_NUMBERS).into())
            }
            15 if matches!(stack, Stack::Ipv4 | Stack::Ipv6) => {
                set_field(FieldId::IpDscp, pick(r, &[0u128, 10, 46]))
            }
            _ => continue,
        };
    }
}

/// A label comes on, or the outermost one changes. Popping one is left out: what is below would have to be parsed again.
fn pick_mpls(r: &mut SmallRng) -> Action {
    match r.random_range(0..4) {
        0 | 1 => Action::PushMpls(pick(r, &[0x8847, 0x8848])),
        2 => set_field(FieldId::MplsLabel, r.random_range(16..64)),
        _ => Action::DecMplsTtl,
    }
}

/// Instructions that go with a match.
pub fn random_instructions(r: &mut SmallRng, table: u8, stack: Stack, m: &PipelineMatch) -> Instructions {
    let mut i = Instructions::default();
    if r.random_bool(0.9) {
        i.apply = (0..r.random_range(1..4)).map(|_| random_action(r, stack, m)).collect();
    }
    if r.random_bool(0.15) {
        i.clear = true;
    }
    if r.random_bool(0.25) {
        i.write = (0..r.random_range(1..3)).map(|_| random_action(r, stack, m)).collect();
    }
    if table + 1 < TABLES && r.random_bool(0.4) {
        i.goto_table = Some(TableId(r.random_range(table + 1..TABLES)));
        if r.random_bool(0.5) {
            let mask = pick(r, &[u64::MAX, 0xff, 0x3]);
            i.metadata = Some((r.random_range(0..4u64) & mask, mask));
        }
    }
    i
}

/// Priority number `serial` of a sequence without repetition up to 60,000 of them: new flows come above, below and between
/// old ones. 2 at least.
pub fn priority(serial: u16) -> u16 {
    (u32::from(serial) * 40_503 % 60_013) as u16 + 2
}

/// A flow to be added. Priorities are distinct (`serial` sees to it), so that the verdict is defined.
pub fn random_flow(r: &mut SmallRng, serial: u16) -> FlowMod {
    let table = r.random_range(0..TABLES);
    let (stack, matches) =
        if r.random_bool(0.03) { (Stack::Any, PipelineMatch::ANY) } else { random_match(r, table) };
    flow_of(r, table, priority(serial), stack, matches)
}

/// The flow of lowest priority of a table, for what nothing else matches.
pub fn random_miss_flow(r: &mut SmallRng, table: u8) -> FlowMod {
    let mut f = flow_of(r, table, 1, Stack::Any, PipelineMatch::ANY);
    if table + 1 < TABLES && r.random_bool(0.7) {
        f.instructions.goto_table = Some(TableId(r.random_range(table + 1..TABLES)));
    } else if f.instructions.apply.is_empty() {
        f.instructions.apply = vec![Action::Output { port: PortNo(r.random_range(1..=PORTS)), max_len: 0 }];
    }
    f
}

fn flow_of(r: &mut SmallRng, table: u8, priority: u16, stack: Stack, matches: PipelineMatch) -> FlowMod {
    let instructions = random_instructions(r, table, stack, &matches);
    FlowMod {
        table: TableId(table),
        priority,
        cookie: priority.into(),
        flags: FlowModFlags::NONE,
        matches,
        instructions,
        ..FlowMod::new(FlowModCommand::Add)
    }
}
