//! Rules installed through the command ring, per second of host time.
//!
//! Three ways: by the driver into memory (the driver's own time, the device's left out), by the driver into the simulated
//! device in lockstep (the simulation's time included), and one at a time by a bare command-ring writer (no driver at all).
//! The last two also tell how fast the device is in its own time.

use std::sync::Arc;
use std::time::Duration;

use clock::HostClock;
use device::BufferPool;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use nic::SimNic;
use offload::{FlowOp, FlowRule, OffloadProvider, OpId, OpResult};
use simnic::{SimnicConfig, SimnicDriver};

use crate::cycles::{Measurement, REPEATS, counter_hz, now};
use crate::drivers::{median, on_memory};
use crate::figure::{Figure, Unit};
use crate::memory_nic::MemoryNic;
use crate::part::BenchError;

/// Rules to a doorbell in the driver's own time.
const AT_A_TIME: u64 = 64;

/// How often the runs on the simulated device are repeated.
const SIM_REPEATS: usize = 3;

/// An exact rule: port, Ethernet type, source address, protocol; sets a MAC address, decrements the TTL, outputs.
fn rule(n: u64) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, 1);
    m.set(FieldId::EthType, 0x0800);
    m.set(FieldId::NwSrc, n.into());
    m.set(FieldId::NwProto, 6);
    let actions = [
        Action::SetField { field: FieldId::EthDst, value: 2, mask: FieldId::EthDst.info().max() },
        Action::DecTtl,
        Action::Output(PortId(1)),
    ];
    FlowRule { id: FlowId(n), matches: m, actions: actions.into(), provenance: Arc::from([]) }
}

fn installs(from: u64, n: u64) -> Vec<FlowOp> {
    (from..from + n).map(|i| FlowOp::Install(OpId(i), rule(i))).collect()
}

fn installed(r: &OpResult) -> Result<(), BenchError> {
    match r {
        OpResult::Installed(..) => Ok(()),
        other => Err(BenchError::Rule(format!("{other:?}"))),
    }
}

/// The driver into memory: lowering, descriptors, doorbell, completions.
pub(crate) fn driver_alone(rounds: u64) -> Result<Figure, BenchError> {
    let dev = MemoryNic::new();
    let mut nic = on_memory(&dev)?;
    let (mut medians, mut out, mut next) = (Vec::new(), Vec::new(), 0);
    for repeat in 0..=REPEATS {
        let mut cycles = Vec::new();
        for _ in 0..rounds {
            let ops = installs(next, AT_A_TIME);
            next += AT_A_TIME;
            let t0 = now();
            let accepted = nic.provider.submit(&ops);
            let t1 = now();
            dev.run_commands();
            let t2 = now();
            let done = nic.provider.poll(&mut out, ops.len());
            let t3 = now();
            if (accepted, done) != (ops.len(), ops.len()) {
                return Err(BenchError::TooSmall);
            }
            out.drain(..).try_for_each(|c| installed(&c.result))?;
            cycles.push(t1 - t0 + t3 - t2);
        }
        // The first repeat warms up.
        if repeat > 0 {
            medians.push(median(&mut cycles) / AT_A_TIME as f64);
        }
    }
    medians.sort_by(f64::total_cmp);
    let m = Measurement {
        name: format!("driver alone, into memory, {AT_A_TIME} to a doorbell"),
        iters: rounds * AT_A_TIME,
        median_cycles: medians[medians.len() / 2],
        min_cycles: medians[0],
        max_cycles: medians[medians.len() - 1],
    };
    Ok(Figure::cycles(m, Unit::CyclesPerRule).rules(next))
}

/// The driver into the simulated device: rules per second of host time, and of simulated time.
fn driver_on_simulator(rules: u64) -> Result<(f64, f64), BenchError> {
    let sim = SimNic::new(nic::Config::default(), 1)?;
    let config = SimnicConfig {
        cmd_log2: 9,
        // A wait is what lets the device's time move.
        poll_wait: Duration::from_micros(50),
        ..SimnicConfig::new(vec![(PortId(1), 0)])
    };
    let pool = BufferPool::new(4096)?;
    let mut nic = SimnicDriver::bring_up(sim.backing(), pool, config, Arc::new(HostClock::new()))?;
    let ops = installs(0, rules);
    let (mut sent, mut done) = (0, Vec::with_capacity(ops.len()));
    let (t0, cycle) = (now(), sim.cycle());
    while done.len() < ops.len() {
        let before = sent + done.len();
        sent += nic.provider.submit(&ops[sent..]);
        nic.provider.poll(&mut done, 256);
        if sent + done.len() == before {
            return Err(BenchError::Rule(format!("{} of {} are not answered", sent - done.len(), ops.len())));
        }
    }
    let host_seconds = (now() - t0) as f64 / counter_hz();
    done.iter().try_for_each(|c| installed(&c.result))?;
    let simulated = sim.duration(kernel::Cycles(sim.cycle().0 - cycle.0)).as_secs_f64();
    Ok((rules as f64 / host_seconds, rules as f64 / simulated))
}

/// Installs `rules` rules each way.
///
/// # Errors
/// When a rule is not installed.
pub fn run(rules: u32) -> Result<Vec<Figure>, BenchError> {
    let mut out = vec![driver_alone(u64::from(rules / 64).clamp(1, 100))?];
    let (mut driver, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..SIM_REPEATS {
        driver.push(driver_on_simulator(rules.into())?);
        let i = nic::bench::insertion(rules)?;
        bare.push((i.host_rules_per_second, i.simulated_rules_per_second));
    }
    for (name, runs) in
        [("driver into the simulated device", driver), ("one at a time without a driver", bare)]
    {
        let (host, simulated): (Vec<_>, Vec<_>) = runs.into_iter().unzip();
        let figure = |time: &str, values| {
            Figure::of(format!("{name}, {time}"), Unit::RulesPerSecond, values).rules(rules.into())
        };
        out.extend([figure("host time", host), figure("the device's own rate", simulated).simulated()]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_installed_each_way() {
        let all = run(128).unwrap();
        assert_eq!(all.len(), 5);
        assert!(all.iter().all(|f| f.value > 0.0 && f.simulated == f.name.contains("own rate")), "{all:?}");
    }
}
