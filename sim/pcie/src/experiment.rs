//! The experiments of pcie-bench as programs of the simulated device, on the DMA engine that the simulated NIC uses.
//!
//! ```text
//!   LAT_*:  one thread:  stamp ─► request ─► completion (─► request ─► completion) ─► stamp ─► pause ─► ...
//!   BW_*:   many threads, each:  next address ─► request ─► completion ─► ...
//! ```
//!
//! Reads and writes go to queues of their own (clients of the engine). Time stamps have the device's resolution, so a median
//! is a multiple of it, as in the measurements. What is timed is the steady state: the caches are prepared as the experiment
//! says, then the device's share of the cache is brought, without taking time, to where the millions of transfers of a real run bring it.
//!
//! Cycle-level: threads of the device, which take their cycles between requests. Behavioural: what brings the caches to where they begin.

use device::{DmaMemory, Iova};
use kernel::{Cycles, Drive, Machine, Rng, RunEnd, Wake};

use crate::dma_engine::{DmaClient, DmaEngine, DmaKind, DmaRequest, DmaStats};
use crate::host::Host;
use crate::host_memory::{HostMemory, LINE_BYTES};
use crate::iotlb::IotlbStats;
use crate::link::LinkConfigError;
use crate::system::{System, Translation};

/// Which experiment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)] // named as in pcie-bench; see the README
pub enum Bench {
    LatRd,
    LatWrRd,
    LatCmdRd,
    LatCmdWrRd,
    BwRd,
    BwWr,
    BwRw,
}

impl Bench {
    /// All of them.
    pub const ALL: [Bench; 7] = [
        Bench::BwRd,
        Bench::BwRw,
        Bench::BwWr,
        Bench::LatCmdRd,
        Bench::LatCmdWrRd,
        Bench::LatRd,
        Bench::LatWrRd,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Bench::LatRd => "LAT_RD",
            Bench::LatWrRd => "LAT_WRRD",
            Bench::LatCmdRd => "LAT_CMD_RD",
            Bench::LatCmdWrRd => "LAT_CMD_WRRD",
            Bench::BwRd => "BW_RD",
            Bench::BwWr => "BW_WR",
            Bench::BwRw => "BW_RW",
        }
    }

    /// Whether it measures latency.
    pub fn is_latency(self) -> bool {
        !matches!(self, Bench::BwRd | Bench::BwWr | Bench::BwRw)
    }

    fn is_command(self) -> bool {
        matches!(self, Bench::LatCmdRd | Bench::LatCmdWrRd)
    }

    fn writes(self) -> bool {
        !matches!(self, Bench::LatRd | Bench::LatCmdRd | Bench::BwRd)
    }
}

/// How the cache is prepared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum CacheState {
    /// The host's CPU has filled it with something else.
    Cold,
    /// Then the CPU has written the window.
    HostWarm,
    /// Then the device has written the window.
    DeviceWarm,
    /// The device has written all over its memory.
    DeviceThrash,
}

/// One point of the measurements.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Experiment {
    /// What is done.
    pub bench: Bench,
    /// Bytes of one DMA.
    pub size_bytes: u32,
    /// Bytes of host memory touched.
    pub window_bytes: u64,
    /// The cache before.
    pub cache: CacheState,
    /// Sockets of the device, of the memory, and of the CPU that prepares the cache.
    pub sockets: [u8; 3],
    /// Bytes of a page when the IOMMU translates.
    pub page_bytes: Option<u64>,
    /// Addresses one after the other, or random.
    pub sequential: bool,
    /// Bytes from a cache line on the host's side.
    pub host_offset: u32,
    /// Bytes from a 64-byte boundary on the device's side.
    pub device_offset: u32,
}

/// Why an experiment cannot be done.
#[derive(thiserror::Error, Debug)]
pub enum ExperimentError {
    /// Size, offset or window that the device does not do.
    #[error("{key}: {reason}")]
    Value {
        /// Which.
        key: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// The link.
    #[error("link: {0}")]
    Link(#[from] LinkConfigError),
    /// Memory for the window.
    #[error("window: {0}")]
    Memory(#[from] device::DmaError),
    /// Its mapping.
    #[error("window: {0}")]
    Map(#[from] device::DeviceError),
    /// The simulated device stopped; a defect of the simulator.
    #[error("the device stopped after {0} of its transfers")]
    Stopped(u64),
}

/// What came out.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// Nanoseconds of each sample, sorted; of a latency experiment.
    pub samples_ns: Vec<f64>,
    /// Payload in 10^9 bits per second; of a bandwidth experiment. Of each direction, when there are two.
    pub gbps: f64,
    /// Cycles of the device that passed, and of these evaluated.
    pub cycles: u64,
    /// Evaluated cycles.
    pub evaluated: u64,
    /// Account of the engine.
    pub dma: DmaStats,
    /// Account of the translations.
    pub iotlb: Option<IotlbStats>,
}

impl Outcome {
    /// The `q`-quantile of the latency, 0 to 1, in nanoseconds; 0 without samples.
    pub fn quantile_ns(&self, q: f64) -> f64 {
        let Some(last) = self.samples_ns.len().checked_sub(1) else { return 0.0 };
        self.samples_ns[((last as f64 * q).round() as usize).min(last)]
    }

    /// The mean latency in nanoseconds.
    pub fn mean_ns(&self) -> f64 {
        self.samples_ns.iter().sum::<f64>() / self.samples_ns.len().max(1) as f64
    }
}

/// How long a run is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effort {
    /// Samples of a latency experiment.
    pub samples: u32,
    /// Transfers of a bandwidth experiment.
    pub transfers: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { samples: 1500, transfers: 4000 }
    }
}

/// Largest window.
const MOST_WINDOW: u64 = 64 << 20;
const PAGE: u64 = 4096;
/// Cycles between two samples, and how much they vary.
const PAUSE_CYCLES: u64 = 100;
const PAUSE_SPREAD: u64 = 64;

const READS: DmaClient = DmaClient(0);
const WRITES: DmaClient = DmaClient(1);

/// Host memory for experiments, used again from one to the next. One thread's.
pub struct Bed {
    memory: DmaMemory,
}

impl Bed {
    /// Memory for the largest window.
    ///
    /// # Errors
    /// When there is none.
    pub fn new() -> Result<Self, ExperimentError> {
        Ok(Bed { memory: DmaMemory::new((MOST_WINDOW + PAGE) as usize)? })
    }

    /// Does one experiment on a machine. The same experiment and seed give the same outcome to the bit.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn run(
        &self,
        x: &Experiment,
        system: &System,
        effort: Effort,
        seed: u64,
    ) -> Result<Outcome, ExperimentError> {
        check(x)?;
        let mut rng = Rng::new(seed);
        let translation = x.page_bytes.map_or(Translation::Off, Translation::Pages);
        let far = x.sockets[1] != x.sockets[0];
        let far = far && !system.without_effect(&format!("{} remote", x.bench.name()));
        let timing = system.host(translation, far);
        let config = system.link(x.bench.is_command())?;
        let clock_hz = system.device.clock_hz;
        let mut memory = HostMemory::new(&timing, clock_hz, config.max_payload_bytes, rng.next_u64());
        let mut host = Host::new();
        let base = host.iommu.map(&self.memory)?;
        let mut addresses = Addresses::new(x, base.0, rng.next_u64());
        prepare(x, system, &mut memory, base.0, &mut addresses);
        host.memory = Some(Box::new(memory));
        let program = if x.bench.is_latency() {
            Program::Latency(Latency::default())
        } else {
            Program::Bandwidth(Bandwidth::new(x.bench, system.device.threads))
        };
        let wanted = if x.bench.is_latency() { effort.samples } else { effort.transfers };
        let mut m = Rig {
            engine: DmaEngine::new(config, 2)?,
            host,
            addresses,
            program,
            experiment: x.clone(),
            rng,
            buffers: Vec::new(),
            timestamp_cycles: system.device.timestamp_cycles,
            wanted: wanted.max(1).into(),
        };
        let mut drive = Drive::new(true);
        while !m.is_done() {
            if drive.run(&mut m, 1 << 20) == RunEnd::Idle && !m.is_done() {
                return Err(ExperimentError::Stopped(m.engine.stats(drive.now()).completed));
            }
        }
        Ok(m.outcome(drive.now(), drive.evaluated(), clock_hz))
    }
}

fn check(x: &Experiment) -> Result<(), ExperimentError> {
    let bad = |key, reason| Err(ExperimentError::Value { key, reason });
    if !(1..=4096).contains(&x.size_bytes) {
        return bad("size_bytes", "must be from 1 to 4096");
    }
    if x.host_offset >= 4096 || u64::from(x.size_bytes + x.host_offset) > PAGE {
        return bad("host_off", "the transfer would cross 4 KiB");
    }
    if x.device_offset >= 4096 {
        return bad("dev_off", "must be below 4096");
    }
    if x.window_bytes < u64::from(unit(x)) || x.window_bytes > MOST_WINDOW {
        return bad("window_bytes", "must hold one transfer and be at most 64 MiB");
    }
    if x.page_bytes.is_some_and(|p| !p.is_power_of_two() || p < PAGE) {
        return bad("iommu", "a page must be a power of two of at least 4 KiB");
    }
    Ok(())
}

/// Bytes from one address to the next.
fn unit(x: &Experiment) -> u32 {
    (x.size_bytes + x.host_offset).next_multiple_of(LINE_BYTES as u32)
}

/// The cache as the experiment wants it, and what the first millions of transfers make of it.
fn prepare(x: &Experiment, system: &System, m: &mut HostMemory, base: u64, addresses: &mut Addresses) {
    m.track(base, x.window_bytes);
    m.thrash();
    let name = match x.cache {
        CacheState::Cold => "cold",
        CacheState::HostWarm => "hwarm",
        CacheState::DeviceWarm => "dwarm",
        CacheState::DeviceThrash => "dthrash",
    };
    let shows = x.page_bytes.is_some() || !system.without_effect(&format!("{} {name}", x.bench.name()));
    match x.cache {
        CacheState::HostWarm if shows => m.host_wrote(x.sockets[2] != x.sockets[1]),
        CacheState::DeviceWarm if shows => m.device_wrote(base, x.window_bytes),
        _ => {}
    }
    if !x.bench.writes() {
        return;
    }
    let share = system.ddio_bytes();
    if x.window_bytes <= share {
        for a in addresses.all() {
            m.device_wrote(a, x.size_bytes.into());
        }
    } else {
        let transfers = 3 * share / u64::from(x.size_bytes).next_multiple_of(LINE_BYTES);
        for _ in 0..transfers {
            m.device_wrote(addresses.next(), x.size_bytes.into());
        }
    }
}

/// The addresses of an experiment: whole units, none across 4 KiB.
struct Addresses {
    base: u64,
    offset: u64,
    unit: u64,
    per_page: u64,
    count: u64,
    sequential: bool,
    at: u64,
    rng: Rng,
}

impl Addresses {
    fn new(x: &Experiment, base: u64, seed: u64) -> Self {
        let unit = u64::from(unit(x));
        let page = x.window_bytes.min(PAGE);
        let per_page = (page / unit).max(1);
        Addresses {
            base,
            offset: x.host_offset.into(),
            unit,
            per_page,
            count: per_page * (x.window_bytes / PAGE).max(1),
            sequential: x.sequential,
            at: 0,
            rng: Rng::new(seed),
        }
    }

    fn address(&self, i: u64) -> u64 {
        self.base + i / self.per_page * PAGE + i % self.per_page * self.unit + self.offset
    }

    fn all(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.count).map(|i| self.address(i))
    }

    fn next(&mut self) -> u64 {
        let i = if self.sequential {
            self.at = (self.at + 1) % self.count;
            self.at
        } else {
            self.rng.below(self.count)
        };
        self.address(i)
    }
}

#[derive(Default)]
struct Latency {
    /// Cycle of the next sample's begin.
    next: u64,
    /// Begin of the sample, its address.
    begun: Option<(u64, u64)>,
    /// The write of the sample is done.
    wrote: bool,
    requested: bool,
    skipped: u32,
    samples_ns: Vec<f64>,
}

struct Bandwidth {
    /// Transfers waiting to be requested: reads, writes.
    waiting: [u64; 2],
    alternates: bool,
    done: u64,
    first: Option<u64>,
    last: u64,
}

impl Bandwidth {
    fn new(bench: Bench, threads: u32) -> Self {
        let n = u64::from(threads);
        let waiting = match bench {
            Bench::BwRd => [n, 0],
            Bench::BwWr => [0, n],
            // Threads do not begin in step.
            _ => [n.div_ceil(2), n / 2],
        };
        Bandwidth { waiting, alternates: bench == Bench::BwRw, done: 0, first: None, last: 0 }
    }
}

enum Program {
    Latency(Latency),
    Bandwidth(Bandwidth),
}

/// The device with its program, and the host.
struct Rig {
    engine: DmaEngine,
    host: Host,
    addresses: Addresses,
    program: Program,
    experiment: Experiment,
    rng: Rng,
    buffers: Vec<Vec<u8>>,
    timestamp_cycles: u64,
    wanted: u64,
}

/// Samples that are thrown away; transfers likewise, in threads.
const WARM_UP_SAMPLES: u32 = 100;
const WARM_UP_TRANSFERS: u64 = 600;

impl Rig {
    fn is_done(&self) -> bool {
        match &self.program {
            Program::Latency(l) => l.samples_ns.len() as u64 >= self.wanted,
            Program::Bandwidth(b) => b.done >= self.wanted + WARM_UP_TRANSFERS,
        }
    }

    fn request(&mut self, now: Cycles, kind: DmaKind, address: u64) -> bool {
        let client = if kind == DmaKind::Read { READS } else { WRITES };
        if !self.engine.can_request(now, client) {
            return false;
        }
        let start = (self.experiment.device_offset % LINE_BYTES as u32) as usize;
        let mut buf = self.buffers.pop().unwrap_or_default();
        buf.resize(start + self.experiment.size_bytes as usize, 0);
        let r = DmaRequest { tag: address, kind, iova: Iova(address), buf, start };
        self.engine.request(now, client, r).is_ok()
    }

    fn latency(&mut self, now: Cycles) -> bool {
        let mut happened = false;
        let mut completed = false;
        for c in [READS, WRITES] {
            while let Some(done) = self.engine.completion(now, c) {
                self.buffers.push(done.request.buf);
                completed = true;
            }
        }
        let both = self.experiment.bench.writes();
        let Program::Latency(l) = &mut self.program else { return false };
        if completed {
            happened = true;
            l.requested = false;
            if both && !l.wrote {
                l.wrote = true;
            } else if let Some((begun, _)) = l.begun.take() {
                l.wrote = false;
                let stamps = now.0 / self.timestamp_cycles - begun / self.timestamp_cycles;
                if l.skipped < WARM_UP_SAMPLES {
                    l.skipped += 1;
                } else {
                    // In time stamps for now; nanoseconds in the end.
                    l.samples_ns.push(stamps as f64);
                }
                l.next = now.0 + PAUSE_CYCLES + self.rng.below(PAUSE_SPREAD);
            }
        }
        if l.begun.is_none() && now.0 >= l.next {
            l.begun = Some((now.0, self.addresses.next()));
            happened = true;
        }
        if let Some((_, address)) = l.begun
            && !l.requested
        {
            let kind = if both && !l.wrote { DmaKind::Write } else { DmaKind::Read };
            if self.request(now, kind, address)
                && let Program::Latency(l) = &mut self.program
            {
                l.requested = true;
                happened = true;
            }
        }
        happened
    }

    fn bandwidth(&mut self, now: Cycles) -> bool {
        let mut happened = false;
        for (i, c) in [READS, WRITES].into_iter().enumerate() {
            while let Some(done) = self.engine.completion(now, c) {
                happened = true;
                self.buffers.push(done.request.buf);
                let Program::Bandwidth(b) = &mut self.program else { return false };
                b.done += 1;
                if b.done > WARM_UP_TRANSFERS {
                    b.first.get_or_insert(now.0);
                    b.last = now.0;
                }
                b.waiting[if b.alternates { 1 - i } else { i }] += 1;
            }
        }
        for (i, kind) in [DmaKind::Read, DmaKind::Write].into_iter().enumerate() {
            let Program::Bandwidth(b) = &self.program else { return false };
            if b.waiting[i] == 0 || !self.engine.can_request(now, [READS, WRITES][i]) {
                continue;
            }
            let address = self.addresses.next();
            if self.request(now, kind, address)
                && let Program::Bandwidth(b) = &mut self.program
            {
                b.waiting[i] -= 1;
                happened = true;
            }
        }
        happened
    }

    fn outcome(self, now: Cycles, evaluated: u64, clock_hz: u64) -> Outcome {
        let ns = 1e9 / clock_hz as f64;
        let mut out = Outcome {
            samples_ns: Vec::new(),
            gbps: 0.0,
            cycles: now.0,
            evaluated,
            dma: self.engine.stats(now),
            iotlb: self.host.memory.as_ref().and_then(|m| m.iotlb_stats()),
        };
        match self.program {
            Program::Latency(l) => {
                out.samples_ns = l.samples_ns;
                out.samples_ns.sort_by(f64::total_cmp);
                out.samples_ns.iter_mut().for_each(|s| *s *= self.timestamp_cycles as f64 * ns);
            }
            Program::Bandwidth(b) => {
                let transfers = (b.done - WARM_UP_TRANSFERS).saturating_sub(1) as f64;
                let directions = if b.alternates { 2.0 } else { 1.0 };
                let time_ns = (b.last - b.first.unwrap_or(b.last)).max(1) as f64 * ns;
                out.gbps = transfers / directions * f64::from(self.experiment.size_bytes) * 8.0 / time_ns;
            }
        }
        out
    }
}

impl Machine for Rig {
    fn evaluate(&mut self, now: Cycles) -> bool {
        if self.is_done() {
            return false;
        }
        let happened = match self.program {
            Program::Latency(_) => self.latency(now),
            Program::Bandwidth(_) => self.bandwidth(now),
        };
        happened | self.engine.evaluate(now, &mut self.host, true)
    }

    fn commit(&mut self, _now: Cycles) {}

    fn next_event(&self, now: Cycles) -> Wake {
        if self.is_done() {
            return Wake::NEVER;
        }
        let w = self.engine.next_event(now);
        match &self.program {
            Program::Latency(l) if l.begun.is_none() => w.or(Wake::at(Cycles(l.next.max(now.0 + 1)))),
            Program::Bandwidth(b) if b.waiting.iter().any(|n| *n > 0) => w.or(Wake::at(Cycles(now.0 + 1))),
            _ => w,
        }
    }
}
