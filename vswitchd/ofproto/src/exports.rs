//! What a bridge tells collectors: its exporters, their sockets, and who feeds them.
//!
//! A bridge without exporters has nothing to do with this but for one look at a flag a round. Flows of NetFlow are those of flow
//! records: whoever credits a record to its rules adds to the flow, and a record that goes ends it. Packets that the datapath sampled
//! come by a bounded queue; the control thread takes them to the exporter that they are for.

mod sampled;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clock::Instant;
use crossbeam_queue::ArrayQueue;
use datapath_api::{Exported, FlowRecord};
use exporters::ipfix::{self, CacheSettings, Ipfix, IpfixSettings};
use exporters::netflow::{FlowKey, Traffic};
use exporters::{Collectors, Netflow, Now, Sent, Sflow, sflow};
use openflow::multipart::IpfixStats;
use parking_lot::Mutex;

use crate::bridge::Bridge;
use crate::record::FlowOwner;
use crate::settings::BridgeSettings;
use crate::switch::Switch;

/// A flow that packets of a record are counted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NetflowOf {
    /// Of which bridge.
    pub bridge: u32,
    /// Which.
    pub key: FlowKey,
    /// Where its packets go.
    pub output: u16,
}

/// Most that waits for the control thread to tell exporters of it.
const QUEUE: usize = 4096;

/// What forwarding cores have for exporters: they do not wait for these.
pub(crate) struct ExportQueue {
    queue: ArrayQueue<Export>,
    dropped: AtomicU64,
}

/// One thing that a forwarding core has for an exporter.
enum Export {
    /// Traffic of a flow that has no record.
    Flow(NetflowOf, Traffic),
    /// A packet that was sampled.
    Packet(Box<Exported>),
}

impl Default for ExportQueue {
    fn default() -> Self {
        ExportQueue { queue: ArrayQueue::new(QUEUE), dropped: AtomicU64::new(0) }
    }
}

impl ExportQueue {
    /// Takes a packet that was sampled. Whether there was room.
    pub(crate) fn take(&self, e: Exported) -> bool {
        self.push(Export::Packet(Box::new(e)))
    }

    /// What found no room since the last call.
    fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    /// Whether there was room.
    fn push(&self, e: Export) -> bool {
        let taken = self.queue.push(e).is_ok();
        if !taken {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }
}

/// The exporters of a bridge.
#[derive(Default)]
pub(crate) struct Exports {
    /// Whether there are any.
    on: AtomicBool,
    all: Mutex<All>,
}

#[derive(Default)]
struct All {
    netflow: Option<(Netflow, Collectors)>,
    sflow: Option<(Sflow, Collectors)>,
    ipfix: Option<(IpfixSettings, Ipfix, Collectors)>,
    sets: BTreeMap<u32, (Ipfix, Collectors)>,
    /// What became of datagrams of exporters that are there no more.
    gone: Sent,
}

/// The time, also that of the world.
pub(crate) fn now(at: Instant) -> Now {
    Now { at, wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO) }
}

impl Exports {
    /// Makes the exporters those that the settings want.
    pub(crate) fn configure(&self, settings: &BridgeSettings, now: Now) {
        let mut all = self.all.lock();
        all.set_netflow(settings, now);
        all.set_sflow(settings, now);
        all.set_ipfix(settings.ipfix.as_ref(), now);
        all.set_sets(&settings.flow_ipfix, now);
        let on = all.netflow.is_some() || all.sflow.is_some() || all.ipfix.is_some() || !all.sets.is_empty();
        self.on.store(on, Ordering::Release);
    }

    /// Does what has become due.
    fn run(&self, of: &Bridge, switch: &Switch, at: Instant) {
        if !self.on.load(Ordering::Acquire) {
            return;
        }
        let now = now(at);
        let all = &mut *self.all.lock();
        if let Some((n, to)) = &mut all.netflow {
            n.run(now, &mut |d| to.send(d, now.at));
        }
        if let Some((s, to)) = &mut all.sflow {
            let counted = sampled::CountedBy { bridge: of, switch, totals: s.settings().sub_id == 0 };
            s.run(now, &counted, &mut |d| to.send(d, now.at));
        }
        let bridge = all.ipfix.iter_mut().map(|(_, x, to)| (x, to));
        for (x, to) in bridge.chain(all.sets.values_mut().map(|(x, to)| (x, to))) {
            x.run(now, &mut |d| to.send(d, now.at));
        }
    }

    fn with_netflow(&self, now: Now, f: impl FnOnce(&mut Netflow, Now, &mut dyn FnMut(&[u8]) -> Sent)) {
        if let Some((n, to)) = &mut self.all.lock().netflow {
            f(n, now, &mut |d| to.send(d, now.at));
        }
    }

    /// What became of datagrams since the last call.
    fn take_sent(&self) -> Sent {
        let all = &mut *self.all.lock();
        let mut sent = std::mem::take(&mut all.gone);
        let collectors = (all.netflow.iter_mut().map(|(_, to)| to))
            .chain(all.sflow.iter_mut().map(|(_, to)| to))
            .chain(all.ipfix.iter_mut().map(|(.., to)| to))
            .chain(all.sets.values_mut().map(|(_, to)| to));
        collectors.for_each(|to| sent += to.take_sent());
        sent
    }
}

/// Sockets to the targets of a row; `None` when there is nobody.
fn open(targets: &[String], usual_port: u16, what: &str) -> Option<Collectors> {
    let to = Collectors::open(targets, Some(usual_port));
    if to.is_empty() {
        tracing::warn!(target: "ofproto", "no collectors could be initialized, {what} disabled");
        return None;
    }
    Some(to)
}

impl All {
    fn set_netflow(&mut self, settings: &BridgeSettings, now: Now) {
        match (&mut self.netflow, &settings.netflow) {
            (None, None) => {}
            (Some((n, to)), None) => {
                n.finish(now, &mut |d| to.send(d, now.at));
                self.gone += to.take_sent();
                self.netflow = None;
            }
            (Some((n, _)), Some(s)) if n.settings() == s => {}
            (Some((n, to)), Some(s)) => {
                if n.settings().targets != s.targets {
                    self.gone += to.take_sent();
                    *to = Collectors::open(&s.targets, None);
                }
                n.set(s.clone(), now.at);
            }
            (none, Some(s)) => {
                let to = Collectors::open(&s.targets, None);
                *none = Some((Netflow::new(s.clone(), now.at), to));
            }
        }
    }

    fn set_sflow(&mut self, settings: &BridgeSettings, now: Now) {
        let wanted = settings.sflow.as_ref().filter(|s| s.is_on());
        if self.sflow.as_ref().map(|(s, _)| s.settings()) == wanted {
            return;
        }
        if let Some((mut s, mut to)) = self.sflow.take() {
            s.send(now, &mut |d| to.send(d, now.at));
            self.gone += to.take_sent();
        }
        let Some(s) = wanted else { return };
        let Some(to) = open(&s.targets, sflow::USUAL_PORT, "sFlow") else { return };
        let Some(agent) = s.agent.or_else(|| to.local_ip()) else {
            tracing::error!(target: "sflow", "could not determine IP address for sFlow agent");
            return;
        };
        tracing::info!(target: "sflow", "creating sFlow agent {}", s.sub_id);
        self.sflow = Some((Sflow::new(s.clone(), agent, now.at), to));
    }

    fn set_ipfix(&mut self, wanted: Option<&IpfixSettings>, now: Now) {
        let wanted = wanted.filter(|s| s.is_on());
        if self.ipfix.as_ref().map(|(s, ..)| s) == wanted {
            return;
        }
        if let Some((s, x, to)) = &mut self.ipfix
            && let Some(w) = wanted
            && s.cache == w.cache
        {
            // To the same collectors: what there is to say of it goes on.
            x.finish(now, &mut |d| to.send(d, now.at));
            *s = w.clone();
            return;
        }
        if let Some((_, mut x, mut to)) = self.ipfix.take() {
            x.finish(now, &mut |d| to.send(d, now.at));
            self.gone += to.take_sent();
        }
        let Some(s) = wanted else { return };
        if let Some(to) = open(&s.cache.targets, ipfix::USUAL_PORT, "IPFIX exporter") {
            self.ipfix = Some((s.clone(), Ipfix::new(s.cache.clone(), 0), to));
        }
    }

    fn set_sets(&mut self, wanted: &BTreeMap<u32, CacheSettings>, now: Now) {
        let gone: Vec<u32> = (self.sets.iter())
            .filter(|(id, (x, _))| wanted.get(id) != Some(x.settings()))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            if let Some((mut x, mut to)) = self.sets.remove(&id) {
                x.finish(now, &mut |d| to.send(d, now.at));
                self.gone += to.take_sent();
            }
        }
        for (id, s) in wanted {
            if !self.sets.contains_key(id)
                && let Some(to) = open(&s.targets, ipfix::USUAL_PORT, "IPFIX exporter")
            {
                self.sets.insert(*id, (Ipfix::new(s.clone(), *id), to));
            }
        }
    }
}

fn stats_of(x: &Ipfix, collector_set: u32) -> IpfixStats {
    let c = x.counts();
    IpfixStats {
        total_flows: c.flows,
        current_flows: c.current_flows,
        packets: c.packets,
        ipv4_packets: c.ok[0],
        ipv6_packets: c.ok[1],
        error_packets: c.errors[0] + c.errors[1],
        ipv4_error_packets: c.errors[0],
        ipv6_error_packets: c.errors[1],
        tx_packets: c.sent.ok,
        tx_errors: c.sent.failed,
        collector_set,
    }
}

impl Bridge {
    /// What the bridge's exporter by IPFIX has done, or those of its sets.
    pub(crate) fn ipfix_stats(&self, of_bridge: bool) -> Vec<IpfixStats> {
        if let Some(s) = self.switch() {
            s.export_queued();
        }
        let all = self.exports.all.lock();
        if of_bridge {
            all.ipfix.iter().map(|(_, x, _)| stats_of(x, 0)).collect()
        } else {
            all.sets.iter().map(|(id, (x, _))| stats_of(x, *id)).collect()
        }
    }
}

impl Switch {
    /// What became of what exporters had to tell since the last call, by the names of coverage counters.
    pub(crate) fn take_export_coverage(&self) -> [(&'static str, u64); 3] {
        let sent = self.bridges().iter().map(|b| b.exports.take_sent()).fold(Sent::default(), |a, b| a + b);
        [
            ("exporter_datagrams_sent", sent.ok),
            ("exporter_datagrams_failed", sent.failed),
            ("exporter_queue_full", self.exports.take_dropped()),
        ]
    }

    /// Has traffic added to a flow of NetFlow, without waiting.
    pub(crate) fn count_flow_later(&self, of: Option<&NetflowOf>, t: Traffic) {
        if let Some(of) = of {
            self.exports.push(Export::Flow(*of, t));
            self.wake();
        }
    }

    /// Tells exporters what is queued for them.
    pub(crate) fn export_queued(&self) {
        for _ in 0..QUEUE {
            match self.exports.queue.pop() {
                Some(Export::Flow(of, t)) => self.count_flow(Some(&of), &t),
                Some(Export::Packet(e)) => {
                    if let Some(b) = self.bridge(e.export.bridge) {
                        b.export(&e, now(self.now()));
                    }
                }
                None => break,
            }
        }
    }

    /// Tells exporters what is queued for them, and has them do what has become due.
    pub(crate) fn run_exporters(&self, now: Instant) {
        self.export_queued();
        self.bridges().iter().for_each(|b| b.exports.run(b, self, now));
    }

    /// Adds traffic to a flow of NetFlow.
    pub(crate) fn count_flow(&self, of: Option<&NetflowOf>, t: &Traffic) {
        let Some((of, b)) = of.and_then(|of| Some((of, self.bridge(of.bridge)?))) else { return };
        b.exports.with_netflow(now(self.now()), |n, now, out| n.add(of.key, of.output, t, now, out));
    }

    /// A record has gone, and what of its packets was counted for a flow of NetFlow is told.
    pub(crate) fn end_flow_of(&self, r: &FlowRecord) {
        let basis = FlowOwner::of(r).map(FlowOwner::basis);
        let of = basis.as_ref().and_then(|b| b.netflow.as_ref());
        let Some((of, b)) = of.and_then(|of| Some((of, self.bridge(of.bridge)?))) else { return };
        b.exports.with_netflow(now(self.now()), |n, now, out| n.end(&of.key, now, out));
    }
}
