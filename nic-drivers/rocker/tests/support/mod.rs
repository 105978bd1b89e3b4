//! The driver, up, on a model of the device with three ports, and the frames and rules of its tests.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part; a test may panic

use std::time::Duration;

use device::{BufferPool, IoError, PacketBatch, PacketIo, QueueId, RxQueue, TxQueue};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult};
use rocker::{Rocker, RockerConfig, RockerDriver};

pub const N: u32 = 3;

pub type Model = models::Model<models::rocker::Rocker>;
pub type Backing = models::Backing<models::rocker::Rocker>;

pub fn model(n_ports: u32) -> Model {
    Model::of(models::rocker::Rocker::as_qemu(n_ports))
}

pub fn dp(port: u16) -> PortId {
    PortId(10 + u32::from(port))
}

pub fn config() -> RockerConfig {
    let ports = (0..N as u16).map(|p| (dp(p), p)).collect();
    RockerConfig { ring_log2: 5, max_flows: 64, ..RockerConfig::new(ports) }
}

pub struct Bench {
    pub model: Model,
    pub nic: Rocker<Backing>,
    pub queues: Vec<(Box<dyn RxQueue>, Box<dyn TxQueue>)>,
    pub pool: BufferPool,
}

impl Bench {
    pub fn new(config: RockerConfig) -> Self {
        let model = model(N);
        model.lock().0.as_guide = !config.quirks.no_flow_counters;
        let pool = BufferPool::new(512).unwrap();
        let mut nic = RockerDriver::bring_up(model.backing(), pool.clone(), config).unwrap();
        let queues = nic.ports.iter_mut().map(|p| p.take_queues(QueueId(0)).unwrap()).collect();
        Bench { model, nic, queues, pool }
    }

    pub fn received(&mut self, port: usize) -> Vec<Vec<u8>> {
        let (mut batch, mut out) = (PacketBatch::new(), Vec::new());
        while self.queues[port].0.rx_burst(&mut batch).unwrap() > 0 {
            out.extend(batch.drain_all().map(|p| p.to_vec()));
        }
        out
    }

    pub fn send(&mut self, port: usize, frames: &[&[u8]]) -> Result<usize, IoError> {
        let mut batch = PacketBatch::new();
        for f in frames {
            assert!(batch.push(self.pool.copy_from(f).unwrap()).is_ok());
        }
        self.queues[port].1.tx_burst(&mut batch)
    }

    pub fn run(&mut self, op: FlowOp) -> OpResult {
        assert_eq!(self.nic.provider.submit(&[op]), 1);
        let mut out = Vec::new();
        for _ in 0..1000 {
            if self.nic.provider.poll(&mut out, 1) == 1 {
                return out.remove(0).result;
            }
            self.model.clock.advance(Duration::from_millis(10));
        }
        panic!("no completion")
    }

    pub fn install(&mut self, r: &FlowRule) -> HwHandle {
        match self.run(FlowOp::Install(OpId(1), r.clone())) {
            OpResult::Installed(h, _) => h,
            other => panic!("{other:?}"),
        }
    }

    /// The model finds nothing to complain of.
    pub fn assert_clean(&self) {
        assert_eq!(self.model.lock().1.dma_faults, 0);
        assert_eq!(self.nic.provider.violations(), Default::default());
    }
}

pub fn untagged() -> Vec<u8> {
    FrameBuilder::new()
        .eth([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2])
        .udp(1, 2)
        .build()
}

pub fn tagged(vid: u16) -> Vec<u8> {
    let f = FrameBuilder::new().eth([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]).vlan(vid, 3);
    f.ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2).build()
}

pub fn rule(tci: (u128, u128), actions: Vec<Action>) -> FlowRule {
    let mut m = PacketMatch::ANY;
    m.set(FieldId::DpPort, dp(0).0.into());
    m.set(FieldId::EthType, 0x0800);
    m.set_masked(FieldId::VlanTci, tci.0, tci.1);
    FlowRule { id: FlowId(7), matches: m, actions: actions.into(), provenance: [].into() }
}

pub const NO_TAG: (u128, u128) = (0, 0x1fff);

pub fn output(port: u16) -> Action {
    Action::Output(dp(port))
}

pub fn frame_of(dst: u8, src: u8, vid: Option<u16>) -> Vec<u8> {
    let f = FrameBuilder::new().eth([2, 0, 0, 0, 0, dst], [2, 0, 0, 0, 0, src]);
    let f = if let Some(v) = vid { f.vlan(v, 0) } else { f };
    f.ipv4([10, 0, 0, src], [10, 0, 0, dst]).udp(1, 2).build()
}

pub fn station(n: u8) -> u128 {
    0x0200_0000_0000 | u128::from(n)
}

pub fn table_of(b: &mut Bench, r: &FlowRule) -> (HwHandle, u16) {
    match b.run(FlowOp::Install(OpId(1), r.clone())) {
        OpResult::Installed(h, t) => (h, t.0),
        other => panic!("{other:?}"),
    }
}

pub fn remove(b: &mut Bench, h: HwHandle) {
    assert!(matches!(b.run(FlowOp::Remove(OpId(2), h)), OpResult::Removed(..)));
}
