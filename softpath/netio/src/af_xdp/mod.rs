//! AF_XDP sockets: frames of an interface's receive queues straight into buffers of the pool, and from them to the wire.
//!
//! ```text
//!   pool of cells = UMEM                                      cell of 2048 bytes
//!     fill ring ◄── empty cells          receive ring ──►     ├─ 256 room ─┬─ frame up to 1792 ─┤
//!     transmit ring ◄── cells to send    completion ring ──► cells that were sent
//! ```
//!
//! Each queue has a socket, and each socket registers the same pool, so a frame received on one port is sent from another
//! without being copied, as far as their drivers can ("zero-copy"; else the kernel copies once on either side). Registering
//! the memory for each socket, rather than sharing the first one's registration (XDP_SHARED_UMEM), lets ports come and go
//! independently; addresses are offsets into the same memory, so cells move between them all the same.
//!
//! A cell that the kernel has is in nobody's hands: [`CellTable`] keeps it until a ring gives it back. When the last queue of a
//! port is dropped its sockets are closed, the program is detached, then the cells go home. With zero-copy a driver may go on writing to what it was given for a
//! moment after that, and nothing tells when it stops: such cells stay away for good, and the log says how many.
//!
//! What the host's stack would do later must be done before: checksums, segmentation and VLAN tags of a local peer (a veth
//! pair's other end) are to be switched off with [`crate::netdev::disable_offloads`]. Frames longer than a cell's room are dropped
//! by the kernel and counted.
//!
//! The program that feeds the sockets is attached in the driver where it can be, else in the stack ([`XdpMode`]); while it is,
//! the host's stack sees nothing of the interface's frames.
//!
//! Source: Documentation/networking/af_xdp.rst, linux/if_xdp.h.
#![allow(unsafe_code)]

mod bpf;
mod ring;
mod rx;
mod socket;
mod tx;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::{BufferPool, CellId, PacketBuf};
use parking_lot::Mutex;

use crate::netdev::{Netdev, OpenError};
use crate::netdev_port::{Counters, NetdevPort};
use bpf::{Hook, Link, SocketMap};

pub use rx::AfXdpRx;
pub use tx::AfXdpTx;

/// Most queues of an interface that are opened. An interface with more is refused: frames of the others would be the host's.
const MAX_QUEUES: u32 = 64;

/// How frames get from the driver to the sockets. The names are Open vSwitch's (`options:xdp-mode`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum XdpMode {
    /// The best that the driver can: `best-effort`.
    #[default]
    BestEffort,
    /// By the driver, straight into the cells: `native-with-zerocopy`.
    NativeZeroCopy,
    /// By the driver, copied: `native`.
    Native,
    /// By the stack, copied, which works with every driver: `generic`.
    Generic,
}

impl XdpMode {
    /// The names, for messages.
    pub const NAMES: &str = "best-effort, native-with-zerocopy, native or generic";

    /// The mode of a name.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "best-effort" => XdpMode::BestEffort,
            "native-with-zerocopy" => XdpMode::NativeZeroCopy,
            "native" => XdpMode::Native,
            "generic" => XdpMode::Generic,
            _ => return None,
        })
    }

    fn hooks(self) -> &'static [Hook] {
        match self {
            XdpMode::BestEffort => &[Hook::Driver, Hook::Stack],
            XdpMode::NativeZeroCopy | XdpMode::Native => &[Hook::Driver],
            XdpMode::Generic => &[Hook::Stack],
        }
    }
}

/// An interface opened by AF_XDP: a pair of queues for each receive queue that it has.
pub type AfXdpPort = NetdevPort<AfXdpRx, AfXdpTx>;

impl AfXdpPort {
    /// Opens the interface called `name` in the calling thread's network namespace. Received packets lie in buffers of `pool`,
    /// whose cells have 2048 or 4096 bytes. The interface is not brought up.
    ///
    /// # Errors
    /// [`OpenError`]; among [`OpenError::Os`] EBUSY when another program is attached or another socket is bound, ENOBUFS when the
    /// pool cannot be locked into memory (`ulimit -l`).
    pub fn open(name: &str, pool: &BufferPool, mode: XdpMode) -> Result<Self, OpenError> {
        let netdev = Netdev::open(name)?;
        let err = |op| move |e| OpenError::from_io(name, op, e);
        let queues = netdev.rx_queues();
        if queues > MAX_QUEUES {
            let e = io::Error::other(format!("{queues} receive queues, at most {MAX_QUEUES} can be opened"));
            return Err(err("AF_XDP")(e));
        }
        let map = SocketMap::new(queues).map_err(err("map of XDP sockets"))?;
        let attached = Arc::new(attach(&netdev, &map, mode, pool)?);
        let counters = Arc::new(Counters::default());
        let mut pairs = Vec::new();
        for q in 0..queues {
            let (socket, rings) = socket::open(&netdev, q, pool, mode, attached.clone())?;
            map.set(q, socket.fd()).map_err(err("map of XDP sockets"))?;
            let rx = AfXdpRx::new(socket.clone(), rings.fill, rings.rx, pool.clone(), counters.clone());
            let tx = AfXdpTx::new(socket, rings.tx, rings.completion, pool.clone(), counters.clone());
            pairs.push((rx, tx));
        }
        NetdevPort::with_queues(netdev, pairs, counters)
    }
}

/// What the sockets of a port have in common. Dropped after the last of them is closed.
struct Attached {
    link: Option<Link>,
    hook: Hook,
    name: String,
    pool: BufferPool,
    zero_copy: AtomicBool,
    /// What queues that were dropped left with the kernel.
    left: Mutex<Vec<CellId>>,
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Nothing hands frames to the cells any more once this returns.
        self.link = None;
        let left = std::mem::take(&mut *self.left.lock());
        if self.zero_copy.load(Ordering::Relaxed) && !left.is_empty() {
            tracing::warn!(
                "{}: {} buffers stay with the driver: it may still write to them",
                self.name,
                left.len()
            );
            return;
        }
        for cell in left {
            drop(self.pool.reclaim(cell, 0, 0));
        }
    }
}

fn attach(netdev: &Netdev, map: &SocketMap, mode: XdpMode, pool: &BufferPool) -> Result<Attached, OpenError> {
    let mut last = None;
    for hook in mode.hooks() {
        match map.attach(netdev.index(), *hook) {
            Ok(link) => {
                if last.is_some() {
                    tracing::info!(
                        "{}: the driver takes no XDP program; it runs in the stack, slower",
                        netdev.name()
                    );
                }
                return Ok(Attached {
                    link: Some(link),
                    hook: *hook,
                    name: netdev.name().to_owned(),
                    pool: pool.clone(),
                    zero_copy: AtomicBool::new(false),
                    left: Mutex::default(),
                });
            }
            // Somebody else's program: the other hook would not be free either.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EBUSY | libc::EEXIST | libc::EPERM)) => {
                return Err(OpenError::from_io(netdev.name(), "attach an XDP program", e));
            }
            Err(e) => last = Some(e),
        }
    }
    let e = last.unwrap_or_else(|| io::Error::other("no way to attach"));
    Err(OpenError::from_io(netdev.name(), "attach an XDP program", e))
}

/// The cells that the kernel has, by their place in the pool.
struct CellTable {
    cells: Vec<Option<CellId>>,
    cell_bytes: usize,
    held: usize,
}

impl CellTable {
    fn new(pool: &BufferPool) -> Self {
        let cells = (0..pool.cells()).map(|_| None).collect();
        CellTable { cells, cell_bytes: pool.cell_bytes(), held: 0 }
    }

    /// Notes a packet's cell as the kernel's and returns where the packet's bytes are in the pool.
    fn give(&mut self, p: PacketBuf) -> u64 {
        let at = p.dma_offset();
        // A packet of the pool has its cell in the table; a cell in nobody's hands has one owner, so its place is free.
        if let Some(place) = self.cells.get_mut(at / self.cell_bytes) {
            *place = Some(p.into_cell());
            self.held += 1;
        }
        at as u64
    }

    /// The cell that holds byte `at` of the pool, if the kernel had it, and where in it that is.
    fn take(&mut self, at: u64) -> Option<(CellId, usize)> {
        let at = usize::try_from(at).ok()?;
        let cell = self.cells.get_mut(at / self.cell_bytes)?.take()?;
        self.held -= 1;
        Some((cell, at % self.cell_bytes))
    }

    /// All that are left.
    fn drain(&mut self) -> impl Iterator<Item = CellId> + '_ {
        self.held = 0;
        self.cells.iter_mut().filter_map(Option::take)
    }
}
