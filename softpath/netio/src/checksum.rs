//! Finishes the transport checksum of packets that the kernel hands over before the checksum is there.
//!
//! A packet that a host sends on a veth or TAP interface with checksum offload has only the pseudo header summed up in
//! its checksum field. A packet socket is told so (`TP_STATUS_CSUMNOTREADY`) but not where the field is, so it is found
//! here: TCP, UDP, ICMPv6 over IPv4 or IPv6, behind VLAN tags and IPv6 extension headers.

/// Adds big-endian 16-bit words; an odd last byte is the upper half of one.
fn sum(data: &[u8], start: u32) -> u32 {
    let (pairs, rest) = data.as_chunks::<2>();
    let s = pairs.iter().fold(u64::from(start), |s, p| s + u64::from(u16::from_be_bytes(*p)));
    let s = s + rest.first().map_or(0, |b| u64::from(*b) << 8);
    ((s & 0xffff_ffff) + (s >> 32)) as u32
}

fn fold(mut s: u32) -> u16 {
    while s > 0xffff {
        s = (s & 0xffff) + (s >> 16);
    }
    s as u16
}

fn be16(b: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes(*b.get(at..)?.first_chunk()?)))
}

/// Range of the transport packet in the frame, its protocol and the sum over its pseudo header's addresses.
fn transport(frame: &[u8]) -> Option<(std::ops::Range<usize>, u8, u32)> {
    let mut l3 = 14;
    let mut kind = be16(frame, 12)?;
    while matches!(kind, 0x8100 | 0x88a8) {
        kind = be16(frame, l3 + 2)?;
        l3 += 4;
    }
    match kind {
        0x0800 => {
            let first = *frame.get(l3)?;
            let header = usize::from(first & 15) * 4;
            let total = be16(frame, l3 + 2)?;
            let addresses = frame.get(l3 + 12..l3 + 20)?;
            let fragment = be16(frame, l3 + 6)? & 0x3fff != 0;
            if first >> 4 != 4 || header < 20 || total < header || fragment {
                return None;
            }
            Some((l3 + header..l3 + total, *frame.get(l3 + 9)?, sum(addresses, 0)))
        }
        0x86dd => {
            let end = l3 + 40 + be16(frame, l3 + 4)?;
            let addresses = frame.get(l3 + 8..l3 + 40)?;
            let mut next = *frame.get(l3 + 6)?;
            let mut at = l3 + 40;
            while matches!(next, 0 | 43 | 60) && at < end {
                let x = frame.get(at..)?.first_chunk::<2>()?;
                next = x[0];
                at += (usize::from(x[1]) + 1) * 8;
            }
            Some((at..end, next, sum(addresses, 0)))
        }
        _ => None,
    }
}

/// Computes and writes the transport checksum. False, and nothing done, when there is none to compute or the packet is
/// not wholly there.
pub(crate) fn complete(frame: &mut [u8]) -> bool {
    let Some((range, proto, addresses)) = transport(frame) else { return false };
    let at = match proto {
        6 => 16,
        17 => 6,
        58 => 2,
        _ => return false,
    };
    let Some(packet) = frame.get_mut(range) else { return false };
    if packet.len() < at + 2 || packet.len() > 0xffff {
        return false;
    }
    packet[at..at + 2].fill(0);
    let pseudo = addresses + u32::from(proto) + packet.len() as u32;
    let check = match !fold(sum(packet, pseudo)) {
        0 if proto == 17 => 0xffff,
        c => c,
    };
    packet[at..at + 2].copy_from_slice(&check.to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::frame::FrameBuilder;

    fn check(whole: Vec<u8>) {
        let mut f = whole.clone();
        let (r, proto, _) = transport(&f).unwrap();
        let at = r.start + if proto == 6 { 16 } else { 6 };
        f[at] ^= 0x5a;
        assert_ne!(f, whole);
        assert!(complete(&mut f));
        assert_eq!(f, whole);
    }

    #[test]
    fn checksums_are_those_of_the_frame_builder() {
        let v4 = || FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]);
        check(v4().tcp(1, 2).payload(b"odd").build());
        check(v4().udp(1, 2).payload(b"even").build());
        check(v4().vlan(5, 1).tcp(1, 2).payload(b"x").build());
        check(FrameBuilder::new().ipv6([1; 16], [2; 16]).tcp(1, 2).payload(b"hello").build());
    }

    #[test]
    fn truncated_and_other_packets_are_left_alone() {
        let f = FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tcp(1, 2).payload(&[7; 100]).build();
        for n in 0..f.len() {
            let mut cut = f[..n].to_vec();
            assert!(!complete(&mut cut), "{n}");
            assert_eq!(cut, f[..n]);
        }
        let mut arp = FrameBuilder::new().arp_request([1, 1, 1, 1], [2, 2, 2, 2]).build();
        assert!(!complete(&mut arp));
    }
}
