//! Receive queues that are given out anew by themselves when threads are loaded unequally (`pmd-auto-lb` and the keys beside it in
//! `other_config`, ovs-vswitchd.conf.db(5)).
//!
//! ```text
//!   every interval: are there threads and queues enough? is a thread loaded enough? ─► a rehearsal of giving them out
//!                                              its loads differ by enough less than now ─► it is done
//! ```
//!
//! How much loads differ is their variance, in percent of a thread's time.

use std::collections::BTreeMap;

use clock::Instant;
use datapath::CoreStats;
use flow::PortId;
use parking_lot::Mutex;

use crate::desired::{AutoBalance, RxqAssign};

/// A queue, by port and number, and what it has cost.
type Costs = BTreeMap<(PortId, u16), u64>;

#[derive(Default)]
struct State {
    settings: AutoBalance,
    /// When it is looked at next; `None` while it is off.
    next: Option<Instant>,
    due: bool,
}

/// When it is time to look.
#[derive(Default)]
pub(crate) struct Balancing(Mutex<State>);

impl Balancing {
    /// Has it be as configured; says in the log what is new.
    pub(crate) fn configure(&self, new: AutoBalance, first: bool, now: Instant) {
        let mut s = self.0.lock();
        let old = std::mem::replace(&mut s.settings, new);
        let minutes = |b: &AutoBalance| b.every.as_secs() / 60;
        let told = [
            ("interval", minutes(&old), minutes(&new), " mins"),
            ("improvement threshold", old.improvement_percent.into(), new.improvement_percent.into(), "%"),
            ("load threshold", old.load_percent.into(), new.load_percent.into(), "%"),
        ];
        for (what, was, is, unit) in told {
            if first || was != is {
                tracing::info!(target: "dpif_netdev", "PMD auto load balance {what} set to {is}{unit}");
            }
        }
        if first || old.enabled != new.enabled {
            let word = if new.enabled { "enabled" } else { "disabled" };
            tracing::info!(target: "dpif_netdev", "PMD auto load balance is {word}");
        }
        if old != new || first {
            s.next = new.enabled.then(|| now + new.every);
            s.due = false;
        }
    }

    /// Whether it has become time to look; to be called by the control thread.
    pub(crate) fn has_come(&self, now: Instant) -> bool {
        let mut s = self.0.lock();
        if s.next.is_none_or(|at| now < at) {
            return false;
        }
        s.next = Some(now + s.settings.every);
        s.due = true;
        true
    }

    /// Whether it is time to look, once.
    pub(crate) fn take(&self) -> bool {
        std::mem::take(&mut self.0.lock().due)
    }
}

/// What was found the last time that it was looked at.
#[derive(Default)]
pub(crate) struct Looked {
    /// Cycles of cores, busy and in all, by then.
    cores: BTreeMap<usize, (u64, u64)>,
    /// What was given out by then, when there was nothing to do with it.
    nothing_to_do: Option<u64>,
}

/// What there is to give out.
pub(crate) struct Situation<'a> {
    /// Cores, with their counters.
    pub(crate) cores: &'a [CoreStats],
    /// Cores that serve only queues that name them.
    pub(crate) isolated: &'a [usize],
    /// How it is given out.
    pub(crate) assign: RxqAssign,
    /// Names what is given out: another number when ports, cores or settings are others.
    pub(crate) generation: u64,
    /// What each queue has cost since it was given out.
    pub(crate) costs: &'a Costs,
    /// Queues are served by threads of other memory nodes than their ports', and there are several such nodes: what they would
    /// cost elsewhere is not known.
    pub(crate) across_nodes: bool,
    /// Which core each queue would go to.
    pub(crate) rehearsed: &'a BTreeMap<(PortId, u16), usize>,
}

impl Looked {
    /// Whether queues are to be given out anew.
    pub(crate) fn gains(&mut self, settings: &AutoBalance, s: &Situation<'_>) -> bool {
        let before = std::mem::take(&mut self.cores);
        let busy: BTreeMap<usize, (u64, u64)> =
            s.cores.iter().map(|c| (c.core, (c.busy_cycles, c.busy_cycles + c.idle_cycles))).collect();
        self.cores.clone_from(&busy);
        let nothing =
            |why: &str| tracing::debug!(target: "dpif_netdev", "PMD auto load balance nothing to do, {why}.");
        if self.nothing_to_do == Some(s.generation) {
            nothing("no configuration changes since last check");
            return false;
        }
        if s.assign == RxqAssign::RoundRobin {
            nothing("pmd-rxq-assign=roundrobin assignment type configured");
            return false;
        }
        let open = |c: &&CoreStats| !s.isolated.contains(&c.core);
        let threads = s.cores.iter().filter(open).count();
        let choice = s.cores.iter().filter(open).any(|c| c.queues.len() > 1);
        if threads < 2 || !choice {
            self.nothing_to_do = Some(s.generation);
            nothing("not enough non-isolated PMDs or RxQs");
            return false;
        }
        self.nothing_to_do = None;
        let load = |core: &usize| {
            let (busy, all) = busy.get(core).copied().unwrap_or_default();
            let (busy0, all0) = before.get(core).copied().unwrap_or_default();
            busy.saturating_sub(busy0) * 100 / all.saturating_sub(all0).max(1)
        };
        if !busy.keys().any(|c| load(c) >= u64::from(settings.load_percent)) {
            return false;
        }
        tracing::debug!(target: "dpif_netdev", "PMD auto load balance performing dry run.");
        if s.across_nodes {
            tracing::debug!(
                target: "dpif_netdev",
                "PMD auto load balance detected cross-numa polling with multiple numa nodes. Unable to accurately estimate."
            );
            return false;
        }
        let now =
            s.cores.iter().flat_map(|c| c.queues.iter().map(move |q| ((q.port, q.queue), c.core))).collect();
        let (current, estimate) = (variance(s, &now), variance(s, s.rehearsed));
        let improvement = if current > estimate { (current - estimate) * 100 / current } else { 0 };
        tracing::debug!(
            target: "dpif_netdev",
            "PMD auto load balance dry run. Current variance {current}, estimated variance {estimate}. Variance improvement \
             {improvement}%."
        );
        improvement > 0 && improvement >= u64::from(settings.improvement_percent)
    }
}

/// How much cores' shares of what queues cost differ when they are given out so.
fn variance(s: &Situation<'_>, to: &BTreeMap<(PortId, u16), usize>) -> u64 {
    let mut loads: BTreeMap<usize, u64> = s.cores.iter().map(|c| (c.core, 0)).collect();
    for (queue, core) in to {
        if let (Some(l), Some(cost)) = (loads.get_mut(core), s.costs.get(queue)) {
            *l += cost;
        }
    }
    let total: u64 = loads.values().sum();
    let n = loads.len().max(1) as u64;
    let percent = |l: &u64| l * 100 / total.max(1);
    let mean = loads.values().map(percent).sum::<u64>() / n;
    loads.values().map(|l| percent(l).abs_diff(mean).pow(2)).sum::<u64>() / n
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datapath::QueueStats;

    use super::*;

    fn settings() -> AutoBalance {
        AutoBalance { enabled: true, load_percent: 50, ..AutoBalance::default() }
    }

    fn core(core: usize, busy: u64, queues: &[u16]) -> CoreStats {
        let queue =
            |q: &u16| QueueStats { port: PortId(1), name: String::new(), queue: *q, packets: 0, cycles: 0 };
        CoreStats {
            core,
            busy_cycles: busy,
            idle_cycles: 100u64.saturating_sub(busy),
            queues: queues.iter().map(queue).collect(),
            ..CoreStats::default()
        }
    }

    fn gains(looked: &mut Looked, cores: &[CoreStats], generation: u64, to: &[(u16, usize)]) -> bool {
        let costs = [(0, 60), (1, 30), (2, 30)].map(|(q, c)| ((PortId(1), q), c)).into();
        let rehearsed = to.iter().map(|(q, c)| ((PortId(1), *q), *c)).collect();
        let s = Situation {
            cores,
            isolated: &[],
            assign: RxqAssign::Cycles,
            generation,
            costs: &costs,
            across_nodes: false,
            rehearsed: &rehearsed,
        };
        looked.gains(&settings(), &s)
    }

    #[test]
    fn unequal_loads_are_a_reason_when_giving_out_anew_makes_them_alike() {
        let cores = [core(0, 90, &[0, 1]), core(1, 10, &[2])];
        let mut l = Looked::default();
        assert!(gains(&mut l, &cores, 1, &[(0, 0), (1, 1), (2, 1)]));
        // As it is already.
        assert!(!gains(&mut Looked::default(), &cores, 1, &[(0, 0), (1, 0), (2, 1)]));
        // Nothing has been done since then: no load.
        assert!(!gains(&mut l, &cores, 1, &[(0, 0), (1, 1), (2, 1)]));
    }

    #[test]
    fn one_thread_or_one_queue_each_is_no_reason_until_something_changes() {
        let mut l = Looked::default();
        assert!(!gains(&mut l, &[core(0, 90, &[0, 1, 2])], 1, &[(0, 0), (1, 0), (2, 0)]));
        assert_eq!(l.nothing_to_do, Some(1));
        let cores = [core(0, 190, &[0, 1]), core(1, 10, &[2])].map(|c| CoreStats { idle_cycles: 90, ..c });
        let better = [(0, 0), (1, 1), (2, 1)];
        assert!(!gains(&mut l, &cores, 1, &better), "it is what it was");
        assert!(gains(&mut Looked::default(), &cores, 2, &better));
    }

    #[test]
    fn it_is_time_every_interval_and_never_while_it_is_off() {
        let b = Balancing::default();
        let at = |s: u64| Instant::from_nanos(s * 1_000_000_000);
        b.configure(AutoBalance::default(), true, at(0));
        assert!(!b.has_come(at(1_000_000)));
        b.configure(AutoBalance { every: Duration::from_secs(120), ..settings() }, false, at(0));
        assert!(!b.has_come(at(119)) && b.has_come(at(120)) && !b.has_come(at(121)));
        assert!(b.take() && !b.take());
    }
}
