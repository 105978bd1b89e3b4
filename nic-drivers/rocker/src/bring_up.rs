//! Bring-up, step by step, and the same again after a failure.
//!
//! ```text
//!   identify ─ reset ─ memory ─ interrupts ─ DMA test ─ command ring ─ port settings ─ tables ─ ports
//!                      once
//! ```

use std::sync::Arc;
use std::time::Duration;

use clock::Deadline;
use device::driver::{AtStep, Fault, Lifeline, dma_alloc};
use device::{BufferPool, DeviceBacking, DeviceError, DmaMemory, Iova, RegOffset, Registers};
use flow::PortId;
use rocker_defs::Tlvs;
use rocker_defs::cmd::{command, group, of_dpa as t, port, table, top};
use rocker_defs::regs::{self, ALL_ONES, RingReg, ring_reg};
use rocker_defs::tlv::{find, number, read_tlvs, value};

use crate::cmd_ring::{CmdRing, cmd_bytes};
use crate::config::RockerConfig;
use crate::events::{EventRing, event_bytes};
use crate::life::{Inserted, set_ports};
use crate::lower::{INTERNAL_VLAN, KEEP_VLAN};
use crate::port::{PortSettings, RockerPort};
use crate::provider::{Rocker, RockerProvider};
use crate::ring::ring_bytes;
use crate::rx_ring::{self, RxRing};
use crate::shared;
use crate::tx_ring::{self, TxRing};

/// A step of bring-up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Step {
    Configuration,
    Identify,
    Reset,
    Memory,
    Interrupts,
    DmaTest,
    CommandRing,
    PortSettings,
    Tables,
    Ports,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Configuration => "configuration",
            Step::Identify => "identify",
            Step::Reset => "reset",
            Step::Memory => "memory",
            Step::Interrupts => "interrupts",
            Step::DmaTest => "DMA test",
            Step::CommandRing => "command ring",
            Step::PortSettings => "port settings",
            Step::Tables => "tables",
            Step::Ports => "ports",
        })
    }
}

/// Bring-up failed; the device is reset and released.
pub type BringUpError = device::driver::BringUpError<Step>;

/// Reads a register.
pub(crate) fn read<R: Registers>(regs: &R, r: u32) -> u32 {
    regs.read32(RegOffset(r))
}

/// Each datapath port and each port of the device at most once, and the device has it.
pub(crate) fn check_ports(ports: &[(PortId, u16)], n: u16) -> Result<(), String> {
    for (i, (id, p)) in ports.iter().enumerate() {
        if *p >= n || id.0 == u32::MAX {
            return Err(format!(
                "port {p} as port {}: the device has ports 0 to {}",
                id.0,
                n.saturating_sub(1)
            ));
        }
        if ports[..i].iter().any(|(a, b)| a == id || b == p) {
            return Err(format!("port {} or port {p} of the device is named twice", id.0));
        }
    }
    Ok(())
}

/// Step *identify*: the number of ports.
fn identify<R: Registers>(r: &R) -> Result<u16, Fault> {
    let wrong = |register, value, expected| Fault::Wrong { register, value, expected };
    match read(r, regs::BOGUS_REG0) {
        ALL_ONES => return Err(Fault::Gone),
        regs::BOGUS_VALUE => {}
        v => return Err(wrong("BOGUS_REG0", v, "0xdeadbabe")),
    }
    r.write32(RegOffset(regs::TEST_REG), 0x0102_0304);
    let v = read(r, regs::TEST_REG);
    if v != 0x0204_0608 {
        return Err(wrong("TEST_REG", v, "twice what was written"));
    }
    let n = read(r, regs::PORT_PHYS_COUNT);
    if !(1..=regs::MAX_PORTS).contains(&n) {
        return Err(wrong("PORT_PHYS_COUNT", n, "1 to 62"));
    }
    Ok(n as u16)
}

/// Step *reset*: tables, rings and ports are as at power on.
fn reset<B: DeviceBacking>(backing: &B, r: &B::Regs, timeout: Duration) -> Result<(), Fault> {
    r.write32(RegOffset(regs::CONTROL), regs::CONTROL_RESET);
    let head = ring_reg(regs::RING_CMD, RingReg::Head);
    let tail = ring_reg(regs::RING_CMD, RingReg::Tail);
    let mut gone = false;
    let waited = backing.wait_until(
        &mut || {
            let v = (read(r, head), read(r, tail));
            gone = v.0 == ALL_ONES;
            gone || v == (0, 0)
        },
        Deadline::after(backing.now(), timeout),
    );
    match waited {
        _ if gone => Err(Fault::Gone),
        Ok(()) => Ok(()),
        Err(_) => Err(Fault::TimedOut { what: "device was not reset", timeout }),
    }
}

/// Step *DMA test*: the device fills memory of ours, through whatever translates addresses.
fn dma_test<B: DeviceBacking>(
    backing: &B,
    r: &B::Regs,
    (mem, iova): &(DmaMemory, Iova),
    timeout: Duration,
) -> Result<(), Fault> {
    const BYTES: usize = 64;
    mem.fill(0, BYTES, 0);
    r.write64(RegOffset(regs::TEST_DMA_ADDR), iova.0);
    r.write32(RegOffset(regs::TEST_DMA_SIZE), BYTES as u32);
    r.write32(RegOffset(regs::TEST_DMA_CTRL), regs::TEST_DMA_FILL);
    let want = u64::from_ne_bytes([regs::TEST_FILL_BYTE; 8]);
    let waited = backing.wait_until(
        &mut || mem.load64(0) == want && mem.load64(BYTES - 8) == want,
        Deadline::after(backing.now(), timeout),
    );
    waited.map_err(|_| Fault::TimedOut { what: "device did not write to memory", timeout })
}

/// The way in.
pub struct RockerDriver;

impl RockerDriver {
    /// Brings the device up and hands out its tables and its ports. `pool` is mapped into it; packets of other pools are copied
    /// when sent.
    ///
    /// # Errors
    /// [`BringUpError`] names the step; the device is then reset and released.
    pub fn bring_up<B: DeviceBacking>(
        mut backing: B,
        pool: BufferPool,
        config: RockerConfig,
    ) -> Result<Rocker<B>, BringUpError> {
        if !(1..=15).contains(&config.ring_log2) || config.max_flows == 0 {
            let what = "ring_log2 must be 1 to 15, max_flows at least 1".to_owned();
            return Err(Fault::Unfit(what)).at(Step::Configuration);
        }
        let r = backing.map_bar(regs::BAR_REGS).at(Step::Identify)?;
        let n = identify(&r).at(Step::Identify)?;
        check_ports(&config.ports, n).map_err(Fault::Unfit).at(Step::Configuration)?;
        reset(&backing, &r, config.step_timeout).at(Step::Reset)?;

        let pool_iova = backing.dma_map(pool.memory()).at(Step::Memory)?;
        let life = Arc::new(Lifeline::new(pool, pool_iova, n.into()));
        set_ports(&life, &config.ports);
        let inserted = Arc::new(Inserted::new(n));
        let cmd = dma_alloc(&mut backing, cmd_bytes()).at(Step::Memory)?;
        let events = dma_alloc(&mut backing, event_bytes()).at(Step::Memory)?;
        let log2 = config.ring_log2;
        let mut queues = Vec::new();
        for p in 0..n {
            let mem = dma_alloc(&mut backing, ring_bytes(log2, rx_ring::PAYLOAD_BYTES)).at(Step::Memory)?;
            let rx = RxRing::new(r.clone(), life.clone(), inserted.clone(), p, mem, log2);
            let mem = dma_alloc(&mut backing, ring_bytes(log2, tx_ring::PAYLOAD_BYTES)).at(Step::Memory)?;
            queues.push((rx, TxRing::new(r.clone(), life.clone(), p, mem, log2)));
        }
        let rings = (CmdRing::new(r.clone(), cmd), EventRing::new(r.clone(), events));
        let mut provider =
            RockerProvider::new(backing, r.clone(), (life.clone(), inserted), n, rings, config);
        let settings = provider.restart()?;
        life.up();
        let ports = queues.into_iter().zip(settings).enumerate();
        let ports =
            ports.map(|(p, (q, s))| RockerPort::new(r.clone(), life.clone(), p as u16, s, q)).collect();
        Ok(Rocker { provider, ports })
    }
}

impl<B: DeviceBacking> RockerProvider<B> {
    /// The steps from *interrupts* on, on a device that has just been reset; the ports' settings.
    fn restart(&mut self) -> Result<Vec<PortSettings>, BringUpError> {
        let v = self.backing.enable_interrupts(regs::vectors(self.n_ports)).at(Step::Interrupts)?;
        self.life.set_interrupts(v);
        self.backing.set_bus_master(true).at(Step::DmaTest)?;
        let scratch = self.scratch().at(Step::DmaTest)?;
        dma_test(&self.backing, &self.regs, &scratch, self.config.step_timeout).at(Step::DmaTest)?;
        self.backing.dma_unmap(scratch.1).at(Step::DmaTest)?;
        self.cmd.start();
        self.events.start();
        let mut settings = Vec::new();
        for p in 1..=self.n_ports {
            settings.push(self.port_settings(p).at(Step::PortSettings)?);
        }
        self.base_tables().at(Step::Tables)?;
        self.enable_ports();
        Ok(settings)
    }

    fn scratch(&mut self) -> Result<(DmaMemory, Iova), DeviceError> {
        dma_alloc(&mut self.backing, 4096)
    }

    /// Resets the device and brings it up again. Tables are empty afterwards.
    pub(crate) fn reset_and_restart(&mut self) -> Result<(), BringUpError> {
        // A device without a reset of its own says so; its register does it then.
        match self.backing.reset() {
            Err(e @ DeviceError::Gone { .. }) => return Err(Fault::from(e)).at(Step::Reset),
            other => drop(other),
        }
        let n = identify(&self.regs).at(Step::Identify)?;
        if n != self.n_ports {
            let what = format!("{n} ports, {} before", self.n_ports);
            return Err(Fault::Unfit(what)).at(Step::Identify);
        }
        reset(&self.backing, &self.regs, self.config.step_timeout).at(Step::Reset)?;
        self.life.reclaim_parked();
        self.restart().map(|_| ())
    }

    fn must(&mut self, what: &'static str, command: u16, info: &Tlvs) -> Result<Vec<u8>, Fault> {
        match self.call(command, info).map_err(|e| Fault::Command(e.into()))? {
            (0, answer) => Ok(answer),
            (errno, _) => Err(Fault::Refused { what, errno }),
        }
    }

    /// Step *port settings* for front-panel port `p` (from 1).
    fn port_settings(&mut self, p: u16) -> Result<PortSettings, Fault> {
        let ask = Tlvs::new().u32(port::PPORT, p.into());
        let answer = self.must("get port settings", command::GET_PORT_SETTINGS, &ask)?;
        let unfit = || Fault::Unfit(format!("the settings of port {p} make no sense"));
        let info = find(&answer, top::INFO).and_then(|i| read_tlvs(i).ok()).ok_or_else(unfit)?;
        if number::<4>(&info, port::PPORT) != Some(p.into()) {
            return Err(unfit());
        }
        let mac = value(&info, port::MACADDR).and_then(|m| m.try_into().ok()).ok_or_else(unfit)?;
        let speed_mbps = number::<4>(&info, port::SPEED).map_or(0, |s| s as u32);
        let name = value(&info, port::PHYS_NAME).unwrap_or_default();
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        let set = ask.u8(port::MODE, port::MODE_OF_DPA).u8(port::LEARNING, self.config.learning.into());
        self.must("set port settings", command::SET_PORT_SETTINGS, &set)?;
        Ok(PortSettings { mac, speed_mbps, name })
    }

    /// Step *tables*: what every frame goes through, and what is done with those that no record matches.
    fn base_tables(&mut self) -> Result<(), Fault> {
        let mut cookie = 0;
        let mut flow = |table: u16, priority: u32| {
            cookie += 1;
            shared::flow(table, priority, cookie)
        };
        let mut flows = Vec::new();
        let to_termination = |f: Tlvs| f.u16(t::GOTO_TABLE_ID, table::TERMINATION_MAC);
        for p in 1..=u32::from(self.n_ports) {
            let vlan =
                |f: Tlvs, id, mask| f.u32(t::IN_PPORT, p).be16(t::VLAN_ID, id).be16(t::VLAN_ID_MASK, mask);
            // Tagged frames as they are; those without a tag get the internal one; a frame that has it already is dropped.
            flows.push(to_termination(vlan(flow(table::VLAN, 1), 1, 0)));
            flows.push(shared::untagged(p, INTERNAL_VLAN));
            flows.push(vlan(flow(table::VLAN, 3), INTERNAL_VLAN, 0x0fff));
        }
        for (priority, vlan, mask, keep) in
            [(1, 1, 0, KEEP_VLAN), (2, INTERNAL_VLAN, u16::MAX, INTERNAL_VLAN)]
        {
            let id = group::l2_interface(keep, 0);
            let pop = keep == INTERNAL_VLAN;
            let g = Tlvs::new().u32(t::GROUP_ID, id).u32(t::OUT_PPORT, 0).u8(t::POP_VLAN, pop.into());
            self.must("group to the CPU", command::GROUP_ADD, &g)?;
            let acl = flow(table::ACL_POLICY, priority)
                .u32(t::IN_PPORT, 0)
                .u32(t::IN_PPORT_MASK, 0)
                .be16(t::ETHERTYPE, 0)
                .be16(t::VLAN_ID, vlan)
                .be16(t::VLAN_ID_MASK, mask);
            flows.push(acl.u32(t::GROUP_ID, id));
        }
        for f in flows {
            self.must("flow of the pipeline", command::FLOW_ADD, &f)?;
        }
        Ok(())
    }
}
