//! Forgetting connections by what they are (Nicira's `NXT_CT_FLUSH`).
//!
//! ```text
//!  protocol(8) zeros(56)  properties: original ends { .. }, reply ends { .. }, zone(16)
//!                                     ends: source(128), destination(128), ports(16 each), ICMP id(16), type(8), code(8)
//! ```
//! Addresses of IPv4 are mapped ones of IPv6 (RFC 4291 2.5.5.2). Zero, but for what is of ICMP, stands for what is not asked.

use std::net::{IpAddr, Ipv6Addr};

use flow::{CtEnds, CtFilter};

use super::cursor::{Put, Reader};
use super::properties;
use crate::error::{BadProperty, ErrorCode, Nicira};
use crate::message::Body;

const ORIGINAL: u16 = 0;
const REPLY: u16 = 1;
const ZONE: u16 = 2;

const SRC: u16 = 0;
const DST: u16 = 1;
const SRC_PORT: u16 = 2;
const DST_PORT: u16 = 3;
const ICMP_ID: u16 = 4;
const ICMP_TYPE: u16 = 5;
const ICMP_CODE: u16 = 6;

pub(super) fn read(r: &mut Reader<'_>) -> Result<Body, ErrorCode> {
    let proto = r.u8()?;
    if r.bytes(7)?.iter().any(|b| *b != 0) {
        return Err(Nicira::MustBeZero.into());
    }
    let (mut zone, mut which) = (None, Box::new(CtFilter::default()));
    which.proto = (proto != 0).then_some(proto);
    while let Some((kind, mut value)) = properties::next(r)? {
        match kind {
            ORIGINAL => which.original = read_ends(value)?,
            REPLY => which.reply = read_ends(value)?,
            ZONE => zone = Some(number(&mut value)?),
            kind => return Err(properties::unknown(kind)),
        }
    }
    Ok(Body::CtFlush { zone, which })
}

fn short<T>(v: Result<T, ErrorCode>) -> Result<T, ErrorCode> {
    v.map_err(|_| BadProperty::BadLen.into())
}

fn done(r: &Reader<'_>) -> Result<(), ErrorCode> {
    if r.is_empty() { Ok(()) } else { Err(BadProperty::BadLen.into()) }
}

/// 16 bits, and behind them two bytes of padding that count in the length.
fn number(r: &mut Reader<'_>) -> Result<u16, ErrorCode> {
    let v = short(r.u16())?;
    short(r.skip(2))?;
    done(r)?;
    Ok(v)
}

fn put_short(out: &mut Vec<u8>, kind: u16, v: u16) {
    properties::put_plain(out, kind, |out| {
        out.put_u16(v);
        out.put_zeros(2);
    });
}

fn read_ends(mut r: Reader<'_>) -> Result<CtEnds, ErrorCode> {
    // They are aligned to eight bytes.
    short(r.skip(4))?;
    let mut e = CtEnds::default();
    while let Some((kind, mut v)) = properties::next(&mut r)? {
        let port = |v: u16| (v != 0).then_some(v);
        match kind {
            SRC => e.src = address(short(v.number(16))?),
            DST => e.dst = address(short(v.number(16))?),
            SRC_PORT => e.src_port = port(number(&mut v)?),
            DST_PORT => e.dst_port = port(number(&mut v)?),
            ICMP_ID => e.icmp_id = Some(number(&mut v)?),
            ICMP_TYPE => e.icmp_type = Some(short(v.u8())?),
            ICMP_CODE => e.icmp_code = Some(short(v.u8())?),
            kind => return Err(properties::unknown(kind)),
        }
        done(&v)?;
    }
    Ok(e)
}

fn address(v: u128) -> Option<IpAddr> {
    (v != 0).then(|| Ipv6Addr::from(v).to_canonical())
}

pub(super) fn put(out: &mut Vec<u8>, zone: Option<u16>, which: &CtFilter) {
    out.put_u8(which.proto.unwrap_or(0));
    out.put_zeros(7);
    if let Some(zone) = zone {
        put_short(out, ZONE, zone);
    }
    for (kind, ends) in [(ORIGINAL, &which.original), (REPLY, &which.reply)] {
        if *ends != CtEnds::default() {
            properties::put_plain(out, kind, |out| put_ends(out, ends));
        }
    }
}

fn put_ends(out: &mut Vec<u8>, e: &CtEnds) {
    out.put_zeros(4);
    for (kind, a) in [(SRC, e.src), (DST, e.dst)] {
        let mapped = a.map(|a| match a {
            IpAddr::V4(a) => a.to_ipv6_mapped(),
            IpAddr::V6(a) => a,
        });
        if let Some(a) = mapped {
            properties::put_plain(out, kind, |out| out.put_number(a.into(), 16));
        }
    }
    for (kind, v) in [(SRC_PORT, e.src_port), (DST_PORT, e.dst_port), (ICMP_ID, e.icmp_id)] {
        if let Some(v) = v {
            put_short(out, kind, v);
        }
    }
    for (kind, v) in [(ICMP_TYPE, e.icmp_type), (ICMP_CODE, e.icmp_code)] {
        if let Some(v) = v {
            properties::put_plain(out, kind, |out| out.put_u8(v));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::BadRequest;

    /// As stock `ovs-ofctl ofp-print` reads it: zone 13, TCP from 10.10.0.1 port 80 to 10.10.0.2 port 8080.
    const OF_TCP: &str = "0600000000000000 00020008000d0000 0000004800000000 \
        0000001400000000000000000000ffff0a0a000100000000 0001001400000000000000000000ffff0a0a000200000000 \
        0002000800500000 000300081f900000";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: String = hex.split_whitespace().collect();
        (0..digits.len() / 2).map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap()).collect()
    }

    fn parse(b: &[u8]) -> Result<Body, ErrorCode> {
        read(&mut Reader::new(b, BadRequest::BadLen))
    }

    #[test]
    fn ends_are_read_and_written_as_stock_tools_do() {
        let b = bytes(OF_TCP);
        let Ok(Body::CtFlush { zone, which }) = parse(&b) else { panic!() };
        assert_eq!(
            (zone, which.to_string().as_str()),
            (
                Some(13),
                "'ct_nw_src=10.10.0.1,ct_nw_dst=10.10.0.2,ct_tp_src=80,ct_tp_dst=8080,ct_nw_proto=6' \
                 'ct_nw_src=::,ct_nw_dst=::,ct_tp_src=0,ct_tp_dst=0'"
            )
        );
        let mut out = Vec::new();
        put(&mut out, zone, &which);
        assert_eq!(out, b);
    }

    #[test]
    fn what_is_wrong_has_its_error() {
        let wrong = |b: &str| parse(&bytes(b)).unwrap_err();
        assert_eq!(wrong("0600000000000001"), Nicira::MustBeZero.into());
        assert_eq!(wrong("0600000000000000 0007000800000000"), BadProperty::BadType.into());
        assert_eq!(wrong("0600000000000000 0002000500000000"), BadProperty::BadLen.into());
        assert_eq!(wrong("0600"), BadRequest::BadLen.into());
    }
}
