//! The driver on a model of the device, with every layout of rings: packets go both ways, and every failure ends in a typed error,
//! with the device coming back.
#![allow(clippy::unwrap_used)] // a test may panic

use std::time::Duration;

use device::{BufferPool, IoError, PacketBatch, PacketIo, QueueId, QueuePair};
use flow::PortId;
use models::virtio::{ALL_FEATURES, MAC, Outside, RxFault, TxFault, Virtio};
use models::{Backing, Model};
use offload::{FlowOp, HwHandle, OffloadError, OffloadProvider, OpId, OpResult};
use virtio_net::{Agreed, Fault, Step, VirtioConfig, VirtioDriver, VirtioNet};
use virtio_net_defs::regs::{self, status};
use virtio_net_defs::{NetHeader, feature};

const MS: Duration = Duration::from_millis(1);
const CELLS: u32 = 256;

struct Bench {
    model: Model<Virtio>,
    nic: VirtioNet<Backing<Virtio>>,
    queues: Vec<QueuePair>,
    pool: BufferPool,
}

fn config() -> VirtioConfig {
    VirtioConfig { port: Some(PortId(7)), ring_log2: 5, ..VirtioConfig::new() }
}

impl Bench {
    fn with(model: Model<Virtio>, config: VirtioConfig) -> Bench {
        let pool = BufferPool::new(CELLS).unwrap();
        let mut nic = VirtioDriver::bring_up(model.backing(), pool.clone(), config).unwrap();
        let pairs = nic.port.queue_pairs();
        let queues = (0..pairs).map(|q| nic.port.take_queues(QueueId(q)).unwrap()).collect();
        Bench { model, nic, queues, pool }
    }

    fn new(config: VirtioConfig) -> Bench {
        Bench::with(Model::of(Virtio::new(ALL_FEATURES)), config)
    }

    fn received(&mut self, pair: usize) -> Vec<Vec<u8>> {
        let (mut batch, mut out) = (PacketBatch::new(), Vec::new());
        while self.queues[pair].0.rx_burst(&mut batch).unwrap() > 0 {
            assert!(batch.iter().all(|p| p.meta.in_port == 7));
            out.extend(batch.drain_all().map(|p| p.to_vec()));
        }
        out
    }

    fn send(&mut self, pair: usize, frames: &[Vec<u8>]) -> Result<usize, IoError> {
        let mut batch = PacketBatch::new();
        for f in frames {
            assert!(batch.push(self.pool.copy_from(f).unwrap()).is_ok());
        }
        self.queues[pair].1.tx_burst(&mut batch)
    }

    /// Lets time pass and the owner look after the device.
    fn poll(&mut self) {
        self.model.clock.advance(100 * MS);
        self.nic.provider.poll(&mut Vec::new(), 8);
    }

    /// Frames go both ways.
    fn assert_alive(&mut self) {
        let f = frame(0x77, 60);
        // A queue starts itself anew when its thread comes by.
        self.received(0);
        self.model.inject(0, &f);
        assert_eq!(self.received(0), std::slice::from_ref(&f));
        self.model.collect();
        assert_eq!(self.send(0, std::slice::from_ref(&f)).unwrap(), 1);
        assert_eq!(self.model.collect(), [(0, NetHeader::default(), f)]);
    }

    /// The model finds nothing to complain of, and neither does the driver.
    fn assert_clean(&self) {
        let inner = self.model.lock();
        assert_eq!((inner.1.dma_faults, inner.1.dma_forbidden), (0, 0));
        assert_eq!(self.nic.provider.violations(), Default::default());
    }

    /// Every buffer comes home.
    fn end(self) {
        let Bench { nic, queues, pool, .. } = self;
        drop(queues);
        drop(nic);
        assert_eq!(pool.free_cells(), CELLS as usize);
    }
}

fn frame(n: u8, len: usize) -> Vec<u8> {
    let mut f = vec![n; len];
    f[12..14].copy_from_slice(&[0x88, 0xb5]);
    f
}

/// Split and packed rings, with and without positions, with and without mergeable buffers.
fn layouts() -> Vec<VirtioConfig> {
    let bits = 0..8u8;
    bits.map(|b| VirtioConfig {
        packed: b & 1 != 0,
        event_idx: b & 2 != 0,
        mergeable: b & 4 != 0,
        ..config()
    })
    .collect()
}

#[test]
fn frames_come_and_go_whole_in_every_layout_and_round_the_rings() {
    for c in layouts() {
        let mut b = Bench::new(c.clone());
        assert_eq!(b.nic.port.agreed().has(feature::RING_PACKED), c.packed);
        assert_eq!((b.nic.port.mac(), b.nic.port.mtu_frame_bytes()), (MAC, 1518));
        let mut sent = 0;
        for round in 0..40u8 {
            let frames: Vec<_> =
                (0..5 + round % 9).map(|i| frame(round ^ i, 60 + 37 * usize::from(i))).collect();
            frames.iter().for_each(|f| b.model.inject(0, f));
            assert_eq!(b.received(0), frames, "{c:?} round {round}");
            assert_eq!(b.send(0, &frames).unwrap(), frames.len());
            let out = b.model.collect();
            assert!(out.iter().all(|(_, h, _)| *h == NetHeader::default()), "nothing is left to the device");
            assert_eq!(out.into_iter().map(|(_, _, f)| f).collect::<Vec<_>>(), frames);
            sent += frames.len() as u64;
        }
        let n = b.nic.port.counters();
        assert_eq!((n.rx_packets, n.tx_packets, n.rx_errors, n.tx_errors), (sent, sent, 0, 0));
        assert_eq!(n.rx_bytes, n.tx_bytes);
        b.assert_clean();
        b.end();
    }
}

#[test]
fn interrupts_come_when_somebody_sleeps_and_notifications_when_the_device_wants_them() {
    for c in layouts() {
        let mut b = Bench::new(c.clone());
        let raised = |b: &Bench| b.model.lock().1.raised(1);
        for _ in 0..3 {
            b.model.inject(0, &frame(1, 60));
            b.received(0);
        }
        assert_eq!(raised(&b), 0, "a queue that is polled wants none: {c:?}");
        // From here on somebody sleeps.
        assert!(b.queues[0].0.poll_fd().is_some());
        assert!(b.received(0).is_empty());
        for _ in 0..3 {
            let before = raised(&b);
            b.model.inject(0, &frame(2, 60));
            b.model.inject(0, &frame(3, 60));
            // By position the second one is none of its business.
            assert_eq!(raised(&b) - before, if c.event_idx { 1 } else { 2 }, "{c:?}");
            assert_eq!(b.received(0).len(), 2);
            assert!(b.received(0).is_empty());
        }
        b.assert_clean();
        b.end();
    }
}

#[test]
fn a_burst_is_one_notification_and_none_where_the_device_has_not_got_there() {
    for c in layouts() {
        let mut b = Bench::new(c.clone());
        let told = |b: &Bench| b.model.lock().0.notified.get(&1).copied().unwrap_or(0);
        let frames: Vec<_> = (0..8).map(|i| frame(i, 60)).collect();
        b.send(0, &frames).unwrap();
        assert_eq!(told(&b), 1, "{c:?}");
        b.model.lock().0.holds = true;
        b.send(0, &frames).unwrap();
        b.send(0, &frames).unwrap();
        // It was told of the first, and says where it is only when it looks.
        let want = if c.event_idx && !c.packed { 2 } else { 3 };
        assert_eq!(told(&b), want, "{c:?}");
        b.model.lock().0.holds = false;
        b.model.run();
        assert_eq!(b.model.collect().len(), 24);
        b.assert_clean();
        b.end();
    }
}

#[test]
fn several_queue_pairs_are_asked_for_by_a_control_command() {
    for c in layouts() {
        let mut b = Bench::new(VirtioConfig { queue_pairs: 3, ..c });
        assert_eq!(b.queues.len(), 3);
        {
            let inner = b.model.lock();
            assert_eq!(inner.0.pairs, 3);
            assert_eq!(inner.0.commands, [(0, 0, vec![1]), (4, 0, vec![3, 0])]);
        }
        for pair in 0..3u16 {
            let f = frame(pair as u8, 64);
            b.model.inject(pair, &f);
            assert_eq!(b.received(pair.into()), std::slice::from_ref(&f));
            b.send(pair.into(), std::slice::from_ref(&f)).unwrap();
            assert_eq!(b.model.collect(), [(pair, NetHeader::default(), f)]);
        }
        b.assert_clean();
        b.end();
    }
    // A device with one pair, and one without a control queue.
    for offers in [ALL_FEATURES & !feature::MQ, ALL_FEATURES & !feature::CTRL_VQ] {
        let b = Bench::with(Model::of(Virtio::new(offers)), VirtioConfig { queue_pairs: 3, ..config() });
        assert_eq!(b.queues.len(), 1);
        b.end();
    }
}

#[test]
fn frames_longer_than_a_buffer_are_dropped_whole_and_counted() {
    for c in layouts().into_iter().filter(|c| c.mergeable) {
        let mut b = Bench::new(c);
        b.model.inject(0, &frame(1, 3000));
        b.model.inject(0, &frame(2, 60));
        assert_eq!(b.received(0), [frame(2, 60)]);
        assert_eq!(b.nic.port.counters().rx_errors, 1);
        b.assert_clean();
        b.end();
    }
}

#[test]
fn received_buffers_that_make_no_sense_are_counted_and_cost_nothing_else() {
    let faults = [
        (RxFault::Missing, (0, 0)),
        (RxFault::WrongId, (1, 0)),
        (RxFault::Twice, (1, 0)),
        (RxFault::TooLong, (0, 1)),
        (RxFault::TooShort, (0, 1)),
        (RxFault::NeedsChecksum, (0, 1)),
        (RxFault::MissingBuffers, (0, 1)),
    ];
    for c in layouts() {
        for (fault, (id, shape)) in faults {
            if fault == RxFault::MissingBuffers && !c.mergeable {
                continue;
            }
            let mut b = Bench::new(c.clone());
            b.model.lock().0.rx_faults.push_back(Some(fault));
            b.model.inject(0, &frame(1, 60));
            let got = b.received(0).len();
            assert_eq!(got, usize::from(fault == RxFault::Twice), "{c:?} {fault:?}");
            let v = b.nic.provider.violations();
            assert_eq!((v.rx_id, v.rx_shape), (id, shape), "{c:?} {fault:?}");
            if fault != RxFault::Twice || !c.packed {
                b.assert_alive();
            }
            b.end();
        }
    }
}

#[test]
fn sent_buffers_that_come_back_wrongly_are_counted_and_none_is_doubled() {
    for c in layouts() {
        for (fault, violations) in
            [(TxFault::Never, 0), (TxFault::Twice, 1), (TxFault::WrongId, 1), (TxFault::Late, 0)]
        {
            let mut b = Bench::new(c.clone());
            b.model.lock().0.tx_faults.push_back(Some(fault));
            let frames: Vec<_> = (0..4).map(|i| frame(i, 60)).collect();
            b.send(0, &frames).unwrap();
            // One that is used twice takes the place of the next in a packed ring, which is not seen then.
            let seen = if c.packed && fault == TxFault::Twice { 1 } else { 4 };
            assert_eq!(b.model.collect().len(), seen, "{c:?} {fault:?}");
            b.queues[0].1.flush().unwrap();
            let v = b.nic.provider.violations();
            assert_eq!(v.tx_id, violations, "{c:?} {fault:?}");
            b.end();
        }
    }
}

#[test]
fn a_device_that_does_not_send_is_reset_and_sends_again() {
    for c in layouts() {
        let mut b = Bench::new(c.clone());
        b.model.lock().0.holds = true;
        let frames: Vec<_> = (0..20).map(|i| frame(i, 60)).collect();
        assert_eq!(b.send(0, &frames).unwrap(), 20);
        assert_eq!(b.send(0, &frames).unwrap(), 12, "the ring is full; the others stay with the caller");
        for _ in 0..49 {
            b.poll();
        }
        assert_eq!(b.nic.provider.generation(), 0, "within its time: {c:?}");
        b.model.lock().0.holds = false;
        for _ in 0..4 {
            b.poll();
        }
        assert_eq!(b.nic.provider.generation(), 1, "{c:?}");
        assert_eq!(b.nic.provider.health(), Ok(()));
        b.assert_alive();
        // A queue that nobody looks at is not stuck.
        b.model.inject(0, &frame(1, 60));
        for _ in 0..60 {
            b.poll();
        }
        assert_eq!(b.nic.provider.generation(), 1);
        b.end();
    }
}

#[test]
fn a_device_that_is_pulled_out_is_noticed_and_taken_back() {
    for c in layouts() {
        let mut b = Bench::new(c);
        b.assert_alive();
        let mappings = b.model.lock().1.mappings();
        b.send(0, &[frame(1, 60), frame(2, 60)]).unwrap();
        b.model.lock().1.gone = true;
        b.poll();
        let down = b.nic.provider.health();
        assert!(matches!(&down, Err(OffloadError::DeviceDown(why)) if why.contains("all ones")), "{down:?}");
        assert!(!b.nic.port.link().link_up);
        let mut batch = PacketBatch::new();
        assert!(matches!(b.queues[0].0.rx_burst(&mut batch), Err(IoError::Down)));
        assert!(matches!(b.send(0, &[frame(1, 60)]), Err(IoError::Down)));
        {
            let mut inner = b.model.lock();
            inner.1.gone = false;
            // It has forgotten everything.
            inner.0 = Virtio::new(ALL_FEATURES);
        }
        for _ in 0..20 {
            b.poll();
        }
        assert_eq!((b.nic.provider.health(), b.nic.provider.generation()), (Ok(()), 1));
        b.assert_alive();
        assert_eq!(b.model.lock().1.mappings(), mappings, "rings of earlier lives are unmapped");
        b.assert_clean();
        b.end();
    }
}

#[test]
fn a_device_that_wants_a_reset_or_did_one_by_itself_gets_it() {
    for c in layouts() {
        let mut b = Bench::new(c);
        b.model.lock().0.status |= status::NEEDS_RESET;
        b.poll();
        assert_eq!(b.nic.provider.generation(), 1);
        b.assert_alive();
        // In the middle of a burst.
        b.model.inject(0, &frame(1, 60));
        b.model.lock().0.rx_faults.push_back(Some(RxFault::ResetsItself));
        b.model.inject(0, &frame(2, 60));
        assert_eq!(b.received(0), [frame(1, 60)]);
        b.poll();
        assert_eq!((b.nic.provider.generation(), b.nic.provider.health()), (2, Ok(())));
        b.assert_alive();
        b.end();
    }
}

#[test]
fn too_many_violations_and_a_fatal_error_cost_the_device_a_reset() {
    let mut b = Bench::new(config());
    for _ in 0..=b.pool.cells() / 4 {
        b.model.lock().0.rx_faults.push_back(Some(RxFault::TooShort));
        b.model.inject(0, &frame(1, 60));
        b.received(0);
    }
    b.poll();
    assert_eq!(b.nic.provider.generation(), 1);
    b.assert_alive();
    b.nic.provider.backing().errors.report_fatal();
    b.poll();
    assert_eq!((b.nic.provider.generation(), b.nic.provider.health()), (2, Ok(())));
    b.assert_alive();
    b.end();
}

#[test]
fn a_lost_interrupt_delays_and_loses_nothing() {
    let mut b = Bench::new(config());
    assert!(b.queues[0].0.poll_fd().is_some());
    assert!(b.received(0).is_empty());
    b.model.lock().1.deaf = true;
    b.model.inject(0, &frame(1, 60));
    assert_eq!(b.received(0), [frame(1, 60)]);
    b.end();
}

#[test]
fn bring_up_names_the_step_that_failed() {
    let fails = |spoil: fn(&mut Virtio), config: VirtioConfig| {
        let model = Model::of(Virtio::new(ALL_FEATURES));
        spoil(&mut model.lock().0);
        let pool = BufferPool::new(64).unwrap();
        let e = VirtioDriver::bring_up(model.backing(), pool.clone(), config).err().unwrap();
        assert_eq!(pool.free_cells(), 64, "{e}");
        (e.step, e.fault)
    };
    let (step, _) = fails(|_| (), VirtioConfig { queue_pairs: 0, ..config() });
    assert_eq!(step, Step::Configuration);
    let (step, fault) = fails(|v| v.offers &= !feature::VERSION_1, config());
    assert!(step == Step::Features && fault.to_string().contains("version 1"), "{fault}");
    let (step, fault) = fails(|v| v.stubborn = true, config());
    assert!(step == Step::Features && matches!(fault, Fault::Wrong { .. }), "{fault}");
    let (step, fault) = fails(|v| v.mtu = 9000, VirtioConfig { mergeable: false, ..config() });
    assert!(step == Step::Features && fault.to_string().contains("9018"), "{fault}");
    let (step, fault) = fails(|v| v.mute = true, VirtioConfig { queue_pairs: 2, ..config() });
    assert!(step == Step::Control && matches!(fault, Fault::TimedOut { .. }), "{fault}");
    let (step, _) = fails(|v| v.queue_size = 0, config());
    assert_eq!(step, Step::Queues);
    let model = Model::of(Virtio::new(ALL_FEATURES));
    model.lock().1.lies.insert(regs::DEVICE_STATUS, 0x0f);
    let e = VirtioDriver::bring_up(model.backing(), BufferPool::new(64).unwrap(), config()).err().unwrap();
    assert!(e.step == Step::Reset && matches!(e.fault, Fault::TimedOut { .. }), "{e}");
    let model = Model::of(Virtio::new(ALL_FEATURES));
    model.lock().1.gone = true;
    let e = VirtioDriver::bring_up(model.backing(), BufferPool::new(64).unwrap(), config()).err().unwrap();
    assert_eq!(e.step, Step::Capabilities, "{e}");
}

#[test]
fn every_rule_is_refused_because_there_are_no_tables() {
    let mut b = Bench::new(config());
    let caps = b.nic.provider.capabilities();
    assert_eq!((caps.tables.len(), caps.ports.clone()), (0, vec![PortId(7)]));
    assert_eq!(b.nic.provider.submit(&[FlowOp::Remove(OpId(3), HwHandle(9))]), 1);
    let mut out = Vec::new();
    assert_eq!(b.nic.provider.poll(&mut out, 8), 1);
    assert!(matches!(out[0].result, OpResult::Failed { error: OffloadError::NoSuchEntry(HwHandle(9)), .. }));
    assert!(b.nic.provider.set_ports(&[(PortId(8), 1)]).is_err());
    b.nic.provider.set_ports(&[(PortId(8), 0)]).unwrap();
    assert_eq!(b.nic.provider.capabilities().ports, [PortId(8)]);
    let a: Agreed = b.nic.provider.agreed();
    assert!(!a.has(feature::CSUM | feature::GUEST_CSUM), "no checksum is left to the other side");
    b.end();
}
