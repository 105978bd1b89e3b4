//! Offsets and bits, transcribed a second time from the datasheet's tables (document 331520, chapter 8 and section 7), so that a slip
//! in one of the two shows.

use ixgbe_defs::bits::*;
use ixgbe_defs::desc::{RxWriteBack, TxDescriptor, rx, rx_read_form, tx};
use ixgbe_defs::{FdirInput, fdir, five_tuple, pci, regs, stats};

/// "0x0e600 + 4*n, n=0...127" and the like: first register, distance, how many, and the last as the datasheet names it.
fn array(f: impl Fn(u32) -> u32, first: u32, step: u32, n: u32) {
    for i in 0..n {
        assert_eq!(f(i), first + step * i, "register {i} of those from {first:#x}");
    }
}

#[test]
fn general_eeprom_and_interrupt_registers_8_2_3_1_to_8_2_3_5() {
    assert_eq!([regs::CTRL, regs::STATUS, regs::CTRL_EXT], [0, 0x8, 0x18]);
    assert_eq!(regs::EEC, 0x10010);
    let eicr = [regs::EICR, regs::EICS, regs::EIAC, regs::EIMS, regs::EIMC, regs::EIAM, regs::GPIE];
    assert_eq!(eicr, [0x800, 0x808, 0x810, 0x880, 0x888, 0x890, 0x898]);
    array(regs::ivar, 0x900, 4, 64);
    assert_eq!(regs::IVAR_MISC, 0xa00);
    array(regs::eims_ex, 0xaa0, 4, 2);
    array(regs::eimc_ex, 0xab0, 4, 2);
    array(regs::eiam_ex, 0xad0, 4, 2);
    array(regs::eitr, 0x820, 4, 24);
    array(|i| regs::eitr(24 + i), 0x12300, 4, 105);
}

#[test]
fn receive_registers_8_2_3_7() {
    assert_eq!([regs::FCTRL, regs::VLNCTRL, regs::RXCSUM, regs::RFCTL], [0x5080, 0x5088, 0x5000, 0x5008]);
    assert_eq!(regs::MRQC, 0xec80);
    array(regs::reta, 0xeb00, 4, 32);
    array(regs::rssrk, 0xeb80, 4, 10);
    array(regs::ral, 0xa200, 8, 128);
    array(regs::rah, 0xa204, 8, 128);
    array(regs::saqf, 0xe000, 4, 128);
    array(regs::daqf, 0xe200, 4, 128);
    array(regs::sdpqf, 0xe400, 4, 128);
    array(regs::ftqf, 0xe600, 4, 128);
    array(regs::l34timir, 0xe800, 4, 128);
}

#[test]
fn rings_8_2_3_8_and_8_2_3_9() {
    type Of = fn(u32) -> u32;
    let rx: [(Of, u32); 8] = [
        (regs::rdbal, 0x00),
        (regs::rdbah, 0x04),
        (regs::rdlen, 0x08),
        (regs::dca_rxctrl, 0x0c),
        (regs::rdh, 0x10),
        (regs::srrctl, 0x14),
        (regs::rdt, 0x18),
        (regs::rxdctl, 0x28),
    ];
    for (f, at) in rx {
        array(f, 0x1000 + at, 0x40, 64);
        array(|q| f(64 + q), 0xd000 + at, 0x40, 64);
    }
    let tx: [(Of, u32); 6] = [
        (regs::tdbal, 0x00),
        (regs::tdbah, 0x04),
        (regs::tdlen, 0x08),
        (regs::tdh, 0x10),
        (regs::tdt, 0x18),
        (regs::txdctl, 0x28),
    ];
    for (f, at) in tx {
        array(f, 0x6000 + at, 0x40, 128);
    }
    assert_eq!([regs::RDRXCTL, regs::RXCTRL], [0x2f00, 0x3000]);
    array(regs::rxpbsize, 0x3c00, 4, 8);
    assert_eq!([regs::DMATXCTL, regs::DTXMXSZRQ, regs::MTQC, regs::RTTDCS], [0x4a80, 0x8100, 0x8120, 0x4900]);
    array(regs::txpbthresh, 0x4950, 4, 8);
    array(regs::txpbsize, 0xcc00, 4, 8);
    assert_eq!([regs::RTRUP2TC, regs::RTTUP2TC], [0x3020, 0xc800]);
}

#[test]
fn flow_director_mac_and_statistics_8_2_3_21_to_8_2_3_23() {
    let fdir = [
        (regs::FDIRCTRL, 0x00),
        (regs::FDIRIPSA, 0x18),
        (regs::FDIRIPDA, 0x1c),
        (regs::FDIRPORT, 0x20),
        (regs::FDIRVLAN, 0x24),
        (regs::FDIRHASH, 0x28),
        (regs::FDIRCMD, 0x2c),
        (regs::FDIRFREE, 0x38),
        (regs::FDIRDIP4M, 0x3c),
        (regs::FDIRSIP4M, 0x40),
        (regs::FDIRTCPM, 0x44),
        (regs::FDIRUDPM, 0x48),
        (regs::FDIRLEN, 0x4c),
        (regs::FDIRUSTAT, 0x50),
        (regs::FDIRFSTAT, 0x54),
        (regs::FDIRMATCH, 0x58),
        (regs::FDIRMISS, 0x5c),
        (regs::FDIRHKEY, 0x68),
        (regs::FDIRSKEY, 0x6c),
        (regs::FDIRM, 0x70),
    ];
    assert!(fdir.iter().all(|(r, at)| *r == 0xee00 + at), "{fdir:x?}");
    array(regs::fdirsipv6, 0xee0c, 4, 3);
    assert_eq!([regs::HLREG0, regs::MAXFRS, regs::AUTOC, regs::LINKS], [0x4240, 0x4268, 0x42a0, 0x42a4]);
    assert_eq!([stats::GPRC, stats::GORCL, stats::GORCH], [0x4074, 0x4088, 0x408c]);
    assert_eq!([stats::GPTC, stats::GOTCL, stats::GOTCH], [0x4080, 0x4090, 0x4094]);
    assert_eq!([stats::BPRC, stats::MPRC, stats::TPR], [0x4078, 0x407c, 0x40d0]);
    let errors = [0x4000, 0x4004, 0x4008, 0x4040, 0x40a4, 0x40a8, 0x40ac, 0x40b0];
    assert_eq!(stats::RX_ERRORS, errors);
    array(stats::rxmpc, 0x3fa0, 4, 8);
    array(stats::rqsmr, 0x2300, 4, 32);
    array(stats::qprc, 0x1030, 0x40, 16);
    array(stats::qprdc, 0x1430, 0x40, 16);
}

#[test]
fn bits_of_control_and_status_registers() {
    assert_eq!((ctrl::PCIE_MASTER_DISABLE, ctrl::LRST, ctrl::RST), (0x4, 0x8, 0x0400_0000));
    assert_eq!((status::LINK_UP, status::PCIE_MASTER_ENABLE), (0x80, 0x0008_0000));
    assert_eq!((ctrl_ext::NS_DIS, ctrl_ext::DRV_LOAD), (0x0001_0000, 0x1000_0000));
    assert_eq!((eec::PRES, eec::ARD), (0x100, 0x200));
    assert_eq!((eicr::FLOW_DIR, eicr::LSC, eicr::ECC), (0x0001_0000, 0x0010_0000, 0x1000_0000));
    let g = [gpie::MULTIPLE_MSIX, gpie::OCD, gpie::EIAME, gpie::PBA_SUPPORT];
    assert_eq!(g, [0x10, 0x20, 0x4000_0000, 0x8000_0000]);
    // 8.2.3.5.12: bits 11:3, in units of 2.048 us: 20 us are 10 units.
    assert_eq!((eitr::interval(20_000), eitr::interval(u32::MAX), eitr::interval(0)), (10 << 3, 0xff8, 0));
    // 8.2.3.5.15: INT_Alloc[0..3] in bytes 0 to 3.
    assert_eq!(
        [ivar::shift(0, false), ivar::shift(0, true), ivar::shift(1, false), ivar::shift(1, true)],
        [0, 8, 16, 24]
    );
    assert_eq!((fctrl::SBP, fctrl::MPE, fctrl::UPE, fctrl::BAM), (0x2, 0x100, 0x200, 0x400));
    assert_eq!(
        (vlnctrl::VFE, vlnctrl::VET, rxcsum::PCSD, rfctl::RSC_DIS),
        (0x4000_0000, 0x8100, 0x2000, 0x20)
    );
    let m = [mrqc::TCP_IPV4, mrqc::IPV4, mrqc::IPV6, mrqc::TCP_IPV6, mrqc::UDP_IPV4, mrqc::UDP_IPV6];
    assert_eq!(m, [0x1_0000, 0x2_0000, 0x10_0000, 0x20_0000, 0x40_0000, 0x80_0000]);
    assert_eq!((srrctl::DESCTYPE_ADV_ONE, srrctl::DROP_EN), (0x0200_0000, 0x1000_0000));
    assert_eq!((srrctl::bsizepacket(2048), srrctl::bsizepacket(1856), srrctl::bsizepacket(1024)), (2, 2, 1));
    assert_eq!(
        (dctl::ENABLE, dctl::VME, dctl::thresholds(36, 8, 4)),
        (0x0200_0000, 0x4000_0000, 0x0004_0824)
    );
    let r = [rdrxctl::CRC_STRIP, rdrxctl::DMAIDONE, rdrxctl::RSCACKC, rdrxctl::FCOE_WRFIX];
    assert_eq!(r, [0x2, 0x8, 0x0200_0000, 0x0400_0000]);
    assert_eq!((rxctrl::RXEN, dmatxctl::TE, rttdcs::ARBDIS), (1, 1, 0x40));
    let h = [hlreg0::TXCRCEN, hlreg0::RXCRCSTRP, hlreg0::JUMBOEN, hlreg0::TXPADEN, hlreg0::LPBK];
    assert_eq!(h, [0x1, 0x2, 0x4, 0x400, 0x8000]);
    assert_eq!((autoc::RESTART_AN, links::UP, rah::AV), (0x1000, 0x4000_0000, 0x8000_0000));
    assert_eq!([0u32, 1, 2, 3].map(|s| links::speed_mbps(s << 28)), [0, 100, 1000, 10000]);
}

#[test]
fn bits_of_filters_8_2_3_7_and_8_2_3_21() {
    use fdir::{cmd, ctrl as c, mask};
    assert_eq!((c::PBALLOC_256K, c::INIT_DONE, c::PERFECT_MATCH, c::REPORT_STATUS), (0x3, 0x8, 0x10, 0x20));
    let shifts = [c::DROP_QUEUE_SHIFT, c::FLEX_OFFSET_SHIFT, c::MAX_LENGTH_SHIFT, c::FULL_THRESH_SHIFT];
    assert_eq!(shifts, [8, 16, 24, 28]);
    assert_eq!([cmd::ADD, cmd::REMOVE, cmd::QUERY, cmd::FILTER_VALID, cmd::FILTER_UPDATE], [1, 2, 3, 4, 8]);
    assert_eq!((cmd::IPV6, cmd::CLEARHT, cmd::DROP), (0x80, 0x100, 0x200));
    assert_eq!((cmd::LAST, cmd::QUEUE_EN), (0x800, 0x8000));
    assert_eq!((cmd::L4TYPE_SHIFT, cmd::RX_QUEUE_SHIFT, fdir::SOFT_INDEX_SHIFT), (5, 16, 16));
    assert_eq!(
        [mask::VLANID, mask::VLANP, mask::POOL, mask::L4P, mask::FLEX, mask::DIPV6],
        [1, 2, 4, 8, 16, 32]
    );
    // 8.2.3.21.19 and 20.
    assert_eq!((fdir::BUCKET_KEY, fdir::SIGNATURE_KEY), (0x3dad_14e2, 0x174d_3614));
    use five_tuple::{ftqf, l34timir};
    assert_eq!([ftqf::NO_SRC, ftqf::NO_DST, ftqf::NO_SRC_PORT], [1 << 25, 1 << 26, 1 << 27]);
    assert_eq!(
        [ftqf::NO_DST_PORT, ftqf::NO_PROTOCOL, ftqf::NO_POOL, ftqf::ENABLE],
        [1 << 28, 1 << 29, 1 << 30, 1 << 31]
    );
    assert_eq!((l34timir::SIZE_BP, l34timir::RESERVED, l34timir::QUEUE_SHIFT), (1 << 12, 1 << 19, 21));
}

#[test]
fn descriptors_7_1_6_and_7_2_3_2_4() {
    let w = RxWriteBack { info: 0x1234_5678_0000_0011, status: 0x0005_0040_0000_0003 };
    assert!(w.is_done() && w.status & rx::EOP != 0);
    assert_eq!((w.len_bytes(), w.rss_hash(), w.filter_id()), (64, Some(0x1234_5678), None));
    let f = RxWriteBack { status: w.status | rx::FLM, ..w };
    assert_eq!((f.rss_hash(), f.filter_id()), (None, Some(0x1234)));
    assert_eq!(RxWriteBack::decode(&w.encode()), w);
    assert_eq!(w.with_len(1500).len_bytes(), 1500);
    assert_eq!(rx_read_form(0x0102_0304_0506_0708), [8, 7, 6, 5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Length 60, data descriptor, EOP, IFCS, RS, DEXT, payload length 60.
    let t = TxDescriptor::frame(0x1000, 60, true);
    assert_eq!(t.encode()[..8], 0x1000u64.to_le_bytes());
    assert_eq!(t.encode()[8..12], [60, 0, 0x30, 0x2b]);
    assert_eq!((t.len_bytes(), t.payload_bytes(), t.command & tx::DD), (60, 60, 0));
    assert_eq!(TxDescriptor::frame(0, 60, false).encode()[11], 0x23);
    assert_eq!(TxDescriptor::decode(&t.encode()), t);
}

/// The bit-serial form of 7.1.2.7.10: bit `b` of the hash is the sum over bits `i` of the key's halves of bit `i + b` of the
/// stream folded to words.
#[test]
fn the_bucket_is_the_one_that_the_bit_serial_form_gives() {
    let i = FdirInput {
        l4: fdir::l4::UDP,
        vlan: 0x2064,
        flex: 0x8100,
        src: 0xc0a8_0001,
        dst: 0x0a01_0203,
        src_port: 4000,
        dst_port: 53,
    };
    let stream: [u32; 11] = [1 << 16 | 0x2064, i.dst, 0, 0, 0, i.src, 0, 0, 0, 4000 << 16 | 53, 0x8100 << 16];
    let mut folded = [false; 32];
    for (n, word) in stream.iter().enumerate() {
        for (b, f) in folded.iter_mut().enumerate() {
            *f ^= word >> b & 1 != 0;
            // The first word comes in a second time, half a word on.
            if n == 0 && b < 16 {
                *f ^= word >> (b + 16) & 1 != 0;
            }
        }
    }
    let first = |b: usize| stream[0] >> b & 1 != 0;
    let mut hash = 0u16;
    for b in 0..16 {
        let mut bit = false;
        for n in 0..16 {
            if fdir::BUCKET_KEY >> (n + 16) & 1 != 0 && n + b < 32 {
                bit ^= folded[n + b];
            }
            if fdir::BUCKET_KEY >> n & 1 != 0 && n + b < 32 {
                let at = (n + b + 16) % 32;
                // Exchanged halves; and instead of the first word as it was folded in, that word exchanged.
                let f = if at < 16 { first(at) ^ first(at + 16) } else { first(at) };
                let g = if n + b >= 16 { first(n + b) ^ first(n + b - 16) } else { first(n + b) };
                bit ^= folded[at] ^ f ^ if n > 0 { g } else { false };
            }
        }
        hash |= u16::from(bit) << b;
    }
    assert_eq!(i.bucket(), hash & 0x1fff);
}

#[test]
fn ids_are_of_intel_and_virtual_functions_are_not_among_them() {
    assert_eq!(pci::mac_of(0x8086, 0x10fb), Some(pci::Mac::I82599));
    assert_eq!(pci::mac_of(0x8086, 0x1528), Some(pci::Mac::X540));
    assert_eq!((pci::mac_of(0x8086, 0x10ed), pci::mac_of(0x1af4, 0x10fb)), (None, None));
}
