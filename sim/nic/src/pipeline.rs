//! The forwarding pipeline: parser, exact lookup, ternary lookup, action engine.
//!
//! ```text
//!   ingress queues ─► parser ─[parsed]─► exact ─[looked up]─► ternary ─[decided]─► action engine ─► egress, host queues
//! ```
//!
//! Cycle-level: each stage takes a frame per initiation interval, keeps it for its latency in a pipe of finite size, and
//! waits when the pipe is full. The exact stage takes its interval once for each profile probed; the action engine once
//! for each frame sent. What a stage computes is behavioural ([`crate::parser`], [`crate::edit`], the tables).

use kernel::{Cycles, Pipe, Stall, Usage, Wake};
use simnic_defs::cmd::{TABLE_EXACT, TABLE_TERNARY};
use simnic_defs::{HwAction, RxCpl, RxReason};

use crate::config::{Config, ConfigError};
use crate::drops::{DropReason, FrameAccount};
use crate::edit;
use crate::packet::{Packet, PacketBox, PacketPool};
use crate::parser;
use crate::port::Port;
use crate::tables::{CounterMasks, Entry, Tables};

pub(crate) struct Pipeline {
    parsed: Pipe<PacketBox>,
    looked_up: Pipe<PacketBox>,
    decided: Pipe<PacketBox>,
    next_port: usize,
    /// The frame whose actions are being executed, and how many are.
    executing: Option<(PacketBox, usize)>,
    action_free_at: u64,
    action_interval: u64,
    exact_interval: u64,
    max_frame_bytes: usize,
    pub usage: [Usage; 4],
}

/// Names of the stages, in the order of [`Pipeline::usage`].
pub(crate) const STAGES: [&str; 4] = ["parser", "exact", "ternary", "action"];
const PARSER: usize = 0;
const EXACT: usize = 1;
const TERNARY: usize = 2;
const ACTION: usize = 3;

impl Pipeline {
    pub fn new(c: &Config) -> Result<Self, ConfigError> {
        let pipe = |l, i, b| Config::timing(l, i, b).map(Pipe::new);
        Ok(Pipeline {
            parsed: pipe(c.parser.latency_cycles, c.parser.interval_cycles, c.parser.buffer_frames)?,
            looked_up: pipe(c.exact.latency_cycles, c.exact.interval_cycles, c.exact.buffer_frames)?,
            decided: pipe(c.ternary.latency_cycles, c.ternary.interval_cycles, c.ternary.buffer_frames)?,
            next_port: 0,
            executing: None,
            action_free_at: 0,
            action_interval: c.action.interval_cycles.into(),
            exact_interval: c.exact.interval_cycles.into(),
            max_frame_bytes: c.device.max_frame_bytes.into(),
            usage: Default::default(),
        })
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
        let Some(i) = (0..n).map(|i| (self.next_port + i) % n).find(|i| ports[*i].ingress.is_ready(now))
        else {
            return false;
        };
        if !Self::may_take(&mut self.usage[PARSER], &self.parsed, now) {
            return false;
        }
        let Some(mut p) = ports[i].ingress.pop(now) else { return false };
        self.next_port = (i + 1) % n;
        let Packet { data, head, key, .. } = &mut *p;
        match parser::parse(data.get(*head..).unwrap_or(&[]), i as u8, key) {
            Ok(layout) => {
                p.hash = parser::flow_hash(&p.key, &layout);
                p.layout = layout;
                p.parsed = true;
            }
            Err(parser::Unparsed) => p.reason = RxReason::Unparsed,
        }
        self.usage[PARSER].accept(self.parsed.timing().interval_cycles().into());
        let pushed = self.parsed.push(now, p);
        debug_assert!(pushed.is_ok(), "checked above");
        true
    }

    pub fn exact(&mut self, now: Cycles, tables: &mut Tables, now_ns: u64) -> bool {
        if !self.parsed.is_ready(now) || !Self::may_take(&mut self.usage[EXACT], &self.looked_up, now) {
            return false;
        }
        let Some(mut p) = self.parsed.pop(now) else { return false };
        let mut extra = 0;
        if p.parsed {
            let (slot, probes) = tables.exact.lookup(&p.key);
            extra = u64::from(probes.saturating_sub(1)) * self.exact_interval;
            let masks = tables.masks;
            if let Some(e) = slot.and_then(|s| tables.exact.entry_at_mut(s)) {
                self.decide(&mut p, TABLE_EXACT, e, masks, now_ns);
            }
        }
        self.usage[EXACT].accept(self.exact_interval + extra);
        let pushed = self.looked_up.push_after(now, extra, p);
        debug_assert!(pushed.is_ok(), "checked above");
        true
    }

    pub fn ternary(&mut self, now: Cycles, tables: &mut Tables, now_ns: u64) -> bool {
        if !self.looked_up.is_ready(now) || !Self::may_take(&mut self.usage[TERNARY], &self.decided, now) {
            return false;
        }
        let Some(mut p) = self.looked_up.pop(now) else { return false };
        if p.parsed && p.table == RxCpl::NO_TABLE {
            let masks = tables.masks;
            let slot = tables.ternary.lookup(&p.key);
            if let Some(e) = slot.and_then(|s| tables.ternary.entry_at_mut(s)) {
                self.decide(&mut p, TABLE_TERNARY, e, masks, now_ns);
            }
        }
        self.usage[TERNARY].accept(self.decided.timing().interval_cycles().into());
        let pushed = self.decided.push(now, p);
        debug_assert!(pushed.is_ok(), "checked above");
        true
    }

    /// The frame has met entry `e`: it executes it and is counted, or goes to the host as it is.
    fn decide(&self, p: &mut Packet, table: u8, e: &mut Entry, masks: CounterMasks, now_ns: u64) {
        p.table = table;
        p.entry = e.name;
        // Frames longer than the longest never get here, so only actions can make an exception.
        if e.actions.may_except
            && let Some(reason) = edit::exception(p, &e.actions.actions, self.max_frame_bytes)
        {
            p.reason = reason;
            return;
        }
        e.count(p.len(), now_ns, masks);
        p.actions = Some(e.actions.clone());
    }

    pub fn act(
        &mut self,
        now: Cycles,
        ports: &mut [Port],
        pool: &mut PacketPool,
        account: &mut FrameAccount,
    ) -> bool {
        if now.0 < self.action_free_at {
            return false;
        }
        let (p, done) = match self.executing.take() {
            Some(e) => e,
            None => match self.decided.pop(now) {
                Some(p) => (p, 0),
                None => return false,
            },
        };
        self.usage[ACTION].accept(self.action_interval);
        self.action_free_at = now.0 + self.action_interval;
        self.execute(now, p, done, ports, pool, account);
        true
    }

    /// Executes the frame's actions from `done` on, up to and with the next output.
    fn execute(
        &mut self,
        now: Cycles,
        mut p: PacketBox,
        done: usize,
        ports: &mut [Port],
        pool: &mut PacketPool,
        account: &mut FrameAccount,
    ) {
        let ingress = usize::from(p.ingress);
        let Some(list) = p.actions.take() else {
            return ports[ingress].punt(now, p, pool, account);
        };
        let is_output = |a: &HwAction| matches!(a, HwAction::Output { .. } | HwAction::ToHost);
        for (i, a) in list.actions.iter().enumerate().skip(done) {
            if !is_output(a) {
                edit::apply(&mut p, a);
                continue;
            }
            let more = list.actions[i + 1..].iter().any(is_output);
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
                    Some(port) => port.send(now, out, pool, account),
                    None => ports[ingress].drop(out, DropReason::Rule, pool, account),
                },
                _ => {
                    let mut out = out;
                    out.reason = RxReason::Action;
                    ports[ingress].punt(now, out, pool, account);
                }
            };
        }
        ports[ingress].drop(p, DropReason::Rule, pool, account);
    }

    pub fn next_event(&self, now: Cycles) -> Wake {
        let mut w = self.parsed.wake(now).or(self.looked_up.wake(now));
        let action = match self.executing {
            Some(_) => Wake::at(Cycles(now.0 + 1)),
            None => self.decided.wake(now),
        };
        if let Some(c) = action.cycle() {
            w = w.or(Wake::at(Cycles(c.0.max(self.action_free_at))));
        }
        w
    }

    pub fn inside(&self) -> usize {
        self.parsed.len() + self.looked_up.len() + self.decided.len() + usize::from(self.executing.is_some())
    }

    /// Loses everything inside.
    pub fn reset(
        &mut self,
        now: Cycles,
        ports: &mut [Port],
        pool: &mut PacketPool,
        account: &mut FrameAccount,
    ) {
        let mut lost: Vec<PacketBox> = self.executing.take().map(|(p, _)| p).into_iter().collect();
        for q in [&mut self.parsed, &mut self.looked_up, &mut self.decided] {
            lost.extend(q.drain(now));
        }
        for p in lost {
            let i = usize::from(p.ingress);
            ports[i].drop(p, DropReason::Reset, pool, account);
        }
        self.action_free_at = 0;
    }

    /// Name and pipe of each stage that has one.
    pub fn pipes(&self) -> [(&'static str, &Pipe<PacketBox>); 3] {
        [("parser", &self.parsed), ("exact", &self.looked_up), ("ternary", &self.decided)]
    }
}
