//! PCI identity, the BAR0 register map and interrupt vectors (SPEC 1, 2, 4).

/// Byte offset of a register in BAR0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Reg(pub u32);

/// PCI vendor id. Not assigned to anyone.
pub const VENDOR_ID: u16 = 0xb015;
/// PCI device id.
pub const DEVICE_ID: u16 = 0x0104;
/// PCI class code: network controller, Ethernet.
pub const CLASS_CODE: u32 = 0x02_00_00;
/// PCI revision.
pub const REVISION: u8 = 1;
/// BAR with the registers: 64-bit memory, not prefetchable.
pub const BAR_REGS: u8 = 0;
/// Size of BAR0 in bytes.
pub const BAR_REGS_BYTES: u64 = 0x1_0000;
/// BAR with the MSI-X table and pending bits.
pub const BAR_MSIX: u8 = 2;
/// Size of BAR2 in bytes.
pub const BAR_MSIX_BYTES: u64 = 0x2000;
/// Offset of the MSI-X table in BAR2.
pub const MSIX_TABLE_OFFSET: u32 = 0;
/// Offset of the MSI-X pending bits in BAR2.
pub const MSIX_PBA_OFFSET: u32 = 0x1000;

/// Ports the register map has room for.
pub const MAX_PORTS: u32 = 16;
/// Queue pairs a port's register block has room for.
pub const MAX_QUEUE_PAIRS: u32 = 8;

/// What [`Reg::ID`] reads: `HNC1`.
pub const ID_VALUE: u32 = u32::from_le_bytes(*b"HNC1");
/// Major interface version in bits 31:16 of [`Reg::VERSION`] that this crate describes.
pub const VERSION_MAJOR: u32 = 1;
/// What an absent or dead device reads.
pub const ALL_ONES: u32 = u32::MAX;

#[rustfmt::skip]
#[allow(missing_docs)] // the datasheet, SPEC 2.1 and 2.2, says what each is
impl Reg {
    pub const ID: Reg          = Reg(0x0000);
    pub const VERSION: Reg     = Reg(0x0004);
    pub const CTRL: Reg        = Reg(0x0008);
    pub const STATUS: Reg      = Reg(0x000c);
    pub const FAULT: Reg       = Reg(0x0010);
    pub const FAULT_INFO: Reg  = Reg(0x0014);
    pub const FAULT_ADDR: Reg  = Reg(0x0018);
    pub const CAP_PORTS: Reg   = Reg(0x0020);
    pub const CAP_RINGS: Reg   = Reg(0x0024);
    pub const CAP_EXACT: Reg   = Reg(0x0028);
    pub const CAP_TERNARY: Reg = Reg(0x002c);
    pub const CAP_COUNTER: Reg = Reg(0x0030);
    pub const CAP_FRAME: Reg   = Reg(0x0034);
    pub const INSERT_NS: Reg   = Reg(0x0038);
    pub const CAP_STAGES: Reg  = Reg(0x003c);
    pub const TIME: Reg        = Reg(0x0040);
    pub const CAP_OBJECTS: Reg = Reg(0x0048);
    pub const CAP_AGAIN: Reg   = Reg(0x004c);
    pub const CAP_CONNS: Reg   = Reg(0x0050);
    pub const PARSE_DEPTH: Reg = Reg(0x0054);
    pub const CMD_SQ_BASE: Reg = Reg(0x0100);
    pub const CMD_CQ_BASE: Reg = Reg(0x0108);
    pub const CMD_LOG2: Reg    = Reg(0x0110);
    pub const CMD_VECTOR: Reg  = Reg(0x0114);
    pub const CMD_CTRL: Reg    = Reg(0x0118);
    pub const CMD_STATUS: Reg  = Reg(0x011c);
    pub const CMD_TAIL: Reg    = Reg(0x0120);
    pub const CMD_ARM: Reg     = Reg(0x0124);
    pub const CTR_BASE: Reg    = Reg(0x0140);
    pub const CTR_LOG2: Reg    = Reg(0x0148);
    pub const CTR_CTRL: Reg    = Reg(0x014c);
    pub const CTR_STATUS: Reg  = Reg(0x0150);
    pub const CTR_TAIL: Reg    = Reg(0x0154);
}

/// First port block.
pub const PORT_BASE: u32 = 0x1000;
/// Distance of port blocks.
pub const PORT_STRIDE: u32 = 0x100;
/// First queue-pair block.
pub const QUEUE_BASE: u32 = 0x4000;
/// Distance of queue-pair blocks.
pub const QUEUE_STRIDE: u32 = 0x80;

/// Register of a port block (SPEC 2.3); offset within the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortReg(pub u32);

#[rustfmt::skip]
#[allow(missing_docs)] // SPEC 2.3
impl PortReg {
    pub const STATUS: PortReg     = PortReg(0x00);
    pub const SPEED_MBPS: PortReg = PortReg(0x04);
    pub const MAC_LO: PortReg     = PortReg(0x08);
    pub const MAC_HI: PortReg     = PortReg(0x0c);
    pub const RX_PACKETS: PortReg = PortReg(0x40);
    pub const RX_BYTES: PortReg   = PortReg(0x48);
    pub const RX_DROPS: PortReg   = PortReg(0x50);
    pub const RX_ERRORS: PortReg  = PortReg(0x58);
    pub const TX_PACKETS: PortReg = PortReg(0x60);
    pub const TX_BYTES: PortReg   = PortReg(0x68);
    pub const TX_DROPS: PortReg   = PortReg(0x70);
    pub const TX_ERRORS: PortReg  = PortReg(0x78);

    /// Where it is in BAR0 for port `port`, less than [`MAX_PORTS`].
    pub const fn of(self, port: u8) -> Reg {
        Reg(PORT_BASE + port as u32 * PORT_STRIDE + self.0)
    }
}

/// Register of a queue-pair block (SPEC 2.4); offset within the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueReg(pub u32);

#[rustfmt::skip]
#[allow(missing_docs)] // SPEC 2.4
impl QueueReg {
    pub const RX_DESC_BASE: QueueReg = QueueReg(0x00);
    pub const RX_CPL_BASE: QueueReg  = QueueReg(0x08);
    pub const RX_LOG2: QueueReg      = QueueReg(0x10);
    pub const RX_VECTOR: QueueReg    = QueueReg(0x14);
    pub const RX_CTRL: QueueReg      = QueueReg(0x18);
    pub const RX_STATUS: QueueReg    = QueueReg(0x1c);
    pub const RX_TAIL: QueueReg      = QueueReg(0x20);
    pub const RX_ARM: QueueReg       = QueueReg(0x24);
    pub const RX_DROPS: QueueReg     = QueueReg(0x28);
    pub const TX_DESC_BASE: QueueReg = QueueReg(0x40);
    pub const TX_CPL_BASE: QueueReg  = QueueReg(0x48);
    pub const TX_LOG2: QueueReg      = QueueReg(0x50);
    pub const TX_VECTOR: QueueReg    = QueueReg(0x54);
    pub const TX_CTRL: QueueReg      = QueueReg(0x58);
    pub const TX_STATUS: QueueReg    = QueueReg(0x5c);
    pub const TX_TAIL: QueueReg      = QueueReg(0x60);
    pub const TX_ARM: QueueReg       = QueueReg(0x64);

    /// Where it is in BAR0 for queue pair `queue` of port `port`.
    pub const fn of(self, port: u8, queue: u8) -> Reg {
        Reg(QUEUE_BASE + (port as u32 * MAX_QUEUE_PAIRS + queue as u32) * QUEUE_STRIDE + self.0)
    }
}

/// Bits of [`Reg::CTRL`].
#[allow(missing_docs)] // SPEC 2.1
pub mod ctrl {
    pub const ENABLE: u32 = 1 << 0;
    pub const RESET: u32 = 1 << 1;
}

/// Bits of [`Reg::STATUS`].
#[allow(missing_docs)] // SPEC 2.1
pub mod status {
    pub const READY: u32 = 1 << 0;
    pub const ENABLED: u32 = 1 << 1;
    pub const RESETTING: u32 = 1 << 2;
    pub const FATAL: u32 = 1 << 31;
}

/// Bits of [`Reg::FAULT`], cleared by writing ones.
#[allow(missing_docs)] // SPEC 2.1
pub mod fault {
    pub const DMA_READ: u32 = 1 << 0;
    pub const DMA_WRITE: u32 = 1 << 1;
    pub const BAD_RING: u32 = 1 << 2;
    pub const BAD_DOORBELL: u32 = 1 << 3;
    pub const BAD_DESC: u32 = 1 << 4;
    pub const INTERNAL: u32 = 1 << 5;
    /// A table entry cannot be read any more: FAULT_INFO is the table, FAULT_ADDR the slot.
    pub const PARITY: u32 = 1 << 6;
    /// A counter has wrapped before it could be evicted: FAULT_INFO is the table, FAULT_ADDR the entry.
    pub const COUNTER: u32 = 1 << 7;
}

/// Bits of `CMD_CTRL`, `RX_CTRL`, `TX_CTRL`.
#[allow(missing_docs)]
pub mod queue_ctrl {
    pub const ENABLE: u32 = 1 << 0;
}

/// Bits of `CMD_STATUS`, `RX_STATUS`, `TX_STATUS`.
#[allow(missing_docs)]
pub mod queue_status {
    pub const ENABLED: u32 = 1 << 0;
    pub const ERROR: u32 = 1 << 1;
}

/// Bits of [`PortReg::STATUS`].
#[allow(missing_docs)]
pub mod port_status {
    pub const ADMIN_UP: u32 = 1 << 0;
    pub const LINK_UP: u32 = 1 << 1;
}

/// Interrupt vector of the command ring, by convention.
pub const VECTOR_CMD: u16 = 0;
/// Interrupt vector of events (faults, link changes); fixed.
pub const VECTOR_EVENT: u16 = 1;
/// First vector for queues, by convention.
pub const VECTOR_QUEUES: u16 = 2;

/// The capability registers, taken apart (SPEC 2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Caps {
    pub ports: u8,
    pub queue_pairs: u8,
    pub msix_vectors: u16,
    pub ring_log2_min: u8,
    pub ring_log2_max: u8,
    pub cmd_log2_max: u8,
    pub key_bytes: u8,
    pub exact_log2: u8,
    pub exact_ways: u8,
    pub profiles: u8,
    pub ternary_entries: u16,
    pub max_actions: u8,
    pub max_outputs: u8,
    pub packet_bits: u8,
    pub byte_bits: u8,
    pub max_frame_bytes: u16,
    pub max_records: u16,
    pub insert_ns: u32,
    pub lpm_profiles: u8,
    pub lpm_entries: u16,
    pub range_entries: u16,
    pub meters: u16,
    pub headers: u16,
    pub passes: u8,
    pub counter_log2_max: u8,
    pub groups: u16,
    pub connections: u32,
}

impl Caps {
    /// The capability registers in order of their offsets, as read by `read`.
    pub fn read(mut read: impl FnMut(Reg) -> u32) -> Caps {
        let [p, r, e, t] =
            [Reg::CAP_PORTS, Reg::CAP_RINGS, Reg::CAP_EXACT, Reg::CAP_TERNARY].map(|x| read(x).to_le_bytes());
        let [c, f] = [Reg::CAP_COUNTER, Reg::CAP_FRAME].map(|x| read(x).to_le_bytes());
        let [s, o, a] = [Reg::CAP_STAGES, Reg::CAP_OBJECTS, Reg::CAP_AGAIN].map(|x| read(x).to_le_bytes());
        Caps {
            ports: p[0],
            queue_pairs: p[1],
            msix_vectors: u16::from_le_bytes([p[2], p[3]]),
            ring_log2_max: r[0],
            ring_log2_min: r[1],
            cmd_log2_max: r[2],
            key_bytes: r[3],
            exact_log2: e[0],
            exact_ways: e[1],
            profiles: e[2],
            ternary_entries: u16::from_le_bytes([t[0], t[1]]),
            max_actions: t[2],
            max_outputs: t[3],
            packet_bits: c[0],
            byte_bits: c[1],
            max_frame_bytes: u16::from_le_bytes([f[0], f[1]]),
            max_records: u16::from_le_bytes([f[2], f[3]]),
            insert_ns: read(Reg::INSERT_NS),
            lpm_profiles: e[3],
            lpm_entries: u16::from_le_bytes([s[0], s[1]]),
            range_entries: u16::from_le_bytes([s[2], s[3]]),
            meters: u16::from_le_bytes([o[0], o[1]]),
            headers: u16::from_le_bytes([o[2], o[3]]),
            passes: a[0],
            counter_log2_max: a[1],
            groups: u16::from_le_bytes([a[2], a[3]]),
            connections: read(Reg::CAP_CONNS),
        }
    }

    /// What the register at `r` reads; `None` when it is not a capability register. The device's side.
    pub fn register(&self, r: Reg) -> Option<u32> {
        let [vlo, vhi] = self.msix_vectors.to_le_bytes();
        let [tlo, thi] = self.ternary_entries.to_le_bytes();
        let [flo, fhi] = self.max_frame_bytes.to_le_bytes();
        let [rlo, rhi] = self.max_records.to_le_bytes();
        let pair = |lo: u16, hi: u16| (u32::from(hi) << 16 | u32::from(lo)).to_le_bytes();
        Some(u32::from_le_bytes(match r {
            Reg::CAP_PORTS => [self.ports, self.queue_pairs, vlo, vhi],
            Reg::CAP_RINGS => [self.ring_log2_max, self.ring_log2_min, self.cmd_log2_max, self.key_bytes],
            Reg::CAP_EXACT => [self.exact_log2, self.exact_ways, self.profiles, self.lpm_profiles],
            Reg::CAP_TERNARY => [tlo, thi, self.max_actions, self.max_outputs],
            Reg::CAP_COUNTER => [self.packet_bits, self.byte_bits, 0, 0],
            Reg::CAP_FRAME => [flo, fhi, rlo, rhi],
            Reg::CAP_STAGES => pair(self.lpm_entries, self.range_entries),
            Reg::CAP_OBJECTS => pair(self.meters, self.headers),
            Reg::CAP_AGAIN => {
                let [lo, hi] = self.groups.to_le_bytes();
                [self.passes, self.counter_log2_max, lo, hi]
            }
            Reg::CAP_CONNS => return Some(self.connections),
            Reg::INSERT_NS => return Some(self.insert_ns),
            _ => return None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const _: () = assert!(Reg::CMD_ARM.0 < PORT_BASE);
    const _: () = assert!(PortReg::TX_ERRORS.0 + 8 <= PORT_STRIDE);
    const _: () = assert!(PORT_BASE + MAX_PORTS * PORT_STRIDE <= QUEUE_BASE);
    const _: () = assert!(QueueReg::TX_ARM.0 + 4 <= QUEUE_STRIDE);

    #[test]
    fn the_last_queue_register_lies_in_the_bar() {
        let end = QueueReg::TX_ARM.of(MAX_PORTS as u8 - 1, MAX_QUEUE_PAIRS as u8 - 1).0 + 4;
        assert!(u64::from(end) <= BAR_REGS_BYTES);
    }

    #[test]
    fn capabilities_survive_their_registers() {
        let c = Caps {
            ports: 4,
            queue_pairs: 2,
            msix_vectors: 18,
            ring_log2_min: 3,
            ring_log2_max: 12,
            cmd_log2_max: 10,
            key_bytes: 176,
            exact_log2: 14,
            exact_ways: 4,
            profiles: 8,
            ternary_entries: 512,
            max_actions: 16,
            max_outputs: 8,
            packet_bits: 32,
            byte_bits: 40,
            max_frame_bytes: 1600,
            max_records: 128,
            insert_ns: 1200,
            lpm_profiles: 4,
            lpm_entries: 2048,
            range_entries: 64,
            meters: 256,
            headers: 512,
            passes: 4,
            counter_log2_max: 10,
            groups: 64,
            connections: 70_000,
        };
        assert_eq!(Caps::read(|r| c.register(r).unwrap()), c);
        assert_eq!(c.register(Reg::ID), None);
    }
}
