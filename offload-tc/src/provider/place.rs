//! Where filters are put: priorities, handles, cookies.
//!
//! A priority belongs to one protocol, so each protocol gets its own. It gets two: a replacement goes to the other one, then the
//! old filter is removed. So a packet sees the old rule or the new, and the removal's answer has the old one's last counters;
//! the kernel's own replacement would start the counters anew and tell nothing of the old.

use std::collections::HashMap;

use flow::FlowId;

use crate::action::Cookie;

/// Protocols whose priorities are the same in every life of the switch.
const KNOWN: [u16; 8] = [0x0800, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x8847, 0x8848, 0x8035];
/// Protocols at most.
const MAX_PROTOCOLS: usize = 1024;
/// What our cookies begin with.
const MAGIC: &[u8; 4] = b"HoiS";

/// Which of a protocol's two priorities.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub fn other(self) -> Side {
        match self {
            Side::First => Side::Second,
            Side::Second => Side::First,
        }
    }
}

/// Priorities by protocol.
#[derive(Clone, Debug)]
pub(crate) struct Prios {
    first: u16,
    slots: HashMap<u16, u16>,
}

impl Prios {
    pub fn new(first: u16) -> Self {
        let slots = KNOWN.iter().zip(0..).map(|(p, i)| (*p, i)).collect();
        Prios { first, slots }
    }

    /// The priority for filters of `protocol`; `None` when there are too many protocols.
    pub fn get(&mut self, protocol: u16, side: Side) -> Option<u16> {
        let n = self.slots.len();
        let slot = match self.slots.get(&protocol) {
            Some(s) => *s,
            None if n >= MAX_PROTOCOLS => return None,
            None => {
                // Adopted ones may have any number.
                let free = (0..=n as u16).find(|s| !self.slots.values().any(|v| v == s))?;
                self.slots.insert(protocol, free);
                free
            }
        };
        self.first.checked_add(2 * slot + u16::from(side == Side::Second))
    }

    /// Notes that filters of `protocol` are at `prio` already; which side that is, when it is one of ours.
    pub fn adopt(&mut self, protocol: u16, prio: u16) -> Option<Side> {
        let at = prio.checked_sub(self.first)?;
        let slot = at / 2;
        if usize::from(slot) >= MAX_PROTOCOLS {
            return None;
        }
        let side = if at % 2 == 0 { Side::First } else { Side::Second };
        match self.slots.get(&protocol) {
            Some(s) if *s == slot => Some(side),
            Some(_) => None,
            None if self.slots.values().any(|v| *v == slot) => None,
            None => {
                self.slots.insert(protocol, slot);
                Some(side)
            }
        }
    }
}

/// The cookie of a record's filter.
pub(crate) fn cookie(owner: u32, flow: FlowId) -> Option<Cookie> {
    let mut b = [0; 16];
    b[..4].copy_from_slice(MAGIC);
    b[4..8].copy_from_slice(&owner.to_be_bytes());
    b[8..].copy_from_slice(&flow.0.to_be_bytes());
    Cookie::new(&b)
}

/// The record that a cookie of `owner` names; `None` for anybody else's.
pub(crate) fn flow_of(owner: u32, c: Option<Cookie>) -> Option<FlowId> {
    let b: [u8; 16] = c?.bytes().try_into().ok()?;
    let (magic, rest) = b.split_at(4);
    let (whose, flow) = rest.split_at(4);
    let ours = magic == MAGIC && whose == owner.to_be_bytes();
    ours.then(|| FlowId(u64::from_be_bytes(flow.try_into().unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_priority_belongs_to_one_protocol() {
        let mut p = Prios::new(100);
        assert_eq!(p.get(0x0800, Side::First), Some(100));
        assert_eq!(p.get(0x86dd, Side::Second), Some(103));
        let other = p.get(0x1234, Side::First);
        assert_eq!(other, Some(116));
        assert_eq!(p.get(0x1234, Side::First), other);
        assert_eq!(p.get(0x4321, Side::First), Some(118));
    }

    #[test]
    fn priorities_of_a_former_life_are_kept() {
        let mut p = Prios::new(100);
        assert_eq!(p.adopt(0x0800, 101), Some(Side::Second));
        assert_eq!(p.adopt(0x0800, 102), None, "that is another protocol's");
        assert_eq!(p.adopt(0x1234, 118), Some(Side::First));
        assert_eq!(p.get(0x1234, Side::Second), Some(119));
        assert_eq!(p.get(0x4321, Side::First), Some(116));
        assert_eq!(p.adopt(0x0800, 7), None);
    }

    #[test]
    fn cookies_of_others_are_not_ours() {
        let c = cookie(5, FlowId(77));
        assert_eq!(flow_of(5, c), Some(FlowId(77)));
        assert_eq!(flow_of(6, c), None);
        assert_eq!(flow_of(5, Cookie::new(b"0123456789abcdef")), None);
        assert_eq!(flow_of(5, Cookie::new(b"short")), None);
        assert_eq!(flow_of(5, None), None);
    }
}
