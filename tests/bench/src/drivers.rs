//! Host time of each driver alone, on a device that is nothing but memory: receiving and sending in full batches, and rules
//! installed through the command queue.
//!
//! ```text
//!   device puts a batch into its ring      not measured
//!   rx_burst, tx_burst of the same batch   measured, cycles of the time-stamp counter
//!   device sends it and says so            not measured
//! ```
//!
//! The rows of [`DRIVERS`] are independent of each other: a driver that comes along is a row more. Devices of `models` take a lock for
//! each register access, which counts as the driver's time, once or twice in a batch.

use std::sync::Arc;

use clock::HostClock;
use device::{BATCH, BufferPool, PacketBatch, PacketIo, QueueId, QueuePair};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use models::Model;
use models::rocker::{Outside as _, Rocker};
use models::virtio::{ALL_FEATURES, Outside as _, Virtio};
use offload::{FlowOp, FlowRule, OffloadProvider, OpId, OpResult};
use rocker::{RockerConfig, RockerDriver};
use simnic::{Simnic, SimnicConfig, SimnicDriver};
use virtio_net::{VirtioConfig, VirtioDriver};
use virtio_net_defs::feature;

use crate::cycles::{REPEATS, counter_hz, now};
use crate::figure::{Figure, Unit};
use crate::insert;
use crate::ixgbe;
use crate::memory_nic::{MemoryBacking, MemoryNic};
use crate::part::BenchError;
use crate::target::Target;

/// Bursts in a repeat.
const BURSTS: usize = 2_000;
/// Rules that rocker's row installs in a repeat.
const ROCKER_RULES: u64 = 500;
/// Bytes of a frame, without FCS.
const FRAME_BYTES: usize = 60;

type Row = fn() -> Result<Vec<Figure>, BenchError>;

/// What each driver is measured by.
pub static DRIVERS: [(&str, Row); 4] =
    [("simnic", simnic_row), ("virtio-net", virtio_row), ("rocker", rocker_row), ("ixgbe", ixgbe::run)];

/// Every row.
///
/// # Errors
/// [`BenchError::TooSmall`] when a burst is not received or sent whole, others as devices are brought up.
pub fn run() -> Result<Vec<Figure>, BenchError> {
    let mut all = Vec::new();
    for (_, row) in &DRIVERS {
        all.extend(row()?);
    }
    Ok(all)
}

/// The SmartNIC's driver, up, on a device of memory; its one port is datapath port 1.
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

/// Cycles per packet received and sent: of the median burst, [`REPEATS`] times over. `target` is what receiving and sending together
/// are held against.
pub(crate) fn echo(
    name: &str,
    (mut rx, mut tx): QueuePair,
    mut receive: impl FnMut(),
    mut send: impl FnMut(),
    target: Option<Target>,
) -> Result<Vec<Figure>, BenchError> {
    let mut batch = PacketBatch::new();
    let mut medians: [Vec<f64>; 3] = Default::default();
    for repeat in 0..=REPEATS {
        let mut cycles: [Vec<u64>; 3] = Default::default();
        for _ in 0..BURSTS {
            receive();
            let t0 = now();
            let got = rx.rx_burst(&mut batch)?;
            let t1 = now();
            let sent = tx.tx_burst(&mut batch)?;
            let t2 = now();
            send();
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
    let [received, sent, both] = medians;
    let figure = |what: &str, m| {
        Figure::of(format!("{name} {what}"), Unit::CyclesPerPacket, m).frame_bytes(FRAME_BYTES as u32)
    };
    let mut out = vec![figure("receives", received), figure("sends", sent)];
    let both = figure("receives and sends", both);
    match target {
        None => out.push(both),
        Some(t) => {
            let bound = t.bound().0;
            let ratio = [both.value, both.low, both.high].map(|v| v / bound);
            out.push(both.target(t));
            out.push(Figure::of(format!("{name}, of {bound:.0} cycles"), Unit::Ratio, ratio.to_vec()));
        }
    }
    Ok(out)
}

fn queues(port: Option<&mut dyn PacketIo>) -> Result<QueuePair, BenchError> {
    Ok(port.ok_or(BenchError::TooSmall)?.take_queues(QueueId(0))?)
}

fn simnic_row() -> Result<Vec<Figure>, BenchError> {
    let dev = MemoryNic::new();
    let mut nic = on_memory(&dev)?;
    let port = nic.ports.first_mut().map(|p| p as &mut dyn PacketIo);
    let receive = || dev.receive(BATCH as u32);
    let target = Some(Target::DriverPackets);
    let mut out = echo("simnic", queues(port)?, receive, || dev.send(), target)?;
    let rules = insert::driver_alone(100)?;
    let us = [rules.value, rules.low, rules.high].map(|c| c / counter_hz() * 1e6);
    out.push(
        Figure::of("simnic installs a rule, 64 to a doorbell", Unit::Microseconds, us.into())
            .target(Target::DriverRules),
    );
    out.push(Figure { name: "simnic installs a rule".into(), ..rules });
    Ok(out)
}

fn frame() -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x08, 0x00];
    f.resize(FRAME_BYTES, 0);
    f
}

fn virtio_row() -> Result<Vec<Figure>, BenchError> {
    let mut out = Vec::new();
    for (name, offers) in
        [("virtio-net packed", ALL_FEATURES), ("virtio-net split", ALL_FEATURES & !feature::RING_PACKED)]
    {
        let dev = Model::of(Virtio::new(offers));
        let config = VirtioConfig { port: Some(PortId(1)), ring_log2: 8, ..VirtioConfig::new() };
        let mut nic = VirtioDriver::bring_up(dev.backing(), BufferPool::new(4096)?, config)
            .map_err(|e| BenchError::Tool(e.into()))?;
        let pair = queues(Some(&mut nic.port))?;
        // What is sent is looked at when it is asked to, between the measurements.
        dev.lock().0.holds = true;
        let frame = frame();
        let receive = || (0..BATCH).for_each(|_| dev.inject(0, &frame));
        let send = || {
            dev.run();
            dev.collect();
        };
        out.extend(echo(name, pair, receive, send, Some(Target::DriverPackets))?);
    }
    Ok(out)
}

fn rocker_row() -> Result<Vec<Figure>, BenchError> {
    let dev = Model::of(Rocker::as_qemu(2));
    let config = RockerConfig { ring_log2: 8, ..RockerConfig::new(vec![(PortId(1), 0), (PortId(2), 1)]) };
    let mut nic = RockerDriver::bring_up(dev.backing(), BufferPool::new(4096)?, config)
        .map_err(|e| BenchError::Tool(e.into()))?;
    let port = nic.ports.first_mut().map(|p| p as &mut dyn PacketIo);
    let pair = queues(port)?;
    dev.lock().0.holds = true;
    let frame = frame();
    let receive = || (0..BATCH).for_each(|_| dev.inject(0, &frame));
    let send = || {
        dev.run();
        dev.collect();
    };
    let mut out = echo("rocker", pair, receive, send, None)?;
    out.push(rocker_rules(&dev, &mut nic.provider)?);
    Ok(out)
}

/// What the driver takes for a rule with a group that is there: lowering, one command, its completion. The device carries a command
/// out between two looks at it.
fn rocker_rules(dev: &Model<Rocker>, p: &mut impl OffloadProvider) -> Result<Figure, BenchError> {
    let rule = |n: u64| {
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, 1);
        m.set(FieldId::EthType, 0x0800);
        m.set_masked(FieldId::VlanTci, 0, 0x1fff);
        m.set(FieldId::EthSrc, n.into());
        let actions = [Action::Output(PortId(2))];
        FlowRule { id: FlowId(n), matches: m, actions: actions.into(), provenance: Arc::from([]) }
    };
    dev.lock().0.holds_commands = true;
    let mut medians = Vec::new();
    for repeat in 0..=REPEATS as u64 {
        let (mut cycles, mut out, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        let mut one = |op: FlowOp| -> Result<(u64, OpResult), BenchError> {
            let t0 = now();
            if p.submit(std::slice::from_ref(&op)) != 1 {
                return Err(BenchError::TooSmall);
            }
            let mut spent = now() - t0;
            for _ in 0..16 {
                let t0 = now();
                p.poll(&mut out, 1);
                spent += now() - t0;
                if let Some(c) = out.pop() {
                    return Ok((spent, c.result));
                }
                dev.run();
            }
            Err(BenchError::TooSmall)
        };
        for n in 0..ROCKER_RULES {
            match one(FlowOp::Install(OpId(n), rule(repeat * ROCKER_RULES + n + 1)))? {
                (spent, OpResult::Installed(h, _)) => {
                    cycles.push(spent);
                    handles.push(h);
                }
                (_, other) => return Err(BenchError::Rule(format!("{other:?}"))),
            }
        }
        for h in handles {
            one(FlowOp::Remove(OpId(0), h))?;
        }
        if repeat > 0 {
            medians.push(median(&mut cycles));
        }
    }
    Ok(Figure::of("rocker installs a rule, one command at a time", Unit::CyclesPerRule, medians))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_driver_receives_sends_and_installs_on_a_device_of_memory() {
        let all = run().unwrap();
        for (name, _) in &DRIVERS {
            assert!(all.iter().filter(|f| f.name.starts_with(name)).count() >= 4, "{name}: {all:?}");
        }
        assert!(all.iter().all(|f| f.value > 0.0), "{all:?}");
        assert_eq!(all.iter().filter(|f| f.target == Some(Target::DriverPackets)).count(), 4);
    }
}
