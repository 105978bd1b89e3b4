//! A stream of millions of flows: 5-tuples in memory, made of the rules of a workload, each packet of a flow of its own.
//!
//! A rule is chosen at random and the bits that it leaves open are random, as in the workloads' own packets. A frame is
//! written when it is received: the template is copied and five fields are put into it. Checksums are those of the
//! template, and wrong: the switch under test does not look at them when it forwards.

use device::PacketBuf;
use flow::headers::ip_proto::{TCP, UDP};
use flow::{FieldId, PacketKey, PipelineKey, PipelineMatch, PortId};
use openflow::FlowMod;

use super::directory::N0;
use crate::workload::Random;

/// One packet.
#[derive(Clone, Copy)]
struct Tuple {
    src: u32,
    dst: u32,
    ports: u32,
    tcp: bool,
}

/// The packets.
pub struct Stream {
    tuples: Vec<Tuple>,
    /// A UDP and a TCP frame.
    templates: [Vec<u8>; 2],
}

/// A value of field `f` that fits `m`, random where the match leaves it open.
fn fitting(m: &PipelineMatch, f: FieldId, r: &mut Random) -> u32 {
    let (v, mask) = m.get(f);
    let bits = u32::from(f.info().bits);
    v as u32 | r.bits(bits) as u32 & !(mask as u32) & f.info().max() as u32
}

impl Stream {
    /// `n` packets for the rules in `flows`, the same for the same seed.
    pub fn new(flows: &[FlowMod], n: usize, seed: u64) -> Self {
        let mut r = Random::new(seed);
        let rules: Vec<_> = flows.iter().filter(|f| f.priority > 0).map(|f| &f.matches).collect();
        let any = PipelineMatch::ANY;
        let mut tuples = Vec::with_capacity(n);
        for _ in 0..n {
            let m = if rules.is_empty() { &any } else { *r.choice(&rules) };
            let proto = match m.get(FieldId::NwProto) {
                (p, mask) if mask != 0 => p as u8,
                _ => *r.choice(&[TCP, UDP]),
            };
            let (src, dst) = (fitting(m, FieldId::NwSrc, &mut r), fitting(m, FieldId::NwDst, &mut r));
            let (sp, dp) = (fitting(m, FieldId::TpSrc, &mut r), fitting(m, FieldId::TpDst, &mut r));
            tuples.push(Tuple { src, dst, ports: sp << 16 | dp, tcp: proto == TCP });
        }
        let blank = || flow::frame::FrameBuilder::new().ipv4(0u32, 0u32);
        let templates =
            [blank().udp(0, 0).payload(&[0; 18]).build(), blank().tcp(0, 0).payload(&[0; 6]).build()];
        Stream { tuples, templates }
    }

    /// How many packets.
    pub fn len(&self) -> usize {
        self.tuples.len()
    }

    /// Makes `p`, which is empty, packet `i`.
    #[inline]
    pub fn write(&self, i: usize, p: &mut PacketBuf) {
        let t = self.tuples[i];
        // A cell is longer than a template.
        let _ = p.extend(&self.templates[usize::from(t.tcp)]);
        p[26..30].copy_from_slice(&t.src.to_be_bytes());
        p[30..34].copy_from_slice(&t.dst.to_be_bytes());
        p[34..38].copy_from_slice(&t.ports.to_be_bytes());
    }

    /// What the tables see of packet `i`.
    pub fn key(&self, i: usize) -> PipelineKey {
        let t = self.tuples[i];
        let mut k: PacketKey =
            flow::parse(&self.templates[usize::from(t.tcp)], PortId(0)).map(|p| p.key).unwrap_or_default();
        k.set(FieldId::NwSrc, t.src.into());
        k.set(FieldId::NwDst, t.dst.into());
        k.set(FieldId::TpSrc, (t.ports >> 16).into());
        k.set(FieldId::TpDst, (t.ports & 0xffff).into());
        PipelineKey::from_packet(&k, N0)
    }
}

/// How many of `keys` the first matching rule, found by looking at each, sends somewhere.
pub fn forwarded(flows: &[FlowMod], keys: impl Iterator<Item = PipelineKey>) -> u64 {
    let mut rules: Vec<_> = flows.iter().collect();
    rules.sort_by_key(|r| std::cmp::Reverse(r.priority));
    let sends = |k: &PipelineKey| {
        let hit = rules.iter().find(|r| r.matches.matches(k));
        hit.is_some_and(|r| r.instructions.actions().next().is_some())
    };
    keys.filter(|k| sends(k)).count() as u64
}
