//! The rule that is offered to hardware.

use std::sync::Arc;

pub use flow::FlowId;
use flow::{Action, FieldId, PackedMatch, PacketMatch, PortId};

/// Where one part of a verdict came from. Provenance lets a fixed-function device take something broader than one
/// record: a learned MAC as a bridging entry, a route as an LPM entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Origin {
    /// An OpenFlow rule: bridge, table, cookie.
    Rule {
        /// OpenFlow table.
        table: u8,
        /// The rule's cookie.
        cookie: u64,
    },
    /// The MAC learning table of a bridge.
    LearnedMac {
        /// VLAN of the entry.
        vlan: u16,
        /// The address.
        mac: [u8; 6],
    },
    /// A group.
    Group(u32),
    /// NORMAL alone decided, and sent to the station that it had learned: the rules before it looked at no more than ingress port
    /// and Ethernet type, and nothing came after it. So packets of that port and type are NORMAL's, whatever their addresses and
    /// tags, and go where the destination is in their VLAN.
    Bridged {
        /// The VLAN; 0 outside of all.
        vlan: u16,
    },
    /// Rules alone decided, and looked at no more than destination addresses, Ethernet and IP, at the VLAN and the Ethernet type:
    /// not at the ingress port. So packets like this one have the same answer at every port, but that none goes back where it came from:
    /// of several outputs, which only a group of hosts has, the packet's own port is left out.
    Routed,
    /// Fragments of such packets have the same verdict: nothing looked at whether the packet is one, nor at what later
    /// fragments do not have. A record matches on that all the same; a device that cannot may leave it out.
    Fragments,
}

/// The chain of origins of a record's verdict, in the order in which they were consulted.
pub type Provenance = Arc<[Origin]>;

/// A flow record as hardware sees it. Records never overlap, so no priority is needed between them.
#[derive(Clone, Debug)]
pub struct FlowRule {
    /// The record.
    pub id: FlowId,
    /// What it matches.
    pub matches: PacketMatch,
    /// What is done; empty drops.
    pub actions: Arc<[Action]>,
    /// Where it came from.
    pub provenance: Provenance,
}

impl FlowRule {
    /// Whether its packets have come out of a tunnel: their port is one of the datapath's that tunnels share, and on no device.
    pub fn is_of_tunnel(&self) -> bool {
        [FieldId::TunDst, FieldId::TunIpv6Dst].into_iter().any(|f| self.matches.get(f).0 != 0)
    }

    /// The port by which packets come out of the tunnel that it takes them from.
    pub fn opens(&self) -> Option<PortId> {
        opens(&self.actions)
    }
}

fn opens(actions: &[Action]) -> Option<PortId> {
    actions.iter().find_map(|a| match a {
        Action::TunnelPop { port, .. } => Some(*port),
        _ => None,
    })
}

/// A [`FlowRule`] as a provider keeps it while its entry lives: a tenth of the size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackedRule {
    /// The record.
    pub id: FlowId,
    /// What it matches.
    pub matches: PackedMatch,
    /// What is done.
    pub actions: Arc<[Action]>,
    /// Where it came from.
    pub provenance: Provenance,
}

impl PackedRule {
    /// The rule itself.
    pub fn expand(&self) -> FlowRule {
        FlowRule {
            id: self.id,
            matches: self.matches.expand(),
            actions: self.actions.clone(),
            provenance: self.provenance.clone(),
        }
    }

    /// As [`FlowRule::opens`].
    pub fn opens(&self) -> Option<PortId> {
        opens(&self.actions)
    }
}

impl From<&FlowRule> for PackedRule {
    fn from(r: &FlowRule) -> Self {
        PackedRule {
            id: r.id,
            matches: (&r.matches).into(),
            actions: r.actions.clone(),
            provenance: r.provenance.clone(),
        }
    }
}
