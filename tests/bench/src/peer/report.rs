//! Both side by side.

use std::fmt::Write;

use serde::Serialize;

use crate::figure::number;
use crate::switching::Published;

/// Cycles per packet of several repeats.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Least.
    pub low: f64,
    /// Greatest.
    pub high: f64,
}

impl Spread {
    /// Of these; `None` when there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        Some(Spread { median: values[values.len() / 2], low, high })
    }
}

/// One workload under both.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// Open vSwitch with DPDK, without the time that its thread waited for its processor.
    pub peer: Option<Spread>,
    /// Open vSwitch's own figure, which has that time in it; median.
    pub peer_says: f64,
    /// Percent of the time that its thread waited for its processor; median.
    pub peer_waited_percent: f64,
    /// Percent of its lookups that needed an upcall; median.
    pub peer_upcall_percent: f64,
    /// Ours, without the time that the thread waited.
    pub ours: Option<Spread>,
    /// How many times fewer cycles ours takes; medians.
    pub ratio: Option<f64>,
    /// How many times fewer they are to be.
    pub target: Option<f64>,
    /// Percent of the packets that are to leave by `n1`.
    pub expect_fwd: String,
    /// What was not as it is to be, or why there is no figure.
    pub wrong: Vec<String>,
}

impl Row {
    /// Without figures, and why.
    pub fn failed(name: &str, why: String) -> Row {
        Row {
            name: name.into(),
            peer: None,
            peer_says: 0.0,
            peer_waited_percent: 0.0,
            peer_upcall_percent: 0.0,
            ours: None,
            ratio: None,
            target: target(name),
            expect_fwd: String::new(),
            wrong: vec![why],
        }
    }
}

/// How many times fewer cycles than the peer's ours are to be in this workload. Of `tse_attack` what counts is how it
/// compares with our own `tse_base`.
pub fn target(name: &str) -> Option<f64> {
    Published::of(name).map(|p| p.ratio).filter(|r| *r > 1.0)
}

fn spread(s: Option<Spread>) -> [String; 2] {
    s.map_or(["-".into(), String::new()], |s| {
        [number(s.median), format!("({}-{})", number(s.low), number(s.high))]
    })
}

/// The rows as text; the head only when `head`.
pub fn table(rows: &[Row], head: bool) -> String {
    let mut out = String::new();
    if head {
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{:<12} {:>10} {:>19} {:>6} {:>8} {:>10} {:>17} {:>8} {:>7} {:>7}  met",
            "workload",
            "OVS-DPDK",
            "(least-most)",
            "wait%",
            "upcall%",
            "ours",
            "(least-most)",
            "ratio",
            "target",
            "fwd%"
        );
    }
    for r in rows {
        let ([p, ps], [o, os]) = (spread(r.peer), spread(r.ours));
        let met = match (r.ratio, r.target) {
            (Some(have), Some(want)) if have >= want => "yes",
            (Some(_), Some(_)) => "NO",
            _ => "-",
        };
        let _ = writeln!(
            out,
            "{:<12} {p:>10} {ps:>19} {:>6.1} {:>8.2} {o:>10} {os:>17} {:>8} {:>7} {:>7}  {met}",
            r.name,
            r.peer_waited_percent,
            r.peer_upcall_percent,
            r.ratio.map_or("-".into(), |v| format!("{v:.2}")),
            r.target.map_or("-".into(), |v| format!("{v}")),
            r.expect_fwd,
        );
        for w in &r.wrong {
            let _ = writeln!(out, "  WRONG: {w}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_the_ratio_is_met() {
        let s = Spread::of(vec![1000.0, 900.0, 1100.0]);
        assert_eq!(s, Some(Spread { median: 1000.0, low: 900.0, high: 1100.0 }));
        assert_eq!(Spread::of(Vec::new()), None);
        let mut r = Row { peer: s, ours: s, ratio: Some(1.0), ..Row::failed("acl100", "x".into()) };
        assert!(table(std::slice::from_ref(&r), true).contains(" NO\n  WRONG: x\n"));
        r.ratio = Some(4.0);
        assert!(table(&[r], false).contains(" yes\n"));
        assert!(target("tse_attack").is_none() && target("p2p1") == Some(1.3));
    }
}
