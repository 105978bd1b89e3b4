//! `hoist`: asks a running switch which flows are in hardware, and why the others are not; makes certificates.
//!
//! Tables for people by default, the daemon's documents (`daemon::report`) with `--json`. Exit status: 0 done, 1 failed,
//! 2 wrong usage, 3 no switch is running.
#![forbid(unsafe_code)]

mod ask;
mod pci_devices;
mod perf;
mod pki;
mod serve;
mod show;
mod sim;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use daemon::report;

use ask::{AskError, Switch};

const EXAMPLES: &str = "\
Examples:
  hoist status                      is it running, and how much is in hardware?
  hoist flows --hw                  flows that the device forwards
  hoist why                         every flow that stayed in software, and what stopped it
  hoist why 17                      one flow, by the number `hoist flows` shows
  hoist why tcp,nw_dst=10.0.0.2     flows that such packets use
  hoist perf --live                 cycles per packet and where they go, each second
  hoist flows --json | jq '.[] | select(.placement == \"software\") | .why.kind'

Exit status: 0 done, 1 failed, 2 wrong usage, 3 no switch is running.";

#[derive(Parser)]
#[command(name = "hoist", version, about = "Shows which flows are in hardware, and why the others are not")]
#[command(after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Options {
    /// Control socket of the switch [default: found by the pid file in the run directory]
    #[arg(long, short = 't', value_name = "SOCKET", global = true)]
    target: Option<PathBuf>,
    /// Run directory [default: $OVS_RUNDIR, $HOIST_RUNDIR, $XDG_RUNTIME_DIR/hoist, /var/run/hoist]
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "target")]
    run_dir: Option<PathBuf>,
    /// Print JSON for programs; its members are stable
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
#[allow(clippy::large_enum_variant)] // there is one
enum Command {
    /// Bridges, devices, and how much of the traffic is in hardware
    Status,
    /// Flow records with counters and where they are
    Flows {
        /// Only those in hardware
        #[arg(long, conflicts_with = "sw")]
        hw: bool,
        /// Only those in software
        #[arg(long)]
        sw: bool,
        /// Only flows that such packets use, in ovs-ofctl's match syntax, or one flow's number
        filter: Option<String>,
    },
    /// For each flow that is not in hardware: the layer, table, field or action that stopped it, and what would help
    Why {
        /// A flow's number, or a match in ovs-ofctl's syntax [default: all that are not in hardware]
        flow: Option<String>,
    },
    /// Offload devices with their tables, and PCI devices that could be one
    Devices,
    /// Hand PCI devices to vfio-pci, for a driver in user space; needs root
    Bind {
        /// Their addresses, 0000:06:00.0
        #[arg(required = true)]
        addresses: Vec<String>,
        /// Although the kernel's interfaces on them disappear
        #[arg(long)]
        force: bool,
    },
    /// Give PCI devices back to the driver that the kernel chooses for them; needs root
    Unbind {
        /// Their addresses, 0000:06:00.0
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Ports with their counters
    Ports,
    /// What the forwarding cores do: cycles per packet, and where they go
    Perf {
        /// Prints the figures of the last so many seconds, over and over [default: since the start, once]
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
        live: Option<f64>,
        /// Ends after so many
        #[arg(long, value_name = "N", requires = "live")]
        rounds: Option<u32>,
    },
    /// Keys and certificates for ssl: and pssl: connections, as ovs-pki makes them
    Pki(pki::Pki),
    /// Inside of the simulated devices of a running switch: cycles, stage utilisation, drops; or a simulated device by itself
    Sim {
        #[command(subcommand)]
        what: Option<sim::Sim>,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli).await {
        Ok(text) => match write(&text) {
            Ok(()) => ExitCode::SUCCESS,
            // A reader that has seen enough (`hoist flows | head`) is no error.
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(e) => fail(&e.into(), 1),
        },
        Err(e) => {
            let code = match e.downcast_ref::<AskError>() {
                Some(AskError::NotRunning { .. }) => 3,
                _ => 1,
            };
            fail(&e, code)
        }
    }
}

fn fail(e: &anyhow::Error, code: u8) -> ExitCode {
    eprintln!("hoist: {e:#}");
    ExitCode::from(code)
}

/// Writes to stdout.
fn write(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Seconds between two answers.
fn seconds(text: &str) -> Result<f64, String> {
    let s = text.parse::<f64>().ok().filter(|s| (0.01..=3600.0).contains(s));
    s.ok_or_else(|| "0.01 to 3600".to_owned())
}

async fn run(cli: &Cli) -> anyhow::Result<String> {
    let o = &cli.options;
    match &cli.command {
        Command::Status => answer::<report::Status>(o, "hoist/status", &[], show::status).await,
        Command::Flows { hw, sw, filter } => {
            let mut args = Vec::new();
            args.extend(hw.then_some("--hw"));
            args.extend(sw.then_some("--sw"));
            args.extend(filter.as_deref());
            answer::<Vec<report::Flow>>(o, "hoist/flows", &args, |f| show::flows(f)).await
        }
        Command::Why { flow } => {
            let args: Vec<&str> = flow.as_deref().into_iter().collect();
            answer::<report::WhyReport>(o, "hoist/why", &args, |w| show::why(w, flow.is_some())).await
        }
        Command::Ports => answer::<Vec<report::Port>>(o, "hoist/ports", &[], |p| show::ports(p)).await,
        Command::Perf { live: None, .. } => {
            answer::<report::Perf>(o, "hoist/perf", &[], |p| perf::show(p, "since the start,")).await
        }
        Command::Perf { live: Some(s), rounds } => {
            perf::live(o.target.as_deref(), o.run_dir.as_deref(), o.json, *s, *rounds, write).await?;
            Ok(String::new())
        }
        Command::Pki(p) => p.run(),
        Command::Sim { what: Some(what) } => what.run(o.json),
        Command::Sim { what: None } => {
            answer::<Vec<report::Sim>>(o, "hoist/sim", &[], |d| show::sim(d)).await
        }
        Command::Devices => devices(o).await,
        Command::Bind { addresses, force } => {
            pci_devices::change(Path::new(pci::SYSFS), addresses, pci::Change::Bind, *force)
        }
        Command::Unbind { addresses } => {
            pci_devices::change(Path::new(pci::SYSFS), addresses, pci::Change::GiveBack, false)
        }
    }
}

/// Runs one command and renders its document.
async fn answer<T: serde::de::DeserializeOwned>(
    o: &Options,
    command: &str,
    args: &[&str],
    show: impl FnOnce(&T) -> String,
) -> anyhow::Result<String> {
    let mut s = Switch::connect(o.target.as_deref(), o.run_dir.as_deref()).await?;
    s.answer(o.json, command, args, show).await
}

/// Configured devices need a switch; the candidates on the PCI bus do not.
async fn devices(o: &Options) -> anyhow::Result<String> {
    let configured = match Switch::connect(o.target.as_deref(), o.run_dir.as_deref()).await {
        Ok(mut s) => Some(s.ask::<Vec<report::Device>>("hoist/devices", &[]).await?),
        // Asked for a certain switch: its absence is the answer.
        Err(e) if o.target.is_some() || o.run_dir.is_some() => return Err(e.into()),
        Err(AskError::NotRunning { .. }) => None,
        Err(e) => return Err(e.into()),
    };
    let (candidates, unreadable) = pci_devices::candidates(Path::new(pci::SYSFS));
    for u in unreadable {
        eprintln!("hoist: {u}");
    }
    if o.json {
        let all =
            serde_json::json!({ "running": configured.is_some(), "devices": configured, "pci": candidates });
        return Ok(format!("{all:#}\n"));
    }
    Ok(show::devices(configured.as_deref(), &candidates))
}
