//! Connection tracking. The input is a row of packets: two bytes that say how each is tracked and when, its length in a byte, and it.

use std::net::Ipv4Addr;
use std::time::Duration;

use clock::Instant;
use conntrack::{Headers, Meta, Tracker};
use flow::checksum::{Sum, checksum};
use flow::frame::FrameBuilder;
use flow::headers::{eth_type, ip_proto};
use flow::{CtAction, FieldId, NatChoice, NatEnd, NatRange, PacketKey, PortId, ct_state};

/// Connections that the tracker holds at most.
const MOST: usize = 16;
/// Longer than any timeout.
const FOR_EVER: Duration = Duration::from_secs(10 * 24 * 3600);

/// Where the headers of a frame lie, as the datapath finds them.
fn headers(frame: &[u8]) -> Option<Headers> {
    let mut key = PacketKey::ZERO;
    let l = flow::parse_into(frame, PortId(1), &mut key).ok()?;
    let l4 = l.l4().filter(|_| l.fault.is_none())?;
    Some(Headers {
        eth_type: key.get64(FieldId::EthType) as u16,
        proto: key.get64(FieldId::NwProto) as u8,
        is_fragment: key.get64(FieldId::NwFrag) != 0,
        l3: l.l3_offset as usize,
        l4,
        end: l.l3_end as usize,
    })
}

/// Makes the checksums of an IPv4 packet right: otherwise hardly any input would get past them.
fn repair(frame: &mut [u8]) -> Option<()> {
    let h = headers(frame).filter(|h| h.eth_type == eth_type::IPV4)?;
    let ip = frame.get_mut(h.l3..h.l4)?;
    ip.get_mut(10..12)?.fill(0);
    let c = checksum(ip);
    ip[10..12].copy_from_slice(&c.to_be_bytes());
    let address = |at: usize| Some(u32::from_be_bytes(*ip.get(at..)?.first_chunk()?));
    let (src, dst) = (address(12)?, address(16)?);
    let at = match h.proto {
        ip_proto::TCP => 16,
        ip_proto::UDP => 6,
        ip_proto::ICMP => 2,
        _ => return None,
    };
    let body = frame.get_mut(h.l4..h.end)?;
    body.get_mut(at..at + 2)?.fill(0);
    let s = if h.proto == ip_proto::ICMP {
        Sum::ZERO
    } else {
        Sum::ZERO.pseudo_v4(src, dst, h.proto, body.len() as u16)
    };
    let c = s.bytes(body).finish();
    body[at..at + 2].copy_from_slice(&c.to_be_bytes());
    Some(())
}

fn action(how: u8) -> CtAction {
    let nat = match how >> 5 & 3 {
        0 => None,
        1 => Some(None),
        end => Some(Some(NatRange {
            end: if end == 2 { NatEnd::Src } else { NatEnd::Dst },
            addresses: Some((Ipv4Addr::new(198, 51, 100, 1).into(), Ipv4Addr::new(198, 51, 100, 2).into())),
            ports: (how & 16 != 0).then_some((1000, 1003)),
            choice: NatChoice::Any,
            persistent: false,
        })),
    };
    CtAction {
        commit: how & 1 != 0,
        force: how & 2 != 0,
        zone: u16::from(how >> 2 & 3),
        nat,
        ..CtAction::default()
    }
}

/// See the table of targets.
pub fn run(data: &[u8]) {
    let t = Tracker::new(Some(1));
    t.set_max(MOST);
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut rest = data;
    while let [how, when, len, more @ ..] = rest {
        let (frame, left) = more.split_at((*len as usize).min(more.len()));
        rest = left;
        now = now + Duration::from_millis(u64::from(when >> 1) * u64::from(when >> 1) * 20);
        let mut frame = frame.to_vec();
        if when & 1 == 0 {
            repair(&mut frame);
        }
        let before = frame.clone();
        let h = headers(&frame);
        let mut meta = Meta::default();
        t.track(&mut frame, h.as_ref(), &mut meta, &action(*how), now);
        assert!(meta.state & ct_state::TRACKED != 0, "not tracked: {meta:?}");
        assert_eq!(frame.len(), before.len());
        if meta.state & (ct_state::SRC_NAT | ct_state::DST_NAT) == 0 {
            assert_eq!(frame, before, "changed without translation: {meta:?}");
        } else if let (Some(h), 0) = (h, when & 1) {
            // What was right stays right.
            let mut again = frame.clone();
            let whole = !h.is_fragment && h.proto != ip_proto::UDP;
            if whole && repair(&mut again).is_some() {
                assert_eq!(again, frame, "a checksum is wrong after translation: {meta:?}");
            }
        }
        if h.is_none() {
            assert!(meta.state & ct_state::INVALID != 0, "without headers and valid: {meta:?}");
        }
        let s = t.stats();
        assert!(s.connections <= MOST, "{s:?}");
        assert_eq!(s.made - s.ended, s.connections as u64, "{s:?}");
    }
    // Everything is given back when its time is over.
    let end = now + FOR_EVER;
    for _ in 0..64 {
        t.sweep(end, t.slots() + 64);
    }
    assert_eq!(t.stats().connections, 0, "{:?}", t.stats());
}

/// Conversations.
pub fn seeds() -> Vec<Vec<u8>> {
    let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
    let tcp = |there: bool, flags: u16, seq: u32, ack: u32| {
        let f = FrameBuilder::new();
        let f = if there { f.ipv4(a, b).tcp(1024, 80) } else { f.ipv4(b, a).tcp(80, 1024) };
        f.tcp_flags(flags).tcp_seq(seq, ack).build()
    };
    let udp = |there: bool| {
        let f = FrameBuilder::new();
        if there { f.ipv4(a, b).udp(5000, 53).build() } else { f.ipv4(b, a).udp(53, 5000).build() }
    };
    let talk = |how: u8, frames: &[Vec<u8>]| {
        let mut out = Vec::new();
        for f in frames {
            out.extend([how, 2, f.len() as u8]);
            out.extend(f);
        }
        out
    };
    let whole = [
        tcp(true, 2, 100, 0),
        tcp(false, 18, 900, 101),
        tcp(true, 16, 101, 901),
        tcp(true, 17, 101, 901),
        tcp(false, 17, 901, 102),
        tcp(true, 16, 102, 902),
    ];
    let mut ping =
        FrameBuilder::new().ipv4(a, b).ip_proto(ip_proto::ICMP).payload(&[8, 0, 0, 0, 0, 1, 0, 1]).build();
    repair(&mut ping);
    // Port unreachable, about the first packet of the conversation.
    let about = udp(true);
    let mut error = [&[3u8, 3, 0, 0, 0, 0, 0, 0][..], &about[14..]].concat();
    error.truncate(120);
    let mut error = FrameBuilder::new().ipv4(b, a).ip_proto(ip_proto::ICMP).payload(&error).build();
    repair(&mut error);
    let piece = |offset: u16, more: bool| {
        let f = FrameBuilder::new().ipv4(a, b).ident(9).fragment(offset, more);
        if offset == 0 {
            f.udp(5000, 53).payload(&[7; 16]).build()
        } else {
            f.ip_proto(17).payload(&[7; 16]).build()
        }
    };
    vec![
        talk(1, &[piece(0, true), piece(3, false)]),
        talk(1 | 2 << 5, &[piece(0, true), piece(3, true), piece(5, false)]),
        talk(1, &whole),
        talk(1 | 2 << 5, &whole),
        talk(1 | 3 << 5 | 16, &[udp(true), udp(false), udp(true)]),
        talk(1, &[udp(true), error, ping]),
        talk(3 | 4, &[tcp(true, 2, 1, 0), tcp(false, 2, 1, 0), tcp(true, 4, 2, 0)]),
    ]
}
