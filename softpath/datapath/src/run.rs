//! Running a core by itself: polls as long as there is work, then sleeps until a queue or a control thread has some.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

use device::RxQueue;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use crate::core::Core;

/// Longest sleep in milliseconds: how late a core notices its stop flag if nobody wakes it.
const SLEEP_MS: u8 = 100;
/// Pause between polls when a queue has no descriptor to sleep on.
const POLL_PAUSE: Duration = Duration::from_micros(50);

/// Data of an event: the core's own wake-up, or a queue.
const OWN: u64 = 0;
const QUEUE: u64 = 1;

/// How a core learns of packets in a queue while it would sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WakesBy {
    Descriptor,
    /// There is no descriptor: the core must not sleep.
    Polling,
    /// The queue is gone.
    Nothing,
}

/// What a core sleeps on.
pub(crate) struct Sleeper {
    epoll: Epoll,
    /// Queues that have no descriptor.
    polled: usize,
}

impl Sleeper {
    pub(crate) fn new(event: &EventFd) -> std::io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(event, EpollEvent::new(EpollFlags::EPOLLIN, OWN))?;
        Ok(Sleeper { epoll, polled: 0 })
    }

    /// Makes packets in `rx` end the sleep, if it has a descriptor; otherwise keeps the core from sleeping.
    pub(crate) fn watch(&mut self, rx: &dyn RxQueue) -> WakesBy {
        let added = rx
            .poll_fd()
            .is_some_and(|fd| self.epoll.add(fd, EpollEvent::new(EpollFlags::EPOLLIN, QUEUE)).is_ok());
        if added {
            return WakesBy::Descriptor;
        }
        self.polled += 1;
        WakesBy::Polling
    }

    /// Undoes [`Sleeper::watch`], which gave `by`.
    pub(crate) fn forget(&mut self, rx: &dyn RxQueue, by: WakesBy) {
        match by {
            WakesBy::Descriptor => {
                if let Some(fd) = rx.poll_fd() {
                    // A descriptor that is closed has left by itself.
                    let _ = self.epoll.delete(fd.as_fd());
                }
            }
            WakesBy::Polling => self.polled -= 1,
            WakesBy::Nothing => {}
        }
    }
}

impl Core {
    /// Forwards until `stop` is set. Polls; after [`crate::DatapathConfig::busy_poll`] without work it sleeps until a
    /// queue's descriptor or [`crate::SoftDatapath::wake`] wakes it, for 100 ms at most. While a queue has no
    /// descriptor it does not sleep but pauses 50 us between polls.
    pub fn run(&mut self, stop: &AtomicBool) {
        let shared = self.shared.clone();
        let busy_poll = shared.config.busy_poll;
        let mut last_work = shared.clock.now();
        while !stop.load(Ordering::Acquire) {
            let now = shared.clock.now();
            if self.poll_once(now) > 0 {
                last_work = now;
            } else if now.since(last_work) >= busy_poll {
                // What it wakes to that is no packet, such as a change, is no reason to stay awake.
                self.sleep();
                self.watch.slept();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    fn sleep(&mut self) {
        if self.sleeper.polled > 0 {
            std::thread::sleep(POLL_PAUSE);
            return;
        }
        let shared = self.shared.clone();
        let link = &shared.links[self.index];
        link.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if !link.has_changes() && !link.has_packets() {
            let mut events = [EpollEvent::empty(); 1];
            // Interrupted or timed out: the caller polls again.
            if self.sleeper.epoll.wait(&mut events, EpollTimeout::from(SLEEP_MS)).is_ok_and(|n| n > 0)
                && events[0].data() == OWN
            {
                let _ = link.event.read();
            }
        }
        link.sleeping.store(false, Ordering::Relaxed);
    }
}
