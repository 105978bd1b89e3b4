//! The keys of flower: one row each, as `linux/pkt_cls.h` numbers them up to Linux 6.12.
//!
//! A key is a value and, where flower has one, a mask, right-aligned in a number. Tunnel options, the MPLS label stack and
//! CFM are nests and stand apart ([`crate::filter::Filter`]).

/// Order of a key's bytes in its attribute.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Most significant first.
    Network,
    /// As the host has it.
    Host,
}

/// One row of the table.
#[derive(Debug)]
pub struct KeyRow {
    /// The key.
    pub id: FlowerKey,
    /// Its name, as `tc` has it where it has one.
    pub name: &'static str,
    /// Attribute with the value.
    pub attr: u16,
    /// Attribute with the mask; `None` when the key is matched whole.
    pub mask_attr: Option<u16>,
    /// Bytes.
    pub bytes: u8,
    /// Their order.
    pub order: Order,
    /// Bits that the key has.
    pub max: u128,
}

macro_rules! keys {
    ($( $id:ident $name:literal $attr:literal $mask:expr, $bytes:literal $order:ident $max:expr; )*) => {
        /// Names a key of flower.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum FlowerKey { $( $id, )* }

        /// Every key; `KEYS[id as usize].id == id`.
        pub static KEYS: &[KeyRow] = &[
            $( KeyRow { id: FlowerKey::$id, name: $name, attr: $attr, mask_attr: $mask, bytes: $bytes,
                order: Order::$order, max: $max }, )*
        ];
    };
}

const fn m(attr: u16) -> Option<u16> {
    Some(attr)
}
const WHOLE: Option<u16> = None;

keys! {
//  id          name            attr mask    bytes order   bits
    EthDst      "dst_mac"         4 m(5),    6 Network 0xffff_ffff_ffff;
    EthSrc      "src_mac"         6 m(7),    6 Network 0xffff_ffff_ffff;
    EthType     "eth_type"        8 WHOLE,   2 Network 0xffff;
    IpProto     "ip_proto"        9 WHOLE,   1 Network 0xff;
    Ip4Src      "src_ip"         10 m(11),   4 Network 0xffff_ffff;
    Ip4Dst      "dst_ip"         12 m(13),   4 Network 0xffff_ffff;
    Ip6Src      "src_ip6"        14 m(15),  16 Network u128::MAX;
    Ip6Dst      "dst_ip6"        16 m(17),  16 Network u128::MAX;
    TcpSrc      "tcp_src_port"   18 m(35),   2 Network 0xffff;
    TcpDst      "tcp_dst_port"   19 m(36),   2 Network 0xffff;
    UdpSrc      "udp_src_port"   20 m(37),   2 Network 0xffff;
    UdpDst      "udp_dst_port"   21 m(38),   2 Network 0xffff;
    VlanId      "vlan_id"        23 WHOLE,   2 Host 0xfff;
    VlanPrio    "vlan_prio"      24 WHOLE,   1 Network 7;
    VlanEthType "vlan_ethtype"   25 WHOLE,   2 Network 0xffff;
    EncKeyId    "enc_key_id"     26 WHOLE,   4 Network 0xffff_ffff;
    EncIp4Src   "enc_src_ip"     27 m(28),   4 Network 0xffff_ffff;
    EncIp4Dst   "enc_dst_ip"     29 m(30),   4 Network 0xffff_ffff;
    EncIp6Src   "enc_src_ip6"    31 m(32),  16 Network u128::MAX;
    EncIp6Dst   "enc_dst_ip6"    33 m(34),  16 Network u128::MAX;
    SctpSrc     "sctp_src_port"  41 m(39),   2 Network 0xffff;
    SctpDst     "sctp_dst_port"  42 m(40),   2 Network 0xffff;
    EncUdpSrc   "enc_src_port"   43 m(44),   2 Network 0xffff;
    EncUdpDst   "enc_dst_port"   45 m(46),   2 Network 0xffff;
    Flags       "ip_flags"       47 m(48),   4 Network 0xffff_ffff;
    Icmp4Code   "icmp_code"      49 m(50),   1 Network 0xff;
    Icmp4Type   "icmp_type"      51 m(52),   1 Network 0xff;
    Icmp6Code   "icmp6_code"     53 m(54),   1 Network 0xff;
    Icmp6Type   "icmp6_type"     55 m(56),   1 Network 0xff;
    ArpSip      "arp_sip"        57 m(58),   4 Network 0xffff_ffff;
    ArpTip      "arp_tip"        59 m(60),   4 Network 0xffff_ffff;
    ArpOp       "arp_op"         61 m(62),   1 Network 0xff;
    ArpSha      "arp_sha"        63 m(64),   6 Network 0xffff_ffff_ffff;
    ArpTha      "arp_tha"        65 m(66),   6 Network 0xffff_ffff_ffff;
    MplsTtl     "mpls_ttl"       67 WHOLE,   1 Network 0xff;
    MplsBos     "mpls_bos"       68 WHOLE,   1 Network 1;
    MplsTc      "mpls_tc"        69 WHOLE,   1 Network 7;
    MplsLabel   "mpls_label"     70 WHOLE,   4 Host 0xf_ffff;
    TcpFlags    "tcp_flags"      71 m(72),   2 Network 0xfff;
    IpTos       "ip_tos"         73 m(74),   1 Network 0xff;
    IpTtl       "ip_ttl"         75 m(76),   1 Network 0xff;
    CvlanId     "cvlan_id"       77 WHOLE,   2 Host 0xfff;
    CvlanPrio   "cvlan_prio"     78 WHOLE,   1 Network 7;
    CvlanEthType "cvlan_ethtype" 79 WHOLE,   2 Network 0xffff;
    EncTos      "enc_tos"        80 m(81),   1 Network 0xff;
    EncTtl      "enc_ttl"        82 m(83),   1 Network 0xff;
    SrcPortMin  "src_port_min"   87 WHOLE,   2 Network 0xffff;
    SrcPortMax  "src_port_max"   88 WHOLE,   2 Network 0xffff;
    DstPortMin  "dst_port_min"   89 WHOLE,   2 Network 0xffff;
    DstPortMax  "dst_port_max"   90 WHOLE,   2 Network 0xffff;
    CtState     "ct_state"       91 m(92),   2 Host 0xffff;
    CtZone      "ct_zone"        93 m(94),   2 Host 0xffff;
    CtMark      "ct_mark"        95 m(96),   4 Host 0xffff_ffff;
    CtLabel     "ct_label"       97 m(98),  16 Network u128::MAX;
    Hash        "hash"          100 m(101),  4 Host 0xffff_ffff;
    NumOfVlans  "num_of_vlans"  102 WHOLE,   1 Network 0xff;
    PppoeSid    "pppoe_sid"     103 WHOLE,   2 Network 0xffff;
    PppProto    "ppp_proto"     104 WHOLE,   2 Network 0xffff;
    L2tpv3Sid   "l2tpv3_sid"    105 WHOLE,   4 Network 0xffff_ffff;
    L2Miss      "l2_miss"       106 WHOLE,   1 Network 1;
    Spi         "spi"           108 m(109),  4 Network 0xffff_ffff;
    EncFlags    "enc_flags"     110 m(111),  4 Network 0xffff_ffff;
}

/// Bit of [`FlowerKey::Flags`]: the packet is a fragment.
pub const FLAG_IS_FRAGMENT: u128 = 1;
/// Bit of [`FlowerKey::Flags`]: it is the first fragment.
pub const FLAG_FIRST_FRAGMENT: u128 = 2;

/// Index of a value attribute's row plus one, 0 for none; and the same for mask attributes.
const fn index(masks: bool) -> [u8; 128] {
    let mut out = [0u8; 128];
    let mut i = 0;
    while i < KEYS_LEN {
        let row = &KEYS[i];
        if masks {
            if let Some(a) = row.mask_attr {
                out[a as usize] = i as u8 + 1;
            }
        } else {
            out[row.attr as usize] = i as u8 + 1;
        }
        i += 1;
    }
    out
}
const KEYS_LEN: usize = KEYS.len();
static BY_VALUE: [u8; 128] = index(false);
static BY_MASK: [u8; 128] = index(true);

fn row_at(table: &[u8; 128], attr: u16) -> Option<&'static KeyRow> {
    let i = *table.get(usize::from(attr))?;
    KEYS.get(usize::from(i).checked_sub(1)?)
}

impl FlowerKey {
    /// The key's row.
    #[inline]
    pub fn row(self) -> &'static KeyRow {
        &KEYS[self as usize]
    }

    /// The key whose value attribute `attr` is.
    pub fn by_attr(attr: u16) -> Option<FlowerKey> {
        row_at(&BY_VALUE, attr).map(|r| r.id)
    }

    /// The key whose mask attribute `attr` is.
    pub fn by_mask_attr(attr: u16) -> Option<FlowerKey> {
        row_at(&BY_MASK, attr).map(|r| r.id)
    }
}

impl KeyRow {
    /// The low bytes of `v` as the attribute has them; the first [`KeyRow::bytes`] of the result.
    #[inline]
    pub fn put(&self, v: u128) -> [u8; 16] {
        let n = usize::from(self.bytes);
        let mut out = [0; 16];
        match self.order {
            Order::Network => out[..n].copy_from_slice(&v.to_be_bytes()[16 - n..]),
            Order::Host if cfg!(target_endian = "little") => out[..n].copy_from_slice(&v.to_le_bytes()[..n]),
            Order::Host => out[..n].copy_from_slice(&v.to_be_bytes()[16 - n..]),
        }
        out
    }

    /// The value in an attribute, which has [`KeyRow::bytes`] bytes.
    pub fn get(&self, b: &[u8]) -> u128 {
        let add = |v: u128, b: &u8| v << 8 | u128::from(*b);
        match self.order {
            Order::Host if cfg!(target_endian = "little") => b.iter().rev().fold(0, add),
            _ => b.iter().fold(0, add),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_in_order_and_no_attribute_is_used_twice() {
        let mut used = std::collections::BTreeSet::new();
        for (i, r) in KEYS.iter().enumerate() {
            assert_eq!(r.id as usize, i);
            assert!(used.insert(r.attr), "{}", r.name);
            assert!(r.mask_attr.is_none_or(|a| used.insert(a)), "{}", r.name);
            assert!(r.bytes <= 16 && (r.bytes == 16 || r.max >> (8 * u32::from(r.bytes)) == 0), "{}", r.name);
            assert_eq!(FlowerKey::by_attr(r.attr), Some(r.id));
            assert_eq!(r.mask_attr.and_then(FlowerKey::by_mask_attr), r.mask_attr.map(|_| r.id));
        }
        // What is not a key: class, device, actions, flags, nests, count.
        let others = [1, 2, 3, 22, 84, 85, 86, 99, 107];
        assert!((1..=111).all(|a| used.contains(&a) != others.contains(&a)));
    }

    #[test]
    fn values_come_back() {
        for r in KEYS {
            let v = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10 & r.max;
            assert_eq!(r.get(&r.put(v)[..usize::from(r.bytes)]), v, "{}", r.name);
        }
    }
}
