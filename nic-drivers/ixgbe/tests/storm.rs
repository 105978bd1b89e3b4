//! The driver on a device that does everything wrong, by seed (`models::storm`).
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::time::Duration;

use device::{BufferPool, DeviceBacking, ErrorEvents, QueuePair};
use flow::{FieldId, FlowId, PacketMatch};
use ixgbe_model::{Mishaps, Outside, RxFault, TxFault};
use models::platform;
use models::storm::{Mishap, Report, Subject, storm};
use offload::{FlowRule, OffloadProvider};
use support::{Bench, CELLS, config};

struct Storm(Bench);

impl Subject for Storm {
    fn strike(&mut self, m: Mishap, way: u64) -> bool {
        let mut inner = self.0.model.lock();
        let (chip, bus) = &mut *inner;
        let its = &mut chip.mishaps;
        match (m, way % 3) {
            (Mishap::SurpriseRemoval, _) => bus.gone = true,
            (Mishap::LostInterrupts, _) => bus.deaf = true,
            (Mishap::TableFull, _) => its.fdir_full = true,
            (Mishap::ResetInBatch, 0) => its.tx.push_back(Some(TxFault::ResetsItself)),
            (Mishap::ResetInBatch, _) => its.rx.push_back(Some(RxFault::ResetsItself)),
            (Mishap::NeverCompletes, 0) => its.tx.push_back(Some(TxFault::Never)),
            (Mishap::NeverCompletes, 1) => its.rx.push_back(Some(RxFault::Missing)),
            (Mishap::NeverCompletes, _) => its.fdir_hangs = true,
            // A descriptor has no number and no generation: one that is written back again, over its own, is a frame like
            // any other, and nobody could tell. What a stale one does to buffers is in `on_model.rs`.
            (Mishap::CompletesTwice, _) => return false,
            // The flow director says that it is done with what it has not done.
            (Mishap::OutOfOrder, _) => its.fdir_forgets = true,
            (Mishap::WrongLength, 0) => its.rx.push_back(Some(RxFault::TooLong)),
            (Mishap::WrongLength, 1) => its.rx.push_back(Some(RxFault::Empty)),
            (Mishap::WrongLength, _) => its.rx.push_back(Some(RxFault::NoEnd)),
            (Mishap::ErrorCompletion, _) => its.rx.push_back(Some(RxFault::Damaged)),
        }
        true
    }

    fn mend(&mut self) {
        let mut inner = self.0.model.lock();
        (inner.1.gone, inner.1.deaf) = (false, false);
        inner.0.mishaps = Mishaps::default();
    }

    fn arrives(&mut self, frame: &[u8]) {
        self.0.model.inject(frame);
    }

    fn queues(&mut self) -> (&mut QueuePair, &BufferPool) {
        (&mut self.0.queues[0], &self.0.pool)
    }

    fn left(&mut self) -> Vec<Vec<u8>> {
        self.0.model.collect().into_iter().map(|(_, f)| f).collect()
    }

    fn provider(&mut self) -> &mut dyn OffloadProvider {
        &mut self.0.nic.provider
    }

    /// Drops the UDP packets of source `n`.
    fn rule(&mut self, n: u32) -> FlowRule {
        let mut m = PacketMatch::ANY;
        for (f, v) in [(FieldId::DpPort, 7), (FieldId::RecircId, 0), (FieldId::EthType, 0x0800)] {
            m.set(f, v);
        }
        m.set_masked(FieldId::VlanTci, 0, 0x1fff);
        m.set_masked(FieldId::NwFrag, 0, 3);
        m.set(FieldId::NwProto, 17);
        m.set(FieldId::NwSrc, n.into());
        FlowRule { id: FlowId(n.into()), matches: m, actions: [].into(), provenance: [].into() }
    }

    fn advance(&mut self, d: Duration) {
        self.0.model.clock.advance(d);
    }
}

#[test]
fn whatever_the_device_does_it_ends_in_errors_and_counts_and_comes_back() {
    let mut all = Report::default();
    for seed in 0..30 {
        let mut b = Storm(Bench::new(config()));
        all = all.and(storm(seed, 25, &mut b));
        let pool = b.0.pool.clone();
        drop(b);
        assert_eq!(pool.free_cells(), CELLS as usize, "seed {seed}: every buffer is home");
    }
    assert_eq!(all.struck.len(), Mishap::ALL.len() - 1, "{all:?}");
    assert!(all.ended.iter().all(|n| *n > 0) && all.resets > 20, "{all:?}");
}

#[test]
fn what_the_platform_says_of_it_is_heard() {
    let tests: [fn(&mut dyn Subject, &ErrorEvents); 2] =
        [platform::fatal_errors_cost_a_reset_each, platform::a_device_that_is_asked_for_is_given_up];
    for test in tests {
        let mut b = Storm(Bench::new(config()));
        let errors = b.0.nic.provider.backing().errors().clone();
        test(&mut b, &errors);
        let pool = b.0.pool.clone();
        drop(b);
        assert_eq!(pool.free_cells(), CELLS as usize, "every buffer is home");
    }
}
