//! A device on a test bed: brought up by the least of a host, with rules, its wires in the hands of a tester.
//!
//! For traffic generators, benches and model checks. Wires have times: a frame is given to the device in a cycle to come,
//! and a frame taken from it says in which cycle it left.
//!
//! Not part of the device: neither cycle-level nor behavioural.

use kernel::{Reader, State, Writer};
use simnic_defs::cmd::TABLE_TERNARY;
use simnic_defs::entry::key;
use simnic_defs::{CmdCpl, CmdDesc, CmdStatus, FlowEntry, HwAction, KEY_BYTES, KeyBytes, Opcode};
use zerocopy::IntoBytes;

use crate::bench::BenchError;
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::handle::{SimHandle, SimNic};
use crate::raw_host::{ENTRIES, LOG2, RawError, RawHost, key_of};

/// A device that is up, and its rules.
pub struct Bed {
    sim: SimHandle,
    host: RawHost,
    programmed: [bool; 8],
}

/// How a rule of a test bed matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// One flow: IPv4 source and destination, in the exact table.
    Flow {
        /// IPv4 source.
        src: [u8; 4],
        /// IPv4 destination.
        dst: [u8; 4],
    },
    /// An IPv4 destination under a mask, in the ternary table.
    Prefix {
        /// IPv4 destination.
        dst: [u8; 4],
        /// Bits of it that matter, from the first.
        bits: u8,
        /// Priority.
        priority: u32,
    },
}

impl Bed {
    /// A device of this configuration with all ports up.
    ///
    /// # Errors
    /// When the configuration is wrong or the device does not come up.
    pub fn new(config: Config, seed: u64) -> Result<Bed, BenchError> {
        let ports = config.device.ports;
        let rings = config.host.ring_log2_min..=config.host.command_log2_max;
        if !rings.contains(&LOG2) {
            let why = format!(
                "the bed's command ring has {ENTRIES} entries, and host.ring_log2_min and command_log2_max allow none such"
            );
            return Err(BenchError::Device(why));
        }
        let sim = SimNic::new(config, seed)?;
        let mut host = RawHost::bring_up(sim.backing())?;
        for p in 0..ports {
            good(host.port_set(p, true)?, "bringing up a port")?;
        }
        Ok(Bed { sim, host, programmed: [false; 8] })
    }

    /// Appends what the bed has in mind beside the device, for a checkpoint's file.
    pub fn save(&self, w: &mut Writer) {
        self.host.save(w);
        self.programmed.save(w);
    }

    /// A bed that goes on from a checkpoint and what [`Bed::save`] wrote.
    ///
    /// # Errors
    /// When they do not belong together, or the host is out of memory.
    pub fn resume(c: &Checkpoint, r: &mut Reader<'_>) -> Result<Bed, BenchError> {
        let sim = SimNic::resume("sim:0", c).map_err(|e| BenchError::Device(e.to_string()))?;
        let host = RawHost::resume(&sim, r)?;
        let programmed = State::load(r).map_err(RawError::from)?;
        Ok(Bed { sim, host, programmed })
    }

    /// The device.
    pub fn sim(&self) -> &SimHandle {
        &self.sim
    }

    /// Installs a rule that sends frames to `ports`, with the TTL decremented when `route`. Returns the entry's name, or the
    /// status with which the device refused it: BUCKET_FULL and TABLE_FULL are findings, not failures.
    ///
    /// # Errors
    /// When the device does not answer.
    pub fn install(
        &mut self,
        m: Match,
        ports: &[u8],
        route: bool,
    ) -> Result<Result<u32, CmdStatus>, BenchError> {
        let mut actions = Vec::new();
        if route {
            actions.push(HwAction::DecTtl);
        }
        actions.extend(ports.iter().map(|p| HwAction::Output { port: *p }));
        let c = match m {
            Match::Flow { src, dst } => {
                self.program(
                    0,
                    &[(key::ETH_TYPE, &[0; 2]), (key::IP4_SRC, &[0; 4]), (key::IP4_DST, &[0; 4])],
                )?;
                let (k, _) = key_of(&[(key::ETH_TYPE, &[8, 0]), (key::IP4_SRC, &src), (key::IP4_DST, &dst)]);
                self.host.install_exact(0, &entry(k, [0; KEY_BYTES], &actions)?)?
            }
            Match::Prefix { dst, bits, priority } => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0).to_be_bytes();
                let (mut k, mut m) = key_of(&[(key::ETH_TYPE, &[8, 0])]);
                for (i, at) in key::IP4_DST.enumerate() {
                    (k[at], m[at]) = (dst[i] & mask[i], mask[i]);
                }
                let mut d = CmdDesc::new(Opcode::Install, 0);
                (d.table, d.priority) = (TABLE_TERNARY, priority.into());
                self.host.command_with(d, entry(k, m, &actions)?.as_bytes())?
            }
        };
        match CmdStatus::try_from(c.status) {
            Ok(CmdStatus::Ok) => Ok(Ok(c.entry.get())),
            Ok(s) => Ok(Err(s)),
            Err(_) => Err(BenchError::Device(format!("status {} is not in the datasheet", c.status))),
        }
    }

    /// Removes an entry; returns the packets it had counted.
    ///
    /// # Errors
    /// When the device does not do it.
    pub fn remove(&mut self, exact: bool, name: u32) -> Result<u64, BenchError> {
        let mut d = CmdDesc::new(Opcode::Remove, 0);
        (d.table, d.entry) = (if exact { 0 } else { TABLE_TERNARY }, name.into());
        let c = self.host.command(d)?;
        good(c, "removing an entry")?;
        Ok(c.packets.get())
    }

    fn program(&mut self, profile: u8, fields: &[(std::ops::Range<usize>, &[u8])]) -> Result<(), BenchError> {
        let Some(done) = self.programmed.get_mut(usize::from(profile)).filter(|d| !**d) else {
            return Ok(());
        };
        let (_, mask) = key_of(fields);
        good(self.host.profile(profile, &mask)?, "programming a key profile")?;
        *done = true;
        Ok(())
    }

    /// Puts a frame on the wire towards `port`, to arrive in `cycle`, not before those put there earlier. False when the wire
    /// is full or there is no such port.
    pub fn send(&self, port: u8, cycle: u64, frame: &[u8]) -> bool {
        self.sim.0.core.lock().inject_at(port, cycle, frame)
    }

    /// Takes the frames that have left by `port`, each with the cycle in which it did.
    pub fn receive(&self, port: u8, mut each: impl FnMut(u64, &[u8])) {
        let mut core = self.sim.0.core.lock();
        let chip = &mut core.chip;
        let Some(p) = chip.ports.get_mut(usize::from(port)) else { return };
        while let Some(f) = p.wire_out.pop_front() {
            chip.account.collected += 1;
            each(f.at, f.bytes());
            chip.pool.put(f);
        }
    }
}

fn entry(k: KeyBytes, m: KeyBytes, actions: &[HwAction]) -> Result<FlowEntry, BenchError> {
    FlowEntry::new(k, m, 0, actions)
        .ok_or_else(|| BenchError::Device("more actions than an entry has".into()))
}

fn good(c: CmdCpl, what: &str) -> Result<(), BenchError> {
    if c.status == 0 { Ok(()) } else { Err(BenchError::Device(format!("{what}: status {}", c.status))) }
}
