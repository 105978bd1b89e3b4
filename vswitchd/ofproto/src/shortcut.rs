//! Shortcuts: verdicts straight from the tables, for packets that have no flow record.
//!
//! A record says which bits its verdict rests on, and finding that out is what a miss mostly costs; where rules have many
//! masks, records fragment into more masks than are worth probing. A packet that meets *plain* rules alone needs neither:
//! what is done depends on the rules that matched, the port it came in on and the bridge's settings, so one flow record per
//! such chain of rules, a *shortcut*, counts for all its packets. It matches nothing by itself and is in no datapath's table;
//! a core asks which shortcut a packet takes ([`datapath_api::MissHandler::classify`]), and may remember the answer for equal
//! packets as long as the epoch stays.
//!
//! A rule is plain when all it does is to output to ports and to go on to another table. What is not plain, and a bridge that
//! mirrors, exports its flows or is told to make Open vSwitch's megaflows to the bit, has no shortcuts.
//!
//! A shortcut's name is a hash of the bridge, the generation of its settings, the ingress port and the rules' serial numbers, so
//! that one never means something else than it did. Traffic is credited to rules as that of records is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clock::Instant;
use datapath_api::{FlowCounters, FlowRecord, Miss};
use flow::{FieldId, PackedMatch, PacketKey, PacketMask, PipelineKey, PipelineMask, PortId};
use openflow::flow_mod::Instructions;
use openflow::{Action as OfAction, PortNo};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::bridge::Bridge;
use crate::in_band;
use crate::record::FlowOwner;
use crate::switch::{Routes, Switch};
use crate::tables::{FragHandling, Pipeline};
use crate::tunnel::Routing;
use crate::xlate::{Outcome, Start};

/// Tables that a packet may go through on a shortcut.
const MOST_TABLES: usize = 8;
/// Shortcuts kept at most; a packet that would need one more is translated.
const MOST: usize = 1 << 18;
/// In the place of the serial number of the rule that a table does not have.
const NO_RULE: u64 = 0;

/// What a rule has to be known by for shortcuts.
#[derive(Debug)]
pub struct Plainness {
    /// Whether all it does is to output to ports and to go on.
    pub(crate) is_plain: bool,
    /// The table that it goes on to.
    next: Option<u8>,
}

impl Plainness {
    /// Of a rule with these instructions.
    pub(crate) fn of(i: &Instructions) -> Self {
        let to_port = |a: &OfAction| matches!(a, OfAction::Output { port, .. } if port.is_port());
        let is_plain = i.meter.is_none()
            && !i.clear
            && i.write.is_empty()
            && i.metadata.is_none()
            && i.apply.iter().all(to_port);
        let next = i.goto_table.map(|t| t.0);
        Plainness { is_plain, next }
    }
}

/// The serial number of a new rule, of all that there ever were; not 0.
pub(crate) fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Shortcuts by name.
#[derive(Default)]
pub(crate) struct Shortcuts(Mutex<HashMap<u64, Arc<FlowRecord>>>);

impl Shortcuts {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

/// One step of the hash that names a shortcut.
fn mix(h: u64, v: u64) -> u64 {
    let p = u128::from(h ^ v ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93_u128;
    (p as u64) ^ (p >> 64) as u64
}

/// A port that packets of a burst come in on, and what is behind it.
struct Entrance {
    port: PortId,
    /// `None` where there are no shortcuts.
    behind: Option<(Arc<Pipeline>, PortNo, u64)>,
}

/// What is behind a datapath port, if shortcuts begin there; the bridge is given too.
fn entrance(r: &Routes, port: PortId) -> Option<(&Arc<Bridge>, Arc<Pipeline>, PortNo, u64)> {
    let (b, no) = r.ports.get(&port)?;
    let bridge = r.bridges.get(*b as usize)?.as_ref()?;
    let p = bridge.pipeline();
    let plain = p.mirrors.is_empty()
        && !p.settings.stock_megaflows
        && p.frag == FragHandling::Normal
        && !r.tunnels.may_end_at(bridge.name())
        && p.settings.tree.is_none()
        && !p.settings.exports()
        && p.ports.get(*no).is_none_or(|p| p.receives() && !p.settings.takes_packets());
    let bridge_name = mix(mix(1, (*b).into()), p.misses_told.into());
    let name = mix(mix(bridge_name, p.config_generation), no.0.into());
    plain.then_some((bridge, p, *no, name))
}

/// The name of the shortcut that a packet takes; 0 when it takes none. `name` is that of its entrance.
fn classify(p: &Pipeline, routing: &Routing, no: PortNo, mut name: u64, key: &PacketKey) -> u64 {
    if key.get64(FieldId::RecircId) != 0 || key.get64(FieldId::NwFrag) != 0 {
        return 0;
    }
    if p.settings.one_tag && crate::xlate::hides_tag(key) {
        return 0;
    }
    let mut k = PipelineKey::from_packet(key, no.0);
    k.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
    let needed = !p.settings.in_band.is_empty() && {
        let mut looked = PipelineMask::ZERO;
        in_band::takes(p, routing, &k, &mut looked) || in_band::is_answer_of_dhcp(p, &k, &mut looked)
    };
    if needed {
        return 0;
    }
    let mut table = 0;
    for _ in 0..MOST_TABLES {
        let Some(found) = p.table(table).and_then(|t| t.rules.find(&k)) else {
            return mix(name, NO_RULE).max(1);
        };
        if !found.rule.fast.is_plain {
            return 0;
        }
        name = mix(name, found.rule.serial);
        match found.rule.fast.next {
            Some(next) => table = next,
            None => return name.max(1),
        }
    }
    0
}

/// Whether what a translation came to rests on nothing but the rules met.
fn is_plain(o: &Outcome) -> bool {
    let d = &o.deps;
    o.problem.is_none()
        && o.credited.is_empty()
        && o.learned.is_empty()
        && d.configs.len() == 1
        && d.macs.is_empty()
        && d.mcast.is_empty()
        && d.groups.is_empty()
        && d.learns.is_empty()
        && d.meters.is_empty()
        && o.actions.iter().all(|a| matches!(a, flow::Action::Output(_)))
}

impl Switch {
    /// Bits of packets that shortcuts may depend on.
    pub(crate) fn relevant_bits(&self) -> PacketMask {
        let mut m = PacketMask::ZERO;
        for b in self.bridges() {
            for (_, t) in b.pipeline().tables() {
                m.union(&t.rules.union().resize());
            }
        }
        for f in [FieldId::DpPort, FieldId::RecircId, FieldId::EthType] {
            m.set_exact(f);
        }
        m.set_masked(FieldId::NwFrag, u128::MAX, 0x3);
        if self.bridges().iter().any(|b| !b.pipeline().settings.in_band.is_empty()) {
            in_band::BITS.iter().for_each(|f| m.set_exact(*f));
        }
        m
    }

    /// Names the shortcuts of the packets whose bit is set in `wanted`.
    pub(crate) fn classify_all(&self, keys: &[PacketKey], wanted: u32, names: &mut [u64]) {
        if self.is_exact() {
            return;
        }
        let r = self.routes_now();
        let mut at: SmallVec<[Entrance; 2]> = SmallVec::new();
        let mut left = wanted;
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            left &= left - 1;
            let (Some(key), Some(name)) = (keys.get(i), names.get_mut(i)) else { return };
            let port = PortId(key.get64(FieldId::DpPort) as u32);
            let e = at.iter().position(|e| e.port == port).unwrap_or_else(|| {
                let behind = entrance(&r, port).map(|(_, p, no, name)| (p, no, name));
                at.push(Entrance { port, behind });
                at.len() - 1
            });
            *name = match &at[e].behind {
                Some((p, no, name)) => classify(p, &r.tunnels.routing, *no, *name, key),
                None => 0,
            };
        }
    }

    /// The shortcut `name`, which the packet of `miss` takes; `None` when it takes that one no more, or none.
    pub(crate) fn shortcut_of(&self, name: u64, miss: &Miss, now: Instant) -> Option<Arc<FlowRecord>> {
        if let Some(r) = self.shortcuts.0.lock().get(&name) {
            return Some(r.clone());
        }
        let routes = self.routes_now();
        let port = PortId(miss.key.get64(FieldId::DpPort) as u32);
        let (bridge, pipeline, no, from) = entrance(&routes, port)?;
        if classify(&pipeline, &routes.tunnels.routing, no, from, &miss.key) != name {
            return None;
        }
        let mut o = bridge.translate_by(&routes, &pipeline, &miss.key, no, Start::Tables, false);
        if !is_plain(&o) {
            return None;
        }
        let mut all = self.shortcuts.0.lock();
        if all.len() >= MOST {
            return None;
        }
        let record = Arc::new(FlowRecord {
            id: self.new_flow_id(),
            matches: PackedMatch::default(),
            owner: Arc::new(FlowOwner::new(o.basis(Some(bridge.index())), Arc::default())),
            actions: o.actions.into(),
            counters: Arc::new(FlowCounters::default()),
            created: now,
        });
        // Another core may have been first.
        Some(all.entry(name).or_insert(record).clone())
    }

    /// Credits what has taken shortcuts to the rules.
    pub(crate) fn credit_shortcuts(&self) {
        let all: Vec<_> = self.shortcuts.0.lock().values().cloned().collect();
        all.iter().for_each(|r| self.credit_record(r));
    }

    /// Forgets shortcuts that no core has any more. After [`Switch::credit_shortcuts`].
    pub(crate) fn forget_shortcuts(&self) {
        self.shortcuts.0.lock().retain(|_, r| {
            let used = Arc::strong_count(r) > 1;
            if !used {
                self.credit_record(r);
            }
            used
        });
    }

    /// Chains of plain rules that packets without a record have taken and that a core remembers.
    pub fn n_shortcuts(&self) -> usize {
        self.shortcuts.0.lock().len()
    }
}
