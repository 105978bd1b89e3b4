//! What a benchmark gives: figures with their unit, range and conditions, as text and as JSON.
//!
//! A figure says of which time it is: the host's, or the simulated device's. The two never share a line.

use std::fmt;

use serde::Serialize;

use crate::cycles::{Measurement, counter_hz};
use crate::target::Target;

/// Unit of a [`Figure`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[allow(missing_docs)]
pub enum Unit {
    #[serde(rename = "cycles/packet")]
    CyclesPerPacket,
    #[serde(rename = "cycles/lookup")]
    CyclesPerLookup,
    #[serde(rename = "cycles/rule")]
    CyclesPerRule,
    #[serde(rename = "packets/s")]
    PacketsPerSecond,
    #[serde(rename = "cycles/s")]
    CyclesPerSecond,
    #[serde(rename = "rules/s")]
    RulesPerSecond,
    #[serde(rename = "flows/s")]
    FlowsPerSecond,
    #[serde(rename = "bytes/flow")]
    BytesPerFlow,
    #[serde(rename = "allocations/flow")]
    AllocationsPerFlow,
    #[serde(rename = "us/flow")]
    MicrosPerFlow,
    #[serde(rename = "us/flow-mod")]
    MicrosPerFlowMod,
    #[serde(rename = "us/transaction")]
    MicrosPerTransaction,
    #[serde(rename = "transactions/s")]
    TransactionsPerSecond,
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "ms")]
    Milliseconds,
    #[serde(rename = "bytes/row")]
    BytesPerRow,
    #[serde(rename = "bytes")]
    Bytes,
    #[serde(rename = "x")]
    Ratio,
}

impl Unit {
    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Unit::CyclesPerPacket => "cycles/packet",
            Unit::CyclesPerLookup => "cycles/lookup",
            Unit::CyclesPerRule => "cycles/rule",
            Unit::PacketsPerSecond => "packets/s",
            Unit::CyclesPerSecond => "cycles/s",
            Unit::RulesPerSecond => "rules/s",
            Unit::FlowsPerSecond => "flows/s",
            Unit::BytesPerFlow => "bytes/flow",
            Unit::AllocationsPerFlow => "allocations/flow",
            Unit::MicrosPerFlow => "us/flow",
            Unit::MicrosPerFlowMod => "us/flow-mod",
            Unit::MicrosPerTransaction => "us/transaction",
            Unit::TransactionsPerSecond => "transactions/s",
            Unit::Microseconds => "us",
            Unit::Milliseconds => "ms",
            Unit::BytesPerRow => "bytes/row",
            Unit::Bytes => "bytes",
            Unit::Ratio => "x",
        }
    }

    /// What there is one of in so many cycles of the time-stamp counter; `None` for other units.
    fn per_cycles(self) -> Option<&'static str> {
        match self {
            Unit::CyclesPerPacket => Some("packets/s"),
            Unit::CyclesPerLookup => Some("lookups/s"),
            Unit::CyclesPerRule => Some("rules/s"),
            _ => None,
        }
    }
}

/// One figure.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Figure {
    /// What was measured; unique within its part.
    pub name: String,
    /// Median over the repeats.
    pub value: f64,
    /// Of `value`, `low` and `high`.
    pub unit: Unit,
    /// Least of the repeats.
    pub low: f64,
    /// Greatest of the repeats.
    pub high: f64,
    /// How often it was repeated.
    pub repeats: usize,
    /// Whether it is of the simulated device's time; false for the host's time and for counts.
    pub simulated: bool,
    /// Whether `value` is what this costs beyond something else, which the name says.
    pub difference: bool,
    /// Bytes of a frame without FCS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_bytes: Option<u32>,
    /// Flows that the packets belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flows: Option<u64>,
    /// Rules in the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<u64>,
    /// The target that it is held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

impl Figure {
    /// Of the values of several repeats.
    ///
    /// # Panics
    /// If there are none.
    pub fn of(name: impl Into<String>, unit: Unit, mut values: Vec<f64>) -> Self {
        assert!(!values.is_empty(), "no repeats");
        values.sort_by(f64::total_cmp);
        Figure {
            name: name.into(),
            value: values[values.len() / 2],
            unit,
            low: values[0],
            high: values[values.len() - 1],
            repeats: values.len(),
            simulated: false,
            difference: false,
            frame_bytes: None,
            flows: None,
            rules: None,
            target: None,
        }
    }

    /// Of a measurement in cycles.
    pub fn cycles(m: Measurement, unit: Unit) -> Self {
        let mut f = Figure::of(m.name, unit, vec![m.median_cycles]);
        (f.low, f.high, f.repeats) = (m.min_cycles, m.max_cycles, crate::cycles::REPEATS);
        f
    }

    /// The same, of the simulated device's time.
    pub fn simulated(mut self) -> Self {
        self.simulated = true;
        self
    }

    /// The same, as a cost beyond something else.
    pub fn difference(mut self) -> Self {
        self.difference = true;
        self
    }

    /// The same, with frames of `bytes`, without FCS.
    pub fn frame_bytes(mut self, bytes: u32) -> Self {
        self.frame_bytes = Some(bytes);
        self
    }

    /// The same, with packets of `n` flows.
    pub fn flows(mut self, n: u64) -> Self {
        self.flows = Some(n);
        self
    }

    /// The same, with `n` rules in the table.
    pub fn rules(mut self, n: u64) -> Self {
        self.rules = Some(n);
        self
    }

    /// The same, held against a target.
    pub fn target(mut self, t: Target) -> Self {
        self.target = Some(t);
        self
    }
}

/// "1 flow", "1,000 flows".
pub fn counted(n: u32, what: &str) -> String {
    let number = if n < 1000 { n.to_string() } else { number(n.into()) };
    format!("{number} {what}{}", if n == 1 { "" } else { "s" })
}

/// With a decimal below a thousand, and two below ten; thousands apart.
pub fn number(v: f64) -> String {
    if v.abs() < 1000.0 {
        return if v.abs() < 9.995 { format!("{v:.2}") } else { format!("{v:.1}") };
    }
    let digits = format!("{:.0}", v.abs());
    let mut out = String::from(if v < 0.0 { "-" } else { "" });
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = match self.difference {
            true if self.value >= 0.0 => format!("+{}", number(self.value)),
            _ => number(self.value),
        };
        write!(f, "{:<60} {value:>12} {:<16}", self.name, self.unit.name())?;
        if self.repeats > 1 {
            write!(f, " ({} to {})", number(self.low), number(self.high))?;
        }
        if let (Some(what), false) = (self.unit.per_cycles(), self.difference) {
            write!(f, " {:.3} M {what}", counter_hz() / self.value / 1e6)?;
        }
        if self.simulated {
            write!(f, " [simulated time]")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_the_median_and_the_range_is_that_of_the_repeats() {
        let f = Figure::of("x", Unit::RulesPerSecond, vec![3.0, 1.0, 9.0]);
        assert_eq!((f.value, f.low, f.high, f.repeats), (3.0, 1.0, 9.0, 3));
    }

    #[test]
    fn simulated_figures_say_so_in_text_and_json() {
        let f = Figure::of("x", Unit::PacketsPerSecond, vec![1_234_567.0]);
        assert!(!f.to_string().contains("simulated"));
        let f = f.simulated();
        assert!(f.to_string().contains("1,234,567 packets/s"), "{f}");
        assert!(f.to_string().ends_with("[simulated time]"), "{f}");
        let json = serde_json::to_value(&f).unwrap();
        assert_eq!((&json["simulated"], &json["unit"]), (&true.into(), &"packets/s".into()));
    }

    #[test]
    fn thousands_are_apart() {
        let of = [
            (0.25, "0.25"),
            (9.996, "10.0"),
            (999.96, "1000.0"),
            (1000.0, "1,000"),
            (-12_345_678.4, "-12,345,678"),
        ];
        for (v, s) in of {
            assert_eq!(number(v), s);
        }
        assert_eq!((counted(1, "flow"), counted(20_000, "flow")), ("1 flow".into(), "20,000 flows".into()));
    }
}
