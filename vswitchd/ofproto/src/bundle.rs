//! Bonds as translations see them: for each port that is a member of one, what that says by now.
//!
//! Stations are learned on the bond, not on the member that a packet came in by. Where a port number is wanted, a bond goes by that
//! of its first member.

use std::sync::Arc;

use bonds::bond::{BUCKETS, BondView};
use imbl::OrdMap;
use openflow::PortNo;

use crate::rule::RuleCounters;

/// A bond.
#[derive(Debug)]
pub struct Bundle {
    /// Its name.
    pub name: String,
    /// Number of its first member, which stands for it.
    pub port: PortNo,
    /// What it says.
    pub view: BondView,
    /// What has been sent by each bucket.
    pub(crate) sent: Arc<[Arc<RuleCounters>]>,
}

impl Bundle {
    /// Counters of buckets that nothing has fallen into yet.
    pub(crate) fn new_counters() -> Arc<[Arc<RuleCounters>]> {
        (0..BUCKETS).map(|_| Arc::default()).collect()
    }
}

/// The bonds of a bridge, by the numbers of their members.
#[derive(Clone, Default, Debug)]
pub struct Bundles(OrdMap<u32, Arc<Bundle>>);

impl Bundles {
    /// The bond that a port is a member of.
    pub fn of(&self, port: PortNo) -> Option<&Arc<Bundle>> {
        self.0.get(&port.0)
    }

    /// The port that stands for a port: itself, unless it is a member of a bond.
    pub fn stand_in(&self, port: PortNo) -> PortNo {
        self.of(port).map_or(port, |b| b.port)
    }

    /// Whether a port stands for itself or for its bond.
    pub fn stands(&self, port: PortNo) -> bool {
        self.stand_in(port) == port
    }

    /// Every bond.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        self.0.iter().filter(|(port, b)| b.port.0 == **port).map(|(_, b)| b)
    }

    /// Puts a bond in the place of the one with its name; `None` takes that away.
    pub(crate) fn put(&mut self, name: &str, bundle: Option<Arc<Bundle>>) {
        let members: Vec<u32> = self.0.iter().filter(|(_, b)| b.name == name).map(|(m, _)| *m).collect();
        members.iter().for_each(|m| drop(self.0.remove(m)));
        if let Some(b) = bundle {
            for (member, _) in &b.view.members {
                self.0.insert(*member, Arc::clone(&b));
            }
        }
    }
}
