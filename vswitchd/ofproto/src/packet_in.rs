//! Packets on their way to controllers, and back: packet-in with all that a pipeline knows of a packet (OpenFlow 1.3.5
//! 7.4.1), and what goes on when a controller resumes a packet that paused.
//!
//! A datapath punts a packet with the name of a [`Frozen`] state: registers, metadata, and for one that pauses all that
//! translation needs to go on. The controller gets the state within the message and gives it back, so that nothing is kept
//! here for it, however long it takes.

use std::borrow::Cow;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use datapath_api::Punt;
use flow::nsh::BLANK_BYTES;
use flow::tunnel::options;
use flow::{
    Action, FIELDS, FieldId, PACKET_WORDS, PacketKey, PipelineKey, PipelineMatch, PuntReason, Scope,
    packet_type,
};
use openflow::error::{BadRequest, Nicira};
use openflow::message::{Continuation, PacketIn, PacketInReason, Remainder};
use openflow::switch::Reply;
use openflow::{Action as OfAction, ErrorCode, PortNo, TableId};

use crate::bridge::Bridge;
use crate::handle::PreparedPacketOut;
use crate::recirc::{Frozen, Later};
use crate::switch::Switch;
use crate::tables::Pipeline;
use crate::xlate::Start;

/// Whether a field of a packet's key is beside the packet: marks, connection, tunnel.
fn is_beside(f: &flow::Field) -> bool {
    f.scope == Scope::Packet && f.id.is_canonical() && f.id.is_metadata()
}

/// Fields of a connection's original direction.
const TUPLE4: [FieldId; 5] =
    [FieldId::CtNwSrc, FieldId::CtNwDst, FieldId::CtNwProto, FieldId::CtTpSrc, FieldId::CtTpDst];
const TUPLE6: [FieldId; 5] =
    [FieldId::CtIpv6Src, FieldId::CtIpv6Dst, FieldId::CtNwProto, FieldId::CtTpSrc, FieldId::CtTpDst];

/// A name that nobody else has.
pub(crate) fn new_name() -> [u8; 16] {
    let [a, b] = [0u8, 1].map(|n| RandomState::new().hash_one(n));
    (u128::from(a) << 64 | u128::from(b) | 1).to_be_bytes()
}

/// Fields beside a packet that a controller can be told of, but for its connection's.
fn beside() -> impl Iterator<Item = FieldId> {
    use FieldId::{PktMark, TunDst, TunGbpFlags, TunGbpId, TunId, TunIpv6Dst, TunIpv6Src, TunSrc};
    [TunId, TunSrc, TunDst, TunIpv6Src, TunIpv6Dst, TunGbpId, TunGbpFlags, PktMark, FieldId::PacketType]
        .into_iter()
        .chain(flow::tunnel::HEADER_FIELDS)
}

/// What a controller is told of a packet beside its headers.
fn metadata(key: &PacketKey, own: &PipelineKey, tracked: bool) -> PipelineMatch {
    let mut m = PipelineMatch::ANY;
    m.set(FieldId::InPort, own.get(FieldId::InPort));
    let registers = (0..16).filter_map(FieldId::reg);
    for f in registers.chain([FieldId::Metadata]).filter(|f| own.get(*f) != 0) {
        m.set(f, own.get(f));
    }
    for f in beside().filter(|f| key.get(*f) != 0) {
        m.set(f, key.get(f));
    }
    for o in options::mappings().filter(|o| options::is_there(key, o.index)) {
        let exact = [0xff; options::MAX_OPTION_BYTES as usize];
        options::require(&mut m, o.index, &options::bytes(key, o.index), &exact);
    }
    // Of a tunnel's flags only that of a control message can be matched on.
    if key.get(FieldId::TunFlags) & 1 != 0 {
        m.set_masked(FieldId::TunFlags, 1, 1);
    }
    if tracked && key.get(FieldId::CtState) != 0 {
        m.set(FieldId::CtState, key.get(FieldId::CtState));
        // Without it the rest means nothing.
        let t = key.get64(FieldId::EthType);
        m.set(FieldId::EthType, t.into());
        let tuple: &[FieldId] = match t {
            0x0800 => &TUPLE4,
            0x86dd => &TUPLE6,
            _ => &[],
        };
        if key.get(FieldId::CtNwProto) != 0 {
            tuple.iter().for_each(|f| m.set(*f, key.get(*f)));
        }
        for f in [FieldId::CtZone, FieldId::CtMark, FieldId::CtLabel] {
            if key.get(f) != 0 {
                m.set(f, key.get(f));
            }
        }
    }
    m
}

fn reason(r: PuntReason) -> PacketInReason {
    match r {
        PuntReason::NoMatch => PacketInReason::NoMatch,
        PuntReason::Action => PacketInReason::Action,
        // For the switch itself.
        PuntReason::Snoop
        | PuntReason::Bfd
        | PuntReason::Cfm
        | PuntReason::Lacp
        | PuntReason::Stp
        | PuntReason::Lldp => PacketInReason::Action,
        PuntReason::InvalidTtl => PacketInReason::InvalidTtl,
        PuntReason::ActionSet => PacketInReason::ActionSet,
        PuntReason::Group => PacketInReason::Group,
        PuntReason::PacketOut => PacketInReason::PacketOut,
        PuntReason::ExplicitMiss => PacketInReason::ExplicitMiss,
        PuntReason::ImplicitMiss => PacketInReason::ImplicitMiss,
    }
}

/// A frozen translation as a controller is given it.
fn continuation(f: &Frozen, bridge: [u8; 16]) -> Continuation {
    let bytes = |(value, bits): &(u128, u16)| {
        let n = usize::from(bits.div_ceil(8)).min(16);
        value.to_be_bytes()[16 - n..].to_vec()
    };
    let rest = |l: &Later| match l {
        Later::Origin { table, cookie, .. } => {
            Some(Remainder::Origin { table: TableId(*table), cookie: *cookie })
        }
        Later::Actions(a) => Some(Remainder::Actions(a.clone())),
        Later::Instructions(i) => Some(Remainder::Instructions(i.clone())),
        // The last thing that is done to a packet: no controller comes behind it.
        Later::Bond(_) => None,
    };
    Continuation {
        bridge,
        stack: f.stack.iter().rev().map(bytes).collect(),
        mirrors: f.mirrored,
        tracked: f.tracked,
        rest: f.then.iter().filter_map(rest).collect(),
        action_set: f.action_set.clone(),
    }
}

/// The other way round, of a packet of which `metadata` is known.
fn frozen(c: Continuation, bridge: u32, key: &PipelineKey) -> Frozen {
    let value = |b: &Vec<u8>| {
        let v = b.iter().take(16).fold(0u128, |v, b| v << 8 | u128::from(*b));
        (v, u16::try_from(8 * b.len().min(16)).unwrap_or(128))
    };
    let later = |r: Remainder| match r {
        Remainder::Origin { table, cookie } => Later::Origin { table: table.0, rule: None, cookie },
        Remainder::Actions(a) => Later::Actions(a),
        Remainder::Instructions(i) => Later::Instructions(i),
    };
    let mut key = *key;
    // Not among what a controller is told.
    let output = c.action_set.iter().rev().find_map(|a| match a {
        OfAction::Output { port, .. } => Some(*port),
        _ => None,
    });
    let grouped = c.action_set.iter().any(|a| matches!(a, OfAction::Group(_)));
    let output = output.filter(|_| !grouped).unwrap_or(PortNo::UNSET);
    key.set(FieldId::ActsetOutput, output.0.into());
    let mut then: Vec<Later> = c.rest.into_iter().map(later).collect();
    if then.is_empty() {
        // Nothing left to do is not the same as beginning with the first table.
        then.push(Later::Actions(Vec::new()));
    }
    Frozen {
        stack: c.stack.iter().rev().map(value).collect(),
        mirrored: c.mirrors,
        tracked: c.tracked,
        action_set: c.action_set,
        then,
        ..Frozen::of(bridge, PortNo(key.get64(FieldId::InPort) as u32), &key)
    }
}

/// A packet that a controller gives, as a datapath has it: one that does not begin with an Ethernet header, as `m` says, behind a blank
/// one.
pub(crate) fn framed<'a>(data: &'a [u8], m: &PipelineMatch) -> Cow<'a, [u8]> {
    match packet_type::eth_type(m.key().get64(FieldId::PacketType) as u32) {
        None => data.into(),
        Some(t) => with_blank(data, t).into(),
    }
}

/// A packet that does not begin with an Ethernet header behind a blank one.
pub(crate) fn with_blank(data: &[u8], eth_type: u16) -> Vec<u8> {
    let mut frame = vec![0; BLANK_BYTES - 2];
    frame.extend(eth_type.to_be_bytes());
    frame.extend_from_slice(data);
    frame
}

/// Puts what is beside a packet into its key, as far as `m` says.
pub(crate) fn put_beside(key: &mut PacketKey, m: &PipelineMatch) {
    let of_packet = |f: &&flow::Field| is_beside(f) && f.id != FieldId::DpHash;
    for f in FIELDS.iter().filter(of_packet) {
        let (value, mask) = m.get(f.id);
        if mask != 0 {
            key.set_masked(f.id, value, mask);
        }
    }
}

/// What has a datapath know what is beside a packet that it is handed.
pub(crate) fn beside_to_datapath(key: &PacketKey) -> Vec<Action> {
    let set = |f: &flow::Field| {
        let value = key.get(f.id);
        (is_beside(f) && value != 0).then_some(Action::SetField { field: f.id, value, mask: f.max() })
    };
    FIELDS.iter().filter_map(set).collect()
}

impl Bridge {
    /// A packet for the controllers. Whether there is somebody to send it to.
    pub(crate) fn packet_in(&self, p: Punt) -> bool {
        let Some(sink) = self.controller_sink() else { return false };
        let a = p.action;
        let recirc = self.recircs().thaw(a.recirc_id).filter(|_| a.recirc_id != 0);
        let state = recirc.as_ref().map(|r| &r.state);
        if a.continuation && state.is_none() {
            // It could never go on.
            return false;
        }
        let mut own = PipelineKey::ZERO;
        own.set(FieldId::InPort, a.in_port.into());
        own.set(FieldId::Metadata, a.metadata.into());
        if let Some(s) = state {
            s.restore(&mut own);
        }
        let total_len = u16::try_from(p.packet.len()).unwrap_or(u16::MAX);
        let mut data = p.packet;
        if a.max_len != u16::MAX && !a.continuation {
            data.truncate(a.max_len.into());
        }
        sink.packet_in(PacketIn {
            controller_id: a.controller_id,
            userdata: state.map_or_else(Vec::new, |s| s.userdata.clone()),
            continuation: state.filter(|_| a.continuation).map(|s| Box::new(continuation(s, self.own_name))),
            buffer: None,
            total_len,
            reason: reason(a.reason),
            table: TableId(a.table),
            cookie: a.cookie,
            matches: metadata(&p.key, &own, a.tracked),
            data,
        });
        true
    }

    /// Goes on with a packet that paused.
    ///
    /// # Errors
    /// `NXR_STALE` when it did not pause here; `BadRequest` when it is no packet any more.
    pub(crate) fn resume(&self, pin: PacketIn) -> Result<Reply, ErrorCode> {
        let c = pin.continuation.ok_or(Nicira::ResumeStale)?;
        if c.bridge != self.own_name {
            return Err(Nicira::ResumeStale.into());
        }
        let pipeline = self.pipeline();
        let known = pin.matches.key();
        let in_port = PortNo(known.get64(FieldId::InPort) as u32);
        let dp_port = pipeline.ports.get(in_port).map_or(Switch::pseudo_port(self.index()), |p| p.dp);
        let mut key =
            flow::parse(&framed(&pin.data, &pin.matches), dp_port).map_err(|_| BadRequest::BadPacket)?.key;
        put_beside(&mut key, &pin.matches);
        let state = frozen(*c, self.index(), known);
        let prepared = self.prepare(&pipeline, &key, in_port, dp_port, Start::Frozen(&state));
        self.carry_out(&pin.data, prepared);
        Ok(Reply::None)
    }

    /// Translates a packet that a controller sends, with what is beside it. Changes nothing.
    pub(crate) fn prepare(
        &self,
        pipeline: &Arc<Pipeline>,
        key: &PacketKey,
        in_port: PortNo,
        dp_port: flow::PortId,
        start: Start<'_>,
    ) -> PreparedPacketOut {
        let switch = self.switch();
        let routes = switch.as_ref().map_or_else(Arc::default, |s| s.routes());
        let mut outcome = self.translate_by(&routes, pipeline, key, in_port, start, false);
        if !outcome.actions.is_empty() {
            let actions = std::mem::take(&mut outcome.actions);
            outcome.actions = beside_to_datapath(key);
            outcome.actions.extend(actions);
        }
        let eth_type = packet_type::eth_type(key.get64(FieldId::PacketType) as u32);
        PreparedPacketOut { dp_port, outcome, eth_type }
    }
}

/// Puts what only a pipeline has into its key, as far as `m` says.
pub(crate) fn pipeline_fields(m: &PipelineMatch) -> PipelineKey {
    let mut key = PipelineKey::ZERO;
    for i in PACKET_WORDS..flow::PIPELINE_WORDS {
        key.set_word(i, m.key().word(i) & m.mask().word(i));
    }
    key
}
