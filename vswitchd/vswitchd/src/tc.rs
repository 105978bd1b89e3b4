//! Interfaces of the host whose flows the kernel's TC forwards where it can (`other_config:hw-offload`).

use std::sync::Arc;

use clock::Clock;
use device::{BufferPool, IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair};
use netio::diverted::DivertedPort;
use offload::OffloadProvider;
use offload_tc::divert::Divert;
use offload_tc::{Kernel, TcConfig, TcPolicy, TcProvider};

use crate::open::OpenError;

/// The name under which placement has the kernel.
pub const DEVICE: &str = "tc";

/// A port whose frames reach us only when no filter has forwarded them.
pub struct TcPort {
    // Dropped first: while it is there frames go to the TAP.
    _divert: Divert<Kernel>,
    io: DivertedPort,
}

impl TcPort {
    /// Opens an interface: see [`DivertedPort::open`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(interface: &str, pool: &BufferPool) -> Result<Self, OpenError> {
        let wrong = |e: std::io::Error| OpenError::Wrong(format!("{interface}: TC: {e}"));
        let index = netio::netdev::Netdev::open(interface)?.index();
        let io = DivertedPort::open(interface, &format!("htap{index}"), pool)?;
        let ifindex = u32::try_from(index).unwrap_or_default();
        let link = Kernel::open().map_err(wrong)?;
        let divert = Divert::install(link, ifindex, io.tap_index()).map_err(wrong)?;
        Ok(TcPort { _divert: divert, io })
    }
}

impl PacketIo for TcPort {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        self.io.take_queues(q)
    }
    fn queue_pairs(&self) -> u16 {
        self.io.queue_pairs()
    }
    fn mac(&self) -> [u8; 6] {
        self.io.mac()
    }
    fn mtu_frame_bytes(&self) -> usize {
        self.io.mtu_frame_bytes()
    }
    fn link(&self) -> LinkState {
        self.io.link()
    }
    fn counters(&self) -> PortCounters {
        self.io.counters()
    }
    fn is_gone(&self) -> bool {
        self.io.is_gone()
    }
    fn interface_index(&self) -> Option<u32> {
        self.io.interface_index()
    }
}

/// The kernel's filters for placement, without ports yet. `run_dir` tells this switch from another on the host.
///
/// # Errors
/// The operating system's, when there is no netlink socket to be had.
pub fn provider(
    policy: TcPolicy,
    run_dir: &str,
    clock: Arc<dyn Clock>,
) -> std::io::Result<Box<dyn OffloadProvider>> {
    let config = TcConfig { name: DEVICE.to_owned(), policy, ..TcConfig::new(run_dir) };
    Ok(Box::new(TcProvider::new(Kernel::open()?, config, clock)))
}
