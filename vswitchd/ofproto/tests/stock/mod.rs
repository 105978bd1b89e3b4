//! A stock Open vSwitch beside ours, with the same ports and flows: what it says of a packet is held against what we say.
//!
//! Needs `ovs-vswitchd`, `ovsdb-server` and their tools (Debian: openvswitch-switch); fails without them. It runs with
//! dummy ports only, as its own test suite does, in a directory of its own, and ends with the test.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use clock::ManualClock;
use flow::text::{odp, ofctl};
use flow::{Action, PortId};
use ofproto::trace::Names;
use ofproto::{Bridge, BridgeConfig, BridgeSettings, Port, PortSettings, Switch, SwitchConfig};
use openflow::PortNo;
use openflow::number::MacAddr;

/// The two of them.
pub struct Twins {
    dir: PathBuf,
    pub switch: Arc<Switch>,
}

/// How megaflows may compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Megaflows {
    /// To the bit.
    Same,
    /// One may be wider than the other: theirs looks at some bits of VLAN tags that do not matter, and leaves out some that do.
    Nested,
    /// They are not compared: each looks at something that the other does not.
    Apart,
}

/// What makes ours like the stock one.
pub fn settings() -> BridgeSettings {
    BridgeSettings { stock_megaflows: true, ..BridgeSettings::default() }
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Twins {
    /// Both, without bridges.
    pub fn start() -> Twins {
        Self::start_with("--enable-dummy=override")
    }

    /// Both, where interfaces of other types than the host's are what they are: tunnels.
    pub fn start_with_tunnels() -> Twins {
        Self::start_with("--enable-dummy=system")
    }

    fn start_with(dummies: &str) -> Twins {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("hoist-stock-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let db = dir.join("conf.db");
        let schema = "/usr/share/openvswitch/vswitch.ovsschema";
        run(&dir, "ovsdb-tool", &["create", db.to_str().unwrap(), schema]);
        let remote = format!("--remote=punix:{}/db.sock", dir.display());
        let daemon = ["--detach", "--no-chdir", "--pidfile", "--log-file"];
        run(&dir, "ovsdb-server", &[&daemon[..], &[remote.as_str(), db.to_str().unwrap()]].concat());
        run(&dir, "ovs-vsctl", &["--no-wait", "init"]);
        let dummy = [dummies, "--disable-system", "--disable-system-route"];
        run(&dir, "ovs-vswitchd", &[&daemon[..], &dummy[..]].concat());
        let switch = Switch::new(Arc::new(ManualClock::new()), SwitchConfig::default());
        Twins { dir, switch }
    }

    pub fn run(&self, program: &str, args: &[&str]) -> String {
        run(&self.dir, program, args)
    }

    /// What a command says, or the error it ends in.
    pub fn appctl(&self, args: &[&str]) -> Result<String, String> {
        let out = command(&self.dir, "ovs-appctl", args).output().unwrap();
        let text = |b: Vec<u8>| String::from_utf8(b).unwrap();
        if out.status.success() {
            return Ok(text(out.stdout));
        }
        let err = text(out.stderr);
        let said = err.lines().take_while(|l| !l.starts_with("ovs-appctl:")).collect::<Vec<_>>();
        Err(said.join("\n"))
    }

    /// A bridge with only its LOCAL port, which is datapath port 100 and `number`.
    pub fn bridge(&self, number: u32) -> Arc<Bridge> {
        let name = format!("br{number}");
        self.run("ovs-vsctl", &["add-br", &name]);
        self.run("ovs-vsctl", &["set", "bridge", &name, "datapath_type=dummy", "fail_mode=secure"]);
        let b = self.switch.add_bridge(BridgeConfig::new(&name, u64::from(number) + 1));
        b.put_port(Port::new(PortNo::LOCAL, PortId(100 + number), &name, MacAddr([2; 6])));
        b.set_settings(settings());
        b
    }

    /// A port whose OpenFlow and datapath number is `number`; `columns` are those of `Port` that say what `settings` does.
    pub fn port(&self, b: &Bridge, number: u32, columns: &str, settings: PortSettings) {
        let name = format!("p{number}");
        let request = format!("ofport_request={number}");
        let mut args = vec!["add-port", b.name(), &name];
        args.extend(columns.split_whitespace());
        args.extend(["--", "set", "interface", &name, "type=dummy", &request]);
        self.run("ovs-vsctl", &args);
        b.put_port(Port::new(PortNo(number), PortId(number), &name, MacAddr([2; 6])));
        assert!(b.set_port_settings(PortNo(number), settings));
    }

    /// A patch port whose OpenFlow number is `number`, to the one with number `peer`.
    pub fn patch(&self, b: &Bridge, number: u32, peer: u32) {
        let (name, peer) = (format!("p{number}"), format!("p{peer}"));
        let (request, option) = (format!("ofport_request={number}"), format!("options:peer={peer}"));
        self.run(
            "ovs-vsctl",
            &["add-port", b.name(), &name, "--", "set", "interface", &name, "type=patch", &option, &request],
        );
        b.put_port(Port::patch(PortNo(number), &name, MacAddr([2; 6]), &peer));
    }

    /// A flow, in ovs-ofctl's words, on both.
    pub fn flow(&self, b: &Bridge, text: &str) {
        self.run("ovs-ofctl", &["-OOpenFlow13", "add-flow", b.name(), text]);
        let command = openflow::FlowModCommand::Add;
        let (before, actions) = text.split_once("actions=").unwrap();
        let mut fm =
            openflow::text::parse_flow(command, &format!("{before}actions=drop"), &|_| None).expect(text);
        for a in split(actions) {
            match extension(&a) {
                Some(a) => fm.instructions.apply.push(a),
                None => {
                    let one = format!("actions={a}");
                    let one = openflow::text::parse_flow(command, &one, &|_| None).expect(text).instructions;
                    fm.instructions.apply.extend(one.apply);
                    fm.instructions.write.extend(one.write);
                    fm.instructions.metadata = fm.instructions.metadata.or(one.metadata);
                    fm.instructions.goto_table = fm.instructions.goto_table.or(one.goto_table);
                    fm.instructions.clear |= one.clear;
                }
            }
        }
        b.apply(&[fm], clock::Instant::ZERO).expect(text);
    }

    /// What ours says of a packet, in `ofproto/trace`'s words.
    pub fn ours(&self, b: &Bridge, packet: &str) -> String {
        let m = ofctl::parse(packet).expect(packet);
        let in_port = PortNo(m.get(flow::FieldId::InPort).0 as u32);
        b.trace(&m.key().packet(), in_port).text(Names::NONE)
    }

    /// What the stock one says of it.
    pub fn theirs(&self, b: &Bridge, packet: &str) -> String {
        self.run("ovs-appctl", &["ofproto/trace", b.name(), packet]).trim_end().to_owned()
    }

    /// Both tell the same story of the packet, to the byte.
    pub fn agree(&self, b: &Bridge, packet: &str) {
        assert_eq!(self.ours(b, packet), self.theirs(b, packet), "{packet}");
    }

    /// As [`Twins::agree`], but ports may be served in another order, and the megaflows compare as said.
    pub fn agree_in_any_order(&self, b: &Bridge, packet: &str, megaflows: Megaflows) {
        let (ours, theirs) = (self.ours(b, packet), self.theirs(b, packet));
        let split = |t: &str| {
            let (story, actions) = t.rsplit_once("Datapath actions: ").unwrap();
            let (story, mega) = story.rsplit_once("Megaflow: ").unwrap();
            (story.to_owned(), mega.trim_end().to_owned(), delivered(actions))
        };
        let (o, t) = (split(&ours), split(&theirs));
        assert_eq!((&o.0, &o.2), (&t.0, &t.2), "{packet}\nours:\n{ours}\ntheirs:\n{theirs}");
        if o.1 != t.1 {
            let all = ofctl::parse(&t.1).unwrap();
            let some = ofctl::parse(&o.1).unwrap();
            let fine = match megaflows {
                Megaflows::Same => false,
                Megaflows::Apart => true,
                Megaflows::Nested => all.is_subset_of(&some) || some.is_subset_of(&all),
            };
            assert!(fine, "{packet}\nours:\n{ours}\ntheirs:\n{theirs}");
        }
    }
}

impl Drop for Twins {
    fn drop(&mut self) {
        for d in ["ovs-vswitchd", "ovsdb-server"] {
            let _ = command(&self.dir, "ovs-appctl", &["-t", d, "exit"]).output();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn command(dir: &Path, program: &str, args: &[&str]) -> Command {
    let mut c = Command::new(program);
    c.args(args).current_dir(dir).env("OVS_SYSLOG_METHOD", "null");
    c.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    for v in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"] {
        c.env(v, dir);
    }
    c
}

fn run(dir: &Path, program: &str, args: &[&str]) -> String {
    let out = command(dir, program, args).output();
    let out = out.unwrap_or_else(|e| panic!("{program} is needed (Debian: openvswitch-switch): {e}"));
    let err = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {err}");
    String::from_utf8(out.stdout).unwrap()
}

/// Splits at commas that are in no parentheses.
fn split(actions: &str) -> Vec<String> {
    let (mut out, mut depth) = (vec![String::new()], 0);
    for c in actions.chars() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        match out.last_mut() {
            Some(_) if c == ',' && depth == 0 => out.push(String::new()),
            Some(s) => s.push(c),
            None => {}
        }
    }
    out
}

/// Actions of Nicira that the text parser does not read.
fn extension(a: &str) -> Option<openflow::Action> {
    use openflow::Action as A;
    use openflow::text::parse_subfield;
    if let Some(f) = a.strip_prefix("push:") {
        return Some(A::StackPush(parse_subfield(f).ok()?));
    }
    if let Some(f) = a.strip_prefix("pop:") {
        return Some(A::StackPop(parse_subfield(f).ok()?));
    }
    if let Some(args) = a.strip_prefix("conjunction(") {
        let (id, rest) = args.trim_end_matches(')').split_once(',')?;
        let (clause, n) = rest.split_once('/')?;
        let clause: u8 = clause.parse().ok()?;
        return Some(A::Conjunction { id: id.parse().ok()?, clause: clause - 1, n_clauses: n.parse().ok()? });
    }
    let inner = a.strip_prefix("clone(")?.strip_suffix(')')?;
    let parse = |a: String| {
        let fm =
            openflow::text::parse_flow(openflow::FlowModCommand::Add, &format!("actions={a}"), &|_| None);
        extension(&a).map_or_else(|| fm.expect(&a).instructions.apply, |a| vec![a])
    };
    Some(A::Clone(split(inner).into_iter().flat_map(parse).collect()))
}

/// Which port gets the packet with which tags: how many of its own are gone, and what was pushed instead.
pub fn delivered(actions: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    if actions != "drop" {
        let parsed = odp::parse_actions(actions, &|_| None).expect(actions);
        deliver(&parsed, 0, Vec::new(), &mut out);
    }
    out
}

fn deliver(actions: &[Action], mut popped: u32, mut changes: Vec<String>, out: &mut BTreeSet<String>) {
    let mut cut = None;
    for a in actions {
        match a {
            Action::Output(p) => {
                let cut = cut.take().map_or(String::new(), |n: u32| format!("cut to {n}, "));
                // In which order fields were set does not matter.
                let (mut sets, others): (Vec<_>, Vec<_>) =
                    changes.iter().cloned().partition(|c| c.starts_with("SetField"));
                sets.sort();
                let line = format!("{}: {cut}after {popped} pops, {others:?} and {sets:?}", p.0);
                assert!(out.insert(line), "twice: {actions:?}");
            }
            Action::Trunc(n) => cut = Some(*n),
            Action::PopVlan => match changes.iter().rposition(|c| c.starts_with("PushVlan")) {
                Some(i) => {
                    changes.remove(i);
                }
                None => popped += 1,
            },
            Action::Clone(inner) => deliver(inner, popped, changes.clone(), out),
            Action::SetField { field, .. } => {
                let what = format!("SetField {{ field: {field}, ");
                changes.retain(|c| !c.starts_with(&what));
                changes.push(format!("{a:?}"));
            }
            other => changes.push(format!("{other:?}")),
        }
    }
}
