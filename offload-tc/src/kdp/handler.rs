//! What becomes of packets that the kernel's datapath hands over: translated, executed, and their record put so that the next
//! ones stay in the kernel. One thread for each socket, and so for each CPU.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use datapath_api::{FlowRecord, Miss, Punt, Translation, Translations};
use flow::{Action, FieldId, PortId};
use nix::errno::Errno;

use super::system::Shared;
use super::upcall::{Upcall, Upcalls};
use super::userdata::{self, Purpose};
use super::{KdpError, KernelDatapath};
use crate::transport::Transport;

/// How long a packet is waited for before it is looked whether the thread is to end.
const LOOK: Duration = Duration::from_millis(200);
/// Packets that are translated at a time.
const BURST: usize = 32;

/// How far a handler is, for [`Shared::synchronize`]: odd while it works on packets.
#[derive(Debug, Default)]
pub(super) struct Phase(AtomicU64);

impl Phase {
    fn step(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// The number while it works; `None` when it does not.
    pub fn busy(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Acquire)).filter(|n| n % 2 == 1)
    }
}

/// The thread: until `stop` is set.
pub(super) fn run<T: Transport>(
    shared: &Shared,
    mut up: Upcalls<T>,
    mut link: KernelDatapath<T>,
    phase: &Phase,
    stop: &AtomicBool,
) {
    let (mut all, mut answers) = (Vec::new(), Translations::new());
    while !stop.load(Ordering::Acquire) {
        let mut got = up.receive(LOOK, &mut all);
        while all.len() < BURST && matches!(got, Ok(n) if n > 0) {
            got = up.receive(Duration::ZERO, &mut all);
        }
        if let Err(e) = got {
            tracing::debug!("packets of the kernel's datapath: {e}");
            std::thread::sleep(LOOK);
        }
        shared.lost.fetch_add(std::mem::take(&mut up.overruns), Ordering::Relaxed);
        shared.unreadable.fetch_add(std::mem::take(&mut up.unreadable), Ordering::Relaxed);
        if !all.is_empty() {
            phase.step();
            shared.handle(&mut link, &mut all, &mut answers);
            phase.step();
        }
    }
}

impl Shared {
    fn handle<T: Transport>(
        &self,
        link: &mut KernelDatapath<T>,
        all: &mut Vec<Upcall>,
        answers: &mut Translations,
    ) {
        let now = self.clock.now();
        all.retain_mut(|u| !self.is_done(u));
        let miss = |u: &Upcall| Miss {
            key: u.key,
            len_bytes: u.packet.len() as u32,
            tcp_flags: u.key.get(FieldId::TcpFlags) as u16,
        };
        let misses: Vec<Miss> = all.iter().map(miss).collect();
        self.miss.translate(&misses, now, answers);
        for (u, (m, t)) in all.drain(..).zip(misses.iter().zip(answers.drain(..))) {
            let record = match t {
                Translation::Keep(record) => self.keep(link, &u, record),
                Translation::Once(actions) => {
                    self.carry_out(link, &u, &actions.into());
                    continue;
                }
            };
            record.counters.add(1, m.len_bytes.into(), m.tcp_flags, now);
            self.carry_out(link, &u, &record.actions);
        }
    }

    /// Whether a packet was handed over by an action, and is seen to.
    fn is_done(&self, u: &mut Upcall) -> bool {
        match u.userdata.as_deref().map(userdata::read) {
            None => false,
            Some(Some(Purpose::Controller(action))) => {
                let packet = std::mem::take(&mut u.packet);
                self.punts.punt(Punt { packet, key: u.key, action });
                true
            }
            Some(Some(Purpose::Software(id))) => {
                let record = self.table().get(id).cloned();
                // One that is gone meanwhile: translated anew.
                record.is_some_and(|r| {
                    self.by_software(u, &r.actions);
                    true
                })
            }
            Some(None) => {
                self.unreadable.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// Keeps a record, in the table and in the kernel; the one that serves the packet from now on.
    fn keep<T: Transport>(
        &self,
        link: &mut KernelDatapath<T>,
        u: &Upcall,
        record: Arc<FlowRecord>,
    ) -> Arc<FlowRecord> {
        {
            let mut table = self.table();
            // Another packet of the flow was faster.
            if let Some(there) = table.by_match(&record.matches) {
                return there.clone();
            }
            if table.len() >= self.limit {
                drop(table);
                self.miss.refused(&record);
                return record;
            }
            table.stage(record.clone(), u.beside.options.as_slice().into());
        }
        match self.put(link, &record, &u.beside.options) {
            Ok(()) => {
                self.table().settle(record.id);
                record
            }
            Err(e) => {
                self.table().unstage(record.id, None);
                // A flow that covers the packet is there already.
                let overlaps = matches!(&e, KdpError::Refused { errno, .. }
                    if matches!(Errno::from_raw(*errno), Errno::EEXIST | Errno::ENOENT));
                let covering = if overlaps { self.table().covering(&u.key) } else { None };
                covering.unwrap_or_else(|| {
                    self.complain(&e);
                    self.miss.refused(&record);
                    record
                })
            }
        }
    }

    /// Executes actions on a packet: by the kernel, or by software where the kernel cannot.
    fn carry_out<T: Transport>(&self, link: &mut KernelDatapath<T>, u: &Upcall, actions: &Arc<[Action]>) {
        if actions.is_empty() {
            return;
        }
        match self.execute(link, &u.packet, &u.key, &u.beside, actions) {
            Ok(()) => {}
            Err(KdpError::Unsupported(_)) => self.by_software(u, actions),
            Err(e) => {
                self.not_executed.fetch_add(1, Ordering::Relaxed);
                self.complain(&e);
            }
        }
    }

    fn by_software(&self, u: &Upcall, actions: &Arc<[Action]>) {
        let port = PortId(u.key.get(FieldId::DpPort) as u32);
        if !super::system::software_may(actions) || !(self.software)(&u.packet, port, actions.clone()) {
            self.not_executed.fetch_add(1, Ordering::Relaxed);
        }
    }
}
