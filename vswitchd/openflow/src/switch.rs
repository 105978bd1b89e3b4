//! The seam between connections and the switch behind them.
//!
//! Connections call [`OpenFlowSwitch`]; the switch hands asynchronous messages to a [`ControllerSink`]. Both sides are
//! free of any async runtime: a reply that is long or that must wait is a [`ReplyStream`], polled with a plain
//! [`Context`], one message at a time and only while the peer reads.
//!
//! What connections do by themselves and never hand to the switch: hello, echo, role, asynchronous configuration, the
//! refusal of changes from slaves, and unknown or malformed messages.

use std::any::Any;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::error::{BundleFailed, ErrorCode};
use crate::flow_monitor::FlowUpdate;
use crate::message::{Body, FlowRemoved, Message, PacketIn};
use crate::number::Xid;
use crate::port::PortStatus;
use crate::table_config::{TableDesc, TableStatusReason};
use crate::version::Version;

/// One connection for as long as the process lives. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A reply in parts, or one that is not ready yet.
pub trait ReplyStream: Send {
    /// The next message of the reply, `None` after the last. Pending only when `cx`'s waker will be called.
    ///
    /// No message may exceed 65,535 bytes when encoded; multipart parts set `more` on all but the last.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Body>>;
}

/// What a switch answers. Each message goes out with the request's xid.
pub enum Reply {
    /// Nothing.
    None,
    /// One message.
    One(Body),
    /// Several, in order.
    Many(Vec<Body>),
    /// Several, as they are asked for. The connection handles no other request until the stream ends.
    Stream(Box<dyn ReplyStream>),
}

/// A message of a bundle in a form of the switch's own, see [`OpenFlowSwitch::admit`].
pub type Ready = Arc<dyn Any + Send + Sync>;

/// A message of a bundle that is committed.
pub enum Bundled {
    /// As it came.
    Message(Message),
    /// As [`OpenFlowSwitch::admit`] gave it, and the transaction id it came with.
    Ready(Xid, Ready),
}

/// The switch behind the connections. Called from several threads at once; requests of one connection come in order.
pub trait OpenFlowSwitch: Send + Sync {
    /// A connection has agreed on a version.
    fn connected(&self, conn: ConnId, version: Version);

    /// Carries out a request. May not block: what must wait is a [`Reply::Stream`].
    ///
    /// # Errors
    /// Goes to the peer as an error message with the request's first bytes.
    fn handle(&self, conn: ConnId, msg: Message) -> Result<Reply, ErrorCode>;

    /// Looks at a message that is added to a bundle. What can be known to be wrong then is said at once. A switch that can
    /// begin with it gives it back as it wants to have it for [`OpenFlowSwitch::commit`]; such a thing may take memory in the
    /// order of twice the encoded message.
    ///
    /// # Errors
    /// Why it could never be carried out; it is not added then.
    fn admit(&self, conn: ConnId, msg: &Message) -> Result<Option<Ready>, ErrorCode> {
        let _ = (conn, msg);
        Ok(None)
    }

    /// Carries out the messages of a bundle (flow-mods, group-mods, port-mods, packet-outs) in their order: all of them, or
    /// none. Nobody sees a part of it.
    ///
    /// # Errors
    /// The position of the message that cannot be carried out, and why.
    fn commit(
        &self,
        conn: ConnId,
        messages: &mut dyn Iterator<Item = Bundled>,
    ) -> Result<(), (usize, ErrorCode)> {
        // A switch without bundles takes empty ones.
        let _ = conn;
        if messages.next().is_some() { Err((0, BundleFailed::MsgUnsup.into())) } else { Ok(()) }
    }

    /// The updates of flow monitors that paused on this connection have all been read: what changed meanwhile.
    fn resume_updates(&self, conn: ConnId) -> Reply {
        let _ = conn;
        Reply::None
    }

    /// A connection has ended.
    fn disconnected(&self, conn: ConnId);
}

/// Where a switch leaves its asynchronous messages. Never blocks: each connection has a bounded queue, what does not fit
/// is dropped and counted there.
pub trait ControllerSink: Send + Sync {
    /// A packet for the controllers. `data` is already cut to what the flow asked for; a connection's own miss length
    /// cuts table misses further.
    fn packet_in(&self, msg: PacketIn);
    /// A port came, went or changed.
    fn port_status(&self, msg: PortStatus);
    /// A flow that asked for it ended.
    fn flow_removed(&self, msg: FlowRemoved);
    /// A table fills up or empties, and a controller asked to be told.
    fn table_status(&self, reason: TableStatusReason, desc: TableDesc) {
        let _ = (reason, desc);
    }
    /// A connection changed a group or a meter by this message; others may want to know.
    fn request_forward(&self, conn: ConnId, msg: &Message) {
        let _ = (conn, msg);
    }
    /// Updates of a connection's flow monitors, which fit one message; `more` follow of the same change. Whether there is
    /// room for more: otherwise the switch pauses, says so in an update, and goes on when
    /// [`OpenFlowSwitch::resume_updates`] is called.
    fn flow_updates(&self, conn: ConnId, updates: Vec<FlowUpdate>, more: bool) -> bool {
        let _ = (conn, updates, more);
        true
    }
}
