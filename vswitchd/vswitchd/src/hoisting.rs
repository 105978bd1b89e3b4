//! Between the OpenFlow layer and placement: which records are offered to hardware, and what hardware has counted.

use std::collections::BTreeSet;
use std::sync::Arc;

use datapath_api::FlowRecord;
use flow::{FlowId, MeterId};
use offload::{ObjectSpec, ObjectStats, Reject, Status};
use ofproto::{FlowOwner, HardwareCredit, HardwareStats, RecordSink, Switch, offload_rule};
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

    /// Says whether a bridge's flows may be in hardware; those that `layer` has told of follow.
    pub fn set_may_hoist(&self, bridge: u32, may: bool, layer: &Switch) {
        let changed = match may {
            true => self.software_only.write().remove(&bridge),
            false => self.software_only.write().insert(bridge),
        };
        if changed {
            self.look_again(layer, |r| bridge_of(r) == Some(bridge));
        }
    }

    /// The first device is there: offers what was not offered for want of one.
    pub fn device_added(&self, layer: &Switch) {
        self.look_again(layer, |_| true);
    }

    /// Offers those of the records that `layer` has told of that may be in hardware now, and takes out those that may not.
    fn look_again(&self, layer: &Switch, which: impl Fn(&FlowRecord) -> bool) {
        layer.for_each_told(&mut |r| {
            if !which(r) {
                return;
            }
            if self.is_offered(r) {
                self.placing.offer(r, offload_rule(r));
            } else {
                self.placing.withdraw(r.id);
            }
        });
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

    /// Whether a record may be in hardware. Without a device none is followed, which would cost time and memory for each.
    fn is_offered(&self, record: &FlowRecord) -> bool {
        self.placing.has_devices() && self.is_of_hoisted_bridge(record)
    }

    fn is_of_hoisted_bridge(&self, record: &FlowRecord) -> bool {
        bridge_of(record).is_none_or(|b| self.may_hoist(b))
    }

    /// Where a record is, and why.
    pub fn status(&self, record: &FlowRecord) -> Status {
        if !self.is_of_hoisted_bridge(record) {
            return Status::Software(Reject::Disabled);
        }
        // Not followed when there is no device, nor yet when the control thread has not come round since the forwarding thread
        // made it: then the capabilities say what will become of it.
        self.placing.status(record.id).unwrap_or_else(|| {
            match self.placing.would_fit(&offload_rule(record)) {
                _ if !self.placing.is_enabled() => Status::Software(Reject::Disabled),
                Ok(_) => Status::Pending,
                Err(why) => Status::Software(why),
            }
        })
    }
}

/// Index of the bridge that a record is of.
fn bridge_of(record: &FlowRecord) -> Option<u32> {
    FlowOwner::of(record).and_then(|o| o.basis().bridge)
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

#[cfg(test)]
mod tests {
    use clock::{Clock, ManualClock};
    use datapath::{DatapathConfig, SoftDatapath};
    use datapath_api::{Datapath, Miss, MissHandler};
    use flow::PortId;
    use flow::frame::FrameBuilder;
    use offload::PlacementConfig;
    use offload::memory::{MemoryProvider, test_capabilities};
    use ofproto::{BridgeConfig, Port, SwitchConfig};
    use openflow::PortNo;
    use openflow::number::MacAddr;

    use super::*;
    use crate::poke::Poke;

    #[test]
    fn records_are_offered_from_when_there_is_a_device() {
        let clock = Arc::new(ManualClock::new());
        let config = PlacementConfig { min_pps: 0, ..PlacementConfig::default() };
        let placing = Arc::new(Placing::new(config, clock.clone(), Arc::<Poke>::default()));
        let hoisting = Arc::new(Hoisting::new(placing.clone()));
        let layer = Switch::new(clock.clone(), SwitchConfig::default());
        let dp = SoftDatapath::new(DatapathConfig::default(), clock.clone(), layer.clone(), layer.clone())
            .unwrap();
        layer.set_datapath(dp.clone());
        layer.set_record_sink(hoisting.clone());
        let bridge = layer.add_bridge(BridgeConfig::new("br0", 1));
        for n in 1..=2 {
            let name = format!("p{n}");
            bridge.put_port(Port::new(PortNo(n), PortId(n), &name, MacAddr([2, 0, 0, 0, 0, n as u8])));
        }
        let rule = openflow::text::parse_file("udp,tp_dst=53,actions=output:2", &|_| None).unwrap();
        bridge.apply(&rule, clock.now()).unwrap();
        let mut answers = Vec::new();
        let frame = FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 53).build();
        let miss = Miss { key: flow::parse(&frame, PortId(1)).unwrap().key, len_bytes: 60, tcp_flags: 0 };
        layer.translate(&[miss], clock.now(), &mut answers);
        let record = answers[0].record().unwrap().clone();
        dp.flow_put(record.clone()).unwrap();
        layer.revalidate(clock.now());
        assert_eq!(placing.status(record.id), None, "no device, nothing to follow it for");
        assert!(matches!(hoisting.status(&record), Status::Software(_)));

        assert!(placing.add_device("nic0", Box::new(MemoryProvider::new(test_capabilities(8, 8)))));
        hoisting.device_added(&layer);
        assert!(placing.status(record.id).is_some());
        clock.advance(std::time::Duration::from_secs(1));
        placing.tick(clock.now());
        placing.tick(clock.now());
        assert!(
            matches!(hoisting.status(&record), Status::Hardware { .. }),
            "{:?}",
            hoisting.status(&record)
        );
        hoisting.set_may_hoist(bridge.index(), false, &layer);
        placing.tick(clock.now());
        assert_eq!(hoisting.status(&record), Status::Software(Reject::Disabled));

        drop(placing.remove_device("nic0"));
        assert!(!placing.has_devices());
    }
}
