//! No frame is overtaken by a later one of its flow: every profile, at full load and beyond what a port carries away.

#![allow(clippy::unwrap_used)]

use nic::{Config, PROFILES};
use tester::run::{Rules, full_mesh, ring_of_ports};
use tester::{Lane, Load, Tester};

/// Frames of a run, over all ports.
const FRAMES: u64 = 3000;

/// What a run shows beside that order held.
#[derive(Default)]
struct Sums {
    received: u64,
    lost: u64,
}

fn in_order(
    what: &str,
    (config, lanes): (&Config, &[Lane]),
    (most, rules): (u32, Rules),
    load: &Load,
    len: usize,
) -> Sums {
    // As many flows as the table takes, one bucket of which may be full early.
    let flows = (0..8).map(|n| (most >> n).max(1));
    let device = |flows| Tester::new(config.clone(), 7, lanes, flows, rules).ok();
    let mut t = flows.filter_map(device).next().unwrap_or_else(|| panic!("{what}: it takes no flows"));
    let mut from: Vec<u8> = lanes.iter().map(|l| l.from).collect();
    from.sort_unstable();
    from.dedup();
    let each = FRAMES / from.len() as u64;
    let o = t.run(load, each, len).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!((o.reordered, o.duplicates, o.misdirected, o.foreign), (0, 0, 0, 0), "{what}: {o:?}");
    assert_eq!(o.sent, each * from.len() as u64, "{what}");
    let dropped: u64 = t.sim().drops().iter().map(|(_, _, n)| n).sum();
    assert_eq!(o.lost(), dropped, "{what}: what does not come out was counted as dropped");
    assert!(o.received > 0, "{what}");
    Sums { received: o.received, lost: o.lost() }
}

#[test]
fn no_frame_of_a_flow_is_overtaken_at_full_load_by_any_profile() {
    let loads = [
        (Load::Fixed { rate: 1.0 }, 60),
        (Load::Bursts { frames: 32, rate: 0.9 }, 61),
        (Load::Random { rate: 0.99, seed: 3 }, 252),
        (Load::NewFlows { frames: 3, rate: 1.0 }, 1514),
    ];
    for p in PROFILES {
        let c = Config::profile(p.name).unwrap();
        let ports = c.device.ports;
        // Every port to the next, every port to every other, all ports to one, which has to drop.
        let to_one: Vec<Lane> = (1..ports).map(|from| Lane { from, to: 0 }).collect();
        let mut all = Sums::default();
        for (topology, lanes) in
            [("ring", ring_of_ports(ports)), ("mesh", full_mesh(ports)), ("to one", to_one)]
        {
            for rules in [Rules::Exact, Rules::Ternary] {
                if rules == Rules::Ternary && lanes.len() > usize::from(c.ternary.entries) {
                    continue;
                }
                for (load, len) in &loads {
                    let what = format!("{}: {topology}, {rules:?}, {load:?}, {len} bytes", p.name);
                    let s = in_order(&what, (&c, &lanes), (8, rules), load, *len);
                    all.received += s.received;
                    all.lost += s.lost;
                }
            }
        }
        assert!(all.lost > 0 && all.received > 10 * FRAMES, "{}: {} lost", p.name, all.lost);
    }
}

/// A cache of buckets that is missed all the time, a stage that is kept from looking up by insertions, queues by priority and a
/// shared buffer: where a device could lose the order.
#[test]
fn misses_weights_and_a_shared_buffer_keep_the_order_of_flows() {
    let mut c = Config::profile("flow-engine").unwrap();
    (c.exact.cached_buckets, c.exact.miss_cycles, c.exact.misses) = (8, 300, 4);
    (c.exact.log2_entries, c.port.egress_queues, c.port.strict_queues) = (14, 4, 1);
    (c.port.shared_frames, c.port.threshold_16ths) = (200, 8);
    let lanes = full_mesh(c.device.ports);
    for (load, len) in [(Load::Fixed { rate: 1.0 }, 60), (Load::NewFlows { frames: 5, rate: 1.0 }, 300)] {
        let what = format!("{load:?}, {len} bytes");
        let s = in_order(&what, (&c, &lanes), (100, Rules::Exact), &load, len);
        assert!(s.lost > 0 || len > 60, "{what}: the cache does not hold it up");
    }
}
