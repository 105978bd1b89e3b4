//! Which core serves which receive queue, in the ways that ovs-vswitchd.conf.db(5) describes at `pmd-rxq-assign`,
//! `pmd-rxq-isolate` and `pmd-rxq-affinity`.
//!
//! A queue goes to a core of the memory node that its port is on; where no core there is free for it, to the next node that has one,
//! nodes taking turns.

use std::collections::BTreeMap;

use flow::PortId;

use crate::desired::RxqAssign;

/// A receive queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rxq {
    pub(super) port: PortId,
    pub(super) queue: u16,
    /// The memory node of its port.
    pub(super) node: usize,
    /// The core that is to serve it, if one is named that there is.
    pub(super) asked: Option<usize>,
    /// What it has cost lately.
    pub(super) cycles: u64,
}

/// A core and its memory node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Placed {
    pub(super) core: usize,
    pub(super) node: usize,
}

/// What becomes of the queues.
#[derive(Default, Debug)]
pub(super) struct Given {
    /// For each queue its core.
    pub(super) to: Vec<usize>,
    /// Cores that serve only queues which name them.
    pub(super) isolated: Vec<usize>,
    /// Queues that a core of another node serves, by place, and that node.
    pub(super) strangers: Vec<(usize, usize)>,
}

/// The cores of a node that are free for anybody.
#[derive(Default)]
struct Node {
    cores: Vec<usize>,
    turn: usize,
}

impl Node {
    /// The core whose turn it is.
    fn next(&mut self, how: RxqAssign, load: &BTreeMap<usize, (u64, usize)>) -> Option<usize> {
        let n = self.cores.len().max(1);
        let turn = self.turn;
        self.turn += 1;
        match how {
            RxqAssign::RoundRobin => self.cores.get(turn % n).copied(),
            RxqAssign::Cycles => {
                let (round, within) = (turn / n, turn % n);
                self.cores.get(if round % 2 == 0 { within } else { n - 1 - within }).copied()
            }
            RxqAssign::Group => {
                self.cores.iter().copied().min_by_key(|c| load.get(c).copied().unwrap_or_default())
            }
        }
    }
}

/// Gives out queues. `cores` are those there are, at least one.
pub(super) fn assign(queues: &[Rxq], cores: &[Placed], how: RxqAssign, isolate: bool) -> Given {
    let mut g = Given { to: vec![cores.first().map_or(0, |c| c.core); queues.len()], ..Given::default() };
    let is_there = |core: &usize| cores.iter().any(|c| c.core == *core);
    // What each core has already, as far as it is known.
    let mut load: BTreeMap<usize, (u64, usize)> = BTreeMap::new();
    let mut free = Vec::new();
    for (i, q) in queues.iter().enumerate() {
        let Some(core) = q.asked.filter(is_there) else {
            free.push(i);
            continue;
        };
        g.to[i] = core;
        let l = load.entry(core).or_default();
        (l.0, l.1) = (l.0 + q.cycles, l.1 + 1);
        if isolate && !g.isolated.contains(&core) {
            g.isolated.push(core);
        }
    }
    if g.isolated.len() == cores.len() && !free.is_empty() {
        // Somebody has to serve the others.
        g.isolated.clear();
    }
    let mut nodes: BTreeMap<usize, Node> = BTreeMap::new();
    for c in cores.iter().filter(|c| !g.isolated.contains(&c.core)) {
        nodes.entry(c.node).or_default().cores.push(c.core);
    }
    if how != RxqAssign::RoundRobin {
        free.sort_by_key(|i| (std::cmp::Reverse(queues[*i].cycles), queues[*i].port, queues[*i].queue));
    }
    let mut others = 0;
    for i in free {
        let mut node = queues[i].node;
        if !nodes.contains_key(&node) {
            let Some(next) = nodes.keys().nth(others % nodes.len().max(1)) else { break };
            others += 1;
            node = *next;
            g.strangers.push((i, node));
        }
        if let Some(core) = nodes.get_mut(&node).and_then(|n| n.next(how, &load)) {
            let l = load.entry(core).or_default();
            (l.0, l.1) = (l.0 + queues[i].cycles, l.1 + 1);
            g.to[i] = core;
        }
    }
    g
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(cycles: &[u64]) -> Vec<Rxq> {
        let one = |(i, c): (usize, &u64)| Rxq {
            port: PortId(1),
            queue: i as u16,
            node: 0,
            asked: None,
            cycles: *c,
        };
        cycles.iter().enumerate().map(one).collect()
    }

    fn on_one_node(cores: &[usize]) -> Vec<Placed> {
        cores.iter().map(|c| Placed { core: *c, node: 0 }).collect()
    }

    fn given(q: &[Rxq], cores: &[usize], how: RxqAssign, isolate: bool) -> (Vec<usize>, Vec<usize>) {
        let g = assign(q, &on_one_node(cores), how, isolate);
        (g.to, g.isolated)
    }

    #[test]
    fn round_robin_knows_no_cycles_and_by_cycles_it_goes_forth_and_back() {
        let q = queues(&[10, 80, 20, 70, 30, 60]);
        let rr = given(&q, &[0, 1, 2], RxqAssign::RoundRobin, true);
        assert_eq!(rr, (vec![0, 1, 2, 0, 1, 2], vec![]));
        // As the manual has it: the dearest to the first core, and back at the last.
        let by = given(&q, &[0, 1, 2], RxqAssign::Cycles, true);
        assert_eq!(by.0, [0, 0, 1, 1, 2, 2]);
        let nothing_known = given(&queues(&[0; 5]), &[0, 1], RxqAssign::Cycles, true);
        assert_eq!(nothing_known.0, [0, 1, 1, 0, 0]);
    }

    #[test]
    fn the_group_way_fills_up_who_has_least() {
        let q = queues(&[100, 10, 20, 30, 40]);
        let (cores, _) = given(&q, &[4, 5], RxqAssign::Group, true);
        assert_eq!(cores, [4, 5, 5, 5, 5]);
        let unknown = given(&queues(&[0; 4]), &[4, 5], RxqAssign::Group, true);
        assert_eq!(unknown.0, [4, 5, 4, 5]);
    }

    #[test]
    fn a_core_that_queues_ask_for_serves_no_others_unless_it_must() {
        let mut q = queues(&[0; 4]);
        q[2].asked = Some(0);
        assert_eq!(given(&q, &[0, 1], RxqAssign::RoundRobin, true), (vec![1, 1, 0, 1], vec![0]));
        assert_eq!(given(&q, &[0, 1], RxqAssign::RoundRobin, false), (vec![0, 1, 0, 0], vec![]));
        // One that is not there is nobody's.
        q[2].asked = Some(9);
        assert_eq!(given(&q, &[0, 1], RxqAssign::RoundRobin, true), (vec![0, 1, 0, 1], vec![]));
        q[2].asked = Some(0);
        assert_eq!(given(&q, &[0], RxqAssign::RoundRobin, true), (vec![0; 4], vec![]));
    }

    #[test]
    fn queues_go_to_cores_of_their_own_node_and_to_others_in_turn_where_there_are_none() {
        let cores = [(0, 1), (1, 2), (2, 1), (3, 2)].map(|(core, node)| Placed { core, node });
        for how in [RxqAssign::RoundRobin, RxqAssign::Cycles, RxqAssign::Group] {
            let mut q = queues(&[0; 4]);
            let g = assign(&q, &cores, how, true);
            let mut to = g.to.clone();
            to.sort_unstable();
            assert_eq!((to, g.strangers.len()), (vec![0, 1, 2, 3], 4), "{how:?}");
            q.iter_mut().for_each(|q| q.node = 2);
            let g = assign(&q, &cores, how, true);
            assert!(g.strangers.is_empty() && g.to.iter().all(|c| [1, 3].contains(c)), "{how:?}");
        }
    }
}
