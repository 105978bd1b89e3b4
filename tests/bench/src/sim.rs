//! How fast the simulator is: device cycles and packets per second of host time.
//!
//! The device's own speed, in its own time, is told beside it and says so.

use crate::figure::{Figure, Unit, counted};
use crate::part::BenchError;
use crate::target::Target;

/// How often each run is repeated.
const REPEATS: usize = 3;

/// Forwards `frames` frames of 60 bytes, of few, some and many flows.
///
/// # Errors
/// When the simulated device does not forward them all.
pub fn run(frames: u64) -> Result<Vec<Figure>, BenchError> {
    let mut out = Vec::new();
    for flows in [4u32, 1_000, 10_000] {
        let runs =
            (0..REPEATS).map(|_| nic::bench::forwarding(frames, flows)).collect::<Result<Vec<_>, _>>()?;
        let figure = |what: &str, unit, value: fn(&nic::bench::Forwarding) -> f64| {
            Figure::of(format!("{what}, {}", counted(flows, "flow")), unit, runs.iter().map(value).collect())
                .frame_bytes(60)
                .flows(flows.into())
                .rules(flows.into())
        };
        out.extend([
            figure("packets, host time", Unit::PacketsPerSecond, |r| r.host_pps).target(Target::Simulator),
            figure("device cycles, host time", Unit::CyclesPerSecond, |r| r.host_cycles_per_second),
            figure("  of them evaluated, not jumped over", Unit::CyclesPerSecond, |r| {
                r.evaluated_cycles as f64 / r.host_seconds
            }),
            figure("packets, the device's own rate", Unit::PacketsPerSecond, |r| r.simulated_pps).simulated(),
        ]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_devices_own_rate_is_of_simulated_time() {
        let all = run(64).unwrap();
        assert_eq!(all.len(), 12);
        for f in &all {
            assert_eq!(f.simulated, f.name.contains("own rate"), "{f}");
            assert!(f.value > 0.0, "{f}");
        }
        assert!(Target::Simulator.judge(&all).is_some());
    }
}
