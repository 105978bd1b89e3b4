//! Connections that hardware forwards packets of.
//!
//! The tracker stays the authority. Whoever drives hardware is *offered* connections that it can forward, gives them to hardware, and
//! says when hardware forwarded something of them; until they are taken back, no time is over for them here.
//!
//! ```text
//!   packet of an established connection ──► offered, once an epoch ──► take_offers ──► lend ──► in hardware
//!   FIN, mark changed, flushed, timeouts changed ──► take_changed ──► terms anew, or take_back
//!   hardware's counters move ──► used: the time of the connection counts from there
//! ```
//!
//! What cannot be lent ([`Stays`]) is what hardware that knows addresses, ports, zone and mark would treat otherwise than this tracker: TCP
//! too while segments have to lie within windows, because hardware that does not look at sequence numbers passes what is `invalid` here.
//! Once a TCP connection was lent, its windows are not known any more, and are never checked again.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use clock::Instant;
use flow::headers::ip_proto;
use parking_lot::Mutex;

use crate::other::Progress;
use crate::shard::{Conn, Proto};
use crate::tcp::TcpState;
use crate::timeout::Timeout;
use crate::track::Tracker;
use crate::tuple::Tuple;

/// Offers, and changes of lent connections, that wait to be taken; of offers beyond, the next epoch makes them again.
const WAITING: usize = 4096;

/// It is with hardware.
const LENT: u8 = 1;
/// It has been, so that its windows are not known.
const WAS_LENT: u8 = 2;

/// Why a connection stays in software.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stays {
    /// It is not established, or not any more.
    NotEstablished,
    /// Neither TCP nor UDP.
    Protocol,
    /// Its addresses or ports are translated.
    Translated,
    /// It has a label.
    Labelled,
    /// It may announce others.
    Helper,
    /// It is TCP, and segments have to lie within windows.
    Windows,
}

impl Stays {
    /// All of them, in the order of their numbers.
    pub const ALL: [Stays; 6] = [
        Stays::NotEstablished,
        Stays::Protocol,
        Stays::Translated,
        Stays::Labelled,
        Stays::Helper,
        Stays::Windows,
    ];
}

/// What hardware has to know of a connection that it forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// Its mark.
    pub mark: u32,
    /// How long it is remembered after its last packet.
    pub timeout: Duration,
}

/// How far a connection has been lent. Two bytes of each connection.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Loan {
    bits: u8,
    /// The epoch in which it was offered.
    offered: u8,
}

impl Loan {
    #[inline(always)]
    pub(crate) fn is_lent(self) -> bool {
        self.bits & LENT != 0
    }

    /// Whether its windows are known.
    #[inline(always)]
    pub(crate) fn knows_windows(self) -> bool {
        self.bits == 0
    }
}

#[derive(Default)]
struct Changed {
    tuples: Vec<Tuple>,
    /// There were too many to be named, or it may concern all of them.
    all: bool,
}

#[derive(Default)]
pub(crate) struct Loans {
    /// 0 while nothing is offered.
    epoch: AtomicU8,
    /// The epoch that was last, or is.
    last: AtomicU8,
    offers: Mutex<VecDeque<Tuple>>,
    changed: Mutex<Changed>,
    has_changed: AtomicBool,
    stays: [AtomicU64; Stays::ALL.len()],
}

impl Loans {
    #[cold]
    fn offer(&self, t: Tuple) -> bool {
        let mut offers = self.offers.lock();
        let room = offers.len() < WAITING;
        if room {
            offers.push_back(t);
        }
        room
    }

    /// A lent connection is not what it was.
    #[cold]
    pub(crate) fn note_changed(&self, t: Tuple) {
        let mut c = self.changed.lock();
        if c.tuples.len() < WAITING {
            c.tuples.push(t);
        } else {
            c.all = true;
        }
        drop(c);
        self.has_changed.store(true, Ordering::Release);
    }

    fn note_all(&self) {
        self.changed.lock().all = true;
        self.has_changed.store(true, Ordering::Release);
    }
}

/// The timeout of a connection whose packets change nothing but its time, or why it is no such.
fn steady(c: &Conn, check_windows: bool) -> Result<Timeout, Stays> {
    let timeout = match (&c.proto, c.original.proto) {
        (Proto::Tcp(t), _) if t.states() != (TcpState::Established, TcpState::Established) => {
            return Err(Stays::NotEstablished);
        }
        (Proto::Tcp(_), _) if check_windows && c.loan.knows_windows() => return Err(Stays::Windows),
        (Proto::Tcp(_), _) => Timeout::TcpEstablished,
        (Proto::Datagram(Progress::Both), ip_proto::UDP) => Timeout::OtherBidirectional,
        (Proto::Datagram(_), ip_proto::UDP) => return Err(Stays::NotEstablished),
        _ => return Err(Stays::Protocol),
    };
    if c.nat.is_some() || c.has_alias() {
        return Err(Stays::Translated);
    }
    if c.label != 0 {
        return Err(Stays::Labelled);
    }
    if c.helper.is_some() {
        return Err(Stays::Helper);
    }
    Ok(timeout)
}

impl Tracker {
    /// An established packet of a connection has been tracked: it may be one for hardware.
    #[inline(always)]
    pub(crate) fn may_lend(&self, c: &mut Conn) {
        let epoch = self.loans.epoch.load(Ordering::Relaxed);
        if c.loan.offered != epoch && epoch != 0 {
            self.consider(c, epoch);
        }
    }

    #[cold]
    fn consider(&self, c: &mut Conn, epoch: u8) {
        if c.loan.is_lent() {
            c.loan.offered = epoch;
            return;
        }
        match steady(c, self.checks_tcp_windows()) {
            // It may be on its way there.
            Err(Stays::NotEstablished) => {}
            Err(why) => {
                self.loans.stays[why as usize].fetch_add(1, Ordering::Relaxed);
                c.loan.offered = epoch;
            }
            Ok(_) => {
                if self.loans.offer(c.original) {
                    c.loan.offered = epoch;
                }
            }
        }
    }

    /// Says whether connections are to be offered for hardware.
    pub fn set_lending(&self, on: bool) {
        if on == (self.loans.epoch.load(Ordering::Relaxed) != 0) {
            return;
        }
        if on {
            self.begin_epoch();
        } else {
            self.loans.epoch.store(0, Ordering::Relaxed);
            self.loans.offers.lock().clear();
        }
    }

    /// Has each connection offered again at its next packet: there is room for more, or hardware that is new.
    pub fn offer_again(&self) {
        if self.loans.epoch.load(Ordering::Relaxed) != 0 {
            self.begin_epoch();
        }
    }

    fn begin_epoch(&self) {
        self.loans.stays.iter().for_each(|n| n.store(0, Ordering::Relaxed));
        let next = self.loans.last.load(Ordering::Relaxed).checked_add(1).unwrap_or(1);
        self.loans.last.store(next, Ordering::Relaxed);
        self.loans.epoch.store(next, Ordering::Relaxed);
    }

    /// Takes up to `most` connections that were offered, by their original tuples.
    pub fn take_offers(&self, most: usize) -> Vec<Tuple> {
        let mut offers = self.loans.offers.lock();
        let n = most.min(offers.len());
        offers.drain(..n).collect()
    }

    /// Takes the connections with hardware that are not what they were when they were lent, or have ended; `true`: any may be.
    pub fn take_changed(&self) -> (Vec<Tuple>, bool) {
        if !self.loans.has_changed.swap(false, Ordering::Acquire) {
            return (Vec::new(), false);
        }
        let c = std::mem::take(&mut *self.loans.changed.lock());
        (c.tuples, c.all)
    }

    /// How many connections were found to stay in software since they were last offered anew, and why.
    pub fn stayed(&self) -> impl Iterator<Item = (Stays, u64)> + '_ {
        Stays::ALL.iter().map(|s| (*s, self.loans.stays[*s as usize].load(Ordering::Relaxed)))
    }

    fn with<T>(&self, t: &Tuple, f: impl FnOnce(&mut Conn) -> T) -> Option<T> {
        let hash = self.hasher.hash(t);
        let mut shard = self.shard(hash);
        let (slot, reply) = shard.find(hash, t)?;
        if reply { None } else { shard.get_mut(slot).map(f) }
    }

    fn terms(&self, c: &Conn) -> Result<Terms, Stays> {
        let timeout = steady(c, self.checks_tcp_windows())?;
        Ok(Terms { mark: c.mark, timeout: self.timeouts.get(c.original.zone, timeout) })
    }

    /// Lends the connection of an original tuple to hardware, or says on what terms one is that is lent already. `None` when there is no
    /// such connection, any more.
    pub fn lend(&self, t: &Tuple, now: Instant) -> Option<Result<Terms, Stays>> {
        self.with(t, |c| {
            if c.is_past(now) {
                return None;
            }
            let terms = self.terms(c);
            if terms.is_ok() {
                c.loan.bits = LENT | WAS_LENT;
            }
            Some(terms)
        })?
    }

    /// Hardware has forwarded a packet of a connection at time `at`: it is remembered from there on.
    pub fn used(&self, t: &Tuple, at: Instant) {
        self.with(t, |c| {
            // One that is closing has a time that software knows.
            if let Ok(terms) = self.terms(c) {
                c.expires = c.expires.max(at + terms.timeout);
            }
        });
    }

    /// Takes a connection back: its time is what it is. It is offered again at its next packet if `again`, else in the next epoch.
    pub fn take_back(&self, t: &Tuple, again: bool) {
        self.with(t, |c| {
            c.loan.bits &= !LENT;
            if again {
                c.loan.offered = 0;
            }
        });
    }

    /// What was lent may have other terms now.
    pub(crate) fn terms_changed(&self) {
        self.loans.note_all();
        self.offer_again();
    }
}

#[cfg(test)]
mod tests {
    use flow::{CtAction, ct_state};

    use super::*;
    use crate::extract::Headers;
    use crate::track::Meta;

    /// An IPv4 frame of UDP, or of TCP with these flags, without checksums to be wrong about.
    fn frame(reply: bool, tcp: Option<u8>) -> (Vec<u8>, Headers) {
        let mut f = vec![0; 14];
        let mut l4 = vec![0x10, 0, 0, 80];
        if reply {
            l4.rotate_left(2);
        }
        match tcp {
            None => l4.extend([0, 8, 0, 0]),
            Some(flags) => l4.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]),
        }
        let (mut a, mut b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        if reply {
            std::mem::swap(&mut a, &mut b);
        }
        let proto = if tcp.is_some() { ip_proto::TCP } else { ip_proto::UDP };
        let mut ip = vec![0x45, 0, 0, 20 + l4.len() as u8, 0, 0, 0, 0, 64, proto, 0, 0];
        ip.extend(a.iter().chain(&b));
        let sum = |b: &[u8], start: u32| {
            let mut s = b.chunks(2).fold(start, |s, w| s + u32::from(w[0]) * 256 + u32::from(w[1]));
            while s > 0xffff {
                s = (s & 0xffff) + (s >> 16);
            }
            !(s as u16)
        };
        let c = sum(&ip, 0);
        ip[10..12].copy_from_slice(&c.to_be_bytes());
        if tcp.is_some() {
            let pseudo = u32::from(!sum(&ip[12..], 0)) + u32::from(proto) + l4.len() as u32;
            let c = sum(&l4, pseudo);
            l4[16..18].copy_from_slice(&c.to_be_bytes());
        }
        f.extend(ip);
        f.extend(l4);
        let end = f.len();
        (f, Headers { eth_type: 0x0800, proto, is_fragment: false, l3: 14, l4: 34, end })
    }

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    struct Bed(Tracker);

    impl Bed {
        fn new(windows: bool) -> Bed {
            let t = Tracker::new(Some(1));
            t.set_tcp_window_check(windows);
            t.set_lending(true);
            t.take_changed();
            Bed(t)
        }

        fn send(&self, s: u64, reply: bool, tcp: Option<u8>, action: &CtAction) -> u16 {
            let (mut f, h) = frame(reply, tcp);
            let mut m = Meta::default();
            self.0.track(&mut f, Some(&h), &mut m, action, at(s));
            m.state & !ct_state::TRACKED
        }

        /// There and back; the original tuple when it is offered.
        fn open(&self, tcp: bool) -> Option<Tuple> {
            let commit = CtAction { commit: true, ..CtAction::default() };
            let flags = |f| tcp.then_some(f);
            assert_eq!(self.send(1, false, flags(2), &commit), ct_state::NEW);
            self.send(1, true, flags(0x12), &CtAction::default());
            self.send(1, false, flags(0x10), &CtAction::default());
            let offers = self.0.take_offers(10);
            self.send(1, true, flags(0x10), &CtAction::default());
            assert_eq!(self.0.take_offers(10), [], "once");
            offers.first().copied()
        }
    }

    #[test]
    fn an_established_connection_is_offered_once_and_has_no_end_while_it_is_lent() {
        let b = Bed::new(true);
        let t = b.open(false).expect("it is offered");
        let terms = b.0.lend(&t, at(1)).expect("it is there").expect("it may be lent");
        assert_eq!(terms, Terms { mark: 0, timeout: Duration::from_secs(30) });
        b.0.sweep(at(1000), usize::MAX);
        assert_eq!(b.send(1000, true, None, &CtAction::default()), ct_state::ESTABLISHED | ct_state::REPLY);
        b.0.used(&t, at(2000));
        b.0.take_back(&t, true);
        assert_eq!(b.send(2029, false, None, &CtAction::default()), ct_state::ESTABLISHED);
        assert_eq!(b.send(2059, false, None, &CtAction::default()), ct_state::NEW, "its time is over");
        assert_eq!(b.0.take_changed(), (vec![], false), "nothing of it was hardware's any more");
        assert!(b.0.lend(&t, at(2060)).is_none());
    }

    #[test]
    fn tcp_is_lent_only_while_windows_are_not_checked_and_never_checked_again() {
        let b = Bed::new(true);
        assert_eq!(b.open(true), None);
        let stayed = |b: &Bed| b.0.stayed().find(|(s, _)| *s == Stays::Windows).map_or(0, |(_, n)| n);
        assert_eq!(stayed(&b), 1);
        b.0.set_tcp_window_check(false);
        b.0.take_changed();
        b.send(2, false, Some(0x10), &CtAction::default());
        let t = b.0.take_offers(10)[0];
        assert!(b.0.lend(&t, at(2)).unwrap().is_ok());
        b.0.set_tcp_window_check(true);
        assert_eq!(b.0.take_changed(), (vec![], true));
        assert!(b.0.lend(&t, at(2)).unwrap().is_ok(), "what its windows were is not known");
        assert_eq!(b.send(3, false, Some(0x11), &CtAction::default()), ct_state::ESTABLISHED);
        assert_eq!(b.0.take_changed(), (vec![t], false), "a FIN");
        assert_eq!(b.0.lend(&t, at(3)), Some(Err(Stays::NotEstablished)));
    }

    #[test]
    fn what_changes_a_lent_connection_is_told_of() {
        let b = Bed::new(false);
        let t = b.open(false).unwrap();
        assert!(b.0.lend(&t, at(1)).unwrap().is_ok());
        let marks = CtAction { commit: true, mark: (7, 0xff), ..CtAction::default() };
        b.send(2, false, None, &marks);
        assert_eq!(b.0.take_changed(), (vec![t], false));
        b.send(2, false, None, &marks);
        assert_eq!(b.0.take_changed(), (vec![], false), "it is that already");
        assert_eq!(b.0.lend(&t, at(2)).unwrap().unwrap().mark, 7);
        b.0.set_timeouts(Default::default());
        assert!(b.0.take_changed().1);
        b.0.flush(None);
        assert_eq!(b.0.take_changed(), (vec![t], false));
        assert!(b.0.lend(&t, at(2)).is_none());
    }

    #[test]
    fn what_hardware_would_treat_otherwise_stays_with_its_reason() {
        let b = Bed::new(false);
        let label = CtAction { commit: true, label: (1, 1), ..CtAction::default() };
        b.send(1, false, None, &label);
        b.send(1, true, None, &CtAction::default());
        b.send(1, true, None, &CtAction::default());
        assert_eq!(b.0.take_offers(1), []);
        let stayed: Vec<_> = b.0.stayed().filter(|(_, n)| *n > 0).collect();
        assert_eq!(stayed, [(Stays::Labelled, 1)]);
        b.0.set_lending(false);
        b.0.set_lending(true);
        b.send(1, true, None, &CtAction::default());
        assert_eq!(b.0.stayed().map(|(_, n)| n).sum::<u64>(), 1, "counted anew");
    }
}
