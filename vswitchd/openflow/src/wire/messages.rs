//! Message bodies (OpenFlow 1.3.5 7.3, 7.4), but for those with a file of their own.

use super::actions::{put_actions, read_actions};
use super::cursor::{Put, Reader};
use super::instructions::{put_instructions, read_instructions};
use super::matches::{put_match, read_match};
use super::{
    EncodeError, MAX_MESSAGE_BYTES, async_config, finish, groups, meters, multipart, ports, put_header,
};
use crate::error::{BadAction, BadInstruction, BadRequest, ErrorCode, FlowModFailed, RoleRequestFailed};
use crate::flow_mod::{FlowMod, FlowModCommand, FlowModFlags};
use crate::message::{
    Body, Capabilities, ErrorMessage, FeaturesReply, FlowRemoved, FlowRemovedReason, Message, PacketIn,
    PacketInReason, PacketOut, Role, RoleMessage, SwitchConfig, TableMod,
};
use crate::number::{BufferId, GroupId, PortNo, TableId};
use crate::version::{Version, VersionSet};

pub(super) const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
const EXPERIMENTER: u8 = 4;
const FEATURES_REQUEST: u8 = 5;
const FEATURES_REPLY: u8 = 6;
const GET_CONFIG_REQUEST: u8 = 7;
const GET_CONFIG_REPLY: u8 = 8;
const SET_CONFIG: u8 = 9;
const PACKET_IN: u8 = 10;
const FLOW_REMOVED: u8 = 11;
const PORT_STATUS: u8 = 12;
const PACKET_OUT: u8 = 13;
const FLOW_MOD: u8 = 14;
const GROUP_MOD: u8 = 15;
const PORT_MOD: u8 = 16;
const TABLE_MOD: u8 = 17;
const MULTIPART_REQUEST: u8 = 18;
pub(super) const MULTIPART_REPLY: u8 = 19;
const BARRIER_REQUEST: u8 = 20;
const BARRIER_REPLY: u8 = 21;
const QUEUE_GET_CONFIG_REQUEST: u8 = 22;
const QUEUE_GET_CONFIG_REPLY: u8 = 23;
const ROLE_REQUEST: u8 = 24;
const ROLE_REPLY: u8 = 25;
const GET_ASYNC_REQUEST: u8 = 26;
const GET_ASYNC_REPLY: u8 = 27;
const SET_ASYNC: u8 = 28;
const METER_MOD: u8 = 29;

const NO_BUFFER: u32 = 0xffff_ffff;
/// `OFPHET_VERSIONBITMAP`.
const HELLO_VERSION_BITMAP: u16 = 1;

/// Reads a hello sent in wire version `version`. Elements we do not know are passed over; a damaged one ends them.
pub(super) fn read_hello(version: u8, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let mut versions = VersionSet::up_to(version);
    while r.left() >= 4 {
        let (kind, len) = (r.u16()?, usize::from(r.u16()?));
        let Some(mut element) = len.checked_sub(4).and_then(|n| r.sub(n, BadRequest::BadLen).ok()) else {
            break;
        };
        if kind == HELLO_VERSION_BITMAP && element.left() >= 4 {
            versions = VersionSet(element.u32()?);
        }
        // Padding between elements, which the last one may lack.
        let padding = len.next_multiple_of(8) - len;
        if r.skip(padding).is_err() {
            break;
        }
    }
    Ok(Body::Hello(versions))
}

/// Reads the body of a message of type `kind`; all of `r` must be used.
pub(super) fn read_body(kind: u8, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let body = match kind {
        ERROR => read_error(r)?,
        ECHO_REQUEST => Body::EchoRequest(r.rest().to_vec()),
        ECHO_REPLY => Body::EchoReply(r.rest().to_vec()),
        EXPERIMENTER => {
            Body::Experimenter { experimenter: r.u32()?, exp_type: r.u32()?, data: r.rest().to_vec() }
        }
        FEATURES_REQUEST => Body::FeaturesRequest,
        FEATURES_REPLY => read_features(r)?,
        GET_CONFIG_REQUEST => Body::GetConfigRequest,
        GET_CONFIG_REPLY => Body::GetConfigReply(SwitchConfig { frag: r.u16()?, miss_send_len: r.u16()? }),
        SET_CONFIG => Body::SetConfig(SwitchConfig { frag: r.u16()?, miss_send_len: r.u16()? }),
        PACKET_IN => Body::PacketIn(Box::new(read_packet_in(r)?)),
        FLOW_REMOVED => Body::FlowRemoved(Box::new(read_flow_removed(r)?)),
        PORT_STATUS => ports::read_status(r)?,
        PACKET_OUT => Body::PacketOut(read_packet_out(r)?),
        FLOW_MOD => Body::FlowMod(Box::new(read_flow_mod(r)?)),
        GROUP_MOD => groups::read_mod(r)?,
        PORT_MOD => ports::read_mod(r)?,
        TABLE_MOD => {
            let table = TableId(r.u8()?);
            r.skip(3)?;
            Body::TableMod(TableMod { table, config: r.u32()? })
        }
        MULTIPART_REQUEST => multipart::read_request(r)?,
        MULTIPART_REPLY => multipart::read_reply(r)?,
        BARRIER_REQUEST => Body::BarrierRequest,
        BARRIER_REPLY => Body::BarrierReply,
        QUEUE_GET_CONFIG_REQUEST => {
            let port = PortNo(r.u32()?);
            r.skip(4)?;
            Body::QueueGetConfigRequest(port)
        }
        QUEUE_GET_CONFIG_REPLY => ports::read_queues(r)?,
        ROLE_REQUEST => Body::RoleRequest(read_role(r)?),
        ROLE_REPLY => Body::RoleReply(read_role(r)?),
        GET_ASYNC_REQUEST => Body::GetAsyncRequest,
        GET_ASYNC_REPLY => Body::GetAsyncReply(async_config::read(r)?),
        SET_ASYNC => Body::SetAsync(async_config::read(r)?),
        METER_MOD => meters::read_mod(r)?,
        _ => return Err(BadRequest::BadType.into()),
    };
    r.finish()?;
    Ok(body)
}

/// Appends a message.
pub(super) fn put_message(version: Version, msg: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let start = out.len();
    let begin = |out: &mut Vec<u8>, kind: u8| put_header(out, version, kind, msg.xid);
    let room = |out: &Vec<u8>| MAX_MESSAGE_BYTES - (out.len() - start);
    match &msg.body {
        Body::Hello(versions) => {
            out.put_u8(versions.highest().max(1));
            out.put_u8(HELLO);
            out.put_u16(0);
            out.put_u32(msg.xid);
            out.put_u16(HELLO_VERSION_BITMAP);
            out.put_u16(8);
            out.put_u32(versions.0);
        }
        Body::Error(e) => {
            begin(out, ERROR);
            let (kind, code) = e.code.to_wire();
            out.put_u16(kind);
            out.put_u16(code);
            if let ErrorCode::Experimenter { experimenter, .. } = e.code {
                out.put_u32(experimenter);
            }
            put_cut(out, &e.data, room(out));
        }
        Body::EchoRequest(d) | Body::EchoReply(d) => {
            begin(out, if matches!(msg.body, Body::EchoRequest(_)) { ECHO_REQUEST } else { ECHO_REPLY });
            put_cut(out, d, room(out));
        }
        Body::Experimenter { experimenter, exp_type, data } => {
            begin(out, EXPERIMENTER);
            out.put_u32(*experimenter);
            out.put_u32(*exp_type);
            out.extend_from_slice(data);
        }
        Body::FeaturesRequest => begin(out, FEATURES_REQUEST),
        Body::FeaturesReply(f) => {
            begin(out, FEATURES_REPLY);
            out.put_u64(f.datapath_id);
            out.put_u32(f.n_buffers);
            out.put_u8(f.n_tables);
            out.put_u8(f.auxiliary_id);
            out.put_zeros(2);
            out.put_u32(f.capabilities.0);
            out.put_zeros(4);
        }
        Body::GetConfigRequest => begin(out, GET_CONFIG_REQUEST),
        Body::GetConfigReply(c) | Body::SetConfig(c) => {
            begin(out, if matches!(msg.body, Body::SetConfig(_)) { SET_CONFIG } else { GET_CONFIG_REPLY });
            out.put_u16(c.frag);
            out.put_u16(c.miss_send_len);
        }
        Body::PacketIn(p) => {
            begin(out, PACKET_IN);
            out.put_u32(p.buffer.map_or(NO_BUFFER, |b| b.0));
            out.put_u16(p.total_len);
            out.put_u8(p.reason as u8);
            out.put_u8(p.table.0);
            out.put_u64(p.cookie);
            put_match(out, &p.matches)?;
            out.put_zeros(2);
            put_cut(out, &p.data, room(out));
        }
        Body::FlowRemoved(f) => {
            begin(out, FLOW_REMOVED);
            put_flow_removed(out, f)?;
        }
        Body::PortStatus(s) => {
            begin(out, PORT_STATUS);
            ports::put_status(out, s);
        }
        Body::PacketOut(p) => {
            begin(out, PACKET_OUT);
            out.put_u32(p.buffer.map_or(NO_BUFFER, |b| b.0));
            out.put_u32(p.in_port.0);
            let len_at = out.len();
            out.put_u16(0);
            out.put_zeros(6);
            let actions = out.len();
            put_actions(out, &p.actions)?;
            out.patch_u16(len_at, out.len() - actions);
            out.extend_from_slice(&p.data);
        }
        Body::FlowMod(f) => {
            begin(out, FLOW_MOD);
            put_flow_mod(out, f)?;
        }
        Body::GroupMod(g) => {
            begin(out, GROUP_MOD);
            groups::put_mod(out, g)?;
        }
        Body::PortMod(p) => {
            begin(out, PORT_MOD);
            ports::put_mod(out, p);
        }
        Body::TableMod(t) => {
            begin(out, TABLE_MOD);
            out.put_u8(t.table.0);
            out.put_zeros(3);
            out.put_u32(t.config);
        }
        Body::MultipartRequest { more, request } => {
            begin(out, MULTIPART_REQUEST);
            multipart::put_request(out, *more, request)?;
        }
        Body::MultipartReply { more, reply } => return multipart::put_reply(out, msg.xid, *more, reply),
        Body::BarrierRequest => begin(out, BARRIER_REQUEST),
        Body::BarrierReply => begin(out, BARRIER_REPLY),
        Body::QueueGetConfigRequest(port) => {
            begin(out, QUEUE_GET_CONFIG_REQUEST);
            out.put_u32(port.0);
            out.put_zeros(4);
        }
        Body::QueueGetConfigReply { port, queues } => {
            begin(out, QUEUE_GET_CONFIG_REPLY);
            ports::put_queues(out, *port, queues);
        }
        Body::RoleRequest(r) | Body::RoleReply(r) => {
            begin(out, if matches!(msg.body, Body::RoleRequest(_)) { ROLE_REQUEST } else { ROLE_REPLY });
            out.put_u32(r.role as u32);
            out.put_zeros(4);
            out.put_u64(r.generation_id);
        }
        Body::GetAsyncRequest => begin(out, GET_ASYNC_REQUEST),
        Body::GetAsyncReply(a) | Body::SetAsync(a) => {
            begin(out, if matches!(msg.body, Body::SetAsync(_)) { SET_ASYNC } else { GET_ASYNC_REPLY });
            async_config::put(out, a);
        }
        Body::MeterMod(m) => {
            begin(out, METER_MOD);
            meters::put_mod(out, m);
        }
    }
    finish(out, start)
}

/// Appends as much of `data` as there is room for.
fn put_cut(out: &mut Vec<u8>, data: &[u8], room: usize) {
    out.extend_from_slice(&data[..data.len().min(room)]);
}

fn read_error(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (kind, code) = (r.u16()?, r.u16()?);
    let code = if kind == 0xffff {
        ErrorCode::Experimenter { experimenter: r.u32()?, exp_type: code }
    } else {
        ErrorCode::from_wire(kind, code)
    };
    Ok(Body::Error(ErrorMessage { code, data: r.rest().to_vec() }))
}

fn read_features(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (datapath_id, n_buffers, n_tables, auxiliary_id) = (r.u64()?, r.u32()?, r.u8()?, r.u8()?);
    r.skip(2)?;
    let capabilities = Capabilities(r.u32()?);
    r.skip(4)?;
    Ok(Body::FeaturesReply(FeaturesReply { datapath_id, n_buffers, n_tables, auxiliary_id, capabilities }))
}

fn buffer(v: u32) -> Option<BufferId> {
    (v != NO_BUFFER).then_some(BufferId(v))
}

fn read_packet_in(r: &mut Reader<'_>) -> Result<PacketIn, ErrorCode> {
    let buffer = buffer(r.u32()?);
    let total_len = r.u16()?;
    let reason = match r.u8()? {
        0 => PacketInReason::NoMatch,
        1 => PacketInReason::Action,
        2 => PacketInReason::InvalidTtl,
        _ => return Err(BadRequest::BadType.into()),
    };
    let table = TableId(r.u8()?);
    let cookie = r.u64()?;
    let matches = read_match(r)?;
    r.skip(2)?;
    Ok(PacketIn { buffer, total_len, reason, table, cookie, matches, data: r.rest().to_vec() })
}

fn read_flow_removed(r: &mut Reader<'_>) -> Result<FlowRemoved, ErrorCode> {
    use FlowRemovedReason::*;
    let (cookie, priority) = (r.u64()?, r.u16()?);
    let reason = *[IdleTimeout, HardTimeout, Delete, GroupDelete, MeterDelete, Eviction]
        .get(usize::from(r.u8()?))
        .ok_or(BadRequest::BadType)?;
    Ok(FlowRemoved {
        cookie,
        priority,
        reason,
        table: TableId(r.u8()?),
        duration_sec: r.u32()?,
        duration_nsec: r.u32()?,
        idle_timeout: r.u16()?,
        hard_timeout: r.u16()?,
        packets: r.u64()?,
        bytes: r.u64()?,
        matches: read_match(r)?,
    })
}

fn put_flow_removed(out: &mut Vec<u8>, f: &FlowRemoved) -> Result<(), EncodeError> {
    out.put_u64(f.cookie);
    out.put_u16(f.priority);
    out.put_u8(f.reason as u8);
    out.put_u8(f.table.0);
    out.put_u32(f.duration_sec);
    out.put_u32(f.duration_nsec);
    out.put_u16(f.idle_timeout);
    out.put_u16(f.hard_timeout);
    out.put_u64(f.packets);
    out.put_u64(f.bytes);
    put_match(out, &f.matches)
}

fn read_packet_out(r: &mut Reader<'_>) -> Result<PacketOut, ErrorCode> {
    let buffer = buffer(r.u32()?);
    let in_port = PortNo(r.u32()?);
    let reserved = [PortNo::CONTROLLER, PortNo::LOCAL, PortNo::IN_PORT, PortNo::ANY];
    if !in_port.is_port() && !reserved.contains(&in_port) {
        return Err(BadRequest::BadPort.into());
    }
    let len = usize::from(r.u16()?);
    r.skip(6)?;
    let actions = read_actions(&mut r.sub(len, BadAction::BadLen)?)?;
    Ok(PacketOut { buffer, in_port, actions, data: r.rest().to_vec() })
}

fn read_flow_mod(r: &mut Reader<'_>) -> Result<FlowMod, ErrorCode> {
    use FlowModCommand::*;
    let (cookie, cookie_mask, table) = (r.u64()?, r.u64()?, TableId(r.u8()?));
    let command = r.u8()?;
    let mut f = FlowMod {
        command: Add,
        cookie,
        cookie_mask,
        table,
        idle_timeout: r.u16()?,
        hard_timeout: r.u16()?,
        priority: r.u16()?,
        buffer: buffer(r.u32()?),
        out_port: PortNo(r.u32()?),
        out_group: GroupId(r.u32()?),
        flags: FlowModFlags(r.u16()?),
        importance: 0,
        matches: {
            r.skip(2)?;
            read_match(r)?
        },
        instructions: Default::default(),
    };
    f.command = *[Add, Modify, ModifyStrict, Delete, DeleteStrict]
        .get(usize::from(command))
        .ok_or(FlowModFailed::BadCommand)?;
    if f.flags.0 & !FlowModFlags::KNOWN.0 != 0 {
        return Err(FlowModFailed::BadFlags.into());
    }
    f.instructions = read_instructions(&mut Reader::new(r.rest(), BadInstruction::BadLen))?;
    Ok(f)
}

fn put_flow_mod(out: &mut Vec<u8>, f: &FlowMod) -> Result<(), EncodeError> {
    out.put_u64(f.cookie);
    out.put_u64(f.cookie_mask);
    out.put_u8(f.table.0);
    out.put_u8(f.command as u8);
    out.put_u16(f.idle_timeout);
    out.put_u16(f.hard_timeout);
    out.put_u16(f.priority);
    out.put_u32(f.buffer.map_or(NO_BUFFER, |b| b.0));
    out.put_u32(f.out_port.0);
    out.put_u32(f.out_group.0);
    out.put_u16(f.flags.0);
    out.put_zeros(2);
    put_match(out, &f.matches)?;
    put_instructions(out, &f.instructions)
}

fn read_role(r: &mut Reader<'_>) -> Result<RoleMessage, ErrorCode> {
    let role = match r.u32()? {
        0 => Role::NoChange,
        1 => Role::Equal,
        2 => Role::Master,
        3 => Role::Slave,
        _ => return Err(RoleRequestFailed::BadRole.into()),
    };
    r.skip(4)?;
    Ok(RoleMessage { role, generation_id: r.u64()? })
}
