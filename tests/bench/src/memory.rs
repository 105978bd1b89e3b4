//! Bytes per megaflow: the flow record, and what the datapath keeps beside it.

use std::sync::Arc;

use datapath::bench::Caches;
use datapath_api::Datapath;
use flow::{Action, PortId};

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
    let figure = |what: &str, unit, v| Figure::of(what, unit, vec![v]).flows(n.into());
    let (record, datapath, both) = (made.since(start, n), put.since(made, n), put.since(start, n));
    Ok(vec![
        figure("megaflow", Unit::BytesPerFlow, both.0),
        figure("  its record", Unit::BytesPerFlow, record.0),
        figure("  beside it, in the datapath", Unit::BytesPerFlow, datapath.0),
        figure("  its allocations", Unit::AllocationsPerFlow, both.1),
        figure("flow that the exact-match cache remembers", Unit::BytesPerFlow, cached.0),
    ])
}
