//! Running a suite's script in namespaces of its own, with deadlines.
//!
//! The private network namespace keeps ports and interfaces of the suite from the host's. The private process namespace
//! is what ends daemons that a failed group left behind: they end with its first process, however that ends.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::groups::{Outcome, parse_outcome};
use super::suite::Suite;
use crate::setup;

/// How often groups that run too long are looked for.
const LOOK: Duration = Duration::from_secs(2);

/// How to run it.
pub struct Run<'a> {
    /// What to run.
    pub suite: &'a Suite,
    /// Which groups.
    pub chosen: &'a [u32],
    /// Folder to run in; emptied first.
    pub dir: &'a Path,
    /// Folder with the programs that stand first in the path.
    pub programs: &'a Path,
    /// Groups at a time.
    pub jobs: u32,
    /// For the whole run.
    pub timeout: Duration,
    /// For one group: what it waits for is ended then.
    pub group_timeout: Duration,
    /// What control programs of the suite wait at most, in seconds; the suite's own choice if not given.
    pub ctl_timeout: Option<u32>,
}

/// A child that does not outlive this value.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Run<'_> {
    /// Runs it and gives the outcomes that it told; `seen` hears of each as it comes.
    ///
    /// # Errors
    /// When it cannot be started. Groups that fail and a deadline that passes are no errors.
    pub fn run(&self, seen: &mut dyn FnMut(u32, &Outcome)) -> Result<BTreeMap<u32, Outcome>> {
        self.prepare()?;
        let mut child = Guarded(
            self.command()?.spawn().context("cannot start the suite (setpriv, unshare: util-linux)")?,
        );
        let lines = reader(&mut child.0, &self.dir.join("suite.out"))?;
        let (begin, mut outcomes, mut watch) = (Instant::now(), BTreeMap::new(), Watch::new(self));
        loop {
            match lines.recv_timeout(LOOK) {
                Ok(line) => {
                    if let Some((n, o)) = parse_outcome(&line) {
                        seen(n, &o);
                        watch.ended(n);
                        outcomes.insert(n, o);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if begin.elapsed() >= self.timeout {
                eprintln!("time is up after {} s: ending it", self.timeout.as_secs());
                break;
            }
            watch.look();
        }
        Ok(outcomes)
    }

    fn prepare(&self) -> Result<()> {
        let _ = fs::remove_dir_all(self.dir);
        fs::create_dir_all(self.dir).with_context(|| format!("cannot make {}", self.dir.display()))?;
        fs::write(self.dir.join("atconfig"), &self.suite.atconfig)?;
        let mut atlocal = self.suite.atlocal.clone();
        if let Some(s) = self.ctl_timeout {
            atlocal.push_str(&format!("\nOVS_CTL_TIMEOUT={s}\nexport OVS_CTL_TIMEOUT\n"));
        }
        fs::write(self.dir.join("atlocal"), atlocal)?;
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let path: Vec<_> =
            [self.programs].into_iter().chain(self.suite.helpers.iter().map(PathBuf::as_path)).collect();
        let path = std::env::join_paths(path).context("a folder's name has a colon")?;
        let mut c = Command::new("setpriv");
        // The kernel ends the suite should this process be killed.
        c.args(["--pdeathsig", "KILL", "unshare"]);
        if !setup::is_root() {
            c.args(["--user", "--map-root-user"]);
        }
        c.args(["--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]);
        // The shell stays, as first process: it collects the daemons whose starters have ended.
        c.arg("ip link set lo up; sh \"$@\"; exit $?")
            .arg("suite")
            .arg(&self.suite.script)
            .arg("-C")
            .arg(self.dir);
        c.arg(format!("AUTOTEST_PATH={}:/usr/share/openvswitch/scripts", path.to_string_lossy()));
        c.arg(format!("-j{}", self.jobs)).args(ranges(self.chosen));
        let err = fs::File::create(self.dir.join("suite.err"))?;
        c.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(err).current_dir(self.dir);
        for v in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "HOIST_RUNDIR", "RUST_LOG"] {
            c.env_remove(v);
        }
        Ok(c)
    }
}

/// Numbers as autotest's arguments: those in a row as a range.
fn ranges(numbers: &[u32]) -> Vec<String> {
    let mut out: Vec<(u32, u32)> = Vec::new();
    for n in numbers {
        match out.last_mut() {
            Some((_, to)) if *to + 1 == *n => *to = *n,
            _ => out.push((*n, *n)),
        }
    }
    out.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect()
}

/// The lines of the child's output, which are also kept in `copy`.
fn reader(child: &mut Child, copy: &Path) -> Result<Receiver<String>> {
    let out = child.stdout.take().context("the suite has no output")?;
    let mut copy = fs::File::create(copy)?;
    let (tell, told) = sync_channel(1024);
    std::thread::Builder::new().name("suite".into()).spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let _ = writeln!(copy, "{line}");
            if tell.send(line).is_err() {
                break;
            }
        }
    })?;
    Ok(told)
}

/// Looks after groups that run too long: ends the programs that they wait for, so that the group fails and the run goes
/// on. The suite itself knows no such limit.
struct Watch<'a> {
    run: &'a Run<'a>,
    /// When a group's folder was first somebody's.
    since: HashMap<u32, Instant>,
    looked: Instant,
}

impl<'a> Watch<'a> {
    fn new(run: &'a Run<'a>) -> Self {
        Watch { run, since: HashMap::new(), looked: Instant::now() }
    }

    fn ended(&mut self, group: u32) {
        self.since.remove(&group);
    }

    fn look(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        let folder = self.run.dir.join("testsuite.dir");
        let mut busy = HashMap::new();
        for (pid, group) in processes(&folder) {
            busy.entry(group).or_insert_with(Vec::new).push(pid);
        }
        self.since.retain(|g, _| busy.contains_key(g));
        for (group, pids) in busy {
            let since = *self.since.entry(group).or_insert(self.looked);
            if self.looked - since < self.run.group_timeout {
                continue;
            }
            for pid in pids.into_iter().filter(|p| !is_script(*p, &self.run.suite.script)) {
                let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
            }
        }
    }
}

/// Processes that work in a group's folder under `folder`, with the group's number.
fn processes(folder: &Path) -> Vec<(u32, u32)> {
    let Ok(proc) = fs::read_dir("/proc") else { return Vec::new() };
    let of = |e: fs::DirEntry| {
        let pid = e.file_name().to_str()?.parse().ok()?;
        let cwd = fs::read_link(e.path().join("cwd")).ok()?;
        let group = cwd.strip_prefix(folder).ok()?.iter().next()?.to_str()?.parse().ok()?;
        Some((pid, group))
    };
    proc.filter_map(|e| of(e.ok()?)).collect()
}

/// Whether the process is a shell that runs the suite's script.
fn is_script(pid: u32, script: &Path) -> bool {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    cmdline.split(|b| *b == 0).any(|a| Some(a) == script.to_str().map(str::as_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A suite in the form that autotest gives it, small enough to read.
    fn suite(dir: &Path, body: &str) -> Suite {
        let script = dir.join("testsuite");
        let list = "  1: x.at:1  first\n  2: x.at:2  second\n";
        fs::write(
            &script,
            format!(
                "case \"$1\" in --list) printf '{}'; exit;; esac\ncd \"$2\"\n{body}",
                list.replace('\n', "\\n")
            ),
        )
        .unwrap();
        fs::write(dir.join("atconfig"), "").unwrap();
        fs::write(dir.join("atlocal"), "").unwrap();
        Suite::find(dir, None, dir).unwrap()
    }

    fn run(dir: &Path, suite: &Suite, timeout: u64, group_timeout: u64) -> Option<BTreeMap<u32, Outcome>> {
        let probe = Command::new("unshare").args(["--net", "--pid", "--fork", "true"]).status();
        if !probe.is_ok_and(|s| s.success()) {
            println!("skip: namespaces cannot be made here");
            return None;
        }
        let of = |s| Duration::from_secs(s);
        let run = Run {
            suite,
            chosen: &[1, 2],
            dir: &dir.join("run"),
            programs: dir,
            jobs: 1,
            timeout: of(timeout),
            group_timeout: of(group_timeout),
            ctl_timeout: Some(7),
        };
        Some(run.run(&mut |_, _| {}).unwrap())
    }

    #[test]
    fn numbers_become_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 7, 9, 10]), ["1-3", "7", "9-10"]);
        assert!(ranges(&[]).is_empty());
    }

    #[test]
    fn outcomes_come_back_and_the_run_has_its_own_network() {
        let dir = tempfile::tempdir().unwrap();
        let outside = fs::read_link("/proc/self/ns/net").unwrap();
        let body = format!(
            ". ./atlocal\necho \"  1: first  ok\"\nif test \"$OVS_CTL_TIMEOUT\" = 7 && \
             test \"$(readlink /proc/self/ns/net)\" != '{}' && ip link show lo | grep -q ,UP; \
             then echo \"  2: second  ok\"; else echo \"  2: second  FAILED (x.at:2)\"; fi\n",
            outside.display()
        );
        let s = suite(dir.path(), &body);
        let Some(o) = run(dir.path(), &s, 20, 20) else { return };
        assert_eq!(o, [(1, Outcome::Passed), (2, Outcome::Passed)].into());
    }

    #[test]
    fn what_hangs_is_ended_and_what_is_left_behind_too() {
        let dir = tempfile::tempdir().unwrap();
        let body = "mkdir -p testsuite.dir/1 && cd testsuite.dir/1\n\
                    setsid sleep 1000 &\n\
                    if sleep 1001; then echo \"  1: first  ok\"; else echo \"  1: first  FAILED (x.at:1)\"; fi\n\
                    cd ..\nsetsid sleep 1002 &\nsleep 1003\n";
        let s = suite(dir.path(), body);
        let begin = Instant::now();
        let Some(o) = run(dir.path(), &s, 9, 2) else { return };
        assert_eq!(o, [(1, Outcome::Failed("x.at:1".into()))].into());
        assert!(begin.elapsed() < Duration::from_secs(20));
        let folder = dir.path().join("run");
        let left = || {
            fs::read_dir("/proc")
                .unwrap()
                .flatten()
                .any(|e| fs::read_link(e.path().join("cwd")).is_ok_and(|c| c.starts_with(&folder)))
        };
        assert!(lab::eventually(|| (!left()).then_some(())).is_some());
    }
}
