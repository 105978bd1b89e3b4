//! What happens to a packet, step by step, and its text: that of `ofproto/trace` of Open vSwitch 3.1.
//!
//! A trace is a translation that keeps notes ([`crate::xlate`]); it changes nothing: no learning, no counters.
//!
//! Steps are the nodes of a tree in the order of a walk: what happened while a rule was executed is below its table's step.
//! In the text the last thing below a node is not indented further when it is a table, so that a packet that goes from
//! table to table does not wander off to the right.

use std::fmt::Write;
use std::sync::Arc;

use flow::text::odp::{Context, format_actions};
use flow::text::value::PortName;
use flow::text::{flags, ofctl};
use flow::{Action, FieldId, PacketKey, PacketMatch, PipelineKey, PipelineMatch, PuntReason};
use offload::Origin;
use openflow::extension::{Nat, NatAddresses, NatFlags};
use openflow::group::BucketId;
use openflow::{Instructions, PortNo};

use crate::rule::Rule;
use crate::xlate::{Outcome, Problem};

/// One step.
#[derive(Clone, Debug)]
pub struct Step {
    /// Its depth in the tree.
    pub depth: u32,
    /// What happened.
    pub kind: StepKind,
}

/// What happened in a step.
#[derive(Clone, Debug)]
pub enum StepKind {
    /// The packet went on to this bridge.
    Bridge(String),
    /// A table was searched.
    Table {
        /// The table.
        table: u8,
        /// What was found.
        rule: Option<Arc<Rule>>,
        /// The table was not searched: the packet is a fragment, and those are dropped.
        drop_frags: bool,
        /// Nothing was found, and the controllers are to be told.
        packet_in: bool,
    },
    /// An OpenFlow action was executed.
    Action(openflow::Action),
    /// An instruction other than applying actions was executed; the empty one drops.
    Instruction(Instructions),
    /// A bucket of a group is executed; its actions follow.
    Bucket(BucketId),
    /// The action set is executed; its actions follow.
    ActionSet,
    /// The packet has come back; what is below says what it goes on with.
    Thaw,
    /// Something that was put back.
    Restored(String),
    /// What was put back of where the packet had been, in the place of an action.
    Unrolled(String),
    /// Something worth saying about the action before.
    Note(String),
    /// A station that the packet makes known, where it is more than a trace.
    Learned(String),
}

impl StepKind {
    /// Whether nothing is hidden by leaving out the indentation of the last of these.
    fn is_flat(&self) -> bool {
        matches!(
            self,
            StepKind::Bridge(_)
                | StepKind::Table { .. }
                | StepKind::ActionSet
                | StepKind::Thaw
                | StepKind::Restored(_)
        )
    }
}

/// Where a trace starts.
#[derive(Clone, Copy, Debug)]
pub enum TraceStart<'a> {
    /// At table 0, as a packet that comes in.
    Tables,
    /// With these actions, as a packet that a controller sends.
    Actions(&'a [openflow::Action]),
}

/// Where a copy of the packet goes on behind connection tracking.
#[derive(Clone, Debug)]
pub struct Fork {
    /// The id it comes back with.
    pub id: u32,
    /// The zone.
    pub zone: u16,
    /// What it may be translated to.
    pub nat: Option<Nat>,
    /// What it was.
    pub key: PipelineKey,
}

/// The whole story of a packet.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The packet as it came in.
    pub flow: PipelineKey,
    /// What it was in the end.
    pub last: PipelineKey,
    /// What happened, in order.
    pub steps: Vec<Step>,
    /// What a flow record for it would match.
    pub megaflow: PacketMatch,
    /// The bits that were looked at, without those that a record has beside them because no record can do without.
    pub looked: PipelineMatch,
    /// What the datapath would do; empty drops.
    pub actions: Vec<Action>,
    /// Where the verdict came from.
    pub provenance: Vec<Origin>,
    /// Why it is a drop, if the rules did not say so.
    pub problem: Option<Problem>,
    /// Where copies go on.
    pub forks: Vec<Fork>,
    /// The rules want it treated as if the datapath could not do it.
    pub as_if_slow: bool,
}

/// How ports are called in a trace's text; by number when `None`.
#[derive(Clone, Copy)]
pub struct Names<'a> {
    /// OpenFlow ports of the bridge.
    pub openflow: PortName<'a>,
    /// Ports of the datapath.
    pub datapath: PortName<'a>,
}

impl Names<'_> {
    /// By number.
    pub const NONE: Names<'static> = Names { openflow: &|_| None, datapath: &|_| None };
}

impl Trace {
    /// Of the packet `key`, of which rules saw `flow`.
    pub(crate) fn new(key: &PacketKey, flow: PipelineKey, o: Outcome) -> Self {
        let (looked, last) = o.seen.map(|s| *s).unwrap_or_default();
        Trace {
            megaflow: PacketMatch::new(key, &o.mask),
            looked: PipelineMatch::new(&flow, &looked),
            flow,
            last,
            steps: o.steps,
            actions: o.actions,
            provenance: o.provenance.into_vec(),
            problem: o.problem,
            forks: o.forks,
            as_if_slow: o.as_if_slow,
        }
    }

    /// The text, as `ofproto/trace` prints it; ends with `Datapath actions: ...` and no newline.
    pub fn text(&self, names: Names<'_>) -> String {
        let mut out = format!("{}\n", self.text_of_flow(names));
        self.write_steps(&mut out, 0..self.steps.len(), 0, names);
        let _ = write!(out, "\n{}", self.text_of_verdict(names));
        out
    }

    /// What says that the switch itself takes the packet.
    pub fn slow_path(&self) -> Option<String> {
        let mut reasons: Vec<&str> = Vec::new();
        for a in &self.actions {
            let words = match a {
                Action::Controller(c) => match c.reason {
                    PuntReason::Bfd => "Consists of BFD packets.",
                    PuntReason::Cfm => "Consists of CFM packets.",
                    PuntReason::Lacp => "Consists of LACP packets.",
                    PuntReason::Stp => "Consists of STP packets.",
                    PuntReason::Lldp => "Consists of LLDP packets.",
                    _ => continue,
                },
                _ => continue,
            };
            if !reasons.contains(&words) {
                reasons.push(words);
            }
        }
        if self.as_if_slow {
            reasons.push("Uses action(s) not supported by datapath.");
        }
        let list: String = reasons.iter().map(|r| format!("\n  - {r}")).collect();
        (!list.is_empty())
            .then(|| format!("This flow is handled by the userspace slow path because it:{list}"))
    }

    /// What says that the packet is dropped because its rules could not be followed.
    pub fn failure(&self) -> Option<String> {
        let failed = self.problem.filter(|p| p.is_failure());
        failed.map(|p| format!("Translation failed ({}), packet is dropped.", p.cause()))
    }

    fn text_of_flow(&self, names: Names<'_>) -> String {
        format!("Flow: {}", show(&self.flow, names.openflow))
    }

    fn text_of_verdict(&self, names: Names<'_>) -> String {
        let last = if self.last == self.flow { "unchanged".into() } else { show(&self.last, names.openflow) };
        let megaflow = ofctl::format_with(&self.looked, names.openflow);
        // What the switch takes itself is told below.
        let own = |a: &&Action| matches!(a, Action::Controller(c) if c.reason.is_of_link());
        let forwarded: Vec<Action> = self.actions.iter().filter(|a| !own(a)).cloned().collect();
        let actions = format_actions(&forwarded, Context::of(&self.flow.packet()), names.datapath);
        format!("Final flow: {last}\nMegaflow: {megaflow}\nDatapath actions: {actions}")
    }

    /// Writes the steps in `range`, all of which are below one node, at a level of indentation.
    fn write_steps(&self, out: &mut String, range: std::ops::Range<usize>, level: usize, names: Names<'_>) {
        let mut at = range.start;
        while let Some(s) = self.steps.get(at).filter(|_| at < range.end) {
            let below = at + 1..self.end_of(at).min(range.end);
            let more = usize::from(below.end < range.end || !s.kind.is_flat());
            let indent = "    ".repeat(level + more);
            let _ = match &s.kind {
                StepKind::Bridge(name) => {
                    let title = format!("bridge(\"{name}\")");
                    writeln!(out, "\n{indent}{title}\n{indent}{}", "-".repeat(title.len()))
                }
                StepKind::Note(n) | StepKind::Learned(n) => writeln!(out, "{indent} {n}"),
                k => writeln!(out, "{indent}{}", text_of(k, names)),
            };
            at = below.end;
            self.write_steps(out, below, level + more + more, names);
        }
    }

    /// Where what is below step `at` ends.
    fn end_of(&self, at: usize) -> usize {
        let depth = self.steps[at].depth;
        let below = self.steps[at + 1..].iter().take_while(|s| s.depth > depth).count();
        at + 1 + below
    }
}

impl Fork {
    /// What stands between a trace and its continuation, and the packet as it comes back with `state`, or with that of a
    /// connection that is new. A translation is taken to be to the first address and port of its range.
    pub fn resume(&self, state: Option<u16>) -> (String, PipelineKey) {
        let line = "=".repeat(79);
        let mut out = format!("\n\n{line}\nrecirc({:#x}) - resume conntrack with ", self.id);
        let _ = match state {
            Some(s) => writeln!(out, "ct_state={}", flags::CT_STATE.list(s, '|')),
            None => writeln!(out, "default ct_state=trk|new (use --ct-next to customize)"),
        };
        let mut k = self.key;
        k.set(FieldId::RecircId, self.id.into());
        k.set(FieldId::CtZone, self.zone.into());
        k.set(FieldId::CtState, state.unwrap_or(0x21).into());
        if let Some(n) = &self.nat {
            let v6 = matches!(n.addresses, Some(NatAddresses::V6(..)));
            out.push_str("Replacing src/dst IP/ports to simulate NAT:\n");
            let _ = writeln!(out, " Initial flow: {}", ends_of(&k, n.addresses.is_some(), v6));
            let ends = [
                (NatFlags::SRC, FieldId::NwSrc, FieldId::Ipv6Src, FieldId::TpSrc),
                (NatFlags::DST, FieldId::NwDst, FieldId::Ipv6Dst, FieldId::TpDst),
            ];
            for (_, v4, v6, port) in ends.into_iter().filter(|(f, ..)| n.flags.has(*f)) {
                match n.addresses {
                    Some(NatAddresses::V4(a, _)) => k.set(v4, u32::from(a).into()),
                    Some(NatAddresses::V6(a, _)) => k.set(v6, a.into()),
                    None => {}
                }
                if let (Some(_), Some((low, _))) = (n.addresses, n.ports) {
                    k.set(port, low.into());
                }
            }
            let _ = writeln!(out, " Modified flow: {}", ends_of(&k, n.addresses.is_some(), v6));
        }
        let _ = write!(out, "{line}\n\n");
        (out, k)
    }
}

/// Addresses and ports, or nothing when no family is known.
fn ends_of(k: &PipelineKey, known: bool, v6: bool) -> String {
    let (sport, dport) = (k.get(FieldId::TpSrc), k.get(FieldId::TpDst));
    if !known {
        String::new()
    } else if v6 {
        let a = |f| std::net::Ipv6Addr::from(k.get(f));
        let (src, dst) = (a(FieldId::Ipv6Src), a(FieldId::Ipv6Dst));
        format!("ipv6_src=[{src}],tp_src={sport},ipv6_dst=[{dst}],tp_dst={dport}")
    } else {
        let a = |f| std::net::Ipv4Addr::from(k.get64(f) as u32);
        let (src, dst) = (a(FieldId::NwSrc), a(FieldId::NwDst));
        format!("nw_src={src},tp_src={sport},nw_dst={dst},tp_dst={dport}")
    }
}

fn text_of(kind: &StepKind, names: Names<'_>) -> String {
    match kind {
        StepKind::Table { table, rule: Some(r), .. } => {
            let mut m = ofctl::format_with(&r.matches.expand(), names.openflow);
            if !m.is_empty() {
                m.push_str(", ");
            }
            let cookie = if r.cookie == 0 { String::new() } else { format!(", cookie {:#x}", r.cookie) };
            format!("{table:2}. {m}priority {}{cookie}", r.priority)
        }
        StepKind::Table { table, rule: None, drop_frags: true, .. } => {
            format!("{table:2}. Packets are IP fragments and the fragment handling mode is \"drop\".")
        }
        StepKind::Table { table, packet_in: true, .. } => {
            format!("{table:2}. No match, and a \"packet-in\" is called for.")
        }
        StepKind::Table { table, .. } => format!("{table:2}. No match."),
        StepKind::Action(a) => {
            let one = Instructions::apply(vec![a.clone()]);
            openflow::text::format_actions(&one, names.openflow)
        }
        StepKind::Instruction(i) => openflow::text::format_actions(i, names.openflow),
        StepKind::Bucket(id) => format!("bucket {}", id.0),
        StepKind::ActionSet => "--. Executing action set:".into(),
        StepKind::Thaw => "thaw".into(),
        StepKind::Bridge(n)
        | StepKind::Restored(n)
        | StepKind::Unrolled(n)
        | StepKind::Note(n)
        | StepKind::Learned(n) => n.clone(),
    }
}

/// A packet in the words of `Flow:` lines.
fn show(key: &PipelineKey, ports: PortName<'_>) -> String {
    let mut k = *key;
    if k.get64(FieldId::ActsetOutput) == u64::from(PortNo::UNSET.0) {
        k.set(FieldId::ActsetOutput, 0);
    }
    k.set(FieldId::DpPort, 0);
    ofctl::format_key(&k, ports)
}
