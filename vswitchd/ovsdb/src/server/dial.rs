//! Active remotes: the server connects to a client, and again whenever the connection is over, as the reconnect state machine
//! says. Silence is the session's own business, as with clients that have come by themselves.

use std::rc::Rc;
use std::time::Duration;

use daemon::address::Active;
use daemon::reconnect::{self, Action, Reconnect};
use daemon::stream::connect_with;

use super::hub::Shared;
use super::remotes::{OVSDB_PORT, Options};
use super::session::SessionTask;

/// Between looks at the state machine: the clock may stand still, or be warped.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);
const LONGEST_SLEEP: Duration = Duration::from_millis(500);

fn patience(options: &Options) -> reconnect::Options {
    let usual = reconnect::Options::default();
    reconnect::Options {
        max_backoff: options.max_backoff.max(usual.min_backoff),
        probe_interval: None,
        ..usual
    }
}

/// Connects to `target` until the task is ended.
pub(super) async fn dial(hub: Shared, target: Rc<str>) {
    let now = hub.borrow().clock.now();
    let mut r = Reconnect::new(&*target, reconnect::Options::default(), now);
    r.enable(now);
    loop {
        let Some(options) = hub.borrow().remotes.active.get(&target).map(|r| patience(&r.options)) else {
            return;
        };
        r.set_options(options);
        let now = hub.borrow().clock.now();
        if r.run(now) != Some(Action::Connect) {
            let left = r.deadline().map_or(LONGEST_SLEEP, |d| d.since(now));
            tokio::time::sleep(left.clamp(SHORTEST_SLEEP, LONGEST_SLEEP)).await;
            continue;
        }
        r.connecting(now);
        note(&hub, &target, &r, false);
        let deadline = r.deadline().map_or(options.min_backoff, |d| d.since(now));
        let over = match connect(&hub, &target, deadline).await {
            Ok(stream) => {
                hub.borrow().mark(&target, &stream);
                let client_id = stream.peer_common_name().map(Rc::from);
                let peer = hub.borrow_mut().admit(&target, Rc::clone(&target), client_id);
                match peer {
                    Some(peer) => {
                        r.connected(hub.borrow().clock.now());
                        let task = SessionTask::new(&hub, peer, stream);
                        hub.borrow_mut().belongs_to(&target, task.id());
                        note(&hub, &target, &r, true);
                        task.await;
                        None
                    }
                    None => Some("too many clients are connected".to_owned()),
                }
            }
            Err(words) => Some(words),
        };
        let now = hub.borrow().clock.now();
        // A connection counts as one that lived until it ended.
        r.activity(now);
        r.disconnected(now, over.as_deref());
        note(&hub, &target, &r, true);
    }
}

async fn connect(hub: &Shared, target: &str, deadline: Duration) -> Result<daemon::Stream, String> {
    let to: Active = target.parse().map_err(|e: daemon::AddressError| e.to_string())?;
    let to = to.in_dir(&hub.borrow().run_dir);
    let tls = hub.borrow().tls.clone();
    connect_with(&to, OVSDB_PORT, deadline, Some(&tls)).await.map_err(|e| e.words())
}

/// Lets the status columns know, and once there is something to know whoever waits for the first attempt.
fn note(hub: &Shared, target: &str, connection: &Reconnect, tried: bool) {
    let mut hub = hub.borrow_mut();
    let now = hub.clock.now();
    if let Some(r) = hub.remotes.active.get_mut(target) {
        r.dial = Some((now, connection.status(now)));
        r.tried |= tried;
    }
    hub.tried.notify_waiters();
}
