//! Flow monitors (OpenFlow 1.4.0 7.3.5.17, and Nicira's and ONF's extensions of the same).
//!
//! Monitors belong to connections and live under the bridge's writer lock, so that the flows a monitor begins with and the
//! changes it is told of later leave no gap and do not overlap.
//!
//! When a connection has no more room its monitors pause: of what changes from then on only the ends of flows that it knows
//! of are told. Once everything has been read, the flows that were added or changed meanwhile are told, and it goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use openflow::error::{BadRequest, FlowMonitorFailed};
use openflow::flow_monitor::{
    FlowChange, FlowEvent, FlowUpdate, MonitorCommand, MonitorFlags, MonitorId, MonitorRequest,
};
use openflow::switch::{ConnId, ControllerSink, Reply, ReplyStream};
use openflow::{Body, ErrorCode, GroupId, Instructions, MultipartReply, PortNo, TableId};

use crate::changes::{Changes, Origin, RuleChange};
use crate::flow_mod::{Filter, within};
use crate::rule::Rule;
use crate::stats::{PART_BYTES, estimated_bytes};
use crate::tables::{N_TABLES, Pipeline};

/// Most monitors of a connection.
const MAX_MONITORS: usize = 1024;

/// The controller's own changes are told in full. Stock `ovs-ofctl` asks for it by the flag that OpenFlow 1.4 calls
/// "only own", and Open vSwitch takes that for no more than this; both flags mean it here.
const OWN_IN_FULL: u16 = MonitorFlags::NO_ABBREV.0 | MonitorFlags::ONLY_OWN.0;

/// The monitors of one connection.
#[derive(Clone, Debug, Default)]
struct Watch {
    monitors: BTreeMap<MonitorId, MonitorRequest>,
    /// Generation of the tables when it paused.
    paused: Option<u64>,
}

/// The monitors of a bridge.
#[derive(Debug, Default)]
pub(crate) struct Monitors {
    by_conn: BTreeMap<ConnId, Watch>,
}

impl Monitors {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_conn.is_empty()
    }

    /// Forgets a connection.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.by_conn.remove(&conn);
    }

    /// Ends a monitor.
    ///
    /// # Errors
    /// `OFPMOFC_UNKNOWN_MONITOR`.
    pub(crate) fn cancel(&mut self, conn: ConnId, id: MonitorId) -> Result<(), ErrorCode> {
        let watch = self.by_conn.get_mut(&conn).ok_or(FlowMonitorFailed::UnknownMonitor)?;
        watch.monitors.remove(&id).ok_or(FlowMonitorFailed::UnknownMonitor)?;
        if watch.monitors.is_empty() {
            self.by_conn.remove(&conn);
        }
        Ok(())
    }

    /// Carries out requests, all or none, and answers with the flows that new monitors begin with. `p` is what is published.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(crate) fn request(
        &mut self,
        conn: ConnId,
        requests: Vec<MonitorRequest>,
        p: &Arc<Pipeline>,
    ) -> Result<Reply, ErrorCode> {
        let mut watch = self.by_conn.get(&conn).cloned().unwrap_or_default();
        let mut begun = Vec::new();
        for r in requests {
            if r.command == MonitorCommand::Delete {
                watch.monitors.remove(&r.id).ok_or(FlowMonitorFailed::UnknownMonitor)?;
                continue;
            }
            if r.table != TableId::ALL && r.table.0 > N_TABLES {
                return Err(BadRequest::BadTableId.into());
            }
            match (r.command, watch.monitors.contains_key(&r.id)) {
                (MonitorCommand::Add, true) => return Err(FlowMonitorFailed::MonitorExists.into()),
                (MonitorCommand::Modify, false) => return Err(FlowMonitorFailed::UnknownMonitor.into()),
                (MonitorCommand::Add, false) if watch.monitors.len() >= MAX_MONITORS => {
                    return Err(FlowMonitorFailed::Unknown.into());
                }
                _ => {}
            }
            if r.flags.has(MonitorFlags::INITIAL) {
                begun.push(r.clone());
            }
            watch.monitors.insert(r.id, r);
        }
        if watch.monitors.is_empty() {
            self.by_conn.remove(&conn);
        } else {
            self.by_conn.insert(conn, watch);
        }
        Ok(Reply::Stream(Box::new(Refresh::new(begun, p.clone(), None))))
    }

    /// What changed while a connection's monitors paused; they go on.
    pub(crate) fn resume(&mut self, conn: ConnId, p: &Arc<Pipeline>) -> Reply {
        let Some(watch) = self.by_conn.get_mut(&conn) else { return Reply::None };
        let Some(since) = watch.paused.take() else { return Reply::None };
        let monitors = watch.monitors.values().cloned().collect();
        Reply::Stream(Box::new(Refresh::new(monitors, p.clone(), Some(since))))
    }

    /// Tells of what a change did. `generation` is that of the tables with it.
    pub(crate) fn tell(&mut self, changes: &Changes, generation: u64, sink: &dyn ControllerSink) {
        for (conn, watch) in &mut self.by_conn {
            let mut parts = Parts::default();
            let mut abbreviated = false;
            for (origin, change) in changes.iter() {
                let Some(update) = watch.update(*conn, *origin, change) else { continue };
                if matches!(update, FlowUpdate::Abbreviated(_)) && std::mem::replace(&mut abbreviated, true) {
                    continue;
                }
                parts.push(update, rule_of(change));
            }
            let parts = parts.list;
            let n = parts.len();
            let mut room = true;
            for (i, part) in parts.into_iter().enumerate() {
                room = sink.flow_updates(*conn, part, i + 1 < n);
            }
            if !room && watch.paused.is_none() {
                watch.paused = Some(generation);
                sink.flow_updates(*conn, vec![FlowUpdate::Paused], false);
            }
        }
    }
}

fn rule_of(c: &RuleChange) -> &Rule {
    match c {
        RuleChange::Added(r) | RuleChange::Removed(r, _) | RuleChange::Modified { new: r, .. } => r,
    }
}

/// Updates cut into what fits a message.
#[derive(Default)]
struct Parts {
    list: Vec<Vec<FlowUpdate>>,
    bytes: usize,
}

impl Parts {
    fn push(&mut self, u: FlowUpdate, r: &Rule) {
        let size = estimated_bytes(r);
        match self.list.last_mut() {
            Some(part) if self.bytes + size <= PART_BYTES => {
                part.push(u);
                self.bytes += size;
            }
            _ => {
                self.list.push(vec![u]);
                self.bytes = size;
            }
        }
    }
}

impl Watch {
    /// What this connection is told of a change, if anything.
    fn update(&self, conn: ConnId, origin: Option<Origin>, c: &RuleChange) -> Option<FlowUpdate> {
        let (rule, event, kind) = match c {
            RuleChange::Added(r) => (r, FlowEvent::Added, MonitorFlags::ADD),
            RuleChange::Removed(r, reason) => (r, FlowEvent::Removed(*reason), MonitorFlags::REMOVED),
            RuleChange::Modified { new, .. } => (new, FlowEvent::Modified, MonitorFlags::MODIFY),
        };
        if let Some(since) = self.paused
            && !(kind == MonitorFlags::REMOVED && rule.added_in <= since)
        {
            return None;
        }
        let own = origin.is_some_and(|o| o.conn == conn);
        let mut flags = MonitorFlags::NONE;
        for m in self.monitors.values() {
            if m.flags.has(kind) && concerns(m, c) {
                flags |= m.flags;
            }
        }
        if flags == MonitorFlags::NONE {
            return None;
        }
        match origin {
            Some(o) if own && flags.0 & OWN_IN_FULL == 0 && self.paused.is_none() => {
                Some(FlowUpdate::Abbreviated(o.xid))
            }
            _ => Some(FlowUpdate::Full(Box::new(full(rule, event, flags)))),
        }
    }
}

/// Whether a change is among the flows that a monitor is about: as they were or as they are.
fn concerns(m: &MonitorRequest, c: &RuleChange) -> bool {
    let rule = rule_of(c);
    let old = match c {
        RuleChange::Modified { old, .. } => Some(old),
        _ => None,
    };
    let sends = |r: &Rule| r.outputs_to(m.out_port);
    (m.table == TableId::ALL || m.table.0 == rule.table)
        && (m.out_port == PortNo::ANY || sends(rule) || old.is_some_and(|o| sends(o)))
        // Of groups only those that there are now, as in Open vSwitch.
        && (m.out_group == GroupId::ANY || rule.has_group(m.out_group))
        && m.matches.mask().is_subset_of(rule.matches.mask())
        && m.matches.matches(&rule.matches.key())
}

fn full(r: &Rule, event: FlowEvent, flags: MonitorFlags) -> FlowChange {
    let says = flags.has(MonitorFlags::INSTRUCTIONS);
    FlowChange {
        event,
        table: TableId(r.table),
        priority: r.priority,
        idle_timeout: r.timeouts().0,
        hard_timeout: r.timeouts().1,
        cookie: r.cookie,
        matches: r.matches.expand(),
        instructions: if says { (*r.instructions).clone() } else { Instructions::default() },
    }
}

/// The flows that monitors begin with, or those that changed since a generation, in parts made as they are asked for.
struct Refresh {
    monitors: Vec<MonitorRequest>,
    /// Tables yet to be looked at, the next one last.
    tables: Vec<u8>,
    /// Rules of the present table yet to be told, each with what monitors want of it; the next one last.
    rules: Vec<(Arc<Rule>, MonitorFlags)>,
    pipeline: Arc<Pipeline>,
    since: Option<u64>,
    done: bool,
}

impl Refresh {
    fn new(monitors: Vec<MonitorRequest>, pipeline: Arc<Pipeline>, since: Option<u64>) -> Self {
        let wanted = |t: &u8| monitors.iter().any(|m| m.table == TableId::ALL || m.table.0 == *t);
        let mut tables: Vec<u8> = pipeline.tables().map(|(t, _)| t).filter(wanted).collect();
        tables.reverse();
        Refresh { monitors, tables, rules: Vec::new(), pipeline, since, done: false }
    }

    fn next_rule(&mut self) -> Option<(Arc<Rule>, MonitorFlags)> {
        loop {
            if let Some(r) = self.rules.pop() {
                return Some(r);
            }
            let table = self.tables.pop()?;
            // By where the rule is in memory: several monitors may want the same one.
            let mut found: Vec<(Arc<Rule>, MonitorFlags)> = Vec::new();
            let mut at: BTreeMap<usize, usize> = BTreeMap::new();
            let many = self.monitors.len() > 1;
            for m in self.monitors.iter().filter(|m| m.table == TableId::ALL || m.table.0 == table) {
                let filter =
                    Filter { cookie: 0, cookie_mask: 0, out_port: m.out_port, out_group: m.out_group };
                for r in within(&self.pipeline, table, &m.matches, filter) {
                    if self.since.is_some_and(|s| r.modified_in() <= s) {
                        continue;
                    }
                    if many {
                        match at.entry(Arc::as_ptr(&r) as usize) {
                            std::collections::btree_map::Entry::Occupied(e) => {
                                found[*e.get()].1 |= m.flags;
                                continue;
                            }
                            std::collections::btree_map::Entry::Vacant(e) => e.insert(found.len()),
                        };
                    }
                    found.push((r, m.flags));
                }
            }
            found.reverse();
            self.rules = found;
        }
    }

    fn event(&self, r: &Rule) -> FlowEvent {
        match self.since {
            None => FlowEvent::Initial,
            Some(s) if r.added_in > s => FlowEvent::Added,
            Some(_) => FlowEvent::Modified,
        }
    }

    fn reply(&mut self, part: Vec<FlowUpdate>, more: bool) -> Poll<Option<Body>> {
        Poll::Ready(Some(Body::MultipartReply { more, reply: MultipartReply::FlowMonitor(part) }))
    }
}

impl ReplyStream for Refresh {
    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Body>> {
        if self.done {
            return Poll::Ready(None);
        }
        let (mut part, mut bytes) = (Vec::new(), 0);
        while let Some((r, flags)) = self.next_rule() {
            let size = estimated_bytes(&r);
            if bytes + size > PART_BYTES && !part.is_empty() {
                self.rules.push((r, flags));
                return self.reply(part, self.since.is_none());
            }
            bytes += size;
            part.push(FlowUpdate::Full(Box::new(full(&r, self.event(&r), flags))));
        }
        if self.since.is_some() {
            if part.is_empty() {
                self.done = true;
                return self.reply(vec![FlowUpdate::Resumed], false);
            }
            return self.reply(part, false);
        }
        self.done = true;
        self.reply(part, false)
    }
}
