//! Translation: from a packet's key to datapath actions, by way of the OpenFlow tables.
//!
//! ```text
//!  PacketKey ─► PipelineKey ─► table ─► rule: apply ─► write ─► metadata ─► goto ─► table ... ─► action set
//!                   │            │               │
//!                   │ current    │ bits looked   │ outputs: first bring the datapath's packet up to date
//!                   │ key        ▼ at            ▼ (only what was changed), then Output
//!                   └──────── wildcards        actions
//! ```
//!
//! **Un-wildcarding.** Every bit that the verdict depended on is in [`Outcome::mask`]: what lookups looked at, what
//! actions read, and what actions wrote, since whether a write is left out depends on what was there. Ingress port,
//! recirculation id, Ethernet type, the fragment bits of IP and the presence of a VLAN tag always are. Bits of fields that
//! a packet with this Ethernet type cannot have are not. A TTL decrement looks at no more leading bits than prove that the
//! TTL suffices.
//!
//! The same code answers misses, re-translates records, carries out packet-outs and explains itself ([`crate::trace`]):
//! the difference is what the caller does with the [`Outcome`]. Nothing is changed here, so that it runs on any core.
//!
//! **Layers that are not seen.** The pipeline sees a packet as it was parsed on arrival and as actions changed it since. Two
//! VLAN tags are parsed; a third that a packet came in with is payload to every table. What is below an MPLS label that the
//! rules popped was never parsed: a packet that goes on to be matched or written to there goes through the datapath again
//! ([`crate::recirc`]).

mod act;
mod aside;
mod bond;
mod choose;
mod commit;
mod conjunction;
mod ct;
mod encap;
mod export;
mod finish;
mod forward;
mod freeze;
mod group;
mod hash;
mod in_band;
mod learn;
mod length;
mod mcast;
mod mirror;
mod normal;
mod patch;
mod problem;
mod share;
mod slow;
mod tags;
mod tunnel;

use std::net::IpAddr;
use std::sync::Arc;

use flow::{FieldId, PacketKey, PacketMask, PipelineKey, PipelineMask};
use offload::Origin;
use openflow::message::TableMiss;
use openflow::port::PortConfig;
use openflow::{Action as OfAction, Instructions, PortNo};
use smallvec::SmallVec;

pub use hash::hash_of_station;
pub use learn::LearnedFlow;
pub use problem::Problem;
pub(crate) use tags::{hides as hides_tag, seen_in_pipeline};

use crate::exports::NetflowOf;
use crate::mac_table::MacTable;
use crate::mcast::McastTable;
use crate::patch::Peers;
use crate::recirc::{Frozen, Recirc, Recircs};
use crate::record::{Basis, Credits, Dependencies, Headed, Visit};
use crate::rule::{Rule, RuleCounters};
use crate::tables::{FragHandling, N_TABLES, Pipeline};
use crate::trace::{Fork, Step, StepKind};
use crate::tunnel::{Overheard, PacketTypes};

/// Deepest nesting of resubmits to the same table or an earlier one, groups, clones and patch ports.
pub const MAX_DEPTH: u32 = 64;
/// Deepest nesting of all of these and resubmits to later tables: one descent through every table, and [`MAX_DEPTH`].
pub const MAX_NESTING: u32 = 256 + MAX_DEPTH;
/// Most table lookups of one translation.
pub const MAX_LOOKUPS: u32 = 4096;
/// Most values on the stack.
pub const MAX_STACK: usize = 4096;
/// Most datapath actions of one translation.
pub const MAX_ACTIONS: usize = 4096;

/// What a translation reads.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// Tables, ports, settings.
    pub pipeline: &'a Pipeline,
    /// Learned stations.
    pub macs: &'a MacTable,
    /// What multicast snooping has found out.
    pub mcast: &'a McastTable,
    /// The bridge's name, for those who want to be told.
    pub name: &'a str,
    /// The bridge's number within its switch.
    pub index: u32,
    /// Where patch ports lead.
    pub peers: &'a Peers<'a>,
    /// Translations that go on when packets come back from the datapath.
    pub recircs: &'a Recircs,
}

/// What a translation came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the datapath does; empty drops.
    pub actions: Vec<flow::Action>,
    /// Every bit that this depended on.
    pub mask: PacketMask,
    /// The rules met, with repetition.
    pub rules: SmallVec<[Arc<Rule>; 4]>,
    /// Other counters that packets are added to, with repetition.
    pub credited: SmallVec<[Arc<RuleCounters>; 1]>,
    /// Which of both meet its packets behind headers of tunnels.
    pub headed: SmallVec<[Headed; 0]>,
    /// Where the verdict came from.
    pub provenance: SmallVec<[Origin; 4]>,
    /// Translations that go on when its packets come back from the datapath.
    pub recircs: SmallVec<[Arc<Recirc>; 1]>,
    /// Flows that its packets have learned.
    pub learned: SmallVec<[LearnedFlow; 0]>,
    /// It takes the last room for such a flow, or some of it: whether there is room is for the packet that comes first to find out.
    pub contends: bool,
    /// Rules whose timeouts a packet that ends its connection shortens: idle and hard, in seconds.
    pub fin_timeouts: SmallVec<[(Arc<Rule>, u16, u16); 0]>,
    /// Bridges, sources and neighbours whose Ethernet addresses are missing.
    pub wanted: SmallVec<[(u32, IpAddr, IpAddr); 0]>,
    /// What the packet says about neighbours.
    pub overheard: SmallVec<[Overheard; 0]>,
    /// What it depended on beside the packet.
    pub deps: Dependencies,
    /// The flow that its packets are counted for by NetFlow.
    pub netflow: Option<Box<NetflowOf>>,
    /// Why it is a drop, if the rules did not say so.
    pub problem: Option<Problem>,
    /// What the datapath's packet was when that happened, the number by which it had come in, and the bridge's.
    pub failed: Option<Box<(PacketKey, PortNo, u32)>>,
    /// What is wrong with the rules though the packet goes on, and with what packet, as in `failed`.
    pub complaint: Option<Box<Complaint>>,
    /// Where copies of the packet go on behind connection tracking; only when steps were asked for.
    pub forks: Vec<Fork>,
    /// The rules want it treated as if the datapath could not do it; only traces tell of that.
    pub as_if_slow: bool,
    /// What happened, in order; empty unless asked for.
    pub steps: Vec<Step>,
    /// The bits that were looked at, before the mask became one that a record can have, and what the packet was in the end;
    /// only when steps were asked for.
    pub seen: Option<Box<(PipelineMask, PipelineKey)>>,
}

/// What is wrong with rules, the datapath's packet that met them, the number by which it had come in there, and the bridge's.
pub type Complaint = (&'static str, PacketKey, PortNo, u32);

impl Outcome {
    /// What its packets are added to.
    pub(crate) fn credits(&self) -> Credits<'_> {
        Credits {
            rules: &self.rules,
            credited: &self.credited,
            headed: &self.headed,
            visits: &self.deps.visits,
            problem: self.problem,
            drops: self.actions.is_empty(),
        }
    }

    /// What a record with these actions rests on.
    pub(crate) fn basis(&mut self, bridge: Option<u32>) -> Basis {
        Basis {
            bridge,
            drops: self.actions.is_empty(),
            rules: std::mem::take(&mut self.rules),
            credited: std::mem::take(&mut self.credited),
            headed: std::mem::take(&mut self.headed),
            recircs: std::mem::take(&mut self.recircs),
            learned: std::mem::take(&mut self.learned),
            fin_timeouts: std::mem::take(&mut self.fin_timeouts),
            provenance: self.provenance.drain(..).collect(),
            deps: std::mem::take(&mut self.deps),
            problem: self.problem,
            netflow: self.netflow.take(),
        }
    }
}

/// Where a translation starts.
pub enum Start<'a> {
    /// At table 0.
    Tables,
    /// With these actions, as a packet-out says, with registers and metadata of this key.
    Actions {
        /// The actions.
        actions: &'a [OfAction],
        /// The key; its port does not count.
        fields: &'a PipelineKey,
    },
    /// Where a translation was frozen.
    Frozen(&'a Frozen),
    /// At table 0, with registers and metadata of this key.
    Traced(&'a PipelineKey),
}

/// Translates a packet with key `key`, which came in on OpenFlow port `in_port`. `record` asks for the steps.
pub fn translate(
    env: Environment<'_>,
    key: &PacketKey,
    in_port: PortNo,
    start: Start<'_>,
    record: bool,
) -> Outcome {
    let one_tag = env.pipeline.settings.one_tag;
    let shown = if one_tag { tags::seen(key) } else { None };
    let mut x = Xlate::new(env, shown.as_ref().unwrap_or(key), in_port, record);
    x.step(|| StepKind::Bridge(env.name.into()));
    x.nest = 1;
    let is_new = matches!(start, Start::Tables | Start::Traced(_));
    match start {
        Start::Tables => x.arrive(),
        Start::Traced(key) => {
            x.take_over(key);
            x.key.set(FieldId::InPort, key.get(FieldId::InPort));
            x.key.set(FieldId::ActsetOutput, key.get(FieldId::ActsetOutput));
            x.arrive();
        }
        Start::Actions { actions, fields } => {
            x.take_over(fields);
            x.packet_out = true;
            x.execute(actions);
        }
        Start::Frozen(f) => x.thaw(f),
    }
    x.finish_freezing();
    x.count_for_netflow(is_new);
    x.tell_fate();
    let mut out = x.finish();
    if one_tag {
        tags::tell(key, &mut out.mask);
    }
    out
}

/// What a port lets packets do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Admission {
    /// All that the rules say.
    All,
    /// Their stations are learned, and flows that they make.
    Learning,
    /// Nothing.
    Nothing,
}

/// What a search of a table does about packets that no flow matches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Misses {
    /// It is as the table's configuration says: packets may go to the controllers or on to the next table.
    Told,
    /// They may go on to the next table.
    GoOn,
    /// They are dropped.
    Quiet,
}

/// What a search found.
enum Found {
    Rule(Arc<Rule>),
    /// Nothing in that table, and the controllers are to be told.
    Missed(u8),
    /// What the bridge's own connections need.
    InBand,
    Nothing,
}

/// A translation under way.
pub(crate) struct Xlate<'a> {
    env: Environment<'a>,
    orig: PacketKey,
    in_port: PortNo,
    /// What the packet is by now, as the rules see it.
    key: PipelineKey,
    /// What the datapath's packet is after the actions so far.
    base: PacketKey,
    /// Bits of `key` written since they were last the same as in `base`.
    written: PacketMask,
    /// Bits of `key` ever written.
    ever_written: PacketMask,
    /// Changes of the datapath's packet so far that writing fields cannot undo.
    for_good: u32,
    /// Mirrors of this bridge that have a copy, one bit each.
    mirrored: u32,
    /// Bytes to which outputs are cut, for a mirror.
    snaplen: Option<u16>,
    /// While NORMAL or a mirror sends: whether rules had left the packet its own first tag.
    first_tag_kept: Option<bool>,
    exporting: export::Exporting,
    wc: PipelineMask,
    sharing: share::Sharing,
    headers: commit::Headers,
    out: Outcome,
    action_set: Vec<OfAction>,
    /// What `push` has put there: value and width.
    stack: Vec<(u128, u16)>,
    /// Table and rule being executed.
    table: u8,
    rule: Option<Arc<Rule>>,
    in_action_set: bool,
    in_group: bool,
    packet_out: bool,
    /// What stands for the cookie of a rule where there is none.
    cookie: u64,
    /// The action just executed ends its list, and nothing else.
    list_ends: bool,
    /// Nesting of what [`MAX_DEPTH`] limits, and of what [`MAX_NESTING`] does.
    depth: u32,
    nesting: u32,
    /// Nesting of what is told of the translation.
    nest: u32,
    lookups: u32,
    length_checks: u32,
    /// What the rule under execution does after its actions, while those are executed.
    instructions: Option<Instructions>,
    /// No further action is executed.
    halted: bool,
    /// Whether the rules may see the packet's connection.
    tracked: bool,
    /// The next table is searched with the addresses of the connection's original direction.
    with_tuple: bool,
    frozen: freeze::Freezing,
    record: bool,
}

impl<'a> Xlate<'a> {
    fn new(env: Environment<'a>, key: &PacketKey, in_port: PortNo, record: bool) -> Self {
        let mut k = PipelineKey::from_packet(key, in_port.0);
        k.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
        let out = Outcome {
            deps: Dependencies {
                configs: SmallVec::from_buf([(env.index, env.pipeline.config_generation)]),
                ..Dependencies::default()
            },
            ..Outcome::default()
        };
        Xlate {
            env,
            orig: *key,
            in_port,
            key: k,
            base: *key,
            written: PacketMask::ZERO,
            ever_written: PacketMask::ZERO,
            for_good: 0,
            mirrored: 0,
            snaplen: None,
            first_tag_kept: None,
            exporting: export::Exporting::default(),
            wc: PipelineMask::ZERO,
            sharing: share::Sharing::default(),
            headers: commit::Headers::of(key),
            out,
            action_set: Vec::new(),
            stack: Vec::new(),
            table: 0,
            rule: None,
            in_action_set: false,
            in_group: false,
            packet_out: false,
            cookie: u64::MAX,
            list_ends: false,
            depth: 0,
            nesting: 0,
            nest: 0,
            lookups: 0,
            length_checks: 0,
            instructions: None,
            halted: false,
            tracked: ct::is_tracked(key),
            with_tuple: false,
            frozen: freeze::Freezing::default(),
            record,
        }
    }

    /// The packet begins with what `key` has that only a pipeline has, but for its port.
    fn take_over(&mut self, key: &PipelineKey) {
        let own = |f: &&flow::Field| f.id.is_canonical() && f.scope == flow::Scope::Pipeline;
        for f in flow::FIELDS.iter().filter(own) {
            if !matches!(f.id, FieldId::InPort | FieldId::ActsetOutput) {
                self.key.set(f.id, key.get(f.id));
            }
        }
    }

    /// The packet comes in from outside on `in_port` and goes through the tables. The first is searched, and what is found
    /// there has its counters, even when the port then takes nothing.
    fn arrive(&mut self) {
        let (env, in_port) = (self.env, self.in_port);
        if let Some(t) = env.pipeline.ports.get(in_port).and_then(|p| p.tunnel.as_ref())
            && !self.arrive_by_tunnel(t)
        {
            return;
        }
        if env.pipeline.ports.get(in_port).is_some_and(|p| p.packets() == PacketTypes::Others) {
            self.give_header();
        }
        let found = self.lookup(0, Misses::Told);
        if self.taken_by_port() {
            return;
        }
        if env.pipeline.mirrors.reserve(in_port) {
            let name = env.pipeline.ports.get(in_port).map_or("", |p| p.name.as_str());
            self.nest += 1;
            self.wrong(|| {
                format!(
                    "dropping packet received on port {name}, which is reserved exclusively for mirroring"
                )
            });
            return;
        }
        let sampled = self.sample_arrival();
        if env.pipeline.ports.get(in_port).is_none_or(|p| p.receives())
            && self.admission() != Admission::Nothing
        {
            self.nest += 1;
            self.mirror_arrival(in_port);
            self.nest -= 1;
            self.follow(0, found);
            self.nest += 1;
            self.execute_action_set();
            self.answer_local_port();
            self.nest -= 1;
            if self.admission() == Admission::Learning {
                self.discard_from(sampled);
            }
        }
    }

    /// What the spanning tree lets the packet do that has come in on this port.
    fn admission(&self) -> Admission {
        let p = self.env.pipeline;
        let state = p.ports.get(self.in_port).and_then(|port| port.tree_state(&p.settings));
        match state {
            Some(s) if s.forwards() => Admission::All,
            Some(s) if s.learns() => Admission::Learning,
            Some(_) => Admission::Nothing,
            None => Admission::All,
        }
    }

    /// The packet was only to be learned from: what would be done with it since there were so many actions is not.
    fn discard_from(&mut self, actions: usize) {
        self.out.actions.truncate(actions);
        self.frozen = freeze::Freezing::default();
    }

    /// Whether it is to be done to the bit as Open vSwitch does it.
    fn stock(&self) -> bool {
        self.env.pipeline.settings.stock_megaflows
    }

    /// Gives up: the packet is dropped.
    fn fail(&mut self, p: Problem) {
        if self.out.problem.is_none() {
            self.out.problem = Some(p);
            self.out.failed = Some(Box::new((self.base, self.in_port, self.env.index)));
            self.wrong(|| p.text().into());
        }
        self.halted = true;
    }

    fn step(&mut self, kind: impl FnOnce() -> StepKind) {
        if self.record {
            self.out.steps.push(Step { depth: self.nest, kind: kind() });
        }
    }

    fn note(&mut self, text: &'static str) {
        self.step(|| StepKind::Note(text.into()));
    }

    /// Notes something ordinary about what is being executed.
    fn detail(&mut self, text: &str) {
        self.step(|| StepKind::Note(format!("-> {text}")));
    }

    /// Notes why something is not done.
    fn warn(&mut self, text: &str) {
        self.step(|| StepKind::Note(format!(">> {text}")));
    }

    /// Has it written down, once the packet is through, what is wrong with the rules.
    fn complain(&mut self, text: &'static str) {
        if self.out.complaint.is_none() {
            self.out.complaint = Some(Box::new((text, self.base, self.in_port, self.env.index)));
        }
    }

    /// Notes what is wrong with the packet.
    fn wrong(&mut self, text: impl FnOnce() -> String) {
        self.step(|| StepKind::Note(format!(">>>> {} <<<<", text())));
    }

    /// Looks the packet up in `table` as if it had come in on `port`, and executes what is found there and in the tables it
    /// goes on to. The port counts for the first search alone (ovs-actions(7)).
    fn table_chain(&mut self, table: u8, port: Option<PortNo>, misses: Misses) {
        if self.headers.reparse_needed {
            self.freeze();
            return self.go_on_in(table);
        }
        let in_port = self.key.get(FieldId::InPort);
        if let Some(p) = port {
            self.key.set(FieldId::InPort, p.0.into());
        }
        let with_tuple = std::mem::take(&mut self.with_tuple);
        if with_tuple {
            self.swap_tuple();
        }
        let found = self.lookup(table, misses);
        if with_tuple {
            self.swap_tuple();
        }
        self.key.set(FieldId::InPort, in_port);
        self.follow(table, found);
    }

    /// Executes what was found in `table` and in those that the packet goes on to. Afterwards the first rule met is the one
    /// under execution: whatever follows is its.
    fn follow(&mut self, table: u8, mut found: Found) {
        let nest = self.nest;
        let set = (std::mem::take(&mut self.in_group), std::mem::take(&mut self.in_action_set));
        let mut first = None;
        self.table = table;
        loop {
            self.nest += 1;
            let rule = match found {
                Found::Rule(rule) => rule,
                Found::Missed(table) => {
                    let rule = self.rule.take();
                    self.table = table;
                    self.tell_controllers_of_miss();
                    self.rule = rule;
                    break;
                }
                Found::InBand => {
                    self.in_band_control();
                    break;
                }
                Found::Nothing => break,
            };
            self.table = rule.table;
            let ins = rule.instructions.clone();
            self.rule = Some(rule);
            first.get_or_insert_with(|| (self.table, self.rule.clone()));
            let Some(next) = self.run(&ins) else { break };
            found = self.lookup(next, Misses::Told);
        }
        if let Some(origin) = first {
            (self.table, self.rule) = origin;
        }
        (self.in_group, self.in_action_set) = set;
        self.nest = nest;
    }

    /// Sends a packet that no flow matches to the controllers.
    fn tell_controllers_of_miss(&mut self) {
        let (max_len, controller_id, reason, userdata) = (u16::MAX, 0, 0, Vec::new());
        let told =
            OfAction::Controller { max_len, controller_id, reason, userdata, pause: false, meter: None };
        self.step(|| StepKind::Action(told));
        let cookie = std::mem::replace(&mut self.cookie, 0);
        self.controller(flow::PuntReason::ImplicitMiss, u16::MAX);
        self.cookie = cookie;
    }

    /// Executes instructions; the table that the packet goes on to.
    fn run(&mut self, ins: &Instructions) -> Option<u8> {
        if *ins == Instructions::default() {
            self.step(|| StepKind::Instruction(Instructions::default()));
        }
        if let Some(m) = ins.meter {
            self.step(|| StepKind::Instruction(Instructions { meter: Some(m), ..Instructions::default() }));
            self.meter(m);
        }
        let after = length::checks(&ins.apply).then(|| Instructions { apply: Vec::new(), ..ins.clone() });
        let outer = std::mem::replace(&mut self.instructions, after);
        let goes_on = self.execute(&ins.apply);
        self.instructions = outer;
        if goes_on { self.run_after_actions(ins) } else { None }
    }

    /// Executes those instructions that come after the actions; the table that the packet goes on to.
    fn run_after_actions(&mut self, ins: &Instructions) -> Option<u8> {
        if self.halted {
            self.leave_instructions(ins);
            return None;
        }
        if ins.clear {
            self.step(|| StepKind::Instruction(Instructions { clear: true, ..Instructions::default() }));
            self.tell_action_set("was");
            self.action_set.clear();
            self.key.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
        }
        if !ins.write.is_empty() {
            self.step(|| {
                StepKind::Instruction(Instructions { write: ins.write.clone(), ..Instructions::default() })
            });
            self.write_actions(&ins.write);
            self.tell_action_set("is");
        }
        if let Some((value, mask)) = ins.metadata {
            let metadata = ins.metadata;
            self.step(|| StepKind::Instruction(Instructions { metadata, ..Instructions::default() }));
            self.key.set_masked(FieldId::Metadata, value.into(), mask.into());
        }
        let next = ins.goto_table?;
        if self.headers.reparse_needed {
            self.freeze();
            self.go_on_in(next.0);
            return None;
        }
        let goto_table = Some(next);
        self.step(|| StepKind::Instruction(Instructions { goto_table, ..Instructions::default() }));
        Some(next.0)
    }

    fn write_actions(&mut self, actions: &[OfAction]) {
        for a in actions {
            if let OfAction::Output { port, .. } = a {
                self.key.set(FieldId::ActsetOutput, port.0.into());
            }
            self.action_set.push(a.clone());
        }
        if self.action_set.iter().any(|a| matches!(a, OfAction::Group(_))) {
            // A group leaves the output out.
            self.key.set(FieldId::ActsetOutput, PortNo::UNSET.0.into());
        }
    }

    fn tell_action_set(&mut self, verb: &str) {
        if self.record {
            let ordered = act::order_action_set(&self.action_set);
            let text = if ordered.is_empty() {
                "empty".into()
            } else {
                openflow::text::format_actions(&Instructions::apply(ordered), &|_| None)
            };
            let sep = if self.action_set.is_empty() { "" } else { ":" };
            self.detail(&format!("action set {verb}{sep} {text}"));
        }
    }

    /// Looks the packet up in one table, and in those after it that it says nothing of it goes on to.
    fn lookup(&mut self, mut table: u8, misses: Misses) -> Found {
        loop {
            if self.headers.reparse_needed {
                self.fail(Problem::NeedsReparse);
                return Found::Nothing;
            }
            self.lookups += 1;
            if self.lookups > MAX_LOOKUPS {
                self.fail(Problem::TooManyLookups);
                return Found::Nothing;
            }
            if table == 0 && self.is_in_band() {
                return Found::InBand;
            }
            let rule = self.lookup_once(table);
            let drop_frags =
                self.env.pipeline.frag == FragHandling::Drop && self.key.get(FieldId::NwFrag) != 0;
            let found = match rule {
                Some(r) => Found::Rule(r),
                None if drop_frags => Found::Nothing,
                None => self.missed(table, misses),
            };
            if self.record {
                let packet_in = matches!(found, Found::Missed(_));
                let rule = if let Found::Rule(r) = &found { Some(r.clone()) } else { None };
                self.tell_lookup(StepKind::Table { table, rule, drop_frags, packet_in });
            }
            if matches!(found, Found::Nothing)
                && misses != Misses::Quiet
                && !drop_frags
                && self.env.pipeline.miss(table) == Some(TableMiss::Continue)
            {
                table += 1;
                continue;
            }
            if matches!(found, Found::Nothing) {
                // OpenFlow 1.3.5 5.4: without a table-miss flow the packet is dropped, action set and all.
                self.action_set.clear();
            }
            return found;
        }
    }

    /// What becomes of a packet that no flow of `table` matches.
    fn missed(&mut self, table: u8, misses: Misses) -> Found {
        let p = self.env.pipeline;
        if misses != Misses::Told {
            return Found::Nothing;
        }
        let told = match p.miss(table) {
            Some(TableMiss::Controller) => true,
            Some(TableMiss::Continue) => table + 1 == N_TABLES,
            Some(TableMiss::Drop) => false,
            None => {
                self.out.deps.misses.push((self.env.index, p.misses_told));
                p.misses_told
            }
        };
        // A port that is not there sends no misses either.
        let port = p.ports.get(self.in_port).is_none_or(|p| !p.config.has(PortConfig::NO_PACKET_IN));
        if told && port { Found::Missed(table) } else { Found::Nothing }
    }

    fn lookup_once(&mut self, table: u8) -> Option<Arc<Rule>> {
        let mut looked = PipelineMask::ZERO;
        let rule = self.search(table, &mut looked);
        if self.headers.ttl_decrements_in_all > 0 && looked.get(FieldId::NwTtl) != 0 {
            // Any bit of the decremented TTL depends on every bit of the original.
            looked.set_exact(FieldId::NwTtl);
        }
        self.wc.union(&looked);
        self.sharing.looked(looked.get(FieldId::EthSrc) != 0);
        let matched = rule.is_some();
        let generation = self.env.pipeline.table_generation(table);
        self.out.deps.visits.push(Visit { bridge: self.env.index, table, matched, generation });
        if let Some(r) = &rule {
            self.out.rules.push(r.clone());
            self.out.provenance.push(Origin::Rule { table, cookie: r.cookie });
        }
        rule
    }

    fn tell_lookup(&mut self, step: StepKind) {
        let drops = matches!(step, StepKind::Table { rule: None, packet_in: false, .. });
        self.step(|| step);
        if drops {
            self.nest += 1;
            self.step(|| StepKind::Instruction(Instructions::default()));
            self.nest -= 1;
        }
    }

    fn search(&mut self, table: u8, looked: &mut PipelineMask) -> Option<Arc<Rule>> {
        let rules = &self.env.pipeline.table(table)?.rules;
        let fragment = self.key.get(FieldId::NwFrag) != 0;
        if self.env.pipeline.frag == FragHandling::Drop {
            looked.set_masked(FieldId::NwFrag, u128::MAX, 0x3);
        }
        match self.env.pipeline.frag {
            FragHandling::Drop if fragment => None,
            FragHandling::Normal if fragment => {
                let mut key = self.key;
                key.set(FieldId::TpSrc, 0);
                key.set(FieldId::TpDst, 0);
                let rule = conjunction::find(rules, &key, looked);
                looked.set_masked(FieldId::TpSrc, 0, u128::MAX);
                looked.set_masked(FieldId::TpDst, 0, u128::MAX);
                rule
            }
            _ => conjunction::find(rules, &self.key, looked),
        }
    }
}
