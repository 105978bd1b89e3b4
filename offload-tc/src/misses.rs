//! Where frames go that no filter catches, and what such a frame says of how far it has come.
//!
//! A record that recirculates becomes a filter that goes on in another chain. A frame that the filters of that chain do not
//! catch has been changed already, so it cannot begin anew: it has to keep its place. Every frame that is handed over therefore
//! carries a tag, which is put outermost and taken off by whoever receives it:
//!
//! ```text
//!   802.1ad tag   priority                                  id
//!                 what connection tracking said, 0: nothing  number of the chain, 0: the beginning
//! ```
//!
//! A chain has the same number on all interfaces, and stands for one recirculation id for as long as filters use it. Numbers
//! are used again as late as possible, so that a frame under way finds what it was sent with.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use flow::ct_state as ovs;

use crate::action::{ActionSpec, Cookie, MirredMode, TcAction, VlanAction};
use crate::filter::{Flower, Hook, flags};
use crate::keys::FlowerKey;

/// Ethernet type of the tag.
pub const TAG: u16 = 0x88a8;
/// Greatest number of a chain: ids of tags have twelve bits, of which all ones is not one.
pub const MAX_CHAIN: u32 = 4094;

/// Bits of flower's ct_state (TCA_FLOWER_KEY_CT_FLAGS_*).
pub mod ct_state {
    /// Of a connection that is not confirmed.
    pub const NEW: u16 = 0x01;
    /// Of a connection that is.
    pub const ESTABLISHED: u16 = 0x02;
    /// About or because of another connection.
    pub const RELATED: u16 = 0x04;
    /// Connection tracking has seen it.
    pub const TRACKED: u16 = 0x08;
    /// It could not be tracked.
    pub const INVALID: u16 = 0x10;
    /// In the direction opposite to the first packet's.
    pub const REPLY: u16 = 0x20;
    /// All of them.
    pub const ALL: u16 = 0x3f;
}

/// Flower's bit, the datapath's bit.
const BITS: [(u16, u16); 6] = [
    (ct_state::NEW, ovs::NEW),
    (ct_state::ESTABLISHED, ovs::ESTABLISHED),
    (ct_state::RELATED, ovs::RELATED),
    (ct_state::TRACKED, ovs::TRACKED),
    (ct_state::INVALID, ovs::INVALID),
    (ct_state::REPLY, ovs::REPLY),
];

/// The bits of the datapath's `ct_state` in flower's places; those that flower does not have are lost.
pub fn to_flower(ovs_bits: u16) -> u16 {
    BITS.iter().filter(|(_, o)| ovs_bits & o != 0).map(|(f, _)| f).sum()
}

/// The bits of flower's `ct_state` in the datapath's places.
pub fn from_flower(bits: u16) -> u16 {
    BITS.iter().filter(|(f, _)| bits & f != 0).map(|(_, o)| o).sum()
}

/// What connection tracking says of a packet, by the tag's priority less one: all that Linux does say (`net/openvswitch`
/// and `net/sched/act_ct.c` map the same five, and a packet that belongs to none).
const STATES: [u16; 6] = [
    ct_state::TRACKED | ct_state::NEW,
    ct_state::TRACKED | ct_state::ESTABLISHED,
    ct_state::TRACKED | ct_state::ESTABLISHED | ct_state::REPLY,
    ct_state::TRACKED | ct_state::RELATED,
    ct_state::TRACKED | ct_state::RELATED | ct_state::REPLY,
    ct_state::TRACKED | ct_state::INVALID,
];
/// Priority of a tag: connection tracking has said something that does not fit a tag (a mark, a label).
const MORE: u8 = 7;

/// How far a frame has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Where it goes on; 0 begins anew.
    pub recirc: u32,
    /// What connection tracking said, as the datapath has it.
    pub ct_state: u16,
}

#[derive(Debug, Default)]
struct Inner {
    /// Where an interface's frames go, and what its filters hang on.
    exits: BTreeMap<u32, (u32, Hook)>,
    /// Recirculation ids by number of chain less one.
    chains: Vec<u32>,
    numbers: HashMap<u32, u32>,
    /// Where the search for a number to be used again begins.
    next: usize,
}

/// What ports and provider share: see the module's text. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Misses {
    inner: Arc<RwLock<Inner>>,
}

impl Misses {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames of interface `ifindex`, whose filters hang on `hook`, are handed over by interface `tap` from now on.
    pub fn open(&self, ifindex: u32, tap: u32, hook: Hook) {
        self.write().exits.insert(ifindex, (tap, hook));
    }

    /// They are not any more.
    pub fn close(&self, ifindex: u32) {
        self.write().exits.remove(&ifindex);
    }

    /// The interface by which those of `ifindex` are handed over.
    pub fn tap(&self, ifindex: u32) -> Option<u32> {
        self.read().exits.get(&ifindex).map(|(tap, _)| *tap)
    }

    /// What the filters of interface `ifindex` hang on.
    pub fn hook(&self, ifindex: u32) -> Hook {
        self.read().exits.get(&ifindex).map_or(Hook::Ingress(ifindex), |(_, h)| *h)
    }

    /// The number of the chain for `recirc`, which is given one if it has none. `None` when all are in use.
    pub fn chain(&self, recirc: u32, in_use: &dyn Fn(u32) -> bool) -> Option<u32> {
        if let Some(n) = self.read().numbers.get(&recirc) {
            return Some(*n);
        }
        let mut i = self.write();
        if (i.chains.len() as u32) < MAX_CHAIN {
            i.chains.push(recirc);
            let n = i.chains.len() as u32;
            i.numbers.insert(recirc, n);
            return Some(n);
        }
        for _ in 0..i.chains.len() {
            let at = i.next;
            i.next = (at + 1) % i.chains.len();
            let n = at as u32 + 1;
            if !in_use(n) {
                let old = std::mem::replace(&mut i.chains[at], recirc);
                i.numbers.remove(&old);
                i.numbers.insert(recirc, n);
                return Some(n);
            }
        }
        None
    }

    /// What a tag says; `None` when no such chain was ever used, or it says that there is more to know than it holds.
    pub fn place(&self, tci: u16) -> Option<Place> {
        let (prio, chain) = ((tci >> 13) as u8, usize::from(tci & 0xfff));
        let ct_state = match prio {
            0 => 0,
            MORE => return None,
            n => from_flower(*STATES.get(usize::from(n) - 1)?),
        };
        match chain.checked_sub(1) {
            None => (prio == 0).then(Place::default),
            Some(i) => self.read().chains.get(i).map(|recirc| Place { recirc: *recirc, ct_state }),
        }
    }
}

/// The actions that hand a frame over by `tap` with its place.
pub(crate) fn hand_over(chain: u32, prio: u8, tap: u32, cookie: Option<Cookie>) -> Vec<TcAction> {
    let push = VlanAction::Push { proto: TAG, vid: (chain & 0xfff) as u16, prio };
    let mut first = TcAction::pipe(ActionSpec::Vlan(push));
    first.cookie = cookie;
    vec![first, TcAction::mirred(MirredMode::EgressRedirect, tap)]
}

/// What hands over all that the filters of a chain do not catch: priorities behind all others, and filters. With `ct` those are
/// told apart of which connection tracking has said something.
pub(crate) fn keepers(chain: u32, ct: bool, tap: u32, cookie: Option<Cookie>) -> Vec<(u16, u32, Flower)> {
    let filter = |prio: u8| Flower {
        flags: flags::SKIP_HW,
        actions: hand_over(chain, prio, tap, cookie),
        ..Flower::default()
    };
    let mut out = Vec::new();
    if ct {
        for (i, state) in (1u8..).zip(STATES) {
            let mut f = filter(i);
            f.set_masked(FlowerKey::CtState, state.into(), ct_state::ALL.into());
            f.set(FlowerKey::CtMark, 0);
            f.set(FlowerKey::CtLabel, 0);
            out.push((LAST - 2, u32::from(i), f));
        }
        let mut f = filter(MORE);
        f.set_masked(FlowerKey::CtState, ct_state::TRACKED.into(), ct_state::TRACKED.into());
        out.push((LAST - 1, 1, f));
    }
    out.push((LAST, 1, filter(0)));
    out
}

/// The priority of what catches everything.
pub(crate) const LAST: u16 = 0xfffe;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_is_found_by_what_frames_carry() {
        let m = Misses::new();
        let n = m.chain(77, &|_| false).unwrap();
        assert_eq!(m.chain(77, &|_| false), Some(n));
        assert_ne!(m.chain(78, &|_| false), Some(n));
        assert_eq!(m.place(n as u16), Some(Place { recirc: 77, ct_state: 0 }));
        let reply = ovs::TRACKED | ovs::ESTABLISHED | ovs::REPLY;
        assert_eq!(m.place(3 << 13 | n as u16), Some(Place { recirc: 77, ct_state: reply }));
        assert_eq!(m.place(0), Some(Place::default()));
        assert_eq!(m.place(4000), None, "never used");
        assert_eq!(m.place(7 << 13 | n as u16), None, "there is more to know");
    }

    #[test]
    fn numbers_are_used_again_when_nobody_uses_them() {
        let m = Misses::new();
        for id in 1..=MAX_CHAIN {
            assert_eq!(m.chain(id, &|_| true), Some(id));
        }
        assert_eq!(m.chain(9999, &|_| true), None);
        assert_eq!(m.chain(9999, &|n| n < 5), Some(5));
        assert_eq!(m.place(5).map(|p| p.recirc), Some(9999));
        assert_eq!(m.chain(5, &|n| n < 5), Some(6), "and the oldest first");
    }

    #[test]
    fn every_state_has_one_filter_and_bits_come_back() {
        let k = keepers(9, true, 5, None);
        let states: std::collections::BTreeSet<_> =
            k.iter().filter_map(|(_, _, f)| f.get(FlowerKey::CtState)).collect();
        assert_eq!((k.len(), states.len()), (8, 7));
        assert_eq!(keepers(9, false, 5, None).len(), 1);
        for s in STATES {
            assert_eq!(to_flower(from_flower(s)), s);
        }
    }
}
