//! Benchmark inputs: frames, rules and what should come out, the same bytes for the same seed.
//!
//! [`generate`] writes a directory named for the workload with
//! * `in.pcap`: frames received on port `n0`, to be replayed in this order for ever; 60 bytes (64 on the wire) unless
//!   they are tunnelled, right checksums;
//! * `rules.flows`: `ovs-ofctl add-flows` syntax for bridge `br0`, ports by name (`n0` in, `n1` out, `tun0`);
//! * `meta`: `key=value` lines: `name`, `topo`, `flows`, `expect_fwd` (percent of the frames that must leave on `n1`,
//!   computed here by brute force), `packets`, `rules`, and for tunnels the addresses;
//!
//! and where needed `prime.pcap` (played once, on another port, before the measurement), `fdb.txt` (`PORT MAC` lines of
//! static MAC entries) and `phy.flows` (rules of the underlay bridge `brphy`).
//!
//! The seed does not depend on the name, so `acl1k_10k` and `acl1k_100k` share their rules.

mod acl;
mod basic;
mod connections;
mod output;
mod random;
mod tunnel;
mod tuple_space;

use std::path::Path;

pub use output::WorkloadError;
pub use random::Random;

/// The seed that published figures use.
pub const DEFAULT_SEED: u64 = 42;

/// Writes one workload's files into its directory.
type Writer = fn(&Path, &'static str, &mut Random) -> Result<(), WorkloadError>;

/// Every workload and what it stresses.
const WORKLOADS: &[(&str, &str, Writer)] = &[
    ("p2p1", "one rule on in_port, 1 flow", |d, n, _| basic::p2p(d, n, None, 1)),
    ("p2p10k", "one rule on in_port, 10k flows", |d, n, r| basic::p2p(d, n, Some(r), 10_000)),
    ("p2p100k", "one rule on in_port, 100k flows", |d, n, r| basic::p2p(d, n, Some(r), 100_000)),
    ("p2p1m", "one rule on in_port, 1M flows", |d, n, r| basic::p2p(d, n, Some(r), 1_000_000)),
    ("l2normal", "NORMAL, 10k address pairs", basic::l2normal),
    ("acl100", "100 5-tuple rules, 10k flows", |d, n, r| acl::acl(d, n, r, 100, 10_000)),
    ("acl1k_10k", "1k 5-tuple rules, 10k flows", |d, n, r| acl::acl(d, n, r, 1000, 10_000)),
    ("acl1k_100k", "1k 5-tuple rules, 100k flows", |d, n, r| acl::acl(d, n, r, 1000, 100_000)),
    ("acl1k_1m", "1k 5-tuple rules, 1M flows", |d, n, r| acl::acl(d, n, r, 1000, 1_000_000)),
    ("acl10k_100k", "10k 5-tuple rules, 100k flows", |d, n, r| acl::acl(d, n, r, 10_000, 100_000)),
    ("ct", "10k established connections, both directions", connections::ct),
    ("setfield", "64 prefixes: MAC rewrite and TTL", basic::setfield),
    ("vxlan_encap", "16 tunnel keys, 10k inner flows, out", tunnel::vxlan_encap),
    ("vxlan_decap", "16 tunnel keys, 10k inner flows, in", tunnel::vxlan_decap),
    ("newflows", "every packet a new flow out of 1M", basic::newflows),
    ("tse_base", "tuple-space explosion: the victim alone", |d, n, r| tuple_space::tse(d, n, r, false)),
    ("tse_attack", "tuple-space explosion: 1 attack packet in 10", |d, n, r| tuple_space::tse(d, n, r, true)),
];

/// Names of all workloads with a line on each.
pub fn list() -> impl Iterator<Item = (&'static str, &'static str)> {
    WORKLOADS.iter().map(|(name, about, _)| (*name, *about))
}

/// Writes workload `name` into `dir/name`; files that are there already are removed first.
///
/// # Errors
/// [`WorkloadError::Unknown`] when there is no such workload, [`WorkloadError::Io`] when a file cannot be written.
pub fn generate(name: &str, dir: &Path, seed: u64) -> Result<(), WorkloadError> {
    let (name, _, write) = WORKLOADS
        .iter()
        .find(|(n, ..)| *n == name)
        .ok_or_else(|| WorkloadError::Unknown { name: name.to_owned() })?;
    write(dir, name, &mut Random::new(seed))
}

#[cfg(test)]
mod tests;
