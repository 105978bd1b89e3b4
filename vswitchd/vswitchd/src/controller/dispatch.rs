//! What a connection answers by itself, and what it hands to the switch.

use openflow::error::{BadRequest, ErrorCode};
use openflow::message::{Body, Message, Role, SwitchConfig};
use openflow::multipart::MultipartRequest;
use openflow::switch::{ConnId, OpenFlowSwitch, Reply};
use openflow::wire::NICIRA;

use super::hub::Hub;

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
            hub.standing(conn, |s| s.events = events);
            Ok(Reply::None)
        }
        Body::SetConfig(c) => {
            let reply = switch.handle(conn, Message { xid: msg.xid, body: Body::SetConfig(c) })?;
            hub.standing(conn, |s| s.miss_send_len = c.miss_send_len);
            Ok(reply)
        }
        Body::GetConfigRequest => {
            let miss_send_len = hub.standing(conn, |s| s.miss_send_len).unwrap_or_default();
            match switch.handle(conn, Message { xid: msg.xid, body: Body::GetConfigRequest })? {
                // Fragments are the switch's matter, the miss length is this connection's.
                Reply::One(Body::GetConfigReply(c)) => {
                    one(Body::GetConfigReply(SwitchConfig { miss_send_len, ..c }))
                }
                other => Ok(other),
            }
        }
        Body::Experimenter { experimenter, .. } => Err(match experimenter {
            NICIRA => BadRequest::BadExpType.into(),
            _ => BadRequest::BadExperimenter.into(),
        }),
        Body::MultipartRequest { request: MultipartRequest::Experimenter { .. }, .. } => {
            Err(BadRequest::BadExperimenter.into())
        }
        // Only table features may come in parts, and nobody sends that many.
        Body::MultipartRequest { more: true, .. } => Err(BadRequest::MultipartBufferOverflow.into()),
        Body::FeaturesReply(_)
        | Body::GetConfigReply(_)
        | Body::PacketIn(_)
        | Body::FlowRemoved(_)
        | Body::PortStatus(_)
        | Body::MultipartReply { .. }
        | Body::BarrierReply
        | Body::QueueGetConfigReply { .. }
        | Body::RoleReply(_)
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
        | Body::MeterMod(_)) => switch.handle(conn, Message { xid: msg.xid, body }),
    }
}

/// Whether a slave may not send it (OpenFlow 1.3.5 6.3.6).
fn changes_the_switch(body: &Body) -> bool {
    match body {
        Body::PacketOut(_)
        | Body::FlowMod(_)
        | Body::GroupMod(_)
        | Body::PortMod(_)
        | Body::TableMod(_)
        | Body::MeterMod(_) => true,
        Body::MultipartRequest { request: MultipartRequest::TableFeatures(t), .. } => !t.is_empty(),
        _ => false,
    }
}
