//! Matches as OXM TLVs (OpenFlow 1.3.5 7.2.3) and NXM TLVs (Nicira's, of which OXM is the successor).
//!
//! Decoding checks, entry by entry and in order, what OpenFlow 1.3.5 7.2.3.6 to 7.2.3.8 ask: known field, length,
//! value, mask, prerequisite before its dependant, no field twice. Encoding keeps account of the mask bits it has
//! written; a bit that no OXM field can carry is an error, never left out.

use flow::tunnel::options;
use flow::{FIELDS, FieldId, Maskable, PipelineMask, PipelineMatch, prereq};

use super::cursor::{Put, Reader};
use super::oxm::{self, OxmHeader};
use super::{EncodeError, match_fixed, ports};
use crate::error::{BadMatch, ErrorCode};
use crate::number::PortNo;
use crate::version::Version;

/// Headers of NXM entries that are no field of ours.
const NXM_IN_PORT: u32 = 0x0000_0002;
const NXM_IP_TOS: u32 = 0x0000_0a01;
/// `OFPMT_OXM`.
const MATCH_TYPE_OXM: u16 = 1;
/// The bit of a VLAN id field that says a tag is there (`OFPVID_PRESENT`, CFI in a key).
const VID_PRESENT: u128 = 0x1000;

/// `NXM_NX_COOKIE`: not of the packet but of the flow.
const NXM_COOKIE: u32 = 0x0001_3c08;
const NXM_COOKIE_MASKED: u32 = 0x0001_3d10;

/// `OFPMT_STANDARD`, and the length of such a match.
const MATCH_TYPE_STANDARD: u16 = 0;
const STANDARD_BYTES: usize = 88;

/// Reads a match structure with its padding. OpenFlow 1.1's fixed one is understood in that version only.
pub(crate) fn read_match(v: Version, r: &mut Reader<'_>) -> Result<PipelineMatch, ErrorCode> {
    let kind = r.u16()?;
    let len = usize::from(r.u16()?);
    if kind == MATCH_TYPE_STANDARD && v == Version::V11 {
        if len != STANDARD_BYTES || r.left() < STANDARD_BYTES - 4 {
            return Err(BadMatch::BadLen.into());
        }
        return match_fixed::read11(r);
    }
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

/// Reads `len` bytes of NXM entries and their padding to 8 bytes; returns the match, and cookie and mask if they are
/// among the entries.
pub(crate) fn read_nxm(r: &mut Reader<'_>, len: usize) -> Result<(PipelineMatch, (u64, u64)), ErrorCode> {
    let mut entries = r.sub(len, BadMatch::BadLen)?;
    r.skip(len.next_multiple_of(8) - len)?;
    let mut cookie = None;
    let m = read_entries(&mut entries, Some(&mut cookie))?;
    Ok((m, cookie.unwrap_or((0, 0))))
}

/// Reads OXM entries to the end of `r`.
pub(crate) fn read_oxms(r: &mut Reader<'_>) -> Result<PipelineMatch, ErrorCode> {
    read_entries(r, None)
}

fn read_entries(
    r: &mut Reader<'_>,
    mut cookie: Option<&mut Option<(u64, u64)>>,
) -> Result<PipelineMatch, ErrorCode> {
    let mut m = PipelineMatch::ANY;
    while !r.is_empty() {
        if let Some(cookie) = cookie.as_deref_mut() {
            let ahead = r.clone().u32()?;
            if ahead == NXM_COOKIE || ahead == NXM_COOKIE_MASKED {
                r.skip(4)?;
                let value = r.u64()?;
                let mask = if ahead == NXM_COOKIE { u64::MAX } else { r.u64()? };
                if value & !mask != 0 {
                    return Err(BadMatch::BadWildcards.into());
                }
                if cookie.replace((value, mask)).is_some() {
                    return Err(BadMatch::DupField.into());
                }
                continue;
            }
        }
        let h = OxmHeader::read(r)?;
        let mut payload = r.sub(usize::from(h.payload_bytes), BadMatch::BadLen)?;
        let w = h.field(BadMatch::BadField)?;
        if let Some(n) = w.field.option() {
            read_option(&mut m, &h, n, payload)?;
            continue;
        }
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
            w.mask_in(if MASKS_BY_VALUE.contains(&w.field) && raw != 0 { mask & raw } else { mask })
        } else {
            oxm::value_bits(w.field)
        };
        // NXM's type of service is only its DSCP, and the other two bits are zero.
        let (field, mask) = match w.field {
            FieldId::NwTos if raw & 3 != 0 => return Err(BadMatch::BadValue.into()),
            f @ FieldId::NwTos => (f, mask & 0xfc),
            f => (f, mask),
        };
        let value = w.value_in(raw).ok_or(BadMatch::BadValue)?;
        let all = if field == FieldId::NwTos { 0xfc } else { info.max() };
        if info.mask == Maskable::Exact && mask != all && mask != 0 {
            return Err(BadMatch::BadMask.into());
        }
        if !prereq::satisfied(&m, w.field) {
            return Err(BadMatch::BadPrereq.into());
        }
        let taken = m.mask().get(field) & if field == FieldId::NwTos { 0xfc } else { u128::MAX };
        if taken != 0 {
            return Err(BadMatch::DupField.into());
        }
        m.set_masked(field, value, mask);
    }
    // These two can take away what an earlier entry needed.
    let takes_away = m.mask().get(FieldId::NwFrag) | m.mask().get(FieldId::PacketType) != 0;
    if takes_away && !prereq::normalize(&m).1.is_empty() {
        return Err(BadMatch::BadPrereq.into());
    }
    Ok(prereq::without_implied_type(m))
}

/// Fields of which Open vSwitch 3.1 sends, as the mask, the value that it was told: `0xf/0x1` is 1 under 0xf. It reads the bits that are
/// set in the value for the mask, and what it was told is matched then; so are they read here.
const MASKS_BY_VALUE: [FieldId; 5] = [
    FieldId::TunErspanVer,
    FieldId::TunErspanDir,
    FieldId::TunErspanHwid,
    FieldId::TunGtpuFlags,
    FieldId::TunGtpuMsgtype,
];

/// Reads what is asked of tunnel option `n`: a value may be shorter than the option, and a mask of zeros asks only that the option be
/// there.
fn read_option(
    m: &mut PipelineMatch,
    h: &OxmHeader,
    n: u8,
    mut payload: Reader<'_>,
) -> Result<(), ErrorCode> {
    if options::is_there(m.mask(), n) {
        return Err(BadMatch::DupField.into());
    }
    let len = usize::from(h.payload_bytes) / if h.has_mask { 2 } else { 1 };
    let value = payload.bytes(len)?;
    let mask = payload.rest();
    if h.has_mask && mask.len() != len {
        return Err(BadMatch::BadLen.into());
    }
    if h.has_mask && value.iter().zip(mask).any(|(v, m)| v & !m != 0) {
        return Err(BadMatch::BadWildcards.into());
    }
    let exact = [0xff; options::MAX_OPTION_BYTES as usize];
    let mask = if h.has_mask { mask } else { &exact };
    // What is beyond the option could match nothing.
    let beyond = len.saturating_sub(usize::from(options::width(n) / 8));
    if value[..beyond].iter().any(|b| *b != 0) || h.has_mask && mask[..beyond].iter().any(|b| *b != 0) {
        return Err(BadMatch::BadValue.into());
    }
    options::require(m, n, value, mask);
    Ok(())
}

/// Appends what is asked of tunnel options.
fn put_options(out: &mut Vec<u8>, v: Version, m: &PipelineMatch) -> Result<(), EncodeError> {
    for o in options::mappings().filter(|o| options::is_there(m.mask(), o.index)) {
        let Some(f) = o.field() else { continue };
        if !options::is_there(m.key(), o.index) {
            // No entry says that an option is not there.
            return Err(EncodeError::Field(f));
        }
        let mask = options::bytes(m.mask(), o.index);
        // Of an option without bytes it is only asked whether it is there, as by a mask of zeros.
        let exact = !mask.is_empty() && mask.iter().all(|b| *b == 0xff);
        oxm::put_header(out, v, f, if exact { 1 } else { 2 }).ok_or(EncodeError::Field(f))?;
        out.extend(options::bytes(m.key(), o.index));
        if !exact {
            out.extend(mask);
        }
    }
    Ok(())
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
        TunErspanIdx,
        TunErspanVer,
        TunErspanDir,
        TunErspanHwid,
        TunGtpuFlags,
        TunGtpuMsgtype,
        TunOptions,
        NshFlags,
        NshTtl,
        NshMdtype,
        NshNp,
        NshSpi,
        NshSi,
        NshC1,
        NshC2,
        NshC3,
        NshC4,
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
pub(crate) fn put_match(out: &mut Vec<u8>, v: Version, m: &PipelineMatch) -> Result<(), EncodeError> {
    if v <= Version::V11 {
        match_fixed::put11(out, m);
        return Ok(());
    }
    let start = out.len();
    out.put_u16(MATCH_TYPE_OXM);
    out.put_u16(0);
    put_oxms(out, v, m)?;
    out.patch_u16(start + 2, out.len() - start);
    out.pad8(start);
    Ok(())
}

/// Appends the NXM entries of a match and of a cookie with its mask, and their padding to 8 bytes; returns their length
/// without it.
pub(crate) fn put_nxm(
    out: &mut Vec<u8>,
    m: &PipelineMatch,
    (cookie, cookie_mask): (u64, u64),
) -> Result<usize, EncodeError> {
    let start = out.len();
    put_oxms(out, Version::V10, m)?;
    if cookie_mask == u64::MAX {
        out.put_u32(NXM_COOKIE);
        out.put_u64(cookie);
    } else if cookie_mask != 0 {
        out.put_u32(NXM_COOKIE_MASKED);
        out.put_u64(cookie & cookie_mask);
        out.put_u64(cookie_mask);
    }
    let len = out.len() - start;
    out.pad8(start);
    Ok(len)
}

/// Appends the entries of a match: OXM, or NXM in OpenFlow 1.0.
pub(crate) fn put_oxms(out: &mut Vec<u8>, v: Version, m: &PipelineMatch) -> Result<(), EncodeError> {
    let mut left: PipelineMask = *m.mask();
    for f in ORDER.iter().copied() {
        if left.is_zero() {
            break;
        }
        let mask = left.get(f);
        let info = f.info();
        match f {
            FieldId::VlanVid if left.get(FieldId::VlanTci) != 0 => {
                put_vlan(out, v, m, &mut left)?;
                continue;
            }
            // NXM has one field for both parts of the type of service.
            FieldId::IpDscp if v < Version::V12 && mask == 0x3f && prereq::satisfied(m, f) => {
                out.put_u32(NXM_IP_TOS);
                out.put_u8((m.get(f).0 << 2) as u8);
                left.set_masked(f, 0, mask);
                continue;
            }
            FieldId::InPort if v < Version::V12 && mask == info.max() => {
                out.put_u32(NXM_IN_PORT);
                out.put_u16(ports::to16(PortNo(m.get(f).0 as u32))?);
                left.set_masked(f, 0, mask);
                continue;
            }
            FieldId::TunOptions if mask != 0 => {
                put_options(out, v, m)?;
                options::clear(&mut left);
                continue;
            }
            _ if mask == 0 => continue,
            // Views share bits: the one whose prerequisite holds is meant.
            _ if !prereq::satisfied(m, f) => continue,
            _ if info.mask == Maskable::Exact && mask != info.max() => continue,
            _ => {}
        }
        put_entry(out, v, f, m.get(f).0, mask)?;
        left.set_masked(f, 0, mask);
    }
    match FIELDS.iter().find(|f| f.id.is_canonical() && left.get(f.id) != 0) {
        Some(f) => Err(EncodeError::Field(f.id)),
        None => Ok(()),
    }
}

/// Appends one entry, with a mask unless the mask is all ones.
fn put_entry(out: &mut Vec<u8>, v: Version, f: FieldId, value: u128, mask: u128) -> Result<(), EncodeError> {
    let exact = mask == oxm::value_bits(f);
    let bytes = oxm::put_header(out, v, f, if exact { 1 } else { 2 }).ok_or(EncodeError::Field(f))?;
    out.put_number(value, bytes);
    if !exact {
        out.put_number(mask, bytes);
    }
    Ok(())
}

/// Appends `vlan_vid` and `vlan_pcp`, or the Nicira `vlan_tci` where those cannot say it.
fn put_vlan(
    out: &mut Vec<u8>,
    v: Version,
    m: &PipelineMatch,
    left: &mut PipelineMask,
) -> Result<(), EncodeError> {
    let (tci, mask) = m.get(FieldId::VlanTci);
    let (vid_mask, pcp_mask) = (mask & 0x1fff, mask >> 13);
    left.set(FieldId::VlanTci, 0);
    let untagged = mask & VID_PRESENT != 0 && tci & VID_PRESENT == 0;
    if v >= Version::V12 && (pcp_mask == 0 || untagged && tci == 0) {
        // Without a tag the priority is zero anyway.
        return put_entry(out, v, FieldId::VlanVid, tci & 0x1fff, vid_mask);
    }
    if v >= Version::V12 && pcp_mask == 7 && tci & VID_PRESENT != 0 {
        put_entry(out, v, FieldId::VlanVid, tci & 0x1fff, vid_mask)?;
        return put_entry(out, v, FieldId::VlanPcp, tci >> 13, 7);
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
