//! When the device is given up, and how it comes back.
//!
//! ```text
//!   up ──command overdue, all ones, fatal status, ring stopped, too many violations──► down ──reset, bring-up──► up
//!                                                                                   ▲   │ failed: retry_after, doubled each time, at most 16-fold
//!                                                                                   └───┘
//! ```
//!
//! Going down, outstanding operations fail with nothing left, every handle is void, the generation rises and queues report
//! [`device::IoError::Down`]. The first attempt to come back follows at once, in the same poll, so that the failures are
//! reported when the tables really are empty. Coming up, queues take their buffers back and start anew by themselves.

use clock::Instant;
use device::{DeviceBacking, RegOffset, Registers};
use offload::{OffloadError, OpResult};
use simnic_defs::Reg;
use simnic_defs::regs::{ALL_ONES, fault, status};

use crate::bring_up::{BringUpError, read};
use crate::provider::SimnicProvider;

/// log2 of how many times [`crate::SimnicConfig::retry_after`] the longest time between attempts is.
const MAX_BACKOFF_LOG2: u32 = 4;

impl<B: DeviceBacking> SimnicProvider<B> {
    /// Gives the device up when it deserves it.
    pub(crate) fn check(&mut self) {
        let now = self.backing.now();
        if let Some(op) = self.cmd.overdue(now) {
            return self.fail(format!("{op:?} command not completed within {:?}", self.config.cmd_timeout));
        }
        let violations = self.life.violation_total() - self.violations_before;
        if violations > self.config.violation_limit {
            return self.fail(format!("{violations} violations of its interface"));
        }
        if self.backing.errors().fatal() > self.fatal_before {
            return self.fail("the platform reports a fatal error".into());
        }
        if now < self.next_check {
            return;
        }
        self.next_check = now + self.config.health_interval;
        let s = read(&self.regs, Reg::STATUS);
        if s == ALL_ONES {
            return self.fail("registers read all ones".into());
        }
        if s & status::FATAL != 0 {
            let f = read(&self.regs, Reg::FAULT);
            return self.fail(format!("fatal status, fault {f:#x}"));
        }
        if s & status::ENABLED == 0 {
            return self.fail("device was reset behind the driver's back".into());
        }
        let f = read(&self.regs, Reg::FAULT);
        if f & (fault::DMA_READ | fault::BAD_RING | fault::BAD_DOORBELL) != 0 {
            // A ring has stopped, and only a reset starts it again.
            return self.fail(format!("fault {f:#x}"));
        }
        if f != 0 {
            self.regs.write32(RegOffset(Reg::FAULT.0), f);
        }
    }

    /// Gives the device up: every operation fails, every handle is void.
    pub(crate) fn fail(&mut self, why: String) {
        if self.down.is_some() {
            return;
        }
        tracing::warn!(device = self.backing.name(), why, "device failed");
        self.life.down();
        self.generation += 1;
        self.tables_lost(&why);
        self.down = Some(why);
        self.retry_at = self.backing.now();
    }

    fn tables_lost(&mut self, why: &str) {
        for job in self.cmd.abandon() {
            if let Some((op, flow)) = job.op() {
                let error = OffloadError::DeviceDown(why.to_owned());
                self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
            }
        }
        self.in_flight = 0;
        self.forget_entries();
    }

    /// Forgets what is in the tables: they are empty.
    pub(crate) fn forget_entries(&mut self) {
        self.entries.clear();
        self.by_hw.clear();
        self.profiles.clear();
        self.ternary_used = 0;
    }

    /// An outstanding operation's job was made void.
    pub(crate) fn op_voided(&mut self) {
        self.in_flight -= 1;
    }

    pub(crate) fn recover(&mut self) {
        let result = self.reset_and_restart();
        let now = self.backing.now();
        match result {
            Ok(()) => {
                tracing::info!(device = self.backing.name(), "device is back");
                self.down = None;
                self.failed_attempts = 0;
                self.violations_before = self.life.violation_total();
                self.fatal_before = self.backing.errors().fatal();
                self.next_check = now + self.config.health_interval;
                self.life.up();
            }
            Err(e) => self.still_down(e, now),
        }
    }

    fn still_down(&mut self, e: BringUpError, now: Instant) {
        let why = e.to_string();
        if self.down.as_ref() == Some(&why) {
            tracing::debug!(device = self.backing.name(), error = why, "device stays down");
        } else {
            tracing::warn!(device = self.backing.name(), error = why, "device stays down");
        }
        drop(self.cmd.abandon());
        self.down = Some(why);
        // An attempt at a dead device takes its time, which others wait for: ever fewer of them.
        self.retry_at = now + self.config.retry_after * (1 << self.failed_attempts.min(MAX_BACKOFF_LOG2));
        self.failed_attempts = self.failed_attempts.saturating_add(1);
    }
}
