//! What the platform says of a device from outside its queues, to any driver: that it has failed for good (AER), and that it is wanted
//! back (hot unplug).

use std::time::Duration;

use device::{ErrorEvents, IoError, PacketBatch};
use offload::{FlowOp, OffloadError, OpId, OpResult};

use crate::storm::{Subject, frame, received, sends};

/// Looks at the device until something is so.
const LOOKS: u32 = 600;
/// Time between them.
const STEP: Duration = Duration::from_millis(20);

fn look(s: &mut dyn Subject) {
    s.advance(STEP);
    s.provider().poll(&mut Vec::new(), 64);
}

/// Frames from number `n` on go both ways, in the end.
fn assert_forwards(s: &mut dyn Subject, n: u32) {
    let came = (0..LOOKS).any(|i| {
        let f = frame(n + i);
        // A queue starts itself anew when its thread comes by.
        let _ = received(s);
        s.arrives(&f);
        received(s).is_ok_and(|got| got.contains(&f)) || {
            look(s);
            false
        }
    });
    assert!(came, "nothing is received");
    let f = frame(n + LOOKS);
    let left = (0..LOOKS).any(|_| {
        let _ = sends(s, std::slice::from_ref(&f));
        s.left().contains(&f) || {
            look(s);
            false
        }
    });
    assert!(left, "nothing is sent");
}

/// Each fatal error that the platform reports costs the device one reset, and it comes back empty and forwards; errors that are not
/// fatal cost nothing.
///
/// # Panics
/// When it is otherwise.
pub fn fatal_errors_cost_a_reset_each(s: &mut dyn Subject, errors: &ErrorEvents) {
    assert_forwards(s, 0);
    for round in 1..=3 {
        let before = s.provider().generation();
        errors.report_nonfatal();
        look(s);
        assert_eq!((s.provider().generation(), s.provider().health().is_ok()), (before, true));
        errors.report_fatal();
        let back = (0..LOOKS).any(|_| {
            look(s);
            s.provider().generation() > before && s.provider().health().is_ok()
        });
        assert!(back, "round {round}: {:?}", s.provider().health());
        assert_eq!(s.provider().generation(), before + 1, "round {round}: one reset");
        assert!(s.provider().dump().unwrap().is_empty(), "round {round}");
        assert_forwards(s, round * 10_000);
    }
    assert!(!s.provider().is_wanted_back());
}

/// A device that is asked for is given up and never touched again: the queues say so, operations end, and the owner can tell.
///
/// # Panics
/// When it is otherwise.
pub fn a_device_that_is_asked_for_is_given_up(s: &mut dyn Subject, errors: &ErrorEvents) {
    assert_forwards(s, 0);
    let rule = s.rule(90_000);
    let generation = s.provider().generation();
    let under_way = s.provider().submit(&[FlowOp::Install(OpId(1), rule)]);
    errors.request_unplug();
    let mut out = Vec::new();
    for _ in 0..LOOKS {
        s.advance(STEP);
        s.provider().poll(&mut out, 64);
    }
    assert_eq!(out.len(), under_way, "{out:?}");
    // One that the device had done by then may say so: it is void with the rest, as the generation has risen.
    let left = |r: &OpResult| matches!(r, OpResult::Failed { left: Some(_), .. });
    assert!(!out.iter().any(|c| left(&c.result)) && s.provider().generation() > generation, "{out:?}");
    let why = s.provider().health();
    assert!(matches!(&why, Err(OffloadError::DeviceDown(w)) if w.contains("asks for")), "{why:?}");
    assert!(s.provider().is_wanted_back());
    assert!(matches!(received(s), Err(IoError::Down)), "a queue of a device that is down");
    assert!(matches!(sends(s, &[frame(1)]), Err(IoError::Down)));
    let before = s.provider().generation();
    (0..LOOKS).for_each(|_| look(s));
    assert_eq!(s.provider().generation(), before, "it is left alone");
    let mut batch = PacketBatch::new();
    assert!(s.queues().0.0.rx_burst(&mut batch).is_err() && batch.iter().next().is_none());
}
