//! Active remotes: the server connects to a client, and again whenever the connection is over.
//!
//! ```text
//!   CONNECTING --ok--> ACTIVE --over--> BACKOFF 1 s, 2 s, 4 s ... max_backoff --> CONNECTING
//!            \--failed-----------------/
//! ```

use std::rc::Rc;
use std::time::Duration;

use daemon::address::Active;
use daemon::stream::connect_with;

use super::hub::Shared;
use super::remotes::{Dial, OVSDB_PORT, Remote};
use super::session::SessionTask;

/// First pause.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// A connection that lasted this long was a good one: the next pause is the first again.
const GOOD: Duration = Duration::from_secs(10);

/// Connects to `target` until the task is ended.
pub(super) async fn dial(hub: Shared, target: Rc<str>) {
    let mut backoff = MIN_BACKOFF;
    loop {
        note(&hub, &target, |r, _| r.dial = Some(Dial::Connecting));
        let deadline = backoff.max(MIN_BACKOFF);
        match connect(&hub, &target, deadline).await {
            Ok(stream) => {
                hub.borrow().mark(&target, &stream);
                let client_id = stream.peer_common_name().map(Rc::from);
                let peer = hub.borrow_mut().admit(&target, Rc::clone(&target), client_id);
                if let Some(peer) = peer {
                    let began = hub.borrow().clock.now();
                    let task = SessionTask::new(&hub, peer, stream);
                    hub.borrow_mut().belongs_to(&target, task.id());
                    note(&hub, &target, |r, now| {
                        r.dial = Some(Dial::Active);
                        r.connected_at = Some(now);
                        r.last_error = None;
                    });
                    task.await;
                    note(&hub, &target, |r, now| {
                        r.disconnected_at = Some(now);
                        r.last_error = Some("End of file".to_owned());
                    });
                    if hub.borrow().clock.now().since(began) >= GOOD {
                        backoff = MIN_BACKOFF;
                    }
                }
            }
            Err(words) => {
                tracing::warn!(target: "reconnect", "{target}: connection attempt failed ({words})");
                note(&hub, &target, |r, _| r.last_error = Some(words));
            }
        }
        let Some(max) = hub.borrow().remotes.active.get(&target).map(|r| r.options.max_backoff) else {
            return;
        };
        let max = max.max(MIN_BACKOFF);
        note(&hub, &target, |r, _| r.dial = Some(Dial::Backoff));
        tokio::time::sleep(backoff.min(max)).await;
        backoff = (backoff * 2).min(max);
    }
}

async fn connect(hub: &Shared, target: &str, deadline: Duration) -> Result<daemon::Stream, String> {
    let to: Active = target.parse().map_err(|e: daemon::AddressError| e.to_string())?;
    let to = to.in_dir(&hub.borrow().run_dir);
    let tls = hub.borrow().tls.clone();
    connect_with(&to, OVSDB_PORT, deadline, Some(&tls)).await.map_err(|e| e.to_string())
}

fn note(hub: &Shared, target: &str, f: impl FnOnce(&mut Remote, clock::Instant)) {
    let mut hub = hub.borrow_mut();
    let now = hub.clock.now();
    if let Some(r) = hub.remotes.active.get_mut(target) {
        f(r, now);
        r.tried = true;
    }
    hub.tried.notify_waiters();
}
