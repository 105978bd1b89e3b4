//! A connected unix socket that hears of room to write only while it waits for some.
//!
//! The kernel tells a poller that waits for room of every message that the peer takes. Whoever answers requests one by one would be
//! woken once more for each, to find nothing to do: a switch that gets flow-mods one by one is woken three times instead of twice.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as Socket;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

/// See the module's text.
#[derive(Debug)]
pub struct UnixPipe {
    socket: AsyncFd<Socket>,
    /// The same socket once more, while there is no room to write.
    full: Option<AsyncFd<Socket>>,
}

/// Has the runtime say when `socket`, which is non-blocking, can be read or written.
#[allow(unsafe_code)]
fn watch(socket: Socket, what: Interest) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a socket of the standard library keeps its descriptor, open, until it is dropped, and nobody but the result has it.
    unsafe { AsyncFd::register_with_interest(socket, what) }.map_err(io::Error::from)
}

impl UnixPipe {
    /// Takes over a stream. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// What the operating system says.
    pub(super) fn new(s: UnixStream) -> io::Result<UnixPipe> {
        // It stays non-blocking.
        Ok(UnixPipe { socket: watch(s.into_std()?, Interest::READABLE)?, full: None })
    }
}

impl AsyncRead for UnixPipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let mut ready = ready!(this.socket.poll_read_ready(cx))?;
            let space = buf.initialize_unfilled();
            let wanted = space.len();
            match this.socket.get_ref().read(space) {
                Ok(n) => {
                    // There was no more: what comes next is told of. The end is told of even so.
                    if n > 0 && n < wanted {
                        ready.clear_ready();
                    }
                    buf.advance(n);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl AsyncWrite for UnixPipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            match this.socket.get_ref().write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                done => {
                    this.full = None;
                    return Poll::Ready(done);
                }
            }
            let full = match &mut this.full {
                Some(f) => f,
                none => none.insert(watch(this.socket.get_ref().try_clone()?, Interest::WRITABLE)?),
            };
            // Before it is tried again: room that comes after this is told of.
            ready!(full.poll_write_ready(cx))?.clear_ready();
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.get_ref().shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn pair() -> (UnixPipe, UnixPipe) {
        let (a, b) = UnixStream::pair().unwrap();
        (UnixPipe::new(a).unwrap(), UnixPipe::new(b).unwrap())
    }

    #[tokio::test]
    async fn what_does_not_fit_is_written_when_there_is_room() {
        let (mut a, mut b) = pair();
        let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            a.write_all(&sent).await.unwrap();
            assert!(a.full.is_none(), "it still waits for room");
            a.shutdown().await.unwrap();
            a
        });
        // It is full by now.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut got = Vec::new();
        tokio::time::timeout(Duration::from_secs(20), b.read_to_end(&mut got)).await.unwrap().unwrap();
        assert!(got == data);
        drop(writer.await.unwrap());
    }

    #[tokio::test]
    async fn the_end_is_heard_behind_data_and_by_who_waits() {
        let (mut a, mut b) = pair();
        a.write_all(b"last words").await.unwrap();
        drop(a);
        let mut buf = [0; 64];
        assert_eq!(b.read(&mut buf).await.unwrap(), 10);
        let end = tokio::time::timeout(Duration::from_secs(5), b.read(&mut buf)).await;
        assert_eq!(end.unwrap().unwrap(), 0);
        let (a, mut b) = pair();
        let waits = tokio::spawn(async move { b.read(&mut [0; 8]).await });
        tokio::task::yield_now().await;
        drop(a);
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), waits).await.unwrap().unwrap().unwrap(), 0);
    }

    #[tokio::test]
    async fn to_write_to_nobody_fails_and_waits_for_nothing() {
        let (mut a, b) = pair();
        // Full, then gone.
        let writer = tokio::spawn(async move { a.write_all(&vec![0; 3_000_000]).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(b);
        let r = tokio::time::timeout(Duration::from_secs(5), writer).await.unwrap().unwrap();
        assert!(r.is_err());
    }
}
