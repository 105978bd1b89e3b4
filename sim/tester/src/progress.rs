//! A run of traffic in the making: it can be stopped in any cycle, saved with the device, and gone on with in another process.
//!
//! Frames are put on the wires in chunks of [`AHEAD`] frame times, so that a run that is stopped and gone on with does the same in the same
//! cycles as one that is not. What is sent when follows from the loads; saved is how far it has come and what came back.

use std::collections::{BTreeMap, HashSet};

use kernel::{Reader, State, Writer};
use nic::{Bed, Checkpoint, SimStats};

use crate::check::{Checker, Outcome};
use crate::frame::{Signature, frame, sign};
use crate::load::Load;
use crate::run::{AHEAD, Lane, Lost, REST_CYCLES, TestError, Tester};

/// Frames of a run, all loads together, that a checkpoint may ask for.
const MOST_FRAMES: u64 = 1 << 28;

/// A run: what is to be sent, how far it is, what came back.
pub struct Run {
    loads: Vec<(Load, u64)>,
    len: usize,
    /// Cycle of the first frame, and that a frame takes on the wire.
    start: u64,
    wire: u64,
    /// What the stages had done before it, which was to take the rules.
    before: Vec<[u64; 5]>,
    /// In order of their cycles: cycle, port, lane, flow.
    schedule: Vec<(u64, u8, u8, u32)>,
    progress: Progress,
}

/// The part that changes.
#[derive(Default)]
struct Progress {
    /// Frames of the schedule that are on the wires.
    sent: usize,
    /// End of the chunk under way.
    until: u64,
    /// All frames are sent; the device is given until then to come to rest.
    rest_until: Option<u64>,
    serials: BTreeMap<u32, u32>,
    checker: Checker,
    received: HashSet<(u32, u32)>,
}

kernel::state!(struct Progress { sent, until, rest_until, serials, checker, received });

impl Run {
    /// Cycle of the first frame.
    pub fn start(&self) -> u64 {
        self.start
    }

    /// What the device did since the run began, of all that `stats` says.
    pub fn of_it(&self, stats: SimStats) -> SimStats {
        stats.over(self.start, &self.before)
    }
}

impl Tester {
    /// Prepares a run of one load after the other without a pause; nothing is sent yet.
    pub fn begin(&self, loads: &[(Load, u64)], len: usize) -> Run {
        let before = self.sim().stats().accounts();
        self.run_of(loads, len, (self.sim().cycle().0 + 1, before), Progress::default())
    }

    fn run_of(
        &self,
        loads: &[(Load, u64)],
        len: usize,
        (start, before): (u64, Vec<[u64; 5]>),
        progress: Progress,
    ) -> Run {
        let wire = self.config.wire_cycles(len);
        let mut schedule = Vec::new();
        let mut ports: Vec<u8> = self.lanes.iter().map(|l| l.from).collect();
        ports.sort_unstable();
        ports.dedup();
        for port in ports {
            let lanes: Vec<usize> = (0..self.lanes.len()).filter(|i| self.lanes[*i].from == port).collect();
            let mut at = start;
            for (load, frames) in loads {
                let times = load.departures(*frames, self.config.wire_time(len));
                for (i, t) in times.iter().enumerate() {
                    let lane = lanes[i % lanes.len()];
                    let flow = lane as u32 * self.flows + load.flow((i / lanes.len()) as u64, self.flows);
                    schedule.push((at.saturating_add(*t), port, lane as u8, flow));
                }
                at = at.saturating_add(times.last().map_or(0, |t| t.saturating_add(wire)));
            }
        }
        schedule.sort_unstable();
        Run { loads: loads.to_vec(), len, start, wire, before, schedule, progress }
    }

    /// Goes on with a run until it is done or cycle `stop` begins; says whether it is done.
    ///
    /// # Errors
    /// When the device does not come to rest, or its wires hold less than they should.
    pub fn advance(&mut self, run: &mut Run, stop: u64) -> Result<bool, TestError> {
        let mut templates: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let chunk = run.wire * AHEAD;
        loop {
            let (now, p) = (self.sim().cycle().0, &mut run.progress);
            if let Some(end) = p.rest_until {
                let idle = self.sim().run_until_idle(end.min(stop).saturating_sub(now));
                self.collect(&mut p.checker, &mut p.received, run.wire);
                return match idle {
                    true => Ok(true),
                    false if stop < end => Ok(false),
                    false => Err(TestError::Restless),
                };
            }
            if now >= p.until {
                if p.sent >= run.schedule.len() {
                    p.rest_until = Some(now + REST_CYCLES);
                    continue;
                }
                p.until = now + chunk;
                while let Some((at, port, lane, flow)) = run.schedule.get(p.sent).filter(|s| s.0 < p.until) {
                    let f = templates.entry(*flow).or_insert_with(|| frame(*flow, *lane, run.len));
                    let serial = p.serials.entry(*flow).or_insert(0);
                    sign(f, Signature { flow: *flow, serial: *serial, departed: *at });
                    *serial += 1;
                    p.sent += 1;
                    if !self.bed.send(*port, *at, f) {
                        return Err(TestError::Nonsense(format!("the wire to port {port} is full")));
                    }
                }
                if let Some((last, ..)) = run.schedule.last().filter(|_| p.sent >= run.schedule.len()) {
                    // No longer than there is something to be put on the wires: what is idle afterwards is not of the run.
                    p.until = p.until.min(last + 1).max(now + 1);
                }
            }
            let to = p.until.min(stop);
            self.sim().step(to.saturating_sub(now));
            if to < p.until {
                return Ok(false);
            }
            self.collect(&mut p.checker, &mut p.received, run.wire);
        }
    }

    /// What came of a run, and which frames were lost.
    pub fn finish(&self, run: Run) -> (Outcome, Vec<Lost>) {
        let Run { schedule, progress: p, start, .. } = run;
        let mut serials: BTreeMap<u32, u32> = BTreeMap::new();
        let mut lost = Vec::new();
        for (departed, _, _, flow) in &schedule[..p.sent.min(schedule.len())] {
            let serial = serials.entry(*flow).or_insert(0);
            if !p.received.contains(&(*flow, *serial)) {
                lost.push(Lost { flow: *flow, departed: *departed });
            }
            *serial += 1;
        }
        (p.checker.finish(schedule.len() as u64, start), lost)
    }

    /// The device and the run as they are, as the bytes of a file.
    ///
    /// # Errors
    /// When the device's configuration cannot be written.
    pub fn checkpoint(&self, run: &Run) -> Result<Vec<u8>, TestError> {
        let mut w = Writer::default();
        self.bed.save(&mut w);
        self.lanes.iter().map(|l| (l.from, l.to)).collect::<Vec<_>>().save(&mut w);
        self.flows.save(&mut w);
        run.loads.save(&mut w);
        (run.len, run.start).save(&mut w);
        run.before.save(&mut w);
        run.progress.save(&mut w);
        let c = self.sim().checkpoint().ok_or(TestError::Nonsense("the device runs live".into()))?;
        Ok(c.to_bytes(&w.finish())?)
    }

    /// Goes on with what [`Tester::checkpoint`] saved.
    ///
    /// # Errors
    /// [`TestError::Checkpoint`] and others, for bytes that are not that.
    pub fn resume(bytes: &[u8]) -> Result<(Tester, Run), TestError> {
        let (c, beside) = Checkpoint::from_bytes(bytes)?;
        let r = &mut Reader::new(&beside);
        let bed = Bed::resume(&c, r)?;
        let config = bed.sim().config();
        let lanes: Vec<(u8, u8)> = State::load(r)?;
        let flows: u32 = State::load(r)?;
        let lanes: Vec<Lane> = lanes.into_iter().map(|(from, to)| Lane { from, to }).collect();
        let ports = config.device.ports;
        if lanes.is_empty() || lanes.len() > 256 || lanes.iter().any(|l| l.from >= ports || l.to >= ports) {
            return Err(r.damage("lanes of this device").into());
        }
        let loads: Vec<(Load, u64)> = State::load(r)?;
        let (len, start): (usize, u64) = State::load(r)?;
        let before: Vec<[u64; 5]> = State::load(r)?;
        let frames = loads.iter().try_fold(0u64, |all, (_, n)| all.checked_add(*n));
        let frames = frames.and_then(|n| n.checked_mul(u64::from(ports)));
        let size = 60..=usize::from(config.device.max_frame_bytes);
        if flows == 0 || flows > 1 << 20 || frames.is_none_or(|n| n > MOST_FRAMES) || !size.contains(&len) {
            return Err(r.damage("run of this device").into());
        }
        let progress = Progress::load(r)?;
        r.end()?;
        let t = Tester { bed, config, lanes, flows };
        let run = t.run_of(&loads, len, (start, before), progress);
        Ok((t, run))
    }
}
