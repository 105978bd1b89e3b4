//! The way to the kernel: requests out, datagrams back.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

/// Bytes of the receive buffer that are asked for: acknowledgements of a whole batch, with what was deleted, fit several times.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Largest datagram that is taken in; the kernel's dumps come in 32 KiB at most.
const MAX_DATAGRAM: usize = 1 << 17;
/// `MSG_TRUNC`: tells the length of a datagram that did not fit.
const MSG_TRUNC: i32 = 0x20;

/// A connection to the kernel's routing netlink family, or to what stands in for it.
pub trait Transport: Send {
    /// Sends messages. The kernel has carried them out when this returns; its answers wait to be received.
    ///
    /// # Errors
    /// The operating system's; nothing was carried out then.
    fn send(&mut self, messages: &[u8]) -> io::Result<()>;

    /// Replaces the contents of `into` with the next datagram, waiting for it up to `wait`. False when there was none.
    ///
    /// # Errors
    /// ENOBUFS when answers were lost because they did not fit into the receive buffer; others as the system gives them.
    fn receive(&mut self, into: &mut Vec<u8>, wait: Duration) -> io::Result<bool>;
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        (**self).send(messages)
    }
    fn receive(&mut self, into: &mut Vec<u8>, wait: Duration) -> io::Result<bool> {
        (**self).receive(into, wait)
    }
}

/// The real one.
#[derive(Debug)]
pub struct Kernel {
    socket: Socket,
    port: u32,
}

impl Kernel {
    /// Opens a socket in the network namespace of this thread. Needs CAP_NET_ADMIN for anything but reading.
    ///
    /// # Errors
    /// The operating system's.
    pub fn open() -> io::Result<Self> {
        Self::of(NETLINK_ROUTE)
    }

    /// The same for families of generic netlink.
    ///
    /// # Errors
    /// The operating system's.
    pub fn generic() -> io::Result<Self> {
        Self::of(NETLINK_GENERIC)
    }

    /// The same for netfilter's subsystems.
    ///
    /// # Errors
    /// The operating system's.
    pub fn netfilter() -> io::Result<Self> {
        Self::of(NETLINK_NETFILTER)
    }

    /// Number by which the kernel knows the socket.
    pub fn port(&self) -> u32 {
        self.port
    }

    fn of(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        let port = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        // Beyond the system's limit when this process may; else what the limit gives.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            let _ = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
        }
        Ok(Kernel { socket, port })
    }
}

impl Transport for Kernel {
    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        let n = self.socket.send(messages, 0)?;
        if n == messages.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self, into: &mut Vec<u8>, wait: Duration) -> io::Result<bool> {
        into.clear();
        into.reserve(MAX_DATAGRAM);
        // Mostly it is there already.
        match self.socket.recv(into, nix::libc::MSG_DONTWAIT | MSG_TRUNC) {
            Ok(n) => return whole(n, into),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && !wait.is_zero() => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) => return Err(e),
        }
        let ms = u16::try_from(wait.as_millis().max(1)).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(ms)) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        match self.socket.recv(into, nix::libc::MSG_DONTWAIT | MSG_TRUNC) {
            Ok(n) => whole(n, into),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// A datagram that was cut is as good as lost.
fn whole(n: usize, got: &[u8]) -> io::Result<bool> {
    if n > got.len() { Err(nix::errno::Errno::ENOBUFS.into()) } else { Ok(true) }
}
