//! A process of `osken-manager` with the learning application, and the events it prints.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use lab::command::inside;
use lab::eventually;
use serde_json::Value;

/// Where it listens, in the switch's namespace.
pub const PORT: u16 = 6653;

/// A running controller. Killed when dropped.
pub struct Controller {
    child: Child,
    events: Arc<Mutex<Vec<Value>>>,
    log: PathBuf,
}

impl Controller {
    /// Starts it in namespace `ns`. What it learns is forgotten after `idle_s` seconds without use.
    pub fn start(manager: &Path, ns: &str, log: &Path, idle_s: u32) -> Controller {
        let application = Path::new(env!("CARGO_MANIFEST_DIR")).join("controllers/learning.py");
        let mut child = inside(ns, manager.to_str().unwrap())
            .args(["--ofp-listen-host", "127.0.0.1", "--ofp-tcp-listen-port", &PORT.to_string()])
            .arg(application)
            .env("HOIST_IDLE_S", idle_s.to_string())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONWARNINGS", "ignore")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log).unwrap())
            .spawn()
            .unwrap();
        let events = Arc::new(Mutex::new(Vec::new()));
        let (out, seen) = (BufReader::new(child.stdout.take().unwrap()), Arc::clone(&events));
        // Ends with the process, whose output ends then.
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    seen.lock().unwrap().push(event);
                }
            }
        });
        Controller { child, events, log: log.to_owned() }
    }

    /// Every event of this name so far, in order.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.events.lock().unwrap().iter().filter(|e| e["event"] == name).cloned().collect()
    }

    /// Waits for an event of this name that `f` accepts.
    pub fn wait_for(&self, name: &str, f: impl Fn(&Value) -> bool) -> Value {
        eventually(|| self.events(name).into_iter().find(|e| f(e)))
            .unwrap_or_else(|| panic!("the controller hears of no such {name}: {:#?}", self.events(name)))
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its events and its log, for messages.
    pub fn story(&self) -> String {
        let events: Vec<_> =
            self.events.lock().map(|e| e.iter().map(Value::to_string).collect()).unwrap_or_default();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("{}\n{log}", events.join("\n"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end();
    }
}
