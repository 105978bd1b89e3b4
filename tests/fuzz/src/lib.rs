//! What comes from outside, given anything: each target takes bytes and must neither panic nor break what it promises.
//!
//! | target | bytes are | promise beside not panicking |
//! |---|---|---|
//! | `frame` | a frame | headers lie within it; a key's text reads back as the key |
//! | `actions` | a list of actions and a frame | every packet is sent, handed up or counted as dropped, and its buffer comes home |
//! | `connections` | packets and how each is tracked | connections are bounded and given back; only what is translated changes, and its checksums stay right |
//! | `tunnels` | what a header is made of, and a frame | what comes out lies within the frame; what goes in comes out as it was |
//! | `openflow` | a message | what can be decoded and encoded decodes to the same message, or to one that is encoded alike |
//! | `flow-text` | a flow as ovs-ofctl takes it | what is read and written reads back the same |
//! | `transaction` | an OVSDB transaction | an error changes nothing; a commit's log record does to a copy what the commit did |
//! | `database-file` | an OVSDB log's records | what cannot be replayed changes nothing |
//! | `json` | a JSON-RPC stream | cut anywhere, the same messages come out |
//! | `netlink` | messages of TC | what flower options decode to, encodes and decodes to the same |
//!
//! `cargo test -p fuzz` runs each over its seeds and random changes of them; HOIST_FUZZ_S says for how many seconds.
//! `cargo xtask fuzz [TARGET...]` runs them under libFuzzer, which looks for inputs that reach new code.
#![forbid(unsafe_code)]

mod actions;
mod connections;
mod database;
mod frame;
mod json;
pub mod mutate;
mod netlink;
mod openflow;
mod tunnels;

/// One target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Takes any bytes. Panics when a promise is broken.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "frame", run: frame::run, seeds: frame::seeds },
    Target { name: "actions", run: actions::run, seeds: actions::seeds },
    Target { name: "connections", run: connections::run, seeds: connections::seeds },
    Target { name: "tunnels", run: tunnels::run, seeds: tunnels::seeds },
    Target { name: "openflow", run: openflow::message, seeds: openflow::message_seeds },
    Target { name: "flow-text", run: openflow::text, seeds: openflow::text_seeds },
    Target { name: "transaction", run: database::transaction, seeds: database::transaction_seeds },
    Target { name: "database-file", run: database::records, seeds: database::record_seeds },
    Target { name: "json", run: json::run, seeds: json::seeds },
    Target { name: "netlink", run: netlink::run, seeds: netlink::seeds },
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|t| t.name == name).copied()
}

/// Names of all targets.
pub fn names() -> Vec<&'static str> {
    TARGETS.iter().map(|t| t.name).collect()
}
