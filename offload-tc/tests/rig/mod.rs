//! A provider on a fake kernel with two ports, and flows through it.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use clock::ManualClock;
use flow::{Action, FieldId, FlowId, PacketKey, PacketMatch, PortId};
use offload::conformance::rules::{SHAPES, packet};
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult};
use offload_tc::fake::{FakeKernel, FakeSocket};
use offload_tc::{TcConfig, TcProvider};

pub const PORTS: [(PortId, u32); 2] = [(PortId(11), 1), (PortId(12), 2)];

pub fn provider(kernel: &FakeKernel, config: TcConfig) -> TcProvider<FakeSocket> {
    let mut p = TcProvider::new(kernel.socket(), config, Arc::new(ManualClock::new()));
    p.set_interfaces(&PORTS).unwrap();
    p
}

pub fn config() -> TcConfig {
    TcConfig { timeout: Duration::ZERO, retry: Duration::ZERO, ..TcConfig::new("br0") }
}

pub fn key(n: u32) -> PacketKey {
    packet(SHAPES[0], n, PortId(11))
}

/// Packets of one destination, and what is done with them.
pub fn rule(n: u32, actions: Arc<[Action]>) -> FlowRule {
    let k = key(n);
    let mut matches = PacketMatch::ANY;
    for f in [FieldId::DpPort, FieldId::EthType, FieldId::NwDst] {
        matches.set(f, k.get(f));
    }
    matches.set_masked(FieldId::VlanTci, 0, 0x1fff);
    FlowRule { id: FlowId(n.into()), matches, actions, provenance: [].into() }
}

pub fn run(p: &mut TcProvider<FakeSocket>, op: FlowOp) -> OpResult {
    assert_eq!(p.submit(&[op]), 1);
    let mut done = Vec::new();
    p.poll(&mut done, 8);
    assert_eq!(done.len(), 1);
    done.pop().unwrap().result
}

/// Installs a rule, by an operation that has its number.
pub fn install(p: &mut TcProvider<FakeSocket>, rule: FlowRule) -> HwHandle {
    match run(p, FlowOp::Install(OpId(rule.id.0), rule)) {
        OpResult::Installed(h, _) => h,
        r => panic!("{r:?}"),
    }
}
