//! Reports for people.

use std::fmt::Write;

use nic::{SimStats, Trail, Waves};

use crate::histogram::Histogram;
use crate::{rfc2544, rfc2889};

/// The way of one frame: place, cycle it came there, cycles it took, cycles it waited beyond that.
pub fn timeline(t: &Trail, clock_hz: u64) -> String {
    let ns = |c: u64| c as f64 * 1e9 / clock_hz.max(1) as f64;
    let mut out = format!("frame {}, {} bytes", t.frame, t.len_bytes);
    if let Some(o) = t.copy_of {
        let _ = write!(out, ", a copy of frame {o}");
    }
    let _ = writeln!(out, ", flow hash {:08x}: {} cycles, {:.1} ns", t.flow_hash, t.cycles(), ns(t.cycles()));
    let _ = writeln!(out, "{:>12} {:>8} {:>8}  place", "cycle", "takes", "waits");
    for (place, from, takes, waits) in t.stays() {
        let _ = writeln!(out, "{from:>12} {takes:>8} {waits:>8}  {place}");
    }
    if let Some(last) = t.stamps.last() {
        let _ = writeln!(out, "{:>12} {:>8} {:>8}  {}", last.cycle, "", "", last.place);
    }
    out
}

/// Latency by place and in all, in cycles.
pub fn latencies(trails: &[Trail]) -> String {
    let mut places: std::collections::BTreeMap<nic::Place, (Histogram, Histogram)> = Default::default();
    let mut all = Histogram::default();
    for t in trails {
        all.add(t.cycles());
        for (place, _, takes, waits) in t.stays() {
            let (a, b) = places.entry(place).or_default();
            a.add(takes + waits);
            b.add(waits);
        }
    }
    let mut out = format!("latency, cycles\n{:<34}{}\n", "", Histogram::HEAD);
    for (p, (stay, wait)) in &places {
        let _ = writeln!(out, "  {:<32}{}", p.to_string(), stay.line(""));
        if wait.range().1 > 0 {
            let _ = writeln!(out, "  {:<32}{}", "  of it waiting", wait.line(""));
        }
    }
    let _ = writeln!(out, "  {:<32}{}", "whole way", all.line(""));
    out.push_str(&all.bars(16, "    "));
    out
}

/// How full the queues were: each queue that was ever used, by cycles.
pub fn occupancies(w: &Waves) -> String {
    let mut out = String::from("occupancy, frames, weighted by cycles\n");
    let _ = writeln!(out, "{:<34}{:>10} {:>8} {:>8} {:>8} {:>8}", "", "mean", "p50", "p99", "max", "empty %");
    for (i, name) in w.signals.iter().enumerate() {
        let is_queue = name.starts_with("pipeline.")
            || [".ingress", ".egress", ".egress_host", ".to_host", ".phy_out"]
                .iter()
                .any(|s| name.ends_with(s));
        if !is_queue {
            continue;
        }
        let mut h = Histogram::default();
        let d = w.durations(i);
        d.iter().for_each(|(v, n)| h.add_n(u64::from(*v), *n));
        if h.range().1 == 0 {
            continue;
        }
        let empty = 100.0 * d.get(&0).copied().unwrap_or(0) as f64 / h.total().max(1) as f64;
        let _ = writeln!(
            out,
            "  {name:<32}{:>10.2} {:>8} {:>8} {:>8} {empty:>8.1}",
            h.mean(),
            h.quantile(0.5),
            h.quantile(0.99),
            h.range().1
        );
    }
    out
}

/// What the stages did with their cycles, and why they stalled.
pub fn stalls(s: &SimStats) -> String {
    let pc = |n: u64| 100.0 * n as f64 / s.cycles.max(1) as f64;
    let mut out = format!("stages, % of {} cycles\n", s.cycles);
    let _ = writeln!(
        out,
        "{:<34}{:>10} {:>8} {:>10} {:>10} {:>10} {:>8}",
        "", "accepted", "busy", "no room", "resource", "memory", "idle"
    );
    for x in s.stages.iter().filter(|x| x.accepted > 0) {
        let _ = writeln!(
            out,
            "  {:<32}{:>10} {:>8.2} {:>10.2} {:>10.2} {:>10.2} {:>8.2}",
            x.name,
            x.accepted,
            pc(x.busy_cycles),
            pc(x.stalled_output_cycles),
            pc(x.stalled_resource_cycles),
            pc(x.stalled_memory_cycles),
            pc(x.idle_cycles)
        );
    }
    if let Some((hits, misses)) = s.bucket_cache {
        let _ = writeln!(out, "  buckets of the exact table: {hits} found in the cache, {misses} fetched");
    }
    let drops = s.ports.iter().enumerate().flat_map(|(i, p)| p.drops.iter().map(move |d| (i, d)));
    for (i, d) in drops {
        let _ = writeln!(out, "  port {i} lost {} frames: {}", d.frames, d.reason.name());
    }
    out
}

/// An RFC 2544 report.
pub fn rfc2544(r: &rfc2544::Report) -> String {
    let mut out = format!(
        "RFC 2544: {}\n{} ports of {} Mb/s, each to the next, {} flow{} each, trials of {} frames per port, simulated time\n\n",
        r.device,
        r.ports,
        r.speed_mbps,
        r.flows,
        if r.flows == 1 { "" } else { "s" },
        r.trial_frames
    );
    let _ = writeln!(
        out,
        "{:>6} {:>12} {:>12} {:>7} {:>10} | latency ns {:>8} {:>8} {:>8} {:>8} | {:>12} {:>12}",
        "bytes",
        "line f/s",
        "no loss f/s",
        "% line",
        "Mb/s",
        "min",
        "mean",
        "p99",
        "max",
        "back-to-back",
        "recovery"
    );
    for s in &r.sizes {
        let l = &s.latency;
        let burst = format!("{}{}", if s.back_to_back_is_a_bound { ">=" } else { "" }, s.back_to_back_frames);
        let recovery = s.recovery_ns.map_or("-".into(), |n| format!("{:.1} us", n / 1000.0));
        let _ = writeln!(
            out,
            "{:>6} {:>12.0} {:>12.0} {:>7.2} {:>10.1} | {:>19.1} {:>8.1} {:>8.1} {:>8.1} | {burst:>12} {recovery:>12}",
            s.size_bytes,
            s.line_fps,
            s.throughput_fps,
            100.0 * s.throughput,
            s.throughput_mbps,
            l.min,
            l.mean,
            l.p99,
            l.max
        );
    }
    out.push_str("\nframe loss rate, % lost at % of the line offered\n");
    for s in &r.sizes {
        let points: Vec<String> =
            s.loss.iter().map(|p| format!("{:.0} %: {:.2}", 100.0 * p.offered, 100.0 * p.loss)).collect();
        let _ = writeln!(out, "{:>6} {}", s.size_bytes, points.join("  "));
    }
    out
}

/// An RFC 2889 report.
pub fn rfc2889(r: &rfc2889::Report) -> String {
    let mut out = format!("RFC 2889: {}, frames of {} bytes\n\n", r.device, r.size_bytes);
    for (name, x) in [("fully meshed (5.1)", &r.fully_meshed), ("many to one (5.2)", &r.many_to_one)] {
        let _ = writeln!(
            out,
            "{name:<28}offered {:.0} f/s, forwarded {:.0} f/s, {:.2} % lost, {} reordered, {} flooded, latency {:.1} ns in the mean, p99 {:.1}",
            x.offered_fps,
            x.forwarded_fps,
            100.0 * x.loss,
            x.reordered,
            x.flooded,
            x.latency.mean,
            x.latency.p99
        );
    }
    let c = &r.congestion;
    let _ = writeln!(
        out,
        "{:<28}{:.2} % lost to the free output, {:.2} % to the full one: {}",
        "congestion control (5.5)",
        100.0 * c.loss_uncongested,
        100.0 * c.loss_congested,
        if c.head_of_line_blocking { "head-of-line blocking" } else { "no head-of-line blocking" }
    );
    for t in &r.tables {
        let _ = writeln!(
            out,
            "{:<28}{} table: first refusal at {} of {} entries, {} taken; {:.0} rules/s, first {:.0} ns, last {:.0} ns",
            "capacity, rate (5.7, 5.8)",
            t.table,
            t.first_refusal,
            t.capacity,
            t.taken,
            t.rules_per_second,
            t.first_and_last_ns.0,
            t.first_and_last_ns.1
        );
    }
    for e in &r.errored {
        let _ = writeln!(
            out,
            "{:<28}{}: {} of {} forwarded",
            "errored frames (5.9)", e.what, e.forwarded, e.sent
        );
    }
    let b = &r.broadcast;
    let _ = writeln!(out, "{:<28}{} frames, {} of {} copies", "broadcast (5.10)", b.sent, b.copies, b.wanted);
    out
}
