//! The group table (OpenFlow 1.3.5 5.6, 6.7; 1.5.1 7.3.4.3).
//!
//! Groups are part of the published pipeline. A record remembers which groups it went through and their generation, so that
//! a change to one concerns the records that use it.

use std::sync::Arc;

use clock::Instant;
use openflow::error::{BadAction, GroupModFailed};
use openflow::group::{
    Bucket, BucketCounter, BucketId, GroupDesc, GroupFeatures, GroupMod, GroupModCommand, GroupStats,
    GroupType, Selection,
};
use openflow::message::FlowRemovedReason;
use openflow::{Action, ErrorCode, GroupId};

use crate::changes::Changes;
use crate::check::check_bucket;
use crate::dp_hash::DpHash;
use crate::rule::{Rule, RuleCounters};
use crate::tables::Pipeline;

/// Most groups of a bridge, all types together. Controllers are told that every number may be used, as in Open vSwitch: what
/// keeps them from it is memory.
pub const MAX_GROUPS: usize = 1_000_000;
/// Most buckets of a group.
pub const MAX_BUCKETS: usize = 1024;

/// A group.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its number.
    pub id: GroupId,
    /// How it chooses among its buckets.
    pub group_type: GroupType,
    /// How a select group chooses.
    pub selection: Selection,
    /// How a select group chooses by a hash that the datapath makes, if it can.
    pub(crate) dp_hash: Option<DpHash>,
    /// Its buckets, in order.
    pub buckets: Vec<GroupBucket>,
    /// Packets that went through it.
    pub counters: Arc<RuleCounters>,
    /// When it was added.
    pub created: Instant,
    /// Changes whenever the group does.
    pub generation: u64,
}

/// A bucket of a group.
#[derive(Clone, Debug)]
pub struct GroupBucket {
    /// As the controller said.
    pub bucket: Bucket,
    /// Packets that went through it.
    pub counters: Arc<RuleCounters>,
}

impl Group {
    /// As statistics say it.
    fn stats(&self, p: &Pipeline, now: Instant) -> GroupStats {
        let age = now.since(self.created);
        let count =
            |b: &GroupBucket| BucketCounter { packets: b.counters.packets(), bytes: b.counters.bytes() };
        let flows = p.tables().flat_map(|(_, t)| t.rules.rules().map(|f| f.rule.has_group(self.id)));
        GroupStats {
            group: self.id,
            ref_count: flows.filter(|uses| *uses).count() as u32,
            packets: self.counters.packets(),
            bytes: self.counters.bytes(),
            duration_sec: u32::try_from(age.as_secs()).unwrap_or(u32::MAX),
            duration_nsec: age.subsec_nanos(),
            buckets: self.buckets.iter().map(count).collect(),
        }
    }

    /// Says in the log how it chooses.
    fn tell(&self) {
        if self.group_type == GroupType::Select {
            let buckets = self.buckets.iter().map(|b| &b.bucket);
            DpHash::tell(self.id, &self.selection, buckets, self.dp_hash.as_ref());
        }
    }

    fn desc(&self) -> GroupDesc {
        GroupDesc {
            group_type: self.group_type,
            group: self.id,
            buckets: self.buckets.iter().map(|b| b.bucket.clone()).collect(),
            selection: self.selection.clone(),
        }
    }
}

/// Applies a group-mod to a working copy of the pipeline; what becomes of flows is said in `changes`.
///
/// # Errors
/// OpenFlow's code for what is wrong; `p` is then to be discarded.
pub(crate) fn apply(
    p: &mut Pipeline,
    gm: &GroupMod,
    now: Instant,
    changes: &mut Changes,
) -> Result<(), ErrorCode> {
    let old = p.groups.get(&gm.group.0).cloned();
    match (gm.command, old) {
        (GroupModCommand::Delete, _) => delete(p, gm.group, changes),
        (GroupModCommand::Add, Some(_)) => Err(GroupModFailed::GroupExists.into()),
        (GroupModCommand::Add | GroupModCommand::AddOrModify, None) => {
            if p.groups.len() >= MAX_GROUPS {
                return Err(GroupModFailed::OutOfGroups.into());
            }
            put(p, gm, numbered(&[], gm.buckets.clone())?, now)
        }
        (GroupModCommand::Modify | GroupModCommand::AddOrModify, Some(old)) => {
            put(p, gm, numbered(&[], gm.buckets.clone())?, old.created)
        }
        (_, None) => Err(GroupModFailed::UnknownGroup.into()),
        (GroupModCommand::InsertBucket, Some(old)) => {
            let had: Vec<Bucket> = old.buckets.iter().map(|b| b.bucket.clone()).collect();
            let at = match gm.bucket {
                BucketId::FIRST => 0,
                BucketId::LAST => had.len(),
                after => position(&had, after)? + 1,
            };
            let new = numbered(&had, gm.buckets.clone())?;
            let mut all = had;
            all.splice(at..at, new);
            change(p, &old, all)
        }
        (GroupModCommand::RemoveBucket, Some(old)) => {
            let mut had: Vec<Bucket> = old.buckets.iter().map(|b| b.bucket.clone()).collect();
            match gm.bucket {
                BucketId::ALL => had.clear(),
                BucketId::FIRST if had.is_empty() => {}
                BucketId::FIRST => {
                    had.remove(0);
                }
                BucketId::LAST => {
                    had.pop();
                }
                id => {
                    let at = position(&had, id)?;
                    had.remove(at);
                }
            }
            change(p, &old, had)
        }
    }
}

fn position(buckets: &[Bucket], id: BucketId) -> Result<usize, ErrorCode> {
    buckets.iter().position(|b| b.id == id).ok_or_else(|| GroupModFailed::UnknownBucket.into())
}

/// Gives the buckets of a message numbers as its group has them.
pub(crate) fn number_buckets(gm: &mut GroupMod) {
    if let Ok(buckets) = numbered(&[], gm.buckets.clone()) {
        gm.buckets = buckets;
    }
}

/// Gives buckets that have no number the lowest that are free.
fn numbered(had: &[Bucket], mut new: Vec<Bucket>) -> Result<Vec<Bucket>, ErrorCode> {
    if had.len() + new.len() > MAX_BUCKETS {
        return Err(GroupModFailed::OutOfBuckets.into());
    }
    let given = new.iter().filter(|b| b.id != BucketId::ALL).map(|b| b.id);
    let mut used: std::collections::BTreeSet<BucketId> = had.iter().map(|b| b.id).collect();
    for id in given {
        if !used.insert(id) {
            return Err(GroupModFailed::BucketExists.into());
        }
    }
    let mut next = 0;
    for b in new.iter_mut().filter(|b| b.id == BucketId::ALL) {
        while !used.insert(BucketId(next)) {
            next += 1;
        }
        b.id = BucketId(next);
    }
    Ok(new)
}

fn put(p: &mut Pipeline, gm: &GroupMod, buckets: Vec<Bucket>, created: Instant) -> Result<(), ErrorCode> {
    let group = Group {
        dp_hash: DpHash::of(gm.group_type, &gm.selection, buckets.iter()),
        id: gm.group,
        group_type: gm.group_type,
        selection: gm.selection.clone(),
        buckets: buckets.into_iter().map(|bucket| GroupBucket { bucket, counters: Arc::default() }).collect(),
        counters: Arc::default(),
        created,
        generation: p.generation,
    };
    for b in group.buckets.iter().map(|b| &b.bucket) {
        match group.group_type {
            GroupType::Select => {}
            _ if b.weight != 0 => return Err(GroupModFailed::InvalidGroup.into()),
            GroupType::FastFailover if !b.watches() => return Err(GroupModFailed::InvalidGroup.into()),
            GroupType::All | GroupType::Indirect if b.watches() => {
                return Err(GroupModFailed::WatchUnsupported.into());
            }
            _ => {}
        }
    }
    check(&group)?;
    group.tell();
    p.groups.insert(gm.group.0, Arc::new(group));
    Ok(())
}

/// The same group with other buckets; those that stay keep their counters. A message that inserts buckets does not say the group's
/// type, and Open vSwitch takes buckets that watch nothing from it for a fast-failover group too: they count as live.
fn change(p: &mut Pipeline, old: &Group, buckets: Vec<Bucket>) -> Result<(), ErrorCode> {
    let kept = |b: Bucket| {
        let was = old.buckets.iter().find(|o| o.bucket.id == b.id);
        let counters = was.map_or_else(Arc::default, |o| o.counters.clone());
        GroupBucket { bucket: b, counters }
    };
    let group = Group {
        dp_hash: DpHash::of(old.group_type, &old.selection, buckets.iter()),
        buckets: buckets.into_iter().map(kept).collect(),
        generation: p.generation,
        ..old.clone()
    };
    check(&group)?;
    group.tell();
    p.groups.insert(old.id.0, Arc::new(group));
    Ok(())
}

fn check(g: &Group) -> Result<(), ErrorCode> {
    if g.id > GroupId::MAX {
        return Err(GroupModFailed::InvalidGroup.into());
    }
    if g.group_type == GroupType::Indirect && g.buckets.len() != 1 {
        return Err(GroupModFailed::InvalidGroup.into());
    }
    for b in g.buckets.iter().map(|b| &b.bucket) {
        if b.actions.iter().any(|a| matches!(a, Action::Group(id) if *id == g.id)) {
            return Err(GroupModFailed::Loop.into());
        }
        check_bucket(&b.actions)?;
    }
    match g.selection.method.as_str() {
        "" | "hash" | "dp_hash" => Ok(()),
        _ => Err(BadAction::BadArgument.into()),
    }
}

fn delete(p: &mut Pipeline, id: GroupId, changes: &mut Changes) -> Result<(), ErrorCode> {
    let gone: Vec<u32> = match id {
        GroupId::ALL => p.groups.keys().copied().collect(),
        id if id > GroupId::MAX => return Err(GroupModFailed::InvalidGroup.into()),
        id => p.groups.contains_key(&id.0).then_some(id.0).into_iter().collect(),
    };
    if gone.is_empty() {
        return Ok(());
    }
    for g in &gone {
        p.groups.remove(g);
    }
    // Flows that use a group go with it.
    let uses =
        |r: &Rule| r.instructions.actions().any(|a| matches!(a, Action::Group(g) if gone.contains(&g.0)));
    let rules = p.tables().flat_map(|(_, t)| t.rules.rules().map(|f| f.rule.clone()));
    let with_it: Vec<Arc<Rule>> = rules.filter(|r| uses(r)).collect();
    for r in &with_it {
        p.table_mut(r.table).rules.remove(&r.matches, r.priority.into());
    }
    with_it.into_iter().for_each(|r| changes.removed(r, FlowRemovedReason::GroupDelete));
    Ok(())
}

/// Statistics of one group, or of all in order of their numbers.
pub(crate) fn stats(p: &Pipeline, id: GroupId, now: Instant) -> Vec<GroupStats> {
    chosen(p, id).map(|g| g.stats(p, now)).collect()
}

/// What one group is, or each.
pub(crate) fn descs(p: &Pipeline, id: GroupId) -> Vec<GroupDesc> {
    chosen(p, id).map(Group::desc).collect()
}

fn chosen(p: &Pipeline, id: GroupId) -> impl Iterator<Item = &Group> {
    p.groups.values().map(|g| &**g).filter(move |g| id == GroupId::ALL || id == GroupId::ANY || g.id == id)
}

/// What can be done with groups.
pub(crate) fn features() -> GroupFeatures {
    // Weights, liveness, chaining (OpenFlow 1.3.5 7.3.5.8); chains are followed to a depth, not checked for loops.
    const CAPABILITIES: u32 = 1 | 2 | 4;
    // Output, copy-ttl and the others of OpenFlow by number, but for PBB.
    const ACTIONS: u32 = 1 | 1 << 15 | 1 << 16 | 0x1f << 17 | 1 << 22 | 1 << 23 | 1 << 24 | 1 << 25;
    GroupFeatures {
        types: 0xf,
        capabilities: CAPABILITIES,
        max_groups: [GroupId::MAX.0; 4],
        actions: [ACTIONS; 4],
    }
}
