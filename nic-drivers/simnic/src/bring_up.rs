//! Bring-up in the datasheet's steps (SPEC 3.1), and the same again after a failure.
//!
//! ```text
//!   identify ─ reset ─ capabilities ─ memory ─ interrupts ─ command ring ─ enable ─ probe ─ queues ─ ports
//!                                     once                                                once
//! ```
//!
//! After a failure the steps from *reset* on are done again, except those that allocate; queues restart by themselves.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use device::driver::{AtStep, Fault, Lifeline, dma_alloc, wait_for};
use device::{BufferPool, DeviceBacking, DeviceError, RegOffset, Registers};
use flow::PortId;
use offload::OffloadError;
use simnic_defs::regs::{
    ALL_ONES, Caps, ID_VALUE, MAX_PORTS, MAX_QUEUE_PAIRS, VECTOR_CMD, VECTOR_QUEUES, VERSION_MAJOR, ctrl,
    queue_status, status,
};
use simnic_defs::{EvictRecord, KEY_BYTES, Reg, RxCpl, TxCpl};

use crate::buf_ring::ring_bytes;
use crate::cmd_ring::{CmdRing, cmd_bytes};
use crate::config::SimnicConfig;
use crate::counter_ring::CounterRing;
use crate::port::SimnicPort;
use crate::provider::{Job, Simnic, SimnicProvider};
use crate::rx_ring::{RxRing, frame_room};
use crate::tx_ring::TxRing;

/// A step of bring-up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Step {
    Configuration,
    Identify,
    Reset,
    Capabilities,
    Memory,
    Interrupts,
    CommandRing,
    Enable,
    Probe,
    Queues,
    Ports,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Configuration => "configuration",
            Step::Identify => "identify",
            Step::Reset => "reset",
            Step::Capabilities => "capabilities",
            Step::Memory => "memory",
            Step::Interrupts => "interrupts",
            Step::CommandRing => "command ring",
            Step::Enable => "enable",
            Step::Probe => "probe",
            Step::Queues => "queues",
            Step::Ports => "ports",
        })
    }
}

/// Bring-up failed; the device is reset and released.
pub type BringUpError = device::driver::BringUpError<Step>;

/// log2 of the records of the counter ring, where the device allows it.
const COUNTER_LOG2: u8 = 10;

/// A command failed.
fn command(e: OffloadError) -> Fault {
    Fault::Command(e.into())
}

fn unfit<T>(what: String) -> Result<T, Fault> {
    Err(Fault::Unfit(what))
}

/// Reads a global register.
pub(crate) fn read<R: Registers>(regs: &R, r: Reg) -> u32 {
    regs.read32(RegOffset(r.0))
}

/// Step *identify*.
fn identify<R: Registers>(regs: &R) -> Result<(), Fault> {
    let id = read(regs, Reg::ID);
    if id == ALL_ONES {
        return Err(Fault::Gone);
    }
    if id != ID_VALUE {
        return Err(Fault::Wrong { register: "ID", value: id, expected: "HNC1" });
    }
    let version = read(regs, Reg::VERSION);
    if version >> 16 != VERSION_MAJOR {
        return Err(Fault::Wrong { register: "VERSION", value: version, expected: "major 1" });
    }
    Ok(())
}

/// Step *reset*.
fn reset<B: DeviceBacking>(backing: &B, regs: &B::Regs, timeout: Duration) -> Result<(), Fault> {
    regs.write32(RegOffset(Reg::CTRL.0), ctrl::RESET);
    wait_for(backing, regs, RegOffset(Reg::STATUS.0), timeout, "device did not leave reset", |s| {
        s & status::RESETTING == 0 && s & status::READY != 0
    })
}

/// Step *capabilities*: what the device says it is, checked for what the driver relies on.
fn capabilities<R: Registers>(regs: &R, pool: &BufferPool, cfg: &SimnicConfig) -> Result<Caps, Fault> {
    let c = Caps::read(|r| read(regs, r));
    if usize::from(c.key_bytes) != KEY_BYTES {
        return unfit(format!("keys of {} bytes, {KEY_BYTES} known", c.key_bytes));
    }
    if c.ports == 0 || u32::from(c.ports) > MAX_PORTS {
        return unfit(format!("{} ports", c.ports));
    }
    if let Some((id, p)) = cfg.ports.iter().find(|(_, p)| *p >= c.ports) {
        return unfit(format!("port {} is to be device port {p}; it has {}", id.0, c.ports));
    }
    if cfg.queue_pairs > c.queue_pairs || u32::from(c.queue_pairs) > MAX_QUEUE_PAIRS {
        return unfit(format!("{} queue pairs wanted, {} there", cfg.queue_pairs, c.queue_pairs));
    }
    if c.exact_log2 > 24
        || c.counter_log2_max > 16
        || c.max_records == 0
        || c.max_actions == 0
        || c.packet_bits > 64
        || c.byte_bits > 64
    {
        return unfit(format!("capability registers make no sense: {c:?}"));
    }
    if !(c.ring_log2_min..=c.ring_log2_max).contains(&cfg.ring_log2) || cfg.cmd_log2 > c.cmd_log2_max {
        return unfit(format!("ring sizes 2^{} and 2^{} do not fit {c:?}", cfg.ring_log2, cfg.cmd_log2));
    }
    if frame_room(pool) < usize::from(c.max_frame_bytes) {
        return unfit(format!("frames of {} bytes, buffers of {}", c.max_frame_bytes, frame_room(pool)));
    }
    Ok(c)
}

/// Vectors that are used: commands, events, one for each receive queue.
fn vectors(caps: &Caps, cfg: &SimnicConfig) -> u16 {
    VECTOR_QUEUES + u16::from(caps.ports) * u16::from(cfg.queue_pairs)
}

fn check_config(cfg: &SimnicConfig) -> Result<(), Fault> {
    let ports = &cfg.ports;
    if !(3..=14).contains(&cfg.cmd_log2) || cfg.ring_log2 > 15 || cfg.queue_pairs == 0 {
        return unfit("cmd_log2 must be 3 to 14, ring_log2 at most 15, queue_pairs at least 1".into());
    }
    check_ports(ports).map_err(Fault::Unfit)
}

/// Each datapath port and each device port at most once.
pub(crate) fn check_ports(ports: &[(PortId, u8)]) -> Result<(), String> {
    for (i, (id, p)) in ports.iter().enumerate() {
        if u32::from(*p) >= MAX_PORTS || id.0 == u32::MAX {
            return Err(format!("port {} as device port {p} is out of range", id.0));
        }
        if ports[..i].iter().any(|(a, b)| a == id || b == p) {
            return Err(format!("port {} or device port {p} is named twice", id.0));
        }
    }
    Ok(())
}

/// Makes ports of the device datapath ports; the others are none.
pub(crate) fn set_ports(life: &Lifeline, ports: &[(PortId, u8)]) {
    life.set_ports(ports.iter().map(|(id, p)| (id.0, u16::from(*p))));
}

/// The way in.
pub struct SimnicDriver;

impl SimnicDriver {
    /// Brings the device up and hands out its flow tables and its ports. `pool` is mapped into it; packets of other pools
    /// are copied when sent. `clock` is the host's, for the time of an entry's last packet.
    ///
    /// # Errors
    /// [`BringUpError`] names the step; the device is then reset and released.
    pub fn bring_up<B: DeviceBacking>(
        mut backing: B,
        pool: BufferPool,
        config: SimnicConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<Simnic<B>, BringUpError> {
        check_config(&config).at(Step::Configuration)?;
        let regs = backing.map_bar(simnic_defs::regs::BAR_REGS).at(Step::Identify)?;
        identify(&regs).at(Step::Identify)?;
        reset(&backing, &regs, config.step_timeout).at(Step::Reset)?;
        let caps = capabilities(&regs, &pool, &config).at(Step::Capabilities)?;

        let pool_iova = backing.dma_map(pool.memory()).at(Step::Memory)?;
        let life = Arc::new(Lifeline::new(pool, pool_iova, caps.ports.into()));
        set_ports(&life, &config.ports);
        let (mem, iova) = dma_alloc(&mut backing, cmd_bytes(config.cmd_log2)).at(Step::Memory)?;
        let records = caps.max_records.into();
        let cmd = CmdRing::new(regs.clone(), life.clone(), mem, iova, config.cmd_log2, records);
        let rings = (0..caps.ports)
            .map(|p| port_rings(&mut backing, &regs, &life, &caps, &config, p))
            .collect::<Result<Vec<_>, _>>()
            .at(Step::Memory)?;

        let counters = match caps.counter_log2_max {
            0 => None,
            most => {
                let log2 = COUNTER_LOG2.clamp(caps.ring_log2_min, most.max(caps.ring_log2_min));
                let mem = dma_alloc(&mut backing, EvictRecord::BYTES << log2).at(Step::Memory)?;
                Some(CounterRing::new(regs.clone(), life.clone(), mem, log2))
            }
        };
        let mut provider = SimnicProvider::new(backing, regs, life, caps, (cmd, counters), config, clock);
        provider.restart_engines()?;
        provider.life.up();
        let ports = provider.open_ports(rings)?;
        Ok(Simnic { provider, ports })
    }
}

type Rings<R> = Vec<(RxRing<R>, TxRing<R>)>;

fn port_rings<B: DeviceBacking>(
    backing: &mut B,
    regs: &B::Regs,
    life: &Arc<Lifeline>,
    caps: &Caps,
    cfg: &SimnicConfig,
    port: u8,
) -> Result<Rings<B::Regs>, DeviceError> {
    // The other half is for packets under way.
    let rings = u32::from(caps.ports) * u32::from(cfg.queue_pairs);
    let share = life.pool().cells() / 2 / rings.max(1);
    (0..cfg.queue_pairs)
        .map(|q| {
            let vector = VECTOR_QUEUES + u16::from(port) * u16::from(cfg.queue_pairs) + u16::from(q);
            let mem = dma_alloc(backing, ring_bytes(cfg.ring_log2, RxCpl::BYTES))?;
            let at = (port, q, vector);
            let rx = RxRing::new(regs.clone(), life.clone(), at, mem, cfg.ring_log2, share);
            let mem = dma_alloc(backing, ring_bytes(cfg.ring_log2, TxCpl::BYTES))?;
            let max = caps.max_frame_bytes.into();
            let tx = TxRing::new(regs.clone(), life.clone(), (port, q), mem, cfg.ring_log2, max);
            Ok((rx, tx))
        })
        .collect()
}

impl<B: DeviceBacking> SimnicProvider<B> {
    /// Steps *interrupts* to *probe* and *ports*, on a device that has just been reset.
    pub(crate) fn restart_engines(&mut self) -> Result<(), BringUpError> {
        let vectors = vectors(&self.caps, &self.config);
        let v = self.backing.enable_interrupts(vectors).at(Step::Interrupts)?;
        self.life.set_interrupts(v);

        let timeout = self.config.step_timeout;
        self.cmd.start(VECTOR_CMD);
        let r = RegOffset(Reg::CMD_STATUS.0);
        self.ring_runs(r, "command ring was not enabled").at(Step::CommandRing)?;

        self.backing.set_bus_master(true).at(Step::Enable)?;
        self.regs.write32(RegOffset(Reg::CTRL.0), ctrl::ENABLE);
        let r = RegOffset(Reg::STATUS.0);
        wait_for(&self.backing, &self.regs, r, timeout, "device was not enabled", |s| {
            s & status::ENABLED != 0
        })
        .at(Step::Enable)?;

        if let Some(c) = &mut self.counters {
            c.start();
            let r = RegOffset(Reg::CTR_STATUS.0);
            self.ring_runs(r, "counter ring was not enabled").at(Step::CommandRing)?;
        }
        self.nop().map_err(command).at(Step::Probe)?;
        for (_, port) in self.config.ports.clone() {
            self.port_set(port, true).map_err(command).at(Step::Ports)?;
        }
        Ok(())
    }

    fn ring_runs(&self, r: RegOffset, what: &'static str) -> Result<(), Fault> {
        let (timeout, done) = (self.config.step_timeout, queue_status::ENABLED | queue_status::ERROR);
        wait_for(&self.backing, &self.regs, r, timeout, what, |s| s & done != 0)?;
        let value = self.regs.read32(r);
        if value & queue_status::ERROR != 0 {
            return Err(Fault::Wrong { register: "ring status", value, expected: "enabled" });
        }
        Ok(())
    }

    /// Step *queues*: starts every ring and makes the ports.
    fn open_ports(&mut self, rings: Vec<Rings<B::Regs>>) -> Result<Vec<SimnicPort<B::Regs>>, BringUpError> {
        let epoch = self.life.epoch().unwrap_or_default();
        let mut ports = Vec::with_capacity(rings.len());
        for (p, mut queues) in rings.into_iter().enumerate() {
            for (rx, tx) in &mut queues {
                rx.start(epoch);
                tx.start(epoch);
                self.ring_runs(rx.status_reg(), "receive ring was not enabled").at(Step::Queues)?;
                self.ring_runs(tx.status_reg(), "transmit ring was not enabled").at(Step::Queues)?;
            }
            let max = self.caps.max_frame_bytes.into();
            ports.push(SimnicPort::new(self.regs.clone(), self.life.clone(), p as u8, max, queues));
        }
        Ok(ports)
    }

    /// Resets the device and does the steps after it. Tables are empty afterwards.
    pub(crate) fn reset_and_restart(&mut self) -> Result<(), BringUpError> {
        // No DMA from here on, whatever the device thinks; failing is no reason not to try the reset.
        let _ = self.backing.set_bus_master(false);
        self.backing.reset().at(Step::Reset)?;
        identify(&self.regs).at(Step::Identify)?;
        reset(&self.backing, &self.regs, self.config.step_timeout).at(Step::Reset)?;
        // The device has stopped: nothing writes the cells of queues that are gone.
        self.life.reclaim_parked();
        let caps = capabilities(&self.regs, self.life.pool(), &self.config).at(Step::Capabilities)?;
        if caps != self.caps {
            return unfit("device came back as another".into()).at(Step::Capabilities);
        }
        let void: Vec<Job> = self.cmd.abandon();
        drop(void);
        self.restart_engines()
    }
}
