//! Interrupts as event file descriptors.
//!
//! VFIO signals MSI-X vectors through eventfds, and ports sleep on epoll, so an [`Interrupt`] is an eventfd everywhere;
//! the simulator writes to it what silicon would raise.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// One interrupt vector. Clones share the vector.
#[derive(Clone, Debug)]
pub struct Interrupt(Arc<OwnedFd>);

impl Interrupt {
    /// A new vector with nothing pending.
    ///
    /// # Errors
    /// When the process is out of file descriptors.
    #[allow(unsafe_code)]
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers; the result is checked before it becomes an owned descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd is a fresh descriptor that nobody else owns.
        Ok(Interrupt(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// The vector behind an event descriptor of another process, which never makes this one wait.
    ///
    /// # Errors
    /// When the descriptor cannot be made so.
    #[allow(unsafe_code)]
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: calls on a descriptor we own, without pointers.
        let done = unsafe {
            let flags = libc::fcntl(fd.as_raw_fd(), libc::F_GETFL);
            flags >= 0 && libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
        };
        if done { Ok(Interrupt(Arc::new(fd))) } else { Err(io::Error::last_os_error()) }
    }

    /// Raises the interrupt; the device's side.
    #[allow(unsafe_code)]
    pub fn raise(&self) {
        let one = 1u64;
        // SAFETY: writes 8 bytes from a live local to a descriptor we own. A full counter (EAGAIN) means pending, which
        // is all that matters.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Takes what is pending: how often it was raised since the last call, 0 when not.
    #[allow(unsafe_code)]
    pub fn take(&self) -> u64 {
        let mut n = 0u64;
        // SAFETY: reads 8 bytes into a live local from a non-blocking descriptor we own.
        let r = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut n).cast(), 8) };
        if r == 8 { n } else { 0 }
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raised_twice_is_taken_once_with_its_count() {
        let i = Interrupt::new().unwrap();
        assert_eq!(i.take(), 0);
        i.raise();
        i.clone().raise();
        assert_eq!(i.take(), 2);
        assert_eq!(i.take(), 0);
    }
}
