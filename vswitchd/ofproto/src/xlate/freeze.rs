//! Freezing a translation that needs something that only the datapath knows (the state of a connection, a hash, headers that
//! were never parsed), and going on with it when the packet comes back.
//!
//! When an action cannot go on, it freezes: nothing further is executed, as after `exit`. On the way out each list of
//! actions leaves behind what it has not executed. Where the packet would have been done with (the end of the tables, of a
//! bucket, of a `clone`, of another bridge), the rest becomes a [`Frozen`] and the datapath gets `recirc(id)`.

use flow::{Action, FieldId, HashAlg};
use openflow::{Action as OfAction, Instructions, PortNo, TableId};

use super::act::below_l2;
use super::tunnel::tunnel_fields;
use super::{Misses, Problem, Xlate};
use crate::recirc::{Frozen, Later, SameRule};
use crate::trace::StepKind;

/// A translation that is being frozen.
#[derive(Default)]
pub(super) struct Freezing {
    on: bool,
    /// The action under execution is to be executed again.
    again: bool,
    /// The datapath is to hash the packet before.
    hash: Option<(HashAlg, u32)>,
    then: Vec<Later>,
    /// The last origin in `then`.
    origin: Option<(u8, Option<SameRule>, u64)>,
    /// A controller says when the packet goes on.
    pause: Option<Pause>,
}

/// What a `controller(pause)` says.
struct Pause {
    reason: flow::PuntReason,
    max_len: u16,
    controller_id: u16,
    userdata: Vec<u8>,
}

impl Freezing {
    /// Whether the action that was just executed is to be executed again.
    pub(super) fn takes_again(&mut self) -> bool {
        std::mem::take(&mut self.again)
    }
}

impl Xlate<'_> {
    /// The translation goes on behind the action under execution when the packet comes back.
    pub(super) fn freeze(&mut self) {
        self.frozen.on = true;
        self.halted = true;
    }

    /// The translation goes on with the action under execution when the packet comes back with a hash.
    pub(super) fn freeze_for_hash(&mut self, alg: HashAlg, basis: u32) {
        self.freeze();
        self.frozen.again = true;
        self.frozen.hash = Some((alg, basis));
    }

    /// As [`Xlate::freeze`], but the action under execution is tried again when the packet was parsed anew.
    pub(super) fn freeze_for_fresh_look(&mut self) {
        self.freeze();
        self.frozen.again = true;
    }

    /// The packet goes to the controllers, and the translation goes on behind the action under execution when one of them says
    /// so.
    pub(super) fn pause(
        &mut self,
        reason: flow::PuntReason,
        max_len: u16,
        controller_id: u16,
        userdata: &[u8],
    ) {
        self.freeze();
        self.frozen.pause = Some(Pause { reason, max_len, controller_id, userdata: userdata.to_vec() });
    }

    fn leave_origin(&mut self) {
        let origin = (self.table, self.rule.clone().map(SameRule), self.rule_cookie());
        if self.frozen.origin.as_ref() != Some(&origin) {
            let (table, rule, cookie) = origin.clone();
            self.frozen.then.push(Later::Origin { table, rule, cookie });
            self.frozen.origin = Some(origin);
        }
    }

    /// If the translation is being frozen, `actions` are to be executed later.
    pub(super) fn leave(&mut self, actions: &[OfAction]) {
        let counts = |a: &&OfAction| !matches!(a, OfAction::Note(_) | OfAction::Conjunction { .. });
        let actions: Vec<_> = actions.iter().filter(counts).cloned().collect();
        if self.frozen.on && !actions.is_empty() {
            self.leave_origin();
            self.frozen.then.push(Later::Actions(actions));
        }
    }

    /// If the translation is being frozen, what a rule does after its actions is to be done later.
    pub(super) fn leave_instructions(&mut self, ins: &Instructions) {
        let rest = Instructions { apply: Vec::new(), ..ins.clone() };
        if self.frozen.on && rest != Instructions::default() {
            // Where it came from says nothing of a packet that only goes on.
            if goes_on(&rest).is_none() || !self.frozen.then.is_empty() {
                self.leave_origin();
            }
            self.frozen.then.push(Later::Instructions(rest));
        }
    }

    /// The packet is to be looked up in `table` when it comes back.
    pub(super) fn go_on_in(&mut self, table: u8) {
        self.leave_instructions(&Instructions {
            goto_table: Some(TableId(table)),
            ..Instructions::default()
        });
    }

    /// If the translation is being frozen: has the datapath send the packet, as it is by now, round again, and is not frozen
    /// any more.
    pub(super) fn finish_freezing(&mut self) {
        if !self.frozen.on {
            return;
        }
        let f = std::mem::take(&mut self.frozen);
        if self.out.problem.is_some() {
            return;
        }
        self.commit();
        if let Some(p) = f.pause {
            if let Some(recirc_id) = self.set_aside(0, f.then, p.userdata) {
                self.punt(flow::ControllerAction {
                    reason: p.reason,
                    max_len: p.max_len,
                    controller_id: p.controller_id,
                    recirc_id,
                    continuation: true,
                    ..flow::ControllerAction::default()
                });
            }
            return;
        }
        if let Some((alg, basis)) = f.hash {
            self.emit(Action::Hash { alg, basis });
        }
        self.recirculate(0, f.then);
    }

    /// Has the datapath send the packet round again, to do `then`, or to go on in `table` when that is nothing. The id.
    pub(super) fn recirculate(&mut self, table: u8, then: Vec<Later>) -> Option<u32> {
        let id = self.set_aside(table, then, Vec::new())?;
        self.emit(Action::Recirc(id));
        Some(id)
    }

    /// Keeps what the packet is by now, to do `then`, or to go on in `table` when that is nothing. The id.
    fn set_aside(&mut self, table: u8, then: Vec<Later>, userdata: Vec<u8>) -> Option<u32> {
        let in_port = PortNo(self.key.get64(FieldId::InPort) as u32);
        let written = |f: &FieldId| self.record && self.ever_written.get(*f) != 0;
        let tunnel = tunnel_fields().filter(written).map(|f| (f, self.key.get(f))).collect();
        let state = Frozen {
            table,
            tunnel,
            stack: self.stack.clone(),
            mirrored: self.mirrored,
            action_set: self.action_set.clone(),
            then,
            tracked: self.tracked,
            userdata,
            ..Frozen::of(self.env.index, in_port, &self.key)
        };
        let Some(recirc) = self.env.recircs.freeze_for(state, self.record) else {
            self.fail(Problem::TooManyRecircs);
            return None;
        };
        let id = recirc.id;
        self.out.recircs.push(recirc);
        Some(id)
    }

    /// Keeps what a controller is told beside the packet. The id; 0 when there is no room for it.
    pub(super) fn note_for_controller(&mut self, userdata: &[u8]) -> u32 {
        let in_port = PortNo(self.key.get64(FieldId::InPort) as u32);
        let state = Frozen {
            table: self.table,
            mirrored: self.mirrored,
            tracked: self.tracked,
            userdata: userdata.to_vec(),
            ..Frozen::of(self.env.index, in_port, &self.key)
        };
        let Some(recirc) = self.env.recircs.freeze_for(state, self.record) else { return 0 };
        let id = recirc.id;
        self.out.recircs.push(recirc);
        id
    }

    /// Goes on where `f` was frozen.
    pub(super) fn thaw(&mut self, f: &Frozen) {
        self.step(|| StepKind::Thaw);
        self.nest += 1;
        self.step(|| StepKind::Restored(format!("Resuming from table {}", f.table)));
        f.restore(&mut self.key);
        for (field, value) in &f.tunnel {
            self.key.set(*field, *value);
            self.base.set(*field, *value);
        }
        self.tracked = f.tracked;
        if !f.tracked {
            self.hide_connection();
        }
        if self.stock() && self.orig.get(FieldId::TunDst) | self.orig.get(FieldId::TunIpv6Dst) != 0 {
            // Open vSwitch looks at it of every packet that came out of one.
            self.look_at_tunnel();
        }
        self.in_port = f.in_port;
        self.stack = f.stack.clone();
        self.mirrored = f.mirrored;
        self.action_set = f.action_set.clone();
        if !f.action_set.is_empty() {
            let set = Instructions::apply(f.action_set.clone());
            let text = openflow::text::format_actions(&set, &|_| None);
            self.step(|| StepKind::Restored(format!("Restoring action set: {text}")));
        }
        if !f.then.is_empty() {
            let text: Vec<_> = f.then.iter().map(text_of).collect();
            self.step(|| StepKind::Restored(format!("Restoring actions: {}", text.join(","))));
        }
        self.nest -= 1;
        self.table = f.table;
        if f.then.is_empty() {
            self.table_chain(f.table, None, Misses::Told);
        }
        let mut is_done = false;
        for (i, l) in f.then.iter().enumerate() {
            if std::mem::take(&mut is_done) {
                continue;
            }
            if self.halted {
                if self.frozen.on {
                    self.leave_origin();
                    self.frozen.then.extend_from_slice(&f.then[i..]);
                    // Whatever comes after may be of another origin than the last one known here.
                    self.frozen.origin = None;
                }
                break;
            }
            match l {
                Later::Origin { table, rule, cookie } => {
                    self.table = *table;
                    self.rule = rule.as_ref().map(|r| r.0.clone());
                    self.cookie = *cookie;
                    let shown = if rule.is_none() && *cookie == u64::MAX { 0 } else { *cookie };
                    let of = |x: &str, end: &str| {
                        StepKind::Unrolled(format!("{x}table={table}, cookie={shown}{end}"))
                    };
                    self.step(|| of("unroll_xlate(", ")"));
                    self.step(|| of("restored state: ", ""));
                }
                Later::Actions(actions) if super::length::checks(actions) => {
                    // What the rule does after its actions depends on the check.
                    let after = match f.then.get(i + 1) {
                        Some(Later::Instructions(ins)) => Some(ins.clone()),
                        _ => None,
                    };
                    let has_more = after.is_some();
                    self.instructions = after;
                    is_done = !self.execute(actions) && has_more;
                    self.instructions = None;
                }
                Later::Actions(actions) => {
                    self.execute(actions);
                }
                Later::Bond(port) => self.leave_by_hash(*port),
                Later::Instructions(ins) => {
                    let origin = (self.table, self.rule.clone());
                    let next = match goes_on(ins) {
                        Some(table) => {
                            let (port, with_ct) = (PortNo::IN_PORT, false);
                            let a = OfAction::Resubmit { port, table: Some(table), with_ct };
                            self.step(|| StepKind::Action(a));
                            Some(table.0)
                        }
                        None => self.run(ins),
                    };
                    if let Some(next) = next {
                        let found = self.lookup(next, Misses::Told);
                        self.follow(next, found);
                    }
                    (self.table, self.rule) = origin;
                }
            }
        }
        self.execute_action_set();
    }

    /// Whether an action has to do with headers that were never parsed.
    pub(super) fn needs_fresh_look(&self, a: &OfAction) -> bool {
        let stock = self.stock();
        match a {
            // Groups and tables find out by themselves.
            OfAction::Output { .. }
            | OfAction::OutputTrunc { .. }
            | OfAction::Enqueue { .. }
            | OfAction::SetVlanVid { .. }
            | OfAction::SetVlanPcp { .. }
            | OfAction::SetTunnel { .. }
            | OfAction::SetQueue(_)
            | OfAction::Group(_) => false,
            OfAction::OutputReg { src, .. } => !stock && below_l2(src.field),
            OfAction::SetField { field, .. } | OfAction::SetLegacy { field, .. } => below_l2(*field),
            OfAction::RegLoad { dst, .. } => below_l2(dst.field),
            // To do as Open vSwitch does, everything else goes round.
            _ if stock => true,
            OfAction::RegMove { src, dst } => below_l2(src.field) || below_l2(dst.field),
            OfAction::StackPush(s) | OfAction::StackPop(s) => below_l2(s.field),
            OfAction::Controller { .. }
            | OfAction::PushVlan(_)
            | OfAction::PopVlan
            | OfAction::StripVlan
            | OfAction::Note(_)
            | OfAction::Exit
            | OfAction::PopQueue
            | OfAction::Conjunction { .. }
            | OfAction::WriteMetadata { .. } => false,
            _ => true,
        }
    }
}

/// The table that a packet goes on in, when that is all.
fn goes_on(i: &Instructions) -> Option<TableId> {
    i.goto_table.filter(|t| *i == Instructions { goto_table: Some(*t), ..Instructions::default() })
}

fn text_of(l: &Later) -> String {
    let text = |i: &Instructions| openflow::text::format_actions(i, &|_| None);
    match l {
        Later::Origin { table, rule, cookie } => {
            let cookie = if rule.is_none() && *cookie == u64::MAX { 0 } else { *cookie };
            format!("unroll_xlate(table={table}, cookie={cookie})")
        }
        Later::Actions(a) => text(&Instructions::apply(a.clone())),
        Later::Instructions(i) => goes_on(i).map_or_else(|| text(i), |t| format!("resubmit(,{})", t.0)),
        Later::Bond(port) => format!("bond({port})"),
    }
}
