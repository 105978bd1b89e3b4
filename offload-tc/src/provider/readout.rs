//! Dumps: counters in bulk, what a former life left, what somebody else removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clock::Deadline;
use flow::PortId;
use nix::errno::Errno;
use offload::{FlowRule, HwHandle, OffloadError, StatsBatch, StatsCursor};

use super::chains::NOBODY;
use super::flight::Job;
use super::{EntryKind, TcProvider, place};
use crate::ack::Ack;
use crate::action::{ActionSpec, Verdict};
use crate::filter::{FilterAt, Flower, Head, Hook};
use crate::lower_match::raise_match;
use crate::message::{self, flag, kind, messages};
use crate::transport::Transport;
use crate::wire::Writer;

/// Times that a dump that was interrupted is begun again.
const TRIES: usize = 4;
/// Filters that are put back in one round, so that a quarrel over them stays one of a bounded rate.
const PUT_BACK: usize = 64;

impl<T: Transport> TcProvider<T> {
    /// Hands every filter on a hook to `each`. Answers to requests under way are taken in on the side. `whole` begins again when
    /// the dump was interrupted, and `each` may get a filter more than once.
    ///
    /// # Errors
    /// [`OffloadError`]: nothing came in time, answers were lost, or it was interrupted each time.
    pub(super) fn dump_hook(
        &mut self,
        hook: Hook,
        terse: bool,
        each: &mut dyn FnMut(&mut Self, &Head<'_>),
    ) -> Result<(), OffloadError> {
        let mut why = OffloadError::Device("the dump was interrupted".into());
        for _ in 0..TRIES {
            match self.dump_once(hook, terse, each) {
                Ok(true) => return Ok(()),
                Ok(false) => self.counters.interrupted += 1,
                Err(e) => why = e,
            }
        }
        Err(why)
    }

    /// One dump; false when it was interrupted.
    fn dump_once(
        &mut self,
        hook: Hook,
        terse: bool,
        each: &mut dyn FnMut(&mut Self, &Head<'_>),
    ) -> Result<bool, OffloadError> {
        let seq = self.next_seq();
        let mut w = Writer::new();
        message::dump_filters(&mut w, seq, hook, terse && self.terse);
        let lost = |e: std::io::Error| OffloadError::Device(e.to_string());
        self.link.send(w.bytes()).map_err(lost)?;
        let due = Deadline::after(self.clock.now(), self.config.timeout);
        let mut buf = Vec::new();
        let mut clean = true;
        loop {
            if !self.link.receive(&mut buf, due.left(self.clock.now())).map_err(lost)? {
                return Err(OffloadError::TimedOut("a dump of filters".into()));
            }
            for m in messages(&buf) {
                let Ok(m) = m else {
                    self.counters.unreadable += 1;
                    clean = false;
                    continue;
                };
                if m.seq != seq {
                    self.dispatch(&m);
                    continue;
                }
                clean &= m.flags & flag::DUMP_INTR == 0;
                match m.kind {
                    kind::DONE => return Ok(clean),
                    kind::ERROR => {
                        let ack = Ack::read(m.flags, m.body).unwrap_or_default();
                        return match Errno::from_raw(ack.errno) {
                            // No interface, no qdisc: no filters.
                            Errno::ENODEV | Errno::ENOENT | Errno::EINVAL => Ok(clean),
                            e => Err(OffloadError::Device(e.desc().into())),
                        };
                    }
                    kind::NEW_FILTER => match Head::read(m.body) {
                        Ok(Some(h)) if h.is_filter() => each(self, &h),
                        Ok(_) => {}
                        Err(_) => self.counters.unreadable += 1,
                    },
                    _ => {}
                }
            }
        }
    }

    /// Reads every counter, and notes which filters are there.
    ///
    /// # Errors
    /// As [`Self::dump_hook`]; entries that were not read keep their counters.
    pub(super) fn read_counters(&mut self) -> Result<(), OffloadError> {
        self.round += 1;
        // With nothing under way, what is ours and in no book is what an answer that was lost has left.
        let mut strays = Vec::new();
        let idle = self.flights.is_empty();
        for hook in self.hooks() {
            self.dump_hook(hook, true, &mut |p, h| {
                if let Some(k) = p.keepers.get_mut(&h.at) {
                    k.seen = p.round;
                }
                let Some(e) = p.by_place.get(&h.at).and_then(|h| p.entries.get_mut(h)) else {
                    let cookie = h.terse().ok().and_then(|t| t.cookie);
                    let ours = place::flow_of(p.config.owner, cookie).filter(|f| *f != NOBODY);
                    if h.is_flower() && ours.is_some() {
                        strays.push(h.at);
                    }
                    return;
                };
                let Ok(t) = h.terse() else {
                    p.counters.unreadable += 1;
                    return;
                };
                // Somebody else's in our place.
                if place::flow_of(p.config.owner, t.cookie).is_none() {
                    return;
                }
                e.seen = p.round;
                if e.in_hw != t.in_hw {
                    e.in_hw = t.in_hw;
                    p.unsettled |= e.at.chain != 0 || e.goes_to.is_some();
                }
                let now = Self::frames(&h.at, t.report.total, t.report.hardware);
                if now.packets >= e.last.packets {
                    e.last = now;
                }
            })?;
        }
        let all = strays.len();
        strays.truncate(if idle { PUT_BACK } else { 0 });
        let swept = strays.into_iter().filter(|at| self.sweep_one(*at)).count();
        self.strays = swept < all;
        Ok(())
    }

    /// Asks for the filter of an entry that a dump did not tell: the kernel counts through the priorities of a chain while it dumps, and
    /// when somebody adds or removes one meanwhile it leaves others out without a word. Whether it is there; its counters are read then.
    fn is_there(&mut self, h: HwHandle) -> bool {
        let Some(at) = self.entries.get(&h).map(|e| e.at) else { return false };
        let mut told = None;
        let asked = self.ask_for(|w, seq| message::get_filter(w, seq, &at), &mut |m| {
            if let Ok(Some(head)) = Head::read(m.body) {
                told = head.terse().ok();
            }
        });
        let Some(t) = told.filter(|_| asked.is_ok_and(|a| a.errno == 0)) else { return false };
        if place::flow_of(self.config.owner, t.cookie).is_none() {
            return false;
        }
        let (now, round) = (Self::frames(&at, t.report.total, t.report.hardware), self.round);
        if let Some(e) = self.entries.get_mut(&h) {
            e.seen = round;
            if now.packets >= e.last.packets {
                e.last = now;
            }
        }
        true
    }

    /// Has filters put back that somebody has removed.
    fn put_back(&mut self) {
        let mut gone: Vec<HwHandle> = self
            .entries
            .iter()
            .filter(|(_, e)| e.seen != self.round && !e.busy)
            .map(|(h, _)| *h)
            .take(PUT_BACK)
            .collect();
        gone.retain(|h| !self.is_there(*h));
        let hooks: BTreeSet<Hook> =
            gone.iter().filter_map(|h| self.entries.get(h)).map(|e| e.at.hook).collect();
        for hook in hooks {
            // Perhaps the qdisc went, and the filters with it.
            if let Hook::Ingress(i) | Hook::Egress(i) = hook
                && let Err(e) = self.ensure_qdisc(i)
            {
                tracing::debug!("{}: {e}", self.config.name);
            }
        }
        for h in gone {
            let Some(e) = self.entries.get(&h) else { continue };
            let (rule, at) = (e.rule.rule(), e.at);
            let lowered = self.lower(&rule).and_then(|l| self.keep_places(&l).map(|()| l));
            let l = match lowered {
                Ok(l) => l,
                Err(why) => {
                    self.lose(h, why);
                    continue;
                }
            };
            if let Some(e) = self.entries.get_mut(&h) {
                (e.busy, e.seen) = (true, self.round);
                (e.held_back, e.in_hw) = (EntryKind::of(&l).held_back, false);
            }
            self.request_add(&at, l.flower, Job::PutBack { handle: h });
        }
        self.settle();
    }

    /// See `poll_stats`: a round reads all counters at its beginning.
    pub(super) fn read_stats(
        &mut self,
        cursor: &mut StatsCursor,
        budget: usize,
    ) -> Result<StatsBatch, OffloadError> {
        if cursor.0 == 0 && self.down.is_none() {
            self.sweep_policers();
        }
        if cursor.0 == 0 && !self.entries.is_empty() {
            self.settle();
            self.read_counters()?;
            self.restore_keepers();
            if self.entries.values().any(|e| e.seen != self.round && !e.busy) {
                self.put_back();
            }
            self.settle_chains();
        }
        let mut b = StatsBatch { lost: std::mem::take(&mut self.lost), ..StatsBatch::default() };
        let mut next = cursor.0;
        for (h, e) in self.entries.range(HwHandle(cursor.0)..).take(budget) {
            b.stats.push((*h, e.rule.id, e.stats()));
            next = h.0 + 1;
        }
        b.wrapped = self.entries.range(HwHandle(next)..).next().is_none();
        cursor.0 = if b.wrapped { 0 } else { next };
        Ok(b)
    }

    /// Takes filters on an interface that are ours by their cookie, from before a restart, into the books. What they do is told
    /// as far as it can be said in datapath actions.
    pub(super) fn adopt(&mut self, port: PortId, ifindex: u32) {
        let mut found = Vec::new();
        let read = self.dump_hook(self.hook(ifindex), false, &mut |p, h| {
            let Ok(t) = h.terse() else { return };
            if !h.is_flower() || p.by_place.contains_key(&h.at) {
                return;
            }
            if let Some(flow) = place::flow_of(p.config.owner, t.cookie) {
                let flower = h.flower().map(|(f, _)| f).unwrap_or_default();
                found.push((h.at, flow, flower));
            }
        });
        if let Err(e) = read {
            tracing::warn!("{}: filters on interface {ifindex} cannot be read: {e}", self.config.name);
        }
        // What names chains goes, those first that lead to others: a recirculation id of a former life means nothing.
        let leads = |f: &Flower| f.actions.iter().any(|a| matches!(a.verdict, Verdict::Goto(_)));
        found.sort_by_key(|(at, _, f)| (!leads(f), at.chain, at.prio));
        for (at, flow, flower) in found {
            if self.by_place.contains_key(&at) {
                continue;
            }
            if at.chain != 0 || leads(&flower) {
                if !self.sweep_one(at) && leads(&flower) {
                    // What it leads to has to stay as long as it does.
                    return;
                }
                continue;
            }
            let Some(side) = self.prios.adopt(at.protocol, at.prio) else {
                // Of a life with other settings.
                self.sweep_one(at);
                continue;
            };
            let matches = raise_match(&flower, port);
            let rule = FlowRule {
                id: flow,
                matches,
                actions: self.raise_outputs(&flower),
                provenance: Arc::new([]),
            };
            let h = self.new_handle();
            self.remember(h, rule, at, side, EntryKind::default());
        }
    }

    fn raise_outputs(&self, f: &Flower) -> Arc<[flow::Action]> {
        let port = |i: u32| self.ports.iter().find(|(_, n)| *n == i).map(|(p, _)| flow::Action::Output(*p));
        let outputs = f.actions.iter().filter_map(|a| match a.spec {
            ActionSpec::Mirred { ifindex, .. } => port(ifindex),
            _ => None,
        });
        outputs.collect()
    }

    /// Removes every filter of ours that there is, whether in the books or not. The books stay as they are.
    ///
    /// # Errors
    /// [`OffloadError`]; some may still be there.
    pub(super) fn sweep(&mut self) -> Result<(), OffloadError> {
        let hooks = self.hooks();
        let mut last = OffloadError::Device("filters stay".into());
        for _ in 0..2 * TRIES {
            let mut ours = Vec::new();
            for hook in &hooks {
                self.dump_hook(*hook, true, &mut |p, h| {
                    let cookie = h.terse().ok().and_then(|t| t.cookie);
                    if h.is_flower()
                        && let Some(flow) = place::flow_of(p.config.owner, cookie)
                    {
                        ours.push((flow == NOBODY, h.at));
                    }
                })?;
            }
            ours.sort_unstable();
            ours.dedup();
            if ours.is_empty() {
                return Ok(());
            }
            // What catches the rest in chains goes when nothing leads there any more.
            if ours.iter().any(|(keeper, _)| !keeper) {
                ours.retain(|(keeper, _)| !keeper);
            }
            let ours: Vec<FilterAt> = ours.into_iter().map(|(_, at)| at).collect();
            for part in ours.chunks(self.config.queue_depth.max(1)) {
                let mut w = Writer::new();
                for at in part {
                    let seq = self.next_seq();
                    message::delete_filter(&mut w, seq, at);
                }
                if let Err(e) = self.link.send(w.bytes()) {
                    last = OffloadError::Device(e.to_string());
                }
                self.counters.swept += part.len() as u64;
                self.drain();
            }
        }
        Err(last)
    }

    /// Removes a filter that nobody claims; false when it may still be there.
    fn sweep_one(&mut self, at: FilterAt) -> bool {
        let gone = self.ask(|w, seq| message::delete_filter(w, seq, &at));
        let gone = gone.is_ok_and(|a| matches!(Errno::from_raw(a.errno), Errno::ENOENT) || a.errno == 0);
        self.counters.swept += u64::from(gone);
        gone
    }

    /// Throws away answers that nobody waits for.
    pub(super) fn drain(&mut self) {
        let mut buf = Vec::new();
        // Bounded: more datagrams than a receive buffer holds are not stale ones.
        for _ in 0..65_536 {
            if let Ok(false) = self.link.receive(&mut buf, Duration::ZERO) {
                return;
            }
        }
    }
}
