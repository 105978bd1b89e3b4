//! A kernel that is not there: interfaces, clsact qdiscs, chains, filters, shared actions, counters, acknowledgements with words,
//! and faults on demand, behind [`Transport`]. Packets can be sent through its filters.
//!
//! It reads requests with this crate's codec, so it cannot tell whether the codec is right; the golden bytes and the kernel in
//! the lab can. What it checks is what Linux 6.1 checks, with the same error numbers and words.
//!
//! *Not modelled*: qdiscs other than clsact, classifiers other than flower (a foreign filter of another kind is a name that
//! matches nothing), connections (every packet is of the state that was said last), tunnels, rates of policers.

mod classify;
mod headers;
mod request;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use clock::Instant;
use flow::PacketKey;
use nix::errno::Errno;
use offload::seed::Seed;

use crate::action::{Counts, TcAction};
use crate::filter::{FilterAt, Flower, Hook};
use crate::links::LinkInfo;
use crate::transport::Transport;

/// A filter that is there.
#[derive(Clone, Debug)]
pub struct FakeFilter {
    /// Kind of classifier; anything but `flower` matches nothing.
    pub kind: String,
    /// What it matches and does.
    pub flower: Flower,
    /// Whether the interface's hardware has it.
    pub in_hw: bool,
    /// What each action has counted.
    pub counts: Vec<Counts>,
    /// When it was last hit.
    pub used: Option<Instant>,
}

/// An action with a number of its own.
#[derive(Clone, Debug)]
struct Shared {
    action: TcAction,
    counts: Counts,
    drops: u32,
    /// Made for itself; otherwise it goes with the last filter that uses it.
    made: bool,
}

/// Words of a driver about a filter that it cannot have; `None` for those that it can.
pub type Veto = fn(&Flower) -> Option<&'static str>;

/// An interface.
#[derive(Clone, Debug, Default)]
struct Link {
    clsact: bool,
    block: Option<u32>,
    /// Its driver takes filters.
    hardware: bool,
    /// What its driver says of filters that it does not take.
    veto: Option<Veto>,
    /// What rtnetlink tells of it.
    info: LinkInfo,
}

impl Link {
    fn numbered(index: u32) -> Self {
        let info =
            LinkInfo { index, name: format!("if{index}"), up: true, carrier: true, ..LinkInfo::default() };
        Link { info, ..Link::default() }
    }
}

/// How often what goes wrong, in percent of the requests or datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// A request that changes something is refused.
    pub refuse: u8,
    /// An answer is lost, and the next receive says ENOBUFS.
    pub overrun: u8,
    /// An answer is lost without a word.
    pub lose: u8,
    /// A dump says that it was interrupted.
    pub interrupt: u8,
    /// A dump leaves a filter out without a word, as Linux does when priorities come and go meanwhile.
    pub overlook: u8,
    /// Somebody else removes a filter of ours before a request is looked at.
    pub meddle: u8,
    /// A send fails.
    pub send: u8,
}

#[derive(Debug)]
struct State {
    links: BTreeMap<u32, Link>,
    filters: BTreeMap<FilterAt, FakeFilter>,
    /// Where a filter with these keys was last put; it may have gone or changed since.
    by_keys: HashMap<u64, FilterAt>,
    shared: BTreeMap<(String, u32), Shared>,
    inbox: VecDeque<io::Result<Vec<u8>>>,
    /// Filters that a driver has room for, and the kernel, all together.
    limit: usize,
    terse: bool,
    faults: Faults,
    seed: Seed,
    /// Refusals to come: error number, words.
    refusals: VecDeque<(i32, &'static str)>,
    now: Instant,
    requests: u64,
    /// What connection tracking says of every packet, as the datapath has it.
    ct_state: u16,
}

const POLICE: &str = "police";

/// A handle to a fake kernel; clones are the same kernel.
#[derive(Clone, Debug)]
pub struct FakeKernel {
    state: Arc<Mutex<State>>,
}

/// What becomes of a packet: `None` when no filter was hit, else what is sent by which interface.
pub type Outcome = Option<Vec<(u32, PacketKey)>>;

impl FakeKernel {
    /// A kernel with these interfaces, which have no hardware and no qdiscs, and room for a million filters.
    pub fn new(interfaces: &[u32]) -> Self {
        let links = interfaces.iter().map(|i| (*i, Link::numbered(*i))).collect();
        FakeKernel {
            state: Arc::new(Mutex::new(State {
                links,
                filters: BTreeMap::new(),
                by_keys: HashMap::new(),
                shared: BTreeMap::new(),
                inbox: VecDeque::new(),
                limit: 1_000_000,
                terse: true,
                faults: Faults::default(),
                seed: Seed::new(1),
                refusals: VecDeque::new(),
                now: Instant::ZERO,
                requests: 0,
                ct_state: 0x21,
            })),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket of it.
    pub fn socket(&self) -> FakeSocket {
        FakeSocket { kernel: self.clone() }
    }

    /// How many filters fit; one more is refused with ENOSPC.
    pub fn set_limit(&self, filters: usize) {
        self.state().limit = filters;
    }

    /// Whether dumps can be terse; Linux before 5.8 takes no notice of the wish.
    pub fn set_terse(&self, can: bool) {
        self.state().terse = can;
    }

    /// Whether an interface's driver takes filters.
    pub fn set_hardware(&self, ifindex: u32, takes: bool) {
        self.state().links.entry(ifindex).or_default().hardware = takes;
    }

    /// An interface's driver takes filters, but for those it has words about.
    pub fn set_driver(&self, ifindex: u32, veto: Veto) {
        let mut s = self.state();
        let l = s.links.entry(ifindex).or_default();
        (l.hardware, l.veto) = (true, Some(veto));
    }

    /// From now on things go wrong so often.
    pub fn set_faults(&self, faults: Faults, seed: u64) {
        let mut s = self.state();
        s.faults = faults;
        s.seed = Seed::new(seed);
    }

    /// The next request that changes something is refused.
    pub fn refuse_next(&self, errno: i32, text: &'static str) {
        self.state().refusals.push_back((errno, text));
    }

    /// An interface and everything on it disappears.
    pub fn remove_interface(&self, ifindex: u32) {
        let mut s = self.state();
        s.links.remove(&ifindex);
        s.filters.retain(|at, _| !matches!(at.hook, Hook::Ingress(i) | Hook::Egress(i) if i == ifindex));
    }

    /// What an interface is, from now on.
    pub fn set_link(&self, info: LinkInfo) {
        let mut s = self.state();
        let l = s.links.entry(info.index).or_insert_with(|| Link::numbered(info.index));
        l.info = info;
    }

    /// An interface appears.
    pub fn add_interface(&self, ifindex: u32) {
        self.state().links.insert(ifindex, Link::numbered(ifindex));
    }

    /// Somebody removes a clsact qdisc with everything on it.
    pub fn remove_qdisc(&self, ifindex: u32) {
        let mut s = self.state();
        if let Some(l) = s.links.get_mut(&ifindex) {
            l.clsact = false;
        }
        s.filters.retain(|at, _| at.hook != Hook::Ingress(ifindex));
    }

    /// Somebody adds a filter.
    pub fn add_filter(&self, at: FilterAt, kind: &str, flower: Flower) {
        let mut s = self.state();
        if let Hook::Ingress(i) | Hook::Egress(i) = at.hook {
            s.links.entry(i).or_default().clsact = true;
        }
        let counts = vec![Counts::default(); flower.actions.len()];
        s.put(at, FakeFilter { kind: kind.to_owned(), flower, in_hw: false, counts, used: None });
    }

    /// Somebody removes a filter; false when it is not there.
    pub fn remove_filter(&self, at: &FilterAt) -> bool {
        self.state().filters.remove(at).is_some()
    }

    /// All filters.
    pub fn filters(&self) -> Vec<(FilterAt, FakeFilter)> {
        self.state().filters.iter().map(|(a, f)| (*a, f.clone())).collect()
    }

    /// Names and kinds of the interfaces.
    pub fn links(&self) -> Vec<(String, String)> {
        self.state().links.values().map(|l| (l.info.name.clone(), l.info.kind.clone())).collect()
    }

    /// Numbers of the policers that there are.
    pub fn policers(&self) -> Vec<u32> {
        let mut s = self.state();
        s.prune_shared();
        s.shared.keys().filter(|(kind, _)| kind == POLICE).map(|(_, n)| *n).collect()
    }

    /// What the policer of a number is.
    pub fn policer(&self, index: u32) -> Option<TcAction> {
        self.state().shared.get(&(POLICE.to_owned(), index)).map(|s| s.action.clone())
    }

    /// Somebody makes a policer, or makes it like this.
    pub fn put_policer(&self, action: TcAction) {
        let shared = Shared { counts: Counts::default(), drops: 0, made: true, action };
        self.state().shared.insert((POLICE.to_owned(), shared.action.index), shared);
    }

    /// Somebody removes a policer, with the filters that use it.
    pub fn remove_policer(&self, index: u32) {
        let mut s = self.state();
        s.shared.remove(&(POLICE.to_owned(), index));
        s.filters
            .retain(|_, f| !f.flower.actions.iter().any(|a| (a.spec.kind(), a.index) == (POLICE, index)));
    }

    /// A policer says that so many of its packets exceeded.
    pub fn set_drops(&self, index: u32, drops: u32) {
        if let Some(s) = self.state().shared.get_mut(&(POLICE.to_owned(), index)) {
            s.drops = drops;
        }
    }

    /// Requests seen so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// From now on connection tracking says this of every packet: bits as the datapath has them.
    pub fn set_ct_state(&self, state: u16) {
        self.state().ct_state = state;
    }

    /// Its time.
    pub fn set_now(&self, now: Instant) {
        self.state().now = now;
    }

    /// A packet comes in by an interface. Filters count it.
    pub fn receive(&self, ifindex: u32, key: &PacketKey, len_bytes: u32) -> Outcome {
        self.state().classify(ifindex, key, len_bytes)
    }
}

/// A socket to a [`FakeKernel`].
#[derive(Clone, Debug)]
pub struct FakeSocket {
    kernel: FakeKernel,
}

impl Transport for FakeSocket {
    fn send(&mut self, messages: &[u8]) -> io::Result<()> {
        let mut s = self.kernel.state();
        let percent = s.faults.send;
        if s.seed.percent(percent) {
            return Err(Errno::ENOMEM.into());
        }
        for m in crate::message::messages(messages) {
            let m = m.map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
            s.requests += 1;
            s.request(&m);
        }
        Ok(())
    }

    fn receive(&mut self, into: &mut Vec<u8>, _: Duration) -> io::Result<bool> {
        into.clear();
        match self.kernel.state().inbox.pop_front() {
            None => Ok(false),
            Some(Ok(b)) => {
                into.extend_from_slice(&b);
                Ok(true)
            }
            Some(Err(e)) => Err(e),
        }
    }
}

impl State {
    /// Stands for the keys of the filters of one priority.
    fn name_of(at: &FilterAt, f: &Flower) -> u64 {
        let mut h = DefaultHasher::new();
        (at.hook, at.chain, at.prio, &f.keys).hash(&mut h);
        h.finish()
    }

    fn put(&mut self, at: FilterAt, f: FakeFilter) {
        self.by_keys.insert(Self::name_of(&at, &f.flower), at);
        self.filters.insert(at, f);
    }

    /// Whether another filter of the priority has the same keys.
    fn has_twin(&self, at: &FilterAt, f: &Flower) -> bool {
        let other = self.by_keys.get(&Self::name_of(at, f)).filter(|o| *o != at);
        let there = other.and_then(|o| Some((o, self.filters.get(o)?)));
        there.is_some_and(|(o, t)| {
            (o.hook, o.chain, o.prio) == (at.hook, at.chain, at.prio) && t.flower.keys == f.keys
        })
    }

    /// Actions that came with filters go with them.
    fn prune_shared(&mut self) {
        if self.shared.values().all(|s| s.made) {
            return;
        }
        let filters = self.filters.values();
        let used: std::collections::BTreeSet<(&str, u32)> =
            filters.flat_map(|f| &f.flower.actions).map(|a| (a.spec.kind(), a.index)).collect();
        self.shared.retain(|(kind, n), s| s.made || used.contains(&(kind.as_str(), *n)));
    }

    /// Puts a datagram where it can be received, or loses it.
    fn answer(&mut self, b: Vec<u8>) {
        let (overrun, lose) = (self.faults.overrun, self.faults.lose);
        if self.seed.percent(overrun) {
            self.inbox.push_back(Err(Errno::ENOBUFS.into()));
        } else if !self.seed.percent(lose) {
            self.inbox.push_back(Ok(b));
        }
    }
}
