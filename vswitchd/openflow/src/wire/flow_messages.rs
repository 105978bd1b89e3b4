//! Flow-mod and flow-removed in every version (OpenFlow 1.0.1 5.3.3 and 5.4.3, OpenFlow 1.3.5 7.3.4.1 and 7.4.2,
//! OpenFlow 1.5.1 7.4.2) and in Nicira's form, which is OpenFlow 1.0's with a match of any length.

use flow::PipelineMatch;

use super::actions::{Known, read_actions};
use super::cursor::{Put, Reader};
use super::flow_stats::{put_oxs, read_oxs};
use super::instructions::{self, put_instructions, read_instructions};
use super::match_fixed;
use super::matches::{put_match, put_nxm, read_match, read_nxm};
use super::messages::{buffer, put_buffer};
use super::{Dialect, EncodeError, ports};
use crate::error::{BadAction, BadInstruction, BadRequest, ErrorCode, FlowModFailed, Nicira};
use crate::flow_mod::{FlowMod, FlowModCommand, FlowModFlags};
use crate::message::{FlowRemoved, FlowRemovedReason};
use crate::number::{GroupId, PortNo, TableId};
use crate::version::Version;

/// OpenFlow 1.0: the flow is for emergencies (`OFPFF_EMERG`).
const EMERG: u16 = 4;
/// In Nicira's form: no cookie to set.
const NO_COOKIE: u64 = u64::MAX;

fn command(v: u16) -> Result<FlowModCommand, ErrorCode> {
    use FlowModCommand::*;
    [Add, Modify, ModifyStrict, Delete, DeleteStrict]
        .get(usize::from(v))
        .copied()
        .ok_or(FlowModFailed::BadCommand.into())
}

fn is_modify(c: FlowModCommand) -> bool {
    matches!(c, FlowModCommand::Modify | FlowModCommand::ModifyStrict)
}

fn is_delete(c: FlowModCommand) -> bool {
    matches!(c, FlowModCommand::Delete | FlowModCommand::DeleteStrict)
}

/// The flags a version has.
fn known_flags(v: Version) -> u16 {
    match v {
        Version::V10 | Version::V11 => 3,
        Version::V12 => 7,
        _ => FlowModFlags::KNOWN.0,
    }
}

fn flags(v: Version, raw: u16, c: FlowModCommand) -> Result<FlowModFlags, ErrorCode> {
    if raw & !known_flags(v) != 0 {
        return Err(FlowModFailed::BadFlags.into());
    }
    // An addition always resets the counters in these versions.
    let implied =
        if v <= Version::V11 && c == FlowModCommand::Add { FlowModFlags::RESET_COUNTS.0 } else { 0 };
    Ok(FlowModFlags(raw | implied))
}

pub(super) fn read_mod(d: Dialect, r: &mut Reader<'_>) -> Result<FlowMod, ErrorCode> {
    if d.version == Version::V10 {
        let wildcards = match_fixed::wildcards10(r)?;
        let matches = match_fixed::read10(r)?;
        let mut head = Head::read(r)?;
        // A match of every field has the highest priority there is (OpenFlow 1.0.1 3.4).
        if wildcards == 0 {
            head.priority = u16::MAX;
        }
        return head.finish(d, matches, (0, 0), r);
    }
    let v = d.version;
    let (cookie, cookie_mask, table) = (r.u64()?, r.u64()?, TableId(r.u8()?));
    let number = r.u8()?;
    let mut f = FlowMod {
        command: FlowModCommand::Add,
        cookie,
        cookie_mask,
        new_cookie: None,
        modify_cookie: false,
        table,
        idle_timeout: r.u16()?,
        hard_timeout: r.u16()?,
        priority: r.u16()?,
        buffer: buffer(r.u32()?),
        out_port: PortNo(r.u32()?),
        out_group: GroupId(r.u32()?),
        flags: FlowModFlags(r.u16()?),
        importance: r.u16()?,
        matches: read_match(v, r)?,
        instructions: Default::default(),
    };
    f.command = command(number.into())?;
    if f.table == TableId::ALL && (v == Version::V11 || !is_delete(f.command)) {
        return Err(FlowModFailed::BadTableId.into());
    }
    if v < Version::V14 || f.command != FlowModCommand::Add {
        f.importance = 0;
    }
    if v == Version::V11 && is_modify(f.command) && f.cookie_mask == 0 {
        f.new_cookie = Some(std::mem::take(&mut f.cookie));
    }
    f.flags = flags(v, f.flags.0, f.command)?;
    f.instructions = read_instructions(v, &mut Reader::new(r.rest(), BadInstruction::BadLen))?;
    Ok(f)
}

/// What OpenFlow 1.0's and Nicira's flow-mod have in common.
struct Head {
    cookie: u64,
    command: u16,
    idle_timeout: u16,
    hard_timeout: u16,
    priority: u16,
    buffer: Option<crate::number::BufferId>,
    out_port: PortNo,
    flags: u16,
}

impl Head {
    fn read(r: &mut Reader<'_>) -> Result<Head, ErrorCode> {
        Ok(Head {
            cookie: r.u64()?,
            command: r.u16()?,
            idle_timeout: r.u16()?,
            hard_timeout: r.u16()?,
            priority: r.u16()?,
            buffer: buffer(r.u32()?),
            out_port: ports::from16(r.u16()?),
            flags: r.u16()?,
        })
    }

    fn finish(
        self,
        d: Dialect,
        matches: PipelineMatch,
        (cookie, cookie_mask): (u64, u64),
        r: &mut Reader<'_>,
    ) -> Result<FlowMod, ErrorCode> {
        let (number, table) = if d.table_in_command {
            (self.command & 0xff, TableId((self.command >> 8) as u8))
        } else {
            (self.command, TableId::ALL)
        };
        let command = command(number)?;
        let actions = read_actions(d.version, &mut Reader::new(r.rest(), BadAction::BadLen))?;
        let instructions = instructions::from_action_list(actions)?;
        if d.version == Version::V10 && self.flags & EMERG != 0 {
            let timeouts = self.idle_timeout != 0 || self.hard_timeout != 0;
            return Err(
                if timeouts { FlowModFailed::BadEmergTimeout } else { FlowModFailed::TableFull }.into()
            );
        }
        let add = command == FlowModCommand::Add;
        if add && cookie_mask != 0 {
            return Err(Nicira::NxmInvalid.into());
        }
        let new_cookie = (is_modify(command) && self.cookie != NO_COOKIE).then_some(self.cookie);
        Ok(FlowMod {
            command,
            cookie: if add { self.cookie } else { cookie },
            cookie_mask,
            new_cookie,
            modify_cookie: new_cookie.is_some(),
            table,
            idle_timeout: self.idle_timeout,
            hard_timeout: self.hard_timeout,
            priority: self.priority,
            buffer: self.buffer,
            out_port: self.out_port,
            out_group: GroupId::ANY,
            flags: flags(d.version, self.flags, command)?,
            importance: 0,
            matches,
            instructions,
        })
    }
}

/// Reads Nicira's flow-mod.
pub(super) fn read_nx_mod(d: Dialect, r: &mut Reader<'_>) -> Result<FlowMod, ErrorCode> {
    let head = Head::read(r)?;
    let len = usize::from(r.u16()?);
    r.skip(6)?;
    let (matches, cookie) = read_nxm(r, len)?;
    head.finish(d, matches, cookie, r)
}

/// Whether OpenFlow 1.0's own flow-mod cannot say it.
pub(super) fn needs_nicira(v: Version, f: &FlowMod) -> bool {
    v == Version::V10
        && (f.command != FlowModCommand::Add && f.cookie_mask != 0
            || is_modify(f.command) && f.new_cookie.is_none()
            || !match_fixed::fits10(&f.matches, f.priority))
}

/// The fields after a flow-mod's match in OpenFlow 1.0, before it in Nicira's form.
fn put_head(out: &mut Vec<u8>, v: Version, f: &FlowMod, unset: u64) -> Result<(), EncodeError> {
    out.put_u64(match f.command {
        FlowModCommand::Add => f.cookie,
        _ => f.new_cookie.unwrap_or(unset),
    });
    out.put_u16(u16::from(f.table.0) << 8 | f.command as u16);
    out.put_u16(f.idle_timeout);
    out.put_u16(f.hard_timeout);
    out.put_u16(f.priority);
    put_buffer(out, f.buffer);
    out.put_u16(ports::to16(f.out_port)?);
    out.put_u16(f.flags.0 & known_flags(v));
    Ok(())
}

pub(super) fn put_nx_mod(out: &mut Vec<u8>, v: Version, f: &FlowMod) -> Result<(), EncodeError> {
    put_head(out, v, f, NO_COOKIE)?;
    let len_at = out.len();
    out.put_u16(0);
    out.put_zeros(6);
    let cookie = if f.command == FlowModCommand::Add { (0, 0) } else { (f.cookie, f.cookie_mask) };
    let len = put_nxm(out, &f.matches, cookie)?;
    out.patch_u16(len_at, len);
    instructions::put_as_action_list(out, v, &f.instructions)
}

pub(super) fn put_mod(out: &mut Vec<u8>, v: Version, f: &FlowMod) -> Result<(), EncodeError> {
    if v == Version::V10 {
        match_fixed::put10(out, &f.matches)?;
        put_head(out, v, f, 0)?;
        return instructions::put_as_action_list(out, v, &f.instructions);
    }
    if v == Version::V11 && !match_fixed::fits11(&f.matches) {
        return Err(EncodeError::Match);
    }
    let cookie = match f.new_cookie {
        Some(new) if v == Version::V11 && f.cookie_mask == 0 => new,
        _ => f.cookie,
    };
    out.put_u64(cookie);
    out.put_u64(f.cookie_mask);
    out.put_u8(if f.table == TableId::ALL && !is_delete(f.command) { 0 } else { f.table.0 });
    out.put_u8(f.command as u8);
    out.put_u16(f.idle_timeout);
    out.put_u16(f.hard_timeout);
    out.put_u16(f.priority);
    put_buffer(out, f.buffer);
    out.put_u32(f.out_port.0);
    out.put_u32(f.out_group.0);
    out.put_u16(f.flags.0 & known_flags(v));
    let has_importance = v >= Version::V14 && f.command == FlowModCommand::Add;
    out.put_u16(if has_importance { f.importance } else { 0 });
    put_match(out, v, &f.matches)?;
    put_instructions(out, v, &f.instructions, Known::of(&f.matches))
}

pub(super) fn reason(v: u8) -> Result<FlowRemovedReason, ErrorCode> {
    FlowRemovedReason::ALL.get(usize::from(v)).copied().ok_or(BadRequest::BadType.into())
}

/// A reason's number in a version: what it does not have is a deletion.
fn reason_number(v: Version, r: FlowRemovedReason) -> u8 {
    let since = match r {
        FlowRemovedReason::GroupDelete => Version::V11,
        FlowRemovedReason::MeterDelete | FlowRemovedReason::Eviction => Version::V14,
        _ => Version::V10,
    };
    if v >= since { r as u8 } else { FlowRemovedReason::Delete as u8 }
}

pub(super) fn read_removed(v: Version, r: &mut Reader<'_>) -> Result<FlowRemoved, ErrorCode> {
    let fixed = if v == Version::V10 { Some(match_fixed::read10(r)?) } else { None };
    if v == Version::V15 {
        let table = TableId(r.u8()?);
        let reason = reason(r.u8()?)?;
        let (priority, idle_timeout, hard_timeout) = (r.u16()?, r.u16()?, r.u16()?);
        let cookie = r.u64()?;
        let matches = read_match(v, r)?;
        let s = read_oxs(r)?;
        return Ok(FlowRemoved {
            cookie,
            priority,
            reason,
            table,
            duration_sec: s.duration.0,
            duration_nsec: s.duration.1,
            idle_timeout,
            hard_timeout,
            packets: s.packets,
            bytes: s.bytes,
            matches,
        });
    }
    let (cookie, priority) = (r.u64()?, r.u16()?);
    let reason = reason(r.u8()?)?;
    let table = r.u8()?;
    let (duration_sec, duration_nsec) = (r.u32()?, r.u32()?);
    let (idle_timeout, hard_timeout) = (r.u16()?, r.u16()?);
    let (packets, bytes) = (r.u64()?, r.u64()?);
    Ok(FlowRemoved {
        cookie,
        priority,
        reason,
        // OpenFlow 1.0 does not say the table.
        table: if fixed.is_some() { TableId::ALL } else { TableId(table) },
        duration_sec,
        duration_nsec,
        idle_timeout,
        hard_timeout: if v >= Version::V12 { hard_timeout } else { 0 },
        packets,
        bytes,
        matches: match fixed {
            Some(m) => m,
            None => read_match(v, r)?,
        },
    })
}

pub(super) fn put_removed(out: &mut Vec<u8>, v: Version, f: &FlowRemoved) -> Result<(), EncodeError> {
    if v == Version::V15 {
        out.put_u8(f.table.0);
        out.put_u8(reason_number(v, f.reason));
        out.put_u16(f.priority);
        out.put_u16(f.idle_timeout);
        out.put_u16(f.hard_timeout);
        out.put_u64(f.cookie);
        put_match(out, v, &f.matches)?;
        put_oxs(out, (f.duration_sec, f.duration_nsec), None, f.packets, f.bytes);
        return Ok(());
    }
    if v == Version::V10 {
        match_fixed::put10(out, &f.matches)?;
    }
    out.put_u64(f.cookie);
    out.put_u16(f.priority);
    out.put_u8(reason_number(v, f.reason));
    out.put_u8(if v == Version::V10 { 0 } else { f.table.0 });
    out.put_u32(f.duration_sec);
    out.put_u32(f.duration_nsec);
    out.put_u16(f.idle_timeout);
    out.put_u16(if v >= Version::V12 { f.hard_timeout } else { 0 });
    out.put_u64(f.packets);
    out.put_u64(f.bytes);
    if v == Version::V10 { Ok(()) } else { put_match(out, v, &f.matches) }
}

/// Reads Nicira's flow-removed.
pub(super) fn read_nx_removed(r: &mut Reader<'_>) -> Result<FlowRemoved, ErrorCode> {
    let (cookie, priority) = (r.u64()?, r.u16()?);
    let reason = reason(r.u8()?)?;
    let table = r.u8()?;
    let (duration_sec, duration_nsec, idle_timeout) = (r.u32()?, r.u32()?, r.u16()?);
    let len = usize::from(r.u16()?);
    let (packets, bytes) = (r.u64()?, r.u64()?);
    let (matches, _) = read_nxm(r, len)?;
    Ok(FlowRemoved {
        cookie,
        priority,
        reason,
        // One more than the table; zero is unknown.
        table: TableId(table.wrapping_sub(1)),
        duration_sec,
        duration_nsec,
        idle_timeout,
        hard_timeout: 0,
        packets,
        bytes,
        matches,
    })
}

pub(super) fn put_nx_removed(out: &mut Vec<u8>, v: Version, f: &FlowRemoved) -> Result<(), EncodeError> {
    out.put_u64(f.cookie);
    out.put_u16(f.priority);
    out.put_u8(reason_number(v, f.reason));
    out.put_u8(f.table.0.wrapping_add(1));
    out.put_u32(f.duration_sec);
    out.put_u32(f.duration_nsec);
    out.put_u16(f.idle_timeout);
    let len_at = out.len();
    out.put_u16(0);
    out.put_u64(f.packets);
    out.put_u64(f.bytes);
    let len = put_nxm(out, &f.matches, (0, 0))?;
    out.patch_u16(len_at, len);
    Ok(())
}
