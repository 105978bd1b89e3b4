//! The far end of a port's cable: a datagram is an Ethernet frame without its check sequence.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Longest frame that is taken.
const FRAME_BYTES: usize = 65536;

/// See the module's text.
#[derive(Debug)]
pub struct Wire {
    socket: UnixDatagram,
    far: PathBuf,
}

impl Wire {
    pub(super) fn new(near: &Path, far: PathBuf) -> Result<Wire> {
        let socket = UnixDatagram::bind(near).with_context(|| near.display().to_string())?;
        Ok(Wire { socket, far })
    }

    /// Sends a frame into the machine.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        self.socket.send_to(frame, &self.far).with_context(|| self.far.display().to_string())?;
        Ok(())
    }

    /// The next frame that comes out within `limit`.
    ///
    /// # Errors
    /// What the system says.
    pub fn receive(&self, limit: Duration) -> Result<Option<Vec<u8>>> {
        self.socket.set_read_timeout(Some(limit.max(Duration::from_millis(1))))?;
        let mut b = vec![0; FRAME_BYTES];
        loop {
            return match self.socket.recv(&mut b) {
                Ok(n) => {
                    b.truncate(n);
                    Ok(Some(b))
                }
                // A signal, not the wire.
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
                Err(e) => Err(e.into()),
            };
        }
    }

    /// The next frame within `limit` for which `wanted` holds; others are passed over.
    ///
    /// # Errors
    /// What the system says.
    pub fn receive_that(&self, limit: Duration, wanted: &dyn Fn(&[u8]) -> bool) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.receive(left)? {
                Some(f) if wanted(&f) => return Ok(Some(f)),
                Some(_) => {}
                None if Instant::now() >= end => return Ok(None),
                None => {}
            }
        }
    }

    /// Throws away what has come.
    ///
    /// # Errors
    /// What the system says.
    pub fn drain(&self) -> Result<usize> {
        let mut n = 0;
        while self.receive(Duration::ZERO)?.is_some() {
            n += 1;
        }
        Ok(n)
    }
}
