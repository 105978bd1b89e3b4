//! `ovsdb-server`: the OVSDB server as a program, with the command line of Open vSwitch's (ovsdb-server(1)).
#![forbid(unsafe_code)]

mod options;
mod saved;

use std::process::{Child, Command, ExitCode, ExitStatus};

use daemon::cli;
use daemon::detach::Daemon;
use daemon::rundir::RunDir;
use daemon::signals::{StopRequest, StopSignals, stop_channel};
use daemon::unixctl::{self, Commands};
use ovsdb::server::{Handle, Server, ServerConfig};

use options::{Asked, Options};
use saved::Saved;

const VERSION: &str = concat!("ovsdb-server (Hoist) ", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = cli::program_name(args.next(), "ovsdb-server");
    match Options::parse(&program, args) {
        Err(e) => {
            eprintln!("{program}: {e}");
            ExitCode::FAILURE
        }
        Ok(Asked::Help) => {
            print!("{}{}", options::help(&program), cli::help(&program));
            ExitCode::SUCCESS
        }
        Ok(Asked::Version) => {
            println!("{VERSION}");
            ExitCode::SUCCESS
        }
        Ok(Asked::Serve(o)) => match serve(&program, *o) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                let words = e.to_string();
                tracing::error!(target: "ovsdb_server", "{words}");
                eprintln!("{program}: {words}");
                ExitCode::FAILURE
            }
        },
    }
}

fn serve(program: &str, mut o: Options) -> anyhow::Result<()> {
    let mut daemon = Daemon::start(program, &o.daemon)?;
    daemon::tls::warn_of_choices(&o.ignored);
    let saved = Saved::for_this_process(program, &o.daemon);
    if let Some((databases, remotes)) = saved.as_ref().and_then(Saved::load) {
        (o.databases, o.remotes) = (databases, remotes);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let commands = Commands::new();
    // Bound before anything listens: who sees the server can also tell it what to do.
    let control = match o.daemon.control_socket(program) {
        Some(path) => Some(runtime.block_on(unixctl::Server::bind(&path, commands.clone()))?),
        None => None,
    };
    let run_dir = RunDir::for_program(program);
    let server = Server::start(ServerConfig {
        databases: o.databases,
        remotes: o.remotes,
        run_dir: run_dir.path().to_owned(),
        tls: o.tls,
        file_differences: o.file_differences,
        history_transactions: o.history_transactions,
        ..ServerConfig::default()
    })?;
    let (stop, stopped) = stop_channel();
    unixctl::builtin(&commands, VERSION, stop.clone(), Some(daemon.logging().clone()));
    let save = saved.clone();
    server.handle().register(&commands, move |h| save_to(save.as_ref(), h));
    if !o.file_differences {
        let h = server.handle().clone();
        commands.register("ovsdb/file/column-diff-enable", "", 0..=0, move |_| {
            h.enable_file_differences().map(|()| String::new()).map_err(|e| e.to_string())
        });
    }
    save_to(saved.as_ref(), server.handle());
    let result = runtime.block_on(async {
        let mut signals = StopSignals::install()?;
        let control = control.map(|c| tokio::spawn(c.serve(stopped)));
        let child = o.run.as_deref().map(|c| run(c, &stop)).transpose()?;
        daemon.ready();
        // With --run it is more like a command than a service, and says nothing.
        if child.is_none() {
            tracing::info!(target: "ovsdb_server", "{VERSION}");
        }
        signals.wait(&stop).await;
        if let Some(c) = control {
            // Gives the reply to `exit` time to leave.
            let _ = c.await;
        }
        match child {
            Some(c) => c.outcome(),
            None => Ok(()),
        }
    });
    if let Some(s) = &saved {
        s.forget();
    }
    server.stop();
    result
}

fn save_to(saved: Option<&Saved>, h: &Handle) {
    if let (Some(s), Ok(databases), Ok(remotes)) = (saved, h.database_files(), h.remotes()) {
        s.store(&databases, &remotes);
    }
}

/// A command that runs beside the server, which ends with it.
struct Beside {
    command: String,
    done: std::sync::mpsc::Receiver<std::io::Result<ExitStatus>>,
}

/// Starts a shell command and asks for the end when it is over.
fn run(command: &str, stop: &StopRequest) -> anyhow::Result<Beside> {
    let child: Child = Command::new("/bin/sh")
        .args(["-c", command])
        .spawn()
        .map_err(|e| anyhow::anyhow!("{command}: process failed to start ({})", daemon::os_words(&e)))?;
    let (tx, done) = std::sync::mpsc::sync_channel(1);
    let stop = stop.clone();
    std::thread::Builder::new().name("run".to_owned()).spawn(move || {
        let mut child = child;
        let _ = tx.send(child.wait());
        stop.stop();
    })?;
    Ok(Beside { command: command.to_owned(), done })
}

impl Beside {
    /// An error when the command failed. One that still runs is left alone.
    fn outcome(self) -> anyhow::Result<()> {
        let Ok(status) = self.done.try_recv() else { return Ok(()) };
        let status = status?;
        if status.success() {
            return Ok(());
        }
        let words = match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
            (Some(code), _) => format!("exit status {code}"),
            (None, Some(n)) => format!("killed (signal {n})"),
            (None, None) => status.to_string(),
        };
        anyhow::bail!("{}: child exited, {words}", self.command)
    }
}
