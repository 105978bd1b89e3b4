//! Where clients come from: listeners and outgoing connections, as configured by name and in a database.
//!
//! ```text
//!   names (--remote, add-remote) --resolve--> target -> options --compare--> tasks started, ended, told of new options
//!            db:... names follow the database's contents
//! ```
//!
//! A task is there for each target: one that listens and starts a session for each connection, or one that connects and
//! connects again, with growing pauses, whenever the session is over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::Duration;

use clock::Instant;
use daemon::reconnect;
use tokio::task::JoinHandle;

use super::hub::{Hub, Shared};
use super::locks::SessionId;
use super::lookup::{self, Fields};
use crate::ChangeSet;

/// OVSDB's TCP port (RFC 7047 9).
pub const OVSDB_PORT: u16 = 6640;
/// Unless the configuration says otherwise, a connection over a network is probed after this much silence.
const PROBE: Duration = Duration::from_secs(5);
/// Unless the configuration says otherwise, pauses between attempts to connect grow to this.
const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// How a remote is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Options {
    pub max_backoff: Duration,
    pub probe_interval: Duration,
    pub read_only: bool,
    pub role: Option<String>,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
}

impl Options {
    fn default_for(target: &str) -> Options {
        let local = target.starts_with("unix:") || target.starts_with("punix:");
        Options {
            max_backoff: MAX_BACKOFF,
            probe_interval: if local { Duration::ZERO } else { PROBE },
            read_only: false,
            role: None,
            // CS6, network control.
            dscp: 48,
        }
    }

    /// Takes over what a row of a manager table says.
    fn apply(&mut self, row: &Fields<'_>) {
        if let Some(t) = row.millis("max_backoff") {
            self.max_backoff = t;
        }
        if let Some(t) = row.millis("inactivity_probe") {
            self.probe_interval = t;
        }
        if let Some(b) = row.boolean("read_only") {
            self.read_only = b;
        }
        self.role = row.string("role").filter(|r| !r.is_empty());
        let dscp = row.map_value("other_config", "dscp").and_then(|d| d.parse::<u8>().ok());
        if let Some(d) = dscp.filter(|d| *d < 64) {
            self.dscp = d;
        }
    }
}

/// A target in use.
#[derive(Debug)]
pub(crate) struct Remote {
    pub options: Options,
    /// Handed to sessions; kept so that they share it.
    task: Option<JoinHandle<()>>,
    pub sessions: BTreeSet<SessionId>,
    /// It listens; otherwise it connects.
    pub listens: bool,
    /// How the connection that it makes was, and when; `None` before the first attempt.
    pub dial: Option<(Instant, reconnect::Status)>,
    pub bound_port: Option<u16>,
    /// It listens, is connected, or has failed to once.
    pub tried: bool,
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(t) = &self.task {
            t.abort();
        }
    }
}

/// The remotes of a server.
#[derive(Default, Debug)]
pub(crate) struct Remotes {
    /// As configured, `db:` names among them.
    pub names: BTreeSet<String>,
    /// By target.
    pub active: BTreeMap<Rc<str>, Remote>,
    /// What was wrong with the names when they were resolved last.
    complaints: HashMap<String, String>,
}

impl Remotes {
    pub fn session_ended(&mut self, remote: &str, id: SessionId) {
        if let Some(r) = self.active.get_mut(remote) {
            r.sessions.remove(&id);
        }
    }
}

impl Hub {
    /// Every target that the configured names stand for, and what is wrong with names.
    fn resolve(&self) -> (BTreeMap<Rc<str>, Options>, HashMap<String, String>) {
        let mut targets: BTreeMap<Rc<str>, Options> = BTreeMap::new();
        let mut complaints = HashMap::new();
        for name in &self.remotes.names {
            if !name.starts_with("db:") {
                targets.entry(name.as_str().into()).or_insert_with(|| Options::default_for(name));
                continue;
            }
            let column = match lookup::column(&self.dbs, name) {
                Ok(c) => c,
                Err(e) => {
                    complaints.insert(name.clone(), e);
                    continue;
                }
            };
            for target in column.strings() {
                let options = Options::default_for(&target);
                targets.entry(target.into()).or_insert(options);
            }
            for (_, row) in column.referred_rows() {
                let Some(target) = row.string("target").filter(|t| !t.is_empty()) else {
                    tracing::info!(
                        target: "ovsdb_server",
                        "Table `{}' has missing or invalid `target' column", column.table.name
                    );
                    continue;
                };
                let options = Options::default_for(&target);
                targets.entry(target.into()).or_insert(options).apply(&row);
            }
        }
        (targets, complaints)
    }

    /// After a commit: wakes the task that follows the configuration, if a table it depends on changed.
    pub(super) fn follow_configuration(&mut self, db: &str, changes: &ChangeSet) {
        let touched = |name: &String| {
            lookup::column(&self.dbs, name)
                .is_ok_and(|c| &**c.db == db && c.tables().into_iter().flatten().any(|t| changes.touches(t)))
        };
        let remotes = self.remotes.names.iter().filter(|n| n.starts_with("db:"));
        if remotes.chain(self.tls_options.names()).any(touched) {
            self.configuration.notify_one();
        }
    }
}

/// Makes the remotes what the configuration says. What is wrong with it is logged when it changes, and returned.
pub(crate) fn reconfigure(shared: &Shared) -> Vec<String> {
    let mut hub = shared.borrow_mut();
    let (targets, mut complaints) = hub.resolve();
    hub.resolve_tls(&mut complaints);
    for (name, why) in &complaints {
        if hub.remotes.complaints.get(name) != Some(why) {
            tracing::warn!(target: "ovsdb_server", "{why}");
        }
    }
    let words = complaints.values().cloned().collect();
    hub.remotes.complaints = complaints;
    // What is gone, and what changed in a way that needs new sockets.
    let gone: Vec<Rc<str>> = hub
        .remotes
        .active
        .iter()
        .filter(|(t, r)| targets.get(*t).is_none_or(|o| o.dscp != r.options.dscp))
        .map(|(t, _)| Rc::clone(t))
        .collect();
    for target in gone {
        if !targets.contains_key(&target) {
            tracing::info!(target: "ovsdb_jsonrpc_server", "{target}: remote deconfigured");
        }
        let sessions = hub.remotes.active.remove(&target).map(|mut r| std::mem::take(&mut r.sessions));
        for id in sessions.into_iter().flatten() {
            if let Some(s) = hub.sessions.get_mut(&id) {
                s.close("");
            }
        }
    }
    let mut fresh = Vec::new();
    for (target, options) in targets {
        match hub.remotes.active.get_mut(&target) {
            Some(r) => {
                r.options = options;
                let (probe, sessions) = (r.options.probe_interval, r.sessions.clone());
                for id in sessions {
                    if let Some(s) = hub.sessions.get_mut(&id) {
                        s.peer.probe_interval = probe;
                        s.wake();
                    }
                }
            }
            None => {
                let listens = target.starts_with('p');
                let remote = Remote {
                    options,
                    task: None,
                    sessions: BTreeSet::new(),
                    listens,
                    dial: None,
                    bound_port: None,
                    tried: false,
                };
                hub.remotes.active.insert(Rc::clone(&target), remote);
                fresh.push((target, listens));
            }
        }
    }
    drop(hub);
    for (target, listens) in fresh {
        let (hub, name) = (Rc::clone(shared), Rc::clone(&target));
        let task = if listens {
            tokio::task::spawn_local(super::listen::listen(hub, name))
        } else {
            tokio::task::spawn_local(super::dial::dial(hub, name))
        };
        if let Some(r) = shared.borrow_mut().remotes.active.get_mut(&target) {
            r.task = Some(task);
        }
    }
    words
}
