//! Holds the workspace to its layers: which crate may use which, where an async runtime and where `unsafe` may appear.
//!
//! The table is that of ARCHITECTURE.md. The tests read `cargo metadata` and the sources; this crate has no code of its
//! own.
#![forbid(unsafe_code)]
