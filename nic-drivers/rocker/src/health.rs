//! When the device is given up, and how it comes back.
//!
//! A command past its deadline, registers that read all ones, a fatal error reported by the platform, a completion that is
//! not the command's, or too many violations: every operation under way fails with nothing left, every handle is void, the
//! generation rises, queues say [`device::IoError::Down`], and the device is reset and brought up again.

use device::DeviceBacking;
use offload::{OffloadError, OpResult};
use rocker_defs::regs::{ALL_ONES, PORT_PHYS_COUNT, RING_CMD, RingReg, ring_reg};

use crate::bring_up::read;
use crate::provider::RockerProvider;

impl<B: DeviceBacking> RockerProvider<B> {
    /// Gives the device up when it deserves it.
    pub(crate) fn check(&mut self) {
        if self.recovery.is_down() {
            return;
        }
        if let Some(why) = self.recovery.complaint(&self.life, self.backing.errors()) {
            return self.fail(why);
        }
        if !self.recovery.look(self.backing.now()) {
            return;
        }
        match (read(&self.regs, PORT_PHYS_COUNT), read(&self.regs, ring_reg(RING_CMD, RingReg::Size))) {
            (ALL_ONES, _) => self.fail("registers read all ones".into()),
            (_, 0) => self.fail("it has reset itself".into()),
            (n, _) if n == u32::from(self.n_ports) => {}
            (n, _) => self.fail(format!("it has {n} ports, and had {}", self.n_ports)),
        }
    }

    /// Gives the device up.
    pub(crate) fn fail(&mut self, why: String) {
        if !self.recovery.fail(self.backing.name(), &self.life, why, self.backing.now()) {
            return;
        }
        if let Some(job) = self.job.take() {
            self.finish(job.op, job.flow, OpResult::Failed { error: self.why(), left: None, last: None });
        }
        self.refuse_queue();
        self.entries.clear();
        self.groups.clear();
        self.shared.clear();
        self.inserted.clear();
    }

    fn why(&self) -> OffloadError {
        OffloadError::DeviceDown(self.recovery.why().unwrap_or_default().to_owned())
    }

    /// Answers what was submitted to a device that is down.
    pub(crate) fn refuse_queue(&mut self) {
        let error = self.why();
        let entries = &self.entries;
        self.ops.refuse(&error, |h| entries.get(&h).map(|e| e.rule.id).unwrap_or_default());
    }

    pub(crate) fn recover(&mut self) {
        let result = self.reset_and_restart();
        let (now, name) = (self.backing.now(), self.backing.name());
        match result {
            Ok(()) => self.recovery.came_back(name, &self.life, self.backing.errors(), now),
            Err(e) => self.recovery.stays_down(name, e.to_string(), now),
        }
    }
}
