//! What a miss costs in the OpenFlow tables: the classifier's lookup by itself, and the whole translation into a flow
//! record (lookup, actions, provenance, the record's memory).

use std::hint::black_box;

use clock::Instant;
use datapath_api::{Miss, MissHandler};
use device::BATCH;
use flow::frame::FrameBuilder;
use flow::{PacketKey, PipelineKey, PipelineMask};
use ofproto::{Bridge, Switch};

use crate::cycles::{REPEATS, now};
use crate::drivers::median;
use crate::figure::{Figure, Unit, counted};
use crate::openflow::{FIRST_PORT, Masks, flow_mods, load, packet_of, switch};
use crate::part::BenchError;

/// Batches in a repeat.
const BATCHES: usize = 500;

/// Keys of packets that hit flows in random order.
struct Packets {
    flows: u32,
    state: u64,
}

impl Packets {
    fn key(&mut self) -> PacketKey {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (src, dst, port) = packet_of((self.state >> 33) as u32 % self.flows);
        let f = FrameBuilder::new().ipv4(src, dst).udp(999, port).pad_to(60).build();
        flow::parse(&f, FIRST_PORT).map(|p| p.key).unwrap_or_default()
    }

    fn batch(&mut self) -> Vec<PacketKey> {
        (0..BATCH).map(|_| self.key()).collect()
    }
}

/// Cycles per packet of the median batch, several times over. `f` gives the cycles of one batch.
fn repeated(mut f: impl FnMut() -> Result<u64, BenchError>) -> Result<Vec<f64>, BenchError> {
    let mut medians = Vec::new();
    for repeat in 0..=REPEATS {
        let mut cycles = (0..BATCHES).map(|_| f()).collect::<Result<Vec<_>, _>>()?;
        // The first repeat warms up.
        if repeat > 0 {
            medians.push(median(&mut cycles) / BATCH as f64);
        }
    }
    Ok(medians)
}

/// The classifier by itself.
fn lookup(bridge: &Bridge, packets: &mut Packets) -> Result<Vec<f64>, BenchError> {
    let pipeline = bridge.pipeline();
    let table = pipeline.table(0).ok_or(BenchError::NoHit)?;
    repeated(|| {
        let keys: Vec<_> = packets.batch().iter().map(|k| PipelineKey::from_packet(k, 1)).collect();
        let mut hits = 0;
        let start = now();
        for k in &keys {
            let mut wc = PipelineMask::ZERO;
            hits += usize::from(table.rules.lookup(black_box(k), &mut wc).is_some());
            black_box(&wc);
        }
        let spent = now() - start;
        if hits == BATCH { Ok(spent) } else { Err(BenchError::NoHit) }
    })
}

/// The whole translation.
fn translate(switch: &Switch, packets: &mut Packets) -> Result<Vec<f64>, BenchError> {
    let mut out = Vec::with_capacity(BATCH);
    repeated(|| {
        let misses: Vec<_> =
            packets.batch().into_iter().map(|key| Miss { key, len_bytes: 60, tcp_flags: 0 }).collect();
        let start = now();
        switch.translate(black_box(&misses), Instant::ZERO, &mut out);
        let spent = now() - start;
        let hits = out.drain(..).filter(|t| !t.actions().is_empty()).count();
        if hits == BATCH { Ok(spent) } else { Err(BenchError::NoHit) }
    })
}

/// Measures with as many flows as each of `sizes`.
///
/// # Errors
/// When a flow is not taken, or a packet hits none.
pub fn run(sizes: &[u32]) -> Result<Vec<Figure>, BenchError> {
    let mut out = Vec::new();
    for (masks, words) in [(Masks::One, "1 mask"), (Masks::Seven, "7 masks")] {
        for &n in sizes {
            let (switch, bridge) = switch();
            load(&bridge, &flow_mods(n, masks)?, 1000)?;
            let mut packets = Packets { flows: n, state: 1 };
            let figure = |what: &str, unit, values| {
                Figure::of(format!("{what}, {}, {words}", counted(n, "flow")), unit, values)
                    .rules(n.into())
                    .frame_bytes(60)
            };
            out.push(figure("lookup", Unit::CyclesPerLookup, lookup(&bridge, &mut packets)?));
            out.push(figure("miss translated", Unit::CyclesPerPacket, translate(&switch, &mut packets)?));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_packet_hits_a_flow_and_is_sent_on() {
        let all = run(&[21]).unwrap();
        assert_eq!(all.len(), 4);
        assert!(all.iter().all(|f| f.value > 0.0), "{all:?}");
    }
}
