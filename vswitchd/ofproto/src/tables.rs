//! The flow tables of a bridge, in versions.
//!
//! A [`Pipeline`] is everything a translation reads: tables, ports, fragment handling. It is immutable once published;
//! the writer changes a copy that shares what did not change, and publishes it whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use classifier::{DEFAULT_PREFIXES, MAX_PREFIXES, Version};
use flow::FieldId;
use openflow::GroupId;

use crate::bundle::Bundles;
use crate::groups::Group;
use crate::meters::Meter;
use crate::mirror::Mirrors;
use crate::port::{Port, Ports};
use crate::room::TableConfig;
use crate::rule::Rule;
use crate::settings::BridgeSettings;

/// Number of tables: 0 to 253.
pub const N_TABLES: u8 = 254;

/// How fragments are matched (OpenFlow 1.3.5 7.3.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FragHandling {
    /// Fragments are matched as if they had no ports.
    #[default]
    Normal,
    /// Fragments are dropped.
    Drop,
    /// Fragments are matched as they are (Nicira).
    NxMatch,
}

impl FragHandling {
    /// The number in `ofp_switch_config`.
    pub fn to_wire(self) -> u16 {
        match self {
            FragHandling::Normal => 0,
            FragHandling::Drop => 1,
            FragHandling::NxMatch => 3,
        }
    }

    /// From the number in `ofp_switch_config`; `None` for reassembly and the unknown.
    pub fn from_wire(v: u16) -> Option<Self> {
        [FragHandling::Normal, FragHandling::Drop, FragHandling::NxMatch]
            .into_iter()
            .find(|f| f.to_wire() == v)
    }
}

/// One table.
#[derive(Clone, Default)]
pub struct Table {
    /// Its rules; a rule's classifier priority is its OpenFlow priority.
    pub rules: Version<Rule>,
    /// Changes whenever the rules do.
    pub generation: u64,
}

impl Table {
    /// How many rules have this cookie; counts no further than to `most`.
    pub(crate) fn n_with_cookie(&self, cookie: u64, most: u32) -> u32 {
        self.rules.rules().filter(|f| f.rule.cookie == cookie).take(most as usize).count() as u32
    }
}

/// What translations read.
#[derive(Clone, Default)]
pub struct Pipeline {
    /// Tables up to the last that has ever had a rule.
    tables: Vec<Arc<Table>>,
    /// The bridge's ports.
    pub ports: Arc<Ports>,
    /// Those of them that are members of bonds.
    pub bundles: Bundles,
    /// Groups by number.
    pub groups: imbl::OrdMap<u32, Arc<Group>>,
    /// Meters by number.
    pub meters: imbl::OrdMap<u32, Arc<Meter>>,
    /// Packets that no flow matches go to the controllers where the table does not say otherwise: one of them speaks a
    /// version that has no table-miss flows.
    pub misses_told: bool,
    /// How fragments are matched.
    pub frag: FragHandling,
    /// What controllers have made of tables; those that are as they came are left out.
    pub table_config: imbl::OrdMap<u8, TableConfig>,
    /// Names that controllers gave to tables of which the administrator gave none.
    pub table_names: imbl::OrdMap<u8, Arc<str>>,
    /// What OpenFlow does not know of the bridge.
    pub settings: Arc<BridgeSettings>,
    /// Which tunnel options its flows can speak of.
    pub(crate) options: crate::tlv::Mappings,
    /// Its mirrors, as they are at work.
    pub mirrors: Mirrors,
    /// Rises with every change to this or any table.
    pub generation: u64,
    /// Value of `generation` when ports or settings last changed.
    pub config_generation: u64,
}

impl Pipeline {
    /// Without rules and ports.
    pub(crate) fn new(settings: Arc<BridgeSettings>) -> Self {
        let mirrors = Mirrors::new(&settings.mirrors, &Mirrors::default());
        Pipeline { settings, mirrors, ..Pipeline::default() }
    }

    /// Table `id`, unless it never had a rule.
    pub fn table(&self, id: u8) -> Option<&Table> {
        self.tables.get(usize::from(id)).map(|t| &**t)
    }

    /// Each way out of the bridge once: its ports, and of those that are members of a bond the one that stands for it.
    pub(crate) fn ways(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter().filter(|p| self.bundles.stands(p.no))
    }

    /// Group `id`.
    pub fn group(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id.0).map(|g| &**g)
    }

    /// The generation of table `id`; 0 for one that never had a rule.
    pub fn table_generation(&self, id: u8) -> u64 {
        self.table(id).map_or(0, |t| t.generation)
    }

    /// Table `id`, to change it. Its generation becomes that of the pipeline, which the caller has raised.
    pub(crate) fn table_mut(&mut self, id: u8) -> &mut Table {
        let i = usize::from(id);
        while self.tables.len() <= i {
            let rules = Version::with_prefixes(self.prefixes(self.tables.len() as u8));
            self.tables.push(Arc::new(Table { rules, generation: 0 }));
        }
        let t = Arc::make_mut(&mut self.tables[i]);
        t.generation = self.generation;
        t.rules.set_exact(self.settings.stock_megaflows);
        t
    }

    /// The fields of which table `id` is to search prefixes.
    fn prefixes(&self, id: u8) -> &[FieldId] {
        let own = self.settings.tables.get(&id).and_then(|t| t.prefixes.as_deref());
        // Open vSwitch has none of IPv6 unless it is asked for them.
        let usual = if self.settings.stock_megaflows { &DEFAULT_PREFIXES[..2] } else { &DEFAULT_PREFIXES };
        own.unwrap_or(usual)
    }

    /// Has every table search the prefixes that it is to search.
    pub(crate) fn keep_prefixes(&mut self) {
        for id in 0..self.tables.len() as u8 {
            let (old, wanted) = (&self.tables[usize::from(id)].rules, self.prefixes(id));
            let wanted = &wanted[..wanted.len().min(MAX_PREFIXES)];
            if old.prefixes() == wanted {
                continue;
            }
            let mut rules = Version::with_prefixes(wanted);
            for (m, f) in old.iter() {
                rules.insert(&m, f.priority, f.rule.clone());
            }
            self.table_mut(id).rules = rules;
        }
    }

    /// Every table that has ever had a rule, with its number.
    pub fn tables(&self) -> impl Iterator<Item = (u8, &Table)> {
        self.tables.iter().enumerate().map(|(i, t)| (i as u8, &**t))
    }

    /// How many rules there are in all.
    pub fn n_rules(&self) -> usize {
        self.tables.iter().map(|t| t.rules.len()).sum()
    }
}

/// Lookups of one table.
#[derive(Debug, Default)]
pub struct TableCounters {
    lookups: AtomicU64,
    matched: AtomicU64,
}

impl TableCounters {
    /// Counts `n` packets that were looked up, and whether a rule matched.
    pub fn add(&self, n: u64, matched: bool) {
        self.lookups.fetch_add(n, Ordering::Relaxed);
        if matched {
            self.matched.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// Packets looked up.
    pub fn lookups(&self) -> u64 {
        self.lookups.load(Ordering::Relaxed)
    }

    /// Packets that matched a rule.
    pub fn matched(&self) -> u64 {
        self.matched.load(Ordering::Relaxed)
    }
}
