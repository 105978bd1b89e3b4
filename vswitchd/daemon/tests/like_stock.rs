//! `ovs-appctl` hears the same from our daemons as from a stock `ovsdb-server`, which is started privately beside.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use daemon::log::{LogOptions, Logging};
use daemon::signals::stop_channel;
use daemon::unixctl::{Commands, Server, builtin};

struct Stock {
    child: Child,
    socket: PathBuf,
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stock(dir: &Path) -> Stock {
    let socket = dir.join("stock.ctl");
    let child = Command::new("ovsdb-server")
        .args(["--no-dbs", "-vconsole:off", "--log-file=stock.log"])
        .arg(format!("--unixctl={}", socket.display()))
        .current_dir(dir)
        .env("OVS_RUNDIR", dir)
        .env("OVS_LOGDIR", dir)
        .env("OVS_SYSLOG_METHOD", "null")
        .stderr(Stdio::null())
        .stdin(Stdio::null())
        .spawn()
        .expect("ovsdb-server (cargo xtask setup installs it)");
    let stock = Stock { child, socket };
    let begin = Instant::now();
    while !stock.socket.exists() {
        assert!(begin.elapsed() < Duration::from_secs(30), "stock ovsdb-server does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    stock
}

/// Exit status, output and errors of `ovs-appctl` for a command, without the name of who was asked.
fn ask(socket: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let o = Command::new("ovs-appctl").arg("-t").arg(socket).args(words).output().expect("ovs-appctl");
    let text = |b: &[u8]| String::from_utf8_lossy(b).replace(&socket.display().to_string(), "TARGET");
    (o.status.code(), text(&o.stdout), text(&o.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_and_errors_are_those_of_a_stock_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let stock = stock(dir.path());
    let ours = dir.path().join("ours.ctl");
    let options = LogOptions { file: Some(dir.path().join("ours.log")), ..LogOptions::default() };
    let log = Logging::new(&options).unwrap();
    let commands = Commands::new();
    let (stop, stopped) = stop_channel();
    builtin(&commands, "ours 1", stop.clone(), Some(log.clone()));
    let server = Server::bind(&ours, commands).await.unwrap();
    let serving = tokio::spawn(server.serve(stopped));

    let conversation: &[&[&str]] = &[
        &["help"],
        &["vlog/set", "nosuch"],
        &["vlog/set", "dbg:info"],
        &["vlog/set", "file:console"],
        &["vlog/set", "jsonrpc reconnect"],
        &["vlog/set"],
        &["vlog/set", "any:any:any"],
        &["vlog/set", "any:any:info"],
        &["vlog/set", "console:off"],
        &["vlog/set", "JSONRPC,file:dbg", "reconnect:syslog:err"],
        &["vlog/set", "jsonrpc:info", "nosuch", "jsonrpc:off"],
        &["vlog/set", "PATTERN"],
        &["vlog/set", "PATTERN:"],
        &["vlog/set", "PATTERN:nowhere:%m"],
        &["vlog/set", "pattern:file:%D{%H:%M}|%-5p|%m|%%|:"],
        &["vlog/set", "PATTERN:ANY:%N %m"],
        &["vlog/set", "PATTERN:console"],
        &["vlog/set", "FACILITY:nosuch"],
        &["vlog/set", "FACILITY:"],
        &["vlog/set", "FACILITY:local3"],
        &["vlog/list-pattern"],
        &["vlog/list-pattern", "x"],
        &["vlog/list", "x"],
        &["vlog/disable-rate-limit", "nosuch"],
        &["vlog/disable-rate-limit", "jsonrpc", "reconnect"],
        &["vlog/enable-rate-limit"],
        &["vlog/enable-rate-limit", "any"],
        &["vlog/close"],
        &["vlog/reopen"],
        &["version", "x"],
        &["list-commands", "x"],
        &["coverage/read-counter"],
        &["coverage/read-counter", "nosuch"],
        &["coverage/show", "x"],
    ];
    for words in conversation {
        let (theirs, mine) = (ask(&stock.socket, words), ask(&ours, words));
        assert_eq!(mine, theirs, "{words:?}");
    }
    // The stock daemon has fewer modules.
    let (theirs, mine) = (ask(&stock.socket, &["vlog/list"]).1, ask(&ours, &["vlog/list"]).1);
    assert!(theirs.lines().count() > 50, "{theirs}");
    for line in theirs.lines() {
        assert!(mine.lines().any(|l| l == line), "\"{line}\" is not in:\n{mine}");
    }
    let (theirs, mine) = (ask(&stock.socket, &["list-commands"]).1, ask(&ours, &["list-commands"]).1);
    for line in mine.lines().filter(|l| !l.contains(" exit ")) {
        assert!(theirs.lines().any(|l| l == line), "\"{line}\" is not in:\n{theirs}");
    }
    let first = |s: &Path| {
        let shown = ask(s, &["coverage/show"]).1;
        shown.lines().next().unwrap().split("hash=").next().unwrap().to_owned()
    };
    assert_eq!(first(&ours), first(&stock.socket));
    assert_eq!(ask(&ours, &["exit"]).0, Some(0));
    serving.await.unwrap();
}
