//! `cargo xtask compat ovs DIR`: our programs under Open vSwitch's own suite, which the caller brings.
//!
//! DIR is a checkout or its tests folder, or a folder with a generated suite. Our `ovs-vswitchd` and `ovsdb-server` stand
//! first in the suite's path, everything else is the installed Open vSwitch: its tools do the talking, and its daemon
//! stands in for the one of ours that is not under test. Nothing of the suite is part of this project.

mod groups;
mod report;
mod runner;
mod suite;

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{setup, step};
use groups::{Outcome, Selection};
use report::Report;
use runner::Run;
use suite::Suite;

/// Which suite.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    whose: Whose,
}

#[derive(clap::Subcommand)]
enum Whose {
    /// Open vSwitch's own suite.
    Ovs(OvsOptions),
}

/// How to run it.
#[derive(clap::Args)]
struct OvsOptions {
    /// A checkout of Open vSwitch, its tests folder, or a folder with a generated `testsuite`, `atconfig` and `atlocal`.
    dir: PathBuf,
    /// Only groups of these .at files.
    #[arg(long, value_delimiter = ',')]
    files: Vec<String>,
    /// Only groups with all of these keywords.
    #[arg(long, value_delimiter = ',')]
    keywords: Vec<String>,
    /// Not the groups with one of these keywords.
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Only these groups: numbers and ranges N-M.
    #[arg(long, value_delimiter = ',')]
    tests: Vec<String>,
    /// Only groups that start this program, such as `ovs-vswitchd`.
    #[arg(long)]
    starting: Option<String>,
    /// Which of our programs are under test; the installed ones do the rest. `neither` is the measure of the suite itself.
    #[arg(long, value_enum, default_value_t = Daemon::Both)]
    daemon: Daemon,
    /// Take the programs from this folder, rather than build them.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// A folder with the helper programs that the suite's own build makes: ovstest, test-ovsdb.
    #[arg(long)]
    helpers: Option<PathBuf>,
    /// Groups at a time. The suite waits more than it works.
    #[arg(long, short, default_value_t = 8)]
    jobs: u32,
    /// Seconds for the whole run; what has not ended then counts as failed.
    #[arg(long, default_value_t = 3600)]
    timeout: u64,
    /// Seconds for a group; what it waits for is ended then.
    #[arg(long, default_value_t = 180)]
    group_timeout: u64,
    /// Seconds that the suite's control programs and conditions wait; the suite's own choice is 30.
    #[arg(long)]
    ctl_timeout: Option<u32>,
    /// Print each group that failed, and where.
    #[arg(long)]
    list_failed: bool,
    /// Print one JSON document in place of the table.
    #[arg(long)]
    json: bool,
    /// Build our programs optimised.
    #[arg(long)]
    release: bool,
    /// Run in this folder; it is emptied first, and the failures' logs stay there.
    #[arg(long)]
    run_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Daemon {
    OvsdbServer,
    OvsVswitchd,
    Both,
    Neither,
}

impl Daemon {
    /// Names in the suite's path, with the package and the program that is ours.
    fn programs(self) -> &'static [(&'static str, &'static str, &'static str)] {
        const SERVER: (&str, &str, &str) = ("ovsdb-server", "ovsdb", "ovsdb-server");
        const SWITCH: (&str, &str, &str) = ("ovs-vswitchd", "vswitchd", "vswitchd");
        match self {
            Daemon::OvsdbServer => &[SERVER],
            Daemon::OvsVswitchd => &[SWITCH],
            Daemon::Both => &[SERVER, SWITCH],
            Daemon::Neither => &[],
        }
    }
}

/// Programs of Open vSwitch, and others, that every group may use, and their Debian packages.
const NEEDED: &[(&str, &str)] = &[
    ("ovs-vsctl", "openvswitch-switch"),
    ("ovsdb-server", "openvswitch-switch"),
    ("ovs-vswitchd", "openvswitch-switch"),
    ("ovs-appctl", "openvswitch-common"),
    ("ovs-ofctl", "openvswitch-common"),
    ("ovsdb-client", "openvswitch-common"),
    ("ovsdb-tool", "openvswitch-common"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
];

/// Runs it; whether every group passed or was skipped.
///
/// # Errors
/// When something that is needed is missing, or our programs do not build.
pub fn run(o: &Options) -> Result<bool> {
    let Whose::Ovs(o) = &o.whose;
    let missing: Vec<_> = NEEDED.iter().filter(|(p, _)| !setup::has(p)).collect();
    if !missing.is_empty() {
        let list: Vec<_> = missing.iter().map(|(p, package)| format!("{p} ({package})")).collect();
        bail!("these programs are missing: {}", list.join(", "));
    }
    let scratch = scratch()?;
    let lock = fs::File::create(scratch.join("lock"))?;
    if lock.try_lock().is_err() {
        bail!("another run uses {}", scratch.display());
    }
    let suite = Suite::find(&o.dir, o.helpers.as_deref(), &scratch)?;
    for m in &suite.missing {
        eprintln!("missing: {m}");
    }
    let own = |v: &[String]| v.to_vec();
    let selection = Selection {
        files: own(&o.files),
        keywords: own(&o.keywords),
        without: own(&o.without),
        tests: own(&o.tests),
        among: match &o.starting {
            // What the script has for the programs to choke on is no UTF-8.
            Some(program) => {
                let script = fs::read(&suite.script).with_context(|| suite.script.display().to_string())?;
                Some(groups::starting(&String::from_utf8_lossy(&script), program))
            }
            None => None,
        },
    };
    let chosen = selection.choose(&suite.groups)?;
    let programs = link(o, &scratch)?;
    let dir = o.run_dir.clone().map_or_else(|| Ok(scratch.join("run")), std::path::absolute)?;
    eprintln!(
        "{} of the suite's {} groups, {} at a time, in {}",
        chosen.len(),
        suite.groups.len(),
        o.jobs,
        dir.display()
    );
    let run = Run {
        suite: &suite,
        chosen: &chosen,
        dir: &dir,
        programs: &programs,
        jobs: o.jobs.max(1),
        timeout: Duration::from_secs(o.timeout),
        group_timeout: Duration::from_secs(o.group_timeout),
        ctl_timeout: o.ctl_timeout,
    };
    let mut ended = 0;
    let told = run.run(&mut |n, outcome| {
        ended += 1;
        if let Outcome::Failed(place) = outcome {
            let title = suite.groups.get(&n).map_or("", |g| &g.title);
            eprintln!("[{ended}/{}] {n} failed at {place}: {title}", chosen.len());
        }
    })?;
    let report = Report::new(&suite.groups, &chosen, &told, dir.join("testsuite.dir").display().to_string());
    print(o, &report)?;
    Ok(report.total().failed == 0)
}

fn print(o: &OvsOptions, report: &Report<'_>) -> Result<()> {
    if o.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
        return Ok(());
    }
    if o.list_failed {
        println!("failed; each has its log in {}/NUMBER/testsuite.log", report.logs);
        print!("{}", report.failures());
        println!();
    }
    println!("{}", report.table());
    Ok(())
}

/// Where it works: a folder with a short name, for the name of a unix socket has room for 107 bytes.
fn scratch() -> Result<PathBuf> {
    let long = step::scratch()?.join("compat");
    let dir = if long.as_os_str().len() <= 48 {
        long
    } else {
        let mut h = DefaultHasher::new();
        long.hash(&mut h);
        std::env::temp_dir().join(format!("hoist-compat-{:08x}", h.finish() as u32))
    };
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}

/// A folder with the programs under test under the names that the suite calls them by.
fn link(o: &OvsOptions, scratch: &Path) -> Result<PathBuf> {
    let dir = scratch.join("programs");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let wanted = o.daemon.programs();
    let built = match &o.programs {
        Some(p) => p.canonicalize().with_context(|| format!("{}: no such folder", p.display()))?,
        None if wanted.is_empty() => return Ok(dir),
        None => build(o, wanted)?,
    };
    for (name, _, ours) in wanted {
        let Some(from) = [name, ours].iter().map(|n| built.join(n)).find(|p| p.is_file()) else {
            bail!(
                "{}: there is no {name} in it (--daemon says which programs are under test)",
                built.display()
            );
        };
        std::os::unix::fs::symlink(&from, dir.join(name))?;
    }
    Ok(dir)
}

fn build(o: &OvsOptions, wanted: &[(&str, &str, &str)]) -> Result<PathBuf> {
    let mut args = vec!["build", "--quiet", "--bins"];
    for (_, package, _) in wanted {
        args.extend(["-p", package]);
    }
    if o.release {
        args.push("--release");
    }
    let status = step::cargo(&args).status().context("cannot start cargo")?;
    if !status.success() {
        bail!("our programs do not build ({status})");
    }
    let target = step::scratch()?.parent().map(Path::to_path_buf).unwrap_or_default();
    Ok(target.join(if o.release { "release" } else { "debug" }))
}
