//! Requests of a stock `tc`, read and written again.
//!
//! `golden/requests.txt` has each command, the bytes that `tc` sent (`golden/capture.py` says how they were got) and, behind
//! `=`, what they mean. They are written again from what was read, and must be the same attributes; their order is not the
//! kernel's concern, except among actions and keys of one action.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use netlink_packet_core::NetlinkMessage;
use netlink_packet_route::RouteNetlinkMessage;
use offload_tc::action::{CtNat, MirredMode, PeditCmd, PeditHeader, PeditKey, Police};
use offload_tc::message::{self, Message, flag, kind, messages};
use offload_tc::wire::{Writer, attrs};
use offload_tc::{ActionSpec, FilterAt, FlowerKey, Head, Hook, TcAction, Verdict};

const FILE: &str = include_str!("golden/requests.txt");

struct Case {
    command: String,
    bytes: Vec<u8>,
    meaning: String,
}

fn unhex(s: &str) -> Vec<u8> {
    (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
}

fn cases() -> Vec<Case> {
    let mut out: Vec<Case> = Vec::new();
    let mut command = String::new();
    for line in FILE.lines().filter(|l| !l.starts_with('#')) {
        if let Some(c) = line.strip_prefix("tc ") {
            command = c.to_string();
        } else if let Some(m) = line.strip_prefix("= ") {
            out.last_mut().unwrap().meaning = m.to_string();
        } else {
            out.push(Case { command: command.clone(), bytes: unhex(line), meaning: String::new() });
        }
    }
    out
}

fn one(b: &[u8]) -> Message<'_> {
    messages(b).next().unwrap().unwrap()
}

fn describe(b: &[u8]) -> String {
    let m = one(b);
    match m.kind {
        kind::NEW_FILTER | kind::DEL_FILTER | kind::GET_FILTER => {
            let h = Head::read(m.body).unwrap().unwrap();
            let (f, r) = h.flower().unwrap();
            assert_eq!(r.unknown, [0u16; 0]);
            let keys: Vec<String> = f
                .keys
                .iter()
                .map(|k| match k.mask == k.key.row().max {
                    true => format!("{}={:#x}", k.key.row().name, k.value),
                    false => format!("{}={:#x}/{:#x}", k.key.row().name, k.value, k.mask),
                })
                .collect();
            let mut s = format!("{:?} flags {} [{}]", h.at, f.flags, keys.join(" "));
            if let Some((v, mask)) = &f.enc_opts {
                s += &format!(" options {v:?}/{mask:?}");
            }
            if !f.mpls.is_empty() {
                s += &format!(" {:?}", f.mpls);
            }
            for a in &f.actions {
                s += &format!(" {:?} {:?}", a.spec, a.verdict);
                if a.index != 0 || a.cookie.is_some() || a.hw_stats.is_some() {
                    let cookie = a.cookie.map(|c| c.bytes().to_vec()).unwrap_or_default();
                    s += &format!(" index {} cookie {cookie:02x?} hw_stats {:?}", a.index, a.hw_stats);
                }
            }
            s
        }
        kind::NEW_ACTION => {
            let (a, _) = message::read_shared_action(m.body).unwrap();
            format!("{:?} {:?} index {}", a.spec, a.verdict, a.index)
        }
        _ => format!("type {}", m.kind),
    }
}

/// Attributes as a tree, sorted where order means nothing.
#[derive(Debug, PartialEq)]
enum Tree {
    Leaf(Vec<u8>),
    Nest(BTreeMap<u16, Vec<Tree>>),
    List(Vec<Tree>),
}

#[derive(Clone, Copy)]
enum Level {
    Filter,
    Table,
    Flower,
    Actions,
    Action,
    Options,
    /// A nest of nests of leaves; ours are flagged as nests, some of tc's are not.
    Nests,
    Leaves,
    Leaf,
}

fn tree(level: Level, b: &[u8]) -> Tree {
    let all: Vec<_> = match level {
        Level::Leaf => return Tree::Leaf(b.to_vec()),
        // The same number is an address to ct.
        Level::Nests if attrs(b).any(|a| a.is_err()) => return Tree::Leaf(b.to_vec()),
        _ => attrs(b).map(|a| a.unwrap()).collect(),
    };
    if let Level::Actions = level {
        return Tree::List(all.iter().map(|(_, v)| tree(Level::Action, v)).collect());
    }
    let mut out: BTreeMap<u16, Vec<Tree>> = BTreeMap::new();
    for (k, v) in all {
        let below = match (level, k) {
            (Level::Filter, 2) => Level::Flower,
            (Level::Flower, 3) | (Level::Table, 1) => Level::Actions,
            (Level::Action, 2) => Level::Options,
            (Level::Flower, 84 | 85 | 99) | (Level::Options, 11) => Level::Nests,
            (Level::Nests, _) => Level::Leaves,
            _ => Level::Leaf,
        };
        // Chain 0 is the same said or not.
        if matches!(level, Level::Filter) && k == 11 && v == [0; 4] {
            continue;
        }
        // tc cuts times in a policer's rate table to microseconds; see the test of it.
        if matches!(level, Level::Options) && v.len() == 1024 {
            continue;
        }
        // So is a mask of all ones.
        if matches!(level, Level::Flower)
            && FlowerKey::by_mask_attr(k).is_some_and(|key| key.row().get(v) & key.row().max == key.row().max)
        {
            continue;
        }
        out.entry(k).or_default().push(tree(below, v));
    }
    Tree::Nest(out)
}

fn again(m: &Message<'_>) -> Option<Vec<u8>> {
    let mut w = Writer::new();
    match m.kind {
        kind::NEW_FILTER => {
            let h = Head::read(m.body).unwrap().unwrap();
            let exclusive = m.flags & message::flag::EXCL != 0;
            let how = if exclusive { message::Add::New } else { message::Add::Replace };
            message::add_filter(&mut w, m.seq, &h.at, &h.flower().unwrap().0, how);
        }
        kind::DEL_FILTER | kind::GET_FILTER => {
            let h = Head::read(m.body).unwrap().unwrap();
            if m.flags & message::flag::DUMP == message::flag::DUMP {
                message::dump_filters(&mut w, m.seq, h.at.hook, false);
            } else if m.kind == kind::DEL_FILTER {
                message::delete_filter(&mut w, m.seq, &h.at);
            } else {
                message::get_filter(&mut w, m.seq, &h.at);
            }
        }
        kind::NEW_ACTION => {
            let (a, _) = message::read_shared_action(m.body).unwrap();
            message::put_shared_action(&mut w, m.seq, &a, m.flags & flag::REPLACE != 0);
        }
        kind::GET_ACTION if m.flags & flag::DUMP == flag::DUMP => {
            message::dump_shared_actions(&mut w, m.seq, "police");
        }
        kind::GET_ACTION => message::get_shared_action(&mut w, m.seq, "police", 9),
        kind::DEL_ACTION => message::delete_shared_action(&mut w, m.seq, "police", 9),
        kind::NEW_QDISC => {
            let block = attrs(&m.body[20..]).map(|a| a.unwrap()).find(|(k, _)| *k == 13);
            let block = block.map(|(_, v)| u32::from_ne_bytes(v.try_into().unwrap()));
            message::add_clsact(&mut w, m.seq, 1, block);
        }
        kind::DEL_QDISC => message::delete_clsact(&mut w, m.seq, 1),
        _ => return None,
    }
    Some(w.bytes().to_vec())
}

#[test]
fn requests_of_tc_mean_what_their_command_says() {
    let all = cases();
    assert!(all.len() >= 50, "{} requests", all.len());
    if let Some(path) = std::env::var_os("HOIST_WRITE_MEANINGS") {
        let mut text = FILE.lines().filter(|l| !l.starts_with("= ")).fold(String::new(), |s, l| {
            let hex = !l.starts_with('#') && !l.starts_with("tc ");
            s + l + "\n" + &if hex { format!("= {}\n", describe(&unhex(l))) } else { String::new() }
        });
        text.truncate(text.trim_end().len() + 1);
        std::fs::write(path, text).unwrap();
        return;
    }
    for c in &all {
        assert_eq!(describe(&c.bytes), c.meaning, "tc {}", c.command);
    }
}

#[test]
fn requests_of_tc_are_written_again_with_the_same_attributes() {
    let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut wrong = Vec::new();
    for c in cases() {
        let m = one(&c.bytes);
        let ours = again(&m).unwrap_or_else(|| panic!("type {}: tc {}", m.kind, c.command));
        let o = one(&ours);
        assert_eq!(o.kind, m.kind, "tc {}", c.command);
        let ack = message::flag::ACK | message::flag::ECHO;
        assert_eq!(o.flags & !ack, m.flags & !ack, "flags: tc {}", c.command);
        let head =
            if matches!(m.kind, kind::NEW_ACTION | kind::DEL_ACTION | kind::GET_ACTION) { 4 } else { 20 };
        assert_eq!(o.body[..head], m.body[..head], "head: tc {}", c.command);
        let level = if head == 4 { Level::Table } else { Level::Filter };
        if matches!(m.kind, kind::DEL_FILTER | kind::GET_FILTER) {
            // Nothing but where the filter is counts; tc sends options all the same.
            continue;
        }
        if tree(level, &o.body[head..]) != tree(level, &m.body[head..]) {
            wrong.push(format!("{}\n  ours {}\n  tc's {}", c.command, hex(&ours), hex(&c.bytes)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_second_reader_takes_what_is_written() {
    for c in cases() {
        let Some(ours) = again(&one(&c.bytes)) else { continue };
        if matches!(one(&ours).kind, kind::NEW_ACTION | kind::DEL_ACTION | kind::GET_ACTION) {
            // It re-emits actions with defaults of its own.
            continue;
        }
        let read = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&ours)
            .unwrap_or_else(|e| panic!("{e}: tc {}", c.command));
        let mut out = vec![0; read.buffer_len()];
        read.serialize(&mut out);
        assert_eq!(out.len(), ours.len(), "tc {}", c.command);
    }
}

fn flower_of(part: &str) -> (FilterAt, offload_tc::Flower) {
    let all = cases();
    let found: Vec<_> = all.iter().filter(|c| c.command.contains(part)).collect();
    assert_eq!(found.len(), 1, "{part}");
    let m = one(&found[0].bytes);
    let h = Head::read(m.body).unwrap().unwrap();
    (h.at, h.flower().unwrap().0)
}

#[test]
fn keys_and_actions_are_where_the_command_put_them() {
    let (at, f) = flower_of("tcp_flags 0x2/0x12");
    assert_eq!(at, FilterAt { hook: Hook::Ingress(1), chain: 0, prio: 2, protocol: 0x0800, handle: 0x10 });
    assert_eq!(f.get(FlowerKey::EthSrc), Some((0x0200_0000_0000, 0xffff_ff00_0000)));
    assert_eq!(f.get(FlowerKey::TcpFlags), Some((2, 0x12)));
    assert_eq!(f.get(FlowerKey::TcpDst), Some((80, 0xffff)));
    assert_eq!(f.actions, [TcAction::mirred(MirredMode::EgressRedirect, 1)]);
    let (_, f) = flower_of("cvlan_id 200");
    assert_eq!(f.get(FlowerKey::CvlanId), Some((200, 0xfff)));
    assert_eq!(f.get(FlowerKey::CvlanEthType), Some((0x86dd, 0xffff)));
    let (at, f) = flower_of("ct_label 0011");
    assert_eq!(at.chain, 5);
    assert_eq!(f.get(FlowerKey::CtState), Some((0b1010, 0b1011)));
    assert_eq!(f.get(FlowerKey::CtMark), Some((0x10, 0xf0)));
    let (_, f) = flower_of("goto chain 7");
    assert_eq!(f.actions[1], TcAction::verdict(Verdict::Goto(7)));
    let ActionSpec::Ct(c) = &f.actions[0].spec else { panic!() };
    assert_eq!((c.zone, c.nat.clone()), (Some(5), Some(CtNat::default())));
    let (_, f) = flower_of("ip ttl dec");
    let ActionSpec::Pedit(keys) = &f.actions[0].spec else { panic!() };
    let ttl = PeditKey {
        header: PeditHeader::Ip4,
        cmd: PeditCmd::Add,
        offset: 8,
        keep: [0, 0xff, 0xff, 0xff],
        value: [0xff, 0, 0, 0],
    };
    assert!(keys.contains(&ttl), "{keys:?}");
    let (_, f) = flower_of("police rate 8mbit burst 10000 mtu 2000");
    let want = Police { mtu: 2000, ..Police::bytes(1_000_000, 10_000) };
    assert_eq!(f.actions[0].spec, ActionSpec::Police(want));
    let (_, f) = flower_of("pkts_rate 1000");
    assert_eq!(f.actions[0].spec, ActionSpec::Police(Police::packets(1000, 100)));
    let (at, f) = flower_of("add block 22");
    assert_eq!((at.hook, f.flags), (Hook::Block(22), offload_tc::filter::flags::VERBOSE));
}

#[test]
fn a_policers_rate_table_is_that_of_tc_within_a_microsecond() {
    let table = |b: &[u8]| -> Vec<u32> {
        let h = b.windows(4).position(|w| w == [4, 4, 2, 0]).unwrap();
        b[h + 4..h + 1028].chunks(4).map(|c| u32::from_ne_bytes(c.try_into().unwrap())).collect()
    };
    let mut seen = 0;
    for c in cases().iter().filter(|c| c.command.contains("police rate")) {
        let ours = again(&one(&c.bytes)).unwrap();
        for (a, b) in table(&ours).iter().zip(table(&c.bytes)) {
            assert!(a.abs_diff(b) <= 16, "{a} and {b}: tc {}", c.command);
        }
        seen += 1;
    }
    assert_eq!(seen, 4);
}
