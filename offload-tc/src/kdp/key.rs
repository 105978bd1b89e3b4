//! Keys and masks as the kernel's datapath has them (OVS_KEY_ATTR_*).
//!
//! A match is two nests of the same attributes, values and masks. Which there are follows from the values: the kernel wants a
//! key for every header that the match says is there.

use flow::parse::{FRAG_ANY, FRAG_LATER};
use flow::text::flags::{TUN_CSUM, TUN_DF, TUN_KEY, TUN_OAM};
use flow::tunnel::options::{self, Critical, OptionWords};
use flow::{FieldId, ORIGINAL_DIRECTION, PacketKey, PacketMatch};

use super::KdpError;
use crate::error::CodecError;
use crate::wire::{NESTED, Writer, attrs, exact, find, read_u16, read_u32};

const ENCAP: u16 = 1;
const IN_PORT: u16 = 3;
const ETHERNET: u16 = 4;
const VLAN: u16 = 5;
const ETHERTYPE: u16 = 6;
const IPV4: u16 = 7;
const IPV6: u16 = 8;
const TCP: u16 = 9;
const UDP: u16 = 10;
const ICMP: u16 = 11;
const ICMPV6: u16 = 12;
const ARP: u16 = 13;
const ND: u16 = 14;
const SKB_MARK: u16 = 15;
const TUNNEL: u16 = 16;
const SCTP: u16 = 17;
const TCP_FLAGS: u16 = 18;
const DP_HASH: u16 = 19;
const RECIRC_ID: u16 = 20;
const MPLS: u16 = 21;
const CT_STATE: u16 = 22;
const CT_ZONE: u16 = 23;
const CT_MARK: u16 = 24;
const CT_LABELS: u16 = 25;
const CT_TUPLE4: u16 = 26;
const CT_TUPLE6: u16 = 27;
/// Ports of the datapath lie below this (`DP_MAX_PORTS`).
const PORTS: u32 = 65_536;
/// Stands for "no port" in a key that was told without one.
const NO_PORT: u32 = u32::MAX;
const VLAN_PRESENT: u128 = 0x1000;

/// The numbers of attributes that actions write, for [`super::actions`].
pub(super) mod number {
    pub const ETHERNET: u16 = super::ETHERNET;
    pub const IPV4: u16 = super::IPV4;
    pub const IPV6: u16 = super::IPV6;
    pub const TCP: u16 = super::TCP;
    pub const UDP: u16 = super::UDP;
    pub const SCTP: u16 = super::SCTP;
    pub const SKB_MARK: u16 = super::SKB_MARK;
    pub const MPLS: u16 = super::MPLS;
}

/// Values or masks of fields, by field.
pub(super) type Get<'a> = &'a dyn Fn(FieldId) -> u128;

fn be<const N: usize>(v: u128) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&v.to_be_bytes()[16 - N..]);
    out
}

/// `struct ovs_key_ethernet`.
pub(super) fn ethernet(get: Get<'_>) -> Vec<u8> {
    [be::<6>(get(FieldId::EthSrc)), be::<6>(get(FieldId::EthDst))].concat()
}

/// `struct ovs_key_ipv4`, `frag` apart.
pub(super) fn ipv4(get: Get<'_>, frag: u8) -> Vec<u8> {
    let bytes = [FieldId::NwProto, FieldId::NwTos, FieldId::NwTtl].map(|f| get(f) as u8);
    [&be::<4>(get(FieldId::NwSrc))[..], &be::<4>(get(FieldId::NwDst)), &bytes, &[frag]].concat()
}

/// `struct ovs_key_ipv6`, `frag` apart.
pub(super) fn ipv6(get: Get<'_>, frag: u8) -> Vec<u8> {
    let bytes = [FieldId::NwProto, FieldId::NwTos, FieldId::NwTtl].map(|f| get(f) as u8);
    let label = be::<4>(get(FieldId::Ipv6Label));
    let (src, dst) = (be::<16>(get(FieldId::Ipv6Src)), be::<16>(get(FieldId::Ipv6Dst)));
    [&src[..], &dst, &label, &bytes, &[frag]].concat()
}

/// Source and destination port.
pub(super) fn ports(get: Get<'_>) -> Vec<u8> {
    [be::<2>(get(FieldId::TpSrc)), be::<2>(get(FieldId::TpDst))].concat()
}

/// What of a match decides which attributes there are.
struct Shape<'a> {
    value: Get<'a>,
    mask: Get<'a>,
    tags: usize,
    eth_type: u128,
    /// Options of the tunnel and their mask, when they are looked at.
    options: Option<(&'a [u8], &'a [u8])>,
}

/// Writes a match: key and mask. `options` are those of a packet that it is for, as its tunnel's header has them.
///
/// # Errors
/// [`KdpError::Unsupported`].
pub(super) fn put_match(
    w: &mut Writer,
    m: &PacketMatch,
    options: &[u8],
    key: u16,
    mask: u16,
) -> Result<(), KdpError> {
    let value = |f| m.get(f).0;
    let bits = |f| m.get(f).1;
    if flow::tunnel::HEADER_FIELDS.iter().any(|f| bits(*f) != 0) {
        return Err(KdpError::Unsupported("match within a header of ERSPAN or GTP-U"));
    }
    let there = |f| usize::from(value(f) & bits(f) & VLAN_PRESENT != 0);
    let tags = there(FieldId::VlanTci) + there(FieldId::VlanTci2);
    let looked_at = options::words().any(|f| bits(f) != 0);
    let options = looked_at.then(|| (options, options::mask_of_header(m.mask(), options)));
    let options = options.as_ref().map(|(raw, mask)| (*raw, mask.as_slice()));
    let s = Shape { value: &value, mask: &bits, tags, eth_type: value(FieldId::EthType), options };
    let n = w.nest(key | NESTED);
    s.put(w, false)?;
    w.end(n);
    let n = w.nest(mask | NESTED);
    s.put(w, true)?;
    w.end(n);
    Ok(())
}

/// What of a packet's key decides how actions on it are written.
pub(super) fn of_packet(k: &PacketKey) -> PacketMatch {
    let mut m = PacketMatch::ANY;
    for f in [FieldId::EthType, FieldId::VlanTci, FieldId::VlanTpid, FieldId::NwProto] {
        m.set(f, k.get(f));
    }
    m
}

/// Writes what the datapath is to know beside a frame; `options` are those of its tunnel's header.
pub(super) fn put_metadata(w: &mut Writer, k: &PacketKey, options: &[u8], key: u16) {
    let get = |f| k.get(f);
    let n = w.nest(key | NESTED);
    let port = get(FieldId::DpPort) as u32;
    if port < PORTS {
        w.u32(IN_PORT, port);
    }
    for (f, attr) in [
        (FieldId::RecircId, RECIRC_ID),
        (FieldId::DpHash, DP_HASH),
        (FieldId::PktMark, SKB_MARK),
        (FieldId::CtState, CT_STATE),
        (FieldId::CtMark, CT_MARK),
    ] {
        // Kernels that lack one do not want to hear of it.
        if get(f) != 0 {
            w.u32(attr, get(f) as u32);
        }
    }
    if get(FieldId::CtZone) != 0 {
        w.u16(CT_ZONE, get(FieldId::CtZone) as u16);
    }
    if get(FieldId::CtLabel) != 0 {
        w.attr(CT_LABELS, &get(FieldId::CtLabel).to_ne_bytes());
    }
    if get(FieldId::CtNwProto) != 0 {
        put_tuple(w, &get, get(FieldId::EthType) == 0x86dd);
    }
    if get(FieldId::TunDst) != 0 || get(FieldId::TunIpv6Dst) != 0 {
        put_tunnel(w, &get, (!options.is_empty()).then_some(options), false);
    }
    w.end(n);
}

/// `struct ovs_key_ct_tuple_ipv4` or `_ipv6`.
fn put_tuple(w: &mut Writer, get: Get<'_>, v6: bool) {
    let ports = [be::<2>(get(FieldId::CtTpSrc)), be::<2>(get(FieldId::CtTpDst))].concat();
    let rest = [&ports[..], &[get(FieldId::CtNwProto) as u8, 0, 0, 0]].concat();
    if v6 {
        let ends = [be::<16>(get(FieldId::CtIpv6Src)), be::<16>(get(FieldId::CtIpv6Dst))].concat();
        w.attr(CT_TUPLE6, &[ends, rest].concat());
    } else {
        let ends = [be::<4>(get(FieldId::CtNwSrc)), be::<4>(get(FieldId::CtNwDst))].concat();
        w.attr(CT_TUPLE4, &[ends, rest].concat());
    }
}

impl Shape<'_> {
    fn put(&self, w: &mut Writer, mask: bool) -> Result<(), KdpError> {
        let get = if mask { self.mask } else { self.value };
        let all = |f: FieldId| if mask { f.info().max() } else { get(f) };
        let port = all(FieldId::DpPort) as u32;
        // A packet that somebody sends without a port to have come in by has none in its key.
        if mask || port < PORTS {
            w.u32(IN_PORT, port);
        }
        w.u32(RECIRC_ID, all(FieldId::RecircId) as u32);
        let wanted = |f| (self.mask)(f) != 0;
        for (f, attr) in [
            (FieldId::DpHash, DP_HASH),
            (FieldId::PktMark, SKB_MARK),
            (FieldId::CtState, CT_STATE),
            (FieldId::CtMark, CT_MARK),
        ] {
            if wanted(f) {
                w.u32(attr, get(f) as u32);
            }
        }
        if wanted(FieldId::CtZone) {
            w.u16(CT_ZONE, get(FieldId::CtZone) as u16);
        }
        if wanted(FieldId::CtLabel) {
            w.attr(CT_LABELS, &get(FieldId::CtLabel).to_ne_bytes());
        }
        if ORIGINAL_DIRECTION.into_iter().any(wanted) {
            put_tuple(w, get, self.eth_type == 0x86dd);
        }
        if (self.value)(FieldId::TunDst) != 0 || (self.value)(FieldId::TunIpv6Dst) != 0 {
            // Which there are is looked at as a whole. Where there is none only the mask says so.
            let options = self.options.filter(|(raw, _)| mask || !raw.is_empty());
            put_tunnel(w, get, options.map(|(raw, bits)| if mask { bits } else { raw }), mask);
        }
        w.attr(ETHERNET, &ethernet(get));
        self.put_tags(w, 0, mask)
    }

    /// What is behind `tag` tags.
    fn put_tags(&self, w: &mut Writer, tag: usize, mask: bool) -> Result<(), KdpError> {
        let get = if mask { self.mask } else { self.value };
        let (tci, tpid) =
            [(FieldId::VlanTci, FieldId::VlanTpid), (FieldId::VlanTci2, FieldId::VlanTpid2)][tag.min(1)];
        if tag < self.tags {
            let kind = match (mask, (self.value)(tpid)) {
                (true, _) => 0xffff,
                (false, 0) => 0x8100,
                (false, t) => t,
            };
            w.attr(ETHERTYPE, &be::<2>(kind));
            w.attr(VLAN, &be::<2>(get(tci)));
            let n = w.nest(ENCAP | NESTED);
            self.put_tags(w, tag + 1, mask)?;
            w.end(n);
            return Ok(());
        }
        if (self.value)(FieldId::PacketType) != 0 {
            return Err(KdpError::Unsupported("packet without an Ethernet header"));
        }
        if (self.mask)(FieldId::EthType) == 0 {
            return Ok(());
        }
        if self.eth_type >= 0x600 {
            w.attr(ETHERTYPE, &be::<2>(if mask { 0xffff } else { self.eth_type }));
        }
        match self.eth_type {
            0x0800 => w.attr(IPV4, &ipv4(get, self.frag(mask)?)),
            0x86dd => w.attr(IPV6, &ipv6(get, self.frag(mask)?)),
            0x0806 | 0x8035 => {
                let op = be::<2>(get(FieldId::NwProto));
                let (sip, tip) = (be::<4>(get(FieldId::NwSrc)), be::<4>(get(FieldId::NwDst)));
                let (sha, tha) = (be::<6>(get(FieldId::ArpSha)), be::<6>(get(FieldId::ArpTha)));
                w.attr(ARP, &[&sip[..], &tip, &op, &sha, &tha, &[0, 0]].concat());
                return Ok(());
            }
            0x8847 | 0x8848 => {
                let all = [FieldId::MplsLse0, FieldId::MplsLse1, FieldId::MplsLse2];
                // As deep as something is looked at.
                let depth = all.iter().rposition(|f| (self.mask)(*f) != 0).map_or(1, |i| i + 1);
                w.attr(MPLS, &all.iter().take(depth).flat_map(|f| be::<4>(get(*f))).collect::<Vec<_>>());
                return Ok(());
            }
            0x894f
                if flow::nsh::WRITABLE
                    .iter()
                    .chain(&[FieldId::NshMdtype, FieldId::NshNp])
                    .any(|f| (self.mask)(*f) != 0) =>
            {
                return Err(KdpError::Unsupported("match within a network service header"));
            }
            _ => return Ok(()),
        }
        // Behind a later fragment's header there is no other.
        if (self.value)(FieldId::NwFrag) & u128::from(FRAG_LATER) == 0 {
            self.put_transport(w, get);
        }
        Ok(())
    }

    fn put_transport(&self, w: &mut Writer, get: Get<'_>) {
        let byte = |f| get(f) as u8;
        match ((self.value)(FieldId::NwProto), self.eth_type) {
            (6, _) => {
                w.attr(TCP, &ports(get));
                w.attr(TCP_FLAGS, &be::<2>(get(FieldId::TcpFlags)));
            }
            (17, _) => w.attr(UDP, &ports(get)),
            (132, _) => w.attr(SCTP, &ports(get)),
            (1, 0x0800) => w.attr(ICMP, &[byte(FieldId::TpSrc), byte(FieldId::TpDst)]),
            (58, 0x86dd) => {
                w.attr(ICMPV6, &[byte(FieldId::TpSrc), byte(FieldId::TpDst)]);
                let nd = [FieldId::NdTarget, FieldId::ArpSha, FieldId::ArpTha];
                let (kind, _) = ((self.value)(FieldId::TpSrc), ());
                if matches!(kind, 135 | 136) && nd.iter().any(|f| (self.mask)(*f) != 0) {
                    let (t, s, d) = (be::<16>(get(nd[0])), be::<6>(get(nd[1])), be::<6>(get(nd[2])));
                    w.attr(ND, &[&t[..], &s, &d].concat());
                }
            }
            _ => {}
        }
    }

    /// Fragments are numbered: none, first, later.
    fn frag(&self, mask: bool) -> Result<u8, KdpError> {
        let (any, later) = (u128::from(FRAG_ANY), u128::from(FRAG_LATER));
        let (v, m) = ((self.value)(FieldId::NwFrag), (self.mask)(FieldId::NwFrag));
        match (m, mask) {
            (0, _) => Ok(0),
            (m, _) if m & later == 0 && v & any != 0 => Err(KdpError::Unsupported("match on any fragment")),
            (_, true) => Ok(0xff),
            (_, false) if v & any == 0 => Ok(0),
            (_, false) => Ok(if v & later == 0 { 1 } else { 2 }),
        }
    }
}

/// Writes a tunnel's metadata, with options of its header.
pub(super) fn put_tunnel(w: &mut Writer, get: Get<'_>, options: Option<&[u8]>, mask: bool) {
    let n = w.nest(TUNNEL | NESTED);
    let flags = get(FieldId::TunFlags) as u16;
    let id = get(FieldId::TunId);
    if mask || flags & TUN_KEY != 0 || id != 0 {
        w.attr(0, &be::<8>(id));
    }
    for (f, attr) in [(FieldId::TunSrc, 1), (FieldId::TunDst, 2)] {
        if get(f) != 0 {
            w.attr(attr, &be::<4>(get(f)));
        }
    }
    for (f, attr) in [(FieldId::TunIpv6Src, 12), (FieldId::TunIpv6Dst, 13)] {
        if get(f) != 0 {
            w.attr(attr, &be::<16>(get(f)));
        }
    }
    w.u8(3, get(FieldId::TunTos) as u8);
    w.u8(4, get(FieldId::TunTtl) as u8);
    for (bit, attr) in [(TUN_DF, 5), (TUN_CSUM, 6), (TUN_OAM, 7)] {
        if flags & bit != 0 {
            w.attr(attr, &[]);
        }
    }
    for (f, attr) in [(FieldId::TunTpSrc, 9), (FieldId::TunTpDst, 10)] {
        if mask || get(f) != 0 {
            w.attr(attr, &be::<2>(get(f)));
        }
    }
    let group = get(FieldId::TunGbpId) as u32 | (get(FieldId::TunGbpFlags) as u32) << 16;
    if group != 0 {
        let o = w.nest(11 | NESTED);
        w.u32(1, group);
        w.end(o);
    } else if let Some(raw) = options {
        // A packet has the one or the other.
        w.attr(8, raw);
    }
    w.end(n);
}

/// Takes in what the datapath knows of a packet beside its bytes; the options of its tunnel's header.
///
/// # Errors
/// [`CodecError`].
pub(super) fn read_metadata<'a>(b: &'a [u8], k: &mut PacketKey) -> Result<&'a [u8], CodecError> {
    let mut options = &[][..];
    k.set(FieldId::DpPort, NO_PORT.into());
    for a in attrs(b) {
        match a? {
            (IN_PORT, v) => k.set(FieldId::DpPort, read_u32("in port", v)?.into()),
            (SKB_MARK, v) => k.set(FieldId::PktMark, read_u32("mark", v)?.into()),
            (DP_HASH, v) => k.set(FieldId::DpHash, read_u32("hash", v)?.into()),
            (RECIRC_ID, v) => k.set(FieldId::RecircId, read_u32("recirculation id", v)?.into()),
            (CT_STATE, v) => k.set(FieldId::CtState, u128::from(read_u32("ct state", v)?) & 0xff),
            (CT_ZONE, v) => k.set(FieldId::CtZone, read_u16("ct zone", v)?.into()),
            (CT_MARK, v) => k.set(FieldId::CtMark, read_u32("ct mark", v)?.into()),
            (CT_LABELS, v) => k.set(FieldId::CtLabel, u128::from_ne_bytes(exact("ct label", v)?)),
            (TUNNEL, v) => options = read_tunnel(v, k)?,
            (CT_TUPLE4, v) => read_tuple(v, k, [FieldId::CtNwSrc, FieldId::CtNwDst], 4),
            (CT_TUPLE6, v) => read_tuple(v, k, [FieldId::CtIpv6Src, FieldId::CtIpv6Dst], 16),
            _ => {}
        }
    }
    Ok(options)
}

/// Addresses of `n` bytes each, ports, protocol. One that is too short says nothing.
fn read_tuple(b: &[u8], k: &mut PacketKey, ends: [FieldId; 2], n: usize) {
    let number = |at: usize, n: usize| {
        b.get(at..at + n).unwrap_or_default().iter().fold(0u128, |v, b| v << 8 | u128::from(*b))
    };
    k.set(ends[0], number(0, n));
    k.set(ends[1], number(n, n));
    k.set(FieldId::CtTpSrc, number(2 * n, 2));
    k.set(FieldId::CtTpDst, number(2 * n + 2, 2));
    k.set(FieldId::CtNwProto, number(2 * n + 4, 1));
}

fn read_tunnel<'a>(b: &'a [u8], k: &mut PacketKey) -> Result<&'a [u8], CodecError> {
    let (mut flags, mut options) = (0, &[][..]);
    for a in attrs(b) {
        let (attr, v) = a?;
        let n = v.iter().take(16).fold(0u128, |n, b| n << 8 | u128::from(*b));
        match attr {
            0 => {
                k.set(FieldId::TunId, n);
                flags |= TUN_KEY;
            }
            1 => k.set(FieldId::TunSrc, n),
            2 => k.set(FieldId::TunDst, n),
            3 => k.set(FieldId::TunTos, n),
            4 => k.set(FieldId::TunTtl, n),
            5 => flags |= TUN_DF,
            6 => flags |= TUN_CSUM,
            7 => flags |= TUN_OAM,
            8 => options = v,
            9 => k.set(FieldId::TunTpSrc, n),
            10 => k.set(FieldId::TunTpDst, n),
            11 => {
                let group = find(v, 1)?.map_or(Ok(0), |v| read_u32("group", v))?;
                k.set(FieldId::TunGbpId, (group & 0xffff).into());
                k.set(FieldId::TunGbpFlags, (group >> 16 & 0xff).into());
            }
            12 => k.set(FieldId::TunIpv6Src, n),
            13 => k.set(FieldId::TunIpv6Dst, n),
            _ => {}
        }
    }
    k.set(FieldId::TunFlags, flags.into());
    let read = OptionWords::read(options, Critical::PassedOver);
    read.map_err(|_| CodecError::Missing("end of the tunnel options"))?.write(k);
    Ok(options)
}
