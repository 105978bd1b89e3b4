//! The documents as text for people.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use daemon::report::{Bridge, Connections, Datapath, Device, Flow, Port, Sim, Status, WhyReport};

use crate::pci_devices::Candidate;
use crate::table::{count, duration, render};

/// `a 1, b 2`, or `none`.
fn listed<V: Display>(map: &BTreeMap<String, V>) -> String {
    if map.is_empty() {
        return "none".to_owned();
    }
    map.iter().map(|(k, v)| format!("{k} {v}")).collect::<Vec<_>>().join(", ")
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) }
}

/// `hoist status`.
pub fn status(s: &Status) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}, pid {}, up {}, run directory {}",
        s.version,
        s.pid,
        duration(s.uptime_ms),
        s.run_dir
    );
    if !s.configuration.is_empty() {
        let _ = writeln!(out, "configured by {}", s.configuration);
    }
    for p in &s.problems {
        let of = if p.bridge.is_empty() { String::new() } else { format!(" of bridge {}", p.bridge) };
        let _ = writeln!(out, "PROBLEM: {} {}{of}: {}", p.kind, p.name, p.why);
    }
    for d in &s.devices {
        let state = if d.up { "up".to_owned() } else { format!("DOWN ({})", d.why_down) };
        let resets =
            if d.resets == 0 { String::new() } else { format!(", {}", count(d.resets as usize, "reset")) };
        let _ = writeln!(out, "\ndevice {} ({}): {state}{resets}", d.name, d.kind);
        if !d.up {
            let _ = writeln!(out, "  its flows are forwarded in software until it is back");
        }
    }
    for b in &s.bridges {
        let _ = writeln!(out, "\nbridge {}", b.name);
        for (name, value) in bridge_lines(b) {
            let _ = writeln!(out, "  {name:<13} {value}");
        }
    }
    let _ = writeln!(out, "\ndatapath");
    for (name, value) in datapath_lines(&s.datapath) {
        let _ = writeln!(out, "  {name:<13} {value}");
    }
    out
}

fn datapath_lines(d: &Datapath) -> Vec<(&'static str, String)> {
    let all = d.rx_packets + d.hardware_packets;
    vec![
        ("flows", format!("{}, {}", d.flows, count(d.masks, "mask"))),
        (
            "hardware",
            format!(
                "{} packets ({} of all), {} bytes",
                d.hardware_packets,
                share(d.hardware_packets, all),
                d.hardware_bytes
            ),
        ),
        (
            "software",
            format!(
                "{} packets: {} exact-match hits, {} megaflow hits, {} shortcuts, {} misses",
                d.rx_packets, d.exact_hits, d.megaflow_hits, d.shortcuts, d.misses
            ),
        ),
        ("drops", listed(&d.drops)),
        ("malformed", listed(&d.malformed)),
    ]
}

fn bridge_lines(b: &Bridge) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("datapath id", b.datapath_id.clone()),
        ("fail mode", b.fail_mode.clone()),
        ("ports", b.ports.to_string()),
        ("listens on", b.listen.join(", ")),
    ];
    for c in &b.controllers {
        let how = if c.connected { "connected" } else { "not connected" };
        let state = if c.state.is_empty() { String::new() } else { format!(" ({})", c.state) };
        lines.push(("controller", format!("{} {how}{state}", c.target)));
    }
    lines.push(("connections", b.connections.to_string()));
    lines.push(("OpenFlow", format!("{} flows", b.openflow_flows)));
    let o = &b.offload;
    if o.enabled {
        let stayed: usize = o.software_flows.values().sum();
        let why = if stayed == 0 { String::new() } else { format!(" ({})", listed(&o.software_flows)) };
        lines.push((
            "offload",
            format!(
                "{} in hardware, {} pending, {stayed} in software{why}",
                o.hardware_flows, o.pending_flows
            ),
        ));
    } else {
        lines.push(("offload", "off".to_owned()));
    }
    lines
}

fn place(f: &Flow) -> String {
    match (f.placement.as_str(), &f.device, &f.table) {
        ("hardware", Some(d), Some(t)) => format!("{d}/{t}"),
        (other, _, _) => other.to_owned(),
    }
}

/// `hoist flows`.
pub fn flows(flows: &[Flow]) -> String {
    if flows.is_empty() {
        return "no flows\n".to_owned();
    }
    let rows = flows.iter().map(|f| {
        vec![
            f.id.to_string(),
            f.bridge.clone(),
            place(f),
            f.packets.to_string(),
            f.hardware_packets.to_string(),
            f.bytes.to_string(),
            f.used_ms_ago.map_or("never".to_owned(), duration),
            f.matches.clone(),
            f.actions.clone(),
        ]
    });
    render(
        &["ID", "BRIDGE", "WHERE", "PACKETS", "IN HW", "BYTES", "USED", "MATCH", "ACTIONS"],
        &[0, 3, 4, 5, 6],
        rows,
    )
}

/// `hoist why`. `asked`: whether certain flows were asked for.
pub fn why(w: &WhyReport, asked: bool) -> String {
    let mut out = String::new();
    for f in &w.flows {
        let _ = writeln!(out, "flow {} on {}: {}", f.id, f.bridge, f.matches);
        let _ = writeln!(out, "  actions   {}", f.actions);
        let rules: Vec<_> =
            f.rules.iter().map(|r| format!("table {} cookie {}", r.table, r.cookie)).collect();
        if !rules.is_empty() {
            let _ = writeln!(out, "  from      {}", rules.join(", "));
        }
        let _ = writeln!(out, "  packets   {} ({} in hardware)", f.packets, f.hardware_packets);
        match &f.why {
            Some(y) => {
                let what = [("table", &y.table), ("field", &y.field), ("action", &y.action)];
                let what: Vec<_> =
                    what.iter().filter_map(|(k, v)| v.as_ref().map(|v| format!("{k} {v}"))).collect();
                let at = if what.is_empty() { String::new() } else { format!(": {}", what.join(", ")) };
                let _ = writeln!(out, "  stopped   by {}{at}", y.layer);
                let _ = writeln!(out, "  because   {}", y.text);
                let _ = writeln!(out, "  to fit    {}", y.remedy);
            }
            None => {
                let _ = writeln!(out, "  placed    in {}", place(f));
            }
        }
        out.push('\n');
    }
    for u in &w.uncached {
        let _ = writeln!(
            out,
            "{} packets without a flow record of their own\n  because   {}\n",
            u.packets, u.reason
        );
    }
    let connections = if asked { String::new() } else { connections(&w.connections) };
    if out.is_empty() {
        let said = if asked { "no such flow\n" } else { "every flow is in hardware\n" };
        return said.to_owned() + &connections;
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out + &connections
}

/// Where tracked connections are; nothing when hardware has nothing to do with them.
fn connections(c: &Connections) -> String {
    let mut out = String::new();
    if c.handed_over + c.refused > 0 || !c.stayed.is_empty() {
        let _ = writeln!(
            out,
            "connections: {} in hardware ({} packets), {} refused by devices",
            c.in_hardware, c.packets, c.refused
        );
    }
    for (why, n) in &c.stayed {
        let _ = writeln!(out, "  {n} stayed in software: {why}");
    }
    out
}

/// `hoist devices`. `configured`: `None` when no switch runs.
pub fn devices(configured: Option<&[Device]>, candidates: &[Candidate]) -> String {
    let mut out = String::new();
    match configured {
        None => out.push_str("no vswitchd is running: configured devices are not known\n"),
        Some([]) => out.push_str("no devices are configured\n"),
        Some(devices) => {
            for d in devices {
                let h = &d.health;
                let state = if h.up { "up".to_owned() } else { format!("DOWN ({})", h.why_down) };
                let simulated = if d.simulated { ", simulated" } else { "" };
                let _ = writeln!(out, "device {} ({}{simulated}): {state}", h.name, d.model);
                let ports = d.ports.iter().map(|p| {
                    vec![
                        format!("  {}", p.number),
                        p.port.clone().unwrap_or_else(|| "-".to_owned()),
                        if p.link_up { "up" } else { "down" }.to_owned(),
                    ]
                });
                out.push_str(&render(&["  PORT", "USED AS", "LINK"], &[], ports));
                let tables = d.tables.iter().map(|t| {
                    vec![
                        format!("  {}", t.name),
                        t.kind.clone(),
                        format!("{}/{}", t.used, t.entries),
                        t.fields.join(" "),
                        t.actions.join(" "),
                    ]
                });
                out.push_str(&render(&["  TABLE", "KIND", "USED", "FIELDS", "ACTIONS"], &[], tables));
                out.push('\n');
            }
        }
    }
    if candidates.is_empty() {
        out.push_str("no network controllers on the PCI bus\n");
    } else {
        out.push_str("network controllers on the PCI bus\n");
        let or_dash = |v: Option<String>| v.unwrap_or_else(|| "-".to_owned());
        let rows = candidates.iter().map(|c| {
            vec![
                format!("  {}", c.address),
                c.id.clone(),
                or_dash(c.driver.clone()),
                or_dash(c.iommu_group.map(|g| g.to_string())),
                or_dash(c.numa_node.map(|n| n.to_string())),
                or_dash((!c.interfaces.is_empty()).then(|| c.interfaces.join(" "))),
                or_dash((!c.cautions.is_empty()).then(|| c.cautions.join("; "))),
            ]
        });
        let head = ["  ADDRESS", "ID", "DRIVER", "IOMMU GROUP", "NUMA", "INTERFACES", "CAUTION"];
        out.push_str(&render(&head, &[], rows));
        for c in candidates {
            let (done, verb, commands) = match (&c.bind[..], &c.unbind[..]) {
                ([], []) => continue,
                ([], commands) => ("given back to the kernel", "unbind", commands),
                (commands, _) => ("bound to vfio-pci", "bind", commands),
            };
            let _ = writeln!(out, "\n{0} is {done} by `hoist {verb} {0}`, which does, as root,", c.address);
            commands.iter().for_each(|line| out.extend(["  ", line, "\n"]));
        }
    }
    out
}

/// `hoist ports`.
pub fn ports(ports: &[Port]) -> String {
    if ports.is_empty() {
        return "no ports\n".to_owned();
    }
    let rows = ports.iter().map(|p| {
        vec![
            p.bridge.clone(),
            p.name.clone(),
            p.ofport.to_string(),
            p.kind.clone(),
            p.behind.clone(),
            match &p.error {
                Some(e) => format!("error: {e}"),
                None if p.link_up => "up".to_owned(),
                None => "down".to_owned(),
            },
            p.rx_packets.to_string(),
            p.tx_packets.to_string(),
            p.rx_dropped.to_string(),
            p.tx_dropped.to_string(),
        ]
    });
    render(
        &["BRIDGE", "PORT", "OFPORT", "TYPE", "BEHIND", "LINK", "RX", "TX", "RX LOST", "TX LOST"],
        &[2, 6, 7, 8, 9],
        rows,
    )
}

/// `hoist sim`.
pub fn sim(devices: &[Sim]) -> String {
    if devices.is_empty() {
        return "no simulated devices\n".to_owned();
    }
    let mut out = String::new();
    for d in devices {
        let _ = writeln!(
            out,
            "device {}: {} cycles at {} MHz, {} ns simulated time in {} ns host time",
            d.device,
            d.cycles,
            d.clock_hz / 1_000_000,
            d.simulated_ns,
            d.host_ns
        );
        let rows = d.stages.iter().map(|s| {
            vec![
                format!("  {}", s.name),
                s.handled.to_string(),
                s.busy_cycles.to_string(),
                format!("{:.3} %", s.utilisation(d.cycles) * 100.0),
                s.stalled_cycles.to_string(),
            ]
        });
        out.push_str(&render(
            &["  STAGE", "HANDLED", "BUSY CYCLES", "UTILISATION", "STALLED"],
            &[1, 2, 3, 4],
            rows,
        ));
        let _ = writeln!(out, "  drops: {}", listed(&d.drops));
        if !d.counters.is_empty() {
            let _ = writeln!(out, "  counters: {}", listed(&d.counters));
        }
        out.push('\n');
    }
    out.push_str("cycles and utilisation are of simulated time\n");
    out
}

#[cfg(test)]
mod tests {
    use daemon::report::{DeviceHealth, Rule, SimStage, Why};

    use super::*;

    fn flow(placement: &str) -> Flow {
        Flow {
            id: 17,
            bridge: "br0".into(),
            matches: "in_port(1)".into(),
            actions: "2".into(),
            packets: 10,
            hardware_packets: 7,
            placement: placement.into(),
            device: Some("sim0".into()),
            table: Some("exact".into()),
            rules: vec![Rule { table: 0, cookie: "0x5".into() }],
            ..Flow::default()
        }
    }

    #[test]
    fn why_names_layer_table_field_and_remedy() {
        let mut f = flow("software");
        f.why = Some(Why {
            layer: "capabilities".into(),
            kind: "field".into(),
            table: Some("ternary".into()),
            field: Some("arp_op".into()),
            text: "table ternary cannot match on arp_op".into(),
            remedy: "do not match on arp_op".into(),
            ..Why::default()
        });
        let text = why(&WhyReport { flows: vec![f], ..WhyReport::default() }, false);
        assert_eq!(
            text,
            "flow 17 on br0: in_port(1)\n  actions   2\n  from      table 0 cookie 0x5\n  packets   10 (7 in hardware)\n\
             \x20 stopped   by capabilities: table ternary, field arp_op\n\
             \x20 because   table ternary cannot match on arp_op\n  to fit    do not match on arp_op\n"
        );
        assert_eq!(why(&WhyReport::default(), false), "every flow is in hardware\n");
        assert_eq!(why(&WhyReport::default(), true), "no such flow\n");
        let text = why(&WhyReport { flows: vec![flow("hardware")], ..WhyReport::default() }, true);
        let connections =
            Connections { in_hardware: 3, handed_over: 5, packets: 70, ..Connections::default() };
        let stayed = [("translated (nat)".to_owned(), 2)].into();
        let w = WhyReport { connections: Connections { stayed, ..connections }, ..WhyReport::default() };
        let said = "every flow is in hardware\nconnections: 3 in hardware (70 packets), 0 refused by devices\n  2 stayed in software: translated (nat)\n";
        assert_eq!(why(&w, false), said);
        assert!(text.ends_with("  placed    in sim0/exact\n"), "{text}");
    }

    #[test]
    fn status_says_when_a_device_is_down() {
        let d = DeviceHealth {
            name: "sim0".into(),
            kind: "sim".into(),
            why_down: "no answer".into(),
            ..Default::default()
        };
        let text =
            status(&Status { devices: vec![d], bridges: vec![Bridge::default()], ..Status::default() });
        assert!(
            text.contains("device sim0 (sim): DOWN (no answer)\n  its flows are forwarded in software"),
            "{text}"
        );
        assert!(text.contains("  offload       off\n"), "{text}");
    }

    #[test]
    fn flows_are_one_line_each() {
        let text = flows(&[flow("hardware"), flow("software")]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[1].contains("sim0/exact") && lines[2].contains("software"), "{text}");
    }

    #[test]
    fn simulated_figures_are_labelled() {
        let s = SimStage { name: "parser".into(), handled: 5, busy_cycles: 25, stalled_cycles: 0 };
        let text = sim(&[Sim { device: "sim0".into(), cycles: 100, stages: vec![s], ..Sim::default() }]);
        assert!(text.contains("simulated time") && text.contains("25.000 %"), "{text}");
    }
}
