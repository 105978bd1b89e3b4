//! What a connection answers by itself, and what it hands to the switch.

use openflow::error::{BadRequest, BundleFailed, ErrorCode};
use openflow::message::{Body, Message, PacketInReason, Role, SwitchConfig};
use openflow::multipart::MultipartRequest;
use openflow::switch::{ConnId, OpenFlowSwitch, Reply};
use openflow::wire::{NICIRA, ONF};
use openflow::{Dialect, Version};

use super::hub::Hub;

/// `OFPC_INVALID_TTL_TO_CONTROLLER`, before OpenFlow 1.3 made it a matter of asynchronous configuration.
const INVALID_TTL: u16 = 4;

/// Answers a message of connection `conn`.
///
/// # Errors
/// What to tell the peer.
pub(super) fn dispatch(
    hub: &Hub,
    switch: &dyn OpenFlowSwitch,
    conn: ConnId,
    msg: Message,
) -> Result<Reply, ErrorCode> {
    let one = |body| Ok(Reply::One(body));
    if changes_the_switch(&msg.body) && hub.standing(conn, |s| s.role) == Some(Role::Slave) {
        return Err(BadRequest::IsSlave.into());
    }
    match msg.body {
        Body::Hello(_) | Body::EchoReply(_) => Ok(Reply::None),
        Body::Error(e) => {
            tracing::debug!(target: "rconn", "{}: peer says {}", hub.bridge(), e.code);
            Ok(Reply::None)
        }
        Body::EchoRequest(data) => one(Body::EchoReply(data)),
        Body::RoleRequest(r) => one(Body::RoleReply(hub.change_role(conn, r)?)),
        Body::GetAsyncRequest => {
            one(Body::GetAsyncReply(hub.standing(conn, |s| s.events).unwrap_or_default()))
        }
        Body::SetAsync(events) => {
            hub.standing(conn, |s| s.events.change(events));
            Ok(Reply::None)
        }
        Body::SetConfig(c) => {
            let early = hub.standing(conn, |s| s.dialect.version < Version::V13).unwrap_or(false);
            let frag = if early { c.frag & !INVALID_TTL } else { c.frag };
            let config = SwitchConfig { frag, ..c };
            let reply = switch.handle(conn, Message { xid: msg.xid, body: Body::SetConfig(config) })?;
            hub.standing(conn, |s| {
                s.miss_send_len = c.miss_send_len;
                if early {
                    let wanted = 1 << PacketInReason::InvalidTtl as u32;
                    let on = c.frag & INVALID_TTL != 0;
                    let mask = &mut s.events.packet_in[0];
                    *mask = if on { *mask | wanted } else { *mask & !wanted };
                }
            });
            Ok(reply)
        }
        Body::GetConfigRequest => {
            let (miss_send_len, ttl) = hub
                .standing(conn, |s| {
                    let early = s.dialect.version < Version::V13;
                    (s.miss_send_len, early && s.wants_packet_in(PacketInReason::InvalidTtl as u8))
                })
                .unwrap_or_default();
            match switch.handle(conn, Message { xid: msg.xid, body: Body::GetConfigRequest })? {
                // Fragments are the switch's matter, the miss length is this connection's.
                Reply::One(Body::GetConfigReply(c)) => {
                    let frag = c.frag | if ttl { INVALID_TTL } else { 0 };
                    one(Body::GetConfigReply(SwitchConfig { frag, miss_send_len }))
                }
                other => Ok(other),
            }
        }
        Body::SetFlowFormat(f) => agreed(hub, conn, |d| d.flow_format = f),
        Body::FlowModTableId(on) => agreed(hub, conn, |d| d.table_in_command = on),
        Body::SetPacketInFormat(f) => agreed(hub, conn, |d| d.packet_in = f),
        // Ages are always in the form that has them.
        Body::FlowAge => Ok(Reply::None),
        Body::SetControllerId(id) => {
            hub.standing(conn, |s| s.controller_id = id);
            switch.handle(conn, Message { xid: msg.xid, body: Body::SetControllerId(id) })
        }
        // The connection sees to them.
        Body::BundleControl(_) | Body::BundleAdd { .. } => Err(BundleFailed::Eperm.into()),
        Body::Experimenter { experimenter, .. } => Err(match experimenter {
            NICIRA | ONF => BadRequest::BadExpType.into(),
            _ => BadRequest::BadExperimenter.into(),
        }),
        Body::MultipartRequest { request: MultipartRequest::Experimenter { experimenter, .. }, .. } => {
            Err(match experimenter {
                NICIRA | ONF => BadRequest::BadExpType.into(),
                _ => BadRequest::BadExperimenter.into(),
            })
        }
        // Only table features may come in parts.
        Body::MultipartRequest { more: true, request }
            if !matches!(request, MultipartRequest::TableFeatures(_)) =>
        {
            Err(BadRequest::MultipartBufferOverflow.into())
        }
        Body::FeaturesReply(_)
        | Body::GetConfigReply(_)
        | Body::PacketIn(_)
        | Body::FlowRemoved(_)
        | Body::PortStatus(_)
        | Body::MultipartReply { .. }
        | Body::BarrierReply
        | Body::QueueGetConfigReply { .. }
        | Body::RoleReply(_)
        | Body::RoleStatus { .. }
        | Body::TableStatus { .. }
        | Body::RequestForward(_)
        | Body::FlowMonitorPaused
        | Body::FlowMonitorResumed
        | Body::TlvTableReply { .. }
        | Body::ControllerStatus(_)
        | Body::GetAsyncReply(_) => Err(BadRequest::BadType.into()),
        body @ (Body::FeaturesRequest
        | Body::PacketOut(_)
        | Body::FlowMod(_)
        | Body::GroupMod(_)
        | Body::PortMod(_)
        | Body::TableMod(_)
        | Body::MultipartRequest { .. }
        | Body::BarrierRequest
        | Body::QueueGetConfigRequest(_)
        | Body::FlowMonitorCancel(_)
        | Body::Resume(_)
        | Body::CtFlushZone(_)
        | Body::CtFlush { .. }
        | Body::TlvTableRequest
        | Body::TlvTableMod { .. }
        | Body::MeterMod(_)) => switch.handle(conn, Message { xid: msg.xid, body }),
    }
}

/// Changes what is agreed on with a connection.
fn agreed(hub: &Hub, conn: ConnId, change: impl FnOnce(&mut Dialect)) -> Result<Reply, ErrorCode> {
    hub.standing(conn, |s| change(&mut s.dialect));
    Ok(Reply::None)
}

/// Whether a slave may not send it (OpenFlow 1.3.5 6.3.6).
fn changes_the_switch(body: &Body) -> bool {
    match body {
        Body::PacketOut(_)
        | Body::FlowMod(_)
        | Body::GroupMod(_)
        | Body::PortMod(_)
        | Body::TableMod(_)
        | Body::BundleControl(_)
        | Body::BundleAdd { .. }
        | Body::TlvTableMod { .. }
        | Body::MeterMod(_) => true,
        Body::MultipartRequest { request: MultipartRequest::TableFeatures(t), .. } => !t.is_empty(),
        _ => false,
    }
}
