//! The driver on a device that does everything wrong, by seed (`models::storm`), with split and with packed rings.
#![allow(clippy::unwrap_used)] // a test may panic

use std::time::Duration;

use device::{BufferPool, DeviceBacking, ErrorEvents, PacketIo, QueueId, QueuePair};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use models::platform;
use models::storm::{Mishap, Report, Subject, storm};
use models::virtio::{ALL_FEATURES, Outside, RxFault, TxFault, Virtio};
use models::{Backing, Model};
use offload::{FlowRule, OffloadProvider};
use virtio_net::{VirtioConfig, VirtioDriver, VirtioNet};
use virtio_net_defs::feature;

const CELLS: u32 = 256;

struct Bench {
    model: Model<Virtio>,
    nic: VirtioNet<Backing<Virtio>>,
    queues: QueuePair,
    pool: BufferPool,
}

impl Bench {
    fn new(offers: u64) -> Bench {
        let model = Model::of(Virtio::new(offers));
        let pool = BufferPool::new(CELLS).unwrap();
        let config = VirtioConfig { port: Some(PortId(1)), ring_log2: 5, ..VirtioConfig::new() };
        let mut nic = VirtioDriver::bring_up(model.backing(), pool.clone(), config).unwrap();
        let queues = nic.port.take_queues(QueueId(0)).unwrap();
        Bench { model, nic, queues, pool }
    }
}

impl Subject for Bench {
    fn strike(&mut self, m: Mishap, way: u64) -> bool {
        let mut inner = self.model.lock();
        let (chip, bus) = &mut *inner;
        let rx = |chip: &mut Virtio, f| chip.rx_faults.push_back(Some(f));
        let tx = |chip: &mut Virtio, f| chip.tx_faults.push_back(Some(f));
        match (m, way % 3) {
            // It has none.
            (Mishap::TableFull, _) => return false,
            (Mishap::SurpriseRemoval, _) => bus.gone = true,
            (Mishap::LostInterrupts, _) => bus.deaf = true,
            (Mishap::ResetInBatch, _) => rx(chip, RxFault::ResetsItself),
            (Mishap::NeverCompletes, 0) => tx(chip, TxFault::Never),
            (Mishap::NeverCompletes, _) => rx(chip, RxFault::Missing),
            (Mishap::CompletesTwice, 0) => tx(chip, TxFault::Twice),
            (Mishap::CompletesTwice, _) => rx(chip, RxFault::Twice),
            (Mishap::OutOfOrder, 0) => tx(chip, TxFault::Late),
            (Mishap::OutOfOrder, 1) => tx(chip, TxFault::WrongId),
            (Mishap::OutOfOrder, _) => rx(chip, RxFault::WrongId),
            (Mishap::WrongLength, 0) => rx(chip, RxFault::TooLong),
            (Mishap::WrongLength, 1) => rx(chip, RxFault::TooShort),
            (Mishap::WrongLength, _) => rx(chip, RxFault::MissingBuffers),
            (Mishap::ErrorCompletion, _) => rx(chip, RxFault::NeedsChecksum),
        }
        true
    }

    fn mend(&mut self) {
        let mut inner = self.model.lock();
        (inner.1.gone, inner.1.deaf) = (false, false);
    }

    fn arrives(&mut self, frame: &[u8]) {
        self.model.inject(0, frame);
    }

    fn queues(&mut self) -> (&mut QueuePair, &BufferPool) {
        (&mut self.queues, &self.pool)
    }

    fn left(&mut self) -> Vec<Vec<u8>> {
        self.model.collect().into_iter().map(|(_, _, f)| f).collect()
    }

    fn provider(&mut self) -> &mut dyn OffloadProvider {
        &mut self.nic.provider
    }

    fn rule(&mut self, n: u32) -> FlowRule {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 1);
        let actions = [Action::Output(PortId(1))];
        FlowRule { id: FlowId(n.into()), matches: m, actions: actions.into(), provenance: [].into() }
    }

    fn advance(&mut self, d: Duration) {
        self.model.clock.advance(d);
    }
}

#[test]
fn whatever_the_device_does_it_ends_in_errors_and_counts_and_comes_back() {
    let mut all = Report::default();
    for offers in [ALL_FEATURES, ALL_FEATURES & !feature::RING_PACKED] {
        for seed in 0..20 {
            let mut b = Bench::new(offers);
            all = all.and(storm(seed, 25, &mut b));
            assert_eq!(b.model.lock().1.dma_faults, 0, "seed {seed}");
            let pool = b.pool.clone();
            drop(b);
            assert_eq!(pool.free_cells(), CELLS as usize, "seed {seed}: every buffer is home");
        }
    }
    assert_eq!(all.struck.len(), Mishap::ALL.len() - 1, "{all:?}");
    assert!(all.ended[1] > 0 && all.ended[0] + all.ended[2] == 0 && all.resets > 20, "{all:?}");
}

#[test]
fn what_the_platform_says_of_it_is_heard() {
    let tests: [fn(&mut dyn Subject, &ErrorEvents); 2] =
        [platform::fatal_errors_cost_a_reset_each, platform::a_device_that_is_asked_for_is_given_up];
    for (offers, test) in
        [ALL_FEATURES, ALL_FEATURES & !feature::RING_PACKED].into_iter().flat_map(|o| tests.map(|t| (o, t)))
    {
        let mut b = Bench::new(offers);
        let errors = b.nic.provider.backing().errors().clone();
        test(&mut b, &errors);
        let pool = b.pool.clone();
        drop(b);
        assert_eq!(pool.free_cells(), CELLS as usize, "every buffer is home");
    }
}
