//! The device's owner: it looks whether the device lives and brings it back. As it has no flow tables, it is an
//! [`OffloadProvider`] that refuses every rule with [`Reject::NoTables`].

use std::collections::VecDeque;
use std::sync::Arc;

use clock::Instant;
use device::driver::{Lifeline, Recovery};
use device::{DeviceBacking, Iova};
use flow::PortId;
use offload::{
    Completion, Completions, FlowOp, InstalledFlow, NoObjects, OffloadCapabilities, OffloadError,
    OffloadProvider, OpResult, Reject, SharedObjects, StatsBatch, StatsCursor, only_port,
};
use virtio_net_defs::feature;
use virtio_net_defs::regs::{self, status};

use crate::bring_up::Agreed;
use crate::config::VirtioConfig;
use crate::packed_ring::PackedRing;
use crate::port::VirtioPort;
use crate::queue::Slot;
use crate::ring::Ring;
use crate::split_ring::SplitRing;
use crate::transport::Transport;
use crate::violation::ViolationCounts;

/// Operations that may be outstanding: they are answered at the next poll.
const QUEUE_DEPTH: usize = 64;

/// A device that is up.
pub struct VirtioNet<B: DeviceBacking> {
    /// Owns the device.
    pub provider: VirtioProvider<B>,
    /// Its port.
    pub port: VirtioPort<B::Regs>,
}

/// See the module's text.
pub struct VirtioProvider<B: DeviceBacking> {
    pub(crate) backing: B,
    pub(crate) transport: Transport<B::Regs>,
    pub(crate) life: Arc<Lifeline>,
    pub(crate) agreed: Agreed,
    /// Receive and transmit queue of each pair, one after the other.
    pub(crate) slots: Vec<Arc<Slot<B::Regs>>>,
    pub(crate) config: VirtioConfig,
    pub(crate) control_iova: Option<Iova>,
    /// Where each queue waits for the device, and since when.
    stuck: Vec<Option<(u32, Instant)>>,
    /// Buffers used that were not posted, before this life.
    strays_before: u64,
    recovery: Recovery,
    capabilities: Arc<OffloadCapabilities>,
    objects: NoObjects,
    done: VecDeque<Completion>,
}

impl<B: DeviceBacking> VirtioProvider<B> {
    pub(crate) fn new(
        backing: B,
        transport: Transport<B::Regs>,
        life: Arc<Lifeline>,
        agreed: Agreed,
        slots: Vec<Arc<Slot<B::Regs>>>,
        config: VirtioConfig,
    ) -> Self {
        let recovery = Recovery::new(config.health, backing.errors(), backing.now());
        let capabilities = Arc::new(capabilities(backing.name(), config.port));
        VirtioProvider {
            backing,
            transport,
            life,
            agreed,
            slots,
            config,
            control_iova: None,
            stuck: Vec::new(),
            strays_before: 0,
            recovery,
            capabilities,
            objects: NoObjects,
            done: VecDeque::new(),
        }
    }

    /// What the device did against its specification so far.
    pub fn violations(&self) -> ViolationCounts {
        ViolationCounts::of(&self.life)
    }

    /// What driver and device have agreed on.
    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// The device, for tests that reach around the driver.
    pub fn backing(&self) -> &B {
        &self.backing
    }

    fn complaint(&mut self) -> Option<String> {
        if let Some(why) = self.recovery.complaint(&self.life, self.backing.errors()) {
            return Some(why);
        }
        if self.agreed.has(feature::RING_PACKED) && self.strays() > self.strays_before {
            // Descriptors are used where they were posted: a stray one took the place of another, which is never used.
            return Some(
                "it used a buffer that was not posted: it is elsewhere in the ring than the driver"
                    .to_owned(),
            );
        }
        if !self.recovery.look(self.backing.now()) {
            return None;
        }
        match self.transport.status() {
            u8::MAX => Some("registers read all ones".to_owned()),
            s if s & status::NEEDS_RESET != 0 => Some("it says that it needs a reset".to_owned()),
            s if s & status::DRIVER_OK == 0 => Some("device was reset behind the driver's back".to_owned()),
            _ => self.sends_nothing(),
        }
    }

    fn strays(&self) -> u64 {
        let v = ViolationCounts::of(&self.life);
        v.rx_id + v.tx_id
    }

    /// Whether the device has sat on a buffer that is to be sent for too long.
    fn sends_nothing(&mut self) -> Option<String> {
        let now = self.backing.now();
        let is_used = if self.agreed.has(feature::RING_PACKED) {
            PackedRing::is_used_at
        } else {
            SplitRing::is_used_at
        };
        self.stuck.resize(self.slots.len(), None);
        for (slot, stuck) in self.slots.iter().zip(&mut self.stuck) {
            let at = slot.stuck_at(is_used);
            *stuck = match (at, *stuck) {
                (Some(at), Some((before, since))) if at == before => Some((at, since)),
                (at, _) => at.map(|at| (at, now)),
            };
            let since = stuck.map_or(now, |(_, since)| since);
            if now.since(since) > self.config.tx_timeout {
                return Some(format!(
                    "queue {} sends nothing within {:?}",
                    slot.index, self.config.tx_timeout
                ));
            }
        }
        None
    }

    /// Gives the device up when it deserves it, and tries to bring it back when it is time.
    fn look_after(&mut self) {
        let now = self.backing.now();
        if !self.recovery.is_down()
            && let Some(why) = self.complaint()
        {
            self.recovery.fail(self.backing.name(), &self.life, why, now);
        }
        if !self.recovery.is_due(self.backing.errors(), now) {
            return;
        }
        let result = self.reset_and_restart();
        self.strays_before = self.strays();
        let now = self.backing.now();
        let name = self.backing.name();
        match result {
            Ok(()) => self.recovery.came_back(name, &self.life, self.backing.errors(), now),
            Err(e) => self.recovery.stays_down(name, e.to_string(), now),
        }
    }

    fn refuse(&mut self, op: &FlowOp) {
        let (flow, result) = match op {
            FlowOp::Install(_, rule) => (rule.id, OpResult::Rejected(Reject::NoTables, None)),
            FlowOp::Replace(_, h, rule) => {
                let error = OffloadError::NoSuchEntry(*h);
                (rule.id, OpResult::Failed { error, left: None, last: None })
            }
            FlowOp::Remove(_, h) => {
                let error = OffloadError::NoSuchEntry(*h);
                (flow::FlowId::default(), OpResult::Failed { error, left: None, last: None })
            }
        };
        self.done.push_back(Completion { op: op.id(), flow, result });
    }
}

/// A device without tables.
fn capabilities(device: &str, port: Option<PortId>) -> OffloadCapabilities {
    OffloadCapabilities {
        device: device.to_owned(),
        tables: Vec::new(),
        entry: Vec::new(),
        ports: port.into_iter().collect(),
        zero_fields: Vec::new(),
        atomic_replace: false,
        resume_point: false,
        objects: Vec::new(),
        queue_depth: QUEUE_DEPTH,
    }
}

impl<B: DeviceBacking> OffloadProvider for VirtioProvider<B> {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        self.capabilities.clone()
    }

    fn submit(&mut self, ops: &[FlowOp]) -> usize {
        let n = ops.len().min(QUEUE_DEPTH.saturating_sub(self.done.len()));
        for op in &ops[..n] {
            self.refuse(op);
        }
        n
    }

    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize {
        self.look_after();
        let n = budget.min(self.done.len());
        out.extend(self.done.drain(..n));
        n
    }

    fn outstanding(&self) -> usize {
        self.done.len()
    }

    fn objects(&mut self) -> &mut dyn SharedObjects {
        &mut self.objects
    }

    fn poll_stats(&mut self, cursor: &mut StatsCursor, _: usize) -> Result<StatsBatch, OffloadError> {
        *cursor = StatsCursor::default();
        Ok(StatsBatch { wrapped: true, ..StatsBatch::default() })
    }

    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        Ok(Vec::new())
    }

    fn flush(&mut self) -> Result<(), OffloadError> {
        Ok(())
    }

    fn health(&self) -> Result<(), OffloadError> {
        match self.recovery.why() {
            Some(why) => Err(OffloadError::DeviceDown(why.to_owned())),
            None => Ok(()),
        }
    }

    fn generation(&self) -> u64 {
        self.recovery.generation()
    }

    fn is_wanted_back(&self) -> bool {
        self.backing.errors().unplug_requested()
    }

    fn set_ports(&mut self, ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        let port = only_port(ports)?;
        if port != self.config.port {
            self.config.port = port;
            self.life.set_ports(port.iter().map(|p| (p.0, 0)));
            self.capabilities = Arc::new(capabilities(self.backing.name(), port));
        }
        Ok(())
    }
}

impl<B: DeviceBacking> Drop for VirtioProvider<B> {
    fn drop(&mut self) {
        self.life.down();
        self.transport.write8(regs::DEVICE_STATUS, 0);
        // No DMA afterwards, so that buffers can go home.
        let _ = self.backing.set_bus_master(false);
        self.life.reclaim_parked();
    }
}
