//! Traffic for a simulated device, and what came of it: a generator and a checker on its wires, standard test runs, and
//! pictures of what happened inside.
//!
//! ```text
//!   Load ─► generator ─► wires ─► device ─► wires ─► checker ─► Outcome
//!                                    └─ trails, waves, tap ─► timeline, VCD, Perfetto trace, pcapng, histograms, SVG
//! ```
//!
//! All times are cycles of the device: a run says the same on every host. Frames carry flow, serial number and departure
//! in their payload, so that the checker needs no state but the last number of each flow.
#![forbid(unsafe_code)]

pub mod capacity;
pub mod check;
pub mod frame;
pub mod histogram;
pub mod load;
pub mod pcapng;
pub mod perfetto;
pub mod picture;
pub mod plot;
pub mod progress;
pub mod rfc2544;
pub mod rfc2889;
pub mod run;
pub mod text;
pub mod vcd;

pub use check::Outcome;
pub use load::Load;
pub use progress::Run;
pub use run::{Lane, TestError, Tester};
