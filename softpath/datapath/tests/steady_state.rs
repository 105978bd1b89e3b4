//! While packets hit, a core does not allocate. Counted are the allocations of the thread that polls it: the test harness has another,
//! which allocates when it comes to it.
#![allow(unsafe_code)]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use datapath_api::Datapath;
use device::{PacketBatch, RxQueue, TxQueue};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, PortId};
use rig::Rig;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, l: Layout) -> *mut u8 {
        // A thread that is ending has none to count in.
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(l) }
    }

    unsafe fn dealloc(&self, p: *mut u8, l: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(p, l) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn a_core_does_not_allocate_while_packets_hit() {
    let mut rig = Rig::with(3, |c| c.exact_slots = 64);
    rig.handler.match_fields(&[FieldId::DpPort, FieldId::RecircId, FieldId::TpDst]);
    rig.handler.set_actions(vec![
        Action::PushVlan { tpid: 0x8100, tci: 5 },
        Action::Output(PortId(3)),
        Action::PopVlan,
        Action::SetField { field: FieldId::NwSrc, value: 1, mask: 0xffff_ffff },
        Action::DecTtl,
        Action::Output(PortId(2)),
    ]);
    let (_, mut tx) = rig.ends.remove(&1).unwrap();
    let (mut rx2, _t2) = rig.ends.remove(&2).unwrap();
    let (mut rx3, _t3) = rig.ends.remove(&3).unwrap();
    // More flows than the exact-match cache has slots, so that both caches are used.
    let frames: Vec<_> =
        (0..200u16).map(|i| FrameBuilder::new().ipv4([1, 2, 3, 4], [5, 6, 7, 8]).udp(9, i).build()).collect();
    let mut batch = PacketBatch::new();
    let mut round = |rig: &mut Rig, n: usize| {
        for k in 0..n {
            batch.push(rig.pool.copy_from(&frames[(n * 7 + k) % frames.len()]).unwrap()).unwrap();
        }
        tx.tx_burst(&mut batch).unwrap();
        rig.poll();
        rx2.rx_burst(&mut batch).unwrap();
        batch.clear();
        rx3.rx_burst(&mut batch).unwrap();
        batch.clear();
    };
    for n in (1..32).cycle().take(500) {
        round(&mut rig, n);
    }
    let (before, hits) = (allocations(), rig.dp.stats());
    for n in (1..32).cycle().take(5000) {
        round(&mut rig, n);
    }
    let allocations = allocations() - before;
    let s = rig.dp.stats();
    assert_eq!(s.misses, hits.misses);
    assert!(s.exact_hits > hits.exact_hits && s.megaflow_hits > hits.megaflow_hits);
    assert_eq!(s.tx_packets - hits.tx_packets, 2 * (s.rx_packets - hits.rx_packets));
    assert_eq!(allocations, 0);
    assert_eq!(rig.pool.free_cells(), rig.pool.cells() as usize);
}
