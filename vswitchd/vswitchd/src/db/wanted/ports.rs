//! Ports and interfaces: VLAN settings, and what is behind a port by the interface's type and options.

use std::collections::BTreeMap;
use std::path::PathBuf;

use links::LldpSettings;
use netio::af_xdp::XdpMode;
use ofproto::{PortSettings, PriorityTags, QueueSettings, VlanMode};
use ovsdb::Atom;
use ovsdb::client::{Row, Snapshot};

use super::{Host, is_set, mac, string, tunnels, vlans};
use crate::config::{
    DeviceConfig, DeviceKind, MAX_OFPORT, PortConfig, PortKind, RxQueues, Wire, reserved_name,
};
use crate::dummy::{Dummies, DummyClass, DummyOptions};

/// Ports of a simulated device.
const SIM_PORTS: usize = 4;

/// What the names of ports begin with that datapaths have of their own.
const RESERVED: [&str; 7] =
    ["ovs-netdev", "ovs-dummy", "ovs-system", "genev_sys", "gre_sys", "lisp_sys", "vxlan_sys"];

/// What an interface is on.
#[derive(Clone, Copy)]
pub(super) struct On {
    pub host: Host,
    /// The bridge's datapath is a dummy.
    pub dummy: bool,
    /// The bridge's datapath is the kernel's.
    pub kernel: bool,
}

/// The port of an interface.
pub(super) fn port(
    row: Row<'_>,
    name: &str,
    settings: PortSettings,
    on: On,
    devices: &mut BTreeMap<String, DeviceConfig>,
) -> PortConfig {
    let kind = interface(row, name, on, devices);
    let mut settings = settings;
    if matches!(kind, PortKind::Dummy { .. }) {
        dummy_queues(&mut settings);
    }
    let ofport = row.integer("ofport_request").and_then(|n| u32::try_from(n).ok());
    PortConfig {
        ofport: ofport.filter(|n| (1..=MAX_OFPORT).contains(n)),
        mtu: mtu(row),
        // Of the host's interfaces the host decides.
        mac: string(row, "type").filter(|t| *t == "internal").and_then(|_| mac(string(row, "mac")?)),
        settings,
        rx: rx_queues(row),
        ..PortConfig::new(name, kind)
    }
}

/// `options:n_rxq` and `other_config:pmd-rxq-affinity`, `QUEUE:CORE` separated by commas.
fn rx_queues(row: Row<'_>) -> RxQueues {
    let count = row.key("options", "n_rxq").and_then(|n| n.parse().ok()).filter(|n| *n > 0);
    let pairs = row.key("other_config", "pmd-rxq-affinity").unwrap_or_default();
    let pair = |p: &str| {
        let (queue, core) = p.split_once(':')?;
        Some((queue.trim().parse().ok()?, core.trim().parse().ok()?))
    };
    RxQueues { count, affinity: pairs.split(',').filter_map(pair).collect() }
}

/// Whether the datapath of a bridge with that `datapath_type` is a dummy.
pub(super) fn is_dummy_datapath(datapath_type: Option<&str>, dummies: Dummies) -> bool {
    match (dummies, datapath_type.unwrap_or_default()) {
        (Dummies::None, _) => false,
        (_, "dummy") | (Dummies::Override, _) | (Dummies::System, "" | "system") => true,
        _ => false,
    }
}

/// The MTU that an interface is to have.
pub(super) fn mtu(row: Row<'_>) -> Option<u32> {
    row.integer("mtu_request").and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0)
}

/// Says what of a port's configuration is not implemented.
pub(super) fn not_there(db: &Snapshot, row: Row<'_>, ignored: &mut Vec<String>) {
    let name = string(row, "name").unwrap_or_default();
    if let Some(kind) = db.referred(row, "qos", "QoS").next().and_then(|q| q.text("type"))
        && !matches!(kind, "" | "linux-noop")
        // What is sent by a dummy goes nowhere: there is nothing to shape.
        && !db.referred(row, "interfaces", "Interface").all(|i| string(i, "type") == Some("dummy"))
    {
        let what = "queues mark packets, but nothing shapes traffic";
        ignored.push(format!("port {name}: QoS type {kind} is not implemented: {what}"));
    }
}

/// Says what of an interface's configuration is not implemented.
pub(super) fn interface_not_there(row: Row<'_>, name: &str, ignored: &mut Vec<String>) {
    let rates = ["ingress_policing_rate", "ingress_policing_kpkts_rate"];
    if rates.iter().any(|c| row.integer(c).is_some_and(|n| n > 0)) {
        ignored.push(format!("interface {name}: ingress policing is not implemented"));
    }
}

/// An interface that cannot be had, in the words that stock tools show.
fn wrong(name: &str, why: &str) -> PortKind {
    PortKind::Wrong { why: format!("could not open network device {name} ({why})") }
}

fn interface(row: Row<'_>, name: &str, on: On, devices: &mut BTreeMap<String, DeviceConfig>) -> PortKind {
    let On { host, dummy, kernel } = on;
    if RESERVED.iter().any(|r| name.starts_with(r)) {
        return PortKind::Wrong { why: reserved_name(name) };
    }
    let interface = name.to_owned();
    let kind = string(row, "type").unwrap_or("system");
    let class = match (kind, host.dummies) {
        (_, Dummies::None) => None,
        ("dummy", _) => Some(DummyClass::Plain),
        ("dummy-pmd", _) => Some(DummyClass::Pmd),
        ("dummy-internal", _) => Some(DummyClass::Internal),
        ("internal", _) if dummy => Some(DummyClass::Internal),
        ("system", Dummies::System | Dummies::Override) => Some(DummyClass::Instead("system")),
        ("internal", Dummies::Override) => Some(DummyClass::Instead("internal")),
        ("tap", Dummies::Override) => Some(DummyClass::Instead("tap")),
        _ => None,
    };
    if let Some(class) = class {
        return PortKind::Dummy { class, options: dummy_options(row) };
    }
    match kind {
        "system" if kernel => PortKind::Vport { interface, internal: false },
        "internal" if kernel => PortKind::Vport { interface, internal: true },
        "afxdp" | "dpdk" | "hoist" | "tap" if kernel => PortKind::Wrong {
            why: format!("{name}: ports of type {kind} cannot be on the kernel's datapath"),
        },
        "system" if host.no_system => wrong(name, "Address family not supported by protocol"),
        "system" if host.tc => PortKind::Tc { interface },
        "system" => PortKind::AfPacket { interface },
        "internal" if !host.taps || host.no_system => PortKind::Null,
        "internal" => PortKind::Internal { interface },
        "afxdp" if host.no_system => wrong(name, "Address family not supported by protocol"),
        "afxdp" => match row.key("options", "xdp-mode").map_or(Some(XdpMode::default()), XdpMode::by_name) {
            Some(mode) => PortKind::AfXdp { interface, mode },
            None => {
                PortKind::Wrong { why: format!("{name}: options:xdp-mode is none of {}", XdpMode::NAMES) }
            }
        },
        "tap" => PortKind::Tap { interface },
        "patch" => match row.key("options", "peer") {
            Some(peer) if peer != name => PortKind::Patch { peer: peer.to_owned() },
            Some(_) => {
                PortKind::Wrong { why: format!("{name}: patch port must have a peer other than itself") }
            }
            None => PortKind::Wrong { why: format!("{name}: patch ports require a 'peer' argument") },
        },
        "hoist" | "dpdk" => device_port(row, name, devices),
        // Only kernels have these.
        "bareudp" => wrong(name, "tunnels of type bareudp are not implemented"),
        other => match tunnels::Class::by_name(other) {
            Some(class) => tunnels::port(row, name, class, kernel),
            None => wrong(name, "Address family not supported by protocol"),
        },
    }
}

/// Options and address of a dummy.
pub(super) fn dummy_options(row: Row<'_>) -> DummyOptions {
    DummyOptions::of(string(row, "mac").and_then(mac), |k| row.key("options", k))
}

/// `options:device=sim:0 options:port=1`, `options:device=ixgbe-sim:0`, `options:device=vfio-user:/path.sock options:port=1`, `options:device=0000:06:00.0 options:port=1` for one on the PCI bus, and `options:dpdk-devargs=` for the same.
fn device_port(row: Row<'_>, name: &str, devices: &mut BTreeMap<String, DeviceConfig>) -> PortKind {
    let option = |k| row.key("options", k);
    let Some(device) = option("device").or(option("dpdk-devargs")) else {
        return PortKind::Wrong {
            why: format!("{name}: options:device is missing: want options:device=sim:0 options:port=0"),
        };
    };
    if let Some(address) = pci::parse_address(device) {
        // As lspci writes it, however it was written here.
        return bus_port(name, address.to_string(), DeviceKind::Pci { address }, option("port"), devices);
    }
    if let Some(path) = device.strip_prefix("vfio-user:") {
        if !path.starts_with('/') {
            return PortKind::Wrong { why: format!("{name}: vfio-user: wants the whole path of a socket") };
        }
        let kind = DeviceKind::VfioUser { path: PathBuf::from(path) };
        return bus_port(name, device.to_owned(), kind, option("port"), devices);
    }
    let model = device.split_once(':').filter(|(_, n)| n.parse::<u8>().is_ok());
    let new = match model {
        Some(("sim", _)) => DeviceKind::Sim { profile: None, wires: vec![Wire::None; SIM_PORTS] },
        Some(("ixgbe-sim", _)) => DeviceKind::Ixgbe { wire: Wire::None },
        _ => {
            return PortKind::Wrong {
                why: format!(
                    "{name}: there is no driver for device {device}, only for sim:0 to sim:255, ixgbe-sim:0 to ixgbe-sim:255, vfio-user:/SOCKET and PCI addresses"
                ),
            };
        }
    };
    let ports = new.wires().len();
    let port = option("port").map_or(Some(0), |p| p.parse::<u16>().ok()).filter(|p| usize::from(*p) < ports);
    let Some(port) = port else {
        let last = ports - 1;
        return PortKind::Wrong {
            why: format!("{name}: options:port is not a port of device {device}, which has 0 to {last}"),
        };
    };
    let wire = match option("wire").map(|w| w.split_once(':').map_or((w, ""), |(k, i)| (k, i))) {
        None | Some(("none", "")) => Wire::None,
        Some(("af_packet", i)) if !i.is_empty() => Wire::AfPacket(i.to_owned()),
        Some(("af_xdp", i)) if !i.is_empty() => Wire::AfXdp(i.to_owned()),
        Some(("tap", i)) if !i.is_empty() => Wire::Tap(i.to_owned()),
        Some(_) => {
            return PortKind::Wrong {
                why: format!(
                    "{name}: options:wire is none of none, af_packet:INTERFACE, af_xdp:INTERFACE and tap:INTERFACE"
                ),
            };
        }
    };
    let d = devices
        .entry(device.to_owned())
        .or_insert_with(|| DeviceConfig { name: device.to_owned(), kind: new });
    match &mut d.kind {
        DeviceKind::Sim { profile, wires } => {
            if let Some(file) = option("profile") {
                *profile = Some(PathBuf::from(file));
            }
            wires[usize::from(port)] = wire;
        }
        DeviceKind::Ixgbe { wire: end } => *end = wire,
        _ => return wrong(name, "No such device"),
    }
    PortKind::Sim { device: device.to_owned(), port }
}

/// A port of a device on the PCI bus, or of one in another process. How many it has is known once it is open.
fn bus_port(
    name: &str,
    device: String,
    kind: DeviceKind,
    port: Option<&str>,
    devices: &mut BTreeMap<String, DeviceConfig>,
) -> PortKind {
    let Some(port) = port.map_or(Some(0), |p| p.parse::<u16>().ok()) else {
        return PortKind::Wrong { why: format!("{name}: options:port is not a number") };
    };
    devices.entry(device.clone()).or_insert_with(|| DeviceConfig { name: device.clone(), kind });
    PortKind::Sim { device, port }
}

/// The queues of a port's QoS row.
fn queues(db: &Snapshot, row: Row<'_>) -> BTreeMap<u32, QueueSettings> {
    let Some(qos) = db.referred(row, "qos", "QoS").next() else { return BTreeMap::new() };
    let one = |(n, id): &(Atom, Atom)| {
        let q = db.row("Queue", id.as_uuid()?)?;
        let rate = |k| q.key("other_config", k).and_then(|v| v.parse().ok());
        let settings = QueueSettings {
            dscp: q.integer("dscp").and_then(|d| u8::try_from(d).ok()).filter(|d| *d < 64),
            min_rate_bps: rate("min-rate"),
            max_rate_bps: rate("max-rate"),
        };
        Some((u32::try_from(n.as_integer()?).ok()?, settings))
    };
    qos.datum("queues").pairs().iter().filter_map(one).collect()
}

/// What ports of a bridge say of it by LLDP.
pub(super) fn auto_attach(db: &Snapshot, bridge: Row<'_>) -> LldpSettings {
    let Some(row) = db.referred(bridge, "auto_attach", "AutoAttach").next() else {
        return LldpSettings::default();
    };
    let text = |column| string(row, column).unwrap_or_default().to_owned();
    let one = |(isid, vlan): &(Atom, Atom)| {
        Some((u32::try_from(isid.as_integer()?).ok()?, u16::try_from(vlan.as_integer()?).ok()?))
    };
    LldpSettings {
        system_name: text("system_name"),
        system_description: text("system_description"),
        mappings: row.datum("mappings").pairs().iter().filter_map(one).collect(),
    }
}

/// The settings of a port with how the link of its interface is watched, where `said` is what is said of the bridge.
pub(super) fn watched(row: Row<'_>, settings: PortSettings, said: &LldpSettings) -> PortSettings {
    // Which keys are taken is then a matter of flows: only those without one are the switch's own.
    let by_flow = |k| row.key("options", k) == Some("flow");
    let flow_key = by_flow("key") || by_flow("in_key");
    let mpid = row.integer("cfm_mpid").and_then(|n| u64::try_from(n).ok());
    PortSettings {
        lldp: (row.key("lldp", "enable") == Some("true")).then(|| said.clone()),
        bfd: links::BfdSettings::parse(|k| row.key("bfd", k)),
        cfm: mpid.and_then(|m| links::CfmSettings::parse(m, |k| row.key("other_config", k), flow_key)),
        ..settings
    }
}

/// A dummy has a queue whatever is configured.
pub(super) fn dummy_queues(settings: &mut PortSettings) {
    settings.queues.entry(0).or_default();
}

pub(super) fn settings(db: &Snapshot, row: Row<'_>) -> PortSettings {
    let tag = row.integer("tag").and_then(|t| u16::try_from(t).ok()).filter(|t| *t < 4096);
    let trunks = vlans(row, "trunks");
    // Without a mode: access with a tag, else a trunk.
    let vlan = match (string(row, "vlan_mode"), tag) {
        (Some("access"), t) => VlanMode::Access { vlan: t.unwrap_or(0) },
        (Some("native-tagged"), t) => VlanMode::NativeTagged { native: t.unwrap_or(0), trunks },
        (Some("native-untagged"), t) => VlanMode::NativeUntagged { native: t.unwrap_or(0), trunks },
        (Some("dot1q-tunnel"), t) => VlanMode::Dot1qTunnel {
            vlan: t.unwrap_or(0),
            cvlans: vlans(row, "cvlans"),
            tpid: if row.key("other_config", "qinq-ethtype") == Some("802.1q") { 0x8100 } else { 0x88a8 },
        },
        (None, Some(vlan)) => VlanMode::Access { vlan },
        _ => VlanMode::Trunk { trunks },
    };
    let priority_tags = match row.key("other_config", "priority-tags") {
        Some("always") => PriorityTags::Always,
        Some("true" | "if-nonzero") => PriorityTags::IfNonzero,
        _ => PriorityTags::default(),
    };
    let on = |k| row.key("other_config", k) == Some("true");
    PortSettings {
        vlan,
        priority_tags,
        protected: is_set(row, "protected"),
        mcast_flood: on("mcast-snooping-flood"),
        mcast_reports: on("mcast-snooping-flood-reports"),
        queues: queues(db, row),
        ..PortSettings::default()
    }
}
