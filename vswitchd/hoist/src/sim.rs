//! `hoist sim ...`: simulated devices by themselves, without a switch.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use nic::{Config, PROFILES, parse_script};
use tester::run::{Rules, ring_of_ports};
use tester::{Load, Run, Tester, pcapng, perfetto, picture, plot, rfc2544, rfc2889, text, vcd};

/// Trails, changes of signals and captured bytes that a trace keeps at most.
const MOST_TRAILS: usize = 200_000;
const MOST_CHANGES: usize = 4_000_000;
const MOST_BYTES: usize = 256 << 20;

/// What can be done with a simulated device.
#[derive(Subcommand)]
pub enum Sim {
    /// Profiles of devices that come with the program, or the text of one
    Profiles {
        /// Print this profile, to be changed and given as a file
        name: Option<String>,
    },
    /// Say whether profiles make sense, and if not, which key does not and why
    Check {
        /// Files, or names of profiles
        #[arg(required = true)]
        profiles: Vec<String>,
    },
    /// Send traffic through a device and show what happened inside, cycle by cycle
    Trace(Box<Trace>),
    /// Throughput, latency, loss, back-to-back frames and recovery as RFC 2544 has them
    Rfc2544(Rfc2544),
    /// Mesh, congestion, table capacity, errored and broadcast frames as RFC 2889 has them
    Rfc2889(Rfc2889),
    /// Serve the device to a switch in another process (`options:device=vfio-user:/SOCKET`), until it is told to end
    Serve(crate::serve::Serve),
}

/// The device.
#[derive(Args)]
pub struct Device {
    /// Profile: a name (`hoist sim profiles`) or a file
    #[arg(long, default_value = "default")]
    profile: String,
    /// Seed of what differs between two devices of a kind
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What of the device's tables the traffic goes by.
#[derive(Args)]
pub struct Flows {
    /// One ternary entry per lane instead of one exact entry per flow
    #[arg(long)]
    ternary: bool,
    /// Flows of each port
    #[arg(long, default_value_t = 1)]
    flows: u32,
}

impl Flows {
    fn rules(&self) -> Rules {
        if self.ternary { Rules::Ternary } else { Rules::Exact }
    }
}

/// Traffic and outputs of a trace.
#[derive(Args)]
pub struct Trace {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    flows: Flows,
    /// Frames that each port sends
    #[arg(long, default_value_t = 50)]
    frames: u64,
    /// Frame size in bytes, with FCS
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Offered load, in % of the line
    #[arg(long, default_value_t = 50.0)]
    load: f64,
    /// Frames of a burst at line rate [default: evenly spaced]
    #[arg(long)]
    burst: Option<u64>,
    /// Frames at random times
    #[arg(long, conflicts_with = "burst")]
    random: bool,
    /// Trains of so many frames of one flow, then the next flow
    #[arg(long, value_name = "FRAMES", conflicts_with_all = ["burst", "random"])]
    train: Option<u64>,
    /// Send the frames of a capture into port 0, as they are and when they came
    #[arg(long, value_name = "PCAP")]
    read: Option<PathBuf>,
    /// Failures and their cycles, counted from the first frame
    #[arg(long, value_name = "SCRIPT")]
    script: Option<PathBuf>,
    /// Save device and run as they are in this cycle, counted from the first frame, to the file of --save; then go on
    #[arg(long, value_name = "CYCLE", requires = "save", conflicts_with = "read")]
    checkpoint_at: Option<u64>,
    /// Where the checkpoint goes
    #[arg(long, value_name = "FILE", requires = "checkpoint_at")]
    save: Option<PathBuf>,
    /// Go on from a checkpoint: device, traffic and failures are those of the run that saved it
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "profile", "seed", "ternary", "flows", "frames", "size", "load", "burst", "random", "train", "read", "script",
    ])]
    restore: Option<PathBuf>,
    /// Show the way of this frame, by its number; may be given again [default: the first and the slowest]
    #[arg(long, value_name = "NUMBER")]
    frame: Vec<u64>,
    /// Waveforms for GTKWave
    #[arg(long, value_name = "FILE")]
    vcd: Option<PathBuf>,
    /// Trace for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    perfetto: Option<PathBuf>,
    /// What a tap on every port sees, as pcapng
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// The pipeline with utilisation
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What an RFC 2544 run does.
#[derive(Args)]
pub struct Rfc2544 {
    #[command(flatten)]
    device: Device,
    #[command(flatten)]
    flows: Flows,
    /// Frame sizes in bytes, with FCS
    #[arg(long, value_delimiter = ',', default_values_t = rfc2544::SIZES)]
    sizes: Vec<usize>,
    /// Frames that each port sends in a trial
    #[arg(long, default_value_t = 2000)]
    frames: u64,
    /// Charts of throughput, latency and loss
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What an RFC 2889 run does.
#[derive(Args)]
pub struct Rfc2889 {
    #[command(flatten)]
    device: Device,
    /// Frame size in bytes, with FCS
    #[arg(long, default_value_t = 64)]
    size: usize,
    /// Frames that each port sends in a trial
    #[arg(long, default_value_t = 2000)]
    frames: u64,
    /// Charts of rates and loss
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Sim {
    /// Does it; returns what is to be printed.
    pub fn run(&self, json: bool) -> Result<String> {
        match self {
            Sim::Profiles { name: None } => list(json),
            Sim::Profiles { name: Some(name) } => match PROFILES.iter().find(|p| p.name == name) {
                Some(p) => Ok(p.text.to_string()),
                None => bail!("{name} is not the name of a profile; `hoist sim profiles` lists them"),
            },
            Sim::Check { profiles } => profiles.iter().try_fold(String::new(), |out, p| {
                let c = Config::profile(p)?;
                Ok(format!("{out}{p}: {}\n", c.profile.about))
            }),
            Sim::Trace(t) if t.restore.is_some() => {
                // What a made-up file holds may not belong together in ways that only show when the device runs.
                std::panic::catch_unwind(AssertUnwindSafe(|| t.run(json))).unwrap_or_else(|_| {
                    bail!("the checkpoint is inconsistent: the device cannot run from it")
                })
            }
            Sim::Trace(t) => t.run(json),
            Sim::Rfc2544(r) => r.run(json),
            Sim::Serve(s) => s.run().map(|()| String::new()),
            Sim::Rfc2889(r) => {
                let c = Config::profile(&r.device.profile)?;
                let report = rfc2889::run(&c, r.size, r.frames, r.device.seed)?;
                let mut wrote = String::new();
                save(&r.svg, || plot::rfc2889(&report).into_bytes(), &mut wrote)?;
                if json { document(&report) } else { Ok(text::rfc2889(&report) + &wrote) }
            }
        }
    }
}

fn document(v: &impl serde::Serialize) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(v)?))
}

fn list(json: bool) -> Result<String> {
    let all = PROFILES.iter().map(|p| Ok((p.name, Config::profile(p.name)?))).collect::<Result<Vec<_>>>()?;
    if json {
        let rows = all.iter().map(|(name, c)| serde_json::json!({ "name": name, "about": c.profile.about }));
        return document(&rows.collect::<Vec<_>>());
    }
    Ok(all.iter().map(|(name, c)| format!("{name:<16}{}\n", c.profile.about)).collect())
}

fn save(file: &Option<PathBuf>, contents: impl FnOnce() -> Vec<u8>, out: &mut String) -> Result<()> {
    if let Some(f) = file {
        std::fs::write(f, contents()).with_context(|| f.display().to_string())?;
        out.push_str(&format!("wrote {}\n", f.display()));
    }
    Ok(())
}

impl Rfc2544 {
    fn run(&self, json: bool) -> Result<String> {
        let c = Config::profile(&self.device.profile)?;
        let o = rfc2544::Options {
            sizes: self.sizes.clone(),
            frames: self.frames,
            flows: self.flows.flows,
            rules: self.flows.rules(),
            seed: self.device.seed,
            ..rfc2544::Options::default()
        };
        let report = rfc2544::run(&c, &o)?;
        let mut out = if json { document(&report)? } else { text::rfc2544(&report) };
        let mut wrote = String::new();
        save(&self.svg, || plot::rfc2544(&report).into_bytes(), &mut wrote)?;
        if !json {
            out.push_str(&wrote);
        }
        Ok(out)
    }
}

impl Trace {
    fn load(&self) -> Result<Load> {
        if !(self.load > 0.0 && self.load <= 100.0) {
            bail!("--load {}: more than 0 and at most 100 % of the line", self.load);
        }
        let rate = self.load / 100.0;
        Ok(match (self.burst, self.train, self.random) {
            (Some(frames), ..) => Load::Bursts { frames, rate },
            (_, Some(frames), _) => Load::NewFlows { frames, rate },
            (.., true) => Load::Random { rate, seed: self.device.seed },
            _ => Load::Fixed { rate },
        })
    }

    /// The device with its rules, and the run that is to be done on it.
    fn begin(&self) -> Result<(Tester, Run)> {
        if let Some(path) = &self.restore {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            return Tester::resume(&bytes).with_context(|| path.display().to_string());
        }
        let config = Config::profile(&self.device.profile)?;
        let ports = config.device.ports;
        let load = self.load()?;
        let len = self.size.saturating_sub(4);
        if !(60..=usize::from(config.device.max_frame_bytes)).contains(&len) {
            bail!("--size {}: the device takes 64 to {}", self.size, config.device.max_frame_bytes + 4);
        }
        let d = &self.device;
        let t = Tester::new(config, d.seed, &ring_of_ports(ports), self.flows.flows, self.flows.rules())?;
        let sim = t.sim();
        if let Some(path) = &self.script {
            let script = read_text(path)?;
            let mut script = parse_script(&script).with_context(|| path.display().to_string())?;
            let start = sim.cycle().0;
            script.iter_mut().for_each(|s| s.cycle += start);
            sim.play(&script);
        }
        sim.watch_frames(Some(MOST_TRAILS));
        sim.watch_signals(MOST_CHANGES);
        if self.pcap.is_some() {
            sim.tap(MOST_BYTES);
        }
        let run = t.begin(&[(load, self.frames)], len);
        Ok((t, run))
    }

    fn run(&self, json: bool) -> Result<String> {
        let (mut t, mut run) = self.begin()?;
        let sim = t.sim().clone();
        let (hz, ports) = (t.config().device.clock_hz, t.config().device.ports);
        let mut out = String::new();
        if let Some(at) = self.checkpoint_at {
            let at = run.start().saturating_add(at);
            if at <= sim.cycle().0 {
                bail!(
                    "--checkpoint-at: that cycle has passed; the run is in cycle {}",
                    sim.cycle().0.saturating_sub(run.start())
                );
            }
            if t.advance(&mut run, at)? {
                bail!(
                    "--checkpoint-at: the run was over in cycle {}",
                    sim.cycle().0.saturating_sub(run.start())
                );
            }
            let bytes = t.checkpoint(&run)?;
            save(&self.save, || bytes, &mut out)?;
        }
        let (outcome, at_work) = match &self.read {
            None => {
                while !t.advance(&mut run, u64::MAX)? {}
                let at_work = run.of_it(sim.stats());
                (Some(t.finish(run).0), at_work)
            }
            Some(path) => {
                let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
                let frames = pcapng::read(&bytes).with_context(|| path.display().to_string())?;
                let cycles = |ns: u64| (u128::from(ns) * u128::from(hz) / 1_000_000_000) as u64;
                let frames: Vec<_> = frames.into_iter().map(|(ns, f)| (cycles(ns), f)).collect();
                t.replay(0, &frames)?;
                (None, run.of_it(sim.stats()))
            }
        };
        let (trails, more) = sim.take_trails();
        let waves = sim.take_waves().unwrap_or_default();
        let stats = sim.stats();
        save(&self.vcd, || vcd::write(&waves, hz).into_bytes(), &mut out)?;
        save(&self.perfetto, || perfetto::write(&trails, Some(&waves), hz).into_bytes(), &mut out)?;
        save(&self.svg, || picture::svg(&at_work).into_bytes(), &mut out)?;
        if self.pcap.is_some() {
            let (frames, lost) = sim.take_tap();
            save(&self.pcap, || pcapng::write(&frames, ports, hz), &mut out)?;
            if lost > 0 {
                out.push_str(&format!("{lost} frames did not fit the capture\n"));
            }
        }
        let shown = self.chosen(&trails)?;
        if json {
            let doc = serde_json::json!({ "frames": shown, "outcome": outcome, "device": stats, "faults": sim.faults() });
            return document(&doc);
        }
        for f in shown {
            out.push_str(&text::timeline(f, hz));
            out.push('\n');
        }
        if let Some(o) = outcome {
            out.push_str(&format!(
                "{} frames sent, {} received, {} lost, {} reordered, {} on the wrong port\n\n",
                o.sent,
                o.received,
                o.lost(),
                o.reordered,
                o.misdirected
            ));
        }
        out.push_str(&text::latencies(&trails));
        out.push('\n');
        out.push_str(&text::occupancies(&waves));
        out.push('\n');
        out.push_str(&text::stalls(&at_work));
        sim.faults().iter().for_each(|f| out.push_str(&format!("  {f}\n")));
        if more + waves.lost > 0 {
            out.push_str(&format!("not kept: {more} frames, {} changes of signals\n", waves.lost));
        }
        Ok(out)
    }

    /// The frames whose ways are shown.
    fn chosen<'a>(&self, trails: &'a [nic::Trail]) -> Result<Vec<&'a nic::Trail>> {
        if self.frame.is_empty() {
            let slowest = trails.iter().rev().max_by_key(|t| t.cycles()).filter(|s| s.frame != 1);
            return Ok(trails
                .first()
                .into_iter()
                .chain(slowest.filter(|s| Some(s.frame) != trails.first().map(|t| t.frame)))
                .collect());
        }
        let find = |n: &u64| {
            let last = trails.last().map_or(0, |t| t.frame);
            let first = trails.first().map_or(0, |t| t.frame);
            trails
                .iter()
                .find(|t| t.frame == *n)
                .with_context(|| format!("no frame {n}: they are {first} to {last}"))
        };
        self.frame.iter().map(find).collect()
    }
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(subcommand)]
        what: Sim,
    }

    fn run(args: &str, json: bool) -> Result<String> {
        Cli::try_parse_from(std::iter::once("sim").chain(args.split_whitespace()))?.what.run(json)
    }

    #[test]
    fn profiles_are_listed_printed_and_checked() {
        let listed = run("profiles", false).unwrap();
        assert!(listed.lines().count() >= 5 && listed.contains("tcam-poor-asic"), "{listed}");
        assert!(run("profiles small-nic", false).unwrap().contains("[exact]"));
        assert!(run("check small-nic default", false).is_ok());
        let e = run("check /nonexistent", false).unwrap_err();
        let said = format!("{e:#}");
        assert!(said.starts_with("/nonexistent: No such file"), "{said}");
        assert_eq!(said.matches("No such file").count(), 1, "{said}");
    }

    #[test]
    fn a_trace_shows_a_frame_in_every_stage_and_writes_what_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |n: &str| dir.path().join(n).display().to_string();
        let script = at("script");
        std::fs::write(&script, "100 bit-errors 0 2\n").unwrap();
        let args = format!(
            "trace --frames 20 --load 100 --script {script} --vcd {} --perfetto {} --pcap {} --svg {}",
            at("w.vcd"),
            at("t.json"),
            at("c.pcapng"),
            at("p.svg")
        );
        let out = run(&args, false).unwrap();
        for want in [
            "port 0 receive",
            "parser",
            "exact table 0",
            "ternary table",
            "action engine",
            "egress queue",
            "wire from port 1",
        ] {
            assert!(out.contains(want), "{want} is missing in {out}");
        }
        // Of the cycles of the traffic, not of those in which rules were installed: the line is full.
        let mac = out.lines().find(|l| l.contains("port1 tx mac")).unwrap();
        let busy: f64 = mac.split_whitespace().nth(4).unwrap().parse().unwrap();
        assert!(busy > 20.0, "{out}");
        assert!(out.contains("80 frames sent, 78 received, 2 lost, 0 reordered"), "{out}");
        assert!(out.contains("port 0 lost 2 frames: fcs_error"), "{out}");
        assert!(std::fs::read_to_string(at("w.vcd")).unwrap().contains("$enddefinitions"));
        let perfetto: serde_json::Value =
            serde_json::from_slice(&std::fs::read(at("t.json")).unwrap()).unwrap();
        assert!(perfetto["traceEvents"].as_array().unwrap().len() > 500);
        assert_eq!(pcapng::read(&std::fs::read(at("c.pcapng")).unwrap()).unwrap().len(), 80 + 78);
        assert!(std::fs::read_to_string(at("p.svg")).unwrap().ends_with("</svg>\n"));
        // All frames of the capture go in again, by port 0.
        let again = run(&format!("trace --read {}", at("c.pcapng")), false).unwrap();
        let mac = again.lines().find(|l| l.contains("port0 rx mac")).unwrap();
        assert_eq!(mac.split_whitespace().nth(3), Some("158"), "{again}");
    }

    #[test]
    fn test_runs_report_in_text_and_json_with_a_plot() {
        let dir = tempfile::tempdir().unwrap();
        let svg = dir.path().join("r.svg").display().to_string();
        let args = format!("rfc2544 --sizes 512 --frames 50 --svg {svg}");
        assert!(run(&args, false).unwrap().contains("\n   512 "));
        let json: serde_json::Value = serde_json::from_str(&run(&args, true).unwrap()).unwrap();
        assert_eq!(json["sizes"][0]["throughput"], 1.0);
        assert!(std::fs::read_to_string(svg).unwrap().contains("Throughput per port"));
        let svg = dir.path().join("m.svg").display().to_string();
        let args = format!("rfc2889 --profile small-nic --size 256 --frames 40 --svg {svg}");
        assert!(run(&args, false).unwrap().contains(&svg));
        let plot = std::fs::read_to_string(svg).unwrap();
        assert!(
            plot.contains("many to one")
                && plot.contains("at the first refusal")
                && plot.ends_with("</svg>\n")
        );
        assert!(run("rfc2544 --sizes 20", false).is_err());
        assert!(run("trace --load 0", false).unwrap_err().to_string().contains("--load 0"));
    }
}
