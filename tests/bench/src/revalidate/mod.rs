//! Revalidation: how many datapath flows one core checks per second, and of how many it looks at no more than what they depend
//! on.
//!
//! Every flow goes through three tables: the first sends it on by destination port, one of ten matches its source, the last
//! outputs it. Each has had packets since the round before, as the flows of a busy switch have, so that every round also
//! moves statistics to three rules a flow. A round is one call of [`Switch::revalidate`]; the figure is flows divided by the
//! thread's processor time. What a round did is checked: how many flows were translated again, how many changed, that none
//! was lost and that every packet is counted by every rule. [`daemons`] has the whole daemon do it, and the stock one.

mod daemons;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, ManualClock};
use datapath::{DatapathConfig, SoftDatapath};
use datapath_api::{Datapath, Miss, MissHandler};
use device::BATCH;
use flow::frame::FrameBuilder;
use ofproto::{Bridge, Revalidated, Switch};
use openflow::text::parse_file;

use crate::cycles::processor_time;
use crate::figure::{Figure, Unit, counted};
use crate::openflow::{FIRST_PORT, load, packet_of, switch_with};
use crate::part::BenchError;
use crate::target::Target;

/// How often each kind of round is repeated.
const REPEATS: usize = 5;
/// Tables that flows are spread over; they follow the first.
const SPREAD: u32 = 10;
/// Table that outputs.
const LAST: u8 = 20;
/// Bytes of a packet.
const BYTES: u64 = 60;

/// A switch with datapath flows.
struct Bed {
    switch: Arc<Switch>,
    bridge: Arc<Bridge>,
    dp: Arc<SoftDatapath>,
    clock: Arc<ManualClock>,
    flows: u32,
    rounds: u64,
}

/// What a round has to do.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// Nothing was changed.
    Nothing,
    /// A rule that concerns none of the flows was added to one of the tables they are spread over.
    OneOfTen,
    /// The same to the first table, through which all go.
    First,
    /// The last table outputs elsewhere.
    Actions,
}

impl Change {
    fn what(self) -> &'static str {
        match self {
            Change::Nothing => "nothing changed",
            Change::OneOfTen => "a tenth to translate again",
            Change::First => "all to translate again",
            Change::Actions => "all with new actions",
        }
    }

    /// Flow-mods of repeat `i`.
    fn flow_mods(self, i: usize) -> String {
        match self {
            Change::Nothing => String::new(),
            Change::OneOfTen => format!("table=3,priority=1,ip,nw_src=172.16.{i}.1,actions=drop\n"),
            Change::First => format!("table=0,priority=1,arp,arp_tpa=172.16.{i}.1,actions=drop\n"),
            Change::Actions => format!("table={LAST},priority=10,ip,actions=output:{}\n", 3 + i % 2),
        }
    }

    /// What the round is to do with `n` flows.
    fn expected(self, n: usize) -> Revalidated {
        let (translated, replaced) = match self {
            Change::Nothing => (0, 0),
            Change::OneOfTen => (n / SPREAD as usize, 0),
            Change::First => (n, 0),
            Change::Actions => (n, n),
        };
        Revalidated { records: n, translated, replaced, deleted: 0, expired: 0 }
    }
}

/// The rules for `n` flows.
fn pipeline_text(n: u32) -> String {
    let mut out = format!("table={LAST},priority=10,ip,actions=output:2\n");
    for t in 1..=SPREAD {
        // Writing to a string does not fail.
        let _ = writeln!(out, "table=0,priority=10,udp,tp_dst={t},actions=goto_table:{t}");
    }
    for i in 0..n {
        let (table, src) = (1 + i % SPREAD, packet_of(i).0);
        let _ = writeln!(
            out,
            "table={table},priority=10,ip,nw_src={src},actions=load:{i}->NXM_NX_REG0[],goto_table:{LAST}"
        );
    }
    out
}

/// A packet of flow `i`.
fn frame(i: u32) -> Vec<u8> {
    let (src, dst, _) = packet_of(i);
    FrameBuilder::new().ipv4(src, dst).udp(999, (1 + i % SPREAD) as u16).pad_to(BYTES as usize).build()
}

impl Bed {
    /// With `flows` flows, each with a rule of its own.
    fn new(flows: u32) -> Result<Bed, BenchError> {
        let clock = Arc::new(ManualClock::new());
        let (switch, bridge) = switch_with(clock.clone());
        let config = DatapathConfig { max_flows: flows as usize, ..DatapathConfig::default() };
        let dp = SoftDatapath::new(config, clock.clone(), switch.clone(), switch.clone())?;
        switch.set_datapath(dp.clone());
        load(&bridge, &parse_file(&pipeline_text(flows), &|_| None)?, 1000)?;
        let bed = Bed { switch, bridge, dp, clock, flows, rounds: 0 };
        bed.fill()?;
        bed.switch.revalidate(bed.clock.now());
        Ok(bed)
    }

    /// Puts what the misses of every flow are translated to into the datapath.
    fn fill(&self) -> Result<(), BenchError> {
        let mut answers = Vec::with_capacity(BATCH);
        let all: Vec<u32> = (0..self.flows).collect();
        for some in all.chunks(BATCH) {
            let miss = |i: &u32| {
                let (src, dst, _) = packet_of(*i);
                let f =
                    FrameBuilder::new().ipv4(src, dst).udp(999, (1 + i % SPREAD) as u16).pad_to(60).build();
                let key = flow::parse(&f, FIRST_PORT).map(|p| p.key).unwrap_or_default();
                Miss { key, len_bytes: BYTES as u32, tcp_flags: 0 }
            };
            let misses: Vec<Miss> = some.iter().map(miss).collect();
            self.switch.translate(&misses, self.clock.now(), &mut answers);
            for t in answers.drain(..) {
                self.dp.flow_put(t.record().ok_or(BenchError::NoHit)?.clone())?;
            }
        }
        Ok(())
    }

    /// Flows per second of a round after `change`.
    fn round(&mut self, change: Change, i: usize) -> Result<f64, BenchError> {
        self.clock.advance(Duration::from_millis(100));
        let now = self.clock.now();
        self.dp.flow_dump(&mut |r| {
            r.counters.add(1, BYTES, 0, now);
            true
        });
        self.rounds += 1;
        load(&self.bridge, &parse_file(&change.flow_mods(i), &|_| None)?, 1)?;
        let start = processor_time();
        let did = self.switch.revalidate(now);
        let spent = processor_time() - start;
        let expected = change.expected(self.flows as usize);
        if did != expected {
            return Err(BenchError::Revalidated { did, expected });
        }
        self.check_counts()?;
        Ok(f64::from(self.flows) / spent.as_secs_f64())
    }

    /// Every packet was counted by the rule of the last table and by one of the others each.
    fn check_counts(&self) -> Result<(), BenchError> {
        let p = self.bridge.pipeline();
        let counted = |t: u8| p.table(t).map_or(0, |t| t.rules.rules().map(|f| f.rule.packets()).sum());
        let spread: u64 = (1..=SPREAD as u8).map(counted).sum();
        let sent = self.rounds * u64::from(self.flows);
        if [counted(0), spread, counted(LAST)] == [sent; 3] { Ok(()) } else { Err(BenchError::Uncounted) }
    }
}

/// Measures with `n` flows, and the daemons with `of_daemons`.
///
/// # Errors
/// As [`alone`], and when a daemon cannot be started, or does not do what it is asked.
pub fn run(n: u32, of_daemons: u32) -> Result<Vec<Figure>, BenchError> {
    let mut out = alone(n)?;
    out.extend(daemons::run(of_daemons)?);
    Ok(out)
}

/// Measures with `n` flows, a multiple of ten.
///
/// # Errors
/// When a flow is not taken, or a round does what it should not.
pub fn alone(n: u32) -> Result<Vec<Figure>, BenchError> {
    let mut bed = Bed::new(n)?;
    let mut out = Vec::new();
    for change in [Change::Nothing, Change::OneOfTen, Change::First, Change::Actions] {
        let rates = (0..REPEATS).map(|i| bed.round(change, i)).collect::<Result<Vec<_>, _>>()?;
        let name = format!("{}, {}", counted(n, "flow"), change.what());
        out.push(Figure::of(name, Unit::FlowsPerSecond, rates).flows(n.into()).target(Target::Revalidation));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_do_what_they_are_named_for() {
        let all = alone(200).unwrap();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|f| f.value > 0.0 && f.repeats == REPEATS), "{all:?}");
    }

    #[test]
    fn a_round_that_does_something_else_is_no_figure() {
        let mut bed = Bed::new(20).unwrap();
        // Flows that have gone meanwhile.
        bed.switch.purge(bed.clock.now());
        assert!(matches!(bed.round(Change::Nothing, 0), Err(BenchError::Revalidated { .. })));
    }
}
