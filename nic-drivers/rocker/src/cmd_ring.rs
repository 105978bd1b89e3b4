//! The command ring: one command at a time, because commands build on each other (an entry on its groups), and because the
//! device answers at once.

use clock::{Deadline, Instant};
use device::{DmaMemory, Iova, Registers};
use rocker_defs::Tlvs;
use rocker_defs::cmd::top;
use rocker_defs::regs::RING_CMD;

use crate::ring::{Ring, ring_bytes};

const LOG2: u8 = 3;
/// Room for a command and its answer: a flood group of 62 members, with some to spare.
pub(crate) const PAYLOAD_BYTES: usize = 2048;

/// What became of the command.
#[derive(Debug)]
pub(crate) enum CmdPoll {
    /// None is under way.
    Idle,
    /// Not yet done.
    Waiting,
    /// Past its deadline.
    Overdue,
    /// Done: errno 0 or what was refused, and the answer.
    Done(u16, Vec<u8>),
    /// The completion is not one of the command.
    Nonsense,
}

pub(crate) struct CmdRing<R: Registers> {
    ring: Ring<R>,
    due: Option<Deadline>,
}

pub(crate) const fn cmd_bytes() -> usize {
    (rocker_defs::Descriptor::BYTES + PAYLOAD_BYTES) << LOG2
}

impl<R: Registers> CmdRing<R> {
    pub(crate) fn new(regs: R, mem: (DmaMemory, Iova)) -> Self {
        debug_assert_eq!(cmd_bytes(), ring_bytes(LOG2, PAYLOAD_BYTES));
        CmdRing { ring: Ring::new(regs, RING_CMD, mem, LOG2, PAYLOAD_BYTES), due: None }
    }

    pub(crate) fn start(&mut self) {
        self.ring.start();
        self.due = None;
    }

    /// Issues a command, when none is under way and it fits; whether it did.
    pub(crate) fn submit(&mut self, command: u16, info: &Tlvs, due: Deadline) -> bool {
        let all = Tlvs::new().u16(top::TYPE, command).nest(top::INFO, info);
        if self.due.is_some() || all.bytes().len() > PAYLOAD_BYTES {
            return false;
        }
        self.ring.post(all.bytes());
        self.ring.doorbell();
        self.due = Some(due);
        true
    }

    /// Whether the command under way is done, or there is none.
    pub(crate) fn is_done(&self) -> bool {
        self.due.is_none() || self.ring.has_completed()
    }

    pub(crate) fn poll(&mut self, now: Instant) -> CmdPoll {
        let Some(due) = self.due else {
            return CmdPoll::Idle;
        };
        let Some((slot, d, ours)) = self.ring.next() else {
            return if due.passed(now) { CmdPoll::Overdue } else { CmdPoll::Waiting };
        };
        self.ring.credit(1);
        self.due = None;
        let mut out = [0; PAYLOAD_BYTES];
        match (self.ring.payload(slot, &d, &mut out), d.status()) {
            (Some(answer), Some(errno)) if ours => CmdPoll::Done(errno, answer.to_vec()),
            _ => CmdPoll::Nonsense,
        }
    }
}
