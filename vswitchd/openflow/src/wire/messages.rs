//! Messages: which reader and writer a body has, and the small bodies (OpenFlow 1.3.5 7.3, 7.4; OpenFlow 1.0.1 5.3, 5.4).

use super::actions::{put_actions, read_actions};
use super::cursor::{Put, Reader};
use super::kind::{self, Kind};
use super::matches::{put_match, read_match};
use super::{
    Dialect, EncodeError, HEADER_BYTES, MAX_MESSAGE_BYTES, NICIRA, async_config, controllers, experimenter,
    finish, flow_messages, groups, meters, multipart, packet_in, ports, put_header, queues, tables,
};
use crate::error::{BadAction, BadRequest, ErrorCode, RoleRequestFailed, WireError};
use crate::message::{
    AsyncConfig, Body, Capabilities, ErrorMessage, FeaturesReply, Message, PacketOut, Role, RoleMessage,
    SwitchConfig,
};
use crate::number::{BufferId, PortNo, Xid};
use crate::version::{Version, VersionSet};

pub(super) const NO_BUFFER: u32 = 0xffff_ffff;
/// `OFPHET_VERSIONBITMAP`.
const HELLO_VERSION_BITMAP: u16 = 1;
/// Type and code of Nicira's errors in OpenFlow 1.0 and 1.1.
const NX_VENDOR_ERROR: (u16, u16) = (0xb0c2, 0);

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

/// Reads the body of a message whose type has the number `number`; all of `r` must be used.
pub(super) fn read_body(d: Dialect, number: u8, xid: Xid, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let v = d.version;
    let body = match Kind::from_wire(v, number).ok_or(BadRequest::BadType)? {
        Kind::Hello => return Err(BadRequest::BadType.into()),
        Kind::Error => read_error(v, r)?,
        Kind::EchoRequest => Body::EchoRequest(r.rest().to_vec()),
        Kind::EchoReply => Body::EchoReply(r.rest().to_vec()),
        Kind::Experimenter => experimenter::read(d, xid, r)?,
        Kind::FeaturesRequest => Body::FeaturesRequest,
        Kind::FeaturesReply => read_features(v, r)?,
        Kind::GetConfigRequest => Body::GetConfigRequest,
        Kind::GetConfigReply => {
            Body::GetConfigReply(SwitchConfig { frag: r.u16()?, miss_send_len: r.u16()? })
        }
        Kind::SetConfig => Body::SetConfig(SwitchConfig { frag: r.u16()?, miss_send_len: r.u16()? }),
        Kind::PacketIn => Body::PacketIn(Box::new(packet_in::read(v, r)?)),
        Kind::FlowRemoved => Body::FlowRemoved(Box::new(flow_messages::read_removed(v, r)?)),
        Kind::PortStatus => ports::read_status(v, r)?,
        Kind::PacketOut => Body::PacketOut(Box::new(read_packet_out(v, r)?)),
        Kind::FlowMod => Body::FlowMod(Box::new(flow_messages::read_mod(d, r)?)),
        Kind::GroupMod => groups::read_mod(v, r)?,
        Kind::PortMod => ports::read_mod(v, r)?,
        Kind::TableMod => tables::read_mod(v, r)?,
        Kind::MultipartRequest => multipart::read_request(v, r)?,
        Kind::MultipartReply => multipart::read_reply(v, r)?,
        Kind::BarrierRequest => Body::BarrierRequest,
        Kind::BarrierReply => Body::BarrierReply,
        Kind::QueueGetConfigRequest => queues::read_config_request(v, r)?,
        Kind::QueueGetConfigReply => queues::read_config_reply(v, r)?,
        Kind::RoleRequest => Body::RoleRequest(read_role(r)?),
        Kind::RoleReply => Body::RoleReply(read_role(r)?),
        Kind::GetAsyncRequest => Body::GetAsyncRequest,
        Kind::GetAsyncReply => {
            Body::GetAsyncReply(AsyncConfig { given: AsyncConfig::ALL_GIVEN, ..async_config::read(v, r)? })
        }
        Kind::SetAsync => Body::SetAsync(async_config::read(v, r)?),
        Kind::MeterMod => meters::read_mod(r)?,
        Kind::RoleStatus => controllers::read_role_status(r)?,
        Kind::TableStatus => tables::read_status(r)?,
        Kind::RequestForward => controllers::read_request_forward(d, r)?,
        Kind::BundleControl => controllers::read_bundle_control(r)?,
        Kind::BundleAdd => controllers::read_bundle_add(d, xid, r)?,
        Kind::ControllerStatus => controllers::read_status(r)?,
    };
    r.finish()?;
    Ok(body)
}

/// Appends a message.
pub(super) fn put_message(d: Dialect, msg: &Message, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let v = d.version;
    let start = out.len();
    // A body whose type the version lacks may be an extension in it.
    let Some(kind) = kind_of(&msg.body) else {
        experimenter::put(d, msg, out)?;
        return finish(out, start);
    };
    let as_extension = match &msg.body {
        Body::PacketIn(_) => d.packet_in != crate::message::PacketInFormat::Standard,
        Body::FlowMod(f) => flow_messages::needs_nicira(v, f),
        Body::RoleRequest(r) | Body::RoleReply(r) => r.generation_id.is_none() || v < Version::V12,
        Body::FlowRemoved(_) => v == Version::V10 && d.flow_format == crate::message::FlowFormat::Nxm,
        _ => kind.to_wire(v).is_none(),
    };
    if as_extension {
        experimenter::put(d, msg, out)?;
        return finish(out, start);
    }
    if let Body::MultipartReply { more, reply } = &msg.body {
        return multipart::put_reply(d, out, msg.xid, *more, reply);
    }
    let number = kind.to_wire(v).ok_or(EncodeError::Version(v))?;
    put_header(out, v, number, msg.xid);
    match &msg.body {
        Body::Hello(versions) => {
            out[start] = versions.highest().max(1);
            out.put_u16(HELLO_VERSION_BITMAP);
            out.put_u16(8);
            out.put_u32(versions.0);
        }
        Body::Error(e) => {
            put_error_code(out, v, e.code);
            put_cut(out, &e.data, MAX_MESSAGE_BYTES - (out.len() - start));
        }
        Body::EchoRequest(data) | Body::EchoReply(data) => {
            put_cut(out, data, MAX_MESSAGE_BYTES - HEADER_BYTES)
        }
        Body::Experimenter { experimenter, exp_type, data } => {
            out.put_u32(*experimenter);
            out.put_u32(*exp_type);
            out.extend_from_slice(data);
        }
        Body::FeaturesReply(f) => put_features(out, v, f),
        Body::GetConfigReply(c) | Body::SetConfig(c) => {
            out.put_u16(c.frag);
            out.put_u16(c.miss_send_len);
        }
        Body::PacketIn(p) => packet_in::put(out, v, p, start)?,
        Body::FlowRemoved(f) => flow_messages::put_removed(out, v, f)?,
        Body::PortStatus(s) => ports::put_status(out, v, s)?,
        Body::PacketOut(p) => put_packet_out(out, v, p)?,
        Body::FlowMod(f) => flow_messages::put_mod(out, v, f)?,
        Body::GroupMod(g) => groups::put_mod(out, v, g)?,
        Body::PortMod(p) => ports::put_mod(out, v, p)?,
        Body::TableMod(t) => tables::put_mod(out, v, t),
        Body::MultipartRequest { more, request } => multipart::put_request(out, v, *more, request)?,
        Body::QueueGetConfigRequest(port) => queues::put_config_request(out, v, *port)?,
        Body::QueueGetConfigReply { port, queues } => queues::put_config_reply(out, v, *port, queues)?,
        Body::RoleRequest(r) | Body::RoleReply(r) => {
            out.put_u32(r.role as u32);
            out.put_zeros(4);
            out.put_u64(r.generation_id.unwrap_or(u64::MAX));
        }
        Body::GetAsyncReply(a) | Body::SetAsync(a) => async_config::put(out, v, a),
        Body::MeterMod(m) => meters::put_mod(out, m),
        Body::RoleStatus { role, reason, generation_id } => {
            controllers::put_role_status(out, *role, *reason, *generation_id)
        }
        Body::TableStatus { reason, desc } => tables::put_status(out, *reason, desc),
        Body::RequestForward(inner) => controllers::put_inner(out, d, inner)?,
        Body::BundleControl(b) => controllers::put_bundle_control(out, b),
        Body::BundleAdd { bundle, flags, message } => {
            controllers::put_bundle_add(out, d, msg.xid, *bundle, *flags, message)?
        }
        Body::ControllerStatus(s) => controllers::put_status(out, s),
        // The others have no body, or were dealt with above.
        _ => {}
    }
    finish(out, start)
}

/// The type a body has in the versions that have one for it.
fn kind_of(body: &Body) -> Option<Kind> {
    Some(match body {
        Body::Hello(_) => Kind::Hello,
        Body::Error(_) => Kind::Error,
        Body::EchoRequest(_) => Kind::EchoRequest,
        Body::EchoReply(_) => Kind::EchoReply,
        Body::Experimenter { .. } => Kind::Experimenter,
        Body::FeaturesRequest => Kind::FeaturesRequest,
        Body::FeaturesReply(_) => Kind::FeaturesReply,
        Body::GetConfigRequest => Kind::GetConfigRequest,
        Body::GetConfigReply(_) => Kind::GetConfigReply,
        Body::SetConfig(_) => Kind::SetConfig,
        Body::PacketIn(_) => Kind::PacketIn,
        Body::FlowRemoved(_) => Kind::FlowRemoved,
        Body::PortStatus(_) => Kind::PortStatus,
        Body::PacketOut(_) => Kind::PacketOut,
        Body::FlowMod(_) => Kind::FlowMod,
        Body::GroupMod(_) => Kind::GroupMod,
        Body::PortMod(_) => Kind::PortMod,
        Body::TableMod(_) => Kind::TableMod,
        Body::MultipartRequest { .. } => Kind::MultipartRequest,
        Body::MultipartReply { .. } => Kind::MultipartReply,
        Body::BarrierRequest => Kind::BarrierRequest,
        Body::BarrierReply => Kind::BarrierReply,
        Body::QueueGetConfigRequest(_) => Kind::QueueGetConfigRequest,
        Body::QueueGetConfigReply { .. } => Kind::QueueGetConfigReply,
        Body::RoleRequest(_) => Kind::RoleRequest,
        Body::RoleReply(_) => Kind::RoleReply,
        Body::GetAsyncRequest => Kind::GetAsyncRequest,
        Body::GetAsyncReply(_) => Kind::GetAsyncReply,
        Body::SetAsync(_) => Kind::SetAsync,
        Body::MeterMod(_) => Kind::MeterMod,
        Body::RoleStatus { .. } => Kind::RoleStatus,
        Body::TableStatus { .. } => Kind::TableStatus,
        Body::RequestForward(_) => Kind::RequestForward,
        Body::BundleControl(_) => Kind::BundleControl,
        Body::BundleAdd { .. } => Kind::BundleAdd,
        Body::ControllerStatus(_) => Kind::ControllerStatus,
        Body::SetFlowFormat(_)
        | Body::FlowModTableId(_)
        | Body::SetPacketInFormat(_)
        | Body::FlowAge
        | Body::SetControllerId(_)
        | Body::Resume(_)
        | Body::FlowMonitorCancel(_)
        | Body::FlowMonitorPaused
        | Body::FlowMonitorResumed
        | Body::TlvTableMod { .. }
        | Body::TlvTableRequest
        | Body::TlvTableReply { .. }
        | Body::CtFlushZone(_)
        | Body::CtFlush { .. } => return None,
    })
}

/// Appends as much of `data` as there is room for.
pub(super) fn put_cut(out: &mut Vec<u8>, data: &[u8], room: usize) {
    out.extend_from_slice(&data[..data.len().min(room)]);
}

fn put_error_code(out: &mut Vec<u8>, v: Version, code: ErrorCode) {
    let wire = code.to_wire(v);
    match wire.vendor {
        None => {
            out.put_u16(wire.error_type);
            out.put_u16(wire.code);
        }
        Some(vendor) if v <= Version::V11 => {
            out.put_u16(NX_VENDOR_ERROR.0);
            out.put_u16(NX_VENDOR_ERROR.1);
            out.put_u32(vendor);
            out.put_u16(wire.error_type);
            out.put_u16(wire.code);
        }
        Some(vendor) => {
            out.put_u16(0xffff);
            out.put_u16(wire.code);
            out.put_u32(vendor);
        }
    }
}

fn read_error(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (error_type, code) = (r.u16()?, r.u16()?);
    let wire = if v <= Version::V11 && (error_type, code) == NX_VENDOR_ERROR {
        WireError { vendor: Some(r.u32()?), error_type: r.u16()?, code: r.u16()? }
    } else if v >= Version::V12 && error_type == 0xffff {
        WireError { vendor: Some(r.u32()?), error_type: 0, code }
    } else {
        WireError { vendor: None, error_type, code }
    };
    Ok(Body::Error(ErrorMessage { code: ErrorCode::from_wire(v, wire), data: r.rest().to_vec() }))
}

fn read_features(v: Version, r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let (datapath_id, n_buffers, n_tables, auxiliary_id) = (r.u64()?, r.u32()?, r.u8()?, r.u8()?);
    r.skip(2)?;
    let capabilities = Capabilities(r.u32()? & !not_a_capability(v));
    let actions = r.u32()?;
    let mut f = FeaturesReply {
        datapath_id,
        n_buffers,
        n_tables,
        auxiliary_id: if v >= Version::V13 { auxiliary_id } else { 0 },
        capabilities,
        actions: if v == Version::V10 { actions } else { 0 },
        ports: Vec::new(),
    };
    if v < Version::V13 {
        while !r.is_empty() {
            f.ports.push(ports::read_desc(v, r)?);
        }
    }
    Ok(Body::FeaturesReply(f))
}

/// Bits that mean something else in the version: OpenFlow 1.0 says "spanning tree" where later versions say "groups".
fn not_a_capability(v: Version) -> u32 {
    if v == Version::V10 { Capabilities::GROUP_STATS.0 } else { 0 }
}

fn put_features(out: &mut Vec<u8>, v: Version, f: &FeaturesReply) {
    let capabilities = match v {
        Version::V10 => f.capabilities.0 & !not_a_capability(v),
        Version::V11 | Version::V12 => f.capabilities.0,
        _ => f.capabilities.0 & !Capabilities::ARP_MATCH_IP.0,
    };
    let since14 = Capabilities::BUNDLES.0 | Capabilities::FLOW_MONITORING.0;
    let start = out.len();
    out.put_u64(f.datapath_id);
    out.put_u32(f.n_buffers);
    out.put_u8(f.n_tables);
    out.put_u8(if v >= Version::V13 { f.auxiliary_id } else { 0 });
    out.put_zeros(2);
    out.put_u32(if v >= Version::V14 { capabilities } else { capabilities & !since14 });
    out.put_u32(if v == Version::V10 { f.actions } else { 0 });
    if v < Version::V13 {
        for p in &f.ports {
            let at = out.len();
            // A port without a number in 16 bits cannot be said in OpenFlow 1.0; nor can more than fit.
            if ports::put_desc(out, v, p).is_err() {
                out.truncate(at);
            }
            if out.len() - start + HEADER_BYTES > MAX_MESSAGE_BYTES {
                out.truncate(at);
                break;
            }
        }
    }
}

pub(super) fn buffer(v: u32) -> Option<BufferId> {
    (v != NO_BUFFER).then_some(BufferId(v))
}

pub(super) fn put_buffer(out: &mut Vec<u8>, b: Option<BufferId>) {
    out.put_u32(b.map_or(NO_BUFFER, |b| b.0));
}

fn read_packet_out(v: Version, r: &mut Reader<'_>) -> Result<PacketOut, ErrorCode> {
    let buffer = buffer(r.u32()?);
    let mut matches = flow::PipelineMatch::ANY;
    let (in_port, len) = match v {
        Version::V10 => (ports::from16(r.u16()?), usize::from(r.u16()?)),
        Version::V15 => {
            let len = usize::from(r.u16()?);
            r.skip(2)?;
            let whole = read_match(v, r)?;
            let (port, mask) = whole.get(flow::FieldId::InPort);
            if mask == 0 {
                return Err(BadRequest::BadPort.into());
            }
            let mut others = *whole.mask();
            others.set(flow::FieldId::InPort, 0);
            let m = flow::PipelineMatch::new(whole.key(), &others);
            if m.mask().fields().any(|f| f.info().scope == flow::Scope::Packet && !is_metadata(f)) {
                return Err(BadRequest::PipelineFieldsOnly.into());
            }
            matches = m;
            (PortNo(port as u32), len)
        }
        _ => {
            let port = PortNo(r.u32()?);
            let len = usize::from(r.u16()?);
            r.skip(6)?;
            (port, len)
        }
    };
    let reserved = [PortNo::CONTROLLER, PortNo::LOCAL, PortNo::IN_PORT, PortNo::ANY];
    if !in_port.is_port() && !reserved.contains(&in_port) {
        return Err(BadRequest::BadPort.into());
    }
    let actions = read_actions(v, &mut r.sub(len, BadAction::BadLen)?)?;
    Ok(PacketOut { buffer, in_port, matches, actions, data: r.rest().to_vec() })
}

/// Whether a field that a datapath sees is about the packet and not of it.
fn is_metadata(f: flow::FieldId) -> bool {
    use flow::FieldId::*;
    f.option().is_some()
        || matches!(f.info().canon, TunId | TunSrc | TunDst | TunFlags | TunIpv6Src | TunIpv6Dst | TunGbpId)
        || flow::tunnel::HEADER_FIELDS.contains(&f)
        || matches!(f.info().canon, TunGbpFlags | PktMark | CtMark | CtLabel | CtState | CtZone | PacketType)
}

fn put_packet_out(out: &mut Vec<u8>, v: Version, p: &PacketOut) -> Result<(), EncodeError> {
    put_buffer(out, p.buffer);
    let len_at = match v {
        Version::V10 => {
            out.put_u16(ports::to16(p.in_port)?);
            out.put_u16(0);
            out.len() - 2
        }
        Version::V15 => {
            out.put_u16(0);
            out.put_zeros(2);
            let len_at = out.len() - 4;
            let mut m = p.matches;
            m.set(flow::FieldId::InPort, p.in_port.0.into());
            put_match(out, v, &m)?;
            len_at
        }
        _ => {
            out.put_u32(p.in_port.0);
            out.put_u16(0);
            out.put_zeros(6);
            out.len() - 8
        }
    };
    let actions = out.len();
    put_actions(out, v, &p.actions)?;
    out.patch_u16(len_at, out.len() - actions);
    out.extend_from_slice(&p.data);
    Ok(())
}

pub(super) fn role(v: u32) -> Result<Role, ErrorCode> {
    Ok(match v {
        0 => Role::NoChange,
        1 => Role::Equal,
        2 => Role::Master,
        3 => Role::Slave,
        _ => return Err(RoleRequestFailed::BadRole.into()),
    })
}

fn read_role(r: &mut Reader<'_>) -> Result<RoleMessage, ErrorCode> {
    let role = role(r.u32()?)?;
    r.skip(4)?;
    Ok(RoleMessage { role, generation_id: Some(r.u64()?) })
}

/// Appends the header of a Nicira message up to its subtype.
pub(super) fn put_nicira_header(
    out: &mut Vec<u8>,
    v: Version,
    xid: Xid,
    subtype: u32,
) -> Result<(), EncodeError> {
    let number = Kind::Experimenter.to_wire(v).ok_or(EncodeError::Version(v))?;
    put_header(out, v, number, xid);
    out.put_u32(NICIRA);
    out.put_u32(subtype);
    Ok(())
}

/// What is checked of a message in a message: its header, and that it is the whole rest.
pub(super) fn inner_header(r: &Reader<'_>) -> Option<super::Header> {
    let mut ahead = *r;
    super::Header::parse(ahead.rest())
}

const _: () = assert!(kind::HELLO == 0);
