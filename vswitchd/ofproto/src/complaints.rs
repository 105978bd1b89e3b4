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
use crate::xlate::Problem;

/// Most notes that wait to be written; more are as good as none.
const QUEUE: usize = 16;
/// Between two whole stories.
const STORY_EVERY: Duration = Duration::from_secs(60);

/// A packet that was translated in vain.
struct Note {
    key: PacketKey,
    problem: Problem,
    /// See [`crate::xlate::Outcome::failed`].
    failed: Option<Box<(PacketKey, PortNo, u32)>>,
}

/// What waits to be told.
pub(crate) struct Complaints {
    notes: ArrayQueue<Note>,
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
        let _ = self.notes.push(Note { key: *key, problem, failed });
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
            let Some(n) = self.complaints.notes.pop() else { return };
            if let Some((key, in_port, bridge)) = n.failed.as_deref()
                && let Some(b) = self.bridge(*bridge)
            {
                let mut k = PipelineKey::from_packet(key, in_port.0);
                k.set(FieldId::DpPort, 0);
                let flow = ofctl::format_key(&k, &|_| None);
                tracing::warn!(
                    target: "ofproto_dpif_xlate",
                    "{} on bridge {} while processing {flow}", n.problem.text(), b.name()
                );
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
