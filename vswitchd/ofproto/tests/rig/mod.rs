//! A switch over a datapath that is a list of records, with everything it tells its surroundings kept.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clock::{Clock, Deadline, Instant, ManualClock};
use datapath_api::{
    BondConfig, BucketCounts, Datapath, DatapathError, DatapathStats, FlowRecord, MeterConfig, MeterCounts,
    MeterLimits, MeterStats, Miss, MissHandler, PortStats, Punt, PuntSink, Translation,
};
use flow::frame::FrameBuilder;
use flow::{Action, BondId, FieldId, FlowId, MeterId, PacketKey, PacketMatch, PipelineMatch, PortId};
use ofproto::{Bridge, BridgeConfig, HardwareCredit, HardwareStats, Port, RecordSink, Switch, SwitchConfig};
use openflow::flow_mod::FlowModCommand;
use openflow::message::{FlowRemoved, PacketIn};
use openflow::multipart::{FlowStats, FlowStatsRequest};
use openflow::number::MacAddr;
use openflow::port::PortStatus;
use openflow::switch::{ConnId, ControllerSink, OpenFlowSwitch, Reply};
use openflow::{
    Action as OfAction, Body, ErrorCode, FlowMod, Instructions, Message, MultipartReply, MultipartRequest,
    PortNo, TableId,
};

/// A packet, where it came from, what is done.
pub type Executed = (Vec<u8>, PortId, Vec<Action>);

/// Records in a list; packets are executed by telling what would be done.
#[derive(Default)]
pub struct ListDatapath {
    pub flows: Mutex<BTreeMap<FlowId, Arc<FlowRecord>>>,
    pub executed: Mutex<Vec<Executed>>,
    /// What a core is about to install; it does when waited for.
    pub late: Mutex<Option<Arc<FlowRecord>>>,
    /// A core does not finish its burst.
    pub stuck: AtomicBool,
    pub meters: Mutex<BTreeMap<MeterId, MeterConfig>>,
    pub bonds: Mutex<BTreeMap<BondId, (BondConfig, Vec<BucketCounts>)>>,
}

impl Datapath for ListDatapath {
    fn ports(&self) -> Vec<PortId> {
        Vec::new()
    }
    fn port_stats(&self, p: PortId) -> Result<PortStats, DatapathError> {
        if p.0 < 100 {
            Ok(PortStats { rx_packets: u64::from(p.0), ..PortStats::default() })
        } else {
            Err(DatapathError::NoSuchPort(p))
        }
    }
    fn flow_put(&self, r: Arc<FlowRecord>) -> Result<(), DatapathError> {
        let mut f = self.flows.lock().unwrap();
        f.retain(|_, o| o.matches != r.matches);
        f.insert(r.id, r);
        Ok(())
    }
    fn flow_del(&self, id: FlowId) -> Result<Arc<FlowRecord>, DatapathError> {
        self.flows.lock().unwrap().remove(&id).ok_or(DatapathError::NoSuchFlow(id))
    }
    fn flow_flush(&self) {
        self.flows.lock().unwrap().clear();
    }
    fn flow_dump(&self, f: &mut dyn FnMut(&Arc<FlowRecord>) -> bool) {
        let all: Vec<_> = self.flows.lock().unwrap().values().cloned().collect();
        let _ = all.iter().all(f);
    }
    fn synchronize(&self, _: Deadline) -> bool {
        if self.stuck.load(Ordering::Relaxed) {
            return false;
        }
        if let Some(r) = self.late.lock().unwrap().take() {
            self.flow_put(r).unwrap();
        }
        true
    }
    fn execute(&self, p: &[u8], in_port: PortId, a: Arc<[Action]>) -> Result<(), DatapathError> {
        self.executed.lock().unwrap().push((p.to_vec(), in_port, a.to_vec()));
        Ok(())
    }
    fn meter_limits(&self) -> Option<MeterLimits> {
        Some(MeterLimits { max_meters: 4, max_bands: 2 })
    }
    fn meter_put(&self, id: MeterId, config: MeterConfig) -> Result<(), DatapathError> {
        self.meters.lock().unwrap().insert(id, config);
        Ok(())
    }
    fn meter_del(&self, id: MeterId) -> Result<(), DatapathError> {
        self.meters.lock().unwrap().remove(&id).map(|_| ()).ok_or(DatapathError::NoSuchMeter(id))
    }
    fn meter_stats(&self, id: MeterId) -> Result<MeterStats, DatapathError> {
        let meters = self.meters.lock().unwrap();
        let config = meters.get(&id).ok_or(DatapathError::NoSuchMeter(id))?;
        let count = |n| MeterCounts { packets: n, bytes: 60 * n };
        let bands = (0..config.bands.len() as u64).map(|i| count(1 + i)).collect();
        Ok(MeterStats { input: count(9), bands })
    }
    fn bond_put(&self, id: BondId, config: BondConfig) -> Result<(), DatapathError> {
        let mut bonds = self.bonds.lock().unwrap();
        let counts = bonds.remove(&id).map_or_else(|| vec![BucketCounts::default(); 256], |(_, c)| c);
        bonds.insert(id, (config, counts));
        Ok(())
    }
    fn bond_del(&self, id: BondId) -> Result<(), DatapathError> {
        self.bonds.lock().unwrap().remove(&id).map(|_| ()).ok_or(DatapathError::NoSuchBond(id))
    }
    fn bond_stats(&self, id: BondId) -> Result<Vec<BucketCounts>, DatapathError> {
        let bonds = self.bonds.lock().unwrap();
        bonds.get(&id).map(|(_, c)| c.clone()).ok_or(DatapathError::NoSuchBond(id))
    }
    fn stats(&self) -> DatapathStats {
        DatapathStats::default()
    }
}

/// Keeps what it is told.
#[derive(Default)]
pub struct Told {
    pub packet_ins: Mutex<Vec<PacketIn>>,
    pub ports: Mutex<Vec<PortStatus>>,
    pub removed: Mutex<Vec<FlowRemoved>>,
    /// `+id`, `=id`, `-id` for records that came, changed, went.
    pub records: Mutex<Vec<String>>,
    pub hardware: Mutex<Vec<(FlowId, HardwareCredit)>>,
    /// As `hardware`, but not read yet.
    pub unread: Mutex<Vec<(FlowId, HardwareCredit)>>,
    pub unsettled: Mutex<bool>,
}

impl ControllerSink for Told {
    fn packet_in(&self, m: PacketIn) {
        self.packet_ins.lock().unwrap().push(m);
    }
    fn port_status(&self, m: PortStatus) {
        self.ports.lock().unwrap().push(m);
    }
    fn flow_removed(&self, m: FlowRemoved) {
        self.removed.lock().unwrap().push(m);
    }
}

impl RecordSink for Told {
    fn installed(&self, r: &Arc<FlowRecord>) {
        self.records.lock().unwrap().push(format!("+{}", r.id.0));
    }
    fn replaced(&self, _old: &Arc<FlowRecord>, new: &Arc<FlowRecord>) {
        self.records.lock().unwrap().push(format!("={}", new.id.0));
    }
    fn removed(&self, r: &Arc<FlowRecord>) {
        self.records.lock().unwrap().push(format!("-{}", r.id.0));
    }
}

impl HardwareStats for Told {
    fn drain(&self, each: &mut dyn FnMut(FlowId, HardwareCredit)) {
        for (id, c) in self.hardware.lock().unwrap().drain(..) {
            each(id, c);
        }
    }
    fn refresh(&self) {
        self.hardware.lock().unwrap().append(&mut self.unread.lock().unwrap());
    }
    fn holds(&self, _id: FlowId) -> bool {
        false
    }
    fn settled(&self) -> bool {
        !*self.unsettled.lock().unwrap()
    }
}

pub struct Rig {
    pub clock: Arc<ManualClock>,
    pub switch: Arc<Switch>,
    pub bridge: Arc<Bridge>,
    pub dp: Arc<ListDatapath>,
    pub told: Arc<Told>,
}

pub const CONN: ConnId = ConnId(1);

impl Rig {
    /// OpenFlow ports 1 to 4 on datapath ports 11 to 14.
    pub fn new() -> Rig {
        Self::with(SwitchConfig::default(), BridgeConfig::new("br0", 0x1234))
    }

    pub fn with(sc: SwitchConfig, bc: BridgeConfig) -> Rig {
        let clock = Arc::new(ManualClock::new());
        clock.advance(Duration::from_secs(1));
        let switch = Switch::new(clock.clone(), sc);
        let (dp, told) = (Arc::new(ListDatapath::default()), Arc::new(Told::default()));
        switch.set_datapath(dp.clone());
        switch.set_record_sink(told.clone());
        switch.set_hardware(told.clone());
        let bridge = switch.add_bridge(bc);
        bridge.set_controllers(told.clone());
        for n in 1..=4 {
            let mac = MacAddr([2, 0, 0, 0, 0, n as u8]);
            bridge.put_port(Port::new(PortNo(n), PortId(10 + n), &format!("p{n}"), mac));
        }
        told.ports.lock().unwrap().clear();
        Rig { clock, switch, bridge, dp, told }
    }

    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    pub fn request(&self, body: Body) -> Result<Vec<Body>, ErrorCode> {
        match self.bridge.handle(CONN, Message { xid: 1, body })? {
            Reply::None => Ok(Vec::new()),
            Reply::One(b) => Ok(vec![b]),
            Reply::Many(v) => Ok(v),
            Reply::Stream(mut s) => {
                let mut out = Vec::new();
                let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                while let std::task::Poll::Ready(Some(b)) = s.poll_next(&mut cx) {
                    out.push(b);
                }
                Ok(out)
            }
        }
    }

    pub fn flow_mod(&self, fm: FlowMod) -> Result<(), ErrorCode> {
        self.request(Body::FlowMod(Box::new(fm))).map(|r| assert!(r.is_empty()))
    }

    pub fn add(&self, table: u8, priority: u16, m: PipelineMatch, ins: Instructions) {
        self.flow_mod(add(table, priority, m, ins)).unwrap();
    }

    /// One packet through the datapath: what is done with it.
    pub fn packet(&self, frame: &[u8], port: u32) -> Vec<Action> {
        self.packet_by(frame, port).actions.to_vec()
    }

    /// As [`Rig::packet`], giving the record.
    pub fn packet_by(&self, frame: &[u8], port: u32) -> Arc<FlowRecord> {
        let key = flow::parse(frame, PortId(10u32.wrapping_add(port))).unwrap().key;
        let hit = self.dp.flows.lock().unwrap().values().find(|r| r.matches.matches(&key)).cloned();
        if let Some(r) = hit {
            r.counters.add(1, frame.len() as u64, 0, self.now());
            return r;
        }
        let mut out = Vec::new();
        let miss = Miss { key, len_bytes: frame.len() as u32, tcp_flags: 0 };
        self.switch.translate(&[miss], self.now(), &mut out);
        let t = out.pop().unwrap();
        for a in t.actions() {
            if let Action::Controller(c) = a {
                self.switch.punt(Punt { packet: frame.to_vec(), key, action: *c });
            }
        }
        match t {
            Translation::Keep(record) => {
                assert!(record.matches.matches(&key));
                record.counters.add(1, frame.len() as u64, 0, self.now());
                self.dp.flow_put(record.clone()).unwrap();
                record
            }
            Translation::Once(actions) => Arc::new(FlowRecord {
                id: FlowId(u64::MAX),
                matches: PacketMatch::ANY.into(),
                actions: actions.into(),
                counters: Arc::default(),
                owner: Arc::new(()),
                created: self.now(),
            }),
        }
    }

    pub fn flows(&self, r: FlowStatsRequest) -> Vec<FlowStats> {
        let parts = self
            .request(Body::MultipartRequest { more: false, request: MultipartRequest::Flow(Box::new(r)) })
            .unwrap();
        parts
            .into_iter()
            .flat_map(|p| match p {
                Body::MultipartReply { reply: MultipartReply::Flow(f), .. } => f,
                other => panic!("{other:?}"),
            })
            .collect()
    }

    /// Packets and bytes of the flow with this cookie.
    pub fn counts(&self, cookie: u64) -> (u64, u64) {
        let f = self.flows(FlowStatsRequest { cookie, cookie_mask: u64::MAX, ..FlowStatsRequest::ALL });
        assert_eq!(f.len(), 1, "{f:?}");
        (f[0].packets, f[0].bytes)
    }
}

pub fn add(table: u8, priority: u16, m: PipelineMatch, ins: Instructions) -> FlowMod {
    FlowMod {
        table: TableId(table),
        priority,
        matches: m,
        instructions: ins,
        cookie: u64::from(table) << 16 | u64::from(priority),
        ..FlowMod::new(FlowModCommand::Add)
    }
}

/// What a packet with this key is answered with; kept by the datapath.
pub fn answer(r: &Rig, key: PacketKey) -> Arc<FlowRecord> {
    let mut out = Vec::new();
    let miss = Miss { key, len_bytes: 64, tcp_flags: 0 };
    r.switch.translate(&[miss], r.now(), &mut out);
    let Some(Translation::Keep(record)) = out.pop() else { panic!("nothing to keep") };
    assert!(record.matches.matches(&key));
    r.dp.flows.lock().unwrap().insert(record.id, record.clone());
    record
}

/// The id under which these actions send packets round.
pub fn recirc_id(actions: &[Action]) -> u32 {
    let id = |a: &Action| if let Action::Recirc(id) = a { Some(*id) } else { None };
    actions.iter().find_map(id).unwrap_or_else(|| panic!("{actions:?}"))
}

pub fn output(port: u32) -> OfAction {
    OfAction::Output { port: PortNo(port), max_len: 0 }
}

pub fn to(port: u32) -> Instructions {
    Instructions::apply(vec![output(port)])
}

pub fn set(field: FieldId, value: u128) -> OfAction {
    OfAction::SetField { field, value, mask: field.info().max() }
}

pub fn matching(fields: &[(FieldId, u128)]) -> PipelineMatch {
    let mut m = PipelineMatch::ANY;
    for (f, v) in fields {
        m.set(*f, *v);
    }
    m
}

pub fn udp(src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> FrameBuilder {
    FrameBuilder::new().ipv4(src, dst).udp(sport, dport).payload(b"hoist")
}

pub fn key(frame: &[u8], port: u32) -> PacketKey {
    flow::parse(frame, PortId(10u32.wrapping_add(port))).unwrap().key
}

pub fn out(port: u32) -> Action {
    Action::Output(PortId(10 + port))
}
