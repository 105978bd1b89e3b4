//! A priority classifier that says which bits it looked at.
//!
//! Rules are a masked key and a priority; [`Version::lookup`] finds the matching rule of highest priority and adds to a
//! mask every bit the verdict depended on: *any key that equals the original under that mask gets the same verdict*.
//! The fewer bits, the more packets one megaflow covers, so the lookup goes to some length to look at few.
//!
//! ```text
//!   Version                      ordered by highest priority; the search ends when no subtable can beat what was found
//!   ├─ Subtable  mask A  ── stages: metadata │ L2 │ L3 │ L4
//!   │                        index 0   index 1   index 2   rules      a stage whose index lacks the hash ends the
//!   │                                                                 subtable: only the stages so far were looked at
//!   ├─ Subtable  mask B  ── ports trie: on a failed last stage, how many leading port bits prove the miss
//!   └─ prefix tries (nw_dst, nw_src, ipv6_dst, ipv6_src), shared by all subtables: a subtable that needs a prefix length
//!      no rule has for this address is skipped at the price of the leading bits that prove it
//! ```
//!
//! [`Version::find`] is the same search without the bits: the subtables that can match are found by the values of rules
//! (`pruning.rs`), and those alone are probed.
//!
//! **Versions.** A [`Version`] is persistent: a clone costs a few reference counts and shares everything until one side is
//! changed. [`Classifier`] publishes versions through an atomic pointer, so a reader sees the table before an update, or
//! after it, or after a whole batch, and never between; it takes no lock and is never waited for. Writers are serialised
//! by `&mut`.
//!
//! What only narrows a search (stages, tries) is the version's own in small tables and shared by all versions in large ones, where it
//! may say too much and so costs bits, never a rule (`prefixes.rs`, `stages.rs`).
//!
//! Rules of equal priority that overlap: which of them wins is undefined (OpenFlow 1.3.5 6.4), but the same version always
//! gives the same answer.
#![forbid(unsafe_code)]

mod bulk;
mod flat;
mod grown_trie;
mod hashed;
mod prefixes;
mod pruning;
mod publish;
mod seen;
mod shape;
mod slots;
mod stages;
mod subtable;
mod trie;
mod version;

pub use bulk::Addition;
pub use publish::Classifier;
pub use shape::{MiniMatch, Shape, Shapes};
pub use version::{DEFAULT_PREFIXES, Found, MAX_PREFIXES, Version};
