//! OpenFlow flows: what one takes on the heap, and how many are parsed and added per second.
//!
//! The flows match `udp,nw_src=/32,nw_dst=/24,tp_dst` in seven priorities and output to one of three ports. They are read
//! from text as `ovs-ofctl` takes it, then applied to a bridge that has no datapath and no records.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;

use clock::{Instant, ManualClock};
use flow::PortId;
use ofproto::trace::Names;
use ofproto::{Bridge, BridgeConfig, Port, Switch, SwitchConfig, TraceStart};
use openflow::number::MacAddr;
use openflow::text::parse_file;
use openflow::{FlowMod, PortNo};

use crate::cycles::{counter_hz, now};
use crate::figure::{Figure, Unit};
use crate::heap::Held;
use crate::part::BenchError;
use crate::target::Target;

/// How often the timed runs are repeated.
const REPEATS: usize = 3;

/// Tables of the pipeline that is traced, and how often.
const TABLES: u8 = 60;
const TRACES: usize = 101;

/// Name of the figure of a trace.
pub const TRACE: &str = "trace through 60 tables, with its text";

/// Flow-mods in one change of the tables, where they come in bundles.
const BUNDLE: usize = 100;

/// Datapath port of OpenFlow port 1; the others follow.
pub const FIRST_PORT: PortId = PortId(11);

/// Which parts of the headers the flows match.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Masks {
    /// All flows the same parts.
    One,
    /// Each priority its own: seven masks.
    Seven,
}

/// Source, destination and destination port of packets of flow `i`. Each flow has a source of its own.
pub fn packet_of(i: u32) -> (Ipv4Addr, Ipv4Addr, u16) {
    let [_, a, b, c] = i.to_be_bytes();
    (Ipv4Addr::new(10, a, b, c), Ipv4Addr::new(192, 168, (i % 200) as u8, 7), 1000 + (i % 5000) as u16)
}

/// `n` flows, a line each.
pub fn flow_text(n: u32, masks: Masks) -> String {
    let mut out = String::new();
    for i in 0..n {
        let (src, dst, port) = packet_of(i);
        let shape = if masks == Masks::One { 0 } else { i % 7 };
        let proto = if shape < 5 { "udp" } else { "ip" };
        let dst = match shape {
            0 | 2 | 5 => format!(",nw_dst={dst}/24"),
            1 => format!(",nw_dst={dst}/16"),
            _ => String::new(),
        };
        let port = if matches!(shape, 0 | 1 | 3) { format!(",tp_dst={port}") } else { String::new() };
        let (priority, to) = (10 * (1 + i % 7), 2 + i % 3);
        // Writing to a string does not fail.
        let _ = writeln!(out, "priority={priority},{proto},nw_src={src}{dst}{port},actions=output:{to}");
    }
    out
}

/// The same flows, parsed.
///
/// # Errors
/// When the text is not understood.
pub fn flow_mods(n: u32, masks: Masks) -> Result<Vec<FlowMod>, BenchError> {
    Ok(parse_file(&flow_text(n, masks), &|_| None)?)
}

/// A switch with one bridge of four ports and no flows.
pub fn switch() -> (Arc<Switch>, Arc<Bridge>) {
    switch_with(Arc::new(ManualClock::new()))
}

/// The same, with this clock.
pub fn switch_with(clock: Arc<ManualClock>) -> (Arc<Switch>, Arc<Bridge>) {
    let config = SwitchConfig { flow_limit: usize::MAX, ..SwitchConfig::default() };
    let switch = Switch::new(clock, config);
    let bridge = switch.add_bridge(BridgeConfig::new("br0", 1));
    for n in 0..4u8 {
        let (no, dp) = (PortNo(u32::from(n) + 1), PortId(FIRST_PORT.0 + u32::from(n)));
        bridge.put_port(Port::new(no, dp, &format!("p{no}", no = no.0), MacAddr([2, 0, 0, 0, 0, n])));
    }
    (switch, bridge)
}

/// Applies flow-mods, `at_a_time` in one change of the tables.
///
/// # Errors
/// Which one failed.
pub fn load(bridge: &Bridge, mods: &[FlowMod], at_a_time: usize) -> Result<(), BenchError> {
    for (i, some) in mods.chunks(at_a_time.max(1)).enumerate() {
        bridge
            .apply(some, Instant::ZERO)
            .map_err(|(at, e)| BenchError::FlowMod { at: i * at_a_time + at, why: format!("{e:?}") })?;
    }
    Ok(())
}

/// `n` per second of what `f` does `n` of.
fn rate<T>(n: u32, f: impl FnOnce() -> Result<T, BenchError>) -> Result<(f64, T), BenchError> {
    let start = now();
    let out = f()?;
    let seconds = (now() - start) as f64 / counter_hz();
    Ok((f64::from(n) / seconds, out))
}

/// Measures with `n` flows. Bytes are zero unless [`crate::heap::Counting`] is the program's allocator.
///
/// # Errors
/// When a flow is not understood or not taken.
pub fn run(n: u32) -> Result<Vec<Figure>, BenchError> {
    let text = flow_text(n, Masks::One);
    let (mut bytes, mut allocations) = (Vec::new(), Vec::new());
    let (mut parsed, mut single, mut bundled) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let (r, mods) = rate(n, || Ok(parse_file(&text, &|_| None)?))?;
        parsed.push(r);
        let (_switch, bridge) = switch();
        let start = Held::now();
        single.push(rate(n, || load(&bridge, &mods, 1))?.0);
        let (b, a) = Held::now().since(start, n);
        bytes.push(b);
        allocations.push(a);
        if bridge.pipeline().n_rules() != n as usize {
            return Err(BenchError::FlowMod { at: 0, why: "flows are missing".into() });
        }
        drop(bridge);
        let (_switch, bridge) = switch();
        bundled.push(rate(n, || load(&bridge, &mods, BUNDLE))?.0);
    }
    let figure = |name: &str, unit, v| Figure::of(name, unit, v).rules(n.into());
    Ok(vec![
        figure("OpenFlow flow", Unit::BytesPerFlow, bytes),
        figure("  its allocations", Unit::AllocationsPerFlow, allocations),
        figure("flows parsed from text", Unit::RulesPerSecond, parsed),
        figure("flow-mods, one at a time", Unit::RulesPerSecond, single),
        figure("flow-mods, in bundles of 100", Unit::RulesPerSecond, bundled),
        Figure::of(TRACE, Unit::Microseconds, traces(TABLES)?).rules(TABLES.into()).target(Target::Trace),
    ])
}

/// Flows of a pipeline of `n` tables: each writes a register and goes on, the last sends.
fn pipeline_text(n: u8) -> String {
    let line = |t: u8| match t + 1 {
        next if next < n => {
            format!("table={t},priority=10,ip,actions=load:{t}->NXM_NX_REG0[],goto_table:{next}\n")
        }
        _ => format!("table={t},priority=10,ip,actions=mod_nw_src:10.9.9.9,output:2\n"),
    };
    (0..n).map(line).collect()
}

/// Microseconds that `ofproto/trace` takes through `n` tables, its text included.
fn traces(n: u8) -> Result<Vec<f64>, BenchError> {
    let (_switch, bridge) = switch();
    load(&bridge, &parse_file(&pipeline_text(n), &|_| None)?, usize::from(n))?;
    let text = "in_port=1,tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,nw_ttl=64,tp_src=1,tp_dst=2";
    let key = *flow::text::ofctl::parse(text).map_err(|_| BenchError::NoHit)?.key();
    let mut out = Vec::new();
    for _ in 0..TRACES {
        let start = now();
        let trace = bridge.trace_from(&key, PortNo(1), TraceStart::Tables, false);
        let text = trace.text(Names::NONE);
        out.push((now() - start) as f64 / counter_hz() * 1e6);
        if text.lines().filter(|l| l.contains(". ip, priority 10")).count() != usize::from(n) {
            return Err(BenchError::NoHit);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flows_are_what_is_said_of_them() {
        let mods = flow_mods(70, Masks::One).unwrap();
        let priorities: std::collections::BTreeSet<_> = mods.iter().map(|m| m.priority).collect();
        assert_eq!(priorities.len(), 7);
        let (_switch, bridge) = switch();
        load(&bridge, &mods, BUNDLE).unwrap();
        let p = bridge.pipeline();
        assert_eq!((p.n_rules(), p.table(0).unwrap().rules.masks()), (70, 1));
        let (_switch, bridge) = switch();
        load(&bridge, &flow_mods(70, Masks::Seven).unwrap(), 1).unwrap();
        let p = bridge.pipeline();
        assert_eq!((p.n_rules(), p.table(0).unwrap().rules.masks()), (70, 7));
    }

    #[test]
    fn a_flow_that_is_refused_is_named() {
        let mut mods = flow_mods(3, Masks::One).unwrap();
        mods[2].table = openflow::TableId(254);
        let (_switch, bridge) = switch();
        assert!(matches!(load(&bridge, &mods, 2), Err(BenchError::FlowMod { at: 2, .. })));
    }
}
