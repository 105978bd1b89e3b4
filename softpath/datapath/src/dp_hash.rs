//! The hash that [`Action::Hash`](flow::Action::Hash) gives a packet.
//!
//! Not seeded: a connection is to keep its bucket whichever core or process forwards it. Who chooses addresses can choose
//! buckets by any such hash.

use std::hash::BuildHasher;

use flow::headers::{eth_type, ip_proto};
use flow::{FieldId, HashAlg, PacketKey};
use foldhash::quality::FixedState;

/// The hash of the packet with key `key`; never zero, which says that there is none.
pub(crate) fn dp_hash(key: &PacketKey, alg: HashAlg, basis: u32) -> u32 {
    let (src, dst) = match key.get64(FieldId::EthType) as u16 {
        eth_type::IPV4 => (key.get(FieldId::NwSrc), key.get(FieldId::NwDst)),
        eth_type::IPV6 => (key.get(FieldId::Ipv6Src), key.get(FieldId::Ipv6Dst)),
        _ => (0, 0),
    };
    let proto = key.get64(FieldId::NwProto) as u8;
    let ports = match proto {
        ip_proto::TCP | ip_proto::UDP | ip_proto::SCTP => {
            (key.get64(FieldId::TpSrc) as u16, key.get64(FieldId::TpDst) as u16)
        }
        _ => (0, 0),
    };
    let hasher = FixedState::with_seed(basis.into());
    let hash = match alg {
        HashAlg::L4 => hasher.hash_one((src, dst, proto, ports)),
        HashAlg::SymmetricL4 => hasher.hash_one((src ^ dst, proto, ports.0 ^ ports.1)),
    };
    ((hash >> 32) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(src: u32, dst: u32, ports: (u16, u16)) -> PacketKey {
        let mut k = PacketKey::ZERO;
        k.set(FieldId::EthType, eth_type::IPV4.into());
        k.set(FieldId::NwProto, ip_proto::UDP.into());
        k.set(FieldId::NwSrc, src.into());
        k.set(FieldId::NwDst, dst.into());
        k.set(FieldId::TpSrc, ports.0.into());
        k.set(FieldId::TpDst, ports.1.into());
        k
    }

    #[test]
    fn the_symmetric_hash_is_the_same_for_both_directions_and_the_other_is_not() {
        let (a, b) = (key(1, 2, (10, 20)), key(2, 1, (20, 10)));
        assert_eq!(dp_hash(&a, HashAlg::SymmetricL4, 0), dp_hash(&b, HashAlg::SymmetricL4, 0));
        assert_ne!(dp_hash(&a, HashAlg::L4, 0), dp_hash(&b, HashAlg::L4, 0));
        assert_ne!(dp_hash(&a, HashAlg::L4, 0), dp_hash(&a, HashAlg::L4, 1));
    }

    #[test]
    fn the_low_bits_spread_connections_evenly() {
        let mut buckets = [0u32; 16];
        for i in 0..16_000u32 {
            let k = key(i / 250, 7, (1000 + (i % 250) as u16, 80));
            buckets[dp_hash(&k, HashAlg::SymmetricL4, 0) as usize & 15] += 1;
        }
        assert!(buckets.iter().all(|n| (850..1150).contains(n)), "{buckets:?}");
    }
}
