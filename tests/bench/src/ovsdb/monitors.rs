//! Many clients that monitor: how long after a transaction each has been told.

use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lab::rpc::Frames;
use lab::{DEADLINE, OvsdbServer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ovsdb::vswitch::DATABASE;
use serde_json::json;

use super::Sizes;
use super::client::{bridge, bridge_uuid, fill, update};
use crate::contender::{Contender, figures};
use crate::figure::{Figure, Unit, counted};
use crate::part::BenchError;

/// Ports that are there: every client is given them first.
const PORTS: usize = 100;

/// A client that monitors.
struct Watcher {
    stream: UnixStream,
    frames: Frames,
    /// Has been told of the current transaction.
    told: bool,
}

pub fn run(all: &[Contender], dir: &Path, sizes: &Sizes) -> Result<Vec<Figure>, BenchError> {
    let (clients, updates) = sizes.monitors;
    // This process holds the other ends.
    let own = std::process::id().to_string();
    lab::command::done(Command::new("prlimit").args(["--pid", &own, "--nofile=8192:8192"]))?;
    let servers = all.iter().map(|c| c.serve(dir, None)).collect::<Result<Vec<_>, _>>()?;
    let mut sets = Vec::new();
    for s in &servers {
        let mut c = s.connect()?;
        bridge(&mut c)?;
        fill(&mut c, PORTS)?;
        sets.push(watchers(s, clients)?);
    }
    let mut latencies = vec![Vec::new(); all.len()];
    let mut before = Vec::new();
    for n in 0..=updates {
        for (i, s) in servers.iter().enumerate() {
            let us = one_update(s, &mut sets[i], n)?;
            // The first is to warm up.
            if n > 0 {
                latencies[i].extend(us);
            } else {
                before.push(s.cpu()?);
            }
        }
    }
    let spent = |(s, b): (&OvsdbServer, &Duration)| {
        s.cpu().map(|after| vec![(after - *b).as_secs_f64() * 1e6 / updates as f64])
    };
    let cpu = servers.iter().zip(&before).map(spent).collect::<Result<Vec<_>, _>>()?;
    let what = format!("{} told of an update", counted(clients as u32, "monitor"));
    let of = |q: f64| latencies.iter().map(|l| vec![quantile(l, q)]).collect::<Vec<_>>();
    let (median, p99) = (of(0.5), of(0.99));
    let mut out = figures(all, &format!("{what}, median"), Unit::Microseconds, &median, None);
    out.extend(figures(all, &format!("{what}, 99th percentile"), Unit::Microseconds, &p99, None));
    out.extend(figures(all, &format!("{what}, server CPU"), Unit::MicrosPerTransaction, &cpu, None));
    Ok(out)
}

fn quantile(values: &[f64], q: f64) -> f64 {
    let mut v = values.to_vec();
    v.sort_by(f64::total_cmp);
    v[((v.len() - 1) as f64 * q).round() as usize]
}

/// Clients that have been given the tables and wait for changes.
fn watchers(s: &OvsdbServer, n: usize) -> Result<Vec<Watcher>, BenchError> {
    let request = json!({"method": "monitor_cond", "id": 0, "params": [DATABASE, null, {
        "Bridge": [{"columns": ["name", "ports", "external_ids"]}],
        "Port": [{"columns": ["name", "interfaces", "tag"]}],
        "Interface": [{"columns": ["name", "type", "external_ids"]}]}]});
    let request = request.to_string();
    let mut all = Vec::new();
    for _ in 0..n {
        let mut stream = UnixStream::connect(s.dir().join("db.sock"))?;
        stream.write_all(request.as_bytes())?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let mut frames = Frames::default();
        while frames.take().is_none() {
            if frames.fill(&mut stream)? == 0 {
                return Err(BenchError::Ovsdb("the server closed a monitoring client's connection".into()));
            }
        }
        stream.set_nonblocking(true)?;
        all.push(Watcher { stream, frames, told: true });
    }
    Ok(all)
}

/// A transaction, and how long after it was sent each client had been told of it, in microseconds.
fn one_update(s: &OvsdbServer, watchers: &mut [Watcher], n: usize) -> Result<Vec<f64>, BenchError> {
    let mut writer = s.connect()?;
    let row = bridge_uuid(&mut writer)?;
    watchers.iter_mut().for_each(|w| w.told = false);
    let begin = Instant::now();
    writer.send_bytes(&update(&row, n))?;
    let mut latencies = Vec::with_capacity(watchers.len());
    while latencies.len() < watchers.len() {
        if begin.elapsed() > DEADLINE {
            let why = format!("only {} of {} clients were told in time", latencies.len(), watchers.len());
            return Err(BenchError::Ovsdb(why));
        }
        let mut waiting: Vec<&mut Watcher> = watchers.iter_mut().filter(|w| !w.told).collect();
        let mut fds: Vec<PollFd<'_>> =
            waiting.iter().map(|w| PollFd::new(w.stream.as_fd(), PollFlags::POLLIN)).collect();
        let timeout = PollTimeout::try_from(Duration::from_secs(1)).unwrap_or(PollTimeout::ZERO);
        poll(&mut fds, timeout).map_err(std::io::Error::from)?;
        let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(false)).collect();
        for (w, _) in waiting.iter_mut().zip(ready).filter(|(_, r)| *r) {
            match w.frames.fill(&mut w.stream) {
                Ok(0) => {
                    return Err(BenchError::Ovsdb(
                        "the server closed a monitoring client's connection".into(),
                    ));
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => continue,
                Err(e) => return Err(e.into()),
            }
            while let Some(m) = w.frames.take() {
                // Probes are left unanswered: the measurement is shorter than the server's patience.
                if m.windows(7).any(|w| w == b"update2") {
                    w.told = true;
                    latencies.push(begin.elapsed().as_secs_f64() * 1e6);
                }
            }
        }
    }
    Ok(latencies)
}
