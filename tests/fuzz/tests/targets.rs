//! Each target over its seeds and random changes of them, for a second or so, or HOIST_FUZZ_S seconds.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use fuzz::mutate::mutate;
use fuzz::{Target, target};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

/// How long each target is fed.
fn time() -> Duration {
    let told = std::env::var("HOIST_FUZZ_S").ok().and_then(|s| s.parse().ok());
    told.map_or(Duration::from_millis(1500), Duration::from_secs)
}

fn run(name: &str) {
    let Target { run, seeds, .. } = target(name).unwrap();
    let mut pool = seeds();
    assert!(!pool.is_empty(), "nothing to begin with");
    pool.iter().for_each(|s| run(s));
    let seed = 0x5eed;
    let mut r = SmallRng::seed_from_u64(seed);
    let (begin, time, mut tried) = (Instant::now(), time(), 0u64);
    while begin.elapsed() < time {
        for _ in 0..64 {
            let mut input = pool[r.random_range(0..pool.len())].clone();
            let other = pool[r.random_range(0..pool.len())].clone();
            mutate(&mut r, &mut input, &other);
            let shown = input.clone();
            if std::panic::catch_unwind(|| run(&input)).is_err() {
                panic!("{name}, seed {seed:#x}, input {tried}: {}", show(&shown));
            }
            tried += 1;
            // Changes add up.
            if r.random_ratio(1, 50) {
                let at = r.random_range(0..pool.len().min(256));
                if pool.len() < 256 { pool.push(input) } else { pool[at] = input }
            }
        }
    }
    println!("{name}: {tried} inputs");
}

/// As a Rust literal.
fn show(bytes: &[u8]) -> String {
    format!("b\"{}\"", bytes.escape_ascii())
}

macro_rules! each {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                run($name);
            }
        )*

        #[test]
        fn no_target_is_left_out() {
            assert_eq!(fuzz::names(), [$($name),*]);
        }
    };
}

each! {
    frames: "frame",
    actions: "actions",
    connections: "connections",
    tunnel_headers: "tunnels",
    openflow_messages: "openflow",
    flows_as_text: "flow-text",
    transactions: "transaction",
    database_files: "database-file",
    json_streams: "json",
    netlink_messages: "netlink",
}
