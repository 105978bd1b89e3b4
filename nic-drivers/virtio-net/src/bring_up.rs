//! Bring-up in the specification's order (VIRTIO 1.2, 3.1.1), and the same again after a failure.
//!
//! ```text
//!   capabilities ─ reset ─ features ─ memory ─ interrupts ─ queues ─ go ─ control
//!   once                              pool: once
//! ```

use std::sync::Arc;

use clock::Deadline;
use device::driver::{AtStep, Fault, Lifeline, dma_alloc};
use device::{BufferPool, DeviceBacking, HEADROOM_BYTES};
use virtio_net_defs::control::{CLASS_MQ, CLASS_RX, MQ_VQ_PAIRS_SET, RX_PROMISC};
use virtio_net_defs::feature;
use virtio_net_defs::regs::{self, NO_VECTOR, net, queue_control, queue_rx, queue_tx, status};

use crate::config::VirtioConfig;
use crate::control::{self, ControlQueue};
use crate::packed_ring::PackedRing;
use crate::port::VirtioPort;
use crate::provider::{VirtioNet, VirtioProvider};
use crate::queue::{Programmed, Slot};
use crate::ring::Ring;
use crate::split_ring::SplitRing;
use crate::transport::Transport;

/// A step of bring-up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Step {
    Configuration,
    Capabilities,
    Reset,
    Features,
    Memory,
    Interrupts,
    Queues,
    Go,
    Control,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Step::Configuration => "configuration",
            Step::Capabilities => "capabilities",
            Step::Reset => "reset",
            Step::Features => "features",
            Step::Memory => "memory",
            Step::Interrupts => "interrupts",
            Step::Queues => "queues",
            Step::Go => "go",
            Step::Control => "control",
        })
    }
}

/// Bring-up failed; the device is reset and released.
pub type BringUpError = device::driver::BringUpError<Step>;

/// Vector for changes of the configuration; those of receive queues follow.
const VECTOR_CONFIG: u16 = 0;
/// What a status register of an absent device reads.
const ALL_ONES: u8 = 0xff;
/// Bytes of an Ethernet header with a tag.
const ETHERNET_BYTES: usize = 18;
/// Largest payload of a frame when the device does not say.
const DEFAULT_MTU: usize = 1500;

/// What driver and device have agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreed {
    /// Bits of [`feature`].
    pub features: u64,
    /// Queue pairs.
    pub pairs: u16,
    /// Queue pairs that the device could have: where the control queue is depends on it.
    pub max_pairs: u16,
    /// Its address.
    pub mac: [u8; 6],
    /// Longest frame, in bytes.
    pub max_frame_bytes: usize,
}

impl Agreed {
    /// Whether a feature is agreed on.
    pub fn has(&self, f: u64) -> bool {
        self.features & f != 0
    }
}

/// The features that the driver would take. Checksums and segments are never left to the other side.
fn wanted(c: &VirtioConfig) -> u64 {
    let mut f = feature::VERSION_1
        | feature::ACCESS_PLATFORM
        | feature::ORDER_PLATFORM
        | feature::MAC
        | feature::STATUS
        | feature::MTU
        | feature::SPEED_DUPLEX
        | feature::CTRL_VQ
        | feature::CTRL_RX
        | feature::MQ;
    for (on, bit) in [
        (c.packed, feature::RING_PACKED),
        (c.event_idx, feature::EVENT_IDX),
        (c.mergeable, feature::MRG_RXBUF),
    ] {
        f |= if on { bit } else { 0 };
    }
    f
}

/// Step *reset*.
fn reset<B: DeviceBacking>(
    backing: &B,
    t: &Transport<B::Regs>,
    timeout: std::time::Duration,
) -> Result<(), Fault> {
    t.write8(regs::DEVICE_STATUS, 0);
    let mut last = ALL_ONES;
    let waited = backing.wait_until(
        &mut || {
            last = t.status();
            last == 0 || last == ALL_ONES
        },
        Deadline::after(backing.now(), timeout),
    );
    match waited {
        _ if last == ALL_ONES => Err(Fault::Gone),
        Ok(()) => Ok(()),
        Err(_) => Err(Fault::TimedOut { what: "device was not reset", timeout }),
    }
}

/// Step *features*: what both can do, said to the device and accepted by it.
fn agree<B: DeviceBacking>(t: &Transport<B::Regs>, c: &VirtioConfig) -> Result<Agreed, Fault> {
    let on = status::ACKNOWLEDGE;
    t.write8(regs::DEVICE_STATUS, on);
    t.write8(regs::DEVICE_STATUS, on | status::DRIVER);
    let offered = t.offered();
    let mut features = offered & wanted(c);
    if features & feature::VERSION_1 == 0 {
        return Err(Fault::Unfit(format!("not a device of version 1: features {offered:#x}")));
    }
    if features & feature::CTRL_VQ == 0 {
        // Nothing to say it with.
        features &= !(feature::MQ | feature::CTRL_RX);
    }
    t.accept(features);
    t.write8(regs::DEVICE_STATUS, on | status::DRIVER | status::FEATURES_OK);
    let value = t.status();
    if value & status::FEATURES_OK == 0 {
        let expected = "the features to be accepted";
        return Err(Fault::Wrong { register: "device_status", value: value.into(), expected });
    }
    let has = |f| features & f != 0;
    let max_pairs = if has(feature::MQ) { t.net16(net::MAX_QUEUE_PAIRS) } else { 1 };
    if !(1..=0x8000).contains(&max_pairs) {
        return Err(Fault::Unfit(format!("{max_pairs} queue pairs")));
    }
    let mac = std::array::from_fn(|i| if has(feature::MAC) { t.net8(net::MAC + i as u32) } else { 0 });
    let mtu = if has(feature::MTU) { usize::from(t.net16(net::MTU)) } else { DEFAULT_MTU };
    if mtu < 68 {
        return Err(Fault::Unfit(format!("frames of at most {mtu} bytes")));
    }
    Ok(Agreed {
        features,
        pairs: c.queue_pairs.min(max_pairs),
        max_pairs,
        mac,
        max_frame_bytes: mtu + ETHERNET_BYTES,
    })
}

/// The entries of a queue: as many as wanted, as the device can have. A power of two, as split rings have to be.
fn queue_size<B: DeviceBacking>(t: &Transport<B::Regs>, q: u16, log2: u8) -> Result<u16, Fault> {
    match t.queue_room(q) {
        u16::MAX => Err(Fault::Gone),
        0 | 1 => Err(Fault::Unfit(format!("queue {q} is not there"))),
        most => Ok((1 << log2).min(1 << most.ilog2())),
    }
}

/// The way in.
pub struct VirtioDriver;

impl VirtioDriver {
    /// Brings the device up and hands out its owner and its port. `pool` is mapped into it; packets of other pools are copied when
    /// sent.
    ///
    /// # Errors
    /// [`BringUpError`] names the step; the device is then reset and released.
    pub fn bring_up<B: DeviceBacking>(
        mut backing: B,
        pool: BufferPool,
        config: VirtioConfig,
    ) -> Result<VirtioNet<B>, BringUpError> {
        if !(1..=15).contains(&config.ring_log2) || config.queue_pairs == 0 {
            let what = "ring_log2 must be 1 to 15, queue_pairs at least 1".to_owned();
            return Err(Fault::Unfit(what)).at(Step::Configuration);
        }
        let t = Transport::find(&mut backing).at(Step::Capabilities)?;
        reset(&backing, &t, config.step_timeout).at(Step::Reset)?;
        let agreed = agree::<B>(&t, &config).at(Step::Features)?;
        let room = pool.cell_bytes() - HEADROOM_BYTES;
        if room < agreed.max_frame_bytes && !agreed.has(feature::MRG_RXBUF) {
            let what = format!("frames of {} bytes, buffers of {room}", agreed.max_frame_bytes);
            return Err(Fault::Unfit(what)).at(Step::Features);
        }
        let iova = backing.dma_map(pool.memory()).at(Step::Memory)?;
        let life = Arc::new(Lifeline::new(pool, iova, 1));
        life.set_ports(config.port.iter().map(|p| (p.0, 0)));
        let mut slots = Vec::new();
        for pair in 0..agreed.pairs {
            for (q, vector) in [(queue_rx(pair), 1 + VECTOR_CONFIG + pair), (queue_tx(pair), NO_VECTOR)] {
                let size = queue_size::<B>(&t, q, config.ring_log2).at(Step::Queues)?;
                slots.push(Arc::new(Slot::new(q, vector, size)));
            }
        }
        let mut provider = VirtioProvider::new(backing, t, life, agreed, slots, config);
        provider.program()?;
        provider.life.up();
        let port = if agreed.has(feature::RING_PACKED) {
            VirtioPort::open::<PackedRing>(&provider)
        } else {
            VirtioPort::open::<SplitRing>(&provider)
        };
        Ok(VirtioNet { provider, port })
    }
}

impl<B: DeviceBacking> VirtioProvider<B> {
    /// The steps from *interrupts* on, on a device with which features are agreed on.
    fn program(&mut self) -> Result<(), BringUpError> {
        // A device has as many vectors as it likes; without one for each queue, those that have none are polled.
        let v = self.backing.enable_interrupts(1 + VECTOR_CONFIG + self.agreed.pairs).at(Step::Interrupts)?;
        self.life.set_interrupts(v);
        self.backing.set_bus_master(true).at(Step::Queues)?;
        if !self.transport.set_config_vector(VECTOR_CONFIG) {
            let what = "no vector for changes of its configuration".to_owned();
            return Err(Fault::Unfit(what)).at(Step::Interrupts);
        }
        for i in 0..self.slots.len() {
            self.program_queue(i).at(Step::Queues)?;
        }
        let control = if self.agreed.has(feature::CTRL_VQ) {
            Some(self.program_control().at(Step::Queues)?)
        } else {
            None
        };
        let on = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        self.transport.write8(regs::DEVICE_STATUS, on);
        let value = self.transport.status();
        if value != on {
            let expected = "what was written: DRIVER_OK";
            let wrong = Fault::Wrong { register: "device_status", value: value.into(), expected };
            return Err(wrong).at(Step::Go);
        }
        if let Some((mut queue, doorbell)) = control {
            let timeout = self.config.step_timeout;
            let mut tell = |what, data: &[u8]| queue.command(&self.backing, &doorbell, what, data, timeout);
            if self.agreed.has(feature::CTRL_RX) {
                tell((CLASS_RX, RX_PROMISC), &[1]).at(Step::Control)?;
            }
            if self.agreed.pairs > 1 {
                let pairs = self.agreed.pairs.to_le_bytes();
                tell((CLASS_MQ, MQ_VQ_PAIRS_SET), &pairs).at(Step::Control)?;
            }
        }
        Ok(())
    }

    fn program_queue(&mut self, i: usize) -> Result<(), Fault> {
        let slot = self.slots[i].clone();
        if let Some(old) = slot.set(None) {
            self.backing.dma_unmap(old.iova)?;
        }
        let event_idx = self.agreed.has(feature::EVENT_IDX);
        let packed = self.agreed.has(feature::RING_PACKED);
        let bytes = if packed { PackedRing::bytes(slot.size) } else { SplitRing::bytes(slot.size) };
        let (mem, iova) = dma_alloc(&mut self.backing, bytes)?;
        let at = (mem.clone(), iova);
        let areas = if packed {
            PackedRing::new(at, slot.size, event_idx).areas()
        } else {
            SplitRing::new(at, slot.size, event_idx).areas()
        };
        let doorbell = self.transport.start_queue(slot.index, slot.size, areas, slot.vector)?;
        let interrupt = self.life.interrupt(slot.vector);
        slot.set(Some(Programmed { mem, iova, doorbell, interrupt }));
        Ok(())
    }

    fn program_control(&mut self) -> Result<(ControlQueue, crate::transport::Doorbell<B::Regs>), Fault> {
        if let Some(old) = self.control_iova.take() {
            self.backing.dma_unmap(old)?;
        }
        let q = queue_control(self.agreed.max_pairs);
        let most = self.transport.queue_room(q);
        if most < control::SIZE || most == u16::MAX {
            return Err(Fault::Unfit(format!("a control queue of {most} entries")));
        }
        let packed = self.agreed.has(feature::RING_PACKED);
        let mem = dma_alloc(&mut self.backing, ControlQueue::bytes(packed))?;
        self.control_iova = Some(mem.1);
        let queue = ControlQueue::new(mem, packed);
        let doorbell = self.transport.start_queue(q, control::SIZE, queue.areas(), NO_VECTOR)?;
        Ok((queue, doorbell))
    }

    /// Resets the device and brings it up again.
    pub(crate) fn reset_and_restart(&mut self) -> Result<(), BringUpError> {
        let _ = self.backing.set_bus_master(false);
        // A device without a reset of its own says so; its status register does it then.
        match self.backing.reset() {
            Err(e @ device::DeviceError::Gone { .. }) => return Err(Fault::from(e)).at(Step::Reset),
            other => drop(other),
        }
        reset(&self.backing, &self.transport, self.config.step_timeout).at(Step::Reset)?;
        self.life.reclaim_parked();
        let agreed = agree::<B>(&self.transport, &self.config).at(Step::Features)?;
        if agreed != self.agreed {
            let what = format!("it came back as another: {agreed:?}, {:?} before", self.agreed);
            return Err(Fault::Unfit(what)).at(Step::Features);
        }
        self.program()
    }
}
