//! What a driver does wrong is recorded and survived.

use device::{DeviceBacking, RegOffset, Registers};
use simnic_defs::regs::{QueueReg, Reg, fault, queue_status, status};
use simnic_defs::{BufDesc, CmdDesc, CmdStatus, HwAction, Opcode, RxStatus, TxStatus};

use super::{device, settle, to_dst};
use crate::raw_host::BUFFER;
use crate::{Config, FaultKind, frames};

#[test]
fn an_unmapped_receive_buffer_loses_its_frame_only() {
    let (sim, mut h) = device(Config::default());
    let mut rx = h.receive_ring(0, 0).unwrap();
    rx.post(&BufDesc::new(0xdead_0000, BUFFER as u16, 99, false));
    rx.post_receive();
    h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
    let f = frames::udp4([10, 0, 0, 1], [10, 0, 0, 9], 1, 2);
    sim.inject(0, &f);
    sim.inject(0, &f);
    settle(&sim);
    let (c, _) = rx.take_received().unwrap();
    assert_eq!((c.status, c.tag.get()), (RxStatus::DmaFault as u8, 99));
    let (c, got) = rx.take_received().unwrap();
    assert_eq!((c.status, got), (RxStatus::Ok as u8, f));
    assert_eq!(h.read(Reg::FAULT), fault::DMA_WRITE);
    assert_eq!(h.read(Reg::FAULT_INFO), QueueReg::RX_CTRL.of(0, 0).0);
    assert_eq!(h.read(Reg::FAULT_ADDR), 0xdead_0000);
    h.write(Reg::FAULT, fault::DMA_WRITE);
    assert_eq!(h.read(Reg::FAULT), 0);
    assert_eq!(sim.iommu_faults()[0].iova.0, 0xdead_0000);
}

#[test]
fn a_descriptor_of_the_wrong_generation_completes_and_the_ring_goes_on() {
    let (sim, mut h) = device(Config::default());
    let mut tx = h.transmit_ring(2, 0).unwrap();
    let f = frames::udp4([10, 0, 0, 1], [10, 0, 0, 9], 1, 2);
    tx.post_transmit(&f);
    tx.post_transmit(&f[..13]);
    tx.post_transmit(&f);
    // Turn the generation of the first.
    tx.desc.memory.store32(12, 1);
    h.write(QueueReg::TX_TAIL.of(2, 0), tx.tail);
    settle(&sim);
    let status: Vec<u8> = std::iter::from_fn(|| tx.take_transmitted()).map(|c| c.status).collect();
    assert_eq!(status, [TxStatus::BadDesc as u8, TxStatus::BadLength as u8, TxStatus::Ok as u8]);
    assert_eq!(sim.collect(2), [f]);
    assert_eq!(h.read(Reg::FAULT), fault::BAD_DESC);
}

#[test]
fn a_ring_whose_descriptors_cannot_be_read_stops_and_can_be_started_again() {
    let (sim, mut h) = device(Config::default());
    let mut tx = h.transmit_ring(2, 0).unwrap();
    h.write(QueueReg::TX_CTRL.of(2, 0), 0);
    let base = RegOffset(QueueReg::TX_DESC_BASE.of(2, 0).0);
    h.regs.write64(base, 0x4000);
    h.write(QueueReg::TX_CTRL.of(2, 0), 1);
    h.write(QueueReg::TX_TAIL.of(2, 0), 1);
    settle(&sim);
    assert_eq!(h.read(QueueReg::TX_STATUS.of(2, 0)), queue_status::ERROR);
    assert_eq!(h.read(Reg::FAULT), fault::DMA_READ);
    h.write(QueueReg::TX_CTRL.of(2, 0), 0);
    h.regs.write64(base, tx.desc.iova.0);
    h.write(QueueReg::TX_CTRL.of(2, 0), 1);
    assert_eq!(h.read(QueueReg::TX_STATUS.of(2, 0)), queue_status::ENABLED);
    let f = frames::udp4([10, 0, 0, 1], [10, 0, 0, 9], 1, 2);
    tx.post_transmit(&f);
    h.write(QueueReg::TX_TAIL.of(2, 0), tx.tail);
    settle(&sim);
    assert_eq!(sim.collect(2), [f]);
}

#[test]
fn impossible_rings_and_doorbells_are_refused() {
    let (sim, mut h) = device(Config::default());
    h.write(QueueReg::RX_LOG2.of(0, 1), 30);
    h.write(QueueReg::RX_CTRL.of(0, 1), 1);
    assert_eq!(h.read(QueueReg::RX_STATUS.of(0, 1)), queue_status::ERROR);
    let rx = h.receive_ring(1, 0).unwrap();
    h.write(QueueReg::RX_LOG2.of(1, 0), 4);
    assert_eq!(h.read(QueueReg::RX_LOG2.of(1, 0)), 6, "locked while enabled");
    h.write(QueueReg::RX_TAIL.of(1, 0), rx.tail.wrapping_sub(1));
    assert_eq!(h.read(QueueReg::RX_STATUS.of(1, 0)), queue_status::ERROR);
    h.write(QueueReg::RX_TAIL.of(1, 1), 5);
    assert_eq!(h.read(Reg::FAULT), fault::BAD_RING | fault::BAD_DOORBELL, "not enabled: ignored");
    h.write(Reg::ID, 1);
    h.write(simnic_defs::Reg(0x0ffc), 1);
    let what: Vec<FaultKind> = sim.faults().iter().map(|f| f.what).collect();
    use FaultKind::{BadDoorbell, BadRing, IgnoredWrite};
    assert_eq!(what, [BadRing, IgnoredWrite, BadDoorbell, IgnoredWrite, IgnoredWrite]);
    let said: Vec<String> = sim.faults().iter().map(|f| f.to_string()).collect();
    let cycle = sim.faults()[0].cycle;
    let ring = "receive ring of port 0, queue 1, RX_CTRL (0x4098): ring geometry is impossible, log2 0x1e";
    assert_eq!(said[0], format!("cycle {cycle}, function 0, {ring}"));
    assert!(said[3].ends_with("function 0, device, ID (0x0000): write ignored (read-only, undefined, or locked while the ring is enabled), value 0x1"), "{said:?}");
    assert!(said[4].contains("register 0x0ffc"), "{said:?}");
}

#[test]
fn a_completion_that_cannot_be_written_is_fatal_until_reset() {
    let (sim, mut h) = device(Config::default());
    h.backing.dma_unmap(h.cmd.cpl.iova).unwrap();
    h.submit(CmdDesc::new(Opcode::Nop, 0));
    settle(&sim);
    assert_ne!(h.read(Reg::STATUS) & status::FATAL, 0);
    assert_eq!(h.read(Reg::FAULT), fault::DMA_WRITE);
    let sim2 = sim.clone();
    drop(h);
    let h = crate::raw_host::RawHost::bring_up(sim2.backing()).unwrap();
    assert_eq!(h.read(Reg::STATUS), status::READY | status::ENABLED);
}

#[test]
fn wrong_commands_say_what_is_wrong_and_change_nothing() {
    let (sim, mut h) = device(Config::default());
    let status = |h: &mut crate::raw_host::RawHost, d: CmdDesc| h.command(d).unwrap().status;
    let mut d = CmdDesc::new(Opcode::Nop, 0);
    d.opcode = 200;
    assert_eq!(status(&mut h, d), CmdStatus::BadOpcode as u8);
    let mut d = CmdDesc::new(Opcode::PortSet, 0);
    d.port = 4;
    assert_eq!(status(&mut h, d), CmdStatus::BadPort as u8);
    assert_eq!(status(&mut h, CmdDesc::new(Opcode::Install, 0)), CmdStatus::BadLength as u8);
    assert_eq!(status(&mut h, CmdDesc::new(Opcode::ReadStats, 0)), CmdStatus::BadLength as u8);
    let mut d = CmdDesc::new(Opcode::Install, 0);
    (d.addr, d.len) = (0x123.into(), 752.into());
    assert_eq!(status(&mut h, d), CmdStatus::DmaFault as u8);
    let mut d = CmdDesc::new(Opcode::Remove, 0);
    d.table = 9;
    assert_eq!(status(&mut h, d), CmdStatus::BadTable as u8);
    let out = |port| HwAction::Output { port };
    let c = h.install_exact(0, &to_dst([1, 1, 1, 1], &[HwAction::PopVlan, out(7)])).unwrap();
    assert_eq!((c.status, c.detail.get()), (CmdStatus::BadPort as u8, 1));
    let c = h.install_exact(5, &to_dst([1, 1, 1, 1], &[out(1)])).unwrap();
    assert_eq!(c.status, CmdStatus::BadProfile as u8);
    let mut e = to_dst([1, 1, 1, 1], &[out(1)]);
    e.key[0] = 1;
    let c = h.install_exact(0, &e).unwrap();
    assert_eq!((c.status, c.detail.get()), (CmdStatus::BadKey as u8, 0));
    let c = h.install_exact(0, &to_dst([1, 1, 1, 1], &[out(1)])).unwrap();
    assert_eq!(c.status, CmdStatus::Ok as u8);
    let again = h.install_exact(0, &to_dst([1, 1, 1, 1], &[out(1)])).unwrap();
    assert_eq!((again.status, again.entry), (CmdStatus::Exists as u8, c.entry));
    assert_eq!(sim.stats().tables[0].entries, 1);
    assert!(sim.faults().iter().any(|f| f.what == FaultKind::BadCommand));
    // The profile has an entry now.
    assert_eq!(h.profile(0, &[0xff; 176]).unwrap().status, CmdStatus::ProfileBusy as u8);
}
