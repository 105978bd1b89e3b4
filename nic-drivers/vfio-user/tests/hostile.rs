//! Either side with one that breaks the protocol: everything ends in an error within its time, nothing panics, and the server serves
//! the next client.
#![allow(clippy::unwrap_used)] // a test may panic

mod support;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use device::{DeviceBacking, DmaMemory, Interrupt, RegOffset, Registers};
use vfio_user::UserBacking;
use vfio_user::wire::{Body, Header, IRQ_MSIX, command, flag, vfio};

use support::{Thread, wait};

fn message(command: u16, flags: u32, size: Option<u32>, body: &[u8]) -> Vec<u8> {
    let size = size.unwrap_or(16 + body.len() as u32);
    let mut m = Header { id: 1, command, size, flags, error: 0 }.encode().to_vec();
    m.extend(body);
    m
}

/// A device is served as it should be.
fn is_well(path: &std::path::Path) {
    let mut b = UserBacking::connect(path, "well").unwrap();
    let r = b.map_bar(0).unwrap();
    assert_ne!(r.read32(RegOffset(0)), u32::MAX);
    let mem = DmaMemory::new(8192).unwrap();
    let iova = b.dma_map(&mem).unwrap();
    b.dma_unmap(iova).unwrap();
    assert!(b.dma_unmap(iova).is_err());
    assert_eq!(b.enable_interrupts(4).unwrap().len(), 4);
    b.reset().unwrap();
}

#[test]
fn a_server_survives_clients_that_break_the_protocol() {
    let server = Thread::start();
    is_well(&server.path);
    let read = |at: u64, region: u32, n: u32| Body::default().u64(at).u32(region).u32(n).0;
    let irqs =
        |flags: u32, start: u32, n: u32| Body::default().u32(20).u32(flags).u32(IRQ_MSIX).u32(start).u32(n).0;
    let map = |at: u64, len: u64| Body::default().u32(32).u32(3).u64(0).u64(at).u64(len).0;
    let eventfd = vfio::IRQ_DATA_EVENTFD | vfio::IRQ_TRIGGER;
    let attempts: Vec<Vec<u8>> = vec![
        vec![],
        vec![1, 2, 3],
        message(command::VERSION, 0, Some(0), &[]),
        message(command::VERSION, 0, Some(15), &[]),
        message(command::VERSION, 0, Some(u32::MAX), &[]),
        message(command::VERSION, 0, None, b"\x01\0\0\0"),
        message(command::VERSION, 0, None, b"\0\0\x01\0{{{{"),
        message(command::VERSION, flag::REPLY, None, &[]),
        message(999, 0, None, &[0; 64]),
        message(command::REGION_READ, 0, None, &read(0, 0, u32::MAX)),
        message(command::REGION_READ, 0, None, &read(u64::MAX, 0, 4)),
        message(command::REGION_READ, 0, None, &read(0, 77, 4)),
        message(command::REGION_READ, 0, None, &read(1, 0, 4)),
        message(command::REGION_READ, 0, None, &read(0, 0, 3)),
        message(command::REGION_READ, 0, None, &[0; 5]),
        message(command::REGION_WRITE, 0, None, &read(0, 0, 4)),
        message(command::REGION_WRITE, flag::NO_REPLY, None, &read(0, 7, 4)),
        message(command::GET_REGION_INFO, 0, None, &[0xff; 32]),
        message(command::GET_IRQ_INFO, 0, None, &[0xff; 16]),
        message(command::SET_IRQS, 0, None, &irqs(eventfd, 0, 4)),
        message(command::SET_IRQS, 0, None, &irqs(eventfd, u32::MAX, 2)),
        message(command::SET_IRQS, 0, None, &irqs(eventfd, 0, u32::MAX)),
        message(command::DMA_MAP, 0, None, &map(0x1_0000_0000, 4096)),
        message(command::DMA_MAP, 0, None, &map(u64::MAX, u64::MAX)),
        message(command::DMA_UNMAP, 0, None, &[0xff; 24]),
        message(command::RESET, 0, None, &[]),
    ];
    for a in &attempts {
        let mut s = UnixStream::connect(&server.path).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        s.write_all(a).unwrap();
        s.shutdown(std::net::Shutdown::Write).unwrap();
        // Whatever it says, it ends.
        let mut b = Vec::new();
        let _ = s.read_to_end(&mut b);
        assert!(b.len() < 64 * 1024);
    }
    is_well(&server.path);
    // One that connects and says nothing more, half a message, is given up.
    let mut slow = UnixStream::connect(&server.path).unwrap();
    slow.write_all(&message(command::VERSION, 0, Some(64), &[])).unwrap();
    let mut b = [0; 1];
    slow.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert!(matches!(slow.read(&mut b), Ok(0) | Err(_)));
    is_well(&server.path);
}

#[test]
fn memory_that_could_be_cut_off_is_not_mapped() {
    use vmm_sys_util::sock_ctrl_msg::ScmSocket;
    let server = Thread::start();
    let s = UnixStream::connect(&server.path).unwrap();
    s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.set_len(4096).unwrap();
    let body = Body::default().u32(32).u32(3).u64(0).u64(1 << 32).u64(4096).0;
    let m = message(command::DMA_MAP, 0, None, &body);
    s.send_with_fd(&m[..], std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
    let mut b = [0; 16];
    (&s).read_exact(&mut b).unwrap();
    let h = Header::decode(&b);
    assert_eq!((h.flags, h.error), (flag::REPLY | flag::ERROR, 22));
}

#[test]
fn a_client_ends_with_an_error_whatever_a_server_says() {
    let ok_version = {
        let v = vfio_user::wire::version().0;
        message(command::VERSION, flag::REPLY, None, &v)
    };
    // The client's first id is zero.
    let with_id = |mut m: Vec<u8>, id: u16| {
        m[..2].copy_from_slice(&id.to_ne_bytes());
        m
    };
    let says: Vec<Vec<u8>> = vec![
        vec![],
        vec![0; 7],
        vec![0xff; 64],
        with_id(message(command::VERSION, flag::REPLY, Some(u32::MAX), &[]), 0),
        with_id(message(command::VERSION, flag::REPLY, None, &[]), 0),
        with_id(message(command::VERSION, 0, None, b"\0\0\x01\0"), 0),
        with_id(message(command::VERSION, flag::REPLY | flag::ERROR, None, &[]), 0),
        with_id(message(command::RESET, flag::REPLY, None, b"\0\0\x01\0"), 0),
        with_id(ok_version.clone(), 9),
        // Right at first, then device info that is none.
        [with_id(ok_version.clone(), 0), with_id(message(command::GET_INFO, flag::REPLY, None, &[0; 3]), 1)]
            .concat(),
        [with_id(ok_version, 0), with_id(message(command::GET_INFO, flag::REPLY, None, &[0xff; 16]), 1)]
            .concat(),
    ];
    for s in says {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let what = s.clone();
        let t = std::thread::spawn(move || {
            let (mut c, _) = listener.accept().unwrap();
            let _ = c.write_all(&what);
            // It stays, and says nothing more.
            let mut b = [0; 4096];
            while matches!(c.read(&mut b), Ok(n) if n > 0) {}
        });
        let begun = Instant::now();
        assert!(UserBacking::connect(&path, "hostile").is_err(), "{s:?}");
        assert!(begun.elapsed() < Duration::from_secs(25));
        t.join().unwrap();
    }
    let nobody = tempfile::tempdir().unwrap();
    assert!(UserBacking::connect(&nobody.path().join("x"), "nobody").is_err());
}

#[test]
fn an_event_descriptor_that_is_full_makes_nobody_wait() {
    let i = Interrupt::new().unwrap();
    let fd = std::os::fd::AsFd::as_fd(&i).try_clone_to_owned().unwrap();
    let far = Interrupt::from_fd(fd).unwrap();
    for _ in 0..1000 {
        far.raise();
    }
    assert_eq!(i.take(), 1000);
    let (a, _b) = UnixStream::pair().unwrap();
    let pipe = Interrupt::from_fd(a.into()).unwrap();
    let begun = Instant::now();
    for _ in 0..100_000 {
        pipe.raise();
    }
    assert!(begun.elapsed() < Duration::from_secs(25));
    wait(|| true);
}
