//! Table features on the wire (OpenFlow 1.3.5 7.3.5.5).

use super::EncodeError;
use super::cursor::{Put, Reader};
use super::oxm::{self, OxmHeader};
use crate::error::{BadProperty, BadRequest, ErrorCode};
use crate::number::TableId;
use crate::table_features::{FeatureField, FeatureType, TableFeatures, TableProperty};
use crate::version::Version;

/// Bytes before the properties.
const FIXED_BYTES: usize = 64;
const NAME_BYTES: usize = 32;

const INSTRUCTIONS: u16 = 0;
const NEXT_TABLES: u16 = 2;
const WRITE_ACTIONS: u16 = 4;
const APPLY_ACTIONS: u16 = 6;
const MATCH: u16 = 8;
const WILDCARDS: u16 = 10;
const WRITE_SET_FIELD: u16 = 12;
const APPLY_SET_FIELD: u16 = 14;
const EXPERIMENTER: u16 = 0xfffe;
/// The odd number after each is the same for the table-miss flow.
const MISS: u16 = 1;

pub(super) fn read(_v: Version, r: &mut Reader<'_>) -> Result<TableFeatures, ErrorCode> {
    let len = usize::from(r.u16()?);
    if len < FIXED_BYTES || len - 2 > r.left() {
        return Err(BadRequest::BadLen.into());
    }
    let mut e = r.sub(len - 2, BadProperty::BadLen)?;
    let table = TableId(e.u8()?);
    e.skip(5)?;
    let mut f = TableFeatures {
        table,
        name: e.text(NAME_BYTES)?,
        metadata_match: e.u64()?,
        metadata_write: e.u64()?,
        config: e.u32()?,
        max_entries: e.u32()?,
        properties: Vec::new(),
    };
    while !e.is_empty() {
        let kind = e.u16()?;
        let len = usize::from(e.u16()?);
        let mut p = e.sub(len.checked_sub(4).ok_or(BadProperty::BadLen)?, BadProperty::BadLen)?;
        // The last property of a part may lack its padding.
        let padding = (len.next_multiple_of(8) - len).min(e.left());
        e.skip(padding)?;
        f.properties.push(read_property(kind, &mut p)?);
    }
    Ok(f)
}

fn read_property(kind: u16, p: &mut Reader<'_>) -> Result<TableProperty, ErrorCode> {
    let miss = kind & MISS != 0;
    Ok(match kind {
        EXPERIMENTER | 0xffff => TableProperty::Experimenter {
            miss,
            experimenter: p.u32()?,
            exp_type: p.u32()?,
            data: p.rest().to_vec(),
        },
        _ => match kind & !MISS {
            INSTRUCTIONS => TableProperty::Instructions { miss, types: read_types(p)? },
            NEXT_TABLES => {
                TableProperty::NextTables { miss, tables: p.rest().iter().map(|t| TableId(*t)).collect() }
            }
            WRITE_ACTIONS => TableProperty::WriteActions { miss, types: read_types(p)? },
            APPLY_ACTIONS => TableProperty::ApplyActions { miss, types: read_types(p)? },
            MATCH if !miss => TableProperty::Match(read_fields(p)?),
            WILDCARDS if !miss => TableProperty::Wildcards(read_fields(p)?),
            WRITE_SET_FIELD => TableProperty::WriteSetField { miss, fields: read_fields(p)? },
            APPLY_SET_FIELD => TableProperty::ApplySetField { miss, fields: read_fields(p)? },
            _ => return Err(BadProperty::BadType.into()),
        },
    })
}

fn read_types(p: &mut Reader<'_>) -> Result<Vec<FeatureType>, ErrorCode> {
    let mut types = Vec::new();
    while !p.is_empty() {
        let (kind, len) = (p.u16()?, p.u16()?);
        types.push(match (kind, len) {
            (0xffff, 8) => FeatureType::Experimenter(p.u32()?),
            (0xffff, _) => return Err(BadProperty::BadLen.into()),
            (_, 4) => FeatureType::Plain(kind),
            _ => return Err(BadProperty::BadLen.into()),
        });
    }
    Ok(types)
}

fn read_fields(p: &mut Reader<'_>) -> Result<Vec<FeatureField>, ErrorCode> {
    let mut fields = Vec::new();
    while !p.is_empty() {
        let header = p.u32()?;
        let experimenter = if header >> 16 == 0xffff { Some(p.u32()?) } else { None };
        let resolved = OxmHeader::from_parts(header, experimenter).and_then(|h| Some((h, h.resolve()?)));
        fields.push(match resolved {
            Some((h, w)) => FeatureField::Known { field: w.field, maskable: h.has_mask },
            None => FeatureField::Unknown { header, experimenter },
        });
    }
    Ok(fields)
}

pub(super) fn put(out: &mut Vec<u8>, v: Version, f: &TableFeatures) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u16(0);
    out.put_u8(f.table.0);
    out.put_zeros(5);
    out.put_text(&f.name, NAME_BYTES);
    out.put_u64(f.metadata_match);
    out.put_u64(f.metadata_write);
    out.put_u32(f.config);
    out.put_u32(f.max_entries);
    for p in &f.properties {
        put_property(out, v, p)?;
    }
    let len = out.len() - start;
    out.patch_u16(start, len);
    if len > usize::from(u16::MAX) { Err(EncodeError::TooLong) } else { Ok(()) }
}

fn put_property(out: &mut Vec<u8>, v: Version, p: &TableProperty) -> Result<(), EncodeError> {
    let start = out.len();
    let begin = |out: &mut Vec<u8>, kind: u16, miss: bool| {
        out.put_u16(kind | if miss { MISS } else { 0 });
        out.put_u16(0);
    };
    match p {
        TableProperty::Instructions { miss, types } => {
            begin(out, INSTRUCTIONS, *miss);
            put_types(out, types);
        }
        TableProperty::NextTables { miss, tables } => {
            begin(out, NEXT_TABLES, *miss);
            out.extend(tables.iter().map(|t| t.0));
        }
        TableProperty::WriteActions { miss, types } => {
            begin(out, WRITE_ACTIONS, *miss);
            put_types(out, types);
        }
        TableProperty::ApplyActions { miss, types } => {
            begin(out, APPLY_ACTIONS, *miss);
            put_types(out, types);
        }
        TableProperty::Match(fields) => {
            begin(out, MATCH, false);
            put_fields(out, v, fields)?;
        }
        TableProperty::Wildcards(fields) => {
            begin(out, WILDCARDS, false);
            put_fields(out, v, fields)?;
        }
        TableProperty::WriteSetField { miss, fields } => {
            begin(out, WRITE_SET_FIELD, *miss);
            put_fields(out, v, fields)?;
        }
        TableProperty::ApplySetField { miss, fields } => {
            begin(out, APPLY_SET_FIELD, *miss);
            put_fields(out, v, fields)?;
        }
        TableProperty::Experimenter { miss, experimenter, exp_type, data } => {
            begin(out, EXPERIMENTER, *miss);
            out.put_u32(*experimenter);
            out.put_u32(*exp_type);
            out.extend_from_slice(data);
        }
    }
    out.patch_u16(start + 2, out.len() - start);
    out.pad8(start);
    Ok(())
}

fn put_types(out: &mut Vec<u8>, types: &[FeatureType]) {
    for t in types {
        match t {
            FeatureType::Plain(kind) => {
                out.put_u16(*kind);
                out.put_u16(4);
            }
            FeatureType::Experimenter(who) => {
                out.put_u16(0xffff);
                out.put_u16(8);
                out.put_u32(*who);
            }
        }
    }
}

fn put_fields(out: &mut Vec<u8>, v: Version, fields: &[FeatureField]) -> Result<(), EncodeError> {
    for f in fields {
        match f {
            FeatureField::Known { field, maskable } => {
                let values = if *maskable { 2 } else { 1 };
                oxm::put_header(out, v, *field, values).ok_or(EncodeError::Field(*field))?;
            }
            FeatureField::Unknown { header, experimenter } => {
                out.put_u32(*header);
                if let Some(e) = experimenter {
                    out.put_u32(*e);
                }
            }
        }
    }
    Ok(())
}
