//! What the OpenFlow layer keeps with a flow record, and what it tells placement about records.

use std::ops::Range;
use std::sync::Arc;

use clock::Instant;
use datapath_api::{FlowRecord, MeterBand, MeterBandKind, MeterConfig, MeterUnit};
use flow::{FlowId, MeterId, PacketKey};
use offload::{FlowRule, ObjectSpec, ObjectStats, Provenance};
use openflow::{GroupId, PortNo};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::exports::NetflowOf;
use crate::mac_table::MacKey;
use crate::recirc::Recirc;
use crate::rule::{Rule, RuleCounters};
use crate::xlate::{LearnedFlow, Problem};

/// Told when records come, change and go: how placement hears of them. Always called after software was changed.
/// Called on the control thread; must not block.
pub trait RecordSink: Send + Sync {
    /// A record is in the datapath.
    fn installed(&self, record: &Arc<FlowRecord>);
    /// `new`, with the same id and match, has taken the place of `old`.
    fn replaced(&self, old: &Arc<FlowRecord>, new: &Arc<FlowRecord>);
    /// A record has left the datapath.
    fn removed(&self, record: &Arc<FlowRecord>);
    /// A meter of the datapath is like this now and may be lent to hardware ([`offload_meter`]), or may not any more. Called on
    /// any thread, like the next.
    fn meter(&self, _id: MeterId, _lendable: Option<ObjectSpec>) {}
    /// A meter has left the datapath.
    fn meter_removed(&self, _id: MeterId) {}
}

/// What hardware has counted, and whether it is at rest: implemented over placement.
pub trait HardwareStats: Send + Sync {
    /// Hands out everything counted since the last call, each packet once, whether the record is still there or not.
    fn drain(&self, each: &mut dyn FnMut(FlowId, HardwareCredit));
    /// Like [`HardwareStats::drain`] for a report: rather than wait for a device that hangs, leaves it all for the next time.
    fn drain_if_free(&self, each: &mut dyn FnMut(FlowId, HardwareCredit)) {
        self.drain(each);
    }
    /// Reads now what hardware has counted, for the next [`HardwareStats::drain`]; called before records take on other rules
    /// whose counters are about to be told for the last time.
    fn refresh(&self) {}
    /// Whether counts for this record may still come.
    fn holds(&self, id: FlowId) -> bool;
    /// Whether everything told to the [`RecordSink`] so far has been carried out or given up. A barrier waits for it.
    fn settled(&self) -> bool;
    /// What a meter of the datapath has counted in hardware since it was added.
    fn meter(&self, _id: MeterId) -> ObjectStats {
        ObjectStats::default()
    }
}

/// Traffic that hardware forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HardwareCredit {
    /// Packets.
    pub packets: u64,
    /// Bytes, frames without FCS.
    pub bytes: u64,
    /// Time of the last packet.
    pub used: Option<Instant>,
}

/// One table a packet went through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Visit {
    /// The bridge.
    pub bridge: u32,
    /// The table.
    pub table: u8,
    /// Whether a rule matched.
    pub matched: bool,
    /// Generation of the table.
    pub generation: u64,
}

/// A station that packets come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Learned {
    /// The bridge.
    pub bridge: u32,
    /// VLAN and address.
    pub key: MacKey,
    /// Port behind which it is.
    pub port: PortNo,
    /// The packets are gratuitous ARP.
    pub gratuitous_arp: bool,
}

/// What a translation depended on and what its traffic refreshes.
#[derive(Clone, Debug, Default)]
pub struct Dependencies {
    /// Tables looked up, with repetition.
    pub visits: SmallVec<[Visit; 4]>,
    /// Bridges and the generations of their ports and settings.
    pub configs: SmallVec<[(u32, u64); 1]>,
    /// Bridges, what was looked up in their MAC tables, and the answers.
    pub macs: SmallVec<[(u32, MacKey, Option<PortNo>); 1]>,
    /// Bridges and generations of what their snooping has found out.
    pub mcast: SmallVec<[(u32, u64); 0]>,
    /// Bridges, tables in which flows were counted, and their generations.
    pub counted: SmallVec<[(u32, u8, u64); 0]>,
    /// Bridges, groups, and their generations; 0 for one that was not there.
    pub groups: SmallVec<[(u32, GroupId, u64); 0]>,
    /// Stations that packets of this record come from.
    pub learns: SmallVec<[Learned; 1]>,
    /// Bridges whose tables had no flow for it, and whether the bridge told its controllers.
    pub misses: SmallVec<[(u32, bool); 0]>,
    /// Bridges, meters, and what the datapath knew each by, if it was there.
    pub meters: SmallVec<[(u32, u32, Option<MeterId>); 0]>,
}

/// Counters whose packets are longer than the record's: behind headers of a tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Headed {
    /// Which of the rules.
    pub rules: Range<usize>,
    /// Which of the other counters.
    pub credited: Range<usize>,
    /// By how many bytes each.
    pub bytes: u64,
}

/// What a record's actions rest on.
#[derive(Default)]
pub struct Basis {
    /// Index of the bridge, see [`crate::Switch::bridge`]; `None` when the ingress port belongs to none.
    pub bridge: Option<u32>,
    /// Rules whose counters its packets are added to, with repetition, in the order in which they were met.
    pub rules: SmallVec<[Arc<Rule>; 4]>,
    /// Other counters that its packets are added to: of patch ports, mirrors.
    pub credited: SmallVec<[Arc<RuleCounters>; 1]>,
    /// Which of both meet its packets behind headers of tunnels; within tunnels in tunnels several of these.
    pub headed: SmallVec<[Headed; 0]>,
    /// Flows that its packets learn, and refresh.
    pub learned: SmallVec<[LearnedFlow; 0]>,
    /// Translations that go on when its packets come back from the datapath.
    pub recircs: SmallVec<[Arc<Recirc>; 1]>,
    /// Rules whose timeouts a packet that ends its connection shortens: idle and hard, in seconds.
    pub fin_timeouts: SmallVec<[(Arc<Rule>, u16, u16); 0]>,
    /// Where the verdict came from.
    pub provenance: Provenance,
    /// What it depended on.
    pub deps: Dependencies,
    /// Why the translation did not do what the rules ask, when it did not.
    pub problem: Option<Problem>,
    /// Its packets go nowhere.
    pub drops: bool,
    /// The flow that its packets are counted for by NetFlow.
    pub netflow: Option<Box<NetflowOf>>,
}

/// What packets are added to.
pub(crate) struct Credits<'a> {
    pub(crate) rules: &'a [Arc<Rule>],
    pub(crate) credited: &'a [Arc<RuleCounters>],
    pub(crate) headed: &'a [Headed],
    pub(crate) visits: &'a [Visit],
    pub(crate) problem: Option<Problem>,
    pub(crate) drops: bool,
}

impl Basis {
    pub(crate) fn credits(&self) -> Credits<'_> {
        Credits {
            rules: &self.rules,
            credited: &self.credited,
            headed: &self.headed,
            visits: &self.deps.visits,
            problem: self.problem,
            drops: self.drops,
        }
    }
}

/// What a record carries in [`FlowRecord::owner`].
pub struct FlowOwner {
    /// Changes when the tables do but the actions stay.
    basis: Mutex<Arc<Basis>>,
    /// What has been credited to rules already; carried on by replacements.
    pub(crate) credit: Arc<Mutex<Credit>>,
    /// The packet that the record was made for, where it is asked for.
    pub(crate) packet: Option<Arc<MadeFor>>,
}

/// The packet that a record was made for.
#[derive(Debug)]
pub struct MadeFor {
    /// Its key, bits that the record does not match on included.
    pub key: PacketKey,
    /// Its length.
    pub bytes: u32,
}

/// How much of a record's traffic has been credited.
#[derive(Debug, Default)]
pub(crate) struct Credit {
    /// Software's counters as last read.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Time of the last packet, in software or hardware.
    pub(crate) used: Option<Instant>,
    /// Hardware's counts so far.
    pub(crate) hw_packets: u64,
    pub(crate) hw_bytes: u64,
}

impl FlowOwner {
    pub(crate) fn new(basis: Basis, credit: Arc<Mutex<Credit>>) -> Self {
        FlowOwner { basis: Mutex::new(Arc::new(basis)), credit, packet: None }
    }

    /// With the packet that it was made for.
    pub(crate) fn made_for(self, packet: Option<Arc<MadeFor>>) -> Self {
        FlowOwner { packet, ..self }
    }

    /// The packet that the record was made for; kept where a bridge is told to be as Open vSwitch, which prints its bits and
    /// does not count it.
    pub fn packet(&self) -> Option<&MadeFor> {
        self.packet.as_deref()
    }

    /// The owner's part of a record made by this crate.
    pub fn of(record: &FlowRecord) -> Option<&FlowOwner> {
        record.owner.downcast_ref()
    }

    /// What the record's actions rest on: rules, provenance, bridge.
    pub fn basis(&self) -> Arc<Basis> {
        self.basis.lock().clone()
    }

    pub(crate) fn set_basis(&self, b: Basis) {
        *self.basis.lock() = Arc::new(b);
    }

    /// Packets and bytes that hardware has counted for this record.
    pub fn hardware_totals(&self) -> (u64, u64) {
        let c = self.credit.lock();
        (c.hw_packets, c.hw_bytes)
    }

    /// When the last packet was seen by software or hardware, as of the last revalidation.
    pub fn used(&self) -> Option<Instant> {
        self.credit.lock().used
    }
}

/// The record as it is offered to hardware.
pub fn offload_rule(record: &FlowRecord) -> FlowRule {
    let provenance = FlowOwner::of(record).map(|o| o.basis().provenance.clone());
    FlowRule {
        id: record.id,
        matches: record.matches.expand(),
        actions: record.actions.clone(),
        provenance: provenance.unwrap_or_default(),
    }
}

/// A meter as hardware may have it: one band that drops, at some rate. `None` for any other.
pub fn offload_meter(config: &MeterConfig) -> Option<ObjectSpec> {
    let [MeterBand { rate, burst, kind: MeterBandKind::Drop }] = config.bands[..] else { return None };
    let (rate, burst) = (u64::from(rate), u64::from(burst));
    // As in software, a burst of 0 is what comes in a second.
    let burst = if burst == 0 { rate } else { burst };
    match config.unit {
        _ if rate == 0 => None,
        MeterUnit::Pps => Some(ObjectSpec::Meter { rate_pps: rate, rate_bps: 0, burst }),
        MeterUnit::Kbps => {
            Some(ObjectSpec::Meter { rate_pps: 0, rate_bps: rate * 1000, burst: burst * 1000 })
        }
    }
}
