//! Flow and aggregate statistics in every version (OpenFlow 1.0.1 5.3.5, OpenFlow 1.3.5 7.3.5.2, OpenFlow 1.5.1 7.3.5.2)
//! and in Nicira's form.
//!
//! OpenFlow 1.5 has counters as a list of entries like a match's ("OXS").

use super::actions::{Known, read_actions};
use super::cursor::{Put, Reader};
use super::instructions::{self, put_instructions, read_instructions};
use super::match_fixed;
use super::matches::{put_match, put_nxm, read_match, read_nxm};
use super::{EncodeError, ports};
use crate::error::{BadAction, BadInstruction, BadRequest, ErrorCode};
use crate::flow_mod::FlowModFlags;
use crate::multipart::{AggregateStats, FlowStats, FlowStatsRequest};
use crate::number::{GroupId, PortNo, TableId};
use crate::version::Version;

/// `OFPXST_*` of class 0x8002.
const OXS_CLASS: u16 = 0x8002;
const OXS_DURATION: u8 = 0;
const OXS_IDLE: u8 = 1;
const OXS_FLOWS: u8 = 3;
const OXS_PACKETS: u8 = 4;
const OXS_BYTES: u8 = 5;

/// Counters of OpenFlow 1.5.
pub(super) struct Oxs {
    pub(super) duration: (u32, u32),
    pub(super) idle: Option<u32>,
    pub(super) flows: u32,
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

/// Reads a list of counters with its padding. Those we do not know are passed over.
pub(super) fn read_oxs(r: &mut Reader<'_>) -> Result<Oxs, ErrorCode> {
    r.skip(2)?;
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(4).ok_or(r.short())?, r.short())?;
    r.skip(len.next_multiple_of(8) - len)?;
    let mut s = Oxs { duration: (0, 0), idle: None, flows: 0, packets: u64::MAX, bytes: u64::MAX };
    while !e.is_empty() {
        let (class, field, len) = (e.u16()?, e.u8()? >> 1, usize::from(e.u8()?));
        let mut value = e.sub(len, BadRequest::BadLen)?;
        if class != OXS_CLASS {
            continue;
        }
        match field {
            OXS_DURATION => s.duration = (value.u32()?, value.u32()?),
            OXS_IDLE => s.idle = Some(value.u32()?),
            OXS_FLOWS => s.flows = value.u32()?,
            OXS_PACKETS => s.packets = value.u64()?,
            OXS_BYTES => s.bytes = value.u64()?,
            _ => {}
        }
    }
    Ok(s)
}

fn put_oxs_header(out: &mut Vec<u8>, field: u8, len: u8) {
    out.put_u16(OXS_CLASS);
    out.put_u8(field << 1);
    out.put_u8(len);
}

/// Appends a flow's counters; those that are not known (all ones) are left out.
pub(super) fn put_oxs(out: &mut Vec<u8>, duration: (u32, u32), idle: Option<u32>, packets: u64, bytes: u64) {
    let start = out.len();
    out.put_u32(0);
    put_oxs_header(out, OXS_DURATION, 8);
    out.put_u32(duration.0);
    out.put_u32(duration.1);
    if let Some(idle) = idle {
        // Seconds, and nanoseconds beyond them.
        put_oxs_header(out, OXS_IDLE, 8);
        out.put_u32(idle);
        out.put_u32(0);
    }
    for (field, v) in [(OXS_PACKETS, packets), (OXS_BYTES, bytes)] {
        if v != u64::MAX {
            put_oxs_header(out, field, 8);
            out.put_u64(v);
        }
    }
    out.patch_u16(start + 2, out.len() - start);
    out.pad8(start);
}

pub(super) fn read_request(v: Version, r: &mut Reader<'_>) -> Result<FlowStatsRequest, ErrorCode> {
    if v == Version::V10 {
        let matches = match_fixed::read10(r)?;
        let table = TableId(r.u8()?);
        r.skip(1)?;
        return Ok(FlowStatsRequest {
            table,
            out_port: ports::from16(r.u16()?),
            matches,
            ..FlowStatsRequest::ALL
        });
    }
    let table = TableId(r.u8()?);
    r.skip(3)?;
    let (out_port, out_group) = (PortNo(r.u32()?), GroupId(r.u32()?));
    r.skip(4)?;
    let (cookie, cookie_mask) = (r.u64()?, r.u64()?);
    let matches = read_match(v, r)?;
    Ok(FlowStatsRequest { table, out_port, out_group, cookie, cookie_mask, matches, nicira: false })
}

/// Reads a request in Nicira's form.
pub(super) fn read_nx_request(r: &mut Reader<'_>) -> Result<FlowStatsRequest, ErrorCode> {
    let (out_port, len, table) = (ports::from16(r.u16()?), usize::from(r.u16()?), TableId(r.u8()?));
    r.skip(3)?;
    let (matches, (cookie, cookie_mask)) = read_nxm(r, len)?;
    let out_group = GroupId::ANY;
    Ok(FlowStatsRequest { table, out_port, out_group, cookie, cookie_mask, matches, nicira: true })
}

pub(super) fn put_request(out: &mut Vec<u8>, v: Version, f: &FlowStatsRequest) -> Result<(), EncodeError> {
    if v == Version::V10 {
        match_fixed::put10(out, &f.matches)?;
        out.put_u8(f.table.0);
        out.put_u8(0);
        out.put_u16(ports::to16(f.out_port)?);
        return Ok(());
    }
    out.put_u8(f.table.0);
    out.put_zeros(3);
    out.put_u32(f.out_port.0);
    out.put_u32(f.out_group.0);
    out.put_zeros(4);
    out.put_u64(f.cookie);
    out.put_u64(f.cookie_mask);
    put_match(out, v, &f.matches)
}

/// Appends a request in Nicira's form.
pub(super) fn put_nx_request(out: &mut Vec<u8>, f: &FlowStatsRequest) -> Result<(), EncodeError> {
    out.put_u16(ports::to16(f.out_port)?);
    let len_at = out.len();
    out.put_u16(0);
    out.put_u8(f.table.0);
    out.put_zeros(3);
    let len = put_nxm(out, &f.matches, (f.cookie, f.cookie_mask))?;
    out.patch_u16(len_at, len);
    Ok(())
}

/// An entry of a reply without its length.
fn entry<'a>(r: &mut Reader<'a>) -> Result<Reader<'a>, ErrorCode> {
    let len = usize::from(r.u16()?);
    r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())
}

fn read_action_list(v: Version, e: &mut Reader<'_>) -> Result<crate::flow_mod::Instructions, ErrorCode> {
    instructions::from_action_list(read_actions(v, &mut Reader::new(e.rest(), BadAction::BadLen))?)
}

pub(super) fn read(v: Version, r: &mut Reader<'_>) -> Result<FlowStats, ErrorCode> {
    let mut e = entry(r)?;
    if v == Version::V15 {
        return read15(&mut e);
    }
    let table = TableId(e.u8()?);
    e.skip(1)?;
    let fixed = if v == Version::V10 { Some(match_fixed::read10(&mut e)?) } else { None };
    let (duration_sec, duration_nsec) = (e.u32()?, e.u32()?);
    let (priority, idle_timeout, hard_timeout) = (e.u16()?, e.u16()?, e.u16()?);
    let (flags, importance) = if v == Version::V10 { (0, 0) } else { (e.u16()?, e.u16()?) };
    e.skip(if v == Version::V10 { 6 } else { 2 })?;
    let (cookie, packets, bytes) = (e.u64()?, e.u64()?, e.u64()?);
    let (matches, instructions) = match fixed {
        Some(m) => (m, read_action_list(v, &mut e)?),
        None => {
            let m = read_match(v, &mut e)?;
            (m, read_instructions(v, &mut Reader::new(e.rest(), BadInstruction::BadLen))?)
        }
    };
    Ok(FlowStats {
        table,
        duration_sec,
        duration_nsec,
        priority,
        idle_timeout,
        hard_timeout,
        flags: FlowModFlags(if v >= Version::V13 { flags } else { 0 }),
        importance: if v >= Version::V14 { importance } else { 0 },
        idle_age: None,
        hard_age: None,
        cookie,
        packets,
        bytes,
        matches,
        instructions,
    })
}

fn read15(e: &mut Reader<'_>) -> Result<FlowStats, ErrorCode> {
    e.skip(2)?;
    let table = TableId(e.u8()?);
    e.skip(1)?;
    let (priority, idle_timeout, hard_timeout) = (e.u16()?, e.u16()?, e.u16()?);
    let (flags, importance, cookie) = (FlowModFlags(e.u16()?), e.u16()?, e.u64()?);
    let matches = read_match(Version::V15, e)?;
    let s = read_oxs(e)?;
    let instructions = read_instructions(Version::V15, &mut Reader::new(e.rest(), BadInstruction::BadLen))?;
    Ok(FlowStats {
        table,
        duration_sec: s.duration.0,
        duration_nsec: s.duration.1,
        priority,
        idle_timeout,
        hard_timeout,
        flags,
        importance,
        idle_age: s.idle,
        hard_age: None,
        cookie,
        packets: s.packets,
        bytes: s.bytes,
        matches,
        instructions,
    })
}

/// Seconds since something in 16 bits, one more so that zero is unknown.
fn age(seconds: u16) -> Option<u32> {
    seconds.checked_sub(1).map(u32::from)
}

fn age_to_wire(age: Option<u32>) -> u16 {
    age.map_or(0, |s| u16::try_from(s.saturating_add(1)).unwrap_or(u16::MAX))
}

/// Reads a flow in Nicira's form.
pub(super) fn read_nx(r: &mut Reader<'_>) -> Result<FlowStats, ErrorCode> {
    let mut e = entry(r)?;
    let table = TableId(e.u8()?);
    e.skip(1)?;
    let (duration_sec, duration_nsec) = (e.u32()?, e.u32()?);
    let (priority, idle_timeout, hard_timeout) = (e.u16()?, e.u16()?, e.u16()?);
    let len = usize::from(e.u16()?);
    let (idle_age, hard_age) = (age(e.u16()?), age(e.u16()?));
    let (cookie, packets, bytes) = (e.u64()?, e.u64()?, e.u64()?);
    let (matches, _) = read_nxm(&mut e, len)?;
    Ok(FlowStats {
        table,
        duration_sec,
        duration_nsec,
        priority,
        idle_timeout,
        hard_timeout,
        flags: FlowModFlags::NONE,
        importance: 0,
        idle_age,
        hard_age,
        cookie,
        packets,
        bytes,
        matches,
        instructions: read_action_list(Version::V10, &mut e)?,
    })
}

/// Appends a flow. Matches of OpenFlow 1.0 and 1.1 say what they can.
pub(super) fn put(out: &mut Vec<u8>, v: Version, f: &FlowStats) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(0);
    if v == Version::V15 {
        out.put_zeros(2);
        out.put_u8(f.table.0);
        out.put_u8(0);
        for n in [f.priority, f.idle_timeout, f.hard_timeout, f.flags.0, f.importance] {
            out.put_u16(n);
        }
        out.put_u64(f.cookie);
        put_match(out, v, &f.matches)?;
        put_oxs(out, (f.duration_sec, f.duration_nsec), f.idle_age, f.packets, f.bytes);
        put_instructions(out, v, &f.instructions, Known::of(&f.matches))?;
    } else {
        out.put_u8(f.table.0);
        out.put_u8(0);
        if v == Version::V10 {
            match_fixed::put10(out, &f.matches)?;
        }
        out.put_u32(f.duration_sec);
        out.put_u32(f.duration_nsec);
        out.put_u16(f.priority);
        out.put_u16(f.idle_timeout);
        out.put_u16(f.hard_timeout);
        if v == Version::V10 {
            out.put_zeros(6);
        } else {
            out.put_u16(if v >= Version::V13 { f.flags.0 } else { 0 });
            out.put_u16(if v >= Version::V14 { f.importance } else { 0 });
            out.put_zeros(2);
        }
        out.put_u64(f.cookie);
        out.put_u64(f.packets);
        out.put_u64(f.bytes);
        if v == Version::V10 {
            instructions::put_as_action_list(out, v, &f.instructions)?;
        } else {
            put_match(out, v, &f.matches)?;
            put_instructions(out, v, &f.instructions, Known::of(&f.matches))?;
        }
    }
    let len = out.len() - start;
    out.patch_u16(start, len);
    Ok(())
}

/// Appends a flow in Nicira's form.
pub(super) fn put_nx(out: &mut Vec<u8>, f: &FlowStats) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(f.table.0);
    out.put_u8(0);
    out.put_u32(f.duration_sec);
    out.put_u32(f.duration_nsec);
    out.put_u16(f.priority);
    out.put_u16(f.idle_timeout);
    out.put_u16(f.hard_timeout);
    let len_at = out.len();
    out.put_u16(0);
    out.put_u16(age_to_wire(f.idle_age));
    out.put_u16(age_to_wire(f.hard_age));
    out.put_u64(f.cookie);
    out.put_u64(f.packets);
    out.put_u64(f.bytes);
    let len = put_nxm(out, &f.matches, (0, 0))?;
    out.patch_u16(len_at, len);
    instructions::put_as_action_list(out, Version::V10, &f.instructions)?;
    let len = out.len() - start;
    out.patch_u16(start, len);
    Ok(())
}

pub(super) fn read_aggregate(v: Version, r: &mut Reader<'_>) -> Result<AggregateStats, ErrorCode> {
    if v == Version::V15 {
        let s = read_oxs(r)?;
        return Ok(AggregateStats { packets: s.packets, bytes: s.bytes, flows: s.flows });
    }
    let a = AggregateStats { packets: r.u64()?, bytes: r.u64()?, flows: r.u32()? };
    r.skip(4)?;
    Ok(a)
}

pub(super) fn put_aggregate(out: &mut Vec<u8>, v: Version, a: &AggregateStats) {
    if v == Version::V15 {
        let start = out.len();
        out.put_u32(0);
        put_oxs_header(out, OXS_FLOWS, 4);
        out.put_u32(a.flows);
        for (field, n) in [(OXS_PACKETS, a.packets), (OXS_BYTES, a.bytes)] {
            if n != u64::MAX {
                put_oxs_header(out, field, 8);
                out.put_u64(n);
            }
        }
        out.patch_u16(start + 2, out.len() - start);
        out.pad8(start);
        return;
    }
    out.put_u64(a.packets);
    out.put_u64(a.bytes);
    out.put_u32(a.flows);
    out.put_zeros(4);
}
