//! Where a pipeline paused, as properties within a packet-in and a resume of Nicira's second form.
//!
//! The properties are Open vSwitch's, so that `ovs-ofctl` can show them. What is left to do is a sequence: each list of
//! actions is of the table and cookie that were named last before it. Instructions that no action stands for, of which Open
//! vSwitch has no property, are one of our own, always as OpenFlow 1.3 writes them; others skip it.

use super::actions::{Known, put_known, read_actions};
use super::cursor::{Put, Reader};
use super::instructions::{put_instructions, read_instructions};
use super::{EncodeError, properties};
use crate::action::Action;
use crate::error::{BadAction, ErrorCode};
use crate::message::{Continuation, Remainder};
use crate::number::TableId;
use crate::version::Version;

const BRIDGE: u16 = 0x8000;
const STACK: u16 = 0x8001;
const MIRRORS: u16 = 0x8002;
const TRACKED: u16 = 0x8003;
const TABLE: u16 = 0x8004;
const COOKIE: u16 = 0x8005;
const ACTIONS: u16 = 0x8006;
const ACTION_SET: u16 = 0x8007;
/// Not Open vSwitch's.
const INSTRUCTIONS: u16 = 0xc000;

/// Longest value of a stack, in bytes.
const MAX_STACK_VALUE: usize = 16;

fn actions(v: Version, value: &mut Reader<'_>) -> Result<Vec<Action>, ErrorCode> {
    value.skip(4)?;
    read_actions(v, &mut Reader::new(value.rest(), BadAction::BadLen))
}

/// Reads properties to the end of `r`.
pub(super) fn read(v: Version, r: &mut Reader<'_>) -> Result<Continuation, ErrorCode> {
    let mut c = Continuation::default();
    let (mut table, mut cookie, mut named) = (TableId(0), 0, false);
    while let Some((kind, mut value)) = properties::next(r)? {
        match kind {
            BRIDGE => {
                if let Some(id) = value.rest().first_chunk() {
                    c.bridge = *id;
                }
            }
            STACK => {
                let bytes = value.rest();
                if bytes.len() > MAX_STACK_VALUE {
                    return Err(crate::error::BadProperty::BadLen.into());
                }
                c.stack.push(bytes.to_vec());
            }
            MIRRORS => c.mirrors = properties::only_u32(value)?,
            TRACKED => c.tracked = true,
            TABLE => (table, named) = (TableId(value.u8()?), true),
            COOKIE => (cookie, named) = (properties::only_u64(value)?, true),
            ACTIONS | INSTRUCTIONS => {
                if std::mem::take(&mut named) {
                    c.rest.push(Remainder::Origin { table, cookie });
                }
                c.rest.push(if kind == ACTIONS {
                    Remainder::Actions(actions(v, &mut value)?)
                } else {
                    value.skip(4)?;
                    Remainder::Instructions(read_instructions(Version::V13, &mut value)?)
                });
            }
            ACTION_SET => c.action_set = actions(v, &mut value)?,
            _ => {}
        }
    }
    Ok(c)
}

fn put_actions(out: &mut Vec<u8>, v: Version, kind: u16, actions: &[Action]) -> Result<(), EncodeError> {
    properties::put(out, kind, |out| {
        out.put_zeros(4);
        put_known(out, v, actions, Known::default(), 0)
    })
}

/// Appends a continuation's properties.
pub(super) fn put(out: &mut Vec<u8>, v: Version, c: &Continuation) -> Result<(), EncodeError> {
    if c.bridge != [0; 16] {
        properties::put_plain(out, BRIDGE, |out| out.extend_from_slice(&c.bridge));
    }
    for value in &c.stack {
        properties::put_plain(out, STACK, |out| out.extend_from_slice(value));
    }
    if c.mirrors != 0 {
        properties::put_plain(out, MIRRORS, |out| out.put_u32(c.mirrors));
    }
    if c.tracked {
        properties::put_plain(out, TRACKED, |_| {});
    }
    for part in &c.rest {
        match part {
            Remainder::Origin { table, cookie } => {
                properties::put_plain(out, TABLE, |out| out.put_u32(u32::from(table.0) << 24));
                properties::put_plain(out, COOKIE, |out| {
                    out.put_zeros(4);
                    out.put_u64(*cookie);
                });
            }
            Remainder::Actions(actions) => put_actions(out, v, ACTIONS, actions)?,
            Remainder::Instructions(i) => properties::put(out, INSTRUCTIONS, |out| {
                out.put_zeros(4);
                put_instructions(out, Version::V13, i, Known::default())
            })?,
        }
    }
    if c.action_set.is_empty() { Ok(()) } else { put_actions(out, v, ACTION_SET, &c.action_set) }
}
