//! The model behind a running switch: a thread carries frames between its port and what the wire ends in. Registers are accessed by
//! the switch's threads, and do at once what they do.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use device::{BufferPool, Interrupt, PacketBatch, PacketBuf, RxQueue, TxQueue};
use model_bus::{Backing, Model};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Ixgbe, Outside};

/// Buffers for frames on their way out.
const POOL_CELLS: u32 = 2048;
/// Frames that wait for the wire to take them; more are lost.
const BACKLOG: usize = 1024;
/// Bursts from the wire between two looks at what was sent.
const BURSTS: usize = 8;
/// How often a wire without a descriptor, or one that takes nothing, is looked at.
const POLL_MS: u16 = 1;
/// The longest sleep.
const SLEEP_MS: u16 = 100;
/// How soon a wire that failed is looked at again.
const RECOVERY: Duration = Duration::from_millis(20);

/// What the wire ends in.
type Wire = (Box<dyn RxQueue>, Box<dyn TxQueue>);

struct Shared {
    stop: AtomicBool,
    wake: Interrupt,
    attach: Mutex<Option<Wire>>,
}

/// A simulated device that runs, with its thread. Clones are the same device.
#[derive(Clone)]
pub struct IxgbeSim {
    model: Model<Ixgbe>,
    shared: Arc<Shared>,
}

/// Ends the thread when dropped.
pub struct LiveIxgbe {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl IxgbeSim {
    /// A device called `name`, its cable pulled out, and the thread that runs it.
    ///
    /// # Errors
    /// When there is no thread, memory or descriptor.
    pub fn start(name: &str) -> io::Result<(IxgbeSim, LiveIxgbe)> {
        let wake = Interrupt::new()?;
        let mut chip = Ixgbe::new();
        chip.wake = Some(wake.clone());
        chip.carrier = false;
        let model = Model::live(chip, name);
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), wake, attach: Mutex::new(None) });
        let pool = BufferPool::new(POOL_CELLS).map_err(io::Error::other)?;
        let run = Carrier {
            model: model.clone(),
            shared: shared.clone(),
            pool,
            wire: None,
            incoming: PacketBatch::new(),
            outgoing: VecDeque::new(),
        };
        let thread = std::thread::Builder::new().name("ixgbe-sim".into()).spawn(move || run.run())?;
        Ok((IxgbeSim { model, shared: shared.clone() }, LiveIxgbe { shared, thread: Some(thread) }))
    }

    /// The device as a driver takes it.
    pub fn backing(&self) -> Backing<Ixgbe> {
        self.model.backing()
    }

    /// The device itself, for a test.
    pub fn model(&self) -> &Model<Ixgbe> {
        &self.model
    }

    /// The wire ends in these from now on, instead of what it ended in before.
    pub fn attach(&self, rx: Box<dyn RxQueue>, tx: Box<dyn TxQueue>) {
        *self.shared.attach.lock().unwrap_or_else(PoisonError::into_inner) = Some((rx, tx));
        self.shared.wake.raise();
    }

    /// The cable is plugged in or pulled out.
    pub fn set_carrier(&self, up: bool) {
        self.model.set_carrier(up);
    }
}

impl Drop for LiveIxgbe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake.raise();
        if let Some(t) = self.thread.take()
            && t.join().is_err()
        {
            tracing::error!("the simulated ixgbe's thread panicked");
        }
    }
}

/// The thread.
struct Carrier {
    model: Model<Ixgbe>,
    shared: Arc<Shared>,
    pool: BufferPool,
    wire: Option<Wire>,
    incoming: PacketBatch,
    outgoing: VecDeque<PacketBuf>,
}

impl Carrier {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            self.shared.wake.take();
            if let Some(w) = self.shared.attach.lock().unwrap_or_else(PoisonError::into_inner).take() {
                self.wire = Some(w);
            }
            let busy = self.receive();
            let sent = self.send();
            if !busy && !sent {
                self.sleep();
            }
        }
    }

    /// From the wire into the device; whether there was anything.
    fn receive(&mut self) -> bool {
        let Some((rx, _)) = &mut self.wire else { return false };
        let mut any = false;
        for _ in 0..BURSTS {
            match rx.rx_burst(&mut self.incoming) {
                Ok(0) => break,
                Ok(_) => {
                    any = true;
                    for p in self.incoming.drain_all() {
                        self.model.inject(&p);
                    }
                }
                Err(_) => {
                    self.incoming.clear();
                    std::thread::sleep(RECOVERY);
                    break;
                }
            }
        }
        any
    }

    /// From the device onto the wire; whether there was anything.
    fn send(&mut self) -> bool {
        let frames = self.model.collect();
        let any = !frames.is_empty();
        for (_, f) in frames {
            if self.outgoing.len() < BACKLOG
                && let Some(p) = self.pool.copy_from(&f)
            {
                self.outgoing.push_back(p);
            }
        }
        let Some((_, tx)) = &mut self.wire else {
            self.outgoing.clear();
            return any;
        };
        while !self.outgoing.is_empty() {
            let mut batch = PacketBatch::new();
            while batch.room() > 0
                && let Some(p) = self.outgoing.pop_front()
            {
                // There is room: the loop asked for it.
                let _ = batch.push(p);
            }
            let sent = tx.tx_burst(&mut batch);
            let left = !batch.is_empty();
            let mut back: Vec<_> = batch.drain_all().collect();
            while let Some(p) = back.pop() {
                self.outgoing.push_front(p);
            }
            if sent.is_err() {
                self.outgoing.clear();
            }
            if left {
                break;
            }
        }
        if let Some((_, tx)) = &mut self.wire {
            let _ = tx.flush();
        }
        any
    }

    fn sleep(&self) {
        let mut fds = vec![PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN)];
        let mut longest = SLEEP_MS;
        match self.wire.as_ref().map(|(rx, _)| rx.poll_fd()) {
            Some(Some(fd)) => fds.push(PollFd::new(fd, PollFlags::POLLIN)),
            Some(None) => longest = POLL_MS,
            None => {}
        }
        if !self.outgoing.is_empty() {
            longest = POLL_MS;
        }
        // An interrupted sleep is a short one.
        let _ = poll(&mut fds, PollTimeout::from(longest));
    }
}
