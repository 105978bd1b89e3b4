//! Spanning trees: `stp_enable` of table Bridge, and `other_config:stp-*` of tables Bridge and Port.

use ofproto::{PortTree, Tree};
use ovsdb::client::Row;

use super::{is_set, mac, string};

/// Seconds of a key, in milliseconds.
fn seconds(row: Row<'_>, key: &str, usual_ms: u32) -> u32 {
    let s = row.key("other_config", key).and_then(|n| n.parse::<u32>().ok());
    s.map_or(usual_ms, |s| s.saturating_mul(1000))
}

/// A bridge's part in a tree, if it is to have one.
pub(super) fn bridge(row: Row<'_>) -> Option<Tree> {
    if !is_set(row, "stp_enable") {
        return None;
    }
    let usual = Tree::default();
    let other = |k: &str| row.key("other_config", k);
    Some(Tree {
        priority: other("stp-priority").and_then(|n| n.parse().ok()).unwrap_or(usual.priority),
        system: other("stp-system-id").and_then(mac),
        hello_ms: seconds(row, "stp-hello-time", usual.hello_ms),
        max_age_ms: seconds(row, "stp-max-age", usual.max_age_ms),
        forward_delay_ms: seconds(row, "stp-forward-delay", usual.forward_delay_ms),
    })
}

/// A port's part in its bridge's tree, if it is to have one. Bonds and what the host is behind have none.
pub(super) fn port(
    port: Row<'_>,
    interface: Row<'_>,
    is_bond: bool,
    ignored: &mut Vec<String>,
) -> Option<PortTree> {
    let other = |k: &str| port.key("other_config", k);
    if other("stp-enable") == Some("false") || string(interface, "type") == Some("internal") {
        return None;
    }
    let name = string(port, "name").unwrap_or_default();
    if is_bond {
        ignored.push(format!("port {name}: cannot enable STP on bonds, disabling"));
        return None;
    }
    let number = other("stp-port-num").and_then(|n| {
        let valid = n.parse::<u8>().ok().filter(|n| *n > 0);
        if valid.is_none() {
            ignored.push(format!("port {name}: invalid STP port number: {n}"));
        }
        valid
    });
    let usual = PortTree::default();
    Some(PortTree {
        number,
        priority: other("stp-port-priority").and_then(|n| n.parse().ok()).unwrap_or(usual.priority),
        path_cost: other("stp-path-cost").and_then(|n| n.parse().ok()).filter(|n| *n > 0),
    })
}
