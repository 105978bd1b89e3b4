//! The driver, up, on a model of the device in lockstep.
#![allow(dead_code)] // each test uses a part

use std::time::Duration;

use device::{BufferPool, IoError, PacketBatch, PacketIo, QueueId, QueuePair};
use flow::PortId;
use ixgbe::{Ixgbe, IxgbeConfig, IxgbeDriver};
use ixgbe_model::Outside;
use model_bus::{Backing, Model};
use offload::{Completion, FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult};

pub const MS: Duration = Duration::from_millis(1);
pub const CELLS: u32 = 2048;

pub struct Bench {
    pub model: Model<ixgbe_model::Ixgbe>,
    pub nic: Ixgbe<Backing<ixgbe_model::Ixgbe>>,
    pub queues: Vec<QueuePair>,
    pub pool: BufferPool,
    next_op: u64,
}

pub fn config() -> IxgbeConfig {
    IxgbeConfig { port: Some(PortId(7)), ring_log2: 5, ..IxgbeConfig::new() }
}

impl Bench {
    pub fn new(config: IxgbeConfig) -> Bench {
        let model = Model::of(ixgbe_model::Ixgbe::new());
        let pool = BufferPool::new(CELLS).unwrap();
        let mut nic = IxgbeDriver::bring_up(model.backing(), pool.clone(), config).unwrap();
        let pairs = nic.port.queue_pairs();
        let queues = (0..pairs).map(|q| nic.port.take_queues(QueueId(q)).unwrap()).collect();
        Bench { model, nic, queues, pool, next_op: 0 }
    }

    pub fn received(&mut self, q: usize) -> Vec<Vec<u8>> {
        let (mut batch, mut out) = (PacketBatch::new(), Vec::new());
        while self.queues[q].0.rx_burst(&mut batch).unwrap() > 0 {
            assert!(batch.iter().all(|p| p.meta.in_port == 7));
            out.extend(batch.drain_all().map(|p| p.to_vec()));
        }
        out
    }

    pub fn send(&mut self, q: usize, frames: &[Vec<u8>]) -> Result<usize, IoError> {
        let mut batch = PacketBatch::new();
        for f in frames {
            assert!(batch.push(self.pool.copy_from(f).unwrap()).is_ok());
        }
        self.queues[q].1.tx_burst(&mut batch)
    }

    /// Lets time pass and the owner look after the device.
    pub fn poll(&mut self) {
        self.model.clock.advance(100 * MS);
        self.nic.provider.poll(&mut Vec::new(), 8);
    }

    /// Frames go both ways.
    pub fn assert_alive(&mut self) {
        let f = frame(0x76, 60);
        // A queue starts itself anew when its thread comes by, and takes a few looks for it.
        for _ in 0..4 {
            self.received(0);
            self.queues[0].1.flush().unwrap();
        }
        self.model.inject(&f);
        assert_eq!(self.received(0), std::slice::from_ref(&f));
        self.model.collect();
        assert_eq!(self.send(0, std::slice::from_ref(&f)).unwrap(), 1);
        assert_eq!(self.model.collect(), [(0, f)]);
    }

    /// The model finds nothing to complain of, and neither does the driver.
    pub fn assert_clean(&self) {
        let inner = self.model.lock();
        assert_eq!(inner.0.faults(), []);
        assert_eq!((inner.1.dma_faults, inner.1.dma_forbidden), (0, 0));
        assert_eq!(self.nic.provider.violations(), Default::default());
    }

    /// Every buffer comes home.
    pub fn end(self) {
        let Bench { nic, queues, pool, .. } = self;
        drop(queues);
        drop(nic);
        assert_eq!(pool.free_cells(), CELLS as usize);
    }

    /// Runs operations and returns their completions in order.
    pub fn run(&mut self, ops: &[FlowOp]) -> Vec<Completion> {
        let (mut done, mut sent) = (Vec::new(), 0);
        for _ in 0..100 * (ops.len() + 1) {
            sent += self.nic.provider.submit(&ops[sent..]);
            self.nic.provider.poll(&mut done, 64);
            if done.len() == ops.len() {
                break;
            }
        }
        assert_eq!(done.len(), ops.len());
        done
    }

    pub fn op(&mut self) -> OpId {
        self.next_op += 1;
        OpId(self.next_op)
    }

    pub fn install(&mut self, r: &FlowRule) -> OpResult {
        let op = FlowOp::Install(self.op(), r.clone());
        self.run(&[op]).remove(0).result
    }

    pub fn remove(&mut self, h: HwHandle) -> OpResult {
        let op = FlowOp::Remove(self.op(), h);
        self.run(&[op]).remove(0).result
    }
}

/// A frame that is no IP, to a unicast address.
pub fn frame(n: u8, len: usize) -> Vec<u8> {
    let mut f = vec![n; len];
    f[0] &= 0xfe;
    if len >= 14 {
        f[12..14].copy_from_slice(&[0x88, 0xb5]);
    }
    f
}
