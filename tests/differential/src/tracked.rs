//! The comparison with connections: the reference tracks them in a list, the switches in their datapaths, one alone and one with a
//! NIC under it. Frames out, packets to controllers, counters of rules, and the connections themselves, with
//! marks, labels and what is left of their time, must be the same.
//!
//! Order matters here: frames go one by one, or in bursts of such as have nothing to do with each other's connections, for a
//! burst goes through the tables together. Which port a translation takes is each switch's own choice, so each has a
//! reference of its own. No frames are sent while a change is on its way: what they would do to connections
//! depends on when it arrives.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use conntrack::{Tracker, Tuple};
use openflow::FlowMod;
use openflow::flow_mod::FlowModCommand;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::conversation::{At, Talk};
use crate::generate::pick;
use crate::model::Model;
use crate::reference::{Verdict, interpret_tracked};
use crate::reference_ct::{Connections, Ends, Row, Tally};
use crate::reference_tracked::Tracking;
use crate::rig::{Outcome, Rig};
use crate::run::{describe, expected, hex};
use crate::setup::Setup;
use crate::tracked_flows::{FIXED, ZONES, base_flows, tracked_flow, tracked_instructions};

/// Connections of a zone where there is a limit.
const MOST_OF_A_ZONE: usize = 12;

/// How much to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Seed of everything random.
    pub seed: u64,
    /// Frames to send in all.
    pub packets: u64,
    /// Flows in the tables, about.
    pub flows: usize,
    /// Frames between changes.
    pub per_round: usize,
    /// Zones may have few connections.
    pub limited: bool,
    /// Segments of TCP have to lie within windows.
    pub windows: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { seed: 1, packets: 20_000, flows: 20, per_round: 500, limited: false, windows: true }
    }
}

/// What was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Frames sent into each switch.
    pub packets: u64,
    /// Frames that came out, and packets to controllers, of the reference.
    pub outputs: u64,
    /// Flow-mods accepted.
    pub changes: u64,
    /// Frames that went in bursts.
    pub in_bursts: u64,
    /// Frames that were not sent, for they could be of several connections.
    pub ambiguous: u64,
    /// Connections that were compared one by one.
    pub compared: u64,
    /// Packets that the simulated NIC forwarded by itself.
    pub by_hardware: u64,
    /// Connections that were handed over to the simulated NIC.
    pub handed_over: u64,
    /// Packets of them that it forwarded.
    pub by_connection: u64,
    /// What connections there were.
    pub seen: Tally,
}

/// A switch, and the connections that it should have.
struct Side {
    who: &'static str,
    rig: Rig,
    connections: Connections,
}

struct Run {
    r: SmallRng,
    model: Model,
    setup: Setup,
    sides: [Side; 2],
    talk: Talk,
    report: Report,
    serial: u16,
    limited: bool,
    /// A packet could have been of several connections, and they differ since.
    abandoned: bool,
}

/// Compares the switches on random tables that track connections, and frames of hosts that talk.
///
/// # Errors
/// The first difference, with what led to it.
pub fn run(o: &Options) -> Result<Report> {
    // Every other seed does without what vectors do faster.
    flow::checksum::set_vectors(o.seed.is_multiple_of(2));
    let setup = Setup::plain();
    let soft = Rig::software(o.seed, &setup).context("the software switch")?;
    let hard = Rig::with_nic(o.seed, &setup, nic::Config::profile("default")?).context("with a NIC")?;
    let side = |who, rig: Rig| {
        let mut connections = Connections::default();
        connections.unchecked = !o.windows;
        rig.tracker().set_tcp_window_check(o.windows);
        if o.limited {
            connections.limit = Some(MOST_OF_A_ZONE);
            rig.tracker().set_zone_limit(None, Some(MOST_OF_A_ZONE as u32));
        }
        Side { who, rig, connections }
    };
    let mut run = Run {
        r: SmallRng::seed_from_u64(o.seed ^ 0xc7),
        model: Model::default(),
        sides: [side("software alone", soft), side("software and NIC", hard)],
        talk: Talk::default(),
        report: Report::default(),
        setup,
        serial: 1,
        limited: o.limited,
        abandoned: false,
    };
    for fm in base_flows(&mut run.r) {
        run.apply(&fm)?;
    }
    while run.report.packets < o.packets && !run.abandoned {
        run.round(o).with_context(|| format!("seed {}, after {} packets", o.seed, run.report.packets))?;
    }
    run.report.seen = run.sides[0].connections.tally;
    Ok(run.report)
}

fn tuple(e: &Ends, zone: u16) -> Tuple {
    Tuple {
        src: e.src,
        dst: e.dst,
        sport: e.sport,
        dport: e.dport,
        zone,
        proto: e.proto,
        icmp_type: e.kind,
        v6: e.v6,
    }
}

fn ends(t: &Tuple) -> Ends {
    Ends {
        v6: t.v6,
        proto: t.proto,
        src: t.src,
        dst: t.dst,
        sport: t.sport,
        dport: t.dport,
        kind: t.icmp_type,
    }
}

/// What the switch has made of the answers of a connection.
fn chosen(tracker: &Tracker, now: clock::Instant, e: &Ends, zone: u16) -> Option<Ends> {
    let (wanted, mut found) = (tuple(e, zone), None);
    tracker.dump(now, Some(zone), &mut |c| {
        if c.original == wanted {
            found = Some(ends(&c.reply));
        }
        found.is_none()
    });
    found
}

fn outcome(verdicts: &[Verdict]) -> Outcome {
    let mut all = Outcome::default();
    for e in verdicts.iter().map(expected) {
        all.out.extend(e.out);
        all.punts.extend(e.punts);
    }
    all.sorted()
}

impl Side {
    fn interpret(&mut self, model: &Model, setup: &Setup, at: &At) -> Verdict {
        let (tracker, now) = (self.rig.tracker().clone(), self.rig.now());
        let choice = |e: &Ends, zone| chosen(&tracker, now, e, zone);
        let t = Tracking::new(&mut self.connections, now, &choice);
        interpret_tracked(&model.flows, setup, at.0, &at.1, Some(t))
    }

    /// What becomes of frames that are sent together, when the first `failed` choices that may have failed did.
    fn expect(&mut self, model: &Model, setup: &Setup, burst: &[At], failed: u32) -> Vec<Verdict> {
        (self.connections.in_doubt, self.connections.failed) = (0, failed);
        burst.iter().map(|at| self.interpret(model, setup, at)).collect()
    }

    /// How many connections there are, and those that differ.
    fn differences(&mut self) -> (usize, String) {
        self.rig.follow_connections();
        let now = self.rig.now();
        self.connections.expire(now);
        let mut got = BTreeSet::new();
        self.rig.tracker().dump(now, None, &mut |c| {
            let (first, answer) = (ends(&c.original), ends(&c.reply));
            got.insert(Row {
                zone: c.original.zone,
                first,
                answer,
                mark: c.mark,
                label: c.label,
                left_s: c.left.as_secs(),
            })
        });
        let want: BTreeSet<Row> = self.connections.rows(now).collect();
        let mut text = String::new();
        for only in want.difference(&got) {
            text += &format!("want {only:x?}\n");
        }
        for only in got.difference(&want) {
            text += &format!("got  {only:x?}\n");
        }
        (want.len(), text)
    }
}

impl Run {
    fn round(&mut self, o: &Options) -> Result<()> {
        let changes = if self.serial == 1 { o.flows } else { self.r.random_range(1..=o.flows / 4 + 1) };
        for _ in 0..changes {
            let fm = self.change(o.flows);
            self.apply(&fm)?;
        }
        self.settle()?;
        let mut sent = 0;
        while sent < o.per_round && !self.abandoned {
            if self.r.random_bool(0.01) {
                self.pass_time()?;
            }
            let burst = self.burst();
            sent += burst.len();
            self.send(&burst)?;
            if self.r.random_bool(0.04) {
                self.settle()?;
            }
        }
        if self.abandoned {
            return Ok(());
        }
        self.settle()?;
        self.compare_counts()?;
        if self.r.random_bool(0.3) {
            let zone = self.r.random_bool(0.7).then(|| pick(&mut self.r, &ZONES));
            for s in &mut self.sides {
                s.rig.tracker().flush(zone);
                s.connections.flush(zone);
            }
        }
        self.report.by_hardware = self.sides[1].rig.forwarded_by_device();
        let loans = self.sides[1].rig.loans();
        (self.report.handed_over, self.report.by_connection) = (loans.handed_over, loans.packets);
        Ok(())
    }

    fn change(&mut self, flows: usize) -> FlowMod {
        let random: Vec<usize> = (0..self.model.flows.len())
            .filter(|i| (2..FIXED).contains(&self.model.flows[*i].priority))
            .collect();
        if random.is_empty() || self.r.random_bool(if random.len() < flows { 0.7 } else { 0.35 }) {
            self.serial = self.serial % 60_000 + 1;
            return tracked_flow(&mut self.r, self.serial);
        }
        let f = &self.model.flows[random[self.r.random_range(0..random.len())]];
        let target = f.deletion();
        if self.r.random_bool(0.6) {
            return target;
        }
        let instructions = tracked_instructions(&mut self.r, f.table, &f.matches);
        FlowMod { command: FlowModCommand::ModifyStrict, instructions, ..target }
    }

    fn apply(&mut self, fm: &FlowMod) -> Result<()> {
        let [a, b] = &mut self.sides;
        let said = [&mut a.rig, &mut b.rig].map(|r| r.apply(std::slice::from_ref(fm)));
        if said[0] != said[1] {
            bail!("one switch says {:?}, the other {:?} to {fm:?}", said[0], said[1]);
        }
        if said[0].is_ok() {
            self.model.apply(fm);
            self.report.changes += 1;
        }
        Ok(())
    }

    /// Lets everything come to rest; afterwards it is the same time everywhere.
    fn settle(&mut self) -> Result<()> {
        for s in &mut self.sides {
            s.rig.settle().context(s.who)?;
        }
        self.advance(Duration::ZERO);
        Ok(())
    }

    fn advance(&mut self, by: Duration) {
        let now = self.sides.iter().map(|s| s.rig.now()).max().unwrap_or_default() + by;
        for s in &mut self.sides {
            s.rig.advance_to(now);
            if self.limited {
                // What is past its time counts until it is given back.
                s.rig.tracker().sweep(now, 1 << 20);
            }
        }
    }

    fn pass_time(&mut self) -> Result<()> {
        let seconds = pick(&mut self.r, &[1u64, 1, 14, 16, 29, 31, 44, 61, 1000, 90_000]);
        self.advance(Duration::from_secs(seconds));
        self.settle()
    }

    /// Frames that are sent together.
    fn burst(&mut self) -> Vec<At> {
        let most = if self.limited || self.r.random_bool(0.6) { 1 } else { self.r.random_range(2..6) };
        let port = self.r.random_range(1..=crate::generate::PORTS);
        let mut burst = Vec::new();
        let mut touched = BTreeSet::new();
        let side = &self.sides[0];
        let mut tried = side.connections.clone();
        while burst.len() < most {
            let mut at = self.talk.next(&mut self.r);
            if most > 1 {
                // One port's frames stay in order on their way into either switch.
                at.0 = port;
            }
            tried.touched.clear();
            let before = tried.clone();
            let t = Tracking::new(&mut tried, side.rig.now(), &|e, _| Some(e.back()));
            interpret_tracked(&self.model.flows, &self.setup, at.0, &at.1, Some(t));
            if std::mem::take(&mut tried.ambiguous) {
                tried = before;
                self.report.ambiguous += 1;
                continue;
            }
            // What it will be translated to is not known yet, and whose others are by that.
            let asked = std::mem::take(&mut tried.asked);
            if !burst.is_empty() && (asked || tried.touched.iter().any(|e| touched.contains(e))) {
                break;
            }
            touched.extend(tried.touched.iter().copied());
            burst.push(at);
            if asked {
                break;
            }
        }
        burst
    }

    fn send(&mut self, burst: &[At]) -> Result<()> {
        self.report.packets += burst.len() as u64;
        if burst.len() > 1 {
            self.report.in_bursts += burst.len() as u64;
        }
        for (n, s) in self.sides.iter_mut().enumerate() {
            let before = s.connections.clone();
            for (port, frame) in burst {
                s.rig.send(*port, frame)?;
            }
            s.rig.pump();
            let got = s.rig.collect();
            let mut failed = 0;
            let (verdicts, want, connections, different) = loop {
                let verdicts = s.expect(&self.model, &self.setup, burst, failed);
                let want = outcome(&verdicts);
                let (n, different) = s.differences();
                if failed < s.connections.in_doubt && (got != want || !different.is_empty()) {
                    failed += 1;
                    s.connections = before.clone();
                    continue;
                }
                break (verdicts, want, n, different);
            };
            if n == 0 {
                for v in &verdicts {
                    self.model.count(v);
                    v.out.iter().for_each(|(port, frame)| self.talk.deliver(*port, frame));
                }
                self.report.outputs += (want.out.len() + want.punts.len()) as u64;
            }
            self.report.compared += connections as u64;
            if got == want && different.is_empty() {
                continue;
            }
            if s.connections.ambiguous {
                self.abandoned = true;
                return Ok(());
            }
            let mut text = format!("{} differs from the reference\n", s.who);
            for (port, frame) in burst {
                text += &format!("in  {port}: {}\n", hex(frame));
                let key = flow::parse::parse(frame, flow::PortId(*port)).map(|p| p.key);
                text += &format!("    {key:?}\n");
                text += &s.rig.explain(*port, frame);
            }
            text += &describe("want", &want);
            text += &describe("got ", &got);
            for i in verdicts.iter().flat_map(|v| v.hits.iter().copied()) {
                let f = &self.model.flows[i];
                text += &format!("hit table {} priority {} {:?}\n", f.table, f.priority, f.matches);
                text += &format!("    {:?}\n", f.instructions);
            }
            for w in before.rows(s.rig.now()) {
                text += &format!("before {w:x?}\n");
            }
            text += &different;
            bail!("{text}");
        }
        Ok(())
    }

    fn compare_counts(&mut self) -> Result<()> {
        let want = self.model.counts();
        for s in &self.sides {
            let got = s.rig.counts();
            if got != want {
                let rows: String = want
                    .iter()
                    .filter(|(k, v)| got.get(*k) != Some(*v))
                    .map(|(k, v)| {
                        format!("table {} priority {}: want {v:?} got {:?}\n", k.0, k.1, got.get(k))
                    })
                    .collect();
                bail!("{}: counters differ from the reference (packets, bytes)\n{rows}", s.who);
            }
        }
        Ok(())
    }
}
