//! The tester: a device on its test bed, lanes over it, and runs of traffic on them.

use std::collections::{BTreeMap, HashSet};

use kernel::Cycles;
use nic::bench::BenchError;
use nic::{Bed, Config, ConfigError, Match, SimHandle};

use crate::check::{Checker, Outcome};
use crate::frame::{destination, signature, source};
use crate::load::Load;

/// Cycles within which a device has to come to rest after the last frame.
pub(crate) const REST_CYCLES: u64 = 20_000_000;
/// Frames put on a wire ahead of time.
pub(crate) const AHEAD: u64 = 256;

/// Why a test could not be run.
#[derive(thiserror::Error, Debug)]
pub enum TestError {
    /// The device did not do as it was told.
    #[error(transparent)]
    Device(#[from] BenchError),
    /// There is no such profile.
    #[error(transparent)]
    Profile(#[from] nic::ProfileError),
    /// The configuration is nonsensical.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It does not come to rest after the last frame.
    #[error("the device does not come to rest")]
    Restless,
    /// A file that is no checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] nic::CheckpointError),
    /// It makes no sense.
    #[error("{0}")]
    Nonsense(String),
}

impl From<kernel::Damage> for TestError {
    fn from(d: kernel::Damage) -> Self {
        TestError::Checkpoint(d.into())
    }
}

/// A way through the device: what comes in by one port leaves by another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lane {
    /// Where it goes in.
    pub from: u8,
    /// Where it comes out.
    pub to: u8,
}

/// Every port to the next, around; each port sends and receives one lane.
pub fn ring_of_ports(ports: u8) -> Vec<Lane> {
    (0..ports).map(|p| Lane { from: p, to: (p + 1) % ports }).collect()
}

/// Every port to every other.
pub fn full_mesh(ports: u8) -> Vec<Lane> {
    (0..ports).flat_map(|from| (1..ports).map(move |d| Lane { from, to: (from + d) % ports })).collect()
}

/// Where the rules are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rules {
    /// An entry of the exact table for every flow.
    Exact,
    /// An entry of the ternary table for every lane.
    Ternary,
}

/// A device and lanes over it.
pub struct Tester {
    pub(crate) bed: Bed,
    pub(crate) config: Config,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) flows: u32,
}

/// A frame that did not come back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lost {
    /// Its flow.
    pub flow: u32,
    /// Cycle in which its first bit reached the device.
    pub departed: u64,
}

impl Tester {
    /// A device of this configuration, `flows` flows on each lane, TTL decremented.
    ///
    /// # Errors
    /// When the device does not take the rules, or a lane's port does not exist.
    pub fn new(
        config: Config,
        seed: u64,
        lanes: &[Lane],
        flows: u32,
        rules: Rules,
    ) -> Result<Self, TestError> {
        let ports = config.device.ports;
        if lanes.is_empty() || flows == 0 || lanes.len() > 256 {
            return Err(TestError::Nonsense("no lanes or flows, or more than 256 lanes".into()));
        }
        if let Some(l) = lanes.iter().find(|l| l.from >= ports || l.to >= ports) {
            return Err(TestError::Nonsense(format!("{l:?} is not on a device of {ports} ports")));
        }
        let mut bed = Bed::new(config.clone(), seed)?;
        for (i, l) in lanes.iter().enumerate() {
            let dst = destination(i as u8);
            let matches: Vec<Match> = match rules {
                Rules::Exact => {
                    let of = |f| Match::Flow { src: source(i as u32 * flows + f), dst };
                    (0..flows).map(of).collect()
                }
                Rules::Ternary => vec![Match::Prefix { dst, bits: 32, priority: 1 }],
            };
            for m in matches {
                if let Err(status) = bed.install(m, &[l.to], true)? {
                    let why = format!("the device does not take rule {m:?}: {status:?}; ask for fewer flows");
                    return Err(TestError::Nonsense(why));
                }
            }
        }
        Ok(Tester { bed, config, lanes: lanes.to_vec(), flows })
    }

    /// The device.
    pub fn sim(&self) -> &SimHandle {
        self.bed.sim()
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Most frames per second of `len` bytes without FCS that a port can carry.
    pub fn line_rate(&self, len: usize) -> f64 {
        f64::from(self.config.port.speed_mbps) * 1e6 / ((len as f64 + 24.0) * 8.0)
    }

    /// Nanoseconds of a number of cycles.
    pub fn ns(&self, cycles: f64) -> f64 {
        cycles * 1e9 / self.config.device.clock_hz as f64
    }

    /// Sends `frames` frames of `len` bytes without FCS from each port that lanes begin at, spread over them in turn, and
    /// waits until the device is at rest.
    ///
    /// # Errors
    /// When the device does not come to rest.
    pub fn run(&mut self, load: &Load, frames: u64, len: usize) -> Result<Outcome, TestError> {
        Ok(self.run_all(&[(load.clone(), frames)], len)?.0)
    }

    /// One load after the other without a pause, and which frames were lost.
    ///
    /// # Errors
    /// When the device does not come to rest.
    pub fn run_all(&mut self, loads: &[(Load, u64)], len: usize) -> Result<(Outcome, Vec<Lost>), TestError> {
        let mut run = self.begin(loads, len);
        while !self.advance(&mut run, u64::MAX)? {}
        Ok(self.finish(run))
    }

    /// Plays frames of a capture into `port` at the times it has, each as it is; says how many came out of each port.
    ///
    /// # Errors
    /// When the device does not come to rest.
    pub fn replay(&mut self, port: u8, frames: &[(u64, Vec<u8>)]) -> Result<BTreeMap<u8, u64>, TestError> {
        let start = self.sim().cycle().0 + 1;
        let mut out = BTreeMap::new();
        for (at, f) in frames {
            let due = start + at;
            let ahead = due.saturating_sub(self.sim().cycle().0);
            self.sim().step(ahead.saturating_sub(1));
            while !self.bed.send(port, due, f) {
                self.sim().step(64);
            }
            self.count(&mut out);
        }
        self.rest()?;
        self.count(&mut out);
        Ok(out)
    }

    fn count(&self, out: &mut BTreeMap<u8, u64>) {
        for p in 0..self.config.device.ports {
            self.bed.receive(p, |_, _| *out.entry(p).or_insert(0) += 1);
        }
    }

    fn rest(&self) -> Result<(), TestError> {
        if self.sim().run_until_idle(REST_CYCLES) { Ok(()) } else { Err(TestError::Restless) }
    }

    pub(crate) fn collect(&self, checker: &mut Checker, received: &mut HashSet<(u32, u32)>, wire: u64) {
        for p in 0..self.config.device.ports {
            self.bed.receive(p, |cycle, f| {
                if let Some(s) = signature(f) {
                    received.insert((s.flow, s.serial));
                }
                checker.see(p, cycle, f, |s| {
                    let lane = self.lanes.get((s.flow / self.flows) as usize);
                    (lane.is_some_and(|l| l.to == p), 2 * wire)
                });
            });
        }
    }

    /// Current cycle of the device.
    pub fn cycle(&self) -> Cycles {
        self.sim().cycle()
    }
}
