//! The protocol's unit (IEEE 802.1AX-2014 6.4.2.3), and the frame it travels in.

/// Ethernet type of slow protocols (IEEE 802.3 annex 57A).
pub const ETH_TYPE: u16 = 0x8809;
/// Their group address (IEEE 802.3 annex 57A.3).
pub const DESTINATION: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x02];
/// Bytes of a unit behind the Ethernet header.
const PDU_BYTES: usize = 110;
const ETH_BYTES: usize = 14;
/// Subtypes of slow protocols (IEEE 802.3 table 57A-3).
const SUBTYPE_LACP: u8 = 1;
const SUBTYPE_MARKER: u8 = 2;
/// A collector that delays no frame says so with all ones: nothing is promised.
const MAX_DELAY: u16 = u16::MAX;

/// Bits of a port's state (IEEE 802.1AX-2014 6.4.2.3 n).
pub mod state {
    /// Speaks without being spoken to.
    pub const ACTIVITY: u8 = 0x01;
    /// Wants to hear every second.
    pub const TIMEOUT: u8 = 0x02;
    /// May be one of several.
    pub const AGGREGATION: u8 = 0x04;
    /// Is in the right aggregate.
    pub const SYNCHRONIZED: u8 = 0x08;
    /// Takes frames.
    pub const COLLECTING: u8 = 0x10;
    /// Sends frames.
    pub const DISTRIBUTING: u8 = 0x20;
    /// Has not heard from a partner.
    pub const DEFAULTED: u8 = 0x40;
    /// Has not heard in time.
    pub const EXPIRED: u8 = 0x80;

    /// The bits that are set, as people read them.
    pub fn words(s: u8) -> String {
        let names = [
            "activity",
            "timeout",
            "aggregation",
            "synchronized",
            "collecting",
            "distributing",
            "defaulted",
            "expired",
        ];
        names.iter().enumerate().filter(|(i, _)| s >> i & 1 != 0).map(|(_, n)| format!(" {n}")).collect()
    }
}

/// What one end says of itself, or of the other as it knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Info {
    /// Priority of the system; lower goes first.
    pub system_priority: u16,
    /// The system.
    pub system: [u8; 6],
    /// Ports with the same key may be aggregated.
    pub key: u16,
    /// Priority of the port; lower goes first.
    pub port_priority: u16,
    /// The port.
    pub port: u16,
    /// See [`state`].
    pub state: u8,
}

/// What goes first, by order: a system and its priority, a port and its.
pub type Precedence = (u16, [u8; 6], u16, u16);

impl Info {
    fn read(b: &[u8]) -> Option<Info> {
        let half = |at: usize| Some(u16::from_be_bytes(*b.get(at..)?.first_chunk()?));
        Some(Info {
            system_priority: half(0)?,
            system: *b.get(2..)?.first_chunk()?,
            key: half(8)?,
            port_priority: half(10)?,
            port: half(12)?,
            state: *b.get(14)?,
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.system_priority.to_be_bytes());
        out.extend(self.system);
        for half in [self.key, self.port_priority, self.port] {
            out.extend(half.to_be_bytes());
        }
        out.extend([self.state, 0, 0, 0]);
    }

    /// Orders ends: systems by priority and name, their ports likewise. Keys and states do not count.
    pub fn precedence(&self) -> Precedence {
        (self.system_priority, self.system, self.port_priority, self.port)
    }
}

/// What a frame of slow protocols is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// A unit: what the sender is, and what it takes us for.
    Pdu {
        /// The sender.
        actor: Info,
        /// Its partner.
        partner: Info,
    },
    /// A marker (IEEE 802.1AX-2014 6.5).
    Marker,
    /// Something else.
    Bad,
}

/// Reads a frame, below at most one VLAN tag.
pub fn read(frame: &[u8]) -> Received {
    pdu(frame).unwrap_or(Received::Bad)
}

fn pdu(frame: &[u8]) -> Option<Received> {
    let mut rest = frame.get(12..)?;
    if rest.starts_with(&[0x81, 0x00]) {
        rest = rest.get(4..)?;
    }
    let b = rest.strip_prefix(&ETH_TYPE.to_be_bytes())?;
    match *b.first()? {
        SUBTYPE_LACP if b.len() >= PDU_BYTES => {}
        SUBTYPE_MARKER => return Some(Received::Marker),
        _ => return None,
    }
    // Version 1 and later ones, which begin alike; type and length of each part.
    (b[1] >= 1 && b[2..4] == [1, 20] && b[22..24] == [2, 20]).then_some(())?;
    Some(Received::Pdu { actor: Info::read(&b[4..])?, partner: Info::read(&b[24..])? })
}

/// The frame from `source` that says `actor` and `partner`.
pub fn frame(source: [u8; 6], actor: &Info, partner: &Info) -> Vec<u8> {
    let mut out = Vec::with_capacity(ETH_BYTES + PDU_BYTES);
    out.extend(DESTINATION);
    out.extend(source);
    out.extend(ETH_TYPE.to_be_bytes());
    out.extend([SUBTYPE_LACP, 1, 1, 20]);
    actor.write(&mut out);
    out.extend([2, 20]);
    partner.write(&mut out);
    out.extend([3, 16]);
    out.extend(MAX_DELAY.to_be_bytes());
    out.resize(ETH_BYTES + PDU_BYTES, 0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(n: u8) -> Info {
        Info {
            system_priority: 65534,
            system: [n; 6],
            key: 2,
            port_priority: 0x1234,
            port: n.into(),
            state: state::ACTIVITY | state::EXPIRED,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let f = frame([2; 6], &info(1), &info(9));
        assert_eq!(f.len(), 124);
        assert_eq!(read(&f), Received::Pdu { actor: info(1), partner: info(9) });
        let mut tagged = f[..12].to_vec();
        tagged.extend([0x81, 0, 0, 5]);
        tagged.extend(&f[12..]);
        assert_eq!(read(&tagged), read(&f));
    }

    #[test]
    fn a_unit_is_the_bytes_of_the_standard() {
        let f = frame([2; 6], &info(1), &Info::default());
        assert_eq!(f[12..18], [0x88, 0x09, 1, 1, 1, 20]);
        assert_eq!(f[18..33], [0xff, 0xfe, 1, 1, 1, 1, 1, 1, 0, 2, 0x12, 0x34, 0, 1, 0x81]);
        assert_eq!(f[33..38], [0, 0, 0, 2, 20]);
        assert_eq!(f[56..60], [3, 16, 0xff, 0xff]);
    }

    #[test]
    fn what_is_cut_or_spoilt_is_bad_and_never_a_panic() {
        let f = frame([2; 6], &info(1), &info(9));
        for n in 0..f.len() {
            assert!(matches!(read(&f[..n]), Received::Bad), "{n}");
        }
        for at in 14..20 {
            let mut g = f.clone();
            g[at] = 0xee;
            assert!(at == 15 || at > 17 || read(&g) == Received::Bad, "{at}");
        }
        let mut marker = f.clone();
        marker[14] = 2;
        assert_eq!(read(&marker), Received::Marker);
    }

    #[test]
    fn states_have_words() {
        assert_eq!(state::words(0), "");
        assert_eq!(state::words(0x87), " activity timeout aggregation expired");
    }
}
