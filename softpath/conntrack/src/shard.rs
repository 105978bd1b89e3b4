//! A part of the connections, under one lock.

use clock::Instant;
use flow::{CtHelper, NatEnd};
use hashbrown::HashTable;

use crate::other::Progress;
use crate::tcp::Tcp;
use crate::tuple::Tuple;

/// Connections in a chunk of memory: taken one by one, so that no growth moves what is there.
const CHUNK: usize = 128;

/// Progress of a connection's protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proto {
    Tcp(Tcp),
    Datagram(Progress),
    Icmp(Progress),
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) original: Tuple,
    pub(crate) reply: Tuple,
    /// Of `original`.
    pub(crate) hash: u64,
    pub(crate) expires: Instant,
    pub(crate) label: u128,
    pub(crate) mark: u32,
    pub(crate) nat: Option<NatEnd>,
    pub(crate) helper: Option<CtHelper>,
    pub(crate) proto: Proto,
}

impl Conn {
    /// Whether replies come with a tuple that is not the reverse of the original one.
    pub(crate) fn has_alias(&self) -> bool {
        self.reply != self.original.reversed()
    }
}

/// The tuple of the replies of a connection that is translated.
struct Alias {
    reply: Tuple,
    hash: u64,
    original: Tuple,
}

/// Some of the connections. On a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Shard {
    /// A part of the hash and the slot.
    table: HashTable<(u32, u32)>,
    chunks: Vec<Box<[Option<Conn>]>>,
    free: Vec<u32>,
    aliases: HashTable<Alias>,
    /// The slot that is swept next.
    cursor: u32,
}

fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Shard {
    pub(crate) fn get(&self, slot: u32) -> Option<&Conn> {
        self.chunks.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)?.as_mut()
    }

    /// The connection of a tuple and whether that is the tuple of its replies.
    #[inline]
    pub(crate) fn find(&self, hash: u64, t: &Tuple) -> Option<(u32, bool)> {
        let mut reply = false;
        let found = self.table.find(hash, |(h, slot)| {
            *h == tag(hash)
                && self.get(*slot).is_some_and(|c| {
                    reply = c.original != *t;
                    !reply || c.reply == *t
                })
        })?;
        Some((found.1, reply))
    }

    /// The original tuple of a connection whose replies have tuple `t`.
    pub(crate) fn alias(&self, hash: u64, t: &Tuple) -> Option<Tuple> {
        if self.aliases.is_empty() {
            return None;
        }
        self.aliases.find(hash, |a| a.reply == *t).map(|a| a.original)
    }

    /// Makes `reply` lead to the connection of `original`, unless it is taken.
    pub(crate) fn add_alias(&mut self, hash: u64, reply: Tuple, original: Tuple) -> bool {
        if self.find(hash, &reply).is_some() || self.alias(hash, &reply).is_some() {
            return false;
        }
        self.aliases.insert_unique(hash, Alias { reply, hash, original }, |a| a.hash);
        true
    }

    pub(crate) fn remove_alias(&mut self, hash: u64, reply: &Tuple, original: &Tuple) {
        if let Ok(a) = self.aliases.find_entry(hash, |a| a.reply == *reply && a.original == *original) {
            a.remove();
        }
    }

    pub(crate) fn insert(&mut self, conn: Conn) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            let first = (self.chunks.len() * CHUNK) as u32;
            self.chunks.push((0..CHUNK).map(|_| None).collect());
            self.free.extend((first + 1..first + CHUNK as u32).rev());
            first
        });
        let hash = conn.hash;
        if let Some(place) =
            self.chunks.get_mut(slot as usize / CHUNK).and_then(|c| c.get_mut(slot as usize % CHUNK))
        {
            *place = Some(conn);
        }
        let chunks = &self.chunks;
        self.table.insert_unique(hash, (tag(hash), slot), |(_, s)| {
            chunks[*s as usize / CHUNK][*s as usize % CHUNK].as_ref().map_or(0, |c| c.hash)
        });
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Conn> {
        let conn = self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)?.take()?;
        if let Ok(e) = self.table.find_entry(conn.hash, |(_, s)| *s == slot) {
            e.remove();
        }
        self.free.push(slot);
        Some(conn)
    }

    /// Looks at up to `budget` slots, beginning where it stopped the last time, and removes those for which `gone` holds.
    pub(crate) fn sweep(
        &mut self,
        budget: usize,
        removed: &mut Vec<Conn>,
        gone: impl Fn(&Conn) -> bool,
    ) -> usize {
        let slots = self.chunks.len() * CHUNK;
        let n = budget.min(slots);
        for _ in 0..n {
            let slot = self.cursor;
            self.cursor = (self.cursor + 1) % slots as u32;
            if self.get(slot).is_some_and(&gone) {
                removed.extend(self.remove(slot));
            }
        }
        n
    }

    pub(crate) fn slots(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The connections from slot `from` on, at most as many as a chunk holds; where to go on.
    pub(crate) fn chunk(&self, from: usize) -> Option<impl Iterator<Item = &Conn>> {
        self.chunks.get(from).map(|c| c.iter().flatten())
    }
}
