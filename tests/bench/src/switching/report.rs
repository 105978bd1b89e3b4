//! What came out, as a table and as JSON.

use std::fmt::Write;

use datapath_api::DatapathStats;
use serde::Serialize;

use super::Options;
use super::directory::Directory;
use crate::cycles::counter_hz;
use crate::figure::number;

/// Open vSwitch 3.1 with DPDK 22.11 on an AMD EPYC (Zen 4) at 2.6 GHz, cycles per packet, and how many times better ours
/// is to be in the same run.
const PUBLISHED: &[(&str, f64, f64)] = &[
    ("p2p1", 106.0, 1.3),
    ("p2p10k", 127.0, 1.3),
    ("p2p100k", 138.0, 1.3),
    ("p2p1m", 150.0, 1.3),
    ("l2normal", 365.0, 2.0),
    ("setfield", 352.0, 2.0),
    ("acl100", 1189.0, 4.0),
    ("acl1k_10k", 2954.0, 10.0),
    ("acl1k_100k", 9277.0, 20.0),
    ("acl1k_1m", 57_853.0, 40.0),
    ("acl10k_100k", 596_802.0, 500.0),
    ("ct", 1004.0, 2.0),
    ("vxlan_encap", 333.0, 1.5),
    ("vxlan_decap", 645.0, 1.5),
    ("newflows", 8396.0, 3.0),
    ("tse_base", 157.0, 1.0),
    ("tse_attack", 70_821.0, 1.0),
];

/// What is known of the peer on a workload.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Published {
    /// Its cycles per packet where it was measured.
    pub cycles: f64,
    /// How many times fewer ours are to be.
    pub ratio: f64,
}

impl Published {
    /// For the workload of this name.
    pub fn of(name: &str) -> Option<Published> {
        PUBLISHED.iter().find(|p| p.0 == name).map(|p| Published { cycles: p.1, ratio: p.2 })
    }
}

/// One workload.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// `no-emc`, `stream of N` or nothing.
    pub variant: String,
    /// Why it was not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// Cycles per packet: median of the repeats.
    pub cycles: f64,
    /// Least of the repeats.
    pub low: f64,
    /// Greatest of the repeats.
    pub high: f64,
    /// Percent of the packets that left by `n1`.
    pub expect_fwd: String,
    /// Of lookups, percent that the exact-match cache answered.
    pub exact_percent: f64,
    /// Of lookups, percent that megaflows answered.
    pub megaflow_percent: f64,
    /// Of lookups, percent that took shortcuts which no cache knew: classified by the tables.
    pub shortcut_percent: f64,
    /// Of lookups, percent that had to be translated.
    pub miss_percent: f64,
    /// Records at the end.
    pub megaflows: usize,
    /// Masks at the end.
    pub masks: usize,
    /// Rules.
    pub rules: usize,
    /// Resident memory of the program at the end, in bytes, frames included.
    pub rss_bytes: u64,
    /// Percent of the measured stretches that were left out because the machine did something else.
    pub discarded_percent: f64,
    /// Cycles per packet of each stage, over the whole run and with what timing them costs.
    pub stages: Vec<(&'static str, f64)>,
    /// What was not as it is to be; empty when all was right.
    pub wrong: Vec<String>,
    /// The peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<Published>,
}

fn variant(o: &Options) -> String {
    let mut v = Vec::new();
    if o.no_emc {
        v.push("no-emc".to_owned());
    }
    if let Some(n) = o.stream {
        v.push(format!("stream of {}", number(n as f64)));
    }
    v.join(", ")
}

fn rss_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    pages.and_then(|p| p.split(' ').nth(1)?.parse::<u64>().ok()).map_or(0, |p| p * 4096)
}

impl Row {
    pub(super) fn unsupported(name: &str, o: &Options, topo: &str) -> Row {
        Row {
            name: name.into(),
            variant: variant(o),
            unsupported: Some(format!("topology {topo} is not supported")),
            cycles: 0.0,
            low: 0.0,
            high: 0.0,
            expect_fwd: String::new(),
            exact_percent: 0.0,
            megaflow_percent: 0.0,
            shortcut_percent: 0.0,
            miss_percent: 0.0,
            megaflows: 0,
            masks: 0,
            rules: 0,
            rss_bytes: 0,
            discarded_percent: 0.0,
            stages: Vec::new(),
            wrong: Vec::new(),
            published: Published::of(name),
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        d: &Directory,
        o: &Options,
        mut repeats: Vec<f64>,
        before: &DatapathStats,
        after: &DatapathStats,
        expect_fwd: &str,
        wrong: Vec<String>,
        (discarded, chunks): (usize, usize),
    ) -> Row {
        repeats.sort_by(f64::total_cmp);
        let delta = |f: fn(&DatapathStats) -> u64| (f(after) - f(before)) as f64;
        let (exact, mega) = (delta(|s| s.exact_hits), delta(|s| s.megaflow_hits));
        let (short, miss) = (delta(|s| s.shortcuts), delta(|s| s.misses));
        let percent = |v: f64| v * 100.0 / (exact + mega + short + miss).max(1.0);
        Row {
            name: d.name.clone(),
            variant: variant(o),
            unsupported: None,
            cycles: repeats[repeats.len() / 2],
            low: repeats[0],
            high: repeats[repeats.len() - 1],
            expect_fwd: expect_fwd.into(),
            exact_percent: percent(exact),
            megaflow_percent: percent(mega),
            shortcut_percent: percent(short),
            miss_percent: percent(miss),
            megaflows: after.flows,
            masks: after.masks,
            rules: d.flows.len(),
            rss_bytes: rss_bytes(),
            discarded_percent: discarded as f64 * 100.0 / chunks.max(1) as f64,
            stages: Vec::new(),
            wrong,
            published: if o.no_emc || o.stream.is_some() { None } else { Published::of(&d.name) },
        }
    }
}

/// The rows as text.
pub fn table(rows: &[Row]) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        out,
        "{:<12} {:<20} {:>10} {:>21} {:>8} {:>7} {:>6} {:>6} {:>6} {:>6} {:>9} {:>6} {:>7} {:>6} {:>9} {:>7}",
        "workload",
        "",
        "cycles/pkt",
        "(least-most)",
        "Mpps",
        "fwd%",
        "exact%",
        "mega%",
        "short%",
        "miss%",
        "megaflows",
        "masks",
        "RSS_MB",
        "noise%",
        "published",
        "ratio"
    );
    for r in rows {
        if let Some(why) = &r.unsupported {
            let _ = writeln!(out, "{:<12} {:<20} {why}", r.name, r.variant);
            continue;
        }
        let (published, ratio) = match r.published {
            Some(p) => (number(p.cycles), format!("{:.2}", p.cycles / r.cycles)),
            None => ("-".into(), "-".into()),
        };
        let _ = writeln!(
            out,
            "{:<12} {:<20} {:>10} {:>21} {:>8.3} {:>7} {:>6.1} {:>6.1} {:>6.1} {:>6.1} {:>9} {:>6} {:>7} {:>6.1} {:>9} {:>7}",
            r.name,
            r.variant,
            number(r.cycles),
            format!("({}-{})", number(r.low), number(r.high)),
            counter_hz() / r.cycles / 1e6,
            r.expect_fwd,
            r.exact_percent,
            r.megaflow_percent,
            r.shortcut_percent,
            r.miss_percent,
            r.megaflows,
            r.masks,
            r.rss_bytes >> 20,
            r.discarded_percent,
            published,
            ratio,
        );
        for w in &r.wrong {
            let _ = writeln!(out, "  WRONG: {w}");
        }
    }
    out
}

/// The stages of a row as a line of text.
pub fn stages(r: &Row) -> String {
    let each: Vec<_> = r.stages.iter().map(|(name, v)| format!("{name} {v:.1}")).collect();
    format!("  by stages: {}\n", each.join(", "))
}
