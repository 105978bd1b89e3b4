//! Whatever the kernel answers: the record stays in software, nothing leaks, a later attempt succeeds, and the reason is the kernel's.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use clock::ManualClock;
use flow::{Action, FieldId, FlowId, PacketMatch, PortId};
use nix::errno::Errno;
use offload::conformance::rules::{SHAPES, packet};
use offload::{Completion, FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult, Reject, StatsCursor};
use offload_tc::fake::{FakeKernel, FakeSocket, Faults};
use offload_tc::message::messages;
use offload_tc::transport::Transport;
use offload_tc::wire::NLMSG_HEADER;
use offload_tc::{TcConfig, TcProvider};

const PORTS: [(PortId, u32); 2] = [(PortId(11), 1), (PortId(12), 2)];

fn config() -> TcConfig {
    TcConfig { timeout: Duration::ZERO, retry: Duration::ZERO, ..TcConfig::new("br0") }
}

fn provider<T: Transport>(link: T) -> TcProvider<T> {
    let mut p = TcProvider::new(link, config(), Arc::new(ManualClock::new()));
    p.set_interfaces(&PORTS).unwrap();
    p
}

fn rule(n: u32) -> FlowRule {
    let k = packet(SHAPES[0], n, PortId(11));
    let mut matches = PacketMatch::ANY;
    for f in [FieldId::DpPort, FieldId::EthType] {
        matches.set(f, k.get(f));
    }
    matches.set(FieldId::NwDst, u128::from(0x0a00_0000 + n));
    matches.set_masked(FieldId::VlanTci, 0, 0x1fff);
    let actions = [Action::Output(PortId(12))].into();
    FlowRule { id: FlowId(n.into()), matches, actions, provenance: [].into() }
}

/// Lets everything that was submitted end; what came of it.
fn end<T: Transport>(p: &mut TcProvider<T>) -> Vec<Completion> {
    let mut done = Vec::new();
    for _ in 0..100 {
        p.poll(&mut done, 4096);
        if p.outstanding() == 0 {
            return done;
        }
    }
    panic!("{} operations never end", p.outstanding());
}

fn one<T: Transport>(p: &mut TcProvider<T>, op: FlowOp) -> OpResult {
    assert_eq!(p.submit(&[op]), 1);
    let mut all = end(p);
    assert_eq!(all.len(), 1);
    all.pop().unwrap().result
}

fn install<T: Transport>(p: &mut TcProvider<T>, n: u32) -> HwHandle {
    match one(p, FlowOp::Install(OpId(1), rule(n))) {
        OpResult::Installed(h, _) => h,
        r => panic!("{r:?}"),
    }
}

/// Every number that a system call may fail with.
fn errors() -> impl Iterator<Item = Errno> {
    (1..134).map(Errno::from_raw).filter(|e| *e != Errno::UnknownErrno)
}

#[test]
fn every_error_number_with_and_without_words_is_the_reason_and_a_later_attempt_succeeds() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(kernel.socket());
    for e in errors() {
        for words in ["", "the driver says no"] {
            kernel.refuse_next(e as i32, words);
            let r = one(&mut p, FlowOp::Install(OpId(1), rule(1)));
            let OpResult::Rejected(Reject::Device { errno, text, .. }, None) = &r else {
                panic!("{e}: {r:?}")
            };
            let wanted = if words.is_empty() { e.desc() } else { words };
            assert_eq!((*errno, text.as_str()), (e as i32, wanted));
            assert!(kernel.filters().is_empty() && p.filters() == 0, "{e} leaves something");
        }
        let h = install(&mut p, 1);
        assert!(matches!(one(&mut p, FlowOp::Remove(OpId(2), h)), OpResult::Removed(..)), "{e}");
    }
}

#[test]
fn every_error_number_of_a_removal_leaves_the_entry_or_means_that_it_is_gone() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(kernel.socket());
    for e in errors() {
        let h = install(&mut p, 1);
        kernel.refuse_next(e as i32, "");
        let gone = matches!(e, Errno::ENOENT | Errno::ENODEV | Errno::EINVAL);
        match one(&mut p, FlowOp::Remove(OpId(2), h)) {
            OpResult::Removed(..) if gone => {
                // It was not so: what nobody claims is found and removed.
                for _ in 0..3 {
                    p.poll_stats(&mut StatsCursor::default(), 100).unwrap();
                }
                p.flush().unwrap();
            }
            OpResult::Failed { left: Some(l), .. } if !gone && l == h => {
                let r = one(&mut p, FlowOp::Remove(OpId(3), h));
                assert!(matches!(r, OpResult::Removed(..)), "{e}: {r:?}");
            }
            r => panic!("{e}: {r:?}"),
        }
        assert!(kernel.filters().is_empty() && p.filters() == 0, "{e} leaves something");
    }
}

#[test]
fn every_error_number_of_a_replacement_leaves_neither_half() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(kernel.socket());
    for e in errors() {
        let h = install(&mut p, 1);
        kernel.refuse_next(e as i32, "no");
        let drops = FlowRule { actions: [].into(), ..rule(1) };
        let r = one(&mut p, FlowOp::Replace(OpId(2), h, drops));
        assert!(
            matches!(&r, OpResult::Rejected(Reject::Device { errno, .. }, Some(_)) if *errno == e as i32)
        );
        assert!(kernel.filters().is_empty() && p.filters() == 0, "{e} leaves something");
    }
}

/// A link by which an interface goes away after so many requests.
struct Vanishing {
    inner: FakeSocket,
    kernel: FakeKernel,
    after: Option<usize>,
}

impl Transport for Vanishing {
    fn send(&mut self, all: &[u8]) -> io::Result<()> {
        let mut at = 0;
        for m in messages(all) {
            let len = (m.unwrap().body.len() + NLMSG_HEADER).next_multiple_of(4);
            let one = all.get(at..(at + len).min(all.len())).unwrap();
            at += len;
            if let Some(n) = self.after {
                if n == 0 {
                    self.kernel.remove_interface(1);
                    self.after = None;
                } else {
                    self.after = Some(n - 1);
                }
            }
            self.inner.send(one)?;
        }
        Ok(())
    }

    fn receive(&mut self, into: &mut Vec<u8>, wait: Duration) -> io::Result<bool> {
        self.inner.receive(into, wait)
    }
}

#[test]
fn a_device_that_goes_in_the_middle_of_a_batch_leaves_nothing_and_may_come_back() {
    for after in [0, 1, 7, 31, 63] {
        let kernel = FakeKernel::new(&[1, 2]);
        // Nothing else is asked between the batch's requests.
        let link = Vanishing { inner: kernel.socket(), kernel: kernel.clone(), after: None };
        let mut p = provider(VanishAt::new(link, after));
        let ops: Vec<FlowOp> = (0..64).map(|n| FlowOp::Install(OpId(n.into()), rule(n))).collect();
        assert_eq!(p.submit(&ops), 64);
        let done = end(&mut p);
        assert_eq!(done.len(), 64, "each has one answer");
        let installed = done.iter().filter(|c| matches!(c.result, OpResult::Installed(..))).count();
        assert_eq!(installed, after);
        for c in &done {
            match &c.result {
                OpResult::Installed(..) => {}
                OpResult::Rejected(Reject::Device { errno, .. }, None) => {
                    assert_eq!(*errno, Errno::ENODEV as i32);
                }
                r => panic!("{r:?}"),
            }
        }
        // Those that were there are told as lost.
        let mut lost = 0;
        for _ in 0..3 {
            lost += p.poll_stats(&mut StatsCursor::default(), 100).unwrap().lost.len();
        }
        assert_eq!((lost, p.filters()), (installed, 0), "after {after}");
        kernel.add_interface(1);
        p.set_interfaces(&[]).unwrap();
        p.set_interfaces(&PORTS).unwrap();
        install(&mut p, 1);
        assert_eq!(kernel.filters().len(), 1);
    }
}

/// [`Vanishing`], from its first batch on: what a provider asks when it gets its ports comes before.
struct VanishAt {
    inner: Vanishing,
    after: usize,
}

impl VanishAt {
    fn new(inner: Vanishing, after: usize) -> Self {
        VanishAt { inner, after }
    }
}

impl Transport for VanishAt {
    fn send(&mut self, all: &[u8]) -> io::Result<()> {
        if messages(all).count() == 64 {
            self.inner.after = Some(self.after);
        }
        self.inner.send(all)
    }

    fn receive(&mut self, into: &mut Vec<u8>, wait: Duration) -> io::Result<bool> {
        self.inner.receive(into, wait)
    }
}

#[test]
fn a_table_that_is_full_refuses_by_the_kernels_words_until_there_is_room() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(kernel.socket());
    kernel.set_limit(3);
    let all: Vec<HwHandle> = (0..3).map(|n| install(&mut p, n)).collect();
    for _ in 0..3 {
        let r = one(&mut p, FlowOp::Install(OpId(9), rule(9)));
        assert!(matches!(&r, OpResult::Rejected(Reject::Device { errno, .. }, None)
            if *errno == Errno::ENOSPC as i32));
    }
    assert_eq!((kernel.filters().len(), p.filters()), (3, 3));
    assert!(matches!(one(&mut p, FlowOp::Remove(OpId(10), all[0])), OpResult::Removed(..)));
    install(&mut p, 9);
}

#[test]
fn dumps_that_are_interrupted_are_begun_again_and_one_that_always_is_leaves_counters_as_they_were() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(kernel.socket());
    let h = install(&mut p, 1);
    let mut key = packet(SHAPES[0], 1, PortId(11));
    key.set(FieldId::NwDst, 0x0a00_0001);
    let read = |p: &mut TcProvider<FakeSocket>| p.poll_stats(&mut StatsCursor::default(), 100);
    assert!(kernel.receive(1, &key, 100).is_some());
    let packets = |b: offload::StatsBatch| b.stats.iter().find(|s| s.0 == h).unwrap().2.packets;
    assert_eq!(packets(read(&mut p).unwrap()), 1);
    kernel.set_faults(Faults { interrupt: 100, ..Faults::default() }, 1);
    assert!(kernel.receive(1, &key, 100).is_some());
    assert!(read(&mut p).is_err());
    assert!(p.counters().interrupted >= 4);
    assert!(p.health().is_ok());
    kernel.set_faults(Faults { interrupt: 40, ..Faults::default() }, 3);
    let mut got = None;
    for _ in 0..50 {
        got = got.or_else(|| read(&mut p).ok().map(packets));
    }
    assert_eq!(got, Some(2));
    assert_eq!((kernel.filters().len(), p.filters()), (1, 1), "nothing was put back that was there");
}

#[test]
fn answers_that_overrun_the_socket_are_asked_for_again_and_no_filter_is_forgotten() {
    for seed in 0..20 {
        let kernel = FakeKernel::new(&[1, 2]);
        let mut p = provider(kernel.socket());
        kernel.set_faults(Faults { overrun: 30, ..Faults::default() }, seed);
        let ops: Vec<FlowOp> = (0..200).map(|n| FlowOp::Install(OpId(n.into()), rule(n))).collect();
        assert_eq!(p.submit(&ops), 200);
        let done = end(&mut p);
        assert_eq!(done.len(), 200);
        kernel.set_faults(Faults::default(), seed);
        while p.health().is_err() {
            p.poll(&mut Vec::new(), 1);
        }
        p.poll_stats(&mut StatsCursor::default(), 1000).unwrap();
        assert_eq!(kernel.filters().len(), p.filters(), "seed {seed}");
        assert!(p.counters().resyncs > 0);
        p.flush().unwrap();
        install(&mut p, 1);
        assert_eq!(kernel.filters().len(), 1);
    }
}

#[test]
fn filters_that_a_dump_leaves_out_are_asked_for_and_not_believed_gone() {
    let kernel = FakeKernel::new(&[1, 2]);
    let mut p = provider(kernel.socket());
    for n in 1..=50 {
        install(&mut p, n);
    }
    let mut key = packet(SHAPES[0], 1, PortId(11));
    kernel.set_faults(Faults { overlook: 30, ..Faults::default() }, 7);
    for round in 1..=20u64 {
        for n in 1..=50 {
            key.set(FieldId::NwDst, 0x0a00_0000 + n);
            assert!(kernel.receive(1, &key, 100).is_some());
        }
        let b = p.poll_stats(&mut StatsCursor::default(), 100).unwrap();
        assert!(b.lost.is_empty() && b.stats.len() == 50, "round {round}: {b:?}");
        assert!(b.stats.iter().all(|(_, _, s)| s.packets == round), "round {round}: {b:?}");
    }
    assert_eq!((p.counters().put_back, kernel.filters().len()), (0, 50));
    // One that has really gone comes back all the same.
    let at = kernel.filters()[9].0;
    assert!(kernel.remove_filter(&at));
    p.poll_stats(&mut StatsCursor::default(), 100).unwrap();
    assert_eq!((p.counters().put_back, kernel.filters().len()), (1, 50));
}
