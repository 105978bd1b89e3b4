//! Fitting a rule to a device's tables: pure, from the description alone.
//!
//! A rule is tried on every path through the table graph. On a path each field goes to the first table that can match
//! it, each action to the first table, from the last one used on, that can perform it. What does not fit is an
//! *obstacle*; the path with the fewest came closest, and its first obstacle is the answer. Fields come before actions
//! because an operator changes the match more easily than the purpose of a rule.
//!
//! A path longer than one table is taken whole or not at all: every table but the last must be able to tag what it
//! matched ([`crate::TableCaps::tag_bits`]), so that the entries of one rule do not meet the packets of another.

use flow::headers::eth_type;
use flow::nsh;
use flow::tunnel::options;
use flow::{Action, ActionKind, FieldId, PortId};

use crate::capability::{
    KeyField, MaskForm, MatchKind, Needs, OffloadCapabilities, Placement, TableCaps, TableId,
    is_of_a_connection,
};
use crate::objects::ObjectKind;
use crate::reject::Reject;
use crate::rule::FlowRule;

/// Longest path through a device's tables that is considered.
const MAX_PATH: usize = 8;
/// Most paths that are considered.
const MAX_PATHS: usize = 256;

/// Bit of `vlan_tci` that says a tag is there.
const VLAN_PRESENT: u128 = 0x1000;

/// What stands between a rule and one path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathVerdict {
    /// The tables, in the order a packet meets them.
    pub path: Vec<TableId>,
    /// Everything that does not fit; empty when the rule fits.
    pub obstacles: Vec<Reject>,
}

impl OffloadCapabilities {
    /// Whether and where `rule` fits. The answer is the same whatever the tables hold now.
    ///
    /// # Errors
    /// The [`Reject`] of the table that came closest.
    pub fn validate(&self, rule: &FlowRule) -> Result<Placement, Reject> {
        let mut all = self.placements(rule)?;
        Ok(all.swap_remove(0))
    }

    /// Every place where `rule` fits, cheapest first; never empty. A provider takes the first that has room.
    ///
    /// # Errors
    /// The [`Reject`] of the table that came closest.
    pub fn placements(&self, rule: &FlowRule) -> Result<Vec<Placement>, Reject> {
        self.fits_device(rule)?;
        let mut fits = Vec::new();
        let mut nearest: Option<(usize, Reject)> = None;
        for path in self.paths() {
            let mut obstacles = self.obstacles(&path, rule);
            if obstacles.is_empty() {
                fits.push(Placement {
                    table: path.last().map_or(TableId(0), |t| t.id),
                    path: path.iter().map(|t| t.id).collect(),
                    insert_ns: path.iter().map(|t| t.insert_ns).sum(),
                });
            } else if nearest.as_ref().is_none_or(|(n, _)| obstacles.len() < *n) {
                nearest = Some((obstacles.len(), obstacles.swap_remove(0)));
            }
        }
        fits.sort_by_key(|p| p.insert_ns);
        match nearest {
            _ if !fits.is_empty() => Ok(fits),
            Some((_, r)) => Err(r),
            None => Err(Reject::NoTables),
        }
    }

    /// What stands between `rule` and each path through the device, for `hoist why` and traces.
    ///
    /// # Errors
    /// What rules the device out whatever the table.
    pub fn explain(&self, rule: &FlowRule) -> Result<Vec<PathVerdict>, Reject> {
        self.fits_device(rule)?;
        Ok(self
            .paths()
            .iter()
            .map(|p| PathVerdict {
                path: p.iter().map(|t| t.id).collect(),
                obstacles: self.obstacles(p, rule),
            })
            .collect())
    }

    /// What does not depend on a table: ports, actions of software's own, objects.
    fn fits_device(&self, rule: &FlowRule) -> Result<(), Reject> {
        let (port, mask) = rule.matches.get(FieldId::DpPort);
        if mask != FieldId::DpPort.info().max() {
            return Err(Reject::NoIngress);
        }
        let port = PortId(port as u32);
        let here = self.has_port(port) || rule.is_of_tunnel() && self.opens_tunnels();
        if !here {
            return Err(Reject::IngressNotOnDevice { port });
        }
        if self.entry.is_empty() || self.tables.is_empty() {
            return Err(Reject::NoTables);
        }
        for a in rule.actions.iter() {
            self.action_fits_device(a)?;
        }
        Ok(())
    }

    fn action_fits_device(&self, a: &Action) -> Result<(), Reject> {
        let offered = || self.tables.iter().any(|t| t.action(a.kind()).is_some());
        let commits = || self.tables.iter().filter_map(|t| t.action(a.kind())).any(|c| c.commits);
        match a {
            Action::Output(port) if !self.has_port(*port) => Err(Reject::EgressNotOnDevice { port: *port }),
            Action::Controller(_) | Action::Export(_) => Err(Reject::NeedsSoftware { action: a.kind() }),
            Action::Recirc(_)
            | Action::Hash { .. }
            | Action::LbOutput(_)
            | Action::Ct(_)
            | Action::CtClear
            | Action::CheckLength(_)
            | Action::Sample(_)
            | Action::TunnelPush(_)
            | Action::TunnelPop { .. }
            | Action::AddMpls { .. }
            | Action::PushEth { .. }
            | Action::PopEth
            | Action::PushNsh(_)
            | Action::PopNsh
                if !offered() =>
            {
                Err(Reject::NeedsSoftware { action: a.kind() })
            }
            Action::Ct(c) if !c.only_looks_up() && !commits() => {
                Err(Reject::NeedsSoftware { action: a.kind() })
            }
            Action::Meter(_) if self.object_limit(ObjectKind::Meter) == 0 => {
                Err(Reject::ObjectUnsupported { kind: ObjectKind::Meter })
            }
            Action::Clone(inner) => inner.iter().try_for_each(|a| self.action_fits_device(a)),
            _ => Ok(()),
        }
    }

    /// Every path a packet can take, shorter ones first.
    fn paths(&self) -> Vec<Vec<&TableCaps>> {
        let mut paths: Vec<Vec<&TableCaps>> =
            self.entry.iter().filter_map(|id| self.table(*id)).map(|t| vec![t]).collect();
        let mut i = 0;
        while i < paths.len() && paths.len() < MAX_PATHS {
            if paths[i].len() < MAX_PATH
                && let Some(last) = paths[i].last()
            {
                let longer: Vec<_> = last
                    .next
                    .iter()
                    .filter_map(|id| self.table(*id))
                    .filter(|t| !paths[i].iter().any(|p| p.id == t.id))
                    .map(|t| paths[i].iter().copied().chain([t]).collect::<Vec<_>>())
                    .collect();
                paths.extend(longer);
            }
            i += 1;
        }
        paths
    }

    fn obstacles(&self, path: &[&TableCaps], rule: &FlowRule) -> Vec<Reject> {
        let mut bad = Vec::new();
        let Some((last, before)) = path.split_last() else {
            return bad;
        };
        bad.extend(before.iter().filter(|t| t.tag_bits == 0).map(|t| Reject::Chain { table: t.name }));
        self.match_obstacles(path, last, rule, &mut bad);
        action_obstacles(path, last, rule, &mut bad);
        for t in path {
            if let MatchKind::Shared(wants) = t.kind
                && !wants.suits(&rule.provenance)
            {
                bad.push(Reject::Provenance { table: t.name, wants });
            }
        }
        bad
    }

    fn match_obstacles(&self, path: &[&TableCaps], last: &TableCaps, rule: &FlowRule, bad: &mut Vec<Reject>) {
        let service = rule.matches.get(FieldId::EthType).0 == eth_type::NSH.into();
        if service {
            // Its fields lie where labels and neighbour discovery do in other packets.
            let matters = |f: &&flow::Field| nsh::is_field(f.id) && rule.matches.get(f.id).1 != 0;
            let first = flow::FIELDS.iter().find(matters);
            bad.extend(first.map(|f| Reject::Field { table: last.name, field: f.id }));
        }
        for field in rule.matches.mask().fields() {
            if service && matches!(field, FieldId::MplsLse0 | FieldId::MplsLse1 | FieldId::NdTarget) {
                continue;
            }
            let (value, wanted) = rule.matches.get(field);
            // Tunnel options are one thing to a device: it can match them, or it sees none.
            let (key, zero) = match field.option() {
                Some(n) => (FieldId::TunOptions, !options::is_there(rule.matches.key(), n)),
                None => (field, value == 0),
            };
            if zero && self.zero_fields.contains(&key) && !is_of_a_connection(&rule.matches, key) {
                continue;
            }
            let mut seen: Option<(&TableCaps, &KeyField)> = None;
            let fits = path.iter().filter_map(|t| t.key_field(key).map(|k| (*t, k))).any(|(t, k)| {
                seen = Some((t, k));
                let masked = key != field || mask_fits(wanted, k.mask, k.form, field.info().bits);
                unmet(rule, k.needs).is_none() && masked
            });
            match seen {
                _ if fits => {}
                Some((t, k)) if unmet(rule, k.needs).is_some() => {
                    bad.extend(unmet(rule, k.needs).map(|(needs, values)| Reject::FieldNeeds {
                        table: t.name,
                        field,
                        needs,
                        values,
                    }))
                }
                Some((t, k)) => {
                    bad.push(Reject::Mask { table: t.name, field, wanted, offered: k.mask, form: k.form })
                }
                None => bad.push(Reject::Field { table: last.name, field }),
            }
        }
        for t in path {
            for k in &t.key {
                let (value, wanted) = rule.matches.get(k.field);
                if k.required && (wanted == 0 || k.form == MaskForm::Whole && wanted & k.mask != k.mask) {
                    bad.push(Reject::FieldRequired { table: t.name, field: k.field });
                } else if wanted & k.mask != 0
                    && !k.values.is_empty()
                    && !k.values.contains(&(value & k.mask))
                {
                    bad.push(Reject::Value { table: t.name, field: k.field, value });
                }
            }
        }
    }
}

/// The first of `needs` that `rule` does not match. A tag that is matched as absent is matched whole: nothing else is in it.
fn unmet(rule: &FlowRule, needs: Needs) -> Option<(FieldId, &'static [u128])> {
    needs.iter().copied().find(|(f, values)| {
        let (v, mask) = rule.matches.get(*f);
        let absent_tag = *f == FieldId::VlanTci && mask & VLAN_PRESENT != 0 && v & VLAN_PRESENT == 0;
        !(mask == f.info().max() && values.contains(&v) || absent_tag && values.contains(&0))
    })
}

/// Whether `wanted` is a mask of form `form` within `offered`, of a field `bits` wide.
pub(crate) fn mask_fits(wanted: u128, offered: u128, form: MaskForm, bits: u8) -> bool {
    match form {
        MaskForm::Whole => wanted == offered,
        MaskForm::Prefix => wanted & !offered == 0 && is_prefix(wanted, bits),
        MaskForm::Any => wanted & !offered == 0,
        MaskForm::OneOf(masks) => masks.contains(&wanted),
    }
}

/// Whether `mask` of a field `bits` wide is a run of ones from the top.
fn is_prefix(mask: u128, bits: u8) -> bool {
    let up = mask << (128 - u32::from(bits));
    up.leading_ones() == up.count_ones()
}

/// What one table of the path is to do so far.
#[derive(Default)]
struct Load {
    actions: usize,
    outputs: Vec<PortId>,
    stage: Option<(u8, ActionKind)>,
    kinds: Vec<(ActionKind, u16)>,
}

fn action_obstacles(path: &[&TableCaps], last: &TableCaps, rule: &FlowRule, bad: &mut Vec<Reject>) {
    let mut loads: Vec<Load> = path.iter().map(|_| Load::default()).collect();
    let mut at = 0;
    for a in rule.actions.iter() {
        let kind = a.kind();
        let Some(j) = (at..path.len()).find(|j| path[*j].action(kind).is_some()) else {
            bad.push(Reject::Action { table: last.name, action: kind });
            continue;
        };
        at = j;
        load_action(path[j], &mut loads[j], a, rule, bad);
    }
    for (t, l) in path.iter().zip(&loads) {
        let (table, wanted) = (t.name, l.outputs.len());
        if wanted > t.max_outputs {
            bad.push(Reject::TooManyOutputs { table, wanted, offered: t.max_outputs });
        }
        if l.actions > t.max_actions {
            bad.push(Reject::TooManyActions { table, wanted: l.actions, offered: t.max_actions });
        }
        for (action, n) in &l.kinds {
            if let Some(c) = t.action(*action)
                && *n > c.max
            {
                bad.push(Reject::TooManyOf {
                    table,
                    action: *action,
                    wanted: usize::from(*n),
                    offered: usize::from(c.max),
                });
            }
        }
    }
}

fn load_action(t: &TableCaps, l: &mut Load, a: &Action, rule: &FlowRule, bad: &mut Vec<Reject>) {
    let (table, action) = (t.name, a.kind());
    let Some(cap) = t.action(action) else {
        return;
    };
    if let Some((needs, values)) = unmet(rule, cap.needs) {
        bad.push(Reject::ActionNeeds { table, action, needs, values });
    }
    let beside = |k: &ActionKind| rule.actions.iter().any(|a| a.kind() == *k);
    if cap.alone && (rule.actions.len() != 1 + cap.beside.len() || !cap.beside.iter().all(beside)) {
        bad.push(Reject::NotAlone { table, action });
    }
    l.actions += usize::from(cap.slots);
    match l.kinds.iter_mut().find(|(k, _)| *k == action) {
        Some((_, n)) => *n = n.saturating_add(1),
        None => l.kinds.push((action, 1)),
    }
    match l.stage {
        Some((s, before)) if cap.stage != 0 && cap.stage < s => {
            bad.push(Reject::ActionOrder { table, action, before });
        }
        _ if cap.stage != 0 => l.stage = Some((cap.stage, action)),
        _ => {}
    }
    match a {
        Action::Output(port) => {
            if !t.repeated_outputs && l.outputs.contains(port) {
                bad.push(Reject::RepeatedOutput { table, port: *port });
            }
            let ingress = rule.matches.get(FieldId::DpPort).0;
            if !t.hairpin && u128::from(port.0) == ingress {
                bad.push(Reject::Hairpin { table, port: *port });
            }
            l.outputs.push(*port);
            l.stage = None;
            return;
        }
        Action::SetField { field, mask, .. } if !mask_fits(*mask, cap.bits, cap.form, field.info().bits) => {
            bad.push(Reject::SetMask { table, field: *field, wanted: *mask, offered: cap.bits });
        }
        Action::Clone(inner) => {
            let mut nested = Load::default();
            for a in inner.iter() {
                if t.action(a.kind()).is_none() {
                    bad.push(Reject::Action { table, action: a.kind() });
                }
                load_action(t, &mut nested, a, rule, bad);
            }
            l.actions += nested.actions;
        }
        _ => {}
    }
    if !l.outputs.is_empty() && !cap.after_output {
        bad.push(Reject::ActionOrder { table, action, before: ActionKind::Output });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActionCap, CounterCaps};
    use flow::{FlowId, PacketMatch};

    fn device() -> OffloadCapabilities {
        let arp = KeyField::any(FieldId::ArpSha).needing(&[(FieldId::EthType, &[0x0806])]);
        let set = ActionCap::anywhere(ActionKind::SetField(FieldId::NwSrc))
            .needing(&[(FieldId::EthType, &[0x0800])])
            .taking(2);
        let table = TableCaps {
            id: TableId(0),
            name: "t",
            kind: crate::MatchKind::Ternary,
            key: vec![KeyField::whole(FieldId::DpPort), KeyField::any(FieldId::EthType), arp],
            entries: 1,
            actions: vec![set],
            max_actions: 3,
            max_outputs: 1,
            repeated_outputs: false,
            hairpin: false,
            counters: CounterCaps { packet_bits: 32, byte_bits: 32 },
            insert_ns: 1,
            next: Vec::new(),
            tag_bits: 0,
        };
        OffloadCapabilities {
            device: "d".into(),
            tables: vec![table],
            entry: vec![TableId(0)],
            ports: vec![PortId(1)],
            zero_fields: Vec::new(),
            atomic_replace: true,
            resume_point: false,
            objects: Vec::new(),
            queue_depth: 1,
        }
    }

    fn rule(eth_type: Option<u128>, arp_sha: bool, sets: usize) -> FlowRule {
        let mut matches = PacketMatch::ANY;
        matches.set(FieldId::DpPort, 1);
        if let Some(t) = eth_type {
            matches.set(FieldId::EthType, t);
        }
        if arp_sha {
            matches.set(FieldId::ArpSha, 0);
        }
        let set = Action::SetField { field: FieldId::NwSrc, value: 1, mask: 1 };
        FlowRule { id: FlowId(1), matches, actions: vec![set; sets].into(), provenance: [].into() }
    }

    #[test]
    fn a_field_or_action_of_one_header_needs_the_match_to_name_the_header() {
        let d = device();
        assert!(d.validate(&rule(Some(0x0806), true, 0)).is_ok());
        assert!(d.validate(&rule(Some(0x0800), false, 1)).is_ok());
        let (needs, arp, ip): (_, &[u128], &[u128]) = (FieldId::EthType, &[0x0806], &[0x0800]);
        let field = Reject::FieldNeeds { table: "t", field: FieldId::ArpSha, needs, values: arp };
        assert_eq!(d.validate(&rule(Some(0x86dd), true, 0)), Err(field.clone()));
        assert_eq!(d.validate(&rule(None, true, 0)), Err(field));
        let action = ActionKind::SetField(FieldId::NwSrc);
        let action = Reject::ActionNeeds { table: "t", action, needs, values: ip };
        assert_eq!(d.validate(&rule(Some(0x0806), false, 1)), Err(action.clone()));
        assert_eq!(d.validate(&rule(None, false, 1)), Err(action));
    }

    #[test]
    fn actions_count_as_many_as_the_slots_they_take() {
        let want = Reject::TooManyActions { table: "t", wanted: 4, offered: 3 };
        assert_eq!(device().validate(&rule(Some(0x0800), false, 2)), Err(want));
    }
}
