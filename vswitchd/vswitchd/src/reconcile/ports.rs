//! Ports: attached to the datapath and described to OpenFlow, and taken away again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datapath::Queue;
use device::{PacketIo, QueuePair};
use flow::PortId;
use ofproto::{Port, Tunnel};
use openflow::{MacAddr, PortNo};

use crate::config::{BridgeConfig, PortConfig, PortKind, is_of_reserved_name};
use crate::control::with_link;
use crate::desired::Desired;
use crate::open::{self, OpenError};
use crate::ports::SwitchPort;

use super::bridges::{address_of, bridge_address, local_port};
use super::{DETACH_PATIENCE, Reconciler, RunningBridge, RunningPort};

/// What is behind a port, opened.
struct Opened {
    io: Box<dyn PacketIo>,
    queues: Vec<QueuePair>,
}

/// The ports that a bridge is to have, with their numbers.
fn wanted_ports<'a>(
    b: &'a BridgeConfig,
    numbers: &BTreeMap<String, PortNo>,
) -> impl Iterator<Item = (PortConfig, PortNo)> + use<'a> {
    let numbers = numbers.clone();
    let others = b.ports.iter().filter_map(move |p| Some((p.clone(), *numbers.get(&p.name)?)));
    std::iter::once((local_port(b), PortNo::LOCAL)).chain(others)
}

/// What tunnels share a port of the datapath under. The two datapaths do not share any.
pub(super) fn shared_name(t: &ofproto::TunnelSettings) -> String {
    let name = t.datapath_name();
    if t.foreign { format!("kernel {name}") } else { name }
}

/// Whether a port that runs can stay when this is wanted: what else changes is changed on the spot.
fn same_port(running: &RunningPort, config: &PortConfig, no: PortNo) -> bool {
    let r = &running.config;
    let same = match (&r.kind, &config.kind) {
        // Its options are changed on the spot.
        (PortKind::Dummy { class, options }, PortKind::Dummy { class: wanted, options: other }) => {
            class == wanted && class.queues(options) == wanted.queues(other)
        }
        // So is its other end.
        (PortKind::Patch { .. }, PortKind::Patch { .. }) => true,
        (kind, wanted) => kind == wanted,
    };
    // The datapath and its rings are made for an MTU.
    same && running.no == no && (r.mtu, r.mac, r.rx.count) == (config.mtu, config.mac, config.rx.count)
}

impl Reconciler {
    /// Removes ports that are not wanted any more, or not like this, or whose interface has gone. Whether there were any.
    pub(super) fn remove_ports(&mut self, want: &Desired) -> bool {
        let mut left = false;
        for at in 0..self.bridges.len() {
            let Some(w) = want.bridges.iter().find(|w| w.name == self.bridges[at].name) else { continue };
            let numbers = self.bridges[at].numbers.assign(&w.ports);
            let wanted: BTreeMap<String, (PortConfig, PortNo)> =
                wanted_ports(w, &numbers).map(|(c, no)| (c.name.clone(), (c, no))).collect();
            let b = &mut self.bridges[at];
            b.errors.retain(|name, _| wanted.contains_key(name));
            let mut gone = Vec::new();
            for (name, p) in &b.ports {
                // The address of the LOCAL port's interface is given when it is made.
                let same_address = p.no != PortNo::LOCAL || b.address == bridge_address(w);
                let stays = same_address && wanted.get(name).is_some_and(|(c, no)| same_port(p, c, *no));
                if p.port.as_ref().is_some_and(|p| p.is_gone()) {
                    tracing::warn!(target: "bridge", "bridge {}: port {name}: its interface has gone", b.name);
                    gone.push(name.clone());
                } else if !stays {
                    gone.push(name.clone());
                }
            }
            for name in &self.bridges[at].ports.keys().cloned().collect::<Vec<_>>() {
                if let PortKind::Sim { device, .. } = &self.bridges[at].ports[name].config.kind
                    && !gone.contains(name)
                    && !self.device_stays(device, want)
                {
                    gone.push(name.clone());
                }
            }
            left |= !gone.is_empty();
            for name in gone {
                self.remove_port(at, &name);
                if !wanted.contains_key(&name) {
                    self.dp_numbers.forget(&name);
                }
            }
        }
        left
    }

    /// Takes a port away: from OpenFlow, from the datapath, and gives back what was behind it.
    pub(super) fn remove_port(&mut self, at: usize, name: &str) {
        let Some(p) = self.bridges[at].ports.remove(name) else { return };
        let no = p.no;
        {
            let _one = self.parts.ports.changing();
            self.bridges[at].endpoint.bridge.remove_port(no);
            if let Some(p) = &p.port {
                self.parts.ports.remove(p.dp);
            }
        }
        tracing::info!(target: "bridge", "bridge {}: deleted interface {name} on port {no}", self.bridges[at].name);
        if let PortKind::Tunnel { settings, .. } = &p.config.kind
            && let Some(dp) = self.dp_numbers.unshare(&shared_name(settings))
            && settings.foreign
        {
            self.remove_vport(name, dp);
        }
        if let Some(port) = &p.port {
            self.detach(name, &p.config.kind, port);
        }
    }

    /// Takes a port from the datapath, and gives back what was behind it.
    fn detach(&mut self, name: &str, kind: &PortKind, port: &SwitchPort) {
        let dp = port.dp;
        let queues = match self.parts.soft.detach(dp) {
            // All of a device's ports have one pair.
            Ok(d) => d.wait(DETACH_PATIENCE).and_then(|q| q.into_iter().next()),
            Err(e) => {
                tracing::error!("port {name}: {e}");
                None
            }
        };
        let io = port.take_io();
        self.dp_numbers.give_back(dp);
        match kind {
            PortKind::Sim { device, port } => {
                if queues.is_none() {
                    tracing::error!(
                        "port {name}: its queues did not come back; device {device} has to be started anew"
                    );
                }
                if let Some(d) = self.parts.sims.lock().iter_mut().find(|s| s.name == *device) {
                    d.give_back(*port, io, queues);
                }
                if let Err(e) = self.map_device_ports(&device.clone(), &[]) {
                    tracing::warn!("device {device}: {e}");
                }
            }
            PortKind::Vport { .. } => {
                drop((io, queues));
                self.remove_vport(name, dp);
            }
            PortKind::Memory => {
                self.memory.lock().remove(name);
            }
            PortKind::Dummy { .. } => {
                self.parts.dummies.close(name);
                drop((io, queues));
            }
            _ => drop((io, queues)),
        }
    }

    /// Adds ports that are not there.
    pub(super) fn add_ports(&mut self, want: &Desired) {
        let mut wanted = Vec::new();
        for w in &want.bridges {
            let Some(at) = self.bridges.iter().position(|b| b.name == w.name) else { continue };
            let numbers = self.bridges[at].numbers.assign(&w.ports);
            for p in &w.ports {
                if !numbers.contains_key(&p.name) {
                    self.port_failed(at, &p.name, "no OpenFlow port number is left".to_owned());
                }
            }
            let missing = |(c, _): &(PortConfig, PortNo)| !self.bridges[at].ports.contains_key(&c.name);
            wanted.extend(wanted_ports(w, &numbers).filter(missing).map(|(c, no)| (at, w, c, no)));
        }
        // Datapath numbers first, so that a device learns of all its new ports at once.
        let mut numbered = Vec::new();
        let mut patches = Vec::new();
        let mut tunnels = Vec::new();
        let mut coming: BTreeMap<String, Vec<(u16, PortId)>> = BTreeMap::new();
        let mut spoken_for = BTreeSet::new();
        for (at, w, c, no) in wanted {
            if let PortKind::Patch { peer } = &c.kind {
                let peer = peer.clone();
                patches.push((at, c, no, peer));
                continue;
            }
            if let PortKind::Tunnel { class, settings, options } = &c.kind {
                let sep = if options.is_empty() { "" } else { ": " };
                let t = Tunnel::new((**settings).clone(), format!("{class}{sep}{options}"));
                tunnels.push((at, c, no, t));
                continue;
            }
            let number = match &c.kind {
                PortKind::Dummy { .. } => self.dp_numbers.take_by_name(&c.name),
                PortKind::Vport { internal, .. } => self.number_of_vport(&c.name, *internal, no),
                _ => self.dp_numbers.take(no),
            };
            let Some(dp) = number else {
                self.port_failed(at, &c.name, "no port number of the datapath is left".to_owned());
                continue;
            };
            if let PortKind::Sim { device, port } = &c.kind
                && spoken_for.insert((device.clone(), *port))
                && !self.uses_device_port(device, *port)
            {
                coming.entry(device.clone()).or_default().push((*port, dp));
            }
            numbered.push((at, w, c, no, dp));
        }
        for (device, ports) in &coming {
            if let Err(e) = self.map_device_ports(device, ports) {
                tracing::debug!("device {device}: {e}");
            }
        }
        for (at, c, no, peer) in patches {
            self.add_patch(at, c, no, &peer);
        }
        for (at, c, no, t) in tunnels {
            self.add_tunnel(at, c, no, t);
        }
        for (at, w, c, no, dp) in numbered {
            let name = c.name.clone();
            let kernels = matches!(c.kind, PortKind::Vport { .. });
            if let Err(why) = self.add_port(at, w, c, no, dp) {
                if kernels {
                    self.remove_vport(&name, dp);
                }
                self.dp_numbers.give_back(dp);
                self.port_failed(at, &name, why);
            }
        }
    }

    fn add_patch(&mut self, at: usize, c: PortConfig, no: PortNo, peer: &str) {
        let port = Port::patch(no, &c.name, MacAddr(address_of(&c.name)), peer);
        self.add_described(at, c, port);
    }

    fn add_tunnel(&mut self, at: usize, c: PortConfig, no: PortNo, t: Arc<Tunnel>) {
        let shared = shared_name(&t.settings);
        let Some(dp) = self.dp_numbers.share(&shared) else {
            return self.port_failed(at, &c.name, "no port number of the datapath is left".to_owned());
        };
        if t.settings.foreign
            && let Err(why) = self.add_tunnel_vport(&t.settings, dp)
        {
            self.dp_numbers.unshare(&shared);
            return self.port_failed(at, &c.name, why);
        }
        let index = self.bridges[at].endpoint.bridge.index();
        if self.parts.layer.tunnels().clashes(dp, &t, (index, no)) {
            self.dp_numbers.unshare(&shared);
            let why = format!("{}: could not set configuration (File exists)", c.name);
            return self.port_failed(at, &c.name, why);
        }
        let port = Port::tunnel(no, dp, &c.name, MacAddr(address_of(&c.name)), t);
        self.add_described(at, c, port);
    }

    /// Adds a port of which the datapath has none of its own.
    fn add_described(&mut self, at: usize, c: PortConfig, port: Port) {
        let no = port.no;
        let b = &mut self.bridges[at];
        let desc = Port { added: self.clock.now(), settings: Arc::new(c.settings.clone()), ..port };
        b.endpoint.bridge.put_port(desc);
        tell_added(b, &c.name, no);
        b.errors.remove(&c.name);
        b.ports.insert(c.name.clone(), RunningPort { config: c, no, port: None });
    }

    /// Gives ports that stay the settings that they are to have.
    pub(super) fn settle_ports(&mut self, want: &Desired) {
        for w in &want.bridges {
            let Some(b) = self.bridges.iter_mut().find(|b| b.name == w.name) else { continue };
            for c in std::iter::once(&local_port(w)).chain(&w.ports) {
                if let Some(p) = b.ports.get_mut(&c.name)
                    && p.config.rx != c.rx
                {
                    p.config.rx = c.rx.clone();
                }
                if let Some(p) = b.ports.get_mut(&c.name)
                    && p.config.settings != c.settings
                {
                    b.endpoint.bridge.set_port_settings(p.no, c.settings.clone());
                    p.config.settings = c.settings.clone();
                }
                if let Some(p) = b.ports.get_mut(&c.name)
                    && p.config.kind != c.kind
                    && let PortKind::Patch { peer } = &c.kind
                    && let Some(now) = b.endpoint.bridge.pipeline().ports.get(p.no)
                {
                    let patch = Port::patch(p.no, &c.name, now.hw_addr, peer).patch;
                    b.endpoint.bridge.put_port(Port { patch, ..now.clone() });
                    p.config.kind = c.kind.clone();
                }
                if let Some(p) = b.ports.get_mut(&c.name)
                    && p.config.kind != c.kind
                    && let PortKind::Dummy { options, .. } = &c.kind
                    && let Some(dummy) = self.parts.dummies.get(&c.name)
                {
                    dummy.configure(options, &self.runtime);
                    p.config.kind = c.kind.clone();
                    let ifindex = options.ifindex.unwrap_or(0);
                    if let Some(now) = b.endpoint.bridge.pipeline().ports.get(p.no)
                        && now.ifindex != ifindex
                    {
                        b.endpoint.bridge.put_port(Port { ifindex, ..now.clone() });
                    }
                }
            }
        }
    }

    fn uses_device_port(&self, name: &str, number: u16) -> bool {
        let on_it =
            |k: &PortKind| matches!(k, PortKind::Sim { device, port } if device == name && *port == number);
        self.bridges.iter().flat_map(|b| b.ports.values()).any(|p| on_it(&p.config.kind))
    }

    fn port_failed(&mut self, at: usize, name: &str, why: String) {
        let b = &mut self.bridges[at];
        if b.errors.get(name) != Some(&why) {
            if is_of_reserved_name(&why) {
                tracing::warn!(target: "bridge", "{why}");
            } else {
                tracing::warn!(target: "bridge", "bridge {}: port {name}: {why}", b.name);
            }
        }
        b.errors.insert(name.to_owned(), why);
    }

    /// Opens what is behind a port.
    fn open(&mut self, w: &BridgeConfig, c: &PortConfig, dp: PortId) -> Result<Opened, String> {
        if let PortKind::Sim { device, port } = &c.kind {
            let mut sims = self.parts.sims.lock();
            let Some(d) = sims.iter_mut().find(|s| s.name == *device) else {
                let why = self.device_errors.get(device).map_or("there is no such device", String::as_str);
                return Err(format!("could not open network device {} (device {device}: {why})", c.name));
            };
            let (io, queues) = d
                .take_port(*port)
                .map_err(|why| format!("could not open network device {} ({why})", c.name))?;
            return Ok(Opened { io, queues: vec![queues] });
        }
        let words = |e: OpenError| e.as_interface_error(&c.name);
        let is_local = c.name == w.name;
        let mac = if is_local { Some(bridge_address(w)) } else { c.mac };
        if let PortKind::Vport { interface, internal, .. } = &c.kind {
            let mut io = self.open_vport(interface, dp, *internal, mac).map_err(words)?;
            self.give_mtu(w, c);
            let queues = io.take_queues(device::QueueId(0)).map_err(|e| words(e.into()))?;
            return Ok(Opened { io: Box::new(io), queues: vec![queues] });
        }
        if let PortKind::Dummy { class, options } = &c.kind {
            let n = class.queues(options);
            let dummy = self.parts.dummies.open(&c.name, *class, n, &self.pool, &self.clock);
            let mut io = dummy.map_err(|e| words(e.into()))?;
            io.port().configure(options, &self.runtime);
            if let Some(mtu) = c.mtu {
                io.port().set_mtu(mtu);
            }
            let queues = netio::merged::take_as(&mut io, n).map_err(|e| words(e.into()))?;
            return Ok(Opened { io: Box::new(io), queues });
        }
        let (mut io, far) = open::port(c, mac, &self.pool, &self.misses, &self.clock).map_err(words)?;
        self.give_mtu(w, c);
        let count = c.rx.count.unwrap_or(1);
        let queues = netio::merged::take_as(&mut *io, count).map_err(|e| words(e.into()))?;
        self.memory.lock().extend(far.map(|f| (c.name.clone(), f)));
        Ok(Opened { io, queues })
    }

    fn give_mtu(&self, w: &BridgeConfig, c: &PortConfig) {
        if let Some(mtu) = c.mtu
            && let Err(why) = open::set_mtu(&c.kind, mtu, &self.pool)
        {
            tracing::warn!(target: "bridge", "bridge {}: interface {}: cannot set MTU {mtu}: {why}", w.name, c.name);
        }
    }

    fn add_port(
        &mut self,
        at: usize,
        w: &BridgeConfig,
        c: PortConfig,
        no: PortNo,
        dp: PortId,
    ) -> Result<(), String> {
        let Opened { io, queues } = self.open(w, &c, dp)?;
        let attach = datapath::PortConfig {
            max_frame_bytes: io.mtu_frame_bytes(),
            ..datapath::PortConfig::new(dp, c.name.clone())
        };
        let queues = queues.into_iter().zip(0..).map(|(pair, number)| Queue { number, core: None, pair });
        self.parts.soft.attach_queues(attach, queues.collect()).map_err(|e| e.to_string())?;
        let mac = if no == PortNo::LOCAL { bridge_address(w) } else { io.mac() };
        let link = io.link();
        let b = &mut self.bridges[at];
        let bridge = &b.endpoint.bridge;
        let port = {
            let _one = self.parts.ports.changing();
            let p = SwitchPort::new(bridge.index(), c.name.clone(), no, dp, c.kind.clone(), io);
            let p = self.parts.ports.add(p);
            let settings = Arc::new(c.settings.clone());
            let ifindex = p.interface_index().unwrap_or(0);
            let added = self.clock.now();
            let desc = Port { added, settings, ifindex, ..Port::new(no, dp, &c.name, MacAddr(mac)) };
            bridge.put_port(with_link(desc, link, p.is_the_hosts()));
            p
        };
        tell_added(b, &c.name, no);
        b.errors.remove(&c.name);
        b.ports.insert(c.name.clone(), RunningPort { config: c, no, port: Some(port) });
        Ok(())
    }
}

fn tell_added(b: &RunningBridge, port: &str, no: PortNo) {
    let no = if no == PortNo::LOCAL { 65_534 } else { no.0 };
    tracing::info!(target: "bridge", "bridge {}: added interface {port} on port {no}", b.name);
}
