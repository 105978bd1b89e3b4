//! Instructions on the wire (OpenFlow 1.3.5 7.2.4).

use super::EncodeError;
use super::actions::{put_actions, read_actions};
use super::cursor::{Put, Reader};
use crate::error::{BadAction, BadInstruction, ErrorCode};
use crate::flow_mod::Instructions;
use crate::number::{MeterNo, TableId};

const GOTO_TABLE: u16 = 1;
const WRITE_METADATA: u16 = 2;
const WRITE_ACTIONS: u16 = 3;
const APPLY_ACTIONS: u16 = 4;
const CLEAR_ACTIONS: u16 = 5;
const METER: u16 = 6;
const EXPERIMENTER: u16 = 0xffff;

/// Every instruction type, for table features.
pub(crate) const TYPES: &[u16] =
    &[GOTO_TABLE, WRITE_METADATA, WRITE_ACTIONS, APPLY_ACTIONS, CLEAR_ACTIONS, METER];

/// Reads instructions to the end of `r`; each type at most once, in any order.
pub(crate) fn read_instructions(r: &mut Reader<'_>) -> Result<Instructions, ErrorCode> {
    let mut i = Instructions::default();
    let mut seen = 0u8;
    while !r.is_empty() {
        let mut header = *r;
        let kind = header.u16().map_err(|_| BadInstruction::BadLen)?;
        let len = usize::from(header.u16().map_err(|_| BadInstruction::BadLen)?);
        if len < 8 || !len.is_multiple_of(8) || len > r.left() {
            return Err(BadInstruction::BadLen.into());
        }
        let mut body = r.sub(len, BadInstruction::BadLen)?;
        body.skip(4)?;
        match kind {
            GOTO_TABLE..=METER => {
                if seen & 1 << kind != 0 {
                    return Err(BadInstruction::DupInst.into());
                }
                seen |= 1 << kind;
            }
            EXPERIMENTER => return Err(BadInstruction::BadExperimenter.into()),
            _ => return Err(BadInstruction::UnknownInst.into()),
        }
        match kind {
            GOTO_TABLE => {
                i.goto_table = Some(TableId(body.u8()?));
                body.skip(3)?;
            }
            WRITE_METADATA => {
                body.skip(4)?;
                i.metadata = Some((body.u64()?, body.u64()?));
            }
            WRITE_ACTIONS | APPLY_ACTIONS => {
                body.skip(4)?;
                let actions = read_actions(&mut Reader::new(body.rest(), BadAction::BadLen))?;
                if kind == APPLY_ACTIONS {
                    i.apply = actions;
                } else {
                    i.write = actions;
                }
            }
            CLEAR_ACTIONS => {
                body.skip(4)?;
                i.clear = true;
            }
            _ => i.meter = Some(MeterNo(body.u32()?)),
        }
        body.finish()?;
    }
    Ok(i)
}

/// Appends instructions in the order they are executed.
pub(crate) fn put_instructions(out: &mut Vec<u8>, i: &Instructions) -> Result<(), EncodeError> {
    if let Some(m) = i.meter {
        header(out, METER, 8);
        out.put_u32(m.0);
    }
    if !i.apply.is_empty() {
        put_list(out, APPLY_ACTIONS, &i.apply)?;
    }
    if i.clear {
        header(out, CLEAR_ACTIONS, 8);
        out.put_zeros(4);
    }
    if !i.write.is_empty() {
        put_list(out, WRITE_ACTIONS, &i.write)?;
    }
    if let Some((value, mask)) = i.metadata {
        header(out, WRITE_METADATA, 24);
        out.put_zeros(4);
        out.put_u64(value);
        out.put_u64(mask);
    }
    if let Some(t) = i.goto_table {
        header(out, GOTO_TABLE, 8);
        out.put_u8(t.0);
        out.put_zeros(3);
    }
    Ok(())
}

fn put_list(out: &mut Vec<u8>, kind: u16, actions: &[crate::action::Action]) -> Result<(), EncodeError> {
    let start = out.len();
    header(out, kind, 0);
    out.put_zeros(4);
    put_actions(out, actions)?;
    out.patch_u16(start + 2, out.len() - start);
    Ok(())
}

fn header(out: &mut Vec<u8>, kind: u16, len: u16) {
    out.put_u16(kind);
    out.put_u16(len);
}
