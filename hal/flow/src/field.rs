//! The field table: the one place that says what a field is called, how wide it is, where it lies in a key, what must
//! hold for it to exist, and who can see it.
//!
//! A key is an array of 64-bit words in host byte order; a field is a run of bits in one word (or two whole words for
//! 128-bit fields, most significant word first). Fields that cannot be present together share bits (`arp_op` and
//! `nw_proto`, `icmp_type` and `tp_src`), so keys stay short.
//!
//! *Canonical* fields tile the words; *views* are other names for (parts of) a canonical field: `vlan_vid` is 13 bits of
//! `vlan_tci`, `tcp_dst` is `tp_dst` of a TCP packet. Datapath actions and hardware capabilities speak of canonical
//! fields only ([`Field::canon`]).
//!
//! Tunnel options are views of another kind: `tun_metadata0` to `tun_metadata63` have no place of their own, but each gets one among
//! the words for options when a controller says which option it means ([`crate::tunnel::options`]).
//!
//! Words of scope [`Scope::Packet`] come first, so that a packet key is a prefix of a pipeline key.
//!
//! What nearly every packet has is in the first words: a core reads keys by the burst, and those of plain frames are in one cache line
//! each. What is not read from the frame is together ([`METADATA`]), but for the port. The order of the table is that of texts and has
//! nothing to do with it.

use std::fmt;

use crate::key::{WordIter, WordSet};

/// Words in a [`crate::PacketKey`]: everything a datapath can see.
pub const PACKET_WORDS: usize = 53;
/// Words that are not read from the frame: what it begins with, marks, connection, tunnel. So is word 0, with the port and the recirculation id, and so
/// are those for a tunnel's options.
pub const METADATA: std::ops::Range<usize> =
    FieldId::PacketType.first_word()..FieldId::TunGbpId.first_word() + 1;
/// Words in a [`crate::PipelineKey`]: packet words, then what only the OpenFlow pipeline has.
pub const PIPELINE_WORDS: usize = 64;

/// Who can see a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// A datapath (software or hardware) and the pipeline.
    Packet,
    /// The OpenFlow pipeline only: registers, metadata, OpenFlow port numbers.
    Pipeline,
}

/// What must hold for a field to exist in a packet (OpenFlow 1.3.5 7.2.3.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prereq {
    /// Always there.
    None,
    /// A VLAN tag is present (`vlan_tci` has its present bit).
    Vlan,
    /// Ethernet type 0x0800.
    Ipv4,
    /// Ethernet type 0x86dd.
    Ipv6,
    /// IPv4 or IPv6.
    Ip,
    /// Ethernet type 0x0806 or 0x8035.
    Arp,
    /// Ethernet type 0x8847 or 0x8848.
    Mpls,
    /// Ethernet type 0x894f.
    Nsh,
    /// IP protocol 6.
    Tcp,
    /// IP protocol 17.
    Udp,
    /// IP protocol 132.
    Sctp,
    /// TCP, UDP or SCTP.
    Ports,
    /// IPv4 with protocol 1.
    Icmp4,
    /// IPv6 with protocol 58.
    Icmp6,
    /// ICMPv6 neighbour solicitation or advertisement (types 135, 136).
    Nd,
    /// ICMPv6 neighbour solicitation.
    NdSolicit,
    /// ICMPv6 neighbour advertisement.
    NdAdvert,
}

/// How a field may be masked in an OpenFlow match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Maskable {
    /// All bits or none.
    Exact,
    /// Any bits.
    Any,
}

/// How a field's value is written in text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TextForm {
    /// Decimal number.
    Dec,
    /// `0x` number.
    Hex,
    /// `aa:bb:cc:dd:ee:ff`.
    Mac,
    /// Dotted quad.
    Ip4,
    /// RFC 5952 form.
    Ip6,
    /// OpenFlow port number or reserved name.
    Port,
    /// `+trk-new` flags of connection tracking.
    CtState,
    /// `no`, `first`, `later`, `yes`, `not_later`.
    Frag,
    /// `+syn-ack` or number: TCP flags.
    TcpFlags,
    /// Tunnel flags (`oam`, `df`, `csum`, `key`).
    TunFlags,
    /// `(ns,type)`.
    PacketType,
}

/// One row of the field table.
#[derive(Debug)]
pub struct Field {
    /// The field.
    pub id: FieldId,
    /// Name in flow syntax as `ovs-ofctl` prints it (`dl_src`, `nw_proto`).
    pub name: &'static str,
    /// The other accepted name, usually that of OpenFlow 1.2 and later (`eth_src`, `ip_proto`); empty when there is none.
    pub alt_name: &'static str,
    /// Width in bits, 1 to 128.
    pub bits: u8,
    /// Index of the first word.
    pub word: u8,
    /// Position of the least significant bit in the word; 0 for 128-bit fields.
    pub shift: u8,
    /// The canonical field these bits belong to; `id` itself when canonical.
    pub canon: FieldId,
    /// Who can see it.
    pub scope: Scope,
    /// What must hold for it to exist.
    pub prereq: Prereq,
    /// How it may be masked in OpenFlow.
    pub mask: Maskable,
    /// How it is written.
    pub text: TextForm,
    /// OXM class and number (`class << 8 | field`), zero when there is none. Sources: OpenFlow 1.3.5 7.2.3.7 (class
    /// 0x8000), OpenFlow 1.5.1 7.2.3.7, Nicira extensions (classes 0 and 1).
    pub oxm: u32,
    /// Nicira NXM class and number, zero class included: `Some(class << 8 | field)`.
    pub nxm: Option<u32>,
    /// Whether an action may write it.
    pub writable: bool,
}

macro_rules! fields {
    ($( $id:ident $name:literal $alt:literal $bits:literal @ $word:literal : $shift:literal
        $canon:ident $scope:ident $prereq:ident $mask:ident $text:ident $oxm:literal $nxm:expr, $w:ident; )*) => {
        /// Names a field of the table.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum FieldId { $( $id, )* }

        /// Every field, in table order; `FIELDS[id as usize].id == id`.
        pub static FIELDS: &[Field] = &[
            $( Field { id: FieldId::$id, name: $name, alt_name: $alt, bits: $bits, word: $word, shift: $shift,
                canon: FieldId::$canon, scope: Scope::$scope, prereq: Prereq::$prereq, mask: Maskable::$mask,
                text: TextForm::$text, oxm: $oxm, nxm: $nxm, writable: fields!(@w $w) }, )*
        ];
    };
    (@w rw) => { true };
    (@w ro) => { false };
}

/// Shorthand for an NXM number in the table.
const fn n(class: u32, field: u32) -> Option<u32> {
    Some(class << 8 | field)
}

fields! {
//  id           name            alt            bits word:shift canon    scope   prereq  mask  text   oxm        nxm, writable
    DpPort       "dp_in_port"    ""             32 @ 0:32   DpPort       Packet   None    Exact Dec    0          None, ro;
    RecircId     "recirc_id"     ""             32 @ 0:0    RecircId     Packet   None    Exact Hex    0          n(1, 36), ro;
    PktMark      "pkt_mark"      ""             32 @ 18:32  PktMark      Packet   None    Any   Hex    0          n(1, 33), rw;
    DpHash       "dp_hash"       ""             32 @ 18:0   DpHash       Packet   None    Any   Hex    0          n(1, 35), ro;
    CtState      "ct_state"      ""             16 @ 19:48  CtState      Packet   None    Any   CtState 0         n(1, 105), ro;
    CtZone       "ct_zone"       ""             16 @ 19:32  CtZone       Packet   None    Exact Dec    0          n(1, 106), ro;
    CtMark       "ct_mark"       ""             32 @ 19:0   CtMark       Packet   None    Any   Hex    0          n(1, 107), rw;
    CtLabel      "ct_label"      ""            128 @ 20:0   CtLabel      Packet   None    Any   Hex    0          n(1, 108), rw;
    CtNwSrc      "ct_nw_src"     ""             32 @ 22:32  CtNwSrc      Packet   None    Any   Ip4    0          n(1, 120), ro;
    CtNwDst      "ct_nw_dst"     ""             32 @ 22:0   CtNwDst      Packet   None    Any   Ip4    0          n(1, 121), ro;
    CtIpv6Src    "ct_ipv6_src"   ""            128 @ 23:0   CtIpv6Src    Packet   None    Any   Ip6    0          n(1, 122), ro;
    CtIpv6Dst    "ct_ipv6_dst"   ""            128 @ 25:0   CtIpv6Dst    Packet   None    Any   Ip6    0          n(1, 123), ro;
    CtTpSrc      "ct_tp_src"     ""             16 @ 27:48  CtTpSrc      Packet   None    Any   Dec    0          n(1, 124), ro;
    CtTpDst      "ct_tp_dst"     ""             16 @ 27:32  CtTpDst      Packet   None    Any   Dec    0          n(1, 125), ro;
    CtNwProto    "ct_nw_proto"   ""              8 @ 27:24  CtNwProto    Packet   None    Exact Dec    0          n(1, 119), ro;
    TunErspanIdx "tun_erspan_idx" ""            20 @ 27:0  TunErspanIdx Packet   None    Any   Hex    0          None, rw;
    TunErspanVer "tun_erspan_ver" ""             4 @ 27:20 TunErspanVer Packet   None    Any   Dec    0          None, rw;
    TunId        "tun_id"        "tunnel_id"    64 @ 28:0   TunId        Packet   None    Any   Hex    0x800026   n(1, 16), rw;
    TunSrc       "tun_src"       ""             32 @ 29:32  TunSrc       Packet   None    Any   Ip4    0          n(1, 31), rw;
    TunDst       "tun_dst"       ""             32 @ 29:0   TunDst       Packet   None    Any   Ip4    0          n(1, 32), rw;
    TunFlags     "tun_flags"     ""             16 @ 30:48  TunFlags     Packet   None    Any   TunFlags 0        n(1, 104), rw;
    TunTos       "tun_tos"       ""              8 @ 30:40  TunTos       Packet   None    Exact Hex    0          None, rw;
    TunTtl       "tun_ttl"       ""              8 @ 30:32  TunTtl       Packet   None    Exact Dec    0          None, rw;
    TunTpSrc     "tun_tp_src"    ""             16 @ 30:16  TunTpSrc     Packet   None    Any   Dec    0          None, rw;
    TunTpDst     "tun_tp_dst"    ""             16 @ 30:0   TunTpDst     Packet   None    Any   Dec    0          None, rw;
    TunIpv6Src   "tun_ipv6_src"  ""            128 @ 31:0   TunIpv6Src   Packet   None    Any   Ip6    0          n(1, 109), rw;
    TunIpv6Dst   "tun_ipv6_dst"  ""            128 @ 33:0   TunIpv6Dst   Packet   None    Any   Ip6    0          n(1, 110), rw;
    TunGbpId     "tun_gbp_id"    ""             16 @ 35:48  TunGbpId     Packet   None    Any   Dec    0          n(1, 38), rw;
    SkbPriority  "skb_priority"  ""             32 @ 35:0   SkbPriority  Packet   None    Exact Hex    0          None, rw;
    TunGbpFlags  "tun_gbp_flags" ""              8 @ 35:40  TunGbpFlags  Packet   None    Any   Hex    0          n(1, 39), rw;
    TunGtpuFlags "tun_gtpu_flags" "gtpu_flags"   8 @ 35:32 TunGtpuFlags Packet   None    Any   Hex    0          None, ro;
    EthDst       "dl_dst"        "eth_dst"      48 @ 1:16   EthDst       Packet   None    Any   Mac    0x800003   n(0, 1), rw;
    EthType      "dl_type"       "eth_type"     16 @ 1:0    EthType      Packet   None    Exact Hex    0x800005   n(0, 3), ro;
    EthSrc       "dl_src"        "eth_src"      48 @ 2:16   EthSrc       Packet   None    Any   Mac    0x800004   n(0, 2), rw;
    VlanTci      "vlan_tci"      ""             16 @ 3:48   VlanTci      Packet   None    Any   Hex    0          n(0, 4), rw;
    VlanTpid     "vlan_tpid"     ""             16 @ 3:32   VlanTpid     Packet   Vlan    Exact Hex    0          None, ro;
    VlanTci2     "vlan_tci2"     ""             16 @ 3:16   VlanTci2     Packet   Vlan    Any   Hex    0          None, ro;
    VlanTpid2    "vlan_tpid2"    ""             16 @ 3:0    VlanTpid2    Packet   Vlan    Exact Hex    0          None, ro;
    PacketType   "packet_type"   ""             32 @ 17:32  PacketType   Packet   None    Exact PacketType 0x80002c None, ro;
    TunErspanDir "tun_erspan_dir" ""             1 @ 17:0  TunErspanDir Packet   None    Any   Dec    0          None, rw;
    TunErspanHwid "tun_erspan_hwid" ""           6 @ 17:8  TunErspanHwid Packet  None    Any   Hex    0          None, rw;
    TunGtpuMsgtype "tun_gtpu_msgtype" "gtpu_msgtype" 8 @ 17:16 TunGtpuMsgtype Packet None Any   Dec    0          None, ro;
    MplsLse0     "mpls_lse"      "mpls_lse0"    32 @ 7:32   MplsLse0     Packet   Mpls    Any   Hex    0          None, ro;
    MplsLse1     "mpls_lse1"     ""             32 @ 7:0    MplsLse1     Packet   Mpls    Any   Hex    0          None, ro;
    MplsLse2     "mpls_lse2"     ""             32 @ 8:32   MplsLse2     Packet   Mpls    Any   Hex    0          None, ro;
    NwSrc        "nw_src"        "ip_src"       32 @ 4:32   NwSrc        Packet   Ipv4    Any   Ip4    0x80000b   n(0, 7), rw;
    NwDst        "nw_dst"        "ip_dst"       32 @ 4:0    NwDst        Packet   Ipv4    Any   Ip4    0x80000c   n(0, 8), rw;
    Ipv6Src      "ipv6_src"      ""            128 @ 9:0    Ipv6Src      Packet   Ipv6    Any   Ip6    0x80001a   n(1, 19), rw;
    Ipv6Dst      "ipv6_dst"      ""            128 @ 11:0   Ipv6Dst      Packet   Ipv6    Any   Ip6    0x80001b   n(1, 20), rw;
    Ipv6Label    "ipv6_label"    "ipv6_flabel"  20 @ 5:32   Ipv6Label    Packet   Ipv6    Any   Hex    0x80001c   n(1, 27), rw;
    NwProto      "nw_proto"      "ip_proto"      8 @ 5:24   NwProto      Packet   Ip      Exact Dec    0x80000a   n(0, 6), ro;
    NwTos        "nw_tos"        ""              8 @ 5:16   NwTos        Packet   Ip      Exact Dec    0          n(0, 5), rw;
    NwTtl        "nw_ttl"        "ip_ttl"        8 @ 5:8    NwTtl        Packet   Ip      Exact Dec    0          n(1, 29), rw;
    NwFrag       "nw_frag"       "ip_frag"       8 @ 5:0    NwFrag       Packet   Ip      Any   Frag   0          n(1, 26), ro;
    ArpSha       "arp_sha"       ""             48 @ 13:16  ArpSha       Packet   Arp     Any   Mac    0x800018   n(1, 17), rw;
    ArpTha       "arp_tha"       ""             48 @ 14:16  ArpTha       Packet   Arp     Any   Mac    0x800019   n(1, 18), rw;
    NdTarget     "nd_target"     "ipv6_nd_target" 128 @ 15:0   NdTarget   Packet   Nd      Any   Ip6    0x80001f   n(1, 23), rw;
    TpSrc        "tp_src"        ""             16 @ 6:48   TpSrc        Packet   Ports   Any   Dec    0          None, rw;
    TpDst        "tp_dst"        ""             16 @ 6:32   TpDst        Packet   Ports   Any   Dec    0          None, rw;
    TcpFlags     "tcp_flags"     ""             12 @ 6:16   TcpFlags     Packet   Tcp     Any   TcpFlags 0x80002a n(1, 34), ro;
    // Tunnel options: which are there, and their bytes; see `crate::tunnel::options`.
    TunOptions   "tun_options"   ""             64 @ 36:0   TunOptions   Packet   None    Any   Hex    0          None, ro;
    TunOption0   "tun_option0"   ""             64 @ 37:0   TunOption0   Packet   None    Any   Hex    0          None, ro;
    TunOption1   "tun_option1"   ""             64 @ 38:0   TunOption1   Packet   None    Any   Hex    0          None, ro;
    TunOption2   "tun_option2"   ""             64 @ 39:0   TunOption2   Packet   None    Any   Hex    0          None, ro;
    TunOption3   "tun_option3"   ""             64 @ 40:0   TunOption3   Packet   None    Any   Hex    0          None, ro;
    TunOption4   "tun_option4"   ""             64 @ 41:0   TunOption4   Packet   None    Any   Hex    0          None, ro;
    TunOption5   "tun_option5"   ""             64 @ 42:0   TunOption5   Packet   None    Any   Hex    0          None, ro;
    TunOption6   "tun_option6"   ""             64 @ 43:0   TunOption6   Packet   None    Any   Hex    0          None, ro;
    TunOption7   "tun_option7"   ""             64 @ 44:0   TunOption7   Packet   None    Any   Hex    0          None, ro;
    TunOption8   "tun_option8"   ""             64 @ 45:0   TunOption8   Packet   None    Any   Hex    0          None, ro;
    TunOption9   "tun_option9"   ""             64 @ 46:0   TunOption9   Packet   None    Any   Hex    0          None, ro;
    TunOption10  "tun_option10"  ""             64 @ 47:0   TunOption10  Packet   None    Any   Hex    0          None, ro;
    TunOption11  "tun_option11"  ""             64 @ 48:0   TunOption11  Packet   None    Any   Hex    0          None, ro;
    TunOption12  "tun_option12"  ""             64 @ 49:0   TunOption12  Packet   None    Any   Hex    0          None, ro;
    TunOption13  "tun_option13"  ""             64 @ 50:0   TunOption13  Packet   None    Any   Hex    0          None, ro;
    TunOption14  "tun_option14"  ""             64 @ 51:0   TunOption14  Packet   None    Any   Hex    0          None, ro;
    TunOption15  "tun_option15"  ""             64 @ 52:0   TunOption15  Packet   None    Any   Hex    0          None, ro;
    // Pipeline scope.
    InPort       "in_port"       "in_port_oxm"  32 @ 53:32  InPort       Pipeline None    Exact Port   0x800000   n(0, 0), rw;
    ActsetOutput "actset_output" ""             32 @ 53:0   ActsetOutput Pipeline None    Exact Port   0x80002b   None, ro;
    Metadata     "metadata"      ""             64 @ 54:0   Metadata     Pipeline None    Any   Hex    0x800002   None, rw;
    Reg0         "reg0"          ""             32 @ 55:32  Reg0         Pipeline None    Any   Hex    0          n(1, 0), rw;
    Reg1         "reg1"          ""             32 @ 55:0   Reg1         Pipeline None    Any   Hex    0          n(1, 1), rw;
    Reg2         "reg2"          ""             32 @ 56:32  Reg2         Pipeline None    Any   Hex    0          n(1, 2), rw;
    Reg3         "reg3"          ""             32 @ 56:0   Reg3         Pipeline None    Any   Hex    0          n(1, 3), rw;
    Reg4         "reg4"          ""             32 @ 57:32  Reg4         Pipeline None    Any   Hex    0          n(1, 4), rw;
    Reg5         "reg5"          ""             32 @ 57:0   Reg5         Pipeline None    Any   Hex    0          n(1, 5), rw;
    Reg6         "reg6"          ""             32 @ 58:32  Reg6         Pipeline None    Any   Hex    0          n(1, 6), rw;
    Reg7         "reg7"          ""             32 @ 58:0   Reg7         Pipeline None    Any   Hex    0          n(1, 7), rw;
    Reg8         "reg8"          ""             32 @ 59:32  Reg8         Pipeline None    Any   Hex    0          n(1, 8), rw;
    Reg9         "reg9"          ""             32 @ 59:0   Reg9         Pipeline None    Any   Hex    0          n(1, 9), rw;
    Reg10        "reg10"         ""             32 @ 60:32  Reg10        Pipeline None    Any   Hex    0          n(1, 10), rw;
    Reg11        "reg11"         ""             32 @ 60:0   Reg11        Pipeline None    Any   Hex    0          n(1, 11), rw;
    Reg12        "reg12"         ""             32 @ 61:32  Reg12        Pipeline None    Any   Hex    0          n(1, 12), rw;
    Reg13        "reg13"         ""             32 @ 61:0   Reg13        Pipeline None    Any   Hex    0          n(1, 13), rw;
    Reg14        "reg14"         ""             32 @ 62:32  Reg14        Pipeline None    Any   Hex    0          n(1, 14), rw;
    Reg15        "reg15"         ""             32 @ 62:0   Reg15        Pipeline None    Any   Hex    0          n(1, 15), rw;
    ConjId       "conj_id"       ""             32 @ 63:32  ConjId       Pipeline None    Exact Dec    0          n(1, 37), ro;
    // Views of the fields above.
    VlanVid      "vlan_vid"      ""             13 @ 3:48   VlanTci      Packet   None    Any   Dec    0x800006   None, rw;
    VlanPcp      "dl_vlan_pcp"   "vlan_pcp"      3 @ 3:61   VlanTci      Packet   Vlan    Exact Dec    0x800007   None, rw;
    MplsLabel    "mpls_label"    ""             20 @ 7:44   MplsLse0     Packet   Mpls    Exact Dec    0x800022   None, rw;
    MplsTc       "mpls_tc"       ""              3 @ 7:41   MplsLse0     Packet   Mpls    Exact Dec    0x800023   None, rw;
    MplsBos      "mpls_bos"      ""              1 @ 7:40   MplsLse0     Packet   Mpls    Exact Dec    0x800024   None, ro;
    MplsTtl      "mpls_ttl"      ""              8 @ 7:32   MplsLse0     Packet   Mpls    Exact Dec    0          n(1, 30), rw;
    IpDscp       "ip_dscp"       ""              6 @ 5:18   NwTos        Packet   Ip      Exact Dec    0x800008   None, rw;
    IpEcn        "nw_ecn"        "ip_ecn"        2 @ 5:16   NwTos        Packet   Ip      Exact Dec    0x800009   n(1, 28), rw;
    ArpOp        "arp_op"        ""              8 @ 5:24   NwProto      Packet   Arp     Exact Dec    0x800015   n(0, 15), rw;
    ArpSpa       "arp_spa"       ""             32 @ 4:32   NwSrc        Packet   Arp     Any   Ip4    0x800016   n(0, 16), rw;
    ArpTpa       "arp_tpa"       ""             32 @ 4:0    NwDst        Packet   Arp     Any   Ip4    0x800017   n(0, 17), rw;
    TcpSrc       "tcp_src"       ""             16 @ 6:48   TpSrc        Packet   Tcp     Any   Dec    0x80000d   n(0, 9), rw;
    TcpDst       "tcp_dst"       ""             16 @ 6:32   TpDst        Packet   Tcp     Any   Dec    0x80000e   n(0, 10), rw;
    UdpSrc       "udp_src"       ""             16 @ 6:48   TpSrc        Packet   Udp     Any   Dec    0x80000f   n(0, 11), rw;
    UdpDst       "udp_dst"       ""             16 @ 6:32   TpDst        Packet   Udp     Any   Dec    0x800010   n(0, 12), rw;
    SctpSrc      "sctp_src"      ""             16 @ 6:48   TpSrc        Packet   Sctp    Any   Dec    0x800011   None, rw;
    SctpDst      "sctp_dst"      ""             16 @ 6:32   TpDst        Packet   Sctp    Any   Dec    0x800012   None, rw;
    Icmp4Type    "icmp_type"     ""              8 @ 6:48   TpSrc        Packet   Icmp4   Exact Dec    0x800013   n(0, 13), rw;
    Icmp4Code    "icmp_code"     ""              8 @ 6:32   TpDst        Packet   Icmp4   Exact Dec    0x800014   n(0, 14), rw;
    Icmp6Type    "icmpv6_type"   ""              8 @ 6:48   TpSrc        Packet   Icmp6   Exact Dec    0x80001d   n(1, 21), rw;
    Icmp6Code    "icmpv6_code"   ""              8 @ 6:32   TpDst        Packet   Icmp6   Exact Dec    0x80001e   n(1, 22), rw;
    NdSll        "nd_sll"        "ipv6_nd_sll"  48 @ 13:16  ArpSha       Packet   NdSolicit Any Mac    0x800020   n(1, 24), rw;
    NdTll        "nd_tll"        "ipv6_nd_tll"  48 @ 14:16  ArpTha       Packet   NdAdvert Any  Mac    0x800021   n(1, 25), rw;
    // Network service headers, in the place of labels and of neighbour discovery; see `crate::nsh`.
    NshFlags     "nsh_flags"     ""              8 @ 7:56   MplsLse0     Packet   Nsh     Any   Dec    0          None, rw;
    NshTtl       "nsh_ttl"       ""              8 @ 7:48   MplsLse0     Packet   Nsh     Exact Dec    0          None, rw;
    NshMdtype    "nsh_mdtype"    ""              8 @ 7:40   MplsLse0     Packet   Nsh     Exact Dec    0          None, ro;
    NshNp        "nsh_np"        ""              8 @ 7:32   MplsLse0     Packet   Nsh     Exact Dec    0          None, ro;
    NshSpi       "nsh_spi"       "nsp"          24 @ 7:8    MplsLse1     Packet   Nsh     Exact Hex    0          None, rw;
    NshSi        "nsh_si"        "nsi"           8 @ 7:0    MplsLse1     Packet   Nsh     Exact Dec    0          None, rw;
    NshC1        "nsh_c1"        "nshc1"        32 @ 15:32  NdTarget     Packet   Nsh     Any   Hex    0          None, rw;
    NshC2        "nsh_c2"        "nshc2"        32 @ 15:0   NdTarget     Packet   Nsh     Any   Hex    0          None, rw;
    NshC3        "nsh_c3"        "nshc3"        32 @ 16:32  NdTarget     Packet   Nsh     Any   Hex    0          None, rw;
    NshC4        "nsh_c4"        "nshc4"        32 @ 16:0   NdTarget     Packet   Nsh     Any   Hex    0          None, rw;
    Xreg0        "xreg0"         ""             64 @ 55:0   Reg0         Pipeline None    Any   Hex    0x800100   None, rw;
    Xreg1        "xreg1"         ""             64 @ 56:0   Reg2         Pipeline None    Any   Hex    0x800101   None, rw;
    Xreg2        "xreg2"         ""             64 @ 57:0   Reg4         Pipeline None    Any   Hex    0x800102   None, rw;
    Xreg3        "xreg3"         ""             64 @ 58:0   Reg6         Pipeline None    Any   Hex    0x800103   None, rw;
    Xreg4        "xreg4"         ""             64 @ 59:0   Reg8         Pipeline None    Any   Hex    0x800104   None, rw;
    Xreg5        "xreg5"         ""             64 @ 60:0   Reg10        Pipeline None    Any   Hex    0x800105   None, rw;
    Xreg6        "xreg6"         ""             64 @ 61:0   Reg12        Pipeline None    Any   Hex    0x800106   None, rw;
    Xreg7        "xreg7"         ""             64 @ 62:0   Reg14        Pipeline None    Any   Hex    0x800107   None, rw;
    Xxreg0       "xxreg0"        ""            128 @ 55:0   Reg0         Pipeline None    Any   Hex    0          n(1, 111), rw;
    Xxreg1       "xxreg1"        ""            128 @ 57:0   Reg4         Pipeline None    Any   Hex    0          n(1, 112), rw;
    Xxreg2       "xxreg2"        ""            128 @ 59:0   Reg8         Pipeline None    Any   Hex    0          n(1, 113), rw;
    Xxreg3       "xxreg3"        ""            128 @ 61:0   Reg12        Pipeline None    Any   Hex    0          n(1, 114), rw;
    TunMetadata0 "tun_metadata0" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 40), rw;
    TunMetadata1 "tun_metadata1" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 41), rw;
    TunMetadata2 "tun_metadata2" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 42), rw;
    TunMetadata3 "tun_metadata3" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 43), rw;
    TunMetadata4 "tun_metadata4" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 44), rw;
    TunMetadata5 "tun_metadata5" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 45), rw;
    TunMetadata6 "tun_metadata6" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 46), rw;
    TunMetadata7 "tun_metadata7" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 47), rw;
    TunMetadata8 "tun_metadata8" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 48), rw;
    TunMetadata9 "tun_metadata9" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 49), rw;
    TunMetadata10 "tun_metadata10" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 50), rw;
    TunMetadata11 "tun_metadata11" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 51), rw;
    TunMetadata12 "tun_metadata12" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 52), rw;
    TunMetadata13 "tun_metadata13" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 53), rw;
    TunMetadata14 "tun_metadata14" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 54), rw;
    TunMetadata15 "tun_metadata15" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 55), rw;
    TunMetadata16 "tun_metadata16" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 56), rw;
    TunMetadata17 "tun_metadata17" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 57), rw;
    TunMetadata18 "tun_metadata18" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 58), rw;
    TunMetadata19 "tun_metadata19" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 59), rw;
    TunMetadata20 "tun_metadata20" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 60), rw;
    TunMetadata21 "tun_metadata21" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 61), rw;
    TunMetadata22 "tun_metadata22" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 62), rw;
    TunMetadata23 "tun_metadata23" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 63), rw;
    TunMetadata24 "tun_metadata24" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 64), rw;
    TunMetadata25 "tun_metadata25" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 65), rw;
    TunMetadata26 "tun_metadata26" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 66), rw;
    TunMetadata27 "tun_metadata27" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 67), rw;
    TunMetadata28 "tun_metadata28" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 68), rw;
    TunMetadata29 "tun_metadata29" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 69), rw;
    TunMetadata30 "tun_metadata30" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 70), rw;
    TunMetadata31 "tun_metadata31" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 71), rw;
    TunMetadata32 "tun_metadata32" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 72), rw;
    TunMetadata33 "tun_metadata33" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 73), rw;
    TunMetadata34 "tun_metadata34" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 74), rw;
    TunMetadata35 "tun_metadata35" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 75), rw;
    TunMetadata36 "tun_metadata36" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 76), rw;
    TunMetadata37 "tun_metadata37" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 77), rw;
    TunMetadata38 "tun_metadata38" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 78), rw;
    TunMetadata39 "tun_metadata39" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 79), rw;
    TunMetadata40 "tun_metadata40" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 80), rw;
    TunMetadata41 "tun_metadata41" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 81), rw;
    TunMetadata42 "tun_metadata42" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 82), rw;
    TunMetadata43 "tun_metadata43" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 83), rw;
    TunMetadata44 "tun_metadata44" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 84), rw;
    TunMetadata45 "tun_metadata45" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 85), rw;
    TunMetadata46 "tun_metadata46" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 86), rw;
    TunMetadata47 "tun_metadata47" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 87), rw;
    TunMetadata48 "tun_metadata48" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 88), rw;
    TunMetadata49 "tun_metadata49" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 89), rw;
    TunMetadata50 "tun_metadata50" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 90), rw;
    TunMetadata51 "tun_metadata51" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 91), rw;
    TunMetadata52 "tun_metadata52" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 92), rw;
    TunMetadata53 "tun_metadata53" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 93), rw;
    TunMetadata54 "tun_metadata54" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 94), rw;
    TunMetadata55 "tun_metadata55" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 95), rw;
    TunMetadata56 "tun_metadata56" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 96), rw;
    TunMetadata57 "tun_metadata57" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 97), rw;
    TunMetadata58 "tun_metadata58" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 98), rw;
    TunMetadata59 "tun_metadata59" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 99), rw;
    TunMetadata60 "tun_metadata60" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 100), rw;
    TunMetadata61 "tun_metadata61" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 101), rw;
    TunMetadata62 "tun_metadata62" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 102), rw;
    TunMetadata63 "tun_metadata63" ""            128 @ 36:0   TunOptions   Packet   None    Any   Hex    0          n(1, 103), rw;
}

impl FieldId {
    /// The field's row.
    #[inline]
    pub const fn info(self) -> &'static Field {
        &FIELDS[self as usize]
    }

    /// Index of the first word that it is in.
    #[inline]
    pub const fn first_word(self) -> usize {
        self.info().word as usize
    }

    /// The field called `name` in flow syntax, by either of its names.
    pub fn by_name(name: &str) -> Option<FieldId> {
        FIELDS.iter().find(|f| f.name == name || (!f.alt_name.is_empty() && f.alt_name == name)).map(|f| f.id)
    }

    /// Register `n` (0 to 15).
    pub fn reg(n: u8) -> Option<FieldId> {
        (n < 16).then(|| FIELDS[FieldId::Reg0 as usize + usize::from(n)].id)
    }

    /// The number of a tunnel option's field (`tun_metadata3` is 3), `None` for any other. Where its bits are, and how many, is
    /// known to [`crate::tunnel::options`] only.
    #[inline(always)]
    pub const fn option(self) -> Option<u8> {
        match (self as u8).checked_sub(FieldId::TunMetadata0 as u8) {
            Some(n) if n < 64 => Some(n),
            _ => None,
        }
    }

    /// The field of tunnel option `n` (0 to 63).
    pub fn tun_metadata(n: u8) -> Option<FieldId> {
        (n < 64).then(|| FIELDS[FieldId::TunMetadata0 as usize + usize::from(n)].id)
    }

    /// Bits that a value of the field has: [`Field::bits`], but for tunnel options, which have as many as they are mapped to.
    #[inline]
    pub fn width(self) -> u16 {
        match self.option() {
            None => self.info().bits.into(),
            Some(n) => crate::tunnel::options::width(n),
        }
    }

    /// All ones of [`FieldId::width`]; of longer options the low 128 bits.
    #[inline]
    pub fn ones(self) -> u128 {
        match self.width() {
            128.. => u128::MAX,
            n => (1 << n) - 1,
        }
    }

    /// Whether it is not read from the frame, and is no port or recirculation id: marks, connection, tunnel and its options.
    #[inline]
    pub fn is_metadata(self) -> bool {
        METADATA.contains(&self.first_word()) || crate::tunnel::options::is_word(self)
    }

    /// Whether this is a canonical field, not a view.
    pub fn is_canonical(self) -> bool {
        self.info().canon == self
    }
}

impl fmt::Debug for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
    }
}

impl fmt::Display for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.info().name)
    }
}

impl Field {
    /// The all-ones value of this width.
    #[inline]
    pub const fn max(&self) -> u128 {
        if self.bits == 128 { u128::MAX } else { (1u128 << self.bits) - 1 }
    }

    /// [`Field::max`] of a field of at most 64 bits; all ones of wider ones.
    #[inline]
    pub(crate) const fn max64(&self) -> u64 {
        if self.bits >= 64 { u64::MAX } else { (1u64 << self.bits) - 1 }
    }

    /// How many words the field touches: 1, or 2 for 128-bit fields.
    #[inline]
    pub const fn words(&self) -> usize {
        if self.bits == 128 { 2 } else { 1 }
    }
}

/// The canonical fields that lie in one of `words`, in table order.
pub fn canonical_in(words: WordSet) -> impl Iterator<Item = &'static Field> {
    let places = WordIter(words).filter_map(|w| PLACES.get(w)).fold(0, |all, p| all | 1 << p);
    // A field of two words is met twice.
    let mut next = 0;
    let ranges = WordIter(places).filter_map(|p| IN_WORD.get(usize::from(*ORDER.get(p)?)));
    ranges.flat_map(|r| r.0..r.1).filter_map(move |i| {
        if i < next {
            return None;
        }
        next = i + 1;
        FIELDS.get(usize::from(i))
    })
}

/// Words in the order in which the table's fields lie in them.
static ORDER: [u8; PIPELINE_WORDS] = {
    let mut order = [0; PIPELINE_WORDS];
    let (mut i, mut next, mut seen) = (0, 0, 0u64);
    while i < FIELDS.len() {
        let f = &FIELDS[i];
        let mut w = f.word as usize;
        while w < f.word as usize + f.words() {
            if f.canon as u8 == f.id as u8 && seen >> w & 1 == 0 {
                seen |= 1 << w;
                order[next] = w as u8;
                next += 1;
            }
            w += 1;
        }
        i += 1;
    }
    order
};

/// The place of each word in [`ORDER`].
static PLACES: [u8; PIPELINE_WORDS] = {
    let mut places = [0; PIPELINE_WORDS];
    let mut i = 0;
    while i < PIPELINE_WORDS {
        places[ORDER[i] as usize] = i as u8;
        i += 1;
    }
    places
};

/// First canonical field of each word, and the one behind the last.
static IN_WORD: [(u8, u8); PIPELINE_WORDS] = {
    let mut ranges = [(u8::MAX, 0); PIPELINE_WORDS];
    let mut i = 0;
    while i < FIELDS.len() {
        let f = &FIELDS[i];
        if f.canon as u8 == f.id as u8 {
            let mut w = f.word as usize;
            while w < f.word as usize + f.words() {
                if ranges[w].0 == u8::MAX {
                    ranges[w].0 = i as u8;
                }
                ranges[w].1 = i as u8 + 1;
                w += 1;
            }
        }
        i += 1;
    }
    ranges
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_fields_are_found_by_their_words_in_table_order() {
        let all: Vec<_> = FIELDS.iter().filter(|f| f.id.is_canonical()).map(|f| f.id).collect();
        let found = |words| canonical_in(words).map(|f| f.id).collect::<Vec<_>>();
        assert_eq!(found(u64::MAX >> (64 - PIPELINE_WORDS)), all);
        for f in FIELDS.iter().filter(|f| f.id.is_canonical()) {
            for w in usize::from(f.word)..usize::from(f.word) + f.words() {
                let there = |g: &&FieldId| {
                    let g = g.info();
                    (usize::from(g.word)..usize::from(g.word) + g.words()).contains(&w)
                };
                assert_eq!(found(1 << w), all.iter().filter(there).copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn rows_are_in_order_and_fit_their_words() {
        for (i, f) in FIELDS.iter().enumerate() {
            assert_eq!(f.id as usize, i);
            assert!(f.bits == 128 && f.shift == 0 || f.bits <= 64 && f.bits + f.shift <= 64, "{}", f.name);
            let end = f.word as usize + f.words();
            match f.scope {
                Scope::Packet => assert!(end <= PACKET_WORDS, "{}", f.name),
                Scope::Pipeline => {
                    assert!(f.word as usize >= PACKET_WORDS && end <= PIPELINE_WORDS, "{}", f.name)
                }
            }
        }
    }

    #[test]
    fn canonical_fields_do_not_overlap_and_views_lie_in_theirs() {
        let mut used = [0u64; PIPELINE_WORDS];
        for f in FIELDS.iter().filter(|f| f.id.is_canonical()) {
            for w in 0..f.words() {
                let m = if f.bits >= 64 { u64::MAX } else { ((1u64 << f.bits) - 1) << f.shift };
                assert_eq!(used[f.word as usize + w] & m, 0, "{} overlaps", f.name);
                used[f.word as usize + w] |= m;
            }
        }
        for f in FIELDS.iter().filter(|f| !f.id.is_canonical()) {
            let c = f.canon.info();
            let words = c.word as usize..c.word as usize + c.words().max(f.words());
            assert!(words.contains(&(f.word as usize)), "{}", f.name);
            assert_eq!(f.scope, c.scope, "{}", f.name);
        }
    }

    #[test]
    fn names_and_numbers_are_unique() {
        let mut names = std::collections::HashSet::new();
        let mut oxm = std::collections::HashSet::new();
        for f in FIELDS {
            assert!(names.insert(f.name), "{}", f.name);
            assert!(f.alt_name.is_empty() || names.insert(f.alt_name), "{}", f.alt_name);
            assert!(f.oxm == 0 || oxm.insert(f.oxm), "{}", f.name);
            assert!(f.nxm.is_none_or(|n| oxm.insert(n)), "{}", f.name);
        }
    }
}
