//! Requests under way and what becomes of them.

use std::ops::Range;
use std::time::Duration;

use clock::Deadline;
use flow::FlowId;
use nix::errno::Errno;
use offload::{FlowRule, HwHandle, OffloadError, OpId, OpResult, RawStats, Reject};

use super::kept::Kept;
use super::place::Side;
use super::{EntryKind, TcProvider, refusal};
use crate::ack::Ack;
use crate::action::{ActionSpec, Counts, Ct, TcAction, VlanAction};
use crate::capability::TABLE_ID;
use crate::filter::{FilterAt, Flower, Head, KeyMatch, Terse};
use crate::keys::FlowerKey;
use crate::message::{Message, kind, messages};
use crate::transport::Transport;
use crate::wire::Writer;

/// What a request was for.
#[derive(Clone, Debug)]
pub(super) enum Job {
    /// A filter of a new entry.
    Install { op: OpId, rule: Box<FlowRule>, at: FilterAt, kind: EntryKind },
    /// The new filter of a replacement.
    New { handle: HwHandle },
    /// The old filter of a replacement goes; the new one is at `at`.
    Old { op: OpId, handle: HwHandle, rule: Box<FlowRule>, at: FilterAt, side: Side, kind: EntryKind },
    /// An entry's filter goes; of a replacement that was rejected, with the reject.
    Remove { op: OpId, handle: HwHandle, flow: FlowId, rejected: Option<Reject> },
    /// An entry's filter, which somebody has removed, comes back.
    PutBack { handle: HwHandle },
    /// A filter that nobody claims goes.
    Sweep,
}

impl Job {
    /// The operation that the answer completes.
    pub fn op(&self) -> Option<(OpId, FlowId)> {
        match self {
            Job::Install { op, rule, .. } | Job::Old { op, rule, .. } => Some((*op, rule.id)),
            Job::Remove { op, flow, .. } => Some((*op, *flow)),
            Job::New { .. } | Job::PutBack { .. } | Job::Sweep => None,
        }
    }
}

/// A request under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub seq: u32,
    /// Where it is in the batch.
    pub request: Range<usize>,
    pub job: Job,
    /// What the kernel is to tell back.
    pub meant: Option<Flower>,
    /// What of it has been told back otherwise.
    pub altered: Option<&'static str>,
    /// Whether a device has it, as told back.
    pub in_hw: bool,
    /// Last counters of a filter that was removed.
    pub last: Option<Terse>,
    /// That the kernel tells the filter is the answer; an acknowledgement comes only of a refusal.
    pub told: bool,
}

impl Flight {
    pub fn new(seq: u32, request: Range<usize>, job: Job, meant: Option<Flower>) -> Self {
        Flight { seq, request, job, meant, altered: None, in_hw: false, last: None, told: false }
    }
}

/// What a filter that the kernel tells has otherwise than it was meant: a key, or a kind of action. A kernel that is older than
/// an attribute takes no notice of it.
fn difference(meant: &Flower, told: &Flower) -> Option<&'static str> {
    let rest = (&meant.enc_opts, &meant.mpls, &meant.cfm) == (&told.enc_opts, &told.mpls, &told.cfm);
    if !rest {
        return Some("options");
    }
    if let Some(key) = other_key(meant, told) {
        return Some(key);
    }
    let alike = |(a, b): (&TcAction, &TcAction)| a.verdict == b.verdict && same_action(&a.spec, &b.spec);
    if let Some((a, _)) = meant.actions.iter().zip(&told.actions).find(|ab| !alike(*ab)) {
        return Some(a.spec.kind());
    }
    (meant.actions.len() != told.actions.len()).then_some("actions")
}

/// Of tagged packets the kernel tells the innermost type as the Ethernet type.
fn other_key(meant: &Flower, told: &Flower) -> Option<&'static str> {
    let inner = meant.get(FlowerKey::CvlanEthType).or(meant.get(FlowerKey::VlanEthType));
    for m in &meant.keys {
        let alike = |t: &KeyMatch| {
            m == t || m.key == FlowerKey::EthType && t.key == m.key && inner == Some((t.value, t.mask))
        };
        if !told.keys.iter().any(alike) {
            return Some(m.key.row().name);
        }
    }
    (meant.keys.len() != told.keys.len()).then_some("keys")
}

fn same_action(meant: &ActionSpec, told: &ActionSpec) -> bool {
    match (meant, told) {
        // The one of that number, whatever it is like by now.
        (ActionSpec::Police(_), ActionSpec::Police(_)) => true,
        // Kernels with zones tell zone 0 of those that named none.
        (ActionSpec::Ct(m), ActionSpec::Ct(t)) => {
            let zone = |c: &Ct| c.zone.unwrap_or(0);
            zone(m) == zone(t) && **m == Ct { zone: m.zone, ..(**t).clone() }
        }
        // The kernel tells a priority of zero where there is none.
        (
            ActionSpec::Vlan(VlanAction::Modify { proto, vid, prio: None }),
            ActionSpec::Vlan(VlanAction::Modify { proto: p, vid: v, prio: None | Some(0) }),
        ) => (proto, vid) == (p, v),
        _ => meant == told,
    }
}

impl<T: Transport> TcProvider<T> {
    /// Whether the batch has been sent and answers are waited for.
    pub(super) fn is_sent(&self) -> bool {
        self.sent > 0
    }

    /// Sends the batch that was put together.
    pub(super) fn send(&mut self) {
        if self.batch.is_empty() || self.is_sent() {
            return;
        }
        let sent = self.link.send(self.batch.bytes());
        self.sent = self.batch.len();
        self.sent_at = self.clock.now();
        if let Err(e) = sent {
            tracing::debug!("{}: requests could not be sent: {e}", self.config.name);
            // Nothing was carried out, and a dump will say so.
            self.resync();
        }
    }

    /// Takes in answers that are there. True when none is missing.
    pub(super) fn collect(&mut self, wait: Duration) -> bool {
        let due = Deadline::after(self.clock.now(), wait);
        while !self.flights.is_empty() {
            match self.receive(due.left(self.clock.now())) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_) => {
                    self.resync();
                    return true;
                }
            }
        }
        self.batch.clear();
        self.sent = 0;
        true
    }

    /// Waits until no request is under way.
    pub(super) fn settle(&mut self) {
        self.send();
        if !self.flights.is_empty() && !self.collect(self.config.timeout) {
            self.resync();
        }
    }

    /// One round: answers, deadlines, recovery.
    pub(super) fn pump(&mut self) {
        if self.down.is_some() {
            return self.recover();
        }
        let patient = !self.flights.is_empty()
            && !Deadline::after(self.sent_at, self.config.timeout).passed(self.clock.now());
        if !self.collect(Duration::ZERO) && !patient {
            self.resync();
        }
        if self.unsettled && self.flights.is_empty() && self.down.is_none() {
            self.settle_chains();
        }
    }

    /// Receives one datagram and takes it in. False when there was none in time.
    fn receive(&mut self, wait: Duration) -> Result<bool, std::io::Error> {
        let mut buf = std::mem::take(&mut self.buf);
        let got = self.link.receive(&mut buf, wait);
        if let Ok(true) = got {
            for m in messages(&buf) {
                match m {
                    Ok(m) => self.dispatch(&m),
                    Err(_) => self.counters.unreadable += 1,
                }
            }
        }
        self.buf = buf;
        got
    }

    /// Takes in a message about a request under way; others are stale.
    pub(super) fn dispatch(&mut self, m: &Message<'_>) {
        let Some(i) = self.flights.iter().position(|f| f.seq == m.seq) else {
            return;
        };
        match m.kind {
            kind::ERROR => {
                let Ok(ack) = Ack::read(m.flags, m.body) else {
                    self.counters.unreadable += 1;
                    return;
                };
                self.answer_to(i, &ack);
            }
            kind::NEW_FILTER | kind::DEL_FILTER => {
                let Ok(Some(h)) = Head::read(m.body) else {
                    self.counters.unreadable += 1;
                    return;
                };
                let f = &mut self.flights[i];
                if m.kind == kind::DEL_FILTER {
                    f.last = h.terse().ok();
                } else if let Some(meant) = &f.meant {
                    let told = h.flower();
                    f.in_hw = told.as_ref().is_ok_and(|(_, r)| r.in_hw);
                    f.altered = match told {
                        Err(_) => Some("it"),
                        Ok((_, r)) if !r.unknown.is_empty() => Some("keys"),
                        Ok((told, _)) => difference(meant, &told),
                    };
                }
                if self.flights[i].told {
                    self.answer_to(i, &Ack::default());
                }
            }
            _ => {}
        }
    }

    /// The answer to the request under way at `i` has come. Answers come in order: one that is passed over is lost.
    fn answer_to(&mut self, i: usize, ack: &Ack) {
        if i > 0 {
            self.resync_first(i);
        }
        if let Some(f) = self.flights.pop_front() {
            self.answered(f, ack);
        }
    }

    /// What the acknowledgement of `f` means.
    fn answered(&mut self, f: Flight, ack: &Ack) {
        let request = self.batch.bytes().get(f.request.clone()).unwrap_or_default();
        let mut said = match ack.errno {
            0 => Ok(()),
            _ => Err(refusal(ack, request)),
        };
        if let (true, Some(what)) = (said.is_ok(), f.altered) {
            self.counters.altered += 1;
            let text = format!("the kernel has made something else of {what}");
            said = Err(Reject::Device { errno: 0, attribute: String::new(), text });
        }
        // No filter, no interface, no qdisc: what a removal wanted is so.
        let none = matches!(Errno::from_raw(ack.errno), Errno::ENOENT | Errno::ENODEV | Errno::EINVAL);
        let gone = ack.errno == 0 || none;
        match f.job {
            Job::Install { op, rule, at, kind } => {
                let flow = rule.id;
                match said {
                    Ok(()) => {
                        let h = self.new_handle();
                        let kind = EntryKind { in_hw: f.in_hw, ..kind };
                        self.remember(h, *rule, at, Side::First, kind);
                        self.finish(op, flow, OpResult::Installed(h, TABLE_ID));
                    }
                    Err(r) => {
                        self.unwanted(f.altered.is_some(), at);
                        self.finish(op, flow, OpResult::Rejected(r, None));
                    }
                }
            }
            Job::New { handle } => {
                let in_hw = f.in_hw;
                for f in &mut self.flights {
                    if let Job::Old { handle: h, kind, .. } = &mut f.job
                        && *h == handle
                    {
                        kind.in_hw = in_hw;
                    }
                }
                if f.altered.is_some() {
                    let at = self.flights.iter().find_map(|f| match &f.job {
                        Job::Old { handle: h, at, .. } if *h == handle => Some(*at),
                        _ => None,
                    });
                    at.into_iter().for_each(|at| self.unwanted(true, at));
                }
                self.halves.insert(handle, said);
            }
            Job::Old { op, handle, rule, at, side, kind } => {
                let new = self.halves.remove(&handle).unwrap_or(Ok(()));
                let last = self.read_last(handle, f.last.as_ref());
                self.replaced(op, handle, (*rule, at, side, kind), new, gone, last);
            }
            Job::Remove { op, handle, flow, rejected } => {
                let last = self.read_last(handle, f.last.as_ref());
                if gone {
                    self.forget(handle);
                    let result = match rejected {
                        Some(r) => OpResult::Rejected(r, Some(last)),
                        None => OpResult::Removed(handle, last),
                    };
                    return self.finish(op, flow, result);
                }
                let error = failure(said);
                self.idle(handle);
                self.finish(op, flow, OpResult::Failed { error, left: Some(handle), last: None });
            }
            Job::PutBack { handle } => {
                let Some(e) = self.entries.get_mut(&handle) else { return };
                e.busy = false;
                let at = e.at;
                match said {
                    Ok(()) => {
                        e.in_hw = f.in_hw;
                        // The filter counts from zero again.
                        e.before = Counts {
                            packets: e.before.packets + e.last.packets,
                            bytes: e.before.bytes + e.last.bytes,
                        };
                        e.last = Counts::default();
                        self.counters.put_back += 1;
                    }
                    Err(why) => {
                        self.unwanted(f.altered.is_some(), at);
                        self.lose(handle, why);
                    }
                }
            }
            Job::Sweep => self.counters.swept += u64::from(ack.errno == 0),
        }
    }

    /// The end of a replacement: whether the new filter is there, whether the old one is gone.
    pub(super) fn replaced(
        &mut self,
        op: OpId,
        handle: HwHandle,
        (rule, at, side, kind): (FlowRule, FilterAt, Side, EntryKind),
        new: Result<(), Reject>,
        gone: bool,
        last: RawStats,
    ) {
        let flow = rule.id;
        let result = match (new, gone) {
            (Ok(()), true) => {
                if let Some(e) = self.entries.get_mut(&handle) {
                    self.by_place.remove(&e.at);
                    self.by_place.insert(at, handle);
                    (e.rule, e.at, e.side) = (Kept::of(&rule), at, side);
                    (e.goes_to, e.held_back, e.in_hw) = (kind.goes_to, kind.held_back, kind.in_hw);
                    self.unsettled |= at.chain != 0 || kind.goes_to.is_some();
                    (e.busy, e.seen) = (false, self.round);
                    e.before = Counts { packets: last.packets, bytes: last.bytes };
                    e.last = Counts::default();
                }
                OpResult::Replaced(handle, Some(last))
            }
            (Err(r), true) => {
                self.forget(handle);
                OpResult::Rejected(r, Some(last))
            }
            (new, false) => {
                self.idle(handle);
                if new.is_ok() {
                    self.unwanted(true, at);
                }
                OpResult::Failed { error: failure(new), left: Some(handle), last: None }
            }
        };
        self.finish(op, flow, result);
    }

    fn idle(&mut self, handle: HwHandle) {
        if let Some(e) = self.entries.get_mut(&handle) {
            e.busy = false;
        }
    }

    /// Counters of an entry, with a last reading of its filter if there is one.
    pub(super) fn read_last(&mut self, handle: HwHandle, last: Option<&Terse>) -> RawStats {
        let Some(e) = self.entries.get_mut(&handle) else {
            return RawStats::default();
        };
        if let Some(t) = last {
            let now = Self::frames(&e.at, t.report.total, t.report.hardware);
            if now.packets >= e.last.packets {
                e.last = now;
            }
        }
        e.stats()
    }

    /// Has a filter that nobody will claim removed with the next batch.
    fn unwanted(&mut self, there: bool, at: FilterAt) {
        if !there {
            return;
        }
        let mut w = Writer::new();
        let seq = self.next_seq();
        crate::message::delete_filter(&mut w, seq, &at);
        // Apart from the batch, whose answers are still being read.
        if self.link.send(w.bytes()).is_ok() {
            self.flights.push_back(Flight::new(seq, 0..0, Job::Sweep, None));
        }
    }

    /// Sends one request and waits for its acknowledgement.
    pub(super) fn ask(&mut self, put: impl FnOnce(&mut Writer, u32)) -> Result<Ack, OffloadError> {
        self.ask_for(put, &mut |_| {})
    }

    /// Sends one request, hands what comes before the acknowledgement, or before a dump's end, to `each`, and waits for that.
    pub(super) fn ask_for(
        &mut self,
        put: impl FnOnce(&mut Writer, u32),
        each: &mut dyn FnMut(&Message<'_>),
    ) -> Result<Ack, OffloadError> {
        self.settle();
        let seq = self.next_seq();
        let mut w = Writer::new();
        put(&mut w, seq);
        let lost = |e: std::io::Error| OffloadError::Device(e.to_string());
        self.link.send(w.bytes()).map_err(lost)?;
        let due = Deadline::after(self.clock.now(), self.config.timeout);
        let mut buf = Vec::new();
        loop {
            if !self.link.receive(&mut buf, due.left(self.clock.now())).map_err(lost)? {
                return Err(OffloadError::TimedOut("the kernel's answer".into()));
            }
            for m in messages(&buf).flatten() {
                match m.kind {
                    kind::ERROR if m.seq == seq => {
                        return Ack::read(m.flags, m.body).map_err(|e| OffloadError::Device(e.to_string()));
                    }
                    kind::DONE if m.seq == seq => return Ok(Ack::default()),
                    _ if m.seq == seq => each(&m),
                    _ => self.dispatch(&m),
                }
            }
        }
    }
}

/// A refusal of something that cannot be refused.
fn failure(said: Result<(), Reject>) -> OffloadError {
    match said {
        Err(r) => OffloadError::Device(r.to_string()),
        Ok(()) => OffloadError::Device("the old filter is still there".into()),
    }
}
