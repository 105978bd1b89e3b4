//! The kernel's connections, over ctnetlink (`linux/netfilter/nfnetlink_conntrack.h`): told, and made to be forgotten. They are those of
//! the network namespace; the datapath's are among them.
//!
//! *Not here*: expectations, limits of zones, counters (off in kernels unless asked for).

use std::net::IpAddr;
use std::time::Duration;

use flow::{CtEnds, CtFilter};
use nix::errno::Errno;

use super::KdpError;
use super::genl::ask;
use crate::error::CodecError;
use crate::message::flag;
use crate::transport::Transport;
use crate::wire::{NESTED, Writer, attrs, exact, find, read_text, read_u8};

/// Messages of the subsystem (`NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*`).
const CT_GET: u16 = 0x101;
const CT_DELETE: u16 = 0x102;
/// Bytes of `struct nfgenmsg`.
const NFGEN: usize = 4;

const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const PROTOINFO: u16 = 4;
const HELP: u16 = 5;
const TIMEOUT: u16 = 7;
const MARK: u16 = 8;
const ID: u16 = 12;
const ZONE: u16 = 18;
const LABELS: u16 = 22;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Times that a dump which was interrupted is begun again.
const ATTEMPTS: usize = 4;
/// Connections that one dump takes in.
const MOST: usize = 1 << 20;

/// One direction of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Direction {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// IP protocol.
    pub proto: u8,
    /// Source port, or the identifier of an ICMP request.
    pub sport: u16,
    /// Destination port, or the identifier of an ICMP request.
    pub dport: u16,
    /// Type and code of an ICMP message.
    pub icmp: Option<(u8, u8)>,
}

impl Direction {
    fn is_like(&self, ends: &CtEnds) -> bool {
        ends.has((self.src, self.dst), (self.sport, self.dport), self.icmp.map_or(0, |i| i.0))
    }
}

impl Connection {
    /// Whether it is such as `which` says.
    pub fn is_like(&self, which: &CtFilter) -> bool {
        which.proto.is_none_or(|p| p == self.original.proto)
            && self.original.is_like(&which.original)
            && self.reply.is_like(&which.reply)
    }
}

impl Default for Direction {
    fn default() -> Self {
        let none = IpAddr::from([0, 0, 0, 0]);
        Direction { src: none, dst: none, proto: 0, sport: 0, dport: 0, icmp: None }
    }
}

/// A connection as the kernel tells it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Connection {
    /// As its first packet was before it was translated.
    pub original: Direction,
    /// As answers are before they are translated back.
    pub reply: Direction,
    /// Zone; 0 where the kernel has none.
    pub zone: u16,
    /// Mark.
    pub mark: u32,
    /// Label, bit 0 least significant.
    pub label: u128,
    /// TCP's state (`enum tcp_conntrack`).
    pub tcp_state: Option<u8>,
    /// How long it is remembered yet.
    pub left: Duration,
    /// Name of its helper.
    pub helper: Option<String>,
    /// The kernel's name for it.
    pub id: u32,
}

/// The connections of the host, by a socket of netfilter's.
pub struct Connections<T> {
    link: T,
    seq: u32,
}

impl<T: Transport> Connections<T> {
    /// By `link`.
    pub fn new(link: T) -> Self {
        Connections { link, seq: 0 }
    }

    fn request(&mut self, kind: u16, flags: u16, family: u8, body: impl FnOnce(&mut Writer)) -> Writer {
        self.seq = self.seq.wrapping_add(1).max(1);
        let mut w = Writer::new();
        let m = w.message(kind, flag::REQUEST | flags, self.seq);
        // nfgenmsg: family, version, resource.
        w.raw(&[family, 0, 0, 0]);
        body(&mut w);
        w.end_message(m);
        w
    }

    fn exchange(&mut self, w: &Writer, told: &mut dyn FnMut(&[u8])) -> Result<bool, KdpError> {
        ask(&mut self.link, w.bytes(), self.seq, "connections", PATIENCE, &mut |m| {
            told(m.body);
            Ok(())
        })
    }

    /// Every connection of a zone, or of all. What cannot be read of them is left out.
    ///
    /// # Errors
    /// [`KdpError`]: without nf_conntrack_netlink nothing is told.
    pub fn dump(&mut self, zone: Option<u16>) -> Result<Vec<Connection>, KdpError> {
        for attempt in 1.. {
            let w = self.request(CT_GET, flag::DUMP, 0, |_| {});
            let mut all = Vec::new();
            let broken = self.exchange(&w, &mut |b| {
                let wanted = |c: &Connection| zone.is_none_or(|z| c.zone == z);
                if let Some(c) = read(b).ok().filter(wanted).filter(|_| all.len() < MOST) {
                    all.push(c);
                }
            })?;
            if !broken {
                return Ok(all);
            }
            if attempt == ATTEMPTS {
                break;
            }
        }
        Err(std::io::Error::from(std::io::ErrorKind::Interrupted).into())
    }

    /// Has one forgotten. One that is not there any more is no error.
    ///
    /// # Errors
    /// [`KdpError`].
    pub fn forget(&mut self, c: &Connection) -> Result<(), KdpError> {
        let family = family_of(&c.original);
        let w = self.request(CT_DELETE, flag::ACK, family, |w| {
            put_direction(w, TUPLE_ORIG, &c.original);
            if c.zone != 0 {
                w.attr(ZONE, &c.zone.to_be_bytes());
            }
            // Not another one with the same ends.
            w.attr(ID, &c.id.to_be_bytes());
        });
        match self.exchange(&w, &mut |_| {}) {
            Err(KdpError::Refused { errno, .. }) if Errno::from_raw(errno) == Errno::ENOENT => Ok(()),
            other => other.map(drop),
        }
    }
}

fn family_of(d: &Direction) -> u8 {
    if d.src.is_ipv4() { nix::libc::AF_INET as u8 } else { nix::libc::AF_INET6 as u8 }
}

/// Numbers of the attributes of an ICMP message: identifier, type, code.
fn icmp_attrs(d: &Direction) -> [u16; 3] {
    if d.src.is_ipv4() { [4, 5, 6] } else { [7, 8, 9] }
}

fn put_direction(w: &mut Writer, kind: u16, d: &Direction) {
    let all = w.nest(kind | NESTED);
    let ip = w.nest(TUPLE_IP | NESTED);
    for (at, a) in [(1, d.src), (2, d.dst)] {
        match a {
            IpAddr::V4(a) => w.attr(at, &a.octets()),
            IpAddr::V6(a) => w.attr(at + 2, &a.octets()),
        }
    }
    w.end(ip);
    let proto = w.nest(TUPLE_PROTO | NESTED);
    w.u8(1, d.proto);
    match d.icmp {
        Some((icmp_type, code)) => {
            let [id, t, c] = icmp_attrs(d);
            w.attr(id, &d.sport.to_be_bytes());
            w.u8(t, icmp_type);
            w.u8(c, code);
        }
        None => {
            w.attr(2, &d.sport.to_be_bytes());
            w.attr(3, &d.dport.to_be_bytes());
        }
    }
    w.end(proto);
    w.end(all);
}

fn be16(what: &'static str, b: &[u8]) -> Result<u16, CodecError> {
    exact(what, b).map(u16::from_be_bytes)
}

fn be32(what: &'static str, b: &[u8]) -> Result<u32, CodecError> {
    exact(what, b).map(u32::from_be_bytes)
}

fn read_direction(b: &[u8]) -> Result<Direction, CodecError> {
    let (mut src, mut dst) = (None, None);
    for a in attrs(find(b, TUPLE_IP)?.ok_or(CodecError::Missing("addresses"))?) {
        let (at, v) = a?;
        let address = || match at {
            1 | 2 => exact::<4>("address", v).map(IpAddr::from),
            _ => exact::<16>("address", v).map(IpAddr::from),
        };
        match at {
            1 | 3 => src = Some(address()?),
            2 | 4 => dst = Some(address()?),
            _ => {}
        }
    }
    let none = CodecError::Missing("address");
    let (src, dst) = src.zip(dst).ok_or(none)?;
    let mut d = Direction { src, dst, ..Direction::default() };
    for a in attrs(find(b, TUPLE_PROTO)?.ok_or(CodecError::Missing("protocol"))?) {
        let (at, v) = a?;
        let (icmp_type, code) = d.icmp.unwrap_or_default();
        match at {
            1 => d.proto = read_u8("protocol", v)?,
            2 => d.sport = be16("port", v)?,
            3 => d.dport = be16("port", v)?,
            4 | 7 => (d.sport, d.dport) = (be16("identifier", v)?, be16("identifier", v)?),
            5 | 8 => d.icmp = Some((read_u8("type", v)?, code)),
            6 | 9 => d.icmp = Some((icmp_type, read_u8("code", v)?)),
            _ => {}
        }
    }
    Ok(d)
}

/// Reads a connection behind its netlink header.
fn read(b: &[u8]) -> Result<Connection, CodecError> {
    let b = b.get(NFGEN..).ok_or(CodecError::Length { what: "connection", wanted: NFGEN, found: b.len() })?;
    let end = |kind| find(b, kind)?.ok_or(CodecError::Missing("direction")).and_then(read_direction);
    let (original, reply) = (end(TUPLE_ORIG)?, end(TUPLE_REPLY)?);
    let mut c = Connection { original, reply, ..Connection::default() };
    for a in attrs(b) {
        match a? {
            (ZONE, v) => c.zone = be16("zone", v)?,
            (MARK, v) => c.mark = be32("mark", v)?,
            (TIMEOUT, v) => c.left = Duration::from_secs(be32("timeout", v)?.into()),
            (ID, v) => c.id = be32("id", v)?,
            // Words of the host's, the first the least significant.
            (LABELS, v) => c.label = u128::from_ne_bytes(exact("label", v)?),
            (HELP, v) => c.helper = find(v, 1)?.map(read_text),
            (PROTOINFO, v) => {
                if let Some(tcp) = find(v, 1)? {
                    c.tcp_state = find(tcp, 1)?.map(|s| read_u8("state", s)).transpose()?;
                }
            }
            _ => {}
        }
    }
    Ok(c)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io;

    use super::*;
    use crate::message::{kind, messages};

    /// Tells what it was given, for every request, and keeps the requests.
    #[derive(Default)]
    struct Told {
        answers: VecDeque<Vec<Answer>>,
        inbox: VecDeque<Vec<u8>>,
        requests: Vec<Vec<u8>>,
    }

    enum Answer {
        Connection(Connection, u16),
        Ack(i32),
        Done,
    }

    fn put(w: &mut Writer, c: &Connection) {
        w.raw(&[family_of(&c.original), 0, 0, 0]);
        put_direction(w, TUPLE_ORIG, &c.original);
        put_direction(w, TUPLE_REPLY, &c.reply);
        w.attr(TIMEOUT, &(c.left.as_secs() as u32).to_be_bytes());
        w.attr(MARK, &c.mark.to_be_bytes());
        w.attr(ID, &c.id.to_be_bytes());
        w.attr(ZONE, &c.zone.to_be_bytes());
        w.attr(LABELS, &c.label.to_ne_bytes());
        if let Some(s) = c.tcp_state {
            let (p, t) = (w.nest(PROTOINFO | NESTED), w.nest(1 | NESTED));
            w.u8(1, s);
            w.end(t);
            w.end(p);
        }
        if let Some(h) = &c.helper {
            let n = w.nest(HELP | NESTED);
            w.text(1, h);
            w.end(n);
        }
    }

    impl Transport for Told {
        fn send(&mut self, request: &[u8]) -> io::Result<()> {
            let seq = messages(request).next().unwrap().unwrap().seq;
            self.requests.push(request.to_vec());
            for a in self.answers.pop_front().unwrap_or_default() {
                let mut w = Writer::new();
                let m = match &a {
                    Answer::Connection(_, flags) => w.message(0x100, *flags, seq),
                    Answer::Ack(_) => w.message(kind::ERROR, 0, seq),
                    Answer::Done => w.message(kind::DONE, 0, seq),
                };
                match a {
                    Answer::Connection(c, _) => put(&mut w, &c),
                    Answer::Ack(errno) => w.raw(&(-errno).to_ne_bytes()),
                    Answer::Done => w.raw(&[0; 4]),
                }
                w.end_message(m);
                self.inbox.push_back(w.bytes().to_vec());
            }
            Ok(())
        }

        fn receive(&mut self, into: &mut Vec<u8>, _: Duration) -> io::Result<bool> {
            into.clear();
            self.inbox.pop_front().map_or(Ok(false), |b| {
                into.extend(b);
                Ok(true)
            })
        }
    }

    fn tcp(zone: u16) -> Connection {
        let end = |src: &str, dst: &str, sport, dport| Direction {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto: 6,
            sport,
            dport,
            icmp: None,
        };
        Connection {
            original: end("10.0.0.1", "10.0.0.2", 1000, 80),
            reply: end("10.0.0.2", "10.0.0.88", 80, 1000),
            zone,
            mark: 5,
            label: 1 << 100 | 7,
            tcp_state: Some(3),
            left: Duration::from_secs(86_399),
            helper: Some("ftp".into()),
            id: 77,
        }
    }

    fn icmp() -> Connection {
        let end = |src: &str, dst: &str, kind| Direction {
            src: src.parse().unwrap(),
            dst: dst.parse().unwrap(),
            proto: 58,
            sport: 9,
            dport: 9,
            icmp: Some((kind, 0)),
        };
        let (original, reply) = (end("fd00::1", "fd00::2", 128), end("fd00::2", "fd00::1", 129));
        Connection { original, reply, tcp_state: None, helper: None, mark: 0, label: 0, id: 78, ..tcp(0) }
    }

    #[test]
    fn connections_are_read_as_the_kernel_writes_them() {
        let all = vec![Answer::Connection(tcp(3), 2), Answer::Connection(icmp(), 2), Answer::Done];
        let mut k = Connections::new(Told { answers: [all].into(), ..Told::default() });
        assert_eq!(k.dump(None).unwrap(), [tcp(3), icmp()]);
        let all = vec![Answer::Connection(tcp(3), 2), Answer::Connection(icmp(), 2), Answer::Done];
        k.link.answers.push_back(all);
        assert_eq!(k.dump(Some(3)).unwrap(), [tcp(3)]);
    }

    #[test]
    fn an_interrupted_dump_is_begun_again_and_no_connection_is_told_twice() {
        let broken = || vec![Answer::Connection(tcp(0), 2 | flag::DUMP_INTR), Answer::Done];
        let whole = vec![Answer::Connection(tcp(0), 2), Answer::Done];
        let answers = [broken(), broken(), whole].into();
        let mut k = Connections::new(Told { answers, ..Told::default() });
        assert_eq!(k.dump(None).unwrap().len(), 1);
        k.link.answers = (0..9).map(|_| broken()).collect();
        assert!(matches!(k.dump(None), Err(KdpError::Io(_))));
        // Nothing comes at all.
        k.link.answers.clear();
        k.link.inbox.clear();
        assert!(matches!(k.dump(None), Err(KdpError::Io(_))));
    }

    #[test]
    fn one_that_is_forgotten_is_named_by_its_ends_its_zone_and_its_number() {
        let answers = [vec![Answer::Ack(0)], vec![Answer::Ack(2)], vec![Answer::Ack(1)]].into();
        let mut k = Connections::new(Told { answers, ..Told::default() });
        k.forget(&tcp(3)).unwrap();
        k.forget(&tcp(3)).unwrap();
        assert!(matches!(k.forget(&icmp()), Err(KdpError::Refused { errno: 1, .. })));
        let m = messages(&k.link.requests[0]).next().unwrap().unwrap();
        assert_eq!((m.kind, m.body[0]), (CT_DELETE, 2));
        let b = &m.body[NFGEN..];
        assert_eq!(read_direction(find(b, TUPLE_ORIG).unwrap().unwrap()).unwrap(), tcp(3).original);
        assert_eq!(find(b, ZONE).unwrap(), Some(&[0, 3][..]));
        assert_eq!(find(b, ID).unwrap(), Some(&[0, 0, 0, 77][..]));
        let m = messages(&k.link.requests[2]).next().unwrap().unwrap();
        assert_eq!(m.body[0], 10, "IPv6");
    }
}
