//! Packet editing of the reference interpreter: on bytes, one change at a time.
//!
//! Where headers lie is found once, on arrival; pushed and popped tags move them. A checksum follows a change by RFC 1624, so
//! that a wrong one stays wrong by as much; UDP's zero, which means none, stays zero.

use flow::parse::{Fault, Layout};
use flow::{FieldId, PortId};

/// A frame under the reference's hands.
#[derive(Clone)]
pub(crate) struct Frame {
    bytes: Vec<u8>,
    /// VLAN tags that were seen on arrival or pushed since. A further one is payload.
    tags: usize,
    /// Ethernet type of the network header, as parsed.
    eth_type: u64,
    /// Network header. Moves with tags.
    l3: usize,
    /// Transport header, relative to the network header, when there is an IP packet.
    l4: Option<usize>,
    /// End of the IP packet, relative to the network header.
    end: usize,
    /// The transport header is wholly there and not in a later fragment.
    l4_whole: bool,
    later: bool,
    proto: u8,
    fault: Option<Fault>,
}

impl Frame {
    /// The frame as it came in; `None` for a runt.
    pub(crate) fn new(bytes: &[u8]) -> Option<Frame> {
        let p = flow::parse(bytes, PortId(0)).ok()?;
        let Layout { l3_offset, l3_end, fault, .. } = p.layout;
        let l3 = l3_offset as usize;
        let later = p.key.get(FieldId::NwFrag) & 2 != 0;
        let l4 = p.layout.l4().map(|at| at - l3);
        Some(Frame {
            bytes: bytes.to_vec(),
            tags: p.layout.vlans.into(),
            eth_type: p.key.get64(FieldId::EthType),
            l3,
            l4,
            end: l3_end as usize - l3.min(l3_end as usize),
            l4_whole: l4.is_some() && !later && fault != Some(Fault::Transport),
            later,
            proto: p.key.get64(FieldId::NwProto) as u8,
            fault,
        })
    }

    /// The frame as it is now.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Other bytes, as many, and headers where they were.
    pub(crate) fn replace(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }

    fn insert(&mut self, at: usize, b: &[u8]) {
        self.bytes.splice(at..at, b.iter().copied());
        self.l3 += b.len();
    }

    fn cut(&mut self, at: usize, len: usize) {
        self.bytes.drain(at..at + len);
        self.l3 -= len;
    }

    pub(crate) fn push_vlan(&mut self, tpid: u16) {
        let [a, b] = tpid.to_be_bytes();
        self.insert(12, &[a, b, 0, 0]);
        self.tags += 1;
    }

    pub(crate) fn pop_vlan(&mut self) {
        self.cut(12, 4);
        self.tags -= 1;
    }

    /// Sets bits of the outermost tag's control field.
    pub(crate) fn set_tci(&mut self, value: u16, mask: u16) {
        let old = u16::from_be_bytes([self.bytes[14], self.bytes[15]]);
        self.bytes[14..16].copy_from_slice(&(old & !mask | value & mask).to_be_bytes());
    }

    /// The outermost `n` tags have been taken off for a port and are put back for the next: without the drop-eligible bit, which
    /// the datapath's actions have no place for (in a key its place says that there is a tag). So it is with Open vSwitch.
    pub(crate) fn put_back(&mut self, n: usize) {
        for i in 0..n {
            self.bytes[14 + 4 * i] &= !0x10;
        }
    }

    /// Where the Ethernet type is that says what comes after the tags that are known.
    fn type_at(&self) -> usize {
        12 + 4 * self.tags
    }

    fn be16(&self, at: usize) -> u16 {
        self.bytes.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    }

    pub(crate) fn push_mpls(&mut self, eth_type: u16, lse: u32) {
        let at = self.type_at();
        self.insert(at + 2, &lse.to_be_bytes());
        self.bytes[at..at + 2].copy_from_slice(&eth_type.to_be_bytes());
        self.again();
    }

    pub(crate) fn pop_mpls(&mut self, eth_type: u16) {
        let at = self.type_at();
        if self.bytes.len() >= at + 6 {
            self.cut(at + 2, 4);
            self.bytes[at..at + 2].copy_from_slice(&eth_type.to_be_bytes());
            self.again();
        }
    }

    /// The frame without the tags that are known.
    pub(crate) fn bare(&self) -> Vec<u8> {
        [&self.bytes[..12], &self.bytes[12 + 4 * self.tags..]].concat()
    }

    /// Looks again at what lies behind the tags, as if they were not there.
    fn again(&mut self) {
        let (shift, bare) = (4 * self.tags, self.bare());
        let bytes = std::mem::take(&mut self.bytes);
        let seen = Frame::new(&bare).filter(|f| f.tags == 0);
        *self = match seen {
            Some(f) => Frame { bytes, tags: self.tags, l3: f.l3 + shift, ..f },
            None => {
                let eth_type = u64::from(u16::from_be_bytes([bytes[12 + shift], bytes[13 + shift]]));
                Frame {
                    bytes,
                    tags: self.tags,
                    eth_type,
                    l3: 14 + shift,
                    l4: None,
                    end: 0,
                    l4_whole: false,
                    later: false,
                    proto: 0,
                    fault: None,
                }
            }
        };
    }

    /// Sets the bits of `field` that `mask` has, if the frame has the field.
    pub(crate) fn set(&mut self, field: FieldId, value: u128, mask: u128) {
        use FieldId::*;
        // In terms of the whole field that this may be a part of.
        let up = field.info().shift - field.info().canon.info().shift;
        let (value, mask) = if field.info().bits == 128 { (value, mask) } else { (value << up, mask << up) };
        let l3 = self.l3;
        let v4 = self.eth_type == 0x0800 && self.l4.is_some();
        let v6 = self.eth_type == 0x86dd && self.l4.is_some();
        let arp = matches!(self.eth_type, 0x0806 | 0x8035) && self.fault.is_none();
        let header = l3 + 10;
        match field.info().canon {
            EthDst => self.patch(0, 6, value, mask, &[]),
            EthSrc => self.patch(6, 6, value, mask, &[]),
            MplsLse0 if matches!(self.eth_type, 0x8847 | 0x8848) => {
                let at = self.type_at() + 2;
                self.patch(at, 4, value, mask, &[]);
            }
            NwSrc if v4 => self.patch(l3 + 12, 4, value, mask, &self.with_pseudo(Some(header))),
            NwDst if v4 => self.patch(l3 + 16, 4, value, mask, &self.with_pseudo(Some(header))),
            NwTos if v4 => self.patch_half(l3, 1, value, mask, &[header]),
            NwTtl if v4 => self.patch_half(l3 + 8, 0, value, mask, &[header]),
            NwTos if v6 => self.patch(l3, 2, value << 4, mask << 4, &[]),
            NwTtl if v6 => self.patch(l3 + 7, 1, value, mask, &[]),
            Ipv6Label if v6 => self.patch(l3, 4, value, mask, &[]),
            Ipv6Src if v6 => self.patch(l3 + 8, 16, value, mask, &self.with_pseudo(None)),
            Ipv6Dst if v6 => {
                let sums = if self.routing() { Vec::new() } else { self.with_pseudo(None) };
                self.patch(l3 + 24, 16, value, mask, &sums);
            }
            NwSrc if arp => self.patch(l3 + 14, 4, value, mask, &[]),
            NwDst if arp => self.patch(l3 + 24, 4, value, mask, &[]),
            NwProto if arp => self.patch(l3 + 6, 2, value, mask, &[]),
            ArpSha if arp => self.patch(l3 + 8, 6, value, mask, &[]),
            ArpTha if arp => self.patch(l3 + 18, 6, value, mask, &[]),
            ArpSha => self.set_link_option(1, value, mask),
            ArpTha => self.set_link_option(2, value, mask),
            NdTarget => {
                if let Some(at) = self.neighbour() {
                    self.patch(at + 8, 16, value, mask, &self.transport_sum());
                }
            }
            TpSrc => self.set_port(0, value, mask),
            TpDst => self.set_port(1, value, mask),
            _ => {}
        }
    }

    /// Place of the checksum that covers the pseudo header.
    fn pseudo_sum(&self) -> Option<usize> {
        if !self.l4_whole {
            return None;
        }
        let l4 = self.l3 + self.l4?;
        match self.proto {
            6 => Some(l4 + 16),
            17 => Some(l4 + 6),
            58 if self.eth_type == 0x86dd => Some(l4 + 2),
            _ => None,
        }
    }

    fn with_pseudo(&self, other: Option<usize>) -> Vec<usize> {
        other.into_iter().chain(self.pseudo_sum()).collect()
    }

    /// Place of the checksum over the transport header.
    fn transport_sum(&self) -> Vec<usize> {
        match (self.proto, self.l4) {
            (1 | 2, Some(l4)) if self.l4_whole => vec![self.l3 + l4 + 2],
            _ => self.pseudo_sum().into_iter().collect(),
        }
    }

    /// Whether an IPv6 routing header says that the header's destination is not the last.
    fn routing(&self) -> bool {
        let (mut at, end) = (self.l3 + 40, self.l3 + self.l4.unwrap_or(40));
        let mut next = self.bytes[self.l3 + 6];
        while at + 4 <= end {
            if next == 43 && self.bytes[at + 3] > 0 {
                return true;
            }
            let len = usize::from(self.bytes[at + 1]);
            let len = match next {
                51 => (len + 2) * 4,
                44 => 8,
                _ => (len + 1) * 8,
            };
            (next, at) = (self.bytes[at], at + len);
        }
        false
    }

    /// Replaces masked bits of `len` bytes at `at`, an even way into what the checksums at `sums` cover.
    fn patch(&mut self, at: usize, len: usize, value: u128, mask: u128, sums: &[usize]) {
        let Some(old) = self.bytes.get(at..at + len).map(<[u8]>::to_vec) else { return };
        let bytes = |v: u128| v.to_be_bytes()[16 - len..].to_vec();
        let (v, m) = (bytes(value), bytes(mask));
        let new: Vec<u8> = (0..len).map(|i| old[i] & !m[i] | v[i] & m[i]).collect();
        if new == old {
            return;
        }
        self.bytes[at..at + len].copy_from_slice(&new);
        for s in sums {
            self.follow(*s, &old, &new);
        }
    }

    /// Replaces masked bits of byte `half` of the two at `at`.
    fn patch_half(&mut self, at: usize, half: usize, value: u128, mask: u128, sums: &[usize]) {
        let up = 8 * (1 - half as u32);
        self.patch(at, 2, value << up, (mask & 0xff) << up, sums);
    }

    /// The checksum at `at` covers bytes that were `old` and are `new` (RFC 1624, equation 3).
    fn follow(&mut self, at: usize, old: &[u8], new: &[u8]) {
        if at + 2 > self.bytes.len() {
            return;
        }
        let udp = self.proto == 17 && self.l4_whole && Some(at) == self.pseudo_sum();
        let was = self.be16(at);
        if udp && was == 0 {
            return;
        }
        let words =
            |b: &[u8]| b.chunks(2).map(|c| u32::from(c[0]) << 8 | u32::from(c[1])).collect::<Vec<_>>();
        let mut sum = u32::from(!was);
        for (o, n) in words(old).into_iter().zip(words(new)) {
            sum += (!o & 0xffff) + n;
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        let is = match !(sum as u16) {
            0 if udp => 0xffff,
            c => c,
        };
        self.bytes[at..at + 2].copy_from_slice(&is.to_be_bytes());
    }

    fn set_port(&mut self, which: usize, value: u128, mask: u128) {
        let Some(l4) = self.l4.filter(|_| self.l4_whole) else { return };
        let at = self.l3 + l4;
        match self.proto {
            6 | 17 => self.patch(at + 2 * which, 2, value, mask, &self.transport_sum()),
            132 => {
                let before = self.sctp_crc();
                self.patch(at + 2 * which, 2, value, mask, &[]);
                if let (Some(b), Some(a)) = (before, self.sctp_crc()) {
                    let field = &mut self.bytes[at + 8..at + 12];
                    for (i, x) in (b ^ a).to_le_bytes().iter().enumerate() {
                        field[i] ^= x;
                    }
                }
            }
            1 | 2 | 58 => self.patch_half(at, which, value, mask, &self.transport_sum()),
            _ => {}
        }
    }

    /// CRC-32C of the SCTP packet with its checksum field zero (RFC 9260 appendix A), bit by bit.
    fn sctp_crc(&self) -> Option<u32> {
        let l4 = self.l3 + self.l4?;
        let mut packet = self.bytes.get(l4..self.l3 + self.end)?.to_vec();
        packet.get_mut(8..12)?.fill(0);
        let mut crc = u32::MAX;
        for b in packet {
            crc ^= u32::from(b);
            for _ in 0..8 {
                crc = if crc & 1 != 0 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
        }
        Some(!crc)
    }

    /// Start of a whole neighbour discovery message.
    fn neighbour(&self) -> Option<usize> {
        let l4 = self.l3 + self.l4.filter(|_| self.l4_whole && !self.later)?;
        let end = (self.l3 + self.end).min(self.bytes.len());
        let is = self.eth_type == 0x86dd
            && self.proto == 58
            && self.fault.is_none()
            && l4 + 24 <= end
            && matches!(self.bytes[l4], 135 | 136)
            && self.bytes[l4 + 1] == 0;
        is.then_some(l4)
    }

    /// Sets the address in the first link-layer option of a kind.
    fn set_link_option(&mut self, kind: u8, value: u128, mask: u128) {
        let Some(l4) = self.neighbour() else { return };
        let end = (self.l3 + self.end).min(self.bytes.len());
        let mut at = l4 + 24;
        while at + 8 <= end {
            let len = usize::from(self.bytes[at + 1]) * 8;
            if len == 0 || at + len > end {
                return;
            }
            if self.bytes[at] == kind && len == 8 {
                return self.patch(at + 2, 6, value, mask, &self.transport_sum());
            }
            at += len;
        }
    }
}
