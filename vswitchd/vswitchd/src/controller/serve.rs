//! Where connections come from: listeners, and controllers we connect to again and again.

use std::sync::Arc;
use std::time::Duration;

use daemon::signals::Stopped;
use daemon::stream::connect_with;
use daemon::{Active, Listener, OPENFLOW_PORT, Tls};
use openflow::switch::OpenFlowSwitch;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::run;
use super::hub::{Counts, Disconnect, Hub, PeerKind};

/// Wait after a failed accept, which mostly means that file descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and serves them until asked to stop; returns once all have ended.
pub async fn listen(
    hub: Arc<Hub>,
    switch: Arc<dyn OpenFlowSwitch>,
    listener: Listener,
    mut stopped: Stopped,
) {
    let mut open = JoinSet::new();
    let mut accepted = 0u64;
    let is_local = listener.name().starts_with("punix:");
    loop {
        let r = tokio::select! {
            () = stopped.wait() => break,
            r = listener.accept() => r,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
        };
        let (stream, peer) = match r {
            Ok(v) => v,
            Err(e) => {
                tracing::warn!(target: "rconn", "{}: {}: accept failed: {e}", hub.bridge(), listener.name());
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let slot = take(&hub.accepted).or_else(|| take(&hub.reserved).filter(|_| is_local));
        let Some(slot) = slot else {
            Counts::add(&hub.counts.refused);
            tracing::warn!(target: "rconn", "{}: {peer} refused: too many connections", hub.bridge());
            continue;
        };
        accepted += 1;
        let name = format!("{peer}#{accepted}");
        let (hub, switch, mut stopped) = (Arc::clone(&hub), Arc::clone(&switch), stopped.clone());
        open.spawn(async move {
            let said = || tracing::debug!(target: "rconn", "{}<->{name}: connected", hub.bridge());
            let why = run(&hub, &switch, stream, &name, PeerKind::Visitor, &mut stopped, said).await;
            match why {
                Disconnect::Closed | Disconnect::Shutdown => {
                    tracing::debug!(target: "rconn", "{}<->{name}: {why}", hub.bridge());
                }
                _ => tracing::warn!(target: "rconn", "{}<->{name}: disconnected: {why}", hub.bridge()),
            }
            drop(slot);
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Keeps a connection to a controller until asked to stop, connecting again after growing pauses.
pub async fn connect_to(
    hub: Arc<Hub>,
    switch: Arc<dyn OpenFlowSwitch>,
    to: Active,
    tls: Tls,
    mut stopped: Stopped,
) {
    let name = to.to_string();
    let (first, longest) = hub.limits.backoff;
    let mut pause = first;
    loop {
        hub.set_target(&name, false, "connecting");
        let stream = tokio::select! {
            () = stopped.wait() => break,
            r = connect_with(&to, OPENFLOW_PORT, hub.limits.handshake, Some(&tls)) => r,
        };
        let why = match stream {
            Ok(stream) => {
                let mut agreed = false;
                let said = || {
                    agreed = true;
                    hub.set_target(&name, true, "connected");
                    tracing::info!(target: "rconn", "{}<->{name}: connected", hub.bridge());
                };
                let why = run(&hub, &switch, stream, &name, PeerKind::Controller, &mut stopped, said).await;
                if agreed {
                    pause = first;
                }
                why.to_string()
            }
            Err(e) => e.to_string(),
        };
        if stopped.is_stopped() {
            break;
        }
        tracing::info!(
            target: "rconn",
            "{}<->{name}: {why}; trying again in {} s",
            hub.bridge(),
            pause.as_secs_f32()
        );
        hub.set_target(&name, false, why);
        tokio::select! {
            () = stopped.wait() => break,
            () = tokio::time::sleep(pause) => {}
        }
        pause = longest.min(pause * 2);
    }
    hub.drop_target(&name);
}
