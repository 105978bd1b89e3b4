//! Capabilities for people and programs: what `hoist devices` and the support matrix are made of.
//!
//! [`OffloadCapabilities::describe`] gives a structure that serialises; masks are hexadecimal text, because JSON numbers
//! end at 2^53. [`DeviceDescription::lines`] is the same for a terminal.

use flow::ActionKind;

use crate::capability::Needs;
use crate::capability::{
    ActionCap, CounterCaps, KeyField, MaskForm, MatchKind, OffloadCapabilities, Shared, TableCaps,
};
use crate::objects::ObjectKind;

/// A device.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct DeviceDescription {
    /// Its name.
    pub device: String,
    /// Datapath ports on it.
    pub ports: Vec<u32>,
    /// Its tables.
    pub tables: Vec<TableDescription>,
    /// Names of the tables where packets start.
    pub entry: Vec<String>,
    /// Fields that may be matched on zero for free.
    pub zero_fields: Vec<&'static str>,
    /// Whether a replace is atomic.
    pub atomic_replace: bool,
    /// Whether it reports where in a chain it stopped.
    pub resume_point: bool,
    /// Shared objects: kind and number.
    pub objects: Vec<(ObjectKind, u32)>,
    /// Operations that may be outstanding.
    pub queue_depth: usize,
}

/// A table.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[allow(missing_docs)]
pub struct TableDescription {
    pub name: &'static str,
    /// How it matches.
    pub kind: MatchKind,
    pub entries: usize,
    pub key: Vec<FieldDescription>,
    pub actions: Vec<ActionDescription>,
    pub max_actions: usize,
    pub max_outputs: usize,
    pub repeated_outputs: bool,
    pub hairpin: bool,
    pub counters: CounterCaps,
    pub insert_ns: u64,
    /// Names of the tables after it.
    pub next: Vec<String>,
    pub tag_bits: u8,
}

/// A key field.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct FieldDescription {
    /// Its name in flow syntax.
    pub field: &'static str,
    /// Bits that can be matched; none when all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
    /// Which masks.
    pub form: MaskForm,
    /// Whether every rule must match on it.
    pub required: bool,
    /// The only values, when not all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// What must be matched besides: field and values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<(&'static str, Vec<String>)>,
}

/// An action.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct ActionDescription {
    /// Its name.
    pub action: String,
    /// Whether it may come after an output.
    pub after_output: bool,
    /// How often; none when as often as there is room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u16>,
    /// Stage of a fixed-order engine; none when anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<u8>,
    /// Of an entry's actions, how many it takes up.
    pub slots: u8,
    /// What must be matched: field and values.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<(&'static str, Vec<String>)>,
    /// Bits that a set-field can set; none when all, in any combination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits: Option<String>,
}

impl OffloadCapabilities {
    /// The description of the device.
    pub fn describe(&self) -> DeviceDescription {
        let name = |id| self.table(id).map_or_else(|| format!("{}", id.0), |t| t.name.to_owned());
        DeviceDescription {
            device: self.device.clone(),
            ports: self.ports.iter().map(|p| p.0).collect(),
            tables: self
                .tables
                .iter()
                .map(|t| TableDescription { next: t.next.iter().map(|n| name(*n)).collect(), ..table(t) })
                .collect(),
            entry: self.entry.iter().map(|e| name(*e)).collect(),
            zero_fields: self.zero_fields.iter().map(|f| f.info().name).collect(),
            atomic_replace: self.atomic_replace,
            resume_point: self.resume_point,
            objects: self.objects.clone(),
            queue_depth: self.queue_depth,
        }
    }
}

fn table(t: &TableCaps) -> TableDescription {
    TableDescription {
        name: t.name,
        kind: t.kind,
        entries: t.entries,
        key: t.key.iter().map(field).collect(),
        actions: t.actions.iter().map(action).collect(),
        max_actions: t.max_actions,
        max_outputs: t.max_outputs,
        repeated_outputs: t.repeated_outputs,
        hairpin: t.hairpin,
        counters: t.counters,
        insert_ns: t.insert_ns,
        next: Vec::new(),
        tag_bits: t.tag_bits,
    }
}

fn field(k: &KeyField) -> FieldDescription {
    FieldDescription {
        field: k.field.info().name,
        mask: (k.mask != k.field.info().max()).then(|| format!("{:#x}", k.mask)),
        form: k.form,
        required: k.required,
        values: k.values.iter().map(|v| format!("{v:#x}")).collect(),
        needs: needs(k.needs),
    }
}

fn action(a: &ActionCap) -> ActionDescription {
    let bits = match a.kind {
        ActionKind::SetField(f) if a.form == MaskForm::Whole => {
            Some(format!("all of {:#x}", a.bits & f.info().max()))
        }
        ActionKind::SetField(f) if a.bits != f.info().max() => Some(format!("{:#x}", a.bits)),
        _ => None,
    };
    ActionDescription {
        action: a.kind.to_string(),
        after_output: a.after_output,
        max: (a.max != u16::MAX).then_some(a.max),
        stage: (a.stage != 0).then_some(a.stage),
        slots: a.slots,
        needs: needs(a.needs),
        bits,
    }
}

fn needs(n: Needs) -> Vec<(&'static str, Vec<String>)> {
    let text = |v: &&[u128]| v.iter().map(|v| format!("{v:#x}")).collect();
    n.iter().map(|(f, v)| (f.info().name, text(v))).collect()
}

fn needs_text(n: &[(&'static str, Vec<String>)]) -> String {
    n.iter().map(|(f, v)| format!("[{f}={}]", v.join("|"))).collect()
}

impl DeviceDescription {
    /// The description as lines for a terminal.
    pub fn lines(&self) -> Vec<String> {
        let yes = |b: bool| if b { "yes" } else { "no" };
        let list = |v: &[u32]| v.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        let mut out = vec![
            format!("{}: ports {}", self.device, list(&self.ports)),
            format!(
                "  starts in {}, {} operations at a time, atomic replace: {}, resume point: {}",
                self.entry.join(" "),
                self.queue_depth,
                yes(self.atomic_replace),
                yes(self.resume_point)
            ),
        ];
        for (kind, n) in &self.objects {
            out.push(format!("  {n} {kind}s"));
        }
        for t in &self.tables {
            out.extend(t.lines().into_iter().map(|l| format!("  {l}")));
        }
        out
    }
}

impl TableDescription {
    fn lines(&self) -> Vec<String> {
        let kind = match self.kind {
            MatchKind::Exact { masks: 1 } => "exact, one mask".to_owned(),
            MatchKind::Exact { masks } => format!("exact, {masks} masks"),
            MatchKind::Ternary => "ternary".to_owned(),
            MatchKind::Lpm => "longest prefix".to_owned(),
            MatchKind::Shared(Shared::Stations) => "shared, stations of VLANs".to_owned(),
            MatchKind::Shared(Shared::Routes) => "shared, routes".to_owned(),
        };
        let key: Vec<_> = self.key.iter().map(FieldDescription::text).collect();
        let actions: Vec<_> = self.actions.iter().map(ActionDescription::text).collect();
        let mut out = vec![
            format!(
                "table {} ({kind}): {} entries, {} ns to insert",
                self.name, self.entries, self.insert_ns
            ),
            format!("  matches {}", key.join(" ")),
            format!(
                "  does {} (at most {} actions, {} outputs)",
                actions.join(" "),
                self.max_actions,
                self.max_outputs
            ),
            format!(
                "  counts {}-bit packets, {}-bit bytes",
                self.counters.packet_bits, self.counters.byte_bits
            ),
        ];
        if !self.next.is_empty() {
            out.push(format!("  continues in {}", self.next.join(" ")));
        }
        out
    }
}

impl FieldDescription {
    fn text(&self) -> String {
        let form = match self.form {
            MaskForm::Whole => "",
            MaskForm::Prefix => "/prefix",
            MaskForm::Any => "/any",
            MaskForm::OneOf(_) => "/parts",
        };
        let mask = self.mask.as_ref().map_or_else(String::new, |m| format!("&{m}"));
        let values =
            if self.values.is_empty() { String::new() } else { format!("={}", self.values.join("|")) };
        let required = if self.required { "!" } else { "" };
        format!("{}{mask}{form}{values}{required}{}", self.field, needs_text(&self.needs))
    }
}

impl ActionDescription {
    fn text(&self) -> String {
        let mut s = self.action.clone();
        if !self.after_output {
            s.push_str("(before output)");
        }
        if let Some(n) = self.max {
            s.push_str(&format!("(max {n})"));
        }
        if let Some(b) = &self.bits {
            s.push_str(&format!("({b})"));
        }
        s.push_str(&needs_text(&self.needs));
        s
    }
}

#[cfg(test)]
mod tests {
    use flow::FieldId;

    use super::*;
    use crate::memory::test_capabilities;

    #[test]
    fn a_description_names_tables_fields_and_actions() {
        let mut c = test_capabilities(16, 8);
        c.tables[0].next = vec![crate::memory::TERNARY_TABLE];
        c.tables[1].key = vec![
            KeyField::whole(FieldId::EthType).required().only(&[0x800]),
            KeyField::prefix(FieldId::NwDst).bits(0xffff_0000).needing(&[(FieldId::EthType, &[0x800])]),
        ];
        let text = c.describe().lines().join("\n");
        for part in [
            "memory: ports 1 2 3 4",
            "table exact (exact, 4 masks): 16 entries",
            "continues in tcam",
            "matches dl_type=0x800! nw_dst&0xffff0000/prefix[dl_type=0x800]",
            "pop_vlan(before output)(max 2)",
            "32-bit packets",
            "8 meters",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let json = serde_json::to_value(c.describe()).expect("serialises");
        assert_eq!(json["tables"][1]["key"][1]["mask"], "0xffff0000");
        assert_eq!(json["tables"][0]["kind"]["exact"]["masks"], 4);
        assert_eq!(json["objects"][0][0], "meter");
    }
}
