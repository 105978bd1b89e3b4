//! What a transaction costs, and how many go through in a second.

use std::path::Path;
use std::process::Command;

use lab::OvsdbServer;
use ovsdb::vswitch::DATABASE;
use serde_json::{Value, json};

use super::Sizes;
use super::client::{bridge, bridge_uuid, cpu_us, exchange, fill, update};
use crate::contender::{Contender, Values, figures};
use crate::figure::{Figure, Unit};
use crate::part::BenchError;
use crate::target::Target;

/// Ports that are there while it is measured.
const PORTS: usize = 1000;
/// Transactions in flight, where more than one.
const WINDOW: usize = 32;
/// The client in Python; plain JSON-RPC, no package beyond what Python has.
const PYTHON: &str = include_str!("client.py");

pub fn run(all: &[Contender], dir: &Path, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let servers = all.iter().map(|c| c.serve(dir, None)).collect::<Result<Vec<_>, _>>()?;
    for s in &servers {
        let mut c = s.connect()?;
        bridge(&mut c)?;
        fill(&mut c, PORTS)?;
    }
    let mut out = Vec::new();
    for (window, target) in [(1, None), (WINDOW, Some(Target::OvsdbCpu))] {
        let what = format!("update, native client, {window} in flight, server CPU");
        let values = native(&servers, sizes, window)?;
        let mut f = figures(all, &what, Unit::MicrosPerTransaction, &values, None);
        f[0].target = target;
        out.extend(f);
    }
    let values = inserts(&servers, sizes)?;
    let what = format!("port in or out, native client, {WINDOW} in flight, server CPU");
    out.extend(figures(all, &what, Unit::MicrosPerTransaction, &values, None));
    for (window, target) in [(1, None), (WINDOW, Some(Target::OvsdbPythonRate))] {
        let p = python(&servers, dir, sizes, window)?;
        let what = format!("update, Python client, {window} in flight");
        out.extend(figures(all, &what, Unit::TransactionsPerSecond, &p.rate, target));
        out.extend(figures(
            all,
            &format!("{what}, server CPU"),
            Unit::MicrosPerTransaction,
            &p.server_us,
            None,
        ));
        // No server makes the client faster than this.
        let own = format!("{what}, the client's own CPU");
        out.push(Figure::of(own, Unit::MicrosPerTransaction, p.client_us));
    }
    Ok(out)
}

/// In turn over the servers, once more than is told: the first time warms up.
fn in_turn(
    servers: &[OvsdbServer],
    repeats: usize,
    mut f: impl FnMut(usize, &OvsdbServer) -> Result<f64, BenchError>,
) -> Result<Values, BenchError> {
    let mut values = vec![Vec::new(); servers.len()];
    for repeat in 0..=repeats {
        for (i, s) in servers.iter().enumerate() {
            let v = f(i, s)?;
            if repeat > 0 {
                values[i].push(v);
            }
        }
    }
    Ok(values)
}

fn native(servers: &[OvsdbServer], sizes: &Sizes, window: usize) -> Result<Values, BenchError> {
    in_turn(servers, sizes.repeats, |_, s| {
        let mut c = s.connect()?;
        let row = bridge_uuid(&mut c)?;
        cpu_us(s, sizes.transactions, || exchange(&mut c, sizes.transactions, window, |n| update(&row, n)))
    })
}

fn inserts(servers: &[OvsdbServer], sizes: &Sizes) -> Result<Values, BenchError> {
    let n = sizes.transactions / 4;
    let mutate = |op: &str, set: Value| {
        json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", "br0"]],
            "mutations": [["ports", op, ["set", [set]]]]})
    };
    let request = |ops: Vec<Value>, n: usize| {
        let params: Vec<_> = [Value::from(DATABASE)].into_iter().chain(ops).collect();
        json!({"method": "transact", "params": params, "id": n}).to_string().into_bytes()
    };
    in_turn(servers, sizes.repeats, |_, s| {
        let mut c = s.connect()?;
        let insert = |i: usize| {
            let name = format!("x{i}");
            request(
                vec![
                    json!({"op": "insert", "table": "Interface", "row": {"name": name, "type": "internal"}, "uuid-name": "i"}),
                    json!({"op": "insert", "table": "Port", "row": {"name": name, "interfaces": ["named-uuid", "i"]},
                        "uuid-name": "p"}),
                    mutate("insert", json!(["named-uuid", "p"])),
                ],
                i,
            )
        };
        let delete = |uuids: &[Value], i: usize| request(vec![mutate("delete", uuids[i].clone())], i);
        let before = s.cpu()?;
        exchange(&mut c, n, WINDOW, insert)?;
        let half = s.cpu()? - before;
        // The select that finds the rows is not in the figure.
        let op = json!({"op": "select", "table": "Port", "where": [["tag", "==", ["set", []]]],
            "columns": ["_uuid", "name"]});
        let rows = c.transact(DATABASE, &[op])?;
        let rows = rows[0]["rows"].as_array().into_iter().flatten();
        let uuids: Vec<Value> = rows
            .filter(|r| r["name"].as_str().is_some_and(|n| n.starts_with('x')))
            .map(|r| r["_uuid"].clone())
            .collect();
        if uuids.len() != n {
            return Err(BenchError::Ovsdb(format!("{} of {n} ports are there", uuids.len())));
        }
        let other = cpu_us(s, 1, || exchange(&mut c, n, WINDOW, |i| delete(&uuids, i)))?;
        Ok((half.as_secs_f64() * 1e6 + other) / (2 * n) as f64)
    })
}

/// What the Python client gave, each by server.
struct Python {
    /// Transactions per second.
    rate: Values,
    /// Processor time of the server for each.
    server_us: Values,
    /// Processor time of the client for each, whichever the server.
    client_us: Vec<f64>,
}

fn python(servers: &[OvsdbServer], dir: &Path, sizes: &Sizes, window: usize) -> Result<Python, BenchError> {
    let script = dir.join("client.py");
    std::fs::write(&script, PYTHON)?;
    let (mut server_us, mut client_us) = (vec![Vec::new(); servers.len()], Vec::new());
    let rate = in_turn(servers, sizes.repeats, |i, s| {
        let n = sizes.transactions;
        let mut rate = 0.0;
        let us = cpu_us(s, n, || {
            let mut c = Command::new("python3");
            c.arg(&script).arg(s.dir().join("db.sock")).args([n.to_string(), window.to_string()]);
            let out = lab::command::done(&mut c)?;
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            let numbers: Vec<f64> = text.split_whitespace().filter_map(|t| t.parse().ok()).collect();
            let [seconds, own] = numbers[..] else {
                return Err(BenchError::Ovsdb(format!("the Python client said {text:?}")));
            };
            rate = n as f64 / seconds;
            client_us.push(own * 1e6 / n as f64);
            Ok(())
        })?;
        server_us[i].push(us);
        Ok(rate)
    })?;
    // The first was to warm up.
    for v in &mut server_us {
        v.remove(0);
    }
    client_us.drain(..servers.len());
    Ok(Python { rate, server_us, client_us })
}
