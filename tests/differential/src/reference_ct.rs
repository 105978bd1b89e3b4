//! Connection tracking of the reference interpreter: a list of connections, searched from end to end, with no shards, no indexes,
//! no caches and no fast paths. It shares the parser with the switch, and nothing of its connection tracking.
//!
//! What address and port a translation takes is the switch's choice: it is asked ([`Choice`]) and must be one that the range
//! allows and nobody has.

use std::time::Duration;

use clock::Instant;
use flow::{FieldId, PortId, ct_state as bit};
use openflow::extension::{Ct, CtFlags, Nat, NatAddresses, NatFlags};

use crate::reference_edit::Frame;
use crate::reference_tcp::{Verdict, Watch};

/// How long a first fragment is remembered.
const FRAGMENTS: Duration = Duration::from_secs(15);

/// Who speaks to whom, in one direction. ICMP: its identifier twice, and the type of its message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub struct Ends {
    pub v6: bool,
    pub proto: u8,
    pub src: u128,
    pub dst: u128,
    pub sport: u16,
    pub dport: u16,
    pub kind: u8,
}

/// Requests of ICMP, and what answers each: echo, timestamp, information (RFC 792).
const ASKS: [(bool, u8, u8); 4] = [(false, 8, 0), (false, 13, 14), (false, 15, 16), (true, 128, 129)];

impl Ends {
    fn is_icmp(&self) -> bool {
        self.proto == if self.v6 { 58 } else { 1 }
    }

    /// The other direction.
    pub fn back(&self) -> Ends {
        let mut kind = self.kind;
        for (v6, ask, answer) in ASKS.iter().filter(|_| self.is_icmp()) {
            if *v6 == self.v6 && (kind == *ask || kind == *answer) {
                kind = if kind == *ask { *answer } else { *ask };
                break;
            }
        }
        Ends { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, kind, ..*self }
    }
}

/// What a packet is told of its connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    pub(crate) state: u16,
    pub(crate) zone: u16,
    pub(crate) mark: u32,
    pub(crate) label: u128,
    /// Of the connection's first packet.
    pub(crate) ends: Option<Ends>,
}

impl Known {
    fn is_translated(&self) -> bool {
        self.state & (bit::SRC_NAT | bit::DST_NAT) != 0
    }
}

/// What the connection has been seen to do.
#[derive(Clone, Debug)]
enum Seen {
    Tcp(Watch),
    /// Whether it came once only, and whether it was answered.
    Other(bool, bool),
    Icmp(bool),
}

#[derive(Clone, Debug)]
struct Conn {
    zone: u16,
    first: Ends,
    /// What its answers are before they are translated back.
    answer: Ends,
    /// Which end of its first packet is translated: the source?
    nat: Option<bool>,
    mark: u32,
    label: u128,
    until: Instant,
    seen: Seen,
}

/// What the fragments of a packet have in common: addresses, identification, protocol, IPv6 or not; and the zone.
type Pieces = (u128, u128, u32, u8, bool, u16);

/// The first fragment of a packet.
#[derive(Clone, Debug)]
struct First {
    of: Pieces,
    ends: Ends,
    state: u16,
    until: Instant,
}

/// What is compared of a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub struct Row {
    pub zone: u16,
    pub first: Ends,
    pub answer: Ends,
    pub mark: u32,
    pub label: u128,
    pub left_s: u64,
}

/// The connections.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    all: Vec<Conn>,
    firsts: Vec<First>,
    /// Segments of TCP may lie anywhere.
    pub unchecked: bool,
    /// Most connections of each zone.
    pub limit: Option<usize>,
    /// A choice was asked for.
    pub asked: bool,
    /// Choices of addresses without ports while some of them were taken: the switch tries one for each packet, and a connection that is there
    /// may have been made by a later `ct` of the same packet.
    pub in_doubt: u32,
    /// So many of these, the first, are taken to have failed.
    pub failed: u32,
    /// A packet could be of several connections: translations have made them so. Which it is of is not defined.
    pub ambiguous: bool,
    /// Whose packets have been tracked: their own ends, and those of their connections; of both directions the lesser.
    pub touched: Vec<Ends>,
    /// What happened, for the report.
    pub tally: Tally,
}

/// How often what was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Tally {
    pub made: u64,
    pub established: u64,
    pub invalid: u64,
    pub related: u64,
    pub translated: u64,
    pub fragments: u64,
    pub refused: u64,
    pub unexplained: u64,
}

/// What the switch has made of the answers of a new connection in this zone; `None` when it has no such connection.
pub type Choice<'a> = dyn Fn(&Ends, u16) -> Option<Ends> + 'a;

/// Where what is in a frame, when the parser found nothing wrong with it.
#[derive(Clone, Copy, Debug)]
struct Place {
    v6: bool,
    proto: u8,
    l3: usize,
    l4: usize,
    end: usize,
    fragment: bool,
}

fn be(b: &[u8], at: usize, n: usize) -> u128 {
    b[at..at + n].iter().fold(0, |v, x| v << 8 | u128::from(*x))
}

fn place(frame: &Frame) -> Option<Place> {
    // Behind the tags that are known; a further one is payload.
    let bare = frame.bare();
    let p = flow::parse(&bare, PortId(0)).ok().filter(|p| p.layout.vlans == 0)?;
    let tags = frame.bytes().len() - bare.len();
    let l4 = p.layout.l4().filter(|_| p.layout.fault.is_none())? + tags;
    Some(Place {
        v6: p.key.get64(FieldId::EthType) == 0x86dd,
        proto: p.key.get64(FieldId::NwProto) as u8,
        l3: p.layout.l3_offset as usize + tags,
        l4,
        end: p.layout.l3_end as usize + tags,
        fragment: p.key.get(FieldId::NwFrag) != 0,
    })
}

fn addresses(f: &[u8], l3: usize, v6: bool) -> (u128, u128) {
    if v6 { (be(f, l3 + 8, 16), be(f, l3 + 24, 16)) } else { (be(f, l3 + 12, 4), be(f, l3 + 16, 4)) }
}

/// The ones' complement sum (RFC 1071) over pieces that begin at even offsets, carried in.
pub(crate) fn sum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|p| p.chunks(2));
    let mut s = words.map(|c| u64::from(c[0]) << 8 | u64::from(c.get(1).copied().unwrap_or(0))).sum::<u64>();
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}

fn sums_are_right(f: &[u8], p: &Place) -> bool {
    if !p.v6 && sum(&[&f[p.l3..p.l4]]) != 0xffff {
        return false;
    }
    let body = &f[p.l4..p.end];
    let least = match p.proto {
        6 => 20,
        17 | 1 | 58 => 8,
        _ => return true,
    };
    if p.fragment {
        // The others have a part in its checksum.
        return body.len() >= least;
    }
    if body.len() < least {
        return false;
    }
    if p.proto == 17 && !p.v6 && body[6..8] == [0, 0] {
        return true;
    }
    let len = (body.len() as u32).to_be_bytes();
    let at = if p.v6 { 8..40 } else { 12..20 };
    let pseudo: [&[u8]; 3] = [&f[p.l3 + at.start..p.l3 + at.end], &len, &[0, p.proto]];
    if p.proto == 1 && !p.v6 {
        sum(&[body]) == 0xffff
    } else {
        sum(&[pseudo[0], pseudo[1], pseudo[2], body]) == 0xffff
    }
}

/// Whose packet it is, and where the packet lies that it is an error about.
fn ends_of(f: &[u8], p: &Place, quoted: bool) -> Option<(Ends, Option<Place>)> {
    let (src, dst) = addresses(f, p.l3, p.v6);
    let e = Ends { v6: p.v6, proto: p.proto, src, dst, sport: 0, dport: 0, kind: 0 };
    if matches!(p.proto, 6 | 17) {
        let (sport, dport) = (be(f, p.l4, 2) as u16, be(f, p.l4 + 2, 2) as u16);
        return (sport != 0 && dport != 0).then_some((Ends { sport, dport, ..e }, None));
    }
    if !e.is_icmp() {
        return Some((e, None));
    }
    let (kind, code) = (f[p.l4], f[p.l4 + 1]);
    if ASKS.iter().any(|(v6, a, b)| *v6 == p.v6 && (kind == *a || kind == *b)) {
        let id = be(f, p.l4 + 4, 2) as u16;
        return (code == 0).then_some((Ends { sport: id, dport: id, kind, ..e }, None));
    }
    let errors: &[u8] = if p.v6 { &[1, 2, 3, 4] } else { &[3, 4, 5, 11, 12] };
    if quoted || !errors.contains(&kind) {
        return None;
    }
    let inner = quote(&f[..p.end], p.l4 + 8, p.v6)?;
    let (about, _) = ends_of(f, &inner, true)?;
    // Whoever is told has sent what it is about.
    (about.src == dst).then_some((about.back(), Some(inner)))
}

/// The packet that an error quotes, if at least eight bytes of its payload are there.
fn quote(f: &[u8], l3: usize, v6: bool) -> Option<Place> {
    let version = f.get(l3)? >> 4;
    let (proto, l4) = if v6 {
        f.get(l3..l3 + 40)?;
        let (mut next, mut at) = (f[l3 + 6], l3 + 40);
        let mut more = 8;
        while matches!(next, 0 | 43 | 60) && more > 0 {
            let h = f.get(at..at + 2)?;
            (next, at, more) = (h[0], at + 8 * (usize::from(h[1]) + 1), more - 1);
        }
        (next, at)
    } else {
        f.get(l3..l3 + 20)?;
        let len = usize::from(f[l3] & 15) * 4;
        if len < 20 || be(f, l3 + 6, 2) & 0x1fff != 0 {
            return None;
        }
        (f[l3 + 9], l3 + len)
    };
    f.get(l4..l4 + 8)?;
    (version == if v6 { 6 } else { 4 }).then_some(Place { v6, proto, l3, l4, end: f.len(), fragment: false })
}

/// What the fragments of a packet have in common, and where in it this one lies; `None` for one that lies over a transport header.
fn fragment(f: &[u8], p: &Place, zone: u16) -> Option<(Pieces, usize)> {
    let (src, dst) = addresses(f, p.l3, p.v6);
    let (id, offset) = if p.v6 {
        let (mut next, mut at) = (f[p.l3 + 6], p.l3 + 40);
        while next != 44 {
            let h = f.get(at..at + 2)?;
            matches!(next, 0 | 43 | 60).then_some(())?;
            (next, at) = (h[0], at + 8 * (usize::from(h[1]) + 1));
        }
        f.get(at..at + 8)?;
        (be(f, at + 4, 4) as u32, be(f, at + 2, 2) as usize & !7)
    } else {
        (be(f, p.l3 + 4, 2) as u32, (be(f, p.l3 + 6, 2) as usize & 0x1fff) * 8)
    };
    let header = match p.proto {
        6 => 20,
        1 | 17 | 58 => 8,
        _ => 0,
    };
    (offset == 0 || offset >= header).then_some(((src, dst, id, p.proto, p.v6, zone), offset))
}

fn add(now: Instant, seconds: u64) -> Instant {
    now + Duration::from_secs(seconds)
}

impl Conn {
    /// A packet of it: bits of its state. `None`: it begins another connection between the same ends.
    fn sees(&mut self, frame: &[u8], p: &Place, reply: bool, windows: bool, now: Instant) -> Option<u16> {
        let (state, seconds) = match &mut self.seen {
            Seen::Tcp(w) => match w.segment(&frame[p.l4..p.end], reply, windows) {
                Verdict::Fits(seconds) => (bit::ESTABLISHED, seconds),
                Verdict::Opens => (bit::NEW, Some(30)),
                Verdict::Foreign => (bit::INVALID, None),
                Verdict::Another => return None,
            },
            Seen::Other(once, answered) => {
                *answered |= reply;
                *once = false;
                if *answered { (bit::ESTABLISHED, Some(30)) } else { (bit::NEW, Some(60)) }
            }
            Seen::Icmp(answered) => {
                *answered |= reply;
                if *answered { (bit::ESTABLISHED, Some(30)) } else { (bit::NEW, Some(60)) }
            }
        };
        if let Some(s) = seconds {
            self.until = add(now, s);
        }
        Some(if state == bit::ESTABLISHED && reply { state | bit::REPLY } else { state })
    }

    fn mark(&mut self, set: &Marks) {
        self.mark = self.mark & !set.mark.1 | set.mark.0 & set.mark.1;
        self.label = self.label & !set.label.1 | set.label.0 & set.label.1;
    }

    /// What a packet of it is to be made.
    fn target(&self, reply: bool) -> Ends {
        if reply { self.first.back() } else { self.answer.back() }
    }
}

/// What an action writes to a connection.
#[derive(Default)]
pub(crate) struct Marks {
    pub(crate) mark: (u32, u32),
    pub(crate) label: (u128, u128),
}

/// A `ct` action as it applies to a packet.
pub(crate) struct Order<'a> {
    pub(crate) ct: &'a Ct,
    pub(crate) zone: u16,
    pub(crate) marks: Marks,
    pub(crate) nat: Option<Nat>,
}

impl Connections {
    /// Connections there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Forgets connections of a zone, or all.
    pub fn flush(&mut self, zone: Option<u16>) {
        self.all.retain(|c| zone.is_some_and(|z| z != c.zone));
    }

    /// Each connection, for comparison.
    pub fn rows(&self, now: Instant) -> impl Iterator<Item = Row> {
        self.all.iter().filter(move |c| now < c.until).map(move |c| Row {
            zone: c.zone,
            first: c.first,
            answer: c.answer,
            mark: c.mark,
            label: c.label,
            left_s: c.until.since(now).as_secs(),
        })
    }

    /// Forgets what is past its time.
    pub fn expire(&mut self, now: Instant) {
        self.all.retain(|c| now < c.until);
        self.firsts.retain(|f| now < f.until);
    }

    fn position(&mut self, e: &Ends, zone: u16) -> Option<(usize, bool)> {
        let of = |c: &Conn| c.zone == zone && (c.first == *e || c.answer == *e);
        let mut found = (0..self.all.len()).filter(|i| of(&self.all[*i]));
        let i = found.next()?;
        let others = found.next().is_some();
        self.ambiguous |= others;
        Some((i, self.all[i].first != *e))
    }

    /// Whether somebody's answers, or first packets, are like this.
    fn is_taken(&self, e: &Ends, zone: u16) -> bool {
        self.all.iter().any(|c| c.zone == zone && (c.answer == *e || c.first == *e))
    }

    /// Tracks a frame, and changes it.
    pub(crate) fn track(
        &mut self,
        frame: &mut Frame,
        known: &mut Known,
        order: &Order<'_>,
        now: Instant,
        choice: &Choice<'_>,
    ) {
        self.expire(now);
        let before = std::mem::take(known);
        known.zone = order.zone;
        known.state = bit::TRACKED | self.state(frame, &before, known, order, now, choice);
        self.touched.extend(known.ends.map(|e| e.min(e.back())));
        self.tally.invalid += u64::from(known.state & bit::INVALID != 0);
        self.tally.established += u64::from(known.state & bit::ESTABLISHED != 0);
        self.tally.related += u64::from(known.state & bit::RELATED != 0);
        self.tally.translated += u64::from(known.is_translated());
    }

    fn state(
        &mut self,
        frame: &mut Frame,
        before: &Known,
        known: &mut Known,
        order: &Order<'_>,
        now: Instant,
        choice: &Choice<'_>,
    ) -> u16 {
        let bytes = frame.bytes().to_vec();
        let Some(p) = place(frame) else { return bit::INVALID };
        let piece = if p.fragment { fragment(&bytes, &p, order.zone) } else { None };
        if p.fragment {
            self.tally.fragments += 1;
            if let Some(((src, dst, id, proto, v6, _), _)) = piece {
                // Those of one packet have to do with each other.
                let (sport, dport) = ((id >> 16) as u16, id as u16);
                self.touched.push(Ends { v6, proto, src, dst, sport, dport, kind: u8::MAX });
            }
            match piece {
                None => return bit::INVALID,
                Some((of, offset)) if offset > 0 => {
                    return self.later(frame, of, before, known, order);
                }
                _ => {}
            }
        }
        if !sums_are_right(&bytes, &p) {
            return bit::INVALID;
        }
        let Some((e, about)) = ends_of(&bytes, &p, false) else { return bit::INVALID };
        if about.is_some() && p.fragment {
            return bit::INVALID;
        }
        known.ends = Some(e);
        self.touched.push(e.min(e.back()));
        let state = self
            .of_known(frame, &p, &e, about, before, known, order, now)
            .unwrap_or_else(|| self.of_new(frame, &p, &e, about, known, order, now, choice));
        if let Some((of, _)) = piece
            && state & bit::INVALID == 0
        {
            self.firsts.retain(|f| f.of != of);
            let state = state | bit::TRACKED;
            self.firsts.push(First { of, ends: e, state, until: now + FRAGMENTS });
        }
        state
    }

    /// A fragment that has no transport header: what the first was.
    fn later(
        &mut self,
        frame: &mut Frame,
        of: Pieces,
        before: &Known,
        known: &mut Known,
        order: &Order<'_>,
    ) -> u16 {
        let Some(first) = self.firsts.iter().find(|f| f.of == of).cloned() else { return bit::INVALID };
        let e = Ends { src: of.0, dst: of.1, ..first.ends };
        self.touched.push(e.min(e.back()));
        known.ends = Some(e);
        let Some((i, reply)) = self.position(&e, order.zone) else {
            if before.zone == order.zone && before.ends.is_some() {
                (known.mark, known.label, known.ends) = (before.mark, before.label, before.ends);
            }
            return first.state;
        };
        let c = &mut self.all[i];
        c.mark(&order.marks);
        (known.mark, known.label, known.ends) = (c.mark, c.label, Some(c.first));
        let translated = first.state & (bit::SRC_NAT | bit::DST_NAT) != 0 && c.nat.is_some();
        if translated && !(before.is_translated() && before.zone == order.zone) {
            set_addresses(frame, &c.target(reply));
        }
        first.state
    }

    #[allow(clippy::too_many_arguments)]
    fn of_known(
        &mut self,
        frame: &mut Frame,
        p: &Place,
        e: &Ends,
        about: Option<Place>,
        before: &Known,
        known: &mut Known,
        order: &Order<'_>,
        now: Instant,
    ) -> Option<u16> {
        let again = before.is_translated() && before.zone == order.zone;
        let (i, reply) = match self.position(e, order.zone) {
            Some(found) => found,
            // It was made another one on its last pass, and is of the same connection.
            None if again && order.nat.is_none() => {
                let mut first = before.ends?;
                if first.is_icmp() {
                    (first.sport, first.dport) = (e.sport, e.dport);
                }
                (self.position(&first, order.zone)?.0, before.state & bit::REPLY != 0)
            }
            None => return None,
        };
        if reply && order.ct.flags.has(CtFlags::COMMIT) && order.ct.flags.has(CtFlags::FORCE) {
            self.all.remove(i);
            return None;
        }
        let mut state = match about {
            Some(_) if reply => bit::RELATED | bit::REPLY,
            Some(_) => bit::RELATED,
            None => match self.all[i].sees(frame.bytes(), p, reply, !self.unchecked, now) {
                Some(s) => s,
                None => {
                    self.all.remove(i);
                    return None;
                }
            },
        };
        let c = &mut self.all[i];
        c.mark(&order.marks);
        (known.mark, known.label, known.ends) = (c.mark, c.label, Some(c.first));
        if again {
            state |= before.state & (bit::SRC_NAT | bit::DST_NAT);
        } else if let (Some(source), Some(_)) = (c.nat, &order.nat) {
            let source = source != reply;
            let to = c.target(reply);
            match about {
                Some(inner) => translate_error(frame, p, &inner, source, &to),
                None => translate(frame, &to),
            }
            state |= if source { bit::SRC_NAT } else { bit::DST_NAT };
        }
        Some(state)
    }

    #[allow(clippy::too_many_arguments)]
    fn of_new(
        &mut self,
        frame: &mut Frame,
        p: &Place,
        e: &Ends,
        about: Option<Place>,
        known: &mut Known,
        order: &Order<'_>,
        now: Instant,
        choice: &Choice<'_>,
    ) -> u16 {
        if about.is_some() {
            return bit::INVALID;
        }
        let (seen, seconds) = if e.is_icmp() {
            if !ASKS.iter().any(|(v6, ask, _)| (*v6, *ask) == (e.v6, e.kind)) {
                return bit::INVALID;
            }
            (Seen::Icmp(false), 60)
        } else if e.proto == 6 {
            let Some(w) = Watch::begin(&frame.bytes()[p.l4..p.end]) else { return bit::INVALID };
            (Seen::Tcp(w), 30)
        } else {
            (Seen::Other(true, false), 60)
        };
        if !order.ct.flags.has(CtFlags::COMMIT) {
            return bit::NEW;
        }
        if let Some(most) = self.limit
            && self.all.iter().filter(|c| c.zone == order.zone).count() >= most
        {
            self.tally.refused += 1;
            return bit::NEW;
        }
        let mut c = Conn {
            zone: order.zone,
            first: *e,
            answer: e.back(),
            nat: None,
            mark: 0,
            label: 0,
            until: add(now, seconds),
            seen,
        };
        let mut state = bit::NEW;
        if let Some(n) = order.nat.filter(|n| n.flags.has(NatFlags::SRC) || n.flags.has(NatFlags::DST)) {
            let source = n.flags.has(NatFlags::SRC);
            self.asked = true;
            // A connection that is there may have been made further on, without translation.
            let fits = |a: &Ends| may_be(e, a, &n, source) && !self.is_taken(a, order.zone);
            let mut chosen = choice(e, order.zone).filter(fits);
            // Without ports there is one choice for each address, and one address for each packet.
            let may_fail = !matches!(e.proto, 6 | 17)
                && candidates(e, &n, source).any(|a| self.is_taken(&a, order.zone));
            if may_fail && chosen.is_some() {
                self.in_doubt += 1;
                chosen = chosen.filter(|_| self.in_doubt > self.failed);
            }
            let Some(chosen) = chosen else {
                if may_fail {
                    return bit::INVALID;
                }
                self.tally.unexplained += 1;
                return bit::NEW;
            };
            c.answer = chosen;
            c.nat = Some(source);
            translate(frame, &c.answer.back());
            state |= if source { bit::SRC_NAT } else { bit::DST_NAT };
        }
        c.mark(&order.marks);
        (known.mark, known.label) = (c.mark, c.label);
        self.tally.made += 1;
        self.all.push(c);
        state
    }
}

/// Answers that come of a translation by `n`, ports left alone.
fn candidates(e: &Ends, n: &Nat, source: bool) -> impl Iterator<Item = Ends> {
    let plain = e.back();
    let (low, high) = match n.addresses {
        None if source => (plain.dst, plain.dst),
        None => (plain.src, plain.src),
        Some(NatAddresses::V4(low, high)) => (u32::from(low).into(), u32::from(high.unwrap_or(low)).into()),
        Some(NatAddresses::V6(low, high)) => (low.into(), high.unwrap_or(low).into()),
    };
    (low..=high).map(move |a| if source { Ends { dst: a, ..plain } } else { Ends { src: a, ..plain } })
}

/// Whether answers like `a` come of a translation by `n` of what is sent like `e`.
fn may_be(e: &Ends, a: &Ends, n: &Nat, source: bool) -> bool {
    let plain = e.back();
    let address = if source { a.dst } else { a.src };
    let in_range = candidates(e, n, source).any(|c| if source { c.dst == address } else { c.src == address });
    let other = if source { a.src == plain.src } else { a.dst == plain.dst };
    // Where ports are short the source's may change when the destination is translated; never the destination's with the source.
    let port = |p: u16| n.ports.is_none_or(|(low, high)| (low..=high.unwrap_or(low)).contains(&p));
    let ports = match (matches!(e.proto, 6 | 17), source) {
        (false, _) => (a.sport, a.dport) == (plain.sport, plain.dport),
        (true, true) => a.sport == plain.sport && port(a.dport),
        (true, false) => port(a.sport) && (n.ports.is_some() || a.sport == plain.sport),
    };
    in_range && other && ports && (a.v6, a.proto, a.kind) == (plain.v6, plain.proto, plain.kind)
}

fn set_addresses(frame: &mut Frame, to: &Ends) {
    let (src, dst) =
        if to.v6 { (FieldId::Ipv6Src, FieldId::Ipv6Dst) } else { (FieldId::NwSrc, FieldId::NwDst) };
    frame.set(src, to.src, src.info().max());
    frame.set(dst, to.dst, dst.info().max());
}

fn translate(frame: &mut Frame, to: &Ends) {
    set_addresses(frame, to);
    let (src, dst) = match to.proto {
        6 => (FieldId::TcpSrc, FieldId::TcpDst),
        17 => (FieldId::UdpSrc, FieldId::UdpDst),
        _ => return,
    };
    frame.set(src, to.sport.into(), 0xffff);
    frame.set(dst, to.dport.into(), 0xffff);
}

/// An error gets another sender or receiver, and what it quotes becomes what was sent; its own checksum is made anew.
fn translate_error(frame: &mut Frame, p: &Place, inner: &Place, source: bool, to: &Ends) {
    let (outer, was) = if p.v6 {
        let f = if source { FieldId::Ipv6Src } else { FieldId::Ipv6Dst };
        (f, 16)
    } else {
        (if source { FieldId::NwSrc } else { FieldId::NwDst }, 4)
    };
    frame.set(outer, if source { to.src } else { to.dst }, outer.info().max());
    let mut b = frame.bytes().to_vec();
    let n = was;
    let at = if inner.v6 { [inner.l3 + 8, inner.l3 + 24] } else { [inner.l3 + 12, inner.l3 + 16] };
    // It went the other way.
    for (at, address, port_at, port) in
        [(at[0], to.dst, inner.l4, to.dport), (at[1], to.src, inner.l4 + 2, to.sport)]
    {
        let new = &address.to_be_bytes()[16 - n..];
        let mut sums = Vec::new();
        if !inner.v6 {
            sums.push(inner.l3 + 10);
        }
        let transport = match inner.proto {
            6 => Some(inner.l4 + 16),
            17 if be(&b, inner.l4 + 6, 2) != 0 => Some(inner.l4 + 6),
            58 if inner.v6 => Some(inner.l4 + 2),
            _ => None,
        };
        sums.extend(transport.filter(|t| t + 2 <= p.end));
        replace(&mut b, at, new, &sums);
        if matches!(inner.proto, 6 | 17) {
            let only: Vec<usize> = transport.filter(|t| t + 2 <= p.end).into_iter().collect();
            replace(&mut b, port_at, &port.to_be_bytes(), &only);
        }
        if let (17, Some(t)) = (inner.proto, transport)
            && b[t..t + 2] == [0, 0]
        {
            b[t..t + 2].copy_from_slice(&[0xff, 0xff]);
        }
    }
    b[p.l4 + 2..p.l4 + 4].fill(0);
    let body = &b[p.l4..p.end];
    let len = (body.len() as u32).to_be_bytes();
    let s = if p.v6 { sum(&[&b[p.l3 + 8..p.l3 + 40], &len, &[0, 58], body]) } else { sum(&[body]) };
    b[p.l4 + 2..p.l4 + 4].copy_from_slice(&(!s).to_be_bytes());
    frame.replace(b);
}

/// Replaces bytes; checksums at `sums` follow (RFC 1624).
fn replace(b: &mut [u8], at: usize, new: &[u8], sums: &[usize]) {
    let old = b[at..at + new.len()].to_vec();
    for s in sums {
        let negated: Vec<u8> = old.iter().map(|x| !x).collect();
        let c = !(be(b, *s, 2) as u16);
        let c = !sum(&[&c.to_be_bytes(), &negated, new]);
        b[*s..s + 2].copy_from_slice(&c.to_be_bytes());
    }
    b[at..at + new.len()].copy_from_slice(new);
}
