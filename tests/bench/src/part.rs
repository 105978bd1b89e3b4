//! What can be measured, by name.

use crate::figure::Figure;
use crate::{
    actions, checksums, classify, connections, drivers, flowmods, insert, memory, openflow, ovsdb, parse,
    revalidate, sim, sim_load, softpath, tc,
};

/// What keeps a benchmark from being set up or from running.
#[derive(thiserror::Error, Debug)]
#[allow(missing_docs)]
pub enum BenchError {
    #[error(transparent)]
    Datapath(#[from] datapath_api::DatapathError),
    #[error(transparent)]
    Memory(#[from] device::DmaError),
    #[error(transparent)]
    Io(#[from] device::IoError),
    #[error("a queue or pool is too small for the benchmark")]
    TooSmall,
    #[error(transparent)]
    Simulator(#[from] nic::bench::BenchError),
    #[error(transparent)]
    SimulatorConfig(#[from] nic::ConfigError),
    #[error(transparent)]
    Driver(#[from] simnic::BringUpError),
    #[error("the device did not take a rule: {0}")]
    Rule(String),
    #[error("flows: {0}")]
    Flows(#[from] ::openflow::text::FileError),
    #[error("flow-mod {at}: {why}")]
    FlowMod { at: usize, why: String },
    #[error("a revalidation did {did:?}, not {expected:?}")]
    Revalidated { did: ofproto::Revalidated, expected: ofproto::Revalidated },
    #[error("packets of datapath flows were not counted by the rules they went through")]
    Uncounted,
    #[error("a packet that was to hit a flow did not")]
    NoHit,
    #[error(transparent)]
    Tool(#[from] anyhow::Error),
    #[error(transparent)]
    System(#[from] std::io::Error),
    #[error("database: {0}")]
    Ovsdb(String),
}

/// Something that can be measured.
pub struct Part {
    /// Its name on the command line.
    pub name: &'static str,
    /// What is measured, and under which conditions.
    pub about: &'static str,
    /// Measures.
    pub run: fn() -> Result<Vec<Figure>, BenchError>,
}

/// Every part, in the order in which they run.
pub static PARTS: [Part; 16] = [
    Part { name: "parse", about: "the parser; frame and key in cache", run: || Ok(parse::run()) },
    Part {
        name: "checksums",
        about: "sums over what a packet carries, in cache, with the processor's vectors and without",
        run: || Ok(checksums::run()),
    },
    Part {
        name: "caches",
        about: "the datapath's caches by themselves, one record per flow, keys in cache",
        run: || Ok(softpath::caches()),
    },
    Part {
        name: "path",
        about: "receive, parse, look up, execute, send between queues in memory; 60-byte frames (64 with FCS) in batches \
                of 32, one record per flow; median batch; filling the queue is not in the figure",
        run: softpath::whole_path,
    },
    Part {
        name: "actions",
        about: "what actions cost beyond output alone, on the whole path; 60-byte frames (64 with the tag where there is \
                one; 4 more with FCS) of 1,000 flows in batches of 32, exact-match hits; batches interleaved, differences paired",
        run: || actions::run(2_000),
    },
    Part {
        name: "conntrack",
        about: "connection tracking alone, 60-byte frames (64 with FCS) with their checksums verified, half TCP and half UDP; \
                packets of established connections in an order that is not that of memory; on two cores each has connections \
                of its own, and what counts is processor time",
        run: || {
            let alone = [1_000, 10_000, 1_000_000].into_iter().flat_map(connections::run);
            Ok(alone.chain([10_000, 1_000_000].into_iter().flat_map(connections::scaling)).collect())
        },
    },
    Part {
        name: "classify",
        about: "OpenFlow tables on a miss: the classifier's lookup, and the whole translation of batches of 32 misses into \
                flow records; random order",
        run: || classify::run(&[1_000, 100_000]),
    },
    Part {
        name: "sim",
        about: "the simulated SmartNIC in its default profile but for a larger exact table (2^18 entries, 16 ways); 60-byte \
                frames (64 with FCS) at line rate from wire to wire over 4 ports, one rule per flow, TTL decremented; and the default \
                profile unchanged at half load, per second of processor time. `bench sim --peer CMD` compares with another simulator",
        run: || {
            let mut all = sim::run(200_000)?;
            all.extend(sim_load::run(50_000)?);
            Ok(all)
        },
    },
    Part {
        name: "drivers",
        about: "each driver alone, host time, on a device that is nothing but memory: 60-byte frames (64 with FCS) received and sent \
                in batches of 32, median batch; rules installed, the device's time left out",
        run: drivers::run,
    },
    Part {
        name: "insert",
        about: "rules installed through the command ring: by the driver into memory, by the driver into the simulated \
                device, and one at a time without a driver",
        run: || insert::run(8192),
    },
    Part {
        name: "memory",
        about: "heap of a megaflow (flow record, and what the datapath keeps beside it), as asked for from the allocator",
        run: || memory::run(100_000),
    },
    Part {
        name: "openflow",
        about: "heap of an OpenFlow flow, as asked for from the allocator, and flow-mods per second of host time: \
                udp,nw_src=/32,nw_dst=/24,tp_dst in seven priorities, one output action; what a trace through a long pipeline takes",
        run: || openflow::run(100_000),
    },
    Part {
        name: "revalidate",
        about: "revalidation of datapath flows that go through three tables each and have had packets since the round before, per \
                second of the thread's processor time; a table changed on which a tenth of them depend, or all, or their actions; the \
                same of daemons, ours and Debian's in turn: processor time of all threads",
        run: || revalidate::run(100_000, 10_000),
    },
    Part {
        name: "flowmods",
        about: "flow-mods through ovs-ofctl, our daemon and Debian's in turn: processor time, wall time, memory of a flow, a \
                dump of a million flows",
        run: || flowmods::run(&flowmods::Sizes::FULL),
    },
    Part {
        name: "ovsdb",
        about: "the database server, ours and Debian's in turn: unix socket, switch schema, transactions without durability",
        run: || ovsdb::run(&ovsdb::Sizes::FULL),
    },
    Part {
        name: "tc",
        about: "TC flower: what a rule costs to encode and a counter to poll (host time); in a guest kernel (User Mode Linux) the \
                same filters installed, deleted and counted by the provider and by tc (-batch, -j show) in turn, without reading back",
        run: || tc::run(&[10_000, 100_000]),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn parts_have_names_of_their_own() {
        let names: BTreeSet<_> = PARTS.iter().map(|p| p.name).collect();
        assert_eq!(names.len(), PARTS.len());
    }
}
