//! Buckets and their members: who gets those of a member that is disabled, and what is moved when loads differ.

use std::collections::BTreeMap;

use clock::Instant;

use super::{Bond, BondMode, Bucket, bucket};
use crate::MemberId;

/// A difference of loads below this is none, bytes.
const MIN_OVERLOAD: u64 = 100_000;
/// Nor is one below this part of the lesser load.
const OVERLOAD_PART: u64 = 32;

impl Bond {
    /// Whether loads are looked at.
    pub fn is_balanced(&self) -> bool {
        self.settings.rebalance.is_some()
            && self.settings.mode != BondMode::ActiveBackup
            && !self.lacp.falls_back(self.settings.fallback_ab)
    }

    /// Gives buckets whose member is not enabled to others in turn, and those that nothing has fallen into yet to all alike.
    pub(super) fn reassign(&mut self) {
        if self.settings.mode == BondMode::ActiveBackup {
            return;
        }
        let enabled: Vec<MemberId> =
            self.members.iter().filter(|(_, m)| m.enabled).map(|(id, _)| *id).collect();
        let mut turn = 0;
        for (i, b) in self.buckets.iter_mut().enumerate() {
            if enabled.is_empty() {
                b.member = None;
            } else if b.counted == 0 {
                b.member = Some(enabled[i % enabled.len()]);
            } else if b.member.is_none_or(|m| !enabled.contains(&m)) {
                b.member = Some(enabled[turn % enabled.len()]);
                turn += 1;
            }
        }
    }

    /// Takes note of all bytes that have been sent by what falls into a bucket.
    pub fn count(&mut self, at: usize, bytes: u64) {
        if let Some(b) = self.buckets.get_mut(at) {
            // Less than before: somebody else counts now.
            b.load += bytes.checked_sub(b.counted).unwrap_or(bytes);
            b.counted = bytes;
        }
    }

    /// Whether it is time to look at loads; [`Bond::rebalance`] is to be called then, with everything counted.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let Some(every) = self.settings.rebalance.filter(|_| self.is_balanced()) else { return false };
        match self.rebalances_at {
            Some(at) => now >= at,
            None => {
                self.rebalances_at = Some(now + every);
                false
            }
        }
    }

    /// Moves buckets from members that send much to those that send little, until they send alike, as nearly as buckets allow.
    /// How many were moved.
    pub fn rebalance(&mut self, now: Instant) -> usize {
        self.rebalances_at = self.settings.rebalance.map(|every| now + every);
        let mut loads: BTreeMap<MemberId, u64> =
            self.members.iter().filter(|(_, m)| m.enabled).map(|(id, _)| (*id, 0)).collect();
        for b in &self.buckets {
            if let Some(l) = b.member.and_then(|m| loads.get_mut(&m)) {
                *l += b.load;
            }
        }
        let mut moved = 0;
        while moved < self.buckets.len() {
            let most =
                loads.iter().max_by_key(|(id, l)| (**l, std::cmp::Reverse(**id))).map(|(id, l)| (*id, *l));
            let least = loads.iter().min_by_key(|(id, l)| (**l, **id)).map(|(id, l)| (*id, *l));
            let (Some((from, most)), Some((to, least))) = (most, least) else { break };
            let over = most - least;
            if from == to || over < (least / OVERLOAD_PART).max(MIN_OVERLOAD) {
                break;
            }
            // The largest that does not turn the difference round.
            let fits = |b: &&mut Bucket| b.member == Some(from) && b.load > 0 && b.load <= over / 2;
            let Some(b) = self.buckets.iter_mut().filter(fits).max_by_key(|b| b.load) else { break };
            b.member = Some(to);
            let load = b.load;
            *loads.entry(from).or_default() -= load;
            *loads.entry(to).or_default() += load;
            moved += 1;
        }
        if moved > 0 {
            tracing::info!(target: "bond", "bond {}: {moved} hashes have moved to other members", self.name);
        }
        // What was long ago counts little.
        self.buckets.iter_mut().for_each(|b| b.load /= 2);
        moved
    }

    /// `bond/migrate`: a bucket goes to a member.
    ///
    /// # Errors
    /// What the command says.
    pub fn migrate(&mut self, hash: &str, member: &str) -> Result<(), String> {
        if self.settings.mode != BondMode::BalanceSlb {
            return Err("not an SLB bond".into());
        }
        let hash: u32 = hash.parse().map_err(|_| "bad hash".to_owned())?;
        let id = self.by_name(member)?;
        if !self.members.get(&id).is_some_and(|m| m.enabled) {
            return Err("cannot migrate to disabled member".into());
        }
        let b = &mut self.buckets[bucket(hash)];
        b.member = Some(id);
        // It stays there also when nothing has fallen into it yet.
        b.counted = b.counted.max(1);
        Ok(())
    }

    /// Loads of a member's buckets.
    pub(super) fn loads(&self, id: MemberId) -> impl Iterator<Item = (usize, u64)> {
        self.buckets.iter().enumerate().filter(move |(_, b)| b.member == Some(id)).map(|(i, b)| (i, b.load))
    }
}
