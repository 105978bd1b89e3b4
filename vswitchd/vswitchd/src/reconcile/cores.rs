//! Forwarding threads, and the receive queues that they serve.

use std::collections::BTreeMap;

use flow::PortId;

use super::assign::{Rxq, assign};
use super::{DETACH_PATIENCE, Reconciler};
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
}

/// What queues were given out by the last time.
#[derive(Default)]
pub(super) struct Given {
    forwarding: Forwarding,
    ports: Vec<Served>,
    /// Cycles of each queue by then.
    cycles: BTreeMap<(PortId, u16), u64>,
}

impl Reconciler {
    /// Has as many cores active as are wanted, on the processors that are.
    pub(super) fn settle_cores(&mut self, want: &Desired) {
        let (soft, threads) = (&self.parts.soft, &self.parts.cores);
        let most = soft.cores();
        let mut on: Vec<Option<usize>> = match &want.forwarding.processors {
            Some(p) if !p.is_empty() => p.iter().map(|p| Some(*p)).collect(),
            _ => threads.as_configured(self.threads),
        };
        if on.len() > most {
            tracing::warn!(target: "dpif_netdev", "{} forwarding threads are asked for, {most} are the most", on.len());
            on.truncate(most);
        }
        let was = threads.placed();
        if was == on {
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
        let now = on.len();
        tracing::info!(target: "dpif_netdev", "There are {now} pmd threads on numa node 0");
    }

    /// Gives receive queues to cores, when there is a reason to do it again: ports, cores or settings are others than the last
    /// time, or somebody wants it.
    pub(super) fn settle_queues(&mut self, want: &Desired) {
        let asked = self.parts.cores.wants_rebalance();
        self.give_out_queues(want, asked);
    }

    fn give_out_queues(&mut self, want: &Desired, anyway: bool) {
        let soft = &self.parts.soft;
        let mut ports: Vec<Served> = Vec::new();
        for p in self.bridges.iter().flat_map(|b| b.ports.values()) {
            let polls = !matches!(&p.config.kind, PortKind::Dummy { class, .. } if *class != DummyClass::Pmd);
            if let Some(port) = p.port.as_ref().map(|p| p.dp) {
                ports.push(Served {
                    port,
                    queues: soft.cores_of(port).len(),
                    rx: p.config.rx.clone(),
                    polls,
                });
            }
        }
        // Those of a datapath that is not ours have none.
        ports.retain(|p| p.queues > 0);
        ports.sort_by_key(|p| p.port);
        if !anyway && self.given.ports == ports && self.given.forwarding == want.forwarding {
            return;
        }
        let mut cycles = BTreeMap::new();
        for q in soft.core_stats().into_iter().flat_map(|c| c.queues) {
            cycles.insert((q.port, q.queue), q.cycles);
        }
        let placed = self.parts.cores.placed();
        let cores: Vec<usize> = (0..placed.len()).filter(|c| soft.is_active(*c)).collect();
        let mut queues = Vec::new();
        for Served { port, queues: n, rx, .. } in ports.iter().filter(|p| p.polls) {
            for queue in 0..*n as u16 {
                let now = cycles.get(&(*port, queue)).copied().unwrap_or(0);
                let before = self.given.cycles.get(&(*port, queue)).copied().unwrap_or(0);
                let asked = rx.affinity.get(&queue).copied();
                let core =
                    asked.and_then(|p| cores.iter().copied().find(|c| self.parts.cores.processor(*c) == p));
                if let (Some(p), None) = (asked, core) {
                    let name = soft.port_name(*port).unwrap_or_default();
                    tracing::warn!(
                        target: "dpif_netdev",
                        "Core {p} cannot be pinned with Port '{name}' Rx queue {queue}. Use pmd-cpu-mask to enable a pmd on core \
                         {p}. An alternative core will be assigned."
                    );
                }
                queues.push(Rxq { port: *port, queue, asked: core, cycles: now.saturating_sub(before) });
            }
        }
        if cores.is_empty() {
            return;
        }
        let (to, isolated) = assign(&queues, &cores, want.forwarding.assign, want.forwarding.isolate);
        let mut at = 0;
        for p in &ports {
            let theirs = match p.polls {
                true => {
                    at += p.queues;
                    to[at - p.queues..at].to_vec()
                }
                false => vec![cores[0]; p.queues],
            };
            if let Err(e) = soft.reassign(p.port, &theirs, DETACH_PATIENCE) {
                tracing::error!(target: "dpif_netdev", "queues of port {}: {e}", p.port.0);
            }
        }
        self.parts.cores.isolate(isolated);
        self.given = Given { forwarding: want.forwarding.clone(), ports, cycles };
    }
}
