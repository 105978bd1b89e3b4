//! The program that hands an interface's frames to our sockets, its map, and the link that attaches it; by bpf(2).
//!
//! Six instructions: look the frame's receive queue up in the map of sockets and give it to the socket there; where there is
//! none the host's stack gets the frame. The link ends with its descriptor, so nothing stays attached when the process ends,
//! however it ends; dropping it detaches at once, whoever else (a child about to run another program) has the descriptor.
//!
//! Source: bpf(2), Documentation/bpf/map_xskmap.rst, linux/bpf.h.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use crate::netdev::owned;

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
const LINK_CREATE: libc::c_int = 28;
const LINK_DETACH: libc::c_int = 34;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// Helper function bpf_redirect_map().
const REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;
/// Offset of `rx_queue_index` in struct xdp_md.
const RX_QUEUE_INDEX: i16 = 16;

/// Where in the kernel a program runs (linux/if_link.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hook {
    /// In the driver, before there is a socket buffer: XDP_FLAGS_DRV_MODE.
    Driver,
    /// In the stack, with any driver: XDP_FLAGS_SKB_MODE.
    Stack,
}

impl Hook {
    fn flags(self) -> u32 {
        match self {
            Hook::Driver => 1 << 2,
            Hook::Stack => 1 << 1,
        }
    }
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct LinkDetach {
    link_fd: u32,
}

/// Keeps the program attached to an interface until it is dropped.
pub(super) struct Link(OwnedFd);

impl Drop for Link {
    fn drop(&mut self) {
        // An interface that is gone has let go already.
        let _ = bpf(LINK_DETACH, &LinkDetach { link_fd: self.0.as_raw_fd() as u32 });
    }
}

/// One instruction: operation, destination (low four bits) and source register, offset, immediate value.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_int> {
    // SAFETY: passes a live structure of a layout that the command takes, and its size; the addresses in it are those of values
    // that the caller keeps alive during the call.
    let rc = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const T, size_of::<T>()) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc as libc::c_int) }
}

/// Receive queue to socket.
pub(super) struct SocketMap(OwnedFd);

impl SocketMap {
    /// A map for `queues` queues.
    pub(super) fn new(queues: u32) -> io::Result<Self> {
        let a = MapCreate { map_type: MAP_TYPE_XSKMAP, key_size: 4, value_size: 4, max_entries: queues };
        Ok(SocketMap(owned(bpf(MAP_CREATE, &a)?)?))
    }

    /// Gives the frames of a queue to a bound socket.
    pub(super) fn set(&self, queue: u32, socket: &OwnedFd) -> io::Result<()> {
        let value = socket.as_raw_fd() as u32;
        let a = MapUpdate {
            map_fd: self.0.as_raw_fd() as u32,
            pad: 0,
            key: (&raw const queue) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        bpf(MAP_UPDATE_ELEM, &a).map(drop)
    }

    /// Loads the program.
    fn program(&self) -> io::Result<OwnedFd> {
        let op = |code, registers, offset, value| Instruction { code, registers, offset, value };
        let code = [
            // r2 = *(u32 *)(r1 + rx_queue_index)
            op(0x61, 0x12, RX_QUEUE_INDEX, 0),
            // r1 = the map: BPF_PSEUDO_MAP_FD, an instruction of two slots
            op(0x18, 0x11, 0, self.0.as_raw_fd()),
            op(0, 0, 0, 0),
            // r3 = what to do when the queue has no socket
            op(0xb7, 0x03, 0, XDP_PASS),
            op(0x85, 0, 0, REDIRECT_MAP),
            op(0x95, 0, 0, 0),
        ];
        let mut prog_name = [0; 16];
        prog_name[..9].copy_from_slice(b"hoist_xsk");
        let a = ProgLoad {
            prog_type: PROG_TYPE_XDP,
            insn_cnt: code.len() as u32,
            insns: code.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name,
        };
        owned(bpf(PROG_LOAD, &a)?)
    }

    /// Attaches the program to an interface.
    ///
    /// # Errors
    /// EBUSY when another program is attached; what the driver says when it cannot take one.
    pub(super) fn attach(&self, interface: i32, hook: Hook) -> io::Result<Link> {
        let program = self.program()?;
        let a = LinkCreate {
            prog_fd: program.as_raw_fd() as u32,
            target_ifindex: interface as u32,
            attach_type: ATTACH_XDP,
            flags: hook.flags(),
        };
        Ok(Link(owned(bpf(LINK_CREATE, &a)?)?))
    }
}
