//! RFC 2544: throughput (26.1), latency (26.2), frame loss rate (26.3), back-to-back frames (26.4), system recovery (26.5).
//!
//! Trials are counted in frames of simulated time, not in the sixty seconds of a device on a table: a simulated device has no
//! background activity to wait for, and repeats to the bit, so that one trial is as good as twenty. Every port sends to the next one, all
//! at once, one flow each unless told otherwise. Reset (26.6) is a matter of the driver and not measured here.

use serde::Serialize;

use crate::check::Outcome;
use crate::load::Load;
use crate::run::{Rules, TestError, Tester, ring_of_ports};

/// Frame sizes for Ethernet, with FCS (RFC 2544 9.1).
pub const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 1280, 1518];

/// What is asked for.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    /// Frame sizes in bytes, with FCS.
    pub sizes: Vec<usize>,
    /// Frames that each port sends in a trial.
    pub frames: u64,
    /// Flows of each port.
    pub flows: u32,
    /// How close the search for the throughput comes, in shares of the line rate.
    pub resolution: f64,
    /// Longest burst that is tried.
    pub longest_burst: u64,
    /// Where the rules are.
    pub rules: Rules,
    /// Seed of the device.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            sizes: SIZES.to_vec(),
            frames: 2000,
            flows: 1,
            resolution: 0.005,
            longest_burst: 16_384,
            rules: Rules::Exact,
            seed: 1,
        }
    }
}

/// Frames of each port in a trial for the throughput, at most, unless more are asked for.
const MOST_SUSTAINED: u64 = 100_000;

/// Latency in nanoseconds of simulated time: last bit in to first bit out.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[allow(missing_docs)]
pub struct LatencyNs {
    pub min: f64,
    pub mean: f64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl LatencyNs {
    /// Of a run.
    pub fn of(t: &Tester, o: &Outcome) -> Self {
        let h = &o.latency_cycles;
        let ns = |c: u64| t.ns(c as f64);
        LatencyNs {
            min: ns(h.range().0),
            mean: t.ns(h.mean()),
            p50: ns(h.quantile(0.5)),
            p99: ns(h.quantile(0.99)),
            p999: ns(h.quantile(0.999)),
            max: ns(h.range().1),
        }
    }
}

/// Frames lost at an offered load.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct LossPoint {
    /// Share of line rate offered, 0 to 1.
    pub offered: f64,
    /// Share of frames lost, 0 to 1.
    pub loss: f64,
    /// Frames forwarded per second and port.
    pub forwarded_fps: f64,
}

/// What was found for one frame size.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SizeReport {
    /// Frame size in bytes, with FCS.
    pub size_bytes: usize,
    /// Frames per second that the line of a port can carry.
    pub line_fps: f64,
    /// Highest share of the line rate at which nothing was lost, 0 to 1; the least rate tried when something always was.
    pub throughput: f64,
    /// The same in frames per second and port.
    pub throughput_fps: f64,
    /// The same in megabits of frames per second and port.
    pub throughput_mbps: f64,
    /// Latency at that rate.
    pub latency: LatencyNs,
    /// Frames of a flow that overtook others, at that rate.
    pub reordered: u64,
    /// Loss from full line rate downwards, in steps of a tenth, until nothing is lost twice in a row.
    pub loss: Vec<LossPoint>,
    /// Longest burst at line rate of which nothing is lost.
    pub back_to_back_frames: u64,
    /// Whether that is the longest burst that was tried.
    pub back_to_back_is_a_bound: bool,
    /// Nanoseconds from the end of an overload until nothing is lost any more; none when the line cannot overload the device.
    pub recovery_ns: Option<f64>,
}

/// The whole report.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// What was tested, in the profile's words.
    pub device: String,
    /// Ports, each of which sent and received.
    pub ports: u8,
    /// Speed of a port.
    pub speed_mbps: u32,
    /// Flows of each port.
    pub flows: u32,
    /// Frames of each port in a trial.
    pub trial_frames: u64,
    /// By frame size.
    pub sizes: Vec<SizeReport>,
}

/// Runs all tests for every frame size.
///
/// # Errors
/// When the device fails, or frames do not suit it.
pub fn run(config: &nic::Config, o: &Options) -> Result<Report, TestError> {
    if o.frames < 2 || !(1e-6..=0.5).contains(&o.resolution) {
        return Err(TestError::Nonsense(
            "a trial has two frames at least, a resolution is between 1e-6 and 0.5".into(),
        ));
    }
    let lanes = ring_of_ports(config.device.ports);
    let mut t = Tester::new(config.clone(), o.seed, &lanes, o.flows, o.rules)?;
    let longest = usize::from(config.device.max_frame_bytes);
    let mut sizes = Vec::new();
    for &size in &o.sizes {
        let len = size.saturating_sub(4);
        if !(60..=longest).contains(&len) {
            let why = format!("frames of {size} bytes: the device takes 64 to {}", longest + 4);
            return Err(TestError::Nonsense(why));
        }
        sizes.push(one_size(&mut t, o, size, len)?);
    }
    Ok(Report {
        device: config.profile.about.clone(),
        ports: config.device.ports,
        speed_mbps: config.port.speed_mbps,
        flows: o.flows,
        trial_frames: o.frames,
        sizes,
    })
}

fn one_size(t: &mut Tester, o: &Options, size: usize, len: usize) -> Result<SizeReport, TestError> {
    let line_fps = t.line_rate(len);
    let (throughput, at_throughput) = throughput(t, o, len)?;
    let latency = LatencyNs::of(t, &at_throughput);
    let mut loss = Vec::new();
    let mut clean = 0;
    for tenth in (1..=10).rev() {
        let offered = f64::from(tenth) / 10.0;
        let x = t.run(&Load::Fixed { rate: offered }, o.frames, len)?;
        loss.push(LossPoint { offered, loss: x.loss(), forwarded_fps: forwarded_fps(t, &x) });
        clean = if x.lost() == 0 { clean + 1 } else { 0 };
        if clean == 2 {
            break;
        }
    }
    let burst = back_to_back(t, o.longest_burst, len)?;
    Ok(SizeReport {
        size_bytes: size,
        line_fps,
        throughput,
        throughput_fps: throughput * line_fps,
        throughput_mbps: throughput * line_fps * size as f64 * 8.0 / 1e6,
        latency,
        reordered: at_throughput.reordered,
        loss,
        back_to_back_frames: burst,
        back_to_back_is_a_bound: burst == o.longest_burst,
        recovery_ns: recovery(t, o, len, throughput)?,
    })
}

/// Frames per second and port, over the time in which frames came.
fn forwarded_fps(t: &Tester, o: &Outcome) -> f64 {
    let ports = f64::from(t.config().device.ports);
    let seconds = t.ns(o.receiving_cycles as f64) / 1e9;
    if seconds > 0.0 { (o.received as f64 / ports - 1.0).max(0.0) / seconds } else { 0.0 }
}

/// Frames of each port in a trial for the throughput: so many that what fits the buffers on the way is a smaller share of them than
/// the search resolves. A shorter trial would find rates that only last until the buffers are full.
fn sustained(c: &nic::Config, o: &Options) -> u64 {
    let stages = [c.parser.buffer_frames, c.exact.buffer_frames, c.ternary.buffer_frames];
    let more = [(c.lpm.entries, c.lpm.buffer_frames), (c.range.entries, c.range.buffer_frames)];
    let more = more.iter().filter(|(entries, _)| *entries > 0).map(|(_, frames)| *frames);
    let shared: u32 = stages.into_iter().chain(more).sum();
    let held = f64::from(c.port.ingress_queue_frames) + f64::from(shared) / f64::from(c.device.ports);
    o.frames.max((held / o.resolution).ceil() as u64).min(MOST_SUSTAINED.max(o.frames))
}

/// 26.1: the highest rate at which nothing is lost, by halving.
fn throughput(t: &mut Tester, o: &Options, len: usize) -> Result<(f64, Outcome), TestError> {
    let frames = sustained(t.config(), o);
    let full = t.run(&Load::Fixed { rate: 1.0 }, frames, len)?;
    if full.lost() == 0 {
        return Ok((1.0, full));
    }
    let (mut good, mut bad) = (0.0, 1.0);
    let mut best = None;
    while bad - good > o.resolution {
        let rate = (good + bad) / 2.0;
        let x = t.run(&Load::Fixed { rate }, frames, len)?;
        if x.lost() == 0 {
            (good, best) = (rate, Some(x));
        } else {
            bad = rate;
        }
    }
    match best {
        Some(x) => Ok((good, x)),
        None => {
            let x = t.run(&Load::Fixed { rate: o.resolution }, o.frames, len)?;
            Ok((if x.lost() == 0 { o.resolution } else { 0.0 }, x))
        }
    }
}

/// 26.4: the longest burst at line rate of which nothing is lost.
fn back_to_back(t: &mut Tester, longest: u64, len: usize) -> Result<u64, TestError> {
    let mut lossless = |n: u64| Ok::<bool, TestError>(t.run(&Load::Fixed { rate: 1.0 }, n, len)?.lost() == 0);
    let mut good = 0;
    let mut n = 2;
    while n < longest && lossless(n)? {
        good = n;
        n *= 2;
    }
    if n >= longest {
        if lossless(longest)? {
            return Ok(longest);
        }
        n = longest;
    }
    let mut bad = n;
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if lossless(middle)? { good = middle } else { bad = middle }
    }
    Ok(good)
}

/// 26.5: overload at 110 % of the throughput, then half of that.
fn recovery(t: &mut Tester, o: &Options, len: usize, throughput: f64) -> Result<Option<f64>, TestError> {
    let over = throughput * 1.1;
    if over > 1.0 || throughput == 0.0 {
        return Ok(None);
    }
    let (before, after) = (Load::Fixed { rate: over }, Load::Fixed { rate: over / 2.0 });
    let begin = t.cycle().0 + 1;
    let (wire, time) = (t.config().wire_cycles(len), t.config().wire_time(len));
    let change = begin + before.departures(o.frames, time).last().map_or(0, |c| c + wire);
    let (_, lost) = t.run_all(&[(before, o.frames), (after, o.frames)], len)?;
    let last = lost.iter().map(|l| l.departed).max().unwrap_or(0);
    Ok(Some(t.ns(last.saturating_sub(change) as f64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short() -> Options {
        Options { sizes: vec![64, 1518], frames: 300, longest_burst: 512, ..Options::default() }
    }

    #[test]
    fn the_default_device_forwards_every_size_at_line_rate() {
        let mut o = short();
        o.sizes = SIZES.to_vec();
        let r = run(&nic::Config::default(), &o).unwrap();
        for s in &r.sizes {
            // Four ports of 25 Gb/s bring 148.8 M frames of 64 bytes; the ternary stage takes 125 M.
            if s.size_bytes == 64 {
                assert!((s.throughput_fps * 4.0 / 125e6 - 1.0).abs() < 0.01, "{s:?}");
            } else {
                assert_eq!(s.throughput, 1.0, "{s:?}");
                assert!(s.recovery_ns.is_none() && s.back_to_back_is_a_bound, "{s:?}");
            }
            assert_eq!(s.reordered, 0);
            assert!(s.latency.min > 0.0 && s.latency.max >= s.latency.p99, "{s:?}");
        }
    }

    #[test]
    fn the_throughput_of_a_slow_device_is_that_of_its_slowest_stage() {
        let mut c = nic::Config::default();
        c.device.ports = 2;
        c.parser.interval_cycles = 20; // 12.5 M frames per second for both ports
        let mut o = short();
        o.frames = 1200;
        o.sizes = vec![64];
        let r = run(&c, &o).unwrap();
        let s = &r.sizes[0];
        let want = 250e6 / 20.0 / 2.0;
        assert!((s.throughput_fps - want).abs() < want * 0.01, "{s:?}, want {want}");
        assert!(s.loss[0].loss > 0.5 && s.back_to_back_frames < 200, "{s:?}");
        assert!(s.recovery_ns.is_some());
    }

    #[test]
    fn sizes_that_no_frame_has_are_refused() {
        let o = Options { sizes: vec![63], ..short() };
        assert!(run(&nic::Config::default(), &o).unwrap_err().to_string().contains("63 bytes"));
    }
}
