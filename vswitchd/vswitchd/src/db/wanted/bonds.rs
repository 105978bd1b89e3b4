//! Ports of several interfaces, and link aggregation control: columns `bond_*` and `lacp` of table Port and what its `other_config`
//! says of them.

use std::time::Duration;

use bonds::{BondMode, BondSettings, LacpPort, LacpSettings};
use flow::MacAddr;
use ofproto::Aggregation;
use ovsdb::client::Row;

use super::string;

/// An address of any kind: of a system it is but a name.
fn address(text: &str) -> Option<[u8; 6]> {
    text.parse::<MacAddr>().ok().map(|a| a.0)
}

fn is_on(row: Row<'_>, key: &str) -> bool {
    row.key("other_config", key) == Some("true")
}

/// A number of `other_config`, if it is there and not 0.
fn positive(row: Row<'_>, key: &str) -> Option<u16> {
    row.key("other_config", key).and_then(|n| n.parse().ok()).filter(|n| *n > 0)
}

/// How a port of so many interfaces chooses among them; `None` when there is nothing to choose.
pub(super) fn bond(port: Row<'_>, interfaces: usize) -> Option<BondSettings> {
    if interfaces < 2 {
        return None;
    }
    let other = |k: &str| port.key("other_config", k);
    let delay = |column: &str| {
        let ms = port.integer(column).and_then(|n| u64::try_from(n).ok());
        Duration::from_millis(ms.unwrap_or(0))
    };
    let usual = BondSettings::default();
    Some(BondSettings {
        mode: string(port, "bond_mode").and_then(BondMode::by_name).unwrap_or_default(),
        up_delay: delay("bond_updelay"),
        down_delay: delay("bond_downdelay"),
        rebalance: match other("bond-rebalance-interval").and_then(|n| n.parse().ok()) {
            Some(ms) => BondSettings::rebalance_ms(ms),
            None => usual.rebalance,
        },
        primary: other("bond-primary").map(str::to_owned),
        basis: other("bond-hash-basis").and_then(|n| n.parse().ok()).unwrap_or(0),
        all_members_active: is_on(port, "all-members-active"),
        lb_output: is_on(port, "lb-output-action"),
        fallback_ab: is_on(port, "lacp-fallback-ab"),
        last_active: string(port, "bond_active_slave").and_then(address),
    })
}

/// What an interface of a port belongs to, if to anything.
pub(super) fn aggregation(
    port: Row<'_>,
    interface: Row<'_>,
    bond: Option<&BondSettings>,
) -> Option<Aggregation> {
    let lacp = match port.text("lacp") {
        Some(mode @ ("active" | "passive")) => Some(LacpSettings {
            active: mode == "active",
            system: port.key("other_config", "lacp-system-id").and_then(address),
            // A bond goes before a single port.
            priority: positive(port, "lacp-system-priority").unwrap_or(u16::MAX - u16::from(bond.is_some())),
            fast: port.key("other_config", "lacp-time").is_some_and(|t| t.eq_ignore_ascii_case("fast")),
            fallback_ab: is_on(port, "lacp-fallback-ab"),
        }),
        _ => None,
    };
    if lacp.is_none() && bond.is_none() {
        return None;
    }
    Some(Aggregation {
        name: string(port, "name")?.to_owned(),
        bond: bond.cloned(),
        lacp,
        port: LacpPort {
            id: positive(interface, "lacp-port-id").unwrap_or(0),
            priority: positive(interface, "lacp-port-priority").unwrap_or(u16::MAX),
            key: positive(interface, "lacp-aggregation-key").unwrap_or(0),
        },
    })
}
