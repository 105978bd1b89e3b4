//! The command ring (SPEC 7): descriptors out, completions in, nothing believed.
//!
//! ```text
//!   submit ──► slot (tag = slot | use << 16) ──► descriptor, payload ──kick──► device
//!   next   ◄── the slot's job ◄── tag, opcode, status checked ◄── completion
//! ```
//!
//! A command has a *slot*: a place for its payload in DMA memory and for the caller's job. The tag names slot and use, so a
//! completion that comes twice, or was never asked for, is told from a true one and counted. Many commands go out with
//! one doorbell. Every command has a deadline; the caller asks [`CmdRing::overdue`] and gives the device up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use clock::{Deadline, Instant};
use device::driver::Lifeline;
use device::{DmaMemory, Iova, RegOffset, Registers};
use simnic_defs::regs::queue_ctrl;
use simnic_defs::ring::FLAG_GEN;
use simnic_defs::{CmdCpl, CmdDesc, CmdStatus, DumpRecord, FlowEntry, Opcode, Reg, gen_of, slot_of};
use zerocopy::IntoBytes;

use crate::violation::Violation;

/// Bytes of a payload slot: the largest payload.
const PAYLOAD_BYTES: usize = FlowEntry::BYTES;

struct Slot<J> {
    /// How often the slot was used; upper half of the tag.
    uses: u16,
    job: Option<(Opcode, J)>,
}

/// Size of the area that READ_STATS and DUMP write to, in bytes.
const RECORD_AREA_BYTES: usize = 64 * DumpRecord::BYTES;

/// Memory that a ring of `1 << log2` commands needs.
pub(crate) const fn cmd_bytes(log2: u8) -> usize {
    ((CmdDesc::BYTES + CmdCpl::BYTES + PAYLOAD_BYTES) << log2) + RECORD_AREA_BYTES
}

/// See the module's text. `J` is what the caller wants back with a completion.
pub(crate) struct CmdRing<R: Registers, J> {
    regs: R,
    life: Arc<Lifeline>,
    mem: DmaMemory,
    iova: Iova,
    log2: u8,
    max_records: usize,
    tail: u32,
    rung: u32,
    head: u32,
    slots: Vec<Slot<J>>,
    free: Vec<u16>,
    /// Deadlines in the order of submission, with the tags they belong to.
    deadlines: VecDeque<(Deadline, u32)>,
}

impl<R: Registers, J> CmdRing<R, J> {
    /// A ring in `mem` (of [`cmd_bytes`]), which the device sees at `iova`; not yet programmed.
    pub fn new(
        regs: R,
        life: Arc<Lifeline>,
        mem: DmaMemory,
        iova: Iova,
        log2: u8,
        max_records: usize,
    ) -> Self {
        let n = 1u16 << log2;
        CmdRing {
            regs,
            life,
            mem,
            iova,
            log2,
            max_records,
            tail: 0,
            rung: 0,
            head: 0,
            slots: (0..n).map(|_| Slot { uses: 0, job: None }).collect(),
            free: (0..n).rev().collect(),
            deadlines: VecDeque::new(),
        }
    }

    fn cq_offset(&self) -> usize {
        CmdDesc::BYTES << self.log2
    }

    fn payload_offset(&self, slot: u16) -> usize {
        ((CmdDesc::BYTES + CmdCpl::BYTES) << self.log2) + usize::from(slot) * PAYLOAD_BYTES
    }

    fn records_offset(&self) -> usize {
        (CmdDesc::BYTES + CmdCpl::BYTES + PAYLOAD_BYTES) << self.log2
    }

    /// Fills the ring with ones, programs it and enables it. No command may be outstanding, and the device must have been
    /// reset since the ring last ran.
    pub fn start(&mut self, vector: u16) {
        self.mem.fill(0, self.records_offset(), 0xff);
        (self.tail, self.rung, self.head) = (0, 0, 0);
        let w = |r: Reg| RegOffset(r.0);
        self.regs.write64(w(Reg::CMD_SQ_BASE), self.iova.0);
        self.regs.write64(w(Reg::CMD_CQ_BASE), self.iova.offset(self.cq_offset()).0);
        self.regs.write32(w(Reg::CMD_LOG2), self.log2.into());
        self.regs.write32(w(Reg::CMD_VECTOR), vector.into());
        self.regs.write32(w(Reg::CMD_CTRL), queue_ctrl::ENABLE);
    }

    /// Commands submitted and not completed.
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Has `d` write up to `wanted` records of `record_bytes` into the record area, as many as the device and the area allow
    /// at a time; returns how many. One such command at a time.
    pub fn with_record_area(&self, d: &mut CmdDesc, record_bytes: usize, wanted: usize) -> usize {
        let count = wanted.min(self.max_records).min(RECORD_AREA_BYTES / record_bytes).max(1);
        d.addr = self.iova.offset(self.records_offset()).0.into();
        d.len = ((count * record_bytes) as u32).into();
        d.count = (count as u32).into();
        count
    }

    /// Copies record `i`, of `out.len()` bytes, from the record area; zeros beyond it.
    pub fn read_record(&self, i: usize, out: &mut [u8]) {
        match i.checked_mul(out.len()) {
            Some(o) if o + out.len() <= RECORD_AREA_BYTES => self.mem.read(self.records_offset() + o, out),
            _ => out.fill(0),
        }
    }

    /// Changes the jobs of outstanding commands.
    pub fn for_each_job(&mut self, mut f: impl FnMut(&mut J)) {
        for &(_, tag) in &self.deadlines {
            let s = &mut self.slots[usize::from(tag as u16)];
            if s.uses == (tag >> 16) as u16
                && let Some((_, job)) = &mut s.job
            {
                f(job);
            }
        }
    }

    /// Writes a command; the device sees it at the next [`CmdRing::kick`]. A `payload` (at most an entry) is put into the
    /// command's slot and its address into the descriptor. Gives `job` back when the ring is full.
    pub fn submit(&mut self, mut d: CmdDesc, payload: &[u8], job: J, due: Deadline) -> Result<(), J> {
        let Some(slot) = self.free.pop() else { return Err(job) };
        let Ok(op) = Opcode::try_from(d.opcode) else {
            self.free.push(slot);
            return Err(job);
        };
        let s = &mut self.slots[usize::from(slot)];
        s.uses = s.uses.wrapping_add(1);
        s.job = Some((op, job));
        let tag = u32::from(s.uses) << 16 | u32::from(slot);
        d.tag = tag.into();
        if !payload.is_empty() {
            let o = self.payload_offset(slot);
            let len = payload.len().min(PAYLOAD_BYTES);
            self.mem.write(o, &payload[..len]);
            d.addr = self.iova.offset(o).0.into();
            d.len = (len as u32).into();
        }
        d.flags = u32::from(gen_of(self.tail, self.log2)).into();
        let o = slot_of(self.tail, self.log2) as usize * CmdDesc::BYTES;
        self.mem.write(o, &d.as_bytes()[..CmdDesc::FLAGS_OFFSET]);
        self.mem.store32(o + CmdDesc::FLAGS_OFFSET, d.flags.get());
        self.tail = self.tail.wrapping_add(1);
        self.deadlines.push_back((due, tag));
        Ok(())
    }

    /// Rings the doorbell when there is anything new.
    pub fn kick(&mut self) {
        if self.tail != self.rung {
            fence(Ordering::Release);
            self.regs.write32(RegOffset(Reg::CMD_TAIL.0), self.tail);
            self.rung = self.tail;
        }
    }

    /// Asks for the ring's interrupt at the next completion.
    pub fn arm(&self) {
        self.regs.write32(RegOffset(Reg::CMD_ARM.0), self.head);
    }

    /// Whether a completion waits.
    pub fn has_completion(&self) -> bool {
        let o = self.cq_offset() + slot_of(self.head, self.log2) as usize * CmdCpl::BYTES;
        // Acquire: the rest of the completion and the records are read after the generation.
        let flags = self.mem.load32(o + CmdCpl::FLAGS_OFFSET);
        (flags & FLAG_GEN != 0) == gen_of(self.head, self.log2)
    }

    /// The next true completion with its job; counts and passes over those that are not.
    pub fn next(&mut self) -> Option<(J, CmdCpl, CmdStatus)> {
        // A device that writes without end is not followed further than one ring at a time.
        for _ in 0..self.slots.len() {
            if !self.has_completion() {
                return None;
            }
            let mut b = [0u8; CmdCpl::BYTES];
            self.mem.read(self.cq_offset() + slot_of(self.head, self.log2) as usize * CmdCpl::BYTES, &mut b);
            self.head = self.head.wrapping_add(1);
            if let Ok(c) = CmdCpl::decode(&b)
                && let Some(done) = self.claim(c)
            {
                return Some(done);
            }
        }
        None
    }

    fn claim(&mut self, c: CmdCpl) -> Option<(J, CmdCpl, CmdStatus)> {
        let tag = c.tag.get();
        let (slot, uses) = (tag as u16, (tag >> 16) as u16);
        let Some(s) = self.slots.get_mut(usize::from(slot)) else {
            Violation::CmdUnknown.count(&self.life);
            return None;
        };
        match &s.job {
            Some((op, _)) if s.uses == uses => {
                let Ok(status) = CmdStatus::try_from(c.status) else {
                    Violation::CmdShape.count(&self.life);
                    return None;
                };
                if c.opcode != *op as u8 {
                    Violation::CmdShape.count(&self.life);
                    return None;
                }
                let (_, job) = s.job.take()?;
                self.free.push(slot);
                Some((job, c, status))
            }
            // The slot's last use, or the one before it: it was given, and has completed.
            None if s.uses == uses && uses != 0 => {
                Violation::CmdDuplicate.count(&self.life);
                None
            }
            _ if s.uses.wrapping_sub(1) == uses && uses != 0 => {
                Violation::CmdDuplicate.count(&self.life);
                None
            }
            _ => {
                Violation::CmdUnknown.count(&self.life);
                None
            }
        }
    }

    /// The opcode of a command whose deadline has passed.
    pub fn overdue(&mut self, now: Instant) -> Option<Opcode> {
        while let Some(&(due, tag)) = self.deadlines.front() {
            let s = &self.slots[usize::from(tag as u16)];
            match &s.job {
                Some((op, _)) if s.uses == (tag >> 16) as u16 => return due.passed(now).then_some(*op),
                _ => self.deadlines.pop_front(),
            };
        }
        None
    }

    /// Forgets every outstanding command and gives their jobs back, in the order of submission. The device must be reset
    /// before the ring is started again.
    pub fn abandon(&mut self) -> Vec<J> {
        let mut jobs = Vec::new();
        while let Some((_, tag)) = self.deadlines.pop_front() {
            let slot = tag as u16;
            let s = &mut self.slots[usize::from(slot)];
            if s.uses == (tag >> 16) as u16
                && let Some((_, job)) = s.job.take()
            {
                self.free.push(slot);
                jobs.push(job);
            }
        }
        jobs
    }
}
