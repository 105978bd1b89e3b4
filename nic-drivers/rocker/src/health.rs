//! When the device is given up, and how it comes back.
//!
//! A command past its deadline, registers that read all ones, a fatal error reported by the platform, a completion that is
//! not the command's, or too many violations: every operation under way fails with nothing left, every handle is void, the
//! generation rises, queues say [`device::IoError::Down`], and the device is reset and brought up again.

use device::DeviceBacking;
use offload::{FlowOp, OffloadError, OpResult};
use rocker_defs::regs::{ALL_ONES, PORT_PHYS_COUNT};

use crate::bring_up::read;
use crate::provider::RockerProvider;

/// log2 of how many times [`crate::RockerConfig::retry_after`] the longest time between attempts is.
const MAX_BACKOFF_LOG2: u32 = 4;

impl<B: DeviceBacking> RockerProvider<B> {
    /// Gives the device up when it deserves it.
    pub(crate) fn check(&mut self) {
        let now = self.backing.now();
        if self.down.is_some() {
            return;
        }
        let violations = self.life.violation_total() - self.violations_before;
        if violations > self.config.violation_limit {
            return self.fail(format!("{violations} violations of its interface"));
        }
        if now < self.next_check {
            return;
        }
        self.next_check = now + self.config.health_interval;
        if self.backing.errors().fatal() > self.fatal_before {
            return self.fail("the platform reports a fatal error".into());
        }
        match read(&self.regs, PORT_PHYS_COUNT) {
            ALL_ONES => self.fail("registers read all ones".into()),
            n if n == u32::from(self.n_ports) => {}
            n => self.fail(format!("it has {n} ports, and had {}", self.n_ports)),
        }
    }

    /// Gives the device up.
    pub(crate) fn fail(&mut self, why: String) {
        if self.down.is_some() {
            return;
        }
        tracing::warn!(device = self.backing.name(), why, "device failed");
        self.life.down();
        self.generation += 1;
        self.down = Some(why);
        self.retry_at = self.backing.now();
        if let Some(job) = self.job.take() {
            self.finish(job.op, job.flow, OpResult::Failed { error: self.why(), left: None, last: None });
        }
        self.refuse_queue();
        self.entries.clear();
        self.groups.clear();
    }

    fn why(&self) -> OffloadError {
        OffloadError::DeviceDown(self.down.clone().unwrap_or_default())
    }

    /// Answers what was submitted to a device that is down.
    pub(crate) fn refuse_queue(&mut self) {
        while let Some(op) = self.queue.pop_front() {
            let (id, flow) = match op {
                FlowOp::Install(id, r) | FlowOp::Replace(id, _, r) => (id, r.id),
                FlowOp::Remove(id, h) => (id, self.entries.get(&h).map(|e| e.rule.id).unwrap_or_default()),
            };
            self.finish(id, flow, OpResult::Failed { error: self.why(), left: None, last: None });
        }
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
            Err(e) => {
                let why = e.to_string();
                tracing::debug!(device = self.backing.name(), error = why, "device stays down");
                self.down = Some(why);
                self.retry_at =
                    now + self.config.retry_after * (1 << self.failed_attempts.min(MAX_BACKOFF_LOG2));
                self.failed_attempts = self.failed_attempts.saturating_add(1);
            }
        }
    }
}
