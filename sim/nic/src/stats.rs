//! A snapshot of everything that can be counted, for people and programs.
//!
//! Neither cycle-level nor behavioural: what the stages have counted.

use kernel::{Cycles, Pipe, PipeStats, Usage};
use serde::Serialize;

use crate::chip::Chip;
use crate::drops::{DropReason, FrameAccount};

/// The whole device.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SimStats {
    /// Cycles since power-on.
    pub cycles: u64,
    /// Clock in hertz.
    pub clock_hz: u64,
    /// Simulated time since power-on in nanoseconds.
    pub simulated_ns: u64,
    /// What each stage did with its cycles.
    pub stages: Vec<StageStats>,
    /// How full the queues are and were.
    pub queues: Vec<QueueStats>,
    /// Ports, in order.
    pub ports: Vec<PortStats>,
    /// Tables, meters, headers, connections and groups.
    pub tables: Vec<TableStats>,
    /// Buckets of the exact tables looked up that the device held, and that it fetched from host memory; without a cache none.
    pub bucket_cache: Option<(u64, u64)>,
    /// The PCIe link.
    pub pcie: PcieStats,
    /// Commands that ended well, and that did not.
    pub commands_ok: u64,
    /// Commands that failed.
    pub commands_failed: u64,
    /// Things the driver did wrong.
    pub driver_faults: u64,
    /// Accesses the IOMMU refused.
    pub iommu_faults: u64,
    /// Interrupts raised.
    pub interrupts: u64,
    /// Every frame and what became of it.
    pub frames: FrameAccount,
}

/// A stage.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct StageStats {
    /// Name.
    pub name: String,
    /// Items taken.
    pub accepted: u64,
    /// Cycles at work.
    pub busy_cycles: u64,
    /// Cycles held up by the next stage.
    pub stalled_output_cycles: u64,
    /// Cycles held up for want of tags, descriptors or slots.
    pub stalled_resource_cycles: u64,
    /// Cycles waiting for host memory.
    pub stalled_memory_cycles: u64,
    /// The other cycles.
    pub idle_cycles: u64,
    /// Busy cycles over all cycles, 0 to 1.
    pub utilisation: f64,
}

/// A queue.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct QueueStats {
    /// Name.
    pub name: String,
    /// Frames in it.
    pub occupancy: u32,
    /// Frames it holds.
    pub capacity: u32,
    /// Most frames it ever held.
    pub max_occupancy: u32,
    /// Mean over all cycles.
    pub mean_occupancy: f64,
    /// Frames that went in.
    pub pushed: u64,
}

/// A port.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[allow(missing_docs)] // the datasheet's counters, 2.3
pub struct PortStats {
    pub up: bool,
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    /// Frames lost, by reason; only reasons that occurred.
    pub drops: Vec<DropCount>,
}

/// Frames lost for one reason.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DropCount {
    /// Why.
    pub reason: DropReason,
    /// How many.
    pub frames: u64,
}

/// A table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableStats {
    /// Name.
    pub name: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries it holds.
    pub capacity: usize,
}

/// The PCIe link and the DMA engine.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct PcieStats {
    pub to_host_tlps: u64,
    pub to_host_payload_bytes: u64,
    pub to_host_busy_cycles: u64,
    pub from_host_tlps: u64,
    pub from_host_payload_bytes: u64,
    pub from_host_busy_cycles: u64,
    pub tag_stall_cycles: u64,
    /// Cycles in which a TLP waited for the host's credits.
    pub credit_stall_cycles: u64,
    pub transfers: u64,
    pub failed_transfers: u64,
}

fn stage(name: String, u: &Usage, now: Cycles) -> StageStats {
    let s = u.stats(now);
    StageStats {
        name,
        accepted: s.accepted,
        busy_cycles: s.busy_cycles,
        stalled_output_cycles: s.stalled_output_cycles,
        stalled_resource_cycles: s.stalled_resource_cycles,
        stalled_memory_cycles: s.stalled_memory_cycles,
        idle_cycles: s.idle_cycles,
        utilisation: ratio(s.busy_cycles, now.0),
    }
}

fn queue<T>(name: String, p: &Pipe<T>, now: Cycles) -> QueueStats {
    let PipeStats { occupancy, capacity, max_occupancy, occupancy_integral, pushed } = p.stats(now);
    let mean_occupancy = ratio(occupancy_integral, now.0);
    QueueStats { name, occupancy, capacity, max_occupancy, mean_occupancy, pushed }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The tables that there are, meters and headers among them.
fn tables(t: &crate::tables::Tables) -> Vec<TableStats> {
    let all = [
        ("exact", t.exact.entries(), t.exact.slots()),
        ("ternary", t.ternary.entries(), t.ternary.slots()),
        ("lpm", t.lpm.entries(), t.lpm.slots()),
        ("range", t.range.entries(), t.range.slots()),
        ("meters", t.objects.meters.used(), t.objects.meters.slots()),
        ("headers", t.objects.headers.used(), t.objects.headers.slots()),
        ("connections", t.objects.connections.used(), t.objects.connections.slots()),
        ("groups", t.objects.groups.used(), t.objects.groups.slots()),
    ];
    let there = all.into_iter().filter(|(.., capacity)| *capacity > 0);
    there.map(|(name, entries, capacity)| TableStats { name, entries, capacity }).collect()
}

impl SimStats {
    /// What each stage has done so far, for [`Self::over`]: accepted, busy, and the three kinds of stalls.
    pub fn accounts(&self) -> Vec<[u64; 5]> {
        let of = |s: &StageStats| {
            [
                s.accepted,
                s.busy_cycles,
                s.stalled_output_cycles,
                s.stalled_resource_cycles,
                s.stalled_memory_cycles,
            ]
        };
        self.stages.iter().map(of).collect()
    }

    /// The same of the cycles from `from` on alone, given the [`Self::accounts`] of then, when no frame was inside: what the stages did with
    /// them, and how full queues were in the mean. Everything else stays as it is.
    pub fn over(mut self, from: u64, then: &[[u64; 5]]) -> SimStats {
        let (all, cycles) = (self.cycles, self.cycles.saturating_sub(from));
        for (s, [accepted, busy, output, resource, memory]) in self.stages.iter_mut().zip(then) {
            s.accepted = s.accepted.saturating_sub(*accepted);
            s.busy_cycles = s.busy_cycles.saturating_sub(*busy).min(cycles);
            s.stalled_output_cycles = s.stalled_output_cycles.saturating_sub(*output);
            s.stalled_resource_cycles = s.stalled_resource_cycles.saturating_sub(*resource);
            s.stalled_memory_cycles = s.stalled_memory_cycles.saturating_sub(*memory);
            let taken =
                [s.busy_cycles, s.stalled_output_cycles, s.stalled_resource_cycles, s.stalled_memory_cycles];
            s.idle_cycles = cycles.saturating_sub(taken.iter().sum());
            s.utilisation = ratio(s.busy_cycles, cycles);
        }
        for q in &mut self.queues {
            q.mean_occupancy *= if cycles == 0 { 0.0 } else { all as f64 / cycles as f64 };
        }
        self.cycles = cycles;
        self.simulated_ns = crate::chip::cycles_to_ns(cycles, self.clock_hz);
        self
    }

    pub(crate) fn of(c: &Chip, now: Cycles) -> SimStats {
        let mut stages = Vec::new();
        let mut queues = Vec::new();
        for p in &c.ports {
            let i = p.index;
            stages.push(stage(format!("port{i} rx mac"), &p.rx_usage, now));
            stages.push(stage(format!("port{i} tx mac"), &p.tx_usage, now));
            queues.push(queue(format!("port{i} ingress"), &p.ingress, now));
            let one = c.config.port.egress_queues == 1;
            for (k, q) in p.egress.pipes().enumerate() {
                let name = if one { format!("port{i} egress") } else { format!("port{i} egress{k}") };
                queues.push(queue(name, q, now));
            }
            queues.push(queue(format!("port{i} egress from host"), &p.egress_host, now));
            queues.push(queue(format!("port{i} to host"), &p.to_host, now));
            queues.push(queue(format!("port{i} departing"), p.departing(), now));
        }
        let pipeline = c.pipeline.stages();
        stages.extend(pipeline.iter().map(|(n, u, _)| stage(n.clone(), u, now)));
        for (name, u) in
            [("command", &c.cmd.usage), ("transmit", &c.tx.host.usage), ("receive", &c.rx.host.usage)]
        {
            stages.push(stage(name.into(), u, now));
        }
        queues.extend(pipeline.iter().filter_map(|(n, _, p)| p.map(|p| queue(n.clone(), p, now))));
        let dma = c.dma.stats(now);
        SimStats {
            cycles: now.0,
            clock_hz: c.config.device.clock_hz,
            simulated_ns: crate::chip::cycles_to_ns(now.0, c.config.device.clock_hz),
            stages,
            queues,
            ports: c.ports.iter().map(port_stats).collect(),
            tables: tables(&c.tables),
            bucket_cache: c.pipeline.cache(),
            pcie: PcieStats {
                to_host_tlps: dma.upstream.tlps,
                to_host_payload_bytes: dma.upstream.payload_bytes,
                to_host_busy_cycles: dma.upstream.busy_cycles,
                from_host_tlps: dma.downstream.tlps,
                from_host_payload_bytes: dma.downstream.payload_bytes,
                from_host_busy_cycles: dma.downstream.busy_cycles,
                tag_stall_cycles: dma.tag_stall_cycles,
                credit_stall_cycles: dma.credit_stall_cycles,
                transfers: dma.completed,
                failed_transfers: dma.failed,
            },
            commands_ok: c.cmd.completed[0],
            commands_failed: c.cmd.completed[1],
            driver_faults: c.faults.count(),
            iommu_faults: c.host.iommu.fault_count(),
            interrupts: c.host.raised(),
            frames: FrameAccount { inside: c.inside() as u64, ..c.account },
        }
    }
}

fn port_stats(p: &crate::port::Port) -> PortStats {
    let c = &p.counts;
    let drops = DropReason::ALL.iter().map(|r| DropCount { reason: *r, frames: c.by_reason[*r as usize] });
    PortStats {
        up: p.up,
        rx_packets: c.rx_packets,
        rx_bytes: c.rx_bytes,
        tx_packets: c.tx_packets,
        tx_bytes: c.tx_bytes,
        drops: drops.filter(|d| d.frames > 0).collect(),
    }
}
