//! Flow-mods (OpenFlow 1.3.5 6.4): what they do to the tables.
//!
//! A flow-mod is applied to a working copy of the pipeline. It either succeeds as a whole or returns an error, and then the
//! caller throws the copy away: a failing flow-mod changes nothing.

use std::sync::Arc;

use clock::Instant;
use flow::PipelineMatch;
use openflow::error::{BadAction, BadRequest, FlowModFailed};
use openflow::flow_mod::{FlowModCommand, FlowModFlags};
use openflow::message::FlowRemovedReason;
use openflow::{Action, ErrorCode, FlowMod, GroupId, Instructions, PortNo, TableId};

use crate::changes::Changes;
use crate::check::check_instructions;
use crate::meters;
use crate::room;
use crate::rule::Rule;
use crate::tables::{N_TABLES, Pipeline};
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
    if fm.buffer.is_some() && !is_delete(fm.command) {
        // Nothing is ever buffered, see `FeaturesReply::n_buffers`.
        return Err(BadRequest::BufferUnknown.into());
    }
    if fm.flags.0 & !FlowModFlags::KNOWN.0 != 0 {
        return Err(FlowModFailed::BadFlags.into());
    }
    match fm.command {
        FlowModCommand::Add => add(p, fm, now, max_rules, changes),
        FlowModCommand::Modify | FlowModCommand::ModifyStrict => modify(p, fm, now, max_rules, changes),
        FlowModCommand::Delete | FlowModCommand::DeleteStrict => delete(p, fm, changes),
    }
}

/// What can be said of a flow-mod whatever the tables are.
///
/// # Errors
/// OpenFlow's code for what is wrong.
pub(crate) fn admit(fm: &FlowMod) -> Result<(), ErrorCode> {
    match fm.command {
        FlowModCommand::Add => {
            let table = table_of_add(fm.table)?;
            // Bundles are of versions that are strict.
            check_instructions(&fm.instructions, &fm.matches, table, false)
        }
        _ => Ok(()),
    }
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

fn add(
    p: &mut Pipeline,
    fm: &FlowMod,
    now: Instant,
    max_rules: usize,
    changes: &mut Changes,
) -> Result<(), ErrorCode> {
    check_instructions(&fm.instructions, &fm.matches, table_of_add(fm.table)?, changes.lenient())?;
    put(p, fm, now, max_rules, changes)
}

/// As [`add`], of a flow whose actions are known to be in order.
fn put(
    p: &mut Pipeline,
    fm: &FlowMod,
    now: Instant,
    max_rules: usize,
    changes: &mut Changes,
) -> Result<(), ErrorCode> {
    let table = table_of_add(fm.table)?;
    check_references(p, &fm.instructions)?;
    let priority = u32::from(fm.priority);
    let check_overlap = fm.flags.has(FlowModFlags::CHECK_OVERLAP);
    let full = p.table(table).map_or(0, |t| t.rules.len()) >= p.flow_limit(table, max_rules);
    if check_overlap || full {
        let t = p.table_mut(table);
        if t.rules.find_exact(&t.rules.compact(&fm.matches), priority).is_none() {
            if check_overlap && t.rules.overlapping(&fm.matches, priority).next().is_some() {
                return Err(FlowModFailed::Overlap.into());
            }
            room::make(p, table, max_rules, changes)?;
        }
    }
    let generation = p.generation;
    let instructions = changes.share(&fm.instructions);
    let old = p.table_mut(table).rules.insert_with(&fm.matches, priority, |matches, old| {
        let counters = old.filter(|_| !fm.flags.has(FlowModFlags::RESET_COUNTS)).map(|r| r.shared_counters());
        let rule = Rule::new(fm, table, matches.clone(), (now, generation), instructions, counters);
        let rule = Arc::new(rule);
        changes.added(&rule);
        changes.watch(&rule);
        rule
    });
    if let Some(old) = &old {
        changes.replaced(old);
    }
    Ok(())
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

fn modify(
    p: &mut Pipeline,
    fm: &FlowMod,
    now: Instant,
    max_rules: usize,
    changes: &mut Changes,
) -> Result<(), ErrorCode> {
    let tables: Vec<u8> = match fm.table {
        TableId::ALL => p.tables().map(|(id, _)| id).collect(),
        t => vec![one_table(t)?],
    };
    let filter = Filter {
        cookie: fm.cookie,
        cookie_mask: fm.cookie_mask,
        out_port: PortNo::ANY,
        out_group: GroupId::ANY,
    };
    let strict = fm.command == FlowModCommand::ModifyStrict;
    let old: Vec<_> = tables.iter().flat_map(|t| selected(p, *t, fm, strict, filter)).collect();
    if old.is_empty() {
        // In OpenFlow 1.0 and 1.1 what is not there to be changed is added (OpenFlow 1.1.0 4.6).
        if let (Some(cookie), 0) = (fm.new_cookie, fm.cookie_mask) {
            let fm = FlowMod { command: FlowModCommand::Add, cookie, ..fm.clone() };
            return add(p, &fm, now, max_rules, changes);
        }
        for table in tables {
            check_instructions(&fm.instructions, &fm.matches, table, changes.lenient())?;
        }
        return Ok(());
    }
    check_references(p, &fm.instructions)?;
    let mut tables: Vec<u8> = old.iter().map(|r| r.table).collect();
    tables.dedup();
    for table in tables {
        check_instructions(&fm.instructions, &fm.matches, table, changes.lenient())?;
    }
    let instructions = changes.share(&fm.instructions);
    let generation = p.generation;
    for r in old {
        let table = r.table;
        let t = p.table_mut(table);
        let counters = (!fm.flags.has(FlowModFlags::RESET_COUNTS)).then(|| r.shared_counters());
        let cookie = fm.new_cookie.filter(|_| fm.modify_cookie).unwrap_or(r.cookie);
        let new = r.modified(cookie, (now, generation), instructions.clone(), counters);
        let new = Arc::new(new);
        t.rules.insert(&r.matches, r.priority.into(), new.clone());
        changes.watch(&new);
        changes.replaced(&r);
        if new.cookie != r.cookie || new.instructions != r.instructions {
            changes.modified(&r, &new);
        }
    }
    Ok(())
}

fn delete(p: &mut Pipeline, fm: &FlowMod, changes: &mut Changes) -> Result<(), ErrorCode> {
    let tables: Vec<u8> = match fm.table {
        TableId::ALL => p.tables().map(|(id, _)| id).collect(),
        t => vec![one_table(t)?],
    };
    let filter = Filter {
        cookie: fm.cookie,
        cookie_mask: fm.cookie_mask,
        out_port: fm.out_port,
        out_group: fm.out_group,
    };
    for table in tables {
        let gone = selected(p, table, fm, fm.command == FlowModCommand::DeleteStrict, filter);
        if gone.is_empty() {
            continue;
        }
        let t = p.table_mut(table);
        for r in &gone {
            t.rules.remove(&r.matches, r.priority.into());
        }
        gone.into_iter().for_each(|r| changes.removed(r, FlowRemovedReason::Delete));
    }
    Ok(())
}

/// Every group and meter that instructions name is there.
fn check_references(p: &Pipeline, i: &Instructions) -> Result<(), ErrorCode> {
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
    put(p, fm, now, max_rules, changes).map(|()| true)
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
