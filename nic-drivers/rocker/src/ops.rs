//! Operations as lists of commands, and what becomes of each.

use std::collections::VecDeque;

use device::DeviceBacking;
use flow::FlowId;
use offload::{FlowOp, FlowRule, HwHandle, OffloadError, OpId, OpResult, RawStats, Reject};
use rocker_defs::Tlvs;
use rocker_defs::cmd::{command, errno, of_dpa as t, table};
use rocker_defs::tlv::{number, read_tlvs};

use crate::capability::ACL_NAME;
use crate::lower::INTERNAL_VLAN;
use crate::provider::{Entry, Place, RockerProvider};
use crate::shared::{self, Shared};
use crate::tables::Plan;

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
    /// An entry that records share.
    SharedAdd(Shared),
    /// Its cookie.
    SharedDel(u64),
    /// Untagged frames of a front-panel port are in the VLAN that the shared entries say.
    SetUntagged(u32),
    /// A record's own entry is changed to that VLAN.
    Retag(HwHandle),
    /// No command: all that a shared record needs is there.
    Commit,
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
    /// Where the record is to be.
    place: Option<Place>,
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
        Job { op, flow, handle, kind, place: None, steps, now: None, last_packets: 0, verdict: None }
    }

    /// A removal without steps yet.
    pub(crate) fn removal(op: OpId, handle: HwHandle, flow: FlowId) -> Self {
        Job::new(op, handle, flow, Kind::Remove(None))
    }
}

impl<B: DeviceBacking> RockerProvider<B> {
    /// The steps that bring about `plan`; `last` where the record has an entry of its own.
    fn steps_of(&self, plan: &Plan, last: Step) -> Vec<Step> {
        let mut steps: Vec<Step> = plan.add_groups.iter().copied().map(Step::GroupAdd).collect();
        for e in &plan.add {
            match e {
                Shared::Untagged { pport } if self.shared.untagged_vlan(*pport) == INTERNAL_VLAN => {}
                Shared::Untagged { pport } => steps.extend(self.steps_for_untagged(*pport)),
                e if e.is_entry() => steps.push(Step::SharedAdd(*e)),
                _ => {}
            }
        }
        let own = !matches!(plan.place, Place::Shared { .. });
        steps.push(if own { last } else { Step::Commit });
        steps
    }

    /// The steps that tell the device of another VLAN of `pport`'s untagged frames. Until the last, records of theirs miss, and
    /// packets go to software.
    fn steps_for_untagged(&self, pport: u32) -> Vec<Step> {
        let theirs = |e: &Entry| match &e.place {
            Place::Own { matches, .. } => matches.pport == pport && matches.is_untagged(),
            Place::Port { .. } | Place::Shared { .. } => false,
        };
        let mut all: Vec<_> = self.entries.iter().filter(|(_, e)| theirs(e)).map(|(h, _)| *h).collect();
        all.sort_unstable();
        [Step::SetUntagged(pport)].into_iter().chain(all.into_iter().map(Step::Retag)).collect()
    }

    /// The record has left `place`: the steps that take away what nobody else uses.
    fn steps_to_leave(&mut self, place: &Place) -> Vec<Step> {
        let (mut steps, mut gone) = (Vec::new(), Vec::new());
        match place {
            Place::Own { group, .. } => self.groups.release(*group, &mut gone),
            Place::Port { .. } => {}
            Place::Shared { uses, .. } => {
                for e in uses.iter().rev() {
                    let was = if let Shared::Untagged { pport } = e {
                        self.shared.untagged_vlan(*pport)
                    } else {
                        0
                    };
                    let Some((cookie, group)) = self.shared.release(e) else {
                        continue;
                    };
                    match e {
                        Shared::Untagged { pport } if was != INTERNAL_VLAN => {
                            steps.extend(self.steps_for_untagged(*pport));
                        }
                        _ => steps.extend(cookie.map(Step::SharedDel)),
                    }
                    group.iter().for_each(|g| self.groups.release(*g, &mut gone));
                }
            }
        }
        steps.extend(gone.into_iter().map(Step::GroupDel));
        steps
    }

    /// Starts an operation.
    pub(crate) fn begin(&mut self, op: FlowOp) {
        match op {
            FlowOp::Install(op, rule) => {
                let table = ACL_NAME;
                let full = Reject::TableFull { table, entries: self.config.max_flows };
                let room = self.entries.len() < self.config.max_flows;
                if !room {
                    return self.finish(op, rule.id, OpResult::Rejected(full, None));
                }
                match self.plan(&rule, None) {
                    Err(r) => self.finish(op, rule.id, OpResult::Rejected(r, None)),
                    Ok(plan) => {
                        let handle = self.new_handle();
                        let mut job = Job::new(op, handle, rule.id, Kind::Install(rule));
                        job.steps = self.steps_of(&plan, Step::FlowAdd).into();
                        job.place = Some(plan.place);
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
        let (flow, table) = (rule.id, e.table());
        // What is shared cannot be changed in place: it is left and taken anew, and packets go to software meanwhile.
        let leaves = matches!(e.place, Place::Shared { .. });
        let leave = if leaves { self.leave(handle) } else { Vec::new() };
        match self.plan(&rule, Some(table)) {
            Ok(plan) => {
                let mut job = Job::new(op, handle, flow, Kind::Replace(rule));
                job.steps = leave.into_iter().chain(self.steps_of(&plan, Step::FlowMod)).collect();
                job.place = Some(plan.place);
                self.job = Some(job);
            }
            // The old actions are no longer right: the entry goes, and packets with it to software.
            Err(r) => {
                let mut job = Job::new(op, handle, flow, Kind::Remove(Some(r)));
                if leaves {
                    job.steps = leave.into();
                    self.entries.remove(&handle);
                } else {
                    self.plan_removal(&mut job, handle);
                }
                self.job = Some(job);
            }
        }
    }

    /// The entry gives up what it uses; the steps for that.
    fn leave(&mut self, h: HwHandle) -> Vec<Step> {
        let nowhere = Place::Shared { table: table::ACL_POLICY, uses: Vec::new() };
        match self.entries.get_mut(&h) {
            Some(e) => {
                let was = std::mem::replace(&mut e.place, nowhere);
                self.steps_to_leave(&was)
            }
            None => Vec::new(),
        }
    }

    /// The steps that remove entry `h`, whose groups and shared entries have one user less from here on.
    pub(crate) fn plan_removal(&mut self, job: &mut Job, h: HwHandle) {
        let own = self.entries.get(&h).is_some_and(|e| !matches!(e.place, Place::Shared { .. }));
        let gone = self.leave(h);
        if !own {
            job.steps = gone.into();
            self.entries.remove(&h);
            return;
        }
        let stats = (!self.config.quirks.no_flow_counters).then_some(Step::Stats);
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
            Step::SharedAdd(e) => (command::FLOW_ADD, self.shared.encode(e)),
            Step::SharedDel(cookie) => (command::FLOW_DEL, Tlvs::new().u64(t::COOKIE, *cookie)),
            Step::SetUntagged(pport) => {
                (command::FLOW_MOD, shared::untagged(*pport, self.shared.untagged_vlan(*pport)))
            }
            Step::Retag(h) => (command::FLOW_MOD, self.own_flow(*h, self.entries.get(h).map(|e| &e.place))),
            Step::FlowAdd | Step::FlowMod | Step::Commit => {
                let add = *step == Step::FlowAdd;
                let command = if add { command::FLOW_ADD } else { command::FLOW_MOD };
                (command, self.own_flow(handle, self.job.as_ref().and_then(|j| j.place.as_ref())))
            }
        }
    }

    /// The entry of a record of its own.
    fn own_flow(&self, handle: HwHandle, place: Option<&Place>) -> Tlvs {
        let tlvs = |table| shared::flow(table, RECORD_PRIORITY, handle.0);
        match place {
            Some(Place::Port { pport }) => {
                let f = tlvs(table::INGRESS_PORT).u32(t::IN_PPORT, *pport).u32(t::IN_PPORT_MASK, u32::MAX);
                f.u16(t::GOTO_TABLE_ID, 0)
            }
            Some(Place::Own { matches, group }) => {
                let tlvs = tlvs(table::ACL_POLICY);
                let vlan = self.shared.untagged_vlan(matches.pport);
                matches.encode(tlvs, vlan).u32(t::GROUP_ID, *group)
            }
            _ => tlvs(table::ACL_POLICY),
        }
    }

    /// After a step that was done: receive rings have to know what the device puts into frames.
    pub(crate) fn untagged_changed(&self, step: &Step) {
        if let Step::SetUntagged(pport) = step {
            self.inserted.set(*pport, self.shared.untagged_vlan(*pport));
        }
    }

    /// Issues the next step of the job, or ends it.
    pub(crate) fn next_step(&mut self) {
        let next = self.job.as_mut().and_then(|j| j.steps.pop_front().map(|s| (s, j.handle)));
        let Some((step, handle)) = next else {
            return self.end_job();
        };
        if step == Step::Commit {
            if let Some(mut job) = self.job.take() {
                self.committed(&mut job);
                self.job = Some(job);
            }
            return;
        }
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
                Step::FlowAdd | Step::FlowMod => self.committed(&mut job),
                Step::SharedAdd(e) => self.shared.is_there(&e),
                Step::SetUntagged(_) => self.untagged_changed(&step),
                Step::GroupDel(_) | Step::SharedDel(_) | Step::Retag(_) | Step::Commit => {}
            }
        } else {
            self.refused(&mut job, step, errno);
        }
        self.job = Some(job);
    }

    /// All that the record needs is there; what it had before has one user less.
    fn committed(&mut self, job: &mut Job) {
        let Some(place) = job.place.take() else {
            return;
        };
        match &job.kind {
            Kind::Install(rule) => {
                let entry = Entry { rule: rule.clone(), place };
                job.verdict = Some(OpResult::Installed(job.handle, entry.table()));
                self.entries.insert(job.handle, entry);
            }
            Kind::Replace(rule) => {
                if let Some(e) = self.entries.get_mut(&job.handle) {
                    e.rule = rule.clone();
                    let old = std::mem::replace(&mut e.place, place);
                    let steps = self.steps_to_leave(&old);
                    job.steps.extend(steps);
                }
                job.verdict = Some(OpResult::Replaced(job.handle, None));
            }
            Kind::Remove(_) => {}
        }
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
            (_, Kind::Install(_)) if job.place.is_some() => {
                job.verdict = Some(OpResult::Rejected(reject(), None));
                self.undo(job);
            }
            (Step::GroupDel(_) | Step::SharedDel(_), Kind::Replace(_)) => {
                crate::life::Violation::Command.count(&self.life);
            }
            (_, Kind::Replace(_)) if job.place.is_some() => {
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
            // A group that stays takes room, no more; nothing refers to it. An entry that stays of those that are shared is gone with
            // the reset that too much of this brings about.
            _ => crate::life::Violation::Command.count(&self.life),
        }
    }

    /// Takes back what was done for an entry that did not come about.
    fn undo(&mut self, job: &mut Job) {
        job.steps = match job.place.take() {
            Some(place) => self.steps_to_leave(&place).into(),
            None => VecDeque::new(),
        };
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
