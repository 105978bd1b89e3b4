//! Tests that failed run once more, alone: what passes then needs the machine for itself, which is a defect of the test
//! (or of what it tests) that is counted and named, but does not hide what else there is to see.

use anyhow::{Result, bail};

use super::outcome::{Outcome, Program};
use crate::step;

/// With more programs than this the change is at fault, not the machine.
const MAX_PROGRAMS: usize = 4;

/// Runs what failed in `programs` again, one after another, prepared by `prepare`; the names of tests that passed then.
///
/// # Errors
/// When there are too many, or one fails again.
pub fn run(
    programs: &[Program],
    prepare: &dyn Fn(&mut std::process::Command),
    show: &dyn Fn(&str),
) -> Result<Vec<String>> {
    if programs.len() > MAX_PROGRAMS {
        bail!("{} test programs failed: none is run again", programs.len());
    }
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for p in programs {
        match one(p, prepare, show) {
            Ok(()) if p.tests.is_empty() => {
                passed.push(format!("{}, which had ended in the middle", p.arguments))
            }
            Ok(()) => passed.extend(p.tests.iter().map(|t| format!("{} {t}", p.arguments))),
            Err(e) => failed.push(format!("{e:#}")),
        }
    }
    if failed.is_empty() { Ok(passed) } else { bail!("{}", failed.join("\n")) }
}

/// Runs what failed in a program, which has to pass.
fn one(p: &Program, prepare: &dyn Fn(&mut std::process::Command), show: &dyn Fn(&str)) -> Result<()> {
    let mut args = vec!["test"];
    args.extend(p.arguments.split_whitespace());
    args.extend(["--", "--show-output", "--format", "pretty", "--test-threads", "1"]);
    if !p.tests.is_empty() {
        args.push("--exact");
        args.extend(p.tests.iter().map(String::as_str));
    }
    let mut command = step::cargo(&args);
    prepare(&mut command);
    let mut outcome = Outcome::default();
    let title = format!("again, alone: {}", p.arguments);
    step::run(&title, &mut command, &mut |line| {
        outcome.see(line);
        show(line);
    })?;
    if outcome.passed < p.tests.len().max(1) as u64 {
        bail!("{title}: {} of {} tests ran", outcome.passed, p.tests.len());
    }
    Ok(())
}
