//! `vswitchd`: the switch as a daemon. Under the name `ovs-vswitchd` it takes that program's command line ([`ovs`]).
//!
//! Three ways to be configured: by a database that this process serves itself (the default), by a database elsewhere (`--db`), by a
//! file (`--config`), which excludes a database.
#![forbid(unsafe_code)]

mod ovs;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use daemon::log::{Level, LogOptions, Logging};
use daemon::signals;
use vswitchd::db::Host;
use vswitchd::dummy::Dummies;
use vswitchd::source::Source;
use vswitchd::{Config, ConfigError, Database, PROGRAM, Switch, SwitchOptions, VERSION};

const AFTER_HELP: &str = "\
Without --config the switch is configured by its database: ovs-vsctl add-br br0.

Talk to it with `hoist status`, `ovs-appctl -t <run directory>/vswitchd.<pid>.ctl list-commands`, and
`ovs-ofctl -O OpenFlow13 show unix:<run directory>/<bridge>.mgmt`.

Exit status: 0 ended as asked, 1 failed, 2 wrong usage or configuration.";

/// An OpenFlow switch whose flows are hoisted into hardware.
#[derive(Parser)]
#[command(name = "vswitchd", version, after_help = AFTER_HELP)]
struct Cli {
    /// Configuration file (see example.toml), instead of a database
    #[arg(long, short = 'c', value_name = "FILE", conflicts_with_all = ["db", "database"])]
    config: Option<PathBuf>,
    /// Check the configuration file and end
    #[arg(long, requires = "config")]
    check: bool,
    /// Work by the database of this server (unix:FILE, tcp:HOST[:PORT]) instead of serving one
    #[arg(long, value_name = "SERVER", conflicts_with = "database")]
    db: Option<daemon::Active>,
    /// File of the database that this process serves on <run directory>/db.sock, made when there is none [default: conf.db in
    /// $OVS_DBDIR, else in /etc/hoist]
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,
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
    let program = daemon::cli::program_name(std::env::args_os().next(), PROGRAM);
    if program == ovs::NAME {
        return ovs::main(&program);
    }
    let mut cli = Cli::parse();
    let mut config = match cli.config.as_deref().map_or_else(|| Ok(Config::default()), Config::load) {
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
    if let Some(file) = cli.config.as_deref().filter(|_| cli.check) {
        println!("{}: {} bridges, {} devices", file.display(), config.bridges.len(), config.devices.len());
        return ExitCode::SUCCESS;
    }
    let mut options = SwitchOptions { host: host(Dummies::None, false), ..SwitchOptions::default() };
    match (&cli.config, cli.db.take()) {
        (Some(file), _) => {
            options.source = Source::File { path: file.clone(), started_with: Box::new(config.clone()) };
        }
        (None, Some(at)) => {
            options.source = Source::Database(at.to_string());
            options.database = Some(Database::Remote(at));
        }
        (None, None) => {
            let file = cli.database.take().unwrap_or_else(|| database_dir("/etc/hoist").join("conf.db"));
            options.source = Source::Database(format!("{} (embedded)", file.display()));
            options.database = Some(Database::Embedded { file, tls: Default::default() });
        }
    }
    config.daemon.run_dir = cli.run_dir.or(config.daemon.run_dir);
    config.daemon.log_file = cli.log_file.or(config.daemon.log_file);
    match run(config, options, &cli.verbose) {
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

/// What this process may do for a database.
fn host(dummies: Dummies, no_system: bool) -> Host {
    Host { taps: nix::unistd::geteuid().is_root(), dummies, no_system, tc: false, confined: false }
}

/// Where databases are: `$OVS_DBDIR`, or else `usual`.
fn database_dir(usual: &str) -> PathBuf {
    std::env::var_os("OVS_DBDIR")
        .filter(|v| !v.is_empty())
        .map_or_else(|| PathBuf::from(usual), PathBuf::from)
}

fn run(config: Config, mut options: SwitchOptions, verbose: &[String]) -> anyhow::Result<()> {
    use anyhow::Context;
    let file = config.daemon.log_file.clone();
    let log_options = LogOptions { file: file.clone(), console: Level::Info, file_level: Level::Info };
    let log = Logging::new(&log_options)
        .with_context(|| format!("log file {}", file.unwrap_or_default().display()))?;
    for spec in verbose {
        log.set(spec).with_context(|| format!("--verbose {spec}"))?;
    }
    log.install();
    options.logging = Some(log);
    let switch = Switch::start(config, options)?;
    tracing::info!("{VERSION} started, run directory {}", switch.run_dir().display());
    serve(switch, || tracing::info!("ready"))
}

/// Serves until asked to end. `ready` is called once signals are taken care of.
fn serve(mut switch: Switch, ready: impl FnOnce()) -> anyhow::Result<()> {
    let stop = switch.stop_request();
    let (parts, to) = (switch.parts().clone(), switch.reconfiguration().clone());
    let reload = move || {
        if let Err(e) = parts.source.read().reload(&to) {
            tracing::error!("the configuration stays as it is: {e}");
        }
    };
    let cause = switch.block_on(async {
        let mut signals = signals::StopSignals::install()?;
        ready();
        Ok(signals.wait_reloading(&stop, reload).await)
    })?;
    tracing::debug!("stopping ({cause:?})");
    switch.spawn(async {
        let _ = signals::abort_on_second_signal().await;
    });
    switch.shutdown();
    Ok(())
}
