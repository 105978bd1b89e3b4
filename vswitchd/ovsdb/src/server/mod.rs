//! The OVSDB server (RFC 7047, ovsdb-server(7)): databases offered to clients over sockets, or within the process.
//!
//! ```text
//!   listen, dial ----> session tasks --messages--> Hub --> Database, Storage
//!   attach ----------/        ^------- replies, updates --'
//!   Handle (any thread) --jobs--> the same
//! ```
//!
//! A [`Server`] has one thread with an executor of its own; everything happens there, one event at a time ([`hub`]). It runs
//! the same in the program `ovsdb-server` and embedded in a switch. Other threads reach it through its [`Handle`].

mod background;
mod commands;
mod counters;
mod db;
mod dial;
mod handle;
mod hub;
mod listen;
mod locks;
mod lookup;
mod monitors;
mod outbox;
mod remotes;
mod run;
mod session;
mod status;
mod tls;
mod transact;

pub use counters::Counters;
pub use handle::{Handle, ServerError};
pub use remotes::OVSDB_PORT;
pub use run::{Server, ServerConfig};
pub use session::Limits;
pub use tls::TlsOptions;
