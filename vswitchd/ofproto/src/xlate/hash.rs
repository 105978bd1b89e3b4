//! Hashes over a packet's headers, which choose among buckets, links and bundle members. What is hashed is looked at.
//!
//! The numbers are this switch's own; they stay the same from run to run, so that a connection keeps its way.

use flow::FieldId;

use super::Xlate;

/// Sets of fields that Nicira's actions hash (`nx_hash_fields`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fields {
    EthSrc,
    /// Both addresses of each layer and the ports, in either order; ports of UDP only where said so.
    Symmetric {
        l2: bool,
        l4: bool,
        udp: bool,
    },
    NwSrc,
    NwDst,
}

impl Fields {
    /// By their number; `None` for those that do not exist.
    pub(super) fn from_number(n: u16) -> Option<Fields> {
        Some(match n {
            0 => Fields::EthSrc,
            1 => Fields::Symmetric { l2: true, l4: true, udp: true },
            2 => Fields::Symmetric { l2: false, l4: true, udp: false },
            3 => Fields::Symmetric { l2: false, l4: true, udp: true },
            4 => Fields::NwSrc,
            5 => Fields::NwDst,
            6 => Fields::Symmetric { l2: false, l4: false, udp: false },
            _ => return None,
        })
    }
}

/// Mixes `v` into `h`; every bit of both counts.
pub(super) fn mix(h: u64, v: u64) -> u64 {
    let x = (h ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ x >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ x >> 29
}

fn mix_wide(h: u64, v: u128) -> u64 {
    mix(mix(h, v as u64), (v >> 64) as u64)
}

/// The hash of a station's address and VLAN, by which a bond that balances by them chooses.
pub fn hash_of_station(mac: u64, vlan: u16, basis: u32) -> u32 {
    (mix(mix(mix(basis.into(), 3), mac), vlan.into()) >> 32) as u32
}

impl Xlate<'_> {
    fn hashed(&mut self, h: u64, f: FieldId) -> u64 {
        self.wc.set_exact(f);
        self.sharing.looked(f == FieldId::EthSrc);
        mix_wide(h, self.key.get(f))
    }

    fn hashed_pair(&mut self, h: u64, a: FieldId, b: FieldId) -> u64 {
        self.sharing.looked(true);
        self.wc.set_exact(a);
        self.wc.set_exact(b);
        mix_wide(h, self.key.get(a) ^ self.key.get(b))
    }

    /// The hash of a set of fields; those that the packet lacks are left out.
    pub(super) fn hash_of(&mut self, fields: Fields, basis: u64) -> u32 {
        let t = self.key.get64(FieldId::EthType);
        let (v4, v6) = (t == 0x0800, t == 0x86dd);
        let h = mix(basis, 1);
        let h = match fields {
            Fields::EthSrc => self.hashed(h, FieldId::EthSrc),
            Fields::NwSrc if v4 => self.hashed(h, FieldId::NwSrc),
            Fields::NwSrc if v6 => self.hashed(h, FieldId::Ipv6Src),
            Fields::NwDst if v4 => self.hashed(h, FieldId::NwDst),
            Fields::NwDst if v6 => self.hashed(h, FieldId::Ipv6Dst),
            Fields::NwSrc | Fields::NwDst => h,
            Fields::Symmetric { l2, l4, udp } => {
                let mut h = h;
                if l2 {
                    h = self.hashed_pair(h, FieldId::EthSrc, FieldId::EthDst);
                    self.wc.set_masked(FieldId::VlanTci, u128::MAX, 0x1fff);
                    h = mix(h, self.key.get64(FieldId::VlanTci) & 0xfff);
                    h = mix(h, t);
                }
                if v4 {
                    h = self.hashed_pair(h, FieldId::NwSrc, FieldId::NwDst);
                } else if v6 {
                    h = self.hashed_pair(h, FieldId::Ipv6Src, FieldId::Ipv6Dst);
                }
                if l4 && (v4 || v6) {
                    h = self.hashed(h, FieldId::NwProto);
                    let later = self.key.get(FieldId::NwFrag) & u128::from(flow::parse::FRAG_LATER) != 0;
                    let proto = self.key.get64(FieldId::NwProto);
                    if !later && (matches!(proto, 6 | 132) || udp && proto == 17) {
                        h = self.hashed_pair(h, FieldId::TpSrc, FieldId::TpDst);
                    }
                }
                h
            }
        };
        (h >> 32) as u32
    }

    /// The hash of chosen bits of chosen fields; those that the packet lacks are left out.
    pub(super) fn hash_of_bits(&mut self, fields: &[(FieldId, u128)], basis: u64) -> u32 {
        let mut h = mix(basis, 2);
        for (f, mask) in fields {
            if self.has(*f) {
                self.wc.set_masked(*f, u128::MAX, *mask);
                h = mix_wide(h, self.key.get(*f) & mask);
            }
        }
        (h >> 32) as u32
    }
}
