//! Tunnels of the reference interpreter: headers written and read byte by byte, by the documents (RFC 7348, RFC 8926, RFC 2784, RFC
//! 2890, RFC 6040). It shares the parser of frames with the switch, and nothing of its tunnels.
//!
//! Where a tunnel's packets go below, and behind which address, is a list ([`NEXT`]). The source port of UDP is the switch's choice:
//! [`canonical`] checks that it is one of those that it may be, and that the checksum is right, and takes both out of the comparison.

use std::net::IpAddr;

use flow::tunnel::TunnelKind;
use flow::{FieldId, PortId};
use ofproto::TunnelSettings;
use ofproto::tunnel::{End, TunnelKey};
use openflow::PortNo;

use crate::reference::{Flow, Interpreter};
use crate::reference_ct::sum;
use crate::setup::{Setup, TunnelPort};

/// This host's own addresses below, and its Ethernet address.
pub(crate) const OWN: [&str; 2] = ["10.9.0.1", "fc00::1"];
pub(crate) const OWN_MAC: [u8; 6] = [2, 0xbb, 0, 0, 0, 1];
/// Other hosts and the Ethernet address by which each is reached; those that are not here cannot be.
pub(crate) const NEXT: [(&str, [u8; 6]); 6] = [
    ("10.9.0.2", [2, 0xcc, 0, 0, 0, 2]),
    ("10.9.0.3", [2, 0xcc, 0, 0, 0, 3]),
    // Behind the gateway.
    ("10.8.0.5", GATEWAY_MAC),
    ("fc00::2", [2, 0xcc, 0, 0, 0, 6]),
    // A packet out of a tunnel whose flow sends it into one is for this host again.
    (OWN[0], [2, 0xcc, 0, 0, 0, 1]),
    (OWN[1], [2, 0xcc, 0, 0, 0, 1]),
];
/// The gateway.
pub(crate) const GATEWAY: &str = "10.9.0.9";
pub(crate) const GATEWAY_MAC: [u8; 6] = [2, 0xcc, 0, 0, 0, 9];

/// What the headers around a packet said.
#[derive(Clone, Debug)]
pub(crate) struct Around {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) ports: (u16, u16),
    pub(crate) id: u32,
    /// Bits of `tun_flags`.
    pub(crate) flags: u16,
    pub(crate) mirrored: Option<Mirrored>,
    pub(crate) inner: Vec<u8>,
}

const OAM: u16 = 1;
const CSUM: u16 = 4;
const KEY: u16 = 8;

fn be(b: &[u8], at: usize, n: usize) -> Option<u64> {
    Some(b.get(at..at + n)?.iter().fold(0, |v, x| v << 8 | u64::from(*x)))
}

/// What becomes of a frame from below.
pub(crate) enum Below {
    /// It is for no tunnel.
    Other,
    /// It is for a tunnel, and no good.
    Bad,
    /// It is out of a tunnel.
    Out(PortNo, Around),
}

/// What a frame that comes in below is.
pub(crate) fn look(setup: &Setup, frame: &[u8]) -> Below {
    use FieldId::*;
    let Ok(p) = flow::parse(frame, PortId(0)) else { return Below::Other };
    let k = &p.key;
    let (v6, to) = match k.get64(EthType) {
        0x0800 => (false, IpAddr::V4((k.get64(NwDst) as u32).into())),
        0x86dd => (true, IpAddr::V6(k.get(Ipv6Dst).into())),
        _ => return Below::Other,
    };
    let mine = OWN.iter().any(|a| a.parse() == Ok(to)) && k.get64(EthDst).to_be_bytes()[2..] == OWN_MAC;
    if !mine || k.get(NwFrag) != 0 {
        return Below::Other;
    }
    let kind = match (k.get64(NwProto), k.get64(TpDst)) {
        (17, 4789) => TunnelKind::Vxlan,
        (17, 6081) => TunnelKind::Geneve,
        // No switch of these tests has both.
        (47, _) if setup.tunnels.iter().any(|t| t.settings.kind == TunnelKind::Erspan) => TunnelKind::Erspan,
        (47, _) => TunnelKind::Gre,
        _ => return Below::Other,
    };
    if !setup.tunnels.iter().any(|t| t.settings.kind == kind) {
        return Below::Other;
    }
    let l3 = p.layout.l3_offset as usize;
    let Some(a) = open(kind, frame, l3, v6) else { return Below::Bad };
    match receiver(setup, kind, &a) {
        Some(port) => Below::Out(port, a),
        None => Below::Bad,
    }
}

/// The tunnel that a packet is from: that which says most of what the packet has, the key weighing more than the other end.
fn receiver(setup: &Setup, kind: TunnelKind, a: &Around) -> Option<PortNo> {
    let fits = |t: &&TunnelPort| {
        let s = &t.settings;
        let key = match s.in_key {
            TunnelKey::None => Some(0),
            TunnelKey::Value(k) => Some(k),
            TunnelKey::Flow => None,
        };
        s.kind == kind
            && key.is_none_or(|k| k == u64::from(a.id))
            && !matches!(s.remote, End::Address(r) if r != a.src)
            && !matches!(s.local, End::Address(l) if l != a.dst)
    };
    let weight = |t: &&TunnelPort| {
        let s = &t.settings;
        let known = |e: End| matches!(e, End::Address(_));
        (s.in_key != TunnelKey::Flow, known(s.remote), known(s.local))
    };
    setup.tunnels.iter().filter(fits).max_by_key(weight).map(|t| t.no)
}

/// Takes a packet out of the headers around it.
fn open(kind: TunnelKind, f: &[u8], l3: usize, v6: bool) -> Option<Around> {
    if f.get(l3)? >> 4 != if v6 { 6 } else { 4 } {
        return None;
    }
    let (l4, len, tos, ttl, src, dst) = if v6 {
        let a = |at: usize| {
            Some(IpAddr::V6((u128::from(be(f, at, 8)?) << 64 | u128::from(be(f, at + 8, 8)?)).into()))
        };
        let first = be(f, l3, 4)?;
        (l3 + 40, 40 + be(f, l3 + 4, 2)? as usize, (first >> 20) as u8, f[l3 + 7], a(l3 + 8)?, a(l3 + 24)?)
    } else {
        let header = usize::from(f.get(l3)? & 15) * 4;
        if header < 20 || sum(&[f.get(l3..l3 + header)?]) != 0xffff {
            return None;
        }
        let a = |at: usize| Some(IpAddr::V4((be(f, at, 4)? as u32).into()));
        (l3 + header, be(f, l3 + 2, 2)? as usize, f[l3 + 1], f[l3 + 8], a(l3 + 12)?, a(l3 + 16)?)
    };
    // What is behind is the link's.
    let b = f.get(l4..l3 + len)?;
    let mut a =
        Around { src, dst, tos, ttl, ports: (0, 0), id: 0, flags: 0, mirrored: None, inner: Vec::new() };
    if kind.is_udp() {
        if be(b, 4, 2)? as usize != b.len() {
            return None;
        }
        if be(b, 6, 2)? != 0 {
            let ends = if v6 { &f[l3 + 8..l3 + 40] } else { &f[l3 + 12..l3 + 20] };
            if sum(&[ends, &(b.len() as u32).to_be_bytes(), &[0, 17], b]) != 0xffff {
                return None;
            }
            a.flags |= CSUM;
        }
        a.ports = (be(b, 0, 2)? as u16, be(b, 2, 2)? as u16);
    }
    let inner = match kind {
        // The switches of these tests have none that say what follows, or carry something else than frames.
        TunnelKind::VxlanGpe | TunnelKind::Gtpu | TunnelKind::Lisp | TunnelKind::Stt => return None,
        TunnelKind::Erspan => {
            let m = Mirrored::read(b)?;
            a.id = be(b, 10, 2)? as u32 & 0x3ff;
            a.flags |= KEY;
            a.mirrored = Some(m);
            // A platform may have added something.
            8 + m.bytes() + if matches!(m, Mirrored::V2(..)) && be(b, 18, 2)? & 1 != 0 { 8 } else { 0 }
        }
        TunnelKind::Vxlan => {
            if b.get(8)? & 8 == 0 {
                return None;
            }
            a.id = be(b, 12, 3)? as u32;
            a.flags |= KEY;
            16
        }
        TunnelKind::Geneve => {
            let (first, flags) = (*b.get(8)?, *b.get(9)?);
            if first >> 6 != 0 || be(b, 10, 2)? != 0x6558 {
                return None;
            }
            let options = b.get(16..16 + usize::from(first & 63) * 4)?;
            let mut at = 0;
            while at < options.len() {
                // Nobody knows what must not be passed over.
                if options[at + 2] & 0x80 != 0 {
                    return None;
                }
                at += 4 + usize::from(options[at + 3] & 31) * 4;
            }
            if at > options.len() {
                return None;
            }
            a.id = be(b, 12, 3)? as u32;
            a.flags |= KEY | if flags & 0x80 != 0 { OAM } else { 0 };
            16 + options.len()
        }
        TunnelKind::Gre => {
            let flags = be(b, 0, 2)?;
            if flags & !0xb000 != 0 || be(b, 2, 2)? != 0x6558 {
                return None;
            }
            let mut at = 4;
            if flags & 0x8000 != 0 {
                if sum(&[b]) != 0xffff {
                    return None;
                }
                a.flags |= CSUM;
                at += 4;
            }
            if flags & 0x2000 != 0 {
                a.id = be(b, at, 4)? as u32;
                a.flags |= KEY;
                at += 4;
            }
            at + if flags & 0x1000 != 0 { 4 } else { 0 }
        }
    };
    let inside = b.get(inner..).filter(|i| i.len() >= 14)?;
    // GRE does not say how long it is; what is inside may know better than what is around it, if it is there.
    let from = f.get(l4 + inner..)?;
    let whole = match longer(from).filter(|n| *n > inside.len() && kind.ip_proto() == 47) {
        Some(n) => from.get(..n).unwrap_or(inside),
        None => inside,
    };
    a.inner = whole.to_vec();
    Some(a)
}

/// How long a frame is by what its IP header says.
fn longer(f: &[u8]) -> Option<usize> {
    let mut at = 12;
    while matches!(be(f, at, 2)?, 0x8100 | 0x88a8) && at < 20 {
        at += 4;
    }
    match be(f, at, 2)? {
        0x0800 => Some(at + 2 + be(f, at + 4, 2)? as usize),
        0x86dd => Some(at + 42 + be(f, at + 6, 2)? as usize),
        _ => None,
    }
}

/// What ERSPAN says of a packet: the index of version 1, or direction and hardware of version 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mirrored {
    V1(u32),
    V2(u8, u8),
}

impl Mirrored {
    /// Bytes behind GRE's number.
    fn bytes(self) -> usize {
        if let Mirrored::V1(_) = self { 8 } else { 12 }
    }

    fn read(b: &[u8]) -> Option<Mirrored> {
        if be(b, 0, 2)? != 0x1000 || !matches!(be(b, 2, 2)?, 0x88be | 0x22eb) {
            return None;
        }
        match b.get(8)? >> 4 {
            1 => Some(Mirrored::V1(be(b, 12, 4)? as u32 & 0xf_ffff)),
            2 => {
                let last = be(b, 18, 2)?;
                // Frames.
                (last & 0x7c00 == 0).then_some(Mirrored::V2((last >> 3) as u8 & 1, (last >> 4) as u8 & 0x3f))
            }
            _ => None,
        }
    }

    /// With GRE's header; number and time are zero.
    fn header(self, session: u32) -> Vec<u8> {
        let session = (session as u16 & 0x3ff).to_be_bytes();
        match self {
            Mirrored::V1(index) => {
                let gre = [0x10, 0, 0x88, 0xbe, 0, 0, 0, 0, 0x10, 0, session[0], session[1]];
                [&gre[..], &(index & 0xf_ffff).to_be_bytes()].concat()
            }
            Mirrored::V2(dir, hwid) => {
                let gre = [0x10, 0, 0x22, 0xeb, 0, 0, 0, 0, 0x20, 0, session[0], session[1]];
                let last = (u16::from(hwid & 0x3f) << 4 | u16::from(dir & 1) << 3).to_be_bytes();
                [&gre[..], &[0; 6], &last].concat()
            }
        }
    }
}

/// Headers around a packet that is to be sent.
pub(crate) struct Wrap {
    pub(crate) kind: TunnelKind,
    pub(crate) macs: ([u8; 6], [u8; 6]),
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) csum: bool,
    pub(crate) id: Option<u32>,
    pub(crate) oam: bool,
    pub(crate) source_port: u16,
    pub(crate) options: Vec<u8>,
    pub(crate) mirrored: Option<Mirrored>,
    pub(crate) numbered: bool,
}

impl Wrap {
    /// The packet behind them.
    pub(crate) fn around(&self, inner: &[u8]) -> Vec<u8> {
        let v6 = self.dst.is_ipv6();
        let mut l4 = Vec::new();
        let udp = self.kind.is_udp();
        let id = self.id.unwrap_or(0);
        if udp {
            l4.extend(self.source_port.to_be_bytes());
            l4.extend(self.kind.default_port().to_be_bytes());
            l4.extend([0; 4]);
        }
        match self.kind {
            TunnelKind::Vxlan => l4.extend([8, 0, 0, 0]),
            TunnelKind::VxlanGpe => l4.extend([12, 0, 0, 3]),
            TunnelKind::Erspan => l4.extend(self.mirrored.unwrap_or(Mirrored::V1(0)).header(id)),
            TunnelKind::Gtpu | TunnelKind::Lisp | TunnelKind::Stt => {}
            TunnelKind::Geneve => {
                l4.extend([(self.options.len() / 4) as u8, if self.oam { 0x80 } else { 0 }, 0x65, 0x58]);
            }
            TunnelKind::Gre => {
                let flags = if self.csum { 0x80 } else { 0 }
                    | if self.id.is_some() { 0x20 } else { 0 }
                    | if self.numbered { 0x10 } else { 0 };
                l4.extend([flags, 0, 0x65, 0x58]);
                if self.csum {
                    l4.extend([0; 4]);
                }
                if self.id.is_some() {
                    l4.extend(id.to_be_bytes());
                }
                if self.numbered {
                    l4.extend([0; 4]);
                }
            }
        }
        if udp {
            l4.extend((id << 8).to_be_bytes());
            l4.extend(&self.options);
        }
        l4.extend(inner);
        let len = l4.len() as u32;
        let ends: Vec<u8> = match (self.src, self.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => [s.octets(), d.octets()].concat(),
            (IpAddr::V6(s), IpAddr::V6(d)) => [s.octets(), d.octets()].concat(),
            _ => Vec::new(),
        };
        if udp {
            l4[4..6].copy_from_slice(&(len as u16).to_be_bytes());
            if self.csum || v6 {
                let c = !sum(&[&ends, &len.to_be_bytes(), &[0, 17], &l4]);
                l4[6..8].copy_from_slice(&(if c == 0 { 0xffff } else { c }).to_be_bytes());
            }
        } else if self.csum && self.kind == TunnelKind::Gre {
            let c = !sum(&[&l4]);
            l4[4..6].copy_from_slice(&c.to_be_bytes());
        }
        let proto = if udp { 17 } else { 47 };
        let mut f = [self.macs.0, self.macs.1].concat();
        if v6 {
            f.extend([0x86, 0xdd]);
            f.extend((6 << 28 | u32::from(self.tos) << 20).to_be_bytes());
            f.extend((len as u16).to_be_bytes());
            f.extend([proto, self.ttl]);
        } else {
            f.extend([8, 0]);
            let mut h = vec![0x45, self.tos];
            h.extend((20 + len as u16).to_be_bytes());
            h.extend([0, 0, if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, proto, 0, 0]);
            let c = !sum(&[&h, &ends]);
            h[10..12].copy_from_slice(&c.to_be_bytes());
            f.extend(h);
        }
        f.extend(ends);
        f.extend(l4);
        f
    }
}

/// A frame as far as it is defined: behind a tunnel's source port that is one of those it may be, and its checksum, if that is right.
pub(crate) fn canonical(mut f: Vec<u8>) -> Vec<u8> {
    let Ok(p) = flow::parse(&f, PortId(0)) else { return f };
    let (l3, v6) = (p.layout.l3_offset as usize, p.key.get64(FieldId::EthType) == 0x86dd);
    let kind = match p.key.get64(FieldId::TpDst) {
        _ if p.key.get64(FieldId::NwProto) == 47 && p.key.get(FieldId::NwFrag) == 0 => {
            let l4 = if v6 { l3 + 40 } else { l3 + 4 * usize::from(f.get(l3).unwrap_or(&0) & 15) };
            return unnumbered(f, l3, l4, v6);
        }
        4789 => TunnelKind::Vxlan,
        6081 => TunnelKind::Geneve,
        _ => return f,
    };
    let udp = p.key.get64(FieldId::NwProto) == 17 && p.key.get(FieldId::NwFrag) == 0;
    let (true, Some(l4)) = (udp, p.layout.l4()) else { return f };
    let Some(a) = open(kind, &f, l3, v6) else { return f };
    // Those of the software path, and those of the NIC.
    if (32_768..=61_000).contains(&a.ports.0) || a.ports.0 >= 49_152 {
        f[l4..l4 + 2].fill(0);
        if a.flags & CSUM != 0 {
            f[l4 + 6..l4 + 8].fill(0xff);
        }
    }
    f
}

/// The same for GRE: its number is any, the time it was sent at too, and its checksum, if that is right.
fn unnumbered(mut f: Vec<u8>, l3: usize, l4: usize, v6: bool) -> Vec<u8> {
    let kind =
        if matches!(be(&f, l4 + 2, 2), Some(0x88be | 0x22eb)) { TunnelKind::Erspan } else { TunnelKind::Gre };
    let (Some(_), Some(flags)) = (open(kind, &f, l3, v6), be(&f, l4, 2)) else { return f };
    if flags & 0x1000 == 0 {
        return f;
    }
    let at = l4 + 4 + [0x8000, 0x2000].iter().filter(|b| flags & **b != 0).count() * 4;
    f[at..at + 4].fill(0);
    if flags & 0x8000 != 0 {
        f[l4 + 4..l4 + 6].fill(0xff);
    }
    if be(&f, l4 + 2, 2) == Some(0x22eb) {
        f[l4 + 12..l4 + 16].fill(0);
    }
    f
}

impl<F: Flow> Interpreter<'_, F> {
    /// The packet is out of a tunnel: what was around it is known. False when congestion was experienced outside that nobody could
    /// be told of inside (RFC 6040 4.2).
    pub(crate) fn come_out(&mut self, a: &Around) -> bool {
        use FieldId::*;
        match (a.src, a.dst) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                self.key.set(TunSrc, u32::from(s).into());
                self.key.set(TunDst, u32::from(d).into());
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                self.key.set(TunIpv6Src, s.into());
                self.key.set(TunIpv6Dst, d.into());
            }
            _ => {}
        }
        self.key.set(TunId, a.id.into());
        self.key.set(TunFlags, a.flags.into());
        self.key.set(TunTos, a.tos.into());
        self.key.set(TunTtl, a.ttl.into());
        self.key.set(TunTpSrc, a.ports.0.into());
        self.key.set(TunTpDst, a.ports.1.into());
        match a.mirrored {
            None => {}
            Some(Mirrored::V1(index)) => {
                self.key.set(TunErspanVer, 1);
                self.key.set(TunErspanIdx, index.into());
            }
            Some(Mirrored::V2(dir, hwid)) => {
                self.key.set(TunErspanVer, 2);
                self.key.set(TunErspanDir, dir.into());
                self.key.set(TunErspanHwid, hwid.into());
            }
        }
        let ip = matches!(self.key.get64(EthType), 0x0800 | 0x86dd);
        if !ip || a.tos & 3 != 3 {
            return true;
        }
        let inside = self.key.get64(NwTos);
        if inside & 3 != 0 {
            self.key.set(NwTos, (inside | 3).into());
            self.frame.set(NwTos, 3, 3);
        }
        inside & 3 != 0
    }

    /// Sends the packet into a tunnel, and what comes of it out of the port below.
    pub(crate) fn go_in(&mut self, s: &TunnelSettings) {
        use FieldId::*;
        let k = &self.key;
        let from_key = |v4, v6| match (k.get64(v4) as u32, k.get(v6)) {
            (_, v6) if v6 != 0 => Some(IpAddr::V6(v6.into())),
            (0, _) => None,
            (v4, _) => Some(IpAddr::V4(v4.into())),
        };
        let remote = match s.remote {
            End::Address(a) => Some(a),
            End::Flow => from_key(TunDst, TunIpv6Dst),
            End::Any => None,
        };
        let Some(dst) = remote else { return };
        let to = NEXT.iter().find(|(a, _)| a.parse() == Ok(dst));
        let Some((_, mac)) = to else { return };
        let Ok(src) = OWN[usize::from(dst.is_ipv6())].parse() else { return };
        let ip = matches!(k.get64(EthType), 0x0800 | 0x86dd);
        let inherited = |own: Option<u8>, field, otherwise| match own {
            Some(v) => v,
            None if ip => k.get64(field) as u8,
            None => otherwise,
        };
        let ecn = if ip { k.get64(NwTos) as u8 & 3 } else { 0 };
        let id = match s.out_key {
            TunnelKey::None => None,
            TunnelKey::Flow => Some(k.get64(TunId) as u32),
            TunnelKey::Value(v) => Some(v as u32),
        };
        let m = &s.mirroring;
        let by_flow = |own: Option<u32>, field| own.unwrap_or(k.get64(field) as u32);
        let dir = by_flow(m.dir.map(u32::from), TunErspanDir) as u8;
        let mirrored = match by_flow(m.version.map(u32::from), TunErspanVer) {
            1 => Some(Mirrored::V1(by_flow(m.index, TunErspanIdx))),
            2 => Some(Mirrored::V2(dir, by_flow(m.hwid.map(u32::from), TunErspanHwid) as u8)),
            _ => None,
        };
        if s.kind == TunnelKind::Erspan && (mirrored.is_none() || id.is_some_and(|id| id > 0x3ff)) {
            return;
        }
        let wrap = Wrap {
            kind: s.kind,
            macs: (*mac, OWN_MAC),
            src,
            dst,
            // Congestion that is inside has been told of there.
            tos: inherited(s.tos, NwTos, 0) | if ecn == 3 { 2 } else { ecn },
            ttl: inherited(s.ttl, NwTtl, 64),
            dont_fragment: s.dont_fragment,
            csum: s.csum,
            id,
            oam: s.kind == TunnelKind::Geneve && k.get64(TunFlags) as u16 & OAM != 0,
            source_port: 40_000,
            options: Vec::new(),
            mirrored,
            numbered: s.numbered,
        };
        let outer = wrap.around(self.frame.bytes());
        self.verdict.out.push((Setup::BELOW, outer));
    }
}
