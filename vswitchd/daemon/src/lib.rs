//! What every daemon of the family needs, whatever it does: where its sockets live, how it is spoken to, how it logs,
//! and how it ends.
//!
//! * [`address`], [`stream`]: `tcp:`, `ssl:`, `unix:` and passive names and the byte streams behind them.
//! * [`tls`]: keys, certificates and whom to believe on `ssl:` and `pssl:` streams.
//! * [`jsonrpc`]: the messages of unixctl and OVSDB over any stream.
//! * [`reconnect`]: when to connect, to probe and to give up.
//! * [`rundir`], [`pidfile`]: the run directory and the lock that says "one of me here".
//! * [`unixctl`]: the JSON-RPC that `ovs-appctl` speaks, server and client.
//! * [`cli`], [`detach`]: the command line they share, and going into the background.
//! * [`log`]: Open vSwitch's log lines and per-module levels on top of `tracing`.
//! * [`coverage`], [`memory`]: counters and amounts for whoever asks what a daemon has been doing.
//! * [`report`]: the documents that the switch tells about itself.
//! * [`signals`]: the request to stop.
//!
//! Everything that reads from a socket bounds what it keeps; every wait has a deadline. Nothing here is used on a
//! forwarding core, apart from the log, whose disabled messages cost one branch.

pub mod address;
pub mod cli;
pub mod coverage;
pub mod detach;
pub mod jsonrpc;
pub mod log;
pub mod memory;
pub mod pidfile;
pub mod reconnect;
pub mod report;
pub mod rundir;
pub mod signals;
pub mod stream;
pub mod tls;
pub mod unixctl;

pub use address::{Active, AddressError, OPENFLOW_PORT, Passive};
pub use detach::{Daemon, StartError};
pub use pidfile::{PidFile, PidFileError};
pub use rundir::RunDir;
pub use stream::{Listener, Stream, StreamError, connect, connect_with, os_words};
pub use tls::{Tls, TlsError, TlsFiles, Trust};
