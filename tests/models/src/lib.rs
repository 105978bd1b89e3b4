//! Devices that are nothing but memory, for tests and benches of drivers: registers and rings as the chip's specification has them,
//! and misbehaviour on demand. They share only the definitions with the drivers.
//!
//! What they stand on is `model-bus`: a model does what it is told within the register access that tells it; time is a manual clock,
//! which waiting moves on. Nothing here is behind a driver in a running switch: that is the simulator's job.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // for tests and benches, which may panic

pub mod platform;
pub mod rocker;
pub mod storm;
pub mod virtio;

pub use model_bus::{Backing, Bus, Chip, Model};
