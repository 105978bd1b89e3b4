//! Going into the background, as a script sees it. This program plays the daemon when the environment says so, because a
//! daemon starts its own program again.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Output};
use std::time::{Duration, Instant};

use daemon::signals::{StopSignals, stop_channel};
use daemon::unixctl::{Commands, Server, builtin};
use daemon::{Daemon, PidFile, cli};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PLAY: &str = "HOIST_TEST_PLAYS_DAEMON";

fn main() -> ExitCode {
    if std::env::var_os(PLAY).is_some() {
        return play();
    }
    type Test = fn(&Path);
    let tests: [(&str, Test); 7] = [
        ("the_command_returns_when_pid_file_and_socket_are_there", returns_when_ready),
        ("output_of_the_background_goes_nowhere", output_goes_nowhere),
        ("nothing_is_written_where_the_command_was_once_it_has_ended", quiet_once_ended),
        ("what_fails_before_readiness_fails_the_command", failure_is_passed_on),
        ("a_second_daemon_is_refused_unless_told_to_overwrite", second_is_refused),
        ("a_crashed_daemon_is_started_again_and_an_ended_one_is_not", monitor_restarts),
        ("a_daemon_in_the_foreground_stays_there", foreground),
    ];
    for (name, test) in tests {
        let dir = tempfile::tempdir().unwrap();
        test(dir.path());
        println!("test {name} ... ok");
    }
    ExitCode::SUCCESS
}

/// A daemon that does nothing but be one. The argument `fail` makes it fail late, and `chatty` write all the time.
fn play() -> ExitCode {
    let mut line = std::env::args_os();
    let program = cli::program_name(line.next(), "played");
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        let line = cli::parse(&program, &[], line)?;
        let mut daemon = Daemon::start(&program, &line.daemon)?;
        if line.arguments.iter().any(|a| a == "fail") {
            println!("said before failing");
            std::process::exit(7);
        }
        if line.arguments.iter().any(|a| a == "chatty") {
            std::thread::spawn(|| {
                loop {
                    println!("said at any time");
                }
            });
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let (stop, stopped) = stop_channel();
            let commands = Commands::new();
            builtin(&commands, "played 1", stop.clone(), Some(daemon.logging().clone()));
            commands.register("cwd", "", 0..=0, |_| {
                std::env::current_dir().map(|d| d.display().to_string()).map_err(|e| e.to_string())
            });
            let path = line.daemon.control_socket(&program).expect("a socket");
            let server = Server::bind(&path, commands).await?;
            let mut signals = StopSignals::install()?;
            println!("said before readiness");
            daemon.ready();
            println!("said after readiness");
            tokio::join!(server.serve(stopped), signals.wait(&stop));
            Ok(())
        })
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{program}: {e}");
            ExitCode::FAILURE
        }
    }
}

fn command(dir: &Path, arguments: &[&str]) -> Command {
    use std::os::unix::process::CommandExt;
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.arg0("/some/where/ovs-played").args(arguments).env(PLAY, "1").current_dir(dir);
    c.env("OVS_RUNDIR", dir).env("OVS_LOGDIR", dir);
    c
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

fn pid(dir: &Path) -> Pid {
    let text = fs::read_to_string(dir.join("ovs-played.pid")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap())
}

fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Asks the daemon of a pid; its answer or error text.
fn ask(dir: &Path, pid: Pid, method: &str) -> String {
    let socket = dir.join(format!("ovs-played.{pid}.ctl"));
    let mut c = Command::new("ovs-appctl");
    let out = c.arg("-t").arg(socket).arg("-T5").args(method.split(' ')).output().expect("ovs-appctl");
    String::from_utf8(if out.status.success() { out.stdout } else { out.stderr }).unwrap()
}

fn end(dir: &Path, pid: Pid) {
    ask(dir, pid, "exit");
    wait("the daemon's end", || kill(pid, None).is_err());
    assert!(!dir.join("ovs-played.pid").exists(), "the pid file goes with the daemon");
}

fn returns_when_ready(dir: &Path) {
    let out = run(dir, &["--detach", "--pidfile", "--log-file", "--no-chdir"]);
    // At once, without any wait.
    let pid = pid(dir);
    assert!(out.status.success(), "{out:?}");
    assert!(dir.join(format!("ovs-played.{pid}.ctl")).exists());
    assert_eq!(ask(dir, pid, "version"), "played 1\n");
    assert_eq!(ask(dir, pid, "cwd").trim(), dir.to_str().unwrap());
    let log = fs::read_to_string(dir.join("ovs-played.log")).unwrap();
    assert!(log.contains("|00001|vlog|INFO|opened log file "), "{log}");
    assert!(!String::from_utf8_lossy(&out.stderr).contains("WARN"), "{out:?}");
    end(dir, pid);
}

fn output_goes_nowhere(dir: &Path) {
    // `output` returns when nobody has our end of the pipes any more.
    let out = run(dir, &["--detach", "--pidfile"]);
    assert_eq!(out.stdout, b"said before readiness\n");
    let pid = pid(dir);
    assert_eq!(ask(dir, pid, "cwd").trim(), "/");
    for fd in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap(), Path::new("/dev/null"));
    }
    assert!(ask(dir, pid, "vlog/list").lines().skip(2).all(|l| l.contains(" OFF ")));
    end(dir, pid);
}

fn quiet_once_ended(dir: &Path) {
    for _ in 0..5 {
        let file = dir.join("out");
        let out = fs::File::create(&file).unwrap();
        let status = command(dir, &["--detach", "--pidfile", "chatty"]).stdout(out).status().unwrap();
        let length = || fs::metadata(&file).unwrap().len();
        let then = length();
        assert!(status.success() && then > 0);
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(length(), then);
        end(dir, pid(dir));
    }
}

fn failure_is_passed_on(dir: &Path) {
    let out = run(dir, &["--detach", "--pidfile", "fail"]);
    assert_eq!(out.status.code(), Some(7));
    assert_eq!(out.stdout, b"said before failing\n");
    let out = run(dir, &["--detach", "--monitor", "--pidfile", "fail"]);
    assert_eq!(out.status.code(), Some(7));
    let out = run(dir, &["--detach", "--pidfile=/nonexistent/x"]);
    assert_eq!(out.status.code(), Some(1));
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(
        words.ends_with("ovs-played: /nonexistent/x: No such file or directory (os error 2)\n"),
        "{words}"
    );
    let out = run(dir, &["--detach", "-vx y z"]);
    assert_eq!(out.status.code(), Some(1));
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(words.starts_with("ovs-played: processing \"x y z\": "), "{words}");
    assert_eq!(run(dir, &["--detatch"]).stderr, b"ovs-played: unrecognized option '--detatch'\n");
}

fn second_is_refused(dir: &Path) {
    assert!(run(dir, &["--detach", "--pidfile"]).status.success());
    let first = pid(dir);
    let out = run(dir, &["--detach", "--pidfile", "-vconsole:off"]);
    assert_eq!(out.status.code(), Some(1));
    let path = dir.join("ovs-played.pid");
    let want = format!("ovs-played: {}: already running as pid {first}, aborting\n", path.display());
    assert_eq!(String::from_utf8_lossy(&out.stderr), want);
    assert!(run(dir, &["--detach", "--pidfile", "--overwrite-pidfile"]).status.success());
    let second = pid(dir);
    assert_ne!(first, second);
    assert_eq!(PidFile::read(&path).unwrap(), Some(second.as_raw() as u32));
    ask(dir, first, "exit");
    wait("the first one's end", || kill(first, None).is_err());
    assert!(path.exists(), "the file is the second one's");
    end(dir, second);
}

fn parent(pid: Pid) -> Pid {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let rest = stat.rsplit(')').next().unwrap();
    Pid::from_raw(rest.split_whitespace().nth(1).unwrap().parse().unwrap())
}

fn monitor_restarts(dir: &Path) {
    assert!(run(dir, &["--detach", "--monitor", "--pidfile", "--log-file"]).status.success());
    let first = pid(dir);
    let monitor = parent(first);
    assert!(
        fs::read_to_string(format!("/proc/{monitor}/cmdline"))
            .unwrap()
            .starts_with("/some/where/ovs-played\0")
    );
    kill(first, Signal::SIGSEGV).unwrap();
    let path = dir.join("ovs-played.pid");
    let now = || fs::read_to_string(&path).ok().and_then(|t| t.trim().parse().ok()).map(Pid::from_raw);
    wait("another daemon", || now().is_some_and(|p| p != first && kill(p, None).is_ok()));
    let second = pid(dir);
    assert_eq!(parent(second), monitor);
    wait("its socket", || ask(dir, second, "version") == "played 1\n");
    end(dir, second);
    wait("the monitor's end", || kill(monitor, None).is_err());
    let log = fs::read_to_string(dir.join("ovs-played.log")).unwrap();
    assert!(log.contains(&format!("|ERR|pid {first} died, killed (Segmentation fault)")), "{log}");
    assert!(log.contains(&format!("|INFO|pid {second} died, exit status 0, exiting")), "{log}");
}

fn foreground(dir: &Path) {
    let mut child = command(dir, &["--pidfile", "--unixctl=here"]).spawn().unwrap();
    wait("the socket", || dir.join("here").exists());
    assert_eq!(pid(dir).as_raw() as u32, child.id());
    let out = Command::new("ovs-appctl").arg("-t").arg(dir.join("here")).arg("exit").output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert!(child.wait().unwrap().success());
}
