//! One rule, one frame, one counter; misses; frames of the host.

use simnic_defs::regs::{PortReg, QueueReg};
use simnic_defs::{CmdDesc, CmdStatus, HwAction, Opcode, RxCpl, RxReason, RxStatus, TxStatus};

use super::{device, settle, to_dst};
use crate::{Config, frames};

#[test]
fn a_rule_forwards_a_frame_and_counts_it() {
    let (sim, mut h) = device(Config::default());
    let rule = to_dst([10, 0, 0, 2], &[HwAction::DecTtl, HwAction::Output { port: 2 }]);
    let c = h.install_exact(0, &rule).unwrap();
    assert_eq!(c.status, CmdStatus::Ok as u8);
    let f = frames::udp4([10, 0, 0, 1], [10, 0, 0, 2], 1, 2);
    assert!(sim.inject(0, &f));
    settle(&sim);
    let out = sim.collect(2);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].len(), f.len());
    assert_eq!(out[0][22], 63);
    let mut d = CmdDesc::new(Opcode::Remove, 0);
    d.entry = c.entry;
    let gone = h.command(d).unwrap();
    assert_eq!((gone.packets.get(), gone.bytes.get()), (1, f.len() as u64));
    assert!(gone.age_ns.get() < 1_000_000);
    assert_eq!(h.command(d).unwrap().status, CmdStatus::NoEntry as u8);
    assert_eq!((h.counter(PortReg::RX_PACKETS, 0), h.counter(PortReg::TX_BYTES, 2)), (1, f.len() as u64));
    assert_eq!(sim.fault_count(), 0, "{:?}", sim.faults());
}

#[test]
fn a_miss_goes_to_the_receive_ring_of_its_port_and_back_out_by_a_transmit_ring() {
    let (sim, mut h) = device(Config::default());
    let mut rx = h.receive_ring(1, 0).unwrap();
    let mut tx = h.transmit_ring(3, 1).unwrap();
    for _ in 0..4 {
        rx.post_receive();
    }
    h.write(QueueReg::RX_TAIL.of(1, 0), rx.tail);
    let f = frames::udp4([10, 0, 0, 1], [10, 0, 0, 9], 1, 2);
    sim.inject(1, &f);
    settle(&sim);
    let (c, got) = rx.take_received().unwrap();
    assert_eq!(got, f);
    assert_eq!((c.status, c.reason), (RxStatus::Ok as u8, RxReason::Miss as u8));
    assert_eq!((c.port, c.table, c.entry.get()), (1, RxCpl::NO_TABLE, RxCpl::NO_ENTRY));
    assert_ne!(c.hash.get(), 0);
    assert!(rx.take_received().is_none());
    tx.post_transmit(&got);
    h.write(QueueReg::TX_TAIL.of(3, 1), tx.tail);
    settle(&sim);
    assert_eq!(tx.take_transmitted().unwrap().status, TxStatus::Ok as u8);
    assert_eq!(sim.collect(3), [f]);
    assert_eq!(sim.fault_count(), 0, "{:?}", sim.faults());
}
