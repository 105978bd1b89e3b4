//! 5-tuple filters (7.1.2.5, 8.2.3.7.19 to 8.2.3.7.23): 128 filters of IPv4, each with its own choice of fields, each field compared
//! whole or not at all.

use crate::regs;

/// Filters.
pub const FILTERS: u32 = 128;

/// [`regs::ftqf`] (8.2.3.7.22).
pub mod ftqf {
    /// TCP.
    pub const TCP: u32 = 0b00;
    /// UDP.
    pub const UDP: u32 = 0b01;
    /// SCTP.
    pub const SCTP: u32 = 0b10;
    /// Any other protocol.
    pub const OTHER: u32 = 0b11;
    /// Place of the priority, 1 to 7; the higher is preferred.
    pub const PRIORITY_SHIFT: u32 = 2;
    /// The source address is not compared.
    pub const NO_SRC: u32 = 1 << 25;
    /// The destination address is not compared.
    pub const NO_DST: u32 = 1 << 26;
    /// The source port is not compared.
    pub const NO_SRC_PORT: u32 = 1 << 27;
    /// The destination port is not compared.
    pub const NO_DST_PORT: u32 = 1 << 28;
    /// The protocol is not compared.
    pub const NO_PROTOCOL: u32 = 1 << 29;
    /// The pool is not compared.
    pub const NO_POOL: u32 = 1 << 30;
    /// The filter is on.
    pub const ENABLE: u32 = 1 << 31;
}

/// [`regs::l34timir`] (8.2.3.7.23).
pub mod l34timir {
    /// The frame's size is not looked at.
    pub const SIZE_BP: u32 = 1 << 12;
    /// To be one.
    pub const RESERVED: u32 = 1 << 19;
    /// Place of the queue.
    pub const QUEUE_SHIFT: u32 = 21;
}

/// What a filter compares; `None` is not compared.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FiveTuple {
    /// IP protocol: 6, 17 or 132.
    pub proto: Option<u8>,
    /// Source address.
    pub src: Option<u32>,
    /// Destination address.
    pub dst: Option<u32>,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
}

impl FiveTuple {
    /// The registers of filter `i` and what goes into them, in the order in which to write them: the one that turns the
    /// filter on is the last. Packets go to `queue`.
    pub fn registers(&self, i: u32, queue: u16) -> [(u32, u32); 5] {
        let no = |absent: bool, bit: u32| if absent { bit } else { 0 };
        let proto = match self.proto {
            Some(6) => ftqf::TCP,
            Some(17) => ftqf::UDP,
            Some(132) => ftqf::SCTP,
            _ => ftqf::OTHER,
        };
        let control = proto
            | 1 << ftqf::PRIORITY_SHIFT
            | no(self.src.is_none(), ftqf::NO_SRC)
            | no(self.dst.is_none(), ftqf::NO_DST)
            | no(self.src_port.is_none(), ftqf::NO_SRC_PORT)
            | no(self.dst_port.is_none(), ftqf::NO_DST_PORT)
            | no(self.proto.is_none(), ftqf::NO_PROTOCOL)
            | ftqf::NO_POOL
            | ftqf::ENABLE;
        // Addresses and ports as on the wire.
        let port = |p: Option<u16>| u32::from(p.unwrap_or(0).swap_bytes());
        let to = l34timir::SIZE_BP | l34timir::RESERVED | u32::from(queue) << l34timir::QUEUE_SHIFT;
        [
            (regs::saqf(i), self.src.unwrap_or(0).swap_bytes()),
            (regs::daqf(i), self.dst.unwrap_or(0).swap_bytes()),
            (regs::sdpqf(i), port(self.src_port) | port(self.dst_port) << 16),
            (regs::l34timir(i), to),
            (regs::ftqf(i), control),
        ]
    }

    /// From what is in the registers, in the order of [`FiveTuple::registers`], with the queue; `None` when the filter is off.
    pub fn from_registers(v: [u32; 5]) -> Option<(FiveTuple, u16)> {
        let c = v[4];
        let some = |bit: u32| c & ftqf::ENABLE != 0 && c & bit == 0;
        let proto = match c & 3 {
            ftqf::TCP => 6,
            ftqf::UDP => 17,
            ftqf::SCTP => 132,
            _ => 0,
        };
        let f = FiveTuple {
            proto: some(ftqf::NO_PROTOCOL).then_some(proto),
            src: some(ftqf::NO_SRC).then(|| v[0].swap_bytes()),
            dst: some(ftqf::NO_DST).then(|| v[1].swap_bytes()),
            src_port: some(ftqf::NO_SRC_PORT).then(|| (v[2] as u16).swap_bytes()),
            dst_port: some(ftqf::NO_DST_PORT).then(|| ((v[2] >> 16) as u16).swap_bytes()),
        };
        (c & ftqf::ENABLE != 0).then_some((f, (v[3] >> l34timir::QUEUE_SHIFT & 0x7f) as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_in_registers_as_on_the_wire_and_comes_back() {
        let f =
            FiveTuple { proto: Some(17), dst: Some(0x0a00_0002), dst_port: Some(53), ..FiveTuple::default() };
        let r = f.registers(5, 127);
        assert_eq!(r[1], (0xe214, 0x0200_000a));
        assert_eq!(r[2], (0xe414, 0x3500_0000));
        assert_eq!(r[3], (0xe814, 0x0008_1000 | 127 << 21));
        assert_eq!(r[4], (0xe614, 0xca00_0005));
        assert_eq!(FiveTuple::from_registers(r.map(|(_, v)| v)), Some((f, 127)));
        assert_eq!(FiveTuple::from_registers([0; 5]), None);
    }
}
