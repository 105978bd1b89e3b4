//! The command line without a switch, and in front of one that answers with known documents.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use daemon::report::{Bridge, Device, DeviceHealth, Flow, Status, Why, WhyReport};
use daemon::signals::{StopRequest, stop_channel};
use daemon::unixctl::{Commands, Server};

/// A control socket that answers with documents made up here.
struct FakeSwitch {
    dir: tempfile::TempDir,
    stop: StopRequest,
    thread: Option<std::thread::JoinHandle<()>>,
}

fn flow(id: u64, hardware: bool) -> Flow {
    let why = Why {
        layer: "capabilities".into(),
        kind: "field".into(),
        table: Some("ternary".into()),
        field: Some("ipv6_label".into()),
        text: "table ternary cannot match on ipv6_label".into(),
        remedy: "do not match on ipv6_label".into(),
        ..Why::default()
    };
    Flow {
        id,
        bridge: "br0".into(),
        matches: format!("in_port({id})"),
        actions: "2".into(),
        packets: 10,
        placement: if hardware { "hardware" } else { "software" }.into(),
        device: hardware.then(|| "sim0".into()),
        table: hardware.then(|| "exact".into()),
        why: (!hardware).then_some(why),
        ..Flow::default()
    }
}

fn json<T: serde::Serialize>(v: T) -> Result<String, String> {
    Ok(serde_json::to_string(&v).unwrap())
}

impl FakeSwitch {
    fn start() -> FakeSwitch {
        let dir = tempfile::tempdir().unwrap();
        let commands = Commands::new();
        let health =
            DeviceHealth { name: "sim0".into(), kind: "sim".into(), up: true, ..DeviceHealth::default() };
        let device = health.clone();
        commands.register("hoist/status", "", 0..=0, move |_| {
            let bridges = vec![Bridge { name: "br0".into(), ..Bridge::default() }];
            json(Status {
                version: "vswitchd 9".into(),
                bridges,
                devices: vec![health.clone()],
                ..Status::default()
            })
        });
        commands.register("hoist/flows", "", 0..=2, |args| match args.first().map(String::as_str) {
            Some("--hw") => json([flow(1, true)]),
            Some("--sw") => json([flow(2, false)]),
            Some("bad") => Err("bad: unknown keyword at byte 0".into()),
            _ => json([flow(1, true), flow(2, false)]),
        });
        commands.register("hoist/why", "", 0..=1, |_| {
            json(WhyReport { flows: vec![flow(2, false)], ..WhyReport::default() })
        });
        commands.register("hoist/devices", "", 0..=0, move |_| {
            json([Device { health: device.clone(), simulated: true, ..Device::default() }])
        });
        commands.register("hoist/sim", "", 0..=0, |_| Ok("{\"not\": \"a list\"}".into()));
        let (stop, stopped) = stop_channel();
        let path = dir.path().join("t.ctl");
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            rt.block_on(async {
                let server = Server::bind(&path, commands).await.unwrap();
                ready.send(()).unwrap();
                server.serve(stopped).await;
            });
        });
        is_ready.recv().unwrap();
        FakeSwitch { dir, stop, thread: Some(thread) }
    }

    fn hoist(&self, args: &[&str]) -> Output {
        hoist(Some(&self.dir.path().join("t.ctl")), args)
    }

    fn text(&self, args: &[&str]) -> String {
        let o = self.hoist(args);
        assert_eq!(o.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&o.stderr));
        String::from_utf8(o.stdout).unwrap()
    }
}

impl Drop for FakeSwitch {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(t) = self.thread.take() {
            let _ = t.join();
        }
    }
}

fn hoist(target: Option<&Path>, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_hoist"));
    c.args(args).env_remove("OVS_RUNDIR").env_remove("HOIST_RUNDIR");
    if let Some(t) = target {
        c.arg("--target").arg(t);
    }
    c.output().unwrap()
}

#[test]
fn without_a_switch_it_says_where_it_looked_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().to_str().unwrap();
    let o = hoist(None, &["status", "--run-dir", at]);
    assert_eq!(o.status.code(), Some(3));
    let words = String::from_utf8(o.stderr).unwrap();
    assert_eq!(
        words,
        format!("hoist: no vswitchd is running in {at}: start it with `vswitchd --config FILE`\n")
    );
    let o = hoist(Some(&dir.path().join("no.ctl")), &["flows"]);
    assert_eq!(o.status.code(), Some(3));
    assert!(String::from_utf8(o.stderr).unwrap().contains("no.ctl"));
}

#[test]
fn wrong_usage_is_status_2() {
    for args in [&["flow"][..], &["flows", "--hw", "--sw"], &[], &["status", "--bogus"]] {
        assert_eq!(hoist(None, args).status.code(), Some(2), "{args:?}");
    }
    let help = String::from_utf8(hoist(None, &["--help"]).stdout).unwrap();
    assert!(help.contains("Examples:") && help.contains("hoist why tcp,nw_dst=10.0.0.2"), "{help}");
}

#[test]
fn tables_are_plain_text() {
    let s = FakeSwitch::start();
    let status = s.text(&["status"]);
    assert!(status.starts_with("vswitchd 9, pid 0"), "{status}");
    assert!(status.contains("\ndevice sim0 (sim): up\n") && status.contains("\nbridge br0\n"), "{status}");
    let flows = s.text(&["flows"]);
    assert_eq!(flows.lines().count(), 3, "{flows}");
    assert!(!flows.contains('\x1b'), "no colours: {flows:?}");
    assert!(s.text(&["flows", "--hw"]).contains("sim0/exact"));
    assert!(!s.text(&["flows", "--sw"]).contains("sim0/exact"));
    let why = s.text(&["why"]);
    assert!(why.contains("  stopped   by capabilities: table ternary, field ipv6_label\n"), "{why}");
    assert!(why.contains("  to fit    do not match on ipv6_label\n"), "{why}");
    assert!(s.text(&["devices"]).contains("device sim0 (, simulated): up"));
}

#[test]
fn json_is_the_document_itself() {
    let s = FakeSwitch::start();
    let flows: Vec<Flow> = serde_json::from_str(&s.text(&["flows", "--json"])).unwrap();
    assert_eq!(flows, [flow(1, true), flow(2, false)]);
    let status: Status = serde_json::from_str(&s.text(&["--json", "status"])).unwrap();
    assert_eq!(status.bridges[0].name, "br0");
    let devices: serde_json::Value = serde_json::from_str(&s.text(&["devices", "--json"])).unwrap();
    assert_eq!(devices["running"], true);
    assert_eq!(devices["devices"][0]["name"], "sim0");
    assert!(devices["pci"].is_array());
}

#[test]
fn errors_of_the_switch_are_status_1_with_its_words() {
    let s = FakeSwitch::start();
    let o = s.hoist(&["flows", "bad"]);
    assert_eq!(o.status.code(), Some(1));
    assert_eq!(String::from_utf8(o.stderr).unwrap(), "hoist: bad: unknown keyword at byte 0\n");
    let o = s.hoist(&["ports"]);
    assert_eq!(o.status.code(), Some(1));
    assert!(String::from_utf8(o.stderr).unwrap().contains("is not a valid command"));
    let o = s.hoist(&["sim"]);
    assert_eq!(o.status.code(), Some(1));
    assert!(String::from_utf8(o.stderr).unwrap().contains("another version?"));
}

/// Save in one process, go on in another: what is printed, traced and captured is that of a run that was never stopped.
#[test]
fn a_simulation_goes_on_from_a_file_in_another_process_as_if_never_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n).display().to_string();
    let script = "50 bit-errors 0 2\n300 slow-commands 3\n400 link-down 1\n700 link-up 1\n900 stick tx 0 0\n\
                  1000 parity exact 17\n1100 lose-interrupts 1\n1500 bit-errors 2 3\n1800 release tx 0 0\n";
    std::fs::write(at("script"), script).unwrap();
    let sim = |args: &[&str]| {
        let out = hoist(None, &[&["sim", "trace"], args].concat());
        (out.status.success(), String::from_utf8_lossy(&out.stdout).into_owned(), {
            String::from_utf8_lossy(&out.stderr).into_owned()
        })
    };
    let outputs = |n: &str| [at(&format!("{n}.vcd")), at(&format!("{n}.json")), at(&format!("{n}.pcapng"))];
    let files = |n: &str| outputs(n).map(|f| std::fs::read(f).unwrap());
    for (profile, cycle) in
        [("default", "777"), ("default", "1600"), ("tcam-poor-asic", "333"), ("flow-engine", "1")]
    {
        let script = at("script");
        let ckp = at("ckp");
        let traffic = [
            "--profile",
            profile,
            "--seed",
            "9",
            "--flows",
            "3",
            "--frames",
            "80",
            "--random",
            "--script",
            &script,
        ];
        let [vcd, perfetto, pcap] = outputs("whole");
        let written = ["--vcd", &vcd, "--perfetto", &perfetto, "--pcap", &pcap];
        let (ok, whole, e) = sim(&[&traffic[..], &written].concat());
        assert!(ok, "{e}");
        let saving = ["--checkpoint-at", cycle, "--save", &ckp];
        let (ok, stopped, e) = sim(&[&traffic[..], &written, &saving].concat());
        assert!(ok, "{e}");
        assert_eq!(stopped, format!("wrote {ckp}\n{whole}"), "saving changes the run");
        let [vcd, perfetto, pcap] = outputs("resumed");
        let (ok, resumed, e) =
            sim(&["--restore", &ckp, "--vcd", &vcd, "--perfetto", &perfetto, "--pcap", &pcap]);
        assert!(ok, "{e}");
        assert_eq!(resumed.replace("resumed.", "whole."), whole, "{profile} from cycle {cycle}");
        assert!(files("resumed") == files("whole"), "{profile} from cycle {cycle}: traces differ");
    }
    let ckp = std::fs::read(at("ckp")).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(at("bad"), bytes).unwrap();
        let (ok, _, e) = sim(&["--restore", &at("bad")]);
        assert!(!ok);
        e
    };
    let mut damaged = ckp.clone();
    damaged[ckp.len() / 2] ^= 4;
    assert!(refused(&damaged).contains("damaged: its checksum"), "{}", refused(&damaged));
    assert!(refused(&ckp[..1000]).contains("bytes follow the head where"));
    let mut newer = ckp.clone();
    newer[8] = 0xee;
    assert!(refused(&newer).contains("a checkpoint of format 238; this program has format"));
    assert!(refused(b"#!/bin/sh\n").contains("not a checkpoint"));
    assert!(sim(&["--restore", &at("ckp"), "--frames", "3"]).2.contains("cannot be used with"));
    assert!(sim(&["--checkpoint-at", "3"]).2.contains("--save"));
}
