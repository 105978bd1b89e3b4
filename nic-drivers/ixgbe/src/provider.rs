//! The device's owner and its filters, as an [`OffloadProvider`].

use std::collections::HashMap;
use std::sync::Arc;

use clock::Deadline;
use device::driver::{Lifeline, Recovery};
use device::{DeviceBacking, RegOffset, Registers};
use flow::{FlowId, PortId};
use ixgbe_defs::pci::Mac;
use ixgbe_defs::regs;
use offload::{
    Completions, FlowOp, FlowRule, HwHandle, InTurn, InstalledFlow, NoObjects, OffloadCapabilities,
    OffloadError, OffloadProvider, OpId, OpResult, RawStats, SharedObjects, StatsBatch, StatsCursor,
    only_port,
};

use crate::capability::{FDIR_TABLE, FIVE_TUPLE_TABLE, QUEUE_DEPTH, capabilities};
use crate::config::IxgbeConfig;
use crate::filters::{self, Fdir, FiveTuples, Place};
use crate::health::Watch;
use crate::ops::Job;
use crate::port::IxgbePort;
use crate::queue::QueueState;
use crate::stats::Totals;
use crate::violation::ViolationCounts;

/// A device that is up.
pub struct Ixgbe<B: DeviceBacking> {
    /// Owns the device.
    pub provider: IxgbeProvider<B>,
    /// Its port.
    pub port: IxgbePort<B::Regs>,
}

/// A filter that is in.
pub(crate) struct Entry {
    pub rule: FlowRule,
    pub place: Place,
}

/// States of a receive and a transmit queue.
pub(crate) type QueueStates = (Arc<QueueState>, Arc<QueueState>);

/// See the module's text.
pub struct IxgbeProvider<B: DeviceBacking> {
    pub(crate) backing: B,
    pub(crate) regs: B::Regs,
    pub(crate) mac: Mac,
    pub(crate) life: Arc<Lifeline>,
    pub(crate) config: IxgbeConfig,
    pub(crate) totals: Arc<Totals>,
    /// By queue pair.
    pub(crate) states: Vec<QueueStates>,
    pub(crate) watches: Vec<Watch>,
    pub(crate) max_frame_bytes: usize,
    pub(crate) fdir: Fdir,
    pub(crate) five_tuples: FiveTuples,
    pub(crate) entries: HashMap<HwHandle, Entry>,
    pub(crate) ops: InTurn,
    pub(crate) job: Option<Job>,
    pub(crate) capabilities: Arc<OffloadCapabilities>,
    objects: NoObjects,
    next_handle: u64,
    pub(crate) recovery: Recovery,
}

impl<B: DeviceBacking> IxgbeProvider<B> {
    pub(crate) fn new(
        backing: B,
        regs: B::Regs,
        mac: Mac,
        life: Arc<Lifeline>,
        max_frame_bytes: usize,
        config: IxgbeConfig,
    ) -> Self {
        let recovery = Recovery::new(config.health, backing.errors(), backing.now());
        let capabilities = Arc::new(capabilities(backing.name(), config.port));
        let pairs = usize::from(config.queue_pairs);
        IxgbeProvider {
            backing,
            regs,
            mac,
            life,
            totals: Arc::default(),
            states: (0..pairs).map(|_| Default::default()).collect(),
            watches: vec![Watch::default(); pairs],
            max_frame_bytes,
            config,
            fdir: Fdir::new(),
            five_tuples: FiveTuples::new(),
            entries: HashMap::new(),
            ops: InTurn::new(QUEUE_DEPTH),
            job: None,
            capabilities,
            objects: NoObjects,
            next_handle: 0,
            recovery,
        }
    }

    /// What the device did against its datasheet so far.
    pub fn violations(&self) -> ViolationCounts {
        ViolationCounts::of(&self.life)
    }

    /// The device, for tests that reach around the driver.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    /// Filters in the device: of the flow director, and 5-tuple filters.
    pub fn filters(&self) -> (usize, usize) {
        let fdir = self.entries.values().filter(|e| matches!(e.place, Place::Fdir { .. })).count();
        (fdir, self.entries.len() - fdir)
    }

    /// Frames that filters have dropped.
    pub fn filtered(&self) -> u64 {
        self.totals.filtered(&self.regs)
    }

    pub(crate) fn finish(&mut self, op: OpId, flow: FlowId, result: OpResult) {
        self.ops.finish(op, flow, result);
    }

    pub(crate) fn new_handle(&mut self) -> HwHandle {
        self.next_handle += 1;
        HwHandle(self.next_handle)
    }

    pub(crate) fn flow_of(&self, h: HwHandle) -> FlowId {
        self.entries.get(&h).map(|e| e.rule.id).unwrap_or_default()
    }

    /// Nothing is in the device's filters any more.
    pub(crate) fn forget_filters(&mut self) {
        self.fdir.forget();
        self.five_tuples = FiveTuples::new();
        self.entries.clear();
    }

    fn down_error(&self) -> Option<OffloadError> {
        self.recovery.why().map(|w| OffloadError::DeviceDown(w.to_owned()))
    }

    fn sorted_handles(&self) -> Vec<HwHandle> {
        let mut v: Vec<_> = self.entries.keys().copied().collect();
        v.sort_unstable();
        v
    }
}

impl<B: DeviceBacking> OffloadProvider for IxgbeProvider<B> {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        self.capabilities.clone()
    }

    fn submit(&mut self, ops: &[FlowOp]) -> usize {
        self.ops.submit(ops, self.job.is_some())
    }

    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize {
        self.check();
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
        if let Some(e) = self.down_error() {
            return Err(e);
        }
        // Filters have no counters; that they are there is all there is to tell.
        let all = self.sorted_handles();
        let from = all.partition_point(|h| h.0 < cursor.0);
        let some = all[from..].iter().take(budget);
        let stats = some.map(|h| (*h, self.flow_of(*h), RawStats::default())).collect();
        let batch = StatsBatch { stats, wrapped: from + budget >= all.len(), ..StatsBatch::default() };
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
        // The device was reset when this driver took it, so this is all.
        let flow = |h: &HwHandle| {
            let e = self.entries.get(h)?;
            let table = if matches!(e.place, Place::FiveTuple(_)) { FIVE_TUPLE_TABLE } else { FDIR_TABLE };
            Some(InstalledFlow { handle: *h, rule: e.rule.clone(), table, stats: RawStats::default() })
        };
        Ok(self.sorted_handles().iter().filter_map(flow).collect())
    }

    fn flush(&mut self) -> Result<(), OffloadError> {
        self.settle();
        if let Some(e) = self.down_error() {
            return Err(e);
        }
        for e in self.entries.values() {
            if let Place::FiveTuple(i) = e.place {
                self.regs.write32(RegOffset(regs::ftqf(i)), 0);
            }
        }
        self.forget_filters();
        self.fdir.initialize(&self.regs, Default::default());
        let due = Deadline::after(self.backing.now(), self.config.step_timeout);
        let waited = self.backing.wait_until(&mut || filters::is_initialized(&self.regs) != Some(false), due);
        match filters::is_initialized(&self.regs) {
            Some(true) => Ok(()),
            _ => {
                let error = OffloadError::TimedOut("the flow director's tables".into());
                self.fail(format!("the flow director's tables are not initialized: {waited:?}"));
                Err(error)
            }
        }
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
        let port = only_port(ports)?;
        if port == self.config.port {
            return Ok(());
        }
        if !self.entries.is_empty() && !self.recovery.is_down() {
            self.flush()?;
            self.recovery.lose_contents();
        }
        self.config.port = port;
        self.life.set_ports(port.iter().map(|p| (p.0, 0)));
        self.capabilities = Arc::new(capabilities(self.backing.name(), port));
        Ok(())
    }
}

impl<B: DeviceBacking> Drop for IxgbeProvider<B> {
    fn drop(&mut self) {
        self.life.down();
        self.regs.write32(RegOffset(regs::RXCTRL), 0);
        self.regs.write32(RegOffset(regs::CTRL), ixgbe_defs::bits::ctrl::RST);
        // No DMA afterwards, so that buffers can go home.
        let _ = self.backing.set_bus_master(false);
        self.life.reclaim_parked();
    }
}
