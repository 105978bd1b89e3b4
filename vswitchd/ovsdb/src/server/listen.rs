//! Passive remotes: a listener, and a session for each connection.

use std::rc::Rc;
use std::time::Duration;

use daemon::address::Passive;
use daemon::stream::{Listener, StreamError};

use super::hub::{Hub, Shared};
use super::remotes::OVSDB_PORT;
use super::session::{Peer, SessionTask};

/// Pause before a listener that could not be opened is tried again, and after an error of accept(2).
const RETRY: Duration = Duration::from_secs(1);

/// Listens on `target` until the task is ended.
pub(super) async fn listen(hub: Shared, target: Rc<str>) {
    let listener = open(&hub, &target).await;
    let mut connections = 0u64;
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(a) => a,
            Err(e) => {
                tracing::warn!(target: "ovsdb_jsonrpc_server", "{target}: accept failed: {e}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        connections += 1;
        // Open vSwitch numbers the clients of unix sockets, which have no address.
        let name = if peer == "unix" { format!("unix#{connections}") } else { peer };
        hub.borrow().mark(&target, &stream);
        let client_id = stream.peer_common_name().map(Rc::from);
        let Some(peer) = hub.borrow_mut().admit(&target, name.into(), client_id) else { continue };
        let task = SessionTask::new(&hub, peer, stream);
        hub.borrow_mut().belongs_to(&target, task.id());
        tokio::task::spawn_local(task);
    }
}

/// Opens the listener, however often that has to be tried.
async fn open(hub: &Shared, target: &Rc<str>) -> Listener {
    let mut said = String::new();
    loop {
        let opened = match target.parse::<Passive>() {
            Ok(on) => {
                let on = on.in_dir(&hub.borrow().run_dir);
                let tls = hub.borrow().tls.clone();
                Listener::bind_with(&on, OVSDB_PORT, Some(&tls)).await
            }
            Err(source) => Err(StreamError::Io {
                name: target.to_string(),
                source: std::io::Error::new(std::io::ErrorKind::InvalidInput, source.to_string()),
            }),
        };
        match opened {
            Ok(l) => {
                if let Some(port) = l.tcp_port() {
                    tracing::info!(target: "socket_util", "{target}: listening on port {port}");
                }
                let mut h = hub.borrow_mut();
                if let Some(r) = h.remotes.active.get_mut(target) {
                    r.bound_port = l.tcp_port();
                    r.tried = true;
                }
                h.tried.notify_waiters();
                return l;
            }
            Err(e) => {
                let words = e.to_string();
                if words != said {
                    tracing::error!(target: "ovsdb_jsonrpc_server", "{target}: listen failed: {words}");
                    said = words;
                }
                let mut h = hub.borrow_mut();
                if let Some(r) = h.remotes.active.get_mut(target) {
                    r.tried = true;
                }
                h.tried.notify_waiters();
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

impl Hub {
    /// What a connection that came by `target` may do; `None` when there are too many already.
    pub(super) fn admit(
        &mut self,
        target: &Rc<str>,
        name: Rc<str>,
        client_id: Option<Rc<str>>,
    ) -> Option<Peer> {
        if self.sessions.len() >= self.limits.sessions {
            self.counters.refused_clients += 1;
            tracing::warn!(
                target: "ovsdb_jsonrpc_server",
                "{name}: refused, {} clients are connected already", self.sessions.len()
            );
            return None;
        }
        let options = &self.remotes.active.get(target)?.options;
        Some(Peer {
            name,
            remote: Some(Rc::clone(target)),
            read_only: options.read_only,
            role: options.role.as_deref().map(Rc::from),
            client_id,
            probe_interval: options.probe_interval,
        })
    }

    /// Marks a connection's packets as its remote's configuration wants.
    pub(super) fn mark(&self, target: &str, stream: &daemon::Stream) {
        let Some(r) = self.remotes.active.get(target) else { return };
        if let Err(e) = stream.set_dscp(r.options.dscp) {
            tracing::warn!(target: "socket_util", "{target}: cannot set dscp {}: {e}", r.options.dscp);
        }
    }

    /// Notes that a session came by `target`.
    pub(super) fn belongs_to(&mut self, target: &str, session: super::locks::SessionId) {
        if let Some(r) = self.remotes.active.get_mut(target) {
            r.sessions.insert(session);
        }
    }
}
