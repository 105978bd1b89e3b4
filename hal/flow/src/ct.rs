//! Connection tracking: the parameters of its action and the bits of `ct_state`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use crate::headers::ip_proto;

use crate::FieldId;

/// Fields that tell of the first packet of a connection: both families' addresses, ports, protocol.
pub const ORIGINAL_DIRECTION: [FieldId; 7] = [
    FieldId::CtNwSrc,
    FieldId::CtNwDst,
    FieldId::CtIpv6Src,
    FieldId::CtIpv6Dst,
    FieldId::CtTpSrc,
    FieldId::CtTpDst,
    FieldId::CtNwProto,
];

/// The bits of `ct_state` (ovs-fields(7)).
pub mod ct_state {
    /// Of a connection that is not confirmed in both directions.
    pub const NEW: u16 = 0x01;
    /// Of a connection that is.
    pub const ESTABLISHED: u16 = 0x02;
    /// Of a connection that another one brought about, or an error about one.
    pub const RELATED: u16 = 0x04;
    /// In the direction opposite to that of the first packet.
    pub const REPLY: u16 = 0x08;
    /// Could not be tracked, or does not belong where it is.
    pub const INVALID: u16 = 0x10;
    /// Connection tracking has seen it.
    pub const TRACKED: u16 = 0x20;
    /// Its source was translated.
    pub const SRC_NAT: u16 = 0x40;
    /// Its destination was translated.
    pub const DST_NAT: u16 = 0x80;
}

/// A protocol whose control connections announce others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CtHelper {
    /// RFC 959, RFC 2428.
    Ftp,
    /// RFC 1350.
    Tftp,
}

impl CtHelper {
    /// Its name in text.
    pub fn name(self) -> &'static str {
        match self {
            CtHelper::Ftp => "ftp",
            CtHelper::Tftp => "tftp",
        }
    }
}

/// Which end of a connection is translated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NatEnd {
    /// The source.
    Src,
    /// The destination.
    Dst,
}

/// How a translation is chosen from its range.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum NatChoice {
    /// As the datapath likes.
    #[default]
    Any,
    /// By a hash of the connection's ends.
    Hash,
    /// At random.
    Random,
}

/// What a connection that is committed is translated to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NatRange {
    /// Which end.
    pub end: NatEnd,
    /// Lowest and highest address; `None` keeps the address. Both of one family.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Lowest and highest port; `None` keeps the port if it is free.
    pub ports: Option<(u16, u16)>,
    /// How one is chosen.
    pub choice: NatChoice,
    /// The same address for a source whatever its destination.
    pub persistent: bool,
}

/// Parameters of [`crate::Action::Ct`].
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct CtAction {
    /// The connection is remembered.
    pub commit: bool,
    /// A connection that goes the other way is replaced. Only with `commit`.
    pub force: bool,
    /// Connections of different zones have nothing to do with each other.
    pub zone: u16,
    /// Bits of the connection's mark to set: value and mask.
    pub mark: (u32, u32),
    /// Bits of the connection's label to set: value and mask.
    pub label: (u128, u128),
    /// The connection may announce others.
    pub helper: Option<CtHelper>,
    /// Packets are translated as their connection is; one that is committed, to the range.
    pub nat: Option<Option<NatRange>>,
}

impl CtAction {
    /// Whether it changes neither the connection nor, where the connection is not translated, the packet.
    pub fn only_looks_up(&self) -> bool {
        let changes = self.commit || self.force || self.mark.1 != 0 || self.label.1 != 0;
        !changes && self.helper.is_none() && !matches!(self.nat, Some(Some(_)))
    }
}

/// The ends of connections in one direction, as far as they are asked for; `None` may be anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CtEnds {
    /// Source address.
    pub src: Option<IpAddr>,
    /// Destination address.
    pub dst: Option<IpAddr>,
    /// Source port.
    pub src_port: Option<u16>,
    /// Destination port.
    pub dst_port: Option<u16>,
    /// Identifier of an ICMP request.
    pub icmp_id: Option<u16>,
    /// Type of ICMP message.
    pub icmp_type: Option<u8>,
    /// Code of ICMP message; connections of other codes than 0 are not tracked.
    pub icmp_code: Option<u8>,
}

impl CtEnds {
    /// Whether a connection is such whose ends in that direction are these: addresses, ports (both the identifier of an ICMP
    /// request), and the type of ICMP message.
    pub fn has(&self, (src, dst): (IpAddr, IpAddr), ports: (u16, u16), icmp_type: u8) -> bool {
        self.src.is_none_or(|a| a == src)
            && self.dst.is_none_or(|a| a == dst)
            && self.src_port.is_none_or(|p| p == ports.0)
            && self.dst_port.is_none_or(|p| p == ports.1)
            && self.icmp_id.is_none_or(|id| id == ports.0)
            && self.icmp_type.is_none_or(|k| k == icmp_type)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, family: &str, icmp: bool) -> fmt::Result {
        let address = |a: Option<IpAddr>| a.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
        write!(f, "ct_{family}_src={},ct_{family}_dst={},", address(self.src), address(self.dst))?;
        if icmp {
            let (id, kind) = (self.icmp_id.unwrap_or(0), self.icmp_type.unwrap_or(0));
            write!(f, "icmp_id={id},icmp_type={kind},icmp_code={}", self.icmp_code.unwrap_or(0))
        } else {
            write!(f, "ct_tp_src={},ct_tp_dst={}", self.src_port.unwrap_or(0), self.dst_port.unwrap_or(0))
        }
    }
}

/// Some connections, by what is asked of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct CtFilter {
    /// IP protocol.
    pub proto: Option<u8>,
    /// In the direction of the first packet.
    pub original: CtEnds,
    /// In the direction of replies.
    pub reply: CtEnds,
}

impl CtFilter {
    /// Whether nothing is asked of them.
    pub fn is_any(&self) -> bool {
        *self == CtFilter::default()
    }
}

impl fmt::Display for CtFilter {
    /// As Open vSwitch has it: what is not asked for is zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = [self.original.src, self.original.dst, self.reply.src, self.reply.dst];
        let family = if addresses.iter().flatten().any(IpAddr::is_ipv4) { "nw" } else { "ipv6" };
        let icmp = matches!(self.proto, Some(ip_proto::ICMP | ip_proto::ICMPV6));
        f.write_str("'")?;
        self.original.write(f, family, icmp)?;
        write!(f, ",ct_nw_proto={}' '", self.proto.unwrap_or(0))?;
        self.reply.write(f, family, icmp)?;
        f.write_str("'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_as_stock_tools_print_it() {
        let any = "'ct_ipv6_src=::,ct_ipv6_dst=::,ct_tp_src=0,ct_tp_dst=0,ct_nw_proto=6' \
                   'ct_ipv6_src=::,ct_ipv6_dst=::,ct_tp_src=0,ct_tp_dst=0'";
        let mut f = CtFilter { proto: Some(6), ..CtFilter::default() };
        assert_eq!(f.to_string(), any);
        let address = |last| Some(IpAddr::from([10, 10, 0, last]));
        f.original = CtEnds { src: address(1), dst: address(2), src_port: Some(80), ..CtEnds::default() };
        let one = "'ct_nw_src=10.10.0.1,ct_nw_dst=10.10.0.2,ct_tp_src=80,ct_tp_dst=0,ct_nw_proto=6' \
                   'ct_nw_src=::,ct_nw_dst=::,ct_tp_src=0,ct_tp_dst=0'";
        assert_eq!(f.to_string(), one);
    }
}
