//! What the figures are held against. A target takes the worst of the figures that name it.

use std::fmt;

use serde::Serialize;

use crate::figure::{Figure, Unit, number};

/// A target of the project.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Whole path in memory on cache hits: at most 250 cycles per 64-byte packet in batches of 32.
    WholePath,
    /// Simulator: at least 200,000 packets per second of host time.
    Simulator,
    /// Simulator, default profile at half load: at least 500,000 packets per second of processor time.
    SimulatorHalfLoad,
    /// Simulator: at least five million device cycles per second of processor time, those jumped over not counted.
    SimulatorCycles,
    /// Drivers: at most 100 cycles to receive and send a packet in batches of 32, on a device of memory.
    DriverPackets,
    /// Driver of the simulated NIC: at most a microsecond of host CPU for a rule through the command queue.
    DriverRules,
    /// Database: at most 15 us of server CPU for a single-row transaction without durability, native client.
    OvsdbCpu,
    /// Database: at least twice the rate of Open vSwitch's server through the same Python client.
    OvsdbPythonRate,
    /// Database: at most half of the memory that a row takes in Open vSwitch's server.
    OvsdbMemory,
    /// TC: at most a microsecond to encode a rule.
    TcEncoding,
    /// TC: at least twice the rate of `tc -batch` with the same filters.
    TcRate,
    /// Trace: at most a millisecond through 60 tables.
    Trace,
    /// Revalidation: at least 50,000 datapath flows per second and core, all of them translated again.
    Revalidation,
    /// Revalidation: at most the processor time of Open vSwitch's daemon for the same flows and the same change.
    RevalidationCpu,
    /// Flow-mods: at most a third of the CPU time of Open vSwitch's daemon, through the same `ovs-ofctl`.
    FlowModCpu,
    /// Flow-mods: at most 1.3 times the time that the same `ovs-ofctl` takes with a switch that only acknowledges.
    FlowModWall,
    /// Flows: at most half of the memory that a flow takes in Open vSwitch's daemon.
    FlowMemory,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 17] = [
        Target::WholePath,
        Target::Simulator,
        Target::SimulatorHalfLoad,
        Target::SimulatorCycles,
        Target::DriverPackets,
        Target::DriverRules,
        Target::OvsdbCpu,
        Target::OvsdbPythonRate,
        Target::OvsdbMemory,
        Target::TcEncoding,
        Target::TcRate,
        Target::Trace,
        Target::Revalidation,
        Target::RevalidationCpu,
        Target::FlowModCpu,
        Target::FlowModWall,
        Target::FlowMemory,
    ];

    /// What is asked for, in words.
    pub fn what(self) -> &'static str {
        match self {
            Target::WholePath => "whole path on cache hits, 64-byte packets in batches of 32",
            Target::Simulator => "simulator, 64-byte packets",
            Target::SimulatorHalfLoad => "simulator, default profile at half load, 64-byte packets",
            Target::SimulatorCycles => "simulator, device cycles that are evaluated",
            Target::DriverPackets => "driver receives and sends, 64-byte packets in batches of 32",
            Target::DriverRules => "driver installs a rule through the command queue",
            Target::OvsdbCpu => "server CPU of a single-row transaction, native client",
            Target::OvsdbPythonRate => "rate through the same Python client, against Open vSwitch's server",
            Target::OvsdbMemory => "memory of a row, against Open vSwitch's server",
            Target::TcEncoding => "a rule encoded for TC",
            Target::TcRate => "filters installed, deleted and counted, against tc",
            Target::Trace => "trace through 60 tables",
            Target::Revalidation => "datapath flows revalidated, per second of processor time",
            Target::RevalidationCpu => {
                "CPU time of flows that follow a change, against Open vSwitch's daemon"
            }
            Target::FlowModCpu => "CPU time of a flow-mod, against Open vSwitch's daemon",
            Target::FlowModWall => "time of a flow-mod, against a switch that only acknowledges",
            Target::FlowMemory => "memory of a flow, against Open vSwitch's daemon",
        }
    }

    /// The bound and its unit.
    pub fn bound(self) -> (f64, Unit) {
        match self {
            Target::WholePath => (250.0, Unit::CyclesPerPacket),
            Target::Simulator => (200_000.0, Unit::PacketsPerSecond),
            Target::SimulatorHalfLoad => (500_000.0, Unit::PacketsPerSecond),
            Target::SimulatorCycles => (5_000_000.0, Unit::CyclesPerSecond),
            Target::DriverPackets => (100.0, Unit::CyclesPerPacket),
            Target::DriverRules => (1.0, Unit::Microseconds),
            Target::OvsdbCpu => (15.0, Unit::MicrosPerTransaction),
            Target::OvsdbPythonRate => (2.0, Unit::Ratio),
            Target::TcEncoding => (1.0, Unit::Microseconds),
            Target::TcRate => (2.0, Unit::Ratio),
            Target::Trace => (1000.0, Unit::Microseconds),
            Target::Revalidation => (50_000.0, Unit::FlowsPerSecond),
            Target::OvsdbMemory | Target::FlowMemory => (0.5, Unit::Ratio),
            Target::RevalidationCpu => (1.0, Unit::Ratio),
            Target::FlowModCpu => (1.0 / 3.0, Unit::Ratio),
            Target::FlowModWall => (1.3, Unit::Ratio),
        }
    }

    /// Whether the bound is the most that is allowed; else it is the least.
    pub fn at_most(self) -> bool {
        match self {
            Target::WholePath
            | Target::DriverPackets
            | Target::DriverRules
            | Target::OvsdbCpu
            | Target::OvsdbMemory
            | Target::TcEncoding
            | Target::Trace
            | Target::RevalidationCpu
            | Target::FlowModCpu
            | Target::FlowModWall
            | Target::FlowMemory => true,
            Target::SimulatorHalfLoad | Target::SimulatorCycles | Target::Revalidation => false,
            Target::Simulator | Target::OvsdbPythonRate | Target::TcRate => false,
        }
    }

    fn meets(self, v: f64) -> bool {
        if self.at_most() { v <= self.bound().0 } else { v >= self.bound().0 }
    }

    /// Holds the figures that name this target against it; `None` when none does.
    pub fn judge<'a>(self, figures: impl IntoIterator<Item = &'a Figure>) -> Option<Verdict> {
        let named = figures.into_iter().filter(|f| f.target == Some(self));
        let sign = if self.at_most() { 1.0 } else { -1.0 };
        let worst = named.max_by(|a, b| (sign * a.value).total_cmp(&(sign * b.value)))?;
        Some(Verdict {
            target: self,
            what: self.what(),
            bound: self.bound().0,
            at_most: self.at_most(),
            unit: self.bound().1,
            value: worst.value,
            worst: worst.name.clone(),
            met: self.meets(worst.value),
        })
    }
}

/// Whether a target is met.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verdict {
    /// The target.
    pub target: Target,
    /// In words.
    pub what: &'static str,
    /// The bound.
    pub bound: f64,
    /// Whether the bound is the most that is allowed; else it is the least.
    pub at_most: bool,
    /// Of `bound` and `value`.
    pub unit: Unit,
    /// The worst figure.
    pub value: f64,
    /// Its name.
    pub worst: String,
    /// Whether it is within the bound.
    pub met: bool,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<6} {}: {} {} ({}); target {} {}",
            if self.met { "met" } else { "MISSED" },
            self.what,
            number(self.value),
            self.unit.name(),
            self.worst,
            if self.at_most { "at most" } else { "at least" },
            number(self.bound),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_figure_decides() {
        let figure = |v, unit, t| Figure::of(format!("{v}"), unit, vec![v]).target(t);
        let path = |v| figure(v, Unit::CyclesPerPacket, Target::WholePath);
        let sim = |v| figure(v, Unit::PacketsPerSecond, Target::Simulator);
        let all = [path(90.0), sim(500_000.0), path(250.0), sim(200_000.0)];
        let met = |t: Target, f: &[Figure]| t.judge(f).map(|v| (v.value, v.met));
        assert_eq!(met(Target::WholePath, &all), Some((250.0, true)));
        assert_eq!(met(Target::Simulator, &all), Some((200_000.0, true)));
        assert_eq!(met(Target::WholePath, &[path(90.0), path(250.1)]), Some((250.1, false)));
        assert_eq!(met(Target::Simulator, &[sim(1e9), sim(199_999.0)]), Some((199_999.0, false)));
        assert_eq!(met(Target::Simulator, &[path(1.0)]), None);
        let v = Target::Simulator.judge(&[sim(1000.0)]).unwrap();
        assert!(v.to_string().starts_with("MISSED simulator"), "{v}");
    }
}
