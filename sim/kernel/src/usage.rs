//! What a stage did with its cycles: busy, stalled and why, or idle.
//!
//! A stage is charged its initiation interval when it accepts an item, and one stalled cycle for each cycle in which it
//! has an item and could take it but for what comes after. What is left is idle. None of this depends on when the
//! cycles are looked at, so a clock that jumps gives the same account.
//!
//! Cycle-level: every cycle is charged to one thing.

use crate::Cycles;

/// Why a stage with work in hand did nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Stall {
    /// What comes after it has no room.
    Output = 0,
    /// Something it needs is used up: DMA tags, descriptors, completion slots.
    Resource = 1,
    /// It waits for an answer from host memory.
    Memory = 2,
}

const STALLS: usize = 3;

/// The running account of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    accepted: u64,
    busy: u64,
    stalled: [u64; STALLS],
}

crate::state!(struct Usage { accepted, busy, stalled });

/// A stage's account over some cycles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UsageStats {
    /// Items accepted.
    pub accepted: u64,
    /// Cycles taken by accepted items.
    pub busy_cycles: u64,
    /// Cycles stalled because the next stage had no room.
    pub stalled_output_cycles: u64,
    /// Cycles stalled for want of tags, descriptors or slots.
    pub stalled_resource_cycles: u64,
    /// Cycles stalled waiting for host memory.
    pub stalled_memory_cycles: u64,
    /// The other cycles.
    pub idle_cycles: u64,
}

impl Usage {
    /// An item was accepted and takes `cycles`.
    #[inline]
    pub fn accept(&mut self, cycles: u64) {
        self.accepted += 1;
        self.busy += cycles;
    }

    /// This cycle was lost.
    #[inline]
    pub fn stall(&mut self, why: Stall) {
        self.stalled[why as usize] += 1;
    }

    /// `cycles` cycles were lost; for waits that begin and end with an event.
    #[inline]
    pub fn stall_for(&mut self, why: Stall, cycles: u64) {
        self.stalled[why as usize] += cycles;
    }

    /// Items accepted so far.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// The account over the cycles before `now`.
    pub fn stats(&self, now: Cycles) -> UsageStats {
        let [output, resource, memory] = self.stalled;
        let busy = self.busy.min(now.0);
        UsageStats {
            accepted: self.accepted,
            busy_cycles: busy,
            stalled_output_cycles: output,
            stalled_resource_cycles: resource,
            stalled_memory_cycles: memory,
            idle_cycles: now.0.saturating_sub(busy + output + resource + memory),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_the_cycles() {
        let mut u = Usage::default();
        u.accept(4);
        u.stall(Stall::Output);
        u.stall(Stall::Memory);
        let s = u.stats(Cycles(10));
        assert_eq!((s.busy_cycles, s.stalled_output_cycles, s.stalled_memory_cycles), (4, 1, 1));
        assert_eq!(s.idle_cycles, 4);
    }
}
