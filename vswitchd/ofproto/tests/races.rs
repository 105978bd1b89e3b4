//! Changes that meet forwarding cores in the middle of a burst.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rig;

use std::sync::atomic::Ordering;
use std::time::Duration;

use datapath_api::{Miss, MissHandler};
use flow::frame::FrameBuilder;
use flow::{Action, PipelineMatch, PortId};
use openflow::switch::{OpenFlowSwitch, Reply};
use openflow::{Body, Instructions, Message};
use rig::{CONN, Rig, output};

fn barrier_passes(r: &Rig) -> bool {
    let reply = r.bridge.handle(CONN, Message { xid: 9, body: Body::BarrierRequest }).unwrap();
    match reply {
        Reply::Stream(mut s) => {
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            s.poll_next(&mut cx).is_ready()
        }
        Reply::None => false,
        Reply::One(_) | Reply::Many(_) => true,
    }
}

#[test]
fn what_a_core_was_installing_does_not_outlive_the_barrier() {
    let r = Rig::new();
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![output(2)]));
    r.switch.revalidate(r.now());
    // A core translates by the old tables ...
    let frame = FrameBuilder::new().ipv4([10, 0, 0, 1], [10, 0, 0, 2]).udp(1, 2).build();
    let key = flow::parse(&frame, PortId(11)).unwrap().key;
    let mut out = Vec::new();
    r.switch.translate(&[Miss { key, len_bytes: 60, tcp_flags: 0 }], r.now(), &mut out);
    let old = out.pop().unwrap().record().unwrap().clone();
    assert_eq!(old.actions[..], [Action::Output(PortId(12))]);
    // ... the tables change, and the core installs before it is done with its burst.
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![output(3)]));
    *r.dp.late.lock().unwrap() = Some(old);
    r.clock.advance(Duration::from_millis(1));
    r.switch.run(r.now());
    assert!(barrier_passes(&r));
    assert_eq!(r.packet(&frame, 1), [Action::Output(PortId(13))]);
}

#[test]
fn a_barrier_waits_for_a_core_that_does_not_finish() {
    let r = Rig::new();
    r.dp.stuck.store(true, Ordering::Relaxed);
    r.add(0, 1, PipelineMatch::ANY, Instructions::apply(vec![output(2)]));
    r.switch.run(r.now());
    assert!(!barrier_passes(&r));
    r.dp.stuck.store(false, Ordering::Relaxed);
    r.clock.advance(Duration::from_millis(1));
    // Nothing has changed since, but the last pass was not whole.
    assert!(r.switch.run(r.now()));
    assert!(barrier_passes(&r));
}
