//! JSON-RPC 1.0 over a byte stream, as unixctl and OVSDB (RFC 7047 4) speak it.
//!
//! There is no framing but JSON's own: a message ends where its outermost bracket closes.
//!
//! * [`Framer`] cuts a stream into messages, within bounds of length and depth.
//! * [`Message`] is a request, a notification, a reply or an error.
//! * [`Connection`] does both over an async stream, [`BlockingConnection`] over a blocking one.

mod blocking;
mod connection;
mod framer;
mod message;

pub use blocking::BlockingConnection;
pub use connection::{Connection, ConnectionError, Limits};
pub use framer::{FrameError, Framer};
pub use message::{Message, MessageError};
