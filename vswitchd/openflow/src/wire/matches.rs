//! Matches as OXM TLVs (OpenFlow 1.3.5 7.2.3).
//!
//! Decoding checks, entry by entry and in order, what OpenFlow 1.3.5 7.2.3.6 to 7.2.3.8 ask: known field, length,
//! value, mask, prerequisite before its dependant, no field twice. Encoding keeps account of the mask bits it has
//! written; a bit that no OXM field can carry is an error, never left out.

use flow::{FIELDS, FieldId, Maskable, PipelineMask, PipelineMatch, prereq};

use super::EncodeError;
use super::cursor::{Put, Reader};
use super::oxm::{self, OxmHeader};
use crate::error::{BadMatch, ErrorCode};

/// `OFPMT_OXM`.
const MATCH_TYPE_OXM: u16 = 1;
/// The bit of a VLAN id field that says a tag is there (`OFPVID_PRESENT`, CFI in a key).
const VID_PRESENT: u128 = 0x1000;

/// Reads a match structure with its padding.
pub(crate) fn read_match(r: &mut Reader<'_>) -> Result<PipelineMatch, ErrorCode> {
    let kind = r.u16()?;
    let len = usize::from(r.u16()?);
    if kind != MATCH_TYPE_OXM {
        return Err(BadMatch::BadType.into());
    }
    let fields = len.checked_sub(4).ok_or(BadMatch::BadLen)?;
    if len.next_multiple_of(8) - 4 > r.left() {
        return Err(BadMatch::BadLen.into());
    }
    let mut tlvs = r.sub(fields, BadMatch::BadLen)?;
    r.skip(len.next_multiple_of(8) - len)?;
    read_oxms(&mut tlvs)
}

/// Reads OXM entries to the end of `r`.
pub(crate) fn read_oxms(r: &mut Reader<'_>) -> Result<PipelineMatch, ErrorCode> {
    let mut m = PipelineMatch::ANY;
    while !r.is_empty() {
        let h = OxmHeader::read(r)?;
        let mut payload = r.sub(usize::from(h.payload_bytes), BadMatch::BadLen)?;
        let w = h.resolve().ok_or(BadMatch::BadField)?;
        let values = if h.has_mask { 2 } else { 1 };
        if usize::from(h.payload_bytes) != w.bytes * values {
            return Err(BadMatch::BadLen.into());
        }
        let info = w.field.info();
        let raw = payload.number(w.bytes)?;
        let mask = if h.has_mask {
            let mask = payload.number(w.bytes)?;
            if raw & !mask != 0 {
                return Err(BadMatch::BadWildcards.into());
            }
            w.mask_in(mask)
        } else {
            oxm::value_bits(w.field)
        };
        let value = w.value_in(raw).ok_or(BadMatch::BadValue)?;
        if info.mask == Maskable::Exact && mask != info.max() && mask != 0 {
            return Err(BadMatch::BadMask.into());
        }
        if !prereq::satisfied(&m, w.field) {
            return Err(BadMatch::BadPrereq.into());
        }
        if m.mask().get(w.field) != 0 {
            return Err(BadMatch::DupField.into());
        }
        m.set_masked(w.field, value, mask);
    }
    // These two can take away what an earlier entry needed.
    let takes_away = m.mask().get(FieldId::NwFrag) | m.mask().get(FieldId::PacketType) != 0;
    if takes_away && !prereq::normalize(&m).1.is_empty() {
        return Err(BadMatch::BadPrereq.into());
    }
    Ok(m)
}

/// Order of entries: prerequisites first, as stock switches send them.
const ORDER: &[FieldId] = {
    use FieldId::*;
    &[
        PacketType,
        DpHash,
        RecircId,
        ConjId,
        InPort,
        ActsetOutput,
        EthSrc,
        EthDst,
        EthType,
        VlanVid,
        MplsTc,
        MplsBos,
        MplsTtl,
        MplsLabel,
        ArpOp,
        ArpSpa,
        ArpTpa,
        ArpSha,
        ArpTha,
        NwSrc,
        NwDst,
        Ipv6Src,
        Ipv6Dst,
        NwFrag,
        IpDscp,
        IpEcn,
        NwTtl,
        NwProto,
        TcpSrc,
        TcpDst,
        TcpFlags,
        UdpSrc,
        UdpDst,
        SctpSrc,
        SctpDst,
        Icmp4Type,
        Icmp4Code,
        Icmp6Type,
        Icmp6Code,
        Ipv6Label,
        NdTarget,
        NdSll,
        NdTll,
        TunId,
        TunSrc,
        TunDst,
        TunFlags,
        TunIpv6Src,
        TunIpv6Dst,
        TunGbpId,
        TunGbpFlags,
        Reg0,
        Reg1,
        Reg2,
        Reg3,
        Reg4,
        Reg5,
        Reg6,
        Reg7,
        Reg8,
        Reg9,
        Reg10,
        Reg11,
        Reg12,
        Reg13,
        Reg14,
        Reg15,
        PktMark,
        CtState,
        CtZone,
        CtMark,
        CtLabel,
        CtNwProto,
        CtNwSrc,
        CtNwDst,
        CtIpv6Src,
        CtIpv6Dst,
        CtTpSrc,
        CtTpDst,
        Metadata,
    ]
};

/// Appends a match structure with its padding.
pub(crate) fn put_match(out: &mut Vec<u8>, m: &PipelineMatch) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(MATCH_TYPE_OXM);
    out.put_u16(0);
    put_oxms(out, m)?;
    out.patch_u16(start + 2, out.len() - start);
    out.pad8(start);
    Ok(())
}

/// Appends the OXM entries of a match.
pub(crate) fn put_oxms(out: &mut Vec<u8>, m: &PipelineMatch) -> Result<(), EncodeError> {
    let mut left: PipelineMask = *m.mask();
    for f in ORDER.iter().copied() {
        if left.is_zero() {
            break;
        }
        let mask = left.get(f);
        let info = f.info();
        match f {
            FieldId::VlanVid if left.get(FieldId::VlanTci) != 0 => {
                put_vlan(out, m, &mut left)?;
                continue;
            }
            _ if mask == 0 => continue,
            // Views share bits: the one whose prerequisite holds is meant.
            _ if !prereq::satisfied(m, f) => continue,
            _ if info.mask == Maskable::Exact && mask != info.max() => continue,
            _ => {}
        }
        put_entry(out, f, m.get(f).0, mask)?;
        left.set_masked(f, 0, mask);
    }
    match FIELDS.iter().find(|f| f.id.is_canonical() && left.get(f.id) != 0) {
        Some(f) => Err(EncodeError::Field(f.id)),
        None => Ok(()),
    }
}

/// Appends one entry, with a mask unless the mask is all ones.
fn put_entry(out: &mut Vec<u8>, f: FieldId, value: u128, mask: u128) -> Result<(), EncodeError> {
    let exact = mask == oxm::value_bits(f);
    let bytes = oxm::put_header(out, f, if exact { 1 } else { 2 }).ok_or(EncodeError::Field(f))?;
    out.put_number(value, bytes);
    if !exact {
        out.put_number(mask, bytes);
    }
    Ok(())
}

/// Appends `vlan_vid` and `vlan_pcp`, or the Nicira `vlan_tci` where those cannot say it.
fn put_vlan(out: &mut Vec<u8>, m: &PipelineMatch, left: &mut PipelineMask) -> Result<(), EncodeError> {
    let (tci, mask) = m.get(FieldId::VlanTci);
    let (vid_mask, pcp_mask) = (mask & 0x1fff, mask >> 13);
    left.set(FieldId::VlanTci, 0);
    let untagged = mask & VID_PRESENT != 0 && tci & VID_PRESENT == 0;
    if pcp_mask == 0 || untagged && tci == 0 {
        // Without a tag the priority is zero anyway.
        return put_entry(out, FieldId::VlanVid, tci & 0x1fff, vid_mask);
    }
    if pcp_mask == 7 && tci & VID_PRESENT != 0 {
        put_entry(out, FieldId::VlanVid, tci & 0x1fff, vid_mask)?;
        return put_entry(out, FieldId::VlanPcp, tci >> 13, 7);
    }
    // NXM_OF_VLAN_TCI: class 0, field 4, with mask, two bytes each.
    let exact = mask == 0xffff;
    out.put_u32(4 << 9 | if exact { 2 } else { 0x104 });
    out.put_u16(tci as u16);
    if !exact {
        out.put_u16(mask as u16);
    }
    Ok(())
}
