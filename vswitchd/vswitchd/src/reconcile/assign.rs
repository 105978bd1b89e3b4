//! Which core serves which receive queue, in the ways that ovs-vswitchd.conf.db(5) describes at `pmd-rxq-assign`,
//! `pmd-rxq-isolate` and `pmd-rxq-affinity`.

use flow::PortId;

use crate::desired::RxqAssign;

/// A receive queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rxq {
    pub(super) port: PortId,
    pub(super) queue: u16,
    /// The core that is to serve it, if one is named that there is.
    pub(super) asked: Option<usize>,
    /// What it has cost lately.
    pub(super) cycles: u64,
}

/// For each queue its core, and the cores that serve only queues which name them. `cores` are those there are, at least one.
pub(super) fn assign(
    queues: &[Rxq],
    cores: &[usize],
    how: RxqAssign,
    isolate: bool,
) -> (Vec<usize>, Vec<usize>) {
    let mut isolated: Vec<usize> = Vec::new();
    // What each core has already, as far as it is known.
    let mut load = vec![(0u64, 0usize); cores.len()];
    let place = |core: usize| cores.iter().position(|c| *c == core);
    for q in queues {
        if let Some((core, at)) = q.asked.and_then(|c| Some((c, place(c)?))) {
            load[at].0 += q.cycles;
            load[at].1 += 1;
            if isolate && !isolated.contains(&core) {
                isolated.push(core);
            }
        }
    }
    if isolated.len() == cores.len() {
        // Somebody has to serve the others.
        let others = queues.iter().any(|q| q.asked.and_then(place).is_none());
        if others {
            isolated.clear();
        }
    }
    let open: Vec<usize> = (0..cores.len()).filter(|at| !isolated.contains(&cores[*at])).collect();
    let mut out: Vec<usize> =
        queues.iter().map(|q| q.asked.filter(|c| place(*c).is_some()).unwrap_or(cores[0])).collect();
    let mut free: Vec<usize> =
        (0..queues.len()).filter(|i| queues[*i].asked.and_then(place).is_none()).collect();
    if how != RxqAssign::RoundRobin {
        free.sort_by_key(|i| (std::cmp::Reverse(queues[*i].cycles), queues[*i].port, queues[*i].queue));
    }
    for (turn, i) in free.into_iter().enumerate() {
        let n = open.len().max(1);
        let at = match how {
            RxqAssign::RoundRobin => open.get(turn % n),
            RxqAssign::Cycles => {
                let (round, within) = (turn / n, turn % n);
                open.get(if round % 2 == 0 { within } else { n - 1 - within })
            }
            RxqAssign::Group => open.iter().min_by_key(|at| load[**at]),
        };
        let Some(at) = at else { continue };
        load[*at].0 += queues[i].cycles;
        load[*at].1 += 1;
        out[i] = cores[*at];
    }
    (out, isolated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queues(cycles: &[u64]) -> Vec<Rxq> {
        let one = |(i, c): (usize, &u64)| Rxq { port: PortId(1), queue: i as u16, asked: None, cycles: *c };
        cycles.iter().enumerate().map(one).collect()
    }

    #[test]
    fn round_robin_knows_no_cycles_and_by_cycles_it_goes_forth_and_back() {
        let q = queues(&[10, 80, 20, 70, 30, 60]);
        let rr = assign(&q, &[0, 1, 2], RxqAssign::RoundRobin, true);
        assert_eq!(rr, (vec![0, 1, 2, 0, 1, 2], vec![]));
        // As the manual has it: the dearest to the first core, and back at the last.
        let by = assign(&q, &[0, 1, 2], RxqAssign::Cycles, true);
        assert_eq!(by.0, [0, 0, 1, 1, 2, 2]);
        let nothing_known = assign(&queues(&[0; 5]), &[0, 1], RxqAssign::Cycles, true);
        assert_eq!(nothing_known.0, [0, 1, 1, 0, 0]);
    }

    #[test]
    fn the_group_way_fills_up_who_has_least() {
        let q = queues(&[100, 10, 20, 30, 40]);
        let (cores, _) = assign(&q, &[4, 5], RxqAssign::Group, true);
        assert_eq!(cores, [4, 5, 5, 5, 5]);
        let unknown = assign(&queues(&[0; 4]), &[4, 5], RxqAssign::Group, true);
        assert_eq!(unknown.0.iter().filter(|c| **c == 4).count(), 2);
    }

    #[test]
    fn a_core_that_queues_ask_for_serves_no_others_unless_it_must() {
        let mut q = queues(&[0; 4]);
        q[2].asked = Some(0);
        assert_eq!(assign(&q, &[0, 1], RxqAssign::RoundRobin, true), (vec![1, 1, 0, 1], vec![0]));
        assert_eq!(assign(&q, &[0, 1], RxqAssign::RoundRobin, false), (vec![0, 1, 0, 0], vec![]));
        // One that is not there is nobody's.
        q[2].asked = Some(9);
        assert_eq!(assign(&q, &[0, 1], RxqAssign::RoundRobin, true), (vec![0, 1, 0, 1], vec![]));
        q[2].asked = Some(0);
        assert_eq!(assign(&q, &[0], RxqAssign::RoundRobin, true), (vec![0; 4], vec![]));
    }
}
