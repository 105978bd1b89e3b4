//! The least of a host that can use the device: a command ring, packet rings, one step at a time. For tests and benches;
//! a real driver is elsewhere, and this one shares nothing with it, so that each checks the other's reading of the
//! datasheet.
//!
//! Not part of the device: neither cycle-level nor behavioural.

use std::time::Duration;

use clock::Deadline;
use device::{DeviceBacking, DeviceError, DmaMemory, Iova, RegOffset, Registers, TimedOut};
use kernel::{Damage, Reader, State, Writer};
use simnic_defs::regs::{Reg, ctrl, queue_ctrl, queue_status, status};
use simnic_defs::{CmdCpl, CmdDesc, FlowEntry, KEY_BYTES, KeyBytes, Opcode, gen_of, slot_of};
use zerocopy::IntoBytes;

use crate::backing::{SimBacking, SimRegs};
use crate::handle::SimHandle;

/// Size of the rings: 64 entries.
pub(crate) const LOG2: u8 = 6;
pub(crate) const ENTRIES: usize = 1 << LOG2;
/// Bytes of a packet buffer.
pub(crate) const BUFFER: usize = 2048;

/// Of the device's clock; of the host's when the device runs live, where a busy host may take its time.
const WAIT: Duration = Duration::from_millis(500);

/// Memory the device can reach.
pub(crate) struct Mapped {
    pub memory: DmaMemory,
    pub iova: Iova,
}

/// A descriptor ring with its completions and a buffer for each slot.
pub(crate) struct HostRing {
    pub desc: Mapped,
    pub cpl: Mapped,
    pub buffers: Mapped,
    desc_bytes: usize,
    cpl_bytes: usize,
    pub tail: u32,
    pub consumed: u32,
}

pub(crate) struct RawHost {
    pub backing: SimBacking,
    pub regs: SimRegs,
    pub cmd: HostRing,
    next_tag: u32,
}

#[derive(thiserror::Error, Debug)]
pub(crate) enum RawError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Dma(#[from] device::DmaError),
    #[error("the device does not answer")]
    TimedOut(#[from] TimedOut),
    #[error("checkpoint of a host: {0}")]
    Checkpoint(#[from] Damage),
}

impl Mapped {
    pub fn new(b: &mut SimBacking, len_bytes: usize) -> Result<Self, RawError> {
        let memory = DmaMemory::new(len_bytes)?;
        let iova = b.dma_map(&memory)?;
        Ok(Mapped { memory, iova })
    }
}

impl HostRing {
    /// Appends where the ring is and how far.
    pub fn save(&self, w: &mut Writer) {
        [self.desc.iova.0, self.cpl.iova.0, self.buffers.iova.0].save(w);
        [self.desc_bytes, self.cpl_bytes].save(w);
        [self.tail, self.consumed].save(w);
    }

    /// The ring in the memory of a device that goes on from a checkpoint.
    pub fn load(r: &mut Reader<'_>, mapped: &[(Iova, DmaMemory)]) -> Result<Self, Damage> {
        let at: [u64; 3] = State::load(r)?;
        let [desc_bytes, cpl_bytes]: [usize; 2] = State::load(r)?;
        let [tail, consumed] = State::load(r)?;
        let plausible = |n: usize| (4..=256).contains(&n) && n.is_multiple_of(4);
        if !plausible(desc_bytes) || !plausible(cpl_bytes) {
            return Err(r.damage("size of a descriptor"));
        }
        let find = |at: u64, entry_bytes: usize| {
            let found = mapped.iter().find(|(a, m)| a.0 == at && m.len_bytes() >= ENTRIES * entry_bytes);
            let (iova, memory) = found.ok_or(r.damage("memory of a ring"))?;
            Ok(Mapped { memory: memory.clone(), iova: *iova })
        };
        let (desc, cpl, buffers) = (find(at[0], desc_bytes)?, find(at[1], cpl_bytes)?, find(at[2], BUFFER)?);
        Ok(HostRing { desc, cpl, buffers, desc_bytes, cpl_bytes, tail, consumed })
    }

    pub fn new(b: &mut SimBacking, desc_bytes: usize, cpl_bytes: usize) -> Result<Self, RawError> {
        let desc = Mapped::new(b, ENTRIES * desc_bytes)?;
        let cpl = Mapped::new(b, ENTRIES * cpl_bytes)?;
        desc.memory.fill(0, desc.memory.len_bytes(), 0xff);
        cpl.memory.fill(0, cpl.memory.len_bytes(), 0xff);
        let buffers = Mapped::new(b, ENTRIES * BUFFER)?;
        Ok(HostRing { desc, cpl, buffers, desc_bytes, cpl_bytes, tail: 0, consumed: 0 })
    }

    /// Writes the next descriptor; its generation goes into bit 0 of its last word.
    pub fn write(&mut self, bytes: &[u8]) {
        let at = slot_of(self.tail, LOG2) as usize * self.desc_bytes;
        self.desc.memory.write(at, bytes);
        let last = at + self.desc_bytes - 4;
        let flags = self.desc.memory.load32(last) & !1 | u32::from(gen_of(self.tail, LOG2));
        self.desc.memory.store32(last, flags);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Whether the next completion is there.
    pub fn has_completion(&self) -> bool {
        let at = slot_of(self.consumed, LOG2) as usize * self.cpl_bytes + self.cpl_bytes - 4;
        (self.cpl.memory.load32(at) & 1 != 0) == gen_of(self.consumed, LOG2)
    }

    pub fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        if !self.has_completion() {
            return None;
        }
        let mut b = [0; N];
        self.cpl.memory.read(slot_of(self.consumed, LOG2) as usize * self.cpl_bytes, &mut b);
        self.consumed = self.consumed.wrapping_add(1);
        Some(b)
    }

    pub fn take_command(&mut self) -> Option<CmdCpl> {
        CmdCpl::decode(&self.take::<{ CmdCpl::BYTES }>()?).ok()
    }
}

impl RawHost {
    /// Resets the device, starts the command ring and enables the device.
    pub fn bring_up(mut backing: SimBacking) -> Result<Self, RawError> {
        let regs = backing.map_bar(0)?;
        let cmd = HostRing::new(&mut backing, CmdDesc::BYTES, CmdCpl::BYTES)?;
        let mut h = RawHost { backing, regs, cmd, next_tag: 0 };
        h.write(Reg::CTRL, ctrl::RESET);
        h.wait(|h| h.read(Reg::STATUS) & (status::RESETTING | status::READY) == status::READY)?;
        h.regs.write64(RegOffset(Reg::CMD_SQ_BASE.0), h.cmd.desc.iova.0);
        h.regs.write64(RegOffset(Reg::CMD_CQ_BASE.0), h.cmd.cpl.iova.0);
        h.write(Reg::CMD_LOG2, LOG2.into());
        h.write(Reg::CMD_CTRL, queue_ctrl::ENABLE);
        h.backing.set_bus_master(true)?;
        h.write(Reg::CTRL, ctrl::ENABLE);
        h.wait(|h| h.read(Reg::CMD_STATUS) & queue_status::ENABLED != 0)?;
        Ok(h)
    }

    /// Appends what the host has in mind.
    pub fn save(&self, w: &mut Writer) {
        self.cmd.save(w);
        self.next_tag.save(w);
    }

    /// Goes on with a device that goes on from a checkpoint.
    pub fn resume(sim: &SimHandle, r: &mut Reader<'_>) -> Result<Self, RawError> {
        let cmd = HostRing::load(r, &sim.mapped())?;
        let next_tag = State::load(r)?;
        let mut backing = sim.adopt();
        let regs = backing.map_bar(0)?;
        Ok(RawHost { backing, regs, cmd, next_tag })
    }

    pub fn read(&self, r: Reg) -> u32 {
        self.regs.read32(RegOffset(r.0))
    }

    pub fn write(&self, r: Reg, v: u32) {
        self.regs.write32(RegOffset(r.0), v);
    }

    pub fn wait(&mut self, mut done: impl FnMut(&mut Self) -> bool) -> Result<(), RawError> {
        let deadline = Deadline::after(self.backing.now(), WAIT);
        while !done(self) {
            let tail = Deadline::after(self.backing.now(), Duration::from_micros(1)).min(deadline);
            let _ = self.backing.wait_until(&mut || false, tail);
            if deadline.passed(self.backing.now()) {
                return Err(TimedOut.into());
            }
        }
        Ok(())
    }

    /// Gives a command to the device without waiting.
    pub fn submit(&mut self, mut d: CmdDesc) -> u32 {
        d.tag = self.next_tag.into();
        self.next_tag += 1;
        self.cmd.write(d.as_bytes());
        self.write(Reg::CMD_TAIL, self.cmd.tail);
        self.next_tag - 1
    }

    /// Executes a command.
    pub fn command(&mut self, d: CmdDesc) -> Result<CmdCpl, RawError> {
        self.submit(d);
        self.wait(|h| h.cmd.has_completion())?;
        self.cmd.take_command().ok_or(TimedOut.into())
    }

    /// Executes a command with a payload, which lies in the command ring's first buffer.
    pub fn command_with(&mut self, mut d: CmdDesc, payload: &[u8]) -> Result<CmdCpl, RawError> {
        self.cmd.buffers.memory.write(0, payload);
        d.addr = self.cmd.buffers.iova.0.into();
        d.len = (payload.len() as u32).into();
        self.command(d)
    }

    /// Brings a port up or down.
    pub fn port_set(&mut self, port: u8, up: bool) -> Result<CmdCpl, RawError> {
        let mut d = CmdDesc::new(Opcode::PortSet, 0);
        d.port = port;
        d.arg = u64::from(up).into();
        self.command(d)
    }

    /// Programs a key profile.
    pub fn profile(&mut self, profile: u8, mask: &KeyBytes) -> Result<CmdCpl, RawError> {
        let mut d = CmdDesc::new(Opcode::ProfileSet, 0);
        d.profile = profile;
        self.command_with(d, mask)
    }

    /// Installs an entry in the exact table.
    pub fn install_exact(&mut self, profile: u8, e: &FlowEntry) -> Result<CmdCpl, RawError> {
        let mut d = CmdDesc::new(Opcode::Install, 0);
        d.profile = profile;
        self.command_with(d, e.as_bytes())
    }
}

/// A key and a mask with these fields; the masks cover the fields whole.
pub(crate) fn key_of(fields: &[(std::ops::Range<usize>, &[u8])]) -> (KeyBytes, KeyBytes) {
    let (mut k, mut m) = ([0; KEY_BYTES], [0; KEY_BYTES]);
    for (range, value) in fields {
        k[range.clone()].copy_from_slice(value);
        m[range.clone()].fill(0xff);
    }
    (k, m)
}
