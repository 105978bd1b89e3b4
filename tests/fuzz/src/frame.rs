//! Frames.

use flow::frame::FrameBuilder;
use flow::{FieldId, Layout, PacketMask, PacketMatch, PortId, parse};

/// See the table of targets.
pub fn run(data: &[u8]) {
    let Ok(p) = parse(data, PortId(1)) else {
        assert!(data.len() < 14, "a frame with an Ethernet header is refused");
        return;
    };
    let len = data.len() as u32;
    let l = &p.layout;
    assert!(l.l3_offset <= len && l.l3_end <= len, "{l:?} in {len} bytes");
    let (l4, labels) = (l.l4_offset, l.mpls_offset);
    assert!(l4 == Layout::NONE || (l.l3_offset..=len).contains(&l4), "{l:?} in {len} bytes");
    assert!(labels == Layout::NONE || labels <= l.l3_offset, "{l:?} in {len} bytes");
    assert_eq!(p.key.get64(FieldId::DpPort), 1);
    if matches!(p.key.get64(FieldId::EthType), 0x8100 | 0x88a8) {
        // A tag that is cut off, or one too many: text has no words for it.
        return;
    }
    // Every field at once is no match that makes sense; those of the Ethernet header always are. Text that names no VLAN means
    // none, whatever its priority would be.
    let mut mask = PacketMask::ZERO;
    for f in [FieldId::DpPort, FieldId::RecircId, FieldId::EthSrc, FieldId::EthDst, FieldId::EthType] {
        mask.set_exact(f);
    }
    let mut m = PacketMatch::new(&p.key, &mask);
    for tag in [FieldId::VlanTci, FieldId::VlanTci2] {
        let tci = p.key.get64(tag);
        m.set_masked(tag, tci.into(), if tci == 0 { 0x1fff } else { 0xffff });
        if tci == 0 {
            break;
        }
    }
    let text = flow::text::odp::format_match(&m, &|_| None);
    let again = flow::text::odp::parse_match(&text, &|_| None);
    assert_eq!(again.as_ref(), Ok(&m), "{text}");
}

/// Frames of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let (a, b) = ([192, 0, 2, 1], [192, 0, 2, 2]);
    let v4 = || FrameBuilder::new().ipv4(a, b);
    vec![
        FrameBuilder::new().build(),
        v4().udp(1, 2).payload(b"payload").build(),
        v4().tcp(80, 1024).vlan(5, 3).build(),
        v4().udp(1, 2).qinq(6, 7).build(),
        v4().udp(1, 2).mpls(16, 0, 64).mpls(17, 1, 63).build(),
        v4().fragment(64, true).ip_proto(17).payload(&[8; 40]).build(),
    ]
}
