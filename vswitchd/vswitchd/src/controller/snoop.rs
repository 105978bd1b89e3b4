//! Listening in on a bridge's connection to a controller: what `ovs-ofctl snoop` connects to.
//!
//! Whoever connects to `<rundir>/<bridge>.snoop` is shown every message that goes either way between the bridge and one of its
//! controllers, in the order in which they do, from the moment that both are connected. That is the controller of the highest
//! role when the listener comes; one that is not connected yet will do. What a listener sends is read and forgotten.
//!
//! A listener that does not read loses messages, whole ones, and nobody waits for it.

use std::sync::Arc;

use daemon::Listener;
use daemon::signals::Stopped;
use openflow::message::Role;
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::connection::handshake;
use super::hub::Hub;

/// Most listeners of a bridge.
const MAX_LISTENERS: usize = 8;
/// Most bytes kept for a listener that does not read.
const QUEUE_BYTES: usize = 1 << 20;

/// Who listens, and to whom.
#[derive(Default)]
pub(super) struct Snoopers {
    all: RwLock<Vec<Arc<Snooper>>>,
}

struct Snooper {
    /// Stream name of the controller.
    target: String,
    queue: Mutex<Vec<u8>>,
    wake: Notify,
}

impl Snoopers {
    /// Shows whole messages of the connection to `target`, either way, to those who listen to it. How many of them were not
    /// shown it because they do not read.
    pub(super) fn show(&self, target: &str, messages: &[u8]) -> usize {
        let mut lost = 0;
        for s in self.all.read().iter().filter(|s| s.target == target) {
            let mut queue = s.queue.lock();
            if queue.len() + messages.len() > QUEUE_BYTES {
                lost += 1;
            } else {
                queue.extend_from_slice(messages);
                s.wake.notify_one();
            }
        }
        lost
    }

    fn join(&self, target: String) -> Option<Arc<Snooper>> {
        let mut all = self.all.write();
        if all.len() >= MAX_LISTENERS {
            return None;
        }
        let s = Arc::new(Snooper { target, queue: Mutex::default(), wake: Notify::new() });
        all.push(Arc::clone(&s));
        Some(s)
    }

    fn leave(&self, s: &Arc<Snooper>) {
        self.all.write().retain(|o| !Arc::ptr_eq(o, s));
    }
}

/// How much a controller is worth listening to.
pub(super) fn preference(role: Option<Role>) -> u8 {
    match role {
        Some(Role::Master) => 3,
        Some(Role::Equal | Role::NoChange) => 2,
        Some(Role::Slave) => 1,
        None => 0,
    }
}

/// Accepts those who want to listen in until asked to stop.
pub async fn listen_in(hub: Arc<Hub>, listener: Listener, mut stopped: Stopped) {
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopped.wait() => break,
            r = listener.accept() => r,
            Some(_) = open.join_next(), if !open.is_empty() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(super::serve::ACCEPT_PAUSE).await;
            continue;
        };
        let Some(target) = hub.worth_snooping() else {
            tracing::debug!(target: "connmgr", "{}: no controller connections to snoop on", hub.bridge());
            continue;
        };
        let Some(snooper) = hub.snoopers.join(target) else {
            tracing::warn!(target: "connmgr", "{}: {MAX_LISTENERS} listen in already", hub.bridge());
            continue;
        };
        let (hub, mut stopped) = (Arc::clone(&hub), stopped.clone());
        open.spawn(async move {
            tokio::select! {
                () = stopped.wait() => {}
                () = serve(&hub, &snooper, stream) => {}
            }
            hub.snoopers.leave(&snooper);
        });
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

/// Shows a listener what there is until it goes.
async fn serve(hub: &Hub, snooper: &Snooper, stream: impl AsyncRead + AsyncWrite + Send) {
    let (mut rd, mut wr) = tokio::io::split(stream);
    let shaken = handshake(hub.versions(), &mut rd, &mut wr);
    if !matches!(tokio::time::timeout(hub.limits.handshake, shaken).await, Ok(Ok(_))) {
        return;
    }
    let mut ignored = [0; 512];
    let (mut out, mut sent) = (Vec::new(), 0);
    loop {
        if sent == out.len() {
            out = std::mem::take(&mut *snooper.queue.lock());
            sent = 0;
        }
        tokio::select! {
            r = wr.write(&out[sent..]), if sent < out.len() => match r {
                Ok(n) if n > 0 => sent += n,
                _ => return,
            },
            r = rd.read(&mut ignored) => if !matches!(r, Ok(n) if n > 0) { return },
            () = snooper.wake.notified(), if sent == out.len() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_read_loses_whole_messages_and_others_nothing() {
        let all = Snoopers::default();
        let slow = all.join("tcp:a".to_owned()).unwrap();
        let other = all.join("tcp:b".to_owned()).unwrap();
        let half = vec![1; QUEUE_BYTES / 2];
        assert_eq!([0; 3].map(|_| all.show("tcp:a", &half)), [0, 0, 1]);
        assert_eq!(all.show("tcp:b", &[2; 8]), 0);
        assert_eq!(slow.queue.lock().len(), QUEUE_BYTES);
        assert_eq!(*other.queue.lock(), [2; 8]);
        all.leave(&slow);
        assert_eq!(all.show("tcp:a", &half), 0);
    }

    #[test]
    fn there_are_no_more_than_so_many() {
        let all = Snoopers::default();
        assert_eq!((0..20).filter(|_| all.join("tcp:a".to_owned()).is_some()).count(), MAX_LISTENERS);
    }

    #[test]
    fn the_highest_role_is_listened_to() {
        let order = [None, Some(Role::Slave), Some(Role::Equal), Some(Role::Master)];
        assert!(order.map(preference).is_sorted());
    }
}
