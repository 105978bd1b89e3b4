//! The whole device: its stages, and one cycle of all of them.
//!
//! ```text
//!              ┌──────────────────────── pipeline ───────────────────────┐
//!   wires ─► ports ─► parser ─► lookups ─► action engine ─► ports ─► wires
//!              ▲                  ▲         ▲              │ to host
//!         tx engine            command engine          rx engine
//!              └────────────────── DMA engine ─────────────┘ ══ PCIe ══ host memory
//! ```
//!
//! Stages are fields and called directly: nothing is dispatched dynamically in a cycle. What the command engine changes
//! in the tables and ports takes effect in [`Chip::commit`].
//!
//! Cycle-level: one call of every stage for each cycle, effects seen by others in the next. Behavioural: a reset clears everything in the
//! cycle in which it is over.

use device::ErrorEvents;
use kernel::{Cycles, Damage, Machine, Reader, Rng, State, Wake, Writer};
use pcie::{BarSpec, ConfigRegs, DmaClient, DmaEngine, Host, HostMemory, Identity, Msix, Translation};
use simnic_defs::regs::{
    BAR_MSIX, BAR_MSIX_BYTES, BAR_REGS, BAR_REGS_BYTES, CLASS_CODE, Caps, DEVICE_ID, MSIX_PBA_OFFSET,
    MSIX_TABLE_OFFSET, REVISION, VECTOR_EVENT, VENDOR_ID,
};
use simnic_defs::{KEY_BYTES, MAX_ACTIONS, MAX_OUTPUTS};

use crate::again::PASSES;
use crate::cmd_engine::CmdEngine;
use crate::config::{Config, ConfigError};
use crate::drops::FrameAccount;
use crate::evict::Evictor;
use crate::faults::{FaultKind, FaultLog};
use crate::packet::PacketPool;
use crate::pipeline::Pipeline;
use crate::port::Port;
use crate::rx_engine::RxEngine;
use crate::scheduler::SharedBuffer;
use crate::script::{Mishap, Script};
use crate::tables::Tables;
use crate::transfer::{SmallBuffers, Tag, raise_vector};
use crate::tx_engine::TxEngine;
use crate::waves::Watcher;

/// DMA client of event interrupts and of those that were held back.
const EVENTS: DmaClient = DmaClient(3);

/// Decides how access times of the host's DRAM vary; any will do.
const MEMORY_SEED: u64 = 1;

/// What the engines use together.
pub(crate) struct Shared<'a> {
    pub dma: &'a mut DmaEngine,
    pub pool: &'a mut PacketPool,
    pub faults: &'a mut FaultLog,
    pub account: &'a mut FrameAccount,
    pub msix: &'a mut Msix,
    /// The device has failed for good; takes effect at the end of the cycle.
    pub fatal: &'a mut bool,
    /// The device is enabled and has not failed: new work may be started.
    pub running: bool,
}

/// [`Shared`] of a chip whose other fields stay accessible.
macro_rules! shared {
    ($chip:ident) => {
        $crate::chip::Shared {
            running: $chip.running,
            dma: &mut $chip.dma,
            pool: &mut $chip.pool,
            faults: &mut $chip.faults,
            account: &mut $chip.account,
            msix: &mut $chip.msix,
            fatal: &mut $chip.fatal,
        }
    };
}
pub(crate) use shared;

/// A failure put into the device by a test or a demonstration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// All engines stop; registers still answer. A reset ends it.
    Hang,
    /// As [`Failure::Hang`], and resets do not end it, nor do they complete.
    HangForGood,
    /// The device disappears from the bus: registers and configuration space read all ones, frames are lost.
    SurpriseRemoval,
    /// An internal error: FAULT.INTERNAL and STATUS.FATAL; all DMA stops. A reset ends it.
    Internal,
}

kernel::state!(enum Failure { 0 => Hang, 1 => HangForGood, 2 => SurpriseRemoval, 3 => Internal });

#[derive(Clone)]
pub(crate) struct Chip {
    pub config: Config,
    pub caps: Caps,
    pub pool: PacketPool,
    pub ports: Vec<Port>,
    pub pipeline: Pipeline,
    pub tables: Tables,
    pub rx: RxEngine,
    pub tx: TxEngine,
    pub cmd: CmdEngine,
    pub evictor: Evictor,
    pub dma: DmaEngine,
    pub host: Host,
    pub pci: ConfigRegs,
    pub msix: Msix,
    pub faults: FaultLog,
    pub account: FrameAccount,
    small: SmallBuffers,
    /// CTRL.ENABLE.
    pub enabled: bool,
    pub fatal: bool,
    /// Enabled and not failed, as of the beginning of the cycle.
    pub running: bool,
    /// Counters were on their way to host memory at the beginning of the cycle.
    evicting: bool,
    /// The reset in progress ends then.
    pub reset_until: Option<u64>,
    /// Cycle of the last reset; TIME counts from there.
    pub reset_at: Cycles,
    pub failure: Option<Failure>,
    event_due: bool,
    /// Nanoseconds since the reset by the host's clock, when the device runs live; updated before each run.
    pub live_ns: Option<u64>,
    /// Ethernet addresses of the ports but their last byte, which is the port; locally administered.
    pub mac: [u8; 5],
    /// Upper half of a counter whose lower half was read.
    pub latch: Option<(u32, u32)>,
    /// Failures to come.
    pub script: Script,
    /// Errors that reach the driver from outside its queues.
    pub errors: ErrorEvents,
    pub watcher: Option<Box<Watcher>>,
    /// Evaluates the stages the other way round; for tests that show it does not matter.
    pub reversed: bool,
}

impl Chip {
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let d = &config.device;
        let id = Identity {
            vendor: VENDOR_ID,
            device: DEVICE_ID,
            revision: REVISION,
            class: CLASS_CODE,
            subsystem: (VENDOR_ID, DEVICE_ID),
        };
        let bars = [
            BarSpec { index: BAR_REGS, len_bytes: BAR_REGS_BYTES as u32 },
            BarSpec { index: BAR_MSIX, len_bytes: BAR_MSIX_BYTES as u32 },
        ];
        let machine = config.machine()?;
        let mut host = Host::new();
        host.memory = machine.as_ref().map(|m| {
            let timing = m.host(Translation::Off, false);
            Box::new(HostMemory::new(&timing, d.clock_hz, config.pcie.max_payload_bytes, MEMORY_SEED))
        });
        let dma = DmaEngine::new(config.link(machine.as_ref()), 4).map_err(|e| ConfigError {
            line: 0,
            key: format!("pcie.{}", e.key),
            reason: e.reason.into(),
        })?;
        Ok(Chip {
            caps: caps(&config),
            pool: {
                let mut pool = PacketPool::new(d.max_frame_bytes.into());
                pool.shared = SharedBuffer::new(&config);
                pool
            },
            ports: (0..d.ports).map(|p| Port::new(p, &config)).collect::<Result<_, _>>()?,
            pipeline: Pipeline::new(&config)?,
            tables: Tables::new(&config),
            rx: RxEngine::new(&config),
            tx: TxEngine::new(&config),
            cmd: CmdEngine::new(&config),
            evictor: Evictor::default(),
            dma,
            host,
            pci: ConfigRegs::new(id, &bars, (d.msix_vectors, MSIX_TABLE_OFFSET, MSIX_PBA_OFFSET), BAR_MSIX),
            msix: Msix::new(d.msix_vectors),
            faults: FaultLog::default(),
            account: FrameAccount::default(),
            small: SmallBuffers::default(),
            enabled: false,
            fatal: false,
            running: false,
            evicting: false,
            reset_until: None,
            reset_at: Cycles(0),
            failure: None,
            event_due: false,
            live_ns: None,
            mac: [0x02, 0x53, 0, 0, 0],
            latch: None,
            script: Script::default(),
            errors: ErrorEvents::default(),
            watcher: None,
            reversed: false,
            config,
        })
    }

    /// Nanoseconds since the last reset.
    pub fn now_ns(&self, now: Cycles) -> u64 {
        if let Some(ns) = self.live_ns {
            return ns;
        }
        let cycles = now.0.saturating_sub(self.reset_at.0);
        cycles_to_ns(cycles, self.config.device.clock_hz)
    }

    /// Whether the engines run at all.
    fn runs(&self) -> bool {
        self.failure.is_none_or(|f| f == Failure::Internal) && self.reset_until.is_none()
    }

    pub fn removed(&self) -> bool {
        self.failure == Some(Failure::SurpriseRemoval)
    }

    /// The wire of a port got a carrier or lost it; the driver hears of it as an event.
    pub fn set_carrier(&mut self, port: u8, carrier: bool) {
        if let Some(p) = self.ports.get_mut(usize::from(port)) {
            self.event_due |= p.up && p.carrier != carrier;
            p.carrier = carrier;
        }
    }

    pub fn inject_failure(&mut self, now: Cycles, f: Failure) {
        if f == Failure::Internal {
            self.faults.stage(now, FaultKind::Internal, 0, 0);
            self.faults.commit();
            self.fatal = true;
        }
        if f == Failure::SurpriseRemoval {
            self.clear(now);
        }
        if matches!(f, Failure::SurpriseRemoval | Failure::Internal) {
            self.errors.report_fatal();
        }
        self.failure = Some(f);
    }

    /// What the script says happens in cycle `now`; it happens between two cycles.
    #[cold]
    fn play(&mut self, now: Cycles) {
        while let Some(m) = self.script.due(now.0) {
            match m {
                Mishap::Carrier { port, up } => self.set_carrier(port, up),
                Mishap::BitErrors { port, frames } => {
                    if let Some(p) = self.ports.get_mut(usize::from(port)) {
                        p.damaged = p.damaged.saturating_add(frames);
                    }
                }
                Mishap::Stuck { receive, port, queue, stuck } => self.stick(receive, port, queue, stuck),
                Mishap::SlowCommands(times) => self.cmd.times = times.max(1).into(),
                Mishap::FailCommands(n) => self.cmd.to_fail = self.cmd.to_fail.saturating_add(n),
                Mishap::Parity { table, slot } => {
                    if self.tables.spoil(table, slot as usize) {
                        self.faults.stage(now, FaultKind::Parity, table.into(), slot.into());
                        self.faults.commit();
                        self.event_due |= std::mem::take(&mut self.faults.event);
                    }
                }
                Mishap::LoseInterrupts(n) => self.msix.lose(n),
                Mishap::Reset => self.function_level_reset(now),
                Mishap::Remove => self.inject_failure(now, Failure::SurpriseRemoval),
                Mishap::Repair => self.repair(now),
            }
        }
    }

    fn stick(&mut self, receive: bool, port: u8, queue: u8, stuck: bool) {
        let pairs = self.config.device.queue_pairs;
        if port >= self.config.device.ports || queue >= pairs {
            return;
        }
        let i = usize::from(port) * usize::from(pairs) + usize::from(queue);
        if receive {
            self.rx.host.rings[i].ring.stuck = stuck;
            self.rx.host.touch(i);
        } else {
            self.tx.host.rings[i].ring.stuck = stuck;
            self.tx.host.touch(i);
        }
    }

    /// When the next failure of the script is due, after `now`.
    fn next_mishap(&self, now: Cycles) -> Wake {
        self.script.next().map_or(Wake::NEVER, |c| Wake::at(Cycles(c.max(now.0 + 1))))
    }

    /// Starts a reset: everything is forgotten now, the device is ready again after the reset time.
    pub fn reset(&mut self, now: Cycles) {
        if self.removed() {
            return;
        }
        self.clear(now);
        if self.failure != Some(Failure::HangForGood) {
            self.failure = None;
        }
        self.reset_until = Some(now.0 + u64::from(self.config.device.reset_cycles));
    }

    fn clear(&mut self, now: Cycles) {
        let mut shared = shared!(self);
        self.rx.host.reset(&mut self.ports, &mut shared);
        self.tx.host.reset(&mut self.ports, &mut shared);
        self.cmd.reset();
        self.evictor.reset();
        self.dma.reset(now);
        self.pipeline.reset(now, &mut self.ports, &mut self.pool, &mut self.account);
        for p in &mut self.ports {
            p.reset(now, &mut self.pool, &mut self.account);
        }
        self.tables.reset();
        self.faults.reset();
        self.forget_in_flight();
        (self.enabled, self.fatal, self.event_due) = (false, false, false);
        self.latch = None;
        self.reset_at = now;
        self.live_ns = self.live_ns.map(|_| 0);
    }

    /// The DMA engine has forgotten the rings' transfers.
    fn forget_in_flight(&mut self) {
        let rings = self.rx.host.rings.iter_mut().map(|q| &mut q.ring);
        for r in rings.chain(self.tx.host.rings.iter_mut().map(|q| &mut q.ring)).chain([&mut self.cmd.ring]) {
            r.in_flight = 0;
        }
    }

    /// A function-level reset: as [`Chip::reset`], and configuration space and MSI-X go back to their defaults.
    pub fn function_level_reset(&mut self, now: Cycles) {
        self.reset(now);
        self.pci.reset();
        self.msix.reset();
    }

    /// The state after power-on, at once; what a platform leaves behind when it hands the device to a driver.
    pub fn power_on(&mut self, now: Cycles) {
        self.function_level_reset(now);
        if self.failure.is_none() {
            self.reset_until = None;
        }
    }

    /// Raises the events vector at the next opportunity.
    pub fn raise_event(&mut self) {
        self.event_due = true;
    }

    /// Held-back messages and the events vector.
    fn events(&mut self, now: Cycles) -> bool {
        let mut happened = false;
        while let Some(c) = self.dma.completion(now, EVENTS) {
            happened = true;
            let tag = Tag::unpack(c.request.tag);
            if tag.kind == crate::transfer::Kind::Records {
                let fault = c.result.err().map(|e| crate::transfer::dma_address(e, c.request.iova));
                let mut shared = shared!(self);
                self.evictor.written(now, tag, fault, c.request.buf, &mut shared);
            } else {
                self.small.put(c.request.buf);
            }
        }
        if self.evictor.enabled {
            let mut shared = shared!(self);
            happened |= self.evictor.send(now, EVENTS, &mut shared);
        }
        if !self.event_due && !self.msix.has_due() || !self.dma.can_request(now, EVENTS) {
            return happened;
        }
        let mut shared = shared!(self);
        if std::mem::take(&mut self.event_due) {
            raise_vector(now, EVENTS, VECTOR_EVENT.into(), &mut shared, &mut self.small);
        } else if let Some(m) = shared.msix.take_due() {
            crate::transfer::send_message(now, EVENTS, m, &mut shared, &mut self.small);
        }
        true
    }

    fn engines(&mut self, now: Cycles, which: usize) -> bool {
        let evicting = self.evicting;
        let mut shared = shared!(self);
        match which {
            0 => self.cmd.evaluate(now, &self.tables, evicting, &mut shared),
            1 => self.tx.evaluate(now, &mut self.ports, &mut shared),
            _ => self.rx.evaluate(now, &mut self.ports, &mut shared),
        }
    }

    /// Evaluates one group of stages.
    #[inline]
    fn group(&mut self, now: Cycles, which: usize, now_ns: u64) -> bool {
        let running = self.running;
        match which {
            0 => {
                let mut happened = false;
                for p in &mut self.ports {
                    happened |= p.receive(now, running, &mut self.pool, &mut self.account);
                }
                happened
            }
            1 => self.pipeline.parse(now, &mut self.ports),
            2 => self.pipeline.exact(now, &mut self.tables, now_ns),
            3 => self.pipeline.ternary(now, &mut self.tables, now_ns),
            4 => {
                let objects = (&mut self.tables.objects, now_ns);
                self.pipeline.act(now, &mut self.ports, &mut self.pool, &mut self.account, objects)
            }
            5 => {
                let mut happened = false;
                for p in &mut self.ports {
                    happened |= p.transmit(now, &mut self.pool, &mut self.account);
                }
                happened
            }
            6..=8 => self.engines(now, which - 6),
            9 => self.events(now),
            10 => self.pipeline.lpm(now, &mut self.tables, now_ns),
            11 => self.pipeline.range(now, &mut self.tables, now_ns),
            _ => {
                let bus_master = self.pci.bus_master();
                self.dma.evaluate(now, &mut self.host, bus_master)
            }
        }
    }

    /// Decides what differs from one device to another of its kind: addresses, where the arbiters begin.
    pub fn seed(&mut self, r: &mut Rng) {
        let [a, b, c, ..] = r.next_u64().to_le_bytes();
        self.mac = [0x02, 0x53, a, b, c];
        self.pipeline.start_at(r.below(self.ports.len() as u64) as usize);
        self.rx.start_at(r.below(self.ports.len() as u64) as usize);
        self.tx.start_at(r.below(self.tx.host.rings.len() as u64) as usize);
    }

    /// Whether nothing will happen until something comes from outside.
    pub fn is_idle(&self, now: Cycles) -> bool {
        let last = Cycles(now.0.saturating_sub(1));
        self.next_event(last) == Wake::NEVER
    }

    /// Ends an injected failure. A removed device comes back as after power-on; one that hung goes on where it stopped.
    pub fn repair(&mut self, now: Cycles) {
        let was_removed = self.removed();
        self.failure = None;
        if was_removed {
            self.power_on(now);
            self.pci.set_memory(true);
        }
    }

    /// Frames inside the device and on its wires, counted one by one.
    pub fn inside(&self) -> usize {
        let ports: usize = self.ports.iter().map(Port::inside).sum();
        ports + self.pipeline.inside() + self.rx.host.inside() + self.tx.host.inside()
    }
}

impl Chip {
    /// Appends all state, see [`Chip::load`].
    pub fn save(&self, w: &mut Writer) {
        let Chip {
            config: _,
            caps: _,
            pool,
            ports,
            pipeline,
            tables,
            rx,
            tx,
            cmd,
            evictor,
            dma,
            host,
            pci,
            msix,
            faults,
            account,
            small: _,
            enabled,
            fatal,
            running,
            evicting,
            reset_until,
            reset_at,
            failure,
            event_due,
            live_ns: _,
            mac,
            latch,
            script,
            errors,
            watcher,
            reversed,
        } = self;
        pool.save(w);
        ports.save(w);
        pipeline.save(w);
        tables.save(w);
        rx.save(w);
        tx.save(w);
        cmd.save(w);
        evictor.save(w);
        dma.save(w);
        host.save(w);
        pci.save(w);
        msix.save(w);
        faults.save(w);
        account.save(w);
        [*enabled, *fatal, *running, *evicting, *event_due, *reversed].save(w);
        (*reset_until, *reset_at, *failure).save(w);
        mac.save(w);
        latch.save(w);
        script.save(w);
        watcher.save(w);
        [errors.fatal() > 0, errors.nonfatal() > 0, errors.unplug_requested()].save(w);
    }

    /// What [`Chip::save`] wrote, into a new device of the same configuration; it runs in lockstep.
    pub fn load(r: &mut Reader<'_>, made: Chip) -> Result<Chip, Damage> {
        /// One part.
        fn part<T: State>(r: &mut Reader<'_>, made: &T, what: &'static str) -> Result<T, Damage> {
            let v = T::load(r)?;
            if v.fits(made) { Ok(v) } else { Err(r.damage(what)) }
        }
        let mut c = made;
        c.pool = part(r, &c.pool, "packet pool of this configuration")?;
        let ports: Vec<Port> = part(r, &c.ports, "ports of this configuration")?;
        if ports.len() != c.ports.len() {
            return Err(r.damage("as many ports as the configuration has"));
        }
        c.ports = ports;
        c.pipeline = part(r, &c.pipeline, "pipeline of this configuration")?;
        c.tables = part(r, &c.tables, "tables of this configuration")?;
        c.rx = part(r, &c.rx, "receive engine of this configuration")?;
        c.tx = part(r, &c.tx, "transmit engine of this configuration")?;
        c.cmd = part(r, &c.cmd, "command engine of this configuration")?;
        c.evictor = State::load(r)?;
        c.dma = part(r, &c.dma, "DMA engine of this configuration")?;
        if !c.dma.is_sound() {
            return Err(r.damage("DMA engine whose parts belong together"));
        }
        c.host = Host::load(r, &c.host)?;
        c.pci = part(r, &c.pci, "configuration space of this configuration")?;
        c.msix = part(r, &c.msix, "MSI-X of this configuration")?;
        (c.faults, c.account) = State::load(r)?;
        [c.enabled, c.fatal, c.running, c.evicting, c.event_due, c.reversed] = State::load(r)?;
        (c.reset_until, c.reset_at, c.failure) = State::load(r)?;
        (c.mac, c.latch, c.script, c.watcher) = State::load(r)?;
        let [fatal, nonfatal, unplug] = State::load(r)?;
        if fatal {
            c.errors.report_fatal();
        }
        if nonfatal {
            c.errors.report_nonfatal();
        }
        if unplug {
            c.errors.request_unplug();
        }
        Ok(c)
    }
}

/// Groups of stages, see [`Chip::group`].
const GROUPS: usize = 13;

impl Machine for Chip {
    fn evaluate(&mut self, now: Cycles) -> bool {
        if self.script.next().is_some_and(|c| c <= now.0) {
            self.play(now);
        }
        if !self.runs() {
            return match self.reset_until {
                Some(t) if now.0 >= t && self.failure.is_none() => {
                    self.reset_until = None;
                    true
                }
                _ => false,
            };
        }
        // An error of this cycle takes effect in the next, so all groups see the same.
        self.running = self.enabled && !self.fatal;
        self.evicting = self.evictor.is_busy();
        let now_ns = self.now_ns(now);
        let mut happened = false;
        for i in 0..GROUPS {
            let g = if self.reversed { GROUPS - 1 - i } else { i };
            happened |= self.group(now, g, now_ns);
        }
        happened
    }

    fn commit(&mut self, now: Cycles) {
        if !self.runs() {
            return;
        }
        if self.cmd.is_due() {
            let now_ns = self.now_ns(now);
            let effect = self.cmd.commit(&mut self.tables, now_ns);
            if let Some((table, profile, entries)) = effect.written {
                self.pipeline.written(now, table, profile, entries);
            }
            if let Some((port, up)) = effect.port
                && let Some(p) = self.ports.get_mut(usize::from(port))
            {
                self.event_due |= p.up != up;
                p.up = up;
            }
        }
        if self.evictor.enabled && self.running {
            self.evictor.take(now, &mut self.tables, &mut self.faults);
        }
        if self.config.port.pause_at_frames > 0 {
            self.ports.iter_mut().for_each(Port::look_at_ingress);
        }
        self.faults.commit();
        self.event_due |= std::mem::take(&mut self.faults.event);
        if let Some(mut w) = self.watcher.take() {
            w.sample(self, now.0);
            self.watcher = Some(w);
        }
    }

    fn next_event(&self, now: Cycles) -> Wake {
        if !self.runs() {
            return match self.reset_until {
                Some(t) if self.failure.is_none() => {
                    Wake::at(Cycles(t.max(now.0 + 1))).or(self.next_mishap(now))
                }
                _ => self.next_mishap(now),
            };
        }
        let mut w = self.next_mishap(now).or(self.pipeline.next_event(now)).or(self.dma.next_event(now));
        if self.enabled && !self.fatal {
            w = w
                .or(self.cmd.next_event(now))
                .or(self.evictor.next_event(now, &self.tables))
                .or(self.tx.host.next_event(now))
                .or(self.rx.host.next_event(now));
        }
        for p in &self.ports {
            w = w.or(p.next_event(now));
        }
        if self.event_due || self.msix.has_due() {
            w = w.or(Wake::at(Cycles(now.0 + 1)));
        }
        w
    }
}

pub(crate) fn cycles_to_ns(cycles: u64, hz: u64) -> u64 {
    if 1_000_000_000 % hz == 0 {
        return cycles.saturating_mul(1_000_000_000 / hz);
    }
    u64::try_from(u128::from(cycles) * 1_000_000_000 / u128::from(hz)).unwrap_or(u64::MAX)
}

fn caps(c: &Config) -> Caps {
    let insert = u64::from(c.command.decode_cycles) + u64::from(c.exact.insert_cycles);
    Caps {
        ports: c.device.ports,
        queue_pairs: c.device.queue_pairs,
        msix_vectors: c.device.msix_vectors,
        ring_log2_min: c.host.ring_log2_min,
        ring_log2_max: c.host.ring_log2_max,
        cmd_log2_max: c.host.command_log2_max,
        key_bytes: KEY_BYTES as u8,
        exact_log2: c.exact.log2_entries,
        exact_ways: c.exact.ways,
        profiles: c.exact.profiles,
        ternary_entries: c.ternary.entries,
        max_actions: MAX_ACTIONS as u8,
        max_outputs: MAX_OUTPUTS as u8,
        packet_bits: c.counters.packet_bits,
        byte_bits: c.counters.byte_bits,
        max_frame_bytes: c.device.max_frame_bytes,
        max_records: c.command.max_records,
        lpm_profiles: c.lpm.profiles,
        lpm_entries: c.lpm.entries,
        range_entries: c.range.entries,
        meters: c.meters.entries,
        headers: c.tunnels.headers,
        passes: if c.recirculates() { PASSES } else { 1 },
        counter_log2_max: c.counters.ring_log2_max,
        groups: c.groups.entries,
        connections: if c.recirculates() { c.connections.entries } else { 0 },
        insert_ns: cycles_to_ns(insert, c.device.clock_hz).min(u32::MAX.into()) as u32,
    }
}
