//! Which registers there are, what reading and writing does to them, and what they have after a reset.

use std::sync::OnceLock;

use ixgbe_defs::bits::{dca_rxctrl, hlreg0, maxfrs, pbsize, rdrxctl, vlnctrl};
use ixgbe_defs::{BAR_BYTES, regs, stats};

/// What reading and writing does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Not there.
    Unknown,
    /// Both, as far as the bits go.
    ReadWrite,
    /// Writing is a fault.
    ReadOnly,
    /// Reading clears it, writing is a fault.
    ReadClear,
    /// Reads zero.
    WriteOnly,
}

fn table() -> &'static [(Class, u32)] {
    static TABLE: OnceLock<Vec<(Class, u32)>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut t = vec![(Class::Unknown, 0); BAR_BYTES / 4];
        let mut put = |class: Class, reset: u32, r: u32| {
            if let Some(slot) = t.get_mut(r as usize / 4) {
                *slot = (class, reset);
            }
        };
        use Class::{ReadClear, ReadOnly, ReadWrite, WriteOnly};
        for (r, reset) in [
            (regs::CTRL, 0),
            (regs::CTRL_EXT, 0),
            (regs::EICR, 0),
            (regs::EIAC, 0),
            (regs::EIMS, 0),
            (regs::EIAM, 0),
            (regs::GPIE, 0),
            (regs::IVAR_MISC, 0),
            (regs::FCTRL, 0),
            (regs::VLNCTRL, vlnctrl::VET),
            (regs::RXCSUM, 0),
            (regs::RFCTL, 0),
            (regs::MRQC, 0),
            (regs::RDRXCTL, 0x8 << 17 & rdrxctl::RSCFRSTSIZE),
            (regs::RXCTRL, 0),
            (regs::DMATXCTL, 0x8100 << 16),
            (regs::DTXMXSZRQ, 0x10),
            (regs::MTQC, 0),
            (regs::RTTDCS, 0),
            (regs::RTRUP2TC, 0),
            (regs::RTTUP2TC, 0),
            (regs::FDIRCTRL, 0),
            (regs::FDIRIPSA, 0),
            (regs::FDIRIPDA, 0),
            (regs::FDIRPORT, 0),
            (regs::FDIRVLAN, 0),
            (regs::FDIRHASH, 0),
            (regs::FDIRCMD, 0),
            (regs::FDIRFREE, 0),
            (regs::FDIRDIP4M, 0),
            (regs::FDIRSIP4M, 0),
            (regs::FDIRTCPM, 0),
            (regs::FDIRUDPM, 0),
            (regs::FDIRHKEY, 0x8000_0001),
            (regs::FDIRSKEY, 0x8080_0101),
            (regs::FDIRM, 0),
            (regs::HLREG0, hlreg0::TXCRCEN | hlreg0::RXCRCSTRP | hlreg0::TXPADEN),
            (regs::MAXFRS, maxfrs::STANDARD << maxfrs::MFS_SHIFT),
            (regs::AUTOC, 0),
        ] {
            put(ReadWrite, reset, r);
        }
        for r in [regs::STATUS, regs::EEC, regs::LINKS] {
            put(ReadOnly, 0, r);
        }
        for r in [regs::EICS, regs::EIMC] {
            put(WriteOnly, 0, r);
        }
        for r in [
            regs::FDIRLEN,
            regs::FDIRUSTAT,
            regs::FDIRFSTAT,
            regs::FDIRMATCH,
            regs::FDIRMISS,
            stats::GPRC,
            stats::GORCL,
            stats::GORCH,
            stats::GPTC,
            stats::GOTCL,
            stats::GOTCH,
            stats::TPR,
            stats::BPRC,
            stats::MPRC,
        ]
        .into_iter()
        .chain(stats::RX_ERRORS)
        {
            put(ReadClear, 0, r);
        }
        for i in 0..2 {
            put(ReadWrite, 0, regs::eims_ex(i));
            put(WriteOnly, 0, regs::eimc_ex(i));
            put(ReadWrite, 0, regs::eiam_ex(i));
        }
        for i in 0..129 {
            put(ReadWrite, 0, regs::eitr(i));
        }
        for i in 0..regs::IVARS {
            put(ReadWrite, 0, regs::ivar(i));
        }
        for i in 0..regs::RETAS {
            put(ReadWrite, 0, regs::reta(i));
        }
        for i in 0..regs::RSSRKS {
            put(ReadWrite, 0, regs::rssrk(i));
        }
        for i in 0..3 {
            put(ReadWrite, 0, regs::fdirsipv6(i));
        }
        for i in 0..128 {
            for r in [regs::ral(i), regs::rah(i), regs::saqf(i), regs::daqf(i), regs::sdpqf(i), regs::ftqf(i)]
            {
                put(ReadWrite, 0, r);
            }
            put(ReadWrite, 0, regs::l34timir(i));
        }
        for i in 0..regs::PACKET_BUFFERS {
            put(ReadWrite, pbsize::RX_KIB << pbsize::SHIFT, regs::rxpbsize(i));
            put(ReadWrite, pbsize::TX_KIB << pbsize::SHIFT, regs::txpbsize(i));
            put(ReadWrite, 0, regs::txpbthresh(i));
            put(ReadClear, 0, stats::rxmpc(i));
        }
        for q in 0..128 {
            for r in
                [regs::rdbal(q), regs::rdbah(q), regs::rdlen(q), regs::rdh(q), regs::rdt(q), regs::rxdctl(q)]
            {
                put(ReadWrite, 0, r);
            }
            put(ReadWrite, 0x2, regs::srrctl(q));
            put(ReadWrite, dca_rxctrl::RX_WB_RO_EN, regs::dca_rxctrl(q));
            for r in
                [regs::tdbal(q), regs::tdbah(q), regs::tdlen(q), regs::tdh(q), regs::tdt(q), regs::txdctl(q)]
            {
                put(ReadWrite, 0, r);
            }
        }
        for i in 0..stats::RQSMRS {
            put(ReadWrite, 0, stats::rqsmr(i));
        }
        for s in 0..stats::SETS {
            put(ReadClear, 0, stats::qprc(s));
            put(ReadClear, 0, stats::qprdc(s));
        }
        t
    })
}

/// The class of the register at `r`.
pub fn class_of(r: u32) -> Class {
    table().get(r as usize / 4).map_or(Class::Unknown, |(c, _)| *c)
}

/// What the register at `r` has after a reset.
pub fn reset_value(r: u32) -> u32 {
    table().get(r as usize / 4).map_or(0, |(_, v)| *v)
}

/// The queue whose register this is: whether it receives, which one, and where in the queue's registers; `None` of others.
pub(crate) fn queue_of(r: u32) -> Option<(bool, u16, u32)> {
    let (rx, first, queue) = match r {
        0x1000..0x2000 => (true, 0x1000, 0),
        0xd000..0xe000 => (true, 0xd000, 64),
        0x6000..0x8000 => (false, 0x6000, 0),
        _ => return None,
    };
    let (n, at) = ((r - first) / 0x40, (r - first) % 0x40);
    // Counters by queue lie among them.
    matches!(at, 0x00..=0x18 | 0x28).then_some((rx, (queue + n) as u16, at))
}
