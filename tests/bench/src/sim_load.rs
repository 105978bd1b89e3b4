//! The simulator at half load: the default profile as it is, every port sending at half its line rate.
//!
//! Rates are per second of processor time of the one thread that runs the device, so that a busy machine does not make the
//! simulator slow.

use nic::{Bed, Config, Match};

use crate::cycles::processor_time;
use crate::figure::{Figure, Unit};
use crate::heap::Held;
use crate::part::BenchError;
use crate::target::Target;

/// Frames put on a wire ahead of time.
const AHEAD: u64 = 128;
/// How often each run is repeated.
const REPEATS: usize = 3;

/// What a run gave.
struct Run {
    frames: u64,
    evaluated: u64,
    cycles: u64,
    seconds: f64,
    heap_growth: f64,
    modules: usize,
}

/// Sends `frames` frames of `len` bytes without FCS by each port at half load. The first tenth warms up.
fn half_load(frames: u64, len: usize, skipping: bool) -> Result<Run, BenchError> {
    let config = Config::default();
    let ports = config.device.ports;
    let gap = 2 * config.wire_cycles(len);
    let mut bed = Bed::new(config, 1)?;
    bed.sim().set_skipping(skipping);
    for p in 0..ports {
        let m = Match::Flow { src: tester::frame::source(p.into()), dst: tester::frame::destination(p) };
        bed.install(m, &[(p + 1) % ports], true)?.map_err(|s| BenchError::Rule(format!("{s:?}")))?;
    }
    let templates: Vec<Vec<u8>> = (0..ports).map(|p| tester::frame::frame(p.into(), p, len)).collect();
    let modules = bed.sim().stats().stages.len() + bed.sim().stats().queues.len();
    let start = bed.sim().cycle().0 + 1;
    let warm = frames / 10;
    let (mut sent, mut out) = (0, 0);
    let mut begin = None;
    while sent < frames {
        if sent >= warm && begin.is_none() {
            begin =
                Some((processor_time(), out, bed.sim().cycle().0, bed.sim().evaluated_cycles(), Held::now()));
        }
        let n = AHEAD.min(frames - sent);
        for i in 0..n {
            for (p, f) in templates.iter().enumerate() {
                bed.send(p as u8, start + (sent + i) * gap, f);
            }
        }
        sent += n;
        bed.sim().step(n * gap);
        (0..ports).for_each(|p| bed.receive(p, |_, _| out += 1));
    }
    let (s, o, c, e, held) = begin.ok_or(BenchError::TooSmall)?;
    let seconds = (processor_time() - s).as_secs_f64();
    let run = Run {
        frames: out - o,
        evaluated: bed.sim().evaluated_cycles() - e,
        cycles: bed.sim().cycle().0 - c,
        seconds: seconds.max(f64::MIN_POSITIVE),
        heap_growth: Held::now().since(held, 1).0,
        modules,
    };
    if bed.sim().account().dropped > 0 {
        return Err(BenchError::Rule(format!("frames were lost at half load: {:?}", bed.sim().drops())));
    }
    Ok(run)
}

/// The figures, of `frames` frames by each port.
///
/// # Errors
/// When the device does not forward them all.
pub fn run(frames: u64) -> Result<Vec<Figure>, BenchError> {
    let runs =
        |len, skipping| (0..REPEATS).map(|_| half_load(frames, len, skipping)).collect::<Result<Vec<_>, _>>();
    let figure = |name: String, unit, runs: &[Run], value: fn(&Run) -> f64| {
        Figure::of(name, unit, runs.iter().map(value).collect())
    };
    let mut out = Vec::new();
    for len in [60usize, 1514] {
        let r = runs(len, true)?;
        let f = figure(format!("packets at half load, {len} bytes"), Unit::PacketsPerSecond, &r, |r| {
            r.frames as f64 / r.seconds
        });
        let f = f.frame_bytes(len as u32).flows(4).rules(4);
        out.push(if len == 60 { f.target(Target::SimulatorHalfLoad) } else { f });
        let skipped =
            r.iter().map(|r| 1.0 - r.evaluated as f64 / r.cycles.max(1) as f64).sum::<f64>() / r.len() as f64;
        let name =
            format!("  device cycles evaluated, {:.0} % of them jumped over, {len} bytes", 100.0 * skipped);
        out.push(figure(name, Unit::CyclesPerSecond, &r, |r| r.evaluated as f64 / r.seconds));
        out.push(figure(format!("  heap growth in the run, {len} bytes"), Unit::Bytes, &r, |r| {
            r.heap_growth
        }));
    }
    let r = runs(1514, false)?;
    let name =
        format!("device cycles at half load, none jumped over, {} modules (stages and queues)", r[0].modules);
    let f = figure(name, Unit::CyclesPerSecond, &r, |r| r.evaluated as f64 / r.seconds);
    out.push(f.frame_bytes(1514).target(Target::SimulatorCycles));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_load_is_forwarded_whole_and_memory_does_not_grow_with_the_frames() {
        let few = half_load(600, 60, true).unwrap();
        assert!(few.frames >= 4 * 400 && few.modules > 30 && few.evaluated <= few.cycles);
        let all = run(300).unwrap();
        assert!(
            Target::SimulatorCycles.judge(&all).is_some() && Target::SimulatorHalfLoad.judge(&all).is_some()
        );
    }
}
