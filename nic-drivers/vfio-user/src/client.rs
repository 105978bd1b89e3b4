//! The client: a device behind a socket, as a [`DeviceBacking`].
//!
//! Reads wait for their answer, one at a time; writes are posted, as on a bus. Who writes does not wait for who reads. The first
//! thing that goes wrong ends the connection: registers read all ones from then on. [`DeviceBacking::reset`] connects again, gives
//! the new device every mapping and every interrupt that the old one had, and resets it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use clock::{Clock, Deadline, HostClock, Instant};
use device::{
    BarInfo, ConfigSpace, DeviceBacking, DeviceError, DmaMemory, ErrorEvents, Interrupt, Iova, RegOffset,
    Registers, TimedOut,
};

use crate::stream::{self, LinkError, Message};
use crate::wire::{self, Body, Header, REGION_CONFIG, command, flag, vfio};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);
/// How long a step of a reset may take.
const RESET: Duration = Duration::from_secs(2);
/// Sleep between two looks at what is waited for.
const NAP: Duration = Duration::from_micros(50);
/// Where the first mapping is.
const FIRST_IOVA: u64 = 1 << 32;
/// Between mappings, so that an access that runs over its end faults.
const GUARD: u64 = 4096;
/// The command register, and its bit that lets the device do DMA.
const COMMAND: u16 = 4;
const BUS_MASTER: u16 = 1 << 2;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
struct Link {
    stream: UnixStream,
    writer: Mutex<()>,
    /// Held while an answer is awaited.
    reader: Mutex<()>,
    next_id: AtomicU16,
    peer_fds: usize,
}

impl Link {
    fn open(path: &Path) -> Result<Link, LinkError> {
        let stream = UnixStream::connect(path)?;
        let mut link = Link {
            stream,
            writer: Mutex::new(()),
            reader: Mutex::new(()),
            next_id: AtomicU16::new(0),
            peer_fds: 1,
        };
        let m = link.ask("version", command::VERSION, &wire::version(), &[], ANSWER)?;
        link.peer_fds = wire::peer_fds(&m.body).ok_or(LinkError::Protocol("another version"))?;
        Ok(link)
    }

    fn send(&self, command: u16, flags: u32, body: &Body, fds: &[i32]) -> Result<u16, LinkError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let _turn = lock(&self.writer);
        stream::send(&self.stream, Header { id, command, flags, ..Header::default() }, body, fds, ANSWER)?;
        Ok(id)
    }

    /// Sends a command and waits for its answer.
    fn ask(
        &self,
        what: &'static str,
        command: u16,
        body: &Body,
        fds: &[i32],
        timeout: Duration,
    ) -> Result<Message, LinkError> {
        let _turn = lock(&self.reader);
        let id = self.send(command, 0, body, fds)?;
        let m = stream::receive(&self.stream, timeout)?.ok_or(LinkError::Closed)?;
        let h = m.header;
        if !h.is_reply() || h.id != id || h.command != command {
            return Err(LinkError::Protocol("an answer that is none of what was asked"));
        }
        if h.flags & flag::ERROR != 0 {
            return Err(LinkError::Refused { what, errno: h.error });
        }
        Ok(m)
    }
}

/// What registers and backing share: the connection, as long as there is one.
struct Shared {
    link: RwLock<Option<Arc<Link>>>,
    name: String,
}

impl Shared {
    fn link(&self) -> Option<Arc<Link>> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, l: Option<Link>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = l.map(Arc::new);
    }

    /// What comes of a link's attempt; a failure ends the connection, but for a refusal.
    fn run<T>(&self, f: impl FnOnce(&Link) -> Result<T, LinkError>) -> Result<T, LinkError> {
        let link = self.link().ok_or(LinkError::Closed)?;
        let r = f(&link);
        if let Err(e) = &r
            && !matches!(e, LinkError::Refused { .. })
        {
            let mut now = self.link.write().unwrap_or_else(PoisonError::into_inner);
            // Only the one that failed.
            if now.as_ref().is_some_and(|l| Arc::ptr_eq(l, &link)) {
                tracing::warn!(device = self.name, error = %e, "connection lost");
                *now = None;
            }
        }
        r
    }

    fn read(&self, region: u32, offset: u64, out: &mut [u8]) -> Result<(), LinkError> {
        let body = Body::default().u64(offset).u32(region).u32(out.len() as u32);
        let m = self.run(|l| {
            let m = l.ask("read", command::REGION_READ, &body, &[], ANSWER)?;
            if m.body.len() < 16 + out.len() {
                return Err(LinkError::Protocol("a short answer to a read"));
            }
            Ok(m)
        })?;
        out.copy_from_slice(&m.body[16..16 + out.len()]);
        Ok(())
    }

    fn write(&self, region: u32, offset: u64, data: &[u8]) -> Result<(), LinkError> {
        let body = Body::default().u64(offset).u32(region).u32(data.len() as u32).bytes(data);
        self.run(|l| l.send(command::REGION_WRITE, flag::NO_REPLY, &body, &[]).map(|_| ()))
    }
}

/// A BAR of a device behind a socket.
#[derive(Clone)]
pub struct UserRegs {
    shared: Arc<Shared>,
    bar: u32,
    len_bytes: usize,
}

impl UserRegs {
    fn is_in(&self, r: RegOffset, len: usize) -> bool {
        (r.0 as usize).is_multiple_of(len) && r.0 as usize + len <= self.len_bytes
    }

    fn get<const N: usize>(&self, r: RegOffset) -> [u8; N] {
        let mut b = [0xff; N];
        if self.is_in(r, N) && self.shared.read(self.bar, r.0.into(), &mut b).is_err() {
            b = [0xff; N];
        }
        b
    }

    fn put(&self, r: RegOffset, data: &[u8]) {
        if self.is_in(r, data.len()) {
            // That the connection is gone is seen by the next read.
            let _ = self.shared.write(self.bar, r.0.into(), data);
        }
    }
}

impl Registers for UserRegs {
    fn read32(&self, r: RegOffset) -> u32 {
        u32::from_le_bytes(self.get(r))
    }
    fn write32(&self, r: RegOffset, v: u32) {
        self.put(r, &v.to_le_bytes());
    }
    fn read8(&self, r: RegOffset) -> u8 {
        u8::from_le_bytes(self.get(r))
    }
    fn read16(&self, r: RegOffset) -> u16 {
        u16::from_le_bytes(self.get(r))
    }
    fn write8(&self, r: RegOffset, v: u8) {
        self.put(r, &[v]);
    }
    fn write16(&self, r: RegOffset, v: u16) {
        self.put(r, &v.to_le_bytes());
    }
    fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl ConfigSpace for Shared {
    fn read8(&self, offset: u16) -> u8 {
        let mut b = [0xff];
        if self.read(REGION_CONFIG, offset.into(), &mut b).is_err() { 0xff } else { b[0] }
    }
    fn write16(&self, offset: u16, v: u16) {
        let _ = self.write(REGION_CONFIG, offset.into(), &v.to_le_bytes());
    }
    fn write32(&self, offset: u16, v: u32) {
        let _ = self.write(REGION_CONFIG, offset.into(), &v.to_le_bytes());
    }
}

/// See the module's text.
pub struct UserBacking {
    path: PathBuf,
    shared: Arc<Shared>,
    bars: Vec<BarInfo>,
    maps: BTreeMap<u64, DmaMemory>,
    next_iova: u64,
    interrupts: Vec<Interrupt>,
    errors: ErrorEvents,
    clock: HostClock,
}

impl UserBacking {
    /// Connects to the device that is served at `path`; it is called `name`.
    ///
    /// # Errors
    /// [`DeviceError::Os`] when there is none, or it does not behave.
    pub fn connect(path: &Path, name: &str) -> Result<UserBacking, DeviceError> {
        let shared = Arc::new(Shared { link: RwLock::new(None), name: name.to_owned() });
        let mut b = UserBacking {
            path: path.to_owned(),
            shared,
            bars: Vec::new(),
            maps: BTreeMap::new(),
            next_iova: FIRST_IOVA,
            interrupts: Vec::new(),
            errors: ErrorEvents::default(),
            clock: HostClock::new(),
        };
        b.bars = b.open().map_err(|e| os("connect", e))?;
        Ok(b)
    }

    /// Opens a connection and asks for the BARs.
    fn open(&self) -> Result<Vec<BarInfo>, LinkError> {
        let link = Link::open(&self.path)?;
        let m = link.ask(
            "device info",
            command::GET_INFO,
            &Body::default().u32(16).u32(0).u32(0).u32(0),
            &[],
            ANSWER,
        )?;
        if wire::u32_at(&m.body, 4).is_none_or(|f| f & vfio::DEVICE_PCI == 0) {
            return Err(LinkError::Protocol("not a PCI device"));
        }
        let mut bars = Vec::new();
        for index in 0..6u32 {
            let body = Body::default().u32(32).u32(0).u32(index).u32(0).u64(0).u64(0);
            let m = link.ask("region info", command::GET_REGION_INFO, &body, &[], ANSWER)?;
            let len_bytes = wire::u64_at(&m.body, 16).ok_or(LinkError::Protocol("short region info"))?;
            if len_bytes > 1 << 32 {
                return Err(LinkError::Protocol("a BAR of a size that cannot be"));
            }
            if len_bytes > 0 {
                bars.push(BarInfo { index: index as u8, len_bytes });
            }
        }
        self.shared.set(Some(link));
        Ok(bars)
    }

    fn tell_map(&self, iova: u64, mem: &DmaMemory) -> Result<(), LinkError> {
        let fd = mem.fd().ok_or(LinkError::Protocol("memory that has no descriptor"))?;
        let len = mem.len_bytes() as u64;
        let body = Body::default().u32(32).u32(vfio::DMA_READ_WRITE).u64(0).u64(iova).u64(len);
        self.shared.run(|l| l.ask("DMA map", command::DMA_MAP, &body, &[fd.as_raw_fd()], ANSWER).map(|_| ()))
    }

    fn tell_interrupts(&self) -> Result<(), LinkError> {
        self.shared.run(|l| {
            for (start, some) in (0u32..).step_by(l.peer_fds).zip(self.interrupts.chunks(l.peer_fds)) {
                let flags = vfio::IRQ_DATA_EVENTFD | vfio::IRQ_TRIGGER;
                let body =
                    Body::default().u32(20).u32(flags).u32(wire::IRQ_MSIX).u32(start).u32(some.len() as u32);
                let fds: Vec<_> = some.iter().map(|i| i.as_fd().as_raw_fd()).collect();
                l.ask("interrupts", command::SET_IRQS, &body, &fds, ANSWER)?;
            }
            Ok(())
        })
    }

    fn vectors(&self) -> Result<u16, LinkError> {
        let body = Body::default().u32(16).u32(0).u32(wire::IRQ_MSIX).u32(0);
        let m = self.shared.run(|l| l.ask("interrupt info", command::GET_IRQ_INFO, &body, &[], ANSWER))?;
        let n = wire::u32_at(&m.body, 12).ok_or(LinkError::Protocol("short interrupt info"))?;
        Ok(n.min(2048) as u16)
    }
}

/// A failure of the connection, as one of the device.
fn os(step: &'static str, e: LinkError) -> DeviceError {
    match e {
        LinkError::Closed | LinkError::TimedOut(_) => DeviceError::Gone { step },
        LinkError::Io(source) => DeviceError::Os { step, source },
        e => DeviceError::Os { step, source: std::io::Error::other(e) },
    }
}

impl DeviceBacking for UserBacking {
    type Regs = UserRegs;

    fn name(&self) -> &str {
        &self.shared.name
    }

    fn config(&self) -> &dyn ConfigSpace {
        &*self.shared
    }

    fn bars(&self) -> Vec<BarInfo> {
        self.bars.clone()
    }

    fn map_bar(&mut self, bar: u8) -> Result<UserRegs, DeviceError> {
        let info = self.bars.iter().find(|b| b.index == bar);
        let info = info.ok_or(DeviceError::NoSuchBar { step: "map BAR", bar })?;
        Ok(UserRegs { shared: self.shared.clone(), bar: bar.into(), len_bytes: info.len_bytes as usize })
    }

    fn dma_map(&mut self, mem: &DmaMemory) -> Result<Iova, DeviceError> {
        let iova = self.next_iova;
        self.tell_map(iova, mem).map_err(|e| os("map DMA memory", e))?;
        self.next_iova += (mem.len_bytes() as u64).next_multiple_of(GUARD) + GUARD;
        self.maps.insert(iova, mem.clone());
        Ok(Iova(iova))
    }

    fn dma_unmap(&mut self, iova: Iova) -> Result<(), DeviceError> {
        let step = "unmap DMA memory";
        let mem = self.maps.remove(&iova.0).ok_or(DeviceError::Iova { step, iova, len_bytes: 0 })?;
        let body = Body::default().u32(24).u32(0).u64(iova.0).u64(mem.len_bytes() as u64);
        self.shared
            .run(|l| l.ask("DMA unmap", command::DMA_UNMAP, &body, &[], ANSWER).map(|_| ()))
            .map_err(|e| os(step, e))
    }

    fn enable_interrupts(&mut self, vectors: u16) -> Result<Vec<Interrupt>, DeviceError> {
        let step = "enable interrupts";
        let offered = self.vectors().map_err(|e| os(step, e))?;
        if vectors > offered {
            return Err(DeviceError::TooFewVectors { step, offered, wanted: vectors });
        }
        while self.interrupts.len() < usize::from(vectors) {
            self.interrupts.push(Interrupt::new().map_err(|source| DeviceError::Os { step, source })?);
        }
        self.tell_interrupts().map_err(|e| os(step, e))?;
        Ok(self.interrupts[..usize::from(vectors)].to_vec())
    }

    fn set_bus_master(&mut self, on: bool) -> Result<(), DeviceError> {
        let step = "set bus master";
        let mut b = [0; 2];
        self.shared.read(REGION_CONFIG, COMMAND.into(), &mut b).map_err(|e| os(step, e))?;
        let v = u16::from_le_bytes(b);
        let v = if on { v | BUS_MASTER } else { v & !BUS_MASTER };
        self.shared.write(REGION_CONFIG, COMMAND.into(), &v.to_le_bytes()).map_err(|e| os(step, e))
    }

    fn reset(&mut self) -> Result<(), DeviceError> {
        let step = "reset the device";
        if self.shared.link().is_none() {
            let bars = self.open().map_err(|_| DeviceError::Gone { step })?;
            if bars != self.bars {
                self.shared.set(None);
                return Err(os(step, LinkError::Protocol("it came back as another device")));
            }
            for (iova, mem) in &self.maps {
                self.tell_map(*iova, mem).map_err(|e| os(step, e))?;
            }
        }
        let reset = |l: &Link| l.ask("reset", command::RESET, &Body::default(), &[], RESET).map(|_| ());
        self.shared.run(reset).map_err(|e| os(step, e))
    }

    fn errors(&self) -> &ErrorEvents {
        &self.errors
    }

    fn wait_until(&self, done: &mut dyn FnMut() -> bool, deadline: Deadline) -> Result<(), TimedOut> {
        while !done() {
            if deadline.passed(self.now()) {
                return Err(TimedOut);
            }
            std::thread::sleep(NAP);
        }
        Ok(())
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }
}
