//! Machines with a device in them, read from a description: `data/systems.toml` has those of the published measurements.
//!
//! Neither cycle-level nor behavioural: numbers for both.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::engine_timing::EngineNs;
use crate::host_memory::{HostTiming, IommuTiming};
use crate::link::{Credits, Generation, LinkConfig, LinkConfigError};

/// Why a description was refused.
#[derive(thiserror::Error, Clone, PartialEq, Debug)]
pub enum SystemError {
    /// Not TOML, a key that is unknown, missing or of the wrong type.
    #[error("line {line}: {reason}")]
    Text {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A value that cannot be.
    #[error("{key}: {reason}")]
    Value {
        /// The key, with its sections.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// No system of that name, nor a microarchitecture whose prefix it has.
    #[error("system {0:?}: not described, and no microarchitecture has a prefix of that name")]
    Unknown(String),
    /// A link that cannot be.
    #[error("link: {0}")]
    Link(#[from] LinkConfigError),
}

/// The device that runs the experiments.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DmaDevice {
    /// Clock in hertz.
    pub clock_hz: u64,
    /// Time stamps count so many cycles.
    pub timestamp_cycles: u64,
    /// Generation of the link, 1 to 5.
    pub generation: u32,
    /// Lanes of the link.
    pub lanes: u32,
    /// Read requests outstanding.
    pub read_tags: u32,
    /// Bytes of the buffer for completions, see [`LinkConfig::read_buffer_bytes`].
    pub read_buffer_bytes: u32,
    /// What a request takes of it beside its data.
    pub read_reserve_bytes: u32,
    /// Threads of the bandwidth experiments.
    pub threads: u32,
    /// Requests prepared at once.
    pub lookahead: u32,
    /// Overhead of a request on the wire.
    pub request_header_bytes: u32,
    /// Overhead of a completion on the wire.
    pub completion_header_bytes: u32,
    /// One way.
    pub flight_ns: f64,
    /// The DMA engine.
    pub engine: EngineNs,
    /// The path of processor-issued accesses.
    pub command: EngineNs,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IommuText {
    iotlb_entries: usize,
    line_entries: usize,
    walkers: usize,
    walk_ns: f64,
    walk_miss_ns: f64,
    write_hold_ns: f64,
    read_hold_ns: f64,
    read_hold_line_ns: f64,
    lookup_ns: f64,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Microarchitecture {
    prefix: String,
    /// Machines of one platform have one kind of root complex.
    platform: String,
    llc_ways: u32,
    ddio_ways: u32,
    /// Address bits that only the first mixed chain of the hash over the cache's slices takes.
    #[serde(default)]
    first_chain_bits: Vec<u32>,
    llc_ns: f64,
    snoop_ns: f64,
    dram_ns: f64,
    dram_spread_ns: f64,
    write_ns: f64,
    line_ns: f64,
    splits_partial_lines: bool,
    reads_in_order: bool,
    remote_ns: f64,
    remote_write_ns: f64,
    far_dirty_ns: f64,
    evict_ns: f64,
    posted_headers: u32,
    posted_data: u32,
    nonposted_headers: u32,
    dllp_interval_bytes: [u32; 2],
    refresh_ns: f64,
    iommu: IommuText,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SystemText {
    microarchitecture: String,
    llc_mib: u64,
    max_payload_bytes: u32,
    max_read_request_bytes: u32,
    #[serde(default)]
    board_ns: f64,
    refresh_ns: Option<f64>,
    #[serde(default)]
    without_effect: Vec<String>,
}

/// Of which transfers the times of a description come.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fitted {
    size_bytes: Vec<u32>,
    window_bytes: Vec<u64>,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    #[serde(default)]
    fitted: Fitted,
    device: DmaDevice,
    microarchitecture: BTreeMap<String, Microarchitecture>,
    system: BTreeMap<String, SystemText>,
}

/// How a host translates a device's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Translation {
    /// Not at all.
    Off,
    /// By pages of so many bytes.
    Pages(u64),
}

/// Descriptions of machines.
#[derive(Clone, PartialEq, Debug)]
pub struct Systems(Text);

/// One machine with the device in it.
#[derive(Clone, PartialEq, Debug)]
pub struct System {
    /// The device.
    pub device: DmaDevice,
    micro: Microarchitecture,
    text: SystemText,
    /// It is not described by itself; what its microarchitecture has in common was taken.
    pub is_guess: bool,
}

/// DDR3 and DDR4 refresh once in 7.8 us (JESD79-3F 4.13.4, JESD79-4 4.9.4).
const REFRESH_INTERVAL_NS: f64 = 7800.0;

impl Systems {
    /// Their description.
    pub const PUBLISHED: &str = include_str!("../data/systems.toml");

    /// The machines of the published measurements.
    ///
    /// # Errors
    /// None, in fact: a test reads it.
    pub fn published() -> Result<Self, SystemError> {
        Self::from_toml(Self::PUBLISHED)
    }

    /// Reads descriptions in the form of `data/systems.toml`.
    ///
    /// # Errors
    /// The first key that is unknown, missing or cannot be.
    pub fn from_toml(text: &str) -> Result<Self, SystemError> {
        let t: Text = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start.min(text.len()));
            let line = text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1;
            SystemError::Text { line, reason: e.message().lines().next().unwrap_or("not TOML").into() }
        })?;
        let s = Systems(t);
        s.check()?;
        Ok(s)
    }

    fn check(&self) -> Result<(), SystemError> {
        let bad = |key: String, reason: &str| Err(SystemError::Value { key, reason: reason.to_string() });
        let d = &self.0.device;
        if !(1_000_000..=100_000_000_000).contains(&d.clock_hz) {
            return bad("device.clock_hz".into(), "must be from 1 MHz to 100 GHz");
        }
        if d.timestamp_cycles == 0 {
            return bad("device.timestamp_cycles".into(), "must be at least 1");
        }
        if Generation::from_number(d.generation).is_none() {
            return bad("device.generation".into(), "must be from 1 to 5");
        }
        if !d.lanes.is_power_of_two() || d.lanes > 32 {
            return bad("device.lanes".into(), "must be 1, 2, 4, 8, 16 or 32");
        }
        if !(1..=512).contains(&d.threads) {
            return bad("device.threads".into(), "must be from 1 to 512");
        }
        for (name, m) in &self.0.microarchitecture {
            let key = |k: &str| format!("microarchitecture.{name}.{k}");
            if m.llc_ways == 0 || m.ddio_ways == 0 || m.ddio_ways > m.llc_ways {
                return bad(key("ddio_ways"), "must be from 1 to llc_ways");
            }
            if m.first_chain_bits.iter().any(|b| !(6..64).contains(b)) {
                return bad(key("first_chain_bits"), "must be from 6 to 63");
            }
            if m.iommu.iotlb_entries == 0 || m.iommu.walkers == 0 {
                return bad(key("iommu"), "iotlb_entries and walkers must be at least 1");
            }
            let times =
                [m.llc_ns, m.snoop_ns, m.dram_ns, m.dram_spread_ns, m.write_ns, m.line_ns, m.remote_ns];
            if times.iter().any(|t| !(0.0..1e6).contains(t)) {
                return bad(key("llc_ns"), "this or another time is not between 0 and 1 ms");
            }
        }
        for (name, s) in &self.0.system {
            let key = |k: &str| format!("system.{name}.{k}");
            if !self.0.microarchitecture.contains_key(&s.microarchitecture) {
                return bad(key("microarchitecture"), "is not described");
            }
            if !(1..=1024).contains(&s.llc_mib) {
                return bad(key("llc_mib"), "must be from 1 to 1024");
            }
            if s.board_ns.abs() > 1e5 {
                return bad(key("board_ns"), "must be within 100 us");
            }
            self.get(name)?.link(false)?.check()?;
        }
        Ok(())
    }

    /// The machine of that name, or one like others of its microarchitecture.
    ///
    /// # Errors
    /// [`SystemError::Unknown`].
    pub fn get(&self, name: &str) -> Result<System, SystemError> {
        let unknown = || SystemError::Unknown(name.to_string());
        let device = self.0.device.clone();
        if let Some(text) = self.0.system.get(name) {
            let micro = self.0.microarchitecture.get(&text.microarchitecture).ok_or_else(unknown)?;
            return Ok(System { device, micro: micro.clone(), text: text.clone(), is_guess: false });
        }
        let same = |m: &&Microarchitecture| {
            let family = m.prefix.split('-').next().unwrap_or(&m.prefix);
            name.starts_with(m.prefix.as_str()) || name.split('-').next() == Some(family)
        };
        let all = || self.0.microarchitecture.values();
        let micro = all().find(|m| name.starts_with(m.prefix.as_str())).or_else(|| all().find(same));
        let micro = micro.ok_or_else(unknown)?.clone();
        let text = SystemText {
            microarchitecture: String::new(),
            llc_mib: 15,
            max_payload_bytes: 256,
            max_read_request_bytes: 512,
            board_ns: 0.0,
            refresh_ns: None,
            without_effect: Vec::new(),
        };
        Ok(System { device, micro, text, is_guess: true })
    }

    /// The machine of that name as if nothing had been fitted to its microarchitecture: what the table of systems says of it stays; each
    /// time is the mean of the other microarchitectures'; what its root complex does or does not do is known from the others of its
    /// platform, or else what most do.
    ///
    /// # Errors
    /// As [`Systems::get`].
    pub fn get_unseen(&self, name: &str) -> Result<System, SystemError> {
        let mut s = self.get(name)?;
        let servers = || self.0.microarchitecture.values().filter(|m| m.prefix.contains("-e5"));
        let others: Vec<_> = servers().filter(|m| m.prefix != s.micro.prefix).collect();
        let Some(some) = others.first() else { return Ok(s) };
        let same: Vec<_> = others.iter().copied().filter(|m| m.platform == s.micro.platform).collect();
        let related = if same.is_empty() { &others } else { &same };
        let mean = |of: fn(&Microarchitecture) -> f64| {
            others.iter().map(|m| of(m)).sum::<f64>() / others.len() as f64
        };
        let most =
            |is: fn(&Microarchitecture) -> bool| related.iter().filter(|m| is(m)).count() * 2 > related.len();
        let counted = |of: fn(&Microarchitecture) -> f64| mean(of).round() as u32;
        let dllp =
            [counted(|m| m.dllp_interval_bytes[0].into()), counted(|m| m.dllp_interval_bytes[1].into())];
        s.micro = Microarchitecture {
            prefix: s.micro.prefix.clone(),
            platform: s.micro.platform.clone(),
            llc_ways: s.micro.llc_ways,
            ddio_ways: counted(|m| m.ddio_ways.into()),
            llc_ns: mean(|m| m.llc_ns),
            snoop_ns: mean(|m| m.snoop_ns),
            dram_ns: mean(|m| m.dram_ns),
            dram_spread_ns: mean(|m| m.dram_spread_ns),
            write_ns: mean(|m| m.write_ns),
            line_ns: mean(|m| m.line_ns),
            first_chain_bits: Vec::new(),
            splits_partial_lines: most(|m| m.splits_partial_lines),
            reads_in_order: most(|m| m.reads_in_order),
            remote_ns: mean(|m| m.remote_ns),
            remote_write_ns: mean(|m| m.remote_write_ns),
            far_dirty_ns: mean(|m| m.far_dirty_ns),
            evict_ns: mean(|m| m.evict_ns),
            dllp_interval_bytes: dllp,
            refresh_ns: s.micro.refresh_ns,
            iommu: IommuText {
                walk_ns: mean(|m| m.iommu.walk_ns),
                walk_miss_ns: mean(|m| m.iommu.walk_miss_ns),
                write_hold_ns: mean(|m| m.iommu.write_hold_ns),
                read_hold_ns: mean(|m| m.iommu.read_hold_ns),
                read_hold_line_ns: mean(|m| m.iommu.read_hold_line_ns),
                lookup_ns: mean(|m| m.iommu.lookup_ns),
                ..some.iommu.clone()
            },
            ..(*some).clone()
        };
        s.text.board_ns = 0.0;
        Ok(s)
    }

    /// Whether times were fitted to measurements of that machine, and to some of that size and of that window.
    pub fn is_fitted(&self, system: &str, size_bytes: u32, window_bytes: u64) -> bool {
        let f = &self.0.fitted;
        self.0.system.contains_key(system)
            && f.size_bytes.contains(&size_bytes)
            && f.window_bytes.contains(&window_bytes)
    }

    /// Names of the machines.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.system.keys().map(String::as_str)
    }
}

impl System {
    /// The link with the engine behind it; `command` takes the path of processor-issued accesses.
    ///
    /// # Errors
    /// None for a description that was read.
    pub fn link(&self, command: bool) -> Result<LinkConfig, LinkConfigError> {
        let (d, m) = (&self.device, &self.micro);
        let bad = LinkConfigError { key: "generation", reason: "must be from 1 to 5" };
        let generation = Generation::from_number(d.generation).ok_or(bad)?;
        let mut engine = if command { &d.command } else { &d.engine }.timing(d.lookahead, d.clock_hz);
        engine.posted_done = true;
        let flight = (d.flight_ns * d.clock_hz as f64 / 1e9).round() as u32;
        Ok(LinkConfig {
            bytes_per_kcycle: generation.bytes_per_kcycle(d.lanes, d.clock_hz),
            dllp_interval_bytes: m.dllp_interval_bytes,
            latency_cycles: flight.max(1),
            request_header_bytes: d.request_header_bytes,
            completion_header_bytes: d.completion_header_bytes,
            max_payload_bytes: self.text.max_payload_bytes,
            max_read_request_bytes: self.text.max_read_request_bytes,
            read_tags: d.read_tags,
            read_buffer_bytes: d.read_buffer_bytes,
            read_reserve_bytes: d.read_reserve_bytes,
            host_latency_cycles: 0,
            requests_per_client: d.threads.max(2) * 2,
            credits: self.credits(),
            damaged_per_billion: 0,
            engine,
        })
    }

    /// What the root port has room for.
    pub fn credits(&self) -> Credits {
        Credits {
            posted_headers: self.micro.posted_headers,
            posted_data: self.micro.posted_data,
            nonposted_headers: self.micro.nonposted_headers,
        }
    }

    /// The host. `remote`: the memory is at the other socket.
    pub fn host(&self, translation: Translation, remote: bool) -> HostTiming {
        let m = &self.micro;
        HostTiming {
            llc_bytes: self.text.llc_mib << 20,
            llc_ways: m.llc_ways,
            ddio_ways: m.ddio_ways,
            first_chain_bits: m.first_chain_bits.iter().fold(0, |mask, b| mask | 1 << b),
            llc_ns: m.llc_ns + self.text.board_ns,
            snoop_ns: m.snoop_ns,
            dram_ns: m.dram_ns,
            dram_spread_ns: m.dram_spread_ns,
            refresh_ns: self.text.refresh_ns.unwrap_or(m.refresh_ns),
            refresh_interval_ns: REFRESH_INTERVAL_NS,
            write_ns: m.write_ns,
            line_ns: m.line_ns,
            splits_partial_lines: m.splits_partial_lines,
            reads_in_order: m.reads_in_order,
            remote,
            remote_ns: m.remote_ns,
            remote_write_ns: m.remote_write_ns,
            far_dirty_ns: m.far_dirty_ns,
            evict_ns: m.evict_ns,
            iommu: match translation {
                Translation::Off => None,
                Translation::Pages(page_bytes) => Some(IommuTiming {
                    iotlb_entries: m.iommu.iotlb_entries,
                    line_entries: m.iommu.line_entries,
                    walkers: m.iommu.walkers,
                    walk_ns: m.iommu.walk_ns,
                    walk_miss_ns: m.iommu.walk_miss_ns,
                    write_hold_ns: m.iommu.write_hold_ns,
                    read_hold_ns: m.iommu.read_hold_ns,
                    read_hold_line_ns: m.iommu.read_hold_line_ns,
                    lookup_ns: m.iommu.lookup_ns,
                    page_bytes,
                }),
            },
        }
    }

    /// Bytes of the cache that a device may allocate in.
    pub fn ddio_bytes(&self) -> u64 {
        (self.text.llc_mib << 20) / u64::from(self.micro.llc_ways) * u64::from(self.micro.ddio_ways)
    }

    /// Whether a preparation of the cache, as `BENCH cache`, is known not to have shown in the measurements without IOMMU.
    pub fn without_effect(&self, bench_and_cache: &str) -> bool {
        self.text.without_effect.iter().any(|w| w == bench_and_cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_machine_nobody_measured_completes_reads_is_known_from_its_platform() {
        let s = Systems::published().unwrap();
        for (name, splits) in [
            ("snb-e5-2630", true),
            ("ib-e5-2620v2", true),
            ("hsw-e5-2637v3", false),
            ("bdw-e5-2630v4", false),
        ] {
            let unseen = s.get_unseen(name).unwrap();
            let host = unseen.host(Translation::Off, false);
            assert_eq!((host.splits_partial_lines, host.reads_in_order), (splits, splits), "{name}");
        }
    }

    #[test]
    fn the_published_machines_are_read_and_a_relative_is_guessed() {
        let s = Systems::published().unwrap();
        assert!(s.names().count() >= 6);
        let known = s.get("hsw-e5-2637v3").unwrap();
        assert!(!known.is_guess);
        assert_eq!(known.ddio_bytes(), 3 << 19);
        let relative = s.get("hsw-e5-2699v3").unwrap();
        assert!(relative.is_guess);
        assert_eq!(
            relative.host(Translation::Off, false).write_ns,
            known.host(Translation::Off, false).write_ns
        );
        assert!(s.is_fitted("hsw-e5-2637v3", 64, 8192));
        for (machine, size, window) in
            [("hsw-e5-2699v3", 64, 8192), ("hsw-e5-2637v3", 66, 8192), ("hsw-e5-2637v3", 64, 2 << 20)]
        {
            assert!(!s.is_fitted(machine, size, window), "{machine} {size} {window}");
        }
        assert_eq!(s.get("power9"), Err(SystemError::Unknown("power9".into())));
    }

    #[test]
    fn errors_name_the_key_and_the_reason() {
        let text = include_str!("../data/systems.toml");
        let err = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            Systems::from_toml(&text.replacen(from, to, 1)).unwrap_err().to_string()
        };
        assert!(err("lanes = 8", "lanes = 7").starts_with("device.lanes: must be 1, 2"));
        assert!(err("generation = 3", "generation = 9").starts_with("device.generation: "));
        assert!(err("lanes = 8", "lans = 8").contains("unknown field `lans`"));
        assert!(err("first_chain_bits = [17]", "first_chain_bits = [64]").contains("must be from 6"));
        assert!(err("ddio_ways = 1", "ddio_ways = 21").contains("sandy-bridge-ep.ddio_ways: must be"));
        assert!(
            err("max_payload_bytes = 256", "max_payload_bytes = 200").contains("max_payload_bytes: must be")
        );
        let e = err("clock_hz = 1_200_000_000", "clock_hz = \"fast\"");
        let line = text.lines().position(|l| l.starts_with("clock_hz")).unwrap() + 1;
        assert!(e.starts_with(&format!("line {line}: ")), "{e}");
    }
}
