//! The differential property with tunnels, within the bound of a normal test run.
#![allow(clippy::unwrap_used)]

use differential::tunnelled::{Options, Report, run};

#[test]
fn reference_software_and_hardware_agree_on_tunnels() {
    let mut all = Report::default();
    for seed in 1..13 {
        let o = Options { seed, packets: 3000, ..Options::default() };
        let r = run(&o).unwrap_or_else(|e| panic!("{e:#}\nseed {seed}"));
        println!("FIGURE differential tunnels {o:?}: {r:?}");
        all.into_tunnels += r.into_tunnels;
        all.out_of_tunnels += r.out_of_tunnels;
        all.by_hardware += r.by_hardware;
    }
    // A comparison in which little happened proves little.
    assert!(all.into_tunnels > 2000 && all.out_of_tunnels > 1000 && all.by_hardware > 5000, "{all:?}");
}
