//! Which OpenFlow number a port of a bridge gets, and which number of the datapath.
//!
//! As in Open vSwitch a port keeps its number for as long as it is configured. Who comes and asks for a number that is somebody's gets
//! another; who is there and asks gets it, unless the other has asked for it as well. Numbers that nobody asks for go up: that of a
//! port that has gone is given out again only when every other has been somebody's, so that what a controller still believes of it
//! is not taken for the truth about another port.

use std::collections::{BTreeMap, BTreeSet};

use flow::PortId;
use openflow::PortNo;

use crate::config::{MAX_OFPORT, PortConfig};

/// Datapath numbers of LOCAL ports are taken from here downwards.
const LOCAL_FROM: u32 = 65_534;
/// Datapath port numbers lie below this.
pub(crate) const DATAPATH_PORTS: u32 = 65_536;

/// The first number in a name.
pub(crate) fn first_number(name: &str) -> Option<u32> {
    let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

/// The OpenFlow numbers of one bridge.
#[derive(Default)]
pub struct OfPorts {
    /// Of the ports that are configured.
    by_name: BTreeMap<String, u32>,
    /// The one given out last to a port that did not ask.
    last: u32,
    /// Those that have been somebody's.
    used: BTreeSet<u32>,
    /// What each port asked for the last time.
    asked: BTreeMap<String, Option<u32>>,
}

impl OfPorts {
    /// The numbers of `ports`, by name. Of two that ask for the same, the first one in order of name gets it. Asked for the same
    /// ports again it says the same.
    pub fn assign(&mut self, ports: &[PortConfig]) -> BTreeMap<String, PortNo> {
        let asks = |p: &PortConfig| p.ofport.filter(|n| (1..=MAX_OFPORT).contains(n));
        let mut sorted: Vec<_> = ports.iter().collect();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        let asked: BTreeMap<String, Option<u32>> = sorted.iter().map(|p| (p.name.clone(), asks(p))).collect();
        let changed = self.asked != asked;
        let mut out = std::mem::take(&mut self.by_name);
        out.retain(|name, _| asked.contains_key(name));
        for p in sorted.iter().filter(|_| changed) {
            let (Some(has), Some(want)) = (out.get(&p.name).copied(), asks(p)) else { continue };
            if has == want {
                continue;
            }
            match out.iter().find(|(_, n)| **n == want).map(|(name, _)| name.clone()) {
                Some(other) if asked.get(&other) == Some(&Some(want)) => {}
                other => {
                    // Both get a number as if they had just come.
                    out.remove(&p.name);
                    other.map(|o| out.remove(&o));
                }
            }
        }
        let mut taken: BTreeSet<u32> = out.values().copied().collect();
        for p in &sorted {
            if let Some(n) = asks(p).filter(|n| !out.contains_key(&p.name) && taken.insert(*n)) {
                out.insert(p.name.clone(), n);
            }
        }
        // In the order of the configuration, so that a file says who gets 1.
        for p in ports {
            if !out.contains_key(&p.name)
                && let Some(n) = self.next(&taken)
            {
                taken.insert(n);
                out.insert(p.name.clone(), n);
            }
        }
        self.used.extend(&taken);
        self.asked = asked;
        self.by_name = out;
        self.by_name.iter().map(|(name, n)| (name.clone(), PortNo(*n))).collect()
    }

    /// The next number up; one that was never anybody's if there is one.
    fn next(&mut self, taken: &BTreeSet<u32>) -> Option<u32> {
        let up = || (self.last + 1..=MAX_OFPORT).chain(1..=self.last.min(MAX_OFPORT));
        let fresh = up().find(|n| !taken.contains(n) && !self.used.contains(n));
        let n = fresh.or_else(|| up().find(|n| !taken.contains(n)))?;
        self.last = n;
        Some(n)
    }
}

/// The datapath numbers of all bridges; those that several ports share, with how many they are; those that dummies are to have
/// when they are made the next time.
#[derive(Default)]
pub struct DatapathNumbers(BTreeSet<u32>, BTreeMap<String, (PortId, usize)>, BTreeMap<String, PortId>);

impl DatapathNumbers {
    /// Takes a number for a port: that of OpenFlow when it is free and fits, else the lowest free one; the highest free one
    /// for LOCAL ports. `None` when there is none left.
    pub fn take(&mut self, no: PortNo) -> Option<PortId> {
        let free = |n: &u32| !self.0.contains(n);
        let dp = match no {
            PortNo::LOCAL => (1..=LOCAL_FROM).rev().find(free)?,
            PortNo(n) if n < DATAPATH_PORTS && free(&n) => n,
            _ => (1..DATAPATH_PORTS).find(free)?,
        };
        self.0.insert(dp);
        Some(PortId(dp))
    }

    /// Takes this number; false when it is somebody's.
    pub fn take_this(&mut self, dp: PortId) -> bool {
        dp.0 > 0 && dp.0 < DATAPATH_PORTS && self.0.insert(dp.0)
    }

    /// Takes a number for a dummy port: the first one in its name, and a hundred more when the name begins with `br`, if that
    /// is free, else the lowest free one. What tests are written by. `None` when there is none left.
    pub fn take_by_name(&mut self, name: &str) -> Option<PortId> {
        let free = |n: &u32| *n > 0 && *n < DATAPATH_PORTS && !self.0.contains(n);
        let base: u32 = if name.starts_with("br") { 100 } else { 0 };
        let named = first_number(name).and_then(|n| n.checked_add(base));
        let asked = self.2.get(name).map(|p| p.0);
        let dp = asked.filter(free).or(named.filter(free)).or_else(|| (1..DATAPATH_PORTS).find(free))?;
        self.0.insert(dp);
        Some(PortId(dp))
    }

    /// Has a dummy port have that number from the next time on that it is made, if nobody else has.
    pub fn ask(&mut self, name: &str, dp: PortId) {
        self.2.insert(name.to_owned(), dp);
    }

    /// A dummy port is not wanted any more: what was asked for it is over.
    pub fn forget(&mut self, name: &str) {
        self.2.remove(name);
    }

    /// The number of the port called `name`, which several share.
    pub fn share(&mut self, name: &str) -> Option<PortId> {
        if let Some((dp, n)) = self.1.get_mut(name) {
            *n += 1;
            return Some(*dp);
        }
        let dp = self.take_by_name(name)?;
        self.1.insert(name.to_owned(), (dp, 1));
        Some(dp)
    }

    /// The number that is shared under `name` now.
    pub fn shared(&self, name: &str) -> Option<PortId> {
        self.1.get(name).map(|(dp, _)| *dp)
    }

    /// One that shared a number does no more; the number, if it was the last one.
    pub fn unshare(&mut self, name: &str) -> Option<PortId> {
        let (dp, n) = self.1.get_mut(name)?;
        *n -= 1;
        if *n > 0 {
            return None;
        }
        let dp = *dp;
        self.1.remove(name);
        self.give_back(dp);
        Some(dp)
    }

    /// Gives a number back.
    pub fn give_back(&mut self, dp: PortId) {
        self.0.remove(&dp.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PortKind;

    fn port(name: &str, ofport: Option<u32>) -> PortConfig {
        PortConfig { ofport, ..PortConfig::new(name, PortKind::Memory) }
    }

    fn assigned(o: &mut OfPorts, ports: &[PortConfig]) -> Vec<(String, u32)> {
        o.assign(ports).into_iter().map(|(name, n)| (name, n.0)).collect()
    }

    fn want(w: &[(&str, u32)]) -> Vec<(String, u32)> {
        w.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
    }

    #[test]
    fn numbers_are_kept_where_given_and_lowest_otherwise() {
        let mut o = OfPorts::default();
        let ports = [port("a1", None), port("a2", Some(1)), port("a3", Some(65_279)), port("a0", None)];
        assert_eq!(assigned(&mut o, &ports), want(&[("a0", 3), ("a1", 2), ("a2", 1), ("a3", 65_279)]));
    }

    #[test]
    fn numbers_that_nobody_asks_for_go_up_and_those_of_ports_that_stay_stay() {
        let mut o = OfPorts::default();
        let (a, b, c) = (port("a", None), port("b", None), port("c", None));
        assert_eq!(assigned(&mut o, &[a.clone(), b.clone()]), want(&[("a", 1), ("b", 2)]));
        assert_eq!(assigned(&mut o, &[b.clone(), c.clone()]), want(&[("b", 2), ("c", 3)]));
        assert_eq!(assigned(&mut o, &[b, c, a]), want(&[("a", 4), ("b", 2), ("c", 3)]));
    }

    #[test]
    fn numbers_that_were_somebodys_are_given_out_when_there_are_no_others() {
        let mut o = OfPorts::default();
        for n in 1..=MAX_OFPORT {
            assert_eq!(assigned(&mut o, &[port("a", None)]), want(&[("a", n)]));
            assert_eq!(assigned(&mut o, &[]), []);
        }
        let both = [port("a", Some(1)), port("b", None)];
        assert_eq!(assigned(&mut o, &both), want(&[("a", 1), ("b", 2)]));
    }

    #[test]
    fn who_is_there_and_asks_gets_a_number_from_one_who_only_has_it() {
        let mut o = OfPorts::default();
        assert_eq!(assigned(&mut o, &[port("a", None)]), want(&[("a", 1)]));
        // Who comes does not.
        let both = [port("a", None), port("b", Some(1)), port("c", None)];
        assert_eq!(assigned(&mut o, &both), want(&[("a", 1), ("b", 2), ("c", 3)]));
        assert_eq!(assigned(&mut o, &both), want(&[("a", 1), ("b", 2), ("c", 3)]));
        // When the ports change next it is there, and still asks.
        let fewer = [port("a", None), port("b", Some(1))];
        assert_eq!(assigned(&mut o, &fewer), want(&[("a", 4), ("b", 1)]));
        assert_eq!(assigned(&mut o, &fewer), want(&[("a", 4), ("b", 1)]));
        let all = [port("a", Some(1)), port("b", Some(1)), port("c", Some(0))];
        assert_eq!(assigned(&mut o, &all), want(&[("a", 4), ("b", 1), ("c", 5)]), "0 is no number");
    }

    #[test]
    fn a_dummys_datapath_number_is_in_its_name() {
        let mut d = DatapathNumbers::default();
        let mut take = |n| d.take_by_name(n).unwrap().0;
        assert_eq!(["br0", "p1", "p1x", "vif7.2", "none", "br0b"].map(&mut take), [100, 1, 2, 7, 3, 4]);
        d.give_back(PortId(1));
        d.ask("p1", PortId(9));
        assert_eq!(d.take_by_name("p1"), Some(PortId(9)));
        d.ask("p1x", PortId(9));
        assert_eq!(d.take_by_name("p1x"), Some(PortId(1)), "that is somebody's");
        d.give_back(PortId(9));
        d.forget("p1");
        d.give_back(PortId(1));
        assert_eq!(d.take_by_name("p1"), Some(PortId(1)));
    }

    #[test]
    fn datapath_numbers_follow_openflow_where_they_are_free() {
        let mut d = DatapathNumbers::default();
        let mut take = |n| d.take(PortNo(n)).unwrap().0;
        assert_eq!([take(1), take(1), take(1), take(0xfeff)], [1, 2, 3, 0xfeff]);
        assert_eq!([take(PortNo::LOCAL.0), take(PortNo::LOCAL.0)], [65_534, 65_533]);
        d.give_back(PortId(2));
        assert_eq!(d.take(PortNo(9)), Some(PortId(9)));
        assert_eq!(d.take(PortNo(1)), Some(PortId(2)));
    }
}
