//! Commands, events and packet descriptors as TLVs (guide, sections 6 to 10), tables and groups of OF-DPA.
#![allow(missing_docs)] // names are the guide's

/// Errno in completions.
pub mod errno {
    pub const ENOENT: u16 = 2;
    pub const ENXIO: u16 = 6;
    pub const ENOMEM: u16 = 12;
    pub const EEXIST: u16 = 17;
    pub const EINVAL: u16 = 22;
    pub const ENOSPC: u16 = 28;
    pub const EMSGSIZE: u16 = 90;
    pub const ENOTSUP: u16 = 95;
    pub const ENOBUFS: u16 = 105;
}

/// Outermost TLVs of a command, and of an event.
pub mod top {
    pub const TYPE: u32 = 1;
    pub const INFO: u32 = 2;
}

/// Commands.
pub mod command {
    pub const GET_PORT_SETTINGS: u16 = 1;
    pub const SET_PORT_SETTINGS: u16 = 2;
    pub const FLOW_ADD: u16 = 3;
    pub const FLOW_MOD: u16 = 4;
    pub const FLOW_DEL: u16 = 5;
    pub const FLOW_GET_STATS: u16 = 6;
    pub const GROUP_ADD: u16 = 7;
    pub const GROUP_MOD: u16 = 8;
    pub const GROUP_DEL: u16 = 9;
    pub const GET_PORT_STATS: u16 = 12;
}

/// Port settings.
pub mod port {
    pub const PPORT: u32 = 1;
    pub const SPEED: u32 = 2;
    pub const DUPLEX: u32 = 3;
    pub const AUTONEG: u32 = 4;
    pub const MACADDR: u32 = 5;
    pub const MODE: u32 = 6;
    pub const LEARNING: u32 = 7;
    pub const PHYS_NAME: u32 = 8;
    pub const MODE_OF_DPA: u8 = 0;
}

/// Port statistics.
pub mod port_stats {
    pub const PPORT: u32 = 1;
    pub const RX_PACKETS: u32 = 2;
    pub const RX_BYTES: u32 = 3;
    pub const RX_DROPPED: u32 = 4;
    pub const RX_ERRORS: u32 = 5;
    pub const TX_PACKETS: u32 = 6;
    pub const TX_BYTES: u32 = 7;
    pub const TX_DROPPED: u32 = 8;
    pub const TX_ERRORS: u32 = 9;
}

/// Events.
pub mod event {
    pub const LINK_CHANGED: u16 = 1;
    pub const MAC_VLAN_SEEN: u16 = 2;
    pub const PPORT: u32 = 1;
    pub const LINKUP: u32 = 2;
    pub const MAC: u32 = 2;
    pub const VLAN_ID: u32 = 3;
}

/// Receive descriptors.
pub mod rx {
    pub const FLAGS: u32 = 1;
    pub const CSUM: u32 = 2;
    pub const FRAG_ADDR: u32 = 3;
    pub const FRAG_MAX_LEN: u32 = 4;
    pub const FRAG_LEN: u32 = 5;
}

/// Transmit descriptors.
pub mod tx {
    pub const OFFLOAD: u32 = 1;
    pub const FRAGS: u32 = 5;
    pub const FRAG: u32 = 1;
    pub const FRAG_ADDR: u32 = 1;
    pub const FRAG_LEN: u32 = 2;
}

/// OF-DPA flows and groups. (N): network order.
pub mod of_dpa {
    pub const TABLE_ID: u32 = 1;
    pub const PRIORITY: u32 = 2;
    pub const HARDTIME: u32 = 3;
    pub const COOKIE: u32 = 5;
    pub const IN_PPORT: u32 = 6;
    pub const IN_PPORT_MASK: u32 = 7;
    pub const OUT_PPORT: u32 = 8;
    pub const GOTO_TABLE_ID: u32 = 9;
    pub const GROUP_ID: u32 = 10;
    pub const GROUP_ID_LOWER: u32 = 11;
    pub const GROUP_COUNT: u32 = 12;
    pub const GROUP_IDS: u32 = 13;
    /// (N)
    pub const VLAN_ID: u32 = 14;
    /// (N)
    pub const VLAN_ID_MASK: u32 = 15;
    /// (N)
    pub const NEW_VLAN_ID: u32 = 19;
    /// (N)
    pub const ETHERTYPE: u32 = 23;
    pub const DST_MAC: u32 = 24;
    pub const DST_MAC_MASK: u32 = 25;
    pub const SRC_MAC: u32 = 26;
    pub const SRC_MAC_MASK: u32 = 27;
    pub const IP_PROTO: u32 = 28;
    pub const IP_PROTO_MASK: u32 = 29;
    pub const IP_DSCP: u32 = 30;
    pub const IP_DSCP_MASK: u32 = 31;
    pub const IP_ECN: u32 = 34;
    pub const IP_ECN_MASK: u32 = 35;
    /// (N)
    pub const DST_IP: u32 = 36;
    /// (N)
    pub const DST_IP_MASK: u32 = 37;
    /// (N)
    pub const SRC_IP: u32 = 38;
    /// (N)
    pub const SRC_IP_MASK: u32 = 39;
    /// (N)
    pub const DST_IPV6: u32 = 40;
    /// (N)
    pub const DST_IPV6_MASK: u32 = 41;
    pub const POP_VLAN: u32 = 59;
    pub const TTL_CHECK: u32 = 60;
    /// In the answer to FLOW_GET_STATS.
    pub const STAT_RX_PKTS: u32 = 2;
}

/// Tables, by number.
pub mod table {
    pub const INGRESS_PORT: u16 = 0;
    pub const VLAN: u16 = 10;
    pub const TERMINATION_MAC: u16 = 20;
    pub const UNICAST_ROUTING: u16 = 30;
    pub const MULTICAST_ROUTING: u16 = 40;
    pub const BRIDGING: u16 = 50;
    pub const ACL_POLICY: u16 = 60;
}

/// Groups: type in the highest four bits of the number, then VLAN and port, or VLAN and index, or an index.
pub mod group {
    pub const TYPE_SHIFT: u32 = 28;
    pub const L2_INTERFACE: u32 = 0;
    pub const L2_REWRITE: u32 = 1;
    pub const L3_UNICAST: u32 = 2;
    pub const L2_MULTICAST: u32 = 3;
    pub const L2_FLOOD: u32 = 4;
    pub const L3_INTERFACE: u32 = 5;
    pub const L3_MULTICAST: u32 = 6;
    /// No group: dropped.
    pub const NONE: u32 = 0;

    /// Sends by one port (0: to the CPU).
    pub const fn l2_interface(vlan: u16, pport: u16) -> u32 {
        L2_INTERFACE << TYPE_SHIFT | (vlan as u32 & 0xfff) << 16 | pport as u32
    }

    /// Writes header fields, then an L2 interface group.
    pub const fn l2_rewrite(index: u32) -> u32 {
        L2_REWRITE << TYPE_SHIFT | index & 0x0fff_ffff
    }

    /// Writes addresses and decrements the TTL, then an L2 interface group.
    pub const fn l3_unicast(index: u32) -> u32 {
        L3_UNICAST << TYPE_SHIFT | index & 0x0fff_ffff
    }

    /// Writes the source address and decrements the TTL, then an L2 interface group.
    pub const fn l3_interface(index: u32) -> u32 {
        L3_INTERFACE << TYPE_SHIFT | index & 0x0fff_ffff
    }

    /// Copies to several groups: of kind [`L2_FLOOD`], [`L2_MULTICAST`] or [`L3_MULTICAST`].
    pub const fn copies(kind: u32, vlan: u16, index: u16) -> u32 {
        kind << TYPE_SHIFT | (vlan as u32 & 0xfff) << 16 | index as u32
    }

    /// The type of a group.
    pub const fn kind(id: u32) -> u32 {
        id >> TYPE_SHIFT
    }

    /// The VLAN in a group's number.
    pub const fn vlan(id: u32) -> u16 {
        (id >> 16 & 0xfff) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::group;

    #[test]
    fn group_numbers_say_type_vlan_and_port() {
        assert_eq!(group::l2_interface(0xf00, 2), 0x0f00_0002);
        assert_eq!(group::l2_rewrite(5), 0x1000_0005);
        assert_eq!(group::l3_unicast(7), 0x2000_0007);
        assert_eq!(group::copies(group::L2_FLOOD, 0x64, 3), 0x4064_0003);
        assert_eq!(group::copies(group::L3_MULTICAST, 0x64, 3), 0x6064_0003);
        assert_eq!(group::l3_interface(9), 0x5000_0009);
        assert_eq!((group::kind(0x4064_0003), group::vlan(0x4064_0003)), (group::L2_FLOOD, 0x64));
    }
}
