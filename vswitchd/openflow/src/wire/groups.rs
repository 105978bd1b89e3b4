//! Groups on the wire (OpenFlow 1.3.5 7.3.4.2, 7.3.5.6 to 7.3.5.8).

use super::EncodeError;
use super::actions::{put_actions, read_actions};
use super::cursor::{Put, Reader};
use crate::error::{BadAction, ErrorCode, GroupModFailed};
use crate::group::{
    Bucket, BucketCounter, GroupDesc, GroupFeatures, GroupMod, GroupModCommand, GroupStats, GroupType,
};
use crate::message::Body;
use crate::number::{GroupId, PortNo};

fn group_type(v: u8) -> Result<GroupType, ErrorCode> {
    Ok(match v {
        0 => GroupType::All,
        1 => GroupType::Select,
        2 => GroupType::Indirect,
        3 => GroupType::FastFailover,
        _ => return Err(GroupModFailed::BadType.into()),
    })
}

/// Reads buckets to the end of `r`.
fn read_buckets(r: &mut Reader<'_>) -> Result<Vec<Bucket>, ErrorCode> {
    let mut buckets = Vec::new();
    while !r.is_empty() {
        let len = usize::from(r.u16()?);
        if len < 16 || !len.is_multiple_of(8) || len - 2 > r.left() {
            return Err(GroupModFailed::BadBucket.into());
        }
        let mut b = r.sub(len - 2, GroupModFailed::BadBucket)?;
        let (weight, watch_port, watch_group) = (b.u16()?, PortNo(b.u32()?), GroupId(b.u32()?));
        b.skip(4)?;
        let actions = read_actions(&mut Reader::new(b.rest(), BadAction::BadLen))?;
        buckets.push(Bucket { weight, watch_port, watch_group, actions });
    }
    Ok(buckets)
}

fn put_buckets(out: &mut Vec<u8>, buckets: &[Bucket]) -> Result<(), EncodeError> {
    for b in buckets {
        let start = out.len();
        out.put_u16(0);
        out.put_u16(b.weight);
        out.put_u32(b.watch_port.0);
        out.put_u32(b.watch_group.0);
        out.put_zeros(4);
        put_actions(out, &b.actions)?;
        out.patch_u16(start, out.len() - start);
    }
    Ok(())
}

pub(super) fn read_mod(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let command = match r.u16()? {
        0 => GroupModCommand::Add,
        1 => GroupModCommand::Modify,
        2 => GroupModCommand::Delete,
        _ => return Err(GroupModFailed::BadCommand.into()),
    };
    let group_type = group_type(r.u8()?)?;
    r.skip(1)?;
    let group = GroupId(r.u32()?);
    Ok(Body::GroupMod(GroupMod { command, group_type, group, buckets: read_buckets(r)? }))
}

pub(super) fn put_mod(out: &mut Vec<u8>, g: &GroupMod) -> Result<(), EncodeError> {
    out.put_u16(g.command as u16);
    out.put_u8(g.group_type as u8);
    out.put_u8(0);
    out.put_u32(g.group.0);
    put_buckets(out, &g.buckets)
}

pub(super) fn read_stats(r: &mut Reader<'_>) -> Result<GroupStats, ErrorCode> {
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    e.skip(2)?;
    let (group, ref_count) = (GroupId(e.u32()?), e.u32()?);
    e.skip(4)?;
    let (packets, bytes, duration_sec, duration_nsec) = (e.u64()?, e.u64()?, e.u32()?, e.u32()?);
    let mut buckets = Vec::with_capacity(e.left() / 16);
    while !e.is_empty() {
        buckets.push(BucketCounter { packets: e.u64()?, bytes: e.u64()? });
    }
    Ok(GroupStats { group, ref_count, packets, bytes, duration_sec, duration_nsec, buckets })
}

pub(super) fn put_stats(out: &mut Vec<u8>, s: &GroupStats) -> Result<(), EncodeError> {
    out.put_u16(u16::try_from(40 + 16 * s.buckets.len()).map_err(|_| EncodeError::TooLong)?);
    out.put_zeros(2);
    out.put_u32(s.group.0);
    out.put_u32(s.ref_count);
    out.put_zeros(4);
    out.put_u64(s.packets);
    out.put_u64(s.bytes);
    out.put_u32(s.duration_sec);
    out.put_u32(s.duration_nsec);
    for b in &s.buckets {
        out.put_u64(b.packets);
        out.put_u64(b.bytes);
    }
    Ok(())
}

pub(super) fn read_desc(r: &mut Reader<'_>) -> Result<GroupDesc, ErrorCode> {
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    let group_type = group_type(e.u8()?)?;
    e.skip(1)?;
    let group = GroupId(e.u32()?);
    Ok(GroupDesc { group_type, group, buckets: read_buckets(&mut e)? })
}

pub(super) fn put_desc(out: &mut Vec<u8>, d: &GroupDesc) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(d.group_type as u8);
    out.put_u8(0);
    out.put_u32(d.group.0);
    put_buckets(out, &d.buckets)?;
    let len = out.len() - start;
    out.patch_u16(start, len);
    Ok(())
}

pub(super) fn read_features(r: &mut Reader<'_>) -> Result<GroupFeatures, ErrorCode> {
    let mut f = GroupFeatures { types: r.u32()?, capabilities: r.u32()?, ..Default::default() };
    for v in f.max_groups.iter_mut().chain(&mut f.actions) {
        *v = r.u32()?;
    }
    Ok(f)
}

pub(super) fn put_features(out: &mut Vec<u8>, f: &GroupFeatures) {
    out.put_u32(f.types);
    out.put_u32(f.capabilities);
    for v in f.max_groups.iter().chain(&f.actions) {
        out.put_u32(*v);
    }
}
