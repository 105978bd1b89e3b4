//! The device's configuration: sizes and timings, from TOML.
//!
//! `profiles/default.toml` documents every key; a test holds it against [`Config::default`]. An error names the key, the
//! line and the reason.
//!
//! Neither cycle-level nor behavioural: numbers for both.

use kernel::Timing;
use pcie::{EngineTiming, Generation, LinkConfig, System, Systems};
use serde::{Deserialize, Serialize};
use simnic_defs::regs::{MAX_PORTS, MAX_QUEUE_PAIRS};

/// What is wrong with a configuration.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error("line {line}: {key}: {reason}")]
pub struct ConfigError {
    /// Line, from 1; 0 when the key is not in the text.
    pub line: usize,
    /// The key, with its section.
    pub key: String,
    /// Why it is refused.
    pub reason: String,
}

macro_rules! section {
    ($(#[$m:meta])* $name:ident { $($(#[$fm:meta])* $field:ident: $ty:ty = $default:expr,)* }) => {
        $(#[$m])*
        #[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$fm])* pub $field: $ty,)* }
        impl Default for $name {
            fn default() -> Self {
                $name { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// `[profile]`: for people; the device does not look at it.
    ProfileConfig {
        /// What kind of device it is, in one line.
        about: String = "a SmartNIC with an exact and a ternary table".into(),
    }
}
section! {
    /// `[device]`
    DeviceConfig {
        /// Clock in hertz.
        clock_hz: u64 = 250_000_000,
        /// Ports.
        ports: u8 = 4,
        /// Queue pairs of each port.
        queue_pairs: u8 = 2,
        /// Interrupt vectors.
        msix_vectors: u16 = 34,
        /// Longest frame without FCS in bytes.
        max_frame_bytes: u16 = 1600,
        /// Duration of a reset in cycles.
        reset_cycles: u32 = 2500,
        /// Frames a wire holds in each direction.
        wire_frames: u32 = 4096,
    }
}
section! {
    /// `[port]`
    PortConfig {
        /// Line rate in megabits per second.
        speed_mbps: u32 = 25_000,
        /// Latency of MAC and PHY in cycles.
        latency_cycles: u32 = 20,
        /// Frames waiting for the parser.
        ingress_queue_frames: u32 = 64,
        /// Frames waiting for the wire, of each egress queue; not used when a buffer is shared.
        egress_queue_frames: u32 = 128,
        /// Egress queues for forwarded frames.
        egress_queues: u8 = 1,
        /// Of them served before the others, from the highest.
        strict_queues: u8 = 0,
        /// Weights of the others, from the lowest; those not given are 1.
        weights: Vec<u16> = Vec::new(),
        /// Frames of a buffer that the egress queues of all ports share; 0: none is shared.
        shared_frames: u32 = 0,
        /// Sixteenths of the free part of that buffer that a queue may hold.
        threshold_16ths: u16 = 16,
        /// Whether PAUSE frames are obeyed; they are swallowed either way.
        obey_pause: bool = false,
        /// Frames in the ingress queue at which PAUSE is sent; 0: never.
        pause_at_frames: u32 = 0,
        /// Frames in the ingress queue at which the pause is ended.
        resume_at_frames: u32 = 0,
    }
}
section! {
    /// `[parser]`
    ParserConfig {
        /// Latency in cycles.
        latency_cycles: u32 = 6,
        /// Initiation interval in cycles.
        interval_cycles: u32 = 1,
        /// Frames in it.
        buffer_frames: u32 = 16,
        /// Bytes of a frame that it can see, at most; a driver may have it see fewer.
        depth_bytes: u16 = 256,
        /// Bytes that it gets through in an interval.
        step_bytes: u16 = 256,
    }
}
section! {
    /// `[exact]`
    ExactConfig {
        /// Latency in cycles.
        latency_cycles: u32 = 8,
        /// Initiation interval in cycles, for each programmed profile.
        interval_cycles: u32 = 1,
        /// Frames in it.
        buffer_frames: u32 = 16,
        /// Logarithm of the number of entries.
        log2_entries: u8 = 14,
        /// Entries of a bucket.
        ways: u8 = 4,
        /// Buckets that a key may be in: 1, or 2 of which the emptier one takes it.
        choices: u8 = 1,
        /// Tables it consists of, each a stage with its share of the entries; key profile p lies in table p mod banks.
        banks: u8 = 1,
        /// Key profiles.
        profiles: u8 = 8,
        /// Cycles an insertion takes.
        insert_cycles: u32 = 100,
        /// Cycles for which each entry written keeps the stage from looking up.
        write_cycles: u32 = 0,
        /// Buckets that the device holds itself, the others being in host memory; 0: it holds all.
        cached_buckets: u32 = 0,
        /// Cycles that a bucket takes to come from host memory.
        miss_cycles: u32 = 250,
        /// Buckets on their way from host memory at a time.
        misses: u8 = 16,
    }
}
section! {
    /// `[ternary]`
    TernaryConfig {
        /// Latency in cycles.
        latency_cycles: u32 = 6,
        /// Initiation interval in cycles.
        interval_cycles: u32 = 2,
        /// Frames in it.
        buffer_frames: u32 = 16,
        /// Entries.
        entries: u16 = 512,
        /// Cycles an insertion takes.
        insert_cycles: u32 = 250,
        /// Cycles more for each entry of lower priority, which has to make room.
        move_cycles: u32 = 0,
        /// Cycles for which each entry written or moved keeps the stage from looking up.
        write_cycles: u32 = 0,
    }
}
section! {
    /// `[lpm]`: a stage that finds IPv4 destinations by longest prefix, behind the exact one.
    LpmConfig {
        /// Entries; 0: there is no such stage.
        entries: u16 = 0,
        /// Key profiles: templates of what entries match beside the destination.
        profiles: u8 = 4,
        /// Latency in cycles.
        latency_cycles: u32 = 12,
        /// Initiation interval in cycles.
        interval_cycles: u32 = 1,
        /// Frames in it.
        buffer_frames: u32 = 16,
        /// Cycles an insertion takes.
        insert_cycles: u32 = 200,
        /// Cycles for which each entry written keeps the stage from looking up.
        write_cycles: u32 = 0,
    }
}
section! {
    /// `[range]`: a stage as the ternary one, with ranges of transport ports, before it.
    RangeConfig {
        /// Entries; 0: there is no such stage.
        entries: u16 = 0,
        /// Latency in cycles.
        latency_cycles: u32 = 8,
        /// Initiation interval in cycles.
        interval_cycles: u32 = 1,
        /// Frames in it.
        buffer_frames: u32 = 16,
        /// Cycles an insertion takes.
        insert_cycles: u32 = 300,
        /// Cycles for which each entry written keeps the stage from looking up.
        write_cycles: u32 = 0,
    }
}
section! {
    /// `[meters]`
    MeterConfig {
        /// Meters; 0: there are none.
        entries: u16 = 64,
    }
}
section! {
    /// `[tunnels]`
    TunnelConfig {
        /// Headers that can be put in front of frames; 0: no tunnels.
        headers: u16 = 256,
    }
}
section! {
    /// `[connections]`: established connections that the host hands over.
    ConnectionConfig {
        /// Connections; 0: there are none.
        entries: u32 = 4096,
    }
}
section! {
    /// `[groups]`: sets of ports to which frames are replicated.
    GroupConfig {
        /// Groups; 0: there are none.
        entries: u16 = 64,
        /// Latency of the replication engine in cycles.
        latency_cycles: u32 = 4,
        /// Cycles between two copies.
        interval_cycles: u32 = 1,
        /// Frames waiting for it.
        buffer_frames: u32 = 16,
    }
}
section! {
    /// `[again]`: the way back to the parser for frames out of tunnels.
    AgainConfig {
        /// Frames on it; 0: there is none, and no frame is taken out of a tunnel.
        buffer_frames: u32 = 64,
        /// Latency in cycles.
        latency_cycles: u32 = 4,
    }
}
section! {
    /// `[action]`
    ActionConfig {
        /// Latency in cycles.
        latency_cycles: u32 = 10,
        /// Cycles for each frame sent.
        interval_cycles: u32 = 1,
    }
}
section! {
    /// `[counters]`
    CounterConfig {
        /// Bits of an entry's packet counter.
        packet_bits: u8 = 40,
        /// Bits of an entry's byte counter.
        byte_bits: u8 = 48,
        /// Logarithm of the most entries of the ring to which counters are evicted; 0: they are not.
        ring_log2_max: u8 = 12,
    }
}
section! {
    /// `[host]`
    HostConfig {
        /// Frames of a port waiting for receive descriptors.
        queue_frames: u32 = 256,
        /// Cycles between two frames in each direction.
        interval_cycles: u32 = 2,
        /// Descriptors fetched at once.
        descriptor_batch: u8 = 16,
        /// Logarithm of the fewest entries of a ring.
        ring_log2_min: u8 = 3,
        /// Logarithm of the most entries of a packet ring.
        ring_log2_max: u8 = 12,
        /// Logarithm of the most entries of the command ring.
        command_log2_max: u8 = 10,
    }
}
section! {
    /// `[command]`
    CommandConfig {
        /// Cycles every command takes.
        decode_cycles: u32 = 8,
        /// Cycles a removal takes.
        remove_cycles: u32 = 50,
        /// Cycles for each record read.
        record_cycles: u32 = 4,
        /// Records of one command.
        max_records: u16 = 128,
    }
}
section! {
    /// `[pcie]`; see [`LinkConfig`].
    PcieConfig {
        /// Generation, 1 to 5.
        generation: u32 = 3,
        /// Lanes.
        lanes: u32 = 8,
        /// Flight time in cycles.
        latency_cycles: u32 = 60,
        /// Bytes of a write or read request beside the payload.
        request_header_bytes: u32 = 24,
        /// Bytes of a completion beside the payload.
        completion_header_bytes: u32 = 20,
        /// Bytes of TLPs between two pairs of Ack and flow-control DLLPs; 0: none.
        dllp_interval_bytes: u32 = 305,
        /// Largest payload.
        max_payload_bytes: u32 = 256,
        /// Largest read request.
        max_read_request_bytes: u32 = 512,
        /// Read requests outstanding.
        read_tags: u32 = 64,
        /// A machine of `sim/pcie/data/systems.toml` whose caches, memory and credits the device meets; empty: memory that takes a fixed time.
        host: String = String::new(),
        /// Cycles the host's memory takes, when `host` is empty.
        host_latency_cycles: u32 = 30,
        /// Of 10^9 TLPs sent so many arrive damaged and are sent again.
        damaged_per_billion: u32 = 0,
        /// Transfers each engine has under way.
        requests_per_client: u32 = 32,
    }
}

/// Everything that can be configured. Build one with [`Config::default`], fields, or [`Config::from_toml`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)] // the sections' types say what they are
pub struct Config {
    pub profile: ProfileConfig,
    pub device: DeviceConfig,
    pub port: PortConfig,
    pub parser: ParserConfig,
    pub exact: ExactConfig,
    pub lpm: LpmConfig,
    pub range: RangeConfig,
    pub ternary: TernaryConfig,
    pub meters: MeterConfig,
    pub tunnels: TunnelConfig,
    pub again: AgainConfig,
    pub groups: GroupConfig,
    pub connections: ConnectionConfig,
    pub action: ActionConfig,
    pub counters: CounterConfig,
    pub host: HostConfig,
    pub command: CommandConfig,
    pub pcie: PcieConfig,
}

impl Config {
    /// Reads a configuration. Keys that are missing have their defaults.
    ///
    /// # Errors
    /// The first key that is unknown, of the wrong type or out of range.
    pub fn from_toml(text: &str) -> Result<Config, ConfigError> {
        let config: Config = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start.min(text.len()));
            let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            let reason = e.message().lines().next().unwrap_or("not TOML").to_string();
            ConfigError { line, key: key_at(text, line), reason }
        })?;
        config.check().map_err(|e| ConfigError { line: line_of(text, &e.key), ..e })?;
        Ok(config)
    }

    /// Whether entries can send frames round again.
    pub(crate) fn recirculates(&self) -> bool {
        self.again.buffer_frames > 0
    }

    /// Cycles that a frame of `len_bytes` without FCS takes on the wire of a port, with preamble and start delimiter (8 bytes), FCS (4)
    /// and inter-frame gap (12), in the mean of many; at least one, because a MAC begins no two frames in a cycle.
    pub fn wire_time(&self, len_bytes: usize) -> f64 {
        let bits = (len_bytes as f64 + WIRE_OVERHEAD_BYTES as f64) * 8.0;
        (bits * self.device.clock_hz as f64 / (f64::from(self.port.speed_mbps) * 1e6)).max(1.0)
    }

    /// The same of one frame alone: whole cycles, at least one.
    pub fn wire_cycles(&self, len_bytes: usize) -> u64 {
        wire_cycles(len_bytes, self.device.clock_hz, u64::from(self.port.speed_mbps) * 1_000_000)
    }

    /// Checks the ranges.
    ///
    /// # Errors
    /// The first key that is out of range, with line 0.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |key: &str, v: u64, min: u64, max: u64| {
            if (min..=max).contains(&v) {
                return Ok(());
            }
            Err(ConfigError {
                line: 0,
                key: key.into(),
                reason: format!("{v} is not between {min} and {max}"),
            })
        };
        let d = &self.device;
        range("device.clock_hz", d.clock_hz, 1, 1_000_000_000_000)?;
        range("device.ports", d.ports.into(), 1, MAX_PORTS.into())?;
        range("device.queue_pairs", d.queue_pairs.into(), 1, MAX_QUEUE_PAIRS.into())?;
        range("device.msix_vectors", d.msix_vectors.into(), 2, 256)?;
        range("device.max_frame_bytes", d.max_frame_bytes.into(), 64, 16_000)?;
        range("device.reset_cycles", d.reset_cycles.into(), 1, 1 << 30)?;
        range("device.wire_frames", d.wire_frames.into(), 1, 1 << 20)?;
        range("port.speed_mbps", self.port.speed_mbps.into(), 1, 1_000_000)?;
        range("port.latency_cycles", self.port.latency_cycles.into(), 1, 1 << 20)?;
        range("port.ingress_queue_frames", self.port.ingress_queue_frames.into(), 1, 1 << 16)?;
        range("port.egress_queue_frames", self.port.egress_queue_frames.into(), 1, 1 << 16)?;
        let p = &self.port;
        range("port.egress_queues", p.egress_queues.into(), 1, 8)?;
        if p.strict_queues > p.egress_queues {
            return Err(refused(
                "port.strict_queues",
                format!("{} of {} queues", p.strict_queues, p.egress_queues),
            ));
        }
        let weighted = p.egress_queues - p.strict_queues;
        if p.weights.len() > weighted.into() || p.weights.contains(&0) {
            let reason = format!("{:?}: at most {weighted} weights, none of them 0", p.weights);
            return Err(refused("port.weights", reason));
        }
        range("port.shared_frames", p.shared_frames.into(), 0, 1 << 20)?;
        range("port.threshold_16ths", p.threshold_16ths.into(), 1, 1024)?;
        range("port.pause_at_frames", p.pause_at_frames.into(), 0, p.ingress_queue_frames.into())?;
        range("port.resume_at_frames", p.resume_at_frames.into(), 0, p.ingress_queue_frames.into())?;
        if p.pause_at_frames > 0 && p.resume_at_frames >= p.pause_at_frames {
            let reason =
                format!("{} is not below pause_at_frames, {}", p.resume_at_frames, p.pause_at_frames);
            return Err(refused("port.resume_at_frames", reason));
        }
        for (name, l, i, b) in [
            ("parser", self.parser.latency_cycles, self.parser.interval_cycles, self.parser.buffer_frames),
            ("exact", self.exact.latency_cycles, self.exact.interval_cycles, self.exact.buffer_frames),
            (
                "ternary",
                self.ternary.latency_cycles,
                self.ternary.interval_cycles,
                self.ternary.buffer_frames,
            ),
            ("lpm", self.lpm.latency_cycles, self.lpm.interval_cycles, self.lpm.buffer_frames),
            ("range", self.range.latency_cycles, self.range.interval_cycles, self.range.buffer_frames),
            ("action", self.action.latency_cycles, self.action.interval_cycles, 1),
        ] {
            range(&format!("{name}.latency_cycles"), l.into(), 1, 1 << 20)?;
            range(&format!("{name}.interval_cycles"), i.into(), 1, 1 << 20)?;
            range(&format!("{name}.buffer_frames"), b.into(), 1, 1 << 16)?;
        }
        for (key, cycles) in [
            ("exact.insert_cycles", self.exact.insert_cycles),
            ("lpm.insert_cycles", self.lpm.insert_cycles),
            ("range.insert_cycles", self.range.insert_cycles),
            ("ternary.insert_cycles", self.ternary.insert_cycles),
            ("command.decode_cycles", self.command.decode_cycles),
            ("command.remove_cycles", self.command.remove_cycles),
            ("command.record_cycles", self.command.record_cycles),
        ] {
            range(key, cycles.into(), 0, 1 << 30)?;
        }
        range("parser.depth_bytes", self.parser.depth_bytes.into(), 64, 512)?;
        range("parser.step_bytes", self.parser.step_bytes.into(), 16, 512)?;
        range("connections.entries", self.connections.entries.into(), 0, 1 << 20)?;
        range("groups.latency_cycles", self.groups.latency_cycles.into(), 1, 1 << 20)?;
        range("groups.interval_cycles", self.groups.interval_cycles.into(), 1, 1 << 20)?;
        range("groups.buffer_frames", self.groups.buffer_frames.into(), 1, 1 << 16)?;
        range("again.buffer_frames", self.again.buffer_frames.into(), 0, 1 << 16)?;
        range("again.latency_cycles", self.again.latency_cycles.into(), 1, 1 << 20)?;
        range("lpm.profiles", self.lpm.profiles.into(), 1, 8)?;
        range("lpm.write_cycles", self.lpm.write_cycles.into(), 0, 1 << 20)?;
        range("range.write_cycles", self.range.write_cycles.into(), 0, 1 << 20)?;
        range("exact.log2_entries", self.exact.log2_entries.into(), 2, 19)?;
        let ways = self.exact.ways;
        if !ways.is_power_of_two() || ways > 16 || u32::from(ways) > 1 << self.exact.log2_entries {
            let reason = format!("{ways} is not a power of two up to 16 and up to the number of entries");
            return Err(refused("exact.ways", reason));
        }
        range("exact.choices", self.exact.choices.into(), 1, 2)?;
        range("exact.profiles", self.exact.profiles.into(), 1, 8)?;
        let banks = self.exact.banks;
        if !banks.is_power_of_two() || banks > 8 {
            return Err(refused("exact.banks", format!("{banks} is not 1, 2, 4 or 8")));
        }
        if banks > self.exact.profiles {
            let reason =
                format!("{banks} tables, but {} key profiles to be searched in them", self.exact.profiles);
            return Err(refused("exact.banks", reason));
        }
        if u32::from(banks) * u32::from(ways) > 1 << self.exact.log2_entries {
            let reason =
                format!("{banks} tables of {ways} ways have more than 2^{} entries", self.exact.log2_entries);
            return Err(refused("exact.banks", reason));
        }
        range("exact.write_cycles", self.exact.write_cycles.into(), 0, 1 << 20)?;
        let buckets = (1u64 << self.exact.log2_entries) / u64::from(ways);
        let cached = u64::from(self.exact.cached_buckets);
        if cached != 0 && (cached < 4 || !cached.is_multiple_of(4) || cached > buckets) {
            let reason =
                format!("{cached} is not 0, nor a multiple of 4 up to the {buckets} buckets there are");
            return Err(refused("exact.cached_buckets", reason));
        }
        range("exact.miss_cycles", self.exact.miss_cycles.into(), 1, 1 << 20)?;
        range("exact.misses", self.exact.misses.into(), 1, 255)?;
        range("ternary.move_cycles", self.ternary.move_cycles.into(), 0, 1 << 20)?;
        range("ternary.write_cycles", self.ternary.write_cycles.into(), 0, 1 << 20)?;
        range("ternary.entries", self.ternary.entries.into(), 1, 65_535)?;
        range("counters.packet_bits", self.counters.packet_bits.into(), 1, 64)?;
        range("counters.byte_bits", self.counters.byte_bits.into(), 1, 64)?;
        let h = &self.host;
        range("host.queue_frames", h.queue_frames.into(), 1, 1 << 16)?;
        range("host.interval_cycles", h.interval_cycles.into(), 1, 1 << 20)?;
        range("host.descriptor_batch", h.descriptor_batch.into(), 1, 64)?;
        range("host.ring_log2_max", h.ring_log2_max.into(), 1, 16)?;
        range("host.command_log2_max", h.command_log2_max.into(), 1, 16)?;
        let most = h.ring_log2_max.min(h.command_log2_max);
        range("host.ring_log2_min", h.ring_log2_min.into(), 1, most.into())?;
        let log2 = self.counters.ring_log2_max;
        if log2 != 0 {
            range("counters.ring_log2_max", log2.into(), h.ring_log2_min.into(), 16)?;
        }
        range("command.max_records", self.command.max_records.into(), 1, 1024)?;
        range("pcie.generation", self.pcie.generation.into(), 1, 5)?;
        range("pcie.lanes", self.pcie.lanes.into(), 1, 32)?;
        let pcie = &self.pcie;
        range("pcie.latency_cycles", pcie.latency_cycles.into(), 1, 1 << 20)?;
        range("pcie.host_latency_cycles", pcie.host_latency_cycles.into(), 1, 1 << 20)?;
        // A header of three double words, and what frames it (PCI Express Base 3.0, 2.2.1).
        range("pcie.request_header_bytes", pcie.request_header_bytes.into(), 12, 256)?;
        range("pcie.completion_header_bytes", pcie.completion_header_bytes.into(), 12, 256)?;
        range("pcie.dllp_interval_bytes", pcie.dllp_interval_bytes.into(), 0, 1 << 20)?;
        let host = self.machine()?;
        self.link(host.as_ref()).check().map_err(|e| ConfigError {
            line: 0,
            key: format!("pcie.{}", e.key),
            reason: e.reason.into(),
        })
    }

    /// The machine the device is in, when one is named.
    pub(crate) fn machine(&self) -> Result<Option<System>, ConfigError> {
        if self.pcie.host.is_empty() {
            return Ok(None);
        }
        let named = Systems::published().and_then(|s| s.get(&self.pcie.host));
        let key = "pcie.host".to_string();
        named.map(Some).map_err(|e| ConfigError { line: 0, key, reason: e.to_string() })
    }

    /// The link, to `host`.
    pub(crate) fn link(&self, host: Option<&System>) -> LinkConfig {
        let p = &self.pcie;
        let generation = Generation::from_number(p.generation);
        LinkConfig {
            bytes_per_kcycle: generation.map_or(0, |g| g.bytes_per_kcycle(p.lanes, self.device.clock_hz)),
            dllp_interval_bytes: [p.dllp_interval_bytes; 2],
            latency_cycles: p.latency_cycles,
            request_header_bytes: p.request_header_bytes,
            completion_header_bytes: p.completion_header_bytes,
            max_payload_bytes: p.max_payload_bytes,
            max_read_request_bytes: p.max_read_request_bytes,
            read_tags: p.read_tags,
            read_buffer_bytes: 0,
            read_reserve_bytes: 0,
            host_latency_cycles: p.host_latency_cycles,
            requests_per_client: p.requests_per_client,
            credits: host.map(System::credits).unwrap_or_default(),
            damaged_per_billion: p.damaged_per_billion,
            engine: EngineTiming::default(),
        }
    }

    /// A timing whose parts [`Config::check`] has passed.
    pub(crate) fn timing(latency: u32, interval: u32, capacity: u32) -> Result<Timing, ConfigError> {
        Timing::new(latency, interval, capacity).map_err(|e| ConfigError {
            line: 0,
            key: "stage".into(),
            reason: e.to_string(),
        })
    }
}

/// Bytes of a frame on the wire beside those that are not its FCS.
const WIRE_OVERHEAD_BYTES: u64 = 24;

/// See [`Config::wire_cycles`].
fn wire_cycles(len_bytes: usize, clock_hz: u64, bits_per_second: u64) -> u64 {
    Line { clock_hz, bits_per_second, free_at: 0, ahead: 0 }.takes(0, len_bytes)
}

/// One direction of a wire: frames begin in whole cycles, and frames that follow each other without a pause keep the line rate to the bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    clock_hz: u64,
    bits_per_second: u64,
    /// The first cycle in which the next frame can begin.
    pub free_at: u64,
    /// How far `free_at` is ahead of the end of the last frame, in parts of a cycle of which there are `bits_per_second`.
    ahead: u64,
}

kernel::state!(struct Line { clock_hz: fixed, bits_per_second: fixed, free_at, ahead });

impl Line {
    pub fn new(c: &Config) -> Self {
        let bits_per_second = u64::from(c.port.speed_mbps) * 1_000_000;
        Line { clock_hz: c.device.clock_hz, bits_per_second, free_at: 0, ahead: 0 }
    }

    /// A frame of `len_bytes` begins in cycle `now`; how many cycles it has the wire.
    pub fn takes(&mut self, now: u64, len_bytes: usize) -> u64 {
        let bits = (len_bytes as u64 + WIRE_OVERHEAD_BYTES) * 8;
        let Ok(whole) = u64::try_from(u128::from(bits) * u128::from(self.clock_hz)) else {
            return u64::MAX >> 16;
        };
        // After a pause nothing is left of a cycle.
        let ahead = if now > self.free_at { 0 } else { self.ahead };
        let rest = whole.saturating_sub(ahead);
        let cycles = rest.div_ceil(self.bits_per_second).max(1);
        self.ahead = cycles.saturating_mul(self.bits_per_second).saturating_sub(rest) % self.bits_per_second;
        self.free_at = now.saturating_add(cycles);
        cycles
    }

    /// Cycles of `quanta` of 512 bit times (IEEE 802.3 31B.2).
    pub fn quanta(&self, quanta: u16) -> u64 {
        let bits = u128::from(quanta) * 512 * u128::from(self.clock_hz);
        bits.div_ceil(u128::from(self.bits_per_second)) as u64
    }
}

/// `key` is refused for `reason`; the line is found later, where there is a text.
fn refused(key: &str, reason: String) -> ConfigError {
    ConfigError { line: 0, key: key.into(), reason }
}

/// `section.key` of the assignment on `line`, or the line itself.
fn key_at(text: &str, line: usize) -> String {
    let mut section = "";
    for (i, l) in text.lines().enumerate() {
        let l = l.trim();
        if let Some(s) = l.strip_prefix('[').and_then(|l| l.split(']').next()) {
            section = s;
            if i + 1 == line {
                return section.to_string();
            }
        } else if i + 1 == line {
            let key = l.split('=').next().unwrap_or(l).trim();
            return if section.is_empty() { key.to_string() } else { format!("{section}.{key}") };
        }
    }
    section.to_string()
}

/// Line on which `section.key` is assigned; 0 when it is not.
fn line_of(text: &str, key: &str) -> usize {
    (1..=text.lines().count()).find(|line| key_at(text, *line) == key).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_profile_is_the_default() {
        let text = include_str!("../profiles/default.toml");
        assert_eq!(Config::from_toml(text).unwrap(), Config::default());
        let all: toml::Table = toml::from_str(&toml::to_string(&Config::default()).unwrap()).unwrap();
        let documented: toml::Table = toml::from_str(text).unwrap();
        assert_eq!(all, documented, "a key is not documented");
    }

    #[test]
    fn frames_without_a_pause_keep_the_line_rate_and_one_alone_takes_whole_cycles() {
        let mut c = Config::default();
        for (mbps, hz) in
            [(25_000, 250_000_000), (100_000, 500_000_000), (10_000, 600_000_000), (1000, 125_000_000)]
        {
            (c.port.speed_mbps, c.device.clock_hz) = (mbps, hz);
            for len in [60, 61, 100, 1514] {
                let mut l = Line::new(&c);
                let mut now = 0;
                for n in 1..2000u64 {
                    now += l.takes(now, len);
                    let exact = c.wire_time(len) * n as f64;
                    assert!(
                        now as f64 > exact - 1e-3 && (now as f64) < exact + 1.0,
                        "{mbps} {len}: {now}, {exact}"
                    );
                }
                // A pause of a cycle: the next frame takes what one alone does.
                assert_eq!(l.takes(now + 1, len), c.wire_cycles(len));
            }
        }
        // No two frames begin in a cycle.
        (c.port.speed_mbps, c.device.clock_hz) = (400_000, 250_000_000);
        let mut l = Line::new(&c);
        assert_eq!([l.takes(0, 60), l.takes(1, 60), l.takes(2, 60)], [1; 3]);
        assert_eq!(c.wire_time(60), 1.0);
    }

    #[test]
    fn errors_name_key_line_and_reason() {
        let err = |t| Config::from_toml(t).unwrap_err();
        let e = err("[device]\nports = 4\n\n[exact]\nways = 3\n");
        assert_eq!((e.line, e.key.as_str()), (5, "exact.ways"));
        let e = err("[device]\nports = 17\n");
        assert_eq!(e.to_string(), "line 2: device.ports: 17 is not between 1 and 16");
        let e = err("[device]\nprots = 4\n");
        assert_eq!((e.line, e.key.as_str()), (2, "device.prots"));
        assert!(e.reason.contains("unknown field"), "{e}");
        let e = err("[parser]\nlatency_cycles = \"x\"\n");
        assert_eq!((e.line, e.key.as_str()), (2, "parser.latency_cycles"));
        let e = err("[pcie]\nlanes = 8\nhost = \"vax\"\n");
        assert_eq!((e.line, e.key.as_str()), (3, "pcie.host"));
        assert!(e.reason.contains("not described"), "{e}");
        let e = err("[pcie]\nread_tags = 0\n");
        assert_eq!((e.line, e.key.as_str()), (2, "pcie.read_tags"));
        assert!(err("[device\n").line == 1);
    }
}
