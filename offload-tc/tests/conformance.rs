//! The provider over the fake kernel against the conformance suite, and against a kernel where everything goes wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use clock::{Clock, Instant, ManualClock};
use flow::{PacketKey, PortId};
use offload::OffloadProvider;
use offload::conformance::{Harness, Sent, run, run_robustness};
use offload_tc::fake::{FakeKernel, FakeSocket, Faults};
use offload_tc::{TcConfig, TcPolicy, TcProvider};

/// Ports 11 to 14 of the datapath are interfaces 1 to 4.
const PORTS: [(PortId, u32); 4] = [(PortId(11), 1), (PortId(12), 2), (PortId(13), 3), (PortId(14), 4)];

struct Device {
    kernel: FakeKernel,
    provider: TcProvider<FakeSocket>,
    clock: Arc<ManualClock>,
}

fn device(change: impl Fn(&mut TcConfig)) -> Device {
    let kernel = FakeKernel::new(&[1, 2, 3, 4]);
    for i in 1..=4 {
        kernel.set_hardware(i, true);
    }
    let clock = Arc::new(ManualClock::new());
    let mut config = TcConfig::new("test");
    (config.timeout, config.retry) = (Duration::from_micros(40), Duration::from_micros(40));
    (config.entries, config.queue_depth) = (60, 16);
    change(&mut config);
    let mut provider = TcProvider::new(kernel.socket(), config, clock.clone());
    provider.set_interfaces(&PORTS).unwrap();
    Device { kernel, provider, clock }
}

impl Harness for Device {
    fn provider(&mut self) -> &mut dyn OffloadProvider {
        &mut self.provider
    }

    fn send(&mut self, key: &PacketKey, len_bytes: u32) -> Sent {
        let port = |i: u32| PORTS.iter().find(|(_, n)| *n == i).unwrap().0;
        let from = PORTS.iter().find(|(p, _)| u128::from(p.0) == key.get(flow::FieldId::DpPort)).unwrap().1;
        self.kernel.set_now(self.clock.now());
        match self.kernel.receive(from, key, len_bytes) {
            None => Sent::Missed,
            Some(out) => Sent::Forwarded(out.into_iter().map(|(i, k)| (port(i), k)).collect()),
        }
    }

    fn advance(&mut self, d: Duration) {
        self.clock.advance(d);
    }

    fn now(&self) -> Instant {
        self.clock.now()
    }
}

#[test]
fn the_provider_conforms() {
    run(&mut || Box::new(device(|_| {})));
}

#[test]
fn the_provider_conforms_without_reading_back() {
    run(&mut || {
        Box::new(device(|c| {
            c.read_back = false;
            c.policy = TcPolicy::SkipHw;
            c.queue_depth = 1;
        }))
    });
}

#[test]
fn the_provider_conforms_on_a_kernel_without_terse_dumps() {
    run(&mut || {
        let d = device(|c| c.policy = TcPolicy::SkipSw);
        d.kernel.set_terse(false);
        Box::new(d)
    });
}

#[test]
fn completions_are_kept_whatever_the_kernel_does() {
    let all = Faults { refuse: 5, overrun: 5, lose: 5, interrupt: 10, overlook: 5, meddle: 3, send: 3 };
    let none = Faults::default();
    let kinds = [
        Faults { refuse: 30, ..none },
        Faults { overrun: 10, ..none },
        Faults { lose: 10, ..none },
        Faults { interrupt: 40, ..none },
        Faults { meddle: 20, ..none },
        Faults { send: 20, ..none },
        all,
    ];
    for faults in kinds {
        run_robustness(
            &mut |seed| {
                let d = device(|c| c.read_back = seed % 2 == 0);
                d.kernel.set_faults(faults, seed);
                Box::new(d)
            },
            0..40,
            300,
        );
    }
}
