//! The reference provider: a device in memory that does exactly what its capabilities say.
//!
//! Everything about it can be chosen: tables and their sizes, whether a replace is atomic, how many polls an operation
//! takes, how wide counters are, which objects there are. Tests of other crates put packets into it with
//! [`MemoryProvider::hit`].
//!
//! ```text
//!   submit ─► queue ──(latency_polls)──► tables ◄── hit()
//!                                          │ done
//!   poll ◄─────────────────────────────────┘
//! ```
//!
//! A replace that is not atomic takes the old rule out at one poll and puts the new one in at the next.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use clock::Instant;
use flow::{Action, PacketKey, PacketMask, PacketMatch, PortId};

use crate::capability::{MatchKind, OffloadCapabilities, Placement, TableCaps, TableId};
use crate::memory_objects::MemoryObjects;
use crate::objects::SharedObjects;
use crate::ownership::objects_of;
use crate::provider::{
    Completion, Completions, FlowOp, HwHandle, InstalledFlow, OffloadError, OffloadProvider, OpId, OpResult,
    RawStats, StatsBatch, StatsCursor,
};
use crate::reject::Reject;
use crate::rule::{FlowId, FlowRule};

/// Error number for a match that is in the tables already, as Linux numbers it.
const EEXIST: i32 = 17;
/// Error number for a replacement that cannot be one.
const EINVAL: i32 = 22;

#[derive(Clone, Debug)]
struct Entry {
    rule: FlowRule,
    place: Placement,
    packets: u64,
    bytes: u64,
    last_used: Option<Instant>,
    /// Between the two halves of a replace that is not atomic: packets pass by.
    hidden: bool,
}

/// What is taken of a table.
#[derive(Clone, Debug, Default)]
struct Usage {
    entries: usize,
    /// Entries by their mask within the table's key.
    masks: HashMap<PacketMask, usize>,
}

/// Entry that was hit by a packet.
#[derive(Clone, Debug)]
pub struct Hit {
    /// Its record.
    pub flow: FlowId,
    /// What is to be done with the packet; empty when it is dropped.
    pub actions: Arc<[Action]>,
}

/// The reference provider. See the module's text.
pub struct MemoryProvider {
    caps: Arc<OffloadCapabilities>,
    latency_polls: u64,
    polls: u64,
    queue: VecDeque<(u64, FlowOp)>,
    done: VecDeque<Completion>,
    entries: BTreeMap<HwHandle, Entry>,
    /// What is taken, by table.
    usage: HashMap<TableId, Usage>,
    /// One hash table per mask.
    lookup: HashMap<PacketMask, HashMap<PacketKey, HwHandle>>,
    objects: MemoryObjects,
    next_handle: u64,
    generation: u64,
    hits: u64,
}

impl MemoryProvider {
    /// A device with these capabilities whose operations take effect at the next poll.
    pub fn new(caps: OffloadCapabilities) -> Self {
        Self::with_latency(caps, 0)
    }

    /// A device whose operations take effect after `latency_polls` more polls.
    pub fn with_latency(caps: OffloadCapabilities, latency_polls: u64) -> Self {
        let objects = MemoryObjects::new(caps.objects.clone());
        MemoryProvider {
            caps: Arc::new(caps),
            latency_polls,
            polls: 0,
            queue: VecDeque::new(),
            done: VecDeque::new(),
            entries: BTreeMap::new(),
            usage: HashMap::new(),
            lookup: HashMap::new(),
            objects,
            next_handle: 1,
            generation: 0,
            hits: 0,
        }
    }

    /// A packet of `len_bytes` comes in; what the device does with it, `None` when it goes to software. It is counted.
    pub fn hit(&mut self, key: &PacketKey, len_bytes: u32, now: Instant) -> Option<Hit> {
        let handle = self.find(key)?;
        let e = self.entries.get_mut(&handle)?;
        e.packets += 1;
        e.bytes += u64::from(len_bytes);
        e.last_used = Some(now);
        self.hits += 1;
        let (flow, actions) = (e.rule.id, e.rule.actions.clone());
        let pass = objects_of(&actions).into_iter().all(|o| self.objects.count(o, len_bytes, now));
        Some(Hit { flow, actions: if pass { actions } else { Arc::new([]) } })
    }

    fn find(&self, key: &PacketKey) -> Option<HwHandle> {
        self.lookup
            .iter()
            .find_map(|(mask, t)| t.get(&key.masked(mask)))
            .copied()
            .filter(|h| self.entries.get(h).is_some_and(|e| !e.hidden))
    }

    /// Packets that were hits, ever.
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// What is in the tables, in order of handle.
    pub fn installed(&self) -> impl Iterator<Item = (HwHandle, &FlowRule)> {
        self.entries.iter().map(|(h, e)| (*h, &e.rule))
    }

    /// The device loses its tables and objects: what was outstanding fails, the generation rises.
    pub fn lose_tables(&mut self) {
        self.fail_outstanding();
        self.clear();
        self.objects = MemoryObjects::new(self.caps.objects.clone());
        self.generation += 1;
    }

    fn clear(&mut self) {
        self.entries.clear();
        self.lookup.clear();
        self.usage.clear();
        self.objects.unused();
    }

    fn fail_outstanding(&mut self) {
        for (_, op) in std::mem::take(&mut self.queue) {
            let flow = self.flow_of(&op);
            let error = OffloadError::DeviceDown("tables lost".into());
            self.finish(op.id(), flow, OpResult::Failed { error, left: None, last: None });
        }
    }

    fn flow_of(&self, op: &FlowOp) -> FlowId {
        match op {
            FlowOp::Install(_, r) | FlowOp::Replace(_, _, r) => r.id,
            FlowOp::Remove(_, h) => self.entries.get(h).map_or(FlowId(0), |e| e.rule.id),
        }
    }

    fn finish(&mut self, op: OpId, flow: FlowId, result: OpResult) {
        self.done.push_back(Completion { op, flow, result });
    }

    /// Executes what is due.
    fn run(&mut self) {
        self.polls += 1;
        while let Some((_, op)) = self.queue.front().filter(|(at, _)| *at <= self.polls) {
            let op = op.clone();
            if let FlowOp::Replace(_, h, _) = &op
                && !self.caps.atomic_replace
                && let Some(e) = self.entries.get_mut(h)
                && !e.hidden
            {
                // The second half comes at the next poll, and whatever is behind waits.
                e.hidden = true;
                return;
            }
            self.queue.pop_front();
            let flow = self.flow_of(&op);
            let id = op.id();
            let result = match op {
                FlowOp::Install(_, rule) => self.install(rule),
                FlowOp::Replace(_, h, rule) => self.replace(h, rule),
                FlowOp::Remove(_, h) => match self.take(h) {
                    Some(last) => OpResult::Removed(h, last),
                    None => no_such(h),
                },
            };
            self.finish(id, flow, result);
        }
    }

    fn install(&mut self, rule: FlowRule) -> OpResult {
        let place = match self.place(&rule) {
            Ok(p) => p,
            Err(r) => return OpResult::Rejected(r, None),
        };
        if self.lookup.get(rule.matches.mask()).is_some_and(|t| t.contains_key(rule.matches.key())) {
            let text = "the match is in the tables already".into();
            return OpResult::Rejected(
                Reject::Device { errno: EEXIST, attribute: String::new(), text },
                None,
            );
        }
        let handle = HwHandle(self.next_handle);
        self.next_handle += 1;
        self.objects.users(&objects_of(&rule.actions), 1);
        self.point(&rule.matches, Some(handle));
        self.use_tables(&rule, &place.path, true);
        let table = place.table;
        self.entries
            .insert(handle, Entry { rule, place, packets: 0, bytes: 0, last_used: None, hidden: false });
        OpResult::Installed(handle, table)
    }

    fn replace(&mut self, h: HwHandle, rule: FlowRule) -> OpResult {
        let Some(old) = self.entries.get(&h) else {
            return no_such(h);
        };
        if old.rule.matches != rule.matches {
            let last = self.take(h);
            let text = "a replace keeps the match".into();
            return OpResult::Rejected(
                Reject::Device { errno: EINVAL, attribute: "match".into(), text },
                last,
            );
        }
        let path = old.place.path.clone();
        let place = match self.stays(&rule, &path) {
            Ok(p) => p,
            Err(r) => return OpResult::Rejected(r, self.take(h)),
        };
        let stats = self.entries.get(&h).map(|e| self.stats_of(e));
        if let Some(e) = self.entries.get_mut(&h) {
            self.objects.users(&objects_of(&rule.actions), 1);
            self.objects.users(&objects_of(&e.rule.actions), -1);
            (e.rule, e.place, e.hidden) = (rule, place, false);
        }
        OpResult::Replaced(h, stats)
    }

    fn take(&mut self, h: HwHandle) -> Option<RawStats> {
        let e = self.entries.remove(&h)?;
        self.point(&e.rule.matches, None);
        self.use_tables(&e.rule, &e.place.path, false);
        self.objects.users(&objects_of(&e.rule.actions), -1);
        Some(self.stats_of(&e))
    }

    fn point(&mut self, m: &PacketMatch, to: Option<HwHandle>) {
        match to {
            Some(h) => {
                self.lookup.entry(*m.mask()).or_default().insert(*m.key(), h);
            }
            None => {
                if let Some(t) = self.lookup.get_mut(m.mask()) {
                    t.remove(m.key());
                    if t.is_empty() {
                        self.lookup.remove(m.mask());
                    }
                }
            }
        }
    }

    /// The place of a rule that is to stay where it is.
    fn stays(&self, rule: &FlowRule, path: &[TableId]) -> Result<Placement, Reject> {
        self.objects_there(rule)?;
        self.caps.placements(rule)?.into_iter().find(|p| p.path == path).ok_or_else(|| {
            let text = "the rule fits another table only".into();
            Reject::Device { errno: EINVAL, attribute: "actions".into(), text }
        })
    }

    fn objects_there(&self, rule: &FlowRule) -> Result<(), Reject> {
        match objects_of(&rule.actions).into_iter().find(|o| !self.objects.has(*o)) {
            Some(o) => Err(Reject::ObjectOwnedElsewhere { kind: o.kind, id: o.number }),
            None => Ok(()),
        }
    }

    /// The first place that has room.
    fn place(&self, rule: &FlowRule) -> Result<Placement, Reject> {
        self.objects_there(rule)?;
        let mut full = None;
        for p in self.caps.placements(rule)? {
            match p.path.iter().filter_map(|t| self.caps.table(*t)).find_map(|t| self.no_room(t, rule)) {
                None => return Ok(p),
                Some(r) => full = full.or(Some(r)),
            }
        }
        Err(full.unwrap_or(Reject::NoTables))
    }

    fn no_room(&self, t: &TableCaps, rule: &FlowRule) -> Option<Reject> {
        let nothing = Usage::default();
        let usage = self.usage.get(&t.id).unwrap_or(&nothing);
        if usage.entries >= t.entries {
            return Some(Reject::TableFull { table: t.name, entries: t.entries });
        }
        match t.kind {
            MatchKind::Exact { masks }
                if usage.masks.len() >= usize::from(masks)
                    && !usage.masks.contains_key(&mask_in(t, rule)) =>
            {
                Some(Reject::MasksFull { table: t.name, masks: usize::from(masks) })
            }
            _ => None,
        }
    }

    /// Notes that a rule takes, or no longer takes, an entry of each table of a path.
    fn use_tables(&mut self, rule: &FlowRule, path: &[TableId], taken: bool) {
        for t in path.iter().filter_map(|t| self.caps.table(*t)) {
            let mask = mask_in(t, rule);
            let usage = self.usage.entry(t.id).or_default();
            let users = usage.masks.entry(mask).or_default();
            if taken {
                *users += 1;
                usage.entries += 1;
            } else {
                *users = users.saturating_sub(1);
                usage.entries = usage.entries.saturating_sub(1);
                if *users == 0 {
                    usage.masks.remove(&mask);
                }
            }
        }
    }

    fn stats_of(&self, e: &Entry) -> RawStats {
        let c = self.caps.table(e.place.table).map(|t| t.counters);
        let cut = |v: u64, bits: u8| match bits {
            0 => 0,
            1..=63 => v & ((1 << bits) - 1),
            _ => v,
        };
        RawStats {
            packets: cut(e.packets, c.map_or(64, |c| c.packet_bits)),
            bytes: cut(e.bytes, c.map_or(64, |c| c.byte_bits)),
            last_used: e.last_used,
        }
    }
}

/// The mask of a rule as table `t` sees it.
fn mask_in(t: &TableCaps, rule: &FlowRule) -> PacketMask {
    let mut m = PacketMask::ZERO;
    for k in &t.key {
        let bits = rule.matches.mask().get(k.field) & k.mask;
        m.set_masked(k.field, bits, bits);
    }
    m
}

fn no_such(h: HwHandle) -> OpResult {
    OpResult::Failed { error: OffloadError::NoSuchEntry(h), left: None, last: None }
}

impl OffloadProvider for MemoryProvider {
    fn capabilities(&self) -> Arc<OffloadCapabilities> {
        self.caps.clone()
    }

    fn submit(&mut self, ops: &[FlowOp]) -> usize {
        let n = self.caps.queue_depth.saturating_sub(self.outstanding()).min(ops.len());
        let at = self.polls + 1 + self.latency_polls;
        self.queue.extend(ops[..n].iter().map(|op| (at, op.clone())));
        n
    }

    fn poll(&mut self, out: &mut Completions, budget: usize) -> usize {
        self.run();
        let n = budget.min(self.done.len());
        out.extend(self.done.drain(..n));
        n
    }

    fn outstanding(&self) -> usize {
        self.queue.len() + self.done.len()
    }

    fn objects(&mut self) -> &mut dyn SharedObjects {
        &mut self.objects
    }

    fn poll_stats(&mut self, cursor: &mut StatsCursor, budget: usize) -> Result<StatsBatch, OffloadError> {
        // The cursor is the first handle not yet polled.
        let mut b = StatsBatch::default();
        let mut next = cursor.0;
        for (h, e) in self.entries.range(HwHandle(cursor.0)..).take(budget) {
            b.stats.push((*h, e.rule.id, self.stats_of(e)));
            next = h.0 + 1;
        }
        b.wrapped = self.entries.range(HwHandle(next)..).next().is_none();
        cursor.0 = if b.wrapped { 0 } else { next };
        Ok(b)
    }

    fn dump(&mut self) -> Result<Vec<InstalledFlow>, OffloadError> {
        Ok(self
            .entries
            .iter()
            .map(|(h, e)| InstalledFlow {
                handle: *h,
                rule: e.rule.clone(),
                table: e.place.table,
                stats: self.stats_of(e),
            })
            .collect())
    }

    fn flush(&mut self) -> Result<(), OffloadError> {
        self.fail_outstanding();
        self.clear();
        Ok(())
    }

    fn health(&self) -> Result<(), OffloadError> {
        Ok(())
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    fn set_ports(&mut self, ports: &[(PortId, u32)]) -> Result<(), OffloadError> {
        let now: Vec<PortId> = ports.iter().map(|(id, _)| *id).collect();
        if self.caps.ports.iter().any(|p| !now.contains(p)) {
            self.lose_tables();
        }
        Arc::make_mut(&mut self.caps).ports = now;
        Ok(())
    }
}

/// Capabilities to test with: ports 1 to 4, an exact-match table of `exact` entries with 4 key masks and a ternary table of
/// `ternary` entries, 5 times as costly, with the actions of a simple SmartNIC, 32-bit packet and 36-bit byte counters.
pub fn test_capabilities(exact: usize, ternary: usize) -> OffloadCapabilities {
    crate::memory_caps::simple_smartnic(exact, ternary)
}

/// Number of the exact-match table of [`test_capabilities`].
pub const EXACT_TABLE: TableId = TableId(0);
/// Number of the ternary table of [`test_capabilities`].
pub const TERNARY_TABLE: TableId = TableId(1);
