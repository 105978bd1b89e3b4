//! The comparison itself: rounds of changes and frames, each frame's fate compared in all three switches.
//!
//! A round changes some flows, lets everything come to rest, sends frames one by one and in bursts, compares what came out,
//! and compares counters at rest. Between rounds, frames are sent *while* a change is on its way through records and
//! hardware: each must meet the tables as they were before or as they are after, whole.

use anyhow::{Context, Result, bail};
use openflow::flow_mod::{FlowModCommand, Instructions};
use openflow::{Action, FlowMod, PortNo};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::frames::{Kind, random_frame};
use crate::generate::{PORTS, TABLES, random_flow, random_instructions, random_miss_flow};
use crate::model::Model;
use crate::reference::{Verdict, interpret};
use crate::rig::{Outcome, Rig};
use crate::setup::Setup;

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
    /// Ports have VLANs, mirrors copy, a bridge is in between: something else for every seed.
    pub switched: bool,
    /// Profile of the simulated NIC: a name or a file.
    pub profile: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        Options { seed: 1, packets: 100_000, flows: 60, per_round: 400, switched: false, profile: "default" }
    }
}

/// What was compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Frames sent into each switch.
    pub packets: u64,
    /// Of them malformed ones.
    pub malformed: u64,
    /// Frames that came out, and packets to controllers, of the reference.
    pub outputs: u64,
    /// Packets to controllers.
    pub punts: u64,
    /// Flow-mods accepted.
    pub changes: u64,
    /// Flow-mods refused, by both switches alike.
    pub refused: u64,
    /// Frames sent while a change was on its way.
    pub in_transit: u64,
    /// Packets that the simulated NIC forwarded by itself, as its counters say.
    pub by_hardware: u64,
    /// Most records in hardware at a time.
    pub most_placed: usize,
}

struct Run {
    r: SmallRng,
    model: Model,
    setup: Setup,
    soft: Rig,
    hard: Rig,
    report: Report,
    serial: u16,
}

pub(crate) fn expected(v: &Verdict) -> Outcome {
    let mut o = Outcome::default();
    o.out.extend(v.out.iter().cloned());
    o.punts.extend(v.punts.iter().cloned());
    o.sorted()
}

/// Compares the three switches on random tables and frames.
///
/// # Errors
/// The first difference, with what led to it.
pub fn run(o: &Options) -> Result<Report> {
    let setup = if o.switched { Setup::random(o.seed) } else { Setup::plain() };
    let mut run = Run {
        r: SmallRng::seed_from_u64(o.seed),
        model: Model::default(),
        soft: Rig::software(o.seed, &setup).context("the software switch")?,
        hard: Rig::with_nic(o.seed, &setup, nic::Config::profile(o.profile)?)
            .context("the switch with a NIC")?,
        report: Report::default(),
        setup,
        serial: 1,
    };
    while run.report.packets < o.packets {
        run.round(o).with_context(|| format!("seed {}, after {} packets", o.seed, run.report.packets))?;
    }
    Ok(run.report)
}

impl Run {
    fn round(&mut self, o: &Options) -> Result<()> {
        let changes =
            if self.model.flows.is_empty() { o.flows } else { self.r.random_range(1..=o.flows / 4 + 1) };
        if self.model.flows.is_empty() {
            for table in 0..TABLES {
                let fm = random_miss_flow(&mut self.r, table);
                self.apply(&fm)?;
            }
        }
        for _ in 0..changes {
            let fm = self.change(o.flows);
            self.apply(&fm)?;
        }
        self.settle()?;
        let favourites: Vec<_> = (0..24).map(|_| self.frame()).collect();
        let mut sent = 0;
        while sent < o.per_round {
            // Favourites come again and again, so that their flows reach hardware.
            let burst: Vec<_> = (0..self.r.random_range(1..=8))
                .map(|_| {
                    if self.r.random_bool(0.8) {
                        favourites[self.r.random_range(0..favourites.len())].clone()
                    } else {
                        self.frame()
                    }
                })
                .collect();
            sent += burst.len();
            self.at_rest(&burst)?;
            if self.r.random_bool(0.1) {
                self.settle()?;
            }
        }
        self.settle()?;
        self.compare_counts()?;
        let (placed, _) = self.hard.placed();
        self.report.most_placed = self.report.most_placed.max(placed);
        self.report.by_hardware = self.hard.forwarded_by_device();
        self.in_transit(o, &favourites)
    }

    fn frame(&mut self) -> (u32, Vec<u8>) {
        let port = self.r.random_range(1..=PORTS);
        let (kind, frame) = random_frame(&mut self.r);
        self.report.malformed += u64::from(kind == Kind::Malformed);
        (port, frame)
    }

    /// A random change that keeps the tables near `flows` flows.
    fn change(&mut self, flows: usize) -> FlowMod {
        let n = self.model.flows.len();
        let add = n == 0 || self.r.random_bool(if n < flows { 0.7 } else { 0.35 });
        if add {
            self.serial = self.serial % 60_000 + 1;
            let mut fm = random_flow(&mut self.r, self.serial);
            self.adapt(&mut fm.instructions);
            return fm;
        }
        let f = self.model.flows[self.r.random_range(0..n)].clone();
        let target = f.deletion();
        match self.r.random_range(0..6) {
            0..3 => target,
            3 => FlowMod { command: FlowModCommand::Delete, cookie_mask: u64::MAX, ..target },
            _ => {
                let stack = crate::generate::stack_of(&f.matches);
                let mut instructions = random_instructions(&mut self.r, f.table, stack, &f.matches);
                self.adapt(&mut instructions);
                FlowMod { command: FlowModCommand::ModifyStrict, instructions, cookie_mask: 0, ..target }
            }
        }
    }

    /// Where there is something for it to do, outputs to all ports become NORMAL, and the last port has its own number.
    fn adapt(&mut self, i: &mut Instructions) {
        for a in i.apply.iter_mut().chain(&mut i.write) {
            if let Action::Output { port, .. } = a {
                match *port {
                    PortNo::ALL | PortNo::FLOOD if self.r.random_bool(0.8) => *port = PortNo::NORMAL,
                    PortNo(p) if p <= PORTS => *port = self.setup.port(p),
                    _ => {}
                }
            }
        }
    }

    fn apply(&mut self, fm: &FlowMod) -> Result<()> {
        let soft = self.soft.apply(std::slice::from_ref(fm));
        let hard = self.hard.apply(std::slice::from_ref(fm));
        if soft != hard {
            bail!("one switch says {soft:?}, the other {hard:?} to {fm:?}");
        }
        match soft {
            Ok(()) => {
                self.model.apply(fm);
                self.report.changes += 1;
            }
            Err(_) => self.report.refused += 1,
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        self.soft.settle().context("software alone")?;
        self.hard.settle().context("with the NIC")
    }

    /// Sends frames when tables, records and hardware agree.
    fn at_rest(&mut self, burst: &[(u32, Vec<u8>)]) -> Result<()> {
        let mut want = Outcome::default();
        for (port, frame) in burst {
            let v = interpret(&self.model.flows, &self.setup, *port, frame);
            self.model.count(&v);
            let e = expected(&v);
            want.out.extend(e.out);
            want.punts.extend(e.punts);
            self.soft.send(*port, frame)?;
            self.hard.send(*port, frame)?;
        }
        let want = want.sorted();
        self.report.packets += burst.len() as u64;
        self.report.outputs += want.out.len() as u64;
        self.report.punts += want.punts.len() as u64;
        self.soft.pump();
        self.hard.pump();
        let (soft, hard) = (self.soft.collect(), self.hard.collect());
        self.same("software alone", burst, &soft, &want, &self.soft)?;
        self.same("software and NIC", burst, &hard, &want, &self.hard)
    }

    fn same(
        &self,
        who: &str,
        burst: &[(u32, Vec<u8>)],
        got: &Outcome,
        want: &Outcome,
        rig: &Rig,
    ) -> Result<()> {
        if got == want {
            return Ok(());
        }
        let mut text = format!("{who} differs from the reference\n{:?}\n", self.setup);
        for (port, frame) in burst {
            text += &format!("in  {port}: {}\n", hex(frame));
            let key = flow::parse::parse(frame, flow::PortId(*port)).map(|p| p.key);
            text += &format!("    {key:?}\n");
        }
        text += &describe("want", want);
        text += &describe("got ", got);
        for (port, frame) in burst {
            for i in interpret(&self.model.flows, &self.setup, *port, frame).hits {
                let f = &self.model.flows[i];
                text += &format!("hit {port}: table {} priority {} {:?}\n", f.table, f.priority, f.matches);
                text += &format!("    {:?}\n", f.instructions);
            }
            text += &rig.explain(*port, frame);
        }
        bail!("{text}");
    }

    fn compare_counts(&mut self) -> Result<()> {
        let want = self.model.counts();
        for (who, rig) in [("software alone", &self.soft), ("software and NIC", &self.hard)] {
            let got = rig.counts();
            if got != want {
                let all: std::collections::BTreeSet<_> = want.keys().chain(got.keys()).collect();
                let rows = all.into_iter().filter(|k| want.get(k) != got.get(k));
                let rows = rows.map(|k| {
                    format!("table {} priority {}: want {:?} got {:?}\n", k.0, k.1, want.get(k), got.get(k))
                });
                bail!(
                    "{who}: counters differ from the reference (packets, bytes)\n{}",
                    rows.collect::<String>()
                );
            }
        }
        Ok(())
    }

    /// Sends frames one by one while one change is on its way; each must have the old fate or the new one.
    fn in_transit(&mut self, o: &Options, favourites: &[(u32, Vec<u8>)]) -> Result<()> {
        let before = self.model.clone();
        let fm = self.change(o.flows);
        self.apply(&fm)?;
        for i in 0..16 {
            let (port, frame) = favourites[self.r.random_range(0..favourites.len())].clone();
            let fates = [
                expected(&interpret(&before.flows, &self.setup, port, &frame)),
                expected(&interpret(&self.model.flows, &self.setup, port, &frame)),
            ];
            for (who, rig) in [("software alone", &mut self.soft), ("software and NIC", &mut self.hard)] {
                rig.send(port, &frame)?;
                rig.nudge(self.r.random_range(0..200));
                rig.control(i == 5);
                rig.pump();
                let got = rig.collect();
                if !fates.contains(&got) {
                    let mut text = format!("{:?}\n{fm:?}\nin  {port}: {}\n", self.setup, hex(&frame));
                    for (when, fate) in ["old ", "new "].iter().zip(&fates) {
                        text += &describe(when, fate);
                    }
                    text += &describe("got ", &got);
                    text += &rig.explain(port, &frame);
                    bail!("{who}: a frame met neither the old nor the new tables\n{text}");
                }
            }
            self.report.packets += 1;
            self.report.in_transit += 1;
        }
        self.settle()?;
        // Which of the two a frame met is not defined, so neither are the counters: start again from what is there.
        let got = self.hard.counts();
        let soft = self.soft.counts();
        for f in &mut self.model.flows {
            (f.packets, f.bytes) = got.get(&(f.table, f.priority)).copied().unwrap_or_default();
        }
        if soft != got {
            self.equalise()?;
        }
        Ok(())
    }

    /// Resets the counters of every flow in both switches.
    fn equalise(&mut self) -> Result<()> {
        use openflow::flow_mod::FlowModFlags;
        for f in self.model.flows.clone() {
            let fm = FlowMod {
                table: openflow::TableId(f.table),
                priority: f.priority,
                cookie: f.cookie,
                matches: f.matches,
                instructions: f.instructions,
                flags: FlowModFlags::RESET_COUNTS,
                ..FlowMod::new(FlowModCommand::ModifyStrict)
            };
            self.apply(&fm)?;
        }
        self.settle()
    }
}

pub(crate) fn describe(what: &str, o: &Outcome) -> String {
    let mut s = String::new();
    for (port, frame) in &o.out {
        s += &format!("{what} {port}: {}\n", hex(frame));
    }
    for (port, table, reason, data) in &o.punts {
        s += &format!("{what} controller: in_port {port} table {table} reason {reason}: {}\n", hex(data));
    }
    if s.is_empty() { format!("{what} nothing\n") } else { s }
}

pub(crate) fn hex(b: &[u8]) -> String {
    b.iter().map(|x| format!("{x:02x}")).collect()
}
