//! What happens to a packet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use clock::Instant;
use flow::headers::eth_type;
use flow::{CtAction, CtFilter, NatEnd, NatRange, ct_state};

use crate::entry::{Entry, Protocol};
use crate::extract::{Found, Headers, addresses, extract};
use crate::fragments::{First, Fragment, Fragments};
use crate::limits::{Limits, ZoneLimit};
use crate::loans::{Loan, Loans};
use crate::nat;
use crate::other::{Progress, begins};
use crate::shard::{Conn, Locked, Place, Proto, tag};
use crate::tcp::{Segment, Tcp};
use crate::timeout::{self, Timeout, Timeouts};
use crate::tuple::{Hasher, Tuple};

/// Shards; a power of two.
const SHARDS: usize = 64;
/// Slots looked at for room before a connection is turned away.
const MAKE_ROOM: usize = 64;

/// What is known of a packet's connection: before, from an earlier action; after, from this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Bits of [`ct_state`]; zero before the first action.
    pub state: u16,
    /// Zone.
    pub zone: u16,
    /// Mark of the connection.
    pub mark: u32,
    /// Label of the connection.
    pub label: u128,
    /// The connection's original tuple, or the packet's when it has no connection.
    pub original: Option<Tuple>,
}

/// Counters of a [`Tracker`]: a reading.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Connections held, those included that are past their time and not given back yet.
    pub connections: usize,
    /// Connections made.
    pub made: u64,
    /// Connections given back.
    pub ended: u64,
    /// Packets that were invalid.
    pub invalid: u64,
    /// Connections that were not made because there were too many, in all or in their zone.
    pub full: u64,
    /// Connections that were not made because no translation was free.
    pub nat_exhausted: u64,
}

#[derive(Default)]
pub(crate) struct Counts {
    made: AtomicU64,
    ended: AtomicU64,
    pub(crate) invalid: AtomicU64,
    full: AtomicU64,
    nat_exhausted: AtomicU64,
}

pub(crate) fn count(a: &AtomicU64) {
    a.fetch_add(1, Ordering::Relaxed);
}

/// The connections of a datapath. Shared by its cores.
pub struct Tracker {
    pub(crate) hasher: Hasher,
    shards: Box<[Place]>,
    limits: Limits,
    pub(crate) timeouts: timeout::Shared,
    pub(crate) check_windows: AtomicBool,
    pub(crate) counts: Counts,
    fragments: Fragments,
    pub(crate) loans: Loans,
    random: AtomicU64,
    next_shard: AtomicUsize,
}

impl Default for Tracker {
    fn default() -> Self {
        Tracker::new(None)
    }
}

/// A packet under the tracker.
struct Packet<'a> {
    frame: &'a mut [u8],
    headers: &'a Headers,
    found: Found,
    hash: u64,
    now: Instant,
}

impl Packet<'_> {
    fn segment(&self) -> Option<Segment> {
        Segment::of(self.frame.get(self.headers.l4..self.headers.end)?)
    }
}

impl Tracker {
    /// Without connections. `seed` makes hashes and choices repeatable: for tests only, for a known seed can be attacked.
    pub fn new(seed: Option<u64>) -> Self {
        let hasher = Hasher::new(seed);
        Tracker {
            random: AtomicU64::new(hasher.choice([1, 2, 3, 4])),
            hasher,
            shards: (0..SHARDS).map(|_| Place::default()).collect(),
            limits: Limits::new(),
            timeouts: timeout::Shared::default(),
            check_windows: AtomicBool::new(true),
            counts: Counts::default(),
            fragments: Fragments::default(),
            loans: Loans::default(),
            next_shard: AtomicUsize::new(0),
        }
    }

    #[inline(always)]
    pub(crate) fn place(&self, hash: u64) -> &Place {
        &self.shards[(hash >> 20) as usize & (SHARDS - 1)]
    }

    pub(crate) fn shard(&self, hash: u64) -> Locked<'_> {
        self.place(hash).lock()
    }

    fn next_random(&self) -> u64 {
        let n = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        self.hasher.choice([n.into(), 0, 0, 0])
    }

    /// Tracks a packet by `action`: says in `meta` what it is, and translates it. A packet without headers that could be read
    /// is invalid.
    pub fn track(
        &self,
        frame: &mut [u8],
        headers: Option<&Headers>,
        meta: &mut Meta,
        action: &CtAction,
        now: Instant,
    ) {
        let before = std::mem::take(meta);
        meta.zone = action.zone;
        let fragment = match headers.filter(|h| h.is_fragment) {
            Some(h) => match Fragment::of(frame, h, action.zone) {
                Some(f) if f.is_later => return self.follow(frame, h, f, &before, meta, action, now),
                Some(f) => Some(f),
                None => {
                    meta.state = ct_state::TRACKED | ct_state::INVALID;
                    return count(&self.counts.invalid);
                }
            },
            None => None,
        };
        let found = headers.and_then(|h| Some((h, extract(frame, h, action.zone)?)));
        // An error in pieces: the packet that it quotes could not be given a right checksum.
        let found = found.filter(|(_, f)| fragment.is_none() || f.about.is_none());
        let Some((headers, found)) = found else {
            meta.state = ct_state::TRACKED | ct_state::INVALID;
            return count(&self.counts.invalid);
        };
        let hash = self.hasher.hash(&found.tuple);
        let mut p = Packet { frame, headers, found, hash, now };
        meta.original = Some(found.tuple);
        meta.state = match self.known(&mut p, &before, meta, action) {
            Some(state) => state,
            None => self.unknown(&mut p, meta, action),
        } | ct_state::TRACKED;
        if meta.state & ct_state::INVALID != 0 {
            count(&self.counts.invalid);
        } else if let Some(f) = fragment {
            let Tuple { sport, dport, icmp_type, .. } = p.found.tuple;
            self.fragments.put(f.id, First { sport, dport, icmp_type, state: meta.state }, now);
        }
    }

    /// Tracks a later fragment by what came of the first.
    #[cold]
    #[allow(clippy::too_many_arguments)]
    fn follow(
        &self,
        frame: &mut [u8],
        h: &Headers,
        f: Fragment,
        before: &Meta,
        meta: &mut Meta,
        action: &CtAction,
        now: Instant,
    ) {
        let v6 = h.eth_type == eth_type::IPV6;
        let first = self.fragments.get(&f.id, now);
        let (Some(first), Some((src, dst))) = (first, addresses(frame, h.l3, v6)) else {
            meta.state = ct_state::TRACKED | ct_state::INVALID;
            return count(&self.counts.invalid);
        };
        let First { sport, dport, icmp_type, state } = first;
        let t = Tuple { src, dst, sport, dport, zone: action.zone, proto: h.proto, icmp_type, v6 };
        (meta.state, meta.original) = (state, Some(t));
        let Some((mut shard, slot, reply)) = self.find_live(self.hasher.hash(&t), &t, now) else {
            // One that was translated on an earlier pass is told of what its connection is.
            if before.zone == action.zone && before.original.is_some() {
                (meta.mark, meta.label, meta.original) = (before.mark, before.label, before.original);
            }
            return;
        };
        let Some(conn) = shard.get_mut(slot) else { return };
        self.set_bits(conn, action);
        (meta.mark, meta.label, meta.original) = (conn.mark, conn.label, Some(conn.original));
        let translated = state & (ct_state::SRC_NAT | ct_state::DST_NAT) != 0 && conn.nat.is_some();
        let done = before.state & (ct_state::SRC_NAT | ct_state::DST_NAT) != 0 && before.zone == action.zone;
        if translated && !done {
            let to = if reply { conn.original } else { conn.reply() }.reversed();
            drop(shard);
            nat::translate_later(frame, h, &to);
        }
    }

    /// The connection of a tuple, in its locked shard.
    fn find(&self, hash: u64, t: &Tuple) -> Option<(Locked<'_>, u32, bool)> {
        let shard = self.shard(hash);
        if let Some((slot, reply)) = shard.find(hash, t) {
            return Some((shard, slot, reply));
        }
        let original = shard.alias(hash, t)?;
        drop(shard);
        let home = self.hasher.hash(&original);
        let shard = self.shard(home);
        let (slot, _) = shard.find(home, &original)?;
        // It may have ended and another begun since.
        shard.get(slot).is_some_and(|c| c.reply() == *t).then_some(())?;
        Some((shard, slot, true))
    }

    /// As [`Tracker::find`], of those whose time is not over; one whose time is ends here, and may have hidden another.
    fn find_live(&self, hash: u64, t: &Tuple, now: Instant) -> Option<(Locked<'_>, u32, bool)> {
        loop {
            let (shard, slot, reply) = self.find(hash, t)?;
            if shard.get(slot).is_some_and(|c| !c.is_past(now)) {
                return Some((shard, slot, reply));
            }
            self.end(shard, slot);
        }
    }

    /// A packet of a connection that is known; its bits of `ct_state`. `None` when there is none, any more.
    fn known(&self, p: &mut Packet<'_>, before: &Meta, meta: &mut Meta, action: &CtAction) -> Option<u16> {
        let translated = ct_state::SRC_NAT | ct_state::DST_NAT;
        let (mut shard, slot, reply) = match self.find_live(p.hash, &p.found.tuple, p.now) {
            Some(f) => f,
            // One that was translated on an earlier pass is still of the connection that it was of.
            None if before.state & translated != 0 && action.nat.is_none() && before.zone == action.zone => {
                let mut original = before.original?;
                if original.is_icmp() {
                    (original.sport, original.dport) = (p.found.tuple.sport, p.found.tuple.dport);
                }
                let (shard, slot, _) = self.find_live(self.hasher.hash(&original), &original, p.now)?;
                let reply = before.state & ct_state::REPLY != 0;
                (shard, slot, reply)
            }
            None => return None,
        };
        let conn = shard.get_mut(slot)?;
        if action.force && action.commit && reply {
            self.end(shard, slot);
            return None;
        }
        let mut state = if reply { ct_state::REPLY } else { 0 };
        if p.found.about.is_some() {
            state |= ct_state::RELATED;
        } else {
            let check = self.check_windows.load(Ordering::Relaxed) && conn.loan.knows_windows();
            let Some((bits, timeout)) = conn.proto.packet(|| p.segment(), reply, check) else {
                self.end(shard, slot);
                return None;
            };
            // A direction is told of established connections only.
            state = if bits == ct_state::ESTABLISHED { state | bits } else { bits };
            if let Some(t) = timeout {
                conn.expires = p.now + self.timeouts.get(action.zone, t);
            }
        }
        self.set_bits(conn, action);
        if state & (ct_state::ESTABLISHED | ct_state::RELATED) == ct_state::ESTABLISHED {
            self.may_lend(conn);
        }
        meta.mark = conn.mark;
        meta.label = conn.label;
        meta.original = Some(conn.original);
        let done = before.state & translated != 0 && before.zone == action.zone;
        if done {
            state |= before.state & translated;
        } else if let (Some(end), Some(_)) = (conn.nat, action.nat) {
            let end = if reply { other(end) } else { end };
            let to = if reply { conn.original } else { conn.reply() }.reversed();
            drop(shard);
            nat::translate(p.frame, p.headers, p.found.about.as_ref(), end, &to);
            state |= bit_of(end);
        }
        Some(state)
    }

    /// A packet of no connection; its bits of `ct_state`.
    fn unknown(&self, p: &mut Packet<'_>, meta: &mut Meta, action: &CtAction) -> u16 {
        let t = p.found.tuple;
        if p.found.about.is_some() {
            return ct_state::INVALID;
        }
        let begun = match (t.proto, t.is_icmp()) {
            (_, true) => begins(&t).then_some((Proto::Icmp(Progress::First), Timeout::IcmpFirst)),
            (flow::headers::ip_proto::TCP, _) => {
                let s = p.segment().filter(Segment::begins);
                s.map(|s| (Proto::Tcp(Tcp::begin(&s)), Timeout::TcpFirstPacket))
            }
            _ => Some((Proto::Datagram(Progress::First), Timeout::OtherFirst)),
        };
        let Some((proto, timeout)) = begun else { return ct_state::INVALID };
        let mut state = ct_state::NEW;
        if !action.commit {
            return state;
        }
        if !self.limits.take(t.zone) {
            self.make_room(p.hash, p.now);
            if !self.limits.take(t.zone) {
                count(&self.counts.full);
                return state;
            }
        }
        let mut conn = Conn {
            original: t,
            translated: None,
            tag: tag(p.hash),
            expires: p.now + self.timeouts.get(t.zone, timeout),
            label: 0,
            mark: 0,
            nat: None,
            helper: action.helper,
            loan: Loan::default(),
            proto,
        };
        if let Some(Some(range)) = &action.nat {
            let Some(reply) = self.reserve(&t, range, p.now) else {
                self.limits.give_back(t.zone);
                count(&self.counts.nat_exhausted);
                return ct_state::INVALID;
            };
            conn.set_reply(reply);
            conn.nat = Some(range.end);
        }
        self.set_bits(&mut conn, action);
        meta.mark = conn.mark;
        meta.label = conn.label;
        let (nat, reply) = (conn.nat, conn.reply());
        let mut shard = self.shard(p.hash);
        if shard.find(p.hash, &t).is_some() {
            // Another core was faster; this packet was as new as its.
            drop(shard);
            self.limits.give_back(t.zone);
            self.forget_alias(&conn);
            return state;
        }
        let refused = shard.insert(conn);
        drop(shard);
        if let Err(conn) = refused {
            self.limits.give_back(t.zone);
            self.forget_alias(&conn);
            count(&self.counts.full);
            return state;
        }
        count(&self.counts.made);
        if let Some(end) = nat {
            nat::translate(p.frame, p.headers, None, end, &reply.reversed());
            state |= bit_of(end);
        }
        state
    }

    /// The tuple of replies for a connection that is translated by `range`; others cannot take it from now on.
    fn reserve(&self, t: &Tuple, range: &NatRange, now: Instant) -> Option<Tuple> {
        let plain = t.reversed();
        let take = |reply: &Tuple| {
            let hash = self.hasher.hash(reply);
            let mut shard = self.shard(hash);
            // One that translates to what it was needs no alias, but no other one may have it.
            if *reply == plain {
                shard.find(hash, reply).is_none() && shard.alias(hash, reply).is_none()
            } else {
                shard.add_alias(hash, *reply, *t)
            }
        };
        // One that is past its time is in nobody's way.
        let is_free = |reply: &Tuple| take(reply) || self.end_if_past(reply, now) && take(reply);
        nat::choose(t, range, &self.hasher, || self.next_random(), is_free)
    }

    /// Ends the connection of which `t` is the tuple in either direction, if its time is over; whether it was.
    #[cold]
    fn end_if_past(&self, t: &Tuple, now: Instant) -> bool {
        let Some((shard, slot, _)) = self.find(self.hasher.hash(t), t) else { return false };
        let is_past = shard.get(slot).is_some_and(|c| c.is_past(now));
        if is_past {
            self.end(shard, slot);
        }
        is_past
    }

    /// A packet of a known connection has been tracked: sets what `a` says. Hardware is told if it has the connection and there is news.
    #[inline]
    pub(crate) fn set_bits(&self, c: &mut Conn, a: &CtAction) {
        let before = (c.mark, c.label);
        c.mark = c.mark & !a.mark.1 | a.mark.0 & a.mark.1;
        c.label = c.label & !a.label.1 | a.label.0 & a.label.1;
        if c.loan.is_lent() && (before != (c.mark, c.label) || !c.is_established()) {
            self.loans.note_changed(c.original);
        }
    }

    fn forget_alias(&self, c: &Conn) {
        if c.has_alias() {
            let reply = c.reply();
            let hash = self.hasher.hash(&reply);
            self.shard(hash).remove_alias(hash, &reply, &c.original);
        }
    }

    /// Ends a connection.
    pub(crate) fn end(&self, mut shard: Locked<'_>, slot: u32) {
        let conn = shard.remove(slot);
        drop(shard);
        if let Some(c) = conn {
            self.ended(&c);
        }
    }

    fn ended(&self, c: &Conn) {
        if c.loan.is_lent() {
            self.loans.note_changed(c.original);
        }
        self.forget_alias(c);
        self.limits.give_back(c.original.zone);
        count(&self.counts.ended);
    }

    fn make_room(&self, hash: u64, now: Instant) {
        let mut removed = Vec::new();
        self.shard(hash).sweep(MAKE_ROOM, &mut removed, |c| c.is_past(now));
        removed.iter().for_each(|c| self.ended(c));
    }

    /// Gives back connections that are past their time. Looks at `budget` slots at most, and goes on from there the next
    /// time. How many it gave back.
    pub fn sweep(&self, now: Instant, budget: usize) -> usize {
        let mut removed = Vec::new();
        let mut left = budget;
        for _ in 0..SHARDS {
            let i = self.next_shard.fetch_add(1, Ordering::Relaxed) % SHARDS;
            let share = left.min(budget.div_ceil(SHARDS).max(1));
            let looked = self.shards[i].lock().sweep(share, &mut removed, |c| c.is_past(now));
            left -= looked;
            if left == 0 {
                break;
            }
        }
        removed.iter().for_each(|c| self.ended(c));
        removed.len()
    }

    /// Slots that [`Tracker::sweep`] has to look at to have seen every connection.
    pub fn slots(&self) -> usize {
        self.shards.iter().map(|s| s.lock().slots()).sum()
    }

    /// Calls `each` for every connection at time `now`, of one zone or of all, until it returns false.
    pub fn dump(&self, now: Instant, zone: Option<u16>, each: &mut dyn FnMut(Entry) -> bool) {
        let mut entries = Vec::new();
        for s in self.shards.iter() {
            let mut at = 0;
            loop {
                {
                    let shard = s.lock();
                    let Some(chunk) = shard.chunk(at) else { break };
                    let wanted = |c: &&Conn| !c.is_past(now) && zone.is_none_or(|z| c.original.zone == z);
                    entries.extend(chunk.filter(wanted).map(|c| entry(c, now)));
                }
                at += 1;
                if !entries.drain(..).all(&mut *each) {
                    return;
                }
            }
        }
    }

    /// Forgets every connection, of one zone or of all. How many.
    pub fn flush(&self, zone: Option<u16>) -> usize {
        self.flush_where(zone, &|_, _| true)
    }

    /// Forgets connections, of one zone or of all, whose tuples, the original one and that of the replies, are `wanted`. How
    /// many.
    pub fn flush_where(&self, zone: Option<u16>, wanted: &dyn Fn(&Tuple, &Tuple) -> bool) -> usize {
        let mut n = 0;
        for s in self.shards.iter() {
            let mut removed = Vec::new();
            {
                let mut s = s.lock();
                let all = s.slots();
                let of_zone = |c: &Conn| zone.is_none_or(|z| c.original.zone == z);
                s.sweep(all, &mut removed, |c| of_zone(c) && wanted(&c.original, &c.reply()));
            }
            removed.iter().for_each(|c| self.ended(c));
            n += removed.len();
        }
        n
    }

    /// Forgets connections, of one zone or of all, that are such as `which` says. How many.
    pub fn flush_like(&self, zone: Option<u16>, which: &CtFilter) -> usize {
        self.flush_where(zone, &|original, reply| {
            which.proto.is_none_or(|p| p == original.proto)
                && original.is_like(&which.original)
                && reply.is_like(&which.reply)
        })
    }

    /// Forgets the connection of which `t` is the tuple in either direction; whether there was one.
    pub fn flush_tuple(&self, t: &Tuple) -> bool {
        match self.find(self.hasher.hash(t), t) {
            Some((shard, slot, _)) => {
                self.end(shard, slot);
                true
            }
            None => false,
        }
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        let read = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let c = &self.counts;
        Stats {
            connections: self.limits.count(),
            made: read(&c.made),
            ended: read(&c.ended),
            invalid: read(&c.invalid),
            full: read(&c.full),
            nat_exhausted: read(&c.nat_exhausted),
        }
    }

    /// Most connections.
    pub fn max(&self) -> usize {
        self.limits.max.load(Ordering::Relaxed)
    }

    /// Sets how many connections there may be. Those there are stay.
    pub fn set_max(&self, n: usize) {
        self.limits.max.store(n, Ordering::Relaxed);
    }

    /// Whether TCP segments have to lie within windows.
    pub fn checks_tcp_windows(&self) -> bool {
        self.check_windows.load(Ordering::Relaxed)
    }

    /// Sets whether TCP segments have to lie within windows.
    pub fn set_tcp_window_check(&self, on: bool) {
        if self.check_windows.swap(on, Ordering::Relaxed) != on {
            self.terms_changed();
        }
    }

    /// Sets how many connections a zone may have, or (`None`) one without a limit of its own; 0 is no limit. `None` as limit
    /// removes a zone's own; whether it had one.
    pub fn set_zone_limit(&self, zone: Option<u16>, limit: Option<u32>) -> bool {
        self.limits.set(zone, limit)
    }

    /// The limit of zones that have none of their own; 0 is none.
    pub fn default_zone_limit(&self) -> u32 {
        self.limits.default_limit()
    }

    /// The limit of a zone, and how many connections it has.
    pub fn zone_limit(&self, zone: u16) -> ZoneLimit {
        self.limits.limit(zone)
    }

    /// Zones with a limit of their own.
    pub fn zone_limits(&self) -> Vec<ZoneLimit> {
        self.limits.all()
    }

    /// Sets how long connections are remembered, from their next packet on.
    pub fn set_timeouts(&self, t: Timeouts) {
        self.timeouts.set(&t);
        self.terms_changed();
    }

    /// Sets which zones have timeouts of their own, in place of those that had. They count from a connection's next packet on.
    pub fn set_zone_timeouts(&self, zones: BTreeMap<u16, Timeouts>) {
        self.timeouts.set_zones(zones);
        self.terms_changed();
    }
}

fn other(end: NatEnd) -> NatEnd {
    match end {
        NatEnd::Src => NatEnd::Dst,
        NatEnd::Dst => NatEnd::Src,
    }
}

fn bit_of(end: NatEnd) -> u16 {
    match end {
        NatEnd::Src => ct_state::SRC_NAT,
        NatEnd::Dst => ct_state::DST_NAT,
    }
}

fn entry(c: &Conn, now: Instant) -> Entry {
    let protocol = match &c.proto {
        Proto::Tcp(t) => {
            let (a, b) = t.states();
            Protocol::Tcp(a, b)
        }
        _ => Protocol::Other,
    };
    Entry {
        original: c.original,
        reply: c.reply(),
        mark: c.mark,
        label: c.label,
        protocol,
        left: c.expires.since(now),
        helper: c.helper,
    }
}
