//! Frames of the suite's packets, for harnesses whose devices take frames.

use flow::frame::FrameBuilder;
use flow::{FieldId, PacketKey};

/// The frame of a key of the suite, filled up to `len_bytes`.
///
/// # Panics
/// If the headers alone are longer.
pub fn frame(k: &PacketKey, len_bytes: u32) -> Vec<u8> {
    let mac = |f| {
        let b = k.get64(f).to_be_bytes();
        [b[2], b[3], b[4], b[5], b[6], b[7]]
    };
    let mut f = FrameBuilder::new().eth(mac(FieldId::EthDst), mac(FieldId::EthSrc));
    let tci = k.get64(FieldId::VlanTci) as u16;
    if tci != 0 {
        f = f.tag(k.get64(FieldId::VlanTpid) as u16, tci & 0xefff);
    }
    f = match k.get64(FieldId::EthType) {
        0x0800 => f.ipv4(
            (k.get64(FieldId::NwSrc) as u32).to_be_bytes(),
            (k.get64(FieldId::NwDst) as u32).to_be_bytes(),
        ),
        _ => f.ipv6(k.get(FieldId::Ipv6Src).to_be_bytes(), k.get(FieldId::Ipv6Dst).to_be_bytes()),
    };
    f = f.tos(k.get64(FieldId::NwTos) as u8).ttl(k.get64(FieldId::NwTtl) as u8);
    let (s, d) = (k.get64(FieldId::TpSrc) as u16, k.get64(FieldId::TpDst) as u16);
    f = match k.get64(FieldId::NwProto) {
        6 => f.tcp(s, d).tcp_flags(k.get64(FieldId::TcpFlags) as u16),
        _ => f.udp(s, d),
    };
    let headers = f.build().len();
    let f = f.payload(&vec![0x5a; len_bytes as usize - headers]).build();
    assert_eq!(f.len(), len_bytes as usize);
    f
}
