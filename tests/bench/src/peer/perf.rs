//! What Open vSwitch says of its forwarding threads (`ovs-appctl dpif-netdev/pmd-perf-show`).

/// Counters of the forwarding threads since they were cleared.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Perf {
    /// Cycles of the time-stamp counter in iterations that had packets, per packet received; its own figure.
    pub cycles: f64,
    /// Packets received.
    pub rx: u64,
    /// Passes through the flow tables.
    pub passes: u64,
    /// Lookups that the exact-match cache answered.
    pub exact: u64,
    /// Lookups that megaflows answered.
    pub megaflow: u64,
    /// Lookups that nothing answered.
    pub upcalls: u64,
    /// Packets sent.
    pub tx: u64,
}

/// The number in front of `unit` within the parentheses of a line.
fn figure(line: &str, unit: &str) -> Option<f64> {
    let inner = line.split_once('(')?.1.trim_end_matches(')');
    inner.split(',').find_map(|part| part.trim().strip_suffix(unit)?.trim().parse().ok())
}

impl Perf {
    /// Reads the text. `None` when it does not tell of packets.
    pub fn parse(text: &str) -> Option<Perf> {
        let mut p = Perf::default();
        let mut told = false;
        for line in text.lines() {
            let Some((name, rest)) = line.trim().split_once(':') else { continue };
            let Some(n) = rest.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()) else {
                continue;
            };
            match name.trim_start_matches("- ") {
                "Rx packets" => {
                    p.rx += n;
                    p.cycles = figure(line, "cycles/pkt").unwrap_or(p.cycles);
                    told = true;
                }
                "Datapath passes" => p.passes += n,
                // A rule on the port alone: neither cache nor classifier is asked.
                "EMC hits" | "Simple Match hits" | "SMC hits" => p.exact += n,
                "Megaflow hits" => p.megaflow += n,
                "Upcalls" | "Lost upcalls" => p.upcalls += n,
                "Tx packets" => p.tx += n,
                _ => {}
            }
        }
        told.then_some(p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ovs-appctl dpif-netdev/pmd-perf-show` of Open vSwitch 3.1.0 (Debian 12): one forwarding thread, 100,000 flows, 1,000 rules.
    const TEXT: &str = include_str!("pmd-perf-show.txt");

    #[test]
    fn what_a_stock_switch_prints_is_understood() {
        let p = Perf::parse(TEXT).unwrap();
        assert!(p.rx > 0 && p.tx > 0 && p.tx < p.rx, "{p:?}");
        assert_eq!((p.cycles, p.rx, p.megaflow), (12091.0, 932_896, 871_152));
        // Its counters are read while it counts.
        assert!(p.passes - (p.exact + p.megaflow + p.upcalls) < 32, "{p:?}");
    }

    #[test]
    fn other_texts_tell_nothing() {
        assert_eq!(Perf::parse(""), None);
        assert_eq!(Perf::parse("pmd thread numa_id 0 core_id 1:\n  Rx packets: many\n"), None);
    }
}
