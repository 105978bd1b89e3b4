//! The asynchronous seam to a device's flow tables.
//!
//! Operations are submitted in batches and complete later, in any order between flows, in order for one flow. Counters
//! are polled in bulk and are raw: of finite width, wrapping; [`crate::ledger`] makes sense of them. They start at zero
//! with the entry (a driver whose device cannot clear them takes the first reading off), go on through a replace, and
//! never go back while the entry is there.
//!
//! When the tables are lost ([`OffloadProvider::generation`] rises), operations that were outstanding complete as
//! [`OpResult::Failed`] with nothing left, and a later operation on an old handle fails the same way.
//!
//! A provider never says [`OpResult::Installed`] to work it skipped, and never forgets an operation: each accepted
//! operation yields exactly one completion, if need be [`OpResult::Failed`] when the device dies.

use std::sync::Arc;

use clock::Instant;
use flow::PortId;

use crate::capability::{OffloadCapabilities, TableId};
use crate::objects::SharedObjects;
use crate::reject::Reject;
use crate::rule::{FlowId, FlowRule};

/// Names an entry in a device's tables. Unique within the provider, never reused while it lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HwHandle(pub u64);

/// Names a submitted operation; chosen by the submitter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u64);

/// One operation on the tables.
#[derive(Clone, Debug)]
pub enum FlowOp {
    /// Adds an entry.
    Install(OpId, FlowRule),
    /// Changes an entry to a rule with the same match: atomically when the capabilities say so, else by remove and add;
    /// then packets go to software in between. The entry stays in its table under its handle; its counters go on. A rule
    /// that fits another table only is refused.
    Replace(OpId, HwHandle, FlowRule),
    /// Removes an entry; its completion carries the final counters.
    Remove(OpId, HwHandle),
}

impl FlowOp {
    /// The operation's name.
    pub fn id(&self) -> OpId {
        match self {
            FlowOp::Install(id, _) | FlowOp::Replace(id, _, _) | FlowOp::Remove(id, _) => *id,
        }
    }
}

/// Counters of an entry as the device keeps them. Only as many low bits as the capabilities say are meaningful.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RawStats {
    /// Packets.
    pub packets: u64,
    /// Bytes, frames without FCS.
    pub bytes: u64,
    /// Host time of the last packet, when the device can tell. The provider converts device age to host time.
    pub last_used: Option<Instant>,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub enum OpResult {
    /// The entry is in effect, in this table.
    Installed(HwHandle, TableId),
    /// The entry now does the new rule's actions. Its counters at the moment of the change, when the device can tell,
    /// so that packets before it are credited to the old rule.
    Replaced(HwHandle, Option<RawStats>),
    /// The entry is gone; its last counters.
    Removed(HwHandle, RawStats),
    /// The device does not take the rule. For a replace: the old entry is gone, with these last counters.
    Rejected(Reject, Option<RawStats>),
    /// Something broke.
    Failed {
        /// What broke.
        error: OffloadError,
        /// The entry that may still be in the tables, of an installation too; with the old actions or the new. Remove it.
        /// `None`: nothing of the operation or of the entry it named is in the tables.
        left: Option<HwHandle>,
        /// Last counters of an entry that is gone, if they could be had.
        last: Option<RawStats>,
    },
}

/// A finished operation.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The operation.
    pub op: OpId,
    /// The rule's record; of a removal, the record that was in the entry.
    pub flow: FlowId,
    /// How it ended.
    pub result: OpResult,
}

/// Finished operations, oldest first.
pub type Completions = Vec<Completion>;

/// Where a bulk poll of counters has got to. Start with the default; it wraps by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StatsCursor(pub u64);

/// Counters polled together.
#[derive(Clone, Debug, Default)]
pub struct StatsBatch {
    /// Entry, its record, its counters.
    pub stats: Vec<(HwHandle, FlowId, RawStats)>,
    /// Whether this batch reached the end of the tables: every entry has been polled once since the last time.
    pub wrapped: bool,
    /// Entries that were found to be gone, by nobody's request, and that the device would not take again. Each is told once;
    /// its handle is void.
    pub lost: Vec<LostEntry>,
}

/// An entry that is no longer in the tables though nobody asked for its removal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostEntry {
    /// The entry.
    pub handle: HwHandle,
    /// Its record.
    pub flow: FlowId,
    /// Its last counters, as far as they were read.
    pub last: RawStats,
    /// Why it is not there again.
    pub why: Reject,
}

/// An entry found in a device.
#[derive(Clone, Debug)]
pub struct InstalledFlow {
    /// The entry.
    pub handle: HwHandle,
    /// What is in it.
    pub rule: FlowRule,
    /// Where.
    pub table: TableId,
    /// Its counters.
    pub stats: RawStats,
}

/// What broke. The rule is not to blame; [`Reject`] says when it is.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum OffloadError {
    #[error("the device does not answer: {0}")]
    DeviceDown(String),
    #[error("timed out: {0}")]
    TimedOut(String),
    #[error("no entry with handle {0:?}")]
    NoSuchEntry(HwHandle),
    #[error("the device misbehaved: {0}")]
    Device(String),
}

/// What [`OffloadProvider::set_ports`] asks of a device whose only port is 0: which port of the datapath that is to be, if any.
///
/// # Errors
/// [`OffloadError::Device`] when it asks for another.
pub fn only_port(ports: &[(PortId, u32)]) -> Result<Option<PortId>, OffloadError> {
    match ports {
        [] => Ok(None),
        [(id, 0)] if id.0 != u32::MAX => Ok(Some(*id)),
        _ => Err(OffloadError::Device("the device has port 0 and no other".to_owned())),
    }
}

/// A device's flow tables. See the module's text for the rules of the game; `conformance` checks them.
pub trait OffloadProvider: Send {
    /// What the device can do. The same answer until the device is changed for another.
    fn capabilities(&self) -> Arc<OffloadCapabilities>;

    /// Submits operations in order and returns how many were accepted; the rest were not looked at and may be submitted
    /// again after some completions (back-pressure).
    fn submit(&mut self, ops: &[FlowOp]) -> usize;

    /// Appends up to `budget` completions to `out` and returns how many. Does not block; drives the device's queue.
    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize;

    /// Operations accepted and not yet completed.
    fn outstanding(&self) -> usize;

    /// The device's shared objects.
    fn objects(&mut self) -> &mut dyn SharedObjects;

    /// Counters of up to `budget` entries from `cursor` on, which is moved.
    ///
    /// # Errors
    /// [`OffloadError`]; the cursor stays.
    fn poll_stats(&mut self, cursor: &mut StatsCursor, budget: usize) -> Result<StatsBatch, OffloadError>;

    /// Everything in the tables, to adopt and reconcile after a restart.
    ///
    /// # Errors
    /// [`OffloadError`].
    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError>;

    /// Removes every entry and waits for it, within a deadline of the provider's own. Counters are lost; poll them before.
    /// Outstanding operations complete as failed, their entries gone.
    ///
    /// # Errors
    /// [`OffloadError`]; what is left in the tables is unknown then and the device wants a reset.
    fn flush(&mut self) -> Result<(), OffloadError>;

    /// Whether the device answers. `Err` says why not; a provider recovers by itself and then says `Ok` again, its tables
    /// empty and [`OffloadProvider::generation`] raised.
    ///
    /// # Errors
    /// [`OffloadError::DeviceDown`].
    fn health(&self) -> Result<(), OffloadError>;

    /// How often the tables were lost (reset, removal) since the provider was made. When it rises, every handle given
    /// before is void and what was not removed must be installed again.
    fn generation(&self) -> u64;

    /// Whether the platform asks for the device (hot unplug): it is down for good, and whoever owns the provider is to drop it
    /// and every queue, for which the platform waits.
    fn is_wanted_back(&self) -> bool {
        false
    }

    /// Makes ports of the device, by its own numbers, these ports of the datapath: those newly named come up, those no longer
    /// named go down, and [`OffloadProvider::capabilities`] change with it. Unless ports are only added the tables may be
    /// emptied and the generation raised; counters are lost then, poll them before.
    ///
    /// # Errors
    /// [`OffloadError::Device`] when a port does not exist or is named twice, or the device's ports are what they are;
    /// nothing has changed then. Others as the device answers.
    fn set_ports(&mut self, _ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        Err(OffloadError::Device("its ports cannot be changed".to_owned()))
    }
}

impl<T: OffloadProvider + ?Sized> OffloadProvider for Box<T> {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        (**self).capabilities()
    }
    fn submit(&mut self, ops: &[FlowOp]) -> usize {
        (**self).submit(ops)
    }
    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize {
        (**self).poll(out, budget)
    }
    fn outstanding(&self) -> usize {
        (**self).outstanding()
    }
    fn objects(&mut self) -> &mut dyn SharedObjects {
        (**self).objects()
    }
    fn poll_stats(&mut self, cursor: &mut StatsCursor, budget: usize) -> Result<StatsBatch, OffloadError> {
        (**self).poll_stats(cursor, budget)
    }
    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        (**self).dump()
    }
    fn flush(&mut self) -> Result<(), OffloadError> {
        (**self).flush()
    }
    fn health(&self) -> Result<(), OffloadError> {
        (**self).health()
    }
    fn generation(&self) -> u64 {
        (**self).generation()
    }
    fn is_wanted_back(&self) -> bool {
        (**self).is_wanted_back()
    }
    fn set_ports(&mut self, ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        (**self).set_ports(ports)
    }
}
