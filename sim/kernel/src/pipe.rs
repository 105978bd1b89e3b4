//! A bounded wire with a latency and an initiation interval: the register chain and output queue of one stage.
//!
//! ```text
//!   push (at most one per interval) ──► [ latency cycles in flight ][ waiting for the consumer ] ──► pop
//!                                       └────────────── capacity items in all ───────────────┘
//! ```
//!
//! Items leave in the order they entered. A full pipe refuses pushes; that is back-pressure. For one item per `interval`
//! the capacity must be at least `latency / interval + 2`, because a slot freed in one cycle can be taken in the next.
//!
//! Cycle-level throughout.

use std::collections::VecDeque;

use crate::{Cycles, Wake};

/// Latency, initiation interval and buffer of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    latency_cycles: u32,
    interval_cycles: u32,
    capacity: u32,
}

/// A [`Timing`] that no hardware could have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimingError {
    /// Latency is zero: the output would depend on the order of evaluation.
    Latency,
    /// Interval is zero.
    Interval,
    /// No room for a single item, or more than 2^20.
    Capacity,
}

impl std::fmt::Display for TimingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            TimingError::Latency => "latency must be at least 1 cycle",
            TimingError::Interval => "initiation interval must be at least 1 cycle",
            TimingError::Capacity => "buffers must be between 1 and 1048576",
        })
    }
}

impl std::error::Error for TimingError {}

impl Timing {
    /// A stage that takes an item every `interval_cycles`, gives it out `latency_cycles` later and holds `capacity`.
    ///
    /// # Errors
    /// When a value is out of range.
    pub fn new(latency_cycles: u32, interval_cycles: u32, capacity: u32) -> Result<Self, TimingError> {
        if latency_cycles == 0 {
            return Err(TimingError::Latency);
        }
        if interval_cycles == 0 {
            return Err(TimingError::Interval);
        }
        if capacity == 0 || capacity > 1 << 20 {
            return Err(TimingError::Capacity);
        }
        Ok(Timing { latency_cycles, interval_cycles, capacity })
    }

    /// A queue: visible in the next cycle, one item per cycle.
    ///
    /// # Errors
    /// When `capacity` is out of range.
    pub fn queue(capacity: u32) -> Result<Self, TimingError> {
        Self::new(1, 1, capacity)
    }

    /// Cycles from push to visibility.
    pub fn latency_cycles(&self) -> u32 {
        self.latency_cycles
    }

    /// Cycles between two pushes.
    pub fn interval_cycles(&self) -> u32 {
        self.interval_cycles
    }

    /// Items held at most.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }
}

impl crate::State for Timing {
    fn save(&self, w: &mut crate::Writer) {
        [self.latency_cycles, self.interval_cycles, self.capacity].save(w);
    }
    fn load(r: &mut crate::Reader<'_>) -> Result<Self, crate::Damage> {
        let [latency, interval, capacity] = crate::State::load(r)?;
        Timing::new(latency, interval, capacity).map_err(|_| r.damage("timing"))
    }
}

/// Account of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PipeStats {
    /// Items in it now.
    pub occupancy: u32,
    /// Items it can hold.
    pub capacity: u32,
    /// Most items it ever held.
    pub max_occupancy: u32,
    /// Sum over all cycles of the items held; divide by the cycles for the mean.
    pub occupancy_integral: u64,
    /// Items pushed.
    pub pushed: u64,
}

/// A bounded first-in first-out pipe between one producer and one consumer. See the module's text.
#[derive(Clone, Debug)]
pub struct Pipe<T> {
    timing: Timing,
    items: VecDeque<(u64, T)>,
    /// First cycle in which the next push is allowed.
    next_push: u64,
    /// Cycle of the latest pop and the pops in it: their slots are still taken in that cycle.
    pop_cycle: u64,
    pops: u32,
    max_occupancy: u32,
    integral: u64,
    integral_until: u64,
    pushed: u64,
}

crate::state!(struct Pipe<T: crate::State> {
    timing: fixed, items, next_push, pop_cycle, pops, max_occupancy, integral, integral_until,
    pushed,
});

impl<T> Pipe<T> {
    /// An empty pipe. Its storage is allocated here, once.
    pub fn new(timing: Timing) -> Self {
        Pipe {
            timing,
            items: VecDeque::with_capacity(timing.capacity as usize),
            next_push: 0,
            pop_cycle: 0,
            pops: 0,
            max_occupancy: 0,
            integral: 0,
            integral_until: 0,
            pushed: 0,
        }
    }

    /// The pipe's timing.
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Items in the pipe, visible or not.
    #[inline]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether the interval has passed and a slot was free at the start of this cycle.
    #[inline]
    pub fn can_push(&self, now: Cycles) -> bool {
        now.0 >= self.next_push && self.has_room(now)
    }

    /// Whether a slot was free at the start of this cycle; the interval may not have passed.
    #[inline]
    pub fn has_room(&self, now: Cycles) -> bool {
        self.held(now) < self.timing.capacity
    }

    /// Slots taken in this cycle: a slot freed in it counts until the next.
    #[inline]
    pub fn held(&self, now: Cycles) -> u32 {
        self.items.len() as u32 + if self.pop_cycle == now.0 { self.pops } else { 0 }
    }

    /// Pushes an item; it is visible after the pipe's latency.
    ///
    /// # Errors
    /// Gives the item back when [`Pipe::can_push`] is false.
    #[inline]
    pub fn push(&mut self, now: Cycles, item: T) -> Result<(), T> {
        self.push_after(now, 0, item)
    }

    /// As [`Pipe::push`], for an item that keeps the stage for `extra_cycles` more: it is visible that much later, and
    /// so is the next push allowed.
    ///
    /// # Errors
    /// Gives the item back when [`Pipe::can_push`] is false.
    #[inline]
    pub fn push_after(&mut self, now: Cycles, extra_cycles: u64, item: T) -> Result<(), T> {
        if !self.can_push(now) {
            return Err(item);
        }
        self.account(now);
        let ready = now.0.saturating_add(u64::from(self.timing.latency_cycles)).saturating_add(extra_cycles);
        self.items.push_back((ready, item));
        self.next_push =
            now.0.saturating_add(u64::from(self.timing.interval_cycles)).saturating_add(extra_cycles);
        self.max_occupancy = self.max_occupancy.max(self.held(now));
        self.pushed += 1;
        Ok(())
    }

    /// As [`Pipe::push`], for an item that is visible `late_cycles` later than others but does not keep the stage: items
    /// behind it wait in the pipe, none overtakes it.
    ///
    /// # Errors
    /// Gives the item back when [`Pipe::can_push`] is false.
    #[inline]
    pub fn push_late(&mut self, now: Cycles, late_cycles: u64, item: T) -> Result<(), T> {
        self.push_after_late(now, 0, late_cycles, item)
    }

    /// [`Pipe::push_after`] and [`Pipe::push_late`] in one.
    ///
    /// # Errors
    /// Gives the item back when [`Pipe::can_push`] is false.
    pub fn push_after_late(
        &mut self,
        now: Cycles,
        extra_cycles: u64,
        late_cycles: u64,
        item: T,
    ) -> Result<(), T> {
        self.push_after(now, extra_cycles, item)?;
        if let Some((ready, _)) = self.items.back_mut() {
            *ready = ready.saturating_add(late_cycles);
        }
        Ok(())
    }

    /// The cycle from which an item pushed now would be visible, if nothing before it is held up.
    #[inline]
    pub fn visible_from(&self, now: Cycles) -> u64 {
        now.0.saturating_add(self.timing.latency_cycles.into())
    }

    /// Keeps the producer from pushing for `cycles` more than it would have to wait: somebody else uses the stage.
    pub fn hold(&mut self, now: Cycles, cycles: u64) {
        self.next_push = self.next_push.max(now.0 + 1).saturating_add(cycles);
    }

    /// The item the consumer sees in this cycle.
    #[inline]
    pub fn peek(&self, now: Cycles) -> Option<&T> {
        match self.items.front() {
            Some((ready, item)) if *ready <= now.0 => Some(item),
            _ => None,
        }
    }

    /// Whether the consumer sees an item in this cycle.
    #[inline]
    pub fn is_ready(&self, now: Cycles) -> bool {
        self.peek(now).is_some()
    }

    /// Takes the item the consumer sees in this cycle.
    #[inline]
    pub fn pop(&mut self, now: Cycles) -> Option<T> {
        self.peek(now)?;
        self.account(now);
        if self.pop_cycle != now.0 {
            self.pop_cycle = now.0;
            self.pops = 0;
        }
        self.pops += 1;
        self.items.pop_front().map(|(_, item)| item)
    }

    /// When the consumer can next do something with it: the next cycle if an item is visible by then, otherwise when
    /// the first one becomes visible.
    #[inline]
    pub fn wake(&self, now: Cycles) -> Wake {
        match self.items.front() {
            Some((ready, _)) => Wake((*ready).max(now.0 + 1)),
            None => Wake::NEVER,
        }
    }

    /// Takes everything out, visible or not: what a reset does.
    pub fn drain(&mut self, now: Cycles) -> impl Iterator<Item = T> + '_ {
        self.account(now);
        self.next_push = now.0;
        self.items.drain(..).map(|(_, item)| item)
    }

    /// All items, oldest first, visible or not.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.items.iter().map(|(_, item)| item)
    }

    /// The account up to `now`.
    pub fn stats(&self, now: Cycles) -> PipeStats {
        PipeStats {
            occupancy: self.items.len() as u32,
            capacity: self.timing.capacity,
            max_occupancy: self.max_occupancy,
            occupancy_integral: self.integral
                + self.items.len() as u64 * now.0.saturating_sub(self.integral_until),
            pushed: self.pushed,
        }
    }

    #[inline]
    fn account(&mut self, now: Cycles) {
        self.integral += self.items.len() as u64 * now.0.saturating_sub(self.integral_until);
        self.integral_until = now.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe(latency: u32, interval: u32, capacity: u32) -> Pipe<u32> {
        Pipe::new(Timing::new(latency, interval, capacity).unwrap())
    }

    #[test]
    fn an_item_is_visible_after_the_latency() {
        let mut p = pipe(3, 1, 4);
        p.push(Cycles(10), 7).unwrap();
        assert_eq!(p.wake(Cycles(10)), Wake::at(Cycles(13)));
        assert_eq!(p.pop(Cycles(12)), None);
        assert_eq!(p.pop(Cycles(13)), Some(7));
    }

    #[test]
    fn a_slot_freed_in_a_cycle_is_not_free_in_that_cycle() {
        let mut p = pipe(1, 1, 1);
        p.push(Cycles(0), 1).unwrap();
        assert_eq!(p.push(Cycles(1), 2), Err(2));
        assert_eq!(p.pop(Cycles(1)), Some(1));
        assert_eq!(p.push(Cycles(1), 2), Err(2));
        assert_eq!(p.push(Cycles(2), 2), Ok(()));
    }

    #[test]
    fn pushes_are_an_interval_apart() {
        let mut p = pipe(1, 4, 8);
        p.push(Cycles(0), 1).unwrap();
        assert!(!p.can_push(Cycles(3)));
        assert!(p.has_room(Cycles(3)));
        assert!(p.can_push(Cycles(4)));
    }

    #[test]
    fn a_late_item_keeps_those_behind_it_waiting_but_not_from_entering() {
        let mut p = pipe(2, 1, 8);
        p.push_late(Cycles(0), 10, 1).unwrap();
        p.push(Cycles(1), 2).unwrap();
        assert_eq!((p.pop(Cycles(3)), p.wake(Cycles(3))), (None, Wake::at(Cycles(12))));
        assert_eq!((p.pop(Cycles(12)), p.pop(Cycles(12))), (Some(1), Some(2)));
    }

    #[test]
    fn a_held_pipe_takes_nothing_for_so_long() {
        let mut p = pipe(1, 1, 8);
        p.hold(Cycles(4), 3);
        assert!(!p.can_push(Cycles(7)) && p.can_push(Cycles(8)));
    }

    #[test]
    fn occupancy_is_integrated_over_the_cycles() {
        let mut p = pipe(1, 1, 8);
        p.push(Cycles(0), 1).unwrap();
        p.push(Cycles(10), 2).unwrap();
        p.pop(Cycles(20)).unwrap();
        let s = p.stats(Cycles(30));
        assert_eq!((s.occupancy, s.max_occupancy, s.pushed), (1, 2, 2));
        assert_eq!(s.occupancy_integral, 10 + 20 + 10);
    }

    #[test]
    fn impossible_timings_are_refused() {
        assert_eq!(Timing::new(0, 1, 1), Err(TimingError::Latency));
        assert_eq!(Timing::new(1, 0, 1), Err(TimingError::Interval));
        assert_eq!(Timing::new(1, 1, 0), Err(TimingError::Capacity));
        assert_eq!(Timing::new(1, 1, u32::MAX), Err(TimingError::Capacity));
    }
}
