//! A whole switch in one thread: OpenFlow layer, software path, and, if wanted, a simulated NIC with its driver and
//! placement. Time stands still unless the rig moves it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clock::{Clock, Instant, ManualClock};
use conntrack::Tracker;
use datapath::{Core, DatapathConfig, PortConfig, SoftDatapath};
use datapath_api::{ConnectionEnds, ConnectionLoans, Datapath, FlowRecord, LoanTerms, MeterCounts};
use device::{BufferPool, PacketIo, QueueId};
use flow::{FlowId, MeterId, PortId};
use ixgbe::{IxgbeConfig, IxgbeDriver};
use ixgbe_model::{Ixgbe, Outside};
use model_bus::Model;
use netio::memory::{MemoryConfig, MemoryRx, MemoryTx, queue};
use nic::{SimHandle, SimNic};
use offload::placement::EventKind;
use offload::{
    ObjectId, ObjectKind, ObjectSpec, ObjectStats, OffloadProvider, Owner, PlacementConfig, PlacementEngine,
    Status,
};
use ofproto::{
    Bridge, BridgeConfig, HardwareCredit, HardwareStats, Lender, LoanCounts, RecordSink, Switch,
    SwitchConfig, offload_rule,
};
use openflow::message::{FlowRemoved, PacketIn};
use openflow::meter::MeterMod;
use openflow::port::PortStatus;
use openflow::switch::ControllerSink;
use openflow::{FlowMod, MeterNo};
use parking_lot::Mutex;
use simnic::{SimnicConfig, SimnicDriver};

use crate::generate::PORTS;
use crate::setup::Setup;

/// Cycles after which a device that has not come to rest is taken to be stuck.
const IDLE_CYCLES: u64 = 50_000_000;

/// What came out for one frame or for several.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Outcome {
    /// Port and frame, sorted: the order between ports, and between hardware and software, is not defined.
    pub out: Vec<(u32, Vec<u8>)>,
    /// Packets for controllers: ingress port, table, reason, bytes; sorted.
    pub punts: Vec<(u32, u8, u8, Vec<u8>)>,
}

impl Outcome {
    /// Sorts, so that outcomes compare.
    pub fn sorted(mut self) -> Self {
        self.out.sort();
        self.punts.sort();
        self
    }
}

/// Packets and bytes by table and priority.
pub type Counts = BTreeMap<(u8, u16), (u64, u64)>;

/// Collects packet-ins.
#[derive(Default)]
struct Controllers(Mutex<Vec<PacketIn>>);

impl ControllerSink for Controllers {
    fn packet_in(&self, msg: PacketIn) {
        self.0.lock().push(msg);
    }
    fn port_status(&self, _: PortStatus) {}
    fn flow_removed(&self, _: FlowRemoved) {}
}

/// Placement as the OpenFlow layer sees it.
struct Placer {
    engine: Mutex<PlacementEngine>,
    clock: Arc<ManualClock>,
    forwarded: AtomicU64,
    /// Connections in the device.
    lender: Mutex<Lender>,
    /// What meters had counted when they came back.
    returned: Mutex<BTreeMap<u32, ObjectStats>>,
}

impl Placer {
    /// One round of placement; software's meters are charged with what the device let through.
    fn tick(&self, engine: &mut PlacementEngine, datapath: &SoftDatapath, now: Instant) {
        engine.tick(now);
        self.lender.lock().tick(engine, &WholeMillis(datapath), now);
        engine.drain_passed(|id, packets, bytes| {
            // One that has gone has nothing to be charged with.
            let _ = datapath.meter_charge(MeterId(id.number), MeterCounts { packets, bytes }, now);
        });
    }

    fn take_returned(&self, engine: &mut PlacementEngine) {
        for e in engine.drain_events() {
            if let EventKind::ObjectReturned(id, all) = e.kind {
                let mut returned = self.returned.lock();
                let r = returned.entry(id.number).or_default();
                *r = r.plus(all);
            }
        }
    }
}

/// The datapath's connections. The rig's time goes in whole milliseconds, the device's does not: what it says of when it forwarded something
/// is taken for the end of the millisecond.
struct WholeMillis<'a>(&'a SoftDatapath);

impl ConnectionLoans for WholeMillis<'_> {
    fn set_lending(&self, on: bool) {
        self.0.set_lending(on);
    }
    fn offer_again(&self) {
        self.0.offer_again();
    }
    fn take_offers(&self, most: usize) -> Vec<ConnectionEnds> {
        self.0.take_offers(most)
    }
    fn take_changed(&self) -> (Vec<ConnectionEnds>, bool) {
        self.0.take_changed()
    }
    fn lend(&self, c: &ConnectionEnds, now: Instant) -> Option<Result<LoanTerms, &'static str>> {
        self.0.lend(c, now)
    }
    fn used(&self, c: &ConnectionEnds, at: Instant) {
        self.0.used(c, Instant::from_nanos(at.as_nanos().next_multiple_of(1_000_000)));
    }
    fn take_back(&self, c: &ConnectionEnds, again: bool) {
        self.0.take_back(c, again);
    }
    fn stayed(&self) -> Vec<(&'static str, u64)> {
        self.0.stayed()
    }
}

fn meter_object(id: MeterId) -> ObjectId {
    ObjectId { kind: ObjectKind::Meter, number: id.0 }
}

impl RecordSink for Placer {
    fn installed(&self, r: &Arc<FlowRecord>) {
        let counters = r.counters.clone();
        let soft = Arc::new(move || counters.read().packets);
        // A record that cannot be followed stays in software.
        let _ = self.engine.lock().offer(offload_rule(r), soft, self.clock.now());
    }
    fn replaced(&self, old: &Arc<FlowRecord>, new: &Arc<FlowRecord>) {
        let counters = new.counters.clone();
        let soft = Arc::new(move || counters.read().packets);
        self.engine.lock().replace(old.id, offload_rule(new), soft, self.clock.now());
    }
    fn removed(&self, r: &Arc<FlowRecord>) {
        self.engine.lock().withdraw(r.id, self.clock.now());
    }
    fn meter(&self, id: MeterId, lendable: Option<ObjectSpec>) {
        let now = self.clock.now();
        match lendable {
            Some(spec) => self.engine.lock().offer_object(meter_object(id), spec, now),
            None => self.engine.lock().withdraw_object(meter_object(id), now),
        }
    }
    fn meter_removed(&self, id: MeterId) {
        self.engine.lock().forget_object(meter_object(id), self.clock.now());
        self.returned.lock().remove(&id.0);
    }
}

impl HardwareStats for Placer {
    fn drain(&self, each: &mut dyn FnMut(FlowId, HardwareCredit)) {
        let mut all = Vec::new();
        self.engine
            .lock()
            .drain_stats(|id, packets, bytes, used| all.push((id, HardwareCredit { packets, bytes, used })));
        for (id, c) in all {
            self.forwarded.fetch_add(c.packets, Ordering::Relaxed);
            each(id, c);
        }
    }
    fn holds(&self, id: FlowId) -> bool {
        let e = self.engine.lock();
        e.status(id).is_some() || !e.settled(id)
    }
    fn settled(&self) -> bool {
        self.engine.lock().pending() == 0
    }
    fn meter(&self, id: MeterId) -> ObjectStats {
        let mut engine = self.engine.lock();
        self.take_returned(&mut engine);
        let before = self.returned.lock().get(&id.0).copied().unwrap_or_default();
        engine.object_stats(meter_object(id)).map_or(before, |there| before.plus(there))
    }
}

/// What is at the other end of the switch's ports.
enum Wires {
    Memory {
        pool: BufferPool,
        ends: Vec<(MemoryTx, MemoryRx)>,
    },
    Nic {
        device: SimHandle,
        placer: Arc<Placer>,
        /// The switch's time and the device's when it began.
        began: (Instant, Instant),
    },
    /// One NIC for each port.
    Ixgbe {
        nics: Vec<Model<Ixgbe>>,
        placer: Arc<Placer>,
    },
}

impl Wires {
    fn placer(&self) -> Option<&Arc<Placer>> {
        match self {
            Wires::Memory { .. } => None,
            Wires::Nic { placer, .. } | Wires::Ixgbe { placer, .. } => Some(placer),
        }
    }
}

/// Placement on these devices, told of the switch's records.
fn place(switch: &Switch, clock: &Arc<ManualClock>, providers: Vec<Box<dyn OffloadProvider>>) -> Arc<Placer> {
    let engine = Mutex::new(PlacementEngine::new(PlacementConfig::default(), providers));
    let placer = Arc::new(Placer {
        engine,
        clock: clock.clone(),
        forwarded: AtomicU64::new(0),
        lender: Mutex::default(),
        returned: Mutex::default(),
    });
    switch.set_record_sink(placer.clone());
    switch.set_hardware(placer.clone());
    placer
}

/// A switch to be compared.
pub struct Rig {
    clock: Arc<ManualClock>,
    datapath: Arc<SoftDatapath>,
    switch: Arc<Switch>,
    bridge: Arc<Bridge>,
    controllers: Arc<Controllers>,
    core: Core,
    wires: Wires,
}

fn dp(port: u32) -> PortId {
    PortId(port)
}

impl Rig {
    fn new(
        seed: u64,
        setup: &Setup,
        attach: impl FnOnce(&SoftDatapath, &Arc<Switch>, &Arc<ManualClock>) -> Result<Wires>,
    ) -> Result<Rig> {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1));
        let switch = Switch::new(clock.clone(), SwitchConfig::default());
        let controllers = Arc::new(Controllers::default());
        // Every other seed has packets take shortcuts from the first mask on.
        let shortcuts_beyond_masks =
            if seed % 2 == 1 { 0 } else { DatapathConfig::default().shortcuts_beyond_masks };
        // Every other two have no exact-match cache.
        let exact_slots = if seed % 4 >= 2 { 0 } else { DatapathConfig::default().exact_slots };
        let config = DatapathConfig {
            seed: Some(seed),
            shortcuts_beyond_masks,
            exact_slots,
            ..DatapathConfig::default()
        };
        let datapath = SoftDatapath::new(config, clock.clone(), switch.clone(), switch.clone())?;
        switch.set_datapath(datapath.clone() as Arc<dyn Datapath>);
        let bridge = switch.add_bridge(BridgeConfig::new("br0", 1));
        bridge.set_controllers(controllers.clone());
        let wires = attach(&datapath, &switch, &clock)?;
        setup.build(&switch, &bridge);
        let core = datapath.take_core(0)?;
        Ok(Rig { clock, datapath, switch, bridge, controllers, core, wires })
    }

    /// The software path alone, its ports ending in memory.
    ///
    /// # Errors
    /// When the system has no memory or descriptors left.
    pub fn software(seed: u64, setup: &Setup) -> Result<Rig> {
        Rig::new(seed, setup, |datapath, _, _| {
            let pool = BufferPool::new(1024)?;
            let mut ends = Vec::new();
            for p in 1..=PORTS {
                let config = MemoryConfig { capacity: 512, ..MemoryConfig::default() };
                let (to_switch, rx) = queue(&config)?;
                let (tx, from_switch) = queue(&config)?;
                datapath.attach(PortConfig::new(dp(p), format!("p{p}")), Box::new(rx), Box::new(tx))?;
                ends.push((to_switch, from_switch));
            }
            Ok(Wires::Memory { pool, ends })
        })
    }

    /// The software path with a simulated NIC under it, in lockstep.
    ///
    /// # Errors
    /// When the device cannot be brought up.
    pub fn with_nic(seed: u64, setup: &Setup, config: nic::Config) -> Result<Rig> {
        Rig::new(seed, setup, |datapath, switch, clock| {
            let device = SimNic::new(config, seed)?;
            let ports = (1..=PORTS).map(|p| (dp(p), (p - 1) as u8)).collect();
            let driver = SimnicConfig {
                poll_wait: Duration::from_micros(20),
                connections: true,
                ..SimnicConfig::new(ports)
            };
            let pool = BufferPool::new(4096)?;
            let simnic = SimnicDriver::bring_up(device.backing(), pool, driver, clock.clone())?;
            for (i, mut port) in simnic.ports.into_iter().take(PORTS as usize).enumerate() {
                let p = i as u32 + 1;
                let (rx, tx) = port.take_queues(QueueId(0))?;
                datapath.attach(PortConfig::new(dp(p), format!("p{p}")), rx, tx)?;
            }
            let placer = place(switch, clock, vec![Box::new(simnic.provider)]);
            let began = (clock.now(), device.now());
            Ok(Wires::Nic { device, placer, began })
        })
    }

    /// The software path with an Intel 82599 at each port, at register level.
    ///
    /// # Errors
    /// When a device cannot be brought up.
    pub fn with_ixgbe(seed: u64, setup: &Setup) -> Result<Rig> {
        Rig::new(seed, setup, |datapath, switch, clock| {
            let pool = BufferPool::new(4096)?;
            let (mut nics, mut providers) = (Vec::new(), Vec::<Box<dyn OffloadProvider>>::new());
            for p in 1..=PORTS {
                let model = Model::of(Ixgbe::new());
                let config = IxgbeConfig { port: Some(dp(p)), ..IxgbeConfig::new() };
                let mut nic = IxgbeDriver::bring_up(model.backing(), pool.clone(), config)?;
                let (rx, tx) = nic.port.take_queues(QueueId(0))?;
                datapath.attach(PortConfig::new(dp(p), format!("p{p}")), rx, tx)?;
                providers.push(Box::new(nic.provider));
                nics.push(model);
            }
            let placer = place(switch, clock, providers);
            Ok(Wires::Ixgbe { nics, placer })
        })
    }

    /// Frames that NICs of [`Rig::with_ixgbe`] have received and not given to software, and what they find wrong with their driver.
    pub fn filtered(&self) -> (u64, u64) {
        let Wires::Ixgbe { nics, .. } = &self.wires else { return (0, 0) };
        let of = |m: &Model<Ixgbe>| {
            let inner = m.lock();
            (
                u64::from(inner.0.peek(ixgbe_defs::regs::FDIRMATCH)),
                inner.0.fault_count() + inner.1.dma_faults as u64,
            )
        };
        nics.iter().map(of).fold((0, 0), |(a, b), (c, d)| (a + c, b + d))
    }

    /// The connections that its datapath tracks.
    pub fn tracker(&self) -> &Arc<Tracker> {
        self.datapath.connections()
    }

    /// The time.
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Makes it `now`, which is not before.
    pub fn advance_to(&mut self, now: Instant) {
        self.clock.advance(now.since(self.clock.now()));
        self.catch_up(now);
    }

    /// Brings the datapath's connections up to date with what the device forwarded of them.
    pub fn follow_connections(&mut self) {
        if let Some(placer) = self.wires.placer() {
            let loans = WholeMillis(&self.datapath);
            placer.lender.lock().look_at_all(&mut placer.engine.lock(), &loans, self.clock.now());
        }
    }

    /// Connections in the device, and what became of them.
    pub fn loans(&self) -> LoanCounts {
        let loans = WholeMillis(&self.datapath);
        self.wires.placer().map_or_else(LoanCounts::default, |p| p.lender.lock().counts(&loans))
    }

    /// Lets the device have the time that the switch has.
    fn catch_up(&self, now: Instant) {
        if let Wires::Nic { device, began, .. } = &self.wires {
            // What the driver waited for the device has passed already.
            let behind = now.since(began.0).saturating_sub(device.now().since(began.1));
            let hz = u128::from(device.config().device.clock_hz);
            device.step((behind.as_nanos() * hz / 1_000_000_000) as u64);
        }
    }

    /// Applies flow-mods, all or none; `Err` is the OpenFlow error. Records follow at the next [`Rig::settle`].
    ///
    /// # Errors
    /// What a controller would be told.
    pub fn apply(&mut self, mods: &[FlowMod]) -> Result<(), openflow::ErrorCode> {
        self.bridge.apply(mods, self.clock.now()).map_err(|(_, e)| e)
    }

    /// Sends a frame into port `port` (1 to [`PORTS`]).
    ///
    /// # Errors
    /// When the wire does not take it.
    pub fn send(&mut self, port: u32, frame: &[u8]) -> Result<()> {
        let i = port as usize - 1;
        match &mut self.wires {
            Wires::Memory { pool, ends } => {
                let b = pool.copy_from(frame).context("the pool is empty")?;
                if ends[i].0.send(b).is_err() {
                    bail!("port {port} does not take the frame");
                }
            }
            Wires::Nic { device, .. } => {
                if !device.inject(i as u8, frame) {
                    bail!("the NIC's wire {port} does not take the frame");
                }
            }
            Wires::Ixgbe { nics, .. } => nics[i].inject(frame),
        }
        Ok(())
    }

    /// Lets packets move until none does.
    pub fn pump(&mut self) {
        loop {
            let mut moved = self.core.poll_once(self.clock.now());
            if let Wires::Nic { device, .. } = &self.wires {
                device.run_until_idle(IDLE_CYCLES);
                moved += self.core.poll_once(self.clock.now());
            }
            if moved == 0 {
                return;
            }
        }
    }

    /// Lets packets move a little: one poll of the core, `cycles` of the device.
    pub fn nudge(&mut self, cycles: u64) {
        self.core.poll_once(self.clock.now());
        if let Wires::Nic { device, .. } = &self.wires {
            device.step(cycles);
        }
    }

    /// Lets the control thread work a little: revalidation, or one tick of placement.
    pub fn control(&mut self, revalidate: bool) {
        let now = self.clock.advance(Duration::from_micros(10));
        if revalidate {
            self.switch.revalidate(now);
        }
        if let Some(placer) = self.wires.placer() {
            placer.tick(&mut placer.engine.lock(), &self.datapath, now);
        }
    }

    /// Lets time pass, of the switch and of the device alike, and packets with it.
    pub fn pass(&mut self, time: Duration) {
        let now = self.clock.advance(time);
        self.catch_up(now);
        self.core.poll_once(now);
    }

    /// What has come out since the last call.
    pub fn collect(&mut self) -> Outcome {
        let mut o = Outcome::default();
        match &mut self.wires {
            Wires::Memory { ends, .. } => {
                for (i, (_, rx)) in ends.iter_mut().enumerate() {
                    while let Some(p) = rx.receive() {
                        o.out.push((i as u32 + 1, p.to_vec()));
                    }
                }
            }
            Wires::Nic { device, .. } => {
                for i in 0..PORTS as u8 {
                    o.out.extend(device.collect(i).into_iter().map(|f| (u32::from(i) + 1, f)));
                }
            }
            Wires::Ixgbe { nics, .. } => {
                for (p, nic) in (1..).zip(nics) {
                    o.out.extend(nic.collect().into_iter().map(|(_, f)| (p, f)));
                }
            }
        }
        for p in self.controllers.0.lock().drain(..) {
            let in_port = p.matches.get(flow::FieldId::InPort).0 as u32;
            o.punts.push((in_port, p.table.0, p.reason as u8, p.data));
        }
        o.sorted()
    }

    /// Brings records and hardware into agreement with the tables, and counters to the rules.
    ///
    /// # Errors
    /// When they do not come to rest.
    pub fn settle(&mut self) -> Result<()> {
        let mut quiet = 0;
        for _ in 0..2000 {
            let now = self.clock.advance(Duration::from_millis(5));
            self.switch.run(now);
            self.switch.revalidate(now);
            self.core.poll_once(now);
            let Some(placer) = self.wires.placer() else { return Ok(()) };
            let mut engine = placer.engine.lock();
            placer.tick(&mut engine, &self.datapath, now);
            if let Wires::Nic { device, .. } = &self.wires {
                device.run_until_idle(IDLE_CYCLES);
            }
            quiet = if engine.is_quiet() { quiet + 1 } else { 0 };
            drop(engine);
            if quiet == 3 {
                // Rest, and a poll of all counters after it.
                let now = self.clock.advance(PlacementConfig::default().stats_interval);
                placer.tick(&mut placer.engine.lock(), &self.datapath, now);
                self.switch.revalidate(now);
                return Ok(());
            }
        }
        Err(anyhow!("placement does not come to rest"))
    }

    /// Counters of every rule, as a statistics request would give them.
    pub fn counts(&self) -> Counts {
        let pipeline = self.bridge.pipeline();
        let rules =
            pipeline.tables().flat_map(|(id, t)| t.rules.iter().map(move |(_, f)| (id, f.rule.clone())));
        rules.map(|(id, r)| ((id, r.priority), (r.packets(), r.bytes()))).collect()
    }

    /// Records in hardware, and all records.
    pub fn placed(&self) -> (usize, usize) {
        let records = self.switch.records();
        let Some(placer) = self.wires.placer() else { return (0, records.len()) };
        let engine = placer.engine.lock();
        let hw =
            records.iter().filter(|r| matches!(engine.status(r.id), Some(Status::Hardware { .. }))).count();
        (hw, records.len())
    }

    /// Applies a meter-mod.
    ///
    /// # Errors
    /// What a controller would be told.
    pub fn apply_meter(&mut self, mm: &MeterMod) -> Result<(), openflow::ErrorCode> {
        self.bridge.apply_meter(mm, self.clock.now())
    }

    /// What a controller is told of a meter's counters: of the meter, and of its first band.
    pub fn meter(&self, no: MeterNo) -> ((u64, u64), (u64, u64)) {
        let stats = self.bridge.meter_stats(no).unwrap_or_default();
        let Some(m) = stats.first() else { return Default::default() };
        let band = m.bands.first().map_or((0, 0), |b| (b.packets, b.bytes));
        ((m.packets_in, m.bytes_in), band)
    }

    /// Whether the datapath's meter of that number is in the device.
    pub fn is_lent(&self, id: MeterId) -> bool {
        let owner = |p: &Arc<Placer>| p.engine.lock().owners().owner(meter_object(id));
        self.wires.placer().is_some_and(|p| owner(p) != Owner::Software)
    }

    /// Packets that hardware has forwarded by itself.
    pub fn forwarded_by_device(&self) -> u64 {
        self.wires.placer().map_or(0, |p| p.forwarded.load(Ordering::Relaxed))
    }

    /// The record that a frame meets, and where it is; for messages.
    pub fn explain(&self, port: u32, frame: &[u8]) -> String {
        let Ok(parsed) = flow::parse(frame, dp(port)) else { return "not parsed\n".into() };
        let mut s = String::new();
        for r in self.switch.records().iter().filter(|r| r.matches.matches(&parsed.key)) {
            s += &format!("{:?} {:?} -> {:?}\n", r.id, r.matches, r.actions);
            if let Some(o) = ofproto::FlowOwner::of(r) {
                s += &format!("    problem {:?}\n", o.basis().problem);
            }
            if let Some(placer) = self.wires.placer() {
                s += &format!("    {:?}\n", placer.engine.lock().status(r.id));
            }
        }
        s
    }
}
