//! The control packet (RFC 5880 4.1) over UDP and IPv4 (RFC 5881), as it is on the wire.

use std::net::Ipv4Addr;

/// Bytes of a control packet without authentication.
pub const MESSAGE_BYTES: usize = 24;
/// UDP port that control packets go to (RFC 5881 4).
pub const PORT: u16 = 3784;
/// The version of the protocol.
const VERSION: u8 = 1;
/// Ethernet, IPv4 without options, UDP.
const HEADERS: usize = 14 + 20 + 8;
/// TTL of what a neighbour has sent and nobody has forwarded (RFC 5881 5).
const FULL_TTL: u8 = 255;
/// Internetwork control (RFC 791 3.1).
const TOS: u8 = 0xc0;

/// State of a session (RFC 5880 4.1), in order of its numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// Held down by an administrator.
    AdminDown,
    /// Nothing is heard, or the other end hears nothing.
    Down,
    /// The other end is heard.
    Init,
    /// Both ends hear each other.
    Up,
}

impl State {
    fn from_bits(bits: u8) -> State {
        match bits & 3 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        }
    }

    /// As commands and the database have it.
    pub fn name(self) -> &'static str {
        match self {
            State::AdminDown => "admin_down",
            State::Down => "down",
            State::Init => "init",
            State::Up => "up",
        }
    }
}

/// Why a session changed its state last (RFC 5880 4.1): a number of five bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// None.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// The other end was not heard in time.
    pub const EXPIRED: Diagnostic = Diagnostic(1);
    /// The other end says that it is down.
    pub const NEIGHBOUR_DOWN: Diagnostic = Diagnostic(3);
    /// What follows this link on the path is down.
    pub const CONCATENATED_DOWN: Diagnostic = Diagnostic(6);

    /// Whether it says that the path is down though the session may be up.
    pub fn is_of_the_path(self) -> bool {
        matches!(self.0, 5 | 6 | 8)
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self.0 {
            0 => "No Diagnostic",
            1 => "Control Detection Time Expired",
            2 => "Echo Function Failed",
            3 => "Neighbor Signaled Session Down",
            4 => "Forwarding Plane Reset",
            5 => "Path Down",
            6 => "Concatenated Path Down",
            7 => "Administratively Down",
            8 => "Reverse Concatenated Path Down",
            _ => "Invalid Diagnostic",
        }
    }
}

/// Flags of a control packet (RFC 5880 4.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flags(pub u8);

impl Flags {
    /// For point to multipoint.
    pub const MULTIPOINT: u8 = 1;
    /// Packets are wanted on demand.
    pub const DEMAND: u8 = 1 << 1;
    /// Authenticated.
    pub const AUTHENTICATED: u8 = 1 << 2;
    /// Independent of the control plane.
    pub const INDEPENDENT: u8 = 1 << 3;
    /// Answers a poll.
    pub const FINAL: u8 = 1 << 4;
    /// Wants an answer at once.
    pub const POLL: u8 = 1 << 5;

    /// Whether any of `bits` is set.
    pub fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }

    /// In words.
    pub fn words(self) -> String {
        const NAMES: [(u8, &str); 6] = [
            (Flags::MULTIPOINT, "multipoint"),
            (Flags::DEMAND, "demand"),
            (Flags::AUTHENTICATED, "auth"),
            (Flags::INDEPENDENT, "ctl"),
            (Flags::FINAL, "final"),
            (Flags::POLL, "poll"),
        ];
        let set: Vec<&str> = NAMES.iter().filter(|(b, _)| self.has(*b)).map(|(_, n)| *n).collect();
        if set.is_empty() { "none".into() } else { set.join(" ") }
    }
}

/// A control packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Why the sender changed its state last.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// Flags.
    pub flags: Flags,
    /// Packets in a row that the receiver has to miss.
    pub multiplier: u8,
    /// The sender's name of the session; never zero.
    pub mine: u32,
    /// The receiver's name of the session; zero while it is not known.
    pub yours: u32,
    /// Least interval at which the sender would like to send, microseconds.
    pub min_tx_us: u32,
    /// Least interval at which the sender can receive, microseconds.
    pub min_rx_us: u32,
}

/// Why a control packet is not taken (RFC 5880 6.8.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Not one of IPv4 and UDP, or too short.
    TooShort,
    /// Somebody may have forwarded it.
    Forwarded,
    /// Not of this version.
    Version,
    /// Authenticated, which nothing here can check.
    Authenticated,
    /// Its length field contradicts it.
    Length,
    /// A multiplier of zero.
    Multiplier,
    /// For point to multipoint.
    Multipoint,
    /// The sender's name of the session is zero.
    NoDiscriminator,
}

impl Message {
    /// Reads the control packet in a frame of Ethernet, IPv4 and UDP.
    ///
    /// # Errors
    /// Why it is not to be taken.
    pub fn parse(frame: &[u8]) -> Result<Message, Refused> {
        let (ttl, payload) = udp_payload(frame).ok_or(Refused::TooShort)?;
        if ttl != FULL_TTL {
            return Err(Refused::Forwarded);
        }
        let m: &[u8; MESSAGE_BYTES] = payload.first_chunk().ok_or(Refused::TooShort)?;
        let word = |at: usize| u32::from_be_bytes([m[at], m[at + 1], m[at + 2], m[at + 3]]);
        let flags = Flags(m[1] & 0x3f);
        match () {
            () if m[0] >> 5 != VERSION => Err(Refused::Version),
            () if flags.has(Flags::AUTHENTICATED) => Err(Refused::Authenticated),
            () if usize::from(m[3]) < MESSAGE_BYTES || usize::from(m[3]) > payload.len() => {
                Err(Refused::Length)
            }
            () if m[2] == 0 => Err(Refused::Multiplier),
            () if flags.has(Flags::MULTIPOINT) => Err(Refused::Multipoint),
            () if word(4) == 0 => Err(Refused::NoDiscriminator),
            () => Ok(Message {
                diagnostic: Diagnostic(m[0] & 0x1f),
                state: State::from_bits(m[1] >> 6),
                flags,
                multiplier: m[2],
                mine: word(4),
                yours: word(8),
                min_tx_us: word(12),
                min_rx_us: word(16),
            }),
        }
    }

    fn to_bytes(self) -> [u8; MESSAGE_BYTES] {
        let mut m = [0; MESSAGE_BYTES];
        m[0] = VERSION << 5 | self.diagnostic.0 & 0x1f;
        m[1] = (self.state as u8) << 6 | self.flags.0 & 0x3f;
        m[2] = self.multiplier;
        m[3] = MESSAGE_BYTES as u8;
        for (at, word) in [(4, self.mine), (8, self.yours), (12, self.min_tx_us), (16, self.min_rx_us)] {
            m[at..at + 4].copy_from_slice(&word.to_be_bytes());
        }
        m
    }

    /// The frame that carries it.
    pub fn frame(self, at: &Addresses) -> Vec<u8> {
        let mut f = Vec::with_capacity(HEADERS + MESSAGE_BYTES);
        f.extend(at.eth_dst);
        f.extend(at.eth_src);
        f.extend(0x0800u16.to_be_bytes());
        let ip_bytes = (20 + 8 + MESSAGE_BYTES) as u16;
        let mut ip = [0u8; 20];
        ip[0] = 0x45;
        ip[1] = TOS;
        ip[2..4].copy_from_slice(&ip_bytes.to_be_bytes());
        ip[8] = FULL_TTL;
        ip[9] = 17;
        ip[12..16].copy_from_slice(&at.ip_src.octets());
        ip[16..20].copy_from_slice(&at.ip_dst.octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        f.extend(ip);
        // The checksum of UDP over IPv4 may be left out (RFC 768).
        for half in [at.udp_src, PORT, (8 + MESSAGE_BYTES) as u16, 0] {
            f.extend(half.to_be_bytes());
        }
        f.extend(self.to_bytes());
        f
    }
}

/// From whom to whom a control packet goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Addresses {
    /// Ethernet source.
    pub eth_src: [u8; 6],
    /// Ethernet destination.
    pub eth_dst: [u8; 6],
    /// IPv4 source.
    pub ip_src: Ipv4Addr,
    /// IPv4 destination.
    pub ip_dst: Ipv4Addr,
    /// UDP source port.
    pub udp_src: u16,
}

fn checksum(header: &[u8; 20]) -> u16 {
    let sum: u32 = header.chunks_exact(2).map(|c| u32::from(u16::from_be_bytes([c[0], c[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum + (sum >> 16)) as u16)
}

/// TTL and payload of UDP over IPv4 in a frame, below at most two VLAN tags.
fn udp_payload(frame: &[u8]) -> Option<(u8, &[u8])> {
    let mut rest = frame.get(12..)?;
    for _ in 0..2 {
        if matches!(rest.get(..2)?, [0x81, 0x00] | [0x88, 0xa8]) {
            rest = rest.get(4..)?;
        }
    }
    let ip = rest.strip_prefix(&[0x08, 0x00])?;
    let header = usize::from(ip.first()? & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*ip.get(2)?, *ip.get(3)?]));
    if header < 20 || ip.first()? >> 4 != 4 || *ip.get(9)? != 17 {
        return None;
    }
    let udp = ip.get(header..total.min(ip.len()))?;
    Some((*ip.get(8)?, udp.get(8..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Addresses = Addresses {
        eth_src: [2, 0, 0, 0, 0, 1],
        eth_dst: [0, 0x23, 0x20, 0, 0, 1],
        ip_src: Ipv4Addr::new(169, 254, 1, 1),
        ip_dst: Ipv4Addr::new(169, 254, 1, 0),
        udp_src: 49152,
    };

    fn message() -> Message {
        Message {
            diagnostic: Diagnostic::EXPIRED,
            state: State::Init,
            flags: Flags(Flags::POLL),
            multiplier: 3,
            mine: 0x1234_5678,
            yours: 0,
            min_tx_us: 1_000_000,
            min_rx_us: 300_000,
        }
    }

    #[test]
    fn a_message_comes_back_as_it_was_sent() {
        let f = message().frame(&AT);
        assert_eq!(f.len(), 66);
        assert_eq!(f[42..46], [0x21, 0xa0, 3, 24], "RFC 5880 4.1: version 1, diagnostic 1, Init and poll");
        assert_eq!(checksum(f[14..34].try_into().unwrap()), 0, "the header's checksum checks");
        assert_eq!(Message::parse(&f), Ok(message()));
    }

    #[test]
    fn what_is_not_whole_or_not_meant_for_this_is_refused() {
        let good = message().frame(&AT);
        for n in 0..good.len() {
            assert_eq!(Message::parse(&good[..n]), Err(Refused::TooShort), "{n} bytes");
        }
        let with = |at: usize, byte: u8| {
            let mut f = good.clone();
            f[at] = byte;
            Message::parse(&f)
        };
        assert_eq!(with(22, 254), Err(Refused::Forwarded));
        assert_eq!(with(42, 0x41), Err(Refused::Version));
        assert_eq!(with(43, 0x84), Err(Refused::Authenticated));
        assert_eq!(with(43, 0x81), Err(Refused::Multipoint));
        assert_eq!(with(44, 0), Err(Refused::Multiplier));
        assert_eq!(with(45, 23), Err(Refused::Length));
        assert_eq!(with(45, 25), Err(Refused::Length));
        let mut f = good.clone();
        f[46..50].fill(0);
        assert_eq!(Message::parse(&f), Err(Refused::NoDiscriminator));
    }

    #[test]
    fn flags_have_words() {
        assert_eq!(Flags(0).words(), "none");
        assert_eq!(Flags(Flags::FINAL | Flags::DEMAND).words(), "demand final");
    }
}
