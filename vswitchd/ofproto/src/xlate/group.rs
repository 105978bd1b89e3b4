//! Groups: which buckets a packet goes through, and each of them on a copy.

use flow::FieldId;
use openflow::group::{Bucket, GroupType};
use openflow::port::PortState;
use openflow::{GroupId, PortNo};

use super::Xlate;
use super::act::order_action_set;
use super::hash::{Fields, mix};
use crate::groups::Group;
use crate::trace::StepKind;

/// Longest chain of groups that is followed to find out whether one is live.
const MAX_WATCHED: u32 = 128;

impl Xlate<'_> {
    pub(super) fn group(&mut self, id: GroupId) {
        let env = self.env;
        if !self.may_go_deeper() {
            return;
        }
        let group = env.pipeline.group(id);
        self.out.deps.groups.push((env.index, id, group.map_or(0, |g| g.generation)));
        let Some(group) = group else {
            let text = format!("output to nonexistent group {}", id.0);
            self.warn(&text);
            return;
        };
        self.out.provenance.push(offload::Origin::Group(id.0));
        if group.group_type == GroupType::Select && self.headers.reparse_needed {
            return self.freeze_for_fresh_look();
        }
        // Open vSwitch chooses by the datapath's hash unless told otherwise. That takes a record for each value, and goes
        // through the datapath twice; by a hash made here a connection has its own record, which hardware can take.
        let dp_hash = group.dp_hash.as_ref().filter(|_| self.stock() || !group.selection.method.is_empty());
        if let Some(d) = dp_hash
            && self.key.get(FieldId::DpHash) == 0
        {
            // The kernel's datapath knows one way to hash.
            let alg = if self.env.pipeline.settings.kernel_datapath { flow::HashAlg::L4 } else { d.alg };
            return self.freeze_for_hash(alg, d.basis);
        }
        let all = matches!(group.group_type, GroupType::All | GroupType::Indirect);
        let chosen = match group.group_type {
            GroupType::All | GroupType::Indirect => None,
            GroupType::FastFailover => group.buckets.iter().position(|b| self.may_choose(&b.bucket)),
            GroupType::Select => match dp_hash {
                Some(d) => {
                    self.wc.set_masked(FieldId::DpHash, u128::MAX, d.mask().into());
                    let hash = self.key.get64(FieldId::DpHash) as u32;
                    d.choose(hash, |i| self.may_choose(&group.buckets[i].bucket))
                }
                None => self.select(group),
            },
        };
        if let (false, Some(i)) = (all, chosen) {
            let text = format!("using bucket {}", group.buckets[i].bucket.id.0);
            self.detail(&text);
        } else if !all {
            self.detail("no live bucket");
            return;
        }
        self.out.credited.push(group.counters.clone());
        for (i, b) in group.buckets.iter().enumerate() {
            if !all && chosen != Some(i) {
                continue;
            }
            self.out.credited.push(b.counters.clone());
            self.step(|| StepKind::Bucket(b.bucket.id));
            self.nest += 1;
            self.depth += 1;
            let in_bucket = std::mem::replace(&mut self.in_group, true);
            self.execute_aside(&order_action_set(&b.bucket.actions));
            self.in_group = in_bucket;
            self.depth -= 1;
            self.nest -= 1;
            if self.out.problem.is_some() {
                return;
            }
        }
    }

    /// As [`Xlate::is_live`], and says why not.
    fn may_choose(&mut self, b: &Bucket) -> bool {
        let live = self.is_live(b, 0);
        if !live && self.record {
            let port = (b.watch_port != PortNo::ANY).then(|| format!("port {}", b.watch_port));
            let group = (b.watch_group != GroupId::ANY).then(|| format!("port {}", b.watch_group.0));
            let watched: Vec<String> = port.into_iter().chain(group).collect();
            let text = format!("bucket {}: not live due to {}", b.id.0, watched.join(" and "));
            self.detail(&text);
        }
        live
    }

    /// Whether a bucket may be chosen; one that watches nothing may.
    fn is_live(&mut self, b: &Bucket, depth: u32) -> bool {
        let env = self.env;
        if !b.watches() {
            return true;
        }
        let port = env.pipeline.ports.get(b.watch_port);
        if port.is_some_and(|p| p.state.has(PortState::LIVE) && p.forwards()) {
            return true;
        }
        if b.watch_group == GroupId::ANY || depth >= MAX_WATCHED {
            return false;
        }
        let group = env.pipeline.group(b.watch_group);
        self.out.deps.groups.push((env.index, b.watch_group, group.map_or(0, |g| g.generation)));
        let Some(g) = group else { return false };
        g.buckets.iter().any(|b| self.is_live(&b.bucket, depth + 1))
    }

    /// The live bucket of a select group that the packet's connection belongs to: by highest random weight, so that a bucket
    /// that comes or goes moves no more connections than it must.
    fn select(&mut self, g: &Group) -> Option<usize> {
        let hash = if g.selection.method == "hash" && !g.selection.fields.is_empty() {
            self.hash_of_bits(&g.selection.fields, g.selection.param)
        } else {
            self.hash_of(Fields::Symmetric { l2: true, l4: true, udp: true }, g.selection.param)
        };
        let mut best: Option<(u64, usize)> = None;
        for (i, b) in g.buckets.iter().enumerate() {
            if !self.may_choose(&b.bucket) {
                continue;
            }
            let score = (mix(hash.into(), b.bucket.id.0.into()) >> 48) * u64::from(b.bucket.weight);
            if b.bucket.weight > 0 && best.is_none_or(|(s, _)| score > s) {
                best = Some((score, i));
            }
        }
        best.map(|(_, i)| i)
    }
}
