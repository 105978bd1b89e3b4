//! BAR 0: registers (guide, sections 3 to 7), and MSI-X vectors (section 4). Offsets in bytes, little-endian.

/// Vendor and device id.
pub const PCI_ID: (u16, u16) = (0x1b36, 0x0006);
/// The BAR with the registers.
pub const BAR_REGS: u8 = 0;
/// Its size.
pub const BAR_REGS_BYTES: usize = 0x2000;
/// What a register of an absent device reads.
pub const ALL_ONES: u32 = u32::MAX;

/// Reads [`BOGUS_VALUE`]; writes do nothing.
pub const BOGUS_REG0: u32 = 0x000;
/// What bogus registers read.
pub const BOGUS_VALUE: u32 = 0xdead_babe;
/// Reads twice what was written.
pub const TEST_REG: u32 = 0x010;
/// Raises the vector that is written.
pub const TEST_IRQ: u32 = 0x020;
/// 64 bits: address for the DMA test.
pub const TEST_DMA_ADDR: u32 = 0x028;
/// Bytes for the DMA test.
pub const TEST_DMA_SIZE: u32 = 0x030;
/// Starts a DMA test.
pub const TEST_DMA_CTRL: u32 = 0x034;
/// [`TEST_DMA_CTRL`]: fill with [`TEST_FILL_BYTE`].
pub const TEST_DMA_FILL: u32 = 2;
/// The byte of a filled buffer.
pub const TEST_FILL_BYTE: u8 = 0x96;

/// Bit 0 resets the switch.
pub const CONTROL: u32 = 0x300;
/// [`CONTROL`]: reset.
pub const CONTROL_RESET: u32 = 1;
/// Number of front-panel ports.
pub const PORT_PHYS_COUNT: u32 = 0x304;
/// 64 bits: link of port n in bit n.
pub const PORT_PHYS_LINK_STATUS: u32 = 0x310;
/// 64 bits: enable of port n in bit n.
pub const PORT_PHYS_ENABLE: u32 = 0x318;
/// 64 bits: name of the switch.
pub const SWITCH_ID: u32 = 0x320;

/// Most front-panel ports. They are numbered from 1; port 0 is the CPU.
pub const MAX_PORTS: u32 = 62;

/// First ring's registers.
pub const RING_BASE: u32 = 0x1000;
/// Bytes from ring to ring.
pub const RING_STRIDE: u32 = 0x20;

/// A register of a ring, by its offset from the ring's first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum RingReg {
    /// 64 bits: where the ring is; 8-byte aligned.
    Addr = 0x00,
    /// Entries, a power of two from 2 to 65536. Written, head and tail become zero.
    Size = 0x08,
    /// The host's: one past the last posted.
    Head = 0x0c,
    /// The device's: the next it completes.
    Tail = 0x10,
    /// Bit 0 resets the ring.
    Ctrl = 0x14,
    /// Completed descriptors that the host has not taken back; written, that many are.
    Credits = 0x18,
}

/// Where register `r` of ring `ring` is.
pub const fn ring_reg(ring: u32, r: RingReg) -> u32 {
    RING_BASE + ring * RING_STRIDE + r as u32
}

/// The command ring.
pub const RING_CMD: u32 = 0;
/// The event ring.
pub const RING_EVENT: u32 = 1;

/// The transmit ring of front-panel port `pport` (from 1).
pub const fn ring_tx(pport: u32) -> u32 {
    2 * pport
}

/// The receive ring of front-panel port `pport` (from 1).
pub const fn ring_rx(pport: u32) -> u32 {
    2 * pport + 1
}

/// Vector of the command ring.
pub const VECTOR_CMD: u16 = 0;
/// Vector of the event ring.
pub const VECTOR_EVENT: u16 = 1;
/// Vector of the tests.
pub const VECTOR_TEST: u16 = 2;

/// Vector of the transmit ring of `pport` (from 1).
pub const fn vector_tx(pport: u16) -> u16 {
    2 + 2 * pport
}

/// Vector of the receive ring of `pport` (from 1).
pub const fn vector_rx(pport: u16) -> u16 {
    3 + 2 * pport
}

/// Vectors of a switch with `ports` ports.
pub const fn vectors(ports: u16) -> u16 {
    4 + 2 * ports
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guide's sections 3 and 4, line by line. Its rings are counted from port 0, which is front-panel port 1.
    #[test]
    fn rings_and_vectors_are_where_the_guide_says() {
        let x = |ring: u32| 0x1000 + ring * 32;
        assert_eq!(ring_reg(RING_CMD, RingReg::Addr), x(0));
        assert_eq!(ring_reg(RING_EVENT, RingReg::Size), x(1) + 0x08);
        assert_eq!(ring_reg(ring_tx(1), RingReg::Head), x(2) + 0x0c);
        assert_eq!(ring_reg(ring_rx(1), RingReg::Tail), x(3) + 0x10);
        assert_eq!(ring_reg(ring_tx(62), RingReg::Ctrl), x(124) + 0x14);
        assert_eq!(ring_reg(ring_rx(62), RingReg::Credits), x(125) + 0x18);
        assert_eq!(
            (vector_tx(1), vector_rx(1), vector_tx(2)),
            (4, 5, 6),
            "transmit even, receive odd, from 4"
        );
        assert_eq!(vectors(2), vector_rx(2) + 1);
        assert!(ring_reg(ring_rx(MAX_PORTS), RingReg::Credits) < BAR_REGS_BYTES as u32);
    }

    #[test]
    fn registers_are_where_the_guide_says() {
        let all = [
            (TEST_REG, 0x10),
            (TEST_IRQ, 0x20),
            (TEST_DMA_ADDR, 0x28),
            (TEST_DMA_SIZE, 0x30),
            (TEST_DMA_CTRL, 0x34),
            (CONTROL, 0x300),
            (PORT_PHYS_COUNT, 0x304),
            (PORT_PHYS_LINK_STATUS, 0x310),
            (PORT_PHYS_ENABLE, 0x318),
            (SWITCH_ID, 0x320),
        ];
        assert!(all.iter().all(|(is, guide)| is == guide), "{all:x?}");
    }
}
