//! The flow key as the parser produces it, actions, and the entry that a command installs (SPEC 6).

use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::ring::codes;
use crate::{DecodeError, front};

/// Length of a flow key in bytes.
pub const KEY_BYTES: usize = 176;
/// A flow key, or a mask over one. Fields lie at the offsets of [`key`], in wire order.
pub type KeyBytes = [u8; KEY_BYTES];
/// Action slots in an entry.
pub const MAX_ACTIONS: usize = 16;
/// Most OUTPUT, REPLICATE and TO_HOST actions in an entry.
pub const MAX_OUTPUTS: usize = 8;

/// Where each field of a flow key begins, and how long it is in bytes (SPEC 6.1).
#[rustfmt::skip]
#[allow(missing_docs)]
pub mod key {
    use std::ops::Range;
    pub const PORT: Range<usize>       = 0..1;
    pub const FRAG: Range<usize>       = 1..2;
    pub const ETH_TYPE: Range<usize>   = 2..4;
    pub const ETH_DST: Range<usize>    = 4..10;
    pub const ETH_SRC: Range<usize>    = 10..16;
    pub const VLAN_TCI: Range<usize>   = 16..18;
    pub const VLAN_TPID: Range<usize>  = 18..20;
    pub const VLAN_TCI2: Range<usize>  = 20..22;
    pub const VLAN_TPID2: Range<usize> = 22..24;
    /// IP protocol, or the low byte of the ARP operation.
    pub const PROTO: Range<usize>      = 24..25;
    pub const TOS: Range<usize>        = 25..26;
    pub const TTL: Range<usize>        = 26..27;
    pub const RESERVED0: Range<usize>  = 27..28;
    /// TCP, UDP or SCTP source port, or the ICMP type.
    pub const L4_SRC: Range<usize>     = 28..30;
    /// TCP, UDP or SCTP destination port, or the ICMP code.
    pub const L4_DST: Range<usize>     = 30..32;
    /// 12 bits.
    pub const TCP_FLAGS: Range<usize>  = 32..34;
    pub const RESERVED1: Range<usize>  = 34..36;
    /// IPv4 source, or ARP sender protocol address.
    pub const IP4_SRC: Range<usize>    = 36..40;
    /// IPv4 destination, or ARP target protocol address.
    pub const IP4_DST: Range<usize>    = 40..44;
    pub const ARP_SHA: Range<usize>    = 44..50;
    pub const ARP_THA: Range<usize>    = 50..56;
    pub const IP6_SRC: Range<usize>    = 56..72;
    pub const IP6_DST: Range<usize>    = 72..88;
    /// Key of the tunnel the frame came out of: network identifier, or GRE's key.
    pub const TUN_ID: Range<usize>     = 88..96;
    /// 1: a checksum (2), a key (4), Geneve's OAM bit (8).
    pub const TUN_FLAGS: Range<usize>  = 96..98;
    pub const TUN_TOS: Range<usize>    = 98..99;
    pub const TUN_TTL: Range<usize>    = 99..100;
    pub const TUN_TP_SRC: Range<usize> = 100..102;
    pub const TUN_TP_DST: Range<usize> = 102..104;
    pub const TUN_GBP_ID: Range<usize> = 104..106;
    pub const TUN_GBP_FLAGS: Range<usize> = 106..107;
    /// How many options its Geneve header had.
    pub const TUN_OPTIONS: Range<usize> = 107..108;
    pub const TUN4_SRC: Range<usize>   = 108..112;
    pub const TUN4_DST: Range<usize>   = 112..116;
    pub const CT_ZONE: Range<usize>    = 116..118;
    /// `CT_` bits.
    pub const CT_STATE: Range<usize>   = 118..119;
    pub const RESERVED2: Range<usize>  = 119..120;
    pub const CT_MARK: Range<usize>    = 120..124;
    /// What the last entry that sent the frame round again said.
    pub const RECIRC_ID: Range<usize>  = 124..128;
    pub const TUN6_SRC: Range<usize>   = 128..144;
    pub const TUN6_DST: Range<usize>   = 144..160;
    /// Its first Geneve option: four bytes of header, up to twelve of data.
    pub const TUN_OPTION: Range<usize> = 160..176;

    /// `CT_STATE`: the frame belongs to an established connection.
    pub const CT_ESTABLISHED: u8 = 0x02;
    /// `CT_STATE`: against the direction in which it was opened.
    pub const CT_REPLY: u8 = 0x08;
    /// `CT_STATE`: the frame was looked up in the connection table.
    pub const CT_TRACKED: u8 = 0x20;

    /// What the parser does not write: what a frame brings along from an entry that sent it round again.
    pub const BROUGHT: Range<usize>    = 88..176;

    /// Present bit of `VLAN_TCI` and `VLAN_TCI2`.
    pub const VLAN_PRESENT: u16 = 0x1000;
    /// `FRAG` of any fragment.
    pub const FRAG_ANY: u8 = 1;
    /// `FRAG` of fragments but the first, beside [`FRAG_ANY`].
    pub const FRAG_LATER: u8 = 2;
}

/// First byte of `k` that is outside `mask` or in reserved bytes; `None` when the key is well formed.
pub fn key_defect(k: &KeyBytes, mask: &KeyBytes) -> Option<usize> {
    (0..KEY_BYTES).find(|&i| k[i] & !mask[i] != 0 || mask_defect_at(mask, i))
}

/// Whether byte `i` of a mask asks for reserved bytes.
fn mask_defect_at(mask: &KeyBytes, i: usize) -> bool {
    [key::RESERVED0, key::RESERVED1, key::RESERVED2].iter().any(|r| r.contains(&i)) && mask[i] != 0
}

codes! {
    /// A header field that a SET action writes. 128-bit addresses are written in halves.
    HwField "set field" {
        /// Ethernet destination, 48 bits.
        EthDst = 1,
        /// Ethernet source, 48 bits.
        EthSrc = 2,
        /// Priority and VLAN id of the outermost tag, bits 15:13 and 11:0; bit 12 must be zero in the mask.
        VlanTci = 3,
        /// IPv4 source, 32 bits.
        Ip4Src = 4,
        /// IPv4 destination, 32 bits.
        Ip4Dst = 5,
        /// Upper 64 bits of the IPv6 source.
        Ip6SrcHi = 6,
        /// Lower 64 bits of the IPv6 source.
        Ip6SrcLo = 7,
        /// Upper 64 bits of the IPv6 destination.
        Ip6DstHi = 8,
        /// Lower 64 bits of the IPv6 destination.
        Ip6DstLo = 9,
        /// IPv4 TOS or IPv6 traffic class, 8 bits.
        Tos = 10,
        /// IPv4 TTL or IPv6 hop limit, 8 bits.
        Ttl = 11,
        /// TCP or UDP source port, 16 bits.
        L4Src = 12,
        /// TCP or UDP destination port, 16 bits.
        L4Dst = 13,
        /// The mark in the receive completion, 32 bits.
        Mark = 14,
    }
}

impl HwField {
    /// All bits that a SET of it may write.
    pub const fn max(self) -> u64 {
        match self {
            HwField::EthDst | HwField::EthSrc => 0xffff_ffff_ffff,
            HwField::VlanTci => 0xefff,
            HwField::Ip4Src | HwField::Ip4Dst | HwField::Mark => 0xffff_ffff,
            HwField::Ip6SrcHi | HwField::Ip6SrcLo | HwField::Ip6DstHi | HwField::Ip6DstLo => u64::MAX,
            HwField::Tos | HwField::Ttl => 0xff,
            HwField::L4Src | HwField::L4Dst => 0xffff,
        }
    }
}

codes! {
    /// An encapsulation that POP_HEADER takes off.
    Encap "encapsulation" {
        /// RFC 7348, with group policy.
        Vxlan = 1,
        /// RFC 8926.
        Geneve = 2,
        /// RFC 2784 and RFC 2890, carrying Ethernet frames.
        Gre = 3,
    }
}

/// A SET action's arguments: bits of `field` that `mask` has become those of `value`. Right-aligned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct SetField {
    pub field: HwField,
    pub value: u64,
    pub mask: u64,
}

/// An action, taken apart (SPEC 6.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HwAction {
    /// Sends the frame, as it is now, out of a port.
    Output {
        /// The port.
        port: u8,
    },
    /// Sends the frame, as it is now, to the host, with reason `Action`.
    ToHost,
    /// Writes a field; no effect on a frame without it.
    Set(SetField),
    /// Decrements TTL or hop limit.
    DecTtl,
    /// Pushes a tag outermost.
    PushVlan {
        /// 0x8100 or 0x88a8.
        tpid: u16,
        /// Priority and VLAN id; bit 12 must be zero.
        tci: u16,
    },
    /// Removes the outermost tag; no effect on a frame without one.
    PopVlan,
    /// Lets the frame pass a meter, or drops it.
    Meter {
        /// Number of the meter.
        meter: u16,
    },
    /// Puts a header in front of the frame: into a tunnel. Fields set after it are the outer packet's.
    PushHeader {
        /// Number of the header.
        header: u16,
    },
    /// Sends the frame, as it is now, out of every port of a group.
    Replicate {
        /// Number of the group.
        group: u16,
    },
    /// Takes the frame out of a tunnel and sends it round again. The only action of its entry.
    PopHeader {
        /// The encapsulation.
        kind: Encap,
        /// What the inner frame has as its ingress port; no port of the device.
        port: u8,
    },
    /// Looks the frame up in the connection table and sends it round again. The only action of its entry.
    Track {
        /// Zone of the connections.
        zone: u16,
        /// What the frame has as its recirculation id then.
        recirc: u32,
    },
}

impl HwAction {
    /// Whether it sends the frame somewhere.
    pub fn is_output(&self) -> bool {
        matches!(self, HwAction::Output { .. } | HwAction::ToHost | HwAction::Replicate { .. })
    }

    /// Whether it sends the frame round again.
    pub fn goes_on(&self) -> bool {
        matches!(self, HwAction::PopHeader { .. } | HwAction::Track { .. })
    }
}

/// Why an action does not decode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ActionError {
    /// Index of the action.
    pub index: usize,
    /// What is wrong.
    pub error: DecodeError,
}

/// An action in its slot, 24 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ActionSlot {
    /// Operation; see the `OP_` constants.
    pub op: u8,
    /// [`HwField`] of SET, [`Encap`] of POP_HEADER.
    pub field: u8,
    /// Port of OUTPUT; ingress port of POP_HEADER.
    pub port: u8,
    /// Zero.
    pub reserved: u8,
    /// Ethernet type of PUSH_VLAN.
    pub tpid: U16,
    /// Tag control information of PUSH_VLAN; zone of TRACK.
    pub tci: U16,
    /// Value of SET; number of a meter, header or group; recirculation id of TRACK.
    pub value: U64,
    /// Mask of SET.
    pub mask: U64,
}

/// Table entry, 752 bytes (SPEC 6.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct FlowEntry {
    /// The key; no bits outside the mask.
    pub key: KeyBytes,
    /// The mask in the ternary table; zero in the exact table, where the profile has it.
    pub mask: KeyBytes,
    /// The host's; returned by DUMP.
    pub cookie: U64,
    /// Slots used, 0 to 16. None: the frame is dropped.
    pub action_count: u8,
    /// Zero.
    pub reserved: [u8; 7],
    /// The actions, in order; unused slots zero.
    pub actions: [ActionSlot; MAX_ACTIONS],
}

const _: () = assert!(size_of::<ActionSlot>() == 24);
const _: () = assert!(size_of::<FlowEntry>() == 752);
const _: () = assert!(key::BROUGHT.end == KEY_BYTES && key::IP6_DST.end == key::BROUGHT.start);

/// Operation OUTPUT.
pub const OP_OUTPUT: u8 = 1;
/// Operation TO_HOST.
pub const OP_TO_HOST: u8 = 2;
/// Operation SET.
pub const OP_SET: u8 = 3;
/// Operation DEC_TTL.
pub const OP_DEC_TTL: u8 = 4;
/// Operation PUSH_VLAN.
pub const OP_PUSH_VLAN: u8 = 5;
/// Operation POP_VLAN.
pub const OP_POP_VLAN: u8 = 6;
/// Operation METER.
pub const OP_METER: u8 = 7;
/// Operation PUSH_HEADER.
pub const OP_PUSH_HEADER: u8 = 8;
/// Operation POP_HEADER.
pub const OP_POP_HEADER: u8 = 9;
/// Operation TRACK.
pub const OP_TRACK: u8 = 11;
/// Operation REPLICATE.
pub const OP_REPLICATE: u8 = 10;

impl HwAction {
    /// The slot that says so.
    pub fn encode(&self) -> ActionSlot {
        let mut s = ActionSlot::new_zeroed();
        match *self {
            HwAction::Output { port } => (s.op, s.port) = (OP_OUTPUT, port),
            HwAction::ToHost => s.op = OP_TO_HOST,
            HwAction::Set(f) => {
                (s.op, s.field) = (OP_SET, f.field as u8);
                (s.value, s.mask) = (f.value.into(), f.mask.into());
            }
            HwAction::DecTtl => s.op = OP_DEC_TTL,
            HwAction::PushVlan { tpid, tci } => {
                s.op = OP_PUSH_VLAN;
                (s.tpid, s.tci) = (tpid.into(), tci.into());
            }
            HwAction::PopVlan => s.op = OP_POP_VLAN,
            HwAction::Meter { meter } => (s.op, s.value) = (OP_METER, u64::from(meter).into()),
            HwAction::PushHeader { header } => (s.op, s.value) = (OP_PUSH_HEADER, u64::from(header).into()),
            HwAction::Track { zone, recirc } => {
                (s.op, s.tci, s.value) = (OP_TRACK, zone.into(), u64::from(recirc).into());
            }
            HwAction::Replicate { group } => (s.op, s.value) = (OP_REPLICATE, u64::from(group).into()),
            HwAction::PopHeader { kind, port } => (s.op, s.field, s.port) = (OP_POP_HEADER, kind as u8, port),
        }
        s
    }

    /// What a slot says.
    ///
    /// # Errors
    /// [`DecodeError::Invalid`] for an undefined operation or field, a value outside its mask, a mask wider than the
    /// field or empty, a TPID that is not a VLAN's, a TCI with bit 12. The port's existence is for the device to check.
    pub fn decode(s: &ActionSlot) -> Result<HwAction, DecodeError> {
        let invalid = |field, value| Err(DecodeError::Invalid { field, value });
        Ok(match s.op {
            OP_OUTPUT => HwAction::Output { port: s.port },
            OP_TO_HOST => HwAction::ToHost,
            OP_SET => {
                let field = HwField::try_from(s.field)?;
                let (value, mask) = (s.value.get(), s.mask.get());
                if mask == 0 || mask & !field.max() != 0 {
                    return invalid("set mask", mask);
                }
                if value & !mask != 0 {
                    return invalid("set value", value);
                }
                HwAction::Set(SetField { field, value, mask })
            }
            OP_DEC_TTL => HwAction::DecTtl,
            OP_PUSH_VLAN => {
                let (tpid, tci) = (s.tpid.get(), s.tci.get());
                if tpid != 0x8100 && tpid != 0x88a8 {
                    return invalid("tpid", tpid.into());
                }
                if tci & key::VLAN_PRESENT != 0 {
                    return invalid("tci", tci.into());
                }
                HwAction::PushVlan { tpid, tci }
            }
            OP_POP_VLAN => HwAction::PopVlan,
            OP_METER | OP_PUSH_HEADER | OP_REPLICATE => match u16::try_from(s.value.get()) {
                Ok(meter) if s.op == OP_METER => HwAction::Meter { meter },
                Ok(group) if s.op == OP_REPLICATE => HwAction::Replicate { group },
                Ok(header) => HwAction::PushHeader { header },
                Err(_) => return invalid("object number", s.value.get()),
            },
            OP_POP_HEADER => HwAction::PopHeader { kind: Encap::try_from(s.field)?, port: s.port },
            OP_TRACK => match u32::try_from(s.value.get()) {
                Ok(recirc) => HwAction::Track { zone: s.tci.get(), recirc },
                Err(_) => return invalid("recirculation id", s.value.get()),
            },
            op => return invalid("action", op.into()),
        })
    }
}

impl FlowEntry {
    /// Size in bytes.
    pub const BYTES: usize = size_of::<Self>();

    /// An entry; `None` with more than [`MAX_ACTIONS`] actions.
    pub fn new(key: KeyBytes, mask: KeyBytes, cookie: u64, actions: &[HwAction]) -> Option<Self> {
        if actions.len() > MAX_ACTIONS {
            return None;
        }
        let mut e = FlowEntry::new_zeroed();
        (e.key, e.mask, e.cookie) = (key, mask, cookie.into());
        e.action_count = actions.len() as u8;
        for (s, a) in e.actions.iter_mut().zip(actions) {
            *s = a.encode();
        }
        Some(e)
    }

    /// Takes one from the front of `b`. Key and actions are checked by whoever reads them.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`].
    pub fn decode(b: &[u8]) -> Result<Self, DecodeError> {
        front(b)
    }

    /// The actions.
    ///
    /// # Errors
    /// The first that is not defined; more outputs than [`MAX_OUTPUTS`], at the one too many; more than [`MAX_ACTIONS`]; one that
    /// sends the frame round again beside others.
    pub fn actions(&self) -> Result<Vec<HwAction>, ActionError> {
        let n = usize::from(self.action_count);
        let used = self.actions.get(..n).ok_or(ActionError {
            index: MAX_ACTIONS,
            error: DecodeError::Invalid { field: "action count", value: n as u64 },
        })?;
        let mut outputs = 0;
        used.iter()
            .enumerate()
            .map(|(index, s)| {
                let a = HwAction::decode(s).map_err(|error| ActionError { index, error })?;
                outputs += usize::from(a.is_output());
                if a.goes_on() && n > 1 {
                    let error = DecodeError::Invalid { field: "actions beside it", value: n as u64 };
                    return Err(ActionError { index, error });
                }
                if outputs > MAX_OUTPUTS {
                    let error = DecodeError::Invalid { field: "outputs", value: outputs as u64 };
                    return Err(ActionError { index, error });
                }
                Ok(a)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actions() -> Vec<HwAction> {
        vec![
            HwAction::PopVlan,
            HwAction::PushVlan { tpid: 0x88a8, tci: 0x6123 },
            HwAction::Set(SetField {
                field: HwField::EthDst,
                value: 0x0200_0000_0001,
                mask: 0xffff_ffff_ffff,
            }),
            HwAction::DecTtl,
            HwAction::Meter { meter: 7 },
            HwAction::Replicate { group: 9 },
            HwAction::PushHeader { header: 300 },
            HwAction::Output { port: 3 },
            HwAction::ToHost,
        ]
    }

    #[test]
    fn an_entry_round_trips() {
        let mut key = [0; KEY_BYTES];
        key[self::key::ETH_TYPE].copy_from_slice(&[8, 0]);
        let e = FlowEntry::new(key, [0; KEY_BYTES], 42, &actions()).unwrap();
        let d = FlowEntry::decode(e.as_bytes()).unwrap();
        assert_eq!(d, e);
        assert_eq!(d.actions().unwrap(), actions());
        assert!(FlowEntry::decode(&e.as_bytes()[..751]).is_err());
        assert!(FlowEntry::new(key, key, 0, &[HwAction::DecTtl; 17]).is_none());
    }

    #[test]
    fn undefined_actions_are_refused_at_their_index() {
        let mut e = FlowEntry::new([0; KEY_BYTES], [0; KEY_BYTES], 0, &actions()).unwrap();
        e.actions[3].op = 77;
        let want = ActionError { index: 3, error: DecodeError::Invalid { field: "action", value: 77 } };
        assert_eq!(e.actions(), Err(want));
        e.action_count = 17;
        assert_eq!(e.actions().unwrap_err().index, MAX_ACTIONS);
    }

    #[test]
    fn what_sends_a_frame_round_again_is_alone_in_its_entry() {
        let pop = HwAction::PopHeader { kind: Encap::Geneve, port: 77 };
        let of = |a: &[HwAction]| FlowEntry::new([0; KEY_BYTES], [0; KEY_BYTES], 0, a).unwrap().actions();
        assert_eq!(of(&[pop]).unwrap(), [pop]);
        assert_eq!(of(&[HwAction::DecTtl, pop]).unwrap_err().index, 1);
        let track = HwAction::Track { zone: 0xfffe, recirc: 0x8000_0001 };
        assert_eq!(of(&[track]).unwrap(), [track]);
        assert_eq!(of(&[track, pop]).unwrap_err().index, 0);
        let mut s = pop.encode();
        s.field = 4;
        assert!(HwAction::decode(&s).is_err());
    }

    #[test]
    fn set_arguments_outside_the_field_are_refused() {
        let set = |field: HwField, value, mask| HwAction::Set(SetField { field, value, mask }).encode();
        assert!(HwAction::decode(&set(HwField::Tos, 0, 0x100)).is_err());
        assert!(HwAction::decode(&set(HwField::Tos, 2, 1)).is_err());
        assert!(HwAction::decode(&set(HwField::Tos, 0, 0)).is_err());
        assert!(HwAction::decode(&set(HwField::VlanTci, 0x1000, 0x1000)).is_err());
        assert!(HwAction::decode(&HwAction::PushVlan { tpid: 0x800, tci: 1 }.encode()).is_err());
        assert!(HwAction::decode(&HwAction::PushVlan { tpid: 0x8100, tci: 0x1001 }.encode()).is_err());
    }

    #[test]
    fn nine_outputs_are_one_too_many() {
        let e =
            FlowEntry::new([0; KEY_BYTES], [0; KEY_BYTES], 0, &[HwAction::Output { port: 0 }; 9]).unwrap();
        assert_eq!(e.actions().unwrap_err().index, 8);
    }

    #[test]
    fn keys_outside_their_mask_and_reserved_bytes_are_found() {
        let (mut k, mut m) = ([0u8; KEY_BYTES], [0u8; KEY_BYTES]);
        m[4] = 0xf0;
        k[4] = 0x10;
        assert_eq!(key_defect(&k, &m), None);
        k[4] = 0x11;
        assert_eq!(key_defect(&k, &m), Some(4));
        k[4] = 0;
        m[27] = 1;
        assert_eq!(key_defect(&k, &m), Some(27));
    }
}
