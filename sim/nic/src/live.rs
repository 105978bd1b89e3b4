//! Live mode: a thread runs the device as fast as the host can, its ports attached to packet I/O.
//!
//! ```text
//!   RxQueue ─► [copy] ─► wire in ─► device ─► wire out ─► [copy] ─► TxQueue
//! ```
//!
//! The thread sleeps when the device is idle and no port has anything: on the ports' descriptors and on an event
//! descriptor that register writes and doorbells ring. Ports without a descriptor are looked at every [`POLL`]. The
//! device's lock is given up, fairly, between runs of [`QUANTUM_CYCLES`], so that register accesses do not wait long.
//! Cycles pass only while there is something to do; time as the driver sees it is the host's.
//!
//! Behavioural: how device cycles and the host's time go together; the cycles themselves are those of lockstep.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use clock::Clock;
use device::{BufferPool, IoError, PacketBatch, RxQueue, TxQueue};
use kernel::RunEnd;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::MutexGuard;

use crate::drops::DropReason;
use crate::handle::{Core, Inner, SimHandle};

/// Cycles run between two looks at ports and doorbells.
const QUANTUM_CYCLES: u64 = 256;
/// How often ports without a descriptor are looked at while the device is idle.
const POLL: Duration = Duration::from_micros(100);
/// How often frames are offered again to a transmit queue that was full.
const RETRY: Duration = Duration::from_millis(1);
/// How soon a port whose receive queue failed, but is not gone, is looked at again.
const RECOVERY: Duration = Duration::from_millis(20);
/// The longest sleep.
const LONGEST: Duration = Duration::from_millis(1000);
/// Buffers for frames on their way out.
const POOL_CELLS: u32 = 4096;
/// Frames waiting for a transmit queue of one port at most.
const BACKLOG: usize = 256;

/// What is to be attached to a port.
pub(crate) struct AttachRequest {
    port: u8,
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
}

/// A port's outside.
struct Wire {
    port: u8,
    rx: Box<dyn RxQueue>,
    tx: Box<dyn TxQueue>,
    incoming: PacketBatch,
    outgoing: PacketBatch,
    backlog: VecDeque<device::PacketBuf>,
    rx_state: RxState,
    /// Frames the outside refused, not accounted for yet.
    lost: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum RxState {
    Good,
    /// The last look failed; the interface may come back.
    Failed,
    Gone,
}

/// A device that runs live. Dropping it stops the thread; the device is in lockstep again.
pub struct LiveDevice {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

impl SimHandle {
    /// Starts running the device live.
    ///
    /// # Errors
    /// When it runs live already, or no thread or memory can be had.
    pub fn start_live(&self) -> io::Result<LiveDevice> {
        let pool = BufferPool::new(POOL_CELLS).map_err(io::Error::other)?;
        let inner = self.0.clone();
        if inner.live.swap(true, Ordering::AcqRel) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the device runs live already"));
        }
        let body = {
            let inner = inner.clone();
            move || run(&inner, &pool)
        };
        let thread = std::thread::Builder::new().name("simnic".into()).spawn(body);
        let thread = thread.inspect_err(|_| inner.live.store(false, Ordering::Release))?;
        Ok(LiveDevice { inner, thread: Some(thread) })
    }

    /// Attaches a port to packet I/O, in place of what was attached before. Takes effect while the device runs live.
    pub fn attach(&self, port: u8, rx: Box<dyn RxQueue>, tx: Box<dyn TxQueue>) {
        self.0.attach.lock().push(AttachRequest { port, rx, tx });
        self.0.kick();
    }
}

impl Drop for LiveDevice {
    fn drop(&mut self) {
        self.inner.live.store(false, Ordering::Release);
        self.inner.wake.raise();
        if let Some(t) = self.thread.take()
            && t.join().is_err()
        {
            tracing::error!("the simulated device's thread panicked");
        }
        let mut core = self.inner.core.lock();
        core.chip.live_ns = None;
    }
}

fn run(inner: &Inner, pool: &BufferPool) {
    let mut wires: Vec<Wire> = Vec::new();
    let mut reset_seen = (u64::MAX, 0);
    while inner.is_live() {
        attach(inner, &mut wires);
        let mut busy = false;
        for w in &mut wires {
            busy |= w.receive();
        }
        let end = {
            let mut core = inner.core.lock();
            core.take_doorbells(&inner.doorbells);
            tell_time(inner, &mut core, &mut reset_seen);
            for w in &mut wires {
                w.inject_into(&mut core);
            }
            let end = core.run(QUANTUM_CYCLES);
            for w in &mut wires {
                if end == RunEnd::Idle {
                    w.drop_excess(&mut core);
                }
                busy |= w.collect_from(&mut core, pool);
            }
            MutexGuard::unlock_fair(core);
            end
        };
        let mut backlog = false;
        for w in &mut wires {
            backlog |= w.send();
        }
        if end == RunEnd::Idle && !busy {
            sleep(inner, &wires, backlog);
        }
    }
}

fn attach(inner: &Inner, wires: &mut Vec<Wire>) {
    for AttachRequest { port, rx, tx } in inner.attach.lock().drain(..) {
        wires.retain(|w| w.port != port);
        wires.push(Wire {
            port,
            rx,
            tx,
            incoming: PacketBatch::new(),
            outgoing: PacketBatch::new(),
            backlog: VecDeque::with_capacity(BACKLOG),
            rx_state: RxState::Good,
            lost: 0,
        });
    }
}

/// Sets the device's TIME from the host's clock.
fn tell_time(inner: &Inner, core: &mut Core, reset_seen: &mut (u64, u64)) {
    let now_ns = inner.host_clock.now().as_nanos();
    let reset_at = core.chip.reset_at.0;
    if reset_seen.0 != reset_at {
        *reset_seen = (reset_at, now_ns);
    }
    core.chip.live_ns = Some(now_ns.saturating_sub(reset_seen.1));
}

/// Waits until something may be there to do.
fn sleep(inner: &Inner, wires: &[Wire], backlog: bool) {
    inner.sleeping.store(true, Ordering::SeqCst);
    if inner.doorbells.any() || !inner.is_live() || !inner.attach.lock().is_empty() {
        inner.sleeping.store(false, Ordering::SeqCst);
        return;
    }
    // What was done under the lock since the run rang the wake descriptor or is seen here.
    {
        let core = inner.core.lock();
        if !core.chip.is_idle(core.drive.now()) {
            inner.sleeping.store(false, Ordering::SeqCst);
            return;
        }
    }
    let mut fds = Vec::with_capacity(wires.len() + 1);
    fds.push(PollFd::new(inner.wake.as_fd(), PollFlags::POLLIN));
    let mut longest = if backlog { RETRY } else { LONGEST };
    for w in wires {
        match (w.rx_state, w.rx.poll_fd()) {
            (RxState::Good, Some(fd)) => fds.push(PollFd::new(fd, PollFlags::POLLIN)),
            (RxState::Good, None) => longest = longest.min(POLL),
            // Its descriptor may be readable for as long as it fails.
            (RxState::Failed, _) => longest = longest.min(RECOVERY),
            (RxState::Gone, _) => {}
        }
    }
    wait(&mut fds, longest);
    inner.sleeping.store(false, Ordering::SeqCst);
    inner.wake.take();
}

fn wait(fds: &mut [PollFd<'_>], longest: Duration) {
    if longest < Duration::from_millis(1) {
        // poll(2) counts milliseconds; look first, then nap.
        if poll(fds, PollTimeout::ZERO).is_ok_and(|n| n > 0) {
            return;
        }
        std::thread::sleep(longest);
        return;
    }
    let ms = u16::try_from(longest.as_millis()).unwrap_or(u16::MAX);
    // An interrupted or failed wait is a short one.
    let _ = poll(fds, PollTimeout::from(ms));
}

impl Wire {
    /// Takes frames from outside; says whether there are any.
    fn receive(&mut self) -> bool {
        if self.rx_state != RxState::Gone && self.incoming.room() > 0 {
            let state = match self.rx.rx_burst(&mut self.incoming) {
                Ok(_) => RxState::Good,
                Err(IoError::Gone) => RxState::Gone,
                Err(_) => RxState::Failed,
            };
            if state != self.rx_state && state != RxState::Good {
                tracing::warn!(port = self.port, "simulated port cannot receive");
            }
            self.rx_state = state;
        }
        !self.incoming.is_empty()
    }

    /// Puts them on the wire towards the device, as far as there is room; the rest waits outside.
    fn inject_into(&mut self, core: &mut Core) {
        let room = core.chip.ports.get(usize::from(self.port)).map_or(usize::MAX, |p| p.wire_in_room());
        for p in self.incoming.drain_front(room) {
            core.inject(self.port, &p);
        }
    }

    /// Loses the frames for which a device that stands still has no room: a wire holds only so much.
    fn drop_excess(&mut self, core: &mut Core) {
        let n = self.incoming.len() as u64;
        self.incoming.clear();
        if let Some(p) = core.chip.ports.get_mut(usize::from(self.port)) {
            core.chip.account.injected += n;
            core.chip.account.dropped += n;
            p.counts.by_reason[DropReason::WireFull as usize] += n;
        }
    }

    /// Takes the frames the device has sent.
    fn collect_from(&mut self, core: &mut Core, pool: &BufferPool) -> bool {
        let chip = &mut core.chip;
        let Some(port) = chip.ports.get_mut(usize::from(self.port)) else { return false };
        let lost = std::mem::take(&mut self.lost);
        chip.account.collected -= lost;
        chip.account.dropped += lost;
        port.counts.by_reason[DropReason::WireFull as usize] += lost;
        let mut any = false;
        while let Some(f) = port.wire_out.pop_front() {
            any = true;
            match pool.copy_from(f.bytes()) {
                Some(b) if self.backlog.len() < BACKLOG => {
                    self.backlog.push_back(b);
                    chip.account.collected += 1;
                    chip.pool.put(f);
                }
                _ => port.drop(f, DropReason::WireFull, &mut chip.pool, &mut chip.account),
            }
        }
        any
    }

    /// Gives them to the outside; says whether some had to stay.
    fn send(&mut self) -> bool {
        loop {
            while self.outgoing.room() > 0 {
                let Some(b) = self.backlog.pop_front() else { break };
                if self.outgoing.push(b).is_err() {
                    break;
                }
            }
            if self.outgoing.is_empty() {
                return false;
            }
            match self.tx.tx_burst(&mut self.outgoing) {
                Ok(0) => return true,
                Ok(_) => {
                    if let Err(e) = self.tx.flush() {
                        tracing::debug!(port = self.port, error = %e, "simulated port cannot send");
                    }
                }
                Err(e) => {
                    tracing::debug!(port = self.port, error = %e, "simulated port cannot send");
                    self.lost += (self.outgoing.len() + self.backlog.len()) as u64;
                    self.outgoing.clear();
                    self.backlog.clear();
                    return false;
                }
            }
        }
    }
}
