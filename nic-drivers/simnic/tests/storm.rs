//! The driver on a device that does everything wrong, by seed (`models::storm`).
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::sync::Arc;
use std::time::Duration;

use device::{BufferPool, DeviceBacking, ErrorEvents, PacketIo, QueueId, QueuePair};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use models::platform;
use models::storm::{Mishap, Report, Subject, storm};
use offload::{FlowRule, OffloadProvider};
use simnic::{Simnic, SimnicConfig, SimnicDriver};
use simnic_defs::{CmdStatus, Opcode, RxCpl, RxStatus};
use support::{CmdFault, Fake, FakeBacking};

const CELLS: u32 = 256;

/// Spoils a completion.
type Tamper = fn(&mut RxCpl);

struct Bench {
    dev: Fake,
    nic: Simnic<FakeBacking>,
    queues: QueuePair,
    pool: BufferPool,
    /// What is wrong with the next received frame; that it never comes, when there is nothing to spoil.
    rx: Option<Option<Tamper>>,
}

impl Bench {
    fn new() -> Bench {
        let dev = Fake::new();
        let pool = BufferPool::new(CELLS).unwrap();
        let config = SimnicConfig {
            ring_log2: 5,
            cmd_log2: 5,
            step_timeout: Duration::from_millis(50),
            cmd_timeout: Duration::from_millis(100),
            ..SimnicConfig::new(vec![(PortId(1), 0), (PortId(2), 1)])
        };
        let clock = Arc::new(dev.clock.clone());
        let mut nic = SimnicDriver::bring_up(dev.backing(), pool.clone(), config, clock).unwrap();
        let queues = nic.ports[0].take_queues(QueueId(0)).unwrap();
        Bench { dev, nic, queues, pool, rx: None }
    }
}

impl Subject for Bench {
    fn strike(&mut self, m: Mishap, way: u64) -> bool {
        let cmd = |f| self.dev.fault(Opcode::Install, f);
        match (m, way % 2) {
            (Mishap::SurpriseRemoval, _) => self.dev.lock().gone = true,
            (Mishap::LostInterrupts, _) => self.dev.lock().deaf = true,
            // Both tables that it may go to.
            (Mishap::TableFull, _) => (0..2).for_each(|_| cmd(CmdFault::Refuse(CmdStatus::TableFull))),
            (Mishap::ResetInBatch, _) => cmd(CmdFault::ResetsItself),
            (Mishap::NeverCompletes, 0) => cmd(CmdFault::Swallow),
            (Mishap::NeverCompletes, _) => self.rx = Some(None),
            (Mishap::CompletesTwice, _) => cmd(CmdFault::Twice),
            (Mishap::OutOfOrder, 0) => cmd(CmdFault::UnknownTag),
            (Mishap::OutOfOrder, _) => self.rx = Some(Some(|c| c.tag = 0x7777.into())),
            (Mishap::WrongLength, _) => self.rx = Some(Some(|c| c.len = 0xffff.into())),
            (Mishap::ErrorCompletion, 0) => cmd(CmdFault::UndefinedStatus),
            (Mishap::ErrorCompletion, _) => self.rx = Some(Some(|c| c.status = RxStatus::TooLong as u8)),
        }
        true
    }

    fn mend(&mut self) {
        let mut d = self.dev.lock();
        (d.gone, d.deaf) = (false, false);
        d.faults.clear();
    }

    fn arrives(&mut self, frame: &[u8]) {
        match self.rx.take() {
            Some(None) => {}
            Some(Some(tamper)) => drop(self.dev.deliver(0, frame, tamper)),
            None => drop(self.dev.deliver(0, frame, |_| {})),
        }
    }

    fn queues(&mut self) -> (&mut QueuePair, &BufferPool) {
        (&mut self.queues, &self.pool)
    }

    fn left(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.dev.lock().sent).into_iter().map(|(_, f)| f).collect()
    }

    fn provider(&mut self) -> &mut dyn OffloadProvider {
        &mut self.nic.provider
    }

    fn rule(&mut self, n: u32) -> FlowRule {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 1);
        m.set(FieldId::RecircId, 0);
        m.set(FieldId::EthSrc, 0x0200_0000_0000 | u128::from(n));
        let actions = [Action::Output(PortId(2))];
        FlowRule { id: FlowId(n.into()), matches: m, actions: actions.into(), provenance: [].into() }
    }

    fn advance(&mut self, d: Duration) {
        self.dev.clock.advance(d);
    }
}

#[test]
fn whatever_the_device_does_it_ends_in_errors_and_counts_and_comes_back() {
    let mut all = Report::default();
    for seed in 0..40 {
        let mut b = Bench::new();
        all = all.and(storm(seed, 25, &mut b));
        let pool = b.pool.clone();
        drop(b);
        assert_eq!(pool.free_cells(), CELLS as usize, "seed {seed}: every buffer is home");
    }
    assert_eq!(all.struck.len(), Mishap::ALL.len(), "{all:?}");
    assert!(all.ended.iter().all(|n| *n > 0) && all.resets > 20, "{all:?}");
}

#[test]
fn what_the_platform_says_of_it_is_heard() {
    let tests: [fn(&mut dyn Subject, &ErrorEvents); 2] =
        [platform::fatal_errors_cost_a_reset_each, platform::a_device_that_is_asked_for_is_given_up];
    for test in tests {
        let mut b = Bench::new();
        let errors = b.nic.provider.backing().errors().clone();
        test(&mut b, &errors);
        let pool = b.pool.clone();
        drop(b);
        assert_eq!(pool.free_cells(), CELLS as usize, "every buffer is home");
    }
}
