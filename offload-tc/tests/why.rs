//! From an error number of the kernel's to what an operator is told: the placement engine over the provider over a fake kernel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use clock::{Instant, ManualClock};
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use nix::errno::Errno;
use offload::conformance::rules::{SHAPES, packet};
use offload::{DeviceId, FlowRule, Layer, PlacementConfig, PlacementEngine, Reject, Status};
use offload_tc::fake::{FakeKernel, FakeSocket, Faults};
use offload_tc::{TcConfig, TcProvider};

const PORTS: [(PortId, u32); 2] = [(PortId(11), 1), (PortId(12), 2)];
/// Longer than a refusal is waited after.
const LATER: Duration = Duration::from_secs(20);

struct Bench {
    kernel: FakeKernel,
    e: PlacementEngine<TcProvider<FakeSocket>>,
    now: Instant,
}

fn rule(n: u32) -> FlowRule {
    let k = packet(SHAPES[0], n, PortId(11));
    let mut matches = PacketMatch::ANY;
    for f in [FieldId::DpPort, FieldId::EthType, FieldId::NwDst] {
        matches.set(f, k.get(f));
    }
    matches.set_masked(FieldId::VlanTci, 0, 0x1fff);
    let actions = [Action::Output(PortId(12))].into();
    FlowRule { id: FlowId(n.into()), matches, actions, provenance: [].into() }
}

impl Bench {
    fn new() -> Self {
        let kernel = FakeKernel::new(&[1, 2]);
        let config = TcConfig { timeout: Duration::ZERO, retry: Duration::ZERO, ..TcConfig::new("br0") };
        let mut p = TcProvider::new(kernel.socket(), config, Arc::new(ManualClock::new()));
        p.set_interfaces(&PORTS).unwrap();
        let config = PlacementConfig { min_residence: Duration::ZERO, ..PlacementConfig::default() };
        Bench { kernel, e: PlacementEngine::new(config, vec![p]), now: Instant::ZERO }
    }

    fn offer(&mut self, r: FlowRule) {
        self.e.offer(r, Arc::new(|| 0), self.now).expect("room");
        self.ticks(4, Duration::from_millis(1));
    }

    fn ticks(&mut self, n: u64, step: Duration) {
        for _ in 0..n {
            self.now = self.now + step;
            self.e.tick(self.now);
        }
    }

    fn status(&self, n: u32) -> Status {
        self.e.status(FlowId(n.into())).unwrap()
    }

    fn why(&self, n: u32) -> Reject {
        match self.status(n) {
            Status::Software(r) => r,
            s => panic!("{s:?}"),
        }
    }
}

#[test]
fn each_class_of_refusal_is_named_with_the_kernels_words_and_its_number_and_passes() {
    let words = "the driver's own words";
    for errno in [
        Errno::EOPNOTSUPP,
        Errno::EINVAL,
        Errno::ENOSPC,
        Errno::ENOMEM,
        Errno::EEXIST,
        Errno::EBUSY,
        Errno::EPERM,
        Errno::ENOENT,
        Errno::ERANGE,
        Errno::EIO,
    ] {
        for text in [words, ""] {
            let mut b = Bench::new();
            b.kernel.refuse_next(errno as i32, text);
            b.offer(rule(1));
            let why = b.why(1);
            let told = why.to_string();
            let said = if text.is_empty() { errno.desc() } else { text };
            assert_eq!(told, format!("the device refused (errno {}): {said}", errno as i32));
            assert!(why.layer() == Layer::Device && why.is_transient() && !why.remedy().is_empty());
            assert!(b.kernel.filters().is_empty(), "{errno}: nothing is left of it");
            // Not at once, and then again.
            let before = b.kernel.requests();
            b.ticks(4, Duration::from_millis(1));
            assert_eq!(b.kernel.requests(), before, "{errno}");
            b.ticks(2, LATER);
            assert!(matches!(b.status(1), Status::Hardware { .. }), "{errno}: {:?}", b.status(1));
        }
    }
}

#[test]
fn an_interface_that_goes_is_the_reason_until_it_is_back() {
    let mut b = Bench::new();
    b.offer(rule(1));
    b.kernel.remove_interface(1);
    b.offer(rule(2));
    assert!(matches!(b.why(2), Reject::Device { errno, .. } if errno == Errno::ENODEV as i32));
    b.ticks(4, Duration::from_millis(200));
    assert!(!matches!(b.status(1), Status::Hardware { .. }), "it was lost with the interface");
    b.kernel.add_interface(1);
    let now = b.now;
    b.e.set_ports(DeviceId(0), &[], now).unwrap();
    b.e.set_ports(DeviceId(0), &PORTS, now).unwrap();
    b.ticks(6, LATER);
    for n in [1, 2] {
        assert!(matches!(b.status(n), Status::Hardware { .. }), "{n}: {:?}", b.status(n));
    }
    assert_eq!(b.kernel.filters().len(), 2);
}

#[test]
fn filters_that_somebody_removes_come_back_and_those_that_cannot_are_told() {
    let mut b = Bench::new();
    (1..=4).for_each(|n| b.offer(rule(n)));
    let all = b.kernel.filters();
    assert!(b.kernel.remove_filter(&all[0].0));
    b.ticks(4, Duration::from_millis(200));
    assert_eq!(b.kernel.filters().len(), 4);
    // Once more, and the kernel does not take it back; first the qdisc is looked after.
    assert!(b.kernel.remove_filter(&all[1].0));
    b.kernel.refuse_next(Errno::EEXIST as i32, "");
    b.kernel.refuse_next(Errno::ENOSPC as i32, "no room any more");
    b.ticks(2, Duration::from_millis(200));
    let told = (1..=4).filter_map(|n| match b.status(n) {
        Status::Software(r) => Some(r.to_string()),
        _ => None,
    });
    let told: Vec<String> = told.collect();
    assert!(told.len() <= 1 && told.iter().all(|t| t.contains("no room any more")), "{told:?}");
    b.ticks(4, LATER);
    assert!((1..=4).all(|n| matches!(b.status(n), Status::Hardware { .. })));
    assert_eq!(b.kernel.filters().len(), 4);
}

#[test]
fn whatever_is_lost_or_interrupted_flows_are_somewhere_and_nothing_leaks() {
    for seed in 1..=12 {
        let mut b = Bench::new();
        let faults =
            Faults { refuse: 10, overrun: 8, lose: 4, interrupt: 20, meddle: 5, ..Faults::default() };
        b.kernel.set_faults(faults, seed);
        for n in 1..=40 {
            b.offer(rule(n));
            if n % 3 == 0 {
                let now = b.now;
                b.e.withdraw(FlowId(u64::from(n) / 2), now);
            }
            b.ticks(1, Duration::from_millis(150));
        }
        b.kernel.set_faults(Faults::default(), seed);
        b.ticks(40, LATER);
        let there: Vec<u32> = (1..=40).filter(|n| b.e.status(FlowId((*n).into())).is_some()).collect();
        for n in &there {
            assert!(matches!(b.status(*n), Status::Hardware { .. }), "seed {seed}: {:?}", b.status(*n));
        }
        assert_eq!(b.kernel.filters().len(), there.len(), "seed {seed}");
    }
}
