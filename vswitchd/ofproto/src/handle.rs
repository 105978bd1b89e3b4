//! What a controller can ask of a bridge, but for statistics ([`crate::stats`]).
//!
//! Nothing is accepted that is not carried out.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use clock::Deadline;
use flow::{CtFilter, FieldId, PipelineKey, PipelineMask, PipelineMatch, PortId};
use openflow::error::{BadRequest, Nicira, PortModFailed, SwitchConfigFailed};
use openflow::message::{Capabilities, FeaturesReply, PacketOut, SwitchConfig};
use openflow::port::{PortConfig, PortDesc, PortMod, PortReason, PortState, PortStatus};
use openflow::switch::{Bundled, ConnId, OpenFlowSwitch, Ready, Reply, ReplyStream};
use openflow::{Body, ErrorCode, Message, MultipartRequest, PortNo, QueueNo, Version, Xid};

use crate::bridge::Bridge;
use crate::changes::Origin;
use crate::check::check_packet_out;
use crate::flow_mod;
use crate::groups;
use crate::meters;
use crate::packet_in::{framed, pipeline_fields, put_beside, with_blank};
use crate::port::Port;
use crate::queues;
use crate::room;
use crate::switch::Switch;
use crate::tables::{FragHandling, N_TABLES, Pipeline};
use crate::tlv;
use crate::xlate::Start;

/// Longest that a barrier waits for records and hardware.
const BARRIER_LIMIT: Duration = Duration::from_secs(10);

/// Actions of OpenFlow 1.0 that are carried out: all, `enqueue` among them.
const ACTIONS_OPENFLOW_10: u32 = 0xfff;

/// Bytes of a miss that go to a controller that has not said otherwise (OpenFlow 1.3.5 7.3.2).
const DEFAULT_MISS_SEND_LEN: u16 = 128;

impl OpenFlowSwitch for Bridge {
    fn connected(&self, conn: ConnId, version: Version) {
        self.miss_send_len.lock().insert(conn, DEFAULT_MISS_SEND_LEN);
        self.conns.lock().insert(conn, (version, 0));
        self.see_who_wants_misses();
    }

    fn handle(&self, conn: ConnId, msg: Message) -> Result<Reply, ErrorCode> {
        let origin = Some(self.origin(conn, msg.xid));
        match msg.body {
            Body::FeaturesRequest => Ok(Reply::One(Body::FeaturesReply(self.features()))),
            Body::GetConfigRequest => Ok(Reply::One(Body::GetConfigReply(SwitchConfig {
                frag: self.pipeline().frag.to_wire(),
                miss_send_len: self.miss_send_len.lock().get(&conn).copied().unwrap_or(DEFAULT_MISS_SEND_LEN),
            }))),
            Body::SetConfig(c) => self.set_config(conn, c),
            Body::PacketOut(po) => self.packet_out(&po),
            Body::FlowMod(fm) => {
                self.change_flow(self.now(), origin, &fm)?;
                Ok(Reply::None)
            }
            Body::PortMod(pm) => self.port_mod(&pm),
            Body::TableMod(tm) => {
                let max = self.config.max_flows_per_table;
                self.change(false, |p| room::table_mod(p, &tm, max))?;
                Ok(Reply::None)
            }
            Body::GroupMod(gm) => {
                let now = self.now();
                self.change_rules(now, origin, |p, changes| groups::apply(p, &gm, now, changes))?;
                self.forward_request(conn, Message { xid: msg.xid, body: Body::GroupMod(gm) });
                Ok(Reply::None)
            }
            Body::MeterMod(mm) => {
                self.apply_meter(&mm, self.now())?;
                self.forward_request(conn, Message { xid: msg.xid, body: Body::MeterMod(mm) });
                Ok(Reply::None)
            }
            Body::Resume(pin) => self.resume(*pin),
            Body::CtFlushZone(zone) => self.flush_connections(Some(zone), &CtFilter::default()),
            Body::CtFlush { zone, which } => self.flush_connections(zone, &which),
            Body::TlvTableRequest => Ok(Reply::One(self.tlv_table())),
            Body::TlvTableMod { command, maps } => self.tlv_table_mod(command, &maps),
            Body::SetControllerId(id) => {
                if let Some(c) = self.conns.lock().get_mut(&conn) {
                    c.1 = id;
                }
                self.see_who_wants_misses();
                Ok(Reply::None)
            }
            Body::BarrierRequest => Ok(self.barrier()),
            Body::QueueGetConfigRequest(port) => {
                let queues = queues::configs(&self.pipeline(), port, QueueNo::ALL)?;
                Ok(Reply::One(Body::QueueGetConfigReply { port, queues }))
            }
            Body::MultipartRequest { more: true, request: MultipartRequest::TableFeatures(part) } => {
                let mut begun = self.parts.lock();
                let all = begun.entry(conn).or_default();
                if all.len() + part.len() > usize::from(N_TABLES) {
                    begun.remove(&conn);
                    return Err(BadRequest::MultipartBufferOverflow.into());
                }
                all.extend(part);
                Ok(Reply::None)
            }
            Body::MultipartRequest { more: true, .. } => Err(BadRequest::MultipartBufferOverflow.into()),
            Body::MultipartRequest { request: MultipartRequest::TableFeatures(last), .. } => {
                let mut all = self.parts.lock().remove(&conn).unwrap_or_default();
                all.extend(last);
                self.multipart(conn, MultipartRequest::TableFeatures(all))
            }
            Body::MultipartRequest { request, .. } => self.multipart(conn, request),
            Body::FlowMonitorCancel(id) => {
                self.with_monitors(|m, _| m.cancel(conn, id))?;
                Ok(Reply::None)
            }
            Body::Experimenter { .. } => Err(BadRequest::BadExperimenter.into()),
            // Connections answer these themselves; replies are not requests.
            _ => Err(BadRequest::BadType.into()),
        }
    }

    fn admit(&self, _: ConnId, msg: &Message) -> Result<Option<Ready>, ErrorCode> {
        match &msg.body {
            Body::FlowMod(fm) => Ok(self.admit_flow(fm)?.map(|rule| rule as Ready)),
            _ => Ok(None),
        }
    }

    fn commit(
        &self,
        conn: ConnId,
        messages: &mut dyn Iterator<Item = Bundled>,
    ) -> Result<(), (usize, ErrorCode)> {
        self.commit_bundle(conn, messages)
    }

    fn resume_updates(&self, conn: ConnId) -> Reply {
        self.with_monitors(|m, p| m.resume(conn, p))
    }

    fn disconnected(&self, conn: ConnId) {
        self.miss_send_len.lock().remove(&conn);
        self.conns.lock().remove(&conn);
        self.parts.lock().remove(&conn);
        self.see_who_wants_misses();
        self.with_monitors(|m, _| m.forget(conn));
    }
}

impl Bridge {
    fn features(&self) -> FeaturesReply {
        FeaturesReply {
            datapath_id: self.datapath_id(),
            n_buffers: 0,
            n_tables: N_TABLES,
            auxiliary_id: 0,
            capabilities: Capabilities::FLOW_STATS
                | Capabilities::TABLE_STATS
                | Capabilities::PORT_STATS
                | Capabilities::GROUP_STATS
                | Capabilities::QUEUE_STATS
                | Capabilities::ARP_MATCH_IP
                | Capabilities::BUNDLES,
            actions: ACTIONS_OPENFLOW_10,
            ports: self.pipeline().ports.iter().map(Port::desc).collect(),
        }
    }

    fn set_config(&self, conn: ConnId, c: SwitchConfig) -> Result<Reply, ErrorCode> {
        let frag = FragHandling::from_wire(c.frag).ok_or(SwitchConfigFailed::BadFlags)?;
        if frag != self.pipeline().frag {
            self.change(true, |p| {
                p.frag = frag;
                Ok(())
            })?;
        }
        self.miss_send_len.lock().insert(conn, c.miss_send_len);
        Ok(Reply::None)
    }

    /// Forgets connections (Nicira's `NXT_CT_FLUSH_ZONE` and `NXT_CT_FLUSH`).
    fn flush_connections(&self, zone: Option<u16>, which: &CtFilter) -> Result<Reply, ErrorCode> {
        let name = self.name();
        match zone {
            None if which.is_any() => tracing::debug!(target: "ct_dpif", "{name}: ct_flush: <all>"),
            Some(zone) if which.is_any() => {
                tracing::debug!(target: "ct_dpif", "{name}: ct_flush: zone {zone}");
            }
            _ => {
                let zone = zone.unwrap_or(0);
                tracing::debug!(target: "ct_dpif", "{name}: ct_flush: zone={zone} {which}");
            }
        }
        let done = self.switch().and_then(|s| Some(s.datapath()?.flush_connections(zone, which)));
        if done == Some(true) { Ok(Reply::None) } else { Err(Nicira::CtActionUnsupported.into()) }
    }

    fn barrier(&self) -> Reply {
        let generation = self.pipeline().generation;
        if self.has_settled(generation) {
            return Reply::One(Body::BarrierReply);
        }
        let Some((switch, bridge)) = self.switch().and_then(|s| Some((s.clone(), s.bridge(self.index())?)))
        else {
            return Reply::One(Body::BarrierReply);
        };
        switch.wake();
        let deadline = Deadline::after(switch.now(), BARRIER_LIMIT);
        Reply::Stream(Box::new(Barrier { switch, bridge, generation, deadline, done: false }))
    }

    fn port_mod(&self, pm: &PortMod) -> Result<Reply, ErrorCode> {
        let changed = self.change(false, |p| port_mod(p, pm))?;
        changed.into_iter().for_each(|s| self.tell_port(s));
        Ok(Reply::None)
    }

    pub(crate) fn packet_out(&self, po: &PacketOut) -> Result<Reply, ErrorCode> {
        let prepared = self.prepare_packet_out(&self.pipeline(), po)?;
        self.carry_out(&po.data, prepared);
        Ok(Reply::None)
    }

    /// Translates a packet-out through the tables of `pipeline`. Changes nothing.
    pub(crate) fn prepare_packet_out(
        &self,
        pipeline: &Arc<Pipeline>,
        po: &PacketOut,
    ) -> Result<PreparedPacketOut, ErrorCode> {
        if po.buffer.is_some() {
            return Err(BadRequest::BufferUnknown.into());
        }
        let (dp_port, in_port) = match po.in_port {
            no @ (PortNo::CONTROLLER | PortNo::ANY) => (Switch::pseudo_port(self.index()), no),
            no => match pipeline.ports.get(no) {
                Some(p) => (p.dp, no),
                // A port that has just gone is nothing to complain about.
                None if no.is_port() => (Switch::pseudo_port(self.index()), no),
                None => return Err(BadRequest::BadPort.into()),
            },
        };
        let mut key =
            flow::parse(&framed(&po.data, &po.matches), dp_port).map_err(|_| BadRequest::BadPacket)?.key;
        put_beside(&mut key, &po.matches);
        tlv::check(pipeline, Some(po.matches.mask()), &po.actions)?;
        flow_mod::check_groups(pipeline, &po.actions)?;
        meters::check(pipeline, None, &po.actions)?;
        check_packet_out(&po.actions, &everything(&PipelineKey::from_packet(&key, in_port.0)))?;
        let fields = pipeline_fields(&po.matches);
        let start = Start::Actions { actions: &po.actions, fields: &fields };
        Ok(self.prepare(pipeline, &key, in_port, dp_port, start))
    }

    /// Executes a translated packet-out and counts it for the rules it went through.
    pub(crate) fn carry_out(&self, data: &[u8], prepared: PreparedPacketOut) {
        let PreparedPacketOut { dp_port, outcome: mut o, eth_type } = prepared;
        let Some(switch) = self.switch() else { return };
        let basis = o.basis(Some(self.index()));
        switch.credit_rules(&basis, 1, data.len() as u64, Some(switch.now()));
        switch.note_learned(&basis.learned);
        switch.note_neighbours(&o.wanted, &o.overheard);
        switch.learn_queued_flows();
        if o.actions.is_empty() {
            return;
        }
        if let Some(dp) = switch.datapath()
            && let Err(e) = match eth_type {
                None => dp.execute(data, dp_port, o.actions.into()),
                Some(t) => dp.execute(&with_blank(data, t), dp_port, o.actions.into()),
            }
        {
            // OpenFlow has no reply for this: a packet-out is as lossy as a wire.
            tracing::debug!(bridge = self.name(), error = %e, "packet-out was not carried out");
        }
    }

    /// Whose message it is.
    pub(crate) fn origin(&self, conn: ConnId, xid: Xid) -> Origin {
        let lenient = self.conns.lock().get(&conn).is_some_and(|(v, _)| *v == Version::V10);
        Origin { conn, xid, lenient }
    }

    /// Whether misses go to controllers depends on who is connected: up to OpenFlow 1.2 controllers expect them.
    fn see_who_wants_misses(&self) {
        let wanted = self.conns.lock().values().any(|(v, id)| *v < Version::V13 && *id == 0);
        if wanted != self.pipeline().misses_told {
            // Cannot fail: nothing is refused.
            let _ = self.change(false, |p| {
                p.misses_told = wanted;
                Ok(())
            });
        }
    }

    /// Lets others know of a change to groups or meters that `conn` made (OpenFlow 1.4.0 7.4.6).
    pub(crate) fn forward_request(&self, conn: ConnId, mut msg: Message) {
        let Some(sink) = self.controller_sink() else { return };
        if let Body::GroupMod(gm) = &mut msg.body {
            groups::number_buckets(gm);
        }
        sink.request_forward(conn, &msg);
    }

    /// The time that requests go by.
    pub(crate) fn now(&self) -> clock::Instant {
        self.switch().map_or(clock::Instant::ZERO, |s| s.now())
    }
}

/// A packet-out that is ready to be executed.
pub(crate) struct PreparedPacketOut {
    pub(crate) dp_port: PortId,
    pub(crate) outcome: crate::xlate::Outcome,
    /// The Ethernet type of what the packet begins with, when that is no Ethernet header.
    pub(crate) eth_type: Option<u16>,
}

/// Changes a port in a working copy; what controllers are to be told if it was not so already. Of one that goes up or down they are
/// told twice, as Open vSwitch does: that it is to, and what has become of its link.
///
/// # Errors
/// `PortModFailed`.
pub(crate) fn port_mod(p: &mut Pipeline, pm: &PortMod) -> Result<Vec<PortStatus>, ErrorCode> {
    const SETTABLE: u32 = PortConfig::PORT_DOWN.0
        | PortConfig::NO_RECV.0
        | PortConfig::NO_FWD.0
        | PortConfig::NO_FLOOD.0
        | PortConfig::NO_PACKET_IN.0;
    let mut port = p.ports.get(pm.port).ok_or(PortModFailed::BadPort)?.clone();
    if port.hw_addr != pm.hw_addr {
        return Err(PortModFailed::BadHwAddr.into());
    }
    if pm.mask.0 & !SETTABLE != 0 {
        return Err(PortModFailed::BadConfig.into());
    }
    if pm.advertise.0 != 0 {
        return Err(PortModFailed::BadAdvertise.into());
    }
    let config = PortConfig(port.config.0 & !pm.mask.0 | pm.config.0 & pm.mask.0);
    if config == port.config {
        return Ok(Vec::new());
    }
    let toggled = port.config.0 ^ config.0;
    port.config = config;
    let (desc, has_link) = (port.desc(), !port.state.has(PortState::LINK_DOWN));
    Arc::make_mut(&mut p.ports).put(port);
    p.config_generation = p.generation;
    let told = |desc| PortStatus { reason: PortReason::Modify, desc };
    let mut all = Vec::with_capacity(2);
    if toggled & PortConfig::PORT_DOWN.0 != 0 && has_link {
        let state = if config.has(PortConfig::PORT_DOWN) { PortState(0) } else { PortState::LINK_DOWN };
        all.push(told(PortDesc { state, ..desc.clone() }));
    }
    all.push(told(desc));
    Ok(all)
}

/// A match on every bit of `key`.
fn everything(key: &PipelineKey) -> PipelineMatch {
    let mut mask = PipelineMask::ZERO;
    for f in flow::FIELDS.iter().filter(|f| f.id.is_canonical() && f.id != FieldId::ActsetOutput) {
        mask.set_exact(f.id);
    }
    PipelineMatch::new(key, &mask)
}

/// A barrier that waits until records and hardware follow the tables.
struct Barrier {
    switch: Arc<Switch>,
    bridge: Arc<Bridge>,
    generation: u64,
    deadline: Deadline,
    done: bool,
}

impl ReplyStream for Barrier {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Body>> {
        if self.done {
            return Poll::Ready(None);
        }
        if !self.bridge.has_settled(self.generation) {
            // Register first, then look again: what settles in between wakes us.
            self.bridge.wait_settled(cx.waker());
            let late = self.deadline.passed(self.switch.now());
            if late {
                tracing::warn!(bridge = self.bridge.name(), "a barrier waited too long and passes");
            } else if !self.bridge.has_settled(self.generation) {
                return Poll::Pending;
            }
        }
        self.done = true;
        Poll::Ready(Some(Body::BarrierReply))
    }
}
