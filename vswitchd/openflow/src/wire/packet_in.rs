//! Packet-in in every version (OpenFlow 1.0.1 5.4.1, OpenFlow 1.3.5 7.4.1) and in Nicira's two forms; and Nicira's
//! resume, which is the second of them on its way back.

use flow::{FieldId, PipelineMatch};

use super::cursor::{Put, Reader};
use super::matches::{put_match, put_nxm, put_oxms, read_match, read_nxm, read_oxms};
use super::messages::{buffer, put_buffer, put_cut};
use super::{EncodeError, MAX_MESSAGE_BYTES, continuation, ports, properties};
use crate::error::{BadRequest, ErrorCode};
use crate::message::{PacketIn, PacketInReason};
use crate::number::{PortNo, TableId};
use crate::version::Version;

// Properties of Nicira's second form.
const PACKET: u16 = 0;
const FULL_LEN: u16 = 1;
const BUFFER: u16 = 2;
const TABLE: u16 = 3;
const COOKIE: u16 = 4;
const REASON: u16 = 5;
const METADATA: u16 = 6;
const USERDATA: u16 = 7;
const CONTINUATION: u16 = 8;

/// No flow, so no cookie.
const NO_COOKIE: u64 = u64::MAX;

fn reason(v: u8) -> Result<PacketInReason, ErrorCode> {
    PacketInReason::ALL.get(usize::from(v)).copied().ok_or(BadRequest::BadType.into())
}

fn in_port(port: PortNo) -> PipelineMatch {
    let mut m = PipelineMatch::ANY;
    m.set(FieldId::InPort, port.0.into());
    m
}

/// A packet-in of which nothing has been read yet.
fn blank() -> PacketIn {
    PacketIn {
        buffer: None,
        total_len: 0,
        reason: PacketInReason::NoMatch,
        table: TableId(0),
        cookie: NO_COOKIE,
        matches: PipelineMatch::ANY,
        data: Vec::new(),
        controller_id: 0,
        userdata: Vec::new(),
        continuation: None,
    }
}

pub(super) fn read(v: Version, r: &mut Reader<'_>) -> Result<PacketIn, ErrorCode> {
    let mut p = PacketIn { buffer: buffer(r.u32()?), ..blank() };
    match v {
        Version::V10 => {
            p.total_len = r.u16()?;
            p.matches = in_port(ports::from16(r.u16()?));
            p.reason = reason(r.u8()?)?;
            r.skip(1)?;
        }
        Version::V11 => {
            p.matches = in_port(PortNo(r.u32()?));
            r.skip(4)?;
            p.total_len = r.u16()?;
            p.reason = reason(r.u8()?)?;
            p.table = TableId(r.u8()?);
        }
        _ => {
            p.total_len = r.u16()?;
            p.reason = reason(r.u8()?)?;
            p.table = TableId(r.u8()?);
            if v >= Version::V13 {
                p.cookie = r.u64()?;
            }
            p.matches = read_match(v, r)?;
            r.skip(2)?;
        }
    }
    p.data = r.rest().to_vec();
    Ok(p)
}

/// Appends the body of the message that began at `start`.
pub(super) fn put(out: &mut Vec<u8>, v: Version, p: &PacketIn, start: usize) -> Result<(), EncodeError> {
    let reason = p.reason.number(v);
    let port = PortNo(p.matches.get(FieldId::InPort).0 as u32);
    put_buffer(out, p.buffer);
    match v {
        Version::V10 => {
            out.put_u16(p.total_len);
            out.put_u16(ports::to16(port)?);
            out.put_u8(reason);
            out.put_u8(0);
        }
        Version::V11 => {
            out.put_u32(port.0);
            out.put_u32(port.0);
            out.put_u16(p.total_len);
            out.put_u8(reason);
            out.put_u8(p.table.0);
        }
        _ => {
            out.put_u16(p.total_len);
            out.put_u8(reason);
            out.put_u8(p.table.0);
            if v >= Version::V13 {
                out.put_u64(p.cookie);
            }
            put_match(out, v, &p.matches)?;
            out.put_zeros(2);
        }
    }
    put_cut(out, &p.data, MAX_MESSAGE_BYTES.saturating_sub(out.len() - start));
    Ok(())
}

/// Reads Nicira's first form.
pub(super) fn read_nxt(r: &mut Reader<'_>) -> Result<PacketIn, ErrorCode> {
    let buffer = buffer(r.u32()?);
    let total_len = r.u16()?;
    let reason = reason(r.u8()?)?;
    let table = TableId(r.u8()?);
    let cookie = r.u64()?;
    let len = usize::from(r.u16()?);
    r.skip(6)?;
    let (matches, _) = read_nxm(r, len)?;
    r.skip(2)?;
    let data = r.rest().to_vec();
    Ok(PacketIn { buffer, total_len, reason, table, cookie, matches, data, ..blank() })
}

/// Appends Nicira's first form.
pub(super) fn put_nxt(out: &mut Vec<u8>, v: Version, p: &PacketIn, start: usize) -> Result<(), EncodeError> {
    put_buffer(out, p.buffer);
    out.put_u16(p.total_len);
    out.put_u8(p.reason.number(v));
    out.put_u8(p.table.0);
    out.put_u64(p.cookie);
    let len_at = out.len();
    out.put_u16(0);
    out.put_zeros(6);
    let len = put_nxm(out, &p.matches, (0, 0))?;
    out.patch_u16(len_at, len);
    out.put_zeros(2);
    put_cut(out, &p.data, MAX_MESSAGE_BYTES.saturating_sub(out.len() - start));
    Ok(())
}

/// Reads Nicira's second form, or a resume.
pub(super) fn read_nxt2(v: Version, r: &mut Reader<'_>) -> Result<PacketIn, ErrorCode> {
    let mut p = blank();
    let mut full_len = None;
    while let Some((kind, mut value)) = properties::next(r)? {
        match kind {
            PACKET => p.data = value.rest().to_vec(),
            FULL_LEN => full_len = Some(properties::only_u32(value)?),
            BUFFER => p.buffer = buffer(properties::only_u32(value)?),
            TABLE => p.table = TableId(value.u8()?),
            COOKIE => p.cookie = properties::only_u64(value)?,
            REASON => p.reason = reason(value.u8()?)?,
            METADATA => p.matches = read_oxms(&mut value)?,
            USERDATA => p.userdata = value.rest().to_vec(),
            CONTINUATION => {
                value.skip(4)?;
                p.continuation = Some(Box::new(continuation::read(v, &mut value)?));
            }
            kind => return Err(properties::unknown(kind)),
        }
    }
    let len = p.data.len();
    if full_len.is_some_and(|f| (f as usize) < len) {
        return Err(BadRequest::BadLen.into());
    }
    p.total_len = full_len.map_or(len as u16, |f| u16::try_from(f).unwrap_or(u16::MAX));
    Ok(p)
}

/// Appends Nicira's second form, or a resume.
pub(super) fn put_nxt2(out: &mut Vec<u8>, v: Version, p: &PacketIn, start: usize) -> Result<(), EncodeError> {
    // Everything else goes first into a buffer of its own: the packet is cut to what it leaves.
    let mut rest = Vec::new();
    if let Some(b) = p.buffer {
        properties::put_plain(&mut rest, BUFFER, |out| out.put_u32(b.0));
    }
    // Values of 8 bits take four bytes, as those of 16 bits do.
    let byte = |out: &mut Vec<u8>, kind: u16, v: u8| {
        properties::put_plain(out, kind, |out| out.put_u32(u32::from(v) << 24));
    };
    byte(&mut rest, TABLE, p.table.0);
    if p.cookie != NO_COOKIE {
        properties::put_plain(&mut rest, COOKIE, |out| {
            out.put_zeros(4);
            out.put_u64(p.cookie);
        });
    }
    byte(&mut rest, REASON, p.reason.number(v));
    properties::put(&mut rest, METADATA, |out| put_oxms(out, v, &p.matches))?;
    if !p.userdata.is_empty() {
        properties::put_plain(&mut rest, USERDATA, |out| out.extend_from_slice(&p.userdata));
    }
    if let Some(c) = &p.continuation {
        properties::put(&mut rest, CONTINUATION, |out| {
            out.put_zeros(4);
            continuation::put(out, v, c)
        })?;
    }
    // Header and padding of the packet's property, and a full length, may come on top.
    let room = MAX_MESSAGE_BYTES.saturating_sub(out.len() - start + rest.len() + 24);
    let data = &p.data[..p.data.len().min(room)];
    properties::put_plain(out, PACKET, |out| out.extend_from_slice(data));
    if data.len() != usize::from(p.total_len) {
        properties::put_plain(out, FULL_LEN, |out| out.put_u32(p.total_len.into()));
    }
    out.extend_from_slice(&rest);
    Ok(())
}
