//! What entries share: meters, headers that are put in front of frames, connections (SPEC 8).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ring::codes;
use crate::{DecodeError, front};

/// Longest header that can be put in front of a frame, in bytes.
pub const MAX_HEADER_BYTES: usize = 128;
/// The outer packet is IPv6, otherwise IPv4.
pub const HEADER_V6: u8 = 1 << 0;
/// The outer packet is UDP: the device writes source port and length.
pub const HEADER_UDP: u8 = 1 << 1;
/// The device writes a checksum over what follows the outer IP header: UDP's, or GRE's.
pub const HEADER_CSUM: u8 = 1 << 2;

/// What METER_SET reads, 32 bytes (SPEC 8.1). Exactly one of the rates is not zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MeterSpec {
    /// Packets per second.
    pub rate_pps: U64,
    /// Bits per second, of frames without FCS.
    pub rate_bps: U64,
    /// Packets or bits that may come at once beyond the rate; at least 1.
    pub burst: U64,
    /// Zero.
    pub reserved: U64,
}

/// What METER_READ writes, 40 bytes (SPEC 8.1): since the meter was set first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MeterRecord {
    /// Frames that met it.
    pub packets: U64,
    /// Their bytes.
    pub bytes: U64,
    /// Of them dropped.
    pub dropped_packets: U64,
    /// Their bytes.
    pub dropped_bytes: U64,
    /// Time since the last in nanoseconds, all ones if there was none.
    pub age_ns: U64,
}

/// What HEADER_SET reads, 136 bytes (SPEC 8.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct HeaderSpec {
    /// Bytes of the header.
    pub len: u8,
    /// Where the outer IP header begins.
    pub l3: u8,
    /// Where what follows it begins.
    pub l4: u8,
    /// `HEADER_` flags.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 4],
    /// The header; what depends on the frame is zero.
    pub bytes: [u8; MAX_HEADER_BYTES],
}

codes! {
    /// What has become of a connection.
    ConnState "connection state" {
        /// Its frames are forwarded.
        Established = 0,
        /// A SYN, FIN or RST was seen: its frames are the host's.
        Closing = 1,
        /// Past its time without a frame: its frames are the host's.
        Idle = 2,
    }
}

/// What CONN_SET reads, 64 bytes (SPEC 8.4). Ports and addresses are in wire order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnSpec {
    /// Source address of its first packet; IPv4 in the last four bytes.
    pub src: [u8; 16],
    /// Destination address, likewise.
    pub dst: [u8; 16],
    /// Source port.
    pub sport: [u8; 2],
    /// Destination port.
    pub dport: [u8; 2],
    /// 6 TCP, 17 UDP.
    pub proto: u8,
    /// 4 or 6.
    pub family: u8,
    /// Zone.
    pub zone: U16,
    /// Mark.
    pub mark: U32,
    /// How long it may be without a frame, in nanoseconds; not zero.
    pub timeout_ns: U64,
    /// Zero.
    pub reserved: [u8; 12],
}

/// What CONN_READ writes, 48 bytes (SPEC 8.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ConnRecord {
    /// Frames forwarded, in the direction of its first packet and against it.
    pub packets: [U64; 2],
    /// Their bytes.
    pub bytes: [U64; 2],
    /// Time since the last in nanoseconds, all ones if there was none.
    pub age_ns: U64,
    /// [`ConnState`].
    pub state: u8,
    /// Zero.
    pub reserved: [u8; 7],
}

impl ConnSpec {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; [`DecodeError::Invalid`] for another protocol or family, or a time of zero.
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        let c: ConnSpec = front(b)?;
        let invalid = |field, value| Err(DecodeError::Invalid { field, value });
        if !matches!(c.proto, 6 | 17) {
            return invalid("protocol", c.proto.into());
        }
        if !matches!(c.family, 4 | 6) {
            return invalid("family", c.family.into());
        }
        if c.timeout_ns.get() == 0 {
            return invalid("timeout", 0);
        }
        Ok(c)
    }
}

impl ConnRecord {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }
}

const _: () = assert!(size_of::<ConnSpec>() == 64);
const _: () = assert!(size_of::<ConnRecord>() == 48);
const _: () = assert!(size_of::<MeterSpec>() == 32);
const _: () = assert!(size_of::<MeterRecord>() == 40);
const _: () = assert!(size_of::<HeaderSpec>() == 136);

impl MeterSpec {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; [`DecodeError::Invalid`] unless exactly one rate is given, and a burst.
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        let m: MeterSpec = front(b)?;
        if (m.rate_pps.get() == 0) == (m.rate_bps.get() == 0) {
            return Err(DecodeError::Invalid { field: "meter rate", value: m.rate_pps.get() });
        }
        if m.burst.get() == 0 {
            return Err(DecodeError::Invalid { field: "meter burst", value: 0 });
        }
        Ok(m)
    }
}

impl MeterRecord {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }
}

impl HeaderSpec {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// A header; `None` when it is longer than [`MAX_HEADER_BYTES`] or its parts are not in it.
    pub fn new(header: &[u8], l3: usize, l4: usize, flags: u8) -> Option<Self> {
        let mut h = HeaderSpec::new_zeroed();
        h.bytes.get_mut(..header.len())?.copy_from_slice(header);
        (h.len, h.flags) = (header.len() as u8, flags);
        (h.l3, h.l4) = (u8::try_from(l3).ok()?, u8::try_from(l4).ok()?);
        h.is_sound().then_some(h)
    }

    /// The header's bytes.
    pub fn header(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&self.bytes)
    }

    /// Takes one from the front of `b`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`]; [`DecodeError::Invalid`] when its parts are not in it.
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        let h: HeaderSpec = front(b)?;
        if h.is_sound() { Ok(h) } else { Err(DecodeError::Invalid { field: "header", value: h.len.into() }) }
    }

    fn is_sound(&self) -> bool {
        let [len, l3, l4] = [self.len, self.l3, self.l4].map(usize::from);
        let ip = if self.flags & HEADER_V6 != 0 { 40 } else { 20 };
        let after = match (self.flags & HEADER_UDP != 0, self.flags & HEADER_CSUM != 0) {
            (true, _) => 8,
            (false, true) => 6,
            (false, false) => 0,
        };
        let known = HEADER_V6 | HEADER_UDP | HEADER_CSUM;
        self.flags & !known == 0
            && len <= MAX_HEADER_BYTES
            && l3 >= 14
            && l3.is_multiple_of(2)
            && l4 >= l3 + ip
            && l4.is_multiple_of(2)
            && l4 + after <= len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_has_one_rate_and_a_burst() {
        let m = |pps: u64, bps: u64, burst: u64| MeterSpec {
            rate_pps: pps.into(),
            rate_bps: bps.into(),
            burst: burst.into(),
            reserved: 0.into(),
        };
        let good = m(0, 1_000_000, 8000);
        assert_eq!(MeterSpec::decode(good.as_bytes()), Ok(good));
        for bad in [m(0, 0, 1), m(1, 1, 1), m(1, 0, 0)] {
            assert!(MeterSpec::decode(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(MeterSpec::decode(&good.as_bytes()[..31]).is_err());
    }

    #[test]
    fn a_header_holds_the_parts_it_names() {
        let h = HeaderSpec::new(&[7; 50], 14, 34, HEADER_UDP).unwrap();
        assert_eq!(HeaderSpec::decode(h.as_bytes()), Ok(h));
        assert_eq!(h.header(), [7; 50]);
        assert!(HeaderSpec::new(&[0; 129], 14, 34, HEADER_UDP).is_none());
        assert!(HeaderSpec::new(&[0; 41], 14, 34, HEADER_UDP).is_none(), "no room for UDP");
        assert!(HeaderSpec::new(&[0; 70], 14, 34, HEADER_UDP | HEADER_V6).is_none(), "IPv6 is longer");
        assert!(HeaderSpec::new(&[0; 70], 13, 34, 0).is_none());
        assert!(HeaderSpec::decode(&[0xff; HeaderSpec::BYTES]).is_err());
    }
}
