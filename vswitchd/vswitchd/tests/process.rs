//! The process: its sockets, commands, signals and end, seen through stock `ovs-appctl`.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use support::{Daemon, program, require};

#[test]
fn stock_ovs_appctl_speaks_to_it() {
    require("ovs-appctl");
    let mut d = Daemon::start("");
    assert_eq!(d.appctl(&["version"]), format!("{}\n", vswitchd::VERSION));
    let list = d.appctl(&["list-commands"]);
    // In columns, as stock daemons print them.
    for c in ["exit", "version", "vlog/set"] {
        assert!(
            list.lines().any(|l| l.strip_prefix("  ").is_some_and(|l| l.split(' ').next() == Some(c))),
            "{list}"
        );
    }
    let socket = d.control_socket();
    let o = d.tool("ovs-appctl".as_ref(), &["-t", socket.to_str().unwrap(), "no/such"]);
    assert_eq!(o.status.code(), Some(2));
    let words = String::from_utf8(o.stderr).unwrap();
    assert!(words.contains("commands)\n"), "what ovs-appctl adds begins a line: {words}");
    assert!(words.starts_with("\"no/such\" is not a valid command (use \"list-commands\""), "{words}");
    // By name, through the pid file, as its users do.
    assert_eq!(d.ok("ovs-appctl", &["-t", "vswitchd", "version"]), format!("{}\n", vswitchd::VERSION));
}

#[test]
fn exit_leaves_nothing_behind() {
    require("ovs-appctl");
    let d = Daemon::start("");
    assert!(d.path("vswitchd.pid").exists() && d.control_socket().exists());
    let (clean, dir) = d.stop();
    assert!(clean);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["switch.toml"]);
}

#[test]
fn signals_end_it_cleanly() {
    for signal in ["TERM", "INT"] {
        let d = Daemon::start("");
        d.signal("HUP");
        d.signal(signal);
        let (clean, dir) = d.wait();
        assert!(clean, "{signal}");
        assert!(!dir.path().join("vswitchd.pid").exists(), "{signal}");
    }
}

#[test]
fn a_killed_daemons_leftovers_are_no_obstacle() {
    require("ovs-appctl");
    let config = "[[bridge]]\nname = 'br0'\n";
    let d = Daemon::start(config);
    let stale = d.control_socket();
    d.signal("KILL");
    let (clean, dir) = d.wait();
    assert!(!clean && stale.exists() && dir.path().join("vswitchd.pid").exists());
    let mut d = Daemon::start_in(dir, config);
    assert_eq!(d.ok("ovs-appctl", &["-t", "vswitchd", "version"]), format!("{}\n", vswitchd::VERSION));
}

#[test]
fn a_second_daemon_in_the_same_directory_is_refused() {
    let mut d = Daemon::start("");
    let config = d.path("switch.toml");
    let o = Command::new(program("vswitchd"))
        .arg("--config")
        .arg(&config)
        .arg("--run-dir")
        .arg(d.dir.path())
        .output()
        .unwrap();
    assert_eq!(o.status.code(), Some(1));
    let words = String::from_utf8(o.stderr).unwrap();
    assert!(words.contains(&format!("already running as pid {}", d.pid())), "{words}");
    assert_eq!(d.ok("ovs-appctl", &["-t", "vswitchd", "version"]), format!("{}\n", vswitchd::VERSION));
}

#[test]
fn log_levels_change_while_it_runs() {
    require("ovs-appctl");
    let mut d = Daemon::start("");
    assert_eq!(d.appctl(&["vlog/set", "unixctl:console:dbg"]), "");
    d.appctl(&["version"]);
    let line = d.wait_for_log("received request version");
    let parts: Vec<_> = line.splitn(5, '|').collect();
    // The console's default pattern has no fractions of a second, as Open vSwitch's; the file's has.
    assert_eq!(parts[0].len(), "2026-11-21T05:08:08Z".len(), "{line}");
    assert_eq!(parts[1].len(), 5, "{line}");
    assert!(parts[2].starts_with("unixctl("), "{line}");
    assert_eq!(parts[3], "DBG", "{line}");
    let list = d.appctl(&["vlog/list"]);
    assert!(list.lines().any(|l| l.starts_with("unixctl ") && l.contains("DBG")), "{list}");
}

#[test]
fn wrong_configurations_end_it_with_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bad.toml");
    std::fs::write(
        &file,
        "[[bridge]]\nname = 'br0'\n[[bridge.port]]\nname = 'p1'\ntype = 'sim'\ndevice = 'nic'\nport = 0\n",
    )
    .unwrap();
    let run = |extra: &[&str]| {
        let o = Command::new(program("vswitchd")).arg("-c").arg(&file).args(extra).output().unwrap();
        (o.status.code(), String::from_utf8(o.stderr).unwrap())
    };
    let expected =
        format!("{}:6:10: bridge.port.device: unknown device \"nic\" (known: none)\n", file.display());
    assert_eq!(run(&[]), (Some(2), expected.clone()));
    assert_eq!(run(&["--check"]), (Some(2), expected));
    std::fs::write(&file, "[[bridge]]\nname = 'br0'\n").unwrap();
    assert_eq!(run(&["--check"]), (Some(0), String::new()));
}
