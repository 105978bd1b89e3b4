//! A kernel with an Open vSwitch datapath that is not there, for tests: families, one datapath, ports, flows by their names,
//! packets that were executed, refusals and lost answers on demand.
//!
//! *Not modelled*: packets through flows. Keys, masks and actions are kept as they were written.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::genl::{GENL, OVS};
use crate::message::{Message, flag, kind, messages};
use crate::transport::Transport;
use crate::wire::{NLMSG_HEADER, Writer, find, read_text, read_u32};

/// Numbers of the families, in the order datapath, port, flow, packet, meter.
const FAMILIES: [(&str, u16); 5] =
    [("ovs_datapath", 30), ("ovs_vport", 31), ("ovs_flow", 32), ("ovs_packet", 33), ("ovs_meter", 34)];
const NUMBER: u32 = 77;

#[derive(Debug, Default)]
struct State {
    name: Option<String>,
    pids: Vec<u8>,
    ports: BTreeMap<u32, (String, u32)>,
    flows: BTreeMap<Vec<u8>, Vec<u8>>,
    executed: Vec<Vec<u8>>,
    counts: BTreeMap<Vec<u8>, (u64, u64)>,
    meters: BTreeMap<u32, Vec<u8>>,
    /// It makes no devices for tunnels.
    bare: bool,
    refusals: VecDeque<i32>,
    lose: u32,
    /// By the number of the socket.
    inboxes: BTreeMap<u32, Inbox>,
}

type Inbox = VecDeque<io::Result<Vec<u8>>>;

/// A socket to a kernel; clones are the same socket.
#[derive(Clone, Debug, Default)]
pub struct FakeDatapath {
    state: Arc<Mutex<State>>,
    number: u32,
}

type Answer = Result<Vec<Vec<u8>>, Errno>;

impl FakeDatapath {
    /// A kernel without a datapath.
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Another socket to the same kernel, and its number.
    pub fn socket(&self) -> (FakeDatapath, u32) {
        let mut s = self.state();
        let number = s.inboxes.keys().next_back().map_or(1, |n| n + 1);
        s.inboxes.insert(number, Inbox::new());
        (FakeDatapath { state: self.state.clone(), number }, number)
    }

    /// A flow is gone, and not because of us.
    pub fn lose_flow(&self, name: &[u8]) {
        self.state().flows.remove(name);
    }

    /// What a flow has counted from now on.
    pub fn count(&self, name: &[u8], packets: u64, bytes: u64) {
        self.state().counts.insert(name.to_vec(), (packets, bytes));
    }

    /// What meters were made with, by number.
    pub fn meters(&self) -> BTreeMap<u32, Vec<u8>> {
        self.state().meters.clone()
    }

    /// What there are, by number.
    pub fn ports(&self) -> BTreeMap<u32, (String, u32)> {
        self.state().ports.clone()
    }

    /// From now on it makes no devices for tunnels, as newer kernels.
    pub fn without_tunnels(&self) {
        self.state().bare = true;
    }

    /// The next request about datapath, ports, flows or packets is refused.
    pub fn refuse_next(&self, e: Errno) {
        self.state().refusals.push_back(e as i32);
    }

    /// The answers to the next `n` requests are lost.
    pub fn lose_next(&self, n: u32) {
        self.state().lose = n;
    }

    /// A packet comes that no flow knows: `attrs` are those of OVS_PACKET_ATTR_*.
    pub fn miss(&self, attrs: &[u8]) {
        self.packet(1, attrs);
    }

    /// A packet comes that an action hands over: `attrs` as for [`FakeDatapath::miss`], with what the action says.
    pub fn hand_over(&self, attrs: &[u8]) {
        self.packet(2, attrs);
    }

    fn packet(&self, cmd: u8, attrs: &[u8]) {
        let mut w = Writer::new();
        let m = w.message(FAMILIES[3].1, 0, 0);
        w.raw(&[cmd, 1, 0, 0]);
        w.raw(&NUMBER.to_ne_bytes());
        w.raw(attrs);
        w.end_message(m);
        self.hear(Ok(w.bytes().to_vec()));
    }

    /// To the first socket that was named to the datapath, if it is one of its own.
    fn hear(&self, what: io::Result<Vec<u8>>) {
        let mut s = self.state();
        let named = s.pids.get(..4).and_then(|b| read_u32("socket", b).ok());
        let to = named.filter(|n| s.inboxes.contains_key(n)).unwrap_or_default();
        s.inboxes.entry(to).or_default().push_back(what);
    }

    /// Packets were lost on their way to the socket.
    pub fn overrun(&self) {
        self.hear(Err(Errno::ENOBUFS.into()));
    }

    /// What the flows were put with, by name.
    pub fn flows(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.state().flows.clone()
    }

    /// What packets were executed with.
    pub fn executed(&self) -> Vec<Vec<u8>> {
        self.state().executed.clone()
    }

    /// The sockets that were named.
    pub fn sockets(&self) -> Vec<u32> {
        self.state().pids.chunks_exact(4).filter_map(|c| read_u32("socket", c).ok()).collect()
    }
}

impl FakeDatapath {
    fn is_quiet(&self) -> bool {
        self.state().inboxes.get(&self.number).is_none_or(VecDeque::is_empty)
    }
}

impl Transport for FakeDatapath {
    fn send(&mut self, all: &[u8]) -> io::Result<()> {
        let mut s = self.state();
        for m in messages(all) {
            let m = m.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
            let answer = s.answer(&m);
            if s.lose > 0 {
                s.lose -= 1;
                continue;
            }
            s.tell(self.number, &m, answer);
        }
        Ok(())
    }

    fn receive(&mut self, into: &mut Vec<u8>, wait: Duration) -> io::Result<bool> {
        into.clear();
        let mut left = wait;
        // Answers are there at once; packets may come while they are waited for.
        while self.number != 0 && !left.is_zero() && self.is_quiet() {
            let nap = left.min(Duration::from_millis(1));
            std::thread::sleep(nap);
            left -= nap;
        }
        match self.state().inboxes.entry(self.number).or_default().pop_front() {
            None => Ok(false),
            Some(b) => {
                into.extend_from_slice(&b?);
                Ok(true)
            }
        }
    }
}

impl State {
    fn answer(&mut self, m: &Message<'_>) -> Answer {
        let cmd = m.body.first().copied().unwrap_or(0);
        if m.kind == 0x10 {
            let name = m.body.get(GENL..).and_then(|b| find(b, 2).ok().flatten()).map(read_text);
            let found = FAMILIES.iter().find(|(n, _)| Some(*n) == name.as_deref()).ok_or(Errno::ENOENT)?;
            let mut w = Writer::new();
            w.u16(1, found.1);
            return Ok(vec![w.bytes().to_vec()]);
        }
        if let Some(e) = self.refusals.pop_front() {
            return Err(Errno::from_raw(e));
        }
        let body = m.body.get(GENL + OVS..).unwrap_or_default();
        match FAMILIES.iter().position(|(_, n)| *n == m.kind) {
            Some(0) => self.datapath(cmd, body),
            _ if self.name.is_none() => Err(Errno::ENODEV),
            Some(1) => self.port(cmd, m.flags & flag::DUMP == flag::DUMP, body),
            Some(2) => self.flow(cmd, m.flags & flag::DUMP == flag::DUMP, body),
            Some(3) => {
                self.executed.push(body.to_vec());
                Ok(Vec::new())
            }
            Some(4) => self.meter(cmd, body),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn meter(&mut self, cmd: u8, body: &[u8]) -> Answer {
        let id = find(body, 1).ok().flatten().and_then(|v| read_u32("", v).ok()).ok_or(Errno::EINVAL)?;
        let told = || {
            let mut w = Writer::new();
            w.attr(3, &[5u64.to_ne_bytes(), 500u64.to_ne_bytes()].concat());
            w.bytes().to_vec()
        };
        match cmd {
            2 => {
                // As Linux does: the answer has what the one before has counted.
                let before = self.meters.insert(id, body.to_vec()).map(|_| told());
                Ok(vec![before.unwrap_or_default()])
            }
            3 => self.meters.remove(&id).map(|_| Vec::new()).ok_or(Errno::ENOENT),
            _ if self.meters.contains_key(&id) => Ok(vec![told()]),
            _ => Err(Errno::ENOENT),
        }
    }

    fn datapath(&mut self, cmd: u8, body: &[u8]) -> Answer {
        let name = find(body, 1).ok().flatten().map(read_text);
        match cmd {
            1 if self.name.is_some() => return Err(Errno::EEXIST),
            1 => {
                let name = name.ok_or(Errno::EINVAL)?;
                self.ports.insert(0, (name.clone(), 2));
                self.name = Some(name);
            }
            2 => {
                let inboxes = std::mem::take(&mut self.inboxes);
                *self = State { inboxes, bare: self.bare, ..State::default() };
            }
            _ if self.name.is_none() => return Err(Errno::ENODEV),
            _ => {}
        }
        if let Ok(Some(pids)) = find(body, 8) {
            self.pids = pids.to_vec();
        }
        let mut w = Writer::new();
        let counts = [5u64, 3, 0, self.flows.len() as u64];
        w.attr(3, &counts.map(u64::to_ne_bytes).concat());
        Ok(vec![w.bytes().to_vec()])
    }

    fn port(&mut self, cmd: u8, dump: bool, body: &[u8]) -> Answer {
        let number = find(body, 1).ok().flatten().and_then(|v| read_u32("", v).ok());
        let told = |n: u32, (name, kind): &(String, u32)| {
            let mut w = Writer::new();
            w.u32(1, n);
            w.u32(2, *kind);
            w.text(3, name);
            w.bytes().to_vec()
        };
        match cmd {
            1 => {
                let name = find(body, 3).ok().flatten().map(read_text).ok_or(Errno::EINVAL)?;
                let kind =
                    find(body, 2).ok().flatten().and_then(|v| read_u32("", v).ok()).ok_or(Errno::EINVAL)?;
                if self.bare && kind > 2 {
                    return Err(Errno::EAFNOSUPPORT);
                }
                let free = (1..).find(|n| !self.ports.contains_key(n)).ok_or(Errno::EFBIG)?;
                let n = number.unwrap_or(free);
                if self.ports.contains_key(&n) || self.ports.values().any(|(p, _)| *p == name) {
                    return Err(Errno::EBUSY);
                }
                self.ports.insert(n, (name, kind));
                Ok(vec![told(n, &self.ports[&n])])
            }
            2 => match self.ports.remove(&number.ok_or(Errno::EINVAL)?) {
                Some(_) => Ok(Vec::new()),
                None => Err(Errno::ENODEV),
            },
            _ if dump => Ok(self.ports.iter().map(|(n, p)| told(*n, p)).collect()),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    fn flow(&mut self, cmd: u8, dump: bool, body: &[u8]) -> Answer {
        let name = find(body, 9).ok().flatten().map(<[u8]>::to_vec);
        let counts = self.counts.clone();
        let told = |name: &[u8]| {
            let (packets, bytes) = counts.get(name).copied().unwrap_or((7, 700));
            let mut w = Writer::new();
            w.attr(9, name);
            w.attr(3, &[packets.to_ne_bytes(), bytes.to_ne_bytes()].concat());
            w.bytes().to_vec()
        };
        match (cmd, name) {
            (1, Some(name)) => {
                self.flows.insert(name, body.to_vec());
                Ok(Vec::new())
            }
            (2, None) => {
                self.flows.clear();
                Ok(Vec::new())
            }
            (2, Some(name)) => match self.flows.remove(&name) {
                Some(_) => Ok(vec![told(&name)]),
                None => Err(Errno::ENOENT),
            },
            _ if dump => Ok(self.flows.keys().map(|n| told(n)).collect()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn tell(&mut self, to: u32, m: &Message<'_>, answer: Answer) {
        let dump = m.flags & flag::DUMP == flag::DUMP;
        let mut w = Writer::new();
        for attrs in answer.as_deref().unwrap_or_default() {
            let o = w.message(m.kind, if dump { flag::MULTI } else { 0 }, m.seq);
            w.raw(&[1, 1, 0, 0]);
            if m.kind != 0x10 {
                w.raw(&NUMBER.to_ne_bytes());
            }
            w.raw(attrs);
            w.end_message(o);
        }
        let errno = answer.err().map_or(0, |e| e as i32);
        let o = w.message(if dump && errno == 0 { kind::DONE } else { kind::ERROR }, flag::CAPPED, m.seq);
        w.raw(&(-errno).to_ne_bytes());
        w.raw(&[0; NLMSG_HEADER]);
        w.end_message(o);
        self.inboxes.entry(to).or_default().push_back(Ok(w.bytes().to_vec()));
    }
}
