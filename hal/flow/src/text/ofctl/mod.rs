//! The match syntax of `ovs-ofctl` (ovs-fields(7), ovs-ofctl(8) "Flow Syntax"), without what is not a match (priority,
//! table, timeouts, cookie, actions).
//!
//! Parsing accepts both names of every field, the protocol keywords and the views; printing gives the one form that
//! `ovs-ofctl dump-flows` prints. Prerequisites are not checked here: see [`crate::prereq`].
//!
//! Where this is stricter than `ovs-ofctl`: a keyword without a value and VLAN numbers that do not fit are errors.
//!
//! ```
//! let m = flow::text::ofctl::parse("tcp,nw_dst=10.1.2.3/8,tp_dst=80,in_port=LOCAL").unwrap();
//! assert_eq!(flow::text::ofctl::format(&m), "tcp,in_port=LOCAL,nw_dst=10.0.0.0/8,tp_dst=80");
//! ```

mod format;
mod key;
mod parse;

pub use format::{format, format_with};
pub use key::format_key;
pub use parse::{parse, parse_with, set_keyword};

#[cfg(test)]
mod golden;
#[cfg(test)]
mod live_frames;
#[cfg(test)]
mod tests;
