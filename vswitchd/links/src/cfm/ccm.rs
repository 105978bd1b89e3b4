//! The continuity check message (IEEE 802.1ag 21.6), with what Open vSwitch's extended mode puts into the space that ITU-T
//! Y.1731 reserves: an identifier of 64 bits, an interval in milliseconds, whether the sender is operational.

/// Ethernet type of connectivity fault management.
pub const ETH_TYPE: u16 = 0x8902;
/// Destination of messages (IEEE 802.1ag table 8-9, level 0).
pub const USUAL_DST: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x30];
/// Destination of messages in extended mode.
pub const EXTENDED_DST: [u8; 6] = [0x01, 0x23, 0x20, 0x00, 0x00, 0x30];
/// Bytes of a message; those without the TLV that ends it are taken too.
const MESSAGE_BYTES: usize = 75;
/// The opcode of continuity checks (IEEE 802.1ag table 21-4).
const OPCODE: u8 = 1;
/// Where the TLVs begin, from behind the header.
const TLV_OFFSET: u8 = 70;
/// Flag: the sender misses somebody (IEEE 802.1ag 21.6.1.1).
const REMOTE_DEFECT: u8 = 0x80;
/// Name of the maintenance association: domain "ovs", association "ovs", both as text (IEEE 802.1ag 21.6.5).
const ASSOCIATION: [u8; 10] = [4, 3, b'o', b'v', b's', 2, 3, b'o', b'v', b's'];

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ccm {
    /// Counts messages.
    pub sequence: u32,
    /// The sender misses somebody.
    pub remote_defect: bool,
    /// Code of the interval (IEEE 802.1ag table 21-16); 0 where `interval_ms` says it.
    pub interval: u8,
    /// The sender: its identifier in this association.
    pub mpid: u64,
    /// In extended mode: the interval, where it has no code.
    pub interval_ms: u16,
    /// In extended mode: the sender is not operational.
    pub down: bool,
    /// It is of the association that all of them here are of.
    pub ours: bool,
}

/// A VLAN tag's priority and identifier.
pub type Tag = Option<(u8, u16)>;

impl Ccm {
    /// Reads the message in a frame, below at most two VLAN tags. `None` when it is none.
    pub fn parse(frame: &[u8], extended: bool) -> Option<Ccm> {
        let mut rest = frame.get(12..)?;
        for _ in 0..2 {
            if matches!(rest.get(..2)?, [0x81, 0x00] | [0x88, 0xa8]) {
                rest = rest.get(4..)?;
            }
        }
        let m: &[u8; MESSAGE_BYTES - 1] = rest.strip_prefix(&ETH_TYPE.to_be_bytes())?.first_chunk()?;
        if m[1] != OPCODE {
            return None;
        }
        let half = |at: usize| u16::from_be_bytes([m[at], m[at + 1]]);
        let mpid64 = m[60..68].iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let association = &m[10..58];
        Some(Ccm {
            sequence: u32::from_be_bytes([m[4], m[5], m[6], m[7]]),
            remote_defect: m[2] & REMOTE_DEFECT != 0,
            interval: m[2] & 7,
            mpid: if extended { mpid64 } else { half(8).into() },
            interval_ms: half(58),
            down: extended && m[68] != 0,
            ours: association.starts_with(&ASSOCIATION)
                && association[ASSOCIATION.len()..].iter().all(|b| *b == 0),
        })
    }

    /// The frame that carries it.
    pub fn frame(&self, extended: bool, src: [u8; 6], tag: Tag) -> Vec<u8> {
        let mut f = Vec::with_capacity(18 + MESSAGE_BYTES);
        f.extend(if extended { EXTENDED_DST } else { USUAL_DST });
        f.extend(src);
        if let Some((priority, vid)) = tag {
            f.extend(0x8100u16.to_be_bytes());
            f.extend((u16::from(priority & 7) << 13 | vid & 0xfff).to_be_bytes());
        }
        f.extend(ETH_TYPE.to_be_bytes());
        let mut m = [0u8; MESSAGE_BYTES];
        m[1] = OPCODE;
        m[2] = self.interval & 7 | if self.remote_defect { REMOTE_DEFECT } else { 0 };
        m[3] = TLV_OFFSET;
        m[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        m[10..10 + ASSOCIATION.len()].copy_from_slice(&ASSOCIATION);
        // In extended mode nobody reads the short identifier.
        m[8..10].copy_from_slice(&(self.mpid as u16).to_be_bytes());
        if extended {
            m[58..60].copy_from_slice(&self.interval_ms.to_be_bytes());
            m[60..68].copy_from_slice(&self.mpid.to_be_bytes());
            m[68] = self.down.into();
        }
        f.extend(m);
        f
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was_sent() {
        let m = Ccm {
            sequence: 0x0102_0304,
            remote_defect: true,
            interval: 4,
            mpid: 8191,
            interval_ms: 0,
            down: false,
            ours: true,
        };
        let f = m.frame(false, [2; 6], None);
        assert_eq!(f.len(), 14 + 75);
        assert_eq!(f[14..24], [0, 1, 0x84, 70, 1, 2, 3, 4, 0x1f, 0xff]);
        assert_eq!(Ccm::parse(&f, false), Some(m));
        let x = Ccm { interval: 0, mpid: 1 << 40, interval_ms: 300, down: true, ..m };
        let tagged = x.frame(true, [2; 6], Some((5, 100)));
        assert_eq!(tagged[12..18], [0x81, 0, 0xa0, 100, 0x89, 0x02]);
        assert_eq!(Ccm::parse(&tagged, true), Some(x));
        // One byte may be missing.
        assert_eq!(Ccm::parse(&f[..f.len() - 1], false), Some(m));
        for n in 0..f.len() - 1 {
            assert_eq!(Ccm::parse(&f[..n], false), None);
        }
    }

    #[test]
    fn other_associations_and_other_messages_are_told_apart() {
        let m = Ccm {
            sequence: 1,
            remote_defect: false,
            interval: 3,
            mpid: 1,
            interval_ms: 0,
            down: false,
            ours: true,
        };
        let mut f = m.frame(false, [2; 6], None);
        f[24] = 1;
        assert!(!Ccm::parse(&f, false).unwrap().ours);
        f[15] = 3;
        assert_eq!(Ccm::parse(&f, false), None, "a loopback message");
    }
}
