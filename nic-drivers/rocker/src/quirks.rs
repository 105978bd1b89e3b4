//! What the device that QEMU emulates does otherwise than the programming guide says: one table, with the version it was
//! seen in and what the driver makes of it.

/// A deviation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quirk {
    /// Where it was seen.
    pub seen_in: &'static str,
    /// What the device does.
    pub device: &'static str,
    /// What the driver does about it.
    pub driver: &'static str,
}

/// All of them.
pub const QUIRKS: &[Quirk] = &[
    Quirk {
        seen_in: "QEMU 7.2",
        device: "FLOW_GET_STATS answers 0 packets whatever was forwarded",
        driver: "declares no counters: an entry's age is unknown, and software deletes idle records as if unused",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "GET_PORT_STATS is refused with EINVAL",
        driver: "counts what passes its rings; frames that the device forwarded are in no port's counters",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "the ACL table compares the IPv4 TOS byte with DSCP | ECN << 6, and 0 for IPv6",
        driver: "gives the whole TOS byte as DSCP, and matches on it in IPv4 only",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "a VLAN id in a match is compared with the tag's 16 bits, priority included",
        driver: "gives and masks the whole tag",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "an ACL entry whose VLAN id is 0 is refused, even where the mask leaves nothing of it",
        driver: "sets a bit of it that the mask leaves out",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "a rewrite group destroys the type of frames that came tagged when it writes their VLAN",
        driver: "pushes tags onto untagged frames only, and has no set-field for VLAN",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "bridging entries match the tag's 16 bits: frames with a priority miss them",
        driver: "lets tagged frames without priority through to bridging only; the others are software's",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "L3 unicast groups neither decrement nor check the TTL",
        driver: "has no dec_ttl: routes that have it are refused by name, and only addresses are rewritten",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "IPv6 addresses are not parsed: every routed packet has the destination ::",
        driver: "routes IPv4 only: the tables' IPv6 side is not declared",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "L3 multicast groups are refused with ENOTSUP, so that the multicast routing table leads nowhere",
        driver: "does not declare multicast routing: such records are refused, or are entries of the ACL policy table with L2 groups",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "entries of the ingress port table that drop are refused with EINVAL: it leads to the VLAN table only",
        driver: "does not declare the table: a drop of all that a port receives is software's, or entries by type and VLAN",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "no entry can clear what an earlier table has said",
        driver: "drops by a flood group without members",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "tables have no end, and the time to find an entry grows with their number",
        driver: "puts in as many flows as it is told to, at most",
    },
    Quirk {
        seen_in: "QEMU 7.2",
        device: "it has no function-level reset, and tables outlive the program that filled them",
        driver: "resets it by its CONTROL register, at start and at end",
    },
];

/// Those that change what the driver does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quirks {
    /// FLOW_GET_STATS counts nothing.
    pub no_flow_counters: bool,
    /// GET_PORT_STATS is refused.
    pub no_port_counters: bool,
    /// L3 unicast groups leave the TTL as it is.
    pub no_ttl: bool,
    /// IPv6 addresses are not parsed.
    pub no_ipv6: bool,
    /// L3 multicast groups are refused.
    pub no_multicast: bool,
    /// The ingress port table cannot drop.
    pub no_ingress_drop: bool,
}

impl Quirks {
    /// The device as QEMU emulates it.
    pub const QEMU: Quirks = Quirks::all(true);
    /// The device as its guide has it.
    pub const NONE: Quirks = Quirks::all(false);

    const fn all(on: bool) -> Quirks {
        Quirks {
            no_flow_counters: on,
            no_port_counters: on,
            no_ttl: on,
            no_ipv6: on,
            no_multicast: on,
            no_ingress_drop: on,
        }
    }
}
