//! What every provider must do, as checks that any crate's tests can run on its own provider.
//!
//! ```text
//! #[test]
//! fn conforms() {
//!     offload::conformance::run(&mut || Box::new(MyHarness::new()));
//! }
//! ```
//!
//! The suite sees a device through a [`Harness`]: its provider, a way to put a packet into a port and see what comes
//! out, and a way to let time pass. Each check gets a fresh one. It adapts to the capabilities: what a device does not
//! declare is not asked of it, but what it declares it must do, and what it does not declare it must refuse.

mod bench;
mod checks;
mod frames;
mod robust;
pub mod rules;

use std::time::Duration;

use clock::Instant;
use flow::{PacketKey, PortId};

use crate::provider::OffloadProvider;

pub use frames::frame;

/// What became of a packet that was put into a port of the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sent {
    /// No entry was hit: the packet came to the host.
    Missed,
    /// An entry was hit; what left, by which port, with the key as it left (`dp_in_port` zero). Empty: dropped.
    Forwarded(Vec<(PortId, PacketKey)>),
}

/// A device under test.
pub trait Harness {
    /// Its provider.
    fn provider(&mut self) -> &mut dyn OffloadProvider;

    /// Puts one packet into port `dp_in_port` of `key`, waits until the device is done with it, and tells what came of it.
    /// Keys are of Ethernet frames with IPv4 or IPv6 and TCP or UDP, not fragmented, with at most one VLAN tag;
    /// `len_bytes`, without FCS, is at least 128 and below 1500. A harness on frames builds one from the key and parses what
    /// leaves.
    fn send(&mut self, key: &PacketKey, len_bytes: u32) -> Sent;

    /// Lets `d` of the device's time pass.
    fn advance(&mut self, d: Duration);

    /// The time, on the clock of [`crate::RawStats::last_used`].
    fn now(&self) -> Instant;
}

/// Runs every check, each on a fresh device from `make`.
///
/// # Panics
/// At the first check that fails, after naming it.
pub fn run(make: &mut dyn FnMut() -> Box<dyn Harness>) {
    for (name, check) in checks::CHECKS {
        let named = Named(name);
        check(&mut bench::Bench::new(make()));
        drop(named);
    }
}

/// Runs what must hold even while the provider fails: `steps` random operations for each seed, each on a fresh device.
///
/// # Panics
/// At the first violation, with the seed.
pub fn run_robustness(
    make: &mut dyn FnMut(u64) -> Box<dyn Harness>,
    seeds: std::ops::Range<u64>,
    steps: usize,
) {
    for seed in seeds {
        robust::survive(&mut bench::Bench::new(make(seed)), seed, steps);
    }
}

/// Says which check it was when that panics.
struct Named(&'static str);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("conformance: the device fails \"{}\"", self.0);
        }
    }
}
