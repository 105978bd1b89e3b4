//! What the database says of a dummy port.

use std::path::PathBuf;

/// Most receive queues of a dummy.
const MOST_QUEUES: u16 = 64;

/// Types of dummy interfaces. They differ in name alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DummyClass {
    /// `dummy`.
    Plain,
    /// `dummy-pmd`.
    Pmd,
    /// `dummy-internal`, and `internal` on a bridge whose datapath is a dummy.
    Internal,
    /// A type of the host's that `--enable-dummy` has put in a dummy's place.
    Instead(&'static str),
}

impl DummyClass {
    /// Receive queues with these options: those that poll have as many as they are told.
    pub fn queues(self, options: &DummyOptions) -> u16 {
        if self == DummyClass::Pmd { options.n_rxq.clamp(1, MOST_QUEUES) } else { 1 }
    }

    /// The type's name.
    pub fn name(self) -> &'static str {
        match self {
            DummyClass::Plain => "dummy",
            DummyClass::Pmd => "dummy-pmd",
            DummyClass::Internal => "dummy-internal",
            DummyClass::Instead(name) => name,
        }
    }
}

/// Options, and column `mac`, of a dummy interface. They change while the port stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DummyOptions {
    /// Its address, instead of one that is handed out.
    pub mac: Option<[u8; 6]>,
    /// Packets received and sent are written there.
    pub pcap: Option<PathBuf>,
    /// Packets received are written there.
    pub rxq_pcap: Option<PathBuf>,
    /// Packets sent are written there.
    pub tx_pcap: Option<PathBuf>,
    /// Listens there for peers of its cable.
    pub pstream: Option<String>,
    /// Connects there.
    pub stream: Option<String>,
    /// The index that it says it has.
    pub ifindex: Option<u32>,
    /// Receive queues that it says it has.
    pub n_rxq: u16,
    /// The memory node that it says it is on.
    pub numa_node: usize,
}

impl DummyOptions {
    /// Those that `option` says, with the address `mac`.
    pub fn of<'a>(mac: Option<[u8; 6]>, option: impl Fn(&str) -> Option<&'a str>) -> DummyOptions {
        let file = |k| option(k).map(PathBuf::from);
        DummyOptions {
            mac,
            pcap: file("pcap"),
            rxq_pcap: file("rxq_pcap"),
            tx_pcap: file("tx_pcap"),
            pstream: option("pstream").map(str::to_owned),
            stream: option("stream").map(str::to_owned),
            ifindex: option("ifindex").and_then(|n| n.parse().ok()),
            n_rxq: option("n_rxq").and_then(|n| n.parse().ok()).unwrap_or(1),
            numa_node: option("numa_id").and_then(|n| n.parse().ok()).unwrap_or(0),
        }
    }
}
