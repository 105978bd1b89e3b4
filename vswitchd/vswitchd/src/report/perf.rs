//! `hoist/perf`.

use daemon::report::{CorePerf, Perf, QueuePerf};
use datapath::Stage;
use datapath_api::DatapathStats;

use super::Parts;

impl Parts {
    /// The document of `hoist/perf`: totals since the switch was started.
    pub fn perf(&self) -> Perf {
        let core = |s: datapath::CoreStats| {
            let p: &DatapathStats = &s.packets;
            CorePerf {
                core: s.core,
                processor: self.cores.pinned(s.core),
                rx_packets: p.rx_packets,
                passes: s.passes,
                exact_hits: p.exact_hits,
                megaflow_hits: p.megaflow_hits,
                shortcuts: p.shortcuts,
                misses: p.misses,
                masks_probed: s.probes,
                tx_packets: p.tx_packets,
                tx_bursts: s.tx_bursts,
                drops: p.drops.iter().sum(),
                evicted: s.evicted,
                refused: s.refused,
                busy_cycles: s.busy_cycles,
                idle_cycles: s.idle_cycles,
                busy_polls: s.busy_polls,
                idle_polls: s.idle_polls,
                sleeps: s.sleeps,
                sampled_packets: s.sampled_packets,
                stage_cycles: Stage::ALL
                    .iter()
                    .map(|stage| (stage.name().to_owned(), s.stage_cycles[*stage as usize]))
                    .collect(),
                queues: s
                    .queues
                    .into_iter()
                    .map(|q| QueuePerf { port: q.name, queue: q.queue, packets: q.packets, cycles: q.cycles })
                    .collect(),
                ..CorePerf::default()
            }
            .with_rates()
        };
        Perf {
            cycles_per_second: datapath::cycles_per_second() as u64,
            uptime_ms: u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX),
            cores: self.soft.core_stats().into_iter().map(core).collect(),
        }
    }
}
