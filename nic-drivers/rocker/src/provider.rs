//! The device as an [`OffloadProvider`]: operations are done one after the other, each a list of commands.
//!
//! ```text
//!   Install: groups that are missing ─► FLOW_ADD                     refused: groups go again, nothing is left
//!   Replace: groups that are missing ─► FLOW_MOD ─► groups unused    the device changes the entry in place
//!   Remove:  FLOW_DEL ─► groups unused
//! ```

use std::collections::HashMap;
use std::sync::Arc;

use clock::Deadline;
use device::driver::{Lifeline, Recovery};
use device::{DeviceBacking, Interrupt, PortCounters, RegOffset, Registers};
use flow::{FlowId, PortId};
use offload::{
    Completions, FlowOp, FlowRule, HwHandle, InTurn, InstalledFlow, NoObjects, OffloadCapabilities,
    OffloadError, OffloadProvider, OpId, OpResult, RawStats, SharedObjects, StatsBatch, StatsCursor, TableId,
};
use rocker_defs::Tlvs;
use rocker_defs::cmd::{command, of_dpa as t, port_stats, table, top};
use rocker_defs::regs::{PORT_PHYS_ENABLE, VECTOR_CMD};
use rocker_defs::tlv::{find, number, read_tlvs};

use crate::bring_up::check_ports;
use crate::capability::{QUEUE_DEPTH, capabilities};
use crate::cmd_ring::{CmdPoll, CmdRing};
use crate::config::RockerConfig;
use crate::events::{Event, EventRing};
use crate::groups::Groups;
use crate::life::{Inserted, Violation, ViolationCounts, enabled, set_ports};
use crate::lower::AclMatch;
use crate::ops::{Job, Step, packets_of};
use crate::port::RockerPort;
use crate::quirks::Quirks;
use crate::shared::{Shared, SharedEntries};

/// A device that is up.
pub struct Rocker<B: DeviceBacking> {
    /// Its tables; owns the device.
    pub provider: RockerProvider<B>,
    /// Its ports, by number.
    pub ports: Vec<RockerPort<B::Regs>>,
}

/// A record in the device.
pub(crate) struct Entry {
    pub rule: FlowRule,
    pub place: Place,
}

/// Where a record is.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// An entry of its own in the ACL policy table, and the group that it names.
    Own { matches: AclMatch, group: u32 },
    /// An entry of its own in the ingress port table: all that the port receives is dropped.
    Port { pport: u32 },
    /// What it shares with others; its verdict is in this table.
    Shared { table: u16, uses: Vec<Shared> },
}

impl Entry {
    pub(crate) fn table(&self) -> TableId {
        TableId(match &self.place {
            Place::Own { .. } => table::ACL_POLICY,
            Place::Port { .. } => table::INGRESS_PORT,
            Place::Shared { table, .. } => *table,
        })
    }
}

/// See the module's text.
pub struct RockerProvider<B: DeviceBacking> {
    pub(crate) backing: B,
    pub(crate) regs: B::Regs,
    pub(crate) life: Arc<Lifeline>,
    pub(crate) config: RockerConfig,
    pub(crate) cmd: CmdRing<B::Regs>,
    pub(crate) events: EventRing<B::Regs>,
    pub(crate) groups: Groups,
    pub(crate) shared: SharedEntries,
    pub(crate) inserted: Arc<Inserted>,
    pub(crate) entries: HashMap<HwHandle, Entry>,
    pub(crate) ops: InTurn,
    pub(crate) job: Option<Job>,
    capabilities: Arc<OffloadCapabilities>,
    objects: NoObjects,
    pub(crate) n_ports: u16,
    next_handle: u64,
    pub(crate) recovery: Recovery,
}

/// First cookie of a flow record; those below are of the driver's own entries.
pub(crate) const FIRST_COOKIE: u64 = 1 << 16;

impl<B: DeviceBacking> RockerProvider<B> {
    pub(crate) fn new(
        backing: B,
        regs: B::Regs,
        (life, inserted): (Arc<Lifeline>, Arc<Inserted>),
        n_ports: u16,
        rings: (CmdRing<B::Regs>, EventRing<B::Regs>),
        config: RockerConfig,
    ) -> Self {
        let recovery = Recovery::new(config.health, backing.errors(), backing.now());
        let mut p = RockerProvider {
            capabilities: Arc::new(capabilities("", &[], 1, Quirks::QEMU)),
            backing,
            regs,
            life,
            config,
            cmd: rings.0,
            events: rings.1,
            groups: Groups::default(),
            shared: SharedEntries::default(),
            inserted,
            entries: HashMap::new(),
            ops: InTurn::new(QUEUE_DEPTH),
            job: None,
            objects: NoObjects,
            n_ports,
            next_handle: FIRST_COOKIE,
            recovery,
        };
        p.describe();
        p
    }

    /// Makes the capabilities what ports and configuration say.
    fn describe(&mut self) {
        let c = &self.config;
        self.capabilities = Arc::new(capabilities(self.backing.name(), &c.ports, c.max_flows, c.quirks));
    }

    /// What the device did against its guide so far.
    pub fn violations(&self) -> ViolationCounts {
        ViolationCounts::of(&self.life)
    }

    /// What the device has told since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(&self.life);
        self.events.take()
    }

    /// The interrupt of the command ring.
    pub fn interrupt(&self) -> Option<Interrupt> {
        self.life.interrupt(VECTOR_CMD)
    }

    /// The device, for tests that reach around the driver.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// Flow records in the device.
    pub fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Groups in the device that records use.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    /// What went over the wire of a front-panel port (from 0), by the device's own counters (guide, section 7); `None` where it has
    /// none ([`crate::quirks`]). Waits for operations under way.
    ///
    /// # Errors
    /// [`OffloadError`], as the device answers.
    pub fn port_counters(&mut self, port: u16) -> Result<Option<PortCounters>, OffloadError> {
        if self.config.quirks.no_port_counters {
            return Ok(None);
        }
        self.settle();
        if let Some(e) = self.down_error() {
            return Err(e);
        }
        let ask = Tlvs::new().u32(port_stats::PPORT, u32::from(port) + 1);
        let (errno, answer) = self.call(command::GET_PORT_STATS, &ask)?;
        let info = find(&answer, top::INFO).and_then(|i| read_tlvs(i).ok());
        let Some(info) = info.filter(|_| errno == 0) else {
            return Err(OffloadError::Device(format!("port counters: errno {errno}")));
        };
        let get = |kind| number::<8>(&info, kind).unwrap_or(0);
        Ok(Some(PortCounters {
            rx_packets: get(port_stats::RX_PACKETS),
            tx_packets: get(port_stats::TX_PACKETS),
            rx_bytes: get(port_stats::RX_BYTES),
            tx_bytes: get(port_stats::TX_BYTES),
            rx_dropped: get(port_stats::RX_DROPPED),
            tx_dropped: get(port_stats::TX_DROPPED),
            rx_errors: get(port_stats::RX_ERRORS),
            tx_errors: get(port_stats::TX_ERRORS),
        }))
    }

    /// Entries that records share, in a table or in all.
    pub fn shared_entries(&self, table: Option<u16>) -> usize {
        self.shared.len(table)
    }

    pub(crate) fn finish(&mut self, op: OpId, flow: FlowId, result: OpResult) {
        self.ops.finish(op, flow, result);
    }

    pub(crate) fn new_handle(&mut self) -> HwHandle {
        self.next_handle += 1;
        HwHandle(self.next_handle)
    }

    pub(crate) fn due(&self) -> Deadline {
        Deadline::after(self.backing.now(), self.config.cmd_timeout)
    }

    /// Goes on with what is under way until it has to wait for the device.
    pub(crate) fn drive(&mut self) {
        while !self.recovery.is_down() {
            match self.cmd.poll(self.backing.now()) {
                CmdPoll::Waiting => return,
                CmdPoll::Overdue => {
                    let why = format!("command not completed within {:?}", self.config.cmd_timeout);
                    return self.fail(why);
                }
                CmdPoll::Nonsense => {
                    Violation::Command.count(&self.life);
                    return self.fail("a command's completion is not one of it".into());
                }
                CmdPoll::Done(errno, answer) => self.step_done(errno, &answer),
                CmdPoll::Idle if self.job.is_some() => self.next_step(),
                CmdPoll::Idle => match self.ops.begin() {
                    Some(op) => self.begin(op),
                    None => return,
                },
            }
        }
    }

    /// Waits until nothing is under way.
    fn settle(&mut self) {
        for _ in 0..=4 * QUEUE_DEPTH {
            self.drive();
            if self.recovery.is_down() || self.job.is_none() && self.ops.is_idle() {
                return;
            }
            self.wait_command();
        }
    }

    /// Waits until the command under way is done or late.
    fn wait_command(&mut self) {
        let due = self.due();
        let (cmd, backing) = (&mut self.cmd, &self.backing);
        // What became of it is found out by the next poll; a deadline that has passed, too.
        let _ = backing.wait_until(&mut || cmd.is_done(), due);
    }

    /// One command by itself, waited for: the errno and the answer.
    pub(crate) fn call(&mut self, command: u16, info: &Tlvs) -> Result<(u16, Vec<u8>), OffloadError> {
        if !self.cmd.submit(command, info, self.due()) {
            return Err(OffloadError::Device("the command ring is busy".into()));
        }
        self.wait_command();
        match self.cmd.poll(self.backing.now()) {
            CmdPoll::Done(errno, answer) => Ok((errno, answer)),
            CmdPoll::Nonsense => {
                Violation::Command.count(&self.life);
                Err(OffloadError::Device("a command's completion is not one of it".into()))
            }
            _ => Err(OffloadError::TimedOut(format!("command {command}"))),
        }
    }

    fn down_error(&self) -> Option<OffloadError> {
        self.recovery.why().map(|w| OffloadError::DeviceDown(w.to_owned()))
    }

    /// Counters of an entry, as far as the device has them.
    fn read_stats(&mut self, h: HwHandle) -> Result<RawStats, OffloadError> {
        let own = self.entries.get(&h).is_some_and(|e| !matches!(e.place, Place::Shared { .. }));
        if self.config.quirks.no_flow_counters || !own {
            return Ok(RawStats::default());
        }
        let (errno, answer) = self.call(command::FLOW_GET_STATS, &Tlvs::new().u64(t::COOKIE, h.0))?;
        match packets_of(&answer) {
            Some(packets) if errno == 0 => Ok(RawStats { packets, bytes: 0, last_used: None }),
            _ => Err(OffloadError::Device(format!("counters: errno {errno}"))),
        }
    }

    fn sorted_handles(&self) -> Vec<HwHandle> {
        let mut v: Vec<_> = self.entries.keys().copied().collect();
        v.sort_unstable();
        v
    }

    pub(crate) fn enable_ports(&self) {
        self.regs.write64(RegOffset(PORT_PHYS_ENABLE), enabled(&self.life));
    }
}

impl<B: DeviceBacking> OffloadProvider for RockerProvider<B> {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        self.capabilities.clone()
    }

    fn submit(&mut self, ops: &[FlowOp]) -> usize {
        self.ops.submit(ops, self.job.is_some())
    }

    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize {
        self.check();
        self.events.drain(&self.life);
        self.drive();
        if self.recovery.is_down() {
            self.refuse_queue();
            if self.recovery.is_due(self.backing.errors(), self.backing.now()) {
                self.recover();
            }
        }
        self.ops.take(out, budget)
    }

    fn outstanding(&self) -> usize {
        self.ops.outstanding(self.job.is_some())
    }

    fn objects(&mut self) -> &mut dyn SharedObjects {
        &mut self.objects
    }

    fn poll_stats(&mut self, cursor: &mut StatsCursor, budget: usize) -> Result<StatsBatch, OffloadError> {
        self.settle();
        if let Some(e) = self.down_error() {
            return Err(e);
        }
        let mut batch = StatsBatch::default();
        let all = self.sorted_handles();
        let from = all.partition_point(|h| h.0 < cursor.0);
        for h in all[from..].iter().take(budget) {
            let flow = self.entries.get(h).map(|e| e.rule.id).unwrap_or_default();
            let raw = self.read_stats(*h)?;
            batch.stats.push((*h, flow, raw));
        }
        batch.wrapped = from + budget >= all.len();
        cursor.0 = match batch.stats.last() {
            Some((h, ..)) if !batch.wrapped => h.0 + 1,
            _ => 0,
        };
        Ok(batch)
    }

    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        self.settle();
        if let Some(e) = self.down_error() {
            return Err(e);
        }
        // The device cannot be asked what it holds; it was reset when this driver took it, so this is all.
        let mut out = Vec::new();
        for handle in self.sorted_handles() {
            let stats = self.read_stats(handle)?;
            if let Some(e) = self.entries.get(&handle) {
                out.push(InstalledFlow { handle, rule: e.rule.clone(), table: e.table(), stats });
            }
        }
        Ok(out)
    }

    fn flush(&mut self) -> Result<(), OffloadError> {
        self.settle();
        if let Some(e) = self.down_error() {
            return Err(e);
        }
        for h in self.sorted_handles() {
            let mut job = Job::removal(OpId(u64::MAX), h, FlowId::default());
            self.plan_removal(&mut job, h);
            for step in std::mem::take(&mut job.steps) {
                let (command, info) = self.encode(&step, h);
                let (errno, _) = self.call(command, &info)?;
                if errno != 0 {
                    return Err(OffloadError::Device(format!("{step:?}: errno {errno}")));
                }
                self.untagged_changed(&step);
            }
            self.entries.remove(&h);
        }
        Ok(())
    }

    fn health(&self) -> Result<(), OffloadError> {
        self.down_error().map_or(Ok(()), Err)
    }

    fn generation(&self) -> u64 {
        self.recovery.generation()
    }

    fn is_wanted_back(&self) -> bool {
        self.backing.errors().unplug_requested()
    }

    fn set_ports(&mut self, ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        // What does not fit is a port that the device does not have.
        let ports: Vec<(PortId, u16)> =
            ports.iter().map(|(id, p)| (*id, u16::try_from(*p).unwrap_or(u16::MAX))).collect();
        if ports == self.config.ports {
            return Ok(());
        }
        check_ports(&ports, self.n_ports).map_err(OffloadError::Device)?;
        if self.config.ports.iter().any(|old| !ports.contains(old)) {
            // Entries name ports: they go before a port is another one.
            self.flush()?;
            self.recovery.lose_contents();
        }
        set_ports(&self.life, &ports);
        self.config.ports = ports;
        self.describe();
        self.enable_ports();
        Ok(())
    }
}

impl<B: DeviceBacking> Drop for RockerProvider<B> {
    fn drop(&mut self) {
        self.life.down();
        // Tables outlive the program otherwise. No DMA afterwards, so that buffers can go home.
        self.regs.write32(RegOffset(rocker_defs::regs::CONTROL), rocker_defs::regs::CONTROL_RESET);
        let _ = self.backing.set_bus_master(false);
        self.life.reclaim_parked();
    }
}

impl Step {
    /// A name for messages.
    pub(crate) fn what(&self) -> &'static str {
        match self {
            Step::Stats => "flow get stats",
            Step::GroupAdd(_) => "group add",
            Step::GroupDel(_) => "group delete",
            Step::FlowAdd => "flow add",
            Step::FlowMod => "flow modify",
            Step::FlowDel => "flow delete",
            Step::SharedAdd(_) => "shared flow add",
            Step::SharedDel(_) => "shared flow delete",
            Step::SetUntagged(_) => "VLAN of untagged frames",
            Step::Retag(_) => "flow modify for another VLAN",
            Step::Commit => "commit",
        }
    }
}
