//! The thread that changes the switch while it runs.
//!
//! Whoever has a new wanted state hands it over and may wait until the switch is like it; of several that come while one is
//! being carried out the last one counts. In between the thread looks again when the kernel tells of interfaces, and now and
//! then while something is not as wanted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use flow::PortId;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::desired::Desired;
use crate::poke::Poke;
use crate::reconcile::Reconciler;
use crate::report::Parts;

/// Between attempts while something could not be had.
const RETRY: Duration = Duration::from_secs(1);
/// Between looks when everything is as wanted: news of interfaces comes by itself.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Pending {
    /// Handed over and not taken up yet.
    desired: Option<Desired>,
    /// How often something has been handed over.
    submitted: u64,
    /// Ports to be taken out of the datapath, whatever is wanted.
    taken_out: Vec<String>,
    /// Dummy ports that are to have another number in the datapath.
    renumbered: Vec<(String, PortId)>,
    /// Bridges that are to connect to their controllers anew.
    reconnecting: Vec<String>,
}

/// The way to change a running switch. Clones are the same way.
#[derive(Clone)]
pub struct Reconfigure {
    pending: Arc<Mutex<Pending>>,
    poke: Arc<Poke>,
    /// Number of the last state that was carried out.
    done: watch::Sender<u64>,
}

impl Default for Reconfigure {
    fn default() -> Self {
        Reconfigure { pending: Arc::default(), poke: Arc::default(), done: watch::Sender::new(0) }
    }
}

impl Reconfigure {
    /// Wants the switch to be like `desired`. What comes back is for [`Reconfigure::wait`].
    pub fn submit(&self, desired: Desired) -> u64 {
        let mut p = self.pending.lock();
        p.desired = Some(desired);
        p.submitted += 1;
        let n = p.submitted;
        drop(p);
        self.poke.poke();
        n
    }

    /// Returns once the switch has been made like the state with that number, or a later one. False when it ends before.
    pub async fn wait(&self, n: u64) -> bool {
        self.done.subscribe().wait_for(|d| *d >= n).await.is_ok_and(|d| *d != u64::MAX)
    }

    /// Tells the number of the last state that was carried out; `u64::MAX` at the end.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.done.subscribe()
    }

    /// Has a port taken out of the datapath. It comes back when the switch is made like the wanted state the next time.
    pub fn take_out(&self, port: &str) {
        self.pending.lock().taken_out.push(port.to_owned());
        self.poke.poke();
    }

    /// Has a dummy port made anew with another number in the datapath, if nobody has that.
    pub fn renumber(&self, port: &str, to: PortId) {
        self.pending.lock().renumbered.push((port.to_owned(), to));
        self.poke.poke();
    }

    /// Has bridges end the connections to their controllers, and make them anew.
    pub fn reconnect(&self, bridges: Vec<String>) {
        self.pending.lock().reconnecting.extend(bridges);
        self.poke.poke();
    }

    /// Has the switch looked at again.
    pub fn look_again(&self) {
        self.poke.poke();
    }

    /// Runs `reconciler` on a thread of its own until `stop` is set and [`Reconfigure::look_again`] is called; then it shuts
    /// it down.
    ///
    /// # Errors
    /// When there are no threads left.
    pub fn start(
        &self,
        mut reconciler: Reconciler,
        parts: Arc<Parts>,
        stop: Arc<AtomicBool>,
    ) -> std::io::Result<JoinHandle<()>> {
        let me = self.clone();
        std::thread::Builder::new().name("config".to_owned()).spawn(move || {
            while !stop.load(Ordering::Acquire) {
                let asked = {
                    let mut p = me.pending.lock();
                    let submitted = p.submitted;
                    std::mem::replace(&mut *p, Pending { submitted, ..Pending::default() })
                };
                reconciler.reconnect(&asked.reconnecting);
                for (port, to) in asked.renumbered {
                    reconciler.renumber(&port, to);
                }
                for port in &asked.taken_out {
                    reconciler.take_out(port);
                }
                match asked.desired {
                    Some(d) => reconciler.apply(d),
                    None if asked.taken_out.is_empty() => reconciler.look_again(),
                    None => {}
                }
                me.done.send_if_modified(|d| std::mem::replace(d, asked.submitted) != asked.submitted);
                let loose = parts.sims.lock().iter().any(|s| s.has_loose_wire());
                let unwell = loose || parts.outcomes.has_errors();
                me.poke.wait(if unwell { RETRY } else { IDLE });
            }
            reconciler.shut_down();
            // Nobody waits for what will not come.
            me.done.send_replace(u64::MAX);
        })
    }
}
