//! What actions cost: the whole path with and without them, batch by batch in turn.
//!
//! A figure is the difference to output alone on the same frames. Of each repeat the median batch counts; differences are
//! taken within a repeat.

use flow::frame::FrameBuilder;
use flow::{Action, FieldId, PortId};

use crate::cycles::REPEATS;
use crate::figure::{Figure, Unit};
use crate::part::BenchError;
use crate::softpath::{Bed, frame};

/// Flows that the packets belong to.
const FLOWS: u32 = 1_000;

fn tagged(i: u32) -> Vec<u8> {
    let (src, dst) = (0x0a00_0000 + i, 0x0b00_0001u32);
    let f = FrameBuilder::new().vlan(10, 0);
    f.ipv4(src.to_be_bytes(), dst.to_be_bytes()).udp(1000, 53).pad_to(64).build()
}

fn set(field: FieldId, value: u128) -> Action {
    Action::SetField { field, value, mask: field.info().max() }
}

/// Actions before the output, by name; on untagged frames.
fn on_untagged() -> Vec<(&'static str, Vec<Action>)> {
    let mac = || set(FieldId::EthDst, 0x0200_0000_0009);
    let nat = || [set(FieldId::NwDst, 0x0909_0909), set(FieldId::TpDst, 99)];
    vec![
        ("set eth_dst", vec![mac()]),
        ("set nw_dst (two checksums)", vec![set(FieldId::NwDst, 0x0909_0909)]),
        ("set tp_dst (a checksum)", vec![set(FieldId::TpDst, 99)]),
        ("dec_ttl (a checksum)", vec![Action::DecTtl]),
        ("push_vlan", vec![Action::PushVlan { tpid: 0x8100, tci: 5 }]),
        ("set eth_dst, nw_dst, tp_dst, dec_ttl", [vec![mac()], nat().into(), vec![Action::DecTtl]].concat()),
    ]
}

/// Actions before the output, by name; on tagged frames.
fn on_tagged() -> Vec<(&'static str, Vec<Action>)> {
    vec![
        ("pop_vlan", vec![Action::PopVlan]),
        ("set vlan", vec![Action::SetField { field: FieldId::VlanTci, value: 20, mask: 0xfff }]),
    ]
}

/// Measures with `bursts` batches in a repeat.
///
/// # Errors
/// When a datapath cannot be set up.
pub fn run(bursts: u64) -> Result<Vec<Figure>, BenchError> {
    let mut out = on("untagged", frame, &on_untagged(), bursts)?;
    out.extend(on("tagged", tagged, &on_tagged(), bursts)?);
    Ok(out)
}

/// Measures the action lists `with` on the frames that `frame` makes.
fn on(
    kind: &str,
    frame: fn(u32) -> Vec<u8>,
    with: &[(&'static str, Vec<Action>)],
    bursts: u64,
) -> Result<Vec<Figure>, BenchError> {
    let bed = |before: &[Action]| {
        let actions = [before, &[Action::Output(PortId(2))]].concat();
        Bed::with_frames((0..FLOWS).map(frame).collect(), &actions, 65_536)
    };
    let bytes = frame(0).len() as u32;
    let mut alone = bed(&[])?;
    let mut beds = with.iter().map(|(_, a)| bed(a)).collect::<Result<Vec<_>, _>>()?;
    let mut bases = Vec::new();
    let mut costs = vec![Vec::new(); beds.len()];
    for repeat in 0..=REPEATS {
        let base = alone.median_burst(bursts)?;
        for (bed, costs) in beds.iter_mut().zip(&mut costs) {
            let cycles = bed.median_burst(bursts)?;
            // The first repeat warms up.
            if repeat > 0 {
                costs.push(cycles - base);
            }
        }
        if repeat > 0 {
            bases.push(base);
        }
    }
    let figure = |name: String, values| {
        Figure::of(name, Unit::CyclesPerPacket, values).frame_bytes(bytes).flows(FLOWS.into())
    };
    let mut out = vec![figure(format!("output alone, {kind}, {bytes} bytes"), bases)];
    out.extend(
        with.iter().zip(costs).map(|((name, _), c)| figure(format!("  {name}, beyond it"), c).difference()),
    );
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_list_is_measured_beside_output_alone() {
        let all = run(2).unwrap();
        assert_eq!(all.iter().filter(|f| !f.difference).count(), 2);
        assert_eq!(all.len(), 2 + on_untagged().len() + on_tagged().len());
    }
}
