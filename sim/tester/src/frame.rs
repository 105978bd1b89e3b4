//! Frames of the generator: UDP over IPv4 with a signature at the end.
//!
//! ```text
//!   Ethernet 14 | IPv4 20 | UDP 8 | padding | magic 2 | flow 4 | serial 4 | departure, cycles 8
//! ```
//!
//! The UDP checksum is zero (none), so that the signature may be anything. Source address and destination address follow from flow and
//! lane; a device may decrement the TTL. Lengths are without FCS; a frame "of 64 bytes" on the wire is 60 here.

/// The shortest frame, without FCS.
pub const SHORTEST: usize = 60;
/// Bytes of a frame on the wire beside those here: FCS.
pub const FCS_BYTES: usize = 4;

const MAGIC: [u8; 2] = *b"Ht";
const SIGNATURE: usize = 18;

/// What a frame says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signature {
    /// Number of the flow.
    pub flow: u32,
    /// Frames of the flow before it.
    pub serial: u32,
    /// Cycle in which its first bit reached the device.
    pub departed: u64,
}

/// IPv4 source of a flow.
pub fn source(flow: u32) -> [u8; 4] {
    let [_, a, b, c] = flow.to_be_bytes();
    [10, a, b, c]
}

/// IPv4 destination of the frames of a lane.
pub fn destination(lane: u8) -> [u8; 4] {
    [198, 18, lane, 1]
}

/// A frame of `len` bytes without FCS, at least [`SHORTEST`], unsigned.
pub fn frame(flow: u32, lane: u8, len: usize) -> Vec<u8> {
    let len = len.max(SHORTEST);
    let mut f = vec![0u8; len];
    f[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    let total = (len - 14) as u16;
    f[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17]);
    f[16..18].copy_from_slice(&total.to_be_bytes());
    f[26..30].copy_from_slice(&source(flow));
    f[30..34].copy_from_slice(&destination(lane));
    let sum: u32 = f[14..34].as_chunks::<2>().0.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    f[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    f[34..36].copy_from_slice(&1024u16.to_be_bytes());
    f[36..38].copy_from_slice(&9u16.to_be_bytes());
    f[38..40].copy_from_slice(&(total - 20).to_be_bytes());
    f
}

/// Signs a frame.
pub fn sign(f: &mut [u8], s: Signature) {
    let Some(at) = f.len().checked_sub(SIGNATURE) else { return };
    f[at..at + 2].copy_from_slice(&MAGIC);
    f[at + 2..at + 6].copy_from_slice(&s.flow.to_be_bytes());
    f[at + 6..at + 10].copy_from_slice(&s.serial.to_be_bytes());
    f[at + 10..].copy_from_slice(&s.departed.to_be_bytes());
}

/// The signature of a frame; none when it has none.
pub fn signature(f: &[u8]) -> Option<Signature> {
    let s: &[u8; SIGNATURE] = f.last_chunk()?;
    let (magic, rest) = s.split_first_chunk::<2>()?;
    let (flow, rest) = rest.split_first_chunk::<4>()?;
    let (serial, rest) = rest.split_first_chunk::<4>()?;
    let departed = rest.first_chunk::<8>()?;
    (*magic == MAGIC).then(|| Signature {
        flow: u32::from_be_bytes(*flow),
        serial: u32::from_be_bytes(*serial),
        departed: u64::from_be_bytes(*departed),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_survives_in_the_shortest_frame_and_the_header_sum_is_right() {
        let mut f = frame(7, 2, 0);
        assert_eq!(f.len(), 60);
        let s = Signature { flow: 7, serial: 9, departed: 1 << 40 };
        sign(&mut f, s);
        assert_eq!(signature(&f), Some(s));
        assert_eq!(signature(&f[..10]), None);
        assert_eq!(signature(&frame(1, 1, 100)), None);
        let sum: u32 = f[14..34].chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1])).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}
