//! ClassBench-like 5-tuple rules (Taylor and Turner 2007): prefix pairs, protocol, exact ports; a quarter drop.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use flow::headers::ip_proto::{TCP, UDP};
use std::net::Ipv4Addr;

use super::output::{ETH, Output, WorkloadError, frame4};
use super::random::Random;

const WELL_KNOWN: [u16; 20] =
    [22, 25, 53, 80, 110, 123, 143, 161, 389, 443, 445, 993, 1433, 1521, 3306, 3389, 5060, 5432, 8080, 8443];
const SRC_LENS: [u32; 8] = [0, 8, 12, 16, 20, 24, 28, 32];
const DST_LENS: [u32; 8] = [8, 16, 20, 24, 26, 28, 30, 32];

/// A rule's match.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Rule {
    src: u32,
    src_len: u32,
    dst: u32,
    dst_len: u32,
    proto: Option<u8>,
    dst_port: Option<u16>,
    src_port: Option<u16>,
}

/// The low `32 - len` bits.
fn host_bits(len: u32) -> u32 {
    u32::MAX.checked_shr(len).unwrap_or(0)
}

fn rules(r: &mut Random, n: usize) -> Vec<Rule> {
    let (mut rules, mut seen) = (Vec::with_capacity(n), HashSet::new());
    while rules.len() < n {
        let src_len = *r.choice(&SRC_LENS);
        let dst_len = *r.choice(&DST_LENS);
        let src = r.bits(32) as u32 & !host_bits(src_len);
        let dst = r.bits(32) as u32 & !host_bits(dst_len);
        let proto = *r.choice(&[Some(TCP), Some(UDP), Some(TCP), Some(UDP), None]);
        let mut port = |share: f64| (proto.is_some() && r.unit() < share).then(|| *r.choice(&WELL_KNOWN));
        let dst_port = port(0.7);
        let src_port = port(0.15);
        let rule = Rule { src, src_len, dst, dst_len, proto, dst_port, src_port };
        if seen.insert(rule) {
            rules.push(rule);
        }
    }
    rules
}

fn text(i: usize, rule: &Rule, drop: bool) -> String {
    let proto = match rule.proto {
        Some(TCP) => "tcp",
        Some(_) => "udp",
        None => "ip",
    };
    let mut t = format!("priority={},in_port=n0,{proto}", 60_000 - i);
    if rule.src_len > 0 {
        t += &format!(",nw_src={}/{}", Ipv4Addr::from(rule.src), rule.src_len);
    }
    t += &format!(",nw_dst={}/{}", Ipv4Addr::from(rule.dst), rule.dst_len);
    if let Some(p) = rule.dst_port {
        t += &format!(",tp_dst={p}");
    }
    if let Some(p) = rule.src_port {
        t += &format!(",tp_src={p}");
    }
    t + if drop { ",actions=drop" } else { ",actions=output:n1" }
}

/// `count` rules and a packet for each of `packets` random choices among them; most hit an earlier or the same rule.
pub(super) fn acl(
    dir: &Path,
    name: &'static str,
    r: &mut Random,
    count: usize,
    packets: usize,
) -> Result<(), WorkloadError> {
    let mut out = Output::create(dir, name, "plain")?;
    out.meta("flows", packets);
    let rules = rules(r, count);
    let drops: Vec<bool> = rules.iter().map(|_| r.unit() < 0.25).collect();
    for (i, (rule, drop)) in rules.iter().zip(&drops).enumerate() {
        out.rule(text(i, rule, *drop));
    }
    out.rule("priority=0,actions=drop");
    let reference = Reference::new(&rules, &drops);
    let mut forwarded = 0usize;
    for i in 0..packets {
        let rule = *r.choice(&rules);
        let src = rule.src | r.bits(32) as u32 & host_bits(rule.src_len);
        let dst = rule.dst | r.bits(32) as u32 & host_bits(rule.dst_len);
        let proto = rule.proto.unwrap_or_else(|| *r.choice(&[TCP, UDP]));
        let mut high_port = || 1024 + r.below(65_535 - 1024) as u16;
        let sp = rule.src_port.unwrap_or_else(&mut high_port);
        let dp = rule.dst_port.unwrap_or_else(&mut high_port);
        out.add(&frame4(ETH, src, dst, proto, sp, dp, i as u32))?;
        forwarded += usize::from(reference.forwards(src, dst, proto, sp, dp));
    }
    out.meta("expect_fwd", format!("{:.2}", forwarded as f64 * 100.0 / packets as f64));
    out.finish()
}

/// Rule numbers with their protocol, destination port and source port, by shifted source and destination address.
type Prefixes = HashMap<(u32, u32), Vec<(usize, Option<u8>, Option<u16>, Option<u16>)>>;

/// First matching rule by trying every pair of prefix lengths.
struct Reference<'a> {
    drops: &'a [bool],
    tables: Vec<(u32, u32, Prefixes)>,
}

/// `v` without its low `32 - len` bits.
fn prefix(v: u32, len: u32) -> u32 {
    v.checked_shr(32 - len).unwrap_or(0)
}

impl<'a> Reference<'a> {
    fn new(rules: &[Rule], drops: &'a [bool]) -> Self {
        let mut tables: Vec<(u32, u32, Prefixes)> = Vec::new();
        for (i, r) in rules.iter().enumerate() {
            let (sl, dl) = (r.src_len, r.dst_len);
            let at = tables.iter().position(|(s, d, _)| (*s, *d) == (sl, dl)).unwrap_or_else(|| {
                tables.push((sl, dl, HashMap::new()));
                tables.len() - 1
            });
            let key = (prefix(r.src, sl), prefix(r.dst, dl));
            tables[at].2.entry(key).or_default().push((i, r.proto, r.dst_port, r.src_port));
        }
        Reference { drops, tables }
    }

    fn forwards(&self, src: u32, dst: u32, proto: u8, sp: u16, dp: u16) -> bool {
        let fits = |p: &Option<u8>, d: &Option<u16>, s: &Option<u16>| {
            p.is_none_or(|p| p == proto) && d.is_none_or(|d| d == dp) && s.is_none_or(|s| s == sp)
        };
        let best = self
            .tables
            .iter()
            .filter_map(|(sl, dl, t)| t.get(&(prefix(src, *sl), prefix(dst, *dl))))
            .flatten()
            .filter(|(_, p, d, s)| fits(p, d, s))
            .map(|(i, ..)| *i)
            .min();
        best.is_some_and(|i| !self.drops[i])
    }
}
