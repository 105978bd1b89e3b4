//! `hoist perf`: where the forwarding cores' cycles go, since the start or live.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use daemon::report::{CorePerf, Perf};

use crate::ask::Switch;
use crate::table::{duration, render};

/// The stages in the order in which packets meet them; what a newer switch has beside them comes behind.
const STAGES: &[&str] =
    &["receive", "parse", "exact-match", "megaflow", "classify", "translate", "actions", "transmit", "other"];

/// Asks for the figures of so many seconds, over and over, and prints each answer as it comes; `rounds` times, for ever when
/// `None`. One JSON document a line with `json`.
///
/// # Errors
/// When there is no switch, or it ends.
pub async fn live(
    target: Option<&Path>,
    run_dir: Option<&Path>,
    json: bool,
    seconds: f64,
    mut rounds: Option<u32>,
    print: impl Fn(&str) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let mut s = Switch::connect(target, run_dir).await?;
    let mut before: Perf = s.ask("hoist/perf", &[]).await?;
    while rounds != Some(0) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let now: Perf = s.ask("hoist/perf", &[]).await?;
        let between = now.since(&before);
        let text = if json {
            format!("{}\n", serde_json::to_string(&between)?)
        } else {
            show(&between, "in the last")
        };
        match print(&text) {
            // Whoever reads has read enough.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
        before = now;
        rounds = rounds.map(|n| n - 1);
    }
    Ok(())
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

fn rate(n: u64, ms: u64) -> String {
    let per_second = n as f64 * 1000.0 / ms.max(1) as f64;
    match per_second {
        r if r >= 1e6 => format!("{:.2} M/s", r / 1e6),
        r if r >= 1e3 => format!("{:.1} k/s", r / 1e3),
        r => format!("{r:.0}/s"),
    }
}

fn stages(c: &CorePerf) -> Vec<(&str, f64)> {
    let known = STAGES.iter().copied();
    let others = c.stage_cycles_per_packet.keys().map(String::as_str).filter(|s| !STAGES.contains(s));
    let of = |s: &str| c.stage_cycles_per_packet.get(s).copied();
    known.chain(others).filter_map(|s| of(s).map(|v| (s, v))).collect()
}

/// The figures as text. `over`: what they are of, before a duration.
pub fn show(p: &Perf, over: &str) -> String {
    let mut out = format!(
        "{over} {}; cycles of a counter of {} MHz\n",
        duration(p.uptime_ms),
        p.cycles_per_second / 1_000_000
    );
    for c in &p.cores {
        let at = c.processor.map_or(String::new(), |p| format!(" on processor {p}"));
        let used = c.busy_cycles + c.idle_cycles;
        let _ = writeln!(
            out,
            "\ncore {}{at}: {} packets ({}), {:.1} cycles per packet, busy {} of the time it polled, slept {} times",
            c.core,
            c.rx_packets,
            rate(c.rx_packets, p.uptime_ms),
            c.cycles_per_packet,
            share(c.busy_cycles, used),
            c.sleeps
        );
        let _ = writeln!(
            out,
            "  lookups   {}: {} exact-match, {} megaflow, {} classified, {} translated",
            c.passes,
            share(c.exact_hits, c.passes),
            share(c.megaflow_hits, c.passes),
            share(c.shortcuts, c.passes),
            share(c.misses, c.passes)
        );
        let burst = |n: u64, bursts: u64| if bursts == 0 { 0.0 } else { n as f64 / bursts as f64 };
        let _ = writeln!(
            out,
            "  bursts    {:.1} packets received, {:.1} sent; {:.2} masks probed per megaflow hit; {} dropped",
            burst(c.rx_packets, c.busy_polls),
            burst(c.tx_packets, c.tx_bursts),
            burst(c.masks_probed, c.megaflow_hits),
            c.drops
        );
        if c.evicted + c.refused > 0 {
            let _ = writeln!(
                out,
                "  bounds    {} cached flows gave way to others, {} records found no room",
                c.evicted, c.refused
            );
        }
        if c.sampled_packets > 0 {
            let all: f64 = c.stage_cycles_per_packet.values().sum();
            let rows = stages(c).into_iter().map(|(name, v)| {
                vec![format!("  {name}"), format!("{v:.1}"), format!("{:.1} %", v * 100.0 / all.max(1e-9))]
            });
            out.push_str(&render(&["  STAGE", "CYCLES/PACKET", "SHARE"], &[1, 2], rows));
        }
        let rows = c.queues.iter().map(|q| {
            vec![format!("  {}", q.port), q.queue.to_string(), q.packets.to_string(), share(q.cycles, used)]
        });
        out.push_str(&render(&["  PORT", "QUEUE", "PACKETS", "USES"], &[1, 2, 3], rows));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(packets: u64, cycles: u64) -> CorePerf {
        CorePerf {
            rx_packets: packets,
            passes: packets,
            exact_hits: packets,
            busy_cycles: cycles,
            idle_cycles: cycles,
            sampled_packets: packets / 10,
            stage_cycles: [("parse".to_owned(), cycles / 20), ("receive".to_owned(), cycles / 20)].into(),
            ..CorePerf::default()
        }
        .with_rates()
    }

    #[test]
    fn figures_are_of_the_time_between_two_answers() {
        let of = |ms, c| Perf { cycles_per_second: 2_000_000_000, uptime_ms: ms, cores: vec![c] };
        let p = of(3000, core(3000, 240_000)).since(&of(1000, core(1000, 40_000)));
        assert_eq!((p.uptime_ms, p.cores[0].rx_packets), (2000, 2000));
        assert_eq!(p.cores[0].cycles_per_packet, 100.0);
        let text = show(&p, "in the last");
        assert!(text.starts_with("in the last 2.000s; cycles of a counter of 2000 MHz\n"), "{text}");
        assert!(
            text.contains("core 0: 2000 packets (1.0 k/s), 100.0 cycles per packet, busy 50.0 %"),
            "{text}"
        );
        let lines: Vec<_> = text.lines().filter(|l| l.ends_with(" 50.0 %")).collect();
        assert!(lines[0].starts_with("  receive") && lines[1].starts_with("  parse"), "{text}");
    }

    #[test]
    fn a_core_without_packets_divides_by_nothing() {
        let text = show(&Perf { cores: vec![CorePerf::default()], ..Perf::default() }, "since the start,");
        assert!(text.contains("0.0 cycles per packet") && !text.contains("NaN"), "{text}");
    }
}
