//! docs/support-matrix.md is made from what providers declare; this fails when they drift apart.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use clock::HostClock;
use device::BufferPool;
use flow::PortId;
use nic::SimNic;
use offload::OffloadProvider;
use simnic::{SimnicConfig, SimnicDriver};

const FILE: &str = "docs/support-matrix.md";

fn matrix() -> String {
    let sim = SimNic::new(nic::Config::default(), 1).unwrap();
    let ports = (0..4).map(|p| (PortId(p + 1), p as u8)).collect();
    let pool = BufferPool::new(2048).unwrap();
    let clock = Arc::new(HostClock::new());
    // As the switch has it.
    let config = SimnicConfig { connections: true, ..SimnicConfig::new(ports) };
    let nic = SimnicDriver::bring_up(sim.backing(), pool, config, clock).unwrap();
    let caps = nic.provider.capabilities();
    assert_eq!(caps.inconsistencies(), Vec::<String>::new());
    let d = caps.describe();

    let mut out = String::from(
        "# What hardware can do\n\nMade from what each provider declares (`capabilities()`); the test `support_matrix` fails when \
         this page drifts\nand rewrites it when `HOIST_WRITE_MATRIX` is set. Whatever is not here, the software path does.\n",
    );
    let _ = writeln!(out, "\n## SimNIC-4, default profile\n");
    let names: Vec<_> = d.tables.iter().map(|t| t.name).collect();
    let row = |out: &mut String, head: &str, cells: Vec<String>| {
        let _ = writeln!(out, "| {head} | {} |", cells.join(" | "));
    };
    row(&mut out, "table", names.iter().map(|n| n.to_string()).collect());
    row(&mut out, "---", names.iter().map(|_| "---".into()).collect());
    let each = |f: &dyn Fn(&offload::describe::TableDescription) -> String| {
        d.tables.iter().map(f).collect::<Vec<_>>()
    };
    row(&mut out, "matching", each(&|t| format!("`{:?}`", t.kind)));
    row(&mut out, "entries", each(&|t| t.entries.to_string()));
    row(&mut out, "actions per entry", each(&|t| t.max_actions.to_string()));
    row(&mut out, "outputs per entry", each(&|t| t.max_outputs.to_string()));
    row(
        &mut out,
        "counter bits, packets and bytes",
        each(&|t| format!("{} and {}", t.counters.packet_bits, t.counters.byte_bits)),
    );
    row(&mut out, "insertion, ns (simulated)", each(&|t| t.insert_ns.to_string()));
    let _ = writeln!(
        out,
        "\nReplaces atomically: {}. Reports where a chain stopped: {}. Shared objects: {}.",
        d.atomic_replace,
        d.resume_point,
        if d.objects.is_empty() { "none".into() } else { format!("{:?}", d.objects) }
    );

    let needs = |n: &[(&'static str, Vec<String>)]| {
        let n: Vec<_> = n.iter().map(|(f, v)| format!("{f} = {}", v.join(" or "))).collect();
        if n.is_empty() { String::new() } else { format!(" with {}", n.join(", ")) }
    };
    let mut fields: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut actions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (i, t) in d.tables.iter().enumerate() {
        for k in &t.key {
            let cells = fields.entry(k.field).or_insert_with(|| vec!["-".into(); names.len()]);
            let form = format!("{:?}", k.form).to_lowercase();
            cells[i] = format!("{form}{}{}", if k.required { ", required" } else { "" }, needs(&k.needs));
        }
        for a in &t.actions {
            let cells = actions.entry(a.action.clone()).or_insert_with(|| vec!["-".into(); names.len()]);
            let slots = if a.slots > 1 { format!(", {} slots", a.slots) } else { String::new() };
            cells[i] = format!("yes{slots}{}", needs(&a.needs));
        }
    }
    for (what, rows) in [
        ("match", fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect::<Vec<_>>()),
        ("action", actions.into_iter().collect()),
    ] {
        let _ = writeln!(out);
        row(&mut out, what, names.iter().map(|n| n.to_string()).collect());
        row(&mut out, "---", names.iter().map(|_| "---".into()).collect());
        for (name, cells) in rows {
            row(&mut out, &format!("`{name}`"), cells);
        }
    }
    out
}

#[test]
fn the_support_matrix_says_what_providers_declare() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(FILE);
    let now = matrix();
    if std::env::var_os("HOIST_WRITE_MATRIX").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == now,
        "{FILE} is out of date: HOIST_WRITE_MATRIX=1 cargo test -p differential --test support_matrix"
    );
}
