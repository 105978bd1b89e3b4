//! Options of actions that concern a packet's metadata: tunnel_key and ct.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ActionSpec;
use super::packet::{TC_GEN, with_word};
use crate::error::CodecError;
use crate::tunnel_opts::{self, TunnelOpt};
use crate::wire::{Writer, attrs, exact, read_text, read_u8, read_u16, read_u32, word};

/// A tunnel's header, for a packet that is sent to a tunnel device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TunnelSet {
    /// Addresses, both of one family.
    pub src: Option<IpAddr>,
    /// See `src`.
    pub dst: IpAddr,
    /// Key or VNI, when the tunnel has one.
    pub id: Option<u32>,
    /// Destination port, when the tunnel has one; 0 is not sent.
    pub dst_port: u16,
    /// Type of service.
    pub tos: Option<u8>,
    /// Time to live.
    pub ttl: Option<u8>,
    /// Leave the outer checksum out, as `tc` calls it.
    pub no_csum: bool,
    /// The outer packet may not be fragmented.
    pub no_frag: bool,
    /// Options.
    pub opts: Vec<TunnelOpt>,
}

/// Translation of addresses by conntrack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CtNat {
    /// Source (true) or destination is translated; `None` only applies what the connection has.
    pub source: Option<bool>,
    /// Range of addresses.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Range of ports.
    pub ports: Option<(u16, u16)>,
}

/// Sends a packet through connection tracking.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ct {
    /// Zone; `None` is zone 0 without naming it.
    pub zone: Option<u16>,
    /// The connection is kept.
    pub commit: bool,
    /// A connection of the other direction is thrown away first.
    pub force: bool,
    /// What the packet knew of connections is forgotten; nothing else then.
    pub clear: bool,
    /// Mark and the bits of it that are set.
    pub mark: Option<(u32, u32)>,
    /// Label and the bits of it that are set.
    pub label: Option<([u8; 16], [u8; 16])>,
    /// Translation.
    pub nat: Option<CtNat>,
    /// Helper: name, family, protocol.
    pub helper: Option<(String, u8, u8)>,
}

const CT_COMMIT: u16 = 1;
const CT_FORCE: u16 = 2;
const CT_CLEAR: u16 = 4;
const CT_NAT: u16 = 8;
const CT_NAT_SRC: u16 = 16;
const CT_NAT_DST: u16 = 32;

fn address(w: &mut Writer, v4: u16, v6: u16, a: &IpAddr) {
    match a {
        IpAddr::V4(a) => w.attr(v4, &a.octets()),
        IpAddr::V6(a) => w.attr(v6, &a.octets()),
    }
}

fn v4(what: &'static str, b: &[u8]) -> Result<IpAddr, CodecError> {
    Ok(Ipv4Addr::from(exact::<4>(what, b)?).into())
}

fn v6(what: &'static str, b: &[u8]) -> Result<IpAddr, CodecError> {
    Ok(Ipv6Addr::from(exact::<16>(what, b)?).into())
}

/// Writes the options; `head` is the action's `struct tc_gen`.
pub(crate) fn put(w: &mut Writer, spec: &ActionSpec, head: &[u8; TC_GEN]) {
    match spec {
        ActionSpec::TunnelUnset => {
            with_word(w, 2, head, 2);
            w.u8(10, 0);
        }
        ActionSpec::TunnelSet(t) => {
            with_word(w, 2, head, 1);
            put_tunnel(w, t);
        }
        ActionSpec::Ct(c) => {
            w.attr(1, head);
            put_ct(w, c);
        }
        _ => {}
    }
}

fn put_tunnel(w: &mut Writer, t: &TunnelSet) {
    if let Some(src) = &t.src {
        address(w, 3, 5, src);
    }
    address(w, 4, 6, &t.dst);
    if let Some(id) = t.id {
        w.attr(7, &id.to_be_bytes());
    }
    if t.dst_port != 0 {
        w.attr(9, &t.dst_port.to_be_bytes());
    }
    if let Some(v) = t.tos {
        w.u8(12, v);
    }
    if let Some(v) = t.ttl {
        w.u8(13, v);
    }
    if !t.opts.is_empty() {
        tunnel_opts::put(w, 11, &t.opts);
    }
    w.u8(10, u8::from(t.no_csum));
    if t.no_frag {
        w.attr(14, &[]);
    }
}

pub(crate) fn get_tunnel(b: &[u8], params: &[u8]) -> Result<ActionSpec, CodecError> {
    match word("tunnel_key parameters", params, 5)? {
        2 => return Ok(ActionSpec::TunnelUnset),
        1 => {}
        n => return Err(CodecError::Value { what: "tunnel_key action", value: n.into() }),
    }
    let mut dst = None;
    let mut t = TunnelSet {
        src: None,
        dst: Ipv4Addr::UNSPECIFIED.into(),
        id: None,
        dst_port: 0,
        tos: None,
        ttl: None,
        no_csum: false,
        no_frag: false,
        opts: Vec::new(),
    };
    for a in attrs(b) {
        match a? {
            (3, v) => t.src = Some(v4("tunnel source", v)?),
            (4, v) => dst = Some(v4("tunnel destination", v)?),
            (5, v) => t.src = Some(v6("tunnel source", v)?),
            (6, v) => dst = Some(v6("tunnel destination", v)?),
            (7, v) => t.id = Some(u32::from_be_bytes(exact("tunnel key", v)?)),
            (9, v) => t.dst_port = u16::from_be_bytes(exact("tunnel port", v)?),
            (10, v) => t.no_csum = read_u8("tunnel checksum", v)? != 0,
            (11, v) => t.opts = tunnel_opts::get(v)?,
            (12, v) => t.tos = Some(read_u8("tunnel tos", v)?).filter(|v| *v != 0),
            (13, v) => t.ttl = Some(read_u8("tunnel ttl", v)?).filter(|v| *v != 0),
            (14, _) => t.no_frag = true,
            _ => {}
        }
    }
    t.dst = dst.ok_or(CodecError::Missing("tunnel destination"))?;
    Ok(ActionSpec::TunnelSet(Box::new(t)))
}

fn put_ct(w: &mut Writer, c: &Ct) {
    let bit = |on: bool, b: u16| if on { b } else { 0 };
    let mut flags = bit(c.commit, CT_COMMIT) | bit(c.force, CT_FORCE) | bit(c.clear, CT_CLEAR);
    if let Some(n) = &c.nat {
        flags |= CT_NAT | n.source.map_or(0, |s| if s { CT_NAT_SRC } else { CT_NAT_DST });
    }
    w.u16(3, flags);
    if let Some(z) = c.zone {
        w.u16(4, z);
    }
    if let Some((v, mask)) = c.mark {
        w.u32(5, v);
        w.u32(6, mask);
    }
    if let Some((v, mask)) = &c.label {
        w.attr(7, v);
        w.attr(8, mask);
    }
    if let Some(n) = &c.nat {
        if let Some((min, max)) = &n.addresses {
            address(w, 9, 11, min);
            address(w, 10, 12, max);
        }
        if let Some((min, max)) = n.ports {
            w.attr(13, &min.to_be_bytes());
            w.attr(14, &max.to_be_bytes());
        }
    }
    if let Some((name, family, proto)) = &c.helper {
        w.text(16, name);
        w.u8(17, *family);
        w.u8(18, *proto);
    }
}

pub(crate) fn get_ct(b: &[u8]) -> Result<ActionSpec, CodecError> {
    let mut c = Ct::default();
    let (mut mark, mut mark_mask) = (None, u32::MAX);
    let (mut label, mut label_mask) = (None, [0xff; 16]);
    let (mut flags, mut min, mut max) = (0, None, None);
    let (mut port_min, mut port_max) = (None, None);
    let (mut name, mut family, mut proto) = (None, 0, 0);
    for a in attrs(b) {
        match a? {
            (3, v) => flags = read_u16("ct action", v)?,
            (4, v) => c.zone = Some(read_u16("ct zone", v)?),
            (5, v) => mark = Some(read_u32("ct mark", v)?),
            (6, v) => mark_mask = read_u32("ct mark mask", v)?,
            (7, v) => label = Some(exact("ct label", v)?),
            (8, v) => label_mask = exact("ct label mask", v)?,
            (9, v) => min = Some(v4("nat address", v)?),
            (10, v) => max = Some(v4("nat address", v)?),
            (11, v) => min = Some(v6("nat address", v)?),
            (12, v) => max = Some(v6("nat address", v)?),
            (13, v) => port_min = Some(u16::from_be_bytes(exact("nat port", v)?)),
            (14, v) => port_max = Some(u16::from_be_bytes(exact("nat port", v)?)),
            (16, v) => name = Some(read_text(v)),
            (17, v) => family = read_u8("helper family", v)?,
            (18, v) => proto = read_u8("helper protocol", v)?,
            _ => {}
        }
    }
    c.commit = flags & CT_COMMIT != 0;
    c.force = flags & CT_FORCE != 0;
    c.clear = flags & CT_CLEAR != 0;
    c.mark = mark.filter(|_| mark_mask != 0).map(|m| (m, mark_mask));
    c.label = label.filter(|_| label_mask != [0; 16]).map(|l| (l, label_mask));
    c.helper = name.map(|n| (n, family, proto));
    if flags & CT_NAT != 0 {
        let source = match flags & (CT_NAT_SRC | CT_NAT_DST) {
            0 => None,
            f => Some(f & CT_NAT_SRC != 0),
        };
        // What is not given of a range is its other end.
        let addresses = min.map(|a| (a, max.unwrap_or(a)));
        let ports = port_min.map(|p| (p, port_max.unwrap_or(p)));
        c.nat = Some(CtNat { source, addresses, ports });
    }
    Ok(ActionSpec::Ct(Box::new(c)))
}
