//! Egress queues: weights, strict priority, the shared buffer; PAUSE.

use simnic_defs::HwAction;

use super::{device, settle, to_dst};
use crate::{Config, DropReason, frames};

/// A frame of 60 bytes with this TOS.
fn with_tos(tos: u8) -> Vec<u8> {
    let mut f = frames::udp4([1, 1, 1, 1], [10, 0, 0, 1], 5, 6);
    f[15] = tos;
    f
}

/// Sends `n` rounds of one frame of each TOS by port 0 and port 1, all to port 2; TOS of the frames that came out, in order.
fn out_of_port_2(c: Config, tos: &[u8], n: usize) -> (crate::SimHandle, Vec<u8>) {
    let (sim, mut h) = device(c);
    h.install_exact(0, &to_dst([10, 0, 0, 1], &[HwAction::Output { port: 2 }])).unwrap();
    for _ in 0..n {
        for t in tos {
            assert!(sim.inject(0, &with_tos(*t)) && sim.inject(1, &with_tos(*t)));
        }
    }
    settle(&sim);
    let out = sim.collect(2).iter().map(|f| f[15]).collect();
    (sim, out)
}

#[test]
fn overloaded_queues_share_the_line_by_their_weights() {
    let mut c = Config::default();
    (c.port.egress_queues, c.port.weights, c.port.egress_queue_frames) = (2, vec![1, 3], 64);
    let (_, out) = out_of_port_2(c, &[0x00, 0xe0], 1500);
    // While both are overloaded: the middle of the run.
    let middle = &out[200..out.len() - 400];
    let high = middle.iter().filter(|t| **t == 0xe0).count() as f64 / middle.len() as f64;
    assert!((high - 0.5).abs() > 0.05 || middle.len() < 100, "{high}: the weights do nothing");
    assert!((0.60..=0.78).contains(&high), "{high} of the line for a weight of 3 in 4");
}

#[test]
fn a_strict_queue_loses_nothing_while_the_others_do() {
    let mut c = Config::default();
    (c.port.egress_queues, c.port.strict_queues, c.port.egress_queue_frames) = (4, 1, 32);
    let (sim, out) = out_of_port_2(c, &[0x00, 0x20, 0xe0], 500);
    assert_eq!(out.iter().filter(|t| **t == 0xe0).count(), 1000);
    assert!(out.len() < 3000);
    let lost: u64 = sim.drops().iter().map(|d| d.2).sum();
    assert_eq!(out.len() as u64 + lost, 3000);
    assert!(sim.drops().iter().all(|d| d.1 == DropReason::EgressQueue));
}

#[test]
fn one_full_queue_leaves_room_in_the_shared_buffer() {
    for (threshold, share) in [(16, 0.5), (32, 2.0 / 3.0), (8, 1.0 / 3.0)] {
        let mut c = Config::default();
        (c.port.shared_frames, c.port.threshold_16ths) = (240, threshold);
        let (sim, _) = out_of_port_2(c, &[0], 1500);
        let q = sim.stats().queues.into_iter().find(|q| q.name == "port2 egress").unwrap();
        // threshold / (1 + threshold) of the buffer for a single queue (Choudhury and Hahne).
        let want = share * 240.0;
        assert!((f64::from(q.max_occupancy) - want).abs() <= 2.0, "{} instead of {want}", q.max_occupancy);
    }
}

#[test]
fn a_pause_frame_silences_the_transmitter_for_its_quanta() {
    let mut c = Config::default();
    c.port.obey_pause = true;
    let (sim, mut h) = device(c);
    h.install_exact(0, &to_dst([10, 0, 0, 1], &[HwAction::Output { port: 2 }])).unwrap();
    let mut pause = vec![0; 60];
    pause[..6].copy_from_slice(&[0x01, 0x80, 0xc2, 0, 0, 1]);
    pause[12..18].copy_from_slice(&[0x88, 0x08, 0, 1, 0, 100]);
    let time = |paused: bool| {
        let start = sim.cycle().0;
        if paused {
            sim.inject(2, &pause);
        }
        sim.inject(0, &with_tos(0));
        settle(&sim);
        assert_eq!(sim.collect(2).len(), 1);
        sim.cycle().0 - start
    };
    let (free, paused) = (time(false), time(true));
    // 100 quanta of 512 bits at 25 Gb/s are 2048 ns, 512 cycles.
    assert!((512 - 60..=512 + 10).contains(&(paused - free)), "{free} {paused}");
    assert_eq!(sim.drops(), [(2, DropReason::MacControl, 1)]);
}

#[test]
fn a_filling_ingress_queue_asks_for_a_pause_and_ends_it() {
    let mut c = Config::default();
    c.parser.interval_cycles = 50;
    (c.port.pause_at_frames, c.port.resume_at_frames) = (32, 8);
    let (sim, mut h) = device(c);
    h.install_exact(0, &to_dst([10, 0, 0, 1], &[HwAction::Output { port: 2 }])).unwrap();
    for _ in 0..48 {
        sim.inject(0, &with_tos(0));
    }
    settle(&sim);
    let sent = sim.collect(0);
    let quanta: Vec<_> = sent.iter().map(|f| u16::from_be_bytes([f[16], f[17]])).collect();
    assert_eq!(quanta, [0xffff, 0], "{sent:02x?}");
    assert_eq!((sim.collect(2).len(), sim.account().made), (48, 2));
    assert!(sim.account().balances());
}
