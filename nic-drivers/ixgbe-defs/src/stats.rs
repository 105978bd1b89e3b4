//! Statistics (8.2.3.23). They count good frames on the wire with their check sequence, and are cleared when they are read. Those
//! of 36 bits have a low and a high register, to be read in that order.

/// Good frames received.
pub const GPRC: u32 = 0x0_4074;
/// Bytes of good frames received, low half.
pub const GORCL: u32 = 0x0_4088;
/// Bytes of good frames received, high half.
pub const GORCH: u32 = 0x0_408c;
/// Good frames sent.
pub const GPTC: u32 = 0x0_4080;
/// Bytes of good frames sent, low half.
pub const GOTCL: u32 = 0x0_4090;
/// Bytes of good frames sent, high half.
pub const GOTCH: u32 = 0x0_4094;
/// Frames with a wrong check sequence.
pub const CRCERRS: u32 = 0x0_4000;
/// Frames with a symbol that is none.
pub const ILLERRC: u32 = 0x0_4004;
/// Frames with a byte in error.
pub const ERRBC: u32 = 0x0_4008;
/// Frames whose length field is wrong.
pub const RLEC: u32 = 0x0_4040;
/// Frames that are too short.
pub const RUC: u32 = 0x0_40a4;
/// Fragments: too short, with a wrong check sequence.
pub const RFC: u32 = 0x0_40a8;
/// Frames that are too long.
pub const ROC: u32 = 0x0_40ac;
/// Jabber: too long, with a wrong check sequence.
pub const RJC: u32 = 0x0_40b0;
/// All frames received, bad ones too.
pub const TPR: u32 = 0x0_40d0;
/// Broadcast frames received.
pub const BPRC: u32 = 0x0_4078;
/// Multicast frames received.
pub const MPRC: u32 = 0x0_407c;
/// Frames that found no room in packet buffer `i`.
pub const fn rxmpc(i: u32) -> u32 {
    0x0_3fa0 + 4 * i
}
/// Which set counts for receive queues `4 * i` and on, a byte each.
pub const fn rqsmr(i: u32) -> u32 {
    0x0_2300 + 4 * i
}
/// How many [`rqsmr`] registers there are.
pub const RQSMRS: u32 = 32;
/// Sets of counters by queue.
pub const SETS: u32 = 16;
/// Frames received, of set `s`.
pub const fn qprc(s: u32) -> u32 {
    0x0_1030 + 0x40 * s
}
/// Frames dropped for want of a descriptor, of set `s`.
pub const fn qprdc(s: u32) -> u32 {
    0x0_1430 + 0x40 * s
}

/// Registers of errors that a receiver reports together.
pub const RX_ERRORS: [u32; 8] = [CRCERRS, ILLERRC, ERRBC, RLEC, RUC, RFC, ROC, RJC];
