//! Spanning trees: `stp_enable` and `rstp_enable` of table Bridge, and `other_config:stp-*` and `rstp-*` of tables Bridge and Port.

use ofproto::{PortTree, Tree};
use ovsdb::client::Row;

use super::{is_set, mac, string};

/// The value of a key of the one protocol or the other.
fn key<'a>(row: Row<'a>, rapid: bool, key: &str) -> Option<&'a str> {
    row.key("other_config", &format!("{}-{key}", if rapid { "rstp" } else { "stp" }))
}

/// A number there, if it is one.
fn number<T: std::str::FromStr>(row: Row<'_>, rapid: bool, name: &str) -> Option<T> {
    key(row, rapid, name).and_then(|n| n.parse().ok())
}

/// A bridge's part in a tree, if it is to have one. Where both protocols are asked for it is the rapid one, by which the other is
/// understood.
pub(super) fn bridge(row: Row<'_>) -> Option<Tree> {
    let rapid = is_set(row, "rstp_enable");
    if !rapid && !is_set(row, "stp_enable") {
        return None;
    }
    let usual = Tree::default();
    let ms = |name: &str, usual_ms: u32| {
        number::<u32>(row, rapid, name).map_or(usual_ms, |s| s.saturating_mul(1000))
    };
    Some(Tree {
        rapid,
        priority: number(row, rapid, "priority").unwrap_or(usual.priority),
        system: key(row, rapid, if rapid { "address" } else { "system-id" }).and_then(mac),
        // A rapid bridge has no choice (IEEE 802.1D-2004 table 17-1).
        hello_ms: if rapid { usual.hello_ms } else { ms("hello-time", usual.hello_ms) },
        max_age_ms: ms("max-age", usual.max_age_ms),
        forward_delay_ms: ms("forward-delay", usual.forward_delay_ms),
    })
}

/// A port's part in its bridge's tree, if it is to have one. Bonds and what the host is behind have none.
pub(super) fn port(
    port: Row<'_>,
    interface: Row<'_>,
    rapid: bool,
    is_bond: bool,
    ignored: &mut Vec<String>,
) -> Option<PortTree> {
    let protocol = if rapid { "RSTP" } else { "STP" };
    let other = |name: &str| key(port, rapid, name);
    if other("enable") == Some("false") || string(interface, "type") == Some("internal") {
        return None;
    }
    let name = string(port, "name").unwrap_or_default();
    if is_bond {
        ignored.push(format!("port {name}: cannot enable {protocol} on bonds, disabling"));
        return None;
    }
    let own_number = other("port-num").and_then(|n| {
        let valid = n.parse::<u8>().ok().filter(|n| *n > 0);
        if valid.is_none() {
            ignored.push(format!("port {name}: invalid {protocol} port number: {n}"));
        }
        valid
    });
    let usual = PortTree::default();
    Some(PortTree {
        number: own_number,
        priority: number(port, rapid, "port-priority").unwrap_or(usual.priority),
        path_cost: number(port, rapid, "path-cost").filter(|n| *n > 0),
        admin_edge: other("port-admin-edge") == Some("true"),
        auto_edge: other("port-auto-edge") != Some("false"),
        // 0 says that others may be there too; whether a link is of full duplex is not known, and all are these days.
        point_to_point: other("admin-p2p-mac") != Some("0"),
        mcheck: other("port-mcheck") == Some("true"),
    })
}
