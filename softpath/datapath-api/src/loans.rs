//! Connections that a datapath lends to hardware.
//!
//! The datapath's tracker stays the authority; hardware forwards packets of established connections that it was lent, and whoever runs it
//! tells the tracker when it did.

use std::time::Duration;

use clock::Instant;
use flow::{FieldId, PacketKey};

/// A connection, by its first packet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionEnds {
    /// IPv6, else IPv4.
    pub v6: bool,
    /// IP protocol.
    pub proto: u8,
    /// Zone.
    pub zone: u16,
    /// Source address.
    pub src: u128,
    /// Destination address.
    pub dst: u128,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

impl ConnectionEnds {
    /// What is known of packets of its direction behind a look-up that found it, with this mark.
    pub fn key(&self, mark: u32) -> PacketKey {
        let mut k = PacketKey::ZERO;
        let (eth_type, src, dst) = if self.v6 {
            (0x86dd, FieldId::Ipv6Src, FieldId::Ipv6Dst)
        } else {
            (0x0800, FieldId::NwSrc, FieldId::NwDst)
        };
        k.set(FieldId::EthType, eth_type);
        k.set(src, self.src);
        k.set(dst, self.dst);
        k.set(FieldId::NwProto, self.proto.into());
        k.set(FieldId::TpSrc, self.sport.into());
        k.set(FieldId::TpDst, self.dport.into());
        k.set(FieldId::CtZone, self.zone.into());
        k.set(FieldId::CtMark, mark.into());
        k
    }
}

/// What hardware has to know of a connection that it forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoanTerms {
    /// Its mark.
    pub mark: u32,
    /// How long it lasts after its last packet.
    pub timeout: Duration,
}

/// The connections of a datapath, as far as hardware may have them.
pub trait ConnectionLoans: Send + Sync {
    /// Says whether established connections are to be offered.
    fn set_lending(&self, on: bool);

    /// Has each connection offered again at its next packet: there is room for more, or hardware that is new.
    fn offer_again(&self);

    /// Takes up to `most` connections that were offered.
    fn take_offers(&self, most: usize) -> Vec<ConnectionEnds>;

    /// Takes the lent connections that have changed or ended; `true`: any may have.
    fn take_changed(&self) -> (Vec<ConnectionEnds>, bool);

    /// Lends a connection: no time is over for it until it is taken back. Of one that is lent already, on what terms; an error says why it
    /// can not, or not any more, be with hardware. `None`: it has ended.
    fn lend(&self, c: &ConnectionEnds, now: Instant) -> Option<Result<LoanTerms, &'static str>>;

    /// Hardware forwarded a packet of a lent connection at time `at`.
    fn used(&self, c: &ConnectionEnds, at: Instant);

    /// Takes a connection back. It is offered again at its next packet if `again`, else when [`ConnectionLoans::offer_again`] says so.
    fn take_back(&self, c: &ConnectionEnds, again: bool);

    /// Why connections were not offered, and how many, since connections were last offered anew.
    fn stayed(&self) -> Vec<(&'static str, u64)>;
}
