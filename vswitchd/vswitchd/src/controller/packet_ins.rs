//! Packet-ins on their way to one connection.
//!
//! ```text
//!   no flow matched ─► lane "miss"   ─┐   each: a queue for each ingress port, a rate
//!   a flow says so  ─► lane "action" ─┴─► in turn, as fast as the rates allow ─► connection
//! ```
//!
//! Packet-ins may be lost, and a controller that is flooded with packets that nobody knows still gets those that its flows send: the two
//! kinds have a rate and queues each, as in Open vSwitch. Of a lane that is full the port gives way that has most in it, so that
//! one port cannot have all the others' packet-ins dropped; while packets wait for the rate, ports take turns, and lanes. Otherwise
//! they leave in the order in which they came, whatever their lanes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use clock::Instant;
use flow::FieldId;
use openflow::message::{PacketIn, PacketInReason};

use super::hub::Limits;

/// Why a packet-in was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PacketInDrop {
    /// The queues are full.
    Full,
    /// The queues are full of what waits for the rate.
    Rate,
}

/// What became of a lane's packet-ins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaneCounts {
    /// Waiting now.
    pub backlog: u64,
    /// Went without waiting for the rate.
    pub bypassed: u64,
    /// Waited for the rate.
    pub queued: u64,
    /// Dropped.
    pub dropped: u64,
}

/// The lanes' names, in their order.
pub const LANES: [&str; 2] = ["action", "miss"];

/// The queues of one connection.
#[derive(Debug)]
pub(super) struct PacketIns {
    lanes: [Lane; 2],
    /// Whose turn it was last.
    turn: usize,
    came: u64,
}

#[derive(Debug)]
struct Lane {
    /// By ingress port; with the order of coming.
    ports: BTreeMap<u32, VecDeque<(u64, Arc<PacketIn>)>>,
    len: usize,
    most: usize,
    /// The port that was served last.
    served: u32,
    rate: TokenBucket,
    counts: LaneCounts,
}

impl PacketIns {
    pub(super) fn new(limits: &Limits, now: Instant) -> Self {
        let lane = || Lane {
            ports: BTreeMap::new(),
            len: 0,
            most: most(limits),
            served: 0,
            rate: TokenBucket::new(limits.packet_in_rate_pps, limits.packet_in_burst, now),
            counts: LaneCounts::default(),
        };
        PacketIns { lanes: [lane(), lane()], turn: 0, came: 0 }
    }

    /// Other limits from now on. What is queued stays.
    pub(super) fn set_limits(&mut self, limits: &Limits) {
        for l in &mut self.lanes {
            l.most = most(limits);
            l.rate.set(limits.packet_in_rate_pps, limits.packet_in_burst);
        }
    }

    /// Adds one, or drops it, or another in its favour.
    pub(super) fn push(&mut self, p: &Arc<PacketIn>, now: Instant) -> Result<(), PacketInDrop> {
        use PacketInReason::{ExplicitMiss, ImplicitMiss, NoMatch};
        let miss = matches!(p.reason, NoMatch | ExplicitMiss | ImplicitMiss);
        self.came += 1;
        self.lanes[usize::from(miss)].push(p, self.came, now)
    }

    /// Takes the next one whose time has come.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Arc<PacketIn>> {
        let [actions, misses] = &mut self.lanes;
        if let (Some(a), Some(m)) = (actions.oldest(now), misses.oldest(now)) {
            self.turn = usize::from(a < m);
        }
        for _ in 0..self.lanes.len() {
            self.turn = (self.turn + 1) % self.lanes.len();
            let p = self.lanes[self.turn].pop(now);
            if p.is_some() {
                return p;
            }
        }
        None
    }

    /// How long until [`PacketIns::pop`] has one; `None` while nothing waits for that.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.lanes.iter().filter(|l| l.len > 0).map(|l| l.rate.wait(now)).min()
    }

    /// What became of each lane's, in the order of [`LANES`].
    pub(super) fn counts(&self) -> [LaneCounts; 2] {
        std::array::from_fn(|i| LaneCounts { backlog: self.lanes[i].len as u64, ..self.lanes[i].counts })
    }
}

/// Most packet-ins that wait in a lane: where there is a rate, no more than a burst.
fn most(limits: &Limits) -> usize {
    let burst = limits.packet_in_burst.max(1) as usize;
    let most = limits.packet_ins.max(1);
    if limits.packet_in_rate_pps == 0 { most } else { most.min(burst) }
}

impl Lane {
    fn push(&mut self, p: &Arc<PacketIn>, came: u64, now: Instant) -> Result<(), PacketInDrop> {
        let port = p.matches.get(FieldId::InPort).0 as u32;
        self.rate.fill(now);
        let waits = !self.rate.has(self.len + 1);
        let full = self.len >= self.most;
        if full {
            self.counts.dropped += 1;
            let longest = self.ports.iter().max_by_key(|(_, q)| q.len()).map(|(no, q)| (*no, q.len()));
            let own = self.ports.get(&port).map_or(0, VecDeque::len);
            match longest {
                Some((no, n)) if n > own + 1 => self.take_newest(no),
                _ => return Err(if waits { PacketInDrop::Rate } else { PacketInDrop::Full }),
            }
        }
        *(if waits { &mut self.counts.queued } else { &mut self.counts.bypassed }) += 1;
        self.len += 1;
        self.ports.entry(port).or_default().push_back((came, Arc::clone(p)));
        match full {
            true if waits => Err(PacketInDrop::Rate),
            true => Err(PacketInDrop::Full),
            false => Ok(()),
        }
    }

    fn take_newest(&mut self, port: u32) {
        let Some(q) = self.ports.get_mut(&port) else { return };
        self.len -= usize::from(q.pop_back().is_some());
        if q.is_empty() {
            self.ports.remove(&port);
        }
    }

    /// When the first came, unless some of them wait for the rate.
    fn oldest(&mut self, now: Instant) -> Option<u64> {
        self.rate.fill(now);
        let waits = !self.rate.has(self.len);
        self.ports.values().filter(|_| !waits).filter_map(|q| q.front().map(|(n, _)| *n)).min()
    }

    fn pop(&mut self, now: Instant) -> Option<Arc<PacketIn>> {
        if self.len == 0 {
            return None;
        }
        self.rate.fill(now);
        // Enough for all of them: nobody need give way.
        let port = if self.rate.has(self.len) {
            self.ports.iter().min_by_key(|(_, q)| q.front().map(|(n, _)| *n)).map(|(no, _)| *no)
        } else {
            let after = self.ports.range(self.served.saturating_add(1)..).next();
            after.or(self.ports.iter().next()).map(|(no, _)| *no)
        }?;
        if !self.rate.take() {
            return None;
        }
        self.served = port;
        let q = self.ports.get_mut(&port)?;
        let p = q.pop_front().map(|(_, p)| p);
        if q.is_empty() {
            self.ports.remove(&port);
        }
        self.len -= usize::from(p.is_some());
        p
    }
}

/// Tokens that come at a rate, up to a burst.
#[derive(Debug)]
struct TokenBucket {
    /// Tokens per second; 0 is no limit.
    rate: u32,
    /// In billionths of a token.
    level: u64,
    full: u64,
    filled: Instant,
}

const TOKEN: u64 = 1_000_000_000;

impl TokenBucket {
    fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let full = u64::from(burst.max(1)) * TOKEN;
        TokenBucket { rate, level: full, full, filled: now }
    }

    fn set(&mut self, rate: u32, burst: u32) {
        let full = u64::from(burst.max(1)) * TOKEN;
        // One that was full is full again.
        self.level = if self.level == self.full { full } else { self.level.min(full) };
        (self.rate, self.full) = (rate, full);
    }

    fn fill(&mut self, now: Instant) {
        let ns = u64::try_from(now.since(self.filled).as_nanos()).unwrap_or(u64::MAX);
        self.level = self.full.min(self.level.saturating_add(ns.saturating_mul(u64::from(self.rate))));
        self.filled = now;
    }

    /// Whether there are so many.
    fn has(&self, n: usize) -> bool {
        self.rate == 0 || self.level >= (n as u64).saturating_mul(TOKEN)
    }

    fn take(&mut self) -> bool {
        if !self.has(1) {
            return false;
        }
        if self.rate > 0 {
            self.level -= TOKEN;
        }
        true
    }

    /// How long until there is one.
    fn wait(&self, now: Instant) -> Duration {
        if self.has(1) {
            return Duration::ZERO;
        }
        let ns = (TOKEN - self.level).div_ceil(self.rate.into());
        Duration::from_nanos(ns).saturating_sub(now.since(self.filled))
    }
}

#[cfg(test)]
mod tests {
    use flow::PipelineMatch;
    use openflow::number::TableId;

    use super::*;

    fn packet_in(reason: PacketInReason, port: u32) -> Arc<PacketIn> {
        let mut matches = PipelineMatch::ANY;
        matches.set(FieldId::InPort, port.into());
        Arc::new(PacketIn {
            buffer: None,
            total_len: 60,
            reason,
            table: TableId(0),
            cookie: 0,
            matches,
            data: vec![0; 60],
            controller_id: 0,
            userdata: Vec::new(),
            continuation: None,
        })
    }

    fn miss(port: u32) -> Arc<PacketIn> {
        packet_in(PacketInReason::NoMatch, port)
    }

    fn action() -> Arc<PacketIn> {
        packet_in(PacketInReason::Action, 1)
    }

    fn at_ms(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn limits(packet_ins: usize, rate: u32, burst: u32) -> Limits {
        Limits { packet_ins, packet_in_rate_pps: rate, packet_in_burst: burst, ..Limits::default() }
    }

    /// The ports of all that can go at that time, in their order.
    fn popped(p: &mut PacketIns, ms: u64) -> Vec<u32> {
        let next = || p.pop(at_ms(ms)).map(|p| p.matches.get(FieldId::InPort).0 as u32);
        std::iter::from_fn(next).collect()
    }

    fn flood(p: &mut PacketIns, packets: usize, ms: u64) {
        for _ in 0..packets {
            let _ = p.push(&miss(1), at_ms(ms));
        }
    }

    #[test]
    fn without_a_rate_they_go_in_order_and_beyond_the_queue_they_are_dropped() {
        let mut p = PacketIns::new(&limits(3, 0, 1), at_ms(0));
        let results: Vec<_> = [7, 5, 6, 7, 7].iter().map(|n| p.push(&miss(*n), at_ms(0))).collect();
        assert_eq!(results, [Ok(()), Ok(()), Ok(()), Err(PacketInDrop::Full), Err(PacketInDrop::Full)]);
        assert_eq!(p.wait(at_ms(0)), Some(Duration::ZERO));
        assert_eq!(popped(&mut p, 0), [7, 5, 6]);
        assert_eq!(p.wait(at_ms(0)), None);
        assert_eq!(p.push(&miss(1), at_ms(0)), Ok(()));
        let c = p.counts()[1];
        assert_eq!((c.backlog, c.bypassed, c.queued, c.dropped), (1, 4, 0, 2));
    }

    #[test]
    fn without_a_rate_lanes_do_not_change_the_order() {
        let mut p = PacketIns::new(&limits(10, 0, 1), at_ms(0));
        let came = [action(), miss(1), miss(2), action(), action(), miss(3)];
        assert!(came.iter().all(|m| p.push(m, at_ms(0)).is_ok()));
        let left: Vec<_> = std::iter::from_fn(|| p.pop(at_ms(0))).collect();
        assert!(left.len() == came.len() && left.iter().zip(&came).all(|(a, b)| Arc::ptr_eq(a, b)));
    }

    #[test]
    fn a_burst_goes_at_once_another_waits_and_the_rest_is_dropped() {
        let mut p = PacketIns::new(&limits(1000, 100, 10), at_ms(0));
        let mut sent = 0;
        for _ in 0..50 {
            let _ = p.push(&miss(1), at_ms(0));
            sent += popped(&mut p, 0).len();
        }
        assert_eq!(sent, 10);
        let c = p.counts()[1];
        assert_eq!((c.backlog, c.bypassed, c.queued, c.dropped), (10, 10, 10, 30));
        assert_eq!(p.wait(at_ms(0)), Some(Duration::from_millis(10)));
        assert_eq!((popped(&mut p, 9).len(), p.wait(at_ms(9))), (0, Some(Duration::from_millis(1))));
        assert_eq!(popped(&mut p, 30).len(), 3);
        assert_eq!(popped(&mut p, 60_000).len(), 7);
        // A long pause gives one burst.
        flood(&mut p, 50, 60_000);
        assert!(popped(&mut p, 60_000).len() <= 10);
    }

    #[test]
    fn a_flood_of_misses_leaves_what_flows_send_alone() {
        let mut p = PacketIns::new(&limits(100, 100, 10), at_ms(0));
        flood(&mut p, 1000, 0);
        assert!((0..10).all(|_| p.push(&action(), at_ms(0)).is_ok()));
        let all = std::iter::from_fn(|| p.pop(at_ms(0))).collect::<Vec<_>>();
        let actions = all.iter().filter(|p| p.reason == PacketInReason::Action).count();
        assert_eq!((all.len(), actions), (20, 10));
        assert_eq!(p.counts()[0].dropped, 0);
    }

    #[test]
    fn a_port_that_floods_gives_way_to_others_and_they_take_turns() {
        let mut p = PacketIns::new(&limits(100, 10, 4), at_ms(0));
        flood(&mut p, 100, 0);
        assert_eq!(popped(&mut p, 0), [1; 4]);
        flood(&mut p, 100, 0);
        for port in [2, 3] {
            assert_eq!(p.push(&miss(port), at_ms(0)), Err(PacketInDrop::Rate), "another was dropped");
        }
        assert_eq!(p.push(&miss(1), at_ms(0)), Err(PacketInDrop::Rate));
        assert_eq!(p.counts()[1].backlog, 4);
        let mut order = Vec::new();
        (1..=4).for_each(|n| order.extend(popped(&mut p, n * 100)));
        order.sort_unstable();
        assert_eq!(order, [1, 1, 2, 3]);
    }

    #[test]
    fn limits_change_while_packet_ins_wait() {
        let mut p = PacketIns::new(&limits(512, 0, 1), at_ms(0));
        p.set_limits(&limits(10, 10, 2));
        flood(&mut p, 50, 0);
        assert_eq!(popped(&mut p, 0).len(), 2);
        flood(&mut p, 50, 0);
        assert_eq!(popped(&mut p, 0).len(), 0);
        p.set_limits(&limits(10, 0, 2));
        assert_eq!(popped(&mut p, 0).len(), 2, "what had waited goes");
    }
}
