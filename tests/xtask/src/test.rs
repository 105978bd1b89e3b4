//! `cargo xtask test`: every check, with counts.
//!
//! A test that cannot run here prints a line that begins with `skip`, in any case; such lines are collected, counted and printed at the
//! end, so that nothing is skipped silently.

use anyhow::{Result, bail};

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

/// Totals over all test binaries.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    skips: Vec<String>,
    failures: Vec<String>,
}

impl Counts {
    /// Takes in a line of libtest's output.
    fn see(&mut self, line: &str) {
        let t = line.trim();
        if let Some(rest) = t.strip_prefix("test result:") {
            for part in rest.split([';', '.']) {
                let mut w = part.split_whitespace();
                if let (Some(n), Some(what)) = (w.next().and_then(|n| n.parse::<u64>().ok()), w.next()) {
                    match what {
                        "passed" => self.passed += n,
                        "failed" => self.failed += n,
                        "ignored" => self.ignored += n,
                        _ => {}
                    }
                }
            }
        } else if is_skip(t) {
            self.skips.push(t.to_string());
        } else if t.starts_with("test ") && t.ends_with("FAILED") {
            self.failures.push(t.to_string());
        }
    }
}

/// Whether a test says that it could not run here: `skip` or `skipped`, then a colon or a blank. A name that begins so is none.
fn is_skip(line: &str) -> bool {
    let word = line.split([' ', ':']).next().unwrap_or_default();
    word.len() < line.len() && ["skip", "skipped"].iter().any(|s| word.eq_ignore_ascii_case(s))
}

/// Lines worth showing while tests run: not the thousand that say ok.
fn interesting(line: &str) -> bool {
    let t = line.trim();
    t.contains("FAILED")
        || t.contains("panicked")
        || is_skip(t)
        || t.starts_with("error")
        || t.starts_with("FIGURE")
        || t.starts_with("assertion")
        || t.starts_with("left:")
        || t.starts_with("right:")
}

/// Runs it.
///
/// # Errors
/// When a step fails; all steps are tried.
pub fn run(o: &Options) -> Result<()> {
    let begin = std::time::Instant::now();
    if !o.quick {
        setup::packages()?;
    }
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    let mut step = |title: &str, c: &mut std::process::Command, counts: Option<&mut Counts>| {
        let terse = title == "tests";
        let log = step::scratch().map(|d| d.join(format!("{}.log", title.replace(' ', "-"))));
        let mut file = log.ok().and_then(|p| std::fs::File::create(p).ok());
        let mut tests = counts;
        let result = step::run(title, c, &mut |line| {
            if let Some(f) = &mut file {
                let _ = std::io::Write::write_all(f, format!("{line}\n").as_bytes());
            }
            if let Some(t) = &mut tests {
                t.see(line);
            }
            if !terse || interesting(line) {
                println!("{line}");
            }
        });
        if let Err(e) = result {
            println!("{e:#}");
            failed.push(title.to_string());
        }
    };

    step("format", &mut step::cargo(&["fmt", "--all", "--check"]), None);
    step(
        "clippy",
        &mut step::cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        None,
    );
    // The end-to-end tests run the binaries.
    step("build", &mut step::cargo(&["build", "--quiet", "--workspace", "--bins"]), None);
    let mut args = vec!["test", "--workspace", "--no-fail-fast"];
    if o.quick {
        args.extend(["--exclude", "e2e"]);
    }
    args.push("--");
    args.extend(["--show-output", "--format", "pretty"]);
    if let Some(f) = &o.filter {
        args.push(f);
    }
    let mut tests = step::cargo(&args);
    tests.env("PROPTEST_MAX_DEFAULT_SIZE_RANGE", "64");
    if !o.quick {
        let environments = [
            ("HOIST_OSKEN_MANAGER", setup::os_ken as fn() -> Result<_>, "os-ken"),
            ("HOIST_FAUCET", setup::faucet, "Faucet"),
            ("HOIST_PYTHON_OVS", setup::python_ovs, "the Python package ovs"),
        ];
        for (variable, set_up, what) in environments {
            match set_up() {
                Ok(program) => {
                    tests.env(variable, program);
                }
                Err(e) => {
                    println!("{e:#}");
                    counts.failed += 1;
                    counts.failures.push(format!("setup of {what} FAILED"));
                }
            }
        }
    }
    step("tests", &mut tests, Some(&mut counts));
    if !o.quick && o.filter.is_none() {
        demo(&mut step, &mut counts);
    }

    println!();
    for f in &counts.failures {
        println!("{f}");
    }
    for s in &counts.skips {
        println!("{s}");
    }
    for f in &failed {
        println!("step failed: {f}");
    }
    let skipped = counts.skips.len() as u64 + counts.ignored;
    let steps_failed = failed.iter().filter(|f| *f != "tests").count() as u64;
    println!("took {:.0} s; logs are in {}", begin.elapsed().as_secs_f64(), step::scratch()?.display());
    println!("{} passed, {} failed, {skipped} skipped", counts.passed, counts.failed + steps_failed);
    if !failed.is_empty() || counts.failed > 0 {
        bail!(
            "{}",
            if failed.is_empty() { "tests failed".into() } else { format!("failed: {}", failed.join(", ")) }
        );
    }
    if counts.passed == 0 {
        bail!("no test ran");
    }
    Ok(())
}

/// The demo, both ways, with a file to replay: it checks what it claims.
fn demo(step: &mut dyn FnMut(&str, &mut std::process::Command, Option<&mut Counts>), counts: &mut Counts) {
    let Ok(dir) = step::scratch() else { return };
    let pcap = dir.join("acl100").join("in.pcap");
    let mut workload =
        step::cargo(&["run", "--quiet", "--package", "bench", "--bin", "workload", "--", "acl100"]);
    step("workload", workload.arg(&dir), None);
    for (title, more) in [("demo", None), ("demo in memory", Some("--memory"))] {
        let mut c = step::cargo(&["run", "--quiet", "--package", "xtask", "--", "demo"]);
        step(title, c.args(more).arg(&pcap), None);
    }
    for (title, what) in [("kernel lab", "tc"), ("machine lab", "vfio")] {
        let mut lab = step::cargo(&["run", "--quiet", "--package", "xtask", "--", "lab", what]);
        // It may say that it was skipped.
        step(title, &mut lab, Some(counts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let mut c = Counts::default();
        c.see(
            "test result: ok. 7 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        c.see("test result: FAILED. 1 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out");
        c.see("SKIP no namespace here");
        c.see("skipped: no ovs-ofctl");
        c.see("skip_sw_is_refused_where_the_driver_takes_no_filters");
        assert_eq!((c.passed, c.failed, c.ignored, c.skips.len()), (8, 3, 2, 2));
    }
}
