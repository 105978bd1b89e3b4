//! Flow director, perfect match mode (7.1.2.7, 8.2.3.21): what a filter compares, how it is put into registers, and the bucket it is in.
//!
//! All filters compare the same bits ([`FdirMask`]). The device hashes the masked fields of a packet to a bucket and follows the
//! list there; software hashes the fields of a filter to say where to put it. If the two hashes differ the filter is never met.
//!
//! Two bytes at a place of one's choice, the *flexible bytes*, are compared as well. [`FLEX_ETHERTYPE`] makes them those behind the
//! source address: the Ethernet type, or a tag's.

use crate::regs;

/// [`regs::FDIRCTRL`] (8.2.3.21.1).
pub mod ctrl {
    /// 256 KiB of the receive packet buffer are filters: 8,192 perfect ones, one of which the device keeps.
    pub const PBALLOC_256K: u32 = 0b11;
    /// The tables are initialized; read only.
    pub const INIT_DONE: u32 = 1 << 3;
    /// Perfect match mode.
    pub const PERFECT_MATCH: u32 = 1 << 4;
    /// A match is reported in the receive descriptor.
    pub const REPORT_STATUS: u32 = 1 << 5;
    /// Place of the queue that drops.
    pub const DROP_QUEUE_SHIFT: u32 = 8;
    /// Place of the flexible bytes' offset in the frame, in units of two bytes.
    pub const FLEX_OFFSET_SHIFT: u32 = 16;
    /// Place of the length of a bucket beyond which a match is flagged, less one.
    pub const MAX_LENGTH_SHIFT: u32 = 24;
    /// Place of the threshold of free filters, in units of 16.
    pub const FULL_THRESH_SHIFT: u32 = 28;
}

/// [`regs::FDIRCMD`] (8.2.3.21.7).
pub mod cmd {
    /// The field of commands; reads zero when the command is done.
    pub const CMD: u32 = 0b11;
    /// Adds a filter.
    pub const ADD: u32 = 0b01;
    /// Removes the filter of a hash and a software index.
    pub const REMOVE: u32 = 0b10;
    /// Asks whether there is one.
    pub const QUERY: u32 = 0b11;
    /// The answer: there is.
    pub const FILTER_VALID: u32 = 1 << 2;
    /// A filter that is there is changed.
    pub const FILTER_UPDATE: u32 = 1 << 3;
    /// Place of the transport protocol ([`super::l4`]).
    pub const L4TYPE_SHIFT: u32 = 5;
    /// The filter is one of IPv6.
    pub const IPV6: u32 = 1 << 7;
    /// Forgets all filters, while it is set.
    pub const CLEARHT: u32 = 1 << 8;
    /// Packets are dropped.
    pub const DROP: u32 = 1 << 9;
    /// The last filter of its list, as far as software knows.
    pub const LAST: u32 = 1 << 11;
    /// Packets go to the queue.
    pub const QUEUE_EN: u32 = 1 << 15;
    /// Place of the queue.
    pub const RX_QUEUE_SHIFT: u32 = 16;
}

/// [`regs::FDIRM`] (8.2.3.21.21): what is not compared.
pub mod mask {
    /// VLAN id.
    pub const VLANID: u32 = 1;
    /// VLAN priority.
    pub const VLANP: u32 = 1 << 1;
    /// Pool.
    pub const POOL: u32 = 1 << 2;
    /// Transport protocol.
    pub const L4P: u32 = 1 << 3;
    /// Flexible bytes.
    pub const FLEX: u32 = 1 << 4;
    /// IPv6 destination.
    pub const DIPV6: u32 = 1 << 5;
}

/// Transport protocols as filters have them.
pub mod l4 {
    /// None that is known, or not compared.
    pub const OTHER: u8 = 0;
    /// UDP.
    pub const UDP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 2;
    /// SCTP.
    pub const SCTP: u8 = 3;
}

/// Perfect filters there can be with [`ctrl::PBALLOC_256K`].
pub const PERFECT_FILTERS: usize = 8191;
/// Filters of a bucket beyond which the device slows down and flags a match; the driver stays below.
pub const MAX_BUCKET: usize = 10;
/// Flexible bytes behind the source address, in the unit of [`ctrl::FLEX_OFFSET_SHIFT`].
pub const FLEX_ETHERTYPE: u32 = 6;
/// Bits of a hash that choose the bucket.
pub const BUCKET_BITS: u16 = 0x1fff;
/// [`regs::FDIRHASH`] (8.2.3.21.6): place of the software index, 15 bits.
pub const SOFT_INDEX_SHIFT: u32 = 16;
/// Key of the bucket hash that the datasheet recommends (8.2.3.21.19).
pub const BUCKET_KEY: u32 = 0x3dad_14e2;
/// Key of the signature hash that the datasheet recommends (8.2.3.21.20).
pub const SIGNATURE_KEY: u32 = 0x174d_3614;
/// Bits of a tag that filters know: priority and VLAN id.
pub const TAG_BITS: u16 = 0xefff;

/// Which bits all filters compare: ones are compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FdirMask {
    /// VLAN id, all of it.
    pub vlan_id: bool,
    /// VLAN priority, all of it.
    pub vlan_priority: bool,
    /// Transport protocol.
    pub l4: bool,
    /// Flexible bytes, both.
    pub flex: bool,
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// TCP ports, source in the upper half.
    pub tcp_ports: u32,
    /// UDP ports, source in the upper half.
    pub udp_ports: u32,
}

/// What a filter asks for, or a packet has. Numbers, not bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FdirInput {
    /// One of [`l4`].
    pub l4: u8,
    /// The tag; 0 of a frame without one.
    pub vlan: u16,
    /// Flexible bytes, the first in the upper half.
    pub flex: u16,
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
}

/// An address as registers have it: the first byte on the wire in the lowest bits.
pub const fn address(ip: u32) -> u32 {
    ip.swap_bytes()
}

/// A mask of ports as the registers have it: each half with its bits in reverse, ones not compared.
const fn port_mask(ports: u32) -> u32 {
    let (src, dst) = ((ports >> 16) as u16, ports as u16);
    !((dst.reverse_bits() as u32) << 16 | src.reverse_bits() as u32)
}

impl FdirMask {
    /// The registers and what goes into them.
    pub fn registers(&self) -> [(u32, u32); 5] {
        let off = |on: bool, bit: u32| if on { 0 } else { bit };
        let m = off(self.vlan_id, mask::VLANID)
            | off(self.vlan_priority, mask::VLANP)
            | off(self.l4, mask::L4P)
            | off(self.flex, mask::FLEX)
            | mask::POOL
            | mask::DIPV6;
        [
            (regs::FDIRM, m),
            (regs::FDIRTCPM, port_mask(self.tcp_ports)),
            (regs::FDIRUDPM, port_mask(self.udp_ports)),
            (regs::FDIRSIP4M, !address(self.src)),
            (regs::FDIRDIP4M, !address(self.dst)),
        ]
    }

    /// From what is in the registers, in the order of [`FdirMask::registers`].
    pub fn from_registers(v: [u32; 5]) -> Self {
        let on = |bit| v[0] & bit == 0;
        let ports = |v: u32| {
            let (dst, src) = (((!v) >> 16) as u16, (!v) as u16);
            u32::from(src.reverse_bits()) << 16 | u32::from(dst.reverse_bits())
        };
        FdirMask {
            vlan_id: on(mask::VLANID),
            vlan_priority: on(mask::VLANP),
            l4: on(mask::L4P),
            flex: on(mask::FLEX),
            src: address(!v[3]),
            dst: address(!v[4]),
            tcp_ports: ports(v[1]),
            udp_ports: ports(v[2]),
        }
    }
}

impl FdirInput {
    /// Without the bits that `m` does not compare.
    pub fn masked(&self, m: &FdirMask) -> FdirInput {
        let ports = match self.l4 {
            l4::TCP => m.tcp_ports,
            l4::UDP => m.udp_ports,
            _ => 0,
        };
        let tag = if m.vlan_id { 0x0fff } else { 0 } | if m.vlan_priority { 0xe000 } else { 0 };
        FdirInput {
            l4: if m.l4 { self.l4 } else { l4::OTHER },
            vlan: self.vlan & tag,
            flex: if m.flex { self.flex } else { 0 },
            src: self.src & m.src,
            dst: self.dst & m.dst,
            src_port: self.src_port & (ports >> 16) as u16,
            dst_port: self.dst_port & ports as u16,
        }
    }

    /// The registers of a filter and what goes into them; the hash's and the command's are not among them.
    pub fn registers(&self) -> [(u32, u32); 7] {
        [
            (regs::fdirsipv6(0), 0),
            (regs::fdirsipv6(1), 0),
            (regs::fdirsipv6(2), 0),
            (regs::FDIRIPSA, address(self.src)),
            (regs::FDIRIPDA, address(self.dst)),
            (regs::FDIRPORT, u32::from(self.dst_port) << 16 | u32::from(self.src_port)),
            (regs::FDIRVLAN, u32::from(self.flex.swap_bytes()) << 16 | u32::from(self.vlan)),
        ]
    }

    /// From FDIRIPSA, FDIRIPDA, FDIRPORT, FDIRVLAN and FDIRCMD.
    pub fn from_registers(ipsa: u32, ipda: u32, port: u32, vlan: u32, command: u32) -> Self {
        FdirInput {
            l4: (command >> cmd::L4TYPE_SHIFT & 3) as u8,
            vlan: vlan as u16,
            flex: ((vlan >> 16) as u16).swap_bytes(),
            src: address(ipsa),
            dst: address(ipda),
            src_port: port as u16,
            dst_port: (port >> 16) as u16,
        }
    }

    /// The bucket of a masked input (7.1.2.7.10): the hash of its 352 bits under [`BUCKET_KEY`].
    pub fn bucket(&self) -> u16 {
        let first = u32::from(self.l4) << 16 | u32::from(self.vlan);
        let ports = u32::from(self.src_port) << 16 | u32::from(self.dst_port);
        let rest = self.src ^ self.dst ^ ports ^ u32::from(self.flex) << 16;
        hash(BUCKET_KEY, first, rest) & BUCKET_BITS
    }
}

/// The hash of an input stream whose first 32 bits are `first` and whose others, in words of 32, add up (without carry) to
/// `rest`. Each bit of the key adds a window of 16 bits: of the lower half those of the stream with its halves exchanged, of the
/// upper half those of the stream as it is. The window of bit 0 comes before the first word is in.
fn hash(key: u32, first: u32, rest: u32) -> u16 {
    let upper = rest ^ first ^ first >> 16;
    let exchanged = rest.rotate_left(16);
    let lower = exchanged ^ first ^ first << 16;
    let bit = |n: u32| key >> n & 1 != 0;
    let mut h = if bit(0) { exchanged as u16 } else { 0 };
    for i in 0..16 {
        if i > 0 && bit(i) {
            h ^= (lower >> i) as u16;
        }
        if bit(i + 16) {
            h ^= (upper >> i) as u16;
        }
    }
    h
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_ports_and_flexible_bytes_are_in_registers_as_on_the_wire_or_as_numbers() {
        let i = FdirInput {
            l4: l4::TCP,
            vlan: 0x6005,
            flex: 0x8100,
            src: 0x0a00_0001,
            dst: 0xc0a8_0102,
            src_port: 1000,
            dst_port: 80,
        };
        let r = i.registers();
        assert_eq!(r[3], (0xee18, 0x0100_000a));
        assert_eq!(r[4], (0xee1c, 0x0201_a8c0));
        assert_eq!(r[5], (0xee20, 80 << 16 | 1000));
        assert_eq!(r[6], (0xee24, 0x0081_6005));
        let c = u32::from(l4::TCP) << cmd::L4TYPE_SHIFT;
        assert_eq!(FdirInput::from_registers(r[3].1, r[4].1, r[5].1, r[6].1, c), i);
    }

    #[test]
    fn masks_are_ones_where_nothing_is_compared_and_ports_are_reversed() {
        let m = FdirMask {
            vlan_id: true,
            l4: true,
            flex: true,
            src: 0xffff_ff00,
            dst: 0,
            tcp_ports: 0x0000_ffff,
            udp_ports: 0x8000_0001,
            vlan_priority: false,
        };
        let r = m.registers();
        assert_eq!(r[0], (0xee70, mask::VLANP | mask::POOL | mask::DIPV6));
        assert_eq!(r[1], (0xee44, 0x0000_ffff), "the destination's half is compared");
        assert_eq!(r[2], (0xee48, !0x8000_0001));
        assert_eq!(r[3], (0xee40, 0xff00_0000), "the last byte is not compared");
        assert_eq!(FdirMask::from_registers(r.map(|(_, v)| v)), m);
    }

    #[test]
    fn the_hash_adds_one_window_for_each_bit_of_the_key() {
        let (first, rest) = (0x0002_0005, 0x1234_5678);
        let mut all = 0;
        for n in 0..32 {
            all ^= hash(1 << n, first, rest);
        }
        assert_eq!(hash(u32::MAX, first, rest), all);
        assert_eq!(hash(1, first, rest), 0x1234, "bit 0 does not see the first word");
        assert_eq!(hash(1 << 16, first, rest), 0x5678 ^ 0x0005 ^ 0x0002);
        assert_eq!(hash(1 << 1, 0, rest), ((rest.rotate_left(16) >> 1) & 0xffff) as u16);
    }
}
