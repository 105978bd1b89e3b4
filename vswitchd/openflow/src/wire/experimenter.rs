//! Nicira's and ONF's messages: what a version lacks and a later one has, and what no version has.
//!
//! Each is `experimenter(32) subtype(32) body`. Messages of anybody else, and Nicira's that are not known here, are kept
//! as they are; whoever gets them answers `OFPBRC_BAD_EXPERIMENTER` or `OFPBRC_BAD_EXP_TYPE`.

use super::cursor::{Put, Reader};
use super::kind::Kind;
use super::messages::put_nicira_header;
use super::{
    Dialect, EncodeError, NICIRA, ONF, async_config, controllers, ct_flush, flow_messages, groups, packet_in,
    put_header,
};
use crate::error::{BadRequest, ErrorCode, Nicira, RoleRequestFailed};
use crate::message::{Body, FlowFormat, Message, PacketInFormat, Role, RoleMessage, TlvMap, TlvTableCommand};
use crate::number::Xid;
use crate::version::Version;

// Nicira's subtypes.
const ROLE_REQUEST: u32 = 10;
const ROLE_REPLY: u32 = 11;
const SET_FLOW_FORMAT: u32 = 12;
const FLOW_MOD: u32 = 13;
const FLOW_REMOVED: u32 = 14;
const FLOW_MOD_TABLE_ID: u32 = 15;
const SET_PACKET_IN_FORMAT: u32 = 16;
const PACKET_IN: u32 = 17;
const FLOW_AGE: u32 = 18;
const SET_ASYNC: u32 = 19;
const SET_CONTROLLER_ID: u32 = 20;
const MONITOR_CANCEL: u32 = 21;
const MONITOR_PAUSED: u32 = 22;
const MONITOR_RESUMED: u32 = 23;
const TLV_TABLE_MOD: u32 = 24;
const TLV_TABLE_REQUEST: u32 = 25;
const TLV_TABLE_REPLY: u32 = 26;
const SET_ASYNC2: u32 = 27;
const RESUME: u32 = 28;
const CT_FLUSH_ZONE: u32 = 29;
const PACKET_IN2: u32 = 30;
const CT_FLUSH: u32 = 32;
const GROUP_MOD: u32 = 31;
const REQUEST_FORWARD: u32 = 132;

// ONF's subtypes, in OpenFlow 1.3.
const ONF_MONITOR_CANCEL: u32 = 1870;
const ONF_MONITOR_PAUSED: u32 = 1871;
const ONF_MONITOR_RESUMED: u32 = 1872;
const ONF_ROLE_STATUS: u32 = 1911;
const ONF_BUNDLE_CONTROL: u32 = 2300;
const ONF_BUNDLE_ADD: u32 = 2301;
const ONF_REQUEST_FORWARD: u32 = 2350;

/// Roles of Nicira's messages: "other" is equal, then master and slave.
const NX_ROLES: [Role; 3] = [Role::Equal, Role::Master, Role::Slave];

/// Reads an experimenter message from its experimenter id on.
pub(super) fn read(d: Dialect, xid: Xid, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (who, subtype) = (r.u32()?, r.u32()?);
    match who {
        NICIRA => read_nicira(d, subtype, r),
        ONF => read_onf(d, xid, subtype, r),
        experimenter => Ok(Body::Experimenter { experimenter, exp_type: subtype, data: r.rest().to_vec() }),
    }
}

fn read_nicira(d: Dialect, subtype: u32, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let v = d.version;
    let v10 = v == Version::V10;
    Ok(match subtype {
        ROLE_REQUEST | ROLE_REPLY => {
            let number = r.u32()?;
            let role = *usize::try_from(number)
                .ok()
                .and_then(|n| NX_ROLES.get(n))
                .ok_or(RoleRequestFailed::BadRole)?;
            let m = RoleMessage { role, generation_id: None };
            if subtype == ROLE_REQUEST { Body::RoleRequest(m) } else { Body::RoleReply(m) }
        }
        SET_FLOW_FORMAT if v10 => match r.u32()? {
            0 => Body::SetFlowFormat(FlowFormat::OpenFlow10),
            2 => Body::SetFlowFormat(FlowFormat::Nxm),
            _ => return Err(BadRequest::Eperm.into()),
        },
        FLOW_MOD => Body::FlowMod(Box::new(flow_messages::read_nx_mod(d, r)?)),
        FLOW_REMOVED => Body::FlowRemoved(Box::new(flow_messages::read_nx_removed(r)?)),
        FLOW_MOD_TABLE_ID => {
            let on = r.u8()? != 0;
            r.skip(7)?;
            Body::FlowModTableId(on)
        }
        SET_PACKET_IN_FORMAT => Body::SetPacketInFormat(match r.u32()? {
            0 => PacketInFormat::Standard,
            1 => PacketInFormat::Nxt,
            2 => PacketInFormat::Nxt2,
            _ => return Err(BadRequest::Eperm.into()),
        }),
        PACKET_IN => Body::PacketIn(Box::new(packet_in::read_nxt(r)?)),
        PACKET_IN2 => Body::PacketIn(Box::new(packet_in::read_nxt2(v, r)?)),
        RESUME => Body::Resume(Box::new(packet_in::read_nxt2(v, r)?)),
        FLOW_AGE => Body::FlowAge,
        SET_ASYNC => Body::SetAsync(async_config::read(Version::V13, r)?),
        SET_ASYNC2 if v < Version::V14 => Body::SetAsync(async_config::read(Version::V14, r)?),
        SET_CONTROLLER_ID => {
            if r.bytes(6)?.iter().any(|b| *b != 0) {
                return Err(Nicira::MustBeZero.into());
            }
            Body::SetControllerId(r.u16()?)
        }
        MONITOR_CANCEL if v < Version::V13 => Body::FlowMonitorCancel(r.u32()?),
        MONITOR_PAUSED if v < Version::V13 => Body::FlowMonitorPaused,
        MONITOR_RESUMED if v < Version::V13 => Body::FlowMonitorResumed,
        TLV_TABLE_MOD => {
            let command = match r.u16()? {
                0 => TlvTableCommand::Add,
                1 => TlvTableCommand::Delete,
                2 => TlvTableCommand::Clear,
                _ => return Err(Nicira::TlvBadCommand.into()),
            };
            r.skip(6)?;
            Body::TlvTableMod { command, maps: read_tlv_maps(r)? }
        }
        TLV_TABLE_REQUEST => Body::TlvTableRequest,
        TLV_TABLE_REPLY => {
            let (max_option_bytes, max_fields) = (r.u32()?, r.u16()?);
            r.skip(10)?;
            Body::TlvTableReply { max_option_bytes, max_fields, maps: read_tlv_maps(r)? }
        }
        CT_FLUSH_ZONE => {
            if r.bytes(6)?.iter().any(|b| *b != 0) {
                return Err(Nicira::MustBeZero.into());
            }
            Body::CtFlushZone(r.u16()?)
        }
        CT_FLUSH => ct_flush::read(r)?,
        // Groups in OpenFlow 1.0 have the form of OpenFlow 1.5.
        GROUP_MOD if v10 => groups::read_mod(v, r)?,
        REQUEST_FORWARD if v < Version::V13 => controllers::read_request_forward(d, r)?,
        _ => Body::Experimenter { experimenter: NICIRA, exp_type: subtype, data: r.rest().to_vec() },
    })
}

fn read_onf(d: Dialect, xid: Xid, subtype: u32, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    Ok(match subtype {
        _ if d.version != Version::V13 => {
            Body::Experimenter { experimenter: ONF, exp_type: subtype, data: r.rest().to_vec() }
        }
        ONF_MONITOR_CANCEL => Body::FlowMonitorCancel(r.u32()?),
        ONF_MONITOR_PAUSED => Body::FlowMonitorPaused,
        ONF_MONITOR_RESUMED => Body::FlowMonitorResumed,
        ONF_ROLE_STATUS => controllers::read_role_status(r)?,
        ONF_BUNDLE_CONTROL => controllers::read_bundle_control(r)?,
        ONF_BUNDLE_ADD => controllers::read_bundle_add(d, xid, r)?,
        ONF_REQUEST_FORWARD => controllers::read_request_forward(d, r)?,
        _ => Body::Experimenter { experimenter: ONF, exp_type: subtype, data: r.rest().to_vec() },
    })
}

fn read_tlv_maps(r: &mut Reader<'_>) -> Result<Vec<TlvMap>, ErrorCode> {
    let mut maps = Vec::with_capacity(r.left() / 8);
    while !r.is_empty() {
        maps.push(TlvMap { class: r.u16()?, kind: r.u8()?, bytes: r.u8()?, index: r.u16()? });
        r.skip(2)?;
    }
    Ok(maps)
}

fn put_tlv_maps(out: &mut Vec<u8>, maps: &[TlvMap]) {
    for m in maps {
        out.put_u16(m.class);
        out.put_u8(m.kind);
        out.put_u8(m.bytes);
        out.put_u16(m.index);
        out.put_zeros(2);
    }
}

/// Appends a message as an extension of `d`'s version.
pub(super) fn put(d: Dialect, msg: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let v = d.version;
    let start = out.len();
    let no = Err(EncodeError::Version(v));
    let nicira = |out: &mut Vec<u8>, subtype: u32| put_nicira_header(out, v, msg.xid, subtype);
    match &msg.body {
        Body::RoleRequest(r) | Body::RoleReply(r) => {
            let request = matches!(msg.body, Body::RoleRequest(_));
            nicira(out, if request { ROLE_REQUEST } else { ROLE_REPLY })?;
            let number = NX_ROLES.iter().position(|x| *x == r.role).ok_or(EncodeError::Version(v))?;
            out.put_u32(number as u32);
        }
        Body::SetFlowFormat(f) if v == Version::V10 => {
            nicira(out, SET_FLOW_FORMAT)?;
            out.put_u32(*f as u32);
        }
        Body::FlowMod(f) => {
            nicira(out, FLOW_MOD)?;
            flow_messages::put_nx_mod(out, v, f)?;
        }
        Body::FlowRemoved(f) => {
            nicira(out, FLOW_REMOVED)?;
            flow_messages::put_nx_removed(out, v, f)?;
        }
        Body::FlowModTableId(on) => {
            nicira(out, FLOW_MOD_TABLE_ID)?;
            out.put_u8((*on).into());
            out.put_zeros(7);
        }
        Body::SetPacketInFormat(f) => {
            nicira(out, SET_PACKET_IN_FORMAT)?;
            out.put_u32(*f as u32);
        }
        Body::PacketIn(p) if d.packet_in == PacketInFormat::Nxt => {
            nicira(out, PACKET_IN)?;
            packet_in::put_nxt(out, v, p, start)?;
        }
        Body::PacketIn(p) => {
            nicira(out, PACKET_IN2)?;
            packet_in::put_nxt2(out, v, p, start)?;
        }
        Body::Resume(p) => {
            nicira(out, RESUME)?;
            packet_in::put_nxt2(out, v, p, start)?;
        }
        Body::FlowAge => nicira(out, FLOW_AGE)?,
        Body::SetAsync(a) => {
            nicira(out, SET_ASYNC)?;
            async_config::put(out, Version::V13, a);
        }
        Body::SetControllerId(id) => {
            nicira(out, SET_CONTROLLER_ID)?;
            out.put_zeros(6);
            out.put_u16(*id);
        }
        Body::TlvTableMod { command, maps } => {
            nicira(out, TLV_TABLE_MOD)?;
            out.put_u16(*command as u16);
            out.put_zeros(6);
            put_tlv_maps(out, maps);
        }
        Body::TlvTableRequest => nicira(out, TLV_TABLE_REQUEST)?,
        Body::TlvTableReply { max_option_bytes, max_fields, maps } => {
            nicira(out, TLV_TABLE_REPLY)?;
            out.put_u32(*max_option_bytes);
            out.put_u16(*max_fields);
            out.put_zeros(10);
            put_tlv_maps(out, maps);
        }
        Body::CtFlushZone(zone) => {
            nicira(out, CT_FLUSH_ZONE)?;
            out.put_zeros(6);
            out.put_u16(*zone);
        }
        Body::CtFlush { zone, which } => {
            nicira(out, CT_FLUSH)?;
            ct_flush::put(out, *zone, which);
        }
        Body::GroupMod(g) if v == Version::V10 => {
            nicira(out, GROUP_MOD)?;
            groups::put_mod(out, v, g)?;
        }
        Body::FlowMonitorCancel(id) => {
            monitor(d, msg.xid, out, MONITOR_CANCEL, ONF_MONITOR_CANCEL)?;
            out.put_u32(*id);
        }
        Body::FlowMonitorPaused => monitor(d, msg.xid, out, MONITOR_PAUSED, ONF_MONITOR_PAUSED)?,
        Body::FlowMonitorResumed => monitor(d, msg.xid, out, MONITOR_RESUMED, ONF_MONITOR_RESUMED)?,
        Body::RequestForward(inner) => {
            monitor(d, msg.xid, out, REQUEST_FORWARD, ONF_REQUEST_FORWARD)?;
            controllers::put_inner(out, d, inner)?;
        }
        _ if v != Version::V13 => return no,
        Body::RoleStatus { role, reason, generation_id } => {
            onf(d, msg.xid, out, ONF_ROLE_STATUS)?;
            controllers::put_role_status(out, *role, *reason, *generation_id);
        }
        Body::BundleControl(b) => {
            onf(d, msg.xid, out, ONF_BUNDLE_CONTROL)?;
            controllers::put_bundle_control(out, b);
        }
        Body::BundleAdd { bundle, flags, message } => {
            onf(d, msg.xid, out, ONF_BUNDLE_ADD)?;
            controllers::put_bundle_add(out, d, msg.xid, *bundle, *flags, message)?;
        }
        _ => return no,
    }
    Ok(())
}

/// Begins a message that is Nicira's before OpenFlow 1.3, ONF's in it and the version's own after it.
fn monitor(d: Dialect, xid: Xid, out: &mut Vec<u8>, nicira: u32, onf_type: u32) -> Result<(), EncodeError> {
    match d.version {
        Version::V13 => onf(d, xid, out, onf_type),
        v if v < Version::V13 => put_nicira_header(out, v, xid, nicira),
        v => Err(EncodeError::Version(v)),
    }
}

fn onf(d: Dialect, xid: Xid, out: &mut Vec<u8>, subtype: u32) -> Result<(), EncodeError> {
    let v = d.version;
    let number = Kind::Experimenter.to_wire(v).ok_or(EncodeError::Version(v))?;
    put_header(out, v, number, xid);
    out.put_u32(ONF);
    out.put_u32(subtype);
    Ok(())
}
