//! What the clients of the benchmarks send.

use lab::{OvsdbServer, Rpc};
use ovsdb::vswitch::DATABASE;
use serde_json::{Value, json};

use crate::part::BenchError;

/// Makes the row of the switch and bridge br0, on a new database.
pub fn bridge(c: &mut Rpc) -> Result<(), BenchError> {
    let ops = [
        json!({"op": "insert", "table": "Bridge", "row": {"name": "br0"}, "uuid-name": "b"}),
        json!({"op": "insert", "table": "Open_vSwitch", "row": {"bridges": ["named-uuid", "b"]}}),
    ];
    c.transact(DATABASE, &ops)?;
    Ok(())
}

/// The operations that add ports `range` to br0, each with its interface and what an orchestrator writes there.
pub fn ports(range: std::ops::Range<usize>) -> Vec<Value> {
    let mut ops = Vec::with_capacity(2 * range.len() + 1);
    let mut names = Vec::with_capacity(range.len());
    for n in range {
        let (port, interface) = (format!("p{n}"), format!("i{n}"));
        let ids = [
            ["attached-mac", &format!("52:54:00:00:{:02x}:{:02x}", n >> 8 & 0xff, n & 0xff)],
            ["iface-id", &format!("{:08x}-1111-4222-8333-444455556666", n)],
            ["iface-status", "active"],
            ["vm-id", &format!("{:08x}-aaaa-4bbb-8ccc-ddddeeeeffff", n / 2)],
        ];
        ops.push(json!({"op": "insert", "table": "Interface", "uuid-name": interface,
            "row": {"name": format!("tap{n}"), "type": "internal", "external_ids": ["map", ids]}}));
        ops.push(json!({"op": "insert", "table": "Port", "uuid-name": port,
            "row": {"name": format!("tap{n}"), "interfaces": ["named-uuid", interface], "tag": n % 4095}}));
        names.push(json!(["named-uuid", port]));
    }
    ops.push(json!({"op": "mutate", "table": "Bridge", "where": [["name", "==", "br0"]],
        "mutations": [["ports", "insert", ["set", names]]]}));
    ops
}

/// Adds `n` ports in transactions of a thousand.
pub fn fill(c: &mut Rpc, n: usize) -> Result<(), BenchError> {
    for from in (0..n).step_by(1000) {
        c.transact(DATABASE, &ports(from..n.min(from + 1000)))?;
    }
    Ok(())
}

/// The row of br0.
pub fn bridge_uuid(c: &mut Rpc) -> Result<Value, BenchError> {
    let op =
        json!({"op": "select", "table": "Bridge", "where": [["name", "==", "br0"]], "columns": ["_uuid"]});
    let rows = c.transact(DATABASE, &[op])?;
    Ok(rows[0]["rows"][0]["_uuid"].clone())
}

/// A request that writes `n` into one column of one row.
pub fn update(row: &Value, n: usize) -> Vec<u8> {
    let op = json!({"op": "update", "table": "Bridge", "where": [["_uuid", "==", row]],
        "row": {"external_ids": ["map", [["n", n.to_string()]]]}});
    json!({"method": "transact", "params": [DATABASE, op], "id": n}).to_string().into_bytes()
}

/// Sends `n` requests that `request` makes, `window` of them in flight, and checks each reply.
pub fn exchange(
    c: &mut Rpc,
    n: usize,
    window: usize,
    request: impl Fn(usize) -> Vec<u8>,
) -> Result<(), BenchError> {
    let (mut sent, mut done) = (0, 0);
    while done < n {
        while sent < n && sent - done < window {
            c.send_bytes(&request(sent))?;
            sent += 1;
        }
        let reply = c.receive_bytes()?;
        // Every reply to a transaction that succeeds has it; no other has.
        let good = reply.windows(12).any(|w| w == b"\"error\":null")
            || reply.windows(13).any(|w| w == b"\"error\": null");
        if !good || reply.windows(8).any(|w| w == b"details\"") {
            return Err(BenchError::Ovsdb(format!(
                "a transaction failed: {}",
                String::from_utf8_lossy(&reply)
            )));
        }
        done += 1;
    }
    Ok(())
}

/// Processor time of the server per transaction in `f`, in microseconds, with `n` of them in it.
pub fn cpu_us(
    s: &OvsdbServer,
    n: usize,
    f: impl FnOnce() -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    let before = s.cpu()?;
    f()?;
    Ok((s.cpu()? - before).as_secs_f64() * 1e6 / n as f64)
}
