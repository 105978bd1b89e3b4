//! Interfaces of the host whose flows the kernel's TC forwards where it can (`other_config:hw-offload`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use clock::Clock;
use device::{BufferPool, IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair};
use netio::diverted::{DivertedPort, Places};
use offload::OffloadProvider;
use offload_tc::divert::Divert;
use offload_tc::{Kernel, Misses, TcConfig, TcPolicy, TcProvider};
use parking_lot::Mutex;

use crate::open::OpenError;

/// What is below filters: where frames go that none of them catches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Below {
    /// The switch's own datapath.
    Own,
    /// The kernel's.
    Kernel,
}

impl Below {
    /// Both.
    pub const ALL: [Below; 2] = [Below::Own, Below::Kernel];

    /// The name under which placement has the filters.
    pub fn device(self) -> &'static str {
        match self {
            Below::Own => "tc",
            Below::Kernel => "tc@system",
        }
    }
}

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
    divert: Mutex<(Divert<Kernel>, Instant)>,
    io: DivertedPort,
}

/// Between looks at whether frames are still handed over.
const LOOK: Duration = Duration::from_secs(1);

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
        Ok(TcPort { divert: Mutex::new((divert, Instant::now())), io })
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
        // Asked for now and then, so a bond's members, and what hands frames over, are looked at by the way.
        if let Some(mut d) = self.divert.try_lock()
            && d.1.elapsed() >= LOOK
        {
            d.1 = Instant::now();
            let looked = d.0.refresh().and_then(|_| d.0.restore());
            match looked {
                Ok(0) => {}
                Ok(_) => tracing::warn!("what hands frames over had been removed, and is back"),
                Err(e) => tracing::debug!("what hands frames over: {e}"),
            }
        }
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
/// ports were opened with; `sharing` whether the datapath below goes on where filters stopped.
///
/// # Errors
/// The operating system's, when there is no netlink socket to be had.
pub fn provider(
    policy: TcPolicy,
    run_dir: &str,
    misses: &Misses,
    clock: Arc<dyn Clock>,
    below: Below,
    sharing: bool,
) -> std::io::Result<Box<dyn OffloadProvider>> {
    let own = below == Below::Own;
    // The two may not take each other's filters for their own.
    let base = TcConfig::new(&if own { run_dir.to_owned() } else { format!("{run_dir} kernel") });
    let config = TcConfig {
        name: below.device().to_owned(),
        policy,
        misses: own.then(|| misses.clone()),
        // Connections below are the kernel's as well, and there is no other owner.
        conntrack: !own,
        recirc_sharing: !own && sharing,
        ..base
    };
    Ok(Box::new(TcProvider::new(Kernel::open()?, config, clock)))
}
