//! The clock: runs a machine cycle by cycle, and jumps over cycles in which nothing can happen.
//!
//! Cycle-level: nothing is skipped but cycles in which no stage can do anything.

use crate::{Cycles, Wake};

/// A clocked machine: all stages of one clock domain.
pub trait Machine {
    /// Evaluates every stage in cycle `now`, in any order. Returns whether anything happened; when it says false,
    /// [`Machine::next_event`] is asked.
    fn evaluate(&mut self, now: Cycles) -> bool;

    /// Publishes what the stages decided about state they share. Runs once after every evaluation.
    fn commit(&mut self, now: Cycles);

    /// The next cycle after `now` in which an evaluation could do or count anything, if nothing comes from outside.
    fn next_event(&self, now: Cycles) -> Wake;
}

/// Why a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// The given number of cycles has passed.
    Limit,
    /// Nothing is left to do until something comes from outside.
    Idle,
}

/// The clock of one machine.
#[derive(Clone, Debug)]
pub struct Drive {
    now: Cycles,
    skipping: bool,
    evaluated: u64,
}

crate::state!(struct Drive { now, skipping, evaluated });

impl Drive {
    /// A clock at cycle zero. `skipping` allows it to jump over empty cycles; it changes nothing but the speed.
    pub fn new(skipping: bool) -> Self {
        Drive { now: Cycles(0), skipping, evaluated: 0 }
    }

    /// Turns jumping on or off.
    pub fn set_skipping(&mut self, on: bool) {
        self.skipping = on;
    }

    /// The cycle that is evaluated next.
    #[inline]
    pub fn now(&self) -> Cycles {
        self.now
    }

    /// Cycles evaluated rather than jumped over.
    pub fn evaluated(&self) -> u64 {
        self.evaluated
    }

    /// Moves the clock by exactly `cycles`.
    pub fn step<M: Machine>(&mut self, m: &mut M, cycles: u64) {
        let end = Cycles(self.now.0.saturating_add(cycles));
        while self.now < end {
            if !self.one(m) {
                let next = m.next_event(Cycles(self.now.0 - 1));
                self.jump(next, end);
            }
        }
    }

    /// Moves the clock by at most `cycles`, and stops early, without moving to the limit, when the machine is idle.
    pub fn run<M: Machine>(&mut self, m: &mut M, cycles: u64) -> RunEnd {
        let end = Cycles(self.now.0.saturating_add(cycles));
        while self.now < end {
            if !self.one(m) {
                let next = m.next_event(Cycles(self.now.0 - 1));
                if next == Wake::NEVER {
                    return RunEnd::Idle;
                }
                self.jump(next, end);
            }
        }
        RunEnd::Limit
    }

    /// Moves the clock without evaluating anything: time that passes while the machine is known to be idle.
    pub fn jump_to(&mut self, c: Cycles) {
        self.now = self.now.max(c);
    }

    #[inline]
    fn one<M: Machine>(&mut self, m: &mut M) -> bool {
        let happened = m.evaluate(self.now);
        m.commit(self.now);
        self.evaluated += 1;
        self.now.0 += 1;
        happened
    }

    /// After an evaluation in which nothing happened: moves on to the next event, at most to `end`.
    #[inline]
    fn jump(&mut self, next: Wake, end: Cycles) {
        if self.skipping {
            self.now = self.now.max(next.cycle().unwrap_or(end).min(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pipe, PipeStats, Rng, Stall, Timing, Usage, UsageStats};

    /// Source -> a -> b -> sink, with random timings, a sink that sometimes refuses, in a given order of evaluation.
    struct Chain {
        source: Vec<(u64, u32)>,
        a: Pipe<u32>,
        b: Pipe<u32>,
        usage: [Usage; 2],
        /// The sink takes an item in cycles that are multiples of this.
        sink_every: u64,
        out: Vec<(u64, u32)>,
        reversed: bool,
        committed: u64,
    }

    impl Chain {
        fn stage(&mut self, now: Cycles, which: usize) -> bool {
            match which {
                0 => {
                    if self.source.first().is_some_and(|(at, _)| *at <= now.0) {
                        if self.a.can_push(now) {
                            let (_, v) = self.source.remove(0);
                            self.usage[0].accept(self.a.timing().interval_cycles().into());
                            return self.a.push(now, v).is_ok();
                        } else if !self.a.has_room(now) {
                            self.usage[0].stall(Stall::Output);
                        }
                    }
                }
                1 => {
                    if self.a.is_ready(now) {
                        if self.b.can_push(now) {
                            let v = self.a.pop(now).unwrap();
                            self.usage[1].accept(self.b.timing().interval_cycles().into());
                            return self.b.push(now, v + 1).is_ok();
                        } else if !self.b.has_room(now) {
                            self.usage[1].stall(Stall::Output);
                        }
                    }
                }
                _ => {
                    if now.0.is_multiple_of(self.sink_every)
                        && let Some(v) = self.b.pop(now)
                    {
                        self.out.push((now.0, v));
                        return true;
                    }
                }
            }
            false
        }
    }

    impl Machine for Chain {
        fn evaluate(&mut self, now: Cycles) -> bool {
            let mut happened = false;
            for i in 0..3 {
                happened |= self.stage(now, if self.reversed { 2 - i } else { i });
            }
            happened
        }
        fn commit(&mut self, _now: Cycles) {
            self.committed += 1;
        }
        fn next_event(&self, now: Cycles) -> Wake {
            let source = match self.source.first() {
                Some((at, _)) => Wake::at(Cycles((*at).max(now.0 + 1))),
                None => Wake::NEVER,
            };
            source.or(self.a.wake(now)).or(self.b.wake(now))
        }
    }

    type Outcome = (Vec<(u64, u32)>, [UsageStats; 2], [PipeStats; 2]);

    fn outcome(seed: u64, skipping: bool, reversed: bool) -> (Outcome, u64) {
        let mut r = Rng::new(seed);
        let mut t =
            || Timing::new(1 + r.below(9) as u32, 1 + r.below(5) as u32, 1 + r.below(6) as u32).unwrap();
        let (a, b) = (Pipe::new(t()), Pipe::new(t()));
        let mut at = 0;
        let source = (0..40)
            .map(|i| {
                at += r.below(30);
                (at, i)
            })
            .collect();
        let mut c = Chain {
            source,
            a,
            b,
            usage: Default::default(),
            sink_every: 1 + r.below(4),
            out: vec![],
            reversed,
            committed: 0,
        };
        let mut d = Drive::new(skipping);
        d.step(&mut c, 3000);
        assert_eq!(d.evaluated(), c.committed);
        let now = d.now();
        let stats = [c.usage[0].stats(now), c.usage[1].stats(now)];
        ((c.out, stats, [c.a.stats(now), c.b.stats(now)]), d.evaluated())
    }

    #[test]
    fn jumping_over_cycles_and_the_order_of_evaluation_change_nothing() {
        for seed in 0..200 {
            let (plain, evaluated) = outcome(seed, false, false);
            assert_eq!(evaluated, 3000);
            let (skipped, fewer) = outcome(seed, true, false);
            assert_eq!(plain, skipped, "seed {seed}: skipping");
            assert!(fewer < evaluated, "seed {seed}: nothing was skipped");
            assert_eq!(plain, outcome(seed, false, true).0, "seed {seed}: order");
            assert_eq!(plain, outcome(seed, true, true).0, "seed {seed}: order and skipping");
            assert_eq!(plain.0.len(), 40, "seed {seed}: items lost");
        }
    }

    #[test]
    fn a_run_ends_when_the_machine_is_idle() {
        let t = Timing::new(5, 1, 4).unwrap();
        let mut c = Chain {
            source: vec![(10, 1)],
            a: Pipe::new(t),
            b: Pipe::new(t),
            usage: Default::default(),
            sink_every: 1,
            out: vec![],
            reversed: false,
            committed: 0,
        };
        let mut d = Drive::new(true);
        assert_eq!(d.run(&mut c, 1_000_000), RunEnd::Idle);
        assert_eq!(c.out, vec![(20, 2)]);
        assert!(d.now().0 < 30);
        c.source.push((u64::from(u32::MAX), 2));
        assert_eq!(d.run(&mut c, 5), RunEnd::Limit);
    }
}
