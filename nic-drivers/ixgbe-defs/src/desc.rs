//! Advanced descriptors: 16 bytes, two little-endian words of 64 bits.
//!
//! ```text
//!   receive, read form (7.1.6.1)        receive, write-back form (7.1.6.2)
//!   0  address of the packet buffer     0  hash or filter id 63:32 │ packet type 16:4 │ RSS type 3:0
//!   8  address of the header buffer     8  VLAN 63:48 │ length 47:32 │ errors 31:20 │ status 19:0
//!
//!   transmit data (7.2.3.2.4)
//!   0  address
//!   8  payload length 63:46 │ POPTS 45:40 │ CC, IDX │ status 35:32 │ DCMD 31:24 │ type 23:20 │ length 15:0
//! ```

/// Bytes of a descriptor.
pub const BYTES: usize = 16;
/// Where the word with the status is, of either kind.
pub const STATUS_AT: usize = 8;

/// Bits of a written-back receive descriptor's second word.
pub mod rx {
    /// Done.
    pub const DD: u64 = 1;
    /// The last descriptor of the frame.
    pub const EOP: u64 = 1 << 1;
    /// A flow director filter matched.
    pub const FLM: u64 = 1 << 2;
    /// The frame had a VLAN tag.
    pub const VP: u64 = 1 << 3;
    /// The flow director's bucket was longer than [`super::super::fdir::ctrl`] allows.
    pub const ERR_FDIR_LEN: u64 = 1 << 20;
    /// An error of the MAC: check sequence, length, symbols.
    pub const ERR_RXE: u64 = 1 << 29;
}

/// Packet types in a written-back receive descriptor's first word.
pub mod packet_type {
    /// IPv4 header.
    pub const IPV4: u64 = 1 << 4;
    /// IPv6 header.
    pub const IPV6: u64 = 1 << 6;
    /// TCP header.
    pub const TCP: u64 = 1 << 8;
    /// UDP header.
    pub const UDP: u64 = 1 << 9;
    /// SCTP header.
    pub const SCTP: u64 = 1 << 10;
}

/// Bits of a transmit descriptor's second word.
pub mod tx {
    /// Done; written by the device where [`RS`] asks.
    pub const DD: u64 = 1 << 32;
    /// Data descriptor.
    pub const DTYP_DATA: u64 = 0b0011 << 20;
    /// The field of descriptor types.
    pub const DTYP: u64 = 0b1111 << 20;
    /// The last descriptor of the frame.
    pub const EOP: u64 = 1 << 24;
    /// The frame check sequence is added.
    pub const IFCS: u64 = 1 << 25;
    /// Status is to be reported.
    pub const RS: u64 = 1 << 27;
    /// An advanced descriptor.
    pub const DEXT: u64 = 1 << 29;
    /// A VLAN tag is added.
    pub const VLE: u64 = 1 << 30;
    /// The frame is cut into segments.
    pub const TSE: u64 = 1 << 31;
    /// Checksums to be added.
    pub const POPTS: u64 = 0x3f << 40;
    /// Place of the payload's length.
    pub const PAYLEN_SHIFT: u32 = 46;
}

/// A receive descriptor that the device has written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RxWriteBack {
    /// First word.
    pub info: u64,
    /// Second word.
    pub status: u64,
}

impl RxWriteBack {
    /// From the descriptor's bytes.
    #[inline]
    pub fn decode(b: &[u8; BYTES]) -> Self {
        let v = u128::from_le_bytes(*b);
        RxWriteBack { info: v as u64, status: (v >> 64) as u64 }
    }

    /// The descriptor's bytes.
    #[inline]
    pub fn encode(&self) -> [u8; BYTES] {
        (u128::from(self.status) << 64 | u128::from(self.info)).to_le_bytes()
    }

    /// Whether the device is done with it.
    #[inline]
    pub fn is_done(&self) -> bool {
        self.status & rx::DD != 0
    }

    /// Bytes of the frame that are in this descriptor's buffer, without the check sequence when that is taken off.
    #[inline]
    pub fn len_bytes(&self) -> usize {
        (self.status >> 32 & 0xffff) as usize
    }

    /// The same, with this length.
    pub fn with_len(self, len_bytes: u16) -> Self {
        let status = self.status & !(0xffff << 32) | u64::from(len_bytes) << 32;
        RxWriteBack { status, ..self }
    }

    /// Hash of receive-side scaling, when the RSS type says that there is one.
    pub fn rss_hash(&self) -> Option<u32> {
        (self.info & 0xf != 0 && self.status & rx::FLM == 0).then_some((self.info >> 32) as u32)
    }

    /// The software index of the flow director filter that matched, if it is reported.
    pub fn filter_id(&self) -> Option<u16> {
        (self.status & rx::FLM != 0).then_some((self.info >> 48) as u16)
    }
}

/// A receive descriptor as the driver writes it: `addr` is where the frame goes. Clears what the device has written.
#[inline]
pub fn rx_read_form(addr: u64) -> [u8; BYTES] {
    u128::from(addr).to_le_bytes()
}

/// A transmit data descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TxDescriptor {
    /// Where the frame is.
    pub addr: u64,
    /// Second word.
    pub command: u64,
}

impl TxDescriptor {
    /// A whole frame of `len_bytes` bytes at `addr`, to which the check sequence is added and nothing else. The status is
    /// reported when `report`.
    #[inline]
    pub fn frame(addr: u64, len_bytes: u16, report: bool) -> Self {
        let len = u64::from(len_bytes);
        let rs = if report { tx::RS } else { 0 };
        let fixed = tx::DTYP_DATA | tx::DEXT | tx::IFCS | tx::EOP;
        TxDescriptor { addr, command: len | fixed | rs | len << tx::PAYLEN_SHIFT }
    }

    /// From the descriptor's bytes.
    pub fn decode(b: &[u8; BYTES]) -> Self {
        let v = u128::from_le_bytes(*b);
        TxDescriptor { addr: v as u64, command: (v >> 64) as u64 }
    }

    /// The descriptor's bytes.
    #[inline]
    pub fn encode(&self) -> [u8; BYTES] {
        (u128::from(self.command) << 64 | u128::from(self.addr)).to_le_bytes()
    }

    /// Bytes in its buffer.
    pub fn len_bytes(&self) -> usize {
        (self.command & 0xffff) as usize
    }

    /// Bytes of the frame, all descriptors together.
    pub fn payload_bytes(&self) -> usize {
        (self.command >> tx::PAYLEN_SHIFT) as usize
    }
}
