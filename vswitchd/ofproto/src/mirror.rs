//! Mirrors: copies of what goes through chosen ports, to a port of their own (SPAN) or into a VLAN of their own (RSPAN).
//!
//! A packet is copied once to each output, whatever number of mirrors choose it. A port that is a mirror's output is good for
//! nothing else: NORMAL sends nothing there, and what comes in is dropped (ovs-vswitchd.conf.db(5), table Mirror).

use std::collections::BTreeSet;
use std::sync::Arc;

use openflow::PortNo;

use crate::rule::RuleCounters;
use crate::vlan::VlanSet;

/// Most mirrors of a bridge.
pub const MAX_MIRRORS: usize = 32;

/// A mirror, as configured.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// Its name; statistics are kept by it.
    pub name: String,
    /// Every packet is chosen, whatever its ports.
    pub select_all: bool,
    /// Packets that come in on one of these are chosen.
    pub select_src: BTreeSet<PortNo>,
    /// Packets that leave by one of these are chosen.
    pub select_dst: BTreeSet<PortNo>,
    /// Of packets chosen by port, only those of these VLANs are.
    pub select_vlans: Option<VlanSet>,
    /// Where copies go.
    pub output: MirrorOutput,
    /// Copies are cut to this many bytes; whole when `None`.
    pub snaplen: Option<u16>,
}

/// Where a mirror's copies go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MirrorOutput {
    /// Out of a port.
    Port(PortNo),
    /// Into a VLAN, by every port that carries it.
    Vlan(u16),
}

/// The mirrors of a bridge.
#[derive(Clone, Default, Debug)]
pub struct Mirrors(Arc<[One]>);

#[derive(Clone, Debug)]
pub(crate) struct One {
    pub(crate) config: Mirror,
    pub(crate) counters: Arc<RuleCounters>,
    /// Mirrors with the same output, itself included: one bit each.
    pub(crate) alike: u32,
}

impl Mirrors {
    /// The mirrors of a configuration; those beyond [`MAX_MIRRORS`] are left out. One that was there before keeps its
    /// counters.
    pub(crate) fn new(configs: &[Mirror], before: &Mirrors) -> Self {
        let configs = &configs[..configs.len().min(MAX_MIRRORS)];
        let one = |c: &Mirror| {
            let old = before.0.iter().find(|o| o.config.name == c.name);
            let alike = configs.iter().enumerate().filter(|(_, o)| o.output == c.output);
            One {
                config: c.clone(),
                counters: old.map_or_else(Arc::default, |o| o.counters.clone()),
                alike: alike.map(|(i, _)| 1 << i).sum(),
            }
        };
        Mirrors(configs.iter().map(one).collect())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Packets and bytes that a mirror has chosen.
    pub fn counts(&self, name: &str) -> Option<(u64, u64)> {
        let m = self.0.iter().find(|m| m.config.name == name)?;
        Some((m.counters.packets(), m.counters.bytes()))
    }

    pub(crate) fn get(&self, i: u32) -> Option<&One> {
        self.0.get(i as usize)
    }

    /// The mirrors that choose packets by their coming in on `port`, or their leaving by it.
    pub(crate) fn choosing(&self, port: PortNo, leaving: bool) -> u32 {
        let chosen = |m: &Mirror| {
            let ports = if leaving { &m.select_dst } else { &m.select_src };
            m.select_all || ports.contains(&port)
        };
        self.0.iter().enumerate().filter(|(_, m)| chosen(&m.config)).map(|(i, _)| 1 << i).sum()
    }

    /// Whether `port` is an output of mirrors.
    pub(crate) fn reserve(&self, port: PortNo) -> bool {
        self.0.iter().any(|m| m.config.output == MirrorOutput::Port(port))
    }
}
