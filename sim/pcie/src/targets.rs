//! What the model is asked for, row by row and effect by effect, and whether it does it.
//!
//! Errors of values are those of [`Errors`]. An effect is the ratio of two rows of one machine that differ in one thing: a byte more, the IOMMU,
//! the cache's state, the window. Its error is how far the simulated ratio is from the measured one; its sign is wrong when the
//! simulated change goes the other way than a measured one of more than 3 %. A change that is less than what runs of either row
//! differed by is none.
//!
//! Neither cycle-level nor behavioural: it compares.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::experiment::{Bench, CacheState, Experiment};
use crate::validate::{Answer, Errors, Row};

/// One thing that is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Target {
    /// What.
    pub what: String,
    /// Rows, or pairs of rows, that say something of it.
    pub rows: usize,
    /// What it is, in per cent.
    pub is: f64,
    /// What it must not exceed, in per cent.
    pub bound: f64,
    /// Effects whose sign is wrong.
    pub wrong_sign: Vec<OtherWay>,
    /// Effects that go the other way, of rows whose runs differ by more.
    pub in_doubt: Vec<OtherWay>,
}

/// An effect that goes the other way in the simulator.
#[derive(Clone, PartialEq, Debug)]
pub struct OtherWay {
    /// The machine.
    pub system: String,
    /// The experiment.
    pub experiment: Experiment,
    /// Measured ratio to what it is held against.
    pub measured: f64,
    /// Simulated.
    pub simulated: f64,
    /// By how much runs of either row differed, at most, in per cent.
    pub spread_pct: f64,
}

impl Target {
    /// Whether it is met; `None` when no row says so.
    pub fn is_met(&self) -> Option<bool> {
        (self.rows > 0).then_some(self.is <= self.bound && self.wrong_sign.is_empty())
    }
}

/// Effects smaller than this have no sign.
const NOTICEABLE: f64 = 0.03;
/// Largest window that every cache of the measured machines holds.
const IN_CACHE: u64 = 4 << 20;

/// All targets, for rows of machines that times were fitted to (`seen`) or were not. Without IOMMU where it is not named.
pub fn targets(rows: &[Row], answers: &[Answer], seen: bool) -> Vec<Target> {
    let mut all = Vec::new();
    let off = |r: &Row| r.experiment.page_bytes.is_none();
    let mut value = |what: String, bound: f64, of: fn(&Errors) -> f64, which: &dyn Fn(&Row) -> bool| {
        let e = Errors::of(rows, answers, |r| off(r) && which(r));
        all.push(Target {
            what,
            rows: e.len(),
            is: of(&e) + 0.0,
            bound,
            wrong_sign: Vec::new(),
            in_doubt: Vec::new(),
        });
    };
    for b in [Bench::LatRd, Bench::LatWrRd] {
        let bound = if seen { 3.0 } else { 8.0 };
        value(format!("{} median error", b.name()), bound, |e| e.quantile(0.5), &|r| r.experiment.bench == b);
    }
    for b in [Bench::BwRd, Bench::BwWr, Bench::BwRw] {
        let is = |r: &Row| r.experiment.bench == b;
        value(format!("{} mean error", b.name()), 5.0, Errors::mean, &|r| is(r));
        let name = b.name();
        value(format!("{name} mean error, 64 bytes"), 5.0, Errors::mean, &|r| {
            is(r) && r.experiment.size_bytes == 64
        });
        value(format!("{name} mean error, at offsets"), 5.0, Errors::mean, &|r| {
            is(r) && !is_aligned(&r.experiment)
        });
    }
    let pairs = Pairs::new(rows, answers);
    for b in [Bench::BwRd, Bench::BwWr, Bench::BwRw] {
        for size in [64, 256] {
            all.push(pairs.effect(format!("{} {} bytes against {size}", b.name(), size + 1), |x| {
                let is = x.bench == b && x.size_bytes == size + 1 && x.page_bytes.is_none();
                is.then(|| Experiment { size_bytes: size, ..x.clone() })
            }));
        }
    }
    for b in [Bench::LatRd, Bench::LatWrRd, Bench::BwRd, Bench::BwWr] {
        all.push(pairs.effect(format!("{} with IOMMU, 4 KiB pages, against without", b.name()), |x| {
            (x.bench == b && x.page_bytes == Some(4096)).then(|| Experiment { page_bytes: None, ..x.clone() })
        }));
    }
    for b in [Bench::LatRd, Bench::BwRd] {
        for (name, cache) in [("cold", CacheState::Cold), ("written by the device", CacheState::DeviceWarm)] {
            all.push(pairs.effect(format!("{} {name} against warm", b.name()), |x| {
                (x.bench == b && x.cache == cache && x.page_bytes.is_none() && is_aligned(x))
                    .then(|| Experiment { cache: CacheState::HostWarm, ..x.clone() })
            }));
        }
        all.push(pairs.effect(format!("{} window beyond the cache against within", b.name()), |x| {
            let beyond = x.window_bytes == 64 << 20 && x.cache == CacheState::HostWarm;
            (x.bench == b && beyond && x.page_bytes.is_none() && is_aligned(x))
                .then(|| Experiment { window_bytes: pairs.within(x), ..x.clone() })
        }));
    }
    all
}

/// What offsets cost is asked for apart from what caches do.
fn is_aligned(x: &Experiment) -> bool {
    x.host_offset == 0 && x.device_offset == 0
}

/// Measured, simulated, and by how much runs differed, by machine and experiment.
struct Pairs<'a>(BTreeMap<(&'a str, &'a Experiment), (f64, f64, f64)>);

impl<'a> Pairs<'a> {
    fn new(rows: &'a [Row], answers: &[Answer]) -> Self {
        let known = rows.iter().zip(answers).filter_map(|(r, a)| {
            let measured = r.measured.filter(|m| *m > 0.0)?;
            let spread = r.spread_pct.unwrap_or(0.0);
            Some(((r.system.as_str(), &r.experiment), (measured, a.value(), spread)))
        });
        Pairs(known.collect())
    }

    /// The largest window measured of the same that a cache holds.
    fn within(&self, x: &Experiment) -> u64 {
        let same = self.0.keys().filter(|(_, y)| {
            y.window_bytes <= IN_CACHE && **y == Experiment { window_bytes: y.window_bytes, ..x.clone() }
        });
        same.map(|(_, y)| y.window_bytes).max().unwrap_or(0)
    }

    fn effect(&self, what: String, against: impl Fn(&Experiment) -> Option<Experiment>) -> Target {
        let (mut errors, mut wrong_sign, mut in_doubt) = (Vec::new(), Vec::new(), Vec::new());
        for ((system, x), (measured, simulated, spread)) in &self.0 {
            let Some(other) = against(x) else { continue };
            let Some((m, s, other_spread)) = self.0.get(&(*system, &other)) else { continue };
            let spread_pct = spread.max(*other_spread);
            let (measured, simulated) = (measured / m, simulated / s);
            errors.push((simulated / measured - 1.0).abs());
            let noticed = (measured - 1.0).abs() > NOTICEABLE;
            if noticed && (measured - 1.0) * (simulated - 1.0) < 0.0 {
                let (system, experiment) = (system.to_string(), (*x).clone());
                let list =
                    if (measured - 1.0).abs() * 100.0 > spread_pct { &mut wrong_sign } else { &mut in_doubt };
                list.push(OtherWay { system, experiment, measured, simulated, spread_pct });
            }
        }
        let is = 100.0 * errors.iter().sum::<f64>() / errors.len().max(1) as f64 + 0.0;
        Target { what, rows: errors.len(), is, bound: 10.0, wrong_sign, in_doubt }
    }
}

/// A line for each effect that goes the wrong way in machines held out (`held_out`) and the right way as fitted: what decides it is known of the
/// machine itself alone.
pub fn known_of_itself(held_out: &[Target], fitted: &[Target]) -> String {
    let mut out = String::new();
    for (h, f) in held_out.iter().zip(fitted) {
        let is_wrong =
            |w: &OtherWay| f.wrong_sign.iter().any(|x| x.system == w.system && x.experiment == w.experiment);
        for w in h.wrong_sign.iter().filter(|w| !is_wrong(w)) {
            let x = &w.experiment;
            let _ = writeln!(
                out,
                "{}, {}: {} bytes in {} KiB: right as fitted; what decides it is known of the machine itself alone",
                h.what,
                w.system,
                x.size_bytes,
                x.window_bytes >> 10
            );
        }
    }
    out
}

/// As a table, a line each.
pub fn targets_text(all: &[Target]) -> String {
    let mut out = format!("{:<56}{:>6}{:>9}{:>9}  \n", "target", "rows", "is %", "most %");
    for t in all {
        let verdict = match (t.is_met(), t.wrong_sign.len()) {
            (None, _) => "no rows".to_string(),
            (Some(true), _) => "met".to_string(),
            (Some(false), 0) => "missed".to_string(),
            (Some(false), n) => format!("missed: {n} with the wrong sign"),
        };
        let _ = writeln!(out, "{:<56}{:>6}{:>9.2}{:>9.1}  {verdict}", t.what, t.rows, t.is, t.bound);
        for w in t.wrong_sign.iter().chain(&t.in_doubt) {
            let x = &w.experiment;
            let _ = write!(out, "    {}: {} bytes in {} KiB: ", w.system, x.size_bytes, x.window_bytes >> 10);
            let _ = write!(out, "measured {:.3}, simulated {:.3}", w.measured, w.simulated);
            if (w.measured - 1.0).abs() * 100.0 <= w.spread_pct {
                let _ = write!(out, "; not counted, runs differ by {:.1} %", w.spread_pct);
            }
            out.push('\n');
        }
    }
    out
}
