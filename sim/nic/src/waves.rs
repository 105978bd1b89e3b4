//! Waveforms: what changes in the device from cycle to cycle, as far as a person would put it on a logic analyser.
//!
//! Values are sampled after each evaluated cycle; cycles that are jumped over change nothing. Only changes are kept, and
//! a bounded number of them.
//!
//! Neither cycle-level nor behavioural: it looks on.

use serde::Serialize;

use crate::chip::Chip;

/// A change of a signal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// After this cycle.
    pub cycle: u64,
    /// Which signal: an index of [`Waves::signals`].
    pub signal: u16,
    /// Its new value.
    pub value: u32,
}

kernel::state!(struct Change { cycle, signal, value });

/// What was seen.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Waves {
    /// Names of the signals, with dots between the levels.
    pub signals: Vec<String>,
    /// Values at the beginning.
    pub initial: Vec<u32>,
    /// The first cycle.
    pub from_cycle: u64,
    /// The cycle in which it was taken.
    pub to_cycle: u64,
    /// Changes in order.
    pub changes: Vec<Change>,
    /// Changes beyond those that are kept.
    pub lost: u64,
}

kernel::state!(struct Waves { signals, initial, from_cycle, to_cycle, changes, lost });

impl Waves {
    /// For each value of signal `index` the cycles for which it had it, while it was watched.
    pub fn durations(&self, index: usize) -> std::collections::BTreeMap<u32, u64> {
        let mut out = std::collections::BTreeMap::new();
        let (mut since, mut value) = (self.from_cycle, self.initial.get(index).copied().unwrap_or(0));
        for c in self.changes.iter().filter(|c| usize::from(c.signal) == index) {
            *out.entry(value).or_insert(0) += c.cycle.saturating_sub(since);
            (since, value) = (c.cycle, c.value);
        }
        *out.entry(value).or_insert(0) += self.to_cycle.saturating_sub(since);
        out.retain(|_, d| *d > 0);
        out
    }
}

/// Watches a device.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    waves: Waves,
    last: Vec<u32>,
    now: Vec<u32>,
    limit: usize,
}

kernel::state!(struct Watcher { waves, last, now, limit });

impl Watcher {
    pub fn new(chip: &Chip, cycle: u64, limit: usize) -> Self {
        let mut last = Vec::new();
        values(chip, &mut last);
        let waves =
            Waves { signals: names(chip), initial: last.clone(), from_cycle: cycle, ..Waves::default() };
        Watcher { waves, last, now: Vec::new(), limit }
    }

    pub fn sample(&mut self, chip: &Chip, cycle: u64) {
        self.now.clear();
        values(chip, &mut self.now);
        for (i, (new, old)) in self.now.iter().zip(&self.last).enumerate() {
            if new == old {
                continue;
            }
            if self.waves.changes.len() < self.limit {
                self.waves.changes.push(Change { cycle, signal: i as u16, value: *new });
            } else {
                self.waves.lost += 1;
            }
        }
        std::mem::swap(&mut self.now, &mut self.last);
    }

    pub fn finish(mut self, cycle: u64) -> Waves {
        self.waves.to_cycle = cycle;
        self.waves
    }
}

/// Names, in the order of [`values`].
fn names(c: &Chip) -> Vec<String> {
    let mut n = Vec::new();
    for p in &c.ports {
        let i = p.index;
        for s in ["link", "ingress", "egress", "egress_host", "to_host", "phy_out", "rx_frames", "tx_frames"]
        {
            n.push(format!("port{i}.{s}"));
        }
    }
    n.extend(
        c.pipeline.stages().into_iter().filter_map(|(name, _, p)| p.map(|_| format!("pipeline.{name}"))),
    );
    for s in [
        "exact_entries",
        "ternary_entries",
        "lpm_entries",
        "range_entries",
        "commands_ok",
        "commands_failed",
        "running",
        "resetting",
        "faults",
    ] {
        n.push(format!("device.{s}"));
    }
    for s in ["transfers", "interrupts"] {
        n.push(format!("pcie.{s}"));
    }
    n
}

fn values(c: &Chip, out: &mut Vec<u32>) {
    for p in &c.ports {
        out.extend([
            u32::from(p.link_up()),
            p.ingress.len() as u32,
            p.egress.len() as u32,
            p.egress_host.len() as u32,
            p.to_host.len() as u32,
            p.departing().len() as u32,
            p.counts.rx_packets as u32,
            p.counts.tx_packets as u32,
        ]);
    }
    c.pipeline.held(out);
    out.extend([
        c.tables.exact.entries() as u32,
        c.tables.ternary.entries() as u32,
        c.tables.lpm.entries() as u32,
        c.tables.range.entries() as u32,
        c.cmd.completed[0] as u32,
        c.cmd.completed[1] as u32,
        u32::from(c.running),
        u32::from(c.reset_until.is_some()),
        c.faults.count() as u32,
        c.dma.stats(kernel::Cycles(0)).completed as u32,
        c.host.raised() as u32,
    ]);
}
