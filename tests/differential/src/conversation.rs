//! Frames of hosts that talk to each other through the switch: they begin, they answer what has come to them (whatever the switch has
//! made of it), they send again, out of order, in fragments, and they tell of errors. Some are hostile: segments out of any window,
//! flags that no stack sends, wrong checksums.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr};

use flow::frame::FrameBuilder;
use flow::headers::MacAddr;
use flow::{FieldId, PacketKey, PortId};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, RngCore};

use crate::frames::random_frame;
use crate::generate::{ADDRS, ADDRS6, MACS, PORT_NUMBERS, PORTS, pick};
use crate::reference_ct::sum;

/// Frames that are remembered, delivered or sent.
const REMEMBERED: usize = 48;
/// Frames that are held back at most.
const HELD: usize = 24;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// A frame at a port.
pub type At = (u32, Vec<u8>);

/// The hosts.
#[derive(Default)]
pub struct Talk {
    /// What came out of the switch, the latest last.
    delivered: VecDeque<At>,
    sent: VecDeque<At>,
    /// What goes out later.
    held: Vec<At>,
    idents: u16,
}

/// What a host reads of a frame.
struct Heard {
    key: PacketKey,
    v6: bool,
    proto: u8,
    l3: usize,
    l4: usize,
    end: usize,
    fragment: bool,
}

fn hear(frame: &[u8]) -> Option<Heard> {
    let p = flow::parse(frame, PortId(0)).ok()?;
    let v6 = match p.key.get64(FieldId::EthType) {
        0x0800 => false,
        0x86dd => true,
        _ => return None,
    };
    let l4 = p.layout.l4().filter(|_| p.layout.fault.is_none() && p.layout.vlans < 2)?;
    Some(Heard {
        v6,
        proto: p.key.get64(FieldId::NwProto) as u8,
        l3: p.layout.l3_offset as usize,
        l4,
        end: p.layout.l3_end as usize,
        fragment: p.key.get(FieldId::NwFrag) != 0,
        key: p.key,
    })
}

impl Heard {
    fn mac(&self, f: FieldId) -> MacAddr {
        let b = self.key.get64(f).to_be_bytes();
        MacAddr([b[2], b[3], b[4], b[5], b[6], b[7]])
    }

    /// A frame the same way, or back.
    fn frame(&self, back: bool) -> FrameBuilder {
        use FieldId::*;
        let ends = if back { (EthSrc, EthDst) } else { (EthDst, EthSrc) };
        let mut f = FrameBuilder::new().eth(self.mac(ends.0), self.mac(ends.1));
        let tci = self.key.get64(VlanTci) as u16;
        if tci & 0x1000 != 0 {
            f = f.tag(0x8100, tci & !0x1000);
        }
        let turn = |a: FieldId, b: FieldId| if back { (b, a) } else { (a, b) };
        if self.v6 {
            let (s, d) = turn(Ipv6Src, Ipv6Dst);
            f.ipv6(Ipv6Addr::from(self.key.get(s)), Ipv6Addr::from(self.key.get(d)))
        } else {
            let (s, d) = turn(NwSrc, NwDst);
            let a = |f| Ipv4Addr::from(self.key.get64(f) as u32);
            f.ipv4(a(s), a(d))
        }
    }
}

/// Makes the transport checksum of a whole packet right.
fn seal(mut f: Vec<u8>) -> Vec<u8> {
    let Some(h) = hear(&f).filter(|h| !h.fragment) else { return f };
    let at = match h.proto {
        6 => 16,
        17 => 6,
        1 | 58 => 2,
        _ => return f,
    };
    if h.end - h.l4 < at + 2 {
        return f;
    }
    f[h.l4 + at..h.l4 + at + 2].fill(0);
    let body = &f[h.l4..h.end];
    let len = (body.len() as u32).to_be_bytes();
    let ends = if h.v6 { h.l3 + 8..h.l3 + 40 } else { h.l3 + 12..h.l3 + 20 };
    let s = if h.proto == 1 { sum(&[body]) } else { sum(&[&f[ends], &len, &[0, h.proto], body]) };
    let c = if h.proto == 17 && s == 0xffff { 0xffff } else { !s };
    f[h.l4 + at..h.l4 + at + 2].copy_from_slice(&c.to_be_bytes());
    f
}

struct Segment {
    ports: (u16, u16),
    seq: u32,
    ack: u32,
    flags: u8,
    window: u16,
    scale: Option<u8>,
    len: usize,
}

fn tcp(f: FrameBuilder, s: &Segment) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(s.ports.0.to_be_bytes());
    b.extend(s.ports.1.to_be_bytes());
    b.extend(s.seq.to_be_bytes());
    b.extend(s.ack.to_be_bytes());
    let options: &[u8] = match s.scale {
        Some(n) => &[2, 4, 5, 0xb4, 1, 3, 3, n],
        None => &[],
    };
    b.extend([((20 + options.len()) as u8 / 4) << 4, s.flags]);
    b.extend(s.window.to_be_bytes());
    b.extend([0; 4]);
    b.extend(options);
    b.resize(b.len() + s.len, 0x55);
    seal(f.ip_proto(6).payload(&b).build())
}

impl Talk {
    /// A frame has come out of the switch at a port.
    pub fn deliver(&mut self, port: u32, frame: &[u8]) {
        self.delivered.push_back((port, frame.to_vec()));
        if self.delivered.len() > REMEMBERED {
            self.delivered.pop_front();
        }
    }

    /// The next frame, and the port that it comes in by.
    pub fn next(&mut self, r: &mut SmallRng) -> At {
        for _ in 0..8 {
            let at = self.one(r);
            let Some(at) = at else { continue };
            if self.held.len() < HELD && r.random_bool(0.1) {
                self.held.push(at);
                continue;
            }
            return self.send(r, at);
        }
        let at = self.begin(r);
        self.send(r, at)
    }

    fn send(&mut self, r: &mut SmallRng, at: At) -> At {
        let at = if r.random_bool(0.08) { self.in_pieces(r, at) } else { at };
        self.sent.push_back(at.clone());
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
        at
    }

    fn one(&mut self, r: &mut SmallRng) -> Option<At> {
        match r.random_range(0..100) {
            0..15 if !self.held.is_empty() => {
                let i = r.random_range(0..self.held.len());
                Some(self.held.remove(i))
            }
            0..60 => {
                let (port, frame) = self.heard(r)?;
                Some((port, answer(r, &frame)?))
            }
            60..66 => {
                let (port, frame) = self.heard(r)?;
                Some((port, error(r, &frame)?))
            }
            66..72 => pick_of(r, &self.sent),
            72..78 => {
                let (port, frame) = pick_of(r, &self.sent)?;
                Some((port, spoil(r, frame)))
            }
            78..83 => Some((r.random_range(1..=PORTS), random_frame(r).1)),
            _ => Some(self.begin(r)),
        }
    }

    /// Something that was delivered, mostly not long ago.
    fn heard(&self, r: &mut SmallRng) -> Option<At> {
        if r.random_bool(0.7) {
            let n = self.delivered.len();
            return self.delivered.get(n.checked_sub(r.random_range(1..=4))?).cloned();
        }
        pick_of(r, &self.delivered)
    }

    fn begin(&mut self, r: &mut SmallRng) -> At {
        let macs = (MACS[r.random_range(0..4)], MACS[r.random_range(0..4)]);
        let mac = |v: u64| MacAddr([0, 1, 2, 3, 4, 5].map(|i| v.to_be_bytes()[i + 2]));
        let mut f = FrameBuilder::new().eth(mac(macs.0), mac(macs.1));
        if r.random_bool(0.15) {
            f = f.vlan(10, 0);
        }
        let v6 = r.random_bool(0.25);
        f = if v6 {
            f.ipv6(Ipv6Addr::from(pick(r, &ADDRS6)), Ipv6Addr::from(pick(r, &ADDRS6)))
        } else {
            f.ipv4(Ipv4Addr::from(pick(r, &ADDRS)), Ipv4Addr::from(pick(r, &ADDRS)))
        };
        let ports = (pick(r, &PORT_NUMBERS), pick(r, &PORT_NUMBERS));
        let frame = match r.random_range(0..10) {
            0..5 => tcp(
                f,
                &Segment {
                    ports,
                    seq: pick(r, &[0, 1000, 0xffff_fff0, 0x7fff_ff00]),
                    ack: 0,
                    flags: if r.random_bool(0.9) { SYN } else { ACK },
                    window: pick(r, &[0, 100, 8192, 65_535]),
                    scale: pick(r, &[None, Some(0), Some(7), Some(15)]),
                    len: if r.random_bool(0.1) { 20 } else { 0 },
                },
            ),
            5..8 => {
                let long = pick(r, &[0usize, 5, 40, 200]);
                let mut b = vec![0xa5; 8 + long];
                let (s, d) = (ports.0.to_be_bytes(), ports.1.to_be_bytes());
                b[..4].copy_from_slice(&[s[0], s[1], d[0], d[1]]);
                b[4..6].copy_from_slice(&((8 + long) as u16).to_be_bytes());
                b[6..8].fill(0);
                let none = !v6 && r.random_bool(0.2);
                let f = f.ip_proto(17).payload(&b).build();
                if none { f } else { seal(f) }
            }
            8 => {
                let kind = if v6 { 128 } else { pick(r, &[8, 8, 13, 15]) };
                let (hi, lo) = (0, r.random_range(1..6));
                let b = [kind, 0, 0, 0, hi, lo, 0, 1, 9, 9, 9, 9];
                seal(f.ip_proto(if v6 { 58 } else { 1 }).payload(&b).build())
            }
            _ => f.ip_proto(pick(r, &[47, 132, 50])).payload(&[3; 24]).build(),
        };
        (r.random_range(1..=PORTS), frame)
    }

    /// Cuts a packet; the first piece but rarely comes first.
    fn in_pieces(&mut self, r: &mut SmallRng, at: At) -> At {
        let (port, frame) = at;
        let Some(h) = hear(&frame).filter(|h| !h.fragment && h.end - h.l4 >= 16) else {
            return (port, frame);
        };
        self.idents = self.idents.wrapping_add(1);
        let ident = if r.random_bool(0.1) { 7 } else { self.idents };
        let body = &frame[h.l4..h.end];
        // Hostile ones cut the transport header.
        let unit = if r.random_bool(0.1) { 8 } else { pick(r, &[24, 32, 64]) };
        let mut pieces: Vec<At> = (0..body.len())
            .step_by(unit)
            .map(|at| {
                let piece = &body[at..body.len().min(at + unit)];
                let more = at + unit < body.len();
                let f = h.frame(false);
                let f = if h.v6 {
                    let o = (at as u16 | u16::from(more)).to_be_bytes();
                    let i = u32::from(ident).to_be_bytes();
                    f.extension(44, &[o[0], o[1], i[0], i[1], i[2], i[3]])
                } else {
                    f.ident(ident).fragment((at / 8) as u16, more)
                };
                (port, f.ip_proto(h.proto).payload(piece).build())
            })
            .collect();
        if r.random_bool(0.3) {
            pieces.shuffle(r);
        }
        let mut pieces = pieces.into_iter();
        let Some(first) = pieces.next() else { return (port, frame) };
        // Those that follow go out next, from the front on.
        self.held.splice(0..0, pieces);
        self.held.truncate(2 * HELD);
        first
    }
}

fn pick_of(r: &mut SmallRng, all: &VecDeque<At>) -> Option<At> {
    (!all.is_empty()).then(|| all[r.random_range(0..all.len())].clone())
}

fn word(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

/// What a host says to a frame.
fn answer(r: &mut SmallRng, frame: &[u8]) -> Option<Vec<u8>> {
    let h = hear(frame)?;
    let b = &frame[h.l4..h.end];
    // Sometimes whoever spoke goes on speaking.
    let back = r.random_bool(0.75);
    let f = h.frame(back);
    if h.fragment {
        return None;
    }
    match h.proto {
        6 if b.len() >= 20 => {
            let ports = (word(b, 0) >> 16, word(b, 0) & 0xffff);
            let ports = if back { (ports.1, ports.0) } else { ports };
            let (seq, ack, flags) = (word(b, 4), word(b, 8), b[13]);
            let took = (b.len() - 20) as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
            let fresh = pick(r, &[5000, 0xffff_ff00]);
            let (seq, ack) = if back {
                (if flags & ACK != 0 { ack } else { fresh }, seq.wrapping_add(took))
            } else {
                (seq.wrapping_add(took), ack)
            };
            let mut s = Segment {
                ports: (ports.0 as u16, ports.1 as u16),
                seq,
                ack,
                flags: ACK,
                window: pick(r, &[0, 1000, 65_535]),
                scale: None,
                len: pick(r, &[0, 0, 10, 100]),
            };
            if back && flags & (SYN | ACK) == SYN {
                s.flags = SYN | ACK;
                (s.scale, s.len) = (pick(r, &[None, Some(3), Some(9)]), 0);
            } else {
                match r.random_range(0..12) {
                    0 | 1 => s.flags |= FIN,
                    2 => (s.flags, s.len) = (RST, 0),
                    3 => (s.flags, s.len) = (RST | ACK, 0),
                    4 => s.flags |= 8,
                    5 => s.seq = s.seq.wrapping_add(pick(r, &[1, 1400, 70_000, 0x8000_0000])),
                    6 => s.ack = s.ack.wrapping_sub(pick(r, &[1, 1400, 70_000, 0x4000_0000])),
                    _ => {}
                }
            }
            Some(tcp(f, &s))
        }
        17 if b.len() >= 8 => {
            let mut u = b.to_vec();
            if back {
                u[..4].copy_from_slice(&[b[2], b[3], b[0], b[1]]);
            }
            Some(seal(f.ip_proto(17).payload(&u).build()))
        }
        p @ (1 | 58) if b.len() >= 8 && (p == 58) == h.v6 => {
            let mut e = b.to_vec();
            if back {
                e[0] = match (h.v6, b[0]) {
                    (false, 8) => 0,
                    (false, 13) => 14,
                    (false, 15) => 16,
                    (true, 128) => 129,
                    _ => return None,
                };
            }
            Some(seal(f.ip_proto(p).payload(&e).build()))
        }
        p => Some(f.ip_proto(p).payload(b).build()),
    }
}

/// An error about a frame (RFC 792; RFC 4443).
fn error(r: &mut SmallRng, frame: &[u8]) -> Option<Vec<u8>> {
    let h = hear(frame)?;
    let f = h.frame(true);
    let upto = h.end.min(h.l4 + pick(r, &[8, 8, 20, 64, 4]));
    let kind = if h.v6 { pick(r, &[1, 3, 2]) } else { pick(r, &[3, 11, 3, 5]) };
    let mut b = vec![kind, pick(r, &[0, 1, 3]), 0, 0, 0, 0, 0, 0];
    b.extend_from_slice(&frame[h.l3..upto]);
    Some(seal(f.ip_proto(if h.v6 { 58 } else { 1 }).payload(&b).build()))
}

/// What somebody makes of a frame who means no good.
fn spoil(r: &mut SmallRng, mut frame: Vec<u8>) -> Vec<u8> {
    let Some(h) = hear(&frame) else { return frame };
    let n = h.end - h.l4;
    if h.proto == 6 && n >= 20 && r.random_bool(0.7) {
        let at = h.l4;
        match r.random_range(0..5) {
            0 => frame[at + 13] = r.random(),
            1 => r.fill_bytes(&mut frame[at + 4..at + 8]),
            2 => r.fill_bytes(&mut frame[at + 8..at + 12]),
            3 => frame[at + 13] = RST,
            _ => frame[at + 12] = r.random(),
        }
        return seal(frame);
    }
    let at = r.random_range(0..frame.len());
    frame[at] ^= 1 << r.random_range(0..8);
    frame
}
