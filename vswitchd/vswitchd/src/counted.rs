//! The datapaths that bridges stand on, as one: the software datapath with port counters that include what devices forward by
//! themselves, and the kernel's while bridges want it.
//!
//! A record is where its name is known, or else where its packets come in. Numbers of ports are one space.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::{Deadline, Instant};
use datapath::SoftDatapath;
use datapath_api::{
    BondConfig, BucketCounts, Datapath, DatapathError, DatapathStats, FlowRecord, MeterConfig, MeterCounts,
    MeterLimits, MeterStats, PortStats,
};
use flow::{Action, BondId, CtFilter, FieldId, FlowId, MeterId, PortId};
use offload_tc::kdp::SystemDatapath;

use crate::ports::PortTable;
use crate::system::System;

/// See the module's text.
pub struct CountedDatapath {
    soft: Arc<SoftDatapath>,
    ports: Arc<PortTable>,
    system: Arc<System>,
    /// Packets that the software datapath was given to execute.
    given: AtomicU64,
}

impl CountedDatapath {
    /// `soft`, whose ports are in `ports`, and the kernel's as `system` has it.
    pub fn new(soft: Arc<SoftDatapath>, ports: Arc<PortTable>, system: Arc<System>) -> Self {
        CountedDatapath { soft, ports, system, given: AtomicU64::new(0) }
    }

    /// How many packets the software datapath was given to execute so far.
    pub fn given_to_execute(&self) -> u64 {
        self.given.load(Ordering::Acquire)
    }

    /// The kernel's datapath if that is where a packet from `port` is: of a port that stands for a bridge, the bridge's.
    fn kernel_of(&self, port: PortId) -> Option<Arc<SystemDatapath>> {
        let k = self.system.get()?;
        let of_bridge =
            ofproto::Switch::bridge_of_pseudo_port(port).is_some_and(|b| self.system.has_bridge(b));
        (k.has_port(port) || of_bridge).then_some(k)
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
        let port = PortId(record.matches.get(FieldId::DpPort).0 as u32);
        let k = self.system.get().filter(|k| k.holds(record.id));
        // What software does in the kernel's place has records of its own.
        let elsewhere = k.is_none() && self.soft.holds(record.id);
        match k.or_else(|| self.kernel_of(port).filter(|_| !elsewhere)) {
            Some(k) => k.flow_put(record),
            None => self.soft.flow_put(record),
        }
    }

    fn flow_del(&self, id: FlowId) -> Result<Arc<FlowRecord>, DatapathError> {
        match self.system.get().filter(|k| k.holds(id)) {
            Some(k) => k.flow_del(id),
            None => self.soft.flow_del(id),
        }
    }

    fn flow_flush(&self) {
        self.soft.flow_flush();
        if let Some(k) = self.system.get() {
            k.flow_flush();
        }
    }

    fn flow_dump(&self, f: &mut dyn FnMut(&Arc<FlowRecord>) -> bool) {
        let mut go_on = true;
        self.soft.flow_dump(&mut |r| {
            go_on = f(r);
            go_on
        });
        if let Some(k) = self.system.get().filter(|_| go_on) {
            k.flow_dump(f);
        }
    }

    fn synchronize(&self, deadline: Deadline) -> bool {
        self.soft.synchronize(deadline) && self.system.get().is_none_or(|k| k.synchronize(deadline))
    }

    fn flush_connections(&self, zone: Option<u16>, which: &CtFilter) -> bool {
        let soft = self.soft.flush_connections(zone, which);
        soft && self.system.get().is_none_or(|k| k.flush_connections(zone, which))
    }

    fn tidy(&self, now: Instant) {
        self.soft.tidy(now);
        if let Some(k) = self.system.get() {
            k.tidy(now);
        }
    }

    fn execute(&self, packet: &[u8], in_port: PortId, actions: Arc<[Action]>) -> Result<(), DatapathError> {
        match self.kernel_of(in_port) {
            Some(k) => k.execute(packet, in_port, actions),
            None => {
                self.soft.execute(packet, in_port, actions)?;
                self.given.fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
        }
    }

    fn meter_limits(&self) -> Option<MeterLimits> {
        self.soft.meter_limits()
    }

    fn meter_put(&self, id: MeterId, config: MeterConfig) -> Result<(), DatapathError> {
        self.soft.meter_put(id, config.clone())?;
        self.system.meter(id, Some(config));
        Ok(())
    }

    fn meter_del(&self, id: MeterId) -> Result<(), DatapathError> {
        self.system.meter(id, None);
        self.soft.meter_del(id)
    }

    fn meter_stats(&self, id: MeterId) -> Result<MeterStats, DatapathError> {
        let mut s = self.soft.meter_stats(id)?;
        // Its packets are in the one or the other.
        if let Some(m) = self.system.get().and_then(|k| k.meter_stats(id).ok()) {
            let add = |to: &mut MeterCounts, from: &MeterCounts| {
                to.packets += from.packets;
                to.bytes += from.bytes;
            };
            add(&mut s.input, &m.input);
            s.bands.iter_mut().zip(&m.bands).for_each(|(to, from)| add(to, from));
        }
        Ok(s)
    }

    fn bond_put(&self, id: BondId, config: BondConfig) -> Result<(), DatapathError> {
        // The kernel's has no such action.
        if config.members.iter().flatten().any(|p| self.kernel_of(*p).is_some()) {
            return Err(DatapathError::Unsupported("lb_output"));
        }
        self.soft.bond_put(id, config)
    }

    fn bond_del(&self, id: BondId) -> Result<(), DatapathError> {
        self.soft.bond_del(id)
    }

    fn bond_stats(&self, id: BondId) -> Result<Vec<BucketCounts>, DatapathError> {
        self.soft.bond_stats(id)
    }

    fn bonds(&self) -> Vec<(BondId, BondConfig)> {
        self.soft.bonds()
    }

    fn stats(&self) -> DatapathStats {
        let mut s = self.soft.stats();
        if let Some(k) = self.system.get().map(|k| k.stats()) {
            s.rx_packets += k.rx_packets;
            s.megaflow_hits += k.megaflow_hits;
            s.misses += k.misses;
            s.flows += k.flows;
            s.masks += k.masks;
        }
        s
    }
}
