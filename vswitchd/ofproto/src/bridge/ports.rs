//! Ports of a bridge, their settings and links, and those of the bridge that ports depend on.

use std::sync::Arc;

use clock::Instant;
use openflow::PortNo;
use openflow::port::{PortDesc, PortReason, PortState, PortStatus};
use spanning::{State, rstp};

use super::{Bridge, Watcher};
use crate::bundle::Bundle;
use crate::exports;
use crate::mirror::Mirrors;
use crate::port::{Port, Ports};
use crate::room;
use crate::settings::{BridgeSettings, PortSettings};

impl Bridge {
    /// Adds or changes a port, and tells the controllers.
    pub fn put_port(&self, mut port: Port) {
        let (no, dp) = (port.no, port.dp);
        if let Some(s) = self.switch() {
            self.note_fit(no, Watcher::Link, s.watch_port(self.index, &port));
            self.note_fit(no, Watcher::Lacp, s.aggregate_port(self.index, &port, self.system()));
        }
        port.state = self.as_is_fit(no, port.state);
        if let Some(old) = self.pipeline().ports.get(no)
            && old.patch == port.patch
            && old.tunnel == port.tunnel
        {
            // The same patch or tunnel: its counters go on.
            port.patch = old.patch.clone();
            port.tunnel = old.tunnel.clone();
        }
        port.tree = self.pipeline().ports.get(no).and_then(|old| old.tree);
        let desc = port.desc();
        let patch = port.patch.is_some().then(|| port.name.clone());
        let tunnel = port.tunnel.clone();
        let old = self.change_ports(|p| p.put(port));
        if let Some(s) = self.switch() {
            let old_patch = old.as_ref().filter(|o| o.patch.is_some()).map(|o| &o.name);
            if let Some(o) = &old
                && (o.dp != dp || patch.is_some() || tunnel.is_some())
                && o.patch.is_none()
                && o.tunnel.is_none()
            {
                s.route_port(o.dp, None);
            }
            if let Some(name) = old_patch
                && patch.as_ref() != Some(name)
            {
                s.route_patch(name, None);
            }
            if let Some(o) = &old
                && let Some(t) = &o.tunnel
            {
                s.route_tunnel(o.dp, t, (self.index, no), false);
            }
            match (&patch, &tunnel) {
                (Some(name), _) => s.route_patch(name, Some((self.index, no))),
                (None, Some(t)) => s.route_tunnel(dp, t, (self.index, no), true),
                (None, None) => s.route_port(dp, Some((self.index, no))),
            }
            s.changed();
        }
        let live = desc.state.has(PortState::LIVE);
        if old.is_none() {
            // As in Open vSwitch a port is live only once it is there.
            let state = PortState(desc.state.0 & !PortState::LIVE.0);
            self.tell_port(PortStatus { reason: PortReason::Add, desc: PortDesc { state, ..desc.clone() } });
        }
        if old.map_or(live, |o| o.desc() != desc) {
            self.tell_port(PortStatus { reason: PortReason::Modify, desc });
        }
    }

    /// Takes note of whether a port's link carries; whether that is news.
    fn note_fit(&self, no: PortNo, who: Watcher, fit: bool) -> bool {
        let mut unfit = self.unfit.lock();
        if fit { unfit.remove(&(no, who)) } else { unfit.insert((no, who)) }
    }

    /// A port's state, which is not live while those that watch its link say that it does not carry.
    fn as_is_fit(&self, no: PortNo, state: PortState) -> PortState {
        let down = state.has(PortState::LINK_DOWN);
        let live = PortState::LIVE.0;
        match self.unfit.lock().iter().any(|(of, _)| *of == no) {
            true => PortState(state.0 & !live),
            false if !down => PortState(state.0 | live),
            false => state,
        }
    }

    /// Says whether a port's link carries, as those find that watch it.
    pub(crate) fn set_fit(&self, no: PortNo, who: Watcher, fit: bool) {
        if !self.note_fit(no, who, fit) {
            return;
        }
        let changed = self.change_ports(|ports| {
            let port = ports.get_mut(no)?;
            let state = self.as_is_fit(no, port.state);
            (std::mem::replace(&mut port.state, state) != state).then(|| port.desc())
        });
        if let Some(desc) = changed {
            self.tell_port(PortStatus { reason: PortReason::Modify, desc });
        }
    }

    /// Says what a port does in the bridge's spanning tree, and tells the controllers. `None` is that it has no part in one.
    pub(crate) fn set_tree_state(&self, no: PortNo, state: Option<State>) {
        let Some(old) = self.pipeline().ports.get(no).map(|p| p.tree).filter(|old| *old != state) else {
            return;
        };
        let changed = self.change_ports(|ports| {
            let port = ports.get_mut(no)?;
            let before = port.desc();
            port.tree = state;
            Some((port.name.clone(), port.settings.tree.is_some(), before, port.desc()))
        });
        let Some((name, in_tree, before, desc)) = changed else { return };
        let rapid = self.pipeline().settings.tree.is_some_and(|t| t.rapid);
        let word = |s: Option<State>| match s.unwrap_or(State::Disabled) {
            s if rapid => rstp::State::from(s).name(),
            s => s.name(),
        };
        let (from, to) = (word(old), word(state));
        if from != to {
            let protocol = if rapid { "RSTP" } else { "STP" };
            tracing::debug!(target: "ofproto_dpif", "port {name}: {protocol} state changed from {from} to {to}");
        }
        if before != desc {
            self.tell_port(PortStatus { reason: PortReason::Modify, desc });
        }
        // What was learned behind a port that learns no more is not known any more.
        if in_tree && old.is_some_and(State::learns) && !state.is_some_and(State::learns) {
            self.macs.forget_port(no);
            self.mcast.forget_port(no);
        }
    }

    /// The bridge takes part in no spanning tree.
    pub(crate) fn leave_tree(&self) {
        let left: Vec<PortNo> =
            self.pipeline().ports.iter().filter(|p| p.tree.is_some()).map(|p| p.no).collect();
        left.into_iter().for_each(|no| self.set_tree_state(no, None));
    }

    /// The address that link aggregation control knows the bridge by.
    pub(crate) fn system(&self) -> [u8; 6] {
        self.pipeline().ports.get(PortNo::LOCAL).map_or([0; 6], |p| p.hw_addr.0)
    }

    /// Publishes what a bond says; `None` when it is gone. Stations are forgotten that were known by a port that stands for it no
    /// more.
    pub(crate) fn publish_bundle(&self, name: &str, bundle: Option<Arc<Bundle>>) {
        let before = self.pipeline().bundles.iter().find(|b| b.name == name).map(|b| b.port);
        let now = bundle.as_ref().map(|b| b.port);
        // Cannot fail: nothing is refused.
        let _ = self.change(true, |p| {
            p.bundles.put(name, bundle);
            Ok(())
        });
        if let Some(no) = before.filter(|_| before != now) {
            self.macs.forget_port(no);
            self.mcast.forget_port(no);
        }
    }

    /// Has all that depended on the ports judged again.
    pub(crate) fn touch(&self) {
        // Cannot fail: nothing is refused.
        let _ = self.change(true, |_| Ok(()));
    }

    /// Packets and bytes that a mirror has chosen so far.
    pub fn mirror_counts(&self, name: &str) -> Option<(u64, u64)> {
        self.switch().inspect(|s| s.collect());
        self.pipeline().mirrors.counts(name)
    }

    /// Changes what OpenFlow does not know of a port. Stations behind it are forgotten where it no longer carries their VLAN
    /// as it did. False when there is no such port.
    pub fn set_port_settings(&self, no: PortNo, settings: PortSettings) -> bool {
        let pipeline = self.pipeline();
        let Some(port) = pipeline.ports.get(no) else { return false };
        if *port.settings == settings {
            return true;
        }
        let other_vlans = port.settings.vlan != settings.vlan;
        let watched = Port { settings: Arc::new(settings.clone()), ..port.clone() };
        let done = self.change(true, |p| {
            let ports = Arc::make_mut(&mut p.ports);
            Ok(ports.get_mut(no).map(|p| p.settings = Arc::new(settings)).is_some())
        });
        if let Some(s) = self.switch() {
            self.set_fit(no, Watcher::Link, s.watch_port(self.index, &watched));
            self.set_fit(no, Watcher::Lacp, s.aggregate_port(self.index, &watched, self.system()));
        }
        if other_vlans {
            self.macs.forget_port(no);
            self.mcast.forget_port(no);
        }
        done.unwrap_or(false)
    }

    /// Changes what OpenFlow does not know of the bridge.
    pub fn set_settings(&self, settings: BridgeSettings) {
        let old = self.pipeline().settings.clone();
        if *old == settings {
            return;
        }
        if settings.snooping.is_none() {
            self.mcast.flush();
        }
        self.macs.configure(settings.mac_ageing, settings.mac_limit, settings.flood_vlans.clone());
        let now = self.switch().map_or(Instant::ZERO, |s| s.now());
        self.exports.configure(&settings, exports::now(now));
        // Cannot fail: nothing is refused.
        let _ = self.change_rules(now, None, |p, changes| {
            p.config_generation = p.generation;
            p.mirrors = Mirrors::new(&settings.mirrors, &p.mirrors);
            p.settings = Arc::new(settings);
            p.keep_prefixes();
            room::keep_limits(p, self.config.max_flows_per_table, changes);
            Ok(())
        });
    }

    /// Removes a port, and tells the controllers. Whether there was one.
    pub fn remove_port(&self, no: PortNo) -> bool {
        let Some(old) = self.change_ports(|p| p.remove(no)) else { return false };
        if let Some(s) = self.switch() {
            match (&old.patch, &old.tunnel) {
                (Some(_), _) => s.route_patch(&old.name, None),
                (None, Some(t)) => s.route_tunnel(old.dp, t, (self.index, no), false),
                (None, None) => s.route_port(old.dp, None),
            }
            s.forget_network(&old.name, false);
            s.unwatch_port(self.index, no);
            s.part_port(self.index, no);
            s.changed();
        }
        let stations = self.macs.forget_port(no);
        if let Some(s) = self.switch().filter(|_| !stations.is_empty()) {
            // They may turn up in another bridge, where others have a way to them through this one.
            s.bridges().iter().filter(|b| b.index != self.index).for_each(|b| b.macs.forget(&stations));
        }
        self.mcast.forget_port(no);
        self.unfit.lock().retain(|(of, _)| *of != no);
        self.tell_port(PortStatus { reason: PortReason::Delete, desc: old.desc() });
        true
    }

    fn change_ports<T>(&self, f: impl FnOnce(&mut Ports) -> Option<T>) -> Option<T> {
        self.change(true, |p| Ok(f(Arc::make_mut(&mut p.ports)))).ok().flatten()
    }
}
