//! A switch that acknowledges everything and does nothing: how long the client takes by itself.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

// OpenFlow 1.4.0 7.1.1.
const HELLO: u8 = 0;
const ECHO_REQUEST: u8 = 2;
const BARRIER_REQUEST: u8 = 20;
const BUNDLE_CONTROL: u8 = 33;

/// Serves one connection after the other on a unix socket until it is dropped.
pub struct NullSwitch {
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NullSwitch {
    /// Listens on `path`.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn start(path: &Path) -> std::io::Result<NullSwitch> {
        let _ = std::fs::remove_file(path);
        let (listener, stop) = (UnixListener::bind(path)?, Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                // A client that goes away is none of our business.
                let _ = serve(stream);
            }
        });
        Ok(NullSwitch { path: path.to_owned(), stop, thread: Some(thread) })
    }
}

impl Drop for NullSwitch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Has it look.
        let _ = UnixStream::connect(&self.path);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

fn serve(mut s: UnixStream) -> std::io::Result<()> {
    let (mut buf, mut have) = (vec![0; 1 << 17], 0);
    loop {
        let n = s.read(&mut buf[have..])?;
        if n == 0 {
            return Ok(());
        }
        have += n;
        let (mut at, mut out) = (0, Vec::new());
        while let Some(header) = buf[at..have].first_chunk::<8>() {
            let len = usize::from(u16::from_be_bytes([header[2], header[3]])).max(8);
            if at + len > have {
                break;
            }
            let frame = &buf[at..at + len];
            let mut reply = frame.to_vec();
            match header[1] {
                HELLO => {
                    reply.truncate(8);
                    reply[2..4].copy_from_slice(&8u16.to_be_bytes());
                    out.extend(reply);
                }
                BUNDLE_CONTROL if len >= 16 => {
                    // Each request's reply has the next number.
                    reply[13] += 1;
                    out.extend(reply);
                }
                ECHO_REQUEST | BARRIER_REQUEST => {
                    reply[1] += 1;
                    out.extend(reply);
                }
                _ => {}
            }
            at += len;
        }
        buf.copy_within(at..have, 0);
        have -= at;
        s.write_all(&out)?;
    }
}
