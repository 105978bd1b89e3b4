//! Bonds that the datapath has a table of ([`flow::Action::LbOutput`]): which, what is in it, and what has been sent by it.
//!
//! ```text
//!   Bond, wants lb_output ─► a number, held ─► Datapath::bond_put ─► published with the bond ─► translations name the number
//!     loads are moved ─────────────────────────► Datapath::bond_put: flows stay as they are
//!     it is not wanted any more ─► published without ─► flows follow ─► Datapath::bond_del
//! ```
//!
//! The number is a recirculation id, kept for as long as the table is there: as in Open vSwitch, packets would go round with it if
//! the datapath had no table.

use std::sync::Arc;

use bonds::bond::{BUCKETS, BondView};
use datapath_api::{BondConfig, BucketCounts, Datapath, DatapathError};
use flow::{BondId, PipelineKey, PortId};
use openflow::PortNo;
use openflow::port::PortConfig;
use parking_lot::Mutex;

use crate::bridge::Bridge;
use crate::port::{Port, Ports};
use crate::recirc::{Frozen, Later, Recirc, Recircs};
use crate::rule::RuleCounters;
use crate::switch::Switch;

const _: () = assert!(BUCKETS == datapath_api::BOND_BUCKETS);

/// A table that a datapath has, or was asked to have.
struct Table {
    number: Arc<Recirc>,
    asked: BondConfig,
    has: bool,
    /// What it had sent when that was looked at last.
    seen: Vec<BucketCounts>,
}

/// The table of a bond, if it has one.
#[derive(Default)]
pub(crate) struct BondTable {
    table: Option<Table>,
    /// That the datapath cannot has been said.
    refused: bool,
}

/// A table that goes when no flow names it any more.
struct Leaving {
    bridge: u32,
    /// Tables of the bridge from this generation on are without it.
    generation: u64,
    number: Arc<Recirc>,
}

/// Tables of datapaths that are not wanted any more.
#[derive(Default)]
pub(crate) struct LeavingTables(Mutex<Vec<Leaving>>);

/// Whether a packet that leaves by `p` is as it is for any member: a table of ports is all that it takes.
fn is_plain(p: &Port) -> bool {
    p.patch.is_none() && p.tunnel.is_none() && p.settings.queues.values().all(|q| q.dscp.is_none())
}

/// The port of each bucket; `None` when a member is not one that a table can name.
fn members(view: &BondView, ports: &Ports) -> Option<Box<[Option<PortId>; BUCKETS]>> {
    let mut out = Box::new([None; BUCKETS]);
    for (to, member) in out.iter_mut().zip(view.buckets()) {
        let Some(p) = member.and_then(|m| ports.get(PortNo(m))) else { continue };
        if !is_plain(p) {
            return None;
        }
        *to = Some(p.dp).filter(|_| p.forwards() && !p.config.has(PortConfig::PORT_DOWN));
    }
    Some(out)
}

impl BondTable {
    /// The number that it goes by, while the datapath has it.
    pub(crate) fn number(&self) -> Option<u32> {
        self.table.as_ref().filter(|t| t.has).map(|t| t.number.id)
    }

    /// Credits what has been sent by each bucket since the last time.
    pub(crate) fn credit(&mut self, dp: Option<&Arc<dyn Datapath>>, sent: &[Arc<RuleCounters>]) {
        let Some(t) = self.table.as_mut().filter(|t| t.has) else { return };
        let Some(Ok(now)) = dp.map(|d| d.bond_stats(BondId(t.number.id))) else { return };
        for ((to, now), seen) in sent.iter().zip(&now).zip(&t.seen) {
            let (packets, bytes) =
                (now.packets.saturating_sub(seen.packets), now.bytes.saturating_sub(seen.bytes));
            if packets > 0 {
                to.add(packets, bytes, None);
            }
        }
        t.seen = now;
    }

    /// Has the datapath send by a table as `view` of the bond `name` says, whose first member is `first`. The number to be published;
    /// `None` when the datapath cannot, which is logged once.
    pub(crate) fn put(
        &mut self,
        (dp, recircs): (&Arc<dyn Datapath>, &Recircs),
        (bridge, name, first): (u32, &str, PortNo),
        view: &BondView,
        ports: &Ports,
    ) -> Option<u32> {
        let of_it = |t: &Table| t.number.state.then == [Later::Bond(first)];
        if self.table.as_ref().is_none_or(|t| !t.has && !of_it(t)) {
            let state =
                Frozen { then: vec![Later::Bond(first)], ..Frozen::of(bridge, first, &PipelineKey::ZERO) };
            let asked = BondConfig { basis: 0, members: Box::new([None; BUCKETS]) };
            self.table = Some(Table { number: recircs.freeze(state)?, asked, has: false, seen: Vec::new() });
        }
        let t = self.table.as_mut()?;
        let members = members(view, ports);
        let fits = members.is_some();
        let wanted =
            BondConfig { basis: view.basis, members: members.unwrap_or_else(|| t.asked.members.clone()) };
        if t.has && fits && t.asked == wanted {
            return Some(t.number.id);
        }
        let done = if fits {
            dp.bond_put(BondId(t.number.id), wanted.clone())
        } else {
            Err(DatapathError::Unsupported("a bond with such members"))
        };
        match done {
            Ok(()) => {
                (t.asked, self.refused) = (wanted, false);
                if !std::mem::replace(&mut t.has, true) {
                    t.seen = vec![BucketCounts::default(); BUCKETS];
                }
                Some(t.number.id)
            }
            Err(e) => {
                if !std::mem::replace(&mut self.refused, true) {
                    tracing::debug!(target: "bond", "{name}: {e}");
                    tracing::warn!(target: "bond", "{name}: Datapath does not support 'lb_output' action, disabled.");
                }
                None
            }
        }
    }

    /// It is not wanted any more: what is left of it, until no flow names it.
    pub(crate) fn take(&mut self) -> Option<Arc<Recirc>> {
        self.table.take().filter(|t| t.has).map(|t| t.number)
    }
}

impl Switch {
    /// Has a table go once the records of bridge `b` follow what is published now, which is without it.
    pub(crate) fn table_leaves(&self, b: &Bridge, number: Arc<Recirc>) {
        let generation = b.pipeline().generation;
        self.leaving_tables.0.lock().push(Leaving { bridge: b.index(), generation, number });
    }

    /// Takes away tables that no flow names any more.
    pub(crate) fn drop_tables(&self) {
        let follows = |l: &Leaving| self.bridge(l.bridge).is_none_or(|b| b.follows(l.generation));
        let gone: Vec<Leaving> = self.leaving_tables.0.lock().extract_if(.., |l| follows(l)).collect();
        for l in gone {
            // It may have been taken away with its ports' datapath.
            let _ = self.datapath().map(|d| d.bond_del(BondId(l.number.id)));
        }
    }
}
