//! What a bridge tells collectors: its exporters, their sockets, and who feeds them.
//!
//! A bridge without exporters has nothing to do with this but for one look at a flag a round. Flows of NetFlow are those of flow
//! records: whoever credits a record to its rules adds to the flow, and a record that goes ends it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clock::Instant;
use crossbeam_queue::ArrayQueue;
use datapath_api::FlowRecord;
use exporters::netflow::{FlowKey, Traffic};
use exporters::{Collectors, Netflow, Now, Sent};
use parking_lot::Mutex;

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
}

impl Default for ExportQueue {
    fn default() -> Self {
        ExportQueue { queue: ArrayQueue::new(QUEUE), dropped: AtomicU64::new(0) }
    }
}

impl ExportQueue {
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
    /// What became of datagrams of exporters that are there no more.
    gone: Sent,
    netflow: Option<(Netflow, Collectors)>,
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
        self.on.store(all.netflow.is_some(), Ordering::Release);
    }

    /// Whether there are any.
    fn are_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Does what has become due.
    pub(crate) fn run(&self, at: Instant) {
        if !self.are_on() {
            return;
        }
        self.with_netflow(now(at), |n, now, out| n.run(now, out));
    }

    fn with_netflow(&self, now: Now, f: impl FnOnce(&mut Netflow, Now, &mut dyn FnMut(&[u8]) -> Sent)) {
        if let Some((n, to)) = &mut self.all.lock().netflow {
            f(n, now, &mut |d| to.send(d, now.at));
        }
    }

    /// What became of datagrams since the last call.
    fn take_sent(&self) -> Sent {
        let mut all = self.all.lock();
        let gone = std::mem::take(&mut all.gone);
        all.netflow.iter_mut().map(|(_, to)| to.take_sent()).fold(gone, |a, b| a + b)
    }
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
                None => break,
            }
        }
    }

    /// Tells exporters what is queued for them, and has them do what has become due.
    pub(crate) fn run_exporters(&self, now: Instant) {
        self.export_queued();
        self.bridges().iter().for_each(|b| b.exports.run(now));
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
