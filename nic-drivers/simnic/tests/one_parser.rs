//! The device's parser and the software's see the same packet in every frame that the device does not leave to software.
//!
//! For each of many odd frames, a rule that matches every field exactly as the software parser has it sends to one port,
//! and a rule that matches the ingress port alone, searched later, sends to another. A frame may come to the host
//! (unparsed) or leave by the first port; one that leaves by the second was parsed differently.
#![allow(clippy::unwrap_used)] // a test may panic

use std::sync::Arc;

use clock::ManualClock;
use device::{BufferPool, PacketBatch, PacketIo, QueueId};
use flow::frame::FrameBuilder;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId, parse};
use nic::{Config, SimNic};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult};
use simnic::lower_match::key_fields;
use simnic::{SimnicConfig, SimnicDriver, SimnicProvider};

const FRAMES: u64 = 4000;
const PORT: PortId = PortId(1);

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn percent(&mut self, p: u64) -> bool {
        self.below(100) < p
    }
}

/// A frame of some kind, often spoilt in its headers or its length.
fn frame(r: &mut Rng) -> Vec<u8> {
    let mut f = FrameBuilder::new();
    for _ in 0..[0, 0, 0, 1, 1, 2, 3][r.below(7) as usize] {
        f = f.tag([0x8100, 0x88a8][r.below(2) as usize], r.next() as u16);
    }
    let v6 = r.percent(40);
    let byte = r.next() as u8;
    f = match r.below(12) {
        0 => f.arp_request([10, 0, 0, byte], [10, 0, 1, byte]),
        1 => f.eth_type([0x0600, 0x8035, 0x88cc, 0x8847, 0x9100, 0x05ff][r.below(6) as usize]),
        2 => f.llc(),
        3 => f.snap(0x0800),
        4 => f.mpls(r.below(1 << 20) as u32, 0, byte),
        _ if v6 => f.ipv6([0xfd; 16], [byte; 16]).flow_label(r.below(1 << 20) as u32),
        _ => f.ipv4([10, 0, 0, byte], [10, 0, 1, byte]),
    };
    if v6 && r.percent(15) {
        f = f.extension([0, 43, 60][r.below(3) as usize], &[0; 6]);
    }
    if r.percent(15) {
        f = f.fragment(r.below(3) as u16, r.percent(50));
    }
    if !v6 && r.percent(10) {
        f = f.ip_options(&[1; 8]);
    }
    let (s, d) = (r.next() as u16, r.next() as u16);
    f = match r.below(8) {
        0 | 1 => f.udp(s, d),
        2 | 3 => f.tcp(s, d).tcp_flags(r.below(4096) as u16),
        4 => f.sctp(s, d),
        5 => f.icmp(byte, s as u8, 7),
        6 => f.icmpv6([135, 136, 128, byte][r.below(4) as usize], 0, 7),
        _ => f.ip_proto([0, 1, 2, 6, 17, 41, 47, 50, 58, 89, 132, byte][r.below(12) as usize]),
    };
    f = f.tos(r.next() as u8).ttl(2 + r.below(250) as u8);
    let payload = r.below(40) as usize;
    let mut b = f.payload(&vec![0x11; payload]).build();
    if r.percent(30) {
        let n = 14 + r.below(b.len() as u64 - 13) as usize;
        b.truncate(n.min(b.len()));
    }
    if r.percent(30) {
        b.resize(b.len() + r.below(40) as usize, 0xee);
    }
    for _ in 0..[0, 0, 0, 1, 2, 4][r.below(6) as usize] {
        let at = 12 + r.below(b.len().min(80) as u64 - 12) as usize;
        b[at] = if r.percent(50) { r.next() as u8 } else { b[at] ^ 1 << r.below(8) };
    }
    b
}

fn install(p: &mut SimnicProvider<nic::SimBacking>, id: u64, matches: PacketMatch, out: u32) -> HwHandle {
    let actions = vec![Action::Output(PortId(out))].into();
    let rule = FlowRule { id: FlowId(id), matches, actions, provenance: Arc::from([]) };
    match run(p, FlowOp::Install(OpId(id), rule)) {
        OpResult::Installed(h, _) => h,
        r => panic!("{r:?}"),
    }
}

fn run(p: &mut SimnicProvider<nic::SimBacking>, op: FlowOp) -> OpResult {
    assert_eq!(p.submit(&[op]), 1);
    let mut out = Vec::new();
    while p.poll(&mut out, 1) == 0 {
        assert_eq!(p.health(), Ok(()));
    }
    out.remove(0).result
}

#[test]
fn device_and_software_parse_alike_or_the_device_leaves_it() {
    let sim = SimNic::new(Config::default(), 1).unwrap();
    let pool = BufferPool::new(1024).unwrap();
    let config = SimnicConfig {
        poll_wait: std::time::Duration::from_micros(20),
        ..SimnicConfig::new((0..4).map(|p| (PortId(1 + u32::from(p)), p)).collect())
    };
    let mut nic = SimnicDriver::bring_up(sim.backing(), pool, config, Arc::new(ManualClock::new())).unwrap();
    let (mut rx, _tx) = nic.ports[0].take_queues(QueueId(0)).unwrap();
    let p = &mut nic.provider;

    // Both mask profiles are programmed in this order, and searched in it.
    let whole = |frame: &[u8]| {
        let key = parse::parse(frame, PORT).unwrap().key;
        let mut m = PacketMatch::ANY;
        m.set(FieldId::DpPort, PORT.0.into());
        // ARP addresses are lowered for ARP only.
        let arp = key.get(FieldId::EthType) == 0x0806;
        for f in key_fields().filter(|f| arp || !matches!(f, FieldId::ArpSha | FieldId::ArpTha)) {
            m.set(f, key.get(f));
        }
        m
    };
    let first = FrameBuilder::new().udp(1, 1).ipv4([1; 4], [1; 4]).build();
    let warm = [install(p, 1, whole(&first), 2), {
        let f = FrameBuilder::new().arp_request([1; 4], [2; 4]).build();
        install(p, 2, whole(&f), 2)
    }];
    let mut any = PacketMatch::ANY;
    any.set(FieldId::DpPort, PORT.0.into());
    install(p, 3, any, 3);
    for h in warm {
        assert!(matches!(run(p, FlowOp::Remove(OpId(9), h)), OpResult::Removed(..)));
    }

    let mut batch = PacketBatch::new();
    let (mut parsed, mut left) = (0, 0);
    for seed in 0..FRAMES {
        let mut r = Rng((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let f = frame(&mut r);
        let h = install(p, 10, whole(&f), 2);
        assert!(sim.inject(0, &f));
        assert!(sim.run_until_idle(1_000_000));
        let out: Vec<usize> = (0..4).map(|p| sim.collect(p).len()).collect();
        let host = rx.rx_burst(&mut batch).unwrap();
        batch.clear();
        match (out.as_slice(), host) {
            ([0, 1, 0, 0], 0) => parsed += 1,
            ([0, 0, 0, 0], 1) => left += 1,
            other => {
                let key = parse::parse(&f, PORT).unwrap();
                panic!("seed {seed}: {other:?} for {f:02x?}\nsoftware: {key:#x?}")
            }
        }
        assert!(matches!(run(p, FlowOp::Remove(OpId(11), h)), OpResult::Removed(..)));
    }
    println!("{parsed} frames parsed alike, {left} left to software");
    assert!(parsed > FRAMES / 4 && left > FRAMES / 10, "{parsed} parsed, {left} left: this tests little");
    assert_eq!(sim.fault_count(), 0);
}
