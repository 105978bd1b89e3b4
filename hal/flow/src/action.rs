//! Datapath actions: what a datapath, software or hardware, does with a packet.
//!
//! These are not OpenFlow actions: translation has resolved tables, groups, learning and NORMAL into a flat list. An
//! empty list drops the packet. The list is executed in order; an [`Action::Output`] sends the packet as it is at that
//! point and goes on.
//!
//! Their text form is [`crate::text::odp::format_actions`].

use std::sync::Arc;

use crate::ct::CtAction;
use crate::export::{Export, SampleAction};
use crate::field::FieldId;
use crate::headers::MacAddr;
use crate::nsh::NshHeader;
use crate::tunnel::{TunnelKind, TunnelPush};

/// A datapath port. Unique within one datapath; not an OpenFlow port number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PortId(pub u32);

/// Names a flow record for as long as the process lives. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct FlowId(pub u64);

/// A meter of a datapath.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MeterId(pub u32);

/// A bond of a datapath: the ports that [`Action::LbOutput`] chooses among.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BondId(pub u32);

/// Why a packet goes to a controller. Numbers are those of OpenFlow's `ofp_packet_in_reason` and, where that tells less, Open
/// vSwitch's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum PuntReason {
    /// No matching flow, as an action says.
    NoMatch = 0,
    /// Output action to the controller.
    #[default]
    Action = 1,
    /// TTL too small to be decremented.
    InvalidTtl = 2,
    /// Output action in an action set.
    ActionSet = 3,
    /// Output action in a group's bucket.
    Group = 4,
    /// Output action of a packet that a controller sent.
    PacketOut = 5,
    /// Output action of a table-miss flow.
    ExplicitMiss = 6,
    /// A table without any flow that matches.
    ImplicitMiss = 7,
    /// For the switch itself, which listens to multicast membership; not one of OpenFlow's.
    Snoop = 0xff,
    /// For the port itself, which speaks BFD (RFC 5880); not one of OpenFlow's.
    Bfd = 0xfe,
    /// For the port itself, which checks continuity (IEEE 802.1ag); not one of OpenFlow's.
    Cfm = 0xfd,
    /// For the port itself, which speaks link aggregation control (IEEE 802.1AX); not one of OpenFlow's.
    Lacp = 0xfc,
    /// For the bridge, which takes part in a spanning tree (IEEE 802.1D); not one of OpenFlow's.
    Stp = 0xfb,
    /// For the port itself, which finds out who is at the other end (LLDP, IEEE 802.1AB); not one of OpenFlow's.
    Lldp = 0xfa,
}

impl PuntReason {
    /// Every reason.
    pub const ALL: [PuntReason; 14] = [
        PuntReason::NoMatch,
        PuntReason::Action,
        PuntReason::InvalidTtl,
        PuntReason::ActionSet,
        PuntReason::Group,
        PuntReason::PacketOut,
        PuntReason::ExplicitMiss,
        PuntReason::ImplicitMiss,
        PuntReason::Snoop,
        PuntReason::Bfd,
        PuntReason::Cfm,
        PuntReason::Lacp,
        PuntReason::Stp,
        PuntReason::Lldp,
    ];

    /// Whether the packet is for the port that it came in on.
    pub fn is_of_link(self) -> bool {
        matches!(
            self,
            PuntReason::Bfd | PuntReason::Cfm | PuntReason::Lacp | PuntReason::Stp | PuntReason::Lldp
        )
    }

    /// What the switch itself wants packets for, by the name of Open vSwitch's slow path; `None` where they are for controllers.
    pub fn slow_path(self) -> Option<&'static str> {
        match self {
            PuntReason::Snoop => Some("action"),
            PuntReason::Bfd => Some("bfd"),
            PuntReason::Cfm => Some("cfm"),
            PuntReason::Lacp => Some("lacp"),
            PuntReason::Stp => Some("stp"),
            PuntReason::Lldp => Some("lldp"),
            _ => None,
        }
    }

    /// By its number.
    pub fn from_number(n: u64) -> Option<PuntReason> {
        PuntReason::ALL.into_iter().find(|r| *r as u64 == n)
    }
}

/// Parameters of [`Action::Controller`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ControllerAction {
    /// Reason to report.
    pub reason: PuntReason,
    /// How many bytes of the packet to send; 0xffff for all.
    pub max_len: u16,
    /// Cookie of the rule, all ones when there is none.
    pub cookie: u64,
    /// OpenFlow table of the rule.
    pub table: u8,
    /// OpenFlow metadata at that point.
    pub metadata: u64,
    /// OpenFlow ingress port.
    pub in_port: u32,
    /// The OpenFlow switch whose controllers are meant, by a number of the translator's: a packet may have gone through
    /// several.
    pub bridge: u32,
    /// Whether what connection tracking says of the packet is for controllers to see.
    pub tracked: bool,
    /// Which of its controllers: those with this id.
    pub controller_id: u16,
    /// The translator's name for what else it knew at that point (registers, what the action says beside); 0 for nothing.
    pub recirc_id: u32,
    /// The packet waits: the controller says when it goes on, from the point that `recirc_id` names.
    pub continuation: bool,
    /// Nobody is to get it: the action is one of a translation that was made to look at.
    pub dont_send: bool,
}

impl Default for ControllerAction {
    /// The whole packet, by an action of no rule.
    fn default() -> Self {
        ControllerAction {
            reason: PuntReason::Action,
            max_len: u16::MAX,
            cookie: u64::MAX,
            table: 0,
            metadata: 0,
            in_port: 0,
            bridge: 0,
            controller_id: 0,
            recirc_id: 0,
            continuation: false,
            dont_send: false,
            tracked: false,
        }
    }
}

/// Which headers [`Action::Hash`] hashes. Numbers are those of `ovs_hash_alg`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum HashAlg {
    /// Network addresses, IP protocol and transport ports.
    L4 = 0,
    /// The same in either direction.
    SymmetricL4 = 1,
}

impl HashAlg {
    /// By its number.
    pub fn from_number(n: u32) -> Option<HashAlg> {
        match n {
            0 => Some(HashAlg::L4),
            1 => Some(HashAlg::SymmetricL4),
            _ => None,
        }
    }

    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            HashAlg::L4 => "l4",
            HashAlg::SymmetricL4 => "sym_l4",
        }
    }
}

/// One datapath action.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Sends the packet out of a port.
    Output(PortId),
    /// Sends the packet out of the port of a bond that a hash of its headers ([`HashAlg::L4`]) falls on, as the datapath's table of
    /// that bond says at that moment. A packet that falls on no port, or meets a bond that does not exist, is dropped.
    LbOutput(BondId),
    /// Sends the packet to the controllers by way of the datapath's punt queue.
    Controller(ControllerAction),
    /// Sets the bits of a canonical packet field that `mask` has; right-aligned. Checksums follow. Has no effect on a
    /// packet that lacks the field; translation never produces that.
    SetField {
        /// Which; canonical and writable, or one of a network service header.
        field: FieldId,
        /// New value.
        value: u128,
        /// Bits to set; not zero.
        mask: u128,
    },
    /// Decrements the IPv4 TTL or IPv6 hop limit. The flow must match only packets whose TTL is at least 2; a datapath
    /// that meets another drops it and counts it.
    DecTtl,
    /// Pushes a VLAN tag outermost. What was known of the headers below stays known: actions that follow find them, behind
    /// however many tags.
    PushVlan {
        /// Ethernet type of the tag, 0x8100 or 0x88a8.
        tpid: u16,
        /// Priority and VLAN id; the present bit (0x1000) is ignored.
        tci: u16,
    },
    /// Removes the outermost VLAN tag.
    PopVlan,
    /// Pushes an MPLS label stack entry before the network header.
    PushMpls {
        /// Ethernet type, 0x8847 or 0x8848.
        eth_type: u16,
        /// The label stack entry: label, traffic class, bottom of stack, TTL.
        lse: u32,
    },
    /// Removes the outermost MPLS label stack entry.
    PopMpls {
        /// Ethernet type of what is below.
        eth_type: u16,
    },
    /// Pushes an MPLS label stack entry before everything: the packet begins with it from then on.
    AddMpls {
        /// Ethernet type, 0x8847 or 0x8848.
        eth_type: u16,
        /// The label stack entry.
        lse: u32,
    },
    /// Gives a packet that has none an Ethernet header. The Ethernet type is that of its packet type.
    PushEth {
        /// Source.
        src: MacAddr,
        /// Destination.
        dst: MacAddr,
    },
    /// Takes the Ethernet header off a packet without VLAN tags: it begins with what its Ethernet type stands for.
    PopEth,
    /// Pushes a network service header before everything.
    PushNsh(Box<NshHeader>),
    /// Takes off the network service header that the packet begins with. Headers that come to light are seen by a flow table after
    /// [`Action::Recirc`].
    PopNsh,
    /// Starts again at the datapath's flow table with `recirc_id` set.
    Recirc(u32),
    /// Sets `dp_hash` to a hash of the packet's headers, which is never zero. What the hash of a packet is differs from
    /// datapath to datapath.
    Hash {
        /// What is hashed.
        alg: HashAlg,
        /// Start of the hash.
        basis: u32,
    },
    /// Sends the packet through connection tracking, which sets `ct_state` and the other fields of connections, and translates
    /// addresses. Headers that it changes are not seen by actions that follow, but by a flow table after [`Action::Recirc`].
    Ct(Box<CtAction>),
    /// Forgets what connection tracking said.
    CtClear,
    /// Passes the packet through a meter, which may drop it.
    Meter(MeterId),
    /// Cuts the packet to at most this many bytes in the next output only.
    Trunc(u32),
    /// Executes actions on a copy.
    Clone(Box<[Action]>),
    /// Executes actions on a copy of some packets, chosen at random.
    Sample(Box<SampleAction>),
    /// Gives the packet, as it is, to an exporter of the switch.
    Export(Arc<Export>),
    /// Executes one of two lists on a copy, by how long the frame is.
    CheckLength(Box<LengthCheck>),
    /// Puts the packet behind the headers of a tunnel. Actions that follow are executed on the outer packet; what was known of
    /// connections and tunnels stays with it.
    TunnelPush(Box<TunnelPush>),
    /// Takes the packet out of a tunnel and starts again at the flow table as if it had come in on this port, with the tunnel's
    /// metadata and no others. A packet that is not one of the port's encapsulation is dropped.
    TunnelPop {
        /// The port that the tunnels of this kind share.
        port: PortId,
        /// Their encapsulation.
        kind: TunnelKind,
    },
}

/// What [`Action::CheckLength`] does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LengthCheck {
    /// A length in bytes of the frame from its Ethernet header on, without FCS.
    pub bytes: u16,
    /// For frames that are longer.
    pub longer: Box<[Action]>,
    /// For all others.
    pub others: Box<[Action]>,
}

impl LengthCheck {
    /// The actions for a frame of `bytes`.
    pub fn of(&self, bytes: usize) -> &[Action] {
        if bytes > usize::from(self.bytes) { &self.longer } else { &self.others }
    }

    /// Both lists.
    pub fn lists(&self) -> [&[Action]; 2] {
        [&self.longer, &self.others]
    }
}

/// The kind of an action, without its parameters: what capabilities and reject reasons speak of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum ActionKind {
    Output,
    LbOutput,
    Controller,
    SetField(FieldId),
    DecTtl,
    PushVlan,
    PopVlan,
    PushMpls,
    PopMpls,
    AddMpls,
    PushEth,
    PopEth,
    PushNsh,
    PopNsh,
    Recirc,
    Hash,
    Ct,
    CtClear,
    Meter,
    Trunc,
    Clone,
    Sample,
    Export,
    CheckLength,
    TunnelPush,
    TunnelPop,
}

impl Action {
    /// The action's kind.
    pub fn kind(&self) -> ActionKind {
        match self {
            Action::Output(_) => ActionKind::Output,
            Action::LbOutput(_) => ActionKind::LbOutput,
            Action::Controller(_) => ActionKind::Controller,
            Action::SetField { field, .. } => ActionKind::SetField(*field),
            Action::DecTtl => ActionKind::DecTtl,
            Action::PushVlan { .. } => ActionKind::PushVlan,
            Action::PopVlan => ActionKind::PopVlan,
            Action::PushMpls { .. } => ActionKind::PushMpls,
            Action::PopMpls { .. } => ActionKind::PopMpls,
            Action::AddMpls { .. } => ActionKind::AddMpls,
            Action::PushEth { .. } => ActionKind::PushEth,
            Action::PopEth => ActionKind::PopEth,
            Action::PushNsh(_) => ActionKind::PushNsh,
            Action::PopNsh => ActionKind::PopNsh,
            Action::Recirc(_) => ActionKind::Recirc,
            Action::Hash { .. } => ActionKind::Hash,
            Action::Ct(_) => ActionKind::Ct,
            Action::CtClear => ActionKind::CtClear,
            Action::Meter(_) => ActionKind::Meter,
            Action::Trunc(_) => ActionKind::Trunc,
            Action::Clone(_) => ActionKind::Clone,
            Action::Sample(_) => ActionKind::Sample,
            Action::Export(_) => ActionKind::Export,
            Action::CheckLength(_) => ActionKind::CheckLength,
            Action::TunnelPush(_) => ActionKind::TunnelPush,
            Action::TunnelPop { .. } => ActionKind::TunnelPop,
        }
    }
}

impl std::fmt::Display for ActionKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ActionKind::Output => f.write_str("output"),
            ActionKind::LbOutput => f.write_str("lb_output"),
            ActionKind::Controller => f.write_str("controller"),
            ActionKind::SetField(id) => write!(f, "set_field({id})"),
            ActionKind::DecTtl => f.write_str("dec_ttl"),
            ActionKind::PushVlan => f.write_str("push_vlan"),
            ActionKind::PopVlan => f.write_str("pop_vlan"),
            ActionKind::PushMpls => f.write_str("push_mpls"),
            ActionKind::PopMpls => f.write_str("pop_mpls"),
            ActionKind::AddMpls => f.write_str("add_mpls"),
            ActionKind::PushEth => f.write_str("push_eth"),
            ActionKind::PopEth => f.write_str("pop_eth"),
            ActionKind::PushNsh => f.write_str("push_nsh"),
            ActionKind::PopNsh => f.write_str("pop_nsh"),
            ActionKind::Recirc => f.write_str("recirc"),
            ActionKind::Hash => f.write_str("hash"),
            ActionKind::Ct => f.write_str("ct"),
            ActionKind::CtClear => f.write_str("ct_clear"),
            ActionKind::Meter => f.write_str("meter"),
            ActionKind::Trunc => f.write_str("trunc"),
            ActionKind::Clone => f.write_str("clone"),
            ActionKind::Sample => f.write_str("sample"),
            ActionKind::Export => f.write_str("export"),
            ActionKind::CheckLength => f.write_str("check_pkt_len"),
            ActionKind::TunnelPush => f.write_str("tnl_push"),
            ActionKind::TunnelPop => f.write_str("tnl_pop"),
        }
    }
}
