//! The parser against the installed `ovs-ofctl parse-pcap`, which prints what Open vSwitch extracts from each frame:
//! valid frames, frames cut at every length, frames with bytes changed.

use std::io::Write as _;
use std::process::Command;

use super::format_key;
use crate::action::PortId;
use crate::field::FieldId as F;
use crate::frame::FrameBuilder;
use crate::headers::MacAddr;
use crate::key::PipelineKey;
use crate::parse;

const ANY: u32 = u32::MAX;

/// Frames of every shape the parser knows.
fn shapes() -> Vec<Vec<u8>> {
    let b = FrameBuilder::new;
    let v4 = || b().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).tos(0xb9).payload(&[7; 9]);
    let v6 = || b().ipv6([1; 16], [2; 16]).flow_label(0xabcde).tos(0x35).payload(&[7; 9]);
    let m = MacAddr([2, 0, 0, 0, 0, 9]);
    let nd = |kind, options: &[(u8, MacAddr)]| {
        b().ipv6([1; 16], [2; 16]).neighbour(kind, [3; 16], options).build()
    };
    vec![
        v4().tcp(1, 2).tcp_flags(0x12).build(),
        v4().udp(1, 2).pad_to(60).build(),
        v4().sctp(1, 2).build(),
        v4().icmp(8, 0, 1).build(),
        v4().ip_proto(47).build(),
        v4().ip_options(&[1; 12]).tcp(1, 2).build(),
        v4().fragment(0, true).udp(1, 2).build(),
        v4().fragment(9, false).ip_proto(6).build(),
        v4().vlan(0, 0).udp(1, 2).build(),
        v4().vlan(100, 7).tcp(1, 2).build(),
        v4().qinq(100, 200).tcp(1, 2).build(),
        v4().qinq(100, 200).vlan(300, 1).tcp(1, 2).build(),
        v4().mpls(5, 1, 64).build(),
        v4().vlan(9, 0).mpls(5, 1, 64).mpls(6, 2, 63).build(),
        v4().mpls(5, 1, 64).mpls(6, 2, 63).mpls(7, 3, 62).mpls(8, 4, 61).build(),
        v6().tcp(1, 2).build(),
        v6().udp(1, 2).build(),
        v6().sctp(1, 2).build(),
        v6().icmpv6(128, 1, 5).build(),
        v6().extension(0, &[0; 6]).extension(43, &[0; 14]).extension(60, &[0; 6]).tcp(1, 2).build(),
        v6().extension(51, &[0; 14]).fragment(0, true).udp(1, 2).build(),
        v6().fragment(5, true).udp(1, 2).build(),
        v6().fragment(0, false).udp(1, 2).build(),
        nd(135, &[(1, m)]),
        nd(136, &[(14, m), (2, m)]),
        nd(135, &[(1, m), (1, m)]),
        nd(135, &[(1, MacAddr::ZERO), (1, m), (2, m)]),
        b().arp_request([1, 2, 3, 4], [5, 6, 7, 8]).pad_to(60).build(),
        b().arp(300, m, [1, 2, 3, 4], m, [5, 6, 7, 8]).build(),
        b().llc().payload(&[0x42, 0x42, 3, 0, 0, 0, 0, 0, 0, 0]).build(),
        b().snap(0x88cc).payload(&[5; 20]).build(),
        b().snap(0x0800).payload(&v4().tcp(1, 2).build()[14..]).build(),
        b().snap(0x0500).payload(&[5; 20]).build(),
        b().eth_type(0x88cc).payload(&[5; 20]).build(),
    ]
}

/// Deterministic pseudo random numbers (xorshift64*, Vigna 2016).
fn next(state: &mut u64) -> usize {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize
}

fn frames(seed: u64) -> Vec<Vec<u8>> {
    let shapes = shapes();
    let mut out = shapes.clone();
    for f in &shapes {
        out.extend((14..f.len()).map(|n| f[..n].to_vec()));
    }
    let mut s = seed;
    for i in 0..4000 {
        let mut f = shapes[i % shapes.len()].clone();
        for _ in 0..1 + next(&mut s) % 3 {
            // Mostly in the headers, often with telling values.
            let at = 12 + next(&mut s) % (f.len() - 12).min(60);
            let values = [0, 1, 4, 5, 6, 8, 17, 44, 58, 60, 0x45, 0x4f, 0x60, 0x81, 0x88, 0xa8, 0xff];
            f[at] =
                if next(&mut s) & 1 == 0 { values[next(&mut s) % values.len()] } else { next(&mut s) as u8 };
        }
        out.push(f);
    }
    out
}

#[test]
fn frames_are_parsed_as_open_vswitch_parses_them() {
    if Command::new("ovs-ofctl").arg("--version").output().is_err() {
        println!("not run: ovs-ofctl is not installed (Debian package openvswitch-switch)");
        return;
    }
    const SEED: u64 = 0x5eed_0001;
    let frames = frames(SEED);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let mut pcap = Vec::new();
    for w in [0xa1b2_c3d4u32, 4 << 16 | 2, 0, 0, 65_535, 1] {
        pcap.extend_from_slice(&w.to_le_bytes());
    }
    for f in &frames {
        for w in [0, 0, f.len() as u32, f.len() as u32] {
            pcap.extend_from_slice(&w.to_le_bytes());
        }
        pcap.extend_from_slice(f);
    }
    file.write_all(&pcap).unwrap();
    let out = Command::new("ovs-ofctl").arg("parse-pcap").arg(file.path()).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let theirs: Vec<&str> = text.lines().collect();
    assert_eq!(theirs.len(), frames.len(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut compared = 0;
    for (f, theirs) in frames.iter().zip(theirs) {
        let key = parse(f, PortId(0)).unwrap().key;
        // Not among our fields: network service headers, IGMP's group.
        if key.get(F::EthType) == 0x894f || key.get(F::NwProto) == 2 && key.get(F::EthType) == 0x800 {
            continue;
        }
        let ours = format_key(&PipelineKey::from_packet(&key, ANY), &|_| None);
        assert_eq!(ours, *theirs, "seed {SEED:#x}, frame {f:02x?}");
        compared += 1;
    }
    assert!(compared > 5000, "{compared}");
}
