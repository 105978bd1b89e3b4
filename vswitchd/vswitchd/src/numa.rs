//! Which memory node each processor is of: the host's, or what `--dummy-numa` says.

use std::collections::BTreeMap;

/// Processors by number, and the nodes that they are of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Numa {
    node_of: BTreeMap<usize, usize>,
    /// Nothing of the host's is meant.
    pub dummy: bool,
}

impl Numa {
    /// The host's, as far as it tells (`/sys/devices/system/node`); where it does not, one node.
    pub fn of_the_host() -> Numa {
        let mut node_of = BTreeMap::new();
        for entry in std::fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let node = name.to_str().and_then(|n| n.strip_prefix("node")?.parse::<usize>().ok());
            let list = std::fs::read_to_string(entry.path().join("cpulist")).unwrap_or_default();
            if let Some(node) = node {
                node_of.extend(ranges(&list).map(|p| (p, node)));
            }
        }
        if node_of.is_empty() {
            let n = std::thread::available_parallelism().map_or(1, |n| n.get());
            node_of = (0..n).map(|p| (p, 0)).collect();
        }
        Numa { node_of, dummy: false }
    }

    /// By a list: the node of each processor, in order, separated by commas. `None` when it is no such list.
    pub fn of_list(list: &str) -> Option<Numa> {
        let nodes: Option<Vec<usize>> = list.split(',').map(|n| n.trim().parse().ok()).collect();
        Some(Numa { node_of: nodes?.into_iter().enumerate().collect(), dummy: true })
    }

    /// The node of a processor; the first one of one that is not known.
    pub fn node(&self, processor: usize) -> usize {
        self.node_of.get(&processor).copied().unwrap_or(0)
    }

    /// Whether there is such a processor.
    pub fn has(&self, processor: usize) -> bool {
        self.node_of.contains_key(&processor)
    }

    /// How many processors there are.
    pub fn processors(&self) -> usize {
        self.node_of.len()
    }

    /// The first processor of each node.
    pub fn first_of_each(&self) -> Vec<usize> {
        let mut first = BTreeMap::new();
        for (processor, node) in &self.node_of {
            first.entry(*node).or_insert(*processor);
        }
        let mut all: Vec<usize> = first.into_values().collect();
        all.sort_unstable();
        all
    }

    /// Says in the log what was found.
    pub fn tell(&self) {
        let mut per_node: BTreeMap<usize, usize> = BTreeMap::new();
        self.node_of.values().for_each(|n| *per_node.entry(*n).or_default() += 1);
        for (node, n) in &per_node {
            tracing::info!(target: "ovs_numa", "Discovered {n} CPU cores on NUMA node {node}");
        }
        let (nodes, all) = (per_node.len(), self.node_of.len());
        tracing::info!(target: "ovs_numa", "Discovered {nodes} NUMA nodes and {all} CPU cores");
    }
}

/// The numbers of a list of ranges, `0-3,8`.
fn ranges(list: &str) -> impl Iterator<Item = usize> + '_ {
    list.trim()
        .split(',')
        .filter_map(|r| {
            let (from, to) = r.split_once('-').unwrap_or((r, r));
            Some(from.parse::<usize>().ok()?..to.parse::<usize>().ok()?.min(65_535) + 1)
        })
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_the_node_of_each_processor() {
        let n = Numa::of_list("0,1,8,1").unwrap();
        assert_eq!([0, 1, 2, 3, 9].map(|p| n.node(p)), [0, 1, 8, 1, 0]);
        assert_eq!((n.first_of_each(), n.processors(), n.has(3), n.has(4)), (vec![0, 1, 2], 4, true, false));
        assert!(Numa::of_list("0,x").is_none());
    }

    #[test]
    fn the_host_has_a_processor_and_lists_are_of_ranges() {
        assert!(Numa::of_the_host().processors() > 0);
        assert_eq!(ranges("0-2,8,10-11\n").collect::<Vec<_>>(), [0, 1, 2, 8, 10, 11]);
        assert_eq!(ranges("nothing").count(), 0);
    }
}
