//! `dpif-netdev/pmd-*`: what the forwarding threads do, in the texts of Open vSwitch 3.1.
//!
//! A forwarding thread is a "pmd thread" as soon as a port is there that polls; for dummies that do not, the same packets are told of as
//! those of the "main thread", which is who forwards them in Open vSwitch. Packets on shortcuts count as megaflow hits: the caches knew no
//! record of theirs, and no upcall was needed.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Instant;

use daemon::unixctl::Commands;
use datapath::{CoreStats, QueueStats};
use parking_lot::Mutex;

use super::dpif::DATAPATH;
use crate::config::PortKind;
use crate::dummy::DummyClass;
use crate::reconfigure::Reconfigure;
use crate::report::Parts;
use crate::spare::Spare;
use crate::usage;

pub(super) const NO_DATAPATH: &str = "please specify an existing datapath";
/// Period that `pmd-rxq-show` says it tells of, in seconds, unless asked for another.
const RXQ_SECONDS: u32 = 60;
/// Steps of that.
const RXQ_STEP: u32 = usage::STEP.as_secs() as u32;

/// Counters when they were last cleared, and when that was.
struct Cleared {
    cores: Vec<CoreStats>,
    at: Instant,
}

/// What a command was given.
#[derive(Default, PartialEq, Debug)]
struct Asked {
    core: Option<usize>,
    seconds: Option<u32>,
}

impl Asked {
    /// `[-pmd core] [-secs secs] [-nh] [-it n] [-ms n] [dp]`.
    fn parse(args: &[String]) -> Result<Asked, String> {
        let mut asked = Asked::default();
        let mut words = args.iter().map(String::as_str);
        while let Some(w) = words.next() {
            let mut number = || words.next().and_then(|n| n.parse::<u32>().ok());
            match w {
                "-pmd" => asked.core = number().map(|n| n as usize),
                "-secs" => asked.seconds = number(),
                "-it" | "-ms" => drop(number()),
                "-nh" => {}
                // One datapath for all bridges, whatever it is called.
                dp if is_ours(dp) => {}
                _ => return Err(NO_DATAPATH.to_owned()),
            }
        }
        Ok(asked)
    }
}

fn is_ours(name: &str) -> bool {
    name == DATAPATH
        || ["ovs-netdev", "ovs-dummy", "netdev@ovs-netdev"].contains(&name)
        || name.starts_with("dummy@")
}

/// One thread, as it is told of.
struct Thread {
    /// Its processor; `None` is the main thread.
    processor: Option<usize>,
    /// The memory node of that.
    node: usize,
    now: CoreStats,
}

pub(super) fn register(commands: &Commands, parts: &Arc<Parts>, reconfigure: &Reconfigure) {
    let cleared = Arc::new(Mutex::new(Cleared { cores: Vec::new(), at: Instant::now() }));
    let (p, c) = (Arc::clone(parts), Arc::clone(&cleared));
    commands.register("dpif-netdev/pmd-stats-show", "[-pmd core] [dp]", 0..=3, move |a| {
        let asked = Asked::parse(a)?;
        Ok(threads(&p, &asked, &c.lock()).iter().map(stats_text).collect())
    });
    let (p, c) = (Arc::clone(parts), Arc::clone(&cleared));
    let words = "[-nh] [-it iter-history-len] [-ms ms-history-len] [-pmd core] [dp]";
    commands.register("dpif-netdev/pmd-perf-show", words, 0..=8, move |a| {
        let asked = Asked::parse(a)?;
        let since = c.lock();
        let seconds = since.at.elapsed().as_secs_f64();
        let mut out = format!("\nTime: {}\n", time_of_day());
        let _ = writeln!(out, "Measurement duration: {seconds:.3} s\n");
        for t in threads(&p, &asked, &since).iter().filter(|t| t.processor.is_some()) {
            out.push_str(&perf_text(t, seconds));
        }
        Ok(out)
    });
    let p = Arc::clone(parts);
    commands.register("dpif-netdev/pmd-stats-clear", "[dp]", 0..=1, move |a| {
        Asked::parse(a)?;
        *cleared.lock() = Cleared { cores: p.soft.core_stats(), at: Instant::now() };
        Ok(String::new())
    });
    let p = Arc::clone(parts);
    commands.register("dpif-netdev/pmd-rxq-show", "[-pmd core] [-secs secs] [dp]", 0..=5, move |a| {
        if let Some(s) = a.last().and_then(|n| p.spares.named(n)) {
            return Ok(spare_queues_text(&s));
        }
        Ok(queues_text(&p, &Asked::parse(a)?))
    });
    let (p, r) = (Arc::clone(parts), reconfigure.clone());
    commands.register("dpif-netdev/pmd-rxq-rebalance", "[dp]", 0..=1, move |a| {
        Asked::parse(a)?;
        p.cores.want_rebalance();
        r.look_again();
        Ok("pmd rxq rebalance requested.\n".to_owned())
    });
}

/// Hours, minutes, seconds and milliseconds of the day, in UTC.
fn time_of_day() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let s = now.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}.{:03}", s / 3600, s / 60 % 60, s % 60, now.subsec_millis())
}

/// Whether a port's packets are a polling thread's, as Open vSwitch sees it.
fn polls(p: &Parts, queue: &QueueStats) -> bool {
    p.port_table()
        .by_datapath(queue.port)
        .is_none_or(|port| !matches!(&port.kind, PortKind::Dummy { class, .. } if *class != DummyClass::Pmd))
}

/// The threads, and what they did since the counters were cleared.
fn threads(p: &Parts, asked: &Asked, cleared: &Cleared) -> Vec<Thread> {
    let mut all = p.soft.core_stats();
    let pmd = !p.dummy || all.iter().flat_map(|c| &c.queues).any(|q| polls(p, q));
    for s in &mut all {
        if let Some(before) = cleared.cores.get(s.core) {
            subtract(s, before);
        }
    }
    let mut threads = Vec::new();
    let main = if pmd { CoreStats::default() } else { sum(&all) };
    if pmd {
        let of = |now: CoreStats| Thread {
            processor: Some(p.cores.processor(now.core)),
            node: p.cores.node(now.core),
            now,
        };
        all.retain(|c| c.core < p.cores.placed().len());
        threads.extend(all.into_iter().map(of));
        threads.sort_by_key(|t| t.processor);
    }
    threads.push(Thread { processor: None, node: 0, now: main });
    threads.retain(|t| asked.core.is_none() || asked.core == t.processor);
    threads
}

/// The counters of all as one's.
fn sum(all: &[CoreStats]) -> CoreStats {
    let mut total = CoreStats::default();
    for s in all {
        let (t, p) = (&mut total.packets, &s.packets);
        t.rx_packets += p.rx_packets;
        t.exact_hits += p.exact_hits;
        t.megaflow_hits += p.megaflow_hits;
        t.shortcuts += p.shortcuts;
        t.misses += p.misses;
        t.tx_packets += p.tx_packets;
        t.recirculations += p.recirculations;
        total.passes += s.passes;
        total.probes += s.probes;
        total.tx_bursts += s.tx_bursts;
    }
    total
}

/// Takes away what there was before.
fn subtract(s: &mut CoreStats, before: &CoreStats) {
    let (now, was) = (&mut s.packets, &before.packets);
    for (a, b) in [
        (&mut now.rx_packets, was.rx_packets),
        (&mut now.exact_hits, was.exact_hits),
        (&mut now.megaflow_hits, was.megaflow_hits),
        (&mut now.shortcuts, was.shortcuts),
        (&mut now.misses, was.misses),
        (&mut now.tx_packets, was.tx_packets),
        (&mut now.recirculations, was.recirculations),
        (&mut s.busy_cycles, before.busy_cycles),
        (&mut s.idle_cycles, before.idle_cycles),
        (&mut s.busy_polls, before.busy_polls),
        (&mut s.idle_polls, before.idle_polls),
        (&mut s.sleeps, before.sleeps),
        (&mut s.passes, before.passes),
        (&mut s.probes, before.probes),
        (&mut s.tx_bursts, before.tx_bursts),
    ] {
        *a = a.saturating_sub(b);
    }
}

fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

fn percent(a: u64, b: u64) -> f64 {
    ratio(a, b) * 100.0
}

fn heading(t: &Thread) -> String {
    let node = t.node;
    t.processor.map_or("main thread:\n".to_owned(), |p| format!("pmd thread numa_id {node} core_id {p}:\n"))
}

fn stats_text(t: &Thread) -> String {
    let (s, p) = (&t.now, &t.now.packets);
    let megaflow = p.megaflow_hits + p.shortcuts;
    let mut out = heading(t);
    let lines = [
        ("packets received", p.rx_packets.to_string()),
        ("packet recirculations", p.recirculations.to_string()),
        ("avg. datapath passes per packet", format!("{:.2}", ratio(s.passes, p.rx_packets))),
        ("phwol hits", "0".into()),
        ("mfex opt hits", "0".into()),
        ("simple match hits", "0".into()),
        ("emc hits", p.exact_hits.to_string()),
        ("smc hits", "0".into()),
        ("megaflow hits", megaflow.to_string()),
        ("avg. subtable lookups per megaflow hit", format!("{:.2}", ratio(s.probes, megaflow))),
        ("miss with success upcall", p.misses.to_string()),
        ("miss with failed upcall", "0".into()),
        ("avg. packets per output batch", format!("{:.2}", ratio(p.tx_packets, s.tx_bursts))),
    ];
    for (name, value) in lines {
        let _ = writeln!(out, "  {name}: {value}");
    }
    let all = s.busy_cycles + s.idle_cycles;
    if all == 0 || t.processor.is_none() {
        return out;
    }
    let _ = writeln!(out, "  idle cycles: {} ({:.2}%)", s.idle_cycles, percent(s.idle_cycles, all));
    let _ = writeln!(out, "  processing cycles: {} ({:.2}%)", s.busy_cycles, percent(s.busy_cycles, all));
    if p.rx_packets > 0 {
        let n = p.rx_packets;
        let _ = writeln!(out, "  avg cycles per packet: {:.2} ({all}/{n})", ratio(all, n));
        let _ = writeln!(
            out,
            "  avg processing cycles per packet: {:.2} ({}/{n})",
            ratio(s.busy_cycles, n),
            s.busy_cycles
        );
    }
    out
}

fn perf_text(t: &Thread, seconds: f64) -> String {
    let (s, p) = (&t.now, &t.now.packets);
    let polls = s.busy_polls + s.idle_polls;
    let used = s.busy_cycles + s.idle_cycles;
    let total = datapath::cycles_per_second() * seconds;
    let mut out = format!("{}\n", heading(t));
    let per_poll = if polls == 0 { 0.0 } else { seconds * 1e6 / polls as f64 };
    let _ = writeln!(out, "  Iterations:         {polls:>12}  ({per_poll:.2} us/it)");
    let _ = writeln!(
        out,
        "  - Used TSC cycles:  {used:>12}  ({:>5.1} % of total cycles)",
        used as f64 * 100.0 / total.max(1.0)
    );
    for (name, n, cycles) in [("idle", s.idle_polls, s.idle_cycles), ("busy", s.busy_polls, s.busy_cycles)] {
        let _ = writeln!(
            out,
            "  - {name} iterations:  {n:>12}  ({:>5.1} % of used cycles)",
            percent(cycles, used)
        );
    }
    let _ = writeln!(
        out,
        "  - sleep iterations: {:>12}  ({:>5.1} % of iterations)",
        s.sleeps,
        percent(s.sleeps, polls)
    );
    if p.rx_packets == 0 {
        let _ = writeln!(out, "  Rx packets:         {:>12}", 0);
    } else {
        let n = p.rx_packets;
        let _ = writeln!(
            out,
            "  Rx packets:         {n:>12}  ({:.0} Kpps, {:.0} cycles/pkt)",
            n as f64 / seconds / 1000.0,
            ratio(s.busy_cycles, n)
        );
        let passes = s.passes;
        let megaflow = p.megaflow_hits + p.shortcuts;
        let _ = writeln!(out, "  Datapath passes:    {passes:>12}  ({:.2} passes/pkt)", ratio(passes, n));
        for (name, hits) in [
            ("- PHWOL hits:", 0),
            ("- MFEX Opt hits:", 0),
            ("- Simple Match hits:", 0),
            ("- EMC hits:", p.exact_hits),
            ("- SMC hits:", 0),
        ] {
            let _ = writeln!(out, "  {name:<19} {hits:>12}  ({:>5.1} %)", percent(hits, passes));
        }
        let _ = writeln!(
            out,
            "  - Megaflow hits:    {megaflow:>12}  ({:>5.1} %, {:.2} subtbl lookups/hit)",
            percent(megaflow, passes),
            ratio(s.probes, megaflow)
        );
        // Translations are not timed one by one here; `hoist perf` has their share.
        let _ = writeln!(
            out,
            "  - Upcalls:          {:>12}  ({:>5.1} %, 0.0 us/upcall)",
            p.misses,
            percent(p.misses, passes)
        );
        let _ = writeln!(out, "  - Lost upcalls:     {:>12}  ({:>5.1} %)", 0, 0.0);
    }
    if p.tx_packets == 0 {
        let _ = writeln!(out, "  Tx packets:         {:>12}\n", 0);
    } else {
        let n = p.tx_packets;
        let _ = writeln!(out, "  Tx packets:         {n:>12}  ({:.0} Kpps)", n as f64 / seconds / 1000.0);
        let _ = writeln!(
            out,
            "  Tx batches:         {:>12}  ({:.2} pkts/batch)\n",
            s.tx_bursts,
            ratio(n, s.tx_bursts)
        );
    }
    out
}

fn queues_text(p: &Parts, asked: &Asked) -> String {
    // In steps in which it is known, of a minute at most.
    let seconds = asked.seconds.filter(|s| (1..=RXQ_SECONDS).contains(s)).unwrap_or(RXQ_SECONDS);
    let seconds = seconds.next_multiple_of(RXQ_STEP);
    let mut out = format!("Displaying last {seconds} seconds pmd usage %\n");
    let mut cores = p.soft.core_stats();
    cores.retain(|c| c.core < p.cores.placed().len());
    cores.sort_by_key(|c| p.cores.processor(c.core));
    cores.iter_mut().for_each(|c| c.queues.retain(|q| polls(p, q)));
    let none = p.dummy && cores.iter().all(|c| c.queues.is_empty());
    for mut c in cores {
        let processor = p.cores.processor(c.core);
        if none || asked.core.is_some_and(|a| a != processor) {
            continue;
        }
        c.queues.sort_by(|a, b| (&a.name, a.queue).cmp(&(&b.name, b.queue)));
        let isolated = p.cores.is_isolated(c.core);
        let _ = writeln!(
            out,
            "pmd thread numa_id {} core_id {processor}:\n  isolated : {isolated}",
            p.cores.node(c.core)
        );
        if p.dummy && c.queues.is_empty() {
            continue;
        }
        let used = p.cores.history.last(c.core, (seconds / RXQ_STEP) as usize);
        // A thread that has hardly run yet has nothing to tell.
        let share = |cycles: &dyn Fn(&usage::Used) -> u64| match used.as_ref().filter(|u| u.all > 0) {
            None => "NOT AVAIL".to_owned(),
            Some(u) => format!("{:>2} %", cycles(u) * 100 / u.all),
        };
        for q in &c.queues {
            let used = share(&|u| u.queue(q.port, q.queue));
            let _ = writeln!(
                out,
                "  port: {:<16}  queue-id: {:>2} (enabled)   pmd usage: {used}",
                q.name, q.queue
            );
        }
        let theirs = |u: &usage::Used| c.queues.iter().map(|q| u.queue(q.port, q.queue)).sum();
        let _ = writeln!(out, "  overhead: {}", share(&|u| u.busy.saturating_sub(theirs(u))));
    }
    out
}

/// The queues of a datapath of no bridge: one thread serves them all.
fn spare_queues_text(s: &Spare) -> String {
    let polls = |k: &str| !s.is_dummy() || k == DummyClass::Pmd.name();
    let ports: Vec<_> = s.ports().into_iter().filter(|p| polls(&p.kind)).collect();
    if ports.is_empty() {
        return String::new();
    }
    let mut out = "pmd thread numa_id 0 core_id 0:\n  isolated : false\n".to_owned();
    for p in &ports {
        for q in 0..p.queues {
            let name = &p.name;
            let _ = writeln!(out, "  port: {name:<16}  queue-id: {q:>2} (enabled)   pmd usage: NOT AVAIL");
        }
    }
    out + "  overhead: NOT AVAIL\n"
}

/// Processors of the polling threads, as Open vSwitch sees it.
pub(super) fn polling_processors(p: &Parts) -> Vec<usize> {
    let none = Cleared { cores: Vec::new(), at: Instant::now() };
    threads(p, &Asked::default(), &none).iter().filter_map(|t| t.processor).collect()
}

/// Whether a datapath of that name is there, without its type.
pub(super) fn is_there(p: &Parts, name: &str) -> bool {
    is_ours(name) || p.spares.named(name).is_some()
}

#[cfg(test)]
mod tests {
    use datapath_api::DatapathStats;

    use super::*;

    fn thread(processor: Option<usize>) -> Thread {
        let packets = DatapathStats {
            rx_packets: 939_936,
            exact_hits: 62_268,
            megaflow_hits: 877_637,
            tx_packets: 720_000,
            ..DatapathStats::default()
        };
        let now = CoreStats {
            packets,
            busy_cycles: 11_373_582_714,
            busy_polls: 29_373,
            passes: 939_936,
            probes: 79_970_283,
            tx_bursts: 29_373,
            ..CoreStats::default()
        };
        Thread { processor, node: 0, now }
    }

    #[test]
    fn statistics_read_as_those_of_a_stock_switch() {
        // `ovs-appctl dpif-netdev/pmd-stats-show` of Open vSwitch 3.1.0 with these counters.
        let text = stats_text(&thread(Some(1)));
        let want = "pmd thread numa_id 0 core_id 1:\n  packets received: 939936\n  packet recirculations: 0\n\
                    \x20 avg. datapath passes per packet: 1.00\n  phwol hits: 0\n  mfex opt hits: 0\n\
                    \x20 simple match hits: 0\n  emc hits: 62268\n  smc hits: 0\n  megaflow hits: 877637\n\
                    \x20 avg. subtable lookups per megaflow hit: 91.12\n  miss with success upcall: 0\n\
                    \x20 miss with failed upcall: 0\n  avg. packets per output batch: 24.51\n\
                    \x20 idle cycles: 0 (0.00%)\n  processing cycles: 11373582714 (100.00%)\n\
                    \x20 avg cycles per packet: 12100.38 (11373582714/939936)\n\
                    \x20 avg processing cycles per packet: 12100.38 (11373582714/939936)\n";
        assert_eq!(text, want);
        assert!(!stats_text(&thread(None)).contains("cycles"));
        let perf = perf_text(&thread(Some(1)), 4.345);
        assert!(
            perf.contains("  Rx packets:               939936  (216 Kpps, 12100 cycles/pkt)\n"),
            "{perf}"
        );
        assert!(perf.contains("  - EMC hits:                62268  (  6.6 %)\n"), "{perf}");
        assert!(
            perf.contains("  - Megaflow hits:          877637  ( 93.4 %, 91.12 subtbl lookups/hit)\n"),
            "{perf}"
        );
    }

    #[test]
    fn only_what_there_is_can_be_asked_for() {
        let parse = |s: &str| Asked::parse(&s.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("-pmd 1 -secs 5"), Ok(Asked { core: Some(1), seconds: Some(5) }));
        assert_eq!(parse("-nh -it 5 ovs-netdev"), Ok(Asked::default()));
        assert_eq!(parse("nobody"), Err(NO_DATAPATH.to_owned()));
    }
}
