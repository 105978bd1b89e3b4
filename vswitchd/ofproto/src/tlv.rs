//! Which tunnel option each `tun_metadata` field means (Nicira's `NXT_TLV_TABLE_MOD`, ovs-fields(7)).
//!
//! The table is a bridge's and is published with its flow tables. What a field is to keys is the process's
//! ([`flow::tunnel::options`]): of two bridges that map the same field to the same option the keys are one, and a bridge cannot map
//! a field that another has mapped to another option.

use flow::tunnel::options::{self, Mapping};
use flow::{FieldId, PipelineMask};
use openflow::error::Nicira;
use openflow::extension::{CtZone, LearnSource, LearnTarget};
use openflow::message::{TlvMap, TlvTableCommand};
use openflow::switch::Reply;
use openflow::{Action, Body, ErrorCode};

use crate::bridge::Bridge;
use crate::tables::Pipeline;

/// The mappings of a bridge, by field.
pub(crate) type Mappings = imbl::OrdMap<u8, Mapping>;

/// A mapping as it is asked for.
///
/// # Errors
/// `NXTTMFC_BAD_OPT_LEN`, `NXTTMFC_BAD_FIELD_IDX`.
fn wanted(m: &TlvMap) -> Result<Mapping, ErrorCode> {
    if !m.bytes.is_multiple_of(4) || m.bytes > options::MAX_OPTION_BYTES {
        return Err(Nicira::TlvBadOptLen.into());
    }
    match u8::try_from(m.index) {
        Ok(index) if index < options::FIELDS => {
            Ok(Mapping { index, class: m.class, kind: m.kind, bytes: m.bytes })
        }
        _ => Err(Nicira::TlvBadFieldIndex.into()),
    }
}

/// Adds mappings; those that were taken from the process for it go into `taken`.
fn add(to: &mut Mappings, wanted: &[Mapping], taken: &mut Vec<Mapping>) -> Result<(), ErrorCode> {
    for m in wanted {
        if to.contains_key(&m.index) {
            return Err(Nicira::TlvAlreadyMapped.into());
        }
        if to.values().any(|o| (o.class, o.kind) == (m.class, m.kind)) {
            return Err(Nicira::TlvDupEntry.into());
        }
        options::map(*m).map_err(|_| Nicira::TlvTableFull)?;
        taken.push(*m);
        to.insert(m.index, *m);
    }
    Ok(())
}

impl Bridge {
    /// What is mapped (`NXT_TLV_TABLE_REPLY`).
    pub(crate) fn tlv_table(&self) -> Body {
        let map =
            |m: &Mapping| TlvMap { class: m.class, kind: m.kind, bytes: m.bytes, index: m.index.into() };
        Body::TlvTableReply {
            max_option_bytes: options::MAX_BYTES,
            max_fields: options::FIELDS.into(),
            maps: self.pipeline().options.values().map(map).collect(),
        }
    }

    /// Carries out a `NXT_TLV_TABLE_MOD`: all of it, or nothing.
    ///
    /// # Errors
    /// `NXTTMFC_*`; `NXTTMFC_INVALID_TLV_DEL` for a mapping that a flow needs.
    pub(crate) fn tlv_table_mod(
        &self,
        command: TlvTableCommand,
        maps: &[TlvMap],
    ) -> Result<Reply, ErrorCode> {
        let wanted = maps.iter().map(wanted).collect::<Result<Vec<_>, _>>()?;
        let mut taken = Vec::new();
        let done = self.change(true, |p| {
            let mut gone = Vec::new();
            match command {
                TlvTableCommand::Add => add(&mut p.options, &wanted, &mut taken)?,
                TlvTableCommand::Delete => gone.extend(wanted.iter().map(|m| m.index)),
                TlvTableCommand::Clear => gone.extend(p.options.keys().copied()),
            }
            gone.retain(|i| p.options.contains_key(i));
            let needed = needed(p);
            if gone.iter().any(|i| needed >> i & 1 != 0) {
                return Err(Nicira::InvalidTlvDel.into());
            }
            Ok(gone.into_iter().filter_map(|i| p.options.remove(&i)).collect::<Vec<_>>())
        });
        match done {
            Ok(gone) => {
                gone.into_iter().for_each(options::unmap);
                Ok(Reply::None)
            }
            Err(e) => {
                taken.into_iter().for_each(options::unmap);
                Err(e)
            }
        }
    }
}

/// The fields that flows and groups need, one bit each.
fn needed(p: &Pipeline) -> u64 {
    let mut all = 0;
    for (_, t) in p.tables() {
        // Those that have gone with their rules are among it only until the table is empty.
        let union = !t.rules.is_empty() && options::any(t.rules.union());
        for f in t.rules.rules() {
            if union {
                all |= of_mask(f.rule.matches.mask());
            }
            of_actions(f.rule.instructions.actions(), &mut all);
        }
    }
    for g in p.groups.values() {
        g.buckets.iter().for_each(|b| of_actions(&b.bucket.actions, &mut all));
    }
    all
}

/// The fields that a match needs.
fn of_mask(m: &PipelineMask) -> u64 {
    options::mappings().filter(|o| options::is_there(m, o.index)).fold(0, |all, o| all | 1 << o.index)
}

/// The fields that actions need.
fn of_actions<'a>(actions: impl IntoIterator<Item = &'a Action>, all: &mut u64) {
    for a in actions {
        let mut note = |f: FieldId| *all |= f.option().map_or(0, |n| 1 << n);
        match a {
            Action::SetField { field, .. } | Action::DeleteField(field) => note(*field),
            Action::RegLoad { dst, .. } => note(dst.field),
            Action::RegMove { src, dst } => {
                note(src.field);
                note(dst.field);
            }
            Action::OutputReg { src, .. } => note(src.field),
            Action::StackPush(s) | Action::StackPop(s) => note(s.field),
            Action::Multipath(m) => note(m.dst.field),
            Action::Bundle(b) => b.dst.iter().for_each(|d| note(d.field)),
            Action::CheckPktLarger(c) => note(c.dst.field),
            Action::Learn(l) => {
                for s in &l.specs {
                    if let LearnSource::Field(f) = &s.src {
                        note(f.field);
                    }
                    if let LearnTarget::Match(f) | LearnTarget::Load(f) = &s.dst {
                        note(f.field);
                    }
                }
                l.result.iter().for_each(|r| note(r.field));
            }
            Action::Ct(c) => {
                if let CtZone::Field(s) = &c.zone {
                    note(s.field);
                }
                of_actions(&c.actions, all);
            }
            Action::Clone(inner) => of_actions(inner, all),
            _ => {}
        }
    }
}

/// Every field that a match and actions need is mapped on this bridge, not only on another.
///
/// # Errors
/// `NXFMFC_INVALID_TLV_FIELD`.
pub(crate) fn check<'a>(
    p: &Pipeline,
    mask: Option<&PipelineMask>,
    actions: impl IntoIterator<Item = &'a Action>,
) -> Result<(), ErrorCode> {
    let mut all = mask.map_or(0, |m| if options::any(m) { of_mask(m) } else { 0 });
    of_actions(actions, &mut all);
    let ours = p.options.keys().fold(0u64, |all, n| all | 1 << n);
    if all & !ours == 0 { Ok(()) } else { Err(Nicira::InvalidTlvField.into()) }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.pipeline().options.values().copied().for_each(options::unmap);
    }
}
