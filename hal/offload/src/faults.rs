//! A provider that fails on demand, with a seed: whatever goes wrong in the field goes wrong here, repeatably.
//!
//! [`FaultProvider`] wraps another provider. It keeps the contract (each accepted operation completes exactly once, in
//! order) and bends everything the contract allows to go wrong:
//!
//! ```text
//!            part of a batch accepted        refused │ failed, nothing left │ failed, entry left │ delayed
//!   submit ─────────► FaultProvider ────► inner provider ────► completions, in order of submission ────► poll
//!                          └── goes down: tables lost, later up with a new generation; counters cannot be read
//! ```
//!
//! What happened is kept in a log that is printed when a test panics. Packets whose counts were lost on the way are counted
//! ([`FaultProvider::lost_packets`]), so that a test can still hold sums against what it sent.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::capability::{OffloadCapabilities, TableId};
use crate::ledger::{delta, is_behind};
use crate::objects::SharedObjects;
use crate::provider::{
    Completion, Completions, FlowOp, HwHandle, InstalledFlow, OffloadError, OffloadProvider, OpId, OpResult,
    RawStats, StatsBatch, StatsCursor,
};
use crate::reject::Reject;
use crate::rule::FlowId;
use crate::seed::Seed;

/// Lines of the log that are kept.
const LOG_LINES: usize = 200;

/// How often what goes wrong, in percent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FaultRates {
    /// An operation is refused by the device.
    pub reject: u8,
    /// An operation fails and leaves nothing in the tables.
    pub fail_gone: u8,
    /// An operation fails and leaves the entry, with the old or the new rule.
    pub fail_left: u8,
    /// Of failures that leave nothing: the last counters cannot be had.
    pub lose_last: u8,
    /// A submission takes only a part of the batch.
    pub partial: u8,
    /// A poll returns nothing, and so do a few after it.
    pub delay: u8,
    /// A poll of counters, or a dump, fails.
    pub stats: u8,
    /// A submission meets a device that has gone down.
    pub down: u8,
}

impl FaultRates {
    /// Nothing goes wrong.
    pub const NONE: FaultRates = FaultRates {
        reject: 0,
        fail_gone: 0,
        fail_left: 0,
        lose_last: 0,
        partial: 0,
        delay: 0,
        stats: 0,
        down: 0,
    };

    /// Everything goes wrong now and then.
    pub const ALL: FaultRates = FaultRates {
        reject: 8,
        fail_gone: 5,
        fail_left: 8,
        lose_last: 50,
        partial: 20,
        delay: 20,
        stats: 10,
        down: 2,
    };
}

/// What becomes of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// What the inner provider says.
    Pass,
    /// Refused; an entry that was to be replaced is removed.
    Reject,
    /// Failed with nothing left; an entry that it named is removed.
    Gone,
    /// Failed, the inner provider has done it.
    LeftDone,
    /// Failed, the inner provider was not asked.
    LeftUndone(HwHandle),
}

#[derive(Debug)]
struct Pending {
    op: OpId,
    flow: FlowId,
    fate: Fate,
    /// The inner provider was not asked and will not answer.
    unasked: bool,
    result: Option<(FlowId, OpResult)>,
}

/// What the user knows of an entry.
#[derive(Clone, Copy, Debug)]
struct Read {
    table: TableId,
    flow: FlowId,
    packets: u64,
}

/// See the module's text.
pub struct FaultProvider<P: OffloadProvider> {
    inner: P,
    rates: FaultRates,
    seed: Seed,
    pending: VecDeque<Pending>,
    stalled_polls: u64,
    down_polls: u64,
    generation: u64,
    log: VecDeque<String>,
    /// What the user has read of each entry.
    read: HashMap<HwHandle, Read>,
    lost_packets: u64,
}

impl<P: OffloadProvider> FaultProvider<P> {
    /// Wraps `inner`; which faults come when follows from `seed`.
    pub fn new(inner: P, rates: FaultRates, seed: u64) -> Self {
        FaultProvider {
            inner,
            rates,
            seed: Seed::new(seed),
            pending: VecDeque::new(),
            stalled_polls: 0,
            down_polls: 0,
            generation: 0,
            log: VecDeque::new(),
            read: HashMap::new(),
            lost_packets: 0,
        }
    }

    /// Sets how often what goes wrong from now on.
    pub fn set_rates(&mut self, rates: FaultRates) {
        self.rates = rates;
    }

    /// The provider inside.
    pub fn inner(&mut self) -> &mut P {
        &mut self.inner
    }

    /// Packets that the device counted and nobody will ever read.
    pub fn lost_packets(&self) -> u64 {
        self.lost_packets
    }

    /// What went wrong, oldest first.
    pub fn log(&self) -> impl Iterator<Item = &str> {
        self.log.iter().map(String::as_str)
    }

    /// The device goes down for `polls` polls and loses its tables.
    pub fn go_down(&mut self, polls: u64) {
        self.note(format!("down for {polls} polls"));
        self.lose_unread();
        // A memory device cannot fail here; another one is then what it is: unknown.
        if let Err(e) = self.inner.flush() {
            self.note(format!("flush while going down: {e}"));
        }
        self.abandon();
        self.generation += 1;
        self.down_polls = polls;
    }

    /// The tables are empty: no operation leaves anything, asked or not.
    fn abandon(&mut self) {
        for p in &mut self.pending {
            if matches!(p.fate, Fate::LeftUndone(_)) {
                (p.fate, p.unasked) = (Fate::Gone, true);
            }
        }
    }

    fn note(&mut self, line: String) {
        if self.log.len() >= LOG_LINES {
            self.log.pop_front();
        }
        self.log.push_back(line);
    }

    fn width(&self, t: TableId) -> u8 {
        self.inner.capabilities().table(t).map_or(64, |t| t.counters.packet_bits)
    }

    /// Takes in what the inner provider has completed.
    fn collect(&mut self) {
        let mut got = Vec::new();
        self.inner.poll(&mut got, usize::MAX);
        for c in got {
            if let Some(p) = self.pending.iter_mut().find(|p| p.op == c.op && p.result.is_none()) {
                p.result = Some((c.flow, c.result));
            }
        }
    }

    /// Counts what is in the tables and has not been read as lost. What a completion on its way tells is not.
    fn lose_unread(&mut self) {
        self.collect();
        let told: Vec<_> = self
            .pending
            .iter()
            .filter(|p| p.fate == Fate::Pass)
            .filter_map(|p| match p.result {
                Some((_, OpResult::Replaced(h, Some(raw)))) => Some((h, raw)),
                _ => None,
            })
            .collect();
        for (h, raw) in told {
            self.saw(h, &raw);
        }
        for f in self.inner.dump().unwrap_or_default() {
            let read = self.read.get(&f.handle).map_or(0, |r| r.packets);
            self.lost_packets += delta(self.width(f.table), read, f.stats.packets);
        }
    }

    /// The last counters of an entry, when they are to be had.
    fn last(&mut self, h: HwHandle, raw: RawStats) -> Option<RawStats> {
        let (table, read) = self.read.remove(&h).map_or((TableId(u16::MAX), 0), |r| (r.table, r.packets));
        if !self.seed.percent(self.rates.lose_last) {
            return Some(raw);
        }
        let width = self.width(table);
        self.lost_packets += delta(width, read, raw.packets);
        self.note(format!("last counters of {h:?} lost"));
        None
    }

    fn fate(&mut self, op: &FlowOp) -> Fate {
        let r = self.rates;
        let dice = self.seed.below(100);
        let (reject, gone) = (u64::from(r.reject), u64::from(r.reject) + u64::from(r.fail_gone));
        let left = gone + u64::from(r.fail_left);
        let fate = match op {
            FlowOp::Remove(..) if dice < reject => Fate::Pass,
            _ if dice < reject => Fate::Reject,
            _ if dice < gone => Fate::Gone,
            FlowOp::Install(..) if dice < left => Fate::LeftDone,
            FlowOp::Replace(_, h, _) if dice < left => {
                if self.seed.percent(50) {
                    Fate::LeftDone
                } else {
                    Fate::LeftUndone(*h)
                }
            }
            FlowOp::Remove(_, h) if dice < left => Fate::LeftUndone(*h),
            _ => Fate::Pass,
        };
        if fate != Fate::Pass {
            self.note(format!("{:?}: {fate:?}", op.id()));
        }
        fate
    }

    /// Gives the operation, or what stands for it, to the inner provider. False when that has no room.
    fn pass(&mut self, op: &FlowOp, fate: Fate) -> bool {
        let instead;
        let op = match (op, fate) {
            (_, Fate::Pass | Fate::LeftDone) => op,
            (_, Fate::LeftUndone(_)) | (FlowOp::Install(..), _) => return true,
            (FlowOp::Replace(id, h, _) | FlowOp::Remove(id, h), Fate::Reject | Fate::Gone) => {
                instead = FlowOp::Remove(*id, *h);
                &instead
            }
        };
        self.inner.submit(std::slice::from_ref(op)) == 1
    }

    /// Turns the inner provider's answer into the one that fate wants.
    fn answer(&mut self, p: &Pending) -> Option<Completion> {
        let error = || OffloadError::Device("injected fault".into());
        let refused =
            || Reject::Device { errno: 12, attribute: String::new(), text: "injected refusal".into() };
        let result = match (&p.fate, &p.result) {
            (Fate::LeftUndone(h), _) => OpResult::Failed { error: error(), left: Some(*h), last: None },
            (Fate::Reject, None) if p.unasked => OpResult::Rejected(refused(), None),
            (Fate::Gone, None) if p.unasked => OpResult::Failed { error: error(), left: None, last: None },
            (_, None) => return None,
            (Fate::Reject, Some((_, OpResult::Removed(h, raw)))) => {
                let last = self.last(*h, *raw);
                OpResult::Rejected(refused(), last)
            }
            (Fate::Gone, Some((_, OpResult::Removed(h, raw)))) => {
                let last = self.last(*h, *raw);
                OpResult::Failed { error: error(), left: None, last }
            }
            (Fate::LeftDone, Some((_, OpResult::Installed(h, _) | OpResult::Replaced(h, _)))) => {
                OpResult::Failed { error: error(), left: Some(*h), last: None }
            }
            (_, Some((_, r))) => r.clone(),
        };
        let flow = p.result.as_ref().map_or(p.flow, |(f, _)| *f);
        match p.result.as_ref().map(|(_, r)| r) {
            Some(OpResult::Installed(h, table)) => {
                self.read.insert(*h, Read { table: *table, flow, packets: 0 });
            }
            Some(OpResult::Replaced(h, _)) => {
                if let Some(r) = self.read.get_mut(h) {
                    r.flow = flow;
                }
            }
            _ => {}
        }
        match &result {
            OpResult::Replaced(h, Some(raw)) => self.saw(*h, raw),
            OpResult::Removed(h, _) => {
                self.read.remove(h);
            }
            _ => {}
        }
        Some(Completion { op: p.op, flow: if p.flow.0 == 0 { flow } else { p.flow }, result })
    }

    fn saw(&mut self, h: HwHandle, raw: &RawStats) {
        let Some(table) = self.read.get(&h).map(|r| r.table) else {
            return;
        };
        let width = self.width(table);
        if let Some(r) = self.read.get_mut(&h)
            && !is_behind(width, r.packets, raw.packets)
        {
            r.packets = raw.packets;
        }
    }

    fn is_down(&self) -> Option<OffloadError> {
        (self.down_polls > 0).then(|| OffloadError::DeviceDown("injected fault".into()))
    }
}

impl<P: OffloadProvider> OffloadProvider for FaultProvider<P> {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        self.inner.capabilities()
    }

    fn submit(&mut self, ops: &[FlowOp]) -> usize {
        if self.down_polls == 0 && self.seed.percent(self.rates.down) {
            let polls = 1 + self.seed.below(5);
            self.go_down(polls);
        }
        if self.is_down().is_some() {
            return 0;
        }
        let mut limit = ops.len();
        if self.seed.percent(self.rates.partial) {
            limit = self.seed.below(ops.len() as u64 + 1) as usize;
        }
        let depth = self.inner.capabilities().queue_depth;
        for (i, op) in ops.iter().take(limit).enumerate() {
            if self.outstanding() >= depth {
                return i;
            }
            let fate = self.fate(op);
            if !self.pass(op, fate) {
                return i;
            }
            let flow = match op {
                FlowOp::Install(_, r) | FlowOp::Replace(_, _, r) => r.id,
                FlowOp::Remove(_, h) => self.read.get(h).map_or(FlowId(0), |r| r.flow),
            };
            let unasked = matches!((op, fate), (FlowOp::Install(..), Fate::Reject | Fate::Gone));
            self.pending.push_back(Pending { op: op.id(), flow, fate, unasked, result: None });
        }
        limit
    }

    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize {
        self.down_polls = self.down_polls.saturating_sub(1);
        self.collect();
        if self.stalled_polls > 0 {
            self.stalled_polls -= 1;
            return 0;
        }
        if self.seed.percent(self.rates.delay) {
            self.stalled_polls = self.seed.below(4);
            return 0;
        }
        let mut n = 0;
        while n < budget
            && let Some(p) = self.pending.pop_front()
        {
            match self.answer(&p) {
                Some(c) => {
                    out.push(c);
                    n += 1;
                }
                None => {
                    self.pending.push_front(p);
                    break;
                }
            }
        }
        n
    }

    fn outstanding(&self) -> usize {
        self.pending.len()
    }

    fn objects(&mut self) -> &mut dyn SharedObjects {
        self.inner.objects()
    }

    fn poll_stats(&mut self, cursor: &mut StatsCursor, budget: usize) -> Result<StatsBatch, OffloadError> {
        if let Some(e) = self.is_down() {
            return Err(e);
        }
        if self.seed.percent(self.rates.stats) {
            self.note("counters cannot be read".into());
            return Err(OffloadError::TimedOut("injected fault".into()));
        }
        let b = self.inner.poll_stats(cursor, budget)?;
        for (h, _, raw) in &b.stats {
            self.saw(*h, raw);
        }
        Ok(b)
    }

    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        if let Some(e) = self.is_down() {
            return Err(e);
        }
        if self.seed.percent(self.rates.stats) {
            self.note("tables cannot be dumped".into());
            return Err(OffloadError::TimedOut("injected fault".into()));
        }
        self.inner.dump()
    }

    fn flush(&mut self) -> Result<(), OffloadError> {
        if let Some(e) = self.is_down() {
            return Err(e);
        }
        self.lose_unread();
        self.abandon();
        self.inner.flush()
    }

    fn health(&self) -> Result<(), OffloadError> {
        self.is_down().map_or_else(|| self.inner.health(), Err)
    }

    fn generation(&self) -> u64 {
        self.inner.generation() + self.generation
    }

    fn set_ports(&mut self, ports: &[(flow::PortId, u32)]) -> Result<(), OffloadError> {
        if let Some(e) = self.is_down() {
            return Err(e);
        }
        self.inner.set_ports(ports)
    }
}

impl<P: OffloadProvider> Drop for FaultProvider<P> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in &self.log {
                eprintln!("fault: {line}");
            }
        }
    }
}
