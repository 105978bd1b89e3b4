//! What forwarding threads and their receive queues were used for lately: their counters every few seconds of a minute.

use std::collections::VecDeque;
use std::time::Duration;

use clock::Instant;
use datapath::CoreStats;
use flow::PortId;
use parking_lot::Mutex;

/// Between two samples.
pub(crate) const STEP: Duration = Duration::from_secs(5);
/// Steps that are remembered: a minute.
pub(crate) const STEPS: usize = 12;

/// Counters of all cores, now and then.
#[derive(Default)]
pub(crate) struct History(Mutex<VecDeque<(Instant, Vec<CoreStats>)>>);

/// Cycles of one core within a period.
pub(crate) struct Used {
    /// Of the thread in all.
    pub(crate) all: u64,
    /// With packets.
    pub(crate) busy: u64,
    queues: Vec<(PortId, u16, u64)>,
}

impl Used {
    /// Those that a queue took.
    pub(crate) fn queue(&self, port: PortId, queue: u16) -> u64 {
        self.queues.iter().find(|q| (q.0, q.1) == (port, queue)).map_or(0, |q| q.2)
    }
}

impl History {
    /// Takes a sample when it is time for one.
    pub(crate) fn sample(&self, now: Instant, stats: impl FnOnce() -> Vec<CoreStats>) {
        let mut h = self.0.lock();
        if h.back().is_some_and(|(at, _)| now.since(*at) < STEP) {
            return;
        }
        if h.len() > STEPS {
            h.pop_front();
        }
        h.push_back((now, stats()));
    }

    /// What `core` did in the last `steps` whole steps, as far as they are remembered; `None` before the first has ended.
    pub(crate) fn last(&self, core: usize, steps: usize) -> Option<Used> {
        let h = self.0.lock();
        let newest = h.len().checked_sub(1)?;
        let of = |at: usize| h.get(at).and_then(|(_, all)| all.iter().find(|c| c.core == core));
        // A core that was not there yet began with nothing.
        let (now, before) = (of(newest)?, of(newest.saturating_sub(steps)));
        if newest == 0 {
            return None;
        }
        let zero = CoreStats::default();
        let before = before.unwrap_or(&zero);
        let all = |c: &CoreStats| c.busy_cycles + c.idle_cycles;
        let was = |port, queue| {
            before.queues.iter().find(|b| (b.port, b.queue) == (port, queue)).map_or(0, |b| b.cycles)
        };
        let queues = now
            .queues
            .iter()
            .map(|q| (q.port, q.queue, q.cycles.saturating_sub(was(q.port, q.queue))))
            .collect();
        Some(Used {
            all: all(now).saturating_sub(all(before)),
            busy: now.busy_cycles.saturating_sub(before.busy_cycles),
            queues,
        })
    }
}

#[cfg(test)]
mod tests {
    use datapath::QueueStats;

    use super::*;

    fn core(busy: u64, queue: u64) -> Vec<CoreStats> {
        let q = QueueStats { port: PortId(1), name: String::new(), queue: 0, packets: 0, cycles: queue };
        vec![CoreStats {
            core: 3,
            busy_cycles: busy,
            idle_cycles: 1000 - busy,
            queues: vec![q],
            ..CoreStats::default()
        }]
    }

    #[test]
    fn usage_is_that_of_the_last_steps_and_nothing_before_one_has_ended() {
        let (h, at) = (History::default(), |s: u64| Instant::from_nanos(s * 1_000_000_000));
        assert!(h.last(3, 1).is_none());
        h.sample(at(0), || core(10, 5));
        assert!(h.last(3, 1).is_none());
        h.sample(at(4), || unreachable!("it is not time yet"));
        h.sample(at(5), || core(60, 25));
        h.sample(at(10), || core(80, 30));
        let used = |steps| h.last(3, steps).map(|u| (u.busy, u.queue(PortId(1), 0)));
        assert_eq!((used(1), used(2), used(12)), (Some((20, 5)), Some((70, 25)), Some((70, 25))));
        assert!(h.last(4, 1).is_none());
        for n in 3..100 {
            h.sample(at(n * 5), || core(100, 50));
        }
        assert_eq!((used(12), h.0.lock().len()), (Some((0, 0)), STEPS + 1));
    }
}
