//! RFC 2889, for a device whose forwarding table is filled by its driver: fully meshed (5.1), many to one (5.2), congestion
//! control (5.5), forwarding table capacity in place of address caching (5.7), insertion rate in place of address learning
//! (5.8), errored frames (5.9), broadcast (5.10).
//!
//! Trials are counted in frames, as in [`crate::rfc2544`].

use serde::Serialize;

use nic::{Bed, Config, Match};

use crate::capacity::{Capacity, capacity};
use crate::frame::{frame, signature};
use crate::load::Load;
use crate::rfc2544::LatencyNs;
use crate::run::{Lane, Rules, TestError, Tester, full_mesh};

/// What was found.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Report {
    /// What was tested, in the profile's words.
    pub device: String,
    /// Frame size in bytes, with FCS.
    pub size_bytes: usize,
    /// 5.1: every port sends to every other at line rate.
    pub fully_meshed: Rate,
    /// 5.2: all ports but one send to that one.
    pub many_to_one: Rate,
    /// 5.5: two ports share one output while one of them also has another to itself.
    pub congestion: Congestion,
    /// 5.7 and 5.8: how many flows the tables take, and how fast.
    pub tables: Vec<Capacity>,
    /// 5.9: what became of frames that are not Ethernet frames.
    pub errored: Vec<Errored>,
    /// 5.10: a frame to all ports but its own.
    pub broadcast: Broadcast,
}

/// Forwarding at line rate.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Rate {
    /// Frames per second offered, of all ports together.
    pub offered_fps: f64,
    /// Frames per second forwarded.
    pub forwarded_fps: f64,
    /// Share lost, 0 to 1.
    pub loss: f64,
    /// Frames overtaken by a later one of their flow.
    pub reordered: u64,
    /// Frames that came out of the wrong port.
    pub flooded: u64,
    /// Latency of those forwarded.
    pub latency: LatencyNs,
}

/// 5.5.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Congestion {
    /// Share lost of the frames to the output that nobody contends for: above zero is head-of-line blocking.
    pub loss_uncongested: f64,
    /// Share lost of the frames to the output that two ports fill.
    pub loss_congested: f64,
    /// Whether frames to the free output were lost.
    pub head_of_line_blocking: bool,
}

/// 5.9.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Errored {
    /// What is wrong with the frames.
    pub what: String,
    /// Frames sent.
    pub sent: u64,
    /// Frames that were forwarded although.
    pub forwarded: u64,
}

/// 5.10.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Broadcast {
    /// Frames sent.
    pub sent: u64,
    /// Copies that came out.
    pub copies: u64,
    /// Copies there should be.
    pub wanted: u64,
}

/// Runs all tests with frames of `size_bytes` with FCS, `frames` of each port in a trial.
///
/// # Errors
/// When the device fails, has fewer than four ports, or frames do not suit it.
pub fn run(config: &Config, size_bytes: usize, frames: u64, seed: u64) -> Result<Report, TestError> {
    let ports = config.device.ports;
    let len = size_bytes.saturating_sub(4);
    if ports < 4 {
        return Err(TestError::Nonsense(format!("{ports} ports, the tests need four")));
    }
    if !(60..=usize::from(config.device.max_frame_bytes)).contains(&len) {
        return Err(TestError::Nonsense(format!("frames of {size_bytes} bytes do not suit the device")));
    }
    Ok(Report {
        device: config.profile.about.clone(),
        size_bytes,
        fully_meshed: rate(config, seed, &full_mesh(ports), frames, len)?,
        many_to_one: {
            let lanes: Vec<Lane> = (1..ports).map(|from| Lane { from, to: 0 }).collect();
            rate(config, seed, &lanes, frames, len)?
        },
        congestion: congestion(config, seed, frames, len)?,
        tables: vec![capacity(config, seed, Rules::Exact)?, capacity(config, seed, Rules::Ternary)?],
        errored: errored(config, seed)?,
        broadcast: broadcast(config, seed, len)?,
    })
}

fn rate(config: &Config, seed: u64, lanes: &[Lane], frames: u64, len: usize) -> Result<Rate, TestError> {
    // A ternary entry for each lane, where the exact table is too small for a mesh of many ports.
    let mut t = Tester::new(config.clone(), seed, lanes, 1, Rules::Exact)
        .or_else(|_| Tester::new(config.clone(), seed, lanes, 1, Rules::Ternary))?;
    let o = t.run(&Load::Fixed { rate: 1.0 }, frames, len)?;
    let senders: std::collections::BTreeSet<u8> = lanes.iter().map(|l| l.from).collect();
    let seconds = (t.ns(o.receiving_cycles as f64) / 1e9).max(f64::MIN_POSITIVE);
    Ok(Rate {
        offered_fps: t.line_rate(len) * senders.len() as f64,
        forwarded_fps: o.received as f64 / seconds,
        loss: o.loss(),
        reordered: o.reordered,
        flooded: o.misdirected,
        latency: LatencyNs::of(&t, &o),
    })
}

fn congestion(config: &Config, seed: u64, frames: u64, len: usize) -> Result<Congestion, TestError> {
    // Port 0 sends by halves to 2 and 3, port 1 to 3 alone: 3 is offered 150 % of its line, 2 half of it.
    let lanes = [Lane { from: 0, to: 2 }, Lane { from: 0, to: 3 }, Lane { from: 1, to: 3 }];
    let mut t = Tester::new(config.clone(), seed, &lanes, 1, Rules::Exact)?;
    let (o, lost) = t.run_all(&[(Load::Fixed { rate: 1.0 }, frames)], len)?;
    let free = lost.iter().filter(|l| l.flow == 0).count() as f64;
    let half = (frames / 2).max(1) as f64;
    Ok(Congestion {
        loss_uncongested: free / half,
        loss_congested: (o.lost() as f64 - free) / (frames as f64 + half),
        head_of_line_blocking: free > 0.0,
    })
}

fn errored(config: &Config, seed: u64) -> Result<Vec<Errored>, TestError> {
    const SENT: u64 = 20;
    let longest = usize::from(config.device.max_frame_bytes);
    let kinds = [
        ("undersized: no whole Ethernet header", 13, false),
        ("oversized: longer than the device's longest frame", longest + 1, false),
        ("wrong FCS", 60, true),
    ];
    let mut out = Vec::new();
    for (what, len, damaged) in kinds {
        let bed = bed_to(config, seed, &[1])?;
        if damaged {
            let cycle = bed.sim().cycle().0;
            let what = nic::Mishap::BitErrors { port: 0, frames: SENT as u32 };
            bed.sim().play(&[nic::Scripted { cycle, what }]);
        }
        let mut f = frame(0, 0, len);
        f.truncate(len);
        for _ in 0..SENT {
            bed.send(0, 0, &f);
        }
        bed.sim().run_until_idle(10_000_000);
        let mut forwarded = 0;
        bed.receive(1, |_, _| forwarded += 1);
        out.push(Errored { what: what.into(), sent: SENT, forwarded });
    }
    Ok(out)
}

fn bed_to(config: &Config, seed: u64, ports: &[u8]) -> Result<Bed, TestError> {
    let mut bed = Bed::new(config.clone(), seed)?;
    let m = Match::Prefix { dst: crate::frame::destination(0), bits: 32, priority: 1 };
    match bed.install(m, ports, false)? {
        Ok(_) => Ok(bed),
        Err(s) => Err(TestError::Nonsense(format!("the device does not take a rule: {s:?}"))),
    }
}

fn broadcast(config: &Config, seed: u64, len: usize) -> Result<Broadcast, TestError> {
    const SENT: u64 = 50;
    // An entry has eight outputs at most.
    let to: Vec<u8> = (1..config.device.ports).take(8).collect();
    let bed = bed_to(config, seed, &to)?;
    let mut f = frame(0, 0, len);
    crate::frame::sign(&mut f, crate::frame::Signature { flow: 0, serial: 0, departed: 0 });
    f[..6].fill(0xff);
    let gap = config.wire_cycles(len) * 8;
    let start = bed.sim().cycle().0;
    for i in 0..SENT {
        bed.send(0, start + i * gap, &f);
    }
    bed.sim().run_until_idle(50_000_000);
    let mut copies = 0;
    for p in 0..config.device.ports {
        bed.receive(p, |_, f| copies += u64::from(signature(f).is_some()));
    }
    Ok(Broadcast { sent: SENT, copies, wanted: SENT * to.len() as u64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_with_output_queues_has_no_head_of_line_blocking_and_filters_errors() {
        let mut c = Config::default();
        c.exact.log2_entries = 8;
        c.ternary.entries = 32;
        let r = run(&c, 512, 400, 1).unwrap();
        assert_eq!((r.fully_meshed.loss, r.fully_meshed.reordered, r.fully_meshed.flooded), (0.0, 0, 0));
        assert!((0.6..0.7).contains(&r.many_to_one.loss) || r.many_to_one.loss > 0.3, "{:?}", r.many_to_one);
        assert!(!r.congestion.head_of_line_blocking, "{:?}", r.congestion);
        assert!((0.1..0.35).contains(&r.congestion.loss_congested), "{:?}", r.congestion);
        assert!(r.errored.iter().all(|e| e.forwarded == 0), "{:?}", r.errored);
        assert_eq!(r.broadcast.copies, r.broadcast.wanted);
        assert_eq!((r.tables[1].taken, r.tables[1].capacity), (32, 32));
    }
}
