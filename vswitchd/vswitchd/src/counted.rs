//! The software datapath with port counters that include what devices forward by themselves.

use std::sync::Arc;

use clock::Deadline;
use datapath::SoftDatapath;
use datapath_api::{
    Datapath, DatapathError, DatapathStats, FlowRecord, MeterConfig, MeterLimits, MeterStats, PortStats,
};
use flow::{Action, FlowId, MeterId, PortId};

use crate::ports::PortTable;

/// See the module's text.
pub struct CountedDatapath {
    soft: Arc<SoftDatapath>,
    ports: Arc<PortTable>,
}

impl CountedDatapath {
    /// `soft`, whose ports are in `ports`.
    pub fn new(soft: Arc<SoftDatapath>, ports: Arc<PortTable>) -> Self {
        CountedDatapath { soft, ports }
    }
}

impl Datapath for CountedDatapath {
    fn ports(&self) -> Vec<PortId> {
        self.soft.ports()
    }

    fn port_stats(&self, port: PortId) -> Result<PortStats, DatapathError> {
        Ok(self.ports.stats(port, self.soft.port_stats(port)?))
    }

    fn flow_put(&self, record: Arc<FlowRecord>) -> Result<(), DatapathError> {
        self.soft.flow_put(record)
    }

    fn flow_del(&self, id: FlowId) -> Result<Arc<FlowRecord>, DatapathError> {
        self.soft.flow_del(id)
    }

    fn flow_flush(&self) {
        self.soft.flow_flush();
    }

    fn flow_dump(&self, f: &mut dyn FnMut(&Arc<FlowRecord>) -> bool) {
        self.soft.flow_dump(f);
    }

    fn synchronize(&self, deadline: Deadline) -> bool {
        self.soft.synchronize(deadline)
    }

    fn execute(&self, packet: &[u8], in_port: PortId, actions: Arc<[Action]>) -> Result<(), DatapathError> {
        self.soft.execute(packet, in_port, actions)
    }

    fn meter_limits(&self) -> Option<MeterLimits> {
        self.soft.meter_limits()
    }

    fn meter_put(&self, id: MeterId, config: MeterConfig) -> Result<(), DatapathError> {
        self.soft.meter_put(id, config)
    }

    fn meter_del(&self, id: MeterId) -> Result<(), DatapathError> {
        self.soft.meter_del(id)
    }

    fn meter_stats(&self, id: MeterId) -> Result<MeterStats, DatapathError> {
        self.soft.meter_stats(id)
    }

    fn stats(&self) -> DatapathStats {
        self.soft.stats()
    }
}
