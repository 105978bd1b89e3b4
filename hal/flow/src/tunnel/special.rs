//! What headers of ERSPAN and GTP-U say, and of GRE that numbers its packets.
//!
//! ```text
//!   ERSPAN   GRE with a number | version:4 VLAN:12 | class:3 truncation:2 t:1 session:10 | version 1: reserved:12 index:20
//!                                                        version 2: time:32 | group:16 | p:1 type:5 hardware:6 dir:1 unit:2 o:1
//!   GTP-U    version:3 p:1 0:1 e:1 s:1 pn:1 | message:8 | length:16 | endpoint:32 | with e, s or pn: number:16 pdu:8 next:8
//! ```
//!
//! Version 2 with its last bit set has eight more bytes, which are read over. Extensions of GTP-U that an endpoint need not understand
//! (3GPP TS 29.281 5.2.1) are read over too, others refuse the packet.

use super::open::{be16, be32};
use super::{ERSPAN1, ERSPAN2, GRE_SEQ, OpenError, Opened, TunnelHeader, Writer};
use crate::field::FieldId;
use crate::headers::eth_type;
use crate::key::PacketKey;
use crate::nsh::packet_type;
use crate::text::flags::TUN_KEY;

/// What only one encapsulation has in its header.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Special {
    /// Nothing.
    #[default]
    None,
    /// GRE that numbers its packets (RFC 2890 2.2).
    Numbered,
    /// ERSPAN version 1.
    Erspan1 {
        /// Index of the port that is mirrored, 20 bits.
        index: u32,
    },
    /// ERSPAN version 2.
    Erspan2 {
        /// Whether the mirrored port sent it (1) or received it (0).
        dir: u8,
        /// Which hardware mirrors, 6 bits.
        hwid: u8,
    },
    /// GTP-U.
    Gtpu {
        /// The first byte of its header.
        flags: u8,
        /// Message type.
        message: u8,
    },
}

/// Session identifiers of ERSPAN have 10 bits.
pub const ERSPAN_SESSION: u32 = 0x3ff;
/// Indices have 20.
pub(super) const INDEX: u32 = 0xf_ffff;
/// GTP-U: version 1, not GTP'.
pub(super) const GTPU_FLAGS: u8 = 0x30;
/// Version and protocol type.
const GTPU_KIND: u8 = 0xf0;
/// What makes the header longer: extensions, a number, the number of a PDU.
const GTPU_LONG: u8 = 7;
const GTPU_EXTENDED: u8 = 4;
/// Payload.
pub(super) const GTPU_PDU: u8 = 255;
/// Bytes of ERSPAN's header behind the number: versions 1 and 2, and what a platform adds to the latter.
const ERSPAN_BYTES: [usize; 2] = [8, 12];
const PLATFORM_BYTES: usize = 8;

impl Special {
    /// Writes it into the key of the inner packet, which has zeros there.
    pub fn write(self, key: &mut PacketKey) {
        use FieldId::*;
        match self {
            Special::None | Special::Numbered => {}
            Special::Erspan1 { index } => {
                key.set(TunErspanVer, 1);
                key.set(TunErspanIdx, (index & INDEX).into());
            }
            Special::Erspan2 { dir, hwid } => {
                key.set(TunErspanVer, 2);
                key.set(TunErspanDir, (dir & 1).into());
                key.set(TunErspanHwid, (hwid & 0x3f).into());
            }
            Special::Gtpu { flags, message } => {
                key.set(TunGtpuFlags, flags.into());
                key.set(TunGtpuMsgtype, message.into());
            }
        }
    }

    /// What fields say of ERSPAN's header; `None` when they name no version that there is.
    pub fn erspan(key: &PacketKey) -> Option<Special> {
        use FieldId::*;
        match key.get64(TunErspanVer) {
            1 => Some(Special::Erspan1 { index: key.get64(TunErspanIdx) as u32 }),
            2 => Some(Special::Erspan2 {
                dir: key.get64(TunErspanDir) as u8,
                hwid: key.get64(TunErspanHwid) as u8,
            }),
            _ => None,
        }
    }

    /// What fields say of GTP-U's header; payload of version 1 where they say nothing. The header that it came with may have been
    /// longer, this one is not.
    pub fn gtpu(key: &PacketKey) -> Special {
        let or = |v: u64, usual: u8| if v == 0 { usual } else { v as u8 };
        let flags = or(key.get64(FieldId::TunGtpuFlags), GTPU_FLAGS) & !GTPU_LONG;
        Special::Gtpu { flags, message: or(key.get64(FieldId::TunGtpuMsgtype), GTPU_PDU) }
    }
}

/// Writes GRE's header and ERSPAN's; version 1 if nothing else is said.
pub(super) fn put_erspan(w: &mut Writer, h: &TunnelHeader) {
    let session = (h.key.unwrap_or(0) & ERSPAN_SESSION) as u16;
    w.put16(GRE_SEQ);
    match h.special {
        Special::Erspan2 { dir, hwid } => {
            w.put16(ERSPAN2);
            w.put32(0);
            w.put16(2 << 12);
            w.put16(session);
            w.put32(0);
            w.put16(0);
            w.put16(u16::from(hwid & 0x3f) << 4 | u16::from(dir & 1) << 3);
        }
        other => {
            let index = if let Special::Erspan1 { index } = other { index & INDEX } else { 0 };
            w.put16(ERSPAN1);
            w.put32(0);
            w.put16(1 << 12);
            w.put16(session);
            w.put32(index);
        }
    }
}

/// Writes GTP-U's header.
pub(super) fn put_gtpu(w: &mut Writer, h: &TunnelHeader) {
    let (flags, message) = match h.special {
        Special::Gtpu { flags, message } => (flags & !GTPU_LONG, message),
        _ => (GTPU_FLAGS, GTPU_PDU),
    };
    w.put(&[flags, message, 0, 0]);
    w.put32(h.key.unwrap_or(0));
}

/// Reads GRE's header and ERSPAN's; how many bytes they have.
pub(super) fn erspan(body: &[u8], t: &mut Opened) -> Result<usize, OpenError> {
    let (flags, kind) = (be16(body, 0)?, be16(body, 2)?);
    // Without a number it is of type I, which has no header.
    if flags != GRE_SEQ || kind != ERSPAN1 && kind != ERSPAN2 {
        return Err(OpenError::Unknown);
    }
    let first = be32(body, 8)?;
    let at = 8 + match first >> 28 {
        1 => {
            t.special = Special::Erspan1 { index: be32(body, 12)? & INDEX };
            ERSPAN_BYTES[0]
        }
        2 => {
            let last = be16(body, 18)?;
            // What is not a frame.
            if last >> 10 & 0x1f != 0 {
                return Err(OpenError::Unknown);
            }
            t.special = Special::Erspan2 { dir: (last >> 3 & 1) as u8, hwid: (last >> 4 & 0x3f) as u8 };
            ERSPAN_BYTES[1] + if last & 1 != 0 { PLATFORM_BYTES } else { 0 }
        }
        _ => return Err(OpenError::Unknown),
    };
    t.key = first & ERSPAN_SESSION;
    t.flags |= TUN_KEY;
    Ok(at)
}

/// Reads GTP-U's header, behind UDP's; how many bytes it has. What is no payload has none: the packet is told of as it came.
pub(super) fn gtpu(body: &[u8], t: &mut Opened) -> Result<usize, OpenError> {
    let (first, len) = (be16(body, 8)?, usize::from(be16(body, 10)?));
    let (flags, message) = ((first >> 8) as u8, first as u8);
    t.key = be32(body, 12)?;
    t.special = Special::Gtpu { flags, message };
    if flags & GTPU_KIND != GTPU_FLAGS {
        return Err(OpenError::Unknown);
    }
    if message != GTPU_PDU {
        return Ok(0);
    }
    // What is behind is not the tunnel's.
    let whole = body.len();
    let body = body.get(..16 + len).ok_or(OpenError::Malformed)?;
    t.end -= whole - body.len();
    let mut at = 16;
    if flags & GTPU_LONG != 0 {
        at += 4;
        let mut next = *body.get(at - 1).ok_or(OpenError::Malformed)?;
        while flags & GTPU_EXTENDED != 0 && next != 0 {
            if next & 0x80 != 0 {
                return Err(OpenError::Unknown);
            }
            let words = usize::from(*body.get(at).ok_or(OpenError::Malformed)?);
            if words == 0 {
                return Err(OpenError::Malformed);
            }
            at += 4 * words;
            next = *body.get(at - 1).ok_or(OpenError::Malformed)?;
        }
    }
    let version = *body.get(at).ok_or(OpenError::Malformed)? >> 4;
    t.packet_type = packet_type::of_type(match version {
        4 => eth_type::IPV4,
        6 => eth_type::IPV6,
        _ => return Err(OpenError::Malformed),
    });
    Ok(at - 8)
}
