//! When the device is given up, and how it comes back.
//!
//! A command overdue, registers that read all ones, a fatal status, a ring that has stopped, a fatal error reported by the
//! platform, or too many violations; the rest is [`device::driver::Recovery`]'s.
//!
//! Going down, outstanding operations fail with nothing left, every handle is void, the generation rises and queues report
//! [`device::IoError::Down`]. The first attempt to come back follows at once, in the same poll, so that the failures are
//! reported when the tables really are empty. Coming up, queues take their buffers back and start anew by themselves.

use device::{DeviceBacking, RegOffset, Registers};
use offload::{OffloadError, OpResult};
use simnic_defs::Reg;
use simnic_defs::regs::{ALL_ONES, fault, status};

use crate::bring_up::read;
use crate::provider::SimnicProvider;
use crate::violation::ViolationCounts;

impl<B: DeviceBacking> SimnicProvider<B> {
    /// The device, for tests that reach around the driver.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// What the device did against its datasheet so far.
    pub fn violations(&self) -> ViolationCounts {
        ViolationCounts::of(&self.life)
    }

    /// Gives the device up when it deserves it.
    pub(crate) fn check(&mut self) {
        let now = self.backing.now();
        if let Some(op) = self.cmd.overdue(now) {
            return self.fail(format!("{op:?} command not completed within {:?}", self.config.cmd_timeout));
        }
        if let Some(why) = self.recovery.complaint(&self.life, self.backing.errors()) {
            return self.fail(why);
        }
        if !self.recovery.look(now) {
            return;
        }
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
        if self.recovery.fail(self.backing.name(), &self.life, why, self.backing.now()) {
            self.tables_lost();
        }
    }

    fn tables_lost(&mut self) {
        let why = self.recovery.why().unwrap_or_default().to_owned();
        for job in self.cmd.abandon() {
            if let Some((op, flow)) = job.op() {
                let error = OffloadError::DeviceDown(why.clone());
                self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
            }
        }
        self.in_flight = 0;
        self.forget_entries();
        self.meters.clear();
        self.connections.clear();
    }

    /// Forgets what is in the tables: they are empty.
    pub(crate) fn forget_entries(&mut self) {
        self.entries.clear();
        self.profiles.clear();
        self.templates.clear();
        self.headers.clear();
        self.groups.clear();
        if let Some(c) = &mut self.counters {
            c.forget();
        }
        self.used = [0; 4];
    }

    /// An outstanding operation's job was made void.
    pub(crate) fn op_voided(&mut self) {
        self.in_flight -= 1;
    }

    pub(crate) fn recover(&mut self) {
        let result = self.reset_and_restart();
        let (now, name) = (self.backing.now(), self.backing.name());
        match result {
            Ok(()) => self.recovery.came_back(name, &self.life, self.backing.errors(), now),
            Err(e) => {
                drop(self.cmd.abandon());
                self.recovery.stays_down(name, e.to_string(), now);
            }
        }
    }
}
