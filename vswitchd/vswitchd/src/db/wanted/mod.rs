//! What the database wants of the switch: tables Open_vSwitch, Bridge, Port, Interface and Controller as a [`Desired`]
//! (ovs-vswitchd.conf.db(5)).
//!
//! A value that makes no sense is treated as absent, as Open vSwitch does; an interface that cannot be had as it is
//! configured becomes a port with the reason in its column `error`.

mod bonds;
mod controllers;
mod exporters;
mod ports;
#[cfg(test)]
mod tests;
mod trees;
mod tunnels;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use conntrack::Timeouts;
use daemon::{Active, Passive, TlsFiles, Trust};
use flow::FieldId;
use offload_tc::TcPolicy;
use ofproto::mirror::MAX_MIRRORS;
use ofproto::settings::is_prefix_field;
use ofproto::{BridgeSettings, Snooping, TableSettings, VlanSet};
use openflow::text::parse_subfield;
use ovsdb::client::{Row, Snapshot, Wanted as Columns};
use ovsdb::{Atom, Datum};

use crate::config::{
    BridgeConfig, DeviceConfig, FailMode, LocalPort, MirrorConfig, MirrorTo, OffloadConfig, PortKind,
};
use crate::desired::{AutoBalance, Desired, FlowLimits, Forwarding, RxqAssign};
use crate::dummy::{Dummies, MTU};

pub(super) use tunnels::is_tunnel;

/// What this process may and should do beside what the database says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Host {
    /// TAP interfaces can be made.
    pub taps: bool,
    /// Which interfaces are dummies.
    pub dummies: Dummies,
    /// Interfaces of the host are not touched.
    pub no_system: bool,
    /// Flows of interfaces of the host are placed in the kernel's TC: what the database says of it comes first.
    pub tc: bool,
    /// Sockets that the database has bridges listen on are in the run directory, with the bridge's name: who may write to the
    /// database may not have files overwritten.
    pub confined: bool,
}

/// The wanted state, and what there was to say about it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Wanted {
    /// For the switch.
    pub desired: Desired,
    /// `next_cfg`: what the switch is to acknowledge once it is like this.
    pub next_cfg: i64,
    /// Keys and certificates; `None` leaves those of the command line.
    pub tls: Option<TlsFiles>,
    /// Rows and settings that are not implemented, each a sentence.
    pub ignored: Vec<String>,
}

/// Columns of which changes mean that the switch is to be looked at, by table.
const LOOKED_AT: &[(&str, &[&str])] = &[
    ("Open_vSwitch", &["bridges", "ssl", "next_cfg", "other_config", "datapaths", "manager_options"]),
    ("Datapath", &["ct_zones"]),
    ("CT_Zone", &["timeout_policy"]),
    ("CT_Timeout_Policy", &["timeouts"]),
    (
        "Bridge",
        &[
            "name",
            "ports",
            "controller",
            "fail_mode",
            "protocols",
            "other_config",
            "datapath_type",
            "flood_vlans",
            "mirrors",
            "netflow",
            "sflow",
            "ipfix",
            "stp_enable",
            "rstp_enable",
            "mcast_snooping_enable",
            "auto_attach",
            "flow_tables",
        ],
    ),
    (
        "Port",
        &[
            "name",
            "interfaces",
            "tag",
            "trunks",
            "cvlans",
            "vlan_mode",
            "protected",
            "qos",
            "lacp",
            "bond_mode",
            "bond_updelay",
            "bond_downdelay",
            "other_config",
        ],
    ),
    (
        "Interface",
        &[
            "name",
            "type",
            "options",
            "ofport_request",
            "mac",
            "mtu_request",
            "ingress_policing_rate",
            "ingress_policing_kpkts_rate",
            "other_config",
            "bfd",
            "cfm_mpid",
            "other_config",
            "lldp",
        ],
    ),
    (
        "Controller",
        &[
            "target",
            "max_backoff",
            "inactivity_probe",
            "connection_mode",
            "enable_async_messages",
            "controller_queue_size",
            "controller_rate_limit",
            "controller_burst_limit",
        ],
    ),
    ("Manager", &["target", "connection_mode"]),
    ("AutoAttach", &["system_name", "system_description", "mappings"]),
    ("QoS", &["type", "queues"]),
    ("sFlow", &["targets", "sampling", "polling", "header", "agent"]),
    (
        "IPFIX",
        &[
            "targets",
            "sampling",
            "obs_domain_id",
            "obs_point_id",
            "cache_active_timeout",
            "cache_max_flows",
            "other_config",
        ],
    ),
    ("Flow_Sample_Collector_Set", &["id", "bridge", "ipfix"]),
    ("NetFlow", &["targets", "engine_type", "engine_id", "active_timeout", "add_id_to_interface"]),
    ("Queue", &["dscp", "other_config"]),
    ("Flow_Table", &["name", "flow_limit", "overflow_policy", "groups", "prefixes"]),
    (
        "Mirror",
        &[
            "name",
            "select_all",
            "select_src_port",
            "select_dst_port",
            "select_vlan",
            "output_port",
            "output_vlan",
            "snaplen",
        ],
    ),
    ("SSL", &["private_key", "certificate", "ca_cert", "bootstrap_ca_cert"]),
];

/// What the replica of the database holds: [`LOOKED_AT`], and `written` by the switch itself.
pub fn columns(written: &[(&str, &[&str])]) -> Columns {
    let looked_at = LOOKED_AT.iter().fold(Columns::new(), |w, (table, columns)| w.table(table, columns));
    written.iter().fold(looked_at, |w, (table, columns)| w.quiet(table, columns))
}

/// A string column, optional or not; `None` when it is empty.
pub(super) fn string<'a>(row: Row<'a>, column: &str) -> Option<&'a str> {
    row.text(column).filter(|s| !s.is_empty())
}

fn is_set(row: Row<'_>, column: &str) -> bool {
    row.boolean(column).unwrap_or(false)
}

/// The state that the rows want; `None` while there is no row of Open_vSwitch.
pub fn wanted(db: &Snapshot, host: Host) -> Option<Wanted> {
    let root = db.rows("Open_vSwitch").next()?;
    let mut w = Wanted { next_cfg: root.integer("next_cfg").unwrap_or(0), ..Wanted::default() };
    w.desired.offload = OffloadConfig {
        // On unless switched off: it is what this switch is for.
        enabled: root.key("other_config", "hw-offload") != Some("false"),
        min_pps: root.key("other_config", "hoist-min-pps").and_then(|v| v.parse().ok()).unwrap_or(0),
        // The kernel's interfaces only when it is asked for: it takes them from the host's stack.
        tc: (root.key("other_config", "hw-offload") == Some("true"))
            .then(|| root.key("other_config", "tc-policy").and_then(TcPolicy::by_name).unwrap_or_default()),
    };
    w.desired.forwarding = forwarding(root, &mut w.ignored);
    w.desired.ct_timeouts = ct_timeouts(db, root);
    w.desired.flows = flow_limits(root);
    w.desired.may_halt = root.key("other_config", "hoist-keep-awake") == Some("false");
    let host = Host { tc: w.desired.offload.tc.is_some(), ..host };
    w.tls = db.referred(root, "ssl", "SSL").next().map(tls);
    let mut devices = BTreeMap::new();
    let mut bridges: Vec<_> = db.referred(root, "bridges", "Bridge").collect();
    bridges.sort_by_key(|b| string(*b, "name"));
    let seconds = root.key("other_config", "bundle-idle-timeout").and_then(|v| v.parse().ok());
    let bundle_idle = seconds.filter(|n| *n > 0).map(|n: u32| Duration::from_secs(n.into()));
    // As controllers expect it that know no more than one tag; 0 or less is no limit (ovs-vswitchd.conf.db(5)).
    let limit = root.key("other_config", "vlan-limit").and_then(|v| v.parse::<i64>().ok());
    let one_tag = limit.unwrap_or(1) == 1;
    let mut sub_id = 0;
    for row in bridges {
        if let Some(b) = bridge(db, row, host, &mut devices, &mut w.ignored) {
            let mut b = BridgeConfig { bundle_idle, ..b };
            b.settings.one_tag = one_tag;
            b.settings.sflow = exporters::sflow(db, row, sub_id);
            sub_id += u32::from(b.settings.sflow.is_some());
            w.desired.bridges.push(b);
        }
    }
    w.desired.devices = devices.into_values().collect();
    Some(w)
}

/// Forwarding threads and how receive queues are given to them.
fn forwarding(root: Row<'_>, ignored: &mut Vec<String>) -> Forwarding {
    let other = |k: &str| root.key("other_config", k);
    let assign = match other("pmd-rxq-assign") {
        None | Some("cycles") => RxqAssign::Cycles,
        Some("roundrobin") => RxqAssign::RoundRobin,
        Some("group") => RxqAssign::Group,
        Some(what) => {
            ignored.push(format!(
                "Unsupported rx queue to PMD assignment mode in pmd-rxq-assign, defaulting to 'cycles'. ({what})"
            ));
            RxqAssign::Cycles
        }
    };
    let processors = other("pmd-cpu-mask").and_then(|m| match processors(m) {
        Some(p) => Some(p),
        None => {
            ignored.push(format!("pmd-cpu-mask \"{m}\" is no mask of processors"));
            None
        }
    });
    let number = |k: &str, usual: u32, least: u32, most: u32| {
        let n = other(k).and_then(|n| n.parse::<u32>().ok());
        n.filter(|n| (least..=most).contains(n)).unwrap_or(usual)
    };
    let usual = AutoBalance::default();
    let balance = AutoBalance {
        enabled: other("pmd-auto-lb") == Some("true"),
        every: Duration::from_secs(60 * u64::from(number("pmd-auto-lb-rebal-interval", 1, 1, 20_000))),
        improvement_percent: number("pmd-auto-lb-improvement-threshold", usual.improvement_percent, 0, 100),
        load_percent: number("pmd-auto-lb-load-threshold", usual.load_percent, 0, 100),
    };
    let mut isolate = other("pmd-rxq-isolate") != Some("false");
    if !isolate && assign != RxqAssign::Group {
        ignored.push("pmd-rxq-isolate can only be set false when using pmd-rxq-assign=group".to_owned());
        isolate = true;
    }
    Forwarding { processors, assign, isolate, balance: Some(balance) }
}

/// `other_config:flow-limit` and `max-idle`, this in milliseconds.
fn flow_limits(root: Row<'_>) -> FlowLimits {
    let usual = FlowLimits::default();
    let number = |k: &str| root.key("other_config", k).and_then(|n| n.parse::<u32>().ok());
    FlowLimits {
        most: number("flow-limit").map_or(usual.most, |n| n as usize),
        max_idle: number("max-idle")
            .map_or(usual.max_idle, |ms| Duration::from_millis(u64::from(ms).max(LEAST_IDLE_MS))),
    }
}

/// Least of `max-idle`, as ovs-vswitchd.conf.db(5) has it.
const LEAST_IDLE_MS: u64 = 500;

/// The timeout policies of zones, of whatever type of datapath: there is one of ours.
fn ct_timeouts(db: &Snapshot, root: Row<'_>) -> BTreeMap<u16, Timeouts> {
    let mut all = BTreeMap::new();
    for dp in root.datum("datapaths").pairs().iter().filter_map(|(_, id)| db.row("Datapath", id.as_uuid()?)) {
        for (zone, id) in dp.datum("ct_zones").pairs() {
            let number = zone.as_integer().and_then(|z| u16::try_from(z).ok());
            let row = id.as_uuid().and_then(|id| db.row("CT_Zone", id));
            let (Some(number), Some(row)) = (number, row) else { continue };
            let Some(policy) = db.referred(row, "timeout_policy", "CT_Timeout_Policy").next() else {
                continue;
            };
            let mut own = Timeouts::default();
            for (name, seconds) in policy.datum("timeouts").pairs() {
                let seconds = seconds.as_integer().and_then(|s| u32::try_from(s).ok());
                if let (Some(t), Some(s)) = (name.as_str().and_then(Timeouts::by_name), seconds) {
                    own.set(t, s);
                }
            }
            all.insert(number, own);
        }
    }
    all
}

/// The processors of a mask in hexadecimal, the last digit the first four of them.
fn processors(mask: &str) -> Option<Vec<usize>> {
    let digits = mask.strip_prefix("0x").or(mask.strip_prefix("0X")).unwrap_or(mask);
    let mut all = Vec::new();
    for (i, d) in digits.chars().rev().enumerate() {
        let d = d.to_digit(16)?;
        all.extend((0..4).filter(|b| d >> b & 1 != 0).map(|b| 4 * i + b));
    }
    (!all.is_empty()).then_some(all)
}

/// Table SSL: where keys and certificates are.
fn tls(row: Row<'_>) -> TlsFiles {
    let path = |c| string(row, c).map(PathBuf::from);
    TlsFiles {
        private_key: path("private_key"),
        certificate: path("certificate"),
        trust: match path("ca_cert") {
            Some(file) if is_set(row, "bootstrap_ca_cert") => Trust::Bootstrap(file),
            Some(file) => Trust::File(file),
            None => Trust::default(),
        },
        peer_ca: None,
    }
}

fn hex(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    (!digits.is_empty() && digits.len() <= 16)
        .then(|| u64::from_str_radix(digits, 16).ok())?
        .filter(|id| *id != 0)
}

/// An Ethernet address, unicast and not zero.
fn mac(text: &str) -> Option<[u8; 6]> {
    let mut out = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut out {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    (parts.next().is_none() && out[0] & 1 == 0 && out != [0; 6]).then_some(out)
}

fn vlans(row: Row<'_>, column: &str) -> Option<VlanSet> {
    let v: Vec<u16> = row.integers(column).filter_map(|v| u16::try_from(v).ok()).collect();
    (!v.is_empty()).then(|| VlanSet::new(v))
}

fn bridge(
    db: &Snapshot,
    row: Row<'_>,
    host: Host,
    devices: &mut BTreeMap<String, DeviceConfig>,
    ignored: &mut Vec<String>,
) -> Option<BridgeConfig> {
    let name = string(row, "name")?.to_owned();
    if name.contains(['/', '\\']) {
        // It is part of the names of sockets.
        ignored.push(format!("ignoring bridge with invalid name \"{name}\""));
        return None;
    }
    let other = |k: &str| row.key("other_config", k);
    let mut b = BridgeConfig {
        datapath_id: other("datapath-id").and_then(hex),
        hwaddr: other("hwaddr").and_then(mac),
        fail_mode: if string(row, "fail_mode") == Some("secure") {
            FailMode::Secure
        } else {
            FailMode::Standalone
        },
        offload: other("hoist-offload") != Some("false"),
        settings: settings(db, row, host),
        ..BridgeConfig::default()
    };
    let dummy = ports::is_dummy_datapath(string(row, "datapath_type"), host.dummies);
    b.on_kernel = !dummy && !host.no_system && string(row, "datapath_type") == Some("system");
    let on = ports::On { host, dummy, kernel: b.on_kernel };
    if b.on_kernel {
        // What the kernel's datapath can do is what a stock switch makes for it.
        (b.settings.stock_megaflows, b.settings.kernel_datapath) = (true, true);
    }
    for c in db.referred(row, "controller", "Controller") {
        let Some(target) = string(c, "target") else { continue };
        let treatment = controllers::treatment(c, other("controller-queue-size"));
        match (target.parse::<Active>(), target.parse::<Passive>()) {
            (Ok(active), _) => {
                b.treatment.insert(active.to_string(), treatment);
                b.controllers.push(active);
            }
            (_, Ok(passive)) => {
                b.treatment.insert(passive.to_string(), treatment);
                b.listen.push(passive);
            }
            (Err(e), _) => ignored.push(format!("bridge {name}: controller \"{target}\": {e}")),
        }
    }
    for p in row.texts("protocols") {
        match p.parse() {
            Ok(v) => b.protocols.push(v),
            Err(e) => ignored.push(format!("bridge {name}: protocols: {e}")),
        }
    }
    for m in db.referred(row, "mirrors", "Mirror") {
        match mirror(db, m) {
            Some(m) => b.mirrors.push(m),
            None => {
                let called = string(m, "name").map_or_else(|| m.uuid().to_text(), str::to_owned);
                ignored.push(format!("bridge {name}: mirror {called} does not specify output; ignoring"));
            }
        }
    }
    if b.mirrors.len() > MAX_MIRRORS {
        ignored.push(format!(
            "bridge {name}: {} mirrors are configured, and {MAX_MIRRORS} is the most that there can be: the others do nothing",
            b.mirrors.len()
        ));
        b.mirrors.truncate(MAX_MIRRORS);
    }
    let said = ports::auto_attach(db, row);
    b.settings.netflow = exporters::netflow(db, row, &name, ignored);
    b.settings.ipfix = exporters::ipfix(db, row);
    b.settings.flow_ipfix = exporters::collector_sets(db, row);
    bad_prefixes(db, row, &name, ignored);
    let mut ports: Vec<_> = db.referred(row, "ports", "Port").collect();
    ports.sort_by_key(|p| string(*p, "name"));
    for p in ports {
        ports::not_there(db, p, ignored);
        let settings = ports::settings(db, p);
        let interfaces: Vec<_> = db.referred(p, "interfaces", "Interface").collect();
        let bond = bonds::bond(p, interfaces.len());
        for i in interfaces {
            let Some(iface) = string(i, "name") else { continue };
            ports::interface_not_there(i, iface, ignored);
            if iface == name {
                // The bridge's own port: the host is on the bridge through it, where it may be.
                b.local = if dummy {
                    LocalPort::Dummy
                } else if b.on_kernel {
                    LocalPort::Vport
                } else if host.taps && !host.no_system {
                    LocalPort::Tap
                } else {
                    LocalPort::None
                };
                b.local_settings = ports::watched(i, settings.clone(), &said);
                // The host is at its end: there is no loop that way.
                b.local_settings.tree = None;
                b.local_settings.aggregation = bonds::aggregation(p, i, None);
                if dummy {
                    b.local_dummy = ports::dummy_options(i);
                    ports::dummy_queues(&mut b.local_settings);
                }
                b.local_mtu = ports::mtu(i);
                if string(i, "mac").is_some() {
                    ignored.push(format!(
                        "interface {iface}: ignoring mac in Interface record (use Bridge record to set local port's mac)"
                    ));
                }
                continue;
            }
            let mut settings = ports::watched(i, settings.clone(), &said);
            settings.tree = b.settings.tree.and_then(|t| trees::port(p, i, t.rapid, bond.is_some(), ignored));
            settings.aggregation = bonds::aggregation(p, i, bond.as_ref());
            b.ports.push(ports::port(i, iface, settings, on, devices));
        }
    }
    if b.local == LocalPort::Dummy && b.local_mtu.is_none() {
        // What a host sends by the bridge is to fit every port of it.
        let of_dummies = b.ports.iter().filter(|p| matches!(p.kind, PortKind::Dummy { .. }));
        b.local_mtu = of_dummies.map(|p| p.mtu.unwrap_or(MTU)).min().filter(|m| *m != MTU);
    }
    b.name = name;
    Some(b)
}

/// What OpenFlow does not know of a bridge.
fn settings(db: &Snapshot, row: Row<'_>, host: Host) -> BridgeSettings {
    let usual = BridgeSettings::default();
    let other = |k: &str| row.key("other_config", k);
    let number = |k: &str| other(k).and_then(|v| v.parse::<u64>().ok());
    BridgeSettings {
        // What tests compare. Elsewhere wider megaflows are worth more: fewer entries of hardware for the same packets.
        stock_megaflows: host.dummies != Dummies::None,
        tables: flow_tables(db, row),
        tree: trees::bridge(row),
        in_band: controllers::in_band(db, row),
        forward_bpdu: other("forward-bpdu") == Some("true"),
        flood_vlans: vlans(row, "flood_vlans"),
        mac_ageing: number("mac-aging-time").map_or(usual.mac_ageing, Duration::from_secs),
        mac_limit: number("mac-table-size")
            .map_or(usual.mac_limit, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        snooping: is_set(row, "mcast_snooping_enable").then(|| {
            let usual = Snooping::default();
            Snooping {
                flood_unregistered: other("mcast-snooping-disable-flood-unregistered") != Some("true"),
                ageing: number("mcast-snooping-aging-time")
                    .map_or(usual.ageing, |n| Duration::from_secs(n.clamp(15, 3600))),
                table_size: number("mcast-snooping-table-size")
                    .map_or(usual.table_size, |n| n.clamp(1, 1_000_000) as usize),
            }
        }),
        ..usual
    }
}

/// Says which fields of a flow table cannot have a prefix search.
fn bad_prefixes(db: &Snapshot, row: Row<'_>, name: &str, ignored: &mut Vec<String>) {
    let tables = row.datum("flow_tables").pairs().iter();
    for t in tables.filter_map(|(_, id)| db.row("Flow_Table", id.as_uuid()?)) {
        let bad = |f: &&str| *f != "none" && !FieldId::by_name(f).is_some_and(is_prefix_field);
        for f in t.texts("prefixes").filter(bad) {
            ignored.push(format!("bridge {name}: 'prefixes' with incompatible field: {f}"));
        }
    }
}

/// Flow tables that are configured, by number.
fn flow_tables(db: &Snapshot, row: Row<'_>) -> BTreeMap<u8, TableSettings> {
    let Datum::Map(pairs) = row.datum("flow_tables") else { return BTreeMap::new() };
    let pairs = pairs.iter().filter_map(|(number, table)| match (number, table) {
        (Atom::Integer(n), Atom::Uuid(u)) => Some((u8::try_from(*n).ok()?, db.row("Flow_Table", *u)?)),
        _ => None,
    });
    let table = |t: Row<'_>| TableSettings {
        name: t.text("name").unwrap_or_default().to_owned(),
        flow_limit: t.integer("flow_limit").and_then(|n| usize::try_from(n).ok()),
        evict: t.text("overflow_policy") == Some("evict"),
        // What is no field is as if it were not there.
        groups: t.texts("groups").filter_map(|g| parse_subfield(g).ok()).collect(),
        // None at all is as usual; `none` is none.
        prefixes: (!t.datum("prefixes").is_empty()).then(|| {
            t.texts("prefixes").filter_map(FieldId::by_name).filter(|f| is_prefix_field(*f)).collect()
        }),
    };
    pairs.map(|(n, t)| (n, table(t))).collect()
}

/// A mirror; `None` when it has no output.
fn mirror(db: &Snapshot, row: Row<'_>) -> Option<MirrorConfig> {
    // Of a bond, those of its members.
    let names = |column: &str| -> Vec<String> {
        let ports = db.referred(row, column, "Port");
        let interfaces = ports.flat_map(|p| db.referred(p, "interfaces", "Interface"));
        interfaces.filter_map(|i| string(i, "name")).map(str::to_owned).collect()
    };
    let port = names("output_port").into_iter().next().map(MirrorTo::Port);
    let vlan = || row.integer("output_vlan").and_then(|v| u16::try_from(v).ok()).map(MirrorTo::Vlan);
    Some(MirrorConfig {
        id: row.uuid().to_text(),
        select_all: is_set(row, "select_all"),
        select_src: names("select_src_port"),
        select_dst: names("select_dst_port"),
        select_vlans: vlans(row, "select_vlan"),
        output: port.or_else(vlan)?,
        snaplen: row
            .integer("snaplen")
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0 && *n < u16::MAX),
    })
}
