//! What reaches a core between bursts: changes of ports and records, packets to execute, packets that other cores hand over. And how
//! records that misses make reach the datapath's table and the other cores.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use clock::Instant;
use datapath_api::{DropReason, FlowRecord};
use device::BATCH;
use flow::{PacketKey, parse_into};

use crate::core::{Core, InPort};
use crate::datapath::Shared;
use crate::flow_table::{Installed, Put};
use crate::link::{FlowChange, PortChange};
use crate::port::OutPort;

impl Core {
    /// Packets to execute, and packets from other cores for ports of this one.
    #[cold]
    pub(crate) fn take_handoffs(&mut self, shared: &Shared, now: Instant) -> usize {
        let link = &shared.links[self.index];
        let mut n = 0;
        while n < 4 * BATCH
            && let Some(x) = link.executes.pop()
        {
            n += 1;
            self.out.tally.executed += 1;
            let mut key = PacketKey::ZERO;
            match parse_into(&x.packet, x.in_port, &mut key) {
                Ok(layout) => self.out.execute(x.packet, &mut key, &layout, &x.actions, 0, now),
                Err(_) => self.out.tally.drop(DropReason::Runt),
            }
            self.recirculate(now);
        }
        for _ in 0..4 * BATCH {
            let Some((port, p)) = link.handoff.pop() else { break };
            n += 1;
            self.out.send(port, p);
        }
        n
    }

    #[cold]
    pub(crate) fn take_changes(&mut self, shared: &Shared) {
        let link = &shared.links[self.index];
        while let Some(c) = link.ports.pop() {
            match c {
                PortChange::Attach { port, queues } => {
                    let mut first = None;
                    for (place, (rx, tx)) in queues {
                        let wakes = self.sleeper.watch(&*rx);
                        let spare = match first {
                            None => {
                                first = Some(tx);
                                None
                            }
                            Some(_) => Some(tx),
                        };
                        let shared = port.clone();
                        self.inputs.push(InPort { shared, place, rx, spare, received: 0, wakes });
                    }
                    self.out.attach(OutPort::new(port, first, self.index));
                }
                PortChange::Detach { id, leaving } => {
                    let mut first = self.out.detach(id);
                    while let Some(at) = self.inputs.iter().position(|p| p.shared.id == id) {
                        let p = self.inputs.remove(at);
                        self.sleeper.forget(&*p.rx, p.wakes);
                        // The first queue of the port here has no spare: its sending half is the one that was used.
                        if let Some(tx) = p.spare.or_else(|| first.take()) {
                            leaving.give_back(p.place, (p.rx, tx));
                        }
                    }
                    leaving.left();
                }
            }
        }
        if link.resync.swap(false, Ordering::AcqRel) {
            self.resync();
        }
        while let Some(c) = link.flows.pop() {
            match c {
                FlowChange::Put(i) => {
                    if let Some(i) = i.current() {
                        self.tables.insert(i);
                    }
                }
                FlowChange::Removed(i) => self.tables.remove(&i),
            }
        }
        self.tables.settle();
    }

    /// Makes the core's tables agree with the datapath's.
    pub(crate) fn resync(&mut self) {
        let shared = self.shared.clone();
        self.tables.sweep();
        let mut cursor = 0;
        let mut chunk = Vec::with_capacity(256);
        loop {
            shared.flows.lock().chunk(&mut cursor, 256, &mut chunk);
            if chunk.is_empty() {
                break;
            }
            for i in chunk.drain(..) {
                if i.is_live() {
                    self.tables.insert(i);
                }
            }
        }
        self.tables.settle();
    }
}

impl Shared {
    /// Sends a change to every core. Under the lock of the table, so that changes reach the cores in the order in which they
    /// were made.
    pub(crate) fn broadcast(&self, change: impl Fn() -> FlowChange) {
        for l in self.links.iter().filter(|l| l.is_active()) {
            l.change(change());
        }
    }

    /// Puts a record that a core has had translated into the table. An older one with the same match stays, and is what
    /// the core uses.
    pub(crate) fn install(&self, record: Arc<FlowRecord>) -> Result<Arc<Installed>, Arc<FlowRecord>> {
        let mut flows = self.flows.lock();
        match flows.find_or_put(record)? {
            Put::Added(i) | Put::Replaced(i) => Ok(i),
            Put::Moved { old, new } => {
                self.broadcast(|| FlowChange::Removed(old.clone()));
                Ok(new)
            }
        }
    }
}
