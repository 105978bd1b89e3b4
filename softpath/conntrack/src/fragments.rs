//! Fragments: matched, not reassembled. The first one of a packet has its ports and is tracked as the packet would be; what came of
//! it is remembered for a while, and those that follow get the same verdict. One that comes before the first, or whose first
//! was not seen, is invalid.
//!
//! A fragment's transport checksum cannot be verified, since it covers what others carry. A later one that would lie over the
//! transport header of the first is invalid (RFC 1858 3, RFC 3128): it could make another packet of it than was tracked.

use std::collections::VecDeque;
use std::time::Duration;

use clock::Instant;
use flow::headers::{eth_type, ip_proto};
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::extract::{Headers, addresses};

/// How long the first fragment is remembered, as long as Open vSwitch waits for the others.
const REMEMBERED: Duration = Duration::from_secs(15);
/// Packets of which the first fragment is remembered at most; the oldest gives way.
const MOST: usize = 4096;

/// What the fragments of a packet have in common (RFC 791 3.2, RFC 8200 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Id {
    src: u128,
    dst: u128,
    ident: u32,
    proto: u8,
    v6: bool,
    zone: u16,
}

/// What is known of a packet by its first fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct First {
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) icmp_type: u8,
    /// Bits of `ct_state` that it got.
    pub(crate) state: u16,
}

/// A fragment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment {
    pub(crate) id: Id,
    pub(crate) is_later: bool,
}

/// First fragments, by what they have in common with the others.
#[derive(Default)]
pub(crate) struct Fragments(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_id: HashMap<Id, (First, Instant), foldhash::quality::RandomState>,
    /// In the order in which they came. One that has come anew is there twice.
    order: VecDeque<(Id, Instant)>,
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*b.get(at..)?.first_chunk()?))
}

/// Identification, and offset in bytes.
fn place(frame: &[u8], h: &Headers) -> Option<(u32, usize)> {
    if h.eth_type != eth_type::IPV6 {
        let offset = usize::from(be16(frame, h.l3 + 6)? & 0x1fff) * 8;
        return Some((be16(frame, h.l3 + 4)?.into(), offset));
    }
    let (mut next, mut at) = (*frame.get(h.l3 + 6)?, h.l3 + 40);
    for _ in 0..8 {
        match next {
            44 => return Some((be32(frame, at + 4)?, usize::from(be16(frame, at + 2)? & !7))),
            // Extension headers before the fragment header (RFC 8200 4.1).
            0 | 43 | 60 => {
                let x = frame.get(at..at + 2)?;
                (next, at) = (x[0], at + (usize::from(x[1]) + 1) * 8);
            }
            _ => return None,
        }
    }
    None
}

impl Fragment {
    /// The fragment that a frame is; `None` when it is none or lies over the transport header of the first.
    pub(crate) fn of(frame: &[u8], h: &Headers, zone: u16) -> Option<Fragment> {
        let v6 = h.eth_type == eth_type::IPV6;
        let (ident, offset) = place(frame, h)?;
        let least = match h.proto {
            ip_proto::TCP => 20,
            ip_proto::UDP | ip_proto::ICMP | ip_proto::ICMPV6 => 8,
            _ => 0,
        };
        if offset > 0 && offset < least {
            return None;
        }
        let (src, dst) = addresses(frame, h.l3, v6)?;
        let id = Id { src, dst, ident, proto: h.proto, v6, zone };
        Some(Fragment { id, is_later: offset > 0 })
    }
}

impl Fragments {
    /// What is known by the first fragment, at time `now`.
    pub(crate) fn get(&self, id: &Id, now: Instant) -> Option<First> {
        let known = self.0.lock();
        known.by_id.get(id).filter(|(_, until)| now < *until).map(|(f, _)| *f)
    }

    /// Remembers a first fragment.
    pub(crate) fn put(&self, id: Id, first: First, now: Instant) {
        let until = now + REMEMBERED;
        let mut known = self.0.lock();
        while let Some((old, then)) = known.order.front().copied()
            && (now >= then || known.order.len() >= MOST)
        {
            known.order.pop_front();
            // Unless it has come anew since.
            if known.by_id.get(&old).is_some_and(|(_, until)| *until == then) {
                known.by_id.remove(&old);
            }
        }
        known.by_id.insert(id, (first, until));
        known.order.push_back((id, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_in_number_and_time() {
        let id = |ident| Id { src: 1, dst: 2, ident, proto: 17, v6: false, zone: 0 };
        let first = First { sport: 1, dport: 2, icmp_type: 0, state: 1 };
        let f = Fragments::default();
        let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
        for i in 0..3 * MOST as u32 {
            f.put(id(i), first, at(0));
            f.put(id(7), first, at(0));
        }
        let known = f.0.lock();
        assert!(known.by_id.len() <= MOST && known.order.len() <= MOST);
        drop(known);
        assert_eq!((f.get(&id(0), at(1)), f.get(&id(7), at(1))), (None, Some(first)));
        assert_eq!(f.get(&id(7), at(16_000)), None);
        f.put(id(1), first, at(16_000));
        assert_eq!(f.0.lock().by_id.len(), 1);
    }
}
