//! The connection table (datasheet 6.9): established connections that the host has handed over.
//!
//! ```text
//!   TRACK ─► tuple and zone ─► connection, direction ─┬─► state, mark into the key, round again; counted when an entry decides
//!                                                     ├─► SYN, FIN, RST: closing, and this frame and all after it are the host's
//!                                                     └─► past its time: idle, likewise
//! ```
//!
//! The host stays the authority: it sets a connection and takes it away, and whatever the table does not plainly know is the
//! host's as it was received. TCP's sequence numbers are not looked at.
//!
//! Behavioural: the search (a hash table of both directions) and checksums are done while the action engine has the frame; the second turn
//! through the pipeline has the timing. Ageing is by the time of the last frame, looked at when the connection is.

use std::collections::HashMap;

use simnic_defs::cmd::AGE_NEVER;
use simnic_defs::entry::key;
use simnic_defs::object::ConnState;
use simnic_defs::{CmdStatus, ConnRecord, ConnSpec, KeyBytes};

use crate::checkpoint::Wire;
use crate::checksum::{checksum, pseudo4, pseudo6};
use crate::parser::{L3, L4, Layout};
use crate::tables::Refusal;

/// Addresses, ports, protocol, family, zone.
type TupleKey = [u8; 40];

/// What has become of a connection; see [`ConnState`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Established,
    Closing,
    Idle,
}

kernel::state!(enum Phase { 0 => Established, 1 => Closing, 2 => Idle });

#[derive(Clone, Debug)]
struct Connection {
    spec: ConnSpec,
    /// Which use of the slot it is.
    uses: u32,
    state: Phase,
    packets: [u64; 2],
    bytes: [u64; 2],
    /// Since when it ages: its last frame, or when it was set; and as that was before the time of `since_ns`, which is what is looked at
    /// in that cycle, whichever stage comes first.
    since_ns: u64,
    before_ns: u64,
    hit: bool,
}

kernel::state!(struct Connection {
    spec: via Wire, uses, state, packets, bytes, since_ns, before_ns, hit,
});

/// A connection that a frame belongs to, and in which direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tracked {
    slot: u32,
    uses: u32,
    reply: bool,
    /// What the key is to say.
    pub state: u8,
    pub mark: u32,
}

kernel::state!(struct Tracked { slot, uses, reply, state, mark });

#[derive(Clone, Debug)]
pub(crate) struct Connections {
    slots: Vec<Option<Connection>>,
    by_tuple: HashMap<TupleKey, (u32, bool)>,
    uses: u32,
    held: usize,
}

kernel::state!(struct Connections { slots: sized, by_tuple, uses, held });

fn tuple(src: &[u8; 16], dst: &[u8; 16], ports: [[u8; 2]; 2], proto: u8, v6: bool, zone: u16) -> TupleKey {
    let mut t = [0; 40];
    t[..16].copy_from_slice(src);
    t[16..32].copy_from_slice(dst);
    t[32..34].copy_from_slice(&ports[0]);
    t[34..36].copy_from_slice(&ports[1]);
    (t[36], t[37]) = (proto, u8::from(v6));
    t[38..].copy_from_slice(&zone.to_be_bytes());
    t
}

fn tuples(s: &ConnSpec) -> [TupleKey; 2] {
    let of = |src, dst, ports| tuple(src, dst, ports, s.proto, s.family == 6, s.zone.get());
    [of(&s.src, &s.dst, [s.sport, s.dport]), of(&s.dst, &s.src, [s.dport, s.sport])]
}

/// The tuple of a parsed frame in a zone; `None` when it has none.
fn tuple_of(k: &KeyBytes, lay: &Layout, zone: u16) -> Option<TupleKey> {
    if k[key::FRAG.start] != 0 || !matches!(lay.l4, L4::Tcp | L4::Udp) {
        return None;
    }
    let (mut src, mut dst) = ([0; 16], [0; 16]);
    match lay.l3 {
        L3::V4 => {
            src[12..].copy_from_slice(&k[key::IP4_SRC]);
            dst[12..].copy_from_slice(&k[key::IP4_DST]);
        }
        L3::V6 => {
            src.copy_from_slice(&k[key::IP6_SRC]);
            dst.copy_from_slice(&k[key::IP6_DST]);
        }
        _ => return None,
    }
    let port = |at: usize| [k[at], k[at + 1]];
    let ports = [port(key::L4_SRC.start), port(key::L4_DST.start)];
    Some(tuple(&src, &dst, ports, k[key::PROTO.start], lay.l3 == L3::V6, zone))
}

/// Whether the checksums of a frame are right, as far as it has them.
fn checksums_are_right(f: &[u8], lay: &Layout) -> bool {
    let (l3, l4) = (usize::from(lay.l3_at), usize::from(lay.l4_at));
    let check = || {
        let (end, pseudo) = match lay.l3 {
            L3::V4 => {
                let h = f.get(l3..l4)?;
                if checksum(h, &[]) != 0 {
                    return None;
                }
                let end = l3 + usize::from(u16::from_be_bytes([h[2], h[3]]));
                (end, pseudo4(h.get(12..20)?, h[9], end.checked_sub(l4)? as u16))
            }
            _ => {
                let h = f.get(l3..l3 + 40)?;
                let len = u16::from_be_bytes([h[4], h[5]]);
                (l3 + 40 + usize::from(len), pseudo6(h.get(8..40)?, h[6], len))
            }
        };
        let body = f.get(l4..end)?;
        let none = lay.l4 == L4::Udp && lay.l3 == L3::V4 && body.get(6..8)? == [0, 0];
        Some(none || checksum(body, &pseudo) == 0)
    };
    check().unwrap_or(false)
}

/// Whether a TCP header is as long as it says it is.
fn has_whole_header(f: &[u8], lay: &Layout) -> bool {
    let (l3, l4) = (usize::from(lay.l3_at), usize::from(lay.l4_at));
    let be16 = |at: usize| Some(usize::from(u16::from_be_bytes(*f.get(at..)?.first_chunk()?)));
    let end = match lay.l3 {
        L3::V4 => be16(l3 + 2).map(|n| l3 + n),
        _ => be16(l3 + 4).map(|n| l3 + 40 + n),
    };
    let (Some(end), Some(offset)) = (end, f.get(l4 + 12)) else { return false };
    let header = usize::from(offset >> 4) * 4;
    header >= 20 && l4 + header <= end
}

impl Connections {
    pub fn new(n: u32) -> Self {
        Connections { slots: (0..n).map(|_| None).collect(), by_tuple: HashMap::new(), uses: 0, held: 0 }
    }

    pub fn used(&self) -> usize {
        self.held
    }

    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Sets a connection, established from now on; what it counted stays when it is the same one.
    pub fn set(&mut self, number: u32, payload: &[u8], now_ns: u64) -> Result<(), Refusal> {
        let spec = ConnSpec::decode(payload).map_err(|_| CmdStatus::BadObject)?;
        if number as usize >= self.slots.len() {
            return Err(CmdStatus::BadObject.into());
        }
        let keys = tuples(&spec);
        let others = |k: &TupleKey| self.by_tuple.get(k).is_some_and(|(slot, _)| *slot != number);
        if keys.iter().any(others) {
            return Err(CmdStatus::Exists.into());
        }
        let (mut packets, mut bytes, mut hit) = ([0; 2], [0; 2], false);
        if let Some(old) = self.take(number)
            && tuples(&old.spec) == keys
        {
            (packets, bytes, hit) = (old.packets, old.bytes, old.hit);
        }
        for (i, k) in keys.into_iter().enumerate().rev() {
            self.by_tuple.insert(k, (number, i == 1));
        }
        self.uses = self.uses.wrapping_add(1);
        let (uses, state) = (self.uses, Phase::Established);
        self.slots[number as usize] =
            Some(Connection { spec, uses, state, packets, bytes, since_ns: now_ns, before_ns: now_ns, hit });
        self.held += 1;
        Ok(())
    }

    fn take(&mut self, number: u32) -> Option<Connection> {
        let c = self.slots.get_mut(number as usize)?.take()?;
        self.held -= 1;
        for k in tuples(&c.spec) {
            self.by_tuple.remove(&k);
        }
        Some(c)
    }

    pub fn clear(&mut self, number: u32) -> Result<(), Refusal> {
        self.take(number).map(drop).ok_or(CmdStatus::BadObject.into())
    }

    pub fn read(&self, number: u32, now_ns: u64) -> Result<ConnRecord, Refusal> {
        let c = self.slots.get(number as usize).and_then(Option::as_ref).ok_or(CmdStatus::BadObject)?;
        let age = now_ns.saturating_sub(c.since_ns);
        let state = match c.state {
            Phase::Established if age >= c.spec.timeout_ns.get() => ConnState::Idle,
            Phase::Established => ConnState::Established,
            Phase::Closing => ConnState::Closing,
            Phase::Idle => ConnState::Idle,
        };
        Ok(ConnRecord {
            packets: c.packets.map(Into::into),
            bytes: c.bytes.map(Into::into),
            age_ns: if c.hit { age } else { AGE_NEVER }.into(),
            state: state as u8,
            reserved: [0; 7],
        })
    }

    /// The connection of a frame, when it is established and the frame is plainly of it.
    pub fn look(&mut self, f: &[u8], k: &KeyBytes, lay: &Layout, zone: u16, now_ns: u64) -> Option<Tracked> {
        const FIN_SYN_RST: u8 = 0x07;
        const ACK: u8 = 0x10;
        let (slot, reply) = *self.by_tuple.get(&tuple_of(k, lay, zone)?)?;
        let c = self.slots.get_mut(slot as usize)?.as_mut()?;
        let since = if c.since_ns == now_ns { c.before_ns } else { c.since_ns };
        if c.state == Phase::Established && now_ns.saturating_sub(since) >= c.spec.timeout_ns.get() {
            c.state = Phase::Idle;
        }
        if c.state != Phase::Established || !checksums_are_right(f, lay) {
            return None;
        }
        if lay.l4 == L4::Tcp {
            let flags = k[key::TCP_FLAGS.end - 1];
            if flags & FIN_SYN_RST != 0 {
                c.state = Phase::Closing;
                return None;
            }
            // No stack sends such a one.
            if flags & ACK == 0 || !has_whole_header(f, lay) {
                return None;
            }
        }
        let state = key::CT_TRACKED | key::CT_ESTABLISHED | if reply { key::CT_REPLY } else { 0 };
        Some(Tracked { slot, uses: c.uses, reply, state, mark: c.spec.mark.get() })
    }

    fn at(&mut self, t: &Tracked) -> Option<&mut Connection> {
        self.slots.get_mut(t.slot as usize)?.as_mut().filter(|c| c.uses == t.uses)
    }

    /// Whether a connection is what it was, whatever has become of it by frames since.
    pub fn holds(&self, t: &Tracked) -> bool {
        self.slots.get(t.slot as usize).and_then(Option::as_ref).is_some_and(|c| c.uses == t.uses)
    }

    /// An entry has decided what becomes of a frame of it.
    pub fn count(&mut self, t: &Tracked, bytes: usize, now_ns: u64) {
        let i = usize::from(t.reply);
        if let Some(c) = self.at(t) {
            c.packets[i] += 1;
            c.bytes[i] += bytes as u64;
            if c.since_ns != now_ns {
                (c.before_ns, c.since_ns) = (c.since_ns, now_ns);
            }
            c.hit = true;
        }
    }

    /// Everything is as after a reset.
    pub fn reset(&mut self) {
        if self.held > 0 {
            self.slots.iter_mut().for_each(|s| *s = None);
        }
        self.by_tuple.clear();
        self.held = 0;
    }
}
