//! OVSDB: the data model of RFC 7047 with the extensions of Open vSwitch, as a library.
//!
//! This half of the crate does no I/O and knows no time but what it is told: values ([`Atom`], [`Datum`]), their types
//! ([`BaseType`], [`ColumnType`]) and schemas ([`Schema`]), each from and to the JSON that goes over the wire and into
//! the log. The file that holds a database is [`log`].
//!
//! ```text
//!   JSON --from_json--> Datum  checked against a ColumnType of a Schema: ranges, lengths, enums, sizes, duplicates
//!   JSON <--to_json---- Datum  sorted, so that equal values have equal texts
//! ```
//!
//! Errors are the error objects of RFC 7047 ([`Error`]); where Open vSwitch's own tests pin the `details` text, it is the
//! same here, since people read it in the output of stock clients.

pub mod atom;
pub mod datum;
pub mod error;
pub mod json;
pub mod log;
pub mod schema;
pub mod types;
pub mod uuid;
pub mod vswitch;

pub use atom::{Atom, AtomType};
pub use datum::{Datum, Symbols};
pub use error::Error;
pub use schema::{ColumnSchema, Schema, TableSchema};
pub use types::{BaseType, ColumnType, RefKind};
pub use uuid::Uuid;
