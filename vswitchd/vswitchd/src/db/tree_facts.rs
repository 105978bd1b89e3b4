//! What bridges and ports are in a spanning tree: columns `status` and `rstp_status` of tables Bridge and Port, and `statistics` and
//! `rstp_statistics` of table Port (ovs-vswitchd.conf.db(5)).

use ofproto::trees::{TreePortStatus, TreeStatus};
use ovsdb::client::{Row, Snapshot, Transaction};
use spanning::BridgeId;

use super::facts::{map, number};
use super::wanted::string;

/// A bridge as columns of the rapid protocol have it: the first digit of its priority, the others, and its address.
fn rapid_id(id: BridgeId) -> String {
    let (priority, address) = (id.priority(), id.0 & 0xffff_ffff_ffff);
    format!("{:x}.{:03x}.{address:012x}", priority >> 12, priority & 0xfff)
}

type Pairs = Vec<(&'static str, String)>;

fn of_bridge(s: &TreeStatus) -> Pairs {
    if !s.rapid {
        return vec![
            ("stp_bridge_id", s.bridge.to_string()),
            ("stp_designated_root", s.root.to_string()),
            ("stp_root_path_cost", s.root_path_cost.to_string()),
        ];
    }
    let way = s.root_port.as_ref().and_then(|name| s.ports.get(name));
    let designated = way.and_then(|p| p.rapid).map(|(_, d)| d);
    vec![
        ("rstp_bridge_id", rapid_id(s.bridge)),
        ("rstp_root_id", rapid_id(s.root)),
        ("rstp_root_path_cost", s.root_path_cost.to_string()),
        ("rstp_designated_id", rapid_id(designated.map_or(s.bridge, |(bridge, ..)| bridge))),
        ("rstp_designated_port_id", format!("{:04x}", designated.map_or(0, |(_, port, _)| port))),
        ("rstp_bridge_port_id", format!("{:04x}", way.map_or(0, |p| p.id))),
    ]
}

fn of_port(p: &TreePortStatus) -> Pairs {
    let Some((_, (bridge, port, cost))) = p.rapid else {
        return vec![
            ("stp_port_id", p.id.to_string()),
            ("stp_state", p.state.to_owned()),
            ("stp_sec_in_state", p.seconds.to_string()),
            ("stp_role", p.role.to_owned()),
        ];
    };
    vec![
        ("rstp_port_id", format!("{:04x}", p.id)),
        ("rstp_port_role", p.role.to_owned()),
        ("rstp_port_state", p.state.to_owned()),
        ("rstp_designated_bridge_id", rapid_id(bridge)),
        ("rstp_designated_port_id", format!("{port:04x}")),
        ("rstp_designated_path_cost", cost.to_string()),
    ]
}

fn counted(p: &TreePortStatus) -> Vec<(&'static str, u64)> {
    let c = p.counts;
    match p.rapid {
        None => {
            vec![("stp_tx_count", c.sent), ("stp_rx_count", c.received), ("stp_error_count", c.errors)]
        }
        Some((up, _)) => vec![
            ("rstp_tx_count", c.sent),
            ("rstp_rx_count", c.received),
            ("rstp_error_count", c.errors),
            ("rstp_uptime", up),
        ],
    }
}

/// Columns of the one protocol and the other: how it is, and what it has counted.
const COLUMNS: [(bool, &str, &str); 2] =
    [(false, "status", "statistics"), (true, "rstp_status", "rstp_statistics")];

/// Tells of a bridge and its ports. Numbers that change all the time are told with `statistics`.
pub(super) fn tell(
    db: &Snapshot,
    bridge: Row<'_>,
    status: Option<&TreeStatus>,
    statistics: bool,
    t: &mut Transaction,
) {
    let texts = |pairs: &Pairs| map(pairs.iter().map(|(k, v)| (*k, v.as_str().into())));
    for (rapid, column, counts) in COLUMNS {
        let status = status.filter(|s| s.rapid == rapid);
        t.set("Bridge", bridge.uuid(), column, texts(&status.map(of_bridge).unwrap_or_default()));
        for p in db.referred(bridge, "ports", "Port").filter(|_| statistics) {
            match status.and_then(|s| s.ports.get(string(p, "name")?)) {
                Some(s) => {
                    t.set("Port", p.uuid(), column, texts(&of_port(s)));
                    t.set("Port", p.uuid(), counts, map(counted(s).into_iter().map(|(k, n)| (k, number(n)))));
                }
                None if !p.datum(column).is_empty() => {
                    t.set("Port", p.uuid(), column, map([]));
                    t.set("Port", p.uuid(), counts, map([]));
                }
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rapid_bridge_has_its_priority_in_two_parts() {
        let id = BridgeId::new(0x8001, [0xaa, 0x66, 0xaa, 0x66, 0, 1]);
        assert_eq!(rapid_id(id), "8.001.aa66aa660001");
    }
}
