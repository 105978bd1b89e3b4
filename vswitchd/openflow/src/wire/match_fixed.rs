//! The fixed matches of OpenFlow 1.0 and 1.1 (OpenFlow 1.0.1 5.2.3, OpenFlow 1.1.0 A.2.3).
//!
//! A field that the rest of the match does not lead to is passed over, as these versions ask; so is a transport port of
//! a protocol without ports. Encoding leaves out what the structure has no place for: whoever must not lose it asks
//! [`fits10`] first.

use flow::{FieldId, PipelineMatch, prereq};

use super::cursor::{Put, Reader};
use super::{EncodeError, ports};
use crate::error::{BadMatch, ErrorCode};
use crate::number::PortNo;

// Wildcards of both versions; those of addresses are OpenFlow 1.0's only.
const IN_PORT: u32 = 1;
const DL_VLAN: u32 = 1 << 1;
const DL_SRC10: u32 = 1 << 2;
const DL_DST10: u32 = 1 << 3;
const DL_TYPE10: u32 = 1 << 4;
const NW_PROTO10: u32 = 1 << 5;
const TP_SRC10: u32 = 1 << 6;
const TP_DST10: u32 = 1 << 7;
const NW_SRC_SHIFT: u32 = 8;
const NW_DST_SHIFT: u32 = 14;
const DL_VLAN_PCP10: u32 = 1 << 20;
const NW_TOS10: u32 = 1 << 21;
const ALL10: u32 = (1 << 22) - 1;

const DL_VLAN_PCP11: u32 = 1 << 2;
const DL_TYPE11: u32 = 1 << 3;
const NW_TOS11: u32 = 1 << 4;
const NW_PROTO11: u32 = 1 << 5;
const TP_SRC11: u32 = 1 << 6;
const TP_DST11: u32 = 1 << 7;
const MPLS_LABEL11: u32 = 1 << 8;
const MPLS_TC11: u32 = 1 << 9;
const ALL11: u32 = (1 << 10) - 1;

/// `OFP_VLAN_NONE`: no tag.
const VLAN_NONE10: u16 = 0xffff;
/// `OFPVID_ANY`: any tag.
const VLAN_ANY11: u16 = 0xfffe;
const PRESENT: u128 = 0x1000;

/// Bytes of OpenFlow 1.1's match with its header.
const BYTES11: u16 = 88;

/// The wildcards of the OpenFlow 1.0 match that is next; nothing is taken.
pub(super) fn wildcards10(r: &Reader<'_>) -> Result<u32, ErrorCode> {
    let mut ahead = *r;
    Ok(ahead.u32()? & ALL10)
}

/// The mask of an address of which `wild` bits are wildcarded; 32 and more are all.
fn prefix(wild: u32) -> u128 {
    let wild = wild & 0x3f;
    if wild >= 32 { 0 } else { u128::from(u32::MAX << wild) }
}

/// Reads OpenFlow 1.0's match.
pub(super) fn read10(r: &mut Reader<'_>) -> Result<PipelineMatch, ErrorCode> {
    use FieldId::*;
    let wild = r.u32()? & ALL10;
    let has = |bit: u32| wild & bit == 0;
    let mut m = PipelineMatch::ANY;
    let in_port = r.u16()?;
    if has(IN_PORT) {
        m.set(InPort, ports::from16(in_port).0.into());
    }
    for (field, bit) in [(EthSrc, DL_SRC10), (EthDst, DL_DST10)] {
        let address = r.number(6)?;
        if has(bit) {
            m.set(field, address);
        }
    }
    let (vlan, pcp) = (r.u16()?, r.u8()?);
    r.skip(1)?;
    if has(DL_VLAN) && vlan == VLAN_NONE10 {
        m.set(VlanTci, 0);
    } else {
        let vid = if has(DL_VLAN) { 0x1fff } else { 0 };
        let pri = if has(DL_VLAN_PCP10) { 0xf000 } else { 0 };
        let tci = PRESENT | u128::from(vlan & 0xfff) | u128::from(pcp & 7) << 13;
        m.set_masked(VlanTci, tci & (vid | pri), vid | pri);
    }
    let eth_type = r.u16()?;
    if has(DL_TYPE10) {
        m.set(EthType, eth_type.into());
    }
    let (tos, proto) = (r.u8()?, r.u8()?);
    r.skip(2)?;
    let ip = has(DL_TYPE10) && eth_type == 0x0800;
    let arp = has(DL_TYPE10) && matches!(eth_type, 0x0806 | 0x8035);
    // Open vSwitch reads these for IPv6 too, though OpenFlow 1.0 knows nothing of it.
    let ip6 = has(DL_TYPE10) && eth_type == 0x86dd;
    if has(NW_TOS10) && (ip || ip6) {
        m.set(IpDscp, u128::from(tos >> 2));
    }
    if has(NW_PROTO10) && (ip || ip6 || arp) {
        m.set(NwProto, proto.into());
    }
    for (field, shift) in [(NwSrc, NW_SRC_SHIFT), (NwDst, NW_DST_SHIFT)] {
        let (address, mask) = (r.u32()?, prefix(wild >> shift));
        if (ip || arp) && mask != 0 {
            m.set_masked(field, u128::from(address) & mask, mask);
        }
    }
    let (src, dst) = (r.u16()?, r.u16()?);
    let proto = (has(NW_PROTO10) && (ip || ip6)).then_some(proto);
    set_transport(&mut m, proto, ip6, has(TP_SRC10).then_some(src), has(TP_DST10).then_some(dst));
    Ok(prereq::normalize(&m).0)
}

/// Sets what the two 16-bit transport fields mean for a protocol.
fn set_transport(m: &mut PipelineMatch, proto: Option<u8>, v6: bool, src: Option<u16>, dst: Option<u16>) {
    use FieldId::*;
    let (s, d) = match proto {
        Some(6) => (TcpSrc, TcpDst),
        Some(17) => (UdpSrc, UdpDst),
        Some(132) => (SctpSrc, SctpDst),
        Some(1) if !v6 => (Icmp4Type, Icmp4Code),
        Some(58) if v6 => (Icmp6Type, Icmp6Code),
        _ => return,
    };
    for (f, value) in [(s, src), (d, dst)] {
        if let Some(value) = value {
            m.set(f, u128::from(value) & f.info().max());
        }
    }
}

/// Whether OpenFlow 1.0's match says all of `m`, at a priority that it leaves as it is.
pub(super) fn fits10(m: &PipelineMatch, priority: u16) -> bool {
    let mut b = Vec::new();
    if put10(&mut b, m).is_err() {
        return false;
    }
    let mut r = Reader::new(&b, BadMatch::BadLen);
    let exact = wildcards10(&r).is_ok_and(|w| w == 0) && priority != u16::MAX;
    !exact && read10(&mut r).is_ok_and(|back| back == *m)
}

/// Appends OpenFlow 1.0's match: what of `m` it can say.
///
/// # Errors
/// The input port has no number in 16 bits.
pub(super) fn put10(out: &mut Vec<u8>, m: &PipelineMatch) -> Result<(), EncodeError> {
    use FieldId::*;
    let mut wild = 0;
    let mut field = |f: FieldId, bit: u32| {
        let (v, mask) = m.get(f);
        if mask == 0 {
            wild |= bit;
        }
        if mask == 0 { 0 } else { v }
    };
    let in_port = field(InPort, IN_PORT);
    let (src, dst) = (field(EthSrc, DL_SRC10), field(EthDst, DL_DST10));
    let eth_type = field(EthType, DL_TYPE10);
    let proto = field(NwProto, NW_PROTO10);
    let tos = field(IpDscp, NW_TOS10) << 2;
    let (tp_src, tp_dst) = (field(TpSrc, TP_SRC10), field(TpDst, TP_DST10));
    let address = |f: FieldId| {
        let (v, mask) = m.get(f);
        (v as u32, (mask as u32).leading_ones())
    };
    let ((nw_src, src_bits), (nw_dst, dst_bits)) = (address(NwSrc), address(NwDst));
    wild |= (32 - src_bits) << NW_SRC_SHIFT | (32 - dst_bits) << NW_DST_SHIFT;
    let (tci, tci_mask) = m.get(VlanTci);
    let (mut vlan, mut pcp) = (0, 0);
    if tci_mask == 0 {
        wild |= DL_VLAN | DL_VLAN_PCP10;
    } else if tci_mask & PRESENT != 0 && tci & PRESENT == 0 {
        vlan = VLAN_NONE10;
        wild |= DL_VLAN_PCP10;
    } else {
        if tci_mask & 0xfff == 0 {
            wild |= DL_VLAN;
        } else {
            vlan = tci as u16 & 0xfff;
        }
        if tci_mask & 0xe000 == 0 {
            wild |= DL_VLAN_PCP10;
        } else {
            pcp = (tci >> 13) as u8;
        }
    }
    out.put_u32(wild);
    out.put_u16(if wild & IN_PORT == 0 { ports::to16(PortNo(in_port as u32))? } else { 0 });
    out.put_number(src, 6);
    out.put_number(dst, 6);
    out.put_u16(vlan);
    out.put_u8(pcp);
    out.put_u8(0);
    out.put_u16(eth_type as u16);
    out.put_u8(tos as u8);
    out.put_u8(proto as u8);
    out.put_zeros(2);
    out.put_u32(nw_src);
    out.put_u32(nw_dst);
    out.put_u16(tp_src as u16);
    out.put_u16(tp_dst as u16);
    Ok(())
}

/// Reads OpenFlow 1.1's match after its type and length.
pub(super) fn read11(r: &mut Reader<'_>) -> Result<PipelineMatch, ErrorCode> {
    use FieldId::*;
    let mut m = PipelineMatch::ANY;
    let in_port = r.u32()?;
    let wild = r.u32()?;
    let has = |bit: u32| wild & bit == 0;
    if has(IN_PORT) {
        if (0xff00..0xffff_ff00).contains(&in_port) {
            return Err(BadMatch::BadValue.into());
        }
        m.set(InPort, in_port.into());
    }
    for f in [EthSrc, EthDst] {
        let (value, mask) = (r.number(6)?, !r.number(6)? & f.info().max());
        m.set_masked(f, value & mask, mask);
    }
    let (vlan, pcp) = (r.u16()?, r.u8()?);
    r.skip(1)?;
    if has(DL_VLAN) {
        match vlan {
            VLAN_NONE10 => m.set(VlanTci, 0),
            VLAN_ANY11 => m.set_masked(VlanTci, PRESENT, PRESENT),
            v if v > 0xfff => return Err(BadMatch::BadValue.into()),
            v => m.set_masked(VlanTci, PRESENT | u128::from(v), 0x1fff),
        }
        if has(DL_VLAN_PCP11) && vlan != VLAN_NONE10 {
            if pcp > 7 {
                return Err(BadMatch::BadValue.into());
            }
            m.set(VlanPcp, pcp.into());
        }
    }
    let eth_type = r.u16()?;
    if has(DL_TYPE11) {
        m.set(EthType, eth_type.into());
    }
    let is = |types: &[u16]| has(DL_TYPE11) && types.contains(&eth_type);
    // OpenFlow 1.1 knows nothing of IPv6.
    let (ip, arp, mpls) = (is(&[0x0800]), is(&[0x0806, 0x8035]), is(&[0x8847, 0x8848]));
    let (tos, proto) = (r.u8()?, r.u8()?);
    if has(NW_TOS11) && ip {
        if tos & 3 != 0 {
            return Err(BadMatch::BadValue.into());
        }
        m.set(IpDscp, u128::from(tos >> 2));
    }
    if has(NW_PROTO11) && (ip || arp) {
        m.set(NwProto, proto.into());
    }
    for f in [NwSrc, NwDst] {
        let (value, mask) = (u128::from(r.u32()?), u128::from(!r.u32()?));
        if ip || arp {
            m.set_masked(f, value & mask, mask);
        }
    }
    let (src, dst) = (r.u16()?, r.u16()?);
    let named = has(NW_PROTO11) && ip;
    // ICMP types and codes have eight bits.
    let wide = |bit, v: u16| has(bit) && v > 0xff;
    if named && proto == 1 && (wide(TP_SRC11, src) || wide(TP_DST11, dst)) {
        return Err(BadMatch::BadField.into());
    }
    let (src, dst) = (has(TP_SRC11).then_some(src), has(TP_DST11).then_some(dst));
    set_transport(&mut m, named.then_some(proto), false, src, dst);
    let (label, tc) = (r.u32()?, r.u8()?);
    r.skip(3)?;
    if mpls {
        if has(MPLS_LABEL11) {
            m.set(MplsLabel, u128::from(label & 0xf_ffff));
        }
        if has(MPLS_TC11) {
            m.set(MplsTc, u128::from(tc & 7));
        }
    }
    let (value, mask) = (r.u64()?, !r.u64()?);
    m.set_masked(Metadata, (value & mask).into(), mask.into());
    Ok(prereq::normalize(&m).0)
}

/// Whether OpenFlow 1.1's match says all of `m`.
pub(super) fn fits11(m: &PipelineMatch) -> bool {
    let mut b = Vec::new();
    put11(&mut b, m);
    let mut r = Reader::new(b.get(4..).unwrap_or_default(), BadMatch::BadLen);
    read11(&mut r).is_ok_and(|back| back == *m)
}

/// Appends OpenFlow 1.1's match with its type and length: what of `m` it can say.
pub(super) fn put11(out: &mut Vec<u8>, m: &PipelineMatch) {
    use FieldId::*;
    let mut wild = 0;
    let mut field = |f: FieldId, bit: u32| {
        let (v, mask) = m.get(f);
        if mask == 0 {
            wild |= bit;
        }
        if mask == 0 { 0 } else { v }
    };
    let in_port = field(InPort, IN_PORT);
    let eth_type = field(EthType, DL_TYPE11);
    let (tos, proto) = (field(IpDscp, NW_TOS11) << 2, field(NwProto, NW_PROTO11));
    let (tp_src, tp_dst) = (field(TpSrc, TP_SRC11), field(TpDst, TP_DST11));
    let (label, tc) = (field(MplsLabel, MPLS_LABEL11), field(MplsTc, MPLS_TC11));
    let (tci, tci_mask) = m.get(VlanTci);
    let (mut vlan, mut pcp) = (0, 0);
    if tci_mask & PRESENT == 0 {
        wild |= DL_VLAN | DL_VLAN_PCP11;
    } else if tci & PRESENT == 0 {
        vlan = VLAN_NONE10;
        wild |= DL_VLAN_PCP11;
    } else {
        vlan = if tci_mask & 0xfff == 0xfff { tci as u16 & 0xfff } else { VLAN_ANY11 };
        if tci_mask & 0xe000 == 0 {
            wild |= DL_VLAN_PCP11;
        } else {
            pcp = (tci >> 13) as u8;
        }
    }
    debug_assert_eq!(wild & !ALL11, 0);
    out.put_u16(0);
    out.put_u16(BYTES11);
    out.put_u32(in_port as u32);
    out.put_u32(wild);
    for f in [EthSrc, EthDst] {
        let (v, mask) = m.get(f);
        out.put_number(v & mask, 6);
        out.put_number(!mask, 6);
    }
    out.put_u16(vlan);
    out.put_u8(pcp);
    out.put_u8(0);
    out.put_u16(eth_type as u16);
    out.put_u8(tos as u8);
    out.put_u8(proto as u8);
    for f in [NwSrc, NwDst] {
        let (v, mask) = m.get(f);
        out.put_u32((v & mask) as u32);
        out.put_u32(!(mask as u32));
    }
    out.put_u16(tp_src as u16);
    out.put_u16(tp_dst as u16);
    out.put_u32(label as u32);
    out.put_u8(tc as u8);
    out.put_zeros(3);
    let (v, mask) = m.get(Metadata);
    out.put_u64((v & mask) as u64);
    out.put_u64(!(mask as u64));
}
