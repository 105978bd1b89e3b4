//! Connection tracking: the parameters of its action and the bits of `ct_state`.

use std::net::IpAddr;

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
