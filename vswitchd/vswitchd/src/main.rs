//! `vswitchd`: the switch as a daemon.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use daemon::log::{Level, LogOptions, Logging};
use daemon::signals;
use vswitchd::source::Source;
use vswitchd::{Config, ConfigError, Switch, SwitchOptions};

const AFTER_HELP: &str = "\
Talk to it with `hoist status`, `ovs-appctl -t <run directory>/vswitchd.<pid>.ctl list-commands`, and
`ovs-ofctl -O OpenFlow13 show unix:<run directory>/<bridge>.mgmt`.

Exit status: 0 ended as asked, 1 failed, 2 wrong usage or configuration.";

/// An OpenFlow switch whose flows are hoisted into hardware.
#[derive(Parser)]
#[command(name = "vswitchd", version, after_help = AFTER_HELP)]
struct Cli {
    /// Configuration file (see example.toml)
    #[arg(long, short = 'c', value_name = "FILE")]
    config: PathBuf,
    /// Check the configuration and end
    #[arg(long)]
    check: bool,
    /// Run directory, instead of the configuration's or the environment's
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Log file, instead of the configuration's
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Log levels as for vlog/set: [MODULE[:DESTINATION[:LEVEL]]]; may be repeated
    #[arg(long, short = 'v', value_name = "SPEC", num_args = 0..=1, default_missing_value = "dbg")]
    verbose: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut config = match Config::load(&cli.config) {
        Ok(c) => c,
        Err(e) => {
            match &e {
                ConfigError::Unreadable { .. } => eprintln!("vswitchd: {e}"),
                // One line each, ready for an editor to jump to.
                ConfigError::Wrong(_) => eprintln!("{e}"),
            }
            return ExitCode::from(2);
        }
    };
    if cli.check {
        println!(
            "{}: {} bridges, {} devices",
            cli.config.display(),
            config.bridges.len(),
            config.devices.len()
        );
        return ExitCode::SUCCESS;
    }
    config.daemon.run_dir = cli.run_dir.or(config.daemon.run_dir);
    config.daemon.log_file = cli.log_file.or(config.daemon.log_file);
    match run(&cli.config, config, &cli.verbose) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("vswitchd: {}", words(&e));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes, without those that it repeats.
fn words(e: &anyhow::Error) -> String {
    let mut out = e.to_string();
    for cause in e.chain().skip(1).map(ToString::to_string) {
        if !out.contains(&cause) {
            out = format!("{out}: {cause}");
        }
    }
    out
}

fn run(path: &Path, config: Config, verbose: &[String]) -> anyhow::Result<()> {
    use anyhow::Context;
    let file = config.daemon.log_file.clone();
    let options = LogOptions { file: file.clone(), console: Level::Info, file_level: Level::Info };
    let log =
        Logging::new(&options).with_context(|| format!("log file {}", file.unwrap_or_default().display()))?;
    for spec in verbose {
        log.set(spec).with_context(|| format!("--verbose {spec}"))?;
    }
    log.install();
    let source = Source::File { path: path.to_owned(), started_with: Box::new(config.clone()) };
    let options = SwitchOptions { logging: Some(log), source, ..SwitchOptions::default() };
    let mut switch = Switch::start(config, options)?;
    let stop = switch.stop_request();
    let (parts, to) = (switch.parts().clone(), switch.reconfiguration().clone());
    let reload = move || {
        if let Err(e) = parts.source.read().reload(&to) {
            tracing::error!("the configuration stays as it is: {e}");
        }
    };
    let cause = switch.block_on(async {
        let mut signals = signals::StopSignals::install()?;
        tracing::info!("ready");
        Ok(signals.wait_reloading(&stop, reload).await)
    })?;
    tracing::info!("stopping ({cause:?})");
    switch.spawn(async {
        let _ = signals::abort_on_second_signal().await;
    });
    switch.shutdown();
    Ok(())
}
