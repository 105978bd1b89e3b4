//! What was the answer? When answers are lost, the kernel is asked what is there, and requests under way are judged by that.

use std::collections::{BTreeMap, BTreeSet};

use offload::{OffloadError, OpResult};

use super::TcProvider;
use super::flight::{Flight, Job};
use super::place;
use crate::filter::{FilterAt, Hook, Terse};
use crate::transport::Transport;

impl<T: Transport> TcProvider<T> {
    /// Judges every request under way by what is there.
    pub(super) fn resync(&mut self) {
        let all = self.flights.len();
        self.resync_first(all);
        self.batch.clear();
        self.sent = 0;
    }

    /// Judges the first `n` requests under way by what is there; their answers are lost.
    pub(super) fn resync_first(&mut self, n: usize) {
        let lost: Vec<Flight> = self.flights.drain(..n.min(self.flights.len())).collect();
        if lost.is_empty() {
            return;
        }
        self.counters.resyncs += 1;
        if self.flights.is_empty() {
            self.drain();
        }
        let hooks: BTreeSet<Hook> = lost.iter().flat_map(|f| self.places(&f.job)).map(|at| at.hook).collect();
        let mut there: BTreeMap<FilterAt, Terse> = BTreeMap::new();
        for hook in hooks {
            let read = self.dump_hook(hook, true, &mut |p, h| {
                if let Ok(t) = h.terse()
                    && place::flow_of(p.config.owner, t.cookie).is_some()
                {
                    there.insert(h.at, t);
                }
            });
            if let Err(e) = read {
                return self.fail(lost, &e.to_string());
            }
        }
        for f in lost {
            self.judge(f, &there);
        }
    }

    /// Where the filters of a request are.
    fn places(&self, job: &Job) -> Vec<FilterAt> {
        let entry = |h| self.entries.get(h).map(|e| e.at);
        match job {
            Job::Install { at, .. } => vec![*at],
            Job::New { handle } | Job::Remove { handle, .. } | Job::PutBack { handle } => {
                entry(handle).into_iter().collect()
            }
            Job::Old { handle, at, .. } => entry(handle).into_iter().chain([*at]).collect(),
            Job::Sweep => Vec::new(),
        }
    }

    fn judge(&mut self, f: Flight, there: &BTreeMap<FilterAt, Terse>) {
        let lost = || OffloadError::TimedOut("the kernel's answer".into());
        match f.job {
            Job::Install { op, rule, at, kind } => {
                let flow = rule.id;
                let result = match there.contains_key(&at) {
                    true => {
                        let h = self.new_handle();
                        self.remember(h, *rule, at, place::Side::First, kind);
                        OpResult::Installed(h, crate::capability::TABLE_ID)
                    }
                    false => OpResult::Failed { error: lost(), left: None, last: None },
                };
                self.finish(op, flow, result);
            }
            // What there is to say of it the second half says.
            Job::New { .. } => {}
            Job::Old { op, handle, rule, at, side, kind } => {
                self.halves.remove(&handle);
                let old = self.entries.get(&handle).map(|e| e.at);
                let (new, old) = (there.contains_key(&at), old.and_then(|at| there.get(&at)));
                let last = self.read_last(handle, old);
                let flow = rule.id;
                match (new, old.is_some()) {
                    (true, gone_not) => {
                        self.replaced(op, handle, (*rule, at, side, kind), Ok(()), !gone_not, last);
                    }
                    (false, true) => {
                        if let Some(e) = self.entries.get_mut(&handle) {
                            e.busy = false;
                        }
                        let result = OpResult::Failed { error: lost(), left: Some(handle), last: None };
                        self.finish(op, flow, result);
                    }
                    (false, false) => {
                        self.forget(handle);
                        let result = OpResult::Failed { error: lost(), left: None, last: Some(last) };
                        self.finish(op, flow, result);
                    }
                }
            }
            Job::Remove { op, handle, flow, rejected } => {
                let at = self.entries.get(&handle).map(|e| e.at);
                let still = at.and_then(|at| there.get(&at));
                let last = self.read_last(handle, still);
                let result = match (still.is_some(), rejected) {
                    (true, _) => {
                        if let Some(e) = self.entries.get_mut(&handle) {
                            e.busy = false;
                        }
                        OpResult::Failed { error: lost(), left: Some(handle), last: None }
                    }
                    (false, rejected) => {
                        self.forget(handle);
                        match rejected {
                            Some(r) => OpResult::Rejected(r, Some(last)),
                            None => OpResult::Removed(handle, last),
                        }
                    }
                };
                self.finish(op, flow, result);
            }
            Job::PutBack { handle } => {
                if let Some(e) = self.entries.get_mut(&handle) {
                    e.busy = false;
                }
            }
            Job::Sweep => {}
        }
    }

    /// The kernel cannot be relied on: what was under way has failed, every handle is void.
    fn fail(&mut self, lost: Vec<Flight>, why: &str) {
        let rest: Vec<Flight> = self.flights.drain(..).collect();
        for (op, flow) in lost.iter().chain(&rest).filter_map(|f| f.job.op()) {
            let error = OffloadError::DeviceDown(why.to_owned());
            self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
        }
        self.halves.clear();
        self.batch.clear();
        self.sent = 0;
        self.lose_tables();
        self.go_down(why);
    }

    pub(super) fn go_down(&mut self, why: &str) {
        tracing::warn!("{}: {why}", self.config.name);
        self.down = Some(why.to_owned());
        self.retry_at = self.clock.now() + self.config.retry;
    }

    /// Empties the tables, and is up again when that works.
    pub(super) fn recover(&mut self) {
        if self.clock.now() < self.retry_at {
            return;
        }
        self.drain();
        match self.sweep() {
            Ok(()) => {
                self.drain();
                self.down = None;
            }
            Err(e) => {
                self.down = Some(e.to_string());
                self.retry_at = self.clock.now() + self.config.retry;
            }
        }
    }
}
