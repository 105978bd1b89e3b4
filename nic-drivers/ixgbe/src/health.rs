//! When the device is given up, and how it comes back.
//!
//! Registers that read all ones, a command or a queue that takes too long, frames that are not sent, damaged memory, a fatal error that
//! the platform reports, too many violations: every operation under way fails with nothing left, every handle is void, the generation
//! rises, queues say [`device::IoError::Down`], and the device is reset and brought up again. Queues go on by themselves.

use clock::Instant;
use device::{DeviceBacking, RegOffset, Registers};
use ixgbe_defs::bits::{eicr, links, rxctrl};
use ixgbe_defs::{ALL_ONES, regs};
use offload::{OffloadError, OpResult};

use crate::provider::IxgbeProvider;

impl<B: DeviceBacking> IxgbeProvider<B> {
    /// Gives the device up when it deserves it.
    pub(crate) fn check(&mut self) {
        if self.recovery.is_down() {
            return;
        }
        if let Some(why) = self.recovery.complaint(&self.life, self.backing.errors()) {
            return self.fail(why);
        }
        if self.recovery.look(self.backing.now())
            && let Some(why) = self.look()
        {
            self.fail(why);
        }
    }

    fn look(&mut self) -> Option<String> {
        let get = |r: u32| self.regs.read32(RegOffset(r));
        let receive = get(regs::RXCTRL);
        if receive == ALL_ONES {
            return Some("registers read all ones".into());
        }
        if receive & rxctrl::RXEN == 0 {
            return Some("device was reset behind the driver's back".into());
        }
        let causes = get(regs::EICR);
        if causes & eicr::ECC != 0 {
            return Some("the device's memory is damaged".into());
        }
        let link = get(regs::LINKS) & links::UP != 0;
        let now = self.backing.now();
        for (q, (rx, tx)) in self.states.iter().enumerate() {
            let watch = &mut self.watches[q];
            for (starting, since, name) in [
                (rx.is_starting(), &mut watch.rx_starting, "receive"),
                (tx.is_starting(), &mut watch.tx_starting, "transmit"),
            ] {
                *since = starting.then(|| since.unwrap_or(now));
                if since.is_some_and(|s| now.since(s) > self.config.step_timeout) {
                    return Some(format!(
                        "{name} queue {q} is not enabled within {:?}",
                        self.config.step_timeout
                    ));
                }
            }
            // Without a link nothing is sent, and nothing is wrong.
            let oldest = tx.oldest().filter(|_| link);
            watch.stuck = match (oldest, watch.stuck) {
                (Some(at), Some((before, since))) if at == before => Some((at, since)),
                (at, _) => at.map(|at| (at, now)),
            };
            if watch.stuck.is_some_and(|(_, since)| now.since(since) > self.config.tx_timeout) {
                return Some(format!("queue {q} sends nothing within {:?}", self.config.tx_timeout));
            }
        }
        None
    }

    /// Gives the device up.
    pub(crate) fn fail(&mut self, why: String) {
        if !self.recovery.fail(self.backing.name(), &self.life, why, self.backing.now()) {
            return;
        }
        self.watches.fill(Watch::default());
        if let Some(job) = self.job.take() {
            self.finish(job.op, job.flow, OpResult::Failed { error: self.why(), left: None, last: None });
        }
        self.refuse_queue();
        self.forget_filters();
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

/// Since when a queue pair waits for something.
#[derive(Clone, Copy, Default)]
pub(crate) struct Watch {
    rx_starting: Option<Instant>,
    tx_starting: Option<Instant>,
    /// The oldest descriptor that is not sent.
    stuck: Option<(u32, Instant)>,
}
