//! Linux packet sockets: an interface's frames through TPACKET_V3 rings, and `sendmmsg` where a ring does not do for sending
//! ([`tx_ring`]).
//!
//! ```text
//!   mapping:  block 0 │ block 1 │ ...      the kernel fills a block with packets, then sets its status to USER;
//!             hdr pkt pkt ..               we copy them to buffers and set it back to KERNEL
//! ```
//!
//! A block is handed over when it is full or a millisecond after its first packet, so a lone packet waits up to that
//! long. What we send is not received again (PACKET_IGNORE_OUTGOING). A VLAN tag that the kernel took out of the frame is
//! put back, and a transport checksum that the sending host left unfinished is finished. Frames longer than a buffer (what
//! segmentation offload of a local peer makes) are dropped and counted: switch it off with
//! [`crate::netdev::disable_offloads`] on both ends.
//!
//! Source: packet(7), Documentation/networking/packet_mmap.rst.
#![allow(unsafe_code)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use device::{BATCH, BufferPool, IoError, PacketBatch, PacketBuf, RxQueue, TxQueue};

mod tx_ring;

use tx_ring::TxRing;

use crate::checksum;
use crate::netdev::{Netdev, OpenError, owned};
use crate::netdev_port::{Counters, NetdevPort, add};

const BLOCK_BYTES: usize = 1 << 17;
const BLOCKS: usize = 32;
/// After how many milliseconds the kernel hands over a block that is not full.
const BLOCK_TIMEOUT_MS: u32 = 1;
/// Empty polls between two looks at the socket's error state.
const ERROR_CHECK_EVERY: u32 = 64;

/// An interface opened for packet I/O. One queue pair.
pub type AfPacketPort = NetdevPort<AfPacketRx, AfPacketTx>;

/// Receives from an interface.
pub struct AfPacketRx {
    socket: OwnedFd,
    ring: Ring,
    block: usize,
    /// Packets left in the block in hand, and where the next one is.
    left: u32,
    at: usize,
    pool: BufferPool,
    /// Buffers taken from the pool ahead of need.
    spare: PacketBatch,
    empty_polls: u32,
    counters: Arc<Counters>,
}

/// How frames are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sending {
    /// From a ring where the interface is a device of hardware, else by copies.
    #[default]
    Fit,
    /// From a ring whatever the interface is.
    Ring,
    /// By copies.
    Copies,
}

/// Sends to an interface.
pub struct AfPacketTx {
    socket: OwnedFd,
    ring: Option<TxRing>,
    counters: Arc<Counters>,
}

/// Memory that a socket shares with the kernel.
struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is plain memory, reached only through the one Mapping.
unsafe impl Send for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and len are those of the mmap in `Mapping::new`; unmapped once.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

impl Mapping {
    fn new(socket: &OwnedFd, len: usize) -> io::Result<Self> {
        // SAFETY: maps the socket's ring at an address the kernel chooses; the result is checked.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_raw_fd(),
                0,
            )
        };
        match NonNull::new(p.cast::<u8>()) {
            Some(base) if p != libc::MAP_FAILED => Ok(Mapping { base, len }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The blocks that the kernel fills.
struct Ring(Mapping);

impl Ring {
    fn map(socket: &OwnedFd) -> io::Result<Self> {
        Mapping::new(socket, BLOCK_BYTES * BLOCKS).map(Ring)
    }

    /// Word `w` (a 32-bit offset) of the descriptor of a block: version, private offset, status, packets, first packet.
    fn block_word(&self, block: usize, w: usize) -> &AtomicU32 {
        let at = (block % BLOCKS) * BLOCK_BYTES + w * 4;
        // SAFETY: within the mapping and aligned (blocks are page aligned, w is at most 4); the kernel shares it, hence
        // atomic; it lives as long as the ring.
        unsafe { AtomicU32::from_ptr(self.0.base.as_ptr().add(at).cast()) }
    }

    /// `n` bytes at `at` in a block that is ours; empty when they do not lie within it.
    fn bytes(&self, block: usize, at: usize, n: usize) -> &[u8] {
        if at.checked_add(n).is_none_or(|end| end > BLOCK_BYTES) {
            return &[];
        }
        // SAFETY: within the mapping, checked above; the block's status was read as USER with acquire ordering and it is not
        // given back while this borrow of the ring lives, so the kernel does not write it.
        unsafe {
            std::slice::from_raw_parts(self.0.base.as_ptr().add((block % BLOCKS) * BLOCK_BYTES + at), n)
        }
    }

    /// The packet header at `at` in a block that is ours.
    fn header(&self, block: usize, at: usize) -> Option<libc::tpacket3_hdr> {
        let b = self.bytes(block, at, size_of::<libc::tpacket3_hdr>());
        if b.is_empty() {
            return None;
        }
        // SAFETY: `b` has the size of the structure, which is plain data valid for any bytes; read unaligned.
        Some(unsafe { std::ptr::read_unaligned(b.as_ptr().cast()) })
    }
}

/// What frames in a ring are aligned to (TPACKET_ALIGNMENT).
const TPACKET_ALIGNMENT: usize = 16;

/// Pairs of queues of a port at most.
const MOST_QUEUES: u16 = 64;

const WORD_STATUS: usize = 2;
const WORD_PACKETS: usize = 3;
const WORD_FIRST: usize = 4;

fn set<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: passes a live value and its size.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (value as *const T).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn packet_socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain system call; protocol 0 receives nothing until it is bound.
    owned(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })
}

fn bind(socket: &OwnedFd, index: i32, protocol: u16) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain data, for which zero is valid.
    let mut a: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    a.sll_family = libc::AF_PACKET as u16;
    a.sll_protocol = protocol.to_be();
    a.sll_ifindex = index;
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: passes a live address and its size.
    let rc = unsafe { libc::bind(socket.as_raw_fd(), (&raw const a).cast(), len) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Makes a socket, which is bound, one of a group that shares what comes in; of a new group when none is given. The group's number.
fn join_fanout(socket: &OwnedFd, group: Option<u16>) -> io::Result<u16> {
    // A number of nobody else's is found by the kernel.
    let flags =
        libc::PACKET_FANOUT_FLAG_DEFRAG | if group.is_none() { libc::PACKET_FANOUT_FLAG_UNIQUEID } else { 0 };
    let what = (libc::PACKET_FANOUT_HASH | flags) << 16 | u32::from(group.unwrap_or(0));
    set(socket, libc::PACKET_FANOUT, &what)?;
    if let Some(g) = group {
        return Ok(g);
    }
    let mut got = 0u32;
    let mut len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to a live integer.
    let rc = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_FANOUT,
            (&raw mut got).cast(),
            &mut len,
        )
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(got as u16) }
}

/// Keeps the interface in promiscuous mode for as long as the socket is open.
fn set_promiscuous(socket: &OwnedFd, netdev: &Netdev) -> io::Result<()> {
    let promiscuous = libc::packet_mreq {
        mr_ifindex: netdev.index(),
        mr_type: libc::PACKET_MR_PROMISC as u16,
        mr_alen: 0,
        mr_address: [0; 8],
    };
    set(socket, libc::PACKET_ADD_MEMBERSHIP, &promiscuous)
}

fn open_rx(netdev: &Netdev, pool: BufferPool, counters: Arc<Counters>) -> Result<AfPacketRx, OpenError> {
    let name = netdev.name();
    let err = |op| move |e| OpenError::from_io(name, op, e);
    let socket = packet_socket().map_err(err("packet socket"))?;
    set(&socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as libc::c_int))
        .map_err(err("TPACKET_V3"))?;
    let request = libc::tpacket_req3 {
        tp_block_size: BLOCK_BYTES as u32,
        tp_block_nr: BLOCKS as u32,
        tp_frame_size: 2048,
        tp_frame_nr: (BLOCK_BYTES / 2048 * BLOCKS) as u32,
        tp_retire_blk_tov: BLOCK_TIMEOUT_MS,
        tp_sizeof_priv: 0,
        tp_feature_req_word: 0,
    };
    set(&socket, libc::PACKET_RX_RING, &request).map_err(err("receive ring"))?;
    let ring = Ring::map(&socket).map_err(err("map receive ring"))?;
    set(&socket, libc::PACKET_IGNORE_OUTGOING, &1i32).map_err(err("PACKET_IGNORE_OUTGOING"))?;
    set_promiscuous(&socket, netdev).map_err(err("promiscuous mode"))?;
    bind(&socket, netdev.index(), libc::ETH_P_ALL as u16).map_err(err("bind"))?;
    Ok(AfPacketRx {
        socket,
        ring,
        block: 0,
        left: 0,
        at: 0,
        pool,
        spare: PacketBatch::new(),
        empty_polls: 0,
        counters,
    })
}

/// A socket that only sends; with `promiscuous` it keeps the interface in that mode all the same. A ring that the kernel does not
/// give is done without.
pub(crate) fn open_tx(
    netdev: &Netdev,
    counters: Arc<Counters>,
    promiscuous: bool,
    sending: Sending,
) -> Result<AfPacketTx, OpenError> {
    let name = netdev.name();
    let err = |op| move |e| OpenError::from_io(name, op, e);
    let socket = packet_socket().map_err(err("packet socket"))?;
    set(&socket, libc::PACKET_QDISC_BYPASS, &1i32).map_err(err("PACKET_QDISC_BYPASS"))?;
    if promiscuous {
        set_promiscuous(&socket, netdev).map_err(err("promiscuous mode"))?;
    }
    bind(&socket, netdev.index(), 0).map_err(err("bind"))?;
    let wanted = match sending {
        Sending::Fit => netdev.is_hardware(),
        Sending::Ring => true,
        Sending::Copies => false,
    };
    let with_ring = |mtu| {
        let ring = TxRing::new(mtu)?;
        set(&ring.socket, libc::PACKET_QDISC_BYPASS, &1i32)?;
        bind(&ring.socket, netdev.index(), 0)?;
        Ok::<_, io::Error>(ring)
    };
    let ring = if wanted { with_ring(netdev.mtu()?).ok() } else { None };
    Ok(AfPacketTx { socket, ring, counters })
}

impl AfPacketPort {
    /// Opens the interface called `name` in the calling thread's network namespace, in promiscuous mode. Received packets
    /// lie in buffers of `pool`. The interface is not brought up.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(name: &str, pool: &BufferPool) -> Result<Self, OpenError> {
        Self::open_queues(name, pool, 1)
    }

    /// As [`AfPacketPort::open`] with `n` pairs of queues, among which the kernel spreads what comes in by connections
    /// (PACKET_FANOUT_HASH).
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_queues(name: &str, pool: &BufferPool, n: u16) -> Result<Self, OpenError> {
        Self::open_with(name, pool, n, Sending::Fit)
    }

    /// As [`AfPacketPort::open_queues`], sending like that.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(name: &str, pool: &BufferPool, n: u16, sending: Sending) -> Result<Self, OpenError> {
        let netdev = Netdev::open(name)?;
        let counters = Arc::new(Counters::default());
        let mut queues = Vec::new();
        let mut group = None;
        for _ in 0..n.clamp(1, MOST_QUEUES) {
            let rx = open_rx(&netdev, pool.clone(), counters.clone())?;
            if n > 1 {
                let joined = join_fanout(&rx.socket, group);
                group = Some(joined.map_err(|e| OpenError::from_io(name, "PACKET_FANOUT", e))?);
            }
            queues.push((rx, open_tx(&netdev, counters.clone(), false, sending)?));
        }
        NetdevPort::with_queues(netdev, queues, counters)
    }
}

impl AfPacketRx {
    /// Makes sure that there is a block in hand with packets left.
    fn next_block(&mut self) -> bool {
        if self.left > 0 {
            return true;
        }
        if self.ring.block_word(self.block, WORD_STATUS).load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return false;
        }
        self.left = self.ring.block_word(self.block, WORD_PACKETS).load(Ordering::Relaxed);
        self.at = self.ring.block_word(self.block, WORD_FIRST).load(Ordering::Relaxed) as usize;
        if self.left == 0 {
            self.return_block();
        }
        self.left > 0
    }

    fn return_block(&mut self) {
        self.left = 0;
        self.ring.block_word(self.block, WORD_STATUS).store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.block = (self.block + 1) % BLOCKS;
    }

    /// Copies the next packet of the block in hand to a buffer; `None` when it had to be dropped.
    fn take_packet(&mut self) -> Option<PacketBuf> {
        let Some(h) = self.ring.header(self.block, self.at) else {
            // Cannot be: the kernel's offsets lie within the block.
            self.return_block();
            return None;
        };
        let data = self.ring.bytes(self.block, self.at + usize::from(h.tp_mac), h.tp_snaplen as usize);
        let c = &*self.counters;
        if h.tp_status & libc::TP_STATUS_LOSING != 0 {
            add(&c.rx_dropped, lost(&self.socket));
        }
        let mut buf = None;
        if data.len() < h.tp_len as usize || data.len() + 4 > self.pool.data_bytes() {
            add(&c.rx_errors, 1);
        } else {
            if self.spare.is_empty() {
                self.pool.alloc_burst(BATCH, &mut self.spare);
            }
            buf = self.spare.pop();
            match &mut buf {
                Some(p) => fill(p, data, &h),
                None => add(&c.rx_dropped, 1),
            }
        }
        self.left -= 1;
        self.at += h.tp_next_offset as usize;
        if self.left == 0 || h.tp_next_offset == 0 {
            self.return_block();
        }
        buf
    }

    /// The ring is empty: now and then looks whether the interface is still there, which also clears the error state that
    /// would keep the descriptor readable.
    fn check_error(&mut self) -> Result<(), IoError> {
        self.empty_polls += 1;
        if self.empty_polls < ERROR_CHECK_EVERY {
            return Ok(());
        }
        self.empty_polls = 0;
        let mut error: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `len` bytes to a live integer.
        let rc = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut error).cast(),
                &mut len,
            )
        };
        match error {
            _ if rc < 0 => Ok(()),
            0 => Ok(()),
            libc::ENETDOWN if bound_index(&self.socket) > 0 => Err(IoError::Down),
            libc::ENETDOWN | libc::ENODEV | libc::ENXIO => Err(IoError::Gone),
            e => Err(IoError::Os { op: "packet socket", source: io::Error::from_raw_os_error(e) }),
        }
    }
}

/// Interface index a socket is bound to; not positive when the interface is gone.
fn bound_index(socket: &OwnedFd) -> i32 {
    // SAFETY: sockaddr_ll is plain data, for which zero is valid.
    let mut a: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to a live address.
    let rc = unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut a).cast(), &mut len) };
    if rc < 0 { 0 } else { a.sll_ifindex }
}

/// Packets the kernel has dropped for want of room since the last call.
fn lost(socket: &OwnedFd) -> u64 {
    let mut s = MaybeUninit::<libc::tpacket_stats_v3>::zeroed();
    let mut len = size_of::<libc::tpacket_stats_v3>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to live memory; zero is valid for the plain structure.
    let (rc, s) = unsafe {
        let rc = libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            s.as_mut_ptr().cast(),
            &mut len,
        );
        (rc, s.assume_init())
    };
    if rc < 0 { 0 } else { u64::from(s.tp_drops) }
}

/// Copies a frame to an empty buffer that has room for it, puts its VLAN tag back and finishes its checksum.
fn fill(p: &mut PacketBuf, data: &[u8], h: &libc::tpacket3_hdr) {
    let tagged = h.tp_status & libc::TP_STATUS_VLAN_VALID != 0 && data.len() >= 12;
    let (head, tail) = data.split_at(if tagged { 12 } else { 0 });
    // Room was checked by the caller.
    let _ = p.extend(head);
    if tagged {
        let tpid = match h.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
            0 => 0x8100,
            _ => h.hv1.tp_vlan_tpid,
        };
        let _ = p.extend(&tpid.to_be_bytes());
        let _ = p.extend(&(h.hv1.tp_vlan_tci as u16).to_be_bytes());
    }
    let _ = p.extend(tail);
    if h.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0 {
        checksum::complete(p);
    }
}

impl RxQueue for AfPacketRx {
    /// # Errors
    /// [`IoError::Down`] while the interface is down, [`IoError::Gone`] when it was removed.
    fn rx_burst(&mut self, out: &mut PacketBatch) -> Result<usize, IoError> {
        let (mut n, mut bytes) = (0, 0);
        // A frame that is dropped counts too: a peer that sends nothing else does not keep the core here.
        for _ in 0..out.room() {
            if !self.next_block() {
                break;
            }
            if let Some(p) = self.take_packet() {
                n += 1;
                bytes += p.len() as u64;
                // There is room.
                let _ = out.push(p);
            }
        }
        if n == 0 {
            self.check_error()?;
            return Ok(0);
        }
        self.empty_polls = 0;
        add(&self.counters.rx_packets, n as u64);
        add(&self.counters.rx_bytes, bytes);
        Ok(n)
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.socket.as_fd())
    }

    fn dropped(&self) -> u64 {
        self.counters.rx_dropped.load(Ordering::Relaxed)
    }
}

impl AfPacketTx {
    /// Whether it sends from a ring.
    pub fn has_ring(&self) -> bool {
        self.ring.is_some()
    }

    /// Takes the first `n` packets out of the batch, which were sent.
    fn count_sent(&self, pkts: &mut PacketBatch, n: usize) {
        add(&self.counters.tx_packets, n as u64);
        add(&self.counters.tx_bytes, pkts.drain_front(n).map(|p| p.len() as u64).sum());
    }

    /// What it means that the kernel did not take the first packet: true when the others are to be tried, the first one being
    /// dropped where it is to blame.
    fn not_taken(&self, pkts: &mut PacketBatch, op: &'static str, e: io::Error) -> Result<bool, IoError> {
        match e.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS) => Ok(false),
            Some(libc::EINTR) => Ok(true),
            Some(libc::EMSGSIZE | libc::EINVAL) => {
                drop(pkts.drain_front(1));
                add(&self.counters.tx_errors, 1);
                Ok(true)
            }
            Some(libc::ENETDOWN) => Err(IoError::Down),
            Some(libc::ENXIO | libc::ENODEV) => Err(IoError::Gone),
            _ => Err(IoError::Os { op, source: e }),
        }
    }

    /// Sends the first `most` packets by copies; how many the kernel took.
    fn send_copies(&self, pkts: &mut PacketBatch, most: usize) -> Result<usize, io::Error> {
        let mut iov = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        for (v, p) in iov.iter_mut().zip(pkts.iter_mut()) {
            *v = libc::iovec { iov_base: p.as_mut_ptr().cast(), iov_len: p.len() };
        }
        // SAFETY: mmsghdr is plain data, for which zero is valid.
        let mut msgs: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (m, v) in msgs.iter_mut().zip(&mut iov) {
            m.msg_hdr.msg_iov = v;
            m.msg_hdr.msg_iovlen = 1;
        }
        let n = pkts.len().min(most) as libc::c_uint;
        // SAFETY: the first `n` messages point to live I/O vectors, which point to the packets' bytes, which are only read.
        let sent =
            unsafe { libc::sendmmsg(self.socket.as_raw_fd(), msgs.as_mut_ptr(), n, libc::MSG_DONTWAIT as _) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

impl TxQueue for AfPacketTx {
    /// # Errors
    /// [`IoError::Down`] while the interface is down, [`IoError::Gone`] when it was removed. A packet that the kernel does not
    /// accept (too long, too short) is dropped and counted.
    fn tx_burst(&mut self, pkts: &mut PacketBatch) -> Result<usize, IoError> {
        let all = pkts.len();
        while let Some(first) = pkts.iter().next().map(|p| p.len()) {
            let had = pkts.len();
            if let Some(ring) = self.ring.as_mut().filter(|r| r.fits(first)) {
                let kicked = ring.send(pkts);
                self.count_sent(pkts, kicked.sent);
                let go_on = match kicked.error {
                    Some(e) => self.not_taken(pkts, "send", e)?,
                    // The ring is full, or the next one does not fit.
                    None => kicked.sent > 0,
                };
                if !go_on {
                    break;
                }
                continue;
            }
            // One at a time where the others have a ring.
            let most = if self.ring.is_some() { 1 } else { had };
            match self.send_copies(pkts, most) {
                Ok(sent) => {
                    // Fewer: the next call says what it does not like about the first that is left.
                    self.count_sent(pkts, sent);
                    if sent == 0 {
                        break;
                    }
                }
                Err(e) => {
                    if !self.not_taken(pkts, "sendmmsg", e)? {
                        break;
                    }
                }
            }
        }
        Ok(all - pkts.len())
    }
}
