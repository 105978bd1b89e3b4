//! Byte streams and listeners behind [`Active`] and [`Passive`] names.
//!
//! A unix socket's file outlives a process that was killed. [`Listener::bind`] removes such a leftover, and only such: it
//! connects first and leaves the file alone when anybody answers or when it is not a socket. Two daemons that start
//! at the same moment are kept apart by the pid file, not here. A listener removes its file when it is dropped, if the file is
//! still its own.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};

use crate::address::{Active, MAX_UNIX_PATH_BYTES, Passive};
use crate::tls::{Tls, TlsError};

mod secure;
mod unix;

use secure::{Handshakes, TlsStream};
pub use unix::UnixPipe;

/// Connections the kernel queues before they are accepted.
const BACKLOG: u32 = 64;

/// Why a stream or listener could not be opened.
#[derive(thiserror::Error, Debug)]
pub enum StreamError {
    /// The name resolves to nothing.
    #[error("{name}: cannot resolve: {source}")]
    Resolve {
        /// Stream name.
        name: String,
        /// From the resolver.
        source: io::Error,
    },
    /// The operating system refused.
    #[error("{name}: {source}")]
    Io {
        /// Stream name.
        name: String,
        /// Its words.
        source: io::Error,
    },
    /// The deadline passed.
    #[error("{name}: no answer within {ms} ms")]
    TimedOut {
        /// Stream name.
        name: String,
        /// How long was waited, in milliseconds.
        ms: u128,
    },
    /// Another process listens there.
    #[error("{name}: another process answers there already")]
    InUse {
        /// Stream name.
        name: String,
    },
    /// There is no TLS to speak.
    #[error("{name}: {source}")]
    Tls {
        /// Stream name.
        name: String,
        /// What is missing or wrong.
        source: TlsError,
    },
    /// The TLS handshake failed: from the TLS library, or the peer's complaint.
    #[error("{name}: TLS handshake failed: {source}")]
    Handshake {
        /// Stream name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A file that is not a socket is in the way.
    #[error("{name}: a file that is not a socket is in the way")]
    NotASocket {
        /// Stream name.
        name: String,
    },
    /// The path does not fit a socket address.
    #[error("{name}: the path has {len} bytes, a unix socket's may have {MAX_UNIX_PATH_BYTES}")]
    PathTooLong {
        /// Stream name.
        name: String,
        /// Its length in bytes.
        len: usize,
    },
}

/// What `strerror(3)` says, without the number that the standard library appends.
pub fn os_words(e: &io::Error) -> String {
    let text = e.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

impl StreamError {
    /// What went wrong without the stream's name, as logs and status columns have it beside the name.
    pub fn words(&self) -> String {
        match self {
            StreamError::Io { source, .. } => os_words(source),
            StreamError::TimedOut { .. } => "Connection timed out".to_owned(),
            other => other.to_string(),
        }
    }
}

/// A connected byte stream.
#[derive(Debug)]
pub enum Stream {
    /// TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixPipe),
    /// TLS over TCP, after the handshake.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// The common name in the peer's certificate; `None` without TLS or without a name.
    pub fn peer_common_name(&self) -> Option<&str> {
        match self {
            Stream::Tls(s) => s.peer_common_name(),
            Stream::Tcp(_) | Stream::Unix(_) => None,
        }
    }

    /// Marks what is sent with a differentiated services code point, 0 to 63 (RFC 2474). A unix socket has none.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn set_dscp(&self, dscp: u8) -> io::Result<()> {
        use nix::sys::socket::{setsockopt, sockopt};
        let tcp = match self {
            Stream::Tcp(s) => s,
            Stream::Tls(s) => s.tcp(),
            Stream::Unix(_) => return Ok(()),
        };
        let class = i32::from(dscp) << 2;
        let set = if tcp.local_addr()?.is_ipv4() {
            setsockopt(tcp, sockopt::Ipv4Tos, &class)
        } else {
            setsockopt(tcp, sockopt::Ipv6TClass, &class)
        };
        set.map_err(io::Error::from)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_write(cx, buf),
        }
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_flush(cx),
            Stream::Unix(s) => Pin::new(s).poll_flush(cx),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_flush(cx),
        }
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Stream::Tls(s) => Pin::new(s.as_mut()).poll_shutdown(cx),
        }
    }
}

/// Connects to `to` within `deadline`. `default_port` stands in for a missing TCP port. Has no TLS.
///
/// # Errors
/// [`StreamError`].
pub async fn connect(to: &Active, default_port: u16, deadline: Duration) -> Result<Stream, StreamError> {
    connect_with(to, default_port, deadline, None).await
}

/// Connects to `to` within `deadline`, which includes the TLS handshake. `default_port` stands in for a missing TCP port.
///
/// # Errors
/// [`StreamError`], all but those about listening.
pub async fn connect_with(
    to: &Active,
    default_port: u16,
    deadline: Duration,
    tls: Option<&Tls>,
) -> Result<Stream, StreamError> {
    match tokio::time::timeout(deadline, connect_untimed(to, default_port, tls)).await {
        Ok(r) => r,
        Err(_) => Err(StreamError::TimedOut { name: to.to_string(), ms: deadline.as_millis() }),
    }
}

async fn connect_tcp(name: &str, host: &str, port: u16) -> Result<TcpStream, StreamError> {
    let failed = |source| StreamError::Io { name: name.to_owned(), source };
    let addrs = tokio::net::lookup_host((host, port))
        .await
        .map_err(|source| StreamError::Resolve { name: name.to_owned(), source })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for a in addrs {
        match TcpStream::connect(a).await {
            Ok(s) => {
                s.set_nodelay(true).map_err(failed)?;
                return Ok(s);
            }
            Err(e) => last = e,
        }
    }
    Err(failed(last))
}

async fn connect_untimed(to: &Active, default_port: u16, tls: Option<&Tls>) -> Result<Stream, StreamError> {
    let failed = |source| StreamError::Io { name: to.to_string(), source };
    match to {
        Active::Tcp { host, port } => {
            Ok(Stream::Tcp(connect_tcp(&to.to_string(), host, port.unwrap_or(default_port)).await?))
        }
        Active::Ssl { host, port } => {
            let (name, port) = (to.to_string(), port.unwrap_or(default_port));
            let tls = secure::configured(&name, tls)?;
            let tcp = connect_tcp(&name, host, port).await?;
            match secure::connect(&name, host, tcp, tls).await? {
                Some(s) => Ok(Stream::Tls(Box::new(s))),
                // Whom to believe is known now, and this peer is as good as any other.
                None => {
                    let tcp = connect_tcp(&name, host, port).await?;
                    let s = secure::connect(&name, host, tcp, tls).await?;
                    s.map(|s| Stream::Tls(Box::new(s))).ok_or_else(|| {
                        failed(io::Error::other(
                            "the file with the CA certificate vanished while it was made",
                        ))
                    })
                }
            }
        }
        Active::Unix(path) => {
            check_path(&to.to_string(), path)?;
            let s = UnixStream::connect(path).await.map_err(failed)?;
            Ok(Stream::Unix(UnixPipe::new(s).map_err(failed)?))
        }
    }
}

fn check_path(name: &str, path: &Path) -> Result<(), StreamError> {
    let len = path.as_os_str().len();
    if len > MAX_UNIX_PATH_BYTES {
        return Err(StreamError::PathTooLong { name: name.to_owned(), len });
    }
    Ok(())
}

/// The file of a unix listener: removed on drop if it is still the same file.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Best effort: whoever replaced the file owns it now, and a file that stays is removed by the next bind.
        if let Ok(m) = std::fs::symlink_metadata(&self.path)
            && (m.dev(), m.ino()) == (self.device, self.inode)
        {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, #[allow(dead_code, reason = "held for its drop")] SocketFile),
    Tls(Handshakes),
}

/// Accepts streams. Dropping it stops listening and removes a unix socket's file.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    name: String,
}

impl Listener {
    /// Listens on `on`. `default_port` stands in for a missing TCP port. Has no TLS. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`StreamError`], all but `TimedOut`.
    pub async fn bind(on: &Passive, default_port: u16) -> Result<Listener, StreamError> {
        Listener::bind_with(on, default_port, None).await
    }

    /// Listens on `on`. `default_port` stands in for a missing TCP port. Must be called within a tokio runtime. With
    /// `pssl:`, a task of that runtime makes the handshakes of several peers at a time, so that a slow one holds up nobody.
    ///
    /// # Errors
    /// [`StreamError`], all but `TimedOut`.
    pub async fn bind_with(
        on: &Passive,
        default_port: u16,
        tls: Option<&Tls>,
    ) -> Result<Listener, StreamError> {
        let name = on.to_string();
        let socket = match on {
            Passive::Tcp { host, port } => {
                Socket::Tcp(bind_tcp(&name, host.as_deref(), port.unwrap_or(default_port)).await?)
            }
            Passive::Ssl { host, port } => {
                let tls = secure::configured(&name, tls)?.clone();
                let tcp = bind_tcp(&name, host.as_deref(), port.unwrap_or(default_port)).await?;
                Socket::Tls(Handshakes::start(name.clone(), tcp, tls))
            }
            Passive::Unix(path) => bind_unix(&name, path)?,
        };
        Ok(Listener { socket, name })
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The TCP port it listens on; `None` for a unix socket.
    pub fn tcp_port(&self) -> Option<u16> {
        match &self.socket {
            Socket::Tcp(l) => l.local_addr().ok().map(|a| a.port()),
            Socket::Tls(h) => h.port(),
            Socket::Unix(..) => None,
        }
    }

    /// Waits for a connection and returns it with a name of the peer for messages: `tcp:ADDRESS:PORT`,
    /// `ssl:ADDRESS:PORT`, or `unix`.
    /// Dropping the future loses no connection.
    ///
    /// # Errors
    /// What `accept(2)` says. Errors of one connection and a lack of file descriptors look alike here: wait a little and
    /// call again.
    pub async fn accept(&self) -> io::Result<(Stream, String)> {
        match &self.socket {
            Socket::Tcp(l) => {
                let (s, peer) = l.accept().await?;
                s.set_nodelay(true)?;
                Ok((Stream::Tcp(s), format!("tcp:{peer}")))
            }
            Socket::Tls(h) => {
                let (s, peer) = h.next().await?;
                Ok((Stream::Tls(Box::new(s)), peer))
            }
            Socket::Unix(l, _) => Ok((Stream::Unix(UnixPipe::new(l.accept().await?.0)?), "unix".to_owned())),
        }
    }
}

async fn bind_tcp(name: &str, host: Option<&str>, port: u16) -> Result<TcpListener, StreamError> {
    let failed = |source| StreamError::Io { name: name.to_owned(), source };
    let listen = |a: std::net::SocketAddr| -> io::Result<TcpListener> {
        let s = if a.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        s.set_reuseaddr(true)?;
        s.bind(a)?;
        s.listen(BACKLOG)
    };
    let Some(host) = host else {
        // Linux binds [::] for IPv4 as well; without IPv6 there is 0.0.0.0.
        let any6 = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
        let bound = match listen(any6) {
            Err(e) if e.kind() != io::ErrorKind::AddrInUse => {
                listen((std::net::Ipv4Addr::UNSPECIFIED, port).into())
            }
            other => other,
        };
        return bound.map_err(failed);
    };
    let addrs = tokio::net::lookup_host((host, port))
        .await
        .map_err(|source| StreamError::Resolve { name: name.to_owned(), source })?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "no address");
    for a in addrs {
        match listen(a) {
            Ok(l) => return Ok(l),
            Err(e) => last = e,
        }
    }
    Err(failed(last))
}

fn bind_unix(name: &str, path: &Path) -> Result<Socket, StreamError> {
    let failed = |source| StreamError::Io { name: name.to_owned(), source };
    check_path(name, path)?;
    let listener = match UnixListener::bind(path) {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            remove_leftover(name, path)?;
            UnixListener::bind(path).map_err(failed)?
        }
        other => other.map_err(failed)?,
    };
    let m = std::fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile { path: path.to_owned(), device: m.dev(), inode: m.ino() };
    Ok(Socket::Unix(listener, file))
}

/// Removes a socket that nobody listens on.
fn remove_leftover(name: &str, path: &Path) -> Result<(), StreamError> {
    let failed = |source| StreamError::Io { name: name.to_owned(), source };
    if !std::fs::symlink_metadata(path).map_err(failed)?.file_type().is_socket() {
        return Err(StreamError::NotASocket { name: name.to_owned() });
    }
    // A non-blocking connect: a listener with a full backlog says EAGAIN and is alive.
    let probe = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::Stream,
        nix::sys::socket::SockFlag::SOCK_NONBLOCK | nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )
    .map_err(|e| failed(e.into()))?;
    let to = nix::sys::socket::UnixAddr::new(path).map_err(|e| failed(e.into()))?;
    match nix::sys::socket::connect(std::os::fd::AsRawFd::as_raw_fd(&probe), &to) {
        Err(nix::errno::Errno::ECONNREFUSED) => std::fs::remove_file(path).map_err(failed),
        // Gone meanwhile: fine, the next bind decides.
        Err(nix::errno::Errno::ENOENT) => Ok(()),
        Ok(()) | Err(nix::errno::Errno::EAGAIN) => Err(StreamError::InUse { name: name.to_owned() }),
        Err(e) => Err(failed(e.into())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    async fn talks(l: &Listener, to: &Active) {
        let (client, server) = tokio::join!(connect(to, 0, SOON), l.accept());
        let (mut c, (mut s, peer)) = (client.unwrap(), server.unwrap());
        c.write_all(b"ping").await.unwrap();
        let mut got = [0; 4];
        s.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"ping", "from {peer}");
    }

    #[tokio::test]
    async fn tcp_and_unix_streams_carry_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let l = Listener::bind(&Passive::Unix(path.clone()), 0).await.unwrap();
        talks(&l, &Active::Unix(path.clone())).await;
        drop(l);
        assert!(!path.exists(), "the listener removes its socket");

        let on = Passive::Tcp { host: Some("127.0.0.1".into()), port: Some(0) };
        let l = Listener::bind(&on, OPENFLOW).await.unwrap();
        talks(&l, &Active::Tcp { host: "127.0.0.1".into(), port: l.tcp_port() }).await;
    }

    #[tokio::test]
    async fn packets_are_marked_with_the_code_point_that_was_asked_for() {
        use nix::sys::socket::{getsockopt, sockopt};
        for (host, v4) in [("127.0.0.1", true), ("::1", false)] {
            let on = Passive::Tcp { host: Some(host.into()), port: Some(0) };
            let l = Listener::bind(&on, OPENFLOW).await.unwrap();
            let s = connect(&Active::Tcp { host: host.into(), port: l.tcp_port() }, 0, SOON).await.unwrap();
            s.set_dscp(46).unwrap();
            let Stream::Tcp(tcp) = &s else { panic!("{s:?}") };
            let class = match v4 {
                true => getsockopt(tcp, sockopt::Ipv4Tos).unwrap(),
                false => getsockopt(tcp, sockopt::Ipv6TClass).unwrap(),
            };
            assert_eq!(class, 46 << 2, "{host}");
        }
    }

    const OPENFLOW: u16 = crate::address::OPENFLOW_PORT;

    #[tokio::test]
    async fn a_leftover_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let on = Passive::Unix(path.clone());
        // What a killed process leaves: a bound socket file without a listener.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let live = Listener::bind(&on, 0).await.unwrap();
        assert!(matches!(Listener::bind(&on, 0).await, Err(StreamError::InUse { .. })));
        talks_after_refusal(&live, &path).await;
    }

    async fn talks_after_refusal(live: &Listener, path: &Path) {
        // The probe left one connection in the backlog; it is accepted first and closed.
        let (mut probe, _) = live.accept().await.unwrap();
        assert_eq!(probe.read(&mut [0; 1]).await.unwrap(), 0);
        talks(live, &Active::Unix(path.to_owned())).await;
    }

    #[tokio::test]
    async fn a_file_that_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let r = Listener::bind(&Passive::Unix(path.clone()), 0).await;
        assert!(matches!(r, Err(StreamError::NotASocket { .. })), "{r:?}");
        assert_eq!(std::fs::read(&path).unwrap(), b"data");
    }

    #[tokio::test]
    async fn a_listener_leaves_the_file_of_its_successor_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let first = Listener::bind(&Passive::Unix(path.clone()), 0).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let _second = Listener::bind(&Passive::Unix(path.clone()), 0).await.unwrap();
        drop(first);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn too_long_a_path_says_so() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        let r = Listener::bind(&Passive::Unix(path.clone()), 0).await;
        assert!(matches!(r, Err(StreamError::PathTooLong { len: 205, .. })), "{r:?}");
        let r = connect(&Active::Unix(path), 0, SOON).await;
        assert!(matches!(r, Err(StreamError::PathTooLong { .. })), "{r:?}");
    }
}
