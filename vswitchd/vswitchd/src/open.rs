//! Opens what is behind a port or a wire.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clock::Clock;
use device::{BufferPool, IoError, PacketIo};
use netio::af_packet::AfPacketPort;
use netio::memory::{MemoryConfig, MemoryPort, cable};
use netio::pcap::CaptureError;
use netio::tap::TapPort;

use crate::capture::CapturePort;
use crate::config::{PortKind, Wire};

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
    /// A capture file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's words.
        source: std::io::Error,
    },
}

/// Opens a port that is not on a device, received packets in buffers of `pool`. Interfaces are brought up.
///
/// # Errors
/// [`OpenError`].
pub fn port(kind: &PortKind, pool: &BufferPool, clock: &Arc<dyn Clock>) -> Result<Opened, OpenError> {
    match kind {
        PortKind::Sim { .. } => Err(IoError::Gone.into()),
        PortKind::AfPacket { interface } => Ok((af_packet(interface, pool)?, None)),
        PortKind::Tap { interface } => Ok((tap(interface, pool)?, None)),
        PortKind::Pcap { path, out } => {
            let p = CapturePort::open(path.as_deref(), out.as_deref(), pool, clock)?;
            Ok((Box::new(p), None))
        }
        PortKind::Memory => memory(),
    }
}

/// Opens what a device's wire ends in; `None` for a wire that ends in nothing.
///
/// # Errors
/// [`OpenError`].
pub fn wire(w: &Wire, pool: &BufferPool) -> Result<Option<Opened>, OpenError> {
    Ok(Some(match w {
        Wire::None => return Ok(None),
        Wire::AfPacket(interface) => (af_packet(interface, pool)?, None),
        Wire::Tap(interface) => (tap(interface, pool)?, None),
        Wire::Memory => memory()?,
    }))
}

fn af_packet(interface: &str, pool: &BufferPool) -> Result<Box<dyn PacketIo>, OpenError> {
    let p = AfPacketPort::open(interface, pool)?;
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
