//! Forwarding threads, and the receive queues that they serve.

use std::collections::BTreeMap;

use flow::PortId;

use super::assign::{Placed, Rxq, assign};
use super::{DETACH_PATIENCE, Reconciler};
use crate::auto_balance::{Looked, Situation};
use crate::config::{PortKind, RxQueues};
use crate::desired::{Desired, Forwarding};
use crate::dummy::DummyClass;

/// A port with queues.
#[derive(Clone, PartialEq)]
struct Served {
    port: PortId,
    queues: usize,
    rx: RxQueues,
    /// Dummies that do not poll are the first core's, as they are the main thread's of Open vSwitch.
    polls: bool,
    /// Its memory node.
    node: usize,
}

/// What queues were given out by the last time.
#[derive(Default)]
pub(super) struct Given {
    /// Counts how often they were.
    generation: u64,
    forwarding: Option<Forwarding>,
    ports: Vec<Served>,
    /// Cycles of each queue by then.
    cycles: BTreeMap<(PortId, u16), u64>,
    /// Threads on each node that were told of.
    told: BTreeMap<usize, usize>,
    looked: Looked,
    /// Settings that the log tells of.
    settings: Option<Forwarding>,
}

impl Reconciler {
    /// Has as many cores active as are wanted, on the processors that are.
    pub(super) fn settle_cores(&mut self, want: &Desired) {
        let (soft, threads) = (&self.parts.soft, &self.parts.cores);
        let most = soft.cores();
        let there = |p: &usize| !threads.numa.dummy || threads.numa.has(*p);
        let wanted = want.forwarding.processors.iter().flatten().copied().filter(there).map(Some);
        let mut on: Vec<Option<usize>> = wanted.collect();
        if on.is_empty() {
            on = threads.as_configured(self.threads);
        }
        if on.len() > most {
            tracing::warn!(target: "dpif_netdev", "{} forwarding threads are asked for, {most} are the most", on.len());
            on.truncate(most);
        }
        let was = threads.placed();
        if was == on && (0..on.len()).all(|c| soft.is_active(c)) {
            return;
        }
        if let Err(e) = threads.start(soft, on.len()) {
            tracing::error!(target: "dpif_netdev", "forwarding threads: {e}");
            return;
        }
        for core in 0..on.len() {
            if let Err(e) = soft.activate(core) {
                tracing::error!(target: "dpif_netdev", "{e}");
                return;
            }
        }
        threads.place(on.clone());
        // Queues leave the cores that go.
        self.give_out_queues(want, true);
        for core in on.len()..was.len().max(on.len()) {
            if let Err(e) = self.parts.soft.deactivate(core, DETACH_PATIENCE) {
                tracing::error!(target: "dpif_netdev", "{e}");
            }
        }
    }

    /// Gives receive queues to cores, when there is a reason to do it again: ports, cores or settings are others than the last
    /// time, somebody wants it, or loads have become unequal.
    pub(super) fn settle_queues(&mut self, want: &Desired) {
        self.tell_settings(&want.forwarding);
        let mut asked = self.parts.cores.wants_rebalance();
        if self.parts.cores.balancing.take() && !asked {
            asked = self.gains_by_giving_out(want);
        }
        self.give_out_queues(want, asked);
    }

    /// Says in the log what is new in how queues are given out, once the database has spoken.
    fn tell_settings(&mut self, new: &Forwarding) {
        // As long as there is no bridge there is no datapath that they would be of.
        let Some(balance) = new.balance.filter(|_| !self.bridges.is_empty()) else { return };
        let old = self.given.settings.replace(new.clone()).unwrap_or_default();
        if old.assign != new.assign {
            let word = new.assign.word();
            tracing::info!(target: "dpif_netdev", "Rxq to PMD assignment mode changed to: '{word}'.");
        }
        if old.isolate != new.isolate {
            let does = if new.isolate { "isolates" } else { "does not isolate" };
            tracing::info!(target: "dpif_netdev", "pmd-rxq-affinity {does} PMD core");
        }
        self.parts.cores.balancing.configure(balance, old.balance.is_none(), self.clock.now());
    }

    /// The ports that have queues.
    fn served(&self) -> Vec<Served> {
        let soft = &self.parts.soft;
        let mut ports: Vec<Served> = Vec::new();
        for p in self.bridges.iter().flat_map(|b| b.ports.values()) {
            let (polls, node) = match &p.config.kind {
                PortKind::Dummy { class, options } => (*class == DummyClass::Pmd, options.numa_node),
                _ => (true, 0),
            };
            if let Some(port) = p.port.as_ref().map(|p| p.dp) {
                let queues = soft.cores_of(port).len();
                ports.push(Served { port, queues, rx: p.config.rx.clone(), polls, node });
            }
        }
        // Those of a datapath that is not ours have none.
        ports.retain(|p| p.queues > 0);
        ports.sort_by_key(|p| p.port);
        ports
    }

    /// Cores that are active, in order of their processors.
    fn active(&self) -> Vec<Placed> {
        let threads = &self.parts.cores;
        let all = 0..threads.placed().len();
        let mut cores: Vec<Placed> = all
            .filter(|c| self.parts.soft.is_active(*c))
            .map(|core| Placed { core, node: threads.node(core) })
            .collect();
        cores.sort_by_key(|c| threads.processor(c.core));
        cores
    }

    /// The queues of ports that poll; says of those whose core is not there.
    fn queues(
        &self,
        ports: &[Served],
        cores: &[Placed],
        now: &BTreeMap<(PortId, u16), u64>,
        aloud: bool,
    ) -> Vec<Rxq> {
        let threads = &self.parts.cores;
        let mut queues = Vec::new();
        for Served { port, queues: n, rx, node, .. } in ports.iter().filter(|p| p.polls) {
            for queue in 0..*n as u16 {
                let cost = now.get(&(*port, queue)).copied().unwrap_or(0);
                let before = self.given.cycles.get(&(*port, queue)).copied().unwrap_or(0);
                let asked = rx.affinity.get(&queue).copied();
                let core = asked.and_then(|p| cores.iter().find(|c| threads.processor(c.core) == p));
                if let (Some(p), None, true) = (asked, core, aloud) {
                    let name = self.parts.soft.port_name(*port).unwrap_or_default();
                    tracing::warn!(
                        target: "dpif_netdev",
                        "Core {p:2} cannot be pinned with port '{name}' rx queue {queue}. Use pmd-cpu-mask to enable a pmd on \
                         core {p}. An alternative core will be assigned."
                    );
                }
                queues.push(Rxq {
                    port: *port,
                    queue,
                    node: *node,
                    asked: core.map(|c| c.core),
                    cycles: cost.saturating_sub(before),
                });
            }
        }
        queues
    }

    fn cycles_of_queues(&self) -> BTreeMap<(PortId, u16), u64> {
        let all = self.parts.soft.core_stats().into_iter().flat_map(|c| c.queues);
        all.map(|q| ((q.port, q.queue), q.cycles)).collect()
    }

    /// Whether loads would be enough less unequal if queues were given out anew.
    fn gains_by_giving_out(&mut self, want: &Desired) -> bool {
        let (ports, cores, cycles) = (self.served(), self.active(), self.cycles_of_queues());
        let queues = self.queues(&ports, &cores, &cycles, false);
        let given = assign(&queues, &cores, want.forwarding.assign, want.forwarding.isolate);
        let name = |q: &Rxq| (q.port, q.queue);
        let rehearsed = queues.iter().map(name).zip(given.to.iter().copied()).collect();
        let costs = queues.iter().map(|q| (name(q), q.cycles)).collect();
        let mut stats = self.parts.soft.core_stats();
        stats.retain(|c| cores.iter().any(|p| p.core == c.core));
        for c in &mut stats {
            c.queues.retain(|q| queues.iter().any(|r| name(r) == (q.port, q.queue)));
        }
        let situation = Situation {
            cores: &stats,
            isolated: &given.isolated,
            assign: want.forwarding.assign,
            generation: self.given.generation,
            costs: &costs,
            across_nodes: !given.strangers.is_empty() && cores.iter().any(|c| c.node != cores[0].node),
            rehearsed: &rehearsed,
        };
        self.given.looked.gains(&want.forwarding.balance.unwrap_or_default(), &situation)
    }

    fn give_out_queues(&mut self, want: &Desired, anyway: bool) {
        let (soft, threads) = (&self.parts.soft, &self.parts.cores);
        let ports = self.served();
        // When it is looked at is no matter of who gets what.
        let how = |f: &Forwarding| (f.processors.clone(), f.assign, f.isolate);
        let same = self.given.forwarding.as_ref().is_some_and(|g| how(g) == how(&want.forwarding));
        if !anyway && same && self.given.ports == ports {
            self.given.forwarding = Some(want.forwarding.clone());
            return;
        }
        let cores = self.active();
        let Some(first) = cores.first().map(|c| c.core) else { return };
        let cycles = self.cycles_of_queues();
        let queues = self.queues(&ports, &cores, &cycles, true);
        let (assignment, isolate) = (want.forwarding.assign, want.forwarding.isolate);
        let given = assign(&queues, &cores, assignment, isolate);
        if !queues.is_empty() {
            let word = assignment.word();
            tracing::info!(target: "dpif_netdev", "Performing pmd to rx queue assignment using {word} algorithm.");
        }
        for (i, (q, core)) in queues.iter().zip(&given.to).enumerate() {
            let name = soft.port_name(q.port).unwrap_or_default();
            let (queue, node, processor) = (q.queue, threads.node(*core), threads.processor(*core));
            if given.strangers.iter().any(|(s, _)| *s == i) {
                tracing::info!(
                    target: "dpif_netdev",
                    "There's no available (non-isolated) pmd thread on numa node {}. Port '{name}' rx queue {queue} will be \
                     assigned to a pmd on numa node {node}. This may lead to reduced performance.",
                    q.node
                );
            }
            tracing::info!(
                target: "dpif_netdev",
                "Core {processor:2} on numa node {node} assigned port '{name}' rx queue {queue}."
            );
        }
        let mut at = 0;
        for p in &ports {
            let theirs = match p.polls {
                true => {
                    at += p.queues;
                    given.to[at - p.queues..at].to_vec()
                }
                false => vec![first; p.queues],
            };
            if let Err(e) = soft.reassign(p.port, &theirs, DETACH_PATIENCE) {
                tracing::error!(target: "dpif_netdev", "queues of port {}: {e}", p.port.0);
            }
        }
        threads.isolate(given.isolated);
        let mut told = BTreeMap::new();
        if !self.parts.dummy || ports.iter().any(|p| p.polls) {
            cores.iter().for_each(|c| *told.entry(c.node).or_default() += 1);
        }
        if told != self.given.told {
            for (node, n) in &told {
                tracing::info!(target: "dpif_netdev", "There are {n} pmd threads on numa node {node}");
            }
        }
        self.given = Given {
            generation: self.given.generation + 1,
            forwarding: Some(want.forwarding.clone()),
            ports,
            cycles,
            told,
            looked: std::mem::take(&mut self.given.looked),
            settings: self.given.settings.take(),
        };
    }
}
