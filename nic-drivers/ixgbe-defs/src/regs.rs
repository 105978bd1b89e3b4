//! Register offsets in BAR 0, in bytes, by section of the datasheet. All are 32 bits wide and accessed whole.

// 8.2.3.1 General control.
/// Device control.
pub const CTRL: u32 = 0x0_0000;
/// Device status; read only.
pub const STATUS: u32 = 0x0_0008;
/// Extended device control.
pub const CTRL_EXT: u32 = 0x0_0018;

// 8.2.3.2 EEPROM and flash.
/// EEPROM and flash control.
pub const EEC: u32 = 0x1_0010;

// 8.2.3.5 Interrupts.
/// Causes; read to clear, and write one to clear.
pub const EICR: u32 = 0x0_0800;
/// Sets causes; write only.
pub const EICS: u32 = 0x0_0808;
/// Causes that are cleared by themselves when their vector is raised.
pub const EIAC: u32 = 0x0_0810;
/// Mask: ones enable, zeroes do nothing.
pub const EIMS: u32 = 0x0_0880;
/// Clears bits of the mask; write only.
pub const EIMC: u32 = 0x0_0888;
/// Causes that are masked by themselves when their vector is raised.
pub const EIAM: u32 = 0x0_0890;
/// How interrupts are signalled.
pub const GPIE: u32 = 0x0_0898;
/// Vector of causes that are no queue's.
pub const IVAR_MISC: u32 = 0x0_0a00;
/// The mask of vectors `32 * i` and on, as [`EIMS`], for queues' vectors.
pub const fn eims_ex(i: u32) -> u32 {
    0x0_0aa0 + 4 * i
}
/// As [`EIMC`], of vectors `32 * i` and on.
pub const fn eimc_ex(i: u32) -> u32 {
    0x0_0ab0 + 4 * i
}
/// As [`EIAM`], of vectors `32 * i` and on.
pub const fn eiam_ex(i: u32) -> u32 {
    0x0_0ad0 + 4 * i
}
/// Moderation of vector `v`.
pub const fn eitr(v: u32) -> u32 {
    if v < 24 { 0x0_0820 + 4 * v } else { 0x1_2300 + 4 * (v - 24) }
}
/// Vectors of queues `2 * i` and `2 * i + 1`.
pub const fn ivar(i: u32) -> u32 {
    0x0_0900 + 4 * i
}
/// How many [`ivar`] registers there are.
pub const IVARS: u32 = 64;

// 8.2.3.7 Receive.
/// Which frames the MAC takes.
pub const FCTRL: u32 = 0x0_5080;
/// VLAN filter and Ethernet type.
pub const VLNCTRL: u32 = 0x0_5088;
/// Receive checksums.
pub const RXCSUM: u32 = 0x0_5000;
/// Receive filters' odds and ends.
pub const RFCTL: u32 = 0x0_5008;
/// Multiple receive queues.
pub const MRQC: u32 = 0x0_ec80;
/// Redirection table of receive-side scaling: entries `4 * i` and on.
pub const fn reta(i: u32) -> u32 {
    0x0_eb00 + 4 * i
}
/// How many [`reta`] registers there are.
pub const RETAS: u32 = 32;
/// Key of receive-side scaling: bytes `4 * i` and on.
pub const fn rssrk(i: u32) -> u32 {
    0x0_eb80 + 4 * i
}
/// How many [`rssrk`] registers there are.
pub const RSSRKS: u32 = 10;
/// Low half of receive address `i`.
pub const fn ral(i: u32) -> u32 {
    0x0_a200 + 8 * i
}
/// High half of receive address `i`.
pub const fn rah(i: u32) -> u32 {
    0x0_a204 + 8 * i
}
/// Source address of 5-tuple filter `i`.
pub const fn saqf(i: u32) -> u32 {
    0x0_e000 + 4 * i
}
/// Destination address of 5-tuple filter `i`.
pub const fn daqf(i: u32) -> u32 {
    0x0_e200 + 4 * i
}
/// Ports of 5-tuple filter `i`.
pub const fn sdpqf(i: u32) -> u32 {
    0x0_e400 + 4 * i
}
/// 5-tuple filter `i`: protocol, what is compared, whether it is on.
pub const fn ftqf(i: u32) -> u32 {
    0x0_e600 + 4 * i
}
/// Queue of 5-tuple filter `i`.
pub const fn l34timir(i: u32) -> u32 {
    0x0_e800 + 4 * i
}

// 8.2.3.8 Receive DMA.
const fn rx(q: u32, r: u32) -> u32 {
    if q < 64 { 0x0_1000 + 0x40 * q + r } else { 0x0_d000 + 0x40 * (q - 64) + r }
}
/// Low half of the address of receive ring `q`.
pub const fn rdbal(q: u32) -> u32 {
    rx(q, 0x00)
}
/// High half of the address of receive ring `q`.
pub const fn rdbah(q: u32) -> u32 {
    rx(q, 0x04)
}
/// Bytes of receive ring `q`.
pub const fn rdlen(q: u32) -> u32 {
    rx(q, 0x08)
}
/// Cache hints of receive ring `q`.
pub const fn dca_rxctrl(q: u32) -> u32 {
    rx(q, 0x0c)
}
/// Head of receive ring `q`: the device's.
pub const fn rdh(q: u32) -> u32 {
    rx(q, 0x10)
}
/// Buffers of receive ring `q`.
pub const fn srrctl(q: u32) -> u32 {
    rx(q, 0x14)
}
/// Tail of receive ring `q`: the driver's.
pub const fn rdt(q: u32) -> u32 {
    rx(q, 0x18)
}
/// Control of receive ring `q`.
pub const fn rxdctl(q: u32) -> u32 {
    rx(q, 0x28)
}
/// Receive DMA control.
pub const RDRXCTL: u32 = 0x0_2f00;
/// Size of receive packet buffer `i`.
pub const fn rxpbsize(i: u32) -> u32 {
    0x0_3c00 + 4 * i
}
/// Receive enable.
pub const RXCTRL: u32 = 0x0_3000;
/// Packet buffers and traffic classes.
pub const PACKET_BUFFERS: u32 = 8;

// 8.2.3.9 Transmit.
const fn tx(q: u32, r: u32) -> u32 {
    0x0_6000 + 0x40 * q + r
}
/// Low half of the address of transmit ring `q`.
pub const fn tdbal(q: u32) -> u32 {
    tx(q, 0x00)
}
/// High half of the address of transmit ring `q`.
pub const fn tdbah(q: u32) -> u32 {
    tx(q, 0x04)
}
/// Bytes of transmit ring `q`.
pub const fn tdlen(q: u32) -> u32 {
    tx(q, 0x08)
}
/// Head of transmit ring `q`: the device's.
pub const fn tdh(q: u32) -> u32 {
    tx(q, 0x10)
}
/// Tail of transmit ring `q`: the driver's.
pub const fn tdt(q: u32) -> u32 {
    tx(q, 0x18)
}
/// Control of transmit ring `q`.
pub const fn txdctl(q: u32) -> u32 {
    tx(q, 0x28)
}
/// Transmit enable.
pub const DMATXCTL: u32 = 0x0_4a80;
/// Most bytes that are fetched ahead.
pub const DTXMXSZRQ: u32 = 0x0_8100;
/// Transmit queues, pools and classes.
pub const MTQC: u32 = 0x0_8120;
/// Threshold of transmit packet buffer `i`.
pub const fn txpbthresh(i: u32) -> u32 {
    0x0_4950 + 4 * i
}
/// Size of transmit packet buffer `i`.
pub const fn txpbsize(i: u32) -> u32 {
    0x0_cc00 + 4 * i
}

// 8.2.3.10 Data center bridging.
/// Transmit arbiter control.
pub const RTTDCS: u32 = 0x0_4900;
/// Receive user priority to traffic class.
pub const RTRUP2TC: u32 = 0x0_3020;
/// Transmit user priority to traffic class.
pub const RTTUP2TC: u32 = 0x0_c800;

// 8.2.3.21 Flow director.
/// Control.
pub const FDIRCTRL: u32 = 0x0_ee00;
/// Bytes of the IPv6 source address that do not fit [`FDIRIPSA`]; zero for IPv4.
pub const fn fdirsipv6(i: u32) -> u32 {
    0x0_ee0c + 4 * i
}
/// Source address.
pub const FDIRIPSA: u32 = 0x0_ee18;
/// Destination address.
pub const FDIRIPDA: u32 = 0x0_ee1c;
/// Ports.
pub const FDIRPORT: u32 = 0x0_ee20;
/// VLAN tag and flexible bytes.
pub const FDIRVLAN: u32 = 0x0_ee24;
/// Hash and software index.
pub const FDIRHASH: u32 = 0x0_ee28;
/// Command.
pub const FDIRCMD: u32 = 0x0_ee2c;
/// Filters that are free; read only but for a reset of the tables.
pub const FDIRFREE: u32 = 0x0_ee38;
/// Bits of the destination address that are not compared.
pub const FDIRDIP4M: u32 = 0x0_ee3c;
/// Bits of the source address that are not compared.
pub const FDIRSIP4M: u32 = 0x0_ee40;
/// Bits of TCP ports that are not compared.
pub const FDIRTCPM: u32 = 0x0_ee44;
/// Bits of UDP ports that are not compared.
pub const FDIRUDPM: u32 = 0x0_ee48;
/// The longest bucket; cleared when read.
pub const FDIRLEN: u32 = 0x0_ee4c;
/// Filters added and removed; cleared when read.
pub const FDIRUSTAT: u32 = 0x0_ee50;
/// Filters that could not be added or removed; cleared when read.
pub const FDIRFSTAT: u32 = 0x0_ee54;
/// Packets that matched a filter; cleared when read.
pub const FDIRMATCH: u32 = 0x0_ee58;
/// Packets that matched none; cleared when read.
pub const FDIRMISS: u32 = 0x0_ee5c;
/// Key of the bucket hash.
pub const FDIRHKEY: u32 = 0x0_ee68;
/// Key of the signature hash.
pub const FDIRSKEY: u32 = 0x0_ee6c;
/// Fields that are not compared.
pub const FDIRM: u32 = 0x0_ee70;

// 8.2.3.22 MAC.
/// MAC control.
pub const HLREG0: u32 = 0x0_4240;
/// Longest frame.
pub const MAXFRS: u32 = 0x0_4268;
/// Link configuration.
pub const AUTOC: u32 = 0x0_42a0;
/// Link status; read only.
pub const LINKS: u32 = 0x0_42a4;
