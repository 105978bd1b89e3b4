//! A modern virtio network device over PCI, as VIRTIO 1.2 has it.

mod ring;

use std::collections::{HashMap, VecDeque};

use virtio_net_defs::control::{ACK_ERR, ACK_OK, CLASS_MQ, CLASS_RX};
use virtio_net_defs::pci::{CAP_BYTES, CAP_POINTER, Capability, Region};
use virtio_net_defs::regs::{self, net, status};
use virtio_net_defs::{NetHeader, feature, header};

use model_bus::{Bus, Chip, Model};
pub use ring::{Chain, Piece, Queue};

const COMMON: u32 = 0;
const ISR: u32 = 0x1000;
const NET: u32 = 0x2000;
const NOTIFY: u32 = 0x3000;
const NOTIFY_MULTIPLIER: u32 = 4;
/// Its address.
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// What it does wrong with one received frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RxFault {
    /// Uses no buffer at all.
    Missing,
    /// Names a buffer that is not there.
    WrongId,
    /// Names the buffer twice.
    Twice,
    /// Says that it has written more than there is room.
    TooLong,
    /// Says that it has written less than a header.
    TooShort,
    /// Leaves a checksum to be completed.
    NeedsChecksum,
    /// Says that it is in more buffers than it is.
    MissingBuffers,
    /// Resets itself instead.
    ResetsItself,
}

/// What it does wrong with one sent frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TxFault {
    /// Never says that it was sent.
    Never,
    /// Says so twice.
    Twice,
    /// Names another buffer.
    WrongId,
    /// Says so after the next one.
    Late,
}

/// See the module's text.
pub struct Virtio {
    /// Features that it offers.
    pub offers: u64,
    /// Features that were taken.
    pub taken: u64,
    /// Queue pairs that it can have, and those that are used.
    pub max_pairs: u16,
    /// Queue pairs that are used.
    pub pairs: u16,
    /// Most entries of a queue.
    pub queue_size: u16,
    /// Largest payload of a frame.
    pub mtu: u16,
    /// Its link.
    pub link: bool,
    /// Device status.
    pub status: u8,
    select: u16,
    feature_select: [u32; 2],
    config_vector: u16,
    queues: Vec<Queue>,
    /// What was sent, with its header, by queue pair.
    pub sent: Vec<(u16, NetHeader, Vec<u8>)>,
    /// Doorbells, by queue.
    pub notified: HashMap<u16, u64>,
    /// Control commands that were done: class, command, data.
    pub commands: Vec<(u8, u8, Vec<u8>)>,
    /// What goes wrong with the next received frames.
    pub rx_faults: VecDeque<Option<RxFault>>,
    /// What goes wrong with the next sent frames.
    pub tx_faults: VecDeque<Option<TxFault>>,
    /// Does nothing that it is told by doorbells.
    pub holds: bool,
    /// Does not answer control commands.
    pub mute: bool,
    /// Refuses the features that were taken.
    pub stubborn: bool,
    /// Frames for which there was no buffer.
    pub lost: usize,
    late: Option<(u16, u32)>,
}

/// Features of a device that has everything.
pub const ALL_FEATURES: u64 = feature::VERSION_1
    | feature::ACCESS_PLATFORM
    | feature::MAC
    | feature::STATUS
    | feature::MTU
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::MQ
    | feature::EVENT_IDX
    | feature::MRG_RXBUF
    | feature::RING_PACKED
    | feature::CSUM
    | feature::GUEST_CSUM;

impl Virtio {
    /// A device with these features.
    pub fn new(offers: u64) -> Virtio {
        let mut v = Virtio {
            offers,
            taken: 0,
            max_pairs: 4,
            pairs: 1,
            queue_size: 256,
            mtu: 1500,
            link: true,
            status: 0,
            select: 0,
            feature_select: [0; 2],
            config_vector: regs::NO_VECTOR,
            queues: Vec::new(),
            sent: Vec::new(),
            notified: HashMap::new(),
            commands: Vec::new(),
            rx_faults: VecDeque::new(),
            tx_faults: VecDeque::new(),
            holds: false,
            mute: false,
            stubborn: false,
            lost: 0,
            late: None,
        };
        v.restart();
        v
    }

    fn restart(&mut self) {
        let n = 2 * self.max_pairs + 1;
        self.queues = (0..n).map(|_| Queue::after_reset(self.queue_size)).collect();
        (self.status, self.taken, self.pairs, self.select) = (0, 0, 1, 0);
        (self.config_vector, self.late) = (regs::NO_VECTOR, None);
    }

    fn has(&self, f: u64) -> bool {
        self.taken & f != 0
    }

    fn ring(&self) -> (bool, bool) {
        (self.has(feature::RING_PACKED), self.has(feature::EVENT_IDX))
    }

    fn control_queue(&self) -> u16 {
        if self.has(feature::MQ) { 2 * self.max_pairs } else { 2 }
    }

    /// A frame comes in, for queue pair `pair`.
    pub fn receive(&mut self, bus: &mut Bus, pair: u16, frame: &[u8]) {
        let fault = self.rx_faults.pop_front().flatten();
        match fault {
            Some(RxFault::Missing) => return,
            Some(RxFault::ResetsItself) => return self.restart(),
            _ => {}
        }
        if self.status & status::DRIVER_OK == 0 {
            return;
        }
        let (packed, event_idx) = self.ring();
        let mergeable = self.has(feature::MRG_RXBUF);
        let q = usize::from(regs::queue_rx(pair));
        let mut h = NetHeader { num_buffers: 1, ..NetHeader::default() };
        if fault == Some(RxFault::NeedsChecksum) {
            h.flags = header::NEEDS_CSUM;
        }
        let all: Vec<u8> = h.encode().iter().chain(frame).copied().collect();
        let (mut at, mut used) = (0, Vec::new());
        while at < all.len() {
            let Some(c) = self.queues[q].pop(bus, packed, event_idx) else {
                self.lost += 1;
                return;
            };
            let room: usize = c.pieces.iter().filter(|p| p.write).map(|p| p.len as usize).sum();
            let mut n = 0;
            for p in c.pieces.iter().filter(|p| p.write) {
                let len = (all.len() - at).min(p.len as usize);
                bus.write(p.addr, &all[at..at + len]);
                (at, n) = (at + len, n + len);
            }
            used.push((c, n, room));
            if !mergeable && at < all.len() {
                // It does not fit: a device drops it.
                break;
            }
        }
        let buffers = used.len() as u16 + u16::from(fault == Some(RxFault::MissingBuffers));
        if mergeable {
            let first = used[0].0.pieces[0].addr;
            bus.write(first + 10, &buffers.to_le_bytes());
        }
        for (c, n, room) in used {
            let (id, len) = (u32::from(c.id), n as u32);
            let said = match fault {
                Some(RxFault::WrongId) => (0xfff0, len),
                Some(RxFault::TooLong) => (id, room as u32 + 1),
                Some(RxFault::TooShort) => (id, 5),
                _ => (id, len),
            };
            self.queues[q].push(bus, packed, said, c.pieces.len() as u16);
            if fault == Some(RxFault::Twice) {
                self.queues[q].push(bus, packed, said, c.pieces.len() as u16);
            }
        }
        self.queues[q].tell(bus, packed, event_idx);
    }

    /// Does what the driver has made available on its queues.
    pub fn run(&mut self, bus: &mut Bus) {
        for pair in 0..self.pairs {
            self.transmit(bus, pair);
        }
        self.control(bus);
    }

    fn transmit(&mut self, bus: &mut Bus, pair: u16) {
        let (packed, event_idx) = self.ring();
        let q = usize::from(regs::queue_tx(pair));
        while let Some(c) = self.queues[q].pop(bus, packed, event_idx) {
            let mut b = Vec::new();
            for p in c.pieces.iter().filter(|p| !p.write) {
                b.extend(bus.read(p.addr, p.len as usize));
            }
            if let Some((h, frame)) = b.split_first_chunk::<{ NetHeader::BYTES }>() {
                self.sent.push((pair, NetHeader::decode(h), frame.to_vec()));
            }
            let (n, id) = (c.pieces.len() as u16, u32::from(c.id));
            let mut push = |id| self.queues[q].push(bus, packed, (id, 0), n);
            match self.tx_faults.pop_front().flatten() {
                None => push(id),
                Some(TxFault::Never) => {}
                Some(TxFault::WrongId) => push(0xfff0),
                Some(TxFault::Twice) => {
                    push(id);
                    push(id);
                }
                Some(TxFault::Late) => {
                    self.late = Some((q as u16, id));
                    continue;
                }
            }
            if let Some((late, id)) = self.late.take() {
                self.queues[usize::from(late)].push(bus, packed, (id, 0), 1);
            }
        }
        self.queues[q].tell(bus, packed, event_idx);
    }

    fn control(&mut self, bus: &mut Bus) {
        let (packed, event_idx) = self.ring();
        let q = usize::from(self.control_queue());
        if self.mute || q >= self.queues.len() {
            return;
        }
        while let Some(c) = self.queues[q].pop(bus, packed, event_idx) {
            let mut b = Vec::new();
            for p in c.pieces.iter().filter(|p| !p.write) {
                b.extend(bus.read(p.addr, p.len as usize));
            }
            let ok = match b[..] {
                [CLASS_RX, _, _] => true,
                [CLASS_MQ, 0, lo, hi] => {
                    let n = u16::from_le_bytes([lo, hi]);
                    let fits = (1..=self.max_pairs).contains(&n);
                    if fits {
                        self.pairs = n;
                    }
                    fits
                }
                _ => false,
            };
            if ok {
                self.commands.push((b[0], b[1], b[2..].to_vec()));
            }
            if let Some(p) = c.pieces.iter().find(|p| p.write) {
                bus.write(p.addr, &[if ok { ACK_OK } else { ACK_ERR }]);
            }
            self.queues[q].push(bus, packed, (c.id.into(), 1), c.pieces.len() as u16);
        }
        self.queues[q].tell(bus, packed, event_idx);
    }

    fn net_config(&self) -> [u8; 16] {
        let mut b = [0; 16];
        b[..6].copy_from_slice(&MAC);
        b[net::STATUS as usize] = self.link.into();
        b[8..10].copy_from_slice(&self.max_pairs.to_le_bytes());
        b[10..12].copy_from_slice(&self.mtu.to_le_bytes());
        b[12..].copy_from_slice(&10_000u32.to_le_bytes());
        b
    }

    fn queue(&mut self) -> Option<&mut Queue> {
        self.queues.get_mut(usize::from(self.select))
    }

    fn common_read(&mut self, r: u32) -> u64 {
        let select = self.select;
        let room = self.queue_size;
        match r {
            regs::DEVICE_FEATURE => u64::from((self.offers >> (32 * self.feature_select[0].min(1))) as u32),
            regs::CONFIG_VECTOR => self.config_vector.into(),
            regs::NUM_QUEUES => self.queues.len() as u64,
            regs::DEVICE_STATUS => self.status.into(),
            regs::QUEUE_SELECT => select.into(),
            regs::QUEUE_NOTIFY_OFF => select.into(),
            _ => match self.queue() {
                None => 0,
                Some(q) => match r {
                    regs::QUEUE_SIZE if !q.enabled => room.into(),
                    regs::QUEUE_SIZE => q.size.into(),
                    regs::QUEUE_VECTOR => q.vector.into(),
                    regs::QUEUE_ENABLE => q.enabled.into(),
                    _ => 0,
                },
            },
        }
    }

    fn common_write(&mut self, r: u32, v: u64) {
        let half = |now: u64, high: bool| {
            if high { now & 0xffff_ffff | v << 32 } else { now & !0xffff_ffff | v & 0xffff_ffff }
        };
        match r {
            regs::DEVICE_FEATURE_SELECT => self.feature_select[0] = v as u32,
            regs::DRIVER_FEATURE_SELECT => self.feature_select[1] = v as u32,
            regs::DRIVER_FEATURE => self.taken = half(self.taken, self.feature_select[1] == 1),
            regs::CONFIG_VECTOR => self.config_vector = v as u16,
            regs::DEVICE_STATUS if v == 0 => self.restart(),
            regs::DEVICE_STATUS => {
                let wrong = self.taken & !self.offers != 0 || self.taken & feature::VERSION_1 == 0;
                let refuse = (wrong || self.stubborn) && v as u8 & status::FEATURES_OK != 0;
                self.status = v as u8 & if refuse { !status::FEATURES_OK } else { 0xff };
            }
            regs::QUEUE_SELECT => self.select = v as u16,
            _ => {
                let Some(q) = self.queue() else { return };
                match r {
                    regs::QUEUE_SIZE => q.size = v as u16,
                    regs::QUEUE_VECTOR => q.vector = v as u16,
                    regs::QUEUE_ENABLE => q.enabled = v & 1 != 0,
                    0x20 | 0x24 => q.desc = half(q.desc, r == 0x24),
                    0x28 | 0x2c => q.driver = half(q.driver, r == 0x2c),
                    0x30 | 0x34 => q.device = half(q.device, r == 0x34),
                    _ => {}
                }
            }
        }
    }
}

impl Chip for Virtio {
    const BAR_BYTES: usize = 0x4000;

    fn vectors(&self) -> u16 {
        2 * self.max_pairs + 2
    }

    fn config(&self) -> Vec<u8> {
        let mut b = vec![0; 256];
        b[..4].copy_from_slice(&[0xf4, 0x1a, 0x41, 0x10]);
        b[usize::from(CAP_POINTER)] = 0x40;
        let ranges = [
            (Region::Common, COMMON, regs::COMMON_BYTES),
            (Region::Isr, ISR, 4),
            (Region::Device, NET, 16),
            (Region::Notify, NOTIFY, 0x1000),
        ];
        for (i, (region, offset, len_bytes)) in ranges.into_iter().enumerate() {
            let at = 0x40 + i * CAP_BYTES;
            let next = if i == 3 { 0 } else { at + CAP_BYTES };
            let multiplier = if region == Region::Notify { NOTIFY_MULTIPLIER } else { 0 };
            let c = Capability { region, bar: 4, offset, len_bytes, notify_multiplier: multiplier };
            b[at..at + CAP_BYTES].copy_from_slice(&c.encode(next as u8));
        }
        b
    }

    fn read(&mut self, _: &mut Bus, r: u32, bytes: u8) -> u64 {
        match r {
            r if r < regs::COMMON_BYTES => self.common_read(r),
            r if (NET..NET + 16).contains(&r) => {
                let at = (r - NET) as usize;
                let b = self.net_config();
                (0..usize::from(bytes)).fold(0, |v, i| v | u64::from(b[at + i]) << (8 * i))
            }
            _ => 0,
        }
    }

    fn write(&mut self, bus: &mut Bus, r: u32, v: u64, _: u8) {
        match r {
            r if r < regs::COMMON_BYTES => self.common_write(r, v),
            r if r >= NOTIFY => {
                *self.notified.entry(v as u16).or_default() += 1;
                if !self.holds && self.status & status::DRIVER_OK != 0 {
                    self.run(bus);
                }
            }
            _ => {}
        }
    }

    fn reset(&mut self, _: &mut Bus) -> bool {
        // As QEMU's: no function-level reset.
        false
    }
}

/// The outside of a device.
pub trait Outside {
    /// A frame comes in, for queue pair `pair`.
    fn inject(&self, pair: u16, frame: &[u8]);

    /// Takes what was sent.
    fn collect(&self) -> Vec<(u16, NetHeader, Vec<u8>)>;

    /// Does what is available.
    fn run(&self);
}

impl Outside for Model<Virtio> {
    fn inject(&self, pair: u16, frame: &[u8]) {
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        chip.receive(bus, pair, frame);
    }

    fn collect(&self) -> Vec<(u16, NetHeader, Vec<u8>)> {
        std::mem::take(&mut self.lock().0.sent)
    }

    fn run(&self) {
        let mut inner = self.lock();
        let (chip, bus) = &mut *inner;
        chip.run(bus);
    }
}
