//! Recirculation: what a translation that cannot go on without the datapath leaves behind, under the number that the packet
//! comes back with.
//!
//! ```text
//!   xlate ── freeze ─► Frozen ─► id ─► action recirc(id) ─► datapath: connection tracking, hash, a fresh look at headers
//!     ▲                                                        │
//!     └────────── thaw(id) ◄── miss with recirc_id = id ◄──────┘
//! ```
//!
//! Equal states share an id, so that a record that is translated again gets the same actions. Whoever holds a [`Recirc`]
//! (a flow record through its basis) keeps its id; one that nobody holds stays for [`KEPT_SWEEPS`] sweeps, since packets that
//! were given it may be under way, and for translations that come to nothing but a look (traces).
//!
//! Ids are not given out again soon: they count up through 32 bits.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use clock::Instant;
use flow::{FieldId, PACKET_WORDS, PIPELINE_WORDS, PipelineKey};
use openflow::{Action, Instructions, PortNo};
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use crate::rule::Rule;

/// Most states at a time.
pub const MAX_RECIRCS: usize = 65_536;
/// Sweeps, one a second, for which a state stays that nobody holds.
const KEPT_SWEEPS: u8 = 3;

/// Words of a pipeline key that no datapath has.
const OWN_WORDS: usize = PIPELINE_WORDS - PACKET_WORDS;

/// A rule, equal to itself only.
#[derive(Clone, Debug)]
pub struct SameRule(pub Arc<Rule>);

impl PartialEq for SameRule {
    fn eq(&self, o: &Self) -> bool {
        Arc::ptr_eq(&self.0, &o.0)
    }
}
impl Eq for SameRule {}
impl Hash for SameRule {
    fn hash<H: Hasher>(&self, h: &mut H) {
        h.write_usize(Arc::as_ptr(&self.0) as usize);
    }
}

/// What is left to do when a packet comes back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Later {
    /// What follows is of this rule of this table.
    Origin {
        /// The table.
        table: u8,
        /// The rule; `None` for a packet-out, and when a controller had the packet meanwhile.
        rule: Option<SameRule>,
        /// Its cookie; all ones when there is no rule.
        cookie: u64,
    },
    /// Actions.
    Actions(Vec<Action>),
    /// What a rule does after its actions: instructions other than those.
    Instructions(Instructions),
    /// It leaves by the member of a bond that its hash falls on; the bond goes by this port.
    Bond(PortNo),
}

/// A translation that goes on later.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Frozen {
    /// The bridge.
    pub bridge: u32,
    /// The port that the packet counts as having come in on.
    pub in_port: PortNo,
    /// Where the packet goes on, when nothing is left to do before.
    pub table: u8,
    /// Registers, metadata and the rest of what only a pipeline has.
    pub(crate) own: [u64; OWN_WORDS],
    /// The stack.
    pub stack: Vec<(u128, u16)>,
    /// Mirrors that have a copy.
    pub mirrored: u32,
    /// The action set.
    pub action_set: Vec<Action>,
    /// What is left to do.
    pub then: Vec<Later>,
    /// Whether the state of the packet's connection is for the rules to see.
    pub tracked: bool,
    /// What a controller is to be given along with the packet.
    pub userdata: Vec<u8>,
    /// What was written of the metadata of tunnels, for looks alone: a packet brings it along.
    pub(crate) tunnel: Vec<(FieldId, u128)>,
    /// What the packet begins with: an id is of packets that begin alike.
    pub(crate) packet_type: u32,
}

impl Frozen {
    /// Of a packet that is `key` by now; nothing else set.
    pub fn of(bridge: u32, in_port: PortNo, key: &PipelineKey) -> Self {
        Frozen {
            bridge,
            in_port,
            table: 0,
            own: std::array::from_fn(|i| key.word(PACKET_WORDS + i)),
            stack: Vec::new(),
            mirrored: 0,
            action_set: Vec::new(),
            then: Vec::new(),
            tracked: false,
            userdata: Vec::new(),
            tunnel: Vec::new(),
            packet_type: key.get64(FieldId::PacketType) as u32,
        }
    }

    /// Puts back what only a pipeline has.
    pub fn restore(&self, key: &mut PipelineKey) {
        for (i, w) in self.own.iter().enumerate() {
            key.set_word(PACKET_WORDS + i, *w);
        }
    }
}

/// A frozen translation and its id. The id stays its own while somebody holds this.
#[derive(Debug)]
pub struct Recirc {
    /// The id; not zero.
    pub id: u32,
    /// The state.
    pub state: Frozen,
    hash: u64,
}

struct Held {
    recirc: Arc<Recirc>,
    /// Sweeps since somebody held it or asked for it.
    idle: AtomicU8,
    /// It was made to look at.
    look: bool,
}

#[derive(Default)]
struct Inner {
    by_id: HashMap<u32, Held>,
    by_hash: HashMap<u64, SmallVec<[u32; 1]>>,
    last: u32,
}

/// The frozen translations of a switch.
#[derive(Default)]
pub struct Recircs {
    hasher: RandomState,
    inner: RwLock<Inner>,
    swept: Mutex<Instant>,
}

impl Recircs {
    /// Keeps a state; `None` when there are [`MAX_RECIRCS`] already.
    pub fn freeze(&self, state: Frozen) -> Option<Arc<Recirc>> {
        self.freeze_for(state, false)
    }

    /// As [`Recircs::freeze`]; with `look` for a translation that is made to look at. Its id is nobody else's unless somebody holds it
    /// meanwhile, as in Open vSwitch.
    pub(crate) fn freeze_for(&self, state: Frozen, look: bool) -> Option<Arc<Recirc>> {
        let hash = self.hasher.hash_one(&state);
        if let Some(r) = self.inner.read().find(hash, &state) {
            return Some(r);
        }
        let mut inner = self.inner.write();
        if let Some(r) = inner.find(hash, &state) {
            return Some(r);
        }
        if inner.by_id.len() >= MAX_RECIRCS {
            return None;
        }
        let mut id = inner.last.wrapping_add(1).max(1);
        while inner.by_id.contains_key(&id) {
            id = id.wrapping_add(1).max(1);
        }
        inner.last = id;
        let recirc = Arc::new(Recirc { id, state, hash });
        inner.by_id.insert(id, Held { recirc: recirc.clone(), idle: AtomicU8::new(0), look });
        inner.by_hash.entry(hash).or_default().push(id);
        Some(recirc)
    }

    /// The state with this id.
    pub fn thaw(&self, id: u32) -> Option<Arc<Recirc>> {
        self.inner.read().by_id.get(&id).map(|h| h.recirc.clone())
    }

    /// The first id by which packets for the bond that goes by `port` of a bridge come back.
    pub(crate) fn of_bond(&self, bridge: u32, port: PortNo) -> Option<u32> {
        let inner = self.inner.read();
        let is = |s: &Frozen| s.bridge == bridge && s.then.last() == Some(&Later::Bond(port));
        inner.by_id.iter().filter(|(_, h)| is(&h.recirc.state)).map(|(id, _)| *id).min()
    }

    /// How many states there are.
    pub fn len(&self) -> usize {
        self.inner.read().by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Lets go of what nobody has held for some sweeps. At most once a second, however often it is called.
    pub fn sweep(&self, now: Instant) {
        {
            let mut swept = self.swept.lock();
            if now.since(*swept).as_secs() < 1 {
                return;
            }
            *swept = now;
        }
        let mut inner = self.inner.write();
        let mut gone = Vec::new();
        for (id, h) in &mut inner.by_id {
            let idle = h.idle.get_mut();
            *idle = if Arc::strong_count(&h.recirc) > 1 { 0 } else { *idle + 1 };
            if *idle > KEPT_SWEEPS {
                gone.push((*id, h.recirc.hash));
            }
        }
        for (id, hash) in gone {
            inner.by_id.remove(&id);
            if let Some(ids) = inner.by_hash.get_mut(&hash) {
                ids.retain(|i| *i != id);
                if ids.is_empty() {
                    inner.by_hash.remove(&hash);
                }
            }
        }
    }
}

impl Inner {
    fn find(&self, hash: u64, state: &Frozen) -> Option<Arc<Recirc>> {
        let ids = self.by_hash.get(&hash)?;
        let is = |h: &&Held| h.recirc.state == *state && (!h.look || Arc::strong_count(&h.recirc) > 1);
        ids.iter().filter_map(|id| self.by_id.get(id)).find(is).map(|h| {
            // As good as new: packets may be given it again.
            h.idle.store(0, Ordering::Relaxed);
            h.recirc.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn state(table: u8) -> Frozen {
        Frozen { table, ..Frozen::of(0, PortNo(1), &PipelineKey::ZERO) }
    }

    #[test]
    fn equal_states_share_an_id_and_ids_are_not_given_out_again_at_once() {
        let r = Recircs::default();
        let a = r.freeze(state(1)).unwrap();
        assert_eq!((a.id, r.freeze(state(1)).unwrap().id, r.freeze(state(2)).unwrap().id), (1, 1, 2));
        drop(a);
        let mut now = Instant::default();
        for _ in 0..10 {
            now = now + Duration::from_secs(1);
            r.sweep(now);
        }
        assert!(r.is_empty() && r.thaw(1).is_none());
        assert_eq!(r.freeze(state(1)).unwrap().id, 3);
    }

    #[test]
    fn what_a_look_left_behind_is_found_by_its_id_and_shared_only_while_somebody_holds_it() {
        let r = Recircs::default();
        let id = r.freeze_for(state(1), true).unwrap().id;
        assert_eq!(r.thaw(id).unwrap().state, state(1));
        let other = r.freeze_for(state(1), true).unwrap();
        assert_ne!(other.id, id);
        assert_eq!(r.freeze(state(1)).unwrap().id, other.id);
    }

    #[test]
    fn what_is_held_stays_and_what_is_not_stays_a_little() {
        let r = Recircs::default();
        let a = r.freeze(state(1)).unwrap();
        let _ = r.freeze(state(2)).unwrap();
        let mut now = Instant::default();
        for i in 1..=4u64 {
            now = now + Duration::from_secs(1);
            r.sweep(now);
            r.sweep(now);
            assert_eq!(r.thaw(2).is_some(), i <= u64::from(KEPT_SWEEPS), "{i}");
        }
        assert_eq!(r.thaw(a.id).unwrap().state, state(1));
    }

    #[test]
    fn a_state_that_is_wanted_again_stays_as_long_as_a_new_one() {
        let r = Recircs::default();
        let mut now = Instant::default();
        for _ in 0..10 {
            let id = r.freeze(state(1)).unwrap().id;
            now = now + Duration::from_secs(1);
            r.sweep(now);
            assert!(r.thaw(id).is_some());
        }
    }

    #[test]
    fn there_is_a_limit() {
        let r = Recircs::default();
        for i in 0..MAX_RECIRCS as u32 {
            assert!(r.freeze(Frozen { mirrored: i, ..state(1) }).is_some());
        }
        assert!(r.freeze(state(2)).is_none());
        assert_eq!(r.len(), MAX_RECIRCS);
    }
}
