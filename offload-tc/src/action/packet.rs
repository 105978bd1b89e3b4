//! Options of actions that change packets: vlan, pedit, csum, mpls (`linux/tc_act/tc_*.h`).

use super::ActionSpec;
use crate::error::CodecError;
use crate::wire::{NESTED, Writer, attrs, exact, find, read_u8, read_u16, read_u32, word};

/// Bytes of `struct tc_gen`, which every action's parameters begin with.
pub(crate) const TC_GEN: usize = 20;

/// Checksum of the IPv4 header.
pub const CSUM_IP4: u32 = 1;
/// Checksum of ICMP and ICMPv6.
pub const CSUM_ICMP: u32 = 2;
/// Checksum of TCP.
pub const CSUM_TCP: u32 = 8;
/// Checksum of UDP.
pub const CSUM_UDP: u32 = 16;
/// Checksum of SCTP.
pub const CSUM_SCTP: u32 = 64;

/// What the vlan action does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum VlanAction {
    Pop,
    /// Puts a tag outermost.
    Push {
        proto: u16,
        vid: u16,
        prio: u8,
    },
    /// Changes the outermost tag; the priority stays when there is none.
    Modify {
        proto: u16,
        vid: u16,
        prio: Option<u8>,
    },
    /// Takes the Ethernet header off.
    PopEth,
    /// Puts an Ethernet header in front.
    PushEth {
        dst: [u8; 6],
        src: [u8; 6],
    },
}

/// Where a pedit key's offset begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum PeditHeader {
    Network = 0,
    Eth = 1,
    Ip4 = 2,
    Ip6 = 3,
    Tcp = 4,
    Udp = 5,
}

/// Whether a pedit key writes or adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
#[allow(missing_docs)]
pub enum PeditCmd {
    Set = 0,
    Add = 1,
}

/// Four bytes of a header that are changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeditKey {
    /// Which header.
    pub header: PeditHeader,
    /// Written or added.
    pub cmd: PeditCmd,
    /// Offset in the header, a multiple of four.
    pub offset: u32,
    /// Bits that stay, in the order of the packet's bytes.
    pub keep: [u8; 4],
    /// The others, in the order of the packet's bytes.
    pub value: [u8; 4],
}

/// Most keys in one pedit action that are accepted from outside.
pub const MAX_PEDIT_KEYS: usize = 128;

/// Writes the options; `head` is the action's `struct tc_gen`.
pub(crate) fn put(w: &mut Writer, spec: &ActionSpec, head: &[u8; TC_GEN]) {
    match spec {
        ActionSpec::Gact => w.attr(2, head),
        ActionSpec::Vlan(v) => put_vlan(w, v, head),
        ActionSpec::Pedit(keys) => put_pedit(w, keys, head),
        ActionSpec::Csum(flags) => with_word(w, 1, head, *flags),
        ActionSpec::MplsPop { proto } => {
            with_word(w, 2, head, 1);
            w.attr(4, &proto.to_be_bytes());
        }
        ActionSpec::MplsDecTtl => with_word(w, 2, head, 4),
        ActionSpec::MplsPush { proto, label, tc, ttl, bos } => {
            with_word(w, 2, head, 2);
            w.attr(4, &proto.to_be_bytes());
            put_label(w, Some(*label), *tc, *ttl, *bos);
        }
        ActionSpec::MplsModify { label, tc, ttl, bos } => {
            with_word(w, 2, head, 3);
            put_label(w, *label, *tc, *ttl, *bos);
        }
        _ => {}
    }
}

/// Parameters that are `struct tc_gen` and one more number.
pub(crate) fn with_word(w: &mut Writer, attr: u16, head: &[u8; TC_GEN], v: u32) {
    let n = w.nest(attr);
    w.raw(head);
    w.raw(&v.to_ne_bytes());
    w.end(n);
}

fn put_label(w: &mut Writer, label: Option<u32>, tc: Option<u8>, ttl: Option<u8>, bos: Option<u8>) {
    if let Some(v) = label {
        w.u32(5, v);
    }
    for (at, v) in [(6, tc), (7, ttl), (8, bos)] {
        if let Some(v) = v {
            w.u8(at, v);
        }
    }
}

fn put_vlan(w: &mut Writer, v: &VlanAction, head: &[u8; TC_GEN]) {
    match v {
        VlanAction::Pop => with_word(w, 2, head, 1),
        VlanAction::Push { proto, vid, prio } => {
            with_word(w, 2, head, 2);
            w.u16(3, *vid);
            w.attr(4, &proto.to_be_bytes());
            w.u8(6, *prio);
        }
        VlanAction::Modify { proto, vid, prio } => {
            with_word(w, 2, head, 3);
            w.u16(3, *vid);
            w.attr(4, &proto.to_be_bytes());
            if let Some(prio) = prio {
                w.u8(6, *prio);
            }
        }
        VlanAction::PopEth => with_word(w, 2, head, 4),
        VlanAction::PushEth { dst, src } => {
            with_word(w, 2, head, 5);
            w.attr(7, dst);
            w.attr(8, src);
        }
    }
}

fn put_pedit(w: &mut Writer, keys: &[PeditKey], head: &[u8; TC_GEN]) {
    let n = w.nest(4);
    w.raw(head);
    w.raw(&[keys.len().min(255) as u8, 0, 0, 0]);
    for k in keys {
        w.raw(&k.keep);
        w.raw(&k.value);
        w.raw(&k.offset.to_ne_bytes());
        w.raw(&[0; 12]);
    }
    w.end(n);
    let all = w.nest(5 | NESTED);
    for k in keys {
        let n = w.nest(6 | NESTED);
        w.u16(1, k.header as u16);
        w.u16(2, k.cmd as u16);
        w.end(n);
    }
    w.end(all);
}

pub(crate) fn get_vlan(b: &[u8], params: &[u8]) -> Result<VlanAction, CodecError> {
    let (mut vid, mut proto, mut prio) = (None, 0x8100, None);
    let (mut dst, mut src) = ([0; 6], [0; 6]);
    for a in attrs(b) {
        match a? {
            (3, v) => vid = Some(read_u16("vlan id", v)?),
            (4, v) => proto = u16::from_be_bytes(exact("vlan protocol", v)?),
            (6, v) => prio = Some(read_u8("vlan priority", v)?),
            (7, v) => dst = exact("ethernet destination", v)?,
            (8, v) => src = exact("ethernet source", v)?,
            _ => {}
        }
    }
    let vid = || vid.ok_or(CodecError::Missing("vlan id"));
    Ok(match word("vlan parameters", params, 5)? {
        1 => VlanAction::Pop,
        2 => VlanAction::Push { proto, vid: vid()?, prio: prio.unwrap_or(0) },
        3 => VlanAction::Modify { proto, vid: vid()?, prio },
        4 => VlanAction::PopEth,
        5 => VlanAction::PushEth { dst, src },
        n => return Err(CodecError::Value { what: "vlan action", value: n.into() }),
    })
}

pub(crate) fn get_mpls(b: &[u8], params: &[u8]) -> Result<ActionSpec, CodecError> {
    let (mut proto, mut label, mut tc, mut ttl, mut bos) = (None, None, None, None, None);
    for a in attrs(b) {
        match a? {
            (4, v) => proto = Some(u16::from_be_bytes(exact("mpls protocol", v)?)),
            (5, v) => label = Some(read_u32("mpls label", v)?),
            (6, v) => tc = Some(read_u8("mpls tc", v)?),
            (7, v) => ttl = Some(read_u8("mpls ttl", v)?),
            (8, v) => bos = Some(read_u8("mpls bos", v)?),
            _ => {}
        }
    }
    let proto = || proto.ok_or(CodecError::Missing("mpls protocol"));
    Ok(match word("mpls parameters", params, 5)? {
        1 => ActionSpec::MplsPop { proto: proto()? },
        2 => {
            let label = label.ok_or(CodecError::Missing("mpls label"))?;
            ActionSpec::MplsPush { proto: proto()?, label, tc, ttl, bos }
        }
        3 => ActionSpec::MplsModify { label, tc, ttl, bos },
        4 => ActionSpec::MplsDecTtl,
        n => return Err(CodecError::Value { what: "mpls action", value: n.into() }),
    })
}

/// The keys of a pedit action, extended or not, and its parameters.
pub(crate) fn get_pedit(b: &[u8]) -> Result<(Vec<PeditKey>, &[u8]), CodecError> {
    let sel = match find(b, 4)? {
        Some(s) => s,
        None => find(b, 2)?.ok_or(CodecError::Missing("pedit parameters"))?,
    };
    let n = usize::from(*sel.get(TC_GEN).ok_or(CodecError::Missing("pedit keys"))?);
    if n > MAX_PEDIT_KEYS {
        return Err(CodecError::TooMany("pedit keys"));
    }
    let mut out = Vec::with_capacity(n);
    for i in 0..n {
        let at = TC_GEN + 4 + 24 * i;
        let k = sel.get(at..at + 24).ok_or(CodecError::Missing("pedit key"))?;
        let four = |i: usize| [k[i], k[i + 1], k[i + 2], k[i + 3]];
        let offset = u32::from_ne_bytes(four(8));
        let (header, cmd) = (PeditHeader::Network, PeditCmd::Set);
        out.push(PeditKey { header, cmd, offset, keep: four(0), value: four(4) });
    }
    if let Some(ex) = find(b, 5)? {
        for (i, a) in attrs(ex).enumerate() {
            let (_, v) = a?;
            let k = out.get_mut(i).ok_or(CodecError::TooMany("extended pedit keys"))?;
            get_extended(v, k)?;
        }
    }
    Ok((out, sel))
}

fn get_extended(b: &[u8], k: &mut PeditKey) -> Result<(), CodecError> {
    for a in attrs(b) {
        match a? {
            (1, v) => {
                k.header = match read_u16("pedit header", v)? {
                    0 => PeditHeader::Network,
                    1 => PeditHeader::Eth,
                    2 => PeditHeader::Ip4,
                    3 => PeditHeader::Ip6,
                    4 => PeditHeader::Tcp,
                    5 => PeditHeader::Udp,
                    n => return Err(CodecError::Value { what: "pedit header", value: n.into() }),
                }
            }
            (2, v) => {
                k.cmd = match read_u16("pedit command", v)? {
                    0 => PeditCmd::Set,
                    1 => PeditCmd::Add,
                    n => return Err(CodecError::Value { what: "pedit command", value: n.into() }),
                }
            }
            _ => {}
        }
    }
    Ok(())
}
