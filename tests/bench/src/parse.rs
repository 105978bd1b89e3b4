//! Cycles per frame of the parser: [`flow::parse_into`] on frames of several shapes, the frame and the key in cache.

use std::hint::black_box;

use flow::frame::FrameBuilder;
use flow::{PacketKey, PortId, parse_into};

use crate::cycles::measure;
use crate::figure::{Figure, Unit};

/// The frames that are measured, with their names.
pub fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let new = FrameBuilder::new;
    let v4 = || new().ipv4([10, 0, 0, 1], [11, 0, 0, 1]).pad_to(60);
    let v6 = || new().ipv6([1; 16], [2; 16]).pad_to(60);
    vec![
        ("ipv4 udp, 60 bytes", v4().udp(1000, 53).build()),
        ("ipv4 tcp, 60 bytes", v4().tcp(1000, 80).build()),
        ("vlan ipv4 udp, 60 bytes", v4().vlan(10, 0).udp(1000, 53).build()),
        ("ipv6 tcp, 74 bytes", v6().tcp(1000, 80).build()),
        ("arp, 60 bytes", new().arp_request([10, 0, 0, 1], [10, 0, 0, 2]).pad_to(60).build()),
    ]
}

/// Measures every frame of [`frames`].
pub fn run() -> Vec<Figure> {
    let mut out = Vec::new();
    for (name, frame) in frames() {
        let mut key = PacketKey::ZERO;
        let m = measure(name, 20_000, || {
            parse_into(black_box(&frame), PortId(black_box(1)), black_box(&mut key)).map(|l| l.l4_offset)
        });
        out.push(Figure::cycles(m, Unit::CyclesPerPacket).frame_bytes(frame.len() as u32));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measured_frame_parses_without_fault() {
        for (name, frame) in frames() {
            assert_eq!(flow::parse(&frame, PortId(1)).unwrap().layout.fault, None, "{name}");
        }
    }
}
