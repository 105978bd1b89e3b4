//! Packet sources and sinks: memory queues, pcap files, AF_PACKET, AF_XDP and TAP interfaces.
//!
//! Each offers [`device::PacketIo`], or the queue traits by themselves. Names of interfaces are looked up in the network
//! namespace of the calling thread; a port stays in the namespace where it was opened.

pub mod af_packet;
pub mod af_xdp;
mod checksum;
pub mod diverted;
pub mod memory;
pub mod merged;
pub mod netdev;
pub mod netdev_port;
pub mod pcap;
mod spsc;
pub mod tap;

pub use netdev::{Driver, Netdev, OpenError};
