//! The system's log: datagrams to a unix socket or by UDP.
//!
//! A message that cannot be delivered at once is lost: a log must not stop a switch. Messages of the method `libc` go to
//! `/dev/log`, as the C library's do, named after the program (RFC 3164 4.1 without the time, which the receiver adds).

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::level::Level;

/// Facilities by name (RFC 5424 table 1).
const FACILITIES: [(&str, u8); 23] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("clock", 9),
    ("ftp", 11),
    ("ntp", 12),
    ("audit", 13),
    ("alert", 14),
    ("clock2", 15),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// Where Open vSwitch's daemons log to unless told otherwise.
pub(super) const DEFAULT_FACILITY: u8 = 3;
/// That of `--syslog-target` unless one is set.
const REMOTE_FACILITY: u8 = 16;

/// The number of a facility.
pub(super) fn facility(name: &str) -> Option<u8> {
    FACILITIES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| *v)
}

/// Severity of a level (RFC 5424 table 2).
pub(super) fn severity(l: Level) -> u8 {
    match l {
        Level::Off | Level::Emer => 1,
        Level::Err => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Dbg => 7,
    }
}

/// Why a method or target cannot be used.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum SyslogError {
    /// The method is none of those there are.
    #[error("unsupported syslog method '{0}'")]
    Method(String),
    /// The address is none, or has no socket.
    #[error("{0}: {1}")]
    Address(String, String),
}

#[derive(Debug)]
enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Socket {
    fn unix(path: &Path) -> Option<Socket> {
        let s = UnixDatagram::unbound().ok()?;
        s.set_nonblocking(true).ok()?;
        s.connect(path).ok()?;
        Some(Socket::Unix(s))
    }

    fn udp(to: &str, default_port: Option<u16>) -> Result<Socket, SyslogError> {
        let fail = |e: &dyn std::fmt::Display| SyslogError::Address(to.to_owned(), e.to_string());
        let with_port = match (to.to_socket_addrs(), default_port) {
            (Ok(a), _) => Ok(a),
            (Err(_), Some(p)) => (to, p).to_socket_addrs(),
            (Err(e), None) => Err(e),
        };
        let to: SocketAddr = with_port.map_err(|e| fail(&e))?.next().ok_or_else(|| fail(&"no address"))?;
        let here = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let open = || {
            let s = UdpSocket::bind(here)?;
            s.set_nonblocking(true)?;
            s.connect(to)?;
            Ok(s)
        };
        open().map(Socket::Udp).map_err(|e: std::io::Error| fail(&e))
    }

    fn send(&self, text: &str) {
        let _ = match self {
            Socket::Unix(s) => s.send(text.as_bytes()),
            Socket::Udp(s) => s.send(text.as_bytes()),
        };
    }
}

/// Where messages go.
#[derive(Debug, Default)]
pub(super) struct Syslog {
    socket: Option<Socket>,
    remote: Option<Socket>,
    /// As set; each way has its own otherwise.
    pub(super) facility: Option<u8>,
}

impl Syslog {
    /// By method (see `--syslog-method` in ovs-vswitchd(8)) and further target, as far as they are given.
    pub(super) fn open(method: Option<&str>, target: Option<&str>) -> Result<Syslog, SyslogError> {
        let socket = match method.unwrap_or("auto") {
            "auto" | "libc" => Socket::unix(Path::new("/dev/log")),
            "null" => None,
            m => match m.split_once(':') {
                Some(("unix", path)) => Socket::unix(Path::new(path)),
                Some(("udp", to)) => Some(Socket::udp(to, Some(514))?),
                _ => return Err(SyslogError::Method(m.to_owned())),
            },
        };
        let remote = target.map(|t| Socket::udp(t, Some(514))).transpose()?;
        Ok(Syslog { socket, remote, facility: None })
    }

    pub(super) fn is_open(&self) -> bool {
        self.socket.is_some() || self.remote.is_some()
    }

    /// Priority of a message of this level (RFC 5424 6.2.1).
    pub(super) fn priority(&self, l: Level) -> u8 {
        self.facility.unwrap_or(DEFAULT_FACILITY) * 8 + severity(l)
    }

    pub(super) fn send(&self, level: Level, program: &str, text: &str) {
        if let Some(s) = &self.socket {
            let pid = std::process::id();
            s.send(&format!("<{}>{program}[{pid}]: {text}", self.priority(level)));
        }
        if let Some(s) = &self.remote {
            let priority = self.facility.unwrap_or(REMOTE_FACILITY) * 8 + severity(level);
            s.send(&format!("<{priority}>1 - - {program} {} - - {text}", std::process::id()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_with_priority_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let there = UnixDatagram::bind(&path).unwrap();
        let remote = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = remote.local_addr().unwrap().to_string();
        let mut s = Syslog::open(Some(&format!("unix:{}", path.display())), Some(&target)).unwrap();
        let received = |s: &Syslog, l| {
            s.send(l, "vswitchd", "ovs|00001|x|ERR|y");
            let mut b = [0; 200];
            let n = there.recv(&mut b).unwrap();
            let first = String::from_utf8_lossy(&b[..n]).into_owned();
            let n = remote.recv(&mut b).unwrap();
            (first, String::from_utf8_lossy(&b[..n]).into_owned())
        };
        let pid = std::process::id();
        assert_eq!(
            received(&s, Level::Err),
            (
                format!("<27>vswitchd[{pid}]: ovs|00001|x|ERR|y"),
                format!("<131>1 - - vswitchd {pid} - - ovs|00001|x|ERR|y")
            )
        );
        s.facility = facility("LOCAL7");
        assert!(received(&s, Level::Dbg).0.starts_with("<191>"));
    }

    #[test]
    fn nobody_there_is_no_error_but_a_wrong_method_is() {
        assert!(!Syslog::open(Some("unix:/nonexistent/log"), None).unwrap().is_open());
        assert!(!Syslog::open(Some("null"), None).unwrap().is_open());
        assert!(matches!(Syslog::open(Some("pigeon"), None), Err(SyslogError::Method(_))));
        assert!(Syslog::open(Some("udp:nowhere at all"), None).is_err());
        assert_eq!(facility("nosuch"), None);
    }
}
