//! Whether the file makes sense as a whole.

use std::collections::HashMap;
use std::ops::Range;

use netio::af_xdp::XdpMode;
use offload_tc::TcPolicy;
use toml::Spanned;

use super::error::{ConfigError, Locator, Problem};
use super::file::{Bridge, Datapath, Device, File, Port, Text};
use super::{
    BridgeConfig, Config, DaemonConfig, DatapathConfig, DeviceConfig, DeviceKind, LocalPort, MAX_BRIDGES,
    MAX_OFPORT, MAX_THREADS, OffloadConfig, PortConfig, PortKind, Wire,
};

/// Ports of the simulated NIC.
const SIM_PORTS: usize = 4;
/// Fewest buffers that leave every queue something to work with.
const MIN_BUFFERS: u32 = 256;
/// Most buffers: 2 GiB of memory.
const MAX_BUFFERS: u32 = 1 << 20;
/// Most flow records; each takes a few hundred bytes.
const MAX_FLOWS: usize = 10_000_000;
/// Longest name of a network interface on Linux, in bytes.
const MAX_INTERFACE_BYTES: usize = 15;

/// Checks across keys, collecting problems.
struct Check<'a> {
    at: &'a Locator<'a>,
    problems: Vec<Problem>,
    /// Where each interface was named first.
    interfaces: HashMap<String, String>,
    /// Which port each port of each device was given to.
    device_ports: HashMap<(String, u16), String>,
    /// Interfaces of the host have their flows in the kernel's TC.
    tc: bool,
}

pub(super) fn check(file: File, at: &Locator<'_>) -> Result<Config, ConfigError> {
    let mut c = Check {
        at,
        problems: Vec::new(),
        interfaces: HashMap::new(),
        device_ports: HashMap::new(),
        tc: false,
    };
    let daemon = DaemonConfig {
        run_dir: file.daemon.run_dir.as_deref().map(|p| at.path(p)),
        log_file: file.daemon.log_file.as_deref().map(|p| at.path(p)),
        may_halt: file.daemon.keep_awake == Some(false),
    };
    let datapath = c.datapath(&file.datapath);
    let default = OffloadConfig::default();
    let offload = OffloadConfig {
        enabled: file.offload.enabled.unwrap_or(default.enabled),
        min_pps: file.offload.min_pps.unwrap_or(default.min_pps),
        tc: c.tc_policy(file.offload.tc.as_ref()),
    };
    c.tc = offload.tc.is_some();
    let mut devices = Vec::new();
    for d in &file.device {
        if let Some(d) = c.device(d.get_ref(), &devices) {
            devices.push(d);
        }
    }
    if file.bridge.len() > MAX_BRIDGES {
        let span = file.bridge[MAX_BRIDGES].span();
        c.wrong(span, format!("at most {MAX_BRIDGES} bridges"));
    }
    let mut bridges: Vec<BridgeConfig> = Vec::new();
    for b in &file.bridge {
        let b = c.bridge(b.get_ref(), &devices, &bridges);
        bridges.push(b);
    }
    if c.problems.is_empty() {
        Ok(Config { daemon, datapath, offload, devices, bridges })
    } else {
        Err(ConfigError::Wrong(c.problems))
    }
}

impl Check<'_> {
    fn wrong(&mut self, span: Range<usize>, text: impl Into<String>) {
        self.problems.push(self.at.problem(span, text));
    }

    /// `value` if it is there and within `range`, else the default.
    fn within<T: Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        value: &Option<Spanned<T>>,
        range: std::ops::RangeInclusive<T>,
        default: T,
    ) -> T {
        let Some(v) = value else {
            return default;
        };
        if !range.contains(v.get_ref()) {
            let text = format!("want {} to {}, not {}", range.start(), range.end(), v.get_ref());
            self.wrong(v.span(), text);
        }
        *v.get_ref()
    }

    fn datapath(&mut self, d: &Datapath) -> DatapathConfig {
        let default = DatapathConfig::default();
        for c in &d.cores {
            // Processors may be numbered with gaps; this only catches what cannot be.
            if *c.get_ref() >= 1024 {
                self.wrong(c.span(), format!("no processor has number {}", c.get_ref()));
            }
        }
        let busy_poll = self.within(&d.busy_poll_us, -1..=1_000_000, 50);
        DatapathConfig {
            threads: self.within(&d.threads, 1..=MAX_THREADS, default.threads),
            cores: d.cores.iter().map(|c| *c.get_ref()).collect(),
            busy_poll_us: u64::try_from(busy_poll).ok(),
            buffers: self.within(&d.buffers, MIN_BUFFERS..=MAX_BUFFERS, default.buffers),
            max_flows: self.within(&d.max_flows, 1..=MAX_FLOWS, default.max_flows),
        }
    }

    /// A name that may stand in a file name, a command and a message.
    fn name(&mut self, name: &Text) {
        let n = name.get_ref();
        let fits = n.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if n.is_empty() || n.len() > 63 || !fits || n.starts_with('.') {
            self.wrong(name.span(), format!("\"{n}\" is not a name: 1 to 63 letters, digits, '-', '_', '.'"));
        }
    }

    fn interface(&mut self, span: Range<usize>, name: &str) -> String {
        if name.is_empty() || name.len() > MAX_INTERFACE_BYTES || name.contains(['/', ' ', ':']) {
            self.wrong(
                span,
                format!("\"{name}\" is not an interface name (1 to {MAX_INTERFACE_BYTES} bytes)"),
            );
        } else if let Some(first) = self.interfaces.get(name) {
            let text = format!("interface \"{name}\" is taken by {first} already");
            self.wrong(span, text);
        }
        name.to_owned()
    }

    fn device(&mut self, d: &Device, known: &[DeviceConfig]) -> Option<DeviceConfig> {
        self.name(&d.name);
        let name = d.name.get_ref();
        if known.iter().any(|k| k.name == *name) {
            self.wrong(d.name.span(), format!("there is a device \"{name}\" already"));
            return None;
        }
        if d.r#type.get_ref() != "sim" {
            let text = format!("unknown device type \"{}\", want \"sim\"", d.r#type.get_ref());
            self.wrong(d.r#type.span(), text);
        }
        if d.wires.len() > SIM_PORTS {
            self.wrong(d.wires[SIM_PORTS].span(), format!("the device has {SIM_PORTS} ports"));
        }
        let mut wires = Vec::new();
        for (i, w) in d.wires.iter().enumerate() {
            let user = format!("wire {i} of device \"{name}\"");
            wires.push(self.wire(w, user));
        }
        wires.resize(SIM_PORTS, Wire::None);
        let profile = d.profile.as_ref().map(|p| {
            if nic::PROFILES.iter().any(|ours| ours.name == p.get_ref()) {
                return p.get_ref().into();
            }
            let path = self.at.path(p.get_ref());
            if !path.is_file() {
                self.wrong(p.span(), format!("no such file: {}", path.display()));
            }
            path
        });
        Some(DeviceConfig { name: name.clone(), kind: DeviceKind::Sim { profile, wires } })
    }

    fn wire(&mut self, w: &Text, user: String) -> Wire {
        let (kind, interface) = match w.get_ref().split_once(':') {
            Some((k, i)) => (k, Some(i)),
            None => (w.get_ref().as_str(), None),
        };
        let wire = match (kind, interface) {
            ("none", None) => return Wire::None,
            ("memory", None) => return Wire::Memory,
            ("af_packet", Some(i)) => Wire::AfPacket(self.interface(w.span(), i)),
            ("af_xdp", Some(i)) => Wire::AfXdp(self.interface(w.span(), i)),
            ("tap", Some(i)) => Wire::Tap(self.interface(w.span(), i)),
            _ => {
                let text = format!(
                    "\"{}\" is not a wire: want \"af_packet:INTERFACE\", \"af_xdp:INTERFACE\", \"tap:INTERFACE\", \"memory\" or \"none\"",
                    w.get_ref()
                );
                self.wrong(w.span(), text);
                return Wire::None;
            }
        };
        self.interfaces.entry(interface.unwrap_or_default().to_owned()).or_insert(user);
        wire
    }

    /// Where in the kernel's TC flows may be.
    fn tc_policy(&mut self, t: Option<&Text>) -> Option<TcPolicy> {
        let t = t?;
        let policy = TcPolicy::by_name(t.get_ref());
        if policy.is_none() {
            let said = format!("tc = \"{}\" is none of \"none\", \"skip_sw\", \"skip_hw\"", t.get_ref());
            self.wrong(t.span(), said);
        }
        policy
    }

    fn xdp_mode(&mut self, mode: Option<&Text>) -> XdpMode {
        let Some(m) = mode else { return XdpMode::default() };
        XdpMode::by_name(m.get_ref()).unwrap_or_else(|| {
            self.wrong(
                m.span(),
                format!("\"{}\" is no mode of AF_XDP: want {}", m.get_ref(), XdpMode::NAMES),
            );
            XdpMode::default()
        })
    }

    fn bridge(&mut self, b: &Bridge, devices: &[DeviceConfig], known: &[BridgeConfig]) -> BridgeConfig {
        self.name(&b.name);
        let name = b.name.get_ref().clone();
        if known.iter().any(|k| k.name == name) {
            self.wrong(b.name.span(), format!("there is a bridge \"{name}\" already"));
        }
        if b.local == LocalPort::Tap {
            self.interface(b.name.span(), &name);
            self.interfaces.entry(name.clone()).or_insert_with(|| format!("bridge \"{name}\""));
        }
        let datapath_id = b.datapath_id.as_ref().and_then(|d| self.datapath_id(d, known));
        let controllers = b.controllers.iter().filter_map(|c| self.stream(c)).collect();
        let listen = b.listen.iter().filter_map(|c| self.stream(c)).collect();
        let mut ports: Vec<PortConfig> = Vec::new();
        for p in &b.port {
            let p = self.port(p, &name, devices, known, &ports);
            ports.extend(p);
        }
        BridgeConfig {
            on_kernel: false,
            name,
            datapath_id,
            hwaddr: None,
            local: b.local,
            local_dummy: Default::default(),
            local_settings: Default::default(),
            bundle_idle: None,
            local_mtu: None,
            settings: Default::default(),
            fail_mode: b.fail_mode,
            controllers,
            treatment: Default::default(),
            listen,
            protocols: b.protocols.iter().filter_map(|p| self.protocol(p)).collect(),
            offload: b.offload.unwrap_or(true),
            mirrors: Vec::new(),
            ports,
        }
    }

    fn protocol(&mut self, p: &Text) -> Option<openflow::Version> {
        match p.get_ref().parse() {
            Ok(v) => Some(v),
            Err(e) => {
                let text = format!("{e}; known are OpenFlow10 to OpenFlow15");
                self.wrong(p.span(), text);
                None
            }
        }
    }

    fn datapath_id(&mut self, d: &Text, known: &[BridgeConfig]) -> Option<u64> {
        let text = d.get_ref().strip_prefix("0x").unwrap_or(d.get_ref());
        let hex = !text.is_empty() && text.len() <= 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(id) if hex && id != 0 => {
                if let Some(other) = known.iter().find(|k| k.datapath_id == Some(id)) {
                    self.wrong(d.span(), format!("bridge \"{}\" has this datapath id already", other.name));
                }
                Some(id)
            }
            _ => {
                let text =
                    format!("\"{}\" is not a datapath id: want 1 to 16 hex digits, not zero", d.get_ref());
                self.wrong(d.span(), text);
                None
            }
        }
    }

    fn stream<A: std::str::FromStr<Err = daemon::AddressError>>(&mut self, t: &Text) -> Option<A> {
        t.get_ref().parse().map_err(|e: daemon::AddressError| self.wrong(t.span(), e.to_string())).ok()
    }

    fn port(
        &mut self,
        port: &Spanned<Port>,
        bridge: &str,
        devices: &[DeviceConfig],
        known: &[BridgeConfig],
        siblings: &[PortConfig],
    ) -> Option<PortConfig> {
        let (whole, p) = (port.span(), port.get_ref());
        self.name(&p.name);
        let name = p.name.get_ref().clone();
        let elsewhere =
            known.iter().find(|b| b.ports.iter().any(|q| q.name == name)).map(|b| b.name.as_str());
        let here = siblings.iter().any(|q| q.name == name).then_some(bridge);
        if let Some(b) = here.or(elsewhere) {
            self.wrong(p.name.span(), format!("bridge \"{b}\" has a port \"{name}\" already"));
        }
        if let Some(n) = &p.ofport {
            let number = *n.get_ref();
            if number == 0 || number > MAX_OFPORT {
                self.wrong(n.span(), format!("{number} is not an OpenFlow port number (1 to {MAX_OFPORT})"));
            } else if let Some(q) = siblings.iter().find(|q| q.ofport == Some(number)) {
                let text = format!("port \"{}\" has number {number} already", q.name);
                self.wrong(n.span(), text);
            }
        }
        let user = format!("port \"{name}\"");
        let kind = match p.r#type.get_ref().as_str() {
            "sim" => {
                self.only(p, &["device", "port"]);
                self.device_port(p, whole, &user, devices)?
            }
            of_host @ ("af_packet" | "af_xdp" | "tap" | "internal") => {
                self.only(p, if of_host == "af_xdp" { &["interface", "mode"] } else { &["interface"] });
                let tap = matches!(of_host, "tap" | "internal");
                let interface = match &p.interface {
                    Some(i) => self.interface(i.span(), i.get_ref()),
                    // A TAP is made by us, so its name may be the port's.
                    None if tap => self.interface(p.name.span(), &name),
                    None => {
                        self.wrong(
                            whole,
                            format!("port \"{name}\" of type \"{of_host}\" needs an interface"),
                        );
                        return None;
                    }
                };
                self.interfaces.entry(interface.clone()).or_insert(user);
                match of_host {
                    "af_xdp" => PortKind::AfXdp { interface, mode: self.xdp_mode(p.mode.as_ref()) },
                    "tap" => PortKind::Tap { interface },
                    "internal" => PortKind::Internal { interface },
                    _ if self.tc => PortKind::Tc { interface },
                    _ => PortKind::AfPacket { interface },
                }
            }
            "pcap" => {
                self.only(p, &["path", "out"]);
                if p.path.is_none() && p.out.is_none() {
                    self.wrong(whole, format!("port \"{name}\" of type \"pcap\" needs path, out or both"));
                }
                let path = p.path.as_ref().map(|f| {
                    let path = self.at.path(f.get_ref());
                    if !path.is_file() {
                        self.wrong(f.span(), format!("no such file: {}", path.display()));
                    }
                    path
                });
                PortKind::Pcap { path, out: p.out.as_ref().map(|f| self.at.path(f.get_ref())) }
            }
            "patch" => {
                self.only(p, &["peer"]);
                match &p.peer {
                    Some(peer) => PortKind::Patch { peer: peer.get_ref().clone() },
                    None => {
                        self.wrong(whole, format!("port \"{name}\" of type \"patch\" needs a peer"));
                        return None;
                    }
                }
            }
            "memory" => {
                self.only(p, &[]);
                PortKind::Memory
            }
            other => {
                let text = format!(
                    "unknown port type \"{other}\", want \"sim\", \"af_packet\", \"af_xdp\", \"tap\", \"internal\", \"patch\", \"pcap\" or \"memory\""
                );
                self.wrong(p.r#type.span(), text);
                return None;
            }
        };
        Some(PortConfig { ofport: p.ofport.as_ref().map(|n| *n.get_ref()), ..PortConfig::new(name, kind) })
    }

    /// Complains about keys that belong to other types of ports.
    fn only(&mut self, p: &Port, keys: &[&str]) {
        let given = [
            ("device", p.device.as_ref().map(Spanned::span)),
            ("port", p.port.as_ref().map(Spanned::span)),
            ("interface", p.interface.as_ref().map(Spanned::span)),
            ("mode", p.mode.as_ref().map(Spanned::span)),
            ("peer", p.peer.as_ref().map(Spanned::span)),
            ("path", p.path.as_ref().map(Spanned::span)),
            ("out", p.out.as_ref().map(Spanned::span)),
        ];
        for (key, span) in given {
            if let Some(span) = span
                && !keys.contains(&key)
            {
                self.wrong(span, format!("a port of type \"{}\" has no key {key}", p.r#type.get_ref()));
            }
        }
    }

    fn device_port(
        &mut self,
        p: &Port,
        whole: Range<usize>,
        user: &str,
        devices: &[DeviceConfig],
    ) -> Option<PortKind> {
        let (Some(device), Some(port)) = (&p.device, &p.port) else {
            self.wrong(whole, format!("{user} of type \"sim\" needs device and port"));
            return None;
        };
        let (name, number) = (device.get_ref().clone(), *port.get_ref());
        if !devices.iter().any(|d| d.name == name) {
            let known: Vec<_> = devices.iter().map(|d| d.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            self.wrong(device.span(), format!("unknown device \"{name}\" (known: {known})"));
            return None;
        }
        if usize::from(number) >= SIM_PORTS {
            let last = SIM_PORTS - 1;
            self.wrong(
                port.span(),
                format!("port {number} is out of range: device \"{name}\" has ports 0 to {last}"),
            );
        }
        if let Some(first) = self.device_ports.get(&(name.clone(), number)) {
            let text = format!("port {number} of device \"{name}\" belongs to {first} already");
            self.wrong(port.span(), text);
        }
        self.device_ports.entry((name.clone(), number)).or_insert_with(|| user.to_owned());
        Some(PortKind::Sim { device: name, port: number })
    }
}
