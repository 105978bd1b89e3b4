//! `ssl:` and `pssl:` streams: handshakes, and TLS records over TCP.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::StreamError;
use crate::tls::{Tls, TlsError, common_name};

/// How long a peer that connected to us may take for its handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Handshakes under way at a time; more wait in the kernel's queue.
const MAX_HANDSHAKES: usize = 256;
/// Streams that wait to be accepted after their handshake.
const READY: usize = 16;
/// Pause after a failed accept, which mostly means that file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A TLS connection after its handshake.
///
/// The TLS layer buffers what the socket does not take. A writer need not flush: what is left goes out with the next write or
/// read, whichever comes first.
#[derive(Debug)]
pub struct TlsStream {
    inner: tokio_rustls::TlsStream<TcpStream>,
    peer_common_name: Option<String>,
    /// Something written may still lie in the TLS layer.
    unflushed: bool,
    /// A writer waits to be woken by the socket: a reader must not take its place.
    writer_waits: bool,
}

impl TlsStream {
    fn new(inner: tokio_rustls::TlsStream<TcpStream>) -> Self {
        let certificates = inner.get_ref().1.peer_certificates();
        let peer_common_name = certificates.and_then(|c| c.first()).and_then(common_name);
        TlsStream { inner, peer_common_name, unflushed: false, writer_waits: false }
    }

    /// The common name in the peer's certificate.
    pub fn peer_common_name(&self) -> Option<&str> {
        self.peer_common_name.as_deref()
    }

    /// The connection under it.
    pub(super) fn tcp(&self) -> &TcpStream {
        self.inner.get_ref().0
    }

    fn chain(&self) -> &[CertificateDer<'static>] {
        self.inner.get_ref().1.peer_certificates().unwrap_or_default()
    }

    fn flush_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn note_writer<T>(&mut self, p: Poll<T>) -> Poll<T> {
        self.writer_waits = p.is_pending();
        p
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if !me.writer_waits
            && let Poll::Ready(Err(e)) = me.flush_records(cx)
        {
            return Poll::Ready(Err(e));
        }
        match Pin::new(&mut me.inner).poll_read(cx, buf) {
            // Without a closing alert, as Open vSwitch ends its connections: the protocol above knows whether it was
            // in the middle of something.
            Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            other => other,
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let p = Pin::new(&mut me.inner).poll_write(cx, buf);
        if let Poll::Ready(Ok(_)) = p {
            me.unflushed = true;
            if let Poll::Ready(Err(e)) = me.flush_records(cx) {
                return Poll::Ready(Err(e));
            }
        }
        me.note_writer(p)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let p = me.flush_records(cx);
        me.note_writer(p)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// The TLS configuration, which must be there.
pub(super) fn configured<'a>(name: &str, tls: Option<&'a Tls>) -> Result<&'a Tls, StreamError> {
    tls.ok_or_else(|| StreamError::Tls {
        name: name.to_owned(),
        source: TlsError::Unset { what: "a private key", option: "--private-key" },
    })
}

/// Makes the handshake on a connection that we opened. `None` when this one only told us whom to believe: connect
/// again.
pub(super) async fn connect(
    name: &str,
    host: &str,
    tcp: TcpStream,
    tls: &Tls,
) -> Result<Option<TlsStream>, StreamError> {
    let no_tls = |source| StreamError::Tls { name: name.to_owned(), source };
    let material = tls.material().map_err(no_tls)?;
    // Only a hint to the server; what is not a name of DNS is not sent.
    let server = ServerName::try_from(host.to_owned())
        .unwrap_or(ServerName::IpAddress(std::net::IpAddr::from([0u8; 4]).into()));
    let stream = TlsConnector::from(Arc::clone(&material.client))
        .connect(server, tcp)
        .await
        .map_err(|source| StreamError::Handshake { name: name.to_owned(), source })?;
    let stream = TlsStream::new(stream.into());
    match &material.bootstrap {
        Some(path) => {
            tls.bootstrap(path, stream.chain()).map_err(no_tls)?;
            Ok(None)
        }
        None => Ok(Some(stream)),
    }
}

async fn accept(name: &str, tcp: TcpStream, tls: &Tls) -> Result<TlsStream, StreamError> {
    let no_tls = |source| StreamError::Tls { name: name.to_owned(), source };
    let failed = |source| StreamError::Handshake { name: name.to_owned(), source };
    tcp.set_nodelay(true).map_err(failed)?;
    let material = tls.material().map_err(no_tls)?;
    let shaken = TlsAcceptor::from(Arc::clone(&material.server)).accept(tcp);
    let stream = match tokio::time::timeout(HANDSHAKE_DEADLINE, shaken).await {
        Ok(r) => {
            let shaken = r.map_err(failed)?;
            if let Some(server) = shaken.get_ref().1.server_name() {
                tracing::debug!(target: "stream_ssl", "connection indicated server name {server}");
            }
            TlsStream::new(shaken.into())
        }
        Err(_) => {
            return Err(StreamError::TimedOut { name: name.to_owned(), ms: HANDSHAKE_DEADLINE.as_millis() });
        }
    };
    if let Some(path) = &material.bootstrap {
        tls.bootstrap(path, stream.chain()).map_err(no_tls)?;
        return Err(failed(io::Error::other("it served to bootstrap; the peer has to connect again")));
    }
    Ok(stream)
}

/// Accepts TCP connections and makes their handshakes, several at a time, in a task that ends with this.
#[derive(Debug)]
pub(super) struct Handshakes {
    ready: Mutex<mpsc::Receiver<(TlsStream, String)>>,
    task: tokio::task::JoinHandle<()>,
    port: Option<u16>,
}

impl Drop for Handshakes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Handshakes {
    pub fn start(name: String, listener: TcpListener, tls: Tls) -> Self {
        let port = listener.local_addr().ok().map(|a| a.port());
        let (tx, rx) = mpsc::channel(READY);
        Handshakes { ready: Mutex::new(rx), task: tokio::spawn(run(name, listener, tls, tx)), port }
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The next stream whose handshake is done.
    pub async fn next(&self) -> io::Result<(TlsStream, String)> {
        self.ready.lock().await.recv().await.ok_or_else(|| io::Error::other("the listener has ended"))
    }
}

async fn run(name: String, listener: TcpListener, tls: Tls, ready: mpsc::Sender<(TlsStream, String)>) {
    let mut under_way = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = under_way.join_next(), if !under_way.is_empty() => continue,
            a = listener.accept(), if under_way.len() < MAX_HANDSHAKES => a,
        };
        match accepted {
            Ok((tcp, from)) => {
                let (tls, ready, peer) = (tls.clone(), ready.clone(), format!("ssl:{from}"));
                under_way.spawn(async move {
                    match accept(&peer, tcp, &tls).await {
                        // An error means that the listener is gone.
                        Ok(stream) => drop(ready.send((stream, peer)).await),
                        Err(e) => tracing::warn!(target: "stream_ssl", "{e}"),
                    }
                });
            }
            Err(e) => {
                tracing::warn!(target: "stream_ssl", "{name}: accept failed: {e}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
