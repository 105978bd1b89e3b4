//! Between the OpenFlow layer and placement: which records are offered to hardware, and what hardware has counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use datapath_api::FlowRecord;
use flow::{FlowId, MeterId};
use offload::{ObjectSpec, ObjectStats, Reject, Status};
use ofproto::{FlowOwner, HardwareCredit, HardwareStats, RecordSink, offload_rule};
use parking_lot::RwLock;

use crate::placing::Placing;

/// Offers records of the bridges that may use hardware.
pub struct Hoisting {
    placing: Arc<Placing>,
    /// Indexes of bridges whose flows stay in software.
    software_only: RwLock<BTreeSet<u32>>,
}

impl Hoisting {
    /// Offers every bridge's records to `placing`.
    pub fn new(placing: Arc<Placing>) -> Self {
        Hoisting { placing, software_only: RwLock::default() }
    }

    /// Says whether a bridge's flows may be in hardware; `records` are all there are, of which those of the bridge follow.
    pub fn set_may_hoist(&self, bridge: u32, may: bool, records: &[Arc<FlowRecord>]) {
        let changed = match may {
            true => self.software_only.write().remove(&bridge),
            false => self.software_only.write().insert(bridge),
        };
        if !changed {
            return;
        }
        let of_bridge = |r: &&Arc<FlowRecord>| {
            FlowOwner::of(r).and_then(|o| o.basis().bridge).is_some_and(|b| b == bridge)
        };
        for r in records.iter().filter(of_bridge) {
            if may {
                self.placing.offer(r, offload_rule(r));
            } else {
                self.placing.withdraw(r.id);
            }
        }
    }

    /// Forgets what was said of a bridge that is no more.
    pub fn forget(&self, bridge: u32) {
        self.software_only.write().remove(&bridge);
    }

    /// Whether a bridge's flows may be in hardware.
    pub fn may_hoist(&self, bridge: u32) -> bool {
        !self.software_only.read().contains(&bridge)
    }

    /// The engine.
    pub fn placing(&self) -> &Arc<Placing> {
        &self.placing
    }

    fn is_offered(&self, record: &FlowRecord) -> bool {
        FlowOwner::of(record).and_then(|o| o.basis().bridge).is_none_or(|b| self.may_hoist(b))
    }

    /// Where a record is, and why.
    pub fn status(&self, record: &FlowRecord) -> Status {
        if !self.is_offered(record) {
            return Status::Software(Reject::Disabled);
        }
        // Not followed yet when the control thread has not come round since the forwarding thread made it: then the
        // capabilities say what will become of it.
        self.placing.status(record.id).unwrap_or_else(|| {
            match self.placing.would_fit(&offload_rule(record)) {
                _ if !self.placing.is_enabled() => Status::Software(Reject::Disabled),
                Ok(_) => Status::Pending,
                Err(why) => Status::Software(why),
            }
        })
    }
}

impl RecordSink for Hoisting {
    fn installed(&self, record: &Arc<FlowRecord>) {
        if self.is_offered(record) {
            self.placing.offer(record, offload_rule(record));
        }
    }

    fn replaced(&self, old: &Arc<FlowRecord>, new: &Arc<FlowRecord>) {
        if self.is_offered(new) {
            self.placing.replace(old.id, new, offload_rule(new));
        } else {
            self.placing.withdraw(old.id);
        }
    }

    fn removed(&self, record: &Arc<FlowRecord>) {
        self.placing.withdraw(record.id);
    }

    fn meter(&self, id: MeterId, lendable: Option<ObjectSpec>) {
        self.placing.set_meter(id, lendable);
    }

    fn meter_removed(&self, id: MeterId) {
        self.placing.forget_meter(id);
    }
}

impl HardwareStats for Hoisting {
    fn drain(&self, each: &mut dyn FnMut(FlowId, HardwareCredit)) {
        self.placing.drain(&mut |id, packets, bytes, used| each(id, HardwareCredit { packets, bytes, used }));
    }

    fn drain_if_free(&self, each: &mut dyn FnMut(FlowId, HardwareCredit)) {
        let each = &mut |id, packets, bytes, used| each(id, HardwareCredit { packets, bytes, used });
        self.placing.drain_if_free(each);
    }

    fn refresh(&self) {
        self.placing.refresh();
    }

    fn holds(&self, id: FlowId) -> bool {
        self.placing.holds(id)
    }

    fn settled(&self) -> bool {
        self.placing.settled()
    }

    fn meter(&self, id: MeterId) -> ObjectStats {
        self.placing.meter(id)
    }
}
