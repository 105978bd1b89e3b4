//! The differential property with connections, within the bound of a normal test run.
#![allow(clippy::unwrap_used)]

use differential::tracked::{Options, Report, run};

fn checked(o: &Options) -> Report {
    let r = run(o).unwrap_or_else(|e| panic!("{e:#}\nseed {}", o.seed));
    assert_eq!(r.seen.unexplained, 0, "{r:?}");
    println!("FIGURE differential connections {o:?}: {r:?}");
    r
}

#[test]
fn reference_software_and_hardware_agree_on_connections() {
    let mut all = Report::default();
    for seed in 1..9 {
        // With windows checked, TCP stays in software.
        let r = checked(&Options { seed, packets: 4000, windows: seed % 2 == 1, ..Options::default() });
        all.in_bursts += r.in_bursts;
        all.compared += r.compared;
        all.by_hardware += r.by_hardware;
        all.handed_over += r.handed_over;
        all.by_connection += r.by_connection;
        all.seen.made += r.seen.made;
        all.seen.established += r.seen.established;
        all.seen.related += r.seen.related;
        all.seen.translated += r.seen.translated;
        all.seen.fragments += r.seen.fragments;
        all.seen.invalid += r.seen.invalid;
    }
    // A comparison in which little happened proves little.
    let s = all.seen;
    let least =
        [s.made, s.established, s.related, s.translated, s.fragments, s.invalid, all.in_bursts, all.compared];
    assert!(least.iter().all(|n| *n > 200), "{all:?}");
    assert!(all.by_hardware > 1000 && all.handed_over > 200 && all.by_connection > 200, "{all:?}");
}

#[test]
fn reference_software_and_hardware_agree_when_a_zone_is_full() {
    let r = checked(&Options { seed: 20, packets: 6000, limited: true, ..Options::default() });
    assert!(r.seen.refused > 20, "{r:?}");
}
