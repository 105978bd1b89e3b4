//! The documents that the `hoist/*` commands answer with.
//!
//! One definition for the daemon that writes them and the command line that reads them; `hoist --json` prints them as
//! they are. Names and meanings of members are stable: members are added, not changed. Counts are packets or bytes since
//! the start, bytes without FCS; times are milliseconds unless the name says otherwise.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Answer to `hoist/status`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Program and version.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Run directory.
    pub run_dir: String,
    /// Time since the start.
    pub uptime_ms: u64,
    /// Where the configuration comes from.
    #[serde(default)]
    pub configuration: String,
    /// What is configured and could not be had, each with its reason.
    #[serde(default)]
    pub problems: Vec<Problem>,
    /// Bridges, in the order of the configuration.
    pub bridges: Vec<Bridge>,
    /// Devices, in the order of the configuration.
    pub devices: Vec<DeviceHealth>,
    /// The datapath that all bridges share.
    pub datapath: Datapath,
}

/// Something that is configured and could not be had.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Problem {
    /// `port`, `device`, `wire` or `listen`.
    pub kind: String,
    /// Its bridge, or nothing for a device.
    pub bridge: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub why: String,
}

/// A bridge.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Bridge {
    /// Name.
    pub name: String,
    /// 16 hex digits.
    pub datapath_id: String,
    /// `secure` or `standalone`.
    pub fail_mode: String,
    /// Number of ports.
    pub ports: usize,
    /// Controllers that were configured.
    pub controllers: Vec<Controller>,
    /// Where it listens for OpenFlow.
    pub listen: Vec<String>,
    /// OpenFlow connections that stand now, of both kinds.
    pub connections: usize,
    /// OpenFlow flow entries.
    pub openflow_flows: usize,
    /// Placement of its flows in hardware.
    pub offload: Offload,
}

/// A configured controller.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Controller {
    /// Stream name.
    pub target: String,
    /// Whether a connection stands.
    pub connected: bool,
    /// What the connection is doing, or why there is none.
    pub state: String,
}

/// The datapath: software, and what hardware forwards in its stead.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Datapath {
    /// Packets received by software.
    pub rx_packets: u64,
    /// Of these, found in the exact-match cache.
    pub exact_hits: u64,
    /// Of these, found among the megaflows.
    pub megaflow_hits: u64,
    /// Of these, classified by the tables themselves, without a record.
    #[serde(default)]
    pub shortcuts: u64,
    /// Of these, translated through the OpenFlow tables.
    pub misses: u64,
    /// Packets dropped, by reason; reasons without drops are left out.
    pub drops: BTreeMap<String, u64>,
    /// Packets with a malformed or truncated header, by reason; they are forwarded by the headers around it. Reasons that did
    /// not occur are left out.
    #[serde(default)]
    pub malformed: BTreeMap<String, u64>,
    /// Flow records.
    pub flows: usize,
    /// Distinct masks among them.
    pub masks: usize,
    /// Packets forwarded by hardware.
    pub hardware_packets: u64,
    /// Bytes forwarded by hardware.
    pub hardware_bytes: u64,
    /// What placement did, by name.
    pub placement: BTreeMap<String, u64>,
    /// Connections in hardware.
    #[serde(default)]
    pub connections: Connections,
}

/// Tracked connections, as far as hardware has to do with them.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Connections {
    /// In hardware now.
    pub in_hardware: usize,
    /// Handed over, in all.
    pub handed_over: u64,
    /// Taken back, in all.
    pub taken_back: u64,
    /// Offered to a device that did not take them, in all.
    pub refused: u64,
    /// Packets that hardware forwarded of them, as of the last look.
    pub packets: u64,
    /// Established ones that stayed in software, by reason.
    pub stayed: BTreeMap<String, u64>,
}

/// Placement of a bridge's flows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Offload {
    /// Whether flows are placed in hardware.
    pub enabled: bool,
    /// Flow records in hardware.
    pub hardware_flows: usize,
    /// Flow records on their way to hardware.
    pub pending_flows: usize,
    /// Flow records in software, by kind of reason.
    pub software_flows: BTreeMap<String, usize>,
    /// Packets that hardware forwarded for the flow records there are now.
    pub hardware_packets: u64,
    /// Bytes that hardware forwarded for the flow records there are now.
    pub hardware_bytes: u64,
}

/// How a device is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DeviceHealth {
    /// Name in the configuration.
    pub name: String,
    /// `sim`.
    pub kind: String,
    /// Whether it answers.
    pub up: bool,
    /// Why not; empty when it does.
    pub why_down: String,
    /// How often its tables were lost by a reset.
    pub resets: u64,
}

/// A flow record: an element of the answer to `hoist/flows` and `hoist/why`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Flow {
    /// Number, unique within the process.
    pub id: u64,
    /// Bridge.
    pub bridge: String,
    /// What it matches, in datapath syntax.
    pub matches: String,
    /// What is done, in datapath syntax.
    pub actions: String,
    /// Packets, software and hardware together.
    pub packets: u64,
    /// Bytes, software and hardware together.
    pub bytes: u64,
    /// Of the packets, those that hardware forwarded.
    pub hardware_packets: u64,
    /// Of the bytes, those that hardware forwarded.
    pub hardware_bytes: u64,
    /// Time since the last packet; null when there was none.
    pub used_ms_ago: Option<u64>,
    /// `hardware`, `pending` or `software`.
    pub placement: String,
    /// Device it is in; null when in software.
    pub device: Option<String>,
    /// The device's table it is in; null when in software.
    pub table: Option<String>,
    /// OpenFlow rules whose verdict it is.
    pub rules: Vec<Rule>,
    /// Why it is not in hardware; null when it is.
    pub why: Option<Why>,
}

/// An OpenFlow rule.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rule {
    /// OpenFlow table.
    pub table: u8,
    /// Cookie, hex with 0x.
    pub cookie: String,
}

/// Why a flow is not in hardware.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Why {
    /// `policy`, `placement`, `capabilities` or `device`.
    pub layer: String,
    /// Kind of reason: `field`, `mask`, `action`, `table_full`, ...
    pub kind: String,
    /// The device's table that came closest, when there is one.
    pub table: Option<String>,
    /// The field that did not fit, when it was a field.
    pub field: Option<String>,
    /// The action that did not fit, when it was an action.
    pub action: Option<String>,
    /// The reason in a sentence.
    pub text: String,
    /// What would make it fit, in a sentence.
    pub remedy: String,
    /// Whether it is tried again by itself.
    pub transient: bool,
}

/// Traffic that has no flow record: translated packet by packet, for a reason. An element of the answer to `hoist/why`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Uncached {
    /// Packets.
    pub packets: u64,
    /// Why no record is kept.
    pub reason: String,
}

/// Answer to `hoist/why`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WhyReport {
    /// Flow records that were asked for; without a filter, those that are not in hardware.
    pub flows: Vec<Flow>,
    /// Traffic without records.
    pub uncached: Vec<Uncached>,
    /// Connections in hardware, and why others are not.
    #[serde(default)]
    pub connections: Connections,
}

/// Element of the answer to `hoist/devices`: a configured device.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Device {
    /// How it is.
    #[serde(flatten)]
    pub health: DeviceHealth,
    /// What it says it is.
    pub model: String,
    /// Whether it is simulated.
    pub simulated: bool,
    /// Its ports.
    pub ports: Vec<DevicePort>,
    /// Its flow tables.
    pub tables: Vec<DeviceTable>,
    /// Whether a changed entry goes from old to new without a packet seeing a mixture.
    pub atomic_replace: bool,
}

/// A port of a device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DevicePort {
    /// Number on the device.
    pub number: u16,
    /// Name of the bridge port that it is; null when unused.
    pub port: Option<String>,
    /// Whether the link is up.
    pub link_up: bool,
}

/// A flow table of a device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DeviceTable {
    /// Name.
    pub name: String,
    /// `exact`, `ternary` or `lpm`.
    pub kind: String,
    /// Entries in use.
    pub used: usize,
    /// Entries there are.
    pub entries: usize,
    /// Fields it can match.
    pub fields: Vec<String>,
    /// Actions it can perform.
    pub actions: Vec<String>,
    /// Bits of the packet counter of an entry; 0 when there is none.
    pub packet_counter_bits: u8,
    /// Bits of the byte counter of an entry; 0 when there is none.
    pub byte_counter_bits: u8,
}

/// Element of the answer to `hoist/sim`: a simulated device.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Sim {
    /// Device.
    pub device: String,
    /// Device clock cycles since the start.
    pub cycles: u64,
    /// Device clock in Hz.
    pub clock_hz: u64,
    /// Simulated time, nanoseconds: not host time.
    pub simulated_ns: u64,
    /// Host time since the device was started, nanoseconds.
    pub host_ns: u64,
    /// Stages of the pipeline.
    pub stages: Vec<SimStage>,
    /// Packets dropped, by place and reason; those without drops are left out.
    pub drops: BTreeMap<String, u64>,
    /// Other counters of the device, by name.
    pub counters: BTreeMap<String, u64>,
}

/// A stage of a simulated pipeline.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct SimStage {
    /// Name.
    pub name: String,
    /// What it has handled (packets, unless the name says otherwise).
    pub handled: u64,
    /// Cycles it was busy.
    pub busy_cycles: u64,
    /// Cycles it could not move on because the next stage was full.
    pub stalled_cycles: u64,
}

impl SimStage {
    /// Busy cycles per cycle, 0 to 1.
    pub fn utilisation(&self, cycles: u64) -> f64 {
        if cycles == 0 { 0.0 } else { self.busy_cycles as f64 / cycles as f64 }
    }
}

/// The answer to `hoist/perf`: what the forwarding cores have done since the switch was started.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Perf {
    /// Rate of the time-stamp counter: what a cycle is.
    pub cycles_per_second: u64,
    /// How long the switch has run, in milliseconds.
    pub uptime_ms: u64,
    /// The cores.
    pub cores: Vec<CorePerf>,
}

/// A forwarding core. Cycles are of the time-stamp counter.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct CorePerf {
    /// Its number.
    pub core: usize,
    /// The processor that it is pinned to.
    pub processor: Option<usize>,
    /// Packets received.
    pub rx_packets: u64,
    /// Lookups: packets received, and again each time that one was recirculated.
    pub passes: u64,
    /// Of the lookups, those that the exact-match cache answered.
    pub exact_hits: u64,
    /// Those that megaflows answered.
    pub megaflow_hits: u64,
    /// Those that were classified by the tables themselves.
    pub shortcuts: u64,
    /// Those that were translated.
    pub misses: u64,
    /// Masks probed for those that megaflows answered.
    pub masks_probed: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bursts in which they were sent.
    pub tx_bursts: u64,
    /// Packets dropped, whatever the reason; `hoist status` has the reasons.
    pub drops: u64,
    /// Flows that the exact-match cache forgot because its memory was used up.
    #[serde(default)]
    pub evicted: u64,
    /// Flow records that the table had no room for; their packets were forwarded.
    #[serde(default)]
    pub refused: u64,
    /// Cycles of polls that had packets.
    pub busy_cycles: u64,
    /// Cycles of polls that had none.
    pub idle_cycles: u64,
    /// Polls that had packets.
    pub busy_polls: u64,
    /// Polls that had none.
    pub idle_polls: u64,
    /// Times that it slept for want of packets; not part of the cycles.
    pub sleeps: u64,
    /// Packets of those polls, one in 61, that were timed stage by stage.
    pub sampled_packets: u64,
    /// Cycles of these, by stage.
    pub stage_cycles: BTreeMap<String, u64>,
    /// Busy cycles per packet received; 0 without packets.
    pub cycles_per_packet: f64,
    /// Cycles per packet by stage, of the packets that were timed.
    pub stage_cycles_per_packet: BTreeMap<String, f64>,
    /// Its receive queues.
    pub queues: Vec<QueuePerf>,
}

/// A receive queue of a core.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct QueuePerf {
    /// Name of the port.
    pub port: String,
    /// Number of the queue in the port.
    pub queue: u16,
    /// Packets received.
    pub packets: u64,
    /// Cycles of the polls in which it had packets.
    pub cycles: u64,
}

impl CorePerf {
    /// The same with what follows from the totals.
    pub fn with_rates(mut self) -> CorePerf {
        let per = |cycles: u64, n: u64| if n == 0 { 0.0 } else { cycles as f64 / n as f64 };
        self.cycles_per_packet = per(self.busy_cycles, self.rx_packets);
        let n = self.sampled_packets;
        self.stage_cycles_per_packet =
            self.stage_cycles.iter().map(|(name, c)| (name.clone(), per(*c, n))).collect();
        self
    }

    /// What has been done since `earlier`.
    pub fn since(&self, earlier: &CorePerf) -> CorePerf {
        let mut s = self.clone();
        for (now, was) in [
            (&mut s.rx_packets, earlier.rx_packets),
            (&mut s.passes, earlier.passes),
            (&mut s.exact_hits, earlier.exact_hits),
            (&mut s.megaflow_hits, earlier.megaflow_hits),
            (&mut s.shortcuts, earlier.shortcuts),
            (&mut s.misses, earlier.misses),
            (&mut s.masks_probed, earlier.masks_probed),
            (&mut s.tx_packets, earlier.tx_packets),
            (&mut s.tx_bursts, earlier.tx_bursts),
            (&mut s.drops, earlier.drops),
            (&mut s.evicted, earlier.evicted),
            (&mut s.refused, earlier.refused),
            (&mut s.busy_cycles, earlier.busy_cycles),
            (&mut s.idle_cycles, earlier.idle_cycles),
            (&mut s.busy_polls, earlier.busy_polls),
            (&mut s.idle_polls, earlier.idle_polls),
            (&mut s.sleeps, earlier.sleeps),
            (&mut s.sampled_packets, earlier.sampled_packets),
        ] {
            *now = now.saturating_sub(was);
        }
        for (stage, cycles) in &mut s.stage_cycles {
            *cycles = cycles.saturating_sub(earlier.stage_cycles.get(stage).copied().unwrap_or(0));
        }
        for q in &mut s.queues {
            let was = earlier.queues.iter().find(|o| (&o.port, o.queue) == (&q.port, q.queue));
            q.packets = q.packets.saturating_sub(was.map_or(0, |w| w.packets));
            q.cycles = q.cycles.saturating_sub(was.map_or(0, |w| w.cycles));
        }
        s.with_rates()
    }
}

impl Perf {
    /// What has been done since `earlier`; `uptime_ms` is the time between the two.
    pub fn since(&self, earlier: &Perf) -> Perf {
        let none = CorePerf::default();
        let before = |c: &CorePerf| earlier.cores.iter().find(|e| e.core == c.core).unwrap_or(&none);
        Perf {
            cycles_per_second: self.cycles_per_second,
            uptime_ms: self.uptime_ms.saturating_sub(earlier.uptime_ms),
            cores: self.cores.iter().map(|c| c.since(before(c))).collect(),
        }
    }
}

/// Element of the answer to `hoist/ports`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Port {
    /// Bridge.
    pub bridge: String,
    /// Name.
    pub name: String,
    /// OpenFlow port number.
    pub ofport: u32,
    /// `sim`, `af_packet`, `tap`, `pcap` or `memory`.
    pub kind: String,
    /// What is behind it: `sim0:1`, an interface, a file.
    pub behind: String,
    /// Whether the link is up.
    pub link_up: bool,
    /// Packets received, hardware included where the port is on a device.
    pub rx_packets: u64,
    /// Packets sent, hardware included where the port is on a device.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets lost on receipt.
    pub rx_dropped: u64,
    /// Packets lost on sending.
    pub tx_dropped: u64,
    /// Why the port does not work; null when it does.
    pub error: Option<String>,
    /// Its Ethernet address.
    #[serde(default)]
    pub mac: Option<String>,
    /// Index of the network interface that it is, if it is one.
    #[serde(default)]
    pub interface_index: Option<u32>,
    /// Longest packet of the network layer, in bytes.
    #[serde(default)]
    pub mtu_bytes: Option<usize>,
    /// How often its link went up or down.
    #[serde(default)]
    pub link_resets: u64,
}
