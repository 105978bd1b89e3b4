//! A device with its driver, in lockstep, and what tests say of packets and rules.

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Instant};
use device::{BufferPool, PacketBatch, PacketIo, QueueId, RxQueue, TxQueue};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use nic::{Config, SimBacking, SimHandle, SimNic};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult, StatsCursor, TableId};
use simnic::{Simnic, SimnicConfig, SimnicDriver};

pub const CELLS: u32 = 4096;
pub const IDLE_LIMIT: u64 = 10_000_000;

/// The device's time as a clock.
pub struct SimClock(pub SimHandle);

impl Clock for SimClock {
    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// A device with its driver and one queue pair of each port.
pub struct Bench {
    pub sim: SimHandle,
    pub nic: Simnic<SimBacking>,
    pub queues: Vec<(Box<dyn RxQueue>, Box<dyn TxQueue>)>,
    pub pool: BufferPool,
}

/// Datapath port of a device port.
pub fn dp(port: u8) -> PortId {
    PortId(10 + u32::from(port))
}

impl Bench {
    pub fn new(config: Config) -> Self {
        Self::with(config, |_| {})
    }

    /// With another configuration of the driver.
    pub fn with(config: Config, change: impl FnOnce(&mut SimnicConfig)) -> Self {
        let ports = (0..config.device.ports).map(|p| (dp(p), p)).collect();
        let sim = SimNic::new(config, 1).unwrap();
        let pool = BufferPool::new(CELLS).unwrap();
        let clock = Arc::new(SimClock(sim.clone()));
        let ms = Duration::from_millis;
        let mut config = SimnicConfig {
            ring_log2: 6,
            step_timeout: ms(10),
            cmd_timeout: ms(20),
            ..SimnicConfig::new(ports)
        };
        change(&mut config);
        let mut nic = SimnicDriver::bring_up(sim.backing(), pool.clone(), config, clock).unwrap();
        let queues = nic.ports.iter_mut().map(|p| p.take_queues(QueueId(0)).unwrap()).collect();
        Bench { sim, nic, queues, pool }
    }

    pub fn step(&self, d: Duration) {
        let hz = u128::from(self.sim.config().device.clock_hz);
        self.sim.step((d.as_nanos() * hz / 1_000_000_000) as u64);
    }

    pub fn settle(&self) {
        assert!(self.sim.run_until_idle(IDLE_LIMIT), "the device comes to rest");
    }

    pub fn run(&mut self, op: FlowOp) -> OpResult {
        assert_eq!(self.nic.provider.submit(&[op]), 1);
        let mut out = Vec::new();
        for _ in 0..1000 {
            if self.nic.provider.poll(&mut out, 1) == 1 {
                return out.remove(0).result;
            }
            self.step(Duration::from_micros(1));
        }
        panic!("no completion")
    }

    pub fn install(&mut self, r: &FlowRule) -> (HwHandle, TableId) {
        match self.run(FlowOp::Install(OpId(1), r.clone())) {
            OpResult::Installed(h, t) => (h, t),
            r => panic!("{r:?}"),
        }
    }

    pub fn counters(&mut self, h: HwHandle) -> (u64, u64) {
        let b = self.nic.provider.poll_stats(&mut StatsCursor::default(), 10_000).unwrap();
        let (_, _, s) = b.stats.iter().find(|(x, ..)| *x == h).unwrap();
        (s.packets, s.bytes)
    }

    pub fn received(&mut self, port: usize) -> Vec<Vec<u8>> {
        let mut batch = PacketBatch::new();
        let mut out = Vec::new();
        while self.queues[port].0.rx_burst(&mut batch).unwrap() > 0 {
            out.extend(batch.drain_all().map(|p| p.to_vec()));
        }
        out
    }

    /// The device has nothing to say against the driver.
    pub fn assert_clean(&self) {
        assert_eq!(self.sim.fault_count(), 0, "{:?}", self.sim.faults());
        assert!(self.sim.iommu_faults().is_empty());
        assert_eq!(self.nic.provider.violations(), Default::default());
    }
}

pub fn small() -> Config {
    let mut c = Config::default();
    c.exact.log2_entries = 6;
    c.exact.profiles = 4;
    c.ternary.entries = 16;
    c
}

pub fn udp(n: u8) -> Vec<u8> {
    FrameBuilder::new().ipv4([10, 0, 0, n], [10, 0, 1, n]).udp(1000, 53).payload(&[n; 40]).build()
}

/// From device port 0, UDP packets.
pub fn any_udp(n: u8, actions: Vec<Action>) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, dp(0).0.into());
    m.set(FieldId::RecircId, 0);
    m.set(FieldId::PacketType, 0);
    m.set(FieldId::EthType, 0x0800);
    m.set(FieldId::NwFrag, 0);
    m.set(FieldId::NwProto, 17);
    FlowRule { id: FlowId(n.into()), matches: m, actions: actions.into(), provenance: Arc::from([]) }
}

/// From device port 0, the UDP packets to 10.0.1.`n`, with these actions.
pub fn rule(n: u8, actions: Vec<Action>) -> FlowRule {
    let mut r = any_udp(n, actions);
    r.matches.set(FieldId::NwDst, u32::from_be_bytes([10, 0, 1, n]).into());
    r
}
