//! Flow-mods (OpenFlow 1.3.5 6.4): what they do to the tables.
//!
//! A flow-mod is applied to a working copy of the pipeline. It either succeeds as a whole or returns an error, and then the
//! caller throws the copy away: a failing flow-mod changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use classifier::{Addition, MiniMatch, Shapes};
use clock::Instant;
use flow::{PipelineMask, PipelineMatch};
use openflow::error::{BadAction, BadRequest, FlowModFailed};
use openflow::flow_mod::{FlowModCommand, FlowModFlags};
use openflow::message::FlowRemovedReason;
use openflow::{Action, ErrorCode, FlowMod, GroupId, Instructions, PortNo, TableId};

use crate::changes::Changes;
use crate::check::check_instructions;
use crate::instructions::Shared;
use crate::meters;
use crate::room;
use crate::rule::Rule;
use crate::tables::{N_TABLES, Pipeline, Table};
use crate::tlv;
use crate::xlate::LearnedFlow;

/// Which rules, beside their match.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter {
    pub(crate) cookie: u64,
    pub(crate) cookie_mask: u64,
    pub(crate) out_port: PortNo,
    pub(crate) out_group: GroupId,
}

impl Filter {
    pub(crate) fn passes(&self, r: &Rule) -> bool {
        (r.cookie ^ self.cookie) & self.cookie_mask == 0
            && (self.out_port == PortNo::ANY || r.outputs_to(self.out_port))
            && (self.out_group == GroupId::ANY || r.has_group(self.out_group))
    }
}

/// A flow-mod of which everything that can be wrong with it has been looked for in some tables: to these it can be done.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Adds a flow to its table, where there is room for it, or one that it takes the place of. Nobody else has it yet.
    Add(Arc<Rule>),
    /// The same, if room can be made.
    Squeeze(Arc<Rule>),
    /// Puts others in the place of these.
    Modify { old: Vec<Arc<Rule>>, instructions: Arc<Instructions>, cookie: Option<u64>, reset_counts: bool },
    /// Takes these away.
    Delete(Vec<Arc<Rule>>),
}

impl Plan {
    /// Whether it cannot fail any more.
    pub(crate) fn is_certain(&self) -> bool {
        !matches!(self, Plan::Squeeze(_))
    }

    /// Carries it out.
    ///
    /// # Errors
    /// `OFPFMFC_TABLE_FULL`; only of one that is not [certain](Plan::is_certain).
    fn apply(
        self,
        p: &mut Pipeline,
        now: Instant,
        max_rules: usize,
        changes: &mut Changes,
    ) -> Result<(), ErrorCode> {
        if let Plan::Squeeze(rule) = &self {
            room::make(p, rule.table, max_rules, changes)?;
        }
        self.carry_out(p, now, changes);
        Ok(())
    }

    /// Carries it out, whatever room there is, in the tables that it was made for.
    pub(crate) fn carry_out(self, p: &mut Pipeline, now: Instant, changes: &mut Changes) {
        match self {
            Plan::Add(rule) | Plan::Squeeze(rule) => add(p, rule, now, changes),
            Plan::Modify { old, instructions, cookie, reset_counts } => {
                modify(p, old, &instructions, cookie, reset_counts, now, changes);
            }
            Plan::Delete(gone) => {
                for r in &gone {
                    p.table_mut(r.table).rules.remove(&r.matches, r.priority.into());
                }
                gone.into_iter().for_each(|r| changes.removed(r, FlowRemovedReason::Delete));
            }
        }
    }
}

/// Applies `fm` to `p` and says in `changes` what became of rules. `max_rules` is the limit of a table.
///
/// # Errors
/// OpenFlow's code for what is wrong; `p` is then to be discarded.
pub(crate) fn apply(
    p: &mut Pipeline,
    fm: &FlowMod,
    now: Instant,
    max_rules: usize,
    changes: &mut Changes,
) -> Result<(), ErrorCode> {
    let lenient = changes.lenient();
    plan(p, fm, max_rules, lenient, changes.shared())?.apply(p, now, max_rules, changes)
}

/// What `fm` comes to with the tables as they are. Changes nothing. `lenient`: as OpenFlow 1.0 has it.
///
/// # Errors
/// OpenFlow's code for what is wrong.
pub(crate) fn plan(
    p: &Pipeline,
    fm: &FlowMod,
    max_rules: usize,
    lenient: bool,
    shared: &mut Shared,
) -> Result<Plan, ErrorCode> {
    if fm.buffer.is_some() && !is_delete(fm.command) {
        // Nothing is ever buffered, see `FeaturesReply::n_buffers`.
        return Err(BadRequest::BufferUnknown.into());
    }
    if !has_known_flags(fm) {
        return Err(FlowModFailed::BadFlags.into());
    }
    match fm.command {
        FlowModCommand::Add => plan_add(p, fm, max_rules, lenient, shared),
        FlowModCommand::Modify | FlowModCommand::ModifyStrict => {
            plan_modify(p, fm, max_rules, lenient, shared)
        }
        FlowModCommand::Delete | FlowModCommand::DeleteStrict => {
            let strict = fm.command == FlowModCommand::DeleteStrict;
            Ok(Plan::Delete(concerned(p, fm, strict, fm.out_port, fm.out_group)?))
        }
    }
}

fn has_known_flags(fm: &FlowMod) -> bool {
    fm.flags.0 & !FlowModFlags::KNOWN.0 == 0
}

/// What can be said of a flow-mod whatever the tables are. Of an addition, the flow as a table will have it, its match made
/// compact by `shapes`.
///
/// # Errors
/// OpenFlow's code for what is wrong.
pub(crate) fn admit(
    fm: &FlowMod,
    shapes: &mut Shapes,
    shared: &mut Shared,
) -> Result<Option<Arc<Rule>>, ErrorCode> {
    if fm.command != FlowModCommand::Add {
        return Ok(None);
    }
    let table = table_of_add(fm.table)?;
    // Bundles are of versions that are strict.
    check_instructions(&fm.instructions, &fm.matches, table, false)?;
    if fm.buffer.is_some() || !has_known_flags(fm) {
        // Wrong, but not yet.
        return Ok(None);
    }
    let instructions = shared.get(&fm.instructions);
    Ok(Some(Arc::new(Rule::new(fm, table, shapes.compact(&fm.matches), instructions))))
}

fn is_delete(c: FlowModCommand) -> bool {
    matches!(c, FlowModCommand::Delete | FlowModCommand::DeleteStrict)
}

/// The table of an addition: OpenFlow 1.0 leaves it to the switch.
fn table_of_add(t: TableId) -> Result<u8, ErrorCode> {
    if t == TableId::ALL { Ok(0) } else { one_table(t) }
}

/// The last table but [`TableId::ALL`] is the switch's own, as in Open vSwitch.
fn one_table(t: TableId) -> Result<u8, ErrorCode> {
    if t.0 < N_TABLES { Ok(t.0) } else { Err(BadRequest::Eperm.into()) }
}

fn plan_add(
    p: &Pipeline,
    fm: &FlowMod,
    max_rules: usize,
    lenient: bool,
    shared: &mut Shared,
) -> Result<Plan, ErrorCode> {
    check_instructions(&fm.instructions, &fm.matches, table_of_add(fm.table)?, lenient)?;
    plan_put(p, fm, max_rules, shared)
}

/// As [`plan_add`], of a flow whose actions are known to be in order.
fn plan_put(p: &Pipeline, fm: &FlowMod, max_rules: usize, shared: &mut Shared) -> Result<Plan, ErrorCode> {
    let table = table_of_add(fm.table)?;
    let m = &fm.matches;
    let matches = p.table(table).map_or_else(|| MiniMatch::new(m), |t| t.rules.compact(m));
    plan_rule(p, Arc::new(Rule::new(fm, table, matches, shared.get(&fm.instructions))), max_rules)
}

/// Additions that come one after the other and are carried out at once, see [`classifier::Version::extend`].
#[derive(Default)]
pub(crate) struct Batch {
    /// By table, in their order.
    rules: BTreeMap<u8, Vec<Arc<Rule>>>,
}

impl Batch {
    /// As [`apply`], of the flow that [`admit`] made of an addition. It may be carried out only with [`Batch::finish`].
    ///
    /// # Errors
    /// As for [`apply`].
    pub(crate) fn add(
        &mut self,
        p: &mut Pipeline,
        rule: Arc<Rule>,
        now: Instant,
        max_rules: usize,
        changes: &mut Changes,
    ) -> Result<(), ErrorCode> {
        let table = rule.table;
        let wait = self.rules.get(&table).map_or(0, Vec::len);
        let there = p.table(table).map_or(0, |t| t.rules.len());
        // Monitors tell of changes in their order. The others depend on what came before.
        let alone = changes.is_monitored()
            || rule.flags.has(FlowModFlags::CHECK_OVERLAP)
            || there + wait >= p.flow_limit(table, max_rules);
        if alone {
            self.finish(p, now, changes);
            return plan_rule(p, rule, max_rules)?.apply(p, now, max_rules, changes);
        }
        check_references(p, Some(rule.matches.mask()), &rule.instructions)?;
        self.rules.entry(table).or_default().push(rule);
        Ok(())
    }

    /// Carries out what has been added and was not yet.
    pub(crate) fn finish(&mut self, p: &mut Pipeline, now: Instant, changes: &mut Changes) {
        let generation = p.generation;
        for (table, rules) in std::mem::take(&mut self.rules) {
            let addition = |mut rule: Arc<Rule>| {
                if let Some(r) = Arc::get_mut(&mut rule) {
                    r.enter((now, generation), None);
                }
                changes.watch(&rule);
                Addition { matches: rule.matches.clone(), priority: rule.priority.into(), rule }
            };
            let all = rules.into_iter().map(addition).collect();
            p.table_mut(table).rules.extend(all, |new, old| {
                new.succeed(old, !new.flags.has(FlowModFlags::RESET_COUNTS));
                // It may end earlier than was thought.
                changes.watch(new);
                changes.replaced(old);
            });
        }
    }
}

/// What the addition of a flow comes to that nobody else has yet.
fn plan_rule(p: &Pipeline, rule: Arc<Rule>, max_rules: usize) -> Result<Plan, ErrorCode> {
    check_references(p, Some(rule.matches.mask()), &rule.instructions)?;
    let priority = u32::from(rule.priority);
    let check_overlap = rule.flags.has(FlowModFlags::CHECK_OVERLAP);
    let t = p.table(rule.table);
    let full = t.map_or(0, |t| t.rules.len()) >= p.flow_limit(rule.table, max_rules);
    let is_new = |t: &Table| t.rules.find_exact(&rule.matches, priority).is_none();
    if !(check_overlap || full) || !t.is_none_or(is_new) {
        return Ok(Plan::Add(rule));
    }
    if check_overlap
        && t.is_some_and(|t| t.rules.overlapping(&rule.matches.expand(), priority).next().is_some())
    {
        return Err(FlowModFailed::Overlap.into());
    }
    Ok(if full { Plan::Squeeze(rule) } else { Plan::Add(rule) })
}

/// Puts a flow that nobody else has yet into its table, in the place of one with its match and priority.
fn add(p: &mut Pipeline, mut rule: Arc<Rule>, now: Instant, changes: &mut Changes) {
    let generation = p.generation;
    let (matches, priority) = (rule.matches.clone(), rule.priority.into());
    let old = p.table_mut(rule.table).rules.insert_with(&matches, priority, |old| {
        let counters = old.map(|r| r.handed_on(!rule.flags.has(FlowModFlags::RESET_COUNTS)));
        if let Some(r) = Arc::get_mut(&mut rule) {
            r.enter((now, generation), counters);
        }
        changes.added(&rule);
        changes.watch(&rule);
        rule
    });
    if let Some(old) = &old {
        changes.replaced(old);
    }
}

/// The rules of `table` that a non-strict command with this match is about, or the one that a strict one is about.
fn selected(p: &Pipeline, table: u8, fm: &FlowMod, strict: bool, filter: Filter) -> Vec<Arc<Rule>> {
    let Some(t) = p.table(table) else { return Vec::new() };
    if strict {
        let m = t.rules.compact(&fm.matches);
        let found = t.rules.find_exact(&m, fm.priority.into());
        found.filter(|r| filter.passes(r)).cloned().into_iter().collect()
    } else {
        within(p, table, &fm.matches, filter)
    }
}

/// The rules of `table` whose match is `m` or more specific and that pass `filter`.
pub(crate) fn within(p: &Pipeline, table: u8, m: &PipelineMatch, filter: Filter) -> Vec<Arc<Rule>> {
    let Some(t) = p.table(table) else { return Vec::new() };
    t.rules.within(m).filter(|f| filter.passes(f.rule)).map(|f| f.rule.clone()).collect()
}

/// The rules that a command which is not an addition is about, table by table.
fn concerned(
    p: &Pipeline,
    fm: &FlowMod,
    strict: bool,
    out_port: PortNo,
    out_group: GroupId,
) -> Result<Vec<Arc<Rule>>, ErrorCode> {
    let filter = Filter { cookie: fm.cookie, cookie_mask: fm.cookie_mask, out_port, out_group };
    Ok(tables_of(p, fm)?.flat_map(|t| selected(p, t, fm, strict, filter)).collect())
}

/// The tables that a command which is not an addition is about.
fn tables_of(p: &Pipeline, fm: &FlowMod) -> Result<std::ops::Range<u8>, ErrorCode> {
    Ok(match fm.table {
        TableId::ALL => 0..p.tables().count().min(usize::from(u8::MAX)) as u8,
        t => one_table(t).map(|t| t..t + 1)?,
    })
}

fn plan_modify(
    p: &Pipeline,
    fm: &FlowMod,
    max_rules: usize,
    lenient: bool,
    shared: &mut Shared,
) -> Result<Plan, ErrorCode> {
    let strict = fm.command == FlowModCommand::ModifyStrict;
    let old = concerned(p, fm, strict, PortNo::ANY, GroupId::ANY)?;
    let check = |table| check_instructions(&fm.instructions, &fm.matches, table, lenient);
    if old.is_empty() {
        // In OpenFlow 1.0 and 1.1 what is not there to be changed is added (OpenFlow 1.1.0 4.6).
        if fm.new_cookie.is_some() && fm.cookie_mask == 0 {
            return plan_add(p, fm, max_rules, lenient, shared);
        }
        tables_of(p, fm)?.try_for_each(check)?;
    } else {
        check_references(p, None, &fm.instructions)?;
        let mut tables: Vec<u8> = old.iter().map(|r| r.table).collect();
        tables.dedup();
        tables.into_iter().try_for_each(check)?;
    }
    Ok(Plan::Modify {
        old,
        instructions: shared.get(&fm.instructions),
        cookie: fm.new_cookie.filter(|_| fm.modify_cookie),
        reset_counts: fm.flags.has(FlowModFlags::RESET_COUNTS),
    })
}

fn modify(
    p: &mut Pipeline,
    old: Vec<Arc<Rule>>,
    instructions: &Arc<Instructions>,
    cookie: Option<u64>,
    reset_counts: bool,
    now: Instant,
    changes: &mut Changes,
) {
    let generation = p.generation;
    for r in old {
        let cookie = cookie.unwrap_or(r.cookie);
        let new = Arc::new(r.modified(cookie, (now, generation), instructions.clone(), !reset_counts));
        p.table_mut(r.table).rules.insert(&r.matches, r.priority.into(), new.clone());
        changes.watch(&new);
        changes.replaced(&r);
        if new.cookie != r.cookie || new.instructions != r.instructions {
            changes.modified(&r, &new);
        }
    }
}

/// Every group and meter that instructions name is there, and every tunnel option that they or the match speak of is mapped.
fn check_references(p: &Pipeline, matches: Option<&PipelineMask>, i: &Instructions) -> Result<(), ErrorCode> {
    tlv::check(p, matches, i.actions())?;
    check_groups(p, i.actions())?;
    meters::check(p, i.meter, i.actions())
}

/// Every group that actions name is there (OpenFlow 1.3.5 6.4).
pub(crate) fn check_groups<'a>(
    p: &Pipeline,
    actions: impl IntoIterator<Item = &'a Action>,
) -> Result<(), ErrorCode> {
    let missing = |a: &Action| matches!(a, Action::Group(g) if !p.groups.contains_key(&g.0));
    if actions.into_iter().any(missing) { Err(BadAction::BadOutGroup.into()) } else { Ok(()) }
}

/// Adds a flow that a packet has made, or refreshes it when it is there as it is. Whether the tables have changed.
///
/// # Errors
/// As for [`apply`].
pub(crate) fn learn(
    p: &mut Pipeline,
    l: &LearnedFlow,
    now: Instant,
    max_rules: usize,
    changes: &mut Changes,
) -> Result<bool, ErrorCode> {
    let fm = &*l.flow;
    if let Some(t) = p.table(fm.table.0) {
        let old = t.rules.find_exact(&t.rules.compact(&fm.matches), fm.priority.into());
        if let Some(r) = old
            && *r.instructions == fm.instructions
            && (r.cookie, r.idle_timeout, r.hard_timeout) == (fm.cookie, fm.idle_timeout, fm.hard_timeout)
        {
            r.refresh(now);
            return Ok(false);
        }
        if let (None, Some(limit)) = (old, l.limit)
            && t.n_with_cookie(fm.cookie, limit) >= limit
        {
            return Ok(false);
        }
    }
    // What `learn` may put into a flow was seen to when the rule with the `learn` came; a `fin_timeout` among it does nothing
    // to packets without connections.
    plan_put(p, fm, max_rules, changes.shared())?.apply(p, now, max_rules, changes)?;
    Ok(true)
}

/// Where a rule that learned flows with `delete_learned` has gone, and no other rule learns the same, what it learned goes too
/// (ovs-actions(7)); and so on, should that have learned something.
pub(crate) fn forget_learned(p: &mut Pipeline, changes: &mut Changes) {
    while let Some(target) = changes.next_orphan() {
        let keeps = |r: &Rule| r.keeps_learned().any(|t| t == target);
        if p.tables().any(|(_, t)| t.rules.rules().any(|f| keeps(f.rule))) {
            continue;
        }
        let (table, cookie) = target;
        let Some(t) = p.table(table) else { continue };
        let of_it = t.rules.rules().map(|f| f.rule).filter(|r| r.cookie == cookie);
        let gone: Vec<Arc<Rule>> = of_it.cloned().collect();
        for r in gone {
            p.table_mut(table).rules.remove(&r.matches, r.priority.into());
            changes.removed(r, FlowRemovedReason::Delete);
        }
    }
}
