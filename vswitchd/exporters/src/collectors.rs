//! Those who are told: UDP sockets, one for each target of a row.
//!
//! Nothing waits: a datagram that the kernel does not take now is lost, and counted. That a collector is not there is said in the
//! log once a minute.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use clock::Instant;

/// Most targets of one row.
pub const MOST: usize = 64;
/// Between complaints about a collector.
const QUIET: Duration = Duration::from_secs(60);

/// What became of a datagram, or of several.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sent {
    /// Times that a socket took it.
    pub ok: u64,
    /// Times that one did not.
    pub failed: u64,
}

impl std::ops::Add for Sent {
    type Output = Sent;

    fn add(mut self, o: Sent) -> Sent {
        self += o;
        self
    }
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, o: Sent) {
        self.ok += o.ok;
        self.failed += o.failed;
    }
}

/// Sockets to the targets of a row.
#[derive(Debug, Default)]
pub struct Collectors {
    all: Vec<Collector>,
    sent: Sent,
}

#[derive(Debug)]
struct Collector {
    target: String,
    socket: UdpSocket,
    complained: Option<Instant>,
}

/// The address that `target` names: `IP:PORT`, an IPv6 address in brackets, the port left out where there is a usual one.
pub fn parse_target(target: &str, usual_port: Option<u16>) -> Option<SocketAddr> {
    if let Ok(a) = target.parse::<SocketAddr>() {
        return Some(a);
    }
    let bare = target.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let ip = match bare {
        Some(v6) => IpAddr::V6(v6.parse::<Ipv6Addr>().ok()?),
        None => target.parse::<IpAddr>().ok()?,
    };
    Some(SocketAddr::new(ip, usual_port?))
}

impl Collectors {
    /// Opens a socket to each of `targets`. What is no target, or cannot be had, is said in the log and left out.
    pub fn open<'a>(targets: impl IntoIterator<Item = &'a String>, usual_port: Option<u16>) -> Collectors {
        let mut all = Vec::new();
        for target in targets.into_iter().take(MOST) {
            let opened = match parse_target(target, usual_port) {
                Some(to) => connect(to).map_err(|e| e.to_string()),
                None => Err("Invalid argument".to_owned()),
            };
            match opened {
                Ok(socket) => all.push(Collector { target: target.clone(), socket, complained: None }),
                Err(e) => {
                    tracing::warn!(target: "collectors", "couldn't open connection to collector {target} ({e})");
                }
            }
        }
        Collectors { all, sent: Sent::default() }
    }

    /// Whether there is nobody to tell.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The address from which the first of them is told.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.all.first().and_then(|c| c.socket.local_addr().ok()).map(|a| a.ip())
    }

    /// What became of what was sent since the last call.
    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    /// Sends a datagram to all of them.
    pub fn send(&mut self, datagram: &[u8], now: Instant) -> Sent {
        let mut sent = Sent::default();
        for c in &mut self.all {
            match c.socket.send(datagram) {
                Ok(_) => sent.ok += 1,
                Err(e) => {
                    sent.failed += 1;
                    if c.complained.is_none_or(|at| now.since(at) >= QUIET) {
                        c.complained = Some(now);
                        let target = &c.target;
                        tracing::warn!(target: "collectors", "{target}: sending to collector failed ({e})");
                    }
                }
            }
        }
        self.sent += sent;
        sent
    }
}

fn connect(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn targets_are_addresses_with_ports() {
        let p = |t| parse_target(t, None);
        assert_eq!(p("127.0.0.1:2055"), Some(([127, 0, 0, 1], 2055).into()));
        assert_eq!(p("[::1]:2055").map(|a| a.port()), Some(2055));
        assert_eq!(p("127.0.0.1"), None);
        assert_eq!(parse_target("127.0.0.1", Some(6343)), Some(([127, 0, 0, 1], 6343).into()));
        assert_eq!(parse_target("[::1]", Some(6343)).map(|a| a.port()), Some(6343));
        for bad in ["", "xyzzy", "xyzzy:1", "127.0.0.1:", "127.0.0.1:70000", "[::1", "::1]:2"] {
            assert_eq!(parse_target(bad, Some(1)), None, "{bad}");
        }
    }

    #[test]
    fn every_collector_gets_each_datagram_and_one_that_is_not_there_is_counted() {
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        here.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let targets = [here.local_addr().unwrap().to_string(), "xyzzy".to_owned(), gone.to_string()];
        let mut c = Collectors::open(&targets, None);
        for i in 0..3u8 {
            c.send(&[i], Instant::ZERO);
            let mut buf = [0; 8];
            assert_eq!(here.recv(&mut buf).unwrap(), 1);
            assert_eq!(buf[0], i);
        }
        let total = c.take_sent();
        assert_eq!(total.ok + total.failed, 6);
        assert!(total.ok >= 3 && total.failed >= 1, "{total:?}");
    }
}
