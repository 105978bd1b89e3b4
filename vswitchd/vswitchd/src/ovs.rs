//! The command line of `ovs-vswitchd` (ovs-vswitchd(8)): what scripts and tests that start a stock switch say.

use std::process::ExitCode;

use daemon::cli::{self, Opt, Takes, UsageError};
use daemon::detach::Daemon;
use daemon::rundir::RunDir;
use daemon::{Tls, TlsFiles};
use vswitchd::db::Host;
use vswitchd::dummy::Dummies;
use vswitchd::numa::Numa;
use vswitchd::source::Source;
use vswitchd::{Config, Database, Switch, SwitchOptions};

use super::{host, serve};

/// The name.
pub const NAME: &str = "ovs-vswitchd";

const VERSION: &str = concat!("ovs-vswitchd (Hoist) ", env!("CARGO_PKG_VERSION"));

const OPTIONS: &[Opt] = &[
    Opt::long("enable-dummy", Takes::Perhaps),
    Opt::long("disable-system", Takes::Nothing),
    Opt::long("disable-system-route", Takes::Nothing),
    Opt::long("dummy-numa", Takes::Value),
    Opt::long("mlockall", Takes::Nothing),
];

/// The program's own options, those of TLS among them.
fn own() -> Vec<Opt> {
    OPTIONS.iter().chain(&daemon::tls::OPTIONS).chain(&daemon::tls::CHOICES).copied().collect()
}

/// Runs under that name.
pub fn main(program: &str) -> ExitCode {
    let line = match cli::parse(program, &own(), std::env::args_os().skip(1)) {
        Ok(l) => l,
        Err(e) => return wrong(program, &e),
    };
    if line.help {
        print!("{}{}", help(program), cli::help(program));
        return ExitCode::SUCCESS;
    }
    if line.version {
        println!("{VERSION}");
        return ExitCode::SUCCESS;
    }
    match run(program, &line) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{program}: {}", super::words(&e));
            ExitCode::FAILURE
        }
    }
}

fn wrong(program: &str, e: &UsageError) -> ExitCode {
    eprintln!("{program}: {e}");
    ExitCode::FAILURE
}

fn run(program: &str, line: &cli::CommandLine) -> anyhow::Result<()> {
    let run_dir = RunDir::for_program(program);
    let at = match line.arguments.as_slice() {
        [] => format!("unix:{}", run_dir.path().join("db.sock").display()),
        [at] => at.clone(),
        _ => anyhow::bail!("at most one non-option argument accepted; use --help for usage"),
    };
    let remote: daemon::Active = at.parse()?;
    let given = |name: &str| line.own.iter().any(|(n, _)| *n == name);
    let mut choices = Vec::new();
    for (name, value) in &line.own {
        let choice = daemon::tls::choice(name, value.as_deref().unwrap_or_default());
        choices.extend(choice.map_err(anyhow::Error::msg)?);
    }
    let mut daemon = Daemon::start(program, &line.daemon)?;
    daemon::tls::warn_of_choices(&choices);
    if given("mlockall") {
        tracing::info!(
            "--mlockall: buffers of packets are never paged out anyway; the rest is left to the system"
        );
    }
    let mut files = TlsFiles::default();
    for (name, value) in &line.own {
        files.set_option(name, value.as_deref().unwrap_or_default());
    }
    let mut config = Config::default();
    config.daemon.run_dir = Some(run_dir.path().to_owned());
    let dummies = match line.own.iter().find(|(n, _)| *n == "enable-dummy") {
        Some((_, which)) => Dummies::of_option(which.as_deref()),
        None => Dummies::None,
    };
    let numa = line.own.iter().find(|(n, _)| *n == "dummy-numa").and_then(|(_, list)| list.clone());
    let numa = match (dummies, numa) {
        (Dummies::None, _) | (_, None) => Numa::of_the_host(),
        (_, Some(list)) => {
            Numa::of_list(&list).ok_or_else(|| anyhow::anyhow!("--dummy-numa={list}: no list of nodes"))?
        }
    };
    numa.tell();
    let options = SwitchOptions {
        numa,
        program: program.to_owned(),
        pid_file: false,
        control: Some(line.daemon.control_socket(program)),
        source: Source::Database(remote.to_string()),
        database: Some(Database::Remote(remote.in_dir(run_dir.path()))),
        host: Host { confined: line.daemon.confined, ..host(dummies, given("disable-system")) },
        tls: Tls::new(files),
        logging: Some(daemon.logging().clone()),
        ..SwitchOptions::default()
    };
    let switch = Switch::start(config, options)?;
    serve(switch, || daemon.ready())
}

fn help(program: &str) -> String {
    format!(
        "{program}: Open vSwitch daemon
usage: {program} [OPTIONS] [DATABASE]
where DATABASE is a server on which ovsdb-server is listening (default: unix:<run directory>/db.sock).

  --enable-dummy[=TYPE]       interfaces of type dummy are ports in memory
  --disable-system            interfaces of the host are not touched
  --disable-system-route, --dummy-numa=LIST, --mlockall   accepted
  -p, --private-key=FILE  -c, --certificate=FILE  -C, --ca-cert=FILE
  --peer-ca-cert=FILE  --bootstrap-ca-cert=FILE
  --ssl-protocols=PROTOS      must have TLSv1.2 or TLSv1.3: both are always enabled, and nothing else
  --ssl-ciphers=CIPHERS       has no effect: the strong ciphers are always enabled, and nothing else
"
    )
}
