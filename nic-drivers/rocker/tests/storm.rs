//! The driver on a device that does everything wrong, by seed (`models::storm`).
#![allow(clippy::unwrap_used)] // a test may panic

use std::time::Duration;

use device::{BufferPool, DeviceBacking, ErrorEvents, PacketIo, QueueId, QueuePair};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use models::platform;
use models::rocker::{CmdFault, Outside, Rocker as Chip, RxFault};
use models::storm::{Mishap, Report, Subject, storm};
use models::{Backing, Model};
use offload::{FlowRule, OffloadProvider};
use rocker::{Rocker, RockerConfig, RockerDriver};
use rocker_defs::cmd::{command, errno};

const CELLS: u32 = 256;

struct Bench {
    model: Model<Chip>,
    nic: Rocker<Backing<Chip>>,
    queues: QueuePair,
    pool: BufferPool,
}

impl Bench {
    fn new() -> Bench {
        let model = Model::of(Chip::as_qemu(2));
        let pool = BufferPool::new(CELLS).unwrap();
        let config = RockerConfig { ring_log2: 5, ..RockerConfig::new(vec![(PortId(1), 0), (PortId(2), 1)]) };
        let mut nic = RockerDriver::bring_up(model.backing(), pool.clone(), config).unwrap();
        let queues = nic.ports[0].take_queues(QueueId(0)).unwrap();
        Bench { model, nic, queues, pool }
    }
}

impl Subject for Bench {
    fn strike(&mut self, m: Mishap, way: u64) -> bool {
        let mut inner = self.model.lock();
        let (chip, bus) = &mut *inner;
        let mut cmd = |f| chip.cmd_faults.push_back((command::FLOW_ADD, f));
        match (m, way % 3) {
            (Mishap::SurpriseRemoval, _) => bus.gone = true,
            (Mishap::LostInterrupts, _) => bus.deaf = true,
            (Mishap::TableFull, _) => chip.flow_limit = chip.flows.len(),
            (Mishap::ResetInBatch, 0) => cmd(CmdFault::ResetsItself),
            (Mishap::ResetInBatch, _) => chip.power_up(),
            (Mishap::NeverCompletes, 0) => cmd(CmdFault::Swallow),
            (Mishap::NeverCompletes, _) => chip.rx_faults.push_back(RxFault::Missing),
            (Mishap::CompletesTwice, _) => chip.rx_faults.push_back(RxFault::Twice),
            (Mishap::OutOfOrder, 0) => cmd(CmdFault::WrongCookie),
            (Mishap::OutOfOrder, 1) => chip.tx_faults.push_back((true, 0)),
            (Mishap::OutOfOrder, _) => chip.rx_faults.push_back(RxFault::WrongCookie),
            (Mishap::WrongLength, 0) => cmd(CmdFault::HugeAnswer),
            (Mishap::WrongLength, 1) => chip.rx_faults.push_back(RxFault::TooLong),
            (Mishap::WrongLength, _) => chip.rx_faults.push_back(RxFault::HugeTlvs),
            (Mishap::ErrorCompletion, 0) => cmd(CmdFault::Refuse(errno::ENOMEM)),
            (Mishap::ErrorCompletion, 1) => chip.tx_faults.push_back((false, errno::ENXIO)),
            (Mishap::ErrorCompletion, _) => chip.rx_faults.push_back(RxFault::Error(errno::ENXIO)),
        }
        true
    }

    fn mend(&mut self) {
        let mut inner = self.model.lock();
        let (chip, bus) = &mut *inner;
        (bus.gone, bus.deaf, chip.flow_limit) = (false, false, usize::MAX);
        chip.cmd_faults.clear();
    }

    fn arrives(&mut self, frame: &[u8]) {
        self.model.inject(0, frame);
    }

    fn queues(&mut self) -> (&mut QueuePair, &BufferPool) {
        (&mut self.queues, &self.pool)
    }

    fn left(&mut self) -> Vec<Vec<u8>> {
        // What the tables forwarded is port 1's.
        self.model.collect().into_iter().filter(|(p, _)| *p == 0).map(|(_, f)| f).collect()
    }

    fn provider(&mut self) -> &mut dyn OffloadProvider {
        &mut self.nic.provider
    }

    fn rule(&mut self, n: u32) -> FlowRule {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 1);
        m.set(FieldId::EthType, 0x88b5);
        m.set_masked(FieldId::VlanTci, 0, 0x1fff);
        m.set(FieldId::EthSrc, 0x0200_0000_0000 | u128::from(n));
        let actions = [Action::Output(PortId(2))];
        FlowRule { id: FlowId(n.into()), matches: m, actions: actions.into(), provenance: [].into() }
    }

    fn advance(&mut self, d: Duration) {
        self.model.clock.advance(d);
    }
}

#[test]
fn whatever_the_device_does_it_ends_in_errors_and_counts_and_comes_back() {
    let mut all = Report::default();
    for seed in 0..40 {
        let mut b = Bench::new();
        all = all.and(storm(seed, 25, &mut b));
        assert_eq!(b.model.lock().1.dma_faults, 0, "seed {seed}");
        let pool = b.pool.clone();
        drop(b);
        assert_eq!(pool.free_cells(), CELLS as usize, "seed {seed}: every buffer is home");
    }
    assert_eq!(all.struck.len(), Mishap::ALL.len(), "{all:?}");
    assert!(all.ended.iter().all(|n| *n > 0) && all.errors > 0 && all.resets > 40, "{all:?}");
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
