//! Ethernet, VLAN tags, MPLS label stack entries, ARP.

use super::{MacAddr, Wire, view};
use std::net::Ipv4Addr;

/// Ethernet types.
#[allow(missing_docs)]
pub mod eth_type {
    pub const IPV4: u16 = 0x0800;
    /// An Ethernet frame (transparent Ethernet bridging), within GRE, Geneve and below labels.
    pub const TEB: u16 = 0x6558;
    pub const ARP: u16 = 0x0806;
    pub const RARP: u16 = 0x8035;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const SLOW: u16 = 0x8809;
    pub const MPLS: u16 = 0x8847;
    pub const MPLS_MULTICAST: u16 = 0x8848;
    pub const SERVICE_VLAN: u16 = 0x88a8;
    pub const LLDP: u16 = 0x88cc;
    pub const NSH: u16 = 0x894f;
    /// Smallest number that is a type and not a length (IEEE 802.3 3.2.6).
    pub const MIN: u16 = 0x0600;
    /// What a key holds for a frame without a type (802.3 with LLC): OpenFlow 1.0 OFP_DL_TYPE_NOT_ETH_TYPE.
    pub const NONE: u16 = 0x05ff;

    /// Whether `t` introduces a VLAN tag.
    #[inline]
    pub const fn is_vlan(t: u16) -> bool {
        t == VLAN || t == SERVICE_VLAN
    }

    /// Whether `t` introduces MPLS labels.
    #[inline]
    pub const fn is_mpls(t: u16) -> bool {
        t == MPLS || t == MPLS_MULTICAST
    }
}

view! {
    /// Ethernet header, IEEE 802.3 3.2.
    Ethernet 14 {
        /// Destination.
        dst, set_dst: MacAddr = 0;
        /// Source.
        src, set_src: MacAddr = 6;
        /// Ethernet type of what follows (maybe of a VLAN tag), or a length below 0x600.
        eth_type, set_eth_type: u16 = 12;
    }
}

view! {
    /// VLAN tag (IEEE 802.1Q 9.6) *without* the type that introduces it: the four bytes after that.
    Vlan 4 {
        /// Priority, drop eligible indicator, VLAN id.
        tci, set_tci: u16 = 0;
        /// Ethernet type of what follows.
        eth_type, set_eth_type: u16 = 2;
    }
}

impl<T: AsRef<[u8]>> Vlan<T> {
    /// VLAN id, 12 bits.
    #[inline]
    pub fn vid(&self) -> u16 {
        self.tci() & 0xfff
    }
    /// Priority, 3 bits.
    #[inline]
    pub fn pcp(&self) -> u8 {
        (self.tci() >> 13) as u8
    }
}

view! {
    /// One MPLS label stack entry, RFC 3032 2.1.
    Mpls 4 {
        /// The entry: label (20 bits), traffic class (3), bottom of stack (1), TTL (8).
        lse, set_lse: u32 = 0;
    }
}

impl<T: AsRef<[u8]>> Mpls<T> {
    /// Label, 20 bits.
    #[inline]
    pub fn label(&self) -> u32 {
        self.lse() >> 12
    }
    /// Traffic class, 3 bits.
    #[inline]
    pub fn tc(&self) -> u8 {
        (self.lse() >> 9 & 7) as u8
    }
    /// Whether it is the last one.
    #[inline]
    pub fn bottom(&self) -> bool {
        self.lse() & 0x100 != 0
    }
    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.lse() as u8
    }
}

view! {
    /// ARP for IPv4 over Ethernet, RFC 826.
    Arp 28 {
        /// Hardware type; 1 for Ethernet.
        hardware, set_hardware: u16 = 0;
        /// Protocol type; 0x0800 for IPv4.
        protocol, set_protocol: u16 = 2;
        /// Hardware address length; 6.
        hardware_len, set_hardware_len: u8 = 4;
        /// Protocol address length; 4.
        protocol_len, set_protocol_len: u8 = 5;
        /// Operation: 1 request, 2 reply.
        op, set_op: u16 = 6;
        /// Sender's Ethernet address.
        sha, set_sha: MacAddr = 8;
        /// Sender's IPv4 address.
        spa, set_spa: Ipv4Addr = 14;
        /// Target's Ethernet address.
        tha, set_tha: MacAddr = 18;
        /// Target's IPv4 address.
        tpa, set_tpa: Ipv4Addr = 24;
    }
}

impl<T: AsRef<[u8]>> Arp<T> {
    /// Whether it speaks of IPv4 over Ethernet, without which the addresses mean nothing.
    #[inline]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        u64::read(self.0.as_ref(), 0) >> 16 == 0x0001_0800_0604
    }
}
