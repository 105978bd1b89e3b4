//! The first process of the lab's machine, once its root is there: does what the host asks over a virtio-serial port (see
//! `lab::machine`). Never ends; the host switches the machine off.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// What the host calls the port.
const PORT: &str = "hoist.agent";
/// How long the port may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// The port's device node.
fn port() -> Result<PathBuf> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        for e in std::fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            let name = std::fs::read_to_string(e.path().join("name")).unwrap_or_default();
            let node = Path::new("/dev").join(e.file_name());
            if name.trim() == PORT && node.exists() {
                return Ok(node);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("no port {PORT}")
}

/// The words of a command.
fn command(v: &Value) -> Result<Command> {
    let words: Vec<&str> = v.as_array().context("no words")?.iter().filter_map(Value::as_str).collect();
    let (program, args) = words.split_first().context("no program")?;
    let mut c = Command::new(program);
    c.args(args).stdin(Stdio::null());
    Ok(c)
}

fn status(s: std::process::ExitStatus) -> i64 {
    s.code().map_or(-1, i64::from)
}

fn answer(ask: &Value, children: &mut HashMap<u64, Child>) -> Result<Value> {
    if let Some(words) = ask.get("run") {
        let o = command(words)?.output().with_context(|| words.to_string())?;
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        return Ok(json!({ "status": status(o.status), "out": text(&o.stdout), "err": text(&o.stderr) }));
    }
    if let Some(words) = ask.get("start") {
        let log = File::create(ask["log"].as_str().context("no log")?)?;
        let child = command(words)?.stdout(log.try_clone()?).stderr(log).spawn()?;
        let pid = u64::from(child.id());
        children.insert(pid, child);
        return Ok(json!({ "pid": pid }));
    }
    if let Some(pid) = ask.get("wait").and_then(Value::as_u64) {
        let mut child = children.remove(&pid).context("no such process")?;
        return Ok(json!({ "status": status(child.wait()?) }));
    }
    bail!("not understood")
}

fn serve() -> Result<()> {
    let node = port()?;

    let line = OpenOptions::new().read(true).write(true).open(&node).context("the port")?;
    let mut out = line.try_clone()?;
    let mut children = HashMap::new();
    writeln!(out, "{}", json!({ "ready": true }))?;
    for text in BufReader::new(line).lines() {
        let text = text?;
        let said = serde_json::from_str(&text).map_err(Into::into).and_then(|v| answer(&v, &mut children));
        let said = said.unwrap_or_else(|e| json!({ "error": format!("{e:#}") }));
        writeln!(out, "{said}")?;
    }
    Ok(())
}

fn main() -> Result<()> {
    if std::env::var_os("HOIST_GUEST").is_none() {
        bail!("this is for the inside of the lab's machine: cargo xtask lab vfio");
    }
    loop {
        if let Err(e) = serve() {
            println!("FAIL  agent: {e:#}");
        }
        std::thread::sleep(PATIENCE / 20);
    }
}
