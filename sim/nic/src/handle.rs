//! The handle on a simulated device: its wires, its clock and what can be seen of it from outside.
//!
//! Not part of the device: neither cycle-level nor behavioural.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clock::{Clock, HostClock, Instant};
use device::{ErrorEvents, Interrupt};
use kernel::{Cycles, Drive, Rng, RunEnd};
use parking_lot::Mutex;
use pcie::IommuFault;
use simnic_defs::regs::BAR_REGS;

use crate::backing::SimBacking;
use crate::capture::{Capture, Captured};
use crate::chip::{Chip, Failure, cycles_to_ns};
use crate::config::{Config, ConfigError};
use crate::doorbells::Doorbells;
use crate::drops::{DropReason, FrameAccount};
use crate::faults::DriverFault;
use crate::live::AttachRequest;
use crate::script::Scripted;
use crate::stats::SimStats;
use crate::trail::{Place, Trail};
use crate::waves::{Watcher, Waves};

/// The device and its clock.
pub(crate) struct Core {
    pub chip: Chip,
    pub drive: Drive,
}

pub(crate) struct Inner {
    pub name: String,
    pub core: Mutex<Core>,
    pub doorbells: Doorbells,
    /// A thread runs the device.
    pub live: AtomicBool,
    /// The thread sleeps, or is about to.
    pub sleeping: AtomicBool,
    pub wake: Interrupt,
    pub host_clock: HostClock,
    /// Ports to be attached by the live thread.
    pub attach: Mutex<Vec<AttachRequest>>,
    /// Which backing may use the device; older ones have lost it.
    pub owner: AtomicU64,
    pub errors: ErrorEvents,
}

impl Inner {
    /// Wakes the live thread when it sleeps.
    pub fn kick(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst) {
            self.wake.raise();
        }
    }

    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }

    pub fn now(&self) -> Instant {
        if self.is_live() {
            return self.host_clock.now();
        }
        let core = self.core.lock();
        Instant::from_nanos(cycles_to_ns(core.drive.now().0, core.chip.config.device.clock_hz))
    }
}

impl Core {
    /// Gives the doorbells rung since the last time to the device.
    pub fn take_doorbells(&mut self, d: &Doorbells) {
        let now = self.drive.now();
        d.take(|offset, v| self.chip.write_bar(now, BAR_REGS, offset, v));
    }

    pub fn run(&mut self, cycles: u64) -> RunEnd {
        self.drive.run(&mut self.chip, cycles)
    }

    /// Puts a frame on the wire of `port`; false when the wire is full or there is no such port.
    pub fn inject(&mut self, port: u8, frame: &[u8]) -> bool {
        self.inject_at(port, 0, frame)
    }

    /// As [`Core::inject`], to arrive in `cycle`, not before those on the wire.
    pub fn inject_at(&mut self, port: u8, cycle: u64, frame: &[u8]) -> bool {
        let Some(p) = self.chip.ports.get_mut(usize::from(port)) else { return false };
        if p.wire_in_room() == 0 {
            return false;
        }
        let mut frame = self.chip.pool.with_bytes(frame, port);
        let before = p.wire_in.back().map_or(0, |f| f.at);
        frame.at = cycle.max(self.drive.now().0).max(before);
        let at = frame.at;
        frame.stamp(Place::WireIn(port), at, at);
        p.wire_in.push_back(frame);
        self.chip.account.injected += 1;
        true
    }
}

/// A simulated SmartNIC.
pub struct SimNic;

impl SimNic {
    /// A device called `sim:0` after power-on, in lockstep: its time stands still until somebody waits or steps. `seed`
    /// decides what differs from one device to another (addresses, where arbiters begin); the same seed and the same
    /// accesses give the same run to the bit.
    ///
    /// # Errors
    /// When the configuration is out of range, or [`ConfigError`] with key `host` when the process is out of descriptors.
    #[allow(clippy::new_ret_no_self)] // the device is reached through its handle only
    pub fn new(config: Config, seed: u64) -> Result<SimHandle, ConfigError> {
        SimNic::named("sim:0", config, seed)
    }

    /// As [`SimNic::new`], with the name that the backing has.
    ///
    /// # Errors
    /// As [`SimNic::new`].
    pub fn named(name: &str, config: Config, seed: u64) -> Result<SimHandle, ConfigError> {
        let wake = Interrupt::new().map_err(|e| ConfigError {
            line: 0,
            key: "host".into(),
            reason: e.to_string(),
        })?;
        let mut chip = Chip::new(config)?;
        let errors = chip.errors.clone();
        chip.seed(&mut Rng::new(seed));
        Ok(SimHandle(Arc::new(Inner {
            name: name.to_string(),
            core: Mutex::new(Core { chip, drive: Drive::new(true) }),
            doorbells: Doorbells::new(),
            live: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            wake,
            host_clock: HostClock::new(),
            attach: Mutex::new(Vec::new()),
            owner: AtomicU64::new(0),
            errors,
        })))
    }
}

/// A handle on a simulated device. Clones are handles on the same one.
#[derive(Clone)]
pub struct SimHandle(pub(crate) Arc<Inner>);

impl SimHandle {
    /// The device as a driver gets it: powered on, memory decoding enabled. An earlier backing loses the device.
    pub fn backing(&self) -> SimBacking {
        SimBacking::new(self.0.clone())
    }

    /// The device as it is, for a driver that goes on with it after [`SimNic::resume`]: neither powered on nor reset, with what is
    /// mapped. Interrupts are to be enabled anew. An earlier backing loses the device.
    pub fn adopt(&self) -> SimBacking {
        SimBacking::adopt(self.0.clone())
    }

    /// Puts a frame (without FCS) on the wire towards `port`. False when the wire is full, or there is no such port; the
    /// frame is not counted then.
    pub fn inject(&self, port: u8, frame: &[u8]) -> bool {
        let ok = self.0.core.lock().inject(port, frame);
        self.0.kick();
        ok
    }

    /// Takes the frames that `port` has sent, oldest first. In live mode those of attached ports never get here.
    pub fn collect(&self, port: u8) -> Vec<Vec<u8>> {
        let mut core = self.0.core.lock();
        let chip = &mut core.chip;
        let Some(p) = chip.ports.get_mut(usize::from(port)) else { return Vec::new() };
        let mut out = Vec::with_capacity(p.wire_out.len());
        while let Some(f) = p.wire_out.pop_front() {
            chip.account.collected += 1;
            out.push(f.bytes().to_vec());
            chip.pool.put(f);
        }
        out
    }

    /// Moves the device's time by exactly `cycles`; in lockstep only, nothing happens when it runs live.
    pub fn step(&self, cycles: u64) {
        if !self.0.is_live() {
            let mut core = self.0.core.lock();
            let Core { chip, drive } = &mut *core;
            drive.step(chip, cycles);
        }
    }

    /// Runs until nothing is left to do, at most `limit` cycles; says whether it came to rest. In lockstep only; a
    /// live device is not waited for and reported at rest when it is.
    pub fn run_until_idle(&self, limit: u64) -> bool {
        let mut core = self.0.core.lock();
        if self.0.is_live() {
            return core.chip.is_idle(core.drive.now());
        }
        core.run(limit) == RunEnd::Idle
    }

    /// The current cycle.
    pub fn cycle(&self) -> Cycles {
        self.0.core.lock().drive.now()
    }

    /// Device time: cycles in lockstep, host time when it runs live.
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// Duration of `cycles` of this device.
    pub fn duration(&self, cycles: Cycles) -> Duration {
        cycles.to_duration(self.0.core.lock().chip.config.device.clock_hz)
    }

    /// The configuration it was made with.
    pub fn config(&self) -> Config {
        self.0.core.lock().chip.config.clone()
    }

    /// Everything that can be counted, now.
    pub fn stats(&self) -> SimStats {
        let core = self.0.core.lock();
        SimStats::of(&core.chip, core.drive.now())
    }

    /// Cycles evaluated rather than jumped over.
    pub fn evaluated_cycles(&self) -> u64 {
        self.0.core.lock().drive.evaluated()
    }

    /// Frames dropped so far, by port and reason; only reasons that occurred.
    pub fn drops(&self) -> Vec<(u8, DropReason, u64)> {
        let core = self.0.core.lock();
        let of = |p: &crate::port::Port| {
            let (index, by_reason) = (p.index, p.counts.by_reason);
            DropReason::ALL.iter().map(move |r| (index, *r, by_reason[*r as usize]))
        };
        core.chip.ports.iter().flat_map(of).filter(|(_, _, n)| *n > 0).collect()
    }

    /// Every frame and what became of it.
    pub fn account(&self) -> FrameAccount {
        let core = self.0.core.lock();
        FrameAccount { inside: core.chip.inside() as u64, ..core.chip.account }
    }

    /// The latest things the driver did wrong, oldest first, at most 256.
    pub fn faults(&self) -> Vec<DriverFault> {
        self.0.core.lock().chip.faults.latest().copied().collect()
    }

    /// How often the driver did something wrong.
    pub fn fault_count(&self) -> u64 {
        self.0.core.lock().chip.faults.count()
    }

    /// The latest accesses the IOMMU refused, oldest first, at most 64.
    pub fn iommu_faults(&self) -> Vec<IommuFault> {
        self.0.core.lock().chip.host.iommu.faults().copied().collect()
    }

    /// Whether there is somebody at the other end of a port's wire; at first there is. Without, the link is down and frames
    /// are dropped. A port that the device does not have is ignored.
    pub fn set_carrier(&self, port: u8, carrier: bool) {
        self.0.core.lock().chip.set_carrier(port, carrier);
        self.0.kick();
    }

    /// Makes the device fail.
    pub fn inject_failure(&self, f: Failure) {
        let mut core = self.0.core.lock();
        let now = core.drive.now();
        core.chip.inject_failure(now, f);
        drop(core);
        self.0.kick();
    }

    /// Ends an injected failure; a device that was removed is back as after power-on.
    pub fn repair(&self) {
        let mut core = self.0.core.lock();
        let now = core.drive.now();
        core.chip.repair(now);
        drop(core);
        self.0.kick();
    }

    /// Watches the frames that come to be from now on: each has a [`Trail`] when it ends, of which `limit` are kept until
    /// they are taken. `None` stops it. It changes nothing that the device does.
    pub fn watch_frames(&self, limit: Option<usize>) {
        self.0.core.lock().chip.pool.watch(limit);
    }

    /// Takes the trails of watched frames that have ended, in order of the frames' numbers, and how many there were beyond the limit.
    pub fn take_trails(&self) -> (Vec<Trail>, u64) {
        self.0.core.lock().chip.pool.take_trails()
    }

    /// Adds failures to those to come. One whose cycle has passed takes effect at once.
    pub fn play(&self, script: &[Scripted]) {
        self.0.core.lock().chip.script.add(script);
        self.0.kick();
    }

    /// Watches what changes from cycle to cycle, keeping at most `limit` changes. It changes nothing that the device does.
    pub fn watch_signals(&self, limit: usize) {
        let mut core = self.0.core.lock();
        let watcher = Watcher::new(&core.chip, core.drive.now().0, limit);
        core.chip.watcher = Some(Box::new(watcher));
    }

    /// Ends [`SimHandle::watch_signals`] and gives what was seen.
    pub fn take_waves(&self) -> Option<Waves> {
        let mut core = self.0.core.lock();
        let now = core.drive.now().0;
        core.chip.watcher.take().map(|w| w.finish(now))
    }

    /// Puts a tap on every wire, which keeps at most `limit_bytes` of frames.
    pub fn tap(&self, limit_bytes: usize) {
        self.0.core.lock().chip.pool.tap = Some(Box::new(Capture::new(limit_bytes)));
    }

    /// Takes the tap away: frames in order of their cycles, and how many did not fit.
    pub fn take_tap(&self) -> (Vec<Captured>, u64) {
        self.0.core.lock().chip.pool.tap.take().map(|t| t.finish()).unwrap_or_default()
    }

    /// Turns jumping over empty cycles on or off; it changes nothing but the speed.
    pub fn set_skipping(&self, on: bool) {
        self.0.core.lock().drive.set_skipping(on);
    }

    /// Evaluates the stages in reverse order; it changes nothing, which is what tests show with it.
    pub fn set_reversed(&self, on: bool) {
        self.0.core.lock().chip.reversed = on;
    }
}
