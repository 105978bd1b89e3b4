//! Interfaces of the host whose flows the kernel's TC forwards where it can (`other_config:hw-offload`).

use std::sync::Arc;

use clock::Clock;
use device::{BufferPool, IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair};
use netio::diverted::{DivertedPort, Places};
use offload::OffloadProvider;
use offload_tc::divert::Divert;
use offload_tc::{Kernel, Misses, TcConfig, TcPolicy, TcProvider};

use crate::open::OpenError;

/// The name under which placement has the kernel.
pub const DEVICE: &str = "tc";

/// What the provider knows of tags, for ports. Connections are software's: no tag says anything of them.
struct Tags(Misses);

impl Places for Tags {
    fn resume(&self, tci: u16) -> Option<u32> {
        self.0.place(tci).filter(|p| p.ct_state == 0).map(|p| p.recirc)
    }
}

/// A port whose frames reach us only when no filter has forwarded them.
pub struct TcPort {
    // Dropped first: while it is there frames go to the TAP.
    _divert: Divert<Kernel>,
    io: DivertedPort,
}

impl TcPort {
    /// Opens an interface: see [`DivertedPort::open`]. The provider hears by `misses` where its frames go.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(interface: &str, pool: &BufferPool, misses: &Misses) -> Result<Self, OpenError> {
        let wrong = |e: std::io::Error| OpenError::Wrong(format!("{interface}: TC: {e}"));
        let index = netio::netdev::Netdev::open(interface)?.index();
        let tags = Arc::new(Tags(misses.clone()));
        let io = DivertedPort::open(interface, &format!("htap{index}"), tags, pool)?;
        let ifindex = u32::try_from(index).unwrap_or_default();
        let link = Kernel::open().map_err(wrong)?;
        let divert = Divert::install(link, ifindex, io.tap_index(), misses).map_err(wrong)?;
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

/// The kernel's filters for placement, without ports yet. `run_dir` tells this switch from another on the host; `misses` is what the
/// ports were opened with.
///
/// # Errors
/// The operating system's, when there is no netlink socket to be had.
pub fn provider(
    policy: TcPolicy,
    run_dir: &str,
    misses: &Misses,
    clock: Arc<dyn Clock>,
) -> std::io::Result<Box<dyn OffloadProvider>> {
    let misses = Some(misses.clone());
    let config = TcConfig { name: DEVICE.to_owned(), policy, misses, ..TcConfig::new(run_dir) };
    Ok(Box::new(TcProvider::new(Kernel::open()?, config, clock)))
}
