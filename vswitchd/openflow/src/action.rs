//! OpenFlow actions of every version and the extensions `ovs-ofctl` sends.
//!
//! Where versions say one thing differently and the difference is visible to people, both forms are here: the fixed sets
//! of OpenFlow 1.0 and 1.1 ([`Action::SetLegacy`], [`Action::SetVlanVid`]) beside the set-field of later ones. What a
//! version lacks is encoded by what it has: a set-field in OpenFlow 1.0 becomes the fixed action or a Nicira `load`.

use flow::FieldId;

use crate::extension::{Bundle, CheckPktLarger, Ct, Encap, Learn, Multipath, Nat, Sample};
use crate::number::{GroupId, MeterNo, PortNo, QueueNo, TableId};

/// A run of bits in a field.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Subfield {
    /// The field; may be a view.
    pub field: FieldId,
    /// Position of the least significant bit in the field.
    pub offset: u16,
    /// Number of bits; at least 1, and `offset + bits` is at most the field's width.
    pub bits: u16,
}

impl Subfield {
    /// All bits of `field`.
    pub fn whole(field: FieldId) -> Self {
        Subfield { field, offset: 0, bits: field.width() }
    }

    /// The bits as a mask over the field, right-aligned.
    pub fn mask(&self) -> u128 {
        let ones = if self.bits >= 128 { u128::MAX } else { (1u128 << self.bits) - 1 };
        ones << self.offset.min(127)
    }
}

/// One OpenFlow action.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Sends the packet to a port, real or reserved.
    Output {
        /// Where.
        port: PortNo,
        /// Bytes to send when `port` is the controller; 0xffff is all. Zero and meaningless otherwise.
        max_len: u16,
    },
    /// Processes the packet by a group.
    Group(GroupId),
    /// Queue for later outputs.
    SetQueue(QueueNo),
    /// Sets the IP TTL.
    SetNwTtl(u8),
    /// Decrements the IP TTL; an invalid one goes to the controllers (`ids` of the Nicira form, empty in the plain one).
    DecNwTtl {
        /// Controller ids that get packets with an invalid TTL; empty: the plain action, all controllers.
        controllers: Vec<u16>,
    },
    /// Sets the outermost label's TTL.
    SetMplsTtl(u8),
    /// Decrements the outermost label's TTL.
    DecMplsTtl,
    /// Copies the TTL from the next-to-outermost to the outermost header.
    CopyTtlOut,
    /// Copies the TTL from the outermost to the next-to-outermost header.
    CopyTtlIn,
    /// Pushes a VLAN tag with this Ethernet type (0x8100 or 0x88a8).
    PushVlan(u16),
    /// Pops the outermost VLAN tag.
    PopVlan,
    /// Pushes an MPLS label with this Ethernet type (0x8847 or 0x8848).
    PushMpls(u16),
    /// Pops the outermost MPLS label; the Ethernet type is what is below.
    PopMpls(u16),
    /// Pushes a PBB service tag with this Ethernet type (0x88e7).
    PushPbb(u16),
    /// Pops a PBB service tag.
    PopPbb,
    /// Sets the bits of a field that `mask` has; both right-aligned.
    SetField {
        /// Which field, as the controller named it; may be a view. `VlanVid` values carry the present bit (0x1000).
        field: FieldId,
        /// New value; no bit outside `mask`.
        value: u128,
        /// Bits to set; not zero.
        mask: u128,
    },
    /// Nicira `load`: sets a subfield to a constant.
    RegLoad {
        /// What to set.
        dst: Subfield,
        /// New value, right-aligned; fits the subfield.
        value: u64,
    },
    /// Nicira `move`: copies a subfield to another of the same width.
    RegMove {
        /// From.
        src: Subfield,
        /// To.
        dst: Subfield,
    },
    /// Nicira `output:FIELD[..]`: sends the packet to the port whose number the subfield holds.
    OutputReg {
        /// Where the port number is.
        src: Subfield,
        /// As in [`Action::Output`].
        max_len: u16,
    },
    /// Nicira `output(port=..,max_len=..)`: sends at most `max_len` bytes of the packet.
    OutputTrunc {
        /// Where.
        port: PortNo,
        /// Bytes; at least 14.
        max_len: u32,
    },
    /// Nicira `resubmit`: searches a table again and executes what it finds here.
    Resubmit {
        /// Input port for the search; `IN_PORT` leaves it as it is.
        port: PortNo,
        /// Table; `None` is the current one.
        table: Option<TableId>,
        /// Search with the addresses of the connection's original direction (`resubmit(..,ct)`).
        with_ct: bool,
    },
    /// Nicira `controller`: packet-in to the controllers with an id, for a reason.
    Controller {
        /// Bytes to send; 0xffff is all.
        max_len: u16,
        /// Which controllers; 0 is the default id.
        controller_id: u16,
        /// `ofp_packet_in_reason`.
        reason: u8,
        /// Given back in the packet-in.
        userdata: Vec<u8>,
        /// Processing stops here and goes on when the controller resumes it.
        pause: bool,
        /// Meter the packet-in passes.
        meter: Option<MeterNo>,
    },
    /// Nicira `set_tunnel` (`set_tunnel64` when `wide`): sets the tunnel id.
    SetTunnel {
        /// New id.
        id: u64,
        /// The 64-bit form was used.
        wide: bool,
    },
    /// Nicira `pop_queue`: back to the default queue.
    PopQueue,
    /// Nicira `exit`: ends the processing of actions.
    Exit,
    /// Nicira `note`: does nothing; keeps the bytes.
    Note(Vec<u8>),
    /// OpenFlow 1.0 and 1.1: sets the VLAN id.
    SetVlanVid {
        /// 12 bits.
        vid: u16,
        /// A packet without a tag gets one (OpenFlow 1.0); otherwise it stays as it is.
        push: bool,
    },
    /// OpenFlow 1.0 and 1.1: sets the VLAN priority.
    SetVlanPcp {
        /// 3 bits.
        pcp: u8,
        /// As in [`Action::SetVlanVid`].
        push: bool,
    },
    /// OpenFlow 1.0: pops the outermost VLAN tag if there is one.
    StripVlan,
    /// OpenFlow 1.0 and 1.1: sets a header field; a packet without it stays as it is. The field is one of Ethernet
    /// addresses, IPv4 addresses, `ip_dscp`, `nw_ecn`, transport ports (canonical, whatever the protocol), MPLS label
    /// and traffic class.
    SetLegacy {
        /// Which field.
        field: FieldId,
        /// New value.
        value: u64,
    },
    /// OpenFlow 1.0: sends the packet to a queue of a port.
    Enqueue {
        /// The port; may be `IN_PORT`.
        port: PortNo,
        /// Its queue.
        queue: QueueNo,
    },
    /// OpenFlow 1.5: the packet passes a meter here.
    Meter(MeterNo),
    /// Nicira `push`: pushes a subfield on the stack.
    StackPush(Subfield),
    /// Nicira `pop`: pops the top of the stack into a subfield.
    StackPop(Subfield),
    /// Nicira `learn`: adds a flow made from the packet.
    Learn(Box<Learn>),
    /// Nicira `bundle` and `bundle_load`: chooses a live port.
    Bundle(Box<Bundle>),
    /// Nicira `multipath`: chooses a link by a hash.
    Multipath(Box<Multipath>),
    /// Nicira `conjunction`: the flow is one dimension of a conjunctive match.
    Conjunction {
        /// Value of `conj_id` in the flow that all dimensions together lead to.
        id: u32,
        /// Which dimension, from 0.
        clause: u8,
        /// How many dimensions; 2 to 64.
        n_clauses: u8,
    },
    /// Nicira `fin_timeout`: changes the flow's timeouts when a TCP FIN or RST passes; 0 leaves one.
    FinTimeout {
        /// Idle timeout in seconds.
        idle: u16,
        /// Hard timeout in seconds.
        hard: u16,
    },
    /// Nicira `sample`: sends samples to IPFIX collectors.
    Sample(Box<Sample>),
    /// Nicira `ct`: sends the packet through connection tracking.
    Ct(Box<Ct>),
    /// Nicira `nat`: address translation; only in the actions of a [`Action::Ct`].
    Nat(Box<Nat>),
    /// Nicira `ct_clear`: forgets what connection tracking said.
    CtClear,
    /// Nicira `clone`: executes actions on a copy.
    Clone(Vec<Action>),
    /// Nicira `check_pkt_larger`: writes to a bit whether the packet is longer than a length.
    CheckPktLarger(Box<CheckPktLarger>),
    /// Nicira `encap`: pushes a header.
    Encap(Box<Encap>),
    /// Nicira `decap`: pops the outermost header.
    Decap {
        /// What is below: name space and type; 0xfffe says that the header tells.
        packet_type: u32,
    },
    /// Nicira `dec_nsh_ttl`: decrements the TTL of a network service header.
    DecNshTtl,
    /// Nicira `delete_field`: removes a tunnel option.
    DeleteField(FieldId),
    /// Nicira `write_metadata` at the end of a list of OpenFlow 1.0, which has no instructions. In a flow it is
    /// [`crate::Instructions::metadata`] instead.
    WriteMetadata {
        /// New value.
        value: u64,
        /// Bits to write.
        mask: u64,
    },
    /// Nicira `debug_recirc`: recirculates, for tests.
    DebugRecirc,
    /// Nicira `debug_slow`: takes the slow path, for tests.
    DebugSlow,
}

impl Action {
    /// Packet-in of up to `max_len` bytes to the controllers with id 0, because an action said so.
    pub fn controller(max_len: u16) -> Action {
        Action::Controller {
            max_len,
            controller_id: 0,
            reason: 1,
            userdata: Vec::new(),
            pause: false,
            meter: None,
        }
    }
}
