//! The two lines to a machine: to the agent inside, which runs programs, and to QEMU.
//!
//! The agent's is one JSON object a line each way: `{"run": [program, arguments]}` is answered, when the program has ended, by
//! `{"status": n, "out": text, "err": text}`; `{"start": [..], "log": file}` by `{"pid": n}`; `{"wait": pid}` by the status once it
//! has ended. QEMU's is its machine protocol (QMP).

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::wait::eventually;

/// A socket with a line of JSON each way.
struct Lines {
    out: UnixStream,
    back: BufReader<UnixStream>,
}

impl Lines {
    fn connect(socket: &Path) -> Result<Lines> {
        let out = eventually(|| UnixStream::connect(socket).ok())
            .with_context(|| format!("nothing listens at {}", socket.display()))?;
        let back = BufReader::new(out.try_clone()?);
        Ok(Lines { out, back })
    }

    fn send(&mut self, v: &Value) -> Result<()> {
        self.out.write_all(format!("{v}\n").as_bytes()).context("the machine does not listen")
    }

    fn receive(&mut self, limit: Duration) -> Result<Value> {
        self.out.set_read_timeout(Some(limit))?;
        let mut line = String::new();
        let n = self.back.read_line(&mut line).with_context(|| format!("no answer within {limit:?}"))?;
        if n == 0 {
            bail!("the machine has gone");
        }
        serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))
    }
}

/// What a program in the machine did.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit status; -1 when a signal ended it or it could not be started.
    pub status: i64,
    /// What it wrote.
    pub out: String,
    /// What it wrote of errors.
    pub err: String,
}

/// The agent.
pub(super) struct Agent(Lines);

impl Agent {
    /// Waits for the machine to be up.
    pub(super) fn connect(socket: &Path, limit: Duration) -> Result<Agent> {
        let mut lines = Lines::connect(socket)?;
        let hello = lines.receive(limit).context("the machine does not come up")?;
        if hello["ready"] != true {
            bail!("the agent says {hello}");
        }
        Ok(Agent(lines))
    }

    fn ask(&mut self, v: &Value, limit: Duration) -> Result<Value> {
        self.0.send(v)?;
        let answer = self.0.receive(limit).with_context(|| v.to_string())?;
        match answer["error"].as_str() {
            Some(e) => bail!("{v}: {e}"),
            None => Ok(answer),
        }
    }

    pub(super) fn run(&mut self, words: &[&str], limit: Duration) -> Result<Ran> {
        let a = self.ask(&json!({ "run": words }), limit)?;
        let text = |k: &str| a[k].as_str().unwrap_or_default().to_owned();
        Ok(Ran { status: a["status"].as_i64().unwrap_or(-1), out: text("out"), err: text("err") })
    }

    pub(super) fn start(&mut self, words: &[&str], log: &str, limit: Duration) -> Result<u64> {
        let a = self.ask(&json!({ "start": words, "log": log }), limit)?;
        a["pid"].as_u64().context("no process id")
    }

    pub(super) fn wait(&mut self, pid: u64, limit: Duration) -> Result<i64> {
        let a = self.ask(&json!({ "wait": pid }), limit)?;
        a["status"].as_i64().context("no status")
    }
}

/// QEMU's machine protocol.
pub(super) struct Qmp(Lines);

impl Qmp {
    pub(super) fn connect(socket: &Path, limit: Duration) -> Result<Qmp> {
        let mut q = Qmp(Lines::connect(socket)?);
        q.0.receive(limit).context("QEMU does not greet")?;
        q.ask("qmp_capabilities", json!({}), limit)?;
        Ok(q)
    }

    pub(super) fn ask(&mut self, command: &str, arguments: Value, limit: Duration) -> Result<Value> {
        self.0.send(&json!({ "execute": command, "arguments": arguments }))?;
        loop {
            let mut v = self.0.receive(limit).with_context(|| command.to_owned())?;
            if v.get("error").is_some() {
                bail!("{command}: {}", v["error"]["desc"]);
            }
            // Events come in between.
            if v.get("return").is_some() {
                return Ok(v["return"].take());
            }
        }
    }
}
