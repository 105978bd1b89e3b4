//! The differential property, within the bound of a normal test run.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use differential::run::{Options, Report, run};

fn packets(share: u64) -> u64 {
    let all =
        std::env::var("HOIST_DIFFERENTIAL_PACKETS").ok().and_then(|v| v.parse().ok()).unwrap_or(120_000u64);
    all / share
}

fn checked(o: Options) -> Report {
    let r = run(&o).unwrap_or_else(|e| panic!("{e:#}\nseed {}", o.seed));
    println!("FIGURE differential {o:?}: {r:?}");
    // A comparison in which little happened proves little.
    assert!(r.outputs > r.packets / 8, "{r:?}");
    assert!(r.by_hardware > r.packets / 20, "{r:?}");
    assert!(r.most_placed > 0 && r.malformed > 0 && r.punts > 0 && r.in_transit > 0, "{r:?}");
    r
}

#[test]
fn reference_software_and_hardware_agree_on_small_tables() {
    checked(Options {
        seed: 1,
        packets: packets(3),
        flows: 12,
        per_round: 200,
        switched: false,
        profile: "default",
    });
}

#[test]
fn reference_software_and_hardware_agree_on_busy_tables() {
    checked(Options {
        seed: 2,
        packets: packets(3),
        flows: 60,
        per_round: 400,
        switched: false,
        profile: "default",
    });
}

#[test]
fn reference_software_and_hardware_agree_on_long_rounds() {
    checked(Options {
        seed: 3,
        packets: packets(3),
        flows: 40,
        per_round: 2000,
        switched: false,
        profile: "default",
    });
}

/// Of headers that end after more than 64 bytes, IPv6 with TCP for one, software forwards the frames.
#[test]
fn a_parser_that_sees_less_leaves_more_to_software_and_nothing_is_different() {
    let with = |name: &str, text: &str| {
        let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&file, text).unwrap();
        let profile: &'static str = file.to_str().unwrap().to_string().leak();
        let o =
            Options { seed: 5, packets: packets(10), flows: 40, per_round: 400, switched: false, profile };
        let r = run(&o).unwrap_or_else(|e| panic!("{e:#}\nseed {}", o.seed));
        r.by_hardware as f64 / r.packets as f64
    };
    let deep = with("deep.toml", "[parser]\ndepth_bytes = 512\n");
    let shallow = with("shallow.toml", "[parser]\ndepth_bytes = 64\nstep_bytes = 16\n");
    assert!(shallow > 0.05 && shallow < deep, "{shallow} of {deep}");
}

#[test]
fn reference_software_and_hardware_agree_on_vlans_mirrors_and_patches() {
    for seed in 10..18 {
        let o = Options {
            seed,
            packets: packets(24),
            flows: 30,
            per_round: 300,
            switched: true,
            profile: "default",
        };
        let r = run(&o).unwrap_or_else(|e| panic!("{e:#}\nseed {seed}"));
        println!("FIGURE differential {o:?}: {r:?}");
        assert!(r.outputs > r.packets / 8 && r.malformed > 0 && r.in_transit > 0, "{r:?}");
    }
}

/// What was not the same once: a mirrored copy's VLAN that was the packet's second tag, a label that another bridge
/// had pushed already, and a tag that was seen there alone.
#[test]
fn seeds_that_found_something_agree() {
    for seed in [801, 4034, 4084] {
        let o =
            Options { seed, packets: 12_000, flows: 60, per_round: 400, switched: true, profile: "default" };
        run(&o).unwrap_or_else(|e| panic!("{e:#}\nseed {seed}"));
    }
}

/// The profiles differ in what they take, and in how soon; not in what comes out.
#[test]
fn reference_software_and_hardware_agree_on_every_profile() {
    for p in nic::PROFILES.iter().filter(|p| p.name != "default") {
        let o = Options {
            seed: 20,
            packets: packets(12),
            flows: 30,
            per_round: 400,
            switched: false,
            profile: p.name,
        };
        let r = run(&o).unwrap_or_else(|e| panic!("{e:#}\nprofile {}", p.name));
        println!("FIGURE differential {o:?}: {r:?}");
        assert!(r.outputs > r.packets / 8 && r.most_placed > 0 && r.by_hardware > 0, "{}: {r:?}", p.name);
    }
}
