//! Multipart requests: statistics and descriptions.
//!
//! Counters are brought up to date before they are read, so that at rest they are exact.

use std::sync::Arc;
use std::task::{Context, Poll};

use clock::Instant;
use flow::FieldId;
use openflow::error::{BadRequest, Nicira};
use openflow::multipart::{AggregateStats, FlowStats, FlowStatsRequest, TableStats};
use openflow::port::PortStats;
use openflow::switch::{ConnId, Reply, ReplyStream};
use openflow::{Body, ErrorCode, MultipartReply, MultipartRequest, PortNo, TableId};

use crate::bridge::Bridge;
use crate::features;
use crate::flow_mod::{Filter, within};
use crate::groups;
use crate::port::Port;
use crate::queues;
use crate::rule::Rule;
use crate::tables::N_TABLES;

/// Bytes that the flows of one part are to take at most, as estimated.
pub(crate) const PART_BYTES: usize = 32 * 1024;

fn reply(r: MultipartReply) -> Result<Reply, ErrorCode> {
    Ok(Reply::One(Body::MultipartReply { more: false, reply: r }))
}

impl Bridge {
    pub(crate) fn multipart(&self, conn: ConnId, request: MultipartRequest) -> Result<Reply, ErrorCode> {
        match request {
            MultipartRequest::Desc => reply(MultipartReply::Desc(Box::new(self.config.desc.clone()))),
            MultipartRequest::Flow(r) => {
                let rules = self.selected(&r)?;
                let now = self.switch().map_or(Instant::ZERO, |s| s.now());
                Ok(Reply::Stream(Box::new(FlowParts { rules, at: 0, now, done: false })))
            }
            MultipartRequest::Aggregate(r) => {
                let mut sum = AggregateStats::default();
                for r in self.selected(&r)? {
                    sum.packets += r.packets();
                    sum.bytes += r.bytes();
                    sum.flows += 1;
                }
                reply(MultipartReply::Aggregate(sum))
            }
            MultipartRequest::Table => {
                self.collect();
                reply(MultipartReply::Table((0..N_TABLES).map(|t| self.table_stats(t)).collect()))
            }
            MultipartRequest::PortStats(no) => reply(MultipartReply::PortStats(self.port_stats(no)?)),
            MultipartRequest::PortDesc(PortNo::ANY) => {
                let p = self.pipeline();
                reply(MultipartReply::PortDesc(p.ports.iter().map(Port::desc).collect()))
            }
            MultipartRequest::PortDesc(no) => {
                let p = self.pipeline();
                let port = p.ports.get(no).ok_or(BadRequest::BadPort)?;
                reply(MultipartReply::PortDesc(vec![port.desc()]))
            }
            MultipartRequest::Queue(port, queue) => {
                reply(MultipartReply::Queue(queues::stats(&self.pipeline(), port, queue)?))
            }
            MultipartRequest::Group(id) => {
                self.collect();
                let now = self.switch().map_or(Instant::ZERO, |s| s.now());
                reply(MultipartReply::Group(groups::stats(&self.pipeline(), id, now)))
            }
            MultipartRequest::GroupDesc(id) => {
                reply(MultipartReply::GroupDesc(groups::descs(&self.pipeline(), id)))
            }
            MultipartRequest::GroupFeatures => reply(MultipartReply::GroupFeatures(groups::features())),
            MultipartRequest::Meter(no) => reply(MultipartReply::Meter(self.meter_stats(no)?)),
            MultipartRequest::MeterConfig(no) => reply(MultipartReply::MeterConfig(self.meter_configs(no)?)),
            MultipartRequest::MeterFeatures => reply(MultipartReply::MeterFeatures(self.meter_features())),
            MultipartRequest::TableFeatures(wanted) if wanted.is_empty() => {
                Ok(Reply::Many(features::parts(&self.pipeline(), self.config.max_flows_per_table)))
            }
            MultipartRequest::TableFeatures(wanted) => {
                let max = self.config.max_flows_per_table;
                self.change(false, |p| features::rename(p, &wanted, max))?;
                Ok(Reply::Many(features::parts(&self.pipeline(), max)))
            }
            MultipartRequest::TableDesc => {
                let (p, max) = (self.pipeline(), self.config.max_flows_per_table);
                reply(MultipartReply::TableDesc((0..N_TABLES).map(|t| p.table_desc(t, max)).collect()))
            }
            MultipartRequest::QueueDesc(port, queue) => {
                reply(MultipartReply::QueueDesc(queues::configs(&self.pipeline(), port, queue)?))
            }
            MultipartRequest::FlowMonitor(requests) => self.monitor(conn, requests),
            MultipartRequest::BundleFeatures => Err(BadRequest::BadMultipart.into()),
            MultipartRequest::IpfixBridge => match self.ipfix_stats(true).pop() {
                Some(stats) => reply(MultipartReply::IpfixBridge(stats)),
                None => Err(Nicira::NotConfigured.into()),
            },
            MultipartRequest::IpfixFlow => match self.ipfix_stats(false) {
                all if all.is_empty() => Err(Nicira::NotConfigured.into()),
                all => reply(MultipartReply::IpfixFlow(all)),
            },
            MultipartRequest::Experimenter { .. } => Err(BadRequest::BadExperimenter.into()),
        }
    }

    fn collect(&self) {
        if let Some(s) = self.switch() {
            s.collect();
            s.learn_queued_flows();
        }
    }

    /// The rules a request is about, by table, priority and match.
    fn selected(&self, r: &FlowStatsRequest) -> Result<Vec<Arc<Rule>>, ErrorCode> {
        if r.table != TableId::ALL && r.table.0 >= N_TABLES {
            return Err(BadRequest::BadTableId.into());
        }
        self.collect();
        let p = self.pipeline();
        let filter = Filter {
            cookie: r.cookie,
            cookie_mask: r.cookie_mask,
            out_port: r.out_port,
            out_group: r.out_group,
        };
        let wanted = |t: u8| r.table == TableId::ALL || r.table.0 == t;
        let tables = p.tables().map(|(t, _)| t).filter(|t| wanted(*t));
        Ok(tables.flat_map(|t| within(&p, t, &r.matches, filter)).collect())
    }

    fn table_stats(&self, t: u8) -> TableStats {
        let c = self.table_counters(t);
        let p = self.pipeline();
        TableStats {
            table: TableId(t),
            active: p.table(t).map_or(0, |t| t.rules.len() as u32),
            lookups: c.lookups(),
            matched: c.matched(),
            name: p.table_name(t).to_owned(),
            max_entries: u32::try_from(p.flow_limit(t, self.config.max_flows_per_table)).unwrap_or(u32::MAX),
            config: p.miss(t).map_or(0, |m| m as u32),
        }
    }

    fn port_stats(&self, no: PortNo) -> Result<Vec<PortStats>, ErrorCode> {
        let p = self.pipeline();
        if no == PortNo::ANY {
            return Ok(p.ports.iter().map(|p| self.one_port(p)).collect());
        }
        match p.ports.get(no) {
            Some(p) => Ok(vec![self.one_port(p)]),
            None => Err(BadRequest::BadPort.into()),
        }
    }

    pub(crate) fn one_port(&self, p: &Port) -> PortStats {
        const UNKNOWN: u64 = u64::MAX;
        let switch = self.switch();
        let now = switch.as_ref().map_or(p.added, |s| s.now());
        let s = switch.as_ref().and_then(|s| s.datapath()?.port_stats(p.dp).ok());
        let alive = now.since(p.added);
        // What no port of the datapath counts for it alone is counted with the flows.
        let own = match (&p.patch, &p.tunnel) {
            (Some(patch), _) => Some((&patch.received, &patch.sent)),
            (None, Some(tunnel)) => Some((&tunnel.received, &tunnel.sent)),
            (None, None) => None,
        };
        let own = own.map(|(received, sent)| datapath_api::PortStats {
            rx_packets: received.packets(),
            tx_packets: sent.packets(),
            rx_bytes: received.bytes(),
            tx_bytes: sent.bytes(),
            // There is no queue that could be full and no wire that could fail.
            rx_dropped: UNKNOWN,
            tx_dropped: UNKNOWN,
            rx_errors: UNKNOWN,
            tx_errors: UNKNOWN,
        });
        let s = own.or(s);
        let get = |f: fn(&datapath_api::PortStats) -> u64| s.as_ref().map_or(UNKNOWN, f);
        PortStats {
            port: p.no,
            rx_packets: get(|s| s.rx_packets),
            tx_packets: get(|s| s.tx_packets),
            rx_bytes: get(|s| s.rx_bytes),
            tx_bytes: get(|s| s.tx_bytes),
            rx_dropped: get(|s| s.rx_dropped),
            tx_dropped: get(|s| s.tx_dropped),
            rx_errors: get(|s| s.rx_errors),
            tx_errors: get(|s| s.tx_errors),
            rx_frame_err: UNKNOWN,
            rx_over_err: UNKNOWN,
            rx_crc_err: UNKNOWN,
            collisions: UNKNOWN,
            duration_sec: u32::try_from(alive.as_secs()).unwrap_or(u32::MAX),
            duration_nsec: alive.subsec_nanos(),
        }
    }
}

/// Flow statistics in parts, made as they are asked for.
struct FlowParts {
    rules: Vec<Arc<Rule>>,
    at: usize,
    now: Instant,
    done: bool,
}

impl ReplyStream for FlowParts {
    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Body>> {
        if self.done {
            return Poll::Ready(None);
        }
        let (mut part, mut bytes) = (Vec::new(), 0);
        while let Some(r) = self.rules.get(self.at) {
            let size = estimated_bytes(r);
            if bytes + size > PART_BYTES && !part.is_empty() {
                break;
            }
            bytes += size;
            part.push(flow_stats(r, self.now));
            self.at += 1;
        }
        let more = self.at < self.rules.len();
        self.done = !more;
        Poll::Ready(Some(Body::MultipartReply { more, reply: MultipartReply::Flow(part) }))
    }
}

fn seconds(d: std::time::Duration) -> u32 {
    u32::try_from(d.as_secs()).unwrap_or(u32::MAX)
}

fn flow_stats(r: &Rule, now: Instant) -> FlowStats {
    let age = now.since(r.created);
    FlowStats {
        table: TableId(r.table),
        duration_sec: seconds(age),
        duration_nsec: age.subsec_nanos(),
        priority: r.priority,
        idle_timeout: r.timeouts().0,
        hard_timeout: r.timeouts().1,
        flags: r.flags,
        importance: r.importance(),
        idle_age: Some(seconds(now.since(r.last_used()))),
        hard_age: Some(seconds(now.since(r.last_modified()))),
        cookie: r.cookie,
        packets: r.packets(),
        bytes: r.bytes(),
        matches: r.matches.expand(),
        instructions: (*r.instructions).clone(),
    }
}

/// More bytes than a flow takes on the wire: fixed part, each field with mask, each action at its longest but for notes.
pub(crate) fn estimated_bytes(r: &Rule) -> usize {
    let fields: usize =
        r.matches.mask().fields().map(|f: FieldId| 8 + usize::from(f.info().bits.div_ceil(8)) * 2).sum();
    let actions: usize = r
        .instructions
        .actions()
        .map(|a| match a {
            openflow::Action::Note(n) => n.len() + 32,
            openflow::Action::DecNwTtl { controllers } => 2 * controllers.len() + 32,
            _ => 64,
        })
        .sum();
    160 + 2 * fields + actions
}
