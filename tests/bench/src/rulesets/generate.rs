//! Rule sets in the manner of ClassBench (Taylor and Turner 2007): access lists, firewalls and a mixture, of any size.
//!
//! What makes the three differ is how often which prefix lengths, protocols and ports occur. Addresses come out of a limited
//! number of networks, so that prefixes nest and rules overlap. A range of ports stands for itself as one of the masked values that it
//! becomes in OpenFlow.

use std::collections::HashSet;
use std::fmt;
use std::net::Ipv4Addr;

use flow::headers::ip_proto::{TCP, UDP};
use flow::{FieldId, PipelineKey, PipelineMatch};

use crate::workload::Random;

/// Which kind of set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Access lists: long destination prefixes, exact destination ports.
    Acl,
    /// Firewalls: many wildcards and port ranges.
    Fw,
    /// Chains of a host's filter: between the two.
    Ipc,
}

impl Kind {
    /// All.
    pub const ALL: [Kind; 3] = [Kind::Acl, Kind::Fw, Kind::Ipc];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Acl => "acl",
            Kind::Fw => "fw",
            Kind::Ipc => "ipc",
        }
    }

    fn profile(self) -> &'static Profile {
        match self {
            Kind::Acl => &ACL,
            Kind::Fw => &FW,
            Kind::Ipc => &IPC,
        }
    }
}

/// Shares in percent.
struct Profile {
    /// Prefix lengths of sources and destinations.
    src: &'static [(u32, u32)],
    dst: &'static [(u32, u32)],
    /// TCP, UDP; the rest is any protocol.
    tcp: u32,
    udp: u32,
    /// Of rules with ports: exact, a range; the rest is any port.
    src_port: (u32, u32),
    dst_port: (u32, u32),
}

static ACL: Profile = Profile {
    src: &[(0, 12), (8, 3), (16, 12), (20, 6), (22, 5), (24, 22), (27, 5), (28, 7), (30, 4), (32, 24)],
    dst: &[(8, 2), (16, 9), (20, 5), (23, 4), (24, 26), (26, 5), (28, 8), (29, 4), (30, 5), (32, 32)],
    tcp: 78,
    udp: 16,
    src_port: (1, 2),
    dst_port: (62, 22),
};
static FW: Profile = Profile {
    src: &[(0, 42), (8, 4), (16, 10), (24, 16), (28, 4), (32, 24)],
    dst: &[(0, 24), (8, 4), (16, 10), (24, 22), (27, 4), (28, 4), (32, 32)],
    tcp: 54,
    udp: 32,
    src_port: (8, 18),
    dst_port: (46, 28),
};
static IPC: Profile = Profile {
    src: &[(0, 16), (8, 6), (12, 3), (16, 14), (19, 4), (24, 24), (25, 4), (29, 5), (32, 24)],
    dst: &[(0, 10), (8, 5), (16, 14), (21, 4), (24, 26), (26, 5), (30, 6), (32, 30)],
    tcp: 52,
    udp: 30,
    src_port: (12, 6),
    dst_port: (50, 14),
};

/// The five values that rules look at; as a mask, the bits that count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[allow(missing_docs)]
pub struct Tuple {
    pub src: u32,
    pub dst: u32,
    pub src_port: u16,
    pub dst_port: u16,
    pub proto: u8,
}

impl Tuple {
    /// What the OpenFlow tables see of such a packet.
    pub fn key(&self) -> PipelineKey {
        let mut k = PipelineKey::ZERO;
        k.set(FieldId::EthType, 0x800);
        k.set(FieldId::NwSrc, self.src.into());
        k.set(FieldId::NwDst, self.dst.into());
        k.set(FieldId::NwProto, self.proto.into());
        k.set(FieldId::TpSrc, self.src_port.into());
        k.set(FieldId::TpDst, self.dst_port.into());
        k
    }
}

/// A rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// Values, zero where the mask is.
    pub value: Tuple,
    /// Bits that count.
    pub mask: Tuple,
    /// Higher wins.
    pub priority: u16,
}

impl Rule {
    /// Whether it is for such packets.
    #[inline]
    pub fn matches(&self, t: &Tuple) -> bool {
        let (v, m) = (&self.value, &self.mask);
        (t.src ^ v.src) & m.src
            | (t.dst ^ v.dst) & m.dst
            | u32::from((t.src_port ^ v.src_port) & m.src_port)
            | u32::from((t.dst_port ^ v.dst_port) & m.dst_port)
            | u32::from((t.proto ^ v.proto) & m.proto)
            == 0
    }

    /// What it does: the OpenFlow port that it sends to, 0 to drop. A function of the priority, so that which of several equal
    /// rules wins makes no difference.
    pub fn verdict(&self) -> u8 {
        verdict(self.priority)
    }

    /// Its match.
    pub fn pipeline_match(&self) -> PipelineMatch {
        let (v, m) = (&self.value, &self.mask);
        let mut out = PipelineMatch::ANY;
        out.set(FieldId::EthType, 0x800);
        for (f, value, mask) in [
            (FieldId::NwSrc, v.src, m.src),
            (FieldId::NwDst, v.dst, m.dst),
            (FieldId::NwProto, v.proto.into(), m.proto.into()),
            (FieldId::TpSrc, v.src_port.into(), m.src_port.into()),
            (FieldId::TpDst, v.dst_port.into(), m.dst_port.into()),
        ] {
            if mask != 0 {
                out.set_masked(f, value.into(), mask.into());
            }
        }
        out
    }

    /// A packet that it matches: what it leaves open is random.
    pub fn packet(&self, r: &mut Random) -> Tuple {
        let (v, m) = (&self.value, &self.mask);
        let proto = if m.proto != 0 { v.proto } else { *r.choice(&[TCP, UDP]) };
        Tuple {
            src: v.src | r.bits(32) as u32 & !m.src,
            dst: v.dst | r.bits(32) as u32 & !m.dst,
            src_port: v.src_port | r.bits(16) as u16 & !m.src_port,
            dst_port: v.dst_port | r.bits(16) as u16 & !m.dst_port,
            proto,
        }
    }
}

/// What a rule of this priority does.
pub fn verdict(priority: u16) -> u8 {
    (u32::from(priority).wrapping_mul(0x9e37_79b1) >> 30) as u8
}

/// In ovs-ofctl's words.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (v, m) = (&self.value, &self.mask);
        let proto = match v.proto {
            TCP => "tcp",
            UDP => "udp",
            _ => "ip",
        };
        write!(f, "priority={},{proto}", self.priority)?;
        for (name, value, mask) in [("nw_src", v.src, m.src), ("nw_dst", v.dst, m.dst)] {
            if mask != 0 {
                write!(f, ",{name}={}/{}", Ipv4Addr::from(value), mask.leading_ones())?;
            }
        }
        for (name, value, mask) in [("tp_src", v.src_port, m.src_port), ("tp_dst", v.dst_port, m.dst_port)] {
            match mask {
                0 => {}
                u16::MAX => write!(f, ",{name}={value}")?,
                _ => write!(f, ",{name}={value:#x}/{mask:#x}")?,
            }
        }
        match self.verdict() {
            0 => write!(f, ",actions=drop"),
            port => write!(f, ",actions=output:{port}"),
        }
    }
}

fn pick(r: &mut Random, shares: &[(u32, u32)]) -> u32 {
    let all = shares.iter().map(|s| s.1).sum::<u32>().max(1);
    let mut left = r.below(all);
    for (value, share) in shares {
        if left < *share {
            return *value;
        }
        left -= share;
    }
    0
}

fn prefix(len: u32) -> u32 {
    u32::MAX.checked_shl(32 - len).unwrap_or(0)
}

/// A prefix out of one of the networks, and its mask. Long ones share the network's first 16 bits.
fn address(r: &mut Random, networks: &[u32], lengths: &[(u32, u32)]) -> (u32, u32) {
    let mask = prefix(pick(r, lengths));
    let network = *r.choice(networks);
    let own = if mask.leading_ones() > 16 { network & prefix(16) | r.bits(16) as u32 } else { network };
    (own & mask, mask)
}

/// A masked port and its mask.
fn port(r: &mut Random, (exact, range): (u32, u32)) -> (u16, u16) {
    match r.below(100) {
        n if n < exact => {
            let common = r.below(100) < 70;
            let v = if common { *r.choice(&super::PORTS) } else { r.bits(16) as u16 };
            (v, u16::MAX)
        }
        n if n < exact + range => {
            let mask = u16::MAX << r.below(11);
            (r.bits(16) as u16 & mask, mask)
        }
        _ => (0, 0),
    }
}

/// `n` rules, the same for the same seed; no two have the same match. The first has the highest priority.
pub fn generate(kind: Kind, n: usize, seed: u64) -> Vec<Rule> {
    let p = kind.profile();
    let mut r = Random::new(seed);
    let networks: Vec<u32> = (0..n / 40 + 16).map(|_| r.bits(32) as u32).collect();
    let (mut rules, mut seen) = (Vec::with_capacity(n), HashSet::with_capacity(n));
    while rules.len() < n {
        let (src, src_mask) = address(&mut r, &networks, p.src);
        let (dst, dst_mask) = address(&mut r, &networks, p.dst);
        let proto = match r.below(100) {
            x if x < p.tcp => TCP,
            x if x < p.tcp + p.udp => UDP,
            _ => 0,
        };
        let (sp, dp) =
            if proto == 0 { ((0, 0), (0, 0)) } else { (port(&mut r, p.src_port), port(&mut r, p.dst_port)) };
        let value = Tuple { src, dst, src_port: sp.0, dst_port: dp.0, proto };
        let proto_mask = if proto == 0 { 0 } else { u8::MAX };
        let mask = Tuple { src: src_mask, dst: dst_mask, src_port: sp.1, dst_port: dp.1, proto: proto_mask };
        if seen.insert((value, mask)) {
            rules.push(Rule { value, mask, priority: 0 });
        }
    }
    if kind != Kind::Acl {
        // Some leave nearly everything open: more or less specific ones come before them, as people write lists.
        let bits = |m: &Tuple| {
            m.src.count_ones() + m.dst.count_ones() + m.src_port.count_ones() + m.dst_port.count_ones()
        };
        rules.sort_by_cached_key(|x| std::cmp::Reverse(bits(&x.mask) + r.below(24)));
    }
    for (i, rule) in rules.iter_mut().enumerate() {
        rule.priority = 65_000 - (i as u64 * 64_000 / n.max(1) as u64) as u16;
    }
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_the_same_for_the_same_seed_and_differ_by_kind() {
        for kind in Kind::ALL {
            let rules = generate(kind, 2000, 7);
            assert_eq!(rules, generate(kind, 2000, 7));
            assert_ne!(rules, generate(kind, 2000, 8));
            let masks: HashSet<_> = rules.iter().map(|r| r.mask).collect();
            let open = rules.iter().filter(|r| r.mask.src == 0).count();
            println!("{}: {} masks, {open} rules of any source", kind.name(), masks.len());
            assert!(masks.len() > 50);
            assert_eq!(open > 600, kind == Kind::Fw, "{open}");
        }
    }

    #[test]
    fn a_rules_text_and_match_are_of_the_same_packets() {
        let mut r = Random::new(3);
        for rule in generate(Kind::Fw, 300, 5) {
            let t = rule.packet(&mut r);
            assert!(rule.matches(&t), "{rule}");
            assert!(rule.pipeline_match().matches(&t.key()), "{rule}");
            let mods = openflow::text::parse_file(&format!("{rule}\n"), &|_| None).unwrap();
            assert_eq!(mods[0].matches, rule.pipeline_match(), "{rule}");
            let sends = mods[0].instructions.actions().next().is_some();
            assert_eq!(sends, rule.verdict() != 0, "{rule}");
        }
    }
}
