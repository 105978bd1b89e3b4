//! unixctl: the JSON-RPC 1.0 over a unix socket by which `ovs-appctl` speaks to a daemon.
//!
//! ```text
//!   ovs-appctl                                    daemon, <rundir>/<program>.<pid>.ctl
//!   {"id":0,"method":"vlog/set","params":["dbg"]}  ─►
//!                                                 ◄─  {"id":0,"result":"","error":null}
//! ```
//!
//! There is no framing but JSON's own: a message ends where its outermost bracket closes ([`framing`]). A method is a
//! command with string arguments, its result or error a string. A command runs on a thread where it may block.
//!
//! The socket carries no authentication; the permissions of its directory are the access control.

mod client;
mod commands;
mod framing;
mod server;

pub use client::{Client, ClientError, find_target};
pub use commands::{Commands, builtin};
pub use framing::{FrameError, Framer, MAX_DEPTH};
pub use server::{MAX_CONNECTIONS, MAX_REQUEST_BYTES, Server};

/// A reply on the wire. Open vSwitch's client wants all three members.
#[derive(serde::Serialize, serde::Deserialize, Debug)]
struct Reply {
    id: serde_json::Value,
    result: serde_json::Value,
    error: serde_json::Value,
}
