//! The forwarding pipeline: parser, lookups (exact, longest prefix, range, ternary), action engine.
//!
//! ```text
//!   ingress queues ─► parser ─[parsed]─► exact (one stage per table) ─► lpm ─► range ─[looked up]─► ternary ─[decided]─► action engine ─► egress, host queues
//!                       ▲ again: frames out of tunnels                                                                                                       │
//!                       └──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Cycle-level: each stage takes a frame per initiation interval, keeps it for its latency in a pipe of finite size, and
//! waits when the pipe is full. An exact stage takes its interval once for each profile probed, and waits for buckets that
//! are in host memory; the action engine takes its interval once for each frame sent; a table that is being written looks nothing up for as long as
//! the profile says. What a stage computes is behavioural ([`crate::parser`], [`crate::edit`], the tables).

use std::sync::Arc;

use kernel::{Cycles, Pipe, Stall, Usage, Wake};
use simnic_defs::cmd::{TABLE_EXACT, TABLE_LPM, TABLE_RANGE, TABLE_TERNARY};
use simnic_defs::{HwAction, RxCpl, RxReason};

use crate::bucket_cache::BucketCache;
use crate::config::{Config, ConfigError};
use crate::connections::Connections;
use crate::drops::{DropReason, FrameAccount};
use crate::edit;
use crate::objects::Objects;
use crate::packet::{Packet, PacketBox, PacketPool};
use crate::port::Port;
use crate::tables::{ActionList, Tables};
use crate::trail::Place;

/// One table of the exact stage.
#[derive(Clone)]
struct ExactStage {
    out: Pipe<PacketBox>,
    usage: Usage,
    cache: Option<BucketCache>,
}

kernel::state!(struct ExactStage { out, usage, cache: shaped });

/// A lookup stage that a device may lack.
#[derive(Clone)]
struct Stage {
    out: Pipe<PacketBox>,
    usage: Usage,
    write: u64,
}

kernel::state!(struct Stage { out, usage, write: fixed });

#[derive(Clone)]
pub(crate) struct Pipeline {
    parsed: Pipe<PacketBox>,
    exact: Vec<ExactStage>,
    lpm: Option<Stage>,
    range: Option<Stage>,
    decided: Pipe<PacketBox>,
    /// Frames that are sent round again, where the device does that.
    again: Option<Pipe<PacketBox>>,
    again_usage: Usage,
    /// Frames to be replicated and the ports that are left; then the one that is.
    groups: Pipe<(PacketBox, u16)>,
    groups_usage: Usage,
    replicating: Option<(PacketBox, u16)>,
    replicate_free_at: u64,
    replicate_interval: u64,
    /// The port to which the action engine has sent in this cycle.
    sent_to: Option<u8>,
    next_port: usize,
    /// The frame whose actions are being executed, and how many are.
    executing: Option<(PacketBox, usize)>,
    action_free_at: u64,
    /// Bytes of a frame that the parser sees, at most, and those it gets through in an interval.
    depth: u16,
    depth_max: u16,
    parse_step: u16,
    action_interval: u64,
    exact_interval: u64,
    exact_write: u64,
    ternary_write: u64,
    max_frame_bytes: usize,
    /// Of parser, ternary stage and action engine.
    usage: [Usage; 3],
}

kernel::state!(struct Pipeline {
    parsed, exact: sized, lpm: shaped, range: shaped, decided, again: shaped, again_usage, groups, groups_usage,
    replicating, replicate_free_at, replicate_interval: fixed, sent_to, next_port, executing,
    action_free_at, depth, depth_max: fixed, parse_step: fixed, action_interval: fixed, exact_interval: fixed, exact_write: fixed,
    ternary_write: fixed, max_frame_bytes: fixed, usage,
});

const PARSER: usize = 0;
const TERNARY: usize = 1;
const ACTION: usize = 2;

impl Pipeline {
    pub fn new(c: &Config) -> Result<Self, ConfigError> {
        let pipe = |l, i, b| Config::timing(l, i, b).map(Pipe::new);
        let (l, r) = (&c.lpm, &c.range);
        let stage = |out, write: u32| Stage { out, usage: Usage::default(), write: write.into() };
        let lpm = pipe(l.latency_cycles, l.interval_cycles, l.buffer_frames)?;
        let range = pipe(r.latency_cycles, r.interval_cycles, r.buffer_frames)?;
        Ok(Pipeline {
            parsed: pipe(c.parser.latency_cycles, c.parser.interval_cycles, c.parser.buffer_frames)?,
            exact: (0..c.exact.banks)
                .map(|_| {
                    let e = &c.exact;
                    let cached = e.cached_buckets / u32::from(e.banks) / 4 * 4;
                    Ok(ExactStage {
                        out: pipe(e.latency_cycles, e.interval_cycles, e.buffer_frames)?,
                        usage: Usage::default(),
                        cache: (cached > 0).then(|| BucketCache::new(cached, e.miss_cycles, e.misses)),
                    })
                })
                .collect::<Result<_, ConfigError>>()?,
            lpm: (l.entries > 0).then(|| stage(lpm, l.write_cycles)),
            range: (r.entries > 0).then(|| stage(range, r.write_cycles)),
            decided: pipe(c.ternary.latency_cycles, c.ternary.interval_cycles, c.ternary.buffer_frames)?,
            again: match c.recirculates() {
                true => Some(pipe(c.again.latency_cycles, 1, c.again.buffer_frames)?),
                false => None,
            },
            again_usage: Usage::default(),
            groups: Config::timing(c.groups.latency_cycles, 1, c.groups.buffer_frames).map(Pipe::new)?,
            groups_usage: Usage::default(),
            replicating: None,
            replicate_free_at: 0,
            replicate_interval: c.groups.interval_cycles.into(),
            sent_to: None,
            next_port: 0,
            executing: None,
            action_free_at: 0,
            depth: c.parser.depth_bytes,
            depth_max: c.parser.depth_bytes,
            parse_step: c.parser.step_bytes,
            action_interval: c.action.interval_cycles.into(),
            exact_interval: c.exact.interval_cycles.into(),
            exact_write: c.exact.write_cycles.into(),
            ternary_write: c.ternary.write_cycles.into(),
            max_frame_bytes: c.device.max_frame_bytes.into(),
            usage: Default::default(),
        })
    }

    /// Bytes of a frame that the parser sees.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// Has the parser see `bytes` of frames from now on; false when it cannot see as much, or when an Ethernet header has more.
    pub fn set_depth(&mut self, bytes: u32) -> bool {
        let fits = u16::try_from(bytes).ok().filter(|b| (14..=self.depth_max).contains(b));
        self.depth = fits.unwrap_or(self.depth);
        fits.is_some()
    }

    /// The port the parser's arbiter looks at first.
    pub fn start_at(&mut self, port: usize) {
        self.next_port = port;
    }

    /// Whether stage `s` may take a frame that is there; counts the stall when it is held up.
    fn may_take(usage: &mut Usage, out: &Pipe<PacketBox>, now: Cycles) -> bool {
        if !out.has_room(now) {
            usage.stall(Stall::Output);
        }
        out.can_push(now)
    }

    pub fn parse(&mut self, now: Cycles, ports: &mut [Port]) -> bool {
        let n = ports.len();
        // Those that are in the pipeline already come first, or it could fill up with them.
        let again = self.again.as_mut().filter(|a| a.is_ready(now));
        let port = match again {
            Some(_) => None,
            None => {
                let ready =
                    (0..n).map(|i| (self.next_port + i) % n).find(|i| ports[*i].ingress.is_ready(now));
                let Some(i) = ready else { return false };
                Some(i)
            }
        };
        if !Self::may_take(&mut self.usage[PARSER], &self.parsed, now) {
            return false;
        }
        let taken = match (port, again) {
            (Some(i), _) => {
                self.next_port = (i + 1) % n;
                ports[i].ingress.pop(now)
            }
            (None, again) => again.and_then(|a| a.pop(now)),
        };
        let Some(mut p) = taken else { return false };
        let ingress = p.ingress;
        let steps = p.look(ingress, self.depth).div_ceil(self.parse_step).max(1);
        let interval = u64::from(self.parsed.timing().interval_cycles());
        let extra = interval * u64::from(steps - 1);
        self.usage[PARSER].accept(interval + extra);
        p.stamp(Place::Parser, now.0, self.parsed.visible_from(now) + extra);
        let pushed = self.parsed.push_after(now, extra, p);
        debug_assert!(pushed.is_ok(), "checked above");
        true
    }

    pub fn exact(&mut self, now: Cycles, tables: &mut Tables, now_ns: u64) -> bool {
        let mut happened = false;
        for i in 0..self.exact.len() {
            happened |= self.exact_table(i, now, tables, now_ns);
        }
        happened
    }

    /// One table of the exact stage.
    fn exact_table(&mut self, i: usize, now: Cycles, tables: &mut Tables, now_ns: u64) -> bool {
        let (before, at) = self.exact.split_at_mut(i);
        let (input, stage) = match (before.last_mut(), at.first_mut()) {
            (Some(b), Some(s)) => (&mut b.out, s),
            (None, Some(s)) => (&mut self.parsed, s),
            (_, None) => return false,
        };
        let Some(p) = input.peek(now) else { return false };
        if !Self::may_take(&mut stage.usage, &stage.out, now) {
            return false;
        }
        let found = (p.parsed && p.table == RxCpl::NO_TABLE).then(|| tables.exact.lookup(i, &p.key));
        if let (Some(f), Some(cache)) = (&found, &mut stage.cache)
            && !cache.may_start(now, &f.buckets[..f.read])
        {
            stage.usage.stall(Stall::Memory);
            return false;
        }
        let Some(mut p) = input.pop(now) else { return false };
        let (mut extra, mut late) = (0, 0);
        if let Some(f) = found {
            extra = u64::from(f.probes.saturating_sub(1)) * self.exact_interval;
            if let Some(cache) = &mut stage.cache {
                late = cache.access(now, &f.buckets[..f.read]);
            }
            if let Some(s) = f.slot {
                decide(&mut p, tables, (TABLE_EXACT, s), now_ns, self.max_frame_bytes);
            }
        }
        stage.usage.accept(self.exact_interval + extra);
        p.stamp(Place::Exact(i as u8), now.0, stage.out.visible_from(now) + extra + late);
        let pushed = stage.out.push_after_late(now, extra, late, p);
        debug_assert!(pushed.is_ok(), "checked above");
        true
    }

    /// The longest-prefix stage, where there is one: its interval once for each profile.
    pub fn lpm(&mut self, now: Cycles, tables: &mut Tables, now_ns: u64) -> bool {
        let (Some(stage), Some(before)) = (&mut self.lpm, self.exact.last_mut()) else { return false };
        let input = &mut before.out;
        if !input.is_ready(now) || !Self::may_take(&mut stage.usage, &stage.out, now) {
            return false;
        }
        let Some(mut p) = input.pop(now) else { return false };
        let interval = u64::from(stage.out.timing().interval_cycles());
        let mut extra = 0;
        if p.parsed && p.table == RxCpl::NO_TABLE {
            extra = tables.lpm.programmed().saturating_sub(1) * interval;
            if let Some(s) = tables.lpm.lookup(&p.key) {
                decide(&mut p, tables, (TABLE_LPM, s), now_ns, self.max_frame_bytes);
            }
        }
        stage.usage.accept(interval + extra);
        p.stamp(Place::Lpm, now.0, stage.out.visible_from(now) + extra);
        let pushed = stage.out.push_after(now, extra, p);
        debug_assert!(pushed.is_ok(), "checked above");
        true
    }

    /// The range stage, where there is one.
    pub fn range(&mut self, now: Cycles, tables: &mut Tables, now_ns: u64) -> bool {
        let exact = self.exact.last_mut().map(|s| &mut s.out);
        let input = self.lpm.as_mut().map(|s| &mut s.out).or(exact);
        let (Some(stage), Some(input)) = (&mut self.range, input) else { return false };
        if !input.is_ready(now) || !Self::may_take(&mut stage.usage, &stage.out, now) {
            return false;
        }
        let Some(mut p) = input.pop(now) else { return false };
        if p.parsed
            && p.table == RxCpl::NO_TABLE
            && let Some(s) = tables.range.lookup(&p.key)
        {
            decide(&mut p, tables, (TABLE_RANGE, s), now_ns, self.max_frame_bytes);
        }
        stage.usage.accept(stage.out.timing().interval_cycles().into());
        p.stamp(Place::Range, now.0, stage.out.visible_from(now));
        let pushed = stage.out.push(now, p);
        debug_assert!(pushed.is_ok(), "checked above");
        true
    }

    pub fn ternary(&mut self, now: Cycles, tables: &mut Tables, now_ns: u64) -> bool {
        let exact = self.exact.last_mut().map(|s| &mut s.out);
        let optional = self.range.as_mut().or(self.lpm.as_mut()).map(|s| &mut s.out);
        let Some(input) = optional.or(exact) else { return false };
        if !input.is_ready(now) || !Self::may_take(&mut self.usage[TERNARY], &self.decided, now) {
            return false;
        }
        let Some(mut p) = input.pop(now) else { return false };
        if p.parsed
            && p.table == RxCpl::NO_TABLE
            && let Some(s) = tables.ternary.lookup(&p.key)
        {
            decide(&mut p, tables, (TABLE_TERNARY, s), now_ns, self.max_frame_bytes);
        }
        self.usage[TERNARY].accept(self.decided.timing().interval_cycles().into());
        p.stamp(Place::Ternary, now.0, self.decided.visible_from(now));
        let pushed = self.decided.push(now, p);
        debug_assert!(pushed.is_ok(), "checked above");
        true
    }

    /// `entries` entries of `table` were written in cycle `now`: it looks nothing up meanwhile. Runs in commit.
    pub fn written(&mut self, now: Cycles, table: u8, profile: u8, entries: u64) {
        let banks = self.exact.len();
        let (usage, out, cycles) = match table {
            TABLE_TERNARY => (&mut self.usage[TERNARY], &mut self.decided, self.ternary_write),
            TABLE_LPM | TABLE_RANGE => {
                let stage = if table == TABLE_LPM { &mut self.lpm } else { &mut self.range };
                match stage {
                    Some(s) => (&mut s.usage, &mut s.out, s.write),
                    None => return,
                }
            }
            _ => match self.exact.get_mut(usize::from(profile) % banks.max(1)) {
                Some(s) => (&mut s.usage, &mut s.out, self.exact_write),
                None => return,
            },
        };
        let cycles = cycles.saturating_mul(entries);
        if cycles > 0 {
            out.hold(now, cycles);
            usage.stall_for(Stall::Resource, cycles);
        }
    }

    /// The action engine, and the replication engine behind it.
    pub fn act(
        &mut self,
        now: Cycles,
        ports: &mut [Port],
        pool: &mut PacketPool,
        account: &mut FrameAccount,
        objects: (&mut Objects, u64),
    ) -> bool {
        self.sent_to = None;
        let acted = self.act_one(now, ports, pool, account, objects);
        self.replicate(now, ports, pool, account) || acted
    }

    /// Makes the next copy of a frame that goes to a group.
    fn replicate(
        &mut self,
        now: Cycles,
        ports: &mut [Port],
        pool: &mut PacketPool,
        account: &mut FrameAccount,
    ) -> bool {
        if now.0 < self.replicate_free_at {
            return false;
        }
        let Some((p, left)) = self.replicating.take().or_else(|| self.groups.pop(now)) else { return false };
        let port = left.trailing_zeros() as u8;
        // A port takes one frame in a cycle.
        if self.sent_to == Some(port) {
            self.groups_usage.stall(Stall::Output);
            self.replicating = Some((p, left));
            return true;
        }
        let rest = left & left.wrapping_sub(1);
        let out = if rest == 0 {
            p
        } else {
            account.copies += 1;
            let copy = pool.copy(&p);
            self.replicating = Some((p, rest));
            copy
        };
        self.groups_usage.accept(self.replicate_interval);
        self.replicate_free_at = now.0 + self.replicate_interval;
        match ports.get_mut(usize::from(port)) {
            Some(to) => to.send(now, out, pool, account),
            // Ports of groups are checked when they are set.
            None => ports[usize::from(out.ingress)].drop(out, DropReason::Rule, pool, account),
        }
        true
    }

    fn act_one(
        &mut self,
        now: Cycles,
        ports: &mut [Port],
        pool: &mut PacketPool,
        account: &mut FrameAccount,
        (objects, now_ns): (&mut Objects, u64),
    ) -> bool {
        if now.0 < self.action_free_at {
            return false;
        }
        let (p, done) = match self.executing.take() {
            Some(e) => e,
            None => match self.decided.pop(now) {
                Some(mut p) => {
                    p.stamp(Place::Action, now.0, now.0 + 1);
                    (p, 0)
                }
                None => return false,
            },
        };
        let next = p.actions.as_ref().and_then(|l| l.actions.get(done));
        if matches!(next, Some(HwAction::Replicate { .. })) && !self.groups.has_room(now) {
            self.usage[ACTION].stall(Stall::Output);
            self.executing = Some((p, done));
            return true;
        }
        self.usage[ACTION].accept(self.action_interval);
        self.action_free_at = now.0 + self.action_interval;
        self.execute((now, now_ns), p, done, ports, pool, account, objects);
        true
    }

    /// Executes the frame's actions from `done` on, up to and with the next output.
    #[allow(clippy::too_many_arguments)] // what an action can touch
    fn execute(
        &mut self,
        (now, now_ns): (Cycles, u64),
        mut p: PacketBox,
        done: usize,
        ports: &mut [Port],
        pool: &mut PacketPool,
        account: &mut FrameAccount,
        objects: &mut Objects,
    ) {
        let ingress = usize::from(p.ingress);
        let Some(list) = p.actions.take() else {
            p.as_received();
            return ports[ingress].punt(now, p, pool, account);
        };
        if list.goes_on {
            let left = self.send_again(now, p, list, &mut objects.connections, now_ns);
            return left.into_iter().for_each(|p| ports[ingress].punt(now, p, pool, account));
        }
        for (i, a) in list.actions.iter().enumerate().skip(done) {
            match a {
                HwAction::Meter { meter } if !objects.meters.offer(*meter, p.len(), now_ns) => {
                    return ports[ingress].drop(p, DropReason::Meter, pool, account);
                }
                HwAction::Meter { .. } => continue,
                HwAction::PushHeader { header } => {
                    if let Some(h) = list.header(*header) {
                        edit::push_header(&mut p, h);
                    }
                    continue;
                }
                // What was edited before it stays so; see above for the cycles after this one.
                HwAction::Replicate { .. } if !self.groups.has_room(now) => {
                    self.usage[ACTION].stall(Stall::Output);
                    p.actions = Some(list);
                    self.executing = Some((p, i));
                    return;
                }
                a if a.is_output() => {}
                edit => {
                    edit::apply(&mut p, edit);
                    continue;
                }
            }
            let more = list.actions[i + 1..].iter().any(HwAction::is_output);
            let out = if more {
                account.copies += 1;
                let copy = pool.copy(&p);
                p.actions = Some(list.clone());
                self.executing = Some((p, i + 1));
                copy
            } else {
                p
            };
            return match a {
                // Ports of entries are checked when they are installed.
                HwAction::Output { port } => match ports.get_mut(usize::from(*port)) {
                    Some(to) => {
                        self.sent_to = Some(*port);
                        to.send(now, out, pool, account);
                    }
                    None => ports[ingress].drop(out, DropReason::Rule, pool, account),
                },
                HwAction::Replicate { group } => {
                    let mut out = out;
                    out.stamp(Place::Replicate, now.0, self.groups.visible_from(now));
                    if let Err((p, _)) = self.groups.push(now, (out, list.group(*group))) {
                        debug_assert!(false, "checked above");
                        ports[ingress].drop(p, DropReason::Rule, pool, account);
                    }
                }
                _ => {
                    let mut out = out;
                    out.reason = RxReason::Action;
                    ports[ingress].punt(now, out, pool, account);
                }
            };
        }
        ports[ingress].drop(p, DropReason::Rule, pool, account);
    }

    /// Sends a frame round again, by the entry that says so; it comes back as it was received when that cannot be.
    fn send_again(
        &mut self,
        now: Cycles,
        mut p: PacketBox,
        list: Arc<ActionList>,
        connections: &mut Connections,
        now_ns: u64,
    ) -> Option<PacketBox> {
        let went_on = p.go_on(list, connections, now_ns);
        let left = match &mut self.again {
            Some(again) if went_on => {
                if again.has_room(now) {
                    p.stamp(Place::Again, now.0, again.visible_from(now));
                    self.again_usage.accept(1);
                } else {
                    self.again_usage.stall(Stall::Output);
                }
                again.push(now, p).err()
            }
            _ => Some(p),
        };
        left.map(|mut p| {
            p.as_received();
            (p.table, p.entry) = (RxCpl::NO_TABLE, RxCpl::NO_ENTRY);
            p
        })
    }

    pub fn next_event(&self, now: Cycles) -> Wake {
        let mut w = self.exact.iter().fold(self.parsed.wake(now), |w, s| w.or(s.out.wake(now)));
        w = self.optional().fold(w, |w, (_, s)| w.or(s.out.wake(now)));
        w = self.again.iter().fold(w, |w, p| w.or(p.wake(now)));
        let replicate = match self.replicating {
            Some(_) => Wake::at(Cycles(now.0 + 1)),
            None => self.groups.wake(now),
        };
        if let Some(c) = replicate.cycle() {
            w = w.or(Wake::at(Cycles(c.0.max(self.replicate_free_at))));
        }
        let action = match self.executing {
            Some(_) => Wake::at(Cycles(now.0 + 1)),
            None => self.decided.wake(now),
        };
        if let Some(c) = action.cycle() {
            w = w.or(Wake::at(Cycles(c.0.max(self.action_free_at))));
        }
        w
    }

    /// The stages that a device may lack, as far as there are, in order.
    fn optional(&self) -> impl Iterator<Item = (&'static str, &Stage)> {
        [("lpm", &self.lpm), ("range", &self.range)]
            .into_iter()
            .filter_map(|(n, s)| s.as_ref().map(|s| (n, s)))
    }

    pub fn inside(&self) -> usize {
        let exact: usize = self.exact.iter().map(|s| s.out.len()).sum();
        let optional: usize = self.optional().map(|(_, s)| s.out.len()).sum();
        let again = self.again.as_ref().map_or(0, Pipe::len);
        self.parsed.len()
            + exact
            + optional
            + self.decided.len()
            + again
            + self.groups.len()
            + usize::from(self.executing.is_some())
            + usize::from(self.replicating.is_some())
    }

    /// Loses everything inside.
    pub fn reset(
        &mut self,
        now: Cycles,
        ports: &mut [Port],
        pool: &mut PacketPool,
        account: &mut FrameAccount,
    ) {
        self.depth = self.depth_max;
        let mut lost: Vec<PacketBox> = self.executing.take().map(|(p, _)| p).into_iter().collect();
        lost.extend(self.groups.drain(now).chain(self.replicating.take()).map(|(p, _)| p));
        for s in &mut self.exact {
            lost.extend(s.out.drain(now));
            if let Some(c) = &mut s.cache {
                c.clear();
            }
        }
        for s in [&mut self.lpm, &mut self.range].into_iter().flatten() {
            lost.extend(s.out.drain(now));
        }
        for q in [&mut self.parsed, &mut self.decided].into_iter().chain(&mut self.again) {
            lost.extend(q.drain(now));
        }
        for p in lost {
            let i = usize::from(p.ingress);
            ports[i].drop(p, DropReason::Reset, pool, account);
        }
        (self.action_free_at, self.replicate_free_at) = (0, 0);
    }

    /// The stages in order: name, account, the pipe when there is one, the interval.
    pub fn stages(&self) -> Vec<(String, &Usage, Option<&Pipe<PacketBox>>)> {
        let one = self.exact.len() == 1;
        let exact = |i: usize| if one { "exact".to_string() } else { format!("exact{i}") };
        let exact = self.exact.iter().enumerate().map(|(i, s)| (exact(i), &s.usage, Some(&s.out)));
        let first = ("parser".to_string(), &self.usage[PARSER], Some(&self.parsed));
        let last = [
            ("ternary".to_string(), &self.usage[TERNARY], Some(&self.decided)),
            ("action".to_string(), &self.usage[ACTION], None),
        ];
        let again = self.again.iter().map(|p| ("again".to_string(), &self.again_usage, Some(p)));
        // What waits for the replication engine has ports beside the frame, so that it is no queue like the others.
        let groups = [("groups".to_string(), &self.groups_usage, None)];
        let optional = self.optional().map(|(n, s)| (n.to_string(), &s.usage, Some(&s.out)));
        std::iter::once(first).chain(exact).chain(optional).chain(last).chain(again).chain(groups).collect()
    }

    /// Frames in each pipe, in the order of [`Pipeline::stages`].
    pub fn held(&self, out: &mut Vec<u32>) {
        out.push(self.parsed.len() as u32);
        out.extend(self.exact.iter().map(|s| s.out.len() as u32));
        out.extend(self.optional().map(|(_, s)| s.out.len() as u32));
        out.push(self.decided.len() as u32);
        out.extend(self.again.iter().map(|p| p.len() as u32));
    }

    /// Lookups of buckets that the cache of the exact tables had, and that it had not; none when there is no cache.
    pub fn cache(&self) -> Option<(u64, u64)> {
        let caches = self.exact.iter().filter_map(|s| s.cache.as_ref());
        caches.map(|c| (c.hits, c.misses)).reduce(|a, b| (a.0 + b.0, a.1 + b.1))
    }
}

/// The frame has met the entry in a slot of a table: it executes it and is counted, or goes to the host as it was received.
fn decide(
    p: &mut Packet,
    tables: &mut Tables,
    (table, slot): (u8, usize),
    now_ns: u64,
    max_frame_bytes: usize,
) {
    p.table = table;
    if !p.walk.is_first() && !p.walk.holds(tables) {
        return;
    }
    let Some(e) = tables.entry_at_mut(table, slot) else { return };
    p.entry = e.name;
    // Frames longer than the longest never get here, so only actions can make an exception.
    if e.actions.may_except
        && let Some(reason) = edit::exception(p, &e.actions, max_frame_bytes)
    {
        p.reason = reason;
        return;
    }
    p.actions = Some(e.actions.clone());
    if e.actions.goes_on {
        return;
    }
    tables.count_at(table, slot, p.len(), now_ns);
    if !p.walk.is_first() {
        p.walk.settle(tables, now_ns);
        p.as_is();
    }
}
