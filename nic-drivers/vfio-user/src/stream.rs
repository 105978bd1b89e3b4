//! A unix socket that carries messages with descriptors, neither longer nor slower than is bearable.

use std::io::{self, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::wire::{Body, HEADER_BYTES, Header, MAX_FDS};

/// Why a connection is of no use any more.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum LinkError {
    #[error("connection: {0}")]
    Io(#[from] io::Error),
    #[error("the other side has closed the connection")]
    Closed,
    #[error("the other side did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("the other side breaks the protocol: {0}")]
    Protocol(&'static str),
    #[error("{what} was refused: errno {errno}")]
    Refused { what: &'static str, errno: u32 },
}

/// A message.
pub(crate) struct Message {
    pub header: Header,
    pub body: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

fn timed_out(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Sends one message, all of it within `timeout`.
pub(crate) fn send(
    s: &UnixStream,
    header: Header,
    body: &Body,
    fds: &[RawFd],
    timeout: Duration,
) -> Result<(), LinkError> {
    let size = (HEADER_BYTES + body.0.len()) as u32;
    let mut all = Header { size, ..header }.encode().to_vec();
    all.extend(&body.0);
    s.set_write_timeout(Some(timeout))?;
    let slow = |e: io::Error| if timed_out(&e) { LinkError::TimedOut(timeout) } else { LinkError::Io(e) };
    let mut sent = 0;
    if !fds.is_empty() {
        sent = loop {
            match s.send_with_fds(&[&all[..]], fds) {
                Ok(n) => break n,
                Err(e) if e.errno() == nix::libc::EINTR => {}
                Err(e) => return Err(slow(io::Error::from_raw_os_error(e.errno()))),
            }
        };
    }
    (&*s).write_all(&all[sent..]).map_err(slow)
}

/// Receives one message, all of it within `timeout` once it has begun to come; `None` when the other side has closed.
pub(crate) fn receive(s: &UnixStream, timeout: Duration) -> Result<Option<Message>, LinkError> {
    let end = Instant::now() + timeout;
    let mut b = [0; HEADER_BYTES];
    s.set_read_timeout(Some(timeout))?;
    let Some((got, fds)) = first(s, &mut b, timeout)? else { return Ok(None) };
    rest(s, &mut b[got..], end, timeout)?;
    let header = Header::decode(&b);
    let n = header.body_bytes().ok_or(LinkError::Protocol("a message of a size that cannot be"))?;
    let mut body = vec![0; n];
    rest(s, &mut body, end, timeout)?;
    Ok(Some(Message { header, body, fds }))
}

/// The first bytes of a message, with its descriptors.
#[allow(unsafe_code)]
fn first(
    s: &UnixStream,
    b: &mut [u8],
    timeout: Duration,
) -> Result<Option<(usize, Vec<OwnedFd>)>, LinkError> {
    loop {
        let mut raw: [RawFd; MAX_FDS] = [-1; MAX_FDS];
        let mut iov = [nix::libc::iovec { iov_base: b.as_mut_ptr().cast(), iov_len: b.len() }];
        // SAFETY: the vector describes `b`, which is borrowed mutably for the call, and any bytes may be in it.
        let got = unsafe { s.recv_with_fds(&mut iov, &mut raw) };
        match got {
            Ok((n, k)) => {
                // SAFETY: the kernel has just put these descriptors into this process for this message; nobody else owns them.
                let fds =
                    raw[..k.min(MAX_FDS)].iter().map(|fd| unsafe { OwnedFd::from_raw_fd(*fd) }).collect();
                return Ok((n > 0).then_some((n, fds)));
            }
            Err(e) if e.errno() == nix::libc::EINTR => {}
            Err(e) => {
                let e = io::Error::from_raw_os_error(e.errno());
                return Err(if timed_out(&e) { LinkError::TimedOut(timeout) } else { LinkError::Io(e) });
            }
        }
    }
}

fn rest(s: &UnixStream, mut b: &mut [u8], end: Instant, timeout: Duration) -> Result<(), LinkError> {
    while !b.is_empty() {
        // A peer that drips is given up as one that says nothing.
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(LinkError::TimedOut(timeout));
        }
        s.set_read_timeout(Some(left))?;
        match (&*s).read(b) {
            Ok(0) => return Err(LinkError::Closed),
            Ok(n) => b = &mut b[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if timed_out(&e) => return Err(LinkError::TimedOut(timeout)),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
