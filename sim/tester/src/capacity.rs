//! How many rules a device takes, and how fast.

use serde::Serialize;

use nic::{Bed, Config, Match};

use crate::run::{Rules, TestError};

/// What a table took.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Capacity {
    /// The table.
    pub table: String,
    /// Entries it has.
    pub capacity: u64,
    /// Entries in it when it first refused one.
    pub first_refusal: u64,
    /// Entries in it after as many were offered as it has.
    pub taken: u64,
    /// Rules per second of simulated time until the first refusal, one command at a time.
    pub rules_per_second: f64,
    /// Nanoseconds for the first rule and for the last before the first refusal.
    pub first_and_last_ns: (f64, f64),
}

/// Offers a table as many rules as it has entries.
///
/// # Errors
/// When the device fails.
pub fn capacity(config: &Config, seed: u64, rules: Rules) -> Result<Capacity, TestError> {
    let mut bed = Bed::new(config.clone(), seed)?;
    let (table, capacity) = match rules {
        Rules::Exact => ("exact", 1u64 << config.exact.log2_entries),
        Rules::Ternary => ("ternary", u64::from(config.ternary.entries)),
    };
    let ns = |cycles: u64| cycles as f64 * 1e9 / config.device.clock_hz as f64;
    let start = bed.sim().cycle().0;
    let (mut taken, mut first_refusal, mut end) = (0, None, start);
    let mut first_and_last_ns = (0.0, 0.0);
    for i in 0..capacity {
        let n = (i as u32).wrapping_mul(0x9e37_79b1).to_be_bytes();
        // Ever higher priorities: each moves all entries before it.
        let m = match rules {
            Rules::Exact => Match::Flow { src: n, dst: [198, 18, 0, 1] },
            Rules::Ternary => Match::Prefix { dst: n, bits: 32, priority: i as u32 },
        };
        let before = bed.sim().cycle().0;
        match bed.install(m, &[0], false)? {
            Ok(_) => {
                taken += 1;
                if first_refusal.is_none() {
                    end = bed.sim().cycle().0;
                    first_and_last_ns.1 = ns(end - before);
                    if taken == 1 {
                        first_and_last_ns.0 = first_and_last_ns.1;
                    }
                }
            }
            Err(_) => {
                first_refusal.get_or_insert(taken);
            }
        }
    }
    let first_refusal = first_refusal.unwrap_or(taken);
    let rules_per_second = first_refusal as f64 * 1e9 / ns(end - start).max(f64::MIN_POSITIVE);
    Ok(Capacity { table: table.into(), capacity, first_refusal, taken, rules_per_second, first_and_last_ns })
}
