//! The sending half of TPACKET_V3: frames are put into a ring that the kernel shares, and one system call sends a burst.
//!
//! ```text
//!   slot: │ tpacket3_hdr │ frame ...          AVAILABLE ─we─► SEND_REQUEST ─kernel─► SENDING ─device is done─► AVAILABLE
//! ```
//!
//! The kernel sends from the ring without a copy: what it hands to the device are the ring's own pages. A device of hardware
//! reads them and lets go. One that only hands the packet on within the host (veth, TAP) has the kernel move it to pages of its own
//! first, which costs more than a copy into a new packet does: so the ring is for hardware ([`super::Sending`], ADR 43).
//!
//! What the kernel does not take stays with the caller: its slots are taken back before the call returns. So nothing is sent
//! twice, or long after.
//!
//! Source: Documentation/networking/packet_mmap.rst.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use device::PacketBatch;

use super::{Mapping, TPACKET_ALIGNMENT, packet_socket, set};

/// Slots of a ring.
const SLOTS: usize = 256;
/// Longest slot; longer frames are copied.
const SLOT_MOST: usize = 1 << 14;
const BLOCK_BYTES: usize = 1 << 16;
/// Beyond an interface's MTU: Ethernet header, two VLAN tags.
const FRAME_OVERHEAD: usize = 14 + 8;
/// Where the frame begins in a slot (TPACKET3_HDRLEN without the address).
const FRAME_AT: usize = size_of::<libc::tpacket3_hdr>().next_multiple_of(TPACKET_ALIGNMENT);

/// A socket with a ring of frames to be sent.
pub(super) struct TxRing {
    pub(super) socket: OwnedFd,
    ring: Mapping,
    slot_bytes: usize,
    /// The slot that is filled next: where the kernel looks next.
    head: usize,
}

/// What became of a burst.
pub(super) struct Kicked {
    /// Packets that were sent.
    pub(super) sent: usize,
    /// Why the next one was not, when it was in the ring.
    pub(super) error: Option<io::Error>,
}

impl TxRing {
    /// A ring for frames of an interface of this MTU. The socket is to be bound by the caller.
    ///
    /// # Errors
    /// When the kernel does not give it.
    pub(super) fn new(mtu: usize) -> io::Result<Self> {
        let socket = packet_socket()?;
        set(&socket, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as libc::c_int))?;
        let slot_bytes = (FRAME_AT + mtu + FRAME_OVERHEAD).next_power_of_two().clamp(2048, SLOT_MOST);
        // Timeouts and private areas are of the receiving half.
        let request = libc::tpacket_req3 {
            tp_block_size: BLOCK_BYTES as u32,
            tp_block_nr: (SLOTS * slot_bytes / BLOCK_BYTES) as u32,
            tp_frame_size: slot_bytes as u32,
            tp_frame_nr: SLOTS as u32,
            tp_retire_blk_tov: 0,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(&socket, libc::PACKET_TX_RING, &request)?;
        let ring = Mapping::new(&socket, SLOTS * slot_bytes)?;
        Ok(TxRing { socket, ring, slot_bytes, head: 0 })
    }

    /// Whether a frame of so many bytes has room in a slot.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        bytes <= self.slot_bytes - FRAME_AT
    }

    fn slot(&self, i: usize) -> NonNull<u8> {
        // SAFETY: slots tile the mapping, and their number is taken modulo how many there are.
        unsafe { self.ring.base.add(i % SLOTS * self.slot_bytes) }
    }

    /// A slot's status.
    fn status(&self, i: usize) -> &AtomicU32 {
        let at = std::mem::offset_of!(libc::tpacket3_hdr, tp_status);
        // SAFETY: within the slot and aligned (slots are page parts of a power of two); the kernel shares it, hence atomic;
        // it lives as long as the mapping.
        unsafe { AtomicU32::from_ptr(self.slot(i).as_ptr().add(at).cast()) }
    }

    /// Puts a frame that fits into slot `i`, which is ours.
    fn write(&self, i: usize, frame: &[u8]) {
        // SAFETY: zero is valid for the plain structure.
        let mut h: libc::tpacket3_hdr = unsafe { std::mem::zeroed() };
        (h.tp_len, h.tp_snaplen) = (frame.len() as u32, frame.len() as u32);
        let to = self.slot(i).as_ptr();
        // SAFETY: header and frame lie within the slot (`fits`), which the kernel does not touch: its status was read as
        // available with acquire ordering and nobody else fills slots.
        unsafe {
            std::ptr::write_unaligned(to.cast(), h);
            std::ptr::copy_nonoverlapping(frame.as_ptr(), to.add(FRAME_AT), frame.len());
        }
    }

    /// Sends from the front of `pkts` what has room in the ring, and takes it out of the batch. Nothing is sent when the
    /// first frame does not fit or the ring is full.
    pub(super) fn send(&mut self, pkts: &mut PacketBatch) -> Kicked {
        let mut n = 0;
        for p in pkts.iter() {
            let i = self.head + n;
            if n == SLOTS
                || !self.fits(p.len())
                || self.status(i).load(Ordering::Acquire) != libc::TP_STATUS_AVAILABLE
            {
                break;
            }
            self.write(i, p);
            n += 1;
        }
        if n == 0 {
            return Kicked { sent: 0, error: None };
        }
        for i in 0..n {
            self.status(self.head + i).store(libc::TP_STATUS_SEND_REQUEST, Ordering::Release);
        }
        // SAFETY: sends what is in the ring; no memory is passed.
        let rc = unsafe { libc::send(self.socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT as _) };
        let mut error = (rc < 0).then(io::Error::last_os_error);
        let untaken = |s| s == libc::TP_STATUS_SEND_REQUEST || s == libc::TP_STATUS_WRONG_FORMAT;
        let taken = |i: &usize| !untaken(self.status(self.head + i).load(Ordering::Acquire));
        let sent = (0..n).take_while(taken).count();
        for i in sent..n {
            // The kernel goes on only when it is called again.
            self.status(self.head + i).store(libc::TP_STATUS_AVAILABLE, Ordering::Relaxed);
        }
        self.head = (self.head + sent) % SLOTS;
        if sent == n {
            error = None;
        }
        Kicked { sent, error }
    }
}
