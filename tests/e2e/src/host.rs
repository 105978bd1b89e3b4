//! A host in memory: answers ARP and echo requests, pings, and moves bytes over TCP.
//!
//! Enough of each protocol to be at the end of a cable. TCP here is one transfer at a time, in one direction,
//! go-back-N with a fixed window; segments and acknowledgments are real and their checksums are checked, so that a switch
//! that damages, loses or reorders packets is found out.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use device::{BufferPool, PacketBatch, RxQueue};
use flow::MacAddr;
use flow::checksum::Sum;
use flow::frame::FrameBuilder;
use flow::headers::{Arp, Ethernet, Icmp, Ipv4, Tcp};
use netio::memory::{MemoryPort, MemoryRx, MemoryTx};
use parking_lot::{Condvar, Mutex};

const FIN: u16 = 0x01;
const SYN: u16 = 0x02;
const ACK: u16 = 0x10;
/// Bytes of a segment.
const SEGMENT: usize = 1400;
/// Segments under way.
const WINDOW: usize = 16;
/// When to send again what was not acknowledged.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// What the host knows; changed by its thread, watched by whoever waits.
#[derive(Default)]
struct State {
    neighbours: HashMap<Ipv4Addr, MacAddr>,
    /// Identifier and sequence number of echo replies.
    echoes: HashSet<u32>,
    /// Transfers coming in, by our port: bytes in order so far, whether the end was seen.
    incoming: HashMap<u16, (Vec<u8>, bool)>,
    /// Highest acknowledgment for our port, relative to the start; the SYN counts one.
    acknowledged: HashMap<u16, u32>,
    /// Frames to be sent by the thread.
    outbox: Vec<Vec<u8>>,
}

struct Shared {
    mac: MacAddr,
    ip: Ipv4Addr,
    state: Mutex<State>,
    changed: Condvar,
    stop: AtomicBool,
    received: AtomicU64,
    damaged: AtomicU64,
}

/// A host at the end of a cable. Its thread ends when it is dropped.
pub struct Host {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// Why a host could not do what it was asked.
#[derive(thiserror::Error, Debug)]
pub enum HostError {
    /// Its cable's queues were taken already.
    #[error("the cable's queues were taken")]
    NoQueues,
    /// No memory or no thread.
    #[error("{0}")]
    System(String),
    /// Nobody answered the question for the address.
    #[error("{0} does not answer to ARP")]
    NoNeighbour(Ipv4Addr),
    /// The transfer did not end in time.
    #[error("only {0} bytes were acknowledged in time")]
    Unacknowledged(usize),
}

impl Host {
    /// A host with this address at the end `cable`.
    ///
    /// # Errors
    /// [`HostError::NoQueues`], [`HostError::System`].
    pub fn start(number: u8, ip: Ipv4Addr, mut cable: MemoryPort) -> Result<Host, HostError> {
        let (rx, tx) = cable.split().ok_or(HostError::NoQueues)?;
        let system = |e: &dyn std::fmt::Display| HostError::System(e.to_string());
        let pool = BufferPool::new(1024).map_err(|e| system(&e))?;
        let shared = Arc::new(Shared {
            mac: MacAddr([2, 0, 0, 0x77, 0, number]),
            ip,
            state: Mutex::default(),
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            received: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        });
        let thread = std::thread::Builder::new()
            .name(format!("host{number}"))
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run(rx, tx, &pool)
            })
            .map_err(|e| system(&e))?;
        Ok(Host { shared, thread: Some(thread) })
    }

    /// Its address.
    pub fn ip(&self) -> Ipv4Addr {
        self.shared.ip
    }

    /// Frames it has received.
    pub fn received(&self) -> u64 {
        self.shared.received.load(Ordering::Relaxed)
    }

    /// Frames whose checksums were wrong.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }

    /// Sends a frame as it is.
    pub fn send(&self, frame: Vec<u8>) {
        self.shared.state.lock().outbox.push(frame);
    }

    /// Waits until `f` gives something, at most `timeout`.
    fn wait_for<T>(&self, timeout: Duration, mut f: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.state.lock();
        loop {
            if let Some(v) = f(&mut state) {
                return Some(v);
            }
            if self.shared.changed.wait_until(&mut state, deadline).timed_out() {
                return f(&mut state);
            }
        }
    }

    fn resolve(&self, ip: Ipv4Addr) -> Result<MacAddr, HostError> {
        let s = &self.shared;
        for _ in 0..5 {
            if let Some(mac) = s.state.lock().neighbours.get(&ip) {
                return Ok(*mac);
            }
            let ask =
                FrameBuilder::new().eth(MacAddr([0xff; 6]), s.mac).arp_request(s.ip, ip).pad_to(60).build();
            self.send(ask);
            if let Some(mac) = self.wait_for(Duration::from_millis(500), |s| s.neighbours.get(&ip).copied()) {
                return Ok(mac);
            }
        }
        Err(HostError::NoNeighbour(ip))
    }

    /// Pings `ip` `count` times, `interval` apart, and returns how many were answered.
    ///
    /// # Errors
    /// [`HostError::NoNeighbour`].
    pub fn ping(&self, ip: Ipv4Addr, count: u16, interval: Duration) -> Result<u16, HostError> {
        let s = &self.shared;
        let mac = self.resolve(ip)?;
        let mut answered = 0;
        for n in 0..count {
            let rest = u32::from(s.mac.0[5]) << 16 | u32::from(n);
            s.state.lock().echoes.remove(&rest);
            let request = FrameBuilder::new().eth(mac, s.mac).ipv4(s.ip, ip).icmp(8, 0, rest);
            self.send(request.payload(&[0x5a; 56]).build());
            let got = self.wait_for(Duration::from_secs(2), |s| s.echoes.contains(&rest).then_some(()));
            answered += u16::from(got.is_some());
            std::thread::park_timeout(interval);
        }
        Ok(answered)
    }

    /// Sends `data` to port `port` of `ip` and waits until all of it is acknowledged.
    ///
    /// # Errors
    /// [`HostError::NoNeighbour`], [`HostError::Unacknowledged`].
    pub fn transfer(&self, ip: Ipv4Addr, port: u16, data: &[u8], timeout: Duration) -> Result<(), HostError> {
        let s = &self.shared;
        let mac = self.resolve(ip)?;
        let own_port = 40_000 + port % 10_000;
        s.state.lock().acknowledged.insert(own_port, 0);
        let segment = |seq: u32, flags: u16, bytes: &[u8]| {
            let f = FrameBuilder::new().eth(mac, s.mac).ipv4(s.ip, ip).tcp(own_port, port);
            f.tcp_flags(flags).tcp_seq(seq, 0).payload(bytes).build()
        };
        // The SYN takes one sequence number, the FIN another: byte i has number i + 1.
        let end = data.len() as u32 + 2;
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let acked = s.state.lock().acknowledged.get(&own_port).copied().unwrap_or(0);
            if acked >= end {
                return Ok(());
            }
            if acked == 0 {
                self.send(segment(0, SYN, &[]));
            } else {
                let from = (acked - 1) as usize;
                let chunks = data.get(from..).unwrap_or(&[]).chunks(SEGMENT).take(WINDOW);
                let mut at = from;
                for c in chunks {
                    self.send(segment(at as u32 + 1, ACK, c));
                    at += c.len();
                }
                if at == data.len() {
                    self.send(segment(at as u32 + 1, FIN | ACK, &[]));
                }
            }
            // All of the window was answered, or something was lost.
            let sent = (acked as usize + WINDOW * SEGMENT).min(end as usize) as u32;
            self.wait_for(RETRANSMIT, |s| (s.acknowledged.get(&own_port)? >= &sent).then_some(()));
        }
        let acked = s.state.lock().acknowledged.get(&own_port).copied().unwrap_or(0);
        Err(HostError::Unacknowledged(acked.saturating_sub(1) as usize))
    }

    /// What has come in on `port`, once its end has been seen; `None` if that is not within `timeout`.
    pub fn accepted(&self, port: u16, timeout: Duration) -> Option<Vec<u8>> {
        self.wait_for(timeout, |s| match s.incoming.get(&port) {
            Some((_, true)) => s.incoming.remove(&port).map(|(bytes, _)| bytes),
            _ => None,
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

impl Shared {
    fn run(&self, mut rx: MemoryRx, mut tx: MemoryTx, pool: &BufferPool) {
        let mut batch = PacketBatch::new();
        while !self.stop.load(Ordering::Acquire) {
            let got = rx.rx_burst(&mut batch).unwrap_or(0);
            let mut replies = std::mem::take(&mut self.state.lock().outbox);
            for p in batch.drain_all() {
                self.received.fetch_add(1, Ordering::Relaxed);
                replies.extend(self.handle(&p));
            }
            let idle = got == 0 && replies.is_empty();
            for r in replies {
                // A full cable or an empty pool loses the frame, as cables do.
                if let Some(p) = pool.copy_from(&r) {
                    let _ = tx.send(p);
                }
            }
            if idle {
                std::thread::park_timeout(Duration::from_micros(100));
            }
        }
    }

    /// Takes a frame in and gives the answer.
    fn handle(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let eth = Ethernet::new(frame).ok()?;
        if eth.dst() != self.mac && eth.dst() != MacAddr([0xff; 6]) {
            return None;
        }
        let body = frame.get(Ethernet::<&[u8]>::LEN..)?;
        match eth.eth_type() {
            0x0806 => self.arp(body),
            0x0800 => self.ipv4(eth.src(), body),
            _ => None,
        }
    }

    fn arp(&self, body: &[u8]) -> Option<Vec<u8>> {
        let a = Arp::new(body).ok()?;
        if !a.is_ipv4_over_ethernet() || a.tpa() != self.ip {
            return None;
        }
        self.state.lock().neighbours.insert(a.spa(), a.sha());
        self.changed.notify_all();
        let reply = FrameBuilder::new().eth(a.sha(), self.mac).arp(2, self.mac, self.ip, a.sha(), a.spa());
        (a.op() == 1).then(|| reply.pad_to(60).build())
    }

    fn ipv4(&self, from: MacAddr, body: &[u8]) -> Option<Vec<u8>> {
        let ip = Ipv4::new(body).ok()?;
        if ip.dst() != self.ip {
            return None;
        }
        let payload = ip.payload();
        let len = u16::try_from(payload.len()).ok()?;
        let (sum, answer) = match ip.proto() {
            1 => (Sum::default().bytes(payload).finish(), self.echo(from, ip.src(), payload)),
            6 => {
                let pseudo = Sum::default().pseudo_v4(ip.src().into(), ip.dst().into(), 6, len);
                let sum = pseudo.bytes(payload).finish();
                (sum, if sum == 0 { self.tcp(from, ip.src(), payload) } else { None })
            }
            _ => return None,
        };
        if sum != 0 {
            self.damaged.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        answer
    }

    fn echo(&self, from: MacAddr, src: Ipv4Addr, payload: &[u8]) -> Option<Vec<u8>> {
        let icmp = Icmp::new(payload).ok()?;
        let data = payload.get(Icmp::<&[u8]>::LEN..)?;
        match icmp.icmp_type() {
            8 => {
                let reply =
                    FrameBuilder::new().eth(from, self.mac).ipv4(self.ip, src).icmp(0, 0, icmp.rest());
                Some(reply.payload(data).build())
            }
            0 => {
                self.state.lock().echoes.insert(icmp.rest());
                self.changed.notify_all();
                None
            }
            _ => None,
        }
    }

    fn tcp(&self, from: MacAddr, src: Ipv4Addr, payload: &[u8]) -> Option<Vec<u8>> {
        let t = Tcp::new(payload).ok()?;
        let (flags, seq) = (t.flags(), t.seq());
        let mut state = self.state.lock();
        // Ours, if we have sent from that port: then this acknowledges.
        if let Some(acked) = state.acknowledged.get_mut(&t.dst_port()) {
            *acked = (*acked).max(t.ack());
            self.changed.notify_all();
            return None;
        }
        let (bytes, ended) = state.incoming.entry(t.dst_port()).or_default();
        if flags & SYN == 0 && seq as usize == bytes.len() + 1 && !*ended {
            bytes.extend_from_slice(t.payload());
            *ended = flags & FIN != 0;
        }
        let next = bytes.len() as u32 + 1 + u32::from(*ended);
        self.changed.notify_all();
        drop(state);
        let ack = FrameBuilder::new().eth(from, self.mac).ipv4(self.ip, src).tcp(t.dst_port(), t.src_port());
        Some(ack.tcp_flags(ACK).tcp_seq(0, next).build())
    }
}

#[cfg(test)]
mod tests {
    use netio::memory::{MemoryConfig, cable};

    use super::*;

    #[test]
    fn two_hosts_on_one_cable_ping_and_transfer() {
        let (a, b) = cable(&MemoryConfig::default()).unwrap();
        let a = Host::start(1, [10, 0, 0, 1].into(), a).unwrap();
        let b = Host::start(2, [10, 0, 0, 2].into(), b).unwrap();
        assert_eq!(a.ping(b.ip(), 3, Duration::ZERO).unwrap(), 3);
        let data: Vec<u8> = (0..100_000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        a.transfer(b.ip(), 5001, &data, Duration::from_secs(10)).unwrap();
        assert_eq!(b.accepted(5001, Duration::from_secs(1)), Some(data));
        assert_eq!((a.damaged(), b.damaged()), (0, 0));
        let nobody = a.ping([10, 0, 0, 9].into(), 1, Duration::ZERO);
        assert!(matches!(nobody, Err(HostError::NoNeighbour(_))));
    }
}
