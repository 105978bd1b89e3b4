//! Ports that are one of several, and ports that speak link aggregation control ([`bonds`]): who they are, what they send, and what
//! is published of it for translations ([`crate::bundle`]).
//!
//! ```text
//!   settings of ports ─► Aggregate ─┬─ Lacp ─► frames ─► sent by the port;  what comes in on it ─► Lacp
//!      links ──────────────────────►│    │ whether it may be used: the port is live, or not
//!      bytes of each bucket ───────►└─ Bond ─► Bundle, published;  frames that say where stations are now
//! ```
//!
//! All of it is done by the control thread.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use bonds::bond::BondView;
use bonds::{Bond, Lacp, LacpStatus};
use clock::Instant;
use datapath_api::Datapath;
use openflow::PortNo;
use openflow::port::{PortConfig, PortState};
use parking_lot::Mutex;

use crate::bond_tables::BondTable;
use crate::bridge::{Bridge, Watcher};
use crate::bundle::Bundle;
use crate::mac_table::MacEntry;
use crate::port::{Port, Ports};
use crate::recirc::{Recirc, Recircs};
use crate::rule::RuleCounters;
use crate::settings::Aggregation;
use crate::switch::Switch;
use crate::vlan::VlanMode;

/// Answers to answers at most, in one round.
const MAX_ANSWERS: usize = 16;
/// Most stations that are told of at a time.
const MAX_LESSONS: usize = 4096;

/// An aggregate: its bridge and its name.
type Place = (u32, String);

#[derive(Default)]
struct Aggregate {
    lacp: Option<Lacp>,
    bond: Option<Bond>,
    /// Its members by number, and their names.
    members: BTreeMap<PortNo, String>,
    /// Whether members may be used, as was told last.
    fit: BTreeMap<PortNo, bool>,
    sent: Option<Arc<[Arc<RuleCounters>]>>,
    published: Option<BondView>,
    /// What the datapath chooses its members by, if it does.
    table: BondTable,
}

/// What a round of a bond needs to know.
struct Round<'a> {
    place: &'a Place,
    ports: &'a Ports,
    datapath: Option<&'a Arc<dyn Datapath>>,
    recircs: &'a Recircs,
    /// Whether everything that has been sent is counted.
    counted: bool,
    now: Instant,
}

/// What a round of a bond comes to.
#[derive(Default)]
struct News {
    /// What is to be published, if it is something new.
    bundle: Option<Option<Arc<Bundle>>>,
    /// Stations are to be told of.
    lesson: bool,
    /// A table that is to go.
    leaving: Option<Arc<Recirc>>,
}

/// Every aggregate.
#[derive(Default)]
pub(crate) struct Aggregates(Mutex<BTreeMap<Place, Aggregate>>);

/// What a member of an aggregate is known to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberStatus {
    /// What is known of its partner is fresh; `None` where link aggregation is not spoken.
    pub lacp_current: Option<bool>,
}

fn has_carrier(p: &Port) -> bool {
    !p.state.has(PortState::LINK_DOWN) && !p.config.has(PortConfig::PORT_DOWN)
}

impl Switch {
    /// Makes a port a member of what its settings say, and of nothing else. Whether it may be used, as far as is known.
    pub(crate) fn aggregate_port(&self, bridge: u32, port: &Port, system: [u8; 6]) -> bool {
        let now = self.now();
        let wanted = port.settings.aggregation.as_ref();
        let mut all = self.aggregates.0.lock();
        for ((b, name), a) in all.iter_mut() {
            if *b == bridge && wanted.is_none_or(|w| w.name != *name) {
                a.remove(port.no);
            }
        }
        let Some(w) = wanted else { return true };
        let a = all.entry((bridge, w.name.clone())).or_default();
        a.configure(w, system);
        a.members.insert(port.no, port.name.clone());
        if let Some(b) = &mut a.bond {
            b.put_member(port.no.0, &port.name, port.hw_addr.0);
        }
        let fit = match &mut a.lacp {
            Some(l) => {
                l.put_member(port.no.0, &port.name, w.port, port.hw_addr.0, now);
                l.set_carrier(port.no.0, has_carrier(port), now);
                l.may_enable(port.no.0)
            }
            None => true,
        };
        a.fit.insert(port.no, fit);
        drop(all);
        self.wake();
        fit
    }

    /// A port is gone.
    pub(crate) fn part_port(&self, bridge: u32, no: PortNo) {
        let mut all = self.aggregates.0.lock();
        all.iter_mut().filter(|((b, _), _)| *b == bridge).for_each(|(_, a)| a.remove(no));
        drop(all);
        self.wake();
    }

    /// All ports of a bridge are gone.
    pub(crate) fn part_bridge(&self, bridge: u32) {
        self.aggregates.0.lock().retain(|(b, _), _| *b != bridge);
    }

    /// A frame of slow protocols has come in.
    pub(crate) fn heard_lacp(&self, bridge: u32, no: PortNo, frame: &[u8], now: Instant) {
        let mut all = self.aggregates.0.lock();
        let of = all.iter_mut().find(|((b, _), a)| *b == bridge && a.members.contains_key(&no));
        if let Some(l) = of.and_then(|(_, a)| a.lacp.as_mut()) {
            l.receive(no.0, frame, now);
        }
    }

    /// Does what is due of aggregates. To be called by the control thread.
    pub(crate) fn tend_aggregates(&self, now: Instant) {
        self.drop_tables();
        let places: Vec<Place> = self.aggregates.0.lock().keys().cloned().collect();
        if places.is_empty() {
            return;
        }
        for (bridge, name) in &places {
            let Some(b) = self.bridge(*bridge) else { continue };
            let ports = b.pipeline().ports.clone();
            if let Some(a) = self.aggregates.0.lock().get_mut(&(*bridge, name.clone())) {
                let members: Vec<PortNo> = a.members.keys().copied().collect();
                if let Some(l) = &mut a.lacp {
                    l.set_bridge(b.system());
                    for p in members.iter().filter_map(|no| ports.get(*no)) {
                        l.set_carrier(p.no.0, has_carrier(p), now);
                    }
                }
            }
        }
        for _ in 0..MAX_ANSWERS {
            let sent: usize = places.iter().map(|p| self.send_units(p, now)).sum();
            if sent == 0 {
                break;
            }
            self.take_arrived(now);
        }
        for p in &places {
            self.settle_aggregate(p, now);
        }
        self.aggregates.0.lock().retain(|_, a| !a.members.is_empty());
    }

    /// Sends the units of an aggregate that are due; how many.
    fn send_units(&self, place: &Place, now: Instant) -> usize {
        let units = {
            let mut all = self.aggregates.0.lock();
            let Some(l) = all.get_mut(place).and_then(|a| a.lacp.as_mut()) else { return 0 };
            l.run(now);
            l.emit(now)
        };
        let Some(b) = self.bridge(place.0) else { return 0 };
        for (member, frame) in &units {
            self.send_by(&b, PortNo(*member), frame, false);
        }
        units.len()
    }

    /// Has ports be live or not as link aggregation says, and publishes what its bond says.
    fn settle_aggregate(&self, place: &Place, now: Instant) {
        let Some(b) = self.bridge(place.0) else { return };
        let changed = {
            let mut all = self.aggregates.0.lock();
            let Some(a) = all.get_mut(place) else { return };
            if let Some(l) = &mut a.lacp {
                l.run(now);
            }
            a.news_of_fitness()
        };
        for (no, fit) in changed {
            b.set_fit(no, Watcher::Lacp, fit);
        }
        let counted = {
            let mut all = self.aggregates.0.lock();
            let due = all.get_mut(place).and_then(|a| a.bond.as_mut()).is_some_and(|b| b.is_due(now));
            drop(all);
            due.then(|| self.collect())
        };
        let ports = b.pipeline().ports.clone();
        let news = {
            let mut all = self.aggregates.0.lock();
            let Some(a) = all.get_mut(place) else { return };
            a.run_bond(&Round {
                place,
                ports: &ports,
                datapath: self.datapath(),
                recircs: &self.recircs,
                counted: counted.is_some(),
                now,
            })
        };
        if let Some(bundle) = news.bundle {
            b.publish_bundle(&place.1, bundle);
        }
        if let Some(number) = news.leaving {
            self.table_leaves(&b, number);
        }
        if news.lesson {
            self.teach(&b, &place.1);
        }
    }

    /// Sends frames from the stations behind other ports by a bond, so that those at the other end find them there.
    fn teach(&self, b: &Bridge, name: &str) {
        let pipeline = b.pipeline();
        let Some(bundle) = pipeline.bundles.iter().find(|u| u.name == name) else { return };
        let Some(vlan) = pipeline.ports.get(bundle.port).map(|p| p.settings.vlan.clone()) else { return };
        let entries = b.macs().entries(self.now());
        for e in entries.iter().filter(|e| pipeline.bundles.stand_in(e.port) != bundle.port).take(MAX_LESSONS)
        {
            let hash = crate::xlate::hash_of_station(e.key.mac, e.key.vlan, bundle.view.basis);
            if let Some(member) = bundle.view.member_of(hash) {
                self.send_by(b, PortNo(member), &lesson(e, &vlan), false);
            }
        }
    }

    fn with_bond<T>(&self, name: &str, f: impl FnOnce(&mut Bond) -> Result<T, String>) -> Result<T, String> {
        let mut all = self.aggregates.0.lock();
        let found = all.iter_mut().filter(|((_, n), _)| n == name).find_map(|(_, a)| a.bond.as_mut());
        let out = f(found.ok_or("no such bond")?);
        drop(all);
        self.wake();
        out
    }

    /// The text of `bond/show`, of one bond or of all.
    ///
    /// # Errors
    /// There is no such bond.
    pub fn bond_text(&self, name: Option<&str>) -> Result<String, String> {
        let now = self.now();
        let mut all = self.aggregates.0.lock();
        for ((bridge, _), a) in all.iter_mut() {
            let of_bond = |first: &PortNo| self.recircs.of_bond(*bridge, *first);
            let id = a.table.number().or_else(|| a.members.keys().next().and_then(of_bond));
            if let Some(b) = &mut a.bond {
                b.set_recirc(id);
            }
        }
        let mut found: Vec<&Bond> = all
            .values()
            .filter_map(|a| a.bond.as_ref())
            .filter(|b| name.is_none_or(|n| b.name() == n))
            .collect();
        found.sort_by_key(|b| b.name());
        match (found.is_empty(), name) {
            (true, Some(_)) => Err("no such bond".into()),
            _ => Ok(found.iter().map(|b| b.text(now)).collect()),
        }
    }

    /// The text of `bond/list`.
    pub fn bond_list(&self) -> String {
        let all = self.aggregates.0.lock();
        let lines: String = all.values().filter_map(|a| a.bond.as_ref()).map(Bond::line).collect();
        format!("Bond\tType\tRecircID\tMembers\n{lines}")
    }

    /// `bond/migrate`.
    ///
    /// # Errors
    /// What the command says.
    pub fn bond_migrate(&self, bond: &str, hash: &str, member: &str) -> Result<(), String> {
        self.with_bond(bond, |b| b.migrate(hash, member))
    }

    /// `bond/set-active-member`: whether that is another one.
    ///
    /// # Errors
    /// What the command says.
    pub fn bond_set_active(&self, bond: &str, member: &str) -> Result<bool, String> {
        self.with_bond(bond, |b| b.set_active(member))
    }

    /// `bond/enable-member` and `bond/disable-member`.
    ///
    /// # Errors
    /// What the command says.
    pub fn bond_force(&self, bond: &str, member: &str, on: bool) -> Result<(), String> {
        self.with_bond(bond, |b| b.force(member, on))
    }

    /// Address of the member of a bond that is active, or was last.
    pub fn bond_active_mac(&self, name: &str) -> Option<[u8; 6]> {
        let all = self.aggregates.0.lock();
        all.iter().find(|((_, n), _)| n == name).and_then(|(_, a)| a.bond.as_ref()?.active_mac())
    }

    /// What is known of the port called `name` as a member.
    pub fn member_status(&self, name: &str) -> MemberStatus {
        let all = self.aggregates.0.lock();
        let lacp_current = all.values().find_map(|a| {
            let (no, _) = a.members.iter().find(|(_, n)| *n == name)?;
            Some(a.lacp.as_ref()?.is_current(no.0))
        });
        MemberStatus { lacp_current }
    }

    /// What link aggregation control says of a port of a bridge, if it is spoken there.
    pub(crate) fn lacp_counters(&self, bridge: u32, no: PortNo) -> Option<exporters::sflow::LacpCounters> {
        let all = self.aggregates.0.lock();
        let of = all.iter().filter(|((b, _), a)| *b == bridge && a.members.contains_key(&no));
        let report = of.filter_map(|(_, a)| a.lacp.as_ref()?.report(no.0)).next()?;
        let n = report.counters;
        Some(exporters::sflow::LacpCounters {
            actor: report.actor.system,
            partner: report.partner.system,
            aggregate: report.key.into(),
            states: [report.wanted, report.actor.state, 0, report.partner.state],
            messages: [n.received, n.bad, n.sent].map(|n| n as u32),
        })
    }

    /// The text of `lacp/show` or `lacp/show-stats`, of one aggregate or of all.
    ///
    /// # Errors
    /// There is no such aggregate.
    pub fn lacp_text(&self, name: Option<&str>, counters: bool) -> Result<String, String> {
        let all = self.aggregates.0.lock();
        let mut out = String::new();
        for l in all.values().filter_map(|a| a.lacp.as_ref()).filter(|l| name.is_none_or(|n| l.name() == n)) {
            let _ = write!(out, "{}", if counters { l.counters_text() } else { l.text() });
        }
        if out.is_empty() && name.is_some() { Err("no such lacp object".into()) } else { Ok(out) }
    }
}

impl Aggregate {
    fn configure(&mut self, w: &Aggregation, system: [u8; 6]) {
        match (&mut self.lacp, &w.lacp) {
            (l, None) => *l = None,
            (Some(l), Some(s)) => l.configure(s, system),
            (l, Some(s)) => *l = Some(Lacp::new(&w.name, s.clone(), system)),
        }
        match (&mut self.bond, &w.bond) {
            (b, None) => *b = None,
            (Some(b), Some(s)) => b.configure(s),
            (b, Some(s)) => *b = Some(Bond::new(&w.name, s.clone())),
        }
    }

    fn remove(&mut self, no: PortNo) {
        if self.members.remove(&no).is_none() {
            return;
        }
        self.fit.remove(&no);
        if let Some(l) = &mut self.lacp {
            l.remove_member(no.0);
        }
        if let Some(b) = &mut self.bond {
            b.remove_member(no.0);
        }
    }

    /// Members that may be used now and could not before, or the other way round.
    fn news_of_fitness(&mut self) -> Vec<(PortNo, bool)> {
        let lacp = self.lacp.as_ref();
        let now = self.members.keys().map(|no| (*no, lacp.is_none_or(|l| l.may_enable(no.0))));
        let changed: Vec<_> = now.filter(|(no, fit)| self.fit.get(no) != Some(fit)).collect();
        self.fit.extend(changed.iter().copied());
        changed
    }

    /// Does what is due of the bond.
    fn run_bond(&mut self, r: &Round<'_>) -> News {
        let status = self.lacp.as_ref().map_or(LacpStatus::Off, Lacp::status);
        let first = self.members.keys().next().copied();
        let (Some(bond), Some(first)) = (&mut self.bond, first) else {
            let bundle = self.published.take().map(|_| None);
            return News { bundle, leaving: self.table.take(), ..News::default() };
        };
        for no in self.members.keys() {
            let live = r.ports.get(*no).is_some_and(|p| has_carrier(p) && p.state.has(PortState::LIVE));
            bond.set_may_enable(no.0, live);
        }
        let sent = self.sent.get_or_insert_with(Bundle::new_counters);
        self.table.credit(r.datapath, sent);
        for (i, c) in sent.iter().enumerate() {
            bond.count(i, c.bytes());
        }
        bond.run(status, r.now);
        if r.counted {
            bond.rebalance(r.now);
        }
        let mut view = bond.view();
        let wanted = bond.settings().lb_output && view.by_connection();
        let number = r.datapath.filter(|_| wanted).and_then(|dp| {
            let (bridge, name) = r.place;
            self.table.put((dp, r.recircs), (*bridge, name, first), &view, r.ports)
        });
        let leaving = if number.is_none() { self.table.take() } else { None };
        bond.set_table(number);
        view.table = number;
        let lesson = bond.takes_lesson();
        if self.published.as_ref().is_some_and(|p| p.says(&view)) {
            return News { lesson, leaving, ..News::default() };
        }
        self.published = Some(view.clone());
        let bundle = Bundle { name: bond.name().to_owned(), port: first, view, sent: sent.clone() };
        News { bundle: Some(Some(Arc::new(bundle))), lesson, leaving }
    }
}

/// A frame that says that a station is here: its request for its own address (RFC 903), which nobody answers.
fn lesson(e: &MacEntry, vlan: &VlanMode) -> Vec<u8> {
    const REVERSE_REQUEST: u16 = 3;
    let mac = &e.key.mac.to_be_bytes()[2..];
    let mut out = vec![0xff; 6];
    out.extend(mac);
    let native = match vlan {
        VlanMode::Access { vlan } | VlanMode::Dot1qTunnel { vlan, .. } => Some(*vlan),
        VlanMode::NativeUntagged { native, .. } => Some(*native),
        _ => None,
    };
    if e.key.vlan != 0 && native != Some(e.key.vlan) {
        out.extend([0x81, 0x00]);
        out.extend(e.key.vlan.to_be_bytes());
    }
    out.extend([0x80, 0x35, 0, 1, 8, 0, 6, 4]);
    out.extend(REVERSE_REQUEST.to_be_bytes());
    for _ in 0..2 {
        out.extend(mac);
        out.extend([0; 4]);
    }
    out.resize(out.len().max(60), 0);
    out
}
