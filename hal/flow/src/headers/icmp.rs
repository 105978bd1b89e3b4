//! ICMP, ICMPv6 and neighbour discovery.

use super::{MacAddr, Wire, view};
use std::net::Ipv6Addr;

view! {
    /// ICMP header, RFC 792.
    Icmp 8 {
        /// Type.
        icmp_type, set_icmp_type: u8 = 0;
        /// Code.
        code, set_code: u8 = 1;
        /// Checksum over header and payload.
        checksum, set_checksum: u16 = 2;
        /// The second word, whose meaning depends on the type (identifier and sequence number of an echo).
        rest, set_rest: u32 = 4;
    }
}

view! {
    /// ICMPv6 header, RFC 4443 2.1.
    Icmpv6 8 {
        /// Type.
        icmp_type, set_icmp_type: u8 = 0;
        /// Code.
        code, set_code: u8 = 1;
        /// Checksum over pseudo header, header and payload.
        checksum, set_checksum: u16 = 2;
        /// The second word, whose meaning depends on the type.
        rest, set_rest: u32 = 4;
    }
}

view! {
    /// Neighbour solicitation (type 135) or advertisement (136), RFC 4861 4.3 and 4.4, ICMPv6 header included.
    Neighbour 24 {
        /// Type: 135 or 136.
        icmp_type, set_icmp_type: u8 = 0;
        /// Code: 0.
        code, set_code: u8 = 1;
        /// Checksum over pseudo header, header and payload.
        checksum, set_checksum: u16 = 2;
        /// Flags of an advertisement (router, solicited, override in the top bits), reserved in a solicitation.
        flags, set_flags: u32 = 4;
        /// Address that is asked or answered for.
        target, set_target: Ipv6Addr = 8;
    }
}

impl<T: AsRef<[u8]>> Neighbour<T> {
    /// The options after the header.
    pub fn options(&self) -> NdOptions<'_> {
        NdOptions { rest: &self.0.as_ref()[Self::LEN..], at: Self::LEN }
    }
}

/// One option of a neighbour discovery message, RFC 4861 4.6.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NdOption<'a> {
    /// Type: 1 source link-layer address, 2 target link-layer address.
    pub kind: u8,
    /// Offset of the option from the start of the ICMPv6 header.
    pub at: usize,
    /// What follows type and length; 6 bytes or more.
    pub body: &'a [u8],
}

impl NdOption<'_> {
    /// The address in an option of type 1 or 2; `None` for another type or another length than 8.
    pub fn link_address(&self) -> Option<MacAddr> {
        (matches!(self.kind, 1 | 2) && self.body.len() == 6).then(|| MacAddr::read(self.body, 0))
    }
}

/// Iterates over options; stops at one whose length is zero or goes beyond the end.
#[derive(Clone, Debug)]
pub struct NdOptions<'a> {
    rest: &'a [u8],
    at: usize,
}

impl<'a> Iterator for NdOptions<'a> {
    type Item = NdOption<'a>;

    fn next(&mut self) -> Option<NdOption<'a>> {
        let len = usize::from(*self.rest.get(1)?) * 8;
        let option = self.rest.get(..len).filter(|o| !o.is_empty())?;
        let item = NdOption { kind: option[0], at: self.at, body: &option[2..] };
        self.rest = &self.rest[len..];
        self.at += len;
        Some(item)
    }
}
