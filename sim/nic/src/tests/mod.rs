//! Tests of the whole device, through its registers and rings.

mod checkpoint_files;
mod connections;
mod counters;
mod device_life;
mod driver_faults;
mod egress;
mod forwarding;
mod groups;
mod mishaps;
mod model;
mod nonsense;
mod packet_rings;
mod properties;
mod tunnels;

use device::{DeviceBacking as _, Interrupt};
use simnic_defs::entry::key;
use simnic_defs::regs::QueueReg;
use simnic_defs::{FlowEntry, HwAction, KEY_BYTES};

use crate::raw_host::{HostRing, RawHost, key_of};
use crate::{Config, SimHandle, SimNic};

/// A device with all ports up and profile 0 over Ethernet type and IPv4 destination.
pub(crate) fn device(config: Config) -> (SimHandle, RawHost) {
    let ports = config.device.ports;
    let sim = SimNic::new(config, 42).unwrap();
    let mut h = RawHost::bring_up(sim.backing()).unwrap();
    for p in 0..ports {
        assert_eq!(h.port_set(p, true).unwrap().status, 0);
    }
    let (_, mask) = key_of(&[(key::ETH_TYPE, &[0; 2]), (key::IP4_DST, &[0; 4])]);
    assert_eq!(h.profile(0, &mask).unwrap().status, 0);
    (sim, h)
}

/// An entry of profile 0 for IPv4 destination `dst`.
pub(crate) fn to_dst(dst: [u8; 4], actions: &[HwAction]) -> FlowEntry {
    let (k, _) = key_of(&[(key::ETH_TYPE, &[8, 0]), (key::IP4_DST, &dst)]);
    FlowEntry::new(k, [0; KEY_BYTES], 7, actions).unwrap()
}

/// The first receive ring with three buffers, whose interrupts are vector 2 of those that come with it.
pub(crate) fn interrupting_ring(h: &mut RawHost) -> (Vec<Interrupt>, HostRing) {
    let irq = h.backing.enable_interrupts(4).unwrap();
    let mut rx = h.receive_ring(0, 0).unwrap();
    h.write(QueueReg::RX_CTRL.of(0, 0), 0);
    h.write(QueueReg::RX_VECTOR.of(0, 0), 2);
    h.write(QueueReg::RX_CTRL.of(0, 0), 1);
    (0..3).for_each(|_| rx.post_receive());
    h.write(QueueReg::RX_TAIL.of(0, 0), rx.tail);
    (irq, rx)
}

/// Runs until nothing is left to do.
pub(crate) fn settle(sim: &SimHandle) {
    assert!(sim.run_until_idle(10_000_000), "never idle: {:#?}", sim.stats());
    assert!(sim.account().balances(), "{:?}", sim.account());
}
