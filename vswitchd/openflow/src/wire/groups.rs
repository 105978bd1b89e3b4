//! Groups on the wire (OpenFlow 1.3.5 7.3.4.2, 7.3.5.6 to 7.3.5.8; OpenFlow 1.5.1 7.3.4.3, 7.3.5.9).
//!
//! OpenFlow 1.5's form, with numbers of buckets and properties, is also the form of Nicira's messages in OpenFlow 1.0.

use flow::FieldId;

use super::actions::{put_actions, read_actions};
use super::cursor::{Put, Reader};
use super::oxm::{self, OxmHeader};
use super::{EncodeError, properties};
use crate::error::{BadAction, BadMatch, BadProperty, ErrorCode, GroupModFailed};
use crate::group::{
    Bucket, BucketCounter, BucketId, GroupDesc, GroupFeatures, GroupMod, GroupModCommand, GroupStats,
    GroupType, Selection,
};
use crate::message::Body;
use crate::number::{GroupId, PortNo};
use crate::version::Version;

/// The actions of OpenFlow 1.0, one bit each by number.
const ACTIONS10: u32 = 0xfff;

// Properties of a bucket.
const WEIGHT: u16 = 0;
const WATCH_PORT: u16 = 1;
const WATCH_GROUP: u16 = 2;
/// Netronome's property of a group: how a select group chooses.
const NETRONOME: u32 = 0x0000_154d;
/// What Open vSwitch 2.4 took for Netronome's number.
const NETRONOME_OLD: u32 = 0x0000_1540;
const SELECTION_METHOD: u32 = 1;
const METHOD_BYTES: usize = 16;
/// Bytes of a bucket before its actions: OpenFlow 1.1's and OpenFlow 1.5's.
const BUCKET11: usize = 16;
const BUCKET15: usize = 8;

fn group_type(v: u8) -> Result<GroupType, ErrorCode> {
    Ok(match v {
        0 => GroupType::All,
        1 => GroupType::Select,
        2 => GroupType::Indirect,
        3 => GroupType::FastFailover,
        _ => return Err(GroupModFailed::BadType.into()),
    })
}

/// Whether groups have the form of OpenFlow 1.5; actions in them are those of the version.
fn is_new(v: Version) -> bool {
    matches!(v, Version::V10 | Version::V15)
}

/// Reads buckets to the end of `r`.
fn read_buckets(v: Version, kind: GroupType, r: &mut Reader<'_>) -> Result<Vec<Bucket>, ErrorCode> {
    let head = if is_new(v) { BUCKET15 } else { BUCKET11 };
    let mut buckets: Vec<Bucket> = Vec::new();
    while !r.is_empty() {
        let len = usize::from(r.u16().map_err(|_| GroupModFailed::BadBucket)?);
        if len < head || !len.is_multiple_of(8) || len - 2 > r.left() {
            return Err(GroupModFailed::BadBucket.into());
        }
        let mut b = r.sub(len - 2, GroupModFailed::BadBucket)?;
        buckets.push(if is_new(v) { read15(v, kind, &mut b)? } else { read11(v, &mut b)? });
    }
    if is_new(v) {
        let mut ids: Vec<BucketId> = buckets.iter().map(|b| b.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|w| w[0] == w[1]) {
            return Err(GroupModFailed::BadBucket.into());
        }
    }
    Ok(buckets)
}

fn read11(v: Version, b: &mut Reader<'_>) -> Result<Bucket, ErrorCode> {
    let (weight, watch_port, watch_group) = (b.u16()?, PortNo(b.u32()?), GroupId(b.u32()?));
    b.skip(4)?;
    let actions = read_actions(v, &mut Reader::new(b.rest(), BadAction::BadLen))?;
    Ok(Bucket { id: BucketId::ALL, weight, watch_port, watch_group, actions })
}

fn read15(v: Version, kind: GroupType, b: &mut Reader<'_>) -> Result<Bucket, ErrorCode> {
    let (len, id) = (usize::from(b.u16()?), BucketId(b.u32()?));
    if id > BucketId::MAX {
        return Err(GroupModFailed::BadBucket.into());
    }
    let mut list = b.sub(len, BadAction::BadLen)?;
    let mut bucket = Bucket {
        id,
        weight: u16::from(kind == GroupType::Select),
        watch_port: PortNo::ANY,
        watch_group: GroupId::ANY,
        actions: read_actions(v, &mut list)?,
    };
    while let Some((kind, mut value)) = properties::next(b)? {
        match kind {
            WEIGHT => bucket.weight = value.u16()?,
            WATCH_PORT => bucket.watch_port = PortNo(properties::only_u32(value)?),
            WATCH_GROUP => bucket.watch_group = GroupId(properties::only_u32(value)?),
            kind => return Err(properties::unknown(kind)),
        }
    }
    Ok(bucket)
}

fn put_buckets(
    out: &mut Vec<u8>,
    v: Version,
    kind: GroupType,
    buckets: &[Bucket],
) -> Result<(), EncodeError> {
    // Numbers that are not given are the lowest that are free.
    let mut next = 0;
    for b in buckets {
        let start = out.len();
        out.put_u16(0);
        if !is_new(v) {
            out.put_u16(b.weight);
            out.put_u32(b.watch_port.0);
            out.put_u32(b.watch_group.0);
            out.put_zeros(4);
            put_actions(out, v, &b.actions)?;
            out.patch_u16(start, out.len() - start);
            continue;
        }
        let id = if b.id <= BucketId::MAX {
            b.id.0
        } else {
            while buckets.iter().any(|b| b.id.0 == next) {
                next += 1;
            }
            next += 1;
            next - 1
        };
        out.put_u16(0);
        out.put_u32(id);
        put_actions(out, v, &b.actions)?;
        out.patch_u16(start + 2, out.len() - start - BUCKET15);
        if kind == GroupType::Select {
            properties::put_plain(out, WEIGHT, |out| out.put_u32(u32::from(b.weight) << 16));
        }
        if b.watch_port != PortNo::ANY {
            properties::put_plain(out, WATCH_PORT, |out| out.put_u32(b.watch_port.0));
        }
        if b.watch_group != GroupId::ANY {
            properties::put_plain(out, WATCH_GROUP, |out| out.put_u32(b.watch_group.0));
        }
        out.patch_u16(start, out.len() - start);
    }
    Ok(())
}

/// Reads the properties of a group. `may_select` is whether a method of selection makes sense.
fn read_selection(r: &mut Reader<'_>, may_select: bool) -> Result<Selection, ErrorCode> {
    let mut selection = Selection::default();
    while let Some((kind, mut value)) = properties::next(r)? {
        if kind != properties::EXPERIMENTER {
            return Err(properties::unknown(kind));
        }
        let (who, what) = (value.u32()?, value.u32()?);
        if who != NETRONOME && who != NETRONOME_OLD {
            return Err(BadProperty::BadExperimenter.into());
        }
        if what != SELECTION_METHOD {
            return Err(BadProperty::BadExpType.into());
        }
        value.skip(4)?;
        let raw = value.bytes(METHOD_BYTES)?;
        let end = raw.iter().position(|b| *b == 0).ok_or(BadProperty::BadValue)?;
        let method = std::str::from_utf8(&raw[..end]).map_err(|_| BadProperty::BadValue)?;
        let param = value.u64()?;
        if !may_select || !matches!(method, "hash" | "dp_hash") || method != "hash" && !value.is_empty() {
            return Err(BadProperty::BadValue.into());
        }
        selection = Selection { method: method.to_owned(), param, fields: read_fields(&mut value)? };
    }
    Ok(selection)
}

/// Fields that are hashed: entries without a mask, whose value is the mask.
fn read_fields(r: &mut Reader<'_>) -> Result<Vec<(FieldId, u128)>, ErrorCode> {
    let mut fields: Vec<(FieldId, u128)> = Vec::new();
    while !r.is_empty() {
        let h = OxmHeader::read(r)?;
        let w = h.resolve().ok_or(BadMatch::BadField)?;
        if h.has_mask {
            return Err(BadMatch::BadMask.into());
        }
        if usize::from(h.payload_bytes) != w.bytes {
            return Err(BadMatch::BadLen.into());
        }
        if fields.iter().any(|(f, _)| *f == w.field) {
            return Err(BadMatch::DupField.into());
        }
        fields.push((w.field, w.mask_in(r.number(w.bytes)?)));
    }
    Ok(fields)
}

fn put_selection(out: &mut Vec<u8>, v: Version, s: &Selection) -> Result<(), EncodeError> {
    if s.method.is_empty() {
        return Ok(());
    }
    properties::put(out, properties::EXPERIMENTER, |out| {
        out.put_u32(NETRONOME);
        out.put_u32(SELECTION_METHOD);
        out.put_zeros(4);
        out.put_text(&s.method, METHOD_BYTES);
        out.put_u64(s.param);
        for (f, mask) in &s.fields {
            let bytes = oxm::put_header(out, v, *f, 1).ok_or(EncodeError::Field(*f))?;
            out.put_number(*mask, bytes);
        }
        Ok(())
    })
}

pub(super) fn read_mod(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    use GroupModCommand::*;
    let command = match r.u16()? {
        0 => Add,
        1 => Modify,
        2 => Delete,
        3 if is_new(v) => InsertBucket,
        5 if is_new(v) => RemoveBucket,
        0x8000 => AddOrModify,
        _ => return Err(GroupModFailed::BadCommand.into()),
    };
    let group_type = group_type(r.u8()?)?;
    r.skip(1)?;
    let group = GroupId(r.u32()?);
    let mut g = GroupMod {
        command,
        group_type,
        group,
        bucket: BucketId::ALL,
        buckets: Vec::new(),
        selection: Selection::default(),
    };
    if !is_new(v) {
        g.buckets = read_buckets(v, group_type, r)?;
        return Ok(Body::GroupMod(g));
    }
    let len = usize::from(r.u16()?);
    r.skip(2)?;
    g.bucket = BucketId(r.u32()?);
    let reserved = matches!(g.bucket, BucketId::FIRST | BucketId::LAST);
    let named = match command {
        // Where to insert, and what to remove.
        InsertBucket => g.bucket <= BucketId::MAX || reserved,
        RemoveBucket => g.bucket <= BucketId::MAX || reserved || g.bucket == BucketId::ALL,
        _ => {
            // It means nothing; controllers leave zero or all there.
            g.bucket = BucketId::ALL;
            true
        }
    };
    if !named {
        return Err(GroupModFailed::BadBucket.into());
    }
    let mut list = r.sub(len, GroupModFailed::BadBucket)?;
    g.buckets = read_buckets(v, group_type, &mut list)?;
    let may_select = group_type == GroupType::Select && matches!(command, Add | Modify | AddOrModify);
    g.selection = read_selection(r, may_select)?;
    Ok(Body::GroupMod(g))
}

pub(super) fn put_mod(out: &mut Vec<u8>, v: Version, g: &GroupMod) -> Result<(), EncodeError> {
    use GroupModCommand::{InsertBucket, RemoveBucket};
    if !is_new(v) && matches!(g.command, InsertBucket | RemoveBucket) {
        return Err(EncodeError::Version(v));
    }
    out.put_u16(g.command as u16);
    out.put_u8(g.group_type as u8);
    out.put_u8(0);
    out.put_u32(g.group.0);
    if !is_new(v) {
        return put_buckets(out, v, g.group_type, &g.buckets);
    }
    let len_at = out.len();
    out.put_u16(0);
    out.put_zeros(2);
    out.put_u32(g.bucket.0);
    let start = out.len();
    put_buckets(out, v, g.group_type, &g.buckets)?;
    out.patch_u16(len_at, out.len() - start);
    put_selection(out, v, &g.selection)
}

/// Whether statistics of groups say how long a group has been there. Nicira's form for OpenFlow 1.0 does.
fn has_duration(v: Version) -> bool {
    v >= Version::V13 || v == Version::V10
}

pub(super) fn read_stats(v: Version, r: &mut Reader<'_>) -> Result<GroupStats, ErrorCode> {
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    e.skip(2)?;
    let (group, ref_count) = (GroupId(e.u32()?), e.u32()?);
    e.skip(4)?;
    let (packets, bytes) = (e.u64()?, e.u64()?);
    let timed = has_duration(v);
    let (duration_sec, duration_nsec) = if timed { (e.u32()?, e.u32()?) } else { (u32::MAX, u32::MAX) };
    let mut buckets = Vec::with_capacity(e.left() / 16);
    while !e.is_empty() {
        buckets.push(BucketCounter { packets: e.u64()?, bytes: e.u64()? });
    }
    Ok(GroupStats { group, ref_count, packets, bytes, duration_sec, duration_nsec, buckets })
}

pub(super) fn put_stats(out: &mut Vec<u8>, v: Version, s: &GroupStats) -> Result<(), EncodeError> {
    let head = if has_duration(v) { 40 } else { 32 };
    out.put_u16(u16::try_from(head + 16 * s.buckets.len()).map_err(|_| EncodeError::TooLong)?);
    out.put_zeros(2);
    out.put_u32(s.group.0);
    out.put_u32(s.ref_count);
    out.put_zeros(4);
    out.put_u64(s.packets);
    out.put_u64(s.bytes);
    if has_duration(v) {
        out.put_u32(s.duration_sec);
        out.put_u32(s.duration_nsec);
    }
    for b in &s.buckets {
        out.put_u64(b.packets);
        out.put_u64(b.bytes);
    }
    Ok(())
}

pub(super) fn read_desc(v: Version, r: &mut Reader<'_>) -> Result<GroupDesc, ErrorCode> {
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    let group_type = group_type(e.u8()?)?;
    e.skip(1)?;
    let group = GroupId(e.u32()?);
    if !is_new(v) {
        let buckets = read_buckets(v, group_type, &mut e)?;
        return Ok(GroupDesc { group_type, group, buckets, selection: Selection::default() });
    }
    let len = usize::from(e.u16()?);
    e.skip(6)?;
    let mut list = e.sub(len, GroupModFailed::BadBucket)?;
    let buckets = read_buckets(v, group_type, &mut list)?;
    let selection = read_selection(&mut e, group_type == GroupType::Select)?;
    Ok(GroupDesc { group_type, group, buckets, selection })
}

pub(super) fn put_desc(out: &mut Vec<u8>, v: Version, d: &GroupDesc) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(d.group_type as u8);
    out.put_u8(0);
    out.put_u32(d.group.0);
    if is_new(v) {
        let len_at = out.len();
        out.put_u16(0);
        out.put_zeros(6);
        let buckets = out.len();
        put_buckets(out, v, d.group_type, &d.buckets)?;
        out.patch_u16(len_at, out.len() - buckets);
        put_selection(out, v, &d.selection)?;
    } else {
        put_buckets(out, v, d.group_type, &d.buckets)?;
    }
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

pub(super) fn put_features(out: &mut Vec<u8>, v: Version, f: &GroupFeatures) {
    out.put_u32(f.types);
    out.put_u32(f.capabilities);
    f.max_groups.iter().for_each(|n| out.put_u32(*n));
    for actions in f.actions {
        // OpenFlow 1.0 numbers actions in its own way; whoever can output can do all of them.
        let can = if v == Version::V10 && actions & 1 != 0 { ACTIONS10 } else { actions };
        out.put_u32(can);
    }
}
