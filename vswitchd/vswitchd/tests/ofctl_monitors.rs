//! Flow monitors and bundles with stock `ovs-ofctl` against the real process, in every version that has them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use openflow::flow_monitor::{FlowEvent, FlowUpdate, MonitorCommand, MonitorFlags, MonitorRequest};
use openflow::framing::Decoder;
use openflow::version::VersionSet;
use openflow::wire::hello;
use openflow::{
    Body, GroupId, Message, MultipartReply, MultipartRequest, PortNo, TableId, Version, decode, encode,
};
use support::{Daemon, eventually, require};

const BRIDGE: &str = "\
[[bridge]]
name = \"br0\"
datapath_id = \"00000000000000aa\"
[[bridge.port]]
name = \"one\"
ofport = 1
type = \"memory\"
";

/// A monitor whose output goes to a file. Killed when dropped.
struct Monitor(Child, std::path::PathBuf);

impl Monitor {
    fn start(d: &Daemon, version: &str, watch: &str) -> Monitor {
        let path = d.path("monitor.log");
        let file = std::fs::File::create(&path).unwrap();
        let child = Command::new("ovs-ofctl")
            .args(["-O", version, "monitor", "br0", watch])
            .env("OVS_RUNDIR", d.dir.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Monitor(child, path)
    }

    /// Waits until `n` updates have been printed and gives them without what differs from run to run.
    fn updates(&self, n: usize) -> Vec<String> {
        let read = || std::fs::read_to_string(&self.1).unwrap_or_default();
        let events = |text: &str| -> Vec<String> {
            text.lines().filter(|l| l.contains("event=")).map(|l| l.trim().to_owned()).collect()
        };
        eventually(&format!("{n} updates; there are: {}", read()), || {
            Some(events(&read())).filter(|e| e.len() >= n)
        })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn monitors_tell_what_was_there_and_what_changes() {
    require("ovs-ofctl");
    for version in ["OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15"] {
        let mut d = Daemon::start(BRIDGE);
        let ofctl = |d: &mut Daemon, args: &[&str]| d.ok("ovs-ofctl", args);
        ofctl(&mut d, &["add-flow", "br0", "in_port=1,cookie=7,actions=output:2"]);
        let m = Monitor::start(&d, version, "watch:");
        let first = if version >= "OpenFlow14" { "INITIAL" } else { "ADDED" };
        assert_eq!(
            m.updates(1),
            [format!("event={first} table=0 cookie=0x7 in_port=1 actions=output:2")],
            "{version}"
        );
        ofctl(&mut d, &["add-flow", "br0", "in_port=3,table=2,priority=9,actions=output:8"]);
        ofctl(&mut d, &["add-flow", "br0", "in_port=1,actions=output:4"]);
        ofctl(&mut d, &["mod-flows", "br0", "in_port=1,actions=output:5"]);
        // Says nothing that was not so before.
        ofctl(&mut d, &["mod-flows", "br0", "in_port=1,actions=output:5"]);
        ofctl(&mut d, &["del-flows", "br0", "in_port=1"]);
        assert_eq!(
            m.updates(5)[1..],
            [
                "event=ADDED table=2 cookie=0 in_port=3 actions=output:8",
                "event=ADDED table=0 cookie=0 in_port=1 actions=output:4",
                "event=MODIFIED table=0 cookie=0 in_port=1 actions=output:5",
                "event=DELETED reason=delete table=0 cookie=0 in_port=1 actions=output:5",
            ],
            "{version}"
        );
    }
}

#[test]
fn a_bundle_is_carried_out_as_a_whole_or_not_at_all() {
    require("ovs-ofctl");
    for version in ["OpenFlow13", "OpenFlow14", "OpenFlow15"] {
        let mut d = Daemon::start(BRIDGE);
        let file = d.path("bundle.txt");
        let bundle = |d: &mut Daemon, text: &str| {
            std::fs::write(&file, text).unwrap();
            d.tool("ovs-ofctl".as_ref(), &["-O", version, "bundle", "br0", file.to_str().unwrap()])
        };
        let flows = |d: &mut Daemon| d.ok("ovs-ofctl", &["-O", version, "--no-stats", "dump-flows", "br0"]);
        let o = bundle(
            &mut d,
            "group group_id=1,type=all,bucket=actions=output:1\n\
             flow add in_port=1,actions=group:1\n\
             flow add in_port=2,actions=output:1\n\
             flow delete in_port=2\n",
        );
        assert!(o.status.success(), "{version}: {}", String::from_utf8_lossy(&o.stderr));
        assert_eq!(flows(&mut d).trim(), "in_port=1 actions=group:1", "{version}");
        // Its last message names a group that is not there.
        let o = bundle(
            &mut d,
            "group group_id=2,type=all,bucket=actions=output:1\n\
             flow delete\n\
             flow add in_port=5,actions=group:2\n\
             flow add in_port=6,actions=group:3\n",
        );
        let said = String::from_utf8_lossy(&o.stderr).into_owned();
        assert!(!o.status.success() && said.contains("OFPBAC_BAD_OUT_GROUP"), "{version}: {said}");
        assert_eq!(flows(&mut d).trim(), "in_port=1 actions=group:1", "{version}");
        let groups = d.ok("ovs-ofctl", &["-O", version, "dump-groups", "br0"]);
        assert!(groups.contains("group_id=1,") && !groups.contains("group_id=2,"), "{version}: {groups}");
    }
}

/// A peer that reads when it wants to.
struct Peer {
    stream: UnixStream,
    decoder: Decoder,
}

impl Peer {
    fn connect(d: &Daemon, version: Version) -> Peer {
        let stream = UnixStream::connect(d.path("br0.mgmt")).unwrap();
        stream.set_read_timeout(Some(support::DEADLINE)).unwrap();
        let mut p = Peer { stream, decoder: Decoder::new() };
        let mut bytes = Vec::new();
        encode(version, &hello(1, VersionSet::only(version)), &mut bytes).unwrap();
        p.stream.write_all(&bytes).unwrap();
        assert!(matches!(p.next().body, Body::Hello(_)));
        p
    }

    fn send(&mut self, version: Version, body: Body) {
        let mut bytes = Vec::new();
        encode(version, &Message { xid: 9, body }, &mut bytes).unwrap();
        self.stream.write_all(&bytes).unwrap();
    }

    fn next(&mut self) -> Message {
        self.try_next().expect("the switch hung up")
    }

    fn try_next(&mut self) -> Option<Message> {
        loop {
            if let Some(f) = self.decoder.next_frame().unwrap() {
                return Some(decode(f).unwrap());
            }
            let mut chunk = [0; 65536];
            let n = match self.stream.read(&mut chunk) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.unwrap(),
            };
            if n == 0 {
                return None;
            }
            self.decoder.push(&chunk[..n]);
        }
    }
}

#[test]
fn a_monitor_that_is_not_read_pauses_and_goes_on_without_losing_anything() {
    require("ovs-ofctl");
    const FLOWS: usize = 6_000;
    for version in [Version::V12, Version::V14] {
        let mut d = Daemon::start(BRIDGE);
        let mut p = Peer::connect(&d, version);
        let watch = MonitorRequest {
            id: 1,
            command: MonitorCommand::Add,
            flags: MonitorFlags(MonitorFlags::KNOWN.0 & !MonitorFlags::ONLY_OWN.0),
            out_port: PortNo::ANY,
            out_group: GroupId::ANY,
            table: TableId::ALL,
            matches: flow::PipelineMatch::ANY,
        };
        let request = MultipartRequest::FlowMonitor(vec![watch]);
        p.send(version, Body::MultipartRequest { more: false, request });
        assert!(matches!(p.next().body, Body::MultipartReply { .. }));
        let file = d.path("flows.txt");
        let lines: String = (0..FLOWS).map(|i| format!("cookie=1,reg1={i},reg2=1,reg3=1,reg4=1,reg5=1,reg6=1,reg7=1,xreg4=1,xreg5=1,actions=drop\n")).collect();
        std::fs::write(&file, format!("in_port=2,actions=output:2\n{lines}")).unwrap();
        d.ok("ovs-ofctl", &["add-flows", "br0", file.to_str().unwrap()]);
        d.ok("ovs-ofctl", &["add-flow", "br0", "in_port=1,cookie=3,actions=drop"]);
        d.ok("ovs-ofctl", &["mod-flows", "br0", "in_port=2,cookie=2,actions=output:2"]);
        d.ok("ovs-ofctl", &["del-flows", "br0", "cookie=1/-1"]);
        let (mut added, mut removed, mut paused, mut late) = (0, 0, false, Vec::new());
        loop {
            let Some(next) = p.try_next() else { panic!("the switch hung up; log:\n{}", d.log()) };
            let updates = match next.body {
                Body::FlowMonitorPaused => vec![FlowUpdate::Paused],
                Body::FlowMonitorResumed => vec![FlowUpdate::Resumed],
                Body::MultipartReply { reply: MultipartReply::FlowMonitor(u), .. } => u,
                Body::EchoRequest(data) => {
                    p.send(version, Body::EchoReply(data));
                    continue;
                }
                other => panic!("{other:?}"),
            };
            let mut resumed = false;
            for u in updates {
                match u {
                    FlowUpdate::Paused => assert!(!std::mem::replace(&mut paused, true)),
                    FlowUpdate::Resumed => resumed = true,
                    FlowUpdate::Full(c) if c.cookie == 1 => match c.event {
                        FlowEvent::Added if !paused => added += 1,
                        FlowEvent::Removed(_) => removed += 1,
                        e => panic!("{e:?}"),
                    },
                    FlowUpdate::Full(c) => late.push((paused, c.cookie, c.event)),
                    FlowUpdate::Abbreviated(_) => panic!("not ours"),
                }
            }
            if resumed {
                break;
            }
        }
        assert!(paused && added > 100 && added < FLOWS, "{added}");
        assert_eq!(added, removed, "{version}: of what was told, everything else is untold");
        late.sort_by_key(|(_, cookie, _)| *cookie);
        let expected =
            [(false, 0, FlowEvent::Added), (true, 2, FlowEvent::Modified), (true, 3, FlowEvent::Added)];
        assert_eq!(late, expected, "{version}");
    }
}
