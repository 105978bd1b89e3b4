//! Counters of finite width that go to host memory: no frame is counted twice or not at all, whatever the widths.

use device::{DmaMemory, Iova, RegOffset, Registers};
use kernel::{Reader, State, Writer};
use simnic_defs::regs::{Reg, fault, queue_ctrl, queue_status};
use simnic_defs::{CmdDesc, EvictRecord, HwAction, Opcode, StatsRecord, gen_of, slot_of};

use super::{device, settle, to_dst};
use crate::raw_host::{Mapped, RawHost};
use crate::{Config, frames};

/// The host's side of the ring.
pub(super) struct Ring {
    mapped: Mapped,
    log2: u8,
    pub(super) head: u32,
}

impl Ring {
    pub(super) fn new(h: &mut RawHost, log2: u8) -> Ring {
        let mapped = Mapped::new(&mut h.backing, EvictRecord::BYTES << log2).unwrap();
        mapped.memory.fill(0, EvictRecord::BYTES << log2, 0xff);
        h.regs.write64(RegOffset(Reg::CTR_BASE.0), mapped.iova.0);
        h.write(Reg::CTR_LOG2, log2.into());
        h.write(Reg::CTR_CTRL, queue_ctrl::ENABLE);
        assert_eq!(h.read(Reg::CTR_STATUS), queue_status::ENABLED);
        Ring { mapped, log2, head: 0 }
    }

    /// Appends where the ring is and how far.
    pub(super) fn save(&self, w: &mut Writer) {
        self.mapped.iova.0.save(w);
        (self.log2, self.head).save(w);
    }

    /// The ring in the memory of a device that goes on from a checkpoint.
    pub(super) fn load(r: &mut Reader<'_>, mapped: &[(Iova, DmaMemory)]) -> Ring {
        let at = u64::load(r).unwrap();
        let (log2, head) = State::load(r).unwrap();
        let (iova, memory) = mapped.iter().find(|(a, _)| a.0 == at).unwrap();
        Ring { mapped: Mapped { memory: memory.clone(), iova: *iova }, log2, head }
    }

    pub(super) fn take(&mut self) -> Vec<EvictRecord> {
        let mut out = Vec::new();
        loop {
            let at = slot_of(self.head, self.log2) as usize * EvictRecord::BYTES;
            let mut b = [0; EvictRecord::BYTES];
            self.mapped.memory.read(at, &mut b);
            let r = EvictRecord::decode(&b).unwrap();
            if (r.flags.get() & 1 != 0) != gen_of(self.head, self.log2) {
                return out;
            }
            self.head = self.head.wrapping_add(1);
            out.push(r);
        }
    }
}

fn narrow(packet_bits: u8, byte_bits: u8) -> Config {
    let mut c = Config::default();
    (c.counters.packet_bits, c.counters.byte_bits) = (packet_bits, byte_bits);
    c
}

#[test]
fn what_was_evicted_and_what_is_left_are_all_frames_once() {
    let (sim, mut h) = device(narrow(5, 11));
    let mut ring = Ring::new(&mut h, 4);
    let entries: Vec<u32> = (2..6)
        .map(|d| {
            let e = to_dst([10, 0, 0, d], &[HwAction::Output { port: 1 }]);
            h.install_exact(0, &e).unwrap().entry.get()
        })
        .collect();
    let f = |d: u8| frames::udp4([10, 0, 0, 1], [10, 0, 0, d], 1, 2);
    let len = f(2).len() as u64;
    let mut sums = vec![(0u64, 0u64, 0u16); 4];
    for round in 0..50u64 {
        for i in 0..40 {
            sim.inject(0, &f(2 + ((round + i) % 4) as u8));
        }
        settle(&sim);
        for r in ring.take() {
            let s = &mut sums[entries.iter().position(|e| *e == r.entry.get()).unwrap()];
            assert_eq!(r.evictions.get(), s.2 + 1, "in order");
            *s = (s.0 + r.packets.get(), s.1 + r.bytes.get(), r.evictions.get());
        }
        h.write(Reg::CTR_TAIL, ring.head);
        let mut d = CmdDesc::new(Opcode::ReadStats, 0);
        (d.count, d.len) = (8.into(), (8 * StatsRecord::BYTES as u32).into());
        d.addr = h.cmd.buffers.iova.0.into();
        assert_eq!(h.command(d).unwrap().count.get(), 4);
        for i in 0..4 {
            let mut b = [0; StatsRecord::BYTES];
            h.cmd.buffers.memory.read(i * StatsRecord::BYTES, &mut b);
            let r = StatsRecord::decode(&b).unwrap();
            let s = sums[entries.iter().position(|e| *e == r.entry.get()).unwrap()];
            assert_eq!(r.evictions.get(), s.2);
            let want = (round + 1) * 10;
            assert_eq!((s.0 + r.packets.get(), s.1 + r.bytes.get()), (want, want * len));
        }
    }
    assert!(sums.iter().all(|s| s.2 > 10), "{sums:?}");
    assert_eq!(sim.fault_count(), 0, "{:?}", sim.faults());
}

#[test]
fn a_ring_that_nobody_empties_holds_the_counters_back_until_they_wrap_and_that_is_said() {
    let (sim, mut h) = device(narrow(6, 48));
    let mut ring = Ring::new(&mut h, 3);
    let e = to_dst([10, 0, 0, 2], &[HwAction::Output { port: 1 }]);
    let entry = h.install_exact(0, &e).unwrap().entry;
    let f = frames::udp4([10, 0, 0, 1], [10, 0, 0, 2], 1, 2);
    // Eight records of 32 frames and a few, and then the counter alone.
    for _ in 0..4 {
        (0..75).for_each(|_| assert!(sim.inject(0, &f)));
        settle(&sim);
    }
    assert_eq!(h.read(Reg::FAULT), 0);
    let records = ring.take();
    assert_eq!(records.len(), 8);
    let mut all: u64 = records.iter().map(|r| r.packets.get()).sum();
    assert!((256..300).contains(&all), "{all}");
    (0..75).for_each(|_| assert!(sim.inject(0, &f)));
    settle(&sim);
    assert_eq!(h.read(Reg::FAULT), fault::COUNTER);
    assert_eq!((h.read(Reg::FAULT_INFO), h.read(Reg::FAULT_ADDR)), (0, entry.get()));
    let said = sim.faults()[0].to_string();
    assert!(said.contains("table 0: counter wrapped before it was evicted"), "{said}");
    // Emptied, it goes on.
    h.write(Reg::CTR_TAIL, ring.head);
    settle(&sim);
    all += ring.take().iter().map(|r| r.packets.get()).sum::<u64>();
    let mut d = CmdDesc::new(Opcode::Remove, 0);
    d.entry = entry;
    all += h.command(d).unwrap().packets.get();
    assert_eq!(all + 64, 375, "one turn of the counter is lost, and no more");
}

#[test]
fn geometry_and_doorbells_that_cannot_be_are_faults() {
    let (sim, mut h) = device(Config::default());
    h.write(Reg::CTR_LOG2, 1);
    h.write(Reg::CTR_CTRL, 1);
    assert_eq!((h.read(Reg::CTR_STATUS), h.read(Reg::FAULT)), (queue_status::ERROR, fault::BAD_RING));
    let ring = Ring::new(&mut h, 3);
    h.write(Reg::CTR_LOG2, 4);
    assert_eq!(h.read(Reg::CTR_LOG2), 3, "locked while it is enabled");
    h.write(Reg::CTR_TAIL, 1);
    assert_eq!(h.read(Reg::CTR_STATUS), queue_status::ERROR);
    assert_ne!(h.read(Reg::FAULT) & fault::BAD_DOORBELL, 0);
    let said: Vec<String> = sim.faults().iter().map(|f| f.to_string()).collect();
    assert!(said.iter().any(|s| s.contains("counter ring, CTR_CTRL (0x014c): doorbell")), "{said:?}");
    drop(ring);
    let mut c = Config::default();
    c.counters.ring_log2_max = 0;
    let (sim, h) = device(c);
    h.write(Reg::CTR_CTRL, 1);
    assert_eq!((h.read(Reg::CTR_STATUS), sim.fault_count()), (0, 1));
}
