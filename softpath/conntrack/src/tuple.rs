//! The two ends of a connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flow::CtEnds;
use flow::headers::ip_proto;

/// The ends of a connection, in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Tuple {
    /// Source address; IPv4 in the low 32 bits.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port, or the identifier of an ICMP request.
    pub sport: u16,
    /// Destination port, or the identifier of an ICMP request.
    pub dport: u16,
    /// Zone.
    pub zone: u16,
    /// IP protocol.
    pub proto: u8,
    /// Type of ICMP message; 0 for other protocols.
    pub icmp_type: u8,
    /// Whether the addresses are those of IPv6.
    pub v6: bool,
}

/// The type of ICMP or ICMPv6 message that answers this one, or that this one answers; itself if there is none.
pub fn reverse_icmp(v6: bool, kind: u8) -> u8 {
    match (v6, kind) {
        (false, 8) => 0,
        (false, 0) => 8,
        // Timestamp and information request (RFC 792).
        (false, 13) => 14,
        (false, 14) => 13,
        (false, 15) => 16,
        (false, 16) => 15,
        (true, 128) => 129,
        (true, 129) => 128,
        (_, k) => k,
    }
}

impl Tuple {
    /// The other direction.
    pub fn reversed(&self) -> Tuple {
        let icmp_type = if self.is_icmp() { reverse_icmp(self.v6, self.icmp_type) } else { 0 };
        Tuple { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, icmp_type, ..*self }
    }

    /// Whether it is of ICMP or ICMPv6.
    pub fn is_icmp(&self) -> bool {
        matches!((self.proto, self.v6), (ip_proto::ICMP, false) | (ip_proto::ICMPV6, true))
    }

    /// Whether its ports can be translated.
    pub(crate) fn has_ports(&self) -> bool {
        matches!(self.proto, ip_proto::TCP | ip_proto::UDP)
    }

    /// Whether it is such as `ends` says.
    pub fn is_like(&self, ends: &CtEnds) -> bool {
        let addresses = (self.address(self.src), self.address(self.dst));
        ends.has(addresses, (self.sport, self.dport), self.icmp_type)
    }

    /// An address of it, for people.
    pub fn address(&self, a: u128) -> IpAddr {
        if self.v6 { Ipv6Addr::from(a).into() } else { Ipv4Addr::from(a as u32).into() }
    }

    /// An address as tuples have it; [`Tuple::address`] is the way back.
    pub fn bits(a: IpAddr) -> u128 {
        match a {
            IpAddr::V4(a) => u32::from(a).into(),
            IpAddr::V6(a) => a.into(),
        }
    }

    /// What `ct_tp_src` and `ct_tp_dst` are.
    pub fn ports(&self) -> (u16, u16) {
        if self.is_icmp() { (self.icmp_type.into(), 0) } else { (self.sport, self.dport) }
    }
}

/// Hashes tuples, with a secret, so that nobody can choose connections that collide more often than by chance.
#[derive(Clone)]
pub(crate) struct Hasher {
    secret: [u64; 6],
}

fn fold(a: u64, b: u64) -> u64 {
    let p = u128::from(a) * u128::from(b);
    (p as u64) ^ (p >> 64) as u64
}

impl Hasher {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        use std::hash::BuildHasher;
        let derive = |i: u64| match seed {
            Some(s) => foldhash::quality::FixedState::with_seed(s).hash_one(i),
            None => foldhash::quality::RandomState::default().hash_one(i),
        };
        Hasher { secret: std::array::from_fn(|i| derive(i as u64) | 1) }
    }

    #[inline]
    fn end(&self, address: u128, port: u16) -> u64 {
        let s = &self.secret;
        fold(
            (address as u64).wrapping_add(s[0]),
            ((address >> 64) as u64 ^ u64::from(port) << 17).wrapping_add(s[1]),
        )
    }

    /// The same for both directions.
    #[inline]
    pub(crate) fn hash(&self, t: &Tuple) -> u64 {
        let s = &self.secret;
        let ends = self.end(t.src, t.sport).wrapping_add(self.end(t.dst, t.dport));
        let rest = u64::from(t.zone) << 16 | u64::from(t.proto) << 8 | u64::from(t.v6);
        fold(fold(ends ^ s[2], s[3]) ^ rest.wrapping_mul(s[4]), s[5])
    }

    /// That of a packet of IPv4 with ports: source above destination in both.
    #[inline(always)]
    pub(crate) fn hash_v4(&self, addresses: u64, ports: u32, zone: u16, proto: u8) -> u64 {
        let s = &self.secret;
        let end = |address: u64, port: u64| fold(address.wrapping_add(s[0]), (port << 17).wrapping_add(s[1]));
        let ends = end(addresses >> 32, u64::from(ports >> 16))
            .wrapping_add(end(addresses & 0xffff_ffff, u64::from(ports & 0xffff)));
        let rest = u64::from(zone) << 16 | u64::from(proto) << 8;
        fold(fold(ends ^ s[2], s[3]) ^ rest.wrapping_mul(s[4]), s[5])
    }

    /// A hash of the parts of a connection that a translation is chosen by.
    pub(crate) fn choice(&self, parts: [u128; 4]) -> u64 {
        parts.iter().fold(self.secret[5], |h, p| {
            fold(
                h ^ (*p as u64).wrapping_add(self.secret[0]),
                ((*p >> 64) as u64).wrapping_add(self.secret[1]),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_hash_alike_and_others_spread() {
        let h = Hasher::new(Some(3));
        let mut seen = std::collections::HashSet::new();
        for i in 0..20_000u32 {
            let t = Tuple {
                src: (0x0a00_0000 + i / 100).into(),
                dst: 0x0b00_0001,
                sport: 1000 + (i % 100) as u16,
                dport: 80,
                zone: 5,
                proto: 6,
                icmp_type: 0,
                v6: false,
            };
            assert_eq!(h.hash(&t), h.hash(&t.reversed()));
            let (addresses, ports) = ((t.src as u64) << 32 | t.dst as u64, u32::from(t.sport) << 16 | 80);
            assert_eq!(h.hash_v4(addresses, ports, 5, 6), h.hash(&t));
            assert_eq!(t.reversed().reversed(), t);
            seen.insert(h.hash(&t) >> 40);
        }
        assert!(seen.len() > 19_900, "{}", seen.len());
    }
}
