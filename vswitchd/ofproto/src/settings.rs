//! Settings of bridges and ports that OpenFlow knows nothing about: what columns and `other_config` keys of `Bridge` and
//! `Port` say (ovs-vswitchd.conf.db(5)).
//!
//! They are part of the published [`crate::tables::Pipeline`], so that a translation sees them whole, and records that
//! depended on them are judged again when they change.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use bonds::{BondSettings, LacpPort, LacpSettings};
use exporters::ipfix::{CacheSettings, IpfixSettings};
use exporters::{NetflowSettings, SflowSettings};
use flow::{FieldId, Maskable, Prereq, Scope};
use openflow::Subfield;

use crate::mac_table::{DEFAULT_AGEING, DEFAULT_LIMIT};
use crate::mirror::Mirror;
use crate::vlan::{PriorityTags, VlanMode, VlanSet};

/// What NORMAL wants to know of a port.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PortSettings {
    /// What it does with VLAN tags.
    pub vlan: VlanMode,
    /// Whether untagged packets carry their priority in a tag.
    pub priority_tags: PriorityTags,
    /// Sends nothing to other protected ports, whatever the rules say.
    pub protected: bool,
    /// Gets every multicast packet of its VLANs where the bridge snoops (`mcast-snooping-flood`).
    pub mcast_flood: bool,
    /// Gets reports of membership where the bridge snoops (`mcast-snooping-flood-reports`).
    pub mcast_reports: bool,
    /// Whether its link carries is found out by BFD.
    pub bfd: Option<links::BfdSettings>,
    /// Whether its link carries is found out by continuity checks.
    pub cfm: Option<links::CfmSettings>,
    /// Who is at the other end of its link is found out by LLDP, and what it is told.
    pub lldp: Option<links::LldpSettings>,
    /// Its queues, by number.
    pub queues: BTreeMap<u32, QueueSettings>,
    /// It is one of several, or speaks link aggregation control.
    pub aggregation: Option<Aggregation>,
    /// Its part in the bridge's spanning tree, if both have one.
    pub tree: Option<PortTree>,
}

impl PortSettings {
    /// Whether some of what comes in on it may be for the port itself, rather than for the tables.
    pub fn takes_packets(&self) -> bool {
        self.bfd.is_some()
            || self.cfm.is_some()
            || self.lldp.is_some()
            || self.aggregation.as_ref().is_some_and(|a| a.lacp.is_some())
    }
}

/// A bridge's part in a spanning tree (`stp_enable`, `rstp_enable` and `other_config:stp-*`, `rstp-*` of table Bridge).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tree {
    /// It is rapid (IEEE 802.1D-2004), rather than that of 1998.
    pub rapid: bool,
    /// Of all bridges the one with the least becomes the root.
    pub priority: u16,
    /// The address that it is known by; that of its LOCAL port when `None`.
    pub system: Option<[u8; 6]>,
    /// Between messages of the root, in milliseconds.
    pub hello_ms: u32,
    /// How old a message may become, in milliseconds.
    pub max_age_ms: u32,
    /// How long ports listen, and learn, in milliseconds.
    pub forward_delay_ms: u32,
}

impl Default for Tree {
    /// As IEEE 802.1D recommends.
    fn default() -> Self {
        let usual = spanning::StpSettings::new(spanning::BridgeId(0));
        Tree {
            rapid: false,
            priority: spanning::StpSettings::USUAL_PRIORITY,
            system: None,
            hello_ms: usual.hello_ms,
            max_age_ms: usual.max_age_ms,
            forward_delay_ms: usual.forward_delay_ms,
        }
    }
}

/// A port's part in a spanning tree (`other_config:stp-*` and `rstp-*` of table Port).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortTree {
    /// Its number in the tree; one that is free when `None`.
    pub number: Option<u8>,
    /// Of two ports that lead to the same place the one with the lesser is used.
    pub priority: u8,
    /// What a way through it costs; by its speed when `None`.
    pub path_cost: Option<u32>,
    /// Of a rapid tree: stations are there, and no bridge.
    pub admin_edge: bool,
    /// Of a rapid tree: where nobody answers stations are taken to be.
    pub auto_edge: bool,
    /// Of a rapid tree: one bridge at most is at the other end.
    pub point_to_point: bool,
    /// Of a rapid tree: looks once whether the other end is rapid by now.
    pub mcheck: bool,
}

impl Default for PortTree {
    fn default() -> Self {
        PortTree {
            number: None,
            priority: spanning::PortSettings::USUAL_PRIORITY,
            path_cost: None,
            admin_edge: false,
            auto_edge: true,
            point_to_point: true,
            mcheck: false,
        }
    }
}

/// What a port belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aggregation {
    /// Its name: that of all ports that belong to it.
    pub name: String,
    /// How one of several is chosen; `None` for a port that is alone.
    pub bond: Option<BondSettings>,
    /// How link aggregation control is spoken, if it is.
    pub lacp: Option<LacpSettings>,
    /// What this port is to that.
    pub port: LacpPort,
}

/// A queue of a port (table Queue of ovs-vswitchd.conf.db(5)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct QueueSettings {
    /// The DSCP that packets in it leave with; not shifted.
    pub dscp: Option<u8>,
    /// Rate that it is to have at least, in bits per second.
    pub min_rate_bps: Option<u64>,
    /// Rate that it is to have at most, in bits per second.
    pub max_rate_bps: Option<u64>,
}

/// Multicast snooping of a bridge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snooping {
    /// Packets for groups that nobody has joined go to every port of their VLAN.
    pub flood_unregistered: bool,
    /// Age at which a member is forgotten.
    pub ageing: Duration,
    /// Most groups.
    pub table_size: usize,
}

impl Default for Snooping {
    fn default() -> Self {
        Snooping { flood_unregistered: true, ageing: Duration::from_secs(300), table_size: 2048 }
    }
}

/// Settings of a flow table (table Flow_Table of ovs-vswitchd.conf.db(5)).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableSettings {
    /// Its name; may be empty.
    pub name: String,
    /// Most flows, if there is a limit beside that of every table.
    pub flow_limit: Option<usize>,
    /// A full table removes flows to make room.
    pub evict: bool,
    /// Flows that agree in these are a group; the largest gives way first.
    pub groups: Vec<Subfield>,
    /// Fields whose bits are looked at as far as prefixes of flows differ, and no further; `None` as usual.
    pub prefixes: Option<Vec<FieldId>>,
}

/// Whether a field can be among [`TableSettings::prefixes`]: what packets have, can be matched by prefix, and needs no more
/// than the Ethernet type to be there.
pub fn is_prefix_field(f: FieldId) -> bool {
    let i = f.info();
    f.is_canonical()
        && i.scope == Scope::Packet
        && i.mask == Maskable::Any
        && matches!(i.prereq, Prereq::None | Prereq::Ipv4 | Prereq::Ipv6)
        && f != FieldId::Ipv6Label
        && f != FieldId::VlanTci
}

/// Settings of a bridge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BridgeSettings {
    /// NORMAL forwards frames to addresses that bridges keep to themselves (IEEE 802.1D table 7-10 and vendors' alike).
    pub forward_bpdu: bool,
    /// VLANs in which nothing is learned, so that everything is flooded.
    pub flood_vlans: Option<VlanSet>,
    /// Age at which a station is forgotten; kept within 15 s and an hour.
    pub mac_ageing: Duration,
    /// Most stations; kept within 10 and a million.
    pub mac_limit: usize,
    /// Multicast goes where members are; `None` floods it.
    pub snooping: Option<Snooping>,
    /// Megaflows and datapath actions are those of Open vSwitch to the bit, also where wider ones, or fewer actions, would do the
    /// same: what its test suite looks at. A tag is changed by a pop and a push and looked at whole, a TTL is written and looked at
    /// whole, a write to an IP header looks at the protocol, and the VLAN of a tagged packet is always looked at.
    pub stock_megaflows: bool,
    /// The bridge stands on the kernel's datapath: tunnels are ports of it, which packets for them give their metadata to, and what goes
    /// to the LOCAL port goes to the host.
    pub kernel_datapath: bool,
    /// Rules see one VLAN tag of a packet, and a second as its payload (`other_config:vlan-limit=1` of table Open_vSwitch); else two.
    pub one_tag: bool,
    /// Its part in a spanning tree, if it has one.
    pub tree: Option<Tree>,
    /// Controllers whose connections go as NORMAL has it, whatever the tables say ([`crate::in_band`]).
    pub in_band: Vec<SocketAddrV4>,
    /// Mirrors; at most [`crate::mirror::MAX_MIRRORS`].
    pub mirrors: Vec<Mirror>,
    /// Flow tables that are not as they come, by number.
    pub tables: BTreeMap<u8, TableSettings>,
    /// Who is told of its flows by NetFlow, if anybody is.
    pub netflow: Option<NetflowSettings>,
    /// Who is told of its packets and ports by sFlow, if anybody is.
    pub sflow: Option<SflowSettings>,
    /// Who is told of all of its packets by IPFIX, if anybody is.
    pub ipfix: Option<IpfixSettings>,
    /// Sets of those that are told by IPFIX of the packets that flows sample, by number.
    pub flow_ipfix: BTreeMap<u32, CacheSettings>,
}

impl BridgeSettings {
    /// Whether packets are looked at for somebody other than controllers.
    pub(crate) fn exports(&self) -> bool {
        self.netflow.is_some() || self.sflow.is_some() || self.ipfix.is_some()
    }
}

impl Default for BridgeSettings {
    fn default() -> Self {
        BridgeSettings {
            forward_bpdu: false,
            flood_vlans: None,
            mac_ageing: DEFAULT_AGEING,
            mac_limit: DEFAULT_LIMIT,
            snooping: None,
            stock_megaflows: false,
            kernel_datapath: false,
            one_tag: false,
            tree: None,
            in_band: Vec::new(),
            mirrors: Vec::new(),
            tables: BTreeMap::new(),
            netflow: None,
            sflow: None,
            ipfix: None,
            flow_ipfix: BTreeMap::new(),
        }
    }
}
