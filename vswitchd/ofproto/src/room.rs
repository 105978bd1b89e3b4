//! How many flows a table holds, and what happens when it is full (table Flow_Table of ovs-vswitchd.conf.db(5);
//! OpenFlow 1.4.0 5.10, 5.11, 7.3.4.2).
//!
//! A table that evicts removes, to make room, the least important flow with a timeout and among those the one that would
//! end first. With fairness, only flows of the largest group do: those whose matches have the same bits in the fields that
//! the configuration names. A flow without timeouts is never evicted.
//!
//! Whom to evict is found by looking at every flow of the table: eviction from large tables is slow.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use openflow::error::{FlowModFailed, TableModFailed};
use openflow::message::{FlowRemovedReason, TableMiss, TableMod};
use openflow::table_config::{TableDesc, TableStatusReason, Vacancy};
use openflow::{ErrorCode, Subfield, TableId};

use crate::changes::Changes;
use crate::rule::Rule;
use crate::settings::TableSettings;
use crate::tables::{N_TABLES, Pipeline, Table};

/// `OFPTC_DEPRECATED_MASK`.
const OLD_MISS: u32 = 3;
/// `OFPTC_EVICTION` and `OFPTC_VACANCY_EVENTS`.
const EVICTION: u32 = 4;
const VACANCY: u32 = 8;
/// `OFPTMPEF_OTHER`, `_IMPORTANCE` and `_LIFETIME`: what is looked at.
const EVICTION_FLAGS: u32 = 7;

/// What controllers have made of a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableConfig {
    /// It evicts, whatever the administrator says.
    evicts: bool,
    /// Percents of free space below and above which it is said.
    vacancy: Option<(u8, u8)>,
    /// Which of the two is said next.
    next: Option<TableStatusReason>,
    /// What becomes of packets that no flow matches, where a controller has said.
    pub(crate) miss: Option<TableMiss>,
}

impl Pipeline {
    fn table_settings(&self, table: u8) -> Option<&TableSettings> {
        self.settings.tables.get(&table)
    }

    /// The name the administrator gave a table; empty when there is none.
    pub(crate) fn given_name(&self, table: u8) -> &str {
        self.table_settings(table).map_or("", |s| &s.name)
    }

    /// The name of a table: the administrator's, or else a controller's; empty when there is none.
    pub fn table_name(&self, table: u8) -> &str {
        match self.given_name(table) {
            "" => self.table_names.get(&table).map_or("", |n| n),
            name => name,
        }
    }

    /// Most flows of a table; `max` of one without a limit of its own.
    pub fn flow_limit(&self, table: u8, max: usize) -> usize {
        self.table_settings(table).and_then(|s| s.flow_limit).map_or(max, |n| n.min(max))
    }

    /// What becomes of packets that no flow of a table matches, where a controller has said.
    pub(crate) fn miss(&self, table: u8) -> Option<TableMiss> {
        self.table_config.get(&table).and_then(|c| c.miss)
    }

    fn evicts(&self, table: u8) -> bool {
        self.table_settings(table).is_some_and(|s| s.evict)
            || self.table_config.get(&table).is_some_and(|c| c.evicts)
    }

    /// Free space of a table in percent.
    fn vacancy(&self, table: u8, max: usize) -> u8 {
        let (limit, used) = (self.flow_limit(table, max), self.table(table).map_or(0, |t| t.rules.len()));
        (limit.saturating_sub(used) * 100).checked_div(limit).unwrap_or(0) as u8
    }

    /// What a table is told to do when it fills up.
    pub(crate) fn table_desc(&self, table: u8, max: usize) -> TableDesc {
        let c = self.table_config.get(&table).copied().unwrap_or_default();
        let config =
            if self.evicts(table) { EVICTION } else { 0 } | if c.next.is_some() { VACANCY } else { 0 };
        let vacancy = c.vacancy.filter(|_| c.next.is_some());
        let vacancy = vacancy.map(|(down, up)| Vacancy { down, up, current: self.vacancy(table, max) });
        TableDesc { table: TableId(table), config, eviction: Some(EVICTION_FLAGS), vacancy }
    }
}

/// Makes room for one more flow in `table`.
///
/// # Errors
/// `OFPFMFC_TABLE_FULL` when there is none and none is to be had.
pub(crate) fn make(p: &mut Pipeline, table: u8, max: usize, changes: &mut Changes) -> Result<(), ErrorCode> {
    let limit = p.flow_limit(table, max);
    if p.table(table).is_none_or(|t| t.rules.len() < limit) && limit > 0 {
        return Ok(());
    }
    shrink(p, table, limit.saturating_sub(1), changes);
    let full = p.table(table).is_some_and(|t| t.rules.len() >= limit) || limit == 0;
    if full { Err(FlowModFailed::TableFull.into()) } else { Ok(()) }
}

/// Evicts flows of every table that has more than its settings allow, as far as it may.
pub(crate) fn keep_limits(p: &mut Pipeline, max: usize, changes: &mut Changes) {
    let limited: Vec<u8> = p.settings.tables.keys().copied().collect();
    for t in limited {
        shrink(p, t, p.flow_limit(t, max), changes);
    }
}

fn shrink(p: &mut Pipeline, table: u8, to: usize, changes: &mut Changes) {
    if !p.evicts(table) {
        return;
    }
    let groups = p.table_settings(table).map_or_else(Vec::new, |s| s.groups.clone());
    while let Some(t) = p.table(table).filter(|t| t.rules.len() > to)
        && let Some(r) = victim(t, &groups)
    {
        p.table_mut(table).rules.remove(&r.matches, r.priority.into());
        changes.removed(r, FlowRemovedReason::Eviction);
    }
}

/// Whom to evict.
fn victim(t: &Table, groups: &[Subfield]) -> Option<Arc<Rule>> {
    let mut by_group: HashMap<Vec<u128>, (usize, Arc<Rule>)> = HashMap::new();
    for f in t.rules.rules() {
        let Some(end) = f.rule.ends() else { continue };
        let key = f.rule.matches.key();
        let group: Vec<u128> = groups.iter().map(|g| bits(key.get(g.field), g)).collect();
        let (n, first) = by_group.entry(group).or_insert_with(|| (0, f.rule.clone()));
        *n += 1;
        if first.ends().is_some_and(|e| (f.rule.importance(), end) < (first.importance(), e)) {
            *first = f.rule.clone();
        }
    }
    let first = |(n, r): &(usize, Arc<Rule>)| (*n, Reverse((r.importance(), r.ends())));
    by_group.into_values().max_by_key(first).map(|(_, r)| r)
}

fn bits(value: u128, s: &Subfield) -> u128 {
    let mask = if s.bits >= 128 { u128::MAX } else { (1 << s.bits) - 1 };
    value >> s.offset.min(127) & mask
}

/// Applies a table-mod.
///
/// # Errors
/// `TableModFailed`.
pub(crate) fn table_mod(p: &mut Pipeline, tm: &TableMod, max: usize) -> Result<(), ErrorCode> {
    if tm.table != TableId::ALL && tm.table.0 >= N_TABLES {
        return Err(TableModFailed::BadTable.into());
    }
    // The flags of OpenFlow 1.1 and 1.2 have no meaning any more (OpenFlow 1.3.5 7.3.3).
    if tm.config & !(OLD_MISS | EVICTION | VACANCY) != 0
        || tm.vacancy.is_some_and(|v| v.down > v.up || v.up > 100)
    {
        return Err(TableModFailed::BadConfig.into());
    }
    let tables = if tm.table == TableId::ALL { 0..N_TABLES } else { tm.table.0..tm.table.0 + 1 };
    for t in tables {
        let mut c = p.table_config.get(&t).copied().unwrap_or_default();
        c.evicts = tm.config & EVICTION != 0;
        if tm.miss.is_some() && tm.miss != c.miss {
            c.miss = tm.miss;
            p.config_generation = p.generation;
        }
        if let Some(v) = tm.vacancy {
            c.vacancy = Some((v.down, v.up));
        }
        c.next = match c.vacancy {
            Some((_, up)) if tm.config & VACANCY != 0 => Some(if p.vacancy(t, max) >= up {
                TableStatusReason::VacancyDown
            } else {
                TableStatusReason::VacancyUp
            }),
            _ => None,
        };
        if c == TableConfig::default() {
            p.table_config.remove(&t);
        } else {
            p.table_config.insert(t, c);
        }
    }
    Ok(())
}

/// The tables of which it is to be said that they filled up or emptied, if any.
pub(crate) fn vacancies(p: &mut Pipeline, max: usize) -> Vec<(TableStatusReason, TableDesc)> {
    use TableStatusReason::{VacancyDown, VacancyUp};
    if p.table_config.is_empty() {
        return Vec::new();
    }
    let crossed: Vec<(u8, TableStatusReason)> = p
        .table_config
        .iter()
        .filter_map(|(t, c)| {
            let ((down, up), next) = (c.vacancy?, c.next?);
            let free = p.vacancy(*t, max);
            let now = if free < down {
                VacancyDown
            } else if free > up {
                VacancyUp
            } else {
                return None;
            };
            (now == next).then_some((*t, now))
        })
        .collect();
    let mut said = Vec::new();
    for (t, reason) in crossed {
        said.push((reason, p.table_desc(t, max)));
        if let Some(c) = p.table_config.get_mut(&t) {
            c.next = Some(if reason == VacancyDown { VacancyUp } else { VacancyDown });
        }
    }
    said
}
