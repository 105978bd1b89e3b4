//! A part of the connections, under one lock.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};

use clock::Instant;
use flow::{CtHelper, NatEnd, ct_state};
use hashbrown::HashTable;
use parking_lot::{Mutex, MutexGuard};

use crate::index::Index;
use crate::loans::Loan;
use crate::other::Progress;
use crate::tcp::{Fit, Segment, Tcp, TcpState};
use crate::timeout::Timeout;
use crate::tuple::Tuple;

/// Connections in a chunk of memory: taken one by one, so that no growth moves what is there.
const CHUNK: usize = 128;
/// Chunks of which it is known outside where they are; those beyond are not looked at ahead.
const KNOWN: usize = 512;

/// Progress of a connection's protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proto {
    Tcp(Tcp),
    Datagram(Progress),
    Icmp(Progress),
}

impl Proto {
    /// A packet of the connection. Its bits of `ct_state`, and how long the connection stays, if that is news; `None` when it begins
    /// another connection between the same ends.
    #[inline]
    pub(crate) fn packet(
        &mut self,
        segment: impl FnOnce() -> Option<Segment>,
        reply: bool,
        check_windows: bool,
    ) -> Option<(u16, Option<Timeout>)> {
        Some(match self {
            Proto::Datagram(d) => {
                let (bits, t) = d.datagram(reply);
                (bits, Some(t))
            }
            Proto::Icmp(i) => {
                let (bits, t) = i.icmp(reply);
                (bits, Some(t))
            }
            Proto::Tcp(tcp) => match segment().map_or(Fit::Invalid, |s| tcp.update(&s, reply, check_windows))
            {
                Fit::Valid(t) => (ct_state::ESTABLISHED, t),
                Fit::New(t) => (ct_state::NEW, Some(t)),
                Fit::Invalid => (ct_state::INVALID, None),
                Fit::Again => return None,
            },
        })
    }
}

/// A connection: two cache lines, of which the first says whose it is.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct Conn {
    pub(crate) original: Tuple,
    pub(crate) expires: Instant,
    pub(crate) mark: u32,
    pub(crate) nat: Option<NatEnd>,
    pub(crate) helper: Option<CtHelper>,
    pub(crate) loan: Loan,
    pub(crate) label: u128,
    /// The tuple of replies, where it is not the reverse of the original one.
    pub(crate) translated: Option<Box<Tuple>>,
    /// Of the hash of `original`.
    pub(crate) tag: u32,
    pub(crate) proto: Proto,
}

const _: () = assert!(size_of::<Option<Conn>>() == 128);

impl Conn {
    /// Whether its time is over: of one that is with hardware it is not known here.
    #[inline(always)]
    pub(crate) fn is_past(&self, now: Instant) -> bool {
        now >= self.expires && !self.loan.is_lent()
    }

    /// Whether packets of it change nothing but its time, as far as its protocol goes.
    pub(crate) fn is_established(&self) -> bool {
        match &self.proto {
            Proto::Tcp(t) => t.states() == (TcpState::Established, TcpState::Established),
            Proto::Datagram(d) | Proto::Icmp(d) => *d == Progress::Both,
        }
    }

    /// The tuple of replies, before they are translated back.
    #[inline]
    pub(crate) fn reply(&self) -> Tuple {
        match &self.translated {
            Some(t) => **t,
            None => self.original.reversed(),
        }
    }

    /// Says what tuple replies have.
    pub(crate) fn set_reply(&mut self, t: Tuple) {
        self.translated = (t != self.original.reversed()).then(|| Box::new(t));
    }

    /// Whether replies come with a tuple that is not the reverse of the original one.
    pub(crate) fn has_alias(&self) -> bool {
        self.translated.is_some()
    }

    /// Whether a tuple is one of the connection's, and that of its replies.
    #[inline(always)]
    fn direction(&self, t: &Tuple) -> Option<bool> {
        if self.original == *t {
            return Some(false);
        }
        (self.reply() == *t).then_some(true)
    }
}

/// The tuple of the replies of a connection that is translated.
struct Alias {
    reply: Tuple,
    hash: u64,
    original: Tuple,
}

/// A shard and its lock. On cache lines of its own.
#[derive(Default)]
#[repr(align(64))]
pub(crate) struct Place {
    shard: Mutex<Shard>,
    ahead: Ahead,
}

/// What may be read without the lock, to look ahead.
struct Ahead {
    index: Index,
    /// Addresses of chunks.
    chunks: Box<[AtomicUsize]>,
}

impl Default for Ahead {
    fn default() -> Self {
        Ahead { index: Index::default(), chunks: (0..KNOWN).map(|_| AtomicUsize::new(0)).collect() }
    }
}

/// A shard, locked.
pub(crate) struct Locked<'a> {
    shard: MutexGuard<'a, Shard>,
    ahead: &'a Ahead,
}

impl Deref for Locked<'_> {
    type Target = Shard;
    fn deref(&self) -> &Shard {
        &self.shard
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Shard {
        &mut self.shard
    }
}

/// Some of the connections.
#[derive(Default)]
pub(crate) struct Shard {
    chunks: Vec<Box<[Option<Conn>]>>,
    free: Vec<u32>,
    aliases: HashTable<Alias>,
    /// The slot that is swept next.
    cursor: u32,
}

pub(crate) fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

impl Place {
    #[inline]
    pub(crate) fn lock(&self) -> Locked<'_> {
        Locked { shard: self.shard.lock(), ahead: &self.ahead }
    }

    /// Where a lookup of this hash begins to read, as an address; 0 when it reads nothing.
    #[inline(always)]
    pub(crate) fn line(&self, hash: u64) -> usize {
        self.ahead.index.line(tag(hash))
    }

    /// The slot that the connection of this hash is likely to have, and its address, 0 when that is not known.
    #[inline(always)]
    pub(crate) fn connection(&self, hash: u64) -> Option<(u32, usize)> {
        let slot = self.ahead.index.hint(tag(hash))?;
        let chunk = self.ahead.chunks.get(slot as usize / CHUNK).map_or(0, |c| c.load(Ordering::Relaxed));
        let within = slot as usize % CHUNK * size_of::<Option<Conn>>();
        Some((slot, if chunk == 0 { 0 } else { chunk + within }))
    }
}

impl Locked<'_> {
    /// The connection of a tuple and whether that is the tuple of its replies.
    #[inline]
    pub(crate) fn find(&self, hash: u64, t: &Tuple) -> Option<(u32, bool)> {
        let mut reply = false;
        let is = |slot| match self.get(slot).and_then(|c| c.direction(t)) {
            Some(r) => {
                reply = r;
                true
            }
            None => false,
        };
        let slot = self.ahead.index.find(tag(hash), is)?;
        Some((slot, reply))
    }

    /// Makes `reply` lead to the connection of `original`, unless it is taken.
    pub(crate) fn add_alias(&mut self, hash: u64, reply: Tuple, original: Tuple) -> bool {
        if self.find(hash, &reply).is_some() || self.alias(hash, &reply).is_some() {
            return false;
        }
        self.aliases.insert_unique(hash, Alias { reply, hash, original }, |a| a.hash);
        true
    }

    /// Adds a connection; gives it back when there is no place for its hash.
    pub(crate) fn insert(&mut self, conn: Conn) -> Result<(), Box<Conn>> {
        let slot = match self.free.last() {
            Some(s) => *s,
            None => self.more(),
        };
        if !self.ahead.index.insert(conn.tag, slot) {
            return Err(Box::new(conn));
        }
        self.free.pop();
        if let Some(place) =
            self.chunks.get_mut(slot as usize / CHUNK).and_then(|c| c.get_mut(slot as usize % CHUNK))
        {
            *place = Some(conn);
        }
        Ok(())
    }

    /// Takes memory for another chunk; its first slot, which is the next to be used.
    #[cold]
    fn more(&mut self) -> u32 {
        let first = (self.chunks.len() * CHUNK) as u32;
        let chunk: Box<[Option<Conn>]> = (0..CHUNK).map(|_| None).collect();
        if let Some(known) = self.ahead.chunks.get(self.chunks.len()) {
            known.store(chunk.as_ptr().addr(), Ordering::Relaxed);
        }
        self.chunks.push(chunk);
        self.free.extend((first..first + CHUNK as u32).rev());
        first
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Conn> {
        let conn = self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)?.take()?;
        self.ahead.index.remove(conn.tag, slot);
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
}

impl Shard {
    #[inline(always)]
    pub(crate) fn get(&self, slot: u32) -> Option<&Conn> {
        self.chunks.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)?.as_ref()
    }

    #[inline(always)]
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Conn> {
        self.chunks.get_mut(slot as usize / CHUNK)?.get_mut(slot as usize % CHUNK)?.as_mut()
    }

    /// The original tuple of a connection whose replies have tuple `t`.
    pub(crate) fn alias(&self, hash: u64, t: &Tuple) -> Option<Tuple> {
        if self.aliases.is_empty() {
            return None;
        }
        self.aliases.find(hash, |a| a.reply == *t).map(|a| a.original)
    }

    pub(crate) fn remove_alias(&mut self, hash: u64, reply: &Tuple, original: &Tuple) {
        if let Ok(a) = self.aliases.find_entry(hash, |a| a.reply == *reply && a.original == *original) {
            a.remove();
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The connections from slot `from` on, at most as many as a chunk holds; where to go on.
    pub(crate) fn chunk(&self, from: usize) -> Option<impl Iterator<Item = &Conn>> {
        self.chunks.get(from).map(|c| c.iter().flatten())
    }
}
