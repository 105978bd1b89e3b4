//! The flow tables as an [`OffloadProvider`].
//!
//! ```text
//!   submit ─ lower ─┬─ rejected ─────────────────────────────────────────► done ─► poll
//!                   └─ HEADER_SET, if it needs a new one ─┐                  ▲
//!        ┌────────────────────────────────────────────────┘                  │
//!        └► INSTALL exact ─► lpm ─► range ─► ternary, each if it can, ───────┘ completions
//!             each next one when there is no profile or no room
//! ```
//!
//! A rule goes to the exact table when its mask has, or gets, a key profile; else, and when its bucket is full, to one of the others
//! that can hold it; when the last is full it is rejected. One operation takes at most three commands at a time, so the command
//! ring, four times as large as the operations that may be outstanding, is not full but by chance: what does not fit fails.
//!
//! What happens when the device fails is in [`crate::health`].

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use clock::{Clock, Deadline, Instant};
use device::driver::{Lifeline, Recovery};
use device::{DeviceBacking, Interrupt};
use flow::{Action, ActionKind, FieldId, FlowId, PortId};
use offload::{
    Completion, Completions, FlowOp, FlowRule, HwHandle, InstalledFlow, OffloadCapabilities, OffloadError,
    OffloadProvider, OpId, OpResult, PackedRule, RawStats, Reject, SharedObjects, StatsBatch, StatsCursor,
};
use simnic_defs::cmd::{TABLE_EXACT, TABLE_LPM, TABLE_RANGE};
use simnic_defs::entry::key;
use simnic_defs::regs::{Caps, MAX_PORTS, VECTOR_CMD};
use simnic_defs::{CmdCpl, CmdDesc, CmdStatus, FlowEntry, HeaderSpec, HwAction, KEY_BYTES, KeyBytes, Opcode};
use zerocopy::IntoBytes;

use crate::bring_up::{check_ports, set_ports};
use crate::capability::{EXACT_NAME, capabilities, opens_tunnels, table_name};
use crate::cmd_ring::CmdRing;
use crate::config::SimnicConfig;
use crate::connections::Connections;
use crate::counter_ring::CounterRing;
use crate::entries::Entries;
use crate::holds::{Holds, Shared};
use crate::lower_action::{ActionLimits, group_of, header_of, lower_actions};
use crate::lower_match::{HwMatch, lower_match};
use crate::meters::Meters;
use crate::port::SimnicPort;
use crate::profiles::Profiles;

/// A device that is up.
pub struct Simnic<B: DeviceBacking> {
    /// Its flow tables; owns the device.
    pub provider: SimnicProvider<B>,
    /// Its ports, in the device's order.
    pub ports: Vec<SimnicPort<B::Regs>>,
}

/// What a command was for.
pub(crate) enum Job {
    /// An INSTALL. `full` is what to answer when no table has room.
    Install { op: OpId, rule: PackedRule, table: u8, holds: Holds, full: Option<Reject> },
    /// A REPLACE, with what it holds anew; the profile stays.
    Replace { op: OpId, handle: HwHandle, rule: PackedRule, holds: Holds },
    /// A REMOVE; of a replacement that was rejected, with the reject.
    Remove { op: OpId, handle: HwHandle, flow: FlowId, rejected: Option<Reject> },
    /// A PROFILE_SET or HEADER_SET.
    Program(Shared),
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
            Job::Program(_) | Job::Sync | Job::Void => None,
        }
    }
}

/// A rule in the hardware's terms.
pub(crate) struct Lowered {
    pub matches: HwMatch,
    pub actions: Vec<HwAction>,
    /// The header that it puts in front of packets.
    pub header: Option<HeaderSpec>,
    /// The outputs that a replication group can do, and its ports.
    pub group: Option<(Range<usize>, u16)>,
}

impl Lowered {
    /// The entry for a table, with what it holds of the device; `None` with too many actions.
    pub fn entry(&self, table: u8, holds: Holds, flow: FlowId) -> Option<FlowEntry> {
        let HwMatch { mut key, mut mask } = self.matches;
        match table {
            // There the mask is the profile's.
            TABLE_EXACT => mask = [0; KEY_BYTES],
            TABLE_RANGE => (key, mask) = to_ranges(&self.matches)?,
            _ => {}
        }
        let mut actions = self.actions.clone();
        if let (Some(g), Some((run, _))) = (holds.group, &self.group) {
            actions.splice(run.clone(), [HwAction::Replicate { group: g.0 }]);
        }
        for a in &mut actions {
            if let (HwAction::PushHeader { header }, Some(h)) = (a, holds.header) {
                *header = h.0;
            }
        }
        FlowEntry::new(key, mask, flow.0, &actions)
    }

    /// Outputs that the entry has without a group.
    pub fn outputs(&self) -> usize {
        self.actions.iter().filter(|a| a.is_output()).count()
    }

    /// What a profile of `table` must be programmed with, when the table can hold the entry and has profiles.
    pub fn profile(&self, table: u8) -> Option<KeyBytes> {
        let mut mask = self.matches.mask;
        if table == TABLE_LPM {
            let prefix = mask[key::IP4_DST].iter().fold(0u32, |v, b| v << 8 | u32::from(*b));
            if prefix == 0 || prefix.leading_ones() != prefix.count_ones() {
                return None;
            }
            mask[key::IP4_DST].fill(0);
        }
        Some(mask)
    }
}

/// Key and mask with ranges of transport ports in place of prefixes; `None` when they are none.
pub(crate) fn to_ranges(m: &HwMatch) -> Option<(KeyBytes, KeyBytes)> {
    let (key, mut mask) = (m.key, m.mask);
    for at in [key::L4_SRC, key::L4_DST] {
        let bits = u16::from_be_bytes([mask[at.start], mask[at.start + 1]]);
        if bits.leading_ones() != bits.count_ones() {
            return None;
        }
        let first = u16::from_be_bytes([key[at.start], key[at.start + 1]]);
        mask[at].copy_from_slice(&(first | !bits).to_be_bytes());
    }
    Some((key, mask))
}

/// The way back of [`to_ranges`]; `None` for ranges that are no prefixes.
pub(crate) fn from_ranges(key: &KeyBytes, mask: &KeyBytes) -> Option<HwMatch> {
    let mut m = HwMatch { key: *key, mask: *mask };
    for at in [key::L4_SRC, key::L4_DST] {
        let end = |k: &KeyBytes| u16::from_be_bytes([k[at.start], k[at.start + 1]]);
        let bits = !(end(key) ^ end(mask));
        if bits.leading_ones() != bits.count_ones() || end(key) & !bits != 0 {
            return None;
        }
        m.mask[at.clone()].copy_from_slice(&bits.to_be_bytes());
    }
    Some(m)
}

/// The command ring, and the counter ring where there is one.
pub(crate) type RingsOf<R> = (CmdRing<R, Job>, Option<CounterRing<R>>);

/// See the module's text.
pub struct SimnicProvider<B: DeviceBacking> {
    pub(crate) backing: B,
    pub(crate) regs: B::Regs,
    pub(crate) life: Arc<Lifeline>,
    pub(crate) caps: Caps,
    pub(crate) config: SimnicConfig,
    pub(crate) cmd: CmdRing<B::Regs, Job>,
    pub(crate) profiles: Profiles,
    pub(crate) templates: Profiles,
    pub(crate) headers: Profiles<HeaderSpec>,
    pub(crate) groups: Profiles<u16>,
    pub(crate) counters: Option<CounterRing<B::Regs>>,
    pub(crate) meters: Meters,
    pub(crate) connections: Connections,
    /// Datapath ports and what they are in the device: its own, then those that tunnels share, which it knows by numbers only.
    pub(crate) names: Vec<(PortId, u8)>,
    pub(crate) entries: Entries,
    /// Entries installed or being installed, by table.
    pub(crate) used: [usize; 4],
    pub(crate) done: VecDeque<Completion>,
    /// The answer to the command that somebody waits for.
    pub(crate) answer: Option<(CmdCpl, CmdStatus)>,
    clock: Arc<dyn Clock>,
    capabilities: Arc<OffloadCapabilities>,
    /// Operations in the command ring.
    pub(crate) in_flight: usize,
    pub(crate) recovery: Recovery,
}

/// Operations that may be outstanding with a command ring of `1 << log2`.
fn queue_depth(log2: u8) -> usize {
    ((1usize << log2) / 4).saturating_sub(1).max(1)
}

impl<B: DeviceBacking> SimnicProvider<B> {
    pub(crate) fn new(
        backing: B,
        regs: B::Regs,
        life: Arc<Lifeline>,
        caps: Caps,
        (cmd, counters): RingsOf<B::Regs>,
        config: SimnicConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let depth = queue_depth(config.cmd_log2);
        SimnicProvider {
            capabilities: Arc::new(capabilities(
                backing.name(),
                &caps,
                &config.ports,
                depth,
                config.connections,
            )),
            profiles: Profiles::new(caps.profiles.into()),
            templates: Profiles::new(if caps.lpm_entries > 0 { caps.lpm_profiles.into() } else { 0 }),
            headers: Profiles::new(caps.headers),
            groups: Profiles::new(caps.groups),
            counters,
            meters: Meters::new(caps.meters),
            connections: Connections::new(if config.connections { caps.connections } else { 0 }),
            recovery: Recovery::new(config.health, backing.errors(), backing.now()),
            names: config.ports.clone(),
            backing,
            regs,
            life,
            caps,
            cmd,
            clock,
            entries: Entries::default(),
            used: [0; 4],
            done: VecDeque::new(),
            answer: None,
            in_flight: 0,
            config,
        }
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
        self.names = self.config.ports.clone();
        set_ports(&self.life, &self.config.ports);
        let depth = queue_depth(self.config.cmd_log2);
        let name = self.backing.name().to_owned();
        let tracks = self.config.connections;
        self.capabilities = Arc::new(capabilities(&name, &self.caps, &self.config.ports, depth, tracks));
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
        let limits = ActionLimits {
            actions: self.caps.max_actions.into(),
            outputs: self.caps.max_outputs.into(),
            headers: self.caps.headers.into(),
            opens: opens_tunnels(&self.caps),
            groups: self.caps.groups.into(),
            tracks: self.config.connections && self.caps.connections > 0,
        };
        if rule.matches.get(FieldId::RecircId).0 != 0 && !limits.tracks {
            let unknown = Reject::Field { table, field: FieldId::RecircId };
            return Err(self.capabilities.validate(rule).err().unwrap_or(unknown));
        }
        if rule.is_of_tunnel() && !limits.opens {
            let closed = Reject::Field { table, field: FieldId::TunDst };
            return Err(self.capabilities.validate(rule).err().unwrap_or(closed));
        }
        let ports = &self.names;
        let lowered = lower_match(&rule.matches, ports, table).and_then(|mut matches| {
            // Where packets are sent round with another, that it is zero is not free.
            if limits.tracks && rule.matches.get(FieldId::RecircId).1 != 0 {
                matches.mask[key::RECIRC_ID].fill(0xff);
            }
            let meters = self.meters.numbers();
            let actions = lower_actions(&rule.actions, &rule.matches, ports, limits, meters, table)?;
            let mut headers = rule.actions.iter().filter_map(|a| match a {
                Action::TunnelPush(push) => header_of(push),
                _ => None,
            });
            let header = headers.next();
            if headers.next().is_some() {
                let (wanted, action) = (2 + headers.count(), ActionKind::TunnelPush);
                return Err(Reject::TooManyOf { table, action, wanted, offered: 1 });
            }
            let group = group_of(&actions).filter(|_| limits.groups > 0);
            Ok(Lowered { matches, actions, header, group })
        });
        lowered.map_err(|r| self.capabilities.validate(rule).err().unwrap_or(r))
    }

    /// Numbers for the ports that tunnels share which `rule` names. When there are none left, those that no entry uses are given out
    /// again.
    fn name_tunnels(&mut self, rule: &FlowRule) {
        if !opens_tunnels(&self.caps) {
            return;
        }
        let ingress = rule.is_of_tunnel().then(|| PortId(rule.matches.get(FieldId::DpPort).0 as u32));
        for port in ingress.into_iter().chain(rule.opens()) {
            if self.names.iter().any(|(id, _)| *id == port) {
                continue;
            }
            let free = |names: &[(PortId, u8)]| {
                (MAX_PORTS as u8..=u8::MAX).find(|n| !names.iter().any(|(_, used)| used == n))
            };
            if free(&self.names).is_none() {
                let uses = |id: PortId| {
                    self.entries.iter().any(|e| {
                        let from = e.rule.matches.get(FieldId::DpPort).0 == u128::from(id.0);
                        from || e.rule.opens() == Some(id)
                    })
                };
                let used = self.names.iter().filter(|(id, n)| u32::from(*n) < MAX_PORTS || uses(*id));
                // Entries that are being installed have theirs yet to come: only at rest is it known who uses which.
                if self.in_flight == 0 {
                    self.names = used.copied().collect();
                }
            }
            if let Some(n) = free(&self.names) {
                self.names.push((port, n));
            }
        }
    }

    pub(crate) fn finish(&mut self, op: OpId, flow: FlowId, result: OpResult) {
        self.done.push_back(Completion { op, flow, result });
    }

    /// Takes in what the device has evicted.
    pub(crate) fn take_evicted(&mut self) {
        if let Some(c) = &mut self.counters {
            c.drain(&mut self.entries);
        }
    }

    /// Counters of an entry in a completion, with the time of the last packet on the host's clock.
    pub(crate) fn last_stats(&mut self, handle: HwHandle, c: &CmdCpl) -> RawStats {
        self.take_evicted();
        let counters = (c.packets.get(), c.bytes.get());
        self.stats_of(handle, counters, c.evictions.get(), c.age_ns.get())
    }

    /// Likewise, of a reading that says how often the entry had been evicted.
    pub(crate) fn stats_of(
        &mut self,
        handle: HwHandle,
        (packets, bytes): (u64, u64),
        evictions: u16,
        age_ns: u64,
    ) -> RawStats {
        let evicted = if self.counters.is_some() { self.entries.evicted(handle) } else { None };
        let (packets, bytes) = evicted.map_or((packets, bytes), |e| e.total(packets, bytes, evictions));
        self.raw_stats(packets, bytes, age_ns)
    }

    fn raw_stats(&self, packets: u64, bytes: u64, age_ns: u64) -> RawStats {
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
                match &job {
                    Job::Install { table, holds, .. } => self.let_go(*table, *holds),
                    Job::Replace { holds, .. } => self.release(*holds),
                    _ => {}
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

    /// Starts an INSTALL into the first table that can hold the rule: the first there is, or the first behind `tried`, a table that
    /// had no room. `why` is what to say when none can.
    pub(crate) fn install(&mut self, op: OpId, rule: &FlowRule, tried: Option<u8>, why: Option<Reject>) {
        self.name_tunnels(rule);
        let lowered = match self.lower(rule, EXACT_NAME) {
            Ok(l) => l,
            Err(r) => return self.finish(op, rule.id, OpResult::Rejected(r, None)),
        };
        let mut full = why;
        let order = crate::capability::tables(&self.caps);
        let mut left =
            order.skip_while(|t| tried.is_some_and(|x| x != *t)).skip(usize::from(tried.is_some()));
        let place = left.find_map(|t| match self.reserve(t, &lowered) {
            Ok(profile) => Some((t, profile)),
            Err(r) => {
                full.get_or_insert(r);
                None
            }
        });
        let Some((table, profile)) = place else {
            let r = full.unwrap_or(Reject::NoTables);
            return self.finish(op, rule.id, OpResult::Rejected(r, None));
        };
        let mut holds = Holds { profile, ..Holds::default() };
        match self.acquire(&lowered) {
            Ok(shared) => holds = Holds { profile, ..shared },
            Err(r) => {
                self.let_go(table, holds);
                return self.finish(op, rule.id, OpResult::Rejected(r, None));
            }
        }
        let Some(entry) = lowered.entry(table, holds, rule.id) else {
            self.let_go(table, holds);
            let (wanted, offered) = (lowered.actions.len(), self.caps.max_actions.into());
            let r = Reject::TooManyActions { table: table_name(table), wanted, offered };
            return self.finish(op, rule.id, OpResult::Rejected(r, None));
        };
        let mut d = CmdDesc::new(Opcode::Install, 0);
        (d.table, d.profile) = (table, profile.map_or(0, |p| p.0 as u8));
        let rule = rule.into();
        self.command(d, entry.as_bytes(), Job::Install { op, rule, table, holds, full });
    }

    fn replace(&mut self, op: OpId, handle: HwHandle, rule: &FlowRule) {
        let Some(e) = self.entries.get(handle) else {
            return self.no_entry(op, rule.id, handle);
        };
        if e.rule.matches.expand() != rule.matches {
            let error = OffloadError::Device("a replacement must have the same match".into());
            return self.finish(op, rule.id, OpResult::Failed { error, left: Some(handle), last: None });
        }
        let (table, hw) = (e.table, e.hw);
        self.name_tunnels(rule);
        let entry = self.lower(rule, table_name(table)).and_then(|l| {
            let offered = self.caps.max_actions.into();
            let many = Reject::TooManyActions { table: table_name(table), wanted: l.actions.len(), offered };
            let holds = self.acquire(&l)?;
            let entry = l.entry(table, holds, rule.id);
            if entry.is_none() {
                self.release(holds);
            }
            Ok((entry.ok_or(many)?, holds))
        });
        let name = |op| {
            let mut d = CmdDesc::new(op, 0);
            d.table = table;
            d.entry = hw.into();
            d
        };
        match entry {
            Ok((entry, holds)) => {
                let (d, rule) = (name(Opcode::Replace), rule.into());
                self.command(d, entry.as_bytes(), Job::Replace { op, handle, rule, holds });
            }
            // The old actions are no longer right: the entry goes, and packets with it to software.
            Err(r) => {
                let job = Job::Remove { op, handle, flow: rule.id, rejected: Some(r) };
                self.command(name(Opcode::Remove), &[], job);
            }
        }
    }

    fn remove(&mut self, op: OpId, handle: HwHandle) {
        let Some(e) = self.entries.get(handle) else {
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
            (FlowOp::Install(id, rule), None) => self.install(*id, rule, None, None),
            (FlowOp::Replace(id, h, rule), _) => self.replace(*id, *h, rule),
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
            self.take_evicted();
            self.check();
        }
        if self.recovery.is_due(self.backing.errors(), self.backing.now()) {
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
        self
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

    fn is_wanted_back(&self) -> bool {
        self.backing.errors().unplug_requested()
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
