//! What people read in the database of how the switch is: columns of Interface, Bridge, Controller and Open_vSwitch
//! (ovs-vswitchd.conf.db(5)), gathered from the running switch.

use std::collections::BTreeMap;

use clock::{Clock as _, Instant};
use openflow::message::Role;
use serde_json::{Value, json};

use super::rows::{Rows, map, set, string};
use crate::config::PortKind;
use crate::controller::TargetState;
use crate::reconcile::PortOutcome;
use crate::report::Parts;

/// Values of columns, by table, UUID and column.
pub type Facts = BTreeMap<(&'static str, String), BTreeMap<&'static str, Value>>;

/// Version of Open vSwitch whose database, commands and behaviour this switch has; tools and agents look for it.
const OVS_VERSION: &str = "3.1.0";

/// Types of interfaces that can be had.
const INTERFACE_TYPES: [&str; 6] = ["dpdk", "hoist", "internal", "patch", "system", "tap"];

/// Facts that hold for as long as the process runs.
pub fn of_the_program(rows: &Rows, db_version: &str) -> Facts {
    let mut out = Facts::new();
    let Some((uuid, row)) = rows.table("Open_vSwitch").next() else { return out };
    let mut f = BTreeMap::from([
        ("ovs_version", json!(OVS_VERSION)),
        ("db_version", json!(db_version)),
        ("datapath_types", set(["netdev", "system"])),
        ("iface_types", set(INTERFACE_TYPES)),
        ("dpdk_initialized", json!(false)),
        ("dpdk_version", json!("none")),
    ]);
    // Set by scripts that start a stock switch; where nobody has, the host's own words.
    let os = os_release();
    for (column, key) in [("system_type", "ID"), ("system_version", "VERSION_ID")] {
        if string(row, column).is_none()
            && let Some(v) = os.get(key)
        {
            f.insert(column, json!(v));
        }
    }
    out.insert(("Open_vSwitch", uuid.to_owned()), f);
    out
}

fn os_release() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pair = |l: &str| l.split_once('=').map(|(k, v)| (k.to_owned(), v.trim_matches('"').to_owned()));
    text.lines().filter_map(pair).collect()
}

/// What came of each interface: its number, or why it has none.
pub fn outcomes(rows: &Rows, outcomes: &[PortOutcome]) -> Facts {
    let by_name: BTreeMap<&str, &PortOutcome> = outcomes.iter().map(|o| (o.port.as_str(), o)).collect();
    let mut out = Facts::new();
    for (uuid, row) in rows.table("Interface") {
        let o = string(row, "name").and_then(|n| by_name.get(n));
        let no = o.and_then(|o| o.no).map(|n| if n == openflow::PortNo::LOCAL { 65_534 } else { n.0 });
        let error = o.and_then(|o| o.error.clone());
        let mut f = BTreeMap::from([
            // -1 says that it was tried.
            (
                "ofport",
                no.map_or_else(|| if error.is_some() { json!(-1) } else { set::<i64>([]) }, |n| json!(n)),
            ),
            ("error", error.map_or_else(|| set::<String>([]), Value::from)),
        ]);
        if no.is_some() && string(row, "type") == Some("patch") {
            // Nothing of the host is behind it that could be down.
            f.insert("admin_state", json!("up"));
            f.insert("link_state", json!("up"));
        }
        out.insert(("Interface", uuid.to_owned()), f);
    }
    out
}

/// How the interfaces are: addresses, links, and with `statistics` what they have counted.
pub fn interfaces(rows: &Rows, parts: &Parts, statistics: bool) -> Facts {
    use datapath_api::Datapath as _;
    let ports: BTreeMap<String, _> =
        parts.port_table().all().into_iter().map(|p| (p.name.clone(), p)).collect();
    let mut out = Facts::new();
    for (uuid, row) in rows.table("Interface") {
        let Some(p) = string(row, "name").and_then(|n| ports.get(n)) else { continue };
        let link = p.link();
        let state = |up: bool| if up { json!("up") } else { json!("down") };
        let nothing = || set::<i64>([]);
        let mut f = BTreeMap::from([
            ("admin_state", state(link.admin_up)),
            ("link_state", state(link.link_up)),
            ("link_resets", json!(p.link_resets())),
            ("ifindex", p.interface_index().map_or_else(nothing, Value::from)),
            ("mac_in_use", p.mac().map_or_else(nothing, |m| json!(openflow::MacAddr(m).to_string()))),
            ("mtu", p.frame_bytes().map_or_else(nothing, |n| json!(n.saturating_sub(14)))),
            ("status", map([("driver_name", driver(&p.kind))])),
        ]);
        if link.speed_mbps > 0 {
            f.insert("link_speed", json!(u64::from(link.speed_mbps) * 1_000_000));
            f.insert("duplex", json!("full"));
        } else {
            f.insert("link_speed", nothing());
            f.insert("duplex", nothing());
        }
        if statistics {
            let soft = parts.soft.port_stats(p.dp).unwrap_or_default();
            let s = parts.port_table().stats(p.dp, soft);
            let counts = [
                ("rx_packets", s.rx_packets),
                ("rx_bytes", s.rx_bytes),
                ("rx_dropped", s.rx_dropped),
                ("rx_errors", s.rx_errors),
                ("tx_packets", s.tx_packets),
                ("tx_bytes", s.tx_bytes),
                ("tx_dropped", s.tx_dropped),
                ("tx_errors", s.tx_errors),
            ];
            f.insert("statistics", map(counts));
        }
        out.insert(("Interface", uuid.to_owned()), f);
    }
    out
}

fn driver(kind: &PortKind) -> &'static str {
    match kind {
        PortKind::Sim { .. } => "simnic",
        PortKind::AfPacket { .. } => "af_packet",
        PortKind::Tap { .. } | PortKind::Internal { .. } => "tun",
        PortKind::Patch { .. } => "patch",
        _ => "none",
    }
}

/// A controller's role in the words of the column.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Master => "master",
        Role::Slave => "slave",
        _ => "other",
    }
}

/// Column `status` of a controller; times in seconds.
fn controller_status(state: Option<&TargetState>, now: Instant) -> Vec<(&'static str, String)> {
    let connected = state.is_some_and(|s| s.connected);
    let mut status = vec![("state", if connected { "ACTIVE" } else { "BACKOFF" }.to_owned())];
    let Some(s) = state else { return status };
    let seconds = |at: Instant| (now - at).as_secs().to_string();
    status.extend(s.connected_at.map(|at| ("sec_since_connect", seconds(at))));
    status.extend(s.disconnected_at.map(|at| ("sec_since_disconnect", seconds(at))));
    if !connected {
        status.push(("last_error", s.state.clone()));
    }
    status
}

/// How bridges and their controllers are, and with `statistics` what mirrors have counted.
pub fn bridges(rows: &Rows, parts: &Parts, statistics: bool) -> Facts {
    let mut out = Facts::new();
    let endpoints = parts.endpoints.lock().clone();
    for (uuid, row) in rows.table("Bridge") {
        let Some(e) = endpoints.iter().find(|e| string(row, "name") == Some(e.bridge.name())) else {
            continue;
        };
        let f = BTreeMap::from([
            ("datapath_id", json!(format!("{:016x}", e.bridge.datapath_id()))),
            ("datapath_version", json!(concat!("Hoist ", env!("CARGO_PKG_VERSION")))),
        ]);
        out.insert(("Bridge", uuid.to_owned()), f);
        for (uuid, _) in rows.referred(row, "mirrors", "Mirror").into_iter().filter(|_| statistics) {
            if let Some((packets, bytes)) = e.bridge.mirror_counts(uuid) {
                let counts = map([("tx_packets", packets), ("tx_bytes", bytes)]);
                out.insert(("Mirror", uuid.to_owned()), BTreeMap::from([("statistics", counts)]));
            }
        }
        let (targets, roles) = (e.hub.targets(), e.hub.connections());
        for (uuid, c) in rows.referred(row, "controller", "Controller") {
            let Some(target) = string(c, "target").and_then(|t| t.parse().ok()) else { continue };
            let name = e.target(&target).to_string();
            let state = targets.get(&name);
            let role = roles.iter().find(|(n, _, _)| *n == name).map(|(_, _, r)| *r);
            let mut f = BTreeMap::from([
                ("is_connected", json!(state.is_some_and(|s| s.connected))),
                ("role", role.map_or_else(|| set::<String>([]), |r| json!(role_name(r)))),
            ]);
            // Its seconds change all the time.
            if statistics {
                f.insert("status", map(controller_status(state, parts.clock.now())));
            }
            out.insert(("Controller", uuid.to_owned()), f);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controllers_status_tells_since_when() {
        let at = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        let text = |s: Option<&TargetState>| {
            let pairs = controller_status(s, at(60)).into_iter();
            pairs.map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(None), "state=BACKOFF");
        let mut s = TargetState {
            connected: true,
            state: "connected".into(),
            connected_at: Some(at(48)),
            disconnected_at: None,
        };
        assert_eq!(text(Some(&s)), "state=ACTIVE sec_since_connect=12");
        (s.connected, s.state, s.disconnected_at) = (false, "Connection refused".into(), Some(at(57)));
        let words = "state=BACKOFF sec_since_connect=12 sec_since_disconnect=3 last_error=Connection refused";
        assert_eq!(text(Some(&s)), words);
    }

    #[test]
    fn roles_have_the_words_of_the_column() {
        let names = [Role::Master, Role::Slave, Role::Equal].map(role_name);
        assert_eq!(names, ["master", "slave", "other"]);
    }
}
