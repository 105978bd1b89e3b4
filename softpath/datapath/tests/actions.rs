//! Property: the datapath executes actions as a plain interpreter does, which was written apart from it, works on one
//! packet at a time, finds headers by itself and computes every checksum anew.

mod rig;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use datapath_api::{
    Datapath, DropReason, FlowCounters, FlowRecord, Miss, MissHandler, Translation, Translations,
};
use flow::frame::FrameBuilder;
use flow::{Action, ControllerAction, FieldId, FlowId, PacketMask, PacketMatch, PortId, PuntReason};
use proptest::prelude::*;
use rig::Rig;

/// What a packet came to, or all packets together.
#[derive(Default, Debug, PartialEq)]
struct Outcome {
    sent: BTreeMap<u32, Vec<Vec<u8>>>,
    punts: Vec<Vec<u8>>,
    drops: BTreeMap<DropReason, u64>,
}

const PORTS: std::ops::RangeInclusive<u32> = 1..=4;
const MAX_PASSES: u8 = 3;

// ---- the interpreter -------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy, PartialEq)]
enum Net {
    Arp,
    V4,
    V6,
    Other,
}

/// A frame, and how many of its VLAN tags are known: those seen on arrival, two at most, and those pushed since. A further
/// one is payload.
#[derive(Clone)]
struct Frame {
    bytes: Vec<u8>,
    tags: usize,
}

impl std::ops::Deref for Frame {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl std::ops::DerefMut for Frame {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

fn tagged(f: &[u8], at: usize) -> bool {
    matches!(u16at(f, at), 0x8100 | 0x88a8)
}

fn arrived(bytes: Vec<u8>) -> Frame {
    let tags = [12, 16].iter().take_while(|at| tagged(&bytes, **at)).count();
    Frame { bytes, tags }
}

/// Where things are: (offset of the last Ethernet type, network header, transport header, protocol, end).
struct Found {
    mpls: Option<usize>,
    l3: usize,
    net: Net,
    l4: Option<usize>,
    proto: u8,
    end: usize,
}

fn u16at(f: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([f[at], f[at + 1]])
}

/// Reads well-formed frames only: those of the generator, before and after actions.
fn find(f: &Frame) -> Found {
    let at = 12 + 4 * f.tags;
    let l3 = at + 2;
    let mut found = Found { mpls: None, l3, net: Net::Other, l4: None, proto: 0, end: f.len() };
    match u16at(f, at) {
        0x8847 | 0x8848 => found.mpls = Some(l3),
        0x0806 => found.net = Net::Arp,
        0x0800 => {
            found.net = Net::V4;
            found.proto = f[l3 + 9];
            found.end = l3 + usize::from(u16at(f, l3 + 2));
            let later = u16at(f, l3 + 6) & 0x1fff != 0;
            found.l4 = (!later).then_some(l3 + usize::from(f[l3] & 15) * 4);
        }
        0x86dd => {
            found.net = Net::V6;
            found.proto = f[l3 + 6];
            found.end = l3 + 40 + usize::from(u16at(f, l3 + 4));
            found.l4 = Some(l3 + 40);
        }
        _ => {}
    }
    found
}

fn ones(bytes: impl Iterator<Item = u8>) -> u16 {
    let mut s = 0u32;
    for (i, b) in bytes.enumerate() {
        s += u32::from(b) << if i % 2 == 0 { 8 } else { 0 };
        s = (s & 0xffff) + (s >> 16);
    }
    !(s as u16)
}

fn castagnoli(data: &[u8]) -> u32 {
    let mut c = u32::MAX;
    for b in data {
        c ^= u32::from(*b);
        for _ in 0..8 {
            c = if c & 1 == 1 { c >> 1 ^ 0x82f6_3b78 } else { c >> 1 };
        }
    }
    !c
}

/// Makes all checksums right.
fn fix(f: &mut Frame) {
    let Found { l3, net, l4, proto, end, .. } = find(f);
    if net == Net::V4 {
        f[l3 + 10..l3 + 12].fill(0);
        let header = usize::from(f[l3] & 15) * 4;
        let c = ones(f[l3..l3 + header].iter().copied());
        f[l3 + 10..l3 + 12].copy_from_slice(&c.to_be_bytes());
        if u16at(f, l3 + 6) & 0x3fff != 0 {
            return; // A fragment's transport checksum is over more than this.
        }
    }
    let (addresses, pseudo) = match net {
        Net::V4 => (f[l3 + 12..l3 + 20].to_vec(), true),
        Net::V6 => (f[l3 + 8..l3 + 40].to_vec(), true),
        _ => return,
    };
    let Some(l4) = l4 else { return };
    let at = match proto {
        6 => 16,
        17 => 6,
        1 => 2,
        58 => 2,
        132 => {
            f[l4 + 8..l4 + 12].fill(0);
            let c = castagnoli(&f[l4..end]);
            f[l4 + 8..l4 + 12].copy_from_slice(&c.to_le_bytes());
            return;
        }
        _ => return,
    };
    if proto == 17 && u16at(f, l4 + 6) == 0 {
        return;
    }
    f[l4 + at..l4 + at + 2].fill(0);
    let len = (end - l4) as u32;
    let head: Vec<u8> = match pseudo && proto != 1 {
        true => [&addresses[..], &len.to_be_bytes(), &[0, proto]].concat(),
        false => vec![],
    };
    let c = match ones(head.into_iter().chain(f[l4..end].iter().copied())) {
        0 if proto == 17 => 0xffff,
        c => c,
    };
    f[l4 + at..l4 + at + 2].copy_from_slice(&c.to_be_bytes());
}

/// Bytes a field lies in, as (offset, length), and how far its lowest bit is from theirs.
fn place(f: &Frame, field: FieldId) -> Option<(usize, usize, u32)> {
    let Found { mpls, l3, net, l4, proto, end } = find(f);
    let ip = matches!(net, Net::V4 | Net::V6);
    let ports = ip && matches!(proto, 6 | 17 | 132);
    let icmp = net == Net::V4 && proto == 1 || net == Net::V6 && proto == 58;
    let nd = net == Net::V6 && proto == 58 && l4.is_some_and(|l| matches!(f[l], 135 | 136) && f[l + 1] == 0);
    let option = |kind: u8| {
        let mut at = l4? + 24;
        while at + 8 <= end {
            if f[at] == kind {
                return Some((at + 2, 6, 0));
            }
            at += usize::from(f[at + 1]).max(1) * 8;
        }
        None
    };
    match field {
        FieldId::EthDst => Some((0, 6, 0)),
        FieldId::EthSrc => Some((6, 6, 0)),
        FieldId::VlanTci => tagged(f, 12).then_some((14, 2, 0)),
        FieldId::MplsLse0 => mpls.map(|m| (m, 4, 0)),
        FieldId::NwSrc if net == Net::V4 => Some((l3 + 12, 4, 0)),
        FieldId::NwDst if net == Net::V4 => Some((l3 + 16, 4, 0)),
        FieldId::NwSrc if net == Net::Arp => Some((l3 + 14, 4, 0)),
        FieldId::NwDst if net == Net::Arp => Some((l3 + 24, 4, 0)),
        FieldId::NwProto if net == Net::Arp => Some((l3 + 6, 2, 0)),
        FieldId::ArpSha if net == Net::Arp => Some((l3 + 8, 6, 0)),
        FieldId::ArpTha if net == Net::Arp => Some((l3 + 18, 6, 0)),
        FieldId::NwTos if net == Net::V4 => Some((l3 + 1, 1, 0)),
        FieldId::NwTtl if net == Net::V4 => Some((l3 + 8, 1, 0)),
        FieldId::NwTos if net == Net::V6 => Some((l3, 2, 4)),
        FieldId::NwTtl if net == Net::V6 => Some((l3 + 7, 1, 0)),
        FieldId::Ipv6Label if net == Net::V6 => Some((l3, 4, 0)),
        FieldId::Ipv6Src if net == Net::V6 => Some((l3 + 8, 16, 0)),
        FieldId::Ipv6Dst if net == Net::V6 => Some((l3 + 24, 16, 0)),
        FieldId::TpSrc if ports => l4.map(|l| (l, 2, 0)),
        FieldId::TpDst if ports => l4.map(|l| (l + 2, 2, 0)),
        FieldId::TpSrc if icmp => l4.map(|l| (l, 1, 0)),
        FieldId::TpDst if icmp => l4.map(|l| (l + 1, 1, 0)),
        FieldId::NdTarget if nd => l4.map(|l| (l + 8, 16, 0)),
        FieldId::ArpSha if nd => option(1),
        FieldId::ArpTha if nd => option(2),
        _ => None,
    }
}

fn set(f: &mut Frame, field: FieldId, value: u128, mask: u128) {
    let Some((at, len, shift)) = place(f, field) else { return };
    let mut mask = mask & field.info().max();
    if field == FieldId::VlanTci {
        mask &= 0xefff;
    }
    if len == 1 {
        mask &= 0xff;
    }
    for i in 0..len {
        let down = 8 * (len - 1 - i) as u32;
        let byte = |v: u128| (v << shift >> down) as u8;
        f[at + i] = f[at + i] & !byte(mask) | byte(value) & byte(mask);
    }
    fix(f);
}

/// Interprets `actions`; recirculated packets are appended to `again`.
fn interpret(
    mut f: Frame,
    actions: &[Action],
    out: &mut Outcome,
    again: &mut VecDeque<(Vec<u8>, u32, u8)>,
    pass: u8,
) {
    let mut given = false;
    let mut cut = None;
    for (i, a) in actions.iter().enumerate() {
        match a {
            Action::Output(p) => {
                given = true;
                let n = cut.take().unwrap_or(f.len()).min(f.len());
                if PORTS.contains(&p.0) {
                    out.sent.entry(p.0).or_default().push(f[..n].to_vec());
                } else {
                    *out.drops.entry(DropReason::NoSuchPort).or_default() += 1;
                }
            }
            Action::Controller(_) => {
                given = true;
                out.punts.push(f.bytes.clone());
            }
            Action::SetField { field, value, mask } => set(&mut f, *field, *value, *mask),
            Action::DecTtl => {
                let l3 = find(&f).l3;
                let at = match find(&f).net {
                    Net::V4 => l3 + 8,
                    Net::V6 => l3 + 7,
                    _ => continue,
                };
                if f[at] < 2 {
                    *out.drops.entry(DropReason::TtlExceeded).or_default() += 1;
                    return;
                }
                f[at] -= 1;
                fix(&mut f);
            }
            Action::PushVlan { tpid, tci } => {
                let tag = [tpid.to_be_bytes(), (tci & 0xefff).to_be_bytes()].concat();
                f.splice(12..12, tag);
                f.tags += 1;
            }
            Action::PopVlan => {
                if tagged(&f, 12) {
                    f.drain(12..16);
                    f = match f.tags {
                        0 => arrived(f.bytes),
                        n => Frame { bytes: f.bytes, tags: n - 1 },
                    };
                }
            }
            Action::PushMpls { eth_type, lse } => {
                let l3 = find(&f).l3;
                f.splice(l3..l3, lse.to_be_bytes());
                f[l3 - 2..l3].copy_from_slice(&eth_type.to_be_bytes());
            }
            Action::PopMpls { eth_type } => {
                if let Some(m) = find(&f).mpls {
                    f.drain(m..m + 4);
                    f[m - 2..m].copy_from_slice(&eth_type.to_be_bytes());
                }
            }
            Action::Recirc(id) => {
                given = true;
                if pass >= MAX_PASSES {
                    *out.drops.entry(DropReason::RecircLimit).or_default() += 1;
                } else {
                    again.push_back((f.bytes.clone(), *id, pass + 1));
                }
            }
            Action::Meter(_)
            | Action::Hash { .. }
            // Of `bonds.rs`.
            | Action::LbOutput(_)
            | Action::Ct(_)
            | Action::CtClear
            | Action::TunnelPush(_)
            | Action::TunnelPop { .. }
            // Tests of their own: `packet_types.rs`.
            | Action::AddMpls { .. }
            | Action::PushEth { .. }
            | Action::PopEth
            | Action::PushNsh(_)
            | Action::PopNsh
            // Copies that nobody need get.
            | Action::Sample(_)
            | Action::Export(_) => {}
            Action::Trunc(n) => cut = Some(*n as usize),
            Action::Clone(list) => {
                given = true;
                interpret(f.clone(), list, out, again, pass);
            }
            Action::CheckLength(c) => {
                given = true;
                let list = c.of(f.bytes.len());
                if !list.is_empty() || i + 1 == actions.len() {
                    interpret(f.clone(), list, out, again, pass);
                }
            }
        }
    }
    if !given {
        *out.drops.entry(DropReason::Action).or_default() += 1;
    }
}

// ---- generators ------------------------------------------------------------------------------------------------------

fn frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop::collection::vec(any::<u8>(), 0..60);
    let ends = (any::<u16>(), any::<u16>(), 1..4u8, any::<u8>());
    (0..9u8, any::<[u8; 4]>(), any::<[u8; 16]>(), ends, payload, 0..4u8, 0..3u8).prop_map(
        |(kind, a, b, (sp, dp, ttl, tos), payload, vlans, pad)| {
            let mut f = FrameBuilder::new();
            for v in 0..vlans.min(2) {
                f = f.vlan(u16::from(a[usize::from(v)]), b[0] & 7);
            }
            let v4 = |f: FrameBuilder| f.ipv4(a, [b[0], b[1], b[2], b[3]]).ttl(ttl).tos(tos);
            let v6 = |f: FrameBuilder| f.ipv6(b, [a[0]; 16]).ttl(ttl).tos(tos).flow_label(u32::from(sp));
            f = match kind {
                0 => v4(f).tcp(sp, dp),
                1 => v4(f).udp(sp, dp),
                2 => v4(f).sctp(sp, dp),
                3 => v4(f).icmp(a[0], a[1], u32::from(dp)),
                4 => v6(f).tcp(sp, dp),
                5 => v6(f).udp(sp, dp),
                6 => {
                    let option = (1 + (dp & 1) as u8, flow::MacAddr([1, 2, 3, 4, 5, a[0]]));
                    v6(f).neighbour(if sp % 2 == 0 { 135 } else { 136 }, b, &[option])
                }
                7 => f.arp_request(a, [b[0], b[1], b[2], b[3]]),
                _ => f.eth_type(0x88b5),
            };
            if kind != 7 && kind != 6 {
                f = f.payload(&payload);
            }
            if pad == 1 { f.pad_to(120).build() } else { f.build() }
        },
    )
}

const FIELDS: [FieldId; 19] = [
    FieldId::EthDst,
    FieldId::EthSrc,
    FieldId::VlanTci,
    FieldId::MplsLse0,
    FieldId::NwSrc,
    FieldId::NwDst,
    FieldId::NwProto,
    FieldId::NwTos,
    FieldId::NwTtl,
    FieldId::Ipv6Src,
    FieldId::Ipv6Dst,
    FieldId::Ipv6Label,
    FieldId::ArpSha,
    FieldId::ArpTha,
    FieldId::NdTarget,
    FieldId::TpSrc,
    FieldId::TpDst,
    FieldId::PktMark,
    FieldId::TunId,
];

fn set_field() -> impl Strategy<Value = Action> {
    (0..FIELDS.len(), any::<u128>(), prop_oneof![Just(u128::MAX), any::<u128>()]).prop_map(
        |(i, value, mask)| {
            let field = FIELDS[i];
            let max = if matches!(field, FieldId::NwProto) { 0xff } else { field.info().max() };
            // ICMP type and code: setting them may turn other messages into neighbour discovery and back.
            Action::SetField { field, value: value & max, mask: (mask & max).max(1) }
        },
    )
}

fn controller() -> Action {
    Action::Controller(ControllerAction {
        reason: PuntReason::Action,
        cookie: 1,
        in_port: 1,
        ..ControllerAction::default()
    })
}

fn action() -> impl Strategy<Value = Action> {
    let leaf = prop_oneof![
        4 => (1..6u32).prop_map(|p| Action::Output(PortId(p))),
        6 => set_field(),
        1 => Just(Action::DecTtl),
        1 => (any::<bool>(), any::<u16>()).prop_map(|(s, tci)| {
            Action::PushVlan { tpid: if s { 0x88a8 } else { 0x8100 }, tci }
        }),
        1 => Just(Action::PopVlan),
        1 => any::<u32>().prop_map(|lse| Action::PushMpls { eth_type: 0x8847, lse: lse | 0x100 }),
        1 => Just(Action::PopMpls { eth_type: 0x0900 }),
        1 => Just(controller()),
        1 => (1..3u32).prop_map(Action::Recirc),
        1 => (14..80u32).prop_map(Action::Trunc),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        let list = || prop::collection::vec(inner.clone(), 0..4).prop_map(Vec::into_boxed_slice);
        prop_oneof![
            3 => list().prop_map(Action::Clone),
            1 => (40..120u16, list(), list()).prop_map(|(bytes, longer, others)| {
                Action::CheckLength(Box::new(flow::LengthCheck { bytes, longer, others }))
            }),
        ]
    })
}

/// Answers by recirculation id, each packet for itself.
struct ByPass(Vec<Vec<Action>>);

impl MissHandler for ByPass {
    fn translate(&self, misses: &[Miss], now: clock::Instant, out: &mut Translations) {
        let mut mask = PacketMask::ZERO;
        mask.set_exact(FieldId::RecircId);
        for m in misses {
            let id = m.key.get64(FieldId::RecircId);
            out.push(Translation::Keep(Arc::new(FlowRecord {
                id: FlowId(id),
                matches: PacketMatch::new(&m.key, &mask).into(),
                actions: self.0[id as usize].clone().into(),
                counters: Arc::new(FlowCounters::default()),
                owner: Arc::new(()),
                created: now,
            })));
        }
    }
}

fn outcome(rig: &mut Rig) -> Outcome {
    let mut o = Outcome::default();
    for p in PORTS {
        let v = rig.received(p);
        if !v.is_empty() {
            o.sent.insert(p, v);
        }
    }
    o.punts = rig.sink.punts.lock().unwrap_or_else(|e| e.into_inner()).drain(..).map(|p| p.packet).collect();
    o.drops = rig::drops(rig).into_iter().collect();
    o
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn actions_do_what_the_plain_interpreter_does(
        frames in prop::collection::vec(frame(), 1..5),
        lists in prop::collection::vec(prop::collection::vec(action(), 0..7), 3),
    ) {
        let mut rig = Rig::with_handler(4, Arc::new(ByPass(lists.clone())), |c| c.max_passes = MAX_PASSES);
        let mut expected = Outcome::default();
        for f in &frames {
            let mut again = VecDeque::from([(f.clone(), 0, 1)]);
            while let Some((f, id, pass)) = again.pop_front() {
                interpret(arrived(f), &lists[id as usize], &mut expected, &mut again, pass);
            }
            // One at a time, so that recirculated packets keep their order.
            rig.send(1, f);
            rig.poll();
        }
        let got = outcome(&mut rig);
        prop_assert_eq!(&got, &expected);
        let stats = rig.dp.stats();
        prop_assert_eq!(stats.tx_packets, expected.sent.values().map(|v| v.len() as u64).sum::<u64>());
        prop_assert_eq!(stats.punts, expected.punts.len() as u64);
        prop_assert_eq!(rig.pool.free_cells(), rig.pool.cells() as usize);
    }

    #[test]
    fn damaged_frames_are_forwarded_or_dropped_but_never_lost(
        f in frame(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        list in prop::collection::vec(action(), 1..8),
    ) {
        let mut f = f;
        for (at, v) in changes {
            let n = f.len();
            f[at.index(n)] = v;
        }
        f.truncate(cut.index(f.len() + 1));
        let only_moves: Vec<_> = list.into_iter().filter(|a| !matches!(a, Action::Recirc(_) | Action::Clone(_) | Action::CheckLength(_))).collect();
        let deliveries = only_moves.iter().filter(|a| matches!(a, Action::Output(_) | Action::Controller(_))).count();
        let mut rig = Rig::with_handler(4, Arc::new(ByPass(vec![only_moves])), |_| ());
        rig.send(1, &f);
        rig.poll();
        let s = rig.dp.stats();
        let ends = s.tx_packets + s.punts + s.drops.iter().sum::<u64>();
        let early: u64 = [DropReason::TtlExceeded, DropReason::Runt, DropReason::Malformed, DropReason::NoHeadroom]
            .into_iter()
            .map(|r| s.drops[r as usize])
            .sum();
        prop_assert!(ends == deliveries.max(1) as u64 || early == 1 && ends <= deliveries as u64 + 1, "{:?}", s);
        rig.received(2);
        rig.received(3);
        rig.received(4);
        rig.received(1);
        prop_assert_eq!(rig.pool.free_cells(), rig.pool.cells() as usize);
    }
}

#[test]
fn headers_behind_a_third_pushed_tag_are_still_edited() {
    let tag = |tci| Action::PushVlan { tpid: 0x88a8, tci };
    let set = |field, value| Action::SetField { field, value, mask: field.info().max() };
    let edits = [
        Action::DecTtl,
        set(FieldId::NwSrc, 0x0a0b_0c0d),
        set(FieldId::TpDst, 4444),
        Action::Output(PortId(2)),
        Action::PopVlan,
        set(FieldId::TpSrc, 5555),
        // The copy for the controller is parsed as a new arrival; the packet is not.
        controller(),
        Action::DecTtl,
        Action::PushMpls { eth_type: 0x8847, lse: 0x100 },
        set(FieldId::MplsLse0, 0x1234_0140),
        Action::Output(PortId(3)),
        Action::PopMpls { eth_type: 0x0800 },
        set(FieldId::NwTos, 8),
        Action::Output(PortId(4)),
    ];
    let list = [vec![tag(5), tag(6)], edits.to_vec()].concat();
    // Of three tags that a packet comes in with, the last is payload: nothing behind it is found, before or after.
    let unlabelled = list.len() - 5;
    for (tags, transport) in [(0, 6), (1, 6), (2, 6), (2, 17), (2, 132), (3, 6)] {
        let mut f = FrameBuilder::new();
        for v in 0..tags {
            f = f.vlan(10 + v, 0);
        }
        let f = f.ipv4([192, 0, 2, 1], [192, 0, 2, 2]);
        let f = match transport {
            6 => f.tcp(1, 2),
            17 => f.udp(1, 2),
            _ => f.sctp(1, 2),
        };
        let f = f.payload(b"some odd payload!").build();
        let list = if tags == 3 { &list[..unlabelled] } else { &list[..] };
        let mut rig = Rig::with_handler(4, Arc::new(ByPass(vec![list.to_vec()])), |_| ());
        rig.send(1, &f);
        rig.poll();
        let mut expected = Outcome::default();
        interpret(arrived(f), list, &mut expected, &mut VecDeque::new(), 1);
        let got = outcome(&mut rig);
        assert_eq!(got, expected, "{tags} tags, protocol {transport}");
        if tags < 3 {
            let l3 = 14 + 4 * (usize::from(tags) + 2);
            assert_eq!(
                (got.sent[&2][0][l3 + 8], &got.sent[&2][0][l3 + 12..l3 + 16]),
                (63, &[10, 11, 12, 13][..])
            );
            assert_eq!((got.sent[&4][0][l3 - 4 + 8], got.sent[&4][0][l3 - 4 + 1]), (62, 8));
        }
    }
}

#[test]
fn rewritten_packets_have_the_checksums_that_etherparse_computes() {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};
    let list = vec![
        Action::SetField { field: FieldId::NwSrc, value: 0x0a0b_0c0d, mask: 0xffff_ffff },
        Action::SetField { field: FieldId::NwTos, value: 0xb8, mask: 0xfc },
        Action::SetField { field: FieldId::Ipv6Dst, value: 0xfe80 << 112 | 9, mask: u128::MAX },
        Action::SetField { field: FieldId::TpDst, value: 4444, mask: 0xffff },
        Action::DecTtl,
        Action::Output(PortId(2)),
    ];
    let mut rig = Rig::with_handler(4, Arc::new(ByPass(vec![list])), |_| ());
    let v4 = || FrameBuilder::new().ipv4([192, 0, 2, 1], [192, 0, 2, 2]);
    let v6 = || FrameBuilder::new().ipv6([1; 16], [2; 16]);
    for f in [v4().tcp(1, 2), v4().udp(1, 2), v6().tcp(1, 2), v6().udp(1, 2)] {
        rig.send(1, &f.payload(b"some odd payload!").build());
    }
    rig.poll();
    let out = rig.received(2);
    assert_eq!(out.len(), 4);
    for f in out {
        let p = SlicedPacket::from_ethernet(&f).unwrap();
        match (p.net.unwrap(), p.transport.unwrap()) {
            (NetSlice::Ipv4(ip), TransportSlice::Tcp(t)) => {
                let h = ip.header().to_header();
                assert_eq!(h.header_checksum, h.calc_header_checksum());
                assert_eq!(t.checksum(), t.calc_checksum_ipv4(h.source, h.destination).unwrap());
                assert_eq!((h.source, t.destination_port(), h.time_to_live), ([10, 11, 12, 13], 4444, 63));
            }
            (NetSlice::Ipv4(ip), TransportSlice::Udp(u)) => {
                let h = ip.header().to_header();
                assert_eq!(h.header_checksum, h.calc_header_checksum());
                let c = u.to_header().calc_checksum_ipv4_raw(h.source, h.destination, u.payload()).unwrap();
                assert_eq!((u.checksum(), u.destination_port()), (c, 4444));
            }
            (NetSlice::Ipv6(ip), TransportSlice::Tcp(t)) => {
                let h = ip.header().to_header();
                assert_eq!(t.checksum(), t.calc_checksum_ipv6(h.source, h.destination).unwrap());
                assert_eq!((h.destination[15], h.hop_limit), (9, 63));
            }
            (NetSlice::Ipv6(ip), TransportSlice::Udp(u)) => {
                let h = ip.header().to_header();
                let c = u.to_header().calc_checksum_ipv6_raw(h.source, h.destination, u.payload()).unwrap();
                assert_eq!(u.checksum(), c);
            }
            other => panic!("{other:?}"),
        }
    }
}
