//! The numbers OpenFlow gives to things, with their reserved values (OpenFlow 1.3.5 7.2.1, A.2.1).

use std::fmt;

/// Transaction id: a reply carries that of its request.
pub type Xid = u32;

/// A packet kept by the switch. Absent (`OFP_NO_BUFFER`) is `None` where it may be.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BufferId(pub u32);

/// An OpenFlow port number, 32 bits as since OpenFlow 1.1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PortNo(pub u32);

impl PortNo {
    /// Highest number of a physical or logical port.
    pub const MAX: PortNo = PortNo(0xffff_ff00);
    /// Not a port: the action set's output is unset (`OFPP_UNSET`, OpenFlow 1.5).
    pub const UNSET: PortNo = PortNo(0xffff_fff7);
    /// The port the packet came in on.
    pub const IN_PORT: PortNo = PortNo(0xffff_fff8);
    /// The first flow table; only in packet-out.
    pub const TABLE: PortNo = PortNo(0xffff_fff9);
    /// Traditional switching.
    pub const NORMAL: PortNo = PortNo(0xffff_fffa);
    /// All ports of the VLAN but the input port and those with flooding off.
    pub const FLOOD: PortNo = PortNo(0xffff_fffb);
    /// All ports but the input port.
    pub const ALL: PortNo = PortNo(0xffff_fffc);
    /// The controllers.
    pub const CONTROLLER: PortNo = PortNo(0xffff_fffd);
    /// The bridge's own port.
    pub const LOCAL: PortNo = PortNo(0xffff_fffe);
    /// Wildcard in requests and commands.
    pub const ANY: PortNo = PortNo(0xffff_ffff);

    /// The reserved name as `ovs-ofctl` prints it, if the number is reserved.
    pub fn reserved_name(self) -> Option<&'static str> {
        Some(match self {
            PortNo::UNSET => "UNSET",
            PortNo::IN_PORT => "IN_PORT",
            PortNo::TABLE => "TABLE",
            PortNo::NORMAL => "NORMAL",
            PortNo::FLOOD => "FLOOD",
            PortNo::ALL => "ALL",
            PortNo::CONTROLLER => "CONTROLLER",
            PortNo::LOCAL => "LOCAL",
            PortNo::ANY => "ANY",
            _ => return None,
        })
    }

    /// The port with that reserved name, in any case.
    pub fn from_reserved_name(name: &str) -> Option<PortNo> {
        (0xffff_fff7..=0xffff_ffffu32)
            .map(PortNo)
            .find(|p| p.reserved_name().is_some_and(|n| n.eq_ignore_ascii_case(name)))
            .or_else(|| name.eq_ignore_ascii_case("NONE").then_some(PortNo::ANY))
    }

    /// Whether the number may name a physical or logical port: 1 to 65279 (0xfeff), or LOCAL. OpenFlow 1.3 would allow
    /// numbers up to [`PortNo::MAX`], but stock tools and OpenFlow 1.0 do not: one flow with such a number would keep
    /// `ovs-ofctl dump-flows` from printing any.
    pub fn is_port(self) -> bool {
        (1..0xff00).contains(&self.0) || self == PortNo::LOCAL
    }
}

impl fmt::Display for PortNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reserved_name() {
            Some(n) => f.write_str(n),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A flow table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TableId(pub u8);

impl TableId {
    /// Highest number of a table.
    pub const MAX: TableId = TableId(0xfe);
    /// All tables, in deletions and requests.
    pub const ALL: TableId = TableId(0xff);
}

/// A group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u32);

impl GroupId {
    /// Highest number of a group.
    pub const MAX: GroupId = GroupId(0xffff_ff00);
    /// All groups, in deletions and requests.
    pub const ALL: GroupId = GroupId(0xffff_fffc);
    /// Wildcard in flow commands and requests.
    pub const ANY: GroupId = GroupId(0xffff_ffff);
}

/// An OpenFlow meter; the datapath's own meter numbers are [`flow::MeterId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MeterNo(pub u32);

impl MeterNo {
    /// Highest number of a flow's meter.
    pub const MAX: MeterNo = MeterNo(0xffff_0000);
    /// The meter of packets on the slow path.
    pub const SLOWPATH: MeterNo = MeterNo(0xffff_fffd);
    /// The meter of packets to the controller.
    pub const CONTROLLER: MeterNo = MeterNo(0xffff_fffe);
    /// All meters, in deletions and requests.
    pub const ALL: MeterNo = MeterNo(0xffff_ffff);
}

/// A queue of a port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct QueueNo(pub u32);

impl QueueNo {
    /// All queues, in requests.
    pub const ALL: QueueNo = QueueNo(0xffff_ffff);
}

/// An Ethernet address in wire order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Defines a set of flags over an integer, kept as received: bits without a name survive a round trip.
macro_rules! flag_set {
    ($(#[$m:meta])* $name:ident: $int:ty { $( $(#[$fm:meta])* $flag:ident = $v:expr; )* }) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
        pub struct $name(pub $int);

        impl $name {
            $( $(#[$fm])* pub const $flag: $name = $name($v); )*
            /// No flag.
            pub const NONE: $name = $name(0);
            /// Every flag that has a name.
            pub const KNOWN: $name = $name(0 $( | $v )*);

            /// Whether every flag of `o` is set.
            pub const fn has(self, o: $name) -> bool {
                self.0 & o.0 == o.0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = $name;
            fn bitor(self, o: $name) -> $name {
                $name(self.0 | o.0)
            }
        }
        impl std::ops::BitOrAssign for $name {
            fn bitor_assign(&mut self, o: $name) {
                self.0 |= o.0;
            }
        }
    };
}
pub(crate) use flag_set;
