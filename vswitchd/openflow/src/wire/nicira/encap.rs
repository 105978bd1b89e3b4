//! `encap`: headers that are pushed, with their properties.

use super::super::EncodeError;
use super::super::cursor::{Put, Reader};
use crate::error::{BadAction, ErrorCode, Nicira};
use crate::extension::{Encap, EncapProperty};

/// Packet types that can be pushed: Ethernet, NSH, MPLS of both kinds.
const PUSHED: [u32; 4] = [0, 0x0001_894f, 0x0001_8847, 0x0001_8848];
/// Class of the properties of a network service header.
const CLASS_NSH: u16 = 4;
const MD_TYPE: u8 = 1;
const TLV: u8 = 2;
/// Bytes of a property before its data.
const PROPERTY_HEAD: usize = 4;
const TLV_HEAD: usize = 8;

pub(super) fn read(r: &mut Reader<'_>) -> Result<Encap, ErrorCode> {
    let (header_bytes, packet_type) = (r.u16()?, r.u32()?);
    if !PUSHED.contains(&packet_type) {
        return Err(Nicira::BadHeaderType.into());
    }
    let mut properties = Vec::new();
    while !r.is_empty() {
        let (class, kind, len) = (r.u16()?, r.u8()?, usize::from(r.u8()?));
        let body = len.checked_sub(PROPERTY_HEAD).ok_or(BadAction::BadLen)?;
        let mut p = r.sub(body, Nicira::BadEncapProperty)?;
        r.skip(len.next_multiple_of(8) - len)?;
        properties.push(match (class, kind) {
            (CLASS_NSH, MD_TYPE) => {
                let md = p.u8()?;
                if p.left() > 3 {
                    return Err(Nicira::BadEncapProperty.into());
                }
                EncapProperty::NshMdType(md)
            }
            (CLASS_NSH, TLV) => {
                let (class, kind, n) = (p.u16()?, p.u8()?, usize::from(p.u8()?));
                let data = p.bytes(n)?.to_vec();
                if p.left() != n.next_multiple_of(8) - n {
                    return Err(Nicira::BadEncapProperty.into());
                }
                EncapProperty::NshTlv { class, kind, data }
            }
            _ => return Err(Nicira::UnknownEncapProperty.into()),
        });
    }
    Ok(Encap { packet_type, header_bytes, properties })
}

pub(super) fn put(out: &mut Vec<u8>, e: &Encap) -> Result<(), EncodeError> {
    out.put_u16(e.header_bytes);
    out.put_u32(e.packet_type);
    for p in &e.properties {
        out.put_u16(CLASS_NSH);
        match p {
            EncapProperty::NshMdType(md) => {
                out.put_u8(MD_TYPE);
                out.put_u8(PROPERTY_HEAD as u8 + 1);
                out.put_u8(*md);
                out.put_zeros(3);
            }
            EncapProperty::NshTlv { class, kind, data } => {
                let padded = data.len().next_multiple_of(8);
                out.put_u8(TLV);
                out.put_u8(u8::try_from(TLV_HEAD + padded).map_err(|_| EncodeError::TooLong)?);
                out.put_u16(*class);
                out.put_u8(*kind);
                out.put_u8(data.len() as u8);
                out.extend_from_slice(data);
                out.put_zeros(padded - data.len());
            }
        }
    }
    Ok(())
}
