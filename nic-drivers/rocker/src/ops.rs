//! Operations as lists of commands, and what becomes of each.

use std::collections::VecDeque;

use device::DeviceBacking;
use flow::FlowId;
use offload::{FlowOp, FlowRule, HwHandle, OffloadError, OpId, OpResult, RawStats, Reject, TableId};
use rocker_defs::Tlvs;
use rocker_defs::cmd::{command, errno, group, of_dpa as t, table};
use rocker_defs::tlv::{number, read_tlvs};

use crate::capability::ACL_NAME;
use crate::lower::{AclMatch, lower};
use crate::provider::{Entry, RockerProvider};

/// Priority of flow records; they never overlap.
const RECORD_PRIORITY: u32 = 100;

/// A command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// Counters, before they go.
    Stats,
    GroupAdd(u32),
    GroupDel(u32),
    FlowAdd,
    FlowMod,
    FlowDel,
}

/// What a job is for.
#[derive(Debug)]
enum Kind {
    Install(FlowRule),
    Replace(FlowRule),
    /// Of a replacement that was refused, with why.
    Remove(Option<Reject>),
}

/// An operation under way.
#[derive(Debug)]
pub(crate) struct Job {
    pub op: OpId,
    pub flow: FlowId,
    pub handle: HwHandle,
    kind: Kind,
    matches: Option<AclMatch>,
    /// The group that the entry is to name.
    group: Option<u32>,
    pub steps: VecDeque<Step>,
    /// The command that was issued last.
    now: Option<Step>,
    /// Packets that the entry had counted.
    last_packets: u64,
    /// How it ended, when that is known before the last step.
    verdict: Option<OpResult>,
}

impl Job {
    fn new(op: OpId, handle: HwHandle, flow: FlowId, kind: Kind) -> Self {
        let steps = VecDeque::new();
        Job {
            op,
            flow,
            handle,
            kind,
            matches: None,
            group: None,
            steps,
            now: None,
            last_packets: 0,
            verdict: None,
        }
    }

    /// A removal without steps yet.
    pub(crate) fn removal(op: OpId, handle: HwHandle, flow: FlowId) -> Self {
        Job::new(op, handle, flow, Kind::Remove(None))
    }
}

impl<B: DeviceBacking> RockerProvider<B> {
    /// Why `rule` does not fit, or what it is to the device. Of several obstacles, the one that the capabilities name.
    fn lowered(&mut self, rule: &FlowRule) -> Result<(AclMatch, Option<u32>, Vec<u32>), Reject> {
        let caps = offload::OffloadProvider::capabilities(self);
        caps.validate(rule)?;
        let l = lower(rule, &self.config.ports)?;
        let full = |_| Reject::TableFull { table: "groups", entries: self.config.max_flows };
        match self.groups.for_legs(&l.legs).map_err(full)? {
            Some((id, add)) => Ok((l.matches, Some(id), add)),
            None => Ok((l.matches, None, Vec::new())),
        }
    }

    /// Starts an operation.
    pub(crate) fn begin(&mut self, op: FlowOp) {
        match op {
            FlowOp::Install(op, rule) => {
                let table = ACL_NAME;
                let full = Reject::TableFull { table, entries: self.config.max_flows };
                let room = self.entries.len() < self.config.max_flows;
                match self.lowered(&rule) {
                    Err(r) => self.finish(op, rule.id, OpResult::Rejected(r, None)),
                    Ok((_, group, _)) if !room => {
                        group.iter().for_each(|g| self.groups.release(*g, &mut Vec::new()));
                        self.finish(op, rule.id, OpResult::Rejected(full, None));
                    }
                    Ok((matches, group, add)) => {
                        let handle = self.new_handle();
                        let mut job = Job::new(op, handle, rule.id, Kind::Install(rule));
                        (job.matches, job.group) = (Some(matches), group);
                        job.steps = add.into_iter().map(Step::GroupAdd).chain([Step::FlowAdd]).collect();
                        self.job = Some(job);
                    }
                }
            }
            FlowOp::Replace(op, handle, rule) => self.begin_replace(op, handle, rule),
            FlowOp::Remove(op, handle) => {
                let Some(e) = self.entries.get(&handle) else {
                    return self.no_entry(op, FlowId::default(), handle);
                };
                let mut job = Job::removal(op, handle, e.rule.id);
                self.plan_removal(&mut job, handle);
                self.job = Some(job);
            }
        }
    }

    fn no_entry(&mut self, op: OpId, flow: FlowId, handle: HwHandle) {
        let error = OffloadError::NoSuchEntry(handle);
        self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
    }

    fn begin_replace(&mut self, op: OpId, handle: HwHandle, rule: FlowRule) {
        let Some(e) = self.entries.get(&handle) else {
            return self.no_entry(op, rule.id, handle);
        };
        if e.rule.matches != rule.matches {
            let error = OffloadError::Device("a replacement must have the same match".into());
            return self.finish(op, rule.id, OpResult::Failed { error, left: Some(handle), last: None });
        }
        let flow = rule.id;
        match self.lowered(&rule) {
            Ok((matches, group, add)) => {
                let mut job = Job::new(op, handle, flow, Kind::Replace(rule));
                (job.matches, job.group) = (Some(matches), group);
                job.steps = add.into_iter().map(Step::GroupAdd).chain([Step::FlowMod]).collect();
                self.job = Some(job);
            }
            // The old actions are no longer right: the entry goes, and packets with it to software.
            Err(r) => {
                let mut job = Job::new(op, handle, flow, Kind::Remove(Some(r)));
                self.plan_removal(&mut job, handle);
                self.job = Some(job);
            }
        }
    }

    /// The steps that remove entry `h`, whose group has one user less from here on.
    pub(crate) fn plan_removal(&mut self, job: &mut Job, h: HwHandle) {
        let mut gone = Vec::new();
        if let Some(g) = self.entries.get_mut(&h).and_then(|e| e.group.take()) {
            self.groups.release(g, &mut gone);
        }
        let stats = (!self.config.quirks.no_flow_counters).then_some(Step::Stats);
        let gone = gone.into_iter().map(Step::GroupDel);
        job.steps = stats.into_iter().chain([Step::FlowDel]).chain(gone).collect();
    }

    /// A step concerning entry `handle` as a command; of the job under way, when it adds or changes.
    pub(crate) fn encode(&self, step: &Step, handle: HwHandle) -> (u16, Tlvs) {
        let cookie = handle.0;
        match step {
            Step::GroupAdd(id) => (command::GROUP_ADD, self.groups.encode(*id)),
            Step::GroupDel(id) => (command::GROUP_DEL, Tlvs::new().u32(t::GROUP_ID, *id)),
            Step::Stats => (command::FLOW_GET_STATS, Tlvs::new().u64(t::COOKIE, cookie)),
            Step::FlowDel => (command::FLOW_DEL, Tlvs::new().u64(t::COOKIE, cookie)),
            Step::FlowAdd | Step::FlowMod => {
                let job = self.job.as_ref();
                let tlvs = Tlvs::new()
                    .u16(t::TABLE_ID, table::ACL_POLICY)
                    .u32(t::PRIORITY, RECORD_PRIORITY)
                    .u32(t::HARDTIME, 0)
                    .u64(t::COOKIE, cookie);
                let tlvs = match job.and_then(|j| j.matches.as_ref()) {
                    Some(m) => m.encode(tlvs),
                    None => tlvs,
                };
                let id = job.and_then(|j| j.group).unwrap_or(group::NONE);
                let add = *step == Step::FlowAdd;
                let command = if add { command::FLOW_ADD } else { command::FLOW_MOD };
                (command, tlvs.u32(t::GROUP_ID, id))
            }
        }
    }

    /// Issues the next step of the job, or ends it.
    pub(crate) fn next_step(&mut self) {
        let next = self.job.as_mut().and_then(|j| j.steps.pop_front().map(|s| (s, j.handle)));
        let Some((step, handle)) = next else {
            return self.end_job();
        };
        let (command, info) = self.encode(&step, handle);
        let due = self.due();
        if let Some(j) = self.job.as_mut() {
            j.now = Some(step);
        }
        if !self.cmd.submit(command, &info, due) {
            // A command that is too long: refused here as the device would refuse it.
            self.step_done(errno::EMSGSIZE, &[]);
        }
    }

    /// The step under way is done.
    pub(crate) fn step_done(&mut self, errno: u16, answer: &[u8]) {
        let Some((mut job, step)) = self.job.take().and_then(|mut j| j.now.take().map(|s| (j, s))) else {
            return;
        };
        if errno == 0 {
            match step {
                Step::Stats => job.last_packets = packets_of(answer).unwrap_or(0),
                Step::GroupAdd(id) => self.groups.is_there(id),
                Step::FlowDel => {
                    self.entries.remove(&job.handle);
                }
                Step::FlowAdd => {
                    if let Kind::Install(rule) = &job.kind {
                        self.entries.insert(job.handle, Entry { rule: rule.clone(), group: job.group });
                    }
                    job.verdict = Some(OpResult::Installed(job.handle, TableId(table::ACL_POLICY)));
                }
                Step::FlowMod => self.replaced(&mut job),
                Step::GroupDel(_) => {}
            }
        } else {
            self.refused(&mut job, step, errno);
        }
        self.job = Some(job);
    }

    /// The entry does the new actions: the old group has one user less.
    fn replaced(&mut self, job: &mut Job) {
        let mut gone = Vec::new();
        if let (Kind::Replace(rule), Some(e)) = (&job.kind, self.entries.get_mut(&job.handle)) {
            let old = std::mem::replace(&mut e.group, job.group);
            e.rule = rule.clone();
            old.iter().for_each(|g| self.groups.release(*g, &mut gone));
        }
        job.steps.extend(gone.into_iter().map(Step::GroupDel));
        job.verdict = Some(OpResult::Replaced(job.handle, None));
    }

    /// The device refused a step.
    fn refused(&mut self, job: &mut Job, step: Step, code: u16) {
        tracing::debug!(device = self.backing.name(), step = step.what(), errno = code, "refused");
        let reject = || match code {
            errno::ENOSPC => Reject::TableFull { table: ACL_NAME, entries: self.entries.len() },
            _ => Reject::Device {
                errno: code.into(),
                attribute: format!("table {ACL_NAME}"),
                text: step.what().to_owned(),
            },
        };
        match (step, &job.kind) {
            (Step::GroupAdd(_) | Step::FlowAdd | Step::FlowMod, Kind::Install(_)) => {
                job.verdict = Some(OpResult::Rejected(reject(), None));
                self.undo(job);
            }
            (Step::GroupAdd(_) | Step::FlowAdd | Step::FlowMod, _) => {
                // The old entry is wrong now; it goes, and its groups with it.
                let why = reject();
                self.undo(job);
                let undo = std::mem::take(&mut job.steps);
                self.plan_removal(job, job.handle);
                job.steps.extend(undo);
                job.kind = Kind::Remove(Some(why));
            }
            (Step::Stats, _) => {}
            (Step::FlowDel, _) if code == errno::ENOENT => {
                // It is not there, which is what was wanted; that it should have been is the device's doing.
                crate::life::Violation::Command.count(&self.life);
                self.entries.remove(&job.handle);
            }
            (Step::FlowDel, _) => {
                // Its groups stay with it.
                job.steps.clear();
                let error = OffloadError::Device(format!("flow delete: errno {code}"));
                job.verdict = Some(OpResult::Failed { error, left: Some(job.handle), last: None });
            }
            // A group that stays takes room, no more; nothing refers to it.
            (Step::GroupDel(_), _) => crate::life::Violation::Command.count(&self.life),
        }
    }

    /// Takes back the groups of an entry that did not come about.
    fn undo(&mut self, job: &mut Job) {
        let mut gone = Vec::new();
        job.group.take().iter().for_each(|g| self.groups.release(*g, &mut gone));
        job.steps = gone.into_iter().map(Step::GroupDel).collect();
    }

    fn end_job(&mut self) {
        let Some(job) = self.job.take() else {
            return;
        };
        let last = RawStats { packets: job.last_packets, ..RawStats::default() };
        let result = match (job.verdict, job.kind) {
            (Some(v), _) => v,
            (None, Kind::Remove(Some(r))) => OpResult::Rejected(r, Some(last)),
            (None, _) => OpResult::Removed(job.handle, last),
        };
        self.finish(job.op, job.flow, result);
    }
}

/// The packets in an answer to FLOW_GET_STATS.
pub(crate) fn packets_of(answer: &[u8]) -> Option<u64> {
    number::<8>(&read_tlvs(answer).ok()?, t::STAT_RX_PKTS)
}
