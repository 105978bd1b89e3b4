//! Patch ports: a packet that leaves by one comes in on its peer, a patch port of another bridge of the same switch (or of the
//! same one), and translation goes on there. No datapath knows of them.

use std::cell::OnceCell;
use std::sync::Arc;

use openflow::PortNo;

use crate::bridge::Bridge;
use crate::port::Port;
use crate::rule::RuleCounters;
use crate::switch::Routes;
use crate::tables::Pipeline;
use crate::tunnel::Tunnels;
use crate::xlate::Environment;

/// What makes a port a patch port.
#[derive(Debug)]
pub struct Patch {
    /// Name of the port at the other end. The two are connected when that one names this.
    pub peer: String,
    /// What came out of it into the bridge.
    pub received: Arc<RuleCounters>,
    /// What the bridge sent into it.
    pub sent: Arc<RuleCounters>,
}

impl Patch {
    /// The end of a patch whose other end is the port called `peer`.
    pub fn to(peer: &str) -> Arc<Patch> {
        Arc::new(Patch { peer: peer.into(), received: Arc::default(), sent: Arc::default() })
    }
}

impl PartialEq for Patch {
    fn eq(&self, o: &Self) -> bool {
        self.peer == o.peer
    }
}
impl Eq for Patch {}

/// The other bridges that a translation may go on to. Each is seen in one version from beginning to end.
pub struct Peers<'a> {
    routes: &'a Routes,
    pipelines: Vec<OnceCell<Arc<Pipeline>>>,
}

impl<'a> Peers<'a> {
    /// Of translations that start in `bridge`, which has no use for them without a patch port or tunnels.
    pub(crate) fn of(routes: &'a Routes, index: u32, pipeline: &Arc<Pipeline>) -> Self {
        let leads_on = pipeline.ports.have_patches() || routes.tunnels.any();
        let n = if leads_on { routes.bridges.len() } else { 0 };
        let pipelines: Vec<OnceCell<_>> = (0..n).map(|_| OnceCell::new()).collect();
        if let Some(own) = pipelines.get(index as usize) {
            let _ = own.set(pipeline.clone());
        }
        Peers { routes, pipelines }
    }

    /// Tunnels, and the networks below them.
    pub(crate) fn tunnels(&self) -> &'a Tunnels {
        &self.routes.tunnels
    }

    /// What the datapath is said to have for copies.
    pub(crate) fn copies(&self) -> Copies {
        self.routes.copies
    }

    /// Whether the datapath is said not to tell packets by their length.
    pub(crate) fn lacks_length_checks(&self) -> bool {
        self.routes.lacks_length_checks
    }

    /// The bridge of that name.
    pub(crate) fn by_name(&'a self, name: &str) -> Option<(&'a Bridge, &'a Pipeline)> {
        let is = |b: &Option<Arc<Bridge>>| b.as_ref().is_some_and(|b| b.name() == name);
        self.bridge(self.routes.bridges.iter().position(is)? as u32)
    }

    fn bridge(&'a self, index: u32) -> Option<(&'a Bridge, &'a Pipeline)> {
        let b = self.routes.bridges.get(index as usize)?.as_ref()?;
        let p = self.pipelines.get(index as usize)?.get_or_init(|| b.pipeline());
        Some((b, p))
    }
}

impl<'a> Environment<'a> {
    /// The bridge and the port at the other end of patch port `port`, if they are connected.
    pub(crate) fn peer(&self, port: &Port) -> Option<(Environment<'a>, &'a Port)> {
        let peers = self.peers;
        let name = &port.patch.as_ref()?.peer;
        let (index, no): (u32, PortNo) = *peers.routes.patches.get(name.as_str())?;
        let (bridge, pipeline) = peers.bridge(index)?;
        let other = pipeline.ports.get(no)?;
        let back = other.patch.as_ref().is_some_and(|p| p.peer == port.name);
        back.then(|| (bridge.environment(pipeline, peers), other))
    }
}

/// What a datapath is said to have for executing actions on a copy of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copies {
    /// An action for that.
    pub clone: bool,
    /// How deep samples may be nested, one of which does as well.
    pub sample_nesting: u32,
}

impl Default for Copies {
    /// As it is.
    fn default() -> Self {
        Copies { clone: true, sample_nesting: 10 }
    }
}
