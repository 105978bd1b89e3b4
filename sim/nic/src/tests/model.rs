//! The model held against itself and against what is known of such systems: line rate, bottlenecks computed independently,
//! Little's law, published occupancy of hash tables.

use std::collections::BTreeMap;

use kernel::Rng;

use crate::bed::{Bed, Match};
use crate::{Config, PROFILES, Place, frames};

fn flow(i: u32) -> ([u8; 4], [u8; 4]) {
    let [_, a, b, c] = i.to_be_bytes();
    ([10, a, b, c], [198, 18, 0, 1])
}

fn frame(i: u32, len: usize) -> Vec<u8> {
    let (src, dst) = flow(i);
    let mut f = frames::udp4(src, dst, 1, 2);
    f.resize(len, 0);
    f
}

/// A device with one flow for each port, to the next port.
fn bed(config: Config) -> Bed {
    let ports = config.device.ports;
    let mut bed = Bed::new(config, 3).unwrap();
    for p in 0..ports {
        let (src, dst) = flow(p.into());
        bed.install(Match::Flow { src, dst }, &[(p + 1) % ports], true).unwrap().unwrap();
    }
    bed
}

/// Sends `n` frames of `len` bytes by each port at line rate; cycles between the first and the last that come out of port 0.
fn at_line_rate(bed: &Bed, n: u64, len: usize) -> (u64, u64) {
    let c = bed.sim().config();
    let (wire, start) = (c.wire_time(len), bed.sim().cycle().0 + 1);
    for i in 0..n {
        for p in 0..c.device.ports {
            assert!(bed.send(p, start + (i as f64 * wire).ceil() as u64, &frame(p.into(), len)));
        }
    }
    assert!(bed.sim().run_until_idle(100_000_000));
    let (mut first, mut last, mut got) = (None, 0, 0);
    for p in 0..c.device.ports {
        bed.receive(p, |cycle, f| {
            got += 1;
            assert_eq!(f.len(), len);
            if p == 0 {
                first.get_or_insert(cycle);
                last = cycle;
            }
        });
    }
    (got, last - first.unwrap_or(0))
}

#[test]
fn every_frame_size_is_forwarded_at_line_rate_where_the_stages_are_fast_enough() {
    let mut c = Config::default();
    c.device.ports = 2;
    c.ternary.interval_cycles = 1;
    let bed = bed(c.clone());
    for len in 60..=1514 {
        let (got, cycles) = at_line_rate(&bed, 12, len);
        // Two ports bring a frame each in the time one takes on the wire; no stage needs more than a cycle.
        assert!(c.wire_cycles(len) >= 2);
        let want = 11.0 * c.wire_time(len);
        assert!(got == 24 && (cycles as f64 - want).abs() <= 1.0, "{len} bytes: {cycles} cycles, {want}");
    }
    assert_eq!(bed.sim().drops(), []);
}

/// Cycles per frame by the slowest of the parts, from the configuration alone. A stage whose buffer is small passes at most
/// its buffer in the time a slot is taken: its latency and one cycle in which the freed slot is not free yet.
fn bottleneck(c: &Config, profiles: u32, outputs: u32, len: usize) -> f64 {
    let stage = |latency: u32, interval: u32, buffer: u32| {
        f64::from(interval).max(f64::from(latency + 1) / f64::from(buffer))
    };
    let ports = f64::from(c.device.ports);
    // Ethernet, IPv4 and UDP, in steps: each after the first is an interval more, in which the frame has its slot, too.
    let more = c.parser.interval_cycles * 42u32.div_ceil(c.parser.step_bytes.into()).saturating_sub(1);
    [
        stage(c.parser.latency_cycles + more, c.parser.interval_cycles + more, c.parser.buffer_frames),
        stage(c.exact.latency_cycles, c.exact.interval_cycles, c.exact.buffer_frames)
            .max(f64::from(c.exact.interval_cycles * profiles)),
        stage(c.ternary.latency_cycles, c.ternary.interval_cycles, c.ternary.buffer_frames),
        f64::from(c.action.interval_cycles * outputs),
        c.wire_time(len) / ports,
    ]
    .into_iter()
    .fold(0.0, f64::max)
}

#[test]
fn throughput_is_the_initiation_interval_of_the_bottleneck_whatever_the_configuration() {
    let mut r = Rng::new(44);
    for round in 0..60 {
        let mut c = Config::default();
        c.port.speed_mbps = [10_000, 25_000, 100_000, 400_000][r.below(4) as usize];
        c.port.ingress_queue_frames = 2048;
        c.port.egress_queue_frames = 2048;
        let mut pick = |most: u64| 1 + r.below(most) as u32;
        (c.parser.latency_cycles, c.parser.interval_cycles, c.parser.buffer_frames) =
            (pick(20), pick(9), pick(20));
        c.parser.step_bytes = [16, 32, 256][pick(3) as usize - 1];
        (c.exact.latency_cycles, c.exact.interval_cycles, c.exact.buffer_frames) =
            (pick(20), pick(9), pick(20));
        (c.ternary.latency_cycles, c.ternary.interval_cycles, c.ternary.buffer_frames) =
            (pick(20), pick(9), pick(20));
        c.action.interval_cycles = pick(9);
        let bed = bed(c.clone());
        let n = 500;
        let (got, cycles) = at_line_rate(&bed, n, 60);
        assert_eq!(got, 4 * n, "round {round}: {:?}", bed.sim().drops());
        let per_frame = cycles as f64 / (n - 1) as f64 / 4.0;
        let want = bottleneck(&c, 1, 1, 60);
        assert!(
            (per_frame - want).abs() <= 0.02 * want,
            "round {round}: {per_frame} instead of {want}, {c:?}"
        );
    }
}

/// L = lambda W (Little 1961), exactly: frames in a pipe summed over the cycles are the cycles summed over the frames.
#[test]
fn occupancy_rate_and_latency_obey_littles_law() {
    for name in ["default", "match-action", "flow-engine", "tcam-poor-asic"] {
        let mut c = Config::profile(name).unwrap();
        (c.ternary.interval_cycles, c.port.ingress_queue_frames) = (7, 4096);
        let sim_ports = c.device.ports;
        let bed = bed(c);
        bed.sim().watch_frames(Some(10_000));
        at_line_rate(&bed, 300, 60);
        let (trails, _) = bed.sim().take_trails();
        assert_eq!(trails.len(), 300 * usize::from(sim_ports));
        let mut stays: BTreeMap<String, u64> = BTreeMap::new();
        for t in &trails {
            assert_eq!(t.end().map(|e| matches!(e, Place::WireOut(_))), Some(true), "{t:?}");
            for (place, _, service, wait) in t.stays() {
                let queue = match place {
                    Place::Receive(p) => format!("port{p} ingress"),
                    Place::Parser => "parser".into(),
                    Place::Exact(_) if name != "match-action" => "exact".into(),
                    Place::Exact(i) => format!("exact{i}"),
                    Place::Lpm => "lpm".into(),
                    Place::Range => "range".into(),
                    Place::Ternary => "ternary".into(),
                    Place::Egress(p) => format!("port{p} egress"),
                    Place::Transmit(p) => format!("port{p} departing"),
                    _ => continue,
                };
                *stays.entry(queue).or_insert(0) += service + wait;
            }
        }
        let s = bed.sim().stats();
        let mut checked = 0;
        for q in s.queues.iter().filter(|q| q.pushed > 0) {
            let integral = (q.mean_occupancy * s.cycles as f64).round() as u64;
            assert_eq!(stays.get(&q.name), Some(&integral), "{name}: {}", q.name);
            checked += 1;
        }
        assert!(checked >= 12, "{name}: {checked}");
    }
}

/// Share of `keys` that a table of `buckets` buckets takes.
fn taken(log2: u8, ways: u8, choices: u8, load: f64) -> f64 {
    let mut c = Config::default();
    (c.exact.log2_entries, c.exact.ways, c.exact.choices) = (log2, ways, choices);
    let mut t = crate::exact_table::ExactTable::new(&c.exact);
    let mask = crate::raw_host::key_of(&[(simnic_defs::entry::key::IP6_SRC, &[0; 16])]).1;
    t.set_profile(0, &mask).unwrap();
    let mut r = Rng::new(9);
    let keys = (load * f64::from(1u32 << log2)) as u64;
    let mut ok = 0;
    for _ in 0..keys {
        let mut b = [0; 16];
        r.fill(&mut b);
        let k = crate::raw_host::key_of(&[(simnic_defs::entry::key::IP6_SRC, &b)]).0;
        ok += u64::from(t.install(0, &k, crate::tables::Entry::empty()).is_ok());
    }
    ok as f64 / keys as f64
}

/// One choice: a bucket's keys are Poisson distributed, and what is beyond its ways is refused (W. W. Peterson, "Addressing for
/// Random-Access Storage", IBM Journal 1957; Knuth, TAOCP 3, 6.4): the share taken is E[min(X, b)] / lambda.
#[test]
fn buckets_of_one_choice_take_as_many_keys_as_the_poisson_law_says() {
    for ways in [2u8, 4, 8] {
        for load in [0.3, 0.5, 0.7, 0.9, 1.0] {
            let lambda = load * f64::from(ways);
            let (mut p, mut sum, mut tail) = ((-lambda).exp(), 0.0, 1.0);
            for k in 0..u32::from(ways) {
                sum += f64::from(k) * p;
                tail -= p;
                p *= lambda / f64::from(k + 1);
            }
            let want = (sum + tail * f64::from(ways)) / lambda;
            let got = taken(15, ways, 1, load);
            assert!((got - want).abs() < 0.006, "{ways} ways, load {load}: {got:.4}, published {want:.4}");
        }
    }
}

/// Two choices: the fluid limit of Mitzenmacher ("The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001;
/// with Broder, "Using Multiple Hash Functions to Improve IP Lookups", INFOCOM 2001): of the buckets with at least i keys,
/// ds_i/dt = s_{i-1}^2 - s_i^2, and a key is refused when both its buckets are full.
#[test]
fn buckets_of_two_choices_take_as_many_keys_as_the_fluid_limit_says() {
    for ways in [2usize, 4, 8] {
        for load in [0.5, 0.7, 0.8, 0.9, 1.0] {
            let mut s = vec![0.0f64; ways + 1];
            s[0] = 1.0;
            let end = load * ways as f64;
            let steps = 20_000;
            for _ in 0..steps {
                let d: Vec<f64> = (1..=ways).map(|i| s[i - 1] * s[i - 1] - s[i] * s[i]).collect();
                (1..=ways).for_each(|i| s[i] += d[i - 1] * end / f64::from(steps));
            }
            let want = s[1..].iter().sum::<f64>() / end;
            let got = taken(15, ways as u8, 2, load);
            assert!((got - want).abs() < 0.006, "{ways} ways, load {load}: {got:.4}, published {want:.4}");
        }
    }
}

#[test]
fn entries_of_lower_priority_make_an_insertion_slower_by_the_moves_it_needs() {
    let mut c = Config::default();
    (c.ternary.insert_cycles, c.ternary.move_cycles) = (100, 50);
    let mut bed = Bed::new(c, 1).unwrap();
    let mut time = |priority: u32| {
        let before = bed.sim().stats().stages.iter().find(|s| s.name == "command").unwrap().busy_cycles;
        let m = Match::Prefix { dst: priority.to_be_bytes(), bits: 32, priority };
        bed.install(m, &[1], false).unwrap().unwrap();
        bed.sim().stats().stages.iter().find(|s| s.name == "command").unwrap().busy_cycles - before
    };
    let first = time(1000);
    assert_eq!((time(900), time(800), time(1100)), (first, first, first + 3 * 50));
    assert_eq!(time(850), first + 50);
}

#[test]
fn a_table_that_is_written_looks_nothing_up_meanwhile() {
    let rate = |write_cycles: u32| {
        let mut c = Config::default();
        c.device.ports = 2;
        (c.port.speed_mbps, c.port.ingress_queue_frames, c.port.egress_queue_frames) = (400_000, 4096, 4096);
        (c.exact.insert_cycles, c.exact.write_cycles, c.ternary.interval_cycles) = (10, write_cycles, 1);
        let mut bed = bed(c);
        let start = bed.sim().cycle().0;
        for _ in 0..2000 {
            assert!(bed.send(0, 0, &frame(0, 60)));
        }
        for i in 0..30 {
            let (src, dst) = flow(1000 + i);
            bed.install(Match::Flow { src, dst }, &[0], false).unwrap().unwrap();
        }
        bed.sim().run_until_idle(1_000_000);
        let mut last = 0;
        bed.receive(1, |c, _| last = c);
        let s = bed.sim().stats();
        let exact = s.stages.iter().find(|s| s.name == "exact").unwrap();
        (last - start, exact.stalled_resource_cycles)
    };
    let ((alone, none), (slowed, stalled)) = (rate(0), rate(40));
    assert_eq!((none, stalled), (0, 1280), "32 entries at 40 cycles, two of them before");
    // An insertion takes longer than the forty cycles, so that only some of them meet frames.
    assert!(slowed > alone + 100, "{alone} cycles, {slowed} while entries are written");
}

#[test]
fn a_flow_engine_is_as_fast_as_its_cache_lets_it_be() {
    let run = |flows: u32, cached: u32| {
        let mut c = Config::default();
        c.device.ports = 2;
        (c.exact.log2_entries, c.exact.ways, c.ternary.interval_cycles) = (14, 4, 1);
        (c.exact.cached_buckets, c.exact.miss_cycles, c.exact.misses) = (cached, 200, 4);
        c.port.ingress_queue_frames = 8192;
        (c.port.speed_mbps, c.port.egress_queue_frames) = (400_000, 8192);
        let mut bed = Bed::new(c, 1).unwrap();
        for i in 0..flows {
            let (src, dst) = flow(i);
            bed.install(Match::Flow { src, dst }, &[1], false).unwrap().unwrap();
        }
        for i in 0..4000 {
            assert!(bed.send(0, 0, &frame(i % flows, 60)));
        }
        bed.sim().run_until_idle(10_000_000);
        let (mut first, mut last, mut n) = (None, 0, 0);
        bed.receive(1, |c, f| {
            // None overtakes another, however long buckets take to come.
            assert_eq!(f[29], (n % flows) as u8);
            n += 1;
            first.get_or_insert(c);
            last = c;
        });
        assert_eq!(n, 4000);
        (last - first.unwrap()) as f64 / 3999.0
    };
    let hit = run(200, 2048);
    assert!(hit < 4.0, "{hit}");
    // Two hundred buckets in turn through a cache of sixty-four: all miss, four at a time in two hundred cycles.
    let miss = run(200, 64);
    assert!((miss - 50.0).abs() < 8.0, "{miss}");
}

#[test]
fn every_profile_forwards_in_order_and_loses_nothing_at_a_tenth_of_line_rate() {
    for p in PROFILES {
        let c = Config::profile(p.name).unwrap();
        let bed = bed(c.clone());
        let start = bed.sim().cycle().0;
        let gap = 10 * c.wire_cycles(60);
        for i in 0..100 {
            for port in 0..c.device.ports {
                assert!(bed.send(port, start + i * gap, &frame(port.into(), 60)));
            }
        }
        assert!(bed.sim().run_until_idle(10_000_000));
        let a = bed.sim().account();
        assert_eq!((a.dropped, a.to_host), (0, 0), "{}", p.name);
        assert!(a.balances());
    }
}
