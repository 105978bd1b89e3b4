//! Instructions on the wire (OpenFlow 1.3.5 7.2.4), and as a list of actions in OpenFlow 1.0, which has none.

use super::EncodeError;
use super::actions::{Known, put_known, read_actions};
use super::cursor::{Put, Reader};
use crate::action::Action;
use crate::error::{BadAction, BadInstruction, ErrorCode};
use crate::flow_mod::Instructions;
use crate::number::{MeterNo, PortNo, TableId};
use crate::version::Version;

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
pub(crate) fn read_instructions(v: Version, r: &mut Reader<'_>) -> Result<Instructions, ErrorCode> {
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
            // Meters are an instruction in two versions, and an action since OpenFlow 1.5.
            METER if v < Version::V13 || v > Version::V14 => {
                return Err(BadInstruction::UnknownInst.into());
            }
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
                let actions = read_actions(v, &mut Reader::new(body.rest(), BadAction::BadLen))?;
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
    if let Some(Action::Meter(m)) = i.apply.first() {
        // A meter before everything else is what other versions have an instruction for.
        i.meter = Some(*m);
        i.apply.remove(0);
    }
    Ok(i)
}

/// What a list of actions of OpenFlow 1.0 means: all of it is applied, but for a last set of the metadata.
pub(super) fn from_action_list(mut actions: Vec<Action>) -> Result<Instructions, ErrorCode> {
    let mut metadata = None;
    if let Some(Action::WriteMetadata { value, mask }) = actions.last() {
        metadata = Some((*value, *mask));
        actions.pop();
    }
    if actions.iter().any(|a| matches!(a, Action::WriteMetadata { .. })) {
        return Err(BadAction::UnsupportedOrder.into());
    }
    Ok(Instructions { apply: actions, metadata, ..Default::default() })
}

/// Appends instructions as a list of actions, as far as there are actions for them: meters and action sets have none, and
/// the next table becomes a resubmit.
pub(super) fn put_as_action_list(out: &mut Vec<u8>, v: Version, i: &Instructions) -> Result<(), EncodeError> {
    put_known(out, v, &i.apply, Known::default(), 0)?;
    let mut last = Vec::new();
    last.extend(i.metadata.map(|(value, mask)| Action::WriteMetadata { value, mask }));
    last.extend(i.goto_table.map(|t| Action::Resubmit {
        port: PortNo::IN_PORT,
        table: Some(t),
        with_ct: false,
    }));
    put_known(out, v, &last, Known::default(), 0)
}

/// Appends instructions in the order they are executed.
pub(crate) fn put_instructions(
    out: &mut Vec<u8>,
    v: Version,
    i: &Instructions,
    known: Known,
) -> Result<(), EncodeError> {
    let meter_action = if v == Version::V15 { i.meter.map(Action::Meter) } else { None };
    if let (Some(m), Version::V13 | Version::V14) = (i.meter, v) {
        header(out, METER, 8);
        out.put_u32(m.0);
    }
    if !i.apply.is_empty() || meter_action.is_some() {
        put_list(out, v, APPLY_ACTIONS, meter_action.as_ref(), &i.apply, known)?;
    }
    if i.clear {
        header(out, CLEAR_ACTIONS, 8);
        out.put_zeros(4);
    }
    if !i.write.is_empty() {
        put_list(out, v, WRITE_ACTIONS, None, &i.write, known)?;
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

fn put_list(
    out: &mut Vec<u8>,
    v: Version,
    kind: u16,
    first: Option<&Action>,
    actions: &[Action],
    known: Known,
) -> Result<(), EncodeError> {
    let start = out.len();
    header(out, kind, 0);
    out.put_zeros(4);
    if let Some(a) = first {
        put_known(out, v, std::slice::from_ref(a), known, 0)?;
    }
    put_known(out, v, actions, known, 0)?;
    out.patch_u16(start + 2, out.len() - start);
    Ok(())
}

fn header(out: &mut Vec<u8>, kind: u16, len: u16) {
    out.put_u16(kind);
    out.put_u16(len);
}
