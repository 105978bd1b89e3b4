//! Opens what is behind a port or a wire.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clock::Clock;
use daemon::os_words;
use device::{BufferPool, IoError, LinkState, PacketIo, PortCounters, QueueId, QueuePair};
use netio::Netdev;
use netio::af_packet::AfPacketPort;
use netio::af_xdp::{AfXdpPort, XdpMode};
use netio::memory::{MemoryConfig, MemoryPort, cable};
use netio::pcap::CaptureError;
use netio::tap::TapPort;
use offload_tc::Misses;

use crate::capture::CapturePort;
use crate::config::{PortConfig, PortKind, Wire};
use crate::tc::TcPort;

/// What a frame has beside its MTU: an Ethernet header and two VLAN tags.
const FRAME_OVERHEAD_BYTES: usize = 14 + 8;

/// A port's packet I/O, and the other end of its cable when it is in memory.
pub type Opened = (Box<dyn PacketIo>, Option<MemoryPort>);

/// Why a port could not be opened.
#[derive(thiserror::Error, Debug)]
pub enum OpenError {
    /// Packet I/O said no.
    #[error(transparent)]
    Io(#[from] IoError),
    /// An interface could not be opened.
    #[error(transparent)]
    Interface(#[from] netio::OpenError),
    /// A capture file cannot be read.
    #[error("{}: {source}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CaptureError,
    },
    /// It is configured in a way that cannot be carried out.
    #[error("{0}")]
    Wrong(String),
    /// A capture file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
}

impl OpenError {
    /// As column `error` of an `Interface` has it: the words that stock tools show, with the operating system's reason.
    pub fn as_interface_error(&self, name: &str) -> String {
        let why = match self {
            OpenError::Wrong(why) => return why.clone(),
            OpenError::Interface(netio::OpenError::NoInterface { .. }) => "No such device".to_owned(),
            OpenError::Interface(netio::OpenError::NoPermission { .. }) => {
                "Operation not permitted".to_owned()
            }
            OpenError::Interface(netio::OpenError::BadName { .. }) => "Invalid argument".to_owned(),
            OpenError::Interface(netio::OpenError::Os { source, .. }) => os_words(source),
            OpenError::File { path, source } => format!("{}: {}", path.display(), os_words(source)),
            other => other.to_string(),
        };
        format!("could not open network device {name} ({why})")
    }
}

/// A port with nothing behind it.
struct NullPort(CapturePort);

impl PacketIo for NullPort {
    fn take_queues(&mut self, q: QueueId) -> Result<QueuePair, IoError> {
        self.0.take_queues(q)
    }
    fn queue_pairs(&self) -> u16 {
        1
    }
    fn mac(&self) -> [u8; 6] {
        self.0.mac()
    }
    fn mtu_frame_bytes(&self) -> usize {
        self.0.mtu_frame_bytes()
    }
    fn link(&self) -> LinkState {
        LinkState::default()
    }
    fn counters(&self) -> PortCounters {
        PortCounters::default()
    }
}

/// Opens a port that is not on a device, with as many queues as it asks for where they can be had by asking, received packets in buffers of `pool`. Interfaces are brought up, but for internal
/// ones, which get the address `mac`. `misses` is told of interfaces whose flows TC forwards.
///
/// # Errors
/// [`OpenError`].
pub fn port(
    config: &PortConfig,
    mac: Option<[u8; 6]>,
    pool: &BufferPool,
    misses: &Misses,
    clock: &Arc<dyn Clock>,
) -> Result<Opened, OpenError> {
    let queues = config.rx.count.unwrap_or(1);
    match &config.kind {
        PortKind::Sim { .. }
        | PortKind::Patch { .. }
        | PortKind::Tunnel { .. }
        | PortKind::Dummy { .. }
        | PortKind::Vport { .. } => Err(IoError::Gone.into()),
        PortKind::AfPacket { interface } => Ok((af_packet(interface, pool, queues)?, None)),
        PortKind::Tc { interface } => Ok((Box::new(TcPort::open(interface, pool, misses)?), None)),
        PortKind::AfXdp { interface, mode } => Ok((af_xdp(interface, *mode, pool)?, None)),
        PortKind::Tap { interface } => Ok((tap(interface, pool)?, None)),
        PortKind::Internal { interface } => {
            let port = TapPort::create(interface, pool)?;
            if let Some(mac) = mac {
                port.netdev().set_mac(mac)?;
            }
            Ok((Box::new(port), None))
        }
        // Receives nothing, and forgets what is sent to it.
        PortKind::Null => Ok((Box::new(NullPort(CapturePort::open(None, None, pool, clock)?)), None)),
        PortKind::Wrong { why } => Err(OpenError::Wrong(why.clone())),
        PortKind::Pcap { path, out } => {
            let p = CapturePort::open(path.as_deref(), out.as_deref(), pool, clock)?;
            Ok((Box::new(p), None))
        }
        PortKind::Memory => memory(),
    }
}

/// Gives the interface behind a port an MTU in bytes.
///
/// # Errors
/// Why not, for people: there is no interface, a buffer of `pool` does not hold its frames, the kernel refuses.
pub fn set_mtu(kind: &PortKind, mtu: u32, pool: &BufferPool) -> Result<(), String> {
    if let PortKind::Vport { interface, .. } = kind {
        // Its frames stay in the kernel.
        return Netdev::open(interface).and_then(|n| n.set_mtu(mtu)).map_err(|e| e.to_string());
    }
    let interface = match kind {
        PortKind::AfPacket { interface }
        | PortKind::Tc { interface }
        | PortKind::AfXdp { interface, .. }
        | PortKind::Tap { interface }
        | PortKind::Internal { interface } => interface,
        // Has it since it was opened.
        PortKind::Dummy { .. } => return Ok(()),
        _ => return Err("there is no interface of the host behind it".to_owned()),
    };
    let most = pool.data_bytes().saturating_sub(FRAME_OVERHEAD_BYTES);
    if mtu as usize > most {
        return Err(format!("packet buffers hold up to {most}"));
    }
    Netdev::open(interface).and_then(|n| n.set_mtu(mtu)).map_err(|e| e.to_string())
}

/// Opens what a device's wire ends in; `None` for a wire that ends in nothing.
///
/// # Errors
/// [`OpenError`].
pub fn wire(w: &Wire, pool: &BufferPool) -> Result<Option<Opened>, OpenError> {
    Ok(Some(match w {
        Wire::None => return Ok(None),
        Wire::AfPacket(interface) => (af_packet(interface, pool, 1)?, None),
        Wire::AfXdp(interface) => (af_xdp(interface, XdpMode::default(), pool)?, None),
        Wire::Tap(interface) => (tap(interface, pool)?, None),
        Wire::Memory => memory()?,
    }))
}

fn af_packet(interface: &str, pool: &BufferPool, queues: u16) -> Result<Box<dyn PacketIo>, OpenError> {
    let p = AfPacketPort::open_queues(interface, pool, queues)?;
    p.netdev().set_up()?;
    Ok(Box::new(p))
}

fn af_xdp(interface: &str, mode: XdpMode, pool: &BufferPool) -> Result<Box<dyn PacketIo>, OpenError> {
    let p = AfXdpPort::open(interface, pool, mode)?;
    p.netdev().set_up()?;
    Ok(Box::new(p))
}

fn tap(interface: &str, pool: &BufferPool) -> Result<Box<dyn PacketIo>, OpenError> {
    Ok(Box::new(TapPort::open(interface, pool)?))
}

/// A cable in memory: our end and the other.
fn memory() -> Result<Opened, OpenError> {
    let (ours, far) = cable(&MemoryConfig { wakeups: true, ..MemoryConfig::default() })?;
    Ok((Box::new(ours), Some(far)))
}

/// Names the file that an error is about.
pub(crate) fn capture_error(path: &Path) -> impl FnOnce(CaptureError) -> OpenError + '_ {
    |source| OpenError::Capture { path: path.to_owned(), source }
}

/// Names the file that an error is about.
pub(crate) fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + '_ {
    |source| OpenError::File { path: path.to_owned(), source }
}
