//! What is in the registers: one module each, named as the register. A bit is a mask, a field has a function or a shift.

/// [`crate::regs::CTRL`] (8.2.3.1.1).
pub mod ctrl {
    /// No more requests to the bus (5.2.5.3.2).
    pub const PCIE_MASTER_DISABLE: u32 = 1 << 2;
    /// Link reset; clears itself.
    pub const LRST: u32 = 1 << 3;
    /// Device reset; clears itself.
    pub const RST: u32 = 1 << 26;
}

/// [`crate::regs::STATUS`] (8.2.3.1.2).
pub mod status {
    /// Which of the controller's ports this function is.
    pub const LAN_ID_SHIFT: u32 = 2;
    /// The link is up.
    pub const LINK_UP: u32 = 1 << 7;
    /// Requests to the bus may still be under way.
    pub const PCIE_MASTER_ENABLE: u32 = 1 << 19;
}

/// [`crate::regs::CTRL_EXT`] (8.2.3.1.3).
pub mod ctrl_ext {
    /// No snoop disable.
    pub const NS_DIS: u32 = 1 << 16;
    /// A driver is loaded; firmware looks at it.
    pub const DRV_LOAD: u32 = 1 << 28;
}

/// [`crate::regs::EEC`] (8.2.3.2.1).
pub mod eec {
    /// An EEPROM is there.
    pub const PRES: u32 = 1 << 8;
    /// The EEPROM has been read.
    pub const ARD: u32 = 1 << 9;
}

/// Causes of interrupts: [`crate::regs::EICR`] and its kin (8.2.3.5.1). Bits 15:0 are vectors of queues.
pub mod eicr {
    /// Vectors of queues.
    pub const RTXQ: u32 = 0xffff;
    /// Flow director.
    pub const FLOW_DIR: u32 = 1 << 16;
    /// The link has changed.
    pub const LSC: u32 = 1 << 20;
    /// Uncorrectable error in the device's memory: it has to be reset.
    pub const ECC: u32 = 1 << 28;
}

/// [`crate::regs::GPIE`] (8.2.3.5.18).
pub mod gpie {
    /// Several MSI-X vectors.
    pub const MULTIPLE_MSIX: u32 = 1 << 4;
    /// Causes are cleared by reading only where nothing is masked.
    pub const OCD: u32 = 1 << 5;
    /// Masks follow [`crate::regs::EIAM`].
    pub const EIAME: u32 = 1 << 30;
    /// Pending bits as MSI-X has them.
    pub const PBA_SUPPORT: u32 = 1 << 31;
}

/// [`crate::regs::eitr`] (8.2.3.5.12).
pub mod eitr {
    /// Unit of the interval at 10 Gb/s, in nanoseconds.
    pub const UNIT_NS: u32 = 2_048;
    /// The counter is not written.
    pub const CNT_WDIS: u32 = 1 << 31;
    /// The register for at least `ns` nanoseconds between interrupts, cut at 511 units.
    pub const fn interval(ns: u32) -> u32 {
        let units = ns.div_ceil(UNIT_NS);
        (if units > 0x1ff { 0x1ff } else { units }) << 3
    }
}

/// [`crate::regs::ivar`] (8.2.3.5.15): four bytes, receive and transmit of an even and of an odd queue.
pub mod ivar {
    /// The byte holds.
    pub const VALID: u8 = 0x80;
    /// Place of the byte of queue `q`'s receive or transmit side.
    pub const fn shift(q: u32, tx: bool) -> u32 {
        16 * (q & 1) + if tx { 8 } else { 0 }
    }
}

/// [`crate::regs::FCTRL`] (8.2.3.7.1).
pub mod fctrl {
    /// Bad frames are stored, too.
    pub const SBP: u32 = 1 << 1;
    /// All multicast frames are taken.
    pub const MPE: u32 = 1 << 8;
    /// All unicast frames are taken.
    pub const UPE: u32 = 1 << 9;
    /// Broadcast frames are taken.
    pub const BAM: u32 = 1 << 10;
}

/// [`crate::regs::VLNCTRL`] (8.2.3.7.2).
pub mod vlnctrl {
    /// The VLAN filter is on.
    pub const VFE: u32 = 1 << 30;
    /// Ethernet type of a tag, in the low half, after reset.
    pub const VET: u32 = 0x8100;
}

/// [`crate::regs::RXCSUM`] (8.2.3.7.15).
pub mod rxcsum {
    /// The descriptor has the hash where it could have a checksum.
    pub const PCSD: u32 = 1 << 13;
}

/// [`crate::regs::RFCTL`] (8.2.3.7.16).
pub mod rfctl {
    /// No receive-side coalescing.
    pub const RSC_DIS: u32 = 1 << 5;
}

/// [`crate::regs::MRQC`] (8.2.3.7.12).
pub mod mrqc {
    /// Receive-side scaling over up to 16 queues.
    pub const RSS: u32 = 0b0001;
    /// Hash of TCP over IPv4.
    pub const TCP_IPV4: u32 = 1 << 16;
    /// Hash of IPv4.
    pub const IPV4: u32 = 1 << 17;
    /// Hash of IPv6.
    pub const IPV6: u32 = 1 << 20;
    /// Hash of TCP over IPv6.
    pub const TCP_IPV6: u32 = 1 << 21;
    /// Hash of UDP over IPv4.
    pub const UDP_IPV4: u32 = 1 << 22;
    /// Hash of UDP over IPv6.
    pub const UDP_IPV6: u32 = 1 << 23;
}

/// [`crate::regs::srrctl`] (8.2.3.8.7).
pub mod srrctl {
    /// One buffer, advanced descriptors.
    pub const DESCTYPE_ADV_ONE: u32 = 0b001 << 25;
    /// The field of descriptor types.
    pub const DESCTYPE: u32 = 0b111 << 25;
    /// A frame is dropped when there is no descriptor.
    pub const DROP_EN: u32 = 1 << 28;
    /// Buffers of `bytes` bytes, in units of 1 KiB, rounded up.
    pub const fn bsizepacket(bytes: u32) -> u32 {
        bytes.div_ceil(1024) & 0x1f
    }
}

/// [`crate::regs::rxdctl`] (8.2.3.8.6) and [`crate::regs::txdctl`] (8.2.3.9.10).
pub mod dctl {
    /// The queue is enabled; reads one once it is.
    pub const ENABLE: u32 = 1 << 25;
    /// VLAN tags are taken off (receive only).
    pub const VME: u32 = 1 << 30;
    /// Thresholds of a transmit queue: prefetch, host, write back.
    pub const fn thresholds(prefetch: u32, host: u32, write_back: u32) -> u32 {
        prefetch & 0x7f | (host & 0x7f) << 8 | (write_back & 0x7f) << 16
    }
}

/// [`crate::regs::RDRXCTL`] (8.2.3.8.8).
pub mod rdrxctl {
    /// The frame check sequence is taken off; must be as in HLREG0.
    pub const CRC_STRIP: u32 = 1 << 1;
    /// DMA has been initialized; read only.
    pub const DMAIDONE: u32 = 1 << 3;
    /// To be zero, though it is not after reset.
    pub const RSCFRSTSIZE: u32 = 0x1f << 17;
    /// To be one.
    pub const RSCACKC: u32 = 1 << 25;
    /// To be one.
    pub const FCOE_WRFIX: u32 = 1 << 26;
}

/// [`crate::regs::RXCTRL`] (8.2.3.8.10).
pub mod rxctrl {
    /// Frames are received.
    pub const RXEN: u32 = 1;
}

/// [`crate::regs::dca_rxctrl`] (8.2.3.11.1).
pub mod dca_rxctrl {
    /// To be zero, though it is not after reset.
    pub const RX_WB_RO_EN: u32 = 1 << 12;
}

/// [`crate::regs::DMATXCTL`] (8.2.3.9.2).
pub mod dmatxctl {
    /// Frames are sent.
    pub const TE: u32 = 1;
}

/// [`crate::regs::RTTDCS`] (8.2.3.10.1).
pub mod rttdcs {
    /// The arbiter is off, while queues are configured.
    pub const ARBDIS: u32 = 1 << 6;
}

/// Sizes of packet buffers: [`crate::regs::rxpbsize`] (8.2.3.8.9), [`crate::regs::txpbsize`] (8.2.3.9.13).
pub mod pbsize {
    /// Unit: 1 KiB, from bit 10 up.
    pub const SHIFT: u32 = 10;
    /// Receive buffer, in KiB.
    pub const RX_KIB: u32 = 512;
    /// Transmit buffer, in KiB.
    pub const TX_KIB: u32 = 160;
}

/// [`crate::regs::HLREG0`] (8.2.3.22.8).
pub mod hlreg0 {
    /// The frame check sequence is added.
    pub const TXCRCEN: u32 = 1;
    /// The frame check sequence is taken off.
    pub const RXCRCSTRP: u32 = 1 << 1;
    /// Frames as long as MAXFRS says.
    pub const JUMBOEN: u32 = 1 << 2;
    /// Short frames are filled up.
    pub const TXPADEN: u32 = 1 << 10;
    /// Loopback.
    pub const LPBK: u32 = 1 << 15;
}

/// [`crate::regs::MAXFRS`] (8.2.3.22.13).
pub mod maxfrs {
    /// The longest frame with its check sequence, in the upper half.
    pub const MFS_SHIFT: u32 = 16;
    /// The longest without JUMBOEN: 1,518 bytes, four more with a tag.
    pub const STANDARD: u32 = 1518;
}

/// [`crate::regs::AUTOC`] (8.2.3.22.19).
pub mod autoc {
    /// Link setup starts again; clears itself.
    pub const RESTART_AN: u32 = 1 << 12;
}

/// [`crate::regs::LINKS`] (8.2.3.22.20).
pub mod links {
    /// The link is up.
    pub const UP: u32 = 1 << 30;
    /// Megabits per second: bits 29:28; 0 when it does not say.
    pub const fn speed_mbps(v: u32) -> u32 {
        match v >> 28 & 3 {
            0b11 => 10_000,
            0b10 => 1_000,
            0b01 => 100,
            _ => 0,
        }
    }
    /// Bits 29:28 at 10 Gb/s.
    pub const SPEED_10G: u32 = 0b11 << 28;
}

/// [`crate::regs::rah`] (8.2.3.7.10).
pub mod rah {
    /// The address holds.
    pub const AV: u32 = 1 << 31;
}
