//! Taking frames out of tunnels (datasheet 6.8): VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, RFC 2890).
//!
//! Behavioural: the outer headers are read at once when the action engine has the frame; the way back to the parser has
//! the timing ([`crate::again`]). Whatever is not plainly of the encapsulation is left to the host, so that a frame that
//! comes out here is one that software would have taken out in the same way.

use std::ops::Range;

use simnic_defs::Encap;
use simnic_defs::entry::key;

use crate::checksum::{checksum, pseudo4, pseudo6};
use crate::parser::{L3, Layout};

/// What a frame brings along in the second part of its key.
pub(crate) type Brought = [u8; key::BROUGHT.end - key::BROUGHT.start];

/// Flags of a tunnel.
const CSUM: u8 = 2;
const KEY: u8 = 4;
const OAM: u8 = 8;
/// An Ethernet frame, as GRE and Geneve call it.
const TEB: u16 = 0x6558;

/// The inner frame of a frame in a tunnel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Opened {
    /// Where it begins and ends.
    pub inner: Range<usize>,
    /// What the outer headers say.
    pub says: Brought,
}

struct Says(Brought);

impl Says {
    fn put(&mut self, at: Range<usize>, v: &[u8]) {
        let from = at.start - key::BROUGHT.start;
        self.0[from..from + v.len()].copy_from_slice(v);
    }

    fn flag(&mut self, f: u8) {
        self.0[key::TUN_FLAGS.end - 1 - key::BROUGHT.start] |= f;
    }
}

fn be16(b: &[u8], at: usize) -> Option<u16> {
    b.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// Reads `f`, whose headers are where `lay` says, as one in a tunnel of `kind`; `None` when it is none, or not for the device to
/// judge.
pub(crate) fn open(f: &[u8], lay: &Layout, kind: Encap) -> Option<Opened> {
    let mut s = Says([0; size_of::<Brought>()]);
    let l3 = usize::from(lay.l3_at);
    let h = f.get(l3..)?;
    let (l4, end, proto) = match lay.l3 {
        L3::V4 => {
            let len = usize::from(*h.first()? & 0xf) * 4;
            let header = h.get(..len)?;
            if checksum(header, &[]) != 0 || be16(h, 6)? & 0x3fff != 0 {
                return None;
            }
            s.put(key::TUN4_SRC, h.get(12..16)?);
            s.put(key::TUN4_DST, h.get(16..20)?);
            s.put(key::TUN_TOS, &[h[1]]);
            s.put(key::TUN_TTL, &[h[8]]);
            (l3 + len, l3 + usize::from(be16(h, 2)?), h[9])
        }
        L3::V6 => {
            s.put(key::TUN6_SRC, h.get(8..24)?);
            s.put(key::TUN6_DST, h.get(24..40)?);
            s.put(key::TUN_TOS, &[h[0] << 4 | h[1] >> 4]);
            s.put(key::TUN_TTL, &[h[7]]);
            (l3 + 40, l3 + 40 + usize::from(be16(h, 4)?), h[6])
        }
        _ => return None,
    };
    let body = f.get(l4..end)?;
    if proto != if kind == Encap::Gre { 47 } else { 17 } {
        return None;
    }
    let header = match kind {
        Encap::Gre => gre(body, &mut s)?,
        Encap::Vxlan => udp(f, (l3, lay.l3), body, &mut s)? + vxlan(body, &mut s)?,
        Encap::Geneve => udp(f, (l3, lay.l3), body, &mut s)? + geneve(body, &mut s)?,
    };
    let opened = Opened { inner: l4 + header..end, says: s.0 };
    // What says that it is longer than the outer packet is the host's to judge.
    if kind == Encap::Gre && own_end(f, l4 + header).is_some_and(|own| own > end) {
        return None;
    }
    (opened.inner.len() >= 14).then_some(opened)
}

/// Where the IP packet in the frame at `at` says that it ends.
fn own_end(f: &[u8], at: usize) -> Option<usize> {
    let mut l3 = at + 14;
    let mut kind = be16(f, l3 - 2)?;
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            l3 += 4;
            kind = be16(f, l3 - 2)?;
        }
    }
    match kind {
        0x0800 => Some(l3 + usize::from(be16(f, l3 + 2)?)),
        0x86dd => Some(l3 + 40 + usize::from(be16(f, l3 + 4)?)),
        _ => None,
    }
}

fn udp(f: &[u8], (l3, family): (usize, L3), body: &[u8], s: &mut Says) -> Option<usize> {
    let (len, csum) = (be16(body, 4)?, be16(body, 6)?);
    if usize::from(len) != body.len() {
        return None;
    }
    if csum != 0 {
        let pseudo = match family {
            L3::V6 => pseudo6(f.get(l3 + 8..l3 + 40)?, 17, len),
            _ => pseudo4(f.get(l3 + 12..l3 + 20)?, 17, len),
        };
        if checksum(body, &pseudo) != 0 {
            return None;
        }
        s.flag(CSUM);
    }
    s.put(key::TUN_TP_SRC, &body[0..2]);
    s.put(key::TUN_TP_DST, &body[2..4]);
    Some(8)
}

fn vxlan(body: &[u8], s: &mut Says) -> Option<usize> {
    let h: &[u8; 8] = body.get(8..)?.first_chunk()?;
    if h[0] & 0x08 == 0 {
        return None;
    }
    if h[0] & 0x80 != 0 {
        s.put(key::TUN_GBP_ID, &h[2..4]);
        s.put(key::TUN_GBP_FLAGS, &[h[1] & 0x48]);
    }
    s.put(key::TUN_ID, &[0, 0, 0, 0, 0, h[4], h[5], h[6]]);
    s.flag(KEY);
    Some(8)
}

fn geneve(body: &[u8], s: &mut Says) -> Option<usize> {
    let h: &[u8; 8] = body.get(8..)?.first_chunk()?;
    let options = usize::from(h[0] & 0x3f) * 4;
    if h[0] >> 6 != 0 || be16(h, 2)? != TEB {
        return None;
    }
    let mut rest = body.get(16..16 + options)?;
    let mut n = 0u8;
    while !rest.is_empty() {
        let len = 4 + usize::from(rest.get(3)? & 0x1f) * 4;
        let option = rest.get(..len)?;
        // One that must not be passed over (RFC 8926 3.5).
        if option[2] & 0x80 != 0 {
            return None;
        }
        if n == 0 {
            s.put(key::TUN_OPTION, &option[..len.min(16)]);
        }
        n += 1;
        rest = &rest[len..];
    }
    s.put(key::TUN_OPTIONS, &[n]);
    s.put(key::TUN_ID, &[0, 0, 0, 0, 0, h[4], h[5], h[6]]);
    s.flag(KEY | if h[1] & 0x80 != 0 { OAM } else { 0 });
    Some(8 + options)
}

fn gre(body: &[u8], s: &mut Says) -> Option<usize> {
    let flags = be16(body, 0)?;
    if flags & !0xb000 != 0 || be16(body, 2)? != TEB {
        return None;
    }
    let mut at = 4;
    if flags & 0x8000 != 0 {
        if checksum(body, &[]) != 0 {
            return None;
        }
        s.flag(CSUM);
        at += 4;
    }
    if flags & 0x2000 != 0 {
        let k = body.get(at..at + 4)?;
        s.put(key::TUN_ID, &[0, 0, 0, 0, k[0], k[1], k[2], k[3]]);
        s.flag(KEY);
        at += 4;
    }
    Some(at + if flags & 0x1000 != 0 { 4 } else { 0 })
}
