//! What a command's completion means for the operation it was part of.

use device::DeviceBacking;
use flow::FlowId;
use offload::{FlowRule, HwHandle, OffloadError, OpId, OpResult, Reject};
use simnic_defs::cmd::{TABLE_EXACT, TABLE_TERNARY};
use simnic_defs::{CmdCpl, CmdStatus};

use crate::capability::{EXACT_NAME, TERNARY_NAME, table_id};
use crate::profiles::ProfileId;
use crate::provider::{Entry, Job, SimnicProvider};
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
            Job::Install { op, rule, profile, full } => self.installed(op, rule, (profile, full), c, status),
            Job::Replace { op, handle, rule } => self.replaced(op, handle, rule, c, status),
            Job::Remove { op, handle, flow, rejected } => {
                self.removed(op, handle, (flow, rejected), c, status)
            }
            Job::Profile(p) if status != CmdStatus::Ok => self.profiles.forget(p),
            Job::Sync => self.answer = Some((*c, status)),
            Job::Profile(_) | Job::Void => {}
        }
    }

    fn installed(
        &mut self,
        op: OpId,
        rule: Box<FlowRule>,
        (profile, full): (Option<ProfileId>, Option<Reject>),
        c: &CmdCpl,
        status: CmdStatus,
    ) {
        let flow = rule.id;
        let table = if profile.is_some() { TABLE_EXACT } else { TABLE_TERNARY };
        if status == CmdStatus::Ok {
            let handle = self.new_handle();
            let hw = c.entry.get();
            if let Some(lost) = self.by_hw.insert((table, hw), handle) {
                // The device gave the name of a living entry away: it is that of the new one from now on.
                self.entries.remove(&lost);
                Violation::CmdShape.count(&self.life);
            }
            self.entries.insert(handle, Entry { rule, table, hw, profile });
            return self.finish(op, flow, OpResult::Installed(handle, table_id(table)));
        }
        match profile {
            Some(p) => self.profiles.release(p),
            None => self.ternary_used = self.ternary_used.saturating_sub(1),
        }
        let device = |errno| Reject::Device {
            errno,
            attribute: String::new(),
            text: format!("{status:?}, detail {}", c.detail.get()),
        };
        let result = match status {
            CmdStatus::BucketFull | CmdStatus::TableFull if profile.is_some() => {
                let entries = self.by_hw.keys().filter(|(t, _)| *t == TABLE_EXACT).count();
                return self.install(op, rule, Some(Reject::TableFull { table: EXACT_NAME, entries }));
            }
            CmdStatus::TableFull => {
                let entries = self.ternary_used;
                let r = full.unwrap_or(Reject::TableFull { table: TERNARY_NAME, entries });
                OpResult::Rejected(r, None)
            }
            CmdStatus::Exists => OpResult::Rejected(device(EEXIST), None),
            CmdStatus::BadKey | CmdStatus::BadAction | CmdStatus::BadPort => {
                OpResult::Rejected(device(EINVAL), None)
            }
            _ => OpResult::Failed { error: broken(c, status), left: None, last: None },
        };
        self.finish(op, flow, result);
    }

    fn replaced(&mut self, op: OpId, handle: HwHandle, rule: Box<FlowRule>, c: &CmdCpl, status: CmdStatus) {
        let flow = rule.id;
        let result = match status {
            CmdStatus::Ok => {
                let stats = self.raw_stats(c.packets.get(), c.bytes.get(), c.age_ns.get());
                if let Some(e) = self.entries.get_mut(&handle) {
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
                let stats = self.raw_stats(c.packets.get(), c.bytes.get(), c.age_ns.get());
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
        if let Some(e) = self.entries.remove(&handle) {
            self.by_hw.remove(&(e.table, e.hw));
            match e.profile {
                Some(p) => self.profiles.release(p),
                None => self.ternary_used = self.ternary_used.saturating_sub(1),
            }
        }
    }
}
