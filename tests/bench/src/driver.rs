//! Host time of the SmartNIC's driver alone, on a device that is nothing but memory: receiving and sending.

use std::sync::Arc;

use clock::HostClock;
use device::{BATCH, BufferPool, PacketBatch, PacketIo, QueueId};
use flow::PortId;
use simnic::{Simnic, SimnicConfig, SimnicDriver};

use crate::cycles::{REPEATS, now};
use crate::figure::{Figure, Unit};
use crate::memory_nic::{MemoryBacking, MemoryNic};
use crate::part::BenchError;

/// Bursts in a repeat.
const BURSTS: usize = 2_000;

/// The driver, up, on a device of memory; its one port is datapath port 1.
///
/// # Errors
/// When there is no memory for it.
pub fn on_memory(dev: &MemoryNic) -> Result<Simnic<MemoryBacking>, BenchError> {
    let config = SimnicConfig { ring_log2: 9, cmd_log2: 9, ..SimnicConfig::new(vec![(PortId(1), 0)]) };
    let pool = BufferPool::new(4096)?;
    Ok(SimnicDriver::bring_up(dev.backing(), pool, config, Arc::new(HostClock::new()))?)
}

/// The median of one repeat; sorts it.
pub(crate) fn median(cycles: &mut [u64]) -> f64 {
    cycles.sort_unstable();
    cycles.get(cycles.len() / 2).map_or(0.0, |c| *c as f64)
}

/// Cycles per packet received and sent: of the median burst, [`REPEATS`] times over.
///
/// # Errors
/// [`BenchError::TooSmall`] when a burst is not received or sent whole.
pub fn run() -> Result<Vec<Figure>, BenchError> {
    let dev = MemoryNic::new();
    let mut nic = on_memory(&dev)?;
    let taken = nic.ports.first_mut().map(|p| p.take_queues(QueueId(0)));
    let (mut rx, mut tx) = taken.ok_or(BenchError::TooSmall)??;
    let mut batch = PacketBatch::new();
    let mut medians: [Vec<f64>; 3] = Default::default();
    for repeat in 0..=REPEATS {
        let mut cycles: [Vec<u64>; 3] = Default::default();
        for _ in 0..BURSTS {
            dev.receive(BATCH as u32);
            let t0 = now();
            let got = rx.rx_burst(&mut batch)?;
            let t1 = now();
            let sent = tx.tx_burst(&mut batch)?;
            let t2 = now();
            dev.send();
            if (got, sent) != (BATCH, BATCH) {
                return Err(BenchError::TooSmall);
            }
            for (c, spent) in cycles.iter_mut().zip([t1 - t0, t2 - t1, t2 - t0]) {
                c.push(spent);
            }
        }
        // The first repeat warms up.
        if repeat > 0 {
            for (m, c) in medians.iter_mut().zip(&mut cycles) {
                m.push(median(c) / BATCH as f64);
            }
        }
    }
    let names = ["driver receives", "driver sends", "both"];
    let figures = names.into_iter().zip(medians);
    Ok(figures.map(|(n, m)| Figure::of(n, Unit::CyclesPerPacket, m).frame_bytes(64)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_receives_and_sends_on_a_device_of_memory() {
        let all = run().unwrap();
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|f| f.value > 0.0), "{all:?}");
    }
}
