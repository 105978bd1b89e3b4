//! Which OpenFlow and datapath number each configured port gets.

use std::collections::BTreeSet;

use flow::PortId;
use openflow::PortNo;

use crate::config::{Config, PortConfig, PortKind};

/// A configured port with its numbers.
#[derive(Clone, PartialEq, Debug)]
pub struct NumberedPort {
    /// Index of its bridge in the configuration.
    pub bridge: usize,
    /// As configured.
    pub config: PortConfig,
    /// OpenFlow number: the configured one, else the lowest free one of the bridge.
    pub no: PortNo,
    /// Datapath number: that of OpenFlow when it is free and fits, else the lowest free one.
    pub dp: PortId,
}

/// Datapath port numbers lie below this.
const DATAPATH_PORTS: u32 = 65_536;

/// The lowest number from 1 on that is not in `taken`.
fn lowest_free(taken: &BTreeSet<u32>) -> u32 {
    (1..).find(|n| !taken.contains(n)).unwrap_or(u32::MAX)
}

/// Numbers the ports of all bridges.
pub fn number_ports(config: &Config) -> Vec<NumberedPort> {
    let mut out = Vec::new();
    let mut datapath = BTreeSet::new();
    for (bridge, b) in config.bridges.iter().enumerate() {
        let mut taken: BTreeSet<u32> = b.ports.iter().filter_map(|p| p.ofport).collect();
        for p in &b.ports {
            let no = p.ofport.unwrap_or_else(|| lowest_free(&taken));
            taken.insert(no);
            let dp = if no < DATAPATH_PORTS && !datapath.contains(&no) { no } else { lowest_free(&datapath) };
            datapath.insert(dp);
            out.push(NumberedPort { bridge, config: p.clone(), no: PortNo(no), dp: PortId(dp) });
        }
    }
    out
}

/// Which datapath port each port of a device is: number on the device, datapath number.
pub fn ports_of_device(ports: &[NumberedPort], name: &str) -> Vec<(u16, PortId)> {
    let of = |p: &NumberedPort| match &p.config.kind {
        PortKind::Sim { device, port } if device == name => Some((*port, p.dp)),
        _ => None,
    };
    ports.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn numbers_are_kept_where_given_and_lowest_otherwise() {
        let port = |n: &str, o: &str| format!("[[bridge.port]]\nname='{n}'\ntype='memory'\n{o}\n");
        let text = format!(
            "[[bridge]]\nname='a'\n{}{}{}[[bridge]]\nname='b'\n{}{}",
            port("a1", ""),
            port("a2", "ofport=1"),
            port("a3", "ofport=65279"),
            port("b1", "ofport=1"),
            port("b2", "")
        );
        let c = Config::parse(&text, Path::new("t")).unwrap();
        let n: Vec<_> = number_ports(&c).iter().map(|p| (p.config.name.clone(), p.no.0, p.dp.0)).collect();
        let want = [("a1", 2, 2), ("a2", 1, 1), ("a3", 65_279, 65_279), ("b1", 1, 3), ("b2", 2, 4)];
        assert_eq!(n, want.map(|(n, o, d)| (n.to_owned(), o, d)));
    }
}
