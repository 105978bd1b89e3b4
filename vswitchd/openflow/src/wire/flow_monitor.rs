//! Flow monitors on the wire: Nicira's form (OpenFlow 1.0 to 1.2), ONF's and OpenFlow 1.4's (OpenFlow 1.4.0 7.3.5.17).

use super::actions::{Known, read_actions};
use super::cursor::{Put, Reader};
use super::flow_messages::reason;
use super::instructions::{self, put_instructions, read_instructions};
use super::matches::{put_match, put_nxm, read_match, read_nxm};
use super::{EncodeError, ports};
use crate::error::{BadAction, BadInstruction, ErrorCode, FlowMonitorFailed, Nicira};
use crate::flow_monitor::{FlowChange, FlowEvent, FlowUpdate, MonitorCommand, MonitorFlags, MonitorRequest};
use crate::number::{GroupId, PortNo, TableId};
use crate::version::Version;

/// What may be asked for in Nicira's and ONF's form, and in OpenFlow 1.4's.
const FLAGS_NX: u16 = MonitorFlags::KNOWN.0 & !MonitorFlags::ONLY_OWN.0;
const FLAGS_14: u16 = MonitorFlags::KNOWN.0;
const CHANGES: u16 = MonitorFlags::ADD.0 | MonitorFlags::REMOVED.0 | MonitorFlags::MODIFY.0;

// Events of OpenFlow 1.4; Nicira's begin at `ADDED` with 0.
const INITIAL: u16 = 0;
const ADDED: u16 = 1;
const REMOVED: u16 = 2;
const MODIFIED: u16 = 3;
const ABBREVIATED: u16 = 4;
const PAUSED: u16 = 5;
const RESUMED: u16 = 6;

fn flags(raw: u16, known: u16) -> Result<MonitorFlags, ErrorCode> {
    if raw & CHANGES == 0 || raw & !known != 0 {
        return Err(FlowMonitorFailed::BadFlags.into());
    }
    Ok(MonitorFlags(raw))
}

fn zeros(r: &mut Reader<'_>, n: usize) -> Result<(), ErrorCode> {
    if r.bytes(n)?.iter().any(|b| *b != 0) { Err(Nicira::MustBeZero.into()) } else { Ok(()) }
}

pub(super) fn read_request(v: Version, r: &mut Reader<'_>) -> Result<MonitorRequest, ErrorCode> {
    let id = r.u32()?;
    let mut m = MonitorRequest {
        id,
        command: MonitorCommand::Add,
        flags: MonitorFlags::NONE,
        out_port: PortNo::ANY,
        out_group: GroupId::ANY,
        table: TableId::ALL,
        matches: flow::PipelineMatch::ANY,
    };
    if v >= Version::V14 {
        m.out_port = PortNo(r.u32()?);
        m.out_group = GroupId(r.u32()?);
        let raw = r.u16()?;
        m.table = TableId(r.u8()?);
        m.command = match r.u8()? {
            0 => MonitorCommand::Add,
            1 => MonitorCommand::Modify,
            2 => MonitorCommand::Delete,
            _ => return Err(FlowMonitorFailed::BadCommand.into()),
        };
        m.flags = match m.command {
            MonitorCommand::Delete => MonitorFlags(raw & FLAGS_14),
            _ => flags(raw, FLAGS_14)?,
        };
        m.matches = read_match(v, r)?;
        return Ok(m);
    }
    m.flags = flags(r.u16()?, FLAGS_NX)?;
    if v == Version::V13 {
        r.skip(2)?;
        m.out_port = PortNo(r.u32()?);
        m.table = TableId(r.u8()?);
        zeros(r, 3)?;
        m.matches = read_match(v, r)?;
    } else {
        m.out_port = ports::from16(r.u16()?);
        let len = usize::from(r.u16()?);
        m.table = TableId(r.u8()?);
        zeros(r, 5)?;
        m.matches = read_nxm(r, len)?.0;
    }
    Ok(m)
}

pub(super) fn put_request(out: &mut Vec<u8>, v: Version, m: &MonitorRequest) -> Result<(), EncodeError> {
    out.put_u32(m.id);
    if v >= Version::V14 {
        out.put_u32(m.out_port.0);
        out.put_u32(m.out_group.0);
        out.put_u16(m.flags.0);
        out.put_u8(m.table.0);
        out.put_u8(m.command as u8);
        return put_match(out, v, &m.matches);
    }
    if m.command != MonitorCommand::Add {
        // Earlier forms end a monitor by a message of its own.
        return Err(EncodeError::Version(v));
    }
    out.put_u16(m.flags.0 & FLAGS_NX);
    if v == Version::V13 {
        let len_at = out.len();
        out.put_u16(0);
        out.put_u32(m.out_port.0);
        out.put_u8(m.table.0);
        out.put_zeros(3);
        put_match_with_length(out, v, m, len_at)
    } else {
        out.put_u16(ports::to16(m.out_port)?);
        let len_at = out.len();
        out.put_u16(0);
        out.put_u8(m.table.0);
        out.put_zeros(5);
        let len = put_nxm(out, &m.matches, (0, 0))?;
        out.patch_u16(len_at, len);
        Ok(())
    }
}

fn put_match_with_length(
    out: &mut Vec<u8>,
    v: Version,
    m: &MonitorRequest,
    len_at: usize,
) -> Result<(), EncodeError> {
    let start = out.len();
    put_match(out, v, &m.matches)?;
    // The length that the match itself says: without its padding.
    let len = usize::from(u16::from_be_bytes([out[start + 2], out[start + 3]]));
    out.patch_u16(len_at, len);
    Ok(())
}

pub(super) fn read_update(v: Version, r: &mut Reader<'_>) -> Result<FlowUpdate, ErrorCode> {
    let len = usize::from(r.u16()?);
    if !len.is_multiple_of(8) {
        return Err(r.short());
    }
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    let raw = e.u16()?;
    let event = if v >= Version::V14 { raw } else { raw.saturating_add(1) };
    let update = match event {
        ABBREVIATED => FlowUpdate::Abbreviated(e.u32()?),
        PAUSED | RESUMED if v >= Version::V14 => {
            e.skip(4)?;
            if event == PAUSED { FlowUpdate::Paused } else { FlowUpdate::Resumed }
        }
        ADDED | REMOVED | MODIFIED => FlowUpdate::Full(Box::new(read_change(v, event, &mut e)?)),
        INITIAL if v >= Version::V14 => FlowUpdate::Full(Box::new(read_change(v, event, &mut e)?)),
        _ => return Err(Nicira::BadEvent.into()),
    };
    e.finish()?;
    Ok(update)
}

fn read_change(v: Version, event: u16, e: &mut Reader<'_>) -> Result<FlowChange, ErrorCode> {
    let (table, raw_reason, idle_timeout, hard_timeout, priority, len);
    if v >= Version::V14 {
        table = TableId(e.u8()?);
        raw_reason = u16::from(e.u8()?);
        (idle_timeout, hard_timeout, priority, len) = (e.u16()?, e.u16()?, e.u16()?, 0);
        e.skip(4)?;
    } else {
        (raw_reason, priority, idle_timeout, hard_timeout) = (e.u16()?, e.u16()?, e.u16()?, e.u16()?);
        len = usize::from(e.u16()?);
        table = TableId(e.u8()?);
        e.skip(1)?;
    }
    let cookie = e.u64()?;
    let event = match event {
        INITIAL => FlowEvent::Initial,
        ADDED => FlowEvent::Added,
        MODIFIED => FlowEvent::Modified,
        _ => FlowEvent::Removed(reason(u8::try_from(raw_reason).unwrap_or(u8::MAX))?),
    };
    let (matches, instructions) = if v >= Version::V13 {
        let m = read_match(v, e)?;
        (m, read_instructions(v, &mut Reader::new(e.rest(), BadInstruction::BadLen))?)
    } else {
        let (m, _) = read_nxm(e, len)?;
        let actions = read_actions(v, &mut Reader::new(e.rest(), BadAction::BadLen))?;
        (m, instructions::from_action_list(actions)?)
    };
    Ok(FlowChange { event, table, priority, idle_timeout, hard_timeout, cookie, matches, instructions })
}

pub(super) fn put_update(out: &mut Vec<u8>, v: Version, u: &FlowUpdate) -> Result<(), EncodeError> {
    let new = v >= Version::V14;
    let start = out.len();
    let begin = |out: &mut Vec<u8>, event: u16| {
        out.put_u16(0);
        out.put_u16(if new { event } else { event - 1 });
    };
    match u {
        FlowUpdate::Abbreviated(xid) => {
            begin(out, ABBREVIATED);
            out.put_u32(*xid);
        }
        // Earlier forms say this by messages of their own.
        FlowUpdate::Paused | FlowUpdate::Resumed if !new => return Err(EncodeError::Version(v)),
        FlowUpdate::Paused | FlowUpdate::Resumed => {
            begin(out, if *u == FlowUpdate::Paused { PAUSED } else { RESUMED });
            out.put_zeros(4);
        }
        FlowUpdate::Full(c) => {
            let (event, reason) = match c.event {
                FlowEvent::Initial if new => (INITIAL, 0),
                FlowEvent::Initial | FlowEvent::Added => (ADDED, 0),
                FlowEvent::Modified => (MODIFIED, 0),
                FlowEvent::Removed(r) => (REMOVED, r as u8),
            };
            begin(out, event);
            put_change(out, v, c, reason)?;
        }
    }
    let len = out.len() - start;
    out.patch_u16(start, len);
    Ok(())
}

fn put_change(out: &mut Vec<u8>, v: Version, c: &FlowChange, reason: u8) -> Result<(), EncodeError> {
    if v >= Version::V14 {
        out.put_u8(c.table.0);
        out.put_u8(reason);
        out.put_u16(c.idle_timeout);
        out.put_u16(c.hard_timeout);
        out.put_u16(c.priority);
        out.put_zeros(4);
        out.put_u64(c.cookie);
        put_match(out, v, &c.matches)?;
        return put_instructions(out, v, &c.instructions, Known::of(&c.matches));
    }
    out.put_u16(reason.into());
    out.put_u16(c.priority);
    out.put_u16(c.idle_timeout);
    out.put_u16(c.hard_timeout);
    let len_at = out.len();
    out.put_u16(0);
    out.put_u8(c.table.0);
    out.put_u8(0);
    out.put_u64(c.cookie);
    let start = out.len();
    if v == Version::V13 {
        put_match(out, v, &c.matches)?;
        let len = usize::from(u16::from_be_bytes([out[start + 2], out[start + 3]]));
        out.patch_u16(len_at, len);
        put_instructions(out, v, &c.instructions, Known::of(&c.matches))
    } else {
        let len = put_nxm(out, &c.matches, (0, 0))?;
        out.patch_u16(len_at, len);
        instructions::put_as_action_list(out, v, &c.instructions)
    }
}
