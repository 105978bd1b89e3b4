//! The kernel's filters as an [`OffloadProvider`].
//!
//! ```text
//!   submit ─ lower ─┬─ rejected ──────────────────────► done ─► poll
//!                   └─ requests of a batch ─ send ─┐      ▲
//!                                                  kernel │ acknowledgements, in order
//!                                                  └──────┘
//! ```
//!
//! Requests of one submit travel in one buffer; the kernel has carried them out when the send returns, and the answers are read when
//! polled: of each request one, the filter as the kernel tells it (echo), or an acknowledgement where nothing is told or it is refused. Two operations on one entry are never in the same batch, except the two halves of a
//! replacement.
//!
//! When answers are lost (the receive buffer overran, nothing came in time) the truth is asked of the kernel by a dump
//! ([`resync`]), and what nobody will claim is removed before the operation is said to have failed. Only when that fails too the
//! provider says that it is down; it empties the tables and comes back by itself.
//!
//! Filters are known by their cookies: of others none is ever changed or removed. A qdisc that was there stays.

mod chains;
mod config;
mod flight;
mod kept;
mod meters;
mod place;
mod probe;
mod readout;
mod resync;

pub use config::{TcConfig, TcPolicy};

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use clock::{Clock, Instant};
use flow::{Action, FlowId, PortId};
use nix::errno::Errno;
use offload::{
    Completion, Completions, FlowOp, FlowRule, HwHandle, InstalledFlow, LostEntry, OffloadCapabilities,
    OffloadError, OffloadProvider, OpId, OpResult, RawStats, Reject, SharedObjects, StatsBatch, StatsCursor,
};

use crate::ack::Ack;
use crate::action::{ActionSpec, Counts, TcAction, Verdict};
use crate::capability::{Missing, TABLE_ID, capabilities};
use crate::filter::{FilterAt, Flower, Hook, flags};
use crate::links::{self, LinkInfo};
use crate::lower_action::lower_actions;
use crate::lower_match::{LoweredMatch, TABLE, Terms, lower_match};
use crate::message::{self, Add};
use crate::transport::Transport;
use crate::wire::Writer;

use flight::{Flight, Job};
use kept::Kept;
use place::{Prios, Side};

/// Ethernet header and tag, which software does not count when it counts a frame's bytes at ingress.
const UNCOUNTED: (u64, u64) = (14, 4);

/// A filter of ours.
#[derive(Clone, Debug)]
struct Entry {
    rule: Kept,
    at: FilterAt,
    side: Side,
    /// Counted by filters that this one has replaced.
    before: Counts,
    /// Last reading of the filter itself.
    last: Counts,
    /// Chain that its packets go on in.
    goes_to: Option<u32>,
    /// Whether it is kept from hardware though the policy would let it there.
    held_back: bool,
    /// Whether a device has it.
    in_hw: bool,
    /// An operation is under way.
    busy: bool,
    /// The round of counters in which it was last seen, or in which it came.
    seen: u64,
}

/// What an entry is beside its rule.
#[derive(Clone, Copy, Debug, Default)]
struct EntryKind {
    goes_to: Option<u32>,
    held_back: bool,
    in_hw: bool,
}

impl EntryKind {
    fn of(l: &LoweredMatch) -> Self {
        let held_back = l.goes_to.is_some() && l.flower.flags & flags::SKIP_HW != 0;
        EntryKind { goes_to: l.goes_to.map(|(c, _)| c), held_back, in_hw: false }
    }
}

impl Entry {
    fn stats(&self) -> RawStats {
        RawStats {
            packets: self.before.packets + self.last.packets,
            bytes: self.before.bytes + self.last.bytes,
            // The kernel's clock tick is a hundredth of a second: too coarse to be worth more than the change itself.
            last_used: None,
        }
    }
}

/// What has happened that should not, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcCounters {
    /// Times the kernel's answers were lost and it was asked for the truth.
    pub resyncs: u64,
    /// Dumps that were interrupted and begun again.
    pub interrupted: u64,
    /// Filters that somebody else removed and that were put back.
    pub put_back: u64,
    /// Filters that the kernel told back otherwise than they were meant.
    pub altered: u64,
    /// Filters of ours that nobody claimed, removed.
    pub swept: u64,
    /// Messages from the kernel that could not be read.
    pub unreadable: u64,
    /// Filters that were taken out of hardware, or let into it, because of the chain that they lead to.
    pub moved: u64,
}

/// See the module's text.
pub struct TcProvider<T> {
    link: T,
    clock: Arc<dyn Clock>,
    config: TcConfig,
    capabilities: Arc<OffloadCapabilities>,
    /// What the filters of an interface were found not to be able to do.
    missing: BTreeMap<u32, Missing>,
    /// Interfaces of which some filters were found to be in hardware.
    hardware: BTreeSet<u32>,
    /// Datapath ports and the interfaces they are.
    ports: Vec<(PortId, u32)>,
    /// What rtnetlink says of them.
    links: BTreeMap<u32, LinkInfo>,
    /// Those that are tunnels.
    tunnels: Vec<u32>,
    /// Those by which the host is on the kernel's own datapath.
    internals: Vec<u32>,
    /// Interfaces to which we gave a qdisc.
    qdiscs: BTreeSet<u32>,
    /// Dumps can be terse; `None` until one was asked for.
    terse: bool,
    prios: Prios,
    entries: BTreeMap<HwHandle, Entry>,
    by_place: BTreeMap<FilterAt, HwHandle>,
    meters: meters::Meters,
    /// What catches the rest in chains.
    keepers: BTreeMap<FilterAt, chains::Keeper>,
    /// There may be filters of ours that are in no book and could not be removed.
    strays: bool,
    /// Entries may have to be moved because of the chains that they lead to.
    unsettled: bool,
    /// Entries that are gone and could not be put back, still to be told.
    lost: Vec<LostEntry>,
    /// Requests of the batch that is being put together or under way.
    batch: Writer,
    /// Bytes of it that have been sent.
    sent: usize,
    sent_at: Instant,
    flights: VecDeque<Flight>,
    /// First halves of replacements that have been answered: `Ok` when the new filter is there.
    halves: BTreeMap<HwHandle, Result<(), Reject>>,
    done: VecDeque<Completion>,
    buf: Vec<u8>,
    seq: u32,
    next_handle: u64,
    next_filter: u32,
    generation: u64,
    round: u64,
    /// Why the kernel cannot be relied on, when it cannot.
    down: Option<String>,
    retry_at: Instant,
    counters: TcCounters,
}

/// A refusal as a reject. A refusal without words gets those of the error number.
fn refusal(ack: &Ack, request: &[u8]) -> Reject {
    let text = ack.words().to_owned();
    Reject::Device { errno: ack.errno, attribute: ack.attribute(request), text }
}

impl<T: Transport> TcProvider<T> {
    /// A provider without ports over `link`; [`OffloadProvider::set_ports`] or [`TcProvider::set_interfaces`] gives it some.
    pub fn new(link: T, config: TcConfig, clock: Arc<dyn Clock>) -> Self {
        let can = config.can();
        let missing = Missing::default();
        let caps = capabilities(&config.name, &[], config.entries, config.queue_depth, &missing, can);
        TcProvider {
            link,
            clock,
            capabilities: Arc::new(caps),
            missing: BTreeMap::new(),
            hardware: BTreeSet::new(),
            ports: Vec::new(),
            links: BTreeMap::new(),
            tunnels: Vec::new(),
            internals: Vec::new(),
            qdiscs: BTreeSet::new(),
            terse: true,
            prios: Prios::new(config.first_prio),
            entries: BTreeMap::new(),
            by_place: BTreeMap::new(),
            meters: meters::Meters::default(),
            keepers: BTreeMap::new(),
            strays: false,
            unsettled: false,
            lost: Vec::new(),
            batch: Writer::new(),
            sent: 0,
            sent_at: Instant::ZERO,
            flights: VecDeque::new(),
            halves: BTreeMap::new(),
            done: VecDeque::new(),
            buf: Vec::new(),
            seq: 0,
            next_handle: 1,
            next_filter: 1,
            generation: 0,
            round: 0,
            down: None,
            retry_at: Instant::ZERO,
            counters: TcCounters::default(),
            config,
        }
    }

    /// What has happened that should not.
    pub fn counters(&self) -> TcCounters {
        self.counters
    }

    /// Filters that are believed to be there.
    pub fn filters(&self) -> usize {
        self.entries.len()
    }

    /// What the filters of a port's interface were found not to be able to do.
    pub fn missing(&self, ifindex: u32) -> Option<&Missing> {
        self.missing.get(&ifindex)
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1).max(1);
        self.seq
    }

    fn new_handle(&mut self) -> HwHandle {
        let h = HwHandle(self.next_handle);
        self.next_handle += 1;
        h
    }

    fn finish(&mut self, op: OpId, flow: FlowId, result: OpResult) {
        self.done.push_back(Completion { op, flow, result });
    }

    /// A place for a filter. Names of filters are not used again before all have been used.
    fn place(&mut self, l: &LoweredMatch, side: Side) -> Result<FilterAt, Reject> {
        let prio = self
            .prios
            .get(l.protocol, side)
            .ok_or(Reject::TableFull { table: TABLE, entries: self.entries.len() })?;
        let hook = self.hook(l.ifindex);
        loop {
            let handle = self.next_filter;
            self.next_filter = self.next_filter.checked_add(1).unwrap_or(1);
            let at = FilterAt { hook, chain: l.chain, prio, protocol: l.protocol, handle };
            if !self.by_place.contains_key(&at) {
                return Ok(at);
            }
        }
    }

    /// Flower's terms for `rule`. Of several obstacles, the reject names the one that the capabilities name.
    fn lower(&self, rule: &FlowRule) -> Result<LoweredMatch, Reject> {
        let lowered = self.capabilities.validate(rule).and_then(|_| {
            let meter = |number| self.meters.index(self.config.owner, number);
            let given = RefCell::default();
            let chain = |recirc| self.chain_of(recirc, &given);
            let (ports, can) = (&self.ports, self.config.can());
            let (tunnels, internals) = (&self.tunnels, &self.internals);
            let terms = Terms { ports, tunnels, internals, meter: &meter, chain: &chain, can };
            let mut l = lower_match(&rule.matches, &terms)?;
            self.missing.get(&l.ifindex).map_or(Ok(()), |m| m.allows(rule))?;
            lower_actions(&rule.actions, &rule.matches, &mut l, &terms)?;
            Ok(l)
        });
        let mut l = lowered?;
        self.apart(&l, rule)?;
        l.flower.flags = self.flags_of(&l);
        let is_own = |a: &TcAction| !matches!(a.spec, ActionSpec::Police(_));
        // A policer counts for all that share it, so what hits this filter is counted before it. Hardware has no action that only
        // counts: there it is what the policer lets through that is counted.
        let by_kernel = l.flower.flags & flags::SKIP_HW != 0 || !self.hardware.contains(&l.ifindex);
        if by_kernel && l.flower.actions.first().is_some_and(|a| !is_own(a)) {
            l.flower.actions.insert(0, TcAction::verdict(Verdict::Pipe));
            l.fits()?;
        }
        if let Some(a) = l.flower.actions.iter_mut().find(|a| is_own(a)) {
            a.cookie = place::cookie(self.config.owner, rule.id);
        }
        Ok(l)
    }

    /// Puts a request to add a filter into the batch.
    fn request_add(&mut self, at: &FilterAt, f: Flower, job: Job) {
        let told = self.config.read_back;
        let how = if told { Add::NewTold } else { Add::New };
        let (seq, begin) = (self.next_seq(), self.batch.len());
        message::add_filter(&mut self.batch, seq, at, &f, how);
        let meant = told.then_some(f);
        self.flights.push_back(Flight { told, ..Flight::new(seq, begin..self.batch.len(), job, meant) });
    }

    /// Puts a request to remove a filter into the batch.
    fn request_delete(&mut self, at: &FilterAt, job: Job) {
        let (seq, begin) = (self.next_seq(), self.batch.len());
        message::delete_filter_told(&mut self.batch, seq, at);
        let flight = Flight { told: true, ..Flight::new(seq, begin..self.batch.len(), job, None) };
        self.flights.push_back(flight);
    }

    fn install(&mut self, op: OpId, rule: &FlowRule) {
        if let Some(why) = &self.down {
            let r = Reject::DeviceDown { why: why.clone() };
            return self.finish(op, rule.id, OpResult::Rejected(r, None));
        }
        let fitted = self.lower(rule).and_then(|l| {
            if self.entries.len() + self.flights.len() >= self.config.entries {
                return Err(Reject::TableFull { table: TABLE, entries: self.config.entries });
            }
            self.keep_places(&l)?;
            Ok((self.place(&l, Side::First)?, l))
        });
        match fitted {
            Err(r) => self.finish(op, rule.id, OpResult::Rejected(r, None)),
            Ok((at, l)) => {
                let job = Job::Install { op, rule: Box::new(rule.clone()), at, kind: EntryKind::of(&l) };
                self.request_add(&at, l.flower, job);
            }
        }
    }

    fn replace(&mut self, op: OpId, handle: HwHandle, rule: &FlowRule) {
        self.when_idle(handle);
        let Some(e) = self.entries.get(&handle) else {
            return self.no_entry(op, rule.id, handle);
        };
        let (old, side, same) = (e.at, e.side.other(), e.rule.matches() == rule.matches);
        let fitted = match same {
            true => self.lower(rule).and_then(|l| {
                self.keep_places(&l)?;
                Ok((self.place(&l, side)?, l))
            }),
            false => Err(Reject::Device {
                errno: Errno::EINVAL as i32,
                attribute: "match".into(),
                text: "a replacement keeps the match".into(),
            }),
        };
        if let Some(e) = self.entries.get_mut(&handle) {
            e.busy = true;
        }
        match fitted {
            Err(r) => {
                let job = Job::Remove { op, handle, flow: rule.id, rejected: Some(r) };
                self.request_delete(&old, job);
            }
            Ok((at, l)) => {
                let kind = EntryKind::of(&l);
                self.request_add(&at, l.flower, Job::New { handle });
                let job = Job::Old { op, handle, rule: Box::new(rule.clone()), at, side, kind };
                self.request_delete(&old, job);
            }
        }
    }

    fn remove(&mut self, op: OpId, handle: HwHandle) {
        self.when_idle(handle);
        let Some(e) = self.entries.get_mut(&handle) else {
            return self.no_entry(op, FlowId::default(), handle);
        };
        e.busy = true;
        let (at, flow) = (e.at, e.rule.id);
        self.request_delete(&at, Job::Remove { op, handle, flow, rejected: None });
    }

    /// Waits until no operation on an entry is under way.
    fn when_idle(&mut self, handle: HwHandle) {
        if self.entries.get(&handle).is_some_and(|e| e.busy) {
            self.settle();
        }
    }

    fn no_entry(&mut self, op: OpId, flow: FlowId, handle: HwHandle) {
        let error = OffloadError::NoSuchEntry(handle);
        self.finish(op, flow, OpResult::Failed { error, left: None, last: None });
    }

    /// Takes an entry out of the books.
    fn forget(&mut self, handle: HwHandle) -> Option<Entry> {
        let e = self.entries.remove(&handle)?;
        self.by_place.remove(&e.at);
        Some(e)
    }

    /// An entry is gone for good, which placement is to hear.
    fn lose(&mut self, handle: HwHandle, why: Reject) {
        if let Some(e) = self.forget(handle) {
            self.lost.push(LostEntry { handle, flow: e.rule.id, last: e.stats(), why });
        }
    }

    fn remember(&mut self, handle: HwHandle, rule: FlowRule, at: FilterAt, side: Side, kind: EntryKind) {
        let (before, last) = (Counts::default(), Counts::default());
        let EntryKind { goes_to, held_back, in_hw } = kind;
        self.unsettled |= at.chain != 0 || goes_to.is_some();
        let (busy, seen, rule) = (false, self.round, Kept::of(&rule));
        let e = Entry { rule, at, side, before, last, goes_to, held_back, in_hw, busy, seen };
        self.by_place.insert(at, handle);
        self.entries.insert(handle, e);
    }

    /// A reading of a filter's counters as whole frames: software counts what is behind the Ethernet header, and the tag that
    /// it has put aside.
    fn frames(at: &FilterAt, total: Counts, hardware: Counts) -> Counts {
        if let Hook::Egress(_) = at.hook {
            // On its way out a frame is whole.
            return total;
        }
        let software = total.packets.saturating_sub(hardware.packets);
        let tag = if matches!(at.protocol, 0x8100 | 0x88a8) { UNCOUNTED.1 } else { 0 };
        Counts { packets: total.packets, bytes: total.bytes + software * (UNCOUNTED.0 + tag) }
    }

    /// What rtnetlink says of the ports' interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = (PortId, &LinkInfo)> {
        self.ports.iter().filter_map(|(p, i)| Some((*p, self.links.get(i)?)))
    }

    /// Hardware does not forward between ports of different switches.
    fn apart(&self, l: &LoweredMatch, rule: &FlowRule) -> Result<(), Reject> {
        let Some(from) = self.links.get(&l.ifindex) else { return Ok(()) };
        let to = |p: &PortId| self.ports.iter().find(|(n, _)| n == p).and_then(|(_, i)| self.links.get(i));
        let apart = rule.actions.iter().find_map(|a| match a {
            Action::Output(p) if to(p).is_some_and(|to| from.is_apart_from(to)) => Some(*p),
            _ => None,
        });
        match apart {
            Some(port) if self.config.policy == TcPolicy::SkipSw => Err(Reject::EgressNotOnDevice { port }),
            _ => Ok(()),
        }
    }

    /// Makes these interfaces the ports; see [`OffloadProvider::set_ports`].
    ///
    /// # Errors
    /// As [`OffloadProvider::set_ports`].
    pub fn set_interfaces(&mut self, ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        for (i, (port, ifindex)) in ports.iter().enumerate() {
            if ports[..i].iter().any(|(p, n)| p == port || n == ifindex) {
                return Err(OffloadError::Device(format!(
                    "interface {ifindex} or port {} is named twice",
                    port.0
                )));
            }
        }
        self.settle();
        let left: Vec<u32> = self.ports.iter().filter(|p| !ports.contains(p)).map(|(_, i)| *i).collect();
        if !left.is_empty() {
            // Entries name interfaces, and so do entries elsewhere that send to them.
            let swept = self.sweep();
            self.lose_tables();
            if ports.is_empty() {
                self.lose_meters();
            }
            for i in &left {
                self.give_up_qdisc(*i);
            }
            if let Err(e) = swept {
                self.go_down(&e.to_string());
            }
        }
        let mut now: Vec<(PortId, u32)> = self.ports.iter().filter(|p| ports.contains(p)).copied().collect();
        let mut failed = None;
        let new: Vec<(PortId, u32)> = ports.iter().filter(|p| !self.ports.contains(p)).copied().collect();
        for p in new {
            match self.ensure_qdisc(p.1) {
                Ok(()) => now.push(p),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        let came: Vec<(PortId, u32)> = now.iter().filter(|p| !self.ports.contains(p)).copied().collect();
        self.ports = now;
        // Without it less is known, and nothing else is wrong.
        let told = links::links(&mut self.link).unwrap_or_default();
        let ours = |l: &LinkInfo| self.ports.iter().any(|(_, i)| *i == l.index);
        self.links = told.into_iter().filter(ours).map(|l| (l.index, l)).collect();
        let those =
            |is: fn(&LinkInfo) -> bool| self.links.values().filter(|l| is(l)).map(|l| l.index).collect();
        (self.tunnels, self.internals) = (those(LinkInfo::is_tunnel), those(LinkInfo::is_internal));
        for (port, ifindex) in came {
            self.adopt(port, ifindex);
            let missing = self.probe(ifindex);
            self.missing.insert(ifindex, missing);
        }
        self.missing.retain(|i, _| self.ports.iter().any(|(_, p)| p == i));
        self.hardware.retain(|i| self.missing.contains_key(i));
        // What one of them can do is offered, and where it cannot be done is refused.
        let nowhere = self.missing.values().cloned().reduce(|a, b| a.and(&b)).unwrap_or_default();
        let c = &self.config;
        let can = c.can();
        self.capabilities =
            Arc::new(capabilities(&c.name, &self.ports, c.entries, c.queue_depth, &nowhere, can));
        failed.map_or(Ok(()), Err)
    }

    /// What the filters of an interface hang on.
    fn hook(&self, ifindex: u32) -> Hook {
        if self.internals.contains(&ifindex) {
            return Hook::Egress(ifindex);
        }
        self.config.misses.as_ref().map_or(Hook::Ingress(ifindex), |m| m.hook(ifindex))
    }

    /// What the filters of all ports hang on.
    fn hooks(&self) -> Vec<Hook> {
        self.ports.iter().map(|(_, i)| self.hook(*i)).collect()
    }

    /// Gives an interface a qdisc if it has none.
    fn ensure_qdisc(&mut self, ifindex: u32) -> Result<(), OffloadError> {
        if let Hook::Block(_) = self.hook(ifindex) {
            // Whoever made the block sees to the qdiscs of those that share it.
            return Ok(());
        }
        let ack = self.ask(|w, seq| message::add_clsact(w, seq, ifindex, None))?;
        match Errno::from_raw(ack.errno) {
            Errno::EEXIST => Ok(()),
            _ if ack.errno == 0 => {
                self.qdiscs.insert(ifindex);
                Ok(())
            }
            Errno::ENODEV => Err(OffloadError::Device(format!("no interface {ifindex}"))),
            e => {
                let text = if ack.text.is_empty() { e.desc() } else { &ack.text };
                Err(OffloadError::Device(format!("interface {ifindex}: clsact: {text}")))
            }
        }
    }

    /// Takes back a qdisc that we gave, unless somebody else has come to use it.
    fn give_up_qdisc(&mut self, ifindex: u32) {
        if !self.qdiscs.remove(&ifindex) {
            return;
        }
        let mut others = 0;
        let hooks = [Hook::Ingress(ifindex), Hook::Egress(ifindex)];
        let empty = hooks.iter().all(|h| self.dump_hook(*h, true, &mut |_, _| others += 1).is_ok());
        if empty && others == 0 {
            // An interface that is gone has no qdisc either.
            let _ = self.ask(|w, seq| message::delete_clsact(w, seq, ifindex));
        }
    }

    /// Every handle is void.
    fn lose_tables(&mut self) {
        self.entries.clear();
        self.by_place.clear();
        self.keepers.clear();
        self.lost.clear();
        self.generation += 1;
    }
}

impl<T: Transport> OffloadProvider for TcProvider<T> {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        self.capabilities.clone()
    }

    fn submit(&mut self, ops: &[FlowOp]) -> usize {
        let mut n = 0;
        for op in ops {
            if self.outstanding() >= self.config.queue_depth {
                break;
            }
            if self.is_sent() {
                self.settle();
            }
            match op {
                FlowOp::Install(id, rule) => self.install(*id, rule),
                FlowOp::Replace(id, h, rule) => self.replace(*id, *h, rule),
                FlowOp::Remove(id, h) => self.remove(*id, *h),
            }
            n += 1;
        }
        self.send();
        n
    }

    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize {
        self.pump();
        let n = budget.min(self.done.len());
        out.extend(self.done.drain(..n));
        n
    }

    fn outstanding(&self) -> usize {
        self.flights.iter().filter(|f| f.job.op().is_some()).count() + self.done.len()
    }

    fn objects(&mut self) -> &mut dyn SharedObjects {
        self
    }

    fn poll_stats(&mut self, cursor: &mut StatsCursor, budget: usize) -> Result<StatsBatch, OffloadError> {
        self.read_stats(cursor, budget)
    }

    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        self.settle();
        self.read_counters()?;
        let there = self.entries.iter().filter(|(_, e)| e.seen == self.round);
        Ok(there
            .map(|(h, e)| InstalledFlow {
                handle: *h,
                rule: e.rule.rule(),
                table: TABLE_ID,
                stats: e.stats(),
            })
            .collect())
    }

    fn flush(&mut self) -> Result<(), OffloadError> {
        self.settle();
        self.sweep()?;
        self.meters.may_have_strays();
        self.entries.clear();
        self.by_place.clear();
        self.keepers.clear();
        Ok(())
    }

    fn health(&self) -> Result<(), OffloadError> {
        match &self.down {
            None => Ok(()),
            Some(why) => Err(OffloadError::DeviceDown(why.clone())),
        }
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn set_ports(&mut self, ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        self.set_interfaces(ports)
    }
}

/// How many times a rule's actions use a meter.
fn uses(actions: &[Action], number: u32) -> usize {
    actions.iter().filter(|a| matches!(a, Action::Meter(m) if m.0 == number)).count()
}
