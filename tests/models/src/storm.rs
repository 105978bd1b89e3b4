//! One fault model for every driver: what devices do wrong, in the order that a seed says, while packets and rules go on.
//!
//! ```text
//!   round: a mishap ─► frames come in, frames are sent, a rule is installed ─► mended ─► the device is back, and all of it works
//! ```
//!
//! Whatever happens: an operation ends once and with a result, a frame is handed over whole or not at all and at most once, an error
//! is a typed one, and what was in the tables of a device that was reset is software's again. [`storm`] panics otherwise, with seed
//! and round.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use device::{BufferPool, IoError, PacketBatch, QueuePair};
use offload::seed::Seed;
use offload::{FlowOp, FlowRule, HwHandle, OffloadProvider, OpId, OpResult};

/// What a device does wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Mishap {
    /// Registers read all ones.
    SurpriseRemoval,
    /// A completion never comes.
    NeverCompletes,
    /// A completion comes twice.
    CompletesTwice,
    /// A completion comes for something else, or out of order.
    OutOfOrder,
    /// A descriptor comes back with a length that cannot be.
    WrongLength,
    /// A completion says that it went wrong.
    ErrorCompletion,
    /// Interrupts do not arrive.
    LostInterrupts,
    /// A table has no room.
    TableFull,
    /// The device resets itself in the middle of a batch.
    ResetInBatch,
}

impl Mishap {
    /// All of them.
    pub const ALL: [Mishap; 9] = [
        Mishap::SurpriseRemoval,
        Mishap::NeverCompletes,
        Mishap::CompletesTwice,
        Mishap::OutOfOrder,
        Mishap::WrongLength,
        Mishap::ErrorCompletion,
        Mishap::LostInterrupts,
        Mishap::TableFull,
        Mishap::ResetInBatch,
    ];
}

/// A driver on a device that can be made to misbehave.
pub trait Subject {
    /// Has the device do `m` to what comes next; `way` chooses where it can in more ways than one. False when it cannot.
    fn strike(&mut self, m: Mishap, way: u64) -> bool;

    /// The device is there again, hears and is heard. What it has forgotten stays forgotten.
    fn mend(&mut self);

    /// A frame comes in from the wire, by the port that is received from.
    fn arrives(&mut self, frame: &[u8]);

    /// The queues of the port that is received from and sent by, and where the driver's packets come from.
    fn queues(&mut self) -> (&mut QueuePair, &BufferPool);

    /// What has left by the wire since the last time.
    fn left(&mut self) -> Vec<Vec<u8>>;

    /// The device's owner.
    fn provider(&mut self) -> &mut dyn OffloadProvider;

    /// A rule about frame `n`.
    fn rule(&mut self, n: u32) -> FlowRule;

    /// Time passes.
    fn advance(&mut self, d: Duration);
}

/// What the driver hands over by now.
pub(crate) fn received(s: &mut dyn Subject) -> Result<Vec<Vec<u8>>, IoError> {
    let mut batch = PacketBatch::new();
    s.queues().0.0.rx_burst(&mut batch)?;
    Ok(batch.drain_all().map(|p| p.to_vec()).collect())
}

/// Frames to be sent.
pub(crate) fn sends(s: &mut dyn Subject, frames: &[Vec<u8>]) -> Result<usize, IoError> {
    let (queues, pool) = s.queues();
    let mut batch = PacketBatch::new();
    frames.iter().for_each(|f| assert!(batch.push(pool.copy_from(f).unwrap()).is_ok()));
    queues.1.tx_burst(&mut batch)
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// How often the device did what.
    pub struck: BTreeMap<Mishap, u32>,
    /// Operations that ended installed, refused, failed.
    pub ended: [u32; 3],
    /// Bursts that ended in an error.
    pub errors: u32,
    /// How often the device was reset.
    pub resets: u64,
}

impl Report {
    /// Both.
    pub fn and(mut self, o: Report) -> Report {
        o.struck.iter().for_each(|(m, n)| *self.struck.entry(*m).or_default() += n);
        self.ended.iter_mut().zip(o.ended).for_each(|(a, b)| *a += b);
        self.errors += o.errors;
        self.resets += o.resets;
        self
    }
}

/// Looks at the device until it is back.
const LOOKS: u32 = 600;
/// Time between them.
const STEP: Duration = Duration::from_millis(20);
/// Frames, a tenth of a second apart, until one gets through a device that is back.
const PROBES: u32 = 60;

/// Frame `n`: its number is its source address, and what it is filled with follows from it.
pub fn frame(n: u32) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0xff, 0xff, 2, 0];
    f.extend(n.to_be_bytes());
    f.extend([0x88, 0xb5]);
    f.extend((0..46 + n % 300).map(|i| (i ^ n) as u8));
    f
}

struct Run<'a> {
    subject: &'a mut dyn Subject,
    at: String,
    next: u32,
    /// Frames that may still be handed over, and that may still leave.
    inbound: BTreeSet<u32>,
    outbound: BTreeSet<u32>,
    report: Report,
    /// Entries, the frame that each is about, and the life of the device that they are of.
    installed: Vec<(HwHandle, u32, u64)>,
}

impl Run<'_> {
    fn new_frame(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// Takes `frames` off those that are expected.
    fn check(at: &str, what: &str, expected: &mut BTreeSet<u32>, frames: &[Vec<u8>]) {
        for f in frames {
            let n = f.get(8..12).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_be_bytes(*b));
            let whole = n.is_some_and(|n| *f == frame(n));
            assert!(whole, "{at}: {what} is no frame of ours: {f:x?}");
            assert!(n.is_some_and(|n| expected.remove(&n)), "{at}: {what} twice, or from nowhere: {n:?}");
        }
    }

    fn take(&mut self) -> bool {
        match received(self.subject) {
            Ok(got) => {
                Self::check(&self.at, "received", &mut self.inbound, &got);
                !got.is_empty()
            }
            Err(_) => {
                self.report.errors += 1;
                false
            }
        }
    }

    fn arrive(&mut self, n: u32) -> bool {
        self.inbound.insert(n);
        self.subject.arrives(&frame(n));
        self.take()
    }

    fn send(&mut self, count: u64) -> bool {
        let all: Vec<u32> = (0..count).map(|_| self.new_frame()).collect();
        let frames: Vec<_> = all.iter().map(|n| frame(*n)).collect();
        match sends(self.subject, &frames) {
            Ok(_) => self.outbound.extend(all),
            Err(_) => self.report.errors += 1,
        }
        let left = self.subject.left();
        Self::check(&self.at, "sent", &mut self.outbound, &left);
        !left.is_empty()
    }

    /// An operation, to its end.
    fn operate(&mut self, op: FlowOp) -> OpResult {
        let id = op.id();
        let mut accepted = 0;
        let mut out = Vec::new();
        for _ in 0..LOOKS {
            let p = self.subject.provider();
            if accepted == 0 {
                accepted = p.submit(std::slice::from_ref(&op));
            }
            p.poll(&mut out, 64);
            if let Some(i) = out.iter().position(|c| c.op == id) {
                assert_eq!(out.len(), 1, "{}: {out:?}", self.at);
                return out.swap_remove(i).result;
            }
            self.subject.advance(STEP);
        }
        panic!("{}: {op:?} never ends", self.at)
    }

    fn keep(&mut self, h: HwHandle, n: u32) {
        let life = self.subject.provider().generation();
        self.installed.push((h, n, life));
    }

    fn install(&mut self) {
        let n = self.new_frame();
        let rule = self.subject.rule(n);
        match self.operate(FlowOp::Install(OpId(n.into()), rule)) {
            OpResult::Installed(h, _) => {
                self.report.ended[0] += 1;
                self.keep(h, n);
            }
            OpResult::Rejected(..) => self.report.ended[1] += 1,
            OpResult::Failed { left, .. } => {
                self.report.ended[2] += 1;
                // What may still be there is taken away.
                if let Some(h) = left {
                    self.keep(h, n);
                }
            }
            other => panic!("{}: {other:?}", self.at),
        }
    }

    fn remove(&mut self) {
        if let Some((h, n, _)) = self.installed.pop() {
            let id = OpId(u64::from(n) | 1 << 40);
            match self.operate(FlowOp::Remove(id, h)) {
                OpResult::Removed(..) | OpResult::Failed { left: None, .. } => {}
                OpResult::Failed { left: Some(h), .. } => self.keep(h, n),
                other => panic!("{}: {other:?}", self.at),
            }
        }
    }

    /// Gives the owner time to find out that something is stuck; false.
    fn wait(&mut self) -> bool {
        self.subject.advance(5 * STEP);
        self.subject.provider().poll(&mut Vec::new(), 64);
        false
    }

    /// Waits until the device is back, and everything works.
    fn recover(&mut self) {
        let mut out = Vec::new();
        for look in 0.. {
            assert!(look < LOOKS, "{}: {:?}", self.at, self.subject.provider().health());
            self.subject.advance(STEP);
            self.subject.provider().poll(&mut out, 64);
            assert!(out.is_empty(), "{}: {out:?}", self.at);
            if self.subject.provider().health().is_ok() && look > 8 {
                break;
            }
        }
        let through = |run: &mut Self, what: &str, try_it: fn(&mut Self) -> bool| {
            let works = (0..PROBES).any(|_| try_it(run) || run.wait());
            assert!(works, "{}: {what} no more", run.at);
        };
        through(self, "nothing is received", |r| {
            let n = r.new_frame();
            r.arrive(n)
        });
        through(self, "nothing is sent", |r| r.send(1));
    }
}

/// Has `subject` go through `rounds` mishaps.
///
/// # Panics
/// As the module says.
pub fn storm(seed: u64, rounds: u32, subject: &mut dyn Subject) -> Report {
    let mut seeds = Seed::new(seed);
    let mut run = Run {
        subject,
        at: String::new(),
        next: 0,
        inbound: BTreeSet::new(),
        outbound: BTreeSet::new(),
        report: Report::default(),
        installed: Vec::new(),
    };
    for round in 0..rounds {
        let m = *seeds.pick(&Mishap::ALL);
        run.at = format!("seed {seed}, round {round}, {m:?}");
        if run.subject.strike(m, seeds.next_u64()) {
            *run.report.struck.entry(m).or_default() += 1;
        }
        for _ in 0..=seeds.below(6) {
            match seeds.below(4) {
                0 | 1 => {
                    let n = run.new_frame();
                    run.arrive(n);
                }
                2 => drop(run.send(1 + seeds.below(8))),
                _ if seeds.percent(70) => run.install(),
                _ => run.remove(),
            }
        }
        run.subject.mend();
        run.recover();
        // The tables of an earlier life are empty: what they had forwarded is software's.
        let life = run.subject.provider().generation();
        let (theirs, rest) = std::mem::take(&mut run.installed).into_iter().partition(|(_, _, l)| *l != life);
        run.installed = rest;
        let theirs: Vec<(HwHandle, u32, u64)> = theirs;
        for (_, n, _) in theirs {
            let came = (0..PROBES).any(|_| run.arrive(n) || run.wait());
            assert!(came, "{}: frame {n} does not come to software", run.at);
        }
    }
    run.at = format!("seed {seed}, at the end");
    for _ in 0..rounds {
        run.remove();
    }
    run.report.resets = run.subject.provider().generation();
    run.report
}
