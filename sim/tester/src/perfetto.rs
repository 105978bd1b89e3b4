//! Trails and waves as a trace in Chrome's event format, which ui.perfetto.dev opens: a process for the device, a thread for
//! each place, a slice for each stay of a frame, a counter for each signal. Times are nanoseconds of simulated time.

use std::collections::BTreeMap;

use nic::{Place, Trail, Waves};
use serde_json::{Value, json};

/// First cycle, cycles, cycles waited, frame, bytes.
type Stay = (u64, u64, u64, u64, u32);

/// Microseconds, the format's unit, of a cycle.
fn us(cycle: u64, clock_hz: u64) -> f64 {
    cycle as f64 * 1e6 / clock_hz.max(1) as f64
}

/// The trace. Frames that are in one place together get rows of their own, so that slices do not overlap.
pub fn write(trails: &[Trail], waves: Option<&Waves>, clock_hz: u64) -> String {
    let mut events =
        vec![json!({ "ph": "M", "pid": 1, "name": "process_name", "args": { "name": "device" } })];
    let mut stays: BTreeMap<Place, Vec<Stay>> = BTreeMap::new();
    for t in trails {
        for (place, from, service, wait) in t.stays() {
            stays.entry(place).or_default().push((from, service, wait, t.frame, t.len_bytes));
        }
        if let Some(last) = t.stamps.last() {
            let name = format!("frame {}: {}", t.frame, last.place);
            let at = us(last.cycle, clock_hz);
            events.push(json!({ "ph": "i", "s": "p", "pid": 1, "tid": 0, "ts": at, "name": name }));
        }
    }
    let mut tid = 0;
    for (place, mut all) in stays {
        all.sort_unstable();
        // Rows that end when.
        let mut rows: Vec<u64> = Vec::new();
        for (from, service, wait, frame, len) in all {
            let end = from + service + wait;
            let row = rows.iter().position(|e| *e <= from).unwrap_or_else(|| {
                rows.push(0);
                rows.len() - 1
            });
            rows[row] = end;
            events.push(json!({
                "ph": "X", "pid": 1, "tid": tid + 1 + row, "ts": us(from, clock_hz),
                "dur": us(service + wait, clock_hz), "name": format!("frame {frame}"),
                "args": { "cycle": from, "cycles": service, "waited_cycles": wait, "bytes": len },
            }));
        }
        for row in 0..rows.len() {
            let name = if rows.len() == 1 { place.to_string() } else { format!("{place} #{row}") };
            let id = tid + 1 + row;
            events.push(
                json!({ "ph": "M", "pid": 1, "tid": id, "name": "thread_name", "args": { "name": name } }),
            );
            events.push(json!({ "ph": "M", "pid": 1, "tid": id, "name": "thread_sort_index", "args": { "sort_index": id } }));
        }
        tid += rows.len();
    }
    if let Some(w) = waves {
        let counter = |cycle: u64, signal: usize, value: u32| {
            let name = w.signals.get(signal).map_or("", String::as_str);
            json!({ "ph": "C", "pid": 1, "ts": us(cycle, clock_hz), "name": name, "args": { "value": value } })
        };
        events.extend(w.initial.iter().enumerate().map(|(i, v)| counter(w.from_cycle, i, *v)));
        events.extend(w.changes.iter().map(|c| counter(c.cycle, c.signal.into(), c.value)));
    }
    let all: Vec<String> = events.iter().map(Value::to_string).collect();
    format!("{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{}\n]}}\n", all.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nic::Stamp;

    #[test]
    fn slices_of_one_row_never_overlap() {
        let trail = |frame, at: u64| Trail {
            frame,
            copy_of: None,
            len_bytes: 60,
            flow_hash: 0,
            stamps: vec![
                Stamp { place: Place::Parser, cycle: at, ready: at + 6 },
                Stamp { place: Place::Ternary, cycle: at + 9, ready: at + 10 },
            ],
        };
        let text = write(&[trail(1, 0), trail(2, 3), trail(3, 9)], None, 250_000_000);
        let v: Value = serde_json::from_str(&text).unwrap();
        let mut rows: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
        for e in v["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X") {
            let span = (e["ts"].as_f64().unwrap(), e["dur"].as_f64().unwrap());
            rows.entry(e["tid"].as_u64().unwrap()).or_default().push(span);
        }
        assert_eq!(rows.len(), 2);
        for r in rows.values() {
            assert!(r.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0 + 1e-9), "{r:?}");
        }
    }
}
