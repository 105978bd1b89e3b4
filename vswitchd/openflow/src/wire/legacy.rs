//! The actions of OpenFlow 1.0, and the fixed sets of OpenFlow 1.1 (OpenFlow 1.0.1 5.2.4, OpenFlow 1.1.0 A.2.5).
//!
//! What OpenFlow 1.0 lacks is said by Nicira's actions where there is one, and not at all where there is none: a push of a
//! VLAN tag comes with the set of its id, and action sets do not exist.

use flow::FieldId;

use super::actions::{byte_argument, finish, header, output_port, short_argument, word};
use super::cursor::{Put, Reader};
use super::{EncodeError, nicira, ports};
use crate::action::Action;
use crate::error::{BadAction, ErrorCode};
use crate::number::{PortNo, QueueNo};
use crate::version::Version;

const OUTPUT: u16 = 0;
const SET_VLAN_VID: u16 = 1;
const SET_VLAN_PCP: u16 = 2;
const STRIP_VLAN10: u16 = 3;
const ENQUEUE10: u16 = 11;

/// The sets of a field: OpenFlow 1.0's number, OpenFlow 1.1's number, the field.
const SETS: &[(Option<u16>, u16, FieldId)] = &[
    (Some(4), 3, FieldId::EthSrc),
    (Some(5), 4, FieldId::EthDst),
    (Some(6), 5, FieldId::NwSrc),
    (Some(7), 6, FieldId::NwDst),
    (Some(8), 7, FieldId::IpDscp),
    (None, 8, FieldId::IpEcn),
    (Some(9), 9, FieldId::TpSrc),
    (Some(10), 10, FieldId::TpDst),
    (None, 13, FieldId::MplsLabel),
    (None, 14, FieldId::MplsTc),
];

/// Reads an action of OpenFlow 1.0 after its header.
pub(super) fn read10(kind: u16, r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    Ok(match kind {
        OUTPUT => {
            let port = output_port(ports::from16(r.u16()?))?;
            Action::Output { port, max_len: r.u16()? }
        }
        SET_VLAN_VID => Action::SetVlanVid { vid: vid(r)?, push: true },
        SET_VLAN_PCP => Action::SetVlanPcp { pcp: pcp(r)?, push: true },
        STRIP_VLAN10 => {
            r.skip(4)?;
            Action::StripVlan
        }
        ENQUEUE10 => {
            let port = ports::from16(r.u16()?);
            r.skip(6)?;
            if !port.is_port() && port != PortNo::IN_PORT {
                return Err(BadAction::BadOutPort.into());
            }
            Action::Enqueue { port, queue: QueueNo(r.u32()?) }
        }
        _ => match SETS.iter().find(|(n, ..)| *n == Some(kind)) {
            Some((.., field)) => read_set(*field, r)?,
            None => return Err(BadAction::BadType.into()),
        },
    })
}

/// Reads a fixed set of OpenFlow 1.1 after its header.
pub(super) fn read11(kind: u16, r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    Ok(match kind {
        SET_VLAN_VID => Action::SetVlanVid { vid: vid(r)?, push: false },
        SET_VLAN_PCP => Action::SetVlanPcp { pcp: pcp(r)?, push: false },
        _ => match SETS.iter().find(|(_, n, _)| *n == kind) {
            Some((.., field)) => read_set(*field, r)?,
            None => return Err(BadAction::BadType.into()),
        },
    })
}

fn vid(r: &mut Reader<'_>) -> Result<u16, ErrorCode> {
    let v = short_argument(r)?;
    if v > 0xfff { Err(BadAction::BadArgument.into()) } else { Ok(v) }
}

fn pcp(r: &mut Reader<'_>) -> Result<u8, ErrorCode> {
    let v = byte_argument(r)?;
    if v > 7 { Err(BadAction::BadArgument.into()) } else { Ok(v) }
}

fn read_set(field: FieldId, r: &mut Reader<'_>) -> Result<Action, ErrorCode> {
    let value = match field {
        FieldId::EthSrc | FieldId::EthDst => {
            let v = r.number(6)? as u64;
            r.skip(6)?;
            v
        }
        // The type of service without its lower two bits.
        FieldId::IpDscp => match byte_argument(r)? {
            v if v & 3 == 0 => u64::from(v >> 2),
            _ => return Err(BadAction::BadArgument.into()),
        },
        FieldId::TpSrc | FieldId::TpDst => short_argument(r)?.into(),
        FieldId::IpEcn | FieldId::MplsTc => byte_argument(r)?.into(),
        _ => r.u32()?.into(),
    };
    if u128::from(value) > field.info().max() {
        return Err(BadAction::BadArgument.into());
    }
    Ok(Action::SetLegacy { field, value })
}

/// Whether `v` has a fixed set for the field.
pub(super) fn has(v: Version, field: FieldId) -> bool {
    let canon = match field {
        FieldId::TcpSrc | FieldId::UdpSrc | FieldId::SctpSrc => FieldId::TpSrc,
        FieldId::TcpDst | FieldId::UdpDst | FieldId::SctpDst => FieldId::TpDst,
        FieldId::VlanPcp | FieldId::VlanVid => return true,
        f => f,
    };
    let found = SETS.iter().find(|(.., f)| *f == canon);
    found.is_some_and(|(v10, ..)| v == Version::V11 || v10.is_some())
}

/// The fixed set that sets all bits of a field as a set-field does.
pub(super) fn of_set_field(field: FieldId, value: u128) -> Action {
    match field {
        FieldId::VlanVid => Action::SetVlanVid { vid: value as u16 & 0xfff, push: false },
        FieldId::VlanPcp => Action::SetVlanPcp { pcp: value as u8, push: false },
        f if matches!(f.info().canon, FieldId::TpSrc | FieldId::TpDst) => {
            Action::SetLegacy { field: f.info().canon, value: value as u64 }
        }
        f => Action::SetLegacy { field: f, value: value as u64 },
    }
}

/// The field of a set-field that does what a fixed set does for packets of an IP protocol.
pub(super) fn set_field_of(field: FieldId, proto: u8) -> Option<FieldId> {
    use FieldId::*;
    Some(match (field, proto) {
        (TpSrc, 6) => TcpSrc,
        (TpSrc, 17) => UdpSrc,
        (TpSrc, 132) => SctpSrc,
        (TpDst, 6) => TcpDst,
        (TpDst, 17) => UdpDst,
        (TpDst, 132) => SctpDst,
        (TpSrc | TpDst, _) => return None,
        (f, _) => f,
    })
}

/// Appends the set of a field under a number.
fn put_set(out: &mut Vec<u8>, number: u16, field: FieldId, value: u64) {
    match field {
        FieldId::EthSrc | FieldId::EthDst => {
            header(out, number, 16);
            out.put_number(value.into(), 6);
            out.put_zeros(6);
        }
        FieldId::IpDscp => word(out, number, (value as u32) << 26),
        FieldId::TpSrc | FieldId::TpDst => word(out, number, (value as u32) << 16),
        FieldId::IpEcn | FieldId::MplsTc => word(out, number, (value as u32) << 24),
        _ => word(out, number, value as u32),
    }
}

/// Appends a fixed set of OpenFlow 1.1.
pub(super) fn put11(out: &mut Vec<u8>, a: &Action) -> Result<(), EncodeError> {
    match a {
        Action::SetVlanVid { vid, .. } => word(out, SET_VLAN_VID, u32::from(*vid) << 16),
        Action::SetVlanPcp { pcp, .. } => word(out, SET_VLAN_PCP, u32::from(*pcp) << 24),
        Action::SetLegacy { field, value } => match SETS.iter().find(|(.., f)| f == field) {
            Some((_, number, _)) => put_set(out, *number, *field, *value),
            None => return Err(EncodeError::Action),
        },
        _ => return Err(EncodeError::Action),
    }
    Ok(())
}

/// Appends an action as OpenFlow 1.0 has it.
pub(super) fn put10(out: &mut Vec<u8>, a: &Action, depth: usize) -> Result<(), EncodeError> {
    match a {
        Action::Output { port, max_len } => {
            header(out, OUTPUT, 8);
            out.put_u16(ports::to16(*port)?);
            out.put_u16(*max_len);
        }
        Action::SetVlanVid { vid, .. } => word(out, SET_VLAN_VID, u32::from(*vid) << 16),
        Action::SetVlanPcp { pcp, .. } => word(out, SET_VLAN_PCP, u32::from(*pcp) << 24),
        Action::StripVlan | Action::PopVlan => word(out, STRIP_VLAN10, 0),
        // The set of an id pushes a tag where there is none.
        Action::PushVlan(_) => {}
        Action::Enqueue { port, queue } => {
            let start = out.len();
            header(out, ENQUEUE10, 0);
            out.put_u16(ports::to16(*port)?);
            out.put_zeros(6);
            out.put_u32(queue.0);
            finish(out, start);
        }
        Action::SetLegacy { field, value } => match SETS.iter().find(|(.., f)| f == field) {
            Some((Some(number), ..)) => put_set(out, *number, *field, *value),
            _ => nicira::put_legacy10(out, *field, *value)?,
        },
        Action::SetField { field, value, mask } => {
            let exact = *mask == field.ones();
            if exact && has(Version::V10, *field) {
                put10(out, &of_set_field(*field, *value), depth)?;
            } else {
                nicira::put_loads(out, Version::V10, *field, *value, *mask)?;
            }
        }
        Action::SetNwTtl(t) => {
            let field = FieldId::NwTtl;
            nicira::put_loads(out, Version::V10, field, (*t).into(), field.info().max())?;
        }
        Action::Meter(_) => {}
        _ => nicira::put_action(out, Version::V10, a, depth)?,
    }
    Ok(())
}
