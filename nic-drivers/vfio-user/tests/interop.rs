//! Against the `vfio_user` crate of rust-vmm, whose code shares nothing with ours: its client with our server, and our client, with the
//! SmartNIC's driver on it, with its server.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use clock::HostClock;
use device::{
    BufferPool, DeviceBacking, DmaMemory, Interrupt, Iova, PacketBatch, PacketIo, QueueId, RegOffset,
    Registers,
};
use flow::PortId;
use netio::memory::{MemoryConfig, cable};
use nic::{Config, SimBacking, SimNic, SimRegs};
use offload::OffloadProvider;
use peer::{DmaMapFlags, DmaUnmapFlags, IrqInfo, ServerBackend, ServerRegion};
use simnic::{SimnicConfig, SimnicDriver};
use support::{Thread, VECTORS, wait};
use vfio_bindings::bindings::vfio::vfio_region_info;
use vfio_user::UserBacking;

const CONFIG: u32 = 7;
const MSIX: u32 = 2;

#[test]
fn their_client_finds_our_device_and_uses_it() {
    let server = Thread::start();
    let mut client = peer::Client::new(&server.path).unwrap();
    let ours = SimNic::new(Config::default(), 1).unwrap();
    let mut backing = ours.backing();
    for bar in backing.bars() {
        let region = client.region(bar.index.into()).unwrap();
        assert_eq!((region.index, region.size), (bar.index.into(), bar.len_bytes));
    }
    assert_eq!(client.region(CONFIG).unwrap().size, 4096);
    let mut ids = [0; 4];
    client.region_read(CONFIG, 0, &mut ids).unwrap();
    let config = backing.config();
    assert_eq!(ids[..], [config.read16(0).to_le_bytes(), config.read16(2).to_le_bytes()].concat());
    let irqs = client.get_irq_info(MSIX).unwrap();
    assert_eq!((irqs.index, irqs.count), (MSIX, VECTORS.into()));
    // Every register that can be read without effect is what it is in a device of our own.
    let regs = backing.map_bar(0).unwrap();
    for at in (0..0x40u64).step_by(4) {
        let mut b = [0; 4];
        client.region_read(0, at, &mut b).unwrap();
        assert_eq!(u32::from_le_bytes(b), regs.read32(RegOffset(at as u32)), "register {at:#x}");
    }
    // Its bus master bit, and memory.
    client.region_write(CONFIG, 4, &6u16.to_le_bytes()).unwrap();
    let mut command = [0; 2];
    client.region_read(CONFIG, 4, &mut command).unwrap();
    assert_eq!(u16::from_le_bytes(command) & 6, 6);
    let memory = DmaMemory::new(1 << 16).unwrap();
    client.dma_map(0, 1 << 33, 1 << 16, memory.fd().unwrap().as_raw_fd()).unwrap();
    client.dma_unmap(1 << 33, 1 << 16).unwrap();
    let vector = Interrupt::new().unwrap();
    client.set_irqs(MSIX, (1 << 2) | (1 << 5), 0, 1, &[vector.as_fd().as_raw_fd()]).unwrap();
    client.reset().unwrap();
    client.region_read(CONFIG, 0, &mut ids).unwrap();
    assert_ne!(ids, [0xff; 4]);
    client.shutdown().unwrap();
    drop(client);
    // Our own client is next, and finds a device as after power-on.
    let backing = UserBacking::connect(&server.path, "vfio-user:next").unwrap();
    assert_eq!(backing.config().read16(4) & 4, 0);
}

/// Our device behind their server.
struct Behind {
    device: SimBacking,
    bars: Vec<(u32, SimRegs)>,
}

impl ServerBackend for Behind {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        data.fill(0xff);
        let at = RegOffset(offset as u32);
        match (self.bars.iter().find(|(i, _)| *i == region), data.len()) {
            (Some((_, r)), 4) => data.copy_from_slice(&r.read32(at).to_le_bytes()),
            (Some((_, r)), 8) => data.copy_from_slice(&r.read64(at).to_le_bytes()),
            (None, _) if region == CONFIG => {
                let config = self.device.config();
                (0u16..).zip(data).for_each(|(i, b)| *b = config.read8(offset as u16 + i));
            }
            // Their server must not be told of an error.
            _ => {}
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = RegOffset(offset as u32);
        let word = data.iter().rev().fold(0u64, |v, b| v << 8 | u64::from(*b));
        match (self.bars.iter().find(|(i, _)| *i == region), data.len()) {
            (Some((_, r)), 4) => r.write32(at, word as u32),
            (Some((_, r)), 8) => r.write64(at, word),
            (None, 2) => self.device.config().write16(offset as u16, word as u16),
            (None, 4) => self.device.config().write32(offset as u16, word as u32),
            _ => {}
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        _: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let fd = OwnedFd::from(fd.ok_or(io::ErrorKind::InvalidInput)?);
        let memory = DmaMemory::from_fd(fd, offset, size as usize).map_err(io::Error::other)?;
        self.device.dma_map_at(&memory, Iova(address)).map_err(io::Error::other)
    }

    fn dma_unmap(&mut self, _: DmaUnmapFlags, address: u64, _: u64) -> io::Result<()> {
        self.device.dma_unmap(Iova(address)).map_err(io::Error::other)
    }

    fn reset(&mut self) -> io::Result<()> {
        self.device.reset().map_err(io::Error::other)
    }

    /// Taken, and never raised: the queues are polled.
    fn set_irqs(&mut self, _: u32, _: u32, _: u32, _: u32, _: Vec<File>) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn our_client_and_driver_pass_frames_through_their_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nic.sock");
    let sim = SimNic::new(Config::default(), 1).unwrap();
    let live = sim.start_live().unwrap();
    let (mut a, mut b) = cable(&MemoryConfig { capacity: 4096, ..MemoryConfig::default() }).unwrap();
    for (port, end) in [(0, &mut a), (1, &mut b)] {
        let (rx, tx) = end.take_queues(QueueId(0)).unwrap();
        sim.attach(port, rx, tx);
        sim.set_carrier(port, true);
    }
    let mut device = sim.backing();
    let bars: Vec<_> =
        device.bars().iter().map(|b| (u32::from(b.index), device.map_bar(b.index).unwrap())).collect();
    let region = |index: u32| {
        let size = match bars.iter().find(|(i, _)| *i == index) {
            Some((_, r)) => r.len_bytes() as u64,
            None if index == CONFIG => 4096,
            None => 0,
        };
        let region_info = vfio_region_info { argsz: 32, flags: 3, index, cap_offset: 0, size, offset: 0 };
        ServerRegion { region_info, sparse_areas: Vec::new(), mmap_fd: None }
    };
    let irqs = (0..5).map(|index| IrqInfo {
        index,
        flags: 1,
        count: if index == MSIX { VECTORS.into() } else { 0 },
    });
    let server = peer::Server::new(&path, true, irqs.collect(), (0..9).map(region).collect()).unwrap();
    let mut behind = Behind { device, bars };
    let serving = std::thread::spawn(move || server.run(&mut behind).map_err(|e| e.to_string()));

    let pool = BufferPool::new(2048).unwrap();
    let backing = UserBacking::connect(&path, "vfio-user:theirs").unwrap();
    let mut config = SimnicConfig::new(vec![(PortId(1), 0), (PortId(2), 1)]);
    (config.ring_log2, config.step_timeout, config.cmd_timeout) =
        (8, Duration::from_secs(5), Duration::from_secs(5));
    let mut nic = SimnicDriver::bring_up(backing, pool.clone(), config, Arc::new(HostClock::new())).unwrap();
    let mut queues: Vec<_> =
        nic.ports.iter_mut().take(2).map(|p| p.take_queues(QueueId(0)).unwrap()).collect();
    for n in 0..20u8 {
        let mut f = vec![n; 90];
        f[..2].copy_from_slice(&[2, 0]);
        f[12..14].copy_from_slice(&[0x88, 0xb5]);
        let mut batch = PacketBatch::new();
        batch.push(pool.copy_from(&f).unwrap()).unwrap();
        let mut got = PacketBatch::new();
        let mut through = false;
        wait(|| {
            nic.provider.poll(&mut Vec::new(), 8);
            let _ = queues[0].1.tx_burst(&mut batch);
            let _ = queues[1].0.rx_burst(&mut got);
            through |= got.drain_all().any(|p| p[..] == f[..]);
            through
        });
    }
    assert_eq!(nic.provider.violations(), Default::default());
    drop(queues);
    drop(nic);
    assert_eq!(pool.free_cells(), 2048);
    assert_eq!(serving.join().unwrap(), Ok(()));
    drop(live);
}
