//! Connections in hardware: which are given to devices that look them up, and when they come back.
//!
//! ```text
//!   tracker ──offers──► Lender ──put──► devices with records that look the zone up
//!      ▲                  │ ▲             │ counters: the connection was used; over: it is software's
//!      └─used, take_back──┘ └─────────────┘
//! ```
//!
//! The tracker of the datapath is the authority; devices have copies (docs/adr/0057). A connection is given to every device that has a record
//! which looks its zone up. It comes back when it is not plainly established any more, when it was changed in a way that devices cannot
//! know, when nothing came of it for its time, and when nobody wants its zone or the device was lost.
//!
//! [`Lender::tick`] runs where placement does, on one thread, in a bounded number of steps.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::time::Duration;

use clock::Instant;
use datapath_api::{ConnectionEnds, ConnectionLoans, LoanTerms};
use offload::{DeviceId, ObjectError, OffloadProvider, PlacementEngine};

/// Offers that are taken in one tick, at most: each is a command that is waited for.
const OFFERS_PER_TICK: usize = 64;
/// Connections that are looked at in one tick, at most; likewise.
const LOOKS_PER_TICK: usize = 64;
/// Between two rounds of looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a zone is taken to be wanted after the last record that looked it up, and a device to have connections after the last one left:
/// records come and go, and connections need not go with them.
const LINGER: Duration = Duration::from_secs(10);
/// Before connections are offered again to devices that had no room: twice as long each time, until one leaves.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MOST: Duration = Duration::from_secs(32);

/// A connection on a device.
struct Copy {
    device: DeviceId,
    /// What it had counted there as of the last look.
    packets: u64,
}

fn before(now: Instant, idle: Duration) -> Instant {
    let ns = u64::try_from(idle.as_nanos()).unwrap_or(u64::MAX);
    Instant::from_nanos(now.as_nanos().saturating_sub(ns))
}

/// What a round works with.
struct Round<'a, P: OffloadProvider> {
    engine: &'a mut PlacementEngine<P>,
    loans: &'a dyn ConnectionLoans,
    now: Instant,
}

struct Loan {
    number: u32,
    terms: LoanTerms,
    copies: Vec<Copy>,
}

/// How many connections are where.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LoanCounts {
    /// In devices now.
    pub lent: usize,
    /// Given to devices, in all.
    pub handed_over: u64,
    /// Taken back, in all.
    pub taken_back: u64,
    /// Offers that no device had room for.
    pub refused: u64,
    /// Packets that devices have counted of connections, as of the last looks.
    pub packets: u64,
    /// Connections that stayed in software, by reason.
    pub stayed: Vec<(&'static str, u64)>,
}

/// See the module's text.
#[derive(Default)]
pub struct Lender {
    lent: HashMap<ConnectionEnds, Loan>,
    by_number: BTreeMap<u32, ConnectionEnds>,
    next_number: u32,
    /// Zones that devices look up, and when that was seen last.
    zones: BTreeMap<(u16, DeviceId), Instant>,
    /// What devices were as of the last tick, those that answer.
    lives: BTreeMap<DeviceId, (u64, u64)>,
    /// Connections on devices, and when that was not none.
    held: BTreeMap<DeviceId, (usize, Instant)>,
    /// What a device did not give back: tried again.
    stuck: BTreeSet<ConnectionEnds>,
    /// When a device last had no room.
    full_at: Option<Instant>,
    /// How often in a row they had none.
    times_full: u32,
    /// The next connection to be looked at, while a round goes on.
    cursor: Option<u32>,
    looked_at: Option<Instant>,
    counts: LoanCounts,
}

impl Lender {
    /// One round. How much it did: call again soon while that is not 0.
    pub fn tick<P: OffloadProvider>(
        &mut self,
        engine: &mut PlacementEngine<P>,
        loans: &dyn ConnectionLoans,
        now: Instant,
    ) -> usize {
        let r = &mut Round { engine, loans, now };
        self.update_zones(r);
        if self.zones.is_empty() && self.lent.is_empty() && self.held.is_empty() {
            return 0;
        }
        self.update_lives(r);
        let mut work = self.follow_changes(r);
        work += self.take_offers(r);
        work += self.look(r, LOOKS_PER_TICK);
        let wait = AGAIN_AFTER.saturating_mul(1 << self.times_full.min(5)).min(AGAIN_AFTER_MOST);
        if self.full_at.is_some_and(|t| now - t >= wait) {
            self.full_at = None;
            self.times_full = self.times_full.saturating_add(1);
            loans.offer_again();
        }
        self.update_held(r.engine, now);
        if self.lent.is_empty() {
            r.engine.explain_no_connections(&self.why_none(loans));
        }
        work
    }

    /// Brings the tracker up to date with everything that devices have.
    pub fn look_at_all<P: OffloadProvider>(
        &mut self,
        engine: &mut PlacementEngine<P>,
        loans: &dyn ConnectionLoans,
        now: Instant,
    ) {
        let r = &mut Round { engine, loans, now };
        self.update_lives(r);
        self.follow_changes(r);
        (self.cursor, self.looked_at) = (None, None);
        self.look(r, usize::MAX);
    }

    /// The devices are gone: every connection is software's.
    pub fn let_go(&mut self, loans: &dyn ConnectionLoans, now: Instant) {
        loans.set_lending(false);
        for c in self.lent.keys() {
            loans.used(c, now);
            loans.take_back(c, true);
        }
        let counts = std::mem::take(&mut self.counts);
        *self = Lender { counts, ..Lender::default() };
    }

    /// How many connections are where.
    pub fn counts(&self, loans: &dyn ConnectionLoans) -> LoanCounts {
        LoanCounts { lent: self.lent.len(), stayed: loans.stayed(), ..self.counts.clone() }
    }

    fn why_none(&self, loans: &dyn ConnectionLoans) -> String {
        if self.full_at.is_some() {
            return "it has no room for one".into();
        }
        let mut stayed = loans.stayed();
        stayed.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        if stayed.is_empty() {
            return "none is established".into();
        }
        let of = |(why, n): &(&str, u64)| format!("{n} {why}");
        format!(
            "those that are established stay in software: {}",
            stayed.iter().map(of).collect::<Vec<_>>().join(", ")
        )
    }

    fn update_zones<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>) {
        let mut news = false;
        let (enabled, now) = (r.engine.config().enabled, r.now);
        if enabled {
            r.engine.for_each_zone_wanted(|d, zone| news |= self.zones.insert((zone, d), now).is_none());
        }
        let gone: Vec<_> = self
            .zones
            .iter()
            .filter(|(_, seen)| !enabled || now - **seen >= LINGER)
            .map(|(z, _)| *z)
            .collect();
        for (zone, device) in gone {
            self.zones.remove(&(zone, device));
            let there: Vec<_> = self.lent.keys().filter(|c| c.zone == zone).copied().collect();
            for c in there {
                self.drop_copy(r, &c, device);
            }
        }
        r.loans.set_lending(!self.zones.is_empty());
        if news {
            r.loans.offer_again();
        }
    }

    /// Notices devices that were lost, left, or are back.
    fn update_lives<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>) {
        let devices: BTreeSet<DeviceId> =
            self.zones.keys().map(|(_, d)| *d).chain(self.held.keys().copied()).collect();
        for d in devices {
            let life = r.engine.life_of(d);
            if self.lives.get(&d) == life.as_ref() {
                continue;
            }
            match life {
                Some(l) => self.lives.insert(d, l),
                None => self.lives.remove(&d),
            };
            // What it forwarded last is not known: as if that was now.
            let there: Vec<_> = self
                .lent
                .iter()
                .filter(|(_, l)| l.copies.iter().any(|c| c.device == d))
                .map(|(c, _)| *c)
                .collect();
            for c in there {
                self.forget_copy(r, &c, d, Some(r.now));
            }
            if life.is_some() {
                // All of it, if it has any: of another life.
                for number in r.engine.connections_on(d) {
                    if r.engine.remove_connection(d, number).is_err() {
                        // Its tuples stay taken there until it is reset; what collides with them is refused.
                        self.counts.refused += 1;
                    }
                }
                r.loans.offer_again();
            }
        }
    }

    /// Looks after lent connections that have changed.
    fn follow_changes<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>) -> usize {
        let (mut some, all) = r.loans.take_changed();
        if all {
            some = self.by_number.values().copied().collect();
        }
        some.extend(std::mem::take(&mut self.stuck));
        for c in &some {
            self.revisit(r, c);
        }
        some.len()
    }

    /// Has devices know of a connection what the tracker knows, or takes it back.
    fn revisit<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>, c: &ConnectionEnds) {
        let Some(loan) = self.lent.get_mut(c) else { return };
        match r.loans.lend(c, r.now) {
            Some(Ok(terms)) if terms == loan.terms => {}
            Some(Ok(terms)) => {
                loan.terms = terms;
                let number = loan.number;
                let on: Vec<_> = loan.copies.iter().map(|c| c.device).collect();
                for d in on {
                    if r.engine.put_connection(d, number, c.key(terms.mark), terms.timeout).is_err() {
                        self.drop_copy(r, c, d);
                    }
                }
            }
            Some(Err(_)) | None => self.reclaim(r, c),
        }
    }

    fn reclaim<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>, c: &ConnectionEnds) {
        let on: Vec<_> = self.lent.get(c).into_iter().flat_map(|l| &l.copies).map(|c| c.device).collect();
        for d in on {
            self.drop_copy(r, c, d);
        }
    }

    /// Takes a connection from one device, with what it counted last.
    fn drop_copy<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>, c: &ConnectionEnds, d: DeviceId) {
        let Some(loan) = self.lent.get(c) else { return };
        let Some(copy) = loan.copies.iter().find(|x| x.device == d) else { return };
        let used = match r.engine.remove_connection(d, loan.number) {
            Ok(s) => {
                self.counts.packets += s.packets.saturating_sub(copy.packets);
                (s.packets > copy.packets).then(|| before(r.now, s.idle))
            }
            Err(ObjectError::Missing(_)) => None,
            // It may be forwarding still. One that is down is another matter.
            Err(_) if self.lives.contains_key(&d) => {
                self.stuck.insert(*c);
                return;
            }
            Err(_) => Some(r.now),
        };
        self.forget_copy(r, c, d, used);
    }

    /// A device does not have a connection any more, which it used last then.
    fn forget_copy<P: OffloadProvider>(
        &mut self,
        r: &Round<'_, P>,
        c: &ConnectionEnds,
        d: DeviceId,
        used: Option<Instant>,
    ) {
        let Some(loan) = self.lent.get_mut(c) else { return };
        let before = loan.copies.len();
        loan.copies.retain(|x| x.device != d);
        if loan.copies.len() == before {
            return;
        }
        if let Some(at) = used {
            r.loans.used(c, at);
        }
        self.times_full = 0;
        if let Some((n, last)) = self.held.get_mut(&d) {
            (*n, *last) = (n.saturating_sub(1), r.now);
        }
        if loan.copies.is_empty() {
            self.by_number.remove(&loan.number);
            self.lent.remove(c);
            self.counts.taken_back += 1;
            r.loans.take_back(c, true);
        }
    }

    fn take_offers<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>) -> usize {
        let offers = r.loans.take_offers(OFFERS_PER_TICK);
        for c in &offers {
            if !self.lent.contains_key(c) {
                self.hand_over(r, c);
            }
        }
        offers.len()
    }

    fn hand_over<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>, c: &ConnectionEnds) {
        let of_zone = self.zones.range((c.zone, DeviceId(0))..=(c.zone, DeviceId(u16::MAX)));
        let devices: Vec<_> = of_zone.map(|((_, d), _)| *d).filter(|d| self.lives.contains_key(d)).collect();
        if devices.is_empty() {
            return;
        }
        // First: what changes from now on is told.
        let Some(Ok(terms)) = r.loans.lend(c, r.now) else { return };
        let number = self.free_number();
        let mut copies = Vec::new();
        for device in devices {
            match r.engine.put_connection(device, number, c.key(terms.mark), terms.timeout) {
                Ok(()) => copies.push(Copy { device, packets: 0 }),
                Err(e) => {
                    tracing::debug!("connection {c:?} is not taken: {e}");
                    self.counts.refused += 1;
                    self.full_at.get_or_insert(r.now);
                }
            }
        }
        if copies.is_empty() {
            // Not at its next packet: when there is room.
            return r.loans.take_back(c, false);
        }
        for copy in &copies {
            self.held.entry(copy.device).or_insert((0, r.now)).0 += 1;
        }
        self.counts.handed_over += 1;
        self.by_number.insert(number, *c);
        self.lent.insert(*c, Loan { number, terms, copies });
    }

    fn free_number(&mut self) -> u32 {
        while self.by_number.contains_key(&self.next_number) {
            self.next_number = self.next_number.wrapping_add(1);
        }
        let n = self.next_number;
        self.next_number = n.wrapping_add(1);
        n
    }

    /// Looks at what devices have counted: of some connections each tick, of all each round. 1 while a round goes on.
    fn look<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>, most: usize) -> usize {
        let from = match self.cursor.take() {
            Some(n) => Bound::Included(n),
            None if self.looked_at.is_some_and(|t| r.now - t < LOOK_EVERY) => return 0,
            None => {
                self.looked_at = Some(r.now);
                Bound::Unbounded
            }
        };
        let mut some: Vec<_> = self
            .by_number
            .range((from, Bound::Unbounded))
            .take(most.saturating_add(1))
            .map(|(n, c)| (*n, *c))
            .collect();
        if some.len() > most
            && let Some((next, _)) = some.pop()
        {
            self.cursor = Some(next);
        }
        for (_, c) in some {
            self.look_at(r, &c);
        }
        usize::from(self.cursor.is_some())
    }

    fn look_at<P: OffloadProvider>(&mut self, r: &mut Round<'_, P>, c: &ConnectionEnds) {
        let Some(loan) = self.lent.get_mut(c) else { return };
        let mut over = Vec::new();
        for copy in &mut loan.copies {
            match r.engine.connection_stats(copy.device, loan.number) {
                Ok(s) => {
                    if s.packets > copy.packets {
                        self.counts.packets += s.packets - copy.packets;
                        copy.packets = s.packets;
                        r.loans.used(c, before(r.now, s.idle));
                    }
                    if s.over {
                        over.push(copy.device);
                    }
                }
                Err(ObjectError::Missing(_)) => over.push(copy.device),
                // Its health says more.
                Err(_) => {}
            }
        }
        for d in over {
            self.drop_copy(r, c, d);
        }
    }

    /// Tells the engine which devices have connections.
    fn update_held<P: OffloadProvider>(&mut self, engine: &mut PlacementEngine<P>, now: Instant) {
        self.held.retain(|d, (n, last)| {
            if *n > 0 {
                *last = now;
            }
            let has = *n > 0 || now - *last < LINGER;
            engine.set_has_connections(*d, has, now);
            has
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use flow::{Action, ActionKind, CtAction, FieldId, FlowId, PacketMatch};
    use offload::capability::ActionCap;
    use offload::memory::{MemoryProvider, test_capabilities};
    use offload::{FlowRule, ObjectKind, PlacementConfig, Reject, Status};
    use parking_lot::Mutex;

    use super::*;

    const ZONE: u16 = 7;

    /// A tracker whose connections are all alike, but for those that have ended.
    #[derive(Default)]
    struct Tracker {
        offers: Mutex<Vec<ConnectionEnds>>,
        changed: Mutex<Vec<ConnectionEnds>>,
        ended: Mutex<BTreeSet<ConnectionEnds>>,
        lent: Mutex<BTreeSet<ConnectionEnds>>,
        offered_again: Mutex<u32>,
        mark: Mutex<u32>,
    }

    impl ConnectionLoans for Tracker {
        fn set_lending(&self, _: bool) {}
        fn offer_again(&self) {
            *self.offered_again.lock() += 1;
        }
        fn take_offers(&self, most: usize) -> Vec<ConnectionEnds> {
            let mut o = self.offers.lock();
            let n = most.min(o.len());
            o.drain(..n).collect()
        }
        fn take_changed(&self) -> (Vec<ConnectionEnds>, bool) {
            (std::mem::take(&mut *self.changed.lock()), false)
        }
        fn lend(&self, c: &ConnectionEnds, _: Instant) -> Option<Result<LoanTerms, &'static str>> {
            if self.ended.lock().contains(c) {
                return None;
            }
            self.lent.lock().insert(*c);
            Some(Ok(LoanTerms { mark: *self.mark.lock(), timeout: Duration::from_secs(30) }))
        }
        fn used(&self, _: &ConnectionEnds, _: Instant) {}
        fn take_back(&self, c: &ConnectionEnds, _: bool) {
            self.lent.lock().remove(c);
        }
        fn stayed(&self) -> Vec<(&'static str, u64)> {
            vec![("translated", 2)]
        }
    }

    fn connection(sport: u16) -> ConnectionEnds {
        ConnectionEnds { v6: false, proto: 17, zone: ZONE, src: 1, dst: 2, sport, dport: 53 }
    }

    struct Bed {
        engine: PlacementEngine<MemoryProvider>,
        tracker: Tracker,
        lender: Lender,
        now: Instant,
    }

    impl Bed {
        fn new() -> Bed {
            let mut c = test_capabilities(8, 8);
            for t in &mut c.tables {
                t.actions.extend([ActionKind::Ct, ActionKind::Recirc].map(ActionCap::anywhere));
            }
            let engine = PlacementEngine::new(PlacementConfig::default(), vec![MemoryProvider::new(c)]);
            let now = Instant::from_nanos(1_000_000_000);
            let mut b = Bed { engine, tracker: Tracker::default(), lender: Lender::default(), now };
            let mut matches = PacketMatch::ANY;
            matches.set(FieldId::DpPort, 1);
            let ct = CtAction { zone: ZONE, ..CtAction::default() };
            let actions = [Action::Ct(Box::new(ct)), Action::Recirc(3)].into();
            let rule = FlowRule { id: FlowId(1), matches, actions, provenance: Arc::new([]) };
            b.engine.offer(rule, Arc::new(|| 0), now).unwrap();
            b.pass(Duration::ZERO);
            b
        }

        /// Time passes, then everything comes to rest.
        fn pass(&mut self, by: Duration) {
            self.now = self.now + by;
            for _ in 0..4 {
                self.engine.tick(self.now);
                self.lender.tick(&mut self.engine, &self.tracker, self.now);
            }
        }

        fn offer(&mut self, sports: impl IntoIterator<Item = u16>) {
            self.tracker.offers.lock().extend(sports.into_iter().map(connection));
            self.pass(Duration::ZERO);
        }

        fn on_device(&mut self) -> usize {
            self.engine.connections_on(DeviceId(0)).len()
        }

        fn lent(&self) -> Vec<u16> {
            self.tracker.lent.lock().iter().map(|c| c.sport).collect()
        }

        fn in_hardware(&self) -> bool {
            matches!(self.engine.status(FlowId(1)), Some(Status::Hardware { .. }))
        }
    }

    #[test]
    fn a_record_that_looks_up_is_in_hardware_while_there_is_something_to_find() {
        let mut b = Bed::new();
        let Some(Status::Software(why @ Reject::NoConnections { .. })) = b.engine.status(FlowId(1)) else {
            panic!("{:?}", b.engine.status(FlowId(1)));
        };
        assert!(
            why.to_string().ends_with("those that are established stay in software: 2 translated"),
            "{why}"
        );
        b.offer([1]);
        assert_eq!((b.on_device(), b.in_hardware()), (1, true));
        b.tracker.ended.lock().insert(connection(1));
        b.tracker.changed.lock().push(connection(1));
        b.pass(Duration::ZERO);
        assert_eq!((b.on_device(), b.in_hardware(), b.lent()), (0, true, vec![]), "another may come");
        b.pass(LINGER);
        assert!(!b.in_hardware());
    }

    #[test]
    fn what_has_changed_is_changed_in_the_device_under_its_number() {
        let mut b = Bed::new();
        b.offer([1]);
        let before = b.engine.connections_on(DeviceId(0));
        *b.tracker.mark.lock() = 9;
        b.tracker.changed.lock().push(connection(1));
        b.pass(Duration::ZERO);
        assert_eq!(b.engine.connections_on(DeviceId(0)), before);
        assert_eq!(b.lender.lent[&connection(1)].terms.mark, 9);
    }

    #[test]
    fn what_finds_no_room_stays_and_is_offered_again_later() {
        let mut b = Bed::new();
        let again = *b.tracker.offered_again.lock();
        let room = b.engine.capabilities().next().unwrap().1.object_limit(ObjectKind::Connection) as u16;
        b.offer(0..room + 2);
        assert_eq!(b.on_device(), usize::from(room));
        assert_eq!(b.lent(), (0..room).collect::<Vec<_>>());
        assert_eq!(b.lender.counts(&b.tracker).refused, 2);
        b.pass(AGAIN_AFTER);
        assert_eq!(*b.tracker.offered_again.lock(), again + 1);
        b.offer([50]);
        b.pass(AGAIN_AFTER);
        assert_eq!(*b.tracker.offered_again.lock(), again + 1, "not as soon the next time");
        b.pass(AGAIN_AFTER);
        assert_eq!(*b.tracker.offered_again.lock(), again + 2);
    }

    #[test]
    fn a_device_that_loses_its_memory_gives_connections_back() {
        let mut b = Bed::new();
        b.offer([1, 2]);
        b.engine.provider_mut(DeviceId(0)).unwrap().lose_tables();
        b.pass(Duration::ZERO);
        assert_eq!((b.on_device(), b.lent()), (0, vec![]));
        b.offer([3]);
        assert_eq!((b.on_device(), b.lent()), (1, vec![3]));
        b.lender.let_go(&b.tracker, b.now);
        assert_eq!(b.lent(), [0u16; 0]);
    }

    #[test]
    fn a_zone_that_nobody_looks_up_any_more_gives_its_connections_back() {
        let mut b = Bed::new();
        b.offer([1]);
        b.engine.withdraw(FlowId(1), b.now);
        b.pass(Duration::from_secs(1));
        assert_eq!(b.lent(), [1], "the record may come again");
        b.pass(LINGER);
        assert_eq!((b.on_device(), b.lent()), (0, vec![]));
    }
}
