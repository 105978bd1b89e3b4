//! The simulator against any other that the caller brings: the same forwarding task, in turn, in one run.
//!
//! The task: frames of a pcap file come in by port 0 at half its line rate; a rule for each flow sends them out by port 1 with the TTL
//! decremented; what comes out is a pcap file. The peer is a command that is given both files' names. Its output is held against ours: as
//! many frames, the same bytes after the IP header. Start of the program, reading and writing of files count for both.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use nic::{Bed, Config, Match};
use tester::pcapng;

use crate::figure::{Figure, Unit};
use crate::part::BenchError;

const REPEATS: usize = 3;
/// Where Ethernet and IPv4 header end.
const PAYLOAD_AT: usize = 34;

fn wrong(e: impl std::fmt::Display) -> BenchError {
    std::io::Error::other(e.to_string()).into()
}

/// Our side: one file into the other.
fn ours(input: &Path, output: &Path, flows: u32) -> Result<(), BenchError> {
    let frames = pcapng::read(&std::fs::read(input)?).map_err(wrong)?;
    let config = Config::default();
    let mut bed = Bed::new(config.clone(), 1)?;
    for f in 0..flows {
        let m = Match::Flow { src: tester::frame::source(f), dst: tester::frame::destination(0) };
        bed.install(m, &[1], true)?.map_err(|s| BenchError::Rule(format!("{s:?}")))?;
    }
    let (mut out, mut at) = (Vec::with_capacity(frames.len()), bed.sim().cycle().0 + 1);
    for chunk in frames.chunks(1024) {
        let begin = bed.sim().cycle().0;
        for (_, f) in chunk {
            at = at.max(begin);
            bed.send(0, at, f);
            at += 2 * config.wire_cycles(f.len());
        }
        bed.sim().step(at - begin);
        take(&bed, &config, &mut out);
    }
    bed.sim().run_until_idle(1_000_000);
    take(&bed, &config, &mut out);
    std::fs::write(output, pcapng::classic_file(&out))?;
    Ok(())
}

/// What has left by port 1, with nanoseconds of simulated time.
fn take(bed: &Bed, config: &Config, out: &mut Vec<(u64, Vec<u8>)>) {
    let ns = |cycle: u64| (u128::from(cycle) * 1_000_000_000 / u128::from(config.device.clock_hz)) as u64;
    bed.receive(1, |cycle, f| out.push((ns(cycle), f.to_vec())));
}

/// Runs `command INPUT OUTPUT` and the simulator in turn on `frames` frames.
///
/// # Errors
/// When the command fails, or what it wrote is not what the task asks for.
pub fn run(command: &str, frames: u32) -> Result<Vec<Figure>, BenchError> {
    const FLOWS: u32 = 64;
    let dir = std::env::temp_dir().join(format!("hoist-sim-peer-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = in_turn(command, frames, FLOWS, &dir);
    std::fs::remove_dir_all(&dir)?;
    result
}

fn in_turn(command: &str, frames: u32, flows: u32, dir: &Path) -> Result<Vec<Figure>, BenchError> {
    let (input, mine, theirs) = (dir.join("in.pcap"), dir.join("ours.pcap"), dir.join("peer.pcap"));
    let all = (0..frames).map(|i| (u64::from(i) * 1000, tester::frame::frame(i % flows, 0, 60)));
    std::fs::write(&input, pcapng::classic_file(&all.collect::<Vec<_>>()))?;
    let (mut us, mut them) = (Vec::new(), Vec::new());
    for _ in 0..REPEATS {
        let start = Instant::now();
        ours(&input, &mine, flows)?;
        us.push(f64::from(frames) / start.elapsed().as_secs_f64());
        let start = Instant::now();
        let line = format!("{command} \"$1\" \"$2\"");
        let status = Command::new("sh").args(["-c", &line, "peer"]).args([&input, &theirs]).status()?;
        them.push(f64::from(frames) / start.elapsed().as_secs_f64());
        if !status.success() {
            return Err(wrong(format!("{command}: {status}")));
        }
    }
    let read = |p: &Path| pcapng::read(&std::fs::read(p)?).map_err(wrong);
    let (a, b) = (read(&mine)?, read(&theirs)?);
    if a.len() != frames as usize || b.len() != a.len() {
        return Err(wrong(format!("{frames} frames in, ours {} out, the peer's {}", a.len(), b.len())));
    }
    let payload = |f: &(u64, Vec<u8>)| f.1.get(PAYLOAD_AT..).unwrap_or(&[]).to_vec();
    if let Some(i) = (0..a.len()).find(|i| payload(&a[*i]) != payload(&b[*i])) {
        return Err(wrong(format!("frame {i} of the peer's is not frame {i} of ours")));
    }
    let ratio = us.iter().zip(&them).map(|(u, t)| u / t).collect();
    let row = |name: &str, unit, v| Figure::of(name, unit, v).frame_bytes(60).flows(flows.into());
    Ok(vec![
        row("ours, file to file", Unit::PacketsPerSecond, us),
        row("peer, file to file", Unit::PacketsPerSecond, them),
        row("ours over the peer", Unit::Ratio, ratio),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_copies_is_compared_and_one_that_loses_frames_is_refused() {
        let f = run("cp", 500).unwrap();
        assert_eq!(f.len(), 3);
        assert!(f.iter().all(|f| f.value > 0.0));
        let e = run("sh -c 'head -c 24 \"$0\" > \"$1\"'", 10).unwrap_err().to_string();
        assert!(e.contains("the peer's 0"), "{e}");
        assert!(run("false", 10).unwrap_err().to_string().starts_with("false: exit status"));
    }
}
