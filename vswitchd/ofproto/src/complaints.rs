//! What is wrong with the rules, told in the log: the texts of Open vSwitch 3.1.
//!
//! A forwarding core that translated a packet in vain leaves a note; the control thread writes it down. Of rules that lead
//! nowhere the whole story of the packet is told too, once a minute at most: it is long.

use std::time::Duration;

use clock::Instant;
use crossbeam_queue::ArrayQueue;
use flow::text::ofctl;
use flow::{FieldId, PacketKey, PipelineKey, PortId};
use openflow::PortNo;
use parking_lot::Mutex;

use crate::switch::Switch;
use crate::trace::{Names, Trace};
use crate::xlate::{Complaint, Problem};

/// Most notes that wait to be written; more are as good as none.
const QUEUE: usize = 16;
/// Between two whole stories.
const STORY_EVERY: Duration = Duration::from_secs(60);

/// What waits to be told.
enum Waiting {
    /// A packet was translated in vain.
    Note(Note),
    /// Rules are wrong.
    Complaint(Complaint),
}

/// A packet that was translated in vain.
struct Note {
    key: PacketKey,
    problem: Problem,
    /// See [`crate::xlate::Outcome::failed`].
    failed: Option<Box<(PacketKey, PortNo, u32)>>,
}

/// What waits to be told.
pub(crate) struct Complaints {
    notes: ArrayQueue<Waiting>,
    story: Mutex<Option<Instant>>,
}

impl Default for Complaints {
    fn default() -> Self {
        Complaints { notes: ArrayQueue::new(QUEUE), story: Mutex::default() }
    }
}

impl Complaints {
    /// Leaves a note; never waits.
    pub(crate) fn note(
        &self,
        key: &PacketKey,
        problem: Problem,
        failed: Option<Box<(PacketKey, PortNo, u32)>>,
    ) {
        // One that finds no room is told when its like comes again.
        let _ = self.notes.push(Waiting::Note(Note { key: *key, problem, failed }));
    }

    /// Leaves a complaint about rules; never waits.
    pub(crate) fn rules(&self, c: Box<Complaint>) {
        let _ = self.notes.push(Waiting::Complaint(*c));
    }

    /// Whether a whole story may be told.
    fn may_tell_story(&self, now: Instant) -> bool {
        let mut last = self.story.lock();
        let may = last.is_none_or(|t| now.since(t) >= STORY_EVERY);
        if may {
            *last = Some(now);
        }
        may
    }
}

impl Switch {
    /// Writes down what forwarding cores have noted.
    pub(crate) fn complain(&self, now: Instant) {
        for _ in 0..QUEUE {
            let n = match self.complaints.notes.pop() {
                None => return,
                Some(Waiting::Complaint(c)) => {
                    let (text, key, in_port, bridge) = c;
                    // That of the bridge that it came to first.
                    let first = PortId(key.get64(FieldId::DpPort) as u32);
                    let in_port = self.routes_now().ports.get(&first).map_or(in_port, |(_, no)| *no);
                    self.complain_of(text, &key, in_port, bridge);
                    continue;
                }
                Some(Waiting::Note(n)) => n,
            };
            if let Some((key, in_port, bridge)) = n.failed.as_deref() {
                self.complain_of(n.problem.text(), key, *in_port, *bridge);
            }
            let endless = matches!(n.problem, Problem::TooDeep | Problem::TooManyLookups);
            if endless
                && self.complaints.may_tell_story(now)
                && let Some(t) = self.story_of(&n.key)
                && let Some(verdict) = t.failure()
            {
                tracing::warn!(
                    target: "ofproto_dpif_upcall",
                    lines = true,
                    "{}\n{verdict}",
                    t.text(Names::NONE)
                );
            }
        }
    }

    fn complain_of(&self, text: &str, key: &PacketKey, in_port: PortNo, bridge: u32) {
        let Some(b) = self.bridge(bridge) else { return };
        let mut k = PipelineKey::from_packet(key, in_port.0);
        k.set(FieldId::DpPort, 0);
        let flow = ofctl::format_key(&k, &|_| None);
        tracing::warn!(target: "ofproto_dpif_xlate", "{text} on bridge {} while processing {flow}", b.name());
    }

    /// The trace of a packet that has just come in.
    fn story_of(&self, key: &PacketKey) -> Option<Trace> {
        let (bridge, no) = *self.routes_now().ports.get(&PortId(key.get64(FieldId::DpPort) as u32))?;
        let b = self.bridge(bridge)?;
        match key.get64(FieldId::RecircId) {
            0 => Some(b.trace(key, no)),
            _ => b.trace_back(&PipelineKey::from_packet(key, no.0)),
        }
    }
}
