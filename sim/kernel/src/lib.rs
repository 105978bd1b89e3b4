//! A kernel for clocked simulation: pipes with latency and back-pressure, a clock that can jump over empty cycles,
//! a seeded random number generator and the accounts that every stage keeps.
//!
//! # Two phases without a second pass
//!
//! Hardware evaluates all of its stages at once, from the registers of the last clock edge. Software evaluates them one
//! after the other, so the result must not depend on the order. The usual means are two passes: all stages *evaluate*
//! from the old values, then all *commit* the new ones. [`Pipe`] gives the same guarantee with time stamps instead of a
//! second pass over every wire:
//!
//! ```text
//!   producer, cycle t: push ──► visible to the consumer from t + latency (at least t + 1)
//!   consumer, cycle t: pop  ──► the slot is free for the producer from t + 1
//! ```
//!
//! so nothing a stage does in cycle `t` can be seen by another stage in cycle `t`. State that is not a pipe (a table
//! that one stage writes and another reads) is changed in [`Machine::commit`], which runs after every stage has
//! evaluated. Each pipe has one producer and one consumer.
//!
//! # Event skipping
//!
//! A machine says when it next has something to do ([`Machine::next_event`]); when that is not the next cycle, the clock
//! jumps. The rule that keeps a run with jumps identical to one without, to the last statistic: a stage whose input is
//! visible is never skipped, so stalls are counted cycle by cycle; everything else is accounted by amounts that do not
//! depend on when they are added (busy cycles on acceptance, occupancy as an integral).
//!
//! # Modelled here
//!
//! Cycle-level: pipes, initiation intervals, back-pressure, occupancy. Nothing in this crate knows of packets or PCIe.
#![forbid(unsafe_code)]

mod drive;
mod pipe;
mod rng;
mod state;
mod usage;

pub use clock::Cycles;
pub use drive::{Drive, Machine, RunEnd};
pub use pipe::{Pipe, PipeStats, Timing, TimingError};
pub use rng::Rng;
pub use state::{Damage, Foreign, Reader, State, Writer};
pub use usage::{Stall, Usage, UsageStats};

/// When a part of a machine next has something to do if nothing reaches it from outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wake(u64);

impl Wake {
    /// Never, unless something arrives.
    pub const NEVER: Wake = Wake(u64::MAX);

    /// In cycle `c`.
    #[inline]
    pub fn at(c: Cycles) -> Wake {
        Wake(c.0)
    }

    /// The earlier of the two.
    #[inline]
    pub fn or(self, o: Wake) -> Wake {
        Wake(self.0.min(o.0))
    }

    /// The cycle, if there is one.
    #[inline]
    pub fn cycle(self) -> Option<Cycles> {
        (self.0 != u64::MAX).then_some(Cycles(self.0))
    }
}

/// `b` after `a`, in cycles; zero when it is before.
#[inline]
pub fn cycles_between(a: Cycles, b: Cycles) -> u64 {
    b.0.saturating_sub(a.0)
}
