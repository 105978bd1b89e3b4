//! The server: any [`DeviceBacking`], for one client at a time. When a client goes, its device goes with it, and the next gets a fresh
//! one.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use device::{DeviceBacking, DeviceError, DmaMemory, Interrupt, Iova, RegOffset, Registers};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::stream::{self, LinkError, Message};
use crate::wire::{
    self, Body, Header, IRQ_MSIX, MAX_ACCESS_BYTES, REGION_CONFIG, command, flag, u32_at, u64_at, vfio,
};

/// How long a message may take to come once it has begun, and to be taken.
const MESSAGE: Duration = Duration::from_secs(1);
/// How often it is looked whether the server is to stop.
const LOOK: Duration = Duration::from_millis(100);
/// Mappings of a client at most.
const MAX_MAPS: usize = 256;
/// Bytes of configuration space.
const CONFIG_BYTES: u64 = 4096;

/// A device, as a server has it for the client that is there.
pub struct Served<B: DeviceBacking> {
    device: B,
    bars: Vec<(u8, B::Regs)>,
    maps: Vec<u64>,
    vectors: u16,
    /// The device's interrupts, and the client's, to which they are passed on.
    from: Vec<Interrupt>,
    to: Vec<Option<Interrupt>>,
}

/// What a command came to: a body, or an error number.
type Answer = Result<Body, Errno>;

impl<B: DeviceBacking> Served<B> {
    /// A fresh device of `vectors` MSI-X vectors.
    ///
    /// # Errors
    /// When its BARs cannot be mapped.
    pub fn new(mut device: B, vectors: u16) -> Result<Self, DeviceError> {
        let mut bars = Vec::new();
        for b in device.bars() {
            bars.push((b.index, device.map_bar(b.index)?));
        }
        Ok(Served { device, bars, maps: Vec::new(), vectors, from: Vec::new(), to: Vec::new() })
    }

    fn region_bytes(&self, region: u32) -> u64 {
        let bar = self.bars.iter().find(|(i, _)| u32::from(*i) == region);
        match bar {
            Some((_, r)) => r.len_bytes() as u64,
            None if region == REGION_CONFIG => CONFIG_BYTES,
            None => 0,
        }
    }

    fn answer(&mut self, m: Message) -> Answer {
        match m.header.command {
            command::VERSION => wire::peer_fds(&m.body).map(|_| wire::version()).ok_or(Errno::EINVAL),
            command::GET_INFO => {
                let flags = vfio::DEVICE_RESET | vfio::DEVICE_PCI;
                Ok(Body::default().u32(16).u32(flags).u32(wire::REGIONS).u32(wire::IRQS))
            }
            command::GET_REGION_INFO => {
                let index = u32_at(&m.body, 8).filter(|i| *i < wire::REGIONS).ok_or(Errno::EINVAL)?;
                let len = self.region_bytes(index);
                let flags = if len > 0 { vfio::REGION_READ | vfio::REGION_WRITE } else { 0 };
                Ok(Body::default().u32(32).u32(flags).u32(index).u32(0).u64(len).u64(0))
            }
            command::GET_IRQ_INFO => {
                let index = u32_at(&m.body, 8).filter(|i| *i < wire::IRQS).ok_or(Errno::EINVAL)?;
                let n = if index == IRQ_MSIX { self.vectors.into() } else { 0 };
                Ok(Body::default().u32(16).u32(vfio::IRQ_EVENTFD).u32(index).u32(n))
            }
            command::SET_IRQS => self.set_irqs(&m.body, m.fds),
            command::DMA_MAP => self.map(&m.body, m.fds),
            command::DMA_UNMAP => self.unmap(&m.body),
            command::REGION_READ => self.read(&m.body),
            command::REGION_WRITE => self.write(&m.body),
            command::RESET => self.device.reset().map(|()| Body::default()).map_err(|_| Errno::EIO),
            _ => Err(Errno::ENOTSUP),
        }
    }

    fn map(&mut self, b: &[u8], fds: Vec<OwnedFd>) -> Answer {
        let word = |at| u64_at(b, at).ok_or(Errno::EINVAL);
        let (offset, iova, len) = (word(8)?, word(16)?, word(24)?);
        let fd = fds.into_iter().next().ok_or(Errno::EINVAL)?;
        if self.maps.len() >= MAX_MAPS {
            return Err(Errno::ENOSPC);
        }
        let mem = usize::try_from(len).ok().and_then(|len| DmaMemory::from_fd(fd, offset, len).ok());
        let mem = mem.ok_or(Errno::EINVAL)?;
        self.device.dma_map_at(&mem, Iova(iova)).map_err(|_| Errno::EINVAL)?;
        self.maps.push(iova);
        Ok(Body::default())
    }

    fn unmap(&mut self, b: &[u8]) -> Answer {
        let iova = u64_at(b, 8).ok_or(Errno::EINVAL)?;
        let at = self.maps.iter().position(|m| *m == iova).ok_or(Errno::EINVAL)?;
        self.device.dma_unmap(Iova(iova)).map_err(|_| Errno::EIO)?;
        self.maps.swap_remove(at);
        Ok(Body::default().bytes(b.get(..24).unwrap_or(b)))
    }

    fn set_irqs(&mut self, b: &[u8], fds: Vec<OwnedFd>) -> Answer {
        let word = |at| u32_at(b, at).ok_or(Errno::EINVAL);
        let (flags, index, start, count) = (word(4)?, word(8)?, word(12)?, word(16)?);
        let end = start.checked_add(count).filter(|e| *e <= u32::from(self.vectors)).ok_or(Errno::EINVAL)?;
        if index != IRQ_MSIX || flags & vfio::IRQ_TRIGGER == 0 {
            return Err(Errno::EINVAL);
        }
        if flags & vfio::IRQ_DATA_NONE != 0 && count == 0 {
            self.to.clear();
            return Ok(Body::default());
        }
        if flags & vfio::IRQ_DATA_EVENTFD == 0 || fds.len() != count as usize {
            return Err(Errno::EINVAL);
        }
        if self.from.len() < end as usize {
            self.from = self.device.enable_interrupts(end as u16).map_err(|_| Errno::EIO)?;
        } else {
            // After a reset they have to be enabled again.
            let n = self.from.len() as u16;
            self.from = self.device.enable_interrupts(n).map_err(|_| Errno::EIO)?;
        }
        self.to.resize_with(self.to.len().max(end as usize), || None);
        for (slot, fd) in self.to[start as usize..].iter_mut().zip(fds) {
            *slot = Some(Interrupt::from_fd(fd).map_err(|_| Errno::EINVAL)?);
        }
        Ok(Body::default())
    }

    /// Offset, region and length of an access, within the region.
    fn access(&self, b: &[u8]) -> Result<(u64, u32, usize), Errno> {
        let at = u64_at(b, 0).ok_or(Errno::EINVAL)?;
        let (region, n) = (u32_at(b, 8).ok_or(Errno::EINVAL)?, u32_at(b, 12).ok_or(Errno::EINVAL)?);
        let end = at.checked_add(n.into()).ok_or(Errno::EINVAL)?;
        if n as usize > MAX_ACCESS_BYTES || end > self.region_bytes(region) {
            return Err(Errno::EINVAL);
        }
        Ok((at, region, n as usize))
    }

    fn read(&mut self, b: &[u8]) -> Answer {
        let (at, region, n) = self.access(b)?;
        let mut out = vec![0xff; n];
        match self.bars.iter().find(|(i, _)| u32::from(*i) == region) {
            Some((_, r)) => {
                let r32 = RegOffset(at as u32);
                match n {
                    1 => out[0] = r.read8(r32),
                    2 => out.copy_from_slice(&r.read16(r32).to_le_bytes()),
                    4 => out.copy_from_slice(&r.read32(r32).to_le_bytes()),
                    8 => out.copy_from_slice(&r.read64(r32).to_le_bytes()),
                    // An access of another width reads what nobody is behind.
                    _ => {}
                }
            }
            None => {
                for (o, i) in out.iter_mut().zip(0u16..) {
                    *o = self.device.config().read8(at as u16 + i);
                }
            }
        }
        Ok(Body::default().bytes(&b[..16]).bytes(&out))
    }

    fn write(&mut self, b: &[u8]) -> Answer {
        let (at, region, n) = self.access(b)?;
        let data = b.get(16..16 + n).ok_or(Errno::EINVAL)?;
        let word = |n: usize| data.iter().take(n).rev().fold(0u64, |v, x| v << 8 | u64::from(*x));
        match self.bars.iter().find(|(i, _)| u32::from(*i) == region) {
            Some((_, r)) => {
                let r32 = RegOffset(at as u32);
                match n {
                    1 => r.write8(r32, data[0]),
                    2 => r.write16(r32, word(2) as u16),
                    4 => r.write32(r32, word(4) as u32),
                    8 => r.write64(r32, word(8)),
                    _ => return Err(Errno::EINVAL),
                }
            }
            None => match n {
                2 => self.device.config().write16(at as u16, word(2) as u16),
                4 => self.device.config().write32(at as u16, word(4) as u32),
                _ => return Err(Errno::EINVAL),
            },
        }
        Ok(Body::default().bytes(&b[..16]))
    }

    /// Passes on what the device has raised.
    fn pass_on(&self) {
        for (from, to) in self.from.iter().zip(&self.to) {
            if from.take() > 0
                && let Some(to) = to
            {
                to.raise();
            }
        }
    }
}

/// A socket at which devices are served.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Listens at `path`. What a server that was killed has left there is taken away; a server that lives is not.
    ///
    /// # Errors
    /// When somebody listens there, or it cannot be done.
    pub fn bind(path: &Path) -> io::Result<Server> {
        if path.exists() {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody serves a device there"));
            }
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Server { listener, path: path.to_owned() })
    }

    /// Serves clients one after the other, each with a device from `make`, until `stop` says so.
    ///
    /// # Errors
    /// When the socket fails, or a device cannot be made.
    pub fn run<B: DeviceBacking>(
        &self,
        make: &mut dyn FnMut() -> Result<Served<B>, DeviceError>,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<()> {
        while !stop() {
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            wait(&mut fds)?;
            match self.listener.accept() {
                Ok((s, _)) => {
                    s.set_nonblocking(false)?;
                    let mut served = make().map_err(io::Error::other)?;
                    tracing::info!("client connected");
                    match serve(&s, &mut served, stop) {
                        Ok(()) => tracing::info!("client gone"),
                        Err(e) => tracing::warn!(error = %e, "client given up"),
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn wait(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    let ms = u16::try_from(LOOK.as_millis()).unwrap_or(u16::MAX);
    match poll(fds, PollTimeout::from(ms)) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn serve<B: DeviceBacking>(
    s: &UnixStream,
    d: &mut Served<B>,
    stop: &dyn Fn() -> bool,
) -> Result<(), LinkError> {
    while !stop() {
        let ready = {
            let mut fds = vec![PollFd::new(s.as_fd(), PollFlags::POLLIN)];
            fds.extend(d.from.iter().map(|i| PollFd::new(i.as_fd(), PollFlags::POLLIN)));
            wait(&mut fds)?;
            fds[0].any().unwrap_or(true)
        };
        d.pass_on();
        if !ready {
            continue;
        }
        let Some(m) = stream::receive(s, MESSAGE)? else { return Ok(()) };
        let h = m.header;
        if h.is_reply() {
            return Err(LinkError::Protocol("a reply to nothing"));
        }
        let answer = d.answer(m);
        if h.flags & flag::NO_REPLY != 0 {
            continue;
        }
        let reply = Header { id: h.id, command: h.command, flags: flag::REPLY, ..Header::default() };
        match answer {
            Ok(body) => stream::send(s, reply, &body, &[], MESSAGE)?,
            Err(e) => {
                let reply = Header { flags: flag::REPLY | flag::ERROR, error: e as u32, ..reply };
                stream::send(s, reply, &Body::default(), &[], MESSAGE)?;
            }
        }
    }
    Ok(())
}
