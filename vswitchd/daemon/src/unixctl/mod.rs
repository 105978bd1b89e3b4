//! unixctl: the JSON-RPC 1.0 over a unix socket by which `ovs-appctl` speaks to a daemon.
//!
//! ```text
//!   ovs-appctl                                    daemon, <rundir>/<program>.<pid>.ctl
//!   {"id":0,"method":"vlog/set","params":["dbg"]}  ─►
//!                                                 ◄─  {"id":0,"result":"","error":null}
//! ```
//!
//! There is no framing but JSON's own: a message ends where its outermost bracket closes ([`jsonrpc`](crate::jsonrpc)). A method is a
//! command with string arguments, its result or error a string. A command runs on a thread where it may block.
//!
//! The socket carries no authentication; the permissions of its directory are the access control.

mod client;
mod commands;
mod server;

pub use client::{Client, ClientError, find_target};
pub use commands::{Commands, builtin};
pub use server::{MAX_CONNECTIONS, MAX_REQUEST_BYTES, Server};

/// Deepest nesting of a message.
pub const MAX_DEPTH: usize = 32;
