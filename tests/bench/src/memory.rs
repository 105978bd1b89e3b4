//! Bytes per megaflow: the flow record, and what the datapath keeps beside it; per flow that the exact-match cache remembers, per
//! connection, per OpenFlow rule.

use std::sync::Arc;

use clock::{Instant, ManualClock};
use conntrack::{Headers, Meta, Tracker};
use datapath::bench::Caches;
use datapath_api::{Datapath, FlowRecord};
use flow::frame::FrameBuilder;
use flow::{Action, CtAction, FieldId, PipelineMatch, PortId};
use offload::memory::{MemoryProvider, test_capabilities};
use offload::{FlowRule, PlacementConfig, PlacementEngine, SoftwarePackets};
use ofproto::{BridgeConfig, Switch, SwitchConfig};
use openflow::flow_mod::{FlowModCommand, Instructions};
use openflow::{FlowMod, PortNo};

use crate::figure::{Figure, Unit};
use crate::heap::Held;
use crate::part::BenchError;
use crate::softpath::{Bed, exact_mask, frame, record};

/// Counts at `n` flows. Zero unless [`crate::heap::Counting`] is the program's allocator.
///
/// # Errors
/// When the datapath does not take them.
pub fn run(n: u32) -> Result<Vec<Figure>, BenchError> {
    let mut bed = Bed::new(1, &[], 4)?;
    let keys: Vec<_> = (0..n).map(|i| flow::parse(&frame(i), PortId(9)).map(|p| p.key)).collect();
    let actions: Arc<[Action]> = [Action::Output(PortId(2))].into();
    let mut records = Vec::with_capacity(n as usize);
    let start = Held::now();
    for (i, k) in keys.iter().flatten().enumerate() {
        records.push(record(1000 + i as u64, k, &exact_mask(), actions.clone()));
    }
    let made = Held::now();
    for r in &records {
        bed.dp.flow_put(r.clone())?;
    }
    bed.measure("settle", 1)?;
    let put = Held::now();
    // Beside it what a flow takes that caches remember one by one, without a record of its own.
    let mut caches = Caches::new(&records[..1], (n as usize).next_power_of_two());
    let keys: Vec<_> = keys.into_iter().flatten().collect();
    let start_flows = Held::now();
    caches.remember(&keys);
    let cached = Held::now().since(start_flows, n);
    let (connection, rule, offered) = (connection(n), rule(n)?, offered(&records));
    let figure = |what: &str, unit, v| Figure::of(what, unit, vec![v]).flows(n.into());
    let (record, datapath, both) = (made.since(start, n), put.since(made, n), put.since(start, n));
    Ok(vec![
        figure("megaflow", Unit::BytesPerFlow, both.0),
        figure("  its record", Unit::BytesPerFlow, record.0),
        figure("  beside it, in the datapath", Unit::BytesPerFlow, datapath.0),
        figure("  its allocations", Unit::AllocationsPerFlow, both.1),
        figure("  beside it, when it is offered to hardware", Unit::BytesPerFlow, offered.0),
        figure("flow that the exact-match cache remembers", Unit::BytesPerFlow, cached.0),
        figure("connection", Unit::BytesPerFlow, connection.0),
        figure("OpenFlow rule, addresses, protocol and port", Unit::BytesPerFlow, rule.0),
        figure("  its allocations", Unit::AllocationsPerFlow, rule.1),
    ])
}

/// What is kept of a record that hardware is offered, and that does not fit yet.
fn offered(records: &[Arc<FlowRecord>]) -> (f64, f64) {
    let device = MemoryProvider::new(test_capabilities(1, 1));
    let config = PlacementConfig { max_records: records.len(), ..PlacementConfig::default() };
    let mut engine = PlacementEngine::new(config, vec![device]);
    let software: Arc<dyn SoftwarePackets> = Arc::new(|| 0);
    let start = Held::now();
    for r in records {
        let rule = FlowRule {
            id: r.id,
            matches: r.matches.expand(),
            actions: r.actions.clone(),
            provenance: Arc::from([]),
        };
        // Refused only when there are more than it was made for.
        let _ = engine.offer(rule, software.clone(), Instant::ZERO);
    }
    Held::now().since(start, records.len() as u32)
}

/// What a connection of UDP takes.
fn connection(n: u32) -> (f64, f64) {
    let tracker = Tracker::new(Some(1));
    let action = CtAction { commit: true, ..CtAction::default() };
    let start = Held::now();
    for i in 0..n {
        let mut f =
            FrameBuilder::new().ipv4((0x0a00_0000 + i).to_be_bytes(), [11, 0, 0, 1]).udp(1000, 53).build();
        let headers =
            Headers { eth_type: 0x0800, proto: 17, is_fragment: false, l3: 14, l4: 34, end: f.len() };
        let now = Instant::from_nanos(1);
        tracker.track(&mut f, Some(&headers), &mut Meta::default(), &action, now);
    }
    Held::now().since(start, n.min(tracker.stats().connections as u32))
}

/// What a rule takes in a table of `n`, all of one shape.
fn rule(n: u32) -> Result<(f64, f64), BenchError> {
    let switch = Switch::new(Arc::new(ManualClock::new()), SwitchConfig::default());
    let bridge = switch.add_bridge(BridgeConfig::new("br0", 1));
    let start = Held::now();
    for i in 0..n {
        let mut m = PipelineMatch::ANY;
        m.set(FieldId::EthType, 0x0800);
        m.set(FieldId::NwProto, 6);
        m.set(FieldId::NwSrc, (0x0a00_0000 + i).into());
        m.set_masked(FieldId::NwDst, 0x0b00_0000, 0xffff_ff00);
        m.set(FieldId::TcpDst, 443);
        let instructions =
            Instructions::apply(vec![openflow::Action::Output { port: PortNo(2), max_len: 0 }]);
        let fm = FlowMod { matches: m, priority: 100, instructions, ..FlowMod::new(FlowModCommand::Add) };
        let added = bridge.apply(&[fm], Instant::ZERO);
        added.map_err(|(at, e)| BenchError::FlowMod { at, why: format!("{e:?}") })?;
    }
    Ok(Held::now().since(start, n))
}
