//! OpenFlow actions (OpenFlow 1.3.5 7.2.5) and the Nicira actions `ovs-ofctl` sends.

use flow::FieldId;

use crate::number::{GroupId, PortNo, QueueNo, TableId};

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
        Subfield { field, offset: 0, bits: u16::from(field.info().bits) }
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
    },
    /// Nicira `controller`: packet-in to the controllers with an id, for a reason.
    Controller {
        /// Bytes to send; 0xffff is all.
        max_len: u16,
        /// Which controllers; 0 is the default id.
        controller_id: u16,
        /// `ofp_packet_in_reason`.
        reason: u8,
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
}
