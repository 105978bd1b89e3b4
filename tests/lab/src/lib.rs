//! A laboratory for the switch as its users run it: hosts in network namespaces, the real `vswitchd` between them, stock
//! tools beside it. The demo and the end-to-end tests share it. Needs root and iproute2.
//!
//! * [`kernel`]: a Linux kernel of its own to run a program in.
//! * [`machine`]: a machine in QEMU, with an IOMMU and hardware to drive.
//! * [`lan`]: the namespaces, their cables and addresses, pings.
//! * [`ovs`]: a process that takes `ovs-vswitchd`'s command line, ours or the stock one.
//! * [`ovsdb`]: a process of an OVSDB server, ours or the stock one.
//! * [`process`]: what the kernel says of a process.
//! * [`rpc`]: a plain JSON-RPC client.
//! * [`transfer`]: data over TCP from one host to another.
//! * [`vswitchd`]: the daemon's process and the tools that talk to it.
//! * [`wait`]: waiting for something, with a deadline.
//!
//! It starts programs and reads what they say; it uses none of the switch's own crates, so that `cargo xtask` stays quick
//! to build.
#![forbid(unsafe_code)]

pub mod command;
pub mod kernel;
pub mod lan;
pub mod machine;
pub mod ovs;
pub mod ovsdb;
mod package;
pub mod process;
pub mod rpc;
pub mod transfer;
pub mod vswitchd;
pub mod wait;

pub use lan::Lan;
pub use ovs::OvsSwitch;
pub use ovsdb::OvsdbServer;
pub use rpc::Rpc;
pub use vswitchd::Vswitchd;
pub use wait::{DEADLINE, eventually};
