//! The flow tables as an [`OffloadProvider`].
//!
//! ```text
//!   submit ─ lower ─┬─ rejected ───────────────────────────────► done ─► poll
//!                   ├─ profile for the mask ─ INSTALL exact ──┐    ▲
//!                   │                     bucket full ┐       ├────┘ completions
//!                   └─ no profile left ─ INSTALL ternary ◄────┘
//! ```
//!
//! A rule goes to the exact table when its mask has, or gets, a key profile; else, and when its bucket is full, to the
//! ternary table; when that is full it is rejected. One operation takes at most two commands at a time, so the command
//! ring, twice as large as the operations that may be outstanding, cannot be full.
//!
//! What happens when the device fails is in [`crate::health`].

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use clock::{Clock, Deadline, Instant};
use device::driver::{Lifeline, Recovery};
use device::{DeviceBacking, Interrupt};
use flow::{FlowId, PortId};
use offload::{
    Completion, Completions, FlowOp, FlowRule, HwHandle, InstalledFlow, NoObjects, OffloadCapabilities,
    OffloadError, OffloadProvider, OpId, OpResult, RawStats, Reject, SharedObjects, StatsBatch, StatsCursor,
};
use simnic_defs::cmd::{TABLE_EXACT, TABLE_TERNARY};
use simnic_defs::regs::{Caps, VECTOR_CMD};
use simnic_defs::{CmdCpl, CmdDesc, CmdStatus, FlowEntry, HwAction, Opcode};
use zerocopy::IntoBytes;

use crate::bring_up::{check_ports, set_ports};
use crate::capability::{EXACT_NAME, capabilities};
use crate::cmd_ring::CmdRing;
use crate::config::SimnicConfig;
use crate::lower_action::{ActionLimits, lower_actions};
use crate::lower_match::{HwMatch, lower_match};
use crate::port::SimnicPort;
use crate::profiles::{ProfileId, Profiles};
use crate::violation::ViolationCounts;

/// A device that is up.
pub struct Simnic<B: DeviceBacking> {
    /// Its flow tables; owns the device.
    pub provider: SimnicProvider<B>,
    /// Its ports, in the device's order.
    pub ports: Vec<SimnicPort<B::Regs>>,
}

/// An entry in the device's tables.
pub(crate) struct Entry {
    pub rule: Box<FlowRule>,
    pub table: u8,
    /// The device's name for it.
    pub hw: u32,
    /// In the exact table.
    pub profile: Option<ProfileId>,
}

/// What a command was for.
pub(crate) enum Job {
    /// An INSTALL; into the ternary table without a profile. `full` is what to answer when that is full.
    Install { op: OpId, rule: Box<FlowRule>, profile: Option<ProfileId>, full: Option<Reject> },
    /// A REPLACE.
    Replace { op: OpId, handle: HwHandle, rule: Box<FlowRule> },
    /// A REMOVE; of a replacement that was rejected, with the reject.
    Remove { op: OpId, handle: HwHandle, flow: FlowId, rejected: Option<Reject> },
    /// A PROFILE_SET.
    Profile(ProfileId),
    /// A command that somebody waits for.
    Sync,
    /// Completed already, as failed.
    Void,
}

impl Job {
    /// The operation and flow of it, when it is one.
    pub fn op(&self) -> Option<(OpId, FlowId)> {
        match self {
            Job::Install { op, rule, .. } | Job::Replace { op, rule, .. } => Some((*op, rule.id)),
            Job::Remove { op, flow, .. } => Some((*op, *flow)),
            Job::Profile(_) | Job::Sync | Job::Void => None,
        }
    }
}

/// A rule in the hardware's terms.
pub(crate) struct Lowered {
    pub matches: HwMatch,
    pub actions: Vec<HwAction>,
}

impl Lowered {
    /// The entry for the exact table (whose mask is the profile's) or the ternary table; `None` with too many actions.
    pub fn entry(&self, exact: bool, flow: FlowId) -> Option<FlowEntry> {
        let mask = if exact { [0; simnic_defs::KEY_BYTES] } else { self.matches.mask };
        FlowEntry::new(self.matches.key, mask, flow.0, &self.actions)
    }
}

/// See the module's text.
pub struct SimnicProvider<B: DeviceBacking> {
    pub(crate) backing: B,
    pub(crate) regs: B::Regs,
    pub(crate) life: Arc<Lifeline>,
    pub(crate) caps: Caps,
    pub(crate) config: SimnicConfig,
    pub(crate) cmd: CmdRing<B::Regs, Job>,
    pub(crate) profiles: Profiles,
    pub(crate) entries: HashMap<HwHandle, Entry>,
    /// Which handle an entry of a table has.
    pub(crate) by_hw: HashMap<(u8, u32), HwHandle>,
    /// Entries installed or being installed in the ternary table.
    pub(crate) ternary_used: usize,
    pub(crate) done: VecDeque<Completion>,
    /// The answer to the command that somebody waits for.
    pub(crate) answer: Option<(CmdCpl, CmdStatus)>,
    clock: Arc<dyn Clock>,
    capabilities: Arc<OffloadCapabilities>,
    objects: NoObjects,
    /// Operations in the command ring.
    pub(crate) in_flight: usize,
    next_handle: u64,
    pub(crate) recovery: Recovery,
}

/// Operations that may be outstanding with a command ring of `1 << log2`.
fn queue_depth(log2: u8) -> usize {
    (1usize << log2) / 2 - 2
}

impl<B: DeviceBacking> SimnicProvider<B> {
    pub(crate) fn new(
        backing: B,
        regs: B::Regs,
        life: Arc<Lifeline>,
        caps: Caps,
        cmd: CmdRing<B::Regs, Job>,
        config: SimnicConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let depth = queue_depth(config.cmd_log2);
        SimnicProvider {
            capabilities: Arc::new(capabilities(backing.name(), &caps, &config.ports, depth)),
            profiles: Profiles::new(caps.profiles),
            recovery: Recovery::new(config.health, backing.errors(), backing.now()),
            backing,
            regs,
            life,
            caps,
            cmd,
            clock,
            objects: NoObjects,
            entries: HashMap::new(),
            by_hw: HashMap::new(),
            ternary_used: 0,
            done: VecDeque::new(),
            answer: None,
            in_flight: 0,
            next_handle: 1,
            config,
        }
    }

    /// What the device did against its datasheet so far.
    pub fn violations(&self) -> ViolationCounts {
        ViolationCounts::of(&self.life)
    }

    /// The interrupt that [`SimnicProvider::arm`] asks for.
    pub fn interrupt(&self) -> Option<Interrupt> {
        self.life.interrupt(VECTOR_CMD)
    }

    /// Has the interrupt raised at the next command completion, at once when one waits.
    pub fn arm(&mut self) {
        if !self.recovery.is_down() {
            self.cmd.arm();
        }
    }

    /// The device, for tests that reach around the driver.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// Entries in the tables.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Datapath ports and the device ports they are.
    pub fn ports(&self) -> &[(PortId, u8)] {
        &self.config.ports
    }

    /// Maps datapath ports to device ports anew. Ports newly named come up, ports no longer named go down; the capabilities
    /// change with it. Entries name device ports: unless ports are only added, the tables are emptied first and the
    /// generation rises.
    ///
    /// # Errors
    /// [`OffloadError::Device`] when a port does not exist or is named twice (nothing has changed then), or what the device
    /// answered.
    pub fn set_ports(&mut self, ports: Vec<(PortId, u8)>) -> Result<(), OffloadError> {
        if ports == self.config.ports {
            return Ok(());
        }
        check_ports(&ports).map_err(OffloadError::Device)?;
        if let Some((_, p)) = ports.iter().find(|(_, p)| *p >= self.caps.ports) {
            return Err(OffloadError::Device(format!("no port {p}")));
        }
        if self.config.ports.iter().any(|old| !ports.contains(old)) {
            self.flush_tables()?;
            self.recovery.lose_contents();
        }
        let old = std::mem::replace(&mut self.config.ports, ports);
        set_ports(&self.life, &self.config.ports);
        let depth = queue_depth(self.config.cmd_log2);
        let name = self.backing.name().to_owned();
        self.capabilities = Arc::new(capabilities(&name, &self.caps, &self.config.ports, depth));
        for p in 0..self.caps.ports {
            let (was, is) =
                (old.iter().any(|(_, o)| *o == p), self.config.ports.iter().any(|(_, n)| *n == p));
            if was != is {
                self.port_set(p, is)?;
            }
        }
        Ok(())
    }

    /// The hardware's terms for `rule`, as table `table` would have it. Of several obstacles, the reject names the one that
    /// the capabilities name.
    pub(crate) fn lower(&self, rule: &FlowRule, table: &'static str) -> Result<Lowered, Reject> {
        let limits =
            ActionLimits { actions: self.caps.max_actions.into(), outputs: self.caps.max_outputs.into() };
        let ports = &self.config.ports;
        let lowered = lower_match(&rule.matches, ports, table).and_then(|matches| {
            let actions = lower_actions(&rule.actions, &rule.matches, ports, limits, table)?;
            Ok(Lowered { matches, actions })
        });
        lowered.map_err(|r| self.capabilities.validate(rule).err().unwrap_or(r))
    }

    pub(crate) fn finish(&mut self, op: OpId, flow: FlowId, result: OpResult) {
        self.done.push_back(Completion { op, flow, result });
    }

    pub(crate) fn new_handle(&mut self) -> HwHandle {
        let h = HwHandle(self.next_handle);
        self.next_handle += 1;
        h
    }

    /// Counters in a completion or record, with the time of the last packet on the host's clock.
    pub(crate) fn raw_stats(&self, packets: u64, bytes: u64, age_ns: u64) -> RawStats {
        let now = self.clock.now().as_nanos();
        let last_used =
            (age_ns != simnic_defs::cmd::AGE_NEVER).then(|| Instant::from_nanos(now.saturating_sub(age_ns)));
        RawStats { packets, bytes, last_used }
    }

    /// Puts a command for an operation into the ring.
    pub(crate) fn command(&mut self, d: CmdDesc, payload: &[u8], job: Job) {
        let is_op = job.op().is_some();
        let due = Deadline::after(self.backing.now(), self.config.cmd_timeout);
        match self.cmd.submit(d, payload, job, due) {
            Ok(()) => self.in_flight += usize::from(is_op),
            // Cannot be while operations are bounded as they are; nothing was done, and that is what is said.
            Err(job) => {
                if let Job::Install { profile: Some(p), .. } = &job {
                    self.profiles.release(*p);
                }
                if let Some((op, flow)) = job.op() {
                    let left = match &job {
                        Job::Replace { handle, .. } | Job::Remove { handle, .. } => Some(*handle),
                        _ => None,
                    };
                    let error = OffloadError::Device("command ring is full".into());
                    self.finish(op, flow, OpResult::Failed { error, left, last: None });
                }
            }
        }
    }

    /// Starts an INSTALL into the table that has room; `rejected` is why the exact table is out of the question, if it is.
    pub(crate) fn install(&mut self, op: OpId, rule: Box<FlowRule>, rejected: Option<Reject>) {
        let lowered = match self.lower(&rule, EXACT_NAME) {
            Ok(l) => l,
            Err(r) => return self.finish(op, rule.id, OpResult::Rejected(r, None)),
        };
        let profile = match rejected {
            Some(_) => None,
            None => self.profiles.acquire(&lowered.matches.mask),
        };
        let exact = profile.is_some();
        let Some(entry) = lowered.entry(exact, rule.id) else {
            let (wanted, offered) = (lowered.actions.len(), self.caps.max_actions.into());
            let r = Reject::TooManyActions { table: EXACT_NAME, wanted, offered };
            return self.finish(op, rule.id, OpResult::Rejected(r, None));
        };
        if let Some((p, program)) = profile {
            if program {
                let mut d = CmdDesc::new(Opcode::ProfileSet, 0);
                d.profile = p.0;
                self.command(d, &lowered.matches.mask, Job::Profile(p));
            }
            let mut d = CmdDesc::new(Opcode::Install, 0);
            (d.table, d.profile) = (TABLE_EXACT, p.0);
            let job = Job::Install { op, rule, profile: Some(p), full: None };
            return self.command(d, entry.as_bytes(), job);
        }
        let full = rejected.unwrap_or(Reject::MasksFull { table: EXACT_NAME, masks: self.profiles.len() });
        if self.ternary_used >= usize::from(self.caps.ternary_entries) {
            return self.finish(op, rule.id, OpResult::Rejected(full, None));
        }
        self.ternary_used += 1;
        let mut d = CmdDesc::new(Opcode::Install, 0);
        d.table = TABLE_TERNARY;
        self.command(d, entry.as_bytes(), Job::Install { op, rule, profile: None, full: Some(full) });
    }

    fn replace(&mut self, op: OpId, handle: HwHandle, rule: Box<FlowRule>) {
        let Some(e) = self.entries.get(&handle) else {
            return self.no_entry(op, rule.id, handle);
        };
        if e.rule.matches != rule.matches {
            let error = OffloadError::Device("a replacement must have the same match".into());
            return self.finish(op, rule.id, OpResult::Failed { error, left: Some(handle), last: None });
        }
        let (table, hw, exact) = (e.table, e.hw, e.profile.is_some());
        let entry = self.lower(&rule, crate::capability::table_name(table)).and_then(|l| {
            let offered = self.caps.max_actions.into();
            let name = crate::capability::table_name(table);
            let many = Reject::TooManyActions { table: name, wanted: l.actions.len(), offered };
            l.entry(exact, rule.id).ok_or(many)
        });
        let name = |op| {
            let mut d = CmdDesc::new(op, 0);
            d.table = table;
            d.entry = hw.into();
            d
        };
        match entry {
            Ok(entry) => {
                let d = name(Opcode::Replace);
                self.command(d, entry.as_bytes(), Job::Replace { op, handle, rule });
            }
            // The old actions are no longer right: the entry goes, and packets with it to software.
            Err(r) => {
                let job = Job::Remove { op, handle, flow: rule.id, rejected: Some(r) };
                self.command(name(Opcode::Remove), &[], job);
            }
        }
    }

    fn remove(&mut self, op: OpId, handle: HwHandle) {
        let Some(e) = self.entries.get(&handle) else {
            return self.no_entry(op, FlowId::default(), handle);
        };
        let mut d = CmdDesc::new(Opcode::Remove, 0);
        d.table = e.table;
        d.entry = e.hw.into();
        let flow = e.rule.id;
        self.command(d, &[], Job::Remove { op, handle, flow, rejected: None });
    }

    fn no_entry(&mut self, op: OpId, flow: FlowId, handle: HwHandle) {
        let error = OffloadError::NoSuchEntry(handle);
        self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
    }

    fn start(&mut self, op: &FlowOp) {
        match (op, self.recovery.why()) {
            (FlowOp::Install(id, rule), Some(why)) => {
                let r = Reject::DeviceDown { why: why.to_owned() };
                self.finish(*id, rule.id, OpResult::Rejected(r, None));
            }
            (FlowOp::Install(id, rule), None) => self.install(*id, Box::new(rule.clone()), None),
            (FlowOp::Replace(id, h, rule), _) => self.replace(*id, *h, Box::new(rule.clone())),
            (FlowOp::Remove(id, h), _) => self.remove(*id, *h),
        }
    }

    /// Handles every completion that is there.
    pub(crate) fn drain(&mut self) {
        while let Some((job, c, status)) = self.cmd.next() {
            self.in_flight -= usize::from(job.op().is_some());
            self.complete(job, &c, status);
        }
        // A completion may have led to another command.
        self.cmd.kick();
    }

    /// One round: completions, deadlines, health, recovery.
    pub(crate) fn pump(&mut self) {
        if !self.recovery.is_down() {
            self.cmd.kick();
            if !self.config.poll_wait.is_zero() && self.cmd.outstanding() > 0 {
                let due = Deadline::after(self.backing.now(), self.config.poll_wait);
                let cmd = &self.cmd;
                // Not being done by then is no failure.
                let _ = self.backing.wait_until(&mut || cmd.has_completion(), due);
            }
            self.drain();
            self.check();
        }
        if self.recovery.is_due(self.backing.now()) {
            self.recover();
        }
    }
}

impl<B: DeviceBacking> OffloadProvider for SimnicProvider<B> {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        self.capabilities.clone()
    }

    fn submit(&mut self, ops: &[FlowOp]) -> usize {
        let mut n = 0;
        for op in ops {
            if self.outstanding() >= self.capabilities.queue_depth {
                break;
            }
            self.start(op);
            n += 1;
        }
        if !self.recovery.is_down() {
            self.cmd.kick();
        }
        n
    }

    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize {
        self.pump();
        let n = budget.min(self.done.len());
        out.extend(self.done.drain(..n));
        n
    }

    fn outstanding(&self) -> usize {
        self.in_flight + self.done.len()
    }

    fn objects(&mut self) -> &mut dyn SharedObjects {
        &mut self.objects
    }

    fn poll_stats(&mut self, cursor: &mut StatsCursor, budget: usize) -> Result<StatsBatch, OffloadError> {
        self.read_stats(cursor, budget)
    }

    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        self.read_entries()
    }

    fn flush(&mut self) -> Result<(), OffloadError> {
        self.flush_tables()
    }

    fn health(&self) -> Result<(), OffloadError> {
        match self.recovery.why() {
            None => Ok(()),
            Some(why) => Err(OffloadError::DeviceDown(why.to_owned())),
        }
    }

    fn generation(&self) -> u64 {
        self.recovery.generation()
    }

    fn set_ports(&mut self, ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        let number = |p: u32| u8::try_from(p).map_err(|_| OffloadError::Device(format!("no port {p}")));
        let ports =
            ports.iter().map(|(id, p)| Ok((*id, number(*p)?))).collect::<Result<_, OffloadError>>()?;
        SimnicProvider::set_ports(self, ports)
    }
}

impl<B: DeviceBacking> Drop for SimnicProvider<B> {
    fn drop(&mut self) {
        self.life.down();
        // The device stops before its buffers go home; the backing's own drop resets it again if this fails.
        let off = self.backing.set_bus_master(false);
        let reset = self.backing.reset();
        if off.is_ok() || reset.is_ok() {
            self.life.reclaim_parked();
        }
    }
}
