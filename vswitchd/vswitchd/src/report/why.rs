//! A [`Reject`] as the document that `hoist why` shows.

use daemon::report::Why;
use offload::{Layer, Reject, RejectKind};

/// The document for a reason.
pub fn why(r: &Reject) -> Why {
    Why {
        layer: layer_name(r.layer()).to_owned(),
        kind: kind_name(r.kind()),
        table: r.table().map(str::to_owned),
        field: field(r),
        action: action(r),
        text: r.to_string(),
        remedy: r.remedy(),
        transient: r.is_transient(),
    }
}

fn layer_name(l: Layer) -> &'static str {
    match l {
        Layer::Policy => "policy",
        Layer::Placement => "placement",
        Layer::Capabilities => "capabilities",
        Layer::Device => "device",
    }
}

/// The name by which a kind of reason is counted.
pub fn kind_name(k: RejectKind) -> String {
    // The enum's own serialisation, so that there is one set of names.
    serde_json::to_value(k).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn field(r: &Reject) -> Option<String> {
    match r {
        Reject::Field { field, .. }
        | Reject::Mask { field, .. }
        | Reject::FieldNeeds { field, .. }
        | Reject::FieldRequired { field, .. }
        | Reject::Value { field, .. }
        | Reject::SetMask { field, .. } => Some(field.to_string()),
        _ => None,
    }
}

fn action(r: &Reject) -> Option<String> {
    match r {
        Reject::Action { action, .. }
        | Reject::ActionNeeds { action, .. }
        | Reject::ActionOrder { action, .. }
        | Reject::TooManyOf { action, .. }
        | Reject::NotAlone { action, .. }
        | Reject::NeedsSoftware { action } => Some(action.to_string()),
        Reject::TooManyOutputs { .. }
        | Reject::RepeatedOutput { .. }
        | Reject::Hairpin { .. }
        | Reject::EgressNotOnDevice { .. } => Some("output".to_owned()),
        Reject::SetMask { field, .. } => Some(format!("set_field({field})")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use flow::{ActionKind, FieldId, PortId};

    use super::*;

    #[test]
    fn a_reason_names_layer_table_field_action_and_remedy() {
        let w = why(&Reject::Field { table: "tcam", field: FieldId::ArpOp });
        assert_eq!((w.layer.as_str(), w.kind.as_str()), ("capabilities", "field"));
        assert_eq!(w.table.as_deref(), Some("tcam"));
        assert_eq!(w.field, Some(FieldId::ArpOp.to_string()));
        assert_eq!(w.action, None);
        assert!(!w.remedy.is_empty() && !w.transient);

        let w = why(&Reject::Action { table: "tcam", action: ActionKind::PushMpls });
        assert_eq!((w.kind.as_str(), w.action.as_deref()), ("action", Some("push_mpls")));

        let w = why(&Reject::EgressNotOnDevice { port: PortId(9) });
        assert_eq!((w.layer.as_str(), w.action.as_deref()), ("capabilities", Some("output")));

        let w = why(&Reject::NotWorth { rate_pps: 1, wanted_pps: 10 });
        assert_eq!((w.layer.as_str(), w.kind.as_str(), w.transient), ("placement", "not_worth", true));
    }

    #[test]
    fn every_kind_has_a_name() {
        for k in RejectKind::ALL {
            assert!(!kind_name(k).is_empty(), "{k:?}");
        }
    }
}
