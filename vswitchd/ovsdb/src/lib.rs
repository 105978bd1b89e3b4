//! OVSDB: the data model of RFC 7047 with the extensions of Open vSwitch, as a library.
//!
//! The data model does no I/O and knows no time but what it is told: values ([`Atom`], [`Datum`]), their types
//! ([`BaseType`], [`ColumnType`]) and schemas ([`Schema`]), each from and to the JSON that goes over the wire and into
//! the log. The file that holds a database is [`log`].
//!
//! ```text
//!   JSON --from_json--> Datum  checked against a ColumnType of a Schema: ranges, lengths, enums, sizes, duplicates
//!   JSON <--to_json---- Datum  sorted, so that equal values have equal texts
//! ```
//!
//! A [`Database`] holds the rows. A transaction is executed without changing it, written down by whoever keeps the log,
//! and then committed; the [`ChangeSet`] that comes out feeds the monitors. [`storage`] is such a keeper, and [`server`] offers
//! databases to clients. [`client`] keeps a replica of what another server has.
//!
//! Errors are the error objects of RFC 7047 ([`Error`]); where Open vSwitch's own tests pin the `details` text, it is the
//! same here, since people read it in the output of stock clients.

pub mod atom;
pub mod bits;
pub mod client;
pub mod condition;
pub mod database;
pub mod datum;
pub mod datum_ops;
pub mod error;
pub mod execute;
pub mod json;
pub mod log;
mod merge;
pub mod monitor;
mod mutation;
pub mod prepare;
pub mod rbac;
mod record;
mod replay;
pub mod row;
pub mod schema;
pub mod server;
pub mod storage;
mod txn;
pub mod types;
mod unique;
pub mod uuid;
pub mod vswitch;

pub use atom::{Atom, AtomType};
pub use bits::Bits;
pub use condition::Condition;
pub use database::{Database, Table};
pub use datum::{Datum, Symbols};
pub use error::Error;
pub use execute::{Executed, TxnContext};
pub use prepare::Prepared;
pub use rbac::Role;
pub use row::{ChangeSet, Row, RowChange};
pub use schema::{ColumnSchema, Schema, TableSchema};
pub use types::{BaseType, ColumnType, RefKind};
pub use uuid::Uuid;
