//! What people read in the database of how the switch is: columns of Interface, Bridge, Controller and Open_vSwitch
//! (ovs-vswitchd.conf.db(5)), gathered from the running switch.
//!
//! An interface that is as it was told last costs a comparison and no value of a column: there may be many thousands of
//! them, looked at each second. [`Told`] is what was told; it is forgotten when a commit fails, and everything is told again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clock::{Clock as _, Instant};
use datapath_api::{Datapath as _, PortStats};
use device::LinkState;
use ofproto::MemberStatus;
use ofproto::watch::LinkStatus;
use openflow::PortNo;
use openflow::message::Role;
use ovsdb::client::{Row, Snapshot, Transaction};
use ovsdb::{Atom, Datum, Uuid};

use super::tree_facts;
use super::wanted::is_tunnel;
use super::wanted::string;
use crate::config::{PortKind, is_of_reserved_name};
use crate::controller::{LANES, LaneCounts, TargetState};
use crate::report::Parts;

/// Columns that the switch writes and compares with what the database has. Statistics are not among them: they would come back
/// with every update.
pub const WRITTEN: &[(&str, &[&str])] = &[
    (
        "Open_vSwitch",
        &[
            "cur_cfg",
            "datapaths",
            "ovs_version",
            "db_version",
            "datapath_types",
            "iface_types",
            "dpdk_initialized",
            "dpdk_version",
            "system_type",
            "system_version",
        ],
    ),
    ("Bridge", &["datapath_id", "datapath_version", "status", "rstp_status"]),
    (
        "Interface",
        &[
            "ofport",
            "error",
            "admin_state",
            "link_state",
            "link_resets",
            "link_speed",
            "duplex",
            "ifindex",
            "mac_in_use",
            "mtu",
            "status",
            "bfd_status",
            "cfm_fault",
            "cfm_fault_status",
            "cfm_flap_count",
            "cfm_health",
            "cfm_remote_mpids",
            "cfm_remote_opstate",
            "lacp_current",
        ],
    ),
    ("Port", &["bond_active_slave", "status", "rstp_status"]),
    ("Controller", &["is_connected", "role", "status"]),
    ("Datapath", &["datapath_version", "capabilities"]),
];

/// Version of Open vSwitch whose database, commands and behaviour this switch has; tools and agents look for it.
const OVS_VERSION: &str = "3.1.0";

/// Types of interfaces that can be had.
const INTERFACE_TYPES: [&str; 16] = [
    "afxdp",
    "dpdk",
    "erspan",
    "geneve",
    "gre",
    "gtpu",
    "hoist",
    "internal",
    "ip6erspan",
    "ip6gre",
    "lisp",
    "patch",
    "stt",
    "system",
    "tap",
    "vxlan",
];

/// What was told of each interface and mirror.
#[derive(Default)]
pub struct Told {
    interfaces: HashMap<Uuid, State>,
    counts: HashMap<Uuid, PortStats>,
    mirrors: HashMap<Uuid, (u64, u64)>,
}

impl Told {
    /// Forgets rows that are gone.
    fn retain(&mut self, db: &Snapshot) {
        let interfaces = db.table("Interface");
        let is_there = |u: &Uuid| interfaces.is_some_and(|t| t.row(*u).is_some());
        self.interfaces.retain(|u, _| is_there(u));
        self.counts.retain(|u, _| is_there(u));
        self.mirrors.retain(|u, _| db.row("Mirror", *u).is_some());
    }
}

/// How an interface is, but for what it has counted.
#[derive(Clone, PartialEq)]
struct State {
    no: Option<PortNo>,
    error: Option<String>,
    patch: bool,
    port: Option<PortState>,
    link: LinkStatus,
    member: MemberStatus,
}

/// How what is behind an interface is.
#[derive(Clone, Copy, PartialEq)]
struct PortState {
    link: LinkState,
    link_resets: u64,
    ifindex: Option<u32>,
    mac: Option<[u8; 6]>,
    frame_bytes: Option<usize>,
    driver: &'static str,
}

fn text(s: &str) -> Datum {
    Datum::One(Atom::string(s))
}

/// A counter; columns have signed integers.
pub(super) fn number(n: u64) -> Atom {
    Atom::Integer(i64::try_from(n).unwrap_or(i64::MAX))
}

fn optional(n: Option<u64>) -> Datum {
    n.map_or(Datum::Empty, |n| Datum::One(number(n)))
}

fn set(names: &[&str]) -> Datum {
    Datum::from_atoms(names.iter().map(|n| Atom::string(n)).collect())
}

pub(super) fn map<'a>(pairs: impl IntoIterator<Item = (&'a str, Atom)>) -> Datum {
    Datum::from_pairs(pairs.into_iter().map(|(k, v)| (Atom::string(k), v)).collect())
}

fn up_or_down(up: bool) -> Datum {
    text(if up { "up" } else { "down" })
}

/// Version of what forwards.
const DATAPATH_VERSION: &str = concat!("Hoist ", env!("CARGO_PKG_VERSION"));

/// What the datapath can do, in the words of the column `capabilities`.
const CAPABILITIES: &[(&str, &str)] = &[
    ("add_mpls", "false"),
    ("check_pkt_len", "true"),
    ("clone", "true"),
    ("ct_clear", "true"),
    ("ct_eventmask", "false"),
    ("ct_flush", "false"),
    ("ct_label", "true"),
    ("ct_mark", "true"),
    ("ct_orig_tuple", "false"),
    ("ct_orig_tuple6", "false"),
    ("ct_state", "true"),
    ("ct_state_nat", "true"),
    ("ct_timeout", "false"),
    ("ct_zero_snat", "false"),
    ("ct_zone", "true"),
    ("explicit_drop_action", "false"),
    ("lb_output_action", "true"),
    ("masked_set_action", "true"),
    ("max_hash_alg", "1"),
    ("max_mpls_depth", "1"),
    ("max_vlan_headers", "2"),
    ("nd_ext", "false"),
    ("recirc", "true"),
    ("sample_nesting", "0"),
    ("tnl_push_pop", "true"),
    ("trunc", "true"),
    ("ufid", "false"),
];

/// Of these, what the kernel's datapath cannot.
const OURS_ALONE: &[&str] = &["lb_output_action", "tnl_push_pop"];

/// Rows of table Datapath, which people make; the switch says in them what its datapath can do.
fn datapaths(db: &Snapshot, root: Row<'_>, t: &mut Transaction) {
    for (kind, row) in root.datum("datapaths").pairs() {
        let Some(row) = row.as_uuid().filter(|r| db.row("Datapath", *r).is_some()) else { continue };
        let kernel = kind.as_str() == Some("system");
        t.set("Datapath", row, "datapath_version", text(DATAPATH_VERSION));
        let all = CAPABILITIES.iter().filter_map(|(k, _)| Some((*k, capability(k, kernel)?.into())));
        t.set("Datapath", row, "capabilities", map(all));
    }
}

/// What the datapath, ours or the kernel's, can do by that name; `None` when there is no such capability.
pub fn capability(name: &str, kernel: bool) -> Option<&'static str> {
    let (_, ours) = CAPABILITIES.iter().find(|(n, _)| *n == name)?;
    Some(if kernel && OURS_ALONE.contains(&name) { "false" } else { ours })
}

/// Facts that hold for as long as the process runs.
pub fn of_the_program(db: &Snapshot, t: &mut Transaction) {
    let Some(row) = db.rows("Open_vSwitch").next() else { return };
    datapaths(db, row, t);
    let mut tell = |column, value| t.set("Open_vSwitch", row.uuid(), column, value);
    tell("ovs_version", text(OVS_VERSION));
    tell("db_version", text(db.schema_version()));
    tell("datapath_types", set(&["netdev", "system"]));
    tell("iface_types", set(&INTERFACE_TYPES));
    tell("dpdk_initialized", Datum::One(false.into()));
    tell("dpdk_version", text("none"));
    // Set by scripts that start a stock switch; where nobody has, the host's own words.
    let os = os_release();
    for (column, key) in [("system_type", "ID"), ("system_version", "VERSION_ID")] {
        if string(row, column).is_none()
            && let Some(v) = os.get(key)
        {
            tell(column, text(v));
        }
    }
}

fn os_release() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pair = |l: &str| l.split_once('=').map(|(k, v)| (k.to_owned(), v.trim_matches('"').to_owned()));
    text.lines().filter_map(pair).collect()
}

/// How the interfaces are: numbers or why there is none, addresses, links; with `statistics` what they have counted.
pub fn interfaces(db: &Snapshot, parts: &Parts, told: &mut Told, statistics: bool, t: &mut Transaction) {
    told.retain(db);
    let outcomes = parts.outcomes.ports();
    let outcomes: HashMap<&str, _> = outcomes.iter().map(|o| (o.port.as_str(), o)).collect();
    let ports = parts.port_table().all();
    let ports: HashMap<&str, _> = ports.iter().map(|p| (p.name.as_str(), p)).collect();
    for row in db.rows("Interface") {
        let Some(name) = string(row, "name") else { continue };
        let outcome = outcomes.get(name);
        let port = ports.get(name);
        let state = State {
            no: outcome.and_then(|o| o.no),
            error: outcome.and_then(|o| o.error.clone()),
            link: parts.layer.link_status(name),
            member: parts.layer.member_status(name),
            patch: row.text("type").is_some_and(|t| t == "patch" || is_tunnel(t)),
            port: port.map(|p| PortState {
                link: p.link(),
                link_resets: p.link_resets(),
                ifindex: p.interface_index(),
                mac: p.mac(),
                frame_bytes: p.frame_bytes(),
                driver: driver(&p.kind),
            }),
        };
        if told.interfaces.get(&row.uuid()) != Some(&state) {
            interface(row, &state, t);
            told.interfaces.insert(row.uuid(), state);
        }
        if let Some(p) = port.filter(|_| statistics) {
            let counts = p.stats(parts.soft.port_stats(p.dp).unwrap_or_default());
            if told.counts.get(&row.uuid()) != Some(&counts) {
                t.set("Interface", row.uuid(), "statistics", counters(&counts));
                told.counts.insert(row.uuid(), counts);
            }
        }
    }
}

/// Columns of one interface.
fn interface(row: Row<'_>, s: &State, t: &mut Transaction) {
    let mut tell = |column, value| t.set("Interface", row.uuid(), column, value);
    let ofport = match s.no {
        Some(PortNo::LOCAL) => Some(65_534),
        Some(no) => Some(i64::from(no.0)),
        // It was tried.
        None => s.error.is_some().then_some(-1),
    };
    tell("ofport", ofport.map_or(Datum::Empty, |n| Datum::One(n.into())));
    let error = s.error.as_deref().filter(|e| !is_of_reserved_name(e));
    tell("error", error.map_or(Datum::Empty, text));
    tell("lacp_current", s.member.lacp_current.map_or(Datum::Empty, |c| Datum::One(c.into())));
    link_columns(&s.link).into_iter().for_each(|(column, value)| tell(column, value));
    let Some(p) = &s.port else {
        if s.no.is_some() && s.patch {
            // Nothing of the host is behind it that could be down.
            tell("admin_state", up_or_down(true));
            tell("link_state", up_or_down(true));
        }
        return;
    };
    tell("admin_state", up_or_down(p.link.admin_up));
    tell("link_state", up_or_down(p.link.link_up));
    tell("link_resets", Datum::One(number(p.link_resets)));
    tell("ifindex", optional(p.ifindex.map(u64::from)));
    tell("mac_in_use", p.mac.map_or(Datum::Empty, |m| text(&openflow::MacAddr(m).to_string())));
    // The header is not part of it.
    tell("mtu", optional(p.frame_bytes.map(|n| n.saturating_sub(14) as u64)));
    tell("status", status(row.text("name").filter(|_| p.ifindex.is_some()), p.driver));
    let speed = Some(u64::from(p.link.speed_mbps) * 1_000_000).filter(|s| *s > 0);
    tell("link_speed", optional(speed));
    tell("duplex", speed.map_or(Datum::Empty, |_| text("full")));
}

/// What those say that watch the link of an interface.
fn link_columns(s: &LinkStatus) -> [(&'static str, Datum); 7] {
    let bfd = s.bfd.as_ref().map_or_else(
        || map([]),
        |b| {
            map([
                ("forwarding", if b.forwarding { "true" } else { "false" }.into()),
                ("state", b.state.name().into()),
                ("diagnostic", b.diagnostic.words().into()),
                ("flap_count", b.flaps.to_string().as_str().into()),
                ("remote_state", b.remote_state.name().into()),
                ("remote_diagnostic", b.remote_diagnostic.words().into()),
            ])
        },
    );
    let cfm = s.cfm.as_ref();
    let one = |atom: Option<Atom>| atom.map_or(Datum::Empty, Datum::One);
    let opstate =
        cfm.and_then(|c| c.remote_operational).map(|up| Atom::string(if up { "up" } else { "down" }));
    let faults: Vec<&str> = cfm.map_or_else(Vec::new, |c| c.faults.words().collect());
    let remotes = cfm.map_or_else(Vec::new, |c| c.remotes.iter().map(|r| number(*r)).collect());
    [
        ("bfd_status", bfd),
        ("cfm_fault", one(cfm.map(|c| (!c.faults.is_empty()).into()))),
        ("cfm_fault_status", set(&faults)),
        ("cfm_flap_count", one(cfm.map(|c| number(c.flaps)))),
        ("cfm_health", one(cfm.and_then(|c| c.health).map(|h| number(h.into())))),
        ("cfm_remote_mpids", Datum::from_atoms(remotes)),
        ("cfm_remote_opstate", one(opstate)),
    ]
}

/// Column `status` of an interface: the driver of the host's interface called `name`, or `own`.
fn status(name: Option<&str>, own: &'static str) -> Datum {
    let Some(d) = name.and_then(|n| netio::Netdev::open(n).and_then(|n| n.driver()).ok()) else {
        return map([("driver_name", own.into())]);
    };
    map([
        ("driver_name", d.name.as_str().into()),
        ("driver_version", d.version.as_str().into()),
        ("firmware_version", d.firmware.as_str().into()),
    ])
}

/// Column `statistics` of an interface.
fn counters(s: &PortStats) -> Datum {
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
    // What is not known is not said.
    map(counts.into_iter().filter(|(_, n)| *n != u64::MAX).map(|(name, n)| (name, number(n))))
}

fn driver(kind: &PortKind) -> &'static str {
    match kind {
        PortKind::Sim { device, .. } if pci::parse_address(device).is_some() => pci::VFIO_PCI,
        PortKind::Sim { device, .. } if device.starts_with("ixgbe-sim:") => "ixgbe",
        PortKind::Sim { device, .. } if device.starts_with("vfio-user:") => "vfio-user",
        PortKind::Sim { .. } => "simnic",
        PortKind::AfPacket { .. } => "af_packet",
        PortKind::Tc { .. } => "tc",
        PortKind::AfXdp { .. } => "af_xdp",
        PortKind::Tap { .. } | PortKind::Internal { .. } => "tun",
        PortKind::Vport { .. } => "openvswitch",
        PortKind::Patch { .. } => "patch",
        PortKind::Tunnel { class, .. } => class,
        PortKind::Dummy { class, .. } => class.name(),
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
    let Some(s) = state else { return Vec::new() };
    let mut status = vec![("state", s.status.state.name().to_owned())];
    let seconds = |before: Duration| (before + now.since(s.at)).as_secs().to_string();
    status.extend(s.status.since_connect.map(|d| ("sec_since_connect", seconds(d))));
    status.extend(s.status.since_disconnect.map(|d| ("sec_since_disconnect", seconds(d))));
    status.extend(s.status.last_error.clone().map(|e| ("last_error", e)));
    status
}

/// What became of a controller's packet-ins: the ones that flows send, and those that no flow matched.
fn packet_in_status(counts: Option<[LaneCounts; 2]>) -> Vec<(String, String)> {
    let lanes = LANES.into_iter().zip(counts.into_iter().flatten());
    lanes
        .flat_map(|(lane, c)| {
            let pairs = [
                ("backlog", c.backlog),
                ("bypassed", c.bypassed),
                ("queued", c.queued),
                ("dropped", c.dropped),
            ];
            pairs.map(|(k, n)| (format!("packet-in-{lane}-{k}"), n.to_string()))
        })
        .collect()
}

/// How bridges and their controllers are, and with `statistics` what mirrors have counted.
pub fn bridges(db: &Snapshot, parts: &Parts, told: &mut Told, statistics: bool, t: &mut Transaction) {
    let endpoints = parts.endpoints.lock().clone();
    for row in db.rows("Bridge") {
        let Some(e) = endpoints.iter().find(|e| string(row, "name") == Some(e.bridge.name())) else {
            continue;
        };
        t.set("Bridge", row.uuid(), "datapath_id", text(&format!("{:016x}", e.bridge.datapath_id())));
        t.set("Bridge", row.uuid(), "datapath_version", text(DATAPATH_VERSION));
        for p in db.referred(row, "ports", "Port").filter(|p| p.references("interfaces").nth(1).is_some()) {
            let mac = string(p, "name").and_then(|name| parts.layer.bond_active_mac(name));
            if let Some(mac) = mac {
                t.set("Port", p.uuid(), "bond_active_slave", text(&openflow::MacAddr(mac).to_string()));
            }
        }
        tree_facts::tell(db, row, parts.layer.tree_status(e.bridge.index()).as_ref(), statistics, t);
        for mirror in row.references("mirrors").filter(|_| statistics) {
            if let Some((packets, bytes)) = e.bridge.mirror_counts(&mirror.to_text())
                && told.mirrors.insert(mirror, (packets, bytes)) != Some((packets, bytes))
            {
                let counts = map([("tx_packets", number(packets)), ("tx_bytes", number(bytes))]);
                t.set("Mirror", mirror, "statistics", counts);
            }
        }
        let (targets, roles) = (e.hub.targets(), e.hub.connections());
        for c in db.referred(row, "controller", "Controller") {
            let Some(target) = string(c, "target").and_then(|t| t.parse().ok()) else { continue };
            let name = e.target(&target).to_string();
            let state = targets.get(&name);
            let role = roles.iter().find(|(n, _, _)| *n == name).map(|(_, _, r)| *r);
            let mut tell = |column, value| t.set("Controller", c.uuid(), column, value);
            tell("is_connected", Datum::One(state.is_some_and(|s| s.connected).into()));
            tell("role", role.map_or(Datum::Empty, |r| text(role_name(r))));
            // Its seconds change all the time.
            if statistics {
                let status = controller_status(state, parts.clock.now());
                let status = status.into_iter().map(|(k, v)| (k.to_owned(), v));
                // Where packet-ins have a rate the row says what became of them.
                let limited = c.integer("controller_rate_limit").is_some_and(|n| n > 0);
                let counts = e.hub.packet_in_counts(&name).filter(|_| limited);
                let status: Vec<(String, String)> = status.chain(packet_in_status(counts)).collect();
                tell("status", map(status.iter().map(|(k, v)| (k.as_str(), v.as_str().into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use daemon::reconnect::{self, Reconnect};

    use super::*;

    #[test]
    fn a_controllers_status_tells_since_when() {
        let at = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        let text = |s: Option<&TargetState>| {
            let pairs = controller_status(s, at(60)).into_iter();
            pairs.map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(text(None), "");
        let state = |r: &Reconnect, at| {
            let status = r.status(at);
            TargetState { connected: status.state.is_connected(), status, at }
        };
        let mut r = Reconnect::new("br0<->tcp:c", reconnect::Options::default(), at(0));
        r.enable(at(0));
        assert_eq!(text(Some(&state(&r, at(40)))), "state=BACKOFF");
        r.connecting(at(47));
        r.connected(at(48));
        assert_eq!(text(Some(&state(&r, at(50)))), "state=ACTIVE sec_since_connect=12");
        r.disconnected(at(57), Some("Connection reset by peer"));
        let words =
            "state=BACKOFF sec_since_connect=12 sec_since_disconnect=3 last_error=Connection reset by peer";
        assert_eq!(text(Some(&state(&r, at(57)))), words);
    }

    #[test]
    fn roles_have_the_words_of_the_column() {
        let names = [Role::Master, Role::Slave, Role::Equal].map(role_name);
        assert_eq!(names, ["master", "slave", "other"]);
    }
}
