//! The forwarding threads: each runs one core of the software datapath.
//!
//! The process begins with as many as its configuration says. `other_config:pmd-cpu-mask` asks for one on each of some processors:
//! threads are started when they are needed first, and stay; a core that is not needed any more is deactivated, and its thread
//! sleeps ([`crate::reconcile`] does that).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use datapath::SoftDatapath;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, gettid};
use parking_lot::{Mutex, RwLock};

use crate::auto_balance::Balancing;
use crate::numa::Numa;
use crate::usage::History;

/// A thread that runs a core.
struct Thread {
    handle: JoinHandle<()>,
    /// Known once it runs.
    id: Arc<Mutex<Option<Pid>>>,
}

/// The forwarding threads.
pub(crate) struct Threads {
    /// Processors that the configuration pins threads to, in order.
    configured: Vec<usize>,
    /// Where each core's thread is to run; `None` is wherever the system puts it.
    on: RwLock<Vec<Option<usize>>>,
    started: Mutex<Vec<Thread>>,
    /// Cores that serve no queues but those that are assigned to them.
    isolated: RwLock<Vec<usize>>,
    /// Somebody wants queues given out anew.
    rebalance: AtomicBool,
    stop: Arc<AtomicBool>,
    /// Which memory node processors are of.
    pub(crate) numa: Numa,
    /// When it is time to look whether queues are to be given out anew.
    pub(crate) balancing: Balancing,
    /// What they were used for lately.
    pub(crate) history: History,
}

impl Threads {
    /// None yet. `threads` are to run, on these processors as far as there are any.
    pub(crate) fn new(threads: usize, configured: Vec<usize>, numa: Numa, stop: Arc<AtomicBool>) -> Self {
        let t = Threads {
            configured,
            on: RwLock::default(),
            started: Mutex::default(),
            isolated: RwLock::default(),
            rebalance: AtomicBool::new(false),
            stop,
            numa,
            balancing: Balancing::default(),
            history: History::default(),
        };
        *t.on.write() = t.as_configured(threads);
        t
    }

    /// Where the first `threads` run when nothing else is asked for.
    pub(crate) fn as_configured(&self, threads: usize) -> Vec<Option<usize>> {
        if self.numa.dummy {
            return self.numa.first_of_each().into_iter().map(Some).collect();
        }
        (0..threads).map(|i| self.configured.get(i).copied()).collect()
    }

    /// Where the cores' threads are to run.
    pub(crate) fn placed(&self) -> Vec<Option<usize>> {
        self.on.read().clone()
    }

    /// Has the cores' threads run there; those that run already move.
    pub(crate) fn place(&self, on: Vec<Option<usize>>) {
        *self.on.write() = on;
        if self.numa.dummy {
            // There are no such processors.
            return;
        }
        let started = self.started.lock();
        for (core, t) in started.iter().enumerate() {
            if let Some(id) = *t.id.lock() {
                pin(id, core, self.pinned(core));
            }
        }
    }

    /// The processor of a core; `None` when it runs wherever the system puts it.
    pub(crate) fn pinned(&self, core: usize) -> Option<usize> {
        self.on.read().get(core).copied().flatten()
    }

    /// The number that a core goes by where people expect a processor's.
    pub(crate) fn processor(&self, core: usize) -> usize {
        self.pinned(core).unwrap_or(core)
    }

    /// The memory node of a core.
    pub(crate) fn node(&self, core: usize) -> usize {
        self.numa.node(self.processor(core))
    }

    /// Starts threads until the first `n` cores of `dp` have one.
    ///
    /// # Errors
    /// When there are no threads left, or a core was taken; those that were started stay.
    pub(crate) fn start(self: &Arc<Self>, dp: &SoftDatapath, n: usize) -> std::io::Result<()> {
        let mut started = self.started.lock();
        for i in started.len()..n {
            let mut core = dp.take_core(i).map_err(std::io::Error::other)?;
            let id = Arc::new(Mutex::new(None));
            let (me, mine) = (Arc::clone(self), Arc::clone(&id));
            let handle = std::thread::Builder::new().name(format!("fwd{i}")).spawn(move || {
                {
                    // Whoever places threads meanwhile finds it, or it finds where it is to be.
                    let mut id = mine.lock();
                    *id = Some(gettid());
                    if me.pinned(i).is_some() && !me.numa.dummy {
                        pin(Pid::from_raw(0), i, me.pinned(i));
                    }
                }
                core.run(&me.stop);
            })?;
            started.push(Thread { handle, id });
        }
        Ok(())
    }

    /// The threads, which end soon after their flag is set and the datapath is woken.
    pub(crate) fn take(&self) -> Vec<JoinHandle<()>> {
        self.started.lock().drain(..).map(|t| t.handle).collect()
    }

    /// Says which cores serve only queues that are assigned to them.
    pub(crate) fn isolate(&self, cores: Vec<usize>) {
        *self.isolated.write() = cores;
    }

    /// Whether a core serves only queues that are assigned to it.
    pub(crate) fn is_isolated(&self, core: usize) -> bool {
        self.isolated.read().contains(&core)
    }

    /// Wants queues given out anew, the next time that the switch is looked at.
    pub(crate) fn want_rebalance(&self) {
        self.rebalance.store(true, Ordering::Release);
    }

    /// Whether that is wanted; not any more then.
    pub(crate) fn wants_rebalance(&self) -> bool {
        self.rebalance.swap(false, Ordering::AcqRel)
    }
}

/// Keeps a thread on one processor, or lets it run anywhere. One that cannot be kept there forwards all the same.
fn pin(thread: Pid, core: usize, processor: Option<usize>) {
    let mut set = CpuSet::new();
    let all = match processor {
        Some(p) => p..p + 1,
        None => 0..CpuSet::count(),
    };
    let pinned = all.into_iter().try_for_each(|p| set.set(p)).and_then(|()| sched_setaffinity(thread, &set));
    match (pinned, processor) {
        (Ok(()), Some(p)) => tracing::info!(target: "dpif_netdev", "core {core} is pinned to processor {p}"),
        (Ok(()), None) => {}
        (Err(e), Some(p)) => {
            tracing::warn!(target: "dpif_netdev", "core {core} cannot be pinned to processor {p}: {e}");
        }
        (Err(e), None) => tracing::warn!(target: "dpif_netdev", "core {core} stays pinned: {e}"),
    }
}
