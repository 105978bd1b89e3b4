//! `cargo xtask test`: every check, with counts.
//!
//! A test that cannot run here prints a line that begins with `skip`, in any case; such lines are collected, counted and printed at the
//! end, so that nothing is skipped silently. A test that fails runs once more, alone; when it passes then it is named
//! and counted as unsteady.

mod again;
mod outcome;

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use self::outcome::{Outcome, is_skip};
use crate::{setup, step};

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// Without end-to-end tests and demo: the inner loop.
    #[arg(long)]
    quick: bool,
    /// Only tests whose name contains this.
    #[arg(long)]
    filter: Option<String>,
}

/// What everything takes on the disk from a fresh clone on, in GiB, and a little.
const GIB: u64 = 12;

/// The same of a quick run.
const QUICK_GIB: u64 = 8;

/// Lines worth showing while tests run: not the thousand that say ok.
fn interesting(line: &str) -> bool {
    let t = line.trim();
    t.contains("FAILED")
        || t.contains("panicked")
        || is_skip(t)
        || t.starts_with("error")
        || t.starts_with("Running ")
        || t.starts_with("FIGURE")
        || t.starts_with("assertion")
        || t.starts_with("left:")
        || t.starts_with("right:")
}

/// A run of steps: all are tried, whatever fails.
#[derive(Default)]
struct Run {
    outcome: Outcome,
    /// Steps that failed.
    failed: Vec<String>,
    /// Tests and steps that failed, and passed when they were run again alone.
    unsteady: Vec<String>,
}

impl Run {
    /// Runs a step, its output kept in a log of its own; `terse` shows only what is [`interesting`]. Whether it passed.
    fn step(&mut self, title: &str, c: &mut Command, terse: bool) -> bool {
        let log = step::scratch().map(|d| d.join(format!("{}.log", title.replace(' ', "-"))));
        let mut file = log.ok().and_then(|p| std::fs::File::create(p).ok());
        let result = step::run(title, c, &mut |line| {
            if let Some(f) = &mut file {
                let _ = std::io::Write::write_all(f, format!("{line}\n").as_bytes());
            }
            self.outcome.see(line);
            if !terse || interesting(line) {
                println!("{line}");
            }
        });
        if let Err(e) = &result {
            println!("{e:#}");
        }
        result.is_ok()
    }

    /// A step that has to pass.
    fn must(&mut self, title: &str, c: &mut Command) {
        if !self.step(title, c, false) {
            self.failed.push(title.to_string());
        }
    }

    /// A step that has to pass, at the second attempt at the latest.
    fn must_in_two(&mut self, title: &str, c: &mut Command) {
        if self.step(title, c, false) {
            return;
        }
        match self.step(&format!("{title} again"), c, false) {
            true => self.unsteady.push(title.to_string()),
            false => self.failed.push(title.to_string()),
        }
    }

    /// The tests, which `prepare` prepares; what fails is run again alone.
    fn tests(&mut self, args: &[&str], prepare: &dyn Fn(&mut Command)) {
        let mut command = step::cargo(args);
        prepare(&mut command);
        if self.step("tests", &mut command, true) {
            return;
        }
        let programs = std::mem::take(&mut self.outcome.programs);
        // Without one it did not come as far as running any.
        let again = match programs.is_empty() {
            true => Err(anyhow::anyhow!("no test program failed: they do not build")),
            false => again::run(&programs, prepare, &|line| {
                if interesting(line) {
                    println!("{line}");
                }
            }),
        };
        match again {
            Ok(passed) => {
                let tests: usize = programs.iter().map(|p| p.tests.len()).sum();
                self.outcome.failed = self.outcome.failed.saturating_sub(tests as u64);
                self.outcome.passed += passed.len() as u64;
                self.unsteady.extend(passed);
            }
            Err(e) => {
                println!("{e:#}");
                self.failed.push("tests".to_string());
                for p in programs {
                    println!("{} FAILED: {}", p.arguments, p.tests.join(", "));
                }
            }
        }
    }

    /// The demo, both ways, with a file to replay, and the labs: they check what they claim.
    fn whole_programs(&mut self) -> Result<()> {
        let dir = step::scratch()?;
        let pcap = dir.join("acl100").join("in.pcap");
        let mut workload =
            step::cargo(&["run", "--quiet", "--package", "bench", "--bin", "workload", "--", "acl100"]);
        self.must("workload", workload.arg(&dir));
        for (title, more) in [("demo", None), ("demo in memory", Some("--memory"))] {
            let mut c = step::cargo(&["run", "--quiet", "--package", "xtask", "--", "demo"]);
            self.must_in_two(title, c.args(more).arg(&pcap));
        }
        for (title, what) in [("kernel lab", "tc"), ("machine lab", "vfio")] {
            let mut lab = step::cargo(&["run", "--quiet", "--package", "xtask", "--", "lab", what]);
            self.must_in_two(title, &mut lab);
        }
        Ok(())
    }

    /// Prints what there was.
    ///
    /// # Errors
    /// When something failed, or nothing ran.
    fn summary(&self, begin: Instant) -> Result<()> {
        let o = &self.outcome;
        println!();
        for r in &o.reasons {
            println!("error: {r}");
        }
        for s in &o.skips {
            println!("{s}");
        }
        for u in &self.unsteady {
            println!("unsteady: {u}: FAILED at first, passed alone");
        }
        for f in &self.failed {
            println!("step failed: {f}");
        }
        let skipped = o.skips.len() as u64 + o.ignored;
        let steps_failed = self.failed.iter().filter(|f| *f != "tests").count() as u64;
        println!("took {:.0} s; logs are in {}", begin.elapsed().as_secs_f64(), step::scratch()?.display());
        if !self.unsteady.is_empty() {
            println!("{} unsteady: passed only at the second attempt", self.unsteady.len());
        }
        println!("{} passed, {} failed, {skipped} skipped", o.passed, o.failed + steps_failed);
        if !self.failed.is_empty() {
            bail!("failed: {}", self.failed.join(", "));
        }
        if o.failed > 0 {
            bail!("tests failed");
        }
        if o.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

/// Runs it.
///
/// # Errors
/// When a step fails; all steps are tried.
pub fn run(o: &Options) -> Result<()> {
    let begin = Instant::now();
    let mut r = Run::default();
    let mut environment = Vec::new();
    step::room(if o.quick { QUICK_GIB } else { GIB })?;
    if !o.quick {
        setup::packages()?;
    }
    r.must("format", &mut step::cargo(&["fmt", "--all", "--check"]));
    r.must(
        "clippy",
        &mut step::cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    );
    // The end-to-end tests run the binaries.
    r.must("build", &mut step::cargo(&["build", "--quiet", "--workspace", "--bins"]));
    if !o.quick {
        let programs = [
            ("HOIST_OSKEN_MANAGER", setup::os_ken as fn() -> Result<_>, "os-ken"),
            ("HOIST_FAUCET", setup::faucet, "Faucet"),
            ("HOIST_PYTHON_OVS", setup::python_ovs, "the Python package ovs"),
        ];
        for (variable, set_up, what) in programs {
            match set_up() {
                Ok(program) => environment.push((variable, program)),
                Err(e) => {
                    println!("{e:#}");
                    r.failed.push(format!("setup of {what}"));
                }
            }
        }
    }
    let mut args = vec!["test", "--workspace", "--no-fail-fast"];
    if o.quick {
        args.extend(["--exclude", "e2e"]);
    }
    args.extend(["--", "--show-output", "--format", "pretty"]);
    args.extend(o.filter.as_deref());
    r.tests(&args, &|c| {
        c.env("PROPTEST_MAX_DEFAULT_SIZE_RANGE", "64").envs(environment.iter().cloned());
    });
    if !o.quick && o.filter.is_none() {
        r.whole_programs()?;
    }
    r.summary(begin)
}
