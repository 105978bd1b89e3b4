//! How fast the simulator is: device cycles and frames per second of host time.
//!
//! The figures are of the host's time, as far as the thread had a processor, so that a busy machine does not make the simulator slow;
//! the device's own speed is in [`Forwarding::simulated_pps`].
//!
//! Not part of the device: neither cycle-level nor behavioural.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use simnic_defs::entry::key;
use simnic_defs::{FlowEntry, HwAction, KEY_BYTES};

use crate::config::{Config, ConfigError};
use crate::frames;
use crate::handle::{Core, SimNic};
use crate::raw_host::{RawError, RawHost, key_of};

/// What a run of [`forwarding`] gave.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Forwarding {
    /// Frames forwarded, of 60 bytes.
    pub frames: u64,
    /// Flows they belonged to, each with an entry in the exact table.
    pub flows: u32,
    /// Device cycles that took.
    pub cycles: u64,
    /// Of these evaluated, not jumped over.
    pub evaluated_cycles: u64,
    /// Seconds that the thread had a processor of the host.
    pub host_seconds: f64,
    /// Frames per second of host time.
    pub host_pps: f64,
    /// Device cycles per second of host time.
    pub host_cycles_per_second: f64,
    /// Frames per second of simulated time.
    pub simulated_pps: f64,
}

/// What a run of [`insertion`] gave.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Insertion {
    /// Rules installed through the command ring.
    pub rules: u64,
    /// Seconds that the thread had a processor of the host.
    pub host_seconds: f64,
    /// Rules per second of host time.
    pub host_rules_per_second: f64,
    /// Rules per second of simulated time.
    pub simulated_rules_per_second: f64,
}

/// Why a bench could not run.
#[derive(thiserror::Error, Debug)]
pub enum BenchError {
    /// The device could not be made.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device did not do what it should.
    #[error("{0}")]
    Device(String),
}

impl From<RawError> for BenchError {
    fn from(e: RawError) -> Self {
        BenchError::Device(e.to_string())
    }
}

fn frame(flow: u32) -> Vec<u8> {
    let [_, a, b, c] = flow.to_be_bytes();
    frames::udp4([10, a, b, c], [10, 200, 0, 1], 1000, 2000)
}

fn entry(flow: u32) -> FlowEntry {
    let [_, a, b, c] = flow.to_be_bytes();
    let (k, _) = key_of(&[(key::ETH_TYPE, &[8, 0]), (key::IP4_SRC, &[10, a, b, c])]);
    let port = ((flow + 1) % 4) as u8;
    // No more actions than slots.
    FlowEntry::new(k, [0; KEY_BYTES], flow.into(), &[HwAction::DecTtl, HwAction::Output { port }])
        .unwrap_or_else(|| unreachable!("two actions fit"))
}

fn host(config: Config) -> Result<(crate::SimHandle, RawHost), BenchError> {
    let sim = SimNic::new(config, 1)?;
    let mut h = RawHost::bring_up(sim.backing())?;
    for p in 0..4 {
        h.port_set(p, true)?;
    }
    let (_, mask) = key_of(&[(key::ETH_TYPE, &[0; 2]), (key::IP4_SRC, &[0; 4])]);
    h.profile(0, &mask)?;
    Ok((sim, h))
}

/// Forwards `frames` frames of 60 bytes of `flows` flows, spread over four ports at line rate, through the default
/// device, TTL decremented. `flows` is rounded up to a multiple of four, so that no port is sent more than it can carry;
/// bucket overflow is avoided by a generous table.
///
/// # Errors
/// When the device does not do what it should.
pub fn forwarding(frames: u64, flows: u32) -> Result<Forwarding, BenchError> {
    let flows = flows.max(1).next_multiple_of(4);
    let mut config = Config::default();
    config.exact.log2_entries = 18;
    config.exact.ways = 16;
    let (sim, mut h) = host(config)?;
    for flow in 0..flows {
        let c = h.install_exact(0, &entry(flow))?;
        if c.status != 0 {
            return Err(BenchError::Device(format!("rule {flow}: status {}", c.status)));
        }
    }
    let frames_of: Vec<Vec<u8>> = (0..flows).map(frame).collect();
    let (cycle, evaluated) = (sim.cycle().0, sim.evaluated_cycles());
    let (mut sent, mut out) = (0u64, 0u64);
    let start = processor_seconds()?;
    let mut core = sim.0.core.lock();
    while out < frames {
        for _ in 0..128 {
            if sent < frames {
                let f = &frames_of[(sent % u64::from(flows)) as usize];
                sent += u64::from(core.inject((sent % 4) as u8, f));
            }
        }
        core.run(256);
        let got = collect(&mut core);
        if got == 0 && core.chip.is_idle(core.drive.now()) {
            break;
        }
        out += got;
    }
    let host_seconds = (processor_seconds()? - start).max(f64::MIN_POSITIVE);
    drop(core);
    if out != frames {
        return Err(BenchError::Device(format!(
            "{out} of {frames} frames came out; drops: {:?}",
            sim.drops()
        )));
    }
    let cycles = sim.cycle().0 - cycle;
    let simulated = sim.duration(kernel::Cycles(cycles));
    Ok(Forwarding {
        frames,
        flows,
        cycles,
        evaluated_cycles: sim.evaluated_cycles() - evaluated,
        host_seconds,
        host_pps: frames as f64 / host_seconds,
        host_cycles_per_second: cycles as f64 / host_seconds,
        simulated_pps: frames as f64 / seconds(simulated),
    })
}

fn collect(core: &mut Core) -> u64 {
    let mut n = 0;
    for p in &mut core.chip.ports {
        while let Some(f) = p.wire_out.pop_front() {
            core.chip.account.collected += 1;
            core.chip.pool.put(f);
            n += 1;
        }
    }
    n
}

/// Installs `rules` rules through the command ring, one at a time.
///
/// # Errors
/// When the device does not do what it should.
pub fn insertion(rules: u32) -> Result<Insertion, BenchError> {
    let mut config = Config::default();
    config.exact.log2_entries = 19;
    config.exact.ways = 16;
    let (sim, mut h) = host(config)?;
    let (start, cycle) = (processor_seconds()?, sim.cycle().0);
    for flow in 0..rules {
        let c = h.install_exact(0, &entry(flow))?;
        if c.status != 0 {
            return Err(BenchError::Device(format!("rule {flow}: status {}", c.status)));
        }
    }
    let host_seconds = (processor_seconds()? - start).max(f64::MIN_POSITIVE);
    let simulated = seconds(sim.duration(kernel::Cycles(sim.cycle().0 - cycle)));
    Ok(Insertion {
        rules: rules.into(),
        host_seconds,
        host_rules_per_second: f64::from(rules) / host_seconds,
        simulated_rules_per_second: f64::from(rules) / simulated,
    })
}

/// Seconds that this thread has had a processor.
///
/// # Errors
/// Where the system has no such clock.
fn processor_seconds() -> Result<f64, BenchError> {
    let t = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    let t = t.map_err(|e| BenchError::Device(format!("the thread's processor time: {e}")))?;
    Ok(Duration::from(t).as_secs_f64())
}

fn seconds(d: Duration) -> f64 {
    d.as_secs_f64().max(f64::MIN_POSITIVE)
}
