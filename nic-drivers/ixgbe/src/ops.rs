//! Operations on the filters, one after the other, each in steps that the device takes its time for.

use clock::Deadline;
use device::DeviceBacking;
use flow::{FlowId, PacketMatch};
use ixgbe_defs::fdir::cmd;
use ixgbe_defs::{FdirInput, FdirMask};
use offload::{FlowOp, FlowRule, HwHandle, OffloadError, OpId, OpResult, Origin, RawStats, Reject, TableId};

use crate::capability::{FDIR_NAME, FDIR_TABLE, FIVE_TUPLE_TABLE, QUEUE_DEPTH};
use crate::filters::{self, Place, Target};
use crate::lower;
use crate::provider::{Entry, IxgbeProvider};
use crate::violation::Violation;

/// Names operations of the driver's own.
const OWN: OpId = OpId(u64::MAX);

/// What the device is doing.
pub(crate) enum Step {
    /// The flow director's tables are being initialized, for the filter that comes next.
    Initialize,
    /// A filter is being added.
    Add,
    /// It is being asked whether the filter is there.
    Query,
    /// The filter is being removed.
    Remove,
}

/// The operation under way.
pub(crate) struct Job {
    pub op: OpId,
    pub flow: FlowId,
    handle: HwHandle,
    step: Step,
    at: (u16, u16),
    due: Deadline,
    /// Of an installation.
    adds: Option<(FlowRule, FdirInput, Target)>,
    /// Of a removal because a replacement does not fit.
    why: Option<Reject>,
}

/// What a filter is made of.
enum Lowered {
    Fdir(FdirInput, FdirMask),
    FiveTuple(ixgbe_defs::FiveTuple),
}

impl<B: DeviceBacking> IxgbeProvider<B> {
    /// Goes on with what is under way until it has to wait for the device.
    pub(crate) fn drive(&mut self) {
        while !self.recovery.is_down() {
            match self.job.take() {
                Some(job) => {
                    if let Some(job) = self.advance(job) {
                        self.job = Some(job);
                        return;
                    }
                }
                None => match self.ops.begin() {
                    Some(op) => self.begin(op, Target::Drop),
                    None => return,
                },
            }
        }
    }

    /// Whether the device has done the step of a job; `None` when it has gone.
    fn step_done(&self, step: &Step) -> Option<Option<bool>> {
        match step {
            Step::Initialize => filters::is_initialized(&self.regs).map(|d| d.then_some(true)),
            _ => Some(filters::command_done(&self.regs)),
        }
    }

    /// Takes a job one step on, or gives it back when the device is not done.
    fn advance(&mut self, mut job: Job) -> Option<Job> {
        let Some(Some(there)) = self.step_done(&job.step) else {
            if job.due.passed(self.backing.now()) {
                self.job = Some(job);
                self.fail(format!("flow director command not done within {:?}", self.config.cmd_timeout));
                return None;
            }
            return Some(job);
        };
        job.due = self.due();
        match job.step {
            Step::Initialize => {
                if let Some((_, input, to)) = &job.adds {
                    filters::add(&self.regs, input, job.at, *to);
                }
                job.step = Step::Add;
                Some(job)
            }
            Step::Add => {
                self.added(job);
                None
            }
            Step::Query if there => {
                filters::command(&self.regs, job.at, cmd::REMOVE);
                job.step = Step::Remove;
                Some(job)
            }
            Step::Query => {
                Violation::LostFilter.count(&self.life);
                self.removed(job);
                None
            }
            Step::Remove => {
                self.removed(job);
                None
            }
        }
    }

    fn added(&mut self, job: Job) {
        let (bucket, index) = job.at;
        let entries = self.fdir.len();
        let result = match job.adds {
            Some(_) if filters::add_failed(&self.regs) => {
                self.fdir.give_back(bucket, index);
                OpResult::Rejected(Reject::TableFull { table: FDIR_NAME, entries }, None)
            }
            Some((rule, ..)) => {
                self.entries.insert(job.handle, Entry { rule, place: Place::Fdir { bucket, index } });
                OpResult::Installed(job.handle, FDIR_TABLE)
            }
            None => return,
        };
        self.finish(job.op, job.flow, result);
    }

    fn removed(&mut self, job: Job) {
        self.fdir.give_back(job.at.0, job.at.1);
        self.entries.remove(&job.handle);
        self.gone(job.op, job.flow, job.handle, job.why);
    }

    fn gone(&mut self, op: OpId, flow: FlowId, handle: HwHandle, why: Option<Reject>) {
        let last = RawStats::default();
        let result = match why {
            Some(r) => OpResult::Rejected(r, Some(last)),
            None => OpResult::Removed(handle, last),
        };
        self.finish(op, flow, result);
    }

    /// Starts an operation; what is installed goes to `to`.
    fn begin(&mut self, op: FlowOp, to: Target) {
        match op {
            FlowOp::Install(op, rule) => self.install(op, rule, to),
            FlowOp::Replace(op, h, rule) => self.replace(op, h, rule),
            FlowOp::Remove(op, h) => self.remove(op, h, None),
        }
    }

    fn install(&mut self, op: OpId, rule: FlowRule, to: Target) {
        let flow = rule.id;
        let placements = match self.capabilities.placements(&rule) {
            Ok(p) => p,
            Err(r) => return self.finish(op, flow, OpResult::Rejected(r, None)),
        };
        let mut first = None;
        for p in placements {
            match self.install_in(p.table, op, &rule, to) {
                Ok(()) => return,
                Err(r) => first = first.or(Some(r)),
            }
        }
        self.finish(op, flow, OpResult::Rejected(first.unwrap_or(Reject::NoTables), None));
    }

    fn lower(table: TableId, rule: &FlowRule) -> Result<Lowered, Reject> {
        if table == FIVE_TUPLE_TABLE {
            return lower::five_tuple(rule).map(Lowered::FiveTuple);
        }
        lower::flow_director(rule).map(|(i, m)| Lowered::Fdir(i, m))
    }

    /// Installs a rule in one of the tables, or begins to.
    fn install_in(&mut self, table: TableId, op: OpId, rule: &FlowRule, to: Target) -> Result<(), Reject> {
        match Self::lower(table, rule)? {
            Lowered::FiveTuple(f) => {
                let place = self.five_tuples.add(&self.regs, &f, to)?;
                let handle = self.new_handle();
                self.entries.insert(handle, Entry { rule: rule.clone(), place });
                self.finish(op, rule.id, OpResult::Installed(handle, table));
            }
            Lowered::Fdir(input, mask) => {
                let (place, anew) = self.fdir.place(&input, &mask)?;
                let Place::Fdir { bucket, index } = place else { return Ok(()) };
                let step = if anew {
                    self.fdir.initialize_for(&self.regs, mask, bucket, index);
                    Step::Initialize
                } else {
                    filters::add(&self.regs, &input, (bucket, index), to);
                    Step::Add
                };
                let handle = self.new_handle();
                let (flow, due) = (rule.id, self.due());
                let adds = Some((rule.clone(), input, to));
                self.job = Some(Job { op, flow, handle, step, at: (bucket, index), due, adds, why: None });
            }
        }
        Ok(())
    }

    /// A filter drops, before and after. What does something else does not fit.
    fn replace(&mut self, op: OpId, handle: HwHandle, rule: FlowRule) {
        let flow = rule.id;
        let Some(e) = self.entries.get_mut(&handle) else {
            return self.no_entry(op, flow, handle);
        };
        if e.rule.matches != rule.matches {
            let error = OffloadError::Device("a replacement must have the same match".into());
            return self.finish(op, flow, OpResult::Failed { error, left: Some(handle), last: None });
        }
        match self.capabilities.placements(&rule) {
            Ok(_) => {
                e.rule = rule;
                self.finish(op, flow, OpResult::Replaced(handle, None));
            }
            // The filter is wrong now: it goes, and packets with it to software.
            Err(r) => {
                e.rule.id = flow;
                self.remove(op, handle, Some(r));
            }
        }
    }

    fn no_entry(&mut self, op: OpId, flow: FlowId, handle: HwHandle) {
        let error = OffloadError::NoSuchEntry(handle);
        self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
    }

    fn remove(&mut self, op: OpId, handle: HwHandle, why: Option<Reject>) {
        let Some((place, flow)) = self.entries.get(&handle).map(|e| (e.place, e.rule.id)) else {
            return self.no_entry(op, FlowId::default(), handle);
        };
        match place {
            Place::FiveTuple(i) => {
                self.five_tuples.remove(&self.regs, i);
                self.entries.remove(&handle);
                self.gone(op, flow, handle, why);
            }
            Place::Fdir { bucket, index } => {
                filters::command(&self.regs, (bucket, index), cmd::QUERY);
                let due = self.due();
                let at = (bucket, index);
                self.job = Some(Job { op, flow, handle, step: Step::Query, at, due, adds: None, why });
            }
        }
    }

    fn due(&self) -> Deadline {
        Deadline::after(self.backing.now(), self.config.cmd_timeout)
    }

    /// Waits until nothing is under way.
    pub(crate) fn settle(&mut self) {
        // Each operation has at most four steps.
        for _ in 0..=4 * (QUEUE_DEPTH + 1) {
            self.drive();
            let Some(job) = &self.job else { return };
            // What became of it is found out by the next look; a deadline that has passed, too.
            let _ =
                self.backing.wait_until(&mut || !matches!(self.step_done(&job.step), Some(None)), job.due);
        }
    }

    /// Sends what `matches` describes to receive queue `queue`, by a filter of its own: by a 5-tuple filter where it fits, whose eyes are
    /// blind for tags, otherwise by the flow director. The filter goes with [`IxgbeProvider::stop_steering`], or when the
    /// generation rises.
    ///
    /// # Errors
    /// The reject that names what does not fit.
    pub fn steer(&mut self, matches: &PacketMatch, queue: u16) -> Result<HwHandle, Reject> {
        self.settle();
        if let Some(why) = self.recovery.why() {
            return Err(Reject::DeviceDown { why: why.to_owned() });
        }
        if usize::from(queue) >= self.states.len() {
            let text = format!("there are queues 0 to {}", self.states.len() - 1);
            return Err(Reject::Device { errno: 0, attribute: "queue".into(), text });
        }
        let provenance = [Origin::Fragments].into();
        let rule = FlowRule { id: FlowId::default(), matches: *matches, actions: [].into(), provenance };
        let to = Target::Queue(queue);
        if self.install_in(FIVE_TUPLE_TABLE, OWN, &rule, to).is_err() {
            self.install_in(FDIR_TABLE, OWN, &rule, to)?;
        }
        match self.own_result() {
            Some(OpResult::Installed(h, _)) => Ok(h),
            Some(OpResult::Rejected(r, _)) => Err(r),
            _ => Err(Reject::DeviceDown { why: self.recovery.why().unwrap_or("no answer").to_owned() }),
        }
    }

    /// Takes a filter of [`IxgbeProvider::steer`] out. Whether it was in.
    pub fn stop_steering(&mut self, handle: HwHandle) -> bool {
        self.settle();
        if !self.recovery.is_down() {
            self.remove(OWN, handle, None);
        }
        matches!(self.own_result(), Some(OpResult::Removed(..)))
    }

    /// How an operation of the driver's own has ended.
    fn own_result(&mut self) -> Option<OpResult> {
        self.settle();
        self.ops.withdraw(OWN)
    }
}
