//! Where connections come from: listeners, and controllers we connect to again and again.

use std::sync::Arc;
use std::time::Duration;

use clock::Clock;
use daemon::reconnect::{self, Action, Reconnect};
use daemon::signals::Stopped;
use daemon::stream::connect_with;
use daemon::{Active, Listener, OPENFLOW_PORT, Tls};
use openflow::switch::OpenFlowSwitch;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::connection::run;
use super::hub::{Counts, Disconnect, Hub, PeerKind, Who};
use super::settings::SharedSettings;

/// Wait after a failed accept, which mostly means that file descriptors are short.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between looks at the state of a connection to be made: the clock may stand still, or be warped.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

/// Accepts connections and serves them until asked to stop; returns once all have ended.
pub async fn listen(
    hub: Arc<Hub>,
    switch: Arc<dyn OpenFlowSwitch>,
    listener: Listener,
    settings: SharedSettings,
    mut stopped: Stopped,
) {
    let mut open = JoinSet::new();
    let mut accepted = 0u64;
    let is_local = listener.name().starts_with("punix:");
    let kind = if is_local { PeerKind::LocalVisitor } else { PeerKind::Visitor };
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
        let settings = Arc::clone(&settings);
        open.spawn(async move {
            let said = || tracing::debug!(target: "rconn", "{}<->{name}: connected", hub.bridge());
            let who = Who { name: &name, kind, settings: &settings };
            let why = run(&hub, &switch, stream, who, &mut stopped, said).await;
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
    settings: SharedSettings,
    mut stopped: Stopped,
) {
    let name = to.to_string();
    // Silence is the connection's own business: it speaks OpenFlow.
    let options = |settings: &SharedSettings| {
        let (min_backoff, max_backoff) = settings.read().over(&hub.limits).backoff;
        reconnect::Options { min_backoff, max_backoff, probe_interval: None, ..Default::default() }
    };
    let mut r = Reconnect::new(format!("{}<->{name}", hub.bridge()), options(&settings), hub.clock.now());
    r.enable(hub.clock.now());
    while !stopped.is_stopped() {
        let now = hub.clock.now();
        r.set_options(options(&settings));
        if r.run(now) != Some(Action::Connect) {
            hub.set_target(&name, &r);
            let left = r.deadline().map_or(LONGEST_SLEEP, |d| d.since(now));
            tokio::select! {
                () = stopped.wait() => {}
                () = tokio::time::sleep(left.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)) => {}
            }
            continue;
        }
        r.connecting(now);
        hub.set_target(&name, &r);
        let stream = tokio::select! {
            () = stopped.wait() => break,
            s = connect_with(&to, OPENFLOW_PORT, hub.limits.handshake, Some(&tls)) => s,
        };
        let why = match stream {
            Ok(stream) => {
                let said = || {
                    r.connected(hub.clock.now());
                    hub.set_target(&name, &r);
                };
                let who = Who { name: &name, kind: PeerKind::Controller, settings: &settings };
                match run(&hub, &switch, stream, who, &mut stopped, said).await {
                    // An ordinary end, once there was a beginning.
                    Disconnect::Closed if r.state().is_connected() => None,
                    why => Some(why.to_string()),
                }
            }
            Err(e) => Some(e.words()),
        };
        if !stopped.is_stopped() {
            r.disconnected(hub.clock.now(), why.as_deref());
        }
    }
    hub.drop_target(&name);
}
