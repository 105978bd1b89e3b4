//! The datapath syntax: `recirc_id(0),in_port(1),eth_type(0x0800),ipv4(src=10.0.0.1,frag=no)` and
//! `set(ipv4(ttl=63)),push_vlan(vid=11,pcp=7),2`, as `ovs-appctl dpctl/dump-flows` prints them and `dpctl/add-flow`,
//! `ofproto/trace` and `netdev-dummy/receive` read them.
//!
//! Ports are datapath ports, by number or by name. What Open vSwitch has and this project's [`crate::Action`] has not
//! (`ct`, `sample`, `tnl_push`, ...) is refused by name.
//!
//! Three places where text and value differ:
//! * A match of an Ethernet type without `vlan(..)` means "no tag", as with Open vSwitch: reading it gives
//!   `vlan_tci=0/0x1fff`; a match that does not look at the tag prints the same.
//! * `userspace(..,controller(..))` has no place for table, metadata, port and bridge of a [`crate::ControllerAction`]: they
//!   read as zero.
//! * [`crate::Action::DecTtl`], which Open vSwitch's userspace datapath has not, is `dec_ttl`.
//!
//! ```
//! use flow::text::odp;
//! let m = odp::parse_match("in_port(1),eth_type(0x0800),ipv4(proto=6,frag=no),tcp(dst=80)", &|_| None).unwrap();
//! assert_eq!(odp::format_match(&m, &|_| None), "in_port(1),eth_type(0x0800),ipv4(proto=6,frag=no),tcp(dst=80)");
//! let actions = odp::parse_actions("set(udp(dst=7)),2", &|_| None).unwrap();
//! let udp = odp::Context { proto: 17, ..Default::default() };
//! assert_eq!(odp::format_actions(&actions, udp, &|_| None), "set(udp(dst=7)),2");
//! ```

mod attr;
mod ct;
mod export;
mod format_actions;
mod format_match;
mod nsh;
mod parse_actions;
mod parse_match;

pub use format_actions::{Context, format_actions};
pub use format_match::{format_flow, format_flow_whole, format_key, format_match};
pub use parse_actions::parse_actions;
pub use parse_match::{parse_key, parse_match};

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
