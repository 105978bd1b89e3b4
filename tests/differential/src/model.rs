//! The flow tables as a list, with flow-mods in the plainest form: what the switch's tables are held against.

use std::collections::BTreeMap;

use flow::PipelineMatch;
use openflow::FlowMod;
use openflow::flow_mod::{FlowModCommand, FlowModFlags, Instructions};
use openflow::number::TableId;

use crate::reference::Verdict;
use crate::rig::Counts;

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Table.
    pub table: u8,
    /// Priority; distinct within a table.
    pub priority: u16,
    /// Cookie.
    pub cookie: u64,
    /// The packets.
    pub matches: PipelineMatch,
    /// What happens to them.
    pub instructions: Instructions,
    /// Packets counted.
    pub packets: u64,
    /// Bytes counted.
    pub bytes: u64,
}

impl Flow {
    /// The flow-mod that deletes this flow and no other.
    pub fn deletion(&self) -> FlowMod {
        FlowMod {
            table: TableId(self.table),
            priority: self.priority,
            cookie: self.cookie,
            matches: self.matches,
            ..FlowMod::new(FlowModCommand::DeleteStrict)
        }
    }
}

/// All flows.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// In no order.
    pub flows: Vec<Flow>,
}

impl Model {
    /// Applies a flow-mod that the switch has accepted (OpenFlow 1.3.5 6.4).
    pub fn apply(&mut self, fm: &FlowMod) {
        let strict = matches!(fm.command, FlowModCommand::ModifyStrict | FlowModCommand::DeleteStrict);
        let chosen = |f: &Flow| {
            (fm.table == TableId::ALL || f.table == fm.table.0)
                && (f.cookie ^ fm.cookie) & fm.cookie_mask == 0
                && if strict {
                    f.priority == fm.priority && f.matches == fm.matches
                } else {
                    f.matches.is_subset_of(&fm.matches)
                }
        };
        match fm.command {
            FlowModCommand::Add => {
                let old = self.flows.iter().position(|f| {
                    f.table == fm.table.0 && f.priority == fm.priority && f.matches == fm.matches
                });
                let old = old.map(|i| self.flows.swap_remove(i));
                let keep = old.filter(|_| !fm.flags.has(FlowModFlags::RESET_COUNTS));
                self.flows.push(Flow {
                    table: fm.table.0,
                    priority: fm.priority,
                    cookie: fm.cookie,
                    matches: fm.matches,
                    instructions: fm.instructions.clone(),
                    packets: keep.as_ref().map_or(0, |f| f.packets),
                    bytes: keep.as_ref().map_or(0, |f| f.bytes),
                });
            }
            FlowModCommand::Modify | FlowModCommand::ModifyStrict => {
                for f in self.flows.iter_mut().filter(|f| chosen(f)) {
                    f.instructions = fm.instructions.clone();
                    if fm.flags.has(FlowModFlags::RESET_COUNTS) {
                        (f.packets, f.bytes) = (0, 0);
                    }
                }
            }
            FlowModCommand::Delete | FlowModCommand::DeleteStrict => self.flows.retain(|f| !chosen(f)),
        }
    }

    /// Counts a packet for the flows that it met, by their places, with its length at each.
    pub fn count(&mut self, v: &Verdict) {
        for (hit, bytes) in v.hits.iter().zip(&v.bytes) {
            let f = &mut self.flows[*hit];
            f.packets += 1;
            f.bytes += *bytes as u64;
        }
    }

    /// Counters by table and priority.
    pub fn counts(&self) -> Counts {
        let rows = self.flows.iter().map(|f| ((f.table, f.priority), (f.packets, f.bytes)));
        let all: BTreeMap<_, _> = rows.collect();
        assert_eq!(all.len(), self.flows.len(), "priorities are not distinct");
        all
    }
}

impl crate::reference::Flow for Flow {
    fn table(&self) -> u8 {
        self.table
    }
    fn priority(&self) -> u16 {
        self.priority
    }
    fn matches(&self) -> &PipelineMatch {
        &self.matches
    }
    fn instructions(&self) -> &Instructions {
        &self.instructions
    }
}
