//! What a command's completion means for the operation it was part of.

use device::DeviceBacking;
use flow::FlowId;
use offload::{HwHandle, OffloadError, OpId, OpResult, PackedRule, Reject};
use simnic_defs::cmd::TABLE_TERNARY;
use simnic_defs::{CmdCpl, CmdStatus};

use crate::capability::{table_id, table_name};
use crate::entries::Entry;
use crate::holds::Holds;
use crate::provider::{Job, SimnicProvider};
use crate::violation::Violation;

/// `EEXIST`.
const EEXIST: i32 = 17;
/// `EINVAL`.
const EINVAL: i32 = 22;

/// Words for a status that the driver did not expect.
fn broken(c: &CmdCpl, status: CmdStatus) -> OffloadError {
    OffloadError::Device(format!("{status:?}, detail {}", c.detail.get()))
}

impl<B: DeviceBacking> SimnicProvider<B> {
    /// Ends what `job` was part of.
    pub(crate) fn complete(&mut self, job: Job, c: &CmdCpl, status: CmdStatus) {
        match job {
            Job::Install { op, rule, table, holds, full } => {
                self.installed((op, rule, full), (table, holds), c, status)
            }
            Job::Replace { op, handle, rule, holds } => self.replaced(op, handle, (rule, holds), c, status),
            Job::Remove { op, handle, flow, rejected } => {
                self.removed(op, handle, (flow, rejected), c, status)
            }
            Job::Program(what) if status != CmdStatus::Ok => self.forget_shared(what),
            Job::Sync => self.answer = Some((*c, status)),
            Job::Program(_) | Job::Void => {}
        }
    }

    fn installed(
        &mut self,
        (op, rule, full): (OpId, PackedRule, Option<Reject>),
        (table, holds): (u8, Holds),
        c: &CmdCpl,
        status: CmdStatus,
    ) {
        let flow = rule.id;
        if status == CmdStatus::Ok {
            let hw = c.entry.get();
            let Some((handle, lost)) = self.entries.insert(Entry { rule, table, hw, holds }) else {
                self.let_go(table, holds);
                let error = OffloadError::Device("more entries than can be named".into());
                return self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
            };
            if lost {
                // The device gave the name of a living entry away: it is that of the new one from now on.
                Violation::CmdShape.count(&self.life);
            }
            if let Some(before) = self.counters.as_mut().and_then(|c| c.claim(table, hw))
                && let Some(e) = self.entries.evicted(handle)
            {
                *e = before;
            }
            return self.finish(op, flow, OpResult::Installed(handle, table_id(table)));
        }
        self.let_go(table, holds);
        let device = |errno| Reject::Device {
            errno,
            attribute: String::new(),
            text: format!("{status:?}, detail {}", c.detail.get()),
        };
        let result = match status {
            CmdStatus::BucketFull | CmdStatus::TableFull => {
                let entries = self.entries.in_table(table);
                let r = full.unwrap_or(Reject::TableFull { table: table_name(table), entries });
                if table != TABLE_TERNARY {
                    return self.install(op, &rule.expand(), Some(table), Some(r));
                }
                OpResult::Rejected(r, None)
            }
            CmdStatus::Exists => OpResult::Rejected(device(EEXIST), None),
            CmdStatus::BadKey | CmdStatus::BadAction | CmdStatus::BadPort | CmdStatus::BadObject => {
                OpResult::Rejected(device(EINVAL), None)
            }
            _ => OpResult::Failed { error: broken(c, status), left: None, last: None },
        };
        self.finish(op, flow, result);
    }

    fn replaced(
        &mut self,
        op: OpId,
        handle: HwHandle,
        (rule, holds): (PackedRule, Holds),
        c: &CmdCpl,
        status: CmdStatus,
    ) {
        let flow = rule.id;
        // Of what it held and what it was to hold, that which the entry does not have any more, or did not get.
        let unused = match self.entries.get_mut(handle) {
            Some(e) if status == CmdStatus::Ok => {
                let profile = e.holds.profile;
                std::mem::replace(&mut e.holds, Holds { profile, ..holds })
            }
            _ => holds,
        };
        self.release(unused);
        let result = match status {
            CmdStatus::Ok => {
                let stats = self.last_stats(handle, c);
                if let Some(e) = self.entries.get_mut(handle) {
                    e.rule = rule;
                }
                OpResult::Replaced(handle, Some(stats))
            }
            CmdStatus::NoEntry => {
                self.drop_entry(handle);
                OpResult::Failed { error: OffloadError::NoSuchEntry(handle), left: None, last: None }
            }
            _ => OpResult::Failed { error: broken(c, status), left: Some(handle), last: None },
        };
        self.finish(op, flow, result);
    }

    fn removed(
        &mut self,
        op: OpId,
        handle: HwHandle,
        (flow, rejected): (FlowId, Option<Reject>),
        c: &CmdCpl,
        status: CmdStatus,
    ) {
        let result = match (status, rejected) {
            (CmdStatus::Ok, rejected) => {
                let stats = self.last_stats(handle, c);
                self.drop_entry(handle);
                match rejected {
                    Some(r) => OpResult::Rejected(r, Some(stats)),
                    None => OpResult::Removed(handle, stats),
                }
            }
            (CmdStatus::NoEntry, _) => {
                self.drop_entry(handle);
                OpResult::Failed { error: OffloadError::NoSuchEntry(handle), left: None, last: None }
            }
            _ => OpResult::Failed { error: broken(c, status), left: Some(handle), last: None },
        };
        self.finish(op, flow, result);
    }

    fn drop_entry(&mut self, handle: HwHandle) {
        if let Some(e) = self.entries.remove(handle) {
            self.let_go(e.table, e.holds);
        }
    }
}
