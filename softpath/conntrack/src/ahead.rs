//! Packets of IPv4 with ports whose connection is known: the way that most packets take. What a burst is about to need is found out
//! for all of its packets before any is tracked ([`Tracker::likely`], [`Tracker::connection`]), so that the processor can fetch it
//! meanwhile, and each hash is computed once.
//!
//! [`Tracker::see`] does what [`Tracker::track`] does, for packets that change nothing but how far their connection has come. It declines
//! whatever is out of the ordinary, before anything was changed; a test holds the two against each other.

use std::sync::atomic::Ordering;

use clock::Instant;
use flow::headers::{eth_type, ip_proto};
use flow::{CtAction, ct_state};

use crate::extract::{Headers, checksums_are_right};
use crate::shard::{Conn, Proto};
use crate::tcp::Segment;
use crate::track::{Tracker, count};
use crate::tuple::Tuple;

/// The ends of a packet of IPv4 with ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    /// Source address above destination address.
    pub addresses: u64,
    /// Source port above destination port.
    pub ports: u32,
    /// IP protocol: TCP or UDP.
    pub proto: u8,
}

impl Ends {
    /// Addresses and ports of the other direction.
    #[inline]
    pub fn reversed(&self) -> (u64, u32) {
        (self.addresses.rotate_left(32), self.ports.rotate_left(16))
    }

    fn tuple(&self, zone: u16) -> Tuple {
        Tuple {
            src: (self.addresses >> 32).into(),
            dst: u128::from(self.addresses as u32),
            sport: (self.ports >> 16) as u16,
            dport: self.ports as u16,
            zone,
            proto: self.proto,
            icmp_type: 0,
            v6: false,
        }
    }

    #[inline(always)]
    fn are(&self, t: &Tuple) -> bool {
        let addresses = (t.src as u64) << 32 | t.dst as u64;
        let ports = u32::from(t.sport) << 16 | u32::from(t.dport);
        self.addresses == addresses && self.ports == ports
    }
}

/// Where the connection of a packet is looked for.
#[derive(Clone, Copy, Default, Debug)]
pub struct Likely {
    /// 0 for nothing.
    hash: u64,
    slot: u32,
}

impl Likely {
    /// Whether it is anything.
    #[inline]
    pub fn is_some(&self) -> bool {
        self.hash != 0
    }
}

/// What a packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Bits of [`ct_state`].
    pub state: u16,
    /// Mark of the connection.
    pub mark: u32,
    /// Label of the connection.
    pub label: u128,
    /// Whether it is from the end that did not begin.
    pub reply: bool,
}

/// Whether a packet that was not translated is a reply of the connection; `None` when it is not of it.
#[inline(always)]
fn direction(c: &Conn, e: &Ends, zone: u16) -> Option<bool> {
    let o = &c.original;
    if o.v6 || o.zone != zone || o.proto != e.proto || c.nat.is_some() {
        return None;
    }
    if e.are(o) {
        return Some(false);
    }
    let (addresses, ports) = e.reversed();
    Ends { addresses, ports, ..*e }.are(o).then_some(true)
}

impl Tracker {
    /// Where a packet's connection in `zone` is looked for.
    #[inline]
    pub fn likely(&self, e: &Ends, zone: u16) -> Likely {
        Likely { hash: self.hasher.hash_v4(e.addresses, e.ports, zone, e.proto).max(1), slot: u32::MAX }
    }

    /// The address of the cache line that is read first, for a prefetch of it; 0 when there is none.
    #[inline]
    pub fn line(&self, l: &Likely) -> usize {
        self.place(l.hash).line(l.hash)
    }

    /// The address of the connection that it is likely to be, two cache lines, for a prefetch of them; 0 when there is none. Reads what
    /// [`Tracker::line`] says.
    #[inline]
    pub fn connection(&self, l: &mut Likely) -> usize {
        let Some((slot, address)) = self.place(l.hash).connection(l.hash) else { return 0 };
        l.slot = slot;
        address
    }

    /// Tracks a packet with right checksums, of a known connection that is not translated; `likely` is of the same ends and zone. `None`
    /// when it is not like that, or not decided so easily: then nothing has changed that [`Tracker::track`] would not have changed.
    #[inline]
    pub fn see(
        &self,
        frame: &[u8],
        h: &Headers,
        e: &Ends,
        likely: Likely,
        action: &CtAction,
        now: Instant,
    ) -> Option<Seen> {
        let zeros = e.ports >> 16 == 0 || e.ports as u16 == 0;
        let odd = h.eth_type != eth_type::IPV4 || h.is_fragment || h.proto != e.proto || h.l4 + 8 > h.end;
        if odd || action.force || zeros || h.end > frame.len() || !checksums_are_right(frame, h) {
            return None;
        }
        let segment = match e.proto {
            ip_proto::TCP => Some(Segment::of(frame.get(h.l4..h.end)?)?),
            _ => None,
        };
        let mut shard = self.shard(likely.hash);
        let (slot, reply) = match shard.get(likely.slot).and_then(|c| direction(c, e, action.zone)) {
            Some(reply) => (likely.slot, reply),
            None => {
                let t = e.tuple(action.zone);
                let (slot, _) = shard.find(likely.hash, &t)?;
                (slot, direction(shard.get(slot)?, e, action.zone)?)
            }
        };
        let conn = shard.get_mut(slot)?;
        if conn.is_past(now) {
            return None;
        }
        if !matches!((&conn.proto, &segment), (Proto::Datagram(_), None) | (Proto::Tcp(_), Some(_))) {
            return None;
        }
        let check = self.check_windows.load(Ordering::Relaxed) && conn.loan.knows_windows();
        let Some((bits, timeout)) = conn.proto.packet(|| segment, reply, check) else {
            // It begins another one, which is made the other way.
            self.end(shard, slot);
            return None;
        };
        if let Some(t) = timeout {
            conn.expires = now + self.timeouts.get(action.zone, t);
        }
        if (action.mark.1, action.label.1) != (0, 0) || conn.loan.is_lent() {
            self.set_bits(conn, action);
        }
        if bits == ct_state::ESTABLISHED {
            self.may_lend(conn);
        }
        let (mark, label) = (conn.mark, conn.label);
        drop(shard);
        if bits == ct_state::INVALID {
            count(&self.counts.invalid);
        }
        // A direction is told of established connections only.
        let way = if reply && bits == ct_state::ESTABLISHED { ct_state::REPLY } else { 0 };
        Some(Seen { state: bits | way | ct_state::TRACKED, mark, label, reply })
    }
}
