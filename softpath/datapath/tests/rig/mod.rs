//! A datapath on memory ports with a miss handler that answers as told.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::{Instant, ManualClock};
use datapath::{Core, DatapathConfig, PortConfig, SoftDatapath};
use datapath_api::{
    Datapath, DropReason, Exported, FlowCounters, FlowRecord, Miss, MissHandler, Punt, PuntSink, Translation,
    Translations,
};
use device::{BufferPool, PacketBuf};
use flow::{Action, FieldId, FlowId, PacketMask, PacketMatch, PortId};
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, cable};

/// Packets that each direction of a cable holds.
pub const QUEUE: usize = 1024;

/// Answers every miss with the same actions, under a mask of given fields.
pub struct Handler {
    actions: Mutex<Arc<[Action]>>,
    install: Mutex<bool>,
    fields: Mutex<Vec<FieldId>>,
    asked: AtomicU64,
    last: Mutex<Option<Miss>>,
    refused: Mutex<Vec<Arc<FlowRecord>>>,
    next_id: AtomicU64,
}

impl Handler {
    fn new() -> Self {
        Handler {
            actions: Mutex::new(Arc::new([])),
            install: Mutex::new(true),
            fields: Mutex::new(vec![FieldId::DpPort, FieldId::RecircId, FieldId::EthType]),
            asked: AtomicU64::new(0),
            last: Mutex::new(None),
            refused: Mutex::default(),
            next_id: AtomicU64::new(1_000_000),
        }
    }

    pub fn set_actions(&self, a: Vec<Action>) {
        *self.actions.lock().unwrap() = a.into();
    }

    pub fn set_install(&self, on: bool) {
        *self.install.lock().unwrap() = on;
    }

    pub fn match_fields(&self, f: &[FieldId]) {
        *self.fields.lock().unwrap() = f.to_vec();
    }

    /// Misses so far.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    pub fn last_miss(&self) -> Option<Miss> {
        self.last.lock().unwrap().clone()
    }

    pub fn refused(&self) -> Vec<Arc<FlowRecord>> {
        self.refused.lock().unwrap().clone()
    }
}

impl MissHandler for Handler {
    fn translate(&self, misses: &[Miss], now: Instant, out: &mut Translations) {
        let mut mask = PacketMask::ZERO;
        for f in &*self.fields.lock().unwrap() {
            mask.set_exact(*f);
        }
        for m in misses {
            self.asked.fetch_add(1, Ordering::Relaxed);
            *self.last.lock().unwrap() = Some(m.clone());
            let actions = self.actions.lock().unwrap().clone();
            if !*self.install.lock().unwrap() {
                out.push(Translation::Once(actions.to_vec()));
                continue;
            }
            out.push(Translation::Keep(Arc::new(FlowRecord {
                id: FlowId(self.next_id.fetch_add(1, Ordering::Relaxed)),
                matches: PacketMatch::new(&m.key, &mask).into(),
                actions,
                counters: Arc::new(FlowCounters::default()),
                owner: Arc::new(()),
                created: now,
            })));
        }
    }

    fn refused(&self, record: &Arc<FlowRecord>) {
        self.refused.lock().unwrap().push(record.clone());
    }
}

/// Keeps what is punted, up to a bound.
pub struct Sink {
    pub punts: Mutex<Vec<Punt>>,
    pub exports: Mutex<Vec<Exported>>,
    pub room: usize,
}

impl PuntSink for Sink {
    fn export(&self, e: Exported) -> bool {
        self.exports.lock().unwrap().push(e);
        true
    }

    fn punt(&self, p: Punt) -> bool {
        let mut v = self.punts.lock().unwrap();
        let fits = v.len() < self.room;
        if fits {
            v.push(p);
        }
        fits
    }
}

pub struct Rig {
    pub dp: Arc<SoftDatapath>,
    pub core: Core,
    pub handler: Arc<Handler>,
    pub sink: Arc<Sink>,
    pub pool: BufferPool,
    pub ends: BTreeMap<u32, (MemoryRx, MemoryTx)>,
    pub now: Instant,
    wakeups: bool,
}

impl Rig {
    /// Ports 1 to `ports`.
    pub fn new(ports: u32) -> Self {
        Self::with(ports, |_| ())
    }

    pub fn with(ports: u32, change: impl FnOnce(&mut DatapathConfig)) -> Self {
        Self::make(ports, false, None, change)
    }

    /// With another miss handler than [`Handler`], which then hears nothing.
    pub fn with_handler(
        ports: u32,
        miss: Arc<dyn MissHandler>,
        change: impl FnOnce(&mut DatapathConfig),
    ) -> Self {
        Self::make(ports, false, Some(miss), change)
    }

    pub fn with_wakeups(ports: u32, change: impl FnOnce(&mut DatapathConfig)) -> Self {
        Self::make(ports, true, None, change)
    }

    fn make(
        ports: u32,
        wakeups: bool,
        miss: Option<Arc<dyn MissHandler>>,
        change: impl FnOnce(&mut DatapathConfig),
    ) -> Self {
        let mut config = DatapathConfig { seed: Some(42), ..DatapathConfig::default() };
        change(&mut config);
        let handler = Arc::new(Handler::new());
        let sink = Arc::new(Sink { punts: Mutex::default(), exports: Mutex::default(), room: 1000 });
        let clock = Arc::new(ManualClock::new());
        let dp =
            SoftDatapath::new(config, clock, miss.unwrap_or_else(|| handler.clone()), sink.clone()).unwrap();
        let core = dp.take_core(0).unwrap();
        let pool = BufferPool::new(2048).unwrap();
        let now = Instant::from_nanos(1_000_000_000);
        let mut rig = Rig { dp, core, handler, sink, pool, ends: BTreeMap::new(), now, wakeups };
        for p in 1..=ports {
            rig.add_port(p);
        }
        rig
    }

    pub fn add_port(&mut self, p: u32) {
        self.add_port_with(p, usize::MAX);
    }

    fn add_port_with(&mut self, p: u32, max_frame_bytes: usize) {
        let config = MemoryConfig { capacity: QUEUE, wakeups: self.wakeups, ..MemoryConfig::default() };
        let (mut ours, mut theirs) = cable(&config).unwrap();
        let (rx, tx) = ours.split().unwrap();
        let config = PortConfig { max_frame_bytes, ..PortConfig::new(PortId(p), format!("p{p}")) };
        self.dp.attach(config, Box::new(rx), Box::new(tx)).unwrap();
        self.ends.insert(p, theirs.split().unwrap());
    }

    /// Attaches port `p` anew, for frames of at most `max` bytes.
    pub fn limit_frame(&mut self, p: u32, max: usize) {
        drop(self.dp.detach(PortId(p)).unwrap());
        self.add_port_with(p, max);
    }

    /// Drops the far end of a port.
    pub fn cut_cable(&mut self, p: u32) {
        self.ends.remove(&p);
    }

    /// Leaves room for `left` punts.
    pub fn fill_sink(&mut self, left: usize) {
        let p = Punt {
            packet: vec![],
            key: flow::PacketKey::ZERO,
            action: flow::ControllerAction { max_len: 0, ..flow::ControllerAction::default() },
        };
        *self.sink.punts.lock().unwrap() = vec![p; self.sink.room - left];
    }

    pub fn advance(&mut self, d: Duration) {
        self.now = self.now + d;
    }

    pub fn send(&mut self, port: u32, frame: &[u8]) {
        let p = self.pool.copy_from(frame).expect("no buffer");
        self.send_buf(port, p);
    }

    pub fn send_buf(&mut self, port: u32, p: PacketBuf) {
        self.ends.get_mut(&port).unwrap().1.send(p).expect("queue full");
    }

    pub fn poll(&mut self) -> usize {
        self.core.poll_once(self.now)
    }

    /// What has come out of a port since the last call.
    pub fn received(&mut self, port: u32) -> Vec<Vec<u8>> {
        let mut v = Vec::new();
        while let Some(p) = self.ends.get_mut(&port).unwrap().0.receive() {
            v.push(p.to_vec());
        }
        v
    }

    pub fn flows(&self) -> Vec<Arc<FlowRecord>> {
        let mut v = Vec::new();
        self.dp.flow_dump(&mut |r| {
            v.push(r.clone());
            true
        });
        v
    }

    /// A record for every packet from a port.
    pub fn record(&self, id: u64, port: u32, actions: Vec<Action>) -> Arc<FlowRecord> {
        let mut matches = PacketMatch::ANY;
        matches.set(FieldId::DpPort, u128::from(port));
        matches.set(FieldId::RecircId, 0);
        Arc::new(FlowRecord {
            id: FlowId(id),
            matches: matches.into(),
            actions: actions.into(),
            counters: Arc::new(FlowCounters::default()),
            owner: Arc::new(()),
            created: self.now,
        })
    }
}

pub fn output(port: u32) -> Vec<Action> {
    vec![Action::Output(PortId(port))]
}

/// Drop counters that are not zero.
pub fn drops(rig: &Rig) -> Vec<(DropReason, u64)> {
    let s = rig.dp.stats();
    DropReason::ALL.into_iter().zip(s.drops).filter(|(_, n)| *n > 0).collect()
}
