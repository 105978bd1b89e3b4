//! Tables on the wire: modification, description, status, counters (OpenFlow 1.0.1 5.3.5, OpenFlow 1.3.5 7.3.3 and
//! 7.3.5.4, OpenFlow 1.4.0 7.3.4.2, 7.3.5.16 and 7.4.5).

use super::cursor::{Put, Reader};
use super::{EncodeError, properties};
use crate::error::{BadRequest, ErrorCode, TableModFailed};
use crate::message::{Body, TableMiss, TableMod};
use crate::multipart::TableStats;
use crate::number::TableId;
use crate::table_config::{TableDesc, TableStatusReason, Vacancy};
use crate::version::Version;

/// `OFPTC_TABLE_MISS_MASK` of OpenFlow 1.1 and 1.2.
const MISS_MASK: u32 = 3;
const EVICTION: u16 = 2;
const VACANCY: u16 = 3;
const NAME_BYTES: usize = 32;
/// `OFPFW_ALL` of OpenFlow 1.0: every field can be wildcarded.
const WILDCARDS10: u32 = (1 << 22) - 1;
/// `OFPFW_ALL` of OpenFlow 1.1.
const WILDCARDS11: u32 = (1 << 10) - 1;
/// Fields, instructions and actions of OpenFlow 1.1 and 1.2, one bit each by number.
const FIELDS12: u64 = (1 << 36) - 1;
/// All but the Ethernet type and the IP protocol.
const WRITABLE12: u64 = FIELDS12 & !(1 << 5 | 1 << 10);
const INSTRUCTIONS11: u32 = 0x3e;
/// From the last table there is nowhere to go.
const INSTRUCTIONS11_LAST: u32 = INSTRUCTIONS11 & !(1 << 1);
const LAST: TableId = TableId(253);
const ACTIONS11: u32 = 0x01ff_ffff;
const ACTIONS12: u32 = 0x03ff_ffff;

fn read_properties(r: &mut Reader<'_>) -> Result<(Option<u32>, Option<Vacancy>), ErrorCode> {
    let (mut eviction, mut vacancy) = (None, None);
    while let Some((kind, mut value)) = properties::next(r)? {
        match kind {
            EVICTION => eviction = Some(properties::only_u32(value)?),
            VACANCY => {
                let v = Vacancy { down: value.u8()?, up: value.u8()?, current: value.u8()? };
                value.skip(1)?;
                value.finish()?;
                if v.down > v.up || v.down > 100 || v.up > 100 {
                    return Err(crate::error::BadProperty::BadValue.into());
                }
                vacancy = Some(v);
            }
            kind => return Err(properties::unknown(kind)),
        }
    }
    Ok((eviction, vacancy))
}

fn put_properties(out: &mut Vec<u8>, eviction: Option<u32>, vacancy: Option<Vacancy>) {
    if let Some(e) = eviction {
        properties::put_plain(out, EVICTION, |out| out.put_u32(e));
    }
    if let Some(v) = vacancy {
        properties::put_plain(out, VACANCY, |out| out.extend_from_slice(&[v.down, v.up, v.current, 0]));
    }
}

pub(super) fn read_mod(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let table = TableId(r.u8()?);
    r.skip(3)?;
    let mut config = r.u32()?;
    let mut miss = None;
    if matches!(v, Version::V11 | Version::V12) {
        miss = Some(match config & MISS_MASK {
            0 => TableMiss::Controller,
            1 => TableMiss::Continue,
            2 => TableMiss::Drop,
            _ => return Err(TableModFailed::BadConfig.into()),
        });
        config &= !MISS_MASK;
    }
    let (eviction, vacancy) = if v >= Version::V14 { read_properties(r)? } else { (None, None) };
    Ok(Body::TableMod(TableMod { table, config, miss, eviction, vacancy }))
}

pub(super) fn put_mod(out: &mut Vec<u8>, v: Version, t: &TableMod) {
    out.put_u8(t.table.0);
    out.put_zeros(3);
    let miss = t.miss.filter(|_| matches!(v, Version::V11 | Version::V12));
    out.put_u32(t.config | miss.map_or(0, |m| m as u32));
    if v >= Version::V14 {
        put_properties(out, t.eviction, t.vacancy);
    }
}

pub(super) fn read_desc(r: &mut Reader<'_>) -> Result<TableDesc, ErrorCode> {
    let len = usize::from(r.u16()?);
    let mut e = r.sub(len.checked_sub(2).ok_or(r.short())?, r.short())?;
    let table = TableId(e.u8()?);
    e.skip(1)?;
    let config = e.u32()?;
    let (eviction, vacancy) = read_properties(&mut e)?;
    Ok(TableDesc { table, config, eviction, vacancy })
}

pub(super) fn put_desc(out: &mut Vec<u8>, t: &TableDesc) {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(t.table.0);
    out.put_u8(0);
    out.put_u32(t.config);
    put_properties(out, t.eviction, t.vacancy);
    let len = out.len() - start;
    out.patch_u16(start, len);
}

pub(super) fn read_status(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let reason = match r.u8()? {
        3 => TableStatusReason::VacancyDown,
        4 => TableStatusReason::VacancyUp,
        _ => return Err(BadRequest::BadType.into()),
    };
    r.skip(7)?;
    Ok(Body::TableStatus { reason, desc: read_desc(r)? })
}

pub(super) fn put_status(out: &mut Vec<u8>, reason: TableStatusReason, desc: &TableDesc) {
    out.put_u8(reason as u8);
    out.put_zeros(7);
    put_desc(out, desc);
}

pub(super) fn read_stats(v: Version, r: &mut Reader<'_>) -> Result<TableStats, ErrorCode> {
    let mut s = TableStats {
        table: TableId(r.u8()?),
        active: 0,
        lookups: 0,
        matched: 0,
        name: String::new(),
        max_entries: 0,
        config: 0,
    };
    match v {
        Version::V10 => {
            r.skip(3)?;
            s.name = r.text(NAME_BYTES)?;
            r.skip(4)?;
            s.max_entries = r.u32()?;
        }
        Version::V11 => {
            r.skip(7)?;
            s.name = r.text(NAME_BYTES)?;
            r.skip(20)?;
            (s.config, s.max_entries) = (r.u32()?, r.u32()?);
        }
        Version::V12 => {
            r.skip(7)?;
            s.name = r.text(NAME_BYTES)?;
            r.skip(60)?;
            (s.config, s.max_entries) = (r.u32()?, r.u32()?);
        }
        _ => r.skip(3)?,
    }
    (s.active, s.lookups, s.matched) = (r.u32()?, r.u64()?, r.u64()?);
    Ok(s)
}

pub(super) fn put_stats(out: &mut Vec<u8>, v: Version, s: &TableStats) -> Result<(), EncodeError> {
    out.put_u8(s.table.0);
    let instructions = if s.table == LAST { INSTRUCTIONS11_LAST } else { INSTRUCTIONS11 };
    match v {
        Version::V10 => {
            out.put_zeros(3);
            out.put_text(&s.name, NAME_BYTES);
            out.put_u32(WILDCARDS10);
            out.put_u32(s.max_entries);
        }
        Version::V11 => {
            out.put_zeros(7);
            out.put_text(&s.name, NAME_BYTES);
            for bits in [WILDCARDS11, WILDCARDS11, instructions, ACTIONS11, ACTIONS11, s.config] {
                out.put_u32(bits);
            }
            out.put_u32(s.max_entries);
        }
        Version::V12 => {
            out.put_zeros(7);
            out.put_text(&s.name, NAME_BYTES);
            out.put_u64(FIELDS12);
            out.put_u64(FIELDS12);
            out.put_u32(ACTIONS12);
            out.put_u32(ACTIONS12);
            out.put_u64(WRITABLE12);
            out.put_u64(WRITABLE12);
            // Metadata that can be matched and written.
            out.put_u64(u64::MAX);
            out.put_u64(u64::MAX);
            out.put_u32(instructions);
            out.put_u32(s.config);
            out.put_u32(s.max_entries);
        }
        _ => out.put_zeros(3),
    }
    out.put_u32(s.active);
    out.put_u64(s.lookups);
    out.put_u64(s.matched);
    Ok(())
}
