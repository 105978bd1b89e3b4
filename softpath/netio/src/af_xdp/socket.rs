//! One socket: registered memory, rings, bound to one queue of an interface.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use device::{BufferPool, CellId};

use super::ring::{Consumer, Producer};
use super::{Attached, Hook, XdpMode};
use crate::netdev::{Netdev, OpenError, owned};

/// Entries of each ring, so also cells that a queue has waiting for frames, at most.
pub(super) const ENTRIES: u32 = 1024;
/// The kernel frees a queue a moment after its last socket was closed: how often binding is tried, and how far apart.
const BIND_TRIES: u32 = 50;
const BIND_PAUSE: Duration = Duration::from_millis(10);

pub(super) struct Rings {
    pub(super) fill: Producer<u64>,
    pub(super) completion: Consumer<u64>,
    pub(super) rx: Consumer<libc::xdp_desc>,
    pub(super) tx: Producer<libc::xdp_desc>,
}

/// A bound socket, shared by its two queues.
pub(super) struct Socket {
    fd: OwnedFd,
    interface: i32,
    /// After `fd`: it is dropped when the socket is closed.
    attached: Arc<Attached>,
}

impl Socket {
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Keeps cells that the kernel still has until the port is closed.
    pub(super) fn leave(&self, cells: impl Iterator<Item = CellId>) {
        self.attached.left.lock().extend(cells);
    }

    /// Whether the interface that it is bound to still exists.
    pub(super) fn has_interface(&self) -> bool {
        Netdev::open(&self.attached.name).is_ok_and(|n| n.index() == self.interface)
    }

    /// What the kernel dropped since the socket was made.
    pub(super) fn statistics(&self) -> Option<libc::xdp_statistics> {
        // SAFETY: plain data, for which zero is valid.
        let mut s: libc::xdp_statistics = unsafe { std::mem::zeroed() };
        get(&self.fd, libc::XDP_STATISTICS, &mut s).ok().map(|_| s)
    }
}

fn set<T>(fd: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: passes a live value and its size.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            option,
            (value as *const T).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads an option into plain data and returns how many bytes the kernel wrote.
fn get<T>(fd: &OwnedFd, option: libc::c_int, value: &mut T) -> io::Result<usize> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to a live value, of a type that is plain data.
    let rc = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_XDP, option, (value as *mut T).cast(), &mut len)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(len as usize) }
}

/// Makes the pool the socket's memory.
fn register(fd: &OwnedFd, pool: &BufferPool) -> io::Result<()> {
    let bytes = pool.cell_bytes();
    if !bytes.is_power_of_two() || !(2048..=4096).contains(&bytes) {
        return Err(io::Error::other(format!("buffers of {bytes} bytes; AF_XDP takes 2048 or 4096")));
    }
    let r = libc::xdp_umem_reg {
        addr: pool.memory().base().as_ptr() as u64,
        len: u64::from(pool.cells()) * bytes as u64,
        chunk_size: bytes as u32,
        headroom: 0,
        flags: 0,
        tx_metadata_len: 0,
    };
    set(fd, libc::XDP_UMEM_REG, &r)
}

fn map_rings(fd: &OwnedFd) -> io::Result<Rings> {
    for ring in
        [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING, libc::XDP_TX_RING]
    {
        set(fd, ring, &ENTRIES)?;
    }
    // SAFETY: plain data, for which zero is valid.
    let mut at: libc::xdp_mmap_offsets = unsafe { std::mem::zeroed() };
    if get(fd, libc::XDP_MMAP_OFFSETS, &mut at)? < size_of::<libc::xdp_mmap_offsets>() {
        return Err(io::Error::other("the kernel is older than 5.4: its rings have no wake-up flag"));
    }
    Ok(Rings {
        fill: Producer::map(fd, libc::XDP_UMEM_PGOFF_FILL_RING as i64, at.fr, ENTRIES)?,
        completion: Consumer::map(fd, libc::XDP_UMEM_PGOFF_COMPLETION_RING as i64, at.cr, ENTRIES)?,
        rx: Consumer::map(fd, libc::XDP_PGOFF_RX_RING, at.rx, ENTRIES)?,
        tx: Producer::map(fd, libc::XDP_PGOFF_TX_RING, at.tx, ENTRIES)?,
    })
}

fn bind(fd: &OwnedFd, interface: i32, queue: u32, how: u16) -> io::Result<()> {
    let a = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: how | libc::XDP_USE_NEED_WAKEUP,
        sxdp_ifindex: interface as u32,
        sxdp_queue_id: queue,
        sxdp_shared_umem_fd: 0,
    };
    let len = size_of::<libc::sockaddr_xdp>() as libc::socklen_t;
    for _ in 0..BIND_TRIES {
        // SAFETY: passes a live address and its size.
        let rc = unsafe { libc::bind(fd.as_raw_fd(), (&raw const a).cast(), len) };
        match rc {
            0 => return Ok(()),
            _ if io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(BIND_PAUSE);
            }
            _ => return Err(io::Error::last_os_error()),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EBUSY))
}

/// Opens and binds a socket.
pub(super) fn open(
    netdev: &Netdev,
    queue: u32,
    pool: &BufferPool,
    mode: XdpMode,
    attached: Arc<Attached>,
) -> Result<(Arc<Socket>, Rings), OpenError> {
    let name = netdev.name();
    let err = |op| move |e| OpenError::from_io(name, op, e);
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain system call; the result is checked.
    let fd = owned(unsafe { libc::socket(libc::AF_XDP, kind, 0) }).map_err(err("AF_XDP socket"))?;
    register(&fd, pool).map_err(err("register the buffers with AF_XDP"))?;
    let rings = map_rings(&fd).map_err(err("rings of AF_XDP"))?;
    let how = match (mode, attached.hook) {
        (XdpMode::NativeZeroCopy, _) => libc::XDP_ZEROCOPY,
        (XdpMode::BestEffort, Hook::Driver) => 0,
        _ => libc::XDP_COPY,
    };
    bind(&fd, netdev.index(), queue, how).map_err(err("bind an AF_XDP socket"))?;
    let mut options: libc::xdp_options = libc::xdp_options { flags: 0 };
    let asked = get(&fd, libc::XDP_OPTIONS, &mut options);
    let zero_copy = asked.is_ok() && options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0;
    tracing::debug!("{name}: AF_XDP on queue {queue}, zero-copy {zero_copy}, {:?}", attached.hook);
    if zero_copy {
        attached.zero_copy.store(true, Ordering::Relaxed);
    }
    let socket = Socket { fd, interface: netdev.index(), attached };
    Ok((Arc::new(socket), rings))
}
