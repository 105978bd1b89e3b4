//! Where a core's cycles go.
//!
//! Every poll is timed as a whole, by one reading of the counter: busy if there was a packet, idle if not. One poll with packets in
//! [`SAMPLE_EVERY`] is timed stage by stage, with a reading at the end of each stage, so that the others do not pay
//! for it. Shares of stages are of those polls.

use std::sync::atomic::{AtomicU64, Ordering};

use datapath_api::DatapathStats;
use flow::PortId;

use crate::cycles;

/// One poll in so many is timed stage by stage. A prime: traffic that comes in rounds is met in all of its parts.
const SAMPLE_EVERY: u32 = 61;

/// What a core does with packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Taking packets from receive queues.
    Receive,
    /// Reading headers, and hashing what verdicts may depend on.
    Parse,
    /// The exact-match cache.
    Exact,
    /// The megaflows.
    Megaflow,
    /// Classification by the tables themselves, for shortcuts.
    Classify,
    /// Translation of misses, records included.
    Translate,
    /// Actions and counting.
    Actions,
    /// Handing packets to transmit queues.
    Transmit,
    /// Changes of ports and flows, packets of other cores, counters.
    Other,
}

impl Stage {
    /// All, in the order in which a packet meets them.
    pub const ALL: [Stage; 9] = [
        Stage::Receive,
        Stage::Parse,
        Stage::Exact,
        Stage::Megaflow,
        Stage::Classify,
        Stage::Translate,
        Stage::Actions,
        Stage::Transmit,
        Stage::Other,
    ];

    /// Its name, for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Parse => "parse",
            Stage::Exact => "exact-match",
            Stage::Megaflow => "megaflow",
            Stage::Classify => "classify",
            Stage::Translate => "translate",
            Stage::Actions => "actions",
            Stage::Transmit => "transmit",
            Stage::Other => "other",
        }
    }
}

const STAGES: usize = Stage::ALL.len();

/// What one core has done since it was made. Cycles are of the time-stamp counter.
#[derive(Clone, Debug, Default)]
pub struct CoreStats {
    /// Its number.
    pub core: usize,
    /// Its counters; flows and masks are of the datapath and not told here.
    pub packets: DatapathStats,
    /// Cycles of polls that had packets.
    pub busy_cycles: u64,
    /// Cycles of polls that had none.
    pub idle_cycles: u64,
    /// Polls that had packets.
    pub busy_polls: u64,
    /// Polls that had none.
    pub idle_polls: u64,
    /// Times that it slept for want of packets. Not part of the cycles.
    pub sleeps: u64,
    /// Packets looked up, those that came again after recirculation included.
    pub passes: u64,
    /// Masks probed for packets that megaflows answered.
    pub probes: u64,
    /// Bursts handed to transmit queues.
    pub tx_bursts: u64,
    /// Flows that the exact-match cache had remembered and that gave way to others, its memory being used up.
    pub evicted: u64,
    /// Records that the table had no room for; their packets were forwarded all the same.
    pub refused: u64,
    /// Packets of the polls that were timed stage by stage.
    pub sampled_packets: u64,
    /// Cycles of those polls, in the order of [`Stage::ALL`].
    pub stage_cycles: [u64; STAGES],
    /// Its receive queues.
    pub queues: Vec<QueueStats>,
}

/// A receive queue of a core.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueStats {
    /// The port.
    pub port: PortId,
    /// Its name.
    pub name: String,
    /// Number of the queue in the port.
    pub queue: u16,
    /// Packets received.
    pub packets: u64,
    /// Cycles of the polls in which it had packets, its share by packets where others had some too.
    pub cycles: u64,
}

/// Times the core that owns it.
pub(crate) struct Watch {
    /// End of the poll before.
    mark: u64,
    /// Polls with packets until one is timed stage by stage.
    left: u32,
    /// Whether this one is.
    on: bool,
    /// End of the stage before.
    lap: u64,
    this: [u64; STAGES],
    busy: u64,
    idle: u64,
    busy_polls: u64,
    idle_polls: u64,
    sleeps: u64,
    sampled_packets: u64,
    stages: [u64; STAGES],
}

impl Watch {
    pub(crate) fn new() -> Self {
        Watch {
            mark: cycles::now(),
            left: 1,
            on: false,
            lap: 0,
            this: [0; STAGES],
            busy: 0,
            idle: 0,
            busy_polls: 0,
            idle_polls: 0,
            sleeps: 0,
            sampled_packets: 0,
            stages: [0; STAGES],
        }
    }

    /// A poll begins.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        if self.left <= 1 {
            self.on = true;
            self.this = [0; STAGES];
            self.lap = cycles::now();
        }
    }

    /// Whether stages of this poll are timed.
    #[cfg(test)]
    fn is_on(&self) -> bool {
        self.on
    }

    /// A stage is over: what has passed since the one before is its.
    #[inline(always)]
    pub(crate) fn lap(&mut self, s: Stage) {
        if self.on {
            self.take(s);
        }
    }

    #[cold]
    fn take(&mut self, s: Stage) {
        let now = cycles::now();
        self.this[s as usize] += now.wrapping_sub(self.lap);
        self.lap = now;
    }

    /// The poll is over and had `n` packets; how long it took, everything since the one before included.
    #[inline(always)]
    pub(crate) fn end(&mut self, n: usize) -> u64 {
        let now = cycles::now();
        let spent = now.wrapping_sub(self.mark);
        self.mark = now;
        if n == 0 {
            self.idle += spent;
            self.idle_polls += 1;
            self.on = false;
            return spent;
        }
        self.busy += spent;
        self.busy_polls += 1;
        self.left = self.left.saturating_sub(1);
        if self.on {
            self.keep(n);
        }
        spent
    }

    #[cold]
    fn keep(&mut self, n: usize) {
        self.on = false;
        self.left = SAMPLE_EVERY;
        self.sampled_packets += n as u64;
        self.stages.iter_mut().zip(self.this).for_each(|(all, this)| *all += this);
    }

    /// The core has slept: that time is nobody's.
    pub(crate) fn slept(&mut self) {
        self.sleeps += 1;
        self.mark = cycles::now();
    }
}

/// Counters beside the cycles.
#[derive(Clone, Copy, Default)]
pub(crate) struct Passes {
    pub(crate) passes: u64,
    pub(crate) probes: u64,
    pub(crate) tx_bursts: u64,
    pub(crate) evicted: u64,
    pub(crate) refused: u64,
}

/// Published totals of a [`Watch`]; written by its core alone.
#[derive(Default)]
pub(crate) struct PublishedPerf {
    idle: [AtomicU64; 2],
    busy: [AtomicU64; 9],
    stages: [AtomicU64; STAGES],
}

impl PublishedPerf {
    /// After a poll without packets.
    #[inline]
    pub(crate) fn publish_idle(&self, w: &Watch) {
        self.idle[0].store(w.idle, Ordering::Relaxed);
        self.idle[1].store(w.idle_polls, Ordering::Relaxed);
    }

    /// After a poll with packets.
    #[inline]
    pub(crate) fn publish(&self, w: &Watch, p: &Passes) {
        let all = [
            w.busy,
            w.busy_polls,
            w.sleeps,
            w.sampled_packets,
            p.passes,
            p.probes,
            p.tx_bursts,
            p.evicted,
            p.refused,
        ];
        for (to, from) in self.busy.iter().zip(all) {
            to.store(from, Ordering::Relaxed);
        }
        for (to, from) in self.stages.iter().zip(&w.stages) {
            to.store(*from, Ordering::Relaxed);
        }
    }

    pub(crate) fn add_to(&self, s: &mut CoreStats) {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        (s.idle_cycles, s.idle_polls) = (get(&self.idle[0]), get(&self.idle[1]));
        let busy: [&mut u64; 9] = [
            &mut s.busy_cycles,
            &mut s.busy_polls,
            &mut s.sleeps,
            &mut s.sampled_packets,
            &mut s.passes,
            &mut s.probes,
            &mut s.tx_bursts,
            &mut s.evicted,
            &mut s.refused,
        ];
        busy.into_iter().zip(&self.busy).for_each(|(to, from)| *to = get(from));
        s.stage_cycles.iter_mut().zip(&self.stages).for_each(|(to, from)| *to = get(from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_busy_or_idle_and_one_in_many_is_timed_by_stages() {
        let mut w = Watch::new();
        let mut timed = 0;
        for poll in 0..10 * SAMPLE_EVERY {
            w.begin();
            timed += u32::from(w.is_on());
            w.lap(Stage::Receive);
            w.lap(Stage::Actions);
            // Every other poll has packets.
            w.end(if poll % 2 == 0 { 32 } else { 0 });
        }
        assert_eq!((w.busy_polls, w.idle_polls), (5 * u64::from(SAMPLE_EVERY), 5 * u64::from(SAMPLE_EVERY)));
        assert_eq!(w.sampled_packets, 5 * 32, "an idle poll is no sample");
        assert!(timed >= 5);
        let sum: u64 = w.stages.iter().sum();
        assert!(w.stages[Stage::Receive as usize] > 0 && w.stages[Stage::Megaflow as usize] == 0);
        assert!(sum <= w.busy + w.idle, "{sum} {} {}", w.busy, w.idle);
        let p = PublishedPerf::default();
        p.publish(&w, &Passes { passes: 7, probes: 8, tx_bursts: 9, evicted: 10, refused: 11 });
        p.publish_idle(&w);
        let mut s = CoreStats::default();
        p.add_to(&mut s);
        assert_eq!((s.busy_cycles, s.idle_cycles, s.passes, s.refused), (w.busy, w.idle, 7, 11));
        assert_eq!(s.stage_cycles, w.stages);
    }
}
