//! What control threads and other cores share with a core: bounded queues, a wake-up, its phase.
//!
//! The phase is odd while the core handles a burst and even between bursts. A control thread that has retired a record,
//! and then sees an even phase or the phase change, knows that no packet is executed by that record any more: the next
//! burst reads the mark. Both sides put a sequentially consistent fence between their write and their read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use crossbeam_queue::ArrayQueue;
use device::{PacketBuf, QueuePair};
use flow::{Action, PortId};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::flow_table::Installed;
use crate::perf::PublishedPerf;
use crate::port::PortShared;
use crate::tally::Published;

/// Adds to a counter that only the calling thread writes.
#[inline(always)]
pub(crate) fn bump(c: &AtomicU64, n: u64) {
    c.store(c.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// A change of the flow table on its way to a core.
pub(crate) enum FlowChange {
    Put(Arc<Installed>),
    Removed(Arc<Installed>),
}

/// A change of the ports on its way to a core.
pub(crate) enum PortChange {
    /// The core's queue pairs come with their places among the port's.
    Attach {
        port: Arc<PortShared>,
        queues: Vec<(usize, QueuePair)>,
    },
    Detach {
        id: PortId,
        leaving: Arc<Leaving>,
    },
}

/// A port on its way out: how many cores still have it, and its queues once those that served them have let go.
pub(crate) struct Leaving {
    cores: AtomicUsize,
    /// With their places. A queue and not a lock: forwarding cores put them in.
    queues: ArrayQueue<(usize, QueuePair)>,
}

impl Leaving {
    pub(crate) fn new(cores: usize, queues: usize) -> Self {
        Leaving { cores: AtomicUsize::new(cores), queues: ArrayQueue::new(queues.max(1)) }
    }

    /// A core gives a pair of queues back.
    pub(crate) fn give_back(&self, place: usize, queues: QueuePair) {
        // There is room for all that the port has.
        let _ = self.queues.push((place, queues));
    }

    /// A core has let go of the port, after giving its queues back.
    pub(crate) fn left(&self) {
        self.cores.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether no core has the port any more.
    pub(crate) fn is_done(&self) -> bool {
        self.cores.load(Ordering::Acquire) == 0
    }

    /// The queues, in the port's order.
    pub(crate) fn take(&self) -> Vec<QueuePair> {
        let mut all: Vec<_> = std::iter::from_fn(|| self.queues.pop()).collect();
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, q)| q).collect()
    }
}

/// A packet to be executed.
pub(crate) struct Execute {
    pub(crate) packet: PacketBuf,
    pub(crate) in_port: PortId,
    pub(crate) actions: Arc<[Action]>,
}

const FLOW_CHANGES: usize = 4096;
/// So many changes of the flow table wake a core that sleeps. It takes over those before them ahead of its next packet, or when
/// it next looks by itself.
const WAKING_CHANGES: usize = 64;
const PORT_CHANGES: usize = 1024;
const HANDOFFS: usize = 1024;

/// One core, seen from outside.
pub(crate) struct CoreLink {
    /// Whether it has a part in anything. Written under the locks of ports and flows.
    pub(crate) active: AtomicBool,
    pub(crate) flows: ArrayQueue<FlowChange>,
    /// A change did not fit the queue: the core has to read the whole table.
    pub(crate) resync: AtomicBool,
    pub(crate) ports: ArrayQueue<PortChange>,
    pub(crate) executes: ArrayQueue<Execute>,
    pub(crate) handoff: ArrayQueue<(PortId, PacketBuf)>,
    pub(crate) taken: AtomicBool,
    pub(crate) event: EventFd,
    pub(crate) sleeping: AtomicBool,
    phase: AtomicU64,
    pub(crate) published: Published,
    pub(crate) perf: PublishedPerf,
}

impl CoreLink {
    pub(crate) fn new(executes: usize, active: bool) -> std::io::Result<Self> {
        Ok(CoreLink {
            active: AtomicBool::new(active),
            flows: ArrayQueue::new(FLOW_CHANGES),
            resync: AtomicBool::new(false),
            ports: ArrayQueue::new(PORT_CHANGES),
            executes: ArrayQueue::new(executes.max(1)),
            handoff: ArrayQueue::new(HANDOFFS),
            taken: AtomicBool::new(false),
            event: EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?,
            sleeping: AtomicBool::new(false),
            phase: AtomicU64::new(0),
            published: Published::default(),
            perf: PublishedPerf::default(),
        })
    }

    /// Whether the core has a part in anything.
    #[inline]
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Sends a change of the flow table.
    pub(crate) fn change(&self, c: FlowChange) {
        if self.flows.push(c).is_err() {
            self.resync.store(true, Ordering::Release);
        }
        if self.flows.len() >= WAKING_CHANGES {
            self.wake();
        }
    }

    /// Wakes the core if it sleeps or is about to. Call it after putting something into a queue.
    pub(crate) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) {
            // A failure means that the counter is full, which wakes as well.
            let _ = self.event.write(1);
        }
    }

    /// Whether changes wait for the core.
    #[inline]
    pub(crate) fn has_changes(&self) -> bool {
        !self.flows.is_empty() || self.resync.load(Ordering::Acquire) || !self.ports.is_empty()
    }

    /// Whether packets wait for the core.
    #[inline]
    pub(crate) fn has_packets(&self) -> bool {
        !self.executes.is_empty() || !self.handoff.is_empty()
    }

    /// The core begins a burst.
    #[inline]
    pub(crate) fn enter(&self) {
        self.phase.store(self.phase.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The core has finished a burst.
    #[inline]
    pub(crate) fn leave(&self) {
        self.phase.store(self.phase.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The phase now; `None` between bursts.
    pub(crate) fn busy_phase(&self) -> Option<u64> {
        fence(Ordering::SeqCst);
        let p = self.phase.load(Ordering::Acquire);
        (p % 2 == 1).then_some(p)
    }
}
